/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes protobuf messages, as much as an ONNX file needs. A message inside a message is opened and
 * closed; its length, which stands before it, is put in when it is closed. Private to registry/.
 */
#pragma once

#include "wire/pb.h"

void pb_int(struct buf *to, uint32_t number, int64_t v);

/* Attributes of an ONNX node (AttributeProto), as field 5 of the open NodeProto. */
void onnx_attr_str(struct buf *to, str name, str v);
void onnx_attr_int(struct buf *to, str name, int64_t v);
void onnx_attr_ints(struct buf *to, str name, const int64_t *v, size_t n);
void onnx_attr_floats(struct buf *to, str name, const float *v, size_t n);
/* Strings of a table, by index. */
void onnx_attr_strs(struct buf *to, str name, const uint8_t *which, size_t n, const str *table);

/* A ValueInfoProto as field `number` of the open GraphProto: dims < 0 are open, named "N". */
void onnx_value_info(struct buf *to, uint32_t number, str name, int element_type,
                     const int64_t *dims, size_t rank);
#define ONNX_FLOAT 1
#define ONNX_INT64 7
