/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what a project does with answers; tests/e2e/test_pipeline.py has what comes of it. */
#include "check.h"
#include "plan/plan.h"

static str classes[] = {S_INIT("no"), S_INIT("yes"), S_INIT("perhaps")};
static const struct plan_reading reading = {0, 1, -1, classes, 3, -1, NAN};

static int read_text(struct arena *a, const char *text, const struct plan_post **ret, struct err *e)
{
    struct json *post;

    TRY(json_parse(str_of(text), a, &post, e));
    return plan_post_read(post, &reading, a, ret, e);
}

static void test_all_members(void)
{
    AUTO(arena_done) struct arena a = {0};
    const struct plan_post *post = NULL;
    struct err e;

    NEED_OK(read_text(
                &a,
                "{\"thresholds\":{\"yes\":0.7},\"otherwise\":\"ask\",\"labels\":{\"no\":\"0\"},"
                "\"bands\":[{\"band\":\"high\",\"beyond\":0.3},{\"band\":\"low\",\"beyond\":null}],"
                "\"center\":null,\"minimum\":{\"score\":0.2,\"outcome\":\"reject\"},"
                "\"scores\":\"hidden\",\"decimals\":2}",
                &post, &e),
            &e);
    NEED(post);
    CHECK_NEAR(post->thresholds[1], 0.7, 0);
    CHECK_NEAR(post->thresholds[0], 0, 0);
    CHECK_STR(post->labels[0], S("0"));
    CHECK_INT(post->labels[1].n, 0);
    CHECK_STR(post->otherwise, S("ask"));
    CHECK_INT(post->band_count, 2);
    CHECK(post->bands[1].beyond < 0);
    CHECK_NEAR(post->center, 0.5, 0);
    CHECK(post->has_minimum && post->minimum == 0.2 && post->hides_scores);
    CHECK_INT(post->decimals, 2);
}

static void test_nothing(void)
{
    AUTO(arena_done) struct arena a = {0};
    const struct plan_post *post = NULL;
    struct err e;

    NEED_OK(plan_post_read(NULL, &reading, &a, &post, &e), &e);
    CHECK(!post);
    NEED_OK(read_text(&a, "{}", &post, &e), &e);
    NEED(post);
    CHECK(!post->thresholds && !post->labels && !post->band_count && !post->has_minimum);
    CHECK_INT(post->decimals, -1);
}

static void test_refused(void)
{
    static const struct {
        const char *text, *part;
    } wrong[] = {
        {"{\"thresholds\":{\"maybe\":0.5}}", "thresholds names 'maybe', which is none of the 3"},
        {"{\"thresholds\":{\"yes\":2}}", "is no probability"},
        {"{\"thresholds\":{\"yes\":\"x\"}}", "is no probability"},
        {"{\"labels\":{\"maybe\":\"x\"}}", "labels names 'maybe'"},
        {"{\"bands\":[{\"beyond\":1}]}", "band"},
        {"{\"minimum\":{\"score\":1}}", "outcome"},
        {"{\"decimals\":16}", "expected 0 to 15"},
        {"{\"scores\":\"secret\"}", "scores is 'secret'"},
    };
    AUTO(arena_done) struct arena a = {0};
    const struct plan_post *post;
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        CHECK_FAILS(read_text(&a, wrong[i].text, &post, &e), INVALID_ARGUMENT, &e, wrong[i].part);
}

RUN_TESTS(T(test_all_members), T(test_nothing), T(test_refused))
