/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the drift detector does: its arithmetic against a naive one, what it notices and how fast,
 * whom it accuses, and how it is carried. What it must not do is in test_edetector_null.c.
 */
#include "base/mem.h"
#include "base/random.h"
#include "check.h"
#include "stats/edetector.h"

enum { N = 20000 };
static double values[N];
static struct cells_spec spec;
static struct edetector_bank bank;
static struct rng rng;

/* Reference columns of several shapes, and their streams. */
static double draw_normal(void)
{
    return 10 + 2 * rng_normal(&rng);
}
static double draw_lognormal(void)
{
    return exp(rng_normal(&rng));
}
static double draw_zero_inflated(void)
{
    return rng_uniform(&rng) < 0.6 ? 0 : exp(rng_normal(&rng));
}
static double draw_binary(void)
{
    return rng_uniform(&rng) < 0.3;
}
static double draw_dice(void)
{
    return 1 + (double)rng_below(&rng, 6);
}

static bool fit(double (*draw)(void), bool categorical)
{
    struct edetector_config cfg = {.features = 30};
    struct err e;

    rng_seed(&rng, 5);
    for (int i = 0; i < N; i++)
        values[i] = draw();
    if (categorical) {
        static uint64_t keys[N];

        for (int i = 0; i < N; i++)
            keys[i] = cells_key_f64(values[i]);
        if (!CHECK_OK(cells_spec_fit_keys(keys, N, 0, 0, &spec, &e), &e))
            return false;
    } else if (!CHECK_OK(cells_spec_fit_numeric(values, N, 0, &spec, &e), &e)) {
        return false;
    }
    return CHECK_OK(edetector_bank_fit(&spec, values, N, &cfg, &bank, &e), &e);
}

/* Rows until the evidence reaches 30 x 5.96e9 (one of 30 columns, one alarm in 30 days at 2,300/s),
 * after 2,000 unchanged rows; the median of 21 runs. */
static uint64_t delay(double (*draw)(void), double (*change)(double))
{
    enum { RUNS = 21, LIMIT = 20000 };
    uint64_t rows[RUNS];

    for (int r = 0; r < RUNS; r++) {
        struct edetector d = {0};
        uint64_t t = 0, at = (uint64_t)r;

        for (int i = 0; i < 2000; i++)
            edetector_row(&bank, &d, cells_bin_f64(&spec, draw()));
        for (; t < LIMIT && edetector_evidence(&bank, &d) < 30 * 5.96e9; t++)
            edetector_row(&bank, &d, cells_bin_f64(&spec, change(draw())));
        for (; at > 0 && rows[at - 1] > t; at--)
            rows[at] = rows[at - 1];
        rows[at] = t;
    }
    return rows[RUNS / 2];
}

static double half_sd_up(double x)
{
    return x + 0.5 * spec.sd;
}
static double one_sd_down(double x)
{
    return x - spec.sd;
}
static double wider(double x)
{
    return spec.centre + 1.5 * (x - spec.centre);
}
static double unit_change(double x)
{
    return 1000 * x;
}
static double half_null(double x)
{
    return rng_uniform(&rng) < 0.5 ? NAN : x;
}
static double some_null(double x)
{
    return rng_uniform(&rng) < 0.03 ? NAN : x;
}
static double stuck(double x)
{
    (void)x;
    return spec.centre;
}
static double multiplied(double x)
{
    return 1.6 * x;
}
static double more_zeros(double x)
{
    return rng_uniform(&rng) < 0.3 ? 0 : x;
}
static double flipped(double x)
{
    return rng_uniform(&rng) < 0.2 ? 1 - x : x;
}
static double new_face(double x)
{
    return rng_uniform(&rng) < 0.1 ? 7 : x;
}
static double loaded(double x)
{
    return rng_uniform(&rng) < 0.1 ? 6 : x;
}

/* No detector can be faster than about 28 / KL(after || before) rows at this budget: 224 for half a
 * sd, 1,000 for the zeros, 1,950 for the flips, 1,320 for the die. */
