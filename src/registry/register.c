/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registration, step by step. Everything slow happens before the one transaction that makes the
 * version, and leaves only blobs behind, which a collection removes when nothing names them.
 *
 * The file is copied into blobs first and only the copy is used from then on: what was checked is
 * what is served, whatever becomes of the original. A format is told by content, never by name.
 */
#include "registry/priv.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"
#include "journal/journal.h"
#include "registry/bundle.h"

#include <math.h>
#include <sys/stat.h>

#define META_BYTES_MAX ((size_t)16 << 20)
#define REFERENCE_CELLS_MAX ((size_t)1 << 26) /* 512 MiB of numbers */
#define REFERENCE_SEED 1
#define GOLDEN_TOLERANCE 1e-4
#define NOTE_TEXT 256

static void progress(const struct registry_request *req, const char *what)
{
    if (req->progress)
        req->progress(req->progress_ctx, what);
}

struct score_env register_score_env(const struct registry_env *env, struct arena *a)
{
    return (struct score_env){
        .self = env->self, .work_dir = path_join(a, env->state_dir, "work"), .limits = env->limits};
}

const struct json *register_section(const struct registry_request *req)
{
    return json_get(json_get(req->project, S("models")), req->model);
}

static const char *resolve(const struct registry_env *env, str path, struct arena *a)
{
    if (path.n && path.p[0] == '/')
        return arena_dupz(a, path);
    return path_join(a, env->project_dir, arena_dupz(a, path));
}

struct reference register_reference(const struct registry_env *env,
                                    const struct registry_request *req, struct arena *a)
{
    const struct json *model = register_section(req);
    const struct json *dataset = json_get(json_get(req->project, S("datasets")),
                                          json_str_or(json_get(model, S("dataset")), STR_NULL));
    struct reference ref = {0};

    ref.label = json_str_or(json_get(model, S("label")),
                            json_str_or(json_get(dataset, S("label")), STR_NULL));
    ref.time = json_str_or(json_get(dataset, S("time")), STR_NULL);
    ref.format = S("auto");
    if (req->reference)
        ref.path = req->reference;
    else if (dataset) {
        ref.path = resolve(env, json_str_or(json_get(dataset, S("path")), S("")), a);
        ref.format = json_str_or(json_get(dataset, S("format")), S("auto"));
    }
    return ref;
}

/* --- Copy ------------------------------------------------------------------------------------- */

/* Formats that people try, and what to do instead. */
static const struct {
    str magic;
    const char *what;
} foreign[] = {
    {S_INIT("PK\x03\x04"), "a ZIP archive (a PyTorch or Keras file?)"},
    {S_INIT("\x80\x02"), "a Python pickle, which is a program and never loaded"},
    {S_INIT("\x80\x03"), "a Python pickle, which is a program and never loaded"},
    {S_INIT("\x80\x04"), "a Python pickle, which is a program and never loaded"},
    {S_INIT("\x80\x05"), "a Python pickle, which is a program and never loaded"},
    {S_INIT("\x89HDF"), "an HDF5 file"},
    {S_INIT("\x1f\x8b"), "a gzip file"},
    {S_INIT("binf"), "an XGBoost file of the old binary form: save it as .json"},
};

static NODISCARD int format_detect(str head, const char **ret_format, struct err *e)
{
    str text = str_trim(head), rest = text, line = str_trim(str_cut(&rest, '\n'));

    for (size_t i = 0; i < ARRAY_LEN(foreign); i++)
        if (str_starts(head, foreign[i].magic))
            return FAIL(e, INVALID_ARGUMENT,
                        "refused: this is %s; export the model to ONNX, save an XGBoost model as "
                        "JSON, a LightGBM model as text, or serve it by a program of its own (a "
                        "folder with model.yaml)",
                        foreign[i].what);
    if (!head.n)
        return FAIL(e, INVALID_ARGUMENT, "refused: the file is empty");
    if (bundle_is(head)) {
        *ret_format = "bundle";
        return 0;
    }
    *ret_format = text.n && text.p[0] == '{' ? "xgboost"
                  : str_eq(line, S("tree"))  ? "lightgbm"
                                             : "onnx";
    return 0;
}

