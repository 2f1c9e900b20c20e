/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Outgoing connections, and blocking reads and writes with a deadline on a connected descriptor
 * (for the command line and for worker threads; loops use loop_fd).
 *
 * Deadlines are on the monotonic clock of base/time.h; INT64_MAX = none. Every descriptor made here
 * is non-blocking and close-on-exec, with TCP_NODELAY.
 */
#pragma once

#include "loop/addr.h"

/* Blocks until connected. UNAVAILABLE names the address and what to check; DEADLINE_EXCEEDED. */
NODISCARD int dial(const struct addr *a, int64_t deadline_ns, int *ret_fd, struct err *e);

/* Starts connecting. When *ret_pending, wait for EPOLLOUT and then ask dial_finish. */
NODISCARD int dial_start(const struct addr *a, int *ret_fd, bool *ret_pending, struct err *e);
NODISCARD int dial_finish(int fd, const struct addr *a, struct err *e);
