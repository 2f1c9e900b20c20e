/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the supervisor knows beyond its own life: for itself, when it executes the next program in
 * its place and finds its children and sockets again; and for others, who look in the state
 * directory whether a supervisor runs and what became of a restart.
 */
#pragma once

#include "base/arena.h"
#include "server/handover.h"

/* Passed from one program to the next in the environment. Descriptors live on under their numbers.
 */
struct up_inherited {
    pid_t control, gateway; /* 0: none */
    int link;               /* to the gateway */
    int lock;               /* of the state directory; -1: none */
    int64_t patience_ms;    /* of the gateway */
    int64_t restarts, failures;
    struct handover_sockets sockets;
};

/* False when this is a first start. The environment no longer has it afterwards. */
NODISCARD bool up_inherit(struct up_inherited *ret);
/* Executes `path` with the arguments of this process in its place. Returns only on failure, and all
 * is as before. */
NODISCARD int up_execute(const char *path, const struct up_inherited *i, struct err *e);
/* Where this program was started from, links kept: what lies there now may be a newer one. */
const char *up_program(struct arena *a);

/* --- For others ------------------------------------------------------------------------------- */

/* `<state_dir>/run/up.lock`: held, with its pid, by the supervisor. UNAVAILABLE when another one
 * runs here. */
NODISCARD int up_lock(const char *state_dir, int *ret_fd, struct err *e);

struct up_status {
    int64_t pid;
    int64_t restarts, failures; /* that were done, and that were given up, since `weir up` began */
    bool restarting;
    char reason[256]; /* of the last failure */
};
NODISCARD int up_status_write(const char *state_dir, const struct up_status *st, struct err *e);
/* NOT_FOUND when no supervisor runs for this state directory. */
NODISCARD int up_status_read(const char *state_dir, struct up_status *ret, struct err *e);
