/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoding of Protocol Buffers, by hand because it lies on the hot path: a request is a dozen
 * fields, and a general library would build objects for them.
 *
 * Invariants: r->p moves forward with every field and never past r->end, so a reader takes time in
 * proportion to the bytes; r->wrong is set once and ends the reading. It knows no messages: whether
 * a field may stand twice, or must stand, is for the code that reads them.
 */
#include "wire/pb.h"

#define VARINT_BYTES_MAX 10
#define NUMBER_MAX ((1u << 29) - 1)
#define GROUP_BEGIN 3
#define GROUP_END 4

bool pb_varint_long(const char **p, const char *end, uint64_t *ret_value)
{
    const char *at = *p;
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 7 * VARINT_BYTES_MAX && at < end; shift += 7) {
        uint64_t byte = (unsigned char)*at++;

        if (shift == 63 && byte > 1)
            return false;
        v |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret_value = v;
            *p = at;
            return true;
        }
    }
    return false;
}

static bool fail(struct pb *r, const char *wrong)
{
    r->wrong = wrong;
    return false;
}

static bool take_fixed(struct pb *r, size_t n, uint64_t *ret_value)
{
    uint64_t v = 0;

    if ((size_t)(r->end - r->p) < n)
        return fail(r, "a number is cut off");
    memcpy(&v, r->p, n); /* little-endian, as we are */
    r->p += n;
    *ret_value = v;
    return true;
}

static bool take_bytes(struct pb *r, str *ret_bytes)
{
    uint64_t n;

    if (!pb_varint(&r->p, r->end, &n))
        return fail(r, "a broken length");
    if (n > (uint64_t)(r->end - r->p))
        return fail(r, "a field is longer than its message");
    *ret_bytes = (str){r->p, (size_t)n};
    r->p += n;
    return true;
}

static bool take_tag(struct pb *r, uint32_t *ret_number, unsigned *ret_wire)
{
    uint64_t tag;

    if (!pb_varint(&r->p, r->end, &tag))
        return fail(r, "a broken tag");
    if (tag >> 3 == 0 || tag >> 3 > NUMBER_MAX)
        return fail(r, "a field number out of range");
    *ret_number = (uint32_t)(tag >> 3);
    *ret_wire = tag & 7;
    return true;
}

static bool take_value(struct pb *r, unsigned wire, struct pb_field *f)
{
    f->wire = (enum pb_wire)wire;
    switch (wire) {
    case PB_VARINT:
        return pb_varint(&r->p, r->end, &f->value) || fail(r, "a broken varint");
    case PB_FIXED64:
        return take_fixed(r, 8, &f->value);
    case PB_FIXED32:
        return take_fixed(r, 4, &f->value);
    case PB_BYTES:
        return take_bytes(r, &f->bytes);
    default:
        return fail(r, "an unknown wire type");
    }
}

/* Past the end of the group `number`, whose begin was taken. */
static bool skip_group(struct pb *r, uint32_t number)
{
    uint32_t open[PB_GROUP_DEPTH_MAX] = {number};
    unsigned depth = 1, wire;
    struct pb_field f;

    while (depth) {
        if (r->p == r->end)
            return fail(r, "a group without end");
        if (!take_tag(r, &number, &wire))
            return false;
        if (wire == GROUP_BEGIN) {
            if (depth == PB_GROUP_DEPTH_MAX)
                return fail(r, "groups nested too deep");
            open[depth++] = number;
        } else if (wire == GROUP_END) {
            if (open[--depth] != number)
                return fail(r, "a group ends that did not begin");
        } else if (!take_value(r, wire, &f)) {
            return false;
        }
    }
    return true;
}

bool pb_next(struct pb *r, struct pb_field *f)
{
    unsigned wire;

    while (!r->wrong && r->p < r->end) {
        if (!take_tag(r, &f->number, &wire))
            return false;
        if (LIKELY(wire != GROUP_BEGIN))
            return take_value(r, wire, f);
        skip_group(r, f->number);
    }
    return false;
}

bool pb_is(struct pb *r, const struct pb_field *f, enum pb_wire wire)
{
    return LIKELY(f->wire == wire) || fail(r, "a field of the wrong wire type");
}

bool pb_is_text(struct pb *r, const struct pb_field *f)
{
    return pb_is(r, f, PB_BYTES) && (str_is_utf8(f->bytes) || fail(r, "a string is not UTF-8"));
}

int pb_end(const struct pb *r, const char *what, struct err *e)
{
    if (!r->wrong)
        return 0;
    return FAIL(e, INVALID_ARGUMENT, "%s is not a protobuf message: %s", what, r->wrong);
}

/* --- Writing ---------------------------------------------------------------------------------- */

static size_t encode(char to[VARINT_BYTES_MAX], uint64_t v)
{
    size_t n = 0;

    for (; v >= 0x80; v >>= 7)
        to[n++] = (char)(v | 0x80);
    to[n++] = (char)v;
    return n;
}

size_t pb_varint_bytes(uint64_t v)
{
    return (70u - (unsigned)__builtin_clzl(v | 1)) / 7;
}

void pb_put_varint(struct buf *b, uint64_t v)
{
    char *to = buf_reserve(b, VARINT_BYTES_MAX);
    char text[VARINT_BYTES_MAX];

    if (LIKELY(to != NULL)) {
        b->n += encode(to, v);
        return;
    }
    b->overflowed = false; /* near the end of the room: the exact size may do */
    buf_add(b, text, encode(text, v));
}

void pb_put_tag(struct buf *b, uint32_t number, enum pb_wire wire)
{
    pb_put_varint(b, (uint64_t)number << 3 | wire);
}

void pb_put_u64(struct buf *b, uint32_t number, uint64_t v)
{
    if (!v)
        return;
    pb_put_tag(b, number, PB_VARINT);
    pb_put_varint(b, v);
}

void pb_put_i64(struct buf *b, uint32_t number, int64_t v)
{
    pb_put_u64(b, number, (uint64_t)v);
}

void pb_put_bool(struct buf *b, uint32_t number, bool v)
{
    pb_put_u64(b, number, v);
}

void pb_put_head(struct buf *b, uint32_t number, size_t n)
{
    pb_put_tag(b, number, PB_BYTES);
    pb_put_varint(b, n);
}

void pb_put_bytes(struct buf *b, uint32_t number, str s)
{
    pb_put_head(b, number, s.n);
    buf_add_str(b, s);
}

void pb_put_text(struct buf *b, uint32_t number, str s)
{
    if (s.n)
        pb_put_bytes(b, number, s);
}

/* The length gets one byte, and more when it turns out to need them: most messages are short. */
size_t pb_open(struct buf *b, uint32_t number)
{
    pb_put_tag(b, number, PB_BYTES);
    buf_add_char(b, 0);
    return b->n;
}

void pb_close(struct buf *b, size_t opened)
{
    char length[VARINT_BYTES_MAX];
    size_t n, more;

    if (b->overflowed)
        return;
    n = b->n - opened;
    more = encode(length, n) - 1;
    if (more && !buf_reserve(b, more))
        return;
    if (more)
        memmove(b->p + opened + more, b->p + opened, n);
    memcpy(b->p + opened - 1, length, more + 1);
    b->n += more;
}
