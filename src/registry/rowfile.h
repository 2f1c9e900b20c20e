/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows in a file, between the registry and the probe: a header, float64 numbers row by row, and a
 * JSON text that describes the columns. Little-endian.
 *
 *   0  "WEIRROWS"   8  u32 version, 1    12  u32 columns   16  u64 rows
 *   24 u64 bytes of the JSON text, which stands behind the numbers        40  the numbers
 *
 * Private to registry/.
 */
#pragma once

#include "base/json.h"

#define ROWFILE_TAIL_BYTES_MAX ((size_t)256 << 20)

struct rowfile {
    int fd; /* owned */
    uint32_t columns;
    uint64_t rows;
    struct json *tail; /* of the arena given to rowfile_open */
};

NODISCARD int rowfile_create(const char *path, uint32_t columns, uint64_t rows, struct rowfile *ret,
                             struct err *e);
NODISCARD int rowfile_put(struct rowfile *f, uint64_t row, uint64_t count, const double *numbers,
                          struct err *e);
NODISCARD int rowfile_finish(struct rowfile *f, const struct json *tail, struct err *e);
/* Everything that the file says of its own size is held against the size that it has. */
NODISCARD int rowfile_open(const char *path, struct arena *a, struct rowfile *ret, struct err *e);
NODISCARD int rowfile_get(const struct rowfile *f, uint64_t row, uint64_t count,
                          double *ret_numbers, struct err *e);
void rowfile_done(struct rowfile *f); /* AUTO; a new one has fd -1 */
