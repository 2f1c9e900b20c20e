/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LightGBM models, in the text form of save_model (versions v2 to v4), as tree ensembles of ours.
 *
 * The file is lines of key=value: a head, then a block "Tree=N" for each tree, up to "end of
 * trees". Nodes and leaves are numbered apart; a child below zero is leaf -1 - child. A node's
 * decision_type says whether it is categorical (bit 0), where a missing value goes (bit 1: left)
 * and what counts as missing (bits 2 and 3): nothing, so that NaN is 0; zero, i.e. |x| <= 1e-35,
 * and NaN; or NaN. LightGBM goes left when x <= threshold, in double, and sums leaves in double.
 *
 * What counts as missing belongs to the feature there, so "zero" is one flag per feature here, put
 * into effect before any test. "Nothing" is settled now: where NaN goes is where 0 goes.
 *
 * Rows are FP32 unless that would lose something: when two thresholds of a feature are one as
 * floats, or one is beyond 2^24, where floats step by more than 1, rows are FP64 ("wide").
 *
 * Trees of one iteration belong to the classes in turn. Linear leaves are refused.
 */
#include "serve/trees/priv.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

#define CATEGORICAL 1
#define DEFAULT_LEFT 2
#define MISSING_SHIFT 2
enum missing { MISSING_NONE, MISSING_ZERO, MISSING_NAN };

#define FLOAT_WHOLE_MAX 16777216.0 /* 2^24: the floats above step by 2 */
#define FINITE_MAX 1e300           /* LightGBM writes infinity as 1e308 */

enum shape { SHAPE_VALUE, SHAPE_BINARY, SHAPE_MULTI };
static const struct {
    str name;
    enum shape shape;
    enum trees_transform transform;
} objectives[] = {
    {S_INIT("regression"), SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("regression_l1"), SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("huber"), SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("fair"), SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("quantile"), SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("mape"), SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("poisson"), SHAPE_VALUE, TREES_LGB_EXP},
    {S_INIT("gamma"), SHAPE_VALUE, TREES_LGB_EXP},
    {S_INIT("tweedie"), SHAPE_VALUE, TREES_LGB_EXP},
    {S_INIT("binary"), SHAPE_BINARY, TREES_LGB_BINARY},
    {S_INIT("multiclass"), SHAPE_MULTI, TREES_LGB_SOFTMAX},
    {S_INIT("multiclassova"), SHAPE_MULTI, TREES_LGB_SIGMOID},
    {S_INIT("cross_entropy"), SHAPE_VALUE, TREES_LGB_SIGMOID},
    {S_INIT("cross_entropy_lambda"), SHAPE_VALUE, TREES_LGB_LOG1P_EXP},
    {S_INIT("lambdarank"), SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("rank_xendcg"), SHAPE_VALUE, TREES_IDENTITY},
    {S_INIT("custom"), SHAPE_VALUE, TREES_IDENTITY},
};

/* The lines of a tree, as far as they matter. */
enum key {
    NUM_LEAVES,
    NUM_CAT,
    SPLIT_FEATURE,
    THRESHOLD,
    DECISION_TYPE,
    LEFT_CHILD,
    RIGHT_CHILD,
    LEAF_VALUE,
    CAT_BOUNDARIES,
    CAT_THRESHOLD,
    IS_LINEAR,
    KEY_COUNT,
};
static const str keys[KEY_COUNT] = {
    S_INIT("num_leaves"),    S_INIT("num_cat"),       S_INIT("split_feature"),
    S_INIT("threshold"),     S_INIT("decision_type"), S_INIT("left_child"),
    S_INIT("right_child"),   S_INIT("leaf_value"),    S_INIT("cat_boundaries"),
    S_INIT("cat_threshold"), S_INIT("is_linear"),
};

struct reader {
    str rest; /* lines to come */
    uint32_t line;
    struct arena *a;
    struct trees_model *m;
    uint32_t trees_max, sets_max;
    uint8_t *missing; /* per feature: 1 + enum missing of its numerical nodes; 0: none seen */
    bool *categorical;
};

static bool line_take(struct reader *r, str *ret_line)
{
    if (!r->rest.p)
        return false;
    *ret_line = str_trim(str_cut(&r->rest, '\n'));
    r->line++;
    return true;
}

bool trees_lightgbm_is(str bytes)
{
    str first = str_trim(str_cut(&bytes, '\n'));

    return str_eq(first, S("tree"));
}

