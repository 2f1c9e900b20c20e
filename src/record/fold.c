/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folding: from rows to counts.
 *
 * This runs once per record and dominates the price of watching, so the common case (leading F32
 * features that all have cells) is one call that walks the row as an array of floats; whatever else
 * a row may hold takes the general path, column by column.
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
    struct cells **into;           /* pointers to numbers->cells, for cells_fold_row_f32 */
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
    fs->into = ARENA_ARRAY(&f->arena, struct cells *, s->column_count + 1);
    for (uint32_t i = 0; i < s->column_count; i++)
        fs->into[i] = &fs->numbers->cells[i];
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

static void fold_rows(struct fold_series *fs, const struct record_head *h,
                      const struct record_schema *s)
{
    const unsigned char *row = record_rows(h);
    uint32_t columns = h->flags & RECORD_FALLBACK ? s->feature_count : s->column_count;
    uint32_t fast = MIN(s->f32_folded, columns);

    for (uint32_t i = 0; i < h->row_count; i++, row = record_row_after(s, row)) {
        if (fast)
            cells_fold_row_f32(s->cells, (const float *)(const void *)(row + s->columns[0].at),
                               fast, fs->into);
        for (uint32_t k = fast; k < columns; k++)
            if (s->cells[k])
                fold_column(s->cells[k], fs->into[k], s, k, row);
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

void fold_reset(struct fold *f)
{
    for (uint32_t i = 0; i < f->digest.series_count; i++) {
        struct digest_series *d = f->digest.series[i];

        digest_series_clear(d);
        f->by_id[d->schema->id][2 * d->arm + d->shadow].touched = false;
    }
    f->digest.series_count = 0;
}
