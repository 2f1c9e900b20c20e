/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of rollouts under way and what moves them: evidence, time and people.
 *
 * Order of judgement in every look: harm first (whatever the hold says), then the hold, then enough
 * rows, then the end of patience (max_hold, on_inconclusive). A paused rollout is judged for harm
 * only. While baking, harm takes the promotion back as long as the rollback window is open.
 */
#include "rollout/rollout.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"
#include "rollout/priv.h"

#include <math.h>
#include <stdio.h>

/* --- The list --------------------------------------------------------------------------------- */

static NODISCARD int load_all(struct rollouts *r, struct meta *m, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    AUTO(arena_done) struct arena a = {0};
    int rc;

    arena_init(&a, 0);
    TRY(meta_query(m, "SELECT name, value FROM kv WHERE scope = ?", M_ARGS(M_STR(S("rollout"))),
                   &rows, e));
    while (meta_next(rows, &rc, e)) {
        struct rollout *ro;
        struct json *state;

        TRY(json_parse(meta_str_dup(rows, 1, &a), &a, &state, e));
        TRY(rollout_from_json(state, meta_str(rows, 0), &ro, e));
        ro->next = r->first;
        r->first = ro;
    }
    return rc;
}

int rollouts_new(struct meta *m, struct rollouts **ret_rollouts, struct err *e)
{
    AUTO(rollouts_freep) struct rollouts *r = mem_zalloc(sizeof(*r));

    TRY(load_all(r, m, e));
    *ret_rollouts = TAKE(r);
    return 0;
}

static void list_remove(struct rollouts *r, struct rollout *ro)
{
    struct rollout **at = &r->first;

    while (*at != ro)
        at = &(*at)->next;
    *at = ro->next;
    rollout_free(ro);
}

void rollouts_free(struct rollouts *r)
{
    if (!r)
        return;
    while (r->first)
        list_remove(r, r->first);
    mem_free(r);
}

static struct rollout *find(const struct rollouts *r, str endpoint)
{
    struct rollout *ro = r->first;

    while (ro && !str_eq(ro->endpoint, endpoint))
        ro = ro->next;
    return ro;
}

/* --- Starting --------------------------------------------------------------------------------- */

static NODISCARD int check_start(struct meta *m, const struct rollout_start *s,
                                 int64_t *ret_champion, struct err *e)
{
    int64_t known;

    TRY(meta_first_int(m, "SELECT version FROM model_versions WHERE model = ? AND version = ?",
                       M_ARGS(M_STR(s->model), M_INT(s->version)), 0, &known, e));
    if (!known)
        return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version %lld", STR_A(s->model),
                    (long long)s->version);
    TRY(meta_first_int(m, "SELECT version FROM aliases WHERE model = ? AND alias = ?",
                       M_ARGS(M_STR(s->model), M_STR(S("champion"))), 0, ret_champion, e));
    if (!*ret_champion)
        return FAIL(e, FAILED_PRECONDITION,
                    "model '" STR_F
                    "' has no champion to roll out beside: promote version %lld directly",
                    STR_A(s->model), (long long)s->version);
    if (*ret_champion == s->version)
        return FAIL(e, FAILED_PRECONDITION, "version %lld of '" STR_F "' is the champion already",
                    (long long)s->version, STR_A(s->model));
    return 0;
}

static struct rollout *rollout_make(const struct rollout_start *s, int64_t champion)
{
    struct rollout *ro = mem_zalloc(sizeof(*ro));
    int64_t now = time_wall_ns();

