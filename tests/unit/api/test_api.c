/* SPDX-License-Identifier: Apache-2.0 */
/* The control API over real sockets and a real store: projects, models, stories, and who may ask.
 */
#include "api/api.h"
#include "api/priv.h"

#include "base/files.h"
#include "base/time.h"
#include "check.h"
#include "cli/http.h"
#include "project/project.h"

#include <pthread.h>
#include <unistd.h>

static struct {
    char dir[64], address[128], tcp[64];
    struct loop *loop;
    struct meta_store *store;
    struct meta *m;
    struct rollouts *rollouts;
    struct api *api;
    pthread_t thread;
    int changes; /* times that `changed` was called */
} t;
static struct arena a;
static struct err e;

static void on_changed(void *ctx)
{
    (void)ctx;
    t.changes++;
}

static void on_status(void *ctx, struct json_out *o)
{
    (void)ctx;
    jo_kstr(o, S("plan"), S("abc"));
}

static void *serve(void *arg)
{
    (void)arg;
    loop_run(t.loop);
    return NULL;
}

static void start(void)
{
    struct api_context ctx = {.status = on_status, .changed = on_changed};
    char path[96];

    arena_init(&a, 0);
    snprintf(t.dir, sizeof(t.dir), "/tmp/weir-api-XXXXXX");
    CHECK(check_mkdtemp(t.dir) != NULL);
    t.changes = 0;
    CHECK_OK(meta_store_open(t.dir, NULL, &t.store, &e), &e);
    CHECK_OK(meta_open(t.store, &t.m, &e), &e);
    CHECK_OK(rollouts_new(t.m, &t.rollouts, &e), &e);
    CHECK_OK(loop_new(&t.loop, &e), &e);
    ctx.store = t.store;
    ctx.meta = t.m;
    ctx.rollouts = t.rollouts;
    ctx.project_dir = ctx.state_dir = t.dir;
    snprintf(path, sizeof(path), "%s/control.sock", t.dir);
    snprintf(t.address, sizeof(t.address), "unix:%s", path);
    CHECK_OK(api_open(t.loop, "127.0.0.1:0", path, &ctx, &t.api, &e), &e);
    snprintf(t.tcp, sizeof(t.tcp), "127.0.0.1:%u", api_port(t.api));
}

/* From here on the store belongs to the server's thread. */
static void go(void)
{
    CHECK(pthread_create(&t.thread, NULL, serve, NULL) == 0);
}

static void stop(void)
{
    char command[128];

    loop_stop(t.loop);
    pthread_join(t.thread, NULL);
    api_close(TAKE(t.api));
    rollouts_free(TAKE(t.rollouts));
    loop_free(TAKE(t.loop));
    meta_close(TAKE(t.m));
    meta_store_close(TAKE(t.store));
    snprintf(command, sizeof(command), "rm -rf %s", t.dir);
    CHECK(system(command) == 0);
    arena_done(&a);
}

static int call_at(const char *address, const char *target, const char *body, const char *extra,
                   struct json **ret)
{
    struct cli_http_request req = {.address = address,
                                   .target = target,
                                   .extra = str_of(extra),
                                   .body = body ? str_of(body) : STR_NULL};
    struct cli_http_response res = {0};

    *ret = NULL;
    if (!CHECK_OK(cli_http(&req, &a, &res, &e), &e))
        return 0;
    CHECK_OK(json_parse(res.body, &a, ret, &e), &e);
    return res.status;
}

static int call(const char *target, const char *body, struct json **ret)
{
    return call_at(t.address, target, body, "", ret);
}

static str code_of(const struct json *answer)
{
    return json_str_or(json_path(answer, "error.code"), S(""));
}

