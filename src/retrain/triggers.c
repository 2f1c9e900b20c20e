/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trigger rules: what may start a run, and what holds it back.
 *
 * Guards, in this order: a regulated model takes only schedules and people; one run in flight for a
 * model (a further cause joins it: coalesced); the cooldown since the last start; the budget of
 * cost and of runs a day. A person may override the cooldown, with a reason. Every cause that
 * matched a rule leaves a fact: trigger.fired or trigger.skipped.
 *
 * State: kv scope "retrain", key = model: {"last_ns", "starts_ns":[…of the last 24 h]}.
 */
#include "retrain/priv.h"

#define DAY_NS (INT64_C(86400) * NS_PER_S)

static NODISCARD int fact(struct meta *m, enum fact_type type, const struct retrain_request *q,
                          str why, str flow, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *data;

    arena_init(&a, 0);
    data = json_new_object(&a);
    json_set_str(&a, data, S("rule"), q->trigger);
    json_set_str(&a, data, S("cause"), q->kind);
    json_set_str(&a, data, S("model"), q->model);
    json_set_str(&a, data, S("endpoint"), q->endpoint);
    if (flow.n)
        json_set_str(&a, data, S("flow"), flow);
    if (type == FACT_TRIGGER_SKIPPED)
        json_set_str(&a, data, S("why"), why);
    return journal_append(
        m,
        &(struct fact_new){.type = type,
                           .subject = arena_printf(&a, "model/" STR_F, STR_A(q->model)),
                           .actor = q->actor,
                           .reason = type == FACT_TRIGGER_SKIPPED ? why : q->reason,
                           .correlation = q->correlation,
                           .data = data},
        NULL, e);
}

/* --- Guards ----------------------------------------------------------------------------------- */

static const struct json *trigger_of(const struct json *project, str name)
{
    return json_get(json_get(project, S("triggers")), name);
}

static int64_t starts_in_a_day(const struct json *state, int64_t now)
{
    const struct json *starts = json_get(state, S("starts_ns"));
    int64_t n = 0;

    if (json_is_container(starts))
        JSON_EACH (at, starts)
            n += now - json_int_or(at, 0) < DAY_NS;
    return n;
}

/* Why the request must not run now, or STR_NULL. */
static str objection(const struct json *project, const struct retrain_request *q,
                     const struct json *state, int64_t now, struct arena *a)
{
    const struct json *model = json_get(json_get(project, S("models")), q->model);
    const struct json *rule = trigger_of(project, q->trigger),
                      *budget = json_get(rule, S("budget"));
    const struct json *trainer = json_get(json_get(project, S("trainers")),
                                          json_str_or(json_get(model, S("trainer")), S("")));
    bool by_hand = str_eq(q->kind, S("manual"));
    int64_t cooldown = json_int_or(json_get(rule, S("cooldown_ns")), by_hand ? 0 : DAY_NS);
    int64_t last = json_int_or(json_get(state, S("last_ns")), 0);
    int64_t per_day = json_int_or(json_get(budget, S("max_per_day")), INT64_MAX);
    double cost = json_real_or(json_get(trainer, S("estimated_cost")), 0);

    if (!trainer)
        return arena_printf(a, "model '" STR_F "' has no trainer", STR_A(q->model));
    if (json_bool_or(json_get(model, S("regulated")), false) && !by_hand &&
        !str_eq(q->kind, S("schedule")))
        return S("the model is regulated: only a schedule or a person may retrain it");
    if (last && now - last < cooldown && !q->override_cooldown)
        return arena_printf(
            a, "cooldown: the last run began " STR_F " ago, at least " STR_F " apart",
            STR_A(time_duration_text(a, now - last)), STR_A(time_duration_text(a, cooldown)));
    if (!by_hand && starts_in_a_day(state, now) >= per_day)
        return arena_printf(a, "budget: %lld runs in 24 hours", (long long)per_day);
    if (budget && cost > json_real_or(json_get(budget, S("max_cost")), 1e300))
        return arena_printf(a, "budget: a run is estimated at %.2f USD", cost);
    return STR_NULL;
}

