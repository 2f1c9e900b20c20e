/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `weir up`: the supervisor. It starts control and the gateway as two processes of this same
 * program, starts again whichever dies (at once at first, then with growing pauses), and on SIGTERM
 * or SIGINT stops the gateway first, so that its last records and digests still find control. The
 * two do not need each other to live: a gateway without control serves its plan, a control without
 * gateways keeps its state.
 */
#include "server/server.h"

#include "base/arena.h"
#include "base/time.h"
#include "loop/child.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define PAUSE_MIN_NS (100 * NS_PER_MS)
#define PAUSE_MAX_NS (10 * NS_PER_S)
#define STABLE_NS                                                                  \
    (30 * NS_PER_S) /* a process that lived this long starts again without a pause \
                     */
#define STOP_GRACE_NS (15 * NS_PER_S)
#define ARGS_MAX 24

struct ward {
    struct supervisor *s;
    const char *name;
    const char *argv[ARGS_MAX];
    struct child child;
    struct loop_timer restart;
    int64_t started_ns, pause_ns;
    int exit_status; /* of the last run */
};

struct supervisor {
    const struct server_options *options;
    struct arena arena;
    struct loop *loop;
    struct loop_signals signals;
    struct ward control, gateway;
    bool stopping;
};

static void ward_start(struct ward *w);

static void ward_later(struct ward *w)
{
    bool stable = loop_now_ns(w->s->loop) - w->started_ns > STABLE_NS;

    w->pause_ns = stable || !w->pause_ns ? PAUSE_MIN_NS : MIN(w->pause_ns * 2, PAUSE_MAX_NS);
    loop_timer_set(w->s->loop, &w->restart, loop_now_ns(w->s->loop) + w->pause_ns);
}

static void on_exit_of(struct loop *loop, struct child *c)
{
    struct ward *w = CONTAINER_OF(c, struct ward, child);
    char text[CHILD_TEXT_SIZE];
    struct child_exit x;

    if (!child_collect(c, &x))
        return;
    child_exit_text(&x, text);
    w->exit_status = x.status;
    if (w->s->stopping) {
        if (w == &w->s->gateway)
            child_signal(&w->s->control.child, SIGTERM);
        if (!w->s->control.child.pid && !w->s->gateway.child.pid)
            loop_stop(loop);
        return;
    }
    /* Wrong use cannot be cured by starting again: the message is on the screen. */
    if (x.status == 2) {
        w->s->stopping = true;
        child_signal(&w->s->gateway.child, SIGTERM);
        child_signal(&w->s->control.child, SIGTERM);
        if (!w->s->control.child.pid && !w->s->gateway.child.pid)
            loop_stop(loop);
        return;
    }
    log_event(LOG_WARN, "process.ended", "process=%s how=\"%s\" then=restart", w->name, text);
    ward_later(w);
}

static void ward_start(struct ward *w)
{
    struct child_spec spec = {
        .argv = w->argv, .in.path = "/dev/null", .out.inherit = true, .err.inherit = true};
    struct err e;

    w->started_ns = loop_now_ns(w->s->loop);
    if (child_start(&spec, &w->child, &e) || child_watch(w->s->loop, &w->child, on_exit_of, &e)) {
        log_err("process.failed", &e);
        ward_later(w);
        return;
    }
    log_event(LOG_INFO, "process.started", "process=%s pid=%d", w->name, (int)w->child.pid);
}

static void on_restart(struct loop *loop, struct loop_timer *t)
{
    struct ward *w = CONTAINER_OF(t, struct ward, restart);

    (void)loop;
    if (!w->s->stopping)
        ward_start(w);
}

