/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chain of an endpoint brought to life: what is tried when the version chosen for a request
 * fails. The chain of the plan, and behind it the static answer, if there is one. A request goes
 * down it once, never up, so there are no loops; it never tries again the version it began with.
 */
#pragma once

#include "serve/events.h"
#include "serve/served.h"

enum fallback_reason {
#define FALLBACK(name, label, help) FALLBACK_##name,
#include "serve/fallbacks.def"
#undef FALLBACK
    FALLBACK_REASON_COUNT
};

#define FALLBACK_STEPS_MAX (PLAN_VERSIONS_MAX + 1)
#define FALLBACK_STATIC "static" /* what stands for a version where nothing ran */

struct served_fallback {
    double share;
    bool shed;
    bool not_ready; /* all traffic goes to the first version of the chain */
    struct served_version *steps[FALLBACK_STEPS_MAX];
    uint32_t step_count;
    struct served_version *answer; /* the last step, of no model; or NULL */
    struct tensor *outputs;        /* of the static answer: plan.rows_max rows */
    /* By the index of the version that was chosen first (version_count: none was), and the step. */
    struct event_series *series[PLAN_VERSIONS_MAX + 1][FALLBACK_STEPS_MAX];
};

/* How an exchange came to the version it has. */
struct exchange_fallback {
    const struct served_version *from; /* chosen first; NULL: none was there */
    uint8_t next;                      /* the step to try */
    uint8_t reason;                    /* why `from` was left */
    bool on;                           /* it was left */
    int64_t began_ns;                  /* when the version at hand had its turn; 0: at arrival */
    int64_t until_ns;                  /* and how long it has */
    uint64_t position;                 /* of the record of the last failure */
};

extern const struct event_kind fallback_events;
extern const char *const fallback_reasons[FALLBACK_REASON_COUNT];

/* Of an endpoint whose versions are there. RESOURCE_EXHAUSTED. */
NODISCARD int served_fallback_make(struct served_endpoint *ep, uint32_t loops, struct err *e);
/* idempotency.c: the window of an endpoint, that of its predecessor if there is one. */
NODISCARD int served_window_make(struct served_endpoint *ep, struct served_endpoint *previous,
                                 uint32_t loops, struct err *e);
/* True when the version may have to run beside others of a turn. */
bool served_fallback_has(const struct served_endpoint *ep, const struct served_version *v);
