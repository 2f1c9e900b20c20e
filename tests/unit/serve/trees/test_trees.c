/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random ensembles of every kind, in both forms, against a walk written for plainness; what the
 * readers refuse; and that a run takes no memory. The numbers of the libraries are in tests/oracle.
 */
#include "check.h"

#include "base/buf.h"
#include "base/files.h"
#include "base/mem.h"
#include "base/random.h"
#include "serve/trees/priv.h"

#define ROWS 70
#define FEATURES 6
#define LEAVES_MAX 400

/* --- Random models ---------------------------------------------------------------------------- */

struct recipe {
    uint32_t leaves, trees, groups;
    bool chain, vector, wide, sets, zero;
    enum trees_sum sum;
};

static double threshold_of(struct rng *rng, const struct recipe *r)
{
    static const double odd[] = {0, -0.0, 0.5, -0.5, INFINITY, -INFINITY, 1e-45, 3e38};

    if (rng_below(rng, 3) == 0)
        return odd[rng_below(rng, ARRAY_LEN(odd))];
    return r->wide ? 1e9 + rng_uniform(rng) : (double)(float)rng_normal(rng);
}

/* Splits leaves at random, or always the last, until there are enough. */
static void tree_grow(struct rng *rng, const struct recipe *r, const struct trees_model *m,
                      struct arena *a, struct trees_tree *t)
{
    uint32_t values = r->vector ? m->groups : 1;
    double *leaves;

    t->nodes = ARENA_ARRAY(a, struct trees_node, r->leaves);
    t->leaf_count = 1;
    while (t->leaf_count < r->leaves) {
        struct trees_node *n = &t->nodes[t->node_count];
        int32_t leaf =
            r->chain ? (int32_t)t->leaf_count - 1 : (int32_t)rng_below(rng, t->leaf_count);

        for (uint32_t i = 0; i < t->node_count; i++) {
            if (t->nodes[i].left == -1 - leaf)
                t->nodes[i].left = (int32_t)t->node_count;
            else if (t->nodes[i].right == -1 - leaf)
                t->nodes[i].right = (int32_t)t->node_count;
        }
        *n = (struct trees_node){.threshold = threshold_of(rng, r),
                                 .left = -1 - leaf,
                                 .right = -1 - (int32_t)t->leaf_count++,
                                 .feature = (uint32_t)rng_below(rng, FEATURES - 1),
                                 .test = (uint8_t)rng_below(rng, 2),
                                 .missing_left = rng_below(rng, 2)};
        if (r->sets && rng_below(rng, 4) == 0) {
            n->feature = FEATURES - 1;
            n->test = (uint8_t)(TREES_FLOOR + rng_below(rng, 3));
            n->set = (uint32_t)rng_below(rng, m->set_count);
        }
        t->node_count++;
    }
    leaves = ARENA_ARRAY(a, double, t->leaf_count *(size_t)values);
    for (uint32_t i = 0; i < t->leaf_count * values; i++)
        leaves[i] = r->wide ? rng_normal(rng) : (double)(float)rng_normal(rng);
    t->values = leaves;
    t->vector = r->vector;
    t->group = (uint32_t)rng_below(rng, m->groups);
}

static void model_make(struct rng *rng, const struct recipe *r, struct arena *a,
                       struct trees_model *m)
{
    static const uint32_t words[] = {0x5, 0x80000001, 0xF0};
    static struct trees_set sets[] = {{.words = words, .word_count = 3, .value = 2},
                                      {.words = words, .word_count = 1, .value = 0.5},
                                      {.words = words, .word_count = 0, .value = 7}};

    *m = (struct trees_model){.features = FEATURES,
                              .groups = r->groups,
                              .outputs = r->groups,
                              .tree_count = r->trees,
                              .sets = sets,
                              .set_count = ARRAY_LEN(sets),
                              .wide = r->wide,
                              .wide_sum = r->wide,
                              .wide_answer = r->wide,
                              .sum = r->sum,
                              .divisor = r->trees,
                              .base_last = rng_below(rng, 2)};
    m->trees = ARENA_ARRAY(a, struct trees_tree, r->trees);
    m->base = ARENA_ARRAY(a, double, r->groups);
    if (r->zero) {
        m->zero_missing = ARENA_ARRAY(a, bool, FEATURES);
        m->zero_missing[0] = m->zero_missing[2] = true;
    }
    for (uint32_t g = 0; g < r->groups; g++)
        m->base[g] = (double)(float)rng_normal(rng);
    for (uint32_t t = 0; t < r->trees; t++)
        tree_grow(rng, r, m, a, &m->trees[t]);
}

