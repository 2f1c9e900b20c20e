/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees and values to JSON text. Everything ends in a buf, whose sticky overflow flag is the only
 * failure.
 *
 * A real that is a whole number below 2^63 is written with all its digits, as an integer would be:
 * equal numbers give equal bytes whichever type holds them, and what is written reads back equal.
 * Recursion is as deep as the tree; trees from text are at most JSON_DEPTH_MAX deep.
 */
#include "base/json_priv.h"
#include "base/mem.h"
#include "base/num.h"

#include <math.h>

/* --- Strings ------------------------------------------------------------------------------ */

/* How many bytes from p on can be copied as they are: no quote, no backslash, no control, ASCII. */
static size_t plain_run(const char *p, size_t n)
{
    size_t i = 0;

    while (i < n && (unsigned char)p[i] >= 0x20 && (unsigned char)p[i] < 0x80 && p[i] != '"' &&
           p[i] != '\\')
        i++;
    return i;
}

static void escape_ascii(struct buf *out, char c)
{
    static const char letters[] = "\"\\bfnrt", meanings[] = "\"\\\b\f\n\r\t";
    static const char hex[] = "0123456789abcdef";
    const char *at = memchr(meanings, c, sizeof(meanings) - 1);
    char text[6] = {'\\', 'u', '0', '0', hex[c >> 4 & 15], hex[c & 15]};

    if (at)
        text[1] = letters[at - meanings];
    buf_add(out, text, at ? 2 : 6);
}

void json_escape(struct buf *out, str s)
{
    buf_add_char(out, '"');
    while (s.n) {
        size_t n = plain_run(s.p, s.n);

        buf_add(out, s.p, n);
        s = str_skip(s, n);
        if (!s.n)
            break;
        if ((unsigned char)s.p[0] < 0x80) {
            escape_ascii(out, s.p[0]);
            s = str_skip(s, 1);
            continue;
        }
        n = str_utf8_step(s);
        if (n)
            buf_add(out, s.p, n);
        else
            buf_add_str(out, S("\xEF\xBF\xBD"));
        s = str_skip(s, MAX(n, (size_t)1));
    }
    buf_add_char(out, '"');
}

static void add_real(struct buf *out, double v)
{
    char text[NUM_TEXT_MAX];

    if (!isfinite(v))
        buf_add_str(out, S("null"));
    else if (json_is_whole(v))
        buf_add(out, text, num_i64_text((int64_t)v, text));
    else
        buf_add(out, text, num_f64_text(v, text));
}

/* --- Trees -------------------------------------------------------------------------------- */

enum form { COMPACT, PRETTY, CANONICAL };

static void write_node(struct buf *out, const struct json *node, enum form form, unsigned depth);

static void new_line(struct buf *out, enum form form, unsigned depth)
{
    if (form != PRETTY)
        return;
    buf_add_char(out, '\n');
    for (unsigned i = 0; i < depth; i++)
        buf_add_str(out, S("  "));
}

static void write_member(struct buf *out, const struct json *m, enum form form, unsigned depth)
{
    new_line(out, form, depth);
    json_escape(out, m->key);
    buf_add_str(out, form == PRETTY ? S(": ") : S(":"));
    write_node(out, m, form, depth);
}

static void write_object(struct buf *out, const struct json *node, enum form form, unsigned depth)
{
    AUTO(mem_freep) struct json **sorted = NULL;
    struct json *m = node->first;

    if (form == CANONICAL)
        sorted = json_sorted_members(node);
    buf_add_char(out, '{');
    for (size_t i = 0; i < node->count; i++, m = m->next) {
        if (i)
            buf_add_char(out, ',');
        write_member(out, sorted ? sorted[i] : m, form, depth + 1);
    }
    if (node->count)
        new_line(out, form, depth);
    buf_add_char(out, '}');
}

