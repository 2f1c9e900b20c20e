/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "loop/thread.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- Timers --------------------------------------------------------------------------------- */

struct probe {
    struct loop_timer timer;
    int64_t want_ns;
    int fired;
    struct probe *cancels; /* on firing */
    int64_t again_ns;      /* on firing, once */
};

static int64_t last_fired_ns;
static int order_faults;

static void on_probe(struct loop *l, struct loop_timer *t)
{
    struct probe *p = CONTAINER_OF(t, struct probe, timer);

    p->fired++;
    if (p->want_ns < last_fired_ns || loop_now_ns(l) < p->want_ns)
        order_faults++;
    last_fired_ns = p->want_ns;
    if (p->cancels)
        loop_timer_cancel(l, &p->cancels->timer);
    if (p->again_ns) {
        loop_timer_set(l, t, p->again_ns);
        p->again_ns = 0;
    }
}

/* Arms, moves and cancels thousands of timers at random on a virtual clock, beside a plain table.
 */
static void timers_match_a_naive_table(void)
{
    enum { N = 2000 };
    struct probe *p = mem_zalloc(N * sizeof(*p));
    AUTO(loop_freep) struct loop *l = NULL;
    struct rng r;
    struct err e;

    rng_seed(&r, 7);
    time_test_virtual(1000, 0);
    NEED_OK(loop_new(&l, &e), &e);
    for (int i = 0; i < N; i++)
        p[i].timer.fn = on_probe;
    order_faults = 0;
    for (int round = 0; round < 200; round++) {
        for (int k = 0; k < 300; k++) {
            struct probe *one = &p[rng_below(&r, N)];

            one->want_ns = time_mono_ns() + 1 + (int64_t)rng_below(&r, 100000);
            if (rng_below(&r, 4) == 0) {
                loop_timer_cancel(l, &one->timer);
                CHECK(!loop_timer_armed(&one->timer));
            } else {
                loop_timer_set(l, &one->timer, one->want_ns);
            }
        }
        int64_t now_ns = time_mono_ns() + (int64_t)rng_below(&r, 20000);
        int due = 0, fired = 0;
        for (int i = 0; i < N; i++) {
            due += loop_timer_armed(&p[i].timer) && p[i].want_ns <= now_ns;
            p[i].fired = 0;
        }
        time_test_advance(now_ns - time_mono_ns());
        last_fired_ns = 0;
        loop_turn(l, 0);
        for (int i = 0; i < N; i++) {
            fired += p[i].fired;
            if (p[i].fired)
                CHECK(p[i].want_ns <= now_ns);
            else if (loop_timer_armed(&p[i].timer))
                CHECK(p[i].want_ns > now_ns);
        }
        CHECK_INT(fired, due);
    }
    CHECK_INT(order_faults, 0);
    time_test_real();
    mem_free(p);
}

static void a_timer_may_cancel_another_and_rearm_itself(void)
{
    AUTO(loop_freep) struct loop *l = NULL;
    struct probe a = {.timer.fn = on_probe}, b = {.timer.fn = on_probe};
    struct err e;

    time_test_virtual(1000, 0);
    NEED_OK(loop_new(&l, &e), &e);
    a.cancels = &b;
    a.again_ns = 5; /* long past: must wait for the next turn */
    loop_timer_set(l, &a.timer, 2000);
    loop_timer_set(l, &b.timer, 2000);
    time_test_advance(5000);
    last_fired_ns = 0;
    loop_turn(l, 0);
    CHECK_INT(a.fired + b.fired, 1);
    CHECK(loop_timer_armed(&a.timer) != loop_timer_armed(&b.timer) || b.fired == 1);
    time_test_advance(1);
    loop_turn(l, 0);
    CHECK_INT(a.fired, 2);
    CHECK(!loop_timer_armed(&a.timer) && !loop_timer_armed(&b.timer));
    time_test_real();
}

static void a_timer_wakes_the_loop_in_time(void)
{
    AUTO(loop_freep) struct loop *l = NULL;
    struct probe a = {.timer.fn = on_probe};
    struct err e;
    int64_t began_ns = time_mono_ns();

    NEED_OK(loop_new(&l, &e), &e);
    a.want_ns = began_ns + 3 * NS_PER_MS;
    last_fired_ns = 0;
    loop_timer_set(l, &a.timer, began_ns + NS_PER_S);
    loop_timer_set(l, &a.timer, began_ns + NS_PER_MS);
    loop_timer_set(l, &a.timer, a.want_ns); /* pushed back: one early wake-up, no early call */
    for (int i = 0; i < 10 && !a.fired; i++)
        loop_turn(l, -1);
    CHECK_INT(a.fired, 1);
    CHECK(time_mono_ns() - began_ns >= 3 * NS_PER_MS);
    CHECK(time_mono_ns() - began_ns < NS_PER_S);
    CHECK(loop_stats(l)->turns <= 4);
}

