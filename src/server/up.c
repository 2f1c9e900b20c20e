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
 *
 * The listening sockets of the gateway outlive it. It hands copies of them to the supervisor when
 * it is ready; the next one, after a crash or in a restart, gets them from there. Connections that
 * come in between wait in the queue of the socket, and nobody is refused. When all is to end, the
 * copies are closed first: a queue that nobody empties would only hold clients up.
 *
 * Restart (SIGUSR2, `weir restart`): whatever lies under the name of this program now takes over.
 *   1. a second gateway is started on the same sockets, and all wait until it is ready;
 *   2. the first one is told to retire: it accepts no more, finishes, and ends;
 *   3. the supervisor executes the new program in its place: process, children and sockets stay;
 *   4. control is stopped and started.
 * A new gateway that ends, or is not ready in READY_NS, is given up: then the old one has never
 * stopped serving, and nothing else has changed.
 */
#include "server/server.h"

#include "base/arena.h"
#include "base/files.h"
#include "base/time.h"
#include "loop/child.h"
#include "loop/listen.h"
#include "server/handover.h"
#include "server/up_state.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define PAUSE_MIN_NS (100 * NS_PER_MS)
#define PAUSE_MAX_NS (10 * NS_PER_S)
#define STABLE_NS (30 * NS_PER_S)     /* having lived this long, it starts again without a pause */
#define STOP_GRACE_NS (15 * NS_PER_S) /* for each of the two at least, then SIGKILL */
#define READY_NS (120 * NS_PER_S)     /* for a new gateway to load its models */
#define UNAVAILABLE_TRIES 5u
#define ARGS_MAX 24
#define GATEWAY_FD 3 /* where a gateway finds its end of the link */

struct ward {
    struct supervisor *s;
    const char *name;
    const char *argv[ARGS_MAX];
    struct child child;
    struct loop_timer restart;
    struct loop_fd link; /* gateways: the supervisor's end; fd < 0: none */
    int64_t patience_ns; /* how long it may take to end */
    int64_t started_ns, pause_ns;
    int exit_status;      /* of the last run */
    uint32_t unavailable; /* ends with status 3 in a row, since the supervisor began */
    bool stood;           /* lived for STABLE_NS once */
};

enum step {
    STEP_NONE,
    STEP_STARTING, /* the successor gets ready */
    STEP_RETIRING, /* the old gateway finishes */
    STEP_CONTROL,  /* control stops, to be started again */
};

struct supervisor {
    const struct server_options *options;
    const char *program; /* what is started */
    struct arena arena;
    struct loop *loop;
    struct loop_signals signals;
    struct ward control, gateways[2];
    struct ward *gateway;   /* the one that serves, or shall */
    struct ward *successor; /* the other one, while it gets ready */
    struct handover_sockets sockets;
    struct loop_timer patience; /* with the step of a restart, or of the stop */
    enum step step;
    struct up_status status;
    int lock;
    bool stopping;
    int exit_status;
};

static void ward_start(struct ward *w);
static void go_on_restarting(struct supervisor *s);
static void restart_failed(struct supervisor *s, const char *why);

static struct ward *other_gateway(struct supervisor *s, const struct ward *w)
{
    return w == &s->gateways[0] ? &s->gateways[1] : &s->gateways[0];
}

static void wait_for(struct supervisor *s, int64_t ns)
{
    loop_timer_set(s->loop, &s->patience, loop_now_ns(s->loop) + ns);
}

static void ward_later(struct ward *w)
{
    bool stable = loop_now_ns(w->s->loop) - w->started_ns > STABLE_NS;

    w->pause_ns = stable || !w->pause_ns ? PAUSE_MIN_NS : MIN(w->pause_ns * 2, PAUSE_MAX_NS);
    loop_timer_set(w->s->loop, &w->restart, loop_now_ns(w->s->loop) + w->pause_ns);
}

