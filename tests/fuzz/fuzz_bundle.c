/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a bundle, as they are and with the sums of the headers put right: refused with an
 * error of the file, or each part can be read whole and has the hash that the manifest names.
 */
#include "fuzz.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/mem.h"
#include "registry/bundle.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define BLOCK 512u

static void read_parts(const struct bundle *b, struct arena *a)
{
    for (int part = 0; part < BUNDLE_PART_COUNT; part++) {
        const struct json *said =
            json_get(json_get(json_get(b->manifest, S("parts")),
                              str_of(bundle_part_name((enum bundle_part)part))),
                     S("sha256"));
        char hash[SHA256_HEX_SIZE];
        struct err e;
        str bytes;

        if (!b->parts[part].there)
            continue;
        if (bundle_read(b, (enum bundle_part)part, a, &bytes, &e))
            abort();
        sha256_hex(bytes, hash);
        if (!str_eqz(part ? json_str_or(said, S("")) : str_of(b->id), hash))
            abort();
    }
}

static void read_all(const uint8_t *data, size_t size)
{
    AUTO(bundle_done) struct bundle b = {.fd = -1};
    AUTO(file_closep) int fd = memfd_create("bundle", MFD_CLOEXEC);
    AUTO(arena_done) struct arena a;
    char path[64];
    struct err e;

    arena_init(&a, 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd < 0 || file_pwrite_all(fd, data, size, 0, &e))
        abort();
    if (!bundle_open(path, &a, &b, &e))
        read_parts(&b, &a);
    else if (e.code != CODE_INVALID_ARGUMENT)
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

    read_all(data, size);
    memcpy(copy, data, size);
    for (size_t at = 0; at + BLOCK <= size; at += BLOCK)
        if (memcmp(copy + at + 257, "ustar", 5) == 0)
            mend(copy + at);
    read_all(copy, size);
    return 0;
}
