/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates, quotas and where their words live; limits.h says what they promise.
 *
 * Why words and not locks: a limit is met by every request, and the busiest (the whole, one tenant)
 * by all loops at once. A compare-and-swap that fails has lost to a request that passed, so there
 * is always progress.
 *
 * What is not done: nothing is shared between gateways. Each of n gateways lets the whole rate
 * pass.
 */
#include "serve/auth/limits.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"

#include <pthread.h>

#define CHUNK_BUCKETS 1024
#define SKEW_NS (2 * NS_PER_S) /* loops read the clock once a turn: how far they may be apart */

/* --- Rates ------------------------------------------------------------------------------------ */

struct gcra gcra_of(struct plan_rate rate)
{
    struct gcra r = {0};

    if (rate.requests) {
        r.interval_ns = MAX(rate.per_ns / rate.requests, 1);
        r.tolerance_ns = r.interval_ns * (int64_t)MAX(rate.burst, 1);
        r.requests = rate.requests;
    }
    return r;
}

bool gcra_take(uint64_t *tat_ns, const struct gcra *r, int64_t now_ns, int64_t *ret_wait_ns)
{
    uint64_t old = __atomic_load_n(tat_ns, __ATOMIC_RELAXED);

    for (;;) {
        int64_t ahead_ns = MAX((int64_t)old - now_ns, 0), next = now_ns + ahead_ns + r->interval_ns;
        bool passes = next - now_ns <= r->tolerance_ns;

        if (!passes) {
            *ret_wait_ns = next - now_ns - r->tolerance_ns;
            if (ahead_ns <= r->tolerance_ns + SKEW_NS)
                return false;
            /* Only a lower rate can have put it that far: nobody waits for long for what an old
             * plan would have had him wait for. */
            next = now_ns + r->tolerance_ns;
            *ret_wait_ns = r->interval_ns;
        }
        if (__atomic_compare_exchange_n(tat_ns, &old, (uint64_t)next, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
            return passes;
    }
}

void gcra_give_back(uint64_t *tat_ns, const struct gcra *r)
{
    __atomic_sub_fetch(tat_ns, (uint64_t)r->interval_ns, __ATOMIC_RELAXED);
}

/* --- Quotas ----------------------------------------------------------------------------------- */

bool quota_take(uint64_t *word, uint32_t period, uint64_t limit)
{
    uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED);

    for (;;) {
        uint64_t count = quota_count(old, period);

        /* A clock that steps back meets the count of a later period, and goes on counting there. */
        if (old >> QUOTA_COUNT_BITS > period)
            return (old & ((UINT64_C(1) << QUOTA_COUNT_BITS) - 1)) < limit &&
                   quota_take(word, (uint32_t)(old >> QUOTA_COUNT_BITS), limit);
        if (count >= limit)
            return false;
        if (__atomic_compare_exchange_n(word, &old,
                                        (uint64_t)period << QUOTA_COUNT_BITS | (count + 1), true,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return true;
    }
}

void quota_give_back(uint64_t *word, uint32_t period)
{
    uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED);

    while (quota_count(old, period))
        if (__atomic_compare_exchange_n(word, &old, old - 1, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
            return;
}

/* Days from civil (Howard Hinnant's algorithm, proleptic Gregorian), for the first of a month. */
static int64_t days_to_month(int64_t year, int64_t month)
{
    int64_t y = month <= 2 ? year - 1 : year, era = y / 400, yoe = y - era * 400;
    int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5;

    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

void quota_time_of(int64_t wall_ns, struct quota_time *ret)
{
    const int64_t day_ns = 86400 * NS_PER_S;
    int64_t day = MAX(wall_ns, 0) / day_ns, month = day / 31; /* never too late a month */

    while (days_to_month(1970 + (month + 1) / 12, (month + 1) % 12 + 1) <= day)
        month++;
    ret->day = (uint32_t)day;
    ret->month = (uint32_t)month;
    ret->day_ends_ns = (day + 1) * day_ns;
    ret->month_ends_ns = days_to_month(1970 + (month + 1) / 12, (month + 1) % 12 + 1) * day_ns;
}

/* --- Known names ------------------------------------------------------------------------------ */

struct limits {
    pthread_mutex_t lock;
    struct bucket *chunks[LIMITS_BUCKETS_MAX / CHUNK_BUCKETS]; /* owned, never moved */
    uint32_t count;
    uint32_t *slots; /* owned; open addressing over ids: index + 1 */
    uint32_t slot_mask;
};

struct limits *limits_new(void)
{
    struct limits *l = mem_zalloc(sizeof(*l));

    pthread_mutex_init(&l->lock, NULL);
    l->slot_mask = 2 * CHUNK_BUCKETS - 1;
    l->slots = mem_zalloc((l->slot_mask + 1) * sizeof(*l->slots));
    return l;
}

void limits_free(struct limits *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < ARRAY_LEN(l->chunks); i++)
        mem_free(l->chunks[i]);
    mem_free(l->slots);
    pthread_mutex_destroy(&l->lock);
    mem_free(l);
}

uint64_t bucket_id(enum bucket_kind kind, str name)
{
    uint64_t id = hash_str(name, (uint64_t)kind + 1);

    return id ? id : 1;
}

static struct bucket *at(const struct limits *l, uint32_t i)
{
    return &l->chunks[i / CHUNK_BUCKETS][i % CHUNK_BUCKETS];
}

static uint32_t *slot_of(const struct limits *l, uint64_t id)
{
    uint32_t i = (uint32_t)id & l->slot_mask;

    while (l->slots[i] && at(l, l->slots[i] - 1)->id != id)
        i = (i + 1) & l->slot_mask;
    return &l->slots[i];
}

static void grow(struct limits *l)
{
    mem_free(l->slots);
    l->slot_mask = 2 * l->slot_mask + 1;
    l->slots = mem_zalloc((l->slot_mask + 1) * sizeof(*l->slots));
    for (uint32_t i = 0; i < l->count; i++)
        *slot_of(l, at(l, i)->id) = i + 1;
}

static struct bucket *add(struct limits *l, uint64_t id)
{
    struct bucket **chunk = &l->chunks[l->count / CHUNK_BUCKETS], *b;

    if (!*chunk) {
        *chunk = mem_zalloc_aligned(64, CHUNK_BUCKETS * sizeof(struct bucket));
        if (2 * (l->count + CHUNK_BUCKETS) > l->slot_mask)
            grow(l);
    }
    b = at(l, l->count);
    b->id = id;
    *slot_of(l, id) = ++l->count;
    return b;
}

struct bucket *limits_bucket(struct limits *l, uint64_t id)
{
    struct bucket *b = NULL;
    uint32_t found;

    pthread_mutex_lock(&l->lock);
    found = *slot_of(l, id);
    if (found)
        b = at(l, found - 1);
    else if (l->count < LIMITS_BUCKETS_MAX)
        b = add(l, id);
    pthread_mutex_unlock(&l->lock);
    return b;
}

void limits_each(struct limits *l, void (*fn)(void *ctx, const struct bucket *b), void *ctx)
{
    pthread_mutex_lock(&l->lock);
    for (uint32_t i = 0; i < l->count; i++)
        fn(ctx, at(l, i));
    pthread_mutex_unlock(&l->lock);
}

/* --- Strangers -------------------------------------------------------------------------------- */

_Static_assert(CROWD_WAYS * sizeof(struct crowd_place) == 64, "a set is one cache line");

void crowd_init(struct crowd *c)
{
    c->places = mem_zalloc_aligned(64, CROWD_PLACES * sizeof(*c->places));
    random_bytes(&c->seed, sizeof(c->seed));
}

void crowd_done(struct crowd *c)
{
    mem_free(c->places);
    c->places = NULL;
}

uint64_t crowd_id(const struct crowd *c, const void *p, size_t n, uint64_t salt)
{
    uint64_t id = hash64(p, n, c->seed ^ salt);

    return id ? id : 1;
}

/* The place with the earliest TAT; a free one has 0. */
static struct crowd_place *earliest(struct crowd_place *set)
{
    struct crowd_place *best = set;
    uint64_t best_tat = UINT64_MAX;

    for (size_t i = 0; i < CROWD_WAYS; i++) {
        uint64_t tat = __atomic_load_n(&set[i].tat_ns, __ATOMIC_RELAXED);

        if (tat < best_tat) {
            best = &set[i];
            best_tat = tat;
        }
    }
    return best;
}

uint64_t *crowd_tat(struct crowd *c, uint64_t id, int64_t now_ns)
{
    struct crowd_place *set = &c->places[id % (CROWD_PLACES / CROWD_WAYS) * CROWD_WAYS];

    for (;;) {
        struct crowd_place *place;
        uint64_t old;

        for (size_t i = 0; i < CROWD_WAYS; i++)
            if (__atomic_load_n(&set[i].id, __ATOMIC_RELAXED) == id)
                return &set[i].tat_ns;
        place = earliest(set);
        old = __atomic_load_n(&place->id, __ATOMIC_RELAXED);
        if (old != id && __atomic_compare_exchange_n(&place->id, &old, id, false, __ATOMIC_RELAXED,
                                                     __ATOMIC_RELAXED)) {
            if ((int64_t)__atomic_load_n(&place->tat_ns, __ATOMIC_RELAXED) > now_ns)
                __atomic_store_n(&place->tat_ns, 0, __ATOMIC_RELAXED); /* not the debt of another */
            return &place->tat_ns;
        }
    }
}