static NODISCARD int state_save(struct meta *m, str model, const struct json *state, int64_t now,
                                struct arena *a, struct err *e)
{
    struct json *fresh = json_new_object(a), *starts;
    const struct json *old = json_get(state, S("starts_ns"));

    json_set_int(a, fresh, S("last_ns"), now);
    starts = json_set(fresh, S("starts_ns"), json_new_array(a));
    if (json_is_container(old))
        JSON_EACH (at, old)
            if (now - json_int_or(at, 0) < DAY_NS)
                json_push(starts, json_new_int(a, json_int_or(at, 0)));
    json_push(starts, json_new_int(a, now));
    return meta_kv_put(m, S("retrain"), model, fresh, e);
}

/* --- Starting --------------------------------------------------------------------------------- */

static str endpoint_of(const struct json *project, str model)
{
    const struct json *endpoints = json_get(project, S("endpoints"));

    if (json_is_container(endpoints))
        JSON_EACH (endpoint, endpoints)
            if (str_eq(json_str_or(json_get(endpoint, S("model")), S("")), model))
                return endpoint->key;
    return S("");
}

static struct json *flow_input_of(const struct json *project, const struct retrain_request *q,
                                  struct arena *a)
{
    const struct json *rule = trigger_of(project, q->trigger);
    struct json *input = json_new_object(a);

    json_set_str(a, input, S("model"), q->model);
    json_set_str(a, input, S("endpoint"), q->endpoint);
    json_set_str(a, input, S("trigger"), q->trigger);
    json_set_str(a, input, S("kind"), q->kind);
    json_set_str(a, input, S("actor"), q->actor);
    json_set_str(a, input, S("reason"), q->reason);
    json_set_int(a, input, S("changed_ns"), q->changed_ns);
    json_set_bool(a, input, S("review"),
                  str_eq(json_str_or(json_get(rule, S("policy")), S("auto")), S("review")));
    json_set_int(a, input, S("labels_min"), json_int_or(json_path(rule, "require.labels_min"), 0));
    json_set_int(a, input, S("labels_wait_ns"), json_int_or(json_path(rule, "require.wait_ns"), 0));
    json_set_int(a, input, S("asked_ns"), time_wall_ns());
    if (q->cause)
        json_set(input, S("cause"), json_copy(a, q->cause));
    return input;
}

static NODISCARD int start(struct meta *m, const struct json *project,
                           const struct retrain_request *q, struct arena *a, bool *ret_started,
                           char ret_flow[UUID_SIZE], struct err *e)
{
    int64_t now = time_wall_ns();
    struct flow_started started;
    struct json *state;
    str key = arena_printf(a, "retrain/" STR_F, STR_A(q->model)), why;

    *ret_started = false;
    TRY(flow_find(m, key, ret_flow, e));
    if (ret_flow[0])
        return fact(m, FACT_TRIGGER_SKIPPED, q,
                    S("a run of this model is in flight: it covers this too"), str_of(ret_flow), e);
    TRY(meta_kv_get(m, S("retrain"), q->model, a, &state, e));
    why = objection(project, q, state, now, a);
    if (why.p)
        return fact(m, FACT_TRIGGER_SKIPPED, q, why, STR_NULL, e);
    TRY(flow_start(m,
                   &(struct flow_start){.type = "retrain",
                                        .input = flow_input_of(project, q, a),
                                        .dedup_key = key,
                                        .correlation = q->correlation},
                   &started, e));
    memcpy(ret_flow, started.id, UUID_SIZE);
    *ret_started = true;
    TRY(state_save(m, q->model, state, now, a, e));
    return fact(m, FACT_TRIGGER_FIRED, q, STR_NULL, str_of(started.id), e);
}

