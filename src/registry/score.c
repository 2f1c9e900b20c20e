/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parent's side of the probe: a folder for the child, its limits, its answer, its end.
 *
 * Whatever happens in the child becomes one error. When it answered {"error":…}, that is the error;
 * when it ended without an answer, how it ended is, with the last line it wrote to stderr. The
 * answer is as little trusted as the model: sizes and indexes are checked here again.
 *
 * The child sees none of this process's environment but where libraries are, and no network. For a
 * model that lives elsewhere it sees both: it reads no model file then, and what it starts gets
 * what its manifest says.
 */
#include "registry/score.h"

#include "base/files.h"
#include "base/library.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "loop/child.h"
#include "registry/rowfile.h"

#include <math.h>
#include <stdlib.h>

#define ANSWER_BYTES_MAX ((size_t)64 << 20)
#define STDERR_BYTES_MAX ((size_t)1 << 20)
#define FILE_BYTES_MAX ((uint64_t)4 << 30)
#define ROWS_AT_ONCE 4096
#define GRACE_NS NS_PER_S

/* A sanitizer reserves terabytes of addresses; such a build runs without this limit. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMIT_ADDRESSES 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LIMIT_ADDRESSES 0
#endif
#endif
#ifndef LIMIT_ADDRESSES
#define LIMIT_ADDRESSES 1
#endif

/* --- The child -------------------------------------------------------------------------------- */

struct probe_run {
    const struct score_env *env;
    struct arena *a;
    char *dir; /* of this child; removed at the end */
    const char *out_path, *err_path;
    bool elsewhere; /* the model is a program of its own, or on a remote server */
};

static void probe_run_done(struct probe_run *p)
{
    struct err e;

    if (p->dir && file_remove_tree(p->dir, &e))
        return; /* it stays; nothing else depends on it */
}

static NODISCARD int probe_run_init(const struct score_env *env, struct arena *a,
                                    struct probe_run *ret, struct err *e)
{
    char id[UUID_SIZE];
    const char *real;

    uuid_v7(time_wall_ns(), id);
    ret->env = env;
    ret->a = a;
    TRY(file_make_dirs(env->work_dir, e));
    TRY(path_real(env->work_dir, a, &real, e));
    ret->dir = path_join(a, real, arena_printf(a, "probe-%s", id).p);
    TRY(file_make_dirs(ret->dir, e));
    ret->out_path = path_join(a, ret->dir, "stdout");
    ret->err_path = path_join(a, ret->dir, "stderr");
    return 0;
}

/* The last line that is not empty. */
static str last_words(const char *path, struct arena *a)
{
    struct err e;
    str text, line, last = STR_NULL;

    if (file_read_all(path, STDERR_BYTES_MAX, a, &text, &e))
        return STR_NULL;
    while (text.p) {
        line = str_trim(str_cut(&text, '\n'));
        if (line.n)
            last = line;
    }
    return str_take(last, 240);
}

static enum code code_of(str name)
{
    for (int c = 0; c < CODE_COUNT; c++)
        if (str_eqz(name, code_name((enum code)c)))
            return (enum code)c;
    return CODE_INVALID_ARGUMENT;
}

/* What the child said decides; else how it ended. */
static NODISCARD int judge(struct probe_run *p, const struct child_exit *x, struct json **ret,
                           struct err *e)
{
    char how[CHILD_TEXT_SIZE];
    struct json *answer = NULL;
    const struct json *error;
    struct err ignored;
    str text, words;

    if (file_read_all(p->out_path, ANSWER_BYTES_MAX, p->a, &text, &ignored) ||
        json_parse(text, p->a, &answer, &ignored))
        answer = NULL;
    error = json_get(answer, S("error"));
    if (error) {
        enum code code = code_of(json_str_or(json_get(error, S("code")), STR_NULL));
        str message = json_str_or(json_get(error, S("message")), S("no reason given"));

        /* The machine's fault is told as such; everything else is the file's. */
        if (code == CODE_UNAVAILABLE)
            return FAIL(e, UNAVAILABLE, STR_F, STR_A(message));
        return FAIL(e, INVALID_ARGUMENT, "refused: " STR_F, STR_A(message));
    }
    if (child_exit_ok(x) && answer) {
        *ret = answer;
        return 0;
    }
    child_exit_text(x, how);
    words = last_words(p->err_path, p->a);
    return FAIL(e, INVALID_ARGUMENT, "refused: the child that opened the model failed: %s%s" STR_F,
                how, words.n ? "; it last said: " : "", STR_A(words));
}

