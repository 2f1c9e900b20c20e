/* SPDX-License-Identifier: Apache-2.0 */
/* The limit against simulated servers whose knee is known, on a virtual clock: more requests are
 * always wanted than it lets in, unless a test says otherwise. */
#include "check.h"

#include "base/random.h"
#include "base/time.h"
#include "serve/limiter.h"

#define JOBS_MAX 4096

/* `workers` serve one request each and the rest waits in line; or, shared, all are served at once
 * and share what `workers` could do. */
struct server {
    bool shared;
    uint32_t workers;
    int64_t run_ns;
};

struct job {
    int64_t came_ns, began_ns, ends_ns; /* ends_ns 0: waits */
};

struct sim {
    struct limiter l;
    struct server server;
    struct rng rng;
    struct job jobs[JOBS_MAX]; /* in the order in which they came */
    uint32_t n, offered;       /* offered: at once, at most */
    int64_t now_ns, target_ns;
    uint64_t done;
    int64_t took_ns; /* sum over what is done */
};

static void begin(struct sim *s, struct server server)
{
    memset(s, 0, sizeof(*s));
    s->server = server;
    s->offered = JOBS_MAX;
    s->now_ns = 1000 * NS_PER_S;
    rng_seed(&s->rng, 7);
    limiter_init(&s->l, &(struct limiter_config){.min = 2, .max = 1000, .initial = 8}, s->now_ns);
}

/* A run takes five percent more or less. */
static int64_t run_time(struct sim *s)
{
    double noise = 0.95 + 0.1 * rng_uniform(&s->rng);
    double crowd = s->server.shared ? MAX(1.0, (double)s->n / s->server.workers) : 1.0;

    return (int64_t)((double)s->server.run_ns * noise * crowd);
}

static void fill(struct sim *s)
{
    uint32_t running = 0;

    while (s->n < MIN(s->l.limit, s->offered))
        s->jobs[s->n++] = (struct job){.came_ns = s->now_ns};
    for (uint32_t i = 0; i < s->n; i++)
        running += s->jobs[i].ends_ns != 0;
    for (uint32_t i = 0; i < s->n; i++)
        if (!s->jobs[i].ends_ns && (s->server.shared || running < s->server.workers)) {
            s->jobs[i].began_ns = s->now_ns;
            s->jobs[i].ends_ns = s->now_ns + run_time(s);
            running++;
        }
}

static void end_first(struct sim *s)
{
    uint32_t first = JOBS_MAX;
    struct job j;

    for (uint32_t i = 0; i < s->n; i++)
        if (s->jobs[i].ends_ns &&
            (first == JOBS_MAX || s->jobs[i].ends_ns < s->jobs[first].ends_ns))
            first = i;
    NEED(first < JOBS_MAX);
    j = s->jobs[first];
    s->now_ns = j.ends_ns;
    limiter_sample(&s->l, &(struct limiter_sample){.now_ns = s->now_ns,
                                                   .wait_ns = j.began_ns - j.came_ns,
                                                   .run_ns = j.ends_ns - j.began_ns,
                                                   .target_ns = s->target_ns,
                                                   .rows = 1,
                                                   .inflight = s->n});
    s->done++;
    s->took_ns += j.ends_ns - j.came_ns;
    memmove(&s->jobs[first], &s->jobs[first + 1], (--s->n - first) * sizeof(j));
}

/* Runs for a time; what is counted is of this time alone. */
static void run(struct sim *s, double seconds)
{
    int64_t end_ns = s->now_ns + (int64_t)(seconds * (double)NS_PER_S);

    s->done = 0;
    s->took_ns = 0;
    while (s->now_ns < end_ns) {
        fill(s);
        end_first(s);
    }
}

/* Of what the server could do in that time. */
static double share(const struct sim *s, double seconds)
{
    return (double)s->done * (double)s->server.run_ns / NS_PER_S / s->server.workers / seconds;
}

/* How many times as long as a run alone. */
static double times_longer(const struct sim *s)
{
    return (double)s->took_ns / (double)s->done / (double)s->server.run_ns;
}

static void check_at_knee(struct sim *s, double seconds)
{
    run(s, seconds);
    CHECK(share(s, seconds) > 0.95);
    CHECK(times_longer(s) < 4);
    CHECK(s->l.estimate > s->server.workers);
    CHECK(s->l.estimate < 3.5 * s->server.workers + 4);
}

static void test_the_knee_is_found(void)
{
    static const uint32_t knees[] = {4, 20, 64};

    for (size_t i = 0; i < ARRAY_LEN(knees); i++)
        for (int shared = 0; shared < 2; shared++) {
            static struct sim s;

            begin(&s, (struct server){shared, knees[i], 20 * NS_PER_MS});
            run(&s, 15);
            check_at_knee(&s, 30);
        }
}

static void test_an_overload_that_lasts_does_not_push_the_limit_up(void)
{
    for (int shared = 0; shared < 2; shared++) {
        static struct sim s;

        begin(&s, (struct server){shared, 16, 10 * NS_PER_MS});
        run(&s, 600);
        check_at_knee(&s, 60);
    }
}

