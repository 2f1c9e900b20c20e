/* SPDX-License-Identifier: Apache-2.0 */
/* Every kind of problem, word for word, with its place. */
#include "check.h"

#include "project/project.h"

static struct arena arena;

struct problem_case {
    const char *text, *want; /* want: the lines of project_problem_line, without the file name */
};

static void check_cases(const struct problem_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        AUTO(buf_done) struct buf got = {0};
        struct project_result r;
        struct err e;

        buf_init(&got, BUF_MAX_DEFAULT);
        CHECK_INT(project_parse(str_of(cases[i].text), "f", &arena, &r, &e), CODE_INVALID_ARGUMENT);
        for (const struct project_problem *p = r.problem; p; p = p->next) {
            project_problem_line(&r, p, &got);
            buf_add_char(&got, '\n');
        }
        CHECK_STR(buf_str(&got), str_of(cases[i].want));
        CHECK(!r.norm);
    }
}

static void yaml(void)
{
    static const struct problem_case cases[] = {
        {"project: p\nproject: q\n",
         "f:2:1: key 'project' stands twice, expected once (first at 1:1)\n"},
        {"- a\n", "f:1:1: the file holds no mapping, expected 'project: <name>' and sections\n"},
        {"", "f:1:1: the document is empty, expected a value\n"},
    };

    check_cases(cases, ARRAY_LEN(cases));
}

#define NAME_NOUN "a name of letters, digits, '.', '_' and '-'"

static void keys_and_types(void)
{
    static const struct problem_case cases[] = {
        {"version: 1\n", "f:1:1: the project has no 'project', expected " NAME_NOUN "\n"},
        {"project: p\nendpoint: {}\n",
         "f:2:1: unknown key 'endpoint', did you mean 'endpoints'?\n"},
        {"project: p\nform: weir\n", "f:2:1: unknown key 'form', expected one of version, project, "
                                     "gateway, auth, control, datasets, "
                                     "trainers, models, endpoints, monitors, triggers, rollouts\n"},
        {"project: p\ngateway:\n  liste: x\n",
         "f:3:3: gateway: unknown key 'liste', did you mean 'listen'?\n"},
        {"project: p\ncontrol: [1]\n", "f:2:10: control is a list, expected a mapping\n"},
        {"project: p\nmodels: 5\n",
         "f:2:9: models is 5, expected a mapping of names to mappings\n"},
        {"project: p\ndatasets: {a b: {path: x.csv}}\n",
         "f:2:12: datasets has the entry 'a b', expected a name of letters, digits, '.', '_' and "
         "'-', at most 128\n"},
        {"project: 1\n", "f:1:10: project is 1, expected " NAME_NOUN "\n"},
        {"project: p\nversion: 2\n", "f:2:10: version is 2, expected a whole number: 1\n"},
        {"project: p\ndatasets:\n  d:\n",
         "f:3:3: datasets.d has no 'path', expected text (not empty)\n"},
        {"project: p\ndatasets:\n  d: {path: ''}\n",
         "f:3:13: datasets.d.path is '', expected text (not empty)\n"},
        {"project: p\ndatasets:\n  d: {path: 5}\n",
         "f:3:13: datasets.d.path is 5, expected text (not empty), did you mean '\"5\"'?\n"},
        {"project: p\ndatasets:\n  d: {path: x.csv, format: cvs}\n",
         "f:3:28: datasets.d.format is 'cvs', expected one of auto, csv, parquet, jsonl, did you "
         "mean 'csv'?\n"},
        {"project: p\ntrainers:\n  t: {network: no}\n",
         "f:3:16: trainers.t.network is 'no', expected true or false, did you mean 'false'?\n"},
        {"project: p\ntrainers:\n  t: {rounds: 1.5}\n",
         "f:3:15: trainers.t.rounds is 1.5, expected a whole number, from 1 to 10000\n"},
        {"project: p\ntrainers:\n  t: {rounds:}\n",
         "f:3:7: trainers.t.rounds is empty, expected a whole number, from 1 to 10000\n"},
        {"project: p\ntrainers:\n  t: {kind: command, command: []}\n",
         "f:3:31: trainers.t.command is an empty list, expected at least one entry\n"},
        {"project: p\ntrainers:\n  t: {kind: command, command: python}\n",
         "f:3:31: trainers.t.command is 'python', expected a list of texts\n"},
        {"project: p\ntrainers:\n  t: {kind: command, command: [a, 1]}\n",
         "f:3:35: trainers.t.command[1] is 1, expected text (not empty), did you mean '\"1\"'?\n"},
        {"project: p\ntrainers:\n  t: {kind: command, command: [a], eta: 1}\n",
         "f:3:36: trainers.t.eta has no meaning with kind: command, expected kind: xgboost\n"},
        {"project: p\ntrainers:\n  t: {kind: comand, command: [a]}\n",
         "f:3:13: trainers.t.kind is 'comand', expected one of xgboost, command, did you mean "
         "'command'?\n"},
    };

    check_cases(cases, ARRAY_LEN(cases));
}

