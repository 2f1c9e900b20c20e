/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paired losses. While E[d] >= o, each factor 1 - lambda (d - o) with 0 < lambda < 1/(1 - o) is
 * positive and has mean at most 1, so the product is an e-process against that hypothesis; the
 * mirror image 1 + lambda (d - o), lambda < 1/(1 + o), is one against E[d] <= o. The right lambda
 * depends on the unknown truth: a fixed grid is used and the wealths are averaged, which costs at
 * most ln(grid size) against the best of them and keeps the mean.
 *
 * Two arms. In a block with e errors in all, of n_a + n_b rows, the number k in arm b has the
 * noncentral hypergeometric law P(k) = h(k) w^k / Z(w), with w the odds ratio, h(k) = C(n_b,k)
 * C(n_a,e-k) and Z the sum over k. The likelihood ratio of w1 against w0,
 *
 *     (w1/w0)^k Z(w0) / Z(w1),
 *
 * has mean 1 under w0, and is monotone in k, so its mean is at most 1 for all odds on the side of
 * w0 away from w1. The sum is walked with the ratio of neighbouring terms; it is rescaled when it
 * grows large.
 *
 * Not here: who decides what after a verdict, and intervals (confseq.c).
 */
#include "stats/gate.h"

#include "stats/special.h"

#include <math.h>

static const double lambda_grid[GATE_GRID] = {0.95, 0.7,  0.5,   0.35,  0.22,
                                              0.14, 0.08, 0.045, 0.025, 0.012};
static const double odds_grid[GATE_GRID] = {1.1, 1.2, 1.35, 1.6, 2.0, 2.6, 4.0, 7.0, 15.0, 50.0};

const char *verdict_name(enum verdict v)
{
    switch (v) {
    case VERDICT_PASS:
        return "PASS";
    case VERDICT_FAIL:
        return "FAIL";
    case VERDICT_INCONCLUSIVE:
        return "INCONCLUSIVE";
    case VERDICT_INSUFFICIENT_EVIDENCE:
        return "INSUFFICIENT_EVIDENCE";
    }
    return "?";
}

static void eprocess_note(struct eprocess *p)
{
    double now = special_log_sum_exp(p->ln_wealth, GATE_GRID) - log(GATE_GRID);

    p->ln_peak = MAX(p->ln_peak, now);
}

bool eprocess_proves(const struct eprocess *p, double alpha)
{
    return p->ln_peak >= -log(alpha);
}

/* --- Paired losses ---------------------------------------------------------------------------- */

int paired_gate_init(struct paired_gate *g, double eps, bool need_superior, uint64_t n_min,
                     struct err *e)
{
    if (!(eps >= 0.0 && eps < 1.0))
        return FAIL(e, INVALID_ARGUMENT, "the margin is %g, it must be at least 0 and below 1",
                    eps);
    *g = (struct paired_gate){.eps = eps, .need_superior = need_superior, .n_min = n_min};
    return 0;
}

/* n rows of the same d. sign -1: against E[d] >= o; sign +1: against E[d] <= o. */
static void bet(struct eprocess *p, double sign, double o, double d, double n)
{
    double lambda_max = 1.0 / (1.0 + sign * o);

    for (size_t j = 0; j < GATE_GRID; j++)
        p->ln_wealth[j] += n * log1p(sign * lambda_grid[j] * lambda_max * (d - o));
}

static void paired_bet(struct paired_gate *g, double d, uint64_t n)
{
    bet(&g->non_inferior, -1.0, g->eps, d, (double)n);
    bet(&g->superior, -1.0, 0.0, d, (double)n);
    bet(&g->harm, 1.0, g->eps, d, (double)n);
    g->n += n;
    g->sum += d * (double)n;
}

static void paired_note(struct paired_gate *g)
{
    eprocess_note(&g->non_inferior);
    eprocess_note(&g->superior);
    eprocess_note(&g->harm);
}

void paired_gate_row(struct paired_gate *g, double d)
{
    ASSERT(d >= -1.0 && d <= 1.0);
    paired_bet(g, d, 1);
    paired_note(g);
}

void paired_gate_counts(struct paired_gate *g, uint64_t better, uint64_t same, uint64_t worse)
{
    paired_bet(g, -1.0, better);
    paired_bet(g, 0.0, same);
    paired_bet(g, 1.0, worse);
    paired_note(g);
}

static enum verdict decide(bool harm, bool good, uint64_t n, uint64_t n_min)
{
    if (harm)
        return VERDICT_FAIL;
    if (n < n_min)
        return VERDICT_INSUFFICIENT_EVIDENCE;
    return good ? VERDICT_PASS : VERDICT_INCONCLUSIVE;
}

