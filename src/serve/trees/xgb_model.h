/* SPDX-License-Identifier: Apache-2.0 */
/* An XGBoost model, read and checked: what the engine and the converter to ONNX work on. */
#pragma once

#include "base/arena.h"

#define XGB_MODEL_BYTES_MAX ((size_t)256 << 20)
#define XGB_NODES_MAX 10000000u

struct xgb_model_info {
    str objective;
    uint32_t features;
    uint32_t classes; /* 0 for regressions */
    uint32_t trees;
    uint64_t nodes;
    const str *feature_names; /* `features` of them, or NULL when the model has none */
    double base_score;        /* as saved, i.e. before the objective's link */
};

struct xgb_tree {
    uint32_t node_count;
    uint32_t group;      /* the class that its leaves add to */
    float weight;        /* of its leaves: 1, or what dart gave it */
    const int64_t *left; /* -1 at a leaf */
    const int64_t *right;
    const int64_t *feature;
    const int64_t *default_left; /* where a missing value goes */
    const float *value;          /* the threshold, or the leaf's value */
    const int64_t *categorical;  /* 1 where the node asks for a category; NULL: nowhere */
    /* Categories that go right, by node: `category_count` pieces of the list `categories`. */
    uint32_t category_count;
    const int64_t *category_nodes, *category_starts, *category_sizes, *categories;
};

struct xgb_model {
    struct xgb_model_info info;
    uint32_t groups; /* trees of one round: classes, targets, or 1 */
    uint32_t targets;
    bool categorical;
    float base_score;
    const float *base_scores; /* `groups` of them */
    struct xgb_tree *trees;   /* info.trees of them */
};

/* Children of every tree are in range and no node has two parents, so a walk from the root ends.
 * All memory is of the arena. */
NODISCARD int xgb_model_read(str model, struct arena *a, struct xgb_model *ret_model,
                             struct err *e);
/* How an objective turns the base score that a file says into the margin that trees add to. */
enum xgb_link { XGB_LINK_IDENTITY, XGB_LINK_LOGIT, XGB_LINK_LOG };
NODISCARD int xgb_margin(float base_score, enum xgb_link link, double *ret_margin, struct err *e);
/* An object of JSON or UBJSON, by its first bytes. */
bool xgb_model_is(str bytes);
