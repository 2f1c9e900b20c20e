/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flows: durable work made of steps. A type is a table of steps; a flow is a row in the meta store
 * that says at which step it stands. After each step its checkpoint is committed; kill -9 at any
 * instant loses nothing that was checkpointed, and the step that was under way runs again.
 *
 *     static int step_train(struct flow_ctx *ctx, struct err *e)
 *     {
 *         struct retrain *env = flow_env(ctx);
 *         struct meta *m;
 *
 *         TRY(train(env, flow_input(ctx), flow_key(ctx), e));    slow; may run more than once
 *         TRY(flow_tx(ctx, &m, e));                              from here on exactly once
 *         TRY(journal_append(m, &fact, NULL, e));
 *         return flow_goto(ctx, "gate");                         or return 0: the next in the table
 *     }
 *     static const struct flow_step steps[] = {{.name = "train", .fn = step_train}, …};
 *     static const struct flow_type retrain = {.name = "retrain", .steps = steps, .step_count = …};
 *
 * What is promised
 *  1. Writes made through the connection that flow_tx() gives commit with the checkpoint or not at
 *     all: exactly once. Effects elsewhere (files, children, requests) happen at least once; make
 *     them idempotent by flow_key(), which is the same in every attempt of a step.
 *  2. Each claim raises the flow's fence, and a checkpoint is `WHERE fence = mine`: a worker that
 *     was suspended past its lease cannot write (ABORTED), whatever it believes.
 *  3. Timers are rows: they survive restarts. Time is the wall clock; a clock that jumps ahead ends
 *     leases early, which costs a repeated step and nothing else.
 *  4. At most one unfinished flow has a given dedup key.
 *
 * Steps are found by name, so a new release may add and reorder them; a flow that stands at a step
 * that no longer exists becomes dead with an error that names it.
 */
#pragma once

#include "base/json.h"
#include "base/random.h"
#include "store/meta/meta.h"

enum flow_state {
#define FLOW_STATE(name, text, ended, help) FLOW_##name,
#include "flow/states.def"
#undef FLOW_STATE
    FLOW_STATE_COUNT
};
const char *flow_state_name(enum flow_state state);
bool flow_state_is_end(enum flow_state state);
NODISCARD bool flow_state_find(str name, enum flow_state *ret_state);

/* ----- Types ----- */

struct flow_ctx;
/* 0 = done: on to the next step of the table, or finished after the last one; or what flow_goto,
 * flow_sleep_until, flow_wait or flow_finish was called for. An error with a retryable code
 * (flow_code_is_retryable) is retried by the step's policy; any other fails the flow. Runs on a
 * worker; must look at flow_should_stop() now and then if it takes more than a second. */
typedef int (*flow_step_fn)(struct flow_ctx *ctx, struct err *e);
/* Runs in the transaction that ends the flow, whatever the end; `cause` is NULL when done. Write
 * the closing fact here, through flow_tx(). Must be quick. A failure counts as one of the step. */
typedef int (*flow_end_fn)(struct flow_ctx *ctx, enum flow_state state, const struct err *cause,
                           struct err *e);

struct flow_retry {         /* 0 = the default in brackets */
    uint32_t max_attempts;  /* [5] the first included */
    int64_t first_delay_ns; /* [1 s] */
    double factor;          /* [2] */
    int64_t max_delay_ns;   /* [5 min] */
    double jitter;          /* [0.2] of the delay, both ways; < 0 = none */
};

struct flow_step {
    const char *name; /* str_is_name(); unique in its type */
    flow_step_fn fn;
    struct flow_retry retry;
    /* The lease: a step that neither ended nor called flow_heartbeat() for so long is taken for
     * lost and starts again elsewhere. 0 = 60 s. */
    int64_t timeout_ns;
};

