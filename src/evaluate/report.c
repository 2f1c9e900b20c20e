/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/evaluate.h"

#include "base/mem.h"

static struct json *metrics_json(const double *metrics, struct arena *a)
{
    struct json *to = json_new_object(a);

    for (size_t i = 0; i < EVAL_METRIC_COUNT; i++)
        json_set_finite(a, to, str_of(eval_metric_name((enum eval_metric)i)), metrics[i]);
    return to;
}

struct json *evaluate_metrics_json(const struct eval_result *r, struct arena *a)
{
    return metrics_json(r->metrics, a);
}

static struct json *class_name(const struct eval_result *r, uint32_t k, struct arena *a)
{
    return json_new_str(a, r->class_names ? arena_dup(a, r->class_names[k])
                                          : arena_printf(a, "%u", k));
}

static void set_confusion(const struct eval_result *r, struct json *to, struct arena *a)
{
    struct json *c = json_set(to, S("confusion"), json_new_object(a));
    struct json *names = json_set(c, S("classes"), json_new_array(a));
    struct json *counts = json_set(c, S("counts"), json_new_array(a));

    for (uint32_t label = 0; label < r->classes; label++) {
        struct json *row = json_push(counts, json_new_array(a));

        json_push(names, class_name(r, label, a));
        for (uint32_t said = 0; said < r->classes; said++)
            json_push(row,
                      json_new_int(a, r->confusion->counts[label * r->confusion->classes + said]));
    }
}

static void set_per_class(const struct eval_result *r, struct json *to, struct arena *a)
{
    AUTO(mem_freep) struct class_report *report = mem_alloc(sizeof(*report));
    struct json *list = json_set(to, S("per_class"), json_new_array(a));

    confusion_report(r->confusion, report);
    for (uint32_t k = 0; k < r->classes; k++) {
        const struct class_scores *s = &report->per_class[k];
        struct json *item = json_push(list, json_new_object(a));

        json_set(item, S("class"), class_name(r, k, a));
        json_set_int(a, item, S("support"), s->support);
        if (!s->defined)
            continue;
        json_set_finite(a, item, S("precision"), s->precision);
        json_set_finite(a, item, S("recall"), s->recall);
        json_set_finite(a, item, S("f1"), s->f1);
    }
}

static struct json *result_json(const struct eval_result *r, struct arena *a)
{
    struct json *to = json_new_object(a), *list, *latency;

    json_set_int(a, to, S("n"), (int64_t)r->n);
    if (r->version)
        json_set_int(a, to, S("version"), r->version);
    json_set(to, S("metrics"), metrics_json(r->metrics, a));
    if (r->confusion) {
        set_confusion(r, to, a);
        set_per_class(r, to, a);
    }
    list = json_set(to, S("slices"), json_new_array(a));
    for (size_t i = 0; i < r->slice_count; i++) {
        struct json *item = json_push(list, json_new_object(a));

        json_set_str(a, item, S("column"), arena_dup(a, r->slices[i].column));
        json_set_str(a, item, S("value"), arena_dup(a, r->slices[i].value));
        json_set_int(a, item, S("n"), (int64_t)r->slices[i].n);
        json_set(item, S("metrics"), metrics_json(r->slices[i].metrics, a));
    }
    if (r->p99_ns) {
        latency = json_set(to, S("latency"), json_new_object(a));
        json_set_int(a, latency, S("p50_ns"), r->p50_ns);
        json_set_int(a, latency, S("p99_ns"), r->p99_ns);
    }
    json_set_int(a, to, S("size_bytes"), (int64_t)r->size_bytes);
    return to;
}

static void set_judgement(const struct eval_judgement *j, struct json *to, struct arena *a)
{
    struct json *list = json_set(to, S("gates"), json_new_array(a));

    for (size_t i = 0; i < j->gate_count; i++) {
        const struct eval_gate *g = &j->gates[i];
        struct json *item = json_push(list, json_new_object(a));

        json_set_str(a, item, S("name"), g->name);
        json_set_finite(a, item, S("value"), g->value);
        json_set_finite(a, item, S("threshold"), g->threshold);
        json_set_finite(a, item, S("champion"), g->champion);
        json_set_finite(a, item, S("ln_evidence"), g->ln_evidence);
        json_set_bool(a, item, S("higher_is_better"), g->higher_is_better);
        json_set_bool(a, item, S("passed"), g->passed);
        json_set_bool(a, item, S("mandatory"), g->mandatory);
        json_set_str(a, item, S("verdict"), str_of(verdict_name(g->verdict)));
        json_set_str(a, item, S("why"), g->why);
    }
    json_set_str(a, to, S("verdict"), str_of(eval_verdict_name(j->verdict)));
    json_set_str(a, to, S("reason"), j->reason);
}

struct json *evaluate_report(const struct eval_result *r, const struct eval_result *champion,
                             const struct eval_judgement *judgement, struct arena *a)
{
    struct json *to = result_json(r, a);

    if (champion)
        json_set(to, S("baseline"), result_json(champion, a));
    if (judgement)
        set_judgement(judgement, to, a);
    return to;
}
