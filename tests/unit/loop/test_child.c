/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/files.h"
#include "base/time.h"
#include "loop/child.h"
#include "loop/stream.h"
#include "loop/thread.h"

#include <fcntl.h>
#include <unistd.h>

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})
#define SHELL(script) ARGV("sh", "-c", script)

/* Runs a script with its output in a pipe. */
static bool run(const struct child_spec *spec, char *out, size_t size, struct child_exit *x)
{
    struct child_spec s = *spec;
    struct child c = {0};
    struct err e;
    size_t n = 0, got = 1;
    int ends[2];

    if (!CHECK(pipe2(ends, O_CLOEXEC) == 0))
        return false;
    s.out.fd = ends[1];
    int rc = child_start(&s, &c, &e);
    close(ends[1]);
    while (CHECK_OK(rc, &e) && got > 0 && n < size - 1) {
        rc = stream_read(ends[0], out + n, size - 1 - n, time_mono_ns() + 20 * NS_PER_S, &got, &e);
        n += rc ? 0 : got;
    }
    out[n] = 0;
    close(ends[0]);
    if (!rc)
        child_wait(&c, time_mono_ns() + 20 * NS_PER_S, 0, x);
    return !rc;
}

static void output_status_and_usage(void)
{
    struct child_exit x;
    char out[64], text[CHILD_TEXT_SIZE];

    NEED(run(
        &(struct child_spec){.argv = SHELL("echo out; echo err >&2; exit 3"), .err_to_out = true},
        out, sizeof(out), &x));
    CHECK_STR(str_of(out), S("out\nerr\n"));
    CHECK_INT(x.status, 3);
    CHECK(!child_exit_ok(&x));
    CHECK(x.rss_max_bytes > 100000);
    child_exit_text(&x, text);
    CHECK_STR(str_of(text), S("exit status 3"));
}

static void environment_folder_and_argv(void)
{
    struct child_exit x;
    char out[256];
    const char *const env[] = {"ONE=1", "PATH=/usr/bin:/bin", NULL};

    NEED(run(&(struct child_spec){.argv = ARGV("sh", "-c", "pwd; echo $ONE$HOME; echo $0", "a b"),
                                  .env = env,
                                  .cwd = "/usr"},
             out, sizeof(out), &x));
    CHECK_STR(str_of(out), S("/usr\n1\na b\n"));
    CHECK(child_exit_ok(&x));
}

/* No descriptor leaks but those given, at the numbers given, even when the two change places. */
static void descriptors(void)
{
    struct child_exit x;
    char out[64], script[64], want[64];
    int ends[2], leak = dup(2); /* not close-on-exec, as a careless library leaves it */
    int own = 3;                /* ls opens the folder at the lowest free number */

    NEED(pipe2(ends, O_CLOEXEC) == 0 && ends[0] < ends[1] && ends[1] < 10);
    while (own == ends[0] || own == ends[1])
        own++;
    snprintf(script, sizeof(script), "echo five >&%d; exec ls /proc/self/fd", ends[0]);
    struct child_spec s = {.argv = SHELL(script), .fd_count = 2};
    s.fds[0] = (struct child_fd){.from = ends[1], .to = ends[0]};
    s.fds[1] = (struct child_fd){.from = ends[0], .to = ends[1]};
    NEED(run(&s, out, sizeof(out), &x));
    snprintf(want, sizeof(want), "0\n1\n2\n%d\n%d\n%d\n", MIN(own, ends[0]),
             CLAMP(own, ends[0], ends[1]), MAX(own, ends[1]));
    CHECK_STR(str_of(out), str_of(want));
    CHECK(read(ends[0], out, 5) == 5 && memcmp(out, "five\n", 5) == 0);
    close(ends[0]);
    close(ends[1]);
    close(leak);
}

static void files_as_streams(void)
{
    AUTO(arena_done) struct arena a = {0};
    char in[64], out[64];
    struct child c = {0};
    struct child_exit x;
    struct err e;
    str text;

    arena_init(&a, 0);
    snprintf(in, sizeof(in), "/tmp/weir-test-child-%d.in", (int)getpid());
    snprintf(out, sizeof(out), "/tmp/weir-test-child-%d.out", (int)getpid());
    NEED_OK(file_replace(in, S("ping\n"), &e), &e);
    struct child_spec s = {.argv = ARGV("cat"), .in.path = in, .out.path = out};
    for (int i = 0; i < 2; i++) {
        NEED_OK(child_start(&s, &c, &e), &e);
        child_wait(&c, INT64_MAX, 0, &x);
        CHECK(child_exit_ok(&x));
    }
    NEED_OK(file_read_all(out, 100, &a, &text, &e), &e);
    CHECK_STR(text, S("ping\nping\n"));
    CHECK_OK(file_remove(in, &e), &e);
    CHECK_OK(file_remove(out, &e), &e);
    CHECK_FAILS(child_start(&s, &c, &e), NOT_FOUND, &e, in);
}

