/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing segments, and recovering those of a dead process.
 *
 * The idea. Records are copied into one block in memory; a full block goes to the file in one
 * write, and a sync makes everything before it durable. The position up to which the file is known
 * to be good is kept here, and blocks are always written at that position. After a failed or torn
 * write the file is cut back to it before anything else is written, so that no piece of an old
 * block can be taken for a new one.
 *
 * Invariants.
 * 1. Bytes [0, good) of the open file are whole blocks. Bytes [0, synced) survive kill -9 and power
 *    loss.
 * 2. A schema is marked as written only when its block lies before `good`.
 * 3. After a failed sync nothing past `synced` is believed: the kernel may have dropped those pages
 *    and will not say so twice. The file is cut there; if that fails too it is closed and left to
 *    segment_recover().
 */
#include "record/segment_format.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/time.h"

#include <stdio.h>

#define PATH_BYTES 1024
#define PENDING_MAX 256u /* new schemas in one block */

struct segment_writer {
    char dir[PATH_BYTES - 256];
    char gateway[129];
    char name[256]; /* of the open file, "" = none */
    int fd;
    uint64_t good, synced;
    bool torn; /* bytes of a failed write lie behind `good` */
    uint64_t sequence;
    uint64_t number; /* of files made */
    int64_t opened_wall_ns;
    uint64_t file_records;

    unsigned char *block; /* owned: SEGMENT_BLOCK_MAX after the head */
    size_t block_bytes;   /* payload so far */
    uint32_t block_records;

    uint64_t written[RECORD_SCHEMAS_MAX / 64]; /* bit set of the schemas in the open file */
    const struct record_schema *pending[PENDING_MAX];
    uint32_t pending_count;

    uint32_t unsynced;
    uint64_t blocks, synced_records, synced_bytes, sealed_files;
};

int segment_writer_new(const char *dir, str gateway, struct segment_writer **ret_writer,
                       struct err *e)
{
    AUTO(segment_writer_freep) struct segment_writer *w = mem_zalloc(sizeof *w);

    w->fd = -1;
    if (!str_is_name(gateway))
        return FAIL(e, INVALID_ARGUMENT, "gateway id '" STR_F "' is not a plain name",
                    STR_A(gateway));
    if (!str_to_z(gateway, w->gateway, sizeof w->gateway) ||
        !str_to_z(str_of(dir), w->dir, sizeof w->dir))
        return FAIL(e, INVALID_ARGUMENT, "record folder '%s': the path is longer than %zu bytes",
                    dir, sizeof w->dir - 1);
    w->block = mem_zalloc(sizeof(struct segment_block) + SEGMENT_BLOCK_MAX);
    *ret_writer = TAKE(w);
    return 0;
}

void segment_writer_free(struct segment_writer *w)
{
    if (!w)
        return;
    file_close(w->fd);
    mem_free(w->block);
    mem_free(w);
}

static void path_of(const struct segment_writer *w, const char *name, char path[PATH_BYTES])
{
    int n = snprintf(path, PATH_BYTES, "%s/%s", w->dir, name);

    ASSERT(n > 0 && n < PATH_BYTES);
}

bool segment_append(struct segment_writer *w, const struct record_head *h,
                    const struct record_schema *s)
{
    if (w->block_bytes + h->bytes > SEGMENT_BLOCK_MAX)
        return false;
    if (s && !(w->written[s->id >> 6] >> (s->id & 63) & 1)) {
        uint32_t i = 0;

        while (i < w->pending_count && w->pending[i] != s)
            i++;
        if (i == PENDING_MAX)
            return false;
        if (i == w->pending_count)
            w->pending[w->pending_count++] = s;
    }
    memcpy(w->block + sizeof(struct segment_block) + w->block_bytes, h, h->bytes);
    w->block_bytes += h->bytes;
    w->block_records++;
    return true;
}

static void close_file(struct segment_writer *w)
{
    file_close(w->fd);
    w->fd = -1;
    w->name[0] = 0;
    w->good = w->synced = 0;
    w->torn = false;
    w->sequence = 0;
    w->file_records = 0;
    w->unsynced = 0;
    memset(w->written, 0, sizeof w->written);
}

