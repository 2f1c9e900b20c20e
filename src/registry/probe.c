/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The probe child: it alone opens model files that nobody has vouched for yet. It may crash, hang
 * or run out of memory; its parent turns that into a refusal. So it keeps nothing, trusts only its
 * arguments, and says what it found as one JSON object on stdout.
 *
 * Rows are run in batches, then, for the latency, one by one: the same slot, warm, without any of
 * the gateway's own work. A row that does not fit the model's types (a missing value in an integer
 * tensor, a number out of range) gets NaN as its answers instead of stopping the rest.
 */
#include "registry/probe.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/time.h"
#include "registry/rowfile.h"
#include "registry/xgb_onnx.h"
#include "serve/runtime/adopt.h"
#include "serve/runtime/runtime.h"
#include "stats/latency.h"
#include "wire/tensor_frame.h"

#include <getopt.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define BATCH_ROWS 256u
#define WARM_RUNS 20u
#define OUTPUT_COLUMNS_MAX 4096u
#define OUTPUT_TEXTS_MAX 4096u /* distinct texts of one output; further ones read as missing */

struct probe_args {
    const char *model, *platform, *rows, *out, *convert, *pack, *remote;
};

/* --- What a model is -------------------------------------------------------------------------- */

static void describe(const struct runtime_model *m, int64_t load_ns, struct arena *a,
                     struct json *answer)
{
    struct rusage usage = {0};

    getrusage(RUSAGE_SELF, &usage);
    json_set_str(a, answer, S("platform"), str_of(m->engine->platform));
    json_set(answer, S("inputs"), tensor_specs_json(m->inputs, m->input_count, a));
    json_set(answer, S("outputs"), tensor_specs_json(m->outputs, m->output_count, a));
    json_set_real(a, answer, S("load_ms"), (double)load_ns / 1e6);
    json_set_int(a, answer, S("rss_bytes"), (int64_t)usage.ru_maxrss * 1024);
}

/* --- Rows in ---------------------------------------------------------------------------------- */

struct in_column {
    uint32_t tensor;
    size_t element, row_elements;
    str *texts;
    uint32_t text_count;
};

struct out_column {
    uint32_t tensor;
    size_t element, row_elements;
    str texts[OUTPUT_TEXTS_MAX];
    uint32_t text_count;
};

struct run {
    struct runtime_model *m; /* borrowed */
    struct runtime_slot *slot;
    struct rowfile in, out;
    struct in_column *ins;
    struct out_column **outs;
    uint32_t out_count;
    uint32_t batch;
    double *numbers; /* of a batch of rows */
    double *answers;
    struct arena *a;
};

static void run_done(struct run *r)
{
    runtime_slot_free(r->slot);
    rowfile_done(&r->in);
    rowfile_done(&r->out);
    mem_free(r->numbers);
    mem_free(r->answers);
}

static NODISCARD int in_column_read(struct run *r, const struct json *node, struct in_column *c,
                                    struct err *e)
{
    int64_t input = json_int_or(json_get(node, S("input")), -1);
    int64_t element = json_int_or(json_get(node, S("element")), -1);
    const struct json *texts = json_get(node, S("texts"));

    if (input < 0 || input >= r->m->input_count || element < 0 ||
        element >= tensor_row_elements(&r->m->inputs[input]))
        return FAIL(e, INVALID_ARGUMENT, "a column lies outside the model's inputs");
    c->tensor = (uint32_t)input;
    c->element = (size_t)element;
    c->row_elements = (size_t)tensor_row_elements(&r->m->inputs[input]);
    if (!json_is_container(texts))
        return 0;
    c->texts = ARENA_ARRAY(r->a, str, texts->count + 1);
    JSON_EACH (text, texts)
        c->texts[c->text_count++] = json_str_or(text, S(""));
    return 0;
}

static NODISCARD int ins_read(struct run *r, struct err *e)
{
    struct json *columns;
    size_t n = 0;

    TRY(json_need_array(r->in.tail, S("columns"), &columns, e));
    if (columns->count != r->in.columns)
        return FAIL(e, INVALID_ARGUMENT, "%zu columns are described, there are %u", columns->count,
                    r->in.columns);
    r->ins = ARENA_ARRAY(r->a, struct in_column, columns->count + 1);
    JSON_EACH (node, columns)
        TRY(in_column_read(r, node, &r->ins[n++], e));
    return 0;
}

