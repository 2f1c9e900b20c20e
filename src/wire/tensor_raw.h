/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensors as raw bytes: row-major, little-endian, without gaps; a BOOL is one byte, 0 or 1; an
 * element of BYTES is its length in four bytes and then itself. The binary extension of the Open
 * Inference Protocol and the frames of a process runtime carry tensors in this form.
 */
#pragma once

#include "base/arena.h"
#include "wire/tensor.h"

/* Bytes that the tensor takes; UINT64_MAX when an element of BYTES is longer than 2^32 - 1. */
uint64_t tensor_raw_bytes(const struct tensor *t);
void tensor_raw_write(struct buf *to, const struct tensor *t);

/* Gives t the shape, which must be one that its spec allows. INVALID_ARGUMENT names the tensor. */
NODISCARD int tensor_raw_shape(struct tensor *t, const int64_t *shape, uint32_t rank,
                               struct err *e);
/*
 * Lays t, whose shape is set, over `raw`: numbers are read where they are when `raw` is aligned for
 * them, else they and the list of texts go into the arena; texts point into `raw`. INVALID_ARGUMENT
 * when the sizes do not agree or a BOOL is neither 0 nor 1; RESOURCE_EXHAUSTED when the arena is
 * full.
 */
NODISCARD int tensor_raw_over(struct tensor *t, str raw, struct arena *a, struct err *e);
