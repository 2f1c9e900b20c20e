/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of serve/trees/ share. */
#pragma once

#include "serve/trees/trees.h"

/* The readers, one per format; as trees_read(). */
NODISCARD int trees_xgboost_read(str bytes, struct arena *a, struct trees_model *m, struct err *e);
NODISCARD int trees_lightgbm_read(str bytes, struct arena *a, struct trees_model *m, struct err *e);
NODISCARD int trees_onnx_read(str bytes, struct arena *a, struct trees_model *m, struct err *e);
bool trees_lightgbm_is(str bytes);

/* What a reader calls when it is done. Every child exists and has one parent, so a walk from the
 * root ends; features, sets, groups and thresholds are in range. Sets depth and leaf_count stays.
 * `number` is for messages. */
NODISCARD int trees_tree_check(const struct trees_model *m, struct trees_tree *t, uint32_t number,
                               struct arena *a, struct err *e);

/* The arena's cap is reached. */
NODISCARD static inline int trees_no_memory(struct err *e)
{
    return FAIL(e, RESOURCE_EXHAUSTED, "the model is too large for the memory allowed");
}

/* Values of classes 0, 1, … as labels. */
void trees_labels_count(struct trees_model *m, uint32_t classes, struct arena *a);

/* True where x, not NaN, leads to the left. */
static inline bool trees_set_has(const struct trees_set *set, uint8_t test, double x)
{
    if (test == TREES_EXACT)
        return x == set->value;
    if (!(test == TREES_CAT ? x >= 0 : x > -1) || !(x < 32.0 * set->word_count))
        return false;
    return set->words[(uint32_t)x >> 5] >> ((uint32_t)x & 31) & 1;
}

/* One row's sums into its answer. `scores` has room for m->outputs; returns the class, 0 for
 * regressions. Sums of float models are floats in double's clothes. */
uint32_t trees_answer(const struct trees_model *m, const double *sums, double *scores);