static int number_read(str text, const char *what, double *ret, struct err *e)
{
    if (!str_to_f64(str_trim(text), ret))
        return FAIL(e, INVALID_ARGUMENT, "%s is '" STR_F "', expected a number", what,
                    STR_A(str_take(text, 40)));
    return 0;
}

static int count_read(str text, const char *what, uint32_t min, uint32_t max, uint32_t *ret,
                      struct err *e)
{
    uint64_t v;

    if (!str_to_u64(str_trim(text), &v) || v < min || v > max)
        return FAIL(e, INVALID_ARGUMENT, "%s is '" STR_F "', expected %u to %u", what,
                    STR_A(str_take(text, 40)), min, max);
    *ret = (uint32_t)v;
    return 0;
}

/* Thresholds may be infinite. */
static bool real_read(str text, double *ret)
{
    bool minus = str_eq(text, S("-inf"));

    if (!minus && !str_eq(text, S("inf")))
        return str_to_f64(text, ret);
    *ret = minus ? -INFINITY : INFINITY;
    return true;
}

/* Exactly n numbers, separated by blanks. */
static int list_read(struct reader *r, const str *lines, enum key key, uint32_t n,
                     double **ret_list, struct err *e)
{
    double *list = ARENA_ARRAY(r->a, double, n + (size_t)1);
    str rest = lines[key];
    uint32_t i = 0;

    if (!list)
        return trees_no_memory(e);
    while (rest.p) {
        str item = str_cut(&rest, ' ');

        if (!item.n)
            continue;
        if (i == n || !real_read(item, &list[i]))
            return FAIL(e, INVALID_ARGUMENT, STR_F " is not a list of %u numbers", STR_A(keys[key]),
                        n);
        i++;
    }
    if (i != n)
        return FAIL(e, INVALID_ARGUMENT, STR_F " has %u numbers, expected %u", STR_A(keys[key]), i,
                    n);
    *ret_list = list;
    return 0;
}

static bool is_whole(double v, double min, double max)
{
    return v >= min && v <= max && v == floor(v);
}

static int sets_read(struct reader *r, const str *lines, uint32_t *ret_count, struct err *e)
{
    double *bounds = NULL, *words = NULL;
    uint32_t total;

    *ret_count = 0;
    if (lines[NUM_CAT].n)
        TRY(count_read(lines[NUM_CAT], "num_cat", 0, TREES_NODES_MAX, ret_count, e));
    if (!*ret_count)
        return 0;
    if (*ret_count > lines[CAT_BOUNDARIES].n || *ret_count > r->sets_max - r->m->set_count)
        return FAIL(e, INVALID_ARGUMENT, "num_cat is %u, more than there are", *ret_count);
    TRY(list_read(r, lines, CAT_BOUNDARIES, *ret_count + 1, &bounds, e));
    for (uint32_t i = 0; i <= *ret_count; i++)
        if (!is_whole(bounds[i], i ? bounds[i - 1] : 0, TREES_NODES_MAX))
            return FAIL(e, INVALID_ARGUMENT, "cat_boundaries do not rise");
    total = (uint32_t)bounds[*ret_count];
    if (bounds[0] != 0 || total > lines[CAT_THRESHOLD].n)
        return FAIL(e, INVALID_ARGUMENT, "cat_boundaries do not fit cat_threshold");
    TRY(list_read(r, lines, CAT_THRESHOLD, total, &words, e));
    for (uint32_t i = 0; i < *ret_count; i++) {
        struct trees_set *set = &r->m->sets[r->m->set_count + i];
        uint32_t from = (uint32_t)bounds[i], n = (uint32_t)bounds[i + 1] - from;
        uint32_t *to = ARENA_ARRAY(r->a, uint32_t, n + 1);

        if (!to)
            return trees_no_memory(e);
        for (uint32_t w = 0; w < n; w++) {
            if (!is_whole(words[from + w], 0, UINT32_MAX))
                return FAIL(e, INVALID_ARGUMENT, "cat_threshold holds no bits");
            to[w] = (uint32_t)words[from + w];
        }
        set->words = to;
        set->word_count = n;
    }
    return 0;
}

/* What is within 1e-35 of zero is zero before any test; so such a threshold is moved to where it
 * splits the same without that. */
static double threshold_settle(double t)
{
    if (t >= 0 && t < (double)TREES_ZERO_MAX)
        return (double)TREES_ZERO_MAX;
    return t < 0 && t >= -(double)TREES_ZERO_MAX ? nextafter(-(double)TREES_ZERO_MAX, -INFINITY)
                                                 : t;
}