/* A request body with the tree of a project text. */
static const char *with_tree(const char *text, const char *rest)
{
    struct project_result r;
    struct buf out = {0};
    const char *body;

    if (!CHECK_OK(project_parse(str_of(text), "weir.yaml", &a, &r, &e), &e))
        return "{}";
    buf_init(&out, BUF_MAX_DEFAULT);
    buf_add_str(&out, S("{\"tree\":"));
    json_write(&out, r.norm);
    buf_add_str(&out, str_of(rest));
    buf_add_str(&out, S("}"));
    body = arena_dupz(&a, buf_str(&out));
    buf_done(&out);
    return body;
}

#define PROJECT                                                     \
    "version: 1\nproject: shop\n"                                   \
    "datasets:\n  orders: {path: d.csv, label: returned}\n"         \
    "models:\n  returns: {task: classification, dataset: orders}\n" \
    "endpoints:\n  returns: {model: returns, rollout: immediate"

static void add_version(int64_t version)
{
    CHECK_OK(meta_exec(t.m,
                       "INSERT INTO models (name, meta, created_ns, updated_ns) VALUES"
                       " ('returns', '{\"owner\":\"ann\"}', 1, 1) ON CONFLICT (name) DO NOTHING",
                       M_NO_ARGS, &e),
             &e);
    CHECK_OK(meta_exec(t.m,
                       "INSERT INTO model_versions (model, version, artifact, status, meta,"
                       " created_ns) VALUES ('returns', ?, 'x', 'ready',"
                       " '{\"signature\":{\"inputs\":[],\"outputs\":[]},\"tags\":[\"blue\"]}', ?)",
                       M_ARGS(M_INT(version), M_INT(version)), &e),
             &e);
}

/* --- Asking ----------------------------------------------------------------------------------- */

static void test_answers_and_refusals(void)
{
    struct json *o;

    start();
    go();
    CHECK_INT(call("/api/v1/status", NULL, &o), 200);
    CHECK_STR(json_str_or(json_get(o, S("plan")), S("")), S("abc"));
    CHECK_INT(call_at(t.tcp, "/api/v1/status", NULL, "", &o), 200);
    CHECK_INT(call("/api/v1/nothing", NULL, &o), 404);
    CHECK_STR(code_of(o), S("NOT_FOUND"));
    CHECK_INT(call("/api/v1/status", "{}", &o), 501);
    CHECK_INT(call("/api/v1/apply", "{\"base\":1", &o), 400);
    CHECK_INT(call("/api/v1/apply", "[]", &o), 400);
    CHECK_INT(call("/api/v1/journal?limit=x", NULL, &o), 400);
    CHECK_INT(call("/api/v1/seal", "{}", &o), 501);
    CHECK_INT(call("/api/v1/flows/none", NULL, &o), 404);
    stop();
}

static void test_pages_of_other_sites_may_not_ask(void)
{
    struct json *o;
    char own[128];

    start();
    CHECK(api_host_is_known(t.api, S("localhost:7070")));
    CHECK(api_host_is_known(t.api, S("127.0.0.1")));
    CHECK(api_host_is_known(t.api, S("[::1]:7070")));
    CHECK(!api_host_is_known(t.api, S("evil.example:7070")));
    CHECK(!api_host_is_known(t.api, S("")));
    CHECK(!api_host_is_known(t.api, S("127.0.0.1.evil.example")));
    go();
    CHECK_INT(call_at(t.tcp, "/api/v1/status", NULL, "Origin: http://evil.example\r\n", &o), 403);
    snprintf(own, sizeof(own), "Origin: http://%s\r\n", t.tcp);
    CHECK_INT(call_at(t.tcp, "/api/v1/status", NULL, own, &o), 200);
    stop();
}

/* --- Projects --------------------------------------------------------------------------------- */

