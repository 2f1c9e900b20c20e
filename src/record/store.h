/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk side of the keeper: when blocks are written, synced and sealed, what happens when the
 * disk refuses, and which positions of the rings are durable. Keeper thread only.
 */
#pragma once

#include "record/keeper.h"
#include "record/segment.h"

struct store {
    struct segment_writer *writer; /* owned */
    const char *dir;               /* borrowed */
    int64_t flush_ns, seal_ns;
    uint64_t seal_bytes, max_bytes;
    struct record_ring **rings; /* borrowed from the keeper, as is the count */
    const uint32_t *ring_count;

    int64_t flushed_mono_ns; /* last time */
    int64_t opened_mono_ns;  /* of the open segment; 0 = none */
    bool urgent;             /* a record that an answer waits for is in the block */
    bool failing;
    bool beside; /* another writes into the folder: open segments may be its own */
    int64_t retry_mono_ns;
    int64_t backoff_ns;
    uint64_t other_bytes; /* in the folder, besides the open segment; as of the last look */
    uint64_t lost[KEEPER_RINGS_MAX];

    uint64_t dropped; /* records, ever */
    uint64_t flushes, failures;
};

NODISCARD int store_open(struct store *st, const struct keeper_config *cfg,
                         struct record_ring **rings, const uint32_t *ring_count, struct err *e);
void store_close(struct store *st);

/* Takes one record; drops and counts it while the disk fails and the block is full. */
void store_add(struct store *st, const struct record_head *h, const struct record_schema *s,
               int64_t mono_ns) HOT;
/* Flushes and seals what is due. True when durable or lost positions moved. */
bool store_turn(struct store *st, int64_t mono_ns, bool seal_now);
/* When store_turn() has something to do at the latest. */
int64_t store_due_ns(const struct store *st);
