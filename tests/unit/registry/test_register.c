/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registration from end to end, with real children: this program is its own probe, by the argument
 * "probe". Data and models are made here; nothing is mocked.
 */
#include "check.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "journal/alias.h"
#include "registry/probe.h"
#include "registry/registry.h"
#include "serve/runtime/onnx_make.h"
#include "stats/cells.h"
#include "stats/edetector.h"

#include <sys/stat.h>
#include <unistd.h>

#define ROWS 3000
#define XGB_MODEL "tests/fuzz/corpus/xgb_onnx/binary" /* a < 0.5 or missing: 1, else -1 */

static char folder[] = "/tmp/weir-registry-XXXXXX";
static char self[4096];

struct fixture {
    struct arena a;
    struct meta_store *store;
    struct meta *m;
    struct blobs *blobs;
    struct registry_env env;
    struct json *project;
};

static const char project_text[] =
    "{\"datasets\":{\"d\":{\"path\":\"data.csv\",\"format\":\"auto\",\"label\":\"y\",\"time\":"
    "\"t\"}},"
    "\"models\":{\"m\":{\"task\":\"classification\",\"dataset\":\"d\",\"label\":null,"
    "\"classes\":[\"0\",\"1\"],\"positive\":\"1\",\"threshold\":0.5,\"features\":null,\"input\":{},"
    "\"owner\":\"risk\",\"tags\":[\"cards\"],\"description\":\"\"},"
    "\"bare\":{\"task\":\"classification\",\"dataset\":null,\"features\":[{\"name\":\"a\","
    "\"type\":\"double\",\"required\":true,\"min\":0,\"max\":1},{\"name\":\"b\",\"type\":\"float\","
    "\"required\":false}],\"classes\":[],\"positive\":null},"
    "\"ort\":{\"task\":\"classification\",\"dataset\":null,\"features\":[],\"classes\":[],"
    "\"positive\":null,\"platform\":\"onnxruntime_onnx\"},"
    "\"wide\":{\"task\":\"classification\",\"dataset\":null,\"features\":[{\"name\":\"a\"}],"
    "\"classes\":[],\"positive\":null}},"
    "\"endpoints\":{\"e\":{\"model\":\"m\"}},"
    "\"monitors\":{\"w\":{\"endpoint\":\"e\",\"tolerance\":0.1,\"features\":{}}}}";

static const char *in_folder(struct arena *a, const char *name)
{
    return path_join(a, folder, name);
}

/* t, a in [0,1), b normal with gaps, y = a < 0.5 but wrong for one in ten. */
static bool data_make(struct arena *a)
{
    AUTO(buf_done) struct buf text = {0};
    struct rng rng;
    struct err e;

    buf_init(&text, 1 << 20);
    rng_seed(&rng, 5);
    buf_add_str(&text, S("t,a,b,y\n"));
    for (int i = 0; i < ROWS; i++) {
        double x = rng_uniform(&rng);
        int y = (x < 0.5) != (i % 10 == 0);

        buf_printf(&text, "%d,%.17g,", i, x);
        if (i % 7)
            buf_printf(&text, "%.17g", rng_normal(&rng));
        buf_printf(&text, ",%d\n", y);
    }
    return CHECK_OK(file_replace(in_folder(a, "data.csv"), buf_str(&text), &e), &e);
}

static void fixture_done(struct fixture *f)
{
    meta_close(f->m);
    meta_store_close(f->store);
    blobs_close(f->blobs);
    arena_done(&f->a);
}

static bool fixture_init(struct fixture *f, const char *name)
{
    struct err e;
    char *dir;

    *f = (struct fixture){0};
    arena_init(&f->a, 0);
    dir = path_join(&f->a, folder, name);
    if (!CHECK_OK(meta_store_open(dir, NULL, &f->store, &e), &e) ||
        !CHECK_OK(meta_open(f->store, &f->m, &e), &e) ||
        !CHECK_OK(blobs_open(path_join(&f->a, dir, "blobs"), &f->blobs, &e), &e) ||
        !CHECK_OK(json_parse(str_of(project_text), &f->a, &f->project, &e), &e))
        return false;
    f->env = (struct registry_env){.store = f->store,
                                   .blobs = f->blobs,
                                   .project_dir = folder,
                                   .state_dir = dir,
                                   .self = self};
    return data_make(&f->a);
}

