/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathering what a fit needs: the config without its defaults, the reference dealt at random into
 * two halves, the scores of the ranks, and the list of templates that make sense for the column.
 * What is then made of it, and why it is right, is in edetector_judge.c.
 *
 * The halves are dealt by a seeded generator, so that a fit can be repeated; dealing in the order
 * of the rows would make the halves alike if the rows were sorted, and unlike if they drift. The
 * list depends on the shape of the column, not on how a template does: the share of delta that each
 * gets is settled before any is judged.
 *
 * Templates are more or less a geometric grid of sizes. A change between two of them is noticed a
 * little later, by whichever is nearer; one far beyond the last is noticed at once anyway.
 */
#include "stats/edetector_fit.h"

#include "base/mem.h"
#include "base/random.h"
#include "stats/special.h"

#include <math.h>
#include <stdlib.h>

/* Costs a template of size d about d * tol of its growth d^2/2 per row: at 0.02 a shift of 0.5 sd
 * is noticed 8 % later than without tolerance (measured, 20,000 reference rows), and no shift below
 * 0.02 sd, which no model would feel, ever counts as drift however much traffic there is. */
#define TOL_SD_DEFAULT 0.02
#define TOL_RATE_DEFAULT 0.001
#define TOL_TV_DEFAULT 0.005
#define DELTA_DEFAULT 0.01
#define TILT_SCORE_MAX 4.0

static void fit_done(struct fit *f)
{
    mem_free(f->halves[0].sorted);
    mem_free(f->halves[1].sorted);
}

static int config_resolve(const struct edetector_config *cfg, struct edetector_config *ret,
                          struct err *e)
{
    struct edetector_config c = cfg ? *cfg : (struct edetector_config){0};

    c.delta = c.delta == 0 ? DELTA_DEFAULT : c.delta;
    c.features = c.features ? c.features : 1;
    c.tol_sd = c.tol_sd == 0 ? TOL_SD_DEFAULT : MAX(c.tol_sd, 0);
    c.tol_rate = c.tol_rate == 0 ? TOL_RATE_DEFAULT : MAX(c.tol_rate, 0);
    c.tol_tv = c.tol_tv == 0 ? TOL_TV_DEFAULT : MAX(c.tol_tv, 0);
    if (!(c.delta > 0 && c.delta < 1))
        return FAIL(e, INVALID_ARGUMENT, "delta is %g, it must lie between 0 and 1", c.delta);
    if (!(c.tol_sd < 0.5))
        return FAIL(e, INVALID_ARGUMENT, "the tolerance is %g sd, it must be below 0.5", c.tol_sd);
    if (!(c.tol_rate < 0.2 && c.tol_tv < 0.2))
        return FAIL(e, INVALID_ARGUMENT, "tolerated rates are %g and %g, they must be below 0.2",
                    c.tol_rate, c.tol_tv);
    *ret = c;
    return 0;
}

/* --- The list of templates -------------------------------------------------------------------- */

static void want(struct fit *f, enum edetector_kind kind, double size)
{
    if (f->todo_count < EDETECTOR_TEMPLATES_MAX)
        f->todo[f->todo_count++] = (struct edetector_template){.kind = kind, .size = size};
}

static void want_rates(struct fit *f)
{
    double missing = f->p[cells_missing(f->spec)], outside = f->p[cells_outside(f->spec)];

    want(f, EDETECTOR_MISSING_UP, MIN(MAX(2.0 * missing, missing + 0.02), 0.5 + 0.5 * missing));
    want(f, EDETECTOR_MISSING_UP, missing + 0.25 * (1.0 - missing));
    want(f, EDETECTOR_OUTSIDE_UP, MIN(MAX(2.0 * outside, outside + 0.02), 0.5 + 0.5 * outside));
    want(f, EDETECTOR_OUTSIDE_UP, outside + 0.25 * (1.0 - outside));
    if (missing > 0.02)
        want(f, EDETECTOR_MISSING_DOWN, 0.5 * missing);
}

static void want_numeric(struct fit *f)
{
    static const double shifts[] = {0.12, -0.12, 0.25, -0.25, 0.5, -0.5, 1.0, -1.0};

    want_rates(f);
    for (size_t i = 0; i < ARRAY_LEN(shifts) && f->spec->bins > 1 && f->unit > 0; i++)
        want(f, EDETECTOR_SHIFT, shifts[i]);
    if (f->spec->bins > 2 && f->unit > 0) {
        want(f, EDETECTOR_SCALE, 0.7);
        want(f, EDETECTOR_SCALE, 1.4);
    }
    if (f->spec->lumpy && f->spec->bins > 1)
        want(f, EDETECTOR_CELL_UP, f->order[0]);
}

static void want_categorical(struct fit *f)
{
    want_rates(f);
    for (uint32_t i = 0; i < MIN(f->spec->bins, 5); i++) {
        if (i < 2 && f->spec->bins > 2)
            want(f, EDETECTOR_CELL_DOWN, f->order[i]);
        if (f->spec->bins > 1)
            want(f, EDETECTOR_CELL_UP, f->order[i]);
    }
    if (f->spec->bins > 5)
        want(f, EDETECTOR_RARE_UP, f->spec->bins - 5);
    for (uint32_t i = 1; i < MIN(f->spec->bins, 3); i++)
        if (f->p[f->order[0]] > 1.1 * f->p[f->order[i]])
            want(f, EDETECTOR_SWAP, f->order[i]);
}

