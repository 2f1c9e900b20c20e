/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread of the generator: sends what is due, on whatever connection is free.
 *
 * There is no queue of waiting requests in memory: the schedule is a function, so "the queue" is
 * the distance between the request to send next and the clock. A connection that becomes free takes
 * the next due request at once, in the same turn; when none is free, nothing is lost but time, and
 * that time is in the latency.
 *
 * Instants here are ns from the start of the run. Counts are kept by the intended instant, so that
 * a second of a stalled server shows what became of the requests of that second.
 */
#include "load/priv.h"

#include "base/mem.h"
#include "base/time.h"

#include <math.h>
#include <stdio.h>

#define TICK_NS (20 * NS_PER_MS)
#define DRAIN_NS (5 * NS_PER_S)          /* for requests that are due but not sent at the end */
#define SECOND_GRACE_NS (60 * NS_PER_MS) /* answers that still count in the live line */
#define LABELS_WAIT_NS (10 * NS_PER_S)

static int64_t run_now(const struct worker *w)
{
    return time_mono_ns() - w->run->start_ns;
}

/* --- Counting --------------------------------------------------------------------------------- */

static struct load_tally *second_of(struct worker *w, int64_t at_ns)
{
    size_t at = (size_t)(at_ns / NS_PER_S);

    ASSERT(at_ns >= 0 && at <= LOAD_SECONDS_MAX);
    if (at >= w->second_cap) {
        size_t cap = MAX(at + 1, w->second_cap * 2);

        w->seconds = mem_realloc(w->seconds, cap * sizeof(*w->seconds));
        memset(w->seconds + w->second_cap, 0, (cap - w->second_cap) * sizeof(*w->seconds));
        w->second_cap = cap;
    }
    w->second_count = MAX(w->second_count, at + 1);
    return &w->seconds[at];
}

static size_t phase_at(const struct load_report *r, int64_t at_ns)
{
    size_t i = 0;

    while (i + 1 < r->phase_count && at_ns >= r->phases[i].to_ns)
        i++;
    return i;
}

static void judge(const struct worker *w, size_t row, str predicted, struct load_tally *to)
{
    const struct load_rows *rows = w->run->cfg->rows;
    uint32_t label = rows->label_classes[row], cls = load_class_of(rows, predicted);
    uint32_t positive = w->run->positive;

    if (label == LOAD_CLASS_NONE)
        return;
    to->judged++;
    to->correct += cls == label;
    if (positive == LOAD_CLASS_NONE)
        return;
    to->tp += cls == positive && label == positive;
    to->fp += cls == positive && label != positive;
    to->fn += cls != positive && label == positive;
}

static void note_failure(struct worker *w, int status, enum load_failure failure, str body)
{
    size_t at = status ? LOAD_FAIL_STATUS((size_t)status) : (size_t)failure;
    char digits[8];

    w->failures[MIN(at, (size_t)LOAD_FAIL_COUNT - 1)]++;
    if (w->first_failure[0])
        return;
    snprintf(w->first_failure, sizeof(w->first_failure), STR_F "%s" STR_F,
             STR_A(load_failure_text(at, digits)), body.n ? ": " : "", STR_A(str_take(body, 200)));
}

/* --- Sending ---------------------------------------------------------------------------------- */

static void take_next(struct worker *w)
{
    const struct load_config *cfg = w->run->cfg;

    w->next_ns = load_schedule_next(&w->schedule, &w->next_number);
    w->more = w->next_number < w->run->numbers &&
              (!cfg->duration_ns || w->next_ns < cfg->duration_ns) &&
              w->next_ns < (int64_t)LOAD_SECONDS_MAX * NS_PER_S;
}

static void to_idle(struct worker *w, struct client *c)
{
    c->next_idle = NULL;
    if (w->idle_last)
        w->idle_last->next_idle = c;
    else
        w->idle_first = c;
    w->idle_last = c;
}

