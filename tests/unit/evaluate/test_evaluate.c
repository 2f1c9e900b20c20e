/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics against numbers made by hand, the gate against every verdict. */
#include "check.h"

#include "base/random.h"
#include "evaluate/evaluate.h"

#define N 20000

static double labels[N], good[N], bad[N];
static uint32_t slice[N];
static const uint32_t *const slice_of[] = {slice};
static const str slice_columns[] = {S_INIT("region")};
static const str region_names[] = {S_INIT("north"), S_INIT("south")};
static const str *const slice_values[] = {region_names};
static const uint32_t slice_counts[] = {2};

static struct eval_rows rows_of(const double *predicted, size_t n)
{
    return (struct eval_rows){.n = n,
                              .classes = 2,
                              .positive = 1,
                              .labels = labels,
                              .predicted = predicted,
                              .slice_of = slice_of,
                              .slice_columns = slice_columns,
                              .slice_values = slice_values,
                              .slice_value_counts = slice_counts,
                              .slice_column_count = 1};
}

/* Wrong with chance p, or p_south in the south. */
static void predict(double *to, double p, double p_south, uint64_t seed)
{
    struct rng r;

    rng_seed(&r, seed);
    for (size_t i = 0; i < N; i++) {
        bool wrong = rng_uniform(&r) < (slice[i] ? p_south : p);

        to[i] = wrong ? 1 - labels[i] : labels[i];
    }
}

static void world_make(void)
{
    struct rng r;

    rng_seed(&r, 1);
    for (size_t i = 0; i < N; i++) {
        labels[i] = rng_uniform(&r) < 0.4;
        slice[i] = rng_uniform(&r) < 0.3;
    }
}

static struct eval_config config(void)
{
    return (struct eval_config){.primary = EVAL_F1,
                                .gates = {{EVAL_F1, NAN, 0.005}},
                                .gate_count = 1,
                                .slice_tolerance = 0.01,
                                .latency_p99_ns = 1e8,
                                .size_ratio = 2,
                                .alpha = 0.05};
}

static void test_metrics_by_hand(void)
{
    AUTO(eval_result_done) struct eval_result r = {0};
    /* tp 2, fp 1, fn 1, tn 1; the last row has no label */
    const double y[] = {1, 1, 0, 1, 0, NAN}, p[] = {1, 1, 1, 0, 0, 1};
    const double score[] = {0.9, 0.8, 0.7, 0.4, 0.2, 0.5};
    struct eval_rows rows = {
        .n = 6, .classes = 2, .positive = 1, .labels = y, .predicted = p, .scores = score};
    struct err e;

    NEED_OK(evaluate_measure(&rows, &r, &e), &e);
    CHECK_INT(r.n, 5);
    CHECK_NEAR(r.metrics[EVAL_ACCURACY], 3.0 / 5, 1e-12);
    CHECK_NEAR(r.metrics[EVAL_PRECISION], 2.0 / 3, 1e-12);
    CHECK_NEAR(r.metrics[EVAL_RECALL], 2.0 / 3, 1e-12);
    CHECK_NEAR(r.metrics[EVAL_F1], 2.0 / 3, 1e-12);
    CHECK_NEAR(r.metrics[EVAL_ROC_AUC], 5.0 / 6, 1e-12); /* 5 of 6 pairs in order */
    CHECK_NEAR(r.metrics[EVAL_PR_AUC], (1 + 1 + 3.0 / 4) / 3, 1e-12);
    CHECK_NEAR(r.metrics[EVAL_BRIER], (0.01 + 0.04 + 0.49 + 0.36 + 0.04) / 5, 1e-12);
    CHECK(isnan(r.metrics[EVAL_RMSE]));
    CHECK_INT(r.confusion->counts[0 * 2 + 1], 1);
}

static void test_numbers_by_hand(void)
{
    AUTO(eval_result_done) struct eval_result r = {0};
    const double y[] = {1, 2, 3, 0}, p[] = {1.5, 2, 2, 1};
    struct eval_rows rows = {.n = 4, .positive = -1, .labels = y, .predicted = p};
    struct err e;

    NEED_OK(evaluate_measure(&rows, &r, &e), &e);
    CHECK_NEAR(r.metrics[EVAL_RMSE], sqrt(2.25 / 4), 1e-12);
    CHECK_NEAR(r.metrics[EVAL_MAE], 2.5 / 4, 1e-12);
    CHECK_NEAR(r.metrics[EVAL_MAPE], (0.5 + 0 + 1.0 / 3) / 3, 1e-12);
    CHECK_NEAR(r.metrics[EVAL_R2], 1 - 2.25 / 5, 1e-12);
}

static void test_bad_rows_are_refused(void)
{
    AUTO(eval_result_done) struct eval_result r = {0};
    const double y[] = {NAN, 0}, p[] = {1, 2};
    struct eval_rows rows = {.n = 1, .classes = 2, .positive = 1, .labels = y, .predicted = p};
    struct err e;

    CHECK_FAILS(evaluate_measure(&rows, &r, &e), FAILED_PRECONDITION, &e, "none of the 1 rows");
    rows.n = 2;
    CHECK_FAILS(evaluate_measure(&rows, &r, &e), INVALID_ARGUMENT, &e, "row 1");
}

