/* SPDX-License-Identifier: Apache-2.0 */
#include "record/kept.h"

#include "base/hash.h"
#include "base/time.h"

#define MAGIC "WEK1"
#define HEAD_BYTES 8
#define KIND_MAX 32u
#define NAMES_MAX 65536u

/* --- The clock -------------------------------------------------------------------------------- */

static uint32_t place_of(const struct digest_clock *c, uint64_t run)
{
    uint32_t i = 0;

    while (i < c->n && c->at[i].run != run)
        i++;
    return i;
}

bool digest_clock_is_new(const struct digest_clock *c, const struct digest *d)
{
    uint32_t i = place_of(c, d->run);

    return i == c->n || d->sequence > c->at[i].sequence;
}

void digest_clock_note(struct digest_clock *c, const struct digest *d)
{
    uint32_t i = place_of(c, d->run);
    uint64_t last = i < c->n ? c->at[i].sequence : 0;

    if (i == c->n)
        i = c->n < DIGEST_RUNS_MAX ? c->n++ : DIGEST_RUNS_MAX - 1;
    memmove(&c->at[1], &c->at[0], i * sizeof(c->at[0]));
    c->at[0].run = d->run;
    c->at[0].sequence = MAX(last, d->sequence);
}

/* --- Rows ------------------------------------------------------------------------------------- */

/* Runs of `b` that `a` does not know come last, as far as there is room. */
static void later_of(const struct digest_clock *a, const struct digest_clock *b,
                     struct digest_clock *ret)
{
    *ret = *a;
    for (uint32_t i = 0; b && i < b->n; i++) {
        uint32_t at = place_of(ret, b->at[i].run);

        if (at < ret->n)
            ret->at[at].sequence = MAX(ret->at[at].sequence, b->at[i].sequence);
        else if (ret->n < DIGEST_RUNS_MAX)
            ret->at[ret->n++] = b->at[i];
    }
}

void kept_begin(struct buf *out, str kind, const struct digest_clock *clock,
                const struct digest_clock *seen)
{
    struct digest_clock both;
    uint32_t crc = 0;

    later_of(clock, seen, &both);

    buf_clear(out);
    buf_add_str(out, S(MAGIC));
    buf_add(out, &crc, sizeof(crc));
    bytes_put_text(out, kind, KIND_MAX);
    bytes_put_u64(out, both.n);
    for (uint32_t i = 0; i < both.n; i++) {
        buf_add(out, &both.at[i].run, sizeof(both.at[i].run));
        bytes_put_u64(out, both.at[i].sequence);
    }
}

void kept_end(struct buf *out)
{
    uint32_t crc;

    if (out->overflowed)
        return;
    crc = crc32c(0, out->p + HEAD_BYTES, out->n - HEAD_BYTES);
    memcpy(out->p + 4, &crc, sizeof(crc));
}

int kept_open(str bytes, str kind, struct arena *a, struct digest_clock *ret_clock,
              struct bytes_reader *ret_body, struct err *e)
{
    struct bytes_reader r = {.p = bytes.p + HEAD_BYTES, .end = bytes.p + bytes.n, .arena = a};
    struct digest_clock clock = {0};
    uint32_t crc;

    if (bytes.n < HEAD_BYTES || bytes.n > KEPT_BYTES_MAX || memcmp(bytes.p, MAGIC, 4) != 0)
        return FAIL(e, DATA_LOSS,
                    "these %zu bytes are no kept evidence of this version (" MAGIC ")", bytes.n);
    memcpy(&crc, bytes.p + 4, sizeof(crc));
    if (crc32c(0, r.p, bytes_left(&r)) != crc)
        return FAIL(e, DATA_LOSS, "its %zu bytes are damaged", bytes.n);
    if (!str_eq(bytes_get_text(&r, KIND_MAX), kind))
        r.bad = true;
    clock.n = (uint32_t)bytes_get_upto(&r, DIGEST_RUNS_MAX);
    for (uint32_t i = 0; i < clock.n; i++) {
        bytes_get(&r, &clock.at[i].run, sizeof(clock.at[i].run));
        clock.at[i].sequence = bytes_get_u64(&r);
    }
    if (r.bad || r.no_room)
        return FAIL(e, DATA_LOSS, "its %zu bytes are malformed", bytes.n);
    *ret_clock = clock;
    *ret_body = r;
    return 0;
}

/* --- The table -------------------------------------------------------------------------------- */

int kept_put(struct meta *m, str kind, str name, const struct buf *row, struct err *e)
{
    if (row->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED,
                    "the evidence of " STR_F " '" STR_F
                    "' is larger than %zu bytes: it is not kept",
                    STR_A(kind), STR_A(name), KEPT_BYTES_MAX);
    return meta_exec(m,
                     "INSERT INTO evidence (kind, name, body, saved_ns) VALUES (?, ?, ?, ?)"
                     " ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body,"
                     " saved_ns = excluded.saved_ns",
                     M_ARGS(M_STR(kind), M_STR(name), M_BLOB(buf_str(row)), M_INT(time_wall_ns())),
                     e);
}

int kept_get(struct meta *m, str kind, str name, struct arena *a, str *ret_bytes, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;

    *ret_bytes = STR_NULL;
    TRY(meta_first(m, "SELECT body FROM evidence WHERE kind = ? AND name = ?",
                   M_ARGS(M_STR(kind), M_STR(name)), &rows, e));
    if (rows)
        *ret_bytes = arena_dup(a, meta_blob(rows, 0));
    return 0;
}

int kept_drop(struct meta *m, str kind, str name, struct err *e)
{
    return meta_exec(m, "DELETE FROM evidence WHERE kind = ? AND name = ?",
                     M_ARGS(M_STR(kind), M_STR(name)), e);
}

int kept_names(struct meta *m, str kind, struct arena *a, str **ret_names, size_t *ret_n,
               struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    int64_t count;
    size_t n = 0;
    int rc;

    TRY(meta_first_int(m, "SELECT COUNT(*) FROM evidence WHERE kind = ?", M_ARGS(M_STR(kind)), 0,
                       &count, e));
    count = CLAMP(count, INT64_C(0), (int64_t)NAMES_MAX);
    *ret_names = ARENA_ARRAY(a, str, (size_t)count + 1);
    TRY(meta_query(m, "SELECT name FROM evidence WHERE kind = ? ORDER BY name LIMIT 65536",
                   M_ARGS(M_STR(kind)), &rows, e));
    while (meta_next(rows, &rc, e))
        if (n < (size_t)count)
            (*ret_names)[n++] = meta_str_dup(rows, 0, a);
    *ret_n = n;
    return rc;
}
