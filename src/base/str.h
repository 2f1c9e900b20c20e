/* SPDX-License-Identifier: Apache-2.0 */
/*
 * str: a borrowed slice of bytes, by value. NUL-terminated strings exist only at the edge of the
 * OS. Printing: printf("model " STR_F "\n", STR_A(name)).
 */
#pragma once

#include "base/err.h"

#include <string.h>

typedef struct str {
    const char *p; /* borrowed; may be NULL when n is 0 */
    size_t n;      /* bytes */
} str;

#define S(literal) ((str){"" literal, sizeof(literal) - 1})
#define S_INIT(literal)                 \
    {                                   \
        "" literal, sizeof(literal) - 1 \
    } /* for static initialisers */
#define STR_F "%.*s"
#define STR_A(s) (int)(s).n, (s).p ? (s).p : ""
#define STR_NULL ((str){NULL, 0})

static inline str str_of(const char *z) /* z: NUL-terminated, or NULL */
{
    return (str){z, z ? strlen(z) : 0};
}

static inline str str_range(const char *from, const char *to)
{
    return (str){from, (size_t)(to - from)};
}

static inline bool str_eq(str a, str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool str_eqz(str a, const char *z)
{
    return str_eq(a, str_of(z));
}

int str_cmp(str a, str b);        /* bytewise, shorter first: for qsort-like order */
bool str_eq_nocase(str a, str b); /* ASCII only */
bool str_starts(str s, str prefix);
bool str_ends(str s, str suffix);
str str_trim(str s);                   /* ASCII white space at both ends */
str str_skip(str s, size_t n);         /* without the first min(n, s.n) bytes */
str str_take(str s, size_t n);         /* the first min(n, s.n) bytes */
ptrdiff_t str_find(str s, str needle); /* offset of the first occurrence, or -1 */
ptrdiff_t str_find_char(str s, char c);

/* Cuts *rest at the first `sep`: returns what is before it and advances *rest past it. At the last
 * piece *rest becomes STR_NULL (p == NULL), which ends a `while (rest.p)` loop. */
str str_cut(str *rest, char sep);

/* Strict decimal parsing: the whole slice must be the number; no blanks, no leading '+'. Reals may
 * be written .5, 5. and 007 too; not inf, nan or hexadecimal. */
NODISCARD bool str_to_i64(str s, int64_t *ret_value);
NODISCARD bool str_to_u64(str s, uint64_t *ret_value);
NODISCARD bool str_to_f64(str s, double *ret_value); /* finite only; any length */

bool str_is_utf8(str s);     /* strict: no surrogates, no overlong forms */
size_t str_utf8_step(str s); /* bytes of the valid sequence that s starts with, or 0 */

/* True for names usable in paths and metrics: [A-Za-z0-9][A-Za-z0-9._-]{0,127}, no "..". */
bool str_is_name(str s);

/* Copies into a NUL-terminated buffer for the OS; false (and "") when it does not fit or holds NUL.
 */
NODISCARD bool str_to_z(str s, char *ret_z, size_t size);

/* Damerau-Levenshtein distance of two short names, for "did you mean". At most 64 bytes compared.
 */
size_t str_distance(str a, str b);

/* The candidate nearest to `s` if it is near enough to suggest, else STR_NULL. */
str str_suggest(str s, const str *candidates, size_t n);
