/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: the thread behind the loops.
 *
 * The idea. One turn drains every ring, and for each record does three things while its bytes are
 * in the cache: copies it into the segment block (store.c), folds it into cells (fold.c), and
 * enters it into the join index (join.c). Then what is due is flushed, sealed and sent. Between
 * turns the thread sleeps on an eventfd: 5 ms while records come, up to 50 ms while none do, and it
 * is woken early when a ring is half full or an answer waits for the disk. So an idle gateway pays
 * some twenty wake-ups a second, and a busy one handles records in large batches.
 *
 * A sync can take long on a slow disk; the rings are sized to hold what comes in meanwhile, and
 * what does not fit is counted.
 *
 * Everything but the few atomics at the end of struct keeper belongs to the keeper thread.
 */
#include "record/keeper.h"

#include "record/join.h"
#include "record/store.h"

#include "base/files.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "loop/thread.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RELEASE_BYTES ((uint64_t)64 << 10) /* room is given back to a loop this often */
#define BATCH 8u
#define IDLE_MAX_NS (50 * NS_PER_MS)
#define PLAN_TEXT_SIZE 72
#define ALONE_LOOK_NS (100 * NS_PER_MS)

struct keeper {
    struct keeper_config cfg; /* texts owned */
    int lock_fd, wake_fd;
    struct thread thread;

    struct record_ring *rings[KEEPER_RINGS_MAX]; /* owned; the first ring_count are in use */
    uint32_t ring_count;                         /* as the keeper thread sees it */
    struct store store;
    struct fold fold;
    struct join *join; /* owned */

    int64_t turn_ns, digest_ns;
    int64_t digest_due_ns;  /* mono */
    int64_t idle_ns;        /* how long to sleep when nothing came */
    int64_t alone_due_ns;   /* when a successor looks next whether its predecessor has ended */
    uint64_t run, sequence; /* of the digests */
    uint64_t sent_dropped_ring, sent_dropped_disk, sent_segment_bytes;
    uint64_t drained; /* records taken from rings, ever */
    char plan[PLAN_TEXT_SIZE];
    uint64_t recovered_bytes_lost;
    uint32_t recovered_segments;

    pthread_mutex_t lock; /* plan_next, and the appending of rings: not on the record path */
    char plan_next[PLAN_TEXT_SIZE];
    atomic_uint rings_ready;
    atomic_bool stopping, seal_wanted, wake_pending;
    struct keeper_stats stats; /* each field stored and loaded atomically */
};

/* --- Waking -------------------------------------------------------------------------------- */

void keeper_wake(struct keeper *k)
{
    /* One write(2) for any number of calls until the keeper has woken. */
    if (!atomic_exchange_explicit(&k->wake_pending, true, memory_order_acq_rel))
        eventfd_write(k->wake_fd, 1);
}

static void wake_from_ring(void *ctx)
{
    keeper_wake(ctx);
}

static void wait_until(struct keeper *k, int64_t due_ns)
{
    struct pollfd p = {.fd = k->wake_fd, .events = POLLIN};
    int64_t ns = due_ns - time_mono_ns();
    struct timespec ts = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
    eventfd_t ignored;

    if (ns <= 0)
        return;
    if (ppoll(&p, 1, &ts, NULL) == 1) {
        int rc UNUSED = eventfd_read(k->wake_fd, &ignored);
    }
    atomic_store_explicit(&k->wake_pending, false, memory_order_release);
}

/* --- One turn ------------------------------------------------------------------------------ */

static void take_record(struct keeper *k, const struct record_head *h, int64_t mono_ns)
{
    const struct record_schema *s = NULL;

    if (h->kind == RECORD_FEEDBACK) {
        join_feedback(k->join, &k->fold, h);
    } else {
        s = record_schema_at(h->schema_id);
        ASSERT(s);
        fold_record(&k->fold, h, s, !k->cfg.cells_off);
        join_record(k->join, &k->fold, h, s);
    }
    if (!k->cfg.segments_off)
        store_add(&k->store, h, s, mono_ns);
}

