/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON text to tree.
 *
 * The parser descends at most JSON_DEPTH_MAX levels and copies strings and keys into the arena, so
 * the text may go away. Columns count characters, not bytes: a string with continuation bytes moves
 * the start of its line forward by as many, and every later column of the line comes out right. New
 * lines cannot occur inside strings, so only blanks count lines.
 *
 * Duplicate keys are found by json_keys_append (json_tree.c), which YAML shares.
 */
#include "base/json_priv.h"
#include "base/num.h"

#include <math.h>
#include <stdio.h>

struct parser {
    const char *p, *end;
    const char *line_start; /* the column of p is p - line_start + 1 */
    uint32_t line, depth;
    struct arena *arena;
    struct err *e;
};

static uint32_t column_at(const struct parser *ps, const char *p)
{
    return (uint32_t)MIN(p - ps->line_start + 1, (ptrdiff_t)UINT32_MAX);
}

/* "found X, expected Y" at p. */
static int fail_found(const struct parser *ps, const char *p, const char *expected)
{
    uint32_t col = column_at(ps, p);

    if (p >= ps->end)
        return FAIL(ps->e, INVALID_ARGUMENT, "%u:%u: the text ends here, expected %s", ps->line,
                    col, expected);
    if (*p > ' ' && *p < 0x7F)
        return FAIL(ps->e, INVALID_ARGUMENT, "%u:%u: found '%c', expected %s", ps->line, col, *p,
                    expected);
    return FAIL(ps->e, INVALID_ARGUMENT, "%u:%u: found byte 0x%02X, expected %s", ps->line, col,
                (unsigned char)*p, expected);
}

static int fail_what(const struct parser *ps, const char *p, const char *what)
{
    return FAIL(ps->e, INVALID_ARGUMENT, "%u:%u: %s", ps->line, column_at(ps, p), what);
}

static int fail_memory(const struct parser *ps)
{
    return FAIL(ps->e, RESOURCE_EXHAUSTED,
                "%u:%u: the document needs more than the %zu bytes of memory it may use", ps->line,
                column_at(ps, ps->p), ps->arena->max_bytes);
}

static void skip_blanks(struct parser *ps)
{
    for (; ps->p < ps->end; ps->p++) {
        if (*ps->p == '\n') {
            ps->line++;
            ps->line_start = ps->p + 1;
        } else if (*ps->p != ' ' && *ps->p != '\t' && *ps->p != '\r') {
            return;
        }
    }
}

/* --- Strings ------------------------------------------------------------------------------ */

/* The end of the string that starts at `from`, after its opening quote. Refuses control characters
 * and, once, bytes that are no UTF-8. */
static int find_quote(struct parser *ps, const char *from, const char **ret_quote,
                      bool *ret_escapes)
{
    const char *p = from;
    size_t continuations = 0;
    bool ascii = true;

    *ret_escapes = false;
    for (; p < ps->end && *p != '"'; p++) {
        if (*p == '\\') {
            *ret_escapes = true;
            if (++p == ps->end)
                break;
        }
        if ((unsigned char)*p < 0x20)
            return fail_found(ps, p, "a string without control characters: write \\n, \\u000a");
        ascii &= (unsigned char)*p < 0x80;
        continuations += ((unsigned char)*p & 0xC0) == 0x80;
    }
    if (p >= ps->end)
        return fail_found(ps, p, "'\"' at the end of a string");
    if (!ascii && !str_is_utf8(str_range(from, p)))
        return fail_what(ps, from, "the string is not UTF-8, expected UTF-8");
    ps->line_start += continuations;
    *ret_quote = p;
    return 0;
}

static int hex4(const struct parser *ps, const char *p, unsigned *ret_unit)
{
    unsigned unit = 0;

    for (int i = 0; i < 4; i++) {
        char c = p + i < ps->end ? p[i] : '\0';
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                : 16;

        if (digit > 15)
            return fail_found(ps, p + i, "four hexadecimal digits after \\u");
        unit = unit << 4 | digit;
    }
    *ret_unit = unit;
    return 0;
}

