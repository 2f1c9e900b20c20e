/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The turn of a loop.
 *
 * Sleeping and waking. A sender that finds `asleep` set clears it and writes the eventfd; otherwise
 * it makes no system call. The loop sets `asleep` and then looks at its mailboxes and `woken` once
 * more; the sender first publishes its mail, and a bare loop_wake() sets `woken`, and then looks at
 * `asleep`. Both sides use sequentially consistent operations, so at least one of them sees the
 * other: no wake-up is lost.
 * The eventfd is watched edge-triggered: each write is a new edge, so it is never read, and its
 * 64-bit counter does not fill up in the life of a machine.
 *
 * Events of a removed watcher. epoll hands out up to 256 events at once; a callback may remove and
 * free watchers whose event is still in that batch. loop_fd_remove looks for them in the rest of
 * the batch and blanks them, so no generation counters and no parked frees are needed.
 *
 * Invariants: no callback runs after its registration was removed; a turn runs each waiting task
 * once (those deferred meanwhile belong to the next turn); the loop does not sleep while tasks or
 * undelivered mails exist.
 */
#include "loop/priv.h"

#include "base/mem.h"
#include "base/time.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

static _Thread_local char here; /* its address names the thread */

bool loop_is_here(const struct loop *l)
{
    uintptr_t owner = atomic_load_explicit(&l->owner, memory_order_relaxed);

    return owner == 0 || owner == (uintptr_t)&here;
}

static void on_wake(struct loop *l, struct loop_fd *w, uint32_t events)
{
    (void)l, (void)w, (void)events;
}

int loop_new(struct loop **ret_loop, struct err *e)
{
    AUTO(loop_freep) struct loop *l = mem_zalloc(sizeof(*l));

    l->tasks_end = &l->tasks;
    l->wake = (struct loop_fd){.fd = -1, .fn = on_wake};
    l->now_ns = time_mono_ns();
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd < 0)
        return FAIL_ERRNO(e, "making an epoll descriptor");
    l->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (l->wake.fd < 0)
        return FAIL_ERRNO(e, "making an eventfd");
    TRY(loop_fd_add(l, &l->wake, EPOLLIN | EPOLLET, e));
    *ret_loop = TAKE(l);
    return 0;
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    ASSERT(loop_is_here(l));
    if (l->wake.fd >= 0)
        close(l->wake.fd);
    if (l->epoll_fd >= 0)
        close(l->epoll_fd);
    mem_free(l->timers.slots);
    mem_free(l);
}

int64_t loop_now_ns(const struct loop *l)
{
    return l->now_ns;
}

int64_t loop_refresh_now_ns(struct loop *l)
{
    ASSERT(loop_is_here(l));
    l->now_ns = time_mono_ns();
    return l->now_ns;
}

const struct loop_stats *loop_stats(const struct loop *l)
{
    return &l->stats;
}

void loop_wake(struct loop *l)
{
    uint64_t one = 1;

    atomic_store(&l->woken, true); /* for a loop that is about to sleep */
    if (atomic_load(&l->asleep) && atomic_exchange(&l->asleep, false)) {
        int saved = errno; /* may be called from a signal handler */

        /* Fails only when the counter is full, and then the loop is about to wake anyway. */
        while (write(l->wake.fd, &one, sizeof(one)) < 0 && errno == EINTR)
            ;
        errno = saved;
    }
}

void loop_stop(struct loop *l)
{
    atomic_store(&l->stopping, true);
    loop_wake(l);
}

/* --- Descriptors ---------------------------------------------------------------------------- */

int loop_fd_add(struct loop *l, struct loop_fd *w, uint32_t events, struct err *e)
{
    struct epoll_event ev = {.events = events, .data.ptr = w};

    ASSERT(loop_is_here(l));
    ASSERT(w->fd >= 0 && w->fn);
    ASSERT(w->events == 0);
    ASSERT(events != 0);
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, w->fd, &ev) < 0)
        return FAIL_ERRNO(e, "watching descriptor %d", w->fd);
    w->events = events;
    return 0;
}

