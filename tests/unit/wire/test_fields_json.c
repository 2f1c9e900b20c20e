/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/random.h"
#include "wire/fields_json.h"

static const str plans[] = {S_INIT("free"), S_INIT("pro"), S_INIT("team")};

/* Five numbers in an FP32 matrix, and two columns of their own. */
static const struct field_column columns[] = {
    {.name = S_INIT("age"),
     .type = FIELD_INT,
     .store = TENSOR_FP32,
     .required = true,
     .has_min = true,
     .min = 0,
     .has_max = true,
     .max = 120,
     .position = 0},
    {.name = S_INIT("amount"),
     .type = FIELD_FLOAT,
     .store = TENSOR_FP32,
     .required = true,
     .position = 1},
    {.name = S_INIT("score"),
     .type = FIELD_FLOAT,
     .store = TENSOR_FP32,
     .has_min = true,
     .position = 2},
    {.name = S_INIT("member"),
     .type = FIELD_BOOL,
     .store = TENSOR_FP32,
     .has_default = true,
     .default_num = 1,
     .position = 3},
    {.name = S_INIT("plan"),
     .type = FIELD_STRING,
     .store = TENSOR_FP32,
     .required = true,
     .categories = plans,
     .category_count = 3,
     .position = 4},
    {.name = S_INIT("city"), .type = FIELD_STRING, .store = TENSOR_BYTES, .tensor = 1},
    {.name = S_INIT("id"), .type = FIELD_INT, .store = TENSOR_INT64, .required = true, .tensor = 2},
};
static const struct tensor_spec specs[] = {
    {S_INIT("x"), TENSOR_FP32, 2, {-1, 5}},
    {S_INIT("city"), TENSOR_BYTES, 1, {-1}},
    {S_INIT("id"), TENSOR_INT64, 2, {-1, 1}},
};

static struct {
    struct arena plan, arena;
    struct field_table table;
    struct tensor in[3];
    float x[40];
    str city[8];
    int64_t id[8];
    struct fields_request q;
    struct err e;
} f;

static void set_up(void)
{
    arena_done(&f.plan);
    arena_done(&f.arena);
    memset(&f, 0, sizeof(f));
    f.in[0] = (struct tensor){.spec = &specs[0], .data = f.x, .cap_bytes = sizeof(f.x)};
    f.in[1] = (struct tensor){.spec = &specs[1], .data = f.city, .cap_bytes = sizeof(f.city)};
    f.in[2] = (struct tensor){.spec = &specs[2], .data = f.id, .cap_bytes = sizeof(f.id)};
    CHECK_OK(field_table_init(&f.table, columns, ARRAY_LEN(columns), &f.plan, &f.e), &f.e);
}

static int read_json(const char *json)
{
    size_t n = strlen(json);
    char *copy = arena_dupz(&f.arena, str_of(json));

    return fields_request_read((str){copy, n}, &f.table, f.in, 8, &f.arena, &f.q, &f.e);
}

static void test_reads_one_row(void)
{
    set_up();
    NEED_OK(
        read_json("{\"features\":{\"age\":41,\"amount\":1.5e2,\"score\":0.5,\"member\":false,"
                  "\"plan\":\"team\",\"city\":\"Z\\u00fcrich\",\"id\":9007199254740993},"
                  "\"metadata\":{\"request_id\":\"r-1\",\"user_id\":\"u\\n2\",\"more\":[1,2]}}"),
        &f.e);
    CHECK(f.x[0] == 41 && f.x[1] == 150 && f.x[2] == 0.5f && f.x[3] == 0 && f.x[4] == 2);
    CHECK_STR(f.city[0], S("Z\xc3\xbcrich"));
    CHECK(f.id[0] == 9007199254740993);
    CHECK_INT(f.q.rows, 1);
    CHECK(!f.q.is_list);
    CHECK_STR(f.q.request_id, S("r-1"));
    CHECK_STR(f.q.user_id, S("u\n2"));
    CHECK_STR(f.q.metadata, S("{\"request_id\":\"r-1\",\"user_id\":\"u\\n2\",\"more\":[1,2]}"));
    CHECK_INT(f.in[0].count, 5);
    CHECK_INT(f.in[2].rank, 2);
}

