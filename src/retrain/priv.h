/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"
#include "retrain/retrain.h"
#include "store/lake/lake.h"

/* start.c */
/* The endpoint that serves the model, or "". */
str model_endpoint(const struct json *project, str model);
/* A run that did nothing: its start counts neither for the cooldown nor for the budget. */
NODISCARD int start_give_back(struct meta *m, str model, int64_t asked_ns, struct arena *a,
                              struct err *e);

/* live.c: the versions that answer on an endpoint. */
#define LIVE_MAX 64
struct live {
    int64_t versions[LIVE_MAX];
    size_t n;
};
NODISCARD int live_versions(struct meta *m, const struct json *project, str endpoint, str model,
                            struct live *ret, struct err *e);

/* One run, as its steps see it. Everything lives in the arena of the step. */
struct run {
    struct flow_ctx *ctx;
    const struct retrain_env *env;
    struct arena *a;
    struct json *project;     /* the applied tree, as it was when the run began */
    const struct json *model; /* its section */
    str model_name, endpoint;
    bool regression;
    str dir; /* work/<flow id> */
    int64_t changed_ns;
};
NODISCARD int run_open(struct flow_ctx *ctx, struct run *ret, struct err *e);
char *run_path(const struct run *r, const char *name); /* file of the run's folder */
NODISCARD int run_fact(struct run *r, struct meta *m, enum fact_type type, str reason,
                       const struct json *data, struct err *e);

/* The features in order, from the project or, for `features: auto`, from the dataset. */
struct feature {
    str name;
    str type; /* float, double, int, bool, string; "" when nobody said */
};
NODISCARD int run_features(struct run *r, struct feature **ret_list, size_t *ret_n, struct err *e);
/* The name of the label column in the tables of a run. */
str run_label(const struct run *r);
/* The dataset section of the model, or NULL; a table function over its files; a lake for this step.
 */
const struct json *run_dataset(const struct run *r);
void run_dataset_source(const struct run *r, const struct json *dataset, struct buf *sql);
NODISCARD int run_lake(const struct run *r, struct lake **ret_lake, struct err *e);
const struct json *run_trainer(const struct run *r); /* or NULL */

/* triage.c: what to make of the cause: {"verdict":"real|upstream_fault|transient","why",…}. */
NODISCARD int triage(struct run *r, struct json **ret_found, struct err *e);

/* snapshot.c */
#define SNAPSHOT_TRAIN "train.parquet"
#define SNAPSHOT_HOLDOUT "holdout.parquet"
#define SNAPSHOT_REFERENCE "reference.parquet"
struct snapshot {
    int64_t train_rows, holdout_rows, reference_rows;
    int64_t record_rows;        /* labelled records of the window */
    char hash[SHA256_HEX_SIZE]; /* of the manifest: the version of the data */
};
/* Freezes the data of the run, once: a second call gives what the first one froze. */
NODISCARD int snapshot_make(struct run *r, struct snapshot *ret, struct err *e);
/* DATA_LOSS when a frozen table is no longer what it was. */
NODISCARD int snapshot_verify(struct run *r, const char *file, struct err *e);

/* The pipeline before the model and its parameters, where the run has one; and the training table
 * as it came out of it. */
#define RUN_PIPELINE "pipeline.json"
#define RUN_PREPARED "prepared.parquet"

#define EXIT_WRONG_INPUT 2 /* of a trainer: the data or the spec is wrong, do not repeat */

/* trainer.c: runs the trainer; *ret_model is the path of the file it made. FAILED_PRECONDITION:
 * it failed; CANCELLED: the run or the process is to end. */
NODISCARD int trainer_run(struct run *r, char **ret_model, struct err *e);
/* What stood before the model in training: for its registration. NULL: nothing. */
NODISCARD int trainer_pipeline(struct run *r, struct json **ret, struct err *e);
/* What it left in metrics.json: an object, or NULL. */
struct json *trainer_metrics(struct run *r);