static void test_what_it_notices(void)
{
    static const struct {
        double (*draw)(void);
        bool categorical;
        double (*change)(double);
        uint64_t at_most; /* median rows */
        const char *what;
    } table[] = {
        {draw_normal, false, half_sd_up, 300, "half sd"},
        {draw_normal, false, one_sd_down, 90, "one sd"},
        {draw_normal, false, wider, 350, "spread x1.5"},
        {draw_normal, false, unit_change, 30, "unit change"},
        {draw_normal, false, half_null, 45, "half null"},
        {draw_normal, false, some_null, 700, "3 % null"},
        {draw_normal, false, stuck, 150, "stuck"},
        {draw_lognormal, false, multiplied, 400, "lognormal x1.6"},
        {draw_zero_inflated, false, more_zeros, 1500, "more zeros"},
        {draw_binary, false, flipped, 3000, "binary flips"},
        {draw_binary, true, flipped, 3000, "binary category flips"},
        {draw_dice, true, new_face, 250, "new category"},
        {draw_dice, true, loaded, 2300, "loaded die"},
        {draw_dice, false, loaded, 2600, "loaded die as numbers"},
        {draw_dice, true, half_null, 45, "half null category"},
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        uint64_t rows;

        NEED(fit(table[i].draw, table[i].categorical));
        rows = delay(table[i].draw, table[i].change);
        if (!CHECK(rows <= table[i].at_most))
            fprintf(stderr, "    %s: %llu rows, at most %llu wanted\n", table[i].what,
                    (unsigned long long)rows, (unsigned long long)table[i].at_most);
    }
}

static void test_block_arithmetic(void)
{
    struct edetector d = {0}, rows = {0};
    uint64_t counts[CELLS_MAX];

    NEED(fit(draw_normal, false));
    for (int k = 0; k < 50; k++) {
        double naive[EDETECTOR_TEMPLATES_MAX];
        uint64_t n = rng_below(&rng, 40);

        memset(counts, 0, sizeof(counts));
        for (uint64_t i = 0; i < n; i++)
            counts[cells_bin_f64(&spec, draw_normal() + 0.2)]++;
        for (uint32_t j = 0; j < bank.templates; j++) {
            naive[j] = d.m[j] + (double)n;
            for (uint32_t b = 0; b < bank.cells; b++)
                naive[j] *= exp((double)bank.ln_l[b][j] * (double)counts[b]);
        }
        edetector_block(&bank, &d, counts);
        for (uint32_t j = 0; j < bank.templates; j++)
            CHECK_NEAR(d.m[j], naive[j], 1e-10 * naive[j]);
    }
    edetector_reset(&d);
    for (int k = 0; k < 500; k++) { /* a block of one row is a row */
        uint32_t cell = cells_bin_f64(&spec, draw_normal());

        memset(counts, 0, sizeof(counts));
        counts[cell] = 1;
        edetector_block(&bank, &d, counts);
        edetector_row(&bank, &rows, cell);
        CHECK_INT(d.rows, rows.rows);
        for (uint32_t j = 0; j < bank.templates; j++) {
            CHECK_NEAR(d.m[j], rows.m[j], 1e-4 * d.m[j]);
            CHECK_INT(d.since[j], rows.since[j]);
        }
    }
}

/* Wealth saturates; it never becomes infinite or NaN. */
static void test_extreme_blocks(void)
{
    struct edetector d = {0};
    uint64_t counts[CELLS_MAX] = {0};

    NEED(fit(draw_normal, false));
    counts[cells_missing(&spec)] = 1000000000;
    for (int i = 0; i < 5; i++)
        edetector_block(&bank, &d, counts);
    CHECK(isfinite(edetector_evidence(&bank, &d)) && edetector_evidence(&bank, &d) > 1e200);
    for (int i = 0; i < 5000; i++)
        edetector_row(&bank, &d, cells_missing(&spec));
    CHECK(isfinite(edetector_evidence(&bank, &d)));
    counts[cells_missing(&spec)] = 0;
    for (int i = 0; i < N; i++)
        counts[cells_bin_f64(&spec, values[i])] += 100;
    for (int i = 0; i < 5; i++)
        edetector_block(&bank, &d, counts);
    CHECK_NEAR(edetector_evidence(&bank, &d), 0, 1);
}