static void test_any_order_and_missing(void)
{
    set_up();
    NEED_OK(
        read_json("{\"metadata\":{},\"features\":{\"id\":1,\"pl\\u0061n\":\"free\",\"amount\":2,"
                  "\"score\":null,\"age\":4.0}}"),
        &f.e);
    CHECK(f.x[0] == 4 && f.x[1] == 2 && isnan(f.x[2]) && f.x[3] == 1 && f.x[4] == 0);
    CHECK_INT(f.city[0].n, 0);
}

static void test_rows_in_three_forms(void)
{
    static const char *const forms[] = {"rows", "features"};
    char json[512];

    set_up();
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        snprintf(json, sizeof(json),
                 "{\"%s\":[{\"age\":1,\"amount\":2,\"plan\":\"pro\",\"id\":3,\"score\":9},"
                 "{\"id\":-7,\"age\":5,\"amount\":6,\"plan\":\"free\"}]}",
                 forms[i]);
        NEED_OK(read_json(json), &f.e);
        CHECK(f.q.is_list);
        CHECK_INT(f.q.rows, 2);
        CHECK(f.x[2] == 9 && f.x[5] == 5 && f.x[6] == 6 && isnan(f.x[7]) && f.x[9] == 0);
        CHECK_INT(f.id[1], -7);
        CHECK_INT(f.in[1].count, 2);
    }
}

static const struct field_problem *problem_of(str field)
{
    for (const struct field_problem *p = f.q.problems; p; p = p->next)
        if (str_eq(p->field, field))
            return p;
    return NULL;
}

static void test_reports_every_field(void)
{
    AUTO(buf_done) struct buf to = {0};
    AUTO(arena_done) struct arena a = {0};
    struct json *root;

    set_up();
    CHECK_FAILS(read_json("{\"features\":{\"age\":130,\"amuont\":1,\"amount\":\"12\",\"score\":-1,"
                          "\"member\":1,\"plan\":\"gold\",\"member\":true,\"id\":1.5}}"),
                INVALID_ARGUMENT, &f.e, "8 fields are wrong, first 'age'");
    CHECK_INT(f.q.problem_count, 8);
    NEED(problem_of(S("age")) && problem_of(S("amuont")) && problem_of(S("amount")) &&
         problem_of(S("score")) && problem_of(S("member")) && problem_of(S("plan")) &&
         problem_of(S("id")));
    CHECK_INT(problem_of(S("age"))->kind, FIELD_PROBLEM_RANGE);
    CHECK_STR(problem_of(S("age"))->got, S("130"));
    CHECK_INT(problem_of(S("amuont"))->kind, FIELD_PROBLEM_UNKNOWN);
    CHECK_STR(problem_of(S("amuont"))->suggestion, S("amount"));
    CHECK_INT(problem_of(S("amount"))->kind, FIELD_PROBLEM_TYPE);
    CHECK_INT(problem_of(S("plan"))->kind, FIELD_PROBLEM_CATEGORY);
    CHECK_INT(problem_of(S("id"))->kind, FIELD_PROBLEM_TYPE);
    buf_init(&to, 1 << 16);
    fields_error_write(&to, &f.q, &f.e);
    NEED_OK(json_parse(buf_str(&to), &a, &root, &f.e), &f.e);
    root = json_get(root, S("fields"));
    NEED(root && root->count == 8);
    CHECK_STR(json_str_or(json_path(json_at(root, 0), "expected"), STR_NULL),
              S("an integer from 0 to 120"));
    CHECK_STR(json_str_or(json_path(json_at(root, 0), "problem"), STR_NULL), S("out_of_range"));
    CHECK_STR(json_str_or(json_path(json_at(root, 1), "did_you_mean"), STR_NULL), S("amount"));
    CHECK_STR(json_str_or(json_path(json_at(root, 2), "got"), STR_NULL), S("\"12\""));
    CHECK_STR(json_str_or(json_path(json_at(root, 5), "expected"), STR_NULL),
              S("one of \"free\", \"pro\", \"team\""));
}

static void test_missing_and_duplicates(void)
{
    set_up();
    CHECK_FAILS(
        read_json("{\"rows\":[{\"age\":1,\"amount\":2,\"plan\":\"pro\",\"id\":3},{\"age\":null,"
                  "\"plan\":\"pro\",\"plan\":\"pro\",\"id\":99999999999999999999}]}"),
        INVALID_ARGUMENT, &f.e, "4 fields are wrong");
    NEED(problem_of(S("age")) && problem_of(S("amount")) && problem_of(S("plan")) &&
         problem_of(S("id")));
    CHECK_INT(problem_of(S("age"))->kind, FIELD_PROBLEM_MISSING);
    CHECK_INT(problem_of(S("age"))->row, 1);
    CHECK_INT(problem_of(S("amount"))->kind, FIELD_PROBLEM_MISSING);
    CHECK_INT(problem_of(S("plan"))->kind, FIELD_PROBLEM_DUPLICATE);
    CHECK_INT(problem_of(S("id"))->kind, FIELD_PROBLEM_RANGE);
}

