/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a model that XGBoost saved, in JSON or Universal Binary JSON; both hold the same tree of
 * members. Numbers of parameters are texts there ("5E-1"), arrays of nodes are parallel lists.
 *
 * What decides a prediction is read and checked; what does not (gains, hessians) is left alone.
 * What is not understood is refused: a model that predicts something else than before is worse than
 * one that does not load.
 */
#include "serve/trees/xgb_model.h"

#include "base/json.h"
#include "serve/trees/ubjson.h"

#include <math.h>

#define CATEGORIES_MAX (1 << 24) /* XGBoost takes no larger ones */

/* A number that is a text in the file, or a number. */
static int param_real(const struct json *object, str key, double *ret_value, struct err *e)
{
    const struct json *node = json_get(object, key);

    if (node && (node->type == JSON_INT || node->type == JSON_REAL))
        *ret_value = json_real_or(node, 0);
    else if (!node || node->type != JSON_STR || !str_to_f64(node->string, ret_value))
        return FAIL(e, INVALID_ARGUMENT, "the XGBoost model has no number '" STR_F "'", STR_A(key));
    return 0;
}

static int param_count(const struct json *object, str key, uint32_t max, uint32_t *ret_value,
                       struct err *e)
{
    double v;

    TRY(param_real(object, key, &v, e));
    if (!(v >= 0 && v <= max) || v != floor(v))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' of the XGBoost model is %g, expected 0 to %u",
                    STR_A(key), v, max);
    *ret_value = (uint32_t)v;
    return 0;
}

/* A list of n numbers or booleans. */
static int list_ints(const struct json *object, str key, uint32_t n, struct arena *a,
                     const int64_t **ret_ints, struct err *e)
{
    const struct json *list = json_get(object, key);
    int64_t *ints;
    uint32_t i = 0;

    if (!list || list->type != JSON_ARRAY || list->count != n)
        return FAIL(e, INVALID_ARGUMENT, "a tree has no list '" STR_F "' of its %u nodes",
                    STR_A(key), n);
    ints = ARENA_ARRAY(a, int64_t, n);
    if (!ints)
        return FAIL(e, RESOURCE_EXHAUSTED, "the model is too large for the memory allowed");
    JSON_EACH (item, list) {
        if (item->type != JSON_INT && item->type != JSON_BOOL)
            return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' of a tree holds a %s at %u", STR_A(key),
                        json_type_name(item->type), i);
        ints[i++] = item->type == JSON_INT ? item->integer : item->boolean;
    }
    *ret_ints = ints;
    return 0;
}

static int list_floats(const struct json *object, str key, uint32_t n, struct arena *a,
                       const float **ret_floats, struct err *e)
{
    const struct json *list = json_get(object, key);
    float *floats;
    uint32_t i = 0;

    if (!list || list->type != JSON_ARRAY || list->count != n)
        return FAIL(e, INVALID_ARGUMENT, "a tree has no list '" STR_F "' of its %u nodes",
                    STR_A(key), n);
    floats = ARENA_ARRAY(a, float, n);
    if (!floats)
        return FAIL(e, RESOURCE_EXHAUSTED, "the model is too large for the memory allowed");
    JSON_EACH (item, list) {
        if (item->type != JSON_INT && item->type != JSON_REAL)
            return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' of a tree holds a %s at %u", STR_A(key),
                        json_type_name(item->type), i);
        floats[i++] = (float)json_real_or(item, 0);
    }
    *ret_floats = floats;
    return 0;
}

/* Every child exists and has one parent; the root has none: then it is a tree. */
static int links_check(const struct xgb_tree *t, uint32_t features, uint8_t *is_child,
                       struct err *e)
{
    for (uint32_t i = 0; i < t->node_count; i++) {
        const int64_t children[2] = {t->left[i], t->right[i]};

        if (children[0] == -1 && children[1] == -1)
            continue;
        if (t->feature[i] < 0 || t->feature[i] >= features)
            return FAIL(e, INVALID_ARGUMENT, "a node splits on feature %lld of %u",
                        (long long)t->feature[i], features);
        if (!isfinite(t->value[i]) && isnan(t->value[i]))
            return FAIL(e, INVALID_ARGUMENT, "node %u splits at NaN", i);
        for (int side = 0; side < 2; side++) {
            if (children[side] <= 0 || children[side] >= t->node_count || is_child[children[side]])
                return FAIL(e, INVALID_ARGUMENT,
                            "node %u has a child %lld that is no node of its "
                            "own",
                            i, (long long)children[side]);
            is_child[children[side]] = 1;
        }
    }
    return 0;
}