int retrain_start(const struct retrain_env *env, struct meta *m, const struct json *project,
                  const struct retrain_request *request, bool *ret_started,
                  char ret_flow[UUID_SIZE], struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    AUTO(arena_done) struct arena a = {0};
    struct retrain_request q = *request;

    (void)env;
    arena_init(&a, 0);
    if (!json_get(json_get(project, S("models")), q.model))
        return FAIL(e, NOT_FOUND, "the project has no model '" STR_F "'", STR_A(q.model));
    if (!q.endpoint.n)
        q.endpoint = endpoint_of(project, q.model);
    TRY(meta_begin(m, &tx, e));
    TRY(start(m, project, &q, &a, ret_started, ret_flow, e));
    return meta_commit(&tx, e);
}

/* --- Facts ------------------------------------------------------------------------------------ */

static int severity_rank(str name)
{
    static const str order[] = {S_INIT("ok"), S_INIT("watch"), S_INIT("moderate"),
                                S_INIT("severe")};

    for (size_t i = 0; i < ARRAY_LEN(order); i++)
        if (str_eq(order[i], name))
            return (int)i;
    return 0;
}

/* When the change began, by the fact: its window's end less the delay that the detector estimates.
 */
static int64_t changed_at(const struct fact *f, const struct json *data)
{
    double seconds = json_real_or(json_path(data, "detection_latency.seconds"), 0);

    return f->at_ns - (int64_t)(CLAMP(seconds, 0.0, 86400.0) * 1e9);
}

static bool concerns(const struct json *rule, const struct fact *f, const struct json *data)
{
    str on = json_str_or(json_get(rule, S("on")), S("")), endpoint, model;
    bool concept = str_eq(json_str_or(json_get(data, S("kind")), S("")), S("concept"));

    if (!str_starts(f->type, S("drift.")) ||
        !(str_eq(on, S("drift")) || str_eq(on, S("performance"))))
        return false;
    if (str_eq(on, S("performance")) && !concept)
        return false;
    endpoint = json_str_or(json_get(rule, S("endpoint")), STR_NULL);
    model = json_str_or(json_get(rule, S("model")), STR_NULL);
    if (endpoint.n && !str_eq(endpoint, json_str_or(json_get(data, S("endpoint")), S(""))))
        return false;
    if (!endpoint.n && model.n && !str_eq(model, json_str_or(json_get(data, S("model")), S(""))))
        return false;
    return severity_rank(json_str_or(json_get(data, S("severity")), S(""))) >=
           severity_rank(json_str_or(json_get(rule, S("min_severity")), S("severe")));
}

/* A change of the project that makes old versions unfit for new requests. */
static bool is_schema_change(const struct json *rule, const struct fact *f, const struct json *data)
{
    str model = json_str_or(json_get(rule, S("model")), S(""));
    const struct json *changes = json_get(data, S("changes"));

    if (!str_eq(f->type, S("project.applied")) ||
        !str_eq(json_str_or(json_get(rule, S("on")), S("")), S("schema_change")) ||
        !json_is_container(changes))
        return false;
    JSON_EACH (change, changes) {
        str path = json_str_or(json_get(change, S("path")), S(""));

        if (str_eq(json_str_or(json_get(change, S("effect")), S("")), S("retrain")) &&
            str_find(path, model) >= 0)
            return true;
    }
    return false;
}

int retrain_on_fact(const struct retrain_env *env, struct meta *m, const struct json *project,
                    const struct fact *f, struct err *e)
{
    const struct json *rules = json_get(project, S("triggers"));
    AUTO(arena_done) struct arena a = {0};
    struct json *data;

    if (!json_is_container(rules) ||
        !(str_eq(f->type, S("drift.detected")) || str_eq(f->type, S("drift.escalated")) ||
          str_eq(f->type, S("project.applied"))))
        return 0;
    arena_init(&a, 0);
    TRY(json_parse(f->data, &a, &data, e));
    JSON_EACH (rule, rules) {
        char flow[UUID_SIZE];
        bool started;

        if (!concerns(rule, f, data) && !is_schema_change(rule, f, data))
            continue;
        TRY(retrain_start(
            env, m, project,
            &(struct retrain_request){
                .model = json_str_or(json_get(rule, S("model")), S("")),
                .endpoint = json_str_or(json_get(data, S("endpoint")), S("")),
                .trigger = rule->key,
                .kind = json_str_or(json_get(rule, S("on")), S("drift")),
                .actor = arena_printf(&a, "trigger:" STR_F, STR_A(rule->key)),
                .reason = f->reason,
                .correlation = f->correlation,
                .cause = data,
                .changed_ns = str_starts(f->type, S("drift.")) ? changed_at(f, data) : 0},
            &started, flow, e));
    }
    return 0;
}

