/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows from facts. The journal is read from a durable cursor; the effects of a fact on the
 * meta store commit with the cursor, so each takes effect once, also across a crash.
 *
 * Order of effects: the project is loaded before the plan is compiled, triggers see the project
 * that the fact found, and one compilation serves all the facts of a turn.
 */
#include "base/log.h"
#include "base/time.h"
#include "journal/alias.h"
#include "project/project.h"
#include "server/compile.h"
#include "server/control.h"

#define CURSOR S("control")
#define FACTS_PER_READ 256

/* Facts after which the plan may be another one. */
static bool touches_plan(str type)
{
    return str_eq(type, S("project.applied")) || str_eq(type, S("alias.moved")) ||
           str_starts(type, S("rollout.")) || str_starts(type, S("key.")) ||
           str_starts(type, S("jwks.")) || str_eq(type, S("breaker.forced"));
}

int control_load_project(struct control *c, struct err *e)
{
    struct json *applied;
    struct arena fresh;
    int rc;

    arena_init(&fresh, 0);
    rc = meta_kv_get(c->meta, S("project"), S("applied"), &fresh, &applied, e);
    if (rc || !applied) {
        arena_done(&fresh);
        return rc;
    }
    arena_done(&c->project_arena);
    c->project_arena = fresh;
    c->project = json_get(applied, S("tree"));
    return watch_configure(c->watch, c->project, e);
}

static NODISCARD int take_effect(struct control *c, const struct fact *f, struct err *e)
{
    if (str_eq(f->type, S("project.applied")))
        TRY(control_load_project(c, e));
    if (touches_plan(f->type)) {
        c->plan_stale = true;
        if (!str_to_z(f->correlation, c->plan_story, sizeof(c->plan_story)))
            c->plan_story[0] = '\0';
    }
    return c->project && retrain_wants_fact(f->type)
               ? retrain_on_fact(&c->retrain, c->meta, c->project, f, e)
               : 0;
}

static NODISCARD int one_fact(struct control *c, const struct fact *f, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    TRY(meta_begin(c->meta, &tx, e));
    TRY(take_effect(c, f, e));
    TRY(journal_cursor_save(c->meta, CURSOR, f->seq, e));
    return meta_commit(&tx, e);
}

/* Facts that write nothing need no transaction: the cursor passes them in one step. */
static NODISCARD int facts_of_turn(struct control *c, const struct fact *facts, size_t n,
                                   struct err *e)
{
    bool saved = true;

    for (size_t i = 0; i < n; i++) {
        struct err why;
        int rc = 0;

        saved = retrain_wants_fact(facts[i].type);
        if (saved)
            rc = one_fact(c, &facts[i], &why);
        else
            rc = take_effect(c, &facts[i], &why);
        if (!rc)
            continue;
        if (flow_code_is_retryable(
                why.code)) { /* the store, not the fact: again at the next tick */
            *e = why;
            return rc;
        }
        /* A fact without effect is better than a control that stands still. */
        log_err("fact.failed", &why);
        saved = false;
    }
    return n && !saved ? journal_cursor_save(c->meta, CURSOR, facts[n - 1].seq, e) : 0;
}

int control_follow(struct control *c, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    size_t n = FACTS_PER_READ;

    arena_init(&a, 0);
    while (n == FACTS_PER_READ) {
        struct fact *facts;
        int64_t seq;

        TRY(journal_cursor_load(c->meta, CURSOR, &seq, e));
        TRY(journal_read(c->meta,
                         &(struct journal_query){.after_seq = seq, .limit = FACTS_PER_READ}, &a,
                         &facts, &n, e));
        TRY(facts_of_turn(c, facts, n, e));
        arena_reset(&a);
    }
    return 0;
}

/* --- The plan --------------------------------------------------------------------------------- */

static NODISCARD int plan_fact(struct control *c, const char *hash, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *data;

    arena_init(&a, 0);
    data = json_new_object(&a);
    json_set_str(&a, data, S("plan"), str_of(hash));
    json_set_str(&a, data, S("previous"), str_of(c->plan));
    return journal_append(c->meta,
                          &(struct fact_new){.type = FACT_PLAN_COMPILED,
                                             .subject = S("plan"),
                                             .actor = S("weir"),
                                             .correlation = str_of(c->plan_story),
                                             .data = data},
                          NULL, e);
}

