/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs wait in crew_queue.c; a semaphore counts them, so that idle workers sleep.
 *
 * One run. The first job is waited for; more are taken as long as their rows fit, and as long as
 * the run would be over before the earliest deadline in it: else a crew that is behind would make
 * long runs, all of which come too late. A job that does not fit any more is carried over and
 * becomes the first of the next run. One that could no longer be over in time is not run at all,
 * unless a run takes longer than it ever had: then it is tried, or a cost measured once in a bad
 * moment would never be measured again. Rows are copied into the slot and results copied out into
 * the arena of each job: what that costs is small beside a run that deserves a crew, and it lets
 * jobs of different loops share one. A joint run that fails is repeated job by job, so that one bad
 * input cannot fail others, but not where the model itself cannot be reached.
 *
 * Each run that succeeded tells the limiter how long it took and waited; that is done by workers,
 * under a lock that no loop takes.
 *
 * Invariant: waiting_rows of a priority is the sum of the rows of all its jobs that are submitted,
 * neither abandoned nor mailed back; jobs is the number of all such jobs.
 */
#include "serve/crew.h"

#include "base/mem.h"
#include "base/time.h"
#include "loop/thread.h"
#include "serve/crew_queue.h"
#include "serve/limiter.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define NICE 5 /* loops, which answer, come first */
#define TELL_NS (5 * NS_PER_MS)
#define BATCH_JOBS 1024 /* of one run */
#define LIMIT_INITIAL 128

struct worker {
    struct crew *crew;
    struct thread thread;
    struct runtime_slot *slot; /* owned */
    struct crew_job *carry;    /* taken, did not fit the last run */
    int64_t run_deadline_ns;   /* atomic; 0 when nothing runs */
    struct crew_job *jobs[BATCH_JOBS];
    uint32_t job_count, rows;
    int64_t earliest_ns;  /* deadline among them */
    int64_t submitted_ns; /* of the first; 0 once the run has been learned from */
    int64_t target_ns;    /* half of the time that it was given */
};

struct crew {
    struct runtime_model *model; /* borrowed */
    struct crew_queue queue;
    _Alignas(64) uint64_t waiting_rows[CREW_PRIORITIES]; /* atomic */
    uint32_t jobs;                                       /* atomic */
    uint64_t row_cost_ns;                                /* atomic: moving average */
    uint32_t busy;                                       /* atomic: workers that run something */
    uint32_t limit;                                      /* atomic: of the limiter */
    bool expired;  /* atomic: a job was let in and not run, since the limiter was told */
    bool stopping; /* atomic */
    sem_t filled;  /* counts what is in the queues */
    pthread_mutex_t limit_lock;
    struct limiter limiter; /* under limit_lock */
    uint32_t worker_count;
    struct worker *workers; /* owned */
};

/* --- Coming and going ------------------------------------------------------------------------- */

/* Counts it as work to come, or no more. */
static void count(struct crew *c, const struct crew_job *j, bool in)
{
    uint64_t rows = in ? j->rows : -(uint64_t)j->rows;

    __atomic_add_fetch(&c->waiting_rows[j->priority - 1], rows, __ATOMIC_RELAXED);
    __atomic_add_fetch(&c->jobs, in ? 1u : -1u, __ATOMIC_RELAXED);
}

bool crew_submit(struct crew *c, struct crew_job *j)
{
    ASSERT(j->priority >= 1 && j->priority <= CREW_PRIORITIES);
    j->abandoned = 0;
    j->expired = false;
    j->rc = 0;
    j->outputs = NULL;
    j->batch_rows = 0;
    j->begun_ns = 0;
    j->run_rows = 0;
    j->was_traced = false;
    j->submitted_ns = time_mono_ns();
    count(c, j, true);
    if (crew_queue_put(&c->queue, j)) {
        sem_post(&c->filled);
        return true;
    }
    count(c, j, false);
    return false;
}

void crew_abandon(struct crew *c, struct crew_job *j)
{
    if (!__atomic_exchange_n(&j->abandoned, 1, __ATOMIC_RELAXED))
        count(c, j, false);
}

static void give_back(struct crew *c, struct crew_job *j, int rc)
{
    j->rc = rc;
    j->ended_ns = time_mono_ns();
    crew_abandon(c, j); /* it waits no more */
    mailbox_post(j->reply_to, &j->mail);
}

