/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a pack, as they are and with the sums of the headers put right. Whatever it does is
 * done below the folder that it is unpacked into: beside it nothing appears.
 */
#include "fuzz.h"

#include "base/files.h"
#include "base/mem.h"
#include "serve/runtime/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define BLOCK 512u

static void unpack(const uint8_t *data, size_t size)
{
    AUTO(file_closep) int fd = memfd_create("pack", MFD_CLOEXEC);
    AUTO(arena_done) struct arena a = {0};
    char folder[] = "/dev/shm/weir-fuzz-XXXXXX", path[64];
    const char *inner;
    struct err e;
    str manifest, *names;
    size_t n;

    arena_init(&a, 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd < 0 || file_pwrite_all(fd, data, size, 0, &e) || !mkdtemp(folder))
        abort();
    inner = path_join(&a, folder, "inner");
    if (!pack_manifest(path, &a, &manifest, &e) && manifest.n > PACK_MANIFEST_BYTES_MAX)
        abort();
    if (file_make_dirs(inner, &e))
        abort();
    (void)!pack_unpack(path, inner, &e);
    if (file_list(folder, &a, &names, &n, &e) || n != 1)
        abort();
    if (file_remove_tree(folder, &e))
        abort();
}

/* The sum of what may be a header. */
static void mend(uint8_t *head)
{
    uint32_t sum = 0;
    char text[16];

    memset(head + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++)
        sum += head[i];
    snprintf(text, sizeof(text), "%06o", sum);
    memcpy(head + 148, text, 7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(mem_freep) uint8_t *copy = mem_alloc(size + 1);

    unpack(data, size);
    memcpy(copy, data, size);
    for (size_t at = 0; at + BLOCK <= size; at += BLOCK)
        if (memcmp(copy + at + 257, "ustar", 5) == 0)
            mend(copy + at);
    unpack(copy, size);
    return 0;
}
