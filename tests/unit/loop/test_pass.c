/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that travel between processes, and listening sockets that outlive who accepts. */
#include "check.h"

#include "base/time.h"
#include "loop/child.h"
#include "loop/listen.h"
#include "loop/pass.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void descriptors_arrive_with_their_text(void)
{
    struct pass_message m;
    int ends[2], pipe_ends[2];
    char byte = 0;
    struct err e;

    NEED_OK(pass_pair(ends, &e), &e);
    NEED(pipe2(pipe_ends, O_CLOEXEC) == 0);
    NEED_OK(pass_send(ends[0], S("two ends"), pipe_ends, 2, &e), &e);
    NEED_OK(pass_send(ends[0], S("none"), NULL, 0, &e), &e);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    NEED_OK(pass_receive(ends[1], 0, &m, &e), &e);
    CHECK_STR(m.text, S("two ends"));
    NEED(m.fd_count == 2);
    CHECK(fcntl(m.fds[0], F_GETFD) == FD_CLOEXEC);
    CHECK(write(m.fds[1], "x", 1) == 1 && read(m.fds[0], &byte, 1) == 1 && byte == 'x');
    close(m.fds[0]);
    close(m.fds[1]);
    NEED_OK(pass_receive(ends[1], time_mono_ns() + NS_PER_S, &m, &e), &e);
    CHECK_STR(m.text, S("none"));
    CHECK_INT(m.fd_count, 0);
    CHECK_FAILS(pass_receive(ends[1], 0, &m, &e), UNAVAILABLE, &e, "");
    CHECK_FAILS(pass_receive(ends[1], time_mono_ns() + NS_PER_MS, &m, &e), UNAVAILABLE, &e,
                "in time");
    close(ends[0]);
    NEED_OK(pass_receive(ends[1], 0, &m, &e), &e);
    CHECK_INT(m.text.n, 0); /* the other end is gone */
    CHECK_FAILS(pass_send(ends[1], S("?"), NULL, 0, &e), UNAVAILABLE, &e, "");
    close(ends[1]);
}

/* A message too long for the receiver is no half message. */
static void a_cut_message_is_refused(void)
{
    char long_text[PASS_BYTES_MAX + 1] = "x";
    struct pass_message m;
    int ends[2];
    struct err e;

    NEED_OK(pass_pair(ends, &e), &e);
    NEED(send(ends[0], long_text, sizeof(long_text), 0) == (ssize_t)sizeof(long_text));
    CHECK_FAILS(pass_receive(ends[1], 0, &m, &e), DATA_LOSS, &e, "cut");
    CHECK_INT(m.fd_count, 0);
    close(ends[0]);
    close(ends[1]);
}

/* What waits in the queue of a socket is there for the next one who has a copy of it. */
static void a_queue_outlives_a_listener(void)
{
    struct addr at;
    struct pass_message m;
    int ends[2], fd, client, served;
    struct err e;

    NEED_OK(addr_parse(S("127.0.0.1:0"), &at, &e), &e);
    NEED_OK(listen_open(&at, NULL, &fd, &e), &e);
    NEED_OK(addr_of_socket(fd, &at, &e), &e);
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    NEED(connect(client, &at.any, at.len) == 0);
    NEED_OK(pass_pair(ends, &e), &e);
    NEED_OK(pass_send(ends[0], S("kept"), &fd, 1, &e), &e);
    close(fd);
    close(ends[0]);
    NEED_OK(pass_receive(ends[1], 0, &m, &e), &e);
    NEED(m.fd_count == 1);
    served = accept4(m.fds[0], NULL, NULL, SOCK_CLOEXEC);
    CHECK(served >= 0 && write(served, "y", 1) == 1);
    close(served);
    close(client);
    close(m.fds[0]);
    close(ends[1]);
}

/* A process that becomes another one keeps its children, and only its own can be taken over. */
static void a_child_is_adopted(void)
{
    static const char *const argv[] = {"/bin/sh", "-c", "exit 7", NULL};
    struct child_spec spec = {.argv = argv};
    struct child first, adopted;
    struct child_exit x;
    struct err e;

    NEED_OK(child_start(&spec, &first, &e), &e);
    NEED_OK(child_adopt(first.pid, &adopted, &e), &e);
    CHECK(child_wait_until(&adopted, time_mono_ns() + 10 * NS_PER_S, &x));
    CHECK_INT(x.status, 7);
    close(first.pidfd);
    CHECK_FAILS(child_adopt(getppid(), &adopted, &e), NOT_FOUND, &e, "no child");
    CHECK_FAILS(child_adopt(0, &adopted, &e), NOT_FOUND, &e, "no child");
}

RUN_TESTS(T(descriptors_arrive_with_their_text), T(a_cut_message_is_refused),
          T(a_queue_outlives_a_listener), T(a_child_is_adopted))
