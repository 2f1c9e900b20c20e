/* SPDX-License-Identifier: Apache-2.0 */
/* Messages come from the protobuf library (tests/oracle/data/infer_pb.txt); what no library would
 * write is made by hand. */
#include "check.h"

#include "base/files.h"
#include "base/mem.h"
#include "wire/infer_pb.h"
#include "wire/pb.h"

#define ORACLE "tests/oracle/data/infer_pb.txt"

static const struct tensor_spec specs[] = {
    {S_INIT("x"), TENSOR_FP32, 2, {-1, 3}},        {S_INIT("d"), TENSOR_FP64, 1, {-1}},
    {S_INIT("i8"), TENSOR_INT8, 1, {-1}},          {S_INIT("u64"), TENSOR_UINT64, 1, {-1}},
    {S_INIT("b"), TENSOR_BOOL, 1, {-1}},           {S_INIT("t"), TENSOR_BYTES, 1, {-1}},
    {S_INIT("cube"), TENSOR_INT32, 3, {-1, 2, 2}}, {S_INIT("h"), TENSOR_FP16, 1, {-1}},
    {S_INIT("i64"), TENSOR_INT64, 1, {-1}},        {S_INIT("s"), TENSOR_FP32, 0, {0}},
};
static const struct tensor_spec out_specs[] = {
    {S_INIT("y"), TENSOR_FP32, 2, {-1, 2}},
    {S_INIT("label"), TENSOR_INT64, 1, {-1}},
    {S_INIT("text"), TENSOR_BYTES, 1, {-1}},
};

static struct {
    struct tensor in[2];
    struct tensor_spec spec[2];
    _Alignas(16) char memory[2][256];
    struct infer_schema schema;
    struct infer_request q;
    struct arena arena;
    struct err e;
} f;

static void use(const char *names)
{
    uint32_t n = 0;

    arena_done(&f.arena);
    memset(&f, 0, sizeof(f));
    for (str rest = str_of(names); rest.p;) {
        str name = str_cut(&rest, ' ');

        for (size_t i = 0; i < ARRAY_LEN(specs); i++)
            if (str_eq(specs[i].name, name))
                f.spec[n++] = specs[i];
    }
    for (uint32_t i = 0; i < n; i++)
        f.in[i] = (struct tensor){.spec = &f.spec[i], .data = f.memory[i], .cap_bytes = 256};
    f.schema = (struct infer_schema){f.spec, n, out_specs, ARRAY_LEN(out_specs), false};
}

/* The bytes of a message of the oracle, in the arena, with nothing behind them. */
static str oracle(const char *name)
{
    static struct arena kept;
    static str text;
    str rest;

    if (!text.n)
        CHECK_OK(file_read_all(ORACLE, 1 << 20, &kept, &text, &f.e), &f.e);
    for (rest = text; rest.p;) {
        str line = str_cut(&rest, '\n'), key = str_cut(&line, ' ');
        char *bytes;

        if (!str_eqz(key, name))
            continue;
        if (str_eq(line, S("-")))
            return STR_NULL;
        bytes = arena_alloc(&f.arena, line.n / 2);
        for (size_t i = 0; i < line.n / 2; i++)
            bytes[i] = (char)strtol((char[]){line.p[2 * i], line.p[2 * i + 1], 0}, NULL, 16);
        return (str){bytes, line.n / 2};
    }
    CHECK_NEVER(name);
    return STR_NULL;
}

static int read_message(str message)
{
    return infer_pb_request_read(message, &f.schema, f.in, &f.arena, &f.q, &f.e);
}

#define READ(name) NEED_OK(read_message(oracle(name)), &f.e)

/* --- Requests
 * ------------------------------------------------------------------------------------- */

