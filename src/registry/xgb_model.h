/* SPDX-License-Identifier: Apache-2.0 */
/* An XGBoost model, read and checked: what the converter works on. Private to registry/. */
#pragma once

#include "registry/xgb_onnx.h"

struct xgb_tree {
    uint32_t node_count;
    uint32_t group;      /* the class that its leaves add to */
    float weight;        /* of its leaves: 1, or what dart gave it */
    const int64_t *left; /* -1 at a leaf */
    const int64_t *right;
    const int64_t *feature;
    const int64_t *default_left; /* where a missing value goes */
    const float *value;          /* the threshold, or the leaf's value */
};

struct xgb_model {
    struct xgb_onnx_info info;
    uint32_t groups; /* trees of one round: classes, or 1 */
    float base_score;
    struct xgb_tree *trees; /* info.trees of them */
};

/* Children of every tree are in range and no node has two parents, so a walk from the root ends.
 * All memory is of the arena. */
NODISCARD int xgb_model_read(str model, struct arena *a, struct xgb_model *ret_model,
                             struct err *e);
