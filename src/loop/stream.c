/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/stream.h"

#include "base/time.h"
#include "loop/poll.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

bool poll_one(int fd, short events, int64_t deadline_ns)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (;;) {
        int64_t left_ns = deadline_ns == INT64_MAX ? -1 : MAX(deadline_ns - time_mono_ns(), 0);
        struct timespec ts = {.tv_sec = left_ns / NS_PER_S, .tv_nsec = left_ns % NS_PER_S};
        int n = ppoll(&p, 1, left_ns < 0 ? NULL : &ts, NULL);

        if (n > 0)
            return true;
        ASSERT(n == 0 || errno == EINTR || errno == ENOMEM);
        if (n == 0)
            return false;
    }
}

/* send without SIGPIPE; pipes have no send. */
static ssize_t write_some(int fd, const void *p, size_t n)
{
    ssize_t done = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

    return done < 0 && errno == ENOTSOCK ? write(fd, p, n) : done;
}

int stream_write_all(int fd, const void *p, size_t n, int64_t deadline_ns, struct err *e)
{
    const char *at = p;

    while (n) {
        ssize_t done = write_some(fd, at, n);

        if (done >= 0) {
            at += done;
            n -= (size_t)done;
        } else if (errno == EAGAIN) {
            if (!poll_one(fd, POLLOUT, deadline_ns))
                return FAIL(e, DEADLINE_EXCEEDED, "the peer did not take our bytes in time");
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return FAIL(e, UNAVAILABLE, "the peer closed the connection while we wrote");
        } else if (errno != EINTR) {
            return FAIL_ERRNO(e, "writing to a connection");
        }
    }
    return 0;
}

int stream_read(int fd, void *p, size_t n, int64_t deadline_ns, size_t *ret_n, struct err *e)
{
    ASSERT(n > 0);
    for (;;) {
        ssize_t got;

        if (!poll_one(fd, POLLIN, deadline_ns))
            return FAIL(e, DEADLINE_EXCEEDED, "the peer did not answer in time");
        got = read(fd, p, n);
        if (got >= 0) {
            *ret_n = (size_t)got;
            return 0;
        }
        if (errno == ECONNRESET)
            return FAIL(e, UNAVAILABLE, "the peer broke the connection off");
        if (errno != EINTR && errno != EAGAIN)
            return FAIL_ERRNO(e, "reading from a connection");
    }
}

int stream_read_all(int fd, void *p, size_t n, int64_t deadline_ns, struct err *e)
{
    char *at = p;

    while (n) {
        size_t got;

        TRY(stream_read(fd, at, n, deadline_ns, &got, e));
        if (got == 0)
            return FAIL(e, UNAVAILABLE, "the peer closed the connection, %zu bytes missing", n);
        at += got;
        n -= got;
    }
    return 0;
}
