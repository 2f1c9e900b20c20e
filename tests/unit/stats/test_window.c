/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "stats/window.h"

#define MINUTE INT64_C(60000000000)

static struct cells_spec spec;
static struct cells quiet, loud, few;

static void setup(void)
{
    double v[100];
    struct err e;

    for (int i = 0; i < 100; i++)
        v[i] = i % 4;
    CHECK_OK(cells_spec_fit_numeric(v, 100, 0, &spec, &e), &e);
    cells_clear(&quiet);
    cells_clear(&loud);
    cells_clear(&few);
    for (int i = 0; i < 1000; i++) {
        cells_fold_f64(&spec, &quiet, i % 4);
        cells_fold_f64(&spec, &loud, i % 20 ? 3 : i % 4);
    }
    cells_fold_f64(&spec, &few, 3);
}

static struct window_report push(struct window *w, const struct cells *c, int64_t minute)
{
    return window_push(w, &spec, c, minute * MINUTE, window_metric_psi);
}

static void test_sustained_rule(void)
{
    struct window_rule rule = {.length_ns = MINUTE,
                               .rows_min = 100,
                               .sustain = 3,
                               .escalate = 2,
                               .bands = {0.1, 0.2, 1e9}};
    struct window w;
    struct window_report r;
    struct err e;

    setup();
    NEED_OK(window_init(&w, &rule, &e), &e);
    CHECK_INT(push(&w, &quiet, 10).outcome, WINDOW_OPEN);
    r = push(&w, &loud, 11);
    CHECK_INT(r.outcome, WINDOW_QUIET);
    CHECK_INT(r.rows, 1000);
    CHECK(r.from_ns == 10 * MINUTE && r.to_ns == 11 * MINUTE);
    CHECK_INT(push(&w, &loud, 12).outcome, WINDOW_PENDING);
    CHECK_INT(push(&w, &few, 13).outcome, WINDOW_PENDING);
    r = push(&w, &loud, 14); /* one row says nothing: the streak stands still */
    CHECK(r.outcome == WINDOW_TOO_FEW && r.streak == 2);
    r = push(&w, &loud, 20); /* silence in between neither */
    CHECK(r.outcome == WINDOW_ALERT && r.streak == 3 && r.severity == DRIFT_MODERATE);
    CHECK_INT(push(&w, &loud, 21).severity, DRIFT_MODERATE);
    r = push(&w, &quiet, 22);
    CHECK(r.outcome == WINDOW_ALERT && r.streak == 5 && r.severity == DRIFT_SEVERE);
    r = push(&w, &quiet, 23);
    CHECK(r.outcome == WINDOW_QUIET && r.streak == 0);
}

static void test_windows_of_rows_and_back_in_time(void)
{
    struct window_rule rule = {.length_rows = 2500, .sustain = 1, .bands = DRIFT_BANDS_PSI};
    struct window w;
    struct err e;

    setup();
    NEED_OK(window_init(&w, &rule, &e), &e);
    CHECK_INT(push(&w, &loud, 5).outcome, WINDOW_OPEN);
    CHECK_INT(push(&w, &loud, 4).outcome, WINDOW_OPEN);
    CHECK_INT(push(&w, &loud, 3).outcome, WINDOW_ALERT);
    CHECK_INT(cells_total(&w.cells), 0);
    rule = (struct window_rule){.length_ns = MINUTE, .sustain = 1, .bands = DRIFT_BANDS_PSI};
    NEED_OK(window_init(&w, &rule, &e), &e);
    CHECK_INT(push(&w, &loud, 5).outcome, WINDOW_OPEN);
    CHECK_INT(push(&w, &loud, 4).outcome, WINDOW_OPEN); /* counts as now */
    CHECK_INT(push(&w, &quiet, -9).outcome, WINDOW_OPEN);
    CHECK_INT(push(&w, &quiet, 6).rows, 3000);
}

static void test_refused_rules(void)
{
    struct window_rule rule = {.sustain = 1, .bands = DRIFT_BANDS_PSI};
    struct window w;
    struct err e;

    CHECK_FAILS(window_init(&w, &rule, &e), INVALID_ARGUMENT, &e, "length");
    rule.length_ns = 1;
    rule.sustain = 0;
    CHECK_FAILS(window_init(&w, &rule, &e), INVALID_ARGUMENT, &e, "sustain");
    rule.sustain = 1;
    rule.bands.moderate = 0.05;
    CHECK_FAILS(window_init(&w, &rule, &e), INVALID_ARGUMENT, &e, "ascend");
}

RUN_TESTS(T(test_sustained_rule), T(test_windows_of_rows_and_back_in_time), T(test_refused_rules))
