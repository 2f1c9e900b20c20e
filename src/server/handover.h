/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the supervisor and a gateway under it say to each other: messages over a pair of sockets,
 * which carry the listening sockets with them. The supervisor greets every gateway with what it
 * keeps; a gateway that is ready says so and gives what it listens on; one that shall make room for
 * the next is told to retire. Words, so that two versions of the program understand each other.
 */
#pragma once

#include "base/err.h"
#include "base/str.h"
#include "loop/pass.h"

#include <sys/types.h>

#define HANDOVER_LISTEN_SIZE 256

/* Listening sockets; zeroed: none. */
struct handover_sockets {
    char listen[HANDOVER_LISTEN_SIZE]; /* the address that they were opened for */
    bool apart;                        /* from systemd: each an address of its own */
    ino_t file;                        /* of a unix socket that is ours to remove */
    int fds[PASS_FDS_MAX];             /* owned */
    size_t n;
};
void handover_close(struct handover_sockets *s);
/* Those that systemd opened for this process (LISTEN_PID, LISTEN_FDS), if any. The environment is
 * cleared, so that no child takes them for its own. */
NODISCARD int handover_activated(struct handover_sockets *ret, struct err *e);

enum handover_word {
    HANDOVER_NONE,    /* nothing has come */
    HANDOVER_SOCKETS, /* the greeting: what to listen on, if anything */
    HANDOVER_READY,   /* a gateway answers, on these */
    HANDOVER_RETIRE,  /* accept no more, finish, end */
    HANDOVER_GONE,    /* the other end is gone */
};

struct handover_message {
    enum handover_word word;
    struct handover_sockets sockets; /* of SOCKETS and READY; the receiver's */
    bool successor;                  /* SOCKETS: another gateway is there still */
    int64_t patience_ms;             /* READY: how long it may take to end */
};

/* Borrows the sockets. */
NODISCARD int handover_send(int end, const struct handover_message *m, struct err *e);
/* Waits until deadline_ns (0: not at all). A message that is not understood is an error. */
NODISCARD int handover_receive(int end, int64_t deadline_ns, struct handover_message *ret,
                               struct err *e);
