/* SPDX-License-Identifier: Apache-2.0 */
/* The plan that follows from a project, a registry and the state of a rollout. */
#include "server/compile.h"

#include "base/time.h"
#include "check.h"

#include <unistd.h>

static const struct access_env access_env = {"/tmp", "/tmp"};
static char dir[64];
static struct meta_store *store;
static struct meta *m;
static struct blobs *blobs;
static struct arena arena;
static struct err e;

static const char signature[] =
    "{\"signature\":{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,%d]}],"
    "\"outputs\":[{\"name\":\"probabilities\",\"datatype\":\"FP32\",\"shape\":[-1,2]}],"
    "\"columns\":[],\"reading\":{\"label\":-1,\"probabilities\":0,\"value\":-1,"
    "\"classes\":[\"0\",\"1\"],\"positive\":1,\"threshold\":0.5}},\"platform\":\"onnxruntime_"
    "onnx\"}";

static void exec(const char *sql)
{
    CHECK_OK(meta_exec(m, sql, M_NO_ARGS, &e), &e);
}

static void apply(const char *tree)
{
    struct json *applied;
    str text = arena_printf(&arena, "{\"tree\":%s}", tree);

    CHECK_OK(json_parse(text, &arena, &applied, &e), &e);
    CHECK_OK(meta_kv_put(m, S("project"), S("applied"), applied, &e), &e);
}

#define PROJECT(endpoint)                                                                \
    "{\"project\":\"shop\",\"models\":{\"fraud\":{}},\"endpoints\":{\"pay\":{\"model\":" \
    "\"fraud\"" endpoint "}}}"

static void begin(void)
{
    static unsigned count;
    char command[128], path[96];

    snprintf(dir, sizeof(dir), "%s/weir-compile-%d-%u",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (int)getpid(), count++);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
    arena_init(&arena, 0);
    CHECK_OK(meta_store_open(dir, NULL, &store, &e), &e);
    CHECK_OK(meta_open(store, &m, &e), &e);
    snprintf(path, sizeof(path), "%s/blobs", dir);
    CHECK_OK(blobs_open(path, &blobs, &e), &e);
    exec("INSERT INTO models (name, meta, created_ns, updated_ns) VALUES ('fraud', '{}', 0, 0)");
    for (int v = 1; v <= 4; v++) {
        char meta[1024], hash[BLOB_HASH_SIZE];

        /* version 4 takes three numbers, the others two */
        snprintf(meta, sizeof(meta), signature, v == 4 ? 3 : 2);
        CHECK_OK(blobs_put(blobs, arena_printf(&arena, "model %d", v), hash, &e), &e);
        CHECK_OK(meta_exec(m,
                           "INSERT INTO model_versions (model, version, artifact, status, meta,"
                           " created_ns) VALUES ('fraud', ?, ?, 'ready', ?, 0)",
                           M_ARGS(M_INT(v), M_STR(str_of(hash)), M_STR(str_of(meta))), &e),
                 &e);
    }
    exec("INSERT INTO aliases (model, alias, version, updated_ns) VALUES ('fraud', 'champion', 1, "
         "0)");
    apply(PROJECT(""));
}

static void end(void)
{
    char command[128];

    arena_done(&arena);
    blobs_close(TAKE(blobs));
    meta_close(TAKE(m));
    meta_store_close(TAKE(store));
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
}

static void rolling(const char *state)
{
    struct json *tree;

    CHECK_OK(json_parse(str_of(state), &arena, &tree, &e), &e);
    CHECK_OK(meta_kv_put(m, S("rollout"), S("pay"), tree, &e), &e);
}

static const struct plan_endpoint *compiled(void)
{
    static const struct plan_endpoint none;
    char hash[PLAN_HASH_SIZE], again[PLAN_HASH_SIZE];
    struct plan *plan;

    if (!CHECK_OK(compile_plan(&access_env, m, blobs, hash, &e), &e) ||
        !CHECK_OK(compile_plan(&access_env, m, blobs, again, &e), &e) ||
        !CHECK_OK(plan_load(blobs, str_of(hash), &arena, &plan, &e), &e))
        return &none;
    CHECK_STR(str_of(hash), str_of(again)); /* a pure function */
    return plan->endpoint_count ? &plan->endpoints[0] : &none;
}

/* "1:champion:9000 2:challenger:1000", with * at a shadow. */
static str routes(void)
{
    const struct plan_endpoint *ep = compiled();
    str text = S("");

    for (size_t i = 0; i < ep->version_count; i++)
        text = arena_printf(&arena, STR_F "%s%u:" STR_F ":%u%s", STR_A(text), i ? " " : "",
                            ep->versions[i].version, STR_A(ep->versions[i].arm),
                            ep->versions[i].weight, ep->versions[i].shadow ? "*" : "");
    return text;
}

