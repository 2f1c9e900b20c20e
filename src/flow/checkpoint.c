/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints: what happened to a step and where the flow stands now, in one transaction with
 * whatever the step wrote through flow_tx().
 *
 *   step returned 0      next step: held on (or given back, when paused or for others' turn)
 *                        sleep, wait: given back until then; finish: DONE
 *   retryable error      given back until the retry; after the last attempt: DEAD
 *   any other error      FAILED
 *   runner stops         given back as it was
 *   cancelled meanwhile  to the cancel step, or CANCELLED; a flow that just finished stays DONE
 *
 * Invariants: the transaction begins by checking the fence, and every update repeats it; seq grows
 * by one with each step done, so that a key flow_id/seq is never used for two pieces of work; an
 * ended flow has ended_ns and is never due.
 */
#include "flow/priv.h"

#include "base/log.h"
#include "base/time.h"

#include <stdio.h>

/* ----- Rows ----- */

static int record_step(struct flow_ctx *ctx, const char *status, const struct err *cause,
                       struct err *e)
{
    struct meta *m = ctx->engine->m;
    str output = cause || !ctx->output.n ? S("null") : buf_str(&ctx->output);
    str name = str_of(ctx->step->name);

    if (ctx->output.overflowed)
        return FAIL(e, INVALID_ARGUMENT, "step '%s': output has more than %zu bytes",
                    ctx->step->name, FLOW_INPUT_MAX);
    TRY(meta_exec(
        m,
        "INSERT INTO wf_step (wf_id, seq, name, status, output, error, attempts, started_ns,"
        " ended_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (wf_id, seq) DO UPDATE SET"
        " name = excluded.name, status = excluded.status, output = excluded.output,"
        " error = excluded.error, attempts = excluded.attempts, ended_ns = excluded.ended_ns",
        M_ARGS(M_STR(ctx->id), M_INT(ctx->seq), M_STR(name), M_STR(str_of(status)), M_STR(output),
               M_STR(str_of(cause ? cause->msg : "")), M_INT(flow_attempt(ctx)),
               M_INT(ctx->started_ns), M_INT(time_wall_ns())),
        e));
    if (ctx->seq <= STEP_ROWS_MAX)
        return 0;
    return meta_exec(
        m,
        "DELETE FROM wf_step WHERE wf_id = ? AND name = ? AND seq <="
        " (SELECT seq FROM wf_step WHERE wf_id = ? AND name = ?"
        " ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        M_ARGS(M_STR(ctx->id), M_STR(name), M_STR(ctx->id), M_STR(name), M_INT(STEP_ROWS_MAX)), e);
}

struct move {
    enum flow_state state;
    const struct flow_step *step;
    int64_t seq, due_ns;
    const char *wait_event;
    uint32_t attempts;
    enum cancel_state cancel;
    const struct err *error;
};

static int move(struct flow_ctx *ctx, const struct move *to, struct err *e)
{
    int64_t now = time_wall_ns();

    TRY(meta_exec(
        ctx->engine->m,
        "UPDATE wf SET state = ?, step = ?, seq = ?, due_ns = ?, wait_event = ?, attempts = ?,"
        " crashes = 0, cancel = ?, error_code = ?, error = ?, step_started_ns = ?, updated_ns = ?"
        " WHERE id = ? AND fence = ?",
        M_ARGS(M_STR(str_of(flow_state_name(to->state))), M_STR(str_of(to->step->name)),
               M_INT(to->seq), M_INT(to->due_ns),
               M_STR(str_of(to->wait_event ? to->wait_event : "")), M_INT(to->attempts),
               M_INT(to->cancel), M_INT(to->error ? to->error->code : CODE_OK),
               M_STR(str_of(to->error ? to->error->msg : "")), M_INT(now), M_INT(now),
               M_STR(ctx->id), M_INT(ctx->fence)),
        e));
    ASSERT(meta_changes(ctx->engine->m) == 1); /* the fence was checked in this transaction */
    if (to->state == FLOW_PENDING)
        meta_touch(ctx->engine->m, META_TOPIC_FLOW);
    return meta_commit(&ctx->tx, e);
}

/* ----- Going on ----- */

static int go_on(struct flow_ctx *ctx, const struct flow_step *step, enum cancel_state cancel,
                 const struct flow_step **ret_next, struct err *e)
{
    bool hold = !ctx->yield && !(ctx->paused && cancel == CANCEL_NO);
    int64_t now = time_wall_ns();
    struct move to = {
        .state = hold ? FLOW_RUNNING : FLOW_PENDING,
        .step = step,
        .seq = ctx->seq + 1,
        .due_ns = hold ? now + flow_step_timeout_ns(step) : now,
        .cancel = cancel,
    };

    TRY(move(ctx, &to, e));
    ctx->cancel = cancel;
    *ret_next = hold ? step : NULL;
    return 0;
}

static int rest(struct flow_ctx *ctx, struct err *e)
{
    struct move to = {
        .state = ctx->verdict == VERDICT_WAIT ? FLOW_WAITING : FLOW_SLEEPING,
        .step = ctx->goto_step,
        .seq = ctx->seq + 1,
        .due_ns = ctx->until_ns,
        .cancel = ctx->cancel,
    };

    if (ctx->verdict == VERDICT_WAIT) {
        int64_t came;

        to.wait_event = ctx->wait_event;
        TRY(meta_first_int(ctx->engine->m,
                           "SELECT COUNT(*) FROM wf_event WHERE wf_id = ? AND name = ?",
                           M_ARGS(M_STR(ctx->id), M_STR(str_of(ctx->wait_event))), 0, &came, e));
        if (came) {
            to.state = FLOW_PENDING;
            to.due_ns = time_wall_ns();
        }
    }
    return move(ctx, &to, e);
}

/* ----- Ending ----- */

static int tell_parent(struct flow_ctx *ctx, enum flow_state state, str result, const char *error,
                       struct err *e)
{
    AUTO(buf_done) struct buf payload = {0};
    struct json_out o;
    int64_t alive;
    bool first;

    if (!ctx->parent.n)
        return 0;
    TRY(meta_first_int(ctx->engine->m, "SELECT COUNT(*) FROM wf WHERE id = ? AND ended_ns IS NULL",
                       M_ARGS(M_STR(ctx->parent)), 0, &alive, e));
    if (!alive)
        return 0;
    buf_init(&payload, BUF_MAX_DEFAULT);
    jo_begin(&o, &payload);
    jo_object(&o);
    jo_kstr(&o, S("error"), str_of(error));
    jo_key(&o, S("result"));
    jo_raw(&o, result);
    jo_kstr(&o, S("state"), str_of(flow_state_name(state)));
    jo_object_end(&o);
    return flow_event_put(ctx->engine->m, ctx->parent,
                          arena_printf(&ctx->held, CHILD_EVENT STR_F, STR_A(ctx->id)),
                          buf_str(&payload), &first, e);
}

static int end(struct flow_ctx *ctx, enum flow_state state, const struct err *cause, bool hook,
               struct err *e)
{
    struct meta *m = ctx->engine->m;
    str result = state == FLOW_DONE && ctx->output.n ? buf_str(&ctx->output) : S("null");
    const char *error = cause ? cause->msg : "";
    int64_t now;

    ASSERT(flow_state_is_end(state));
    if (hook && ctx->reg->type->on_end)
        TRY(ctx->reg->type->on_end(ctx, state, cause, e));
    now = time_wall_ns();
    TRY(meta_exec(m,
                  "UPDATE wf SET state = ?, due_ns = ?, wait_event = '', result = ?,"
                  " error_code = ?, error = ?, updated_ns = ?, ended_ns = ?"
                  " WHERE id = ? AND fence = ?",
                  M_ARGS(M_STR(str_of(flow_state_name(state))), M_INT(INT64_MAX), M_STR(result),
                         M_INT(cause ? cause->code : CODE_OK), M_STR(str_of(error)), M_INT(now),
                         M_INT(now), M_STR(ctx->id), M_INT(ctx->fence)),
                  e));
    ASSERT(meta_changes(m) == 1);
    TRY(tell_parent(ctx, state, result, error, e));
    meta_touch(m, META_TOPIC_FLOW);
    return meta_commit(&ctx->tx, e);
}

/* Ends a flow that cannot go on. If its on_end fails, it ends without, and its error says so: a
 * closing fact is worth less than an end. */
static int end_badly(struct flow_ctx *ctx, enum flow_state state, const struct err *cause,
                     const char *status, struct err *e)
{
    struct err hook_error = {0}, both = {.at = ERR_AT};

    TRY(flow_ctx_fence(ctx, e));
    if (status)
        TRY(record_step(ctx, status, cause, e));
    if (end(ctx, state, cause, true, &hook_error) == 0)
        return 0;
    log_err("flow.on_end", &hook_error);
    meta_tx_done(&ctx->tx);
    TRY(flow_ctx_fence(ctx, e));
    if (status)
        TRY(record_step(ctx, status, cause, e));
    both.code = cause ? cause->code : hook_error.code;
    snprintf(both.msg, sizeof(both.msg), "%.240s%s%.200s", cause ? cause->msg : "",
             cause ? "; and its on_end: " : "on_end: ", hook_error.msg);
    return end(ctx, state, &both, false, e);
}

/* ----- The four checkpoints ----- */

static int divert(struct flow_ctx *ctx, const struct flow_step **ret_next, struct err *e)
{
    const struct flow_type *type = ctx->reg->type;

    ASSERT(ctx->cancel == CANCEL_ASKED);
    if (!type->cancel_step)
        return end_badly(ctx, FLOW_CANCELLED, NULL, NULL, e);
    return go_on(ctx, flow_step_find(type, str_of(type->cancel_step)), CANCEL_UNDER_WAY, ret_next,
                 e);
}

int checkpoint_cancel(struct flow_ctx *ctx, const struct flow_step **ret_next, struct err *e)
{
    *ret_next = NULL;
    TRY(flow_ctx_fence(ctx, e));
    return divert(ctx, ret_next, e);
}

int checkpoint_dead(struct flow_ctx *ctx, const struct err *cause, struct err *e)
{
    return end_badly(ctx, FLOW_DEAD, cause, NULL, e);
}

int checkpoint_done(struct flow_ctx *ctx, const struct flow_step **ret_next, struct err *e)
{
    *ret_next = NULL;
    TRY(flow_ctx_fence(ctx, e));
    TRY(record_step(ctx, "done", NULL, e));
    if (!ctx->goto_step)
        return end(ctx, ctx->cancel == CANCEL_UNDER_WAY ? FLOW_CANCELLED : FLOW_DONE, NULL, true,
                   e);
    if (ctx->cancel == CANCEL_ASKED)
        return divert(ctx, ret_next, e);
    if (ctx->verdict == VERDICT_NEXT)
        return go_on(ctx, ctx->goto_step, ctx->cancel, ret_next, e);
    return rest(ctx, e);
}

int checkpoint_error(struct flow_ctx *ctx, const struct err *cause,
                     const struct flow_step **ret_next, struct err *e)
{
    bool retryable = flow_code_is_retryable(cause->code);
    uint32_t failures = ctx->attempts + 1;
    struct move to = {.state = FLOW_PENDING, .step = ctx->step, .seq = ctx->seq};

    *ret_next = NULL;
    meta_tx_done(&ctx->tx); /* what the step wrote goes */
    TRY(flow_ctx_fence(ctx, e));
    to.cancel = ctx->cancel;
    if (ctx->cancel == CANCEL_ASKED) {
        TRY(record_step(ctx, "failed", cause, e));
        return divert(ctx, ret_next, e);
    }
    if (cause->code == CODE_CANCELLED && flow_should_stop(ctx)) {
        to.due_ns = time_wall_ns();
        to.attempts = ctx->attempts;
        return move(ctx, &to, e);
    }
    if (!retryable || failures >= flow_step_attempts_max(ctx->step))
        return end_badly(ctx, retryable ? FLOW_DEAD : FLOW_FAILED, cause, "failed", e);
    TRY(record_step(ctx, "retrying", cause, e));
    to.due_ns =
        time_wall_ns() + flow_retry_delay_ns(&ctx->step->retry, failures, &ctx->engine->rng);
    to.attempts = failures;
    to.error = cause;
    return move(ctx, &to, e);
}