#define ENDPOINT(rest) \
    "project: p\nmodels: {m: {task: regression}}\nendpoints:\n  e:\n    model: m\n" rest

static void fallbacks(void)
{
    static const struct problem_case cases[] = {
        {ENDPOINT("    fallback: {chain: [{}]}\n"),
         "f:6:24: endpoints.e.fallback.chain[0] has 0 of 'alias', 'version' and 'answer', expected "
         "one "
         "of them\n"},
        {ENDPOINT("    fallback: {chain: [{alias: a, version: 2}]}\n"),
         "f:6:24: endpoints.e.fallback.chain[0] has 2 of 'alias', 'version' and 'answer', expected "
         "one "
         "of them\n"},
        {ENDPOINT("    fallback: {chain: [{answer: {prediction: 1}}, {alias: a}]}\n"),
         "f:6:24: endpoints.e.fallback.chain[0] answers always, and something comes after it, "
         "expected "
         "the static answer last\n"},
        {ENDPOINT("    fallback: {chain: [{alias: a}, {alias: a}]}\n"),
         "f:6:36: endpoints.e.fallback.chain[1] stands in the chain a second time, expected each "
         "step "
         "once\n"},
        {ENDPOINT("    fallback: {chain: [{answer: {y: [1, [2]]}}]}\n"),
         "f:6:37: endpoints.e.fallback.chain[0].answer.y is a list, expected a number, true, false "
         "or "
         "a text, or a list of them\n"},
        {ENDPOINT("    fallback: {share: 100%}\n"), "f:6:23: endpoints.e.fallback.share is '100%', "
                                                    "expected a fraction such as 10% or 0.1, from "
                                                    "1% to 99%\n"},
        {ENDPOINT("    fallback: {chian: []}\n"),
         "f:6:16: endpoints.e.fallback: unknown key 'chian', did you mean 'chain'?\n"},
        {ENDPOINT("    idempotency: {window: 2d}\n"),
         "f:6:27: endpoints.e.idempotency.window is '2d', expected a duration such as 30s or "
         "15min, "
         "from 1s to 1d\n"},
        {ENDPOINT("    idempotency: {}\n    durable_log: true\n"),
         "f:6:18: endpoints.e.idempotency stands beside durable_log, which may take an answer "
         "back, "
         "expected one of the two\n"},
    };

    check_cases(cases, ARRAY_LEN(cases));
}