/* --- Clocks and volumes ----------------------------------------------------------------------- */

static NODISCARD int by_schedule(const struct retrain_env *env, struct meta *m,
                                 const struct json *project, const struct json *rule, int64_t now,
                                 struct arena *a, bool *ret_due, struct err *e)
{
    str key = arena_printf(a, "schedule/" STR_F, STR_A(rule->key));
    struct json *state;
    int64_t last;

    (void)project;
    TRY(meta_kv_get(m, S("retrain"), key, a, &state, e));
    last = json_int_or(json_get(state, S("looked_ns")), 0);
    *ret_due =
        last && env->ports.cron_next(env->ports.ctx, json_str_or(json_get(rule, S("cron")), S("")),
                                     last) <= now;
    if (last && !*ret_due)
        return 0;
    state = json_new_object(a);
    json_set_int(a, state, S("looked_ns"), now);
    return meta_kv_put(m, S("retrain"), key, state, e);
}

/* Labels are counted from the last run, or from the last time this rule was due and refused. */
static NODISCARD int by_volume(const struct retrain_env *env, struct meta *m,
                               const struct json *rule, str endpoint, int64_t now, struct arena *a,
                               bool *ret_due, struct err *e)
{
    str key = arena_printf(a, "volume/" STR_F, STR_A(rule->key));
    struct json *run, *looked;
    int64_t since;

    TRY(meta_kv_get(m, S("retrain"), json_str_or(json_get(rule, S("model")), S("")), a, &run, e));
    TRY(meta_kv_get(m, S("retrain"), key, a, &looked, e));
    since = MAX(json_int_or(json_get(run, S("last_ns")), 0),
                json_int_or(json_get(looked, S("looked_ns")), 0));
    *ret_due = env->ports.labels_since(env->ports.ctx, endpoint, since) >=
               json_int_or(json_get(rule, S("labels")), INT64_MAX);
    if (!*ret_due)
        return 0;
    looked = json_new_object(a);
    json_set_int(a, looked, S("looked_ns"), now);
    return meta_kv_put(m, S("retrain"), key, looked, e);
}

int retrain_tick(const struct retrain_env *env, struct meta *m, const struct json *project,
                 int64_t wall_ns, struct err *e)
{
    const struct json *rules = json_get(project, S("triggers"));
    AUTO(arena_done) struct arena a = {0};

    arena_init(&a, 0);
    if (!json_is_container(rules))
        return 0;
    JSON_EACH (rule, rules) {
        str on = json_str_or(json_get(rule, S("on")), S(""));
        str model = json_str_or(json_get(rule, S("model")), S(""));
        str endpoint = json_str_or(json_get(rule, S("endpoint")), endpoint_of(project, model));
        char flow[UUID_SIZE];
        bool due = false, started;

        if (str_eq(on, S("schedule")))
            TRY(by_schedule(env, m, project, rule, wall_ns, &a, &due, e));
        else if (str_eq(on, S("volume")))
            TRY(by_volume(env, m, rule, endpoint, wall_ns, &a, &due, e));
        if (due)
            TRY(retrain_start(env, m, project,
                              &(struct retrain_request){
                                  .model = model,
                                  .endpoint = endpoint,
                                  .trigger = rule->key,
                                  .kind = on,
                                  .actor = arena_printf(&a, "trigger:" STR_F, STR_A(rule->key)),
                                  .reason = str_eq(on, S("volume"))
                                                ? S("enough new labels came")
                                                : S("it is time by the schedule")},
                              &started, flow, e));
    }
    return 0;
}
