/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A card as Markdown. The rendering knows no field: a part becomes a section, a value a line, a
 * list of values a line, a list of objects a table, an object a list one step further in. What is
 * new in a card is therefore shown without a change here.
 *
 * Names and texts come from people and files: what Markdown or HTML would read is escaped.
 */
#include "base/time.h"
#include "registry/card.h"

#define TABLE_COLUMNS 16 /* further ones are left out */
#define TABLE_ROWS 200   /* further ones are counted */
#define DEPTH_MAX 8      /* deeper ones are shown as JSON */

static void escape(struct buf *out, str text)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];

        if (strchr("\\`*_[]<>|#&", c) && c)
            buf_add_char(out, '\\');
        buf_add_char(out, (unsigned char)c < ' ' || c == 0x7f ? ' ' : c);
    }
}

/* "size_bytes" -> "size bytes"; a time in ns is shown with its unit and loses the suffix. */
static void label(struct buf *out, str key)
{
    str shown = str_ends(key, S("_ns")) ? str_take(key, key.n - 3) : key;

    for (size_t i = 0; i < shown.n; i++) {
        if (shown.p[i] == '_')
            buf_add_char(out, ' ');
        else
            escape(out, (str){shown.p + i, 1});
    }
}

static void value(struct buf *out, const struct json *v, str key, struct arena *a)
{
    bool first = true;

    if (!v || v->type == JSON_NULL) {
        buf_add_str(out, S("–"));
    } else if (v->type == JSON_STR) {
        escape(out, v->string);
    } else if (v->type == JSON_BOOL) {
        buf_add_str(out, v->boolean ? S("yes") : S("no"));
    } else if (v->type == JSON_INT && str_ends(key, S("_ns"))) {
        buf_add_str(out, time_duration_text(a, v->integer));
    } else if (v->type == JSON_REAL) {
        buf_printf(out, "%.6g", v->real);
    } else if (v->type == JSON_ARRAY) {
        JSON_EACH (item, v) {
            if (!first)
                buf_add_str(out, S(", "));
            first = false;
            value(out, item, S(""), a);
        }
    } else if (v->type == JSON_OBJECT) {
        JSON_EACH (item, v) {
            if (!first)
                buf_add_str(out, S(", "));
            first = false;
            label(out, item->key);
            buf_add_char(out, ' ');
            value(out, item, item->key, a);
        }
    } else {
        json_write(out, v);
    }
}

static size_t columns_of(const struct json *list, str names[TABLE_COLUMNS])
{
    size_t n = 0;

    JSON_EACH (row, list)
        JSON_EACH (cell, row) {
            size_t i = 0;

            while (i < n && !str_eq(names[i], cell->key))
                i++;
            if (i == n && n < TABLE_COLUMNS)
                names[n++] = cell->key;
        }
    return n;
}

static void table(struct buf *out, const struct json *list, struct arena *a)
{
    str names[TABLE_COLUMNS];
    size_t n = columns_of(list, names), rows = 0;

    buf_add_str(out, S("\n\n|"));
    for (size_t i = 0; i < n; i++) {
        buf_add_char(out, ' ');
        label(out, names[i]);
        buf_add_str(out, S(" |"));
    }
    buf_add_str(out, S("\n|"));
    for (size_t i = 0; i < n; i++)
        buf_add_str(out, S("---|"));
    JSON_EACH (row, list) {
        if (rows++ == TABLE_ROWS)
            break;
        buf_add_str(out, S("\n|"));
        for (size_t i = 0; i < n; i++) {
            const struct json *cell = json_get(row, names[i]);

            buf_add_char(out, ' ');
            if (cell)
                value(out, cell, names[i], a);
            buf_add_str(out, S(" |"));
        }
    }
    buf_add_str(out, S("\n\n"));
    if (list->count > TABLE_ROWS)
        buf_printf(out, "%zu rows are not shown.\n\n", list->count - TABLE_ROWS);
}

static bool is_table(const struct json *v)
{
    if (v->type != JSON_ARRAY || !v->count)
        return false;
    JSON_EACH (row, v)
        if (row->type != JSON_OBJECT)
            return false;
    return true;
}

static void members(struct buf *out, const struct json *object, int depth, struct arena *a)
{
    JSON_EACH (v, object) {
        buf_printf(out, "%*s- **", 2 * depth, "");
        label(out, v->key);
        buf_add_str(out, S(":** "));
        if (v->type == JSON_OBJECT && depth < DEPTH_MAX) {
            buf_add_char(out, '\n');
            members(out, v, depth + 1, a);
        } else if (is_table(v)) {
            table(out, v, a);
        } else {
            value(out, v, v->key, a);
            buf_add_char(out, '\n');
        }
    }
}

void registry_card_markdown(const struct json *card, struct arena *a, struct buf *out)
{
    static const struct {
        const char *part, *title;
    } sections[] = {{"overview", "Overview"},
                    {"data", "Data"},
                    {"performance", "Performance"},
                    {"safety", "Safety and fairness"},
                    {"contract", "Operational contract"},
                    {"maintenance", "Maintenance"}};
    const struct json *missing = json_get(card, S("missing"));

    buf_add_str(out, S("# Model card: "));
    escape(out, json_str_or(json_path(card, "overview.model"), S("?")));
    buf_printf(out, " version %lld\n",
               (long long)json_int_or(json_path(card, "overview.version"), 0));
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
        const struct json *part = json_get(card, str_of(sections[i].part));

        if (!part || part->type != JSON_OBJECT)
            continue;
        buf_printf(out, "\n## %s\n\n", sections[i].title);
        members(out, part, 0, a);
    }
    if (json_is_container(missing) && missing->count) {
        buf_add_str(out, S("\n## Not said\n\n"));
        JSON_EACH (path, missing) {
            buf_add_str(out, S("- "));
            escape(out, json_str_or(path, S("")));
            buf_add_char(out, '\n');
        }
    }
}
