/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/json.h"
#include "base/random.h"
#include "wire/tensor_json.h"

/* A model with one input of each kind that the tests need; each test picks some. */
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
    struct tensor in[4];
    struct tensor_spec spec[4];
    _Alignas(16) char memory[4][512];
    struct infer_schema schema;
    struct infer_request q;
    struct arena arena;
    struct err e;
} f;

static void use(const char *names)
{
    str rest = str_of(names);
    uint32_t n = 0;

    arena_done(&f.arena);
    memset(&f, 0, sizeof(f));
    while (rest.p) {
        str name = str_cut(&rest, ' ');

        for (size_t i = 0; i < ARRAY_LEN(specs); i++)
            if (str_eq(specs[i].name, name))
                f.spec[n++] = specs[i];
    }
    for (uint32_t i = 0; i < n; i++)
        f.in[i] = (struct tensor){.spec = &f.spec[i], .data = f.memory[i], .cap_bytes = 512};
    f.schema = (struct infer_schema){f.spec, n, out_specs, ARRAY_LEN(out_specs), false};
}

static int read_with(const char *json, str raw, bool null_is_nan)
{
    struct infer_options options = {.null_is_nan = null_is_nan};
    /* An exact copy on the heap, so that a sanitizer sees a read past the end. */
    size_t n = strlen(json);
    char *copy = n ? arena_dupz(&f.arena, str_of(json)) : NULL;

    return infer_request_read((str){copy, n}, raw, &f.schema, &options, f.in, &f.arena, &f.q, &f.e);
}

static int read_json(const char *json)
{
    return read_with(json, STR_NULL, false);
}

#define X_HEAD "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,3],\"datatype\":\"FP32\",\"data\":"
static int read_x(const char *data)
{
    char json[512];

    snprintf(json, sizeof(json), X_HEAD "%s}]}", data);
    return read_json(json);
}

static void test_reads_floats_flat_and_nested(void)
{
    const float *x;

    use("x");
    x = f.in[0].data;
    NEED_OK(read_x("[1, -2.5e1 ,3]"), &f.e);
    CHECK(x[0] == 1 && x[1] == -25 && x[2] == 3);
    CHECK_INT(f.q.rows, 1);
    CHECK_INT(f.in[0].bytes, 12);
    CHECK_INT(f.q.wanted_count, 3);
    NEED_OK(read_json("{\"inputs\":[{\"name\":\"x\",\"shape\":[2,3],\"datatype\":\"FP32\","
                      "\"data\":[[1,2,3],[4,5,6]]}],\"id\":\"r1\"}"),
            &f.e);
    CHECK_INT(f.q.rows, 2);
    CHECK(x[5] == 6);
    CHECK_STR(f.q.id, S("r1"));
}

static void test_members_in_any_order(void)
{
    use("x");
    NEED_OK(
        read_json("{\"outputs\":[{\"name\":\"label\"}],\"id\":\"a\\u00e9\\n\",\"future\":{\"a\":"
                  "[1,{}]},\"inputs\":[{\"data\":[[7,8,9]],\"note\":null,\"datatype\":\"FP32\","
                  "\"parameters\":{\"k\":1},\"shape\":[1,3],\"name\":\"x\"}]}"),
        &f.e);
    CHECK(((float *)f.in[0].data)[2] == 9);
    CHECK_STR(f.q.id, S("a\xc3\xa9\n"));
    CHECK_INT(f.q.wanted_count, 1);
    CHECK_INT(f.q.wanted[0].output, 1);
}

static void test_every_datatype(void)
{
    use("i8 u64 b t");
    NEED_OK(
        read_json("{\"inputs\":["
                  "{\"name\":\"i8\",\"shape\":[3],\"datatype\":\"INT8\",\"data\":[-128,127,3.0]},"
                  "{\"name\":\"u64\",\"shape\":[2],\"datatype\":\"UINT64\",\"data\":"
                  "[18446744073709551615,0]},"
                  "{\"name\":\"b\",\"shape\":[2],\"datatype\":\"BOOL\",\"data\":[true,false]},"
                  "{\"name\":\"t\",\"shape\":[3],\"datatype\":\"BYTES\",\"data\":"
                  "[\"plain\",\"\",\"\\ud83d\\ude00\\u0000\\\"\"]}]}"),
        &f.e);
    CHECK_INT(((int8_t *)f.in[0].data)[0], -128);
    CHECK_INT(((int8_t *)f.in[0].data)[2], 3);
    CHECK(((uint64_t *)f.in[1].data)[0] == UINT64_MAX);
    CHECK_INT(((uint8_t *)f.in[2].data)[0], 1);
    CHECK_INT(((uint8_t *)f.in[2].data)[1], 0);
    CHECK_STR(((str *)f.in[3].data)[0], S("plain"));
    CHECK_INT(((str *)f.in[3].data)[1].n, 0);
    CHECK_STR(((str *)f.in[3].data)[2], ((str){"\xF0\x9F\x98\x80\0\"", 6}));
}