int control_compile(struct control *c, struct err *e)
{
    char hash[PLAN_HASH_SIZE];
    int rc;

    if (!c->plan_stale || !c->project)
        return 0;
    rc = compile_plan(&(struct access_env){c->options->state_dir, c->options->project_dir}, c->meta,
                      c->blobs, hash, e);
    if (!rc)
        rc = plan_current_write(c->options->state_dir, str_of(hash), e);
    /* What the store or the disk refused may pass at the next tick; what is wrong with the project
     * or a version stays wrong until a fact changes it, and the last good plan stands. */
    c->plan_stale = rc && flow_code_is_retryable((enum code)rc);
    if (rc)
        return rc;
    if (strcmp(hash, c->gateways.plan) != 0)
        gateways_set_plan(&c->gateways,
                          str_of(hash)); /* first the traffic, then the record of it */
    if (strcmp(hash, c->plan) == 0)
        return 0;
    rc = plan_fact(c, hash, e);
    memcpy(c->plan, hash, sizeof(hash));
    memcpy(c->plan_told, c->plan_story, sizeof(c->plan_told));
    return rc;
}

/* --- Rollouts that flows asked for ------------------------------------------------------------ */

static NODISCARD int tell(struct control *c, str flow, const char *result, str reason,
                          struct arena *a, struct err *e)
{
    struct json *payload = json_new_object(a);
    int rc;

    json_set_str(a, payload, S("result"), str_of(result));
    json_set_str(a, payload, S("reason"), reason);
    rc = flow_event(c->meta, flow, S("rollout"), payload, NULL, e);
    return rc == CODE_NOT_FOUND || rc == CODE_FAILED_PRECONDITION ? 0 : rc;
}

static NODISCARD int signature_of(struct control *c, str model, int64_t version, struct arena *a,
                                  struct json **ret, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *meta;

    TRY(meta_first(c->meta, "SELECT meta FROM model_versions WHERE model = ? AND version = ?",
                   M_ARGS(M_STR(model), M_INT(version)), &rows, e));
    if (!rows)
        return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version %lld", STR_A(model),
                    (long long)version);
    TRY(json_parse(meta_str_dup(rows, 0, a), a, &meta, e));
    *ret = json_get(meta, S("signature"));
    return 0;
}

/* Requests are read before they are routed, so both versions must read the same. */
static NODISCARD int fits_beside(struct control *c, str model, int64_t champion, int64_t version,
                                 struct arena *a, bool *ret, struct err *e)
{
    struct json *old, *new;

    TRY(signature_of(c, model, champion, a, &old, e));
    TRY(signature_of(c, model, version, a, &new, e));
    *ret = json_equal(json_get(old, S("inputs")), json_get(new, S("inputs"))) &&
           json_equal(json_get(old, S("outputs")), json_get(new, S("outputs")));
    return 0;
}

/* A version that only people may bring in waits under the alias "candidate", unless that is what
 * the endpoint serves. */
static NODISCARD int leave_to_people(struct control *c, const struct alias_move *mv, str flow,
                                     const char *why, struct arena *a, struct err *e)
{
    struct alias_move candidate = *mv;

    candidate.alias = S("candidate");
    if (!str_eq(mv->alias, candidate.alias))
        TRY(alias_move(c->meta, &candidate, NULL, e));
    return tell(c, flow, "candidate", str_of(why), a, e);
}

static NODISCARD int start_one(struct control *c, const struct json *w, str flow, struct arena *a,
                               struct err *e)
{
    str endpoint = json_str_or(json_get(w, S("endpoint")), S(""));
    const struct json *ep = json_get(json_get(c->project, S("endpoints")), endpoint);
    const struct json *split = json_get(ep, S("versions"));
    struct alias_move mv = {.model = json_str_or(json_get(w, S("model")), S("")),
                            .alias = json_str_or(json_get(ep, S("alias")), S("champion")),
                            .version = json_int_or(json_get(w, S("version")), 0),
                            .actor = S("weir"),
                            .reason = json_str_or(json_get(w, S("reason")), S("")),
                            .correlation = json_str_or(json_get(w, S("correlation")), S(""))};
    int64_t champion;
    char id[64];
    bool fits;
    str how;

