/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a file of rows, as they are and with a header whose sizes fit: refused, or every
 * number of it can be read.
 */
#include "fuzz.h"

#include "base/files.h"
#include "base/mem.h"
#include "registry/rowfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static void read_all(const uint8_t *data, size_t size)
{
    AUTO(rowfile_done) struct rowfile f = {.fd = -1};
    AUTO(file_closep) int fd = memfd_create("rows", MFD_CLOEXEC);
    AUTO(mem_freep) double *row = NULL;
    AUTO(arena_done) struct arena a;
    char path[64];
    struct err e;

    arena_init(&a, 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd < 0 || file_pwrite_all(fd, data, size, 0, &e))
        abort();
    if (rowfile_open(path, &a, &f, &e)) {
        if (e.code != CODE_INVALID_ARGUMENT)
            abort();
        return;
    }
    if (!f.columns || !f.rows)
        return;
    /* A row that was accepted lies in the file, so this is no more than `size`. */
    row = mem_zalloc(f.columns * sizeof(*row));
    if (f.columns * sizeof(*row) > size || rowfile_get(&f, 0, 1, row, &e) ||
        rowfile_get(&f, f.rows - 1, 1, row, &e))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(mem_freep) uint8_t *copy = NULL;
    uint64_t rows, tail;
    uint32_t columns;

    read_all(data, size);
    if (size < 40)
        return 0;
    copy = mem_alloc(size);
    memcpy(copy, data, size);
    memcpy(copy, "WEIRROWS\1\0\0", 12);
    columns = 1 + copy[12] % 8u;
    rows = MIN((uint64_t)copy[16], (size - 40) / (columns * 8u));
    tail = size - 40 - rows * columns * 8u;
    memcpy(copy + 12, &columns, 4);
    memcpy(copy + 16, &rows, 8);
    memcpy(copy + 24, &tail, 8);
    read_all(copy, size);
    return 0;
}
