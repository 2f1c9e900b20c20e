/* SPDX-License-Identifier: Apache-2.0 */
/* Small ONNX models for the tests, made with the writer of the registry. */
#pragma once

#include "registry/onnx_write.h"

#define ONNX_STRING 8

struct onnx_make {
    struct buf bytes;
    size_t graph;
};

static inline void onnx_begin(struct onnx_make *o)
{
    size_t opset;

    buf_init(&o->bytes, 1 << 20);
    pb_int(&o->bytes, 1, 8);
    opset = pb_open(&o->bytes, 8);
    pb_put_bytes(&o->bytes, 1, S(""));
    pb_int(&o->bytes, 2, 15);
    pb_close(&o->bytes, opset);
    opset = pb_open(&o->bytes, 8);
    pb_put_bytes(&o->bytes, 1, S("ai.onnx.ml"));
    pb_int(&o->bytes, 2, 3);
    pb_close(&o->bytes, opset);
    o->graph = pb_open(&o->bytes, 7);
    pb_put_bytes(&o->bytes, 2, S("test"));
}

/* A node without attributes; an empty name of `b` is a missing input. */
static inline void onnx_node(struct onnx_make *o, const char *op, const char *domain, const char *a,
                             const char *b, const char *out)
{
    size_t node = pb_open(&o->bytes, 1);

    pb_put_bytes(&o->bytes, 1, str_of(a));
    if (*b)
        pb_put_bytes(&o->bytes, 1, str_of(b));
    pb_put_bytes(&o->bytes, 2, str_of(out));
    pb_put_bytes(&o->bytes, 4, str_of(op));
    pb_put_bytes(&o->bytes, 7, str_of(domain));
    pb_close(&o->bytes, node);
}

static inline void onnx_input(struct onnx_make *o, const char *name, int type, const int64_t *dims,
                              size_t rank)
{
    onnx_value_info(&o->bytes, 11, str_of(name), type, dims, rank);
}

static inline void onnx_output(struct onnx_make *o, const char *name, int type, const int64_t *dims,
                               size_t rank)
{
    onnx_value_info(&o->bytes, 12, str_of(name), type, dims, rank);
}

static inline str onnx_end(struct onnx_make *o)
{
    pb_close(&o->bytes, o->graph);
    return buf_str(&o->bytes);
}
