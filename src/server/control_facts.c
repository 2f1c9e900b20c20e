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
#include "project/project.h"
#include "server/compile.h"
#include "server/control.h"

#define CURSOR S("control")
#define FACTS_PER_READ 256

/* Facts after which the plan may be another one. */
static bool touches_plan(str type)
{
    return str_eq(type, S("project.applied")) || str_eq(type, S("alias.moved")) ||
           str_starts(type, S("rollout."));
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
    c->plan_stale |= touches_plan(f->type);
    return c->project ? retrain_on_fact(&c->retrain, c->meta, c->project, f, e) : 0;
}

static NODISCARD int one_fact(struct control *c, const struct fact *f, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    TRY(meta_begin(c->meta, &tx, e));
    TRY(take_effect(c, f, e));
    TRY(journal_cursor_save(c->meta, CURSOR, f->seq, e));
    return meta_commit(&tx, e);
}

int control_follow(struct control *c, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct fact *facts;
    size_t n = FACTS_PER_READ;
    int64_t seq;

    arena_init(&a, 0);
    TRY(journal_cursor_load(c->meta, CURSOR, &seq, e));
    while (n == FACTS_PER_READ) {
        TRY(journal_read(c->meta,
                         &(struct journal_query){.after_seq = seq, .limit = FACTS_PER_READ}, &a,
                         &facts, &n, e));
        for (size_t i = 0; i < n; i++) {
            struct err fe;

            if (one_fact(c, &facts[i], &fe)) {
                /* A fact without effect is better than a control that stands still. */
                log_err("fact.failed", &fe);
                TRY(journal_cursor_save(c->meta, CURSOR, facts[i].seq, e));
            }
            seq = facts[i].seq;
        }
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
    return journal_append(
        c->meta,
        &(struct fact_new){
            .type = FACT_PLAN_COMPILED, .subject = S("plan"), .actor = S("weir"), .data = data},
        NULL, e);
}

int control_compile(struct control *c, struct err *e)
{
    char hash[PLAN_HASH_SIZE];

    if (!c->plan_stale || !c->project)
        return 0;
    c->plan_stale = false;
    TRY(compile_plan(c->meta, c->blobs, hash, e));
    if (strcmp(hash, c->plan) == 0)
        return 0;
    TRY(plan_current_write(c->options->state_dir, str_of(hash), e));
    gateways_set_plan(&c->gateways, str_of(hash)); /* first the traffic, then the record of it */
    TRY(plan_fact(c, hash, e));
    memcpy(c->plan, hash, sizeof(hash));
    return 0;
}

/* --- Rollouts that flows asked for
 * ---------------------------------------------------------------- */

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

static NODISCARD int start_one(struct control *c, const struct json *w, str flow, struct arena *a,
                               struct err *e)
{
    str endpoint = json_str_or(json_get(w, S("endpoint")), S(""));
    str model = json_str_or(json_get(w, S("model")), S(""));
    str correlation = json_str_or(json_get(w, S("correlation")), S(""));
    str reason = json_str_or(json_get(w, S("reason")), S("")), how;
    int64_t version = json_int_or(json_get(w, S("version")), 0), champion;
    const struct json *ep = json_get(json_get(c->project, S("endpoints")), endpoint);
    char id[64];

    TRY(registry_alias_get(c->meta, model, S("champion"), &champion, e));
    if (!champion) {
        TRY(registry_alias_move(c->meta, model, S("champion"), version, S("weir"), reason,
                                correlation, NULL, e));
        return tell(c, flow, "promoted", S("the first champion"), a, e);
    }
    if (!ep) {
        TRY(registry_alias_move(c->meta, model, S("candidate"), version, S("weir"), reason,
                                correlation, NULL, e));
        return tell(c, flow, "candidate", S("no endpoint serves this model"), a, e);
    }
    how = json_str_or(json_get(ep, S("rollout")), S(""));
    return rollout_start(
        c->rollouts, c->meta,
        &(struct rollout_start){.endpoint = endpoint,
                                .model = model,
                                .version = version,
                                .config = json_get(json_get(c->project, S("rollouts")), how),
                                .actor = S("weir"),
                                .reason = reason,
                                .correlation = correlation,
                                .flow = flow},
        id, e);
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
    log_err("rollout.refused", &why);
    TRY(meta_kv_delete(c->meta, S("rollout.wanted"), flow, e));
    return tell(c, flow, "refused", str_of(why.msg), a, e);
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
