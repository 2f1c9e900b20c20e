/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/mem.h"

static void test_counts(void)
{
    uint64_t before = mem_alloc_count();
    void *p = mem_alloc(10), *z = mem_zalloc(0);
    char *s = mem_dupz("abc", 2);

    p = mem_realloc(p, 20);
    CHECK_INT(mem_alloc_count() - before, 4);
    CHECK_STR(str_of(s), S("ab"));
    mem_free(p);
    mem_free(z);
    mem_free(s);
    mem_free(NULL);
}

static void test_kth_failure(void)
{
    AUTO(mem_freep) void *p = NULL;

    mem_test_fail_after(2);
    for (int i = 0; i < 5; i++) {
        void *larger = mem_try_realloc(p, 8 + (size_t)i);

        CHECK((larger == NULL) == (i == 2));
        if (larger)
            p = larger;
    }
    mem_test_fail_after(0);
    CHECK(!mem_try_alloc(1));
    mem_test_fail_after(0);
    mem_test_fail_after(-1);
    mem_free(p);
    p = mem_try_alloc(1);
    CHECK(p);
}

RUN_TESTS(T(test_counts), T(test_kth_failure))
