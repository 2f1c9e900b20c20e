/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Open Inference Protocol in protobuf: the messages of inference.GRPCInferenceService, with the
 * extensions of Triton that clients use, and grpc.health.v1. Read in place into tensors and into
 * slices, written into a buffer; no tree, no allocation but from the arena of the request.
 *
 * Requests are held against the model's signature by the same checks as in JSON, with the same
 * words. Tensors come as raw_input_contents or as typed contents (not both in one request); the
 * answer has the form of the request. Fields that the protocol does not know are skipped. All
 * functions are safe from any thread.
 */
#pragma once

#include "wire/tensor_json.h"

/* --- ModelInfer ------------------------------------------------------------------------------- */

/* Fields 1 and 2 of ModelInferRequest, and of every message that names a model and a version. */
struct infer_pb_model {
    str name, version; /* borrowed from the message; STR_NULL when absent */
};
/* Finds the model without reading its tensors. INVALID_ARGUMENT for a broken message. */
NODISCARD int infer_pb_model_read(str message, struct infer_pb_model *ret_model, struct err *e);

/*
 * Reads a ModelInferRequest as infer_request_read() reads JSON: same arguments, same errors. The
 * parameters become the JSON text of an object, in the arena. ret_request->any_binary tells the
 * form of the answer: raw, unless the inputs came as typed contents.
 */
NODISCARD int infer_pb_request_read(str message, const struct infer_schema *schema,
                                    struct tensor *inputs, struct arena *a,
                                    struct infer_request *ret_request, struct err *e) HOT;

/* What is constant in the answers of one model version. */
struct infer_pb_plan {
    str head;                /* model_name and model_version, encoded */
    const str *output_heads; /* name and datatype, encoded, one per output */
    uint32_t output_count;
};
/* Texts live in the arena (of the plan). `version` may be empty. */
void infer_pb_plan_init(struct infer_pb_plan *p, str model, str version,
                        const struct infer_schema *schema, struct arena *a);
/*
 * Appends a ModelInferResponse. `outputs` are in the order of the schema; `parameters` is the JSON
 * text of an object of plain values, or STR_NULL. FP16 and BF16 have no typed form: with one of
 * them among the outputs, all go raw. RESOURCE_EXHAUSTED when `to` is full.
 */
NODISCARD int infer_pb_response_write(struct buf *to, const struct infer_pb_plan *p,
                                      const struct infer_request *request,
                                      const struct tensor *outputs, str parameters,
                                      struct err *e) HOT;

/* ModelStreamInferResponse: an answer between open and close, or an error text. */
size_t infer_pb_stream_open(struct buf *to);
void infer_pb_stream_close(struct buf *to, size_t opened);
void infer_pb_stream_error_write(struct buf *to, str message);

/* --- The other calls: requests ---------------------------------------------------------------- */

/* RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest. */
struct infer_pb_repository {
    str repository, model;
    bool ready;     /* of the index: only what is ready */
    str config;     /* of a load: parameter "config", or STR_NULL */
    bool has_files; /* of a load: parameters "file:…", which Weir refuses */
};
NODISCARD int infer_pb_index_read(str message, struct infer_pb_repository *ret_index,
                                  struct err *e);
NODISCARD int infer_pb_load_read(str message, struct infer_pb_repository *ret_load,
                                 struct err *e); /* unload too */
/* grpc.health.v1.HealthCheckRequest. */
NODISCARD int infer_pb_health_read(str message, str *ret_service, struct err *e);

/* --- The other calls: answers ----------------------------------------------------------------- */

/* ServerLiveResponse, ServerReadyResponse, ModelReadyResponse. */
void infer_pb_flag_write(struct buf *to, bool yes);
void infer_pb_server_write(struct buf *to, str name, str version, const str *extensions,
                           uint32_t count);
void infer_pb_metadata_write(struct buf *to, str name, const str *versions, uint32_t count,
                             str platform, const struct infer_schema *schema);
/* Of a ModelConfig: name, platform, backend, max_batch_size, inputs and outputs. When
 * max_batch_size > 0, dims leave out the first dimension. */
void infer_pb_config_write(struct buf *to, str name, str platform, str backend,
                           int32_t max_batch_size, const struct infer_schema *schema);
/* One model of a RepositoryIndexResponse; call it for each. */
void infer_pb_index_write(struct buf *to, str name, str version, str state, str reason);

struct infer_pb_duration {
    uint64_t count, ns;
};
struct infer_pb_statistics {
    str name, version;
    uint64_t last_inference_ms, inference_count, execution_count;
    struct infer_pb_duration success, fail, queue, compute_input, compute_infer, compute_output;
};
/* One model of a ModelStatisticsResponse; call it for each. */
void infer_pb_statistics_write(struct buf *to, const struct infer_pb_statistics *s);

enum infer_pb_health {
    INFER_PB_HEALTH_UNKNOWN,
    INFER_PB_HEALTH_SERVING,
    INFER_PB_HEALTH_NOT_SERVING,
    INFER_PB_HEALTH_SERVICE_UNKNOWN, /* of Watch alone; Check answers NOT_FOUND */
};
void infer_pb_health_write(struct buf *to, enum infer_pb_health health);