static void status_write(struct supervisor *s)
{
    struct err e;

    s->status.pid = getpid();
    if (s->lock >= 0 && up_status_write(s->options->state_dir, &s->status, &e))
        log_err("up.status", &e);
}

/* --- The sockets ------------------------------------------------------------------------------ */

static void sockets_drop(struct supervisor *s)
{
    if (s->sockets.n)
        listen_file_remove(s->sockets.fds[0], s->sockets.file);
    handover_close(&s->sockets);
}

/* The same sockets once more, or others because the address has changed. */
static void sockets_keep(struct supervisor *s, struct handover_sockets *from)
{
    if (strcmp(from->listen, s->sockets.listen) != 0)
        sockets_drop(s);
    handover_close(&s->sockets);
    s->sockets = *from;
    s->sockets.file = from->n && !from->apart ? listen_file(from->fds[0]) : 0;
}

static void link_close(struct ward *w)
{
    loop_fd_remove(w->s->loop, &w->link);
    if (w->link.fd >= 0)
        close(w->link.fd);
    w->link.fd = -1;
}

static void on_ready(struct ward *w, struct handover_message *m)
{
    struct supervisor *s = w->s;

    w->patience_ns = CLAMP(m->patience_ms, (int64_t)0, (int64_t)3600 * 1000) * NS_PER_MS;
    if (s->stopping) {
        handover_close(&m->sockets);
        return;
    }
    sockets_keep(s, &m->sockets);
    if (w == s->successor)
        go_on_restarting(s);
}

static void on_link(struct loop *loop, struct loop_fd *fd, uint32_t events)
{
    struct ward *w = CONTAINER_OF(fd, struct ward, link);
    struct handover_message m;
    struct err e;

    (void)events;
    if (handover_receive(fd->fd, 0, &m, &e))
        log_err("handover.failed", &e);
    else if (m.word == HANDOVER_READY)
        on_ready(w, &m);
    else if (m.word == HANDOVER_GONE)
        loop_fd_remove(loop, fd); /* its end is met by on_exit_of() */
    else
        handover_close(&m.sockets);
}

/* Greets a gateway before it is started: what it reads first is there already. */
static NODISCARD int link_open(struct ward *w, int *ret_other, struct err *e)
{
    struct supervisor *s = w->s;
    struct handover_message hello = {.word = HANDOVER_SOCKETS, .sockets = s->sockets};
    int ends[2];

    TRY(pass_pair(ends, e));
    w->link = (struct loop_fd){.fd = ends[0], .fn = on_link};
    *ret_other = ends[1];
    hello.successor = other_gateway(s, w)->child.pid != 0;
    TRY(handover_send(w->link.fd, &hello, e));
    return loop_fd_add(s->loop, &w->link, EPOLLIN, e);
}

/* --- Stopping --------------------------------------------------------------------------------- */

/* The next one that is to end, and still runs. */
static struct ward *next_to_end(struct supervisor *s)
{
    if (s->gateways[0].child.pid)
        return &s->gateways[0];
    return s->gateways[1].child.pid ? &s->gateways[1] : &s->control;
}

/* The next thing to do of: stop the gateways, stop control, end. Called whenever one has ended. */
static void go_on_stopping(struct supervisor *s)
{
    struct ward *w = next_to_end(s);

    if (!w->child.pid) {
        loop_stop(s->loop);
        return;
    }
    child_signal(&w->child, SIGTERM);
    wait_for(s, MAX(STOP_GRACE_NS, w->patience_ns));
}

static void begin_stop(struct supervisor *s, int exit_status)
{
    s->stopping = true;
    s->exit_status = exit_status;
    for (size_t i = 0; i < ARRAY_LEN(s->gateways); i++)
        loop_timer_cancel(s->loop, &s->gateways[i].restart);
    loop_timer_cancel(s->loop, &s->control.restart);
    sockets_drop(s);
    go_on_stopping(s);
}

