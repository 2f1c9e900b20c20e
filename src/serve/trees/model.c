/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all readers of tree ensembles need: telling the formats apart, and the check that makes the
 * rest of the engine safe: behind it, every walk from a root is finite and every index is in range.
 */
#include "serve/trees/priv.h"

#include "serve/trees/xgb_model.h"

#include <math.h>

static int node_check(const struct trees_model *m, const struct trees_tree *t,
                      const struct trees_node *n, struct err *e)
{
    const int32_t children[2] = {n->left, n->right};

    if (n->feature >= m->features)
        return FAIL(e, INVALID_ARGUMENT, "a node asks for feature %u of %u", n->feature,
                    m->features);
    if (n->test <= TREES_LE ? isnan(n->threshold) : n->set >= m->set_count)
        return FAIL(e, INVALID_ARGUMENT, "a node splits at NaN, or by a set that is not there");
    for (int side = 0; side < 2; side++)
        if (children[side] >= 0 ? (uint32_t)children[side] >= t->node_count
                                : (uint32_t)(-1 - children[side]) >= t->leaf_count)
            return FAIL(e, INVALID_ARGUMENT, "a node has a child %d that does not exist",
                        children[side]);
    return 0;
}

int trees_tree_check(const struct trees_model *m, struct trees_tree *t, uint32_t number,
                     struct arena *a, struct err *e)
{
    uint8_t *seen = ARENA_ARRAY(a, uint8_t, t->node_count + 1);
    uint32_t *queue = ARENA_ARRAY(a, uint32_t, t->node_count + 1);
    uint32_t from = 0, to = 0, level_end = 1;

    if (!seen || !queue)
        return trees_no_memory(e);
    if (!t->leaf_count || (!t->vector && t->group >= m->groups))
        return FAIL(e, INVALID_ARGUMENT, "tree %u has no leaves, or a group out of range", number);
    t->depth = t->node_count ? 1 : 0;
    if (t->node_count)
        queue[to++] = 0, seen[0] = 1;
    for (; from < to; from++) {
        const struct trees_node *n = &t->nodes[queue[from]];
        const int32_t children[2] = {n->left, n->right};

        if (from == level_end)
            t->depth++, level_end = to;
        if (node_check(m, t, n, e))
            return err_context(e, "tree %u", number);
        for (int side = 0; side < 2; side++) {
            if (children[side] < 0)
                continue;
            if (seen[children[side]])
                return FAIL(e, INVALID_ARGUMENT, "tree %u: node %d has two parents", number,
                            children[side]);
            seen[children[side]] = 1;
            queue[to++] = (uint32_t)children[side];
        }
    }
    return 0;
}

void trees_labels_count(struct trees_model *m, uint32_t classes, struct arena *a)
{
    int64_t *labels = ARENA_ARRAY(a, int64_t, classes);

    for (uint32_t i = 0; labels && i < classes; i++)
        labels[i] = i;
    m->labels = labels;
    m->classifier = true;
    m->outputs = classes;
    m->output_name = S("probabilities");
}

static NODISCARD int read_any(str bytes, struct arena *a, struct trees_model *m, struct err *e)
{
    if (trees_lightgbm_is(bytes))
        return trees_lightgbm_read(bytes, a, m, e);
    if (xgb_model_is(bytes))
        return trees_xgboost_read(bytes, a, m, e);
    return trees_onnx_read(bytes, a, m, e);
}

int trees_read(str bytes, struct arena *a, struct trees_model *ret_model, struct err *e)
{
    struct trees_model m = {.objective = S(""),
                            .input_name = S("input"),
                            .label_name = S("label"),
                            .output_name = S("variable"),
                            .slope = 1};

    if (bytes.n > TREES_MODEL_BYTES_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED, "the model is larger than %zu MiB",
                    TREES_MODEL_BYTES_MAX >> 20);
    TRY(read_any(bytes, a, &m, e));
    ASSERT(m.groups && m.outputs && m.features);
    if (a->overflowed)
        return trees_no_memory(e);
    for (uint32_t i = 0; i < m.tree_count; i++)
        m.node_count += m.trees[i].node_count + m.trees[i].leaf_count;
    *ret_model = m;
    return 0;
}
