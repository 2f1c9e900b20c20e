/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A strict JSON scanner over bytes in memory, for the readers of the hot path. It allocates
 * nothing, builds nothing, and never reads past `end`. Private to wire/.
 *
 * Functions return false either at a natural end or with `wrong` set; a set `wrong` is sticky in
 * the caller's hands: stop and return scan_error().
 */
#pragma once

#include "base/arena.h"
#include "base/num.h"

#define SCAN_DEPTH_MAX 32

struct scan {
    const char *p; /* next byte */
    const char *end;
    const char *start;
    const char *wrong; /* what was expected at p, a literal; NULL while all is well */
    uint32_t depth;
};

struct scan_text {
    str raw; /* between the quotes */
    bool escaped;
};

static inline void scan_begin(struct scan *s, str text)
{
    const char *p = text.p ? text.p : "";

    *s = (struct scan){.p = p, .end = p + text.n, .start = p};
}

/* Notes what was expected at the current place; returns false. */
bool scan_wrong(struct scan *s, const char *expected);

/* INVALID_ARGUMENT "JSON byte 17: expected ..., got ...". */
NODISCARD int scan_error(const struct scan *s, struct err *e);

static inline void scan_blank(struct scan *s)
{
    while (s->p < s->end && (unsigned char)*s->p <= ' ' &&
           (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

/* The next byte after blanks, or 0 at the end (a NUL byte is no JSON either). */
static inline char scan_peek(struct scan *s)
{
    scan_blank(s);
    return s->p < s->end ? *s->p : '\0';
}

/* Takes c if it comes next. */
static inline bool scan_take(struct scan *s, char c)
{
    if (scan_peek(s) != c)
        return false;
    s->p++;
    return true;
}

/* '{' or '[': goes one level deeper, or sets wrong with `expected`. */
bool scan_open(struct scan *s, char bracket, const char *expected);

/* The next member's key and its colon; false at the closing brace (which is taken) or when wrong.
 * `*first` is true before the first call. */
bool scan_member(struct scan *s, struct scan_text *ret_key, bool *first);

/* True when another item of the array follows; false at the closing bracket or when wrong. */
bool scan_item(struct scan *s, bool *first);

bool scan_string(struct scan *s, struct scan_text *ret_text);
bool scan_number(struct scan *s, double *ret_value, int64_t *ret_int, bool *ret_exact_int);

/* true, false or null at p, taken if it matches (no blanks skipped). */
bool scan_word(struct scan *s, str word);

/* Any value, checked and skipped; *ret_text (if not NULL) is its text. */
bool scan_value(struct scan *s, str *ret_text);

/* An object of at most `members_max` members without two equal keys; values are skipped. */
bool scan_flat_object(struct scan *s, uint32_t members_max, str *ret_text);

/* Only blanks may remain. */
bool scan_finish(struct scan *s);

/* The text without escapes: borrowed from the input when there are none, else in the arena. p is
 * NULL when the arena is full (never for an empty text). */
str scan_unescape(struct scan_text text, struct arena *a);

/* Kind of the value at p, in words: "a string", "null", ... for messages. */
const char *scan_kind(const struct scan *s);
