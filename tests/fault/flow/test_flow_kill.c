/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real processes, killed for real. A child starts a thousand flows and runs them with four workers;
 * the parent ends it with SIGKILL at random instants and starts it again, until a child says that
 * all is done. Then nothing may be lost that was acknowledged, and no step's effect may have been
 * applied twice: rows count how often they were written, files are named by the idempotency key.
 *
 * And a worker that is stopped beyond its lease, while another process takes over, must be refused
 * when it wakes up.
 *
 * WEIR_SEED repeats the instants; WEIR_KILL_FLOWS makes it longer.
 */
#include "flow/flow.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"
#include "check.h"
#include "journal/journal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEPS 5

static char dir[64], effects_dir[80];
static int64_t flow_total = 1000;
static uint64_t seed = 1;

static void fresh_dir(const char *name)
{
    char command[128];
    struct err e;

    snprintf(dir, sizeof(dir), "/tmp/weir-%s-%d", name, (int)getpid());
    snprintf(effects_dir, sizeof(effects_dir), "%s/effects", dir);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
    CHECK_OK(file_make_dirs(effects_dir, &e), &e);
}

static void drop_dir(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
}

/* ----- The flows ----- */

static int write_file(struct flow_ctx *ctx, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    char *name = arena_dupz(&a, flow_key(ctx));

    *strchr(name, '/') = '_';
    return file_replace(path_join(&a, effects_dir, name), flow_key(ctx), e);
}

static int write_row(struct flow_ctx *ctx, struct err *e)
{
    struct meta *m;

    TRY(flow_tx(ctx, &m, e));
    return meta_exec(m,
                     "INSERT INTO kv (scope, name, value, updated_ns) VALUES ('effect', ?, 1, 0)"
                     " ON CONFLICT (scope, name) DO UPDATE SET value = value + 1",
                     M_ARGS(M_STR(flow_key(ctx))), e);
}

static int step_both(struct flow_ctx *ctx, struct err *e)
{
    TRY(write_file(ctx, e));
    return write_row(ctx, e);
}

static int step_nap(struct flow_ctx *ctx, struct err *e)
{
    TRY(step_both(ctx, e));
    return flow_sleep_until(ctx, time_wall_ns() + 5 * NS_PER_MS, NULL);
}

static int step_last(struct flow_ctx *ctx, struct err *e)
{
    struct meta *m;

    TRY(step_both(ctx, e));
    TRY(flow_tx(ctx, &m, e));
    return journal_append(m,
                          &(struct fact_new){.type = FACT_RETRAIN_FINISHED,
                                             .subject = flow_id(ctx),
                                             .correlation = flow_correlation(ctx)},
                          NULL, e);
}

static const struct flow_step steps[STEPS] = {
    {.name = "one", .fn = step_both},   {.name = "two", .fn = step_nap},
    {.name = "three", .fn = step_both}, {.name = "four", .fn = step_both},
    {.name = "five", .fn = step_last},
};
static const struct flow_type type = {.name = "killed", .steps = steps, .step_count = STEPS};

/* ----- The child ----- */

static int start_next(struct meta *m, int64_t *ret_n, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct flow_started started;
    char name[32];

    TRY(meta_begin(m, &tx, e));
    TRY(meta_first_int(m, "SELECT COUNT(*) FROM wf", M_NO_ARGS, 0, ret_n, e));
    snprintf(name, sizeof(name), "job-%lld", (long long)*ret_n);
    TRY(flow_start(m, &(struct flow_start){.type = "killed", .correlation = str_of(name)}, &started,
                   e));
    return meta_commit(&tx, e);
}

static int child_work(int ack_fd, struct err *e)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_closep) struct meta *m = NULL;
    AUTO(flow_runner_freep) struct flow_runner *runner = NULL;
    struct flow_reg reg = {&type, NULL};
    int64_t n = 0, open = 1;

    TRY(meta_store_open(dir, NULL, &store, e));
    TRY(meta_open(store, &m, e));
    TRY(flow_runner_new(store, &(struct flow_options){.regs = &reg, .reg_count = 1}, &runner, e));
    TRY(meta_first_int(m, "SELECT COUNT(*) FROM wf", M_NO_ARGS, 0, &n, e));
    while (n < flow_total) {
        TRY(start_next(m, &n, e));
        if (write(ack_fd, &n, sizeof(n)) != sizeof(n))
            return FAIL(e, UNAVAILABLE, "the parent is gone");
        n++;
    }
    while (open) {
        usleep(2000);
        TRY(meta_first_int(m, "SELECT COUNT(*) FROM wf WHERE ended_ns IS NULL", M_NO_ARGS, 0, &open,
                           e));
    }
    return 0;
}

