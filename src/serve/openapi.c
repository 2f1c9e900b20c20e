/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an endpoint takes and gives, for programs: the JSON Schema of a row, and an OpenAPI document
 * of its two forms. Both are written from the signature in force, so that they cannot be out of
 * date.
 */
#include "serve/priv.h"

#define OPENAPI_VERSION "3.1.0"

/* --- The row ---------------------------------------------------------------------------------- */

static void write_column(struct json_out *o, const struct field_column *c)
{
    static const char *const types[] = {"number", "number", "integer", "boolean", "string"};

    jo_key(o, c->name);
    jo_object(o);
    jo_kstr(o, S("type"), str_of(types[c->type]));
    if (c->has_min)
        jo_kreal(o, S("minimum"), c->min);
    if (c->has_max)
        jo_kreal(o, S("maximum"), c->max);
    if (c->category_count) {
        jo_key(o, S("enum"));
        jo_array(o);
        for (uint32_t i = 0; i < c->category_count; i++)
            jo_str(o, c->categories[i]);
        jo_array_end(o);
    }
    jo_object_end(o);
}

/* The members of the schema of a row, in an open object. */
static void write_row(struct json_out *o, const struct field_table *fields)
{
    jo_kstr(o, S("type"), S("object"));
    jo_key(o, S("properties"));
    jo_object(o);
    for (uint32_t i = 0; i < fields->column_count; i++)
        write_column(o, &fields->columns[i]);
    jo_object_end(o);
    jo_key(o, S("required"));
    jo_array(o);
    for (uint32_t i = 0; i < fields->column_count; i++)
        if (fields->columns[i].required)
            jo_str(o, fields->columns[i].name);
    jo_array_end(o);
    jo_kbool(o, S("additionalProperties"), false);
}

void schema_get(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct served_endpoint *ep = route_endpoint(c, m);
    struct json_out o;

    (void)body;
    if (!ep)
        return;
    answer_object(c, &o);
    jo_kstr(&o, S("$schema"), S("https://json-schema.org/draft/2020-12/schema"));
    jo_kstr(&o, S("title"), ep->plan.name);
    write_row(&o, &ep->fields);
    answer_object_end(c, &o, 200, "application/schema+json");
}

/* --- OpenAPI ---------------------------------------------------------------------------------- */

static void open_key(struct json_out *o, str key)
{
    jo_key(o, key);
    jo_object(o);
}

static void close_keys(struct json_out *o, int n)
{
    while (n--)
        jo_object_end(o);
}

static void write_ref(struct json_out *o, str key, str ref)
{
    open_key(o, key);
    jo_kstr(o, S("$ref"), ref);
    jo_object_end(o);
}

/* An object schema of the names; those in `refs` point at a schema, the others are open objects. */
static void write_object(struct json_out *o, str name, const str *members, const str *refs,
                         size_t count, size_t required)
{
    open_key(o, name);
    jo_kstr(o, S("type"), S("object"));
    open_key(o, S("properties"));
    for (size_t i = 0; i < count; i++) {
        if (refs[i].n) {
            write_ref(o, members[i], refs[i]);
        } else {
            open_key(o, members[i]);
            jo_object_end(o);
        }
    }
    jo_object_end(o);
    jo_key(o, S("required"));
    jo_array(o);
    for (size_t i = 0; i < required; i++)
        jo_str(o, members[i]);
    jo_array_end(o);
    jo_object_end(o);
}

static void write_tensors(struct json_out *o, str name, const struct tensor_spec *specs, uint32_t n)
{
    open_key(o, name);
    jo_kstr(o, S("type"), S("array"));
    open_key(o, S("items"));
    jo_kstr(o, S("type"), S("object"));
    open_key(o, S("properties"));
    open_key(o, S("name"));
    jo_key(o, S("enum"));
    jo_array(o);
    for (uint32_t i = 0; i < n; i++)
        jo_str(o, specs[i].name);
    jo_array_end(o);
    jo_object_end(o);
    open_key(o, S("datatype"));
    jo_key(o, S("enum"));
    jo_array(o);
    for (uint32_t i = 0; i < n; i++)
        jo_str(o, str_of(tensor_type_name(specs[i].datatype)));
    jo_array_end(o);
    jo_object_end(o);
    close_keys(o, 3);
}

