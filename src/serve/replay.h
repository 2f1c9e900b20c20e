/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A window of answers by request id: who repeats a request gets the answer of the first one.
 *
 * One window for each endpoint that has one, shared by all loops and by the plans that follow each
 * other. A request id is taken by replay_begin() before the request runs, and then either kept with
 * its answer or forgotten; until then repeats are told that it is under way. Answers go when the
 * window has passed, and the oldest of them when there are too many or they are too large.
 *
 * Safe from several threads: one lock for each window, held for a look at a table and never while
 * memory is taken, copied or given back.
 */
#pragma once

#include "base/arena.h"
#include "base/hash.h"
#include "plan/plan.h"

struct counter_series;
struct replay_window;

/* One id. Holders of a reference may read what replay_begin() says is there. */
struct replay {
    uint32_t refs; /* atomic */
    bool done;     /* under the lock; never taken back */
    bool gone;     /* under the lock: no longer in the table */
    uint64_t hash;
    struct replay *chain;       /* of its place in the table */
    struct replay *next, *prev; /* among those that are done, oldest first */
    int64_t done_ns;
    unsigned char fingerprint[SHA256_BYTES];
    /* The answer; owned. */
    const char *content_type; /* borrowed, for ever */
    size_t json_bytes;
    str note;                            /* of its fallback, or empty */
    const struct counter_series *series; /* of the version that gave it */
    str body;
    uint32_t key_bytes;
    char key[];
};

enum replay_found {
    REPLAY_NEW,      /* it is the caller's: keep or forget it */
    REPLAY_ANSWER,   /* it has been answered */
    REPLAY_RUNNING,  /* the first one is not answered yet */
    REPLAY_CONFLICT, /* it was, or is, another request */
    REPLAY_NO_MEMORY
};

/* `previous` (may be NULL): goes on being used, with the new limits. Worker. */
struct replay_window *replay_window_new(const struct plan_idempotency *cfg,
                                        struct replay_window *previous);
void replay_window_unref(struct replay_window *w); /* accepts NULL; any thread */

/* `key`: whose request it is, and its id. `fingerprint`: of all that the answer depends on. With
 * REPLAY_NEW and REPLAY_ANSWER, *ret_replay is a reference. */
enum replay_found replay_begin(struct replay_window *w, str key,
                               const unsigned char fingerprint[SHA256_BYTES], int64_t now_ns,
                               struct replay **ret_replay);
/* Keeps a copy of the answer, and lets go of the reference. Returns false when it is too large, and
 * is forgotten; *ret_evicted is how many others had to go before their time. */
bool replay_keep(struct replay_window *w, struct replay *r, const char *content_type,
                 size_t json_bytes, str note, str body, int64_t now_ns, uint32_t *ret_evicted);
void replay_forget(struct replay_window *w, struct replay *r); /* and lets go of it */
void replay_unref(struct replay *r);

struct replay_stats {
    uint64_t entries, bytes;
};
void replay_window_stats(struct replay_window *w, struct replay_stats *ret);
