/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the tree of the file to the normalised tree: one walk, driven by the table of fields.
 *
 * The walk goes down the table, not down the file, so every field is visited whether it was written
 * or not, in an order that lets a field depend on earlier ones (`when`); what the file holds beyond
 * the table is an unknown key. A section in which anything was wrong is left out of the result
 * (NULL), and the rules, which speak of several fields at once, run only on sections that came
 * through whole: one mistake is told once. A name is looked up in the file, not in the result, for
 * the same reason.
 */
#include "project/priv.h"

#include "project/cron.h"

#include <stdlib.h>

static bool is_empty(const struct json *src)
{
    return !src || src->type == JSON_NULL;
}

static bool is_map(enum kind kind)
{
    return kind == KIND_SUBS || kind == KIND_TEXT_MAP || kind == KIND_WEIGHTS ||
           kind == KIND_NUMBERS || kind == KIND_TEXT_LISTS || kind == KIND_VALUES;
}

static bool fail_value(struct walk *w, const struct field *f, enum kind kind, const struct path *p,
                       str hint)
{
    struct cron cron;
    struct err why = {0};
    str what;

    if (problem_is_full(w))
        return false;
    what = arena_printf(w->a, STR_F " is " STR_F, STR_A(path_text(p, w->a)),
                        STR_A(value_shown(p->at, w->a)));
    if (kind == KIND_CRON && p->at->type == JSON_STR && cron_parse(p->at->string, &cron, &why))
        what = arena_printf(w->a, STR_F ": %s", STR_A(what), why.msg);
    problem_add(w, p, p->at->type == JSON_NULL, what, value_expected(f, kind, w->a), hint);
    return false;
}

static bool fail_many(struct walk *w, const struct path *p, size_t max)
{
    problem_add(
        w, p, true,
        arena_printf(w->a, STR_F " has %zu entries", STR_A(path_text(p, w->a)), p->at->count),
        arena_printf(w->a, "at most %zu", max), STR_NULL);
    return false;
}

/* --- Names --------------------------------------------------------------------------- */

#define NAMES_FEW 16 /* members that json_get finds as fast */

static int by_key(const void *a, const void *b)
{
    return str_cmp((*(const struct json *const *)a)->key, (*(const struct json *const *)b)->key);
}

static const struct names *names_of(struct walk *w, const struct json *object)
{
    struct names *names = NULL;
    size_t n = 0;

    for (size_t i = 0; i < w->names_n && !names; i++)
        if (w->names[i].object == object)
            names = &w->names[i];
    if (names && names->n == object->count)
        return names;
    if (!names) {
        ASSERT(w->names_n < NAMES_MAX);
        names = &w->names[w->names_n++];
    }
    names->object = object;
    names->n = object->count;
    names->sorted = ARENA_ARRAY(w->a, const struct json *, object->count);
    JSON_EACH (member, object)
        names->sorted[n++] = member;
    qsort(names->sorted, n, sizeof(struct json *), by_key);
    return names;
}

const struct json *names_get(struct walk *w, const struct json *object, str key)
{
    const struct json wanted = {.key = key}, *p = &wanted, **found;
    const struct names *names;

    if (!object || object->type != JSON_OBJECT || object->count <= NAMES_FEW)
        return json_get(object, key);
    names = names_of(w, object);
    found = bsearch(&p, names->sorted, names->n, sizeof(struct json *), by_key);
    return found ? *found : NULL;
}

static bool fail_reference(struct walk *w, const struct field *f, const struct json *entries,
                           const struct path *p, str name)
{
    bool presets = !strcmp(f->of, "rollouts");
    bool is_object = entries && entries->type == JSON_OBJECT;
    size_t n = 0, max = project_preset_count + (is_object ? entries->count : 0);
    str *names, near;

    if (problem_is_full(w))
        return false;
    names = ARENA_ARRAY(w->a, str, max);
    if (is_object)
        JSON_EACH (entry, entries)
            names[n++] = entry->key;
    for (size_t i = 0; presets && i < project_preset_count; i++)
        names[n++] = str_of(project_presets[i].name);
    near = str_suggest(name, names, n);
    problem_add(w, p, false,
                arena_printf(w->a, STR_F " names '" STR_F "', which is not under %s",
                             STR_A(path_text(p, w->a)), STR_A(name), f->of),
                near.n ? STR_NULL
                       : arena_printf(w->a, "the name of an entry of %s%s", f->of,
                                      presets ? ", or a preset" : ""),
                near);
    return false;
}

