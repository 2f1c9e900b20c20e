/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run: phases from the injections, all requests rendered, workers started, their news passed on,
 * their counts added up.
 *
 * The calling thread runs a loop of its own for signals and mail, so that what its callbacks do
 * (print a line, call the control process) never delays a request.
 */
#include "load/priv.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"

#include <stdlib.h>

#define LIVE_SECONDS 64u /* workers are never further apart: the run stops telling before */

/* --- Phases ----------------------------------------------------------------------------------- */

static int by_instant(const void *x, const void *y)
{
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;

    return (a > b) - (a < b);
}

/* The injections that hold at an instant. */
static size_t active_at(const struct load_config *cfg, int64_t at_ns,
                        const struct load_injection *ret[LOAD_INJECTIONS_MAX])
{
    size_t n = 0;

    for (size_t i = 0; i < cfg->injection_count; i++)
        if (cfg->injections[i].at_ns <= at_ns && at_ns < cfg->injections[i].until_ns)
            ret[n++] = &cfg->injections[i];
    return n;
}

static str phase_name(struct arena *a, const struct load_injection *const *active, size_t n)
{
    str name = n ? (active[0]->attack.n ? active[0]->attack : active[0]->spec) : S("clean");

    for (size_t i = 1; i < n; i++)
        name = arena_printf(a, STR_F " & " STR_F, STR_A(name),
                            STR_A(active[i]->attack.n ? active[i]->attack : active[i]->spec));
    return arena_dup(a, name);
}

static void make_phases(struct run *run)
{
    const struct load_config *cfg = run->cfg;
    const struct load_injection *active[LOAD_INJECTIONS_MAX];
    int64_t cuts[2 * LOAD_INJECTIONS_MAX + 1] = {0};
    struct load_report *r = run->report;
    size_t n = 1;

    for (size_t i = 0; i < cfg->injection_count; i++) {
        cuts[n++] = cfg->injections[i].at_ns;
        if (cfg->injections[i].until_ns != INT64_MAX)
            cuts[n++] = cfg->injections[i].until_ns;
    }
    qsort(cuts, n, sizeof(cuts[0]), by_instant);
    for (size_t i = 0; i < n; i++) {
        struct load_phase *p;
        size_t count;

        if (i && cuts[i] == cuts[i - 1])
            continue;
        if (r->phase_count)
            r->phases[r->phase_count - 1].to_ns = cuts[i];
        p = &r->phases[r->phase_count++];
        count = active_at(cfg, cuts[i], active);
        p->from_ns = cuts[i];
        p->to_ns = INT64_MAX;
        p->injected = count > 0;
        p->name = phase_name(&run->report->arena, active, count);
    }
}

static NODISCARD int render(struct run *run, struct err *e)
{
    const struct load_config *cfg = run->cfg;
    struct load_report *r = run->report;

    for (size_t i = 0; i < r->phase_count; i++) {
        const struct load_injection *active[LOAD_INJECTIONS_MAX];
        size_t n = active_at(cfg, r->phases[i].from_ns, active), same = 0;
        AUTO(arena_done) struct arena a = {0};

        while (same < i && !str_eq(r->phases[same].name, r->phases[i].name))
            same++;
        if (same < i) {
            run->bodies[i] = run->bodies[same];
            continue;
        }
        arena_init(&a, 0);
        TRY(load_bodies_render(&cfg->form, cfg->rows,
                               load_inject_apply(active, n, cfg->rows, cfg->seed, &a),
                               &run->bodies[i], e));
    }
    return 0;
}

/* --- News ------------------------------------------------------------------------------------- */

static void take_second(struct run *run, const struct worker_mail *m)
{
    struct load_tally *live = &run->live[m->at % LIVE_SECONDS];
    struct load_report *r = run->report;
    size_t phase = 0;

    load_tally_merge(live, &m->tally);
    if (++run->live_told[m->at % LIVE_SECONDS] < run->cfg->threads)
        return;
    while (phase + 1 < r->phase_count && (int64_t)m->at * NS_PER_S >= r->phases[phase].to_ns)
        phase++;
    if (run->events && run->events->second)
        run->events->second(
            run->events->arg,
            &(struct load_second){.at = m->at, .phase = &r->phases[phase], .tally = live});
    *live = (struct load_tally){0};
    run->live_told[m->at % LIVE_SECONDS] = 0;
}

