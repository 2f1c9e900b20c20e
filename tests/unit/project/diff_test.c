/* SPDX-License-Identifier: Apache-2.0 */
/* Differences, in words and as JSON. */
#include "check.h"

#include "project/project.h"

static struct arena arena;

static struct json *parse(const char *text)
{
    struct project_result r;
    struct err e;

    return CHECK_OK(project_parse(str_of(text), "weir.yaml", &arena, &r, &e), &e) ? r.norm : NULL;
}

static void texts(void)
{
    static const struct {
        const char *before, *after, *want;
    } cases[] = {
        {"project: p\n", "project: p\ncontrol: {}\n", ""},
        {"project: p\ngateway: {idle_timeout: 60s}\n",
         "project: p\ngateway: {idle_timeout: 1min}\n", ""},
        {"project: p\n", "project: p\ngateway: {idle_timeout: 90s, loops: 2}\n",
         "~ gateway.loops: auto -> 2  (restart)\n"
         "~ gateway.idle_timeout: 1min -> 1min30s  (restart)\n"},
        {"project: p\ngateway: {body_limit: 2MB}\n", "project: p\ngateway: {body_limit: 3MiB}\n",
         "~ gateway.body_limit: 2MB -> 3MiB  (restart)\n"},
        {"project: p\n", "project: p\ndatasets: {d: {path: a.csv, label: y}}\n",
         "+ datasets.d  (next-run)\n"
         "+   datasets.d.path: a.csv\n"
         "+   datasets.d.format: csv\n"
         "+   datasets.d.label: y\n"},
        {"project: p\ndatasets: {d: {path: a.csv}, e: {path: b.csv}}\n",
         "project: p\ndatasets: {e: {path: c.csv}}\n",
         "~ datasets.e.path: b.csv -> c.csv  (next-run)\n"
         "- datasets.d  (next-run)\n"},
        {"project: p\nmodels: {m: {task: regression, features: [{name: a, max: 5}, {name: b}]}}\n",
         "project: p\nmodels: {m: {task: regression, features: [{name: b}, {name: a, max: 7}]}}\n",
         "~ models.m.features.a.max: 5 -> 7  (retrain)\n"
         "~ models.m.features: one order -> another  (retrain)\n"},
        {"project: p\nmodels: {m: {task: regression, features: [{name: a}, {name: b}]}}\n",
         "project: p\nmodels: {m: {task: regression, features: [{name: a}, {name: c, type: "
         "int}]}}\n",
         "+ models.m.features.c  (retrain)\n"
         "+   models.m.features.c.type: int\n"
         "- models.m.features.b  (retrain)\n"},
        {"project: p\nmodels: {m: {task: regression, tags: [x]}}\n",
         "project: p\nmodels: {m: {task: regression, tags: [x, y], features: [{name: a}]}}\n",
         "~ models.m.features: auto -> 1 entry  (retrain)\n"
         "~ models.m.tags: [x] -> [x, y]  (shown)\n"},
        {"project: p\nmodels: {m: {task: regression}}\n",
         "project: p\nmodels: {m: {task: classification}}\n",
         "~ models.m.task: regression -> classification  (retrain)\n"
         "+ models.m.classes: []  (retrain)\n"
         "+ models.m.positive: none  (retrain)\n"
         "+ models.m.threshold: 50%  (live)\n"
         "~ models.m.metric: rmse -> f1  (next-run)\n"
         "+ models.m.retrain.evaluation.gates.f1  (next-run)\n"
         "- models.m.retrain.evaluation.gates.rmse  (next-run)\n"},
        {"project: p\nrollouts: {r: {steps: [{weight: 10%}, {weight: 50%}]}}\n",
         "project: p\nrollouts: {r: {steps: [{weight: 10%, hold: 2h}, {weight: 30%}]}}\n",
         "~ rollouts.r.steps.10%.hold: 1h -> 2h  (next-run)\n"
         "+ rollouts.r.steps.30%  (next-run)\n"
         "- rollouts.r.steps.50%  (next-run)\n"},
        {"project: p\nmodels: {m: {task: regression}}\nendpoints:\n"
         "  e: {model: m, fallback: {chain: [{alias: a}, {version: 2}]}}\n",
         "project: p\nmodels: {m: {task: regression}}\nendpoints:\n"
         "  e: {model: m, fallback: {chain: [{alias: b}, {version: 2}, {answer: {y: 1}}]}}\n",
         "~ endpoints.e.fallback.chain.0.alias: a -> b  (live)\n"
         "+ endpoints.e.fallback.chain.2  (live)\n"
         "+   endpoints.e.fallback.chain.2.answer: {\"y\":1}\n"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO(buf_done) struct buf out = {0};
        struct json *before = parse(cases[i].before), *after = parse(cases[i].after);

        NEED(before && after);
        buf_init(&out, BUF_MAX_DEFAULT);
        project_diff_text(project_diff(before, after, &arena), &out);
        CHECK_STR(buf_str(&out), str_of(cases[i].want));
    }
}

static void first_project(void)
{
    AUTO(buf_done) struct buf out = {0};
    struct json *after = parse("project: p\ngateway: {loops: 3}\n"
                               "models: {m: {task: regression}}\n");

    NEED(after);
    buf_init(&out, BUF_MAX_DEFAULT);
    project_diff_text(project_diff(NULL, after, &arena), &out);
    CHECK_STR(buf_str(&out), S("+ version: 1  (shown)\n"
                               "+ project: p  (restart)\n"
                               "+   gateway.loops: 3\n"
                               "+ models.m  (next-run)\n"
                               "+   models.m.task: regression\n"
                               "+   models.m.metric: rmse\n"
                               "+   models.m.retrain.evaluation.gates: 1 entry\n"));
}

static void as_json(void)
{
    AUTO(buf_done) struct buf out = {0};
    struct json *before = parse("project: p\ngateway: {loops: 3}\n");
    struct json *after = parse("project: p\ngateway: {loops: auto}\n");

    NEED(before && after);
    buf_init(&out, BUF_MAX_DEFAULT);
    project_diff_json(project_diff(before, after, &arena), &out);
    CHECK_STR(buf_str(&out), S("{\"changes\":[{\"kind\":\"change\",\"path\":\"gateway.loops\","
                               "\"before\":3,\"after\":null,\"effect\":\"restart\"}]}"));
    CHECK(!project_diff(after, after, &arena));
}

RUN_TESTS(T(texts), T(first_project), T(as_json))
