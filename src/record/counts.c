/* SPDX-License-Identifier: Apache-2.0 */
#include "record/counts.h"

void counts_put_latency(struct buf *out, const struct latency *l)
{
    bytes_put_u64(out, l->n);
    bytes_put_u64(out, l->sum_ns);
    bytes_put_u64(out, l->min_ns);
    bytes_put_u64(out, l->max_ns);
    bytes_put_counts(out, l->counts, LATENCY_BUCKETS);
}

void counts_get_latency(struct bytes_reader *r, struct latency *l)
{
    l->n = bytes_get_u64(r);
    l->sum_ns = bytes_get_u64(r);
    l->min_ns = bytes_get_u64(r);
    l->max_ns = bytes_get_u64(r);
    bytes_get_counts(r, l->counts, LATENCY_BUCKETS);
}

void counts_put_cells(struct buf *out, const struct cells *c)
{
    bytes_put_u64(out, c->n);
    if (c->n) {
        bytes_put_f64(out, c->sum);
        bytes_put_f64(out, c->sumsq);
    }
    bytes_put_counts(out, c->counts, CELLS_MAX);
}

void counts_get_cells(struct bytes_reader *r, struct cells *c)
{
    c->n = bytes_get_u64(r);
    if (c->n) {
        c->sum = bytes_get_f64(r);
        c->sumsq = bytes_get_f64(r);
    }
    bytes_get_counts(r, c->counts, CELLS_MAX);
}