static void rows_make(struct rng *rng, const struct recipe *r, double *x)
{
    static const double odd[] = {0, -0.0, 0.5, -0.5, INFINITY, -INFINITY, 1e-45, 3e38, NAN, 1e-36};

    for (uint32_t i = 0; i < ROWS * FEATURES; i++) {
        x[i] = threshold_of(rng, r);
        if (i % FEATURES == FEATURES - 1)
            x[i] = (double)rng_below(rng, 100) / 2 - 2;
        if (rng_below(rng, 4) == 0)
            x[i] = odd[rng_below(rng, ARRAY_LEN(odd))];
        if (!r->wide)
            x[i] = (double)(float)x[i];
    }
}

/* --- By the words of trees.h ------------------------------------------------------------------ */

static bool goes_left(const struct trees_model *m, const struct trees_node *n, const double *x)
{
    double v = x[n->feature];

    if (isnan(v) || (n->test <= TREES_LE && m->zero_missing && m->zero_missing[n->feature] &&
                     fabs(v) <= (double)TREES_ZERO_MAX))
        return n->missing_left;
    if (n->test == TREES_LT || n->test == TREES_LE)
        return n->test == TREES_LT ? v < n->threshold : v <= n->threshold;
    if (n->test == TREES_EXACT)
        return v == m->sets[n->set].value;
    if (v <= -1 || (n->test == TREES_CAT && v < 0) || v >= 32.0 * m->sets[n->set].word_count)
        return false;
    return m->sets[n->set].words[(int)v / 32] >> ((int)v % 32) & 1;
}

static double plainly(const struct trees_model *m, const double *x, uint32_t group)
{
    double sum = m->base_last ? 0 : m->base[group];

    if (m->sum == TREES_MIN || m->sum == TREES_MAX)
        sum = m->sum == TREES_MIN ? INFINITY : -INFINITY;
    for (uint32_t t = 0; t < m->tree_count; t++) {
        const struct trees_tree *tree = &m->trees[t];
        int32_t at = tree->node_count ? 0 : -1;
        double v;

        while (at >= 0)
            at = goes_left(m, &tree->nodes[at], x) ? tree->nodes[at].left : tree->nodes[at].right;
        if (!tree->vector && tree->group != group)
            continue;
        v = tree->values[(-1 - at) * (int64_t)(tree->vector ? m->groups : 1) +
                         (tree->vector ? group : 0)];
        if (m->sum == TREES_MIN)
            sum = fmin(sum, v);
        else if (m->sum == TREES_MAX)
            sum = fmax(sum, v);
        else
            sum = m->wide_sum ? sum + v : (double)((float)sum + (float)v);
    }
    if (m->sum == TREES_AVERAGE)
        sum = m->wide_sum ? sum / m->divisor : (double)((float)sum / (float)m->divisor);
    else if (m->sum != TREES_ADD && isinf(sum))
        sum = 0;
    if (m->base_last)
        sum = m->wide_sum ? sum + m->base[group] : (double)((float)sum + (float)m->base[group]);
    return sum;
}

/* --- Forms ------------------------------------------------------------------------------------ */

/* How many answers differ; -1 when the form is not possible. */
static int form_differs(const struct trees_model *m, enum trees_form form, const double *x,
                        uint32_t rows)
{
    AUTO(trees_forest_freep) struct trees_forest *f = NULL;
    AUTO(trees_scratch_freep) struct trees_scratch *s = NULL;
    AUTO(mem_freep) double *scores = mem_zalloc(sizeof(double) * ROWS * m->outputs);
    AUTO(mem_freep) float *narrow = mem_zalloc(sizeof(float) * ROWS * FEATURES);
    uint64_t allocs;
    int differ = 0;
    struct err e;

    if (trees_forest_make(m, form, &f, &e)) {
        CHECK_INT(e.code, CODE_FAILED_PRECONDITION);
        return -1;
    }
    s = trees_scratch_new(f);
    for (uint32_t i = 0; i < ROWS * FEATURES; i++)
        narrow[i] = (float)x[i];
    allocs = mem_alloc_count();
    trees_forest_run(f, s, m->wide ? (const void *)x : narrow, rows, scores, NULL);
    CHECK_INT(mem_alloc_count(), allocs);
    for (uint32_t i = 0; i < rows * m->outputs; i++) {
        double want = plainly(m, x + (size_t)(i / m->outputs) * FEATURES, i % m->outputs);
        double got = m->wide_answer ? scores[i] : (double)((float *)scores)[i];

        differ += got != want;
    }
    return differ;
}