static NODISCARD int file_check(const char *path, uint64_t *ret_bytes, const char **ret_format,
                                struct err *e)
{
    AUTO(file_closep) int fd = -1;
    struct stat st;
    char head[512]; /* as much as tells a bundle */
    size_t n;

    if (stat(path, &st))
        return FAIL_ERRNO(e, "model file %s", path);
    if (!S_ISREG(st.st_mode))
        return FAIL(e, INVALID_ARGUMENT, "refused: %s is not a regular file", path);
    if ((uint64_t)st.st_size > REGISTRY_FILE_BYTES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "refused: %s has %lld MiB, at most %llu are taken", path,
                    (long long)(st.st_size >> 20),
                    (unsigned long long)(REGISTRY_FILE_BYTES_MAX >> 20));
    TRY(file_open(path, FILE_READ, &fd, e));
    TRY(file_pread(fd, head, sizeof(head), 0, &n, e));
    TRY(format_detect((str){head, n}, ret_format, e));
    *ret_bytes = (uint64_t)st.st_size;
    return 0;
}

static NODISCARD int convert(const struct registry_env *env, str source, struct arena *a,
                             struct json *candidate, char ret_artifact[BLOB_HASH_SIZE],
                             struct err *e)
{
    struct score_env child = register_score_env(env, a);
    struct json *info;
    char *path, *made;
    int rc;

    TRY(blobs_path(env->blobs, source, a, &path, e));
    made = arena_dupz(
        a, arena_printf(a, "%s/%s-" STR_F ".onnx", child.work_dir, "converted", STR_A(source)));
    TRY(score_convert_xgb(&child, path, made, a, &info, e));
    rc = blobs_put_file(env->blobs, made, ret_artifact, e);
    if (!rc)
        rc = file_remove(made, e);
    json_set(candidate, S("convert"), info);
    return rc;
}

/* What is to compute it: the project's word, and what the format allows. */
static NODISCARD int platform_choose(const struct registry_request *req, const char *format,
                                     str *ret_platform, struct err *e)
{
    str said = json_str_or(json_get(register_section(req), S("platform")), S("auto"));

    if (strcmp(format, "onnx") == 0 || str_eq(said, S("weir_trees"))) {
        *ret_platform = said;
        return 0;
    }
    if (str_eq(said, S("onnxruntime_onnx")) && strcmp(format, "xgboost") != 0)
        return FAIL(e, FAILED_PRECONDITION,
                    "refused: models." STR_F
                    ".platform is onnxruntime_onnx, and a LightGBM model is "
                    "not ONNX: export it to ONNX, or leave the platform to auto",
                    STR_A(req->model));
    *ret_platform = str_eq(said, S("auto")) ? S("weir_trees") : said;
    return 0;
}

int register_copy(const struct registry_env *env, const struct registry_request *req,
                  struct arena *a, struct json *candidate, struct err *e)
{
    char source[BLOB_HASH_SIZE], artifact[BLOB_HASH_SIZE];
    const char *format;
    str platform = STR_NULL;
    uint64_t bytes;

    progress(req, "copy");
    if (!str_is_name(req->model))
        return FAIL(e, INVALID_ARGUMENT,
                    "'" STR_F "' is no name for a model: letters, digits, '.', '_' and '-'",
                    STR_A(str_take(req->model, 64)));
    if (adopt_is(req->path))
        return adopt_copy(env, req, a, candidate, e);
    TRY(file_check(req->path, &bytes, &format, e));
    if (strcmp(format, "bundle") == 0)
        return import_copy(env, req, a, candidate, e);
    TRY(blobs_put_file(env->blobs, req->path, source, e));
    memcpy(artifact, source, sizeof(artifact));
    TRY(platform_choose(req, format, &platform, e));
    if (strcmp(format, "xgboost") == 0 && str_eq(platform, S("onnxruntime_onnx"))) {
        TRY(convert(env, str_of(source), a, candidate, artifact, e));
        TRY(blobs_size(env->blobs, str_of(artifact), &bytes, e));
    }
    json_set_str(a, candidate, S("source"), arena_dup(a, str_of(source)));
    json_set_str(a, candidate, S("artifact"), arena_dup(a, str_of(artifact)));
    json_set_str(a, candidate, S("format"), str_of(format));
    json_set_str(a, candidate, S("platform"), platform);
    json_set_int(a, candidate, S("size_bytes"), (int64_t)bytes);
    return 0;
}

