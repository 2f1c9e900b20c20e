/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Latency histogram: log-linear, fixed size, mergeable. 32 buckets per power of two, so that a
 * bucket is at most 1/32 of its value wide and its middle at most 1/64 off; from 1.024 us (below:
 * one bucket) to 137 s (above: one bucket). Recording is a count-leading-zeros, a shift and an add.
 *
 * Durations are nanoseconds. The caller decides from when it measures: a load generator that sends
 * late must count from the intended time, or it omits the waits it caused itself.
 */
#pragma once

#include "base/base.h"

#define LATENCY_SUB_BITS 5
#define LATENCY_LOW_BITS 10  /* 1024 ns */
#define LATENCY_HIGH_BITS 37 /* 137.4 s */
#define LATENCY_BUCKETS (((LATENCY_HIGH_BITS - LATENCY_LOW_BITS) << LATENCY_SUB_BITS) + 2)

struct latency {
    uint64_t counts[LATENCY_BUCKETS]; /* [0] below the range, the last one above it */
    uint64_t n;
    uint64_t sum_ns;
    uint64_t min_ns, max_ns; /* 0, 0 when n is 0 */
};

/* The bucket of a duration. */
static inline HOT uint32_t latency_bucket(uint64_t ns)
{
    uint64_t low = UINT64_C(1) << LATENCY_LOW_BITS, high = UINT64_C(1) << LATENCY_HIGH_BITS;
    uint64_t v = ns < low ? low : ns >= high ? high - 1 : ns;
    uint32_t top = 63u - (uint32_t)__builtin_clzll(v);
    uint32_t sub = (uint32_t)(v >> (top - LATENCY_SUB_BITS)) & ((1u << LATENCY_SUB_BITS) - 1);
    uint32_t i = ((top - LATENCY_LOW_BITS) << LATENCY_SUB_BITS) + sub + 1;

    i = ns < low ? 0 : i;
    return ns >= high ? LATENCY_BUCKETS - 1 : i;
}

static inline HOT void latency_record(struct latency *l, uint64_t ns)
{
    l->counts[latency_bucket(ns)]++;
    l->min_ns = l->n == 0 || ns < l->min_ns ? ns : l->min_ns;
    l->max_ns = ns > l->max_ns ? ns : l->max_ns;
    l->sum_ns += ns;
    l->n++;
}

void latency_clear(struct latency *l);
void latency_merge(struct latency *into, const struct latency *from);

/* The duration below which a share q in [0,1] of the recorded ones lies (nearest rank), as the
 * middle of its bucket held within [min, max]; 0 when empty. */
uint64_t latency_quantile_ns(const struct latency *l, double q);
double latency_mean_ns(const struct latency *l); /* exact; 0 when empty */
/* Recorded durations above the limit: exact when it is a bucket edge, else its bucket is counted
 * as above when its middle is. For SLO shares. */
uint64_t latency_above(const struct latency *l, uint64_t limit_ns);
/* Where bucket i begins, in ns: for encoders and for drawing. 0 for i = 0. */
uint64_t latency_bucket_from_ns(uint32_t i);