static void values(void)
{
    static const struct problem_case cases[] = {
        {"project: p\ngateway: {listen: localhost}\n",
         "f:2:19: gateway.listen is 'localhost', expected an address such as 127.0.0.1:8080\n"},
        {"project: p\ngateway: {listen: 'h:65536'}\n",
         "f:2:19: gateway.listen is 'h:65536', expected an address such as 127.0.0.1:8080\n"},
        {"project: p\ngateway: {listen: 8080}\n",
         "f:2:19: gateway.listen is 8080, expected an address such as 127.0.0.1:8080, did you mean "
         "'127.0.0.1:8080'?\n"},
        {"project: p\ngateway: {idle_timeout: 30}\n",
         "f:2:25: gateway.idle_timeout is 30, expected a duration such as 30s or 15min, from 1s to "
         "1h, did you mean '30s'?\n"},
        {"project: p\ngateway: {idle_timeout: 2 parsecs}\n",
         "f:2:25: gateway.idle_timeout is '2 parsecs', expected a duration such as 30s or 15min, "
         "from 1s to 1h\n"},
        {"project: p\ngateway: {idle_timeout: 2h}\n",
         "f:2:25: gateway.idle_timeout is '2h', expected a duration such as 30s or 15min, from 1s "
         "to 1h\n"},
        {"project: p\ngateway: {body_limit: 8m}\n", "f:2:23: gateway.body_limit is '8m', expected "
                                                    "a size such as 64MiB, from 1KiB to 1GiB, did "
                                                    "you mean '8MiB'?\n"},
        {"project: p\ngateway: {loops: 0}\n",
         "f:2:18: gateway.loops is 0, expected a whole number, from 1 to 256, or auto\n"},
        {"project: p\nrollouts: {r: {steps: [{weight: 10}]}}\n",
         "f:2:33: rollouts.r.steps[0].weight is 10, expected a fraction such as 10% or 0.1, from "
         "0.01% to 100%, did you mean '10%'?\n"},
        {"project: p\nrollouts: {r: {preset: carefull}}\n",
         "f:2:24: rollouts.r.preset is 'carefull', expected one of standard, quick, day, halves, "
         "two-days, regional, careful, staged, blue-green, immediate, none, did you mean "
         "'careful'?\n"},
        {"project: p\nmodels: {m: {task: classification, classes: [a, 1.5]}}\n",
         "f:2:49: models.m.classes[1] is 1.5, expected a class such as 'yes' or 1\n"},
        {"project: p\nmodels: {m: {task: regression, input: {x: a}}}\n",
         "f:2:43: models.m.input.x is 'a', expected a list of texts\n"},
        {"project: p\nmodels: {m: {task: regression}}\nendpoints: {e: {model: m, aliases: {time: "
         "t}}}\n",
         "f:3:37: endpoints.e.aliases: unknown key 'time', expected one of prediction, score, "
         "confidence, band, rule, model_version, timestamp, explanation, metadata\n"},
    };

    check_cases(cases, ARRAY_LEN(cases));
}

#define M "project: p\nmodels: {m: {task: classification}}\nendpoints: {e: {model: m}}\n"

static void references(void)
{
    static const struct problem_case cases[] = {
        {"project: p\nmodels: {fraud: {task: regression}}\nendpoints: {e: {model: frad}}\n",
         "f:3:24: endpoints.e.model names 'frad', which is not under models, did you mean "
         "'fraud'?\n"},
        {"project: p\nendpoints: {e: {model: m}}\n",
         "f:2:24: endpoints.e.model names 'm', which is not under models, expected the name of an "
         "entry of models\n"},
        {"project: p\nmodels: {m: {task: regression}}\nendpoints: {e: {model: m, rollout: "
         "cautious}}\n",
         "f:3:36: endpoints.e.rollout names 'cautious', which is not under rollouts, expected the "
         "name of an entry of rollouts, or a preset\n"},
        {M "monitors: {w: {endpoint: ee}}\n",
         "f:4:26: monitors.w.endpoint names 'ee', which is not under endpoints, did you mean "
         "'e'?\n"},
        {"project: p\nmodels: {m: {task: regression, dataset: d, trainer: t}}\n",
         "f:2:41: models.m.dataset names 'd', which is not under datasets, expected the name of an "
         "entry of datasets\n"
         "f:2:53: models.m.trainer names 't', which is not under trainers, expected the name of an "
         "entry of trainers\n"},
        {M "triggers: {t: {on: manual, endpoint: x1}}\n",
         "f:4:38: triggers.t.endpoint names 'x1', which is not under endpoints, expected the name "
         "of "
         "an entry of endpoints\n"},
        /* the model has a problem of its own: what refers to it is not told again */
        {"project: p\nmodels: {m: {task: x1}}\nendpoints: {e: {model: m}}\n"
         "monitors: {w: {endpoint: e}}\ntriggers: {t: {on: drift, endpoint: e}}\n",
         "f:2:20: models.m.task is 'x1', expected one of classification, regression\n"},
    };

    check_cases(cases, ARRAY_LEN(cases));
}