static void test_it_falls_with_the_server_and_recovers(void)
{
    for (int shared = 0; shared < 2; shared++) {
        static struct sim s;
        double before;

        begin(&s, (struct server){shared, 40, 20 * NS_PER_MS});
        run(&s, 30);
        before = s.l.estimate;
        s.server.workers = 8; /* a fifth of it is left */
        run(&s, 10);
        CHECK(s.l.estimate < before / 2);
        check_at_knee(&s, 30);
        s.server.workers = 40;
        run(&s, 30);
        check_at_knee(&s, 30);
    }
}

static void test_a_model_that_became_slower_gets_its_limit_back(void)
{
    static struct sim s;

    begin(&s, (struct server){true, 20, 10 * NS_PER_MS});
    run(&s, 30);
    s.server.run_ns *= 3;
    run(&s, 2);
    CHECK(s.l.estimate < 40); /* that it is not overloaded cannot be known at once */
    run(&s, 45);
    check_at_knee(&s, 30);
    s.server.run_ns /= 3;
    run(&s, 45);
    check_at_knee(&s, 30);
}

static void test_what_is_not_used_says_nothing(void)
{
    static struct sim s;
    double before;

    begin(&s, (struct server){false, 10, 10 * NS_PER_MS});
    run(&s, 30);
    s.offered = 2;
    run(&s, 1); /* the window in which it fell silent */
    before = s.l.estimate;
    run(&s, 40);
    CHECK_NEAR(s.l.estimate, before, 0);
}

/* One worker that runs half of what is there while the other half waits. */
static void run_joined(struct sim *s, int64_t batch_ns, int64_t row_ns, int64_t target_ns)
{
    begin(s, (struct server){.workers = 1, .run_ns = batch_ns + row_ns});
    for (int i = 0; i < 20000; i++) {
        uint32_t rows = MAX(s->l.limit / 2, 1u);
        int64_t run_ns = batch_ns + rows * row_ns;

        s->now_ns += run_ns;
        limiter_sample(&s->l, &(struct limiter_sample){.now_ns = s->now_ns,
                                                       .wait_ns = run_ns,
                                                       .run_ns = run_ns,
                                                       .target_ns = target_ns,
                                                       .rows = rows,
                                                       .inflight = s->l.limit});
    }
}

static void test_the_target_bounds_what_joins_well(void)
{
    static struct sim s;

    run_joined(&s, 10 * NS_PER_MS, 5 * NS_PER_US, 25 * NS_PER_MS);
    /* 2 * (10 ms + n / 2 * 5 us) = 25 ms at n = 1000, which is the maximum too */
    CHECK(s.l.estimate > 400);
    run_joined(&s, 10 * NS_PER_MS, 50 * NS_PER_US, 15 * NS_PER_MS);
    CHECK(s.l.estimate < 50); /* a run and a wait alone are 20 ms */
}

static void test_runs_get_no_longer_where_joining_gains_nothing(void)
{
    static struct sim s;

    run_joined(&s, 0, 10 * NS_PER_MS, 0);
    CHECK(s.l.estimate < 12);
    run_joined(&s, NS_PER_MS, 10 * NS_PER_MS, 0);
    CHECK(s.l.estimate < 12);
    run_joined(&s, 20 * NS_PER_MS, NS_PER_MS,
               0); /* 64 rows do more than half of what can be done */
    CHECK(s.l.estimate > 100);
}

static void test_what_is_late_halves_it(void)
{
    static struct sim s;
    double before;

    begin(&s, (struct server){false, 20, 10 * NS_PER_MS});
    run(&s, 30);
    before = s.l.estimate;
    for (int i = 0; i < 200; i++) {
        s.now_ns += 3 * NS_PER_MS;
        limiter_sample(&s.l, &(struct limiter_sample){.now_ns = s.now_ns,
                                                      .run_ns = 10 * NS_PER_MS,
                                                      .rows = 1,
                                                      .inflight = s.l.limit,
                                                      .late = true});
    }
    CHECK(s.l.estimate < before / 2);
}

static void test_it_stays_within_its_bounds(void)
{
    struct limiter l;

    limiter_init(&l, &(struct limiter_config){.min = 5, .max = 9, .initial = 100}, 0);
    CHECK_INT(l.limit, 9);
    limiter_init(&l, &(struct limiter_config){.min = 5, .max = 9}, 0);
    CHECK_INT(l.limit, 5);
    for (int64_t i = 1; i < 4000; i++) {
        limiter_sample(&l, &(struct limiter_sample){.now_ns = i * 5 * NS_PER_MS,
                                                    .wait_ns = i % 2000 < 1000 ? 0 : NS_PER_S,
                                                    .run_ns = 1 + i,
                                                    .rows = (uint32_t)(i * i) << 8,
                                                    .inflight = 9});
        CHECK(l.limit >= 5 && l.limit <= 9);
    }
}

RUN_TESTS(T(test_the_knee_is_found), T(test_an_overload_that_lasts_does_not_push_the_limit_up),
          T(test_it_falls_with_the_server_and_recovers),
          T(test_a_model_that_became_slower_gets_its_limit_back),
          T(test_what_is_not_used_says_nothing), T(test_the_target_bounds_what_joins_well),
          T(test_runs_get_no_longer_where_joining_gains_nothing), T(test_what_is_late_halves_it),
          T(test_it_stays_within_its_bounds))