static NODISCARD int run_child(struct probe_run *p, const char *const *argv, struct json **ret,
                               struct err *e)
{
    const struct score_limits *l = &p->env->limits;
    int64_t time_ns = l->time_ns ? l->time_ns : SCORE_TIME_NS;
    const char *libraries = library_env(p->a), *path = child_env("LD_LIBRARY_PATH", p->a);
    const char *vars[5] = {"ASAN_OPTIONS=detect_leaks=0",
                           arena_printf(p->a, "TMPDIR=%s", p->dir).p};
    size_t n = 2;
    AUTO(child_done) struct child child = {0};
    struct child_exit x;
    struct child_spec spec = {
        .argv = argv,
        .env = p->elsewhere ? NULL : vars,
        .cwd = p->dir,
        .out = {.path = p->out_path},
        .err = {.path = p->err_path},
        .limits = {.address_space_bytes =
                       LIMIT_ADDRESSES ? l->memory_bytes ? l->memory_bytes : SCORE_MEMORY_BYTES : 0,
                   .cpu_seconds = (uint64_t)(time_ns / NS_PER_S) + 1,
                   .file_bytes = FILE_BYTES_MAX,
                   .open_files =
                       p->elsewhere ? 256 : 64}, /* starting a child takes numbers above 64 */
        .no_network = !p->elsewhere};

    if (libraries)
        vars[n++] = libraries;
    if (path)
        vars[n++] = path;
    TRY(child_start(&spec, &child, e));
    child_wait(&child, time_mono_ns() + time_ns, GRACE_NS, &x);
    return judge(p, &x, ret, e);
}

static bool is_elsewhere(str platform)
{
    return str_eq(platform, S("process")) || str_eq(platform, S("remote"));
}

int score_open(const struct score_env *env, str platform, const char *path, struct arena *a,
               struct score_model *ret, struct err *e)
{
    AUTO(probe_run_done) struct probe_run p = {0};
    struct score_model m = {0};
    struct json *answer;
    const char *real;

    TRY(path_real(path, a, &real, e));
    TRY(probe_run_init(env, a, &p, e));
    p.elsewhere = is_elsewhere(platform);
    const char *argv[] = {
        env->self, "probe", "--model", real, "--platform", arena_dupz(a, platform), NULL};
    TRY(run_child(&p, argv, &answer, e));
    TRY(json_need_array(answer, S("inputs"), &m.inputs, e));
    TRY(json_need_array(answer, S("outputs"), &m.outputs, e));
    TRY(json_need_str(answer, S("platform"), &m.platform, e));
    m.about = json_get(answer, S("about"));
    m.load_ms = json_real_or(json_get(answer, S("load_ms")), 0);
    m.rss_bytes = json_int_or(json_get(answer, S("rss_bytes")), 0);
    *ret = m;
    return 0;
}

int score_convert_xgb(const struct score_env *env, const char *from, const char *to,
                      struct arena *a, struct json **ret_info, struct err *e)
{
    AUTO(probe_run_done) struct probe_run p = {0};
    const char *real, *made;

    TRY(path_real(from, a, &real, e));
    TRY(probe_run_init(env, a, &p, e));
    made = path_join(a, p.dir, "model.onnx");
    const char *argv[] = {env->self, "probe", "--convert", real, "--out", made, NULL};
    TRY(run_child(&p, argv, ret_info, e));
    return file_rename(made, to, e);
}

int score_adopt(const struct score_env *env, bool is_remote, const char *from, const char *to,
                struct arena *a, struct json **ret_info, struct err *e)
{
    AUTO(probe_run_done) struct probe_run p = {0};
    const char *real, *made;

    TRY(path_real(from, a, &real, e));
    TRY(probe_run_init(env, a, &p, e));
    p.elsewhere = true;
    made = path_join(a, p.dir, "artifact");
    const char *argv[] = {env->self, "probe", is_remote ? "--remote" : "--pack", real, "--out",
                          made,      NULL};
    TRY(run_child(&p, argv, ret_info, e));
    return file_rename(made, to, e);
}

/* --- Rows in ---------------------------------------------------------------------------------- */

/* How one signature column is filled from a column of the table. */
struct source {
    const struct field_column *field;
    const struct table_column *column; /* NULL: it is not there, and need not be */
    double *codes; /* category column in a numeric tensor: of each text of the table */
};

static NODISCARD int source_find(const struct table *t, const struct field_column *f,
                                 struct arena *a, struct source *ret, struct err *e)
{
    bool by_code = f->type == FIELD_STRING && f->store != TENSOR_BYTES;