/* --- Probe ------------------------------------------------------------------------------------ */

static NODISCARD int artifact_path(const struct registry_env *env, const struct json *candidate,
                                   struct arena *a, char **ret_path, struct err *e)
{
    return blobs_path(env->blobs, json_str_or(json_get(candidate, S("artifact")), S("")), a,
                      ret_path, e);
}

/* What a child finds out about the artifact. */
static NODISCARD int probe_open(const struct registry_env *env, struct arena *a,
                                struct json *candidate, struct err *e)
{
    struct score_env child = register_score_env(env, a);
    struct score_model model;
    char *path;

    TRY(artifact_path(env, candidate, a, &path, e));
    TRY(score_open(&child, json_str_or(json_get(candidate, S("platform")), S("")), path, a, &model,
                   e));
    json_set_str(a, candidate, S("platform"), model.platform);
    if (model.about)
        json_set(candidate, S("convert"), model.about);
    json_set(candidate, S("inputs"), model.inputs);
    json_set(candidate, S("outputs"), model.outputs);
    json_set_real(a, candidate, S("load_ms"), model.load_ms);
    json_set_int(a, candidate, S("rss_bytes"), model.rss_bytes);
    return 0;
}

int register_probe(const struct registry_env *env, const struct registry_request *req,
                   struct arena *a, struct json *candidate, struct err *e)
{
    struct json *signature;

    progress(req, "probe");
    TRY(probe_open(env, a, candidate, e));
    if (import_is(candidate)) {
        TRY(register_pipeline_told(env, a, candidate, e));
        return import_signature(req, candidate, a, e);
    }
    TRY(register_pipeline(env, req, a, candidate, e));
    if (json_get(candidate, S("pipeline")))
        TRY(probe_open(env, a, candidate, e));
    TRY(signature_make(env, req, candidate, a, &signature, e));
    json_set(candidate, S("signature"), signature);
    return 0;
}

/* --- Profile ---------------------------------------------------------------------------------- */

struct profiling {
    const struct registry_env *env;
    const struct registry_request *req;
    struct arena *a;
    struct json *candidate;
    struct reference ref;
    struct plan_signature sig;
    struct score_env child;
    struct score_request score;
    struct table rows;
    struct scored_table scored;
    struct table first; /* the golden input */
};

static void profiling_done(struct profiling *p)
{
    table_done(&p->rows);
    table_done(&p->first);
    scored_table_done(&p->scored);
}

static NODISCARD int profiling_init(struct profiling *p, struct err *e)
{
    char *path;

    p->ref = register_reference(p->env, p->req, p->a);
    p->child = register_score_env(p->env, p->a);
    TRY(plan_signature_read(json_get(p->candidate, S("signature")), p->a, &p->sig, e));
    TRY(artifact_path(p->env, p->candidate, p->a, &path, e));
    p->score = (struct score_request){.platform =
                                          json_str_or(json_get(p->candidate, S("platform")), S("")),
                                      .path = path,
                                      .signature = &p->sig};
    return 0;
}

static NODISCARD bool all_numbers(const struct plan_reading *r)
{
    double v;

    for (size_t i = 0; i < r->class_count; i++)
        if (!str_to_f64(r->classes[i], &v))
            return false;
    return true;
}

static NODISCARD int rows_read(struct profiling *p, const char *path, str format, bool need_label,
                               struct table *ret, struct err *e)
{
    uint32_t n = p->sig.column_count;
    str *columns = ARENA_ARRAY(p->a, str, n + 1), *texts = ARENA_ARRAY(p->a, str, n + 1);
    struct table_query q = {.path = path, .format = format, .columns = columns, .as_text = texts};
    str *known;
    size_t known_count;
    bool has_label = false;