static struct registry_request request(struct fixture *f, const char *model, const char *path)
{
    return (struct registry_request){.model = str_of(model),
                                     .path = path,
                                     .project = f->project,
                                     .actor = S("user:test"),
                                     .reason = S("test")};
}

static int64_t facts(struct fixture *f, const char *type)
{
    struct err e;
    int64_t n = -1;

    CHECK_OK(meta_first_int(f->m, "SELECT count(*) FROM journal WHERE type = ?",
                            M_ARGS(M_STR(str_of(type))), 0, &n, &e),
             &e);
    return n;
}

static const struct json *member(const struct json *list, const char *name)
{
    JSON_EACH (c, list)
        if (str_eqz(json_str_or(json_get(c, S("name")), STR_NULL), name))
            return c;
    return NULL;
}

/* --- The whole way ---------------------------------------------------------------------------- */

static void check_profile(struct fixture *f, str hash)
{
    static const char *const names[] = {"a", "b", "label", "probabilities_0", "probabilities_1"};
    struct json *profile, *columns;
    struct cells_spec spec;
    struct edetector_bank bank;
    struct err e;
    size_t i = 0;
    str text;

    NEED_OK(blobs_get(f->blobs, hash, 1 << 24, &f->a, &text, &e), &e);
    NEED_OK(json_parse(text, &f->a, &profile, &e), &e);
    CHECK_INT(json_int_or(json_get(profile, S("rows")), 0), ROWS);
    columns = json_get(profile, S("columns"));
    NEED(columns && columns->count == ARRAY_LEN(names));
    JSON_EACH (c, columns)
        CHECK_STR(json_str_or(json_get(c, S("name")), S("")), str_of(names[i++]));
    NEED_OK(cells_spec_from_json(json_get(member(columns, "a"), S("cells")), &spec, &e), &e);
    CHECK_INT(spec.ref_n, ROWS);
    CHECK_NEAR(spec.centre, 0.5, 0.03);
    NEED_OK(edetector_bank_from_json(json_get(member(columns, "a"), S("detector")), &bank, &e), &e);
    CHECK_NEAR(bank.tol_sd, 0.1, 1e-12); /* of the monitor */
    NEED_OK(cells_spec_from_json(json_get(member(columns, "b"), S("cells")), &spec, &e), &e);
    CHECK_INT(spec.ref_counts[cells_missing(&spec)], (ROWS + 6) / 7);
    NEED_OK(cells_spec_from_json(json_get(member(columns, "label"), S("cells")), &spec, &e), &e);
    CHECK_INT(spec.bins, 2);
    /* Every tenth label is wrong: the model has exactly that error rate. */
    CHECK_INT(json_int_or(json_path(profile, "labels.n"), 0), ROWS);
    CHECK_NEAR(json_real_or(json_path(profile, "labels.errors"), 0), ROWS / 10, 0);
    CHECK(json_bool_or(json_path(profile, "labels.in_sample"), false));
}

