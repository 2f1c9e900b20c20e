/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Judging templates: from reference rows to betting factors whose mean, while nothing has changed,
 * is known to be at most one.
 *
 * A template j is a guess of how traffic may look after a change, as cell probabilities q_j made by
 * changing the reference itself (its values are shifted, stretched, go missing, ...). Its ratio
 * g_j(b) = q_j(b) / p(b) would have mean one under the true reference distribution if p were known.
 * It is only estimated, so the reference is cut at random into two halves. Each half gives a ratio,
 * the *other* half judges it: g_j is the mean of the two ratios, and c_j an upper confidence bound
 * of the mean of g_j, here
 *
 *   c = (mean_R2 g' + mean_R1 g'')/2 + z sqrt(var_R2 g' / n2 + var_R1 g'' / n1) / 2
 *
 * The two errors are uncorrelated to first order (each is the sampling error of the half that
 * judges), so that the whole reference counts, not only half of it. z is the normal quantile with
 * delta shared by all templates of all columns of the endpoint; with finite_sample an empirical
 * Bernstein bound (Maurer and Pontil 2009) replaces it, for each half with half of the delta. It
 * holds at any n for given cells and plain counts; for tilted nulls it is still an approximation.
 *
 * Templates about one rate (missing, outside, one category) have ratios with two values only. There
 * the bound is exact at any size: that of a binomial rate (Clopper and Pearson), which holds for
 * every ratio at once, so nothing needs to be held back. Rows that lie inside only because the
 * cells were made from them count as outside, as leaving them out would show (left_out()).
 *
 * Tolerance. "No change" is not one distribution but all that lie so near to the reference that
 * nobody would act. c_j is the maximum of the bound over this set:
 *   numeric      mean shifted by up to tol_sd and spread scaled by up to 1 +- tol_sd (the corners
 *                and middles of that square; the mean of g is monotone or convex along both), and
 *                besides up to tol_rate more rows missing and tol_rate more outside;
 *   categorical  total variation up to tol_tv, where the mean of g rises by at most
 *                tol_tv (max g - min g).
 * The maximum needs no further share of delta: its bound is at least that of the worst member.
 * Rates that rise from near zero would make huge ratios on hardly observed cells; there p is
 * replaced by p plus the tolerance, which is the least favourable tolerated rate, so that the bet
 * is the likelihood ratio against the worst member instead of a bet that the bound then kills.
 *
 * Tilts. The templates of a numeric column are made on the ranks: each bin has the normal score of
 * its reference ranks (mean 0, variance 1), and the probabilities are tilted, p(b) exp(t s(b)) for
 * a move of the mean, with a quadratic exponent for a change of spread. For a normal column this is
 * a shift by t sds; for a skewed or lumpy one it is the like-sized move that keeps its shape, where
 * a shift of the values would empty bins that no real change empties. "Mean +0.5 sd" therefore
 * means: by as many ranks as half a standard deviation is in a normal column.
 *
 * The tolerated laws, in contrast, move the values for real, since that is what "tol_sd reference
 * standard deviations" says. The unit is the sd, capped at 1.5 times the robust sd (interquartile
 * range / 1.349), so that a few giants do not make everything tolerable. In a lumpy column (few
 * distinct values, or one value with an eighth of the mass) a small move would carry all the mass
 * of a value over an edge or none of it, so there, and where only counts are known, the tolerated
 * laws are tilts by tol_sd too.
 *
 * A template that could not win under its own alternative (sum_b q ln(g/c) <= 0: the reference is
 * too small for so fine a change) is dropped; the bounds of the others do not suffer.
 */
#include "stats/edetector_fit.h"

#include "stats/special.h"

#include <math.h>

#define NULLS_MAX 9 /* tolerated laws that are looked at */

/* A distribution that came from a half by a change: expected counts, and the weight that a row of
 * each cell was given (1 where rows were moved instead of weighed). */
struct changed {
    double counts[CELLS_MAX];
    double weight[CELLS_MAX];
};

/* --- Changing a half -------------------------------------------------------------------------- */

