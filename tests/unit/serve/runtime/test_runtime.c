/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime on real models in the real ONNX Runtime. */
#include "check.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"
#include "onnx_make.h"
#include "serve/runtime/runtime.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static char folder[] = "/tmp/weir-runtime-XXXXXX";
static char path[64];

static struct runtime_model *load_bytes(str bytes, int *ret_rc, struct err *e)
{
    struct runtime_model *m = NULL;
    struct err file_e;

    if (!CHECK_OK(file_replace(path, bytes, &file_e), &file_e))
        return NULL;
    *ret_rc = runtime_load(S("onnxruntime_onnx"), path, NULL, &m, e);
    return m;
}

/* y = x + x over [-1, 3]. */
static struct runtime_model *load_double(struct err *e)
{
    AUTO(buf_done) struct buf owned = {0};
    struct onnx_make o;
    struct runtime_model *m;
    int rc = 0;

    onnx_begin(&o);
    onnx_node(&o, "Add", "", "x", "x", "y");
    onnx_input(&o, "x", ONNX_FLOAT, (int64_t[]){-1, 3}, 2);
    onnx_output(&o, "y", ONNX_FLOAT, (int64_t[]){-1, 3}, 2);
    m = load_bytes(onnx_end(&o), &rc, e);
    owned = o.bytes;
    CHECK_OK(rc, e);
    return m;
}

static void fill(struct runtime_slot *s, uint32_t rows, float from)
{
    for (uint32_t i = 0; i < rows * 3; i++)
        ((float *)s->inputs[0].data)[i] = from + (float)i;
}

static bool doubled(const struct runtime_slot *s, uint32_t rows, float from)
{
    const struct tensor *y = &s->outputs[0];

    if (y->rank != 2 || y->shape[0] != rows || y->shape[1] != 3 || y->count != rows * 3)
        return false;
    for (uint32_t i = 0; i < rows * 3; i++)
        if (((const float *)y->data)[i] != 2 * (from + (float)i))
            return false;
    return true;
}

static void test_runs_any_number_of_rows(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    static const uint32_t rows[] = {1, 2, 64, 65, 100, 1, 65, 200, 64, 200};
    struct err e;

    m = load_double(&e);
    NEED(m);
    CHECK(m->batched);
    CHECK_STR(m->inputs[0].name, S("x"));
    CHECK_INT(m->inputs[0].shape[0], TENSOR_DIM_ANY);
    CHECK_INT(m->outputs[0].datatype, TENSOR_FP32);
    NEED_OK(runtime_slot_new(m, 200, 0, &s, &e), &e);
    CHECK_INT(s->inputs[0].cap_bytes, 200 * 3 * 4);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        fill(s, rows[i], (float)i);
        NEED_OK(runtime_run(s, rows[i], 0, &e), &e);
        CHECK(doubled(s, rows[i], (float)i));
    }
}

static void test_a_warm_run_allocates_nothing(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    uint64_t before;
    struct err e;

    m = load_double(&e);
    NEED(m);
    NEED_OK(runtime_slot_new(m, 64, 0, &s, &e), &e);
    before = mem_alloc_count();
    for (uint32_t i = 0; i < 1000; i++)
        NEED_OK(runtime_run(s, 1 + i % 64, 0, &e), &e);
    CHECK_INT(mem_alloc_count() - before, 0);
}

static void test_deadline(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    struct err e;

    m = load_double(&e);
    NEED(m);
    NEED_OK(runtime_slot_new(m, 4, 0, &s, &e), &e);
    CHECK_FAILS(runtime_run(s, 1, time_mono_ns() - 1, &e), DEADLINE_EXCEEDED, &e, "deadline");
    CHECK_OK(runtime_run(s, 1, time_mono_ns() + NS_PER_S, &e), &e);
    runtime_cancel(s); /* nothing runs: nothing happens */
    CHECK_OK(runtime_run(s, 1, 0, &e), &e);
}