static void models(void)
{
    static const struct problem_case cases[] = {
        {"project: p\ndatasets: {d: {path: data/x}}\n",
         "f:2:22: datasets.d.path does not tell its format by its ending, expected .csv, .parquet "
         "or "
         ".jsonl, or 'format: csv'\n"},
        {"project: p\nmodels: {m: {task: regression, metric: f1}}\n",
         "f:2:40: models.m.metric is f1, which does not measure a regression, expected one of "
         "rmse, "
         "mae, mape, r2\n"},
        {"project: p\nmodels: {m: {task: regression, retrain: {evaluation: {gates: [{metric: "
         "recall}]}}}}\n",
         "f:2:72: models.m.retrain.evaluation.gates[0].metric is recall, which does not measure a "
         "regression, expected one of rmse, mae, mape, r2\n"},
        {"project: p\nmodels: {m: {task: regression, threshold: 1%}}\n",
         "f:2:32: models.m.threshold has no meaning with task: regression, expected task: "
         "classification\n"},
        {"project: p\nmodels: {m: {task: regression, features: [{name: a}, {name: a}]}}\n",
         "f:2:54: models.m.features[1] is 'a' a second time, expected each name once\n"},
        {"project: p\nmodels: {m: {task: regression, features: []}}\n",
         "f:2:42: models.m.features is an empty list, expected at least one feature, or auto\n"},
        {"project: p\nmodels: {m: {task: regression, features: [{name: a, min: 2, max: 1}]}}\n",
         "f:2:66: models.m.features[0].max is less than min, expected min <= max\n"},
        {"project: p\nmodels: {m: {task: regression, features: [{name: a, type: bool, min: 2}]}}\n",
         "f:2:65: models.m.features[0].min has no meaning with type: bool, expected type: "
         "float|double|int\n"},
        {"project: p\nmodels: {m: {task: regression, features: [{name: a}], input: {x: [b]}}}\n",
         "f:2:67: models.m.input.x[0] is 'b', which is not a feature, expected a name of "
         "features\n"},
        {"project: p\nmodels: {m: {task: classification, classes: [a, b], positive: c}}\n",
         "f:2:63: models.m.positive is 'c', which is not under classes, expected one of classes\n"},
        {"project: p\nmodels: {m: {task: classification, classes: [a]}}\n",
         "f:2:45: models.m.classes has one class, expected at least two\n"},
        {"project: p\ntrainers: {t: {}}\nmodels: {m: {task: regression, trainer: t}}\n",
         "f:3:41: models.m.trainer has nothing to train on, expected 'dataset' beside it\n"},
        {"project: p\ntrainers: {t: {}}\ndatasets: {d: {path: a.csv}}\nmodels: {m: {task: "
         "regression, trainer: t, dataset: d}}\n",
         "f:4:41: models.m.trainer has no label to learn, expected 'label' here or in the "
         "dataset\n"},
        {"project: p\nmodels: {m: {task: regression, label: a, features: [{name: a}]}}\n",
         "f:2:39: models.m.label has the label 'a' among its features, expected features that are "
         "known before the outcome\n"},
    };

    check_cases(cases, ARRAY_LEN(cases));
}

#define T1                                                                    \
    "project: p\ntrainers: {t: {}}\ndatasets: {d: {path: a.csv, label: y}}\n" \
    "models:\n  m: {task: classification, trainer: t, dataset: d}\n"          \
    "  r: {task: classification, trainer: t, dataset: d, regulated: true}\n"  \
    "endpoints: {e: {model: m}, f: {model: r}}\n"