/* --- The halves ------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Deals the values at random into halves of equal size (+-1), then sorts the finite ones. */
static int halves_from_values(struct fit *f, const double *values, size_t n, struct err *e)
{
    size_t left[2] = {n - n / 2, n / 2};
    struct rng rng;

    rng_seed(&rng, f->cfg.seed + 1);
    for (int h = 0; h < 2; h++) {
        f->halves[h].total = (double)left[h];
        f->halves[h].sorted = mem_try_alloc(left[h] * sizeof(double));
        if (!f->halves[h].sorted)
            return FAIL(e, RESOURCE_EXHAUSTED, "no memory to sort %zu reference values", n);
    }
    for (size_t i = 0; i < n; i++) {
        int side = rng_below(&rng, left[0] + left[1]) >= left[0];
        struct half *h = &f->halves[side];

        left[side]--;
        h->counts[cells_bin_f64(f->spec, values[i])]++;
        if (fabs(values[i]) < CELLS_NUMBER_MAX)
            h->sorted[h->finite++] = values[i];
        else
            h->infinite += values[i] == values[i];
    }
    for (int h = 0; h < 2; h++)
        qsort(f->halves[h].sorted, f->halves[h].finite, sizeof(double), by_value);
    return 0;
}

/* Each row goes to either half by the toss of a coin. */
static void halves_from_counts(struct fit *f, const uint64_t *counts)
{
    struct rng rng;

    rng_seed(&rng, f->cfg.seed + 1);
    for (uint32_t b = 0; b < cells_count(f->spec); b++) {
        uint64_t heads = 0;

        for (uint64_t left = counts[b]; left;) {
            uint64_t bits = MIN(left, 64);

            heads += (uint64_t)__builtin_popcountll(rng_u64(&rng) >> (64 - bits));
            left -= bits;
        }
        f->halves[0].counts[b] = (double)heads;
        f->halves[1].counts[b] = (double)(counts[b] - heads);
        f->halves[0].total += (double)heads;
        f->halves[1].total += (double)(counts[b] - heads);
    }
}

static double robust_sd(const struct half *h)
{
    if (!h->sorted || h->finite < 4)
        return INFINITY;
    return (h->sorted[h->finite * 3 / 4] - h->sorted[h->finite / 4]) / 1.349;
}

/* The mean normal score of the ranks in each bin, standardized. */
static void fit_scores(struct fit *f)
{
    double total = 0.0, below = 0.0, density = 0.0, square = 0.0;
    uint32_t bins = f->spec->bins;

    for (uint32_t b = 0; b < bins; b++)
        total += f->p[b];
    for (uint32_t b = 0; b < bins; b++) {
        double upto = b + 1 < bins ? below + f->p[b] / total : 1.0;
        double z = special_normal_quantile(MIN(upto, 1.0)), next = exp(-0.5 * z * z);

        f->score[b] = (density - next) / sqrt(2.0 * M_PI) / (f->p[b] / total);
        square += f->p[b] / total * f->score[b] * f->score[b];
        density = next;
        below = upto;
    }
    for (uint32_t b = 0; b < bins && square > 0.0; b++)
        f->score[b] = CLAMP(f->score[b] / sqrt(square), -TILT_SCORE_MAX, TILT_SCORE_MAX);
}

/* What depends on both halves: probabilities, order of the bins, unit, scores. */
static void fit_prepare(struct fit *f)
{
    const struct cells_spec *s = f->spec;
    double counts[CELLS_MAX];
    double robust = 0.5 * (robust_sd(&f->halves[0]) + robust_sd(&f->halves[1]));

    for (uint32_t b = 0; b < cells_count(s); b++)
        counts[b] = f->halves[0].counts[b] + f->halves[1].counts[b];
    edetector_smooth(s, counts, f->halves[0].total + f->halves[1].total, f->p);
    for (uint32_t b = 0; b < s->bins; b++) {
        uint32_t at = b;

        for (; at > 0 && f->p[f->order[at - 1]] < f->p[b]; at--)
            f->order[at] = f->order[at - 1];
        f->order[at] = b;
    }
    f->unit = robust > 0 ? MIN(s->sd, 1.5 * robust) : s->sd;
    fit_scores(f);
    if (s->kind == CELLS_NUMERIC)
        want_numeric(f);
    else
        want_categorical(f);
}

int edetector_bank_fit_counts(const struct cells_spec *spec, const uint64_t *counts,
                              const struct edetector_config *cfg, struct edetector_bank *ret_bank,
                              struct err *e)
{
    AUTO(fit_done) struct fit f = {.spec = spec, .tilt = true};
    uint64_t n = 0;

    TRY(config_resolve(cfg, &f.cfg, e));
    for (uint32_t b = 0; b < cells_count(spec); b++)
        n += counts[b];
    if (n < EDETECTOR_REF_MIN)
        return FAIL(e, INVALID_ARGUMENT, "the reference has %llu rows, at least %d are needed",
                    (unsigned long long)n, EDETECTOR_REF_MIN);
    halves_from_counts(&f, counts);
    fit_prepare(&f);
    return edetector_judge(&f, ret_bank, e);
}

int edetector_bank_fit(const struct cells_spec *spec, const double *values, size_t n,
                       const struct edetector_config *cfg, struct edetector_bank *ret_bank,
                       struct err *e)
{
    AUTO(fit_done) struct fit f = {.spec = spec};

    TRY(config_resolve(cfg, &f.cfg, e));
    if (n < EDETECTOR_REF_MIN)
        return FAIL(e, INVALID_ARGUMENT, "the reference has %zu rows, at least %d are needed", n,
                    EDETECTOR_REF_MIN);
    f.tilt = spec->kind == CELLS_CATEGORICAL || spec->lumpy;
    TRY(halves_from_values(&f, values, n, e));
    fit_prepare(&f);
    return edetector_judge(&f, ret_bank, e);
}
