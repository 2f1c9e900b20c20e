/* SPDX-License-Identifier: Apache-2.0 */
/* Every kind of step: what it gives, what it makes of the missing and the unseen, what it refuses.
 */
#include "base/mem.h"
#include "pipe.h"

#define XY "[{\"name\":\"x\",\"type\":\"double\"},{\"name\":\"y\",\"type\":\"int\"}]"
#define TEXT "[{\"name\":\"t\",\"type\":\"string\"},{\"name\":\"x\",\"type\":\"double\"}]"

static void test_numbers(void)
{
    static const double x[] = {1, NAN, 5, -3, 1e9}, y[] = {0, 1, 3, NAN, -2};
    AUTO(pipe_done) struct pipe t = {0};
    struct err e;

    NEED_OK(pipe_read(&t, XY,
                      "[{\"step\":\"impute\",\"columns\":[\"x\"],\"value\":7},"
                      "{\"step\":\"clip\",\"columns\":[\"x\"],\"lower\":-1,\"upper\":100},"
                      "{\"step\":\"standard\",\"columns\":[\"x\"],\"mean\":1,\"std\":2},"
                      "{\"step\":\"log1p\",\"columns\":[\"y\"]}]",
                      &e),
            &e);
    t.in[0].numbers = x, t.in[1].numbers = y;
    NEED_OK(pipeline_run(t.p, &t.w, t.in, 0, 5, &e), &e);
    CHECK_INT(t.p->output_count, 2);
    CHECK_NEAR(pipe_at(&t, 0, 0), 0, 0);
    CHECK_NEAR(pipe_at(&t, 0, 1), 3, 0);
    CHECK_NEAR(pipe_at(&t, 0, 3), -1, 0);
    CHECK_NEAR(pipe_at(&t, 0, 4), 49.5, 0);
    CHECK_NEAR(pipe_at(&t, 1, 2), log(4), 1e-15);
    CHECK(isnan(pipe_at(&t, 1, 3)) && isnan(pipe_at(&t, 1, 4)));
    CHECK(isnan(x[1]) && x[4] == 1e9); /* what came is untouched */
    NEED_OK(pipeline_run(t.p, &t.w, t.in, 2, 1, &e), &e);
    CHECK_NEAR(pipe_at(&t, 0, 0), 2, 0);
}

static void test_scalers(void)
{
    static const double x[] = {4, NAN}, y[] = {3, 3};
    AUTO(pipe_done) struct pipe t = {0};
    struct err e;

    NEED_OK(
        pipe_read(&t, XY,
                  "[{\"step\":\"min_max\",\"columns\":[\"x\",\"y\"],\"min\":[0,3],\"max\":[8,3]},"
                  "{\"step\":\"robust\",\"columns\":[\"x\"],\"center\":0.25,\"scale\":0.5}]",
                  &e),
        &e);
    t.in[0].numbers = x, t.in[1].numbers = y;
    NEED_OK(pipeline_run(t.p, &t.w, t.in, 0, 2, &e), &e);
    CHECK_NEAR(pipe_at(&t, 0, 0), 0.5, 0);
    CHECK(isnan(pipe_at(&t, 0, 1)));
    CHECK_NEAR(pipe_at(&t, 1, 0), 0, 0);
}

static void test_one_hot(void)
{
    static const str texts[] = {S_INIT("b"), S_INIT(""), S_INIT("new"), S_INIT("a")};
    static const double x[] = {1, 2, 3, 4};
    AUTO(pipe_done) struct pipe t = {0};
    struct err e;

    NEED_OK(pipe_read(&t, TEXT,
                      "[{\"step\":\"one_hot\",\"columns\":[\"t\"],\"categories\":[\"a\",\"b\"],"
                      "\"unseen\":\"zeros\"}]",
                      &e),
            &e);
    t.in[0].texts = texts, t.in[1].numbers = x;
    NEED_OK(pipeline_run(t.p, &t.w, t.in, 0, 4, &e), &e);
    CHECK_INT(t.p->output_count, 3);
    CHECK_STR(t.p->outputs[0].name, S("t_a"));
    CHECK_STR(t.p->outputs[1].name, S("t_b"));
    CHECK_STR(t.p->outputs[2].name, S("x"));
    for (uint32_t row = 0; row < 4; row++) {
        CHECK_NEAR(pipe_at(&t, 0, row), row == 3, 0);
        CHECK_NEAR(pipe_at(&t, 1, row), row == 0, 0);
        CHECK_NEAR(pipe_at(&t, 2, row), x[row], 0);
    }
}

