/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one per thread, epoll underneath. Nothing here allocates per event: watchers,
 * timers, hooks and tasks are structs embedded in the caller's objects, found again with
 * CONTAINER_OF.
 *
 * One turn: wait for events (not at all when something is ready) -> read the clock once -> mail ->
 * due timers -> deferred tasks -> ready descriptors -> turn-end hooks. The gateway answers its
 * micro-batches and writes its sockets in the hooks.
 *
 * Thread role: a loop belongs to the thread that runs it. Before loop_run any one thread may
 * prepare it; after that every function asserts that it is called on the loop's own thread, except
 * loop_stop and loop_wake (and mailbox_post), which any thread may call.
 *
 * Lifetimes: a watcher, timer, hook or task may be removed and its memory freed at any moment on
 * the loop thread, also from a callback of the same turn: no callback follows a removal.
 *
 * Limits: LOOP_EVENTS_MAX descriptors are served per turn, the rest in the next one; timers as many
 * as memory holds.
 */
#pragma once

#include "base/err.h"

#include <signal.h>
#include <sys/epoll.h>

#define LOOP_EVENTS_MAX 256

struct loop;

NODISCARD int loop_new(struct loop **ret_loop, struct err *e);
void loop_free(
    struct loop *l); /* accepts NULL; what is still registered is forgotten, not closed */
DEFINE_AUTO_PTR(struct loop, loop_free)

void loop_run(struct loop *l); /* until loop_stop; may be run again after that */
/* One turn. Waits at most timeout_ns (0 = only look, -1 = until something happens). */
void loop_turn(struct loop *l, int64_t timeout_ns);
void loop_stop(
    struct loop *l); /* any thread, also a signal handler: loop_run returns after the turn */
void loop_wake(struct loop *l);          /* any thread: the loop makes a turn soon */
bool loop_is_here(const struct loop *l); /* the caller may touch this loop */

/* The monotonic clock as read at the start of this turn (base/time.h), and a fresh reading which
 * also becomes the turn's time (after a long computation). */
int64_t loop_now_ns(const struct loop *l);
int64_t loop_refresh_now_ns(struct loop *l);

/* What this loop did since it was made; read by the loop thread, or racily for display. */
struct loop_stats {
    uint64_t turns, events, timers, mails;
    int64_t busy_ns; /* time outside epoll_wait */
};
const struct loop_stats *loop_stats(const struct loop *l);

/* --- Descriptors ---------------------------------------------------------------------------- */

struct loop_fd;
/* events: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR, EPOLLRDHUP as epoll gave them. */
typedef void (*loop_fd_fn)(struct loop *l, struct loop_fd *w, uint32_t events);

struct loop_fd {
    int fd; /* borrowed: the owner closes it, after loop_fd_remove */
    loop_fd_fn fn;
    uint32_t events; /* what is watched now; 0 = not registered. Read only. */
};

/* Watches w->fd (set with w->fn by the caller) for `events`; add EPOLLET for edge-triggered. A busy
 * connection should be added once with EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET and never changed:
 * no epoll_ctl in steady state. Zero-initialise the watcher before its first use. */
NODISCARD int loop_fd_add(struct loop *l, struct loop_fd *w, uint32_t events, struct err *e);
void loop_fd_change(struct loop *l, struct loop_fd *w, uint32_t events);
/* Stops watching; drops events of this turn not yet delivered. Call it before close(2): a copy of
 * the descriptor in a child being started would otherwise keep the registration alive. Accepts an
 * unregistered watcher. */
void loop_fd_remove(struct loop *l, struct loop_fd *w);

/* --- Timers --------------------------------------------------------------------------------- */

struct loop_timer;
typedef void (*loop_timer_fn)(struct loop *l, struct loop_timer *t);

struct loop_timer {
    loop_timer_fn fn;
    int64_t at_ns;  /* deadline on the monotonic clock; valid while armed */
    uint32_t place; /* 1-based place in the heap; 0 = not armed */
};

/* Arms, or moves, the timer: O(log n); O(1) when an armed timer only moves to a later time, so that
 * an idle timeout may be pushed back on every request. Fires once, never early, at the resolution
 * of the kernel's timers (about 50 us late); a deadline in the past fires in the next turn. */
void loop_timer_set(struct loop *l, struct loop_timer *t, int64_t at_ns);
void loop_timer_cancel(struct loop *l, struct loop_timer *t); /* accepts one that is not armed */
static inline bool loop_timer_armed(const struct loop_timer *t)
{
    return t->place != 0;
}

/* --- The end of a turn, and the next turn --------------------------------------------------- */

struct loop_hook;
typedef void (*loop_hook_fn)(struct loop *l, struct loop_hook *h);

struct loop_hook {
    loop_hook_fn fn;
    struct loop_hook *next;
    bool on;
};

/* Runs h->fn at the end of every turn, in the order of registration. */
void loop_on_turn_end(struct loop *l, struct loop_hook *h);
void loop_hook_remove(struct loop *l, struct loop_hook *h);

struct loop_task;
typedef void (*loop_task_fn)(struct loop *l, struct loop_task *t);

struct loop_task {
    loop_task_fn fn;
    struct loop_task *next, **prev;
};

/* Runs t->fn once in the next turn, which will not sleep: how a connection that has used up its
 * share of this turn goes on. A task already waiting stays where it is. */
void loop_defer(struct loop *l, struct loop_task *t);
void loop_task_cancel(struct loop *l, struct loop_task *t);

/* --- Signals -------------------------------------------------------------------------------- */

struct loop_signals;
typedef void (*loop_signals_fn)(struct loop *l, struct loop_signals *s, int signo);

struct loop_signals {
    struct loop_fd watch;
    loop_signals_fn fn;
    sigset_t set;
};

/* Takes these signals (list ends with 0) through a signalfd. They get blocked in the calling
 * thread: call it before other threads start, for those inherit the mask. */
NODISCARD int loop_signals_open(struct loop *l, struct loop_signals *s, const int *signos,
                                loop_signals_fn fn, struct err *e);
void loop_signals_close(struct loop *l, struct loop_signals *s); /* the signals stay blocked */
