/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The retrain flow.
 *
 *   triage -> review -> labels -> seal -> snapshot -> train -> register -> registered -> gate
 *     -> rollout -> rolled
 *
 * Each step writes retrain.step with what it found and how long it took. The run ends as
 *   skipped    triage: upstream is broken, or the drift has passed; a person said no; or too few
 *              labels or rows came in time
 *   rejected   the gate: the candidate stays in the registry with the gate's table
 *   done       promoted, or taken back by its rollout (the result says which)
 *   failed     a step gave up, or someone cancelled the run; the champion was never touched
 *
 * A trainer that fails is tried again as often, and after as long, as the project says; that is the
 * step's own loop, since the engine's retries are fixed for a type.
 */
#include "retrain/priv.h"

#define SEAL_WAIT_NS (300 * NS_PER_MS)

/* How often labels are looked for: soon at first, then ever more patiently. */
#define POLL_MIN_NS (200 * NS_PER_MS)
#define POLL_MAX_NS (30 * NS_PER_S)

static NODISCARD int step_done(struct run *r, const char *step, int64_t start_ns,
                               struct json *found, struct err *e)
{
    struct meta *m;

    json_set_str(r->a, found, S("step"), str_of(step));
    json_set_real(r->a, found, S("took_ms"), (double)(time_wall_ns() - start_ns) / 1e6);
    TRY(flow_tx(r->ctx, &m, e));
    flow_output(r->ctx, found);
    return run_fact(r, m, FACT_RETRAIN_STEP, str_of(step), found, e);
}

static NODISCARD int skip(struct run *r, enum fact_type type, str why, const struct json *data,
                          struct err *e)
{
    struct json *result = json_new_object(r->a);
    struct meta *m;

    TRY(flow_tx(r->ctx, &m, e));
    json_set_str(r->a, result, S("result"),
                 type == FACT_RETRAIN_SKIPPED ? S("skipped") : S("rejected"));
    json_set_str(r->a, result, S("why"), why);
    flow_output(r->ctx, result);
    TRY(run_fact(r, m, type, why, data ? data : result, e));
    return flow_finish(r->ctx);
}

/* Ends a run before any work was done: it does not count for the cooldown. */
static NODISCARD int skip_early(struct run *r, str why, const struct json *data, struct err *e)
{
    int64_t asked = json_int_or(json_get(flow_input(r->ctx), S("asked_ns")), 0);
    struct meta *m;

    TRY(flow_tx(r->ctx, &m, e));
    TRY(start_give_back(m, r->model_name, asked, r->a, e));
    return skip(r, FACT_RETRAIN_SKIPPED, why, data, e);
}

/* --- Triage and review ------------------------------------------------------------------------ */

static int step_triage(struct flow_ctx *ctx, struct err *e)
{
    int64_t start = time_wall_ns();
    struct json *found;
    struct meta *m;
    struct run r;
    str why;

    TRY(run_open(ctx, &r, e));
    TRY(triage(&r, &found, e));
    why = json_str_or(json_get(found, S("why")), S(""));
    TRY(flow_tx(ctx, &m, e));
    TRY(run_fact(&r, m, FACT_RETRAIN_STARTED,
                 json_str_or(json_get(flow_input(ctx), S("reason")), S("")), NULL, e));
    TRY(run_fact(&r, m, FACT_TRIAGE_FINISHED, why, found, e));
    if (!str_eq(json_str_or(json_get(found, S("verdict")), S("")), S("real")))
        return skip_early(&r, why, found, e);
    return step_done(&r, "triage", start, found, e);
}

/* The answer of a person: {"approved":bool,"actor","reason"}. */
static NODISCARD int reviewed(struct run *r, const struct json *answer, int64_t since,
                              struct err *e)
{
    struct json *found = json_new_object(r->a);
    str actor = json_str_or(json_get(answer, S("actor")), S("someone"));
    str reason = json_str_or(json_get(answer, S("reason")), S(""));
    bool approved = json_bool_or(json_get(answer, S("approved")), true);

    json_set_bool(r->a, found, S("approved"), approved);
    json_set_str(r->a, found, S("actor"), actor);
    json_set_str(r->a, found, S("reason"), reason);
    if (approved)
        return step_done(r, "review", since, found, e);
    return skip_early(r, arena_printf(r->a, STR_F " said no: " STR_F, STR_A(actor), STR_A(reason)),
                      found, e);
}

