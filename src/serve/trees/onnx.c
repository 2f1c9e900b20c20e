/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ONNX graphs that are one tree ensemble: TreeEnsembleClassifier and TreeEnsembleRegressor of
 * ai.onnx.ml 1 and 3, and TreeEnsemble of version 5, whose node eats the graph's input. Behind it
 * may stand only what changes nothing: Identity, and a Cast of integer labels to INT64.
 *
 * The reference is ONNX Runtime, also where the specification is vague. Sums are of the type of the
 * input and base values come last. A classifier of two classes whose leaves all speak of class 0
 * has one sum: it is a probability (judged by 0.5) when no leaf is negative, else a margin (judged
 * by 0). What is odd there, and what nobody's converter writes, is not copied but left to ONNX
 * Runtime: the reader says "not a lone tree ensemble", FAILED_PRECONDITION, and the caller goes
 * there.
 *
 * The file's tests become two, < and <=: > and >= are those with exchanged branches.
 */
#include "serve/trees/onnx_graph.h"
#include "serve/trees/priv.h"

#include <math.h>
#include <stdlib.h>

enum mode { LEQ, LT, GTE, GT, EQ, NEQ, MEMBER, LEAF, MODE_COUNT };
static const char *const mode_names[MODE_COUNT] = {
    "BRANCH_LEQ", "BRANCH_LT",  "BRANCH_GTE",    "BRANCH_GT",
    "BRANCH_EQ",  "BRANCH_NEQ", "BRANCH_MEMBER", "LEAF",
};
static const struct {
    enum trees_test test;
    bool exchanged;
} modes[LEAF] = {
    [LEQ] = {TREES_LE, false},       [LT] = {TREES_LT, false},    [GTE] = {TREES_LT, true},
    [GT] = {TREES_LE, true},         [EQ] = {TREES_EXACT, false}, [NEQ] = {TREES_EXACT, true},
    [MEMBER] = {TREES_EXACT, false},
};

enum post { POST_NONE, POST_SOFTMAX, POST_LOGISTIC, POST_SOFTMAX_ZERO, POST_PROBIT, POST_COUNT };
static const char *const post_names[POST_COUNT] = {"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO",
                                                   "PROBIT"};
static const enum trees_transform post_transforms[POST_COUNT] = {
    TREES_IDENTITY, TREES_ONNX_SOFTMAX, TREES_ONNX_LOGISTIC, TREES_ONNX_SOFTMAX_ZERO,
    TREES_ONNX_PROBIT};

struct reader {
    const struct onnx_node *node;
    const struct onnx_attr *attrs;
    uint32_t attr_count;
    struct trees_model *m;
    struct arena *a;
    bool classifier;
    /* Nodes as the file lists them. */
    uint32_t count;
    const int64_t *tree, *id, *feature, *if_true, *if_false, *missing_true;
    const double *value;
    uint8_t *mode;
    uint32_t *place; /* number among the nodes, or among the leaves, of its tree */
    /* Leaves' weights. */
    uint32_t weight_count;
    const int64_t *weight_tree, *weight_node, *weight_group;
    const double *weight;
    /* Of each tree: its nodes in the file, and by rising id. */
    uint32_t *by_id;
};

static int left_to_runtime(const char *what, struct err *e)
{
    return FAIL(e, FAILED_PRECONDITION, "not a lone tree ensemble that is computed here: %s", what);
}

static int broken(const char *what, struct err *e)
{
    return FAIL(e, INVALID_ARGUMENT, "the tree ensemble of the ONNX model is broken: %s", what);
}

static const struct onnx_attr *attr(const struct reader *r, const char *name)
{
    return onnx_attr_get(r->attrs, r->attr_count, name);
}

/* Reals as floats, or as a tensor under another name. */
static const struct onnx_attr *attr_reals(const struct reader *r, const char *name,
                                          const char *as_tensor)
{
    const struct onnx_attr *found = attr(r, name);

    return found->real_count ? found : attr(r, as_tensor);
}

static int name_find(str name, const char *const *names, uint32_t n, uint8_t *ret, struct err *e)
{
    for (uint32_t i = 0; i < n; i++)
        if (str_eqz(name, names[i])) {
            *ret = (uint8_t)i;
            return 0;
        }
    return broken("an unknown mode or post_transform", e);
}

/* --- Answers ---------------------------------------------------------------------------------- */