static int missing_note(struct reader *r, struct trees_node *n, enum missing missing, struct err *e)
{
    uint8_t *seen = &r->missing[n->feature];

    if (*seen && *seen != 1 + (uint8_t)missing)
        return FAIL(e, INVALID_ARGUMENT,
                    "feature %u has missing values of two kinds, which LightGBM never writes",
                    n->feature);
    *seen = 1 + (uint8_t)missing;
    if (missing == MISSING_ZERO)
        r->m->zero_missing[n->feature] = true;
    if (missing == MISSING_NONE)
        n->missing_left = 0 <= n->threshold;
    return 0;
}

static int child_read(double v, uint32_t nodes, uint32_t leaves, int32_t *ret, struct err *e)
{
    if (!is_whole(v, -(double)leaves, (double)nodes - 1))
        return FAIL(e, INVALID_ARGUMENT, "a child is %g, which is neither a node nor a leaf", v);
    *ret = (int32_t)v;
    return 0;
}

static int nodes_read(struct reader *r, const str *lines, struct trees_tree *t, struct err *e)
{
    double *feature = NULL, *threshold = NULL, *type = NULL, *left = NULL, *right = NULL;
    uint32_t sets = 0;

    TRY(sets_read(r, lines, &sets, e));
    TRY(list_read(r, lines, SPLIT_FEATURE, t->node_count, &feature, e));
    TRY(list_read(r, lines, THRESHOLD, t->node_count, &threshold, e));
    TRY(list_read(r, lines, DECISION_TYPE, t->node_count, &type, e));
    TRY(list_read(r, lines, LEFT_CHILD, t->node_count, &left, e));
    TRY(list_read(r, lines, RIGHT_CHILD, t->node_count, &right, e));
    for (uint32_t i = 0; i < t->node_count; i++) {
        struct trees_node *n = &t->nodes[i];
        uint32_t bits;

        if (!is_whole(feature[i], 0, r->m->features - 1) || !is_whole(type[i], 0, 15) ||
            (uint32_t)type[i] >> MISSING_SHIFT > MISSING_NAN)
            return FAIL(e, INVALID_ARGUMENT, "node %u has feature %g and decision_type %g", i,
                        feature[i], type[i]);
        bits = (uint32_t)type[i];
        n->feature = (uint32_t)feature[i];
        n->missing_left = bits & DEFAULT_LEFT;
        TRY(child_read(left[i], t->node_count, t->leaf_count, &n->left, e));
        TRY(child_read(right[i], t->node_count, t->leaf_count, &n->right, e));
        if (bits & CATEGORICAL) {
            if (!is_whole(threshold[i], 0, (double)sets - 1))
                return FAIL(e, INVALID_ARGUMENT,
                            "node %u asks for a set of categories that is "
                            "not there",
                            i);
            n->test = TREES_FLOOR;
            n->set = r->m->set_count + (uint32_t)threshold[i];
            n->missing_left = false;
            r->categorical[n->feature] = true;
        } else {
            n->test = TREES_LE;
            n->threshold = threshold_settle(threshold[i]);
            TRY(missing_note(r, n, (enum missing)(bits >> MISSING_SHIFT), e));
        }
    }
    r->m->set_count += sets;
    return 0;
}

static int tree_make(struct reader *r, const str *lines, struct err *e)
{
    struct trees_tree *t = &r->m->trees[r->m->tree_count];
    double *values = NULL;

    if (lines[IS_LINEAR].n && !str_eq(lines[IS_LINEAR], S("0")))
        return FAIL(e, INVALID_ARGUMENT,
                    "its leaves are linear models (linear_tree), which are not understood; train "
                    "with linear_tree=false");
    TRY(count_read(lines[NUM_LEAVES], "num_leaves", 1, TREES_NODES_MAX, &t->leaf_count, e));
    if (t->leaf_count > lines[LEAF_VALUE].n)
        return FAIL(e, INVALID_ARGUMENT, "num_leaves is %u, and leaf_value has not as many",
                    t->leaf_count);
    t->node_count = t->leaf_count - 1;
    t->group = r->m->tree_count % r->m->groups;
    t->nodes = ARENA_ARRAY(r->a, struct trees_node, t->node_count);
    TRY(list_read(r, lines, LEAF_VALUE, t->leaf_count, &values, e));
    for (uint32_t i = 0; i < t->leaf_count; i++)
        if (!isfinite(values[i]))
            return FAIL(e, INVALID_ARGUMENT, "leaf %u has no finite value", i);
    t->values = values;
    if (t->node_count)
        TRY(nodes_read(r, lines, t, e));
    TRY(trees_tree_check(r->m, t, r->m->tree_count, r->a, e));
    r->m->tree_count++;
    return 0;
}