    if (json_is_container(split) && split->count)
        return leave_to_people(c, &mv, flow,
                               "its endpoint answers by a fixed split (versions): give it a share "
                               "there and apply",
                               a, e);
    TRY(alias_get(c->meta, mv.model, mv.alias, &champion, e));
    if (!champion) {
        TRY(alias_move(c->meta, &mv, NULL, e));
        return tell(c, flow, "promoted", arena_printf(a, "the first " STR_F, STR_A(mv.alias)), a,
                    e);
    }
    if (!ep)
        return leave_to_people(c, &mv, flow, "no endpoint serves this model", a, e);
    if (champion == mv.version)
        return tell(c, flow, "promoted",
                    arena_printf(a, "it is the " STR_F " already", STR_A(mv.alias)), a, e);
    TRY(fits_beside(c, mv.model, champion, mv.version, a, &fits, e));
    if (!fits)
        return leave_to_people(c, &mv, flow,
                               "its inputs or outputs are not those of the champion: no traffic "
                               "can be shared; promote it directly when the callers are ready",
                               a, e);
    how = json_str_or(json_get(ep, S("rollout")), S(""));
    return rollout_start(
        c->rollouts, c->meta,
        &(struct rollout_start){.endpoint = endpoint,
                                .model = mv.model,
                                .alias = mv.alias,
                                .version = mv.version,
                                .config = json_get(json_get(c->project, S("rollouts")), how),
                                .actor = mv.actor,
                                .reason = mv.reason,
                                .correlation = mv.correlation,
                                .flow = flow},
        id, e);
}

/* The wish and its answer change hands in one transaction: a flow is told once, and surely. */
static NODISCARD int refuse_one(struct control *c, str flow, const struct err *why, struct arena *a,
                                struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    log_err("rollout.refused", why);
    TRY(meta_begin(c->meta, &tx, e));
    TRY(meta_kv_delete(c->meta, S("rollout.wanted"), flow, e));
    TRY(tell(c, flow, "refused", str_of(why->msg), a, e));
    return meta_commit(&tx, e);
}

static NODISCARD int wanted_one(struct control *c, str flow, str value, struct arena *a,
                                struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct json *w;
    struct err why;

    TRY(json_parse(value, a, &w, e));
    TRY(meta_begin(c->meta, &tx, e));
    TRY(meta_kv_delete(c->meta, S("rollout.wanted"), flow, e));
    if (!start_one(c, w, flow, a, &why))
        return meta_commit(&tx, e);
    meta_tx_done(&tx);
    if (flow_code_is_retryable(why.code)) {
        *e = why;
        return (int)why.code;
    }
    return refuse_one(c, flow, &why, a, e);
}

int control_start_wanted(struct control *c, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct {
        str flow, value;
    } list[16];
    size_t n = 0;

    arena_init(&a, 0);
    if (!c->project)
        return 0;
    {
        AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
        int rc;

        TRY(meta_query(c->meta, "SELECT name, value FROM kv WHERE scope = ? LIMIT 16",
                       M_ARGS(M_STR(S("rollout.wanted"))), &rows, e));
        while (n < ARRAY_LEN(list) && meta_next(rows, &rc, e)) {
            list[n].flow = meta_str_dup(rows, 0, &a);
            list[n++].value = meta_str_dup(rows, 1, &a);
        }
        if (n < ARRAY_LEN(list))
            TRY(rc);
    }
    for (size_t i = 0; i < n; i++)
        TRY(wanted_one(c, list[i].flow, list[i].value, &a, e));
    return 0;
}

/* --- The first project ------------------------------------------------------------------------ */

int control_first_apply(struct control *c, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct project_result r;
    struct json *applied, *data;

    arena_init(&a, 0);
    TRY(meta_kv_get(c->meta, S("project"), S("applied"), &a, &applied, e));
    if (applied)
        return 0;
    if (project_load(c->options->project_dir, &a, &r, e))
        return e->code == CODE_NOT_FOUND ? 0 : (int)e->code;
    applied = json_new_object(&a);
    json_set_str(&a, applied, S("hash"), str_of(r.hash));
    json_set(applied, S("tree"), r.norm);
    json_set_int(&a, applied, S("applied_ns"), time_wall_ns());
    json_set_str(&a, applied, S("actor"), S("weir up"));
    data = json_new_object(&a);
    json_set_str(&a, data, S("hash"), str_of(r.hash));
    TRY(meta_begin(c->meta, &tx, e));
    TRY(meta_kv_put(c->meta, S("project"), S("applied"), applied, e));
    TRY(journal_append(c->meta,
                       &(struct fact_new){.type = FACT_PROJECT_APPLIED,
                                          .subject = S("project"),
                                          .actor = S("weir up"),
                                          .reason = S("first start of this project"),
                                          .data = data},
                       NULL, e));
    return meta_commit(&tx, e);
}
