/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual file system under SQLite: the platform's own, behind the file seam of base/. */
#pragma once

#include "base/err.h"

#define SQLITE_VFS_NAME "weir"

/* Registers it once for the process. */
NODISCARD int sqlite_vfs_register(struct err *e);
