/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a model in a throw-away child (`weir probe`): nobody else in the control plane opens a
 * model file. The child has limits of memory, processor time and wall time, no network where the
 * system allows that, and a folder of its own; what it leaves behind is removed. A crash, a hang or
 * an allocation too many in there is one error here: INVALID_ARGUMENT "refused: …" with the last
 * words of the child and how it ended.
 */
#pragma once

#include "plan/plan.h"
#include "registry/table.h"

#define SCORE_MEMORY_BYTES ((uint64_t)4 << 30)
#define SCORE_TIME_NS (60 * (int64_t)1000000000)

struct score_limits {
    uint64_t memory_bytes; /* address space; 0 = SCORE_MEMORY_BYTES */
    int64_t time_ns;       /* wall and processor time; 0 = SCORE_TIME_NS */
};

/* Where children run. */
struct score_env {
    const char *self;     /* the weir program */
    const char *work_dir; /* made if missing; each child has a folder in it */
    struct score_limits limits;
};

/* What a model file is. */
struct score_model {
    str platform;       /* that opened it: what was asked for, or what "auto" found */
    struct json *about; /* of a tree ensemble: {"format","objective","features","classes","trees",
                           "nodes","feature_names":[…]}; or NULL */
    struct json *inputs, *outputs; /* [{"name","datatype","shape"}] */
    double load_ms;
    int64_t rss_bytes;
};
NODISCARD int score_open(const struct score_env *env, str platform, const char *path,
                         struct arena *a, struct score_model *ret, struct err *e);

/* XGBoost JSON or UBJSON at `from` becomes ONNX at `to`; *ret_info: {"objective","features",
 * "classes","trees","nodes","feature_names":[…]}. */
NODISCARD int score_convert_xgb(const struct score_env *env, const char *from, const char *to,
                                struct arena *a, struct json **ret_info, struct err *e);

/* What lives elsewhere becomes an artifact at `to` (serve/runtime/adopt.h): a folder with a
 * program, or the description of a remote server. The program is started, the server asked, by the
 * child. */
NODISCARD int score_adopt(const struct score_env *env, bool is_remote, const char *from,
                          const char *to, struct arena *a, struct json **ret_info, struct err *e);

struct score_request {
    str platform;
    const char *path; /* of the model */
    const struct plan_signature *signature;
    const struct table *table; /* holds the signature's columns, in any order, and others */
    uint32_t latency_rows;     /* rows run one by one to measure; 0 = none */
};

/* The answers: a column for each element of each output, named as the gateway names them ("label",
 * "probabilities_0", …), in the order of the outputs. */
struct scored_table {
    struct table outputs;   /* owned */
    int64_t p50_ns, p99_ns; /* of a single row, or 0 */
    double load_ms;
};
NODISCARD int score_table(const struct score_env *env, const struct score_request *req,
                          struct scored_table *ret, struct err *e);
void scored_table_done(struct scored_table *s);

/* A row as its tensors would hold it, run alone and compared: every output within tolerance, both
 * absolute and relative. INVALID_ARGUMENT names the output that differs. */
NODISCARD int score_golden(const struct score_env *env, const struct score_request *req,
                           const struct table *expected, double tolerance, struct err *e);

/* The names of outputs and their elements, as the gateway and the profile have them. */
NODISCARD int score_output_names(const struct plan_signature *sig, struct arena *a, str **ret_names,
                                 uint32_t *ret_n, struct err *e);

/* What the outputs mean, row by row, as the gateway reads them: the class (index, or -1), the
 * probability of the positive class, or the value. Arrays of the arena; NULL where the model gives
 * no such thing. */
struct score_reading {
    int32_t *classes;
    double *scores; /* P(positive), or of the class when there is no positive one */
    double *values;
    double *probabilities; /* row-major, class_count a row */
};
NODISCARD int score_read(const struct plan_signature *sig, const struct table *outputs,
                         struct arena *a, struct score_reading *ret, struct err *e);
