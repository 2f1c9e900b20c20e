/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of one nghttp2 session. nghttp2 makes and drops a few small objects for each stream
 * and frame; here they come from free lists by power of two, so that in steady state the allocator
 * is not called, and they are summed, so that a peer cannot make a session grow without end: past
 * the cap an allocation fails, which nghttp2 reports and which ends the session.
 *
 * A block's class stands in front of it. Blocks over the largest class go to the allocator.
 */
#include "base/mem.h"
#include "wire/http2_priv.h"

#define SMALLEST_BYTES 32

struct http2_block {
    union {
        struct http2_block *next; /* while free */
        size_t bytes;             /* of the block, this header included */
    };
    _Alignas(16) char data[];
};

/* The class of a block of so many bytes; HTTP2_POOL_CLASSES when it is too large. */
static unsigned class_of(size_t bytes)
{
    unsigned class = bytes <= SMALLEST_BYTES ? 0 : 64u - (unsigned)__builtin_clzl(bytes - 1) - 5u;

    return MIN(class, (unsigned)HTTP2_POOL_CLASSES);
}

static struct http2_block *block_of(void *p)
{
    return CONTAINER_OF(p, struct http2_block, data);
}

static void *pool_alloc(size_t n, void *user)
{
    struct http2_pool *p = user;
    size_t bytes = n + sizeof(struct http2_block);
    unsigned class = class_of(bytes);
    struct http2_block *b = NULL;

    if (class < HTTP2_POOL_CLASSES) {
        bytes = (size_t)SMALLEST_BYTES << class;
        b = p->free[class];
    }
    if (n > p->max_bytes || bytes > p->max_bytes - MIN(p->used_bytes, p->max_bytes))
        return NULL;
    if (b) {
        p->free[class] = b->next;
        p->kept_bytes -= bytes;
    } else {
        b = mem_try_alloc(bytes);
        if (!b)
            return NULL;
    }
    b->bytes = bytes;
    p->used_bytes += bytes;
    return b->data;
}

static void pool_free(void *data, void *user)
{
    struct http2_pool *p = user;
    struct http2_block *b;
    unsigned class;

    if (!data)
        return;
    b = block_of(data);
    class = class_of(b->bytes);
    p->used_bytes -= b->bytes;
    if (class == HTTP2_POOL_CLASSES) {
        mem_free(b);
        return;
    }
    p->kept_bytes += b->bytes;
    b->next = p->free[class];
    p->free[class] = b;
}

static void *pool_calloc(size_t count, size_t size, void *user)
{
    size_t n;
    void *data = __builtin_mul_overflow(count, size, &n) ? NULL : pool_alloc(n, user);

    return data ? memset(data, 0, n) : NULL;
}

static void *pool_realloc(void *data, size_t n, void *user)
{
    size_t room = data ? block_of(data)->bytes - sizeof(struct http2_block) : 0;
    void *to;

    if (data && n <= room)
        return data;
    to = pool_alloc(n, user);
    if (to && data) {
        memcpy(to, data, room);
        pool_free(data, user);
    }
    return to;
}

void http2_pool_init(struct http2_pool *p, size_t max_bytes)
{
    *p = (struct http2_pool){.max_bytes = max_bytes};
    p->mem = (nghttp2_mem){p, pool_alloc, pool_free, pool_calloc, pool_realloc};
}

void http2_pool_trim(struct http2_pool *p)
{
    for (unsigned i = 0; i < HTTP2_POOL_CLASSES; i++) {
        while (p->free[i]) {
            struct http2_block *b = p->free[i];

            p->free[i] = b->next;
            mem_free(b);
        }
    }
    p->kept_bytes = 0;
}