/* Two classes, whose sum is one: see above. */
static int binary_settle(struct reader *r, enum post post, uint32_t base_count, struct err *e)
{
    bool negative = false;

    if (base_count > 1 || post == POST_PROBIT)
        return left_to_runtime("two classes with a base each, or a probit", e);
    for (uint32_t i = 0; i < r->weight_count; i++) {
        if (r->weight_group[i] != 0)
            return left_to_runtime("two classes, each with its own leaves", e);
        negative |= r->weight[i] < 0;
    }
    r->m->groups = 1;
    if (post == POST_LOGISTIC)
        r->m->transform = negative ? TREES_ONNX_BINARY : TREES_ONNX_BINARY_HALF;
    else
        r->m->transform = negative ? TREES_ONNX_MIRROR : TREES_ONNX_COMPLEMENT;
    return 0;
}

static int base_read(struct reader *r, const struct onnx_attr *base, struct err *e)
{
    struct trees_model *m = r->m;

    if (base->real_count && base->real_count != m->groups)
        return left_to_runtime("base values that are not one for each sum", e);
    m->base = ARENA_ARRAY(r->a, double, m->groups);
    if (!m->base)
        return trees_no_memory(e);
    for (uint32_t i = 0; i < base->real_count; i++)
        m->base[i] = base->reals[i];
    m->base_last = true;
    m->base_score = m->base[0];
    return 0;
}

static int labels_read(struct reader *r, uint32_t classes, struct err *e)
{
    const struct onnx_attr *ints = attr(r, "classlabels_int64s");
    const struct onnx_attr *texts = attr(r, "classlabels_strings");
    struct trees_model *m = r->m;

    if (ints->int_count) {
        int64_t *labels = ARENA_ARRAY(r->a, int64_t, classes);

        if (!labels)
            return trees_no_memory(e);
        memcpy(labels, ints->ints, classes * sizeof(*labels));
        m->labels = labels;
    } else {
        str *labels = ARENA_ARRAY(r->a, str, classes);

        for (uint32_t i = 0; labels && i < classes; i++)
            labels[i] = arena_dup(r->a, texts->strs[i]);
        if (!labels)
            return trees_no_memory(e);
        m->label_texts = labels;
    }
    m->classifier = true;
    m->outputs = classes;
    return 0;
}

static int classes_read(struct reader *r, enum post post, struct err *e)
{
    uint32_t ints = attr(r, "classlabels_int64s")->int_count;
    uint32_t texts = attr(r, "classlabels_strings")->str_count;
    const struct onnx_attr *base = attr_reals(r, "base_values", "base_values_as_tensor");
    uint32_t classes = MAX(ints, texts);

    if ((ints && texts) || classes > TREES_GROUPS_MAX)
        return broken("labels of two kinds, or too many", e);
    if (classes < 2)
        return left_to_runtime("fewer than two classes", e);
    r->m->groups = classes;
    r->m->transform = post_transforms[post];
    if (classes == 2)
        TRY(binary_settle(r, post, base->real_count, e));
    TRY(labels_read(r, classes, e));
    return base_read(r, base, e);
}

static int targets_read(struct reader *r, enum post post, int64_t targets, struct err *e)
{
    struct trees_model *m = r->m;

    if (targets < 1 || targets > TREES_GROUPS_MAX)
        return broken("n_targets is out of range", e);
    if (targets == 1 && post != POST_NONE)
        return left_to_runtime("one target with a post_transform", e);
    m->groups = m->outputs = (uint32_t)targets;
    m->transform = post_transforms[post];
    if (m->sum == TREES_MIN || m->sum == TREES_MAX)
        for (uint32_t i = 0; i < r->weight_count; i++)
            if (!isfinite(r->weight[i]))
                return left_to_runtime("the least or the largest of infinite leaves", e);
    return base_read(r, attr_reals(r, "base_values", "base_values_as_tensor"), e);
}

/* --- Leaves ----------------------------------------------------------------------------------- */

/* What a leaf says of a group. `scored` notes which groups each row gets a value for. */
struct leaves {
    double *values;
    bool *said; /* like values */
    uint32_t *said_count;
};

static int leaves_init(const struct reader *r, struct trees_tree *t, struct leaves *l,
                       struct err *e)
{
    uint32_t groups = t->vector ? r->m->groups : 1;
    size_t n = (size_t)t->leaf_count * groups;
    double nothing = r->m->sum == TREES_MIN ? INFINITY : r->m->sum == TREES_MAX ? -INFINITY : 0;

    l->values = ARENA_ARRAY(r->a, double, n);
    l->said = ARENA_ARRAY(r->a, bool, n);
    l->said_count = ARENA_ARRAY(r->a, uint32_t, groups);
    if (!l->values || !l->said || !l->said_count)
        return trees_no_memory(e);
    for (size_t i = 0; i < n; i++)
        l->values[i] = nothing;
    t->values = l->values;
    return 0;
}