static struct client *from_idle(struct worker *w)
{
    struct client *c = w->idle_first;

    w->idle_first = c->next_idle;
    if (!w->idle_first)
        w->idle_last = NULL;
    return c;
}

static void tell_injected(struct worker *w, size_t phase)
{
    struct worker_mail *m;

    w->phase_told[phase] = true;
    if (!w->run->report->phases[phase].injected)
        return;
    m = mem_zalloc(sizeof(*m));
    m->kind = WORKER_INJECTED;
    m->phase = phase;
    m->wall_ns = time_wall_ns();
    mailbox_post(&w->run->mailbox, &m->mail);
}

static void send_next(struct worker *w, struct client *c, int64_t now_ns)
{
    const struct run *run = w->run;
    const struct load_bodies *bodies;
    const struct load_text *text;

    c->intended_ns = w->next_ns;
    c->number = w->next_number;
    c->row = (size_t)(c->number % run->cfg->rows->n);
    c->phase = phase_at(run->report, c->intended_ns);
    if (UNLIKELY(!w->phase_told[c->phase]))
        tell_injected(w, c->phase);
    bodies = run->bodies[c->phase];
    text = &bodies->rows[c->row];
    buf_clear(&c->conn.out);
    buf_add(&c->conn.out, bodies->bytes + text->at, text->n);
    load_id_write(run, c->number, c->conn.out.p + text->id_at);
    second_of(w, c->intended_ns)->requests++;
    w->phases[c->phase].requests++;
    w->busy++;
    take_next(w);
    load_conn_send(&c->conn, now_ns + run->start_ns);
}

/* Sends what is due. Entered once: an answer that comes in the middle of it only frees its
 * connection. */
static void dispatch(struct worker *w, int64_t now_ns)
{
    int64_t until_ns;

    if (w->dispatching)
        return;
    w->dispatching = true;
    until_ns = MIN(now_ns, atomic_load(&w->run->stop_ns));
    while (w->more && w->idle_first && w->next_ns <= until_ns)
        send_next(w, from_idle(w), now_ns);
    w->dispatching = false;
    if (w->more && w->next_ns > now_ns)
        loop_timer_set(w->loop, &w->pace, w->next_ns + w->run->start_ns);
}

static void on_pace(struct loop *l, struct loop_timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, pace);

    (void)l;
    dispatch(w, run_now(w));
}

static void on_answer(struct load_conn *conn, int status, enum load_failure failure, str body)
{
    struct client *c = CONTAINER_OF(conn, struct client, conn);
    struct worker *w = c->worker;
    const struct run *run = w->run;
    int64_t now_ns = run_now(w);
    struct load_tally *second = second_of(w, c->intended_ns), *phase = &w->phases[c->phase];
    bool ok = status >= 200 && status < 300;
    uint64_t latency_ns = (uint64_t)MAX(now_ns - c->intended_ns, INT64_C(0));

    w->busy--;
    w->last_answer_ns = now_ns;
    if (status || failure == LOAD_FAIL_TIMEOUT) {
        latency_record(&second->latency, latency_ns);
        latency_record(&phase->latency, latency_ns);
    }
    second->ok += ok, second->failed += !ok;
    phase->ok += ok, phase->failed += !ok;
    if (!ok)
        note_failure(w, status, failure, body);
    if (ok && run->cfg->rows->label_classes) {
        str predicted = load_answer_class(&run->cfg->reader, body);

        if (predicted.p) {
            judge(w, c->row, predicted, second);
            judge(w, c->row, predicted, phase);
        }
    }
    if (ok && run->cfg->feedback && run->cfg->rows->labels[c->row].p)
        feedback_add(w, now_ns + run->cfg->label_delay_ns, c->number, c->row);
    to_idle(w, c);
    dispatch(w, now_ns);
}

/* --- The end ---------------------------------------------------------------------------------- */

