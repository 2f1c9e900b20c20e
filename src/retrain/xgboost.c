/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The built-in trainer: gradient-boosted trees by XGBoost's C library, as the body of a child
 * process under the contract of trainer.c. The library is opened here and nowhere else, so no other
 * process of Weir maps it.
 *
 * Classes are numbered in the order of the project's list, or sorted (numbers by value) when it has
 * none; that order is written into the model's attributes ("classes") and so reaches the registry.
 * The metrics it leaves are of the training data, and say so.
 */
#include "retrain/priv.h"

#include "base/library.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <xgboost/c_api.h>

#define CLASSES_MAX 256
#define ROWS_MAX ((size_t)50 << 20)

/* The functions used, found by name. */
#define XGB_FUNCTIONS(X)          \
    X(XGBGetLastError)            \
    X(XGDMatrixCreateFromMat)     \
    X(XGDMatrixSetFloatInfo)      \
    X(XGDMatrixSetStrFeatureInfo) \
    X(XGDMatrixFree)              \
    X(XGBoosterCreate)            \
    X(XGBoosterSetParam)          \
    X(XGBoosterSetAttr)           \
    X(XGBoosterUpdateOneIter)     \
    X(XGBoosterEvalOneIter)       \
    X(XGBoosterSaveModel)         \
    X(XGBoosterFree)

static struct {
#define X(name) __typeof__(&name) name;
    XGB_FUNCTIONS(X)
#undef X
} xgb;

struct training {
    struct arena a;
    const char *data, *spec_path, *out;
    struct json *spec;
    const struct json *params;
    str label; /* the column, quoted for SQL */
    str *features;
    size_t feature_count;
    str *classes;
    size_t class_count;
    bool regression;
    float *matrix, *labels;
    size_t rows;
};

