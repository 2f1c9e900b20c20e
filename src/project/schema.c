/* SPDX-License-Identifier: Apache-2.0 */
/* The .def tables in memory, and looking into them. */
#include "project/priv.h"

#define SCALAR_KIND(name, noun, normal) [KIND_##name] = {noun, normal, KIND_COUNT, true},
#define LIST_KIND(name, noun, normal, element) \
    [KIND_##name] = {noun, normal, KIND_##element, false},
#define TREE_KIND(name, noun, normal) [KIND_##name] = {noun, normal, KIND_COUNT, false},
const struct kind_info project_kinds[KIND_COUNT] = {
#include "project/kinds.def"
};
#undef SCALAR_KIND
#undef LIST_KIND
#undef TREE_KIND

#define EFFECT(name, word, help) [EFFECT_##name] = {word, help},
const struct effect_info project_effects[EFFECT_COUNT] = {
#include "project/effects.def"
};
#undef EFFECT

#define PRESET(name, steps, shadow, help) {name, steps, shadow, help},
const struct preset project_presets[] = {
#include "project/presets.def"
};
#undef PRESET
const size_t project_preset_count = ARRAY_LEN(project_presets);

/* "standard|quick|…|none": none is for steps of one's own. */
#define PRESET(name, steps, shadow, help) name "|"
static const char preset_names[] =
#include "project/presets.def"
    "none";
#undef PRESET
#define PRESET_NAMES preset_names

#define SECTION(id, path, help) static const struct field fields_of_##id[] = {
#define FIELD(key_, out_, kind_, effect_, help_, ...) \
    {.key = key_,                                     \
     .out = out_,                                     \
     .kind = KIND_##kind_,                            \
     .effect = EFFECT_##effect_,                      \
     .help = help_,                                   \
     __VA_ARGS__},
// clang-format off
#define END(id) };
// clang-format on
#include "project/fields.def"
#undef SECTION
#undef FIELD
#undef END

#define SECTION(id, path, help) \
    [SECTION_##id] = {#id, path, help, fields_of_##id, ARRAY_LEN(fields_of_##id)},
#define FIELD(...)
#define END(id)
const struct section project_sections[SECTION_COUNT] = {
#include "project/fields.def"
};
#undef SECTION
#undef FIELD
#undef END

const struct preset *project_preset_find(str name)
{
    for (size_t i = 0; i < project_preset_count; i++)
        if (str_eqz(name, project_presets[i].name))
            return &project_presets[i];
    return NULL;
}

const struct field *section_field(const struct section *s, str key, bool normal)
{
    for (size_t i = 0; i < s->field_count; i++)
        if (str_eqz(key, normal ? s->fields[i].out : s->fields[i].key))
            return &s->fields[i];
    return NULL;
}

const str *section_keys(const struct section *s, bool normal, struct arena *a, size_t *ret_n)
{
    str *keys = ARENA_ARRAY(a, str, s->field_count);

    for (size_t i = 0; keys && i < s->field_count; i++)
        keys[i] = str_of(normal ? s->fields[i].out : s->fields[i].key);
    *ret_n = keys ? s->field_count : 0;
    return keys;
}

const str *choices_of(const char *list, struct arena *a, size_t *ret_n)
{
    str rest = str_of(list);
    size_t n = 1, i = 0;
    str *choices;

    for (const char *c = list; *c; c++)
        n += *c == '|';
    choices = ARENA_ARRAY(a, str, n);
    while (choices && rest.p)
        choices[i++] = str_cut(&rest, '|');
    *ret_n = i;
    return choices;
}

bool field_exists(const struct field *f, const struct section *s, const struct json *norm)
{
    str rest, key, value;

    if (!f->when)
        return true;
    rest = str_of(f->when);
    key = str_cut(&rest, '=');
    value = json_str_or(json_get(norm, str_of(section_field(s, key, false)->out)), STR_NULL);
    while (rest.p)
        if (str_eq(str_cut(&rest, '|'), value))
            return true;
    return false;
}
