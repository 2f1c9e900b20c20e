/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Platform "pipeline": a model behind its preprocessing, as a model of its own whose inputs are the
 * raw columns, one tensor each: FP64 for numbers, BYTES for texts. So everything that reads,
 * routes, records, watches, shadows or scores a model sees raw columns and needs to know nothing
 * more, and an endpoint without a pipeline does not run one instruction of this.
 *
 * A run computes the columns of the pipeline block by block and lays them into the input tensors of
 * the model inside: in order, element after element over all its inputs; or, where each input holds
 * one element and has the name of a column, by name. Then the model runs, on this thread, and its
 * outputs are the outputs. Nothing is allocated.
 *
 * The model's file is taken out of the pack into a file without a name, which is gone with the
 * process at the latest.
 */
#include "base/files.h"
#include "base/mem.h"
#include "base/random.h"
#include "pipeline/pipeline.h"
#include "serve/runtime/pipeline_pack.h"
#include "serve/runtime/priv.h"

#define PIECE ((size_t)1 << 20)
#define NAMES_SHOWN 12u

/* Where an output column of the pipeline goes. */
struct target {
    uint32_t column; /* of pipeline->outputs */
    uint32_t tensor, element, width;
};

struct pipeline_model {
    struct pipeline *pipeline;
    struct runtime_model *inner; /* owned */
    struct target *targets;
    uint32_t target_count;
};

struct pipeline_slot {
    struct pipeline_work work;
    struct pipeline_values *values;
    struct runtime_slot *inner; /* owned */
};

/* --- Loading ---------------------------------------------------------------------------------- */

static NODISCARD int copy_bytes(const char *from, uint64_t at, uint64_t bytes, int to,
                                struct err *e)
{
    AUTO(file_closep) int fd = -1;
    AUTO(mem_freep) char *piece = mem_alloc(PIECE);
    size_t n;

    TRY(file_open(from, FILE_READ, &fd, e));
    for (uint64_t done = 0; done < bytes; done += n) {
        TRY(file_pread(fd, piece, MIN(bytes - done, PIECE), at + done, &n, e));
        if (!n)
            return FAIL(e, DATA_LOSS, "%s became shorter while it was read", from);
        TRY(file_pwrite_all(to, piece, n, done, e));
    }
    return 0;
}

static NODISCARD int inner_load(struct runtime_model *m, struct pipeline_model *pm,
                                const char *path, const struct json *document, uint64_t at,
                                uint64_t bytes, struct err *e)
{
    const char *work = m->options.work_dir ? m->options.work_dir : ".", *name;
    AUTO(file_closep) int fd = -1;
    str platform;

    TRY(json_need_str(document, S("platform"), &platform, e));
    if (str_eq(platform, S("pipeline")))
        return FAIL(e, INVALID_ARGUMENT,
                    "a pipeline stands before a model, not before another one");
    TRY(file_make_dirs(work, e));
    name = arena_printf(&m->arena, "%s/model-%016llx", work, (unsigned long long)random_u64()).p;
    TRY(file_open(name, FILE_EXCLUSIVE, &fd, e));
    TRY(file_remove(name, e));
    TRY(copy_bytes(path, at, bytes, fd, e));
    TRY(runtime_load(platform, arena_printf(&m->arena, "/proc/self/fd/%d", fd).p, &m->options,
                     &pm->inner, e));
    if (!pm->inner->batched || pm->inner->engine->blocking)
        return FAIL(e, INVALID_ARGUMENT,
                    "a pipeline needs a model of rows in a file: inputs with an open first "
                    "dimension and fixed others, no program and no remote server");
    return 0;
}

static ptrdiff_t column_named(const struct pipeline *p, str name)
{
    for (uint32_t i = 0; i < p->output_count; i++)
        if (str_eq(p->outputs[i].name, name))
            return (ptrdiff_t)i;
    return -1;
}

static bool go_by_name(const struct pipeline_model *pm)
{
    for (uint32_t t = 0; t < pm->inner->input_count; t++)
        if (tensor_row_elements(&pm->inner->inputs[t]) != 1 ||
            column_named(pm->pipeline, pm->inner->inputs[t].name) < 0)
            return false;
    return true;
}