static void test_register_xgboost(void)
{
    AUTO(fixture_done) struct fixture f;
    struct registry_result r;
    struct registry_request req;
    struct plan_signature sig;
    struct json *shown, *metrics;
    const char *stage;
    struct err e;

    NEED(fixture_init(&f, "xgb"));
    req = request(&f, "m", XGB_MODEL);
    req.first_promote = true;
    metrics = json_new_object(&f.a);
    json_set_real(&f.a, metrics, S("f1"), 0.9);
    req.metrics = metrics;
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    CHECK_INT(r.version, 1);
    CHECK(r.promoted && r.profile[0]);
    CHECK_STR(str_of(r.source), str_of(r.artifact));
    CHECK(strstr(r.note, "holdout") != NULL);
    CHECK_INT(facts(&f, "model.registered"), 1);
    CHECK_INT(facts(&f, "alias.moved"), 1);
    check_profile(&f, str_of(r.profile));
    NEED_OK(registry_show(f.m, S("m"), 0, &f.a, &shown, &e), &e);
    CHECK_STR(json_str_or(json_get(shown, S("stage")), S("")), S("production"));
    CHECK_STR(json_str_or(json_get(shown, S("owner")), S("")), S("risk"));
    CHECK_STR(json_str_or(json_get(shown, S("algorithm")), S("")), S("binary:logistic"));
    NEED_OK(plan_signature_read(json_get(shown, S("signature")), &f.a, &sig, &e), &e);
    CHECK_INT(sig.column_count, 2);
    CHECK_STR(sig.columns[1].name, S("b"));
    CHECK(sig.columns[0].required && !sig.columns[1].required); /* b has gaps */
    CHECK_INT(sig.reading.positive, 1);
    CHECK_INT(sig.reading.probabilities, 1);
    CHECK(json_path(shown, "golden.output.probabilities_1") != NULL);

    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    CHECK_INT(r.version, 2);
    CHECK(!r.promoted);
    NEED_OK(registry_stage(f.m, S("m"), 2, &stage, &e), &e);
    CHECK_STR(str_of(stage), S("experimental"));
}

static const char lightgbm_text[] =
    "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=1\n"
    "objective=binary sigmoid:1\nfeature_names=a b\nfeature_infos=[0:1] none\ntree_sizes=200\n\n"
    "Tree=0\nnum_leaves=2\nnum_cat=0\nsplit_feature=0\nsplit_gain=1\nthreshold=0.5\n"
    "decision_type=10\nleft_child=-1\nright_child=-2\nleaf_value=1 -1\nis_linear=0\nshrinkage=1\n"
    "\n\nend of trees\n";

static str said(struct fixture *f, const char *model, const char *key)
{
    struct json *shown;
    struct err e;

    if (!CHECK_OK(registry_show(f->m, str_of(model), 0, &f->a, &shown, &e), &e))
        return S("");
    return json_str_or(json_get(shown, str_of(key)), S(""));
}

/* The tree engine computes what it can; ONNX Runtime the rest, and what the project gives to it. */
static void test_platforms(void)
{
    AUTO(fixture_done) struct fixture f;
    struct registry_result r;
    struct registry_request req;
    struct json *own, *theirs;
    const char *path;
    char *blob;
    struct err e;

    NEED(fixture_init(&f, "platforms"));
    req = request(&f, "unknown", XGB_MODEL);
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    CHECK_STR(said(&f, "unknown", "platform"), S("weir_trees"));
    req = request(&f, "ort", XGB_MODEL);
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    CHECK_STR(said(&f, "ort", "platform"), S("onnxruntime_onnx"));
    CHECK(strcmp(r.source, r.artifact) != 0);
    NEED_OK(registry_show(f.m, S("unknown"), 1, &f.a, &own, &e), &e);
    NEED_OK(registry_show(f.m, S("ort"), 1, &f.a, &theirs, &e), &e);
    for (const char *const *key =
             (const char *const[]){"inputs", "outputs", "columns", "reading", NULL};
         *key; key++)
        CHECK(json_equal(json_get(json_get(own, S("signature")), str_of(*key)),
                         json_get(json_get(theirs, S("signature")), str_of(*key))));
    CHECK(json_equal(json_path(own, "golden.output.label"),
                     json_path(theirs, "golden.output.label")));
    CHECK_NEAR(json_real_or(json_path(own, "golden.output.probabilities_1"), 0),
               json_real_or(json_path(theirs, "golden.output.probabilities_1"), 1), 1e-6);

    /* The ONNX file that came of it is a lone tree ensemble. */
    NEED_OK(blobs_path(f.blobs, str_of(r.artifact), &f.a, &blob, &e), &e);
    req = request(&f, "lone", blob);
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    CHECK_STR(said(&f, "lone", "platform"), S("weir_trees"));
    CHECK_STR(said(&f, "lone", "format"), S("onnx"));

    path = in_folder(&f.a, "model.txt");
    NEED_OK(file_replace(path, str_of(lightgbm_text), &e), &e);
    req = request(&f, "lgb", path);
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    CHECK_STR(said(&f, "lgb", "platform"), S("weir_trees"));
    CHECK_STR(said(&f, "lgb", "format"), S("lightgbm"));
    CHECK_STR(said(&f, "lgb", "algorithm"), S("binary"));
    req = request(&f, "ort", path);
    CHECK_FAILS(registry_register(&f.env, f.m, &req, &r, &e), FAILED_PRECONDITION, &e,
                "a LightGBM model is not ONNX");
}

