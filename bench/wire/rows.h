/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows for scripts/bench: the best of some runs, which is the figure that noise of the machine
 * disturbs least, with the worst beside it.
 */
#pragma once

#include "base/time.h"

#include <stdio.h>
#include <stdlib.h>

#define ROWS_RUNS 25

static inline int rows_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Times fn(arg, turns) ROWS_RUNS times and prints ns per turn. */
static inline void rows_time(const char *name, void (*fn)(void *arg, size_t turns), void *arg,
                             size_t turns)
{
    double ns[ROWS_RUNS];

    for (int i = 0; i < ROWS_RUNS; i++) {
        int64_t began_ns = time_mono_ns();

        fn(arg, turns);
        ns[i] = (double)(time_mono_ns() - began_ns) / (double)turns;
    }
    qsort(ns, ROWS_RUNS, sizeof(ns[0]), rows_compare);
    printf("{\"case\": \"%s\", \"metric\": \"time\", \"unit\": \"ns\", \"better\": \"lower\", "
           "\"subject\": \"weir\", \"value\": %.1f, \"min\": %.1f, \"max\": %.1f}\n",
           name, ns[0], ns[0], ns[ROWS_RUNS - 1]);
    fflush(stdout);
}
