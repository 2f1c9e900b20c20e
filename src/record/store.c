/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Durability with a bounded price.
 *
 * The idea. Records gather in one block; it is written when it is full, and every flush interval
 * what was written is synced, after which the positions that the rings had then are published as
 * durable. A record that an answer waits for makes the next turn flush at once; all that came in
 * the meantime shares that sync.
 *
 * When the disk refuses (full, over its limit, broken), the block at hand is dropped and counted,
 * everything not yet synced is declared lost, and nothing touches the disk until a back-off (100
 * ms, doubling to 5 s) has passed. Then the block that has gathered is tried; if it goes through,
 * the store has recovered. Loops never notice, unless they wait for durable records: those are told
 * that theirs are lost.
 *
 * Invariant. A position is published as durable only if every record before it, back to the last
 * lost one, has been synced.
 */
#include "record/store.h"

#include "base/files.h"
#include "base/log.h"
#include "base/time.h"

#define BACKOFF_MIN_NS (100 * NS_PER_MS)
#define BACKOFF_MAX_NS (5 * NS_PER_S)

/* --- Making -------------------------------------------------------------------------------- */

/* Bytes of the segments in the folder, but for the one being written. */
static NODISCARD int folder_bytes(const struct store *st, uint64_t *ret_bytes, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    const char *own = segment_writer_file(st->writer);
    uint64_t total = 0;
    str *names;
    size_t n;

    arena_init(&a, 0);
    TRY(file_list(st->dir, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        AUTO(file_closep) int fd = -1;
        uint64_t bytes;

        if (!str_ends(names[i], S(SEGMENT_EXT)) && !str_ends(names[i], S(SEGMENT_OPEN_EXT)))
            continue;
        if (own && str_eqz(names[i], own))
            continue;
        /* One that the exporter takes away meanwhile is no error. */
        if (file_open(path_join(&a, st->dir, names[i].p), FILE_READ, &fd, NULL) == 0 &&
            file_size(fd, &bytes, NULL) == 0)
            total += bytes;
    }
    *ret_bytes = total;
    return 0;
}

int store_open(struct store *st, const struct keeper_config *cfg, struct record_ring **rings,
               const uint32_t *ring_count, struct err *e)
{
    *st = (struct store){
        .dir = cfg->dir,
        .flush_ns = (cfg->flush_ms < 0 ? 1000 : cfg->flush_ms) * NS_PER_MS,
        .seal_ns = (cfg->seal_ms ? cfg->seal_ms : 60000) * NS_PER_MS,
        .seal_bytes = cfg->seal_bytes ? cfg->seal_bytes : UINT64_C(64) << 20,
        .max_bytes = cfg->disk_max_bytes,
        .rings = rings,
        .ring_count = ring_count,
        .flushed_mono_ns = time_mono_ns(),
        .backoff_ns = BACKOFF_MIN_NS,
    };
    if (st->seal_bytes > SEGMENT_FILE_MAX - SEGMENT_BLOCK_MAX - SEGMENT_SCHEMA_MAX)
        return FAIL(e, INVALID_ARGUMENT, "segments of %llu bytes: at most 1 GiB less one block",
                    (unsigned long long)st->seal_bytes);
    TRY(segment_writer_new(cfg->dir, cfg->gateway, &st->writer, e));
    return folder_bytes(st, &st->other_bytes, e);
}

void store_close(struct store *st)
{
    segment_writer_free(st->writer);
    st->writer = NULL;
}

/* --- When the disk refuses ----------------------------------------------------------------- */

/* Everything read from the rings so far and not yet durable is gone, or may be. */
static void lose_all(struct store *st)
{
    for (uint32_t i = 0; i < *st->ring_count; i++)
        st->lost[i] = record_ring_position(st->rings[i]);
}

static void fail(struct store *st, uint64_t records, int64_t mono_ns, const struct err *why)
{
    st->dropped += records;
    st->failures++;
    if (!st->failing) {
        log_err("record.disk_failing", why);
        st->backoff_ns = BACKOFF_MIN_NS;
    } else {
        st->backoff_ns = MIN(2 * st->backoff_ns, BACKOFF_MAX_NS);
    }
    st->failing = true;
    st->retry_mono_ns = mono_ns + st->backoff_ns;
    lose_all(st);
}

static void recovered(struct store *st)
{
    uint32_t files;
    uint64_t lost;
    struct err e;

    if (!st->failing)
        return;
    st->failing = false;
    log_event(LOG_INFO, "record.disk_recovered", "dropped_records=%llu",
              (unsigned long long)st->dropped);
    /* Files that a failed sync left behind. */
    if (!st->beside && segment_recover(st->dir, segment_writer_file(st->writer), &files, &lost, &e))
        log_err("record.recover_failed", &e);
}

/* --- Writing ------------------------------------------------------------------------------- */

static NODISCARD int check_room(const struct store *st, const struct segment_state *state,
                                struct err *e)
{
    uint64_t used = st->other_bytes + state->file_bytes;

    if (st->max_bytes && used + SEGMENT_BLOCK_MAX > st->max_bytes)
        return FAIL(e, RESOURCE_EXHAUSTED,
                    "record segments in '%s' take %llu bytes of the %llu allowed: export or remove "
                    "some, or raise the limit",
                    st->dir, (unsigned long long)used, (unsigned long long)st->max_bytes);
    return 0;
}

/* Writes the block in memory. */
static bool write_block(struct store *st, int64_t mono_ns)
{
    struct segment_state before;
    struct err e;
    int rc;

    segment_state(st->writer, &before);
    if (!before.buffered)
        return true;
    rc = check_room(st, &before, &e);
    if (rc)
        segment_discard(st->writer);
    else
        rc = segment_write(st->writer, &e);
    if (rc) {
        fail(st, before.buffered, mono_ns, &e);
        return false;
    }
    if (!before.is_open)
        st->opened_mono_ns = mono_ns;
    return true;
}

static bool sync(struct store *st, int64_t mono_ns)
{
    struct segment_state before;
    struct err e;

    segment_state(st->writer, &before);
    if (segment_sync(st->writer, &e)) {
        fail(st, before.unsynced, mono_ns, &e);
        return false;
    }
    return true;
}

void store_add(struct store *st, const struct record_head *h, const struct record_schema *s,
               int64_t mono_ns)
{
    st->urgent |= (h->flags & RECORD_DURABLE_WANTED) != 0;
    if (LIKELY(segment_append(st->writer, h, s)))
        return;
    if (st->failing && mono_ns < st->retry_mono_ns) {
        struct segment_state state;

        segment_state(st->writer, &state);
        st->dropped += state.buffered;
        segment_discard(st->writer);
        lose_all(st);
    } else {
        write_block(st, mono_ns);
    }
    if (!segment_append(st->writer, h, s))
        st->dropped++; /* cannot be: a record fits an empty block */
}

static void publish(struct store *st)
{
    for (uint32_t i = 0; i < *st->ring_count; i++)
        record_ring_publish(st->rings[i], record_ring_position(st->rings[i]), st->lost[i]);
}

/* Makes everything that was added durable, or declares it lost. */
static void flush(struct store *st, int64_t mono_ns)
{
    st->flushed_mono_ns = mono_ns;
    st->urgent = false;
    st->flushes++;
    if (write_block(st, mono_ns) && sync(st, mono_ns))
        recovered(st);
    publish(st);
}

static void seal(struct store *st, int64_t mono_ns)
{
    struct err e;

    st->opened_mono_ns = 0;
    if (segment_seal(st->writer, &e)) {
        fail(st, 0, mono_ns, &e);
        return;
    }
    if (folder_bytes(st, &st->other_bytes, &e))
        log_err("record.folder", &e);
}

/* While the disk rests: answers that wait are told, the others lose nothing by waiting. */
static bool turn_resting(struct store *st, uint32_t buffered)
{
    if (!st->urgent)
        return false;
    st->urgent = false;
    st->dropped += buffered;
    segment_discard(st->writer);
    lose_all(st);
    publish(st);
    return true;
}

bool store_turn(struct store *st, int64_t mono_ns, bool seal_now)
{
    struct segment_state state;
    bool pending, seal_due, moved = false;

    segment_state(st->writer, &state);
    if (st->failing && mono_ns < st->retry_mono_ns)
        return turn_resting(st, state.buffered);
    if (st->failing && st->max_bytes) { /* has room been made? If unknown, the old number stands */
        int ignored UNUSED = folder_bytes(st, &st->other_bytes, NULL);
    }
    pending = state.buffered || state.unsynced || st->urgent;
    seal_due = seal_now || state.file_bytes >= st->seal_bytes ||
               (state.is_open && mono_ns - st->opened_mono_ns >= st->seal_ns);
    if (pending &&
        (st->urgent || st->failing || seal_due || mono_ns - st->flushed_mono_ns >= st->flush_ns)) {
        flush(st, mono_ns);
        moved = true;
    }
    segment_state(st->writer, &state);
    if (seal_due && state.is_open && !st->failing)
        seal(st, mono_ns);
    return moved;
}

int64_t store_due_ns(const struct store *st)
{
    struct segment_state state;
    int64_t due = INT64_MAX;

    segment_state(st->writer, &state);
    if (state.buffered || state.unsynced)
        due = st->failing ? st->retry_mono_ns : st->flushed_mono_ns + st->flush_ns;
    if (state.is_open && !st->failing)
        due = MIN(due, st->opened_mono_ns + st->seal_ns);
    return due;
}
