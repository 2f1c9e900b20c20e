/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting and ending child processes.
 *
 * How a child starts. fork(2) copies page tables, which for a control process with a large lake
 * open takes tens of milliseconds, so we clone with CLONE_VM | CLONE_VFORK as posix_spawn does: the
 * child runs child_main on a stack of its own in our memory, and this thread sleeps until it
 * executes the program or gives up. In between the child makes only system calls and writes only to
 * `struct start`, where it leaves the step that failed and errno. All signals are blocked
 * meanwhile, so that no handler of ours runs in the child. posix_spawn itself has neither limits,
 * nor a parent death signal, nor namespaces. (Under sanitizers memory is not shared, because their
 * run-time would see two threads; then the report travels through a pipe. The pipe is used in both
 * cases.)
 *
 * Invariants: the child keeps no descriptor but 0, 1, 2 and those in spec->fds; it leads a process
 * group of its own, whose number is its pid; the group is signalled only while the child is not yet
 * collected, since after that the number may belong to others.
 *
 * What it does not do: mount namespaces, seccomp filters, cgroups. A trainer is trusted not to be
 * hostile; the limits are against accidents.
 */
#include "loop/child.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"
#include "loop/poll.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILD_STACK_BYTES ((size_t)64 << 10)
#define CHILD_FD_TO_MAX 63
#define CHILD_POLL_NS (20 * NS_PER_MS)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CHILD_SHARE_FLAGS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CHILD_SHARE_FLAGS 0
#endif
#endif
#ifndef CHILD_SHARE_FLAGS
#define CHILD_SHARE_FLAGS (CLONE_VM | CLONE_VFORK)
#endif

enum step {
    STEP_NONE,
    STEP_PARENT_GONE,
    STEP_GROUP,
    STEP_USER_MAP,
    STEP_FDS,
    STEP_CWD,
    STEP_LIMIT,
    STEP_EXEC,
};

struct report {
    int step;
    int error;
    int limit; /* RLIMIT_… of STEP_LIMIT */
};

/* All that the child needs, made ready by the parent: the child allocates nothing. */
struct start {
    const struct child_spec *spec;
    const char *path; /* of the program */
    char *const *env;
    int std[3]; /* the parent's numbers for the child's 0, 1, 2 */
    int report_fd;
    pid_t parent;
    bool new_user; /* in a user namespace of its own */
    char user_map[32], group_map[32];
    sigset_t mask; /* the mask to run the program with */
};

/* --- In the child: system calls only -------------------------------------------------------- */

static _Noreturn void child_fail(const struct start *s, enum step step, int limit)
{
    struct report r = {.step = (int)step, .error = errno, .limit = limit};

    /* If even this fails the parent sees a closed pipe and status 127. */
    ssize_t n = write(s->report_fd, &r, sizeof(r));
    (void)n;
    _exit(127);
}

static void child_put(const struct start *s, const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        child_fail(s, STEP_USER_MAP, 0);
    close(fd);
}

/* In its own user namespace the child would be "nobody": give it its own numbers back. */
static void child_map_user(const struct start *s)
{
    child_put(s, "/proc/self/setgroups", "deny");
    child_put(s, "/proc/self/uid_map", s->user_map);
    child_put(s, "/proc/self/gid_map", s->group_map);
}

static void child_limit(const struct start *s, int which, uint64_t value)
{
    struct rlimit r, now;

    if (value == 0)
        return;
    if (getrlimit((__rlimit_resource_t)which, &now) < 0)
        child_fail(s, STEP_LIMIT, which);
    r.rlim_cur = r.rlim_max = MIN((rlim_t)value, now.rlim_max);
    if (which == RLIMIT_CPU && r.rlim_max != RLIM_INFINITY && r.rlim_max < now.rlim_max)
        r.rlim_max += 1; /* SIGXCPU at the soft limit, SIGKILL a second later */
    if (setrlimit((__rlimit_resource_t)which, &r) < 0)
        child_fail(s, STEP_LIMIT, which);
}

