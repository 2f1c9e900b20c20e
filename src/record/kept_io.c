/* SPDX-License-Identifier: Apache-2.0 */
#include "record/kept_io.h"

void kept_count(const struct kept_io *io, uint64_t *v)
{
    if (io->out)
        bytes_put_u64(io->out, *v);
    else
        *v = bytes_get_upto(io->in, KEPT_COUNT_MAX);
}

void kept_u32(const struct kept_io *io, uint32_t *v, uint32_t max)
{
    if (io->out)
        bytes_put_u64(io->out, *v);
    else
        *v = (uint32_t)bytes_get_upto(io->in, max);
}

void kept_i64(const struct kept_io *io, int64_t *v)
{
    if (io->out)
        bytes_put_i64(io->out, *v);
    else
        *v = bytes_get_i64_within(io->in, (int64_t)KEPT_COUNT_MAX);
}

void kept_date(const struct kept_io *io, int64_t *v)
{
    if (io->out)
        bytes_put_i64(io->out, *v);
    else
        *v = bytes_get_i64_within(io->in, INT64_MAX / 2);
}

void kept_bool(const struct kept_io *io, bool *v)
{
    uint32_t bit = *v;

    kept_u32(io, &bit, 1);
    *v = bit != 0;
}

void kept_real(const struct kept_io *io, double *v)
{
    if (io->out)
        bytes_put_f64(io->out, *v);
    else
        *v = bytes_get_finite(io->in);
}

void kept_within(const struct kept_io *io, double *v, double max)
{
    kept_real(io, v);
    if (io->in && !(*v >= 0 && *v <= max)) {
        io->in->bad = true;
        *v = 0;
    }
}

void kept_bytes(const struct kept_io *io, void *p, size_t n)
{
    if (io->out)
        buf_add(io->out, p, n);
    else
        bytes_get(io->in, p, n);
}

void kept_text(const struct kept_io *io, str *s, size_t max)
{
    if (io->out)
        bytes_put_text(io->out, *s, max);
    else
        *s = bytes_get_text(io->in, max);
}

void kept_cells(const struct kept_io *io, struct cells *c)
{
    if (io->out) {
        counts_put_cells(io->out, c);
        return;
    }
    cells_clear(c);
    counts_get_cells(io->in, c);
    for (uint32_t i = 0; i < CELLS_MAX; i++)
        io->in->bad |= c->counts[i] > KEPT_COUNT_MAX;
}

void kept_latency(const struct kept_io *io, struct latency *l)
{
    if (io->out) {
        counts_put_latency(io->out, l);
        return;
    }
    latency_clear(l);
    counts_get_latency(io->in, l);
}

void kept_same(const struct kept_io *io, uint64_t now)
{
    uint64_t was = now;

    kept_count(io, &was);
    if (io->in)
        io->in->bad |= was != now;
}