static int leaf_say(const struct trees_tree *t, uint32_t groups, struct leaves *l, uint32_t leaf,
                    uint32_t group, double value, struct err *e)
{
    size_t at = t->vector ? (size_t)leaf * groups + group : leaf;

    if (l->said[at])
        return left_to_runtime("a leaf with two weights for one target", e);
    l->said[at] = true;
    l->said_count[t->vector ? group : 0]++;
    l->values[at] = value;
    return 0;
}

static void leaves_done(const struct reader *r, const struct trees_tree *t, const struct leaves *l,
                        bool *scored)
{
    for (uint32_t g = 0; g < (t->vector ? r->m->groups : 1); g++)
        if (l->said_count[g] == t->leaf_count)
            scored[t->vector ? g : t->group] = true;
}

/* A group that gets no value from a row's leaves is no candidate for the largest there, and has no
 * base as a target; here it would be 0 and the base. */
static int scored_check(const struct reader *r, const bool *scored, bool base, struct err *e)
{
    for (uint32_t g = 0; g < r->m->groups; g++)
        if (!scored[g] && (r->m->groups == 1 || r->classifier != base))
            return left_to_runtime("leaves without a weight", e);
    return 0;
}

/* --- Nodes ------------------------------------------------------------------------------------ */

static uint32_t set_of_value(struct reader *r, double value)
{
    r->m->sets[r->m->set_count].value = value;
    return r->m->set_count++;
}

static int node_make(struct reader *r, enum mode mode, uint32_t i, int32_t yes, int32_t no,
                     struct trees_node *to, struct err *e)
{
    bool exchanged = modes[mode].exchanged;
    bool missing_true = r->missing_true && r->missing_true[i] == 1;

    if (r->feature[i] < 0 || r->feature[i] >= r->m->features)
        return broken("a node asks for a feature that the input has not", e);
    if (isnan(r->value[i]))
        return left_to_runtime("a node that splits at NaN", e);
    *to = (struct trees_node){.threshold = r->value[i],
                              .left = exchanged ? no : yes,
                              .right = exchanged ? yes : no,
                              .feature = (uint32_t)r->feature[i],
                              .test = (uint8_t)modes[mode].test};
    /* NaN fails every comparison but "not equal". */
    to->missing_left = mode == NEQ ? false : missing_true != exchanged;
    if (to->test == TREES_EXACT && mode != MEMBER)
        to->set = set_of_value(r, r->value[i]);
    return 0;
}

/* --- Versions 1 and 3 ------------------------------------------------------------------------- */

static int id_compare(const void *pa, const void *pb, void *ids)
{
    int64_t a = ((const int64_t *)ids)[*(const uint32_t *)pa];
    int64_t b = ((const int64_t *)ids)[*(const uint32_t *)pb];

    return a < b ? -1 : a > b;
}

/* The nodes of one tree: from..to of the file's list. */
struct range {
    int64_t tree;
    uint32_t from, to;
};

