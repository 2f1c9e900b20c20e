/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields of kept rows, in both directions: an owner lists its fields once, and the same list writes
 * and reads, so that the two cannot part. Reading checks: a field out of its range makes the reader
 * bad, and counts are bounded so that sums of them stay far from overflow.
 */
#pragma once

#include "record/counts.h"

#define KEPT_COUNT_MAX ((uint64_t)1 << 56)

struct kept_io {
    struct buf *out;         /* writes, or NULL */
    struct bytes_reader *in; /* reads, or NULL */
};

void kept_count(const struct kept_io *io, uint64_t *v); /* up to KEPT_COUNT_MAX */
void kept_u32(const struct kept_io *io, uint32_t *v, uint32_t max);
void kept_i64(const struct kept_io *io, int64_t *v);  /* up to KEPT_COUNT_MAX, either sign */
void kept_date(const struct kept_io *io, int64_t *v); /* up to half of the range of int64 */
void kept_bool(const struct kept_io *io, bool *v);
void kept_real(const struct kept_io *io, double *v);               /* finite */
void kept_within(const struct kept_io *io, double *v, double max); /* 0 to max */
void kept_bytes(const struct kept_io *io, void *p, size_t n);
void kept_text(const struct kept_io *io, str *s, size_t max);
void kept_cells(const struct kept_io *io, struct cells *c);
void kept_latency(const struct kept_io *io, struct latency *l);
/* What a row was gathered under, and must still be: another value makes the reader bad. */
void kept_same(const struct kept_io *io, uint64_t now);
static inline bool kept_is_bad(const struct kept_io *io)
{
    return io->in && (io->in->bad || io->in->no_room);
}
