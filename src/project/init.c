/* SPDX-License-Identifier: Apache-2.0 */
/* `weir init`: a first weir.yaml from a template, and the schema that editors check it with. */
#include "project/priv.h"

#include "base/files.h"

#define TEMPLATE(name, help, text) {name, help},
static const struct project_template templates[] = {
#include "project/templates.def"
};
#undef TEMPLATE

/* The text with the project's name in its one %s. A switch, for a format must be a literal. */
static bool add_text(struct buf *out, const char *template_name, str name)
{
#define TEMPLATE(name_, help, text)         \
    if (!strcmp(template_name, name_)) {    \
        buf_printf(out, text, STR_A(name)); \
        return true;                        \
    }
#include "project/templates.def"
#undef TEMPLATE
    return false;
}

const struct project_template *project_templates(size_t *ret_n)
{
    *ret_n = ARRAY_LEN(templates);
    return templates;
}

static NODISCARD int find_template(str name, const char **ret_name, struct err *e)
{
    str names[ARRAY_LEN(templates)], near;

    for (size_t i = 0; i < ARRAY_LEN(templates); i++) {
        names[i] = str_of(templates[i].name);
        if (str_eq(names[i], name)) {
            *ret_name = templates[i].name;
            return 0;
        }
    }
    near = str_suggest(name, names, ARRAY_LEN(templates));
    if (near.n)
        return FAIL(e, NOT_FOUND, "no template '" STR_F "', did you mean '" STR_F "'?",
                    STR_A(str_take(name, 64)), STR_A(near));
    return FAIL(e, NOT_FOUND, "no template '" STR_F "', expected " STR_F " or " STR_F,
                STR_A(str_take(name, 64)), STR_A(names[0]), STR_A(names[1]));
}

int project_init_write(const char *dir, str name, str template_name, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf text = {0}, schema = {0};
    const char *found, *path;

    arena_init(&a, 0);
    buf_init(&text, BUF_MAX_DEFAULT);
    buf_init(&schema, BUF_MAX_DEFAULT);
    if (!str_is_name(name))
        return FAIL(e, INVALID_ARGUMENT,
                    "'" STR_F "' cannot name a project, expected letters, digits, '.', '_', '-'",
                    STR_A(str_take(name, 64)));
    TRY(find_template(template_name, &found, e));
    add_text(&text, found, name);
    project_schema_write(&schema);
    path = path_join(&a, dir, PROJECT_FILE);
    if (file_exists(path))
        return FAIL(e, ALREADY_EXISTS, "%s exists: change it, or begin in another folder", path);
    TRY(file_make_dirs(dir, e));
    TRY(file_replace(path_join(&a, dir, PROJECT_SCHEMA_FILE), buf_str(&schema), e));
    return file_replace(path, buf_str(&text), e);
}
