/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for one descriptor, for the blocking functions of this folder. */
#pragma once

#include "base/base.h"

/* Waits for `events` (POLLIN, POLLOUT) on fd, or an error on it, until deadline_ns on the monotonic
 * clock (INT64_MAX = for ever). False when time ran out. */
bool poll_one(int fd, short events, int64_t deadline_ns);
