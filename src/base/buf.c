/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>

void buf_init(struct buf *b, size_t max_bytes)
{
    ASSERT(max_bytes > 0);
    *b = (struct buf){.max_bytes = max_bytes};
}

void buf_init_fixed(struct buf *b, char *memory, size_t n)
{
    ASSERT(n > 0);
    *b = (struct buf){.p = memory, .cap_bytes = n, .max_bytes = n};
}

void buf_done(struct buf *b)
{
    mem_free(b->p);
    *b = (struct buf){.max_bytes = b->max_bytes};
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    b->overflowed = false;
}

static char *grow(struct buf *b, size_t need)
{
    size_t cap = MAX((size_t)256, MAX(need, b->cap_bytes * 2));
    char *p;

    ASSERT(b->max_bytes > 0);
    cap = MIN(cap, b->max_bytes);
    p = need <= cap ? mem_try_realloc(b->p, cap) : NULL;
    if (!p) {
        b->overflowed = true;
        return NULL;
    }
    b->p = p;
    b->cap_bytes = cap;
    return p + b->n;
}

char *buf_reserve(struct buf *b, size_t bytes)
{
    if (UNLIKELY(bytes > SIZE_MAX / 4)) {
        b->overflowed = true;
        return NULL;
    }
    if (LIKELY(b->cap_bytes - b->n >= bytes && b->p))
        return b->p + b->n;
    return grow(b, b->n + bytes);
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    char *to = n ? buf_reserve(b, n) : NULL;

    if (!to)
        return;
    memcpy(to, p, n);
    b->n += n;
}

void buf_add_str(struct buf *b, str s)
{
    buf_add(b, s.p, s.n);
}

void buf_add_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_add_u64(struct buf *b, uint64_t v)
{
    char digits[20];
    size_t at = sizeof(digits);

    do
        digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    buf_add(b, digits + at, sizeof(digits) - at);
}

void buf_add_i64(struct buf *b, int64_t v)
{
    if (v < 0)
        buf_add_char(b, '-');
    buf_add_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args;
    char *to;
    int n;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    ASSERT(n >= 0);
    to = buf_reserve(b, (size_t)n + 1);
    if (!to)
        return;
    va_start(args, fmt);
    vsnprintf(to, (size_t)n + 1, fmt, args);
    va_end(args);
    b->n += (size_t)n;
}

void buf_consume(struct buf *b, size_t n)
{
    ASSERT(n <= b->n);
    b->n -= n;
    if (n && b->n)
        memmove(b->p, b->p + n, b->n);
}

char *buf_z(struct buf *b)
{
    char *to = buf_reserve(b, 1);

    if (!to)
        return NULL;
    *to = '\0';
    return b->p;
}
