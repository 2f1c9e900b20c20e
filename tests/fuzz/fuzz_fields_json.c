/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a prediction request by field name: filled rows, or an error whose body is JSON and
 * lists what it counts; the same under a small memory cap.
 */
#include "fuzz.h"

#include "base/json.h"
#include "wire/fields_json.h"

#include <stdlib.h>

#define ROWS 4

static const str colours[] = {S_INIT("red"), S_INIT("green")};
static const struct field_column columns[] = {
    {.name = S_INIT("a"),
     .type = FIELD_INT,
     .store = TENSOR_FP32,
     .required = true,
     .has_max = true,
     .max = 100},
    {.name = S_INIT("b"), .type = FIELD_FLOAT, .store = TENSOR_FP32, .position = 1},
    {.name = S_INIT("c"),
     .type = FIELD_STRING,
     .store = TENSOR_FP32,
     .position = 2,
     .categories = colours,
     .category_count = 2},
    {.name = S_INIT("t"), .type = FIELD_STRING, .store = TENSOR_BYTES, .tensor = 1},
    {.name = S_INIT("i"),
     .type = FIELD_INT,
     .store = TENSOR_INT16,
     .has_default = true,
     .tensor = 2},
    {.name = S_INIT("f"),
     .type = FIELD_BOOL,
     .store = TENSOR_BOOL,
     .has_default = true,
     .tensor = 3},
};
static const struct tensor_spec specs[] = {
    {S_INIT("x"), TENSOR_FP32, 2, {-1, 3}},
    {S_INIT("t"), TENSOR_BYTES, 1, {-1}},
    {S_INIT("i"), TENSOR_INT16, 1, {-1}},
    {S_INIT("f"), TENSOR_BOOL, 2, {-1, 1}},
};

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void error_body(const struct fields_request *q, const struct err *e, struct arena *a)
{
    AUTO(buf_done) struct buf to = {0};
    struct json *root;
    size_t listed = 0;

    buf_init(&to, 1 << 20);
    fields_error_write(&to, q, e);
    require(!json_parse(buf_str(&to), a, &root, NULL));
    JSON_EACH (field, json_get(root, S("fields")))
        listed++;
    require(listed == MIN(q->problem_count, (uint32_t)FIELD_PROBLEMS_MAX));
}

static void run(str text, const struct field_table *t, size_t memory_max)
{
    static _Alignas(16) char memory[4][ROWS * 3 * sizeof(str)];
    AUTO(arena_done) struct arena a, body = {0};
    struct fields_request q;
    struct tensor in[4];
    struct err e;
    int rc;

    arena_init(&a, memory_max);
    for (int i = 0; i < 4; i++)
        in[i] =
            (struct tensor){.spec = &specs[i], .data = memory[i], .cap_bytes = sizeof(memory[i])};
    rc = fields_request_read(text, t, in, ROWS, &a, &q, &e);
    require(rc == 0 || rc == CODE_INVALID_ARGUMENT || rc == CODE_RESOURCE_EXHAUSTED);
    if (rc) {
        error_body(&q, &e, &body);
        return;
    }
    require(q.rows >= 1 && q.rows <= ROWS && q.problem_count == 0);
    for (uint32_t row = 0; row < q.rows; row++) {
        float a_value = ((const float *)memory[0])[row * 3];

        require(a_value <= 100 && ((const uint8_t *)memory[3])[row] <= 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(arena_done) struct arena plan = {0};
    str text = {(const char *)data, size};
    struct field_table t;

    require(!field_table_init(&t, columns, ARRAY_LEN(columns), &plan, NULL));
    run(text, &t, 1 << 20);
    run(text, &t, 256);
    return 0;
}
