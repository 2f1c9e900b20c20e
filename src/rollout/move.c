/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The moves of a rollout. Each is one transaction: the new state, the aliases, the fact, and the
 * event for a flow that waits. The plan compiler hears of it by the fact.
 */
#include "rollout/priv.h"

#include "flow/flow.h"
#include "journal/alias.h"

#include <stdio.h>

int rollout_fact(struct rollout *ro, struct meta *m, enum fact_type type, str actor, str reason,
                 const struct json *extra, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct fact_new fact = {.type = type, .actor = actor, .reason = reason};
    struct json *data;

    arena_init(&a, 0);
    data = extra ? json_copy(&a, extra) : json_new_object(&a);
    json_set_str(&a, data, S("rollout"), str_of(ro->id));
    json_set_str(&a, data, S("endpoint"), ro->endpoint);
    json_set_str(&a, data, S("model"), ro->model);
    json_set_int(&a, data, S("version"), ro->version);
    json_set_int(&a, data, S("previous"), ro->previous);
    json_set_str(&a, data, S("state"), str_of(rollout_state_name(ro->state)));
    json_set_int(&a, data, S("step"), ro->step);
    json_set_int(&a, data, S("steps"), ro->cfg.step_count);
    json_set_real(&a, data, S("weight"), rollout_weight_bp(ro) / 10000.0);
    fact.subject = arena_printf(&a, "endpoint/" STR_F, STR_A(ro->endpoint));
    fact.correlation = ro->correlation;
    fact.data = data;
    return journal_append(m, &fact, NULL, e);
}

/* --- Aliases ---------------------------------------------------------------------------------- */

/* Moves an alias, or removes it (version 0). */
static NODISCARD int point(struct rollout *ro, struct meta *m, str alias, int64_t version,
                           str actor, str reason, struct err *e)
{
    return alias_move(m,
                      &(struct alias_move){.model = ro->model,
                                           .alias = alias,
                                           .version = version,
                                           .actor = actor,
                                           .reason = reason,
                                           .correlation = ro->correlation},
                      NULL, e);
}

/* Takes an alias from the version of this rollout; one that names another version is not ours. */
static NODISCARD int alias_release(struct rollout *ro, struct meta *m, str alias, str actor,
                                   str reason, struct err *e)
{
    int64_t now;

    TRY(alias_get(m, ro->model, alias, &now, e));
    return now == ro->version ? point(ro, m, alias, 0, actor, reason, e) : 0;
}

/* The alias that shows where the version stands. A shadow alias that someone set stays theirs: the
 * plan knows the rollout's shadow by the state. */
static NODISCARD int alias_show(struct rollout *ro, struct meta *m, struct err *e)
{
    const str actor = S("weir"), reason = S("rollout");
    int64_t now;

    if (!rollout_is_shadow(ro)) {
        TRY(alias_release(ro, m, S("shadow"), actor, reason, e));
        return point(ro, m, S("challenger"), ro->version, actor, reason, e);
    }
    TRY(alias_get(m, ro->model, S("shadow"), &now, e));
    return now ? 0 : point(ro, m, S("shadow"), ro->version, actor, reason, e);
}

/* --- Moves ------------------------------------------------------------------------------------ */

static NODISCARD int enter_in_tx(struct rollout *ro, struct meta *m, struct err *e)
{
    AUTO(arena_done) struct arena a;
    str what;

    arena_init(&a, 0);
    what = rollout_is_shadow(ro)
               ? S("answers unseen")
               : arena_printf(&a, "%g%% of requests", rollout_weight_bp(ro) / 100.0);
    TRY(rollout_save(ro, m, e));
    TRY(rollout_evidence_begin(ro, m, e));
    TRY(alias_show(ro, m, e));
    return rollout_fact(ro, m, FACT_ROLLOUT_STEP_ADVANCED, S("weir"), what, NULL, e);
}

int rollout_enter(struct rollout *ro, struct meta *m, enum rollout_state state, uint32_t step,
                  int64_t wall_ns, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    const enum rollout_state old_state = ro->state;
    const uint32_t old_step = ro->step;
    const int64_t old_ns = ro->step_started_ns;
    const bool old_told = ro->told_inconclusive;
    int rc;

    TRY(meta_begin(m, &tx, e));
    ro->state = state;
    ro->step = step;
    ro->step_started_ns = wall_ns;
    ro->told_inconclusive = false;
    rc = enter_in_tx(ro, m, e);
    if (!rc)
        rc = meta_commit(&tx, e);
    if (rc) {
        ro->state = old_state;
        ro->step = old_step;
        ro->step_started_ns = old_ns;
        ro->told_inconclusive = old_told;
        return rc;
    }
    rollout_forget(ro);
    return 0;
}

