/* SPDX-License-Identifier: Apache-2.0 */
/* The figures of `weir top`: two looks at metrics, and what lies between. */
#include "check.h"

#include "base/time.h"
#include "cli/top_model.h"

#include <math.h>

static struct arena a;

static const char look[] =
    "weir_requests_total{endpoint=\"e\",version=\"1\",arm=\"champion\",result=\"ok\"} %d\n"
    "weir_requests_total{endpoint=\"e\",version=\"1\",arm=\"champion\",result=\"shed\"} %d\n"
    "weir_request_duration_seconds_bucket{endpoint=\"e\",version=\"1\",arm=\"champion\",le=\"0."
    "001\"} %d\n"
    "weir_request_duration_seconds_bucket{endpoint=\"e\",version=\"1\",arm=\"champion\",le=\"0."
    "01\"} %d\n"
    "weir_request_duration_seconds_bucket{endpoint=\"e\",version=\"1\",arm=\"champion\",le=\"+"
    "Inf\"} %d\n"
    "weir_crew_workers{endpoint=\"e\",version=\"1\"} 2\n"
    "weir_runtime_breaker{endpoint=\"e\",version=\"1\",state=\"closed\"} 0\n"
    "weir_runtime_breaker{endpoint=\"e\",version=\"1\",state=\"open\"} 1\n";

static void look_at(struct top_shot *s, int64_t at_ns, int ok, int shed, int fast, int slow)
{
    struct err e;
    str text = arena_printf(&a, look, ok, shed, fast, fast + slow, fast + slow);

    top_shot_begin(s, &a, at_ns);
    CHECK_OK(top_shot_add(s, text, &e), &e);
}

static void test_between(void)
{
    struct top_shot before, now;
    struct top_figures f;
    struct err e;

    look_at(&before, 0, 100, 0, 100, 0);
    look_at(&now, 2 * NS_PER_S, 180, 20, 150, 50);
    top_compare(&before, &now, &a, &f);
    CHECK_INT(f.count, 1);
    CHECK_NEAR(f.rows[0].requests, 50, 1e-9);
    CHECK_NEAR(f.rows[0].failed, 10, 1e-9);
    CHECK_NEAR(f.shed, 10, 1e-9);
    CHECK_NEAR(f.rows[0].p50, 0.001, 1e-12); /* the 50th of 100 is the last of the first bucket */
    CHECK_NEAR(f.rows[0].p95, 0.0091, 1e-12);
    CHECK_NEAR(f.all.p95, 0.0091, 1e-12);
    CHECK(f.rows[0].workers == 2 && f.rows[0].has_crew);
    CHECK_STR(f.rows[0].breaker, S("open"));
    /* Two gateways are added up. */
    CHECK_OK(top_shot_add(&now, arena_printf(&a, look, 180, 20, 150, 200, 200), &e), &e);
    CHECK_INT(now.gateways, 2);
    CHECK(now.series[0].requests == 400 && now.series[0].workers == 4);
}

static void test_begins_anew(void)
{
    struct top_shot before, now;
    struct top_figures f;

    look_at(&before, 0, 1000, 0, 1000, 0);
    look_at(&now, NS_PER_S, 10, 0, 0, 10);
    top_compare(&before, &now, &a, &f);
    CHECK_NEAR(f.rows[0].requests, 10, 1e-9);
    CHECK(f.rows[0].p50 > 0.001);
    look_at(&before, 0, 10, 0, 0, 10);
    top_compare(&before, &now, &a, &f); /* nothing happened */
    CHECK(f.rows[0].requests == 0 && isnan(f.rows[0].p50) && isnan(f.rows[0].batch));
}

static void test_quantiles(void)
{
    struct top_histogram h = {
        .le = {1, 2, (double)INFINITY}, .count = {0, 10, 20}, .n = 3, .total = 20};

    CHECK_NEAR(top_quantile(&h, 0.25), 1.5, 1e-12);
    CHECK_NEAR(top_quantile(&h, 0.5), 2, 1e-12);
    CHECK_NEAR(top_quantile(&h, 0.99), 2, 1e-12); /* past the last edge nothing is known */
    h.total = 0;
    CHECK(isnan(top_quantile(&h, 0.5)));
}

static void test_order(void)
{
    struct top_row rows[] = {{.endpoint = S("b"), .requests = 1, .p99 = 3},
                             {.endpoint = S("a"), .requests = 1, .p99 = (double)NAN},
                             {.endpoint = S("c"), .requests = 2, .p99 = 1}};
    struct top_figures f = {.rows = rows, .count = ARRAY_LEN(rows)};
    enum top_sort by;

    top_order(&f, TOP_BY_REQUESTS);
    CHECK_STR(rows[0].endpoint, S("c"));
    CHECK_STR(rows[1].endpoint, S("a"));
    CHECK(top_sort_of(S("p99"), &by));
    top_order(&f, by);
    CHECK_STR(rows[0].endpoint, S("b"));
    CHECK_STR(rows[2].endpoint, S("a"));
    CHECK(!top_sort_of(S("size"), &by));
}

RUN_TESTS(T(test_between), T(test_begins_anew), T(test_quantiles), T(test_order))
