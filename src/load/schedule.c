/* SPDX-License-Identifier: Apache-2.0 */
#include "load/schedule.h"

#include <math.h>

void load_schedule_init(struct load_schedule *s, double rate, bool poisson, uint32_t lane,
                        uint32_t lanes, uint64_t seed)
{
    ASSERT(rate > 0);
    ASSERT(lane < lanes);
    *s = (struct load_schedule){
        .period_ns = 1e9 / rate, .poisson = poisson, .lane = lane, .lanes = lanes};
    rng_seed(&s->rng, seed + lane);
}

int64_t load_schedule_next(struct load_schedule *s, uint64_t *ret_number)
{
    uint64_t number = s->count++ * s->lanes + s->lane;

    *ret_number = number;
    /* A product, not a sum: rounding does not add up over a long run. */
    if (!s->poisson)
        return (int64_t)((double)number * s->period_ns);
    s->at_ns -= log1p(-rng_uniform(&s->rng)) * s->period_ns * s->lanes;
    return (int64_t)s->at_ns;
}
