/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/trees/onnx_fields.h"

bool onnx_varint_take(str *s, uint64_t *ret_value)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64 && s->n; shift += 7) {
        uint8_t byte = (uint8_t)*s->p;

        *s = str_skip(*s, 1);
        v |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *ret_value = v;
            return true;
        }
    }
    return false;
}

bool onnx_field_take(str *s, struct onnx_field *ret_field)
{
    uint64_t tag, n;

    if (!onnx_varint_take(s, &tag) || tag >> 3 == 0 || tag >> 3 > 536870911)
        return false;
    *ret_field =
        (struct onnx_field){.number = (uint32_t)(tag >> 3), .wire = (enum onnx_wire)(tag & 7)};
    switch (ret_field->wire) {
    case ONNX_WIRE_VARINT:
        return onnx_varint_take(s, &ret_field->value);
    case ONNX_WIRE_BYTES:
        if (!onnx_varint_take(s, &n))
            return false;
        break;
    case ONNX_WIRE_FIXED64:
    case ONNX_WIRE_FIXED32:
        n = ret_field->wire == ONNX_WIRE_FIXED64 ? 8 : 4;
        break;
    default:
        return false;
    }
    if (n > s->n)
        return false;
    ret_field->bytes = str_take(*s, (size_t)n);
    *s = str_skip(*s, (size_t)n);
    return true;
}
