/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Headers of POSIX ustar archives (IEEE 1003.1, pax, "ustar Interchange Format"), plain files only.
 * What an archive may hold, and what its names may be, is the reader's to judge: a name that comes
 * out of here is any text.
 */
#pragma once

#include "base/str.h"

#define USTAR_BLOCK 512u
#define USTAR_NAME_SIZE 257 /* prefix, '/', name, and the NUL */

struct ustar_entry {
    char name[USTAR_NAME_SIZE];
    uint32_t mode; /* permission bits */
    uint64_t bytes;
    uint64_t mtime_s;
};

enum ustar_verdict {
    USTAR_OK,
    USTAR_END,     /* a block of zeros */
    USTAR_DAMAGED, /* its sum is not that of its bytes, or a number is none */
    USTAR_FOREIGN, /* not ustar, or no plain file: a folder, a link, a device, an extension */
};

/* False when the name does not fit: longer than 100 bytes and without a '/' where it could be cut.
 * Equal entries give equal bytes; owner and group are 0. */
NODISCARD bool ustar_write(const struct ustar_entry *entry, char ret_block[USTAR_BLOCK]);
enum ustar_verdict ustar_read(const char block[USTAR_BLOCK], struct ustar_entry *ret);
/* The size of a file in the archive, rounded up to whole blocks. */
static inline uint64_t ustar_padded(uint64_t bytes)
{
    return (bytes + USTAR_BLOCK - 1) / USTAR_BLOCK * USTAR_BLOCK;
}
/* True when the first file of the archive that begins like this has that name. */
bool ustar_begins(str head, const char *name);
