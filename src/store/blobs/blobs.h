/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blobs: files named by the SHA-256 of their content (model files, plan parts, profiles).
 *
 * `<dir>/ab/cdef…` holds the bytes whose hash begins with abcdef. A blob is written under a
 * temporary name, synced, and renamed into place, so that a name that exists is whole; putting the
 * same bytes again does nothing. A name is 64 lower-case hex digits and nothing else: no other text
 * can become a path.
 *
 * What is read is verified: blobs_get() and blobs_path() hash the bytes and refuse a mismatch with
 * DATA_LOSS. Any number of processes may put and get at once, without locks.
 */
#pragma once

#include "base/arena.h"
#include "base/hash.h"

#define BLOB_HASH_SIZE SHA256_HEX_SIZE

struct blobs;

/* Makes the folder if it is missing. The handle is immutable and may be used by any thread. */
NODISCARD int blobs_open(const char *dir, struct blobs **ret_blobs, struct err *e);
void blobs_close(struct blobs *b); /* accepts NULL */
DEFINE_AUTO_PTR(struct blobs, blobs_close)

/* Stores bytes; ret_hash is their name. */
NODISCARD int blobs_put(struct blobs *b, str bytes, char ret_hash[BLOB_HASH_SIZE], struct err *e);
/* Stores a copy of a file, streamed in 1 MiB pieces; the file must not change meanwhile. */
NODISCARD int blobs_put_file(struct blobs *b, const char *path, char ret_hash[BLOB_HASH_SIZE],
                             struct err *e);

/* All bytes of a blob, verified, into the arena. NOT_FOUND; RESOURCE_EXHAUSTED above max_bytes;
 * DATA_LOSS when the bytes do not have this hash; INVALID_ARGUMENT when `hash` is no hash. */
NODISCARD int blobs_get(struct blobs *b, str hash, size_t max_bytes, struct arena *a,
                        str *ret_bytes, struct err *e);
/* The path of a blob, for libraries that open files themselves; verified each time it is asked. */
NODISCARD int blobs_path(struct blobs *b, str hash, struct arena *a, char **ret_path,
                         struct err *e);
bool blobs_has(struct blobs *b, str hash); /* present; not verified */
NODISCARD int blobs_size(struct blobs *b, str hash, uint64_t *ret_bytes, struct err *e);

/* The names of all blobs, sorted. */
NODISCARD int blobs_list(struct blobs *b, struct arena *a, str **ret_hashes, size_t *ret_n,
                         struct err *e);

/* Removes the blobs that `keep` does not want and that are older than min_age_s (a blob is put
 * before the thing that names it: young ones must live), and temporary files a day old. The only
 * way to remove. */
struct blobs_gc {
    uint64_t kept, removed, removed_bytes;
};
NODISCARD int blobs_collect(struct blobs *b, bool (*keep)(void *ctx, str hash), void *ctx,
                            int64_t min_age_s, struct blobs_gc *ret, struct err *e);
