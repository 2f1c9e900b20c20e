/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry: models, their immutable numbered versions, and the aliases that point at them.
 *
 * A version is registered from a file. The file is copied into blobs, converted to ONNX if it is
 * an XGBoost model that ONNX Runtime is to compute, opened and run in a child with limits
 * (registry/score.h), given a signature and, when the model has reference data, a profile (what
 * "normal" is, for the monitors); then one transaction makes it a version. A file that does not
 * pass is told by the fact model.refused and leaves nothing else behind.
 *
 * Functions that take a `struct meta *` join the caller's transaction when one is open.
 */
#pragma once

#include "flow/flow.h"
#include "registry/score.h"
#include "store/blobs/blobs.h"

#define REGISTRY_FILE_BYTES_MAX ((uint64_t)2 << 30)
#define REGISTRY_REFERENCE_ROWS_MAX ((size_t)200000)

struct registry_env {
    struct meta_store *store; /* all borrowed */
    struct blobs *blobs;
    const char *project_dir;    /* relative paths of datasets start here */
    const char *state_dir;      /* children work in <state_dir>/work */
    const char *self;           /* path of the weir program, for the probe */
    struct score_limits limits; /* zeroed: the defaults */
    /* The applied tree (kv project/applied); used by the flow alone. *tree = NULL: none yet. */
    NODISCARD int (*project)(void *ctx, struct meta *m, struct arena *a, struct json **ret_tree,
                             struct err *e);
    void *project_ctx;
};

/* --- Registering ----------------------------------------------------------------------------- */

struct registry_request {
    str model;        /* str_is_name(); made if new */
    const char *path; /* ONNX, XGBoost JSON or UBJSON, LightGBM text, a bundle, the description of a
                         remote model, or the folder of a process model; told by content */
    const struct json *project; /* normalised tree, or NULL: the signature is guessed */
    str actor, reason, correlation;
    /* Objects or NULL; kept with the version. metadata: any of commit, owner, algorithm, framework,
     * hyperparameters{}, tags[], environment{}, description, intended_use. */
    const struct json *metrics, *metadata, *training, *evaluation;
    const char *reference; /* table in place of the model's dataset (what it was trained on) */
    const char *holdout;   /* labelled table that it was not trained on: for the reference error */
    /* Recorded answer of the first reference row, by output name; the model must give it within
     * golden_tolerance (0 = 1e-4). NULL: its own first answer is recorded. */
    const struct json *golden;
    double golden_tolerance;
    /* A pipeline with all its parameters (pipeline/pipeline.h), in place of the one that the
     * project declares: that of the training run. Or NULL. */
    const struct json *pipeline;
    bool promote;                                  /* champion, whatever was champion before */
    bool first_promote;                            /* champion when the model has none */
    void (*progress)(void *ctx, const char *what); /* or NULL */
    void *progress_ctx;
};

struct registry_result {
    int64_t version;
    char artifact[BLOB_HASH_SIZE]; /* of the file that is served */
    char source[BLOB_HASH_SIZE];   /* of the file that was given */
    char profile[BLOB_HASH_SIZE];  /* "" when there was no reference data */
    bool promoted;
    char note[256]; /* what people should know: why there is no profile, in-sample labels; or "" */
};

/* Blocks for seconds: a worker, never a loop. Not inside a transaction. INVALID_ARGUMENT: the file
 * or the request (also model.refused); NOT_FOUND: the file; FAILED_PRECONDITION: the project's
 * section and the file disagree; UNAVAILABLE, RESOURCE_EXHAUSTED: this machine. */
NODISCARD int registry_register(const struct registry_env *env, struct meta *m,
                                const struct registry_request *req, struct registry_result *ret,
                                struct err *e);

/* The flow "register": steps copy, probe, profile, commit. env: struct registry_env with project.
 * Input: {"model","path","actor","reason","metadata":{},"metrics":{},"training":{},
 * "evaluation":{},"pipeline":{},"reference","holdout","promote":bool,"promote_first":bool (default
 * true)}. Result: {"model","version","artifact","profile","promoted","note"}. */
const struct flow_type *registry_flow(void);

/* --- Aliases --------------------------------------------------------------------------------- */

enum alias_kind {
#define ALIAS(name, text, stage, rank, help) ALIAS_##name,
#include "registry/aliases.def"
#undef ALIAS
    ALIAS_COUNT
};
bool registry_alias_known(str alias);

/* Points the alias at a version, or removes it (version 0), with history and the fact alias.moved;
 * nothing when it is there already (*ret_previous = version then; may be NULL). NOT_FOUND: model or
 * version; INVALID_ARGUMENT: no alias of aliases.def. */
NODISCARD int registry_alias_move(struct meta *m, str model, str alias, int64_t version, str actor,
                                  str reason, str correlation, int64_t *ret_previous,
                                  struct err *e);
NODISCARD int registry_alias_get(struct meta *m, str model, str alias, int64_t *ret_version,
                                 struct err *e); /* 0 = none */
/* The stage of a version by its aliases: experimental, candidate, staging, production, archived. */
NODISCARD int registry_stage(struct meta *m, str model, int64_t version, const char **ret_stage,
                             struct err *e);
/* The champion at that time, by the history (0 = none); and the one before the present champion. */
NODISCARD int registry_live_at(struct meta *m, str model, int64_t at_ns, int64_t *ret_version,
                               struct err *e);
NODISCARD int registry_previous_champion(struct meta *m, str model, int64_t *ret_version,
                                         int64_t *ret_since_ns, struct err *e);

/* --- Looking --------------------------------------------------------------------------------- */

struct registry_filter { /* empty = any */
    str tag, owner, framework, stage;
    str metric;                    /* versions that have it, ... */
    double metric_min, metric_max; /* ... within these; both 0 = any value */
    int64_t from_ns, to_ns;        /* created, from <= t < to; 0 = open */
    uint32_t limit;                /* 0 = 1000 models */
};
/* [{"model","created","owner","tags","champion","latest","aliases":{},"versions":[{short form}]}],
 * models by name, versions newest first; models without a matching version are left out when a
 * filter is set. */
NODISCARD int registry_list(struct meta *m, const struct registry_filter *filter, struct arena *a,
                            struct json **ret_list, struct err *e);
/* All of one version (0 = the champion, else the newest), or with version < 0 of the model with
 * all versions in short form. NOT_FOUND. */
NODISCARD int registry_show(struct meta *m, str model, int64_t version, struct arena *a,
                            struct json **ret, struct err *e);
/* Stores facts about a version that came after it (an evaluation, a card) under `key` of its meta.
 * The bytes, signature and profile of a version never change: those keys are refused. */
NODISCARD int registry_version_annotate(struct meta *m, str model, int64_t version, str key,
                                        const struct json *value, struct err *e);

/* Removes a version that nothing may need: FAILED_PRECONDITION while an alias points at it, and
 * for the previous champion within rollback_window_ns of the change. Its blobs go with the next
 * collection. */
NODISCARD int registry_version_remove(struct meta *m, str model, int64_t version,
                                      int64_t rollback_window_ns, str actor, str reason,
                                      struct err *e);
