/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The quota counters on disk, so that a restart is no way to a fresh quota: one small file,
 * replaced as a whole.
 *
 *   "WQT1"  u32 CRC-32C of what follows  u32 0  u32 count  count * { u64 id, u64 day, u64 month }
 *
 * Little-endian; the words are those of limits.h. Only buckets that count something are written. A
 * file that is damaged is an error at the start, named with what to do: to begin with empty
 * counters in silence would give everybody a second quota.
 */
#include "serve/auth/priv.h"

#include "base/buf.h"
#include "base/files.h"

#define HEAD_BYTES 16
#define ENTRY_BYTES 24
#define FILE_BYTES_MAX (HEAD_BYTES + (size_t)LIMITS_BUCKETS_MAX * ENTRY_BYTES)

static const char magic[4] = {'W', 'Q', 'T', '1'};

static void put(void *ctx, const struct bucket *b)
{
    uint64_t entry[3] = {b->id, __atomic_load_n(&b->day, __ATOMIC_RELAXED),
                         __atomic_load_n(&b->month, __ATOMIC_RELAXED)};

    if (entry[1] || entry[2])
        buf_add(ctx, entry, sizeof(entry));
}

int quota_save(const char *path, struct limits *l, struct err *e)
{
    AUTO(buf_done) struct buf bytes = {0};
    uint32_t head[4] = {0};

    buf_init(&bytes, FILE_BYTES_MAX);
    buf_add(&bytes, head, sizeof(head));
    limits_each(l, put, &bytes);
    if (bytes.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "%s: more counters than there can be", path);
    memcpy(head, magic, sizeof(magic));
    head[3] = (uint32_t)((bytes.n - HEAD_BYTES) / ENTRY_BYTES);
    memcpy(bytes.p + 12, &head[3], 4);
    head[1] = crc32c(0, bytes.p + 8, bytes.n - 8);
    memcpy(bytes.p, head, HEAD_BYTES);
    return file_replace(path, buf_str(&bytes), e);
}

static bool is_whole(str bytes)
{
    uint32_t head[4];

    if (bytes.n < HEAD_BYTES || memcmp(bytes.p, magic, sizeof(magic)) != 0)
        return false;
    memcpy(head, bytes.p, sizeof(head));
    return head[1] == crc32c(0, bytes.p + 8, bytes.n - 8) && head[3] <= LIMITS_BUCKETS_MAX &&
           bytes.n == HEAD_BYTES + (size_t)head[3] * ENTRY_BYTES;
}

int quota_load(const char *path, struct limits *l, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    str bytes;

    if (!file_exists(path))
        return 0;
    arena_init(&a, 0);
    TRY(file_read_all(path, FILE_BYTES_MAX, &a, &bytes, e));
    if (!is_whole(bytes))
        return FAIL(
            e, DATA_LOSS,
            "%s is damaged: restore it from a backup, or remove it, and all quotas begin anew",
            path);
    for (size_t at = HEAD_BYTES; at < bytes.n; at += ENTRY_BYTES) {
        uint64_t entry[3];
        struct bucket *b;

        memcpy(entry, bytes.p + at, sizeof(entry));
        b = entry[0] ? limits_bucket(l, entry[0]) : NULL;
        if (!b)
            continue;
        b->day = entry[1];
        b->month = entry[2];
    }
    return 0;
}
