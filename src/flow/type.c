/* SPDX-License-Identifier: Apache-2.0 */
/* Flow types as data: names, steps, retry policies. */
#include "flow/priv.h"

#include "base/time.h"

static const struct {
    const char *name;
    bool is_end;
} states[] = {
#define FLOW_STATE(name, text, ended, help) [FLOW_##name] = {text, ended},
#include "flow/states.def"
#undef FLOW_STATE
};

const char *flow_state_name(enum flow_state state)
{
    ASSERT((size_t)state < ARRAY_LEN(states));
    return states[state].name;
}

bool flow_state_is_end(enum flow_state state)
{
    ASSERT((size_t)state < ARRAY_LEN(states));
    return states[state].is_end;
}

bool flow_state_find(str name, enum flow_state *ret_state)
{
    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        if (str_eqz(name, states[i].name)) {
            *ret_state = (enum flow_state)i;
            return true;
        }
    }
    return false;
}

/* Damaged data gets the same tries as what is plainly passing: a disk or a network that lies once
 * need not lie twice, and a few repetitions cost little. */
bool flow_code_is_retryable(enum code code)
{
    switch (code) {
    case CODE_UNAVAILABLE:
    case CODE_DEADLINE_EXCEEDED:
    case CODE_ABORTED:
    case CODE_RESOURCE_EXHAUSTED:
    case CODE_DATA_LOSS:
    case CODE_UNKNOWN:
        return true;
    default:
        return false;
    }
}

const struct flow_step *flow_step_find(const struct flow_type *type, str name)
{
    if (!name.n)
        return &type->steps[0];
    for (size_t i = 0; i < type->step_count; i++)
        if (str_eqz(name, type->steps[i].name))
            return &type->steps[i];
    return NULL;
}

int64_t flow_step_timeout_ns(const struct flow_step *step)
{
    return step->timeout_ns ? step->timeout_ns : STEP_TIMEOUT_NS_DEFAULT;
}

uint32_t flow_step_attempts_max(const struct flow_step *step)
{
    return step->retry.max_attempts ? step->retry.max_attempts : 5;
}

int64_t flow_retry_delay_ns(const struct flow_retry *retry, uint32_t attempt, struct rng *rng)
{
    double delay = (double)(retry->first_delay_ns ? retry->first_delay_ns : NS_PER_S);
    double max = (double)(retry->max_delay_ns ? retry->max_delay_ns : 300 * NS_PER_S);
    double factor = retry->factor > 0 ? retry->factor : 2;
    double jitter = retry->jitter < 0 ? 0 : retry->jitter > 0 ? retry->jitter : 0.2;

    ASSERT(attempt >= 1);
    for (uint32_t i = 1; i < attempt && delay < max; i++)
        delay *= factor;
    delay = MIN(delay, max);
    return (int64_t)(delay * (1 + MIN(jitter, 1.0) * (2 * rng_uniform(rng) - 1)));
}

int flow_type_check(const struct flow_type *type, struct err *e)
{
    if (!str_is_name(str_of(type->name)))
        return FAIL(e, INVALID_ARGUMENT, "flow type '%s': not a name", type->name);
    if (type->step_count < 1 || type->step_count > FLOW_STEPS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "flow type '%s' has %zu steps, 1 to %d are allowed",
                    type->name, type->step_count, FLOW_STEPS_MAX);
    for (size_t i = 0; i < type->step_count; i++) {
        const struct flow_step *step = &type->steps[i];

        if (!str_is_name(str_of(step->name)) || !step->fn ||
            flow_step_find(type, str_of(step->name)) != step)
            return FAIL(e, INVALID_ARGUMENT,
                        "flow type '%s': step %zu ('%s') has no name of its own or no function",
                        type->name, i, step->name ? step->name : "");
    }
    if (type->cancel_step && !flow_step_find(type, str_of(type->cancel_step)))
        return FAIL(e, INVALID_ARGUMENT, "flow type '%s': no step is called '%s'", type->name,
                    type->cancel_step);
    return 0;
}
