/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engines that are opened on first use instead of linked: DuckDB, ONNX Runtime, XGBoost. This
 * is the one place that knows where they lie. The first that opens is taken of
 *
 *   1. $WEIR_DEPS_LIB, a folder
 *   2. ../lib and lib beside the folder of the program (an installed tree; an unpacked archive)
 *   3. the folder that scripts/bootstrap filled for this build
 *   4. the system's library path
 *
 * A library is never closed again: its threads and globals would not stand it. Any thread.
 */
#pragma once

#include "base/arena.h"

/* Opens the first of the NULL-terminated file names ("libduckdb.so"), each looked for in all
 * places. `what` is its name for people ("DuckDB"). UNAVAILABLE when there is none: the message
 * holds the folders that were tried or, when a file was there but did not open, why it did not. */
NODISCARD int library_open(const char *what, const char *const *names, void **ret_library,
                           struct err *e);

/* The address of a function or an object; NULL when the library has none of that name. Store it
 * through *(void **), since C knows no conversion from void * to a pointer to a function. */
void *library_symbol(void *library, const char *name);

/* "WEIR_DEPS_LIB=folder", for the environment of a child that is to find the same libraries; NULL
 * when this process was not told of any. */
const char *library_env(struct arena *a);
