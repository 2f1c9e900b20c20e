/* SPDX-License-Identifier: Apache-2.0 */
/* The wire form of an ONNX file, a protobuf, field by field. Reads only within the bytes. */
#pragma once

#include "base/str.h"

enum onnx_wire {
    ONNX_WIRE_VARINT = 0,
    ONNX_WIRE_FIXED64 = 1,
    ONNX_WIRE_BYTES = 2,
    ONNX_WIRE_FIXED32 = 5
};

struct onnx_field {
    uint32_t number;
    enum onnx_wire wire;
    uint64_t value; /* of a varint */
    str bytes;      /* of all others */
};

NODISCARD bool onnx_varint_take(str *s, uint64_t *ret_value);
/* The next field, which is cut off *s; false when it is broken. */
NODISCARD bool onnx_field_take(str *s, struct onnx_field *ret_field);