/* Judges predictions b against a on the first n rows. */
static enum eval_verdict judge(const double *a, const double *b, size_t n,
                               const struct eval_config *cfg, struct arena *arena, str *ret_reason)
{
    AUTO(eval_result_done) struct eval_result x = {0}, y = {0};
    struct eval_rows rows = rows_of(a, n);
    struct eval_judgement j = {.verdict = EVAL_ITERATE};
    struct err e;

    CHECK_OK(evaluate_measure(&rows, &x, &e), &e);
    rows = rows_of(b, n);
    CHECK_OK(evaluate_measure(&rows, &y, &e), &e);
    x.size_bytes = 100, y.size_bytes = 150, y.p99_ns = 1000000;
    CHECK_OK(evaluate_gate(cfg, &x, &y, arena, &j, &e), &e);
    *ret_reason = j.reason;
    return j.verdict;
}

static void test_verdicts(void)
{
    AUTO(arena_done) struct arena a;
    struct eval_config cfg = config();
    str why;

    arena_init(&a, 0);
    world_make();
    predict(good, 0.10, 0.10, 2);
    predict(bad, 0.20, 0.20, 3);
    CHECK_INT(judge(bad, good, N, &cfg, &a, &why), EVAL_DEPLOY);
    CHECK_INT(judge(good, bad, N, &cfg, &a, &why), EVAL_REJECT);
    CHECK(str_find(why, S("f1 not worse than champion")) == 0);
    CHECK_INT(judge(good, good, 200, &cfg, &a, &why), EVAL_ITERATE);
    CHECK(str_find(why, S("label more")) > 0);
    cfg.gates[0].min_absolute = 0.99;
    CHECK_INT(judge(bad, good, N, &cfg, &a, &why), EVAL_REJECT);
    CHECK(str_find(why, S("f1 >= 0.99")) == 0);
    cfg = config();
    cfg.size_ratio = 1.2;
    CHECK_INT(judge(bad, good, N, &cfg, &a, &why), EVAL_REJECT);
    CHECK(str_find(why, S("size ratio")) == 0);
    cfg = config();
    cfg.latency_p99_ns = 1000;
    CHECK_INT(judge(bad, good, N, &cfg, &a, &why), EVAL_REJECT);
    CHECK(str_find(why, S("latency p99")) == 0);
}

/* Better on the whole, harmed in the south. */
static void test_a_harmed_slice_rejects(void)
{
    AUTO(arena_done) struct arena a;
    struct eval_config cfg = config();
    str why;

    arena_init(&a, 0);
    world_make();
    predict(bad, 0.20, 0.10, 3);
    predict(good, 0.05, 0.25, 2);
    CHECK_INT(judge(bad, good, N, &cfg, &a, &why), EVAL_REJECT);
    CHECK(str_find(why, S("slice region=south")) == 0);
}

static void test_config_and_report(void)
{
    AUTO(eval_result_done) struct eval_result r = {0};
    AUTO(arena_done) struct arena a;
    struct eval_rows rows;
    struct eval_config cfg;
    struct eval_judgement j;
    struct json *model, *report;
    struct err e;

    arena_init(&a, 0);
    NEED_OK(
        json_parse(S("{\"task\":\"classification\",\"metric\":\"pr_auc\",\"retrain\":{"
                     "\"evaluation\":{\"gates\":[{\"metric\":\"primary\",\"min_absolute\":0.5,"
                     "\"not_worse_than\":null}],\"slices\":[\"region\"],\"slice_tolerance\":0.02,"
                     "\"latency_p99_ns\":null,\"size_ratio\":3,\"alpha\":0.01}}}"),
                   &a, &model, &e),
        &e);
    NEED_OK(evaluate_config_read(model, &cfg, &e), &e);
    CHECK_INT(cfg.primary, EVAL_PR_AUC);
    CHECK_INT(cfg.gates[0].metric, EVAL_PR_AUC);
    CHECK(isnan(cfg.gates[0].not_worse_than) && isnan(cfg.latency_p99_ns));
    CHECK_NEAR(cfg.alpha, 0.01, 0);
    world_make();
    predict(good, 0.1, 0.1, 2);
    rows = rows_of(good, 1000);
    NEED_OK(evaluate_measure(&rows, &r, &e), &e);
    /* No scores: pr_auc is not defined, and a floor on it is not passed by accident. */
    NEED_OK(evaluate_gate(&cfg, NULL, &r, &a, &j, &e), &e);
    CHECK_INT(j.verdict, EVAL_REJECT);
    report = evaluate_report(&r, NULL, &j, &a);
    CHECK_STR(json_str_or(json_get(report, S("verdict")), S("")), S("REJECT"));
    CHECK(json_path(report, "metrics.f1") && !json_path(report, "metrics.pr_auc"));
    CHECK_INT(json_get(report, S("slices"))->count, 2);
    CHECK_INT(json_get(report, S("gates"))->count, 1);
}

static void test_other_rows_are_refused(void)
{
    AUTO(eval_result_done) struct eval_result x = {0}, y = {0};
    AUTO(arena_done) struct arena a;
    struct eval_config cfg = config();
    struct eval_rows rows;
    struct eval_judgement j;
    struct err e;

    arena_init(&a, 0);
    world_make();
    predict(good, 0.1, 0.1, 2);
    rows = rows_of(good, 1000);
    NEED_OK(evaluate_measure(&rows, &x, &e), &e);
    rows = rows_of(good, 999);
    NEED_OK(evaluate_measure(&rows, &y, &e), &e);
    CHECK_FAILS(evaluate_gate(&cfg, &x, &y, &a, &j, &e), INVALID_ARGUMENT, &e, "same rows");
}

RUN_TESTS(T(test_metrics_by_hand), T(test_numbers_by_hand), T(test_bad_rows_are_refused),
          T(test_verdicts), T(test_a_harmed_slice_rejects), T(test_config_and_report),
          T(test_other_rows_are_refused))
