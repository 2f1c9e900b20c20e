/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much a caller may ask: rates and quotas, each one 64-bit word that all loops change by
 * compare-and-swap. No lock, no allocation, and exact: of any number of loops together no more pass
 * than the rate allows.
 *
 * A rate is the generic cell rate algorithm (ITU-T I.371, appendix): the word is the theoretical
 * arrival time (TAT) of the next request if all came evenly. A request moves it by the interval
 * per / requests; it passes while that leaves it at most burst * interval ahead of now. This is a
 * token bucket of `burst` tokens that fills evenly. In any time t at most burst + t / interval
 * pass. The interval is cut to whole nanoseconds: at worst (a million requests a second) one part
 * in a thousand more pass.
 *
 * A quota counts in a day or a month of UTC; the word is the number of the period (24 bits) and the
 * count (40 bits), so the first request of a new period begins anew by itself.
 *
 * Known names (keys, tenants, endpoints, the whole) have buckets of their own for ever, found when
 * a plan is loaded: they outlive plans. Strangers (addresses, subjects of tokens) share a table.
 */
#pragma once

#include "plan/plan.h"

/* --- Words ------------------------------------------------------------------------------------ */

struct gcra {
    int64_t interval_ns;  /* 0: no limit */
    int64_t tolerance_ns; /* burst * interval */
    uint32_t requests;    /* as stated, for answers */
};
struct gcra gcra_of(struct plan_rate rate);

/* False when it is too early: *ret_wait_ns (> 0) until it is not. Any thread. */
bool gcra_take(uint64_t *tat_ns, const struct gcra *r, int64_t now_ns, int64_t *ret_wait_ns) HOT;
/* Undoes a take, for a request that was refused for another reason. */
void gcra_give_back(uint64_t *tat_ns, const struct gcra *r);

#define QUOTA_COUNT_BITS 40
bool quota_take(uint64_t *word, uint32_t period, uint64_t limit) HOT;
void quota_give_back(uint64_t *word, uint32_t period);
static inline uint64_t quota_count(uint64_t word, uint32_t period)
{
    return word >> QUOTA_COUNT_BITS == period ? word & ((UINT64_C(1) << QUOTA_COUNT_BITS) - 1) : 0;
}

/* The periods that an instant lies in, and when they end. */
struct quota_time {
    uint32_t day, month; /* since 1970 */
    int64_t day_ends_ns, month_ends_ns;
};
void quota_time_of(int64_t wall_ns, struct quota_time *ret);

/* --- Known names ------------------------------------------------------------------------------ */

#define LIMITS_BUCKETS_MAX 262144 /* for ever, of one process */

struct bucket {
    _Alignas(64) uint64_t tat_ns; /* atomic */
    uint64_t day, month;          /* atomic; quota words */
    uint64_t id;                  /* of kind and name; constant */
};

enum bucket_kind { BUCKET_KEY, BUCKET_TENANT, BUCKET_ENDPOINT, BUCKET_GLOBAL };

struct limits;
struct limits *limits_new(void);
void limits_free(struct limits *l); /* accepts NULL */
DEFINE_AUTO_PTR(struct limits, limits_free)

uint64_t bucket_id(enum bucket_kind kind, str name); /* never 0; the same in every process */
/* The bucket of that identity, made if missing; takes a lock: when a plan is loaded. NULL past
 * LIMITS_BUCKETS_MAX. */
struct bucket *limits_bucket(struct limits *l, uint64_t id);
/* Calls fn for each bucket that there is. Takes the lock. */
void limits_each(struct limits *l, void (*fn)(void *ctx, const struct bucket *b), void *ctx);

/* --- Strangers -------------------------------------------------------------------------------- */

/*
 * A table of fixed size from 64-bit identities (keyed hashes, so nobody can choose to collide) to
 * TATs. A bucket whose TAT is past says nothing, so its place can be taken without loss. Only when
 * all CROWD_WAYS places of a set are in use is one lost: that with the earliest TAT, whose owner
 * has least to be reminded of and may, once, take a burst again. So the error is in favour of those
 * who asked little; who asks most is remembered longest. Two loops that meet the same stranger for
 * the first time in the same instant may each let one request too many pass.
 */
#define CROWD_PLACES 65536 /* 1 MiB */
#define CROWD_WAYS 4       /* one cache line */

struct crowd {
    struct crowd_place {
        uint64_t id;     /* atomic; 0 = free */
        uint64_t tat_ns; /* atomic */
    } * places;          /* owned */
    uint64_t seed;
};
void crowd_init(struct crowd *c);
void crowd_done(struct crowd *c);
uint64_t crowd_id(const struct crowd *c, const void *p, size_t n, uint64_t salt);
/* The TAT of that identity, its own or one it has just taken over. Any thread. */
uint64_t *crowd_tat(struct crowd *c, uint64_t id, int64_t now_ns) HOT;
