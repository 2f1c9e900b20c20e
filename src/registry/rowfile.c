/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/rowfile.h"

#include "base/files.h"
#include "base/mem.h"

#include <assert.h>

#define MAGIC "WEIRROWS"
#define VERSION 1u

struct head {
    char magic[8];
    uint32_t version, columns;
    uint64_t rows, tail_bytes, reserved;
};
static_assert(sizeof(struct head) == 40, "the header is 40 bytes");

static uint64_t body_bytes(const struct rowfile *f)
{
    return f->rows * f->columns * sizeof(double);
}

void rowfile_done(struct rowfile *f)
{
    file_close(f->fd);
    f->fd = -1;
}

int rowfile_create(const char *path, uint32_t columns, uint64_t rows, struct rowfile *ret,
                   struct err *e)
{
    struct rowfile f = {.fd = -1, .columns = columns, .rows = rows};

    TRY(file_open(path, FILE_EXCLUSIVE, &f.fd, e));
    *ret = f;
    return 0;
}

int rowfile_put(struct rowfile *f, uint64_t row, uint64_t count, const double *numbers,
                struct err *e)
{
    size_t stride = f->columns * sizeof(double);

    ASSERT(row + count <= f->rows);
    return file_pwrite_all(f->fd, numbers, count * stride, sizeof(struct head) + row * stride, e);
}

int rowfile_finish(struct rowfile *f, const struct json *tail, struct err *e)
{
    struct head h = {.version = VERSION, .columns = f->columns, .rows = f->rows};
    AUTO(buf_done) struct buf text = {0};

    buf_init(&text, ROWFILE_TAIL_BYTES_MAX);
    json_write(&text, tail);
    if (text.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the texts of the rows take more than %zu MiB",
                    ROWFILE_TAIL_BYTES_MAX >> 20);
    memcpy(h.magic, MAGIC, sizeof(h.magic));
    h.tail_bytes = text.n;
    TRY(file_pwrite_all(f->fd, text.p, text.n, sizeof(h) + body_bytes(f), e));
    return file_pwrite_all(f->fd, &h, sizeof(h), 0, e);
}

static NODISCARD int read_tail(struct rowfile *f, uint64_t bytes, struct arena *a, struct err *e)
{
    char *text = arena_alloc(a, bytes);
    size_t n;

    TRY(file_pread(f->fd, text, bytes, sizeof(struct head) + body_bytes(f), &n, e));
    return json_parse((str){text, n}, a, &f->tail, e);
}

int rowfile_open(const char *path, struct arena *a, struct rowfile *ret, struct err *e)
{
    AUTO(rowfile_done) struct rowfile f = {.fd = -1};
    uint64_t bytes, body;
    struct head h;
    size_t n;

    TRY(file_open(path, FILE_READ, &f.fd, e));
    TRY(file_size(f.fd, &bytes, e));
    TRY(file_pread(f.fd, &h, sizeof(h), 0, &n, e));
    if (n != sizeof(h) || memcmp(h.magic, MAGIC, sizeof(h.magic)) != 0 || h.version != VERSION)
        return FAIL(e, INVALID_ARGUMENT, "%s is not a file of rows", path);
    if (__builtin_mul_overflow(h.rows, (uint64_t)h.columns * sizeof(double), &body) ||
        h.tail_bytes > ROWFILE_TAIL_BYTES_MAX || body > bytes ||
        sizeof(h) + body + h.tail_bytes != bytes)
        return FAIL(e, INVALID_ARGUMENT, "%s: %llu rows of %u columns do not fit its size", path,
                    (unsigned long long)h.rows, h.columns);
    f.columns = h.columns;
    f.rows = h.rows;
    TRY(read_tail(&f, h.tail_bytes, a, e));
    *ret = f;
    f.fd = -1;
    return 0;
}

int rowfile_get(const struct rowfile *f, uint64_t row, uint64_t count, double *ret_numbers,
                struct err *e)
{
    size_t stride = f->columns * sizeof(double), n;

    ASSERT(row + count <= f->rows);
    TRY(file_pread(f->fd, ret_numbers, count * stride, sizeof(struct head) + row * stride, &n, e));
    if (n != count * stride)
        return FAIL(e, DATA_LOSS, "a file of rows became shorter while it was read");
    return 0;
}
