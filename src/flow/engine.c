/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: claims a due flow and runs its steps, on one thread with one connection.
 *
 * Looking for work reads; only when there is some does a claim take the write lock, look again, and
 * raise the fence. While a flow goes from step to step it stays claimed, so that each step costs
 * one commit, for at most STEPS_PER_CLAIM steps; then it queues behind the others that are due.
 *
 * A store that refuses a checkpoint (full disk) leaves the flow running in its row. The engine
 * remembers it, and gives it back before it does anything else, as soon as the store works again.
 */
#include "flow/priv.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"

#include <stdio.h>
#include <unistd.h>

#define DUE_COLUMNS \
    "id, type, state, step, seq, input, fence, attempts, crashes, cancel, parent, correlation"
#define RUNNABLE "ended_ns IS NULL AND (paused = 0 OR cancel = 1)"

/* ----- Engine ----- */

static char *sql_with_types(const char *before, size_t type_count, const char *after)
{
    AUTO(buf_done) struct buf sql = {0};

    buf_init(&sql, BUF_MAX_DEFAULT);
    buf_printf(&sql, "%s AND type IN (", before);
    for (size_t i = 0; i < type_count; i++)
        buf_add_str(&sql, i ? S(", ?") : S("?"));
    buf_printf(&sql, ")%s", after);
    return mem_dupz(sql.p, sql.n);
}

int flow_engine_new(struct meta_store *store, const struct flow_options *options,
                    struct flow_engine **ret_engine, struct err *e)
{
    AUTO(flow_engine_freep) struct flow_engine *en = mem_zalloc(sizeof(*en));
    size_t n = options->reg_count;

    ASSERT(n > 0);
    for (size_t i = 0; i < n; i++)
        TRY(flow_type_check(options->regs[i].type, e));
    en->reg_count = n;
    en->regs = mem_alloc(n * sizeof(*en->regs));
    memcpy(en->regs, options->regs, n * sizeof(*en->regs));
    en->args = mem_zalloc((n + 1) * sizeof(*en->args));
    for (size_t i = 0; i < n; i++)
        en->args[i + 1] = M_STR(str_of(en->regs[i].type->name));
    en->due_sql = sql_with_types("SELECT " DUE_COLUMNS " FROM wf WHERE due_ns <= ? AND " RUNNABLE,
                                 n, " ORDER BY due_ns LIMIT 1");
    en->wake_sql =
        sql_with_types("SELECT MIN(due_ns) FROM wf WHERE due_ns > ? AND " RUNNABLE, n, "");
    snprintf(en->owner, sizeof(en->owner), "%d:%08x", (int)getpid(), (unsigned)random_u64());
    rng_seed(&en->rng, random_u64());
    TRY(meta_open(store, &en->m, e));
    *ret_engine = TAKE(en);
    return 0;
}

void flow_engine_free(struct flow_engine *en)
{
    if (!en)
        return;
    meta_close(en->m);
    mem_free(en->regs);
    mem_free(en->args);
    mem_free(en->due_sql);
    mem_free(en->wake_sql);
    mem_free(en);
}

static const struct flow_reg *reg_find(const struct flow_engine *en, str type)
{
    for (size_t i = 0; i < en->reg_count; i++)
        if (str_eqz(type, en->regs[i].type->name))
            return &en->regs[i];
    return NULL;
}

/* ----- Claiming ----- */

static int find_due(struct flow_engine *en, struct meta_rows **ret_rows, struct err *e)
{
    en->args[0] = M_INT(time_wall_ns());
    return meta_first(en->m, en->due_sql, (struct meta_args){en->args, en->reg_count + 1}, ret_rows,
                      e);
}

static void enter(struct flow_ctx *ctx, const struct flow_step *step)
{
    arena_reset(&ctx->arena);
    buf_clear(&ctx->output);
    ctx->step = step;
    ctx->started_ns = time_wall_ns();
    snprintf(ctx->key, sizeof(ctx->key), STR_F "/%lld", STR_A(ctx->id), (long long)ctx->seq);
    flow_goto(ctx, NULL);
}

/* Takes the row into the context. What makes the flow impossible to run goes into *broken. */
static void load(struct flow_ctx *ctx, const struct meta_rows *rows, struct err *broken)
{
    str step_name = meta_str(rows, 3);
    const struct flow_step *step;

    ctx->id = meta_str_dup(rows, 0, &ctx->held);
    ctx->reg = reg_find(ctx->engine, meta_str(rows, 1));
    ASSERT(ctx->reg); /* the claim names the types */
    ctx->seq = meta_int(rows, 4);
    ctx->input_text = meta_str_dup(rows, 5, &ctx->held);
    ctx->fence = meta_int(rows, 6) + 1;
    ctx->attempts = (uint32_t)meta_int(rows, 7);
    ctx->crashes = (uint32_t)meta_int(rows, 8) + str_eqz(meta_str(rows, 2), "running");
    ctx->cancel = (enum cancel_state)meta_int(rows, 9);
    ctx->parent = meta_str_dup(rows, 10, &ctx->held);
    ctx->correlation = meta_str_dup(rows, 11, &ctx->held);
    step = flow_step_find(ctx->reg->type, step_name);
    if (!step)
        (void)FAIL(broken, FAILED_PRECONDITION,
                   "the flow stands at step '" STR_F "', which type '%s' has no more",
                   STR_A(step_name), ctx->reg->type->name);
    else if (ctx->crashes > CRASHES_MAX)
        (void)FAIL(broken, ABORTED, "step '%s' did not end %u times: its lease ran out each time",
                   step->name, ctx->crashes);
    enter(ctx, step ? step : &ctx->reg->type->steps[0]);
    if (json_parse(ctx->input_text, &ctx->held, &ctx->input, broken))
        err_context(broken, "input");
}

