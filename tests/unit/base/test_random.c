/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/random.h"
#include "base/time.h"

#include <sys/wait.h>
#include <unistd.h>

/* Known answers pin the generator: seeds in test reports must go on meaning the same. */
static void test_known_answers(void)
{
    struct rng zero = {{1, 2, 3, 4}}, r;

    /* First outputs for the state 1, 2, 3, 4: rotl(1 + 4, 23) + 1, then by hand from the paper. */
    CHECK(rng_u64(&zero) == 41943041);
    CHECK(rng_u64(&zero) == 58720359);
    rng_seed(&r, 0); /* splitmix64 from 0 */
    CHECK(r.s[0] == UINT64_C(0xE220A8397B1DCDAF));
    CHECK(r.s[1] == UINT64_C(0x6E789E6AA1B965F4));
    CHECK(r.s[2] == UINT64_C(0x06C45D188009454F));
}

static void test_distributions(void)
{
    enum { N = 200000 };
    double sum = 0, square = 0, fourth = 0, uniform = 0;
    int counts[7] = {0};
    struct rng r;

    rng_seed(&r, 11);
    for (int i = 0; i < N; i++) {
        double u = rng_uniform(&r), x = rng_normal(&r);

        NEED(u >= 0 && u < 1);
        uniform += u;
        sum += x, square += x * x, fourth += x * x * x * x;
        counts[rng_below(&r, 7)]++;
    }
    CHECK_NEAR(uniform / N, 0.5, 4 * 0.289 / sqrt(N));
    CHECK_NEAR(sum / N, 0, 4 / sqrt(N));
    CHECK_NEAR(square / N, 1, 4 * sqrt(2) / sqrt(N));
    CHECK_NEAR(fourth / N, 3, 4 * sqrt(96) / sqrt(N));
    for (int i = 0; i < 7; i++)
        CHECK_NEAR(counts[i], N / 7.0, 5 * sqrt(N / 7.0));
    CHECK_INT(rng_below(&r, 1), 0);
}

static void test_below_is_unbiased_for_large_n(void)
{
    uint64_t n = UINT64_C(3) << 62; /* a biased method would prefer one third of the range */
    int low = 0;
    struct rng r;

    rng_seed(&r, 5);
    for (int i = 0; i < 60000; i++) {
        uint64_t v = rng_below(&r, n);

        NEED(v < n);
        low += v < n / 3;
    }
    CHECK_NEAR(low, 20000, 600);
}

static void test_bytes_differ(void)
{
    unsigned char a[700], b[700];

    for (size_t n = 8; n <= sizeof(a); n = n * 3 / 2) {
        memset(a, 0, sizeof(a));
        memset(b, 0, sizeof(b));
        random_bytes(a, n);
        random_bytes(b, n);
        CHECK(memcmp(a, b, n) != 0);
        for (size_t i = n; i < sizeof(a); i++)
            NEED(a[i] == 0);
    }
    random_bytes(a, 0);
}

static void test_seeded_bytes_repeat(void)
{
    unsigned char a[100], b[100];
    uint64_t first;

    random_test_seed(99);
    first = random_u64();
    random_bytes(a, sizeof(a));
    random_test_seed(99);
    CHECK(random_u64() == first);
    random_bytes(b, sizeof(b));
    CHECK(!memcmp(a, b, sizeof(a)));
    random_test_seed(0);
    CHECK(random_u64() != first);
}

/* A forked child must not repeat what its parent draws from the same pool. */
static void test_fork_does_not_repeat(void)
{
    uint64_t mine, child = 0;
    int pipes[2], status;
    pid_t pid;

    (void)random_u64(); /* the pool is filled now */
    NEED(pipe(pipes) == 0);
    pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        child = random_u64();
        _exit(write(pipes[1], &child, sizeof(child)) == sizeof(child) ? 0 : 1);
    }
    mine = random_u64();
    CHECK(read(pipes[0], &child, sizeof(child)) == sizeof(child));
    NEED(waitpid(pid, &status, 0) == pid);
    CHECK_INT(status, 0);
    CHECK(mine != child);
    close(pipes[0]);
    close(pipes[1]);
}

static void test_uuid(void)
{
    int64_t wall = INT64_C(1700000000123456789);
    char a[UUID_SIZE], b[UUID_SIZE];

    uuid_v7(wall, a);
    CHECK_INT(strlen(a), 36);
    /* 1700000000123 ms = 0x18BCFE5687B */
    CHECK(str_starts(str_of(a), S("018bcfe5-687b-7")));
    CHECK(strchr("89ab", a[19]));
    CHECK(a[8] == '-' && a[13] == '-' && a[18] == '-' && a[23] == '-');
    uuid_v7(wall, b);
    CHECK(strcmp(a, b) != 0);
    for (int i = 0; i < 10000; i++) {
        uuid_v7(wall += 250, b);
        NEED(strncmp(a, b, 18) <= 0);
        memcpy(a, b, sizeof(a));
    }
    uuid_v7(-5, a);
    CHECK(str_starts(str_of(a), S("00000000-0000-7000-")));
}

RUN_TESTS(T(test_known_answers), T(test_distributions), T(test_below_is_unbiased_for_large_n),
          T(test_bytes_differ), T(test_seeded_bytes_repeat), T(test_fork_does_not_repeat),
          T(test_uuid))
