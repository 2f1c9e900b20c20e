/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of what rarely happens to requests of an endpoint: one series for each set of labels,
 * with a number for each of a few outcomes. Like serve/counters.h, a series lives for ever and has
 * a row for each loop; unlike there, an outcome that never happened is not written.
 */
#pragma once

#include "base/buf.h"

#define EVENT_OUTCOMES_MAX 8 /* a row is a cache line */
#define EVENT_SERIES_MAX 65536

struct event_kind {
    const char *metric, *help;
    const char *label;           /* that tells the outcomes apart */
    const char *const *outcomes; /* its values */
    uint32_t outcome_count;
};

struct event_series {
    const struct event_kind *kind;
    str labels; /* owned: endpoint="…",… */
    uint32_t loops;
    struct {
        _Alignas(64) uint64_t n[EVENT_OUTCOMES_MAX];
    } rows[]; /* one for each loop */
};

/* The series of these labels (of names alone, see str_is_name), made if missing. When a plan is
 * loaded: takes a lock. NULL past the limit. */
struct event_series *events_series(const struct event_kind *kind, str labels, uint32_t loops);
/* By the loop that owns the row; accepts NULL. */
void events_count(struct event_series *s, uint32_t loop, uint32_t outcome);
uint64_t events_sum(const struct event_series *s, uint32_t outcome); /* of all loops */
/* Appends all series of a kind in Prometheus text form 0.0.4; nothing where nothing happened. */
void events_write_metrics(struct buf *to, const struct event_kind *kind);