    *ret = (struct source){.field = f, .column = table_find(t, f->name)};
    if (!ret->column && f->required)
        return FAIL(e, INVALID_ARGUMENT,
                    "the table has no column '" STR_F "', which the model needs", STR_A(f->name));
    if (!ret->column)
        return 0;
    if (f->type == FIELD_STRING && !ret->column->texts)
        return FAIL(e, INVALID_ARGUMENT, "column '" STR_F "' is numbers, the model takes texts",
                    STR_A(f->name));
    if (f->type != FIELD_STRING && ret->column->texts)
        return FAIL(e, INVALID_ARGUMENT, "column '" STR_F "' is texts, the model takes numbers",
                    STR_A(f->name));
    if (!by_code)
        return 0;
    ret->codes = ARENA_ARRAY(a, double, ret->column->text_count + 1);
    for (uint32_t i = 0; i < ret->column->text_count; i++) {
        ret->codes[i] = NAN;
        for (uint32_t k = 0; k < f->category_count; k++)
            if (str_eq(f->categories[k], ret->column->texts[i]))
                ret->codes[i] = k;
    }
    return 0;
}

static double source_value(const struct source *s, size_t row)
{
    double v = s->column ? s->column->values[row] : (double)NAN;

    if (isnan(v) && s->field->has_default && s->field->type != FIELD_STRING)
        return s->field->default_num;
    if (s->codes && !isnan(v))
        return s->codes[(uint32_t)v];
    return v;
}

static struct json *in_tail(const struct source *sources, uint32_t n, uint32_t latency_rows,
                            struct arena *a)
{
    struct json *tail = json_new_object(a),
                *columns = json_set(tail, S("columns"), json_new_array(a));

    json_set_int(a, tail, S("latency_rows"), latency_rows);
    for (uint32_t i = 0; i < n; i++) {
        struct json *item = json_push(columns, json_new_object(a)), *texts;
        const struct table_column *c = sources[i].column;

        json_set_int(a, item, S("input"), sources[i].field->tensor);
        json_set_int(a, item, S("element"), sources[i].field->position);
        if (!c || !c->texts || sources[i].codes)
            continue;
        texts = json_set(item, S("texts"), json_new_array(a));
        for (uint32_t t = 0; t < c->text_count; t++)
            json_push(texts, json_new_str(a, c->texts[t]));
    }
    return tail;
}

static NODISCARD int write_rows(const struct score_request *req, const char *path, struct arena *a,
                                struct err *e)
{
    AUTO(rowfile_done) struct rowfile f = {.fd = -1};
    AUTO(mem_freep) double *block = NULL;
    uint32_t n = req->signature->column_count;
    struct source *sources = ARENA_ARRAY(a, struct source, n + 1);

    for (uint32_t c = 0; c < n; c++)
        TRY(source_find(req->table, &req->signature->columns[c], a, &sources[c], e));
    TRY(rowfile_create(path, n, req->table->row_count, &f, e));
    block = mem_try_alloc((size_t)ROWS_AT_ONCE * MAX(n, 1u) * sizeof(double));
    if (!block)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for %d rows of %u columns", ROWS_AT_ONCE, n);
    for (size_t at = 0; at < req->table->row_count; at += ROWS_AT_ONCE) {
        size_t rows = MIN((size_t)ROWS_AT_ONCE, req->table->row_count - at);

        for (size_t row = 0; row < rows; row++)
            for (uint32_t c = 0; c < n; c++)
                block[row * n + c] = source_value(&sources[c], at + row);
        TRY(rowfile_put(&f, at, rows, block, e));
    }
    return rowfile_finish(&f, in_tail(sources, n, req->latency_rows, a), e);
}

/* --- Answers out ------------------------------------------------------------------------------ */

int score_output_names(const struct plan_signature *sig, struct arena *a, str **ret_names,
                       uint32_t *ret_n, struct err *e)
{
    uint32_t n = 0;
    str *names;

    for (uint32_t t = 0; t < sig->output_count; t++) {
        int64_t elements = tensor_row_elements(&sig->outputs[t]);

        if (elements < 1 || elements > 4096 - n)
            return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' has no fixed number of elements",
                        STR_A(sig->outputs[t].name));
        n += (uint32_t)elements;
    }
    names = ARENA_ARRAY(a, str, n + 1);
    n = 0;
    for (uint32_t t = 0; t < sig->output_count; t++) {
        int64_t elements = tensor_row_elements(&sig->outputs[t]);

        for (int64_t i = 0; i < elements; i++)
            names[n++] = elements == 1 ? arena_dup(a, sig->outputs[t].name)
                                       : arena_printf(a, STR_F "_%lld", STR_A(sig->outputs[t].name),
                                                      (long long)i);
    }
    *ret_names = names;
    *ret_n = n;
    return 0;
}