static void test_apply_refuses_a_stale_plan(void)
{
    struct json *o;
    char rest[256];
    str first;

    start();
    go();
    CHECK_INT(call("/api/v1/project", NULL, &o), 404);
    CHECK_INT(call("/api/v1/plan", with_tree(PROJECT "}\n", ""), &o), 200);
    CHECK(json_get(o, S("changes"))->count > 0);
    CHECK_INT(call("/api/v1/apply", with_tree(PROJECT "}\n", ",\"base\":\"\""), &o), 200);
    CHECK_INT(t.changes, 1);
    first = json_str_or(json_get(o, S("hash")), S(""));
    CHECK_INT(first.n, 64);
    CHECK_INT(call("/api/v1/plan", with_tree(PROJECT "}\n", ""), &o), 200);
    CHECK_INT(json_get(o, S("changes"))->count, 0);

    /* Two people plan from the first state; the second one to apply is told. */
    snprintf(rest, sizeof(rest), ",\"base\":\"" STR_F "\"", STR_A(first));
    CHECK_INT(call("/api/v1/apply", with_tree(PROJECT ", timeout: 2s}\n", rest), &o), 200);
    CHECK_INT(call("/api/v1/apply", with_tree(PROJECT ", timeout: 3s}\n", rest), &o), 409);
    CHECK_STR(code_of(o), S("ABORTED"));
    CHECK(json_path(o, "error.details.yours") != NULL);
    CHECK_INT(json_path(o, "error.details.yours")->count, 1);
    CHECK_INT(t.changes, 2);
    CHECK_INT(call("/api/v1/journal?type=project.applied", NULL, &o), 200);
    CHECK_INT(json_get(o, S("facts"))->count, 2);
    stop();
}

static void test_apply_checks_versions_that_are_named(void)
{
    struct json *o;

    start();
    add_version(1);
    go();
    CHECK_INT(call("/api/v1/apply",
                   with_tree(PROJECT ", versions: {1: 90%, 7: 10%}}\n", ",\"base\":\"\""), &o),
              404);
    CHECK(str_find(json_str_or(json_path(o, "error.message"), S("")), S("no version 7")) >= 0);
    stop();
}

#define WITH_FEATURES(features)                                                               \
    "version: 1\nproject: shop\ndatasets:\n  orders: {path: d.csv, label: returned}\n"        \
    "models:\n  returns: {task: classification, dataset: orders, features: [" features "]}\n" \
    "endpoints:\n  returns: {model: returns}\n"

/* A version keeps its contract; who changes the features is told so. */
static void test_changed_features_are_noted(void)
{
    struct json *o;
    char rest[96];

    start();
    go();
    CHECK_INT(call("/api/v1/apply",
                   with_tree(WITH_FEATURES("{name: a}, {name: b}"), ",\"base\":\"\""), &o),
              200);
    CHECK_INT(json_get(o, S("notes"))->count, 0);
    snprintf(rest, sizeof(rest), ",\"base\":\"" STR_F "\"",
             STR_A(json_str_or(json_get(o, S("hash")), S(""))));
    CHECK_INT(
        call("/api/v1/plan", with_tree(WITH_FEATURES("{name: a}, {name: b}, {name: c}"), ""), &o),
        200);
    CHECK_INT(json_get(o, S("notes"))->count, 0); /* no version is there to keep anything */
    add_version(1);
    add_version(2);
    CHECK_INT(call("/api/v1/plan", with_tree(WITH_FEATURES("{name: a}, {name: b}"), ""), &o), 200);
    CHECK_INT(json_get(o, S("notes"))->count, 0);
    CHECK_INT(call("/api/v1/apply",
                   with_tree(WITH_FEATURES("{name: a}, {name: b}, {name: c}"), rest), &o),
              200);
    CHECK_INT(json_get(o, S("notes"))->count, 1);
    CHECK(str_find(json_str_or(json_at(json_get(o, S("notes")), 0), S("")), S("(2, 1)")) >= 0);
    stop();
}

/* --- Models and endpoints --------------------------------------------------------------------- */

