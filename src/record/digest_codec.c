/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The binary form of a digest.
 *
 *     "WDG2", u32 crc32c of the rest, then numbers, texts and sparse tables (latency, cells,
 *     confusion) as base/bytes.h writes them.
 *
 * The scalars come in the order of two tables below, so that the writer and the reader cannot part.
 * A new field goes to the end of its table and makes a new magic.
 *
 * Reading trusts nothing: a cursor with a sticky failure, every index checked, every allocation
 * from the caller's arena and checked. Whether the numbers make sense is for the monitors.
 */
#include "record/digest.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "record/counts.h"

#define MAGIC "WDG2"
#define TEXT_MAX 256u

#define DIGEST_SCALARS(X) \
    X(sequence)           \
    X(dropped_ring)       \
    X(dropped_disk) X(recorded) X(segment_bytes) X(feedback) X(feedback_late) X(join_evicted) X(run)
#define LABEL_SCALARS(X) X(joined) X(corrected) X(duplicates) X(errors) X(unusable) X(delay_ms_sum)
#define PAIRED_SCALARS(X) \
    X(compared)           \
    X(agreed) X(outcome[0][0]) X(outcome[0][1]) X(outcome[1][0]) X(outcome[1][1]) X(loss_diff_count)

enum part { PART_LATENCY = 1, PART_CELLS = 2, PART_LABELS = 4, PART_PAIRED = 8, PART_SHADOW = 16 };

/* --- Writing ------------------------------------------------------------------------------- */

static void put_labels(struct buf *out, const struct digest_labels *l)
{
    const int64_t *table = &l->confusion[0][0];
    uint64_t zigzag[RECORD_CLASSES_MAX * RECORD_CLASSES_MAX];

#define X(field) bytes_put_i64(out, l->field);
    LABEL_SCALARS(X)
#undef X
    bytes_put_f64(out, l->squared_error);
    bytes_put_f64(out, l->absolute_error);
    for (size_t i = 0; i < ARRAY_LEN(zigzag); i++)
        zigzag[i] = bytes_zigzag(table[i]);
    bytes_put_counts(out, zigzag, ARRAY_LEN(zigzag));
}

static void put_paired(struct buf *out, const struct digest_paired *p)
{
#define X(field) bytes_put_i64(out, p->field);
    PAIRED_SCALARS(X)
#undef X
    bytes_put_f64(out, p->loss_diff);
    bytes_put_f64(out, p->loss_diff_squared);
}

static bool any_byte(const void *p, size_t n)
{
    const unsigned char *bytes = p;

    for (size_t i = 0; i < n; i++)
        if (bytes[i])
            return true;
    return false;
}

static bool any_cells(const struct digest_series *s)
{
    return s->cells && s->rows > 0 && any_byte(s->cells, s->column_count * sizeof *s->cells);
}

static void put_series(struct buf *out, const struct digest_series *s)
{
    unsigned parts = (s->latency && s->latency->n ? PART_LATENCY : 0) |
                     (any_cells(s) ? PART_CELLS : 0) | (s->shadow ? PART_SHADOW : 0) |
                     (any_byte(&s->labels, sizeof s->labels) ? PART_LABELS : 0) |
                     (any_byte(&s->paired, sizeof s->paired) ? PART_PAIRED : 0);

    bytes_put_text(out, s->endpoint, TEXT_MAX);
    bytes_put_text(out, s->version, TEXT_MAX);
    buf_add(out, &s->schema_hash, sizeof s->schema_hash);
    bytes_put_u64(out, parts);
    bytes_put_u64(out, s->arm);
    bytes_put_u64(out, s->feature_count);
    bytes_put_u64(out, s->column_count);
    bytes_put_u64(out, s->requests);
    bytes_put_u64(out, s->rows);
    bytes_put_counts(out, s->status, ARRAY_LEN(s->status));
    bytes_put_counts(out, s->flags, ARRAY_LEN(s->flags));
    if (parts & PART_LATENCY)
        counts_put_latency(out, s->latency);
    for (uint32_t i = 0; (parts & PART_CELLS) && i < s->column_count; i++)
        counts_put_cells(out, &s->cells[i]);
    if (parts & PART_LABELS)
        put_labels(out, &s->labels);
    if (parts & PART_PAIRED)
        put_paired(out, &s->paired);
}

void digest_encode(const struct digest *d, struct buf *out)
{
    size_t start = out->n;
    uint32_t crc = 0;

    buf_add_str(out, S(MAGIC));
    buf_add(out, &crc, sizeof crc);
    bytes_put_text(out, d->gateway, TEXT_MAX);
    bytes_put_text(out, d->plan, TEXT_MAX);
    bytes_put_i64(out, d->from_wall_ns);
    bytes_put_i64(out, d->to_wall_ns);
#define X(field) bytes_put_u64(out, d->field);
    DIGEST_SCALARS(X)
#undef X
    bytes_put_u64(out, (uint64_t)d->disk_failing | (uint64_t)d->partial << 1);
    bytes_put_u64(out, d->series_count);
    for (uint32_t i = 0; i < d->series_count; i++)
        put_series(out, d->series[i]);
    if (out->overflowed)
        return;
    crc = crc32c(0, out->p + start + 8, out->n - start - 8);
    memcpy(out->p + start + 4, &crc, sizeof crc);
}

/* --- Reading ------------------------------------------------------------------------------- */

