/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/buf.h"
#include "base/mem.h"

static void test_appends(void)
{
    AUTO(buf_done) struct buf b;

    buf_init(&b, 1000);
    buf_add(&b, "ab", 2);
    buf_add_str(&b, STR_NULL);
    buf_add_str(&b, S("cd"));
    buf_add_char(&b, '=');
    buf_add_u64(&b, UINT64_MAX);
    buf_add_char(&b, ' ');
    buf_add_i64(&b, INT64_MIN);
    buf_add_char(&b, ' ');
    buf_add_i64(&b, 0);
    buf_printf(&b, " %s%d", "x", 7);
    CHECK_STR(buf_str(&b), S("abcd=18446744073709551615 -9223372036854775808 0 x7"));
    CHECK_STR(str_of(buf_z(&b)), buf_str(&b));
    buf_consume(&b, 5);
    CHECK(str_starts(buf_str(&b), S("1844")));
    buf_consume(&b, b.n);
    CHECK_INT(b.n, 0);
    CHECK(!b.overflowed);
}

static void test_maximum_is_sticky(void)
{
    AUTO(buf_done) struct buf b;
    char bytes[300] = {0};

    buf_init(&b, 400);
    buf_add(&b, bytes, 300);
    buf_add(&b, bytes, 101);
    CHECK(b.overflowed);
    CHECK_INT(b.n, 300);
    buf_add(&b, bytes, 100);
    CHECK_INT(b.n, 400);
    CHECK(b.overflowed);
    CHECK(!buf_reserve(&b, SIZE_MAX));
    CHECK(!buf_z(&b));
    buf_printf(&b, "%s", "more");
    CHECK_INT(b.n, 400);
    buf_clear(&b);
    CHECK(!b.overflowed && b.n == 0);
}

static void test_failed_allocation_is_overflow(void)
{
    AUTO(buf_done) struct buf b;

    buf_init(&b, BUF_MAX_DEFAULT);
    buf_add(&b, "kept", 4);
    mem_test_fail_after(0);
    buf_reserve(&b, 100000);
    mem_test_fail_after(-1);
    CHECK(b.overflowed);
    CHECK_STR(buf_str(&b), S("kept"));
}

static void test_fixed_never_allocates(void)
{
    uint64_t before = mem_alloc_count();
    char memory[8];
    struct buf b;

    buf_init_fixed(&b, memory, sizeof(memory));
    buf_add_str(&b, S("12345678"));
    CHECK(!b.overflowed);
    buf_add_char(&b, '9');
    CHECK(b.overflowed);
    CHECK_STR(buf_str(&b), S("12345678"));
    CHECK(b.p == memory);
    CHECK_INT(mem_alloc_count() - before, 0);
}

RUN_TESTS(T(test_appends), T(test_maximum_is_sticky), T(test_failed_allocation_is_overflow),
          T(test_fixed_never_allocates))
