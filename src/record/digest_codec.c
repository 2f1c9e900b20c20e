/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The binary form of a digest.
 *
 *     "WDG1", u32 crc32c of the rest, then numbers as LEB128 varints (signed ones zigzag), texts as
 *     length and bytes, doubles as 8 bytes little-endian. Tables (latency, cells, confusion) are
 *     sparse: the number of entries that are not zero, then for each the distance from the one
 *     before and its value.
 *
 * The scalars come in the order of two tables below, so that the writer and the reader cannot part.
 * A new field goes to the end of its table and makes a new magic.
 *
 * Reading trusts nothing: a cursor with a sticky failure, every index checked, every allocation
 * from the caller's arena and checked. Whether the numbers make sense is for the monitors.
 */
#include "record/digest.h"

#include "base/buf.h"
#include "base/hash.h"

#define MAGIC "WDG1"
#define TEXT_MAX 256u

#define DIGEST_SCALARS(X) \
    X(sequence)           \
    X(dropped_ring)       \
    X(dropped_disk) X(recorded) X(segment_bytes) X(feedback) X(feedback_late) X(join_evicted)
#define LABEL_SCALARS(X) X(joined) X(corrected) X(duplicates) X(errors) X(unusable) X(delay_ms_sum)
#define PAIRED_SCALARS(X) \
    X(compared)           \
    X(agreed) X(outcome[0][0]) X(outcome[0][1]) X(outcome[1][0]) X(outcome[1][1]) X(loss_diff_count)

enum part { PART_LATENCY = 1, PART_CELLS = 2, PART_LABELS = 4, PART_PAIRED = 8, PART_SHADOW = 16 };

/* --- Writing ------------------------------------------------------------------------------- */

static void put_u64(struct buf *out, uint64_t v)
{
    unsigned char bytes[10];
    size_t n = 0;

    do {
        bytes[n] = (unsigned char)(v & 127);
        v >>= 7;
        if (v)
            bytes[n] |= 128;
        n++;
    } while (v);
    buf_add(out, bytes, n);
}

static void put_i64(struct buf *out, int64_t v)
{
    put_u64(out, ((uint64_t)v << 1) ^ (uint64_t)(v >> 63));
}

static void put_f64(struct buf *out, double v)
{
    buf_add(out, &v, sizeof v);
}

static void put_text(struct buf *out, str s)
{
    s = str_take(s, TEXT_MAX);
    put_u64(out, s.n);
    buf_add_str(out, s);
}

static void put_counts(struct buf *out, const uint64_t *v, size_t n)
{
    uint64_t used = 0;
    size_t last = 0;

    for (size_t i = 0; i < n; i++)
        used += v[i] != 0;
    put_u64(out, used);
    for (size_t i = 0; i < n; i++)
        if (v[i]) {
            put_u64(out, i - last);
            put_u64(out, v[i]);
            last = i;
        }
}

static void put_labels(struct buf *out, const struct digest_labels *l)
{
    const int64_t *table = &l->confusion[0][0];
    uint64_t zigzag[RECORD_CLASSES_MAX * RECORD_CLASSES_MAX];

#define X(field) put_i64(out, l->field);
    LABEL_SCALARS(X)
#undef X
    put_f64(out, l->squared_error);
    put_f64(out, l->absolute_error);
    for (size_t i = 0; i < ARRAY_LEN(zigzag); i++)
        zigzag[i] = ((uint64_t)table[i] << 1) ^ (uint64_t)(table[i] >> 63);
    put_counts(out, zigzag, ARRAY_LEN(zigzag));
}

static void put_paired(struct buf *out, const struct digest_paired *p)
{
#define X(field) put_i64(out, p->field);
    PAIRED_SCALARS(X)
#undef X
    put_f64(out, p->loss_diff);
    put_f64(out, p->loss_diff_squared);
}

