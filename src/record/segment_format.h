/* SPDX-License-Identifier: Apache-2.0 */
/* The layouts that the writer and the reader of segments share (segment.h tells the format). */
#pragma once

#include "record/segment.h"

#define SEGMENT_MAGIC "WEIRSEG1"

enum segment_block_kind { SEGMENT_BLOCK_SCHEMA = 1, SEGMENT_BLOCK_DATA = 2 };

struct segment_header {
    char magic[8];
    uint32_t version;
    uint32_t crc; /* of the rest of the header, the name and its padding */
    int64_t created_wall_ns;
    uint32_t name_bytes;
    uint32_t spare;
};

struct segment_block {
    uint32_t length; /* of the payload */
    uint32_t crc;    /* of the rest of this head and the payload */
    uint64_t sequence;
    uint32_t kind;
    uint32_t count; /* records */
};

/* Starts the payload of a schema block; the JSON follows. */
struct segment_schema {
    uint32_t id;
    uint32_t bytes;
};

#define SEGMENT_BLOCK_CRC_FROM offsetof(struct segment_block, sequence)
#define SEGMENT_HEADER_CRC_FROM offsetof(struct segment_header, created_wall_ns)

static inline size_t segment_pad(size_t n)
{
    return (n + 7) & ~(size_t)7;
}
