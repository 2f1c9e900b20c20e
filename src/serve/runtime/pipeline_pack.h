/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model with its pipeline in one file, so that both have one content address: a ustar archive of
 * two files, PIPELINE_PACK_DOCUMENT (canonical JSON: the document of pipeline/pipeline.h, all
 * parameters in it, and "platform", which computes the model) and PIPELINE_PACK_MODEL, the model
 * file as it was. Equal parts give equal bytes.
 */
#pragma once

#include "base/json.h"

#define PIPELINE_PACK_DOCUMENT "weir-pipeline.json"
#define PIPELINE_PACK_MODEL "model"
#define PIPELINE_DOCUMENT_BYTES_MAX ((size_t)64 << 20)

/* Writes the pack as a new file. Blocks. */
NODISCARD int pipeline_pack_write(const struct json *document, const char *model, const char *path,
                                  struct err *e);
/* The document, and where the model's bytes lie. INVALID_ARGUMENT when it is no such pack. */
NODISCARD int pipeline_pack_read(const char *path, struct arena *a, struct json **ret_document,
                                 uint64_t *ret_at, uint64_t *ret_bytes, struct err *e);