/* --- Gathering a batch ------------------------------------------------------------------------ */

/* The job that a count of the semaphore stands for. One that was put earlier may not be visible yet
 * while its loop is between two instructions: that is waited for. */
static struct crew_job *take_counted(struct crew *c)
{
    struct crew_job *j;

    while (!(j = crew_queue_take(&c->queue)) && !__atomic_load_n(&c->stopping, __ATOMIC_RELAXED))
        sched_yield();
    return j;
}

/* It waited too long to be over in time, though it came early enough. */
static bool has_expired(const struct crew *c, const struct crew_job *j, int64_t now_ns)
{
    int64_t run_ns = crew_run_ns(c, j->rows);

    return now_ns + run_ns > j->deadline_ns && j->submitted_ns + run_ns <= j->deadline_ns;
}

/* Gives back what need not be run; true when it did. */
static bool is_done_with(struct crew *c, struct crew_job *j, int64_t now_ns)
{
    int rc = 0;

    if (__atomic_load_n(&j->abandoned, __ATOMIC_RELAXED))
        rc = FAIL(&j->e, CANCELLED, "the client is gone");
    else if (now_ns >= j->deadline_ns)
        rc = FAIL(&j->e, DEADLINE_EXCEEDED, "the deadline passed before the model ran");
    else if (has_expired(c, j, now_ns))
        rc = FAIL(&j->e, UNAVAILABLE, "overloaded: no time is left to run the model");
    if (!rc)
        return false;
    j->expired = rc == CODE_UNAVAILABLE;
    if (rc != CODE_CANCELLED)
        __atomic_store_n(&c->expired, true, __ATOMIC_RELAXED);
    give_back(c, j, rc);
    return true;
}

/* A job that still wants to be run. A count has been taken for the first. */
static struct crew_job *next_wanted(struct worker *w, int64_t now_ns)
{
    struct crew *c = w->crew;
    struct crew_job *j;

    while ((j = take_counted(c))) {
        if (!is_done_with(c, j, now_ns))
            return j;
        if (sem_trywait(&c->filled))
            return NULL;
    }
    return NULL;
}

static void add(struct worker *w, struct crew_job *j)
{
    w->earliest_ns = w->job_count ? MIN(w->earliest_ns, j->deadline_ns) : j->deadline_ns;
    w->jobs[w->job_count++] = j;
    w->rows += j->rows;
}

/* The rows fit, and with them the run is still in time for all. */
static bool fits(const struct worker *w, const struct crew_job *j, int64_t now_ns)
{
    uint32_t rows = w->rows + j->rows;

    return rows <= w->slot->rows_max &&
           now_ns + crew_run_ns(w->crew, rows) <= MIN(w->earliest_ns, j->deadline_ns);
}

static void gather(struct worker *w, int64_t now_ns)
{
    struct crew *c = w->crew;

    while (c->model->batched && w->job_count < BATCH_JOBS && w->rows < w->slot->rows_max &&
           !sem_trywait(&c->filled)) {
        struct crew_job *j = next_wanted(w, now_ns);

        if (!j)
            return;
        if (!fits(w, j, now_ns)) {
            w->carry = j;
            return;
        }
        add(w, j);
    }
}

/* Waits for work; false when the crew stops. */
static bool take_batch(struct worker *w)
{
    struct crew_job *first = TAKE(w->carry);

    w->job_count = w->rows = 0;
    if (first && is_done_with(w->crew, first, time_mono_ns()))
        first = NULL;
    while (!first) {
        while (sem_wait(&w->crew->filled) && errno == EINTR)
            ;
        if (__atomic_load_n(&w->crew->stopping, __ATOMIC_ACQUIRE))
            return false;
        first = next_wanted(w, time_mono_ns());
    }
    add(w, first);
    gather(w, time_mono_ns());
    return true;
}

/* --- Running ---------------------------------------------------------------------------------- */

static void copy_texts(struct arena *a, str *texts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        texts[i] = arena_dup(a, texts[i]);
}

