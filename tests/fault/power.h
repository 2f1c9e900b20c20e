/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss of power, for a test that links power.c: at the k-th sync from now on (0 = the next), before
 * it does anything, what no earlier sync has made durable is lost, kept or half kept, as `seed`
 * draws, and the process ends as under kill -9. Call it in a child; what the child had said by then
 * can be held against what is there.
 */
#pragma once

#include <stdint.h>

void power_lost_at_sync(int64_t k, uint64_t seed);
/* The same at once, for what ends without a sync. */
void power_lost_now(void);