static void test_forms(void)
{
    static const uint32_t leaves[] = {1, 2, 3, 8, 31, 64, 200, 256, 257, LEAVES_MAX};
    static double x[ROWS * FEATURES];
    uint32_t bins = 0;
    struct rng rng;
    struct err e;

    rng_seed(&rng, 20);
    for (int i = 0; i < 400; i++) {
        AUTO(arena_done) struct arena a = {0};
        struct trees_model m;
        struct recipe r = {.leaves = leaves[rng_below(&rng, ARRAY_LEN(leaves))],
                           .trees = 1 + (uint32_t)rng_below(&rng, 20),
                           .groups = 1 + (uint32_t)rng_below(&rng, 3),
                           .chain = rng_below(&rng, 4) == 0,
                           .vector = rng_below(&rng, 4) == 0,
                           .wide = rng_below(&rng, 4) == 0,
                           .sets = rng_below(&rng, 3) == 0,
                           .zero = rng_below(&rng, 5) == 0,
                           .sum = (enum trees_sum)rng_below(&rng, 4)};
        int differ;

        model_make(&rng, &r, &a, &m);
        for (uint32_t t = 0; t < m.tree_count; t++)
            NEED_OK(trees_tree_check(&m, &m.trees[t], t, &a, &e), &e);
        rows_make(&rng, &r, x);
        CHECK_INT(form_differs(&m, TREES_FORM_WALK, x, ROWS), 0);
        CHECK_INT(form_differs(&m, TREES_FORM_AUTO, x, 1 + (uint32_t)rng_below(&rng, ROWS)), 0);
        differ = form_differs(&m, TREES_FORM_BINS, x, 1 + (uint32_t)rng_below(&rng, ROWS));
        CHECK(differ <= 0);
        bins += differ == 0;
        CHECK(differ == 0 || r.leaves > 256 || !__builtin_cpu_supports("avx2"));
    }
    printf("forms: bins in %u of 400 models\n", bins);
}

/* --- Checks of trees -------------------------------------------------------------------------- */

static void test_tree_check(void)
{
    AUTO(arena_done) struct arena a = {0};
    static const struct {
        struct trees_node nodes[2];
        const char *says;
    } cases[] = {
        {{{.left = 1, .right = -1}, {.left = 0, .right = -2}}, "two parents"},
        {{{.left = 1, .right = 1}, {.left = -1, .right = -2}}, "two parents"},
        {{{.left = 2, .right = -1}}, "a child 2"},
        {{{.left = -4, .right = -1}}, "a child -4"},
        {{{.left = -1, .right = -2, .feature = 2}}, "feature 2 of 2"},
        {{{.left = -1, .right = -2, .threshold = NAN}}, "splits at NaN"},
        {{{.left = -1, .right = -2, .test = TREES_CAT}}, "a set that is not there"},
    };
    struct trees_model m = {.features = 2, .groups = 1};
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct trees_node nodes[2];
        struct trees_tree t = {.nodes = nodes, .node_count = 2, .leaf_count = 3};

        memcpy(nodes, cases[i].nodes, sizeof(nodes));
        CHECK_FAILS(trees_tree_check(&m, &t, 0, &a, &e), INVALID_ARGUMENT, &e, cases[i].says);
    }
}

/* --- LightGBM --------------------------------------------------------------------------------- */

#define HEAD                                                                                      \
    "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=1\n" \
    "objective=binary sigmoid:1\nfeature_names=a b\n\n"
#define TREE                                                                                    \
    "Tree=0\nnum_leaves=3\nnum_cat=1\nsplit_feature=0 1\nthreshold=0.5 0\ndecision_type=10 1\n" \
    "left_child=-1 -2\nright_child=1 -3\nleaf_value=1 -1 2\ncat_boundaries=0 1\n"               \
    "cat_threshold=5\nis_linear=0\nshrinkage=1\n\n"
static const char lightgbm[] = HEAD TREE "end of trees\n";

static int lightgbm_read(const char *from, const char *to, struct arena *a, struct trees_model *m,
                         struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    const char *at = from ? strstr(lightgbm, from) : lightgbm;

    ASSERT(at);
    buf_init(&text, 1 << 20);
    buf_add(&text, lightgbm, (size_t)(at - lightgbm));
    buf_add_str(&text, str_of(from ? to : ""));
    buf_add_str(&text, str_of(at + (from ? strlen(from) : 0)));
    return trees_read(arena_dup(a, buf_str(&text)), a, m, e);
}