static void test_int64_is_exact(void)
{
    use("i64");
    NEED_OK(
        read_json("{\"inputs\":[{\"name\":\"i64\",\"shape\":[2],\"datatype\":\"INT64\",\"data\":"
                  "[9223372036854775807,-9223372036854775808]}]}"),
        &f.e);
    CHECK(((int64_t *)f.in[0].data)[0] == INT64_MAX);
    CHECK(((int64_t *)f.in[0].data)[1] == INT64_MIN);
    CHECK_FAILS(read_json("{\"inputs\":[{\"name\":\"i64\",\"shape\":[1],\"datatype\":\"INT64\","
                          "\"data\":[9223372036854775808]}]}"),
                INVALID_ARGUMENT, &f.e, "does not fit INT64");
}

static void test_scalar_and_empty(void)
{
    use("s");
    NEED_OK(
        read_json("{\"inputs\":[{\"name\":\"s\",\"shape\":[],\"datatype\":\"FP32\",\"data\":[4]}]"
                  "}"),
        &f.e);
    CHECK(((float *)f.in[0].data)[0] == 4);
    use("x");
    NEED_OK(
        read_json("{\"inputs\":[{\"name\":\"x\",\"shape\":[0,3],\"datatype\":\"FP32\",\"data\":[]"
                  "}]}"),
        &f.e);
    CHECK_INT(f.q.rows, 0);
    CHECK_INT(f.in[0].bytes, 0);
}

static void test_null_is_missing_only_when_asked(void)
{
    char json[256];

    use("x");
    snprintf(json, sizeof(json), X_HEAD "[1,null,3]}]}");
    CHECK_FAILS(read_json(json), INVALID_ARGUMENT, &f.e,
                "input 'x': element 1 is null, expected a number (FP32)");
    NEED_OK(read_with(json, STR_NULL, true), &f.e);
    CHECK(isnan(((float *)f.in[0].data)[1]));
    use("i8");
    CHECK_FAILS(
        read_with("{\"inputs\":[{\"name\":\"i8\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":"
                  "[null]}]}",
                  STR_NULL, true),
        INVALID_ARGUMENT, &f.e, "element 0 is null, expected an integer");
}

static void test_counts(void)
{
    static char json[64 * 1024];
    size_t n = 0;

    use("x");
    n += (size_t)snprintf(json, sizeof(json), "{\"inputs\":[{}");
    for (int i = 0; i < TENSOR_INPUTS_MAX; i++)
        n += (size_t)snprintf(json + n, sizeof(json) - n, ",{}");
    snprintf(json + n, sizeof(json) - n, "]}");
    CHECK_FAILS(read_json(json), INVALID_ARGUMENT, &f.e, "more than 1024 inputs");
    n = (size_t)snprintf(json, sizeof(json), "{\"outputs\":[{}");
    for (int i = 0; i < TENSOR_OUTPUTS_MAX; i++)
        n += (size_t)snprintf(json + n, sizeof(json) - n, ",{\"name\":\"q\"}");
    snprintf(json + n, sizeof(json) - n, "]}");
    CHECK_FAILS(read_json(json), INVALID_ARGUMENT, &f.e, "more than 64 outputs");
}

static void test_refuses_values(void)
{
    static const struct {
        const char *data, *says;
    } cases[] = {
        {"[1,2]", "input 'x': data has 2 elements, its shape [1,3] needs 3"},
        {"[1,2,3,4]", "data has 4 elements"},
        {"[]", "data has 0 elements"},
        {"[[1,2,3],[4,5,6]]", "data has 6 elements"},
        {"[[1,2],[3]]", "the lists in data do not have the lengths of its shape [1,3]"},
        {"[[[1,2,3]]]", "nested deeper than its shape"},
        {"5", "nested less deep than its shape"},
        {"[1,\"2\",3]", "element 1 is a string, expected a number (FP32)"},
        {"[1,2,true]", "element 2 is a boolean"},
        {"[1,{},3]", "element 1 is an object"},
        {"[1,[2],3]", "element 1 is a list"},
        {"[1,1e39,3]", "element 1 is 1e39, which does not fit FP32"},
        {"[1,1e999,3]", "element 1 is 1e999, which does not fit FP32"},
        {"[1,NaN,3]", "NaN and Infinity have no JSON form"},
        {"[1,-Infinity,3]", "NaN and Infinity have no JSON form"},
        {"[1,2,3,]", "expected a value after ','"},
        {"[1 2 3]", "expected ',' or ']'"},
        {"[1,,3]", "expected a value"},
        {"[01,2,3]", "expected"},
        {"[1.,2,3]", "expected"},
        {"[+1,2,3]", "expected a value"},
        {"[1,2,3", "expected ',' or ']'"},
    };

    use("x");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        CHECK_FAILS(read_x(cases[i].data), INVALID_ARGUMENT, &f.e, cases[i].says);
}

