/* SPDX-License-Identifier: Apache-2.0 */
/* The meta store on SQLite: statements, transactions, locks, upgrades, and every fault of the disk.
 */
#include "store/meta/meta.h"

#include "base/files.h"
#include "base/time.h"
#include "check.h"

#include "../fault/power.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64];

static void fresh_dir(void)
{
    static unsigned count;
    char command[128];

    /* Syncs cost nothing in shared memory, and what is tested is that they are asked for. */
    snprintf(dir, sizeof(dir), "%s/weir-meta-%d-%u", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm",
             (int)getpid(), count++);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
}

static void drop_dir(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
}

static int64_t count_of(struct meta *m, const char *sql)
{
    struct err e;
    int64_t n = -1;

    CHECK_OK(meta_first_int(m, sql, M_NO_ARGS, 0, &n, &e), &e);
    return n;
}

static int put(struct meta *m, str key, int64_t value, struct err *e)
{
    return meta_exec(m, "INSERT INTO kv (scope, name, value, updated_ns) VALUES ('t', ?, ?, 0)",
                     M_ARGS(M_STR(key), M_INT(value)), e);
}

static void test_values(void)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_closep) struct meta *m = NULL;
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct err e;

    fresh_dir();
    NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
    NEED_OK(meta_open(store, &m, &e), &e);
    NEED_OK(
        meta_exec(m, "CREATE TABLE v (i INTEGER, r REAL, t TEXT, b BLOB, n TEXT)", M_NO_ARGS, &e),
        &e);
    NEED_OK(meta_exec(m, "INSERT INTO v (i, r, t, b, n) VALUES (?, ?, ?, ?, ?)",
                      M_ARGS(M_INT(INT64_MIN), M_REAL(0.1), M_STR(S("a\0'b")), M_BLOB(S("\0\xff")),
                             M_NULL),
                      &e),
            &e);
    CHECK_INT(meta_changes(m), 1);
    NEED_OK(meta_first(m, "SELECT i, r, t, b, n FROM v", M_NO_ARGS, &rows, &e), &e);
    NEED(rows);
    CHECK(meta_int(rows, 0) == INT64_MIN);
    CHECK(meta_real(rows, 1) == 0.1);
    CHECK_STR(meta_str(rows, 2), S("a\0'b"));
    CHECK_STR(meta_blob(rows, 3), S("\0\xff"));
    CHECK(meta_is_null(rows, 4) && !meta_is_null(rows, 3));
    CHECK_STR(meta_str(rows, 4), S(""));
    meta_rows_close(TAKE(rows));
    NEED_OK(meta_first(m, "SELECT i FROM v WHERE i = ?", M_ARGS(M_INT(1)), &rows, &e), &e);
    CHECK(!rows);
    drop_dir();
}

/* More distinct statements than are kept, and the same statement twice at a time. */
static void test_statement_cache(void)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_closep) struct meta *m = NULL;
    struct meta_rows *open[200];
    char sql[64];
    struct err e;
    int rc;

    fresh_dir();
    NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
    NEED_OK(meta_open(store, &m, &e), &e);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 200; i++) {
            snprintf(sql, sizeof(sql), "SELECT %d UNION SELECT 1000", round == 2 ? 7 : i);
            NEED_OK(meta_query(m, sql, M_NO_ARGS, &open[i], &e), &e);
            CHECK(meta_next(open[i], &rc, &e));
            if (round == 0)
                meta_rows_close(open[i]);
        }
        for (int i = 0; i < 200 && round > 0; i++) {
            CHECK_INT(meta_int(open[i], 0), round == 2 ? 7 : i);
            CHECK(meta_next(open[i], &rc, &e));
            CHECK_INT(meta_int(open[i], 0), 1000);
            CHECK(!meta_next(open[i], &rc, &e) && rc == 0);
            meta_rows_close(open[i]);
        }
    }
    drop_dir();
}

