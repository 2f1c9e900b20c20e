/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/arena.h"
#include "wire/infer_client.h"

#include <math.h>

static struct err e;
static struct arena a;
static struct tensor_spec specs[] = {
    {.name = S_INIT("y"), .datatype = TENSOR_FP32, .rank = 2, .shape = {-1, 2}},
    {.name = S_INIT("t"), .datatype = TENSOR_BYTES, .rank = 1, .shape = {-1}},
};
static struct tensor outputs[2];

static int answer(const char *json, str raw, uint32_t n)
{
    arena_reset(&a);
    for (int i = 0; i < 2; i++)
        outputs[i] = (struct tensor){.spec = &specs[i]};
    return infer_answer_read(str_of(json), raw, outputs, n, &a, &e);
}

static void json_answers_are_read(void)
{
    NEED_OK(
        answer("{\"model_name\":\"m\",\"outputs\":[{\"name\":\"t\",\"data\":[\"a\",\"\\u00e9\"],"
               "\"shape\":[2],\"datatype\":\"BYTES\"},{\"name\":\"y\",\"datatype\":\"FP32\","
               "\"shape\":[2,2],\"data\":[[1,2.5],[null,4]]}],\"more\":{}}",
               STR_NULL, 2),
        &e);
    CHECK_STR(((str *)outputs[1].data)[1], S("\xc3\xa9"));
    CHECK(((float *)outputs[0].data)[1] == 2.5f && isnan(((float *)outputs[0].data)[2]));
    CHECK_INT(outputs[0].count, 4);
}

static void binary_answers_are_read(void)
{
    static const char raw[] = "\0\0\x80\x3f\0\0\0\x40\2\0\0\0hi";

    NEED_OK(
        answer("{\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,2],"
               "\"parameters\":{\"binary_data_size\":8}},{\"name\":\"t\",\"datatype\":\"BYTES\","
               "\"shape\":[1],\"parameters\":{\"binary_data_size\":6}}]}",
               (str){raw, sizeof(raw) - 1}, 2),
        &e);
    CHECK(((float *)outputs[0].data)[0] == 1 && ((float *)outputs[0].data)[1] == 2);
    CHECK_STR(((str *)outputs[1].data)[0], S("hi"));
}

#define Y(more) "{\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,2]," more "}]}"

static void wrong_answers_are_named(void)
{
    static const struct {
        const char *json, *what;
    } wrong[] = {
        {"", "JSON"},
        {"[]", "an object"},
        {"{}", "'y' is missing"},
        {Y("\"data\":[1]"), "'y'"},
        {Y("\"data\":[1,2,3]"), "'y'"},
        {Y("\"data\":[1,\"2\"]"), "'y'"},
        {Y("\"data\":[1,2],\"parameters\":{\"binary_data_size\":8}"), "both kinds"},
        {Y("\"parameters\":{}"), "no data"},
        {Y("\"parameters\":{\"binary_data_size\":9}"), "within the 8"},
        {Y("\"parameters\":{\"binary_data_size\":-1}"), "within the 8"},
        {Y("\"parameters\":{\"binary_data_size\":4}"), "4 bytes came"},
        {"{\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1000000000,2],"
         "\"data\":[1,2]}]}",
         "fewer elements"},
        {"{\"outputs\":[{\"name\":\"q\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[1,2]}]}",
         "not asked for"},
        {"{\"outputs\":[{\"name\":\"y\",\"datatype\":\"INT8\",\"shape\":[1,2],\"data\":[1,2]}]}",
         "is INT8"},
        {"{\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[2],\"data\":[1,2]}]}",
         "shape [2]"},
        {"{\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"data\":[1,2]}]}", "no shape"},
        {Y("\"data\":[1,2]"), "belong to no output"},
    };

    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        CHECK_FAILS(answer(wrong[i].json, S("12345678"), 1), INVALID_ARGUMENT, &e, wrong[i].what);
}

static void questions_are_written(void)
{
    AUTO(buf_done) struct buf to = {0};
    float x[] = {1, 2};
    struct tensor in = {
        .spec = &specs[0], .rank = 2, .shape = {1, 2}, .count = 2, .bytes = 8, .data = x};
    size_t json_bytes;

    buf_init(&to, 1 << 20);
    NEED_OK(infer_question_write(&to, &in, 1, &specs[1], 1, false, &json_bytes, &e), &e);
    CHECK_STR(buf_str(&to), S("{\"inputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,2],"
                              "\"data\":[1,2]}],\"outputs\":[{\"name\":\"t\"}]}"));
    CHECK_INT(json_bytes, to.n);
    buf_clear(&to);
    NEED_OK(infer_question_write(&to, &in, 1, &specs[1], 1, true, &json_bytes, &e), &e);
    CHECK_STR(str_take(buf_str(&to), json_bytes),
              S("{\"inputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,2],\"parameters\":"
                "{\"binary_data_size\":8}}],\"outputs\":[{\"name\":\"t\",\"parameters\":"
                "{\"binary_data\":true}}]}"));
    CHECK_INT(to.n - json_bytes, 8);
    buf_clear(&to);
    x[0] = NAN;
    CHECK_FAILS(infer_question_write(&to, &in, 1, &specs[1], 1, false, &json_bytes, &e),
                OUT_OF_RANGE, &e, "not finite");
}

static void errors_are_plain_text(void)
{
    char text[16];

    infer_answer_error(S("{\"error\":\"a\\nb and more than fits\"}"), text, sizeof(text));
    CHECK_STR(str_of(text), S("a b and more th"));
    infer_answer_error(S("<html>"), text, sizeof(text));
    CHECK_STR(str_of(text), S(""));
}

static const struct check_test tests[] = {
    T(json_answers_are_read), T(binary_answers_are_read), T(wrong_answers_are_named),
    T(questions_are_written), T(errors_are_plain_text),
};

int main(int argc, char **argv)
{
    int rc;

    arena_init(&a, 1 << 20);
    rc = check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
    arena_done(&a);
    return rc;
}
