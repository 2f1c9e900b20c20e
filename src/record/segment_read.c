/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a segment: a pure walk over bytes, for the exporter, for recovery and for the fuzzer.
 *
 * Nothing of a block is believed before its checksum fits and its sequence number is the next one;
 * after that each record is still checked field by field (record_check), so that a file written by
 * a hostile hand with good checksums can at worst yield wrong numbers, never a wild read. The walk
 * ends at the first block that does not hold, which is what a torn write looks like; what lies
 * behind is counted, not guessed at.
 */
#include "record/segment_format.h"

#include "base/hash.h"

int segment_reader_init(struct segment_reader *r, str bytes, struct arena *a, struct err *e)
{
    struct segment_header h;
    size_t head;

    ASSERT(((uintptr_t)bytes.p & 7) == 0);
    if (bytes.n < sizeof h || memcmp(bytes.p, SEGMENT_MAGIC, sizeof h.magic) != 0)
        return FAIL(e, DATA_LOSS, "not a record segment: the first bytes are not " SEGMENT_MAGIC);
    memcpy(&h, bytes.p, sizeof h);
    if (h.version != SEGMENT_VERSION)
        return FAIL(e, DATA_LOSS, "record segment of format version %u: this program reads %u",
                    h.version, SEGMENT_VERSION);
    head = sizeof h + segment_pad(h.name_bytes);
    if (h.name_bytes > 128 || head > bytes.n ||
        crc32c(0, bytes.p + SEGMENT_HEADER_CRC_FROM, head - SEGMENT_HEADER_CRC_FROM) != h.crc)
        return FAIL(e, DATA_LOSS, "the header of the record segment is damaged");
    *r = (struct segment_reader){
        .bytes = bytes,
        .arena = a,
        .at = head,
        .good = head,
        .gateway = {bytes.p + sizeof h, h.name_bytes},
        .created_wall_ns = h.created_wall_ns,
        .schemas = ARENA_ARRAY(a, struct record_schema **, RECORD_SCHEMAS_MAX / 256),
    };
    return 0;
}

static const struct record_schema *schema_get(const struct segment_reader *r, uint32_t id)
{
    if (id >= RECORD_SCHEMAS_MAX || !r->schemas[id >> 8])
        return NULL;
    return r->schemas[id >> 8][id & 255];
}

static bool schema_block(struct segment_reader *r, const char *p, size_t n)
{
    struct segment_schema head;
    struct record_schema *s;

    if (n < sizeof head)
        return false;
    memcpy(&head, p, sizeof head);
    if (head.id >= RECORD_SCHEMAS_MAX || head.bytes != n - sizeof head || schema_get(r, head.id))
        return false;
    if (record_schema_parse((str){p + sizeof head, head.bytes}, r->arena, &s, NULL))
        return false;
    s->id = head.id;
    if (!r->schemas[head.id >> 8])
        r->schemas[head.id >> 8] = ARENA_ARRAY(r->arena, struct record_schema *, 256);
    r->schemas[head.id >> 8][head.id & 255] = s;
    return true;
}

/* All records of a data block hold, and there are as many as its head says. */
static bool data_block(struct segment_reader *r, const char *p, size_t n, uint32_t count)
{
    uint32_t seen = 0;

    while (n >= sizeof(struct record_head)) {
        struct record_head h;

        memcpy(&h, p, sizeof h);
        if (h.bytes > n || h.bytes < sizeof h ||
            !record_check(p, h.bytes,
                          h.kind == RECORD_FEEDBACK ? NULL : schema_get(r, h.schema_id)))
            return false;
        p += h.bytes;
        n -= h.bytes;
        seen++;
    }
    return n == 0 && seen == count;
}

/* Steps over the next block; false at the end or at the first damage. */
static bool next_block(struct segment_reader *r)
{
    struct segment_block b;
    const char *p = r->bytes.p + r->at;
    size_t left = r->bytes.n - r->at;
    size_t max;

    if (left < sizeof b)
        return false;
    memcpy(&b, p, sizeof b);
    max = b.kind == SEGMENT_BLOCK_SCHEMA ? SEGMENT_SCHEMA_MAX : SEGMENT_BLOCK_MAX;
    if (b.length > max || segment_pad(b.length) > left - sizeof b || b.sequence != r->sequence ||
        crc32c(0, p + SEGMENT_BLOCK_CRC_FROM, sizeof b - SEGMENT_BLOCK_CRC_FROM + b.length) !=
            b.crc)
        return false;
    if (b.kind == SEGMENT_BLOCK_SCHEMA) {
        if (!schema_block(r, p + sizeof b, b.length))
            return false;
        r->block_at = r->block_end = 0;
    } else {
        if (b.kind != SEGMENT_BLOCK_DATA || !data_block(r, p + sizeof b, b.length, b.count))
            return false;
        r->block_at = r->at + sizeof b;
        r->block_end = r->block_at + b.length;
    }
    r->at += sizeof b + segment_pad(b.length);
    r->good = r->at;
    r->sequence++;
    r->blocks++;
    return true;
}

bool segment_next(struct segment_reader *r, const struct record_head **ret_head,
                  const struct record_schema **ret_schema)
{
    const struct record_head *h;

    while (!r->ended && r->block_at == r->block_end)
        if (!next_block(r)) {
            r->ended = true;
            r->dropped_bytes = r->bytes.n - r->good;
        }
    if (r->ended)
        return false;
    h = (const struct record_head *)(const void *)(r->bytes.p + r->block_at);
    r->block_at += h->bytes;
    r->records++;
    *ret_head = h;
    *ret_schema = h->kind == RECORD_FEEDBACK ? NULL : schema_get(r, h->schema_id);
    return true;
}