/* UINT32_MAX: no node has that id. */
static uint32_t node_find(const struct reader *r, const struct range *range, int64_t id)
{
    uint32_t low = range->from, high = range->to;

    if (id >= 0 && id < high - low && r->id[low + (uint32_t)id] == id)
        return low + (uint32_t)id;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (r->id[r->by_id[middle]] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < range->to && r->id[r->by_id[low]] == id ? r->by_id[low] : UINT32_MAX;
}

static int nodes_index(struct reader *r, const struct range *range, struct err *e)
{
    for (uint32_t i = range->from; i < range->to; i++)
        r->by_id[i] = i;
    qsort_r(r->by_id + range->from, range->to - range->from, sizeof(*r->by_id), id_compare,
            (void *)(uintptr_t)r->id);
    for (uint32_t i = range->from + 1; i < range->to; i++)
        if (r->id[r->by_id[i]] == r->id[r->by_id[i - 1]])
            return broken("two nodes of a tree have one id", e);
    return 0;
}

static int32_t child_of(const struct reader *r, uint32_t node)
{
    return r->mode[node] == LEAF ? -1 - (int32_t)r->place[node] : (int32_t)r->place[node];
}

static int tree_make(struct reader *r, const struct range *range, struct trees_tree *t,
                     struct err *e)
{
    uint32_t root = range->from;

    TRY(nodes_index(r, range, e));
    for (uint32_t i = range->from; i < range->to; i++)
        r->place[i] = r->mode[i] == LEAF ? t->leaf_count++ : t->node_count++;
    if (r->mode[root] == LEAF && range->to - range->from > 1)
        return left_to_runtime("a tree whose first node is not its root", e);
    t->nodes = ARENA_ARRAY(r->a, struct trees_node, t->node_count);
    if (t->node_count && !t->nodes)
        return trees_no_memory(e);
    for (uint32_t i = range->from; i < range->to; i++) {
        uint32_t yes, no;

        if (r->mode[i] == LEAF)
            continue;
        if (r->mode[i] == MEMBER)
            return broken("BRANCH_MEMBER is of version 5", e);
        yes = node_find(r, range, r->if_true[i]);
        no = node_find(r, range, r->if_false[i]);
        if (yes == UINT32_MAX || no == UINT32_MAX || yes == no)
            return broken("a node has a child that does not exist, or one twice", e);
        if (yes == root || no == root)
            return left_to_runtime("a tree whose first node is not its root", e);
        TRY(node_make(r, (enum mode)r->mode[i], i, child_of(r, yes), child_of(r, no),
                      &t->nodes[r->place[i]], e));
    }
    return 0;
}

static int ranges_make(struct reader *r, struct range **ret_ranges, uint32_t *ret_count,
                       struct err *e)
{
    struct range *ranges = ARENA_ARRAY(r->a, struct range, r->count);
    uint32_t n = 0;

    if (!ranges)
        return trees_no_memory(e);
    for (uint32_t i = 0; i < r->count; i++) {
        if (n && ranges[n - 1].tree == r->tree[i]) {
            ranges[n - 1].to = i + 1;
            continue;
        }
        if (n && ranges[n - 1].tree > r->tree[i])
            return left_to_runtime("trees that are not listed one after the other", e);
        ranges[n++] = (struct range){r->tree[i], i, i + 1};
    }
    *ret_ranges = ranges;
    *ret_count = n;
    return 0;
}

static int range_compare(const void *key, const void *item)
{
    int64_t tree = *(const int64_t *)key;
    const struct range *range = item;

    return tree < range->tree ? -1 : tree > range->tree;
}

/* Each weight twice: to learn what the leaves of its tree look like, then to put it down. */
static int weights_place(struct reader *r, const struct range *ranges, struct leaves *leaves,
                         bool *known, struct err *e)
{
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t t = 0; pass && t < r->m->tree_count; t++)
            TRY(leaves_init(r, &r->m->trees[t], &leaves[t], e));
        for (uint32_t i = 0; i < r->weight_count; i++) {
            const struct range *range = bsearch(&r->weight_tree[i], ranges, r->m->tree_count,
                                                sizeof(*ranges), range_compare);
            uint32_t node = range ? node_find(r, range, r->weight_node[i]) : UINT32_MAX;
            uint32_t group = (uint32_t)r->weight_group[i], t;

            if (node == UINT32_MAX || r->mode[node] != LEAF || r->weight_group[i] < 0 ||
                r->weight_group[i] >= r->m->groups)
                return broken("a weight belongs to no leaf or to no target", e);
            t = (uint32_t)(range - ranges);
            if (pass) {
                TRY(leaf_say(&r->m->trees[t], r->m->groups, &leaves[t], r->place[node], group,
                             r->weight[i], e));
                continue;
            }
            r->m->trees[t].vector |= known[t] && r->m->trees[t].group != group;
            r->m->trees[t].group = group;
            known[t] = true;
        }
    }
    return 0;
}

static int lists_read(struct reader *r, struct err *e)
{
    const struct onnx_attr *tree = attr(r, "nodes_treeids"), *modes_of = attr(r, "nodes_modes");
    const struct onnx_attr *ids = attr(r, "nodes_nodeids"), *feature = attr(r, "nodes_featureids");
    const struct onnx_attr *yes = attr(r, "nodes_truenodeids"), *no = attr(r, "nodes_falsenodeids");
    const struct onnx_attr *missing = attr(r, "nodes_missing_value_tracks_true");
    const struct onnx_attr *value = attr_reals(r, "nodes_values", "nodes_values_as_tensor");

    r->count = tree->int_count;
    if (!r->count || r->count > TREES_NODES_MAX || ids->int_count != r->count ||
        feature->int_count != r->count || yes->int_count != r->count || no->int_count != r->count ||
        value->real_count != r->count || modes_of->str_count != r->count ||
        (missing->int_count && missing->int_count != r->count))
        return broken("its lists of nodes differ in length, or are empty", e);
    if (value->is_double != r->m->wide)
        return left_to_runtime("thresholds of another type than the input", e);
    r->tree = tree->ints, r->id = ids->ints, r->feature = feature->ints;
    r->if_true = yes->ints, r->if_false = no->ints;
    r->missing_true = missing->ints, r->value = value->reals;
    r->mode = ARENA_ARRAY(r->a, uint8_t, r->count);
    r->place = ARENA_ARRAY(r->a, uint32_t, r->count);
    r->by_id = ARENA_ARRAY(r->a, uint32_t, r->count);
    r->m->sets = ARENA_ARRAY(r->a, struct trees_set, r->count);
    if (!r->mode || !r->place || !r->by_id || !r->m->sets)
        return trees_no_memory(e);
    for (uint32_t i = 0; i < r->count; i++)
        TRY(name_find(modes_of->strs[i], mode_names, MODE_COUNT, &r->mode[i], e));
    return 0;
}

