/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Versions from registration to evaluation, each model run in a real child: two inputs, one of
 * texts; numbers for answers; references as JSON lines and Parquet; slices, latency, errors known
 * from how the data was made. This program is its own probe.
 */
#include "check.h"

#include "base/files.h"
#include "evaluate/evaluate.h"
#include "registry/probe.h"
#include "registry/registry.h"
#include "serve/runtime/onnx_make.h"
#include "store/lake/lake.h"

#include <unistd.h>

#define ROWS 600
#define XGB_MODEL "tests/fuzz/corpus/xgb_onnx/binary" /* a < 0.5 or missing: 1, else -1 */

static char folder[] = "/tmp/weir-version-XXXXXX";
static char self[4096];

static const char project_text[] =
    "{\"datasets\":{\"lines\":{\"path\":\"d.jsonl\",\"format\":\"jsonl\",\"label\":\"y\"},"
    "\"pq\":{\"path\":\"d.parquet\",\"format\":\"auto\",\"label\":\"y\"}},"
    "\"models\":{\"r\":{\"task\":\"regression\",\"dataset\":\"lines\",\"features\":["
    "{\"name\":\"region\",\"type\":\"string\",\"required\":true,\"categories\":[\"north\","
    "\"south\"]},{\"name\":\"x\",\"type\":\"float\",\"required\":true}]},"
    "\"rp\":{\"task\":\"regression\",\"dataset\":\"pq\",\"features\":["
    "{\"name\":\"region\",\"type\":\"string\",\"required\":true},"
    "{\"name\":\"x\",\"type\":\"float\",\"required\":true}]},"
    "\"c\":{\"task\":\"classification\",\"classes\":[\"0\",\"1\"],\"positive\":\"1\","
    "\"threshold\":0.5,\"features\":[{\"name\":\"x\",\"type\":\"float\"},"
    "{\"name\":\"z\",\"type\":\"float\"}]}}}";

struct fixture {
    struct arena a;
    struct meta_store *store;
    struct meta *m;
    struct blobs *blobs;
    struct registry_env env;
    struct json *project;
};

static void fixture_done(struct fixture *f)
{
    meta_close(f->m);
    meta_store_close(f->store);
    blobs_close(f->blobs);
    arena_done(&f->a);
}

/* y is what the model answers, but one more in the south; c is x < 0.5, wrong in the south. */
static bool data_make(struct arena *a)
{
    AUTO(buf_done) struct buf text = {0};
    AUTO(lake_closep) struct lake *lake = NULL;
    const char *path = path_join(a, folder, "d.jsonl");
    struct err e;

    buf_init(&text, 1 << 20);
    for (int i = 0; i < ROWS; i++) {
        bool south = i % 3 == 0;
        double x = i % 64 / 64.0;

        buf_printf(&text, "{\"t\":%d,\"region\":\"%s\",\"x\":%.6f,\"z\":0,\"y\":%.6f,\"c\":%d}\n",
                   i, south ? "south" : "north", x, x + (south ? 11 : 0), (x < 0.5) != south);
    }
    return CHECK_OK(file_replace(path, buf_str(&text), &e), &e) &&
           CHECK_OK(lake_open(&(struct lake_config){0}, &lake, &e), &e) &&
           CHECK_OK(lake_execf(lake, &e,
                               "COPY (SELECT * FROM read_json('%s')) TO '%s/d.parquet' "
                               "(FORMAT parquet)",
                               path, folder),
                    &e);
}

static bool fixture_init(struct fixture *f, const char *name)
{
    struct err e;
    char *dir;

    *f = (struct fixture){0};
    arena_init(&f->a, 0);
    dir = path_join(&f->a, folder, name);
    f->env = (struct registry_env){.project_dir = folder, .state_dir = dir, .self = self};
    if (!CHECK_OK(meta_store_open(dir, NULL, &f->store, &e), &e) ||
        !CHECK_OK(meta_open(f->store, &f->m, &e), &e) ||
        !CHECK_OK(blobs_open(path_join(&f->a, dir, "blobs"), &f->blobs, &e), &e) ||
        !CHECK_OK(json_parse(str_of(project_text), &f->a, &f->project, &e), &e))
        return false;
    f->env.store = f->store;
    f->env.blobs = f->blobs;
    return true;
}

static int add(struct fixture *f, const char *model, const char *path, struct registry_result *ret,
               struct err *e)
{
    const struct registry_request req = {.model = str_of(model),
                                         .path = path,
                                         .project = f->project,
                                         .actor = S("user:test"),
                                         .reason = S("test")};

    return registry_register(&f->env, f->m, &req, ret, e);
}