/* The outputs of rows [row_at, row_at + j->rows) of a run of `rows` rows, or all of them. */
static void copy_out(struct worker *w, struct crew_job *j, uint32_t row_at, uint32_t rows)
{
    const struct runtime_model *m = w->crew->model;

    j->outputs = ARENA_ARRAY(j->arena, struct tensor, m->output_count);
    for (uint32_t i = 0; i < m->output_count; i++) {
        const struct tensor *from = &w->slot->outputs[i];
        struct tensor *to = &j->outputs[i];
        size_t size = tensor_type_bytes(from->spec->datatype), skip = 0;

        *to = *from;
        if (m->batched && rows != j->rows) {
            size_t row = from->count / rows;

            skip = row_at * row * size;
            to->shape[0] = j->rows;
            to->count = j->rows * row;
            to->bytes = to->count * size;
        }
        to->data = arena_alloc(j->arena, MAX(to->count * size, (size_t)1));
        to->cap_bytes = to->count * size;
        memcpy(to->data, (const char *)from->data + skip, to->cap_bytes);
        if (to->spec->datatype == TENSOR_BYTES)
            copy_texts(j->arena, to->data, to->count);
    }
}

/* What a run took, for those who ask what the next one will. One that failed says nothing, unless
 * it was stopped: then it took that long at least. */
static void learn(struct worker *w, uint32_t rows, int64_t start_ns, int64_t run_ns, int rc)
{
    struct crew *c = w->crew;
    uint64_t cost = (uint64_t)run_ns / MAX(rows, 1u), old;
    struct limiter_sample s = {.now_ns = start_ns + run_ns,
                               .wait_ns = MAX(start_ns - w->submitted_ns, (int64_t)0),
                               .run_ns = MAX(run_ns, (int64_t)1),
                               .target_ns = w->target_ns,
                               .rows = rows,
                               .inflight = crew_jobs(c)};

    if (rc == CODE_DEADLINE_EXCEEDED || rc == CODE_CANCELLED)
        __atomic_store_n(&c->expired, true, __ATOMIC_RELAXED);
    else if (rc)
        return;
    old = __atomic_load_n(&c->row_cost_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&c->row_cost_ns, old ? (old * 7 + cost) / 8 : cost, __ATOMIC_RELAXED);
    if (rc || !w->submitted_ns) /* or it is repeated job by job */
        return;
    w->submitted_ns = 0;
    s.late = __atomic_exchange_n(&c->expired, false, __ATOMIC_RELAXED);
    pthread_mutex_lock(&c->limit_lock);
    limiter_sample(&c->limiter, &s);
    __atomic_store_n(&c->limit, c->limiter.limit, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&c->limit_lock);
}

static int run_slot(struct worker *w, uint32_t rows, int64_t deadline_ns, struct err *e)
{
    struct crew *c = w->crew;
    int64_t start = time_mono_ns();
    int rc;

    w->slot->trace_sent = false;
    __atomic_store_n(&w->run_deadline_ns, deadline_ns, __ATOMIC_RELEASE);
    rc = runtime_run(w->slot, c->model->batched ? rows : 0, deadline_ns, e);
    __atomic_store_n(&w->run_deadline_ns, 0, __ATOMIC_RELEASE);
    learn(w, rows, start, time_mono_ns() - start, rc);
    if (!rc && !runtime_rows_match(w->slot, rows))
        rc = FAIL(e, INTERNAL, "the model does not give one row of output for each row of input");
    return rc;
}

static void note_trace(const struct worker *w, struct crew_job *j)
{
    j->was_traced = w->slot->trace_sent;
    if (j->was_traced)
        j->ran_in = w->slot->trace->context;
}

/* A run of several requests is told of to a remote server as one of them: the first that is
 * sampled, else the first that has a trace. */
static const struct runtime_trace *carrier(const struct worker *w)
{
    const struct runtime_trace *found = NULL;

    for (uint32_t i = 0; i < w->job_count; i++) {
        const struct runtime_trace *t = w->jobs[i]->trace;

        if (t && t->context.flags & TRACE_SAMPLED)
            return t;
        found = found ? found : t;
    }
    return found;
}

