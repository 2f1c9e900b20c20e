/* SPDX-License-Identifier: Apache-2.0 */
/* Defaults, units, what is filled in, and the normalised tree as its own input. */
#include "check.h"

#include "base/files.h"
#include "base/time.h"
#include "project/project.h"

#include <unistd.h>

static struct arena arena;

static struct json *parse(const char *text)
{
    struct project_result r;
    struct err e;

    if (!CHECK_OK(project_parse(str_of(text), "weir.yaml", &arena, &r, &e), &e))
        return NULL;
    return r.norm;
}

static int64_t int_at(const struct json *root, const char *path)
{
    const struct json *n = json_path(root, path);

    return CHECK(n && n->type == JSON_INT) ? n->integer : -1;
}

static bool null_at(const struct json *root, const char *path)
{
    const struct json *n = json_path(root, path);

    return n && n->type == JSON_NULL;
}

static void defaults(void)
{
    struct json *p = parse("project: shop\n");

    NEED(p);
    CHECK_STR(json_str_or(json_path(p, "gateway.listen"), STR_NULL), S("127.0.0.1:8080"));
    CHECK_STR(json_str_or(json_path(p, "control.listen"), STR_NULL), S("127.0.0.1:7070"));
    CHECK_INT(int_at(p, "version"), 1);
    CHECK(null_at(p, "gateway.loops"));
    CHECK_INT(int_at(p, "gateway.digest_interval_ns"), 250 * NS_PER_MS);
    CHECK_INT(int_at(p, "gateway.records.flush_interval_ns"), NS_PER_S);
    CHECK_INT(int_at(p, "gateway.records.seal_interval_ns"), 60 * NS_PER_S);
    CHECK_INT(int_at(p, "gateway.body_bytes_max"), 8 << 20);
    CHECK(json_get(p, S("models"))->count == 0);
}

#define SHOP                                                                                  \
    "project: shop\n"                                                                         \
    "datasets: {d: {path: a.csv, label: y}}\n"                                                \
    "trainers: {t: {}}\n"                                                                     \
    "models:\n"                                                                               \
    "  m: {task: classification, dataset: d, trainer: t, features: [{name: a}, {name: b}]}\n" \
    "  n: {task: regression}\n"                                                               \
    "endpoints:\n"                                                                            \
    "  e: {model: m}\n"                                                                       \
    "  f: {model: n, rollout: careful}\n"                                                     \
    "monitors: {w: {endpoint: e, features: {a: {tolerance: 0.2}}}}\n"                         \
    "triggers: {g: {on: drift, endpoint: e}}\n"

static void filled_in(void)
{
    struct json *p = parse(SHOP), *steps, *gate;

    NEED(p);
    CHECK_STR(json_str_or(json_path(p, "datasets.d.format"), STR_NULL), S("csv"));
    CHECK_STR(json_str_or(json_path(p, "models.m.label"), STR_NULL), S("y"));
    CHECK_STR(json_str_or(json_path(p, "models.m.metric"), STR_NULL), S("f1"));
    CHECK_STR(json_str_or(json_path(p, "models.n.metric"), STR_NULL), S("rmse"));
    CHECK_STR(json_str_or(json_path(p, "triggers.g.model"), STR_NULL), S("m"));
    CHECK_STR(json_str_or(json_path(p, "monitors.w.labels.metric"), STR_NULL), S("error_rate"));
    CHECK_NEAR(json_real_or(json_path(p, "monitors.w.features.a.tolerance"), 0), 0.2, 0);
    CHECK_INT(int_at(p, "monitors.w.false_alarms.one_in_ns"), 30 * 86400 * NS_PER_S);
    CHECK_INT(int_at(p, "endpoints.e.body_bytes_max"), 8 << 20);
    gate = json_at(json_path(p, "models.n.retrain.evaluation.gates"), 0);
    CHECK_STR(json_str_or(json_get(gate, S("metric")), STR_NULL), S("rmse"));
    CHECK(!json_path(p, "models.n.threshold")); /* a number has no threshold */
    CHECK(json_path(p, "rollouts.standard.steps")->count == 4);
    steps = json_path(p, "rollouts.careful.steps");
    NEED(steps && steps->count == 5);
    CHECK_NEAR(json_real_or(json_get(json_at(steps, 0), S("weight")), 0), 0.05, 0);
    CHECK_INT(int_at(json_at(steps, 0), "hold_ns"), 24 * 3600 * NS_PER_S);
    CHECK_NEAR(json_real_or(json_get(json_at(steps, 4), S("weight")), 0), 1, 0);
    CHECK_INT(json_path(p, "models.m.features")->line, 5);
}

