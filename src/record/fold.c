/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folding: from rows to counts.
 *
 * This runs once per record and dominates the price of watching. So the common case (leading F32
 * features that all have cells) is not counted row by row: rows gather in a small stage, turned so
 * that each column lies together, and a full stage is counted column by column (cells_column.c).
 * Whatever else a row may hold takes the general path at once. fold_settle() counts what is staged
 * before anybody reads the cells.
 *
 * A series is made when its first record comes and kept for good; only the series that were touched
 * since the last digest are in the running digest, and only those are zeroed.
 */
#include "record/fold.h"

#include "base/mem.h"

#include <sys/mman.h>

#define VARIANTS (2 * RECORD_ARMS_MAX) /* arm, shadow */
#define BY_ID_BYTES (RECORD_SCHEMAS_MAX * sizeof(struct fold_series *))

struct fold_series {
    struct digest_series *numbers; /* NULL until the first record */
    struct cells_f32 *narrow;      /* of the columns that are staged */
    float *stage;                  /* [column][CELLS_COLUMN_ROWS] */
    uint32_t staged;               /* rows */
    bool touched;
};

void fold_init(struct fold *f)
{
    *f = (struct fold){0};
    arena_init(&f->arena, 0);
    digest_init(&f->digest, &f->arena);
    /* Half a megabyte of which a gateway touches a page or two. */
    f->by_id = mmap(NULL, BY_ID_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT(f->by_id != MAP_FAILED);
}

void fold_done(struct fold *f)
{
    if (f->by_id)
        munmap(f->by_id, BY_ID_BYTES);
    arena_done(&f->arena);
    *f = (struct fold){0};
}

static void series_make(struct fold *f, struct fold_series *fs, const struct record_schema *s,
                        uint8_t arm, bool shadow)
{
    fs->numbers = digest_series_new(&f->arena, s, arm, shadow);
    if (!s->cells)
        return;
    fs->narrow = ARENA_ARRAY(&f->arena, struct cells_f32, s->f32_folded + 1);
    fs->stage = ARENA_ARRAY(&f->arena, float, s->f32_folded *CELLS_COLUMN_ROWS + 1);
    for (uint32_t i = 0; i < s->f32_folded; i++)
        cells_f32_of(s->cells[i], &fs->narrow[i]);
}

static struct fold_series *lookup(struct fold *f, const struct record_schema *s, uint8_t arm,
                                  bool shadow)
{
    struct fold_series *fs;

    ASSERT(arm < RECORD_ARMS_MAX);
    if (UNLIKELY(!f->by_id[s->id]))
        f->by_id[s->id] = ARENA_ARRAY(&f->arena, struct fold_series, VARIANTS);
    fs = &f->by_id[s->id][2 * arm + shadow];
    if (UNLIKELY(!fs->numbers))
        series_make(f, fs, s, arm, shadow);
    /* Past the limit of a digest the numbers wait in the series for the next one. */
    if (!fs->touched)
        fs->touched = digest_add_series(&f->digest, fs->numbers, NULL) == 0;
    return fs;
}

struct digest_series *fold_series(struct fold *f, const struct record_schema *s, uint8_t arm,
                                  bool shadow)
{
    return lookup(f, s, arm, shadow)->numbers;
}

static void fold_column(const struct cells_spec *spec, struct cells *c,
                        const struct record_schema *s, uint32_t column, const unsigned char *row)
{
    if (s->columns[column].type != RECORD_STR) {
        cells_fold_f64(spec, c, record_row_number(s, column, row));
    } else {
        str text = record_row_text(s, column, row);

        if (text.p)
            cells_fold_hash(spec, c, cells_key_str(text));
        else
            cells_fold_missing(spec, c);
    }
}

/* Counts the staged rows: a full stage by columns, a part of one value by value. */
static void count_stage(struct fold_series *fs)
{
    const struct record_schema *s = fs->numbers->schema;

    for (uint32_t k = 0; k < s->f32_folded; k++) {
        const float *x = fs->stage + (size_t)k * CELLS_COLUMN_ROWS;
        struct cells *c = &fs->numbers->cells[k];

        if (fs->staged == CELLS_COLUMN_ROWS)
            cells_fold_column_f32(s->cells[k], &fs->narrow[k], c, x);
        for (uint32_t i = 0; fs->staged < CELLS_COLUMN_ROWS && i < fs->staged; i++)
            cells_fold_f32(s->cells[k], c, x[i]);
    }
    fs->staged = 0;
}

static void stage_row(struct fold_series *fs, const float *x, uint32_t n)
{
    float *to = fs->stage + fs->staged;

    for (uint32_t k = 0; k < n; k++, to += CELLS_COLUMN_ROWS)
        *to = x[k];
    if (++fs->staged == CELLS_COLUMN_ROWS)
        count_stage(fs);
}

static void fold_rows(struct fold_series *fs, const struct record_head *h,
                      const struct record_schema *s)
{
    const unsigned char *row = record_rows(h);
    uint32_t columns = h->flags & RECORD_FALLBACK ? s->feature_count : s->column_count;
    uint32_t fast = s->f32_folded <= columns ? s->f32_folded : 0;

    for (uint32_t i = 0; i < h->row_count; i++, row = record_row_after(s, row)) {
        if (fast)
            stage_row(fs, (const float *)(const void *)(row + s->columns[0].at), fast);
        for (uint32_t k = fast; k < columns; k++)
            if (s->cells[k])
                fold_column(s->cells[k], &fs->numbers->cells[k], s, k, row);
    }
}

void fold_record(struct fold *f, const struct record_head *h, const struct record_schema *s,
                 bool with_cells)
{
    struct fold_series *fs = lookup(f, s, h->arm, h->kind == RECORD_SHADOW);
    struct digest_series *d = fs->numbers;
    unsigned status = h->http_status / 100u;

    d->rows += h->row_count;
    if (h->row_first == 0) { /* the first record of a request stands for the request */
        d->requests++;
        d->status[status < ARRAY_LEN(d->status) ? status : 0]++;
        for (unsigned bits = h->flags; bits; bits &= bits - 1)
            d->flags[__builtin_ctz(bits)]++;
        latency_record(d->latency, (uint64_t)h->latency_us * 1000);
    }
    if (with_cells && s->cells)
        fold_rows(fs, h, s);
}

void fold_settle(struct fold *f)
{
    for (uint32_t i = 0; i < f->digest.series_count; i++) {
        const struct digest_series *d = f->digest.series[i];
        struct fold_series *fs = &f->by_id[d->schema->id][2 * d->arm + d->shadow];

        if (fs->staged)
            count_stage(fs);
    }
}

void fold_reset(struct fold *f)
{
    for (uint32_t i = 0; i < f->digest.series_count; i++) {
        struct digest_series *d = f->digest.series[i];

        digest_series_clear(d);
        f->by_id[d->schema->id][2 * d->arm + d->shadow].touched = false;
    }
    f->digest.series_count = 0;
}