enum verdict paired_gate_verdict(const struct paired_gate *g, double alpha)
{
    const struct eprocess *good = g->need_superior ? &g->superior : &g->non_inferior;

    return decide(eprocess_proves(&g->harm, alpha), eprocess_proves(good, alpha), g->n, g->n_min);
}

/* --- Two arms --------------------------------------------------------------------------------- */

int twoarm_gate_init(struct twoarm_gate *g, double harm_odds, double ni_odds, uint64_t n_min,
                     struct err *e)
{
    if (!(harm_odds >= 1.0) || isinf(harm_odds))
        return FAIL(e, INVALID_ARGUMENT, "the tolerated odds ratio is %g, it must be at least 1",
                    harm_odds);
    if (!(ni_odds > 1.0) || isinf(ni_odds))
        return FAIL(e, INVALID_ARGUMENT, "the non-inferiority odds ratio is %g, it must exceed 1",
                    ni_odds);
    *g = (struct twoarm_gate){.harm_odds = harm_odds, .ni_odds = ni_odds, .n_min = n_min};
    return 0;
}

/* ln of the sum over k of h(k) w^(k-k_min) / h(k_min). */
static double ln_z(double n_a, double n_b, double e, double w)
{
    double k = MAX(0.0, e - n_a), last = MIN(e, n_b), term = 1.0, sum = 1.0, ln_scale = 0.0;

    /* whole numbers below 2^53, exact; NOLINTNEXTLINE(clang-analyzer-security.FloatLoopCounter) */
    for (; k < last; k += 1.0) {
        double before = term;

        term *= w * (e - k) * (n_b - k) / ((k + 1.0) * (n_a - e + k + 1.0));
        sum += term;
        if (sum > 1e200) {
            term *= 1e-200;
            sum *= 1e-200;
            ln_scale += 200.0 * M_LN10;
        }
        /* terms fall for good past the mode, and faster and faster: the rest is nothing */
        if (term < before && term < sum * 1e-18)
            break;
    }
    return log(sum) + ln_scale;
}

void twoarm_gate_block(struct twoarm_gate *g, uint64_t n_a, uint64_t errors_a, uint64_t n_b,
                       uint64_t errors_b)
{
    double a = (double)n_a, b = (double)n_b, e = (double)(errors_a + errors_b);
    double k = (double)errors_b - MAX(0.0, e - a), z_harm, z_ni;

    ASSERT(errors_a <= n_a && errors_b <= n_b);
    g->n_a += n_a;
    g->n_b += n_b;
    g->errors_a += errors_a;
    g->errors_b += errors_b;
    if (!n_a || !n_b || e == 0.0 || e == a + b)
        return;
    z_harm = ln_z(a, b, e, g->harm_odds);
    z_ni = ln_z(a, b, e, g->ni_odds);
    for (size_t j = 0; j < GATE_GRID; j++) {
        double w = odds_grid[j];

        g->harm.ln_wealth[j] += k * log(w) + z_harm - ln_z(a, b, e, g->harm_odds * w);
        g->non_inferior.ln_wealth[j] += -k * log(w) + z_ni - ln_z(a, b, e, g->ni_odds / w);
    }
    eprocess_note(&g->harm);
    eprocess_note(&g->non_inferior);
}

enum verdict twoarm_gate_verdict(const struct twoarm_gate *g, double alpha)
{
    return decide(eprocess_proves(&g->harm, alpha), eprocess_proves(&g->non_inferior, alpha),
                  g->n_b, g->n_min);
}

/* --- Many claims ------------------------------------------------------------------------------ */

/* How many of the e-values are at least as large. */
static size_t rank_of(const double *ln_e, size_t n, double x)
{
    size_t r = 0;

    for (size_t i = 0; i < n; i++)
        r += ln_e[i] >= x;
    return r;
}

size_t ebh_select(const double *ln_e, size_t n, double alpha, bool *ret_selected)
{
    double threshold = INFINITY;
    size_t selected = 0;

    ASSERT(n <= EBH_MAX);
    for (size_t i = 0; i < n; i++) {
        double rank = (double)rank_of(ln_e, n, ln_e[i]);

        if (ln_e[i] >= log((double)n / (alpha * rank)))
            threshold = MIN(threshold, ln_e[i]);
    }
    for (size_t i = 0; i < n; i++) {
        ret_selected[i] = ln_e[i] >= threshold;
        selected += ret_selected[i];
    }
    return selected;
}