static void presets(void)
{
    struct json *p = parse("project: p\nrollouts:\n"
                           "  a: {preset: blue-green, guards: {p99: off, error_rate: 0.5%}}\n"
                           "  b: {steps: [{weight: 0.2, hold: 90s, min_rows: 1e3}]}\n"
                           "  c:\n"
                           "  d: {preset: blue-green, shadow: {for: 1h}}\n");

    NEED(p);
    CHECK(json_path(p, "rollouts.a.steps")->count == 1);
    CHECK_INT(int_at(p, "rollouts.a.shadow.for_ns"), 15 * 60 * NS_PER_S);
    CHECK(null_at(p, "rollouts.a.guards.p99_ns"));
    CHECK_NEAR(json_real_or(json_path(p, "rollouts.a.guards.error_rate"), 0), 0.005, 0);
    CHECK_STR(json_str_or(json_path(p, "rollouts.b.preset"), STR_NULL), S("none"));
    CHECK_INT(int_at(json_at(json_path(p, "rollouts.b.steps"), 0), "hold_ns"), 90 * NS_PER_S);
    CHECK_INT(int_at(json_at(json_path(p, "rollouts.b.steps"), 0), "rows_min"), 1000);
    CHECK_STR(json_str_or(json_path(p, "rollouts.c.preset"), STR_NULL), S("standard"));
    CHECK_INT(int_at(p, "rollouts.d.shadow.for_ns"), 3600 * NS_PER_S);
}

static void units(void)
{
    struct json *p =
        parse("project: p\n"
              "gateway: {body_limit: 1.5MiB, header_limit: 2048, loops: 4,\n"
              "  idle_timeout: 1min30s, listen: 'unix:/run/weir.sock',\n"
              "  records: {retention: forever, seal_bytes: 1GB, label_window: 2e6}}\n"
              "control: {listen: '[::1]:0'}\n"
              "models: {m: {task: classification, classes: [0, 1, yes, true],\n"
              "  positive: 1, input: {x: [a b, c]}, features: [{name: a b}, {name: c,\n"
              "  type: string, required: false, categories: [1, x]}]}}\n"
              "endpoints: {e: {model: m, versions: {1: 0.9, 2: 10%},\n"
              "  aliases: {timestamp: time}}}\n");
    struct json *classes = json_path(p, "models.m.classes");

    NEED(p && classes);
    CHECK_INT(int_at(p, "gateway.body_bytes_max"), 3 << 19);
    CHECK_INT(int_at(p, "gateway.header_bytes_max"), 2048);
    CHECK_INT(int_at(p, "gateway.loops"), 4);
    CHECK_INT(int_at(p, "gateway.idle_timeout_ns"), 90 * NS_PER_S);
    CHECK_INT(int_at(p, "gateway.records.seal_bytes"), 1000000000);
    CHECK_INT(int_at(p, "gateway.records.label_window_rows"), 2000000);
    CHECK(null_at(p, "gateway.records.retention_ns"));
    CHECK_STR(json_str_or(json_at(classes, 0), STR_NULL), S("0"));
    CHECK_STR(json_str_or(json_at(classes, 2), STR_NULL), S("yes"));
    CHECK_STR(json_str_or(json_at(classes, 3), STR_NULL), S("true"));
    CHECK_STR(json_str_or(json_path(p, "models.m.positive"), STR_NULL), S("1"));
    CHECK(null_at(p, "endpoints.e.alias"));
    CHECK_NEAR(json_real_or(json_path(p, "endpoints.e.versions.2"), 0), 0.1, 0);
}

/* The normalised tree, through its bytes, reads back as itself. */
static void round_trip(void)
{
    static const char *const texts[] = {
        "project: p\n",
        SHOP,
        "project: p\nmodels: {m: {task: classification}}\n"
        "endpoints: {e: {model: m, versions: {a: 25%, b: 75%}, sticky: {header: x}, rollout: "
        "day}}\n"
        "rollouts: {r: {preset: immediate}, s: {steps: [{weight: 100%}]}}\n",
    };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        AUTO(buf_done) struct buf bytes = {0};
        struct project_result again;
        struct json *norm = parse(texts[i]), *tree;
        char hash[SHA256_HEX_SIZE];
        struct err e;

        NEED(norm);
        project_hash(norm, hash);
        buf_init(&bytes, BUF_MAX_DEFAULT);
        json_write_canonical(&bytes, norm);
        NEED_OK(json_parse(buf_str(&bytes), &arena, &tree, &e), &e);
        NEED_OK(project_normalise(tree, &arena, &again, &e), &e);
        CHECK(json_equal(norm, again.norm));
        CHECK_STR(str_of(again.hash), str_of(hash));
    }
}