static void run_alone(struct worker *w, struct crew_job *j)
{
    int rc;

    runtime_slot_put(w->slot, j->inputs, j->rows, 0);
    w->slot->trace = j->trace;
    rc = run_slot(w, j->rows, j->deadline_ns, &j->e);
    note_trace(w, j);
    if (!rc)
        copy_out(w, j, 0, j->rows);
    give_back(w->crew, j, rc);
}

/* True for failures that no single input is to blame for: trying each alone would meet them again.
 */
static bool is_of_all(int rc)
{
    return rc == CODE_UNAVAILABLE || rc == CODE_DEADLINE_EXCEEDED || rc == CODE_CANCELLED;
}

static void run_batch(struct worker *w)
{
    int64_t latest = 0, begun_ns = time_mono_ns();
    uint32_t at = 0;
    struct err e;
    int rc;

    for (uint32_t i = 0; i < w->job_count; i++) {
        w->jobs[i]->begun_ns = begun_ns;
        w->jobs[i]->batch_rows = i ? 0 : w->rows;
        w->jobs[i]->run_rows = w->rows;
        latest = MAX(latest, w->jobs[i]->deadline_ns);
    }
    w->submitted_ns = w->jobs[0]->submitted_ns;
    w->target_ns = (w->jobs[0]->deadline_ns - w->submitted_ns) / 2;
    if (w->job_count == 1) {
        run_alone(w, w->jobs[0]);
        return;
    }
    for (uint32_t i = 0; i < w->job_count; at += w->jobs[i++]->rows)
        runtime_slot_put(w->slot, w->jobs[i]->inputs, w->jobs[i]->rows, at);
    w->slot->trace = carrier(w);
    rc = run_slot(w, w->rows, latest, &e);
    for (uint32_t i = 0; i < w->job_count; i++)
        note_trace(w, w->jobs[i]);
    if (rc && is_of_all(rc)) {
        for (uint32_t i = 0; i < w->job_count; i++) {
            w->jobs[i]->e = e;
            give_back(w->crew, w->jobs[i], rc);
        }
        return;
    }
    w->submitted_ns = 0;
    if (rc) {
        for (uint32_t i = 0; i < w->job_count; i++)
            run_alone(w, w->jobs[i]);
        return;
    }
    at = 0;
    for (uint32_t i = 0; i < w->job_count; i++) {
        struct crew_job *j = w->jobs[i];

        copy_out(w, j, at, w->rows);
        at += j->rows;
        give_back(w->crew, j, 0);
    }
}

static void worker_main(void *arg)
{
    struct worker *w = arg;
    struct sched_param none = {0};

    /* A worker's work comes in long pieces: it must not preempt a loop that has just woken. */
    (void)!sched_setscheduler((pid_t)gettid(), SCHED_BATCH, &none);
    (void)!setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    while (take_batch(w)) {
        __atomic_add_fetch(&w->crew->busy, 1, __ATOMIC_RELAXED);
        run_batch(w);
        __atomic_sub_fetch(&w->crew->busy, 1, __ATOMIC_RELAXED);
    }
}

/* --- Life ------------------------------------------------------------------------------------- */

int crew_new(struct runtime_model *m, uint32_t workers, uint32_t rows_max, struct crew **ret_crew,
             struct err *e)
{
    AUTO(crew_freep) struct crew *c = mem_zalloc_aligned(64, sizeof(*c));
    struct limiter_config limit;
    char name[16];

    ASSERT(workers >= 1 && workers <= CREW_WORKERS_MAX);
    c->model = m;
    sem_init(&c->filled, 0, 0);
    pthread_mutex_init(&c->limit_lock, NULL);
    crew_queue_init(&c->queue);
    limit = (struct limiter_config){workers + 1, CREW_QUEUE_MAX, MAX(LIMIT_INITIAL, workers + 1)};
    limiter_init(&c->limiter, &limit, time_mono_ns());
    c->limit = c->limiter.limit;
    c->workers = mem_zalloc(workers * sizeof(struct worker));
    for (; c->worker_count < workers; c->worker_count++) {
        struct worker *w = &c->workers[c->worker_count];

        w->crew = c;
        TRY(runtime_slot_new(m, rows_max, 0, &w->slot, e));
    }
    for (uint32_t i = 0; i < workers; i++) {
        snprintf(name, sizeof(name), "weir-crew-%u", i);
        TRY(thread_start(&c->workers[i].thread, name, THREAD_ANY_CPU, worker_main, &c->workers[i],
                         e));
    }
    *ret_crew = TAKE(c);
    return 0;
}

