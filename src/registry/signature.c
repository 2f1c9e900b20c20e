/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A signature is made of two halves: what the model file declares (tensors) and what the project
 * says (features by name, their limits, classes). Neither is believed about the other's business;
 * where they disagree, both are in the message.
 *
 * Which feature fills which element, in this order: `input` of the project names the tensors; a
 * single tensor takes all features in order; else each feature has the tensor of its name. Features
 * are those of the project's list, or, with `auto`, the columns of the dataset but label and time,
 * or, without a dataset, the names that an XGBoost model carries, or names made from the tensors.
 *
 * The result is read back by the plan's own reader before anybody stores it.
 */
#include "registry/priv.h"

#include "wire/fields_json.h"

#include <stdlib.h>

#define CLASSES_MAX 64 /* found in data */
#define WIDTH_MAX 4096 /* of probabilities: a declared width is not to be believed */

struct feature {
    str name;
    const struct json *section; /* of the project, or NULL */
};

struct maker {
    const struct registry_env *env;
    const struct registry_request *req;
    const struct json *model; /* section, or NULL */
    const struct json *candidate;
    struct tensor_spec inputs[TENSOR_INPUTS_MAX];
    struct tensor_spec outputs[TENSOR_OUTPUTS_MAX];
    uint32_t input_count, output_count;
    struct feature *features;
    size_t feature_count;
    struct reference ref;
    struct arena *a;
    struct json *columns; /* the result */
};

/* --- Tensors ---------------------------------------------------------------------------------- */

static NODISCARD int specs_read(const struct json *list, struct tensor_spec *specs, uint32_t max,
                                uint32_t *ret_n, struct err *e)
{
    uint32_t n = 0;
    str datatype;

    if (!json_is_container(list) || list->count > max)
        return FAIL(e, INVALID_ARGUMENT, "refused: too many inputs or outputs");
    JSON_EACH (item, list) {
        struct tensor_spec *spec = &specs[n++];
        struct json *shape;

        *spec = (struct tensor_spec){0};
        TRY(json_need_str(item, S("name"), &spec->name, e));
        TRY(json_need_str(item, S("datatype"), &datatype, e));
        TRY(json_need_array(item, S("shape"), &shape, e));
        if (!tensor_type_parse(datatype, &spec->datatype) || shape->count > TENSOR_RANK_MAX)
            return FAIL(e, INVALID_ARGUMENT, "refused: tensor '" STR_F "' has an unknown form",
                        STR_A(spec->name));
        JSON_EACH (dim, shape)
            spec->shape[spec->rank++] = json_int_or(dim, 0);
    }
    *ret_n = n;
    return 0;
}

static uint32_t elements(const struct maker *mk)
{
    int64_t sum = 0;

    for (uint32_t t = 0; t < mk->input_count; t++) {
        int64_t n = tensor_row_elements(&mk->inputs[t]);

        if (n < 1 || sum + n > FIELDS_MAX)
            return 0;
        sum += n;
    }
    return (uint32_t)sum;
}

/* --- Features --------------------------------------------------------------------------------- */

static void features_listed(struct maker *mk, const struct json *list)
{
    mk->features = ARENA_ARRAY(mk->a, struct feature, list->count + 1);
    JSON_EACH (item, list)
        mk->features[mk->feature_count++] =
            (struct feature){json_str_or(json_get(item, S("name")), S("")), item};
}

static NODISCARD int features_of_dataset(struct maker *mk, struct err *e)
{
    str *names;
    size_t n;

    TRY(table_names(mk->ref.path, mk->ref.format, mk->a, &names, &n, e));
    mk->features = ARENA_ARRAY(mk->a, struct feature, n + 1);
    for (size_t i = 0; i < n; i++)
        if (!str_eq(names[i], mk->ref.label) && !str_eq(names[i], mk->ref.time))
            mk->features[mk->feature_count++] = (struct feature){names[i], NULL};
    return 0;
}

static void features_named(struct maker *mk, const struct json *names)
{
    mk->features = ARENA_ARRAY(mk->a, struct feature, names->count + 1);
    JSON_EACH (name, names)
        mk->features[mk->feature_count++] = (struct feature){json_str_or(name, S("")), NULL};
}

static void features_made(struct maker *mk)
{
    mk->features = ARENA_ARRAY(mk->a, struct feature, elements(mk) + 1);
    for (uint32_t t = 0; t < mk->input_count; t++) {
        int64_t n = tensor_row_elements(&mk->inputs[t]);

        for (int64_t i = 0; i < n; i++)
            mk->features[mk->feature_count++] =
                (struct feature){n == 1 ? mk->inputs[t].name
                                        : arena_printf(mk->a, STR_F "_%lld",
                                                       STR_A(mk->inputs[t].name), (long long)i),
                                 NULL};
    }
}

