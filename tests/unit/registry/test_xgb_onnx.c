/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trains models with XGBoost itself, converts what it saves, runs the result in ONNX Runtime and
 * compares with XGBoost's own predictions, row by row, missing values included.
 */
#include "check.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/random.h"
#include "registry/xgb_onnx.h"
#include "serve/runtime/runtime.h"

#include <unistd.h>
#include <xgboost/c_api.h>

#define ROWS 2000
#define WIDTH 12
#define TOLERANCE 1e-5

static float x[ROWS * WIDTH], y[ROWS];
static char folder[] = "/tmp/weir-xgb-XXXXXX";

#define XGB(call) xgb_ok((call), #call)
static bool xgb_ok(int rc, const char *what)
{
    if (rc)
        fprintf(stderr, "%s: %s\n", what, XGBGetLastError());
    return check_that(rc == 0, what, __FILE__, __LINE__);
}

struct recipe {
    const char *objective, *classes, *base_score, *booster;
    int rounds;
    const char *depth;
    bool missing;
    const char *format; /* "json" or "ubj" */
};

/* Labels that suit the objective, from a rough function of the features. */
static void data_make(const struct recipe *r, uint64_t seed)
{
    int64_t classes = 0;
    struct rng rng;

    CHECK(!r->classes || str_to_i64(str_of(r->classes), &classes));
    rng_seed(&rng, seed);
    for (size_t i = 0; i < ROWS; i++) {
        double s = 0;

        for (size_t j = 0; j < WIDTH; j++) {
            double v = rng_normal(&rng);

            s += v * ((double)j - 4) / 6 + (j == 2 ? v * v : 0);
            x[i * WIDTH + j] = r->missing && rng_uniform(&rng) < 0.15 ? NAN : (float)v;
        }
        if (classes)
            y[i] = (float)((int64_t)floor(fabs(s) * 1.5) % classes);
        else if (strstr(r->objective, "binary"))
            y[i] = s > 0.6;
        else if (strstr(r->objective, "reg:logistic"))
            y[i] = (float)(1 / (1 + exp(-s)));
        else if (strstr(r->objective, "poisson"))
            y[i] = (float)floor(fabs(s) * 2);
        else
            y[i] = (float)(10 * s + 100);
    }
}

static bool train(const struct recipe *r, DMatrixHandle data, BoosterHandle *ret_booster)
{
    BoosterHandle b;

    if (!XGB(XGBoosterCreate(&data, 1, &b)))
        return false;
    XGB(XGBoosterSetParam(b, "objective", r->objective));
    XGB(XGBoosterSetParam(b, "verbosity", "0"));
    XGB(XGBoosterSetParam(b, "nthread", "1"));
    XGB(XGBoosterSetParam(b, "max_depth", r->depth));
    XGB(XGBoosterSetParam(b, "booster", r->booster));
    if (strcmp(r->booster, "dart") == 0)
        XGB(XGBoosterSetParam(b, "rate_drop", "0.3"));
    if (r->classes)
        XGB(XGBoosterSetParam(b, "num_class", r->classes));
    if (r->base_score)
        XGB(XGBoosterSetParam(b, "base_score", r->base_score));
    for (int i = 0; i < r->rounds; i++)
        if (!XGB(XGBoosterUpdateOneIter(b, i, data)))
            return false;
    *ret_booster = b;
    return true;
}

/* Converts and loads; the model's bytes go through a file, as they do in the registry. */
static struct runtime_model *convert(BoosterHandle b, const char *format,
                                     struct xgb_model_info *info, struct arena *a)
{
    AUTO(buf_done) struct buf onnx = {0};
    struct runtime_model *m = NULL;
    char config[64];
    const char *bytes;
    char path[64];
    bst_ulong n;
    struct err e;