void loop_fd_change(struct loop *l, struct loop_fd *w, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = w};

    ASSERT(loop_is_here(l));
    ASSERT(w->events != 0 && events != 0);
    if (events == w->events)
        return;
    /* A registered descriptor can always be modified; failure means it was closed under us. */
    int rc = epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev);
    ASSERT(rc == 0);
    w->events = events;
}

void loop_fd_remove(struct loop *l, struct loop_fd *w)
{
    ASSERT(loop_is_here(l));
    if (w->events == 0)
        return;
    int rc = epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    ASSERT(rc == 0);
    w->events = 0;
    for (int i = l->event_i; i < l->event_n; i++) {
        if (l->events[i].data.ptr == w)
            l->events[i].data.ptr = NULL;
    }
}

/* --- Hooks and tasks ------------------------------------------------------------------------ */

void loop_on_turn_end(struct loop *l, struct loop_hook *h)
{
    struct loop_hook **end = &l->hooks;

    ASSERT(loop_is_here(l));
    ASSERT(h->fn && !h->on);
    while (*end)
        end = &(*end)->next;
    *end = h;
    h->next = NULL;
    h->on = true;
}

void loop_hook_remove(struct loop *l, struct loop_hook *h)
{
    ASSERT(loop_is_here(l));
    if (!h->on)
        return;
    if (l->hook_at == h)
        l->hook_at = h->next;
    for (struct loop_hook **at = &l->hooks; *at; at = &(*at)->next) {
        if (*at == h) {
            *at = h->next;
            break;
        }
    }
    h->on = false;
}

static void run_hooks(struct loop *l)
{
    for (struct loop_hook *h = l->hooks; h; h = l->hook_at) {
        l->hook_at = h->next;
        h->fn(l, h);
    }
}

void loop_defer(struct loop *l, struct loop_task *t)
{
    ASSERT(loop_is_here(l));
    ASSERT(t->fn);
    if (t->prev)
        return;
    t->next = NULL;
    t->prev = l->tasks_end;
    *l->tasks_end = t;
    l->tasks_end = &t->next;
}

void loop_task_cancel(struct loop *l, struct loop_task *t)
{
    ASSERT(loop_is_here(l));
    if (!t->prev)
        return;
    *t->prev = t->next;
    if (t->next)
        t->next->prev = t->prev;
    else if (l->tasks_end == &t->next)
        l->tasks_end = t->prev;
    t->next = NULL;
    t->prev = NULL;
}

static void run_tasks(struct loop *l)
{
    struct loop_task *t = l->tasks;

    if (!t)
        return;
    l->running = t;
    t->prev = &l->running;
    l->tasks = NULL;
    l->tasks_end = &l->tasks;
    while ((t = l->running)) {
        l->running = t->next;
        if (t->next)
            t->next->prev = &l->running;
        t->next = NULL;
        t->prev = NULL;
        t->fn(l, t);
    }
}

/* --- The turn ------------------------------------------------------------------------------- */

static int poll_events(struct loop *l, int64_t timeout_ns)
{
    struct timespec ts = {.tv_sec = timeout_ns / NS_PER_S, .tv_nsec = timeout_ns % NS_PER_S};
    int n = -1;

    if (!l->no_pwait2) {
        n = epoll_pwait2(l->epoll_fd, l->events, LOOP_EVENTS_MAX, timeout_ns < 0 ? NULL : &ts,
                         NULL);
        if (n < 0 && (errno == ENOSYS || errno == EPERM)) /* old kernel, or a strict seccomp */
            l->no_pwait2 = true;
    }
    if (l->no_pwait2) {
        int64_t ms = timeout_ns < 0 ? -1 : (timeout_ns + NS_PER_MS - 1) / NS_PER_MS;

        n = epoll_wait(l->epoll_fd, l->events, LOOP_EVENTS_MAX, (int)MIN(ms, INT64_C(3600000)));
    }
    ASSERT(n >= 0 || errno == EINTR);
    return MAX(n, 0);
}

