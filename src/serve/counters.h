/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of the data plane. A series belongs to one (endpoint, version, arm), lives for ever, and
 * has one row of plain numbers for each loop, so that a loop counts without sharing a cache line
 * and a counter never goes back when a plan is swapped. A reader sums the rows; every number is
 * read and written whole, and the sum may be a few requests old.
 */
#pragma once

#include "base/buf.h"

#define COUNTERS_LOOPS_MAX 64
#define COUNTERS_SERIES_MAX 65536
#define COUNTERS_BUCKETS 15 /* the last is +Inf */
#define COUNTERS_BATCH_BUCKETS 12

/* What can become of a request: REQUEST(name, label, HTTP status). */
enum request_end {
#define REQUEST_END(name, label, help) END_##name,
#include "serve/ends.def"
#undef REQUEST_END
    END_COUNT
};

/* Why one was shed. */
enum shed_reason {
#define SHED(name, label, help) SHED_##name,
#include "serve/sheds.def"
#undef SHED
    SHED_COUNT
};

/* Where the time of a request went. */
enum request_part {
    PART_TOTAL,   /* from its arrival in this process to its answer */
    PART_QUEUE,   /* of that, what it waited and was read for */
    PART_COMPUTE, /* the run that it was part of */
    PART_COUNT
};

struct counters {
    _Alignas(64) uint64_t ends[END_COUNT];
    uint64_t sheds[SHED_COUNT];
    uint64_t rows;
    struct {
        uint64_t us_sum;
        uint64_t buckets[COUNTERS_BUCKETS]; /* not cumulative */
    } parts[PART_COUNT];
    struct {
        uint64_t rows_sum;
        uint64_t buckets[COUNTERS_BATCH_BUCKETS]; /* not cumulative */
    } batches;                                    /* runs, by their rows */
    uint64_t last_ms;                             /* wall clock of the last one that ran */
    uint64_t shadow_skipped;                      /* copies that found the shadow queue full */
};

struct counter_series {
    str endpoint, version, arm; /* owned, for ever */
    uint32_t loops;
    struct counters rows[]; /* one for each loop */
};

/* The series of a key, made if missing. Plan-load time only; takes a lock. NULL past the limit. */
struct counter_series *counters_series(str endpoint, str version, str arm, uint32_t loops);

static inline void counter_add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED); /* one writer: its loop */
}

static inline void counter_set(uint64_t *counter, uint64_t v)
{
    __atomic_store_n(counter, v, __ATOMIC_RELAXED);
}

/* Counts one finished request; compute_us is 0 for one that did not run. Called by the loop that
 * owns the row. */
void counters_request(struct counters *c, enum request_end end, uint64_t rows, uint64_t total_us,
                      uint64_t compute_us);
/* Counts one run of so many rows, whatever became of it. */
void counters_batch(struct counters *c, uint64_t rows);
const char *counters_end_label(enum request_end end); /* "ok" */
uint64_t counters_failed(const struct counters *c);   /* that ended in any way but well */
/* The numbers of all loops together. */
void counters_sum(const struct counter_series *s, struct counters *ret_total);

/* Process-wide figures that belong to no endpoint: one row for each loop. */
struct loop_counters {
    _Alignas(64) uint64_t connections_accepted, connections_open, connections_refused;
    uint64_t tls_refused;
    uint64_t requests, bad_requests, bytes_in, bytes_out;
    uint64_t feedback_accepted, feedback_refused;
    uint64_t turns, batches, batched_rows;
};

/* Appends the endpoint series in Prometheus text form 0.0.4. */
void counters_write_metrics(struct buf *to);