static NODISCARD int write_header(struct segment_writer *w, struct err *e)
{
    unsigned char bytes[sizeof(struct segment_header) + 136] = {0};
    size_t name = strlen(w->gateway);
    size_t n = sizeof(struct segment_header) + segment_pad(name);
    struct segment_header h = {.magic = SEGMENT_MAGIC,
                               .version = SEGMENT_VERSION,
                               .created_wall_ns = w->opened_wall_ns,
                               .name_bytes = (uint32_t)name};

    memcpy(bytes, &h, sizeof h);
    memcpy(bytes + sizeof h, w->gateway, name);
    h.crc = crc32c(0, bytes + SEGMENT_HEADER_CRC_FROM, n - SEGMENT_HEADER_CRC_FROM);
    memcpy(bytes, &h, sizeof h);
    TRY(file_pwrite_all(w->fd, bytes, n, 0, e));
    w->good = n;
    return 0;
}

static NODISCARD int open_file(struct segment_writer *w, struct err *e)
{
    char path[PATH_BYTES];
    int rc;

    w->opened_wall_ns = time_wall_ns();
    snprintf(w->name, sizeof w->name, "%020lld-%06llu-%s" SEGMENT_OPEN_EXT,
             (long long)w->opened_wall_ns, (unsigned long long)w->number++, w->gateway);
    path_of(w, w->name, path);
    rc = file_open(path, FILE_EXCLUSIVE, &w->fd, e);
    if (rc) {
        close_file(w);
        return rc;
    }
    rc = write_header(w, e);
    if (!rc)
        rc = file_sync_dir(w->dir, e);
    if (rc) { /* nothing in it yet: better no file than an empty one */
        int ignored UNUSED = file_remove(path, NULL);

        close_file(w);
    }
    return rc;
}

static NODISCARD int put_block(struct segment_writer *w, unsigned char *block, uint32_t kind,
                               size_t length, uint32_t count, uint64_t *at, uint64_t *sequence,
                               struct err *e)
{
    struct segment_block h = {
        .length = (uint32_t)length, .sequence = *sequence, .kind = kind, .count = count};
    size_t padded = segment_pad(length);

    memset(block + sizeof h + length, 0, padded - length);
    memcpy(block, &h, sizeof h);
    h.crc = crc32c(0, block + SEGMENT_BLOCK_CRC_FROM, sizeof h - SEGMENT_BLOCK_CRC_FROM + length);
    memcpy(block, &h, sizeof h);
    TRY(file_pwrite_all(w->fd, block, sizeof h + padded, *at, e));
    *at += sizeof h + padded;
    *sequence += 1;
    return 0;
}

static NODISCARD int put_schema(struct segment_writer *w, const struct record_schema *s,
                                uint64_t *at, uint64_t *sequence, struct err *e)
{
    struct segment_schema head = {.id = s->id, .bytes = (uint32_t)s->json.n};
    size_t length = sizeof head + s->json.n;
    AUTO(mem_freep)
    unsigned char *block = mem_alloc(sizeof(struct segment_block) + segment_pad(length));

    memcpy(block + sizeof(struct segment_block), &head, sizeof head);
    memcpy(block + sizeof(struct segment_block) + sizeof head, s->json.p, s->json.n);
    return put_block(w, block, SEGMENT_BLOCK_SCHEMA, length, 0, at, sequence, e);
}

static NODISCARD int write_block(struct segment_writer *w, struct err *e)
{
    uint64_t at, sequence;

    if (w->fd < 0)
        TRY(open_file(w, e));
    if (w->torn)
        TRY(file_truncate(w->fd, w->good, e));
    w->torn = false;
    at = w->good;
    sequence = w->sequence;
    for (uint32_t i = 0; i < w->pending_count; i++)
        TRY(put_schema(w, w->pending[i], &at, &sequence, e));
    TRY(put_block(w, w->block, SEGMENT_BLOCK_DATA, w->block_bytes, w->block_records, &at, &sequence,
                  e));
    w->good = at;
    w->sequence = sequence;
    for (uint32_t i = 0; i < w->pending_count; i++)
        w->written[w->pending[i]->id >> 6] |= UINT64_C(1) << (w->pending[i]->id & 63);
    w->pending_count = 0;
    w->unsynced += w->block_records;
    w->file_records += w->block_records;
    w->blocks++;
    return 0;
}

/* The schemas of a lost block are announced again by the next record that uses them. */
void segment_discard(struct segment_writer *w)
{
    w->pending_count = 0;
    w->block_bytes = 0;
    w->block_records = 0;
}

