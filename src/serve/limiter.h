/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many requests a model may have at once, learned from their times: a limit that follows the
 * gradient of latency. A pure state machine on a clock that the caller reads.
 *
 *   gradient  = clamp(2 * no-load time / time, 0.5, 1)
 *   limit     = limit * gradient + sqrt(limit), smoothed
 *
 * This is the update of Gradient2 and of the Gradient limit before it in Netflix's
 * concurrency-limits (github.com/Netflix/concurrency-limits): as long as requests take no longer
 * than twice what they take alone the limit grows by the root of itself, which is the queue that a
 * burst may make; beyond, it shrinks by as much as they take longer. limiter.c says where it
 * departs from them, and why.
 *
 * Not safe from several threads: the owner locks. Nothing here can fail or allocates.
 */
#pragma once

#include "base/base.h"

#define LIMITER_CLASSES 17 /* of runs, by the logarithm of their rows */

struct limiter_config {
    uint32_t min, max; /* 1 <= min <= max */
    uint32_t initial;  /* 0 = min */
};

struct limiter {
    struct limiter_config cfg;
    double estimate;
    uint32_t limit;   /* in force: the estimate, or less while it probes */
    bool probing;     /* the no-load time is being measured anew */
    int64_t round_ns; /* when this round of no-load times began */
    struct limiter_least {
        int64_t run_ns, row_ns;                      /* of a run, of a row of one; 0: none */
    } now[LIMITER_CLASSES], before[LIMITER_CLASSES]; /* in this round, in the last one */
    struct {
        int64_t began_ns;
        uint32_t samples, inflight_max;
        double took_ns, noload_ns; /* sums */
        double target_ns;
        bool late;
    } window;
};

/* A run that is over. */
struct limiter_sample {
    int64_t now_ns;
    int64_t wait_ns;   /* that its first request waited for it */
    int64_t run_ns;    /* > 0 */
    int64_t target_ns; /* what both together should not exceed; 0: nothing said */
    uint32_t rows;     /* of the run */
    uint32_t inflight; /* requests with the model when it ended, those of the run among them */
    bool late;         /* a request was let in that could not be run in time */
};

void limiter_init(struct limiter *l, const struct limiter_config *cfg, int64_t now_ns);
void limiter_sample(struct limiter *l, const struct limiter_sample *s);
