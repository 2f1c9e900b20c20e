/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an infer request. One pass over the bytes, with one exception: members may come in any
 * order, so when "data" comes before the name, shape and datatype that say what to do with it, its
 * place is remembered, it is skipped, and read when the input's object has ended.
 *
 * Broken JSON ends the read at once: nothing behind it can be trusted. A wrong value does not: it
 * is noted and the read goes on, so that a client learns of all its mistakes in one answer.
 *
 * Invariants: an element is written only after shape and datatype agree with the signature, the
 * product of the shape fits int64, and the bytes fit the tensor's memory. Each tensor is filled at
 * most once. Raw bytes behind the JSON are used in the order of the inputs, without gap or rest.
 *
 * It does not convert datatypes: a client that sends FP64 to a model of FP32 is told so.
 */
#include "wire/tensor_json.h"

#include "wire/tensor_check.h"

struct reader {
    struct scan s;
    str raw; /* not yet used */
    struct infer_options options;
    struct arena *arena;
    struct tensor_check check;
};

/* What the members of one input's object said. */
struct input {
    struct tensor_claim claim;
    str parameters;
    bool has_name, has_shape, has_data;
    const char *data_at;   /* skipped data, or NULL */
    bool is_checked;       /* against the signature */
    struct tensor *tensor; /* the target when the check found it good */
    bool is_read;
};

static int text_read(struct reader *r, const char *what, str *ret_text, struct err *e)
{
    struct scan_text text;

    if (scan_peek(&r->s) != '"') {
        scan_wrong(&r->s, what);
        return scan_error(&r->s, e);
    }
    if (!scan_string(&r->s, &text))
        return scan_error(&r->s, e);
    *ret_text = scan_unescape(text, r->arena);
    if (!ret_text->p && text.raw.n)
        return FAIL(e, RESOURCE_EXHAUSTED, "the request's strings exceed the memory of a request");
    return 0;
}

static int parameters_read(struct reader *r, str *ret_text, struct err *e)
{
    if (scan_peek(&r->s) != '{')
        scan_wrong(&r->s, "an object for \"parameters\"");
    else if (scan_flat_object(&r->s, TENSOR_JSON_PARAMETERS_MAX, ret_text))
        return 0;
    return scan_error(&r->s, e);
}

static int skip(struct reader *r, struct err *e)
{
    return scan_value(&r->s, NULL) ? 0 : scan_error(&r->s, e);
}

/* Which known member a key is; *seen has a bit for each and finds the second of a kind. */
static int member_which(struct reader *r, struct scan_text key, const str *names, uint32_t n,
                        uint32_t *seen, uint32_t *ret_which, struct err *e)
{
    uint32_t i = 0;

    while (i < n && !str_eq(key.raw, names[i]))
        i++;
    if (i < n && *seen >> i & 1) {
        r->s.p = key.raw.p;
        scan_wrong(&r->s, "no duplicate key");
        return scan_error(&r->s, e);
    }
    *seen |= i < n ? 1u << i : 0;
    *ret_which = i;
    return 0;
}

static int shape_read(struct reader *r, struct input *in, struct err *e)
{
    bool first = true;

    if (!scan_open(&r->s, '[', "a list of dimensions for \"shape\""))
        return scan_error(&r->s, e);
    in->claim.rank = 0;
    while (scan_item(&r->s, &first)) {
        double value;
        int64_t dim;
        bool exact;

        scan_blank(&r->s);
        if (!scan_number(&r->s, &value, &dim, &exact))
            break;
        if (!exact) {
            scan_wrong(&r->s, "whole numbers below 2^63 in \"shape\"");
            break;
        }
        if (in->claim.rank == TENSOR_RANK_MAX)
            in->claim.shape_is_long = true;
        else
            in->claim.shape[in->claim.rank++] = dim;
    }
    if (r->s.wrong)
        return scan_error(&r->s, e);
    in->has_shape = true;
    return 0;
}

static void input_check(struct reader *r, struct input *in)
{
    in->is_checked = true;
    in->tensor = tensor_check_input(&r->check, &in->claim);
}

static int data_read(struct reader *r, struct scan *s, struct input *in, struct err *e)
{
    enum tensor_type type = in->tensor->spec->datatype;

    in->is_read = true;
    if (tensor_type_kind(type) == TENSOR_KIND_HALF) {
        problems_add(&r->check.problems,
                     "input '" STR_F "': %s has no JSON form, send it as binary tensor data",
                     SHOWN(in->claim.name), tensor_type_name(type));
        return scan_value(s, NULL) ? 0 : scan_error(s, e);
    }
    if (tensor_data_read(s, in->tensor, r->options.null_is_nan, r->arena, &r->check.problems))
        return 0;
    if (s->wrong)
        return scan_error(s, e);
    return FAIL(e, RESOURCE_EXHAUSTED,
                "input '" STR_F "': its strings exceed the memory of a "
                "request",
                SHOWN(in->claim.name));
}

