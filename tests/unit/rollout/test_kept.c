/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evidence of rollouts across the death of control: what a gateway still holds is given again, and
 * the measure is a twin that never died.
 */
#include "base/random.h"
#include "rollout/world.h"

#define HELD_MAX 4096
#define REQUESTS 20 /* of each version in a digest */

/* Failures of champion and challenger: all there is to know of a digest here. */
struct small {
    uint64_t sequence, failed[2];
};

static struct digest_clock seen, stored;
static struct small held[HELD_MAX];
static size_t held_n;
static uint64_t sequence;

static void live(void)
{
    CHECK_OK(rollouts_new(m, &r, &e), &e);
    CHECK_OK(rollouts_keep(r, m, &seen, &e), &e);
}

static void begin_kept(void)
{
    begin();
    rollouts_free(TAKE(r));
    memset(&seen, 0, sizeof(seen));
    memset(&stored, 0, sizeof(stored));
    held_n = 0;
    sequence = 0;
    live();
}

static void give(const struct small *s)
{
    static struct latency none;
    struct digest_series series[2] = {{.endpoint = S("pay"), .version = S("1")},
                                      {.endpoint = S("pay"), .version = S("2")}};
    struct digest_series *list[] = {&series[0], &series[1]};
    struct digest d = {.series = list, .series_count = 2, .run = 1, .sequence = s->sequence};

    for (int v = 0; v < 2; v++) {
        series[v].requests = series[v].rows = REQUESTS;
        series[v].status[5] = s->failed[v];
        series[v].status[2] = REQUESTS - s->failed[v];
        series[v].latency = &none;
    }
    if (!digest_clock_is_new(&seen, &d))
        return;
    digest_clock_note(&seen, &d);
    CHECK_OK(rollouts_digest(r, m, &d, time_wall_ns(), &e), &e);
}

static void send_failures(struct rng *rng, double rate_a, double rate_b)
{
    struct small *s = &held[held_n++];

    ASSERT(held_n < HELD_MAX);
    *s = (struct small){.sequence = sequence++};
    for (int i = 0; i < REQUESTS; i++) {
        s->failed[0] += rng_uniform(rng) < rate_a;
        s->failed[1] += rng_uniform(rng) < rate_b;
    }
    time_test_advance(NS_PER_S / 4);
    give(s);
}

static void save(void)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    NEED_OK(meta_begin(m, &tx, &e), &e);
    NEED_OK(rollouts_save(r, m, &e), &e);
    NEED_OK(meta_commit(&tx, &e), &e);
    rollouts_saved(r);
    stored = seen;
    held_n = 0;
}

static void die(bool lossy)
{
    rollouts_free(TAKE(r));
    seen = stored;
    live();
    for (size_t i = 0; i < held_n && !lossy; i++)
        give(&held[i]);
    held_n = lossy ? 0 : held_n;
}

/* --- Tests ------------------------------------------------------------------------------------ */

#define LONG                                                                     \
    "{\"steps\":[{\"weight\":0.5,\"hold_ns\":86400000000000,\"rows_min\":100}]," \
    "\"guards\":{\"error_rate\":0.02,\"error_ratio\":2.0},\"bake_ns\":20000000000}"

/* How many digests until version 2 is taken back. */
static int digests_to_rollback(double saves, double deaths, uint64_t fate_seed)
{
    struct rng rng, fate;
    int n = 0;

    rng_seed(&rng, 5);
    rng_seed(&fate, fate_seed);
    begin_kept();
    start(2, LONG);
    while (n < 2000 && r->first) {
        send_failures(&rng, 0.01, 0.03);
        n++;
        if (rng_uniform(&fate) < saves)
            save();
        if (rng_uniform(&fate) < deaths)
            die(false);
    }
    CHECK_INT(facts("rollout.rolled_back"), 1);
    end();
    return n;
}

static void test_harm_is_proved_as_soon(void)
{
    int whole = digests_to_rollback(1, 0, 1);

    CHECK(whole > 10 && whole < 1000);
    for (uint64_t seed = 2; seed < 8; seed++)
        CHECK_INT(digests_to_rollback(0.2, 0.3, seed), whole);
}

