/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a signature: what a model takes and gives, in the words of its tensors and, where rows can
 * be given by name, in the words of its features.
 *
 *   {"inputs":[{"name":"input","datatype":"FP32","shape":[-1,9]}], "outputs":[…],
 *    "columns":[{"name":"V1","type":"float","input":0,"element":0,"required":true,
 *                "min":0,"max":9,"categories":["a","b"],"default":0}],
 *    "reading":{"label":0,"probabilities":1,"value":-1,"classes":["0","1"],"positive":1,
 *               "threshold":0.5}}
 *
 * The text was written by the registry, but it crosses a process boundary, so nothing in it is
 * trusted: every index is held against what it points into before anybody uses it.
 */
#include "plan/plan.h"

#include <math.h>

static NODISCARD int read_shape(const struct json *shape, struct tensor_spec *spec, struct err *e)
{
    if (shape->count > TENSOR_RANK_MAX)
        return FAIL(e, INVALID_ARGUMENT,
                    "tensor '" STR_F "' has %zu dimensions, at most %d are known",
                    STR_A(spec->name), shape->count, TENSOR_RANK_MAX);
    JSON_EACH (dim, shape) {
        int64_t size = json_int_or(dim, INT64_MIN);

        if (size < TENSOR_DIM_ANY)
            return FAIL(e, INVALID_ARGUMENT,
                        "tensor '" STR_F "': a dimension is -1 or a whole number >= 0",
                        STR_A(spec->name));
        spec->shape[spec->rank++] = size;
    }
    return 0;
}

static NODISCARD int read_tensors(const struct json *signature, str key, uint32_t max,
                                  struct arena *a, struct tensor_spec **ret_specs, uint32_t *ret_n,
                                  struct err *e)
{
    struct json *list, *shape;
    struct tensor_spec *specs;
    uint32_t n = 0;
    str datatype;

    TRY(json_need_array(signature, key, &list, e));
    if (list->count == 0 || list->count > max)
        return FAIL(e, INVALID_ARGUMENT, "signature has %zu " STR_F ", expected 1 to %u",
                    list->count, STR_A(key), max);
    specs = ARENA_ARRAY(a, struct tensor_spec, list->count);
    JSON_EACH (item, list) {
        struct tensor_spec *spec = &specs[n++];

        TRY(json_need_str(item, S("name"), &spec->name, e));
        TRY(json_need_str(item, S("datatype"), &datatype, e));
        TRY(json_need_array(item, S("shape"), &shape, e));
        spec->name = arena_dup(a, spec->name);
        if (!tensor_type_parse(datatype, &spec->datatype))
            return FAIL(e, INVALID_ARGUMENT, "tensor '" STR_F "': unknown datatype '" STR_F "'",
                        STR_A(spec->name), STR_A(datatype));
        TRY(read_shape(shape, spec, e));
        for (const struct tensor_spec *other = specs; other < spec; other++)
            if (str_eq(other->name, spec->name))
                return FAIL(e, INVALID_ARGUMENT, "tensor '" STR_F "' stands twice",
                            STR_A(spec->name));
    }
    *ret_specs = specs;
    *ret_n = n;
    return 0;
}

static const struct {
    str name;
    enum field_type type;
} field_types[] = {
    {S_INIT("float"), FIELD_FLOAT}, {S_INIT("double"), FIELD_DOUBLE}, {S_INIT("int"), FIELD_INT},
    {S_INIT("bool"), FIELD_BOOL},   {S_INIT("string"), FIELD_STRING},
};

static NODISCARD int read_type(str name, enum field_type *ret_type, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(field_types); i++)
        if (str_eq(field_types[i].name, name)) {
            *ret_type = field_types[i].type;
            return 0;
        }
    return FAIL(e, INVALID_ARGUMENT, "unknown column type '" STR_F "'", STR_A(name));
}

static bool is_absent(const struct json *node)
{
    return !node || node->type == JSON_NULL;
}

static NODISCARD int read_texts(const struct json *object, str key, struct arena *a,
                                str **ret_texts, size_t *ret_n, struct err *e)
{
    const struct json *list = json_get(object, key);
    size_t n = 0;

    if (is_absent(list) || (list->type == JSON_ARRAY && !list->count))
        return 0;
    if (list->type != JSON_ARRAY)
        return FAIL(e, INVALID_ARGUMENT, STR_F " is not a list", STR_A(key));
    *ret_texts = ARENA_ARRAY(a, str, list->count);
    JSON_EACH (item, list) {
        if (item->type != JSON_STR)
            return FAIL(e, INVALID_ARGUMENT, STR_F "[%zu] is not a text", STR_A(key), n);
        (*ret_texts)[n++] = arena_dup(a, item->string);
    }
    *ret_n = n;
    return 0;
}

/* A bound of a column: absent or a number. */
static NODISCARD int read_bound(const struct json *item, str key, bool *ret_has, double *ret,
                                struct err *e)
{
    const struct json *node = json_get(item, key);

    if (is_absent(node))
        return 0;
    if (node->type != JSON_INT && node->type != JSON_REAL)
        return FAIL(e, INVALID_ARGUMENT, STR_F " is not a number", STR_A(key));
    *ret_has = true;
    *ret = json_real_or(node, 0);
    return 0;
}

static NODISCARD int read_default(const struct json *node, struct arena *a, struct field_column *c,
                                  struct err *e)
{
    if (is_absent(node))
        return 0;
    c->has_default = true;
    if (node->type == JSON_STR)
        c->default_str = arena_dup(a, node->string);
    else if (node->type == JSON_INT || node->type == JSON_REAL)
        c->default_num = json_real_or(node, 0);
    else if (node->type == JSON_BOOL)
        c->default_num = node->boolean;
    else
        return FAIL(e, INVALID_ARGUMENT,
                    "column '" STR_F "': default is a number, true, false or a text",
                    STR_A(c->name));
    return 0;
}