static void test_lightgbm(void)
{
    AUTO(arena_done) struct arena a = {0};
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"is_linear=0", "is_linear=1", "linear_tree"},
        {"objective=binary", "objective=guess", "objective 'guess'"},
        {"num_class=1", "num_class=2", "binary with 2 classes"},
        {"feature_names=a b", "feature_names=a", "1 names of 2 features"},
        {"num_leaves=3", "num_leaves=4", "leaf_value has 3 numbers, expected 4"},
        {"leaf_value=1 -1 2", "leaf_value=1 -1 nan", "leaf_value is not a list"},
        {"left_child=-1 -2", "left_child=-1 0", "two parents"},
        {"left_child=-1 -2", "left_child=-1 -9", "a child is -9"},
        {"split_feature=0 1", "split_feature=0 2", "feature 2"},
        {"decision_type=10 1", "decision_type=10 16", "decision_type 16"},
        {"threshold=0.5 0", "threshold=0.5 1", "a set of categories that is not there"},
        {"cat_boundaries=0 1", "cat_boundaries=0 2", "cat_boundaries do not fit"},
        {"cat_threshold=5", "cat_threshold=-5", "no bits"},
        {"split_feature=0 1", "split_feature=0 0", "categorical and numerical"},
        {"end of trees", "the end", "ends in the middle of a tree"},
        {"max_feature_idx=1", "max_feature_idx=70000", "expected 0 to"},
    };
    struct trees_model m;
    struct err e;

    NEED_OK(lightgbm_read(NULL, NULL, &a, &m, &e), &e);
    CHECK(m.classifier && m.outputs == 2 && !m.wide && m.tree_count == 1);
    CHECK_STR(m.feature_names[1], S("b"));
    CHECK_STR(m.objective, S("binary"));
    NEED_OK(lightgbm_read("threshold=0.5", "threshold=20000000.5", &a, &m, &e), &e);
    CHECK(m.wide);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        CHECK_FAILS(lightgbm_read(cases[i].from, cases[i].to, &a, &m, &e), INVALID_ARGUMENT, &e,
                    cases[i].says);
}

/* What one row gives. */
static void test_lightgbm_row(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(trees_forest_freep) struct trees_forest *f = NULL;
    AUTO(trees_scratch_freep) struct trees_scratch *s = NULL;
    static const struct {
        float x[2];
        double margin;
    } rows[] = {{{0.5F, 9}, 1}, {{0.6F, 0}, -1}, {{0.6F, 1}, 2},  {{0.6F, 2.9F}, -1},
                {{NAN, 0}, 1},  {{7, NAN}, 2},   {{7, -0.5F}, -1}};
    struct trees_model m;
    struct err e;

    NEED_OK(lightgbm_read(NULL, NULL, &a, &m, &e), &e);
    NEED_OK(trees_forest_make(&m, TREES_FORM_AUTO, &f, &e), &e);
    s = trees_scratch_new(f);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        float scores[2];
        uint32_t class;

        trees_forest_run(f, s, rows[i].x, 1, scores, &class);
        CHECK_NEAR(scores[1], 1 / (1 + exp(-rows[i].margin)), 1e-7);
        CHECK_INT(class, rows[i].margin > 0);
    }
}

/* --- ONNX ------------------------------------------------------------------------------------- */

/* What is no lone ensemble is told apart from what is broken. */
static void test_onnx(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct trees_model m;
    str bytes;
    struct err e;

    NEED_OK(file_read_all("tests/fuzz/corpus/trees_onnx/classes", 1 << 20, &a, &bytes, &e), &e);
    NEED_OK(trees_read(bytes, &a, &m, &e), &e);
    CHECK(m.classifier && m.groups == 3 && m.label_texts);
    CHECK_STR(m.label_texts[2], S("c"));
    CHECK_STR(m.input_name, S("x"));
    CHECK_STR(m.output_name, S("p"));
    CHECK_FAILS(trees_read(str_take(bytes, bytes.n - 3), &a, &m, &e), INVALID_ARGUMENT, &e,
                "broken");
    NEED_OK(file_read_all("tests/fuzz/corpus/onnx_scan/plain", 1 << 20, &a, &bytes, &e), &e);
    CHECK_FAILS(trees_read(bytes, &a, &m, &e), FAILED_PRECONDITION, &e, "not a lone tree ensemble");
    CHECK_FAILS(trees_read(S("nothing"), &a, &m, &e), INVALID_ARGUMENT, &e, "not an ONNX model");
}

static void test_memory_has_an_end(void)
{
    str bytes;
    AUTO(arena_done) struct arena file = {0};
    struct trees_model m;
    struct err e;

    for (const char *const *path =
             (const char *const[]){"tests/fuzz/corpus/trees_onnx/classes",
                                   "tests/fuzz/corpus/trees_lightgbm/multi",
                                   "tests/fuzz/corpus/trees_xgboost/multi", NULL};
         *path; path++) {
        NEED_OK(file_read_all(*path, 1 << 20, &file, &bytes, &e), &e);
        for (size_t cap = 1 << 10; cap < 1 << 22; cap *= 2) {
            AUTO(arena_done) struct arena a;

            arena_init(&a, cap);
            if (trees_read(bytes, &a, &m, &e))
                CHECK_INT(e.code, CODE_RESOURCE_EXHAUSTED);
        }
    }
}

static const struct check_test tests[] = {
    T(test_forms),        T(test_tree_check), T(test_lightgbm),
    T(test_lightgbm_row), T(test_onnx),       T(test_memory_has_an_end),
};

int main(int argc, char **argv)
{
    return check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
}
