/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evidence of monitors across the death of control. Control dies between any two digests; what a
 * gateway still holds is given again, as server/ does it. The measure is a twin that never died.
 */
#include "base/files.h"
#include "watch/world.h"

#include <errno.h>

/* --- A control that dies, and a gateway that keeps -------------------------------------------- */

static struct digest_clock seen;   /* what control has seen, in memory */
static struct digest_clock stored; /* the same, as of the last save */
static uint64_t run_id, sequence;
static struct buf held[256]; /* digests that are not written down */
static uint64_t held_from, held_to;
static const char *monitor_text = "{" MONITOR "}";

static void live(void)
{
    CHECK_OK(watch_new(blobs, &w, &e), &e);
    watch_keep(w, &seen);
    configure(monitor_text);
    CHECK_OK(watch_restore(w, m, &e), &e);
}

static void start(void)
{
    begin();
    watch_free(TAKE(w));
    memset(&seen, 0, sizeof(seen));
    memset(&stored, 0, sizeof(stored));
    run_id = 42;
    sequence = held_from = held_to = 0;
    live();
}

static void forget_held(void)
{
    while (held_from < held_to)
        buf_done(&held[held_from++ % ARRAY_LEN(held)]);
}

static void stop(void)
{
    forget_held();
    end();
}

static int save(void)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    TRY(meta_begin(m, &tx, &e));
    TRY(watch_save(w, m, &e));
    TRY(meta_commit(&tx, &e));
    watch_saved(w);
    stored = seen;
    forget_held();
    return 0;
}

static void give(str bytes)
{
    AUTO(arena_done) struct arena a = {0};
    struct digest d;

    if (!CHECK_OK(digest_decode(bytes, &a, &d, &e), &e) || !digest_clock_is_new(&seen, &d))
        return;
    digest_clock_note(&seen, &d);
    CHECK_OK(watch_digest(w, m, &d, time_wall_ns(), &e), &e);
}

static void send_traffic(struct traffic t)
{
    AUTO(arena_done) struct arena a = {0};
    struct buf *bytes = &held[held_to++ % ARRAY_LEN(held)];
    struct digest d;

    NEED(held_to - held_from <= ARRAY_LEN(held));
    time_test_advance(STEP_NS);
    digest_init(&d, &a);
    d.run = run_id;
    d.sequence = sequence++;
    d.to_wall_ns = time_wall_ns();
    d.from_wall_ns = d.to_wall_ns - STEP_NS;
    CHECK_OK(digest_add_series(&d, series(&a, &t), &e), &e);
    buf_init(bytes, DIGEST_BYTES_MAX);
    digest_encode(&d, bytes);
    give(buf_str(bytes));
}

/* As under kill -9. lossy: the gateway went too, and with it what it held. */
static void die(bool lossy)
{
    watch_free(TAKE(w));
    seen = stored;
    live();
    if (lossy) {
        forget_held();
        run_id++;
        sequence = 0;
    }
    for (uint64_t i = held_from; i < held_to; i++)
        give(buf_str(&held[i % ARRAY_LEN(held)]));
}

/* --- What is the same ------------------------------------------------------------------------- */

#define ANY_TWIN_MAX ((size_t)1 << 20)

/* What was gathered, to the bit. Windows and rates are cut by the time of arrival, and what comes
 * again comes later: they may differ. */
static void portrait(struct buf *out)
{
    const struct monitor *mo = watch_first(w);
    const int64_t labels[] = {mo->labels_n, mo->label_errors, mo->recent_labels, mo->recent_errors};

    NEED(mo && !mo->next);
    buf_printf(out, "%d %d %llu %llu", (int)mo->state, mo->story.columns,
               (unsigned long long)mo->rows, (unsigned long long)mo->detect.rows);
    buf_add(out, labels, sizeof(labels));
    buf_add(out, mo->detect.detectors, COLUMNS * sizeof(*mo->detect.detectors));
    buf_add(out, mo->labels.m, sizeof(mo->labels.m));
    buf_add(out, mo->labels.since, sizeof(mo->labels.since));
    buf_add(out, mo->block_rows, sizeof(mo->block_rows));
    for (int i = 0; i < COLUMNS; i++)
        buf_add(out, mo->columns[i].blocks, sizeof(mo->columns[i].blocks));
}