/* A run may begin just after it was told to stop, so all are told again until they have ended. */
static void end_workers(struct crew *c)
{
    for (uint32_t i = 0; i < c->worker_count; i++)
        sem_post(&c->filled);
    for (uint32_t i = 0; i < c->worker_count; i++)
        while (!thread_join_for(&c->workers[i].thread, TELL_NS)) {
            sem_post(&c->filled); /* another may have taken the count that was meant for it */
            for (uint32_t k = 0; k < c->worker_count; k++)
                if (__atomic_load_n(&c->workers[k].run_deadline_ns, __ATOMIC_ACQUIRE))
                    runtime_cancel(c->workers[k].slot);
        }
}

void crew_stop(struct crew *c)
{
    struct crew_job *j;

    if (!c || __atomic_exchange_n(&c->stopping, true, __ATOMIC_ACQ_REL))
        return;
    end_workers(c);
    for (uint32_t i = 0; i < c->worker_count; i++)
        if ((j = TAKE(c->workers[i].carry)))
            give_back(c, j, FAIL(&j->e, CANCELLED, "the model is being unloaded"));
    while ((j = crew_queue_take(&c->queue)))
        give_back(c, j, FAIL(&j->e, CANCELLED, "the model is being unloaded"));
}

void crew_free(struct crew *c)
{
    if (!c)
        return;
    crew_stop(c);
    for (uint32_t i = 0; i < c->worker_count; i++)
        runtime_slot_free(c->workers[i].slot);
    sem_destroy(&c->filled);
    pthread_mutex_destroy(&c->limit_lock);
    crew_queue_done(&c->queue);
    mem_free(c->workers);
    mem_free(c);
}

/* --- Looking ---------------------------------------------------------------------------------- */

static int64_t cost_ns(const struct crew *c, uint64_t rows, uint32_t workers)
{
    uint64_t cost = __atomic_load_n(&c->row_cost_ns, __ATOMIC_RELAXED), sum;

    if (__builtin_mul_overflow(rows, cost, &sum))
        return INT64_MAX / 4;
    return (int64_t)MIN(sum / workers, (uint64_t)INT64_MAX / 4);
}

int64_t crew_wait_ns(const struct crew *c, uint8_t priority)
{
    uint64_t rows = 0;

    for (uint32_t i = 0; i < priority; i++)
        rows += __atomic_load_n(&c->waiting_rows[i], __ATOMIC_RELAXED);
    return cost_ns(c, rows, c->worker_count);
}

int64_t crew_run_ns(const struct crew *c, uint32_t rows)
{
    return cost_ns(c, rows, 1);
}

uint32_t crew_jobs(const struct crew *c)
{
    return __atomic_load_n(&c->jobs, __ATOMIC_RELAXED);
}

uint32_t crew_limit(const struct crew *c)
{
    return __atomic_load_n(&c->limit, __ATOMIC_RELAXED);
}

size_t crew_input_bytes(const struct crew *c, uint32_t i)
{
    return c->workers[0].slot->inputs[i].cap_bytes;
}

void crew_stats(const struct crew *c, struct crew_stats *ret)
{
    ret->workers = c->worker_count;
    ret->busy = __atomic_load_n(&c->busy, __ATOMIC_RELAXED);
    ret->jobs = crew_jobs(c);
    ret->limit = crew_limit(c);
    ret->waiting_rows = 0;
    for (uint32_t i = 0; i < CREW_PRIORITIES; i++)
        ret->waiting_rows += __atomic_load_n(&c->waiting_rows[i], __ATOMIC_RELAXED);
    ret->row_cost_ns = __atomic_load_n(&c->row_cost_ns, __ATOMIC_RELAXED);
}

void crew_watch(struct crew *c, int64_t now_ns)
{
    for (uint32_t i = 0; i < c->worker_count; i++) {
        int64_t deadline = __atomic_load_n(&c->workers[i].run_deadline_ns, __ATOMIC_ACQUIRE);

        if (deadline && now_ns > deadline)
            runtime_cancel(c->workers[i].slot);
    }
}
