/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory seam. Small, fixed-size allocations abort when memory is gone: there is nothing useful
 * left to do. Memory sized by a user goes through mem_try_alloc() and becomes RESOURCE_EXHAUSTED.
 * Tests make the k-th call of mem_try_alloc fail, and count allocations.
 */
#pragma once

#include "base/base.h"

void *mem_alloc(size_t bytes) __attribute__((malloc, returns_nonnull)); /* aborts on failure */
void *mem_zalloc(size_t bytes) __attribute__((malloc, returns_nonnull));
/* alignment: a power of two >= 16; zeroed; freed by mem_free. */
void *mem_zalloc_aligned(size_t alignment, size_t bytes) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *p, size_t bytes) __attribute__((returns_nonnull));
NODISCARD void *mem_try_alloc(size_t bytes);            /* NULL on failure */
NODISCARD void *mem_try_realloc(void *p, size_t bytes); /* NULL on failure, p stays valid */
void mem_free(void *p);                                 /* accepts NULL */
char *mem_dupz(const void *p, size_t n);                /* copy of n bytes plus a NUL */

/* For who frees much at once, as a model: while `on`, free memory at the end of an arena goes back
 * to the system with each free. Else as much stays as the allocator would keep once it has seen
 * large blocks, so that what runs need time and again is not fetched anew. One thread at a time. */
void mem_return_early(bool on);
void mem_trim(void); /* gives the free pages in between back too: milliseconds */

/* For AUTO(mem_freep) on any pointer. */
static inline UNUSED void mem_freep(void *pp)
{
    mem_free(*(void **)pp);
}

uint64_t mem_alloc_count(void);      /* allocations of this process through this seam */
void mem_test_fail_after(int64_t k); /* the k-th next mem_try_* fails (0 = the next); -1 = never */
