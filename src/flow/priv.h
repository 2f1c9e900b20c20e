/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of flows: the context of a step, and the engine that runs it. */
#pragma once

#include "flow/flow.h"

#include <stdatomic.h>

#define STEP_TIMEOUT_NS_DEFAULT (60 * NS_PER_S)
#define STEPS_PER_CLAIM 16   /* then others get their turn */
#define CRASHES_MAX 100      /* leases of one step that ran out */
#define STEP_ROWS_MAX 64     /* kept for one step of one flow: loops do not grow without end */
#define CHILD_EVENT "child." /* and the child's id */

enum cancel_state { CANCEL_NO, CANCEL_ASKED, CANCEL_UNDER_WAY };

struct flow_engine {
    struct meta *m;        /* owned */
    struct flow_reg *regs; /* owned; what they name is borrowed */
    size_t reg_count;
    char *due_sql;              /* owned: the claim's SELECT, with the types */
    char *wake_sql;             /* owned */
    struct meta_arg *args;      /* owned: now and the names of the types */
    char owner[48];             /* for people: who holds a lease */
    char unreleased[UUID_SIZE]; /* a flow whose checkpoint the store refused, or "" */
    int64_t unreleased_fence;
    struct rng rng;          /* jitter */
    const atomic_bool *stop; /* borrowed: from the runner; NULL = never */
};

/* How a step wants to end. */
enum verdict { VERDICT_NEXT, VERDICT_SLEEP, VERDICT_WAIT, VERDICT_FINISH };

struct flow_ctx {
    struct flow_engine *engine;
    const struct flow_reg *reg;
    const struct flow_step *step;
    struct arena arena; /* of one call of a step */

    /* The flow, as claimed; texts live in `held`. */
    struct arena held;
    str id, correlation, parent, input_text;
    struct json *input;
    int64_t fence;
    int64_t seq;
    uint32_t attempts, crashes; /* of the present step */
    enum cancel_state cancel;
    bool paused;
    bool yield;         /* the last step of this claim */
    int64_t started_ns; /* of the present step */
    char key[UUID_SIZE + 24];

    /* What the step said. */
    struct meta_tx tx; /* the checkpoint's, when open */
    bool lost;         /* the fence was raised by someone else */
    enum verdict verdict;
    const struct flow_step *goto_step; /* NULL = the next of the table, or the end */
    int64_t until_ns;
    const char *wait_event;
    struct buf output;
};

/* ----- type.c ----- */

/* The step of that name; "" is the first. NULL when there is none. */
const struct flow_step *flow_step_find(const struct flow_type *type, str name);
int64_t flow_step_timeout_ns(const struct flow_step *step);
uint32_t flow_step_attempts_max(const struct flow_step *step);
/* How long to wait after the attempt-th failure, attempt >= 1. */
int64_t flow_retry_delay_ns(const struct flow_retry *retry, uint32_t attempt, struct rng *rng);
NODISCARD int flow_type_check(const struct flow_type *type, struct err *e);

/* ----- step.c ----- */

/* Opens the checkpoint's transaction and reads what others may have asked for since the claim. */
NODISCARD int flow_ctx_fence(struct flow_ctx *ctx, struct err *e);

/* ----- engine.c ----- */

/* When the next flow is due, now or later; INT64_MAX = none. */
NODISCARD int flow_next_wake(struct flow_engine *engine, int64_t *ret_wake_ns, struct err *e);

/* ----- checkpoint.c ----- */

/* All commit the transaction of the context, opening it if need be. *ret_next is the step at which
 * the flow stands now and is still held, or NULL. ABORTED and ctx->lost when the lease was lost. */
NODISCARD int checkpoint_done(struct flow_ctx *ctx, const struct flow_step **ret_next,
                              struct err *e);
NODISCARD int checkpoint_error(struct flow_ctx *ctx, const struct err *cause,
                               const struct flow_step **ret_next, struct err *e);
/* The flow was cancelled: to its cancel step, or to its end. */
NODISCARD int checkpoint_cancel(struct flow_ctx *ctx, const struct flow_step **ret_next,
                                struct err *e);
/* The flow cannot run at all. */
NODISCARD int checkpoint_dead(struct flow_ctx *ctx, const struct err *cause, struct err *e);

/* ----- requests.c ----- */

/* JSON text for a column; INVALID_ARGUMENT above FLOW_INPUT_MAX. NULL node = "{}". */
NODISCARD int flow_json_text(const char *what, const struct json *node, struct buf *out,
                             struct err *e);
/* First write wins; wakes the flow if it waits for it. *ret_first false: it was there. */
NODISCARD int flow_event_put(struct meta *m, str id, str name, str payload, bool *ret_first,
                             struct err *e);