/* From behind "Tree=N" to the next one or the end; *ret_more tells which. */
static int tree_read(struct reader *r, bool *ret_more, struct err *e)
{
    str lines[KEY_COUNT] = {STR_NULL}, line = STR_NULL;
    bool ended = false, next = false;

    while (!ended && !next && line_take(r, &line)) {
        str rest = line, key = str_cut(&rest, '=');

        ended = str_eq(line, S("end of trees"));
        next = str_eq(key, S("Tree")) && rest.p;
        for (size_t i = 0; rest.p && i < KEY_COUNT; i++)
            if (str_eq(key, keys[i]))
                lines[i] = rest;
    }
    if (!ended && !next)
        return FAIL(e, INVALID_ARGUMENT, "the file ends in the middle of a tree");
    *ret_more = next;
    return tree_make(r, lines, e);
}

/* How many lines there are at most of trees and categories, so that memory is taken once. */
static void lines_count(struct reader *r)
{
    str rest = r->rest;

    while (rest.p) {
        str line = str_cut(&rest, '\n');

        if (str_starts(line, S("Tree=")))
            r->trees_max++;
        if (str_starts(line, S("cat_boundaries=")))
            for (size_t i = 0; i < line.n; i++)
                r->sets_max += line.p[i] == ' ';
    }
}

static int objective_read(struct trees_model *m, str text, uint32_t classes, struct arena *a,
                          struct err *e)
{
    str rest = text, name = str_cut(&rest, ' ');

    m->objective = arena_dup(a, name);
    for (size_t i = 0; i < ARRAY_LEN(objectives); i++) {
        if (!str_eq(name, objectives[i].name))
            continue;
        m->transform = objectives[i].transform;
        while (rest.p) {
            str value = str_cut(&rest, ' '), key = str_cut(&value, ':');

            if (str_eq(key, S("sigmoid")))
                TRY(number_read(value, "sigmoid", &m->slope, e));
            else if (str_eq(key, S("sqrt")))
                m->transform = TREES_LGB_SQUARE;
        }
        if (objectives[i].shape == SHAPE_MULTI ? classes < 2 || m->groups != classes
                                               : m->groups != classes)
            return FAIL(e, INVALID_ARGUMENT,
                        "objective " STR_F " with %u classes and %u trees an "
                        "iteration",
                        STR_A(name), classes, m->groups);
        m->outputs = m->groups;
        if (objectives[i].shape != SHAPE_VALUE)
            trees_labels_count(m, objectives[i].shape == SHAPE_MULTI ? classes : 2, a);
        return 0;
    }
    return FAIL(e, INVALID_ARGUMENT, "objective '" STR_F "' of the LightGBM model is not known",
                STR_A(str_take(name, 64)));
}

static int names_read(struct trees_model *m, str text, struct arena *a, struct err *e)
{
    str *names = ARENA_ARRAY(a, str, m->features);
    uint32_t n = 0;

    if (!names)
        return trees_no_memory(e);
    while (text.p) {
        str name = str_cut(&text, ' ');

        if (name.n && n < m->features)
            names[n] = arena_dup(a, name);
        n += name.n > 0;
    }
    if (n != m->features)
        return FAIL(e, INVALID_ARGUMENT, "feature_names has %u names of %u features", n,
                    m->features);
    m->feature_names = names;
    return 0;
}

/* Up to the first tree. */
static int head_read(struct reader *r, struct err *e)
{
    str line, names = STR_NULL, objective = S("custom");
    uint32_t classes = 1, last = UINT32_MAX;
    struct trees_model *m = r->m;

    m->groups = 0;
    while (line_take(r, &line) && !str_starts(line, S("Tree="))) {
        str value = line, key = str_cut(&value, '=');

        if (str_eq(key, S("num_class")))
            TRY(count_read(value, "num_class", 1, TREES_GROUPS_MAX, &classes, e));
        else if (str_eq(key, S("num_tree_per_iteration")))
            TRY(count_read(value, "num_tree_per_iteration", 1, TREES_GROUPS_MAX, &m->groups, e));
        else if (str_eq(key, S("max_feature_idx")))
            TRY(count_read(value, "max_feature_idx", 0, TREES_FEATURES_MAX - 1, &last, e));
        else if (str_eq(key, S("objective")))
            objective = value;
        else if (str_eq(key, S("feature_names")))
            names = value;
        else if (str_eq(line, S("average_output")))
            m->sum = TREES_AVERAGE;
        else if (str_eq(line, S("end of trees")))
            return FAIL(e, INVALID_ARGUMENT, "the LightGBM model has no trees");
    }
    if (last == UINT32_MAX || !r->rest.p)
        return FAIL(e, INVALID_ARGUMENT,
                    "the LightGBM model has no trees, or does not say how many features it has");
    m->features = last + 1;
    m->groups = m->groups ? m->groups : classes;
    if (names.n)
        TRY(names_read(m, names, r->a, e));
    return objective_read(m, objective, classes, r->a, e);
}