static int weights_read(struct reader *r, struct err *e)
{
    const char *kind = r->classifier ? "class" : "target";
    const struct onnx_attr *tree, *node, *group, *weight;
    char names[5][40];

    for (int i = 0; i < 5; i++) {
        static const char *const parts[5] = {"treeids", "nodeids", "ids", "weights",
                                             "weights_as_tensor"};
        str text = arena_printf(r->a, "%s_%s", kind, parts[i]);

        if (!str_to_z(text, names[i], sizeof(names[i])))
            return trees_no_memory(e);
    }
    tree = attr(r, names[0]), node = attr(r, names[1]), group = attr(r, names[2]);
    weight = attr_reals(r, names[3], names[4]);
    r->weight_count = tree->int_count;
    if (node->int_count != r->weight_count || group->int_count != r->weight_count ||
        weight->real_count != r->weight_count)
        return broken("its lists of weights differ in length", e);
    if (weight->real_count && weight->is_double != r->m->wide)
        return left_to_runtime("weights of another type than the input", e);
    r->weight_tree = tree->ints, r->weight_node = node->ints, r->weight_group = group->ints;
    r->weight = weight->reals;
    return 0;
}

static int aggregate_read(struct reader *r, struct err *e)
{
    static const struct {
        const char *name;
        enum trees_sum sum;
    } known[] = {
        {"AVERAGE", TREES_AVERAGE}, {"SUM", TREES_ADD}, {"MIN", TREES_MIN}, {"MAX", TREES_MAX}};
    str name = attr(r, "aggregate_function")->s;

    r->m->sum = TREES_ADD;
    if (!name.n || r->classifier)
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (str_eqz(name, known[i].name)) {
            r->m->sum = known[i].sum;
            return 0;
        }
    return broken("an unknown aggregate_function", e);
}

static int ensemble_read(struct reader *r, struct err *e)
{
    str post_name = attr(r, "post_transform")->s;
    struct range *ranges = NULL;
    struct leaves *leaves;
    uint8_t post = POST_NONE;
    bool *known, *scored, base;

    if (post_name.n)
        TRY(name_find(post_name, post_names, POST_COUNT, &post, e));
    TRY(lists_read(r, e));
    TRY(weights_read(r, e));
    TRY(aggregate_read(r, e));
    TRY(r->classifier ? classes_read(r, (enum post)post, e)
                      : targets_read(r, (enum post)post, attr(r, "n_targets")->i, e));
    TRY(ranges_make(r, &ranges, &r->m->tree_count, e));
    r->m->trees = ARENA_ARRAY(r->a, struct trees_tree, r->m->tree_count);
    leaves = ARENA_ARRAY(r->a, struct leaves, r->m->tree_count);
    known = ARENA_ARRAY(r->a, bool, r->m->tree_count);
    scored = ARENA_ARRAY(r->a, bool, r->m->groups);
    if (!r->m->trees || !leaves || !known || !scored)
        return trees_no_memory(e);
    for (uint32_t t = 0; t < r->m->tree_count; t++)
        if (tree_make(r, &ranges[t], &r->m->trees[t], e))
            return err_context(e, "tree %u", t);
    TRY(weights_place(r, ranges, leaves, known, e));
    for (uint32_t t = 0; t < r->m->tree_count; t++) {
        TRY(trees_tree_check(r->m, &r->m->trees[t], t, r->a, e));
        leaves_done(r, &r->m->trees[t], &leaves[t], scored);
        if (r->m->groups == 1 && leaves[t].said_count[0] != r->m->trees[t].leaf_count)
            return left_to_runtime("leaves without a weight", e);
    }
    base = attr_reals(r, "base_values", "base_values_as_tensor")->real_count;
    return scored_check(r, scored, base, e);
}

/* --- Version 5 -------------------------------------------------------------------------------- */