static NODISCARD int engine_open(struct err *e)
{
    static const char *const names[] = {"libxgboost.so.0", "libxgboost.so", NULL};
    void *lib;

    TRY(library_open("XGBoost of Debian's package libxgboost0", names, &lib, e));
#define X(name)                                                      \
    if (!(xgb.name = (__typeof__(&name))library_symbol(lib, #name))) \
        return FAIL(e, UNAVAILABLE, "this libxgboost has no %s", #name);
    XGB_FUNCTIONS(X)
#undef X
    return 0;
}

static NODISCARD int check(int rc, const char *what, struct err *e)
{
    return rc ? FAIL(e, INTERNAL, "XGBoost: %s: %s", what, xgb.XGBGetLastError()) : 0;
}

/* --- Reading ---------------------------------------------------------------------------------- */

static NODISCARD int read_spec(struct training *t, struct err *e)
{
    AUTO(buf_done) struct buf quoted = {0};
    struct json *features;
    str text, label;

    t->data = getenv("WEIR_TRAIN_DATA");
    t->spec_path = getenv("WEIR_TRAIN_SPEC");
    t->out = getenv("WEIR_MODEL_OUT");
    if (!t->data || !t->spec_path || !t->out)
        return FAIL(
            e, INVALID_ARGUMENT,
            "WEIR_TRAIN_DATA, WEIR_TRAIN_SPEC and WEIR_MODEL_OUT must be set: this command is "
            "run by Weir");
    TRY(file_read_all(t->spec_path, 64 << 20, &t->a, &text, e));
    TRY(json_parse(text, &t->a, &t->spec, e));
    TRY(json_need_array(t->spec, S("features"), &features, e));
    TRY(json_need_str(t->spec, S("label"), &label, e));
    buf_init(&quoted, 1 << 16);
    lake_quote_name(&quoted, label);
    t->label = arena_dup(&t->a, buf_str(&quoted));
    t->params = json_get(t->spec, S("params"));
    t->regression = str_eq(json_str_or(json_get(t->spec, S("task")), S("")), S("regression"));
    t->features = ARENA_ARRAY(&t->a, str, features->count);
    JSON_EACH (f, features)
        t->features[t->feature_count++] = json_str_or(f, S(""));
    return t->feature_count ? 0 : FAIL(e, INVALID_ARGUMENT, "there are no features to train on");
}

static NODISCARD int given_classes(struct training *t, const struct json *list)
{
    t->classes = ARENA_ARRAY(&t->a, str, list->count);
    JSON_EACH (c, list)
        t->classes[t->class_count++] =
            c->type == JSON_STR ? c->string
                                : arena_printf(&t->a, "%lld", (long long)json_int_or(c, 0));
    return 0;
}

static NODISCARD int found_classes(struct training *t, struct lake *l, str source, struct err *e)
{
    AUTO(lake_result_freep) struct lake_result *res = NULL;
    str sql = arena_printf(&t->a,
                           "SELECT " STR_F " FROM " STR_F " WHERE " STR_F " IS NOT NULL GROUP BY 1"
                           " ORDER BY TRY_CAST(" STR_F " AS DOUBLE) NULLS LAST, 1 LIMIT %d",
                           STR_A(t->label), STR_A(source), STR_A(t->label), STR_A(t->label),
                           CLASSES_MAX + 1);

    TRY(lake_query(l, sql.p, NULL, 0, &res, e));
    t->classes = ARENA_ARRAY(&t->a, str, CLASSES_MAX + 1);
    while (lake_next(res))
        t->classes[t->class_count++] = arena_dup(&t->a, lake_text(res, 0));
    return 0;
}

static NODISCARD int read_classes(struct training *t, struct lake *l, str source, struct err *e)
{
    const struct json *list = json_get(t->spec, S("classes"));

    if (json_is_container(list) && list->count)
        TRY(given_classes(t, list));
    else
        TRY(found_classes(t, l, source, e));
    if (t->class_count < 2 || t->class_count > CLASSES_MAX)
        return FAIL(e, FAILED_PRECONDITION, "the labels have %zu classes, expected 2 to %d",
                    t->class_count, CLASSES_MAX);
    return 0;
}

static void add_label(struct training *t, struct buf *sql)
{
    if (t->regression) {
        buf_printf(sql, "TRY_CAST(" STR_F " AS DOUBLE)", STR_A(t->label));
        return;
    }
    buf_printf(sql, "CASE " STR_F, STR_A(t->label));
    for (size_t i = 0; i < t->class_count; i++) {
        buf_add_str(sql, S(" WHEN "));
        lake_quote_text(sql, t->classes[i]);
        buf_printf(sql, " THEN %zu.0", i);
    }
    buf_add_str(sql, S(" END"));
}

/* XGBoost takes no infinities; NaN is missing. */
static float as_float(double v)
{
    return (float)CLAMP(v, -(double)FLT_MAX, (double)FLT_MAX);
}

static NODISCARD int fill(struct training *t, const struct lake_numbers *n, struct err *e)
{
    t->matrix = mem_try_alloc(n->row_count * t->feature_count * sizeof(float));
    t->labels = mem_try_alloc(n->row_count * sizeof(float));
    if (!t->matrix || !t->labels)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for %zu rows of %zu features", n->row_count,
                    t->feature_count);
    for (size_t row = 0; row < n->row_count; row++) {
        float *to = t->matrix + t->rows * t->feature_count;

        if (isnan(n->columns[t->feature_count][row]))
            continue; /* an unknown class: nothing to learn from */
        for (size_t i = 0; i < t->feature_count; i++)
            to[i] = as_float(n->columns[i][row]);
        t->labels[t->rows++] = (float)n->columns[t->feature_count][row];
    }
    return t->rows ? 0 : FAIL(e, FAILED_PRECONDITION, "no row has a usable label");
}

/* Text has no order that trees could cut: say so here, in words. */
static NODISCARD int check_types(struct training *t, struct lake *l, str source, struct err *e)
{
    AUTO(lake_result_freep) struct lake_result *res = NULL;
    AUTO(buf_done) struct buf sql = {0};

    buf_init(&sql, 4 << 20);
    buf_add_str(&sql, S("SELECT "));
    for (size_t i = 0; i < t->feature_count; i++) {
        lake_quote_name(&sql, t->features[i]);
        buf_add_str(&sql, S(", "));
    }
    buf_printf(&sql, "1 FROM " STR_F " LIMIT 0", STR_A(source));
    TRY(lake_query(l, buf_z(&sql), NULL, 0, &res, e));
    for (size_t i = 0; i < t->feature_count; i++)
        if (lake_column_type(res, i) == LAKE_TEXT)
            return FAIL(e, INVALID_ARGUMENT,
                        "feature '" STR_F "' is text: the built-in trainer takes numbers; encode "
                        "it, or use a trainer of kind command",
                        STR_A(t->features[i]));
    return 0;
}

static NODISCARD int read_rows(struct training *t, struct err *e)
{
    AUTO(lake_closep) struct lake *l = NULL;
    AUTO(lake_numbers_done) struct lake_numbers numbers = {0};
    AUTO(buf_done) struct buf sql = {0}, source = {0};

    buf_init(&sql, 4 << 20);
    buf_init(&source, 64 << 10);
    TRY(lake_open(&(struct lake_config){.threads = 1}, &l, e));
    buf_add_str(&source, S("read_parquet("));
    lake_quote_text(&source, str_of(t->data));
    buf_add_char(&source, ')');
    TRY(check_types(t, l, buf_str(&source), e));
    if (!t->regression)
        TRY(read_classes(t, l, buf_str(&source), e));
    buf_add_str(&sql, S("SELECT "));
    for (size_t i = 0; i < t->feature_count; i++) {
        buf_add_str(&sql, S("CAST("));
        lake_quote_name(&sql, t->features[i]);
        buf_add_str(&sql, S(" AS DOUBLE), "));
    }
    add_label(t, &sql);
    buf_add_str(&sql, S(" FROM "));
    buf_add_str(&sql, buf_str(&source));
    TRY(lake_read_numbers(l, buf_z(&sql), NULL, 0, ROWS_MAX, &numbers, e));
    return fill(t, &numbers, e);
}

/* --- Training --------------------------------------------------------------------------------- */

static const char *objective(const struct training *t)
{
    str wanted = json_str_or(json_get(t->params, S("objective")), S("auto"));

    if (!str_eq(wanted, S("auto")))
        return arena_dupz((struct arena *)&t->a, wanted);
    if (t->regression)
        return "reg:squarederror";
    return t->class_count == 2 ? "binary:logistic" : "multi:softprob";
}

static NODISCARD int set(BoosterHandle b, const char *name, const char *value, struct err *e)
{
    return check(xgb.XGBoosterSetParam(b, name, value), name, e);
}

static NODISCARD int set_params(struct training *t, BoosterHandle b, struct err *e)
{
    static const struct {
        const char *ours, *theirs;
    } numbers[] = {{"max_depth", "max_depth"},
                   {"eta", "eta"},
                   {"subsample", "subsample"},
                   {"colsample", "colsample_bytree"},
                   {"min_child_weight", "min_child_weight"},
                   {"lambda", "lambda"},
                   {"seed", "seed"},
                   {"threads", "nthread"}};

    TRY(set(b, "objective", objective(t), e));
    TRY(set(b, "tree_method", "hist", e));
    TRY(set(b, "verbosity", "1", e));
    if (strcmp(objective(t), "multi:softprob") == 0)
        TRY(set(b, "num_class", arena_printf(&t->a, "%zu", t->class_count).p, e));
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        const struct json *v = json_get(t->params, str_of(numbers[i].ours));

        if (v && (v->type == JSON_INT || v->type == JSON_REAL))
            TRY(set(b, numbers[i].theirs, arena_printf(&t->a, "%.17g", json_real_or(v, 0)).p, e));
    }
    return 0;
}

static NODISCARD int name_things(struct training *t, DMatrixHandle d, BoosterHandle b,
                                 struct err *e)
{
    const char **names = ARENA_ARRAY(&t->a, const char *, t->feature_count);
    AUTO(buf_done) struct buf classes = {0};
    struct json *list = json_new_array(&t->a);

    for (size_t i = 0; i < t->feature_count; i++)
        names[i] = arena_dupz(&t->a, t->features[i]);
    TRY(check(xgb.XGDMatrixSetStrFeatureInfo(d, "feature_name", names, t->feature_count),
              "feature names", e));
    if (t->regression)
        return 0;
    for (size_t i = 0; i < t->class_count; i++)
        json_push(list, json_new_str(&t->a, t->classes[i]));
    buf_init(&classes, 1 << 20);
    json_write(&classes, list);
    return check(xgb.XGBoosterSetAttr(b, "classes", buf_z(&classes)), "classes", e);
}

/* XGBoost says "[99]\ttrain-logloss:0.123": that becomes {"train_logloss":0.123}. */
static NODISCARD int leave_metrics(struct training *t, DMatrixHandle d, BoosterHandle b, int rounds,
                                   struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct json *o = json_new_object(&t->a);
    const char *names[] = {"train"}, *said;
    str rest, field;

    TRY(check(xgb.XGBoosterEvalOneIter(b, rounds, &d, names, 1, &said), "evaluation", e));
    rest = str_of(said);
    while (rest.p) {
        ptrdiff_t colon;
        double v;

        field = str_cut(&rest, '\t');
        colon = str_find_char(field, ':');
        if (!str_starts(field, S("train-")) || colon < 0 ||
            !str_to_f64(str_skip(field, (size_t)colon + 1), &v))
            continue;
        field = str_skip(str_take(field, (size_t)colon), S("train-").n);
        json_set_real(&t->a, o, arena_printf(&t->a, "train_" STR_F, STR_A(field)), v);
    }
    json_set_int(&t->a, o, S("train_rows"), (int64_t)t->rows);
    json_set_int(&t->a, o, S("rounds"), rounds);
    buf_init(&text, 1 << 16);
    json_write_pretty(&text, o);
    return file_replace(path_join(&t->a, t->out, "metrics.json"), buf_str(&text), e);
}

static NODISCARD int boost(struct training *t, DMatrixHandle d, BoosterHandle b, struct err *e)
{
    int64_t rounds = json_int_or(json_get(t->params, S("rounds")), 100);
    char *path = path_join(&t->a, t->out, "model.json");

    TRY(set_params(t, b, e));
    TRY(name_things(t, d, b, e));
    for (int round = 0; round < rounds; round++)
        TRY(check(xgb.XGBoosterUpdateOneIter(b, round, d), "a round", e));
    printf("trained %lld rounds on %zu rows of %zu features\n", (long long)rounds, t->rows,
           t->feature_count);
    TRY(leave_metrics(t, d, b, (int)rounds, e));
    return check(xgb.XGBoosterSaveModel(b, path), "saving", e);
}

static NODISCARD int train(struct training *t, struct err *e)
{
    DMatrixHandle d = NULL;
    BoosterHandle b = NULL;
    int rc;

    TRY(check(xgb.XGDMatrixCreateFromMat(t->matrix, t->rows, t->feature_count, NAN, &d),
              "the matrix", e));
    TRY(check(xgb.XGDMatrixSetFloatInfo(d, "label", t->labels, t->rows), "the labels", e));
    TRY(check(xgb.XGBoosterCreate(&d, 1, &b), "the booster", e));
    rc = boost(t, d, b, e);
    (void)xgb.XGBoosterFree(b);
    (void)xgb.XGDMatrixFree(d);
    return rc;
}

int retrain_xgboost_main(int argc, char **argv)
{
    struct training t = {0};
    struct err e;
    int rc;

    (void)argc, (void)argv;
    arena_init(&t.a, 0);
    rc = read_spec(&t, &e);
    if (!rc)
        rc = engine_open(&e);
    if (!rc)
        rc = read_rows(&t, &e);
    if (!rc)
        rc = train(&t, &e);
    if (rc)
        fprintf(stderr, "%s: %s\n", code_name(e.code), e.msg);
    mem_free(t.matrix);
    mem_free(t.labels);
    arena_done(&t.a);
    if (!rc)
        return 0;
    return rc == CODE_INVALID_ARGUMENT || rc == CODE_FAILED_PRECONDITION ? EXIT_WRONG_INPUT : 1;
}