static NODISCARD int read_texts(struct table *t, struct table_column *c, const struct json *texts,
                                struct err *e)
{
    str *list = ARENA_ARRAY(&t->arena, str, texts->count + 1);

    JSON_EACH (text, texts)
        list[c->text_count++] = arena_dup(&t->arena, json_str_or(text, S("")));
    c->texts = list;
    for (size_t row = 0; row < t->row_count; row++) {
        double v = c->values[row];

        if (!isnan(v) && !(v >= 0 && v < c->text_count && v == floor(v)))
            return FAIL(e, INVALID_ARGUMENT, "refused: the probe gave a text that it did not name");
    }
    return 0;
}

static NODISCARD int read_numbers(const struct rowfile *f, struct table *t, struct err *e)
{
    AUTO(mem_freep)
    double *block = mem_try_alloc((size_t)ROWS_AT_ONCE * MAX(f->columns, 1u) * sizeof(double));

    if (!block)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the answers of %d rows", ROWS_AT_ONCE);
    for (size_t at = 0; at < t->row_count; at += ROWS_AT_ONCE) {
        size_t rows = MIN((size_t)ROWS_AT_ONCE, t->row_count - at);

        TRY(rowfile_get(f, at, rows, block, e));
        for (size_t row = 0; row < rows; row++)
            for (uint32_t c = 0; c < f->columns; c++)
                t->columns[c].values[at + row] = block[row * f->columns + c];
    }
    return 0;
}

static NODISCARD int read_answers(const struct score_request *req, const char *path,
                                  struct arena *a, struct scored_table *ret, struct err *e)
{
    AUTO(rowfile_done) struct rowfile f = {.fd = -1};
    struct json *columns;
    uint32_t n, c = 0;
    str *names;

    TRY(score_output_names(req->signature, a, &names, &n, e));
    TRY(rowfile_open(path, a, &f, e));
    TRY(json_need_array(f.tail, S("columns"), &columns, e));
    if (f.columns != n || columns->count != n || f.rows != req->table->row_count)
        return FAIL(e, INVALID_ARGUMENT, "refused: the model's outputs are not those it declared");
    table_init(&ret->outputs, f.rows, n);
    TRY(read_numbers(&f, &ret->outputs, e));
    JSON_EACH (column, columns) {
        struct table_column *to = &ret->outputs.columns[c];
        const struct json *texts = json_get(column, S("texts"));

        to->name = arena_dup(&ret->outputs.arena, names[c++]);
        if (json_is_container(texts))
            TRY(read_texts(&ret->outputs, to, texts, e));
    }
    ret->p50_ns = json_int_or(json_get(f.tail, S("p50_ns")), 0);
    ret->p99_ns = json_int_or(json_get(f.tail, S("p99_ns")), 0);
    return 0;
}

void scored_table_done(struct scored_table *s)
{
    table_done(&s->outputs);
    *s = (struct scored_table){0};
}

int score_table(const struct score_env *env, const struct score_request *req,
                struct scored_table *ret, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(probe_run_done) struct probe_run p = {0};
    AUTO(scored_table_done) struct scored_table s = {0};
    const char *in, *out, *real;
    struct json *answer;

    arena_init(&a, 0);
    if (!req->signature->column_count)
        return FAIL(e, INVALID_ARGUMENT, "the model has no named columns to fill from a table");
    TRY(path_real(req->path, &a, &real, e));
    TRY(probe_run_init(env, &a, &p, e));
    p.elsewhere = is_elsewhere(req->platform);
    in = path_join(&a, p.dir, "rows");
    out = path_join(&a, p.dir, "answers");
    TRY(write_rows(req, in, &a, e));
    const char *argv[] = {
        env->self, "probe", "--model", real, "--platform", arena_dupz(&a, req->platform),
        "--rows",  in,      "--out",   out,  NULL};
    TRY(run_child(&p, argv, &answer, e));
    TRY(read_answers(req, out, &a, &s, e));
    s.load_ms = json_real_or(json_get(answer, S("load_ms")), 0);
    *ret = s;
    s = (struct scored_table){0};
    return 0;
}

/* --- Golden ----------------------------------------------------------------------------------- */

static bool same(const struct table_column *got, const struct table_column *want, double tolerance,
                 struct arena *a)
{
    double x = got->values[0], y = want->values[0];

