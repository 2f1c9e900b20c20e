/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compact binary forms: numbers as LEB128 varints (signed ones zigzag), texts as length and bytes,
 * doubles as 8 bytes little-endian, tables sparse. What writes and what reads a form lie in one
 * file each; here are the words they share.
 *
 * Reading trusts nothing: failure is sticky, a read past the end gives zeros, so a reader reads on
 * and asks once at the end.
 */
#pragma once

#include "base/arena.h"
#include "base/buf.h"

void bytes_put_u64(struct buf *out, uint64_t v);
void bytes_put_i64(struct buf *out, int64_t v);
void bytes_put_f64(struct buf *out, double v);
void bytes_put_text(struct buf *out, str s, size_t max); /* cut at max */
/* The number of entries that are not 0, then for each the distance from the one before and it. */
void bytes_put_counts(struct buf *out, const uint64_t *v, size_t n);

struct bytes_reader {
    const char *p, *end;
    struct arena *arena; /* of texts */
    bool bad;            /* sticky: the bytes are not of this form */
    bool no_room;        /* sticky: the arena is full */
};

static inline size_t bytes_left(const struct bytes_reader *r)
{
    return (size_t)(r->end - r->p);
}
uint64_t bytes_get_u64(struct bytes_reader *r);
uint64_t bytes_get_upto(struct bytes_reader *r, uint64_t max); /* above: bad */
int64_t bytes_get_i64(struct bytes_reader *r);
/* Of a magnitude of at most `max`, so that sums of such numbers stay far from overflow. */
int64_t bytes_get_i64_within(struct bytes_reader *r, int64_t max);
double bytes_get_f64(struct bytes_reader *r);
double bytes_get_finite(struct bytes_reader *r); /* NaN and infinities: bad */
void bytes_get(struct bytes_reader *r, void *to, size_t n);
str bytes_get_text(struct bytes_reader *r, size_t max); /* a copy in the arena */
/* v[0..n), zeroed before by the caller. */
void bytes_get_counts(struct bytes_reader *r, uint64_t *v, size_t n);

/* Signed numbers as unsigned ones whose small values are small. */
static inline uint64_t bytes_zigzag(int64_t v)
{
    return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}
static inline int64_t bytes_unzigzag(uint64_t v)
{
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}
