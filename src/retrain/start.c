/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking for a run: what holds it back, and its start.
 *
 * Guards, in this order: one run in flight for a model (a further cause joins it); a trainer; a
 * regulated model takes only schedules and people; the cooldown since the last start; the budget of
 * cost and of runs a day. A person may override the cooldown, with a reason. Whoever asks, one fact
 * tells the outcome: trigger.fired or trigger.skipped.
 *
 * State: kv scope "retrain", key = model: {"last_ns","previous_ns","labels_total",
 * "labels_previous","starts_ns":[…of the last 24 h]}. A run that triage or missing labels ended
 * before any work gives its start back: what was not done needs no rest.
 */
#include "retrain/priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DAY_NS (INT64_C(86400) * NS_PER_S)
#define COST_MAX_DEFAULT 500.0

struct ask {
    const struct retrain_env *env;
    const struct json *project, *model, *rule;
    struct retrain_request q;
    struct arena *a;
    int64_t now;
};

/* --- Telling ---------------------------------------------------------------------------------- */

/* What of the cause a reader of the fact needs; the whole is in the cause's own fact. */
static struct json *metadata(const struct ask *k)
{
    static const char *const names[] = {"monitor", "kind",     "feature", "metric",    "value",
                                        "count",   "severity", "version", "threshold", "hash"};
    struct json *o = json_new_object(k->a);

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const struct json *v = json_get(k->q.cause, str_of(names[i]));

        if (v && !json_is_container(v))
            json_set(o, str_of(names[i]), json_copy(k->a, v));
    }
    return o;
}

static NODISCARD int fact(const struct ask *k, struct meta *m, enum fact_type type, str why,
                          str flow, struct err *e)
{
    struct json *data = json_new_object(k->a);
    bool skipped = type == FACT_TRIGGER_SKIPPED;

    json_set_str(k->a, data, S("rule"), k->q.trigger);
    json_set_str(k->a, data, S("cause"), k->q.kind);
    json_set_str(k->a, data, S("model"), k->q.model);
    json_set_str(k->a, data, S("endpoint"), k->q.endpoint);
    json_set_str(k->a, data, S("status"), skipped ? S("skipped") : S("fired"));
    json_set(data, S("metadata"), metadata(k));
    if (flow.n)
        json_set_str(k->a, data, S("flow"), flow);
    if (skipped)
        json_set_str(k->a, data, S("why"), why);
    if (k->q.override_cooldown)
        json_set_bool(k->a, data, S("override"), true);
    return journal_append(
        m,
        &(struct fact_new){.type = type,
                           .subject = arena_printf(k->a, "model/" STR_F, STR_A(k->q.model)),
                           .actor = k->q.actor,
                           .reason = skipped ? why : k->q.reason,
                           .correlation = k->q.correlation,
                           .data = data},
        NULL, e);
}

/* --- Guards ----------------------------------------------------------------------------------- */

/* The rule by name; a person's wish is ruled by the model's rule `on: manual`, if there is one. */
static const struct json *rule_of(const struct ask *k)
{
    const struct json *rules = json_get(k->project, S("triggers"));
    const struct json *rule = json_get(rules, k->q.trigger);

    if (rule || !str_eq(k->q.kind, S("manual")) || !json_is_container(rules))
        return rule;
    JSON_EACH (r, rules)
        if (str_eq(json_str_or(json_get(r, S("on")), S("")), S("manual")) &&
            str_eq(json_str_or(json_get(r, S("model")), S("")), k->q.model))
            return r;
    return NULL;
}

static int64_t starts_in_a_day(const struct json *state, int64_t now)
{
    const struct json *starts = json_get(state, S("starts_ns"));
    int64_t n = 0;

    if (json_is_container(starts))
        JSON_EACH (at, starts)
            n += llabs(now - json_int_or(at, 0)) < DAY_NS;
    return n;
}

static double cost_max(const struct json *budget)
{
    const struct json *max = json_get(budget, S("max_cost"));

    return !max ? COST_MAX_DEFAULT : json_real_or(max, INFINITY); /* null: off */
}