static NODISCARD int tell_flow(struct rollout *ro, struct meta *m, const char *result, str reason,
                               struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *payload;
    int rc;

    if (!ro->flow.n)
        return 0;
    arena_init(&a, 0);
    payload = json_new_object(&a);
    json_set_str(&a, payload, S("result"), str_of(result));
    json_set_str(&a, payload, S("reason"), reason);
    json_set_str(&a, payload, S("rollout"), str_of(ro->id));
    json_set_int(&a, payload, S("version"), ro->version);
    rc = flow_event(m, ro->flow, S("rollout"), payload, NULL, e);
    /* A flow that has ended, or was pruned, waits for nothing. */
    return rc == CODE_NOT_FOUND || rc == CODE_FAILED_PRECONDITION ? 0 : rc;
}

/* The way back is to whatever answers now, which a person may have moved since the start. */
static NODISCARD int note_previous(struct rollout *ro, struct meta *m, struct err *e)
{
    int64_t now;

    TRY(alias_get(m, ro->model, ro->alias, &now, e));
    if (now && now != ro->version) {
        ro->previous = now;
        snprintf(ro->previous_text, sizeof(ro->previous_text), "%lld", (long long)now);
    }
    return 0;
}

static NODISCARD int promote_in_tx(struct rollout *ro, struct meta *m, str actor, str reason,
                                   struct err *e)
{
    TRY(note_previous(ro, m, e));
    TRY(point(ro, m, ro->alias, ro->version, actor, reason, e));
    TRY(alias_release(ro, m, S("challenger"), actor, reason, e));
    TRY(alias_release(ro, m, S("shadow"), actor, reason, e));
    TRY(rollout_save(ro, m, e));
    TRY(rollout_evidence_begin(ro, m, e));
    TRY(rollout_fact(ro, m, FACT_ROLLOUT_PROMOTED, actor, reason, NULL, e));
    return tell_flow(ro, m, "promoted", reason, e);
}

int rollout_promote(struct rollout *ro, struct meta *m, int64_t wall_ns, str actor, str reason,
                    struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    const enum rollout_state old_state = ro->state;
    const int64_t old_ns = ro->step_started_ns;
    const bool old_paused = ro->paused;
    int rc;

    TRY(meta_begin(m, &tx, e));
    ro->state = ROLLOUT_BAKING;
    ro->step_started_ns = ro->promoted_ns = wall_ns;
    ro->paused = false;
    rc = promote_in_tx(ro, m, actor, reason, e);
    if (!rc)
        rc = meta_commit(&tx, e);
    if (rc) {
        ro->state = old_state;
        ro->step_started_ns = old_ns;
        ro->paused = old_paused;
        ro->promoted_ns = 0;
        return rc;
    }
    rollout_forget(ro);
    return 0;
}

/* What the flow is told: it heard of a promotion already, and of one end only. */
static const char *result_of(enum fact_type type)
{
    return type == FACT_ROLLOUT_ROLLED_BACK ? "rolled_back"
           : type == FACT_ROLLOUT_ABORTED   ? "aborted"
                                            : "superseded";
}

static NODISCARD int end_in_tx(struct rollout *ro, struct meta *m, enum fact_type type, str actor,
                               str reason, struct err *e)
{
    AUTO(arena_done) struct arena a;
    bool back = type == FACT_ROLLOUT_ROLLED_BACK || type == FACT_ROLLOUT_ABORTED;
    bool baking = ro->state == ROLLOUT_BAKING;
    int64_t champion;
    struct json *data;

    arena_init(&a, 0);
    TRY(alias_get(m, ro->model, ro->alias, &champion, e));
    if (back && baking && champion == ro->version) { /* else someone moved it on already */
        TRY(point(ro, m, ro->alias, ro->previous, actor, reason, e));
        champion = ro->previous;
    }
    TRY(alias_release(ro, m, S("challenger"), actor, reason, e));
    TRY(alias_release(ro, m, S("shadow"), actor, reason, e));
    TRY(meta_kv_delete(m, S("rollout"), ro->endpoint, e));
    TRY(rollout_evidence_drop(ro, m, e));
    data = judgement_json(&ro->last, &ro->ev, &a);
    json_set_int(&a, data, S("to"), champion);
    TRY(rollout_fact(ro, m, type, actor, reason, data, e));
    return baking ? 0 : tell_flow(ro, m, result_of(type), reason, e);
}

int rollout_end(struct rollout *ro, struct meta *m, enum fact_type type, str actor, str reason,
                struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    TRY(meta_begin(m, &tx, e));
    TRY(end_in_tx(ro, m, type, actor, reason, e));
    return meta_commit(&tx, e);
}