static void on_mail(struct loop *l, struct mailbox *mb, struct mail *mail)
{
    struct run *run = CONTAINER_OF(mb, struct run, mailbox);
    AUTO(mem_freep) struct worker_mail *m = CONTAINER_OF(mail, struct worker_mail, mail);
    struct load_phase *phase = &run->report->phases[m->phase];

    switch (m->kind) {
    case WORKER_SECOND:
        take_second(run, m);
        break;
    case WORKER_INJECTED:
        if (!phase->told && run->events && run->events->injected)
            run->events->injected(run->events->arg, phase, m->wall_ns);
        phase->told = true;
        break;
    case WORKER_DONE:
        if (++run->done == run->cfg->threads)
            loop_stop(l);
        break;
    }
}

static void on_signal(struct loop *l, struct loop_signals *s, int signo)
{
    struct run *run = CONTAINER_OF(s, struct run, signals);

    (void)l, (void)signo;
    run->report->stopped = true;
    atomic_store(&run->stop_ns, time_mono_ns() - run->start_ns);
}

/* --- The run ---------------------------------------------------------------------------------- */

static NODISCARD int check(const struct load_config *cfg, struct err *e)
{
    if (!(cfg->rate > 0) || cfg->rate > 1e7)
        return FAIL(e, INVALID_ARGUMENT, "rate is %g, expected up to 10000000 requests a second",
                    cfg->rate);
    if (cfg->threads < 1 || cfg->threads > LOAD_THREADS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "threads is %u, expected 1 to %u", cfg->threads,
                    LOAD_THREADS_MAX);
    if (cfg->connections > LOAD_CONNECTIONS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "connections is %u, expected at most %u", cfg->connections,
                    LOAD_CONNECTIONS_MAX);
    if (cfg->duration_ns > LOAD_SECONDS_MAX * NS_PER_S)
        return FAIL(e, INVALID_ARGUMENT, "a run lasts at most %u s", LOAD_SECONDS_MAX);
    if (cfg->loop && !cfg->duration_ns && !cfg->requests)
        return FAIL(e, INVALID_ARGUMENT, "--loop needs --duration or --requests");
    if (cfg->feedback && !cfg->rows->labels)
        return FAIL(e, INVALID_ARGUMENT, "labels can only be sent with --label COLUMN");
    ASSERT(cfg->rows->n > 0);
    ASSERT(cfg->injection_count <= LOAD_INJECTIONS_MAX);
    return 0;
}

/* Nobody there at the start is an error of the caller, not a failed request. */
static NODISCARD int knock(const struct load_config *cfg, struct err *e)
{
    AUTO(file_closep) int fd = -1;

    return dial(&cfg->address, time_mono_ns() + 5 * NS_PER_S, &fd, e);
}

static void plan(struct run *run)
{
    const struct load_config *cfg = run->cfg;
    double planned;

    run->numbers = cfg->loop ? UINT64_MAX : cfg->rows->n;
    if (cfg->requests)
        run->numbers = MIN(run->numbers, cfg->requests);
    planned = (double)run->numbers / cfg->rate * 1e9;
    run->planned_ns = (int64_t)MIN(planned, (double)LOAD_SECONDS_MAX * 1e9);
    if (cfg->duration_ns)
        run->planned_ns = MIN(run->planned_ns, cfg->duration_ns);
    run->timeout_ns = cfg->timeout_ns ? cfg->timeout_ns : 5 * NS_PER_S;
    run->positive =
        cfg->rows->label_classes ? load_class_of(cfg->rows, cfg->positive) : LOAD_CLASS_NONE;
}

