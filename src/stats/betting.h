/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The anytime-valid monitor of a risk: a stream of errors (0 or 1) or of losses in [0,1], fed in
 * blocks. It alarms when the risk has risen above m0; while the mean of each row, given the past,
 * stays at or below m0, the mean number of rows between alarms is at least the budget. m0 is meant
 * to be an upper bound of the reference risk plus what one tolerates.
 *
 * Source: Shin, Ramdas, Rinaldo, arXiv 2203.03532, with Bernoulli likelihood ratios as bets
 * (Waudby-Smith, Ramdas, arXiv 2010.09686). One thread (control).
 */
#pragma once

#include "base/err.h"

#define BETTING_GRID 12

struct betting {
    double m0, budget_rows;
    double ln_loss[BETTING_GRID]; /* ln factor of a row with loss 1 */
    double ln_good[BETTING_GRID]; /* ln factor of a row with loss 0 */
    double m[BETTING_GRID];       /* wealth */
    double cusum[BETTING_GRID];
    uint64_t since[BETTING_GRID];
    uint64_t rows; /* since reset */
};

/* INVALID_ARGUMENT unless 0 < m0 < 1 and budget_rows >= 1. */
NODISCARD int betting_init(struct betting *b, double m0, double budget_rows, struct err *e);
void betting_reset(struct betting *b);
/* n rows with losses that sum to `loss` (the error count of 0/1 losses), each within [0,1]. Sums
 * are enough: by concavity they only understate the wealth of losses between 0 and 1. */
bool betting_block(struct betting *b, uint64_t n, double loss);
double betting_evidence(const struct betting *b);
uint64_t betting_rows_ago(const struct betting *b); /* estimated begin of the rise */

/* m0 from the reference: the Clopper-Pearson bound of errors in n rows, missed with chance delta.
 */
double betting_risk_bound(double errors, double n, double delta);