    arena_init(&ro->arena, 0);
    uuid_v7(now, ro->id);
    ro->endpoint = arena_dup(&ro->arena, s->endpoint);
    ro->model = arena_dup(&ro->arena, s->model);
    ro->actor = arena_dup(&ro->arena, s->actor);
    ro->flow = arena_dup(&ro->arena, s->flow);
    ro->correlation = s->correlation.n ? arena_dup(&ro->arena, s->correlation) : str_of(ro->id);
    ro->config_json = s->config ? json_copy(&ro->arena, s->config) : json_new_object(&ro->arena);
    rollout_config_read(ro->config_json, &ro->cfg);
    ro->version = s->version;
    ro->previous = champion;
    snprintf(ro->version_text, sizeof(ro->version_text), "%lld", (long long)ro->version);
    snprintf(ro->previous_text, sizeof(ro->previous_text), "%lld", (long long)ro->previous);
    ro->started_ns = ro->step_started_ns = now;
    ro->state = ro->cfg.shadow_ns || ro->cfg.shadow_rows_min ? ROLLOUT_SHADOW : ROLLOUT_STEP;
    evidence_reset(&ro->ev, &ro->cfg);
    return ro;
}

static NODISCARD int begin(struct rollout *ro, struct meta *m, str reason, struct err *e)
{
    TRY(rollout_fact(ro, m, FACT_ROLLOUT_STARTED, ro->actor, reason, NULL, e));
    if (ro->state == ROLLOUT_STEP && !ro->cfg.step_count)
        return rollout_promote(ro, m, ro->started_ns, ro->actor, S("the ladder has no steps"), e);
    return rollout_enter(ro, m, ro->state, 0, ro->started_ns, e);
}

int rollout_start(struct rollouts *r, struct meta *m, const struct rollout_start *start,
                  char ret_id[64], struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    AUTO(rollout_freep) struct rollout *ro = NULL;
    struct rollout *old = find(r, start->endpoint);
    int64_t champion;

    TRY(meta_begin(m, &tx, e));
    if (old)
        TRY(rollout_end(old, m, FACT_ROLLOUT_SUPERSEDED, start->actor, S("a newer version came"),
                        e));
    TRY(check_start(m, start, &champion, e));
    ro = rollout_make(start, champion);
    TRY(begin(ro, m, start->reason, e));
    TRY(meta_commit(&tx, e));
    if (old)
        list_remove(r, old);
    snprintf(ret_id, 64, "%s", ro->id);
    ro->next = r->first;
    r->first = TAKE(ro);
    return 0;
}

/* --- Orders ----------------------------------------------------------------------------------- */

static NODISCARD int set_paused(struct rollout *ro, struct meta *m, bool paused, str actor,
                                str reason, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    if (ro->paused == paused)
        return 0;
    TRY(meta_begin(m, &tx, e));
    ro->paused = paused;
    TRY(rollout_save(ro, m, e));
    TRY(rollout_fact(ro, m, paused ? FACT_ROLLOUT_PAUSED : FACT_ROLLOUT_RESUMED, actor, reason,
                     NULL, e));
    return meta_commit(&tx, e);
}

static NODISCARD int end(struct rollouts *r, struct rollout *ro, struct meta *m,
                         enum fact_type type, str actor, str reason, struct err *e)
{
    TRY(rollout_end(ro, m, type, actor, reason, e));
    list_remove(r, ro);
    return 0;
}

int rollout_order(struct rollouts *r, struct meta *m, str endpoint, enum rollout_order order,
                  str actor, str reason, struct err *e)
{
    struct rollout *ro = find(r, endpoint);

    if (!ro)
        return FAIL(e, NOT_FOUND, "no rollout is under way on endpoint '" STR_F "'",
                    STR_A(endpoint));
    switch (order) {
    case ROLLOUT_PAUSE:
    case ROLLOUT_RESUME:
        return set_paused(ro, m, order == ROLLOUT_PAUSE, actor, reason, e);
    case ROLLOUT_APPROVE:
        if (ro->state == ROLLOUT_BAKING)
            return FAIL(e, FAILED_PRECONDITION, "version %lld is promoted already",
                        (long long)ro->version);
        return rollout_promote(ro, m, time_wall_ns(), actor, reason, e);
    case ROLLOUT_ABORT:
        return end(r, ro, m, FACT_ROLLOUT_ABORTED, actor, reason, e);
    case ROLLOUT_ROLLBACK:
        return end(r, ro, m, FACT_ROLLOUT_ROLLED_BACK, actor, reason, e);
    }
    return FAIL(e, INVALID_ARGUMENT, "unknown order %d", (int)order);
}