/* How long this turn may sleep. */
static int64_t sleep_ns(struct loop *l, int64_t timeout_ns, int64_t now_ns)
{
    int64_t next_ns = loop_timers_next_ns(l);

    if (l->tasks)
        return 0;
    if (next_ns != INT64_MAX) {
        int64_t until_ns = MAX(next_ns - now_ns, INT64_C(0));

        timeout_ns = timeout_ns < 0 ? until_ns : MIN(timeout_ns, until_ns);
    }
    if (timeout_ns == 0)
        return 0;
    atomic_store(&l->asleep, true);
    bool awake = atomic_exchange(&l->woken, false);
    for (struct mailbox *mb = l->mailboxes; mb && !awake; mb = mb->next)
        awake = mailbox_has_mail(mb);
    if (awake) {
        atomic_store(&l->asleep, false);
        return 0;
    }
    return timeout_ns;
}

static void deliver_mail(struct loop *l)
{
    for (struct mailbox *mb = l->mailboxes; mb; mb = l->mailbox_at) {
        l->mailbox_at = mb->next;
        l->stats.mails += mailbox_deliver(mb);
    }
}

static void serve_events(struct loop *l)
{
    l->stats.events += (uint64_t)l->event_n;
    while (l->event_i < l->event_n) {
        struct epoll_event *ev = &l->events[l->event_i++];
        struct loop_fd *w = ev->data.ptr;

        if (w)
            w->fn(l, w, ev->events);
    }
    l->event_i = l->event_n = 0;
}

void loop_turn(struct loop *l, int64_t timeout_ns)
{
    uintptr_t owner = atomic_load_explicit(&l->owner, memory_order_relaxed);
    int64_t before_ns = time_mono_ns();

    ASSERT(loop_is_here(l));
    ASSERT(l->event_n == 0); /* a turn inside a turn */
    atomic_store_explicit(&l->owner, (uintptr_t)&here, memory_order_relaxed);
    /* The caller's work and the hooks of the last turn count as busy time. */
    l->stats.busy_ns += l->stats.turns ? before_ns - l->turn_began_ns : 0;
    l->event_n = poll_events(l, sleep_ns(l, timeout_ns, before_ns));
    if (atomic_load_explicit(&l->asleep, memory_order_relaxed))
        atomic_store(&l->asleep, false);
    l->now_ns = l->turn_began_ns = time_mono_ns();
    l->stats.turns++;

    deliver_mail(l);
    loop_timers_fire(l);
    run_tasks(l);
    serve_events(l);
    run_hooks(l);
    atomic_store_explicit(&l->owner, owner, memory_order_relaxed);
}

void loop_run(struct loop *l)
{
    ASSERT(loop_is_here(l));
    atomic_store_explicit(&l->owner, (uintptr_t)&here, memory_order_relaxed);
    while (!atomic_exchange(&l->stopping, false))
        loop_turn(l, -1);
    atomic_store_explicit(&l->owner, 0, memory_order_relaxed);
}

/* --- Signals -------------------------------------------------------------------------------- */

static void on_signals(struct loop *l, struct loop_fd *w, uint32_t events)
{
    struct loop_signals *s = CONTAINER_OF(w, struct loop_signals, watch);
    struct signalfd_siginfo info;

    (void)events;
    while (w->events && read(w->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        s->fn(l, s, (int)info.ssi_signo);
}

int loop_signals_open(struct loop *l, struct loop_signals *s, const int *signos, loop_signals_fn fn,
                      struct err *e)
{
    *s = (struct loop_signals){.watch = {.fd = -1, .fn = on_signals}, .fn = fn};
    sigemptyset(&s->set);
    for (; *signos; signos++)
        sigaddset(&s->set, *signos);
    int rc = pthread_sigmask(SIG_BLOCK, &s->set, NULL);
    ASSERT(rc == 0);
    s->watch.fd = signalfd(-1, &s->set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->watch.fd < 0)
        return FAIL_ERRNO(e, "making a signalfd");
    rc = loop_fd_add(l, &s->watch, EPOLLIN, e);
    if (rc) {
        close(s->watch.fd);
        s->watch.fd = -1;
    }
    return rc;
}

void loop_signals_close(struct loop *l, struct loop_signals *s)
{
    if (s->watch.events == 0)
        return;
    loop_fd_remove(l, &s->watch);
    close(s->watch.fd);
    s->watch.fd = -1;
}
