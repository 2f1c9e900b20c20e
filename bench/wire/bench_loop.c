/* SPDX-License-Identifier: Apache-2.0 */
/* Nanoseconds per timer, mail and turn of the event loop. */
#include "rows.h"

#include "base/mem.h"
#include "base/random.h"
#include "loop/thread.h"

#define TIMERS 100000

static struct loop *loop;

static void on_timer(struct loop *l, struct loop_timer *t)
{
    (void)l, (void)t;
}

static void arm_and_cancel(void *arg, size_t turns)
{
    struct loop_timer *t = arg;
    int64_t now_ns = loop_now_ns(loop);

    for (size_t i = 0; i < turns; i++) {
        struct loop_timer *one = &t[i % TIMERS];

        loop_timer_cancel(loop, one);
        loop_timer_set(loop, one, now_ns + (int64_t)(1 + i * 7919 % 60000) * NS_PER_MS);
    }
}

static void push_back(void *arg, size_t turns)
{
    struct loop_timer *t = arg;
    static int64_t later_ns;

    later_ns = MAX(later_ns, loop_now_ns(loop) + 60000 * NS_PER_MS);
    for (size_t i = 0; i < turns; i++)
        loop_timer_set(loop, &t[i % TIMERS], ++later_ns);
}

static void empty_turn(void *arg, size_t turns)
{
    (void)arg;
    while (turns--)
        loop_turn(loop, 0);
}

/* --- Mail ----------------------------------------------------------------------------------- */

struct flood {
    struct mailbox box;
    struct loop *loop;
    struct mail *mails;
    size_t count, got, senders;
};

struct sender {
    struct thread thread;
    struct flood *flood;
    size_t from, to;
};

static void on_mail(struct loop *l, struct mailbox *mb, struct mail *m)
{
    struct flood *f = CONTAINER_OF(mb, struct flood, box);

    (void)m;
    if (++f->got == f->count)
        loop_stop(l);
}

static void sender_main(void *arg)
{
    struct sender *s = arg;

    for (size_t i = s->from; i < s->to; i++)
        mailbox_post(&s->flood->box, &s->flood->mails[i]);
}

static void must(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "%s\n", e->msg);
        exit(1);
    }
}

static void flood(void *arg, size_t turns)
{
    struct flood *f = arg;
    struct sender s[4] = {{.flood = f}};
    struct err e;

    f->count = turns;
    f->got = 0;
    for (size_t i = 0; i < f->senders; i++) {
        s[i] = (struct sender){
            .flood = f, .from = turns * i / f->senders, .to = turns * (i + 1) / f->senders};
        must(thread_start(&s[i].thread, "sender", THREAD_ANY_CPU, sender_main, &s[i], &e), &e);
    }
    loop_run(f->loop);
    for (size_t i = 0; i < f->senders; i++)
        thread_join(&s[i].thread);
}

/* There and back between two loops that both sleep. */
struct court {
    struct mailbox box;
    struct loop *loop;
    struct court *other;
    struct thread thread;
    size_t left;
};

static void on_ball(struct loop *l, struct mailbox *mb, struct mail *m)
{
    struct court *c = CONTAINER_OF(mb, struct court, box);

    if (c->left-- == 0) {
        loop_stop(l);
        loop_stop(c->other->loop);
        return;
    }
    mailbox_post(&c->other->box, m);
}

static void court_main(void *arg)
{
    loop_run(((struct court *)arg)->loop);
}

static void ping_pong(void *arg, size_t turns)
{
    struct court a = {.left = turns}, b = {.left = turns + 1};
    struct mail ball;
    struct err e;

    (void)arg;
    a.other = &b;
    b.other = &a;
    must(loop_new(&a.loop, &e), &e);
    must(loop_new(&b.loop, &e), &e);
    mailbox_open(&a.box, a.loop, on_ball);
    mailbox_open(&b.box, b.loop, on_ball);
    must(thread_start(&b.thread, "court", THREAD_ANY_CPU, court_main, &b, &e), &e);
    mailbox_post(&a.box, &ball);
    loop_run(a.loop);
    thread_join(&b.thread);
    mailbox_close(&a.box);
    mailbox_close(&b.box);
    loop_free(a.loop);
    loop_free(b.loop);
}

int main(void)
{
    struct loop_timer *timers = mem_zalloc(TIMERS * sizeof(*timers));
    struct flood f = {.mails = mem_zalloc(100000 * sizeof(struct mail))};
    struct err e;

    must(loop_new(&loop, &e), &e);
    for (size_t i = 0; i < TIMERS; i++)
        timers[i].fn = on_timer;
    rows_time("timer armed among 100,000", arm_and_cancel, timers, 100000);
    rows_time("timer pushed back", push_back, timers, 100000);
    rows_time("turn with nothing to do", empty_turn, NULL, 10000);
    must(loop_new(&f.loop, &e), &e);
    mailbox_open(&f.box, f.loop, on_mail);
    f.senders = 1;
    rows_time("mail, 1 sender", flood, &f, 100000);
    f.senders = 3;
    rows_time("mail, 3 senders", flood, &f, 100000);
    mailbox_close(&f.box);
    loop_free(f.loop);
    rows_time("mail there and back between sleeping loops", ping_pong, NULL, 2000);
    loop_free(loop);
    mem_free(timers);
    mem_free(f.mails);
    return 0;
}