static void test_raw(void)
{
    struct infer_pb_model model;
    const float *x;

    use("x");
    NEED_OK(infer_pb_model_read(oracle("raw"), &model, &f.e), &f.e);
    CHECK_STR(model.name, S("m"));
    CHECK_STR(model.version, S("7"));
    READ("raw");
    x = f.in[0].data;
    CHECK(x[0] == 1 && x[1] == -25 && x[2] == 3);
    CHECK_INT(f.q.rows, 1);
    CHECK_STR(f.q.id, S("r1"));
    CHECK(!f.q.parameters.p);
    CHECK(f.q.any_binary);
    CHECK_INT(f.q.wanted_count, 3);
    CHECK(f.q.wanted[2].binary);
    use("t");
    READ("raw_texts");
    CHECK_STR(((str *)f.in[0].data)[0], S("plain"));
    CHECK_INT(((str *)f.in[0].data)[1].n, 0);
    CHECK_STR(((str *)f.in[0].data)[2], S("a\0b\xff"));
    use("h");
    READ("raw_half");
    CHECK_INT(((uint16_t *)f.in[0].data)[0], 0x3e00);
    use("b i8"); /* in the other order */
    READ("raw_two");
    CHECK_INT(((uint8_t *)f.in[0].data)[0], 1);
    CHECK_INT(((int8_t *)f.in[1].data)[0], -128);
}

static void test_typed(void)
{
    use("x");
    READ("fp32");
    CHECK(((float *)f.in[0].data)[5] == 6.5f);
    CHECK_INT(f.q.rows, 2);
    CHECK(!f.q.any_binary && !f.q.wanted[0].binary);
    use("d");
    READ("fp64");
    CHECK(((double *)f.in[0].data)[0] == 0.1 && ((double *)f.in[0].data)[1] == -1e300);
    use("i8");
    READ("int8");
    CHECK_INT(((int8_t *)f.in[0].data)[0], -128);
    CHECK_INT(((int8_t *)f.in[0].data)[1], 127);
    use("u64");
    READ("uint64");
    CHECK(((uint64_t *)f.in[0].data)[0] == UINT64_MAX);
    use("i64");
    READ("int64");
    CHECK(((int64_t *)f.in[0].data)[0] == INT64_MAX && ((int64_t *)f.in[0].data)[1] == INT64_MIN);
    use("cube");
    READ("int32");
    CHECK_INT(((int32_t *)f.in[0].data)[0], INT32_MIN);
    CHECK_INT(((int32_t *)f.in[0].data)[2], -1);
    use("b");
    READ("bool");
    CHECK(((uint8_t *)f.in[0].data)[0] == 1 && ((uint8_t *)f.in[0].data)[1] == 0);
    use("t");
    READ("bytes");
    CHECK_STR(((str *)f.in[0].data)[2], S("\xff\0"));
    use("s");
    READ("scalar");
    CHECK(((float *)f.in[0].data)[0] == 4);
    use("x");
    READ("empty");
    CHECK_INT(f.q.rows, 0);
}

static void test_parameters_and_outputs(void)
{
    str text;
    int64_t priority;
    bool flag;

    use("x");
    READ("full");
    CHECK_STR(f.q.id, S("\xc3\xa9"));
    CHECK(infer_parameter_bool(f.q.parameters, S("flag"), &flag) && flag);
    CHECK(infer_parameter_int(f.q.parameters, S("priority"), &priority) && priority == -3);
    CHECK(infer_parameter_get(f.q.parameters, S("name"), &text));
    CHECK_STR(text, S("\"say \\\"hi\\\"\\n\""));
    CHECK(infer_parameter_get(f.q.parameters, S("ratio"), &text));
    CHECK_STR(text, S("0.25"));
    CHECK(infer_parameter_get(f.q.parameters, S("big"), &text));
    CHECK_STR(text, S("18446744073709551615"));
    CHECK_INT(f.q.wanted_count, 2);
    CHECK_INT(f.q.wanted[0].output, 1);
    CHECK_INT(f.q.wanted[1].output, 0);
    CHECK_INT(f.q.wanted[1].classification, 1);
}

