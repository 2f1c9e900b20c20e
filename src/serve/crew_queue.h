/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jobs of a crew that wait: many loops put, many workers take, neither ever waits for the
 * other. The highest priority is taken first and the oldest within one; but of CREW_LOW_EVERY jobs
 * one is the oldest of the lowest priority that waits, so that nobody starves.
 */
#pragma once

#include "serve/crew.h"

#define CREW_LOW_EVERY 8

struct crew_queue {
    struct crew_line {
        _Alignas(64) uint64_t put; /* atomic */
        _Alignas(64) uint64_t got; /* atomic */
        struct crew_cell *cells;   /* CREW_QUEUE_MAX, owned */
    } lines[CREW_PRIORITIES];
    _Alignas(64) uint32_t taken; /* atomic */
};

void crew_queue_init(struct crew_queue *q);
void crew_queue_done(struct crew_queue *q);
/* False when CREW_QUEUE_MAX of its priority wait. */
NODISCARD bool crew_queue_put(struct crew_queue *q, struct crew_job *j);
/* NULL when none waits, or the only one is just being put. */
struct crew_job *crew_queue_take(struct crew_queue *q);
