/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a table of fields cannot say: rules over several fields of one section, and over several
 * items of the project. They also fill in what the file alone can tell (`auto`, inherited labels,
 * presets), so that the normalised tree says what will happen, not how to find out.
 *
 * A rule over one section runs only when all of its fields were good. Rules across items run over
 * the good items, and skip what refers to one that was not.
 */
#include "project/rules.h"

#include "base/time.h"

#include <math.h>
#include <stdlib.h>

#define VERSIONS_MAX 7 /* of an endpoint, beside a shadow */
#define FALLBACK_MAX 7 /* the versions of an endpoint, less the one that failed */

/* --- Datasets, models --------------------------------------------------------------------- */

static void rule_dataset(struct walk *w, const struct path *p, struct json *norm)
{
    static const struct {
        const char *ending, *format;
    } endings[] = {{".csv", "csv"},         {".csv.gz", "csv"},    {".tsv", "csv"},
                   {".parquet", "parquet"}, {".pq", "parquet"},    {".jsonl", "jsonl"},
                   {".ndjson", "jsonl"},    {".jsonl.gz", "jsonl"}};
    struct path at = at_field(w, p, SECTION_dataset, "path");

    if (!str_eqz(text_of(norm, "format"), "auto"))
        return;
    for (size_t i = 0; i < ARRAY_LEN(endings); i++)
        if (str_ends(text_of(norm, "path"), str_of(endings[i].ending))) {
            json_set_str(w->a, norm, S("format"), str_of(endings[i].format));
            return;
        }
    fail_at(w, &at, S("does not tell its format by its ending"),
            S(".csv, .parquet or .jsonl, or 'format: csv'"));
}

static const struct {
    const char *name;
    bool for_numbers;
} metrics[] = {
    {"accuracy", false}, {"f1", false},     {"macro_f1", false}, {"precision", false},
    {"recall", false},   {"pr_auc", false}, {"roc_auc", false},  {"log_loss", false},
    {"brier", false},    {"rmse", true},    {"mae", true},       {"mape", true},
    {"r2", true},
};

/* False, with a problem, when the metric does not fit the task. */
static bool check_metric(struct walk *w, const struct path *at, str metric, bool for_numbers)
{
    str list = STR_NULL;

    for (size_t i = 0; i < ARRAY_LEN(metrics); i++) {
        if (metrics[i].for_numbers != for_numbers)
            continue;
        if (str_eqz(metric, metrics[i].name))
            return true;
        list = WHAT(STR_F "%s%s", STR_A(list), list.n ? ", " : "one of ", metrics[i].name);
    }
    fail_at(w, at,
            WHAT("is " STR_F ", which does not measure a %s", STR_A(metric),
                 for_numbers ? "regression" : "classification"),
            list);
    return false;
}

static const struct json *find_named(const struct json *list, str name, const struct json *end)
{
    JSON_EACH (item, list) {
        if (item == end)
            return NULL;
        if (str_eq(item->type == JSON_STR ? item->string : text_of(item, "name"), name))
            return item;
    }
    return NULL;
}

/* Each item of a list of texts or of named items once. */
static void check_unique(struct walk *w, const struct path *p, const struct json *list)
{
    size_t i = 0;

    JSON_EACH (item, list) {
        struct path at = {p, STR_NULL, i, json_at(p->at, i)};
        str name = item->type == JSON_STR ? item->string : text_of(item, "name");

        i++;
        if (find_named(list, name, item))
            fail_at(w, &at, WHAT("is '" STR_F "' a second time", STR_A(name)), S("each name once"));
    }
}

static void rule_feature(struct walk *w, const struct path *p, struct json *norm)
{
    struct path at = at_field(w, p, SECTION_feature, "max");
    struct path categories = at_field(w, p, SECTION_feature, "categories");

    if (is_set(norm, "min") && is_set(norm, "max") &&
        json_real_or(json_get(norm, S("max")), 0) < json_real_or(json_get(norm, S("min")), 0))
        fail_at(w, &at, S("is less than min"), S("min <= max"));
    if (is_set(norm, "categories"))
        check_unique(w, &categories, json_get(norm, S("categories")));
}