/* Policy "review": a person must say go. */
static int step_review(struct flow_ctx *ctx, struct err *e)
{
    struct json *answer, *asked, *found;
    struct run r;

    if (!json_bool_or(json_get(flow_input(ctx), S("review")), false))
        return 0;
    TRY(run_open(ctx, &r, e));
    TRY(flow_event_of(ctx, "approve", &answer, e));
    TRY(flow_output_of(ctx, "review", &asked, e));
    if (answer)
        return reviewed(&r, answer, json_int_or(json_get(asked, S("since_ns")), time_wall_ns()), e);
    if (!asked) {
        found = json_new_object(r.a);
        json_set_str(r.a, found, S("waits_for"), S("a person: approve or cancel this flow"));
        json_set_int(r.a, found, S("since_ns"), time_wall_ns());
        TRY(step_done(&r, "review", time_wall_ns(), found, e));
    } else {
        flow_output(ctx, asked);
    }
    return flow_wait(ctx, "approve", INT64_MAX, "review");
}

/* --- Labels ----------------------------------------------------------------------------------- */

static int step_labels(struct flow_ctx *ctx, struct err *e)
{
    const struct json *input = flow_input(ctx);
    int64_t want = json_int_or(json_get(input, S("labels_min")), 0), now = time_wall_ns(), have;
    int64_t asked = json_int_or(json_get(input, S("asked_ns")), now);
    int64_t patience = json_int_or(json_get(input, S("labels_wait_ns")), 0);
    struct json *found;
    struct run r;

    if (want <= 0)
        return 0;
    TRY(run_open(ctx, &r, e));
    have = r.env->ports.labels_total(r.env->ports.ctx, r.endpoint) -
           json_int_or(json_get(input, S("labels_base")), 0);
    if (have < want && now - asked < patience) {
        int64_t poll = CLAMP((now - asked) / 20, POLL_MIN_NS, POLL_MAX_NS);

        return flow_sleep_until(ctx, MIN(now + poll, asked + patience), "labels");
    }
    found = json_new_object(r.a);
    json_set_int(r.a, found, S("labels"), have);
    json_set_int(r.a, found, S("wanted"), want);
    if (have < want)
        return skip_early(&r,
                          arena_printf(r.a, "%lld of %lld labels came in " STR_F, (long long)have,
                                       (long long)want, STR_A(time_duration_text(r.a, patience))),
                          found, e);
    return step_done(&r, "labels", asked, found, e);
}

static int step_seal(struct flow_ctx *ctx, struct err *e)
{
    struct run r;

    TRY(run_open(ctx, &r, e));
    r.env->ports.seal(r.env->ports.ctx);
    return flow_sleep_until(ctx, time_wall_ns() + SEAL_WAIT_NS, "snapshot");
}

/* --- Snapshot and training -------------------------------------------------------------------- */

static int step_snapshot(struct flow_ctx *ctx, struct err *e)
{
    int64_t start = time_wall_ns(), rows_min;
    struct snapshot s;
    struct json *found;
    struct run r;

    TRY(run_open(ctx, &r, e));
    TRY(snapshot_make(&r, &s, e));
    rows_min = json_int_or(json_path(r.model, "retrain.rows_min"), 10000);
    found = json_new_object(r.a);
    json_set_str(r.a, found, S("snapshot"), arena_dup(r.a, str_of(s.hash)));
    json_set_int(r.a, found, S("train_rows"), s.train_rows);
    json_set_int(r.a, found, S("holdout_rows"), s.holdout_rows);
    json_set_int(r.a, found, S("reference_rows"), s.reference_rows);
    json_set_int(r.a, found, S("record_rows"), s.record_rows);
    if (s.train_rows < rows_min)
        return skip(&r, FACT_RETRAIN_SKIPPED,
                    arena_printf(r.a, "%lld labelled rows to train on: retrain.min_rows wants %lld",
                                 (long long)s.train_rows, (long long)rows_min),
                    found, e);
    if (s.holdout_rows < 1)
        return skip(&r, FACT_RETRAIN_SKIPPED,
                    r.changed_ns ? S("no labelled row since the change: nothing to judge by")
                                 : S("no labelled row could be held out: nothing to judge by"),
                    found, e);
    return step_done(&r, "snapshot", start, found, e);
}