static NODISCARD int outs_make(struct run *r, struct err *e)
{
    r->outs = ARENA_ARRAY(r->a, struct out_column *, OUTPUT_COLUMNS_MAX);
    for (uint32_t t = 0; t < r->m->output_count; t++) {
        int64_t elements = tensor_row_elements(&r->m->outputs[t]);

        if (elements < 1 || elements > OUTPUT_COLUMNS_MAX - r->out_count)
            return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' has no fixed number of elements",
                        STR_A(r->m->outputs[t].name));
        for (int64_t i = 0; i < elements; i++) {
            struct out_column *c = r->outs[r->out_count++] = ARENA_NEW(r->a, struct out_column);

            c->tensor = t;
            c->element = (size_t)i;
            c->row_elements = (size_t)elements;
        }
    }
    return 0;
}

/* False when the number cannot be an element of that type. */
static bool put(struct tensor *t, const struct in_column *c, size_t row, double v)
{
    size_t at = row * c->row_elements + c->element;
    enum tensor_type type = t->spec->datatype;
    size_t size = tensor_type_bytes(type);
    char *to = (char *)t->data + at * size;

    if (type == TENSOR_BYTES) {
        bool known = v >= 0 && v < c->text_count;

        ((str *)t->data)[at] = known ? c->texts[(uint32_t)v] : S("");
        return true;
    }
    if (tensor_put_number(type, to, v))
        return true;
    memset(to, 0, size);
    return false;
}

/* --- Answers out ------------------------------------------------------------------------------ */

static double text_index(struct out_column *c, str text, struct arena *a)
{
    for (uint32_t i = 0; i < c->text_count; i++)
        if (str_eq(c->texts[i], text))
            return i;
    if (c->text_count == OUTPUT_TEXTS_MAX)
        return NAN;
    c->texts[c->text_count] = arena_dup(a, text);
    return c->text_count++;
}

static double answer_at(struct run *r, struct out_column *c, size_t row)
{
    const struct tensor *t = &r->slot->outputs[c->tensor];
    size_t at = row * c->row_elements + c->element;

    if (t->spec->datatype == TENSOR_BYTES)
        return text_index(c, ((const str *)t->data)[at], r->a);
    return tensor_number_at(t, at);
}

static NODISCARD int check_outputs(const struct run *r, uint32_t rows, struct err *e)
{
    for (uint32_t i = 0; i < r->out_count; i++) {
        const struct tensor *t = &r->slot->outputs[r->outs[i]->tensor];

        if (t->count != rows * r->outs[i]->row_elements)
            return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' gave %zu elements for %u rows",
                        STR_A(t->spec->name), t->count, rows);
    }
    return 0;
}

static NODISCARD int run_batch(struct run *r, uint64_t first, uint32_t rows, struct err *e)
{
    TRY(rowfile_get(&r->in, first, rows, r->numbers, e));
    for (uint32_t row = 0; row < rows; row++)
        for (uint32_t c = 0; c < r->in.columns; c++) {
            const struct in_column *in = &r->ins[c];
            double *v = &r->numbers[(size_t)row * r->in.columns + c];

            /* Remembered in place: the row is not answered. */
            if (!put(&r->slot->inputs[in->tensor], in, row, *v))
                r->numbers[(size_t)row * r->in.columns] = INFINITY;
        }
    TRY(runtime_run(r->slot, rows, 0, e));
    TRY(check_outputs(r, rows, e));
    for (uint32_t row = 0; row < rows; row++) {
        bool lost = r->numbers[(size_t)row * r->in.columns] == (double)INFINITY;

        for (uint32_t c = 0; c < r->out_count; c++)
            r->answers[(size_t)row * r->out_count + c] =
                lost ? (double)NAN : answer_at(r, r->outs[c], row);
    }
    return rowfile_put(&r->out, first, rows, r->answers, e);
}

static NODISCARD int measure(struct run *r, uint64_t runs, struct json *tail, struct err *e)
{
    struct latency *l = ARENA_NEW(r->a, struct latency);

    runs = r->in.rows ? MIN(runs, (uint64_t)1000000) : 0;
    for (uint64_t i = 0; runs && i < runs + WARM_RUNS; i++) {
        int64_t from;

        TRY(rowfile_get(&r->in, i % r->in.rows, 1, r->numbers, e));
        from = time_mono_ns();
        for (uint32_t c = 0; c < r->in.columns; c++)
            put(&r->slot->inputs[r->ins[c].tensor], &r->ins[c], 0, r->numbers[c]);
        TRY(runtime_run(r->slot, 1, 0, e));
        if (i >= WARM_RUNS)
            latency_record(l, (uint64_t)(time_mono_ns() - from));
    }
    json_set_int(r->a, tail, S("p50_ns"), (int64_t)latency_quantile_ns(l, 0.5));
    json_set_int(r->a, tail, S("p99_ns"), (int64_t)latency_quantile_ns(l, 0.99));
    return 0;
}