/* A request of one input, whose fields behind the name are given. */
static str made(const char *name, const char *datatype, str rest, str after)
{
    static struct buf b;
    size_t input;

    buf_done(&b);
    buf_init(&b, 1 << 16);
    input = pb_open(&b, 5);
    pb_put_text(&b, 1, str_of(name));
    pb_put_text(&b, 2, str_of(datatype));
    buf_add_str(&b, rest);
    pb_close(&b, input);
    buf_add_str(&b, after);
    return arena_dup(&f.arena, buf_str(&b));
}

static void test_unpacked_and_split(void)
{
    use("x"); /* the shape one by one, the contents in both ways at once */
    NEED_OK(read_message(made("x", "FP32",
                              S("\x18\x01\x18\x03\x2a\x10\x35\0\0\x80\x3f\x32\x04\0\0\0\x40\x35\0\0"
                                "\x40\x40"),
                              STR_NULL)),
            &f.e);
    CHECK(((float *)f.in[0].data)[0] == 1 && ((float *)f.in[0].data)[1] == 2);
    CHECK(((float *)f.in[0].data)[2] == 3);
    use("i8");
    NEED_OK(read_message(made("i8", "INT8", S("\x1a\x01\x02\x2a\x04\x10\x05\x10\x06"), STR_NULL)),
            &f.e);
    CHECK_INT(((int8_t *)f.in[0].data)[1], 6);
}

static void test_unknown_fields_are_skipped(void)
{
    use("i8");
    NEED_OK(read_message(made("i8", "INT8", S("\x1a\x01\x01\x2a\x02\x10\x05\x78\x01\x7a\x01?"),
                              S("\x7d\1\2\3\4\xfa\x01\x02hi"))),
            &f.e);
    CHECK_INT(((int8_t *)f.in[0].data)[0], 5);
}

static void test_refuses_values(void)
{
    use("x");
    CHECK_FAILS(read_message(oracle("mixed")), INVALID_ARGUMENT, &f.e,
                "raw_input_contents and contents in one request");
    CHECK_FAILS(read_message(oracle("wrong_field")), INVALID_ARGUMENT, &f.e,
                "input 'x': has fp64_contents, FP32 comes in fp32_contents");
    CHECK_FAILS(read_message(oracle("int8")), INVALID_ARGUMENT, &f.e,
                "input 'i8' is unknown, the model takes 'x'; input 'x' (FP32) is missing");
    CHECK_FAILS(read_message(made("x", "FP64", S("\x1a\x02\x01\x03"), STR_NULL)), INVALID_ARGUMENT,
                &f.e, "datatype FP64 does not match the model's FP32");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x02\x01\x04"), STR_NULL)), INVALID_ARGUMENT,
                &f.e, "shape [1,4] does not match the model's [-1,3]");
    CHECK_FAILS(read_message(made("x", "FP32",
                                  S("\x1a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), STR_NULL)),
                INVALID_ARGUMENT, &f.e, "shape [-1] does not match");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x03\x80\x40\x03"), STR_NULL)),
                INVALID_ARGUMENT, &f.e, "larger than the 64 elements allowed here");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x09\1\1\1\1\1\1\1\1\1"), STR_NULL)),
                INVALID_ARGUMENT, &f.e, "more than 8 dimensions");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x02\x01\x03"), STR_NULL)), INVALID_ARGUMENT,
                &f.e, "input 'x': has no data");
    CHECK_FAILS(
        read_message(made("x", "FP32", S("\x1a\x02\x01\x03\x2a\x06\x32\x04\0\0\0\0"), STR_NULL)),
        INVALID_ARGUMENT, &f.e, "data has 1 elements, its shape [1,3] needs 3");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x02\x01\x03"), S("\x3a\x04wxyz"))),
                INVALID_ARGUMENT, &f.e,
                "the size of raw_input_contents is 4, 3 elements of FP32 need 12");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x02\x01\x03"), S("\x3a\x01w\x3a\x01w"))),
                INVALID_ARGUMENT, &f.e, "2 raw_input_contents for 1 inputs");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x02\x01\x03"), S("\x32\x03\x0a\x01q"))),
                INVALID_ARGUMENT, &f.e, "output 'q' is unknown");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x02\x01\x03"), S("\x32\x00"))),
                INVALID_ARGUMENT, &f.e, "an output has no name");
    CHECK_FAILS(read_message(STR_NULL), INVALID_ARGUMENT, &f.e, "input 'x' (FP32) is missing");
    use("i8");
    CHECK_FAILS(read_message(oracle("int8_range")), INVALID_ARGUMENT, &f.e,
                "input 'i8': element 1 is 128, which does not fit INT8");
    use("b");
    CHECK_FAILS(read_message(made("b", "BOOL", S("\x1a\x01\x01\x2a\x02\x08\x02"), STR_NULL)),
                INVALID_ARGUMENT, &f.e, "element 0 is 2, which does not fit BOOL");
    CHECK_FAILS(read_message(made("b", "BOOL", S("\x1a\x01\x01"), S("\x3a\x01\x02"))),
                INVALID_ARGUMENT, &f.e, "element 0 is 2, a BOOL is 0 or 1");
    use("h");
    CHECK_FAILS(
        read_message(made("h", "FP16", S("\x1a\x01\x01\x2a\x06\x32\x04\0\0\0\0"), STR_NULL)),
        INVALID_ARGUMENT, &f.e, "FP16 comes in raw_input_contents only");
}

