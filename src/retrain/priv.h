/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"
#include "retrain/retrain.h"
#include "store/lake/lake.h"

/* One run, as its steps see it. Everything lives in the arena of the step. */
struct run {
    struct flow_ctx *ctx;
    const struct retrain_env *env;
    struct arena *a;
    struct json *project;     /* the applied tree */
    const struct json *model; /* its section */
    str model_name, endpoint;
    str dir; /* work/<flow id> */
    int64_t changed_ns;
};
NODISCARD int run_open(struct flow_ctx *ctx, struct run *ret, struct err *e);
char *run_path(const struct run *r, const char *name); /* file of the run's folder */
NODISCARD int run_fact(struct run *r, struct meta *m, enum fact_type type, str reason,
                       const struct json *data, struct err *e);
NODISCARD int applied_project(struct meta *m, struct arena *a, struct json **ret_tree,
                              struct err *e);
/* Names of the features in order, from the project or from the signature of the newest version. */
NODISCARD int run_features(struct run *r, str **ret_names, size_t *ret_n, struct err *e);

/* The name of the label column in the tables of a run. */
str run_label(const struct run *r);
/* The dataset section of the model, or NULL; a table function over its files; a lake for this step.
 */
const struct json *run_dataset(const struct run *r);
void run_dataset_source(const struct run *r, const struct json *dataset, struct buf *sql);
NODISCARD int run_lake(const struct run *r, struct lake **ret_lake, struct err *e);

/* snapshot.c */
struct snapshot {
    int64_t train_rows, holdout_rows, reference_rows, record_rows;
};
NODISCARD int snapshot_make(struct run *r, struct snapshot *ret, struct err *e);

/* trainer.c: runs the trainer; *ret_model is the path of the file it made. */
NODISCARD int trainer_run(struct run *r, char **ret_model, struct err *e);