static void write_content(struct json_out *o, str ref)
{
    open_key(o, S("content"));
    open_key(o, S("application/json"));
    write_ref(o, S("schema"), ref);
    close_keys(o, 2);
}

static void write_response(struct json_out *o, str status, str description, str ref)
{
    open_key(o, status);
    jo_kstr(o, S("description"), description);
    write_content(o, ref);
    jo_object_end(o);
}

static void write_path(struct json_out *o, str path, str summary, str request, str answer)
{
    open_key(o, path);
    open_key(o, S("post"));
    jo_kstr(o, S("summary"), summary);
    open_key(o, S("requestBody"));
    jo_kbool(o, S("required"), true);
    write_content(o, request);
    jo_object_end(o);
    open_key(o, S("responses"));
    write_response(o, S("200"), S("the answer"), answer);
    write_response(o, S("default"), S("what is wrong"), S("#/components/schemas/Error"));
    close_keys(o, 3);
}

static void write_paths(struct json_out *o, struct serve_loop *l, const struct served_endpoint *ep)
{
    open_key(o, S("paths"));
    if (ep->fields.column_count)
        write_path(o, arena_printf(&l->turn, "/v1/predict/" STR_F, STR_A(ep->plan.name)),
                   S("score a row by field name"), S("#/components/schemas/Predict"),
                   S("#/components/schemas/Prediction"));
    write_path(o, arena_printf(&l->turn, "/v2/models/" STR_F "/infer", STR_A(ep->plan.name)),
               S("score tensors, Open Inference Protocol"), S("#/components/schemas/InferRequest"),
               S("#/components/schemas/InferResponse"));
    jo_object_end(o);
}

static void write_schemas(struct json_out *o, const struct served_endpoint *ep)
{
    static const str predict[] = {S_INIT("features"), S_INIT("metadata")};
    static const str predict_refs[] = {S_INIT("#/components/schemas/Row"), S_INIT("")};
    static const str answer[] = {
        S_INIT("prediction"), S_INIT("model_version"), S_INIT("timestamp"), S_INIT("metadata"),
        S_INIT("score"),      S_INIT("confidence"),    S_INIT("band"),      S_INIT("rule")};
    static const str infer[] = {S_INIT("inputs"), S_INIT("id"), S_INIT("parameters"),
                                S_INIT("outputs")};
    static const str infer_refs[] = {S_INIT("#/components/schemas/Inputs"), S_INIT(""), S_INIT(""),
                                     S_INIT("")};
    static const str given[] = {S_INIT("model_name"), S_INIT("outputs"), S_INIT("model_version"),
                                S_INIT("id"), S_INIT("parameters")};
    static const str given_refs[] = {S_INIT(""), S_INIT("#/components/schemas/Outputs"), S_INIT(""),
                                     S_INIT(""), S_INIT("")};
    static const str error[] = {S_INIT("error"), S_INIT("code")};
    static const str none[8] = {{0}};

    open_key(o, S("components"));
    open_key(o, S("schemas"));
    open_key(o, S("Row"));
    write_row(o, &ep->fields);
    jo_object_end(o);
    write_object(o, S("Predict"), predict, predict_refs, ARRAY_LEN(predict), 1);
    write_object(o, S("Prediction"), answer, none, ARRAY_LEN(answer), 4);
    write_tensors(o, S("Inputs"), ep->schema.inputs, ep->schema.input_count);
    write_tensors(o, S("Outputs"), ep->schema.outputs, ep->schema.output_count);
    write_object(o, S("InferRequest"), infer, infer_refs, ARRAY_LEN(infer), 1);
    write_object(o, S("InferResponse"), given, given_refs, ARRAY_LEN(given), 2);
    write_object(o, S("Error"), error, none, ARRAY_LEN(error), 1);
    close_keys(o, 2);
}

void openapi_get(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct served_endpoint *ep = route_endpoint(c, m);
    struct json_out o;

    (void)body;
    if (!ep)
        return;
    answer_object(c, &o);
    jo_kstr(&o, S("openapi"), S(OPENAPI_VERSION));
    open_key(&o, S("info"));
    jo_kstr(&o, S("title"), ep->plan.name);
    jo_kstr(&o, S("version"), ep->champion->text);
    jo_object_end(&o);
    write_paths(&o, c->l, ep);
    write_schemas(&o, ep);
    answer_object_end(c, &o, 200, "application/json");
}