static void unseen(const char *kind, const char *rule, double want_missing, double want_unseen)
{
    static const str texts[] = {S_INIT("b"), S_INIT(""), S_INIT("new")};
    static const double x[] = {1, 2, 3};
    AUTO(pipe_done) struct pipe t = {0};
    struct err e;
    bool is_table = strcmp(kind, "table") == 0;
    char steps[256];

    snprintf(steps, sizeof(steps),
             "[{\"step\":\"%s\",\"columns\":[\"t\"],%s,\"unseen\":\"%s\",\"code\":-1}]", kind,
             is_table ? "\"values\":{\"a\":0.5,\"b\":0.25}" : "\"categories\":[\"a\",\"b\"]", rule);
    NEED_OK(pipe_read(&t, TEXT, steps, &e), &e);
    t.in[0].texts = texts, t.in[1].numbers = x;
    if (strcmp(rule, "error") == 0) {
        CHECK_FAILS(pipeline_run(t.p, &t.w, t.in, 0, 3, &e), OUT_OF_RANGE, &e,
                    "row 2: column 't' is 'new', which is none of the categories");
        NEED_OK(pipeline_run(t.p, &t.w, t.in, 0, 2, &e), &e);
    } else {
        NEED_OK(pipeline_run(t.p, &t.w, t.in, 0, 3, &e), &e);
        CHECK(isnan(want_unseen) ? isnan(pipe_at(&t, 0, 2)) : pipe_at(&t, 0, 2) == want_unseen);
    }
    CHECK(isnan(want_missing) ? isnan(pipe_at(&t, 0, 1)) : pipe_at(&t, 0, 1) == want_missing);
    CHECK_NEAR(pipe_at(&t, 0, 0), is_table ? 0.25 : strcmp(kind, "one_hot") ? 1 : 0, 0);
}

static void test_unseen(void)
{
    unseen("ordinal", "error", NAN, 0);
    unseen("ordinal", "missing", NAN, NAN);
    unseen("ordinal", "code", NAN, -1);
    unseen("table", "error", NAN, 0);
    unseen("table", "missing", NAN, NAN);
    unseen("table", "code", NAN, -1);
    unseen("one_hot", "error", 0, 0);
    unseen("one_hot", "missing", 0, NAN);
    unseen("one_hot", "zeros", 0, 0);
}

static void test_number_categories(void)
{
    static const double x[] = {2, -0.0, NAN, 0.1}, y[] = {0, 0, 0, 0};
    AUTO(pipe_done) struct pipe t = {0};
    struct err e;

    NEED_OK(
        pipe_read(&t, XY,
                  "[{\"step\":\"one_hot\",\"columns\":[\"x\"],\"categories\":[\"0\",\"2\",0.1]},"
                  "{\"step\":\"drop\",\"columns\":[\"y\"]}]",
                  &e),
        &e);
    t.in[0].numbers = x, t.in[1].numbers = y;
    NEED_OK(pipeline_run(t.p, &t.w, t.in, 0, 4, &e), &e);
    CHECK_INT(t.p->output_count, 3);
    CHECK_STR(t.p->outputs[2].name, S("x_0.1"));
    CHECK_NEAR(pipe_at(&t, 1, 0), 1, 0);
    CHECK_NEAR(pipe_at(&t, 0, 1), 1, 0);
    CHECK_NEAR(pipe_at(&t, 0, 2) + pipe_at(&t, 1, 2) + pipe_at(&t, 2, 2), 0, 0);
    CHECK_NEAR(pipe_at(&t, 2, 3), 1, 0);
}

