/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdio.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

static atomic_uint_fast64_t alloc_count;
static atomic_int_fast64_t fail_after = -1;

static void *or_abort(void *p, size_t bytes)
{
    if (UNLIKELY(!p)) {
        fprintf(stderr, "weir: out of memory (%zu bytes)\n", bytes);
        abort();
    }
    return p;
}

static void count_one(void)
{
    atomic_fetch_add_explicit(&alloc_count, 1, memory_order_relaxed);
}

/* True when a test asked for this call to fail. One relaxed load when no test is under way. */
static bool must_fail(void)
{
    if (LIKELY(atomic_load_explicit(&fail_after, memory_order_relaxed) < 0))
        return false;
    return atomic_fetch_sub(&fail_after, 1) == 0;
}

void *mem_alloc(size_t bytes)
{
    count_one();
    return or_abort(malloc(bytes ? bytes : 1), bytes);
}

void *mem_zalloc(size_t bytes)
{
    count_one();
    return or_abort(calloc(1, bytes ? bytes : 1), bytes);
}

void *mem_zalloc_aligned(size_t alignment, size_t bytes)
{
    size_t rounded = (bytes + alignment - 1) & ~(alignment - 1);
    void *p = or_abort(aligned_alloc(alignment, rounded ? rounded : alignment), bytes);

    count_one();
    return memset(p, 0, bytes);
}

void *mem_realloc(void *p, size_t bytes)
{
    count_one();
    return or_abort(realloc(p, bytes ? bytes : 1), bytes);
}

void *mem_try_alloc(size_t bytes)
{
    count_one();
    return must_fail() ? NULL : malloc(bytes ? bytes : 1);
}

void *mem_try_realloc(void *p, size_t bytes)
{
    count_one();
    return must_fail() ? NULL : realloc(p, bytes ? bytes : 1);
}

void mem_free(void *p)
{
    free(p);
}

char *mem_dupz(const void *p, size_t n)
{
    char *z = mem_alloc(n + 1);

    if (n)
        memcpy(z, p, n);
    z[n] = '\0';
    return z;
}

uint64_t mem_alloc_count(void)
{
    return atomic_load_explicit(&alloc_count, memory_order_relaxed);
}

void mem_test_fail_after(int64_t k)
{
    atomic_store(&fail_after, k);
}

#define KEEP_BYTES (64 << 20)
#define MMAP_BYTES (32 << 20) /* the most that glibc takes, and comes to by itself */
#define RETURN_BYTES (128 << 10)

void mem_return_early(bool on)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_THRESHOLD, MMAP_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, on ? RETURN_BYTES : KEEP_BYTES);
#else
    (void)on;
#endif
}

void mem_trim(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}