    TRY(table_names(path, format, p->a, &known, &known_count, e));
    for (size_t i = 0; i < known_count; i++)
        has_label = has_label || (p->ref.label.n && str_eq(known[i], p->ref.label));
    if (need_label && !has_label)
        return FAIL(e, NOT_FOUND, "table %s has no label column '" STR_F "'", path,
                    STR_A(p->ref.label));
    for (uint32_t c = 0; c < n; c++) {
        bool there = p->sig.columns[c].required;

        for (size_t i = 0; !there && i < known_count; i++)
            there = str_eq(known[i], p->sig.columns[c].name);
        if (there)
            columns[q.column_count++] = p->sig.columns[c].name;
        if (there && p->sig.columns[c].type == FIELD_STRING)
            texts[q.as_text_count++] = p->sig.columns[c].name;
    }
    if (has_label) {
        columns[q.column_count++] = p->ref.label;
        if (!all_numbers(&p->sig.reading))
            texts[q.as_text_count++] = p->ref.label;
    }
    q.rows_max = MIN(REGISTRY_REFERENCE_ROWS_MAX, REFERENCE_CELLS_MAX / MAX(q.column_count, 1));
    q.seed = REFERENCE_SEED;
    q.tmp_dir = p->child.work_dir;
    return table_read(&q, ret, e);
}

/* Rows for a golden input when there is no reference: zeros, within the limits. */
static void first_made(struct profiling *p)
{
    table_init(&p->first, 1, p->sig.column_count);
    for (uint32_t c = 0; c < p->sig.column_count; c++) {
        const struct field_column *f = &p->sig.columns[c];
        struct table_column *to = &p->first.columns[c];
        static const str empty = S_INIT("");

        to->name = f->name;
        if (f->type == FIELD_STRING) {
            to->texts = f->category_count ? f->categories : &empty;
            to->text_count = MAX(f->category_count, 1u);
        } else {
            to->values[0] = f->has_min && f->min > 0   ? f->min
                            : f->has_max && f->max < 0 ? f->max
                                                       : 0;
        }
    }
}

/* The first row that the model answers. */
static void first_take(struct profiling *p)
{
    size_t row = 0;

    while (row + 1 < p->rows.row_count && isnan(p->scored.outputs.columns[0].values[row]))
        row++;
    table_init(&p->first, 1, p->rows.column_count);
    for (size_t c = 0; c < p->rows.column_count; c++) {
        p->first.columns[c] = p->rows.columns[c];
        p->first.columns[c].values = ARENA_ARRAY(&p->first.arena, double, 1);
        p->first.columns[c].values[0] = p->rows.columns[c].values[row];
    }
}

static struct json *row_json(const struct table *t, struct arena *a)
{
    struct json *to = json_new_object(a);

    for (size_t c = 0; c < t->column_count; c++) {
        const struct table_column *col = &t->columns[c];
        double v = col->values[0];

        json_set(to, arena_dup(a, col->name),
                 isnan(v)     ? json_new_null(a)
                 : col->texts ? json_new_str(a, arena_dup(a, col->texts[(uint32_t)v]))
                 : v == floor(v) && fabs(v) < 1e15 ? json_new_int(a, (int64_t)v)
                                                   : json_new_real(a, v));
    }
    return to;
}

void register_row_table(const struct json *row, struct table *ret)
{
    size_t c = 0;

    table_init(ret, 1, row->count);
    JSON_EACH (v, row) {
        struct table_column *to = &ret->columns[c++];

        to->name = arena_dup(&ret->arena, v->key);
        to->values[0] = v->type == JSON_STR ? 0 : json_real_or(v, NAN);
        if (v->type != JSON_STR)
            continue;
        str *text = ARENA_NEW(&ret->arena, str);
        *text = arena_dup(&ret->arena, v->string);
        to->texts = text;
        to->text_count = 1;
    }
}