#define FLOW_STEPS_MAX 64
struct flow_type {
    const char *name; /* str_is_name() */
    const struct flow_step *steps;
    size_t step_count;
    /* Where a cancelled flow goes on, to undo what it did; NULL: it ends at once. The step that is
     * under way is not interrupted but sees flow_should_stop(). */
    const char *cancel_step;
    flow_end_fn on_end; /* may be NULL */
};
/* What a runner runs: a type and what its steps get from flow_env(). */
struct flow_reg {
    const struct flow_type *type;
    void *env;
};
/* UNAVAILABLE, DEADLINE_EXCEEDED, ABORTED, RESOURCE_EXHAUSTED, UNKNOWN. */
bool flow_code_is_retryable(enum code code);

/* ----- Inside a step ----- */

void *flow_env(struct flow_ctx *ctx);
str flow_id(const struct flow_ctx *ctx);
str flow_correlation(const struct flow_ctx *ctx);
str flow_key(const struct flow_ctx *ctx);          /* "<flow id>/<seq>" */
uint32_t flow_attempt(const struct flow_ctx *ctx); /* 1 = the first */
const struct json *flow_input(const struct flow_ctx *ctx);
struct arena *flow_arena(struct flow_ctx *ctx); /* lives as long as this call of the step */
/* The output of the last finished run of that step, or NULL. */
NODISCARD int flow_output_of(struct flow_ctx *ctx, const char *step, struct json **ret_output,
                             struct err *e);
/* Sets the output of this step (copied). The last step's output is the result of the flow. */
void flow_output(struct flow_ctx *ctx, const struct json *output);
/* The payload of an event of this flow, or NULL when it has not come. */
NODISCARD int flow_event_of(struct flow_ctx *ctx, const char *name, struct json **ret_payload,
                            struct err *e);
/* Forgets the event with the checkpoint, so that the next one of that name counts again. */
NODISCARD int flow_event_clear(struct flow_ctx *ctx, const char *name, struct err *e);

/* The connection, for reading. Writing through it outside flow_tx() is not tied to the checkpoint.
 */
struct meta *flow_meta(struct flow_ctx *ctx);
/* Opens the checkpoint's transaction, once (later calls give the same): the fence is checked
 * (ABORTED when the lease was lost) and the write lock held from here to the end of the step, so
 * do the slow work before. Never commit it. */
NODISCARD int flow_tx(struct flow_ctx *ctx, struct meta **ret_meta, struct err *e);

/* Extends the lease by the step's timeout from now. ABORTED when it was lost: stop. */
NODISCARD int flow_heartbeat(struct flow_ctx *ctx, struct err *e);
/* True when the flow was cancelled (as of the last heartbeat) or the runner stops: a slow step
 * cleans up and returns FAIL(e, CANCELLED, …); it runs again later unless the flow was cancelled.
 */
bool flow_should_stop(struct flow_ctx *ctx);

/* How the step ends: `return flow_goto(ctx, "judge");`. All return 0. step NULL = the next in the
 * table. The names must exist (asserted). */
int flow_goto(struct flow_ctx *ctx, const char *step);
int flow_sleep_until(struct flow_ctx *ctx, int64_t wall_ns, const char *step);
/* Goes on at `step` when the event has come or at until_ns (INT64_MAX = never), whichever is first:
 * flow_event_of() tells which. An event that came before the wait counts. */
int flow_wait(struct flow_ctx *ctx, const char *event, int64_t until_ns, const char *step);
int flow_finish(struct flow_ctx *ctx);

/* ----- From outside: all may be called inside a transaction of the caller ----- */

#define FLOW_INPUT_MAX ((size_t)1 << 20) /* bytes of input, output or payload as JSON */
struct flow_start {
    const char *type;
    const struct json *input; /* an object, or NULL for {} */
    str dedup_key;            /* unique among unfinished flows; empty: none */
    str correlation;          /* empty: the flow's own id */
    str parent;               /* id of the flow that waits for it, or empty */
    int64_t start_at_ns;      /* 0 = now */
};
struct flow_started {
    char id[UUID_SIZE];
    bool existing; /* an unfinished flow has this dedup key: its id, nothing was started */
};
/* A child that ends sends its parent the event "child.<id>" with {"state":…,"result":…,"error":…},
 * and a parent that is cancelled cancels its children. */