static void traffic(void)
{
    static const struct problem_case cases[] = {
        {M "control: {listen: '127.0.0.1:8080'}\n",
         "f:4:19: control.listen is also gateway.listen, expected an address of its own\n"},
        {"project: p\nmodels: {m: {task: regression}}\nendpoints: {e: {model: m, versions: {1: "
         "50%, "
         "2: 40%}}}\n",
         "f:3:37: endpoints.e.versions add up to 90%, expected 100%\n"},
        {"project: p\nmodels: {m: {task: regression}}\nendpoints: {e: {model: m, alias: x, "
         "versions: "
         "{1: 100%}}}\n",
         "f:3:34: endpoints.e.alias stands beside 'versions', expected one of the two\n"},
        {"project: p\nmodels: {m: {task: regression}}\nendpoints: {e: {model: m, sticky: {}}}\n",
         "f:3:35: endpoints.e.sticky has neither 'field' nor 'header', expected one of them\n"},
        {"project: p\nmodels: {m: {task: regression}}\nendpoints: {e: {model: m, alias: none}}\n",
         "f:3:34: endpoints.e.alias is none, and there are no versions, expected an alias such as "
         "champion, or 'versions'\n"},
        {"project: p\nmodels: {m: {task: regression}}\nendpoints: {e: {model: m, body_limit: "
         "9MiB}}\n",
         "f:3:39: endpoints.e.body_limit is more than gateway.body_limit, expected at most that\n"},
        {M "monitors: {w: {endpoint: e, false_alarms: {one_in: 1d, rows: 1e6}}}\n",
         "f:4:62: monitors.w.false_alarms.rows stands beside 'one_in', expected one of the two\n"},
        {M "monitors: {w: {endpoint: e, psi: {watch: 0.2}}}\n",
         "f:4:34: monitors.w.psi has the bounds 0.2, 0.2, 0.3, expected watch < moderate < "
         "severe\n"},
        {"project: p\nmodels: {m: {task: regression, features: [{name: a}]}}\nendpoints: {e: "
         "{model: "
         "m}}\nmonitors: {w: {endpoint: e, labels: {metric: error_rate}, features: {b: {}}}}\n",
         "f:4:46: monitors.w.labels.metric does not fit the task of the model, expected "
         "absolute_error\n"
         "f:4:70: monitors.w.features.b is not a feature of model 'm', expected a name of its "
         "features\n"},
        {T1 "triggers: {t: {on: manual}}\n",
         "f:8:15: triggers.t has neither 'endpoint' nor 'model', expected one of them\n"},
        {T1 "triggers: {t: {on: schedule, model: m}}\n",
         "f:8:12: triggers.t has no 'cron', expected five cron fields such as '0 6 * * 1'\n"},
        {T1 "triggers: {t: {on: schedule, model: m, cron: 0 25 * * *}}\n",
         "f:8:46: triggers.t.cron is '0 25 * * *': the hour '25' is not a number from 0 to 23, a "
         "range or a step, expected five cron fields such as '0 6 * * 1'\n"},
        {T1 "triggers: {t: {on: manual, endpoint: e, model: r}}\n",
         "f:8:15: triggers.t has no review, and model 'r' is regulated, expected 'policy: review'\n"
         "f:8:48: triggers.t.model is not the model of endpoint 'e', expected 'm', or one of the "
         "two "
         "fields\n"},
        {T1 "triggers: {t: {on: volume, model: r, policy: review}}\n",
         "f:8:20: triggers.t.on is volume, and model 'r' is regulated, expected schedule or "
         "manual\n"},
        {T1 "triggers: {t: {on: drift, endpoint: e}}\n",
         "f:8:20: triggers.t.on is drift, and no monitor watches model 'm', expected an entry of "
         "monitors for its endpoint\n"},
        {M "triggers: {t: {on: manual, model: m}}\n",
         "f:4:15: triggers.t retrains model 'm', which has no trainer, expected 'trainer' and "
         "'dataset' in the model\n"},
    };

    check_cases(cases, ARRAY_LEN(cases));
}