/* A trainer failed. Again, later, if the project grants it another attempt. */
static NODISCARD int train_failed(struct run *r, int64_t start, const struct err *why,
                                  struct err *e)
{
    const struct json *trainer = run_trainer(r);
    int64_t retries = json_int_or(json_get(trainer, S("retries")), 2);
    int64_t delay = json_int_or(json_get(trainer, S("retry_delay_ns")), 600 * NS_PER_S);
    struct json *before, *found = json_new_object(r->a);
    int64_t failed;

    TRY(flow_output_of(r->ctx, "train", &before, e));
    failed = json_int_or(json_get(before, S("failed")), 0) + 1;
    if (failed > retries) {
        if (e)
            *e = *why;
        return failed > 1 ? err_context(e, "after %lld attempts", (long long)failed)
                          : (int)why->code;
    }
    json_set_int(r->a, found, S("failed"), failed);
    json_set_int(r->a, found, S("retries"), retries);
    json_set_int(r->a, found, S("again_ns"), time_wall_ns() + delay);
    json_set_str(r->a, found, S("error"), arena_dup(r->a, str_of(why->msg)));
    TRY(step_done(r, "train", start, found, e));
    return flow_sleep_until(r->ctx, time_wall_ns() + delay, "train");
}

static int step_train(struct flow_ctx *ctx, struct err *e)
{
    int64_t start = time_wall_ns();
    struct json *found, *metrics;
    struct run r;
    struct err why;
    char *model;

    TRY(run_open(ctx, &r, e));
    if (trainer_run(&r, &model, &why)) {
        if (why.code == CODE_CANCELLED || why.code == CODE_ABORTED ||
            why.code == CODE_INVALID_ARGUMENT || !run_trainer(&r)) {
            *e = why;
            return (int)why.code;
        }
        return train_failed(&r, start, &why, e);
    }
    found = json_new_object(r.a);
    json_set_str(r.a, found, S("path"), str_of(model));
    metrics = trainer_metrics(&r);
    if (metrics)
        json_set(found, S("metrics"), metrics);
    return step_done(&r, "train", start, found, e);
}

/* --- Registering ------------------------------------------------------------------------------ */

static struct json *metadata_of(struct run *r)
{
    const struct json *trainer = run_trainer(r);
    struct json *o = json_new_object(r->a);

    json_set_str(r->a, o, S("algorithm"), json_str_or(json_get(trainer, S("kind")), S("")));
    json_set(o, S("hyperparameters"), json_copy(r->a, trainer));
    return o;
}

static int step_register(struct flow_ctx *ctx, struct err *e)
{
    struct json *trained, *input, *training, *data, *pipeline;
    struct flow_started started;
    struct meta *m;
    struct run r;

    TRY(run_open(ctx, &r, e));
    TRY(flow_output_of(ctx, "train", &trained, e));
    TRY(flow_output_of(ctx, "snapshot", &data, e));
    input = json_new_object(r.a);
    json_set_str(r.a, input, S("model"), r.model_name);
    json_set_str(r.a, input, S("path"), json_str_or(json_get(trained, S("path")), S("")));
    json_set_str(r.a, input, S("actor"), S("weir"));
    json_set_str(r.a, input, S("reason"),
                 json_str_or(json_get(flow_input(ctx), S("reason")), S("")));
    json_set_str(r.a, input, S("reference"), str_of(run_path(&r, "reference.parquet")));
    json_set_str(r.a, input, S("holdout"), str_of(run_path(&r, "holdout.parquet")));
    json_set_bool(r.a, input, S("promote"), false);
    json_set_bool(r.a, input, S("promote_first"), false); /* the gate comes first */
    if (json_get(trained, S("metrics")))
        json_set(input, S("metrics"), json_copy(r.a, json_get(trained, S("metrics"))));
    TRY(trainer_pipeline(&r, &pipeline, e));
    if (pipeline)
        json_set(input, S("pipeline"), pipeline);
    json_set(input, S("metadata"), metadata_of(&r));
    training = json_set(input, S("training"), json_new_object(r.a));
    json_set_str(r.a, training, S("flow"), flow_id(ctx));
    if (data)
        json_set(training, S("snapshot"), json_copy(r.a, data));
    TRY(flow_tx(ctx, &m, e));
    TRY(flow_start(m,
                   &(struct flow_start){.type = "register",
                                        .input = input,
                                        .correlation = flow_correlation(ctx),
                                        .parent = flow_id(ctx)},
                   &started, e));
    input = json_new_object(r.a);
    json_set_str(r.a, input, S("child"), str_of(arena_dupz(r.a, str_of(started.id))));
    json_set_int(r.a, input, S("started_ns"), time_wall_ns());
    flow_output(ctx, input);
    return flow_wait(ctx, arena_printf(r.a, "child.%s", started.id).p, INT64_MAX, "registered");
}

