/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "journal/journal.h"
#include "rollout/rollout.h"
#include "stats/gate.h"
#include "stats/latency.h"

#define STEPS_MAX 32
#define CHECKS_MAX 8

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
    double error_rate, error_ratio, p99_ns, p99_ratio, label_error;
    double alpha;
    str on_inconclusive; /* hold, extend, rollback */
    int64_t max_hold_ns;
    bool review;
    int64_t bake_ns, rollback_window_ns;
    int64_t checks_ns[CHECKS_MAX];
    uint32_t check_count;
};
void rollout_config_read(const struct json *config, struct rollout_config *ret);

/* Counts of one arm since the step began. */
struct arm {
    uint64_t requests, failed, rows;
    int64_t labels, label_errors;
    struct latency latency;
};

enum guard_id {
    GUARD_ERROR_RATE,
    GUARD_ERROR_RATIO,
    GUARD_P99,
    GUARD_P99_RATIO,
    GUARD_LABELS,
    GUARD_AGREEMENT,
    GUARD_COUNT
};

/* What is known for or against the version in the step under way. */
struct evidence {
    struct arm champion, challenger;
    int64_t compared, agreed, outcome[2][2]; /* shadow: [champion right][challenger right] */
    struct eprocess error_rate, slow;        /* failures, answers above the p99 limit */
    struct twoarm_gate error_ratio, label_ratio;
    struct paired_gate paired;
    bool ready;
};
void evidence_reset(struct evidence *ev, const struct rollout_config *cfg);
void evidence_fold(struct evidence *ev, const struct rollout_config *cfg, const struct digest *d,
                   str endpoint, str champion, str challenger);

struct judgement {
    enum verdict verdict;
    enum verdict guards[GUARD_COUNT];
    bool guarded[GUARD_COUNT];
    double values[GUARD_COUNT], limits[GUARD_COUNT];
    char reason[200]; /* one line for people */
};
/* rows_min: rows of the challenger below which there is nothing to say but harm. */
void evidence_judge(const struct evidence *ev, const struct rollout_config *cfg, bool shadow,
                    uint64_t rows_min, struct judgement *ret);
const char *guard_name(enum guard_id g);

struct rollout {
    struct rollout *next;
    struct arena arena;
    char id[UUID_SIZE];
    str endpoint, model, actor, flow, correlation;
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
    struct evidence ev;
    struct judgement last;
};

struct rollouts {
    struct rollout *first;
};

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