static NODISCARD int golden_make(struct profiling *p, struct err *e)
{
    AUTO(scored_table_done) struct scored_table once = {0};
    AUTO(table_done) struct table given = {0};
    struct json *golden = json_new_object(p->a);
    double tolerance =
        p->req->golden_tolerance > 0 ? p->req->golden_tolerance : (double)GOLDEN_TOLERANCE;

    p->score.table = &p->first;
    p->score.latency_rows = 0;
    if (json_is_container(p->req->golden)) {
        register_row_table(p->req->golden, &given);
        TRY(score_golden(&p->child, &p->score, &given, tolerance, e));
    }
    TRY(score_table(&p->child, &p->score, &once, e));
    TRY(score_golden(&p->child, &p->score, &once.outputs, tolerance, e));
    json_set(golden, S("input"), row_json(&p->first, p->a));
    json_set(golden, S("output"), row_json(&once.outputs, p->a));
    json_set_real(p->a, golden, S("tolerance"), tolerance);
    json_set(p->candidate, S("golden"), golden);
    return 0;
}

/* --- Labels ----------------------------------------------------------------------------------- */

struct wrongs {
    int64_t n, positives;
    double errors;
};

static int32_t class_of(const struct plan_reading *r, str text)
{
    for (size_t k = 0; text.p && k < r->class_count; k++)
        if (str_eq(r->classes[k], text))
            return (int32_t)k;
    return -1;
}

static void count_wrong(const struct plan_signature *sig, const struct table_column *label,
                        size_t rows, const struct score_reading *said, struct arena *a,
                        struct wrongs *to)
{
    for (size_t row = 0; row < rows; row++) {
        if (said->classes) {
            int32_t want = class_of(&sig->reading, table_text(label, row, a));

            if (want < 0 || said->classes[row] < 0)
                continue;
            to->n++;
            to->errors += want != said->classes[row];
            to->positives += want == sig->reading.positive;
        } else if (said->values && !label->texts && isfinite(label->values[row]) &&
                   isfinite(said->values[row])) {
            double d = said->values[row] - label->values[row];

            to->n++;
            to->errors += d * d;
        }
    }
}

static NODISCARD int labels_json(struct profiling *p, const struct table *rows,
                                 const struct table *outputs, bool in_sample, struct json **ret,
                                 struct err *e)
{
    AUTO(arena_done) struct arena work = {0};
    const struct table_column *label = table_find(rows, p->ref.label);
    struct score_reading said;
    struct wrongs w = {0};
    struct json *to;

    arena_init(&work, 0);
    *ret = NULL;
    if (!label || !p->ref.label.n)
        return 0;
    TRY(score_read(&p->sig, outputs, &work, &said, e));
    count_wrong(&p->sig, label, rows->row_count, &said, &work, &w);
    if (!w.n)
        return 0;
    to = json_new_object(p->a);
    json_set_int(p->a, to, S("n"), w.n);
    json_set_real(p->a, to, S("errors"), w.errors);
    json_set_str(p->a, to, S("metric"), said.classes ? S("error_rate") : S("mse"));
    if (said.classes && p->sig.reading.positive >= 0)
        json_set_real(p->a, to, S("positive_share"), (double)w.positives / (double)w.n);
    json_set_bool(p->a, to, S("in_sample"), in_sample);
    *ret = to;
    return 0;
}

static NODISCARD int labels_make(struct profiling *p, struct json **ret, struct err *e)
{
    AUTO(scored_table_done) struct scored_table said = {0};
    AUTO(table_done) struct table rows = {0};
    struct score_request score = p->score;

    if (!p->req->holdout)
        return labels_json(p, &p->rows, &p->scored.outputs, true, ret, e);
    TRY(rows_read(p, p->req->holdout, S("auto"), true, &rows, e));
    score.table = &rows;
    TRY(score_table(&p->child, &score, &said, e));
    return labels_json(p, &rows, &said.outputs, false, ret, e);
}

/* --- The profile ------------------------------------------------------------------------------ */

/* Of an endpoint that serves the model. */
static const struct json *monitor_of(const struct registry_request *req)
{
    const struct json *monitors = json_get(req->project, S("monitors"));

    if (!json_is_container(monitors))
        return NULL;
    JSON_EACH (monitor, monitors) {
        const struct json *endpoint =
            json_get(json_get(req->project, S("endpoints")),
                     json_str_or(json_get(monitor, S("endpoint")), STR_NULL));

        if (str_eq(json_str_or(json_get(endpoint, S("model")), STR_NULL), req->model))
            return monitor;
    }
    return NULL;
}