static void child_limits(const struct start *s)
{
    const struct child_limits *l = &s->spec->limits;
    struct rlimit no_core = {0, 0};

    (void)setrlimit(RLIMIT_CORE, &no_core);
    child_limit(s, RLIMIT_CPU, l->cpu_seconds);
    child_limit(s, RLIMIT_FSIZE, l->file_bytes);
    child_limit(s, RLIMIT_NPROC, l->processes);
    child_limit(s, RLIMIT_NOFILE, l->open_files);
    child_limit(s, RLIMIT_AS, l->address_space_bytes);
}

/* Puts every descriptor at its number. First all are copied above the numbers we fill, so that no
 * copy overwrites one that is still to be copied. */
static void child_fds(struct start *s)
{
    const struct child_spec *spec = s->spec;
    int high[3 + CHILD_FDS_MAX];
    size_t n = 3 + spec->fd_count;

    for (size_t i = 0; i < n; i++) {
        int from = i < 3 ? s->std[i] : spec->fds[i - 3].from;

        high[i] = fcntl(from, F_DUPFD_CLOEXEC, CHILD_FD_TO_MAX + 1);
        if (high[i] < 0)
            child_fail(s, STEP_FDS, 0);
    }
    s->report_fd = fcntl(s->report_fd, F_DUPFD_CLOEXEC, CHILD_FD_TO_MAX + 1);
    if (s->report_fd < 0)
        _exit(127);
    for (size_t i = 0; i < n; i++) {
        if (dup2(high[i], i < 3 ? (int)i : spec->fds[i - 3].to) < 0)
            child_fail(s, STEP_FDS, 0);
    }
    /* Libraries may hold descriptors without O_CLOEXEC. dup2 made ours inheritable: mark all but
     * those. */
    uint64_t keep = 0x7;
    for (size_t i = 0; i < spec->fd_count; i++)
        keep |= UINT64_C(1) << spec->fds[i].to;
    for (int fd = 3; fd <= CHILD_FD_TO_MAX; fd++) {
        if (!(keep >> fd & 1))
            (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    (void)syscall(SYS_close_range, CHILD_FD_TO_MAX + 1, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */);
}

static void child_signals(const struct start *s)
{
    struct sigaction def = {.sa_handler = SIG_DFL};

    for (int signo = 1; signo < NSIG; signo++) {
        if (signo != SIGKILL && signo != SIGSTOP)
            (void)sigaction(signo, &def, NULL);
    }
    (void)sigprocmask(SIG_SETMASK, &s->mask, NULL);
}

static int child_main(void *arg)
{
    struct start *s = arg;
    const struct child_spec *spec = s->spec;

    if (!spec->outlive_parent) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != s->parent)
            child_fail(s, STEP_PARENT_GONE, 0);
    }
    if (setpgid(0, 0) < 0)
        child_fail(s, STEP_GROUP, 0);
    if (s->new_user)
        child_map_user(s);
    child_fds(s);
    if (spec->cwd && chdir(spec->cwd) < 0)
        child_fail(s, STEP_CWD, 0);
    if (spec->nice)
        (void)setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + spec->nice);
    child_limits(s);
    child_signals(s);
    execve(s->path, (char *const *)(uintptr_t)spec->argv, s->env);
    child_fail(s, STEP_EXEC, 0);
}

/* --- In the parent -------------------------------------------------------------------------- */

const char *child_env(const char *name, struct arena *a)
{
    const char *value = getenv(name);

    return value ? arena_printf(a, "%s=%s", name, value).p : NULL;
}

/* Looks a program up in PATH, in the parent: afterwards only execve is left to do. */
static int find_program(const char *name, struct arena *a, const char **ret_path, struct err *e)
{
    str path = str_of(getenv("PATH"));

    if (!name || !*name)
        return FAIL(e, INVALID_ARGUMENT, "the command of a child process is empty");
    if (strchr(name, '/')) {
        *ret_path = name;
        return 0;
    }
    if (!path.p)
        path = S("/usr/local/bin:/usr/bin:/bin");
    while (path.p) {
        str dir = str_cut(&path, ':');
        str full = arena_printf(a, STR_F "/%s", STR_A(dir), name);

        if (dir.n && access(full.p, X_OK) == 0) {
            *ret_path = full.p;
            return 0;
        }
    }
    return FAIL(e, NOT_FOUND, "program '%s' is not in PATH: install it, or write its full path",
                name);
}