static void get_labels(struct bytes_reader *c, struct digest_labels *l)
{
    uint64_t zigzag[RECORD_CLASSES_MAX * RECORD_CLASSES_MAX] = {0};
    int64_t *table = &l->confusion[0][0];

#define X(field) l->field = bytes_get_i64(c);
    LABEL_SCALARS(X)
#undef X
    l->squared_error = bytes_get_f64(c);
    l->absolute_error = bytes_get_f64(c);
    bytes_get_counts(c, zigzag, ARRAY_LEN(zigzag));
    for (size_t i = 0; i < ARRAY_LEN(zigzag); i++)
        table[i] = bytes_unzigzag(zigzag[i]);
}

static void get_paired(struct bytes_reader *c, struct digest_paired *p)
{
#define X(field) p->field = bytes_get_i64(c);
    PAIRED_SCALARS(X)
#undef X
    p->loss_diff = bytes_get_f64(c);
    p->loss_diff_squared = bytes_get_f64(c);
}

static void get_latency(struct bytes_reader *c, struct digest_series *s)
{
    s->latency = ARENA_NEW(c->arena, struct latency);
    c->no_room |= !s->latency;
    if (s->latency)
        counts_get_latency(c, s->latency);
}

static void get_cells(struct bytes_reader *c, struct digest_series *s)
{
    /* Two bytes at least for each column: nobody gets memory for columns that are not there. */
    if (bytes_left(c) < 2 * (size_t)s->column_count) {
        c->bad = true;
        return;
    }
    s->cells = ARENA_ARRAY(c->arena, struct cells, s->column_count);
    c->no_room |= !s->cells;
    for (uint32_t i = 0; s->cells && i < s->column_count && !c->bad; i++)
        counts_get_cells(c, &s->cells[i]);
}

static void get_series(struct bytes_reader *c, struct digest *d, struct err *e)
{
    struct digest_series *s = ARENA_NEW(c->arena, struct digest_series);
    uint64_t parts;

    c->no_room |= !s;
    if (!s)
        return;
    s->endpoint = bytes_get_text(c, TEXT_MAX);
    s->version = bytes_get_text(c, TEXT_MAX);
    bytes_get(c, &s->schema_hash, sizeof s->schema_hash);
    parts = bytes_get_upto(c, 2 * PART_SHADOW - 1);
    s->shadow = (parts & PART_SHADOW) != 0;
    s->arm = (uint8_t)bytes_get_upto(c, UINT8_MAX);
    s->feature_count = (uint32_t)bytes_get_upto(c, RECORD_COLUMNS_MAX);
    s->column_count = (uint32_t)bytes_get_upto(c, RECORD_COLUMNS_MAX);
    c->bad |= s->feature_count > s->column_count;
    s->requests = bytes_get_u64(c);
    s->rows = bytes_get_u64(c);
    bytes_get_counts(c, s->status, ARRAY_LEN(s->status));
    bytes_get_counts(c, s->flags, ARRAY_LEN(s->flags));
    if (!c->bad && (parts & PART_LATENCY))
        get_latency(c, s);
    if (!c->bad && (parts & PART_CELLS))
        get_cells(c, s);
    if (!c->bad && (parts & PART_LABELS))
        get_labels(c, &s->labels);
    if (!c->bad && (parts & PART_PAIRED))
        get_paired(c, &s->paired);
    if (!c->bad && !c->no_room && digest_add_series(d, s, e))
        c->no_room = true;
}

int digest_decode(str bytes, struct arena *a, struct digest *ret_digest, struct err *e)
{
    struct bytes_reader c = {.p = bytes.p, .end = bytes.p + bytes.n, .arena = a};
    struct digest d;
    uint64_t count, bits;
    uint32_t crc;

    digest_init(&d, a);
    if (bytes.n < 8 || bytes.n > DIGEST_BYTES_MAX || memcmp(bytes.p, MAGIC, 4) != 0)
        return FAIL(e, DATA_LOSS, "these %zu bytes are no digest of this version (" MAGIC ")",
                    bytes.n);
    memcpy(&crc, bytes.p + 4, sizeof crc);
    if (crc32c(0, bytes.p + 8, bytes.n - 8) != crc)
        return FAIL(e, DATA_LOSS, "a digest of %zu bytes arrived damaged", bytes.n);
    c.p += 8;
    d.gateway = bytes_get_text(&c, TEXT_MAX);
    d.plan = bytes_get_text(&c, TEXT_MAX);
    d.from_wall_ns = bytes_get_i64(&c);
    d.to_wall_ns = bytes_get_i64(&c);
#define X(field) d.field = bytes_get_u64(&c);
    DIGEST_SCALARS(X)
#undef X
    bits = bytes_get_upto(&c, 3);
    d.disk_failing = bits & 1;
    d.partial = bits >> 1;
    count = bytes_get_upto(&c, DIGEST_SERIES_MAX);
    for (uint64_t i = 0; i < count && !c.bad && !c.no_room; i++)
        get_series(&c, &d, e);
    if (c.bad || (!c.no_room && c.p != c.end))
        return FAIL(e, DATA_LOSS, "a digest of %zu bytes is malformed", bytes.n);
    if (c.no_room)
        return FAIL(e, RESOURCE_EXHAUSTED, "a digest of %zu bytes needs more memory than allowed",
                    bytes.n);
    *ret_digest = d;
    return 0;
}
