/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two sources that never mix. `struct rng` belongs to its caller and repeats from its seed: it is
 * for statistics. random_bytes() is for identifiers and secrets: it takes from a small pool per
 * thread, filled by getrandom(2), because a system call for each request id would be the larger
 * part of making one.
 *
 * Invariants of the pool: bytes are wiped as they are handed out; a child of fork() never sees the
 * pool of its parent (the fork handler starts a new generation, and a pool of an older one is
 * thrown away).
 */
#include "base/random.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/random.h>

#define POOL_BYTES 512
#define SPLITMIX_STEP UINT64_C(0x9E3779B97F4A7C15)

static atomic_uint generation = 1; /* of the process, counted up in each forked child */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static _Thread_local struct {
    unsigned generation;
    size_t left; /* unused bytes, at the end of `bytes` */
    unsigned char bytes[POOL_BYTES];
} pool;

static atomic_uint_fast64_t test_seed, test_at;

static uint64_t splitmix_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

void rng_seed(struct rng *r, uint64_t seed)
{
    for (size_t i = 0; i < ARRAY_LEN(r->s); i++)
        r->s[i] = splitmix_mix(seed += SPLITMIX_STEP);
}

static uint64_t rotl(uint64_t x, int by)
{
    return (x << by) | (x >> (64 - by));
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t *s = r->s, result = rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

double rng_uniform(struct rng *r)
{
    return (double)(rng_u64(r) >> 11) * 0x1p-53;
}

/* The high half of a 128-bit product; draws that would favour some results are thrown away. */
uint64_t rng_below(struct rng *r, uint64_t n)
{
    unsigned __int128 product;

    ASSERT(n > 0);
    product = (unsigned __int128)rng_u64(r) * n;
    if (UNLIKELY((uint64_t)product < n)) {
        uint64_t reject_below = (0 - n) % n;

        while ((uint64_t)product < reject_below)
            product = (unsigned __int128)rng_u64(r) * n;
    }
    return (uint64_t)(product >> 64);
}

double rng_normal(struct rng *r)
{
    double x, y, square;

    do {
        x = 2 * rng_uniform(r) - 1;
        y = 2 * rng_uniform(r) - 1;
        square = x * x + y * y;
    } while (square >= 1 || square == 0);
    return x * sqrt(-2 * log(square) / square);
}

static void new_generation(void)
{
    atomic_fetch_add(&generation, 1);
}

static void watch_forks(void)
{
    ASSERT(pthread_atfork(NULL, NULL, new_generation) == 0);
}

static void from_kernel(unsigned char *to, size_t n)
{
    while (n) {
        ssize_t got = getrandom(to, n, 0);

        ASSERT(got > 0 || errno == EINTR);
        if (got > 0)
            to += got, n -= (size_t)got;
    }
}

static void from_pool(unsigned char *to, size_t n)
{
    unsigned now = atomic_load_explicit(&generation, memory_order_relaxed);
    unsigned char *from;

    if (UNLIKELY(pool.generation != now || pool.left < n)) {
        pthread_once(&fork_once, watch_forks);
        from_kernel(pool.bytes, POOL_BYTES);
        pool.left = POOL_BYTES;
        pool.generation = now;
    }
    from = pool.bytes + POOL_BYTES - pool.left;
    memcpy(to, from, n);
    explicit_bzero(from, n);
    pool.left -= n;
}

/* A counter hashed with the seed: threads share it without a lock. */
static void from_test_seed(unsigned char *to, size_t n)
{
    while (n) {
        uint64_t at = atomic_fetch_add(&test_at, 1);
        uint64_t word = splitmix_mix(atomic_load(&test_seed) + at * SPLITMIX_STEP);
        size_t take = MIN(n, sizeof(word));

        memcpy(to, &word, take);
        to += take, n -= take;
    }
}

void random_bytes(void *p, size_t n)
{
    if (UNLIKELY(atomic_load_explicit(&test_seed, memory_order_relaxed)))
        from_test_seed(p, n);
    else if (n > POOL_BYTES / 4)
        from_kernel(p, n);
    else
        from_pool(p, n);
}

uint64_t random_u64(void)
{
    uint64_t v;

    random_bytes(&v, sizeof(v));
    return v;
}

void random_test_seed(uint64_t seed)
{
    atomic_store(&test_at, 1);
    atomic_store(&test_seed, seed);
}

/*
 * 48 bits of milliseconds, then in the 12 bits after the version the fraction of the millisecond
 * (RFC 9562, 6.2, method 3), then 62 random bits: identifiers of one process sort by their instant
 * to 245 ns.
 */
void uuid_v7(int64_t wall_ns, char ret_text[UUID_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    uint64_t ns = wall_ns > 0 ? (uint64_t)wall_ns : 0;
    uint64_t ms = ns / 1000000, fraction = ns % 1000000 * 4096 / 1000000;
    uint64_t halves[2] = {
        ms << 16 | UINT64_C(7) << 12 | fraction,
        (random_u64() & (UINT64_MAX >> 2)) | UINT64_C(1) << 63,
    };
    char *to = ret_text;

    for (int i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            *to++ = '-';
        *to++ = hex[halves[i / 16] >> (60 - i % 16 * 4) & 15];
    }
    *to = '\0';
}
