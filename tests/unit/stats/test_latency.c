/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"
#include "check.h"
#include "stats/latency.h"

static struct latency l, m;

static void test_bucket_edges(void)
{
    CHECK_INT(latency_bucket(0), 0);
    CHECK_INT(latency_bucket(1023), 0);
    CHECK_INT(latency_bucket(1024), 1);
    CHECK_INT(latency_bucket(UINT64_C(1) << 37), LATENCY_BUCKETS - 1);
    CHECK_INT(latency_bucket(UINT64_MAX), LATENCY_BUCKETS - 1);
    for (uint32_t i = 1; i < LATENCY_BUCKETS; i++) {
        uint64_t from = latency_bucket_from_ns(i);

        CHECK_INT(latency_bucket(from), i);
        CHECK_INT(latency_bucket(from - 1), i - 1);
        if (i + 1 < LATENCY_BUCKETS)
            CHECK((double)(latency_bucket_from_ns(i + 1) - from) <= (double)from / 32.0);
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void test_quantiles_within_a_64th(void)
{
    enum { N = 20000 };
    static uint64_t x[N];
    struct rng r;
    double sum = 0;

    rng_seed(&r, 3);
    latency_clear(&l);
    for (int i = 0; i < N; i++) {
        x[i] = (uint64_t)(1e6 * exp(1.5 * rng_normal(&r))) + 2000;
        latency_record(&l, x[i]);
        sum += (double)x[i];
    }
    qsort(x, N, sizeof(x[0]), by_value);
    for (double q = 0.001; q <= 1.0; q += 0.001) {
        double want = (double)x[(size_t)ceil(q * N) - 1];

        CHECK(fabs((double)latency_quantile_ns(&l, q) - want) <= want / 64.0 + 1);
    }
    CHECK_INT(latency_quantile_ns(&l, 0), x[0]);
    CHECK_INT(latency_quantile_ns(&l, 1), x[N - 1]);
    CHECK_NEAR(latency_mean_ns(&l), sum / N, 1e-6 * sum / N);
}

static void test_merge_is_addition(void)
{
    static struct latency both;

    latency_clear(&l);
    latency_clear(&m);
    latency_clear(&both);
    CHECK_INT(latency_quantile_ns(&l, 0.5), 0);
    for (uint64_t i = 0; i < 1000; i++) {
        latency_record(i % 3 ? &l : &m, i * 77777);
        latency_record(&both, i * 77777);
    }
    latency_merge(&l, &m);
    CHECK(memcmp(&l, &both, sizeof(l)) == 0);
    latency_clear(&m);
    latency_merge(&l, &m);
    CHECK(memcmp(&l, &both, sizeof(l)) == 0);
}

static void test_above(void)
{
    latency_clear(&l);
    latency_record(&l, 500);
    latency_record(&l, 1u << 20);
    latency_record(&l, 1u << 21);
    latency_record(&l, UINT64_C(1) << 40);
    CHECK_INT(latency_above(&l, 0), 4);
    CHECK_INT(latency_above(&l, 1u << 20), 3);
    CHECK_INT(latency_above(&l, 1u << 21), 2);
    CHECK_INT(latency_above(&l, (1u << 21) + (1u << 20)), 1);
}

RUN_TESTS(T(test_bucket_edges), T(test_quantiles_within_a_64th), T(test_merge_is_addition),
          T(test_above))
