/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One-shot gates and confidence sequences: the share of null paths that ever cross must stay below
 * alpha (plus 3 standard errors), looked at after every row; and gates must decide when there is
 * something to decide. Seeded Monte Carlo.
 */
#include "base/random.h"
#include "check.h"
#include "stats/confseq.h"
#include "stats/gate.h"

static struct rng rng;
static const double alpha = 0.05;

static double ceiling(int paths)
{
    return paths * alpha + 3 * sqrt(paths * alpha * (1 - alpha));
}

/* d in {-1, 0, 1} with P(d != 0) = 0.2 and the given mean. */
static double draw_d(double mean)
{
    double u = rng_uniform(&rng);

    return u < 0.1 + mean / 2 ? 1 : u < 0.2 ? -1 : 0;
}

static void test_paired_false_claims(void)
{
    enum { PATHS = 1000, ROWS = 1000 };
    int good = 0, better = 0, harm = 0;

    rng_seed(&rng, 31);
    for (int k = 0; k < PATHS; k++) {
        struct paired_gate at_margin, equal;
        struct err e;

        NEED_OK(paired_gate_init(&at_margin, 0.03, false, 0, &e), &e);
        NEED_OK(paired_gate_init(&equal, 0, true, 0, &e), &e);
        for (int i = 0; i < ROWS; i++) {
            paired_gate_row(&at_margin, draw_d(0.03));
            paired_gate_row(&equal, draw_d(0));
        }
        good += eprocess_proves(&at_margin.non_inferior, alpha);
        harm += eprocess_proves(&at_margin.harm, alpha);
        better += eprocess_proves(&equal.superior, alpha);
    }
    CHECK(good <= ceiling(PATHS));
    CHECK(harm <= ceiling(PATHS));
    CHECK(better <= ceiling(PATHS));
    CHECK(good + harm + better > 0); /* it is a test of something */
}

static uint64_t rows_to(double mean, double eps, bool superior, enum verdict want)
{
    struct paired_gate g;
    struct err e;

    if (!CHECK_OK(paired_gate_init(&g, eps, superior, 100, &e), &e))
        return 0;
    while (paired_gate_verdict(&g, alpha) != want && g.n < 100000)
        paired_gate_row(&g, draw_d(mean));
    return g.n;
}

static void test_paired_decides(void)
{
    struct paired_gate g, counted;
    struct err e;

    rng_seed(&rng, 32);
    for (int i = 0; i < 20; i++) {
        CHECK(rows_to(0, 0.05, false, VERDICT_PASS) < 6000);
        CHECK(rows_to(-0.1, 0.01, true, VERDICT_PASS) < 1500);
        CHECK(rows_to(0.15, 0.02, false, VERDICT_FAIL) < 1500);
    }
    NEED_OK(paired_gate_init(&g, 0.02, false, 50, &e), &e);
    CHECK_INT(paired_gate_verdict(&g, alpha), VERDICT_INSUFFICIENT_EVIDENCE);
    for (int i = 0; i < 60; i++)
        paired_gate_row(&g, i % 2 ? 1 : -1);
    CHECK_INT(paired_gate_verdict(&g, alpha), VERDICT_INCONCLUSIVE);
    CHECK_STR(str_of(verdict_name(VERDICT_INSUFFICIENT_EVIDENCE)), S("INSUFFICIENT_EVIDENCE"));
    NEED_OK(paired_gate_init(&counted, 0.02, false, 50, &e), &e);
    paired_gate_counts(&counted, 30, 0, 30);
    CHECK_NEAR(counted.harm.ln_wealth[2], g.harm.ln_wealth[2], 1e-9);
    CHECK_INT(counted.n, 60);
    CHECK_FAILS(paired_gate_init(&g, 1, false, 0, &e), INVALID_ARGUMENT, &e, "margin");
}

static uint64_t errors_of(uint64_t n, double p)
{
    uint64_t k = 0;

    for (uint64_t i = 0; i < n; i++)
        k += rng_uniform(&rng) < p;
    return k;
}

/* Both arms at the same rate, which wanders from block to block; sizes are random. */
static void test_twoarm_false_claims(void)
{
    enum { PATHS = 600, BLOCKS = 60 };
    int harm = 0, good = 0;

    rng_seed(&rng, 33);
    for (int k = 0; k < PATHS; k++) {
        struct twoarm_gate same, double_odds;
        struct err e;

        NEED_OK(twoarm_gate_init(&same, 1, 2, 0, &e), &e);
        NEED_OK(twoarm_gate_init(&double_odds, 2, 2, 0, &e), &e);
        for (int i = 0; i < BLOCKS; i++) {
            double p = 0.02 + 0.3 * rng_uniform(&rng), q = 2 * p / (1 + p);
            uint64_t a = rng_below(&rng, 90), b = rng_below(&rng, 20);

            twoarm_gate_block(&same, a, errors_of(a, p), b, errors_of(b, p));
            twoarm_gate_block(&double_odds, a, errors_of(a, p), b, errors_of(b, q));
        }
        harm += eprocess_proves(&same.harm, alpha);
        good += eprocess_proves(&double_odds.non_inferior, alpha);
        harm += eprocess_proves(&double_odds.harm, alpha);
    }
    CHECK(harm <= 2 * ceiling(PATHS));
    CHECK(good <= ceiling(PATHS));
}