struct v5 {
    const struct onnx_attr *feature, *split, *mode, *yes, *no, *yes_leaf, *no_leaf, *missing;
    const struct onnx_attr *leaf_target, *leaf_weight, *roots, *member;
    uint32_t *member_from; /* per node: where its members start in the list; they end at a NaN */
    uint32_t *place, *leaf_place;
};

static int v5_lists(struct reader *r, struct v5 *v, struct err *e)
{
    v->feature = attr(r, "nodes_featureids"), v->split = attr(r, "nodes_splits");
    v->mode = attr(r, "nodes_modes"), v->roots = attr(r, "tree_roots");
    v->yes = attr(r, "nodes_truenodeids"), v->yes_leaf = attr(r, "nodes_trueleafs");
    v->no = attr(r, "nodes_falsenodeids"), v->no_leaf = attr(r, "nodes_falseleafs");
    v->missing = attr(r, "nodes_missing_value_tracks_true");
    v->leaf_target = attr(r, "leaf_targetids"), v->leaf_weight = attr(r, "leaf_weights");
    v->member = attr(r, "membership_values");
    r->count = v->feature->int_count;
    if (!r->count || r->count > TREES_NODES_MAX || v->split->real_count != r->count ||
        v->mode->int_count != r->count || v->yes->int_count != r->count ||
        v->no->int_count != r->count || v->yes_leaf->int_count != r->count ||
        v->no_leaf->int_count != r->count || !v->roots->int_count ||
        v->leaf_target->int_count != v->leaf_weight->real_count || !v->leaf_weight->real_count ||
        (v->missing->int_count && v->missing->int_count != r->count))
        return broken("its lists differ in length, or are empty", e);
    if (v->split->is_double != r->m->wide || v->leaf_weight->is_double != r->m->wide ||
        (v->member->real_count && v->member->is_double != r->m->wide))
        return left_to_runtime("numbers of another type than the input", e);
    r->feature = v->feature->ints, r->missing_true = v->missing->ints;
    r->value = v->split->reals;
    v->member_from = ARENA_ARRAY(r->a, uint32_t, r->count);
    v->place = ARENA_ARRAY(r->a, uint32_t, r->count);
    v->leaf_place = ARENA_ARRAY(r->a, uint32_t, v->leaf_weight->real_count);
    r->m->sets = ARENA_ARRAY(r->a, struct trees_set, r->count);
    if (!v->member_from || !v->place || !v->leaf_place || !r->m->sets)
        return trees_no_memory(e);
    return 0;
}

/* Members of one node after the other, each list closed by a NaN. */
static int v5_members(struct reader *r, struct v5 *v, struct err *e)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < r->count; i++) {
        if (v->mode->ints[i] < 0 || v->mode->ints[i] > MEMBER)
            return broken("an unknown mode", e);
        if (v->mode->ints[i] != MEMBER)
            continue;
        v->member_from[i] = at;
        while (at < v->member->real_count && !isnan(v->member->reals[at]))
            at++;
        if (at == v->member->real_count)
            return broken("membership_values end too early", e);
        at++;
    }
    return 0;
}

/* One member is a comparison. Several are asked by the whole part of x there, and not always so. */
static int v5_set(struct reader *r, const struct v5 *v, uint32_t i, uint32_t *ret_set,
                  struct err *e)
{
    const double *from = v->member->reals + v->member_from[i];

    if (isnan(from[0]) || !isnan(from[1]))
        return left_to_runtime("a set that has not one member", e);
    *ret_set = set_of_value(r, from[0]);
    return 0;
}

/* Numbers the tree's nodes in the order of a walk by levels and its leaves as they are met; `list`
 * holds first the nodes, and `leaves` the leaves. */
static int v5_walk(struct reader *r, struct v5 *v, uint32_t root, struct trees_tree *t,
                   uint32_t *list, uint32_t *leaves, uint32_t *left_over, struct err *e)
{
    list[t->node_count++] = root;
    for (uint32_t at = 0; at < t->node_count; at++) {
        uint32_t i = list[at];
        const struct onnx_attr *child[2] = {v->yes, v->no}, *is_leaf[2] = {v->yes_leaf, v->no_leaf};

        v->place[i] = at;
        for (int side = 0; side < 2; side++) {
            int64_t to = child[side]->ints[i];
            bool leaf = is_leaf[side]->ints[i];

            if (to < 0 || to >= (leaf ? v->leaf_weight->real_count : r->count))
                return broken("a node has a child that does not exist", e);
            if (leaf && (!t->leaf_count || leaves[t->leaf_count - 1] != (uint32_t)to)) {
                v->leaf_place[to] = t->leaf_count;
                leaves[t->leaf_count++] = (uint32_t)to;
            } else if (!leaf) {
                if (!(*left_over)--)
                    return broken("a node has two parents", e);
                list[t->node_count++] = (uint32_t)to;
            }
            if (t->leaf_count > r->count + (uint64_t)1)
                return broken("a tree has more leaves than nodes allow", e);
        }
    }
    return 0;
}

