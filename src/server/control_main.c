/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control process: one thread that owns the meta store's writer, the monitors, the rollouts and
 * the links to gateways, and a few flow workers for what is slow. Everything the thread does is
 * short; what it decides is a fact before it is an effect, so that a restart goes on where it was.
 *
 * A turn: news (facts, wanted rollouts) -> plan if stale; a digest -> monitors, rollouts -> plan if
 * stale.
 */
#include "base/files.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"
#include "server/control.h"

#include <signal.h>
#include <unistd.h>

#define TICK_NS (100 * NS_PER_MS)
#define SLOW_TICK_NS NS_PER_S
#define WORKERS 3
#define STEP_NS (2 * NS_PER_S) /* a date that goes back by more was put back */

/* --- One turn's work -------------------------------------------------------------------------- */

static void log_failure(const char *what, const struct err *e)
{
    log_err(what, e);
}

static void work(struct control *c)
{
    struct err e;

    if (control_start_wanted(c, &e))
        log_failure("rollout.wanted", &e);
    if (control_follow(c, &e))
        log_failure("journal.follow", &e);
    if (control_compile(c, &e))
        log_failure("plan.failed", &e);
}

static void on_news(struct loop *loop, struct mailbox *mb, struct mail *m)
{
    struct control *c = CONTAINER_OF(mb, struct control, news);

    (void)loop;
    if (m != &c->news_mail) { /* a worker wants the records sealed */
        gateways_seal(&c->gateways);
        mem_free(m);
        return;
    }
    __atomic_store_n(&c->news_posted, false, __ATOMIC_RELEASE);
    work(c);
}

/* On whichever thread committed. */
static void on_commit(void *arg, enum meta_topic topic)
{
    struct control *c = arg;

    (void)topic;
    if (!__atomic_exchange_n(&c->news_posted, true, __ATOMIC_ACQ_REL))
        mailbox_post(&c->news, &c->news_mail);
}

/* --- Gateways --------------------------------------------------------------------------------- */

static void on_digest(void *ctx, const struct gateway_peer *from, const struct digest *d)
{
    struct control *c = ctx;
    int64_t now = time_wall_ns();
    struct err e;

    (void)from;
    if (!control_evidence_note(c, d))
        return;
    for (uint32_t i = 0; i < d->series_count; i++)
        if (!d->series[i]->shadow)
            tally_labels(&c->tally, d->series[i]->endpoint, now, d->series[i]->labels.joined);
    if (watch_digest(c->watch, c->meta, d, now, &e))
        log_failure("watch.failed", &e);
    for (uint32_t i = 0; i < d->series_count; i++)
        tally_drifting(&c->tally, d->series[i]->endpoint,
                       watch_drifting(c->watch, d->series[i]->endpoint));
    if (rollouts_digest(c->rollouts, c->meta, d, now, &e))
        log_failure("rollout.failed", &e);
    if (control_compile(c, &e))
        log_failure("plan.failed", &e);
}

/* That a plan came into force belongs to the story that made it. */
static str story_of_plan(const struct control *c, const char *plan)
{
    return plan && plan[0] && strcmp(plan, c->plan) == 0 ? str_of(c->plan_told) : STR_NULL;
}

static void gateway_fact(struct control *c, enum fact_type type, const struct gateway_peer *p,
                         const char *plan, str reason, double load_ms)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *data;
    struct err e;

    arena_init(&a, 0);
    data = json_new_object(&a);
    json_set_str(&a, data, S("gateway"), str_of(p->name));
    json_set_int(&a, data, S("pid"), p->pid);
    if (plan)
        json_set_str(&a, data, S("plan"), str_of(plan));
    if (load_ms > 0)
        json_set_real(&a, data, S("took_ms"), load_ms);
    if (journal_append(c->meta,
                       &(struct fact_new){.type = type,
                                          .subject = arena_printf(&a, "gateway/%s", p->name),
                                          .actor = S("weir"),
                                          .reason = reason,
                                          .correlation = story_of_plan(c, plan),
                                          .data = data},
                       NULL, &e))
        log_failure("journal.failed", &e);
}

