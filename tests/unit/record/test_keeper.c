/* SPDX-License-Identifier: Apache-2.0 */
#include "sample.h"

#include "../fault/power.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

struct seen {
    uint64_t digests, recorded, rows, dropped_disk, segment_bytes;
    uint64_t last_sequence;
    bool gap, failing;
    uint64_t durable_calls;
    char plan[72];
};

static void on_digest(void *ctx, const struct digest *d)
{
    struct seen *s = ctx;

    s->gap |= s->digests && d->sequence != s->last_sequence + 1;
    s->last_sequence = d->sequence;
    s->digests++;
    s->recorded += d->recorded;
    s->dropped_disk += d->dropped_disk;
    s->segment_bytes += d->segment_bytes;
    s->failing = d->disk_failing;
    for (uint32_t i = 0; i < d->series_count; i++)
        s->rows += d->series[i]->rows;
    if (!str_to_z(d->plan, s->plan, sizeof s->plan))
        s->plan[0] = 0;
}

static void on_durable(void *ctx)
{
    ((struct seen *)ctx)->durable_calls++;
}

static struct keeper_config config_of(const char *dir, struct seen *seen)
{
    return (struct keeper_config){.dir = dir,
                                  .gateway = S("g1"),
                                  .flush_ms = 100,
                                  .join_entries = 1024,
                                  .on_digest = on_digest,
                                  .on_durable = on_durable,
                                  .ctx = seen};
}

/* All records in the segments of a folder; ids into `mark` when they read "n<number>". */
static uint64_t count_all(const char *dir, unsigned char *mark, uint64_t mark_size)
{
    AUTO(arena_done) struct arena a;
    uint64_t total = 0;
    str *names;
    size_t n;
    struct err e;

    arena_init(&a, 0);
    if (!CHECK_OK(file_list(dir, &a, &names, &n, &e), &e))
        return 0;
    for (size_t i = 0; i < n; i++) {
        const struct record_schema *s;
        const struct record_head *h;
        struct segment_reader r;
        str bytes;

        if (!str_ends(names[i], S(SEGMENT_EXT)))
            continue;
        if (!CHECK_OK(
                file_read_all(path_join(&a, dir, names[i].p), SEGMENT_FILE_MAX, &a, &bytes, &e),
                &e) ||
            !CHECK_OK(segment_reader_init(&r, bytes, &a, &e), &e))
            return 0;
        while (segment_next(&r, &h, &s)) {
            str id = record_request_id(h);
            uint64_t number;

            total++;
            if (mark && id.n && id.p[0] == 'n' && str_to_u64(str_skip(id, 1), &number) &&
                number < mark_size)
                mark[number]++;
        }
        CHECK_INT(r.dropped_bytes, 0);
    }
    return total;
}