static void what_cannot_start_is_an_error(void)
{
    struct child c = {0};
    struct err e;

    CHECK_FAILS(child_start(&(struct child_spec){.argv = ARGV("no-such-program-here")}, &c, &e),
                NOT_FOUND, &e, "'no-such-program-here' is not in PATH");
    CHECK_FAILS(child_start(&(struct child_spec){.argv = ARGV("/no/such")}, &c, &e), NOT_FOUND, &e,
                "/no/such");
    CHECK_FAILS(child_start(&(struct child_spec){.argv = ARGV("/etc/passwd")}, &c, &e),
                PERMISSION_DENIED, &e, "/etc/passwd");
    CHECK_FAILS(child_start(&(struct child_spec){.argv = ARGV("true"), .cwd = "/no/such"}, &c, &e),
                NOT_FOUND, &e, "in folder '/no/such'");
    CHECK_FAILS(child_start(&(struct child_spec){.argv = ARGV("")}, &c, &e), INVALID_ARGUMENT, &e,
                "empty");
    CHECK_INT(c.pid, 0);
}

static void limits_hold(void)
{
    struct child_exit x;
    char out[64], text[CHILD_TEXT_SIZE], file[64], of[72];
    struct child_spec s = {
        .argv = ARGV("bash", "-c", "ulimit -v; ulimit -n; ulimit -c; ulimit -u"),
        .limits = {.address_space_bytes = (uint64_t)1 << 30, .open_files = 20, .processes = 123}};

    NEED(run(&s, out, sizeof(out), &x));
    CHECK_STR(str_of(out), S("1048576\n20\n0\n123\n"));

    snprintf(file, sizeof(file), "/tmp/weir-test-child-%d.big", (int)getpid());
    snprintf(of, sizeof(of), "of=%s", file);
    NEED(run(&(struct child_spec){.argv = ARGV("dd", "if=/dev/zero", "bs=4096", "count=100",
                                               "status=none", of),
                                  .limits.file_bytes = 10000},
             out, sizeof(out), &x));
    CHECK_INT(x.signo, SIGXFSZ);
    child_exit_text(&x, text);
    CHECK_STR(str_of(text), S("killed by SIGXFSZ (the limit of file size)"));
    struct err e;
    CHECK_OK(file_remove(file, &e), &e);

    NEED(run(&(struct child_spec){.argv = SHELL("while :; do :; done"), .limits.cpu_seconds = 1},
             out, sizeof(out), &x));
    CHECK_INT(x.signo, SIGXCPU);
    CHECK(x.user_ns + x.system_ns >= NS_PER_S / 2);
}

static void a_wait_in_slices_ends_no_child(void)
{
    AUTO(child_done) struct child c = {0};
    struct child_exit x;
    struct err e;

    NEED_OK(child_start(&(struct child_spec){.argv = ARGV("sleep", "0.2")}, &c, &e), &e);
    CHECK(!child_wait_until(&c, 0, &x));
    CHECK(!child_wait_until(&c, time_mono_ns() + 20 * NS_PER_MS, &x));
    CHECK(c.pid > 0);
    NEED(child_wait_until(&c, time_mono_ns() + 20 * NS_PER_S, &x));
    CHECK(child_exit_ok(&x) && c.pid == 0);
}

static void variables_for_a_child(void)
{
    AUTO(arena_done) struct arena a;

    arena_init(&a, 0);
    setenv("WEIR_TEST_CHILD", "a b", 1);
    CHECK_STR(str_of(child_env("WEIR_TEST_CHILD", &a)), S("WEIR_TEST_CHILD=a b"));
    unsetenv("WEIR_TEST_CHILD");
    CHECK(!child_env("WEIR_TEST_CHILD", &a));
}