static void test_refuses_documents(void)
{
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"", "JSON byte 0"},
        {"[]", "expected an object"},
        {"{}", "the request has no \"features\""},
        {"{\"feature\":{}}", "unknown member \"feature\", expected \"features\""},
        {"{\"features\":5}", "expected an object of fields"},
        {"{\"rows\":{}}", "a list of rows"},
        {"{\"rows\":[]}", "the list of rows is empty"},
        {"{\"rows\":[{}],\"features\":{}}", "\"features\" or \"rows\", and once"},
        {"{\"metadata\":{},\"metadata\":{},\"features\":{}}", "\"metadata\" is given twice"},
        {"{\"metadata\":[],\"features\":{}}", "an object for \"metadata\""},
        {"{\"metadata\":{\"user_id\":\"a\",\"user_id\":\"b\"}}", "no duplicate key"},
        {"{\"features\":{\"age\":NaN}}", "NaN and Infinity have no JSON form"},
        {"{\"features\":{\"age\":tru}}", "expected a value"},
        {"{\"features\":{\"age\":1}", "the end of the text"},
        {"{\"features\":{\"age\":1,}}", "a member name"},
        {"{\"features\":{\"unknown\":[}}", "JSON byte"},
        {"{\"features\":{}} x", "nothing after the document"},
    };

    set_up();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CHECK_FAILS(read_json(cases[i].json), INVALID_ARGUMENT, &f.e, cases[i].says);
        CHECK_INT(f.q.problem_count, 0);
    }
}

static void test_limits(void)
{
    AUTO(buf_done) struct buf json = {0};

    set_up();
    buf_init(&json, 1 << 20);
    buf_add_str(&json, S("{\"rows\":["));
    for (int i = 0; i < 9; i++)
        buf_printf(&json, "%s{\"age\":1,\"amount\":2,\"plan\":\"pro\",\"id\":3}", i ? "," : "");
    buf_add_str(&json, S("]}"));
    CHECK_FAILS(read_json(buf_z(&json)), RESOURCE_EXHAUSTED, &f.e, "more than 8 rows");
    buf_clear(&json);
    buf_add_str(&json, S("{\"features\":{"));
    for (int i = 0; i < 300; i++)
        buf_printf(&json, "%s\"u%d\":1", i ? "," : "", i);
    buf_add_str(&json, S("}}"));
    CHECK_FAILS(read_json(buf_z(&json)), INVALID_ARGUMENT, &f.e, "304 fields are wrong");
    CHECK_INT(f.q.problem_count, 304);
    int listed = 0;
    for (const struct field_problem *p = f.q.problems; p; p = p->next)
        listed++;
    CHECK_INT(listed, FIELD_PROBLEMS_MAX);
}

static void test_table_refuses(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct field_table t;
    struct err e;
    struct field_column c[2] = {
        {.name = S_INIT("a"), .type = FIELD_FLOAT, .store = TENSOR_FP32},
        {.name = S_INIT("b"), .type = FIELD_FLOAT, .store = TENSOR_FP32, .position = 1},
    };
    struct field_column one;

    NEED_OK(field_table_init(&t, c, 2, &a, &e), &e);
    CHECK(field_table_find(&t, S("b")) == &t.columns[1]);
    CHECK(field_table_find(&t, S("c")) == NULL);
    c[1].position = 0;
    CHECK_FAILS(field_table_init(&t, c, 2, &a, &e), INVALID_ARGUMENT, &e, "the same position");
    c[1].position = 2;
    CHECK_FAILS(field_table_init(&t, c, 2, &a, &e), INVALID_ARGUMENT, &e, "leaves a hole");
    c[1].position = 1, c[1].name = S("a");
    CHECK_FAILS(field_table_init(&t, c, 2, &a, &e), INVALID_ARGUMENT, &e, "'a' is there twice");
    c[1].name = S("b"), c[1].store = TENSOR_FP64;
    CHECK_FAILS(field_table_init(&t, c, 2, &a, &e), INVALID_ARGUMENT, &e, "tensor 0 holds FP64");
    one = (struct field_column){.name = S("a"), .type = FIELD_INT, .store = TENSOR_INT8};
    CHECK_FAILS(field_table_init(&t, &one, 1, &a, &e), INVALID_ARGUMENT, &e,
                "no form for a missing value");
    one.has_default = true, one.default_num = 300;
    CHECK_FAILS(field_table_init(&t, &one, 1, &a, &e), INVALID_ARGUMENT, &e,
                "the default 300 does not fit INT8");
    one = (struct field_column){.name = S("a"), .type = FIELD_STRING, .store = TENSOR_FP32};
    CHECK_FAILS(field_table_init(&t, &one, 1, &a, &e), INVALID_ARGUMENT, &e, "give it categories");
    one = (struct field_column){.name = S("a"), .type = FIELD_FLOAT, .store = TENSOR_INT8};
    CHECK_FAILS(field_table_init(&t, &one, 1, &a, &e), INVALID_ARGUMENT, &e, "cannot be stored");
    CHECK_FAILS(field_table_init(&t, &one, 0, &a, &e), INVALID_ARGUMENT, &e, "expected 1 to 4096");
}