static void test_transactions(void)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_closep) struct meta *m = NULL;
    struct err e;

    fresh_dir();
    NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
    NEED_OK(meta_open(store, &m, &e), &e);
    { /* dropped */
        AUTO(meta_tx_done) struct meta_tx tx = {0};

        NEED_OK(meta_begin(m, &tx, &e), &e);
        NEED_OK(put(m, S("a"), 1, &e), &e);
    }
    CHECK_INT(count_of(m, "SELECT COUNT(*) FROM kv"), 0);
    { /* nested */
        AUTO(meta_tx_done) struct meta_tx outer = {0};
        AUTO(meta_tx_done) struct meta_tx inner = {0};

        NEED_OK(meta_begin(m, &outer, &e), &e);
        NEED_OK(meta_begin(m, &inner, &e), &e);
        NEED_OK(put(m, S("b"), 1, &e), &e);
        NEED_OK(meta_commit(&inner, &e), &e);
        CHECK(meta_in_tx(m));
        NEED_OK(meta_commit(&outer, &e), &e);
        CHECK(!meta_in_tx(m));
    }
    CHECK_INT(count_of(m, "SELECT COUNT(*) FROM kv"), 1);
    { /* an inner roll-back dooms the outer one */
        AUTO(meta_tx_done) struct meta_tx outer = {0};
        struct meta_tx inner = {0};

        NEED_OK(meta_begin(m, &outer, &e), &e);
        NEED_OK(meta_begin(m, &inner, &e), &e);
        NEED_OK(put(m, S("c"), 1, &e), &e);
        meta_tx_done(&inner);
        CHECK_FAILS(meta_commit(&outer, &e), FAILED_PRECONDITION, &e, "rolled back");
    }
    { /* so does a failed statement, as it would in PostgreSQL */
        AUTO(meta_tx_done) struct meta_tx tx = {0};

        NEED_OK(meta_begin(m, &tx, &e), &e);
        NEED_OK(put(m, S("d"), 1, &e), &e);
        CHECK_FAILS(put(m, S("b"), 2, &e), ALREADY_EXISTS, &e, "kv");
        CHECK_FAILS(meta_commit(&tx, &e), FAILED_PRECONDITION, &e, "UNIQUE");
    }
    CHECK_INT(count_of(m, "SELECT COUNT(*) FROM kv"), 1);
    drop_dir();
}

static void test_errors(void)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_store_closep) struct meta_store *reader_store = NULL;
    AUTO(meta_closep) struct meta *m = NULL;
    AUTO(meta_closep) struct meta *reader = NULL;
    struct meta_rows *rows = NULL;
    struct err e;

    fresh_dir();
    NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
    NEED_OK(meta_open(store, &m, &e), &e);
    CHECK_FAILS(meta_query(m, "SELECT nothing FROM nowhere", M_NO_ARGS, &rows, &e), INTERNAL, &e,
                "nowhere");
    CHECK_FAILS(meta_exec(m, "INSERT INTO kv (scope, name) VALUES ('a', 'b')", M_NO_ARGS, &e),
                INVALID_ARGUMENT, &e, "NOT NULL");
    CHECK_FAILS(meta_exec(m,
                          "INSERT INTO aliases (model, alias, version, updated_ns)"
                          " VALUES ('m', 'champion', 1, 0)",
                          M_NO_ARGS, &e),
                FAILED_PRECONDITION, &e, "FOREIGN KEY");
    NEED_OK(meta_store_open(dir, &(struct meta_options){.read_only = true}, &reader_store, &e), &e);
    NEED_OK(meta_open(reader_store, &reader, &e), &e);
    CHECK_FAILS(put(reader, S("k"), 1, &e), PERMISSION_DENIED, &e, "readonly");
    CHECK(meta_store_is_exclusive(store) && !meta_store_is_exclusive(reader_store));
    drop_dir();
}

static void test_second_writer_is_refused(void)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    char pid[32];
    struct err e;
    int status;
    pid_t child;

    fresh_dir();
    NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    child = fork();
    if (child == 0) {
        struct meta_store *other;

        CHECK_FAILS(meta_store_open(dir, NULL, &other, &e), UNAVAILABLE, &e, pid);
        _exit(check_failures ? 1 : 0);
    }
    NEED(waitpid(child, &status, 0) == child);
    CHECK_INT(status, 0);
    drop_dir();
}

static void test_busy_writer(void)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_closep) struct meta *one = NULL;
    AUTO(meta_closep) struct meta *two = NULL;
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct meta_tx other = {0};
    struct err e;

    fresh_dir();
    NEED_OK(meta_store_open(dir, &(struct meta_options){.busy_ms = 20}, &store, &e), &e);
    NEED_OK(meta_open(store, &one, &e), &e);
    NEED_OK(meta_open(store, &two, &e), &e);
    NEED_OK(meta_begin(one, &tx, &e), &e);
    NEED_OK(put(one, S("k"), 1, &e), &e);
    CHECK_FAILS(meta_begin(two, &other, &e), UNAVAILABLE, &e, "locked");
    CHECK_INT(count_of(two, "SELECT COUNT(*) FROM kv"), 0); /* readers never wait */
    NEED_OK(meta_commit(&tx, &e), &e);
    CHECK_INT(count_of(two, "SELECT COUNT(*) FROM kv"), 1);
    drop_dir();
}