/* --- Descriptors ---------------------------------------------------------------------------- */

struct wire {
    struct loop_fd watch;
    int peer;
    int calls;
    struct wire *removes; /* on its event */
};

static void on_wire(struct loop *l, struct loop_fd *w, uint32_t events)
{
    struct wire *x = CONTAINER_OF(w, struct wire, watch);
    char c;

    CHECK(events & EPOLLIN);
    x->calls++;
    CHECK(read(w->fd, &c, 1) == 1);
    if (x->removes)
        loop_fd_remove(l, &x->removes->watch);
}

static bool wire_open(struct wire *x)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return false;
    *x = (struct wire){.watch = {.fd = ends[0], .fn = on_wire}, .peer = ends[1]};
    return true;
}

static void wire_close(struct loop *l, struct wire *x)
{
    loop_fd_remove(l, &x->watch);
    close(x->watch.fd);
    close(x->peer);
}

/* Both are ready in the same turn; whichever comes first removes the other, which must then stay
 * silent although its event was fetched already. */
static void a_removed_watcher_gets_no_event_of_the_same_turn(void)
{
    AUTO(loop_freep) struct loop *l = NULL;
    struct wire a, b;
    struct err e;

    NEED_OK(loop_new(&l, &e), &e);
    NEED(wire_open(&a) && wire_open(&b));
    a.removes = &b;
    b.removes = &a;
    NEED_OK(loop_fd_add(l, &a.watch, EPOLLIN, &e), &e);
    NEED_OK(loop_fd_add(l, &b.watch, EPOLLIN, &e), &e);
    CHECK(write(a.peer, "x", 1) == 1 && write(b.peer, "x", 1) == 1);
    loop_turn(l, NS_PER_S);
    CHECK_INT(a.calls + b.calls, 1);
    loop_turn(l, 0);
    CHECK_INT(a.calls + b.calls, 1);
    wire_close(l, &a);
    wire_close(l, &b);
}

static void edges_and_levels(void)
{
    AUTO(loop_freep) struct loop *l = NULL;
    struct wire a, b;
    struct err e;

    NEED_OK(loop_new(&l, &e), &e);
    NEED(wire_open(&a) && wire_open(&b));
    NEED_OK(loop_fd_add(l, &a.watch, EPOLLIN | EPOLLET, &e), &e);
    NEED_OK(loop_fd_add(l, &b.watch, EPOLLOUT, &e), &e);
    loop_fd_change(l, &b.watch, EPOLLIN);
    CHECK(write(a.peer, "xyz", 3) == 3 && write(b.peer, "xyz", 3) == 3);
    for (int i = 0; i < 3; i++)
        loop_turn(l, 0);
    CHECK_INT(a.calls, 1);
    CHECK_INT(b.calls, 3);
    CHECK(loop_fd_add(l, &(struct loop_fd){.fd = 1 << 20, .fn = on_wire}, EPOLLIN, &e) != 0);
    CHECK(strstr(e.msg, "1048576") != NULL);
    wire_close(l, &a);
    wire_close(l, &b);
}

/* More ready descriptors than one turn takes: all are served in the end. */
static void many_descriptors(void)
{
    enum { N = LOOP_EVENTS_MAX + 50 };
    AUTO(loop_freep) struct loop *l = NULL;
    struct wire *x = mem_zalloc(N * sizeof(*x));
    struct err e;
    int calls = 0;

    NEED_OK(loop_new(&l, &e), &e);
    for (int i = 0; i < N; i++) {
        NEED(wire_open(&x[i]));
        NEED_OK(loop_fd_add(l, &x[i].watch, EPOLLIN, &e), &e);
        CHECK(write(x[i].peer, "x", 1) == 1);
    }
    loop_turn(l, 0);
    CHECK(loop_stats(l)->events <= LOOP_EVENTS_MAX);
    loop_turn(l, 0);
    for (int i = 0; i < N; i++) {
        calls += x[i].calls;
        wire_close(l, &x[i]);
    }
    CHECK_INT(calls, N);
    mem_free(x);
}

/* --- Hooks, tasks, stopping ----------------------------------------------------------------- */

static char story[64];

static void tell(char c)
{
    size_t n = strlen(story);

    if (n + 1 < sizeof(story)) {
        story[n] = c;
        story[n + 1] = 0;
    }
}

struct teller {
    struct loop_hook hook;
    struct loop_task task;
    char name;
    struct teller *removes;
    bool again;
};

static void on_hook(struct loop *l, struct loop_hook *h)
{
    struct teller *t = CONTAINER_OF(h, struct teller, hook);

    tell(t->name);
    if (t->removes)
        loop_hook_remove(l, &t->removes->hook);
}

static void on_task(struct loop *l, struct loop_task *k)
{
    struct teller *t = CONTAINER_OF(k, struct teller, task);

    tell(t->name);
    if (t->removes)
        loop_task_cancel(l, &t->removes->task);
    if (t->again)
        loop_defer(l, k);
}