static void test_register_again_is_equal(void)
{
    AUTO(fixture_done) struct fixture f;
    struct registry_result r1, r2;
    struct registry_request req;
    struct err e;

    NEED(fixture_init(&f, "equal"));
    req = request(&f, "m", XGB_MODEL);
    req.holdout = in_folder(&f.a, "data.csv");
    NEED_OK(registry_register(&f.env, f.m, &req, &r1, &e), &e);
    NEED_OK(registry_register(&f.env, f.m, &req, &r2, &e), &e);
    CHECK_STR(str_of(r1.profile), str_of(r2.profile));
    CHECK_STR(str_of(r1.artifact), str_of(r2.artifact));
    CHECK_STR(str_of(r1.note), S(""));
}

static void test_register_without_data(void)
{
    AUTO(fixture_done) struct fixture f;
    struct registry_result r;
    struct registry_request req;
    struct json *shown;
    struct err e;

    NEED(fixture_init(&f, "bare"));
    req = request(&f, "bare", XGB_MODEL);
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    CHECK(!r.profile[0] && strstr(r.note, "no reference data"));
    NEED_OK(registry_show(f.m, S("bare"), 1, &f.a, &shown, &e), &e);
    CHECK_NEAR(json_real_or(json_path(shown, "golden.tolerance"), 0), 1e-4, 1e-12);
    req = request(&f, "unknown", XGB_MODEL);
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    NEED_OK(registry_show(f.m, S("unknown"), 1, &f.a, &shown, &e), &e);
    CHECK_STR(
        json_str_or(json_get(json_at(json_path(shown, "signature.columns"), 0), S("name")), S("")),
        S("a"));
    req = request(&f, "wide", XGB_MODEL);
    CHECK_FAILS(registry_register(&f.env, f.m, &req, &r, &e), FAILED_PRECONDITION, &e,
                "1 features");
}

static void test_golden_must_agree(void)
{
    AUTO(fixture_done) struct fixture f;
    struct registry_result r;
    struct registry_request req;
    struct json *golden;
    struct err e;

    NEED(fixture_init(&f, "golden"));
    req = request(&f, "bare", XGB_MODEL);
    golden = json_new_object(&f.a);
    /* the synthetic first row is a = 0: margin 1 */
    json_set_real(&f.a, golden, S("probabilities_1"), 1 / (1 + exp(-1)));
    json_set_int(&f.a, golden, S("label"), 1);
    req.golden = golden;
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    json_set_real(&f.a, golden, S("probabilities_1"), 0.7);
    CHECK_FAILS(registry_register(&f.env, f.m, &req, &r, &e), INVALID_ARGUMENT, &e,
                "output 'probabilities_1' is");
    CHECK_INT(facts(&f, "model.refused"), 1);
}

/* --- Hostile files ---------------------------------------------------------------------------- */

static const char *put(struct fixture *f, const char *name, str bytes)
{
    const char *path = path_join(&f->a, f->env.state_dir, name);
    struct err e;

    CHECK_OK(file_replace(path, bytes, &e), &e);
    return path;
}

