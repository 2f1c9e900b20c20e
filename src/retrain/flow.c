/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The retrain flow.
 *
 *   triage -> review -> labels -> seal -> snapshot -> train -> register -> registered -> gate ->
 * rollout
 *     -> rolled -> done
 *
 * Each step writes retrain.step with what it found and how long it took. The run ends as
 *   skipped    triage: upstream is broken, or it has passed; or too few labels came in time
 *   rejected   the gate: the candidate stays in the registry with the gate's table
 *   done       promoted, or taken back by its rollout (the result says which)
 *   failed     a step gave up; the champion was never touched
 */
#include "retrain/priv.h"

#include <stdio.h>

#define POLL_NS (200 * NS_PER_MS)
#define SEAL_WAIT_NS (300 * NS_PER_MS)

/* Broken upstream rather than a changed world: a feature that is suddenly mostly missing. */
#define NULL_SPIKE 0.3
#define DEPLOY_BLAME_NS (60 * NS_PER_S)

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

/* --- Triage ----------------------------------------------------------------------------------- */

/* The feature that points to a broken upstream, or STR_NULL. */
static str broken_feature(const struct json *cause)
{
    const struct json *features = json_get(cause, S("features"));

    if (json_is_container(features))
        JSON_EACH (f, features)
            if (json_bool_or(json_get(f, S("selected")), false) &&
                json_real_or(json_get(f, S("missing_delta")), 0) > NULL_SPIKE)
                return json_str_or(json_get(f, S("feature")), S("?"));
    return STR_NULL;
}

static NODISCARD int recent_deploys(struct run *r, int64_t *ret_n, struct err *e)
{
    int64_t at = r->changed_ns ? r->changed_ns : time_wall_ns();

    return meta_first_int(
        flow_meta(r->ctx),
        "SELECT COUNT(*) FROM journal WHERE at_ns >= ? AND at_ns <= ? AND subject = ?"
        " AND type IN ('rollout.promoted', 'rollout.step.advanced')",
        M_ARGS(M_INT(at - DEPLOY_BLAME_NS), M_INT(at),
               M_STR(arena_printf(r->a, "endpoint/" STR_F, STR_A(r->endpoint)))),
        0, ret_n, e);
}

static NODISCARD int triage_verdict(struct run *r, const struct json *cause, struct json *found,
                                    str *ret_verdict, str *ret_why, struct err *e)
{
    str broken = broken_feature(cause);
    int64_t deploys;
    int drifting = r->env->ports.drifting(r->env->ports.ctx, r->endpoint);

    TRY(recent_deploys(r, &deploys, e));
    json_set_int(r->a, found, S("recent_deploys"), deploys);
    json_set_int(r->a, found, S("still_drifting"), drifting);
    if (broken.p) {
        *ret_verdict = S("upstream_fault");
        *ret_why = arena_printf(r->a,
                                "'" STR_F "' is mostly missing now: mend its source; a model "
                                "trained on this would learn the fault",
                                STR_A(broken));
    } else if (drifting == 0) {
        *ret_verdict = S("transient");
        *ret_why = S("the drift was over before the run began");
    } else {
        *ret_verdict = S("real");
        *ret_why = deploys
                       ? S("the traffic changed; a recent deploy of this endpoint is worth a look")
                       : S("the traffic changed and upstream looks sound");
    }
    return 0;
}

static int step_triage(struct flow_ctx *ctx, struct err *e)
{
    int64_t start = time_wall_ns();
    const struct json *cause = json_get(flow_input(ctx), S("cause"));
    str kind = json_str_or(json_get(flow_input(ctx), S("kind")), S("")), verdict, why;
    struct json *found;
    struct meta *m;
    struct run r;

    TRY(run_open(ctx, &r, e));
    found = json_new_object(r.a);
    if (str_eq(kind, S("drift")) || str_eq(kind, S("performance"))) {
        TRY(triage_verdict(&r, cause, found, &verdict, &why, e));
    } else {
        verdict = S("real");
        why = json_str_or(json_get(flow_input(ctx), S("reason")), S("asked for"));
    }
    json_set_str(r.a, found, S("verdict"), verdict);
    json_set_str(r.a, found, S("why"), why);
    TRY(flow_tx(ctx, &m, e));
    TRY(run_fact(&r, m, FACT_RETRAIN_STARTED,
                 json_str_or(json_get(flow_input(ctx), S("reason")), S("")), NULL, e));
    TRY(run_fact(&r, m, FACT_TRIAGE_FINISHED, why, found, e));
    if (!str_eq(verdict, S("real")))
        return skip(&r, FACT_RETRAIN_SKIPPED, why, found, e);
    return step_done(&r, "triage", start, found, e);
}

