/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable byte buffer that declares its maximum when it is made. An append past the maximum (or
 * past memory) sets the sticky flag `overflowed` and appends nothing; test it once at the end.
 */
#pragma once

#include "base/str.h"

struct buf {
    char *p;  /* owned */
    size_t n; /* bytes used */
    size_t cap_bytes;
    size_t max_bytes;
    bool overflowed;
};

#define BUF_MAX_DEFAULT ((size_t)256 << 20)

void buf_init(struct buf *b, size_t max_bytes);
/* Over memory of the caller, n bytes and no more: no allocation; never buf_done() such a buf. */
void buf_init_fixed(struct buf *b, char *memory, size_t n);
void buf_done(struct buf *b);                   /* AUTO(buf_done); accepts a zeroed buf */
void buf_clear(struct buf *b);                  /* keeps the memory, clears `overflowed` */
char *buf_reserve(struct buf *b, size_t bytes); /* room for `bytes` at the end, or NULL */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_add_str(struct buf *b, str s);
void buf_add_char(struct buf *b, char c);
void buf_add_u64(struct buf *b, uint64_t v); /* decimal, without printf: for hot paths */
void buf_add_i64(struct buf *b, int64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_consume(struct buf *b, size_t n);     /* drops the first n bytes */
static inline str buf_str(const struct buf *b) /* borrowed until the next change */
{
    return (str){b->p, b->n};
}
char *buf_z(struct buf *b); /* NUL-terminated view; the NUL is not counted */
