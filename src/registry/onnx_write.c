/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Field numbers are those of onnx.proto3.
 */
#include "registry/onnx_write.h"

enum {
    ATTRIBUTE_INT = 2,
    ATTRIBUTE_STRING = 3,
    ATTRIBUTE_FLOATS = 6,
    ATTRIBUTE_INTS = 7,
    ATTRIBUTE_STRINGS = 8
};
enum { NODE_ATTRIBUTE = 5 };

void pb_int(struct buf *to, uint32_t number, int64_t v)
{
    pb_put_tag(to, number, PB_VARINT);
    pb_put_varint(to, (uint64_t)v);
}

static size_t attribute_open(struct buf *to, str name, int type)
{
    size_t mark = pb_open(to, NODE_ATTRIBUTE);

    pb_put_bytes(to, 1, name);
    pb_int(to, 20, type);
    return mark;
}

void onnx_attr_str(struct buf *to, str name, str v)
{
    size_t mark = attribute_open(to, name, ATTRIBUTE_STRING);

    pb_put_bytes(to, 4, v);
    pb_close(to, mark);
}

void onnx_attr_int(struct buf *to, str name, int64_t v)
{
    size_t mark = attribute_open(to, name, ATTRIBUTE_INT);

    pb_int(to, 3, v);
    pb_close(to, mark);
}

void onnx_attr_ints(struct buf *to, str name, const int64_t *v, size_t n)
{
    size_t mark = attribute_open(to, name, ATTRIBUTE_INTS), packed = pb_open(to, 8);

    for (size_t i = 0; i < n; i++)
        pb_put_varint(to, (uint64_t)v[i]);
    pb_close(to, packed);
    pb_close(to, mark);
}

void onnx_attr_floats(struct buf *to, str name, const float *v, size_t n)
{
    size_t mark = attribute_open(to, name, ATTRIBUTE_FLOATS), packed = pb_open(to, 7);

    buf_add(to, v, n * sizeof(*v)); /* little-endian, as protobuf wants it */
    pb_close(to, packed);
    pb_close(to, mark);
}

void onnx_attr_strs(struct buf *to, str name, const uint8_t *which, size_t n, const str *table)
{
    size_t mark = attribute_open(to, name, ATTRIBUTE_STRINGS);

    for (size_t i = 0; i < n; i++)
        pb_put_bytes(to, 9, table[which[i]]);
    pb_close(to, mark);
}

void onnx_value_info(struct buf *to, uint32_t number, str name, int element_type,
                     const int64_t *dims, size_t rank)
{
    size_t info = pb_open(to, number), type, tensor, shape;

    pb_put_bytes(to, 1, name);
    type = pb_open(to, 2);
    tensor = pb_open(to, 1);
    pb_int(to, 1, element_type);
    shape = pb_open(to, 2);
    for (size_t i = 0; i < rank; i++) {
        size_t dim = pb_open(to, 1);

        if (dims[i] < 0)
            pb_put_bytes(to, 2, S("N"));
        else
            pb_int(to, 1, dims[i]);
        pb_close(to, dim);
    }
    pb_close(to, shape);
    pb_close(to, tensor);
    pb_close(to, type);
    pb_close(to, info);
}