static void turns_flush_seal_and_send(void)
{
    const struct record_schema *s = sample_floats("keeper", "1", 4, NULL);
    AUTO(keeper_closep) struct keeper *k = NULL;
    struct seen seen = {0};
    struct keeper_config cfg;
    struct keeper_stats st;
    struct record_ring *ring;
    uint64_t position = 0;
    char dir[64];
    struct err e;

    sample_dir(dir);
    time_test_virtual(NS_PER_S, 1000 * NS_PER_S);
    cfg = config_of(dir, &seen);
    NEED_OK(keeper_open(&cfg, &k, &e), &e);
    NEED_OK(keeper_ring_new(k, 0, &ring, &e), &e);
    keeper_set_plan(k, S("cafe"));
    for (int i = 0; i < 10; i++)
        position = sample_put(ring, s, S("x"), RECORD_PREDICT, 0, 1, 1);
    keeper_turn(k);
    CHECK(record_ring_fate(ring, position) == RECORD_PENDING); /* 100 ms have not passed */
    time_test_advance(100 * NS_PER_MS);
    keeper_turn(k);
    CHECK(record_ring_fate(ring, position) == RECORD_DURABLE);
    CHECK_INT(seen.durable_calls, 1);
    CHECK_INT(seen.digests, 0);
    time_test_advance(150 * NS_PER_MS);
    keeper_turn(k);
    CHECK(seen.digests == 1 && seen.recorded == 10 && seen.rows == 10);
    CHECK(strcmp(seen.plan, "cafe") == 0);
    time_test_advance(60 * NS_PER_S);
    keeper_turn(k); /* the age of the segment seals it */
    CHECK_INT(count_all(dir, NULL, 0), 10);
    keeper_stats(k, &st);
    CHECK(st.records == 10 && st.segments_sealed == 1 && st.dropped_disk == 0);
    CHECK_INT(seen.segment_bytes, st.bytes);
    /* A durable record does not wait for the interval. */
    {
        struct record_feedback_in f = {.request_id = S("x"), .durable = true};

        position = record_put_feedback(ring, &f);
    }
    keeper_turn(k);
    CHECK(record_ring_fate(ring, position) == RECORD_DURABLE);
    keeper_seal_soon(k);
    keeper_turn(k);
    CHECK_INT(count_all(dir, NULL, 0), 11);
    CHECK(!seen.gap);
    time_test_real();
    sample_dir_done(dir);
}

static void one_keeper_per_folder(void)
{
    AUTO(keeper_closep) struct keeper *a = NULL;
    AUTO(keeper_closep) struct keeper *b = NULL;
    struct seen seen = {0};
    struct keeper_config cfg;
    char dir[64];
    struct err e;

    sample_dir(dir);
    cfg = config_of(dir, &seen);
    NEED_OK(keeper_open(&cfg, &a, &e), &e);
    CHECK_FAILS(keeper_open(&cfg, &b, &e), UNAVAILABLE, &e, "keeper.lock");
    sample_dir_done(dir);
}

static uint32_t open_segments(const char *dir)
{
    AUTO(arena_done) struct arena a = {0};
    uint32_t open = 0;
    str *names;
    size_t n;
    struct err e;

    arena_init(&a, 0);
    if (!CHECK_OK(file_list(dir, &a, &names, &n, &e), &e))
        return 0;
    for (size_t i = 0; i < n; i++)
        open += str_ends(names[i], S(SEGMENT_OPEN_EXT));
    return open;
}

/* A successor leaves the open segment of a living predecessor alone, and seals it once that one has
 * gone without doing so. */
static void a_successor_takes_the_folder_over(void)
{
    const struct record_schema *s = sample_floats("keeper", "1", 4, NULL);
    AUTO(keeper_closep) struct keeper *old = NULL;
    AUTO(keeper_closep) struct keeper *next = NULL;
    struct seen seen = {0};
    struct keeper_config cfg, successor;
    struct record_ring *ring, *second;
    char dir[64];
    struct err e;

    sample_dir(dir);
    time_test_virtual(NS_PER_S, 1000 * NS_PER_S);
    successor = cfg = config_of(dir, &seen);
    successor.gateway = S("gw-next");
    successor.successor = true;
    NEED_OK(keeper_open(&cfg, &old, &e), &e);
    NEED_OK(keeper_ring_new(old, 0, &ring, &e), &e);
    (void)sample_put(ring, s, S("n1"), RECORD_PREDICT, 0, 1, 1);
    keeper_turn(old);
    time_test_advance(100 * NS_PER_MS);
    keeper_turn(old);
    CHECK_INT(open_segments(dir), 1);
    NEED_OK(keeper_open(&successor, &next, &e), &e);
    NEED_OK(keeper_ring_new(next, 0, &second, &e), &e);
    (void)sample_put(second, s, S("n2"), RECORD_PREDICT, 0, 1, 1);
    keeper_turn(next);
    time_test_advance(100 * NS_PER_MS);
    keeper_turn(next);
    CHECK_INT(open_segments(dir), 2);
    keeper_close(old); /* not stopped first: as if it had been killed */
    old = NULL;
    time_test_advance(100 * NS_PER_MS);
    keeper_turn(next);
    CHECK_INT(open_segments(dir), 1);
    keeper_seal_soon(next);
    keeper_turn(next);
    CHECK_INT(open_segments(dir), 0);
    CHECK_INT(count_all(dir, NULL, 0), 2);
    time_test_real();
    sample_dir_done(dir);
}