/* The whole group ends: first asked, then forced. */
static void a_late_child_is_stopped_with_its_group(void)
{
    struct child c = {0};
    struct child_exit x;
    struct err e;
    char text[CHILD_TEXT_SIZE];
    int64_t began_ns = time_mono_ns();

    NEED_OK(child_start(&(struct child_spec){.argv = ARGV("sleep", "100")}, &c, &e), &e);
    child_wait(&c, began_ns + 20 * NS_PER_MS, NS_PER_S, &x);
    child_exit_text(&x, text);
    CHECK_STR(str_of(text), S("did not end in time: killed by SIGTERM"));
    CHECK(!child_exit_ok(&x));

    int ends[2];
    size_t n;
    char back[8];
    NEED(pipe2(ends, O_CLOEXEC) == 0);
    NEED_OK(child_start(&(struct child_spec){.argv = SHELL("trap '' TERM; sleep 100 & echo up; wait"
                                                           "; wait; while :; do sleep 1; done"),
                                             .out.fd = ends[1]},
                        &c, &e),
            &e);
    close(ends[1]);
    CHECK_OK(stream_read(ends[0], back, sizeof(back), time_mono_ns() + 5 * NS_PER_S, &n, &e), &e);
    child_wait(&c, time_mono_ns() + 20 * NS_PER_MS, 20 * NS_PER_MS, &x);
    CHECK_INT(x.signo, SIGKILL);
    CHECK(x.stopped_late);
    /* The grandchild held the pipe too: its end shows that the group is gone. */
    CHECK_OK(stream_read(ends[0], back, sizeof(back), time_mono_ns() + 5 * NS_PER_S, &n, &e), &e);
    CHECK_INT(n, 0);
    close(ends[0]);
    CHECK(time_mono_ns() - began_ns < 20 * NS_PER_S);
}

static void on_exit_of(struct loop *l, struct child *c)
{
    struct child_exit x = {0};

    CHECK(child_collect(c, &x));
    CHECK_INT(x.status, 7);
    loop_stop(l);
}

static void a_loop_hears_of_the_end(void)
{
    AUTO(loop_freep) struct loop *l = NULL;
    struct child c = {0};
    struct child_exit x;
    struct err e;

    NEED_OK(loop_new(&l, &e), &e);
    for (int with_pidfd = 0; with_pidfd < 2; with_pidfd++) {
        NEED_OK(child_start(&(struct child_spec){.argv = SHELL("exit 7")}, &c, &e), &e);
        if (!with_pidfd) { /* as on an old kernel */
            file_close(c.pidfd);
            c.pidfd = -1;
        }
        NEED_OK(child_watch(l, &c, on_exit_of, &e), &e);
        loop_run(l);
        CHECK_INT(c.pid, 0);
    }
    NEED_OK(child_start(&(struct child_spec){.argv = ARGV("sleep", "100")}, &c, &e), &e);
    CHECK(!child_collect(&c, &x));
    child_done(&c);
    CHECK_INT(c.pid, 0);
    child_done(&c);
}

static void the_network_can_be_taken_away(void)
{
    struct child_exit x;
    char out[512];

    /* Interfaces of the child's namespace: only lo, or the machine's own when not permitted. */
    struct child_spec s = {.argv = SHELL("id -u; tail -n +3 /proc/self/net/dev | wc -l"),
                           .no_network = true};
    struct child c = {0};
    struct err e;
    NEED(run(&s, out, sizeof(out), &x));
    CHECK(child_exit_ok(&x));
    NEED_OK(child_start(&(struct child_spec){.argv = ARGV("true"), .no_network = true}, &c, &e),
            &e);
    if (c.network_removed) {
        char want[64];

        snprintf(want, sizeof(want), "%u\n1\n", geteuid());
        CHECK_STR(str_of(out), str_of(want));
    }
    child_done(&c);
    NEED_OK(child_start(&(struct child_spec){.argv = ARGV("true")}, &c, &e), &e);
    CHECK(!c.network_removed);
    child_done(&c);
}

struct starter {
    struct child child;
    struct err e;
    int rc;
};

static void start_and_end(void *arg)
{
    struct starter *s = arg;

    s->rc = child_start(&(struct child_spec){.argv = ARGV("sleep", "100")}, &s->child, &s->e);
}

/* The kernel kills it when the thread that started it ends. */
static void it_dies_with_the_thread_that_started_it(void)
{
    struct thread t = {0};
    struct starter s = {.rc = -1};
    struct child_exit x;
    struct err e;

    NEED_OK(thread_start(&t, "starter", THREAD_ANY_CPU, start_and_end, &s, &e), &e);
    thread_join(&t);
    NEED_OK(s.rc, &s.e);
    child_wait(&s.child, time_mono_ns() + 10 * NS_PER_S, 0, &x);
    CHECK_INT(x.signo, SIGKILL);
    CHECK(!x.stopped_late);
}

RUN_TESTS(T(output_status_and_usage), T(environment_folder_and_argv), T(descriptors),
          T(files_as_streams), T(what_cannot_start_is_an_error), T(limits_hold),
          T(a_late_child_is_stopped_with_its_group), T(a_loop_hears_of_the_end),
          T(the_network_can_be_taken_away), T(a_wait_in_slices_ends_no_child),
          T(variables_for_a_child), T(it_dies_with_the_thread_that_started_it))
