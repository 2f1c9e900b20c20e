/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arenas: memory by lifetime (request, loop turn, plan, process), passed explicitly.
 *
 * Allocation bumps a pointer; reset frees all at once and keeps the first block, so that an arena
 * in steady state never calls the allocator. An arena may have a cap: past it arena_alloc returns
 * NULL and the sticky flag `overflowed` is set, to be tested once at the end of a parse. An arena
 * without a cap never returns NULL. Under ASan, memory is poisoned after reset and between
 * allocations.
 */
#pragma once

#include "base/str.h"

struct arena_block;
struct arena {
    struct arena_block *first; /* owned list; first is kept by reset */
    struct arena_block *current;
    size_t used_bytes; /* since the last reset */
    size_t max_bytes;  /* 0 = no cap */
    bool overflowed;
};

void arena_init(struct arena *a, size_t max_bytes);
void arena_reset(struct arena *a);
void arena_done(struct arena *a); /* accepts a zeroed arena; AUTO(arena_done) */

void *arena_alloc(struct arena *a, size_t bytes);  /* 16-aligned, uninitialised */
void *arena_zalloc(struct arena *a, size_t bytes); /* zeroed */
#define ARENA_NEW(a, type) ((type *)arena_zalloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, count) ((type *)arena_zalloc_array((a), sizeof(type), (count)))
void *arena_zalloc_array(struct arena *a, size_t size, size_t count); /* checks the product */

str arena_dup(struct arena *a, str s);    /* the copy is also NUL-terminated */
char *arena_dupz(struct arena *a, str s); /* the same, as a C string */
str arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
