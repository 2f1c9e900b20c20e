/* SPDX-License-Identifier: Apache-2.0 */
/* Mail and the pool with several threads; the same program runs under ThreadSanitizer. */
#include "check.h"

#include "base/mem.h"
#include "base/time.h"
#include "loop/thread.h"

#include <unistd.h>

enum { SENDERS = 4, MAILS = 20000 };

struct note {
    struct mail mail;
    int sender, number;
};

struct office {
    struct mailbox box;
    struct loop *loop;
    int next[SENDERS];
    int got, disordered;
    int turn_most, turn_count;
    struct loop_hook turn_end;
};

struct sender {
    struct thread thread;
    struct office *office;
    int index;
    bool slow; /* lets the loop fall asleep between mails */
};

static void on_note(struct loop *l, struct mailbox *mb, struct mail *m)
{
    struct office *o = CONTAINER_OF(mb, struct office, box);
    struct note *n = CONTAINER_OF(m, struct note, mail);

    if (n->number != o->next[n->sender]++)
        o->disordered++;
    mem_free(n);
    o->turn_count++;
    if (++o->got == SENDERS * MAILS)
        loop_stop(l);
}

static void on_turn_end(struct loop *l, struct loop_hook *h)
{
    struct office *o = CONTAINER_OF(h, struct office, turn_end);

    (void)l;
    o->turn_most = MAX(o->turn_most, o->turn_count);
    o->turn_count = 0;
}

static void sender_main(void *arg)
{
    struct sender *s = arg;

    for (int i = 0; i < MAILS; i++) {
        struct note *n = mem_zalloc(sizeof(*n));

        n->sender = s->index;
        n->number = i;
        if (s->slow && i % 1000 == 0)
            usleep(200);
        mailbox_post(&s->office->box, &n->mail);
    }
}

static void every_mail_arrives_in_the_order_of_its_sender(void)
{
    struct office o = {.turn_end.fn = on_turn_end};
    struct sender s[SENDERS];
    struct err e;

    NEED_OK(loop_new(&o.loop, &e), &e);
    mailbox_open(&o.box, o.loop, on_note);
    loop_on_turn_end(o.loop, &o.turn_end);
    for (int i = 0; i < SENDERS; i++) {
        s[i] = (struct sender){.office = &o, .index = i, .slow = i % 2 == 0};
        NEED_OK(thread_start(&s[i].thread, "sender", THREAD_ANY_CPU, sender_main, &s[i], &e), &e);
    }
    loop_run(o.loop);
    for (int i = 0; i < SENDERS; i++)
        thread_join(&s[i].thread);
    CHECK_INT(o.got, SENDERS * MAILS);
    CHECK_INT(o.disordered, 0);
    CHECK(o.turn_most <= MAILBOX_TURN_MAX);
    CHECK_INT(loop_stats(o.loop)->mails, SENDERS * MAILS);
    mailbox_close(&o.box);
    loop_free(o.loop);
}

static void ping_main(void *arg)
{
    struct office *o = arg;

    loop_run(o->loop);
}

struct ping {
    struct mail mail;
    int left;
};
static struct mailbox *other_box[2];

static void on_ping(struct loop *l, struct mailbox *mb, struct mail *m)
{
    struct ping *p = CONTAINER_OF(m, struct ping, mail);
    struct mailbox *to = mb == other_box[0] ? other_box[1] : other_box[0];

    if (p->left-- > 0) {
        mailbox_post(to, m); /* from here on *p belongs to the other thread */
        return;
    }
    loop_stop(to->loop);
    loop_stop(l);
}

/* Both loops sleep all the time: a lost wake-up would hang here. */
static void two_loops_play_ping_pong(void)
{
    struct office a = {.got = 0}, b = {.got = 0};
    struct thread t = {0};
    struct ping p = {.left = 5000};
    struct err e;

    NEED_OK(loop_new(&a.loop, &e), &e);
    NEED_OK(loop_new(&b.loop, &e), &e);
    mailbox_open(&a.box, a.loop, on_ping);
    mailbox_open(&b.box, b.loop, on_ping);
    other_box[0] = &a.box;
    other_box[1] = &b.box;
    NEED_OK(thread_start(&t, "pong", THREAD_ANY_CPU, ping_main, &b, &e), &e);
    mailbox_post(&b.box, &p.mail);
    loop_run(a.loop);
    thread_join(&t);
    CHECK(p.left < 1);
    mailbox_close(&a.box);
    mailbox_close(&b.box);
    loop_free(a.loop);
    loop_free(b.loop);
}

/* --- Pool ----------------------------------------------------------------------------------- */

