/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/pass.h"

#include "base/time.h"
#include "loop/poll.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

union control { /* aligned as the kernel wants it */
    struct cmsghdr head;
    char bytes[CMSG_SPACE(PASS_FDS_MAX * sizeof(int))];
};

int pass_pair(int ret_ends[2], struct err *e)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_ends) < 0)
        return FAIL_ERRNO(e, "making a pair of sockets");
    return 0;
}

int pass_send(int end, str text, const int *fds, size_t n, struct err *e)
{
    struct iovec part = {(void *)(uintptr_t)text.p, text.n};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    union control control = {0};
    ssize_t sent;

    ASSERT(text.n && text.n <= PASS_BYTES_MAX && n <= PASS_FDS_MAX);
    if (n) {
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE(n * sizeof(int));
        control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(n * sizeof(int)),
                                        .cmsg_level = SOL_SOCKET,
                                        .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), fds, n * sizeof(int));
    }
    do
        sent = sendmsg(end, &m, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? FAIL(e, UNAVAILABLE, "passing descriptors: %s", strerror(errno)) : 0;
}

static void take_fds(struct msghdr *m, struct pass_message *ret)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        ASSERT(n <= PASS_FDS_MAX - ret->fd_count); /* there was room for no more */
        memcpy(ret->fds + ret->fd_count, CMSG_DATA(c), n * sizeof(int));
        ret->fd_count += n;
    }
}

int pass_receive(int end, int64_t deadline_ns, struct pass_message *ret, struct err *e)
{
    struct iovec part = {ret->bytes, sizeof(ret->bytes)};
    union control control;
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    ssize_t n;

    ret->fd_count = 0;
    if (deadline_ns && !poll_one(end, POLLIN, deadline_ns))
        return FAIL(e, UNAVAILABLE, "no message came in time");
    do
        n = recvmsg(end, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == ECONNRESET || errno == EPIPE))
        n = 0;
    if (n < 0)
        return FAIL(e, UNAVAILABLE, "receiving descriptors: %s", strerror(errno));
    take_fds(&m, ret);
    ret->text = (str){ret->bytes, (size_t)n};
    if (!(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return 0;
    while (ret->fd_count)
        close(ret->fds[--ret->fd_count]);
    return FAIL(e, DATA_LOSS, "a message with descriptors was cut");
}