static void on_signal(struct loop *loop, struct loop_signals *sig, int signo)
{
    struct supervisor *s = CONTAINER_OF(sig, struct supervisor, signals);

    log_event(LOG_INFO, "up.stopping", "signal=%d", signo);
    if (s->stopping) { /* asked twice: no more patience */
        child_signal(&s->gateway.child, SIGKILL);
        child_signal(&s->control.child, SIGKILL);
        loop_stop(loop);
        return;
    }
    s->stopping = true;
    loop_timer_cancel(loop, &s->gateway.restart);
    loop_timer_cancel(loop, &s->control.restart);
    child_signal(&s->gateway.child, SIGTERM);
    if (!s->gateway.child.pid)
        child_signal(&s->control.child, SIGTERM);
    if (!s->gateway.child.pid && !s->control.child.pid)
        loop_stop(loop);
}

/* The gateway is gone: control may go too. Also the bound on how long the end may take. */
static void stop_control(struct supervisor *s)
{
    int64_t deadline = time_mono_ns() + STOP_GRACE_NS;
    struct child_exit x;

    if (s->gateway.child.pid)
        child_wait(&s->gateway.child, deadline, NS_PER_S, &x);
    if (s->control.child.pid) {
        child_signal(&s->control.child, SIGTERM);
        child_wait(&s->control.child, deadline, NS_PER_S, &x);
    }
}

static const char *self_path(struct supervisor *s)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

    return n > 0 ? arena_dupz(&s->arena, (str){path, (size_t)n}) : "weir";
}

static void args_make(struct supervisor *s, struct ward *w, const char *name)
{
    const struct server_options *o = s->options;
    size_t n = 0;

    w->s = s;
    w->name = name;
    w->restart.fn = on_restart;
    w->argv[n++] = self_path(s);
    w->argv[n++] = name;
    w->argv[n++] = "--project";
    w->argv[n++] = o->project_dir;
    w->argv[n++] = "--log-format";
    w->argv[n++] = o->log_format == LOG_JSON ? "json" : "logfmt";
    w->argv[n++] = "--log-level";
    w->argv[n++] = o->log_level == LOG_DEBUG   ? "debug"
                   : o->log_level == LOG_WARN  ? "warn"
                   : o->log_level == LOG_ERROR ? "error"
                                               : "info";
    if (w == &s->gateway && o->listen) {
        w->argv[n++] = "--listen";
        w->argv[n++] = o->listen;
    }
    if (w == &s->control && o->control) {
        w->argv[n++] = "--listen";
        w->argv[n++] = o->control;
    }
    if (w == &s->gateway && o->loops) {
        w->argv[n++] = "--loops";
        w->argv[n++] = arena_printf(&s->arena, "%u", o->loops).p;
    }
    if (w == &s->gateway && o->no_records)
        w->argv[n++] = "--no-records";
    if (w == &s->gateway && o->no_monitors)
        w->argv[n++] = "--no-monitors";
    ASSERT(n < ARGS_MAX);
}

static NODISCARD int supervise(struct supervisor *s, struct err *e)
{
    static const int signos[] = {SIGTERM, SIGINT, SIGHUP, 0};

    TRY(loop_new(&s->loop, e));
    TRY(loop_signals_open(s->loop, &s->signals, signos, on_signal, e));
    args_make(s, &s->control, "control");
    args_make(s, &s->gateway, "gateway");
    if (!s->options->no_control)
        ward_start(&s->control);
    ward_start(&s->gateway);
    loop_run(s->loop);
    stop_control(s);
    loop_signals_close(s->loop, &s->signals);
    return 0;
}

int server_up_main(const struct server_options *o)
{
    struct supervisor s = {.options = o, .control.child.pidfd = -1, .gateway.child.pidfd = -1};
    struct err e;
    int rc;

    arena_init(&s.arena, 0);
    rc = supervise(&s, &e);
    if (rc)
        log_err("up.failed", &e);
    loop_free(s.loop);
    arena_done(&s.arena);
    if (rc)
        return code_exit_status(e.code);
    return s.control.exit_status == 2 || s.gateway.exit_status == 2 ? 2 : 0;
}
