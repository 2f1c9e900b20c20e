/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: one thread per gateway that takes the records out of the rings, writes them to
 * checksummed segment files, folds them into cells, joins labels with predictions, and sends a
 * digest up a few times a second.
 *
 * What is promised. A record is on disk at the latest flush_ms plus one turn after its commit;
 * kill -9 loses nothing that was flushed. A full ring or a full disk drops records and counts them;
 * cells, joins and digests go on. Nothing here ever makes a loop wait.
 */
#pragma once

#include "record/digest.h"
#include "record/ring.h"

#define KEEPER_RINGS_MAX 64u

struct keeper_config {
    const char *dir;       /* of the segments; made if missing; locked: one keeper per folder */
    str gateway;           /* id of this gateway, str_is_name(): part of the segment names */
    uint32_t turn_ms;      /* 0 = 5: how often the rings are drained under load */
    int32_t flush_ms;      /* < 0 = 1000; 0 = after every turn that wrote something */
    uint32_t seal_ms;      /* 0 = 60000: age at which a segment is sealed */
    uint64_t seal_bytes;   /* 0 = 64 MiB */
    uint32_t digest_ms;    /* 0 = 250 */
    uint32_t join_entries; /* 0 = 1 Mi predictions kept for labels; rounded up to a power of two */
    uint32_t join_rows;    /* 0 = 64: rows of one request that labels can name */
    uint64_t
        disk_max_bytes; /* 0 = no limit; else open and sealed segments of this folder together */
    bool segments_off;  /* records are folded, not stored */
    bool cells_off;     /* records are stored, not folded */
    bool successor;     /* of a keeper of this folder that is about to end: until it has, the two
                           write side by side, and what it left open is sealed after that */

    /* Both are called on the keeper thread (the last ones by keeper_stop) and must not block.
     * on_digest borrows the digest. */
    void (*on_digest)(void *ctx, const struct digest *d);
    void (*on_durable)(void *ctx); /* durable or lost positions of some ring moved */
    void *ctx;
};

struct keeper;

/* Locks the folder, seals what a dead process left open, makes the first segment lazily. Works when
 * the disk is full. UNAVAILABLE when another process keeps this folder, but for
 * a successor. */
NODISCARD int keeper_open(const struct keeper_config *cfg, struct keeper **ret_keeper,
                          struct err *e);

/* A ring for one loop thread; owned by the keeper. Any thread, also while running. */
NODISCARD int keeper_ring_new(struct keeper *k, size_t bytes, struct record_ring **ret_ring,
                              struct err *e);

NODISCARD int keeper_start(struct keeper *k, struct err *e); /* starts the thread */
void keeper_stop(struct keeper *k);  /* drains, flushes, seals, sends a last digest, joins */
void keeper_close(struct keeper *k); /* stops if running; accepts NULL */
DEFINE_AUTO_PTR(struct keeper, keeper_close)

/* The plan in force: copied into the digests from now on. Any thread. */
void keeper_set_plan(struct keeper *k, str plan_hash);
/* Asks for a flush and a seal of the open segment; returns at once. Any thread. */
void keeper_seal_soon(struct keeper *k);
void keeper_wake(struct keeper *k); /* any thread */

/* What the keeper wrote: any thread. */
struct keeper_stats {
    uint64_t records, bytes; /* made durable */
    uint64_t dropped_ring, dropped_disk;
    uint64_t segments_sealed;
    uint64_t flushes, flush_failures;
    uint64_t recovered_segments, recovered_bytes_lost; /* at start */
    uint64_t durable_seq; /* number of the last block known to be on disk */
};
void keeper_stats(const struct keeper *k, struct keeper_stats *ret);

/* One turn on the caller's thread, for tests and for a process without a keeper thread: drains,
 * flushes, seals and sends what is due. Not while the thread runs. */
void keeper_turn(struct keeper *k);
