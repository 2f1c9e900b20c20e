/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XGBoost models as tree ensembles of ours.
 *
 * XGBoost goes left when x < threshold, in float, and adds leaves in float, tree by tree, to a sum
 * that starts with base_score. That is saved as a user gives it and enters the sum through the
 * inverse of the objective's link (ProbToMargin of each objective): log(p / (1 - p)) where a
 * probability comes out, log where the answer is an exponential, as it is for the rest.
 *
 * A categorical node sends the categories that it lists to the right, all else to the left; what is
 * negative or above 2^24 is no category and goes left too (common::Decision). Here "in the set"
 * leads left, so the children are exchanged.
 *
 * All trees are used, as the library's own prediction does by default; early stopping's best
 * iteration is not applied.
 */
#include "serve/trees/priv.h"
#include "serve/trees/xgb_model.h"

#include <math.h>

enum shape { SHAPE_VALUE, SHAPE_BINARY, SHAPE_MULTI };

static const struct objective {
    str name;
    enum xgb_link link; /* of base_score */
    enum shape shape;
    enum trees_transform transform;
} objectives[] = {
    {S_INIT("binary:logistic"), XGB_LINK_LOGIT, SHAPE_BINARY, TREES_XGB_BINARY},
    {S_INIT("binary:logitraw"), XGB_LINK_IDENTITY, SHAPE_BINARY, TREES_XGB_MARGINS},
    {S_INIT("binary:hinge"), XGB_LINK_IDENTITY, SHAPE_BINARY, TREES_XGB_HINGE},
    {S_INIT("multi:softprob"), XGB_LINK_IDENTITY, SHAPE_MULTI, TREES_XGB_SOFTMAX},
    {S_INIT("multi:softmax"), XGB_LINK_IDENTITY, SHAPE_MULTI, TREES_XGB_SOFTMAX},
    {S_INIT("reg:squarederror"), XGB_LINK_IDENTITY, SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("reg:squaredlogerror"), XGB_LINK_IDENTITY, SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("reg:absoluteerror"), XGB_LINK_IDENTITY, SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("reg:pseudohubererror"), XGB_LINK_IDENTITY, SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("reg:quantileerror"), XGB_LINK_IDENTITY, SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("reg:linear"), XGB_LINK_IDENTITY, SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("reg:logistic"), XGB_LINK_LOGIT, SHAPE_VALUE, TREES_XGB_SIGMOID},
    {S_INIT("reg:gamma"), XGB_LINK_LOG, SHAPE_VALUE, TREES_XGB_EXP},
    {S_INIT("reg:tweedie"), XGB_LINK_LOG, SHAPE_VALUE, TREES_XGB_EXP},
    {S_INIT("count:poisson"), XGB_LINK_LOG, SHAPE_VALUE, TREES_XGB_EXP},
    {S_INIT("survival:cox"), XGB_LINK_LOG, SHAPE_VALUE, TREES_XGB_EXP},
    {S_INIT("survival:aft"), XGB_LINK_LOG, SHAPE_VALUE, TREES_XGB_EXP},
    {S_INIT("rank:pairwise"), XGB_LINK_IDENTITY, SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("rank:ndcg"), XGB_LINK_IDENTITY, SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("rank:map"), XGB_LINK_IDENTITY, SHAPE_VALUE, TREES_IDENTITY},
};

static int objective_find(const struct xgb_model *x, const struct objective **ret_objective,
                          struct err *e)
{
    str known[ARRAY_LEN(objectives)], near;

    for (size_t i = 0; i < ARRAY_LEN(objectives); i++) {
        known[i] = objectives[i].name;
        if (!str_eq(x->info.objective, known[i]))
            continue;
        if ((objectives[i].shape == SHAPE_MULTI) != (x->info.classes > 1))
            return FAIL(e, INVALID_ARGUMENT, "objective " STR_F " with %u classes", STR_A(known[i]),
                        x->info.classes);
        if (objectives[i].shape != SHAPE_VALUE && x->targets > 1)
            return FAIL(e, INVALID_ARGUMENT,
                        "objective " STR_F " with %u targets: only regressions have several",
                        STR_A(known[i]), x->targets);
        *ret_objective = &objectives[i];
        return 0;
    }
    near = str_suggest(x->info.objective, known, ARRAY_LEN(known));
    return FAIL(e, INVALID_ARGUMENT,
                "objective '" STR_F "' of the XGBoost model is not known%s" STR_F
                "; those of classification, regression, ranking and survival are",
                STR_A(str_take(x->info.objective, 64)), near.n ? ", did you mean " : "",
                STR_A(near));
}

/* The categories of a node as a set of the model. */
static int set_add(struct trees_model *m, const struct xgb_tree *from, uint32_t piece,
                   uint32_t *ret_set, struct arena *a, struct err *e)
{
    const int64_t *list = from->categories ? from->categories + from->category_starts[piece] : NULL;
    struct trees_set *set = &m->sets[m->set_count];
    int64_t n = list ? from->category_sizes[piece] : 0, largest = 0;
    uint32_t *words;

    for (int64_t i = 0; i < n; i++)
        largest = MAX(largest, list[i]);
    set->word_count = (uint32_t)(largest / 32 + 1);
    words = ARENA_ARRAY(a, uint32_t, set->word_count);
    if (!words)
        return trees_no_memory(e);
    for (int64_t i = 0; i < n; i++)
        words[list[i] / 32] |= 1u << (list[i] % 32);
    set->words = words;
    *ret_set = m->set_count++;
    return 0;
}

