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
#include "serve/trees/onnx_fields.h"

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

static int malformed(struct err *e)
{
    return FAIL(e, INVALID_ARGUMENT, "the file is not an ONNX model (its protobuf is broken)");
}

static int tensor_scan(str bytes, struct err *e)
{
    str name = STR_NULL;
    bool external = false;
    struct onnx_field f;

    while (bytes.n) {
        if (!onnx_field_take(&bytes, &f))
            return malformed(e);
        if (f.number == TENSOR_NAME && f.wire == ONNX_WIRE_BYTES)
            name = f.bytes;
        external |=
            f.number == TENSOR_EXTERNAL_DATA ||
            (f.number == TENSOR_DATA_LOCATION && f.wire == ONNX_WIRE_VARINT && f.value != 0);
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
    struct onnx_field f;

    if (kind == TENSOR)
        return tensor_scan(bytes, e);
    if (depth > SCAN_DEPTH_MAX)
        return FAIL(e, INVALID_ARGUMENT, "the ONNX model nests its graphs deeper than %d messages",
                    SCAN_DEPTH_MAX);
    while (bytes.n) {
        if (!onnx_field_take(&bytes, &f))
            return malformed(e);
        for (size_t i = 0; i < ARRAY_LEN(paths); i++)
            if (paths[i].in == kind && paths[i].field == f.number) {
                if (f.wire != ONNX_WIRE_BYTES)
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
    struct onnx_field f;

    TRY(message_scan(MODEL, bytes, 0, e));
    while (rest.n && onnx_field_take(&rest, &f))
        has_graph |= f.number == 7;
    if (!has_graph)
        return FAIL(e, INVALID_ARGUMENT, "the file is not an ONNX model: it has no graph");
    return 0;
}