static bool check_reference(struct walk *w, const struct field *f, const struct path *p, str name)
{
    const struct json *entries = json_get(w->source, str_of(f->of));

    if (names_get(w, entries, name))
        return true;
    if (!strcmp(f->of, "rollouts") && project_preset_find(name))
        return true;
    return fail_reference(w, f, entries, p, name);
}

/* --- Lists and mappings ------------------------------------------------------------------- */

static bool read_list(struct walk *w, const struct field *f, enum kind element,
                      const struct path *p, struct json *list)
{
    bool ok = true;
    size_t i = 0;

    list->type = JSON_ARRAY;
    if (p->at->type != JSON_ARRAY)
        return fail_value(w, f, f->kind, p, STR_NULL);
    if (p->at->count > PROJECT_LIST_MAX)
        return fail_many(w, p, PROJECT_LIST_MAX);
    if (!f->def && p->at->count == 0) {
        problem_add(w, p, false,
                    arena_printf(w->a, STR_F " is an empty list", STR_A(path_text(p, w->a))),
                    S("at least one entry"), STR_NULL);
        return false;
    }
    JSON_EACH (item, p->at) {
        struct path at = {p, STR_NULL, i++, item};
        struct json *value = json_new_null(w->a);
        str hint = STR_NULL;

        if (element == KIND_COUNT) {
            value = section_read(w, f->sub, item, &at);
            ok &= value != NULL;
        } else if (!value_read(f, element, w->normal, item, value, w->a, &hint)) {
            ok = fail_value(w, f, element, &at, hint);
        }
        if (value)
            json_push(list, value);
    }
    return ok;
}

static bool is_plain(const struct json *v)
{
    return v->type != JSON_NULL && !json_is_container(v);
}

/* Any value, or a list of values: what they must be, only a model can tell. */
static bool read_values(struct walk *w, const struct path *at, struct json *value)
{
    const struct json *list = at->at->type == JSON_ARRAY ? at->at : NULL;
    bool ok = is_plain(at->at) || (list && list->count);

    JSON_EACH (item, list)
        ok &= is_plain(item);
    if (ok && list && list->count > PROJECT_LIST_MAX)
        return fail_many(w, at, PROJECT_LIST_MAX);
    if (ok)
        *value = *json_copy(w->a, at->at);
    else
        problem_add(w, at, false,
                    arena_printf(w->a, STR_F " is " STR_F, STR_A(path_text(at, w->a)),
                                 STR_A(value_shown(at->at, w->a))),
                    S("a number, true, false or a text, or a list of them"), STR_NULL);
    return ok;
}

/* The kind of the values of a mapping that is not described by a section. */
static bool read_entry(struct walk *w, const struct field *f, const struct path *at,
                       struct json *value)
{
    static const struct field share = {.key = "", .lo = "0%", .hi = "100%"};
    static const struct field text = {.key = "", .lo = "1", .hi = "256"};
    static const struct field number = {.key = ""};
    static const struct field texts = {.key = "", .kind = KIND_TEXTS, .lo = "1"};
    enum kind kind = f->kind == KIND_WEIGHTS   ? KIND_FRACTION
                     : f->kind == KIND_NUMBERS ? KIND_REAL
                                               : KIND_TEXT;
    const struct field *entry = f->kind == KIND_WEIGHTS   ? &share
                                : f->kind == KIND_NUMBERS ? &number
                                                          : &text;
    str hint = STR_NULL;

    if (f->kind == KIND_TEXT_LISTS)
        return read_list(w, &texts, KIND_TEXT, at, value);
    if (f->kind == KIND_VALUES)
        return read_values(w, at, value);
    return value_read(entry, kind, w->normal, at->at, value, w->a, &hint) ||
           fail_value(w, entry, kind, at, hint);
}

