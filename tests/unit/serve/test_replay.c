/* SPDX-License-Identifier: Apache-2.0 */
/* Windows of answers by request id: what is kept, for how long, for whom; and by many threads. */
#include "check.h"

#include "base/mem.h"
#include "base/time.h"
#include "loop/thread.h"
#include "serve/replay.h"

#include <stdio.h>

static const struct plan_idempotency plain = {
    .window_ns = 1000, .bytes_max = 1 << 20, .entries_max = 1000};
static const unsigned char one[SHA256_BYTES] = {1}, two[SHA256_BYTES] = {2};

static uint64_t entries(struct replay_window *w)
{
    struct replay_stats s;

    replay_window_stats(w, &s);
    return s.entries;
}

/* Takes the id and keeps an answer for it. */
static bool answered(struct replay_window *w, const char *id, const char *body, int64_t now_ns,
                     uint32_t *ret_evicted)
{
    struct replay *r;

    CHECK_INT(replay_begin(w, str_of(id), one, now_ns, &r), REPLAY_NEW);
    return replay_keep(w, r, "text/plain", 3, S("note"), str_of(body), now_ns, ret_evicted);
}

static void test_an_id_and_its_repeats(void)
{
    struct replay_window *w = replay_window_new(&plain, NULL);
    struct replay *first, *again, *other;
    uint32_t evicted;

    CHECK_INT(replay_begin(w, S("a"), one, 0, &first), REPLAY_NEW);
    CHECK_INT(replay_begin(w, S("a"), one, 1, &again), REPLAY_RUNNING);
    CHECK(!again);
    CHECK_INT(replay_begin(w, S("a"), two, 1, &again), REPLAY_CONFLICT);
    CHECK_INT(replay_begin(w, S("b"), one, 1, &other), REPLAY_NEW);
    replay_forget(w, other); /* it failed: the next one tries again */
    CHECK_INT(replay_begin(w, S("b"), two, 1, &other), REPLAY_NEW);
    replay_forget(w, other);
    CHECK_INT(entries(w), 0);
    CHECK(replay_keep(w, first, "text/plain", 3, S("note"), S("the answer"), 2, &evicted));
    CHECK_INT(replay_begin(w, S("a"), one, 1001, &again), REPLAY_ANSWER);
    CHECK_STR(again->body, S("the answer"));
    CHECK_STR(again->note, S("note"));
    CHECK_INT(again->json_bytes, 3);
    CHECK_INT(replay_begin(w, S("a"), two, 1001, &other), REPLAY_CONFLICT);
    CHECK_INT(entries(w), 1);
    CHECK_INT(replay_begin(w, S("a"), two, 1002, &other), REPLAY_NEW); /* the window has passed */
    CHECK_INT(entries(w), 0);
    CHECK_STR(again->body, S("the answer")); /* who holds it may go on reading */
    replay_unref(again);
    replay_forget(w, other);
    replay_window_unref(w);
}

static void test_the_oldest_go_first(void)
{
    const struct plan_idempotency few = {.window_ns = 1000, .bytes_max = 1 << 20, .entries_max = 3};
    struct plan_idempotency small = few;
    struct replay_window *w = replay_window_new(&few, NULL), *same;
    static char large[4096];
    struct replay *r;
    uint32_t evicted;

    CHECK(answered(w, "a", "1", 0, &evicted) && !evicted);
    CHECK(answered(w, "b", "2", 1, &evicted) && !evicted);
    CHECK(answered(w, "c", "3", 2, &evicted) && !evicted);
    CHECK(answered(w, "d", "4", 3, &evicted));
    CHECK_INT(evicted, 1);
    CHECK_INT(replay_begin(w, S("a"), one, 4, &r), REPLAY_NEW);
    replay_forget(w, r);
    CHECK_INT(replay_begin(w, S("b"), one, 4, &r), REPLAY_ANSWER);
    replay_unref(r);

    small.bytes_max = 3000; /* what the next plan says holds from then on */
    same = replay_window_new(&small, w);
    CHECK(same == w);
    memset(large, 'x', sizeof(large) - 1);
    CHECK(!answered(w, "large", large, 5, &evicted) && !evicted); /* it turns nobody out */
    CHECK_INT(entries(w), 3);
    large[2500] = '\0';
    CHECK(answered(w, "fits", large, 6, &evicted));
    CHECK_INT(evicted, 3 - (entries(w) - 1));
    CHECK_INT(replay_begin(w, S("fits"), one, 7, &r), REPLAY_ANSWER);
    replay_unref(r);
    replay_window_unref(w);
    replay_window_unref(same);
}