/* A wide table, fields in random order: every value lands in its place; a good request needs no
 * memory but the marks, and none from the allocator once the arena is warm. */
static void test_wide_random_order(void)
{
    enum { WIDTH = 500 };
    AUTO(arena_done) struct arena a = {0}, request_arena = {0};
    AUTO(buf_done) struct buf json = {0};
    static struct field_column c[WIDTH];
    static float row[WIDTH];
    static uint32_t order[WIDTH];
    struct tensor_spec spec = {S("x"), TENSOR_FP32, 2, {-1, WIDTH}};
    struct tensor in = {.spec = &spec, .data = row, .cap_bytes = sizeof(row)};
    struct field_table t;
    struct fields_request q;
    struct rng rng;
    struct err e;

    rng_seed(&rng, 7);
    buf_init(&json, 1 << 20);
    for (uint32_t i = 0; i < WIDTH; i++) {
        c[i] = (struct field_column){.name = arena_printf(&a, "feature_%u", i * 7919),
                                     .type = FIELD_FLOAT,
                                     .store = TENSOR_FP32,
                                     .required = true,
                                     .position = WIDTH - 1 - i};
        order[i] = i;
    }
    NEED_OK(field_table_init(&t, c, WIDTH, &a, &e), &e);
    for (int round = 0; round < 20; round++) {
        uint64_t before;

        for (uint32_t i = WIDTH - 1; round && i; i--) {
            uint32_t j = (uint32_t)rng_below(&rng, i + 1), k = order[i];

            order[i] = order[j], order[j] = k;
        }
        buf_clear(&json);
        buf_add_str(&json, S("{\"features\":{"));
        for (uint32_t i = 0; i < WIDTH; i++)
            buf_printf(&json, "%s\"" STR_F "\":%u", i ? "," : "", STR_A(c[order[i]].name),
                       order[i]);
        buf_add_str(&json, S("}}"));
        arena_reset(&request_arena);
        before = mem_alloc_count();
        NEED_OK(fields_request_read(buf_str(&json), &t, &in, 1, &request_arena, &q, &e), &e);
        CHECK(round == 0 || mem_alloc_count() == before);
        for (uint32_t i = 0; i < WIDTH; i++)
            NEED(row[WIDTH - 1 - i] == (float)i);
    }
}

static void test_truncation_never_passes(void)
{
    const char *whole = "{\"features\":{\"age\":4,\"amount\":1,\"plan\":\"p\\u0072o\",\"id\":1},"
                        "\"metadata\":{\"a\":[true,null]}}";
    char cut[256];

    set_up();
    NEED_OK(read_json(whole), &f.e);
    for (size_t n = 0; n < strlen(whole); n++) {
        memcpy(cut, whole, n);
        cut[n] = '\0';
        CHECK_FAILS(read_json(cut), INVALID_ARGUMENT, &f.e, "JSON byte");
    }
}

RUN_TESTS(T(test_reads_one_row), T(test_any_order_and_missing), T(test_rows_in_three_forms),
          T(test_reports_every_field), T(test_missing_and_duplicates), T(test_refuses_documents),
          T(test_limits), T(test_table_refuses), T(test_wide_random_order),
          T(test_truncation_never_passes))