static void on_plan(void *ctx, const struct gateway_peer *from, const char *plan, const char *error,
                    double load_ms)
{
    gateway_fact(ctx, error ? FACT_PLAN_REFUSED : FACT_PLAN_LIVE, from, plan,
                 error ? str_of(error) : STR_NULL, load_ms);
}

static void on_gateway(void *ctx, const struct gateway_peer *who, bool joined)
{
    gateway_fact(ctx, joined ? FACT_GATEWAY_STARTED : FACT_GATEWAY_STOPPED, who, NULL, STR_NULL, 0);
}

/* --- Clocks ----------------------------------------------------------------------------------- */

static void tick(struct loop *loop, struct loop_timer *t)
{
    struct control *c = CONTAINER_OF(t, struct control, tick);
    struct err e;

    if (rollouts_tick(c->rollouts, c->meta, time_wall_ns(), &e))
        log_failure("rollout.failed", &e);
    work(c);
    loop_timer_set(loop, t, loop_now_ns(loop) + TICK_NS);
}

/* A date that is put back must not hold timers of flows up by as much. Put forward, it lets them be
 * due early, as it does after a machine slept. */
static void look_at_date(struct control *c)
{
    int64_t ahead_ns = time_wall_ns() - time_mono_ns(), by_ns = ahead_ns - c->wall_ahead_ns;
    struct err e;

    if (by_ns < -STEP_NS) {
        log_event(LOG_WARN, "clock.stepped", "by_s=%.1f", (double)by_ns / 1e9);
        if (flow_clock_stepped(c->meta, by_ns, &e)) {
            log_failure("clock.failed", &e);
            return; /* again at the next look */
        }
    }
    c->wall_ahead_ns = ahead_ns;
}

static void slow_tick(struct loop *loop, struct loop_timer *t)
{
    struct control *c = CONTAINER_OF(t, struct control, slow_tick);
    int64_t now = time_wall_ns();
    struct err e;

    look_at_date(c);
    control_evidence_save(c, false);
    if (c->project && retrain_tick(&c->retrain, c->meta, c->project, now, &e))
        log_failure("trigger.failed", &e);
    issuers_tick(c->issuers, loop_now_ns(loop));
    if (c->project && control_export_if_due(c, &e))
        log_failure("export.failed", &e);
    loop_timer_set(loop, t, loop_now_ns(loop) + SLOW_TICK_NS);
}

static void on_signal(struct loop *loop, struct loop_signals *s, int signo)
{
    (void)s;
    log_event(LOG_INFO, "control.stopping", "signal=%d", signo);
    loop_stop(loop);
}

/* --- Life ------------------------------------------------------------------------------------- */

static NODISCARD int open_stores(struct control *c, struct err *e)
{
    const char *state = c->options->state_dir;

    TRY(meta_store_open(state, NULL, &c->store, e));
    TRY(meta_open(c->store, &c->meta, e));
    TRY(blobs_open(path_join(&c->arena, state, "blobs"), &c->blobs, e));
    TRY(file_make_dirs(path_join(&c->arena, state, "run"), e));
    TRY(file_make_dirs(path_join(&c->arena, state, "lake"), e));
    TRY(file_make_dirs(path_join(&c->arena, state, "work"), e));
    TRY(watch_new(c->blobs, &c->watch, e));
    TRY(tally_load(&c->tally, c->meta, e));
    TRY(rollouts_new(c->meta, &c->rollouts, e));
    rollouts_compare_outputs(c->rollouts, c->meta, c->blobs);
    return control_evidence_load(c, e);
}

static NODISCARD int open_loop(struct control *c, struct err *e)
{
    static const int signos[] = {SIGTERM, SIGINT, 0};

    TRY(loop_new(&c->loop, e));
    TRY(loop_signals_open(c->loop, &c->signals, signos, on_signal, e));
    mailbox_open(&c->news, c->loop, on_news);
    c->gateways.ctx = c;
    c->gateways.on_digest = on_digest;
    c->gateways.on_plan = on_plan;
    c->gateways.on_change = on_gateway;
    return gateways_open(&c->gateways, c->loop, c->options->state_dir, e);
}

static NODISCARD int open_api(struct control *c, struct err *e)
{
    struct api_context context;
    str listen = json_str_or(json_path(c->project, "control.listen"), S("127.0.0.1:7070"));
    const char *asked = c->options->control ? c->options->control : c->options->listen;
    const char *address = asked ? asked : arena_dupz(&c->arena, listen);

    control_api_context(c, &context);
    return api_open(c->loop, address,
                    path_join(&c->arena, c->options->state_dir, "run/control.sock"), &context,
                    &c->api, e);
}