static void test_refuses_integers(void)
{
    static const struct {
        const char *name, *type, *data, *says;
    } cases[] = {
        {"i8", "INT8", "128", "element 0 is 128, which does not fit INT8"},
        {"i8", "INT8", "-129", "does not fit INT8"},
        {"i8", "INT8", "1.5", "element 0 is 1.5, expected an integer (INT8)"},
        {"u64", "UINT64", "-1", "does not fit UINT64"},
        {"u64", "UINT64", "18446744073709551616", "does not fit UINT64"},
        {"b", "BOOL", "1", "element 0 is a number, expected true or false"},
        {"t", "BYTES", "1", "element 0 is a number, expected a string"},
        {"h", "FP16", "1", "FP16 has no JSON form, send it as binary"},
    };
    char json[256];

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        use(cases[i].name);
        snprintf(json, sizeof(json),
                 "{\"inputs\":[{\"name\":\"%s\",\"shape\":[1],\"datatype\":\"%s\",\"data\":[%s]}]}",
                 cases[i].name, cases[i].type, cases[i].data);
        CHECK_FAILS(read_json(json), INVALID_ARGUMENT, &f.e, cases[i].says);
    }
}

static void test_refuses_heads(void)
{
    static const struct {
        const char *input, *says;
    } cases[] = {
        {"{\"name\":\"x\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[1,2,3,4]}",
         "input 'x': shape [1,4] does not match the model's [-1,3]"},
        {"{\"name\":\"x\",\"shape\":[3],\"datatype\":\"FP32\",\"data\":[1,2,3]}",
         "shape [3] does not match the model's [-1,3]"},
        {"{\"name\":\"x\",\"shape\":[-1,3],\"datatype\":\"FP32\",\"data\":[1,2,3]}",
         "shape [-1,3] does not match"},
        {"{\"name\":\"x\",\"shape\":[1,3],\"datatype\":\"FP64\",\"data\":[1,2,3]}",
         "input 'x': datatype FP64 does not match the model's FP32"},
        {"{\"name\":\"z\",\"shape\":[1,3],\"datatype\":\"FP32\",\"data\":[1,2,3]}",
         "input 'z' is unknown, the model takes 'x'"},
        {"{\"name\":\"x\",\"shape\":[4611686018427387904,3],\"datatype\":\"FP32\",\"data\":[1]}",
         "shape [4611686018427387904,3] is larger than the 128 elements allowed here"},
        {"{\"name\":\"x\",\"shape\":[43,3],\"datatype\":\"FP32\",\"data\":[1]}",
         "larger than the 128 elements"},
        {"{\"name\":\"x\",\"shape\":[1,3.5],\"datatype\":\"FP32\",\"data\":[1]}",
         "expected whole numbers"},
        {"{\"name\":\"x\",\"shape\":[1,1,1,1,1,1,1,1,3],\"datatype\":\"FP32\",\"data\":[1]}",
         "more than 8 dimensions"},
        {"{\"name\":\"x\",\"datatype\":\"FP32\",\"data\":[1]}", "shape is missing"},
        {"{\"name\":\"x\",\"shape\":[1,3],\"data\":[1]}", "datatype is missing"},
        {"{\"shape\":[1,3],\"datatype\":\"FP32\",\"data\":[1]}", "name is missing"},
        {"{\"name\":\"x\",\"shape\":[1,3],\"datatype\":\"FP32\"}", "input 'x': has no data"},
        {"{\"name\":\"x\",\"name\":\"x\",\"shape\":[1,3]}", "no duplicate key"},
        {"{\"name\":\"x\",\"shape\":[1,3],\"parameters\":{\"a\":1,\"a\":2}}", "no duplicate key"},
        {"{\"name\":7}", "a string for \"name\""},
        {"[]", "an object for each of \"inputs\""},
    };
    char json[512];

    use("x");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        snprintf(json, sizeof(json), "{\"inputs\":[%s]}", cases[i].input);
        CHECK_FAILS(read_json(json), INVALID_ARGUMENT, &f.e, cases[i].says);
    }
    CHECK_FAILS(read_json("{}"), INVALID_ARGUMENT, &f.e, "input 'x' (FP32) is missing");
    CHECK_FAILS(
        read_json("{\"inputs\":[{\"name\":\"x\",\"shape\":[0,3],\"datatype\":\"FP32\",\"data\":"
                  "[]},{\"name\":\"x\",\"shape\":[0,3],\"datatype\":\"FP32\",\"data\":[]}]}"),
        INVALID_ARGUMENT, &f.e, "input 'x' is given twice");
}

