/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JSON Schema (draft 2020-12) of weir.yaml, from the table of fields: editors complete and check
 * with it while a person types. It knows keys, kinds, choices, defaults and help; what crosses
 * fields or items stays with project_parse().
 */
#include "project/priv.h"

static void type_is(struct json_out *o, const char *type)
{
    jo_kstr(o, S("type"), str_of(type));
}

static void pattern_is(struct json_out *o, const char *pattern)
{
    type_is(o, "string");
    jo_kstr(o, S("pattern"), str_of(pattern));
}

static void types_are(struct json_out *o, const char *list, struct arena *a)
{
    size_t n;
    const str *types = choices_of(list, a, &n);

    jo_key(o, S("type"));
    jo_array(o);
    for (size_t i = 0; i < n; i++)
        jo_str(o, types[i]);
    jo_array_end(o);
}

static void choices_are(struct json_out *o, const char *list, struct arena *a)
{
    size_t n;
    const str *choices = choices_of(list, a, &n);

    jo_key(o, S("enum"));
    jo_array(o);
    for (size_t i = 0; i < n; i++)
        jo_str(o, choices[i]);
    jo_array_end(o);
}

static void reference_is(struct json_out *o, enum section_id id, struct arena *a)
{
    jo_kstr(o, S("$ref"), arena_printf(a, "#/$defs/%s", project_sections[id].id));
}

static void schema_scalar(struct json_out *o, const struct field *f, enum kind kind,
                          struct arena *a)
{
    switch (kind) {
    case KIND_BOOL:
        type_is(o, "boolean");
        break;
    case KIND_INT:
    case KIND_REAL:
        type_is(o, kind == KIND_INT ? "integer" : "number");
        break;
    case KIND_FRACTION:
        types_are(o, "string|number", a);
        jo_kstr(o, S("pattern"), S("^[0-9.]+ *%$"));
        break;
    case KIND_DURATION:
        pattern_is(o, "^([0-9.]+(ns|us|ms|s|sec|m|min|h|d|w))+$");
        break;
    case KIND_BYTES:
        types_are(o, "string|integer", a);
        jo_kstr(o, S("pattern"), S("^[0-9.]+ *([kKMGT]?B|[KMGT]iB)$"));
        break;
    case KIND_NAME:
    case KIND_REF:
        pattern_is(o, "^[A-Za-z0-9][A-Za-z0-9._-]*$");
        break;
    case KIND_LABEL:
        types_are(o, "string|integer|boolean", a);
        break;
    case KIND_CHOICE:
        choices_are(o, f->of, a);
        break;
    default:
        type_is(o, "string");
    }
}

/* An object whose members all have one schema, which the caller writes next. */
static void members_begin(struct json_out *o, struct arena *a)
{
    types_are(o, "object|null", a);
    jo_key(o, S("additionalProperties"));
    jo_object(o);
}

static void list_begin(struct json_out *o)
{
    type_is(o, "array");
    jo_key(o, S("items"));
    jo_object(o);
}

static void schema_value(struct json_out *o, const struct field *f, enum kind kind, struct arena *a)
{
    switch (kind) {
    case KIND_SUB:
        reference_is(o, f->sub, a);
        return;
    case KIND_SUBS:
        members_begin(o, a);
        reference_is(o, f->sub, a);
        break;
    case KIND_ITEMS:
        list_begin(o);
        reference_is(o, f->sub, a);
        break;
    case KIND_TEXT_MAP:
    case KIND_WEIGHTS:
    case KIND_NUMBERS:
        members_begin(o, a);
        schema_scalar(o, f,
                      kind == KIND_WEIGHTS   ? KIND_FRACTION
                      : kind == KIND_NUMBERS ? KIND_REAL
                                             : KIND_TEXT,
                      a);
        break;
    case KIND_VALUES:
        members_begin(o, a);
        types_are(o, "number|boolean|string|array", a);
        break;
    case KIND_TEXT_LISTS:
        members_begin(o, a);
        list_begin(o);
        type_is(o, "string");
        jo_object_end(o);
        break;
    default:
        if (project_kinds[kind].is_scalar) {
            schema_scalar(o, f, kind, a);
            return;
        }
        list_begin(o);
        schema_scalar(o, f, project_kinds[kind].element, a);
    }
    jo_object_end(o);
}

static void schema_field(struct json_out *o, const struct field *f, struct arena *a)
{
    jo_key(o, str_of(f->key));
    jo_object(o);
    jo_kstr(o, S("description"),
            f->def && f->def[0] ? arena_printf(a, "%s (default %s)", f->help, f->def)
                                : str_of(f->help));
    if (f->word || f->alone) {
        jo_key(o, S("anyOf"));
        jo_array(o);
        jo_object(o);
        if (f->word)
            jo_kstr(o, S("const"), str_of(f->word));
        else
            choices_are(o, section_field(&project_sections[f->sub], str_of(f->alone), false)->of,
                        a);
        jo_object_end(o);
        jo_object(o);
    }
    schema_value(o, f, f->kind, a);
    if (f->word || f->alone) {
        jo_object_end(o);
        jo_array_end(o);
    }
    jo_object_end(o);
}

static void schema_section(struct json_out *o, const struct section *s, struct arena *a)
{
    bool root = s == &project_sections[SECTION_root];

    types_are(o, root ? "object" : "object|null", a);
    jo_kstr(o, S("description"), str_of(s->help));
    jo_kbool(o, S("additionalProperties"), false);
    jo_key(o, S("required"));
    jo_array(o);
    for (size_t i = 0; i < s->field_count; i++)
        if (!s->fields[i].def && !s->fields[i].when && s->fields[i].kind != KIND_SUB)
            jo_str(o, str_of(s->fields[i].key));
    jo_array_end(o);
    jo_key(o, S("properties"));
    jo_object(o);
    for (size_t i = 0; i < s->field_count; i++)
        schema_field(o, &s->fields[i], a);
    jo_object_end(o);
}

void project_schema_write(struct buf *out)
{
    AUTO(arena_done) struct arena a = {0};
    struct json_out o;

    arena_init(&a, 0);
    jo_begin(&o, out);
    jo_object(&o);
    jo_kstr(&o, S("$schema"), S("https://json-schema.org/draft/2020-12/schema"));
    jo_kstr(&o, S("title"), S(PROJECT_FILE));
    schema_section(&o, &project_sections[SECTION_root], &a);
    jo_key(&o, S("$defs"));
    jo_object(&o);
    for (size_t i = SECTION_none + 1; i < SECTION_COUNT; i++) {
        if (i == SECTION_root)
            continue;
        jo_key(&o, str_of(project_sections[i].id));
        jo_object(&o);
        schema_section(&o, &project_sections[i], &a);
        jo_object_end(&o);
    }
    jo_object_end(&o);
    jo_object_end(&o);
}