static void refuse(struct fixture *f, const char *name, str bytes, const char *part)
{
    struct registry_request req = request(f, "hostile", put(f, name, bytes));
    int64_t before = facts(f, "model.refused"), n;
    struct registry_result r;
    struct err e;

    CHECK_FAILS(registry_register(&f->env, f->m, &req, &r, &e), INVALID_ARGUMENT, &e, part);
    CHECK_INT(facts(f, "model.refused"), before + 1);
    CHECK_OK(meta_first_int(f->m, "SELECT count(*) FROM models", M_NO_ARGS, 0, &n, &e), &e);
    CHECK_INT(n, 0);
}

static str identity(struct onnx_make *o, int64_t width, int64_t opset_rank)
{
    const int64_t dims[] = {-1, width};

    onnx_begin(o);
    onnx_node(o, "Identity", "", "x", "", "y");
    onnx_input(o, "x", ONNX_FLOAT, dims, (size_t)opset_rank);
    onnx_output(o, "y", ONNX_FLOAT, dims, (size_t)opset_rank);
    return onnx_end(o);
}

static void test_hostile_files(void)
{
    AUTO(fixture_done) struct fixture f;
    AUTO(buf_done) struct buf noise = {0};
    struct onnx_make o;
    struct rng rng;
    str good, xgb;
    struct err e;

    NEED(fixture_init(&f, "hostile"));
    good = identity(&o, 2, 2);
    refuse(&f, "empty", S(""), "empty");
    refuse(&f, "truncated.onnx", str_take(good, good.n / 2), "refused");
    refuse(&f, "pickle.onnx", S("\x80\x04\x95 rest"), "pickle");
    refuse(&f, "zip.onnx", S("PK\x03\x04 rest"), "ZIP");
    NEED_OK(file_read_all(XGB_MODEL, 1 << 20, &f.a, &xgb, &e), &e);
    refuse(&f, "truncated.json", str_take(xgb, xgb.n - 40), "refused");
    refuse(&f, "other.json", S("{\"a\":1}"), "refused");
    buf_init(&noise, 1 << 20);
    rng_seed(&rng, 3);
    for (int i = 0; i < 5000; i++)
        buf_add_char(&noise, (char)rng_u64(&rng));
    refuse(&f, "noise.onnx", buf_str(&noise), "refused");
    buf_done(&o.bytes);

    /* An operator that no opset has. */
    onnx_begin(&o);
    onnx_node(&o, "RunShell", "", "x", "", "y");
    onnx_input(&o, "x", ONNX_FLOAT, (const int64_t[]){-1, 2}, 2);
    onnx_output(&o, "y", ONNX_FLOAT, (const int64_t[]){-1, 2}, 2);
    refuse(&f, "operator.onnx", onnx_end(&o), "RunShell");
    buf_done(&o.bytes);
}

/* Weights that lie in another file: the old way to read what one should not. */
static void test_external_data_is_refused(void)
{
    AUTO(fixture_done) struct fixture f;
    struct onnx_make o;
    size_t tensor, entry;

    NEED(fixture_init(&f, "external"));
    onnx_begin(&o);
    onnx_node(&o, "Add", "", "x", "w", "y");
    tensor = pb_open(&o.bytes, 5);
    pb_int(&o.bytes, 1, 2);
    pb_int(&o.bytes, 2, ONNX_FLOAT);
    pb_put_bytes(&o.bytes, 8, S("w"));
    entry = pb_open(&o.bytes, 13);
    pb_put_bytes(&o.bytes, 1, S("location"));
    pb_put_bytes(&o.bytes, 2, S("../../etc/passwd"));
    pb_close(&o.bytes, entry);
    pb_int(&o.bytes, 14, 1);
    pb_close(&o.bytes, tensor);
    onnx_input(&o, "x", ONNX_FLOAT, (const int64_t[]){-1, 2}, 2);
    onnx_output(&o, "y", ONNX_FLOAT, (const int64_t[]){-1, 2}, 2);
    refuse(&f, "external.onnx", onnx_end(&o), "external");
    buf_done(&o.bytes);
}

