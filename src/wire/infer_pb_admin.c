/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small messages around ModelInfer, off the hot path. Field numbers are those of
 * grpc_service.proto, model_config.proto and health.proto; tests/oracle/data/infer_pb.txt holds
 * each answer as the protobuf library writes it.
 */
#include "wire/infer_pb_priv.h"

#define MESSAGE "the request"

/* DataType of model_config.proto. */
static const uint8_t config_types[TENSOR_TYPE_COUNT] = {
    [TENSOR_BOOL] = 1,   [TENSOR_UINT8] = 2, [TENSOR_UINT16] = 3, [TENSOR_UINT32] = 4,
    [TENSOR_UINT64] = 5, [TENSOR_INT8] = 6,  [TENSOR_INT16] = 7,  [TENSOR_INT32] = 8,
    [TENSOR_INT64] = 9,  [TENSOR_FP16] = 10, [TENSOR_FP32] = 11,  [TENSOR_FP64] = 12,
    [TENSOR_BYTES] = 13, [TENSOR_BF16] = 14,
};

/* --- Requests --------------------------------------------------------------------------------- */

int infer_pb_index_read(str message, struct infer_pb_repository *ret_index, struct err *e)
{
    struct infer_pb_repository q = {.ready = false};
    struct pb_field f;
    struct pb r;

    pb_begin(&r, message);
    while (pb_next(&r, &f))
        if (f.number == 1 && pb_is_text(&r, &f))
            q.repository = f.bytes;
        else if (f.number == 2 && pb_is(&r, &f, PB_VARINT))
            q.ready = f.value != 0;
    TRY(pb_end(&r, MESSAGE, e));
    *ret_index = q;
    return 0;
}

/* An entry {key 1, value 2 {string_param 3}} of the parameters of a load. */
static int load_parameter_read(str entry, struct infer_pb_repository *q, struct err *e)
{
    str key = STR_NULL, value = STR_NULL;
    struct pb_field f;
    struct pb r;

    pb_begin(&r, entry);
    while (pb_next(&r, &f))
        if (f.number == 1 && pb_is_text(&r, &f))
            key = f.bytes;
        else if (f.number == 2 && pb_is(&r, &f, PB_BYTES))
            value = f.bytes;
    TRY(pb_end(&r, "a parameter", e));
    q->has_files |= str_starts(key, S("file:"));
    if (!str_eq(key, S("config")))
        return 0;
    pb_begin(&r, value);
    while (pb_next(&r, &f))
        if (f.number == 3 && pb_is_text(&r, &f))
            q->config = f.bytes;
    return pb_end(&r, "parameter 'config'", e);
}

int infer_pb_load_read(str message, struct infer_pb_repository *ret_load, struct err *e)
{
    struct infer_pb_repository q = {.ready = false};
    struct pb_field f;
    struct pb r;

    pb_begin(&r, message);
    while (pb_next(&r, &f))
        if (f.number == 1 && pb_is_text(&r, &f))
            q.repository = f.bytes;
        else if (f.number == 2 && pb_is_text(&r, &f))
            q.model = f.bytes;
        else if (f.number == 3 && pb_is(&r, &f, PB_BYTES))
            TRY(load_parameter_read(f.bytes, &q, e));
    TRY(pb_end(&r, MESSAGE, e));
    *ret_load = q;
    return 0;
}

int infer_pb_health_read(str message, str *ret_service, struct err *e)
{
    str service = STR_NULL;
    struct pb_field f;
    struct pb r;

    pb_begin(&r, message);
    while (pb_next(&r, &f))
        if (f.number == 1 && pb_is_text(&r, &f))
            service = f.bytes;
    TRY(pb_end(&r, MESSAGE, e));
    *ret_service = service;
    return 0;
}

/* --- Answers ---------------------------------------------------------------------------------- */

void infer_pb_flag_write(struct buf *to, bool yes)
{
    pb_put_bool(to, 1, yes);
}

void infer_pb_server_write(struct buf *to, str name, str version, const str *extensions,
                           uint32_t count)
{
    pb_put_text(to, 1, name);
    pb_put_text(to, 2, version);
    for (uint32_t i = 0; i < count; i++)
        pb_put_bytes(to, 3, extensions[i]);
}

