/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS may hold bytes that it has read from the socket and nobody has asked for yet, so every wait
 * is preceded by an attempt, never the other way round.
 */
#include "loop/channel.h"

#include "base/time.h"
#include "loop/dial.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define TOGETHER_BYTES ((size_t)32 << 10)

int channel_open(struct channel *ch, const struct addr *a, struct tls_context *tls,
                 const char *host, int64_t deadline_ns, struct err *e)
{
    int rc;

    channel_close(ch);
    TRY(dial(a, deadline_ns, &ch->fd, e));
    if (!tls)
        return 0;
    rc = tls_connect(tls, ch->fd, host, deadline_ns, &ch->tls, e);
    if (rc)
        channel_close(ch);
    return rc;
}

void channel_close(struct channel *ch)
{
    if (ch->tls)
        tls_close(ch->tls);
    tls_free(ch->tls);
    ch->tls = NULL;
    if (ch->fd >= 0)
        close(ch->fd);
    ch->fd = -1;
}

static NODISCARD int failed(const struct channel *ch, const char *doing, struct err *e)
{
    const char *why;

    switch (errno) {
    case EPIPE:
        return FAIL(e, UNAVAILABLE, "the peer closed the connection while we wrote");
    case ECONNRESET:
        return FAIL(e, UNAVAILABLE, "the peer broke the connection off");
    case EPROTO:
        why = ch->tls ? tls_reason() : "";
        return FAIL(e, UNAVAILABLE, "the peer broke TLS: %s", *why ? why : "no such record");
    default:
        return FAIL_ERRNO(e, "%s a connection", doing);
    }
}

static bool must_wait(void)
{
    return errno == EAGAIN || errno == EINTR;
}

int channel_try_read(struct channel *ch, void *p, size_t n, size_t *ret_n, bool *ret_end,
                     struct err *e)
{
    ssize_t got = ch->tls ? tls_recv(ch->tls, p, n) : recv(ch->fd, p, n, MSG_DONTWAIT);

    ASSERT(n > 0);
    *ret_n = got > 0 ? (size_t)got : 0;
    *ret_end = got == 0;
    return got >= 0 || must_wait() ? 0 : failed(ch, "reading from", e);
}

int channel_try_write(struct channel *ch, const void *p, size_t n, size_t *ret_n, struct err *e)
{
    ssize_t put =
        ch->tls ? tls_send(ch->tls, p, n) : send(ch->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

    *ret_n = put > 0 ? (size_t)put : 0;
    return put >= 0 || must_wait() ? 0 : failed(ch, "writing to", e);
}

int channel_wait(struct channel *ch, enum channel_wish wish, int64_t deadline_ns, struct err *e)
{
    struct pollfd p[2] = {{.fd = ch->fd}, {.fd = ch->wake_fd, .events = POLLIN}};

    if (wish & CHANNEL_READ)
        p[0].events |= POLLIN;
    if (wish & CHANNEL_WRITE || (ch->tls && tls_wants_write(ch->tls)))
        p[0].events |= POLLOUT;
    for (;;) {
        int64_t left_ns = deadline_ns == INT64_MAX ? 0 : MAX(deadline_ns - time_mono_ns(), 0);
        struct timespec ts = {.tv_sec = left_ns / NS_PER_S, .tv_nsec = left_ns % NS_PER_S};
        int n = ppoll(p, 2, deadline_ns == INT64_MAX ? NULL : &ts, NULL);

        ASSERT(n >= 0 || errno == EINTR || errno == ENOMEM);
        if (n > 0 && p[1].revents)
            return FAIL(e, CANCELLED, "it was cancelled");
        if (n > 0)
            return 0;
        if (n == 0)
            return FAIL(e, DEADLINE_EXCEEDED, "the peer did not %s in time",
                        wish == CHANNEL_WRITE ? "take our bytes" : "answer");
    }
}

int channel_write_all(struct channel *ch, const void *p, size_t n, int64_t deadline_ns,
                      struct err *e)
{
    const char *at = p;

    while (n) {
        size_t put;

        TRY(channel_try_write(ch, at, n, &put, e));
        at += put;
        n -= put;
        if (!put)
            TRY(channel_wait(ch, CHANNEL_WRITE, deadline_ns, e));
    }
    return 0;
}

int channel_write_both(struct channel *ch, struct buf *head, str body, int64_t deadline_ns,
                       struct err *e)
{
    bool small = body.n <= TOGETHER_BYTES && body.n <= head->max_bytes - head->n;

    if (small)
        buf_add_str(head, body);
    TRY(channel_write_all(ch, head->p, head->n, deadline_ns, e));
    return small ? 0 : channel_write_all(ch, body.p, body.n, deadline_ns, e);
}

int channel_read(struct channel *ch, void *p, size_t n, int64_t deadline_ns, size_t *ret_n,
                 struct err *e)
{
    bool end = false;

    for (;;) {
        TRY(channel_try_read(ch, p, n, ret_n, &end, e));
        if (*ret_n || end)
            return 0;
        TRY(channel_wait(ch, CHANNEL_READ, deadline_ns, e));
    }
}