static uint64_t drain(struct keeper *k, struct record_ring *r, int64_t mono_ns)
{
    const struct record_head *batch[BATCH];
    uint64_t records = 0, released = record_ring_position(r);
    /* What comes in while draining waits for the next turn, or a busy loop would hold us here. */
    uint64_t stop = released + record_ring_pending_bytes(r);

    while (record_ring_position(r) < stop) {
        uint32_t n = 0;

        /* Some records ahead, so that what the index misses in the cache is on its way. */
        while (n < BATCH && (batch[n] = record_ring_next(r)))
            join_prefetch(k->join, batch[n++]);
        for (uint32_t i = 0; i < n; i++)
            take_record(k, batch[i], mono_ns);
        records += n;
        if (record_ring_position(r) - released >= RELEASE_BYTES) {
            record_ring_release(r);
            released = record_ring_position(r);
        }
    }
    record_ring_release(r);
    if (records && k->cfg.segments_off) /* never durable: whoever waits must know at once */
        record_ring_publish(r, 0, record_ring_position(r));
    return records;
}

static uint64_t dropped_by_rings(const struct keeper *k)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < k->ring_count; i++)
        n += record_ring_dropped(k->rings[i]);
    return n;
}

static void put_stat(uint64_t *field, uint64_t v)
{
    __atomic_store_n(field, v, __ATOMIC_RELAXED);
}

static void update_stats(struct keeper *k)
{
    struct segment_state state;

    segment_state(k->store.writer, &state);
    put_stat(&k->stats.records, state.synced_records);
    put_stat(&k->stats.bytes, state.synced_bytes);
    put_stat(&k->stats.dropped_ring, dropped_by_rings(k));
    put_stat(&k->stats.dropped_disk, k->store.dropped);
    put_stat(&k->stats.segments_sealed, state.sealed_files);
    put_stat(&k->stats.flushes, k->store.flushes);
    put_stat(&k->stats.flush_failures, k->store.failures);
    put_stat(&k->stats.recovered_segments, k->recovered_segments);
    put_stat(&k->stats.recovered_bytes_lost, k->recovered_bytes_lost);
    if (!state.buffered && !state.unsynced)
        put_stat(&k->stats.durable_seq, state.blocks);
}

static void send_digest(struct keeper *k, int64_t mono_ns)
{
    struct digest *d = &k->fold.digest;
    struct segment_state state;
    uint64_t dropped_ring = dropped_by_rings(k);

    segment_state(k->store.writer, &state);
    fold_settle(&k->fold);
    pthread_mutex_lock(&k->lock);
    memcpy(k->plan, k->plan_next, sizeof k->plan);
    pthread_mutex_unlock(&k->lock);
    d->gateway = k->cfg.gateway;
    d->plan = str_of(k->plan);
    d->run = k->run;
    d->sequence = k->sequence++;
    d->to_wall_ns = time_wall_ns();
    d->dropped_ring = dropped_ring - k->sent_dropped_ring;
    d->dropped_disk = k->store.dropped - k->sent_dropped_disk;
    d->segment_bytes = state.synced_bytes - k->sent_segment_bytes;
    d->disk_failing = k->store.failing;
    k->sent_dropped_ring = dropped_ring;
    k->sent_dropped_disk = k->store.dropped;
    k->sent_segment_bytes = state.synced_bytes;
    if (k->cfg.on_digest)
        k->cfg.on_digest(k->cfg.ctx, d);
    fold_reset(&k->fold);
    join_tick(k->join);
    d->from_wall_ns = d->to_wall_ns;
    d->recorded = d->feedback = d->feedback_late = d->join_evicted = 0;
    k->digest_due_ns = mono_ns + k->digest_ns;
}

/* --- The folder ----------------------------------------------------------------------------- */

