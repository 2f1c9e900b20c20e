/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads with names, and a pool of workers for what may block (model loads, SQL, file work).
 */
#pragma once

#include "loop/mailbox.h"

#include <pthread.h>

struct thread {
    pthread_t id;
    bool running;
};

typedef void (*thread_fn)(void *arg);

#define THREAD_ANY_CPU (-1)

/* Starts fn(arg) in a thread named `name` (cut to 15 characters: what `top -H` shows), pinned to
 * `cpu` or THREAD_ANY_CPU. All signals are blocked in it: they belong to the loop that opened
 * loop_signals. RESOURCE_EXHAUSTED when the system gives no more threads. */
NODISCARD int thread_start(struct thread *t, const char *name, int cpu, thread_fn fn, void *arg,
                           struct err *e);
void thread_join(struct thread *t); /* accepts one that was not started, or is joined */
/* Waits at most `ns` for it; true when it is joined. For a thread that has to be told more than
 * once. */
bool thread_join_for(struct thread *t, int64_t ns);

/* CPUs this process may use: the affinity mask, cut to the CPU quota of its cgroup (v2 and v1),
 * rounded up; at least 1. What the number of loops and workers should follow. */
int thread_cpus(void);

/* --- Pool ----------------------------------------------------------------------------------- */

struct pool;
struct job;
typedef void (*job_fn)(struct job *j); /* on a worker thread */

/* Embedded in the caller's object. After `run`, the job is posted to `reply_to` if there is one
 * (then CONTAINER_OF(mail, struct job, mail)); else `run` is the last to touch it. */
struct job {
    struct mail mail;
    job_fn run;
    struct mailbox *reply_to; /* borrowed, or NULL; outlives the pool */
    bool cancelled;           /* the pool closed before `run` began; run was not called */
    struct job *next;
};

/* `threads` workers (1..256), at most `waiting_max` jobs not yet begun. */
NODISCARD int pool_new(const char *name, int threads, size_t waiting_max, struct pool **ret_pool,
                       struct err *e);
/* Any thread. RESOURCE_EXHAUSTED when waiting_max jobs wait; the job then stays the caller's. */
NODISCARD int pool_submit(struct pool *p, struct job *j, struct err *e);
/* Lets running jobs finish; jobs not begun go back to reply_to with `cancelled` set (one without
 * reply_to is run, since nobody else would free it). Accepts NULL. */
void pool_free(struct pool *p);
DEFINE_AUTO_PTR(struct pool, pool_free)

struct pool_stats {
    size_t waiting, running;
    uint64_t done;
};
struct pool_stats pool_stats(struct pool *p);
