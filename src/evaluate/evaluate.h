/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evaluation: how good a version is on labelled rows, and whether it may replace the champion.
 *
 *   evaluate_version   scores a table in a probe child and measures
 *   evaluate_measure   the same from predictions that are there already (pure)
 *   evaluate_gate      champion and challenger on the same rows -> table of gates and a verdict
 *   evaluate_report    what is stored with the version (P3-03)
 *
 * The comparison is paired and sequential (stats/gate.h): d = loss of the challenger - loss of the
 * champion, row by row in the order given (time order, to be honest about drift), with d in
 * [-1,1]. Loss is 0/1 for classes; for numbers it is the absolute error over a scale that is fixed
 * by the labels alone. Non-inferiority must be proved, at error alpha; the metric itself must lie
 * within the tolerance too.
 */
#pragma once

#include "registry/score.h"
#include "stats/classify.h"
#include "stats/gate.h"

enum eval_metric {
#define EVAL_METRIC(name, text, task, higher) EVAL_##name,
#include "evaluate/metrics.def"
#undef EVAL_METRIC
    EVAL_METRIC_COUNT
};
const char *eval_metric_name(enum eval_metric metric);
bool eval_metric_higher_is_better(enum eval_metric metric);
NODISCARD bool eval_metric_find(str name, enum eval_metric *ret);

/* --- Configuration --------------------------------------------------------------------------- */

#define EVAL_GATES_MAX 32
#define EVAL_SLICE_COLUMNS_MAX 16
#define EVAL_SLICES_MAX 1024 /* values of all slice columns together; further ones are left out */
#define EVAL_SLICE_SUPPORT_MIN 100 /* rows */

struct eval_gate_config {
    enum eval_metric metric;
    double min_absolute;   /* NaN = off */
    double not_worse_than; /* NaN = off */
};

struct eval_config {
    bool regression;
    enum eval_metric primary;
    struct eval_gate_config gates[EVAL_GATES_MAX];
    uint32_t gate_count;
    str slices[EVAL_SLICE_COLUMNS_MAX];
    uint32_t slice_count;
    double slice_tolerance;
    double latency_p99_ns; /* NaN = off */
    double size_ratio;     /* NaN = off */
    double alpha;
};
/* From the normalised section of a model (models.<m>, with its retrain.evaluation). Texts are
 * borrowed from the tree. */
NODISCARD int evaluate_config_read(const struct json *model, struct eval_config *ret,
                                   struct err *e);

/* --- Measuring ------------------------------------------------------------------------------- */

/* Labelled rows and what a version said, in time order. Borrowed. */
struct eval_rows {
    size_t n;
    uint32_t classes;                /* 0 = regression */
    int32_t positive;                /* class index, or -1 */
    const double *labels;            /* class index, or the value; NaN: the row does not count */
    const double *predicted;         /* class index, or the value */
    const double *scores;            /* P(positive) for two classes, or NULL */
    const double *label_probability; /* P(true class), for log_loss of many classes; or NULL */
    /* slice_of[c][row] = id of the value of slice column c, or UINT32_MAX. */
    const uint32_t *const *slice_of;
    const str *slice_columns;
    const str *const *slice_values; /* names of the ids of column c */
    const uint32_t *slice_value_counts;
    uint32_t slice_column_count;
};

struct eval_slice {
    str column, value;
    size_t n;
    double metrics[EVAL_METRIC_COUNT]; /* NaN: not defined there */
    uint32_t column_at, value_at;
};

struct eval_result {
    struct arena arena; /* owned: all below */
    size_t n;           /* rows with both label and prediction */
    size_t row_count;   /* of labels and predicted */
    int64_t version;    /* or 0 */
    uint32_t classes;
    int32_t positive;
    str *class_names;                  /* or NULL */
    double metrics[EVAL_METRIC_COUNT]; /* NaN: not defined */
    struct confusion *confusion;       /* NULL for regression */
    struct eval_slice *slices;
    size_t slice_count;
    double *labels, *predicted; /* copies: what the paired test walks */
    uint32_t **slice_of;        /* as in eval_rows */
    int64_t p50_ns, p99_ns;     /* of one row; 0 = not measured */
    uint64_t size_bytes;
};
NODISCARD int evaluate_measure(const struct eval_rows *rows, struct eval_result *ret,
                               struct err *e);
void eval_result_done(struct eval_result *r); /* accepts a zeroed one; AUTO */

/* Which version, and on what. `path` is the ONNX file (blobs_path of the artifact). */
struct eval_request {
    int64_t version;
    str platform;
    const char *path;
    uint64_t size_bytes;
    const struct json *signature;
    const struct table *table; /* features, label and slice columns, in time order */
    str label;
    const struct eval_config *config;
    uint32_t latency_rows; /* 0 = 500 */
};
/* INVALID_ARGUMENT: the model or a missing column; FAILED_PRECONDITION: no usable label. */
NODISCARD int evaluate_version(const struct score_env *env, const struct eval_request *req,
                               struct eval_result *ret, struct err *e);

/* --- Judging --------------------------------------------------------------------------------- */

enum eval_verdict { EVAL_DEPLOY, EVAL_REJECT, EVAL_ITERATE };
const char *eval_verdict_name(enum eval_verdict v); /* "DEPLOY", "REJECT", "ITERATE" */

struct eval_gate {
    str name; /* "f1 >= 0.8", "f1 not worse than champion", "slice region=north", "latency p99" */
    double value, threshold, champion; /* NaN: none */
    bool higher_is_better;
    bool mandatory;
    bool passed;
    enum verdict verdict; /* PASS, FAIL, or not enough evidence */
    double ln_evidence;   /* of the paired test, or NaN */
    str why;              /* one line for people */
};
struct eval_judgement {
    enum eval_verdict verdict;
    struct eval_gate *gates;
    size_t gate_count;
    str reason; /* one line: what decided */
};
/* champion NULL: there is none, only absolute gates count. Both results must be of the same rows in
 * the same order: INVALID_ARGUMENT else. Everything lives in the arena. Pure. */
NODISCARD int evaluate_gate(const struct eval_config *cfg, const struct eval_result *champion,
                            const struct eval_result *challenger, struct arena *a,
                            struct eval_judgement *ret, struct err *e);

/* {"n","metrics":{},"confusion":{"classes":[],"counts":[[]]},"per_class":[],"slices":[],
 * "latency":{"p50_ns","p99_ns"},"size_bytes","baseline":{…champion's},"gates":[{"name","value",
 * "threshold","champion","passed","mandatory","verdict","why"}],"verdict","reason"}. champion and
 * judgement may be NULL. */
struct json *evaluate_report(const struct eval_result *r, const struct eval_result *champion,
                             const struct eval_judgement *judgement, struct arena *a);
/* {"f1":0.91,…}: the defined metrics. */
struct json *evaluate_metrics_json(const struct eval_result *r, struct arena *a);
