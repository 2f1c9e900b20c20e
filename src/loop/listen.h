/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets and the accept loop.
 */
#pragma once

#include "loop/addr.h"
#include "loop/loop.h"

#include <sys/types.h>

struct listen_options {
    int backlog;      /* 0 = 4096 (the kernel cuts it to net.core.somaxconn) */
    bool reuse_port;  /* several sockets share the port, one per loop: SO_REUSEPORT */
    mode_t unix_mode; /* 0 = 0600 */
};

/* Opens a non-blocking listening socket; options may be NULL. TCP sockets have TCP_NODELAY, which
 * accepted connections inherit. A unix socket whose file is left from a dead process is replaced;
 * a file that is not a socket, or a socket somebody answers on, never is.
 * Errors: UNAVAILABLE "address … is in use …" with the fix; PERMISSION_DENIED; INVALID_ARGUMENT. */
NODISCARD int listen_open(const struct addr *a, const struct listen_options *options, int *ret_fd,
                          struct err *e);

/* Opens n sockets on one address, one for each loop, among which the kernel spreads connections;
 * the address is first tried alone, because SO_REUSEPORT would let a second program of the same
 * user join silently. With port 0 all get the port of the first. On failure nothing stays open. */
NODISCARD int listen_open_shared(const struct addr *a, const struct listen_options *options,
                                 size_t n, int *ret_fds, struct err *e);

/* The first n of the listening sockets that whoever started this process opened for it, from
 * descriptor 3 on (systemd's socket activation); made non-blocking and close-on-exec.
 * INVALID_ARGUMENT: one is no listening stream socket. */
NODISCARD int listen_inherit(size_t n, int *ret_fds, struct err *e);

/* The file of a unix socket, by its number (0: none), and its removal if it is still that one: a
 * successor may have put its socket in the same place. */
ino_t listen_file(int fd);
void listen_file_remove(int fd, ino_t file);

struct listener;
/* Gets a connected descriptor (non-blocking, close-on-exec), which it owns from now on. `peer` is
 * valid during the call. */
typedef void (*listener_fn)(struct loop *l, struct listener *li, int fd, const struct addr *peer);

struct listener {
    struct loop_fd watch;
    struct loop_timer pause;
    listener_fn fn;
    uint64_t accepted;
    uint64_t starved; /* times accept failed for want of descriptors or memory */
    ino_t file;       /* of the unix socket; 0 = none */
    bool started;
};

/* Accepts on fd (owned by the listener from success on). Up to 64 connections per turn; when the
 * process runs out of descriptors it stops accepting for 100 ms instead of spinning. */
NODISCARD int listener_start(struct loop *l, struct listener *li, int fd, listener_fn fn,
                             struct err *e);
/* Leaves the file of a unix socket to others, who hold the socket too. */
static inline void listener_keep_file(struct listener *li)
{
    li->file = 0;
}
/* Closes the socket; the file of a unix socket is removed. Accepts one that is not started. */
void listener_stop(struct loop *l, struct listener *li);
