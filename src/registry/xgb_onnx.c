/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the trees of an XGBoost model as one TreeEnsemble node of ONNX, plus what the objective
 * needs behind it.
 *
 * Both sides decide alike: XGBoost goes left when x < threshold, in float, and a missing value goes
 * where default_left says; ONNX's BRANCH_LT goes to its true branch on the same test, and with
 * missing_value_tracks_true a NaN follows. So left is the true branch.
 *
 * base_score is saved as a user gives it and enters the sum of leaves through the inverse of the
 * objective's link: log(p / (1 - p)) where a probability comes out, log for Poisson, as it is for
 * the rest, binary:logitraw too (XGBoost 1.7, ProbToMargin of each objective). The sum is turned
 * into an answer by the node's post-transform for classifiers; for regressions by a Sigmoid or Exp
 * node, since the runtime ignores a post-transform of a regressor with one target.
 *
 * The runtime judges a binary classifier's label by a threshold of 0.5 on the raw sum when no leaf
 * is negative, and by 0 otherwise. XGBoost's is always 0 on the raw sum; so a model without
 * negative leaves gets one more tree, a single leaf of the smallest negative number, which changes
 * no sum and settles the threshold.
 *
 * Nor does it compute two classes as it does three: for them it derives one sum from the other. Two
 * softmax scores are one logistic of their difference, so such a model is written as a binary one,
 * with the leaves of class 0 negated; base_score, added to both, cancels.
 *
 * Nodes are written in the order of a walk from the root, true branch first, and numbered so;
 * pruned nodes, which no walk meets, are left out.
 */
#include "base/json.h"
#include "registry/onnx_write.h"
#include "registry/xgb_onnx.h"
#include "serve/trees/xgb_model.h"

#include <float.h>
#include <math.h>

enum shape { SHAPE_BINARY, SHAPE_MULTI, SHAPE_REGRESSION };

static const struct objective {
    str name;
    enum xgb_link link; /* of base_score */
    enum shape shape;
    str transform; /* post_transform of a classifier, operator behind a regressor, or "" */
} objectives[] = {
    {S_INIT("binary:logistic"), XGB_LINK_LOGIT, SHAPE_BINARY, S_INIT("LOGISTIC")},
    {S_INIT("binary:logitraw"), XGB_LINK_IDENTITY, SHAPE_BINARY, S_INIT("NONE")},
    {S_INIT("multi:softprob"), XGB_LINK_IDENTITY, SHAPE_MULTI, S_INIT("SOFTMAX")},
    {S_INIT("multi:softmax"), XGB_LINK_IDENTITY, SHAPE_MULTI, S_INIT("SOFTMAX")},
    {S_INIT("reg:squarederror"), XGB_LINK_IDENTITY, SHAPE_REGRESSION, S_INIT("")},
    {S_INIT("reg:logistic"), XGB_LINK_LOGIT, SHAPE_REGRESSION, S_INIT("Sigmoid")},
    {S_INIT("count:poisson"), XGB_LINK_LOG, SHAPE_REGRESSION, S_INIT("Exp")},
};

/* The node's attributes, one entry per node or per leaf. */
struct columns {
    size_t node_count, leaf_count;
    int64_t *tree, *node, *feature, *if_true, *if_false, *missing_true;
    uint8_t *is_leaf;
    float *value;
    int64_t *leaf_tree, *leaf_node, *leaf_class;
    float *leaf_weight;
    bool any_negative;
    bool fold; /* two softmax classes into one sum */
};

static int model_check(const struct xgb_model *m, struct err *e)
{
    if (m->categorical)
        return FAIL(e, INVALID_ARGUMENT,
                    "the XGBoost model splits on categories, which ONNX trees cannot: encode them "
                    "as numbers and train with enable_categorical=False");
    if (m->targets > 1)
        return FAIL(e, INVALID_ARGUMENT,
                    "the XGBoost model predicts %u targets; models of one target can be converted",
                    m->targets);
    for (uint32_t i = 1; i < m->groups; i++)
        if (m->base_scores[i] != m->base_scores[0])
            return FAIL(e, INVALID_ARGUMENT,
                        "the XGBoost model has a base_score for each class; train with one "
                        "base_score to convert it");
    return 0;
}

