/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include "base/mem.h"
#include "base/num.h"

#include <math.h>

int str_cmp(str a, str b)
{
    size_t n = MIN(a.n, b.n);
    int c = n ? memcmp(a.p, b.p, n) : 0;

    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool str_eq_nocase(str a, str b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (lower(a.p[i]) != lower(b.p[i]))
            return false;
    return true;
}

bool str_starts(str s, str prefix)
{
    return s.n >= prefix.n && str_eq(str_take(s, prefix.n), prefix);
}

bool str_ends(str s, str suffix)
{
    return s.n >= suffix.n && str_eq(str_skip(s, s.n - suffix.n), suffix);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

str str_trim(str s)
{
    while (s.n && is_blank(s.p[0]))
        s.p++, s.n--;
    while (s.n && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

str str_skip(str s, size_t n)
{
    n = MIN(n, s.n);
    return n ? (str){s.p + n, s.n - n} : s;
}

str str_take(str s, size_t n)
{
    return (str){s.p, MIN(n, s.n)};
}

ptrdiff_t str_find(str s, str needle)
{
    const char *at = needle.n <= s.n ? memmem(s.p, s.n, needle.p, needle.n) : NULL;

    return at ? at - s.p : -1;
}

ptrdiff_t str_find_char(str s, char c)
{
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;

    return at ? at - s.p : -1;
}

str str_cut(str *rest, char sep)
{
    ptrdiff_t at = str_find_char(*rest, sep);
    str piece = *rest;

    if (at < 0) {
        *rest = STR_NULL;
        return piece;
    }
    piece.n = (size_t)at;
    rest->p += at + 1;
    rest->n -= (size_t)at + 1;
    return piece;
}

bool str_to_u64(str s, uint64_t *ret_value)
{
    uint64_t v = 0;

    if (!s.n || s.n > 20)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned)(s.p[i] - '0');

        if (digit > 9 || __builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, digit, &v))
            return false;
    }
    *ret_value = v;
    return true;
}

bool str_to_i64(str s, int64_t *ret_value)
{
    bool negative = s.n && s.p[0] == '-';
    uint64_t v;

    if (!str_to_u64(str_skip(s, negative), &v) || v > (uint64_t)INT64_MAX + negative)
        return false;
    *ret_value = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

/* Only the bytes of decimal numbers: no blanks, no hexadecimal, no inf, no nan. */
static bool is_decimal(str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned)(s.p[i] - '0') > 9 && !memchr(".eE+-", s.p[i], 5))
            return false;
    return s.p[0] != '+';
}

bool str_to_f64(str s, double *ret_value)
{
    AUTO(mem_freep) char *z = NULL;
    char *end;
    int64_t integer;
    double v;
    bool exact;

    if (!s.n)
        return false;
    if (num_parse(s.p, s.p + s.n, &v, &integer, &exact) != s.p + s.n) {
        if (!is_decimal(s) || !(z = mem_try_alloc(s.n + 1)))
            return false;
        memcpy(z, s.p, s.n);
        z[s.n] = '\0';
        v = num_strtod(z, &end);
        if (end != z + s.n)
            return false;
    }
    if (!isfinite(v))
        return false;
    *ret_value = v;
    return true;
}

/* Length of the valid UTF-8 sequence at p (1 to 4), or 0. The ranges are Table 3-7 of Unicode. */
static size_t utf8_step(const unsigned char *p, size_t n)
{
    unsigned lo = 0x80, hi = 0xBF;
    size_t len;

    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4)
        return 0;
    len = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (n < len)
        return 0;
    if (p[0] == 0xE0)
        lo = 0xA0;
    else if (p[0] == 0xED)
        hi = 0x9F;
    else if (p[0] == 0xF0)
        lo = 0x90;
    else if (p[0] == 0xF4)
        hi = 0x8F;
    if (p[1] < lo || p[1] > hi)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return len;
}

size_t str_utf8_step(str s)
{
    return s.n ? utf8_step((const unsigned char *)s.p, s.n) : 0;
}

bool str_is_utf8(str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t at = 0, step;

    while (at < s.n) {
        uint64_t word;

        if (s.n - at >= 8 && (memcpy(&word, p + at, 8), !(word & 0x8080808080808080u))) {
            at += 8;
            continue;
        }
        step = utf8_step(p + at, s.n - at);
        if (!step)
            return false;
        at += step;
    }
    return true;
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'z');
}

bool str_is_name(str s)
{
    if (!s.n || s.n > 128 || !is_alnum(s.p[0]))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!is_alnum(s.p[i]) && s.p[i] != '.' && s.p[i] != '_' && s.p[i] != '-')
            return false;
    return str_find(s, S("..")) < 0;
}

bool str_to_z(str s, char *ret_z, size_t size)
{
    ASSERT(size > 0);
    ret_z[0] = '\0';
    if (s.n >= size || (s.n && memchr(s.p, '\0', s.n)))
        return false;
    if (s.n)
        memcpy(ret_z, s.p, s.n);
    ret_z[s.n] = '\0';
    return true;
}

size_t str_distance(str a, str b)
{
    size_t rows[3][65], n, m;
    size_t *prev2 = rows[0], *prev = rows[1], *cur = rows[2];

    a = str_take(a, 64), b = str_take(b, 64);
    n = a.n, m = b.n;
    for (size_t j = 0; j <= m; j++)
        prev[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *reuse = prev2;

        cur[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t cost = lower(a.p[i - 1]) != lower(b.p[j - 1]);
            size_t d = MIN(MIN(prev[j] + 1, cur[j - 1] + 1), prev[j - 1] + cost);

            if (i > 1 && j > 1 && lower(a.p[i - 1]) == lower(b.p[j - 2]) &&
                lower(a.p[i - 2]) == lower(b.p[j - 1]))
                d = MIN(d, prev2[j - 2] + 1);
            cur[j] = d;
        }
        prev2 = prev, prev = cur, cur = reuse;
    }
    return prev[m];
}

str str_suggest(str s, const str *candidates, size_t n)
{
    size_t best = SIZE_MAX;
    str found = STR_NULL;

    for (size_t i = 0; i < n; i++) {
        size_t d = str_distance(s, candidates[i]);

        if (d < best && d <= MAX((size_t)1, MIN(s.n, candidates[i].n) / 3))
            best = d, found = candidates[i];
    }
    return found;
}
