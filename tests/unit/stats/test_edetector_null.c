/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The promise of the drift detector: while nothing beyond the tolerance changes, the mean run
 * length is at least the budget, with a reference that was only estimated. Seeded Monte Carlo.
 *
 * First the lemma that carries it, exactly: for references drawn from a known law, the true mean of
 * every betting factor is at most 1 in all but a share delta of the fits, for the law itself and
 * for laws within the tolerance, on and between the points that the fit looked at. Then the run
 * lengths themselves.
 */
#include "base/mem.h"
#include "base/random.h"
#include "check.h"
#include "stats/edetector.h"
#include "stats/special.h"

enum { N_MAX = 20000 };
static double values[N_MAX];
static struct cells_spec spec;
static struct edetector_bank bank;
static struct rng rng;

static bool fit(size_t n, const struct edetector_config *cfg)
{
    struct err e;

    return CHECK_OK(cells_spec_fit_numeric(values, n, 0, &spec, &e), &e) &&
           CHECK_OK(edetector_bank_fit(&spec, values, n, cfg, &bank, &e), &e);
}

/* Cell probabilities of mean + sd * N(0,1), a share of which goes missing or far outside. */
static void normal_law(double mean, double sd, double missing, double outside, double *ret_p)
{
    double left = 1 - missing - outside, below = special_normal_cdf((spec.lo - mean) / sd);
    double at = below;

    for (uint32_t b = 0; b < spec.bins; b++) {
        double edge = b + 1 < spec.bins ? spec.edges[b] : spec.hi;
        double upto = special_normal_cdf((edge - mean) / sd);

        ret_p[b] = left * (upto - at);
        at = upto;
    }
    ret_p[cells_missing(&spec)] = missing;
    ret_p[cells_outside(&spec)] = outside + left * (below + 1 - at);
}

/* Does any template have a mean factor above 1 under this law? */
static bool broken(const double *p)
{
    for (uint32_t j = 0; j < bank.templates; j++) {
        double mean = 0;

        for (uint32_t b = 0; b < bank.cells; b++)
            mean += p[b] * (double)bank.l[b][j];
        if (mean > 1)
            return true;
    }
    return false;
}

/* Fits with delta = 0.1: the share of fits that are broken for the worst of several laws. */
static void check_normal_factors(size_t n, bool finite_sample, uint64_t seed)
{
    enum { FITS = 400 };
    struct edetector_config cfg = {.delta = 0.1, .finite_sample = finite_sample};
    double tol = 0.02, rate = 0.001;
    int bad = 0;

    rng_seed(&rng, seed);
    for (int k = 0; k < FITS; k++) {
        bool any = false;

        for (size_t i = 0; i < n; i++)
            values[i] = rng_normal(&rng);
        cfg.seed = (uint64_t)k;
        NEED(fit(n, &cfg));
        /* the tolerated set is measured in the sd of the reference, about its mean */
        for (int s = -3; s <= 3; s++)
            for (int w = -3; w <= 3; w++)
                for (int c = 0; c < 4; c++) {
                    double p[CELLS_MAX], scale = 1 + tol * w / 3;
                    double mean = spec.centre + scale * (0 - spec.centre) + s * tol / 3 * spec.sd;

                    normal_law(mean, scale, c & 1 ? rate : 0, c & 2 ? rate : 0, p);
                    any = any || broken(p);
                }
        bad += any;
    }
    CHECK(bad <= FITS * 0.1 + 3 * sqrt(FITS * 0.1 * 0.9));
    if (finite_sample)
        CHECK(bad == 0); /* conservative by far */
}

static void test_factors_normal(void)
{
    check_normal_factors(500, false, 1);
    check_normal_factors(4000, false, 2);
    check_normal_factors(4000, true, 3);
}

static double draw_category(const double *p, size_t n)
{
    double u = rng_uniform(&rng);
    size_t i = 0;

    while (i + 1 < n && u >= p[i])
        u -= p[i++];
    return (double)i;
}

/* A law over categories 0..n-1 in the cells of the spec. */
static void category_law(const double *p, size_t n, double *ret_p)
{
    memset(ret_p, 0, CELLS_MAX * sizeof(*ret_p));
    for (size_t i = 0; i < n; i++)
        ret_p[cells_bin_f64(&spec, (double)i)] += p[i];
}

static void test_factors_categories(void)
{
    enum { FITS = 200, K = 40, N = 3000 };
    struct edetector_config cfg = {.delta = 0.1};
    struct err e;
    int bad = 0;

    rng_seed(&rng, 7);
    for (int k = 0; k < FITS; k++) {
        double p[K], law[CELLS_MAX], moved[CELLS_MAX], sum = 0;
        uint64_t keys[N];
        bool any;

        for (int i = 0; i < K; i++)
            sum += p[i] = exp(1.5 * rng_normal(&rng));
        for (int i = 0; i < K; i++)
            p[i] /= sum;
        for (int i = 0; i < N; i++) {
            values[i] = draw_category(p, K);
            keys[i] = cells_key_f64(values[i]);
        }
        NEED_OK(cells_spec_fit_keys(keys, N, 0, 0, &spec, &e), &e);
        NEED_OK(edetector_bank_fit(&spec, values, N, &cfg, &bank, &e), &e);
        category_law(p, K, law);
        any = broken(law);
        /* all ways to move the tolerated mass from the largest cell to another one */
        for (uint32_t to = 0; to < bank.cells; to++) {
            uint32_t from = 0;

            for (uint32_t b = 1; b < bank.cells; b++)
                from = law[b] > law[from] ? b : from;
            memcpy(moved, law, sizeof(law));
            moved[from] -= 0.005;
            moved[to] += 0.005;
            any = any || broken(moved);
        }
        bad += any;
    }
    CHECK(bad <= FITS * 0.1 + 3 * sqrt(FITS * 0.1 * 0.9));
}