/* With `auto` features, what the data lacks now and then may be lacking in a request too. */
static void relax_required(struct profiling *p)
{
    struct json *columns = json_path(p->candidate, "signature.columns");
    uint32_t c = 0;

    if (json_is_container(json_get(register_section(p->req), S("features"))) ||
        !json_is_container(columns))
        return;
    JSON_EACH (column, columns) {
        struct field_column *f = &p->sig.columns[c++];
        const struct table_column *from = table_find(&p->rows, f->name);
        bool missing = false;

        for (size_t row = 0; from && !missing && row < p->rows.row_count; row++)
            missing = isnan(from->values[row]);
        if (!missing || tensor_type_kind(f->store) != TENSOR_KIND_FLOAT)
            continue;
        f->required = false;
        json_set_bool(p->a, column, S("required"), false);
    }
}

static NODISCARD int profile_put(struct profiling *p, struct err *e)
{
    struct profile_input in = {.model = p->req->model,
                               .signature = &p->sig,
                               .rows = &p->rows,
                               .outputs = &p->scored.outputs,
                               .monitor = monitor_of(p->req)};
    struct json *labels = NULL, *profile;
    char hash[PLAN_HASH_SIZE];

    TRY(labels_make(p, &labels, e));
    in.labels = labels;
    TRY(profile_make(&in, p->a, &profile, e));
    TRY(plan_part_put(p->env->blobs, profile, hash, e));
    json_set_str(p->a, p->candidate, S("profile"), arena_dup(p->a, str_of(hash)));
    json_set_int(p->a, p->candidate, S("rows"), (int64_t)p->rows.row_count);
    if (labels)
        json_set(p->candidate, S("reference_labels"), labels);
    if (json_bool_or(json_get(labels, S("in_sample")), false))
        json_set_str(p->a, p->candidate, S("note"),
                     S("the reference error rate comes from rows that may have been trained on; "
                       "give a holdout for an honest one"));
    return 0;
}

static NODISCARD int profile_from_reference(struct profiling *p, struct err *e)
{
    TRY(rows_read(p, p->ref.path, p->ref.format, false, &p->rows, e));
    if (!p->rows.row_count)
        return FAIL(e, FAILED_PRECONDITION, "the reference %s has no rows", p->ref.path);
    relax_required(p);
    p->score.table = &p->rows;
    TRY(score_table(&p->child, &p->score, &p->scored, e));
    TRY(profile_put(p, e));
    first_take(p);
    return golden_make(p, e);
}

int register_profile(const struct registry_env *env, const struct registry_request *req,
                     struct arena *a, struct json *candidate, struct err *e)
{
    AUTO(profiling_done)
    struct profiling p = {.env = env, .req = req, .a = a, .candidate = candidate};
    str *names;
    uint32_t n;
    struct err why;

    progress(req, "profile");
    if (import_is(candidate))
        return import_golden(env, a, candidate, e);
    TRY(profiling_init(&p, e));
    if (!p.sig.column_count || score_output_names(&p.sig, a, &names, &n, &why)) {
        json_set_str(a, candidate, S("note"),
                     S("inputs or outputs have open sizes: served, but neither watched nor checked "
                       "on a golden row"));
        return 0;
    }
    if (p.ref.path)
        return profile_from_reference(&p, e);
    json_set_str(a, candidate, S("note"),
                 S("no reference data: drift cannot be watched; give the model a dataset and "
                   "register it again"));
    first_made(&p);
    return golden_make(&p, e);
}

/* --- Commit ----------------------------------------------------------------------------------- */

static const str candidate_keys[] = {
    S_INIT("signature"),        S_INIT("profile"),    S_INIT("platform"), S_INIT("source"),
    S_INIT("golden"),           S_INIT("size_bytes"), S_INIT("load_ms"),  S_INIT("rss_bytes"),
    S_INIT("format"),           S_INIT("convert"),    S_INIT("note"),     S_INIT("rows"),
    S_INIT("reference_labels"), S_INIT("pipeline"),   S_INIT("imported"), S_INIT("pipeline"),
};

static void set_copy(struct json *to, str key, const struct json *v, struct arena *a)
{
    if (v && v->type != JSON_NULL)
        json_set(to, key, json_copy(a, v));
}