static int step_registered(struct flow_ctx *ctx, struct err *e)
{
    struct json *asked, *ended, *found;
    struct run r;
    str child, state;

    TRY(run_open(ctx, &r, e));
    TRY(flow_output_of(ctx, "register", &asked, e));
    TRY(json_need_str(asked, S("child"), &child, e));
    TRY(flow_event_of(ctx, arena_printf(r.a, "child." STR_F, STR_A(child)).p, &ended, e));
    if (!ended)
        return flow_wait(ctx, arena_printf(r.a, "child." STR_F, STR_A(child)).p, INT64_MAX,
                         "registered");
    state = json_str_or(json_get(ended, S("state")), S(""));
    if (!str_eq(state, S("done")))
        return FAIL(e, FAILED_PRECONDITION, "the new model was refused: " STR_F,
                    STR_A(json_str_or(json_get(ended, S("error")), state)));
    found = json_new_object(r.a);
    json_set_int(r.a, found, S("version"), json_int_or(json_path(ended, "result.version"), 0));
    return step_done(&r, "register", json_int_or(json_get(asked, S("started_ns")), time_wall_ns()),
                     found, e);
}

/* --- Gate ------------------------------------------------------------------------------------- */

/* Against each version that answers on the endpoint, until one is not beaten. */
static NODISCARD int gate_all(struct run *r, int64_t candidate, struct json **ret_report,
                              struct err *e)
{
    struct meta *m = flow_meta(r->ctx);
    struct json *report = NULL;
    struct live live;
    size_t i = 0;

    TRY(live_versions(m, r->project, r->endpoint, r->model_name, &live, e));
    do {
        int64_t champion = live.n ? live.versions[i] : 0; /* 0: only absolute gates count */

        TRY(r->env->ports.gate(r->env->ports.ctx, m, r->project, r->model_name, candidate, champion,
                               run_path(r, "holdout.parquet"), r->dir.p, r->a, &report, e));
        json_set_int(r->a, report, S("champion_version"), champion);
    } while (++i < live.n &&
             str_eq(json_str_or(json_get(report, S("verdict")), S("REJECT")), S("DEPLOY")));
    *ret_report = report;
    return 0;
}

static int step_gate(struct flow_ctx *ctx, struct err *e)
{
    int64_t start = time_wall_ns(), candidate;
    struct json *registered, *report;
    struct meta *m;
    struct run r;
    str verdict;

    TRY(run_open(ctx, &r, e));
    TRY(flow_output_of(ctx, "registered", &registered, e));
    candidate = json_int_or(json_get(registered, S("version")), 0);
    TRY(snapshot_verify(&r, SNAPSHOT_HOLDOUT, e));
    TRY(gate_all(&r, candidate, &report, e));
    json_set_int(r.a, report, S("version"), candidate);
    verdict = json_str_or(json_get(report, S("verdict")), S("REJECT"));
    TRY(flow_tx(ctx, &m, e));
    TRY(run_fact(&r, m, FACT_GATE_EVALUATED, json_str_or(json_get(report, S("reason")), verdict),
                 report, e));
    if (!str_eq(verdict, S("DEPLOY"))) {
        json_set_str(r.a, report, S("urgency"), S("ticket"));
        return skip(&r, FACT_RETRAIN_REJECTED,
                    json_str_or(json_get(report, S("reason")), S("the gate did not pass")), report,
                    e);
    }
    return step_done(&r, "gate", start, report, e);
}

/* --- Rollout ---------------------------------------------------------------------------------- */