/* code(region) + x, where north is 0 and south 10: a text and a number, each its own input. */
static const char *sum_model(struct fixture *f)
{
    static const str names[] = {S_INIT("north"), S_INIT("south")};
    const float codes[] = {0, 10};
    const int64_t dims[] = {-1, 1};
    const char *path = path_join(&f->a, f->env.state_dir, "sum.onnx");
    struct onnx_make o;
    struct err e;
    size_t node;

    onnx_begin(&o);
    node = pb_open(&o.bytes, 1);
    pb_put_bytes(&o.bytes, 1, S("region"));
    pb_put_bytes(&o.bytes, 2, S("code"));
    pb_put_bytes(&o.bytes, 4, S("LabelEncoder"));
    onnx_attr_strs(&o.bytes, S("keys_strings"), (const uint8_t[]){0, 1}, 2, names);
    onnx_attr_floats(&o.bytes, S("values_floats"), codes, 2);
    pb_put_bytes(&o.bytes, 7, S("ai.onnx.ml"));
    pb_close(&o.bytes, node);
    onnx_node(&o, "Add", "", "code", "x", "answer");
    onnx_input(&o, "region", ONNX_STRING, dims, 2);
    onnx_input(&o, "x", ONNX_FLOAT, dims, 2);
    onnx_output(&o, "answer", ONNX_FLOAT, dims, 2);
    CHECK_OK(file_replace(path, onnx_end(&o), &e), &e);
    buf_done(&o.bytes);
    return path;
}

static const struct eval_slice *slice_of(const struct eval_result *r, const char *value)
{
    for (size_t i = 0; i < r->slice_count; i++)
        if (str_eqz(r->slices[i].value, value))
            return &r->slices[i];
    return NULL;
}

/* Evaluates a registered version on a file, sliced by region. */
static int evaluate(struct fixture *f, const char *model, const struct registry_result *reg,
                    const char *label, const char *file, struct eval_result *ret, struct err *e)
{
    const str as_text[] = {S("region"), S("c")};
    struct score_env env = {.self = self, .work_dir = f->env.state_dir};
    AUTO(table_done) struct table t = {0};
    struct eval_request req = {.version = reg->version,
                               .size_bytes = 123,
                               .table = &t,
                               .label = str_of(label),
                               .latency_rows = 50};
    struct eval_config cfg;
    struct json *shown;
    char *path;

    TRY(evaluate_config_read(json_get(json_get(f->project, S("models")), str_of(model)), &cfg, e));
    cfg.slices[cfg.slice_count++] = S("region");
    TRY(registry_show(f->m, str_of(model), reg->version, &f->a, &shown, e));
    TRY(blobs_path(f->blobs, str_of(reg->artifact), &f->a, &path, e));
    TRY(table_read(&(struct table_query){.path = path_join(&f->a, folder, file),
                                         .as_text = as_text,
                                         .as_text_count = 2,
                                         .order_by = S("t")},
                   &t, e));
    req.path = path;
    req.platform = json_str_or(json_get(shown, S("platform")), S(""));
    req.signature = json_get(shown, S("signature"));
    req.config = &cfg;
    return evaluate_version(&env, &req, ret, e);
}

static void check_regression(const char *model, const char *file)
{
    AUTO(fixture_done) struct fixture f;
    AUTO(eval_result_done) struct eval_result r = {0};
    const struct eval_slice *north, *south;
    struct registry_result reg;
    struct json *profile, *shown;
    struct plan_signature sig;
    struct err e;
    str text;

    NEED(fixture_init(&f, model));
    NEED_OK(add(&f, model, sum_model(&f), &reg, &e), &e);
    NEED_OK(registry_show(f.m, str_of(model), 1, &f.a, &shown, &e), &e);
    NEED_OK(plan_signature_read(json_get(shown, S("signature")), &f.a, &sig, &e), &e);
    CHECK_INT(sig.input_count, 2);
    CHECK_INT(sig.columns[0].type, FIELD_STRING);
    CHECK_INT(
        json_int_or(json_get(json_at(json_path(shown, "signature.columns"), 1), S("input")), -1),
        1);
    CHECK_INT(sig.reading.value, 0);
    CHECK_INT(sig.reading.label, -1);
    /* One in three is one off: a mean squared error of a third. */
    NEED_OK(blobs_get(f.blobs, str_of(reg.profile), 1 << 24, &f.a, &text, &e), &e);
    NEED_OK(json_parse(text, &f.a, &profile, &e), &e);
    CHECK_STR(json_str_or(json_path(profile, "labels.metric"), S("")), S("mse"));
    CHECK_NEAR(json_real_or(json_path(profile, "labels.errors"), 0), ROWS / 3, 1e-2);

    NEED_OK(evaluate(&f, model, &reg, "y", file, &r, &e), &e);
    CHECK_INT(r.n, ROWS);
    CHECK_INT(r.version, 1);
    CHECK_NEAR(r.metrics[EVAL_MAE], 1.0 / 3, 1e-5);
    CHECK(isnan(r.metrics[EVAL_F1]));
    CHECK(r.p50_ns > 0 && r.p99_ns >= r.p50_ns);
    north = slice_of(&r, "north"), south = slice_of(&r, "south");
    NEED(north && south);
    CHECK_INT(north->n + south->n, ROWS);
    CHECK_NEAR(north->metrics[EVAL_MAE], 0, 1e-5);
    CHECK_NEAR(south->metrics[EVAL_MAE], 1, 1e-5);
}

