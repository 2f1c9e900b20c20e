/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The difference between two normalised projects, field by field along the table, so that each
 * change is told in the words of the file and with what it takes to hold.
 *
 * Named items and list items with a name (`.as`) are matched by that name, not by position: a
 * feature moved to another place is one change of order, not a change of every feature after it. An
 * added item is one change, followed by those of its fields that are not at their default; a
 * removed item is one change.
 */
#include "project/priv.h"

struct diff {
    struct arena *a;
    struct project_change *first, **link;
};

static struct project_change *add(struct diff *d, enum project_change_kind kind, str path,
                                  enum effect effect)
{
    struct project_change *c = ARENA_NEW(d->a, struct project_change);

    c->kind = kind;
    c->path = path;
    c->effect = project_effects[effect].word;
    *d->link = c;
    d->link = &c->next;
    return c;
}

static str join(struct diff *d, str path, str key)
{
    return arena_printf(d->a, STR_F "%s" STR_F, STR_A(path), path.n ? "." : "", STR_A(key));
}

static bool is_present(const struct json *n)
{
    return n && n->type != JSON_NULL;
}

/* The name of an item of a list: text, or the text of a number such as a weight. */
static str item_name(struct diff *d, const struct field *f, const struct json *item)
{
    const struct field *as = section_field(&project_sections[f->sub], str_of(f->as), false);
    const struct json *value = json_get(item, str_of(as->out));

    return value ? value_text(as, as->kind, value, d->a) : STR_NULL;
}

/* The nth item of that name (metrics may stand twice among gates). */
static const struct json *find_item(struct diff *d, const struct field *f, const struct json *list,
                                    str name, size_t nth)
{
    JSON_EACH (item, list)
        if (str_eq(item_name(d, f, item), name) && nth-- == 0)
            return item;
    return NULL;
}

static size_t count_before(struct diff *d, const struct field *f, const struct json *list,
                           const struct json *end, str name)
{
    size_t n = 0;

    for (const struct json *item = list->first; item != end; item = item->next)
        n += str_eq(item_name(d, f, item), name);
    return n;
}

static void diff_section(struct diff *d, enum section_id id, const struct json *before,
                         const struct json *after, str path);

/* Whether a normalised value is what the field has when nobody writes it. */
static bool is_default(struct diff *d, const struct field *f, const struct json *value)
{
    enum kind kind = project_kinds[f->kind].is_scalar ? f->kind : project_kinds[f->kind].element;
    struct json def = {0};
    const struct json *src;
    bool ok;
    str hint;

    if (!f->def)
        return false;
    if (f->word && !strcmp(f->def, f->word))
        return value->type == JSON_NULL;
    if (kind == KIND_COUNT || !json_is_container(value))
        return json_is_container(value)
                   ? value->count == 0
                   : value_read(f, kind, false, value_default(f, d->a), &def, d->a, &hint) &&
                         json_equal(value, &def);
    src = value_default(f, d->a)->first;
    JSON_EACH (item, value) {
        ok = src && value_read(f, kind, false, src, &def, d->a, &hint) && json_equal(item, &def);
        if (!ok)
            return false;
        src = src->next;
    }
    return !src;
}

/* The fields of an item that is new, where they are not the default. */
static void tell_fields(struct diff *d, enum section_id id, const struct json *item, str path,
                        const char *named_by)
{
    const struct section *s = &project_sections[id];

    for (size_t i = 0; i < s->field_count; i++) {
        const struct field *f = &s->fields[i];
        const struct json *value = json_get(item, str_of(f->out));
        str at = join(d, path, str_of(f->key));
        struct project_change *c;

        if (!value || is_default(d, f, value) || (named_by && !strcmp(f->key, named_by)))
            continue;
        if (f->kind == KIND_SUB && is_present(value)) {
            tell_fields(d, f->sub, value, at, NULL);
            continue;
        }
        c = add(d, PROJECT_ADD, at, f->effect);
        c->after = value;
        c->after_text = value_text(f, f->kind, value, d->a);
        c->within = true;
    }
}

static void tell_item(struct diff *d, const struct field *f, const struct json *before,
                      const struct json *after, str path)
{
    struct project_change *c = add(d, after ? PROJECT_ADD : PROJECT_REMOVE, path, f->effect);

    c->is_item = true;
    c->before = before;
    c->after = after;
    if (after)
        tell_fields(d, f->sub, after, path, f->as);
}

static void diff_subs(struct diff *d, const struct field *f, const struct json *before,
                      const struct json *after, str path)
{
    const struct json *b = before ? before->first : NULL;

    JSON_EACH (item, after) {
        /* Both are often in the same order: look at the next one before searching. */
        const struct json *old = b && str_eq(b->key, item->key) ? b : json_get(before, item->key);

        b = old ? old->next : b;
        if (old)
            diff_section(d, f->sub, old, item, join(d, path, item->key));
        else
            tell_item(d, f, NULL, item, join(d, path, item->key));
    }
    b = after ? after->first : NULL;
    JSON_EACH (item, before) {
        const struct json *new = b &&str_eq(b->key, item->key) ? b : json_get(after, item->key);

        b = new ? new->next : b;
        if (!new)
            tell_item(d, f, item, NULL, join(d, path, item->key));
    }
}