static NODISCARD int read_column(const struct json *item, const struct plan_signature *sig,
                                 struct arena *a, struct field_column *c, struct err *e)
{
    int64_t input, element;
    size_t categories = 0;
    str type, *texts = NULL;

    TRY(json_need_str(item, S("name"), &c->name, e));
    TRY(json_need_str(item, S("type"), &type, e));
    TRY(json_need_int(item, S("input"), &input, e));
    TRY(json_need_int(item, S("element"), &element, e));
    c->name = arena_dup(a, c->name);
    TRY(read_type(type, &c->type, e));
    if (input < 0 || input >= sig->input_count || element < 0 ||
        element >= tensor_row_elements(&sig->inputs[input]))
        return FAIL(e, INVALID_ARGUMENT, "column '" STR_F "' lies outside the model's inputs",
                    STR_A(c->name));
    c->tensor = (uint32_t)input;
    c->position = (uint32_t)element;
    c->store = sig->inputs[input].datatype;
    c->required = json_bool_or(json_get(item, S("required")), true);
    if (read_bound(item, S("min"), &c->has_min, &c->min, e) ||
        read_bound(item, S("max"), &c->has_max, &c->max, e) ||
        read_texts(item, S("categories"), a, &texts, &categories, e))
        return err_context(e, "column '" STR_F "'", STR_A(c->name));
    c->categories = texts;
    c->category_count = (uint32_t)categories;
    return read_default(json_get(item, S("default")), a, c, e);
}

static NODISCARD int read_columns(const struct json *list, struct arena *a,
                                  struct plan_signature *sig, struct err *e)
{
    if (!list || list->type != JSON_ARRAY || !list->count)
        return 0;
    if (list->count > FIELDS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "signature has %zu columns, at most %d are known",
                    list->count, FIELDS_MAX);
    sig->columns = ARENA_ARRAY(a, struct field_column, list->count);
    JSON_EACH (item, list)
        TRY(read_column(item, sig, a, &sig->columns[sig->column_count++], e));
    return 0;
}

/* An index into the outputs, or -1. */
static NODISCARD int read_output(const struct json *reading, str key, uint32_t count, int32_t *ret,
                                 struct err *e)
{
    int64_t at = json_int_or(json_get(reading, key), -1);

    if (at < -1 || at >= count)
        return FAIL(e, INVALID_ARGUMENT, "reading." STR_F " is %lld, the model has %u outputs",
                    STR_A(key), (long long)at, count);
    *ret = (int32_t)at;
    return 0;
}

/* A label or value is one element of each row (or the model has no rows, and nothing is read). */
static NODISCARD int check_width(const struct plan_signature *sig, str key, int32_t output,
                                 struct err *e)
{
    int64_t n = output < 0 ? 1 : tensor_row_elements(&sig->outputs[output]);

    if (n != 1 && n != -1)
        return FAIL(e, INVALID_ARGUMENT,
                    "reading." STR_F ": output '" STR_F "' holds %lld elements a row, expected 1",
                    STR_A(key), STR_A(sig->outputs[output].name), (long long)n);
    return 0;
}

static NODISCARD int read_reading(const struct json *reading, struct arena *a,
                                  struct plan_signature *sig, struct err *e)
{
    struct plan_reading *r = &sig->reading;
    int64_t positive = json_int_or(json_get(reading, S("positive")), -1);

    TRY(read_output(reading, S("label"), sig->output_count, &r->label, e));
    TRY(read_output(reading, S("probabilities"), sig->output_count, &r->probabilities, e));
    TRY(read_output(reading, S("value"), sig->output_count, &r->value, e));
    TRY(read_texts(reading, S("classes"), a, &r->classes, &r->class_count, e));
    r->threshold = json_real_or(json_get(reading, S("threshold")), NAN);
    if (positive < -1 || positive >= (int64_t)r->class_count)
        return FAIL(e, INVALID_ARGUMENT, "reading.positive is %lld of %zu classes",
                    (long long)positive, r->class_count);
    r->positive = (int32_t)positive;
    TRY(check_width(sig, S("label"), r->label, e));
    TRY(check_width(sig, S("value"), r->value, e));
    if (r->probabilities >= 0) {
        const struct tensor_spec *spec = &sig->outputs[r->probabilities];

        if (tensor_row_elements(spec) != (int64_t)MAX(r->class_count, (size_t)1))
            return FAIL(e, INVALID_ARGUMENT,
                        "output '" STR_F "' does not hold %zu probabilities a row",
                        STR_A(spec->name), r->class_count);
    }
    return 0;
}

int plan_signature_read(const struct json *signature, struct arena *a,
                        struct plan_signature *ret_signature, struct err *e)
{
    struct plan_signature sig = {.reading = {-1, -1, -1, NULL, 0, -1, NAN}};

    TRY(read_tensors(signature, S("inputs"), TENSOR_INPUTS_MAX, a, &sig.inputs, &sig.input_count,
                     e));
    TRY(read_tensors(signature, S("outputs"), TENSOR_OUTPUTS_MAX, a, &sig.outputs,
                     &sig.output_count, e));
    TRY(read_columns(json_get(signature, S("columns")), a, &sig, e));
    TRY(read_reading(json_get(signature, S("reading")), a, &sig, e));
    *ret_signature = sig;
    return 0;
}