static void add_up(struct run *run)
{
    struct load_report *r = run->report;

    for (uint32_t i = 0; i < run->cfg->threads; i++)
        r->second_count = MAX(r->second_count, run->workers[i].second_count);
    r->seconds = mem_zalloc(MAX(r->second_count, (size_t)1) * sizeof(*r->seconds));
    for (uint32_t i = 0; i < run->cfg->threads; i++) {
        const struct worker *w = &run->workers[i];

        for (size_t s = 0; s < w->second_count; s++)
            load_tally_merge(&r->seconds[s], &w->seconds[s]);
        for (size_t p = 0; p < r->phase_count; p++)
            load_tally_merge(&r->phases[p].tally, &w->phases[p]);
        for (size_t f = 0; f < LOAD_FAIL_COUNT; f++)
            r->failures[f] += w->failures[f];
        r->dropped += w->dropped;
        r->labels_sent += w->feedback.sent;
        r->labels_accepted += w->feedback.accepted;
        r->labels_failed += w->feedback.failed;
        r->elapsed_ns = MAX(r->elapsed_ns, w->last_answer_ns);
        if (!r->first_failure[0])
            memcpy(r->first_failure, w->first_failure, sizeof(r->first_failure));
    }
    for (size_t p = 0; p < r->phase_count; p++)
        load_tally_merge(&r->total, &r->phases[p].tally);
}

static NODISCARD int work(struct run *run, struct err *e)
{
    static const int signos[] = {SIGINT, SIGTERM, 0};
    uint32_t started = 0;
    int rc = 0;

    TRY(loop_signals_open(run->loop, &run->signals, signos, on_signal, e));
    run->start_ns = time_mono_ns() + 20 * NS_PER_MS;
    run->report->start_wall_ns = time_wall_ns() + 20 * NS_PER_MS;
    while (!rc && started < run->cfg->threads) {
        rc = thread_start(&run->workers[started].thread, "load", THREAD_ANY_CPU, worker_main,
                          &run->workers[started], e);
        started += !rc;
    }
    if (rc)
        atomic_store(&run->stop_ns, 0);
    else
        loop_run(run->loop);
    for (uint32_t i = 0; i < started; i++)
        thread_join(&run->workers[i].thread);
    loop_signals_close(run->loop, &run->signals);
    return rc;
}

static void run_done(struct run *run)
{
    struct load_report *r = run->report;

    for (uint32_t i = 0; run->workers && i < run->cfg->threads; i++)
        worker_free(&run->workers[i]);
    mem_free(run->workers);
    for (size_t i = 0; r && i < r->phase_count; i++) {
        bool shared = false;

        for (size_t k = 0; k < i; k++)
            shared |= run->bodies[k] == run->bodies[i];
        if (!shared)
            load_bodies_free(run->bodies[i]);
    }
    mailbox_close(&run->mailbox);
    mem_free(run->live);
    mem_free(run->live_told);
    loop_free(run->loop);
}

static NODISCARD int prepare(struct run *run, struct err *e)
{
    const struct load_config *cfg = run->cfg;
    char id[UUID_SIZE];

    make_phases(run);
    TRY(render(run, e));
    plan(run);
    uuid_v7(time_wall_ns(), id);
    memcpy(run->id_prefix, id, 24);
    run->live = mem_zalloc(LIVE_SECONDS * sizeof(*run->live));
    run->live_told = mem_zalloc(LIVE_SECONDS * sizeof(*run->live_told));
    TRY(loop_new(&run->loop, e));
    mailbox_open(&run->mailbox, run->loop, on_mail);
    run->workers = mem_zalloc_aligned(64, cfg->threads * sizeof(*run->workers));
    for (uint32_t i = 0; i < cfg->threads; i++)
        TRY(worker_init(&run->workers[i], run, i, e));
    return 0;
}

int load_run(const struct load_config *cfg, const struct load_events *events,
             struct load_report **ret, struct err *e)
{
    AUTO(load_report_freep) struct load_report *r = mem_zalloc(sizeof(*r));
    AUTO(run_done)
    struct run run = {.cfg = cfg, .events = events, .report = r, .stop_ns = INT64_MAX};

    arena_init(&r->arena, 0);
    TRY(check(cfg, e));
    TRY(knock(cfg, e));
    TRY(prepare(&run, e));
    TRY(work(&run, e));
    mailbox_close(&run.mailbox);
    add_up(&run);
    *ret = TAKE(r);
    return 0;
}

void load_report_free(struct load_report *r)
{
    if (!r)
        return;
    arena_done(&r->arena);
    mem_free(r->seconds);
    mem_free(r);
}