/* What cannot be sealed now (a full disk) is sealed at the next start: no reason not to serve. */
static void recover(struct keeper *k, const char *own)
{
    struct err why;

    if (segment_recover(k->cfg.dir, own, &k->recovered_segments, &k->recovered_bytes_lost, &why))
        log_err("record.recover_failed", &why);
    else if (k->recovered_segments)
        log_event(LOG_INFO, "record.recovered", "segments=%u bytes_lost=%llu",
                  k->recovered_segments, (unsigned long long)k->recovered_bytes_lost);
}

static NODISCARD int lock_folder(struct keeper *k, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};

    arena_init(&a, 0);
    return file_lock(path_join(&a, k->cfg.dir, "keeper.lock"), &k->lock_fd, e);
}

/* A successor takes the folder over once its predecessor has let go of it. */
static void take_over(struct keeper *k, int64_t mono_ns)
{
    if (k->lock_fd >= 0 || mono_ns < k->alone_due_ns)
        return;
    k->alone_due_ns = mono_ns + ALONE_LOOK_NS;
    if (lock_folder(k, NULL))
        return;
    k->store.beside = false;
    recover(k, segment_writer_file(k->store.writer));
}

static uint64_t turn(struct keeper *k, int64_t mono_ns, bool seal_now)
{
    uint64_t records = 0;
    bool moved;

    take_over(k, mono_ns);
    k->ring_count = atomic_load_explicit(&k->rings_ready, memory_order_acquire);
    for (uint32_t i = 0; i < k->ring_count; i++)
        records += drain(k, k->rings[i], mono_ns);
    k->fold.digest.recorded += records;
    moved = (records && k->cfg.segments_off) || store_turn(&k->store, mono_ns, seal_now);
    if (records || moved)
        update_stats(k);
    if (moved && k->cfg.on_durable)
        k->cfg.on_durable(k->cfg.ctx);
    if (mono_ns >= k->digest_due_ns) {
        update_stats(k);
        send_digest(k, mono_ns);
    }
    return records;
}

void keeper_turn(struct keeper *k)
{
    ASSERT(!k->thread.running);
    turn(k, time_mono_ns(), atomic_exchange(&k->seal_wanted, false));
}

static void keeper_main(void *arg)
{
    struct keeper *k = arg;

    while (!atomic_load_explicit(&k->stopping, memory_order_acquire)) {
        int64_t now = time_mono_ns();
        uint64_t records = turn(k, now, atomic_exchange(&k->seal_wanted, false));
        int64_t due;

        k->idle_ns = records ? k->turn_ns : MIN(2 * k->idle_ns, MAX(IDLE_MAX_NS, k->turn_ns));
        due = MIN(now + k->idle_ns, k->digest_due_ns);
        wait_until(k, MIN(due, MAX(store_due_ns(&k->store), now + NS_PER_MS)));
    }
}

/* --- Life ---------------------------------------------------------------------------------- */

static NODISCARD int open_folder(struct keeper *k, struct err *e)
{
    TRY(file_make_dirs(k->cfg.dir, e));
    if (lock_folder(k, e))
        return k->cfg.successor && e->code == CODE_UNAVAILABLE ? 0 : (int)e->code;
    recover(k, NULL);
    return 0;
}

