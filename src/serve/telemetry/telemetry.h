/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the gateway tells of single requests: the access log and the traces.
 *
 * Loops decide by themselves what is told (sampling is a comparison of hashes), put a note into
 * their ring, and go on. The telemetry thread drains the rings, writes the log, and gathers spans,
 * which a worker sends. A disk or a collector that is slow or gone costs notes, counted, and
 * nothing else.
 */
#pragma once

#include "serve/telemetry/access_log.h"
#include "serve/telemetry/exporter.h"

struct telemetry_config {
    struct access_log_config log; /* path NULL: no access log */
    double log_sample;            /* 0..1 of the requests that are neither failed nor slow */
    bool log_errors;              /* all that failed */
    int64_t log_slow_ns;          /* all that took so long; 0: no such rule */
    struct exporter_config otlp;  /* endpoint NULL: spans are not exported */
    double otlp_sample;           /* 0..1 of the traces that begin here */
};

/* A loop's part of it. */
struct telemetry_loop {
    struct telemetry *t;
    bool logs, exports, errors;
    uint64_t log_below, trace_below; /* a hash below is chosen; UINT64_MAX: all */
    uint64_t slow_us;                /* UINT64_MAX: no such rule */
    struct note_ring *ring;          /* owned by the telemetry */
};

struct telemetry;

/* Opens the log. One ring for each of `loops`. NULL in *ret where neither is wanted. */
NODISCARD int telemetry_new(const struct telemetry_config *cfg, uint32_t loops,
                            struct telemetry **ret, struct err *e);
NODISCARD int telemetry_start(struct telemetry *t, struct err *e); /* accepts NULL */
/* Stops, writes what is in the rings, tries once to send what is gathered. Accepts NULL; the loops
 * must have ended. */
void telemetry_free(struct telemetry *t);
DEFINE_AUTO_PTR(struct telemetry, telemetry_free)
struct telemetry_loop *telemetry_loop_of(struct telemetry *t, uint32_t loop); /* accepts NULL */
void telemetry_reopen(struct telemetry *t); /* the log file was moved; any thread; accepts NULL */
void telemetry_write_metrics(const struct telemetry *t, struct buf *to); /* accepts NULL */

/* What a loop does. `key` decides: the end of the trace id, or the hash of the request id. */
enum note_why telemetry_wants(const struct telemetry_loop *tl, uint64_t key, bool failed,
                              uint64_t total_us);
void telemetry_wake(struct telemetry *t); /* a ring is half full; any thread */
