/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is the same in a request whatever its form. A reader parses its syntax and hands over
 * claims, raw bytes and names; here they are held against the signature, and what is wrong is put
 * into words, once for all forms.
 *
 * Invariants: a tensor is given to a reader to be filled only when name, datatype and shape agree
 * with the signature and its elements fit cap_bytes; each at most once. Wrong things beyond the
 * number that is shown are counted and cost no formatting.
 */
#include "wire/tensor_check.h"

#include "wire/tensor_raw.h"

#include <stdio.h>

/* "'a', 'b', ... (40 in all)": enough of the names to find the right one. */
static const char *names_text(const struct tensor_spec *specs, uint32_t n, char ret_text[200])
{
    size_t at = 0;
    uint32_t i = 0;

    ret_text[0] = '\0';
    for (; i < n && at < 130; i++)
        at += (size_t)snprintf(ret_text + at, 200 - at, "%s'" STR_F "'", i ? ", " : "",
                               STR_A(str_take(specs[i].name, 40)));
    if (i < n)
        snprintf(ret_text + at, 200 - at, ", ... (%u in all)", n);
    return ret_text;
}

static struct tensor *input_find(struct tensor_check *r, str name)
{
    const struct infer_schema *schema = r->schema;
    uint32_t hint = r->inputs_seen;

    if (hint < schema->input_count && str_eq(name, schema->inputs[hint].name))
        return &r->inputs[hint];
    for (uint32_t i = 0; i < schema->input_count; i++)
        if (str_eq(name, schema->inputs[i].name))
            return &r->inputs[i];
    return NULL;
}

static bool shape_check(struct tensor_check *r, const struct tensor_claim *in, struct tensor *t)
{
    const struct tensor_spec *spec = t->spec;
    char got[TENSOR_SHAPE_TEXT_MAX], want[TENSOR_SHAPE_TEXT_MAX];
    size_t size = tensor_type_bytes(spec->datatype);
    int64_t count;

    if (in->shape_is_long) {
        problems_add(&r->problems, "input '" STR_F "': shape has more than %d dimensions",
                     SHOWN(spec->name), TENSOR_RANK_MAX);
        return false;
    }
    if (!tensor_shape_fits(spec, in->shape, in->rank)) {
        problems_add(&r->problems, "input '" STR_F "': shape %s does not match the model's %s",
                     SHOWN(spec->name), tensor_shape_text(in->shape, in->rank, got),
                     tensor_shape_text(spec->shape, spec->rank, want));
        return false;
    }
    if (!tensor_shape_count(in->shape, in->rank, &count) || (uint64_t)count > t->cap_bytes / size) {
        problems_add(&r->problems,
                     "input '" STR_F "': shape %s is larger than the %zu elements allowed here; "
                     "send fewer rows per request",
                     SHOWN(spec->name), tensor_shape_text(in->shape, in->rank, got),
                     t->cap_bytes / size);
        return false;
    }
    t->rank = in->rank;
    memcpy(t->shape, in->shape, in->rank * sizeof(in->shape[0]));
    t->count = (size_t)count;
    t->bytes = t->count * size;
    return true;
}

struct tensor *tensor_check_input(struct tensor_check *r, const struct tensor_claim *in)
{
    struct tensor *t = input_find(r, in->name);
    char names[200];

    if (!t && r->problems.count >= TENSOR_JSON_PROBLEMS_MAX) { /* counted, no longer named */
        r->problems.count++;
        return NULL;
    }
    if (!t) {
        problems_add(&r->problems, "input '" STR_F "' is unknown, the model takes %s",
                     SHOWN(in->name), names_text(r->schema->inputs, r->schema->input_count, names));
        return NULL;
    }
    if (t->present) {
        problems_add(&r->problems, "input '" STR_F "' is given twice", SHOWN(in->name));
        return NULL;
    }
    t->present = true;
    if (!str_eqz(in->datatype, tensor_type_name(t->spec->datatype))) {
        problems_add(&r->problems,
                     "input '" STR_F "': datatype " STR_F " does not match the model's %s",
                     SHOWN(in->name), STR_A(str_take(in->datatype, 16)),
                     tensor_type_name(t->spec->datatype));
        return NULL;
    }
    return shape_check(r, in, t) ? t : NULL;
}

