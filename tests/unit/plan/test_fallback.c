/* SPDX-License-Identifier: Apache-2.0 */
/* Static answers: from the words of a project to tensors, and what no model could have said. */
#include "check.h"

#include "plan/fallback.h"

static struct arena a;

#define BINARY                                                                             \
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,2]}],"               \
    "\"outputs\":[{\"name\":\"label\",\"datatype\":\"INT64\",\"shape\":[-1]},"             \
    "{\"name\":\"p\",\"datatype\":\"FP32\",\"shape\":[-1,2]}],\"columns\":[],"             \
    "\"reading\":{\"label\":0,\"probabilities\":1,\"value\":-1,\"classes\":[\"0\",\"1\"]," \
    "\"positive\":1,\"threshold\":0.6}}"
#define MULTI                                                                                    \
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,2]}],"                     \
    "\"outputs\":[{\"name\":\"label\",\"datatype\":\"BYTES\",\"shape\":[-1]},"                   \
    "{\"name\":\"p\",\"datatype\":\"FP64\",\"shape\":[-1,3]}],\"columns\":[],"                   \
    "\"reading\":{\"label\":0,\"probabilities\":1,\"value\":-1,\"classes\":[\"a\",\"b\",\"c\"]," \
    "\"positive\":-1}}"
#define VALUE                                                                 \
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,2]}],"  \
    "\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[-1,1]},"   \
    "{\"name\":\"ok\",\"datatype\":\"BOOL\",\"shape\":[-1]}],\"columns\":[]," \
    "\"reading\":{\"label\":-1,\"probabilities\":-1,\"value\":0,\"classes\":[]}}"
#define ODD                                                                   \
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,2]}],"  \
    "\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[-1,-1]}]," \
    "\"columns\":[],\"reading\":{\"label\":-1,\"probabilities\":-1,\"value\":-1,\"classes\":[]}}"

static NODISCARD int resolve(const char *signature, const char *wish, str *ret_text, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct json *tree, *want, *answer;
    struct plan_signature sig;

    TRY(json_parse(str_of(signature), &a, &tree, e));
    TRY(json_parse(str_of(wish), &a, &want, e));
    TRY(plan_signature_read(tree, &a, &sig, e));
    TRY(plan_answer_resolve(want, &sig, &a, &answer, e));
    buf_init(&text, 4096);
    json_write_canonical(&text, answer);
    *ret_text = arena_dup(&a, buf_str(&text));
    return 0;
}