static void rollouts(void)
{
    static const struct problem_case cases[] = {
        {"project: p\nrollouts: {r: {steps: [{weight: 50%}, {weight: 20%}]}}\n",
         "f:2:48: rollouts.r.steps[1].weight is 20% after 50%, expected shares in rising order\n"},
        {"project: p\nrollouts: {r: {steps: [{weight: 100%, hold: 1h}]}}\n",
         "f:2:45: rollouts.r.steps[0].hold holds at 100%, where no champion is left to compare "
         "with, "
         "expected 'bake' of the rollout\n"},
        {"project: p\nrollouts: {r: {max_hold: 1h, steps: [{weight: 10%, hold: 2h}]}}\n",
         "f:2:58: rollouts.r.steps[0].hold is longer than max_hold, expected hold <= max_hold\n"},
        {"project: p\nrollouts: {r: {steps: []}}\n", "f:2:23: rollouts.r.steps is empty, and there "
                                                     "is no preset, expected at least one step, or "
                                                     "'preset: immediate'\n"},
        {"project: p\nrollouts: {r: {post_checks: [1h, 15min]}}\n",
         "f:2:29: rollouts.r.post_checks do not rise, expected times in rising order\n"},
        {"project: p\nrollouts: {r: {steps: [{hold: 1h}]}}\n",
         "f:2:24: rollouts.r.steps[0] has no 'weight', expected a fraction such as 10% or 0.1, "
         "from "
         "0.01% to 100%\n"},
    };

    check_cases(cases, ARRAY_LEN(cases));
}

static void excerpts(void)
{
    AUTO(buf_done) struct buf out = {0};
    struct project_result r;
    struct err e;

    buf_init(&out, BUF_MAX_DEFAULT);
    CHECK_FAILS(project_parse(S("project: p # ä\ngateway:\n  liste: \"x y\"\n"
                                "models: {ä: {task: 'regresion'}}\n"),
                              "weir.yaml", &arena, &r, &e),
                INVALID_ARGUMENT, &e,
                "weir.yaml:3:3: gateway: unknown key 'liste', did you mean "
                "'listen'? (and 1 more)");
    project_problems_text(&r, &out);
    CHECK_STR(
        buf_str(&out),
        S("weir.yaml:3:3: gateway: unknown key 'liste', did you mean 'listen'?\n"
          "   3 |   liste: \"x y\"\n"
          "     |   ^~~~~\n"
          "weir.yaml:4:10: models has the entry 'ä', expected a name of letters, digits, '.', "
          "'_' and '-', at most 128\n"
          "   4 | models: {ä: {task: 'regresion'}}\n"
          "     |          ^\n"));
    buf_clear(&out);
    CHECK_INT(project_parse(S("project: p\nmodels: {m: {task: 'regresion'}}\n"), "weir.yaml",
                            &arena, &r, &e),
              CODE_INVALID_ARGUMENT);
    project_problems_text(&r, &out);
    CHECK_STR(buf_str(&out), S("weir.yaml:2:20: models.m.task is 'regresion', expected one of "
                               "classification, regression, did you mean 'regression'?\n"
                               "   2 | models: {m: {task: 'regresion'}}\n"
                               "     |                    ^~~~~~~~~~~\n"));
}

static void as_json(void)
{
    AUTO(buf_done) struct buf out = {0};
    struct project_result r;
    struct err e;

    buf_init(&out, BUF_MAX_DEFAULT);
    CHECK_INT(project_parse(S("project: p\ncontrl: {}\n"), "weir.yaml", &arena, &r, &e),
              CODE_INVALID_ARGUMENT);
    project_problems_json(&r, &out);
    CHECK_STR(buf_str(&out),
              S("{\"count\":1,\"problems\":[{\"file\":\"weir.yaml\",\"line\":2,\"column\":1,"
                "\"path\":\"contrl\",\"what\":\"unknown key 'contrl'\",\"suggestion\":\"control\","
                "\"message\":\"unknown key 'contrl', did you mean 'control'?\"}]}"));
}

