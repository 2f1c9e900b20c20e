/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a ModelInferRequest: refused, or read into tensors that agree with the signature.
 * What was read is then sent back as an answer, raw and typed; those bytes are a request again when
 * the two lists are renumbered, and must give the same tensors. The small messages read the same
 * bytes.
 */
#include "fuzz.h"

#include "wire/infer_pb.h"
#include "wire/pb.h"

#include <stdlib.h>

#define CAP 64

static const struct tensor_spec specs[] = {
    {S_INIT("x"), TENSOR_FP32, 2, {-1, 3}}, {S_INIT("t"), TENSOR_BYTES, 1, {-1}},
    {S_INIT("i"), TENSOR_INT8, 1, {-1}},    {S_INIT("u"), TENSOR_UINT64, 3, {-1, 2, -1}},
    {S_INIT("b"), TENSOR_BOOL, 1, {-1}},    {S_INIT("d"), TENSOR_FP64, 0, {0}},
    {S_INIT("w"), TENSOR_INT32, 1, {-1}},
};
#define N ARRAY_LEN(specs)

static void require(bool ok)
{
    if (!ok)
        abort();
}

struct memory {
    _Alignas(16) char bytes[N][CAP * sizeof(str)];
    struct tensor tensors[N];
};

static void tensors_begin(struct memory *m, uint32_t count)
{
    for (size_t i = 0; i < count; i++)
        m->tensors[i] = (struct tensor){.spec = &specs[i],
                                        .data = m->bytes[i],
                                        .cap_bytes = CAP * tensor_type_bytes(specs[i].datatype)};
}

static bool same(const struct tensor *a, const struct tensor *b)
{
    if (a->rank != b->rank || a->count != b->count ||
        memcmp(a->shape, b->shape, a->rank * sizeof(a->shape[0])) != 0)
        return false;
    if (a->spec->datatype != TENSOR_BYTES)
        return memcmp(a->data, b->data, a->bytes) == 0;
    for (size_t i = 0; i < a->count; i++)
        if (!str_eq(((const str *)a->data)[i], ((const str *)b->data)[i]))
            return false;
    return true;
}

/* Field 6 of an answer (raw contents) is field 7 of a request. */
static void renumber(str answer, struct buf *to)
{
    struct pb r;
    struct pb_field f;

    pb_begin(&r, answer);
    while (pb_next(&r, &f)) {
        require(f.wire == PB_BYTES);
        pb_put_bytes(to, f.number == 6 ? 7 : f.number, f.bytes);
    }
    require(!r.wrong);
}

static void round_trip(const struct infer_schema *schema, struct infer_request *q,
                       struct memory *was, bool raw)
{
    static struct memory now;
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf answer = {0}, again = {0};
    struct infer_pb_plan plan;
    struct infer_request read;
    struct err e;
    int rc;

    q->any_binary = raw;
    buf_init(&answer, 1 << 20);
    buf_init(&again, 1 << 20);
    infer_pb_plan_init(&plan, S("m"), S("1"), schema, &a);
    rc = infer_pb_response_write(&answer, &plan, q, was->tensors, q->parameters, &e);
    require(rc == 0);
    renumber(buf_str(&answer), &again);
    tensors_begin(&now, schema->input_count);
    rc = infer_pb_request_read(buf_str(&again), schema, now.tensors, &a, &read, &e);
    for (uint32_t i = 0; i < q->wanted_count; i++)
        if (q->wanted[i].classification)
            return; /* the tensor became a text */
    if (q->wanted_count < schema->input_count)
        return;
    require(rc == 0);
    require(str_eq(read.id, q->id));
    for (size_t i = 0; i < schema->input_count; i++)
        require(same(&was->tensors[i], &now.tensors[i]));
}

static void run(str message, const struct infer_schema *schema)
{
    static struct memory m;
    AUTO(arena_done) struct arena a;
    struct infer_request q;
    struct err e;
    int rc;

    arena_init(&a, 1 << 16);
    tensors_begin(&m, schema->input_count);
    rc = infer_pb_request_read(message, schema, m.tensors, &a, &q, &e);
    require(rc == 0 || rc == CODE_INVALID_ARGUMENT || rc == CODE_RESOURCE_EXHAUSTED);
    if (rc)
        return;
    for (size_t i = 0; i < schema->input_count; i++) {
        const struct tensor *t = &m.tensors[i];

        require(t->present && t->bytes <= t->cap_bytes);
        require(tensor_shape_fits(t->spec, t->shape, t->rank));
        if (t->spec->datatype == TENSOR_BOOL)
            for (size_t at = 0; at < t->count; at++)
                require(((const uint8_t *)t->data)[at] <= 1);
    }
    round_trip(schema, &q, &m, true);
    round_trip(schema, &q, &m, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct infer_schema one = {specs, 1, specs, 1, true}, all = {specs, N, specs, N, false};
    str message = {(const char *)data, size}, service;
    struct infer_pb_repository repository;
    struct infer_pb_model model;
    struct err e;
    int rc;

    run(message, &one);
    run(message, &all);
    rc = infer_pb_model_read(message, &model, &e);
    require(rc == 0 || rc == CODE_INVALID_ARGUMENT);
    rc = infer_pb_index_read(message, &repository, &e);
    require(rc == 0 || rc == CODE_INVALID_ARGUMENT);
    rc = infer_pb_load_read(message, &repository, &e);
    require(rc == 0 || rc == CODE_INVALID_ARGUMENT);
    rc = infer_pb_health_read(message, &service, &e);
    require(rc == 0 || rc == CODE_INVALID_ARGUMENT);
    return 0;
}