/* The disk refuses for a while: counted, reported, told to who waits; then it recovers. */
static void a_full_disk_is_counted_and_survived(void)
{
    const struct record_schema *s = sample_floats("keeper", "1", 4, NULL);
    AUTO(keeper_closep) struct keeper *k = NULL;
    struct seen seen = {0};
    struct keeper_config cfg;
    struct keeper_stats st;
    struct record_ring *ring;
    uint64_t first, waiting, after;
    struct record_feedback_in f = {.request_id = S("x"), .durable = true};
    char dir[64];
    struct err e;

    sample_dir(dir);
    time_test_virtual(NS_PER_S, 1000 * NS_PER_S);
    cfg = config_of(dir, &seen);
    NEED_OK(keeper_open(&cfg, &k, &e), &e);
    NEED_OK(keeper_ring_new(k, 0, &ring, &e), &e);
    first = sample_put(ring, s, S("x"), RECORD_PREDICT, 0, 1, 1);
    time_test_advance(100 * NS_PER_MS);
    keeper_turn(k);
    CHECK(record_ring_fate(ring, first) == RECORD_DURABLE);
    file_test_fault(FILE_OP_WRITE, 0, FILE_FAULT_TEAR, ENOSPC, true);
    for (int i = 0; i < 5000; i++) /* several blocks */
        sample_put(ring, s, S("x"), RECORD_PREDICT, 0, 1, 1);
    waiting = record_put_feedback(ring, &f);
    keeper_turn(k);
    CHECK(record_ring_fate(ring, waiting) == RECORD_LOST);
    waiting = record_put_feedback(ring, &f);
    keeper_turn(k); /* within the back-off: told at once */
    CHECK(record_ring_fate(ring, waiting) == RECORD_LOST);
    time_test_advance(250 * NS_PER_MS);
    keeper_turn(k);
    CHECK(seen.digests == 1 && seen.failing && seen.rows == 5001);
    CHECK_INT(seen.dropped_disk, 5002);
    file_test_fault(FILE_OP_ANY, -1, FILE_FAULT_ERRNO, 0, false);
    time_test_advance(10 * NS_PER_S);
    after = sample_put(ring, s, S("x"), RECORD_PREDICT, 0, 1, 1);
    keeper_turn(k);
    CHECK(record_ring_fate(ring, after) == RECORD_DURABLE);
    CHECK(!seen.failing);
    keeper_stop(k);
    keeper_stats(k, &st);
    CHECK_INT(st.records, 2);
    CHECK_INT(st.dropped_disk, 5002);
    CHECK(st.flush_failures > 0);
    CHECK_INT(count_all(dir, NULL, 0), 2);
    time_test_real();
    sample_dir_done(dir);
}

static void a_folder_limit_acts_like_a_full_disk(void)
{
    const struct record_schema *s = sample_floats("keeper", "1", 4, NULL);
    AUTO(keeper_closep) struct keeper *k = NULL;
    struct seen seen = {0};
    struct keeper_config cfg;
    struct record_ring *ring;
    uint64_t durable = 0;
    char dir[64];
    struct err e;

    sample_dir(dir);
    time_test_virtual(NS_PER_S, 1000 * NS_PER_S);
    cfg = config_of(dir, &seen);
    cfg.disk_max_bytes = 1 << 20;
    NEED_OK(keeper_open(&cfg, &k, &e), &e);
    NEED_OK(keeper_ring_new(k, 0, &ring, &e), &e);
    for (int i = 0; i < 20; i++) {
        uint64_t position = 0;

        for (int n = 0; n < 1000; n++)
            position = sample_put(ring, s, S("x"), RECORD_PREDICT, 0, 1, 1);
        time_test_advance(100 * NS_PER_MS);
        keeper_turn(k);
        durable += record_ring_fate(ring, position) == RECORD_DURABLE;
    }
    CHECK(durable >= 5 && durable <= 9); /* about 100 KB each, and a block of 256 KiB to spare */
    time_test_real();
    sample_dir_done(dir);
}

