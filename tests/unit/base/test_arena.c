/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/arena.h"
#include "base/mem.h"
#include "base/random.h"

/* Many pieces of random sizes: aligned, disjoint, and still what was written into them. */
static void test_pieces_keep_their_bytes(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct {
        unsigned char *p;
        size_t n;
    } pieces[500];
    struct rng r;

    rng_seed(&r, 1);
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
            pieces[i].n = rng_below(&r, i % 50 ? 300 : 20000);
            pieces[i].p = arena_alloc(&a, pieces[i].n);
            NEED(pieces[i].p && (uintptr_t)pieces[i].p % 16 == 0);
            memset(pieces[i].p, (int)(i & 255), pieces[i].n);
        }
        for (size_t i = 0; i < ARRAY_LEN(pieces); i++)
            for (size_t k = 0; k < pieces[i].n; k++)
                NEED(pieces[i].p[k] == (i & 255));
        arena_reset(&a);
        CHECK_INT(a.used_bytes, 0);
    }
}

static void test_steady_state_allocates_nothing(void)
{
    AUTO(arena_done) struct arena a = {0};
    uint64_t before = 0;

    for (int round = 0; round < 10; round++) {
        if (round == 3)
            before = mem_alloc_count();
        for (int i = 0; i < 100; i++)
            CHECK(arena_alloc(&a, 1000));
        arena_reset(&a);
    }
    CHECK_INT(mem_alloc_count() - before, 0);
}

static void test_cap_is_sticky(void)
{
    AUTO(arena_done) struct arena a;

    arena_init(&a, 1000);
    CHECK(arena_alloc(&a, 900));
    CHECK(!arena_alloc(&a, 200));
    CHECK(a.overflowed);
    CHECK(arena_alloc(&a, 64)); /* a small one still fits; the flag stays */
    CHECK(a.overflowed);
    CHECK(!ARENA_ARRAY(&a, uint64_t, SIZE_MAX / 4));
    CHECK(!arena_dup(&a, (str){"x", 2000}).p);
    CHECK(!arena_dupz(&a, (str){"x", 2000}));
    CHECK(!arena_printf(&a, "%2000d", 1).p);
    arena_reset(&a);
    CHECK(!a.overflowed && a.max_bytes == 1000);
    CHECK(arena_alloc(&a, 992));
}

static void test_failed_allocation_is_overflow(void)
{
    for (int64_t k = 0; k < 4; k++) {
        AUTO(arena_done) struct arena a;
        int got = 0;

        arena_init(&a, (size_t)1 << 20);
        mem_test_fail_after(k);
        for (int i = 0; i < 40; i++)
            got += arena_alloc(&a, 1000) != NULL;
        mem_test_fail_after(-1);
        CHECK(a.overflowed == (got < 40));
        arena_reset(&a);
        CHECK(arena_alloc(&a, 10));
    }
}

static void test_strings(void)
{
    AUTO(arena_done) struct arena a = {0};
    str s = arena_dup(&a, S("model"));

    CHECK_STR(s, S("model"));
    CHECK(s.p[s.n] == '\0');
    CHECK_STR(arena_dup(&a, STR_NULL), S(""));
    CHECK_STR(arena_printf(&a, "%s-%d", "v", 12), S("v-12"));
    CHECK_STR(str_of(arena_dupz(&a, S("z"))), S("z"));
    for (const unsigned char *p = arena_zalloc(&a, 5000), *q = p; q < p + 5000; q++)
        NEED(*q == 0);
}

RUN_TESTS(T(test_pieces_keep_their_bytes), T(test_steady_state_allocates_nothing),
          T(test_cap_is_sticky), T(test_failed_allocation_is_overflow), T(test_strings))