/* Fixed shapes, and outputs whose shape only a run tells. */
static void test_models_that_are_not_batched(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    AUTO(buf_done) struct buf owned = {0};
    struct onnx_make o;
    struct err e;
    float *x;
    int rc;

    onnx_begin(&o);
    onnx_node(&o, "NonZero", "", "x", "", "where");
    onnx_node(&o, "Neg", "", "x", "", "y");
    onnx_input(&o, "x", ONNX_FLOAT, (int64_t[]){2, 2}, 2);
    onnx_output(&o, "where", ONNX_INT64, (int64_t[]){2, -1}, 2);
    onnx_output(&o, "y", ONNX_FLOAT, (int64_t[]){2, 2}, 2);
    m = load_bytes(onnx_end(&o), &rc, &e);
    owned = o.bytes;
    NEED_OK(rc, &e);
    CHECK(!m->batched);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    x = s->inputs[0].data;
    s->inputs[0].rank = 2, s->inputs[0].shape[0] = 2, s->inputs[0].shape[1] = 2;
    s->inputs[0].count = 4, s->inputs[0].bytes = 16;
    for (int round = 0; round < 3; round++) {
        x[0] = 1, x[1] = 0, x[2] = 0, x[3] = (float)(round == 1 ? 0 : 5);
        NEED_OK(runtime_run(s, 0, 0, &e), &e);
        CHECK_INT(s->outputs[0].rank, 2);
        CHECK_INT(s->outputs[0].shape[1], round == 1 ? 1 : 2);
        CHECK_INT(((int64_t *)s->outputs[0].data)[0], 0);
        CHECK(((float *)s->outputs[1].data)[3] == -x[3]);
    }
    s->inputs[0].shape[0] = 1, s->inputs[0].count = 2, s->inputs[0].bytes = 8;
    CHECK_FAILS(runtime_run(s, 0, 0, &e), INVALID_ARGUMENT, &e, "the model failed");
}

static void test_strings(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    AUTO(buf_done) struct buf owned = {0};
    struct onnx_make o;
    struct err e;
    str *in;
    int rc;

    onnx_begin(&o);
    onnx_node(&o, "Identity", "", "t", "", "u");
    onnx_input(&o, "t", ONNX_STRING, (int64_t[]){-1}, 1);
    onnx_output(&o, "u", ONNX_STRING, (int64_t[]){-1}, 1);
    m = load_bytes(onnx_end(&o), &rc, &e);
    owned = o.bytes;
    NEED_OK(rc, &e);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    in = s->inputs[0].data;
    for (int round = 0; round < 3; round++) {
        in[0] = S("a longer string than what a std::string keeps inside"), in[1] = S("");
        in[2] = (str){"nul\0inside", 10};
        NEED_OK(runtime_run(s, 3, 0, &e), &e);
        CHECK_INT(s->outputs[0].count, 3);
        for (int i = 0; i < 3; i++)
            CHECK_STR(((str *)s->outputs[0].data)[i], in[i]);
        in[0] = S("short");
        NEED_OK(runtime_run(s, 1, 0, &e), &e);
        CHECK_STR(((str *)s->outputs[0].data)[0], S("short"));
    }
}

/* The output type that scikit-learn's converters give by default: a list of maps. */
static void test_refuses_zipmap(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(buf_done) struct buf owned = {0};
    struct onnx_make o;
    size_t node, info, type, sequence, element, map;
    struct err e;
    int rc = 0;

    onnx_begin(&o);
    node = pb_open(&o.bytes, 1);
    pb_put_bytes(&o.bytes, 1, S("x"));
    pb_put_bytes(&o.bytes, 2, S("scores"));
    pb_put_bytes(&o.bytes, 4, S("ZipMap"));
    pb_put_bytes(&o.bytes, 7, S("ai.onnx.ml"));
    onnx_attr_ints(&o.bytes, S("classlabels_int64s"), (int64_t[]){0, 1}, 2);
    pb_close(&o.bytes, node);
    onnx_input(&o, "x", ONNX_FLOAT, (int64_t[]){-1, 2}, 2);
    info = pb_open(&o.bytes, 12);
    pb_put_bytes(&o.bytes, 1, S("scores"));
    type = pb_open(&o.bytes, 2);
    sequence = pb_open(&o.bytes, 4);
    element = pb_open(&o.bytes, 1);
    map = pb_open(&o.bytes, 5);
    pb_int(&o.bytes, 1, ONNX_INT64);
    size_t value = pb_open(&o.bytes, 2), tensor = pb_open(&o.bytes, 1);
    pb_int(&o.bytes, 1, ONNX_FLOAT);
    pb_close(&o.bytes, tensor);
    pb_close(&o.bytes, value);
    pb_close(&o.bytes, map);
    pb_close(&o.bytes, element);
    pb_close(&o.bytes, sequence);
    pb_close(&o.bytes, type);
    pb_close(&o.bytes, info);
    m = load_bytes(onnx_end(&o), &rc, &e);
    owned = o.bytes;
    CHECK_FAILS(rc, INVALID_ARGUMENT, &e, "output 'scores' is a list of maps");
    CHECK(strstr(e.msg, "'zipmap': False") != NULL);
}

