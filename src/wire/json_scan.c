/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scanner under the hot path's readers. A cursor moves over the bytes once; strings come back
 * as slices of the input, still escaped, and are checked while they are scanned (control
 * characters, escapes, surrogate pairs, UTF-8). Eight bytes of a string are looked at per step.
 *
 * Invariants: start <= p <= end; a string that was returned can be unescaped without checks; the
 * nesting of everything scanned, also of what is skipped, is at most SCAN_DEPTH_MAX.
 *
 * It does not find duplicate keys (scan_flat_object does, for the small objects that need it), and
 * it does not decide what a number may be used for.
 */
#include "wire/json_scan.h"

#define ONES UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)

#define WRONG_DEPTH "at most 32 levels of nesting"
#define WRONG_NAN "a number: NaN and Infinity have no JSON form"

bool scan_wrong(struct scan *s, const char *expected)
{
    if (!s->wrong)
        s->wrong = expected;
    return false;
}

int scan_error(const struct scan *s, struct err *e)
{
    size_t at = (size_t)(s->p - s->start);
    unsigned char c;

    ASSERT(s->wrong && s->p <= s->end);
    if (s->p == s->end)
        return FAIL(e, INVALID_ARGUMENT, "JSON byte %zu: expected %s, got the end of the text", at,
                    s->wrong);
    c = (unsigned char)*s->p;
    if (c > ' ' && c < 0x7F)
        return FAIL(e, INVALID_ARGUMENT, "JSON byte %zu: expected %s, got '%c'", at, s->wrong, c);
    return FAIL(e, INVALID_ARGUMENT, "JSON byte %zu: expected %s, got byte 0x%02x", at, s->wrong,
                c);
}

bool scan_open(struct scan *s, char bracket, const char *expected)
{
    if (!scan_take(s, bracket))
        return scan_wrong(s, expected);
    if (++s->depth > SCAN_DEPTH_MAX)
        return scan_wrong(s, WRONG_DEPTH);
    return true;
}

bool scan_member(struct scan *s, struct scan_text *ret_key, bool *first)
{
    char c = scan_peek(s);

    if (c == '}') {
        s->p++, s->depth--;
        return false;
    }
    if (!*first) {
        if (c != ',')
            return scan_wrong(s, "',' or '}'");
        s->p++;
    }
    *first = false;
    if (scan_peek(s) != '"')
        return scan_wrong(s, "a member name in double quotes");
    if (!scan_string(s, ret_key))
        return false;
    return scan_take(s, ':') || scan_wrong(s, "':'");
}

bool scan_item(struct scan *s, bool *first)
{
    char c = scan_peek(s);

    if (c == ']') {
        s->p++, s->depth--;
        return false;
    }
    if (!*first) {
        if (c != ',')
            return scan_wrong(s, "',' or ']'");
        s->p++;
        if (scan_peek(s) == ']')
            return scan_wrong(s, "a value after ','");
    }
    *first = false;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four hex digits at p, or -1. */
static int hex4(const char *p, const char *end)
{
    int v = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(p[i]);

        if (digit < 0)
            return -1;
        v = v * 16 + digit;
    }
    return v;
}

