/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors passed from process to process: SCM_RIGHTS over a pair of unix sockets that keep
 * messages apart. How listening sockets outlive the process that accepts on them.
 */
#pragma once

#include "base/err.h"
#include "base/str.h"

#define PASS_FDS_MAX 64u
#define PASS_BYTES_MAX 512u

/* Two connected ends, close-on-exec, non-blocking. */
NODISCARD int pass_pair(int ret_ends[2], struct err *e);
/* Sends one message of at most PASS_BYTES_MAX with copies of n descriptors. UNAVAILABLE when the
 * other end is gone or takes nothing. */
NODISCARD int pass_send(int end, str text, const int *fds, size_t n, struct err *e);

struct pass_message {
    char bytes[PASS_BYTES_MAX];
    str text;              /* in `bytes`; empty: the other end is gone */
    int fds[PASS_FDS_MAX]; /* the receiver's from now on, close-on-exec */
    size_t fd_count;
};
/* Takes the next message, waiting until deadline_ns (monotonic; 0: not at all). UNAVAILABLE when
 * there is none; DATA_LOSS when it was cut (its descriptors are closed). */
NODISCARD int pass_receive(int end, int64_t deadline_ns, struct pass_message *ret, struct err *e);