static pid_t spawn(int ack_fd)
{
    pid_t child = fork();

    if (child == 0) {
        struct err e;
        int rc = child_work(ack_fd, &e);

        if (rc)
            fprintf(stderr, "child: %s\n", e.msg);
        _exit(rc ? 1 : 0);
    }
    return child;
}

/* ----- The parent ----- */

static int64_t read_acks(int fd, int64_t last)
{
    int64_t n;

    while (read(fd, &n, sizeof(n)) == sizeof(n))
        last = MAX(last, n);
    return last;
}

static int64_t count_of(struct meta *m, const char *sql)
{
    int64_t n = -1;
    struct err e;

    CHECK_OK(meta_first_int(m, sql, M_NO_ARGS, 0, &n, &e), &e);
    return n;
}

static void check_files(struct meta *m)
{
    AUTO(arena_done) struct arena a = {0};
    str *names = NULL;
    size_t n = 0, whole = 0;
    struct err e;

    NEED_OK(file_list(effects_dir, &a, &names, &n, &e), &e);
    for (size_t i = 0; i < n; i++) {
        char *key = arena_dupz(&a, names[i]);
        int64_t rows = 0;
        str bytes;

        if (str_ends(names[i], S(".tmp"))) /* a replacement that was killed */
            continue;
        NEED_OK(file_read_all(path_join(&a, effects_dir, key), 1000, &a, &bytes, &e), &e);
        *strchr(key, '_') = '/';
        CHECK_STR(bytes, str_of(key));
        NEED_OK(meta_first_int(m, "SELECT COUNT(*) FROM kv WHERE scope = 'effect' AND name = ?",
                               M_ARGS(M_STR(str_of(key))), 0, &rows, &e),
                &e);
        CHECK_INT(rows, 1);
        whole++;
    }
    CHECK_INT(whole, flow_total * STEPS);
}

static void check_outcome(int64_t last_ack)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_closep) struct meta *m = NULL;
    struct journal_head head;
    struct err e;

    NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
    NEED_OK(meta_open(store, &m, &e), &e);
    CHECK_INT(last_ack, flow_total - 1);
    CHECK_INT(count_of(m, "SELECT COUNT(*) FROM wf WHERE state = 'done'"), flow_total);
    CHECK_INT(count_of(m, "SELECT COUNT(DISTINCT correlation) FROM wf"), flow_total);
    CHECK_INT(count_of(m, "SELECT COUNT(*) FROM kv WHERE scope = 'effect'"), flow_total * STEPS);
    CHECK_INT(count_of(m, "SELECT COUNT(*) FROM kv WHERE value + 0 <> 1"), 0);
    CHECK_INT(count_of(m, "SELECT COUNT(*) FROM wf_step WHERE status = 'done'"),
              flow_total * STEPS);
    CHECK_INT(count_of(m, "SELECT COUNT(DISTINCT subject) FROM journal"), flow_total);
    NEED_OK(journal_verify(m, NULL, &head, NULL, &e), &e);
    CHECK_INT(head.size, flow_total);
    check_files(m);
    printf("steps that a kill interrupted: %lld\n",
           (long long)count_of(m, "SELECT SUM(attempts) - COUNT(*) FROM wf_step"));
}

static void test_kill_again_and_again(void)
{
    struct rng rng;
    int64_t last_ack = -1, began = time_mono_ns();
    int pipes[2], status = 0, kills = 0;
    bool done = false;

    fresh_dir("kill");
    rng_seed(&rng, seed);
    NEED(pipe2(pipes, O_NONBLOCK | O_CLOEXEC) == 0);
    while (!done && time_mono_ns() < began + 100 * NS_PER_S) {
        pid_t child = spawn(pipes[1]);

        usleep((useconds_t)(5000 + rng_below(&rng, 120000)));
        /* After enough deaths a child may live to the end. */
        if (kills < 40 || rng_below(&rng, 4)) {
            kill(child, SIGKILL);
        }
        NEED(waitpid(child, &status, 0) == child);
        done = WIFEXITED(status);
        kills += !done;
        last_ack = read_acks(pipes[0], last_ack);
        CHECK(!done || WEXITSTATUS(status) == 0);
    }
    CHECK(done);
    CHECK(kills >= 20);
    check_outcome(last_ack);
    printf("%d kills, %lld flows of %d steps, %.1f s\n", kills, (long long)flow_total, STEPS,
           (double)(time_mono_ns() - began) / 1e9);
    close(pipes[0]);
    close(pipes[1]);
    drop_dir();
}