static void test_promote_and_go_back(void)
{
    struct json *o;
    char target[96];
    int64_t between;

    start();
    for (int64_t v = 1; v <= 3; v++)
        add_version(v);
    go();
    CHECK_INT(call("/api/v1/apply", with_tree(PROJECT "}\n", ",\"base\":\"\""), &o), 200);
    CHECK_INT(call("/api/v1/endpoints/retuns/promote", "{}", &o), 404);
    CHECK(str_find(json_str_or(json_path(o, "error.message"), S("")), S("'returns'")) >= 0);
    CHECK_INT(call("/api/v1/endpoints/returns/promote", "{\"version\":9}", &o), 404);
    CHECK_INT(call("/api/v1/endpoints/returns/promote", "{\"version\":1}", &o), 200);
    CHECK(json_bool_or(json_get(o, S("direct")), false)); /* there was no champion */
    between = time_wall_ns();
    CHECK_INT(call("/api/v1/endpoints/returns/promote", "{\"version\":2,\"direct\":true}", &o),
              200);
    CHECK_INT(call("/api/v1/endpoints/returns/promote", "{\"version\":3,\"direct\":true}", &o),
              200);
    CHECK_INT(call("/api/v1/endpoints/returns/promote", "{\"version\":3}", &o), 409);
    CHECK_INT(call("/api/v1/endpoints/returns/rollback", "{}", &o), 400);
    for (int64_t want = 2; want >= 1; want--) { /* twice back is two versions back */
        CHECK_INT(call("/api/v1/endpoints/returns/rollback", "{\"reason\":\"worse\"}", &o), 200);
        CHECK_INT(json_int_or(json_get(o, S("version")), 0), want);
    }
    CHECK_INT(call("/api/v1/endpoints/returns/rollback", "{\"reason\":\"worse\"}", &o), 409);
    snprintf(target, sizeof(target), "/api/v1/models/returns/live?at=%lld", (long long)between);
    CHECK_INT(call(target, NULL, &o), 200);
    CHECK_INT(json_int_or(json_get(o, S("version")), 0), 1);
    CHECK_INT(call("/api/v1/models?owner=ann&tag=blue", NULL, &o), 200);
    CHECK_INT(json_get(o, S("models"))->count, 1);
    CHECK_INT(call("/api/v1/models?owner=bob", NULL, &o), 200);
    CHECK_INT(json_get(o, S("models"))->count, 0);
    CHECK_INT(call("/api/v1/models?stage=production", NULL, &o), 200);
    CHECK_INT(json_get(o, S("models"))->count, 1);
    CHECK_INT(call("/api/v1/models?stage=staging", NULL, &o), 200);
    CHECK_INT(json_get(o, S("models"))->count, 0);
    CHECK_INT(call("/api/v1/models/returns/versions/champion/card", NULL, &o), 200);
    CHECK_STR(json_str_or(json_path(o, "overview.target"), S("")), S("returned"));
    CHECK_STR(json_str_or(json_path(o, "overview.stage"), S("")), S("production"));
    CHECK_INT(call("/api/v1/models/returns/versions/9/card", NULL, &o), 404);
    CHECK_INT(call("/api/v1/models/returns/versions/shadow/card", NULL, &o), 404);
    CHECK_INT(call("/api/v1/models/returns/versions/champion", NULL, &o), 200);
    CHECK_INT(json_int_or(json_get(o, S("version")), 0), 1);
    stop();
}

