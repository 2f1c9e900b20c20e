/* SPDX-License-Identifier: Apache-2.0 */
/* Risk monitors: arithmetic, run length at and below the tolerated risk, power. Seeded. */
#include "base/random.h"
#include "check.h"
#include "stats/betting.h"

static struct rng rng;

static uint64_t errors_of(uint64_t n, double p)
{
    uint64_t k = 0;

    for (uint64_t i = 0; i < n; i++)
        k += rng_uniform(&rng) < p;
    return k;
}

static void test_likelihood_ratio(void)
{
    struct betting b;
    struct err e;
    double q = 0.1 * 1.6 / (0.9 + 0.16);

    NEED_OK(betting_init(&b, 0.1, 1e6, &e), &e);
    CHECK(!betting_block(&b, 7, 3));
    CHECK_NEAR(b.m[3], 7 * pow(q / 0.1, 3) * pow((1 - q) / 0.9, 4), 1e-9);
    CHECK(!betting_block(&b, 0, 0));
    CHECK_INT(b.rows, 7);
    for (int j = 0; j < BETTING_GRID; j++) /* the mean factor of a row is 1 at m0 */
        CHECK_NEAR(0.1 * exp(b.ln_loss[j]) + 0.9 * exp(b.ln_good[j]), 1, 1e-12);
    betting_reset(&b);
    CHECK(betting_evidence(&b) == 0 && b.rows == 0);
    CHECK(betting_block(&b, 100000, 100000)); /* saturates */
    CHECK(isfinite(betting_evidence(&b)));
    CHECK_FAILS(betting_init(&b, 0, 1e6, &e), INVALID_ARGUMENT, &e, "risk");
    CHECK_FAILS(betting_init(&b, 1, 1e6, &e), INVALID_ARGUMENT, &e, "risk");
    CHECK_FAILS(betting_init(&b, 0.1, 0, &e), INVALID_ARGUMENT, &e, "budget");
}

/* Mean rows to alarm, each run cut at `limit`. */
static double run_length(double m0, double budget, double p, int runs, bool blocks, double limit)
{
    struct betting b;
    struct err e;
    double sum = 0;

    if (!CHECK_OK(betting_init(&b, m0, budget, &e), &e))
        return NAN;
    for (int r = 0; r < runs; r++) {
        uint64_t n;

        betting_reset(&b);
        do
            n = blocks ? rng_below(&rng, 150) : 1;
        while (!betting_block(&b, n, (double)errors_of(n, p)) && (double)b.rows < limit);
        sum += (double)b.rows;
    }
    return sum / runs;
}

static void test_run_length(void)
{
    rng_seed(&rng, 21);
    /* exactly at the bound: the tightest null; the spread of a run length is about its mean */
    CHECK(run_length(0.1, 1e3, 0.1, 300, false, 3e4) >= 1e3 * (1 - 3 / sqrt(300)));
    CHECK(run_length(0.1, 1e3, 0.1, 300, true, 3e4) >= 1e3 * (1 - 3 / sqrt(300)));
    CHECK(run_length(0.01, 1e4, 0.01, 100, true, 3e5) >= 1e4 * (1 - 3 / sqrt(100)));
    CHECK(run_length(0.1, 1e3, 0.09, 50, true, 3e4) >= 3e3); /* below it: far longer */
}

/* The reference risk is estimated from 5,000 rows: still at least the budget. */
static void test_run_length_with_estimated_bound(void)
{
    double sum = 0;

    rng_seed(&rng, 22);
    for (int r = 0; r < 60; r++) {
        double m0 = betting_risk_bound((double)errors_of(5000, 0.1), 5000, 0.01);

        sum += run_length(m0, 1e3, 0.1, 3, true, 3e4);
    }
    CHECK(sum / 60 >= 1e3);
}

static void test_losses_between_0_and_1(void)
{
    struct betting b;
    struct err e;
    double sum = 0;

    rng_seed(&rng, 23);
    NEED_OK(betting_init(&b, 0.25, 500, &e), &e);
    for (int r = 0; r < 100; r++) {
        betting_reset(&b);
        for (;;) {
            double loss = 0;

            for (int i = 0; i < 10; i++)
                loss += rng_uniform(&rng) * 0.5;
            if (betting_block(&b, 10, loss) || b.rows > 15000)
                break;
        }
        sum += (double)b.rows;
    }
    CHECK(sum / 100 >= 500);
}

/* The delays of the method note at A = 5.96e9 with a bound of .107 (grid and reset differ). */
static void test_power(void)
{
    struct betting b;
    struct err e;
    double sum = 0, off = 0;

    rng_seed(&rng, 24);
    NEED_OK(betting_init(&b, 0.107, 5.96e9, &e), &e);
    for (int r = 0; r < 100; r++) {
        uint64_t rows = 0;

        betting_reset(&b);
        betting_block(&b, 5000, (double)errors_of(5000, 0.1));
        while (!betting_block(&b, 1, (double)errors_of(1, 0.3)))
            rows++;
        sum += (double)rows;
        off += fabs((double)betting_rows_ago(&b) - (double)rows);
    }
    CHECK_NEAR(sum / 100, 151, 20);
    CHECK(off / 100 < 15);
}

RUN_TESTS(T(test_likelihood_ratio), T(test_run_length), T(test_run_length_with_estimated_bound),
          T(test_losses_between_0_and_1), T(test_power))
