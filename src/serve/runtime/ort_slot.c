/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot of an ONNX model: one loop's values, ready to be run again and again.
 *
 * The library wants an OrtValue per tensor and shape. A value over the slot's own memory costs
 * about as much to make as a small model costs to run, so values are kept: for batched models of
 * up to ROWS_KEPT rows a set per number of rows, made when that number first comes; for any other
 * shape the set of the last run, which is reused while the shape stays.
 *
 * Outputs whose size the signature tells are computed into the slot's memory. Others (an open
 * second dimension, strings) are left to the library: numbers are then read where it put them, and
 * its value lives until the next run; strings are copied into memory of the slot that grows to what
 * is needed and stays.
 *
 * Invariants: a kept input value lies over inputs[i].data with the shape of its key; nothing of
 * `loose` is alive while the library runs. A warm slot makes no allocation of Weir's in a run.
 */
#include "serve/runtime/ort.h"

#include "base/mem.h"

#include <stdatomic.h>

#define ROWS_KEPT 64

enum { IDLE, RUNNING, CANCELLING, CANCELLED };

/* The values of one shape: inputs first, then outputs (NULL where the library allocates). */
struct value_set {
    OrtValue **values; /* owned; NULL until made */
};

struct strings {
    char *bytes; /* owned */
    size_t *offsets;
    str *elements;
    size_t bytes_cap, elements_cap;
};

/* runtime_slot.state */
struct ort_state {
    _Atomic int run_state;
    OrtRunOptions *run_options; /* owned */
    struct value_set kept[ROWS_KEPT + 1];
    struct value_set last;
    int64_t (*last_shapes)[TENSOR_RANK_MAX]; /* of the inputs, for `last` */
    uint32_t *last_ranks;
    OrtValue **fetched;      /* outputs of the run: ours, or new from the library */
    OrtValue **loose;        /* owned: from the library, until the next run */
    struct strings *strings; /* per output */
};

static struct ort_model *model_of(const struct runtime_slot *s)
{
    return s->model->state;
}