static void on_patience(struct loop *loop, struct loop_timer *t)
{
    struct supervisor *s = CONTAINER_OF(t, struct supervisor, patience);
    struct ward *w;

    (void)loop;
    if (!s->stopping && s->step == STEP_STARTING) {
        restart_failed(s, "the new gateway was not ready in time");
        return;
    }
    w = s->stopping               ? next_to_end(s)
        : s->step == STEP_CONTROL ? &s->control
                                  : other_gateway(s, s->gateway);
    log_event(LOG_ERROR, "process.killed", "process=%s why=\"did not end in time\"", w->name);
    child_signal(&w->child, SIGKILL);
}

/* --- Restarting ------------------------------------------------------------------------------- */

static void restart_done(struct supervisor *s)
{
    s->step = STEP_NONE;
    s->status.restarting = false;
    s->status.restarts++;
    s->status.reason[0] = 0;
    log_event(LOG_INFO, "up.restarted", "gateway=%d", (int)s->gateway->child.pid);
    status_write(s);
}

static void restart_failed(struct supervisor *s, const char *why)
{
    struct ward *w = TAKE(s->successor);

    s->step = STEP_NONE;
    loop_timer_cancel(s->loop, &s->patience);
    log_event(LOG_ERROR, "up.restart_failed", "reason=\"%s\" gateway=%d", why,
              (int)s->gateway->child.pid);
    child_unwatch(s->loop, &w->child);
    child_done(&w->child);
    link_close(w);
    if (!s->gateway->child.pid)
        ward_later(s->gateway); /* it went meanwhile */
    s->status.restarting = false;
    s->status.failures++;
    (void)!str_to_z(str_take(str_of(why), sizeof(s->status.reason) - 1), s->status.reason,
                    sizeof(s->status.reason));
    status_write(s);
}

static void begin_restart(struct supervisor *s)
{
    struct ward *w = other_gateway(s, s->gateway);

    if (s->stopping || s->step) {
        log_event(LOG_WARN, "up.restart_ignored", "reason=\"%s is under way\"",
                  s->stopping ? "the end" : "a restart");
        return;
    }
    log_event(LOG_INFO, "up.restarting", "program=%s", s->program);
    loop_timer_cancel(s->loop, &s->gateway->restart);
    s->step = STEP_STARTING;
    s->successor = w;
    s->status.restarting = true;
    status_write(s);
    ward_start(w);
    if (!w->child.pid) {
        loop_timer_cancel(s->loop, &w->restart);
        restart_failed(s, "the new gateway could not be started");
        return;
    }
    wait_for(s, READY_NS);
}

/* Step 3. What the next program has to know is little: this one has nothing under way. */
static void execute_next(struct supervisor *s)
{
    struct up_inherited i = {.control = s->control.child.pid,
                             .gateway = s->gateway->child.pid,
                             .link = s->gateway->link.fd,
                             .lock = s->lock,
                             .patience_ms = s->gateway->patience_ns / NS_PER_MS,
                             .restarts = s->status.restarts,
                             .failures = s->status.failures,
                             .sockets = s->sockets};
    struct err e;

    if (up_execute(s->program, &i, &e))
        log_err("up.not_replaced", &e); /* the old supervisor does as well */
}

/* Step 4. */
static void control_renew(struct supervisor *s)
{
    if (s->options->no_control) {
        restart_done(s);
        return;
    }
    loop_timer_cancel(s->loop, &s->control.restart);
    if (!s->control.child.pid) {
        ward_start(&s->control);
        restart_done(s);
        return;
    }
    s->step = STEP_CONTROL;
    child_signal(&s->control.child, SIGTERM);
    wait_for(s, STOP_GRACE_NS);
}

