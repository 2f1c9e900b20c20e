/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw contents stand behind all outputs, or before them, and belong to them in their order. So one
 * pass holds the outputs against what was asked for and remembers their order, a second deals out
 * the raw bytes; where there are none, each output had its typed contents.
 */
#include "wire/infer_pb_client.h"

#include "wire/infer_pb_priv.h"
#include "wire/tensor_raw.h"

#define MESSAGE "the answer"

/* --- Questions -------------------------------------------------------------------------------- */

static void input_write(struct buf *to, const struct tensor *t)
{
    size_t input = pb_open(to, PB_INPUTS);

    pb_put_text(to, PB_TENSOR_NAME, t->spec->name);
    pb_put_text(to, PB_TENSOR_DATATYPE, str_of(tensor_type_name(t->spec->datatype)));
    infer_pb_shape_write(to, t->shape, t->rank);
    pb_close(to, input);
}

void infer_pb_model_ask(struct buf *to, str model, str version)
{
    pb_put_text(to, PB_MODEL_NAME, model);
    pb_put_text(to, PB_MODEL_VERSION, version);
}

int infer_pb_question_write(struct buf *to, str model, str version, const struct tensor *inputs,
                            uint32_t input_count, const struct tensor_spec *outputs,
                            uint32_t output_count, struct err *e)
{
    infer_pb_model_ask(to, model, version);
    for (uint32_t i = 0; i < input_count; i++)
        input_write(to, &inputs[i]);
    for (uint32_t i = 0; i < output_count; i++) {
        size_t output = pb_open(to, PB_OUTPUTS);

        pb_put_text(to, 1, outputs[i].name);
        pb_close(to, output);
    }
    for (uint32_t i = 0; i < input_count; i++) {
        pb_put_head(to, PB_RAW_INPUTS, tensor_raw_bytes(&inputs[i]));
        tensor_raw_write(to, &inputs[i]);
    }
    if (to->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the request to the remote server exceeds %zu MiB",
                    to->max_bytes >> 20);
    return 0;
}

/* --- Answers ---------------------------------------------------------------------------------- */

struct reader {
    struct tensor *outputs;
    uint32_t output_count;
    struct arena *arena;
    uint32_t seen, raw_count;
    struct tensor *order[TENSOR_OUTPUTS_MAX]; /* as they came */
    str contents[TENSOR_OUTPUTS_MAX];         /* typed; STR_NULL: none */
};

static NODISCARD int output_read(struct reader *rd, str message, struct err *e)
{
    struct tensor_claim claim;
    const char *wrong;

    if (rd->seen == rd->output_count)
        return FAIL(e, INVALID_ARGUMENT, "more outputs than the %u asked for", rd->output_count);
    wrong = infer_pb_tensor_read(message, &claim, &rd->contents[rd->seen]);
    if (wrong)
        return FAIL(e, INVALID_ARGUMENT, "an output is not a protobuf message: %s", wrong);
    TRY(tensor_check_output(rd->outputs, rd->output_count, &claim, &rd->order[rd->seen], e));
    rd->seen++;
    return 0;
}

static NODISCARD int typed_read(struct reader *rd, uint32_t at, struct err *e)
{
    struct tensor *t = rd->order[at];
    struct problems problems;
    const char *wrong;

    /* An element takes a byte at least: no more memory than 16 times what came. */
    if (t->count > rd->contents[at].n)
        return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "': fewer elements than its shape says",
                    SHOWN(t->spec->name));
    t->cap_bytes = t->bytes;
    t->data = arena_alloc(rd->arena, MAX(t->bytes, (size_t)16));
    if (!t->data)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for output '" STR_F "'",
                    SHOWN(t->spec->name));
    problems_begin(&problems);
    wrong = infer_pb_contents_read("output", rd->contents[at], t, &problems);
    if (wrong)
        return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' is not a protobuf message: %s",
                    SHOWN(t->spec->name), wrong);
    return problems_end(&problems, e);
}