static void test_refuses_what_cannot_load(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(buf_done) struct buf owned = {0};
    struct onnx_make o;
    struct err e;
    int rc = 0;

    CHECK_FAILS(runtime_load(S("torch"), path, NULL, &m, &e), INVALID_ARGUMENT, &e,
                "platform 'torch' is unknown");
    CHECK_FAILS(runtime_load(S("onnx"), "/nonexistent/m.onnx", NULL, &m, &e), NOT_FOUND, &e,
                "/nonexistent/m.onnx");
    m = load_bytes(S("not a model"), &rc, &e);
    CHECK_FAILS(rc, INVALID_ARGUMENT, &e, "is not an ONNX model");
    onnx_begin(&o);
    onnx_node(&o, "Secret", "com.example", "x", "", "y");
    onnx_input(&o, "x", ONNX_FLOAT, (int64_t[]){-1, 2}, 2);
    onnx_output(&o, "y", ONNX_FLOAT, (int64_t[]){-1, 2}, 2);
    m = load_bytes(onnx_end(&o), &rc, &e);
    owned = o.bytes;
    CHECK_FAILS(rc, INVALID_ARGUMENT, &e, "ONNX Runtime refuses the model");
    CHECK(strstr(e.msg, "com.example") != NULL);
}

static void test_slot_limits(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    struct runtime_slot *s = NULL;
    AUTO(buf_done) struct buf owned = {0};
    struct onnx_make o;
    struct err e;
    int rc;

    onnx_begin(&o);
    onnx_node(&o, "Neg", "", "x", "", "y");
    onnx_input(&o, "x", ONNX_FLOAT, (int64_t[]){-1, 1000000}, 2);
    onnx_output(&o, "y", ONNX_FLOAT, (int64_t[]){-1, 1000000}, 2);
    m = load_bytes(onnx_end(&o), &rc, &e);
    owned = o.bytes;
    NEED_OK(rc, &e);
    CHECK_FAILS(runtime_slot_new(m, 0, 0, &s, &e), INVALID_ARGUMENT, &e, "0 rows");
    CHECK_FAILS(runtime_slot_new(m, RUNTIME_ROWS_MAX + 1, 0, &s, &e), INVALID_ARGUMENT, &e, "rows");
    CHECK_FAILS(runtime_slot_new(m, 1000, 0, &s, &e), RESOURCE_EXHAUSTED, &e, "'x' needs");
    CHECK(s == NULL);
}

static void test_identity(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    struct err e;

    NEED_OK(file_replace(path, S("{\"columns\":3}"), &e), &e);
    NEED_OK(runtime_load(S("identity"), path, NULL, &m, &e), &e);
    CHECK(m->batched);
    NEED_OK(runtime_slot_new(m, 10, 0, &s, &e), &e);
    fill(s, 2, 7);
    NEED_OK(runtime_run(s, 2, 0, &e), &e);
    CHECK_STR(s->outputs[0].spec->name, S("output"));
    CHECK_INT(s->outputs[0].count, 6);
    CHECK(((float *)s->outputs[0].data)[5] == 12);
    NEED_OK(file_replace(path, S("{\"columns\":0}"), &e), &e);
    struct runtime_model *bad = NULL;
    CHECK_FAILS(runtime_load(S("identity"), path, NULL, &bad, &e), INVALID_ARGUMENT, &e,
                "columns is 0");
}