static void test_regression_on_json_lines(void)
{
    check_regression("r", "d.jsonl");
}

static void test_regression_on_parquet(void)
{
    check_regression("rp", "d.parquet");
}

static void test_classification(void)
{
    AUTO(fixture_done) struct fixture f;
    AUTO(eval_result_done) struct eval_result r = {0};
    AUTO(eval_result_done) struct eval_result none = {0};
    const struct eval_slice *south;
    struct registry_result reg;
    struct err e;

    NEED(fixture_init(&f, "c"));
    NEED_OK(add(&f, "c", XGB_MODEL, &reg, &e), &e);
    NEED_OK(evaluate(&f, "c", &reg, "c", "d.jsonl", &r, &e), &e);
    CHECK_INT(r.classes, 2);
    CHECK_STR(r.class_names[1], S("1"));
    CHECK_NEAR(r.metrics[EVAL_ACCURACY], 2.0 / 3, 1e-12);
    CHECK(isfinite(r.metrics[EVAL_ROC_AUC]) && isfinite(r.metrics[EVAL_BRIER]));
    south = slice_of(&r, "south");
    NEED(south);
    CHECK_NEAR(south->metrics[EVAL_ACCURACY], 0, 0);
    CHECK(r.p99_ns > 0);
    CHECK_FAILS(evaluate(&f, "c", &reg, "nothing", "d.jsonl", &none, &e), INVALID_ARGUMENT, &e,
                "no label column 'nothing'");
    CHECK_FAILS(evaluate(&f, "c", &reg, "region", "d.jsonl", &none, &e), FAILED_PRECONDITION, &e,
                "none of the");
}

/* Newer than the runtime, and a model of the wrong kind for its task. */
static void test_files_that_do_not_fit(void)
{
    AUTO(fixture_done) struct fixture f;
    const int64_t dims[] = {-1, 1};
    struct registry_result reg;
    struct buf bytes;
    const char *path;
    struct err e;
    size_t at, graph;

    NEED(fixture_init(&f, "unfit"));
    path = path_join(&f.a, f.env.state_dir, "new.onnx");
    buf_init(&bytes, 1 << 16);
    pb_int(&bytes, 1, 8);
    at = pb_open(&bytes, 8);
    pb_put_bytes(&bytes, 1, S(""));
    pb_int(&bytes, 2, 999);
    pb_close(&bytes, at);
    graph = pb_open(&bytes, 7);
    pb_put_bytes(&bytes, 2, S("test"));
    at = pb_open(&bytes, 1);
    pb_put_bytes(&bytes, 1, S("x"));
    pb_put_bytes(&bytes, 2, S("answer"));
    pb_put_bytes(&bytes, 4, S("Identity"));
    pb_close(&bytes, at);
    onnx_value_info(&bytes, 11, S("x"), ONNX_FLOAT, dims, 2);
    onnx_value_info(&bytes, 12, S("answer"), ONNX_FLOAT, dims, 2);
    pb_close(&bytes, graph);
    CHECK_OK(file_replace(path, buf_str(&bytes), &e), &e);
    buf_done(&bytes);
    CHECK_FAILS(add(&f, "unknown", path, &reg, &e), INVALID_ARGUMENT, &e, "opset");
    CHECK_FAILS(add(&f, "r", XGB_MODEL, &reg, &e), FAILED_PRECONDITION, &e, "");
}

static const struct check_test tests[] = {
    T(test_regression_on_json_lines),
    T(test_regression_on_parquet),
    T(test_classification),
    T(test_files_that_do_not_fit),
};

int main(int argc, char **argv)
{
    AUTO(arena_done) struct arena a = {0};
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (argc > 1 && strcmp(argv[1], "probe") == 0)
        return probe_main(argc - 1, argv + 1);
    arena_init(&a, 0);
    if (n < 0 || !check_mkdtemp(folder) || !data_make(&a))
        return EXIT_FAILURE;
    return check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
}