/* Tensors take features that there are, each feature once. */
static void check_tensors(struct walk *w, const struct path *p, const struct json *norm)
{
    const struct json *features = json_get(norm, S("features"));
    struct path input = at_field(w, p, SECTION_model, "input");

    JSON_EACH (tensor, json_get(norm, S("input"))) {
        struct path at = {&input, tensor->key, 0, json_get(input.at, tensor->key)};
        size_t i = 0;

        JSON_EACH (name, tensor) {
            struct path item = {&at, STR_NULL, i, json_at(at.at, i)};

            i++;
            if (features->type == JSON_ARRAY && !find_named(features, name->string, NULL))
                fail_at(w, &item,
                        WHAT("is '" STR_F "', which is not a feature", STR_A(name->string)),
                        S("a name of features"));
        }
        check_unique(w, &at, tensor);
    }
}

static void check_gates(struct walk *w, const struct path *p, struct json *norm, bool for_numbers)
{
    struct path retrain = at_field(w, p, SECTION_model, "retrain");
    struct path evaluation = at_field(w, &retrain, SECTION_retrain, "evaluation");
    struct path list = at_field(w, &evaluation, SECTION_evaluation, "gates");
    struct json *gates = json_path(norm, "retrain.evaluation.gates"), *gate;
    size_t i = 0;

    if (gates->count == 0 && (gate = section_read(w, SECTION_gate, NULL, &list)))
        json_push(gates, gate);
    JSON_EACH (g, gates) {
        struct path item = {&list, STR_NULL, i, json_at(list.at, i)};
        struct path at = at_field(w, &item, SECTION_gate, "metric");

        i++;
        if (str_eqz(text_of(g, "metric"), "primary"))
            json_set_str(w->a, g, S("metric"), text_of(norm, "metric"));
        else
            check_metric(w, &at, text_of(g, "metric"), for_numbers);
    }
}

static void rule_model(struct walk *w, const struct path *p, struct json *norm)
{
    bool for_numbers = str_eqz(text_of(norm, "task"), "regression");
    const struct json *features = json_get(norm, S("features"));
    struct json *classes = json_get(norm, S("classes"));
    struct path at = at_field(w, p, SECTION_model, "metric");
    str positive = text_of(norm, "positive");

    check_pipeline(w, p, norm);
    if (str_eqz(text_of(norm, "metric"), "auto"))
        json_set_str(w->a, norm, S("metric"), for_numbers ? S("rmse") : S("f1"));
    else if (!check_metric(w, &at, text_of(norm, "metric"), for_numbers))
        return;
    check_gates(w, p, norm, for_numbers);
    check_tensors(w, p, norm);
    at = at_field(w, p, SECTION_model, "features");
    if (features->type == JSON_ARRAY) {
        check_unique(w, &at, features);
        if (features->count == 0)
            fail_at(w, &at, S("is an empty list"), S("at least one feature, or auto"));
    }
    at = at_field(w, p, SECTION_model, "classes");
    if (classes)
        check_unique(w, &at, classes);
    if (classes && classes->count == 1)
        fail_at(w, &at, S("has one class"), S("at least two"));
    at = at_field(w, p, SECTION_model, "positive");
    if (positive.n && classes && classes->count && !find_named(classes, positive, NULL))
        fail_at(w, &at, WHAT("is '" STR_F "', which is not under classes", STR_A(positive)),
                S("one of classes"));
}

/* --- Endpoints, monitors, triggers --------------------------------------------------------- */

static void rule_sticky(struct walk *w, const struct path *p, struct json *norm)
{
    if (!is_set(norm, "field") && !is_set(norm, "header"))
        fail_at(w, p, S("has neither 'field' nor 'header'"), S("one of them"));
}

static void rule_endpoint(struct walk *w, const struct path *p, struct json *norm)
{
    struct json *versions = json_get(norm, S("versions"));
    struct path alias = at_field(w, p, SECTION_endpoint, "alias");
    struct path at = at_field(w, p, SECTION_endpoint, "versions");
    struct path window = at_field(w, p, SECTION_endpoint, "idempotency");
    double sum = 0;

    if (is_set(norm, "idempotency") && json_bool_or(json_get(norm, S("durable_log")), false))
        fail_at(w, &window, S("stands beside durable_log, which may take an answer back"),
                S("one of the two"));
    if (versions->count == 0) {
        if (!is_set(norm, "alias"))
            fail_at(w, &alias, S("is none, and there are no versions"),
                    S("an alias such as champion, or 'versions'"));
        return;
    }
    if (alias.at && is_set(norm, "alias"))
        fail_at(w, &alias, S("stands beside 'versions'"), S("one of the two"));
    json_set(norm, S("alias"), json_new_null(w->a));
    JSON_EACH (version, versions)
        sum += json_real_or(version, 0);
    if (versions->count > VERSIONS_MAX)
        fail_at(w, &at, WHAT("has %zu entries", versions->count), WHAT("at most %d", VERSIONS_MAX));
    else if (fabs(sum - 1) > 1e-9)
        fail_at(w, &at, WHAT("add up to %.6g%%", sum * 100), S("100%"));
}

