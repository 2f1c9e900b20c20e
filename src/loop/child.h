/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Child processes: trainers, process runtimes, probes of model files, the two processes under the
 * supervisor. A child gets its own process group, dies with its parent, holds no descriptor that it
 * was not given, and lives within limits.
 *
 * A program that cannot be started (not found, not executable, a limit refused) is an error of
 * child_start, not an exit status.
 */
#pragma once

#include "base/arena.h"
#include "loop/loop.h"

#include <sys/types.h>

#define CHILD_FDS_MAX 8

struct child_limits { /* 0 = as the parent's */
    uint64_t address_space_bytes;
    uint64_t cpu_seconds;
    uint64_t file_bytes;
    uint64_t processes; /* of the whole user, as the kernel counts them */
    uint64_t open_files;
};

/* One of the three standard streams: a descriptor, else a file, else /dev/null. */
struct child_stream {
    int fd;           /* borrowed; 0 = use path. To pass descriptor 0 itself set `inherit`. */
    const char *path; /* stdin: read; stdout and stderr: appended to, made if missing */
    bool inherit;     /* the parent's own */
};

struct child_fd {
    int from; /* borrowed, the parent's number */
    int to;   /* the number in the child, 3..63 */
};

struct child_spec {
    const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH when without '/' */
    const char *const *env;  /* NULL-terminated "NAME=value"; NULL = the parent's */
    const char *cwd;         /* NULL = the parent's */
    struct child_stream in, out, err;
    bool err_to_out; /* stderr goes where stdout goes */
    struct child_fd fds[CHILD_FDS_MAX];
    size_t fd_count;
    struct child_limits limits;
    int nice;             /* added to the parent's: 10 for trainers */
    bool no_network;      /* own empty network namespace; unix sockets by path still work */
    bool need_no_network; /* fail instead of starting with the network when it cannot be taken away
                           */
    bool outlive_parent;  /* else the kernel kills it when the *thread* that started it ends */
};

struct child {
    pid_t pid; /* 0 = none */
    int pidfd; /* -1 when the kernel has none */
    bool network_removed;
    struct loop_fd watch; /* of child_watch */
    struct loop_timer poll;
    void (*on_exit)(struct loop *l, struct child *c);
};

struct child_exit {
    int status; /* exit status 0..255, or -1 when a signal ended it */
    int signo;  /* or 0 */
    bool core;
    bool stopped_late; /* ended by child_wait after its deadline */
    int64_t user_ns, system_ns;
    uint64_t rss_max_bytes;
};

/* "NAME=value" as this process has it, for the environment of a child; NULL when it has none. */
const char *child_env(const char *name, struct arena *a);

/* Starts the child. NOT_FOUND (program, folder), PERMISSION_DENIED, RESOURCE_EXHAUSTED (processes,
 * memory), INVALID_ARGUMENT; the message names the program and the step that failed. */
NODISCARD int child_start(const struct child_spec *spec, struct child *ret_child, struct err *e);

/* Executes another program in place of this one, which keeps its pid, its children, and the
 * descriptors without close-on-exec. Returns only when that failed. */
NODISCARD int child_become(const char *path, char *const *argv, struct err *e);
/* A child that this process had before it executed another program (exec keeps children):
 * NOT_FOUND when pid is no child of it. */
NODISCARD int child_adopt(pid_t pid, struct child *ret_child, struct err *e);

/* Blocks until the child ends. From deadline_ns on (monotonic; INT64_MAX = never) the group gets
 * SIGTERM, and SIGKILL grace_ns later. After the end of the child whatever it left behind in its
 * group is killed too. */
void child_wait(struct child *c, int64_t deadline_ns, int64_t grace_ns,
                struct child_exit *ret_exit);

/* Blocks until the child ends or until_ns: true, and *ret_exit is set, when it has ended. For waits
 * that have other things to look at now and then; no signal is sent. */
NODISCARD bool child_wait_until(struct child *c, int64_t until_ns, struct child_exit *ret_exit);

/* Collects the child if it has ended: true, and *ret_exit is set. Never blocks. */
NODISCARD bool child_collect(struct child *c, struct child_exit *ret_exit);

/* Calls fn once on the loop after the child's end; fn then calls child_collect. Where the kernel
 * has no pidfd the child is looked at every 20 ms. */
NODISCARD int child_watch(struct loop *l, struct child *c,
                          void (*fn)(struct loop *l, struct child *c), struct err *e);
void child_unwatch(struct loop *l, struct child *c);

void child_signal(const struct child *c, int signo); /* to the whole group; no child, no effect */
/* Kills the group, waits, forgets. Accepts none. For AUTO(child_done). */
void child_done(struct child *c);

/* "exit status 3", "killed by SIGKILL (the memory limit or the system's memory?)",
 * "did not end in time: killed by SIGTERM". */
#define CHILD_TEXT_SIZE 128
void child_exit_text(const struct child_exit *x, char ret_text[CHILD_TEXT_SIZE]);
static inline bool child_exit_ok(const struct child_exit *x)
{
    return x->status == 0 && !x->stopped_late;
}