/* A few bytes that ask for terabytes: 2^40 floats a row, and a constant of 2^36 floats. */
static void test_huge_shapes(void)
{
    AUTO(fixture_done) struct fixture f;
    struct registry_request req;
    struct registry_result r;
    struct onnx_make o;
    size_t node, tensor;
    struct err e;

    NEED(fixture_init(&f, "huge"));
    onnx_begin(&o);
    node = pb_open(&o.bytes, 1);
    pb_put_bytes(&o.bytes, 1, S("dims"));
    pb_put_bytes(&o.bytes, 2, S("big"));
    pb_put_bytes(&o.bytes, 4, S("ConstantOfShape"));
    pb_close(&o.bytes, node);
    onnx_node(&o, "ReduceSum", "", "big", "", "sum");
    onnx_node(&o, "Add", "", "x", "sum", "y");
    tensor = pb_open(&o.bytes, 5);
    pb_int(&o.bytes, 1, 1);
    pb_int(&o.bytes, 2, ONNX_INT64);
    pb_int(&o.bytes, 7, INT64_C(1) << 36);
    pb_put_bytes(&o.bytes, 8, S("dims"));
    pb_close(&o.bytes, tensor);
    onnx_input(&o, "x", ONNX_FLOAT, (const int64_t[]){-1, 1}, 2);
    onnx_output(&o, "y", ONNX_FLOAT, (const int64_t[]){-1, 1}, 2);
    refuse(&f, "constant.onnx", onnx_end(&o), "refused");
    buf_done(&o.bytes);
    /* A declared width of 2^40 loads, but has no row form: served, not watched. */
    req = request(&f, "giant", put(&f, "wide.onnx", identity(&o, INT64_C(1) << 40, 2)));
    CHECK_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    CHECK(strstr(r.note, "open sizes"));
    buf_done(&o.bytes);
}

/* The child dies, hangs, or is not what it should be: one error each, told apart. */
static void test_child_ends_badly(void)
{
    AUTO(fixture_done) struct fixture f;
    struct score_env env;
    struct score_model model;
    struct err e;

    NEED(fixture_init(&f, "child"));
    env = (struct score_env){.work_dir = f.env.state_dir};
    env.self = "/bin/false";
    CHECK_FAILS(score_open(&env, S("onnx"), XGB_MODEL, &f.a, &model, &e), INVALID_ARGUMENT, &e,
                "exit status 1");
    env.self = put(&f, "crash", S("#!/bin/sh\necho last words >&2\nkill -SEGV $$\n"));
    CHECK_INT(chmod(env.self, 0700), 0);
    CHECK_FAILS(score_open(&env, S("onnx"), XGB_MODEL, &f.a, &model, &e), INVALID_ARGUMENT, &e,
                "last words");
    CHECK(strstr(e.msg, "SIGSEGV") != NULL);
    env.self = put(&f, "hang", S("#!/bin/sh\nexec sleep 100\n"));
    CHECK_INT(chmod(env.self, 0700), 0);
    env.limits.time_ns = 200 * NS_PER_MS;
    CHECK_FAILS(score_open(&env, S("onnx"), XGB_MODEL, &f.a, &model, &e), INVALID_ARGUMENT, &e,
                "did not end in time");
    env.self = "/nowhere/weir";
    CHECK_FAILS(score_open(&env, S("onnx"), XGB_MODEL, &f.a, &model, &e), NOT_FOUND, &e,
                "/nowhere/weir");
}

/* --- Aliases ---------------------------------------------------------------------------------- */