NODISCARD int flow_start(struct meta *m, const struct flow_start *start,
                         struct flow_started *ret_started, struct err *e);
/* First write wins; *ret_first (may be NULL) tells whether this was it. NOT_FOUND,
 * FAILED_PRECONDITION when the flow has ended. */
NODISCARD int flow_event(struct meta *m, str id, str name, const struct json *payload,
                         bool *ret_first, struct err *e);
NODISCARD int flow_cancel(struct meta *m, str id, str reason, struct err *e);
NODISCARD int flow_pause(struct meta *m, str id, struct err *e); /* after the present step */
NODISCARD int flow_resume(struct meta *m, str id, struct err *e);
NODISCARD int flow_retry(struct meta *m, str id, struct err *e); /* dead or failed: try again */
/* The wall clock was put back by -by_ns (by_ns < 0): what waits goes on waiting as long as it had
 * still to, and leases end as they would have. Timers are dates, so that they outlive processes. */
NODISCARD int flow_clock_stepped(struct meta *m, int64_t by_ns, struct err *e);
/* Deletes flows that ended before that time, with their steps; returns how many. */
NODISCARD int flow_prune(struct meta *m, int64_t ended_before_ns, int64_t *ret_n, struct err *e);

struct flow_query {
    str type, state, correlation, parent; /* empty = any */
    bool unfinished;                      /* only those */
    uint32_t limit;                       /* 0 = 100; newest first */
};
/* [{"id","type","state","step","attempts","wake_at_ns",…}] */
NODISCARD int flow_list(struct meta *m, const struct flow_query *query, struct arena *a,
                        struct json **ret_list, struct err *e);
/* The same with input, result, steps and events. NOT_FOUND. */
NODISCARD int flow_show(struct meta *m, str id, struct arena *a, struct json **ret_flow,
                        struct err *e);
/* The unfinished flow with this dedup key: its id, or "" when there is none. */
NODISCARD int flow_find(struct meta *m, str dedup_key, char ret_id[UUID_SIZE], struct err *e);

/* ----- Running ----- */

struct flow_options {
    const struct flow_reg *regs; /* copied; the types and envs are borrowed */
    size_t reg_count;
    uint32_t workers; /* runner only; 0 = 4 */
    uint32_t poll_ms; /* runner only: how often to look for what others started; 0 = 1000 */
};

/* The engine runs on the caller's thread: for tests on the virtual clock, and inside a worker. */
struct flow_engine;
NODISCARD int flow_engine_new(struct meta_store *store, const struct flow_options *options,
                              struct flow_engine **ret_engine, struct err *e);
void flow_engine_free(struct flow_engine *engine); /* accepts NULL */
DEFINE_AUTO_PTR(struct flow_engine, flow_engine_free)
/* Claims one due flow and runs it until it sleeps, waits, ends or has done 16 steps. *ret_ran =
 * false when nothing was due. An error here is one of the meta store, not of a step. */
NODISCARD int flow_run_one(struct flow_engine *engine, bool *ret_ran, struct err *e);
/* Runs all that is due; *ret_next_wake_ns is when something will be (INT64_MAX = nothing). */
NODISCARD int flow_run_due(struct flow_engine *engine, int64_t *ret_next_wake_ns, struct err *e);

/* The runner: worker threads, each with an engine. On an exclusive store it first takes back at
 * once all flows that a dead process left running. */
struct flow_runner;
NODISCARD int flow_runner_new(struct meta_store *store, const struct flow_options *options,
                              struct flow_runner **ret_runner, struct err *e);
/* Asks the steps under way to stop, waits for them, joins the threads. Accepts NULL. */
void flow_runner_free(struct flow_runner *runner);
DEFINE_AUTO_PTR(struct flow_runner, flow_runner_free)