static void test_states_of_a_rollout(void)
{
    static const struct {
        const char *state, *routes;
    } cases[] = {
        {"{}", "1:champion:10000"},
        {"{\"shadow\":2,\"weight_bp\":0}", "1:champion:10000 2:shadow:0*"},
        {"{\"challenger\":2,\"weight_bp\":1000}", "1:champion:9000 2:challenger:1000"},
        {"{\"challenger\":2,\"weight_bp\":10000}", "1:champion:0 2:challenger:10000"},
        {"{\"challenger\":3,\"weight_bp\":0}", "1:champion:10000 3:previous:0"}, /* baking */
        {"{\"challenger\":1,\"weight_bp\":5000}", "1:champion:10000"},
        {"{\"challenger\":2,\"weight_bp\":20000}", "1:champion:0 2:challenger:10000"},
        {"{\"challenger\":2,\"weight_bp\":1000,\"model\":\"other\"}", "1:champion:10000"},
    };

    begin();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        rolling(cases[i].state);
        CHECK_STR(routes(), str_of(cases[i].routes));
    }
    end();
}

static void test_aliases_and_splits(void)
{
    begin();
    exec(
        "INSERT INTO aliases (model, alias, version, updated_ns) VALUES ('fraud', 'shadow', 3, 0)");
    apply(PROJECT(",\"shadow\":\"shadow\""));
    CHECK_STR(routes(), S("1:champion:10000 3:shadow:0*"));
    rolling("{\"challenger\":3,\"weight_bp\":1000}"); /* it answers already */
    CHECK_STR(routes(), S("1:champion:9000 3:challenger:1000"));
    rolling("{\"shadow\":2}"); /* the rollout's goes before the alias */
    CHECK_STR(routes(), S("1:champion:10000 2:shadow:0*"));
    apply(PROJECT(",\"versions\":{\"1\":0.7,\"2\":0.3}"));
    CHECK_OK(meta_kv_delete(m, S("rollout"), S("pay"), &e), &e);
    CHECK_STR(routes(), S("1:split:7000 2:split:3000"));
    apply(PROJECT(",\"versions\":{\"1\":0.333333,\"2\":0.333333,\"3\":0.333334}"));
    CHECK_STR(routes(), S("1:split:3334 2:split:3333 3:split:3333"));
    apply(PROJECT(",\"alias\":\"shadow\""));
    CHECK_STR(routes(), S("3:champion:10000"));
    end();
}

static void test_nothing_registered(void)
{
    char hash[PLAN_HASH_SIZE];

    begin();
    exec("DELETE FROM aliases");
    CHECK_STR(compiled()->name, S("pay")); /* declared, not ready */
    CHECK_INT(compiled()->version_count, 0);
    CHECK_OK(meta_kv_delete(m, S("project"), S("applied"), &e), &e);
    CHECK_FAILS(compile_plan(&access_env, m, blobs, hash, &e), NOT_FOUND, &e, "weir apply");
    end();
}

static void test_other_tensors(void)
{
    char hash[PLAN_HASH_SIZE];

    begin();
    rolling("{\"challenger\":4,\"weight_bp\":3000}");
    CHECK_STR(routes(), S("1:champion:10000")); /* left out, and its share goes back */
    rolling("{\"shadow\":4}");
    CHECK_STR(routes(), S("1:champion:10000"));
    rolling("{\"challenger\":9,\"weight_bp\":10000}"); /* not registered */
    CHECK_STR(routes(), S("1:champion:10000"));
    apply(PROJECT(",\"versions\":{\"1\":0.5,\"4\":0.5}"));
    CHECK_FAILS(compile_plan(&access_env, m, blobs, hash, &e), FAILED_PRECONDITION, &e,
                "other inputs");
    apply(PROJECT(",\"versions\":{\"9\":1}"));
    CHECK_FAILS(compile_plan(&access_env, m, blobs, hash, &e), NOT_FOUND, &e, "no version 9");
    end();
}

static void test_settings(void)
{
    const struct plan_endpoint *ep;

    begin();
    apply("{\"project\":\"shop\",\"gateway\":{\"body_bytes_max\":4096},"
          "\"models\":{\"fraud\":{\"threshold\":0.8}},"
          "\"endpoints\":{\"pay\":{\"model\":\"fraud\",\"timeout_ns\":5000000,\"rows_max\":7,"
          "\"queue\":{\"inflight_max\":9,\"limit\":6,\"limit_min\":2,\"priority\":3},\"durable_"
          "log\":true,"
          "\"sticky\":{\"header\":\"x-user\"}}}}");
    ep = compiled();
    CHECK_NEAR(ep->signature.reading.threshold, 0.8, 1e-12);
    CHECK_INT(ep->timeout_ns, 5000000);
    CHECK_INT(ep->body_bytes_max, 4096);
    CHECK_INT(ep->rows_max, 7);
    CHECK_INT(ep->inflight_max, 9);
    CHECK_INT(ep->queue.limit, 6);
    CHECK_INT(ep->queue.limit_min, 2);
    CHECK_INT(ep->queue.priority, 3);
    CHECK(ep->durable_log);
    CHECK_STR(ep->sticky_header, S("x-user"));
    CHECK_STR(ep->salt, S("pay"));
    apply(PROJECT(""));
    CHECK_NEAR(compiled()->signature.reading.threshold, 0.5, 1e-12);
    end();
}