static void story(struct rng *fate, double saves, double deaths, struct buf *ret_portrait)
{
    struct traffic t = CLEAN;

    t.error_rate = 0.05;
    for (int i = 0; i < 260; i++) {
        t.column = i >= 60 && i < 130 ? 1 : -1;
        t.shift = 0.5;
        t.error_rate = i >= 100 && i < 130 ? 0.2 : 0.05;
        send_traffic(t);
        if (rng_uniform(fate) < saves)
            CHECK_OK(save(), &e);
        if (rng_uniform(fate) < deaths)
            die(false);
        if (i == 129) /* when the drift is cleared, and evidence begins anew, windows decide */
            portrait(ret_portrait);
    }
}

/* Nothing is lost and nothing counts twice: evidence is bit by bit that of a control that never
 * died, and the journal says as much. */
static void test_death_changes_nothing(void)
{
    AUTO(buf_done) struct buf twin, bytes;
    int detected, cleared;
    struct rng fate;

    buf_init(&twin, ANY_TWIN_MAX);
    buf_init(&bytes, ANY_TWIN_MAX);
    rng_seed(&fate, 1);
    start();
    story(&fate, 1, 0, &twin);
    detected = facts("drift.detected"), cleared = facts("drift.cleared");
    CHECK_INT(detected, 1);
    CHECK_INT(cleared, 1);
    stop();
    for (uint64_t seed = 2; seed < 7; seed++) {
        buf_clear(&bytes);
        rng_seed(&fate, seed);
        start();
        story(&fate, 0.15, 0.3, &bytes);
        CHECK(str_eq(buf_str(&twin), buf_str(&bytes)));
        CHECK_INT(facts("drift.detected"), detected);
        CHECK(facts("drift.escalated") >= 1);
        CHECK_INT(facts("drift.cleared"), cleared);
        CHECK_INT(watch_first(w)->rows, 260 * ROWS);
        stop();
    }
}

/* What the journal knows the row knows, even when no save came between. */
static void test_facts_and_rows_are_one(void)
{
    struct traffic moved = CLEAN;

    start();
    for (int i = 0; i < 20; i++)
        send_traffic(CLEAN);
    CHECK_OK(save(), &e);
    moved.column = 1, moved.shift = 0.8;
    for (int i = 0; i < 8 && !facts("drift.detected"); i++)
        send_traffic(moved);
    CHECK_INT(facts("drift.detected"), 1);
    die(true); /* nobody will say again what led to it */
    CHECK(watch_first(w) && watch_first(w)->state == MONITOR_DRIFTING);
    for (int i = 0; i < 8; i++)
        send_traffic(moved);
    CHECK_INT(facts("drift.detected"), 1);
    for (int i = 0; i < 120 && !facts("drift.cleared"); i++)
        send_traffic(CLEAN);
    CHECK_INT(facts("drift.cleared"), 1);
    die(true);
    for (int i = 0; i < 80; i++)
        send_traffic(CLEAN);
    CHECK_INT(facts("drift.cleared"), 1);
    CHECK_INT(facts("drift.detected"), 1);
    stop();
}

/* Half of the evidence before, half after: found as soon as without the death. */
static void test_delay_is_not_begun_anew(void)
{
    struct traffic moved = CLEAN;
    int whole, parts;

    moved.column = 2, moved.shift = 0.12;
    moved.rows = 50;
    start();
    for (whole = 0; whole < 2000 && !facts("drift.detected"); whole++) {
        send_traffic(moved);
        CHECK_OK(save(), &e);
    }
    CHECK(whole > 20 && whole < 2000);
    stop();
    start();
    for (parts = 0; parts < 2000 && !facts("drift.detected"); parts++) {
        send_traffic(moved);
        if (parts % 7 == 3)
            CHECK_OK(save(), &e);
        if (parts % 5 == 4)
            die(false);
    }
    CHECK_INT(parts, whole);
    stop();
}

/* Rows between alarms under no change, over `alarms` of them, dying all the while. */
static double mean_run(bool lossy, int alarms, uint64_t rows_max)
{
    struct rng fate;
    uint64_t rows = 0;
    int told = 0;
    struct traffic t = CLEAN;

    rng_seed(&fate, 99);
    t.rows = 25;
    monitor_text = "{\"endpoint\":\"pay\",\"false_alarms\":{\"rows\":400}}";
    start();
    while (told < alarms && rows < rows_max) {
        send_traffic(t);
        rows += t.rows;
        if (facts("drift.detected") > told) { /* from the beginning */
            told++;
            CHECK_OK(kept_drop(m, S("monitor"), S("pay@1"), &e), &e);
            forget_held();
            die(false);
        }
        if (rng_uniform(&fate) < 0.2)
            CHECK_OK(save(), &e);
        if (rng_uniform(&fate) < 0.1)
            die(lossy);
    }
    stop();
    monitor_text = "{" MONITOR "}";
    return (double)rows / MAX(told, 1);
}

