/* SPDX-License-Identifier: Apache-2.0 */
/* Quota counters on disk: they come back, and a damaged file says so. */
#include "check.h"

#include "base/files.h"
#include "serve/auth/priv.h"

#include <unistd.h>

static char folder[] = "/tmp/weir-quota-XXXXXX";

static void test_round_trip(void)
{
    AUTO(limits_freep) struct limits *before = limits_new(), *after = limits_new();
    AUTO(arena_done) struct arena a = {0};
    struct bucket *b;
    struct err e;
    char *path;
    str bytes;

    arena_init(&a, 0);
    NEED(mkdtemp(folder) != NULL);
    path = path_join(&a, folder, "quotas");
    NEED_OK(quota_load(path, after, &e), &e); /* no file: nothing was counted yet */
    for (uint64_t i = 1; i <= 3000; i++) {
        b = limits_bucket(before, i);
        for (uint64_t n = 0; n < i % 5; n++)
            CHECK(quota_take(&b->day, 20000, 10) && quota_take(&b->month, 684, 10));
    }
    NEED_OK(quota_save(path, before, &e), &e);
    NEED_OK(quota_load(path, after, &e), &e);
    for (uint64_t i = 1; i <= 3000; i++) {
        b = limits_bucket(after, i);
        if (!CHECK_INT(quota_count(b->day, 20000), i % 5) ||
            !CHECK_INT(quota_count(b->month, 684), i % 5))
            break;
    }
    NEED_OK(file_read_all(path, 1 << 20, &a, &bytes, &e), &e);
    CHECK_INT(bytes.n, 16 + 24 * 2400);
    for (size_t at = 0; at < bytes.n; at += 97) { /* any bit turned, any end cut */
        AUTO(limits_freep) struct limits *l = limits_new();

        ((char *)bytes.p)[at] ^= 4;
        NEED_OK(file_replace(path, bytes, &e), &e);
        CHECK_FAILS(quota_load(path, l, &e), DATA_LOSS, &e, "damaged");
        ((char *)bytes.p)[at] ^= 4;
    }
    NEED_OK(file_replace(path, str_take(bytes, bytes.n - 24), &e), &e);
    CHECK_FAILS(quota_load(path, after, &e), DATA_LOSS, &e, "damaged");
    NEED_OK(file_remove(path, &e), &e);
}

RUN_TESTS(T(test_round_trip))