    if (got->texts || want->texts)
        return str_eq(table_text(got, 0, a), table_text(want, 0, a));
    if (isnan(x) || isnan(y))
        return isnan(x) && isnan(y);
    return fabs(x - y) <= tolerance + tolerance * fabs(y);
}

int score_golden(const struct score_env *env, const struct score_request *req,
                 const struct table *expected, double tolerance, struct err *e)
{
    AUTO(scored_table_done) struct scored_table s = {0};

    if (req->table->row_count != 1 || expected->row_count != 1)
        return FAIL(e, INVALID_ARGUMENT, "a golden answer is one row");
    TRY(score_table(env, req, &s, e));
    for (size_t c = 0; c < expected->column_count; c++) {
        const struct table_column *want = &expected->columns[c],
                                  *got = table_find(&s.outputs, want->name);

        if (!got)
            return FAIL(e, INVALID_ARGUMENT,
                        "refused: the golden answer has '" STR_F
                        "', which is no output of the model",
                        STR_A(want->name));
        if (!same(got, want, tolerance, &s.outputs.arena))
            return FAIL(e, INVALID_ARGUMENT,
                        "refused: on the golden input, output '" STR_F "' is " STR_F
                        ", recorded is " STR_F " (tolerance %g)",
                        STR_A(want->name), STR_A(table_text(got, 0, &s.outputs.arena)),
                        STR_A(table_text(want, 0, &s.outputs.arena)), tolerance);
    }
    return 0;
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* The index among the flat outputs of the first element of output `tensor`. */
static size_t output_at(const struct plan_signature *sig, int32_t tensor)
{
    size_t at = 0;

    for (int32_t t = 0; t < tensor; t++)
        at += (size_t)tensor_row_elements(&sig->outputs[t]);
    return at;
}

static void read_labels(const struct plan_reading *r, const struct table_column *c, size_t rows,
                        struct arena *a, int32_t *to)
{
    for (size_t row = 0; row < rows; row++) {
        str text = table_text(c, row, a);

        to[row] = -1;
        for (size_t k = 0; text.p && k < r->class_count; k++)
            if (str_eq(r->classes[k], text))
                to[row] = (int32_t)k;
    }
}

/* As serve/reading.c does, so that what is judged here is what callers get. */
static void read_probabilities(const struct plan_reading *r, const struct table_column *c,
                               size_t rows, size_t n, struct score_reading *to)
{
    bool cut = r->positive >= 0 && !isnan(r->threshold) && n == 2;

    for (size_t row = 0; row < rows; row++) {
        double *p = &to->probabilities[row * n];
        int32_t best = -1;

        for (size_t k = 0; k < n; k++) {
            p[k] = c[k].values[row];
            if (!isnan(p[k]) && (best < 0 || p[k] > p[best]))
                best = (int32_t)k;
        }
        if (best >= 0 && cut)
            to->classes[row] = p[r->positive] >= r->threshold ? r->positive : 1 - r->positive;
        else if (to->classes[row] < 0)
            to->classes[row] = best;
        to->scores[row] = best < 0           ? (double)NAN
                          : r->positive >= 0 ? p[r->positive]
                                             : p[to->classes[row]];
    }
}

int score_read(const struct plan_signature *sig, const struct table *outputs, struct arena *a,
               struct score_reading *ret, struct err *e)
{
    const struct plan_reading *r = &sig->reading;
    struct score_reading to = {0};
    size_t rows = outputs->row_count;

    if (r->label < 0 && r->probabilities < 0 && r->value < 0)
        return FAIL(
            e, FAILED_PRECONDITION,
            "the signature does not say which output is the label, the probabilities or the "
            "value: state task and classes of the model");
    if (r->label >= 0 || r->probabilities >= 0) {
        to.classes = ARENA_ARRAY(a, int32_t, rows + 1);
        for (size_t row = 0; row < rows; row++)
            to.classes[row] = -1;
    }
    if (r->label >= 0)
        read_labels(r, &outputs->columns[output_at(sig, r->label)], rows, a, to.classes);
    if (r->probabilities >= 0) {
        size_t n = MAX(r->class_count, (size_t)1);

        to.scores = ARENA_ARRAY(a, double, rows + 1);
        to.probabilities = ARENA_ARRAY(a, double, rows *n + 1);
        read_probabilities(r, &outputs->columns[output_at(sig, r->probabilities)], rows, n, &to);
    }
    if (r->value >= 0) {
        to.values = ARENA_ARRAY(a, double, rows + 1);
        memcpy(to.values, outputs->columns[output_at(sig, r->value)].values,
               rows * sizeof(*to.values));
    }
    *ret = to;
    return 0;
}