static int sets_make(struct trees_model *m, const struct xgb_tree *from, const uint32_t *place,
                     struct trees_tree *t, struct arena *a, struct err *e)
{
    for (uint32_t i = 0; i < from->category_count; i++) {
        int64_t node = from->category_nodes[i];
        struct trees_node *n = &t->nodes[place[node]];
        int32_t left = n->left;

        if (from->left[node] < 0 || !from->categorical[node] || n->test == TREES_CAT)
            return FAIL(e, INVALID_ARGUMENT, "node %lld has categories and does not split by them",
                        (long long)node);
        TRY(set_add(m, from, i, &n->set, a, e));
        n->test = TREES_CAT;
        n->left = n->right, n->right = left;
        n->missing_left = !n->missing_left;
    }
    for (uint32_t i = 0; from->categorical && i < from->node_count; i++)
        if (from->left[i] >= 0 && from->categorical[i] && t->nodes[place[i]].test != TREES_CAT)
            return FAIL(e, INVALID_ARGUMENT, "node %u splits by categories and has none", i);
    return 0;
}

/* Nodes and leaves are numbered together there, and apart here. */
static int tree_make(struct trees_model *m, const struct xgb_tree *from, struct trees_tree *t,
                     struct arena *a, struct err *e)
{
    uint32_t *place = ARENA_ARRAY(a, uint32_t, from->node_count);
    double *values;

    if (!place)
        return trees_no_memory(e);
    for (uint32_t i = 0; i < from->node_count; i++)
        place[i] = from->left[i] < 0 ? t->leaf_count++ : t->node_count++;
    if (from->left[0] < 0) /* what else there is was pruned */
        t->node_count = 0;
    t->nodes = ARENA_ARRAY(a, struct trees_node, t->node_count);
    values = ARENA_ARRAY(a, double, t->leaf_count);
    if (!values || (t->node_count && !t->nodes))
        return trees_no_memory(e);
    for (uint32_t i = 0; i < from->node_count; i++) {
        int64_t l = from->left[i], r = from->right[i];

        if (l < 0)
            values[place[i]] = (double)(from->value[i] * from->weight);
        else if (t->node_count)
            t->nodes[place[i]] = (struct trees_node){
                .threshold = (double)from->value[i],
                .left = from->left[l] < 0 ? -1 - (int32_t)place[l] : (int32_t)place[l],
                .right = from->left[r] < 0 ? -1 - (int32_t)place[r] : (int32_t)place[r],
                .feature = (uint32_t)from->feature[i],
                .test = TREES_LT,
                .missing_left = from->default_left[i] != 0,
            };
    }
    t->values = values;
    t->group = from->group;
    return t->node_count ? sets_make(m, from, place, t, a, e) : 0;
}

static int trees_make(struct trees_model *m, const struct xgb_model *x, struct arena *a,
                      struct err *e)
{
    uint64_t sets = 0;

    m->tree_count = x->info.trees;
    m->trees = ARENA_ARRAY(a, struct trees_tree, m->tree_count);
    for (uint32_t i = 0; i < x->info.trees; i++)
        sets += x->trees[i].category_count;
    m->sets = ARENA_ARRAY(a, struct trees_set, sets);
    if (!m->trees || (sets && !m->sets))
        return trees_no_memory(e);
    for (uint32_t i = 0; i < m->tree_count; i++) {
        if (tree_make(m, &x->trees[i], &m->trees[i], a, e))
            return err_context(e, "tree %u", i);
        TRY(trees_tree_check(m, &m->trees[i], i, a, e));
    }
    return 0;
}

int trees_xgboost_read(str bytes, struct arena *a, struct trees_model *m, struct err *e)
{
    const struct objective *o = NULL;
    struct xgb_model x;

    TRY(xgb_model_read(bytes, a, &x, e));
    TRY(objective_find(&x, &o, e));
    if (x.info.features > TREES_FEATURES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "the XGBoost model has %u features, at most %u",
                    x.info.features, TREES_FEATURES_MAX);
    m->format = S("xgboost");
    m->objective = x.info.objective;
    m->features = x.info.features;
    m->feature_names = x.info.feature_names;
    m->base_score = x.info.base_score;
    m->groups = x.groups;
    if (m->groups > TREES_GROUPS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "the XGBoost model has %u classes or targets, at most %u",
                    m->groups, TREES_GROUPS_MAX);
    m->base = ARENA_ARRAY(a, double, m->groups);
    if (!m->base)
        return trees_no_memory(e);
    for (uint32_t i = 0; i < m->groups; i++)
        TRY(xgb_margin(x.base_scores[i], o->link, &m->base[i], e));
    m->transform = o->transform;
    if (o->shape == SHAPE_VALUE)
        m->outputs = m->groups;
    else
        trees_labels_count(m, o->shape == SHAPE_MULTI ? m->groups : 2, a);
    return trees_make(m, &x, a, e);
}