static int v5_tree(struct reader *r, struct v5 *v, struct trees_tree *t, const uint32_t *list,
                   const uint32_t *leaves, bool *scored, struct err *e)
{
    struct leaves said;
    int64_t first = v->leaf_target->ints[leaves[0]];

    for (uint32_t i = 0; i < t->leaf_count; i++) {
        int64_t target = v->leaf_target->ints[leaves[i]];

        if (target < 0 || target >= r->m->groups)
            return broken("a leaf belongs to no target", e);
        t->vector |= target != first;
    }
    t->group = (uint32_t)first;
    t->nodes = ARENA_ARRAY(r->a, struct trees_node, t->node_count);
    if (!t->nodes)
        return trees_no_memory(e);
    for (uint32_t at = 0; at < t->node_count; at++) {
        uint32_t i = list[at], yes = (uint32_t)v->yes->ints[i], no = (uint32_t)v->no->ints[i];
        enum mode mode = (enum mode)v->mode->ints[i];

        TRY(node_make(r, mode, i,
                      v->yes_leaf->ints[i] ? -1 - (int32_t)v->leaf_place[yes]
                                           : (int32_t)v->place[yes],
                      v->no_leaf->ints[i] ? -1 - (int32_t)v->leaf_place[no] : (int32_t)v->place[no],
                      &t->nodes[at], e));
        if (mode == MEMBER)
            TRY(v5_set(r, v, i, &t->nodes[at].set, e));
    }
    TRY(leaves_init(r, t, &said, e));
    for (uint32_t i = 0; i < t->leaf_count; i++)
        TRY(leaf_say(t, r->m->groups, &said, i, (uint32_t)v->leaf_target->ints[leaves[i]],
                     v->leaf_weight->reals[leaves[i]], e));
    leaves_done(r, t, &said, scored);
    return 0;
}

static int v5_read(struct reader *r, struct err *e)
{
    static const enum trees_sum sums[] = {TREES_AVERAGE, TREES_ADD, TREES_MIN, TREES_MAX};
    const struct onnx_attr *sum = attr(r, "aggregate_function"), *post = attr(r, "post_transform");
    struct v5 v = {.feature = NULL};
    uint32_t left_over, *list, *leaves;
    bool *scored;

    r->m->sum = TREES_ADD;
    if (sum->name.n && (sum->i < 0 || sum->i >= (int64_t)ARRAY_LEN(sums)))
        return broken("an unknown aggregate_function", e);
    if (sum->name.n)
        r->m->sum = sums[sum->i];
    if (post->i < 0 || post->i >= POST_COUNT)
        return broken("an unknown post_transform", e);
    if (post->i == POST_SOFTMAX || post->i == POST_LOGISTIC)
        return left_to_runtime("softmax or logistic, which change places there", e);
    TRY(v5_lists(r, &v, e));
    TRY(v5_members(r, &v, e));
    r->weight = v.leaf_weight->reals, r->weight_count = v.leaf_weight->real_count;
    TRY(targets_read(r, (enum post)post->i,
                     attr(r, "n_targets")->name.n ? attr(r, "n_targets")->i : 1, e));
    r->m->tree_count = v.roots->int_count;
    if (r->m->tree_count > r->count)
        return broken("it has more trees than nodes", e);
    r->m->trees = ARENA_ARRAY(r->a, struct trees_tree, r->m->tree_count);
    list = ARENA_ARRAY(r->a, uint32_t, r->count);
    leaves = ARENA_ARRAY(r->a, uint32_t, r->count + (size_t)2);
    scored = ARENA_ARRAY(r->a, bool, r->m->groups);
    if (!r->m->trees || !list || !leaves || !scored)
        return trees_no_memory(e);
    left_over = r->count - r->m->tree_count;
    for (uint32_t t = 0; t < r->m->tree_count; t++) {
        int64_t root = v.roots->ints[t];

        if (root < 0 || root >= r->count)
            return broken("a root is no node", e);
        TRY(v5_walk(r, &v, (uint32_t)root, &r->m->trees[t], list, leaves, &left_over, e));
        TRY(v5_tree(r, &v, &r->m->trees[t], list, leaves, scored, e));
        TRY(trees_tree_check(r->m, &r->m->trees[t], t, r->a, e));
    }
    return scored_check(r, scored, false, e);
}