/* The step that is under way has been done. */
static void go_on_restarting(struct supervisor *s)
{
    struct ward *old = s->gateway;
    struct err e;

    loop_timer_cancel(s->loop, &s->patience);
    if (s->step == STEP_STARTING) {
        s->gateway = TAKE(s->successor);
        s->step = STEP_RETIRING;
        if (old->child.pid) {
            if (handover_send(old->link.fd, &(struct handover_message){.word = HANDOVER_RETIRE},
                              &e))
                child_signal(&old->child, SIGTERM);
            wait_for(s, MAX(STOP_GRACE_NS, old->patience_ns));
            return;
        }
    }
    if (s->step == STEP_RETIRING) {
        execute_next(s);
        control_renew(s);
    } else {
        ward_start(&s->control);
        restart_done(s);
    }
}

/* True when the end of w is part of a restart. */
static bool is_step_of_restart(struct supervisor *s, struct ward *w, const char *text)
{
    if (w == s->successor) {
        restart_failed(s, text);
        return true;
    }
    if (s->step == STEP_STARTING && w == s->gateway)
        return true; /* the successor is on its way */
    if ((s->step == STEP_RETIRING && w == other_gateway(s, s->gateway)) ||
        (s->step == STEP_CONTROL && w == &s->control)) {
        go_on_restarting(s);
        return true;
    }
    return false;
}

/* --- The processes ---------------------------------------------------------------------------- */

static void on_exit_of(struct loop *loop, struct child *c)
{
    struct ward *w = CONTAINER_OF(c, struct ward, child);
    struct supervisor *s = w->s;
    char text[CHILD_TEXT_SIZE];
    struct child_exit x;

    if (!child_collect(c, &x))
        return;
    child_exit_text(&x, text);
    link_close(w);
    w->exit_status = x.status;
    if (s->stopping) {
        go_on_stopping(s);
        return;
    }
    log_event(child_exit_ok(&x) && s->step ? LOG_INFO : LOG_WARN, "process.ended",
              "process=%s how=\"%s\"", w->name, text);
    if (is_step_of_restart(s, w, text))
        return;
    w->stood |= loop_now_ns(loop) - w->started_ns > STABLE_NS;
    w->unavailable = x.status == 3 ? w->unavailable + 1 : 0;
    /* Neither can be cured by starting again: the message of the process is on the screen. */
    if (x.status == 2 || (!w->stood && w->unavailable >= UNAVAILABLE_TRIES))
        begin_stop(s, x.status);
    else
        ward_later(w);
}

static NODISCARD int ward_try(struct ward *w, struct err *e)
{
    struct child_spec spec = {
        .argv = w->argv, .in.path = "/dev/null", .out.inherit = true, .err.inherit = true};
    AUTO(file_closep) int end = -1;

    if (w != &w->s->control) {
        TRY(link_open(w, &end, e));
        spec.fds[spec.fd_count++] = (struct child_fd){end, GATEWAY_FD};
    }
    TRY(child_start(&spec, &w->child, e));
    return child_watch(w->s->loop, &w->child, on_exit_of, e);
}

