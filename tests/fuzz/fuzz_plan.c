/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any JSON as an endpoint part. What is accepted can be routed at every point, its field table can
 * be built or is refused, and every index of its reading lies inside the outputs. Its member
 * "wish", which no plan has, is a static answer in the words of a project: one that is taken has a
 * value for every output.
 */
#include "fuzz.h"

#include "plan/fallback.h"

static void use(const struct plan_endpoint *ep, struct arena *a)
{
    const struct plan_signature *sig = &ep->signature;
    struct field_table fields;
    struct err e;
    uint32_t sum = 0;

    for (size_t i = 0; i < ep->version_count; i++)
        sum += ep->versions[i].weight;
    ASSERT(sum == 0 || sum == PLAN_WEIGHT_ONE);
    for (uint32_t point = 0; point < PLAN_WEIGHT_ONE; point += 997)
        ASSERT((plan_route(ep, point) != NULL) == (sum != 0));
    if (!ep->version_count)
        return; /* declared only: nothing of the signature was read */
    ASSERT(sig->reading.label < (int32_t)sig->output_count);
    ASSERT(sig->reading.positive < (int32_t)sig->reading.class_count);
    if (sig->column_count && field_table_init(&fields, sig->columns, sig->column_count, a, &e) == 0)
        ASSERT(fields.tensor_count <= sig->input_count);
}

static void wish(const struct json *part, const struct plan_endpoint *ep, struct arena *a)
{
    const struct json *wanted = json_get(part, S("wish"));
    struct json *answer;
    struct err e;

    if (!ep->version_count || !wanted || wanted->type != JSON_OBJECT ||
        plan_answer_resolve(wanted, &ep->signature, a, &answer, &e))
        return;
    for (uint32_t i = 0; i < ep->signature.output_count; i++)
        ASSERT((int64_t)json_get(answer, ep->signature.outputs[i].name)->count ==
               tensor_row_elements(&ep->signature.outputs[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(arena_done) struct arena a;
    struct plan_endpoint ep;
    struct json *part;
    struct err e;

    arena_init(&a, 0);
    if (json_parse((str){(const char *)data, size}, &a, &part, &e))
        return 0;
    if (plan_endpoint_read(part, S("hash"), &a, &ep, &e) == 0) {
        use(&ep, &a);
        wish(part, &ep, &a);
    }
    return 0;
}