static bool fail_name(struct walk *w, const struct field *f, const struct path *at)
{
    const str *allowed;
    size_t n;

    if (f->of) {
        allowed = choices_of(f->of, w->a, &n);
        for (size_t i = 0; i < n; i++)
            if (str_eq(at->key, allowed[i]))
                return false;
        problem_add(w, at, true,
                    arena_printf(w->a, STR_F ": unknown key '" STR_F "'",
                                 STR_A(path_text(at->up, w->a)), STR_A(str_take(at->key, 64))),
                    value_expected(f, KIND_CHOICE, w->a), str_suggest(at->key, allowed, n));
        return true;
    }
    /* Features and tensors have the names of their files; ours go into paths and metrics. */
    if (f->kind == KIND_TEXT_LISTS || f->kind == KIND_TEXT_MAP || f->kind == KIND_NUMBERS ||
        f->kind == KIND_VALUES || f->sub == SECTION_monitor_feature || str_is_name(at->key))
        return false;
    problem_add(w, at, true,
                arena_printf(w->a, STR_F " has the entry '" STR_F "'",
                             STR_A(path_text(at->up, w->a)), STR_A(str_take(at->key, 64))),
                S("a name of letters, digits, '.', '_' and '-', at most 128"), STR_NULL);
    return true;
}

static bool read_map(struct walk *w, const struct field *f, const struct path *p, struct json *map)
{
    bool ok = true;

    map->type = JSON_OBJECT;
    if (is_empty(p->at))
        return true;
    if (p->at->type != JSON_OBJECT)
        return fail_value(w, f, f->kind, p, STR_NULL);
    if (p->at->count > PROJECT_ITEMS_MAX)
        return fail_many(w, p, PROJECT_ITEMS_MAX);
    JSON_EACH (item, p->at) {
        struct path at = {p, item->key, 0, item};
        struct json *value;

        if (fail_name(w, f, &at)) {
            ok = false;
            continue;
        }
        if (f->kind == KIND_SUBS) {
            value = section_read(w, f->sub, item, &at);
            ok &= value != NULL;
        } else {
            value = json_new_null(w->a);
            ok &= read_entry(w, f, &at, value);
        }
        if (value) {
            value->key = item->key; /* unique in the file already */
            value->key_line = item->key_line;
            value->key_col = item->key_col;
            json_push(map, value);
        }
    }
    return ok;
}

/* --- Fields ------------------------------------------------------------------------------- */

/* What a text alone stands for, where the field has such a short form. */
static const struct json *in_full(struct walk *w, const struct field *f, const struct json *src)
{
    struct json *full;

    if (!f->alone || w->normal || !src || src->type != JSON_STR)
        return src;
    full = json_new_object(w->a);
    json_set_str(w->a, full, str_of(f->alone), src->string);
    full->line = full->first->line = src->line;
    full->col = full->first->col = src->col;
    return full;
}

static bool read_sub(struct walk *w, const struct field *f, const struct path *p,
                     struct json *ret_value)
{
    struct path at = *p;
    struct json *value;

    at.at = in_full(w, f, p->at);
    value = section_read(w, f->sub, at.at, &at);

    if (value)
        *ret_value = *value;
    return value;
}

static bool read_scalar(struct walk *w, const struct field *f, const struct path *p,
                        struct json *ret_value)
{
    str hint = STR_NULL;

    if (!value_read(f, f->kind, w->normal, p->at, ret_value, w->a, &hint))
        return fail_value(w, f, f->kind, p, hint);
    return f->kind != KIND_REF || check_reference(w, f, p, ret_value->string);
}

/* Whether the file says the word that stands for no value. */
static bool is_word(const struct walk *w, const struct field *f, const struct json *src)
{
    if (!f->word || !src)
        return false;
    return w->normal ? src->type == JSON_NULL : str_eqz(json_str_or(src, STR_NULL), f->word);
}

/* Reads p->at, which is there, as the kind of the field demands. */
static bool read_value(struct walk *w, const struct field *f, const struct path *p,
                       struct json *ret_value)
{
    if (f->kind == KIND_SUB)
        return read_sub(w, f, p, ret_value);
    if (is_map(f->kind))
        return read_map(w, f, p, ret_value);
    if (project_kinds[f->kind].is_scalar)
        return read_scalar(w, f, p, ret_value);
    return read_list(w, f, project_kinds[f->kind].element, p, ret_value);
}

/* ret_value is null to begin with, and stays so where the word for no value stands. */
static bool read_field(struct walk *w, const struct field *f, const struct path *p,
                       struct json *ret_value)
{
    struct path at = *p;
    bool normal = w->normal, ok;

    if (is_word(w, f, p->at) || (!p->at && f->kind == KIND_SUB && f->word))
        return true;
    if (p->at || f->kind == KIND_SUB) {
        if (is_empty(p->at) && f->kind != KIND_SUB && !is_map(f->kind))
            return fail_value(w, f, f->kind, p, STR_NULL);
        return read_value(w, f, p, ret_value);
    }
    w->normal = false; /* defaults are written as in the file */
    at.at = value_default(f, w->a);
    ok = is_word(w, f, at.at) || read_value(w, f, &at, ret_value);
    w->normal = normal;
    return ok;
}