static void test_refuses_documents(void)
{
    static const char *const cases[] = {
        "",
        " ",
        "[]",
        "null",
        "{",
        "{\"inputs\"",
        "{\"inputs\":",
        "{\"inputs\":[",
        "{\"inputs\":[]}x",
        "{\"inputs\":[]} {}",
        "{\"inputs\":[],}",
        "{\"inputs\":[],\"inputs\":[]}",
        "{\"id\":\"\xff\"}",
        "{\"id\":\"\xed\xa0\x80\"}",
        "{\"id\":\"\\ud800\"}",
        "{\"id\":\"\\x\"}",
        "{\"id\":\"a\nb\"}",
        "{\"id\":\"abc",
        "{\"id\":5}",
        "{\"outputs\":{}}",
        "{'id':1}",
        "{\"a\":tru}",
        "{\"a\":nul",
        "{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}",
    };

    use("x");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        CHECK_FAILS(read_json(cases[i]), INVALID_ARGUMENT, &f.e, "JSON byte ");
}

static void test_reports_many_at_once(void)
{
    use("x i8 b t");
    CHECK_FAILS(
        read_json(
            "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[1]},"
            "{\"name\":\"i8\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[300]},"
            "{\"name\":\"zz\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[1]}],"
            "\"outputs\":[{\"name\":\"nope\"},{\"name\":\"y\"},{\"name\":\"y\"}]}"),
        INVALID_ARGUMENT, &f.e, "input 'x': shape [1,4]");
    CHECK(strstr(f.e.msg, "; input 'i8': element 0 is 300"));
    CHECK(strstr(f.e.msg, "input 'zz' is unknown"));
    CHECK(strstr(f.e.msg, "output 'nope' is unknown, the model gives 'y', 'label', 'text'"));
    CHECK(strstr(f.e.msg, "output 'y' is asked for twice"));
}

static void test_truncation_never_passes(void)
{
    const char *whole =
        "{\"id\":\"\\u00e9\",\"inputs\":[{\"name\":\"x\",\"shape\":[2,3],\"datatype\":"
        "\"FP32\",\"data\":[[1,2,3],[-4.5e0,5,6]]}],\"outputs\":[{\"name\":\"y\","
        "\"parameters\":{\"binary_data\":false}}]}";
    char cut[512];

    use("x");
    NEED_OK(read_json(whole), &f.e);
    for (size_t n = 0; n < strlen(whole); n++) {
        memcpy(cut, whole, n);
        cut[n] = '\0';
        CHECK_FAILS(read_json(cut), INVALID_ARGUMENT, &f.e, "");
    }
}

static void test_nested_cube(void)
{
    static const char *const bad[] = {"[[[1,2],[3,4]],[[5,6],[7]]]", "[[[1,2],[3,4]],[[5,6]]]",
                                      "[[[1,2],[3,4]]]", "[[1,2,3,4],[5,6,7,8]]",
                                      "[[[1,2],[3,4],[5,6]],[[7,8]]]"};
    char json[256];

    use("cube");
    for (size_t i = 0; i < ARRAY_LEN(bad) + 2; i++) {
        const char *data = i < ARRAY_LEN(bad)    ? bad[i]
                           : i == ARRAY_LEN(bad) ? "[[[1,2],[3,4]],[[5,6],[7,8]]]"
                                                 : "[1,2,3,4,5,6,7,8]";
        int rc;

        snprintf(
            json, sizeof(json),
            "{\"inputs\":[{\"name\":\"cube\",\"shape\":[2,2,2],\"datatype\":\"INT32\",\"data\":"
            "%s}]}",
            data);
        rc = read_json(json);
        if (i < ARRAY_LEN(bad))
            CHECK_FAILS(rc, INVALID_ARGUMENT, &f.e, "input 'cube'");
        else if (CHECK(rc == 0))
            CHECK_INT(((int32_t *)f.in[0].data)[7], 8);
    }
}

