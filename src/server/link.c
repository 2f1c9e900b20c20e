/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames in, frames out. The one thing to keep in mind is who may free the link when: only
 * on_closed, and it is called only from an event of the loop, with nothing of the link in use.
 */
#include "server/link.h"

#include "loop/poll.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_BYTES 5
#define READ_BYTES ((size_t)64 << 10)

void link_close(struct link *k)
{
    if (!link_is_open(k))
        return;
    loop_fd_remove(k->loop, &k->watch);
    close(k->watch.fd);
    k->watch.fd = -1;
    buf_done(&k->in);
    buf_done(&k->out);
    k->sent = 0;
}

static void broken(struct link *k, const char *why)
{
    link_close(k);
    k->on_closed(k, why);
}

static bool is_known(unsigned char type)
{
    switch (type) {
#define LINK(name, number, help) case number:
#include "server/link.def"
#undef LINK
        return true;
    default:
        return false;
    }
}

/* Delivers the frames that are whole. False when the link is gone. */
static bool deliver(struct link *k)
{
    while (k->in.n >= HEAD_BYTES) {
        uint32_t n;
        unsigned char type = (unsigned char)k->in.p[4];

        memcpy(&n, k->in.p, sizeof(n));
        if (n < 1 || n > LINK_FRAME_MAX || !is_known(type)) {
            broken(k, "the peer sent a malformed frame");
            return false;
        }
        if (k->in.n < sizeof(n) + n)
            return true;
        k->on_frame(k, (enum link_type)type, (str){k->in.p + HEAD_BYTES, n - 1});
        if (!link_is_open(k))
            return false;
        buf_consume(&k->in, sizeof(n) + n);
    }
    return true;
}

static void receive(struct link *k)
{
    for (;;) {
        char *to = buf_reserve(&k->in, READ_BYTES);
        ssize_t n = to ? recv(k->watch.fd, to, READ_BYTES, 0) : -1;

        if (n < 0 && to && errno == EINTR)
            continue;
        if (n < 0 && to && errno == EAGAIN)
            return;
        if (n <= 0) {
            broken(k, k->failed ? k->failed
                      : n == 0  ? "the peer went away"
                                : "the connection broke");
            return;
        }
        k->in.n += (size_t)n;
        if (!deliver(k))
            return;
    }
}

/* A send failed: the caller may stand in on_frame, so the end is left to the loop, which will find
 * the connection shut. */
static void fail(struct link *k, const char *why)
{
    if (!k->failed)
        k->failed = why;
    shutdown(k->watch.fd, SHUT_RDWR);
}

static void flush(struct link *k)
{
    while (!k->failed && k->sent < k->out.n) {
        ssize_t n = send(k->watch.fd, k->out.p + k->sent, k->out.n - k->sent, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            fail(k, "the connection broke");
            return;
        }
        k->sent += (size_t)n;
    }
    buf_clear(&k->out);
    k->sent = 0;
}

static void on_event(struct loop *loop, struct loop_fd *w, uint32_t events)
{
    struct link *k = CONTAINER_OF(w, struct link, watch);

    (void)loop;
    if (events & EPOLLOUT)
        flush(k);
    if (events & ~(uint32_t)EPOLLOUT || k->failed)
        receive(k);
}

int link_open(struct link *k, struct loop *loop, int fd, struct err *e)
{
    ASSERT(k->on_frame && k->on_closed);
    k->loop = loop;
    k->watch = (struct loop_fd){.fd = fd, .fn = on_event};
    buf_init(&k->in, LINK_FRAME_MAX + READ_BYTES + HEAD_BYTES);
    buf_init(&k->out, LINK_QUEUE_MAX);
    k->sent = 0;
    k->failed = NULL;
    return loop_fd_add(loop, &k->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, e);
}

void link_send(struct link *k, enum link_type type, str payload)
{
    uint32_t n = (uint32_t)payload.n + 1;
    char head[HEAD_BYTES];

    if (!link_is_open(k) || k->failed)
        return;
    ASSERT(payload.n < LINK_FRAME_MAX);
    memcpy(head, &n, sizeof(n));
    head[4] = (char)type;
    if (k->sent) {
        buf_consume(&k->out, k->sent);
        k->sent = 0;
    }
    if (!buf_reserve(&k->out, HEAD_BYTES + payload.n)) {
        fail(k, "the peer does not read: its queue is full");
        return;
    }
    buf_add(&k->out, head, sizeof(head));
    buf_add_str(&k->out, payload);
    flush(k);
}

void link_finish(struct link *k, int64_t deadline_ns)
{
    while (link_is_open(k) && !k->failed && k->out.n) {
        if (!poll_one(k->watch.fd, POLLOUT, deadline_ns))
            return;
        flush(k);
    }
}
