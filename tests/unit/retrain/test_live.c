/* SPDX-License-Identifier: Apache-2.0 */
/* The versions that answer on an endpoint: what a candidate must beat. */
#include "retrain/priv.h"
#include "world.h"

static void version(int64_t v, const char *alias)
{
    CHECK_OK(meta_exec(m,
                       "INSERT INTO model_versions (model, version, artifact, status, meta,"
                       " created_ns) VALUES ('fraud', ?, 'x', 'ready', '{}', 0)",
                       M_ARGS(M_INT(v)), &e),
             &e);
    if (alias)
        CHECK_OK(meta_exec(m,
                           "INSERT INTO aliases (model, alias, version, updated_ns) VALUES"
                           " ('fraud', ?, ?, 0)",
                           M_ARGS(M_STR(str_of(alias)), M_INT(v)), &e),
                 &e);
}

static struct live of(const char *endpoint, const char *endpoints)
{
    struct json *project = json_new_object(&world_arena);
    struct live live = {0};

    json_set(project, S("endpoints"), json_of(endpoints));
    CHECK_OK(live_versions(m, project, str_of(endpoint), S("fraud"), &live, &e), &e);
    return live;
}

static void test_live(void)
{
    struct live l;

    world_open(true);
    CHECK_OK(
        meta_exec(
            m,
            "INSERT INTO models (name, meta, created_ns, updated_ns) VALUES ('fraud', '{}', 0, 0)",
            M_NO_ARGS, &e),
        &e);
    version(1, "stable");
    version(2, "champion");
    version(3, NULL);
    l = of("pay", "{'pay':{'model':'fraud'}}");
    CHECK(l.n == 1 && l.versions[0] == 2);
    l = of("pay", "{'pay':{'model':'fraud','alias':'stable'}}");
    CHECK(l.n == 1 && l.versions[0] == 1);
    l = of("pay", "{'pay':{'model':'fraud','alias':'new'}}"); /* nobody answers yet */
    CHECK_INT(l.n, 0);
    l = of("pay", "{'pay':{'model':'fraud','versions':{'1':0.5,'2':0,'3':0.5}}}");
    CHECK(l.n == 2 && l.versions[0] == 1 && l.versions[1] == 3);
    l = of("", "{}"); /* no endpoint: the champion */
    CHECK(l.n == 1 && l.versions[0] == 2);
    world_close();
}

static struct fact drift_of(const char *endpoint, int64_t v)
{
    struct json *data = json_of("{'model':'fraud','kind':'input','severity':'severe'}");
    struct fact_ref ref = {0};
    struct fact *facts;
    size_t n;

    json_set_str(&world_arena, data, S("endpoint"), str_of(endpoint));
    json_set_str(&world_arena, data, S("version"),
                 arena_printf(&world_arena, "%lld", (long long)v));
    CHECK_OK(journal_append(m,
                            &(struct fact_new){.type = FACT_DRIFT_DETECTED,
                                               .subject = S("endpoint/pay"),
                                               .actor = S("weir"),
                                               .data = data},
                            &ref, &e),
             &e);
    CHECK_OK(journal_read(m, &(struct journal_query){.after_seq = ref.seq - 1, .limit = 1},
                          &world_arena, &facts, &n, &e),
             &e);
    return facts[0];
}

/* Version 1 is replaced where the champion answers, and live where "stable" does. */
static void test_replaced_is_by_endpoint(void)
{
    struct json *project;
    struct fact f;

    world_open(true);
    CHECK_OK(
        meta_exec(
            m,
            "INSERT INTO models (name, meta, created_ns, updated_ns) VALUES ('fraud', '{}', 0, 0)",
            M_NO_ARGS, &e),
        &e);
    version(1, "stable");
    version(2, "champion");
    project =
        apply("{'models':{'fraud':{'task':'classification','trainer':'t'}},"
              "'trainers':{'t':{'kind':'xgboost'}},"
              "'endpoints':{'pay':{'model':'fraud'},'old':{'model':'fraud','alias':'stable'}},"
              "'triggers':{'a':{'on':'drift','endpoint':'pay','model':'fraud',"
              "'min_severity':'moderate'},'b':{'on':'drift','endpoint':'old',"
              "'model':'fraud','min_severity':'moderate'}}}");
    f = drift_of("pay", 1);
    CHECK_OK(retrain_on_fact(&env, m, project, &f, &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 0);
    f = drift_of("old", 1);
    CHECK_OK(retrain_on_fact(&env, m, project, &f, &e), &e);
    CHECK_INT(fact_count("trigger.fired"), 1);
    CHECK_STR(fact_text("trigger.fired", "data.endpoint"), S("old"));
    world_close();
}

RUN_TESTS(T(test_live), T(test_replaced_is_by_endpoint))