static char *put_utf8(char *to, unsigned c)
{
    if (c < 0x80) {
        *to++ = (char)c;
        return to;
    }
    if (c < 0x800) {
        *to++ = (char)(0xC0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *to++ = (char)(0xE0 | c >> 12);
        } else {
            *to++ = (char)(0xF0 | c >> 18);
            *to++ = (char)(0x80 | (c >> 12 & 0x3F));
        }
        *to++ = (char)(0x80 | (c >> 6 & 0x3F));
    }
    *to++ = (char)(0x80 | (c & 0x3F));
    return to;
}

/* After "\u": one code unit, or two that make a pair. */
static int unescape_u(const struct parser *ps, const char **p, char **to)
{
    unsigned high = 0, low = 0;

    TRY(hex4(ps, *p, &high));
    *p += 4;
    if (high >= 0xDC00 && high <= 0xDFFF)
        return fail_what(ps, *p - 6,
                         "second half of a surrogate pair, expected the first before it");
    if (high >= 0xD800 && high <= 0xDBFF) {
        if (ps->end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u')
            return fail_what(ps, *p - 6,
                             "half of a surrogate pair, expected \\uDC00 to \\uDFFF next");
        TRY(hex4(ps, *p + 2, &low));
        if (low < 0xDC00 || low > 0xDFFF)
            return fail_what(ps, *p, "half of a surrogate pair, expected \\uDC00 to \\uDFFF here");
        *p += 6;
        high = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    }
    *to = put_utf8(*to, high);
    return 0;
}

static int unescape(const struct parser *ps, const char *p, const char *quote, char *to,
                    size_t *ret_n)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char *start = to;

    while (p < quote) {
        const char *letter;

        if (*p != '\\') {
            *to++ = *p++;
            continue;
        }
        p += 2;
        if (p[-1] == 'u') {
            TRY(unescape_u(ps, &p, &to));
            continue;
        }
        letter = memchr(letters, p[-1], sizeof(letters) - 1);
        if (!letter)
            return fail_found(ps, p - 1, "one of \" \\ / b f n r t u after a backslash");
        *to++ = meanings[letter - letters];
    }
    *ret_n = (size_t)(to - start);
    return 0;
}

/* ps->p is at the opening quote; leaves it after the closing one. */
static int parse_string(struct parser *ps, str *ret)
{
    const char *from = ps->p + 1, *quote = from;
    bool escapes;
    char *copy;
    size_t n;

    TRY(find_quote(ps, from, &quote, &escapes));
    n = (size_t)(quote - from);
    copy = arena_alloc(ps->arena, n + 1);
    if (!copy)
        return fail_memory(ps);
    if (escapes)
        TRY(unescape(ps, from, quote, copy, &n));
    else
        memcpy(copy, from, n);
    copy[n] = '\0';
    *ret = (str){copy, n};
    ps->p = quote + 1;
    return 0;
}

/* --- Values ------------------------------------------------------------------------------- */

static int parse_value(struct parser *ps, struct json *node);

static struct json *node_new(struct parser *ps)
{
    struct json *node = ARENA_NEW(ps->arena, struct json);

    if (node) {
        node->line = ps->line;
        node->col = column_at(ps, ps->p);
    }
    return node;
}

static int parse_number(struct parser *ps, struct json *node)
{
    int64_t integer;
    double real;
    bool exact;
    const char *after = num_parse(ps->p, ps->end, &real, &integer, &exact);

    if (!after && ps->end - ps->p > 1 && ps->p[0] == '0' && ps->p[1] >= '0' && ps->p[1] <= '9')
        return fail_what(ps, ps->p, "number with a leading zero, expected none");
    if (!after)
        return fail_what(ps, ps->p,
                         "not a number, expected one like -12, 0.5 or 1e-3 of at most "
                         "400 characters");
    if (!isfinite(real))
        return fail_what(ps, ps->p, "number too large, expected less than 1.8e308");
    node->type = exact ? JSON_INT : JSON_REAL;
    if (exact)
        node->integer = integer;
    else
        node->real = real;
    ps->p = after;
    return 0;
}

static int parse_word(struct parser *ps, struct json *node)
{
    static const struct {
        str word;
        enum json_type type;
        bool boolean;
    } words[] = {
        {S_INIT("true"), JSON_BOOL, true},
        {S_INIT("false"), JSON_BOOL, false},
        {S_INIT("null"), JSON_NULL, false},
    };
    str rest = str_range(ps->p, ps->end);

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (!str_starts(rest, words[i].word))
            continue;
        node->type = words[i].type;
        if (node->type == JSON_BOOL)
            node->boolean = words[i].boolean;
        ps->p += words[i].word.n;
        return 0;
    }
    return fail_found(ps, ps->p, "a value");
}

