/* SPDX-License-Identifier: Apache-2.0 */
/* Questions are read by our own server side; answers are made by hand, field by field. */
#include "check.h"

#include "wire/infer_pb.h"
#include "wire/infer_pb_client.h"
#include "wire/pb.h"

static struct err e;
static struct arena a;
static struct tensor_spec specs[] = {
    {.name = S_INIT("y"), .datatype = TENSOR_FP32, .rank = 2, .shape = {-1, 2}},
    {.name = S_INIT("t"), .datatype = TENSOR_BYTES, .rank = 1, .shape = {-1}},
    {.name = S_INIT("n"), .datatype = TENSOR_INT8, .rank = 1, .shape = {-1}},
};
static struct tensor outputs[3];
static struct buf made;

/* An output of an answer; the shape is given as varint bytes, contents as an encoded message. */
static void output(const char *name, const char *type, str shape, str contents)
{
    size_t at = pb_open(&made, 5);

    pb_put_text(&made, 1, str_of(name));
    pb_put_text(&made, 2, str_of(type));
    pb_put_text(&made, 3, shape);
    pb_put_text(&made, 5, contents);
    pb_close(&made, at);
}

static void raw(str bytes)
{
    pb_put_bytes(&made, 6, bytes);
}

static int answer(uint32_t n)
{
    int rc;

    arena_reset(&a);
    for (int i = 0; i < 3; i++)
        outputs[i] = (struct tensor){.spec = &specs[i]};
    rc = infer_pb_answer_read(arena_dup(&a, buf_str(&made)), outputs, n, &a, &e);
    buf_clear(&made);
    return rc;
}

static const str SHAPE_12 = S_INIT("\1\2"), SHAPE_2 = S_INIT("\2");
static const str FLOATS = {"\0\0\x80\x3f\0\0\0\x40", 8};

static void raw_answers_are_read(void)
{
    pb_put_text(&made, 1, S("m"));
    raw(S("\1\xff")); /* the two lists may come in any order; theirs counts */
    raw(FLOATS);
    raw((str){"\1\0\0\0a\2\0\0\0bc", 11});
    output("n", "INT8", SHAPE_2, STR_NULL);
    output("y", "FP32", SHAPE_12, STR_NULL);
    output("t", "BYTES", SHAPE_2, STR_NULL);
    NEED_OK(answer(3), &e);
    CHECK(((float *)outputs[0].data)[1] == 2);
    CHECK_STR(((str *)outputs[1].data)[1], S("bc"));
    CHECK_INT(((int8_t *)outputs[2].data)[1], -1);
}

static void typed_answers_are_read(void)
{
    output("y", "FP32", SHAPE_12, (str){"\x32\x08\0\0\x80\x3f\0\0\0\x40", 10});
    output("t", "BYTES", SHAPE_2, S("\x42\1a\x42\2bc"));
    output("n", "INT8", SHAPE_2, S("\x12\x0b\1\xff\xff\xff\xff\xff\xff\xff\xff\xff\1"));
    NEED_OK(answer(3), &e);
    CHECK(((float *)outputs[0].data)[0] == 1);
    CHECK_STR(((str *)outputs[1].data)[1], S("bc"));
    CHECK_INT(((int8_t *)outputs[2].data)[1], -1);
    output("t", "BYTES", S("\0"), STR_NULL); /* none is not nothing */
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "not asked for");
}

static void wrong_answers_are_named(void)
{
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "'y' is missing");
    output("y", "FP32", SHAPE_12, STR_NULL);
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "fewer elements");
    output("y", "FP32", SHAPE_12, STR_NULL);
    raw(S("abc"));
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "'y'");
    output("y", "FP32", SHAPE_12, STR_NULL);
    raw(FLOATS), raw(FLOATS);
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "2 raw_output_contents for 1");
    output("y", "FP32", SHAPE_12, (str){"\x32\x08\0\0\x80\x3f\0\0\0\x40", 10});
    raw(FLOATS);
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "in one answer");
    output("y", "FP64", SHAPE_12, STR_NULL);
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "declared is FP32");
    output("y", "FP32", S("\1\3"), STR_NULL);
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "shape [1,3]");
    output("y", "FP32", S("\1\1\1\1\1\1\1\1\1"), STR_NULL);
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "dimensions");
    output("y", "FP32", S("\xff\xff\xff\xff\xff\xff\xff\x7f\2"), STR_NULL);
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "'y'");
    output("y", "FP32", SHAPE_12, STR_NULL);
    output("y", "FP32", SHAPE_12, STR_NULL);
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "more outputs");
    output("y", "FP32", SHAPE_12, STR_NULL);
    output("y", "FP32", SHAPE_12, STR_NULL);
    CHECK_FAILS(answer(2), INVALID_ARGUMENT, &e, "twice");
    output("y", "FP32", SHAPE_12, S("\x32\4\0\0\0\0"));
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "data has 1 elements");
    output("y", "FP32", SHAPE_12, S("\x12\5\1\1\1\1\1"));
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "output 'y': has int_contents");
    buf_add_str(&made, S("\x2a\x7f"));
    CHECK_FAILS(answer(1), INVALID_ARGUMENT, &e, "not a protobuf message");
}

