/* SPDX-License-Identifier: Apache-2.0 */
#include "server/link.h"

#include <errno.h>
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
    return type >= LINK_HELLO && type <= LINK_SEAL;
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
            broken(k, n == 0 ? "the peer went away" : "the connection broke");
            return;
        }
        k->in.n += (size_t)n;
        if (!deliver(k))
            return;
    }
}

static void flush(struct link *k)
{
    while (k->sent < k->out.n) {
        ssize_t n = send(k->watch.fd, k->out.p + k->sent, k->out.n - k->sent, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            broken(k, "the connection broke");
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
    if (link_is_open(k) && events & ~(uint32_t)EPOLLOUT)
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
    return loop_fd_add(loop, &k->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, e);
}

void link_send(struct link *k, enum link_type type, str payload)
{
    uint32_t n = (uint32_t)payload.n + 1;
    char head[HEAD_BYTES];

    if (!link_is_open(k))
        return;
    ASSERT(payload.n < LINK_FRAME_MAX);
    memcpy(head, &n, sizeof(n));
    head[4] = (char)type;
    if (k->sent) {
        buf_consume(&k->out, k->sent);
        k->sent = 0;
    }
    if (!buf_reserve(&k->out, HEAD_BYTES + payload.n)) {
        broken(k, "the peer does not read: its queue is full");
        return;
    }
    buf_add(&k->out, head, sizeof(head));
    buf_add_str(&k->out, payload);
    flush(k);
}
