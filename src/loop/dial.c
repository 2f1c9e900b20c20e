/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/dial.h"

#include "base/time.h"
#include "loop/poll.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

static int dial_failed(const struct addr *a, struct err *e)
{
    char text[ADDR_TEXT_SIZE];
    int saved = errno;

    addr_text(a, text);
    switch (saved) {
    case ECONNREFUSED:
        return FAIL(e, UNAVAILABLE, "nobody listens on %s: is the server running?", text);
    case ENOENT:
        return FAIL(e, UNAVAILABLE, "%s does not exist: is the server running?", text);
    case EAGAIN:
        return FAIL(e, UNAVAILABLE, "%s does not take connections now: its queue is full", text);
    case EACCES:
        return FAIL(e, PERMISSION_DENIED, "no right to connect to %s", text);
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ETIMEDOUT:
        return FAIL(e, UNAVAILABLE, "%s cannot be reached from here", text);
    default:
        errno = saved;
        return FAIL_ERRNO(e, "connecting to %s", text);
    }
}

int dial_start(const struct addr *a, int *ret_fd, bool *ret_pending, struct err *e)
{
    int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1, rc;

    if (fd < 0)
        return FAIL_ERRNO(e, "making a socket");
    if (!addr_is_unix(a))
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, &a->any, a->len) == 0 || errno == EINPROGRESS || errno == EINTR) {
        *ret_pending = !addr_is_unix(a);
        *ret_fd = fd;
        return 0;
    }
    rc = dial_failed(a, e);
    close(fd);
    return rc;
}

int dial_finish(int fd, const struct addr *a, struct err *e)
{
    int error = 0;
    socklen_t n = sizeof(error);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
        return FAIL_ERRNO(e, "asking about a connection");
    errno = error;
    return error ? dial_failed(a, e) : 0;
}

int dial(const struct addr *a, int64_t deadline_ns, int *ret_fd, struct err *e)
{
    bool pending = false;
    int fd, rc;

    TRY(dial_start(a, &fd, &pending, e));
    if (!pending) {
        *ret_fd = fd;
        return 0;
    }
    if (poll_one(fd, POLLOUT, deadline_ns)) {
        rc = dial_finish(fd, a, e);
    } else {
        char text[ADDR_TEXT_SIZE];

        addr_text(a, text);
        rc = FAIL(e, DEADLINE_EXCEEDED, "%s did not answer in time", text);
    }
    if (rc)
        close(fd);
    else
        *ret_fd = fd;
    return rc;
}
