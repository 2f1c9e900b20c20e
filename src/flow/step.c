/* SPDX-License-Identifier: Apache-2.0 */
/* What a step sees of its flow, and how it says where to go next. */
#include "flow/priv.h"

#include "base/time.h"

void *flow_env(struct flow_ctx *ctx)
{
    return ctx->reg->env;
}

str flow_id(const struct flow_ctx *ctx)
{
    return ctx->id;
}

str flow_correlation(const struct flow_ctx *ctx)
{
    return ctx->correlation;
}

str flow_key(const struct flow_ctx *ctx)
{
    return str_of(ctx->key);
}

uint32_t flow_attempt(const struct flow_ctx *ctx)
{
    return ctx->attempts + ctx->crashes + 1;
}

const struct json *flow_input(const struct flow_ctx *ctx)
{
    return ctx->input;
}

struct arena *flow_arena(struct flow_ctx *ctx)
{
    return &ctx->arena;
}

struct meta *flow_meta(struct flow_ctx *ctx)
{
    return ctx->engine->m;
}

static int json_first(struct flow_ctx *ctx, const char *sql, struct meta_args args,
                      struct json **ret, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *node = NULL;

    TRY(meta_first(ctx->engine->m, sql, args, &rows, e));
    if (rows)
        TRY(json_parse(meta_str_dup(rows, 0, &ctx->arena), &ctx->arena, &node, e));
    *ret = node;
    return 0;
}

int flow_output_of(struct flow_ctx *ctx, const char *step, struct json **ret_output, struct err *e)
{
    return json_first(ctx,
                      "SELECT output FROM wf_step WHERE wf_id = ? AND name = ? AND status = 'done'"
                      " ORDER BY seq DESC LIMIT 1",
                      M_ARGS(M_STR(ctx->id), M_STR(str_of(step))), ret_output, e);
}

void flow_output(struct flow_ctx *ctx, const struct json *output)
{
    buf_clear(&ctx->output);
    json_write_canonical(&ctx->output, output);
}

int flow_event_of(struct flow_ctx *ctx, const char *name, struct json **ret_payload, struct err *e)
{
    return json_first(ctx, "SELECT payload FROM wf_event WHERE wf_id = ? AND name = ?",
                      M_ARGS(M_STR(ctx->id), M_STR(str_of(name))), ret_payload, e);
}

int flow_event_clear(struct flow_ctx *ctx, const char *name, struct err *e)
{
    struct meta *m;

    TRY(flow_tx(ctx, &m, e));
    return meta_exec(m, "DELETE FROM wf_event WHERE wf_id = ? AND name = ?",
                     M_ARGS(M_STR(ctx->id), M_STR(str_of(name))), e);
}

/* ----- The lease ----- */

static int lost(struct flow_ctx *ctx, struct err *e)
{
    ctx->lost = true;
    return FAIL(e, ABORTED,
                "flow " STR_F ": the lease of step '%s' ran out and another worker took over",
                STR_A(ctx->id), ctx->step->name);
}

int flow_ctx_fence(struct flow_ctx *ctx, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct meta *m = ctx->engine->m;

    if (ctx->lost)
        return lost(ctx, e);
    if (ctx->tx.m)
        return 0;
    TRY(meta_begin(m, &ctx->tx, e));
    TRY(meta_first(m,
                   "SELECT cancel, paused FROM wf WHERE id = ? AND fence = ? AND state = 'running'",
                   M_ARGS(M_STR(ctx->id), M_INT(ctx->fence)), &rows, e));
    if (!rows)
        return lost(ctx, e);
    ctx->cancel = (enum cancel_state)meta_int(rows, 0);
    ctx->paused = meta_int(rows, 1) != 0;
    return 0;
}

int flow_tx(struct flow_ctx *ctx, struct meta **ret_meta, struct err *e)
{
    TRY(flow_ctx_fence(ctx, e));
    *ret_meta = ctx->engine->m;
    return 0;
}

static int extend(struct flow_ctx *ctx, int64_t until, bool *ret_held, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct meta *m = ctx->engine->m;
    int64_t cancel;

    TRY(meta_begin(m, &tx, e));
    TRY(meta_exec(m, "UPDATE wf SET due_ns = ? WHERE id = ? AND fence = ? AND state = 'running'",
                  M_ARGS(M_INT(until), M_STR(ctx->id), M_INT(ctx->fence)), e));
    *ret_held = meta_changes(m) == 1;
    TRY(meta_first_int(m, "SELECT cancel FROM wf WHERE id = ?", M_ARGS(M_STR(ctx->id)), 0, &cancel,
                       e));
    ctx->cancel = (enum cancel_state)cancel;
    return meta_commit(&tx, e);
}

int flow_heartbeat(struct flow_ctx *ctx, struct err *e)
{
    bool held = false;

    if (!ctx->lost)
        TRY(extend(ctx, time_wall_ns() + flow_step_timeout_ns(ctx->step), &held, e));
    return held ? 0 : lost(ctx, e);
}

bool flow_should_stop(struct flow_ctx *ctx)
{
    return ctx->lost || ctx->cancel == CANCEL_ASKED ||
           (ctx->engine->stop && atomic_load(ctx->engine->stop));
}

/* ----- Verdicts ----- */

static int decide(struct flow_ctx *ctx, enum verdict verdict, const char *step)
{
    const struct flow_type *type = ctx->reg->type;

    ctx->verdict = verdict;
    if (step) {
        ctx->goto_step = flow_step_find(type, str_of(step));
        ASSERT(ctx->goto_step);
    } else {
        ctx->goto_step = ctx->step + 1 < type->steps + type->step_count ? ctx->step + 1 : NULL;
    }
    return 0;
}

int flow_goto(struct flow_ctx *ctx, const char *step)
{
    return decide(ctx, VERDICT_NEXT, step);
}

int flow_sleep_until(struct flow_ctx *ctx, int64_t wall_ns, const char *step)
{
    ctx->until_ns = wall_ns;
    return decide(ctx, VERDICT_SLEEP, step);
}

int flow_wait(struct flow_ctx *ctx, const char *event, int64_t until_ns, const char *step)
{
    ASSERT(str_is_name(str_of(event)));
    ctx->until_ns = until_ns;
    ctx->wait_event = event;
    return decide(ctx, VERDICT_WAIT, step);
}

int flow_finish(struct flow_ctx *ctx)
{
    ctx->verdict = VERDICT_FINISH;
    ctx->goto_step = NULL;
    return 0;
}