/* Known dates; the weekday of Python's datetime. */
static void test_moments(void)
{
    static const str texts[] = {
        S_INIT("2024-02-29T23:59:58Z"),      S_INIT("2026-11-27 11:34"),      S_INIT("1999-12-31"),
        S_INIT("2024-03-01T00:30:00+02:00"), S_INIT("2024-12-31 01:02:03.5"), S_INIT("")};
    static const double want[][5] = {{2024, 60, 3, 23, 1},
                                     {2026, 331, 4, 11, 4},
                                     {1999, 365, 4, 0, 4},
                                     {2024, 60, 3, 22, 1},
                                     {2024, 366, 1, 1, 4}};
    static const double x[] = {0, -1, 1e300, NAN, 951782400, 0};
    AUTO(pipe_done) struct pipe t = {0};
    struct err e;

    NEED_OK(
        pipe_read(&t, TEXT,
                  "[{\"step\":\"time\",\"columns\":[\"t\"],"
                  "\"parts\":[\"year\",\"day_of_year\",\"weekday\",\"hour\",\"quarter\"]},"
                  "{\"step\":\"time\",\"columns\":[\"x\"],\"parts\":[\"epoch\",\"second\",\"day\"],"
                  "\"unseen\":\"missing\"}]",
                  &e),
        &e);
    t.in[0].texts = texts, t.in[1].numbers = x;
    NEED_OK(pipeline_run(t.p, &t.w, t.in, 0, 6, &e), &e);
    CHECK_STR(t.p->outputs[3].name, S("t_hour"));
    for (uint32_t row = 0; row < 5; row++)
        for (uint32_t k = 0; k < 5; k++)
            CHECK_NEAR(pipe_at(&t, k, row), want[row][k], 0);
    CHECK(isnan(pipe_at(&t, 0, 5)));
    CHECK_NEAR(pipe_at(&t, 5, 1), -1, 0);
    CHECK_NEAR(pipe_at(&t, 6, 1), 59, 0);
    CHECK_NEAR(pipe_at(&t, 7, 1), 31, 0);
    CHECK(isnan(pipe_at(&t, 5, 2)) && isnan(pipe_at(&t, 5, 3)));
    CHECK_NEAR(pipe_at(&t, 7, 4), 29, 0);
}

static void test_no_moment(void)
{
    static const str texts[] = {S_INIT("yesterday")};
    static const double x[] = {0};
    AUTO(pipe_done) struct pipe t = {0};
    struct err e;

    NEED_OK(
        pipe_read(&t, TEXT, "[{\"step\":\"time\",\"columns\":[\"t\"],\"parts\":[\"hour\"]}]", &e),
        &e);
    t.in[0].texts = texts, t.in[1].numbers = x;
    CHECK_FAILS(pipeline_run(t.p, &t.w, t.in, 0, 1, &e), OUT_OF_RANGE, &e,
                "column 't' is 'yesterday', which is no time");
}

/* A row's result depends on it alone, whatever stands beside it. */
static void test_blocks_agree(void)
{
    enum { ROWS = 1000 };
    static double x[ROWS], y[ROWS], got[ROWS];
    AUTO(pipe_done) struct pipe t = {0};
    struct err e;

    NEED_OK(pipe_read(&t, XY,
                      "[{\"step\":\"log1p\",\"columns\":[\"x\"]},"
                      "{\"step\":\"standard\",\"columns\":[\"x\"],\"mean\":0.3,\"std\":0.7}]",
                      &e),
            &e);
    for (int i = 0; i < ROWS; i++)
        x[i] = i * 0.37;
    t.in[0].numbers = x, t.in[1].numbers = y;
    for (size_t at = 0; at < ROWS; at += PIPELINE_BLOCK_ROWS) {
        uint32_t rows = (uint32_t)MIN((size_t)PIPELINE_BLOCK_ROWS, ROWS - at);

        NEED_OK(pipeline_run(t.p, &t.w, t.in, at, rows, &e), &e);
        for (uint32_t i = 0; i < rows; i++)
            got[at + i] = pipe_at(&t, 0, i);
    }
    for (size_t i = 0; i < ROWS; i++) {
        NEED_OK(pipeline_run(t.p, &t.w, t.in, i, 1, &e), &e);
        CHECK(got[i] == pipe_at(&t, 0, 0));
    }
}

static void test_no_allocation(void)
{
    static const str texts[] = {S_INIT("2024-02-29"), S_INIT("2024-03-29")};
    static const double x[] = {1, 2};
    AUTO(pipe_done) struct pipe t = {0};
    uint64_t before;
    struct err e;

    NEED_OK(pipe_read(&t, TEXT,
                      "[{\"step\":\"time\",\"columns\":[\"t\"],\"parts\":[\"hour\",\"month\"]},"
                      "{\"step\":\"one_hot\",\"columns\":[\"x\"],\"categories\":[1,2]}]",
                      &e),
            &e);
    t.in[0].texts = texts, t.in[1].numbers = x;
    before = mem_alloc_count();
    for (int i = 0; i < 100; i++)
        CHECK_OK(pipeline_run(t.p, &t.w, t.in, 0, 2, &e), &e);
    CHECK_INT(mem_alloc_count() - before, 0);
}