struct thread_run {
    struct runtime_slot *slot;
    float from;
    bool good;
};

static void *run_many(void *arg)
{
    struct thread_run *t = arg;
    struct err e;

    t->good = true;
    for (uint32_t i = 0; i < 500 && t->good; i++) {
        uint32_t rows = 1 + i % 80;

        fill(t->slot, rows, t->from);
        t->good = runtime_run(t->slot, rows, 0, &e) == 0 && doubled(t->slot, rows, t->from);
    }
    return NULL;
}

static void test_slots_of_one_model_run_side_by_side(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    struct thread_run runs[4] = {{NULL, 0, false}};
    pthread_t threads[4];
    struct err e;

    m = load_double(&e);
    NEED(m);
    for (int i = 0; i < 4; i++) {
        NEED_OK(runtime_slot_new(m, 80, 0, &runs[i].slot, &e), &e);
        runs[i].from = (float)(1000 * i);
        NEED(pthread_create(&threads[i], NULL, run_many, &runs[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        CHECK(runs[i].good);
        runtime_slot_free(runs[i].slot);
    }
}

/* A chain of products of large matrices: long enough to be stopped in the middle. */
static struct runtime_model *load_slow(struct err *e)
{
    AUTO(buf_done) struct buf owned = {0};
    struct onnx_make o;
    struct runtime_model *m;
    int rc = 0;

    onnx_begin(&o);
    for (int i = 0; i < 200; i++) {
        char from[16], to[16];

        snprintf(from, sizeof(from), "x%d", i);
        snprintf(to, sizeof(to), "x%d", i + 1);
        onnx_node(&o, "MatMul", "", from, "x0", to);
    }
    onnx_input(&o, "x0", ONNX_FLOAT, (int64_t[]){512, 512}, 2);
    onnx_output(&o, "x200", ONNX_FLOAT, (int64_t[]){512, 512}, 2);
    m = load_bytes(onnx_end(&o), &rc, e);
    owned = o.bytes;
    CHECK_OK(rc, e);
    return m;
}

static atomic_bool stop_cancelling;

static void *cancel_soon(void *slot)
{
    while (!atomic_load(&stop_cancelling)) {
        usleep(20000);
        runtime_cancel(slot);
    }
    return NULL;
}

static void test_cancel_stops_a_run(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    int64_t dims[2] = {512, 512};
    pthread_t canceller;
    struct err e;

    m = load_slow(&e);
    NEED(m);
    NEED_OK(runtime_slot_new(m, 1, (size_t)512 * 512, &s, &e), &e);
    s->inputs[0].rank = 2;
    memcpy(s->inputs[0].shape, dims, sizeof(dims));
    s->inputs[0].count = (size_t)512 * 512, s->inputs[0].bytes = s->inputs[0].count * 4;
    NEED(pthread_create(&canceller, NULL, cancel_soon, s) == 0);
    CHECK_FAILS(runtime_run(s, 0, 0, &e), CANCELLED, &e, "cancelled");
    atomic_store(&stop_cancelling, true);
    pthread_join(canceller, NULL);
    CHECK_OK(runtime_run(s, 0, 0, &e), &e); /* and the slot is good for the next run */
}

static void setup_folder(void)
{
    NEED(check_mkdtemp(folder) != NULL);
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
}

static void remove_folder(void)
{
    struct err e;

    CHECK_OK(file_remove(path, &e), &e);
    CHECK(rmdir(folder) == 0);
}

RUN_TESTS(T(setup_folder), T(test_runs_any_number_of_rows), T(test_a_warm_run_allocates_nothing),
          T(test_deadline), T(test_models_that_are_not_batched), T(test_strings),
          T(test_refuses_zipmap), T(test_refuses_what_cannot_load), T(test_slot_limits),
          T(test_identity), T(test_slots_of_one_model_run_side_by_side), T(test_cancel_stops_a_run),
          T(remove_folder))
