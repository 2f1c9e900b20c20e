/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wealth of bet j, which guesses that the risk has become q_j > m0, over a block of n rows with
 * total loss s:
 *
 *     M_j <- (M_j + n) (q_j/m0)^s ((1-q_j)/(1-m0))^(n-s)
 *
 * For a row with loss x in [0,1] the factor 1 + lambda (x - m0), lambda = (q - m0)/(m0 (1 - m0)),
 * has conditional mean <= 1 under the null; for x in {0,1} it is the ratio above, and for x between
 * them ln(1 + lambda (x - m0)) >= x ln(factor of 1) + (1-x) ln(factor of 0), since ln is concave:
 * using the right side keeps the mean at most 1. The argument for blocks and the run length is
 * that of edetector.c. The grid of q is laid out in odds, so that it fits any m0.
 */
#include "stats/betting.h"

#include "stats/special.h"

#include <math.h>

#define WEALTH_MAX 1e280
#define LN_GAIN_MAX 640.0

static const double odds_grid[BETTING_GRID] = {1.15, 1.25, 1.4, 1.6, 1.85, 2.2,
                                               2.6,  3.2,  4.2, 6.0, 12.0, 40.0};

int betting_init(struct betting *b, double m0, double budget_rows, struct err *e)
{
    struct betting made = {.m0 = m0, .budget_rows = budget_rows};

    if (!(m0 > 0.0 && m0 < 1.0))
        return FAIL(e, INVALID_ARGUMENT, "the tolerated risk is %g, it must lie between 0 and 1",
                    m0);
    if (!(budget_rows >= 1.0) || isinf(budget_rows))
        return FAIL(e, INVALID_ARGUMENT, "a budget of %g rows per false alarm is out of range",
                    budget_rows);
    for (size_t j = 0; j < BETTING_GRID; j++) {
        double good = 1.0 / (1.0 + m0 * (odds_grid[j] - 1.0)); /* (1-q)/(1-m0) */

        made.ln_good[j] = log(good);
        made.ln_loss[j] = log(odds_grid[j] * good);
    }
    *b = made;
    return 0;
}

void betting_reset(struct betting *b)
{
    for (size_t j = 0; j < BETTING_GRID; j++) {
        b->m[j] = b->cusum[j] = 0.0;
        b->since[j] = 0;
    }
    b->rows = 0;
}

bool betting_block(struct betting *b, uint64_t n, double loss)
{
    ASSERT(loss >= 0.0 && loss <= (double)n * (1.0 + 1e-9));
    for (size_t j = 0; j < BETTING_GRID && n; j++) {
        double gain = loss * b->ln_loss[j] + MAX((double)n - loss, 0.0) * b->ln_good[j];

        gain = MIN(gain, LN_GAIN_MAX);
        b->m[j] = MIN((b->m[j] + (double)n) * exp(gain), WEALTH_MAX);
        b->since[j] = b->cusum[j] > 0.0 ? b->since[j] : b->rows;
        b->cusum[j] = MAX(b->cusum[j], 0.0) + gain;
    }
    b->rows += n;
    return betting_evidence(b) >= b->budget_rows;
}

double betting_evidence(const struct betting *b)
{
    double sum = 0.0;

    for (size_t j = 0; j < BETTING_GRID; j++)
        sum += b->m[j];
    return sum / BETTING_GRID;
}

uint64_t betting_rows_ago(const struct betting *b)
{
    size_t best = 0;

    for (size_t j = 1; j < BETTING_GRID; j++)
        best = b->m[j] > b->m[best] ? j : best;
    return b->rows - b->since[best];
}

double betting_risk_bound(double errors, double n, double delta)
{
    return special_binomial_upper(errors, n, delta);
}
