/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner: a handful of threads, each with an engine of its own. A thread without work sleeps
 * until the next timer, until a commit that touched flows wakes it, or for poll_ms: the store's
 * hints do not cross processes.
 *
 * Lock: `lock` guards wakes; nothing else is done under it.
 */
#include "flow/priv.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#define WORKERS_DEFAULT 4u
#define POLL_MS_DEFAULT 1000u
#define WORKER_NICE 5 /* no more: a worker may hold the write lock that control waits for */

struct worker {
    struct flow_runner *runner; /* borrowed: who owns it */
    struct flow_engine *engine; /* owned */
    pthread_t thread;
    bool started;
};

struct flow_runner {
    struct meta_store *store; /* borrowed */
    struct worker *workers;   /* owned */
    size_t worker_count;
    int64_t poll_ns;
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    uint64_t wakes;
};

static void wake_all(void *arg, enum meta_topic topic)
{
    struct flow_runner *r = arg;

    (void)topic;
    pthread_mutex_lock(&r->lock);
    r->wakes++;
    pthread_cond_broadcast(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

static uint64_t wakes_so_far(struct flow_runner *r)
{
    uint64_t n;

    pthread_mutex_lock(&r->lock);
    n = r->wakes;
    pthread_mutex_unlock(&r->lock);
    return n;
}

static void sleep_until_woken(struct flow_runner *r, uint64_t seen, int64_t delay_ns)
{
    int64_t until = time_mono_ns() + delay_ns;
    struct timespec at = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};
    int rc = 0;

    pthread_mutex_lock(&r->lock);
    while (r->wakes == seen && !atomic_load(&r->stop) && rc == 0)
        rc = pthread_cond_timedwait(&r->wake, &r->lock, &at);
    pthread_mutex_unlock(&r->lock);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct flow_runner *r = w->runner;

    ROLE_ASSERT(on_worker);
    /* Long work yields to answers on a machine that they share; children inherit it. */
    (void)!setpriority(PRIO_PROCESS, (id_t)gettid(), WORKER_NICE);
    while (!atomic_load(&r->stop)) {
        uint64_t seen = wakes_so_far(r);
        int64_t next_ns = INT64_MAX, delay_ns;
        struct err e;
        bool ran = false;
        int rc = flow_run_one(w->engine, &ran, &e);

        if (!rc && ran)
            continue;
        if (!rc)
            rc = flow_next_wake(w->engine, &next_ns, &e);
        if (rc)
            log_err("flow.store", &e);
        delay_ns = rc || next_ns == INT64_MAX ? r->poll_ns : next_ns - time_wall_ns();
        if (delay_ns > 0)
            sleep_until_woken(r, seen, MIN(delay_ns, r->poll_ns));
    }
    return NULL;
}

/* The lock of the store proves that whoever held these leases is dead. */
static int take_back(struct meta_store *store, struct err *e)
{
    AUTO(meta_closep) struct meta *m = NULL;

    TRY(meta_open(store, &m, e));
    return meta_exec(m,
                     "UPDATE wf SET state = 'pending', due_ns = ?, crashes = crashes + 1"
                     " WHERE state = 'running' AND ended_ns IS NULL",
                     M_ARGS(M_INT(time_wall_ns())), e);
}

static int start_workers(struct flow_runner *r, const struct flow_options *options, struct err *e)
{
    for (size_t i = 0; i < r->worker_count; i++) {
        struct worker *w = &r->workers[i];

        w->runner = r;
        TRY(flow_engine_new(r->store, options, &w->engine, e));
        w->engine->stop = &r->stop;
    }
    for (size_t i = 0; i < r->worker_count; i++) {
        struct worker *w = &r->workers[i];

        if (pthread_create(&w->thread, NULL, worker_main, w))
            return FAIL(e, RESOURCE_EXHAUSTED, "flows: cannot start worker thread %zu of %zu",
                        i + 1, r->worker_count);
        w->started = true;
    }
    return 0;
}

int flow_runner_new(struct meta_store *store, const struct flow_options *options,
                    struct flow_runner **ret_runner, struct err *e)
{
    AUTO(flow_runner_freep) struct flow_runner *r = mem_zalloc(sizeof(*r));
    pthread_condattr_t attr;

    r->store = store;
    r->worker_count = options->workers ? options->workers : WORKERS_DEFAULT;
    r->workers = mem_zalloc(r->worker_count * sizeof(*r->workers));
    r->poll_ns = (options->poll_ms ? options->poll_ms : POLL_MS_DEFAULT) * NS_PER_MS;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &attr);
    pthread_condattr_destroy(&attr);
    if (meta_store_is_exclusive(store))
        TRY(take_back(store, e));
    TRY(meta_watch(store, META_TOPIC_FLOW, wake_all, r, e));
    TRY(start_workers(r, options, e));
    *ret_runner = TAKE(r);
    return 0;
}

void flow_runner_free(struct flow_runner *r)
{
    if (!r)
        return;
    atomic_store(&r->stop, true);
    wake_all(r, META_TOPIC_FLOW);
    for (size_t i = 0; i < r->worker_count; i++)
        if (r->workers[i].started)
            pthread_join(r->workers[i].thread, NULL);
    meta_unwatch(r->store, wake_all, r);
    for (size_t i = 0; i < r->worker_count; i++)
        flow_engine_free(r->workers[i].engine);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    mem_free(r->workers);
    mem_free(r);
}
