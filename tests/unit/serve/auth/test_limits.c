/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates and quotas: against a naive token bucket over random times, exact between threads, and what
 * the table of strangers keeps and forgets.
 */
#include "check.h"

#include "base/random.h"
#include "base/time.h"
#include "loop/thread.h"
#include "serve/auth/limits.h"

#define THREADS 4

/* A bucket that fills by one token each interval, in whole numbers, and holds `burst`. Credit is in
 * nanoseconds, so nothing is rounded. */
struct naive {
    int64_t credit_ns, at_ns;
};

static bool naive_take(struct naive *n, const struct gcra *r, int64_t now_ns)
{
    n->credit_ns = MIN(n->credit_ns + (now_ns - n->at_ns), r->tolerance_ns);
    n->at_ns = now_ns;
    if (n->credit_ns < r->interval_ns)
        return false;
    n->credit_ns -= r->interval_ns;
    return true;
}

static void one_history(struct rng *rng)
{
    struct plan_rate rate = {(uint32_t)(1 + rng_below(rng, 1000)),
                             (uint32_t)(1 + rng_below(rng, 50)),
                             (int64_t)(1 + rng_below(rng, 3600)) * NS_PER_S};
    struct gcra r = gcra_of(rate);
    struct naive naive = {r.tolerance_ns, 0};
    uint64_t tat = 0;
    int64_t now = 0;

    for (int i = 0; i < 2000; i++) {
        int64_t wait = 0;
        bool want, got;

        now += rng_below(rng, 4) ? (int64_t)rng_below(rng, (uint64_t)r.interval_ns)
                                 : (int64_t)rng_below(rng, (uint64_t)(r.tolerance_ns * 2));
        want = naive_take(&naive, &r, now);
        got = gcra_take(&tat, &r, now, &wait);
        if (!CHECK(want == got))
            return;
        if (got)
            continue;
        /* A nanosecond before the time that was told is too early, at that time is not. */
        now += wait;
        want = !gcra_take(&tat, &r, now - 1, &wait) && gcra_take(&tat, &r, now, &wait);
        if (!CHECK(want && naive_take(&naive, &r, now)))
            return;
    }
}

static void test_against_naive(void)
{
    struct rng rng;

    rng_seed(&rng, 7);
    for (int i = 0; i < 300; i++)
        one_history(&rng);
}

/* Within any window at most burst + window / interval pass. */
static void test_window_bound(void)
{
    struct gcra r = gcra_of((struct plan_rate){100, 10, NS_PER_S});
    uint64_t tat = 0;
    int64_t wait;
    int passed = 0;

    for (int64_t now = 0; now < 3 * NS_PER_S; now += NS_PER_MS / 4)
        passed += gcra_take(&tat, &r, now, &wait);
    CHECK_INT(passed, 10 + 299);
}

/* A plan that raises a rate frees those who were over the old one, but for one interval. */
static void test_other_rate(void)
{
    struct gcra slow = gcra_of((struct plan_rate){1, 10, 60 * NS_PER_S});
    struct gcra fast = gcra_of((struct plan_rate){1000, 10, NS_PER_S});
    uint64_t tat = 0;
    int64_t wait;

    while (gcra_take(&tat, &slow, 5, &wait))
        continue;
    CHECK(!gcra_take(&tat, &fast, 5, &wait));
    CHECK_INT(wait, NS_PER_MS);
    CHECK(gcra_take(&tat, &fast, 5 + NS_PER_MS, &wait));
    CHECK(!gcra_take(&tat, &fast, 5 + NS_PER_MS, &wait));
}

static void test_give_back(void)
{
    struct gcra r = gcra_of((struct plan_rate){1, 3, NS_PER_S});
    uint64_t tat = 0;
    int64_t wait;

    for (int i = 0; i < 100; i++) {
        CHECK(gcra_take(&tat, &r, 5, &wait));
        gcra_give_back(&tat, &r);
    }
    for (int i = 0; i < 3; i++)
        CHECK(gcra_take(&tat, &r, 5, &wait));
    CHECK(!gcra_take(&tat, &r, 5, &wait));
    CHECK_INT(wait, NS_PER_S);
}

/* --- Threads ---------------------------------------------------------------------------------- */

static struct {
    struct gcra rate;
    uint64_t tat, quota, passed, counted;
} shared;

static void hammer(void *arg)
{
    uint64_t passed = 0, counted = 0;
    int64_t wait;

    (void)arg;
    for (int i = 0; i < 100000; i++) {
        passed += gcra_take(&shared.tat, &shared.rate, NS_PER_S + i * 10, &wait);
        counted += quota_take(&shared.quota, 7, 123456);
    }
    __atomic_add_fetch(&shared.passed, passed, __ATOMIC_RELAXED);
    __atomic_add_fetch(&shared.counted, counted, __ATOMIC_RELAXED);
}

static void test_threads_are_exact(void)
{
    struct thread threads[THREADS] = {0};
    struct err e;

    shared.rate = gcra_of((struct plan_rate){1000000, 5000, NS_PER_S}); /* an interval of 1 us */
    for (int i = 0; i < THREADS; i++)
        NEED_OK(thread_start(&threads[i], "hammer", THREAD_ANY_CPU, hammer, NULL, &e), &e);
    for (int i = 0; i < THREADS; i++)
        thread_join(&threads[i]);
    /* Clocks of the threads differ, but the last time any of them saw is 1 ms after the first. */
    CHECK_INT(shared.passed, 5000 + 100000 * 10 / 1000 - 1);
    CHECK_INT(shared.counted, 123456);
    CHECK_INT(quota_count(shared.quota, 7), 123456);
}