/* The object has ended: uses what came early, and says what did not come. */
static int input_end(struct reader *r, struct input *in, struct err *e)
{
    int64_t size;
    str size_text;

    if (infer_parameter_get(in->parameters, S("binary_data_size"), &size_text)) {
        if (!infer_parameter_int(in->parameters, S("binary_data_size"), &size) || size < 0 ||
            (uint64_t)size > r->raw.n)
            return FAIL(e, INVALID_ARGUMENT,
                        "input '" STR_F "': binary_data_size " STR_F
                        " is not a size within the %zu bytes behind the JSON",
                        SHOWN(in->claim.name), STR_A(str_take(size_text, 24)), r->raw.n);
    } else {
        size = -1;
    }
    if (!in->has_name || !in->claim.datatype.p || !in->has_shape) {
        problems_add(&r->check.problems, "input %u ('" STR_F "'): %s is missing",
                     r->check.inputs_seen, SHOWN(in->claim.name),
                     !in->has_name           ? "name"
                     : !in->claim.datatype.p ? "datatype"
                                             : "shape");
    } else {
        if (!in->is_checked)
            input_check(r, in);
        if (in->has_data == (size >= 0))
            problems_add(&r->check.problems, "input '" STR_F "': %s", SHOWN(in->claim.name),
                         in->has_data ? "has both data and binary_data_size" : "has no data");
        else if (in->tensor && size >= 0)
            tensor_check_raw(&r->check, str_take(r->raw, (size_t)size), in->tensor);
        else if (in->tensor && !in->is_read) {
            struct scan s = r->s;

            s.p = in->data_at;
            TRY(data_read(r, &s, in, e));
        }
    }
    if (size > 0)
        r->raw = str_skip(r->raw, (size_t)size);
    r->check.inputs_seen++;
    return 0;
}

static int input_data(struct reader *r, struct input *in, struct err *e)
{
    in->has_data = true;
    if (!in->is_checked && in->has_name && in->has_shape && in->claim.datatype.p)
        input_check(r, in);
    if (in->tensor)
        return data_read(r, &r->s, in, e);
    scan_blank(&r->s);
    in->data_at = r->s.p;
    return skip(r, e);
}

static int input_read(struct reader *r, struct err *e)
{
    static const str names[] = {S_INIT("name"), S_INIT("shape"), S_INIT("datatype"), S_INIT("data"),
                                S_INIT("parameters")};
    enum { NAME, SHAPE, DATATYPE, DATA, PARAMETERS };
    struct input in;
    struct scan_text key;
    uint32_t seen = 0, which = 0;
    bool first = true;

    in = (struct input){.parameters = STR_NULL};
    if (!scan_open(&r->s, '{', "an object for each of \"inputs\""))
        return scan_error(&r->s, e);
    while (scan_member(&r->s, &key, &first)) {
        TRY(member_which(r, key, names, ARRAY_LEN(names), &seen, &which, e));
        switch (which) {
        case NAME:
            TRY(text_read(r, "a string for \"name\"", &in.claim.name, e));
            in.has_name = true;
            break;
        case SHAPE:
            TRY(shape_read(r, &in, e));
            break;
        case DATATYPE:
            TRY(text_read(r, "a string for \"datatype\"", &in.claim.datatype, e));
            break;
        case DATA:
            TRY(input_data(r, &in, e));
            break;
        case PARAMETERS:
            TRY(parameters_read(r, &in.parameters, e));
            break;
        default:
            TRY(skip(r, e));
        }
    }
    return r->s.wrong ? scan_error(&r->s, e) : input_end(r, &in, e);
}

static int inputs_read(struct reader *r, struct err *e)
{
    bool first = true;

    if (!scan_open(&r->s, '[', "a list for \"inputs\""))
        return scan_error(&r->s, e);
    while (scan_item(&r->s, &first)) {
        TRY(tensor_check_count(r->check.inputs_seen, TENSOR_INPUTS_MAX, "inputs", e));
        TRY(input_read(r, e));
    }
    return r->s.wrong ? scan_error(&r->s, e) : 0;
}