static int fail_width(const struct pipeline_model *pm, struct arena *a, int64_t width,
                      struct err *e)
{
    const struct pipeline *p = pm->pipeline;
    str names = S("");

    for (uint32_t i = 0; i < MIN(p->output_count, NAMES_SHOWN); i++)
        names = arena_printf(a, STR_F "%s" STR_F, STR_A(names), i ? ", " : "",
                             STR_A(str_take(p->outputs[i].name, 32)));
    return FAIL(e, INVALID_ARGUMENT,
                "the pipeline leaves %u columns (" STR_F "%s), the model takes %lld",
                p->output_count, STR_A(names), p->output_count > NAMES_SHOWN ? ", …" : "",
                (long long)width);
}

static NODISCARD int targets_make(struct pipeline_model *pm, struct arena *a, struct err *e)
{
    const struct runtime_model *inner = pm->inner;
    bool by_name = go_by_name(pm);
    int64_t width = 0;

    for (uint32_t t = 0; t < inner->input_count; t++)
        width += tensor_row_elements(&inner->inputs[t]);
    if (width != (int64_t)pm->pipeline->output_count)
        return fail_width(pm, a, width, e);
    pm->targets = ARENA_ARRAY(a, struct target, pm->pipeline->output_count);
    for (uint32_t t = 0; t < inner->input_count; t++) {
        const struct tensor_spec *spec = &inner->inputs[t];
        uint32_t elements = (uint32_t)tensor_row_elements(spec);

        for (uint32_t k = 0; k < elements; k++) {
            struct target *to = &pm->targets[pm->target_count];
            uint32_t column =
                by_name ? (uint32_t)column_named(pm->pipeline, spec->name) : pm->target_count;
            bool is_text = pm->pipeline->outputs[column].type == PIPELINE_TEXT;

            if (is_text != (spec->datatype == TENSOR_BYTES))
                return FAIL(e, INVALID_ARGUMENT,
                            "column '" STR_F "' of the pipeline is %s, the model's input '" STR_F
                            "' takes %s%s",
                            STR_A(pm->pipeline->outputs[column].name),
                            is_text ? "text" : "a number", STR_A(spec->name),
                            tensor_type_name(spec->datatype),
                            is_text ? ": encode it (one_hot, ordinal, table) or drop it" : "");
            *to = (struct target){column, t, k, elements};
            pm->target_count++;
        }
    }
    return 0;
}

static void specs_make(struct runtime_model *m, const struct pipeline_model *pm)
{
    const struct pipeline *p = pm->pipeline;
    struct tensor_spec *specs = ARENA_ARRAY(&m->arena, struct tensor_spec, p->input_count + 1);

    for (uint32_t i = 0; i < p->input_count; i++)
        specs[i] = (struct tensor_spec){
            .name = p->inputs[i].name,
            .datatype = p->inputs[i].type == PIPELINE_TEXT ? TENSOR_BYTES : TENSOR_FP64,
            .rank = 2,
            .shape = {TENSOR_DIM_ANY, 1}};
    m->inputs = specs, m->input_count = p->input_count;
    m->outputs = pm->inner->outputs, m->output_count = pm->inner->output_count;
    m->about = pm->inner->about;
}

static int engine_load(struct runtime_model *m, const char *path, struct err *e)
{
    struct pipeline_model *pm = ARENA_NEW(&m->arena, struct pipeline_model);
    AUTO(arena_done) struct arena a = {0};
    struct json *document;
    uint64_t at, bytes;

    arena_init(&a, 0);
    m->state = pm;
    TRY(pipeline_pack_read(path, &a, &document, &at, &bytes, e));
    TRY(pipeline_read(document, NULL, &m->arena, &pm->pipeline, e));
    TRY(inner_load(m, pm, path, document, at, bytes, e));
    TRY(targets_make(pm, &m->arena, e));
    specs_make(m, pm);
    return 0;
}

static void engine_unload(struct runtime_model *m)
{
    struct pipeline_model *pm = m->state;

    if (pm)
        runtime_unload(pm->inner);
}

/* --- Slots ------------------------------------------------------------------------------------ */

