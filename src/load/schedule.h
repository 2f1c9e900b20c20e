/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When requests are meant to be sent: at a fixed rate, or as a Poisson process of that rate. The
 * schedule knows nothing of answers, which is what keeps a slow server from slowing the load.
 */
#pragma once

#include "base/random.h"

struct load_schedule {
    double period_ns; /* of the whole run */
    bool poisson;
    uint32_t lane, lanes; /* this one gives the requests lane, lane + lanes, lane + 2 lanes, … */
    uint64_t count;       /* requests given so far */
    double at_ns;         /* of the last one, when poisson */
    struct rng rng;
};

/* rate: requests a second over all lanes, > 0. Lanes of a Poisson run are independent streams. */
void load_schedule_init(struct load_schedule *s, double rate, bool poisson, uint32_t lane,
                        uint32_t lanes, uint64_t seed);
/* The next request: its number in the run, and its instant in ns from the start of the run. */
int64_t load_schedule_next(struct load_schedule *s, uint64_t *ret_number);