static void rule_fallback_step(struct walk *w, const struct path *p, struct json *norm)
{
    unsigned n =
        is_set(norm, "alias") + is_set(norm, "version") + (json_get(norm, S("answer"))->count > 0);

    if (n != 1)
        fail_at(w, p, WHAT("has %u of 'alias', 'version' and 'answer'", n), S("one of them"));
}

/* A chain says each thing once, and what always answers last. */
static void rule_fallback(struct walk *w, const struct path *p, struct json *norm)
{
    struct path list = at_field(w, p, SECTION_fallback, "chain");
    const struct json *chain = json_get(norm, S("chain"));
    size_t i = 0;

    if (chain->count > FALLBACK_MAX)
        fail_at(w, &list, WHAT("has %zu entries", chain->count), WHAT("at most %d", FALLBACK_MAX));
    JSON_EACH (step, chain) {
        struct path at = {&list, STR_NULL, i, json_at(list.at, i)};

        i++;
        if (json_get(step, S("answer"))->count && step->next)
            fail_at(w, &at, S("answers always, and something comes after it"),
                    S("the static answer last"));
        JSON_EACH (before, chain) {
            if (before == step)
                break;
            if (json_equal(before, step))
                fail_at(w, &at, S("stands in the chain a second time"), S("each step once"));
        }
    }
}

static void rule_false_alarms(struct walk *w, const struct path *p, struct json *norm)
{
    struct path at = at_field(w, p, SECTION_false_alarms, "rows");

    if (is_set(norm, "one_in_ns") && is_set(norm, "rows"))
        fail_at(w, &at, S("stands beside 'one_in'"), S("one of the two"));
    else if (!is_set(norm, "one_in_ns") && !is_set(norm, "rows"))
        json_set_int(w->a, norm, S("one_in_ns"), 30 * 86400 * NS_PER_S);
}

static void rule_psi(struct walk *w, const struct path *p, struct json *norm)
{
    double watch = json_real_or(json_get(norm, S("watch")), 0);
    double moderate = json_real_or(json_get(norm, S("moderate")), 0);
    double severe = json_real_or(json_get(norm, S("severe")), 0);

    if (!(watch < moderate && moderate < severe))
        fail_at(w, p, WHAT("has the bounds %g, %g, %g", watch, moderate, severe),
                S("watch < moderate < severe"));
}

/* --- Rollouts ----------------------------------------------------------------------------- */

static struct json *preset_steps(struct walk *w, const struct preset *preset)
{
    struct json *steps = json_new_array(w->a);
    str rest = preset->steps[0] ? str_of(preset->steps) : STR_NULL;

    while (rest.p) {
        str hold = str_trim(str_cut(&rest, ','));
        str weight = str_cut(&hold, ' ');
        struct json *step = json_push(steps, json_new_object(w->a));

        json_set_str(w->a, step, S("weight"), weight);
        json_set_str(w->a, step, S("hold"), hold);
    }
    return steps;
}

const struct json *rollout_prepare(struct walk *w, const struct json *src)
{
    bool is_object = src && src->type == JSON_OBJECT;
    const struct preset *preset;
    struct json *copy, *shadow;

    if (src && !is_object && src->type != JSON_NULL)
        return src;
    copy = is_object ? json_copy(w->a, src) : json_new_object(w->a);
    if (json_get(copy, S("steps"))) {
        if (!json_get(copy, S("preset")))
            json_set_str(w->a, copy, S("preset"), S("none"));
        return copy;
    }
    preset = project_preset_find(json_str_or(json_get(copy, S("preset")), S("standard")));
    if (!preset)
        return copy;
    json_set(copy, S("steps"), preset_steps(w, preset));
    shadow = json_get(copy, S("shadow"));
    if (!shadow || shadow->type == JSON_NULL)
        shadow = json_set(copy, S("shadow"), json_new_object(w->a));
    if (shadow->type == JSON_OBJECT && !json_get(shadow, S("for")))
        json_set_str(w->a, shadow, S("for"), str_of(preset->shadow));
    return copy;
}

