/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Open Inference Protocol from the client's side: questions out, answers in (tensor_json.h is
 * the server's side). Tensors go as binary where the server offers the extension
 * binary_tensor_data, else as JSON.
 *
 * An answer is as little trusted as any input: every declared output once, nothing else, datatypes
 * and shapes as declared, memory in proportion to the bytes that came.
 */
#pragma once

#include "base/json.h"
#include "wire/tensor.h"

/* Appends the body of an infer request that asks for all of `outputs`. *ret_json_bytes is for the
 * header Inference-Header-Content-Length, which goes with `binary` only. OUT_OF_RANGE for NaN and
 * infinities without binary, UNIMPLEMENTED for FP16 and BF16 without it, RESOURCE_EXHAUSTED. */
NODISCARD int infer_question_write(struct buf *to, const struct tensor *inputs,
                                   uint32_t input_count, const struct tensor_spec *outputs,
                                   uint32_t output_count, bool binary, size_t *ret_json_bytes,
                                   struct err *e);

/*
 * Reads an answer: `json`, and `raw`, the bytes behind it (STR_NULL when the answer had no such
 * header). The outputs have their specs; numbers and lists of texts go into the arena or lie over
 * `raw`, texts borrow from `json`, `raw` or the arena. INVALID_ARGUMENT; RESOURCE_EXHAUSTED when
 * the arena is full.
 */
NODISCARD int infer_answer_read(str json, str raw, struct tensor *outputs, uint32_t output_count,
                                struct arena *a, struct err *e);

/* The text of {"error":"…"}, cut to what fits, control characters replaced; "" when it is none. */
void infer_answer_error(str json, char *ret_text, size_t size);