/* --- The graph -------------------------------------------------------------------------------- */

static const struct onnx_value *output_find(const struct onnx_graph *g, str name)
{
    for (uint32_t i = 0; i < g->output_count; i++)
        if (str_eq(g->outputs[i].name, name))
            return &g->outputs[i];
    return NULL;
}

/* The name under which the graph gives what the tree node calls `name`: itself, or through nodes
 * that change nothing. */
static int output_follow(const struct onnx_graph *g, struct arena *a, str *name, uint32_t *ret_used,
                         struct err *e)
{
    for (uint32_t i = 0; i < g->node_count; i++) {
        const struct onnx_node *n = &g->nodes[i];
        struct onnx_attr *attrs = NULL;
        uint32_t count = 0;

        if (n->input_count != 1 || !str_eq(n->inputs[0], *name) || n->domain.n)
            continue;
        if (str_eq(n->op, S("Cast"))) {
            TRY(onnx_attrs_read(n, a, &attrs, &count, e));
            if (onnx_attr_get(attrs, count, "to")->i != ONNX_ELEM_INT64)
                return left_to_runtime("a cast of its output", e);
        } else if (!str_eq(n->op, S("Identity"))) {
            return left_to_runtime("other nodes behind it", e);
        }
        *name = n->outputs[0];
        (*ret_used)++;
        i = UINT32_MAX; /* once more from the start: nodes may stand in any order */
        if (*ret_used > g->node_count)
            return broken("its nodes form a ring", e);
    }
    return 0;
}

static int outputs_read(const struct onnx_graph *g, struct reader *r, struct err *e)
{
    str scores = r->node->outputs[r->classifier], label = r->node->outputs[0];
    uint32_t used = 0;

    if (r->classifier && r->m->labels)
        TRY(output_follow(g, r->a, &label, &used, e));
    TRY(output_follow(g, r->a, &scores, &used, e));
    if (used + 1 != g->node_count || g->output_count != 1 + (uint32_t)r->classifier ||
        !output_find(g, scores) || (r->classifier && !str_eq(g->outputs[0].name, label)))
        return left_to_runtime("outputs that are not its own, in its order", e);
    r->m->label_name = arena_dup(r->a, label);
    r->m->output_name = arena_dup(r->a, scores);
    return 0;
}

static int input_read(const struct onnx_graph *g, struct reader *r, struct err *e)
{
    const struct onnx_value *in = &g->input;

    if (r->node->input_count != 1 || !str_eq(r->node->inputs[0], in->name))
        return left_to_runtime("it does not eat the graph's input", e);
    if ((in->elem != ONNX_ELEM_FLOAT && in->elem != ONNX_ELEM_DOUBLE) || in->rank != 2 ||
        in->dims[0] != -1 || in->dims[1] < 1 || in->dims[1] > TREES_FEATURES_MAX)
        return left_to_runtime("its input is not rows of a fixed number of floats", e);
    r->m->features = (uint32_t)in->dims[1];
    r->m->wide = r->m->wide_sum = in->elem == ONNX_ELEM_DOUBLE;
    r->m->input_name = arena_dup(r->a, in->name);
    return 0;
}

int trees_onnx_read(str bytes, struct arena *a, struct trees_model *m, struct err *e)
{
    struct reader r = {.m = m, .a = a};
    struct onnx_attr *attrs = NULL;
    struct onnx_graph g;
    bool v5 = false;

    m->format = S("onnx");
    TRY(onnx_graph_read(bytes, &g, e));
    for (uint32_t i = 0; i < g.node_count && !r.node; i++) {
        v5 = str_eq(g.nodes[i].op, S("TreeEnsemble"));
        r.classifier = str_eq(g.nodes[i].op, S("TreeEnsembleClassifier"));
        if (str_eq(g.nodes[i].domain, S("ai.onnx.ml")) &&
            (v5 || r.classifier || str_eq(g.nodes[i].op, S("TreeEnsembleRegressor"))))
            r.node = &g.nodes[i];
    }
    if (!r.node || r.node->output_count != 1 + (uint32_t)r.classifier)
        return left_to_runtime("no node of trees, or one without all of its outputs", e);
    TRY(input_read(&g, &r, e));
    TRY(onnx_attrs_read(r.node, a, &attrs, &r.attr_count, e));
    r.attrs = attrs;
    m->wide_answer = v5 && m->wide;
    TRY(v5 ? v5_read(&r, e) : ensemble_read(&r, e));
    m->divisor = m->tree_count;
    return outputs_read(&g, &r, e);
}