/* ----- Stopped beyond the lease ----- */

static int tell_fd;

static int step_stopped(struct flow_ctx *ctx, struct err *e)
{
    int rc;

    TRY(write_file(ctx, e));
    if (flow_attempt(ctx) == 1) {
        if (write(tell_fd, "s", 1) != 1)
            return FAIL(e, UNAVAILABLE, "the parent is gone");
        usleep(300000); /* here it is stopped; its lease is 200 ms */
    }
    rc = write_row(ctx, e);
    if (write(tell_fd, rc == CODE_ABORTED ? "f" : rc ? "x" : "w", 1) != 1)
        return FAIL(e, UNAVAILABLE, "the parent is gone");
    return rc;
}

static const struct flow_step stopped_steps[] = {
    {.name = "stopped", .fn = step_stopped, .timeout_ns = 200 * NS_PER_MS}};
static const struct flow_type stopped = {
    .name = "stopped", .steps = stopped_steps, .step_count = 1};

static pid_t spawn_shared(void)
{
    pid_t child = fork();

    if (child == 0) {
        struct flow_reg reg = {&stopped, NULL};
        struct meta_store *store = NULL;
        struct flow_engine *en = NULL;
        int64_t next = 0;
        struct err e;
        int rc = meta_store_open(dir, &(struct meta_options){.shared = true}, &store, &e);

        if (!rc)
            rc = flow_engine_new(store, &(struct flow_options){.regs = &reg, .reg_count = 1}, &en,
                                 &e);
        while (!rc && next != INT64_MAX) {
            rc = flow_run_due(en, &next, &e);
            usleep(5000);
        }
        flow_engine_free(en);
        meta_store_close(store);
        _exit(rc ? 1 : 0);
    }
    return child;
}

static char told(int fd)
{
    char c = '?';

    return read(fd, &c, 1) == 1 ? c : '!';
}

static void start_stopped_flow(void)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_closep) struct meta *m = NULL;
    struct flow_started f;
    struct err e;

    NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
    NEED_OK(meta_open(store, &m, &e), &e);
    NEED_OK(flow_start(m, &(struct flow_start){.type = "stopped"}, &f, &e), &e);
}

static void test_stopped_beyond_its_lease(void)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_closep) struct meta *m = NULL;
    int pipes[2], status;
    struct err e;
    pid_t a, b;

    fresh_dir("stop");
    start_stopped_flow();
    NEED(pipe2(pipes, O_CLOEXEC) == 0);
    tell_fd = pipes[1];
    a = spawn_shared();
    CHECK(told(pipes[0]) == 's');
    CHECK(kill(a, SIGSTOP) == 0);
    usleep(300000);
    b = spawn_shared(); /* takes over and finishes */
    CHECK(told(pipes[0]) == 'w');
    NEED(waitpid(b, &status, 0) == b && status == 0);
    CHECK(kill(a, SIGCONT) == 0);
    CHECK(told(pipes[0]) == 'f'); /* the fence refused the first one's row */
    NEED(waitpid(a, &status, 0) == a && status == 0);
    NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
    NEED_OK(meta_open(store, &m, &e), &e);
    CHECK_INT(count_of(m, "SELECT COUNT(*) FROM wf WHERE state = 'done' AND fence = 2"), 1);
    CHECK_INT(count_of(m, "SELECT SUM(value + 0) FROM kv"), 1);
    close(pipes[0]);
    close(pipes[1]);
    drop_dir();
}

int main(int argc, char **argv)
{
    static const struct check_test tests[] = {T(test_kill_again_and_again),
                                              T(test_stopped_beyond_its_lease)};
    const char *seed_text = getenv("WEIR_SEED"), *flows_text = getenv("WEIR_KILL_FLOWS");

    if ((seed_text && !str_to_u64(str_of(seed_text), &seed)) ||
        (flows_text && !str_to_i64(str_of(flows_text), &flow_total))) {
        fprintf(stderr, "WEIR_SEED and WEIR_KILL_FLOWS are numbers\n");
        return EXIT_FAILURE;
    }
    return check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
}