/* No wealth grows on rows that look exactly like the reference. */
static void test_reference_against_itself(void)
{
    double (*draws[])(void) = {draw_normal, draw_lognormal, draw_zero_inflated, draw_binary,
                               draw_dice};

    for (size_t k = 0; k < 2 * ARRAY_LEN(draws); k++) {
        NEED(fit(draws[k / 2], k % 2));
        for (uint32_t j = 0; j < bank.templates; j++) {
            double mean = 0;

            for (uint32_t b = 0; b < bank.cells; b++)
                mean += (double)bank.l[b][j] * (double)spec.ref_counts[b] / N;
            CHECK(mean <= 1.0);
            CHECK(mean > 0.0);
        }
    }
}

/* Nine quiet columns and two that change: the alarm, the accused, and when it began. */
static void test_endpoint(void)
{
    enum { F = 11, CHANGE = 6000, BLOCK = 100 };
    AUTO(arena_done) struct arena a;
    const struct edetector_bank *banks[F];
    struct cells cells[F];
    const struct cells *blocks[F];
    struct edetector_endpoint ep;
    struct edetector_suspect s[4];
    struct err e;
    uint64_t rows = 0;
    bool alarm = false;

    NEED(fit(draw_normal, false));
    arena_init(&a, 0);
    for (int f = 0; f < F; f++) {
        banks[f] = f == 5 ? NULL : &bank;
        blocks[f] = f == 6 ? NULL : &cells[f];
    }
    NEED_OK(
        edetector_endpoint_init(&ep, &a, banks, NULL, F, edetector_budget_rows(2300, 2592000), &e),
        &e);
    CHECK_NEAR(ep.budget_rows, 5.9616e9, 1);
    while (!alarm && rows < 3 * CHANGE) {
        memset(cells, 0, sizeof(cells));
        for (int i = 0; i < BLOCK; i++)
            for (int f = 0; f < F; f++) {
                double x = draw_normal();

                if (rows >= CHANGE)
                    x += f == 3 ? 1.6 : f == 8 ? -1.8 : 0;
                cells_fold_f64(&spec, &cells[f], x);
            }
        rows += BLOCK;
        alarm = edetector_endpoint_block(&ep, blocks);
        CHECK_INT(ep.rows, rows);
    }
    CHECK(alarm && rows > CHANGE && rows <= CHANGE + 3 * BLOCK);
    CHECK_INT(edetector_endpoint_suspects(&ep, 0, s, 4), 4);
    CHECK(s[0].selected && !s[2].selected);
    CHECK(s[0].feature == 3 || s[0].feature == 8);
    CHECK_NEAR(rows - s[0].rows_ago, CHANGE, 150);
    CHECK_STR(str_take(edetector_template_text(&a, &bank.template[s[0].template]), 4), S("mean"));
    CHECK_INT(edetector_endpoint_suspects(&ep, 1e-3, s, 2), 2);
    CHECK(s[0].selected && s[1].selected && s[0].weighted >= s[1].weighted);
    edetector_endpoint_reset(&ep);
    CHECK(edetector_endpoint_evidence(&ep) == 0 && ep.rows == 0);
}