static NODISCARD int features_find(struct maker *mk, bool *ret_made, struct err *e)
{
    const struct json *list = json_get(mk->model, S("features"));
    const struct json *names = json_path(mk->candidate, "convert.feature_names");

    *ret_made = false;
    if (json_is_container(list) && list->count) {
        features_listed(mk, list);
        return 0;
    }
    if (mk->model && mk->ref.path)
        return features_of_dataset(mk, e);
    if (json_is_container(names) && names->count == elements(mk)) {
        features_named(mk, names);
        return 0;
    }
    features_made(mk);
    *ret_made = true;
    return 0;
}

/* --- Which feature goes where ----------------------------------------------------------------- */

static str type_of(enum tensor_type type)
{
    switch (tensor_type_kind(type)) {
    case TENSOR_KIND_TEXT:
        return S("string");
    case TENSOR_KIND_BOOLEAN:
        return S("bool");
    case TENSOR_KIND_FLOAT:
    case TENSOR_KIND_HALF:
        return type == TENSOR_FP64 ? S("double") : S("float");
    default:
        return S("int");
    }
}

static void copy_limit(struct json *to, const struct json *from, str key, struct arena *a)
{
    const struct json *v = json_get(from, key);

    if (v && (v->type == JSON_INT || v->type == JSON_REAL))
        json_set(to, key, json_copy(a, v));
}

static NODISCARD int column_add(struct maker *mk, const struct feature *f, uint32_t tensor,
                                uint32_t element, struct err *e)
{
    const struct tensor_spec *spec = &mk->inputs[tensor];
    const struct json *categories = json_get(f->section, S("categories"));
    str type = json_str_or(json_get(f->section, S("type")), type_of(spec->datatype));
    bool text = str_eq(type, S("string")),
         coded = json_is_container(categories) && categories->count;
    struct json *c;

    if (text != (spec->datatype == TENSOR_BYTES) && !(text && coded))
        return FAIL(
            e, FAILED_PRECONDITION,
            "feature '" STR_F "' is of type " STR_F ", the model's input '" STR_F "' is %s%s",
            STR_A(f->name), STR_A(type), STR_A(spec->name), tensor_type_name(spec->datatype),
            text ? ": give the feature its categories, in the order of their codes" : "");
    c = json_push(mk->columns, json_new_object(mk->a));
    json_set_str(mk->a, c, S("name"), f->name);
    json_set_str(mk->a, c, S("type"), type);
    json_set_int(mk->a, c, S("input"), tensor);
    json_set_int(mk->a, c, S("element"), element);
    json_set_bool(mk->a, c, S("required"), json_bool_or(json_get(f->section, S("required")), true));
    copy_limit(c, f->section, S("min"), mk->a);
    copy_limit(c, f->section, S("max"), mk->a);
    if (text && coded)
        json_set(c, S("categories"), json_copy(mk->a, categories));
    return 0;
}

static const struct feature *feature_find(const struct maker *mk, str name)
{
    for (size_t i = 0; i < mk->feature_count; i++)
        if (str_eq(mk->features[i].name, name))
            return &mk->features[i];
    return NULL;
}

static NODISCARD int map_given(struct maker *mk, const struct json *input, struct err *e)
{
    for (uint32_t t = 0; t < mk->input_count; t++) {
        const struct json *names = json_get(input, mk->inputs[t].name);
        uint32_t element = 0;

        if (!json_is_container(names) ||
            (int64_t)names->count != tensor_row_elements(&mk->inputs[t]))
            return FAIL(e, FAILED_PRECONDITION,
                        "models." STR_F ".input gives %zu features to the model's input '" STR_F
                        "', which takes %lld",
                        STR_A(mk->req->model), json_is_container(names) ? names->count : 0,
                        STR_A(mk->inputs[t].name), (long long)tensor_row_elements(&mk->inputs[t]));
        JSON_EACH (name, names) {
            const struct feature *f = feature_find(mk, json_str_or(name, S("")));

            if (!f)
                return FAIL(e, FAILED_PRECONDITION,
                            "models." STR_F ".input names '" STR_F "', which is no feature",
                            STR_A(mk->req->model), STR_A(json_str_or(name, S(""))));
            TRY(column_add(mk, f, t, element++, e));
        }
    }
    return 0;
}