/* 400 rows for all is 400 / 0.75 for the columns, which alone have evidence here. */
static void test_false_alarms_stay_rare(void)
{
    CHECK(mean_run(false, 40, 150000) >= 400 / 0.75);
    CHECK(mean_run(true, 40, 150000) >= 400 / 0.75);
}

static void begun_anew(uint64_t rows_before)
{
    die(true);
    CHECK(!watch_first(w) || watch_first(w)->rows == 0);
    send_traffic(CLEAN);
    CHECK(watch_first(w)->rows == ROWS && rows_before > ROWS);
}

static void test_rows_that_do_not_fit(void)
{
    AUTO(arena_done) struct arena a = {0};
    char meta[128];
    str bytes;

    start();
    for (int i = 0; i < 10; i++)
        send_traffic(CLEAN);
    CHECK_OK(save(), &e);
    monitor_text = "{" MONITOR ",\"sustained\":2}"; /* applied while control was away */
    begun_anew(10 * ROWS);
    CHECK_OK(save(), &e);
    send_traffic(CLEAN);
    CHECK_OK(save(), &e);
    snprintf(meta, sizeof(meta), "{\"profile\":\"%s\",\"x\":1}", profile_hash);
    CHECK_OK(meta_exec(m, "UPDATE model_versions SET meta = ? WHERE version = 1",
                       M_ARGS(M_STR(str_of(meta))), &e),
             &e);
    die(true);
    CHECK(watch_first(w) && watch_first(w)->rows == 2 * ROWS); /* the same profile */
    CHECK_OK(kept_get(m, S("monitor"), S("pay@1"), &a, &bytes, &e), &e);
    ((char *)(uintptr_t)bytes.p)[bytes.n / 2] ^= 4;
    CHECK_OK(meta_exec(m, "UPDATE evidence SET body = ?", M_ARGS(M_BLOB(bytes)), &e), &e);
    begun_anew(2 * ROWS);
    monitor_text = "{" MONITOR "}";
    stop();
}

/* The monitor of a drift is changed while control is away: the drift ends in the journal, once. */
static void test_a_drift_whose_monitor_went(void)
{
    struct traffic moved = CLEAN;

    start();
    moved.column = 0, moved.shift = 1;
    for (int i = 0; i < 8; i++)
        send_traffic(i < 4 ? CLEAN : moved);
    CHECK_INT(facts("drift.detected"), 1);
    monitor_text = "{" MONITOR ",\"sustained\":7}";
    die(true);
    CHECK_INT(facts("drift.cleared"), 0);
    send_traffic(CLEAN);
    CHECK_INT(facts("drift.cleared"), 1);
    die(true);
    send_traffic(CLEAN);
    CHECK_OK(save(), &e);
    die(true);
    send_traffic(CLEAN);
    CHECK_INT(facts("drift.cleared"), 1);
    monitor_text = "{" MONITOR "}";
    stop();
}

/* Nothing of a save that fails is there; the next one that can be is whole. */
static void test_full_disk(void)
{
    start();
    for (int i = 0; i < 5; i++)
        send_traffic(CLEAN);
    CHECK_OK(save(), &e);
    for (int i = 0; i < 5; i++)
        send_traffic(CLEAN);
    for (int k = 0; k < 3; k++) {
        file_test_fault(FILE_OP_WRITE, k, k == 1 ? FILE_FAULT_TEAR : FILE_FAULT_ERRNO, ENOSPC,
                        true);
        CHECK(save() != 0);
        file_test_fault(FILE_OP_WRITE, -1, FILE_FAULT_ERRNO, 0, false);
    }
    die(false);
    CHECK_INT(watch_first(w)->rows, 10 * ROWS);
    send_traffic(CLEAN);
    CHECK_OK(save(), &e);
    die(true);
    CHECK_INT(watch_first(w)->rows, 11 * ROWS);
    stop();
}

RUN_TESTS(T(test_death_changes_nothing), T(test_facts_and_rows_are_one),
          T(test_delay_is_not_begun_anew), T(test_false_alarms_stay_rare),
          T(test_rows_that_do_not_fit), T(test_a_drift_whose_monitor_went), T(test_full_disk))