/* The parent's descriptor for one standard stream; *ret_opened is to be closed by the caller. */
static int stream_fd(const struct child_stream *st, int number, int *ret_fd, int *ret_opened,
                     struct err *e)
{
    if (st->inherit) {
        *ret_fd = number;
        return 0;
    }
    if (st->fd > 0) {
        *ret_fd = st->fd;
        return 0;
    }
    if (st->path)
        TRY(file_open(st->path, number == 0 ? FILE_READ : FILE_APPEND, ret_opened, e));
    else
        *ret_opened = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (*ret_opened < 0)
        return FAIL_ERRNO(e, "opening /dev/null");
    *ret_fd = *ret_opened;
    return 0;
}

static int clone_once(struct start *s, int namespaces, struct child *c)
{
    AUTO(mem_freep) char *stack = mem_alloc(CHILD_STACK_BYTES);
    int flags = CHILD_SHARE_FLAGS | CLONE_PIDFD | namespaces | SIGCHLD, saved;
    sigset_t all;
    pid_t pid;

    s->new_user = (namespaces & CLONE_NEWUSER) != 0;
    c->pidfd = -1;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &s->mask);
    pid = clone(child_main, stack + CHILD_STACK_BYTES, flags, s, &c->pidfd);
    saved = errno;
    if (pid < 0 && saved == EINVAL) { /* before Linux 5.2: no CLONE_PIDFD */
        pid = clone(child_main, stack + CHILD_STACK_BYTES, flags & ~CLONE_PIDFD, s);
        saved = errno;
        c->pidfd = -1;
    }
    pthread_sigmask(SIG_SETMASK, &s->mask, NULL);
    errno = saved;
    if (pid < 0)
        return -1;
    c->pid = pid;
    return 0;
}

/* Clones, if asked for without the network: as root a network namespace is enough; others need a
 * user namespace around it, which many systems forbid. */
static int clone_child(struct start *s, struct child *c, struct err *e)
{
    if (s->spec->no_network) {
        c->network_removed = clone_once(s, CLONE_NEWNET, c) == 0 ||
                             clone_once(s, CLONE_NEWUSER | CLONE_NEWNET, c) == 0;
        if (c->network_removed)
            return 0;
        if (s->spec->need_no_network)
            return FAIL(e, FAILED_PRECONDITION,
                        "'%s' may only run without network, and this system allows no network "
                        "namespace (%s): allow unprivileged user namespaces, or run without the "
                        "demand",
                        s->path, strerror(errno));
    }
    if (clone_once(s, 0, c) < 0) {
        if (errno == EAGAIN)
            return FAIL(e, RESOURCE_EXHAUSTED,
                        "starting '%s': the limit of processes is reached (ulimit -u, or pids.max "
                        "of the cgroup)",
                        s->path);
        return FAIL_ERRNO(e, "starting '%s'", s->path);
    }
    return 0;
}

static int start_failed(const struct start *s, const struct report *r, struct err *e)
{
    static const char *const steps[] = {
        [STEP_PARENT_GONE] = "its parent ended", [STEP_GROUP] = "making its process group",
        [STEP_USER_MAP] = "mapping its user",    [STEP_FDS] = "placing its descriptors",
        [STEP_LIMIT] = "setting a limit",
    };

    errno = r->error;
    switch (r->step) {
    case STEP_CWD:
        return FAIL_ERRNO(e, "starting '%s' in folder '%s'", s->path, s->spec->cwd);
    case STEP_EXEC:
        return FAIL_ERRNO(e, "starting '%s'", s->path);
    default:
        ASSERT(r->step > STEP_NONE && r->step < (int)ARRAY_LEN(steps) && steps[r->step]);
        return FAIL_ERRNO(e, "starting '%s': %s", s->path, steps[r->step]);
    }
}

/* Waits for the report pipe: closed by a successful execve, or holding what went wrong. */
static int read_report(const struct start *s, int fd, struct child *c, struct err *e)
{
    struct report r;
    ssize_t n;
    int rc;

    do
        n = read(fd, &r, sizeof(r));
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return 0;
    ASSERT(n == (ssize_t)sizeof(r)); /* a pipe writes this little at once */
    rc = start_failed(s, &r, e);
    child_done(c);
    return rc;
}