static void clean(struct evidence *ret, double saves, double deaths, uint64_t fate_seed)
{
    struct rng rng, fate;

    rng_seed(&rng, 6);
    rng_seed(&fate, fate_seed);
    begin_kept();
    start(2, PLAIN);
    for (int i = 0; i < 70; i++) { /* into the second step, whose evidence is its own */
        send_failures(&rng, 0.002, 0.002);
        if (rng_uniform(&fate) < saves)
            save();
        if (rng_uniform(&fate) < deaths)
            die(false);
    }
    if (CHECK(r->first && r->first->state == ROLLOUT_STEP && r->first->step == 1))
        *ret = r->first->ev;
    CHECK_INT(facts("rollout.judged"), 1);
    end();
}

static void test_evidence_is_the_same_to_the_bit(void)
{
    static struct evidence whole, parts;

    clean(&whole, 1, 0, 1);
    CHECK(whole.challenger.requests > 0 && whole.challenger.requests < 70 * REQUESTS);
    for (uint64_t seed = 2; seed < 8; seed++) {
        clean(&parts, 0.1, 0.3, seed);
        CHECK(memcmp(&whole, &parts, sizeof(whole)) == 0);
    }
}

/* A phase is entered with a row of its own: what the one before has judged is not judged again. */
static void test_a_phase_entered_and_not_saved(void)
{
    struct rng rng;

    rng_seed(&rng, 7);
    begin_kept();
    start(2, PLAIN);
    for (int i = 0; i < 100 && r->first->step == 0; i++)
        send_failures(&rng, 0, 0);
    CHECK_INT(r->first->step, 1);
    die(false); /* the gateway holds all digests of the first step still */
    CHECK_INT(r->first->ev.challenger.requests, 0);
    send_failures(&rng, 0, 0);
    CHECK_INT(r->first->ev.challenger.requests, REQUESTS);
    end();
}

/* A version just as good as the limit demands is taken back with chance alpha at most, however
 * often control dies meanwhile. */
static double taken_back(bool lossy, int rollouts)
{
    struct rng rng, fate;
    int back;

    rng_seed(&rng, 8);
    rng_seed(&fate, 9);
    begin_kept();
    for (int i = 0; i < rollouts; i++) {
        start(2, "{\"steps\":[{\"weight\":0.5,\"hold_ns\":86400000000000,\"rows_min\":100}],"
                 "\"guards\":{\"error_rate\":0.02},\"alpha\":0.2}");
        for (int k = 0; k < 150 && r->first; k++) {
            send_failures(&rng, 0.02, 0.02);
            if (rng_uniform(&fate) < 0.1)
                save();
            if (rng_uniform(&fate) < 0.05)
                die(lossy);
        }
        if (r->first)
            order(ROLLOUT_ABORT);
        save();
    }
    back = facts("rollout.rolled_back");
    end();
    return (double)back / rollouts;
}

static void test_alpha_is_spent_once(void)
{
    CHECK(taken_back(false, 60) <= 0.2);
    CHECK(taken_back(true, 60) <= 0.2);
}

static void test_rows_that_do_not_fit(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct rng rng;
    str bytes;

    rng_seed(&rng, 10);
    begin_kept();
    start(2, LONG);
    for (int i = 0; i < 10; i++)
        send_failures(&rng, 0, 0);
    save();
    CHECK_OK(kept_get(m, S("rollout"), S("pay"), &a, &bytes, &e), &e);
    order(ROLLOUT_ABORT);
    start(3, LONG);
    CHECK_OK(meta_exec(m, "UPDATE evidence SET body = ?", M_ARGS(M_BLOB(bytes)), &e), &e);
    die(true);
    CHECK_INT(r->first->ev.challenger.requests, 0); /* of another rollout */
    ((char *)(uintptr_t)bytes.p)[bytes.n / 2] ^= 1;
    CHECK_OK(meta_exec(m, "UPDATE evidence SET body = ?", M_ARGS(M_BLOB(bytes)), &e), &e);
    die(true);
    CHECK_INT(r->first->ev.challenger.requests, 0); /* damaged */
    order(ROLLOUT_ABORT);
    CHECK_OK(kept_get(m, S("rollout"), S("pay"), &a, &bytes, &e), &e);
    CHECK(!bytes.p);
    end();
}

RUN_TESTS(T(test_harm_is_proved_as_soon), T(test_evidence_is_the_same_to_the_bit),
          T(test_a_phase_entered_and_not_saved), T(test_alpha_is_spent_once),
          T(test_rows_that_do_not_fit))