static void put_latency(struct buf *out, const struct latency *l)
{
    put_u64(out, l->n);
    put_u64(out, l->sum_ns);
    put_u64(out, l->min_ns);
    put_u64(out, l->max_ns);
    put_counts(out, l->counts, LATENCY_BUCKETS);
}

static void put_cells(struct buf *out, const struct cells *c)
{
    put_u64(out, c->n);
    if (c->n) {
        put_f64(out, c->sum);
        put_f64(out, c->sumsq);
    }
    put_counts(out, c->counts, CELLS_MAX);
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

    put_text(out, s->endpoint);
    put_text(out, s->version);
    buf_add(out, &s->schema_hash, sizeof s->schema_hash);
    put_u64(out, parts);
    put_u64(out, s->arm);
    put_u64(out, s->feature_count);
    put_u64(out, s->column_count);
    put_u64(out, s->requests);
    put_u64(out, s->rows);
    put_counts(out, s->status, ARRAY_LEN(s->status));
    put_counts(out, s->flags, ARRAY_LEN(s->flags));
    if (parts & PART_LATENCY)
        put_latency(out, s->latency);
    for (uint32_t i = 0; (parts & PART_CELLS) && i < s->column_count; i++)
        put_cells(out, &s->cells[i]);
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
    put_text(out, d->gateway);
    put_text(out, d->plan);
    put_i64(out, d->from_wall_ns);
    put_i64(out, d->to_wall_ns);
#define X(field) put_u64(out, d->field);
    DIGEST_SCALARS(X)
#undef X
    put_u64(out, (uint64_t)d->disk_failing | (uint64_t)d->partial << 1);
    put_u64(out, d->series_count);
    for (uint32_t i = 0; i < d->series_count; i++)
        put_series(out, d->series[i]);
    if (out->overflowed)
        return;
    crc = crc32c(0, out->p + start + 8, out->n - start - 8);
    memcpy(out->p + start + 4, &crc, sizeof crc);
}

/* --- Reading ------------------------------------------------------------------------------- */

struct cursor {
    const char *p, *end;
    struct arena *arena;
    bool bad;     /* sticky: the bytes are no digest */
    bool no_room; /* sticky: the arena is full */
};

static uint64_t get_u64(struct cursor *c)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        unsigned char byte;

        if (c->p == c->end)
            break;
        byte = (unsigned char)*c->p++;
        if (shift == 63 && byte > 1)
            break;
        v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return v;
    }
    c->bad = true;
    return 0;
}

/* A number that must not pass a limit. */
static uint64_t get_upto(struct cursor *c, uint64_t max)
{
    uint64_t v = get_u64(c);

    if (v <= max)
        return v;
    c->bad = true;
    return 0;
}