static void test_rollout_by_orders(void)
{
    struct json *o;

    start();
    add_version(1);
    add_version(2);
    go();
    CHECK_INT(call("/api/v1/apply",
                   with_tree("version: 1\nproject: shop\n"
                             "datasets:\n  orders: {path: d.csv, label: returned}\n"
                             "models:\n  returns: {task: classification, dataset: orders}\n"
                             "endpoints:\n  returns: {model: returns, rollout: standard}\n",
                             ",\"base\":\"\""),
                   &o),
              200);
    CHECK_INT(call("/api/v1/endpoints/returns/promote", "{\"version\":1}", &o), 200);
    CHECK_INT(call("/api/v1/endpoints/returns/rollout", "{\"order\":\"pause\"}", &o), 404);
    CHECK_INT(call("/api/v1/endpoints/returns/promote", "{\"version\":2}", &o), 200);
    CHECK(!json_bool_or(json_get(o, S("direct")), true));
    CHECK_INT(call("/api/v1/endpoints/returns/rollout", "{\"order\":\"pause\"}", &o), 200);
    CHECK(json_bool_or(json_get(json_at(json_get(o, S("rollouts")), 0), S("paused")), false));
    CHECK_INT(call("/api/v1/endpoints/returns/rollout", "{\"order\":\"dance\"}", &o), 400);
    CHECK_INT(call("/api/v1/endpoints/returns/rollback", "{\"reason\":\"worse\"}", &o), 200);
    CHECK_INT(json_int_or(json_get(o, S("version")), 0), 1);
    CHECK_INT(call("/api/v1/rollouts", NULL, &o), 200);
    CHECK_INT(json_get(o, S("rollouts"))->count, 0);
    stop();
}

/* What answers on a fixed split is said in the file: no alias that is moved would change it. */
static void test_a_fixed_split_is_not_rolled_out(void)
{
    struct json *o;

    start();
    add_version(1);
    add_version(2);
    go();
    CHECK_INT(call("/api/v1/apply",
                   with_tree(PROJECT ", versions: {1: 90%, 2: 10%}}\n", ",\"base\":\"\""), &o),
              200);
    CHECK_INT(call("/api/v1/endpoints/returns/promote", "{\"version\":2}", &o), 409);
    CHECK(str_find(json_str_or(json_path(o, "error.message"), S("")),
                   S("endpoint 'returns' answers by its fixed split")) >= 0);
    CHECK_INT(call("/api/v1/endpoints/returns/promote", "{\"version\":2,\"direct\":true}", &o),
              409);
    CHECK_INT(call("/api/v1/endpoints/returns/rollback", "{\"reason\":\"worse\"}", &o), 409);
    stop();
}

static void test_an_endpoint_moves_its_own_alias(void)
{
    struct json *o;

    start();
    add_version(1);
    add_version(2);
    go();
    CHECK_INT(call("/api/v1/apply", with_tree(PROJECT ", alias: eu}\n", ",\"base\":\"\""), &o),
              200);
    CHECK_INT(call("/api/v1/endpoints/returns/promote", "{\"version\":1}", &o), 200);
    CHECK_INT(call("/api/v1/endpoints/returns/promote", "{\"version\":2}", &o), 200);
    CHECK_INT(call("/api/v1/models/returns/versions/eu", NULL, &o), 200);
    CHECK_INT(json_int_or(json_get(o, S("version")), 0), 2);
    CHECK_INT(call("/api/v1/models/returns/versions/champion", NULL, &o), 404);
    stop();
}

/* --- Journal and stories ---------------------------------------------------------------------- */

static void fact(enum fact_type type, const char *subject, const char *correlation,
                 struct fact_ref *ret)
{
    CHECK_OK(journal_append(t.m,
                            &(struct fact_new){.type = type,
                                               .subject = str_of(subject),
                                               .actor = S("weir"),
                                               .correlation = str_of(correlation)},
                            ret, &e),
             &e);
    time_test_advance(2 * NS_PER_S);
}

static int64_t span(const struct json *story, const char *key)
{
    return json_int_or(json_get(json_get(story, S("summary")), str_of(key)), -1) / NS_PER_S;
}