static int output_read(struct reader *r, struct err *e)
{
    static const str names[] = {S_INIT("name"), S_INIT("parameters")};
    struct scan_text key;
    str name = STR_NULL, parameters = STR_NULL;
    uint32_t seen = 0, which = 0;
    bool first = true;

    if (!scan_open(&r->s, '{', "an object for each of \"outputs\""))
        return scan_error(&r->s, e);
    while (scan_member(&r->s, &key, &first)) {
        TRY(member_which(r, key, names, ARRAY_LEN(names), &seen, &which, e));
        if (which == 0)
            TRY(text_read(r, "a string for \"name\"", &name, e));
        else if (which == 1)
            TRY(parameters_read(r, &parameters, e));
        else
            TRY(skip(r, e));
    }
    if (r->s.wrong)
        return scan_error(&r->s, e);
    if (seen & 1) {
        tensor_check_wanted(&r->check, name, parameters);
    } else {
        r->check.outputs_seen++;
        problems_add(&r->check.problems, "an output has no name");
    }
    return 0;
}

static int outputs_read(struct reader *r, struct err *e)
{
    bool first = true;

    if (!scan_open(&r->s, '[', "a list for \"outputs\""))
        return scan_error(&r->s, e);
    while (scan_item(&r->s, &first)) {
        TRY(tensor_check_count(r->check.outputs_seen, TENSOR_OUTPUTS_MAX, "outputs", e));
        TRY(output_read(r, e));
    }
    return r->s.wrong ? scan_error(&r->s, e) : 0;
}

static int request_members(struct reader *r, struct err *e)
{
    static const str names[] = {S_INIT("inputs"), S_INIT("id"), S_INIT("parameters"),
                                S_INIT("outputs")};
    struct scan_text key;
    uint32_t seen = 0, which = 0;
    bool first = true;

    if (!scan_open(&r->s, '{', "an object"))
        return scan_error(&r->s, e);
    while (scan_member(&r->s, &key, &first)) {
        TRY(member_which(r, key, names, ARRAY_LEN(names), &seen, &which, e));
        switch (which) {
        case 0:
            TRY(inputs_read(r, e));
            break;
        case 1:
            TRY(text_read(r, "a string for \"id\"", &r->check.request->id, e));
            break;
        case 2:
            TRY(parameters_read(r, &r->check.request->parameters, e));
            break;
        case 3:
            TRY(outputs_read(r, e));
            break;
        default:
            TRY(skip(r, e));
        }
    }
    if (r->s.wrong || !scan_finish(&r->s))
        return scan_error(&r->s, e);
    return 0;
}

int infer_request_read(str json, str raw, const struct infer_schema *schema,
                       const struct infer_options *options, struct tensor *inputs, struct arena *a,
                       struct infer_request *ret_request, struct err *e)
{
    struct reader r;

    ASSERT(schema->input_count <= TENSOR_INPUTS_MAX && schema->output_count <= TENSOR_OUTPUTS_MAX);
    ASSERT(schema->input_count > 0);
    scan_begin(&r.s, json);
    r.raw = raw;
    r.options = options ? *options : (struct infer_options){.null_is_nan = false};
    r.arena = a;
    tensor_check_begin(&r.check, schema, inputs, ret_request);
    TRY(request_members(&r, e));
    if (r.raw.n && !r.check.problems.count)
        problems_add(&r.check.problems, "%zu bytes behind the JSON belong to no input", r.raw.n);
    return tensor_check_end(&r.check, e);
}

int infer_request_read_raw(str raw, const struct infer_schema *schema, struct tensor *input,
                           struct infer_request *ret_request, struct err *e)
{
    const struct tensor_spec *spec = schema->inputs;
    struct tensor_check check;
    size_t size = tensor_type_bytes(spec->datatype);
    int64_t row;
    bool is_text = tensor_type_kind(spec->datatype) == TENSOR_KIND_TEXT;

    if (schema->input_count != 1)
        return FAIL(e, INVALID_ARGUMENT,
                    "a raw binary request needs a model of one input, this one has %u",
                    schema->input_count);
    row = tensor_row_elements(spec);
    if (row < 0)
        return FAIL(e, INVALID_ARGUMENT,
                    "input '" STR_F
                    "' has no shape to tell from raw bytes alone: send its shape in "
                    "JSON",
                    SHOWN(spec->name));
    if ((uint64_t)row > input->cap_bytes / size || (!is_text && raw.n != (uint64_t)row * size))
        return FAIL(e, INVALID_ARGUMENT,
                    "input '" STR_F "': a raw request of one row needs %llu bytes, got %zu",
                    SHOWN(spec->name), (unsigned long long)row * size, raw.n);
    tensor_check_begin(&check, schema, input, ret_request);
    tensor_set_rows(input, 1);
    input->present = true;
    tensor_check_raw(&check, raw, input);
    TRY(tensor_check_end(&check, e));
    ret_request->rows = 1;
    for (uint32_t i = 0; i < ret_request->wanted_count; i++)
        ret_request->wanted[i].binary = true;
    ret_request->any_binary = ret_request->wanted_count > 0;
    return 0;
}
