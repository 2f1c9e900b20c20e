/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks through an ONNX file, a protobuf, for tensors whose data lies in other files.
 *
 * External data names a path, and paths in model files have been a way out of the model's folder
 * more than once (CVE-2022-25882, CVE-2024-27318, CVE-2026-34446), partly because checks forgot a
 * place where a tensor can stand. So all places are in one table, message by message, and the walk
 * is the table's: what is not listed cannot hold a tensor.
 *
 * The model is loaded from memory afterwards, so that the engine has no folder to resolve a path
 * in either; this walk gives the clear error, and the second lock.
 *
 * Invariants: the walk reads only within the bytes, nests at most SCAN_DEPTH_MAX messages, and
 * visits each byte of a listed message once per level, so it is linear in the file's size.
 */
#include "serve/runtime/priv.h"

#define SCAN_DEPTH_MAX 64 /* subgraphs of subgraphs: real models have three */

enum message {
    MODEL,
    GRAPH,
    NODE,
    ATTRIBUTE,
    TENSOR,
    SPARSE_TENSOR,
    FUNCTION,
    TRAINING,
};

/* Fields of onnx.proto3 that lead to a tensor. */
static const struct {
    enum message in;
    uint32_t field;
    enum message holds;
} paths[] = {
    {MODEL, 7, GRAPH},
    {MODEL, 20, TRAINING},
    {MODEL, 25, FUNCTION},
    {GRAPH, 1, NODE},
    {GRAPH, 5, TENSOR},
    {GRAPH, 15, SPARSE_TENSOR},
    {NODE, 5, ATTRIBUTE},
    {ATTRIBUTE, 5, TENSOR},
    {ATTRIBUTE, 6, GRAPH},
    {ATTRIBUTE, 10, TENSOR},
    {ATTRIBUTE, 11, GRAPH},
    {ATTRIBUTE, 22, SPARSE_TENSOR},
    {ATTRIBUTE, 23, SPARSE_TENSOR},
    {SPARSE_TENSOR, 1, TENSOR},
    {SPARSE_TENSOR, 2, TENSOR},
    {FUNCTION, 7, NODE},
    {FUNCTION, 11, ATTRIBUTE},
    {TRAINING, 1, GRAPH},
    {TRAINING, 2, GRAPH},
};
#define TENSOR_NAME 8
#define TENSOR_EXTERNAL_DATA 13
#define TENSOR_DATA_LOCATION 14 /* 0 default, 1 external */

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct field {
    uint32_t number;
    enum wire wire;
    uint64_t value; /* of a varint */
    str bytes;      /* of WIRE_BYTES */
};

static bool varint_take(str *s, uint64_t *ret_value)
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

static bool field_take(str *s, struct field *ret_field)
{
    uint64_t tag, n;

    if (!varint_take(s, &tag) || tag >> 3 == 0 || tag >> 3 > 536870911)
        return false;
    *ret_field = (struct field){.number = (uint32_t)(tag >> 3), .wire = (enum wire)(tag & 7)};
    switch (ret_field->wire) {
    case WIRE_VARINT:
        return varint_take(s, &ret_field->value);
    case WIRE_BYTES:
        if (!varint_take(s, &n))
            return false;
        break;
    case WIRE_FIXED64:
    case WIRE_FIXED32:
        n = ret_field->wire == WIRE_FIXED64 ? 8 : 4;
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

static int malformed(struct err *e)
{
    return FAIL(e, INVALID_ARGUMENT, "the file is not an ONNX model (its protobuf is broken)");
}

static int tensor_scan(str bytes, struct err *e)
{
    str name = STR_NULL;
    bool external = false;
    struct field f;

    while (bytes.n) {
        if (!field_take(&bytes, &f))
            return malformed(e);
        if (f.number == TENSOR_NAME && f.wire == WIRE_BYTES)
            name = f.bytes;
        external |= f.number == TENSOR_EXTERNAL_DATA ||
                    (f.number == TENSOR_DATA_LOCATION && f.wire == WIRE_VARINT && f.value != 0);
    }
    if (external)
        return FAIL(e, INVALID_ARGUMENT,
                    "tensor '" STR_F "' of the ONNX model keeps its data in another file; save the "
                    "model as one file (onnx.save with save_as_external_data=False)",
                    STR_A(str_take(name, 80)));
    return 0;
}

static int message_scan(enum message kind, str bytes, uint32_t depth, struct err *e)
{
    struct field f;

    if (kind == TENSOR)
        return tensor_scan(bytes, e);
    if (depth > SCAN_DEPTH_MAX)
        return FAIL(e, INVALID_ARGUMENT, "the ONNX model nests its graphs deeper than %d messages",
                    SCAN_DEPTH_MAX);
    while (bytes.n) {
        if (!field_take(&bytes, &f))
            return malformed(e);
        for (size_t i = 0; i < ARRAY_LEN(paths); i++)
            if (paths[i].in == kind && paths[i].field == f.number) {
                if (f.wire != WIRE_BYTES)
                    return malformed(e);
                TRY(message_scan(paths[i].holds, f.bytes, depth + 1, e));
            }
    }
    return 0;
}

int onnx_scan(str bytes, struct err *e)
{
    str rest = bytes;
    bool has_graph = false;
    struct field f;

    TRY(message_scan(MODEL, bytes, 0, e));
    while (rest.n && field_take(&rest, &f))
        has_graph |= f.number == 7;
    if (!has_graph)
        return FAIL(e, INVALID_ARGUMENT, "the file is not an ONNX model: it has no graph");
    return 0;
}