/* Closes a descriptor that is under AUTO(file_closep). */
static void close_early(int *fd)
{
    file_close(*fd);
    *fd = -1;
}

static void check_spec(const struct child_spec *spec)
{
    ASSERT(spec->argv && spec->fd_count <= CHILD_FDS_MAX);
    for (size_t i = 0; i < spec->fd_count; i++)
        ASSERT(spec->fds[i].to >= 3 && spec->fds[i].to <= CHILD_FD_TO_MAX);
}

int child_start(const struct child_spec *spec, struct child *ret_child, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(file_closep) int in = -1;
    AUTO(file_closep) int out = -1;
    AUTO(file_closep) int err = -1;
    AUTO(file_closep) int report_read = -1;
    AUTO(file_closep) int report_write = -1;
    struct child c = {.pidfd = -1};
    struct start s = {.spec = spec, .parent = getpid()};
    int ends[2];

    check_spec(spec);
    arena_init(&a, 0);
    s.env = spec->env ? (char *const *)(uintptr_t)spec->env : environ;
    TRY(find_program(spec->argv[0], &a, &s.path, e));
    TRY(stream_fd(&spec->in, 0, &s.std[0], &in, e));
    TRY(stream_fd(&spec->out, 1, &s.std[1], &out, e));
    s.std[2] = s.std[1];
    if (!spec->err_to_out)
        TRY(stream_fd(&spec->err, 2, &s.std[2], &err, e));
    snprintf(s.user_map, sizeof(s.user_map), "%u %u 1", geteuid(), geteuid());
    snprintf(s.group_map, sizeof(s.group_map), "%u %u 1", getegid(), getegid());
    if (pipe2(ends, O_CLOEXEC) < 0)
        return FAIL_ERRNO(e, "making a pipe");
    report_read = ends[0];
    report_write = s.report_fd = ends[1];
    TRY(clone_child(&s, &c, e));
    close_early(&report_write);
    TRY(read_report(&s, report_read, &c, e));
    *ret_child = c;
    return 0;
}

int child_become(const char *path, char *const *argv, struct err *e)
{
    (void)execv(path, argv);
    return FAIL_ERRNO(e, "executing '%s'", path);
}