static int woken[META_TOPIC_COUNT];
static void on_commit(void *arg, enum meta_topic topic)
{
    CHECK(arg == woken);
    woken[topic]++;
}

static void test_watchers(void)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_closep) struct meta *m = NULL;
    struct meta_tx tx = {0};
    struct err e;

    fresh_dir();
    NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
    NEED_OK(meta_open(store, &m, &e), &e);
    NEED_OK(meta_watch(store, META_TOPIC_JOURNAL, on_commit, woken, &e), &e);
    NEED_OK(meta_begin(m, &tx, &e), &e);
    meta_touch(m, META_TOPIC_JOURNAL);
    meta_touch(m, META_TOPIC_FLOW);
    meta_tx_done(&tx);
    CHECK_INT(woken[META_TOPIC_JOURNAL], 0);
    NEED_OK(meta_begin(m, &tx, &e), &e);
    meta_touch(m, META_TOPIC_JOURNAL);
    meta_touch(m, META_TOPIC_JOURNAL);
    CHECK_INT(woken[META_TOPIC_JOURNAL], 0);
    NEED_OK(meta_commit(&tx, &e), &e);
    CHECK_INT(woken[META_TOPIC_JOURNAL], 1);
    CHECK_INT(woken[META_TOPIC_FLOW], 0);
    meta_unwatch(store, on_commit, woken);
    meta_touch(m, META_TOPIC_JOURNAL);
    CHECK_INT(woken[META_TOPIC_JOURNAL], 1);
    drop_dir();
}

static void test_kv(void)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_closep) struct meta *m = NULL;
    AUTO(arena_done) struct arena a = {0};
    struct json *value, *got;
    struct err e;

    fresh_dir();
    NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
    NEED_OK(meta_open(store, &m, &e), &e);
    NEED_OK(meta_kv_get(m, S("plan"), S("current"), &a, &got, &e), &e);
    CHECK(!got);
    value = json_new_object(&a);
    json_set_str(&a, value, S("hash"), S("1f3c"));
    NEED_OK(meta_kv_put(m, S("plan"), S("current"), value, &e), &e);
    json_set_int(&a, value, S("n"), 2);
    NEED_OK(meta_kv_put(m, S("plan"), S("current"), value, &e), &e);
    NEED_OK(meta_kv_get(m, S("plan"), S("current"), &a, &got, &e), &e);
    CHECK(json_equal(got, value));
    NEED_OK(meta_kv_delete(m, S("plan"), S("current"), &e), &e);
    NEED_OK(meta_kv_get(m, S("plan"), S("current"), &a, &got, &e), &e);
    CHECK(!got);
    drop_dir();
}

/* Rows that exist once step i is applied: an upgrade must keep them. */
static const char *const fixtures[] = {
    [1] = "INSERT INTO journal (seq, id, at_ns, type, subject, actor, reason, correlation, data,"
          " nodes, root) VALUES (1, 'i', 5, 'plan.live', 's', 'a', 'r', 'c', '{}', 'n', 'r')",
    [2] = "INSERT INTO wf (id, type, state, step, seq, input, result, error_code, error, owner,"
          " fence, due_ns, wait_event, attempts, crashes, paused, cancel, cancel_reason,"
          " correlation, step_started_ns, created_ns, updated_ns) VALUES ('f', 't', 'sleeping',"
          " 's', 3, '{}', '', 0, '', '', 1, 9, '', 0, 0, 0, 0, '', 'c', 0, 1, 1)",
    [3] = "INSERT INTO models (name, meta, created_ns, updated_ns) VALUES ('m', '{}', 1, 1)",
    [4] = "INSERT INTO kv (scope, name, value, updated_ns) VALUES ('s', 'n', '1', 1)",
};
static const char *const fixture_counts[] = {
    [1] = "SELECT COUNT(*) FROM journal WHERE seq = 1 AND type = 'plan.live' AND at_ns = 5",
    [2] = "SELECT COUNT(*) FROM wf WHERE id = 'f' AND due_ns = 9 AND ended_ns IS NULL",
    [3] = "SELECT COUNT(*) FROM models WHERE name = 'm'",
    [4] = "SELECT COUNT(*) FROM kv WHERE value = '1'",
};

