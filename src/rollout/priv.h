/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "journal/journal.h"
#include "record/kept.h"
#include "rollout/rollout.h"
#include "stats/cells.h"
#include "stats/gate.h"
#include "stats/latency.h"

#define STEPS_MAX 32
#define CHECKS_MAX 8
#define OUTPUTS_MAX 8 /* output columns that are compared between the versions */

enum rollout_state {
#define ROLLOUT_STATE(name, text, visible) ROLLOUT_##name,
#include "rollout/states.def"
#undef ROLLOUT_STATE
    ROLLOUT_STATE_COUNT
};

struct rollout_step {
    uint32_t weight_bp;
    int64_t hold_ns;
    uint64_t rows_min;
};

/* NaN in a limit: not guarded. */
struct rollout_config {
    int64_t shadow_ns;
    uint64_t shadow_rows_min;
    double shadow_agreement;
    struct rollout_step steps[STEPS_MAX];
    uint32_t step_count;
    double error_rate, error_ratio, p99_ns, p99_ratio, output_shift, label_error;
    double alpha;
    str on_inconclusive; /* hold, extend, rollback */
    int64_t max_hold_ns;
    bool review;
    int64_t bake_ns, rollback_window_ns;
    int64_t checks_ns[CHECKS_MAX];
    uint32_t check_count;
};
/* OUT_OF_RANGE: more steps or checks than there is room for. on_inconclusive is borrowed. */
NODISCARD int rollout_config_read(const struct json *config, struct rollout_config *ret,
                                  struct err *e);

/* Counts of one arm since the step began. */
struct arm {
    uint64_t requests, failed, rows;
    int64_t labels, label_errors, corrected;
    struct latency latency;
};

enum guard_id {
    GUARD_ERROR_RATE,
    GUARD_ERROR_RATIO,
    GUARD_P99,
    GUARD_P99_RATIO,
    GUARD_OUTPUT_SHIFT,
    GUARD_LABELS,
    GUARD_AGREEMENT,
    GUARD_COUNT
};

/* Output columns that both versions count in the same cells: outputs.c. */
struct output_pairs {
    uint32_t count;
    struct {
        uint32_t at[2]; /* place among the columns of champion and challenger */
        uint32_t cells;
    } pair[OUTPUTS_MAX];
    char why[160]; /* when there are none */
};

/* What is known for or against the version in the step under way. */
struct evidence {
    struct arm champion, challenger;
    int64_t compared, agreed, outcome[2][2]; /* shadow: [champion right][challenger right] */
    struct eprocess error_rate, slow;        /* failures, answers above the p99 limit */
    struct twoarm_gate error_ratio, label_ratio;
    struct paired_gate paired;
    uint64_t outputs[OUTPUTS_MAX][2][CELLS_MAX];
    uint64_t output_look; /* rows of the smaller arm at which the outputs are next judged */
    uint32_t output_looks;
    bool output_harm; /* proved at one of the looks */
};
void evidence_reset(struct evidence *ev, const struct rollout_config *cfg);

/* Whose digests count, and for what. */
struct evidence_scope {
    str endpoint, champion, challenger;
    bool shadow; /* the challenger answers unseen */
    const struct rollout_config *cfg;
    const struct output_pairs *outputs;
};
void evidence_fold(struct evidence *ev, const struct evidence_scope *sc, const struct digest *d);

struct judgement {
    enum verdict verdict;
    enum verdict guards[GUARD_COUNT];
    bool guarded[GUARD_COUNT];
    double values[GUARD_COUNT], limits[GUARD_COUNT];
    double ln_evidence[GUARD_COUNT]; /* NaN: the guard bets on nothing */
    double ln_needed;
    char reason[240]; /* one line for people */
};
/* rows_min: rows of the challenger below which there is nothing to say but harm. */
void evidence_judge(const struct evidence *ev, const struct evidence_scope *sc, uint64_t rows_min,
                    struct judgement *ret);