static void test_twoarm_decides(void)
{
    struct twoarm_gate g;
    struct err e;

    rng_seed(&rng, 34);
    NEED_OK(twoarm_gate_init(&g, 1.2, 1.5, 200, &e), &e);
    CHECK_INT(twoarm_gate_verdict(&g, alpha), VERDICT_INSUFFICIENT_EVIDENCE);
    for (int i = 0; i < 400 && twoarm_gate_verdict(&g, alpha) != VERDICT_PASS; i++)
        twoarm_gate_block(&g, 450, errors_of(450, 0.05), 50, errors_of(50, 0.05));
    CHECK_INT(twoarm_gate_verdict(&g, alpha), VERDICT_PASS);
    NEED_OK(twoarm_gate_init(&g, 1.2, 1.5, 200, &e), &e);
    for (int i = 0; i < 100 && twoarm_gate_verdict(&g, alpha) != VERDICT_FAIL; i++)
        twoarm_gate_block(&g, 450, errors_of(450, 0.05), 50, errors_of(50, 0.15));
    CHECK_INT(twoarm_gate_verdict(&g, alpha), VERDICT_FAIL);
    CHECK(g.n_b < 1500);
    /* no evidence without both arms or without a choice */
    NEED_OK(twoarm_gate_init(&g, 1, 1.5, 0, &e), &e);
    twoarm_gate_block(&g, 0, 0, 50, 50);
    twoarm_gate_block(&g, 50, 0, 50, 0);
    twoarm_gate_block(&g, 50, 50, 50, 50);
    CHECK_NEAR(g.harm.ln_peak, 0, 0);
    /* a huge block neither overflows nor takes long */
    twoarm_gate_block(&g, 90000000, 900000, 10000000, 100000);
    twoarm_gate_block(&g, 90000000, 900000, 10000000, 130000);
    CHECK(isfinite(g.harm.ln_peak) && g.harm.ln_peak > 100);
    CHECK_FAILS(twoarm_gate_init(&g, 0.9, 2, 0, &e), INVALID_ARGUMENT, &e, "odds");
    CHECK_FAILS(twoarm_gate_init(&g, 1, 1, 0, &e), INVALID_ARGUMENT, &e, "odds");
}

static void test_ebh(void)
{
    double e[] = {log(500), log(30), log(70), log(1), log(101)};
    bool s[5];

    /* thresholds n / (alpha k) = 100, 50, 33.3, 25, 20: four e-values reach 25, five not 20 */
    CHECK_INT(ebh_select(e, 5, 0.05, s), 4);
    CHECK(s[0] && s[1] && s[2] && !s[3] && s[4]);
    CHECK_INT(ebh_select(e, 5, 0.001, s), 0);
    CHECK_INT(ebh_select(e, 1, 0.05, s), 1);
    CHECK_INT(ebh_select(e, 0, 0.05, s), 0);
}

/* Never left by the truth in more than alpha of the paths; looked at after every row. */
static void test_confidence_sequences(void)
{
    enum { PATHS = 300, ROWS = 300 };
    int missed = 0, missed_d = 0;
    struct interval i;

    rng_seed(&rng, 35);
    for (int k = 0; k < PATHS; k++) {
        double a = 0, b = 0;
        bool out = false, out_d = false;

        for (int n = 1; n <= ROWS; n++) {
            a += rng_uniform(&rng) < 0.1;
            b += rng_uniform(&rng) < 0.3;
            i = confseq_bernoulli(a, n, alpha);
            out = out || i.lo > 0.1 || i.hi < 0.1;
            if (n % 8)
                continue;
            i = confseq_difference(a, n, b, n, alpha);
            out_d = out_d || i.lo > 0.2 || i.hi < 0.2;
        }
        missed += out;
        missed_d += out_d;
    }
    CHECK(missed <= ceiling(PATHS));
    CHECK(missed_d <= ceiling(PATHS));
    i = confseq_bernoulli(0, 0, alpha);
    CHECK(i.lo == 0 && i.hi == 1);
    i = confseq_bernoulli(100, 1000, alpha);
    CHECK(i.lo > 0.065 && i.lo < 0.08 && i.hi > 0.12 && i.hi < 0.14);
    i = confseq_signed(0, 1000, alpha);
    CHECK_NEAR(i.lo, -i.hi, 1e-9);
    CHECK(i.hi < 0.15);
}

RUN_TESTS(T(test_paired_false_claims), T(test_paired_decides), T(test_twoarm_false_claims),
          T(test_twoarm_decides), T(test_ebh), T(test_confidence_sequences))