/* A list of any length up to `max`; none counts as empty. */
static int list_free(const struct json *object, str key, uint32_t max, struct arena *a,
                     uint32_t *ret_n, const int64_t **ret_ints, struct err *e)
{
    const struct json *list = json_get(object, key);

    *ret_n = 0;
    if (!json_is_container(list) || !list->count)
        return 0;
    if (list->count > max)
        return FAIL(e, INVALID_ARGUMENT, "a tree has %zu entries in '" STR_F "'", list->count,
                    STR_A(key));
    *ret_n = (uint32_t)list->count;
    return list_ints(object, key, *ret_n, a, ret_ints, e);
}

/* Categories stand in one list per tree; three others say which node has which piece of it. */
static int categories_read(const struct json *tree, struct xgb_tree *t, struct arena *a,
                           struct err *e)
{
    const struct json *types = json_get(tree, S("split_type"));
    uint32_t starts, sizes, total, split_types;
    const struct json *nodes = json_get(tree, S("categories_nodes"));
    bool any = json_is_container(nodes) && nodes->count;

    if (json_is_container(types))
        JSON_EACH (type, types)
            any |= json_int_or(type, 0) != 0;
    if (!any)
        return 0;
    TRY(list_free(tree, S("split_type"), t->node_count, a, &split_types, &t->categorical, e));
    TRY(list_free(tree, S("categories_nodes"), t->node_count, a, &t->category_count,
                  &t->category_nodes, e));
    TRY(list_free(tree, S("categories_segments"), t->node_count, a, &starts, &t->category_starts,
                  e));
    TRY(list_free(tree, S("categories_sizes"), t->node_count, a, &sizes, &t->category_sizes, e));
    TRY(list_free(tree, S("categories"), CATEGORIES_MAX, a, &total, &t->categories, e));
    if (split_types != t->node_count || starts != t->category_count || sizes != starts)
        return FAIL(e, INVALID_ARGUMENT, "the lists of categories of a tree differ in length");
    for (uint32_t i = 0; i < t->category_count; i++)
        if (t->category_nodes[i] < 0 || t->category_nodes[i] >= t->node_count ||
            t->category_starts[i] < 0 || t->category_sizes[i] < 0 ||
            t->category_starts[i] > (int64_t)total ||
            t->category_sizes[i] > (int64_t)total - t->category_starts[i])
            return FAIL(e, INVALID_ARGUMENT, "piece %u of a tree's categories is out of range", i);
    for (uint32_t i = 0; i < total; i++)
        if (t->categories[i] < 0 || t->categories[i] >= CATEGORIES_MAX)
            return FAIL(e, INVALID_ARGUMENT, "category %lld is out of range",
                        (long long)t->categories[i]);
    return 0;
}

static int tree_read(const struct json *node, struct xgb_model *m, struct xgb_tree *t,
                     struct arena *a, struct err *e)
{
    const struct json *param = json_get(node, S("tree_param"));
    uint32_t leaf_vector = 0;
    uint8_t *is_child;

    TRY(param_count(param, S("num_nodes"), XGB_NODES_MAX, &t->node_count, e));
    TRY(param_count(param, S("size_leaf_vector"), UINT32_MAX, &leaf_vector, e));
    if (leaf_vector > 1 || !t->node_count)
        return FAIL(e, INVALID_ARGUMENT,
                    "a tree has %u nodes and leaves of %u values; trees of at "
                    "least one node with leaves of one value are understood",
                    t->node_count, leaf_vector);
    TRY(categories_read(node, t, a, e));
    m->categorical |= t->categorical || t->category_count;
    TRY(list_ints(node, S("left_children"), t->node_count, a, &t->left, e));
    TRY(list_ints(node, S("right_children"), t->node_count, a, &t->right, e));
    TRY(list_ints(node, S("split_indices"), t->node_count, a, &t->feature, e));
    TRY(list_ints(node, S("default_left"), t->node_count, a, &t->default_left, e));
    TRY(list_floats(node, S("split_conditions"), t->node_count, a, &t->value, e));
    is_child = ARENA_ARRAY(a, uint8_t, t->node_count);
    if (!is_child)
        return FAIL(e, RESOURCE_EXHAUSTED, "the model is too large for the memory allowed");
    m->info.nodes += t->node_count;
    if (m->info.nodes > XGB_NODES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "the XGBoost model has more than %u nodes", XGB_NODES_MAX);
    return links_check(t, m->info.features, is_child, e);
}