static void test_refused(void)
{
    AUTO(arena_done) struct arena a;
    const struct edetector_bank *banks[2] = {&bank, NULL};
    struct edetector_endpoint ep;
    struct edetector_config cfg = {.tol_sd = 0.9};
    struct edetector_bank b;
    struct err e;

    arena_init(&a, 0);
    NEED(fit(draw_normal, false));
    CHECK_FAILS(edetector_bank_fit(&spec, values, N, &cfg, &b, &e), INVALID_ARGUMENT, &e, "0.9 sd");
    cfg = (struct edetector_config){.delta = 1};
    CHECK_FAILS(edetector_bank_fit(&spec, values, N, &cfg, &b, &e), INVALID_ARGUMENT, &e, "delta");
    CHECK_FAILS(edetector_bank_fit(&spec, values, 99, NULL, &b, &e), INVALID_ARGUMENT, &e, "100");
    cfg = (struct edetector_config){.finite_sample = true, .features = 1000};
    CHECK_FAILS(edetector_bank_fit(&spec, values, 120, &cfg, &b, &e), INVALID_ARGUMENT, &e,
                "too small");
    CHECK_FAILS(edetector_endpoint_init(&ep, &a, banks + 1, NULL, 1, 1e6, &e), INVALID_ARGUMENT, &e,
                "no column");
    CHECK_FAILS(edetector_endpoint_init(&ep, &a, banks, (double[]){-1, 1}, 2, 1e6, &e),
                INVALID_ARGUMENT, &e, "weight");
    CHECK_FAILS(edetector_endpoint_init(&ep, &a, banks, NULL, 2, 0.5, &e), INVALID_ARGUMENT, &e,
                "budget");
    for (int k = 0; k < 2; k++) {
        mem_test_fail_after(k);
        CHECK_FAILS(edetector_bank_fit(&spec, values, N, NULL, &b, &e), RESOURCE_EXHAUSTED, &e,
                    "memory");
        mem_test_fail_after(-1);
    }
}

static void test_json(void)
{
    static const char *const bad[][2] = {
        {"\"kind\":\"shift\"", "\"kind\":\"jump\""},
        {"\"cells\":34", "\"cells\":33"},
        {"\"cells\":34", "\"cells\":9999"},
        {"\"templates\":[", "\"templates\":[],\"x\":["},
    };
    AUTO(arena_done) struct arena a;
    AUTO(buf_done) struct buf out;
    struct edetector_bank back;
    struct json *node;
    struct err e;

    arena_init(&a, 0);
    buf_init(&out, BUF_MAX_DEFAULT);
    NEED(fit(draw_normal, false));
    json_write_canonical(&out, edetector_bank_to_json(&bank, &a));
    NEED_OK(json_parse(buf_str(&out), &a, &node, &e), &e);
    NEED_OK(edetector_bank_from_json(node, &back, &e), &e);
    CHECK_INT(back.templates, bank.templates);
    CHECK(memcmp(back.ln_l, bank.ln_l, sizeof(bank.ln_l)) == 0);
    CHECK(memcmp(back.l, bank.l, sizeof(bank.l)) == 0);
    for (uint32_t j = 0; j < bank.templates; j++)
        CHECK(back.template[j].kind == bank.template[j].kind &&
              back.template[j].size == bank.template[j].size &&
              back.template[j].c == bank.template[j].c);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        str text = buf_str(&out);
        ptrdiff_t at = str_find(text, str_of(bad[i][0]));
        str t;

        NEED(at >= 0);
        t = arena_printf(&a, STR_F "%s" STR_F, STR_A(str_take(text, (size_t)at)), bad[i][1],
                         STR_A(str_skip(text, (size_t)at + strlen(bad[i][0]))));
        NEED_OK(json_parse(t, &a, &node, &e), &e);
        CHECK(edetector_bank_from_json(node, &back, &e) == CODE_INVALID_ARGUMENT);
    }
}

/* Counts are enough for categories: the same templates with nearly the same bounds. */
static void test_fit_from_counts(void)
{
    struct edetector_bank from_counts;
    struct edetector_config cfg = {.features = 30};
    struct err e;

    NEED(fit(draw_dice, true));
    NEED_OK(edetector_bank_fit_counts(&spec, spec.ref_counts, &cfg, &from_counts, &e), &e);
    CHECK_INT(from_counts.templates, bank.templates);
    for (uint32_t j = 0; j < bank.templates; j++) {
        CHECK_INT(from_counts.template[j].kind, bank.template[j].kind);
        CHECK_NEAR(from_counts.template[j].c, bank.template[j].c, 0.02);
    }
    NEED(fit(draw_normal, false));
    NEED_OK(edetector_bank_fit_counts(&spec, spec.ref_counts, &cfg, &bank, &e), &e);
    CHECK(delay(draw_normal, half_sd_up) <= 300);
}

RUN_TESTS(T(test_what_it_notices), T(test_block_arithmetic), T(test_extreme_blocks),
          T(test_reference_against_itself), T(test_endpoint), T(test_refused), T(test_json),
          T(test_fit_from_counts))