static size_t count_below(const struct half *h, double x, bool or_equal)
{
    size_t lo = 0, hi = h->finite;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (h->sorted[mid] < x || (or_equal && h->sorted[mid] <= x))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The cells of centre + (x - centre) * scale + shift * unit, by moving the edges instead. */
static void change_by_moving(const struct fit *f, const struct half *h, double shift, double scale,
                             struct changed *ret)
{
    const struct cells_spec *s = f->spec;
    double from = s->centre + shift * f->unit;
    size_t below = count_below(h, s->centre + (s->lo - from) / scale, false);
    size_t last = count_below(h, s->centre + (s->hi - from) / scale, true);
    size_t at = below;

    for (uint32_t b = 0; b < s->bins; b++) {
        size_t next = last;

        if (b + 1 < s->bins)
            next = count_below(h, s->centre + (s->edges[b] - from) / scale, false);
        next = CLAMP(next, at, last);
        ret->counts[b] = (double)(next - at);
        at = next;
    }
    ret->counts[cells_missing(s)] = h->counts[cells_missing(s)];
    ret->counts[cells_outside(s)] = h->infinite + (double)(below + (h->finite - last));
    for (uint32_t b = 0; b < CELLS_MAX; b++)
        ret->weight[b] = 1.0;
}

/* The exponent of a move of the mean by `shift` and of the spread by the factor `scale`. */
static double tilt_of(const struct fit *f, uint32_t b, double shift, double scale)
{
    double z = f->score[b], curve = 0.5 * (1.0 - 1.0 / (scale * scale));

    return exp(shift * z + (f->spec->bins > 2 ? curve * (z * z - 1.0) : 0.0));
}

/* The mass in the bins stays what it is; missing and outside do not take part. */
static void change_by_tilting(const struct fit *f, const struct half *h, double shift, double scale,
                              struct changed *ret)
{
    const struct cells_spec *s = f->spec;
    double mass = 0.0, weighed = 0.0, norm;

    for (uint32_t b = 0; b < s->bins; b++) {
        ret->weight[b] = tilt_of(f, b, shift, scale);
        mass += h->counts[b];
        weighed += h->counts[b] * ret->weight[b];
    }
    norm = weighed > 0 ? mass / weighed : 1.0;
    for (uint32_t b = 0; b < cells_count(s); b++) {
        ret->weight[b] = b < s->bins ? ret->weight[b] * norm : 1.0;
        ret->counts[b] = h->counts[b] * ret->weight[b];
    }
}

static void change(const struct fit *f, const struct half *h, double shift, double scale,
                   struct changed *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (f->tilt)
        change_by_tilting(f, h, shift, scale, ret);
    else
        change_by_moving(f, h, shift, scale, ret);
}

/* --- Ratios ----------------------------------------------------------------------------------- */

/* Bins of little mass, beyond those that have templates of their own. */
static bool is_rare(const struct fit *f, uint32_t bin)
{
    for (uint32_t i = 0; i < MIN(f->spec->bins, 5); i++)
        if (f->order[i] == bin)
            return false;
    return bin < f->spec->bins;
}

static bool in_group(const struct fit *f, const struct edetector_template *t, uint32_t b)
{
    switch (t->kind) {
    case EDETECTOR_MISSING_UP:
    case EDETECTOR_MISSING_DOWN:
        return b == cells_missing(f->spec);
    case EDETECTOR_OUTSIDE_UP:
        return b == cells_outside(f->spec);
    case EDETECTOR_RARE_UP:
        return is_rare(f, b);
    default:
        return b == (uint32_t)t->size;
    }
}

static double odds_times(double p, double factor)
{
    return p * factor / (1.0 + p * (factor - 1.0));
}

/* The rate that a two-level template guesses for its group, from the rate now. */
static double group_target(const struct edetector_template *t, double p)
{
    switch (t->kind) {
    case EDETECTOR_CELL_UP:
    case EDETECTOR_RARE_UP:
        return MAX(odds_times(p, 1.6), MIN(p + 0.05, 0.5 + 0.5 * p));
    case EDETECTOR_CELL_DOWN:
        return odds_times(p, 1.0 / 1.6);
    default:
        return t->size;
    }
}

static double group_rate(const struct fit *f, const struct edetector_template *t, const double *p)
{
    double sum = 0.0;

    for (uint32_t b = 0; b < cells_count(f->spec); b++)
        sum += in_group(f, t, b) ? p[b] : 0.0;
    return sum;
}

static bool is_down(const struct edetector_template *t)
{
    return t->kind == EDETECTOR_CELL_DOWN || t->kind == EDETECTOR_MISSING_DOWN;
}

/* How far the rate of the group may move and still count as no change. */
static double group_tolerance(const struct fit *f, const struct edetector_template *t)
{
    bool cell = t->kind == EDETECTOR_CELL_UP || t->kind == EDETECTOR_CELL_DOWN ||
                t->kind == EDETECTOR_RARE_UP;

    return cell || f->spec->kind == CELLS_CATEGORICAL ? f->cfg.tol_tv : f->cfg.tol_rate;
}

/* One rate changes, all else stays in proportion. False when the guess is no further from now than
 * what is tolerated: a rate near 0 or 1 leaves no room. */
static bool ratio_group(const struct fit *f, const struct edetector_template *t, double *ret_g)
{
    double now = group_rate(f, t, f->p), target = group_target(t, now);
    double tol = group_tolerance(f, t);
    double worst = is_down(t) ? MAX(now - tol, 0.5 * now) : MIN(now + tol, 0.5 + 0.5 * now);

    for (uint32_t b = 0; b < cells_count(f->spec); b++)
        ret_g[b] = in_group(f, t, b) ? target / worst : (1.0 - target) / (1.0 - worst);
    return is_down(t) ? target < worst : target > worst;
}

static void ratio_swap(const struct fit *f, const struct edetector_template *t, const double *p,
                       double *ret_g)
{
    uint32_t top = f->order[0], other = (uint32_t)t->size;

    for (uint32_t b = 0; b < cells_count(f->spec); b++)
        ret_g[b] = 1.0;
    ret_g[top] = (p[other] + f->cfg.tol_tv) / (p[top] + f->cfg.tol_tv);
    ret_g[other] = 1.0 / ret_g[top];
}

static void ratio_tilted(const struct fit *f, const struct edetector_template *t,
                         const struct half *h, double *ret_g)
{
    struct changed q = {0};

    change_by_tilting(f, h, t->kind == EDETECTOR_SHIFT ? t->size : 0.0,
                      t->kind == EDETECTOR_SCALE ? t->size : 1.0, &q);
    memcpy(ret_g, q.weight, sizeof(q.weight));
}

void edetector_smooth(const struct cells_spec *s, const double *counts, double total, double *ret_p)
{
    for (uint32_t b = 0; b < cells_count(s); b++)
        ret_p[b] = (counts[b] + 0.5) / (total + 0.5 * cells_count(s));
}

static bool is_group(const struct edetector_template *t)
{
    return t->kind != EDETECTOR_SHIFT && t->kind != EDETECTOR_SCALE && t->kind != EDETECTOR_SWAP;
}

static void ratio(const struct fit *f, const struct edetector_template *t, const struct half *h,
                  double *ret_g)
{
    double p[CELLS_MAX];

    if (t->kind == EDETECTOR_SWAP) {
        edetector_smooth(f->spec, h->counts, h->total, p);
        ratio_swap(f, t, p, ret_g);
    } else {
        ratio_tilted(f, t, h, ret_g);
    }
}

/* --- Bounds ----------------------------------------------------------------------------------- */

struct moments {
    double mean, var; /* var: of the contribution of one row */
    double max;
};

static struct moments moments_of(const struct cells_spec *s, const struct half *h,
                                 const struct changed *law, const double *g)
{
    struct moments m = {0};

    for (uint32_t b = 0; b < cells_count(s); b++) {
        m.mean += law->counts[b] * g[b] / h->total;
        m.max = MAX(m.max, law->weight[b] * g[b]);
    }
    m.mean += (m.max - m.mean) / (h->total + 1.0); /* one more row, in the worst cell */
    for (uint32_t b = 0; b < cells_count(s); b++)
        m.var += law->counts[b] * law->weight[b] * (g[b] - m.mean) * (g[b] - m.mean) / h->total;
    return m;
}

/* Upper bound of the mean of (g[0] + g[1]) / 2 under one tolerated law; alpha: chance to miss. */
static double bound_of_law(const struct fit *f, const struct changed *law, double g[2][CELLS_MAX],
                           double alpha)
{
    struct moments m[2];
    double mean, var = 0.0, bernstein = 0.0;

    for (int h = 0; h < 2; h++) {
        const struct half *judge = &f->halves[1 - h];
        double n = judge->total, l = log(4.0 / alpha);

        m[h] = moments_of(f->spec, judge, &law[1 - h], g[h]);
        var += m[h].var / n;
        bernstein += 0.5 * (sqrt(2.0 * m[h].var * l / n) + 7.0 * m[h].max * l / (3.0 * (n - 1.0)));
    }
    mean = 0.5 * (m[0].mean + m[1].mean);
    if (f->cfg.finite_sample)
        return mean + bernstein;
    return mean + special_normal_quantile(1.0 - alpha) * 0.5 * sqrt(var);
}

/* What the tolerated contamination can add to a bound. */
static double contaminate(const struct fit *f, const double *g, double bound)
{
    const struct cells_spec *s = f->spec;
    double lo = g[0], hi = g[0];

    ASSERT(s->bins <= CELLS_BINS_MAX);
    if (s->kind == CELLS_NUMERIC)
        return bound + f->cfg.tol_rate * (MAX(g[cells_missing(s)] - bound, 0.0) +
                                          MAX(g[cells_outside(s)] - bound, 0.0));
    for (uint32_t b = 1; b < cells_count(s); b++) {
        lo = MIN(lo, g[b]);
        hi = MAX(hi, g[b]);
    }
    return bound + f->cfg.tol_tv * (hi - lo);
}

static size_t tolerated_laws(const struct fit *f, struct changed laws[NULLS_MAX][2])
{
    size_t n = 0;

    for (int i = -1; i <= 1; i++) {
        for (int k = -1; k <= 1; k++) {
            bool numeric = f->spec->kind == CELLS_NUMERIC && f->cfg.tol_sd > 0 && f->unit > 0;

            if (!numeric && (i || k))
                continue;
            for (int h = 0; h < 2; h++)
                change(f, &f->halves[h], i * f->cfg.tol_sd, 1.0 + k * f->cfg.tol_sd, &laws[n][h]);
            n++;
        }
    }
    return n;
}

/* Mean gain of a row under the template's own guess, to see whether it can win at all. */
static double growth(const struct fit *f, const struct edetector_template *t, const double *g,
                     double c)
{
    bool group =
        t->kind != EDETECTOR_SHIFT && t->kind != EDETECTOR_SCALE && t->kind != EDETECTOR_SWAP;
    double now = group ? group_rate(f, t, f->p) : 0.0, target = group ? group_target(t, now) : 0.0;
    double sum = 0.0, total = 0.0;

    for (uint32_t b = 0; b < cells_count(f->spec); b++) {
        double q = f->p[b] * g[b];

        if (group)
            q = f->p[b] * (in_group(f, t, b) ? target / now : (1.0 - target) / (1.0 - now));
        sum += q * log(g[b] / c);
        total += q;
    }
    return sum / total;
}

static float round_down(double x)
{
    float y = (float)x;

    return (double)y > x ? nextafterf(y, -INFINITY) : y;
}

static void bank_add(const struct fit *f, struct edetector_bank *bank,
                     const struct edetector_template *t, const double *g, double c)
{
    uint32_t j = bank->templates++;

    bank->template[j] = *t;
    bank->template[j].c = c;
    for (uint32_t b = 0; b < cells_count(f->spec); b++) {
        bank->ln_l[b][j] = round_down(log(g[b] / c));
        bank->l[b][j] = round_down(exp((double)bank->ln_l[b][j]));
    }
}

/* Rows that are in no known cell only because the cells were made from these very rows: had they
 * been left out, they would be outside. The extremes of a numeric column; categories that made it
 * into the cells by a single row, or by a tie. */
static double left_out(const struct fit *f)
{
    const struct cells_spec *s = f->spec;
    uint64_t least = UINT64_MAX, sum = 0;

    if (s->kind == CELLS_NUMERIC)
        return 2.0;
    for (uint32_t b = 0; b < s->bins; b++)
        least = MIN(least, s->ref_counts[b]);
    least = s->ref_counts[cells_outside(s)] ? MAX(least, 1) : 1;
    for (uint32_t b = 0; b < s->bins; b++)
        sum += s->ref_counts[b] <= least ? s->ref_counts[b] : 0;
    return (double)sum;
}

/* Upper bound of the mean of a ratio with two values: exact, by that of a binomial rate. */
static double bound_of_group(const struct fit *f, const struct edetector_template *t,
                             struct changed laws[NULLS_MAX][2], size_t nulls, const double *g,
                             double alpha)
{
    double n = f->halves[0].total + f->halves[1].total, worst = is_down(t) ? n : 0.0, rate;
    double inside = 1.0, beside = 1.0;

    for (uint32_t b = 0; b < cells_count(f->spec); b++)
        *(in_group(f, t, b) ? &inside : &beside) = g[b];
    for (size_t k = 0; k < nulls; k++) {
        double rows = group_rate(f, t, laws[k][0].counts) + group_rate(f, t, laws[k][1].counts);

        worst = is_down(t) ? MIN(worst, rows) : MAX(worst, rows);
    }
    if (is_down(t)) {
        /* the cell was chosen because it is frequent here: as if all cells had been tested */
        rate = special_binomial_lower(worst, n, alpha / f->spec->bins);
        rate = MAX(rate - group_tolerance(f, t), 0.0);
    } else {
        worst += t->kind == EDETECTOR_OUTSIDE_UP ? left_out(f) : 0.0;
        rate = special_binomial_upper(MIN(worst, n), n, alpha);
        rate = MIN(rate + group_tolerance(f, t), 1.0);
    }
    return beside + (inside - beside) * rate;
}

/* The ratio of a template and the bound of its mean. */
static double judge_template(const struct fit *f, const struct edetector_template *t,
                             struct changed laws[NULLS_MAX][2], size_t nulls, double alpha,
                             double *ret_g)
{
    double g[2][CELLS_MAX], c = 0.0;

    ASSERT(f->spec->bins >= 1 && f->spec->bins <= CELLS_BINS_MAX);
    if (is_group(t)) {
        if (!ratio_group(f, t, ret_g))
            return INFINITY; /* never grows: dropped */
        return bound_of_group(f, t, laws, nulls, ret_g, alpha);
    }
    for (int h = 0; h < 2; h++)
        ratio(f, t, &f->halves[h], g[h]);
    for (uint32_t b = 0; b < cells_count(f->spec); b++)
        ret_g[b] = 0.5 * (g[0][b] + g[1][b]);
    for (size_t k = 0; k < nulls; k++)
        c = MAX(c, contaminate(f, ret_g, bound_of_law(f, laws[k], g, alpha)));
    return c;
}

int edetector_judge(const struct fit *f, struct edetector_bank *ret_bank, struct err *e)
{
    struct edetector_bank bank = {.cells = cells_count(f->spec),
                                  .ref_n = (uint64_t)(f->halves[0].total + f->halves[1].total),
                                  .tol_sd = f->cfg.tol_sd,
                                  .tol_rate = f->cfg.tol_rate,
                                  .tol_tv = f->cfg.tol_tv,
                                  .delta = f->cfg.delta};
    struct changed laws[NULLS_MAX][2];
    size_t nulls = tolerated_laws(f, laws);
    double alpha = f->cfg.delta / (f->todo_count * (double)f->cfg.features);

    for (uint32_t j = 0; j < f->todo_count; j++) {
        double g[CELLS_MAX], c = judge_template(f, &f->todo[j], laws, nulls, alpha, g);

        if (growth(f, &f->todo[j], g, c) > 0)
            bank_add(f, &bank, &f->todo[j], g, c);
    }
    if (bank.templates == 0)
        return FAIL(e, INVALID_ARGUMENT,
                    "a reference of %llu rows is too small to notice any change with these "
                    "tolerances: give more rows or a larger delta",
                    (unsigned long long)bank.ref_n);
    *ret_bank = bank;
    return 0;
}