static void write_array(struct buf *out, const struct json *node, enum form form, unsigned depth)
{
    buf_add_char(out, '[');
    JSON_EACH (item, node) {
        if (item != node->first)
            buf_add_char(out, ',');
        new_line(out, form, depth + 1);
        write_node(out, item, form, depth + 1);
    }
    if (node->count)
        new_line(out, form, depth);
    buf_add_char(out, ']');
}

static void write_node(struct buf *out, const struct json *node, enum form form, unsigned depth)
{
    switch (node->type) {
    case JSON_NULL:
        buf_add_str(out, S("null"));
        break;
    case JSON_BOOL:
        buf_add_str(out, node->boolean ? S("true") : S("false"));
        break;
    case JSON_INT:
        buf_add_i64(out, node->integer);
        break;
    case JSON_REAL:
        add_real(out, node->real);
        break;
    case JSON_STR:
        json_escape(out, node->string);
        break;
    case JSON_ARRAY:
        write_array(out, node, form, depth);
        break;
    case JSON_OBJECT:
        write_object(out, node, form, depth);
        break;
    }
}

void json_write(struct buf *out, const struct json *node)
{
    write_node(out, node, COMPACT, 0);
}

void json_write_pretty(struct buf *out, const struct json *node)
{
    write_node(out, node, PRETTY, 0);
}

void json_write_canonical(struct buf *out, const struct json *node)
{
    write_node(out, node, CANONICAL, 0);
}

/* --- Streaming ---------------------------------------------------------------------------- */

void jo_begin(struct json_out *o, struct buf *to)
{
    *o = (struct json_out){.to = to};
}

static void before_value(struct json_out *o)
{
    if (o->need_comma)
        buf_add_char(o->to, ',');
    o->need_comma = true;
}

static void open_with(struct json_out *o, char c)
{
    before_value(o);
    buf_add_char(o->to, c);
    o->need_comma = false;
    o->depth++;
}

static void close_with(struct json_out *o, char c)
{
    ASSERT(o->depth > 0);
    buf_add_char(o->to, c);
    o->need_comma = true;
    o->depth--;
}

void jo_object(struct json_out *o)
{
    open_with(o, '{');
}

void jo_object_end(struct json_out *o)
{
    close_with(o, '}');
}

void jo_array(struct json_out *o)
{
    open_with(o, '[');
}

void jo_array_end(struct json_out *o)
{
    close_with(o, ']');
}

void jo_key(struct json_out *o, str key)
{
    before_value(o);
    json_escape(o->to, key);
    buf_add_char(o->to, ':');
    o->need_comma = false;
}

void jo_str(struct json_out *o, str v)
{
    before_value(o);
    json_escape(o->to, v);
}

void jo_int(struct json_out *o, int64_t v)
{
    before_value(o);
    buf_add_i64(o->to, v);
}

void jo_real(struct json_out *o, double v)
{
    before_value(o);
    add_real(o->to, v);
}

void jo_bool(struct json_out *o, bool v)
{
    jo_raw(o, v ? S("true") : S("false"));
}

void jo_null(struct json_out *o)
{
    jo_raw(o, S("null"));
}

void jo_raw(struct json_out *o, str json_text)
{
    before_value(o);
    buf_add_str(o->to, json_text);
}

void jo_node(struct json_out *o, const struct json *node)
{
    before_value(o);
    json_write(o->to, node);
}

void jo_kstr(struct json_out *o, str key, str v)
{
    jo_key(o, key);
    jo_str(o, v);
}

void jo_kint(struct json_out *o, str key, int64_t v)
{
    jo_key(o, key);
    jo_int(o, v);
}

void jo_kreal(struct json_out *o, str key, double v)
{
    jo_key(o, key);
    jo_real(o, v);
}

void jo_kbool(struct json_out *o, str key, bool v)
{
    jo_key(o, key);
    jo_bool(o, v);
}

void jo_kfinite(struct json_out *o, str key, double v)
{
    if (isfinite(v))
        jo_kreal(o, key, v);
}
