/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters computed from data, step after step. tests/oracle/test_pipeline.py holds them against
 * scikit-learn. */
#include "pipe.h"

#define TX "[{\"name\":\"t\",\"type\":\"string\"},{\"name\":\"x\",\"type\":\"double\"}]"

static const str texts[] = {S_INIT("b"), S_INIT(""), S_INIT("a"), S_INIT("b"), S_INIT("c")};
static const double x[] = {4, NAN, 1, 2, 3};

static bool fit(struct pipe *t, const char *steps)
{
    struct json *fitted = NULL;
    struct err e;

    if (!CHECK_OK(pipe_parse(t, TX, steps, &e), &e))
        return false;
    t->in[0].texts = texts, t->in[1].numbers = x;
    CHECK(pipeline_is_open(t->document));
    if (!CHECK_OK(pipeline_fit(t->document, t->in, 5, &t->a, &fitted, &e), &e))
        return false;
    CHECK(pipeline_is_open(t->document) && !pipeline_is_open(fitted));
    t->document = fitted;
    if (!CHECK_OK(pipeline_read(fitted, NULL, &t->a, &t->p, &e), &e))
        return false;
    pipeline_work_init(&t->w, t->p, &t->a);
    return CHECK_OK(pipeline_run(t->p, &t->w, t->in, 0, 5, &e), &e);
}

/* The scaler sees the column as the filler leaves it: 4 2.5 1 2 3. */
static void test_in_order(void)
{
    AUTO(pipe_done) struct pipe t = {0};

    NEED(fit(&t, "[{\"step\":\"impute\",\"columns\":[\"x\",\"t\"],\"with\":\"most_frequent\"},"
                 "{\"step\":\"impute\",\"columns\":[\"x\"],\"with\":\"median\"},"
                 "{\"step\":\"standard\",\"columns\":[\"x\"],\"mean\":null,\"std\":null},"
                 "{\"step\":\"one_hot\",\"columns\":[\"t\"],\"categories\":[]}]"));
    CHECK_INT(t.p->output_count, 4);
    CHECK_STR(t.p->outputs[0].name, S("t_a"));
    CHECK_NEAR(pipe_at(&t, 1, 1), 1, 0); /* the missing one is filled with b */
    CHECK_NEAR(json_real_or(json_at(json_path(t.document, "steps")->last->first, 0), -1), -1, 0);
}

static void test_scalers(void)
{
    AUTO(pipe_done) struct pipe t = {0};

    NEED(fit(&t, "[{\"step\":\"drop\",\"columns\":[\"t\"]},"
                 "{\"step\":\"impute\",\"columns\":[\"x\"],\"with\":\"median\"},"
                 "{\"step\":\"min_max\",\"columns\":[\"x\"]},"
                 "{\"step\":\"robust\",\"columns\":[\"x\"]}]"));
    /* filled 4 2.5 1 2 3; to 0..1: 1 .5 0 1/3 2/3; median .5, quartiles 1/3 and 2/3 */
    CHECK_NEAR(pipe_at(&t, 0, 0), 1.5, 1e-12);
    CHECK_NEAR(pipe_at(&t, 0, 1), 0, 1e-12);
    CHECK_NEAR(pipe_at(&t, 0, 2), -1.5, 1e-12);
}

static void test_frequency(void)
{
    AUTO(pipe_done) struct pipe t = {0};

    NEED(fit(&t, "[{\"step\":\"table\",\"columns\":[\"t\"],\"values\":{},\"unseen\":\"missing\"},"
                 "{\"step\":\"ordinal\",\"columns\":[\"x\"],\"categories\":null}]"));
    CHECK_NEAR(pipe_at(&t, 0, 0), 0.5, 0);
    CHECK_NEAR(pipe_at(&t, 0, 2), 0.25, 0);
    CHECK(isnan(pipe_at(&t, 0, 1)));
    CHECK_NEAR(pipe_at(&t, 1, 0), 3, 0);
    CHECK_NEAR(pipe_at(&t, 1, 2), 0, 0);
}

static void test_nothing_to_learn_from(void)
{
    static const double none[] = {NAN, NAN, NAN, NAN, NAN};
    AUTO(pipe_done) struct pipe t = {0};
    struct json *fitted;
    struct err e;

    NEED_OK(pipe_parse(&t, TX, "[{\"step\":\"standard\",\"columns\":[\"x\"]}]", &e), &e);
    t.in[0].texts = texts, t.in[1].numbers = none;
    CHECK_FAILS(pipeline_fit(t.document, t.in, 5, &t.a, &fitted, &e), FAILED_PRECONDITION, &e,
                "column 'x' has no value");
}

RUN_TESTS(T(test_in_order), T(test_scalers), T(test_frequency), T(test_nothing_to_learn_from))