static const str said_by_project[] = {S_INIT("owner"), S_INIT("tags"), S_INIT("description"),
                                      S_INIT("intended_use")};

/* The defaults of the project say nothing. */
static bool is_empty(const struct json *v)
{
    return !v || (v->type == JSON_STR && !v->string.n) || (json_is_container(v) && !v->count);
}

static struct json *version_meta(const struct registry_request *req, const struct json *candidate,
                                 struct arena *a)
{
    const struct json *model = register_section(req);
    struct json *to = json_new_object(a);
    const struct json *told = json_get(candidate, S("imported_meta"));
    str objective = json_str_or(json_path(candidate, "convert.objective"), STR_NULL);

    if (json_is_container(told)) /* what is said here goes before it */
        JSON_EACH (member, told)
            set_copy(to, member->key, member, a);
    json_set_str(a, to, S("framework"), json_str_or(json_get(candidate, S("format")), S("onnx")));
    if (objective.p)
        json_set_str(a, to, S("algorithm"), objective);
    for (size_t i = 0; i < ARRAY_LEN(said_by_project); i++)
        if (!is_empty(json_get(model, said_by_project[i])))
            set_copy(to, said_by_project[i], json_get(model, said_by_project[i]), a);
    if (json_is_container(req->metadata))
        JSON_EACH (member, req->metadata)
            set_copy(to, member->key, member, a);
    set_copy(to, S("metrics"), req->metrics, a);
    set_copy(to, S("training"), req->training, a);
    set_copy(to, S("evaluation"), req->evaluation, a);
    for (size_t i = 0; i < ARRAY_LEN(candidate_keys); i++)
        set_copy(to, candidate_keys[i], json_get(candidate, candidate_keys[i]), a);
    json_set_str(a, to, S("model_id"), req->model);
    json_set_str(a, to, S("actor"), req->actor);
    return to;
}

static NODISCARD int insert_model(struct meta *m, const struct registry_request *req,
                                  const struct json *meta, int64_t now, struct arena *a,
                                  struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct json *own = json_new_object(a);

    buf_init(&text, META_BYTES_MAX);
    set_copy(own, S("owner"), json_get(meta, S("owner")), a);
    set_copy(own, S("tags"), json_get(meta, S("tags")), a);
    set_copy(own, S("description"), json_get(meta, S("description")), a);
    set_copy(own, S("task"), json_get(register_section(req), S("task")), a);
    json_write_canonical(&text, own);
    return meta_exec(m,
                     "INSERT INTO models (name, meta, created_ns, updated_ns) VALUES (?, ?, ?, ?)"
                     " ON CONFLICT (name) DO UPDATE SET meta = excluded.meta,"
                     " updated_ns = excluded.updated_ns",
                     M_ARGS(M_STR(req->model), M_STR(buf_str(&text)), M_INT(now), M_INT(now)), e);
}

static NODISCARD int insert_version(struct meta *m, const struct registry_request *req,
                                    const struct json *candidate, const struct json *meta,
                                    int64_t now, int64_t *ret_version, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};

    buf_init(&text, META_BYTES_MAX);
    json_write_canonical(&text, meta);
    if (text.overflowed)
        return FAIL(e, INVALID_ARGUMENT, "what describes the version takes more than %zu MiB",
                    META_BYTES_MAX >> 20);
    TRY(meta_first_int(m, "SELECT MAX(version) FROM model_versions WHERE model = ?",
                       M_ARGS(M_STR(req->model)), 0, ret_version, e));
    ++*ret_version;
    return meta_exec(m,
                     "INSERT INTO model_versions (model, version, artifact, status, meta,"
                     " created_ns) VALUES (?, ?, ?, 'registered', ?, ?)",
                     M_ARGS(M_STR(req->model), M_INT(*ret_version),
                            M_STR(json_str_or(json_get(candidate, S("artifact")), S(""))),
                            M_STR(buf_str(&text)), M_INT(now)),
                     e);
}

