/* SPDX-License-Identifier: Apache-2.0 */
/* Field numbers that the reader and the writers of infer_pb share. */
#pragma once

#include "wire/infer_pb.h"
#include "wire/pb.h"
#include "wire/tensor_check.h"

enum { /* ModelInferRequest; ModelInferResponse is the same up to INPUTS, which are its outputs */
       PB_MODEL_NAME = 1,
       PB_MODEL_VERSION = 2,
       PB_ID = 3,
       PB_PARAMETERS = 4,
       PB_INPUTS = 5,
       PB_OUTPUTS = 6,
       PB_RAW_INPUTS = 7,
       PB_RAW_OUTPUTS = 6, /* of the response */
};

enum { /* of InferInputTensor, InferOutputTensor and, the first three, TensorMetadata */
       PB_TENSOR_NAME = 1,
       PB_TENSOR_DATATYPE = 2,
       PB_TENSOR_SHAPE = 3,
       PB_TENSOR_PARAMETERS = 4,
       PB_TENSOR_CONTENTS = 5,
};

enum { /* ModelMetadataResponse */
       PB_METADATA_INPUTS = 4,
       PB_METADATA_OUTPUTS = 5,
};

enum { /* InferParameter */
       PB_PARAMETER_BOOL = 1,
       PB_PARAMETER_INT64 = 2,
       PB_PARAMETER_STRING = 3,
       PB_PARAMETER_DOUBLE = 4,
       PB_PARAMETER_UINT64 = 5,
};

/* The field of InferTensorContents that holds elements of a datatype; 0: there is none. */
struct pb_contents {
    uint32_t number;
    const char *name;
};
extern const struct pb_contents PB_CONTENTS[TENSOR_TYPE_COUNT];

/* Reads a tensor's message but for its contents, which stay encoded (STR_NULL: none). NULL, or what
 * is wrong with the message. */
const char *infer_pb_tensor_read(str message, struct tensor_claim *ret_claim, str *ret_contents);
/* Fills t, whose shape is set, from InferTensorContents; wrong values become problems of `what`
 * ("input"). Texts borrow from the message. NULL, or what is wrong with the message. */
const char *infer_pb_contents_read(const char *what, str message, struct tensor *t,
                                   struct problems *problems);

/* The field `shape`; nothing for a scalar. */
void infer_pb_shape_write(struct buf *to, const int64_t *shape, uint32_t rank);