/* Many small fields must end the read early, not cost time. */
static void test_counts(void)
{
    static const struct {
        char field;
        int count;
        const char *says;
    } cases[] = {{0x2a, TENSOR_INPUTS_MAX, "more than 1024 inputs"},
                 {0x32, TENSOR_OUTPUTS_MAX, "more than 64 outputs"},
                 {0x22, TENSOR_JSON_PARAMETERS_MAX, "more than 64 parameters in one place"}};

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (int more = 0; more < 2; more++) {
            AUTO(buf_done) struct buf b = {0};

            use("x");
            buf_init(&b, 1 << 16);
            for (int k = 0; k < cases[i].count + more; k++)
                buf_add(&b, (char[]){cases[i].field, 0}, 2);
            CHECK_FAILS(read_message(buf_str(&b)), INVALID_ARGUMENT, &f.e,
                        more ? cases[i].says : "");
            CHECK(more || !strstr(f.e.msg, "more than"));
        }
}

static void test_lengths_that_lie(void)
{
    static const str raws[] = {
        S_INIT("\x3a\x03\1\0\0"),               /* a length cut off */
        S_INIT("\x3a\x05\2\0\0\0a"),            /* longer than what follows */
        S_INIT("\x3a\x06\1\0\0\0ab"),           /* shorter */
        S_INIT("\x3a\x05\xff\xff\xff\xff\x61"), /* far longer */
        S_INIT("\x3a\x09\1\0\0\0a\0\0\0\0"),    /* one element too many */
    };

    for (size_t i = 0; i < ARRAY_LEN(raws); i++) {
        use("t");
        CHECK_FAILS(read_message(made("t", "BYTES", S("\x1a\x01\x01"), raws[i])), INVALID_ARGUMENT,
                    &f.e, "do not add up to the size of raw_input_contents");
    }
}

static void test_broken_messages(void)
{
    str whole;

    use("x");
    whole = oracle("full");
    for (size_t n = 0; n < whole.n; n++) { /* cut anywhere it never reads as the same request */
        str cut = arena_dup(&f.arena, str_take(whole, n));

        if (read_message((str){n ? cut.p : NULL, n}) == 0)
            CHECK(f.q.wanted_count != 2 || n == whole.n);
    }
    CHECK_FAILS(read_message(S("\x2d\1\2\3\4")), INVALID_ARGUMENT, &f.e, "the wrong wire type");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x02\x01\x80"), STR_NULL)), INVALID_ARGUMENT,
                &f.e, "a broken varint in shape");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x02\x01\x03\x2a\x03\x32\x01w"), STR_NULL)),
                INVALID_ARGUMENT, &f.e, "a number is cut off in contents");
    CHECK_FAILS(read_message(made("\xff", "FP32", STR_NULL, STR_NULL)), INVALID_ARGUMENT, &f.e,
                "a string is not UTF-8");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x02\x01\x03"),
                                  S("\x22\x05\x0a\x01k\x12\0\x22\x05\x0a\x01k\x12\0"))),
                INVALID_ARGUMENT, &f.e, "duplicate key");
    CHECK_FAILS(read_message(made("x", "FP32", S("\x1a\x02\x01\x03"),
                                  S("\x22\x0e\x0a\x01k\x12\x09\x21\0\0\0\0\0\0\xf0\x7f"))),
                INVALID_ARGUMENT, &f.e, "a parameter is not finite");
    arena_done(&f.arena);
    arena_init(&f.arena, 64);
    CHECK_FAILS(read_message(S("\x22\x05\x0a\x01k\x12\0\x22\x05\x0a\x01l\x12\0")),
                RESOURCE_EXHAUSTED, &f.e, "memory of a request");
}