static int engine_slot_init(struct runtime_slot *s, struct err *e)
{
    struct pipeline_model *pm = s->model->state;
    struct pipeline_slot *slot = ARENA_NEW(&s->arena, struct pipeline_slot);

    if (!slot)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the slot of a model");
    s->state = slot;
    slot->values = ARENA_ARRAY(&s->arena, struct pipeline_values, s->model->input_count);
    pipeline_work_init(&slot->work, pm->pipeline, &s->arena);
    if (s->arena.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "a pipeline of %u steps does not fit in the slot",
                    pm->pipeline->op_count);
    return runtime_slot_new(pm->inner, s->rows_max, 0, &slot->inner, e);
}

static void engine_slot_done(struct runtime_slot *s)
{
    struct pipeline_slot *slot = s->state;

    if (slot)
        runtime_slot_free(slot->inner);
}

/* --- Running ---------------------------------------------------------------------------------- */

static int fail_value(const struct pipeline_column *c, enum tensor_type type, size_t row, double v,
                      struct err *e)
{
    return FAIL(e, OUT_OF_RANGE, "row %zu: column '" STR_F "' is %g, which %s cannot hold", row,
                STR_A(c->name), v, tensor_type_name(type));
}

/* A column of the block into its element of rows at, at + 1, … */
static NODISCARD int lay(const struct pipeline_model *pm, const struct pipeline_slot *slot,
                         const struct target *to, size_t at, uint32_t rows, struct err *e)
{
    const struct pipeline_column *c = &pm->pipeline->outputs[to->column];
    const struct tensor *t = &slot->inner->inputs[to->tensor];
    const double *from = pipeline_numbers(&slot->work, c->at);
    size_t first = at * to->width + to->element, size;

    switch (t->spec->datatype) {
    case TENSOR_FP32:
        for (uint32_t i = 0; i < rows; i++)
            ((float *)t->data)[first + (size_t)i * to->width] = (float)from[i];
        return 0;
    case TENSOR_FP64:
        for (uint32_t i = 0; i < rows; i++)
            ((double *)t->data)[first + (size_t)i * to->width] = from[i];
        return 0;
    case TENSOR_BYTES:
        for (uint32_t i = 0; i < rows; i++)
            ((str *)t->data)[first + (size_t)i * to->width] = pipeline_texts(&slot->work, c->at)[i];
        return 0;
    default:
        size = tensor_type_bytes(t->spec->datatype);
        for (uint32_t i = 0; i < rows; i++)
            if (!tensor_put_number(t->spec->datatype,
                                   (char *)t->data + (first + (size_t)i * to->width) * size,
                                   from[i]))
                return fail_value(c, t->spec->datatype, at + i, from[i], e);
        return 0;
    }
}

static int engine_run(struct runtime_slot *s, struct err *e)
{
    const struct pipeline_model *pm = s->model->state;
    struct pipeline_slot *slot = s->state;
    uint32_t all = (uint32_t)s->inputs[0].shape[0], count = s->model->output_count;

    for (uint32_t i = 0; i < s->model->input_count; i++) {
        if (s->inputs[i].spec->datatype == TENSOR_BYTES)
            slot->values[i].texts = s->inputs[i].data;
        else
            slot->values[i].numbers = s->inputs[i].data;
    }
    for (uint32_t at = 0; at < all; at += PIPELINE_BLOCK_ROWS) {
        uint32_t rows = MIN(all - at, PIPELINE_BLOCK_ROWS);

        TRY(pipeline_run(pm->pipeline, &slot->work, slot->values, at, rows, e));
        for (uint32_t i = 0; i < pm->target_count; i++)
            TRY(lay(pm, slot, &pm->targets[i], at, rows, e));
    }
    TRY(runtime_run(slot->inner, all, s->deadline_ns, e));
    memcpy(s->outputs, slot->inner->outputs, count * sizeof(*s->outputs));
    return 0;
}

static void engine_cancel(struct runtime_slot *s)
{
    struct pipeline_slot *slot = s->state;

    runtime_cancel(slot->inner);
}

const struct runtime_engine runtime_pipeline = {
    .platform = "pipeline",
    .load = engine_load,
    .unload = engine_unload,
    .slot_init = engine_slot_init,
    .slot_done = engine_slot_done,
    .run = engine_run,
    .cancel = engine_cancel,
};
