/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three detectors of the literature with the defaults that their best-known library gives them, as
 * yardsticks for the benchmark. They are not part of the product: none of them promises a rate of
 * false alarms.
 */
#pragma once

#include "base/base.h"

#define ADWIN_LEVELS 48
#define ADWIN_PER_LEVEL 5

/* Bifet and Gavalda 2007, delta 0.002, checked every 32 rows. Level i holds buckets of 2^i rows. */
struct adwin {
    uint32_t used[ADWIN_LEVELS];
    double sum[ADWIN_LEVELS][ADWIN_PER_LEVEL + 1], squares[ADWIN_LEVELS][ADWIN_PER_LEVEL + 1];
    uint32_t levels;
    double width, total, variance; /* variance: sum of squared deviations of the window */
    uint64_t rows;
};
bool adwin_row(struct adwin *a, double x);

/* Page 1954, Hinkley 1971: rises only; delta 0.005, threshold 50, forgetting 0.9999, 30 rows. */
struct page_hinkley {
    uint64_t n;
    double mean, sum, lowest;
};
bool page_hinkley_row(struct page_hinkley *p, double x); /* starts anew after an alarm */

/* Gama et al. 2004, on errors (0 or 1), 3 standard deviations, 30 rows. */
struct ddm {
    uint64_t n;
    double p, p_min, s_min;
};
bool ddm_row(struct ddm *d, bool error); /* starts anew after an alarm */
