/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The randomness seam. `struct rng` (xoshiro256++, Blackman and Vigna 2019) is seeded by the caller
 * and is for statistics and simulation; random_bytes() is for identifiers and secrets. A test may
 * seed the latter too, which makes identifiers repeat.
 */
#pragma once

#include "base/str.h"

struct rng {
    uint64_t s[4];
};

void rng_seed(struct rng *r, uint64_t seed); /* splitmix64 expansion */
uint64_t rng_u64(struct rng *r);
double rng_uniform(struct rng *r);             /* [0, 1), 53 bits */
uint64_t rng_below(struct rng *r, uint64_t n); /* unbiased, n > 0 */
double rng_normal(struct rng *r);              /* N(0,1), polar method */

void random_bytes(void *p, size_t n); /* getrandom, or the seeded generator in tests */
uint64_t random_u64(void);
void random_test_seed(uint64_t seed); /* 0 = back to getrandom */

/* A UUIDv7 (RFC 9562): sorts by wall_ns. 36 characters and a NUL. Hot-path safe: no allocation. */
#define UUID_SIZE 37
void uuid_v7(int64_t wall_ns, char ret_text[UUID_SIZE]);