static void test_aliases(void)
{
    AUTO(fixture_done) struct fixture f;
    struct registry_request req;
    struct registry_result r;
    int64_t t0, t1, version, since;
    struct json *list;
    struct err e;

    NEED(fixture_init(&f, "alias"));
    req = request(&f, "bare", XGB_MODEL);
    for (int i = 0; i < 3; i++)
        NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    time_test_virtual(1, 1000 * NS_PER_S);
    NEED_OK(registry_alias_move(f.m, S("bare"), S("champion"), 1, S("user:a"), S("first"), S(""),
                                NULL, &e),
            &e);
    t0 = time_wall_ns();
    time_test_advance(100 * NS_PER_S);
    NEED_OK(registry_alias_move(f.m, S("bare"), S("champion"), 2, S("user:a"), S("better"), S(""),
                                &version, &e),
            &e);
    CHECK_INT(version, 1);
    t1 = time_wall_ns();
    NEED_OK(registry_live_at(f.m, S("bare"), t0 - 1, &version, &e), &e);
    CHECK_INT(version, 0);
    NEED_OK(registry_live_at(f.m, S("bare"), t1 - 1, &version, &e), &e);
    CHECK_INT(version, 1);
    NEED_OK(registry_live_at(f.m, S("bare"), t1, &version, &e), &e);
    CHECK_INT(version, 2);
    NEED_OK(registry_previous_champion(f.m, S("bare"), &version, &since, &e), &e);
    CHECK_INT(version, 1);
    CHECK_INT(since, t1);
    CHECK_FAILS(
        registry_alias_move(f.m, S("bare"), S("champoin"), 1, S(""), S(""), S(""), NULL, &e),
        INVALID_ARGUMENT, &e, "did you mean 'champion'");
    CHECK_FAILS(registry_alias_move(f.m, S("bare"), S("shadow"), 9, S(""), S(""), S(""), NULL, &e),
                NOT_FOUND, &e, "no version 9");

    CHECK_FAILS(registry_version_remove(f.m, S("bare"), 2, 0, S("u"), S("r"), &e),
                FAILED_PRECONDITION, &e, "is 'champion'");
    CHECK_FAILS(registry_version_remove(f.m, S("bare"), 1, NS_PER_S, S("u"), S("r"), &e),
                FAILED_PRECONDITION, &e, "way back");
    time_test_advance(2 * NS_PER_S);
    CHECK_OK(registry_version_remove(f.m, S("bare"), 1, NS_PER_S, S("u"), S("r"), &e), &e);
    CHECK_OK(registry_version_remove(f.m, S("bare"), 3, 0, S("u"), S("r"), &e), &e);
    CHECK_FAILS(registry_alias_move(f.m, S("bare"), S("shadow"), 3, S(""), S(""), S(""), NULL, &e),
                NOT_FOUND, &e, "no version 3");
    NEED_OK(
        registry_alias_move(f.m, S("bare"), S("champion"), 0, S("u"), S("none"), S(""), NULL, &e),
        &e);
    NEED_OK(alias_history(f.m, S("bare"), 100, &f.a, &list, &e), &e);
    CHECK_INT(list->count, 3);
    CHECK_INT(facts(&f, "alias.moved"), 3);
    time_test_real();
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    CHECK_INT(r.version, 4); /* numbers are never given again */
}

static void test_list_filters(void)
{
    AUTO(fixture_done) struct fixture f;
    struct registry_request req;
    struct registry_result r;
    struct registry_filter filter = {.metric = S("f1"), .metric_min = 0.8, .metric_max = 1};
    struct json *list, *metrics, *value;
    struct err e;

    NEED(fixture_init(&f, "list"));
    req = request(&f, "bare", XGB_MODEL);
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    req = request(&f, "other", XGB_MODEL);
    metrics = json_new_object(&f.a);
    value = json_set_real(&f.a, metrics, S("f1"), 0.7);
    req.metrics = metrics;
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    value->real = 0.9;
    req.promote = true;
    NEED_OK(registry_register(&f.env, f.m, &req, &r, &e), &e);
    NEED_OK(registry_list(f.m, NULL, &f.a, &list, &e), &e);
    CHECK_INT(list->count, 2);
    NEED_OK(registry_list(f.m, &filter, &f.a, &list, &e), &e);
    NEED(list->count == 1);
    CHECK_INT(json_get(json_at(list, 0), S("versions"))->count, 1);
    CHECK_INT(json_int_or(json_get(json_at(list, 0), S("champion")), 0), 2);
    filter = (struct registry_filter){.stage = S("production")};
    NEED_OK(registry_list(f.m, &filter, &f.a, &list, &e), &e);
    CHECK_INT(list->count, 1);
    filter = (struct registry_filter){.tag = S("none")};
    NEED_OK(registry_list(f.m, &filter, &f.a, &list, &e), &e);
    CHECK_INT(list->count, 0);
    CHECK_FAILS(registry_version_annotate(f.m, S("other"), 2, S("signature"), metrics, &e),
                INVALID_ARGUMENT, &e, "cannot be changed");
    CHECK_OK(registry_version_annotate(f.m, S("other"), 2, S("evaluation"), metrics, &e), &e);
    NEED_OK(registry_show(f.m, S("other"), 2, &f.a, &list, &e), &e);
    CHECK_NEAR(json_real_or(json_path(list, "evaluation.f1"), 0), 0.9, 0);
    CHECK_FAILS(registry_show(f.m, S("other"), 7, &f.a, &list, &e), NOT_FOUND, &e, "version 7");
}