static void test_without_memory(void)
{
    struct replay_window *w = replay_window_new(&plain, NULL);
    struct replay *r;
    uint32_t evicted;

    mem_test_fail_after(0);
    CHECK_INT(replay_begin(w, S("a"), one, 0, &r), REPLAY_NO_MEMORY);
    CHECK_INT(replay_begin(w, S("a"), one, 0, &r), REPLAY_NEW);
    mem_test_fail_after(0);
    CHECK(!replay_keep(w, r, "text/plain", 0, STR_NULL, S("body"), 0, &evicted));
    CHECK_INT(replay_begin(w, S("a"), one, 0, &r), REPLAY_NEW);
    replay_forget(w, r);
    mem_test_fail_after(-1);
    replay_window_unref(w);
}

/* --- Many threads ----------------------------------------------------------------------------- */

#define THREADS 4
#define ROUNDS 20000
#define IDS 64

static struct replay_window *shared;
static uint64_t runs[IDS], wrong; /* atomic */

static void hammer(void *arg)
{
    uint64_t x = (uint64_t)(uintptr_t)arg + 1;
    char id[16], body[32];
    struct replay *r;
    uint32_t evicted;

    for (int i = 0; i < ROUNDS; i++) {
        unsigned at;

        x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        at = (unsigned)(x >> 33) % IDS;
        snprintf(id, sizeof(id), "%u", at);
        snprintf(body, sizeof(body), "answer to %u", at);
        switch (replay_begin(shared, str_of(id), one, i, &r)) {
        case REPLAY_NEW:
            /* Nobody else may have it. */
            if (__atomic_add_fetch(&runs[at], 1, __ATOMIC_ACQ_REL) != 1)
                __atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
            __atomic_sub_fetch(&runs[at], 1, __ATOMIC_ACQ_REL);
            if (i % 5)
                (void)replay_keep(shared, r, "t", 0, STR_NULL, str_of(body), i, &evicted);
            else
                replay_forget(shared, r);
            break;
        case REPLAY_ANSWER:
            if (!str_eqz(r->body, body))
                __atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
            replay_unref(r);
            break;
        case REPLAY_RUNNING:
            break;
        default:
            __atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
        }
    }
}

static void test_many_threads(void)
{
    struct plan_idempotency cfg = {.window_ns = 50, .bytes_max = 8 << 10, .entries_max = 20};
    struct thread threads[THREADS] = {0};
    struct replay_stats stats;
    struct err e;

    shared = replay_window_new(&cfg, NULL);
    for (uintptr_t i = 0; i < THREADS; i++)
        NEED_OK(thread_start(&threads[i], "replay", THREAD_ANY_CPU, hammer, (void *)i, &e), &e);
    for (int i = 0; i < THREADS; i++)
        thread_join(&threads[i]);
    CHECK_INT(wrong, 0);
    replay_window_stats(shared, &stats);
    CHECK(stats.entries <= 20 && stats.bytes <= 8 << 10);
    replay_window_unref(shared);
}

RUN_TESTS(T(test_an_id_and_its_repeats), T(test_the_oldest_go_first), T(test_without_memory),
          T(test_many_threads))