static void test_binary_inputs(void)
{
    static const char json[] =
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,3],\"datatype\":\"FP32\",\"parameters\":{"
        "\"binary_"
        "data_size\":12}},{\"name\":\"t\",\"shape\":[2],\"datatype\":\"BYTES\",\"parameters\":{"
        "\"binary_data_size\":10}}],\"parameters\":{\"binary_data_output\":true},\"outputs\":[{"
        "\"name\":\"y\"},{\"name\":\"label\",\"parameters\":{\"binary_data\":false}}]}";
    char raw[22];
    float x[3] = {1, NAN, -3};

    memcpy(raw, x, 12);
    memcpy(raw + 12, "\2\0\0\0hi\0\0\0\0", 10);
    use("x t");
    NEED_OK(read_with(json, (str){raw, 22}, false), &f.e);
    CHECK(memcmp(f.in[0].data, x, 12) == 0);
    CHECK_STR(((str *)f.in[1].data)[0], S("hi"));
    CHECK_INT(((str *)f.in[1].data)[1].n, 0);
    CHECK(f.q.any_binary && f.q.wanted[0].binary && !f.q.wanted[1].binary);
    CHECK_FAILS(read_with(json, (str){raw, 21}, false), INVALID_ARGUMENT, &f.e,
                "binary_data_size 10 is not a size within the 9 bytes");
    raw[12] = 3;
    CHECK_FAILS(read_with(json, (str){raw, 22}, false), INVALID_ARGUMENT, &f.e, "do not add up");
    raw[12] = (char)255, raw[13] = raw[14] = raw[15] = (char)255;
    CHECK_FAILS(read_with(json, (str){raw, 22}, false), INVALID_ARGUMENT, &f.e, "do not add up");
    use("x");
    CHECK_FAILS(read_with("{\"inputs\":[{\"name\":\"x\",\"shape\":[1,3],\"datatype\":\"FP32\","
                          "\"parameters\":{\"binary_data_size\":8}}]}",
                          (str){raw, 8}, false),
                INVALID_ARGUMENT, &f.e, "binary_data_size is 8, 3 elements of FP32 need 12");
    CHECK_FAILS(read_with("{\"inputs\":[{\"name\":\"x\",\"shape\":[1,3],\"datatype\":\"FP32\","
                          "\"parameters\":{\"binary_data_size\":12}}]}",
                          (str){raw, 13}, false),
                INVALID_ARGUMENT, &f.e, "1 bytes behind the JSON belong to no input");
    CHECK_FAILS(read_with("{\"inputs\":[{\"name\":\"x\",\"shape\":[1,3],\"datatype\":\"FP32\","
                          "\"parameters\":{\"binary_data_size\":-1}}]}",
                          (str){raw, 12}, false),
                INVALID_ARGUMENT, &f.e, "binary_data_size -1 is not a size");
}

static void test_raw_request(void)
{
    float x[3] = {1, 2, 3};

    use("x");
    NEED_OK(infer_request_read_raw((str){(char *)x, 12}, &f.schema, f.in, &f.q, &f.e), &f.e);
    CHECK(memcmp(f.in[0].data, x, 12) == 0);
    CHECK_INT(f.q.rows, 1);
    CHECK(f.q.any_binary);
    CHECK_FAILS(infer_request_read_raw((str){(char *)x, 8}, &f.schema, f.in, &f.q, &f.e),
                INVALID_ARGUMENT, &f.e, "needs 12 bytes, got 8");
    use("x b");
    CHECK_FAILS(infer_request_read_raw((str){(char *)x, 8}, &f.schema, f.in, &f.q, &f.e),
                INVALID_ARGUMENT, &f.e, "needs a model of one input");
}

static void test_batched_inputs_agree(void)
{
    use("d b");
    f.schema.batched = true;
    CHECK_FAILS(
        read_json("{\"inputs\":[{\"name\":\"d\",\"shape\":[2],\"datatype\":\"FP64\",\"data\":"
                  "[1,2]},{\"name\":\"b\",\"shape\":[1],\"datatype\":\"BOOL\",\"data\":[true]}"
                  "]}"),
        INVALID_ARGUMENT, &f.e, "input 'b' has 1 rows, but 'd' has 2");
}

static void test_parameters(void)
{
    str p = S("{\"timeout\":250,\"s\":\"a b\",\"on\":true}"), json;
    int64_t v = 0;
    bool on = false;

    CHECK(infer_parameter_int(p, S("timeout"), &v) && v == 250);
    CHECK(infer_parameter_bool(p, S("on"), &on) && on);
    CHECK(infer_parameter_get(p, S("s"), &json));
    CHECK_STR(json, S("\"a b\""));
    CHECK(!infer_parameter_int(p, S("s"), &v));
    CHECK(!infer_parameter_get(p, S("none"), &json));
    CHECK(!infer_parameter_get(STR_NULL, S("none"), &json));
}