int child_adopt(pid_t pid, struct child *ret_child, struct err *e)
{
    struct child c = {.pid = pid, .pidfd = -1};
    siginfo_t info;

    if (pid <= 0 || waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
        return FAIL(e, NOT_FOUND, "process %d is no child of this one", (int)pid);
    c.pidfd = (int)syscall(SYS_pidfd_open, pid, 0); /* close-on-exec; -1: it is looked at instead */
    *ret_child = c;
    return 0;
}

/* --- The end -------------------------------------------------------------------------------- */

static int64_t timeval_ns(struct timeval tv)
{
    return (int64_t)tv.tv_sec * NS_PER_S + (int64_t)tv.tv_usec * NS_PER_US;
}

/* True when the child has ended. Its group gets SIGKILL before its number is given back. */
static bool collect(struct child *c, struct child_exit *ret_exit)
{
    struct rusage ru;
    siginfo_t info = {0};
    int status = 0;
    pid_t pid;

    ASSERT(c->pid > 0);
    if (waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0)
        return false;
    (void)kill(-c->pid, SIGKILL);
    pid = wait4(c->pid, &status, 0, &ru);
    ASSERT(pid == c->pid); /* nobody else may wait for our children */
    *ret_exit = (struct child_exit){
        .status = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
        .signo = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
        .core = WIFSIGNALED(status) && WCOREDUMP(status),
        .user_ns = timeval_ns(ru.ru_utime),
        .system_ns = timeval_ns(ru.ru_stime),
        .rss_max_bytes = (uint64_t)ru.ru_maxrss * 1024,
    };
    c->pid = 0;
    file_close(c->pidfd);
    c->pidfd = -1;
    return true;
}

bool child_collect(struct child *c, struct child_exit *ret_exit)
{
    ASSERT(c->watch.events == 0); /* child_unwatch first: the watched descriptor gets closed */
    return collect(c, ret_exit);
}

/* Blocks until the child may have ended, or until_ns. */
static void wait_until(const struct child *c, int64_t until_ns)
{
    if (c->pidfd >= 0) {
        (void)poll_one(c->pidfd, POLLIN, until_ns);
        return;
    }
    int64_t step_ns = MIN(CHILD_POLL_NS, MAX(until_ns - time_mono_ns(), NS_PER_MS));
    struct timespec ts = {.tv_nsec = step_ns};

    (void)nanosleep(&ts, NULL);
}

bool child_wait_until(struct child *c, int64_t until_ns, struct child_exit *ret_exit)
{
    ASSERT(c->watch.events == 0);
    while (!collect(c, ret_exit)) {
        if (time_mono_ns() >= until_ns)
            return false;
        wait_until(c, until_ns);
    }
    return true;
}

void child_wait(struct child *c, int64_t deadline_ns, int64_t grace_ns, struct child_exit *ret_exit)
{
    static const int signals[] = {SIGTERM, SIGKILL};
    size_t sent = 0;
    int64_t until_ns = deadline_ns;

    ASSERT(c->watch.events == 0 && grace_ns >= 0);
    while (!collect(c, ret_exit)) {
        wait_until(c, until_ns);
        if (until_ns == INT64_MAX || time_mono_ns() < until_ns)
            continue;
        child_signal(c, signals[sent++]);
        until_ns = sent < ARRAY_LEN(signals) ? time_mono_ns() + grace_ns : INT64_MAX;
    }
    ret_exit->stopped_late = sent > 0;
}

void child_signal(const struct child *c, int signo)
{
    if (c->pid > 0)
        (void)kill(-c->pid, signo);
}

void child_done(struct child *c)
{
    struct child_exit x;

    if (c->pid <= 0)
        return;
    child_signal(c, SIGKILL);
    child_wait(c, INT64_MAX, 0, &x);
}

/* --- On a loop ------------------------------------------------------------------------------ */

static void on_end(struct loop *l, struct child *c)
{
    child_unwatch(l, c);
    c->on_exit(l, c);
}

static void on_pidfd(struct loop *l, struct loop_fd *w, uint32_t events)
{
    (void)events;
    on_end(l, CONTAINER_OF(w, struct child, watch));
}

static void on_poll(struct loop *l, struct loop_timer *t)
{
    struct child *c = CONTAINER_OF(t, struct child, poll);
    siginfo_t info = {0};

    if (waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0)
        loop_timer_set(l, t, loop_now_ns(l) + CHILD_POLL_NS);
    else
        on_end(l, c);
}

int child_watch(struct loop *l, struct child *c, void (*fn)(struct loop *l, struct child *c),
                struct err *e)
{
    ASSERT(c->pid > 0 && fn);
    c->on_exit = fn;
    if (c->pidfd < 0) {
        c->poll.fn = on_poll;
        loop_timer_set(l, &c->poll, loop_now_ns(l) + CHILD_POLL_NS);
        return 0;
    }
    c->watch.fd = c->pidfd;
    c->watch.fn = on_pidfd;
    return loop_fd_add(l, &c->watch, EPOLLIN, e);
}

void child_unwatch(struct loop *l, struct child *c)
{
    loop_fd_remove(l, &c->watch);
    loop_timer_cancel(l, &c->poll);
}

void child_exit_text(const struct child_exit *x, char ret_text[CHILD_TEXT_SIZE])
{
    const char *late = x->stopped_late ? "did not end in time: " : "";
    const char *why = "";
    const char *abbrev = sigabbrev_np(x->signo);

    if (x->signo == 0) {
        snprintf(ret_text, CHILD_TEXT_SIZE, "%sexit status %d", late, x->status);
        return;
    }
    if (x->signo == SIGKILL && !x->stopped_late)
        why = " (the system ran out of memory, or the CPU limit?)";
    if (x->signo == SIGXCPU)
        why = " (the limit of CPU time)";
    if (x->signo == SIGXFSZ)
        why = " (the limit of file size)";
    snprintf(ret_text, CHILD_TEXT_SIZE, "%skilled by SIG%s%s", late, abbrev ? abbrev : "?", why);
}
