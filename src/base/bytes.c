/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"

#include <math.h>

/* --- Writing ---------------------------------------------------------------------------------- */

void bytes_put_u64(struct buf *out, uint64_t v)
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

void bytes_put_i64(struct buf *out, int64_t v)
{
    bytes_put_u64(out, bytes_zigzag(v));
}

void bytes_put_f64(struct buf *out, double v)
{
    buf_add(out, &v, sizeof v);
}

void bytes_put_text(struct buf *out, str s, size_t max)
{
    s = str_take(s, max);
    bytes_put_u64(out, s.n);
    buf_add_str(out, s);
}

void bytes_put_counts(struct buf *out, const uint64_t *v, size_t n)
{
    uint64_t used = 0;
    size_t last = 0;

    for (size_t i = 0; i < n; i++)
        used += v[i] != 0;
    bytes_put_u64(out, used);
    for (size_t i = 0; i < n; i++)
        if (v[i]) {
            bytes_put_u64(out, i - last);
            bytes_put_u64(out, v[i]);
            last = i;
        }
}

/* --- Reading ---------------------------------------------------------------------------------- */

uint64_t bytes_get_u64(struct bytes_reader *r)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        unsigned char byte;

        if (r->p == r->end)
            break;
        byte = (unsigned char)*r->p++;
        if (shift == 63 && byte > 1)
            break;
        v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return v;
    }
    r->bad = true;
    return 0;
}

uint64_t bytes_get_upto(struct bytes_reader *r, uint64_t max)
{
    uint64_t v = bytes_get_u64(r);

    if (v <= max)
        return v;
    r->bad = true;
    return 0;
}

int64_t bytes_get_i64(struct bytes_reader *r)
{
    return bytes_unzigzag(bytes_get_u64(r));
}

int64_t bytes_get_i64_within(struct bytes_reader *r, int64_t max)
{
    int64_t v = bytes_get_i64(r);

    if (v >= -max && v <= max)
        return v;
    r->bad = true;
    return 0;
}

void bytes_get(struct bytes_reader *r, void *to, size_t n)
{
    memset(to, 0, n);
    if (bytes_left(r) < n) {
        r->bad = true;
        return;
    }
    memcpy(to, r->p, n);
    r->p += n;
}

double bytes_get_f64(struct bytes_reader *r)
{
    double v;

    bytes_get(r, &v, sizeof v);
    return v;
}

double bytes_get_finite(struct bytes_reader *r)
{
    double v = bytes_get_f64(r);

    if (isfinite(v))
        return v;
    r->bad = true;
    return 0;
}

str bytes_get_text(struct bytes_reader *r, size_t max)
{
    uint64_t n = bytes_get_upto(r, max);
    str s;

    if (n > bytes_left(r))
        r->bad = true;
    if (r->bad)
        return STR_NULL;
    s = arena_dup(r->arena, (str){r->p, n});
    r->no_room |= !s.p;
    r->p += n;
    return s;
}

void bytes_get_counts(struct bytes_reader *r, uint64_t *v, size_t n)
{
    uint64_t used = bytes_get_upto(r, n);
    uint64_t at = 0;

    for (uint64_t i = 0; i < used && !r->bad; i++) {
        uint64_t step = bytes_get_upto(r, n - 1 - at);

        at += step;
        if (r->bad || (i > 0 && step == 0)) {
            r->bad = true;
            return;
        }
        v[at] = bytes_get_u64(r);
        r->bad |= v[at] == 0;
    }
}
