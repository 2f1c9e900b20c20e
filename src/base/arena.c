/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks form a list from `first`; `current` is the one being filled. Reset frees all but the
 * first, and when the last use needed more than one block it replaces the first by one large enough
 * for all of it: an arena that serves the same work again soon stops calling the allocator.
 */
#include "base/arena.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#define GAP_BYTES 16 /* between allocations, always poisoned */
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#define GAP_BYTES 0
#endif

#define BLOCK_BYTES_MIN ((size_t)4096 - sizeof(struct arena_block))
#define BLOCK_BYTES_MAX ((size_t)1 << 20)

struct arena_block {
    struct arena_block *next;
    size_t cap_bytes;
    size_t used_bytes;
    _Alignas(16) char bytes[];
};

void arena_init(struct arena *a, size_t max_bytes)
{
    *a = (struct arena){.max_bytes = max_bytes};
}

static struct arena_block *block_new(struct arena *a, size_t bytes)
{
    size_t size = sizeof(struct arena_block) + bytes;
    struct arena_block *b = a->max_bytes ? mem_try_alloc(size) : mem_alloc(size);

    if (!b)
        return NULL;
    b->next = NULL;
    b->cap_bytes = bytes;
    b->used_bytes = 0;
    POISON(b->bytes, b->cap_bytes);
    return b;
}

static void blocks_free(struct arena_block *b)
{
    while (b) {
        struct arena_block *next = b->next;

        UNPOISON(b->bytes, b->cap_bytes);
        mem_free(b);
        b = next;
    }
}

void arena_reset(struct arena *a)
{
    if (a->first && a->first->next) {
        size_t bytes = MIN(a->used_bytes + a->used_bytes / 4, BLOCK_BYTES_MAX);

        blocks_free(a->first->next);
        a->first->next = NULL;
        if (bytes > a->first->cap_bytes) {
            blocks_free(a->first);
            a->first = block_new(a, bytes);
        }
    }
    if (a->first) {
        a->first->used_bytes = 0;
        POISON(a->first->bytes, a->first->cap_bytes);
    }
    a->current = a->first;
    a->used_bytes = 0;
    a->overflowed = false;
}

void arena_done(struct arena *a)
{
    blocks_free(a->first);
    *a = (struct arena){.max_bytes = a->max_bytes};
}

static struct arena_block *grow(struct arena *a, size_t bytes)
{
    size_t want = MAX(BLOCK_BYTES_MIN, MIN(a->used_bytes * 2, BLOCK_BYTES_MAX));
    struct arena_block *b = block_new(a, MAX(want, bytes));

    if (!b)
        return NULL;
    if (a->current)
        a->current->next = b;
    else
        a->first = b;
    a->current = b;
    return b;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    struct arena_block *b = a->current;
    size_t rounded = (bytes + 15) & ~(size_t)15;
    void *p;

    if (UNLIKELY(rounded < bytes || (a->max_bytes && rounded > a->max_bytes - a->used_bytes))) {
        ASSERT(a->max_bytes);
        a->overflowed = true;
        return NULL;
    }
    rounded += GAP_BYTES;
    if (UNLIKELY(!b || rounded > b->cap_bytes - b->used_bytes))
        b = grow(a, rounded);
    if (UNLIKELY(!b)) {
        a->overflowed = true;
        return NULL;
    }
    p = b->bytes + b->used_bytes;
    b->used_bytes += rounded;
    a->used_bytes += rounded - GAP_BYTES;
    UNPOISON(p, bytes);
    return p;
}

void *arena_zalloc(struct arena *a, size_t bytes)
{
    void *p = arena_alloc(a, bytes);

    return p ? memset(p, 0, bytes) : NULL;
}

void *arena_zalloc_array(struct arena *a, size_t size, size_t count)
{
    size_t bytes;

    if (__builtin_mul_overflow(size, count, &bytes)) {
        ASSERT(a->max_bytes);
        a->overflowed = true;
        return NULL;
    }
    return arena_zalloc(a, bytes);
}

str arena_dup(struct arena *a, str s)
{
    char *z = arena_dupz(a, s);

    return z ? (str){z, s.n} : STR_NULL;
}

char *arena_dupz(struct arena *a, str s)
{
    char *z = arena_alloc(a, s.n + 1);

    if (!z)
        return NULL;
    if (s.n)
        memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    return z;
}

str arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args;
    char *z;
    int n;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    ASSERT(n >= 0);
    z = arena_alloc(a, (size_t)n + 1);
    if (!z)
        return STR_NULL;
    va_start(args, fmt);
    vsnprintf(z, (size_t)n + 1, fmt, args);
    va_end(args);
    return (str){z, (size_t)n};
}
