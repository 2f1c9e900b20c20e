/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digest: what happened at one gateway between two instants, small enough to send four times a
 * second. Digests add up: merging those of all gateways and of any stretch of time gives the digest
 * of the whole. Control folds them into the monitors.
 *
 * One series for each (endpoint, version, arm), and another one for shadow traffic of that arm.
 * Every number is the change since the digest before, so a correction of a label can make error and
 * confusion counts go down: they are signed.
 */
#pragma once

#include "record/schema.h"
#include "stats/latency.h"

#define DIGEST_SERIES_MAX 65536u
#define DIGEST_BYTES_MAX ((size_t)64 << 20)

/* The labels that came in for one series. */
struct digest_labels {
    int64_t joined;     /* labels that found their prediction for the first time */
    int64_t corrected;  /* later labels that replaced a different one */
    int64_t duplicates; /* the same label again */
    int64_t errors;     /* joined labels that say the prediction was wrong */
    int64_t unusable;   /* of an unknown class, or without a prediction to compare */
    double squared_error, absolute_error; /* sums: VALUE, and SCORE against 0 or 1 */
    int64_t delay_ms_sum;                 /* from prediction to label event */
    int64_t confusion[RECORD_CLASSES_MAX][RECORD_CLASSES_MAX]; /* [label][predicted] */
};

/* Shadow traffic against the primary answer to the same request. */
struct digest_paired {
    int64_t compared, agreed;
    int64_t outcome[2][2];               /* [primary right][shadow right], as labels come in */
    double loss_diff, loss_diff_squared; /* sums of shadow minus primary squared error */
    int64_t loss_diff_count;
};

struct digest_series {
    str endpoint, version;
    uint64_t schema_hash; /* series with different hashes never merge: their bins differ */
    uint8_t arm;
    bool shadow;
    uint32_t feature_count, column_count;
    uint64_t requests, rows;
    uint64_t status[6];      /* by hundreds of the HTTP status: [2] = 2xx; [0] = none */
    uint64_t flags[16];      /* requests with this flag bit (record/flags.def) */
    struct latency *latency; /* of requests; NULL = none */
    struct cells *cells;     /* column_count, features then outputs; NULL without specs */
    const struct record_schema *schema; /* where it is known (at the gateway), else NULL */
    struct digest_labels labels;
    struct digest_paired paired;
};

struct digest {
    str gateway;
    str plan;          /* hash of the plan in force, hex, or empty */
    uint64_t run;      /* one start of one gateway: drawn at random */
    uint64_t sequence; /* counts up by one within a run; a gap is a lost digest */
    int64_t from_wall_ns, to_wall_ns;
    uint64_t dropped_ring, dropped_disk; /* records, in this interval */
    uint64_t recorded;                   /* records taken from the rings */
    uint64_t segment_bytes;              /* written */
    uint64_t feedback, feedback_late;    /* late: its prediction is not, or no longer, in memory */
    uint64_t join_evicted;               /* unlabelled predictions that left the index */
    bool disk_failing;                   /* as of now */
    bool partial;                        /* merged from gateways of which some were missing */
    struct digest_series **series;
    uint32_t series_count, series_cap;
    struct arena *arena; /* borrowed: everything above lives in it; NULL for a read-only digest */
};

void digest_init(struct digest *d, struct arena *a);

/* The series of a key, or NULL. */
struct digest_series *digest_find(const struct digest *d, str endpoint, str version,
                                  uint64_t schema_hash, uint8_t arm, bool shadow);

/* A zeroed series in an arena, with room for latency and (if the schema has specs) cells. Not in
 * any digest yet. */
struct digest_series *digest_series_new(struct arena *a, const struct record_schema *s, uint8_t arm,
                                        bool shadow);
/* Puts a series into the digest, which borrows it. */
NODISCARD int digest_add_series(struct digest *d, struct digest_series *s, struct err *e);
/* Zeroes the numbers, keeps the key and the memory. */
void digest_series_clear(struct digest_series *s);

/* Adds `from` (which may go away afterwards) to `into`; the time becomes the union, the gateway
 * empty when they differ. RESOURCE_EXHAUSTED past DIGEST_SERIES_MAX or the cap of the arena. */
NODISCARD int digest_merge(struct digest *into, const struct digest *from, struct err *e);

/* A compact binary form, versioned and checksummed, and back. Everything is copied into the arena,
 * whose cap bounds what hostile bytes can cost. DATA_LOSS for bytes that are no digest. */
void digest_encode(const struct digest *d, struct buf *out);
NODISCARD int digest_decode(str bytes, struct arena *a, struct digest *ret_digest, struct err *e);

/* For the API: totals, rates and per-column summaries; bin counts only with `full`. */
void digest_write_json(const struct digest *d, bool full, struct buf *out);
