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
#include "journal/alias.h"
#include "rollout/priv.h"

#include <math.h>
#include <stdio.h>

/* --- The list --------------------------------------------------------------------------------- */

/* A row that cannot be read is left alone: one damaged rollout must not keep control from starting.
 */
static NODISCARD int load_all(struct rollouts *r, struct meta *m, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    AUTO(arena_done) struct arena a;
    int rc;

    arena_init(&a, 0);
    TRY(meta_query(m, "SELECT name, value FROM kv WHERE scope = ?", M_ARGS(M_STR(S("rollout"))),
                   &rows, e));
    while (meta_next(rows, &rc, e)) {
        struct rollout *ro;
        struct json *state;
        struct err why;

        if (json_parse(meta_str_dup(rows, 1, &a), &a, &state, &why) ||
            rollout_from_json(state, meta_str_dup(rows, 0, &a), &ro, &why)) {
            log_err("rollout.unreadable", &why);
            continue;
        }
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

void rollouts_compare_outputs(struct rollouts *r, struct meta *m, struct blobs *blobs)
{
    r->blobs = blobs;
    for (struct rollout *ro = r->first; ro; ro = ro->next)
        rollout_outputs_find(ro, m, blobs);
}

int rollouts_keep(struct rollouts *r, struct meta *m, const struct digest_clock *clock,
                  struct err *e)
{
    r->clock = clock;
    for (struct rollout *ro = r->first; ro; ro = ro->next) {
        ro->clock = clock;
        TRY(rollout_evidence_restore(ro, m, e));
    }
    return 0;
}

int rollouts_save(struct rollouts *r, struct meta *m, struct err *e)
{
    for (struct rollout *ro = r->first; ro; ro = ro->next) {
        if (ro->unsaved)
            TRY(rollout_evidence_save(ro, m, e));
        ro->saving = ro->unsaved;
    }
    return 0;
}

void rollouts_saved(struct rollouts *r)
{
    for (struct rollout *ro = r->first; ro; ro = ro->next)
        ro->unsaved &= !ro->saving;
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

/* The tensors of a version: {"inputs","outputs"}, or NULL when its registration did not say. */
static NODISCARD int signature_of(struct meta *m, str model, int64_t version, struct arena *a,
                                  const struct json **ret, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *meta;

    TRY(meta_first(m, "SELECT meta FROM model_versions WHERE model = ? AND version = ?",
                   M_ARGS(M_STR(model), M_INT(version)), &rows, e));
    if (!rows)
        return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version %lld", STR_A(model),
                    (long long)version);
    TRY(json_parse(meta_str_dup(rows, 0, a), a, &meta, e));
    *ret = json_get(meta, S("signature"));
    return 0;
}

static bool same_member(const struct json *a, const struct json *b, str key)
{
    const struct json *x = json_get(a, key), *y = json_get(b, key);

    return x && y ? json_equal(x, y) : x == y;
}

/* A request is read before it is routed: both versions must take and give the same. */
static NODISCARD int check_signatures(struct meta *m, const struct rollout_start *s,
                                      int64_t champion, struct err *e)
{
    AUTO(arena_done) struct arena a;
    const struct json *old, *new;

    arena_init(&a, 0);
    TRY(signature_of(m, s->model, s->version, &a, &new, e));
    TRY(signature_of(m, s->model, champion, &a, &old, e));
    if (old && new && !(same_member(old, new, S("inputs")) && same_member(old, new, S("outputs"))))
        return FAIL(e, FAILED_PRECONDITION,
                    "version %lld of '" STR_F "' has other inputs or outputs than version %lld; "
                    "serve it on an endpoint of its own",
                    (long long)s->version, STR_A(s->model), (long long)champion);
    return 0;
}

static str alias_of(const struct rollout_start *s)
{
    return s->alias.n ? s->alias : S("champion");
}

static NODISCARD int check_start(struct rollouts *r, struct meta *m, const struct rollout_start *s,
                                 int64_t *ret_champion, struct err *e)
{
    const struct rollout *other = r->first;
    const str alias = alias_of(s);
    int64_t known;

    if (str_eq(alias, S("challenger")) || str_eq(alias, S("shadow")))
        return FAIL(e, FAILED_PRECONDITION,
                    "endpoint '" STR_F "' serves the alias '" STR_F
                    "', which rollouts move themselves: set endpoints." STR_F
                    ".alias to another name, or promote directly",
                    STR_A(s->endpoint), STR_A(alias), STR_A(s->endpoint));
    TRY(meta_first_int(m, "SELECT version FROM model_versions WHERE model = ? AND version = ?",
                       M_ARGS(M_STR(s->model), M_INT(s->version)), 0, &known, e));
    if (!known)
        return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version %lld", STR_A(s->model),
                    (long long)s->version);
    TRY(alias_get(m, s->model, alias, ret_champion, e));
    if (!*ret_champion)
        return FAIL(e, FAILED_PRECONDITION,
                    "model '" STR_F "' has no " STR_F
                    " to roll out beside: promote version %lld directly",
                    STR_A(s->model), STR_A(alias), (long long)s->version);
    if (*ret_champion == s->version)
        return FAIL(e, FAILED_PRECONDITION, "version %lld of '" STR_F "' is the " STR_F " already",
                    (long long)s->version, STR_A(s->model), STR_A(alias));
    while (other && (str_eq(other->endpoint, s->endpoint) || !str_eq(other->model, s->model)))
        other = other->next;
    if (other) /* they would move the same aliases */
        return FAIL(e, FAILED_PRECONDITION,
                    "model '" STR_F "' is being rolled out on endpoint '" STR_F
                    "': let that end, or abort it",
                    STR_A(s->model), STR_A(other->endpoint));
    return check_signatures(m, s, *ret_champion, e);
}

static NODISCARD int rollout_make(const struct rollout_start *s, int64_t champion,
                                  struct rollout **ret_rollout, struct err *e)
{
    AUTO(rollout_freep) struct rollout *ro = mem_zalloc(sizeof(*ro));
    int64_t now = time_wall_ns();

    arena_init(&ro->arena, 0);
    uuid_v7(now, ro->id);
    ro->endpoint = arena_dup(&ro->arena, s->endpoint);
    ro->model = arena_dup(&ro->arena, s->model);
    ro->alias = arena_dup(&ro->arena, alias_of(s));
    ro->actor = arena_dup(&ro->arena, s->actor);
    ro->flow = arena_dup(&ro->arena, s->flow);
    ro->correlation = s->correlation.n ? arena_dup(&ro->arena, s->correlation) : str_of(ro->id);
    ro->config_json = s->config ? json_copy(&ro->arena, s->config) : json_new_object(&ro->arena);
    TRY(rollout_config_read(ro->config_json, &ro->cfg, e));
    ro->version = s->version;
    ro->previous = champion;
    snprintf(ro->version_text, sizeof(ro->version_text), "%lld", (long long)ro->version);
    snprintf(ro->previous_text, sizeof(ro->previous_text), "%lld", (long long)ro->previous);
    ro->started_ns = ro->step_started_ns = now;
    ro->state = ro->cfg.shadow_ns || ro->cfg.shadow_rows_min ? ROLLOUT_SHADOW : ROLLOUT_STEP;
    rollout_forget(ro);
    *ret_rollout = TAKE(ro);
    return 0;
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
    TRY(check_start(r, m, start, &champion, e));
    TRY(rollout_make(start, champion, &ro, e));
    rollout_outputs_find(ro, m, r->blobs);
    ro->clock = r->clock;
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

    int rc;

    if (ro->paused == paused)
        return 0;
    TRY(meta_begin(m, &tx, e));
    ro->paused = paused;
    rc = rollout_save(ro, m, e);
    if (!rc)
        rc = rollout_fact(ro, m, paused ? FACT_ROLLOUT_PAUSED : FACT_ROLLOUT_RESUMED, actor, reason,
                          NULL, e);
    if (!rc)
        rc = meta_commit(&tx, e);
    if (rc)
        ro->paused = !paused;
    return rc;
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
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    uint32_t next = ro->state == ROLLOUT_SHADOW ? 0 : ro->step + 1;
    const struct rollout before = *ro;
    int rc;

    TRY(meta_begin(m, &tx, e));
    TRY(tell_judgement(ro, m, e));
    if (next < ro->cfg.step_count)
        rc = rollout_enter(ro, m, ROLLOUT_STEP, next, wall_ns, e);
    else if (ro->cfg.review)
        rc = rollout_enter(ro, m, ROLLOUT_REVIEW, ro->step, wall_ns, e);
    else
        rc = rollout_promote(ro, m, wall_ns, S("weir"), S("every step passed"), e);
    if (!rc)
        rc = meta_commit(&tx, e);
    if (rc)
        *ro = before; /* judged again at the next look */
    return rc;
}

/* The judgement and what follows from it: both are known, or neither. */
static NODISCARD int take_back(struct rollouts *r, struct rollout *ro, struct meta *m, str reason,
                               struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    TRY(meta_begin(m, &tx, e));
    TRY(tell_judgement(ro, m, e));
    TRY(rollout_end(ro, m, FACT_ROLLOUT_ROLLED_BACK, S("weir"), reason, e));
    TRY(meta_commit(&tx, e));
    list_remove(r, ro);
    return 0;
}

/* The time of the step is up and nothing is proved: what then is the project's choice. */
static NODISCARD int out_of_patience(struct rollouts *r, struct rollout *ro, struct meta *m,
                                     struct err *e)
{
    if (str_eq(ro->cfg.on_inconclusive, S("rollback")))
        return take_back(r, ro, m, S("not enough evidence in time"), e);
    if (ro->told_inconclusive)
        return 0;
    TRY(tell_judgement(ro, m, e));
    ro->told_inconclusive = true;
    if (str_eq(ro->cfg.on_inconclusive, S("hold")))
        return set_paused(ro, m, true, S("weir"), S("not enough evidence: waiting for a person"),
                          e);
    return rollout_save(ro, m, e);
}

/* Harm after the rollback window is for people: said, not acted on. */
static NODISCARD int late_harm(struct rollout *ro, struct meta *m, struct err *e)
{
    if (ro->told_late_harm)
        return 0;
    TRY(tell_judgement(ro, m, e));
    ro->told_late_harm = true;
    return 0;
}

/* Judges, and moves what is due. The rollout may be gone afterwards. */
static NODISCARD int look(struct rollouts *r, struct rollout *ro, struct meta *m, int64_t wall_ns,
                          struct err *e)
{
    const struct evidence_scope sc = rollout_scope(ro);
    bool baking = ro->state == ROLLOUT_BAKING;
    int64_t age;

    /* A date that was ahead when the step began must not hold it until then. */
    ro->step_started_ns = MIN(ro->step_started_ns, wall_ns);
    age = wall_ns - ro->step_started_ns;
    evidence_judge(&ro->ev, &sc, rows_wanted(ro), &ro->last);
    if (ro->last.verdict == VERDICT_FAIL)
        return baking && age >= ro->cfg.rollback_window_ns
                   ? late_harm(ro, m, e)
                   : take_back(r, ro, m, str_of(ro->last.reason), e);
    if (ro->paused || baking || ro->state == ROLLOUT_REVIEW || age < hold(ro))
        return 0;
    if (ro->last.verdict == VERDICT_PASS)
        return advance(ro, m, wall_ns, e);
    return age > ro->cfg.max_hold_ns ? out_of_patience(r, ro, m, e) : 0;
}

int rollouts_digest(struct rollouts *r, struct meta *m, const struct digest *d, int64_t wall_ns,
                    struct err *e)
{
    struct err other;
    int rc = 0, now;

    for (struct rollout *ro = r->first, *next; ro; ro = next) {
        const struct evidence_scope sc = rollout_scope(ro);

        next = ro->next;
        /* A digest that reaches back before the step holds answers of the old weights: harmless for
         * ratios, and so not worth losing. */
        if (!ro->seen || digest_clock_is_new(ro->seen, d)) {
            evidence_fold(&ro->ev, &sc, d);
            ro->unsaved = true;
        }
        now = look(r, ro, m, wall_ns, rc ? &other : e);
        rc = rc ? rc : now;
    }
    return rc;
}

/* --- After promotion -------------------------------------------------------------------------- */

/* Is the version that should answer the one that does, without failing, and fast enough? What is
 * over a limit but not proved is said and not acted on: the guards stay armed. */
static NODISCARD int post_check(struct rollout *ro, struct meta *m, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    const struct arm *arm = &ro->ev.challenger;
    double rate = arm->requests ? (double)arm->failed / (double)arm->requests : 0;
    double p99 = (double)latency_quantile_ns(&arm->latency, 0.99);
    AUTO(arena_done) struct arena a;
    struct json *data;
    int64_t live;
    bool ok;
    int rc;

    arena_init(&a, 0);
    TRY(alias_get(m, ro->model, ro->alias, &live, e));
    ok = live == ro->version && arm->requests > 0 &&
         (isnan(ro->cfg.error_rate) || rate <= ro->cfg.error_rate) &&
         (isnan(ro->cfg.p99_ns) || p99 <= ro->cfg.p99_ns);
    data = judgement_json(&ro->last, &ro->ev, &a);
    json_set_bool(&a, data, S("passed"), ok);
    json_set_int(&a, data, S("check"), ro->checks_done + 1);
    json_set_int(&a, data, S("live"), live);
    json_set_int(&a, data, S("requests"), (int64_t)arm->requests);
    json_set_real(&a, data, S("error_rate"), rate);
    json_set_real(&a, data, S("p99_ms"), p99 / 1e6);
    TRY(meta_begin(m, &tx, e));
    TRY(rollout_fact(ro, m, FACT_CHECK_POST_DEPLOY, S("weir"),
                     ok                    ? S("the new version answers as it should")
                     : live != ro->version ? S("another version was put in its place")
                     : arm->requests       ? S("over a limit, though harm is not proved")
                                           : S("no requests: nothing can be said"),
                     data, e));
    ro->checks_done++;
    rc = rollout_save(ro, m, e);
    if (!rc)
        rc = meta_commit(&tx, e);
    if (rc)
        ro->checks_done--;
    return rc;
}

static NODISCARD int finish(struct rollouts *r, struct rollout *ro, struct meta *m, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    TRY(meta_begin(m, &tx, e));
    TRY(meta_kv_delete(m, S("rollout"), ro->endpoint, e));
    TRY(rollout_evidence_drop(ro, m, e));
    TRY(rollout_fact(ro, m, FACT_ROLLOUT_BAKED, S("weir"), S("the old version may rest"), NULL, e));
    TRY(meta_commit(&tx, e));
    list_remove(r, ro);
    return 0;
}

/* Paused, the end of the bake waits, and the way back stays warm. */
static NODISCARD int bake(struct rollouts *r, struct rollout *ro, struct meta *m, int64_t wall_ns,
                          struct err *e)
{
    int64_t age, last = ro->cfg.bake_ns;

    ro->promoted_ns = MIN(ro->promoted_ns, wall_ns);
    age = wall_ns - ro->promoted_ns;
    if (ro->checks_done < ro->cfg.check_count)
        return age >= ro->cfg.checks_ns[ro->checks_done] ? post_check(ro, m, e) : 0;
    return age < last || ro->paused ? 0 : finish(r, ro, m, e);
}

int rollouts_tick(struct rollouts *r, struct meta *m, int64_t wall_ns, struct err *e)
{
    struct err other;
    int rc = 0, now;

    for (struct rollout *ro = r->first, *next; ro; ro = next) {
        struct err *to = rc ? &other : e;

        next = ro->next;
        now =
            ro->state == ROLLOUT_BAKING ? bake(r, ro, m, wall_ns, to) : look(r, ro, m, wall_ns, to);
        rc = rc ? rc : now;
    }
    return rc;
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
        if (ro->outputs.why[0])
            json_set_str(&a, o, S("outputs_not_compared"), str_of(ro->outputs.why));
        jo_node(out, o);
    }
    jo_array_end(out);
    jo_object_end(out);
}