static NODISCARD int start_flows(struct control *c, struct err *e)
{
    const struct flow_reg regs[] = {
        {registry_flow(), &c->registry}, {retrain_flow(), &c->retrain}, {export_flow(), c}};

    return flow_runner_new(
        c->store,
        &(struct flow_options){.regs = regs, .reg_count = ARRAY_LEN(regs), .workers = WORKERS},
        &c->runner, e);
}

static NODISCARD int say_started(struct control *c, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *data;

    arena_init(&a, 0);
    data = json_new_object(&a);
    json_set_str(&a, data, S("version"), S(WEIR_VERSION));
    json_set_int(&a, data, S("pid"), getpid());
    return journal_append(c->meta,
                          &(struct fact_new){.type = FACT_CONTROL_STARTED,
                                             .subject = S("control"),
                                             .actor = S("weir"),
                                             .data = data},
                          NULL, e);
}

static NODISCARD int prepare(struct control *c, struct err *e)
{
    ssize_t n = readlink("/proc/self/exe", c->self, sizeof(c->self) - 1);
    struct err ignored;

    if (n <= 0)
        return FAIL_ERRNO(e, "cannot read /proc/self/exe");
    c->wall_ahead_ns = time_wall_ns() - time_mono_ns();
    TRY(open_stores(c, e));
    TRY(open_loop(c, e));
    control_ports(c);
    TRY(say_started(c, e));
    TRY(control_first_apply(c, e));
    TRY(control_load_project(c, e));
    TRY(watch_restore(c->watch, c->meta, e));
    if (plan_current_read(c->options->state_dir, c->plan, &ignored))
        c->plan[0] = '\0';
    c->plan_stale = true;
    TRY(control_follow(c, e));
    if (control_compile(c, &ignored)) /* a plan that cannot be made is no reason to be away */
        log_failure("plan.failed", &ignored);
    TRY(open_api(c, e));
    TRY(issuers_new(c->loop, c->meta, &c->project, &c->issuers, e));
    TRY(meta_watch(c->store, META_TOPIC_JOURNAL, on_commit, c, e));
    TRY(meta_watch(c->store, META_TOPIC_KV, on_commit, c, e));
    TRY(start_flows(c, e));
    c->ready = true;
    log_event(LOG_INFO, "control.ready", "api=%u plan=%.12s", api_port(c->api), c->plan);
    return 0;
}

static void finish(struct control *c)
{
    if (c->ready)
        control_evidence_save(c, true);
    if (c->store) {
        meta_unwatch(c->store, on_commit, c);
        flow_runner_free(c->runner);
    }
    api_close(c->api);
    issuers_free(c->issuers);
    gateways_close(&c->gateways);
    watch_free(c->watch);
    rollouts_free(c->rollouts);
    if (c->loop) {
        mailbox_close(&c->news);
        loop_signals_close(c->loop, &c->signals);
    }
    loop_free(c->loop);
    meta_close(c->meta);
    meta_store_close(c->store);
    blobs_close(c->blobs);
    arena_done(&c->project_arena);
    arena_done(&c->arena);
    tally_done(&c->tally);
}

int server_control_main(const struct server_options *o)
{
    struct control *c = mem_zalloc_aligned(64, sizeof(*c));
    struct err e;
    int rc;

    c->options = o;
    arena_init(&c->arena, 0);
    arena_init(&c->project_arena, 0);
    tally_init(&c->tally);
    rc = prepare(c, &e);
    if (rc) {
        log_err("control.failed", &e);
    } else {
        c->tick.fn = tick;
        c->slow_tick.fn = slow_tick;
        issuers_tick(c->issuers, time_mono_ns());
        loop_timer_set(c->loop, &c->tick, time_mono_ns() + TICK_NS);
        loop_timer_set(c->loop, &c->slow_tick, time_mono_ns() + SLOW_TICK_NS);
        loop_run(c->loop);
    }
    finish(c);
    mem_free(c);
    return rc ? code_exit_status(e.code) : 0;
}