/* A step of 100% is promotion: nothing is left to compare with, so nothing is held. */
static void last_step(struct walk *w, const struct path *at, struct json *step)
{
    struct path hold = at_field(w, at, SECTION_step, "hold");

    if (hold.at && json_int_or(json_get(step, S("hold_ns")), 0) > 0)
        fail_at(w, &hold, S("holds at 100%, where no champion is left to compare with"),
                S("'bake' of the rollout"));
    json_set_int(w->a, step, S("hold_ns"), 0);
    json_set_int(w->a, step, S("rows_min"), 0);
}

static void check_ladder(struct walk *w, const struct path *p, struct json *norm)
{
    struct path list = at_field(w, p, SECTION_rollout, "steps");
    struct json *steps = json_get(norm, S("steps")), *last;
    int64_t max_ns = json_int_or(json_get(norm, S("max_hold_ns")), 0);
    double before = 0;
    size_t i = 0;

    JSON_EACH (step, steps) {
        struct path at = {&list, STR_NULL, i, json_at(list.at, i)};
        struct path weight_at = at_field(w, &at, SECTION_step, "weight");
        struct path hold_at = at_field(w, &at, SECTION_step, "hold");
        double weight = json_real_or(json_get(step, S("weight")), 0);

        i++;
        if (weight <= before)
            fail_at(w, &weight_at, WHAT("is %g%% after %g%%", weight * 100, before * 100),
                    S("shares in rising order"));
        before = weight;
        if (weight >= 1)
            last_step(w, &at, step);
        else if (json_int_or(json_get(step, S("hold_ns")), 0) > max_ns)
            fail_at(w, &hold_at, S("is longer than max_hold"), S("hold <= max_hold"));
    }
    if (before >= 1)
        return;
    last = json_push(steps, json_new_object(w->a));
    json_set_real(w->a, last, S("weight"), 1);
    json_set_int(w->a, last, S("hold_ns"), 0);
    json_set_int(w->a, last, S("rows_min"), 0);
}

static void rule_rollout(struct walk *w, const struct path *p, struct json *norm)
{
    struct path at = at_field(w, p, SECTION_rollout, "post_checks");
    struct path steps_at = at_field(w, p, SECTION_rollout, "steps");
    int64_t before = 0;

    if (json_get(norm, S("steps"))->count == 0 && str_eqz(text_of(norm, "preset"), "none"))
        fail_at(w, &steps_at, S("is empty, and there is no preset"),
                S("at least one step, or 'preset: immediate'"));
    else
        check_ladder(w, p, norm);
    JSON_EACH (check, json_get(norm, S("post_checks_ns"))) {
        if (check->integer <= before) {
            fail_at(w, &at, S("do not rise"), S("times in rising order"));
            break;
        }
        before = check->integer;
    }
}

rule_fn *rule_of(enum section_id id)
{
    static rule_fn *const rules[SECTION_COUNT] = {
        [SECTION_dataset] = rule_dataset,   [SECTION_feature] = rule_feature,
        [SECTION_model] = rule_model,       [SECTION_sticky] = rule_sticky,
        [SECTION_endpoint] = rule_endpoint, [SECTION_false_alarms] = rule_false_alarms,
        [SECTION_psi] = rule_psi,           [SECTION_rollout] = rule_rollout,
        [SECTION_rate] = rule_rate,         [SECTION_issuer] = rule_issuer,
        [SECTION_fallback] = rule_fallback, [SECTION_fallback_step] = rule_fallback_step,
    };

    return rules[id];
}

/* --- Across items ------------------------------------------------------------------------- */

