/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protocol Buffers on the wire: a reader that steps through the fields of one message in place, and
 * writers that append to a buffer. No schema, no tree, no allocation; messages are known to the
 * code that reads them.
 *
 * Strict: varints of at most ten bytes without overflow, field numbers 1 to 2^29-1, lengths within
 * the message. Groups (long deprecated) are skipped, at most PB_GROUP_DEPTH_MAX deep. A field of a
 * known number and another wire type is an error, not an unknown field.
 * (https://protobuf.dev/programming-guides/encoding)
 */
#pragma once

#include "base/buf.h"

#define PB_GROUP_DEPTH_MAX 16

enum pb_wire {
    PB_VARINT = 0,
    PB_FIXED64 = 1,
    PB_BYTES = 2,
    PB_FIXED32 = 5,
};

struct pb {
    const char *p, *end;
    const char *wrong; /* what is, once something is; then pb_next gives false */
};

struct pb_field {
    uint32_t number;
    enum pb_wire wire;
    uint64_t value; /* of the three numeric wire types */
    str bytes;      /* of PB_BYTES; borrowed from the message */
};

static inline void pb_begin(struct pb *r, str message)
{
    *r = (struct pb){message.p, message.p ? message.p + message.n : NULL, NULL};
}

/* The next field; false at the end, or when the message is broken (r->wrong). */
bool pb_next(struct pb *r, struct pb_field *ret_field) HOT;
/* True when the field has this wire type; else r->wrong is set. */
bool pb_is(struct pb *r, const struct pb_field *f, enum pb_wire wire);
/* Text in UTF-8, as proto3 demands of `string`. */
bool pb_is_text(struct pb *r, const struct pb_field *f);
/* A varint at *p; false when it is broken or cut. Nearly all have one byte. */
NODISCARD bool pb_varint_long(const char **p, const char *end, uint64_t *ret_value);
NODISCARD static inline bool pb_varint(const char **p, const char *end, uint64_t *ret_value)
{
    if (LIKELY(*p < end && (unsigned char)**p < 0x80)) {
        *ret_value = (unsigned char)*(*p)++;
        return true;
    }
    return pb_varint_long(p, end, ret_value);
}
/* INVALID_ARGUMENT "what: ..." when r->wrong, else 0. */
NODISCARD int pb_end(const struct pb *r, const char *what, struct err *e);

/* --- Writing; a buffer that is full tells so by its flag -------------------------------------- */

void pb_put_varint(struct buf *b, uint64_t v);
void pb_put_tag(struct buf *b, uint32_t number, enum pb_wire wire);
/* Fields that hold their default are not written, as in proto3. */
void pb_put_u64(struct buf *b, uint32_t number, uint64_t v);
void pb_put_i64(struct buf *b, uint32_t number, int64_t v);
void pb_put_bool(struct buf *b, uint32_t number, bool v);
void pb_put_text(struct buf *b, uint32_t number, str s);
void pb_put_bytes(struct buf *b, uint32_t number, str s); /* also when empty */
/* The head of a field of n bytes, which the caller appends. */
void pb_put_head(struct buf *b, uint32_t number, size_t n);
/* A message inside: what is appended between the two belongs to it. */
size_t pb_open(struct buf *b, uint32_t number);
void pb_close(struct buf *b, size_t opened);

size_t pb_varint_bytes(uint64_t v); /* 1..10 */
