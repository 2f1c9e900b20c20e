/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames that a process runtime and its program exchange over a stream (docs/formats.md has the
 * whole protocol). Sans I/O. A frame is
 *
 *   head    32 bytes, little-endian: "WRP1", kind u16, zero u16, id u64, header bytes u32, zero
 *           u32, data bytes u64
 *   header  a JSON object, then zeros up to a multiple of 64 counted from the head
 *   data    tensors in the order of the header's "tensors", each followed by zeros up to a multiple
 *           of 64; so each begins aligned for vector instructions
 *
 * A wrong head means that nothing later on the stream can be trusted; what is wrong behind a good
 * head spoils that frame alone.
 */
#pragma once

#include "base/json.h"
#include "wire/tensor.h"

#define TENSOR_FRAME_HEAD_BYTES 32
#define TENSOR_FRAME_ALIGN 64
#define TENSOR_FRAME_HEADER_BYTES_MAX ((uint32_t)1 << 20)

enum tensor_frame_kind {
    TENSOR_FRAME_HELLO = 1,  /* to the program, first: {"protocol":1,"inputs","outputs",…} */
    TENSOR_FRAME_READY = 2,  /* from it: {"protocol":1,"inputs"?,"outputs"?} */
    TENSOR_FRAME_RUN = 3,    /* to it: {"tensors":[…],"timeout_ms"} */
    TENSOR_FRAME_ANSWER = 4, /* from it, with the id of the run: {"tensors":[…]} */
    TENSOR_FRAME_ERROR = 5,  /* or: {"code":"INVALID_ARGUMENT","message"} */
};

struct tensor_frame_head {
    enum tensor_frame_kind kind;
    uint64_t id;           /* of the run; 0 in hello and ready */
    uint32_t header_bytes; /* <= TENSOR_FRAME_HEADER_BYTES_MAX */
    uint64_t data_bytes;   /* a multiple of TENSOR_FRAME_ALIGN */
};

void tensor_frame_head_write(const struct tensor_frame_head *h,
                             char ret_bytes[TENSOR_FRAME_HEAD_BYTES]);
/* INVALID_ARGUMENT: no head, or beyond the limits. */
NODISCARD int tensor_frame_head_read(const char bytes[TENSOR_FRAME_HEAD_BYTES],
                                     uint64_t data_bytes_max, struct tensor_frame_head *ret,
                                     struct err *e);
/* Header and the zeros behind it: what follows the head before the data. */
size_t tensor_frame_header_span(uint32_t header_bytes);

/* A frame without tensors. RESOURCE_EXHAUSTED when `to` is full or the header too long. */
NODISCARD int tensor_frame_write_json(struct buf *to, enum tensor_frame_kind kind, uint64_t id,
                                      str header, struct err *e);
/* A whole RUN. timeout_ms < 0: no time limit is told. */
NODISCARD int tensor_frame_write_run(struct buf *to, uint64_t id, const struct tensor *tensors,
                                     uint32_t n, int64_t timeout_ms, struct err *e);

/*
 * The tensors of an ANSWER, whose header is parsed: each of the n tensors, which have their specs,
 * must be there once, in any order, with its datatype and a shape that its spec allows. They then
 * lie over `data`, or in the arena where they must. INVALID_ARGUMENT; RESOURCE_EXHAUSTED.
 */
NODISCARD int tensor_frame_tensors(const struct json *header, str data, struct tensor *tensors,
                                   uint32_t n, struct arena *a, struct err *e);

/* [{"name","datatype","shape":[…]}] to specs and back. Names are borrowed from the tree. At most
 * `max`, with different names, known datatypes and ranks; INVALID_ARGUMENT. */
NODISCARD int tensor_specs_read(const struct json *list, const char *what, uint32_t max,
                                struct arena *a, struct tensor_spec **ret_specs, uint32_t *ret_n,
                                struct err *e);
bool tensor_specs_equal(const struct tensor_spec *a, uint32_t a_n, const struct tensor_spec *b,
                        uint32_t b_n);
struct json *tensor_specs_json(const struct tensor_spec *specs, uint32_t n, struct arena *a);
