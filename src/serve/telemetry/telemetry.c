/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The telemetry thread: a loop with one timer. A turn drains every ring once, what comes in
 * meanwhile is for the next, and then writes the lines and looks whether spans are due. It sleeps
 * BUSY_NS while notes come and IDLE_NS while none do; a ring that is half full wakes it.
 *
 * Sampling compares 64 bits of the trace id, or of the hash of the request id, with a threshold: so
 * the same request is chosen by every gateway, every time, and one share is always part of any
 * larger one.
 */
#include "serve/telemetry/telemetry.h"

#include "base/mem.h"
#include "base/time.h"
#include "loop/mailbox.h"
#include "loop/thread.h"

#define BUSY_NS (10 * NS_PER_MS)
#define IDLE_NS (100 * NS_PER_MS)

struct telemetry {
    struct loop *loop; /* of the thread */
    struct thread thread;
    struct loop_timer turn;
    struct mailbox mailbox;
    struct mail wake, reopen;
    bool woken, reopening;     /* atomic: the mail is under way */
    struct access_log log;     /* cfg.path NULL: none */
    struct exporter *exporter; /* owned; NULL: none */
    uint32_t loop_count;
    struct telemetry_loop *loops; /* owned, with their rings */
};

/* --- The loops' side -------------------------------------------------------------------------- */

struct telemetry_loop *telemetry_loop_of(struct telemetry *t, uint32_t loop)
{
    return t ? &t->loops[loop] : NULL;
}

enum note_why telemetry_wants(const struct telemetry_loop *tl, uint64_t key, bool failed,
                              uint64_t total_us)
{
    if (!tl->logs)
        return NOTE_NOT_LOGGED;
    if (failed && tl->errors)
        return NOTE_ERROR;
    if (total_us >= tl->slow_us)
        return NOTE_SLOW;
    return key < tl->log_below || tl->log_below == UINT64_MAX ? NOTE_SAMPLE : NOTE_NOT_LOGGED;
}

static uint64_t threshold(double share)
{
    const double all = 18446744073709551616.0; /* 2^64 */

    return share >= 1 ? UINT64_MAX : share <= 0 ? 0 : (uint64_t)(share * all);
}

static void post_once(struct telemetry *t, struct mail *m, bool *under_way)
{
    if (!__atomic_exchange_n(under_way, true, __ATOMIC_ACQ_REL))
        mailbox_post(&t->mailbox, m);
}

void telemetry_wake(struct telemetry *t)
{
    post_once(t, &t->wake, &t->woken);
}

void telemetry_reopen(struct telemetry *t)
{
    if (t)
        post_once(t, &t->reopen, &t->reopening);
}

/* --- The thread ------------------------------------------------------------------------------- */

static void take(struct telemetry *t, const struct note *n)
{
    if (n->why != NOTE_NOT_LOGGED)
        access_log_add(&t->log, n);
    if (n->exported)
        exporter_add(t->exporter, n);
}

static bool drain(struct telemetry *t, struct note_ring *r)
{
    uint64_t stop = __atomic_load_n(&r->put, __ATOMIC_ACQUIRE);
    const struct note *n;
    bool any = false;

    while (r->got != stop && (n = note_next(r))) {
        take(t, n);
        note_release(r);
        any = true;
    }
    return any;
}

static bool turn(struct telemetry *t, int64_t now_ns)
{
    bool any = false;

    for (uint32_t i = 0; i < t->loop_count; i++)
        any |= drain(t, t->loops[i].ring);
    if (t->log.cfg.path)
        access_log_flush(&t->log);
    if (t->exporter)
        exporter_turn(t->exporter, now_ns);
    return any;
}

static void on_turn(struct loop *loop, struct loop_timer *timer)
{
    struct telemetry *t = CONTAINER_OF(timer, struct telemetry, turn);
    bool any = turn(t, loop_now_ns(loop));

    loop_timer_set(loop, timer, loop_now_ns(loop) + (any ? BUSY_NS : IDLE_NS));
}

static void on_mail(struct loop *loop, struct mailbox *mb, struct mail *m)
{
    struct telemetry *t = CONTAINER_OF(mb, struct telemetry, mailbox);

    if (m == &t->reopen) {
        __atomic_store_n(&t->reopening, false, __ATOMIC_RELEASE);
        if (t->log.cfg.path)
            access_log_reopen(&t->log);
        return;
    }
    __atomic_store_n(&t->woken, false, __ATOMIC_RELEASE);
    on_turn(loop, &t->turn);
}

