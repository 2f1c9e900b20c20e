/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tree ensembles: gradient boosting and random forests, read from the files of XGBoost (JSON and
 * UBJSON), LightGBM (text) and ONNX (a graph that is one tree ensemble), and computed here.
 *
 *   trees_read -> struct trees_model -> trees_forest_make -> trees_forest_run
 *
 * The model is the intermediate form that all readers write: what is tested at each node, where a
 * missing value goes, what the leaves add to which sum, and how the sums become answers. The forest
 * is that, laid out to be run (forest.h has the layouts). Knows nothing of sockets or of plans.
 *
 * The answers are those of the library that wrote the model: the same tests in the same precision,
 * the same leaves summed in the same order and type, the same formula behind them. What cannot be
 * had exactly is refused.
 */
#pragma once

#include "base/arena.h"

#define TREES_NODES_MAX 10000000u /* of one model */
#define TREES_COUNT_MAX 1000000u  /* trees of one model */
#define TREES_GROUPS_MAX 4096u    /* sums of one row */
#define TREES_FEATURES_MAX 65536u /* columns of one row */
#define TREES_ZERO_MAX 1e-35f     /* what LightGBM takes for zero */
#define TREES_MODEL_BYTES_MAX ((size_t)1 << 30)

/* What a node asks of its feature; the answer "yes" leads to the left. NaN is never an answer: it
 * goes where `missing_left` says. */
enum trees_test {
    TREES_LT,    /* x < threshold */
    TREES_LE,    /* x <= threshold */
    TREES_FLOOR, /* x, cut to an integer, is a category of the set; x > -1 (LightGBM) */
    TREES_CAT,   /* the same, and x >= 0 (XGBoost) */
    TREES_EXACT, /* x is the set's value (ONNX) */
};

struct trees_node {
    double threshold;
    int32_t left, right; /* >= 0: a node of the tree; < 0: its leaf -1 - n */
    uint32_t feature;
    uint32_t set; /* of the model's sets, for the last three tests */
    uint8_t test; /* enum trees_test */
    bool missing_left;
};

/* Categories as bits (TREES_FLOOR, TREES_CAT), or one value (TREES_EXACT). */
struct trees_set {
    const uint32_t *words;
    uint32_t word_count;
    double value;
};

struct trees_tree {
    struct trees_node *nodes;
    uint32_t node_count; /* 0: the tree is its one leaf */
    uint32_t leaf_count;
    uint32_t depth;       /* tests on the longest way; set by trees_tree_check() */
    uint32_t group;       /* the sum that the leaves add to, when they hold one value */
    bool vector;          /* a leaf holds a value for each group */
    const double *values; /* leaf_count of them, or leaf_count * groups */
};

enum trees_sum { TREES_ADD, TREES_AVERAGE, TREES_MIN, TREES_MAX };

/* How the sums of a row become its answer (answer.c). */
enum trees_transform {
#define TRANSFORM(name, fn, help) TREES_##name,
#include "serve/trees/transforms.def"
#undef TRANSFORM
    TREES_TRANSFORM_COUNT
};

struct trees_model {
    str format;    /* "xgboost", "lightgbm", "onnx" */
    str objective; /* in the words of the library, or "" */
    uint32_t features, groups, tree_count;
    uint64_t node_count;
    struct trees_tree *trees;
    struct trees_set *sets;
    uint32_t set_count;
    bool *zero_missing; /* per feature: |x| <= 1e-35 counts as missing (LightGBM); or NULL */
    bool wide;          /* rows are FP64: thresholds tell doubles apart that floats do not */
    bool wide_sum;      /* leaves are summed in double, else in float */
    bool wide_answer;   /* the answer is FP64 */
    enum trees_sum sum;
    double divisor; /* of an average */
    double *base;   /* per group */
    bool base_last; /* added behind the leaves, else the sum starts with it */
    enum trees_transform transform;
    double slope; /* of a sigmoid (LightGBM) */

    bool classifier;       /* gives a label and `outputs` scores; else `outputs` values */
    uint32_t outputs;      /* columns of the answer */
    const int64_t *labels; /* of classes; NULL with texts */
    const str *label_texts;
    str input_name, label_name, output_name;
    const str *feature_names; /* `features` of them, or NULL */
    double base_score;        /* as the file says it, for people */
};

/*
 * Reads a model of any of the formats; all memory is of the arena, and nothing of `bytes` is kept.
 * INVALID_ARGUMENT: broken, or not understood; FAILED_PRECONDITION: an ONNX file that is not a lone
 * tree ensemble or uses what is left to ONNX Runtime; RESOURCE_EXHAUSTED: the arena's cap.
 */
NODISCARD int trees_read(str bytes, struct arena *a, struct trees_model *ret_model, struct err *e);

enum trees_form {
    TREES_FORM_AUTO, /* what was measured to be faster, by rows of a run */
    TREES_FORM_WALK,
    TREES_FORM_BINS,
};

struct trees_forest;
struct trees_scratch; /* what a run works in: one per thread */

/* Lays a model out. The model and its arena must outlive the forest. RESOURCE_EXHAUSTED. With
 * TREES_FORM_BINS: FAILED_PRECONDITION where that form is not possible. */
NODISCARD int trees_forest_make(const struct trees_model *m, enum trees_form form,
                                struct trees_forest **ret_forest, struct err *e);
void trees_forest_free(struct trees_forest *f); /* accepts NULL */
DEFINE_AUTO_PTR(struct trees_forest, trees_forest_free)
/* From how many rows on the form "bins" is used; UINT32_MAX: never. */
uint32_t trees_forest_bins_rows(const struct trees_forest *f);

struct trees_scratch *trees_scratch_new(const struct trees_forest *f);
void trees_scratch_free(struct trees_scratch *s); /* accepts NULL */
DEFINE_AUTO_PTR(struct trees_scratch, trees_scratch_free)

/* Rows of `features` floats (doubles when the model is wide), one after the other. scores: `rows` *
 * outputs floats (doubles with wide_answer); labels: the class's number per row, or NULL. Allocates
 * nothing. */
HOT void trees_forest_run(const struct trees_forest *f, struct trees_scratch *s, const void *x,
                          uint32_t rows, void *scores, uint32_t *classes);
