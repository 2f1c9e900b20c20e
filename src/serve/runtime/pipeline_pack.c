/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/runtime/pipeline_pack.h"

#include "base/files.h"
#include "base/mem.h"
#include "serve/runtime/runtime.h"
#include "wire/ustar.h"

#define PIECE ((size_t)1 << 20)
#define MODE_PLAIN 0444

/* --- Writing ---------------------------------------------------------------------------------- */

static NODISCARD int put_head(int fd, const char *name, uint64_t bytes, uint64_t *at, struct err *e)
{
    struct ustar_entry entry = {.mode = MODE_PLAIN, .bytes = bytes};
    char block[USTAR_BLOCK];

    if (!str_to_z(str_of(name), entry.name, sizeof(entry.name)) || !ustar_write(&entry, block))
        return FAIL(e, INTERNAL, "a pack cannot hold '%s'", name);
    TRY(file_pwrite_all(fd, block, sizeof(block), *at, e));
    *at += sizeof(block);
    return 0;
}

/* Zeros up to a whole block. */
static NODISCARD int put_end(int fd, uint64_t bytes, uint64_t *at, struct err *e)
{
    static const char zeros[USTAR_BLOCK];
    uint64_t rest = ustar_padded(bytes) - bytes;

    TRY(file_pwrite_all(fd, zeros, rest, *at + bytes, e));
    *at += bytes + rest;
    return 0;
}

static NODISCARD int put_model(int fd, const char *model, uint64_t *at, struct err *e)
{
    AUTO(file_closep) int from = -1;
    AUTO(mem_freep) char *piece = mem_alloc(PIECE);
    uint64_t bytes, done = 0;
    size_t n;

    TRY(file_open(model, FILE_READ, &from, e));
    TRY(file_size(from, &bytes, e));
    if (bytes > RUNTIME_MODEL_BYTES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%s has more than %zu MiB", model,
                    RUNTIME_MODEL_BYTES_MAX >> 20);
    TRY(put_head(fd, PIPELINE_PACK_MODEL, bytes, at, e));
    for (; done < bytes; done += n) {
        TRY(file_pread(from, piece, MIN(bytes - done, PIECE), done, &n, e));
        if (!n)
            return FAIL(e, ABORTED, "%s became shorter while it was read", model);
        TRY(file_pwrite_all(fd, piece, n, *at + done, e));
    }
    return put_end(fd, bytes, at, e);
}

int pipeline_pack_write(const struct json *document, const char *model, const char *path,
                        struct err *e)
{
    static const char zeros[2 * USTAR_BLOCK];
    AUTO(buf_done) struct buf text = {0};
    AUTO(file_closep) int fd = -1;
    uint64_t at = 0;

    buf_init(&text, PIPELINE_DOCUMENT_BYTES_MAX);
    json_write_canonical(&text, document);
    if (text.overflowed)
        return FAIL(e, INVALID_ARGUMENT, "the pipeline takes more than %zu MiB",
                    PIPELINE_DOCUMENT_BYTES_MAX >> 20);
    TRY(file_open(path, FILE_EXCLUSIVE, &fd, e));
    TRY(put_head(fd, PIPELINE_PACK_DOCUMENT, text.n, &at, e));
    TRY(file_pwrite_all(fd, text.p, text.n, at, e));
    TRY(put_end(fd, text.n, &at, e));
    TRY(put_model(fd, model, &at, e));
    TRY(file_pwrite_all(fd, zeros, sizeof(zeros), at, e));
    return file_sync(fd, e);
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* The file of that name whose header is at *at, which then stands at its bytes. */
static NODISCARD int need_file(int fd, const char *name, uint64_t bytes_max, uint64_t *at,
                               uint64_t *ret_bytes, struct err *e)
{
    struct ustar_entry entry = {.bytes = 0};
    char block[USTAR_BLOCK];
    uint64_t end;
    size_t n;

    TRY(file_size(fd, &end, e));
    TRY(file_pread(fd, block, sizeof(block), *at, &n, e));
    if (n != sizeof(block) || ustar_read(block, &entry) != USTAR_OK ||
        strcmp(entry.name, name) != 0)
        return FAIL(e, INVALID_ARGUMENT,
                    "it is no model with a pipeline: no file '%s' at byte %llu", name,
                    (unsigned long long)*at);
    *at += USTAR_BLOCK;
    if (entry.bytes > bytes_max || entry.bytes > end - *at)
        return FAIL(e, INVALID_ARGUMENT, "the pack ends within '%s', or that is too large", name);
    *ret_bytes = entry.bytes;
    return 0;
}

int pipeline_pack_read(const char *path, struct arena *a, struct json **ret_document,
                       uint64_t *ret_at, uint64_t *ret_bytes, struct err *e)
{
    AUTO(file_closep) int fd = -1;
    uint64_t at = 0, bytes;
    char *text;
    size_t n;

    TRY(file_open(path, FILE_READ, &fd, e));
    TRY(need_file(fd, PIPELINE_PACK_DOCUMENT, PIPELINE_DOCUMENT_BYTES_MAX, &at, &bytes, e));
    text = arena_alloc(a, bytes + 1);
    if (!text)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the pipeline of %s", path);
    TRY(file_pread(fd, text, bytes, at, &n, e));
    if (n != bytes)
        return FAIL(e, DATA_LOSS, "%s became shorter while it was read", path);
    if (json_parse((str){text, n}, a, ret_document, e))
        return err_context(e, PIPELINE_PACK_DOCUMENT);
    at += ustar_padded(bytes);
    TRY(need_file(fd, PIPELINE_PACK_MODEL, RUNTIME_MODEL_BYTES_MAX, &at, ret_bytes, e));
    *ret_at = at;
    return 0;
}