static void a_question_is_what_the_server_reads(void)
{
    AUTO(buf_done) struct buf small_room = {0};
    float x[] = {1, 2, 3, 4};
    str texts[] = {S("a"), S("")};
    int8_t small[] = {1, -1};
    struct tensor in[3] = {
        {.spec = &specs[0], .rank = 2, .shape = {2, 2}, .count = 4, .bytes = 16, .data = x},
        {.spec = &specs[1], .rank = 1, .shape = {2}, .count = 2, .bytes = 32, .data = texts},
        {.spec = &specs[2], .rank = 1, .shape = {2}, .count = 2, .bytes = 2, .data = small},
    };
    struct infer_schema schema = {specs, 3, specs, 1, true};
    struct infer_request request;
    struct infer_pb_model model;
    struct tensor got[3];
    static _Alignas(16) char room[3][64];

    for (int i = 0; i < 3; i++)
        got[i] = (struct tensor){.spec = &specs[i], .data = room[i], .cap_bytes = 64};
    NEED_OK(infer_pb_question_write(&made, S("m"), S("7"), in, 3, specs, 1, &e), &e);
    NEED_OK(infer_pb_model_read(buf_str(&made), &model, &e), &e);
    CHECK_STR(model.name, S("m"));
    CHECK_STR(model.version, S("7"));
    NEED_OK(infer_pb_request_read(buf_str(&made), &schema, got, &a, &request, &e), &e);
    CHECK(memcmp(got[0].data, x, sizeof(x)) == 0 && request.any_binary);
    CHECK_STR(((str *)got[1].data)[0], S("a"));
    CHECK_INT(((int8_t *)got[2].data)[1], -1);
    CHECK_INT(request.wanted_count, 1);
    buf_clear(&made);
    buf_init(&small_room, 40);
    CHECK_FAILS(infer_pb_question_write(&small_room, S("m"), S(""), in, 3, specs, 1, &e),
                RESOURCE_EXHAUSTED, &e, "exceeds");
}

static void metadata_is_what_the_server_writes(void)
{
    struct infer_schema schema = {specs, 2, specs + 2, 1, true};
    struct json *inputs, *outputs_told;
    str version = S("1");

    infer_pb_metadata_write(&made, S("m"), &version, 1, S("p"), &schema);
    NEED_OK(infer_pb_metadata_read(buf_str(&made), &a, &inputs, &outputs_told, &e), &e);
    CHECK_INT(inputs->count, 2);
    CHECK_INT(outputs_told->count, 1);
    CHECK_STR(json_str_or(json_get(json_at(inputs, 1), S("name")), S("")), S("t"));
    CHECK_INT(json_at(json_get(json_at(inputs, 0), S("shape")), 0)->integer, -1);
    buf_clear(&made);
    for (int i = 0; i < TENSOR_OUTPUTS_MAX + 1; i++)
        pb_put_bytes(&made, 5, STR_NULL);
    CHECK_FAILS(infer_pb_metadata_read(buf_str(&made), &a, &inputs, &outputs_told, &e),
                INVALID_ARGUMENT, &e, "outputs");
    buf_clear(&made);
}

static const struct check_test tests[] = {
    T(raw_answers_are_read),
    T(typed_answers_are_read),
    T(wrong_answers_are_named),
    T(a_question_is_what_the_server_reads),
    T(metadata_is_what_the_server_writes),
};

int main(int argc, char **argv)
{
    int rc;

    arena_init(&a, 0);
    buf_init(&made, 1 << 20);
    rc = check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
    buf_done(&made);
    arena_done(&a);
    return rc;
}