static bool fail_missing(struct walk *w, const struct field *f, const struct path *p)
{
    str where = path_text(p, w->a);

    problem_add(
        w, p, true,
        arena_printf(w->a, STR_F " has no '%s'", STR_A(where.n ? where : S("the project")), f->key),
        value_expected(f, f->kind, w->a), STR_NULL);
    return false;
}

static bool fail_unwanted(struct walk *w, const struct field *f, const struct section *s,
                          const struct json *norm, const struct path *p)
{
    str rest = str_of(f->when), key = str_cut(&rest, '=');
    const struct field *on = section_field(s, key, false);

    if (!json_get(norm, str_of(on->out)))
        return false; /* that one was wrong, and has been told */
    problem_add(w, p, true,
                arena_printf(w->a, STR_F " has no meaning with " STR_F ": " STR_F,
                             STR_A(path_text(p, w->a)), STR_A(key),
                             STR_A(json_str_or(json_get(norm, str_of(on->out)), STR_NULL))),
                arena_printf(w->a, STR_F ": " STR_F, STR_A(key), STR_A(rest)), STR_NULL);
    return false;
}

static bool fail_unknown(struct walk *w, const struct section *s, const struct path *p)
{
    str where, near, list = STR_NULL;
    const str *keys;
    size_t n;

    if (problem_is_full(w))
        return false;
    keys = section_keys(s, w->normal, w->a, &n);
    where = path_text(p->up, w->a);
    near = str_suggest(p->key, keys, n);
    for (size_t i = 0; !near.n && i < n; i++)
        list =
            arena_printf(w->a, STR_F "%s" STR_F, STR_A(list), i ? ", " : "one of ", STR_A(keys[i]));
    problem_add(w, p, true,
                arena_printf(w->a, STR_F "%sunknown key '" STR_F "'", STR_A(where),
                             where.n ? ": " : "", STR_A(str_take(p->key, 64))),
                list, near);
    return false;
}

static bool check_keys(struct walk *w, const struct section *s, const struct json *src,
                       const struct path *p)
{
    bool ok = true;

    JSON_EACH (m, src) {
        struct path at = {p, m->key, 0, m};

        if (!section_field(s, m->key, w->normal) &&
            !(s == &project_sections[SECTION_root] && w->normal && str_eq(m->key, S("form"))))
            ok = fail_unknown(w, s, &at);
    }
    return ok;
}

/* Reads one field of a section and puts it into norm. */
static bool section_field_read(struct walk *w, const struct section *s, const struct field *f,
                               const struct json *src, const struct path *p, struct json *norm)
{
    str key = str_of(w->normal ? f->out : f->key);
    struct json *given = json_get(src, key), *value;
    struct path at = {p, key, 0, given};
    bool ok;

    if (!field_exists(f, s, norm))
        return !given || fail_unwanted(w, f, s, norm, &at);
    if (!given && !f->def && f->kind != KIND_SUB)
        return fail_missing(w, f, p);
    value = json_new_null(w->a);
    ok = read_field(w, f, &at, value);
    if (!ok && norm != w->norm)
        return false;
    json_set(norm, str_of(f->out), value);
    value->line = given ? given->line : 0;
    value->col = given ? given->col : 0;
    return ok;
}

struct json *section_read(struct walk *w, enum section_id id, const struct json *src,
                          const struct path *p)
{
    static const struct field mapping = {.kind = KIND_SUB};
    const struct section *s = &project_sections[id];
    struct json *norm = json_new_object(w->a);
    size_t before = w->result->problem_count;
    bool ok = true;

    if (!is_empty(src) && src->type != JSON_OBJECT)
        return fail_value(w, &mapping, KIND_SUB, p, STR_NULL), NULL;
    if (id == SECTION_root)
        w->norm = norm;
    norm->line = src ? src->line : 0;
    norm->col = src ? src->col : 0;
    if (!is_empty(src))
        ok = check_keys(w, s, src, p);
    if (id == SECTION_rollout && !w->normal)
        src = rollout_prepare(w, src);
    for (size_t i = 0; i < s->field_count; i++)
        ok &= section_field_read(w, s, &s->fields[i], src, p, norm);
    if (ok && rule_of(id))
        rule_of(id)(w, p, norm);
    return w->result->problem_count == before ? norm : NULL;
}