static struct {
    int n;
    size_t steps[8];
    char first[256];
} heard;

static void on_problem(void *ctx, const struct pipeline_problem *p)
{
    (void)ctx;
    if (heard.n < 8)
        heard.steps[heard.n] = p->step;
    if (!heard.n++)
        snprintf(heard.first, sizeof(heard.first), "%s " STR_F "; " STR_F, p->member,
                 STR_A(p->what), STR_A(p->near));
}

static void test_all_problems(void)
{
    static const struct pipeline_options options = {.problem = on_problem};
    AUTO(pipe_done) struct pipe t = {0};
    struct err e;

    memset(&heard, 0, sizeof(heard));
    NEED_OK(pipe_parse(&t, "[{\"name\":\"plan\",\"type\":\"string\"},{\"name\":\"age\"}]",
                       "[{\"step\":\"log1p\",\"columns\":[\"plam\"]},"
                       "{\"step\":\"log1p\",\"columns\":[\"plan\",\"age\"]},"
                       "{\"step\":\"standard\",\"columns\":[\"age\"],\"mean\":1,\"std\":0},"
                       "{\"step\":\"square\",\"columns\":[\"age\"]},"
                       "{\"step\":\"clip\",\"columns\":[\"age\"],\"lower\":3,\"upper\":2},"
                       "{\"step\":\"ordinal\",\"columns\":[\"plan\"],\"categories\":[\"a\",\"a\"],"
                       "\"unseen\":\"zeros\"}]",
                       &e),
            &e);
    CHECK_FAILS(pipeline_read(t.document, &options, &t.a, &t.p, &e), INVALID_ARGUMENT, &e,
                "pipeline step 1 (log1p): columns has 'plam', which is no column");
    CHECK_INT(heard.n, 7);
    CHECK_STR(str_of(heard.first), S("columns has 'plam', which is no column at this step; plan"));
    CHECK_INT(heard.steps[1], 1);
    CHECK_INT(heard.steps[2], 2);
    CHECK_INT(heard.steps[6], 5);
}

static void refused(const char *steps, const char *part)
{
    AUTO(pipe_done) struct pipe t = {0};
    struct err e;

    CHECK_FAILS(pipe_read(&t, TEXT, steps, &e), INVALID_ARGUMENT, &e, part);
}

static void test_refused(void)
{
    refused("[{\"step\":\"standard\",\"columns\":[\"x\"],\"mean\":1}]", "std is open");
    refused("[{\"step\":\"one_hot\",\"columns\":[\"t\"]}]", "categories is open");
    refused("[{\"step\":\"drop\",\"columns\":[\"t\",\"x\"]}]", "leave no column");
    refused("[{\"step\":\"drop\",\"columns\":[]}]", "no list of columns");
    refused("[{\"step\":\"impute\",\"columns\":[\"t\"],\"with\":\"mean\"}]",
            "and column 't' is text");
    refused("[{\"step\":\"ordinal\",\"columns\":[\"x\"],\"categories\":[\"a\"]}]",
            "and column 'x' is a number");
    refused("[{\"step\":\"time\",\"columns\":[\"t\"],\"parts\":[\"hours\"]}]", "has 'hours'");
    refused("[{\"step\":\"one_hot\",\"columns\":[\"t\"],\"categories\":[\"a\"]},"
            "{\"step\":\"one_hot\",\"columns\":[\"t\"],\"categories\":[\"a\"]}]",
            "which is no column");
    refused(
        "[{\"step\":\"ordinal\",\"columns\":[\"t\"],\"categories\":[\"a\"],\"unseen\":\"code\"}]",
        "code is missing");
    refused("[{\"step\":\"table\",\"columns\":[\"t\"],\"values\":{\"a\":\"b\"}}]",
            "gives 'a' no number");
}

RUN_TESTS(T(test_numbers), T(test_scalers), T(test_one_hot), T(test_unseen),
          T(test_number_categories), T(test_moments), T(test_no_moment), T(test_blocks_agree),
          T(test_no_allocation), T(test_all_problems), T(test_refused))