double evidence_alpha(const struct rollout_config *cfg); /* of one guard in one phase */
const char *guard_name(enum guard_id g);

struct rollout {
    struct rollout *next;
    struct arena arena;
    char id[UUID_SIZE];
    str endpoint, model, actor, flow, correlation;
    str alias; /* of the endpoint: what a promotion moves */
    struct json *config_json;
    struct rollout_config cfg;
    int64_t version, previous;
    char version_text[24], previous_text[24];
    enum rollout_state state;
    bool paused;
    uint32_t step;
    int64_t started_ns, step_started_ns, promoted_ns;
    uint32_t checks_done;
    bool told_inconclusive;
    bool told_late_harm; /* harm after the rollback window: said once */
    struct output_pairs outputs;
    struct evidence ev;
    struct judgement last;
    /* Digests folded so far, borrowed; NULL: evidence is not kept. */
    const struct digest_clock *clock;
    const struct digest_clock *seen; /* those in the row it was restored from, or NULL */
    bool unsaved, saving;            /* evidence changed since the last save; is in this one */
};

struct rollouts {
    struct rollout *first;
    struct blobs *blobs; /* borrowed, or NULL */
    const struct digest_clock *clock;
};

/* New evidence from here on. */
void rollout_forget(struct rollout *ro);
struct evidence_scope rollout_scope(const struct rollout *ro);
/* The challenger answers unseen: shadow phase, and a review that follows it directly. */
bool rollout_is_shadow(const struct rollout *ro);
/* outputs.c: what the profiles of both versions allow to compare. Never fails: it says why not. */
void rollout_outputs_find(struct rollout *ro, struct meta *m, struct blobs *blobs);

/* kept.c: evidence as a row (record/kept.h); without a clock they do nothing. Begin: the first row
 * of a phase, in the transaction that enters it. */
NODISCARD int rollout_evidence_begin(struct rollout *ro, struct meta *m, struct err *e);
NODISCARD int rollout_evidence_save(struct rollout *ro, struct meta *m, struct err *e);
NODISCARD int rollout_evidence_drop(const struct rollout *ro, struct meta *m, struct err *e);
NODISCARD int rollout_evidence_restore(struct rollout *ro, struct meta *m, struct err *e);
void rollout_evidence_encode(const struct rollout *ro, const struct evidence *ev,
                             const struct digest_clock *clock, struct buf *out);
NODISCARD int rollout_evidence_decode(struct rollout *ro, str bytes, struct err *e);

/* state.c: durable form */
struct json *rollout_to_json(const struct rollout *ro, struct arena *a);
NODISCARD int rollout_from_json(const struct json *node, str endpoint, struct rollout **ret_rollout,
                                struct err *e);
void rollout_free(struct rollout *ro);
DEFINE_AUTO_PTR(struct rollout, rollout_free)
NODISCARD int rollout_save(struct rollout *ro, struct meta *m, struct err *e);
uint32_t rollout_weight_bp(const struct rollout *ro); /* the challenger's share of callers */
const char *rollout_state_name(enum rollout_state s);

/* move.c: each is one transaction with its fact */
NODISCARD int rollout_enter(struct rollout *ro, struct meta *m, enum rollout_state state,
                            uint32_t step, int64_t wall_ns, struct err *e);
NODISCARD int rollout_promote(struct rollout *ro, struct meta *m, int64_t wall_ns, str actor,
                              str reason, struct err *e);
/* Ends it: type says how. Traffic and aliases go back unless it is done or superseded. */
NODISCARD int rollout_end(struct rollout *ro, struct meta *m, enum fact_type type, str actor,
                          str reason, struct err *e);
NODISCARD int rollout_fact(struct rollout *ro, struct meta *m, enum fact_type type, str actor,
                           str reason, const struct json *extra, struct err *e);
struct json *judgement_json(const struct judgement *j, const struct evidence *ev, struct arena *a);