/* --- The flow --------------------------------------------------------------------------------- */

static NODISCARD int project_of(void *ctx, struct meta *m, struct arena *a, struct json **ret_tree,
                                struct err *e)
{
    (void)ctx, (void)m;
    return json_parse(str_of(project_text), a, ret_tree, e);
}

static void test_flow(void)
{
    AUTO(fixture_done) struct fixture f;
    AUTO(flow_engine_freep) struct flow_engine *engine = NULL;
    struct flow_reg reg = {registry_flow(), NULL};
    struct flow_start start = {.type = "register"};
    struct flow_started started;
    struct json *input, *flow;
    bool ran = true;
    struct err e;

    NEED(fixture_init(&f, "flow"));
    f.env.project = project_of;
    reg.env = &f.env;
    NEED_OK(
        flow_engine_new(f.store, &(struct flow_options){.regs = &reg, .reg_count = 1}, &engine, &e),
        &e);
    input = json_new_object(&f.a);
    json_set_str(&f.a, input, S("model"), S("m"));
    json_set_str(&f.a, input, S("path"), S(XGB_MODEL));
    start.input = input;
    NEED_OK(flow_start(f.m, &start, &started, &e), &e);
    while (ran)
        NEED_OK(flow_run_one(engine, &ran, &e), &e);
    NEED_OK(flow_show(f.m, str_of(started.id), &f.a, &flow, &e), &e);
    CHECK_STR(json_str_or(json_get(flow, S("state")), S("")), S("done"));
    CHECK_INT(json_int_or(json_path(flow, "result.version"), 0), 1);
    CHECK(json_bool_or(json_path(flow, "result.promoted"), false));

    json_set_str(&f.a, input, S("path"), str_of(put(&f, "bad", S("junk"))));
    NEED_OK(flow_start(f.m, &start, &started, &e), &e);
    ran = true;
    while (ran)
        NEED_OK(flow_run_one(engine, &ran, &e), &e);
    NEED_OK(flow_show(f.m, str_of(started.id), &f.a, &flow, &e), &e);
    CHECK_STR(json_str_or(json_get(flow, S("state")), S("")), S("failed"));
    CHECK_INT(facts(&f, "model.refused"), 1);
    CHECK_INT(facts(&f, "model.registered"), 1);
}

static const struct check_test tests[] = {
    T(test_register_xgboost),
    T(test_platforms),
    T(test_register_again_is_equal),
    T(test_register_without_data),
    T(test_golden_must_agree),
    T(test_hostile_files),
    T(test_external_data_is_refused),
    T(test_huge_shapes),
    T(test_child_ends_badly),
    T(test_aliases),
    T(test_list_filters),
    T(test_flow),
};

int main(int argc, char **argv)
{
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (argc > 1 && strcmp(argv[1], "probe") == 0)
        return probe_main(argc - 1, argv + 1);
    if (n < 0 || !check_mkdtemp(folder))
        return EXIT_FAILURE;
    return check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
}
