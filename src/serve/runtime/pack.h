/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pack: the folder of a process model in one file, so that it has one content address. A POSIX
 * ustar archive whose first file is the manifest (PACK_MANIFEST, canonical JSON) and whose others
 * are the folder's files in order of their names. Equal folders give equal bytes: times and owners
 * are not kept, of the permissions only whether the file may be executed.
 *
 * Only plain files; no links. Reading trusts nothing: a name that could leave the folder is
 * refused, a file is made only where none is.
 */
#pragma once

#include "base/arena.h"

#define PACK_MANIFEST "weir-process.json"
#define PACK_MANIFEST_BYTES_MAX ((size_t)1 << 20)
#define PACK_FILES_MAX 10000u
#define PACK_BYTES_MAX ((uint64_t)2 << 30)
#define PACK_DEPTH_MAX 16

/* Writes the pack of `folder` as a new file. Left out: the file named `but` in the folder itself,
 * and what Python and git leave behind (__pycache__, .git). INVALID_ARGUMENT for what a pack cannot
 * hold. Blocks. */
NODISCARD int pack_write(const char *folder, const char *but, str manifest, const char *path,
                         struct err *e);
/* The manifest's bytes. INVALID_ARGUMENT when it is no pack. */
NODISCARD int pack_manifest(const char *path, struct arena *a, str *ret_manifest, struct err *e);
/* Makes the files, read-only, below `folder`, which must be empty. Any bytes are safe to give. */
NODISCARD int pack_unpack(const char *path, const char *folder, struct err *e);
/* True when the file begins like a pack: told by its first 512 bytes. */
bool pack_is(str head);
