/* SPDX-License-Identifier: Apache-2.0 */
#include "sample.h"

#include <errno.h>

#define RING ((size_t)1 << 20)

/* Puts n feedback-sized and row records into a writer, numbered from `from`. */
static void put_records(struct segment_writer *w, struct record_ring *r,
                        const struct record_schema *s, uint32_t from, uint32_t n)
{
    char id[32];
    struct err e;

    for (uint32_t i = from; i < from + n; i++) {
        const struct record_head *h;

        snprintf(id, sizeof id, "r%u", i);
        NEED(sample_put(r, s, str_of(id), RECORD_PREDICT, 0, (float)i, 0.5f));
        h = record_ring_next(r);
        if (!segment_append(w, h, s)) {
            CHECK_OK(segment_write(w, &e), &e);
            CHECK(segment_append(w, h, s));
        }
        record_ring_release(r);
    }
}

static str read_one(const char *dir, const char *ext, struct arena *a)
{
    str *names, bytes = STR_NULL;
    struct err e;
    size_t n;

    if (!CHECK_OK(file_list(dir, a, &names, &n, &e), &e))
        return bytes;
    for (size_t i = 0; i < n; i++)
        if (str_ends(names[i], str_of(ext)))
            CHECK_OK(file_read_all(path_join(a, dir, names[i].p), SEGMENT_FILE_MAX, a, &bytes, &e),
                     &e);
    return bytes;
}

/* Counts records and checks that they are r0, r1, … */
static uint32_t count_records(str bytes, struct arena *a, uint64_t *ret_dropped)
{
    const struct record_schema *s;
    const struct record_head *h;
    struct segment_reader r;
    uint32_t n = 0;
    char id[32];
    struct err e;

    *ret_dropped = bytes.n;
    if (segment_reader_init(&r, bytes, a, &e))
        return 0;
    while (segment_next(&r, &h, &s)) {
        snprintf(id, sizeof id, "r%u", n);
        CHECK_STR(record_request_id(h), str_of(id));
        CHECK(s && record_row_number(s, 0, record_rows(h)) == n);
        n++;
    }
    *ret_dropped = r.dropped_bytes;
    return n;
}

static void what_was_written_reads_back(void)
{
    const struct record_schema *s = sample_floats("segment", "1", 30, NULL);
    AUTO(segment_writer_freep) struct segment_writer *w = NULL;
    AUTO(record_ring_freep) struct record_ring *r = NULL;
    AUTO(arena_done) struct arena a;
    struct segment_state state;
    uint64_t dropped;
    char dir[64];
    str bytes;
    struct err e;

    arena_init(&a, 0);
    sample_dir(dir);
    NEED_OK(record_ring_new(RING, &r, &e), &e);
    NEED_OK(segment_writer_new(dir, S("g1"), &w, &e), &e);
    put_records(w, r, s, 0, 5000);
    NEED_OK(segment_write(w, &e), &e);
    NEED_OK(segment_sync(w, &e), &e);
    segment_state(w, &state);
    CHECK(state.synced_records == 5000 && state.is_open && state.blocks > 3);
    NEED_OK(segment_seal(w, &e), &e);
    bytes = read_one(dir, SEGMENT_EXT, &a);
    CHECK_INT(count_records(bytes, &a, &dropped), 5000);
    CHECK_INT(dropped, 0);
    /* The next file names the schema anew. */
    put_records(w, r, s, 0, 3);
    NEED_OK(segment_seal(w, &e), &e);
    CHECK_INT(count_records(read_one(dir, SEGMENT_EXT, &a), &a, &dropped), 3);
    sample_dir_done(dir);
}

/* Cut at every place in the last block and at random ones before: only whole blocks come out. */
static void a_torn_tail_ends_the_reading(void)
{
    const struct record_schema *s = sample_floats("segment", "1", 8, NULL);
    AUTO(segment_writer_freep) struct segment_writer *w = NULL;
    AUTO(record_ring_freep) struct record_ring *r = NULL;
    AUTO(arena_done) struct arena a, b;
    size_t ends[8] = {0};
    char dir[64];
    struct rng rng;
    str bytes;
    struct err e;

    arena_init(&a, 0);
    arena_init(&b, 0);
    sample_dir(dir);
    NEED_OK(record_ring_new(RING, &r, &e), &e);
    NEED_OK(segment_writer_new(dir, S("g1"), &w, &e), &e);
    for (uint32_t i = 0; i < ARRAY_LEN(ends); i++) {
        struct segment_state state;

        put_records(w, r, s, i * 10, 10);
        NEED_OK(segment_write(w, &e), &e);
        segment_state(w, &state);
        ends[i] = state.file_bytes;
    }
    NEED_OK(segment_seal(w, &e), &e);
    bytes = read_one(dir, SEGMENT_EXT, &a);
    CHECK_INT(bytes.n, ends[7]);
    rng_seed(&rng, 3);
    for (int i = 0; i < 500; i++) {
        size_t cut = rng_below(&rng, bytes.n);
        uint32_t whole = 0;
        uint64_t dropped;

        while (whole < ARRAY_LEN(ends) && ends[whole] <= cut)
            whole++;
        CHECK_INT(count_records(str_take(bytes, cut), &b, &dropped), 10 * whole);
        arena_reset(&b);
    }
    for (int i = 0; i < 500; i++) { /* a flipped bit costs the blocks from there on */
        size_t at = rng_below(&rng, bytes.n);
        char *p = (char *)(uintptr_t)bytes.p;
        uint32_t whole = 0;
        uint64_t dropped;

        while (whole < ARRAY_LEN(ends) && ends[whole] <= at)
            whole++;
        p[at] ^= 0x10;
        CHECK_INT(count_records(bytes, &b, &dropped), 10 * (at < 48 ? 0 : whole));
        CHECK(dropped > 0);
        p[at] ^= 0x10;
        arena_reset(&b);
    }
    sample_dir_done(dir);
}