static NODISCARD int fact_registered(struct meta *m, const struct registry_request *req,
                                     const struct json *candidate, int64_t version, struct arena *a,
                                     struct err *e)
{
    struct json *data = json_new_object(a);
    const struct fact_new fact = {.type = FACT_MODEL_REGISTERED,
                                  .subject = arena_printf(a, "model/" STR_F, STR_A(req->model)),
                                  .actor = req->actor,
                                  .reason = req->reason,
                                  .correlation = req->correlation,
                                  .data = data};

    json_set_str(a, data, S("model"), req->model);
    json_set_int(a, data, S("version"), version);
    set_copy(data, S("artifact"), json_get(candidate, S("artifact")), a);
    set_copy(data, S("profile"), json_get(candidate, S("profile")), a);
    set_copy(data, S("metrics"), req->metrics, a);
    return journal_append(m, &fact, NULL, e);
}

static void copy_hash(char to[BLOB_HASH_SIZE], const struct json *from)
{
    if (!str_to_z(json_str_or(from, S("")), to, BLOB_HASH_SIZE))
        to[0] = '\0';
}

int register_commit(struct meta *m, const struct registry_request *req,
                    const struct json *candidate, struct registry_result *ret, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    AUTO(arena_done) struct arena a = {0};
    struct registry_result r = {0};
    int64_t now = time_wall_ns(), champion;
    const struct json *meta;

    progress(req, "commit");
    arena_init(&a, 0);
    meta = version_meta(req, candidate, &a);
    TRY(meta_begin(m, &tx, e));
    TRY(insert_model(m, req, meta, now, &a, e));
    TRY(insert_version(m, req, candidate, meta, now, &r.version, e));
    TRY(fact_registered(m, req, candidate, r.version, &a, e));
    TRY(registry_alias_get(m, req->model, S("champion"), &champion, e));
    r.promoted = req->promote || (req->first_promote && !champion);
    if (r.promoted)
        TRY(registry_alias_move(m, req->model, S("champion"), r.version, req->actor, req->reason,
                                req->correlation, NULL, e));
    TRY(meta_commit(&tx, e));
    copy_hash(r.artifact, json_get(candidate, S("artifact")));
    copy_hash(r.source, json_get(candidate, S("source")));
    copy_hash(r.profile, json_get(candidate, S("profile")));
    if (!str_to_z(str_take(json_str_or(json_get(candidate, S("note")), S("")), NOTE_TEXT - 1),
                  r.note, sizeof(r.note)))
        r.note[0] = '\0';
    *ret = r;
    return 0;
}

bool register_is_refusal(const struct err *cause)
{
    return cause->code == CODE_INVALID_ARGUMENT || cause->code == CODE_FAILED_PRECONDITION;
}

int register_refused(struct meta *m, const struct registry_request *req, const char *check,
                     const struct err *cause, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct fact_new fact = {.type = FACT_MODEL_REFUSED,
                            .actor = req->actor,
                            .reason = str_of(cause->msg),
                            .correlation = req->correlation};
    struct json *data;

    arena_init(&a, 0);
    data = json_new_object(&a);
    json_set_str(&a, data, S("model"), req->model);
    json_set_str(&a, data, S("file"), str_of(req->path));
    json_set_str(&a, data, S("check"), str_of(check));
    json_set_str(&a, data, S("error"), str_of(cause->msg));
    fact.subject = arena_printf(&a, "model/" STR_F, STR_A(str_take(req->model, 128)));
    fact.data = data;
    return journal_append(m, &fact, NULL, e);
}

/* --- All at once ------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    int (*fn)(const struct registry_env *env, const struct registry_request *req, struct arena *a,
              struct json *candidate, struct err *e);
} steps[] = {{"copy", register_copy}, {"probe", register_probe}, {"profile", register_profile}};

int registry_register(const struct registry_env *env, struct meta *m,
                      const struct registry_request *req, struct registry_result *ret,
                      struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *candidate;

    ASSERT(!meta_in_tx(m));
    arena_init(&a, 0);
    candidate = json_new_object(&a);
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        struct err why;
        int rc = steps[i].fn(env, req, &a, candidate, &why);

        if (!rc)
            continue;
        if (register_is_refusal(&why))
            TRY(register_refused(m, req, steps[i].name, &why, e));
        *e = why;
        return rc;
    }
    return register_commit(m, req, candidate, ret, e);
}
