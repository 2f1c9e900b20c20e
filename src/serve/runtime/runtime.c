/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engines by name, and the parts of loading, slots and runs that are the same for all of them:
 * what a slot may hold, where its memory comes from, and the checks before a run.
 *
 * A model whose inputs all have one open dimension, the first, is `batched`: rows are independent,
 * memory is counted in rows, and rows of several requests may share a run. Any other model is given
 * memory by elements and runs one request at a time.
 */
#include "serve/runtime/runtime.h"

#include "base/mem.h"
#include "base/time.h"
#include "serve/runtime/priv.h"

#define ELEMENTS_DEFAULT 65536

static const struct runtime_engine *const engines[] = {&runtime_ort,      &runtime_trees,
                                                       &runtime_identity, &runtime_process,
                                                       &runtime_remote,   &runtime_pipeline};

static const struct runtime_engine *engine_find(str platform)
{
    for (size_t i = 0; i < ARRAY_LEN(engines); i++)
        if (str_eqz(platform, engines[i]->platform) ||
            (engines[i]->alias && str_eqz(platform, engines[i]->alias)))
            return engines[i];
    return NULL;
}

bool runtime_platform_known(str platform)
{
    return engine_find(platform) != NULL;
}

static bool model_is_batched(const struct runtime_model *m)
{
    for (uint32_t i = 0; i < m->input_count; i++)
        if (tensor_row_elements(&m->inputs[i]) < 0)
            return false;
    for (uint32_t i = 0; i < m->output_count; i++)
        if (!m->outputs[i].rank || m->outputs[i].shape[0] != TENSOR_DIM_ANY)
            return false;
    return m->input_count > 0;
}

int runtime_load(str platform, const char *path, const struct runtime_options *options,
                 struct runtime_model **ret_model, struct err *e)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    const struct runtime_engine *engine = engine_find(platform);

    if (!engine)
        return FAIL(e, INVALID_ARGUMENT,
                    "platform '" STR_F "' is unknown, expected %s, %s, %s, %s or %s",
                    STR_A(str_take(platform, 64)), runtime_ort.platform, runtime_trees.platform,
                    runtime_process.platform, runtime_remote.platform, runtime_identity.platform);
    m = mem_zalloc(sizeof(*m));
    m->engine = engine;
    m->options = options ? *options : (struct runtime_options){.threads = 0};
    m->options.threads = MAX(m->options.threads, 1u);
    arena_init(&m->arena, 0);
    TRY(engine->load(m, path, e));
    if (!m->input_count || m->input_count > TENSOR_INPUTS_MAX || !m->output_count ||
        m->output_count > TENSOR_OUTPUTS_MAX)
        return FAIL(e, INVALID_ARGUMENT,
                    "the model has %u inputs and %u outputs; 1 to %d and 1 to %d are possible",
                    m->input_count, m->output_count, TENSOR_INPUTS_MAX, TENSOR_OUTPUTS_MAX);
    m->batched = model_is_batched(m);
    *ret_model = TAKE(m);
    return 0;
}

void runtime_unload(struct runtime_model *m)
{
    if (!m)
        return;
    m->engine->unload(m);
    arena_done(&m->arena);
    mem_free(m);
}

/* How many elements a slot has to hold of a spec, as far as the spec tells. */
static int64_t slot_elements(const struct tensor_spec *spec, uint32_t rows_max, size_t elements_max)
{
    int64_t row = tensor_row_elements(spec), count;

    if (row >= 0)
        return __builtin_mul_overflow(row, (int64_t)rows_max, &count) ? INT64_MAX : count;
    return tensor_shape_count(spec->shape, spec->rank, &count) && spec->rank
               ? count
               : (int64_t)MAX(elements_max, (size_t)1);
}

/* Tensors over memory of the slot. Outputs whose size the spec does not tell get none: the engine
 * gives it, run by run. */
static int tensors_make(struct runtime_slot *s, const struct tensor_spec *specs, uint32_t n,
                        bool is_input, size_t elements_max, struct tensor **ret_tensors,
                        struct err *e)
{
    struct tensor *tensors = ARENA_ARRAY(&s->arena, struct tensor, n);

