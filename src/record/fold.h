/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's running digest: the series of each (schema, arm, shadow), found by number, and the
 * folding of one record into its series. Keeper thread only.
 */
#pragma once

#include "record/digest.h"
#include "record/ring.h"

struct fold_series;

struct fold {
    struct arena arena;         /* of the series: they live as long as the keeper */
    struct fold_series **by_id; /* RECORD_SCHEMAS_MAX of them, each NULL or 32 long */
    struct digest digest;       /* holds the series that were touched since the last one */
};

void fold_init(struct fold *f);
void fold_done(struct fold *f);

/* The series, put into the running digest. */
struct digest_series *fold_series(struct fold *f, const struct record_schema *s, uint8_t arm,
                                  bool shadow) HOT;
/* Counts, status, flags, latency and (with_cells) the cells of a predict or shadow record. The
 * outputs of a fallback are no predictions of the model: they are not folded. */
void fold_record(struct fold *f, const struct record_head *h, const struct record_schema *s,
                 bool with_cells) HOT;
/* Before the cells of the digest are read: rows that are still staged are counted. */
void fold_settle(struct fold *f);
/* Zeroes what was touched: after the digest was handed out. */
void fold_reset(struct fold *f);
