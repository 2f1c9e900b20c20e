/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of HTTP/2 made by hand, so that any mistake of a peer can be made; header blocks are
 * literals without Huffman coding. */
#pragma once

#include "base/buf.h"

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONT };
#define END_STREAM 1
#define ACK 1
#define END_HEADERS 4

static inline void frame_put(struct buf *to, int type, int flags, uint32_t id, str payload)
{
    unsigned char head[9] = {(unsigned char)(payload.n >> 16),
                             (unsigned char)(payload.n >> 8),
                             (unsigned char)payload.n,
                             (unsigned char)type,
                             (unsigned char)flags,
                             (unsigned char)(id >> 24),
                             (unsigned char)(id >> 16),
                             (unsigned char)(id >> 8),
                             (unsigned char)id};

    buf_add(to, head, sizeof(head));
    buf_add_str(to, payload);
}

static inline void frame_length_put(struct buf *b, size_t n) /* HPACK integer, prefix of 7 bits */
{
    if (n < 127) {
        buf_add_char(b, (char)n);
        return;
    }
    buf_add_char(b, 127);
    for (n -= 127; n >= 128; n >>= 7)
        buf_add_char(b, (char)((n & 127) | 128));
    buf_add_char(b, (char)n);
}

static inline void frame_field_put(struct buf *b, str name, str value)
{
    buf_add_char(b, 0); /* literal without indexing, new name */
    frame_length_put(b, name.n);
    buf_add_str(b, name);
    frame_length_put(b, value.n);
    buf_add_str(b, value);
}

/* "name: value\nname: value" as a header block. A name may start with ':'. */
static inline void frame_block_put(struct buf *b, const char *text)
{
    str rest = str_of(text);

    while (rest.p) {
        str line = str_cut(&rest, '\n');
        ptrdiff_t at = str_find(line, S(": "));

        frame_field_put(b, str_take(line, (size_t)at), str_skip(line, (size_t)at + 2));
    }
}

static inline void frame_headers_put(struct buf *to, uint32_t id, int flags, const char *text)
{
    AUTO(buf_done) struct buf b = {0};

    buf_init(&b, 1 << 20);
    frame_block_put(&b, text);
    frame_put(to, HEADERS, flags | END_HEADERS, id, buf_str(&b));
}