static void the_thread_keeps_up_and_sleeps(void)
{
    const struct record_schema *s = sample_floats("keeper", "1", 4, NULL);
    AUTO(keeper_closep) struct keeper *k = NULL;
    struct seen seen = {0};
    struct keeper_config cfg;
    struct keeper_stats st;
    struct record_ring *ring;
    struct record_feedback_in f = {.request_id = S("x"), .durable = true};
    uint64_t position, put = 0;
    struct timespec before, after;
    char dir[64];
    struct err e;

    sample_dir(dir);
    cfg = config_of(dir, &seen);
    cfg.digest_ms = 20;
    NEED_OK(keeper_open(&cfg, &k, &e), &e);
    NEED_OK(keeper_start(k, &e), &e);
    NEED_OK(keeper_ring_new(k, 0, &ring, &e), &e); /* while it runs */
    for (int i = 0; i < 20000; i++)
        put += sample_put(ring, s, S("x"), RECORD_PREDICT, 0, 1, 1) != 0;
    position = record_put_feedback(ring, &f);
    put++;
    for (int i = 0; i < 5000 && record_ring_fate(ring, position) == RECORD_PENDING; i++)
        usleep(1000);
    CHECK(record_ring_fate(ring, position) == RECORD_DURABLE);
    usleep(200000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    usleep(1000000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    printf(
        "idle keeper with 50 digests a second: %.3f %% of a core\n",
        ((double)(after.tv_sec - before.tv_sec) * 1e9 + (double)(after.tv_nsec - before.tv_nsec)) /
            1e7);
    keeper_stop(k);
    keeper_stats(k, &st);
    CHECK_INT(st.records + st.dropped_ring, put + st.dropped_ring);
    CHECK_INT(st.records, put);
    CHECK(seen.digests > 20 && seen.recorded == put && !seen.gap);
    CHECK_INT(count_all(dir, NULL, 0), put);
    sample_dir_done(dir);
}

/* --- kill -9 ------------------------------------------------------------------------------- */

struct shared {
    _Atomic uint64_t durable_count; /* records n0 … n<count-1> were said to be durable */
};

static void child_main(const char *dir, struct shared *sh)
{
    const struct record_schema *s = sample_floats("kill", "1", 4, NULL);
    static uint64_t positions[1 << 16];
    struct seen seen = {0};
    struct keeper_config cfg = config_of(dir, &seen);
    struct record_ring *ring;
    struct keeper *k;
    uint64_t put = 0, acknowledged = 0;
    char id[32];
    struct err e;

    cfg.flush_ms = 2;
    cfg.seal_ms = 15;
    if (keeper_open(&cfg, &k, &e) || keeper_ring_new(k, 0, &ring, &e) || keeper_start(k, &e))
        _exit(3);
    for (;;) {
        for (int i = 0; i < 50 && put - acknowledged < ARRAY_LEN(positions); i++) {
            snprintf(id, sizeof id, "n%llu", (unsigned long long)put);
            positions[put % ARRAY_LEN(positions)] =
                sample_put(ring, s, str_of(id), RECORD_PREDICT, 0, 1, 1);
            put += positions[put % ARRAY_LEN(positions)] != 0;
        }
        while (acknowledged < put &&
               record_ring_fate(ring, positions[acknowledged % ARRAY_LEN(positions)]) ==
                   RECORD_DURABLE)
            acknowledged++;
        atomic_store(&sh->durable_count, acknowledged);
        usleep(100);
    }
}

static void check_survivors(const char *dir, uint64_t acknowledged)
{
    unsigned char *mark = calloc(acknowledged + 1, 1);
    struct seen seen = {0};
    struct keeper_config cfg = config_of(dir, &seen);
    struct keeper *k = NULL;
    uint64_t missing = 0, twice = 0;
    struct err e;

    if (CHECK_OK(keeper_open(&cfg, &k, &e), &e)) { /* recovers */
        count_all(dir, mark, acknowledged);
        for (uint64_t i = 0; i < acknowledged; i++) {
            missing += mark[i] == 0;
            twice += mark[i] > 1;
        }
        CHECK_INT(missing, 0);
        CHECK_INT(twice, 0);
    }
    keeper_close(k);
    free(mark);
}

static void kill_nine_loses_nothing_flushed(void)
{
    struct shared *sh =
        mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t total = 0;
    struct rng rng;

    rng_seed(&rng, 11);
    for (int round = 0; round < 12; round++) {
        char dir[64];
        pid_t pid;

        sample_dir(dir);
        atomic_store(&sh->durable_count, 0);
        fflush(NULL);
        pid = fork();
        if (pid == 0)
            child_main(dir, sh);
        usleep((useconds_t)(20000 + rng_below(&rng, 60000)));
        kill(pid, SIGKILL);
        NEED(waitpid(pid, NULL, 0) == pid);
        total += atomic_load(&sh->durable_count);
        check_survivors(dir, atomic_load(&sh->durable_count));
        sample_dir_done(dir);
    }
    printf("%llu acknowledged records survived 12 kills\n", (unsigned long long)total);
    CHECK(total > 500);
    munmap(sh, sizeof *sh);
}

/* The same, with the death inside the k-th write, sync or rename, and the write torn. */
static void death_inside_any_file_call(void)
{
    struct shared *sh =
        mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    static const enum file_op ops[] = {FILE_OP_WRITE, FILE_OP_SYNC, FILE_OP_RENAME, FILE_OP_OPEN};

    for (int round = 0; round < 16; round++) {
        char dir[64];
        pid_t pid;

        sample_dir(dir);
        atomic_store(&sh->durable_count, 0);
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
            file_test_fault(ops[round % 4], 2 + round / 4 * 3, FILE_FAULT_KILL, 0, false);
            alarm(10);
            child_main(dir, sh);
        }
        NEED(waitpid(pid, NULL, 0) == pid);
        check_survivors(dir, atomic_load(&sh->durable_count));
        sample_dir_done(dir);
    }
    munmap(sh, sizeof *sh);
}

/* The power goes at the k-th sync: all that was said to be durable is there once. */
static void power_loss_loses_nothing_flushed(void)
{
    struct shared *sh =
        mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t total = 0;

    for (int round = 0; round < 40; round++) {
        char dir[64];
        int status;
        pid_t pid;

        sample_dir(dir);
        atomic_store(&sh->durable_count, 0);
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
            power_lost_at_sync(round, (uint64_t)round);
            alarm(10);
            child_main(dir, sh);
        }
        NEED(waitpid(pid, &status, 0) == pid);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        total += atomic_load(&sh->durable_count);
        check_survivors(dir, atomic_load(&sh->durable_count));
        sample_dir_done(dir);
    }
    CHECK(total > 500);
    munmap(sh, sizeof *sh);
}

RUN_TESTS(T(turns_flush_seal_and_send), T(one_keeper_per_folder),
          T(a_successor_takes_the_folder_over), T(a_full_disk_is_counted_and_survived),
          T(a_folder_limit_acts_like_a_full_disk), T(the_thread_keeps_up_and_sleeps),
          T(kill_nine_loses_nothing_flushed), T(death_inside_any_file_call),
          T(power_loss_loses_nothing_flushed))
