/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trigger rules: which facts, hours and label counts are a cause. What holds a cause back is
 * start.c's business; here every rule that matches asks.
 *
 * State, all in kv scope "retrain": schedule/<rule> {"looked_ns","cron"}: hours up to looked_ns are
 * dealt with, so that one that passed while control was down fires once at its start;
 * volume/<rule> {"again_ns"}: when to ask again after a refusal.
 */
#include "retrain/priv.h"

#define AGAIN_MIN_NS (10 * NS_PER_S)
#define AGAIN_MAX_NS (3600 * NS_PER_S)

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

/* When the change began, by the fact: its time less the delay that the detector estimates. */
/* The journal's time never goes back: after the date was put back it is ahead of what records say.
 */
static int64_t changed_at(const struct fact *f, const struct json *data)
{
    double seconds = json_real_or(json_path(data, "detection_latency.seconds"), 0);

    return MIN(f->at_ns, time_wall_ns()) - (int64_t)(CLAMP(seconds, 0.0, 86400.0) * 1e9);
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
    endpoint = json_str_or(json_get(rule, S("endpoint")), S(""));
    model = json_str_or(json_get(rule, S("model")), S(""));
    if (endpoint.n && !str_eq(endpoint, json_str_or(json_get(data, S("endpoint")), S(""))))
        return false;
    if (!endpoint.n && !str_eq(model, json_str_or(json_get(data, S("model")), S(""))))
        return false;
    return severity_rank(json_str_or(json_get(data, S("severity")), S(""))) >=
           severity_rank(json_str_or(json_get(rule, S("min_severity")), S("severe")));
}

/* "models.fraud.features[0].type" is of model "fraud", not of "fra". */
static bool path_is_of_model(str path, str model)
{
    if (!str_starts(path, S("models.")))
        return false;
    path = str_skip(path, S("models.").n);
    if (!str_starts(path, model))
        return false;
    path = str_skip(path, model.n);
    return !path.n || path.p[0] == '.' || path.p[0] == '[';
}

/* A change of the project that makes the versions made so far unfit for new requests. */
static bool is_schema_change(const struct json *rule, const struct fact *f, const struct json *data)
{
    str model = json_str_or(json_get(rule, S("model")), S(""));
    const struct json *changes = json_get(data, S("changes"));

    if (!str_eq(f->type, S("project.applied")) ||
        !str_eq(json_str_or(json_get(rule, S("on")), S("")), S("schema_change")) ||
        !json_is_container(changes))
        return false;
    JSON_EACH (change, changes)
        if (str_eq(json_str_or(json_get(change, S("effect")), S("")), S("retrain")) &&
            path_is_of_model(json_str_or(json_get(change, S("path")), S("")), model))
            return true;
    return false;
}

bool retrain_wants_fact(str type)
{
    return str_eq(type, S("drift.detected")) || str_eq(type, S("drift.escalated")) ||
           str_eq(type, S("project.applied"));
}

/* A version that was replaced is told of its drift for as long as its last records come in. That is
 * no reason to train again: its successor is what the next fact will speak of. */
static NODISCARD int is_of_replaced_version(struct meta *m, const struct json *project,
                                            const struct json *data, bool *ret, struct err *e)
{
    struct live live;
    int64_t version;

    *ret = false;
    if (!str_to_i64(json_str_or(json_get(data, S("version")), S("")), &version))
        return 0;
    TRY(live_versions(m, project, json_str_or(json_get(data, S("endpoint")), S("")),
                      json_str_or(json_get(data, S("model")), S("")), &live, e));
    for (size_t i = 0; i < live.n; i++)
        if (live.versions[i] <= version)
            return 0;
    *ret = live.n > 0;
    return 0;
}

int retrain_on_fact(const struct retrain_env *env, struct meta *m, const struct json *project,
                    const struct fact *f, struct err *e)
{
    const struct json *rules = json_get(project, S("triggers"));
    AUTO(arena_done) struct arena a = {0};
    struct json *data;
    bool replaced;

    if (!json_is_container(rules) || !retrain_wants_fact(f->type))
        return 0;
    arena_init(&a, 0);
    TRY(json_parse(f->data, &a, &data, e));
    TRY(is_of_replaced_version(m, project, data, &replaced, e));
    JSON_EACH (rule, rules) {
        bool drift = !replaced && concerns(rule, f, data);
        struct retrain_answer answer;

        if (!drift && !is_schema_change(rule, f, data))
            continue;
        TRY(retrain_ask(env, m, project,
                        &(struct retrain_request){
                            .model = json_str_or(json_get(rule, S("model")), S("")),
                            .endpoint = json_str_or(json_get(data, S("endpoint")), S("")),
                            .trigger = rule->key,
                            .kind = json_str_or(json_get(rule, S("on")), S("drift")),
                            .actor = arena_printf(&a, "trigger:" STR_F, STR_A(rule->key)),
                            .reason = drift ? f->reason : S("the inputs of the model changed"),
                            .correlation = f->correlation,
                            .cause = drift ? data : NULL,
                            .changed_ns = drift ? changed_at(f, data) : 0},
                        &answer, e));
    }
    return 0;
}

