/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining labels with the predictions they belong to, and shadow answers with primary ones, for the
 * last so-many predictions. Keeper thread only.
 *
 * What this cannot join (older than the index reaches, or of another gateway) is counted as late
 * here and joined in the lake later: nothing is lost, it is only known later.
 */
#pragma once

#include "record/fold.h"

#define JOIN_ENTRIES_DEFAULT (1u << 20)
#define JOIN_ENTRIES_MAX (1u << 26)
#define JOIN_ROWS_DEFAULT 64u

struct join;

NODISCARD int join_new(uint32_t entries, uint32_t rows_per_request, struct join **ret_join,
                       struct err *e);
void join_free(struct join *j); /* accepts NULL */
DEFINE_AUTO_PTR(struct join, join_free)

/* Fetches what join_record() of this record will touch: call it a little earlier. */
void join_prefetch(const struct join *j, const struct record_head *h);
/* A predict or shadow record; its numbers go to f. */
void join_record(struct join *j, struct fold *f, const struct record_head *h,
                 const struct record_schema *s) HOT;
/* A feedback; one with a label is joined. */
void join_feedback(struct join *j, struct fold *f, const struct record_head *h);
/* Marks the end of a digest interval. */
void join_tick(struct join *j);
