/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an infer request; what follows the first byte 0xFF is the binary part (no JSON can
 * hold that byte). The reader refuses them, or fills tensors that agree with the tree reader of
 * base/json.h, and from which the writer makes an answer that is JSON again.
 */
#include "fuzz.h"

#include "base/json.h"
#include "wire/tensor_json.h"

#include <math.h>
#include <stdlib.h>

#define CAP 256

static const struct tensor_spec specs[] = {
    {S_INIT("x"), TENSOR_FP32, 2, {-1, 3}}, {S_INIT("t"), TENSOR_BYTES, 1, {-1}},
    {S_INIT("i"), TENSOR_INT8, 1, {-1}},    {S_INIT("u"), TENSOR_UINT64, 3, {-1, 2, -1}},
    {S_INIT("b"), TENSOR_BOOL, 1, {-1}},    {S_INIT("d"), TENSOR_FP64, 0, {0}},
    {S_INIT("h"), TENSOR_FP16, 1, {-1}},
};
#define N ARRAY_LEN(specs)

static void require(bool ok)
{
    if (!ok)
        abort();
}

static size_t flatten(const struct json *node, double *to, size_t n)
{
    if (!node || node->type != JSON_ARRAY) {
        require(n < CAP);
        to[n] = node && node->type == JSON_NULL ? NAN : json_real_or(node, INFINITY);
        return n + 1;
    }
    JSON_EACH (child, node)
        n = flatten(child, to, n);
    return n;
}

/* The numbers of `x` again, by way of the tree. */
static void compare(str text, const struct tensor *x)
{
    AUTO(arena_done) struct arena a = {0};
    double want[CAP];
    struct json *root;
    size_t n;

    if (json_parse(text, &a, &root, NULL))
        return; /* stricter: no duplicate keys in members that the reader skips */
    JSON_EACH (input, json_get(root, S("inputs"))) {
        const struct json *data = json_get(input, S("data"));

        if (!str_eq(json_str_or(json_get(input, S("name")), S("")), S("x")) || !data)
            continue;
        n = flatten(data, want, 0);
        require(n == x->count);
        for (size_t i = 0; i < n; i++) {
            float got = ((const float *)x->data)[i];

            require(got == (float)want[i] || (isnan(got) && isnan(want[i])));
        }
    }
}

static void answer(const struct infer_schema *schema, const struct infer_request *q,
                   const struct tensor *tensors)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf to = {0};
    struct infer_response_plan plan;
    struct json *root;
    size_t json_bytes;
    struct err e;
    int rc;

    buf_init(&to, 1 << 20);
    infer_response_plan_init(&plan, S("m"), S("1"), schema, &a);
    rc = infer_response_write(&to, &plan, q, tensors, q->parameters, INFER_NONFINITE_NULL,
                              &json_bytes, &e);
    require(rc == 0 || rc == CODE_UNIMPLEMENTED);
    if (rc == 0) {
        rc = json_parse((str){to.p, json_bytes}, &a, &root, &e);
        require(rc == 0);
        require(json_get(root, S("outputs"))->count == q->wanted_count);
    }
}

static void run(str text, str raw, const struct infer_schema *schema, bool null_is_nan)
{
    AUTO(arena_done) struct arena a;
    static _Alignas(16) char memory[N][CAP * sizeof(str)];
    struct infer_options options = {.null_is_nan = null_is_nan};
    struct tensor tensors[N];
    struct infer_request q;
    struct err e;
    int rc;

    arena_init(&a, 1 << 16);
    for (size_t i = 0; i < schema->input_count; i++)
        tensors[i] =
            (struct tensor){.spec = &schema->inputs[i],
                            .data = memory[i],
                            .cap_bytes = CAP * tensor_type_bytes(schema->inputs[i].datatype)};
    rc = infer_request_read(text, raw, schema, &options, tensors, &a, &q, &e);
    require(rc == 0 || rc == CODE_INVALID_ARGUMENT || rc == CODE_RESOURCE_EXHAUSTED);
    if (rc)
        return;
    for (size_t i = 0; i < schema->input_count; i++) {
        require(tensors[i].present && tensors[i].bytes <= tensors[i].cap_bytes);
        require(tensor_shape_fits(tensors[i].spec, tensors[i].shape, tensors[i].rank));
    }
    compare(text, &tensors[0]);
    answer(schema, &q, tensors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct infer_schema one = {specs, 1, specs, 1, true}, all = {specs, N, specs, N, false};
    str text = {(const char *)data, size}, raw = STR_NULL;
    const char *cut = size ? memchr(data, 0xFF, size) : NULL;

    if (cut) {
        raw = str_range(cut + 1, text.p + text.n);
        text.n = (size_t)(cut - text.p);
    }
    run(text, raw, &one, true);
    run(text, raw, &all, false);
    return 0;
}