    buf_init(&onnx, BUF_MAX_DEFAULT);
    snprintf(config, sizeof(config), "{\"format\":\"%s\"}", format);
    if (!XGB(XGBoosterSaveModelToBuffer(b, config, &n, &bytes)))
        return NULL;
    if (!CHECK_OK(xgb_onnx_convert((str){bytes, n}, a, &onnx, info, &e), &e))
        return NULL;
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    if (!CHECK_OK(file_replace(path, buf_str(&onnx), &e), &e))
        return NULL;
    CHECK_OK(runtime_load(S("onnx"), path, NULL, &m, &e), &e);
    return m;
}

/* The largest difference of the two predictors' numbers; wrong labels count as 1. */
static double difference(const struct runtime_slot *s, const float *want, const struct recipe *r,
                         uint32_t classes)
{
    const struct tensor *scores = &s->outputs[s->model->output_count - 1];
    double worst = 0;

    for (size_t i = 0; i < ROWS; i++) {
        const float *got = (const float *)scores->data + i * (classes ? classes : 1);
        int64_t label = classes ? ((const int64_t *)s->outputs[0].data)[i] : 0;
        double d = 0, scale = 1;

        if (!classes) {
            scale = MAX(1.0, fabs((double)want[i]));
            d = fabs((double)got[0] - (double)want[i]) / scale;
        } else if (strcmp(r->objective, "multi:softmax") == 0) {
            d = label != (int64_t)want[i];
        } else if (strncmp(r->objective, "binary:", 7) == 0) {
            double threshold = strcmp(r->objective, "binary:logitraw") == 0 ? 0 : 0.5;
            double other = threshold == 0 ? -(double)want[i] : 1 - (double)want[i];

            d = fmax(fabs((double)got[1] - (double)want[i]), fabs((double)got[0] - other));
            if (fabs((double)want[i] - threshold) > TOLERANCE)
                d = fmax(d, label != ((double)want[i] > threshold));
        } else {
            uint32_t best = 0;

            for (uint32_t c = 0; c < classes; c++) {
                d = fmax(d, fabs((double)got[c] - (double)want[i * classes + c]));
                if (want[i * classes + c] > want[i * classes + best])
                    best = c;
            }
            d = fmax(d, label != best);
        }
        worst = fmax(worst, d);
    }
    return worst;
}

static void compare(const struct recipe *r, uint64_t seed)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    struct xgb_model_info info;
    DMatrixHandle data;
    BoosterHandle b;
    const float *want;
    const bst_ulong *shape;
    bst_ulong dims;
    struct err e;
    double worst;

    data_make(r, seed);
    NEED(XGB(XGDMatrixCreateFromMat(x, ROWS, WIDTH, NAN, &data)));
    NEED(XGB(XGDMatrixSetFloatInfo(data, "label", y, ROWS)));
    NEED(train(r, data, &b));
    NEED(XGB(XGBoosterPredictFromDMatrix(
        b, data,
        "{\"type\":0,\"training\":false,\"iteration_begin\":0,\"iteration_end\":0,"
        "\"strict_shape\":false}",
        &shape, &dims, &want)));
    m = convert(b, r->format, &info, &a);
    NEED(m != NULL);
    CHECK(m->batched);
    CHECK_INT(info.features, WIDTH);
    CHECK(info.trees > 0 && info.nodes > 0);
    NEED_OK(runtime_slot_new(m, ROWS, 0, &s, &e), &e);
    memcpy(s->inputs[0].data, x, sizeof(x));
    NEED_OK(runtime_run(s, ROWS, 0, &e), &e);
    worst = difference(s, want, r, info.classes);
    printf("%-17s %-6s %s base %-5s %s: %3u trees, %6llu nodes, largest difference %.2g\n",
           r->objective, r->booster, r->format, r->base_score ? r->base_score : "0.5",
           r->missing ? "missing" : "dense  ", info.trees, (unsigned long long)info.nodes, worst);
    CHECK_NEAR(worst, 0, TOLERANCE);
    XGB(XGBoosterFree(b));
    XGB(XGDMatrixFree(data));
}

