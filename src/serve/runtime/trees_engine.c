/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tree ensembles as a runtime engine (serve/trees/ computes). One input, rows of FP32 (FP64 where
 * the model tells doubles apart); a classifier gives a label and the scores of its classes, a
 * regression its values: the names and types that the same model has as ONNX, so that a signature
 * does not depend on the engine.
 *
 * Outputs are written into the slot's memory; labels that are texts point into the model.
 */
#include "base/files.h"
#include "base/mem.h"
#include "serve/runtime/priv.h"
#include "serve/trees/trees.h"

#define READ_BYTES_MAX                                                        \
    ((size_t)16 << 30) /* of reading: a JSON document takes 30 times its size \
                        */

struct trees_state {
    struct arena arena; /* owned: of the model */
    struct trees_model model;
    struct trees_forest *forest; /* owned */
};

struct slot_state {
    struct trees_scratch *scratch; /* owned */
    uint32_t *classes;             /* of the slot's arena; NULL: a regression */
    str *texts;                    /* of the slot's arena, or NULL */
};

static void state_free(struct trees_state *state)
{
    if (!state)
        return;
    trees_forest_free(state->forest);
    arena_done(&state->arena);
    mem_free(state);
}
DEFINE_AUTO_PTR(struct trees_state, state_free)

static void specs_make(struct runtime_model *m, const struct trees_model *trees)
{
    struct tensor_spec *specs = ARENA_ARRAY(&m->arena, struct tensor_spec, 3);
    uint32_t n = 0;

    specs[n++] = (struct tensor_spec){.name = trees->input_name,
                                      .datatype = trees->wide ? TENSOR_FP64 : TENSOR_FP32,
                                      .rank = 2,
                                      .shape = {TENSOR_DIM_ANY, trees->features}};
    if (trees->classifier)
        specs[n++] = (struct tensor_spec){.name = trees->label_name,
                                          .datatype = trees->labels ? TENSOR_INT64 : TENSOR_BYTES,
                                          .rank = 1,
                                          .shape = {TENSOR_DIM_ANY}};
    specs[n++] = (struct tensor_spec){.name = trees->output_name,
                                      .datatype = trees->wide_answer ? TENSOR_FP64 : TENSOR_FP32,
                                      .rank = 2,
                                      .shape = {TENSOR_DIM_ANY, trees->outputs}};
    m->inputs = &specs[0], m->input_count = 1;
    m->outputs = &specs[1], m->output_count = n - 1;
}

static void about_make(struct runtime_model *m, const struct trees_model *trees)
{
    struct runtime_about *about = ARENA_NEW(&m->arena, struct runtime_about);

    *about = (struct runtime_about){.format = trees->format,
                                    .objective = trees->objective,
                                    .features = trees->features,
                                    .classes = trees->classifier ? trees->outputs : 0,
                                    .trees = trees->tree_count,
                                    .nodes = trees->node_count,
                                    .feature_names = trees->feature_names};
    m->about = about;
}

static int engine_load(struct runtime_model *m, const char *path, struct err *e)
{
    AUTO(state_freep) struct trees_state *state = mem_zalloc(sizeof(*state));
    AUTO(arena_done) struct arena file = {0};
    str bytes;

    arena_init(&state->arena, READ_BYTES_MAX);
    TRY(file_read_all(path, TREES_MODEL_BYTES_MAX, &file, &bytes, e));
    TRY(trees_read(bytes, &state->arena, &state->model, e));
    TRY(trees_forest_make(&state->model, TREES_FORM_AUTO, &state->forest, e));
    specs_make(m, &state->model);
    about_make(m, &state->model);
    m->state = TAKE(state);
    return 0;
}

static void engine_unload(struct runtime_model *m)
{
    state_free(m->state);
}

/* A tensor of the slot gets memory for all rows at once, so that a run takes none. */
static int engine_slot_init(struct runtime_slot *s, struct err *e)
{
    const struct trees_state *state = s->model->state;
    struct slot_state *slot = ARENA_NEW(&s->arena, struct slot_state);

    if (slot && state->model.classifier)
        slot->classes = ARENA_ARRAY(&s->arena, uint32_t, s->rows_max);
    if (slot && state->model.classifier && state->model.label_texts)
        slot->texts = ARENA_ARRAY(&s->arena, str, s->rows_max);
    if (s->arena.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED,
                    "labels of %u rows do not fit in the slot: lower the rows per request",
                    s->rows_max);
    slot->scratch = trees_scratch_new(state->forest);
    s->state = slot;
    return 0;
}

static void engine_slot_done(struct runtime_slot *s)
{
    struct slot_state *slot = s->state;

    if (slot)
        trees_scratch_free(slot->scratch);
}

static void labels_write(const struct trees_model *m, struct slot_state *slot, uint32_t rows,
                         struct tensor *to)
{
    if (m->label_texts) {
        for (uint32_t r = 0; r < rows; r++)
            slot->texts[r] = m->label_texts[slot->classes[r]];
        to->data = slot->texts;
        to->cap_bytes = rows * sizeof(str);
    } else {
        for (uint32_t r = 0; r < rows; r++)
            ((int64_t *)to->data)[r] = m->labels[slot->classes[r]];
    }
    tensor_set_rows(to, rows);
}

static int engine_run(struct runtime_slot *s, struct err *e)
{
    const struct trees_state *state = s->model->state;
    const struct trees_model *m = &state->model;
    struct slot_state *slot = s->state;
    struct tensor *scores = &s->outputs[m->classifier];
    const struct tensor *x = &s->inputs[0];
    int64_t rows = x->rank ? x->shape[0] : 0;

    if (x->rank != 2 || x->shape[1] != m->features || rows < 0 || rows > s->rows_max)
        return FAIL(e, INVALID_ARGUMENT, "input '" STR_F "' is not at most %u rows of %u features",
                    STR_A(x->spec->name), s->rows_max, m->features);
    trees_forest_run(state->forest, slot->scratch, x->data, (uint32_t)rows, scores->data,
                     slot->classes);
    tensor_set_rows(scores, rows);
    if (m->classifier)
        labels_write(m, slot, (uint32_t)rows, &s->outputs[0]);
    return 0;
}

const struct runtime_engine runtime_trees = {
    .platform = "weir_trees",
    .alias = "trees",
    .load = engine_load,
    .unload = engine_unload,
    .slot_init = engine_slot_init,
    .slot_done = engine_slot_done,
    .run = engine_run,
};