int keeper_open(const struct keeper_config *cfg, struct keeper **ret_keeper, struct err *e)
{
    AUTO(keeper_closep) struct keeper *k = mem_zalloc(sizeof *k);

    k->cfg = *cfg;
    k->cfg.dir = mem_dupz(cfg->dir, strlen(cfg->dir));
    k->cfg.gateway = (str){mem_dupz(cfg->gateway.p, cfg->gateway.n), cfg->gateway.n};
    k->lock_fd = -1;
    k->wake_fd = -1;
    pthread_mutex_init(&k->lock, NULL);
    fold_init(&k->fold);
    k->turn_ns = (cfg->turn_ms ? cfg->turn_ms : 5) * NS_PER_MS;
    k->digest_ns = (cfg->digest_ms ? cfg->digest_ms : 250) * NS_PER_MS;
    k->idle_ns = k->turn_ns;
    TRY(open_folder(k, e));
    TRY(store_open(&k->store, &k->cfg, k->rings, &k->ring_count, e));
    k->store.beside = k->lock_fd < 0;
    TRY(join_new(cfg->join_entries, cfg->join_rows, &k->join, e));
    k->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (k->wake_fd < 0)
        return FAIL_ERRNO(e, "record keeper: eventfd");
    k->run = random_u64();
    k->fold.digest.from_wall_ns = time_wall_ns();
    k->digest_due_ns = time_mono_ns() + k->digest_ns;
    *ret_keeper = TAKE(k);
    return 0;
}

static void unlock(pthread_mutex_t **lock)
{
    pthread_mutex_unlock(*lock);
}

int keeper_ring_new(struct keeper *k, size_t bytes, struct record_ring **ret_ring, struct err *e)
{
    AUTO(record_ring_freep) struct record_ring *r = NULL;
    AUTO(unlock) pthread_mutex_t *lock = &k->lock;
    uint32_t n;

    pthread_mutex_lock(lock);
    n = atomic_load(&k->rings_ready);
    if (n == KEEPER_RINGS_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED, "a keeper serves at most %u loops", KEEPER_RINGS_MAX);
    TRY(record_ring_new(bytes, &r, e));
    record_ring_set_wake(r, wake_from_ring, k);
    *ret_ring = r;
    k->rings[n] = TAKE(r);
    atomic_store_explicit(&k->rings_ready, n + 1, memory_order_release);
    return 0;
}

int keeper_start(struct keeper *k, struct err *e)
{
    ASSERT(!k->thread.running);
    atomic_store(&k->stopping, false);
    return thread_start(&k->thread, "keeper", THREAD_ANY_CPU, keeper_main, k, e);
}

void keeper_stop(struct keeper *k)
{
    if (k->thread.running) {
        atomic_store_explicit(&k->stopping, true, memory_order_release);
        eventfd_write(k->wake_fd, 1);
        thread_join(&k->thread);
    }
    turn(k, time_mono_ns(), true);
    send_digest(k, time_mono_ns());
    update_stats(k);
}

void keeper_close(struct keeper *k)
{
    if (!k)
        return;
    if (k->thread.running)
        keeper_stop(k);
    for (uint32_t i = 0; i < atomic_load(&k->rings_ready); i++)
        record_ring_free(k->rings[i]);
    store_close(&k->store);
    join_free(k->join);
    fold_done(&k->fold);
    if (k->wake_fd >= 0)
        close(k->wake_fd);
    file_close(k->lock_fd);
    pthread_mutex_destroy(&k->lock);
    mem_free((void *)(uintptr_t)k->cfg.dir);
    mem_free((void *)(uintptr_t)k->cfg.gateway.p);
    mem_free(k);
}

void keeper_set_plan(struct keeper *k, str plan_hash)
{
    pthread_mutex_lock(&k->lock);
    if (!str_to_z(plan_hash, k->plan_next, sizeof k->plan_next))
        k->plan_next[0] = 0;
    pthread_mutex_unlock(&k->lock);
}

void keeper_seal_soon(struct keeper *k)
{
    atomic_store(&k->seal_wanted, true);
    keeper_wake(k);
}

void keeper_stats(const struct keeper *k, struct keeper_stats *ret)
{
    const uint64_t *from = (const uint64_t *)(const void *)&k->stats;
    uint64_t *to = (uint64_t *)(void *)ret;

    _Static_assert(sizeof k->stats % sizeof(uint64_t) == 0, "only 64-bit counters");
    for (size_t i = 0; i < sizeof k->stats / sizeof *from; i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