/* BYTES as they lie on the wire: a length of four bytes before each element. */
static bool bytes_unpack(str raw, struct tensor *t)
{
    str *to = t->data;

    for (size_t i = 0; i < t->count; i++) {
        uint32_t n;

        if (raw.n < sizeof(n))
            return false;
        memcpy(&n, raw.p, sizeof(n));
        raw = str_skip(raw, sizeof(n));
        if (raw.n < n)
            return false;
        to[i] = str_take(raw, n);
        raw = str_skip(raw, n);
    }
    return raw.n == 0;
}

void tensor_check_raw(struct tensor_check *r, str bytes, struct tensor *t)
{
    str name = t->spec->name;

    if (tensor_type_kind(t->spec->datatype) == TENSOR_KIND_TEXT) {
        if (!bytes_unpack(bytes, t))
            problems_add(&r->problems,
                         "input '" STR_F "': the lengths of its %zu binary elements do not add up "
                         "to %s %zu",
                         SHOWN(name), t->count, r->raw_name, bytes.n);
        return;
    }
    if (bytes.n != t->bytes) {
        problems_add(&r->problems, "input '" STR_F "': %s is %zu, %zu elements of %s need %zu",
                     SHOWN(name), r->raw_name, bytes.n, t->count,
                     tensor_type_name(t->spec->datatype), t->bytes);
        return;
    }
    if (bytes.n)
        memcpy(t->data, bytes.p, bytes.n);
    if (t->spec->datatype == TENSOR_BOOL)
        for (size_t i = 0; i < t->count; i++)
            if (((const uint8_t *)t->data)[i] > 1) {
                problems_add(&r->problems, "input '" STR_F "': element %zu is %u, a BOOL is 0 or 1",
                             SHOWN(name), i, ((const uint8_t *)t->data)[i]);
                return;
            }
}

void tensor_check_wanted(struct tensor_check *r, str name, str parameters)
{
    const struct infer_schema *schema = r->schema;
    struct infer_request *q = r->request;
    uint32_t output = 0;
    int64_t classes = 0;
    char names[200];

    r->outputs_seen++;
    while (output < schema->output_count && !str_eq(name, schema->outputs[output].name))
        output++;
    if (output == schema->output_count) {
        problems_add(&r->problems, "output '" STR_F "' is unknown, the model gives %s", SHOWN(name),
                     names_text(schema->outputs, schema->output_count, names));
        return;
    }
    for (uint32_t i = 0; i < q->wanted_count; i++)
        if (q->wanted[i].output == output) {
            problems_add(&r->problems, "output '" STR_F "' is asked for twice", SHOWN(name));
            return;
        }
    if (infer_parameter_int(parameters, S("classification"), &classes) &&
        (classes < 1 || classes > INT32_MAX)) {
        problems_add(&r->problems, "output '" STR_F "': classification must be 1 or more",
                     SHOWN(name));
        return;
    }
    q->wanted[q->wanted_count++] = (struct infer_wanted){
        .output = output, .classification = (uint32_t)classes, .parameters = parameters};
}

/* All outputs when none were named, and how each is to be sent. */
static void wanted_finish(struct infer_request *q, const struct infer_schema *schema)
{
    bool binary_default = false;

    infer_parameter_bool(q->parameters, S("binary_data_output"), &binary_default);
    if (!q->wanted_count)
        for (uint32_t i = 0; i < schema->output_count; i++)
            q->wanted[q->wanted_count++] = (struct infer_wanted){.output = i};
    for (uint32_t i = 0; i < q->wanted_count; i++) {
        q->wanted[i].binary = binary_default;
        infer_parameter_bool(q->wanted[i].parameters, S("binary_data"), &q->wanted[i].binary);
        q->any_binary |= q->wanted[i].binary;
    }
}

