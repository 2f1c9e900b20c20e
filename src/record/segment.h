/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: the files that records lie in until they become Parquet.
 *
 *     file   = header, block…
 *     header = "WEIRSEG1", u32 version, u32 crc32c of what follows, i64 created (wall ns),
 *              u32 bytes of gateway name, the name, zeros to a multiple of 8
 *     block  = u32 length of the payload, u32 crc32c of the rest of the block, u64 sequence,
 *              u32 kind (1 schema, 2 data), u32 count; payload; zeros to a multiple of 8
 *
 * A schema block holds {u32 id, u32 bytes, JSON…} and comes before the first data block that uses
 * the id, so a segment is readable without anything else. The payload of a data block is a run of
 * records as they lay in the ring. Sequence numbers of the blocks of a file count up from 0.
 * Integers are little-endian.
 *
 * `<wall ns, 20 digits>-<number>-<gateway>.open` is being written; `.seg` is complete and never
 * changes again. A torn tail is legal in both: the reader stops at the last whole block and tells
 * how many bytes it left.
 */
#pragma once

#include "record/ring.h"

#define SEGMENT_VERSION 1u
#define SEGMENT_BLOCK_MAX ((size_t)256 << 10) /* payload */
#define SEGMENT_SCHEMA_MAX ((size_t)4 << 20)  /* payload of a schema block */
#define SEGMENT_FILE_MAX ((size_t)1 << 30)
#define SEGMENT_OPEN_EXT ".open"
#define SEGMENT_EXT ".seg"

/* --- Writing (one thread) ------------------------------------------------------------------ */
struct segment_writer;

NODISCARD int segment_writer_new(const char *dir, str gateway, struct segment_writer **ret_writer,
                                 struct err *e);
/* Closes without sealing; accepts NULL. */
void segment_writer_free(struct segment_writer *w);
DEFINE_AUTO_PTR(struct segment_writer, segment_writer_free)

/* Puts a record into the block in memory; false when it has no room: write the block first. */
bool segment_append(struct segment_writer *w, const struct record_head *h,
                    const struct record_schema *s) HOT;
/* Writes the block in memory, opening a file if none is open. The block is empty afterwards in any
 * case; on failure its records are lost and the file is cut back to what was good. */
NODISCARD int segment_write(struct segment_writer *w, struct err *e);
/* Empties the block in memory. */
void segment_discard(struct segment_writer *w);
/* Makes all that was written durable. On failure what was written since the last sync counts as
 * lost, and the file is cut back or abandoned. */
NODISCARD int segment_sync(struct segment_writer *w, struct err *e);
/* Writes, syncs, closes and renames to .seg. A file without records is removed. */
NODISCARD int segment_seal(struct segment_writer *w, struct err *e);

struct segment_state {
    bool is_open;
    uint64_t file_bytes;     /* of the open file, unsynced ones included */
    int64_t opened_wall_ns;  /* of the open file */
    uint32_t buffered;       /* records in the block in memory */
    uint32_t unsynced;       /* records written but not synced */
    uint64_t blocks;         /* written since the writer was made */
    uint64_t synced_records; /* since the writer was made */
    uint64_t synced_bytes;
    uint64_t sealed_files;
};
void segment_state(const struct segment_writer *w, struct segment_state *ret);

/* Cuts every *.open of the folder (but `except`, a file name or NULL) to its last whole block and
 * seals it; one without records is removed. The caller holds the lock of the folder. */
NODISCARD int segment_recover(const char *dir, const char *except, uint32_t *ret_files,
                              uint64_t *ret_bytes_lost, struct err *e);
const char *segment_writer_file(const struct segment_writer *w); /* name, or NULL */

/* --- Reading ------------------------------------------------------------------------------- */
struct segment_reader {
    str bytes;
    struct arena *arena;             /* borrowed: schemas live here */
    struct record_schema ***schemas; /* two levels of 256, by id */
    size_t at;                       /* next block */
    size_t good;                     /* end of the last whole block */
    size_t block_at, block_end;      /* records of the block being read */
    uint64_t sequence;
    uint64_t records, blocks;
    uint64_t dropped_bytes; /* behind the last whole block; valid at the end */
    str gateway;
    int64_t created_wall_ns;
    bool ended;
};

/* `bytes` is a whole file, 8-aligned, and stays. DATA_LOSS when the header is damaged. */
NODISCARD int segment_reader_init(struct segment_reader *r, str bytes, struct arena *a,
                                  struct err *e);
/* The next record and its schema (NULL for feedback); false at the end. */
bool segment_next(struct segment_reader *r, const struct record_head **ret_head,
                  const struct record_schema **ret_schema);
