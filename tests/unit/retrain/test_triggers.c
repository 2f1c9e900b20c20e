/* SPDX-License-Identifier: Apache-2.0 */
/* Trigger rules on the virtual clock: what starts a run, what holds it back, what is remembered. */
#include "world.h"

#define HOUR_NS (3600 * NS_PER_S)
#define RULE                                                                  \
    "'min_severity':'moderate','policy':'auto','cooldown_ns':86400000000000," \
    "'budget':{'max_cost':500,'max_per_day':4},'require':{'labels_min':0,'wait_ns':0}"
#define PROJECT(trigger, model)                                       \
    "{'models':{'fraud':{'task':'classification','trainer':'t'" model \
    "},'fraudster':{'task':'classification','trainer':'t'}},"         \
    "'trainers':{'t':{'kind':'xgboost','estimated_cost':20}},"        \
    "'endpoints':{'pay':{'model':'fraud'}},'triggers':{" trigger "}}"
#define DRIFT_RULE "'on-drift':{'on':'drift','endpoint':'pay','model':'fraud'," RULE "}"

static struct fact drift(const char *data)
{
    struct json *node = json_of(data);
    struct fact_ref ref = {0};
    struct fact *facts;
    size_t n;

    CHECK_OK(journal_append(m,
                            &(struct fact_new){.type = FACT_DRIFT_DETECTED,
                                               .subject = S("endpoint/pay"),
                                               .actor = S("weir"),
                                               .reason = S("it moved"),
                                               .data = node},
                            &ref, &e),
             &e);
    CHECK_OK(journal_read(m, &(struct journal_query){.after_seq = ref.seq - 1, .limit = 1},
                          &world_arena, &facts, &n, &e),
             &e);
    return facts[0];
}

static const char severe[] = "{'endpoint':'pay','model':'fraud','kind':'input','severity':'severe',"
                             "'detection_latency':{'seconds':5},'feature':'amount'}";

static struct json *only_flow(void)
{
    struct json *list = NULL, *flow = NULL;

    CHECK_OK(flow_list(m, &(struct flow_query){.type = S("retrain")}, &world_arena, &list, &e), &e);
    if (!CHECK(list && list->count == 1))
        return NULL;
    CHECK_OK(
        flow_show(m, json_str_or(json_get(list->first, S("id")), S("")), &world_arena, &flow, &e),
        &e);
    return flow;
}

static void end_flows(void)
{
    CHECK_OK(meta_exec(m, "UPDATE wf SET state = 'done', ended_ns = 1", M_NO_ARGS, &e), &e);
}