static NODISCARD int fail_count(const struct maker *mk, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};

    ASSERT(!mk->feature_count || mk->features);
    buf_init(&text, 4096);
    for (uint32_t t = 0; t < MIN(mk->input_count, 8u); t++) {
        char shape[TENSOR_SHAPE_TEXT_MAX];

        buf_printf(&text, "%s'" STR_F "' %s", t ? ", " : "",
                   STR_A(str_take(mk->inputs[t].name, 40)),
                   tensor_shape_text(mk->inputs[t].shape, mk->inputs[t].rank, shape));
    }
    return FAIL(e, FAILED_PRECONDITION,
                "%zu features (" STR_F " … " STR_F ") do not fill the model's inputs " STR_F
                ": list the features in the order that the model was trained with",
                mk->feature_count,
                STR_A(mk->feature_count ? str_take(mk->features[0].name, 40) : S("none")),
                STR_A(mk->feature_count ? str_take(mk->features[mk->feature_count - 1].name, 40)
                                        : S("none")),
                STR_A(buf_str(&text)));
}

static NODISCARD int map_all(struct maker *mk, bool in_order, struct err *e)
{
    uint32_t at = 0;

    if (mk->feature_count != elements(mk))
        return fail_count(mk, e);
    for (uint32_t t = 0; t < mk->input_count; t++)
        for (uint32_t i = 0; i < tensor_row_elements(&mk->inputs[t]); i++, at++) {
            const struct feature *f =
                in_order ? &mk->features[at] : feature_find(mk, mk->inputs[t].name);

            if (!f || (!in_order && i))
                return fail_count(mk, e);
            TRY(column_add(mk, f, t, i, e));
        }
    return 0;
}

static NODISCARD int columns_make(struct maker *mk, struct err *e)
{
    const struct json *input = json_get(mk->model, S("input"));
    bool made;

    mk->columns = json_new_array(mk->a);
    if (!elements(mk)) /* images, sequences: rows by name do not apply */
        return 0;
    TRY(features_find(mk, &made, e));
    if (json_is_container(input) && input->count)
        return map_given(mk, input, e);
    return map_all(mk, made || mk->input_count == 1, e);
}

/* --- Reading ---------------------------------------------------------------------------------- */

static bool is_float(enum tensor_type type)
{
    return tensor_type_kind(type) == TENSOR_KIND_FLOAT;
}

static int output_find(const struct maker *mk, bool floats, bool many)
{
    for (uint32_t t = 0; t < mk->output_count; t++) {
        int64_t n = tensor_row_elements(&mk->outputs[t]);

        if (is_float(mk->outputs[t].datatype) == floats &&
            (many ? n > 1 && n <= WIDTH_MAX : n == 1))
            return (int)t;
    }
    return -1;
}

static int label_order(const void *x, const void *y)
{
    const str *a = x, *b = y;
    double u, v;

    if (str_to_f64(*a, &u) && str_to_f64(*b, &v))
        return u < v ? -1 : u > v;
    return str_cmp(*a, *b);
}

static struct json *texts_json(const str *texts, size_t n, struct arena *a)
{
    struct json *list = json_new_array(a);

    for (size_t i = 0; i < n; i++)
        json_push(list, json_new_str(a, texts[i]));
    return list;
}

/* The distinct labels of the reference, numbers in their order. NULL when there are too many. */
static NODISCARD int classes_of_data(struct maker *mk, struct json **ret, struct err *e)
{
    AUTO(table_done) struct table t = {0};
    const struct table_query q = {.path = mk->ref.path,
                                  .format = mk->ref.format,
                                  .columns = &mk->ref.label,
                                  .column_count = 1};
    str found[CLASSES_MAX];
    size_t n = 0;

    *ret = NULL;
    TRY(table_read(&q, &t, e));
    for (size_t row = 0; row < t.row_count; row++) {
        AUTO(arena_done) struct arena a = {0};
        str text;
        size_t i = 0;

        arena_init(&a, 0);
        text = table_text(&t.columns[0], row, &a);
        while (text.p && i < n && !str_eq(found[i], text))
            i++;
        if (!text.p || i < n)
            continue;
        if (n == CLASSES_MAX)
            return 0;
        found[n++] = arena_dup(mk->a, text);
    }
    qsort(found, n, sizeof(found[0]), label_order);
    *ret = texts_json(found, n, mk->a);
    return 0;
}

