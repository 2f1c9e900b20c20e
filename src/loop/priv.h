/* SPDX-License-Identifier: Apache-2.0 */
/* What loop.c, timer.c and mailbox.c share. */
#pragma once

#include "loop/mailbox.h"

/* The deadline is beside the pointer so that sifting reads no timer. */
struct timer_slot {
    int64_t key_ns; /* <= t->at_ns: a timer moved to a later time is sifted only when it comes up */
    struct loop_timer *t;
};

struct timer_heap {
    struct timer_slot *slots; /* owned */
    uint32_t count, cap;
};

struct loop {
    int64_t now_ns, turn_began_ns;
    struct timer_heap timers;
    struct loop_task *tasks, **tasks_end; /* for the next turn */
    struct loop_task *running;            /* of this turn, not yet run */
    struct loop_hook *hooks;
    struct loop_hook *hook_at; /* the hook to run next, kept right by loop_hook_remove */
    struct mailbox *mailboxes;
    struct mailbox *mailbox_at;
    int epoll_fd;
    struct loop_fd wake; /* an eventfd, edge-triggered: never read */
    int event_i, event_n;
    struct epoll_event events[LOOP_EVENTS_MAX];
    struct loop_stats stats;
    bool no_pwait2;                        /* the kernel has no epoll_pwait2 */
    _Alignas(64) _Atomic(uintptr_t) owner; /* token of the thread that runs the loop; 0 = none */
    _Alignas(64) atomic_bool asleep, woken, stopping; /* written by other threads */
};

void loop_timers_fire(struct loop *l);
int64_t loop_timers_next_ns(const struct loop *l); /* INT64_MAX when there is none */
bool mailbox_has_mail(const struct mailbox *mb);
uint64_t mailbox_deliver(struct mailbox *mb); /* number of mails delivered */