static void test_drift_fires_once_and_joins(void)
{
    struct json *project, *flow;
    struct fact f;

    world_open(true);
    project = apply(PROJECT(DRIFT_RULE, ""));
    port.labels_total = 100;
    port.labels_since = 30;
    f = drift(severe);
    CHECK_OK(retrain_on_fact(&env, m, project, &f, &e), &e);
    flow = only_flow();
    CHECK_INT(json_int_or(json_path(flow, "input.changed_ns"), 0), f.at_ns - 5 * NS_PER_S);
    CHECK_INT(json_int_or(json_path(flow, "input.labels_base"), 0), 70);
    CHECK_STR(json_str_or(json_path(flow, "correlation"), S("")), f.correlation);
    CHECK_STR(fact_text("trigger.fired", "correlation"), f.correlation);
    CHECK_STR(fact_text("trigger.fired", "data.metadata.feature"), S("amount"));
    /* The same story escalates while the run is in flight. */
    CHECK_OK(retrain_on_fact(&env, m, project, &f, &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 1);
    CHECK_INT(fact_count("trigger.skipped"), 1);
    CHECK_STR(fact_text("trigger.skipped", "data.flow"),
              json_str_or(json_path(flow, "id"), S("?")));
    world_close();
}

static void test_what_is_no_cause(void)
{
    struct json *project;
    struct fact f;

    world_open(true);
    project = apply(PROJECT(DRIFT_RULE, ""));
    f = drift("{'endpoint':'pay','model':'fraud','kind':'input','severity':'watch'}");
    CHECK_OK(retrain_on_fact(&env, m, project, &f, &e), &e);
    f = drift("{'endpoint':'other','model':'fraud','kind':'input','severity':'severe'}");
    CHECK_OK(retrain_on_fact(&env, m, project, &f, &e), &e);
    project =
        apply(PROJECT("'p':{'on':'performance','endpoint':'pay','model':'fraud'," RULE "}", ""));
    f = drift(severe); /* of inputs, not of labels */
    CHECK_OK(retrain_on_fact(&env, m, project, &f, &e), &e);
    CHECK_INT(fact_count("trigger"), 0);
    f = drift("{'endpoint':'pay','model':'fraud','kind':'concept','severity':'severe'}");
    CHECK_OK(retrain_on_fact(&env, m, project, &f, &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 1);
    world_close();
}

static struct retrain_answer ask_by(const struct json *project, const char *kind, bool override,
                                    const char *reason)
{
    struct retrain_answer answer = {0};

    CHECK_OK(retrain_ask(&env, m, project,
                         &(struct retrain_request){.model = S("fraud"),
                                                   .trigger = str_of(kind),
                                                   .kind = str_of(kind),
                                                   .actor = S("user:ann"),
                                                   .reason = str_of(reason),
                                                   .override_cooldown = override},
                         &answer, &e),
             &e);
    return answer;
}

static void test_cooldown_and_override(void)
{
    struct json *project;
    struct retrain_answer answer;

    world_open(true);
    project = apply(PROJECT(DRIFT_RULE, ""));
    answer = ask_by(project, "manual", false, "first");
    CHECK(answer.started);
    CHECK(str_eq(fact_text("trigger.fired", "correlation"),
                 json_str_or(json_path(only_flow(), "correlation"), S("?"))));
    end_flows();
    time_test_advance(23 * HOUR_NS);
    answer = ask_by(project, "manual", false, "again");
    CHECK(!answer.started && strstr(answer.why, "cooldown"));
    CHECK_FAILS(retrain_ask(&env, m, project,
                            &(struct retrain_request){.model = S("fraud"),
                                                      .trigger = S("manual"),
                                                      .kind = S("manual"),
                                                      .actor = S("user:ann"),
                                                      .reason = S(" "),
                                                      .override_cooldown = true},
                            &answer, &e),
                INVALID_ARGUMENT, &e, "reason");
    answer = ask_by(project, "manual", true, "the regulator asked");
    CHECK(answer.started);
    end_flows();
    time_test_advance(25 * HOUR_NS);
    CHECK(ask_by(project, "manual", false, "next day").started);
    world_close();
}

static void test_budget(void)
{
    struct json *project;
    struct retrain_answer answer;

    world_open(true);
    project = apply(PROJECT("'m':{'on':'manual','model':'fraud','cooldown_ns':0,'policy':'review',"
                            "'budget':{'max_cost':500,'max_per_day':2}}",
                            ""));
    for (int i = 0; i < 2; i++) {
        CHECK(ask_by(project, "manual", false, "x").started);
        time_test_advance(HOUR_NS);
        end_flows();
    }
    answer = ask_by(project, "manual", false, "x");
    CHECK(!answer.started && strstr(answer.why, "2 runs"));
    time_test_advance(23 * HOUR_NS);
    CHECK(ask_by(project, "manual", false, "x").started);
    end_flows();
    project = apply(PROJECT("'m':{'on':'manual','model':'fraud','cooldown_ns':0,"
                            "'budget':{'max_cost':10,'max_per_day':null}}",
                            ""));
    answer = ask_by(project, "manual", false, "x");
    CHECK(!answer.started && strstr(answer.why, "20.00 USD"));
    world_close();
}

static void test_regulated(void)
{
    struct json *project;
    struct fact f;

    world_open(true);
    project = apply(PROJECT(DRIFT_RULE, ",'regulated':true"));
    f = drift(severe);
    CHECK_OK(retrain_on_fact(&env, m, project, &f, &e), &e);
    CHECK(str_find(fact_text("trigger.skipped", "data.why"), S("regulated")) >= 0);
    CHECK(ask_by(project, "manual", false, "by hand").started);
    CHECK(json_bool_or(json_path(only_flow(), "input.review"), false));
    world_close();
}

static struct fact applied(const char *changes)
{
    struct fact *facts;
    struct fact_ref ref = {0};
    size_t n;

    CHECK_OK(journal_append(m,
                            &(struct fact_new){.type = FACT_PROJECT_APPLIED,
                                               .subject = S("project"),
                                               .actor = S("user:ann"),
                                               .data = json_of(changes)},
                            &ref, &e),
             &e);
    CHECK_OK(journal_read(m, &(struct journal_query){.after_seq = ref.seq - 1, .limit = 1},
                          &world_arena, &facts, &n, &e),
             &e);
    return facts[0];
}

static void test_schema_change(void)
{
    struct json *project;
    struct fact f;

    world_open(true);
    project = apply(PROJECT("'s':{'on':'schema_change','model':'fraud'," RULE "}", ""));
    f = applied("{'changes':[{'path':'models.fraudster.features[0].type','effect':'retrain'},"
                "{'path':'models.fraud.owner','effect':'shown'}]}");
    CHECK_OK(retrain_on_fact(&env, m, project, &f, &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 0);
    f = applied("{'changes':[{'path':'models.fraud.features.age','effect':'retrain'}]}");
    CHECK_OK(retrain_on_fact(&env, m, project, &f, &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 1);
    CHECK_STR(fact_text("trigger.fired", "correlation"), f.correlation);
    world_close();
}

/* An hour that passes while nobody looks fires once; a new expression starts anew. */
static void test_schedule_across_restart(void)
{
    struct json *project;

    world_open(true);
    project = apply(
        PROJECT("'s':{'on':'schedule','model':'fraud','cron':'0 * * * *','cooldown_ns':0}", ""));
    port.cron_next = HOUR_NS;
    CHECK_OK(retrain_tick(&env, m, project, time_wall_ns(), &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 0);
    time_test_advance(30 * 60 * NS_PER_S);
    CHECK_OK(retrain_tick(&env, m, project, time_wall_ns(), &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 0);
    time_test_advance(50 * HOUR_NS);
    for (int i = 0; i < 3; i++)
        CHECK_OK(retrain_tick(&env, m, project, time_wall_ns(), &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 1);
    project = apply(
        PROJECT("'s':{'on':'schedule','model':'fraud','cron':'5 * * * *','cooldown_ns':0}", ""));
    time_test_advance(50 * HOUR_NS);
    CHECK_OK(retrain_tick(&env, m, project, time_wall_ns(), &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 1);
    world_close();
}

/* Labels stay a reason while a cooldown holds them back, and are not told every second. */
static void test_volume(void)
{
    struct json *project;

    world_open(true);
    project = apply(PROJECT(
        "'v':{'on':'volume','model':'fraud','labels':1000,'cooldown_ns':36000000000000}", ""));
    port.labels_total = 999;
    CHECK_OK(retrain_tick(&env, m, project, time_wall_ns(), &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 0);
    port.labels_total = 1000;
    CHECK_OK(retrain_tick(&env, m, project, time_wall_ns(), &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 1);
    end_flows();
    port.labels_total = 2000;
    for (int i = 0; i < 600; i++) {
        time_test_advance(NS_PER_S);
        CHECK_OK(retrain_tick(&env, m, project, time_wall_ns(), &e), &e);
    }
    CHECK_INT(fact_count("trigger.skipped"), 1);
    time_test_advance(10 * HOUR_NS);
    CHECK_OK(retrain_tick(&env, m, project, time_wall_ns(), &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 2);
    world_close();
}

/* A date that was a year ahead and is put right keeps nobody from a run until it comes again. */
static void test_date_put_back(void)
{
    struct json *project;

    world_open(true);
    project = apply(PROJECT(DRIFT_RULE, ""));
    time_test_step_wall(365 * 24 * HOUR_NS);
    CHECK(ask_by(project, "manual", false, "because").started);
    end_flows();
    CHECK(!ask_by(project, "manual", false, "because").started); /* the cooldown */
    time_test_step_wall(-365 * 24 * HOUR_NS);
    CHECK(ask_by(project, "manual", false, "because").started);
    end_flows();
    time_test_step_wall(-2 * HOUR_NS); /* a little: the cooldown holds */
    CHECK(!ask_by(project, "manual", false, "because").started);
    world_close();
}

RUN_TESTS(T(test_date_put_back), T(test_drift_fires_once_and_joins), T(test_what_is_no_cause),
          T(test_cooldown_and_override), T(test_budget), T(test_regulated), T(test_schema_change),
          T(test_schedule_across_restart), T(test_volume))