static void test_predicts_as_xgboost(void)
{
    static const struct recipe recipes[] = {
        {"binary:logistic", NULL, NULL, "gbtree", 100, "6", false, "json"},
        {"binary:logistic", NULL, "0.1", "gbtree", 30, "4", true, "json"},
        {"binary:logistic", NULL, "0.001", "gbtree", 2, "1", false, "json"},
        {"binary:logistic", NULL, NULL, "gbtree", 40, "5", true, "ubj"},
        {"binary:logitraw", NULL, NULL, "gbtree", 20, "3", true, "json"},
        {"binary:logitraw", NULL, "-0.7", "gbtree", 20, "3", false, "ubj"},
        {"multi:softprob", "3", NULL, "gbtree", 25, "4", true, "json"},
        {"multi:softprob", "2", NULL, "gbtree", 10, "3", false, "json"},
        {"multi:softmax", "2", "0.9", "gbtree", 10, "4", true, "json"},
        {"multi:softmax", "5", NULL, "gbtree", 15, "5", false, "ubj"},
        {"reg:squarederror", NULL, NULL, "gbtree", 60, "6", true, "json"},
        {"reg:squarederror", NULL, "97.5", "gbtree", 60, "6", false, "ubj"},
        {"reg:logistic", NULL, "0.3", "gbtree", 30, "4", false, "json"},
        {"count:poisson", NULL, "2.5", "gbtree", 30, "4", true, "json"},
        {"binary:logistic", NULL, NULL, "dart", 20, "4", true, "json"},
    };

    for (size_t i = 0; i < ARRAY_LEN(recipes); i++)
        compare(&recipes[i], 100 + i);
}

/* All labels are positive: no leaf is negative, where a runtime may pick another threshold. */
static void test_label_threshold_without_negative_leaves(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    static const struct recipe r = {
        "binary:logistic", NULL, "0.1", "gbtree", 6, "2", false, "json"};
    struct xgb_model_info info;
    DMatrixHandle data;
    BoosterHandle b;
    const float *want;
    const bst_ulong *shape;
    bst_ulong dims;
    struct err e;

    data_make(&r, 5);
    for (size_t i = 0; i < ROWS; i++)
        y[i] = i % 4 != 0;
    NEED(XGB(XGDMatrixCreateFromMat(x, ROWS, WIDTH, NAN, &data)));
    NEED(XGB(XGDMatrixSetFloatInfo(data, "label", y, ROWS)));
    NEED(train(&r, data, &b));
    NEED(XGB(XGBoosterPredictFromDMatrix(
        b, data,
        "{\"type\":0,\"training\":false,\"iteration_begin\":0,\"iteration_end\":0,"
        "\"strict_shape\":false}",
        &shape, &dims, &want)));
    m = convert(b, "json", &info, &a);
    NEED(m != NULL);
    NEED_OK(runtime_slot_new(m, ROWS, 0, &s, &e), &e);
    memcpy(s->inputs[0].data, x, sizeof(x));
    NEED_OK(runtime_run(s, ROWS, 0, &e), &e);
    CHECK_NEAR(difference(s, want, &r, 2), 0, TOLERANCE);
    XGB(XGBoosterFree(b));
    XGB(XGDMatrixFree(data));
}

#define TREE                                                                                       \
    "{\"tree_param\":{\"num_nodes\":\"3\",\"size_leaf_vector\":\"0\"},\"left_children\":[1,-1,-1]" \
    ","                                                                                            \
    "\"right_children\":[2,-1,-1],\"split_indices\":[0,0,0],\"default_left\":[1,0,0],"             \
    "\"split_conditions\":[0.5,1,-1],\"split_type\":[0,0,0],\"categories_nodes\":[]}"
