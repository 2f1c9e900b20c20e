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

#include "wire/tensor_data.h"

#include <stdio.h>

#define NAME_SHOWN 64 /* bytes of a client's name in a message */
#define SHOWN(s) STR_A(str_take((s), NAME_SHOWN))

struct reader {
    struct scan s;
    str raw; /* not yet used */
    const struct infer_schema *schema;
    struct infer_options options;
    struct tensor *inputs;
    struct arena *arena;
    struct infer_request *request;
    struct problems problems;
    uint32_t inputs_seen;
};

/* What the members of one input's object said. */
struct input {
    str name, datatype, parameters;
    bool has_name, has_shape, has_data;
    bool shape_is_long; /* more than TENSOR_RANK_MAX dimensions */
    uint32_t rank;
    int64_t shape[TENSOR_RANK_MAX];
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
    in->rank = 0;
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
        if (in->rank == TENSOR_RANK_MAX)
            in->shape_is_long = true;
        else
            in->shape[in->rank++] = dim;
    }
    if (r->s.wrong)
        return scan_error(&r->s, e);
    in->has_shape = true;
    return 0;
}

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

static struct tensor *input_find(struct reader *r, str name)
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

static bool shape_check(struct reader *r, const struct input *in, struct tensor *t)
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

/* Holds the head of an input against the signature; in->tensor is set when all of it is good. */
static void input_check(struct reader *r, struct input *in)
{
    struct tensor *t = input_find(r, in->name);
    char names[200];

    in->is_checked = true;
    if (!t) {
        problems_add(&r->problems, "input '" STR_F "' is unknown, the model takes %s",
                     SHOWN(in->name), names_text(r->schema->inputs, r->schema->input_count, names));
        return;
    }
    if (t->present) {
        problems_add(&r->problems, "input '" STR_F "' is given twice", SHOWN(in->name));
        return;
    }
    t->present = true;
    if (!str_eqz(in->datatype, tensor_type_name(t->spec->datatype))) {
        problems_add(&r->problems,
                     "input '" STR_F "': datatype " STR_F " does not match the model's %s",
                     SHOWN(in->name), STR_A(str_take(in->datatype, 16)),
                     tensor_type_name(t->spec->datatype));
        return;
    }
    if (shape_check(r, in, t))
        in->tensor = t;
}

static int data_read(struct reader *r, struct scan *s, struct input *in, struct err *e)
{
    enum tensor_type type = in->tensor->spec->datatype;

    in->is_read = true;
    if (tensor_type_kind(type) == TENSOR_KIND_HALF) {
        problems_add(&r->problems,
                     "input '" STR_F "': %s has no JSON form, send it as binary tensor data",
                     SHOWN(in->name), tensor_type_name(type));
        return scan_value(s, NULL) ? 0 : scan_error(s, e);
    }
    if (tensor_data_read(s, in->tensor, r->options.null_is_nan, r->arena, &r->problems))
        return 0;
    if (s->wrong)
        return scan_error(s, e);
    return FAIL(e, RESOURCE_EXHAUSTED,
                "input '" STR_F "': its strings exceed the memory of a "
                "request",
                SHOWN(in->name));
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

static void raw_fill(struct reader *r, str bytes, struct tensor *t)
{
    str name = t->spec->name;

    if (tensor_type_kind(t->spec->datatype) == TENSOR_KIND_TEXT) {
        if (!bytes_unpack(bytes, t))
            problems_add(&r->problems,
                         "input '" STR_F "': the lengths of its %zu binary elements do not add up "
                         "to binary_data_size %zu",
                         SHOWN(name), t->count, bytes.n);
        return;
    }
    if (bytes.n != t->bytes) {
        problems_add(&r->problems,
                     "input '" STR_F "': binary_data_size is %zu, %zu elements of %s need %zu",
                     SHOWN(name), bytes.n, t->count, tensor_type_name(t->spec->datatype), t->bytes);
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
                        SHOWN(in->name), STR_A(str_take(size_text, 24)), r->raw.n);
    } else {
        size = -1;
    }
    if (!in->has_name || !in->datatype.p || !in->has_shape) {
        problems_add(&r->problems, "input %u ('" STR_F "'): %s is missing", r->inputs_seen,
                     SHOWN(in->name),
                     !in->has_name     ? "name"
                     : !in->datatype.p ? "datatype"
                                       : "shape");
    } else {
        if (!in->is_checked)
            input_check(r, in);
        if (in->has_data == (size >= 0))
            problems_add(&r->problems, "input '" STR_F "': %s", SHOWN(in->name),
                         in->has_data ? "has both data and binary_data_size" : "has no data");
        else if (in->tensor && size >= 0)
            raw_fill(r, str_take(r->raw, (size_t)size), in->tensor);
        else if (in->tensor && !in->is_read) {
            struct scan s = r->s;

            s.p = in->data_at;
            TRY(data_read(r, &s, in, e));
        }
    }
    if (size > 0)
        r->raw = str_skip(r->raw, (size_t)size);
    r->inputs_seen++;
    return 0;
}