static struct json *out_columns_json(const struct run *r)
{
    struct json *list = json_new_array(r->a);

    for (uint32_t i = 0; i < r->out_count; i++) {
        struct json *item = json_push(list, json_new_object(r->a)), *texts;
        const struct tensor_spec *spec = &r->m->outputs[r->outs[i]->tensor];

        json_set_str(r->a, item, S("tensor"), spec->name);
        json_set_int(r->a, item, S("element"), (int64_t)r->outs[i]->element);
        if (spec->datatype != TENSOR_BYTES)
            continue;
        texts = json_set(item, S("texts"), json_new_array(r->a));
        for (uint32_t t = 0; t < r->outs[i]->text_count; t++)
            json_push(texts, json_new_str(r->a, r->outs[i]->texts[t]));
    }
    return list;
}

static NODISCARD int run_rows(const struct probe_args *args, struct runtime_model *m,
                              struct arena *a, struct err *e)
{
    AUTO(run_done) struct run r = {.m = m, .a = a, .in = {.fd = -1}, .out = {.fd = -1}};
    struct json *tail = json_new_object(a);

    if (!m->batched)
        return FAIL(e, INVALID_ARGUMENT,
                    "the model does not take rows: its inputs need an open first dimension and no "
                    "other open one");
    TRY(rowfile_open(args->rows, a, &r.in, e));
    TRY(ins_read(&r, e));
    TRY(outs_make(&r, e));
    TRY(rowfile_create(args->out, r.out_count, r.in.rows, &r.out, e));
    r.batch = BATCH_ROWS;
    TRY(runtime_slot_new(m, r.batch, 0, &r.slot, e));
    r.numbers = mem_try_alloc((size_t)r.batch * MAX(r.in.columns, 1u) * sizeof(double));
    r.answers = mem_try_alloc((size_t)r.batch * r.out_count * sizeof(double));
    if (!r.numbers || !r.answers)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for a batch of %u rows", r.batch);
    for (uint64_t at = 0; at < r.in.rows; at += r.batch)
        TRY(run_batch(&r, at, (uint32_t)MIN((uint64_t)r.batch, r.in.rows - at), e));
    TRY(measure(&r, (uint64_t)json_int_or(json_get(r.in.tail, S("latency_rows")), 0), tail, e));
    json_set(tail, S("columns"), out_columns_json(&r));
    return rowfile_finish(&r.out, tail, e);
}

/* --- Commands --------------------------------------------------------------------------------- */

/* What the registry keeps of a file that knows what it is. */
static void about_json(const struct runtime_about *about, struct arena *a, struct json *to)
{
    struct json *names;

    json_set_str(a, to, S("format"), arena_dup(a, about->format));
    if (about->objective.n)
        json_set_str(a, to, S("objective"), arena_dup(a, about->objective));
    json_set_int(a, to, S("features"), about->features);
    json_set_int(a, to, S("classes"), about->classes);
    json_set_int(a, to, S("trees"), about->trees);
    json_set_int(a, to, S("nodes"), (int64_t)about->nodes);
    if (!about->feature_names)
        return;
    names = json_set(to, S("feature_names"), json_new_array(a));
    for (uint32_t i = 0; i < about->features; i++)
        json_push(names, json_new_str(a, arena_dup(a, about->feature_names[i])));
}

static NODISCARD int convert(const struct probe_args *args, struct arena *a, struct json *answer,
                             struct err *e)
{
    AUTO(buf_done) struct buf onnx = {0};
    struct xgb_model_info info = {0};
    str model;

    buf_init(&onnx, RUNTIME_MODEL_BYTES_MAX);
    TRY(file_read_all(args->convert, XGB_MODEL_BYTES_MAX, a, &model, e));
    TRY(xgb_onnx_convert(model, a, &onnx, &info, e));
    TRY(file_replace(args->out, buf_str(&onnx), e));
    about_json(&(struct runtime_about){.format = S("xgboost"),
                                       .objective = info.objective,
                                       .features = info.features,
                                       .classes = info.classes,
                                       .trees = info.trees,
                                       .nodes = info.nodes,
                                       .feature_names = info.feature_names},
               a, answer);
    return 0;
}