/* --- Judging ---------------------------------------------------------------------------------- */

static uint64_t rows_wanted(const struct rollout *ro)
{
    if (ro->state == ROLLOUT_SHADOW)
        return ro->cfg.shadow_rows_min;
    return ro->state == ROLLOUT_STEP ? ro->cfg.steps[ro->step].rows_min : 0;
}

static int64_t hold(const struct rollout *ro)
{
    if (ro->state == ROLLOUT_SHADOW)
        return ro->cfg.shadow_ns;
    return ro->state == ROLLOUT_STEP ? ro->cfg.steps[ro->step].hold_ns : ro->cfg.bake_ns;
}

static NODISCARD int tell_judgement(struct rollout *ro, struct meta *m, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};

    arena_init(&a, 0);
    return rollout_fact(ro, m, FACT_ROLLOUT_JUDGED, S("weir"), str_of(ro->last.reason),
                        judgement_json(&ro->last, &ro->ev, &a), e);
}

static NODISCARD int advance(struct rollout *ro, struct meta *m, int64_t wall_ns, struct err *e)
{
    uint32_t next = ro->state == ROLLOUT_SHADOW ? 0 : ro->step + 1;

    TRY(tell_judgement(ro, m, e));
    if (next < ro->cfg.step_count)
        return rollout_enter(ro, m, ROLLOUT_STEP, next, wall_ns, e);
    if (ro->cfg.review)
        return rollout_enter(ro, m, ROLLOUT_REVIEW, ro->step, wall_ns, e);
    return rollout_promote(ro, m, wall_ns, S("weir"), S("every step passed"), e);
}

/* The hold is over and nothing is proved: what then is the project's choice. *ret_ended: it is
 * gone. */
static NODISCARD int out_of_patience(struct rollouts *r, struct rollout *ro, struct meta *m,
                                     bool *ret_ended, struct err *e)
{
    if (str_eq(ro->cfg.on_inconclusive, S("rollback"))) {
        *ret_ended = true;
        return end(r, ro, m, FACT_ROLLOUT_ROLLED_BACK, S("weir"), S("not enough evidence in time"),
                   e);
    }
    if (ro->told_inconclusive)
        return 0;
    ro->told_inconclusive = true;
    TRY(tell_judgement(ro, m, e));
    if (str_eq(ro->cfg.on_inconclusive, S("hold")))
        return set_paused(ro, m, true, S("weir"), S("not enough evidence: waiting for a person"),
                          e);
    return 0;
}

static NODISCARD int look(struct rollouts *r, struct rollout *ro, struct meta *m, int64_t wall_ns,
                          struct err *e)
{
    int64_t age = wall_ns - ro->step_started_ns;
    bool baking = ro->state == ROLLOUT_BAKING, ended = false;

    evidence_judge(&ro->ev, &ro->cfg, ro->state == ROLLOUT_SHADOW, rows_wanted(ro), &ro->last);
    if (ro->last.verdict == VERDICT_FAIL && (!baking || age < ro->cfg.rollback_window_ns)) {
        TRY(tell_judgement(ro, m, e));
        return end(r, ro, m, FACT_ROLLOUT_ROLLED_BACK, S("weir"), str_of(ro->last.reason), e);
    }
    if (ro->paused || baking || ro->state == ROLLOUT_REVIEW || age < hold(ro))
        return 0;
    if (ro->last.verdict == VERDICT_PASS)
        return advance(ro, m, wall_ns, e);
    return age > ro->cfg.max_hold_ns ? out_of_patience(r, ro, m, &ended, e) : 0;
}

int rollouts_digest(struct rollouts *r, struct meta *m, const struct digest *d, int64_t wall_ns,
                    struct err *e)
{
    for (struct rollout *ro = r->first, *next; ro; ro = next) {
        next = ro->next;
        /* A digest that reaches back before the step holds answers of the old weights: harmless for
         * ratios, and so not worth losing. */
        evidence_fold(&ro->ev, &ro->cfg, d, ro->endpoint, str_of(ro->previous_text),
                      str_of(ro->version_text));
        TRY(look(r, ro, m, wall_ns, e));
    }
    return 0;
}

