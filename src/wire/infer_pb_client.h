/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Open Inference Protocol in protobuf from the client's side, as infer_client.h is in JSON: the
 * messages of a gateway that asks another server. Tensors go raw, which every server takes; answers
 * may come raw or typed.
 *
 * An answer is as little trusted as any input: every declared output once, nothing else, datatypes
 * and shapes as declared, memory in proportion to the bytes that came.
 */
#pragma once

#include "base/json.h"
#include "wire/tensor.h"

/* Appends a ModelInferRequest that asks for all of `outputs`; `version` may be empty.
 * RESOURCE_EXHAUSTED when `to` is full. */
NODISCARD int infer_pb_question_write(struct buf *to, str model, str version,
                                      const struct tensor *inputs, uint32_t input_count,
                                      const struct tensor_spec *outputs, uint32_t output_count,
                                      struct err *e);
/* Reads a ModelInferResponse. The outputs have their specs; numbers and lists of texts go into the
 * arena or lie over the message, texts borrow from the message. INVALID_ARGUMENT;
 * RESOURCE_EXHAUSTED when the arena is full. */
NODISCARD int infer_pb_answer_read(str message, struct tensor *outputs, uint32_t output_count,
                                   struct arena *a, struct err *e);

/* Appends a ModelMetadataRequest. */
void infer_pb_model_ask(struct buf *to, str model, str version);
/* Reads a ModelMetadataResponse into two lists as tensor_specs_read() takes them. Texts are copied
 * into the arena. INVALID_ARGUMENT. */
NODISCARD int infer_pb_metadata_read(str message, struct arena *a, struct json **ret_inputs,
                                     struct json **ret_outputs, struct err *e);