static float y_data[4] = {0.25f, 0.75f, 1e-7f, NAN};
static int64_t label_data[2] = {1, -5};
static str text_data[2] = {S_INIT("a\"b"), S_INIT("")};

static void outputs_make(struct tensor out[3])
{
    memset(out, 0, 3 * sizeof(out[0]));
    for (int i = 0; i < 3; i++) {
        void *data[] = {y_data, label_data, text_data};

        out[i] = (struct tensor){.spec = &out_specs[i], .data = data[i], .cap_bytes = 64};
        tensor_set_rows(&out[i], 2);
    }
}

static void test_writes_response(void)
{
    AUTO(buf_done) struct buf to = {0};
    struct infer_response_plan plan;
    struct tensor out[3];
    size_t json_bytes;
    uint32_t n;

    use("x");
    buf_init(&to, 1 << 16);
    outputs_make(out);
    infer_response_plan_init(&plan, S("fr\"aud"), S("3"), &f.schema, &f.arena);
    NEED_OK(read_json(X_HEAD "[1,2,3]}],\"id\":\"q\\\"1\"}"), &f.e);
    NEED_OK(infer_response_write(&to, &plan, &f.q, out, STR_NULL, INFER_NONFINITE_NULL, &json_bytes,
                                 &f.e),
            &f.e);
    CHECK_STR(
        buf_str(&to),
        S("{\"model_name\":\"fr\\\"aud\",\"model_version\":\"3\",\"id\":\"q\\\"1\",\"outputs\":[{"
          "\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[2,2],\"data\":[0.25,0.75,1e-7,null]},"
          "{\"name\":\"label\",\"datatype\":\"INT64\",\"shape\":[2],\"data\":[1,-5]},"
          "{\"name\":\"text\",\"datatype\":\"BYTES\",\"shape\":[2],\"data\":[\"a\\\"b\",\"\"]}]}"));
    CHECK_INT(json_bytes, to.n);
    buf_clear(&to);
    CHECK_FAILS(infer_response_write(&to, &plan, &f.q, out, STR_NULL, INFER_NONFINITE_FAIL,
                                     &json_bytes, &f.e),
                OUT_OF_RANGE, &f.e, "output 'y': element 3 is not finite");
    buf_clear(&to);
    NEED_OK(read_json(X_HEAD
                      "[1,2,3]}],\"outputs\":[{\"name\":\"text\",\"parameters\":{\"binary_data\":"
                      "true}},{\"name\":\"y\",\"parameters\":{\"binary_data\":true}}]}"),
            &f.e);
    NEED_OK(infer_response_write(&to, &plan, &f.q, out, S("{\"a\":1}"), INFER_NONFINITE_NULL,
                                 &json_bytes, &f.e),
            &f.e);
    CHECK_STR(
        ((str){to.p, json_bytes}),
        S("{\"model_name\":\"fr\\\"aud\",\"model_version\":\"3\",\"parameters\":{\"a\":1},"
          "\"outputs\":[{\"name\":\"text\",\"datatype\":\"BYTES\",\"shape\":[2],\"parameters\":{"
          "\"binary_data_size\":11}},{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[2,2],"
          "\"parameters\":{\"binary_data_size\":16}}]}"));
    CHECK_INT(to.n, json_bytes + 27);
    memcpy(&n, to.p + json_bytes, 4);
    CHECK_INT(n, 3);
    CHECK(memcmp(to.p + json_bytes + 11, y_data, 16) == 0);
    buf_clear(&to);
    (void)FAIL(&f.e, NOT_FOUND, "no \"model\"");
    infer_error_write(&to, &f.e);
    CHECK_STR(buf_str(&to), S("{\"error\":\"no \\\"model\\\"\",\"code\":\"NOT_FOUND\"}"));
}