/* What comes in normalised form is checked as strictly. */
static void normal_form_is_checked(void)
{
    static const struct {
        const char *json, *why;
    } cases[] = {
        {"{\"form\":\"weir.project/1\",\"project\":\"p\",\"gateway\":{\"idle_timeout_ns\":1}}",
         "project:1:69: gateway.idle_timeout_ns is 1, expected a duration"},
        {"{\"form\":\"weir.project/1\",\"project\":\"p\",\"gateway\":{\"idle_timeout\":\"1s\"}}",
         "gateway: unknown key 'idle_timeout', did you mean 'idle_timeout_ns'?"},
        {"{\"form\":\"weir.project/2\",\"project\":\"p\"}", "unknown key 'form'"},
        {"{\"form\":\"weir.project/1\",\"project\":\"p\",\"gateway\":{\"idle_timeout_ns\":null}}",
         "gateway.idle_timeout_ns is empty"},
        {"[]", "the file holds no mapping"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct project_result r;
        struct json *tree;
        struct err e;

        NEED_OK(json_parse(str_of(cases[i].json), &arena, &tree, &e), &e);
        CHECK_FAILS(project_normalise(tree, &arena, &r, &e), INVALID_ARGUMENT, &e, cases[i].why);
        CHECK(!r.norm && r.problem_count >= 1);
    }
}

/* Notation, order and comments do not matter to the hash; a value does. */
static void hashes(void)
{
    struct json *a = parse("project: p\ngateway: {idle_timeout: 60s}\ncontrol:\n");
    struct json *b = parse("# x\ngateway:\n  idle_timeout: 1min\nproject: 'p'\n");
    struct json *c = parse("project: p\ngateway: {idle_timeout: 61s}\n");
    char ha[SHA256_HEX_SIZE], hb[SHA256_HEX_SIZE], hc[SHA256_HEX_SIZE];

    NEED(a && b && c);
    project_hash(a, ha);
    project_hash(b, hb);
    project_hash(c, hc);
    CHECK_STR(str_of(ha), str_of(hb));
    CHECK(!str_eqz(str_of(ha), hc));
}

/* Ten thousand endpoints with monitors and triggers are read in far less than the test's time. */
static void many_items(void)
{
    AUTO(buf_done) struct buf text = {0};
    struct json *p;
    int64_t begin;

    buf_init(&text, BUF_MAX_DEFAULT);
    buf_add_str(&text,
                S("project: p\ndatasets: {d: {path: a.csv, label: y}}\ntrainers: {t: {}}\n"));
    buf_add_str(&text, S("models:\n"));
    for (int i = 0; i < PROJECT_ITEMS_MAX; i++)
        buf_printf(&text, "  m%d: {task: classification, dataset: d, trainer: t}\n", i);
    buf_add_str(&text, S("endpoints:\n"));
    for (int i = 0; i < PROJECT_ITEMS_MAX; i++)
        buf_printf(&text, "  e%d: {model: m%d}\n", i, i);
    buf_add_str(&text, S("monitors:\n"));
    for (int i = 0; i < PROJECT_ITEMS_MAX; i++)
        buf_printf(&text, "  w%d: {endpoint: e%d}\n", i, i);
    buf_add_str(&text, S("triggers:\n"));
    for (int i = 0; i < PROJECT_ITEMS_MAX; i++)
        buf_printf(&text, "  t%d: {on: drift, endpoint: e%d}\n", i, i);
    begin = time_mono_ns();
    p = parse(buf_z(&text));
    printf("40000 items in %lld ms\n", (long long)((time_mono_ns() - begin) / NS_PER_MS));
    NEED(p);
    CHECK(json_get(p, S("triggers"))->count == PROJECT_ITEMS_MAX);
    CHECK(time_mono_ns() - begin < 30 * NS_PER_S);
    arena_reset(&arena);
}

static void templates(void)
{
    char dir[] = "/tmp/weir-project-XXXXXX";
    const struct project_template *list;
    struct project_result r;
    struct err e;
    size_t n;

    NEED(check_mkdtemp(dir));
    CHECK_FAILS(project_load(dir, &arena, &r, &e), NOT_FOUND, &e, "`weir init` writes one");
    list = project_templates(&n);
    CHECK(n >= 2);
    for (size_t i = 0; i < n; i++) {
        char *sub = path_join(&arena, dir, list[i].name);

        NEED_OK(project_init_write(sub, S("shop-1"), str_of(list[i].name), &e), &e);
        NEED_OK(project_load(sub, &arena, &r, &e), &e);
        CHECK_STR(json_str_or(json_get(r.norm, S("project")), STR_NULL), S("shop-1"));
        CHECK_FAILS(project_init_write(sub, S("other"), str_of(list[i].name), &e), ALREADY_EXISTS,
                    &e, "weir.yaml exists");
        NEED_OK(project_load(sub, &arena, &r, &e), &e);
        CHECK_STR(json_str_or(json_get(r.norm, S("project")), STR_NULL), S("shop-1"));
        NEED_OK(file_remove(path_join(&arena, sub, PROJECT_FILE), &e), &e);
        NEED_OK(file_remove(path_join(&arena, sub, PROJECT_SCHEMA_FILE), &e), &e);
        CHECK(rmdir(sub) == 0);
    }
    CHECK(rmdir(dir) == 0);
    CHECK_FAILS(project_init_write(dir, S("p"), S("tabula"), &e), NOT_FOUND, &e,
                "no template 'tabula', did you mean 'tabular'?");
    CHECK_FAILS(project_init_write(dir, S("a b"), S("blank"), &e), INVALID_ARGUMENT, &e,
                "'a b' cannot name a project");
    CHECK(!file_exists(dir));
}

RUN_TESTS(T(defaults), T(filled_in), T(presets), T(units), T(round_trip), T(normal_form_is_checked),
          T(hashes), T(many_items), T(templates))