/* What only shows when all inputs are there. */
static void inputs_finish(struct tensor_check *r)
{
    const struct infer_schema *schema = r->schema;
    const struct tensor *head = &r->inputs[0];

    for (uint32_t i = 0; i < schema->input_count; i++) {
        const struct tensor *t = &r->inputs[i];

        if (!t->present)
            problems_add(&r->problems, "input '" STR_F "' (%s) is missing", SHOWN(t->spec->name),
                         tensor_type_name(t->spec->datatype));
        else if (schema->batched && !r->problems.count && t->shape[0] != head->shape[0])
            problems_add(&r->problems, "input '" STR_F "' has %lld rows, but '" STR_F "' has %lld",
                         SHOWN(t->spec->name), (long long)t->shape[0], SHOWN(head->spec->name),
                         (long long)head->shape[0]);
    }
    r->request->rows = schema->input_count && head->present && head->rank && !r->problems.count
                           ? head->shape[0]
                           : 1;
}

int tensor_check_count(uint32_t seen, uint32_t max, const char *what, struct err *e)
{
    if (seen < max)
        return 0;
    return FAIL(e, INVALID_ARGUMENT, "the request has more than %u %s", max, what);
}

void tensor_check_begin(struct tensor_check *r, const struct infer_schema *schema,
                        struct tensor *inputs, struct infer_request *request)
{
    ASSERT(schema->input_count <= TENSOR_INPUTS_MAX && schema->output_count <= TENSOR_OUTPUTS_MAX);
    ASSERT(schema->input_count > 0);
    r->schema = schema;
    r->inputs = inputs;
    r->request = request;
    r->inputs_seen = r->outputs_seen = 0;
    r->raw_name = "binary_data_size";
    problems_begin(&r->problems);
    request->id = request->parameters = STR_NULL;
    request->rows = 0;
    request->wanted_count = 0;
    request->any_binary = false;
    for (uint32_t i = 0; i < schema->input_count; i++)
        inputs[i].present = false;
}

int tensor_check_end(struct tensor_check *r, struct err *e)
{
    inputs_finish(r);
    TRY(problems_end(&r->problems, e));
    wanted_finish(r->request, r->schema);
    return 0;
}

/* --- Answers ---------------------------------------------------------------------------------- */

void tensor_check_outputs_begin(struct tensor *outputs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        outputs[i].present = false;
}

int tensor_check_output(struct tensor *outputs, uint32_t count, const struct tensor_claim *claim,
                        struct tensor **ret_output, struct err *e)
{
    struct tensor *t = NULL;

    for (uint32_t i = 0; i < count && !t; i++)
        t = str_eq(outputs[i].spec->name, claim->name) ? &outputs[i] : NULL;
    if (!t)
        return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' was not asked for",
                    SHOWN(claim->name));
    if (t->present)
        return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' came twice", SHOWN(claim->name));
    if (!str_eqz(claim->datatype, tensor_type_name(t->spec->datatype)))
        return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' is " STR_F ", declared is %s",
                    SHOWN(claim->name), STR_A(str_take(claim->datatype, 16)),
                    tensor_type_name(t->spec->datatype));
    if (claim->shape_is_long)
        return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' has more than %d dimensions",
                    SHOWN(claim->name), TENSOR_RANK_MAX);
    TRY(tensor_raw_shape(t, claim->shape, claim->rank, e));
    t->present = true;
    *ret_output = t;
    return 0;
}

int tensor_check_outputs_end(const struct tensor *outputs, uint32_t count, struct err *e)
{
    for (uint32_t i = 0; i < count; i++)
        if (!outputs[i].present)
            return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' is missing",
                        SHOWN(outputs[i].spec->name));
    return 0;
}
