/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bundle: one version in one file, to carry from a registry to another. It is a POSIX ustar
 * archive (`tar tf` lists it) of the parts in bundle_parts.def and nothing else:
 *
 *   manifest.json  {"format":1,"kind":"weir.bundle","model","version","created","platform",
 *                   "signature":{},"meta":{},"rollback_target","parts":{"<name>":{"bytes",
 *                   "sha256"}}}, canonical
 *   model.onnx, source, profile.json, golden.json, card.md
 *
 * Equal versions give equal bytes. The manifest names the hash of every other part, so the hash of
 * the manifest, the id of the bundle, stands for all of it. A bundle is not signed: who must know
 * where it came from compares the id, which writing and importing both tell.
 */
#pragma once

#include "base/json.h"
#include "store/blobs/blobs.h"

enum bundle_part {
#define PART(id, name, bytes_max, required, help) BUNDLE_##id,
#include "registry/bundle_parts.def"
#undef PART
    BUNDLE_PART_COUNT
};
const char *bundle_part_name(enum bundle_part part);

/* What goes in. `version` is a version as GET /api/v1/models/{m}/versions/{v} answers it ("model",
 * "version", "artifact", "created_ns", "meta"); card: registry_card, or NULL. */
struct bundle_input {
    struct blobs *blobs;
    const struct json *version, *card;
};
/* Writes `path` (replaced when it is there; never left half written) and gives the id. DATA_LOSS or
 * NOT_FOUND when a blob is damaged or gone. Blocks. */
NODISCARD int bundle_write(const struct bundle_input *in, const char *path,
                           char ret_id[SHA256_HEX_SIZE], struct err *e);

struct bundle {
    int fd; /* owned */
    char id[SHA256_HEX_SIZE];
    struct json *manifest; /* of the arena given to bundle_open */
    struct bundle_range {
        bool there;
        uint64_t at, bytes;
    } parts[BUNDLE_PART_COUNT];
};
/* Reads and verifies everything: the form, the sizes, the hash of each part. INVALID_ARGUMENT names
 * the part that is wrong. Any bytes are safe to give. */
NODISCARD int bundle_open(const char *path, struct arena *a, struct bundle *ret, struct err *e);
void bundle_done(struct bundle *b); /* AUTO; a new one has fd -1 */
/* The bytes of a part, which must be there, into the arena. Not for models. */
NODISCARD int bundle_read(const struct bundle *b, enum bundle_part part, struct arena *a,
                          str *ret_bytes, struct err *e);
/* A part, which must be there, as a new file. */
NODISCARD int bundle_extract(const struct bundle *b, enum bundle_part part, const char *path,
                             struct err *e);
/* True when the file begins like a bundle: told by its first 512 bytes. */
bool bundle_is(str head);
