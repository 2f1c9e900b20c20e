/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a segment. Once as they are, and once with checksums and sequence numbers put right,
 * so that what lies behind them is reached. Whatever is handed out can be read to the last byte.
 */
#include "fuzz.h"

#include "base/hash.h"
#include "base/mem.h"
#include "record/segment_format.h"

static uint64_t sum;

static void touch(str s)
{
    for (size_t i = 0; i < s.n; i++)
        sum += (unsigned char)s.p[i];
}

static void read_record(const struct record_head *h, const struct record_schema *s)
{
    const unsigned char *row = record_rows(h);

    touch(record_request_id(h));
    if (h->kind == RECORD_FEEDBACK) {
        const struct record_feedback *f = record_feedback_of(h);

        touch(record_feedback_label(f));
        touch(record_feedback_comment(f));
        touch(record_feedback_item(f));
        return;
    }
    for (uint32_t i = 0; i < h->row_count && s->row_bytes; i++) {
        for (uint32_t c = 0; c < s->column_count; c++) {
            sum += record_row_number(s, c, row) > 0;
            touch(record_row_text(s, c, row));
        }
        row = record_row_after(s, row);
    }
}

static void read_all(str bytes)
{
    AUTO(arena_done) struct arena a;
    const struct record_schema *s;
    const struct record_head *h;
    struct segment_reader r;

    arena_init(&a, 0);
    if (segment_reader_init(&r, bytes, &a, NULL))
        return;
    while (segment_next(&r, &h, &s))
        read_record(h, s);
}

static void mend(char *p, size_t n)
{
    struct segment_header h;
    struct segment_block b;
    size_t at;

    if (n < sizeof h)
        return;
    memcpy(&h, p, sizeof h);
    memcpy(h.magic, SEGMENT_MAGIC, sizeof h.magic);
    h.version = SEGMENT_VERSION;
    h.name_bytes %= 32;
    at = sizeof h + segment_pad(h.name_bytes);
    if (at > n)
        return;
    memcpy(p, &h, sizeof h);
    h.crc = crc32c(0, p + SEGMENT_HEADER_CRC_FROM, at - SEGMENT_HEADER_CRC_FROM);
    memcpy(p, &h, sizeof h);
    for (uint64_t sequence = 0; at + sizeof b <= n; sequence++) {
        memcpy(&b, p + at, sizeof b);
        if (b.length > n - at - sizeof b)
            b.length = (uint32_t)(n - at - sizeof b);
        b.sequence = sequence;
        memcpy(p + at, &b, sizeof b);
        b.crc = crc32c(0, p + at + SEGMENT_BLOCK_CRC_FROM,
                       sizeof b - SEGMENT_BLOCK_CRC_FROM + b.length);
        memcpy(p + at, &b, sizeof b);
        at += sizeof b + segment_pad(b.length);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(mem_freep) char *copy = mem_alloc(size + 1); /* aligned, and its end is watched */

    memcpy(copy, data, size);
    read_all((str){copy, size});
    mend(copy, size);
    read_all((str){copy, size});
    return 0;
}