static void thread_main(void *arg)
{
    struct telemetry *t = arg;

    loop_run(t->loop);
}

/* --- Life ------------------------------------------------------------------------------------- */

static void loops_make(struct telemetry *t, const struct telemetry_config *cfg, uint32_t loops)
{
    t->loops = mem_zalloc(loops * sizeof(*t->loops));
    for (; t->loop_count < loops; t->loop_count++)
        t->loops[t->loop_count] = (struct telemetry_loop){
            .t = t,
            .logs = cfg->log.path != NULL,
            .exports = cfg->otlp.endpoint != NULL,
            .errors = cfg->log_errors,
            .log_below = threshold(cfg->log_sample),
            .trace_below = threshold(cfg->otlp_sample),
            .slow_us = cfg->log_slow_ns > 0 ? (uint64_t)(cfg->log_slow_ns / NS_PER_US) : UINT64_MAX,
            .ring = mem_zalloc_aligned(64, sizeof(struct note_ring))};
}

int telemetry_new(const struct telemetry_config *cfg, uint32_t loops, struct telemetry **ret,
                  struct err *e)
{
    AUTO(telemetry_freep) struct telemetry *t = NULL;

    *ret = NULL;
    if (!cfg->log.path && !cfg->otlp.endpoint)
        return 0;
    t = mem_zalloc_aligned(64, sizeof(*t));
    t->log.fd = -1;
    loops_make(t, cfg, loops);
    TRY(loop_new(&t->loop, e));
    mailbox_open(&t->mailbox, t->loop, on_mail);
    if (cfg->log.path && access_log_open(&t->log, &cfg->log, e))
        return err_context(e, "gateway.access_log.path");
    if (cfg->otlp.endpoint)
        TRY(exporter_new(&cfg->otlp, t->loop, &t->exporter, e));
    t->turn.fn = on_turn;
    loop_timer_set(t->loop, &t->turn, time_mono_ns() + IDLE_NS);
    *ret = TAKE(t);
    return 0;
}

int telemetry_start(struct telemetry *t, struct err *e)
{
    return t ? thread_start(&t->thread, "weir-telemetry", THREAD_ANY_CPU, thread_main, t, e) : 0;
}

void telemetry_free(struct telemetry *t)
{
    if (!t)
        return;
    if (t->thread.running) {
        loop_stop(t->loop);
        thread_join(&t->thread);
    }
    if (t->loop)
        mailbox_close(&t->mailbox);
    (void)turn(t, time_mono_ns());
    exporter_free(t->exporter);
    access_log_close(&t->log);
    loop_free(t->loop);
    for (uint32_t i = 0; i < t->loop_count; i++)
        mem_free(t->loops[i].ring);
    mem_free(t->loops);
    mem_free(t);
}

/* --- Metrics ---------------------------------------------------------------------------------- */

static void write_counter(struct buf *to, const char *name, const char *help, uint64_t v)
{
    buf_printf(to, "# HELP %s %s\n# TYPE %s counter\n%s %llu\n", name, help, name, name,
               (unsigned long long)v);
}

void telemetry_write_metrics(const struct telemetry *t, struct buf *to)
{
    uint64_t dropped = 0;

    if (!t)
        return;
    for (uint32_t i = 0; i < t->loop_count; i++)
        dropped += __atomic_load_n(&t->loops[i].ring->dropped, __ATOMIC_RELAXED);
    write_counter(to, "weir_telemetry_dropped_total",
                  "Requests not told of because the telemetry thread was behind.", dropped);
    if (t->log.cfg.path) {
        write_counter(to, "weir_access_log_lines_total", "Lines of the access log written.",
                      __atomic_load_n(&t->log.lines, __ATOMIC_RELAXED));
        write_counter(to, "weir_access_log_lost_total",
                      "Lines that could not be written: the disk refused them.",
                      __atomic_load_n(&t->log.failures, __ATOMIC_RELAXED));
        write_counter(to, "weir_access_log_rotations_total", "Times the file was begun anew.",
                      __atomic_load_n(&t->log.rotations, __ATOMIC_RELAXED));
    }
    if (t->exporter)
        exporter_write_metrics(t->exporter, to);
}