static void diff_items(struct diff *d, const struct field *f, const struct json *before,
                       const struct json *after, str path)
{
    bool same_order = before->count == after->count;
    const struct json *b = before->first;
    size_t changes = 0;

    JSON_EACH (item, after) {
        str name = item_name(d, f, item);
        const struct json *old =
            b && str_eq(item_name(d, f, b), name)
                ? b
                : find_item(d, f, before, name, count_before(d, f, after, item, name));

        same_order = same_order && old == b;
        b = old ? old->next : b;
        if (old)
            diff_section(d, f->sub, old, item, join(d, path, name));
        else
            tell_item(d, f, NULL, item, join(d, path, name));
        changes += !old;
    }
    JSON_EACH (item, before) {
        str name = item_name(d, f, item);

        if (find_item(d, f, after, name, count_before(d, f, before, item, name)))
            continue;
        tell_item(d, f, item, NULL, join(d, path, name));
        changes++;
    }
    if (!same_order && !changes) {
        struct project_change *c = add(d, PROJECT_CHANGE, path, f->effect);

        c->before = before;
        c->after = after;
        c->before_text = S("one order");
        c->after_text = S("another");
    }
}

/* Of a list whose items have no names: by their places. */
static void diff_places(struct diff *d, const struct field *f, const struct json *before,
                        const struct json *after, str path)
{
    const struct json *old = before->first, *new = after->first;

    for (size_t i = 0; old || new; i++) {
        str at = join(d, path, arena_printf(d->a, "%zu", i));

        if (old && new)
            diff_section(d, f->sub, old, new, at);
        else
            tell_item(d, f, old, new, at);
        old = old ? old->next : NULL;
        new = new ? new->next : NULL;
    }
}

static void diff_value(struct diff *d, const struct field *f, const struct json *before,
                       const struct json *after, str path)
{
    enum project_change_kind kind = !before  ? PROJECT_ADD
                                    : !after ? PROJECT_REMOVE
                                             : PROJECT_CHANGE;
    struct project_change *c = add(d, kind, path, f->effect);

    c->before = before;
    c->after = after;
    c->before_text = before ? value_text(f, f->kind, before, d->a) : STR_NULL;
    c->after_text = after ? value_text(f, f->kind, after, d->a) : STR_NULL;
}

static void diff_field(struct diff *d, const struct field *f, const struct json *before,
                       const struct json *after, str path)
{
    bool both = is_present(before) && is_present(after);

    if (!before && after && f->kind == KIND_SUB) {
        tell_fields(d, f->sub, after, path, NULL);
        return;
    }
    if ((!before && !after) || (before && after && json_equal(before, after)))
        return;
    if (f->kind == KIND_SUB && both)
        diff_section(d, f->sub, before, after, path);
    else if (f->kind == KIND_SUBS)
        diff_subs(d, f, before, after, path);
    else if (f->kind == KIND_ITEMS && both)
        (f->as ? diff_items : diff_places)(d, f, before, after, path);
    else
        diff_value(d, f, before, after, path);
}

static void diff_section(struct diff *d, enum section_id id, const struct json *before,
                         const struct json *after, str path)
{
    const struct section *s = &project_sections[id];

    for (size_t i = 0; i < s->field_count; i++) {
        const struct field *f = &s->fields[i];
        str out = str_of(f->out);

        diff_field(d, f, json_get(before, out), json_get(after, out),
                   join(d, path, str_of(f->key)));
    }
}

struct project_change *project_diff(const struct json *before, const struct json *after,
                                    struct arena *a)
{
    struct diff d = {.a = a, .link = &d.first};

    diff_section(&d, SECTION_root, before, after, STR_NULL);
    return d.first;
}

/* --- Shown -------------------------------------------------------------------------------- */

void project_diff_text(const struct project_change *first, struct buf *out)
{
    static const char signs[] = {
        [PROJECT_ADD] = '+', [PROJECT_REMOVE] = '-', [PROJECT_CHANGE] = '~'};

    for (const struct project_change *c = first; c; c = c->next) {
        buf_printf(out, "%c %s" STR_F, signs[c->kind], c->within ? "  " : "", STR_A(c->path));
        if (c->kind == PROJECT_CHANGE)
            buf_printf(out, ": " STR_F " -> " STR_F, STR_A(c->before_text), STR_A(c->after_text));
        else if (!c->is_item)
            buf_printf(out, ": " STR_F,
                       STR_A(c->kind == PROJECT_ADD ? c->after_text : c->before_text));
        buf_printf(out, c->within ? "\n" : "  (%s)\n", c->effect);
    }
}

void project_diff_json(const struct project_change *first, struct buf *out)
{
    static const char *const kinds[] = {
        [PROJECT_ADD] = "add", [PROJECT_REMOVE] = "remove", [PROJECT_CHANGE] = "change"};
    struct json_out o;

    jo_begin(&o, out);
    jo_object(&o);
    jo_key(&o, S("changes"));
    jo_array(&o);
    for (const struct project_change *c = first; c; c = c->next) {
        if (c->within)
            continue; /* it is in `after` of its item */
        jo_object(&o);
        jo_kstr(&o, S("kind"), str_of(kinds[c->kind]));
        jo_kstr(&o, S("path"), c->path);
        if (c->before) {
            jo_key(&o, S("before"));
            jo_node(&o, c->before);
        }
        if (c->after) {
            jo_key(&o, S("after"));
            jo_node(&o, c->after);
        }
        jo_kstr(&o, S("effect"), str_of(c->effect));
        jo_object_end(&o);
    }
    jo_array_end(&o);
    jo_object_end(&o);
}