static NODISCARD int classes_make(struct maker *mk, int64_t width, struct json **ret, struct err *e)
{
    const struct json *given = json_get(mk->model, S("classes"));
    struct json *list = NULL;

    if (json_is_container(given) && given->count)
        list = json_copy(mk->a, given);
    else if (mk->model && mk->ref.path && mk->ref.label.n)
        TRY(classes_of_data(mk, &list, e));
    if (width > 1 && list && json_is_container(given) && given->count &&
        (int64_t)list->count != width)
        return FAIL(e, FAILED_PRECONDITION,
                    "models." STR_F " has %zu classes, the model gives %lld probabilities",
                    STR_A(mk->req->model), list->count, (long long)width);
    if (width > 1 && (!list || (int64_t)list->count != width)) {
        list = json_new_array(mk->a);
        for (int64_t k = 0; k < width; k++)
            json_push(list, json_new_str(mk->a, arena_printf(mk->a, "%lld", (long long)k)));
    }
    *ret = list ? list : json_new_array(mk->a);
    return 0;
}

static int64_t class_index(const struct json *classes, str name)
{
    int64_t i = 0;

    JSON_EACH (c, classes) {
        if (str_eq(json_str_or(c, STR_NULL), name))
            return i;
        i++;
    }
    return -1;
}

static NODISCARD int reading_make(struct maker *mk, struct json **ret, struct err *e)
{
    str task = json_str_or(json_get(mk->model, S("task")), S(""));
    int label = -1, probabilities = -1, value = -1;
    struct json *to = json_new_object(mk->a), *classes = json_new_array(mk->a);
    str positive = json_str_or(json_get(mk->model, S("positive")), STR_NULL);
    int64_t at;

    if (!str_eq(task, S("regression"))) {
        label = output_find(mk, false, false);
        probabilities = output_find(mk, true, true);
    }
    if (label < 0 && probabilities < 0)
        value = output_find(mk, true, false);
    if (str_eq(task, S("regression")) && value < 0)
        return FAIL(e, FAILED_PRECONDITION,
                    "models." STR_F " is a regression, the file has no output of one real number",
                    STR_A(mk->req->model));
    if (label >= 0 || probabilities >= 0)
        TRY(classes_make(mk,
                         probabilities < 0 ? 0 : tensor_row_elements(&mk->outputs[probabilities]),
                         &classes, e));
    at = positive.p ? class_index(classes, positive) : classes->count == 2 ? 1 : -1;
    if (positive.p && at < 0 && classes->count)
        return FAIL(e, FAILED_PRECONDITION,
                    "models." STR_F ".positive is '" STR_F "', which is none of the classes",
                    STR_A(mk->req->model), STR_A(positive));
    json_set_int(mk->a, to, S("label"), label);
    json_set_int(mk->a, to, S("probabilities"), probabilities);
    json_set_int(mk->a, to, S("value"), value);
    json_set(to, S("classes"), classes);
    json_set_int(mk->a, to, S("positive"), at);
    if (at >= 0)
        json_set_real(mk->a, to, S("threshold"),
                      json_real_or(json_get(mk->model, S("threshold")), 0.5));
    *ret = to;
    return 0;
}

/* --- Together --------------------------------------------------------------------------------- */

/* Both readers that the gateway will use. */
static NODISCARD int check(const struct json *signature, struct arena *a, struct err *e)
{
    struct plan_signature sig;
    struct field_table fields;

    TRY(plan_signature_read(signature, a, &sig, e));
    if (!sig.column_count)
        return 0;
    return field_table_init(&fields, sig.columns, sig.column_count, a, e);
}

int signature_make(const struct registry_env *env, const struct registry_request *req,
                   const struct json *candidate, struct arena *a, struct json **ret_signature,
                   struct err *e)
{
    struct maker *mk = ARENA_NEW(a, struct maker);
    struct json *to = json_new_object(a), *reading;

    mk->env = env;
    mk->req = req;
    mk->candidate = candidate;
    mk->a = a;
    mk->model = register_section(req);
    mk->ref = register_reference(env, req, a);
    TRY(specs_read(json_get(candidate, S("inputs")), mk->inputs, TENSOR_INPUTS_MAX,
                   &mk->input_count, e));
    TRY(specs_read(json_get(candidate, S("outputs")), mk->outputs, TENSOR_OUTPUTS_MAX,
                   &mk->output_count, e));
    TRY(columns_make(mk, e));
    TRY(reading_make(mk, &reading, e));
    json_set(to, S("inputs"), json_copy(a, json_get(candidate, S("inputs"))));
    json_set(to, S("outputs"), json_copy(a, json_get(candidate, S("outputs"))));
    json_set(to, S("columns"), mk->columns);
    json_set(to, S("reading"), reading);
    TRY(check(to, a, e));
    *ret_signature = to;
    return 0;
}