/* Few distinct numbers: a Poisson-like column. */
static void test_factors_lumpy(void)
{
    enum { FITS = 300, K = 12, N = 2000 };
    struct edetector_config cfg = {.delta = 0.1};
    double p[K], law[CELLS_MAX], sum = 0;
    int bad = 0;

    rng_seed(&rng, 8);
    for (int i = 0; i < K; i++)
        sum += p[i] = exp(i * log(2.5) - lgamma(i + 1.0));
    for (int i = 0; i < K; i++)
        p[i] /= sum;
    for (int k = 0; k < FITS; k++) {
        for (int i = 0; i < N; i++)
            values[i] = draw_category(p, K);
        NEED(fit(N, &cfg));
        CHECK(spec.lumpy);
        category_law(p, K, law);
        bad += broken(law);
    }
    CHECK(bad <= FITS * 0.1 + 3 * sqrt(FITS * 0.1 * 0.9));
}

/* Mean run length of `runs` runs on mean + sd * N(0,1), each cut at 30 budgets, which can only
 * lower it. A new reference every 10 runs; blocks of random size, empty ones too. */
static double run_length(size_t n, double budget, int runs, double mean, bool blocks,
                         double *ret_se)
{
    struct edetector_config cfg = {.delta = 0.01};
    double sum = 0, squares = 0;

    for (int r = 0; r < runs; r++) {
        struct edetector d = {0};

        if (r % 10 == 0) {
            for (size_t i = 0; i < n; i++)
                values[i] = rng_normal(&rng);
            if (!fit(n, &cfg))
                return NAN;
        }
        while (edetector_evidence(&bank, &d) < budget && (double)d.rows < 30 * budget) {
            uint64_t counts[CELLS_MAX] = {0}, size = blocks ? rng_below(&rng, 120) : 1;

            for (uint64_t i = 0; i < size; i++)
                counts[cells_bin_f64(&spec, rng_normal(&rng) + mean)]++;
            edetector_block(&bank, &d, counts);
        }
        sum += (double)d.rows;
        squares += (double)d.rows * (double)d.rows;
    }
    sum /= runs;
    *ret_se = sqrt((squares / runs - sum * sum) / runs);
    return sum;
}

static void test_run_lengths(void)
{
    static const struct {
        size_t n;
        double budget;
        int runs;
        double mean;
        bool blocks;
    } table[] = {
        {2000, 1e3, 200, 0, false},    {2000, 1e3, 200, 0, true}, {20000, 1e3, 200, 0.0, true},
        {20000, 1e3, 200, 0.02, true}, {20000, 1e4, 40, 0, true}, {20000, 1e4, 40, -0.02, true},
    };

    rng_seed(&rng, 9);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        double se, mean = run_length(table[i].n, table[i].budget, table[i].runs, table[i].mean,
                                     table[i].blocks, &se);

        if (!CHECK(mean >= table[i].budget - 3 * se))
            fprintf(stderr, "    row %zu: mean run length %g +- %g\n", i, mean, se);
    }
}

/* An endpoint of many columns with dependent rows still has one budget: 30 copies of one column. */
static void test_run_length_of_an_endpoint(void)
{
    enum { F = 30, RUNS = 60 };
    AUTO(arena_done) struct arena a;
    const struct edetector_bank *banks[F];
    struct edetector_config cfg = {.features = F};
    struct edetector_endpoint ep;
    uint8_t bins[F];
    struct err e;
    double sum = 0;

    arena_init(&a, 0);
    rng_seed(&rng, 10);
    for (int i = 0; i < 5000; i++)
        values[i] = rng_normal(&rng);
    NEED(fit(5000, &cfg));
    for (int f = 0; f < F; f++)
        banks[f] = &bank;
    NEED_OK(edetector_endpoint_init(&ep, &a, banks, NULL, F, 500, &e), &e);
    for (int r = 0; r < RUNS; r++) {
        do {
            uint32_t b = cells_bin_f64(&spec, rng_normal(&rng));

            memset(bins, (int)b, sizeof(bins));
        } while (!edetector_endpoint_row(&ep, bins) && ep.rows < 20000);
        sum += (double)ep.rows;
        edetector_endpoint_reset(&ep);
    }
    CHECK(sum / RUNS >= 500);
}

RUN_TESTS(T(test_factors_normal), T(test_factors_categories), T(test_factors_lumpy),
          T(test_run_lengths), T(test_run_length_of_an_endpoint))