/* --- After promotion -------------------------------------------------------------------------- */

/* Is the version that should answer the one that does, without failing, and fast enough? */
static NODISCARD int post_check(struct rollouts *r, struct rollout *ro, struct meta *m,
                                int64_t wall_ns, struct err *e)
{
    const struct arm *arm = &ro->ev.challenger;
    double rate = arm->requests ? (double)arm->failed / (double)arm->requests : 0;
    double p99 = (double)latency_quantile_ns(&arm->latency, 0.99);
    AUTO(arena_done) struct arena a = {0};
    struct json *data;
    bool ok = arm->requests > 0 && (isnan(ro->cfg.error_rate) || rate < ro->cfg.error_rate) &&
              (isnan(ro->cfg.p99_ns) || p99 < ro->cfg.p99_ns);

    arena_init(&a, 0);
    data = json_new_object(&a);
    json_set_bool(&a, data, S("passed"), ok);
    json_set_int(&a, data, S("requests"), (int64_t)arm->requests);
    json_set_real(&a, data, S("error_rate"), rate);
    json_set_real(&a, data, S("p99_ms"), p99 / 1e6);
    TRY(rollout_fact(ro, m, FACT_CHECK_POST_DEPLOY, S("weir"),
                     ok              ? S("the new version answers as it should")
                     : arm->requests ? S("the new version fails or is slow")
                                     : S("the new version has no traffic: nothing can be said"),
                     data, e));
    ro->checks_done++;
    if (!ok && arm->requests >= 30 && wall_ns - ro->promoted_ns < ro->cfg.rollback_window_ns)
        return end(r, ro, m, FACT_ROLLOUT_ROLLED_BACK, S("weir"),
                   S("a check after promotion failed"), e);
    return rollout_save(ro, m, e);
}

static NODISCARD int bake(struct rollouts *r, struct rollout *ro, struct meta *m, int64_t wall_ns,
                          struct err *e)
{
    int64_t age = wall_ns - ro->promoted_ns, last = ro->cfg.bake_ns;

    for (uint32_t i = 0; i < ro->cfg.check_count; i++)
        last = MAX(last, ro->cfg.checks_ns[i]);
    if (ro->checks_done < ro->cfg.check_count && age >= ro->cfg.checks_ns[ro->checks_done])
        return post_check(r, ro, m, wall_ns, e);
    if (age < last || ro->checks_done < ro->cfg.check_count)
        return 0;
    TRY(meta_kv_delete(m, S("rollout"), ro->endpoint, e));
    list_remove(r, ro);
    return 0;
}

int rollouts_tick(struct rollouts *r, struct meta *m, int64_t wall_ns, struct err *e)
{
    for (struct rollout *ro = r->first, *next; ro; ro = next) {
        next = ro->next;
        if (ro->state == ROLLOUT_BAKING)
            TRY(bake(r, ro, m, wall_ns, e));
        else
            TRY(look(r, ro, m, wall_ns, e));
    }
    return 0;
}

/* --- Report ----------------------------------------------------------------------------------- */

void rollouts_report(const struct rollouts *r, str endpoint, struct json_out *out)
{
    AUTO(arena_done) struct arena a = {0};

    arena_init(&a, 0);
    jo_object(out);
    jo_key(out, S("rollouts"));
    jo_array(out);
    for (const struct rollout *ro = r->first; ro; ro = ro->next) {
        struct json *o;

        if (endpoint.n && !str_eq(endpoint, ro->endpoint))
            continue;
        o = rollout_to_json(ro, &a);
        json_set_str(&a, o, S("endpoint"), ro->endpoint);
        json_set(o, S("evidence"), judgement_json(&ro->last, &ro->ev, &a));
        json_set_str(&a, o, S("reason"), str_of(ro->last.reason));
        jo_node(out, o);
    }
    jo_array_end(out);
    jo_object_end(out);
}