static void fail_late(struct worker *w)
{
    int64_t now_ns = time_mono_ns();

    for (uint32_t i = 0; i < w->client_count; i++) {
        struct load_conn *c = &w->clients[i].conn;

        if (load_conn_busy(c) && now_ns - c->sent_ns > w->run->timeout_ns)
            load_conn_fail(c, LOAD_FAIL_TIMEOUT);
    }
}

/* Tells the run about seconds that are over. */
static void tell_seconds(struct worker *w, int64_t now_ns)
{
    while (w->posted < w->second_count &&
           ((int64_t)w->posted + 1) * NS_PER_S + SECOND_GRACE_NS <= now_ns) {
        struct worker_mail *m = mem_zalloc(sizeof(*m));

        m->kind = WORKER_SECOND;
        m->at = w->posted;
        m->tally = w->seconds[w->posted++];
        mailbox_post(&w->run->mailbox, &m->mail);
    }
}

/* Requests that were due by then and found no connection. */
static void drop_rest(struct worker *w, int64_t until_ns)
{
    while (w->more && w->next_ns <= until_ns) {
        w->dropped++;
        take_next(w);
    }
    w->more = false;
}

static bool is_over(struct worker *w, int64_t now_ns)
{
    int64_t stop_ns = atomic_load(&w->run->stop_ns);
    bool stopped = stop_ns <= now_ns;

    if (!w->draining && (stopped || !w->more)) {
        w->draining = true;
        w->end_ns = now_ns;
    }
    if (stopped)
        drop_rest(w, stop_ns);
    /* Requests still due are held up by connections; give them a while past their schedule. */
    if (w->more && now_ns > w->run->planned_ns + DRAIN_NS)
        drop_rest(w, now_ns);
    if (!w->draining || w->busy)
        return false;
    return stopped || feedback_empty(w) ||
           now_ns > w->end_ns + w->run->cfg->label_delay_ns + LABELS_WAIT_NS;
}

static void on_tick(struct loop *l, struct loop_timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, tick);
    int64_t now_ns = run_now(w);

    fail_late(w);
    feedback_tick(w, now_ns);
    tell_seconds(w, now_ns);
    dispatch(w, now_ns);
    if (is_over(w, now_ns))
        loop_stop(l);
    else
        loop_timer_set(l, t, time_mono_ns() + TICK_NS);
}

void worker_main(void *worker)
{
    struct worker *w = worker;
    struct worker_mail *m;

    loop_timer_set(w->loop, &w->tick, w->run->start_ns);
    loop_timer_set(w->loop, &w->pace, w->run->start_ns);
    loop_run(w->loop);
    m = mem_zalloc(sizeof(*m));
    m->kind = WORKER_DONE;
    mailbox_post(&w->run->mailbox, &m->mail);
}

int worker_init(struct worker *w, struct run *run, uint32_t index, struct err *e)
{
    const struct load_config *cfg = run->cfg;
    uint32_t connections = cfg->connections ? cfg->connections : 64;

    *w = (struct worker){.run = run, .index = index};
    TRY(loop_new(&w->loop, e));
    w->pace.fn = on_pace;
    w->tick.fn = on_tick;
    w->client_count = MAX(connections / cfg->threads, 1u);
    w->clients = mem_zalloc(w->client_count * sizeof(*w->clients));
    for (uint32_t i = 0; i < w->client_count; i++) {
        struct client *c = &w->clients[i];

        c->worker = w;
        load_conn_init(&c->conn, w->loop, &cfg->address, on_answer, w);
        to_idle(w, c);
    }
    feedback_init(w);
    load_schedule_init(&w->schedule, cfg->rate, cfg->poisson, index, cfg->threads, cfg->seed);
    take_next(w);
    return 0;
}

void worker_free(struct worker *w)
{
    for (uint32_t i = 0; i < w->client_count; i++)
        load_conn_done(&w->clients[i].conn);
    feedback_free(w);
    mem_free(w->clients);
    mem_free(w->seconds);
    loop_free(w->loop);
}