/* Policy "review": a person must say go. */
static int step_review(struct flow_ctx *ctx, struct err *e)
{
    struct json *approval;

    if (!json_bool_or(json_get(flow_input(ctx), S("review")), false))
        return 0;
    TRY(flow_event_of(ctx, "approve", &approval, e));
    return approval ? 0 : flow_wait(ctx, "approve", INT64_MAX, "review");
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
    have = r.env->ports.labels_since(r.env->ports.ctx, r.endpoint,
                                     r.changed_ns ? r.changed_ns : asked);
    if (have < want && now - asked < patience)
        return flow_sleep_until(ctx, now + POLL_NS, "labels");
    if (have < want)
        return skip(&r, FACT_RETRAIN_SKIPPED,
                    arena_printf(r.a, "%lld of %lld labels came in " STR_F, (long long)have,
                                 (long long)want, STR_A(time_duration_text(r.a, patience))),
                    NULL, e);
    found = json_new_object(r.a);
    json_set_int(r.a, found, S("labels"), have);
    return step_done(&r, "labels", asked, found, e);
}

static int step_seal(struct flow_ctx *ctx, struct err *e)
{
    struct run r;

    TRY(run_open(ctx, &r, e));
    r.env->ports.seal(r.env->ports.ctx);
    return flow_sleep_until(ctx, time_wall_ns() + SEAL_WAIT_NS, "snapshot");
}

/* --- Snapshot and training ----------------------------------------------------------------------
 */

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
    json_set_int(r.a, found, S("train_rows"), s.train_rows);
    json_set_int(r.a, found, S("holdout_rows"), s.holdout_rows);
    json_set_int(r.a, found, S("reference_rows"), s.reference_rows);
    json_set_int(r.a, found, S("record_rows"), s.record_rows);
    if (s.train_rows < rows_min || s.holdout_rows < 1)
        return skip(&r, FACT_RETRAIN_SKIPPED,
                    arena_printf(r.a,
                                 "%lld rows to train on and %lld held out; retrain.min_rows wants "
                                 "%lld",
                                 (long long)s.train_rows, (long long)s.holdout_rows,
                                 (long long)rows_min),
                    found, e);
    return step_done(&r, "snapshot", start, found, e);
}

static int step_train(struct flow_ctx *ctx, struct err *e)
{
    int64_t start = time_wall_ns();
    struct json *found;
    struct run r;
    char *model;

    TRY(run_open(ctx, &r, e));
    TRY(trainer_run(&r, &model, e));
    found = json_new_object(r.a);
    json_set_str(r.a, found, S("path"), str_of(model));
    return step_done(&r, "train", start, found, e);
}

/* --- Registering ------------------------------------------------------------------------------ */

static int step_register(struct flow_ctx *ctx, struct err *e)
{
    struct json *trained, *input, *training, *data;
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

static NODISCARD int champion_of(struct run *r, int64_t *ret_version, struct err *e)
{
    return meta_first_int(flow_meta(r->ctx),
                          "SELECT version FROM aliases WHERE model = ? AND alias = ?",
                          M_ARGS(M_STR(r->model_name), M_STR(S("champion"))), 0, ret_version, e);
}

static int step_gate(struct flow_ctx *ctx, struct err *e)
{
    int64_t start = time_wall_ns(), candidate, champion;
    struct json *registered, *report;
    struct meta *m;
    struct run r;
    str verdict;

    TRY(run_open(ctx, &r, e));
    TRY(flow_output_of(ctx, "registered", &registered, e));
    candidate = json_int_or(json_get(registered, S("version")), 0);
    TRY(champion_of(&r, &champion, e));
    TRY(r.env->ports.gate(r.env->ports.ctx, flow_meta(ctx), r.project, r.model_name, candidate,
                          champion, run_path(&r, "holdout.parquet"), r.dir.p, r.a, &report, e));
    json_set_int(r.a, report, S("version"), candidate);
    json_set_int(r.a, report, S("champion_version"), champion);
    verdict = json_str_or(json_get(report, S("verdict")), S("REJECT"));
    TRY(flow_tx(ctx, &m, e));
    TRY(run_fact(&r, m, FACT_GATE_EVALUATED, json_str_or(json_get(report, S("reason")), verdict),
                 report, e));
    if (!str_eq(verdict, S("DEPLOY")))
        return skip(&r, FACT_RETRAIN_REJECTED,
                    json_str_or(json_get(report, S("reason")), S("the gate did not pass")), report,
                    e);
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

static int on_end(struct flow_ctx *ctx, enum flow_state state, const struct err *cause,
                  struct err *e)
{
    struct json *data;
    struct meta *m;
    struct run r;

    if (!cause)
        return 0;
    if (run_open(ctx, &r, e))
        return 0; /* the model is gone from the project: the flow's own error says enough */
    TRY(flow_tx(ctx, &m, e));
    data = json_new_object(r.a);
    json_set_str(r.a, data, S("error"), str_of(cause->msg));
    json_set_str(r.a, data, S("state"), str_of(flow_state_name(state)));
    return run_fact(&r, m, FACT_RETRAIN_FAILED, str_of(cause->msg), data, e);
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
     .retry = {.max_attempts = 3, .first_delay_ns = 600 * NS_PER_S}},
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