static void test_writes_classification(void)
{
    AUTO(buf_done) struct buf to = {0};
    struct infer_response_plan plan;
    struct tensor out[3];
    size_t json_bytes;

    use("x");
    buf_init(&to, 1 << 16);
    outputs_make(out);
    infer_response_plan_init(&plan, S("m"), STR_NULL, &f.schema, &f.arena);
    NEED_OK(read_json(X_HEAD "[1,2,3]}],\"outputs\":[{\"name\":\"y\",\"parameters\":{"
                             "\"classification\":5}}]}"),
            &f.e);
    NEED_OK(infer_response_write(&to, &plan, &f.q, out, STR_NULL, INFER_NONFINITE_NULL, &json_bytes,
                                 &f.e),
            &f.e);
    CHECK_STR(
        buf_str(&to),
        S("{\"model_name\":\"m\",\"outputs\":[{\"name\":\"y\",\"datatype\":\"BYTES\",\"shape\":["
          "2,2],\"data\":[\"0.75:1\",\"0.25:0\",\"1e-7:0\",\"nan:1\"]}]}"));
    buf_clear(&to);
    NEED_OK(read_json(X_HEAD "[1,2,3]}],\"outputs\":[{\"name\":\"y\",\"parameters\":{"
                             "\"classification\":1,\"binary_data\":true}}]}"),
            &f.e);
    NEED_OK(infer_response_write(&to, &plan, &f.q, out, STR_NULL, INFER_NONFINITE_NULL, &json_bytes,
                                 &f.e),
            &f.e);
    CHECK_STR(str_take(buf_str(&to), json_bytes),
              S("{\"model_name\":\"m\",\"outputs\":[{\"name\":\"y\",\"datatype\":\"BYTES\","
                "\"shape\":[2,1],\"parameters\":{\"binary_data_size\":20}}]}"));
    CHECK_STR(str_skip(buf_str(&to), json_bytes), S("\6\0\0\0"
                                                    "0.75:1\6\0\0\0"
                                                    "1e-7:0"));
}

static void test_answer_too_large(void)
{
    char memory[64];
    struct buf to = {.p = memory, .cap_bytes = 64, .max_bytes = 64};
    struct infer_response_plan plan;
    struct tensor out[3];
    size_t json_bytes;

    use("x");
    outputs_make(out);
    infer_response_plan_init(&plan, S("m"), S("1"), &f.schema, &f.arena);
    NEED_OK(read_x("[1,2,3]"), &f.e);
    CHECK_FAILS(infer_response_write(&to, &plan, &f.q, out, STR_NULL, INFER_NONFINITE_NULL,
                                     &json_bytes, &f.e),
                RESOURCE_EXHAUSTED, &f.e, "the answer exceeds 64 bytes");
}

/* The elements of nested arrays in order, from the tree of base/json.h: the slow, obvious reader.
 */
static size_t flatten(const struct json *node, double *to)
{
    size_t n = 0;

    if (node->type != JSON_ARRAY) {
        *to = json_real_or(node, NAN);
        return 1;
    }
    JSON_EACH (child, node)
        n += flatten(child, to + n);
    return n;
}

static void test_agrees_with_the_tree(void)
{
    AUTO(buf_done) struct buf text = {0};
    AUTO(arena_done) struct arena tree_arena = {0};
    struct rng rng;

    rng_seed(&rng, 42);
    buf_init(&text, 1 << 20);
    for (int round = 0; round < 2000; round++) {
        static const char *const blanks[] = {"", "", "", " ", "\n\t"};
        size_t rows = 1 + rng_below(&rng, 40);
        bool nested = rng_below(&rng, 2);
        double want[120];
        struct json *root;
        size_t n;

        use("x");
        buf_clear(&text);
        buf_printf(
            &text,
            "{\"inputs\":[{\"name\":\"x\",\"shape\":[%zu,3],\"datatype\":\"FP32\",\"data\":[",
            rows);
        for (size_t i = 0; i < 3 * rows; i++) {
            double v = rng_normal(&rng) * pow(10, (double)rng_below(&rng, 60) - 30);

            if (nested && i % 3 == 0)
                buf_add_char(&text, '[');
            buf_printf(&text, "%s%.*g%s", blanks[rng_below(&rng, 5)],
                       (int)(1 + rng_below(&rng, 17)), v, blanks[rng_below(&rng, 5)]);
            if (nested && i % 3 == 2)
                buf_add_char(&text, ']');
            if (i + 1 < 3 * rows)
                buf_add_char(&text, ',');
        }
        buf_add_str(&text, S("]}]}"));
        arena_reset(&tree_arena);
        NEED_OK(json_parse(buf_str(&text), &tree_arena, &root, &f.e), &f.e);
        n = flatten(json_get(json_at(json_get(root, S("inputs")), 0), S("data")), want);
        NEED_OK(read_json(buf_z(&text)), &f.e);
        NEED(n == 3 * rows && f.in[0].count == n);
        for (size_t i = 0; i < n; i++)
            NEED(((float *)f.in[0].data)[i] == (float)want[i]);
    }
}

