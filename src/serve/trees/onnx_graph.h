/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of an ONNX file as a lone tree ensemble has: the one tree node with its attributes, what
 * the graph takes and gives, and small nodes behind. Texts are borrowed from the file.
 */
#pragma once

#include "base/arena.h"

#define ONNX_NODES_MAX 4 /* the tree node and what may stand behind it */
#define ONNX_OUTPUTS_MAX 4

enum {
    ONNX_ELEM_FLOAT = 1,
    ONNX_ELEM_UINT8 = 2,
    ONNX_ELEM_INT64 = 7,
    ONNX_ELEM_STRING = 8,
    ONNX_ELEM_DOUBLE = 11
};

struct onnx_value {
    str name;
    int64_t elem; /* 0: not a tensor, or not said */
    uint32_t rank;
    int64_t dims[2]; /* of the first two; -1: open */
};

/* An attribute: what its kind has. */
struct onnx_attr {
    str name;
    int64_t i;
    str s;
    const int64_t *ints;
    const double *reals; /* floats, or a tensor of floats or doubles */
    const str *strs;
    uint32_t int_count, real_count, str_count;
    bool is_double; /* the reals were doubles */
};

struct onnx_node {
    str op, domain;
    str inputs[1], outputs[2];
    uint32_t input_count, output_count; /* as many as there are, kept or not */
    str body;
};

struct onnx_graph {
    struct onnx_node nodes[ONNX_NODES_MAX];
    struct onnx_value input, outputs[ONNX_OUTPUTS_MAX];
    uint32_t node_count, input_count, output_count;
};

/* INVALID_ARGUMENT: no ONNX file; FAILED_PRECONDITION: more than a lone node has. */
NODISCARD int onnx_graph_read(str file, struct onnx_graph *ret_graph, struct err *e);
/* All attributes of a node; arrays are of the arena. */
NODISCARD int onnx_attrs_read(const struct onnx_node *n, struct arena *a,
                              struct onnx_attr **ret_attrs, uint32_t *ret_count, struct err *e);
/* The attribute of that name, or an empty one. */
const struct onnx_attr *onnx_attr_get(const struct onnx_attr *attrs, uint32_t n, const char *name);