static void across_model(struct walk *w, const struct path *p, struct json *model)
{
    struct path trainer = at_field(w, p, SECTION_model, "trainer");
    struct path label = at_field(w, p, SECTION_model, "label");
    struct json *datasets = json_get(w->norm, S("datasets"));
    const struct json *dataset = names_get(w, datasets, text_of(model, "dataset"));
    const struct json *features = json_get(model, S("features"));

    if (is_set(model, "trainer") && !is_set(model, "dataset")) {
        fail_at(w, &trainer, S("has nothing to train on"), S("'dataset' beside it"));
        return;
    }
    if (!is_set(model, "label") && is_set(dataset, "label"))
        json_set_str(w->a, model, S("label"), text_of(dataset, "label"));
    if (is_set(model, "trainer") && dataset && !is_set(model, "label"))
        fail_at(w, &trainer, S("has no label to learn"), S("'label' here or in the dataset"));
    if (is_set(model, "label") && features->type == JSON_ARRAY &&
        find_named(features, text_of(model, "label"), NULL))
        fail_at(
            w, label.at ? &label : p,
            WHAT("has the label '" STR_F "' among its features", STR_A(text_of(model, "label"))),
            S("features that are known before the outcome"));
}

static void across_endpoint(struct walk *w, const struct path *p, struct json *endpoint)
{
    struct path limit = at_field(w, p, SECTION_endpoint, "body_limit");
    struct path here = at_field(w, p, SECTION_endpoint, "rollout");
    struct json *rollouts = json_get(w->norm, S("rollouts")), *rollout, src = {0};
    int64_t most = json_int_or(json_path(w->norm, "gateway.body_bytes_max"), INT64_MAX);
    str name = text_of(endpoint, "rollout");

    if (!is_set(endpoint, "body_bytes_max"))
        json_set_int(w->a, endpoint, S("body_bytes_max"), most);
    else if (json_int_or(json_get(endpoint, S("body_bytes_max")), 0) > most)
        fail_at(w, &limit, S("is more than gateway.body_limit"), S("at most that"));
    if (names_get(w, rollouts, name) || names_get(w, json_get(w->source, S("rollouts")), name))
        return;
    src.type = JSON_OBJECT;
    json_set_str(w->a, &src, S("preset"), name);
    rollout = section_read(w, SECTION_rollout, &src, &here);
    if (rollout)
        json_set(rollouts, name, rollout);
}

static const struct json *model_of_endpoint(struct walk *w, str endpoint)
{
    const struct json *item = names_get(w, json_get(w->norm, S("endpoints")), endpoint);

    return names_get(w, json_get(w->norm, S("models")), text_of(item, "model"));
}

static void across_monitor(struct walk *w, const struct path *p, struct json *monitor)
{
    struct path list = at_field(w, p, SECTION_monitor, "features");
    struct path labels_at = at_field(w, p, SECTION_monitor, "labels");
    struct path metric_at = at_field(w, &labels_at, SECTION_monitor_labels, "metric");
    const struct json *model = model_of_endpoint(w, text_of(monitor, "endpoint"));
    const struct json *features = json_get(model, S("features"));
    struct json *labels = json_get(monitor, S("labels"));
    bool for_numbers = str_eqz(text_of(model, "task"), "regression");

    if (!model)
        return;
    if (str_eqz(text_of(labels, "metric"), "auto"))
        json_set_str(w->a, labels, S("metric"),
                     for_numbers ? S("absolute_error") : S("error_rate"));
    else if (str_eqz(text_of(labels, "metric"), "error_rate") == for_numbers)
        fail_at(w, &metric_at, S("does not fit the task of the model"),
                for_numbers ? S("absolute_error") : S("error_rate"));
    if (features->type != JSON_ARRAY)
        return;
    JSON_EACH (feature, json_get(monitor, S("features"))) {
        struct path at = {&list, feature->key, 0, json_get(list.at, feature->key)};

        if (!find_named(features, feature->key, NULL))
            problem_add(w, &at, true,
                        WHAT(STR_F " is not a feature of model '" STR_F "'",
                             STR_A(path_text(&at, w->a)), STR_A(model->key)),
                        S("a name of its features"), STR_NULL);
    }
}

static int by_text(const void *a, const void *b)
{
    return str_cmp(*(const str *)a, *(const str *)b);
}

static void watched_make(struct walk *w)
{
    const struct json *monitors = json_get(w->norm, S("monitors"));
    const struct json *source = json_get(w->source, S("monitors"));

    w->watched = ARENA_ARRAY(w->a, str, monitors->count + 1);
    w->watch_unknown = json_is_container(source) && source->count != monitors->count;
    JSON_EACH (monitor, monitors) {
        const struct json *model = model_of_endpoint(w, text_of(monitor, "endpoint"));

        if (model)
            w->watched[w->watched_n++] = model->key;
        else
            w->watch_unknown = true;
    }
    qsort(w->watched, w->watched_n, sizeof(str), by_text);
}