/* Why the request must not run now, or STR_NULL. */
static str objection(const struct ask *k, const struct json *state)
{
    const struct json *budget = json_get(k->rule, S("budget"));
    const struct json *trainer = json_get(json_get(k->project, S("trainers")),
                                          json_str_or(json_get(k->model, S("trainer")), S("")));
    bool by_hand = str_eq(k->q.kind, S("manual"));
    int64_t cooldown = json_int_or(json_get(k->rule, S("cooldown_ns")), DAY_NS);
    int64_t last = json_int_or(json_get(state, S("last_ns")), 0);
    int64_t per_day = json_int_or(json_get(budget, S("max_per_day")), INT64_MAX);
    double cost = json_real_or(json_get(trainer, S("estimated_cost")), 0);

    if (!trainer)
        return arena_printf(k->a, "model '" STR_F "' has no trainer", STR_A(k->q.model));
    if (json_bool_or(json_get(k->model, S("regulated")), false) && !by_hand &&
        !str_eq(k->q.kind, S("schedule")))
        return S("the model is regulated: only a schedule or a person may retrain it");
    /* A start that far ahead is from before the date was put back. */
    if (last && llabs(k->now - last) < cooldown && !k->q.override_cooldown)
        return arena_printf(k->a,
                            "cooldown: the last run began " STR_F " ago, at least " STR_F " apart",
                            STR_A(time_duration_text(k->a, MAX(k->now - last, INT64_C(0)))),
                            STR_A(time_duration_text(k->a, cooldown)));
    if (!k->q.override_cooldown && starts_in_a_day(state, k->now) >= per_day)
        return arena_printf(k->a, "budget: %lld runs in 24 hours", (long long)per_day);
    if (cost > cost_max(budget))
        return arena_printf(k->a,
                            "budget: a run is estimated at %.2f USD, at most %.2f are allowed",
                            cost, cost_max(budget));
    return STR_NULL;
}

/* --- State ------------------------------------------------------------------------------------ */

static void copy_starts(struct arena *a, const struct json *old, struct json *to, int64_t now,
                        int64_t but)
{
    if (json_is_container(old))
        JSON_EACH (at, old)
            if (now - json_int_or(at, 0) < DAY_NS && json_int_or(at, 0) != but)
                json_push(to, json_new_int(a, json_int_or(at, 0)));
}

static NODISCARD int state_save(const struct ask *k, struct meta *m, const struct json *state,
                                int64_t labels_total, struct err *e)
{
    struct json *fresh = json_new_object(k->a), *starts;

    json_set_int(k->a, fresh, S("last_ns"), k->now);
    json_set_int(k->a, fresh, S("previous_ns"), json_int_or(json_get(state, S("last_ns")), 0));
    json_set_int(k->a, fresh, S("labels_total"), labels_total);
    json_set_int(k->a, fresh, S("labels_previous"),
                 json_int_or(json_get(state, S("labels_total")), 0));
    starts = json_set(fresh, S("starts_ns"), json_new_array(k->a));
    copy_starts(k->a, json_get(state, S("starts_ns")), starts, k->now, 0);
    json_push(starts, json_new_int(k->a, k->now));
    return meta_kv_put(m, S("retrain"), k->q.model, fresh, e);
}

int start_give_back(struct meta *m, str model, int64_t asked_ns, struct arena *a, struct err *e)
{
    struct json *state, *fresh = json_new_object(a);

    TRY(meta_kv_get(m, S("retrain"), model, a, &state, e));
    if (json_int_or(json_get(state, S("last_ns")), 0) != asked_ns)
        return 0; /* another run has begun since */
    json_set_int(a, fresh, S("last_ns"), json_int_or(json_get(state, S("previous_ns")), 0));
    json_set_int(a, fresh, S("previous_ns"), 0);
    json_set_int(a, fresh, S("labels_total"),
                 json_int_or(json_get(state, S("labels_previous")), 0));
    copy_starts(a, json_get(state, S("starts_ns")),
                json_set(fresh, S("starts_ns"), json_new_array(a)), time_wall_ns(), asked_ns);
    return meta_kv_put(m, S("retrain"), model, fresh, e);
}

/* --- Starting --------------------------------------------------------------------------------- */

str model_endpoint(const struct json *project, str model)
{
    const struct json *endpoints = json_get(project, S("endpoints"));

    if (json_is_container(endpoints))
        JSON_EACH (endpoint, endpoints)
            if (str_eq(json_str_or(json_get(endpoint, S("model")), S("")), model))
                return endpoint->key;
    return S("");
}

/* Labels are counted from the change, which was before anybody asked. */
static int64_t labels_base(const struct ask *k, int64_t labels_total)
{
    const struct retrain_ports *p = &k->env->ports;

    return labels_total -
           (k->q.changed_ns ? p->labels_since(p->ctx, k->q.endpoint, k->q.changed_ns) : 0);
}