/* --- Clocks and volumes ----------------------------------------------------------------------- */

struct tick {
    const struct retrain_env *env;
    struct meta *m;
    const struct json *project, *rule;
    struct arena *a;
    int64_t now;
};

static NODISCARD int ask(const struct tick *t, str reason, bool *ret_started, struct err *e)
{
    str model = json_str_or(json_get(t->rule, S("model")), S(""));
    struct retrain_answer answer;

    TRY(retrain_ask(t->env, t->m, t->project,
                    &(struct retrain_request){
                        .model = model,
                        .endpoint = json_str_or(json_get(t->rule, S("endpoint")), S("")),
                        .trigger = t->rule->key,
                        .kind = json_str_or(json_get(t->rule, S("on")), S("")),
                        .actor = arena_printf(t->a, "trigger:" STR_F, STR_A(t->rule->key)),
                        .reason = reason},
                    &answer, e));
    *ret_started = answer.started;
    return 0;
}

static NODISCARD int by_schedule(const struct tick *t, struct err *e)
{
    str key = arena_printf(t->a, "schedule/" STR_F, STR_A(t->rule->key));
    str cron = json_str_or(json_get(t->rule, S("cron")), S(""));
    struct json *state;
    int64_t looked;
    bool known, started;

    TRY(meta_kv_get(t->m, S("retrain"), key, t->a, &state, e));
    looked = json_int_or(json_get(state, S("looked_ns")), 0);
    /* From before the date was put back: that is no reason to be silent until it comes again. */
    known =
        looked && looked <= t->now && str_eq(json_str_or(json_get(state, S("cron")), S("")), cron);
    if (known && t->env->ports.cron_next(t->env->ports.ctx, cron, looked) > t->now)
        return 0;
    state = json_new_object(t->a);
    json_set_int(t->a, state, S("looked_ns"), t->now);
    json_set_str(t->a, state, S("cron"), cron);
    TRY(meta_kv_put(t->m, S("retrain"), key, state, e));
    return known ? ask(t, S("it is time by the schedule"), &started, e) : 0;
}

/* Labels count from the start of the last run. A refusal is repeated now and then, not each second:
 * the labels that came stay a reason. */
static NODISCARD int by_volume(const struct tick *t, struct err *e)
{
    str key = arena_printf(t->a, "volume/" STR_F, STR_A(t->rule->key));
    str model = json_str_or(json_get(t->rule, S("model")), S(""));
    str endpoint = json_str_or(json_get(t->rule, S("endpoint")), S(""));
    const struct retrain_ports *p = &t->env->ports;
    struct json *run, *state;
    int64_t fresh, again, wait;
    bool started;

    if (!endpoint.n)
        endpoint = model_endpoint(t->project, model);
    TRY(meta_kv_get(t->m, S("retrain"), model, t->a, &run, e));
    fresh = p->labels_total(p->ctx, endpoint) - json_int_or(json_get(run, S("labels_total")), 0);
    if (fresh < json_int_or(json_get(t->rule, S("labels")), INT64_MAX))
        return 0;
    TRY(meta_kv_get(t->m, S("retrain"), key, t->a, &state, e));
    wait = json_int_or(json_get(state, S("again_ns")), 0) - t->now;
    if (wait > 0 && wait <= AGAIN_MAX_NS) /* more is from before the date was put back */
        return 0;
    TRY(ask(t, arena_printf(t->a, "%lld labels came since the last run", (long long)fresh),
            &started, e));
    again = json_int_or(json_get(t->rule, S("cooldown_ns")), 0) / 10;
    state = json_new_object(t->a);
    json_set_int(t->a, state, S("again_ns"),
                 started ? 0 : t->now + CLAMP(again, AGAIN_MIN_NS, AGAIN_MAX_NS));
    return meta_kv_put(t->m, S("retrain"), key, state, e);
}

/* One rule, one transaction: what it remembers and what it starts hold together. */
static NODISCARD int tick_rule(const struct tick *t, struct err *e)
{
    str on = json_str_or(json_get(t->rule, S("on")), S(""));
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    bool schedule = str_eq(on, S("schedule"));

    if (!schedule && !str_eq(on, S("volume")))
        return 0;
    TRY(meta_begin(t->m, &tx, e));
    TRY(schedule ? by_schedule(t, e) : by_volume(t, e));
    return meta_commit(&tx, e);
}

int retrain_tick(const struct retrain_env *env, struct meta *m, const struct json *project,
                 int64_t wall_ns, struct err *e)
{
    const struct json *rules = json_get(project, S("triggers"));
    AUTO(arena_done) struct arena a = {0};
    struct tick t = {.env = env, .m = m, .project = project, .a = &a, .now = wall_ns};
    int first = 0;

    arena_init(&a, 0);
    if (!json_is_container(rules))
        return 0;
    JSON_EACH (rule, rules) { /* one that fails does not hold up the others */
        struct err why;
        int rc;

        t.rule = rule;
        rc = tick_rule(&t, &why);
        if (rc && !first) {
            first = rc;
            *e = why;
        }
    }
    return first;
}
