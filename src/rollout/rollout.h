/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rollouts: how a new version comes into traffic by steps, is judged at each, and goes back by
 * itself.
 *
 *   (start) -> shadow -> step 0 -> step 1 … -> [review] -> promoted, baking -> done
 *                 \         \          \          \            \
 *                  +---------+----------+----------+------------+--> rolled_back | aborted
 *
 * A rollout is durable state in the meta store (kv scope "rollout", key = endpoint), moved by the
 * control thread alone: by digests (evidence), by the clock (holds), by people (pause, resume,
 * abort, approve). Each move is one transaction with its fact; taking traffic back is such a move
 * like any other, needs nothing to be healthy, and is accepted in every state. Evidence is counts,
 * judged by sequential tests that may be looked at all the time (stats/gate.h); where
 * rollouts_keep() was called it outlives control (record/kept.h).
 *
 * Routing is not done here: the plan compiler reads "challenger", "weight_bp" and "shadow" of the
 * state.
 */
#pragma once

#include "record/kept.h"
#include "store/blobs/blobs.h"
#include "store/meta/meta.h"

struct rollouts;

/* Reads the rollouts under way; a row that cannot be read is logged and left alone. Control thread,
 * like all functions here. */
NODISCARD int rollouts_new(struct meta *m, struct rollouts **ret_rollouts, struct err *e);
void rollouts_free(struct rollouts *r); /* accepts NULL */
DEFINE_AUTO_PTR(struct rollouts, rollouts_free)

/* Gives access to the profiles of versions, without which the guard output_shift has no evidence.
 * Once, after rollouts_new(); blobs is borrowed. */
void rollouts_compare_outputs(struct rollouts *r, struct meta *m, struct blobs *blobs);

/* From now on evidence is kept in the meta store, and that of the phases under way is read. `clock`
 * is borrowed: the caller notes a digest in it before rollouts_digest(). Once, after the two above.
 */
NODISCARD int rollouts_keep(struct rollouts *r, struct meta *m, const struct digest_clock *clock,
                            struct err *e);
/* Writes what has changed, inside a transaction of the caller, who says when it is committed. */
NODISCARD int rollouts_save(struct rollouts *r, struct meta *m, struct err *e);
void rollouts_saved(struct rollouts *r);

struct rollout_start {
    str endpoint, model;
    str alias; /* that the endpoint serves, and a promotion moves; empty: champion */
    int64_t version;
    const struct json *config; /* normalised rollout section */
    str actor, reason, correlation;
    str flow; /* id of the flow that waits for the event "rollout", or empty */
};
/* Starts; a rollout under way on this endpoint is superseded. FAILED_PRECONDITION when the endpoint
 * has no version under its alias yet (promote directly then), it is this one, the alias is one that
 * rollouts move themselves, the version takes or gives other tensors, or its model is being rolled
 * out on another endpoint; OUT_OF_RANGE: more than 32 steps
 * or 8 checks; NOT_FOUND. Usable inside a transaction of the caller, who must let it commit. ret_id
 * is the rollout's id. */
NODISCARD int rollout_start(struct rollouts *r, struct meta *m, const struct rollout_start *start,
                            char ret_id[64], struct err *e);

enum rollout_order {
    ROLLOUT_PAUSE, /* hold the weight; guards stay armed; while baking, keep the way back warm */
    ROLLOUT_RESUME,
    ROLLOUT_ABORT,    /* all traffic back to the champion, now */
    ROLLOUT_ROLLBACK, /* the same, said of a version that hurts; also takes back a baking promotion
                       */
    ROLLOUT_APPROVE,  /* promote now what waits for a review, or skip what is left of the ladder */
};
/* NOT_FOUND when no rollout of this endpoint is under way. */
NODISCARD int rollout_order(struct rollouts *r, struct meta *m, str endpoint,
                            enum rollout_order order, str actor, str reason, struct err *e);

/* Folds evidence and judges. */
NODISCARD int rollouts_digest(struct rollouts *r, struct meta *m, const struct digest *d,
                              int64_t wall_ns, struct err *e);
/* Moves what is due by the clock; every 100 ms or so. */
NODISCARD int rollouts_tick(struct rollouts *r, struct meta *m, int64_t wall_ns, struct err *e);

/* {"rollouts":[{…state, step, weight, evidence, verdicts…}]}; of one endpoint when given. */
void rollouts_report(const struct rollouts *r, str endpoint, struct json_out *out);