static int objective_find(const struct xgb_model *m, const struct objective **ret_objective,
                          struct err *e)
{
    str known[ARRAY_LEN(objectives)];

    for (size_t i = 0; i < ARRAY_LEN(objectives); i++) {
        known[i] = objectives[i].name;
        if (!str_eq(m->info.objective, known[i]))
            continue;
        if ((objectives[i].shape == SHAPE_MULTI) != (m->info.classes > 1))
            return FAIL(e, INVALID_ARGUMENT, "objective " STR_F " with %u classes", STR_A(known[i]),
                        m->info.classes);
        *ret_objective = &objectives[i];
        return 0;
    }
    return FAIL(e, INVALID_ARGUMENT,
                "objective '" STR_F "' cannot be converted; expected binary:logistic, "
                "binary:logitraw, multi:softprob, multi:softmax, reg:squarederror, reg:logistic or "
                "count:poisson",
                STR_A(str_take(m->info.objective, 64)));
}

static int columns_make(struct columns *c, uint64_t nodes, struct arena *a, struct err *e)
{
    int64_t **ints[] = {&c->tree,         &c->node,      &c->feature,   &c->if_true,   &c->if_false,
                        &c->missing_true, &c->leaf_tree, &c->leaf_node, &c->leaf_class};

    for (size_t i = 0; i < ARRAY_LEN(ints); i++)
        *ints[i] = ARENA_ARRAY(a, int64_t, nodes);
    c->is_leaf = ARENA_ARRAY(a, uint8_t, nodes);
    c->value = ARENA_ARRAY(a, float, nodes);
    c->leaf_weight = ARENA_ARRAY(a, float, nodes);
    if (a->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the model is too large for the memory allowed");
    return 0;
}

static void leaf_add(struct columns *c, size_t at, int64_t class, float weight)
{
    c->is_leaf[at] = 1;
    c->leaf_tree[c->leaf_count] = c->tree[at];
    c->leaf_node[c->leaf_count] = c->node[at];
    c->leaf_class[c->leaf_count] = class;
    c->leaf_weight[c->leaf_count++] = weight;
    c->any_negative |= weight < 0;
}

/* Walks a tree, true branch first. The stack holds nodes to visit and where their number goes. */
static int tree_add(struct columns *c, const struct xgb_tree *t, int64_t id, struct arena *a,
                    struct err *e)
{
    struct visit {
        int64_t node;
        int64_t *number; /* of the parent: which branch */
    } *stack = ARENA_ARRAY(a, struct visit, t->node_count + 1);
    size_t depth = 0, first = c->node_count;
    int64_t root_number;

    if (!stack)
        return FAIL(e, RESOURCE_EXHAUSTED, "the model is too large for the memory allowed");
    stack[depth++] = (struct visit){0, &root_number};
    while (depth) {
        struct visit v = stack[--depth];
        size_t at = c->node_count++;

        c->tree[at] = id;
        c->node[at] = *v.number = (int64_t)(at - first);
        if (t->left[v.node] < 0) {
            leaf_add(c, at, c->fold ? 0 : t->group,
                     t->value[v.node] * (c->fold && !t->group ? -t->weight : t->weight));
            continue;
        }
        c->feature[at] = t->feature[v.node];
        c->value[at] = t->value[v.node];
        c->missing_true[at] = t->default_left[v.node] != 0;
        stack[depth++] = (struct visit){t->right[v.node], &c->if_false[at]};
        stack[depth++] = (struct visit){t->left[v.node], &c->if_true[at]};
    }
    return 0;
}

static void settle_threshold(struct columns *c, int64_t id)
{
    size_t at = c->node_count++;

    c->tree[at] = id;
    leaf_add(c, at, 0, -FLT_MIN);
}

static void ensemble_write(struct buf *to, const struct columns *c, const struct objective *o,
                           const struct xgb_model *m, float margin, struct arena *a)
{
    static const str modes[] = {S_INIT("BRANCH_LT"), S_INIT("LEAF")};
    bool is_classifier = o->shape != SHAPE_REGRESSION;
    uint32_t classes = o->shape == SHAPE_MULTI ? m->info.classes : 2;
    int64_t *labels = ARENA_ARRAY(a, int64_t, classes);
    float *base = ARENA_ARRAY(a, float, classes);

    onnx_attr_ints(to, S("nodes_treeids"), c->tree, c->node_count);
    onnx_attr_ints(to, S("nodes_nodeids"), c->node, c->node_count);
    onnx_attr_ints(to, S("nodes_featureids"), c->feature, c->node_count);
    onnx_attr_floats(to, S("nodes_values"), c->value, c->node_count);
    onnx_attr_strs(to, S("nodes_modes"), c->is_leaf, c->node_count, modes);
    onnx_attr_ints(to, S("nodes_truenodeids"), c->if_true, c->node_count);
    onnx_attr_ints(to, S("nodes_falsenodeids"), c->if_false, c->node_count);
    onnx_attr_ints(to, S("nodes_missing_value_tracks_true"), c->missing_true, c->node_count);
    for (uint32_t i = 0; i < classes; i++)
        labels[i] = i, base[i] = margin;
    onnx_attr_floats(to, S("base_values"), base, o->shape == SHAPE_MULTI ? classes : 1);
    if (is_classifier) {
        onnx_attr_ints(to, S("class_treeids"), c->leaf_tree, c->leaf_count);
        onnx_attr_ints(to, S("class_nodeids"), c->leaf_node, c->leaf_count);
        onnx_attr_ints(to, S("class_ids"), c->leaf_class, c->leaf_count);
        onnx_attr_floats(to, S("class_weights"), c->leaf_weight, c->leaf_count);
        onnx_attr_ints(to, S("classlabels_int64s"), labels, classes);
        onnx_attr_str(to, S("post_transform"), o->transform);
    } else {
        onnx_attr_ints(to, S("target_treeids"), c->leaf_tree, c->leaf_count);
        onnx_attr_ints(to, S("target_nodeids"), c->leaf_node, c->leaf_count);
        onnx_attr_ints(to, S("target_ids"), c->leaf_class, c->leaf_count);
        onnx_attr_floats(to, S("target_weights"), c->leaf_weight, c->leaf_count);
        onnx_attr_int(to, S("n_targets"), 1);
        onnx_attr_str(to, S("post_transform"), S("NONE"));
    }
}

static void graph_write(struct buf *to, const struct columns *c, const struct objective *o,
                        const struct xgb_model *m, float margin, struct arena *a)
{
    size_t graph = pb_open(to, 7), node = pb_open(to, 1);
    bool is_classifier = o->shape != SHAPE_REGRESSION;
    int64_t in[2] = {-1, m->info.features}, rows[1] = {-1}, one[2] = {-1, 1};
    int64_t scores[2] = {-1, o->shape == SHAPE_MULTI ? m->info.classes : 2};

    pb_put_bytes(to, 1, S("input"));
    if (is_classifier) {
        pb_put_bytes(to, 2, S("label"));
        pb_put_bytes(to, 2, S("probabilities"));
    } else {
        pb_put_bytes(to, 2, o->transform.n ? S("margin") : S("variable"));
    }
    pb_put_bytes(to, 4, is_classifier ? S("TreeEnsembleClassifier") : S("TreeEnsembleRegressor"));
    pb_put_bytes(to, 7, S("ai.onnx.ml"));
    ensemble_write(to, c, o, m, margin, a);
    pb_close(to, node);
    if (!is_classifier && o->transform.n) {
        node = pb_open(to, 1);
        pb_put_bytes(to, 1, S("margin"));
        pb_put_bytes(to, 2, S("variable"));
        pb_put_bytes(to, 4, o->transform);
        pb_close(to, node);
    }
    pb_put_bytes(to, 2, S("xgboost"));
    onnx_value_info(to, 11, S("input"), ONNX_FLOAT, in, 2);
    if (is_classifier) {
        onnx_value_info(to, 12, S("label"), ONNX_INT64, rows, 1);
        onnx_value_info(to, 12, S("probabilities"), ONNX_FLOAT, scores, 2);
    } else {
        onnx_value_info(to, 12, S("variable"), ONNX_FLOAT, one, 2);
    }
    pb_close(to, graph);
}

static void property_write(struct buf *to, str key, str value)
{
    size_t entry = pb_open(to, 14);

    pb_put_bytes(to, 1, key);
    pb_put_bytes(to, 2, value);
    pb_close(to, entry);
}

/* What the file says of itself: where it comes from, and its features' names as a JSON list. */
static void properties_write(struct buf *to, const struct xgb_model *m)
{
    AUTO(buf_done) struct buf names = {0};
    struct json_out o;

    property_write(to, S("objective"), m->info.objective);
    if (!m->info.feature_names)
        return;
    buf_init(&names, to->max_bytes);
    jo_begin(&o, &names);
    jo_array(&o);
    for (uint32_t i = 0; i < m->info.features; i++)
        jo_str(&o, m->info.feature_names[i]);
    jo_array_end(&o);
    if (names.overflowed)
        to->overflowed = true;
    property_write(to, S("feature_names"), buf_str(&names));
}

static void opset_write(struct buf *to, str domain, int64_t version)
{
    size_t opset = pb_open(to, 8);

    pb_put_bytes(to, 1, domain);
    pb_int(to, 2, version);
    pb_close(to, opset);
}

int xgb_onnx_convert(str model, struct arena *a, struct buf *to, struct xgb_model_info *info,
                     struct err *e)
{
    static const struct objective folded = {S_INIT("softmax of two"), XGB_LINK_IDENTITY,
                                            SHAPE_BINARY, S_INIT("LOGISTIC")};
    const struct objective *o = NULL;
    struct columns c = {.fold = false};
    struct xgb_model m;
    double margin = 0;

    TRY(xgb_model_read(model, a, &m, e));
    TRY(model_check(&m, e));
    TRY(objective_find(&m, &o, e));
    TRY(xgb_margin(m.base_score, o->link, &margin, e));
    c.fold = o->shape == SHAPE_MULTI && m.info.classes == 2;
    if (c.fold)
        o = &folded, margin = 0;
    TRY(columns_make(&c, m.info.nodes + 1, a, e));
    for (uint32_t i = 0; i < m.info.trees; i++)
        TRY(tree_add(&c, &m.trees[i], i, a, e));
    if (o->shape == SHAPE_BINARY && !c.any_negative)
        settle_threshold(&c, m.info.trees);
    pb_int(to, 1, 8); /* ir_version: ONNX 1.10 */
    opset_write(to, S(""), 15);
    opset_write(to, S("ai.onnx.ml"), 3);
    pb_put_bytes(to, 2, S("weir"));
    pb_put_bytes(to, 3, S(WEIR_VERSION));
    graph_write(to, &c, o, &m, (float)margin, a);
    properties_write(to, &m);
    if (to->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the ONNX model would be larger than %zu bytes",
                    to->max_bytes);
    if (info) {
        *info = m.info;
        info->classes = o->shape == SHAPE_REGRESSION ? 0 : MAX(m.info.classes, 2u);
    }
    return 0;
}