static int double_compare(const void *pa, const void *pb)
{
    const double *a = pa, *b = pb;

    return *a < *b ? -1 : *a > *b;
}

static float floor_float(double v)
{
    float f = (float)v;

    return (double)f > v ? nextafterf(f, -INFINITY) : f;
}

/* Whether rows must be FP64: see above. */
static int width_decide(struct trees_model *m, struct arena *a, struct err *e)
{
    uint64_t *ends = ARENA_ARRAY(a, uint64_t, m->features + (uint64_t)1);
    uint64_t total = 0;
    double *list;

    if (!ends)
        return trees_no_memory(e);
    for (int pass = 0; pass < 2; pass++) {
        list = pass ? ARENA_ARRAY(a, double, total + 1) : NULL;
        if (pass && !list)
            return trees_no_memory(e);
        for (uint32_t f = 0; pass && f < m->features; f++)
            ends[f + 1] += ends[f];
        for (uint32_t t = 0; t < m->tree_count; t++)
            for (uint32_t i = 0; i < m->trees[t].node_count; i++) {
                const struct trees_node *n = &m->trees[t].nodes[i];

                if (n->test != TREES_LE)
                    continue;
                m->wide |= fabs(n->threshold) > FLOAT_WHOLE_MAX && fabs(n->threshold) < FINITE_MAX;
                if (pass)
                    list[ends[n->feature]++] = n->threshold;
                else
                    ends[n->feature + 1]++, total++;
            }
    }
    for (uint32_t f = 0; f < m->features; f++) { /* ends[f] is now the end of f, not its start */
        uint64_t from = f ? ends[f - 1] : 0, n = ends[f] - from;

        qsort(list + from, n, sizeof(*list), double_compare);
        for (uint64_t i = 1; i < n; i++)
            m->wide |= list[from + i - 1] < list[from + i] &&
                       floor_float(list[from + i - 1]) == floor_float(list[from + i]);
    }
    return 0;
}

static int reader_init(struct reader *r, struct err *e)
{
    struct trees_model *m = r->m;

    lines_count(r);
    r->trees_max++; /* the head has taken the first line "Tree=" */
    m->trees = ARENA_ARRAY(r->a, struct trees_tree, r->trees_max);
    m->sets = ARENA_ARRAY(r->a, struct trees_set, r->sets_max + (size_t)1);
    m->base = ARENA_ARRAY(r->a, double, m->groups);
    m->zero_missing = ARENA_ARRAY(r->a, bool, m->features);
    r->missing = ARENA_ARRAY(r->a, uint8_t, m->features);
    r->categorical = ARENA_ARRAY(r->a, bool, m->features);
    if (!m->trees || !m->sets || !m->base || !m->zero_missing || !r->missing || !r->categorical)
        return trees_no_memory(e);
    return 0;
}

int trees_lightgbm_read(str bytes, struct arena *a, struct trees_model *m, struct err *e)
{
    struct reader r = {.rest = bytes, .a = a, .m = m};
    bool more = true, any_zero = false;

    m->format = S("lightgbm");
    m->wide_sum = true;
    TRY(head_read(&r, e));
    TRY(reader_init(&r, e));
    while (more) {
        if (m->tree_count == r.trees_max)
            return FAIL(e, INVALID_ARGUMENT, "line %u: a tree too many", r.line);
        if (tree_read(&r, &more, e))
            return err_context(e, "LightGBM tree %u, up to line %u", m->tree_count, r.line);
    }
    if (m->tree_count % m->groups)
        return FAIL(e, INVALID_ARGUMENT, "the LightGBM model has %u trees for %u classes",
                    m->tree_count, m->groups);
    m->divisor = (double)m->tree_count / m->groups;
    for (uint32_t f = 0; f < m->features; f++) {
        any_zero |= m->zero_missing[f];
        if (r.missing[f] && r.categorical[f])
            return FAIL(e, INVALID_ARGUMENT, "feature %u is categorical and numerical", f);
    }
    if (!any_zero)
        m->zero_missing = NULL;
    return width_decide(m, a, e);
}