static int claim(struct flow_engine *en, struct flow_ctx *ctx, bool *ret_claimed,
                 struct err *broken, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct meta_rows *rows;
    int64_t now;

    *ret_claimed = false;
    TRY(find_due(en, &rows, e));
    if (!rows)
        return 0;
    meta_rows_close(rows);
    TRY(meta_begin(en->m, &tx, e));
    TRY(find_due(en, &rows, e));
    if (!rows)
        return 0; /* another was faster */
    load(ctx, rows, broken);
    meta_rows_close(rows);
    now = time_wall_ns();
    TRY(meta_exec(en->m,
                  "UPDATE wf SET state = 'running', fence = ?, owner = ?, due_ns = ?, crashes = ?,"
                  " step_started_ns = ?, updated_ns = ? WHERE id = ? AND fence = ?",
                  M_ARGS(M_INT(ctx->fence), M_STR(str_of(en->owner)),
                         M_INT(now + flow_step_timeout_ns(ctx->step)), M_INT(ctx->crashes),
                         M_INT(now), M_INT(now), M_STR(ctx->id), M_INT(ctx->fence - 1)),
                  e));
    ASSERT(meta_changes(en->m) == 1);
    TRY(meta_commit(&tx, e));
    *ret_claimed = true;
    return 0;
}

/* ----- Running ----- */

static int run_step(struct flow_ctx *ctx, const struct flow_step **ret_next, struct err *e)
{
    struct err cause = {0};
    int rc;

    if (ctx->cancel == CANCEL_ASKED)
        return checkpoint_cancel(ctx, ret_next, e);
    rc = ctx->step->fn(ctx, &cause);
    if (!rc)
        rc = checkpoint_done(ctx, ret_next, &cause);
    if (!rc)
        return 0;
    if (ctx->lost)
        return rc;
    if (cause.code == CODE_OK) /* a step that returned a code and said nothing */
        (void)err_fill(&cause, (enum code)rc, ERR_AT, "step '%s' failed: %s", ctx->step->name,
                       code_name((enum code)rc));
    return checkpoint_error(ctx, &cause, ret_next, e);
}

static int run_claimed(struct flow_ctx *ctx, const struct err *broken, struct err *e)
{
    const struct flow_step *next = ctx->step;

    if (broken->code != CODE_OK)
        return checkpoint_dead(ctx, broken, e);
    for (int i = 0; next; i++) {
        ctx->yield = i + 1 >= STEPS_PER_CLAIM;
        TRY(run_step(ctx, &next, e));
        ASSERT(!ctx->tx.m);
        if (next) {
            ctx->seq++;
            ctx->attempts = ctx->crashes = 0;
            enter(ctx, next);
        }
    }
    return 0;
}

static int release(struct flow_engine *en, struct err *e)
{
    if (!en->unreleased[0])
        return 0;
    TRY(meta_exec(
        en->m,
        "UPDATE wf SET state = 'pending', due_ns = ? WHERE id = ? AND fence = ?"
        " AND state = 'running'",
        M_ARGS(M_INT(time_wall_ns()), M_STR(str_of(en->unreleased)), M_INT(en->unreleased_fence)),
        e));
    en->unreleased[0] = '\0';
    return 0;
}

static void ctx_done(struct flow_ctx *ctx)
{
    meta_tx_done(&ctx->tx);
    buf_done(&ctx->output);
    arena_done(&ctx->arena);
    arena_done(&ctx->held);
}

int flow_run_one(struct flow_engine *en, bool *ret_ran, struct err *e)
{
    AUTO(ctx_done) struct flow_ctx ctx = {.engine = en};
    struct err broken = {0};
    int rc;

    *ret_ran = false;
    arena_init(&ctx.arena, 0);
    arena_init(&ctx.held, 0);
    buf_init(&ctx.output, FLOW_INPUT_MAX);
    TRY(release(en, e));
    TRY(claim(en, &ctx, ret_ran, &broken, e));
    if (!*ret_ran)
        return 0;
    rc = run_claimed(&ctx, &broken, e);
    if (!rc)
        return 0;
    if (ctx.lost) {
        /* Another worker has the flow: nothing is wrong with the store, and nothing to do here. */
        log_event(LOG_WARN, "flow.fenced", "flow=" STR_F " type=%s step=%s fence=%lld",
                  STR_A(ctx.id), ctx.reg->type->name, ctx.step->name, (long long)ctx.fence);
        return 0;
    }
    snprintf(en->unreleased, sizeof(en->unreleased), STR_F, STR_A(ctx.id));
    en->unreleased_fence = ctx.fence;
    return rc;
}

int flow_next_wake(struct flow_engine *en, int64_t *ret_wake_ns, struct err *e)
{
    en->args[0] = M_INT(0);
    return meta_first_int(en->m, en->wake_sql, (struct meta_args){en->args, en->reg_count + 1},
                          INT64_MAX, ret_wake_ns, e);
}

int flow_run_due(struct flow_engine *en, int64_t *ret_next_wake_ns, struct err *e)
{
    bool ran = true;

    while (ran)
        TRY(flow_run_one(en, &ran, e));
    return flow_next_wake(en, ret_next_wake_ns, e);
}