static bool is_watched(struct walk *w, str model)
{
    if (!w->watched)
        watched_make(w);
    return w->watch_unknown || bsearch(&model, w->watched, w->watched_n, sizeof(str), by_text);
}

static void check_trigger_model(struct walk *w, const struct path *p, const struct json *trigger,
                                const struct json *model)
{
    struct path on_at = at_field(w, p, SECTION_trigger, "on");
    struct path policy_at = at_field(w, p, SECTION_trigger, "policy");
    str on = text_of(trigger, "on");
    bool by_itself = !str_eqz(on, "schedule") && !str_eqz(on, "manual");

    if (!is_set(model, "trainer"))
        fail_at(w, p, WHAT("retrains model '" STR_F "', which has no trainer", STR_A(model->key)),
                S("'trainer' and 'dataset' in the model"));
    if (json_bool_or(json_get(model, S("regulated")), false)) {
        if (by_itself)
            fail_at(w, &on_at,
                    WHAT("is " STR_F ", and model '" STR_F "' is regulated", STR_A(on),
                         STR_A(model->key)),
                    S("schedule or manual"));
        if (!str_eqz(text_of(trigger, "policy"), "review"))
            fail_at(w, policy_at.at ? &policy_at : p,
                    WHAT("has no review, and model '" STR_F "' is regulated", STR_A(model->key)),
                    S("'policy: review'"));
    }
    if ((str_eqz(on, "drift") || str_eqz(on, "performance")) && !is_watched(w, model->key))
        fail_at(w, &on_at,
                WHAT("is " STR_F ", and no monitor watches model '" STR_F "'", STR_A(on),
                     STR_A(model->key)),
                S("an entry of monitors for its endpoint"));
}

static void across_trigger(struct walk *w, const struct path *p, struct json *trigger)
{
    const struct json *endpoint =
        names_get(w, json_get(w->norm, S("endpoints")), text_of(trigger, "endpoint"));
    struct path model_at = at_field(w, p, SECTION_trigger, "model");
    const struct json *model;

    if (!is_set(trigger, "model") && !is_set(trigger, "endpoint")) {
        fail_at(w, p, S("has neither 'endpoint' nor 'model'"), S("one of them"));
        return;
    }
    if (is_set(trigger, "endpoint") && !endpoint)
        return; /* it had problems of its own */
    if (!is_set(trigger, "model"))
        json_set_str(w->a, trigger, S("model"), text_of(endpoint, "model"));
    else if (endpoint && !str_eq(text_of(trigger, "model"), text_of(endpoint, "model")))
        fail_at(w, &model_at,
                WHAT("is not the model of endpoint '" STR_F "'", STR_A(endpoint->key)),
                WHAT("'" STR_F "', or one of the two fields", STR_A(text_of(endpoint, "model"))));
    model = names_get(w, json_get(w->norm, S("models")), text_of(trigger, "model"));
    if (model)
        check_trigger_model(w, p, trigger, model);
}

static void across_addresses(struct walk *w, const struct path *root)
{
    struct path control = at_field(w, root, SECTION_root, "control");
    struct path at = at_field(w, &control, SECTION_control, "listen");
    str gateway = text_of(json_get(w->norm, S("gateway")), "listen");
    str address = text_of(json_get(w->norm, S("control")), "listen");

    if (gateway.n && str_eq(gateway, address) && !str_ends(gateway, S(":0")))
        fail_at(w, &at, S("is also gateway.listen"), S("an address of its own"));
}

void rules_across(struct walk *w, const struct path *root)
{
    static const struct {
        const char *section;
        rule_fn *rule;
    } order[] = {{"models", across_model},
                 {"endpoints", across_endpoint},
                 {"monitors", across_monitor},
                 {"triggers", across_trigger}};

    across_addresses(w, root);
    across_auth(w, root);
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        struct path section = at_field(w, root, SECTION_root, order[i].section);
        const struct json *src = json_is_container(section.at) ? section.at->first : NULL;

        JSON_EACH (item, json_get(w->norm, section.key)) {
            while (src && !str_eq(src->key, item->key)) /* both are in the order of the file */
                src = src->next;
            ASSERT(src);
            struct path p = {&section, item->key, 0, src};

            order[i].rule(w, &p, item);
        }
    }
}