static void recovery_cuts_and_seals(void)
{
    const struct record_schema *s = sample_floats("segment", "1", 8, NULL);
    AUTO(record_ring_freep) struct record_ring *r = NULL;
    AUTO(arena_done) struct arena a;
    struct segment_writer *w = NULL;
    uint64_t lost = 0, dropped;
    uint32_t files = 0;
    char dir[64];
    char *path;
    int fd = -1;
    str *names;
    size_t n;
    struct err e;

    arena_init(&a, 0);
    sample_dir(dir);
    NEED_OK(record_ring_new(RING, &r, &e), &e);
    NEED_OK(segment_writer_new(dir, S("g1"), &w, &e), &e);
    put_records(w, r, s, 0, 20);
    NEED_OK(segment_write(w, &e), &e);
    NEED_OK(segment_sync(w, &e), &e);
    path = path_join(&a, dir, segment_writer_file(w));
    segment_writer_free(w); /* as if the process had died … */
    NEED_OK(file_open(path, FILE_APPEND, &fd, &e), &e);
    NEED_OK(file_write_all(fd, "torn block", 10, &e), &e); /* … in the middle of a write */
    file_close(fd);
    NEED_OK(file_replace(path_join(&a, dir, "00000000000000000001-000000-g1.open"), S("WEIR"), &e),
            &e);
    NEED_OK(segment_recover(dir, NULL, &files, &lost, &e), &e);
    CHECK_INT(files, 2);
    CHECK_INT(lost, 14);
    NEED_OK(file_list(dir, &a, &names, &n, &e), &e);
    CHECK_INT(n, 1);
    CHECK_INT(count_records(read_one(dir, SEGMENT_EXT, &a), &a, &dropped), 20);
    CHECK_INT(dropped, 0);
    sample_dir_done(dir);
}

/* Each write and sync fails in turn, whole or torn: what was synced before is there afterwards. */
static void faults_lose_only_what_is_counted(void)
{
    const struct record_schema *s = sample_floats("segment", "1", 30, NULL);
    AUTO(record_ring_freep) struct record_ring *r = NULL;

    struct err e;

    NEED_OK(record_ring_new(RING, &r, &e), &e);
    for (int k = 0; k < 16; k++) {
        enum file_op op = k % 2 ? FILE_OP_SYNC : FILE_OP_WRITE;
        AUTO(segment_writer_freep) struct segment_writer *w = NULL;
        AUTO(arena_done) struct arena a;
        struct segment_state state;
        uint32_t files, found = 0;
        uint64_t lost;
        char dir[64];
        str *names;
        size_t n;

        arena_init(&a, 0);
        sample_dir(dir);
        NEED_OK(segment_writer_new(dir, S("g1"), &w, &e), &e);
        file_test_fault(op, k / 2, k % 4 < 2 ? FILE_FAULT_ERRNO : FILE_FAULT_TEAR, ENOSPC, false);
        for (uint32_t i = 0; i < 6; i++) {
            int rc;

            put_records(w, r, s, 100 * i, 100);
            rc = segment_write(w, &e);
            if (!rc)
                rc = segment_sync(w, &e);
            CHECK(rc == 0 || rc == CODE_RESOURCE_EXHAUSTED || rc == CODE_UNAVAILABLE ||
                  rc == CODE_INTERNAL);
        }
        file_test_fault(FILE_OP_ANY, -1, FILE_FAULT_ERRNO, 0, false);
        CHECK_OK(segment_seal(w, &e), &e);
        segment_state(w, &state);
        CHECK_OK(segment_recover(dir, NULL, &files, &lost, &e), &e);
        CHECK_INT(lost, 0); /* the writer cleaned up behind itself */
        NEED_OK(file_list(dir, &a, &names, &n, &e), &e);
        for (size_t i = 0; i < n; i++) {
            const struct record_schema *rs;
            const struct record_head *h;
            struct segment_reader reader;
            str bytes;

            NEED_OK(file_read_all(path_join(&a, dir, names[i].p), SEGMENT_FILE_MAX, &a, &bytes, &e),
                    &e);
            NEED_OK(segment_reader_init(&reader, bytes, &a, &e), &e);
            while (segment_next(&reader, &h, &rs))
                found++;
            CHECK_INT(reader.dropped_bytes, 0);
        }
        CHECK_INT(found, state.synced_records);
        CHECK(found == 500 || found == 600);
        sample_dir_done(dir);
    }
}

RUN_TESTS(T(what_was_written_reads_back), T(a_torn_tail_ends_the_reading),
          T(recovery_cuts_and_seals), T(faults_lose_only_what_is_counted))