/* Past the limit problems are counted, not kept; sections and lists have their limits. */
static void limits(void)
{
    AUTO(buf_done) struct buf text = {0}, out = {0};
    struct project_result r;
    struct err e;
    size_t kept = 0;

    buf_init(&text, BUF_MAX_DEFAULT);
    buf_init(&out, BUF_MAX_DEFAULT);
    buf_add_str(&text, S("project: p\ndatasets:\n"));
    for (int i = 0; i < 150; i++)
        buf_printf(&text, "  d%d: {path: x.csv, nonsense: 1}\n", i);
    CHECK_INT(project_parse(buf_str(&text), "f", &arena, &r, &e), CODE_INVALID_ARGUMENT);
    CHECK_INT(r.problem_count, 150);
    for (const struct project_problem *p = r.problem; p; p = p->next)
        kept++;
    CHECK_INT(kept, PROJECT_PROBLEMS_MAX);
    project_problems_text(&r, &out);
    CHECK(str_ends(buf_str(&out), S("\nf: 50 more\n")));

    buf_clear(&text);
    buf_add_str(&text, S("project: p\ndatasets:\n"));
    for (int i = 0; i <= PROJECT_ITEMS_MAX; i++)
        buf_printf(&text, "  d%d: {path: x.csv}\n", i);
    CHECK_FAILS(project_parse(buf_str(&text), "f", &arena, &r, &e), INVALID_ARGUMENT, &e,
                "f:2:1: datasets has 10001 entries, expected at most 10000");
    buf_clear(&text);
    buf_add_str(&text, S("project: p\nmodels: {m: {task: regression, tags: ["));
    for (int i = 0; i <= PROJECT_LIST_MAX; i++)
        buf_add_str(&text, S("a,"));
    buf_add_str(&text, S("]}}\n"));
    CHECK_FAILS(project_parse(buf_str(&text), "f", &arena, &r, &e), INVALID_ARGUMENT, &e,
                "models.m.tags has 4097 entries, expected at most 4096");
}

static void auth(void)
{
#define ISSUER "{issuer: i, audiences: [a], jwks: '{}'}"
    static const struct problem_case cases[] = {
        {"project: p\nauth: nome\n", "f:2:7: auth.mode is 'nome', expected one of auto, required, "
                                     "none, did you mean 'none'?\n"},
        {"project: p\nauth: [none]\n", "f:2:7: auth is a list, expected a mapping\n"},
        {"project: p\ngateway: {listen: '0.0.0.0:80'}\n",
         "f:2:19: gateway.listen lets other machines in, and 'auth' does not say who may ask, "
         "expected 'auth: required' (see weir key), an entry of auth.issuers, or 'auth: none'\n"},
        {"project: p\nauth: {issuers: {c: {issuer: i, audiences: [a]}}}\n",
         "f:2:21: auth.issuers.c has 0 sources of keys, expected one of jwks_file, jwks_url and "
         "jwks\n"},
        {"project: p\nauth: {issuers: {c: {issuer: i, audiences: [], jwks_file: f}}}\n",
         "f:2:44: auth.issuers.c.audiences is an empty list, expected at least one entry\n"},
        {"project: p\nauth: {issuers: {c: {issuer: i, audiences: [a], jwks_url: 'http://x/k'}}}\n",
         "f:2:59: auth.issuers.c.jwks_url could be answered by anybody on the way, expected "
         "https://\xe2\x80\xa6, or http:// on this machine\n"},
        {"project: p\nauth: {issuers: {c: " ISSUER ", d: " ISSUER "}}\n",
         "f:2:74: auth.issuers.d.issuer is also that of 'c', expected one entry for an issuer\n"},
        {"project: p\nauth: {issuers: {c: {issuer: i, audiences: [a], jwks: '{}', algorithms: "
         "[none], "
         "roles: {'a:b': rooot}, tier: fre}}}\n",
         "f:2:73: auth.issuers.c.algorithms has 'none', expected RS256, ES256 or EdDSA\n"
         "f:2:88: auth.issuers.c.roles has the role 'rooot', expected reader, monitor, predictor, "
         "operator or admin\n"},
        {"project: p\nauth: {issuers: {c: {issuer: i, audiences: [a], jwks: '{}', tier: fre}}}\n",
         "f:2:67: auth.issuers.c.tier is 'fre', which is no tier, expected free, basic, premium, "
         "or "
         "an entry of auth.tiers\n"},
        {"project: p\ngateway: {limits: {address: {per: 1s}}}\n",
         "f:2:20: gateway.limits.address has no 'requests', expected a whole number, from 1 to "
         "10000000\n"},
    };
#undef ISSUER

    check_cases(cases, ARRAY_LEN(cases));
}

RUN_TESTS(T(auth), T(yaml), T(keys_and_types), T(fallbacks), T(values), T(references), T(models),
          T(traffic), T(rollouts), T(excerpts), T(as_json), T(limits))