static void test_facts_become_a_story(void)
{
    struct fact_ref drift, other;
    struct buf out = {0};
    struct json *o, *story;
    struct json_out jo;

    time_test_virtual(0, INT64_C(1763930000) * NS_PER_S);
    start();
    fact(FACT_CONTROL_STARTED, "control", "", NULL);
    fact(FACT_LOAD_INJECTED, "endpoint/returns", "", NULL);
    fact(FACT_DRIFT_DETECTED, "endpoint/returns", "", &drift);
    fact(FACT_DRIFT_DETECTED, "endpoint/other", "", &other);
    fact(FACT_RETRAIN_STARTED, "model/returns", drift.id, NULL);
    fact(FACT_RETRAIN_FINISHED, "model/returns", drift.id, NULL);
    fact(FACT_ROLLOUT_STARTED, "endpoint/returns", drift.id, NULL);
    fact(FACT_ROLLOUT_PROMOTED, "endpoint/returns", drift.id, NULL);
    fact(FACT_PLAN_LIVE, "gateway/a", "", NULL);
    buf_init(&out, BUF_MAX_DEFAULT);
    jo_begin(&jo, &out);
    CHECK_OK(api_stories_write(t.m, S("returns"), S(""), 0, 10, &a, &jo, &e), &e);
    CHECK_OK(json_parse(buf_str(&out), &a, &o, &e), &e);
    CHECK_INT(json_get(o, S("stories"))->count, 1);
    story = json_at(json_get(o, S("stories")), 0);
    CHECK_STR(json_str_or(json_get(story, S("outcome")), S("")), S("promoted"));
    CHECK_INT(json_get(story, S("facts"))->count, 7); /* the injection and the live plan joined */
    CHECK_INT(span(story, "detect_ns"), 2);
    CHECK_INT(span(story, "retrain_ns"), 2);
    CHECK_INT(span(story, "rollout_ns"), 2);
    CHECK_INT(span(story, "live_ns"), 14);

    /* All endpoints: two stories, and no story of its own for the injection. */
    buf_clear(&out);
    jo_begin(&jo, &out);
    CHECK_OK(api_stories_write(t.m, S(""), S(""), 0, 10, &a, &jo, &e), &e);
    CHECK_OK(json_parse(buf_str(&out), &a, &o, &e), &e);
    CHECK_INT(json_get(o, S("stories"))->count, 2);

    buf_clear(&out);
    jo_begin(&jo, &out);
    CHECK_FAILS(api_stories_write(t.m, S(""), S("nobody"), 0, 10, &a, &jo, &e), NOT_FOUND, &e,
                "nobody");
    buf_done(&out);
    time_test_real();
    go();
    stop();
}

static void test_journal_proves_what_it_says(void)
{
    struct json *o;

    start();
    go();
    CHECK_INT(call("/api/v1/facts", "{\"type\":\"model.registered\"}", &o), 403);
    for (int i = 0; i < 5; i++)
        CHECK_INT(call_at(t.address, "/api/v1/facts",
                          "{\"type\":\"load.injected\",\"subject\":\"endpoint/x\","
                          "\"data\":{\"kind\":\"shift\"}}",
                          "X-Weir-Actor: user:ann\r\n", &o),
                  200);
    CHECK_INT(call("/api/v1/journal?newest=1&limit=2", NULL, &o), 200);
    CHECK_INT(json_get(o, S("facts"))->count, 2);
    CHECK_STR(json_str_or(json_get(json_at(json_get(o, S("facts")), 0), S("actor")), S("")),
              S("user:ann"));
    CHECK_INT(call("/api/v1/journal/verify", NULL, &o), 200);
    CHECK(json_bool_or(json_get(o, S("ok")), false));
    CHECK_INT(call("/api/v1/journal/proof?seq=3", NULL, &o), 200);
    CHECK(json_get(o, S("path"))->count > 0);
    CHECK_INT(call("/api/v1/journal/proof?seq=99", NULL, &o), 400);
    stop();
}

RUN_TESTS(T(test_answers_and_refusals), T(test_pages_of_other_sites_may_not_ask),
          T(test_apply_refuses_a_stale_plan), T(test_apply_checks_versions_that_are_named),
          T(test_changed_features_are_noted), T(test_promote_and_go_back),
          T(test_rollout_by_orders), T(test_a_fixed_split_is_not_rolled_out),
          T(test_an_endpoint_moves_its_own_alias), T(test_facts_become_a_story),
          T(test_journal_proves_what_it_says))