static int descend(struct parser *ps)
{
    if (++ps->depth > JSON_DEPTH_MAX)
        return fail_what(
            ps, ps->p,
            "nested too deep, expected at most " ERR_STRINGIFY(JSON_DEPTH_MAX) " levels");
    ps->p++;
    skip_blanks(ps);
    return 0;
}

/* After an item: a comma and more, or the end. */
static int next_item(struct parser *ps, char close, bool *ret_more)
{
    skip_blanks(ps);
    *ret_more = ps->p < ps->end && *ps->p == ',';
    if (*ret_more) {
        ps->p++;
        skip_blanks(ps);
    } else if (ps->p == ps->end || *ps->p != close) {
        return fail_found(ps, ps->p, close == ']' ? "',' or ']'" : "',' or '}'");
    }
    return 0;
}

static int parse_array(struct parser *ps, struct json *node)
{
    bool more;

    node->type = JSON_ARRAY;
    TRY(descend(ps));
    more = ps->p == ps->end || *ps->p != ']';
    while (more) {
        struct json *child = node_new(ps);

        if (!child)
            return fail_memory(ps);
        TRY(parse_value(ps, child));
        json_push(node, child);
        TRY(next_item(ps, ']', &more));
    }
    ps->p++;
    ps->depth--;
    return 0;
}

static int parse_member(struct parser *ps, struct json *object, struct json_keys *keys)
{
    uint32_t key_line = ps->line, key_col = column_at(ps, ps->p);
    struct json *member, *first;
    str key;

    if (ps->p == ps->end || *ps->p != '"')
        return fail_found(ps, ps->p, "a key in double quotes");
    TRY(parse_string(ps, &key));
    skip_blanks(ps);
    if (ps->p == ps->end || *ps->p != ':')
        return fail_found(ps, ps->p, "':' after a key");
    ps->p++;
    skip_blanks(ps);
    member = node_new(ps);
    if (!member)
        return fail_memory(ps);
    member->key = key;
    member->key_line = key_line;
    member->key_col = key_col;
    TRY(parse_value(ps, member));
    first = json_keys_append(keys, ps->arena, object, member);
    if (first)
        return FAIL(ps->e, INVALID_ARGUMENT,
                    "%u:%u: key '" STR_F "' stands twice, expected once (first at %u:%u)", key_line,
                    key_col, STR_A(str_take(key, 128)), first->key_line, first->key_col);
    return ps->arena->overflowed ? fail_memory(ps) : 0;
}

static int parse_object(struct parser *ps, struct json *node)
{
    struct json_keys keys = {NULL, 0, 0};
    bool more;

    node->type = JSON_OBJECT;
    TRY(descend(ps));
    more = ps->p == ps->end || *ps->p != '}';
    while (more) {
        TRY(parse_member(ps, node, &keys));
        TRY(next_item(ps, '}', &more));
    }
    ps->p++;
    ps->depth--;
    return 0;
}

static int parse_value(struct parser *ps, struct json *node)
{
    char c = ps->p < ps->end ? *ps->p : '\0';

    if (c == '{')
        return parse_object(ps, node);
    if (c == '[')
        return parse_array(ps, node);
    if (c == '-' || (c >= '0' && c <= '9'))
        return parse_number(ps, node);
    if (c != '"')
        return parse_word(ps, node);
    node->type = JSON_STR;
    return parse_string(ps, &node->string);
}

int json_parse(str text, struct arena *a, struct json **ret_root, struct err *e)
{
    const char *start = text.p ? text.p : "";
    struct parser ps = {start, start + text.n, start, 1, 0, a, e};
    struct json *root;

    if (str_starts(text, S("\xEF\xBB\xBF")))
        return fail_what(&ps, start, "byte order mark, expected plain UTF-8 without one");
    skip_blanks(&ps);
    root = node_new(&ps);
    if (!root)
        return fail_memory(&ps);
    TRY(parse_value(&ps, root));
    skip_blanks(&ps);
    if (ps.p < ps.end)
        return fail_found(&ps, ps.p, "the end of the text");
    *ret_root = root;
    return 0;
}