static void test_words_become_tensors(void)
{
    static const struct {
        const char *signature, *wish, *answer;
    } cases[] = {
        {BINARY, "{\"prediction\":\"0\",\"score\":0.25}", "{\"label\":[0],\"p\":[0.75,0.25]}"},
        {BINARY, "{\"prediction\":1,\"score\":1}", "{\"label\":[1],\"p\":[0,1]}"},
        {BINARY, "{\"label\":1,\"p\":[0.5,0.5]}", "{\"label\":[1],\"p\":[0.5,0.5]}"},
        {MULTI, "{\"prediction\":\"b\",\"score\":0.5}",
         "{\"label\":[\"b\"],\"p\":[0.25,0.5,0.25]}"},
        {VALUE, "{\"prediction\":-2.5,\"ok\":true}", "{\"ok\":[true],\"y\":[-2.5]}"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        str text;
        struct err e;

        CHECK_OK(resolve(cases[i].signature, cases[i].wish, &text, &e), &e);
        CHECK_STR(text, str_of(cases[i].answer));
    }
}

static void test_what_no_model_says(void)
{
    static const struct {
        const char *signature, *wish;
        enum code code;
        const char *message;
    } cases[] = {
        {BINARY, "{}", CODE_INVALID_ARGUMENT, "no value for output 'label'"},
        {BINARY, "{\"prediction\":\"2\",\"score\":1}", CODE_INVALID_ARGUMENT, "not one of the 2"},
        {BINARY, "{\"prediction\":\"1\"}", CODE_INVALID_ARGUMENT, "no 'score'"},
        {BINARY, "{\"prediction\":\"1\",\"score\":0.5}", CODE_INVALID_ARGUMENT, "reads as '0'"},
        {BINARY, "{\"prediction\":\"0\",\"score\":1.5}", CODE_INVALID_ARGUMENT, "from 0 to 1"},
        {BINARY, "{\"prediction\":\"0\",\"score\":\"x\"}", CODE_INVALID_ARGUMENT, "from 0 to 1"},
        {BINARY, "{\"label\":0.5,\"p\":[1,0]}", CODE_INVALID_ARGUMENT, "does not fit INT64"},
        {BINARY, "{\"label\":\"a\",\"p\":[1,0]}", CODE_INVALID_ARGUMENT, "does not fit INT64"},
        {BINARY, "{\"label\":0,\"p\":[1]}", CODE_INVALID_ARGUMENT,
         "1 values for output 'p', expected 2"},
        {BINARY, "{\"label\":0,\"p\":[1,0],\"q\":1}", CODE_INVALID_ARGUMENT, "'q' is no output"},
        {MULTI, "{\"label\":\"b\",\"score\":0.5}", CODE_INVALID_ARGUMENT, "under its name"},
        {MULTI, "{\"label\":1,\"p\":[1,0,0]}", CODE_INVALID_ARGUMENT, "does not fit BYTES"},
        {VALUE, "{\"prediction\":\"many\",\"ok\":1}", CODE_INVALID_ARGUMENT, "does not fit FP32"},
        {VALUE, "{\"prediction\":1}", CODE_INVALID_ARGUMENT, "no value for output 'ok'"},
        {ODD, "{\"y\":[1,2]}", CODE_FAILED_PRECONDITION, "not one row of fixed size"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err e = {0};
        str text;

        CHECK_INT(resolve(cases[i].signature, cases[i].wish, &text, &e), cases[i].code);
        CHECK(strstr(e.msg, cases[i].message) != NULL);
    }
}

/* --- Parts ------------------------------------------------------------------------------------ */

static NODISCARD int read_part(const char *more, struct plan_endpoint *ret, struct err *e)
{
    str text = arena_printf(
        &a,
        "{\"format\":1,\"name\":\"m\",\"model\":\"m\",\"timeout_ns\":1000,\"body_bytes_max\":10,"
        "\"rows_max\":1,\"inflight_max\":1,%s\"signature\":%s,\"versions\":["
        "{\"version\":1,\"weight\":10000,\"arm\":\"champion\",\"platform\":\"identity\","
        "\"artifact\":\"00\"},"
        "{\"version\":5,\"weight\":0,\"arm\":\"fallback\",\"platform\":\"identity\","
        "\"artifact\":\"00\"}]}",
        more, BINARY);
    struct json *part;

    TRY(json_parse(text, &a, &part, e));
    return plan_endpoint_read(part, S("h"), &a, ret, e);
}

static void test_parts(void)
{
    struct plan_endpoint ep;
    struct err e;

    CHECK_OK(read_part("", &ep, &e), &e);
    CHECK(!ep.fallback.on && !ep.idempotency.window_ns);
    CHECK_OK(read_part("\"fallback\":{\"versions\":[5,1],\"answer\":{\"label\":[1],\"p\":[0,1]},"
                       "\"share\":0.75,\"shed\":true},"
                       "\"idempotency\":{\"window_ns\":9,\"bytes_max\":8,\"entries_max\":7},",
                       &ep, &e),
             &e);
    CHECK(ep.fallback.on && ep.fallback.shed && ep.fallback.share == 0.75);
    CHECK_INT(ep.fallback.version_count, 2);
    CHECK_INT(ep.fallback.versions[0], 5);
    CHECK_INT(*(int64_t *)ep.fallback.answer[0].data, 1);
    CHECK_INT(ep.idempotency.window_ns, 9);
    CHECK_INT(ep.idempotency.bytes_max, 8);
    CHECK_INT(ep.idempotency.entries_max, 7);

    CHECK_FAILS(read_part("\"fallback\":{\"versions\":[7]},", &ep, &e), INVALID_ARGUMENT, &e,
                "version 7 is not one of the endpoint");
    CHECK_FAILS(read_part("\"fallback\":{\"share\":1},", &ep, &e), OUT_OF_RANGE, &e, "share is 1");
    CHECK_FAILS(read_part("\"fallback\":{\"answer\":{\"label\":[1]}},", &ep, &e), INVALID_ARGUMENT,
                &e, "0 values for output 'p'");
    CHECK_FAILS(read_part("\"idempotency\":{\"window_ns\":9},", &ep, &e), INVALID_ARGUMENT, &e,
                "bytes_max");
    CHECK_FAILS(
        read_part("\"idempotency\":{\"window_ns\":0,\"bytes_max\":8,\"entries_max\":7},", &ep, &e),
        OUT_OF_RANGE, &e, "out of range");
}

static const struct check_test tests[] = {T(test_words_become_tensors), T(test_what_no_model_says),
                                          T(test_parts)};

int main(int argc, char **argv)
{
    int rc;

    arena_init(&a, 0);
    rc = check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
    arena_done(&a);
    return rc;
}
