/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocking transfer with a deadline on a connected socket or pipe (for the command line and for
 * worker threads). Deadlines are on the monotonic clock; INT64_MAX = none.
 */
#pragma once

#include "base/err.h"

/* Writes all n bytes. UNAVAILABLE when the peer is gone, DEADLINE_EXCEEDED when time ran out. */
NODISCARD int stream_write_all(int fd, const void *p, size_t n, int64_t deadline_ns, struct err *e);
/* Reads what there is, at least one byte; *ret_n == 0 only at the end of the stream. */
NODISCARD int stream_read(int fd, void *p, size_t n, int64_t deadline_ns, size_t *ret_n,
                          struct err *e);
/* Reads exactly n bytes; UNAVAILABLE when the stream ends before. */
NODISCARD int stream_read_all(int fd, void *p, size_t n, int64_t deadline_ns, struct err *e);