static void test_shapes(void)
{
    int64_t count, huge[] = {INT64_MAX, 2}, empty[] = {0, INT64_MAX, 2}, negative[] = {2, -1};
    char text[TENSOR_SHAPE_TEXT_MAX];

    CHECK(!tensor_shape_count(huge, 2, &count));
    CHECK(!tensor_shape_count(empty, 3, &count));
    CHECK(!tensor_shape_count(negative, 2, &count));
    CHECK(tensor_shape_count(NULL, 0, &count) && count == 1);
    CHECK_STR(str_of(tensor_shape_text(huge, 2, text)), S("[9223372036854775807,2]"));
    CHECK_INT(tensor_row_elements(&specs[0]), 3);
    CHECK_INT(tensor_row_elements(&specs[6]), 4);
    CHECK_INT(tensor_row_elements(&specs[9]), -1);
}

static void test_numbers_put(void)
{
    int8_t i = 0;
    uint64_t u = 0;
    float x;
    uint8_t b;

    CHECK(tensor_put_number(TENSOR_INT8, &i, -128) && i == -128);
    CHECK(!tensor_put_number(TENSOR_INT8, &i, 128));
    CHECK(!tensor_put_number(TENSOR_INT8, &i, 0.5));
    CHECK(!tensor_put_number(TENSOR_INT8, &i, NAN));
    CHECK(tensor_put_number(TENSOR_UINT64, &u, 0x1p63) && u == UINT64_C(1) << 63);
    CHECK(!tensor_put_number(TENSOR_UINT64, &u, 0x1p64));
    CHECK(!tensor_put_number(TENSOR_UINT64, &u, -1));
    CHECK(tensor_put_number(TENSOR_FP32, &x, NAN) && isnan(x));
    CHECK(!tensor_put_number(TENSOR_FP32, &x, 1e39));
    CHECK(tensor_put_number(TENSOR_BOOL, &b, 1) && b == 1);
    CHECK(!tensor_put_number(TENSOR_BOOL, &b, 2));
}

static double second_of(enum tensor_type type, const void *data)
{
    struct tensor_spec spec = {.datatype = type};
    struct tensor t = {.spec = &spec};

    memcpy(&t.data, &data, sizeof(data)); /* read only */
    return tensor_number_at(&t, 1);
}

static void test_numbers_got(void)
{
    CHECK_NEAR(second_of(TENSOR_INT8, ((int8_t[]){1, -128})), -128, 0);
    CHECK_NEAR(second_of(TENSOR_UINT8, ((uint8_t[]){1, 255})), 255, 0);
    CHECK_NEAR(second_of(TENSOR_BOOL, ((uint8_t[]){0, 1})), 1, 0);
    CHECK_NEAR(second_of(TENSOR_INT16, ((int16_t[]){1, INT16_MIN})), INT16_MIN, 0);
    CHECK_NEAR(second_of(TENSOR_UINT16, ((uint16_t[]){1, UINT16_MAX})), UINT16_MAX, 0);
    CHECK_NEAR(second_of(TENSOR_INT32, ((int32_t[]){1, INT32_MIN})), INT32_MIN, 0);
    CHECK_NEAR(second_of(TENSOR_UINT32, ((uint32_t[]){1, UINT32_MAX})), UINT32_MAX, 0);
    CHECK_NEAR(second_of(TENSOR_INT64, ((int64_t[]){1, INT64_MIN})), -0x1p63, 0);
    CHECK_NEAR(second_of(TENSOR_UINT64, ((uint64_t[]){1, UINT64_C(1) << 63})), 0x1p63, 0);
    CHECK_NEAR(second_of(TENSOR_FP32, ((float[]){1, 0.25f})), 0.25, 0);
    CHECK_NEAR(second_of(TENSOR_FP64, ((double[]){1, 1e300})), 1e300, 0);
    CHECK_NEAR(second_of(TENSOR_FP16, ((uint16_t[]){0, 0x3c00})), 1, 0);
    CHECK_NEAR(second_of(TENSOR_BF16, ((uint16_t[]){0, 0x3f80})), 1, 0);
    CHECK(isnan(second_of(TENSOR_BYTES, ((str[]){S_INIT("1"), S_INIT("2")}))));
}

RUN_TESTS(T(test_reads_floats_flat_and_nested), T(test_members_in_any_order),
          T(test_every_datatype), T(test_int64_is_exact), T(test_scalar_and_empty),
          T(test_null_is_missing_only_when_asked), T(test_counts), T(test_refuses_values),
          T(test_refuses_integers), T(test_refuses_heads), T(test_refuses_documents),
          T(test_reports_many_at_once), T(test_truncation_never_passes), T(test_nested_cube),
          T(test_binary_inputs), T(test_raw_request), T(test_batched_inputs_agree),
          T(test_parameters), T(test_writes_response), T(test_writes_classification),
          T(test_answer_too_large), T(test_agrees_with_the_tree), T(test_shapes),
          T(test_numbers_put), T(test_numbers_got))