#define MODEL                                                                                      \
    "{\"learner\":{\"feature_names\":[\"a\",\"b\"],\"objective\":{\"name\":\"binary:logistic\"},"  \
    "\"learner_model_param\":{\"base_score\":\"5E-1\",\"num_class\":\"0\",\"num_feature\":\"2\"}," \
    "\"gradient_booster\":{\"name\":\"gbtree\",\"model\":{\"tree_info\":[0],\"trees\":[" TREE      \
    "]}}}}"

static int convert_text(const char *from, const char *to, struct xgb_model_info *info,
                        struct err *e)
{
    static struct arena a;
    AUTO(buf_done) struct buf onnx = {0}, text = {0};
    const char *at = from ? strstr(MODEL, from) : NULL;

    arena_reset(&a);
    buf_init(&onnx, 1 << 20);
    buf_init(&text, 1 << 20);
    ASSERT(!from || at);
    if (from) {
        static const char model[] = MODEL;

        at = strstr(model, from);
        buf_add(&text, model, (size_t)(at - model));
        buf_add_str(&text, str_of(to));
        buf_add_str(&text, str_of(at + strlen(from)));
    } else {
        buf_add_str(&text, S(MODEL));
    }
    return xgb_onnx_convert(buf_str(&text), &a, &onnx, info, e);
}

static void test_refuses(void)
{
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"binary:logistic", "rank:pairwise", "objective 'rank:pairwise' cannot be converted"},
        {"\"gbtree\"", "\"gblinear\"", "booster 'gblinear' is not made of trees"},
        {"\"split_type\":[0", "\"split_type\":[1", "splits on categories"},
        {"\"categories_nodes\":[", "\"categories_nodes\":[0", "the lists of categories of a tree"},
        {"[1,-1,-1]", "[0,-1,-1]", "tree 0: node 0 has a child 0"},
        {"[1,-1,-1]", "[2,-1,-1]", "node 0 has a child 2"},
        {"[1,-1,-1]", "[7,-1,-1]", "node 0 has a child 7"},
        {"[1,-1,-1]", "[1,-1]", "no list 'left_children' of its 3 nodes"},
        {"\"split_indices\":[0", "\"split_indices\":[2", "splits on feature 2 of 2"},
        {"\"5E-1\"", "\"1\"", "base_score is 1; a logistic objective"},
        {"\"5E-1\"", "\"x\"", "no number 'base_score'"},
        {"\"tree_info\":[0]", "\"tree_info\":[1]", "tree 0 belongs to class 1 of 1"},
        {"\"num_class\":\"0\"", "\"num_class\":\"3\"", "objective binary:logistic with 3 classes"},
        {"\"learner\"", "\"lerner\"", "the file is no XGBoost model"},
        {"[\"a\",\"b\"]", "[\"a\"]", "2 features and 1 names"},
        {"\"num_nodes\":\"3\"", "\"num_nodes\":\"1e9\"",
         "'num_nodes' of the XGBoost model is 1e+09"},
        {"\"size_leaf_vector\":\"0\"", "\"size_leaf_vector\":\"2\"", "leaves of 2 values"},
    };
    struct xgb_model_info info;
    struct err e;

    NEED_OK(convert_text(NULL, NULL, &info, &e), &e);
    CHECK_INT(info.classes, 2);
    CHECK_STR(info.feature_names[1], S("b"));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        CHECK_FAILS(convert_text(cases[i].from, cases[i].to, &info, &e), INVALID_ARGUMENT, &e,
                    cases[i].says);
}

static void setup_folder(void)
{
    NEED(check_mkdtemp(folder) != NULL);
}

static void remove_folder(void)
{
    char path[64];
    struct err e;

    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    CHECK_OK(file_remove(path, &e), &e);
    CHECK(rmdir(folder) == 0);
}

RUN_TESTS(T(setup_folder), T(test_predicts_as_xgboost),
          T(test_label_threshold_without_negative_leaves), T(test_refuses), T(remove_folder))