/* --- Answers
 * -------------------------------------------------------------------------------------- */

static struct buf to;

static void begin(void)
{
    use("x");
    buf_done(&to);
    buf_init(&to, 1 << 20);
}

static void answer(bool raw, const char *want)
{
    static float y[4] = {0.25f, 0.75f, 0.5f, -1};
    static int64_t label[2] = {1, -2};
    static str text[2] = {S_INIT("a"), S_INIT("longer text")};
    struct tensor out[3] = {
        {.spec = &out_specs[0], .data = y, .cap_bytes = sizeof(y)},
        {.spec = &out_specs[1], .data = label, .cap_bytes = sizeof(label)},
        {.spec = &out_specs[2], .data = text, .cap_bytes = sizeof(text)},
    };
    bool classes = strcmp(want, "answer_classes") == 0;
    struct infer_pb_plan plan;

    begin();
    for (int i = 0; i < 3; i++) {
        tensor_set_rows(&out[i], 2);
        f.q.wanted[i] = (struct infer_wanted){.output = (uint32_t)i, .binary = raw};
    }
    f.q.wanted_count = classes ? 1 : 3;
    f.q.wanted[0].classification = classes;
    f.q.any_binary = raw;
    f.q.id = classes ? STR_NULL : S("r1");
    infer_pb_plan_init(&plan, S("fraud"), S("3"), &f.schema, &f.arena);
    NEED_OK(
        infer_pb_response_write(&to, &plan, &f.q, out, classes ? S("{\"k\":0.5}") : STR_NULL, &f.e),
        &f.e);
    CHECK_STR(buf_str(&to), oracle(want));
    buf_done(&to);
    buf_init(&to, 20);
    CHECK_FAILS(infer_pb_response_write(&to, &plan, &f.q, out, STR_NULL, &f.e), RESOURCE_EXHAUSTED,
                &f.e, "the answer exceeds 20 bytes");
}

static void test_answers(void)
{
    answer(true, "answer_raw");
    answer(false, "answer_typed");
    answer(false, "answer_classes");
}

/* FP16 has no typed form: then all outputs go raw. */
static void test_half_answers(void)
{
    static const struct tensor_spec half = {S_INIT("h"), TENSOR_FP16, 1, {-1}};
    static uint16_t data[1] = {0x3e00};
    struct infer_schema schema = {&half, 1, &half, 1, true};
    struct tensor out = {.spec = &half, .data = data, .cap_bytes = sizeof(data)};
    struct infer_pb_plan plan;

    begin();
    tensor_set_rows(&out, 1);
    f.q.wanted[0] = (struct infer_wanted){.output = 0};
    f.q.wanted_count = 1;
    infer_pb_plan_init(&plan, S("m"), STR_NULL, &schema, &f.arena);
    NEED_OK(infer_pb_response_write(&to, &plan, &f.q, &out, STR_NULL, &f.e), &f.e);
    CHECK_STR(buf_str(&to), S("\x0a\x01m\x2a\x0c\x0a\x01h\x12\x04"
                              "FP16\x1a\x01\x01\x32\x02\x00\x3e"));
}