int segment_write(struct segment_writer *w, struct err *e)
{
    int rc;

    if (!w->block_records)
        return 0;
    rc = write_block(w, e);
    if (rc && w->fd >= 0) /* gives the space back, if it can be done now */
        w->torn = file_truncate(w->fd, w->good, NULL) != 0;
    segment_discard(w);
    return rc;
}

/* Back to what is known to be on disk. The rest goes to a new file; this one, still named .open, is
 * sealed by segment_recover(). */
static void roll_back(struct segment_writer *w)
{
    int ignored UNUSED = file_truncate(w->fd, w->synced, NULL);

    close_file(w);
}

int segment_sync(struct segment_writer *w, struct err *e)
{
    int rc;

    if (w->fd < 0 || w->synced == w->good)
        return 0;
    rc = file_sync(w->fd, e);
    if (rc) {
        roll_back(w);
        return rc;
    }
    w->synced_bytes += w->good - w->synced;
    w->synced_records += w->unsynced;
    w->synced = w->good;
    w->unsynced = 0;
    return 0;
}

static NODISCARD int rename_sealed(const char *dir, const char *name, struct err *e)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    size_t stem = strlen(name) - strlen(SEGMENT_OPEN_EXT);
    int n = snprintf(from, sizeof from, "%s/%s", dir, name);
    int m = snprintf(to, sizeof to, "%s/%.*s" SEGMENT_EXT, dir, (int)stem, name);

    if (n <= 0 || n >= PATH_BYTES || m <= 0 || m >= PATH_BYTES)
        return FAIL(e, INVALID_ARGUMENT, "segment path '%s/%s' is too long", dir, name);
    TRY(file_rename(from, to, e));
    return file_sync_dir(dir, e);
}

int segment_seal(struct segment_writer *w, struct err *e)
{
    char name[sizeof w->name];
    uint64_t records;

    TRY(segment_write(w, e));
    if (w->fd < 0)
        return 0;
    TRY(segment_sync(w, e));
    memcpy(name, w->name, sizeof name);
    records = w->file_records;
    if (!records) {
        char path[PATH_BYTES];

        path_of(w, name, path);
        close_file(w);
        return file_remove(path, e);
    }
    close_file(w);
    TRY(rename_sealed(w->dir, name, e));
    w->sealed_files++;
    return 0;
}

const char *segment_writer_file(const struct segment_writer *w)
{
    return w->fd < 0 ? NULL : w->name;
}

void segment_state(const struct segment_writer *w, struct segment_state *ret)
{
    *ret = (struct segment_state){.is_open = w->fd >= 0,
                                  .file_bytes = w->good,
                                  .opened_wall_ns = w->opened_wall_ns,
                                  .buffered = w->block_records,
                                  .unsynced = w->unsynced,
                                  .blocks = w->blocks,
                                  .synced_records = w->synced_records,
                                  .synced_bytes = w->synced_bytes,
                                  .sealed_files = w->sealed_files};
}

/* --- Recovery ------------------------------------------------------------------------------ */

static NODISCARD int recover_one(const char *dir, const char *name, uint64_t *bytes_lost,
                                 struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(file_closep) int fd = -1;
    struct segment_reader r;
    const struct record_head *h;
    const struct record_schema *s;
    char *path;
    str bytes;

    arena_init(&a, 0);
    path = path_join(&a, dir, name);
    TRY(file_read_all(path, SEGMENT_FILE_MAX, &a, &bytes, e));
    if (segment_reader_init(&r, bytes, &a, NULL)) { /* died before the header was whole */
        *bytes_lost += bytes.n;
        return file_remove(path, e);
    }
    while (segment_next(&r, &h, &s))
        ;
    *bytes_lost += r.dropped_bytes;
    if (!r.records)
        return file_remove(path, e);
    TRY(file_open(path, FILE_CREATE, &fd, e));
    if (r.dropped_bytes)
        TRY(file_truncate(fd, r.good, e));
    TRY(file_sync(fd, e));
    return rename_sealed(dir, name, e);
}

int segment_recover(const char *dir, const char *except, uint32_t *ret_files,
                    uint64_t *ret_bytes_lost, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    str *names;
    size_t n;
    uint32_t files = 0;
    uint64_t lost = 0;

    arena_init(&a, 0);
    TRY(file_list(dir, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        if (!str_ends(names[i], S(SEGMENT_OPEN_EXT)) || (except && str_eqz(names[i], except)))
            continue;
        TRY(recover_one(dir, names[i].p, &lost, e));
        files++;
    }
    *ret_files = files;
    *ret_bytes_lost = lost;
    return 0;
}
