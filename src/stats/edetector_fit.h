/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the two files that fit a bank: edetector_fit.c gathers, edetector_judge.c decides. */
#pragma once

#include "stats/edetector.h"

struct half {
    double *sorted; /* owned: the finite values, ascending; NULL when only counts are known */
    size_t finite;
    double counts[CELLS_MAX];
    double infinite; /* of counts[outside]: not finite, so not movable */
    double total;
};

struct fit {
    const struct cells_spec *spec;
    struct edetector_config cfg; /* resolved: no defaults left */
    struct half halves[2];
    double p[CELLS_MAX]; /* of both halves together, smoothed */
    double unit;         /* of shifts */
    bool tilt;           /* the tolerated laws, in place of moving values */
    double score[CELLS_BINS_MAX];
    uint32_t order[CELLS_BINS_MAX]; /* bins by falling mass */
    struct edetector_template todo[EDETECTOR_TEMPLATES_MAX];
    uint32_t todo_count;
};

/* Shares of the cells with half a row added to each. */
void edetector_smooth(const struct cells_spec *s, const double *counts, double total,
                      double *ret_p);
/* Judges the templates of f->todo and keeps those that can win. */
NODISCARD int edetector_judge(const struct fit *f, struct edetector_bank *ret_bank, struct err *e);