struct sum_job {
    struct job job;
    uint64_t n, sum;
};

struct sums {
    struct mailbox box;
    uint64_t total;
    int done, cancelled, want;
};

static void run_sum(struct job *j)
{
    struct sum_job *s = CONTAINER_OF(j, struct sum_job, job);

    for (uint64_t i = 1; i <= s->n; i++)
        s->sum += i;
}

static void on_sum(struct loop *l, struct mailbox *mb, struct mail *m)
{
    struct sums *all = CONTAINER_OF(mb, struct sums, box);
    struct sum_job *s = CONTAINER_OF(CONTAINER_OF(m, struct job, mail), struct sum_job, job);

    if (s->job.cancelled)
        all->cancelled++;
    else
        all->total += s->sum;
    if (++all->done == all->want)
        loop_stop(l);
    mem_free(s);
}

static void a_pool_answers_every_job(void)
{
    AUTO(loop_freep) struct loop *l = NULL;
    AUTO(pool_freep) struct pool *p = NULL;
    struct sums all = {.want = 5000};
    struct err e;

    NEED_OK(loop_new(&l, &e), &e);
    NEED_OK(pool_new("sums", 3, 10000, &p, &e), &e);
    mailbox_open(&all.box, l, on_sum);
    for (int i = 0; i < all.want; i++) {
        struct sum_job *s = mem_zalloc(sizeof(*s));

        *s = (struct sum_job){.job = {.run = run_sum, .reply_to = &all.box}, .n = 100};
        NEED_OK(pool_submit(p, &s->job, &e), &e);
    }
    loop_run(l);
    CHECK_INT(all.done, all.want);
    CHECK_INT(all.total, 5050u * 5000u);
    pool_free(TAKE(p));
    mailbox_close(&all.box);
}

struct gate_job {
    struct job job;
    _Atomic bool *open, *begun;
};

static void run_gate(struct job *j)
{
    struct gate_job *g = CONTAINER_OF(j, struct gate_job, job);

    atomic_store(g->begun, true);
    while (!atomic_load(g->open))
        usleep(1000);
}

static _Atomic int counted;

static void run_count(struct job *j)
{
    (void)j;
    counted++;
}

/* One worker held up: the queue fills to its limit; what never began comes back as cancelled. */
static void a_full_pool_refuses_and_a_closing_one_returns(void)
{
    AUTO(loop_freep) struct loop *l = NULL;
    struct pool *p;
    _Atomic bool open = false, begun = false;
    struct gate_job gate = {.job.run = run_gate, .open = &open, .begun = &begun};
    struct job alone = {.run = run_count};
    struct sums all = {.want = -1};
    struct sum_job *extra = mem_zalloc(sizeof(*extra));
    struct err e;

    NEED_OK(loop_new(&l, &e), &e);
    NEED_OK(pool_new("held", 1, 3, &p, &e), &e);
    mailbox_open(&all.box, l, on_sum);
    NEED_OK(pool_submit(p, &gate.job, &e), &e);
    while (!atomic_load(&begun))
        usleep(1000);
    for (int i = 0; i < 2; i++) {
        struct sum_job *s = mem_zalloc(sizeof(*s));

        *s = (struct sum_job){.job = {.run = run_sum, .reply_to = &all.box}, .n = 1};
        NEED_OK(pool_submit(p, &s->job, &e), &e);
    }
    NEED_OK(pool_submit(p, &alone, &e), &e);
    extra->job = (struct job){.run = run_sum, .reply_to = &all.box};
    CHECK_FAILS(pool_submit(p, &extra->job, &e), RESOURCE_EXHAUSTED, &e, "3 jobs");
    mem_free(extra);
    CHECK_INT(pool_stats(p).waiting, 3);
    CHECK_INT(pool_stats(p).running, 1);
    atomic_store(&open, true);
    pool_free(p);
    loop_turn(l, 0);
    CHECK_INT(all.done, 2); /* run or cancelled, as the worker was quick or slow */
    CHECK_INT(all.total + (uint64_t)all.cancelled, 2);
    CHECK_INT(counted, 1);
    mailbox_close(&all.box);
}

static void cpus_are_counted(void)
{
    CHECK(thread_cpus() >= 1);
    CHECK(thread_cpus() <= (int)sysconf(_SC_NPROCESSORS_CONF));
}

RUN_TESTS(T(every_mail_arrives_in_the_order_of_its_sender), T(two_loops_play_ping_pong),
          T(a_pool_answers_every_job), T(a_full_pool_refuses_and_a_closing_one_returns),
          T(cpus_are_counted))
