/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Percent-decoding, exactly once. Model and file names come to us in paths; the known attacks on
 * servers of this kind decode twice, or smuggle a separator or a dot segment through an escape. A
 * segment is therefore decoded here, checked after decoding, and never looked at again as text with
 * escapes: a '%' that remains is refused, since only a second decoding could want it.
 */
#include "wire/http1_priv.h"

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes raw into out; false on a wrong escape or want of room. */
static bool decode(str raw, bool plus_is_blank, char *out, size_t size, str *ret)
{
    size_t n = 0;

    for (size_t i = 0; i < raw.n; i++) {
        char c = raw.p[i];

        if (n == size)
            return false;
        if (c == '%') {
            if (raw.n - i < 3 || hex(raw.p[i + 1]) < 0 || hex(raw.p[i + 2]) < 0)
                return false;
            c = (char)(hex(raw.p[i + 1]) << 4 | hex(raw.p[i + 2]));
            i += 2;
        } else if (c == '+' && plus_is_blank) {
            c = ' ';
        }
        out[n++] = c;
    }
    *ret = (str){out, n};
    return true;
}

/* What is wrong with a decoded segment, or NULL. */
static const char *segment_fault(str s)
{
    if (s.n == 0)
        return "is empty";
    if (str_eq(s, S(".")) || str_eq(s, S("..")))
        return "is a dot segment";
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c < 0x20 || c == 0x7f)
            return "holds a control character";
        if (c == '/' || c == '\\')
            return "holds a separator";
        if (c == '%')
            return "holds a '%' after decoding";
    }
    return str_is_utf8(s) ? NULL : "is not UTF-8";
}

int http1_segment_decode(str raw, char *out, size_t size, str *ret, struct err *e)
{
    str s;
    const char *fault;

    if (!decode(raw, false, out, size, &s))
        return FAIL(e, INVALID_ARGUMENT, "path segment '" STR_F "' has a wrong escape",
                    STR_A(str_take(raw, 80)));
    fault = segment_fault(s);
    if (fault)
        return FAIL(e, INVALID_ARGUMENT, "path segment '" STR_F "' %s", STR_A(str_take(raw, 80)),
                    fault);
    *ret = s;
    return 0;
}

int http1_path_decode(str raw, char *out, size_t size, str *ret, struct err *e)
{
    char *w = out;
    str rest = raw;

    while (rest.p) {
        str segment = str_cut(&rest, '/'), s;

        TRY(http1_segment_decode(segment, w, size - (size_t)(w - out), &s, e));
        w += s.n;
        if (!rest.p)
            break;
        if ((size_t)(w - out) == size)
            return FAIL(e, INVALID_ARGUMENT, "path longer than %zu bytes", size);
        *w++ = '/';
    }
    if (w == out)
        return FAIL(e, INVALID_ARGUMENT, "the path is empty");
    *ret = str_range(out, w);
    return 0;
}

bool http1_path_next(str *path, str *ret_segment)
{
    size_t n = 0;

    if (path->n == 0 || path->p[0] != '/')
        return false;
    *path = str_skip(*path, 1);
    while (n < path->n && path->p[n] != '/')
        n++;
    *ret_segment = str_take(*path, n);
    *path = str_skip(*path, n);
    return true;
}

static const char *query_fault(str s)
{
    if (s.n && memchr(s.p, 0, s.n))
        return "holds a NUL character";
    return str_is_utf8(s) ? NULL : "is not UTF-8";
}

/* Whether an encoded name is `name`: compared while decoding, so that it needs no room. */
static bool name_is(str raw, str name)
{
    size_t at = 0;

    for (size_t i = 0; i < raw.n; i++, at++) {
        char c = raw.p[i] == '+' ? ' ' : raw.p[i];

        if (c == '%') {
            if (raw.n - i < 3 || hex(raw.p[i + 1]) < 0 || hex(raw.p[i + 2]) < 0)
                return false;
            c = (char)(hex(raw.p[i + 1]) << 4 | hex(raw.p[i + 2]));
            i += 2;
        }
        if (at == name.n || c != name.p[at])
            return false;
    }
    return at == name.n;
}

int http1_query_get(str query, str name, char *out, size_t size, str *ret, struct err *e)
{
    str found = STR_NULL, s;
    const char *fault;

    while (query.p) {
        str value = str_cut(&query, '&'), key = str_cut(&value, '=');

        if (!name_is(key, name))
            continue;
        if (found.p)
            return FAIL(e, INVALID_ARGUMENT, "query parameter '" STR_F "' stands more than once",
                        STR_A(name));
        found = value.p ? value : S("");
    }
    if (!found.p)
        return FAIL(e, NOT_FOUND, "query parameter '" STR_F "' is missing", STR_A(name));
    if (!decode(found, true, out, size, &s))
        return FAIL(e, INVALID_ARGUMENT,
                    "query parameter '" STR_F "' has a wrong escape or more than %zu bytes",
                    STR_A(name), size);
    fault = query_fault(s);
    if (fault)
        return FAIL(e, INVALID_ARGUMENT, "query parameter '" STR_F "' %s", STR_A(name), fault);
    *ret = s;
    return 0;
}