static void test_upgrade_from_every_schema(void)
{
    struct err e;

    /* A new migration that makes a table adds its rows above, if only to say "none". */
    for (uint32_t from = 1; from <= meta_schema_newest(); from++) {
        struct meta_options old = {.schema_max = from};
        AUTO(meta_store_closep) struct meta_store *store = NULL;
        AUTO(meta_closep) struct meta *m = NULL;
        uint32_t have = 0;

        fresh_dir();
        NEED_OK(meta_store_open(dir, &old, &store, &e), &e);
        NEED_OK(meta_open(store, &m, &e), &e);
        NEED_OK(meta_schema(m, &have, &e), &e);
        CHECK_INT(have, from);
        for (uint32_t i = 1; i <= MIN(from, (uint32_t)ARRAY_LEN(fixtures) - 1); i++)
            NEED_OK(meta_exec(m, fixtures[i], M_NO_ARGS, &e), &e);
        meta_close(TAKE(m));
        meta_store_close(TAKE(store));

        NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
        NEED_OK(meta_open(store, &m, &e), &e);
        NEED_OK(meta_schema(m, &have, &e), &e);
        CHECK_INT(have, meta_schema_newest());
        for (uint32_t i = 1; i <= MIN(from, (uint32_t)ARRAY_LEN(fixtures) - 1); i++)
            CHECK_INT(count_of(m, fixture_counts[i]), 1);
        drop_dir();
    }
}

static void test_foreign_schema_is_refused(void)
{
    struct err e;
    struct meta_store *never;

    fresh_dir();
    {
        AUTO(meta_store_closep) struct meta_store *store = NULL;
        AUTO(meta_closep) struct meta *m = NULL;

        NEED_OK(meta_store_open(dir, &(struct meta_options){.schema_max = 1}, &store, &e), &e);
        CHECK_FAILS(meta_store_open(dir, &(struct meta_options){.read_only = true}, &never, &e),
                    FAILED_PRECONDITION, &e, "schema 1");
        NEED_OK(meta_open(store, &m, &e), &e);
        NEED_OK(meta_exec(m, "UPDATE schema_migrations SET hash = 'x'", M_NO_ARGS, &e), &e);
    }
    CHECK_FAILS(meta_store_open(dir, NULL, &never, &e), FAILED_PRECONDITION, &e, "another build");
    drop_dir();
    {
        AUTO(meta_store_closep) struct meta_store *store = NULL;
        AUTO(meta_closep) struct meta *m = NULL;

        NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
        NEED_OK(meta_open(store, &m, &e), &e);
        NEED_OK(meta_exec(m, "INSERT INTO schema_migrations VALUES (99, 'later', 'h', 0)",
                          M_NO_ARGS, &e),
                &e);
    }
    CHECK_FAILS(meta_store_open(dir, NULL, &never, &e), FAILED_PRECONDITION, &e, "schema 99");
    drop_dir();
}

static void test_damaged_file(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct meta_store *never;
    struct err e;

    fresh_dir();
    NEED_OK(file_make_dirs(dir, &e), &e);
    NEED_OK(file_replace(path_join(&a, dir, "meta.db"), S("this is not a database, is it, no"), &e),
            &e);
    CHECK_FAILS(meta_store_open(dir, NULL, &never, &e), DATA_LOSS, &e, "meta.db");
    drop_dir();
}

/* ----- Faults: two counters move together, one unit per transaction ----- */

static int transfer(struct meta *m, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    TRY(meta_begin(m, &tx, e));
    TRY(meta_exec(m, "UPDATE kv SET value = value - 1 WHERE name = 'left'", M_NO_ARGS, e));
    TRY(meta_exec(m, "UPDATE kv SET value = value + 1 WHERE name = 'right'", M_NO_ARGS, e));
    return meta_commit(&tx, e);
}

static int open_bank(struct meta_store **ret_store, struct meta **ret_m, struct err *e)
{
    TRY(meta_store_open(dir, NULL, ret_store, e));
    TRY(meta_open(*ret_store, ret_m, e));
    return meta_exec(*ret_m,
                     "INSERT INTO kv (scope, name, value, updated_ns)"
                     " VALUES ('', 'left', 1000, 0), ('', 'right', 0, 0) ON CONFLICT DO NOTHING",
                     M_NO_ARGS, e);
}

static void check_bank(struct meta *m, int64_t right_min, int64_t right_max)
{
    int64_t right = count_of(m, "SELECT value + 0 FROM kv WHERE name = 'right'");

    CHECK_INT(count_of(m, "SELECT SUM(value + 0) FROM kv"), 1000);
    CHECK(right >= right_min && right <= right_max);
}

/* Each call of each kind fails once, from the opening of the file to its close: the call in hand
 * reports it, nothing committed is lost, nothing refused is there, and a new process goes on. */
