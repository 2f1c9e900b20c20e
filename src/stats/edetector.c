/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk of the e-detector. For one column and template, with L(b) the betting factor of a row
 * that falls into cell b, a block of n rows with counts k_b moves the wealth
 *
 *     M <- (M + n) exp(sum_b k_b ln L(b))
 *
 * Why the mean run length is at least A, in rows. Let F be all that is known before the block. The
 * fit made E[L(cell of a row) | past] <= 1 for every tolerated law. How large the block is does
 * not depend on the values in it, given F: blocks are cut by the clock or by a fixed count. So,
 * multiplying the conditional means row by row, E[exp(sum k_b ln L(b)) | F, n] <= 1 and
 *
 *     E[M after | F, n] <= M before + n.
 *
 * Hence M minus the number of rows seen is a supermartingale, and at any stopping time tau with a
 * finite mean E[M_tau] <= E[rows at tau] (M >= 0; for an infinite mean nothing is to be shown). At
 * the alarm M >= A, therefore A <= E[rows at the alarm]. The n new units of stake are put down
 * before the block is seen, which is why its rows may earn on them: the row-exact form stakes one
 * unit per row and is the case n = 1. A block cut *because of* its values would break the proof.
 *
 * The mean over templates, and the weighted mean over columns with weights that sum to one, are
 * under the same inequality, whatever the dependence between templates or columns: one budget A is
 * enough for all of them. A column with fewer rows than the endpoint only has a slower clock.
 *
 * Numbers. The wealth is a double held below 1e280 (lowering wealth keeps the inequality); an
 * underflow to 0 is harmless since every block adds n. Factors are floats rounded down, so that
 * rounding cannot push the mean of a factor over one.
 *
 * The change point is estimated by the CUSUM form of the leading template: the last time when the
 * running sum of ln L was at its reset. It is an estimate, without a promise.
 *
 * Not here: fitting (edetector_fit.c), carrying (edetector_json.c), or what to do about an alarm.
 */
#include "stats/edetector.h"

#include <math.h>
#include <stdlib.h>

#define WEALTH_MAX 1e280
#define LN_GAIN_MAX 640.0 /* exp of it is still finite */

void edetector_reset(struct edetector *d)
{
    memset(d, 0, sizeof(*d));
}

/* sums[j] = sum_b counts[b] ln L_j(b) */
static inline HOT uint64_t block_gains(const struct edetector_bank *b, const uint64_t *counts,
                                       double *restrict sums)
{
    uint64_t n = 0;

    memset(sums, 0, EDETECTOR_TEMPLATES_MAX * sizeof(*sums));
    for (uint32_t c = 0; c < b->cells; c++) {
        const float *ln_l = b->ln_l[c];
        double k;

        if (!counts[c])
            continue;
        n += counts[c];
        k = (double)counts[c];
        for (uint32_t j = 0; j < EDETECTOR_TEMPLATES_MAX; j++)
            sums[j] += k * (double)ln_l[j];
    }
    return n;
}

void edetector_block(const struct edetector_bank *b, struct edetector *d, const uint64_t *counts)
{
    double gains[EDETECTOR_TEMPLATES_MAX];
    uint64_t n = block_gains(b, counts, gains);

    if (!n)
        return;
    for (uint32_t j = 0; j < b->templates; j++) {
        double gain = MIN(gains[j], LN_GAIN_MAX);

        d->m[j] = MIN((d->m[j] + (double)n) * exp(gain), WEALTH_MAX);
        d->since[j] = d->cusum[j] > 0.0 ? d->since[j] : d->rows;
        d->cusum[j] = MAX(d->cusum[j], 0.0) + gain;
    }
    d->rows += n;
}

void edetector_row(const struct edetector_bank *b, struct edetector *d, uint32_t cell)
{
    const float *l = b->l[cell], *ln_l = b->ln_l[cell];
    uint64_t rows = d->rows;

    for (uint32_t j = 0; j < EDETECTOR_TEMPLATES_MAX; j++) {
        double m = (d->m[j] + 1.0) * (double)l[j], s = d->cusum[j];

        d->m[j] = m < WEALTH_MAX ? m : WEALTH_MAX;
        d->since[j] = s > 0.0 ? d->since[j] : rows;
        d->cusum[j] = (s > 0.0 ? s : 0.0) + (double)ln_l[j];
    }
    d->rows = rows + 1;
}

double edetector_evidence(const struct edetector_bank *b, const struct edetector *d)
{
    double sum = 0.0;

    for (uint32_t j = 0; j < EDETECTOR_TEMPLATES_MAX; j++)
        sum += d->m[j];
    return sum / b->templates;
}

