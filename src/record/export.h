/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From segments to Parquet.
 *
 *     <lake>/records/endpoint=<e>/dt=<YYYY-MM-DD>/part-<segment>-<schema>.parquet
 *     <lake>/feedback/dt=<YYYY-MM-DD>/part-<segment>.parquet
 *
 * The days are those of UTC, of the arrival. Records have, for each row of a request, the columns
 * of EXPORT_FIXED_COLUMNS, then one for each feature under its own name, then the outputs: what the
 * label is compared with as prediction_<name>, others as output_<name>. A feature whose name is
 * taken (letter case aside) gets "feature_" in front. Missing values and NaN are NULL. A request
 * that was refused before it had rows has one row with a NULL `row`.
 *
 * Running again, or after a crash at any instant, changes nothing that is already right: names
 * follow from the segment, files appear whole, and a segment leaves the folder last. Readers may
 * run at any time; one that listed a folder just before it was compacted may miss a file when it
 * opens it, and then reads the folder again.
 */
#pragma once

#include "record/segment.h"
#include "store/lake/lake.h"

#define EXPORT_FIXED_COLUMNS                                                  \
    "request_id VARCHAR, ts TIMESTAMP, model_version VARCHAR, arm SMALLINT, " \
    "shadow BOOLEAN, status SMALLINT, latency_us BIGINT, user_hash VARCHAR, " \
    "flags VARCHAR, gateway VARCHAR, \"row\" INTEGER"

struct export_config {
    const char *segments;     /* the keeper's folder; exported/ and damaged/ are made inside */
    const char *lake;         /* folder of the Parquet tree */
    int64_t keep_segments_ns; /* exported segments are removed at this age; 0 = at once */
    int64_t keep_parquet_ns;  /* days of Parquet are removed at this age; 0 = never */
    uint32_t compact_files;   /* small files that are worth a merge today; 0 = 16. Past days: 2 */
    uint64_t compact_bytes;   /* what is small; 0 = 32 MiB */
};

struct export_result {
    uint64_t segments, records, rows, feedback, files;
    uint64_t damaged_segments, dropped_bytes; /* torn tails */
    uint64_t compactions, compacted_files;
    uint64_t removed_segments, removed_days;
};

/* One pass: every *.seg of the folder, then compaction, then retention. One exporter per lake
 * folder: UNAVAILABLE while another runs. `now_wall_ns` decides about ages and what "today" is. */
NODISCARD int export_run(const struct export_config *cfg, struct lake *l, int64_t now_wall_ns,
                         struct export_result *ret, struct err *e);

/* One segment alone, without moving it: for tests and for reading foreign segments. */
NODISCARD int export_segment(const char *lake_dir, const char *segment_path, struct lake *l,
                             struct export_result *to, struct err *e);

/* SQL that joins the records of an endpoint with the labels that came for them: all columns of the
 * records plus label_text, label_number, label_ts; the label that came last wins; shadow answers,
 * fallbacks and failures are left out. from/to are wall ns of the request, to 0 = no end. Appended
 * to `out`; a query of its own, to be put in parentheses where it is part of another. */
NODISCARD int record_training_query(const char *lake_dir, str endpoint, int64_t from_wall_ns,
                                    int64_t to_wall_ns, struct buf *out, struct err *e);

/* The Parquet column of a feature, given those of the features before it: its own name, unless that
 * is taken. */
str export_feature_column(str name, const str *before, uint32_t n, struct arena *a);
