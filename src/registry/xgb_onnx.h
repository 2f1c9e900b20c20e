/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XGBoost models as ONNX: a gradient-boosted tree model saved by XGBoost as JSON (save_model of a
 * name that ends in .json; versions 1.3 to 1.7, exact for 1.7.4) or UBJSON (.ubj) becomes an ONNX
 * file with one TreeEnsemble node, which ONNX Runtime runs in the gateway.
 *
 * Objectives: binary:logistic, binary:logitraw, multi:softprob, multi:softmax, reg:squarederror,
 * reg:logistic, count:poisson. Input: `input` FP32 [-1, features], NaN is a missing value. Outputs
 * of classifiers: `label` INT64 [-1] and `probabilities` FP32 [-1, classes] (both columns for the
 * binary objectives; for binary:logitraw they are the margins -m and m); of regressions: `variable`
 * FP32 [-1, 1]. All trees are used, as the library's own prediction does by default; early
 * stopping's best iteration is not applied.
 *
 * Refused with a message: other objectives (rank:*, survival:*, ...), boosters other than gbtree
 * and dart, categorical splits, vector leaves.
 */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "serve/trees/xgb_model.h"

/* Converts; the ONNX bytes are appended to `to`. `info` (may be NULL) lives in the arena, which
 * also holds the work: about 30 times the model's size for JSON. */
NODISCARD int xgb_onnx_convert(str model, struct arena *a, struct buf *to,
                               struct xgb_model_info *info, struct err *e);