/* Checks the escape at p (a backslash); returns its length, or 0. */
static size_t escape_length(const char *p, const char *end)
{
    int unit, low;

    if (end - p < 2)
        return 0;
    if (p[1] != 'u')
        return p[1] && strchr("\"\\/bfnrt", p[1]) ? 2 : 0;
    unit = hex4(p + 2, end);
    if (unit < 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
        return 0;
    if (unit < 0xD800 || unit > 0xDBFF)
        return 6;
    if (end - p < 12 || p[6] != '\\' || p[7] != 'u')
        return 0;
    low = hex4(p + 8, end);
    return low >= 0xDC00 && low <= 0xDFFF ? 12 : 0;
}

/* The first byte at or after p that needs a look: a quote, a backslash, a control character, or one
 * that is not ASCII. */
static const char *plain_skip(const char *p, const char *end)
{
    while (end - p >= 8) {
        uint64_t w, quote, slash, hit;

        memcpy(&w, p, 8);
        quote = w ^ (ONES * '"');
        slash = w ^ (ONES * '\\');
        hit = ((quote - ONES) & ~quote) | ((slash - ONES) & ~slash) | ((w - ONES * ' ') & ~w) | w;
        hit &= HIGHS;
        if (hit)
            return p + (__builtin_ctzll(hit) >> 3);
        p += 8;
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= ' ' &&
           (unsigned char)*p < 0x80)
        p++;
    return p;
}

bool scan_string(struct scan *s, struct scan_text *ret_text)
{
    const char *begin, *p;
    bool escaped = false, ascii = true;

    if (!scan_take(s, '"'))
        return scan_wrong(s, "a string");
    begin = p = s->p;
    for (;;) {
        p = plain_skip(p, s->end);
        if (UNLIKELY(p == s->end)) {
            s->p = p;
            return scan_wrong(s, "'\"' at the end of a string");
        }
        if (LIKELY(*p == '"'))
            break;
        if (*p == '\\') {
            size_t n = escape_length(p, s->end);

            if (!n) {
                s->p = p;
                return scan_wrong(s, "a valid escape sequence");
            }
            escaped = true;
            p += n;
        } else if ((unsigned char)*p >= 0x80) {
            ascii = false;
            p++;
        } else {
            s->p = p;
            return scan_wrong(s, "no bare control character in a string");
        }
    }
    if (!ascii && !str_is_utf8(str_range(begin, p))) {
        s->p = begin;
        return scan_wrong(s, "valid UTF-8 in a string");
    }
    s->p = p + 1;
    *ret_text = (struct scan_text){str_range(begin, p), escaped};
    return true;
}

bool scan_number(struct scan *s, double *ret_value, int64_t *ret_int, bool *ret_exact_int)
{
    const char *after = num_parse(s->p, s->end, ret_value, ret_int, ret_exact_int);

    if (!after)
        return scan_wrong(s, "a number");
    s->p = after;
    return true;
}

bool scan_word(struct scan *s, str word)
{
    if ((size_t)(s->end - s->p) < word.n || memcmp(s->p, word.p, word.n) != 0)
        return false;
    s->p += word.n;
    return true;
}

/* A value that is neither object nor array. */
static bool scalar_skip(struct scan *s)
{
    struct scan_text text;
    double value;
    int64_t integer;
    bool exact;

    switch (scan_peek(s)) {
    case '"':
        return scan_string(s, &text);
    case 't':
        return scan_word(s, S("true")) || scan_wrong(s, "a value");
    case 'f':
        return scan_word(s, S("false")) || scan_wrong(s, "a value");
    case 'n':
        if (s->end - s->p >= 3 && s->p[1] == 'a')
            return scan_wrong(s, WRONG_NAN);
        return scan_word(s, S("null")) || scan_wrong(s, "a value");
    case 'N':
    case 'I':
        return scan_wrong(s, WRONG_NAN);
    case '-':
        if (s->end - s->p >= 2 && s->p[1] == 'I')
            return scan_wrong(s, WRONG_NAN);
        return scan_number(s, &value, &integer, &exact);
    default:
        if (s->p < s->end && *s->p >= '0' && *s->p <= '9')
            return scan_number(s, &value, &integer, &exact);
        return scan_wrong(s, "a value");
    }
}

bool scan_value(struct scan *s, str *ret_text)
{
    uint64_t objects = 0; /* bit d: the container at depth d is an object */
    uint32_t outer = s->depth;
    struct scan_text key;
    const char *from;
    bool first = true;

    scan_blank(s);
    from = s->p;
    do {
        char c = scan_peek(s);

        if (c == '{' || c == '[') {
            if (!scan_open(s, c, "a value"))
                return false;
            objects = (objects & ~(UINT64_C(1) << s->depth)) | ((uint64_t)(c == '{') << s->depth);
            first = true;
        } else if (!scalar_skip(s)) {
            return false;
        }
        /* Close what ends here; stop at the next member or item. */
        while (s->depth > outer) {
            bool more =
                objects >> s->depth & 1 ? scan_member(s, &key, &first) : scan_item(s, &first);

            if (s->wrong)
                return false;
            if (more)
                break;
            first = false;
        }
    } while (s->depth > outer);
    if (ret_text)
        *ret_text = str_range(from, s->p);
    return true;
}

bool scan_flat_object(struct scan *s, uint32_t members_max, str *ret_text)
{
    str keys[64];
    uint32_t n = 0;
    struct scan_text key;
    const char *from;
    bool first = true;

    ASSERT(members_max <= ARRAY_LEN(keys));
    scan_blank(s);
    from = s->p;
    if (!scan_open(s, '{', "an object"))
        return false;
    while (scan_member(s, &key, &first)) {
        if (n == members_max)
            return scan_wrong(s, "fewer members in \"parameters\"");
        for (uint32_t i = 0; i < n; i++)
            if (str_eq(keys[i], key.raw))
                return scan_wrong(s, "no duplicate key");
        keys[n++] = key.raw;
        if (!scan_value(s, NULL))
            return false;
    }
    *ret_text = str_range(from, s->p);
    return !s->wrong;
}

bool scan_finish(struct scan *s)
{
    scan_blank(s);
    return s->p == s->end || scan_wrong(s, "nothing after the document");
}

static size_t utf8_put(uint32_t c, char *to)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xC0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xE0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 0x3F));
        to[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    to[0] = (char)(0xF0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 0x3F));
    to[2] = (char)(0x80 | (c >> 6 & 0x3F));
    to[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

str scan_unescape(struct scan_text text, struct arena *a)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    const char *p = text.raw.p, *end = p + text.raw.n;
    char *to;
    size_t n = 0;

    if (!text.escaped)
        return text.raw;
    to = arena_alloc(a, text.raw.n); /* an escape is never shorter than what it stands for */
    if (!to)
        return STR_NULL;
    while (p < end) {
        uint32_t c;

        if (*p != '\\') {
            to[n++] = *p++;
            continue;
        }
        if (p[1] != 'u') {
            to[n++] = into[strchr(from, p[1]) - from];
            p += 2;
            continue;
        }
        c = (uint32_t)hex4(p + 2, end);
        p += 6;
        if (c >= 0xD800 && c <= 0xDBFF) {
            c = 0x10000 + ((c - 0xD800) << 10) + ((uint32_t)hex4(p + 2, end) - 0xDC00);
            p += 6;
        }
        n += utf8_put(c, to + n);
    }
    return (str){to, n};
}

const char *scan_kind(const struct scan *s)
{
    switch (s->p < s->end ? *s->p : '\0') {
    case '"':
        return "a string";
    case '{':
        return "an object";
    case '[':
        return "a list";
    case 't':
    case 'f':
        return "a boolean";
    case 'n':
        return "null";
    default:
        return "a number";
    }
}