int ort_slot_init(struct runtime_slot *s, struct err *e)
{
    struct runtime_model *m = s->model;
    uint32_t values = m->input_count + m->output_count;
    struct ort_state *st = ARENA_NEW(&s->arena, struct ort_state);
    uint32_t sets = m->batched ? MIN(s->rows_max, (uint32_t)ROWS_KEPT) + 1 : 0;

    if (st) {
        for (uint32_t i = 0; i < sets; i++)
            st->kept[i].values = ARENA_ARRAY(&s->arena, OrtValue *, values);
        st->last.values = ARENA_ARRAY(&s->arena, OrtValue *, values);
        st->last_shapes = arena_zalloc_array(&s->arena, sizeof(*st->last_shapes), m->input_count);
        st->last_ranks = ARENA_ARRAY(&s->arena, uint32_t, m->input_count);
        st->fetched = ARENA_ARRAY(&s->arena, OrtValue *, m->output_count);
        st->loose = ARENA_ARRAY(&s->arena, OrtValue *, m->output_count);
        st->strings = ARENA_ARRAY(&s->arena, struct strings, m->output_count);
    }
    if (s->arena.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the slot of a model");
    s->state = st;
    return ort_check(model_of(s)->api, model_of(s)->api->CreateRunOptions(&st->run_options),
                     "making ONNX run options", e);
}

static void set_release(const OrtApi *api, struct value_set *set, uint32_t n)
{
    for (uint32_t i = 0; set->values && i < n; i++)
        if (set->values[i]) {
            api->ReleaseValue(set->values[i]);
            set->values[i] = NULL;
        }
}

static void loose_release(const OrtApi *api, struct ort_state *st, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (st->loose[i]) {
            api->ReleaseValue(st->loose[i]);
            st->loose[i] = NULL;
        }
}

void ort_slot_done(struct runtime_slot *s)
{
    struct ort_state *st = s->state;
    uint32_t outputs = s->model->output_count, n = s->model->input_count + outputs;
    const OrtApi *api = model_of(s)->api;

    if (!st)
        return;
    for (size_t i = 0; i < ARRAY_LEN(st->kept); i++)
        set_release(api, &st->kept[i], n);
    set_release(api, &st->last, n);
    loose_release(api, st, outputs);
    for (uint32_t i = 0; i < outputs; i++) {
        mem_free(st->strings[i].bytes);
        mem_free(st->strings[i].offsets);
        mem_free(st->strings[i].elements);
    }
    if (st->run_options)
        api->ReleaseRunOptions(st->run_options);
}

/* A value over the tensor's memory, or a tensor of strings, which only the library can hold. */
static int value_make(struct runtime_slot *s, struct tensor *t, OrtValue **ret_value, struct err *e)
{
    struct ort_model *om = model_of(s);
    const OrtApi *api = om->api;
    ONNXTensorElementDataType type = ort_type_of(t->spec->datatype);

    if (t->spec->datatype == TENSOR_BYTES)
        ORT_TRY(api, api->CreateTensorAsOrtValue(om->allocator, t->shape, t->rank, type, ret_value),
                "making an ONNX tensor");
    else
        ORT_TRY(api,
                api->CreateTensorWithDataAsOrtValue(om->memory, t->data, t->bytes, t->shape,
                                                    t->rank, type, ret_value),
                "making an ONNX tensor");
    return 0;
}

static int set_fill(struct runtime_slot *s, struct value_set *set, bool rows_known, struct err *e)
{
    struct runtime_model *m = s->model;

    for (uint32_t i = 0; i < m->input_count; i++)
        if (!set->values[i])
            TRY(value_make(s, &s->inputs[i], &set->values[i], e));
    for (uint32_t i = 0; rows_known && i < m->output_count; i++) {
        struct tensor *t = &s->outputs[i];

        if (t->cap_bytes && !set->values[m->input_count + i]) {
            tensor_set_rows(t, s->inputs[0].shape[0]);
            TRY(value_make(s, t, &set->values[m->input_count + i], e));
        }
    }
    return 0;
}

/* True when the inputs have the shapes for which st->last was made; notes them otherwise. */
static bool last_shapes_match(struct runtime_slot *s)
{
    struct ort_state *st = s->state;
    bool same = true;

    for (uint32_t i = 0; i < s->model->input_count; i++) {
        const struct tensor *t = &s->inputs[i];

        same &= st->last.values[i] && st->last_ranks[i] == t->rank &&
                memcmp(st->last_shapes[i], t->shape, t->rank * sizeof(t->shape[0])) == 0;
        st->last_ranks[i] = t->rank;
        memcpy(st->last_shapes[i], t->shape, sizeof(t->shape));
    }
    return same;
}

/* The rows that all inputs have, or -1 when the slot counts in elements or they differ. */
static int64_t rows_of(const struct runtime_slot *s)
{
    if (!s->model->batched)
        return -1;
    for (uint32_t i = 1; i < s->model->input_count; i++)
        if (s->inputs[i].shape[0] != s->inputs[0].shape[0])
            return -1;
    return s->inputs[0].shape[0];
}

static int set_get(struct runtime_slot *s, struct value_set **ret_set, struct err *e)
{
    struct ort_state *st = s->state;
    int64_t rows = rows_of(s);
    bool rows_known = rows >= 0 && rows <= (int64_t)s->rows_max;

    if (rows_known && rows <= ROWS_KEPT && rows <= (int64_t)s->rows_max) {
        *ret_set = &st->kept[rows];
    } else {
        if (!last_shapes_match(s))
            set_release(model_of(s)->api, &st->last,
                        s->model->input_count + s->model->output_count);
        *ret_set = &st->last;
    }
    return set_fill(s, *ret_set, rows_known, e);
}

static int strings_in(struct runtime_slot *s, struct value_set *set, struct err *e)
{
    const OrtApi *api = model_of(s)->api;

    for (uint32_t i = 0; i < s->model->input_count; i++) {
        const struct tensor *t = &s->inputs[i];

        if (t->spec->datatype != TENSOR_BYTES)
            continue;
        for (size_t j = 0; j < t->count; j++) {
            str text = ((const str *)t->data)[j];
            char *to;

            ORT_TRY(api, api->GetResizedStringTensorElementBuffer(set->values[i], j, text.n, &to),
                    "filling an ONNX tensor of strings");
            if (text.n)
                memcpy(to, text.p, text.n);
        }
    }
    return 0;
}

static int strings_room(struct strings *x, size_t count, size_t bytes, struct err *e)
{
    if (count > x->elements_cap) {
        size_t *offsets = mem_try_realloc(x->offsets, count * sizeof(size_t));
        str *elements = mem_try_realloc(x->elements, count * sizeof(str));

        x->offsets = offsets ? offsets : x->offsets;
        x->elements = elements ? elements : x->elements;
        if (!offsets || !elements)
            return FAIL(e, RESOURCE_EXHAUSTED, "no memory for %zu strings of an answer", count);
        x->elements_cap = count;
    }
    if (bytes > x->bytes_cap) {
        char *more = mem_try_realloc(x->bytes, bytes);

        if (!more)
            return FAIL(e, RESOURCE_EXHAUSTED, "no memory for %zu bytes of strings of an answer",
                        bytes);
        x->bytes = more;
        x->bytes_cap = bytes;
    }
    return 0;
}

static int strings_out(const OrtApi *api, OrtValue *value, struct tensor *t, struct strings *x,
                       struct err *e)
{
    size_t bytes = 0;

    ORT_TRY(api, api->GetStringTensorDataLength(value, &bytes), "reading ONNX strings");
    TRY(strings_room(x, MAX(t->count, (size_t)1), MAX(bytes, (size_t)1), e));
    if (t->count)
        ORT_TRY(api, api->GetStringTensorContent(value, x->bytes, bytes, x->offsets, t->count),
                "reading ONNX strings");
    for (size_t i = 0; i < t->count; i++) {
        size_t end = i + 1 < t->count ? x->offsets[i + 1] : bytes;

        x->elements[i] = (str){x->bytes + x->offsets[i], end - x->offsets[i]};
    }
    t->data = x->elements;
    return 0;
}

/* Shape and data of an output that the library allocated. */
static int loose_read(struct runtime_slot *s, uint32_t i, struct err *e)
{
    struct ort_state *st = s->state;
    const OrtApi *api = model_of(s)->api;
    struct tensor *t = &s->outputs[i];
    OrtTensorTypeAndShapeInfo *info;
    size_t rank = 0;
    int64_t count;
    int rc;

    ORT_TRY(api, api->GetTensorTypeAndShape(st->loose[i], &info), "reading an ONNX output");
    rc = ort_check(api, api->GetDimensionsCount(info, &rank), "reading an ONNX output", e);
    t->rank = (uint32_t)MIN(rank, (size_t)TENSOR_RANK_MAX);
    if (!rc)
        rc = ort_check(api, api->GetDimensions(info, t->shape, t->rank), "reading an ONNX output",
                       e);
    api->ReleaseTensorTypeAndShapeInfo(info);
    TRY(rc);
    if (rank > TENSOR_RANK_MAX || !tensor_shape_count(t->shape, t->rank, &count))
        return FAIL(e, INTERNAL,
                    "output '" STR_F "' came with %zu dimensions, at most %d are "
                    "possible",
                    STR_A(t->spec->name), rank, TENSOR_RANK_MAX);
    t->count = (size_t)count;
    t->bytes = t->count * tensor_type_bytes(t->spec->datatype);
    if (t->spec->datatype == TENSOR_BYTES)
        return strings_out(api, st->loose[i], t, &st->strings[i], e);
    ORT_TRY(api, api->GetTensorMutableData(st->loose[i], &t->data), "reading an ONNX output");
    return 0;
}

/* After a run: what was asked to stop is told so, and the next run starts clean. */
static bool run_end(const OrtApi *api, struct ort_state *st)
{
    int was = RUNNING;

    if (atomic_compare_exchange_strong(&st->run_state, &was, IDLE))
        return false;
    while (atomic_load(&st->run_state) != CANCELLED)
        ; /* the canceller is between two instructions */
    api->ReleaseStatus(api->RunOptionsUnsetTerminate(st->run_options));
    atomic_store(&st->run_state, IDLE);
    return true;
}

int ort_slot_run(struct runtime_slot *s, struct err *e)
{
    struct ort_model *om = model_of(s);
    struct ort_state *st = s->state;
    uint32_t inputs = s->model->input_count, outputs = s->model->output_count;
    struct value_set *set;
    OrtStatus *status;

    loose_release(om->api, st, outputs);
    TRY(set_get(s, &set, e));
    TRY(strings_in(s, set, e));
    for (uint32_t i = 0; i < outputs; i++)
        st->fetched[i] = set->values[inputs + i];
    atomic_store_explicit(&st->run_state, RUNNING, memory_order_release);
    status = om->api->Run(om->session, st->run_options, om->input_names,
                          (const OrtValue *const *)set->values, inputs, om->output_names, outputs,
                          st->fetched);
    if (UNLIKELY(run_end(om->api, st) && status)) {
        om->api->ReleaseStatus(status);
        return FAIL(e, CANCELLED, "the run of the model was cancelled");
    }
    ORT_TRY(om->api, status, "the model failed");
    for (uint32_t i = 0; i < outputs; i++) {
        if (set->values[inputs + i]) {
            tensor_set_rows(&s->outputs[i], s->inputs[0].shape[0]);
            continue;
        }
        st->loose[i] = st->fetched[i];
    }
    for (uint32_t i = 0; i < outputs; i++)
        if (st->loose[i])
            TRY(loose_read(s, i, e));
    return 0;
}

void ort_slot_cancel(struct runtime_slot *s)
{
    struct ort_state *st = s->state;
    int was = RUNNING;

    if (!atomic_compare_exchange_strong(&st->run_state, &was, CANCELLING))
        return;
    model_of(s)->api->ReleaseStatus(model_of(s)->api->RunOptionsSetTerminate(st->run_options));
    atomic_store(&st->run_state, CANCELLED);
}
