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
