/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slow side of the latency histogram: merging and reading. The layout is that of a floating
 * point number cut to five bits of mantissa: the exponent chooses a power of two, the next five
 * bits one of 32 equal parts of it. All reading walks the buckets once (866 of them).
 *
 * Invariant: n is the sum of the counts; min and max are exact, so quantiles never leave them.
 */
#include "stats/latency.h"

#include <math.h>
#include <string.h>

void latency_clear(struct latency *l)
{
    memset(l, 0, sizeof(*l));
}

void latency_merge(struct latency *into, const struct latency *from)
{
    if (from->n == 0)
        return;
    into->min_ns = into->n == 0 ? from->min_ns : MIN(into->min_ns, from->min_ns);
    into->max_ns = MAX(into->max_ns, from->max_ns);
    for (size_t i = 0; i < LATENCY_BUCKETS; i++)
        into->counts[i] += from->counts[i];
    into->n += from->n;
    into->sum_ns += from->sum_ns;
}

uint64_t latency_bucket_from_ns(uint32_t i)
{
    uint32_t k;

    ASSERT(i < LATENCY_BUCKETS);
    if (i == 0)
        return 0;
    k = i - 1;
    return ((UINT64_C(1) << LATENCY_SUB_BITS) + (k & ((1u << LATENCY_SUB_BITS) - 1)))
           << ((k >> LATENCY_SUB_BITS) + LATENCY_LOW_BITS - LATENCY_SUB_BITS);
}

static uint64_t middle(const struct latency *l, uint32_t i)
{
    uint64_t from = latency_bucket_from_ns(i);
    uint64_t to = i + 1 < LATENCY_BUCKETS ? latency_bucket_from_ns(i + 1) : MAX(l->max_ns, from);

    return CLAMP(from + (to - from) / 2, l->min_ns, l->max_ns);
}

uint64_t latency_quantile_ns(const struct latency *l, double q)
{
    uint64_t rank, seen = 0;

    if (l->n == 0)
        return 0;
    rank = (uint64_t)ceil(CLAMP(q, 0.0, 1.0) * (double)l->n);
    rank = CLAMP(rank, 1, l->n);
    if (rank == 1)
        return l->min_ns;
    if (rank == l->n)
        return l->max_ns;
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
        seen += l->counts[i];
        if (seen >= rank)
            return middle(l, i);
    }
    return l->max_ns;
}

double latency_mean_ns(const struct latency *l)
{
    return l->n ? (double)l->sum_ns / (double)l->n : 0.0;
}

uint64_t latency_above(const struct latency *l, uint64_t limit_ns)
{
    uint64_t above = 0;

    for (uint32_t i = LATENCY_BUCKETS; i-- > 0 && latency_bucket_from_ns(i) >= limit_ns;)
        above += l->counts[i];
    if (limit_ns > 0) {
        uint32_t i = latency_bucket(limit_ns);

        if (latency_bucket_from_ns(i) < limit_ns && middle(l, i) > limit_ns)
            above += l->counts[i];
    }
    return above;
}
