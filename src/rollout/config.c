/* SPDX-License-Identifier: Apache-2.0 */
/* The rollout section of the project, as numbers. */
#include "rollout/priv.h"

#include <math.h>

static double limit(const struct json *guards, str key)
{
    return json_real_or(json_get(guards, key), NAN); /* null: off */
}

static void read_steps(const struct json *steps, struct rollout_config *c)
{
    if (!json_is_container(steps))
        return;
    JSON_EACH (step, steps) {
        double weight = json_real_or(json_get(step, S("weight")), 0);

        c->steps[c->step_count++] =
            (struct rollout_step){(uint32_t)lround(CLAMP(weight, 0.0, 1.0) * 10000),
                                  json_int_or(json_get(step, S("hold_ns")), 0),
                                  (uint64_t)json_int_or(json_get(step, S("rows_min")), 0)};
    }
    /* All the traffic without a hold is what promotion means: the last step is that. */
    if (c->step_count && c->steps[c->step_count - 1].weight_bp == 10000 &&
        !c->steps[c->step_count - 1].hold_ns)
        c->step_count--;
}

/* Checks in order of time, whatever order they were written in. */
static void read_checks(const struct json *checks, struct rollout_config *c)
{
    if (!json_is_container(checks))
        return;
    JSON_EACH (check, checks) {
        int64_t at = json_int_or(check, 0);
        uint32_t k = c->check_count++;

        for (; k > 0 && c->checks_ns[k - 1] > at; k--)
            c->checks_ns[k] = c->checks_ns[k - 1];
        c->checks_ns[k] = at;
    }
}

static NODISCARD int check_room(const struct json *list, size_t max, const char *what,
                                struct err *e)
{
    if (json_is_container(list) && list->count > max)
        return FAIL(e, OUT_OF_RANGE, "a rollout with %zu %s, at most %zu are kept", list->count,
                    what, max);
    return 0;
}

int rollout_config_read(const struct json *config, struct rollout_config *ret, struct err *e)
{
    const struct json *shadow = json_get(config, S("shadow")),
                      *guards = json_get(config, S("guards"));
    const struct json *checks = json_get(config, S("post_checks_ns"));
    struct rollout_config c = {0};

    TRY(check_room(json_get(config, S("steps")), STEPS_MAX, "steps", e));
    TRY(check_room(checks, CHECKS_MAX, "post_checks", e));
    c.shadow_ns = json_int_or(json_get(shadow, S("for_ns")), 0);
    c.shadow_rows_min = (uint64_t)json_int_or(json_get(shadow, S("rows_min")), 0);
    c.shadow_agreement = limit(shadow, S("min_agreement"));
    read_steps(json_get(config, S("steps")), &c);
    c.error_rate = limit(guards, S("error_rate"));
    c.error_ratio = limit(guards, S("error_ratio"));
    c.p99_ns = limit(guards, S("p99_ns"));
    c.p99_ratio = limit(guards, S("p99_ratio"));
    c.output_shift = limit(guards, S("output_shift"));
    c.label_error = limit(guards, S("label_error"));
    c.alpha = CLAMP(json_real_or(json_get(config, S("alpha")), 0.05), 1e-9, 0.5);
    c.on_inconclusive = json_str_or(json_get(config, S("on_inconclusive")), S("hold"));
    c.max_hold_ns = json_int_or(json_get(config, S("max_hold_ns")), INT64_C(604800000000000));
    c.review = str_eq(json_str_or(json_get(config, S("promote")), S("auto")), S("review"));
    c.bake_ns = json_int_or(json_get(config, S("bake_ns")), 0);
    c.rollback_window_ns = json_int_or(json_get(config, S("rollback_window_ns")), 0);
    read_checks(checks, &c);
    *ret = c;
    return 0;
}