static NODISCARD int raw_read(struct reader *rd, str message, struct err *e)
{
    struct pb_field f;
    uint32_t at = 0;
    struct pb r;

    if (rd->raw_count != rd->seen)
        return FAIL(e, INVALID_ARGUMENT, "%u raw_output_contents for %u outputs", rd->raw_count,
                    rd->seen);
    pb_begin(&r, message);
    while (pb_next(&r, &f)) {
        if (f.number != PB_RAW_OUTPUTS)
            continue;
        if (rd->contents[at].n)
            return FAIL(e, INVALID_ARGUMENT, "raw_output_contents and contents in one answer");
        TRY(tensor_raw_over(rd->order[at++], f.bytes, rd->arena, e));
    }
    return 0;
}

int infer_pb_answer_read(str message, struct tensor *outputs, uint32_t output_count,
                         struct arena *a, struct err *e)
{
    struct reader rd = {.outputs = outputs, .output_count = output_count, .arena = a};
    struct pb_field f;
    struct pb r;

    ASSERT(output_count <= TENSOR_OUTPUTS_MAX);
    tensor_check_outputs_begin(outputs, output_count);
    pb_begin(&r, message);
    while (pb_next(&r, &f))
        if (f.number == PB_INPUTS && pb_is(&r, &f, PB_BYTES))
            TRY(output_read(&rd, f.bytes, e));
        else if (f.number == PB_RAW_OUTPUTS && pb_is(&r, &f, PB_BYTES))
            rd.raw_count++;
    TRY(pb_end(&r, MESSAGE, e));
    TRY(tensor_check_outputs_end(outputs, output_count, e));
    if (rd.raw_count)
        return raw_read(&rd, message, e);
    for (uint32_t i = 0; i < rd.seen; i++)
        TRY(typed_read(&rd, i, e));
    return 0;
}

/* --- Metadata --------------------------------------------------------------------------------- */

static NODISCARD int spec_read(struct json *list, str message, struct arena *a, struct err *e)
{
    struct json *spec, *shape;
    struct tensor_claim claim;
    str contents;
    const char *wrong = infer_pb_tensor_read(message, &claim, &contents);

    if (wrong || claim.shape_is_long)
        return FAIL(e, INVALID_ARGUMENT, "a tensor of the metadata: %s",
                    wrong ? wrong : "more than 8 dimensions");
    spec = json_push(list, json_new_object(a));
    json_set_str(a, spec, S("name"), arena_dup(a, claim.name));
    json_set_str(a, spec, S("datatype"), arena_dup(a, claim.datatype));
    shape = json_set(spec, S("shape"), json_new_array(a));
    for (uint32_t i = 0; i < claim.rank; i++)
        json_push(shape, json_new_int(a, claim.shape[i]));
    return 0;
}

int infer_pb_metadata_read(str message, struct arena *a, struct json **ret_inputs,
                           struct json **ret_outputs, struct err *e)
{
    struct json *inputs = json_new_array(a), *outputs = json_new_array(a);
    struct pb_field f;
    struct pb r;

    pb_begin(&r, message);
    while (pb_next(&r, &f)) {
        bool is_input = f.number == PB_METADATA_INPUTS;

        if ((!is_input && f.number != PB_METADATA_OUTPUTS) || !pb_is(&r, &f, PB_BYTES))
            continue;
        TRY(tensor_check_count((uint32_t)(is_input ? inputs : outputs)->count,
                               is_input ? TENSOR_INPUTS_MAX : TENSOR_OUTPUTS_MAX,
                               is_input ? "inputs" : "outputs", e));
        TRY(spec_read(is_input ? inputs : outputs, f.bytes, a, e));
    }
    TRY(pb_end(&r, MESSAGE, e));
    *ret_inputs = inputs;
    *ret_outputs = outputs;
    return 0;
}