static void ward_start(struct ward *w)
{
    struct err e;

    w->started_ns = loop_now_ns(w->s->loop);
    if (ward_try(w, &e)) {
        child_done(&w->child); /* one that cannot be watched must not run */
        link_close(w);
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

    if (signo == SIGUSR2) {
        begin_restart(s);
        return;
    }
    log_event(LOG_INFO, "up.stopping", "signal=%d", signo);
    if (s->stopping) { /* asked twice: no more patience */
        loop_stop(loop);
        return;
    }
    begin_stop(s, 0);
}

/* --- Life ------------------------------------------------------------------------------------- */

static void args_make(struct supervisor *s, struct ward *w, const char *name)
{
    const struct server_options *o = s->options;
    bool is_gateway = w != &s->control;
    size_t n = 0;

    w->s = s;
    w->name = name;
    w->link.fd = -1;
    w->child.pidfd = -1;
    w->restart.fn = on_restart;
    w->argv[n++] = s->program;
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
    if (is_gateway && o->listen) {
        w->argv[n++] = "--listen";
        w->argv[n++] = o->listen;
    }
    if (w == &s->control && o->control) {
        w->argv[n++] = "--listen";
        w->argv[n++] = o->control;
    }
    if (is_gateway && o->loops) {
        w->argv[n++] = "--loops";
        w->argv[n++] = arena_printf(&s->arena, "%u", o->loops).p;
    }
    if (is_gateway && o->no_records)
        w->argv[n++] = "--no-records";
    if (is_gateway && o->no_monitors)
        w->argv[n++] = "--no-monitors";
    if (is_gateway) {
        w->argv[n++] = "--handover";
        w->argv[n++] = "3"; /* GATEWAY_FD */
    }
    ASSERT(n < ARGS_MAX);
}

/* A child that the program before this one has left us. */
static void ward_adopt(struct ward *w, pid_t pid)
{
    struct err e;

    if (!pid)
        return;
    w->started_ns = loop_now_ns(w->s->loop);
    if (child_adopt(pid, &w->child, &e) || child_watch(w->s->loop, &w->child, on_exit_of, &e)) {
        log_err("process.failed", &e);
        child_done(&w->child);
    }
}

/* Goes on where the program before this one stopped: in the middle of a restart. */
static NODISCARD int take_over(struct supervisor *s, const struct up_inherited *i, struct err *e)
{
    s->lock = i->lock;
    s->sockets = i->sockets;
    s->status =
        (struct up_status){.restarts = i->restarts, .failures = i->failures, .restarting = true};
    s->gateway->patience_ns = i->patience_ms * NS_PER_MS;
    s->gateway->link = (struct loop_fd){.fd = i->link, .fn = on_link};
    TRY(loop_fd_add(s->loop, &s->gateway->link, EPOLLIN, e));
    ward_adopt(s->gateway, i->gateway);
    ward_adopt(&s->control, i->control);
    if (!s->gateway->child.pid)
        ward_start(s->gateway);
    control_renew(s);
    return 0;
}

static NODISCARD int begin(struct supervisor *s, struct err *e)
{
    TRY(handover_activated(&s->sockets, e));
    if (up_lock(s->options->state_dir, &s->lock, e)) {
        if (e->code == CODE_UNAVAILABLE)
            return (int)e->code;
        log_err("up.lock", e); /* a disk that is full or read-only is no reason not to serve */
    }
    status_write(s);
    if (!s->options->no_control)
        ward_start(&s->control);
    ward_start(s->gateway);
    return 0;
}

static void end(struct supervisor *s)
{
    struct ward *const wards[] = {&s->gateways[0], &s->gateways[1], &s->control};

    for (size_t i = 0; s->loop && i < ARRAY_LEN(wards); i++) {
        child_unwatch(s->loop, &wards[i]->child);
        child_done(&wards[i]->child);
        link_close(wards[i]);
    }
    sockets_drop(s);
    if (s->loop)
        loop_signals_close(s->loop, &s->signals);
    file_close(s->lock);
    loop_free(s->loop);
    arena_done(&s->arena);
}

static NODISCARD int supervise(struct supervisor *s, struct err *e)
{
    static const int signos[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2, 0};
    struct up_inherited inherited;

    s->patience.fn = on_patience;
    s->program = up_program(&s->arena);
    s->gateway = &s->gateways[0];
    args_make(s, &s->control, "control");
    args_make(s, &s->gateways[0], "gateway");
    args_make(s, &s->gateways[1], "gateway");
    TRY(loop_new(&s->loop, e));
    TRY(loop_signals_open(s->loop, &s->signals, signos, on_signal, e));
    if (up_inherit(&inherited))
        TRY(take_over(s, &inherited, e));
    else
        TRY(begin(s, e));
    loop_run(s->loop);
    return 0;
}

int server_up_main(const struct server_options *o)
{
    struct supervisor s = {.options = o, .lock = -1, .signals.watch.fd = -1};
    struct err e;
    int rc;

    arena_init(&s.arena, 0);
    rc = supervise(&s, &e);
    if (rc)
        log_err("up.failed", &e);
    end(&s);
    return rc ? code_exit_status(e.code) : s.exit_status;
}
