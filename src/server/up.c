/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `weir up`: the supervisor. It starts control and the gateway as two processes of this same
 * program, starts again whichever dies (at once at first, then with growing pauses), and on SIGTERM
 * or SIGINT stops the gateway first, so that its last records and digests still find control. The
 * two do not need each other to live: a gateway without control serves its plan, a control without
 * gateways keeps its state.
 *
 * A process that never came to stand is not started for ever: wrong use (status 2) ends all at
 * once, and so does a thing that another program holds (status 3: the state directory, an address),
 * after UNAVAILABLE_TRIES tries in a row, which give a predecessor time to go.
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
#define STABLE_NS (30 * NS_PER_S)     /* having lived this long, it starts again without a pause */
#define STOP_GRACE_NS (15 * NS_PER_S) /* for each of the two, then SIGKILL */
#define UNAVAILABLE_TRIES 5u
#define ARGS_MAX 24

struct ward {
    struct supervisor *s;
    const char *name;
    const char *argv[ARGS_MAX];
    struct child child;
    struct loop_timer restart;
    int64_t started_ns, pause_ns;
    int exit_status;      /* of the last run */
    uint32_t unavailable; /* ends with status 3 in a row, since the supervisor began */
    bool stood;           /* lived for STABLE_NS once */
};

struct supervisor {
    const struct server_options *options;
    struct arena arena;
    struct loop *loop;
    struct loop_signals signals;
    struct ward control, gateway;
    struct loop_timer patience; /* while stopping */
    bool stopping;
    int exit_status;
};

static void ward_start(struct ward *w);

static void ward_later(struct ward *w)
{
    bool stable = loop_now_ns(w->s->loop) - w->started_ns > STABLE_NS;

    w->pause_ns = stable || !w->pause_ns ? PAUSE_MIN_NS : MIN(w->pause_ns * 2, PAUSE_MAX_NS);
    loop_timer_set(w->s->loop, &w->restart, loop_now_ns(w->s->loop) + w->pause_ns);
}

/* --- Stopping --------------------------------------------------------------------------------- */

/* The next thing to do of: stop the gateway, stop control, end. Called whenever one has ended. */
static void go_on_stopping(struct supervisor *s)
{
    struct ward *w = s->gateway.child.pid ? &s->gateway : &s->control;

    if (!w->child.pid) {
        loop_stop(s->loop);
        return;
    }
    child_signal(&w->child, SIGTERM);
    loop_timer_set(s->loop, &s->patience, loop_now_ns(s->loop) + STOP_GRACE_NS);
}

static void begin_stop(struct supervisor *s, int exit_status)
{
    s->stopping = true;
    s->exit_status = exit_status;
    loop_timer_cancel(s->loop, &s->gateway.restart);
    loop_timer_cancel(s->loop, &s->control.restart);
    go_on_stopping(s);
}

static void on_patience(struct loop *loop, struct loop_timer *t)
{
    struct supervisor *s = CONTAINER_OF(t, struct supervisor, patience);
    struct ward *w = s->gateway.child.pid ? &s->gateway : &s->control;

    (void)loop;
    log_event(LOG_ERROR, "process.killed", "process=%s why=\"did not end in time\"", w->name);
    child_signal(&w->child, SIGKILL);
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
        go_on_stopping(w->s);
        return;
    }
    w->stood |= loop_now_ns(loop) - w->started_ns > STABLE_NS;
    w->unavailable = x.status == 3 ? w->unavailable + 1 : 0;
    log_event(LOG_WARN, "process.ended", "process=%s how=\"%s\"", w->name, text);
    /* Neither can be cured by starting again: the message of the process is on the screen. */
    if (x.status == 2 || (!w->stood && w->unavailable >= UNAVAILABLE_TRIES))
        begin_stop(w->s, x.status);
    else
        ward_later(w);
}

static void ward_start(struct ward *w)
{
    struct child_spec spec = {
        .argv = w->argv, .in.path = "/dev/null", .out.inherit = true, .err.inherit = true};
    struct err e;

    w->started_ns = loop_now_ns(w->s->loop);
    if (child_start(&spec, &w->child, &e) || child_watch(w->s->loop, &w->child, on_exit_of, &e)) {
        child_done(&w->child); /* one that cannot be watched must not run */
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
        loop_stop(loop);
        return;
    }
    begin_stop(s, 0);
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

    s->patience.fn = on_patience;
    TRY(loop_new(&s->loop, e));
    TRY(loop_signals_open(s->loop, &s->signals, signos, on_signal, e));
    args_make(s, &s->control, "control");
    args_make(s, &s->gateway, "gateway");
    if (!s->options->no_control)
        ward_start(&s->control);
    ward_start(&s->gateway);
    loop_run(s->loop);
    child_unwatch(s->loop, &s->gateway.child);
    child_unwatch(s->loop, &s->control.child);
    child_done(&s->gateway.child);
    child_done(&s->control.child);
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
    return rc ? code_exit_status(e.code) : s.exit_status;
}