static void dims_write(struct buf *to, uint32_t number, const int64_t *dims, uint32_t rank)
{
    size_t packed = rank ? pb_open(to, number) : 0;

    for (uint32_t i = 0; i < rank; i++)
        pb_put_varint(to, (uint64_t)dims[i]);
    if (rank)
        pb_close(to, packed);
}

static void specs_write(struct buf *to, uint32_t number, const struct tensor_spec *specs,
                        uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        size_t spec = pb_open(to, number);

        pb_put_text(to, PB_TENSOR_NAME, specs[i].name);
        pb_put_text(to, PB_TENSOR_DATATYPE, str_of(tensor_type_name(specs[i].datatype)));
        dims_write(to, PB_TENSOR_SHAPE, specs[i].shape, specs[i].rank);
        pb_close(to, spec);
    }
}

void infer_pb_metadata_write(struct buf *to, str name, const str *versions, uint32_t count,
                             str platform, const struct infer_schema *schema)
{
    pb_put_text(to, 1, name);
    for (uint32_t i = 0; i < count; i++)
        pb_put_bytes(to, 2, versions[i]);
    pb_put_text(to, 3, platform);
    specs_write(to, PB_METADATA_INPUTS, schema->inputs, schema->input_count);
    specs_write(to, PB_METADATA_OUTPUTS, schema->outputs, schema->output_count);
}

/* ModelInput (dims in field 4) and ModelOutput (3). */
static void config_specs_write(struct buf *to, uint32_t number, uint32_t dims_number,
                               const struct tensor_spec *specs, uint32_t count, bool skip_first)
{
    for (uint32_t i = 0; i < count; i++) {
        size_t spec = pb_open(to, number);
        uint32_t skip = skip_first && specs[i].rank ? 1 : 0;

        pb_put_text(to, 1, specs[i].name);
        pb_put_u64(to, 2, config_types[specs[i].datatype]);
        dims_write(to, dims_number, specs[i].shape + skip, specs[i].rank - skip);
        pb_close(to, spec);
    }
}

void infer_pb_config_write(struct buf *to, str name, str platform, str backend,
                           int32_t max_batch_size, const struct infer_schema *schema)
{
    size_t config = pb_open(to, 1);

    pb_put_text(to, 1, name);
    pb_put_text(to, 2, platform);
    pb_put_i64(to, 4, max_batch_size);
    config_specs_write(to, 5, 4, schema->inputs, schema->input_count, max_batch_size > 0);
    config_specs_write(to, 6, 3, schema->outputs, schema->output_count, max_batch_size > 0);
    pb_put_text(to, 17, backend);
    pb_close(to, config);
}

void infer_pb_index_write(struct buf *to, str name, str version, str state, str reason)
{
    size_t model = pb_open(to, 1);

    pb_put_text(to, 1, name);
    pb_put_text(to, 2, version);
    pb_put_text(to, 3, state);
    pb_put_text(to, 4, reason);
    pb_close(to, model);
}

void infer_pb_statistics_write(struct buf *to, const struct infer_pb_statistics *s)
{
    const struct infer_pb_duration *const durations[] = {
        &s->success, &s->fail, &s->queue, &s->compute_input, &s->compute_infer, &s->compute_output,
    };
    size_t model = pb_open(to, 1), inner;

    pb_put_text(to, 1, s->name);
    pb_put_text(to, 2, s->version);
    pb_put_u64(to, 3, s->last_inference_ms);
    pb_put_u64(to, 4, s->inference_count);
    pb_put_u64(to, 5, s->execution_count);
    inner = pb_open(to, 6);
    for (uint32_t i = 0; i < ARRAY_LEN(durations); i++) {
        size_t one = pb_open(to, i + 1);

        pb_put_u64(to, 1, durations[i]->count);
        pb_put_u64(to, 2, durations[i]->ns);
        pb_close(to, one);
    }
    pb_close(to, inner);
    pb_close(to, model);
}

void infer_pb_health_write(struct buf *to, enum infer_pb_health health)
{
    pb_put_u64(to, 1, (uint64_t)health);
}