/* "1,3" and, where there is a static answer, " [0.75,0.25]". */
static str chain(void)
{
    const struct plan_endpoint *ep = compiled();
    const struct plan_fallback *f = &ep->fallback;
    str text = S("");

    for (size_t i = 0; i < f->version_count; i++)
        text = arena_printf(&arena, STR_F "%s%u", STR_A(text), i ? "," : "", f->versions[i]);
    if (f->answer)
        text = arena_printf(&arena, STR_F " [%g,%g]", STR_A(text), tensor_number_at(f->answer, 0),
                            tensor_number_at(f->answer, 1));
    return f->on ? text : S("off");
}

#define CHAIN(steps) PROJECT(",\"fallback\":{\"share\":0.25,\"shed\":true,\"chain\":[" steps "]}")

static void test_fallback_chains(void)
{
    begin();
    CHECK_STR(chain(), S("off"));
    exec("INSERT INTO aliases (model, alias, version, updated_ns) VALUES ('fraud', 'base', 3, 0)");
    apply(CHAIN(""));
    CHECK_STR(chain(), S("1"));
    apply(CHAIN("{\"alias\":\"base\"},{\"answer\":{\"prediction\":\"0\",\"score\":0.25}}"));
    CHECK_STR(chain(), S("1,3 [0.75,0.25]"));
    CHECK_STR(routes(), S("1:champion:10000 3:fallback:0"));
    CHECK_NEAR(compiled()->fallback.share, 0.25, 1e-12);
    CHECK(compiled()->fallback.shed);
    rolling("{\"challenger\":2,\"weight_bp\":1000}");
    CHECK_STR(chain(), S("1,3 [0.75,0.25]"));
    CHECK_STR(routes(), S("1:champion:9000 2:challenger:1000 3:fallback:0"));
    rolling("{\"challenger\":3,\"weight_bp\":1000}"); /* it has traffic, and is in the chain */
    CHECK_STR(routes(), S("1:champion:9000 3:challenger:1000"));
    CHECK_STR(chain(), S("1,3 [0.75,0.25]"));
    CHECK_OK(meta_kv_delete(m, S("rollout"), S("pay"), &e), &e);

    /* What cannot be is left out: an alias of nothing, other tensors, an answer of other classes.
     */
    apply(CHAIN("{\"alias\":\"none\"},{\"version\":4},{\"answer\":{\"prediction\":\"7\"}}"));
    CHECK_STR(chain(), S("1"));
    CHECK_STR(routes(), S("1:champion:10000"));
    apply(CHAIN("{\"version\":1},{\"version\":2}"));
    CHECK_STR(chain(), S("1,2"));

    exec("DELETE FROM aliases WHERE alias = 'champion'");
    CHECK_STR(routes(), S("1:fallback:10000 2:fallback:0"));
    CHECK_STR(chain(), S("1,2"));
    end();
}

static void test_breakers_held_by_hand(void)
{
    struct json *held;

    begin();
    CHECK_INT(compiled()->versions[0].breaker, PLAN_BREAKER_AUTO);
    CHECK_OK(json_parse(S("{\"1\":\"open\",\"2\":\"closed\"}"), &arena, &held, &e), &e);
    CHECK_OK(meta_kv_put(m, S("breaker"), S("pay"), held, &e), &e);
    rolling("{\"challenger\":2,\"weight_bp\":1000}");
    CHECK_INT(compiled()->versions[0].breaker, PLAN_BREAKER_OPEN);
    CHECK_INT(compiled()->versions[1].breaker, PLAN_BREAKER_CLOSED);
    json_set_str(&arena, held, S("1"), S("auto"));
    CHECK_OK(meta_kv_put(m, S("breaker"), S("pay"), held, &e), &e);
    CHECK_INT(compiled()->versions[0].breaker, PLAN_BREAKER_AUTO);
    end();
}

static void test_idempotency(void)
{
    begin();
    CHECK_INT(compiled()->idempotency.window_ns, 0);
    apply(PROJECT(",\"idempotency\":{\"window_ns\":5000,\"bytes_max\":70000,\"entries_max\":3}"));
    CHECK_INT(compiled()->idempotency.window_ns, 5000);
    CHECK_INT(compiled()->idempotency.bytes_max, 70000);
    CHECK_INT(compiled()->idempotency.entries_max, 3);
    end();
}

RUN_TESTS(T(test_fallback_chains), T(test_idempotency), T(test_breakers_held_by_hand),
          T(test_states_of_a_rollout), T(test_aliases_and_splits), T(test_nothing_registered),
          T(test_other_tensors), T(test_settings))
