/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A circuit breaker: stops calling a dependency that does not answer, so that callers fail at once
 * and the dependency has room to recover. A pure state machine on a clock that the caller reads.
 *
 *   CLOSED     calls go through; failure_threshold failures in a row open it
 *   OPEN       no call goes through; recovery_ns later it is half open
 *   HALF_OPEN  one call at a time goes through: success closes, failure opens again
 *
 * A call is begun and ended, and carries the generation of the state it began in: the verdict of a
 * call that began before the last change says nothing about the state now, and is dropped. One that
 * is never ended lets another through after recovery_ns.
 *
 * Not safe from several threads: the owner locks. Nothing here can fail.
 */
#pragma once

#include "base/base.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };
enum breaker_force { BREAKER_FORCE_NONE, BREAKER_FORCE_OPEN, BREAKER_FORCE_CLOSED };

/* What a call says of the dependency. NEUTRAL: nothing (it was cancelled, or the fault was ours).
 */
enum breaker_verdict { BREAKER_SUCCESS, BREAKER_FAILURE, BREAKER_NEUTRAL };

struct breaker_config {
    uint32_t failure_threshold; /* in a row; 0 = 5 */
    int64_t recovery_ns;        /* 0 = 60 s */
};

struct breaker {
    struct breaker_config cfg;
    enum breaker_state state;
    enum breaker_force force;
    uint32_t failures; /* in a row, while closed */
    uint64_t generation;
    int64_t opened_ns;
    int64_t trial_ns;  /* when the call under way began, while half open */
    bool trial;        /* there is one */
    uint64_t openings; /* for metrics: times it opened, calls it turned away */
    uint64_t rejected;
};

struct breaker_call {
    uint64_t generation;
};

void breaker_init(struct breaker *b, const struct breaker_config *cfg); /* NULL: the defaults */
/* False: do not call. *ret_retry_ns, if not NULL, is then the time until it is worth asking again
 * (0: unknown, it is forced open or a trial is under way). */
NODISCARD bool breaker_begin(struct breaker *b, int64_t now_ns, struct breaker_call *ret_call,
                             int64_t *ret_retry_ns);
void breaker_end(struct breaker *b, const struct breaker_call *call, enum breaker_verdict verdict,
                 int64_t now_ns);
/* Holds it open or closed by hand, whatever calls say; NONE lets it go, closed and with no failure
 * counted. */
void breaker_force_set(struct breaker *b, enum breaker_force force, int64_t now_ns);
/* As it would treat a call now. */
enum breaker_state breaker_state_at(const struct breaker *b, int64_t now_ns);
const char *breaker_state_name(enum breaker_state state); /* "half-open" */