static void fault_loop(enum file_op op, enum file_fault fault, int errno_value)
{
    bool met = true;

    for (int64_t k = 0; met; k++) {
        struct meta_store *store = NULL;
        struct meta *m = NULL;
        int64_t committed = 0;
        struct err e;
        int rc;

        fresh_dir();
        file_test_fault(op, k, fault, errno_value, false);
        rc = open_bank(&store, &m, &e);
        for (int i = 0; i < 4 && !rc; i++) {
            rc = transfer(m, &e);
            committed += !rc;
        }
        met = rc != 0;
        file_test_fault(op, -1, fault, 0, false);
        if (rc) {
            CHECK(rc == (errno_value == ENOSPC ? (int)CODE_RESOURCE_EXHAUSTED
                                               : (int)CODE_DATA_LOSS) ||
                  rc == CODE_UNAVAILABLE);
        }
        if (rc && m) { /* the same connection works once the disk does */
            CHECK_OK(meta_exec(m,
                               "INSERT INTO kv (scope, name, value, updated_ns) VALUES"
                               " ('', 'left', 1000, 0), ('', 'right', 0, 0) ON CONFLICT DO NOTHING",
                               M_NO_ARGS, &e),
                     &e);
            CHECK_OK(transfer(m, &e), &e);
            committed++;
        }
        meta_close(TAKE(m));
        meta_store_close(TAKE(store));
        NEED_OK(open_bank(&store, &m, &e), &e);
        check_bank(m, committed, committed);
        meta_close(m);
        meta_store_close(store);
        drop_dir();
        NEED(k < 1000 && check_failures == 0);
    }
}

static void test_write_faults(void)
{
    fault_loop(FILE_OP_WRITE, FILE_FAULT_ERRNO, EIO);
    fault_loop(FILE_OP_WRITE, FILE_FAULT_TEAR, EIO);
    fault_loop(FILE_OP_WRITE, FILE_FAULT_ERRNO, ENOSPC);
}

static void test_sync_faults(void)
{
    fault_loop(FILE_OP_SYNC, FILE_FAULT_ERRNO, EIO);
}

/* The process dies at the k-th write or sync, a write being torn; or (FILE_OP_ANY) the power goes
 * at the k-th sync, or at the end. What it had reported through the pipe as committed is there; at
 * most the transfer in hand is there besides. */
static void kill_loop(enum file_op op, uint64_t seed)
{
    bool died = true;

    for (int64_t k = 0; died; k++) {
        struct meta_store *store = NULL;
        struct meta *m = NULL;
        int pipes[2], status;
        int64_t reported = 0;
        struct err e;
        pid_t child;
        char c;

        fresh_dir();
        NEED(pipe(pipes) == 0);
        child = fork();
        if (child == 0) {
            if (op == FILE_OP_ANY)
                power_lost_at_sync(k, seed);
            else
                file_test_fault(op, k, FILE_FAULT_KILL, 0, false);
            if (open_bank(&store, &m, &e))
                _exit(1);
            for (int i = 0; i < 4; i++)
                if (transfer(m, &e) || write(pipes[1], "x", 1) != 1)
                    _exit(1);
            if (op == FILE_OP_ANY)
                power_lost_now();
            _exit(0);
        }
        close(pipes[1]);
        while (read(pipes[0], &c, 1) == 1)
            reported++;
        close(pipes[0]);
        NEED(waitpid(child, &status, 0) == child);
        died = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        CHECK(died || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
        died &= reported < 4;
        NEED_OK(open_bank(&store, &m, &e), &e);
        check_bank(m, reported, reported + (died ? 1 : 0));
        meta_close(m);
        meta_store_close(store);
        drop_dir();
        NEED(k < 1000 && check_failures == 0);
    }
}

static void test_kill_at_every_write_and_sync(void)
{
    kill_loop(FILE_OP_WRITE, 0);
    kill_loop(FILE_OP_SYNC, 0);
}

static void test_power_loss_at_every_sync(void)
{
    for (uint64_t seed = 1; seed <= 10; seed++)
        kill_loop(FILE_OP_ANY, seed);
}

RUN_TESTS(T(test_values), T(test_statement_cache), T(test_transactions), T(test_errors),
          T(test_second_writer_is_refused), T(test_busy_writer), T(test_watchers), T(test_kv),
          T(test_upgrade_from_every_schema), T(test_foreign_schema_is_refused),
          T(test_damaged_file), T(test_write_faults), T(test_sync_faults),
          T(test_kill_at_every_write_and_sync), T(test_power_loss_at_every_sync))
