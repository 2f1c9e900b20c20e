/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A crew: the threads that run one model which is too slow for the loops (a large network, a
 * program of a user, a remote server). Loops put jobs into its queue without a lock; a worker that
 * becomes free takes as many waiting jobs as fit into its slot and runs them as one batch. So
 * batches grow with the load by themselves, nobody waits for a timer, and a crew that is behind
 * delays nobody else's answers.
 *
 * Jobs have a priority. Those of a higher one run first, but of eight jobs that are taken one is
 * the oldest of the lowest priority that waits, so that nobody starves. How many jobs the crew
 * should have at once is learned from their times (limiter.h); whoever admits a request asks for
 * that and for the wait it must expect.
 *
 * Ownership: a job belongs to the crew from crew_submit() until it is mailed to job->reply_to. The
 * crew must outlive its jobs.
 */
#pragma once

#include "loop/mailbox.h"
#include "plan/plan.h"
#include "serve/runtime/runtime.h"

#define CREW_WORKERS_MAX 64
#define CREW_QUEUE_MAX 4096             /* jobs of one priority that wait; a power of two */
#define CREW_PRIORITIES PLAN_PRIORITIES /* 1 is the highest */

struct crew_job {
    struct mail mail; /* to reply_to */
    struct mailbox *reply_to;
    struct arena *arena;         /* where the worker puts the outputs; used by nobody meanwhile */
    const struct tensor *inputs; /* as many as the model has; read until the job is back */
    struct tensor *outputs;      /* set by the worker when rc is 0: this job's rows alone */
    uint32_t rows;               /* 1 for a model that is not batched */
    uint8_t priority;            /* 1..CREW_PRIORITIES */
    int64_t deadline_ns;         /* monotonic */
    int64_t submitted_ns;        /* set by crew_submit */
    uint32_t abandoned;          /* atomic: nobody waits for it, it need not be run */
    bool expired;                /* not run (UNAVAILABLE): it could no longer be over in time */
    int rc;                      /* 0, or the code of e */
    struct err e;
    int64_t begun_ns, ended_ns;        /* monotonic; the run it was part of */
    const struct runtime_trace *trace; /* of who asks; or NULL */
    struct trace_context ran_in;       /* was_traced: what a remote server was told of the run */
    bool was_traced;
    uint32_t run_rows;   /* rows of that run */
    uint32_t batch_rows; /* rows of that run, in its first job; 0 in the others */
};

struct crew;

/* Makes slots of rows_max rows and starts `workers` (1..CREW_WORKERS_MAX) threads. A worker thread
 * may block here while the engine prepares. Errors of the engine; RESOURCE_EXHAUSTED. */
NODISCARD int crew_new(struct runtime_model *m, uint32_t workers, uint32_t rows_max,
                       struct crew **ret_crew, struct err *e);
/* Ends the workers, cancelling what they run; jobs that wait go back with CANCELLED. Any thread but
 * a worker's; blocks. Idempotent. */
void crew_stop(struct crew *c);
void crew_free(struct crew *c); /* stops; accepts NULL */
DEFINE_AUTO_PTR(struct crew, crew_free)

/* False when the queue is full; the job then stays the caller's. Any thread; does not block. */
NODISCARD bool crew_submit(struct crew *c, struct crew_job *j);

/* Nobody waits for the job any more: it need not be run, and no longer counts as work to come. It
 * is mailed back all the same. Any thread, any number of times before it is back. */
void crew_abandon(struct crew *c, struct crew_job *j);

/* How long a job of that priority that came now would wait before its run, by what waits and what
 * rows have lately cost; 0: nothing is before it. And how long rows take to run. */
int64_t crew_wait_ns(const struct crew *c, uint8_t priority);
int64_t crew_run_ns(const struct crew *c, uint32_t rows);
/* Jobs that it has (neither abandoned nor back), and how many it should have at most. */
uint32_t crew_jobs(const struct crew *c);
uint32_t crew_limit(const struct crew *c);
/* Bytes that input i of a slot can hold: no job may have more. */
size_t crew_input_bytes(const struct crew *c, uint32_t i);

struct crew_stats {
    uint32_t workers, busy, jobs, limit;
    uint64_t waiting_rows;
    uint64_t row_cost_ns;
};
void crew_stats(const struct crew *c, struct crew_stats *ret);

/* Cancels runs that are past the deadline of all their jobs. The watchdog's. */
void crew_watch(struct crew *c, int64_t now_ns);
