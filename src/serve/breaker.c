/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/breaker.h"

#include "base/time.h"

#define THRESHOLD_DEFAULT 5
#define RECOVERY_DEFAULT_NS (60 * NS_PER_S)

void breaker_init(struct breaker *b, const struct breaker_config *cfg)
{
    *b = (struct breaker){.cfg = cfg ? *cfg : (struct breaker_config){0}};
    if (!b->cfg.failure_threshold)
        b->cfg.failure_threshold = THRESHOLD_DEFAULT;
    if (b->cfg.recovery_ns <= 0)
        b->cfg.recovery_ns = RECOVERY_DEFAULT_NS;
}

static void set_state(struct breaker *b, enum breaker_state to, int64_t now_ns)
{
    b->state = to;
    b->generation++;
    b->failures = 0;
    b->trial = false;
    if (to == BREAKER_OPEN) {
        b->opened_ns = now_ns;
        b->openings++;
    }
}

static bool reject(struct breaker *b, int64_t retry_ns, int64_t *ret_retry_ns)
{
    b->rejected++;
    if (ret_retry_ns)
        *ret_retry_ns = retry_ns;
    return false;
}

bool breaker_begin(struct breaker *b, int64_t now_ns, struct breaker_call *ret_call,
                   int64_t *ret_retry_ns)
{
    if (b->force == BREAKER_FORCE_OPEN)
        return reject(b, 0, ret_retry_ns);
    if (b->force == BREAKER_FORCE_NONE && b->state == BREAKER_OPEN) {
        int64_t left_ns = b->opened_ns + b->cfg.recovery_ns - now_ns;

        if (left_ns > 0)
            return reject(b, left_ns, ret_retry_ns);
        set_state(b, BREAKER_HALF_OPEN, now_ns);
    }
    if (b->force == BREAKER_FORCE_NONE && b->state == BREAKER_HALF_OPEN) {
        if (b->trial && now_ns - b->trial_ns < b->cfg.recovery_ns)
            return reject(b, 0, ret_retry_ns);
        b->trial = true;
        b->trial_ns = now_ns;
    }
    ret_call->generation = b->generation;
    return true;
}

void breaker_end(struct breaker *b, const struct breaker_call *call, enum breaker_verdict verdict,
                 int64_t now_ns)
{
    if (call->generation != b->generation || b->force != BREAKER_FORCE_NONE)
        return;
    ASSERT(b->state != BREAKER_OPEN); /* opening begins a generation in which no call begins */
    if (b->state == BREAKER_HALF_OPEN) {
        b->trial = false;
        if (verdict != BREAKER_NEUTRAL)
            set_state(b, verdict == BREAKER_SUCCESS ? BREAKER_CLOSED : BREAKER_OPEN, now_ns);
    } else if (verdict == BREAKER_SUCCESS) {
        b->failures = 0;
    } else if (verdict == BREAKER_FAILURE && ++b->failures >= b->cfg.failure_threshold) {
        set_state(b, BREAKER_OPEN, now_ns);
    }
}

void breaker_force_set(struct breaker *b, enum breaker_force force, int64_t now_ns)
{
    b->force = force;
    set_state(b, BREAKER_CLOSED, now_ns);
}

enum breaker_state breaker_state_at(const struct breaker *b, int64_t now_ns)
{
    if (b->force != BREAKER_FORCE_NONE)
        return b->force == BREAKER_FORCE_OPEN ? BREAKER_OPEN : BREAKER_CLOSED;
    if (b->state == BREAKER_OPEN && now_ns >= b->opened_ns + b->cfg.recovery_ns)
        return BREAKER_HALF_OPEN;
    return b->state;
}

const char *breaker_state_name(enum breaker_state state)
{
    static const char *const names[] = {"closed", "open", "half-open"};

    return names[state];
}