static void test_small_answers(void)
{
    static const str extensions[] = {S_INIT("statistics"), S_INIT("binary_tensor_data")};
    static const str versions[] = {S_INIT("1"), S_INIT("2")};
    static const struct tensor_spec in = {S_INIT("x"), TENSOR_FP32, 2, {-1, 3}};
    static const struct tensor_spec out = {S_INIT("s"), TENSOR_BYTES, 0, {0}};
    const struct infer_schema schema = {&in, 1, &out, 1, true};
    struct infer_pb_statistics s = {S("m"),    S("1"),    1700000000000, 10,
                                    4,         {0, 0},    {1, 1000},     {2, 2000},
                                    {3, 3000}, {4, 4000}, {5, 5000}};
    size_t opened;

    begin();
    infer_pb_flag_write(&to, true);
    CHECK_STR(buf_str(&to), oracle("live"));
    begin();
    infer_pb_flag_write(&to, false);
    CHECK_STR(buf_str(&to), oracle("not_ready"));
    begin();
    infer_pb_server_write(&to, S("weir"), S("0.1"), extensions, 2);
    CHECK_STR(buf_str(&to), oracle("server"));
    begin();
    infer_pb_metadata_write(&to, S("m"), versions, 2, S("onnx"), &schema);
    CHECK_STR(buf_str(&to), oracle("metadata"));
    begin();
    infer_pb_config_write(&to, S("m"), S("onnx"), S("onnxruntime"), 8, &schema);
    CHECK_STR(buf_str(&to), oracle("config"));
    begin();
    infer_pb_index_write(&to, S("m"), S("1"), S("READY"), STR_NULL);
    infer_pb_index_write(&to, S("n"), STR_NULL, S("UNAVAILABLE"), S("failed to load"));
    CHECK_STR(buf_str(&to), oracle("index"));
    begin();
    infer_pb_statistics_write(&to, &s);
    CHECK_STR(buf_str(&to), oracle("statistics"));
    begin();
    opened = infer_pb_stream_open(&to);
    pb_put_text(&to, 1, S("m"));
    infer_pb_stream_close(&to, opened);
    CHECK_STR(buf_str(&to), oracle("stream_answer"));
    begin();
    infer_pb_stream_error_write(&to, S("no such model"));
    CHECK_STR(buf_str(&to), oracle("stream_error"));
    begin();
    infer_pb_health_write(&to, INFER_PB_HEALTH_NOT_SERVING);
    CHECK_STR(buf_str(&to), S("\x08\x02"));
}

static void test_small_requests(void)
{
    struct infer_pb_repository q;
    struct infer_pb_model model;
    str service;

    use("x");
    NEED_OK(infer_pb_load_read(oracle("load"), &q, &f.e), &f.e);
    CHECK_STR(q.model, S("m"));
    CHECK_STR(q.config, S("{\"max_batch_size\":\"16\"}"));
    CHECK(q.has_files);
    NEED_OK(infer_pb_index_read(oracle("index_request"), &q, &f.e), &f.e);
    CHECK_STR(q.repository, S("r"));
    CHECK(q.ready);
    NEED_OK(infer_pb_model_read(oracle("ready_request"), &model, &f.e), &f.e);
    CHECK_STR(model.version, S("2"));
    NEED_OK(infer_pb_health_read(S("\x0a\x03svc"), &service, &f.e), &f.e);
    CHECK_STR(service, S("svc"));
    CHECK_FAILS(infer_pb_health_read(S("\x0a\x03sv"), &service, &f.e), INVALID_ARGUMENT, &f.e,
                "longer than its message");
    CHECK_FAILS(infer_pb_load_read(S("\x1a\x02\x0a\x05"), &q, &f.e), INVALID_ARGUMENT, &f.e,
                "a parameter is not a protobuf message");
}

RUN_TESTS(T(test_raw), T(test_typed), T(test_parameters_and_outputs), T(test_unpacked_and_split),
          T(test_unknown_fields_are_skipped), T(test_refuses_values), T(test_counts),
          T(test_lengths_that_lie), T(test_broken_messages), T(test_answers), T(test_half_answers),
          T(test_small_answers), T(test_small_requests))