/* The groups of the trees, and what dart weighs them with. */
static int groups_read(const struct json *model, const struct json *weights, struct xgb_model *m,
                       struct arena *a, struct err *e)
{
    const int64_t *groups;
    const float *drops = NULL;

    TRY(list_ints(model, S("tree_info"), m->info.trees, a, &groups, e));
    if (weights) {
        const struct json *booster = weights;

        TRY(list_floats(booster, S("weight_drop"), m->info.trees, a, &drops, e));
    }
    for (uint32_t i = 0; i < m->info.trees; i++) {
        if (groups[i] < 0 || groups[i] >= m->groups)
            return FAIL(e, INVALID_ARGUMENT, "tree %u belongs to class %lld of %u", i,
                        (long long)groups[i], m->groups);
        m->trees[i].group = (uint32_t)groups[i];
        m->trees[i].weight = drops ? drops[i] : 1;
    }
    return 0;
}

static int trees_read(const struct json *booster, struct xgb_model *m, struct arena *a,
                      struct err *e)
{
    str name = json_str_or(json_get(booster, S("name")), S("?"));
    bool dart = str_eq(name, S("dart"));
    const struct json *model, *trees;
    uint32_t i = 0;

    if (!dart && !str_eq(name, S("gbtree")))
        return FAIL(e, INVALID_ARGUMENT,
                    "booster '" STR_F "' is not made of trees: gbtree and dart "
                    "are understood",
                    STR_A(str_take(name, 40)));
    model = dart ? json_path(booster, "gbtree.model") : json_get(booster, S("model"));
    trees = json_get(model, S("trees"));
    if (!trees || trees->type != JSON_ARRAY || !trees->count || trees->count > UINT32_MAX)
        return FAIL(e, INVALID_ARGUMENT, "the XGBoost model has no trees");
    m->info.trees = (uint32_t)trees->count;
    m->trees = ARENA_ARRAY(a, struct xgb_tree, trees->count);
    if (!m->trees)
        return FAIL(e, RESOURCE_EXHAUSTED, "the model is too large for the memory allowed");
    JSON_EACH (tree, trees) {
        if (tree_read(tree, m, &m->trees[i], a, e))
            return err_context(e, "tree %u", i);
        i++;
    }
    return groups_read(model, dart ? booster : NULL, m, a, e);
}

static int names_read(const struct json *learner, struct xgb_model *m, struct arena *a,
                      struct err *e)
{
    const struct json *names = json_get(learner, S("feature_names"));
    uint32_t i = 0;
    str *copy;

    if (!json_is_container(names) || !names->count)
        return 0;
    if (names->count != m->info.features)
        return FAIL(e, INVALID_ARGUMENT, "the XGBoost model has %u features and %zu names of them",
                    m->info.features, names->count);
    copy = ARENA_ARRAY(a, str, names->count);
    JSON_EACH (name, names)
        copy[i++] = arena_dup(a, json_str_or(name, S("")));
    m->info.feature_names = copy;
    return 0;
}

/* One number for all groups, or since XGBoost 3.1 a list in brackets. */
static int base_scores_read(const struct json *param, struct xgb_model *m, struct arena *a,
                            struct err *e)
{
    const struct json *node = json_get(param, S("base_score"));
    float *scores = ARENA_ARRAY(a, float, m->groups);
    str text = node && node->type == JSON_STR ? str_trim(node->string) : STR_NULL;
    uint32_t n = 0;
    double v;