static int64_t unzigzag(uint64_t v)
{
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

static int64_t get_i64(struct cursor *c)
{
    return unzigzag(get_u64(c));
}

static void get_bytes(struct cursor *c, void *to, size_t n)
{
    memset(to, 0, n);
    if ((size_t)(c->end - c->p) < n) {
        c->bad = true;
        return;
    }
    memcpy(to, c->p, n);
    c->p += n;
}

static double get_f64(struct cursor *c)
{
    double v;

    get_bytes(c, &v, sizeof v);
    return v;
}

static str get_text(struct cursor *c)
{
    uint64_t n = get_upto(c, TEXT_MAX);
    str s;

    if (n > (uint64_t)(c->end - c->p))
        c->bad = true;
    if (c->bad)
        return STR_NULL;
    s = arena_dup(c->arena, (str){c->p, n});
    c->no_room |= !s.p;
    c->p += n;
    return s;
}

static void get_counts(struct cursor *c, uint64_t *v, size_t n)
{
    uint64_t used = get_upto(c, n);
    uint64_t at = 0;

    for (uint64_t i = 0; i < used && !c->bad; i++) {
        uint64_t step = get_upto(c, n - 1 - at);

        at += step;
        if (c->bad || (i > 0 && step == 0)) {
            c->bad = true;
            return;
        }
        v[at] = get_u64(c);
        c->bad |= v[at] == 0;
    }
}

static void get_labels(struct cursor *c, struct digest_labels *l)
{
    uint64_t zigzag[RECORD_CLASSES_MAX * RECORD_CLASSES_MAX] = {0};
    int64_t *table = &l->confusion[0][0];

#define X(field) l->field = get_i64(c);
    LABEL_SCALARS(X)
#undef X
    l->squared_error = get_f64(c);
    l->absolute_error = get_f64(c);
    get_counts(c, zigzag, ARRAY_LEN(zigzag));
    for (size_t i = 0; i < ARRAY_LEN(zigzag); i++)
        table[i] = unzigzag(zigzag[i]);
}

static void get_paired(struct cursor *c, struct digest_paired *p)
{
#define X(field) p->field = get_i64(c);
    PAIRED_SCALARS(X)
#undef X
    p->loss_diff = get_f64(c);
    p->loss_diff_squared = get_f64(c);
}

static void get_latency(struct cursor *c, struct digest_series *s)
{
    struct latency *l = ARENA_NEW(c->arena, struct latency);

    c->no_room |= !l;
    if (!l)
        return;
    s->latency = l;
    l->n = get_u64(c);
    l->sum_ns = get_u64(c);
    l->min_ns = get_u64(c);
    l->max_ns = get_u64(c);
    get_counts(c, l->counts, LATENCY_BUCKETS);
}

static void get_cells(struct cursor *c, struct digest_series *s)
{
    /* Two bytes at least for each column: nobody gets memory for columns that are not there. */
    if ((uint64_t)(c->end - c->p) < 2 * (uint64_t)s->column_count) {
        c->bad = true;
        return;
    }
    s->cells = ARENA_ARRAY(c->arena, struct cells, s->column_count);
    c->no_room |= !s->cells;
    for (uint32_t i = 0; s->cells && i < s->column_count && !c->bad; i++) {
        s->cells[i].n = get_u64(c);
        if (s->cells[i].n) {
            s->cells[i].sum = get_f64(c);
            s->cells[i].sumsq = get_f64(c);
        }
        get_counts(c, s->cells[i].counts, CELLS_MAX);
    }
}

static void get_series(struct cursor *c, struct digest *d, struct err *e)
{
    struct digest_series *s = ARENA_NEW(c->arena, struct digest_series);
    uint64_t parts;

    c->no_room |= !s;
    if (!s)
        return;
    s->endpoint = get_text(c);
    s->version = get_text(c);
    get_bytes(c, &s->schema_hash, sizeof s->schema_hash);
    parts = get_upto(c, 2 * PART_SHADOW - 1);
    s->shadow = (parts & PART_SHADOW) != 0;
    s->arm = (uint8_t)get_upto(c, UINT8_MAX);
    s->feature_count = (uint32_t)get_upto(c, RECORD_COLUMNS_MAX);
    s->column_count = (uint32_t)get_upto(c, RECORD_COLUMNS_MAX);
    c->bad |= s->feature_count > s->column_count;
    s->requests = get_u64(c);
    s->rows = get_u64(c);
    get_counts(c, s->status, ARRAY_LEN(s->status));
    get_counts(c, s->flags, ARRAY_LEN(s->flags));
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
    struct cursor c = {.p = bytes.p, .end = bytes.p + bytes.n, .arena = a};
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
    d.gateway = get_text(&c);
    d.plan = get_text(&c);
    d.from_wall_ns = get_i64(&c);
    d.to_wall_ns = get_i64(&c);
#define X(field) d.field = get_u64(&c);
    DIGEST_SCALARS(X)
#undef X
    bits = get_upto(&c, 3);
    d.disk_failing = bits & 1;
    d.partial = bits >> 1;
    count = get_upto(&c, DIGEST_SERIES_MAX);
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