static struct json *flow_input_of(const struct ask *k, int64_t labels_total)
{
    struct json *input = json_new_object(k->a);
    bool review = str_eq(json_str_or(json_get(k->rule, S("policy")), S("auto")), S("review")) ||
                  json_bool_or(json_get(k->model, S("regulated")), false);

    json_set_str(k->a, input, S("model"), k->q.model);
    json_set_str(k->a, input, S("endpoint"), k->q.endpoint);
    json_set_str(k->a, input, S("trigger"), k->q.trigger);
    json_set_str(k->a, input, S("kind"), k->q.kind);
    json_set_str(k->a, input, S("actor"), k->q.actor);
    json_set_str(k->a, input, S("reason"), k->q.reason);
    json_set_int(k->a, input, S("changed_ns"), k->q.changed_ns);
    json_set_bool(k->a, input, S("review"), review);
    json_set_int(k->a, input, S("labels_min"),
                 json_int_or(json_path(k->rule, "require.labels_min"), 0));
    json_set_int(k->a, input, S("labels_wait_ns"),
                 json_int_or(json_path(k->rule, "require.wait_ns"), 0));
    json_set_int(k->a, input, S("labels_base"), labels_base(k, labels_total));
    json_set_int(k->a, input, S("asked_ns"), k->now);
    if (k->q.cause)
        json_set(input, S("cause"), json_copy(k->a, k->q.cause));
    return input;
}

static NODISCARD int refuse(const struct ask *k, struct meta *m, str why,
                            struct retrain_answer *ret, struct err *e)
{
    snprintf(ret->why, sizeof(ret->why), STR_F, STR_A(str_take(why, sizeof(ret->why) - 1)));
    return fact(k, m, FACT_TRIGGER_SKIPPED, why, str_of(ret->flow), e);
}

static NODISCARD int start(struct ask *k, struct meta *m, struct retrain_answer *ret, struct err *e)
{
    str key = arena_printf(k->a, "retrain/" STR_F, STR_A(k->q.model)), why;
    int64_t labels = k->env->ports.labels_total(k->env->ports.ctx, k->q.endpoint);
    struct flow_started started;
    struct json *state;

    TRY(flow_find(m, key, ret->flow, e));
    if (ret->flow[0])
        return refuse(k, m, S("a run of this model is in flight: it covers this too"), ret, e);
    TRY(meta_kv_get(m, S("retrain"), k->q.model, k->a, &state, e));
    why = objection(k, state);
    if (why.p)
        return refuse(k, m, why, ret, e);
    TRY(flow_start(m,
                   &(struct flow_start){.type = "retrain",
                                        .input = flow_input_of(k, labels),
                                        .dedup_key = key,
                                        .correlation = k->q.correlation},
                   &started, e));
    memcpy(ret->flow, started.id, UUID_SIZE);
    ret->started = true;
    TRY(state_save(k, m, state, labels, e));
    return fact(k, m, FACT_TRIGGER_FIRED, STR_NULL, str_of(started.id), e);
}

int retrain_ask(const struct retrain_env *env, struct meta *m, const struct json *project,
                const struct retrain_request *request, struct retrain_answer *ret, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    AUTO(arena_done) struct arena a = {0};
    struct ask k = {.env = env, .project = project, .q = *request, .a = &a, .now = time_wall_ns()};
    struct retrain_answer answer = {0};
    char story[UUID_SIZE];

    arena_init(&a, 0);
    k.model = json_get(json_get(project, S("models")), k.q.model);
    if (!k.model)
        return FAIL(e, NOT_FOUND, "the project has no model '" STR_F "'", STR_A(k.q.model));
    if (k.q.override_cooldown && !str_trim(k.q.reason).n)
        return FAIL(e, INVALID_ARGUMENT,
                    "the cooldown may be overridden with a reason only: say why");
    if (!k.q.endpoint.n)
        k.q.endpoint = model_endpoint(project, k.q.model);
    if (!k.q.correlation.n) { /* trigger and flow tell one story */
        uuid_v7(k.now, story);
        k.q.correlation = str_of(story);
    }
    k.rule = rule_of(&k);
    TRY(meta_begin(m, &tx, e));
    TRY(start(&k, m, &answer, e));
    TRY(meta_commit(&tx, e));
    *ret = answer;
    return 0;
}