static NODISCARD int adopt(const struct probe_args *args, struct arena *a, struct json *answer,
                           struct err *e)
{
    const struct runtime_options options = {.must_start = true};
    struct json *info;

    if (args->pack)
        TRY(adopt_folder(args->pack, args->out, &options, a, &info, e));
    else
        TRY(adopt_remote(args->remote, args->out, a, &info, e));
    JSON_EACH (member, info)
        json_set(answer, member->key, json_copy(a, member));
    return 0;
}

/* "auto" is the tree engine for what it computes, and ONNX Runtime, whose word then counts, for all
 * else. */
static NODISCARD int model_load(const struct probe_args *args,
                                const struct runtime_options *options,
                                struct runtime_model **ret_model, struct err *e)
{
    struct err not_trees;

    if (strcmp(args->platform, "auto") != 0)
        return runtime_load(str_of(args->platform), args->model, options, ret_model, e);
    if (!runtime_load(S("weir_trees"), args->model, NULL, ret_model, &not_trees))
        return 0;
    return runtime_load(S("onnxruntime_onnx"), args->model, options, ret_model, e);
}

static NODISCARD int probe(const struct probe_args *args, struct arena *a, struct json *answer,
                           struct err *e)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    const struct runtime_options options = {.must_start = true};
    int64_t from = time_mono_ns();

    if (args->convert)
        return convert(args, a, answer, e);
    if (args->pack || args->remote)
        return adopt(args, a, answer, e);
    TRY(model_load(args, &options, &m, e));
    describe(m, time_mono_ns() - from, a, answer);
    if (m->about)
        about_json(m->about, a, json_set(answer, S("about"), json_new_object(a)));
    return args->rows ? run_rows(args, m, a, e) : 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: weir probe --model FILE --platform NAME [--rows FILE --out FILE]\n"
                    "       weir probe --convert FILE --out FILE\n"
                    "       weir probe --pack FOLDER --out FILE\n"
                    "       weir probe --remote FILE --out FILE\n");
    return 2;
}

static bool parse(int argc, char **argv, struct probe_args *args)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},   {"platform", required_argument, NULL, 'p'},
        {"rows", required_argument, NULL, 'r'},    {"out", required_argument, NULL, 'o'},
        {"convert", required_argument, NULL, 'c'}, {"pack", required_argument, NULL, 'k'},
        {"remote", required_argument, NULL, 'e'},  {NULL, 0, NULL, 0},
    };
    int c, makes;

    optind = 1;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (c) {
        case 'm':
            args->model = optarg;
            break;
        case 'p':
            args->platform = optarg;
            break;
        case 'r':
            args->rows = optarg;
            break;
        case 'o':
            args->out = optarg;
            break;
        case 'c':
            args->convert = optarg;
            break;
        case 'k':
            args->pack = optarg;
            break;
        case 'e':
            args->remote = optarg;
            break;
        default:
            return false;
        }
    makes = !!args->convert + !!args->pack + !!args->remote;
    return optind == argc && makes + !!args->model == 1 && !args->model == !args->platform &&
           !args->out == (!args->rows && !makes);
}

/* A remote server that closes while it is written to makes an error, not the end of the probe. */
static void mask_pipes(void)
{
    sigset_t pipes;

    sigemptyset(&pipes);
    sigaddset(&pipes, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &pipes, NULL);
}

int probe_main(int argc, char **argv)
{
    struct probe_args args = {0};
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf text = {0};
    struct json *answer, *error;
    struct err e = {0};
    int rc;

    if (!parse(argc, argv, &args))
        return usage();
    mask_pipes();
    arena_init(&a, 0);
    buf_init(&text, BUF_MAX_DEFAULT);
    answer = json_new_object(&a);
    rc = probe(&args, &a, answer, &e);
    if (rc) {
        answer = json_new_object(&a);
        error = json_set(answer, S("error"), json_new_object(&a));
        json_set_str(&a, error, S("code"), str_of(code_name(e.code)));
        json_set_str(&a, error, S("message"), str_of(e.msg));
    }
    json_write(&text, answer);
    buf_add_char(&text, '\n');
    return file_write_all(STDOUT_FILENO, text.p, text.n, &e) || rc ? 1 : 0;
}