/* --- Quotas ----------------------------------------------------------------------------------- */

static void test_calendar(void)
{
    static const struct {
        const char *at, *day_ends, *month_ends;
        uint32_t month;
    } cases[] = {
        {"1970-01-01T00:00:00Z", "1970-01-02T00:00:00Z", "1970-02-01T00:00:00Z", 0},
        {"2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z", "2024-03-01T00:00:00Z", 649},
        {"2026-12-31T12:00:00Z", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z", 683},
        {"2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z", "2027-02-01T00:00:00Z", 684},
        {"2100-02-28T00:00:00Z", "2100-03-01T00:00:00Z", "2100-03-01T00:00:00Z", 1561},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t at = 0, day = 0, month = 0;
        struct quota_time t;

        NEED(time_parse_iso(str_of(cases[i].at), &at));
        NEED(time_parse_iso(str_of(cases[i].day_ends), &day));
        NEED(time_parse_iso(str_of(cases[i].month_ends), &month));
        quota_time_of(at, &t);
        CHECK_INT(t.day_ends_ns, day);
        CHECK_INT(t.month_ends_ns, month);
        CHECK_INT(t.month, cases[i].month);
        CHECK_INT(t.day, at / (86400 * NS_PER_S));
    }
}

static void test_quotas(void)
{
    uint64_t word = 0;

    CHECK(quota_take(&word, 5, 2) && quota_take(&word, 5, 2) && !quota_take(&word, 5, 2));
    quota_give_back(&word, 5);
    CHECK(quota_take(&word, 5, 2) && !quota_take(&word, 5, 2));
    CHECK(!quota_take(&word, 4, 2)); /* a clock that steps back is no new day */
    CHECK(quota_take(&word, 6, 2));
    CHECK_INT(quota_count(word, 6), 1);
    quota_give_back(&word, 5); /* of a day that is over: nothing */
    CHECK_INT(quota_count(word, 6), 1);
}

/* --- Where they live -------------------------------------------------------------------------- */

static void test_buckets_are_for_ever(void)
{
    AUTO(limits_freep) struct limits *l = limits_new();
    struct bucket *first = limits_bucket(l, bucket_id(BUCKET_KEY, S("0")));
    char name[16];

    first->tat_ns = 77;
    for (int i = 0; i < 20000; i++) {
        struct bucket *b;

        snprintf(name, sizeof(name), "%d", i);
        b = limits_bucket(l, bucket_id(BUCKET_KEY, str_of(name)));
        if (!CHECK(b && (uintptr_t)b % 64 == 0 && (i == 0) == (b->tat_ns == 77)))
            return;
    }
    CHECK(limits_bucket(l, bucket_id(BUCKET_KEY, S("0"))) == first);
    CHECK(bucket_id(BUCKET_KEY, S("a")) != bucket_id(BUCKET_TENANT, S("a")));
}

static void test_crowd_remembers(void)
{
    struct gcra r = gcra_of((struct plan_rate){1, 1, 10 * NS_PER_S});
    struct crowd c;
    int64_t wait;
    uint64_t again = 0;

    crowd_init(&c);
    /* A tenth of the places in use: whoever comes back is remembered. */
    for (uint64_t i = 0; i < CROWD_PLACES / 10; i++)
        CHECK(gcra_take(crowd_tat(&c, crowd_id(&c, &i, 8, 0), NS_PER_S), &r, NS_PER_S, &wait));
    for (uint64_t i = 0; i < CROWD_PLACES / 10; i++)
        again += gcra_take(crowd_tat(&c, crowd_id(&c, &i, 8, 0), NS_PER_S), &r, NS_PER_S, &wait);
    CHECK(again < 10); /* sets of four that five of them share */
    crowd_done(&c);
}

/* A flood of addresses takes places from those who have least to be reminded of, and a newcomer
 * never inherits a debt. */
static void test_crowd_under_flood(void)
{
    struct gcra slow = gcra_of((struct plan_rate){1, 100, NS_PER_S});
    uint64_t heavy = 1;
    struct crowd c;
    int64_t wait;

    crowd_init(&c);
    for (int i = 0; i < 100; i++)
        CHECK(gcra_take(crowd_tat(&c, heavy, NS_PER_S), &slow, NS_PER_S, &wait));
    for (uint64_t i = 0; i < 8 * CROWD_PLACES; i++) {
        uint64_t *tat = crowd_tat(&c, crowd_id(&c, &i, 8, 0), NS_PER_S);

        if (!CHECK(gcra_take(tat, &slow, NS_PER_S, &wait)))
            break;
    }
    CHECK(!gcra_take(crowd_tat(&c, heavy, NS_PER_S), &slow, NS_PER_S, &wait));
    crowd_done(&c);
}

RUN_TESTS(T(test_against_naive), T(test_window_bound), T(test_other_rate), T(test_give_back),
          T(test_threads_are_exact), T(test_calendar), T(test_quotas), T(test_buckets_are_for_ever),
          T(test_crowd_remembers), T(test_crowd_under_flood))
