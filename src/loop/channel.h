/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An outgoing connection for threads that block, in the clear or over TLS: transfer with a
 * deadline, which another thread can end. stream.h is the same for a plain descriptor that nobody
 * else knows of.
 *
 * Deadlines are on the monotonic clock; INT64_MAX = none. One thread uses a channel; wake_fd is how
 * others reach it: once it is readable, whoever waits gets CANCELLED.
 */
#pragma once

#include "base/buf.h"
#include "loop/addr.h"
#include "loop/tls.h"

struct channel {
    int fd;          /* owned; -1 = closed */
    struct tls *tls; /* owned; NULL: in the clear */
    int wake_fd;     /* borrowed; -1 = nobody ends it */
};

/* Dials, and shakes hands when there is a context. `host` is whom the certificate must be for.
 * UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED. The channel is closed before and after a failure. */
NODISCARD int channel_open(struct channel *ch, const struct addr *a, struct tls_context *tls,
                           const char *host, int64_t deadline_ns, struct err *e);
void channel_close(struct channel *ch); /* also when it is closed already */

/* One attempt, without waiting. 0 bytes: it would have to wait. A read at the end of the stream
 * gives *ret_end. UNAVAILABLE: the peer is gone, or broke TLS. */
NODISCARD int channel_try_read(struct channel *ch, void *p, size_t n, size_t *ret_n, bool *ret_end,
                               struct err *e);
NODISCARD int channel_try_write(struct channel *ch, const void *p, size_t n, size_t *ret_n,
                                struct err *e);
/* Waits until one of what is wished for is worth an attempt. DEADLINE_EXCEEDED, CANCELLED. */
enum channel_wish { CHANNEL_READ = 1, CHANNEL_WRITE = 2, CHANNEL_BOTH = 3 };
NODISCARD int channel_wait(struct channel *ch, enum channel_wish wish, int64_t deadline_ns,
                           struct err *e);

/* As those of stream.h. */
NODISCARD int channel_write_all(struct channel *ch, const void *p, size_t n, int64_t deadline_ns,
                                struct err *e);
/* A head and a body behind it: one packet, or TLS record, when the body is small and `head` has
 * room for it. */
NODISCARD int channel_write_both(struct channel *ch, struct buf *head, str body,
                                 int64_t deadline_ns, struct err *e);
NODISCARD int channel_read(struct channel *ch, void *p, size_t n, int64_t deadline_ns,
                           size_t *ret_n, struct err *e);