    if (!scores)
        return FAIL(e, RESOURCE_EXHAUSTED, "the model is too large for the memory allowed");
    if (str_starts(text, S("[")) && str_ends(text, S("]"))) {
        str rest = str_range(text.p + 1, text.p + text.n - 1);

        while (rest.p && n < m->groups) {
            if (!str_to_f64(str_trim(str_cut(&rest, ',')), &v))
                return FAIL(e, INVALID_ARGUMENT, "base_score of the XGBoost model is '" STR_F "'",
                            STR_A(str_take(text, 80)));
            scores[n++] = (float)v;
        }
        if (rest.p || (n != 1 && n != m->groups))
            return FAIL(e, INVALID_ARGUMENT, "base_score has not one number for each of %u groups",
                        m->groups);
    } else {
        TRY(param_real(param, S("base_score"), &v, e));
        scores[n++] = (float)v;
    }
    for (uint32_t i = n; i < m->groups; i++)
        scores[i] = scores[0];
    m->base_scores = scores;
    m->base_score = scores[0];
    m->info.base_score = (double)scores[0];
    return 0;
}

static int learner_read(const struct json *learner, struct xgb_model *m, struct arena *a,
                        struct err *e)
{
    const struct json *param = json_get(learner, S("learner_model_param"));
    uint32_t targets = 1;
    str objective;

    TRY(json_need_str(json_get(learner, S("objective")), S("name"), &objective, e));
    m->info.objective = arena_dup(a, objective);
    TRY(param_count(param, S("num_class"), 65536, &m->info.classes, e));
    TRY(param_count(param, S("num_feature"), 1u << 24, &m->info.features, e));
    if (json_get(param, S("num_target")))
        TRY(param_count(param, S("num_target"), UINT32_MAX, &targets, e));
    m->targets = MAX(targets, 1u);
    if (m->targets > 65536 || (m->targets > 1 && m->info.classes > 1))
        return FAIL(e, INVALID_ARGUMENT, "the XGBoost model has %u targets and %u classes",
                    m->targets, m->info.classes);
    if (!m->info.features)
        return FAIL(e, INVALID_ARGUMENT, "the XGBoost model has no features");
    m->groups = MAX(MAX(m->info.classes, m->targets), 1u);
    TRY(base_scores_read(param, m, a, e));
    TRY(names_read(learner, m, a, e));
    return trees_read(json_get(learner, S("gradient_booster")), m, a, e);
}

/* An object of the binary form opens with a key, whose length has a letter; that of JSON, after
 * blanks, with a quote or its end. */
static bool is_ubjson(str model)
{
    return model.n >= 2 && model.p[0] == '{' && model.p[1] && strchr("iUIlL$#", model.p[1]);
}

bool xgb_model_is(str bytes)
{
    return is_ubjson(bytes) || str_starts(str_trim(str_take(bytes, 512)), S("{"));
}

int xgb_model_read(str model, struct arena *a, struct xgb_model *ret_model, struct err *e)
{
    struct xgb_model m = {.groups = 1};
    struct json *root;

    if (model.n > XGB_MODEL_BYTES_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED, "the XGBoost model is larger than %zu MiB",
                    XGB_MODEL_BYTES_MAX >> 20);
    if (is_ubjson(model))
        TRY(ubjson_parse(model, a, &root, e));
    else
        TRY(json_parse(model, a, &root, e));
    if (!json_get(root, S("learner")))
        return FAIL(e, INVALID_ARGUMENT,
                    "the file is no XGBoost model: it has no 'learner'; save it "
                    "with save_model('model.json')");
    TRY(learner_read(json_get(root, S("learner")), &m, a, e));
    if (a->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the model is too large for the memory allowed");
    *ret_model = m;
    return 0;
}

int xgb_margin(float base_score, enum xgb_link link, double *ret_margin, struct err *e)
{
    float margin = base_score;

    if (link == XGB_LINK_LOGIT) {
        if (!(base_score > 0 && base_score < 1))
            return FAIL(e, INVALID_ARGUMENT,
                        "base_score is %g; a logistic objective needs it between 0 and 1",
                        (double)base_score);
        margin = -logf(1.0f / base_score - 1.0f);
    } else if (link == XGB_LINK_LOG) {
        margin = logf(base_score);
    }
    if (!isfinite(margin))
        return FAIL(e, INVALID_ARGUMENT, "base_score %g has no place in this objective",
                    (double)base_score);
    *ret_margin = (double)margin;
    return 0;
}