/* Control starts rollouts: it is asked by a row, in the transaction of this checkpoint. */
static int step_rollout(struct flow_ctx *ctx, struct err *e)
{
    struct json *registered, *wanted;
    struct meta *m;
    struct run r;

    TRY(run_open(ctx, &r, e));
    TRY(flow_output_of(ctx, "registered", &registered, e));
    wanted = json_new_object(r.a);
    json_set_str(r.a, wanted, S("endpoint"), r.endpoint);
    json_set_str(r.a, wanted, S("model"), r.model_name);
    json_set_int(r.a, wanted, S("version"), json_int_or(json_get(registered, S("version")), 0));
    json_set_str(r.a, wanted, S("flow"), flow_id(ctx));
    json_set_str(r.a, wanted, S("correlation"), flow_correlation(ctx));
    json_set_str(r.a, wanted, S("reason"),
                 json_str_or(json_get(flow_input(ctx), S("reason")), S("")));
    TRY(flow_tx(ctx, &m, e));
    TRY(meta_kv_put(m, S("rollout.wanted"), flow_id(ctx), wanted, e));
    meta_touch(m, META_TOPIC_KV);
    return flow_wait(ctx, "rollout", INT64_MAX, "rolled");
}

static int step_rolled(struct flow_ctx *ctx, struct err *e)
{
    struct json *ended, *registered, *result;
    struct meta *m;
    struct run r;
    str how;

    TRY(run_open(ctx, &r, e));
    TRY(flow_event_of(ctx, "rollout", &ended, e));
    if (!ended)
        return flow_wait(ctx, "rollout", INT64_MAX, "rolled");
    TRY(flow_output_of(ctx, "registered", &registered, e));
    how = json_str_or(json_get(ended, S("result")), S("?"));
    result = json_new_object(r.a);
    json_set_str(r.a, result, S("result"), how);
    json_set_str(r.a, result, S("why"), json_str_or(json_get(ended, S("reason")), S("")));
    json_set_int(r.a, result, S("version"), json_int_or(json_get(registered, S("version")), 0));
    json_set_real(r.a, result, S("took_ms"),
                  (double)(time_wall_ns() -
                           json_int_or(json_get(flow_input(ctx), S("asked_ns")), time_wall_ns())) /
                      1e6);
    TRY(flow_tx(ctx, &m, e));
    flow_output(ctx, result);
    TRY(run_fact(&r, m, FACT_RETRAIN_FINISHED, how, result, e));
    return flow_finish(ctx);
}

/* Whoever ends a run takes its unmet wish for a rollout with it. A rollout under way is not the
 * run's any more: it has its own orders. */
static int on_end(struct flow_ctx *ctx, enum flow_state state, const struct err *cause,
                  struct err *e)
{
    str why = cause ? str_of(cause->msg) : S("cancelled");
    struct json *data;
    struct meta *m;
    struct err ignored;
    struct run r;

    if (!cause && state != FLOW_CANCELLED)
        return 0;
    TRY(flow_tx(ctx, &m, e));
    TRY(meta_kv_delete(m, S("rollout.wanted"), flow_id(ctx), e));
    if (run_open(ctx, &r, &ignored))
        return 0; /* the model is gone from the project: the flow's own error says enough */
    data = json_new_object(r.a);
    json_set_str(r.a, data, S("error"), why);
    json_set_str(r.a, data, S("state"), str_of(flow_state_name(state)));
    json_set_str(r.a, data, S("urgency"), S("ticket"));
    return run_fact(&r, m, FACT_RETRAIN_FAILED, why, data, e);
}

static const struct flow_step steps[] = {
    {.name = "triage", .fn = step_triage},
    {.name = "review", .fn = step_review},
    {.name = "labels", .fn = step_labels},
    {.name = "seal", .fn = step_seal},
    {.name = "snapshot",
     .fn = step_snapshot,
     .timeout_ns = 600 * NS_PER_S,
     .retry = {.max_attempts = 20,
               .first_delay_ns = 200 * NS_PER_MS,
               .max_delay_ns = 5 * NS_PER_S}},
    {.name = "train",
     .fn = step_train,
     .timeout_ns = 60 * NS_PER_S,
     .retry = {.max_attempts = 3, .first_delay_ns = NS_PER_S}},
    {.name = "register", .fn = step_register},
    {.name = "registered", .fn = step_registered},
    {.name = "gate", .fn = step_gate, .timeout_ns = 600 * NS_PER_S},
    {.name = "rollout", .fn = step_rollout},
    {.name = "rolled", .fn = step_rolled},
};

static const struct flow_type type = {
    .name = "retrain", .steps = steps, .step_count = ARRAY_LEN(steps), .on_end = on_end};

const struct flow_type *retrain_flow(void)
{
    return &type;
}