static int input_data(struct reader *r, struct input *in, struct err *e)
{
    in->has_data = true;
    if (!in->is_checked && in->has_name && in->has_shape && in->datatype.p)
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

    in = (struct input){.name = STR_NULL};
    if (!scan_open(&r->s, '{', "an object for each of \"inputs\""))
        return scan_error(&r->s, e);
    while (scan_member(&r->s, &key, &first)) {
        TRY(member_which(r, key, names, ARRAY_LEN(names), &seen, &which, e));
        switch (which) {
        case NAME:
            TRY(text_read(r, "a string for \"name\"", &in.name, e));
            in.has_name = true;
            break;
        case SHAPE:
            TRY(shape_read(r, &in, e));
            break;
        case DATATYPE:
            TRY(text_read(r, "a string for \"datatype\"", &in.datatype, e));
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
    while (scan_item(&r->s, &first))
        TRY(input_read(r, e));
    return r->s.wrong ? scan_error(&r->s, e) : 0;
}

/* Adds an output that the client asks for, or says why not. */
static void wanted_add(struct reader *r, str name, str parameters)
{
    const struct infer_schema *schema = r->schema;
    struct infer_request *q = r->request;
    uint32_t output = 0;
    int64_t classes = 0;
    char names[200];

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
    if (seen & 1)
        wanted_add(r, name, parameters);
    else
        problems_add(&r->problems, "an output has no name");
    return 0;
}

static int outputs_read(struct reader *r, struct err *e)
{
    bool first = true;

    if (!scan_open(&r->s, '[', "a list for \"outputs\""))
        return scan_error(&r->s, e);
    while (scan_item(&r->s, &first))
        TRY(output_read(r, e));
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
            TRY(text_read(r, "a string for \"id\"", &r->request->id, e));
            break;
        case 2:
            TRY(parameters_read(r, &r->request->parameters, e));
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
static void inputs_finish(struct reader *r)
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
    if (r->raw.n && !r->problems.count)
        problems_add(&r->problems, "%zu bytes behind the JSON belong to no input", r->raw.n);
    r->request->rows = schema->input_count && head->present && head->rank && !r->problems.count
                           ? head->shape[0]
                           : 1;
}

static void request_begin(struct infer_request *q)
{
    q->id = q->parameters = STR_NULL;
    q->rows = 0;
    q->wanted_count = 0;
    q->any_binary = false;
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
    r.schema = schema;
    r.options = options ? *options : (struct infer_options){.null_is_nan = false};
    r.inputs = inputs;
    r.arena = a;
    r.request = ret_request;
    r.inputs_seen = 0;
    problems_begin(&r.problems);
    request_begin(ret_request);
    for (uint32_t i = 0; i < schema->input_count; i++)
        inputs[i].present = false;
    TRY(request_members(&r, e));
    inputs_finish(&r);
    TRY(problems_end(&r.problems, e));
    wanted_finish(ret_request, schema);
    return 0;
}

int infer_request_read_raw(str raw, const struct infer_schema *schema, struct tensor *input,
                           struct infer_request *ret_request, struct err *e)
{
    const struct tensor_spec *spec = schema->inputs;
    struct reader r = {.schema = schema, .inputs = input, .request = ret_request};
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
    problems_begin(&r.problems);
    request_begin(ret_request);
    tensor_set_rows(input, 1);
    input->present = true;
    raw_fill(&r, raw, input);
    TRY(problems_end(&r.problems, e));
    ret_request->rows = 1;
    wanted_finish(ret_request, schema);
    for (uint32_t i = 0; i < ret_request->wanted_count; i++)
        ret_request->wanted[i].binary = true;
    ret_request->any_binary = ret_request->wanted_count > 0;
    return 0;
}
