/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/evaluate.h"

#include <math.h>

/* A number, or NaN where the project says none or off. */
static double number_or_off(const struct json *node)
{
    return node && (node->type == JSON_INT || node->type == JSON_REAL) ? json_real_or(node, 0)
                                                                       : (double)NAN;
}

static NODISCARD int metric_read(str name, struct eval_config *cfg, enum eval_metric *ret,
                                 struct err *e)
{
    if (str_eq(name, S("primary"))) {
        *ret = cfg->primary;
        return 0;
    }
    if (!name.n || str_eq(name, S("auto"))) {
        *ret = cfg->regression ? EVAL_RMSE : EVAL_F1;
        return 0;
    }
    if (!eval_metric_find(name, ret))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' is no metric", STR_A(str_take(name, 64)));
    if ((*ret >= EVAL_RMSE) != cfg->regression)
        return FAIL(e, INVALID_ARGUMENT, "metric '" STR_F "' does not fit a %s", STR_A(name),
                    cfg->regression ? "regression" : "classification");
    return 0;
}

static NODISCARD int gates_read(const struct json *list, struct eval_config *cfg, struct err *e)
{
    if (!json_is_container(list) || !list->count) {
        cfg->gates[cfg->gate_count++] = (struct eval_gate_config){cfg->primary, NAN, 0.005};
        return 0;
    }
    if (list->count > EVAL_GATES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%zu gates, at most %d are possible", list->count,
                    EVAL_GATES_MAX);
    JSON_EACH (item, list) {
        struct eval_gate_config *g = &cfg->gates[cfg->gate_count++];

        TRY(metric_read(json_str_or(json_get(item, S("metric")), S("primary")), cfg, &g->metric,
                        e));
        g->min_absolute = number_or_off(json_get(item, S("min_absolute")));
        g->not_worse_than = number_or_off(json_get(item, S("not_worse_than")));
    }
    return 0;
}

int evaluate_config_read(const struct json *model, struct eval_config *ret, struct err *e)
{
    const struct json *ev = json_path(model, "retrain.evaluation");
    const struct json *slices = json_get(ev, S("slices"));
    struct eval_config cfg = {
        .regression = str_eq(json_str_or(json_get(model, S("task")), S("")), S("regression")),
        .slice_tolerance = json_real_or(json_get(ev, S("slice_tolerance")), 0.01),
        .latency_p99_ns = ev ? number_or_off(json_get(ev, S("latency_p99_ns"))) : 1e8,
        .size_ratio = ev ? number_or_off(json_get(ev, S("size_ratio"))) : 2,
        .alpha = json_real_or(json_get(ev, S("alpha")), 0.05)};

    TRY(metric_read(json_str_or(json_get(model, S("metric")), S("auto")), &cfg, &cfg.primary, e));
    TRY(gates_read(json_get(ev, S("gates")), &cfg, e));
    if (!(cfg.alpha > 0 && cfg.alpha < 1))
        return FAIL(e, INVALID_ARGUMENT, "alpha is %g, expected more than 0 and less than 1",
                    cfg.alpha);
    if (json_is_container(slices)) {
        if (slices->count > EVAL_SLICE_COLUMNS_MAX)
            return FAIL(e, INVALID_ARGUMENT, "%zu slice columns, at most %d are possible",
                        slices->count, EVAL_SLICE_COLUMNS_MAX);
        JSON_EACH (name, slices)
            cfg.slices[cfg.slice_count++] = json_str_or(name, S(""));
    }
    *ret = cfg;
    return 0;
}