static void hooks_run_in_order_and_may_be_removed(void)
{
    AUTO(loop_freep) struct loop *l = NULL;
    struct teller t[4] = {{.name = 'a'}, {.name = 'b'}, {.name = 'c'}, {.name = 'd'}};
    struct err e;

    story[0] = 0;
    NEED_OK(loop_new(&l, &e), &e);
    for (int i = 0; i < 4; i++) {
        t[i].hook.fn = on_hook;
        loop_on_turn_end(l, &t[i].hook);
    }
    loop_turn(l, 0);
    t[1].removes = &t[2]; /* the next one */
    loop_turn(l, 0);
    t[1].removes = &t[1]; /* itself */
    loop_turn(l, 0);
    loop_turn(l, 0);
    CHECK_STR(str_of(story), S("abcdabdabdad"));
}

static void tasks_run_once_in_the_next_turn(void)
{
    AUTO(loop_freep) struct loop *l = NULL;
    struct teller t[4] = {{.name = 'a'}, {.name = 'b'}, {.name = 'c'}, {.name = 'd'}};
    struct err e;

    story[0] = 0;
    NEED_OK(loop_new(&l, &e), &e);
    for (int i = 0; i < 4; i++) {
        t[i].task.fn = on_task;
        loop_defer(l, &t[i].task);
        loop_defer(l, &t[i].task); /* no effect */
    }
    loop_task_cancel(l, &t[3].task); /* the last of the waiting ones */
    t[0].removes = &t[1];            /* one that is about to run in this turn */
    t[2].again = true;
    loop_turn(l, -1); /* does not sleep */
    CHECK_STR(str_of(story), S("ac"));
    loop_turn(l, -1);
    CHECK_STR(str_of(story), S("acc"));
    t[2].again = false;
    loop_defer(l, &t[3].task);
    loop_turn(l, -1);
    CHECK_STR(str_of(story), S("acccd"));
    loop_turn(l, 0);
    CHECK_STR(str_of(story), S("acccd"));
}

static void run_main(void *arg)
{
    loop_run(arg);
}

static void another_thread_stops_a_sleeping_loop(void)
{
    for (int i = 0; i < 50; i++) {
        AUTO(loop_freep) struct loop *l = NULL;
        struct thread t = {0};
        struct err e;

        NEED_OK(loop_new(&l, &e), &e);
        NEED_OK(thread_start(&t, "sleeper-with-a-long-name", THREAD_ANY_CPU, run_main, l, &e), &e);
        loop_wake(l);
        loop_stop(l);
        thread_join(&t);
        CHECK(!t.running);
    }
}

static void wake_once(struct loop *l, struct loop_hook *h)
{
    loop_hook_remove(l, h);
    loop_wake(l);
}

/* A wake that comes between the last hook and the sleep carries no mail that could tell of it. */
static void a_wake_before_the_sleep_is_not_lost(void)
{
    AUTO(loop_freep) struct loop *l = NULL;
    struct loop_hook hook = {.fn = wake_once};
    int64_t began_ns;
    struct err e;

    NEED_OK(loop_new(&l, &e), &e);
    loop_on_turn_end(l, &hook);
    loop_turn(l, 0);
    began_ns = time_mono_ns();
    loop_turn(l, 60 * NS_PER_S);
    CHECK(time_mono_ns() - began_ns < 30 * NS_PER_S);
}

static void on_signal(struct loop *l, struct loop_signals *s, int signo)
{
    (void)s;
    tell(signo == SIGUSR1 ? '1' : '2');
    if (signo == SIGUSR2)
        loop_stop(l);
}

static void signals_arrive_on_the_loop(void)
{
    static const int signos[] = {SIGUSR1, SIGUSR2, 0};
    AUTO(loop_freep) struct loop *l = NULL;
    struct loop_signals s;
    struct err e;

    story[0] = 0;
    NEED_OK(loop_new(&l, &e), &e);
    CHECK(loop_is_here(l));
    NEED_OK(loop_signals_open(l, &s, signos, on_signal, &e), &e);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    loop_turn(l, NS_PER_S);
    CHECK(kill(getpid(), SIGUSR2) == 0);
    loop_run(l);
    CHECK_STR(str_of(story), S("12"));
    loop_signals_close(l, &s);
}

RUN_TESTS(T(timers_match_a_naive_table), T(a_timer_may_cancel_another_and_rearm_itself),
          T(a_timer_wakes_the_loop_in_time), T(a_removed_watcher_gets_no_event_of_the_same_turn),
          T(edges_and_levels), T(many_descriptors), T(hooks_run_in_order_and_may_be_removed),
          T(tasks_run_once_in_the_next_turn), T(another_thread_stops_a_sleeping_loop),
          T(a_wake_before_the_sleep_is_not_lost), T(signals_arrive_on_the_loop))
