/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The time seam: two clocks and the words for durations.
 *
 * time_mono_ns never goes back and measures intervals; time_wall_ns is the date and may step.
 * Nothing durable is scheduled on the monotonic clock, no interval is measured on the wall clock. A
 * test may replace both by a virtual clock that moves only when told to.
 */
#pragma once

#include "base/arena.h"

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

int64_t time_mono_ns(void);
int64_t time_wall_ns(void); /* since 1970-01-01T00:00:00Z */

/* "2026-11-23T20:02:36.123Z" (24 characters and a NUL). Any int64: years 1677 to 2262. */
#define TIME_ISO_SIZE 25
void time_iso(int64_t wall_ns, char ret_text[TIME_ISO_SIZE]);
/* RFC 3339 with Z or an offset; fraction optional, digits past the ninth are dropped. False also
 * for instants outside 1677 to 2262. */
NODISCARD bool time_parse_iso(str text, int64_t *ret_wall_ns);

/* "250ms", "5s", "15min", "1h30m", "24h", "30d", "1w"; units ns us ms s sec m min h d w, each at
 * most once and larger ones first; fractions as in "1.5h"; not negative, at most 292 years. */
NODISCARD bool time_parse_duration(str text, int64_t *ret_ns);
/* A short form for people, rounded: "1.5s", "250ms", "2m10s", "3d4h". */
str time_duration_text(struct arena *a, int64_t ns);

/* Blocks the calling thread; a virtual clock moves on instead. For commands, which have nothing
 * else to do: servers have the timers of a loop, and waits for a child child_wait_until(). */
void time_sleep(int64_t ns);

void time_test_virtual(int64_t mono_ns, int64_t wall_ns); /* from now on both clocks are virtual */
void time_test_advance(int64_t ns);
void time_test_step_wall(int64_t ns); /* the wall clock alone jumps (may be < 0) */
void time_test_real(void);