uint32_t edetector_leader(const struct edetector_bank *b, const struct edetector *d,
                          uint64_t *ret_rows_ago)
{
    uint32_t best = 0;

    for (uint32_t j = 1; j < b->templates; j++)
        best = d->m[j] > d->m[best] ? j : best;
    *ret_rows_ago = d->rows - d->since[best];
    return best;
}

/* --- An endpoint ------------------------------------------------------------------------------ */

double edetector_budget_rows(double rows_per_s, double false_alarm_every_s)
{
    return MAX(rows_per_s * false_alarm_every_s, 1.0);
}

int edetector_endpoint_init(struct edetector_endpoint *ep, struct arena *a,
                            const struct edetector_bank *const *banks, const double *weights,
                            uint32_t features, double budget_rows, struct err *e)
{
    struct edetector_endpoint made = {.features = features, .budget_rows = budget_rows};
    double sum = 0.0;

    if (!(budget_rows >= 1.0) || isinf(budget_rows))
        return FAIL(e, INVALID_ARGUMENT, "a budget of %g rows per false alarm is out of range",
                    budget_rows);
    made.banks = ARENA_ARRAY(a, const struct edetector_bank *, features);
    made.detectors = ARENA_ARRAY(a, struct edetector, features);
    made.weights = ARENA_ARRAY(a, double, features);
    if (features && (!made.banks || !made.detectors || !made.weights))
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the detectors of %u columns", features);
    for (uint32_t i = 0; i < features; i++) {
        double w = weights ? weights[i] : 1.0;

        if (!(w >= 0.0) || isinf(w))
            return FAIL(e, INVALID_ARGUMENT, "the weight of column %u is %g", i, w);
        made.banks[i] = banks[i];
        made.weights[i] = banks[i] ? w : 0.0;
        sum += made.weights[i];
    }
    if (!(sum > 0.0))
        return FAIL(e, INVALID_ARGUMENT, "no column has both a detector and a weight above 0");
    for (uint32_t i = 0; i < features; i++)
        made.weights[i] /= sum;
    *ep = made;
    return 0;
}

double edetector_endpoint_evidence(const struct edetector_endpoint *ep)
{
    double sum = 0.0;

    for (uint32_t i = 0; i < ep->features; i++)
        if (ep->banks[i])
            sum += ep->weights[i] * edetector_evidence(ep->banks[i], &ep->detectors[i]);
    return sum;
}

bool edetector_endpoint_block(struct edetector_endpoint *ep, const struct cells *const *cells)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < ep->features; i++) {
        uint64_t before = ep->detectors[i].rows;

        if (!ep->banks[i] || !cells[i])
            continue;
        edetector_block(ep->banks[i], &ep->detectors[i], cells[i]->counts);
        most = MAX(most, ep->detectors[i].rows - before);
    }
    ep->rows += most;
    return edetector_endpoint_evidence(ep) >= ep->budget_rows;
}

bool edetector_endpoint_row(struct edetector_endpoint *ep, const uint8_t *bins)
{
    double evidence = 0.0;

    for (uint32_t i = 0; i < ep->features; i++) {
        if (!ep->banks[i])
            continue;
        edetector_row(ep->banks[i], &ep->detectors[i], bins[i]);
        evidence += ep->weights[i] * edetector_evidence(ep->banks[i], &ep->detectors[i]);
    }
    ep->rows++;
    return evidence >= ep->budget_rows;
}

void edetector_endpoint_reset(struct edetector_endpoint *ep)
{
    for (uint32_t i = 0; i < ep->features; i++)
        edetector_reset(&ep->detectors[i]);
    ep->rows = 0;
}

size_t edetector_endpoint_suspects(const struct edetector_endpoint *ep, double alpha,
                                   struct edetector_suspect *ret_suspects, size_t max)
{
    double level = alpha > 0.0 ? 1.0 / alpha : ep->budget_rows;
    size_t n = 0, selected = 0;

    for (uint32_t i = 0; i < ep->features; i++) {
        struct edetector_suspect s = {.feature = i};
        size_t at = n;

        if (!ep->banks[i])
            continue;
        s.evidence = edetector_evidence(ep->banks[i], &ep->detectors[i]);
        s.weighted = ep->weights[i] * s.evidence;
        s.template = edetector_leader(ep->banks[i], &ep->detectors[i], &s.rows_ago);
        while (at > 0 && ret_suspects[at - 1].weighted < s.weighted)
            at--;
        if (at >= max)
            continue;
        n = MIN(n + 1, max);
        memmove(&ret_suspects[at + 1], &ret_suspects[at], (n - 1 - at) * sizeof(s));
        ret_suspects[at] = s;
    }
    for (size_t k = 1; k <= n; k++)
        if (ret_suspects[k - 1].weighted * (double)k >= level)
            selected = k;
    for (size_t k = 0; k < selected; k++)
        ret_suspects[k].selected = true;
    return n;
}
