/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The true labels go back: some time after an answer, in batches, over a connection of their own
 * so that they never stand in the way of a request.
 *
 * The delay is the same for all, so answers come due in the order in which they came. A batch that
 * the server could not take now (503, no connection) is tried again some times; one that it refuses
 * is counted as failed.
 */
#include "load/priv.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/time.h"

#include <stdio.h>

#define RETRY_NS (100 * NS_PER_MS)
#define ATTEMPTS_MAX 30u
#define GATHER_NS (20 * NS_PER_MS) /* how long a due label waits for company */

void load_id_write(const struct run *run, uint64_t number, char *to)
{
    static const char hex[] = "0123456789abcdef";

    memcpy(to, run->id_prefix, 24);
    for (int i = 35; i >= 24; i--, number >>= 4)
        to[i] = hex[number & 15];
}

static void write_batch(struct worker *w, struct buf *body)
{
    const struct feedback *f = &w->feedback;
    const struct load_rows *rows = w->run->cfg->rows;
    char id[LOAD_ID_BYTES];

    buf_add_str(body, S("{\"feedback\":["));
    for (uint32_t i = 0; i < f->batch; i++) {
        const struct pending_label *p = &f->queue[(f->from + i) % f->cap];

        load_id_write(w->run, p->number, id);
        buf_add_str(body, i ? S(",{\"request_id\":\"") : S("{\"request_id\":\""));
        buf_add(body, id, LOAD_ID_BYTES);
        buf_add_str(body, S("\",\"label\":"));
        if (rows->labels_are_text)
            json_escape(body, rows->labels[p->row]);
        else
            buf_add_str(body, rows->labels[p->row]);
        buf_add_char(body, '}');
    }
    buf_add_str(body, S("]}"));
}

static void send_batch(struct worker *w)
{
    struct feedback *f = &w->feedback;
    AUTO(buf_done) struct buf body = {0};

    buf_init(&body, (size_t)16 << 20);
    write_batch(w, &body);
    ASSERT(!body.overflowed);
    buf_clear(&f->conn.out);
    http1_write_request(&f->conn.out, S("POST"), S("/v1/feedback"), w->run->cfg->form.host,
                        S("application/json"), body.n, true, w->run->cfg->form.extra);
    buf_add_str(&f->conn.out, buf_str(&body));
    f->attempts++;
    load_conn_send(&f->conn, time_mono_ns());
}

static void on_answer(struct load_conn *conn, int status, enum load_failure failure, str body)
{
    struct worker *w = conn->owner;
    struct feedback *f = &w->feedback;
    bool again = status == 0 || status == 503 || status == 429;
    char digits[8];

    if (again && f->attempts < ATTEMPTS_MAX) {
        f->retry_ns = time_mono_ns() + RETRY_NS;
        return;
    }
    if (status >= 200 && status < 300) {
        f->accepted += f->batch;
    } else {
        f->failed += f->batch;
        if (!w->first_failure[0])
            snprintf(w->first_failure, sizeof(w->first_failure), "feedback " STR_F ": " STR_F,
                     STR_A(load_failure_text(status ? LOAD_FAIL_STATUS((size_t)status) : failure,
                                             digits)),
                     STR_A(str_take(body, 200)));
    }
    f->from = (f->from + f->batch) % f->cap;
    f->n -= f->batch;
    f->batch = f->attempts = 0;
    f->retry_ns = 0;
    feedback_tick(w, time_mono_ns() - w->run->start_ns);
}

void feedback_add(struct worker *w, int64_t due_ns, uint64_t number, size_t row)
{
    struct feedback *f = &w->feedback;

    if (f->n == f->cap) {
        size_t cap = MAX(f->cap * 2, (size_t)4096);
        struct pending_label *queue = mem_alloc(cap * sizeof(*queue));

        for (size_t i = 0; i < f->n; i++)
            queue[i] = f->queue[(f->from + i) % f->cap];
        mem_free(f->queue);
        f->queue = queue;
        f->cap = cap;
        f->from = 0;
    }
    f->queue[(f->from + f->n++) % f->cap] =
        (struct pending_label){.due_ns = due_ns, .number = number, .row = row};
}

void feedback_tick(struct worker *w, int64_t now_ns)
{
    struct feedback *f = &w->feedback;
    uint32_t due = 0;

    if (load_conn_busy(&f->conn)) {
        if (time_mono_ns() - f->conn.sent_ns > w->run->timeout_ns)
            load_conn_fail(&f->conn, LOAD_FAIL_TIMEOUT);
        return;
    }
    if (f->batch) {
        if (time_mono_ns() >= f->retry_ns)
            send_batch(w);
        return;
    }
    while (due < LOAD_FEEDBACK_BATCH && due < f->n &&
           f->queue[(f->from + due) % f->cap].due_ns <= now_ns)
        due++;
    if (due == 0 || (due < LOAD_FEEDBACK_BATCH && f->queue[f->from].due_ns + GATHER_NS > now_ns))
        return;
    f->batch = due;
    f->sent += due;
    send_batch(w);
}

bool feedback_empty(const struct worker *w)
{
    return w->feedback.n == 0;
}

void feedback_init(struct worker *w)
{
    load_conn_init(&w->feedback.conn, w->loop, &w->run->cfg->address, on_answer, w);
}

void feedback_free(struct worker *w)
{
    load_conn_done(&w->feedback.conn);
    mem_free(w->feedback.queue);
}