    for (uint32_t i = 0; tensors && i < n; i++) {
        size_t size = tensor_type_bytes(specs[i].datatype);
        int64_t elements = slot_elements(&specs[i], s->rows_max, elements_max);

        tensors[i].spec = &specs[i];
        if (!is_input && (tensor_row_elements(&specs[i]) < 0 || specs[i].datatype == TENSOR_BYTES))
            continue;
        if ((uint64_t)elements > RUNTIME_SLOT_BYTES_MAX / size)
            return FAIL(e, RESOURCE_EXHAUSTED,
                        "'" STR_F "' needs %lld elements for %u rows, more than the %zu MiB of a "
                        "slot: lower the rows per request",
                        STR_A(specs[i].name), (long long)elements, s->rows_max,
                        RUNTIME_SLOT_BYTES_MAX >> 20);
        tensors[i].cap_bytes = (size_t)elements * size;
        tensors[i].data = arena_zalloc(&s->arena, MAX(tensors[i].cap_bytes, (size_t)1));
    }
    if (s->arena.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED,
                    "inputs and outputs of %u rows need more than %zu MiB: lower the rows per "
                    "request",
                    s->rows_max, RUNTIME_SLOT_BYTES_MAX >> 20);
    *ret_tensors = tensors;
    return 0;
}

int runtime_slot_new(struct runtime_model *m, uint32_t rows_max, size_t elements_max,
                     struct runtime_slot **ret_slot, struct err *e)
{
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;

    if (!rows_max || rows_max > RUNTIME_ROWS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%u rows in a slot: expected 1 to %d", rows_max,
                    RUNTIME_ROWS_MAX);
    s = mem_zalloc(sizeof(*s));
    s->model = m;
    s->rows_max = rows_max;
    elements_max = elements_max ? elements_max : ELEMENTS_DEFAULT;
    arena_init(&s->arena, RUNTIME_SLOT_BYTES_MAX);
    TRY(tensors_make(s, m->inputs, m->input_count, true, elements_max, &s->inputs, e));
    TRY(tensors_make(s, m->outputs, m->output_count, false, elements_max, &s->outputs, e));
    TRY(m->engine->slot_init(s, e));
    *ret_slot = TAKE(s);
    return 0;
}

void runtime_slot_free(struct runtime_slot *s)
{
    if (!s)
        return;
    s->model->engine->slot_done(s);
    arena_done(&s->arena);
    mem_free(s);
}

static size_t row_bytes(const struct tensor_spec *spec)
{
    return (size_t)tensor_row_elements(spec) * tensor_type_bytes(spec->datatype);
}

void runtime_slot_put(struct runtime_slot *s, const struct tensor *inputs, uint32_t rows,
                      uint32_t at)
{
    for (uint32_t i = 0; i < s->model->input_count; i++) {
        struct tensor *to = &s->inputs[i];
        const struct tensor *from = &inputs[i];

        if (s->model->batched) {
            size_t row = row_bytes(to->spec);

            ASSERT((at + rows) * row <= to->cap_bytes);
            memcpy((char *)to->data + at * row, from->data, rows * row);
            continue;
        }
        ASSERT(from->bytes <= to->cap_bytes);
        memcpy(to->data, from->data, from->bytes);
        memcpy(to->shape, from->shape, sizeof(to->shape));
        to->rank = from->rank;
        to->count = from->count;
        to->bytes = from->bytes;
    }
}

int runtime_run(struct runtime_slot *s, uint32_t rows, int64_t deadline_mono_ns, struct err *e)
{
    int rc;

    if (deadline_mono_ns && time_mono_ns() >= deadline_mono_ns)
        return FAIL(e, DEADLINE_EXCEEDED, "the deadline passed before the model ran");
    if (rows) {
        ASSERT(s->model->batched && rows <= s->rows_max);
        for (uint32_t i = 0; i < s->model->input_count; i++)
            tensor_set_rows(&s->inputs[i], rows);
    }
    s->deadline_ns = deadline_mono_ns;
    rc = s->model->engine->run(s, e);
    if (rc != CODE_INVALID_ARGUMENT || !rows || s->model->engine->blocking)
        return rc;
    if (e) /* the shapes are the model's own, so the failure is, too; a program judges by itself */
        e->code = CODE_INTERNAL;
    return CODE_INTERNAL;
}

bool runtime_rows_match(const struct runtime_slot *s, uint32_t rows)
{
    for (uint32_t i = 0; s->model->batched && i < s->model->output_count; i++)
        if (!s->outputs[i].rank || s->outputs[i].shape[0] != (int64_t)rows)
            return false;
    return true;
}

void runtime_cancel(struct runtime_slot *s)
{
    if (s->model->engine->cancel)
        s->model->engine->cancel(s);
}

void runtime_stat(struct runtime_model *m, struct runtime_stat *ret)
{
    *ret = (struct runtime_stat){0};
    if (m->engine->stat)
        m->engine->stat(m, ret);
}

void runtime_force(struct runtime_model *m, enum runtime_force force)
{
    if (m->engine->force)
        m->engine->force(m, force);
}
