/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs of one model, and the thread that keeps them.
 *
 * The herd has a thread and a loop of its own, because somebody has to be there while no request
 * is: to see a program end, to read what it writes, to start it again, to end one that hangs. Also
 * the kernel kills a child when the thread that started it ends (child.h), and this thread lives as
 * long as the model.
 *
 *   DOWN --start--> STARTING --READY--> IDLE <--> BUSY (a run has it)
 *                                        ^          |  the deadline passed
 *                                        |          v
 *                                        +-------- LATE   the late answer is read away, or, after a
 *                                                         grace, the program is killed
 *   any --end of the program, or killed--> ENDING --collected--> DOWN
 *
 * An end is followed by a new start after a pause, which doubles with each end in a row; a program
 * that answered, or lived LIVED_NS, starts over. crash_limit ends in a row are a crash loop: then
 * requests are refused at once, and a start is tried every retry_ns.
 *
 * Who touches what: the state and what is marked in process.h are under the mutex; the socket and
 * the reader belong to the run while BUSY, else to the herd's thread; all else is the herd's. A
 * program that ends while BUSY is collected, but its socket stays open until the run returns it.
 */
#include "serve/runtime/process.h"

#include "base/files.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"

#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKOFF_MAX_NS (10 * NS_PER_S)
#define LIVED_NS (30 * NS_PER_S)
#define STOP_NS (300 * NS_PER_MS)          /* to end by itself, once its socket is closed */
#define READY_BYTES_MAX ((size_t)16 << 20) /* of the tree of its header */

/* --- States ----------------------------------------------------------------------------------- */

static void set_state(struct process_instance *i, enum process_state to)
{
    struct process_herd *h = i->herd;

    pthread_mutex_lock(&h->mutex);
    i->state = to;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mutex);
}

static enum process_state state_of(struct process_instance *i)
{
    enum process_state s;

    pthread_mutex_lock(&i->herd->mutex);
    s = i->state;
    pthread_mutex_unlock(&i->herd->mutex);
    return s;
}

static void timer_in(struct process_instance *i, int64_t ns)
{
    loop_timer_set(i->herd->loop, &i->timer, time_mono_ns() + ns);
}

/* --- Ends ------------------------------------------------------------------------------------- */

static void socket_close(struct process_instance *i)
{
    if (i->fd < 0)
        return;
    loop_fd_remove(i->herd->loop, &i->socket);
    close(i->fd);
    i->fd = -1;
}

static void output_close(struct process_instance *i)
{
    if (i->out_fd < 0)
        return;
    loop_fd_remove(i->herd->loop, &i->output);
    close(i->out_fd);
    i->out_fd = -1;
}

static int64_t backoff_ns(const struct process_instance *i)
{
    int64_t ns = i->herd->manifest->backoff_ns;

    for (uint32_t k = 1; k < i->failures && ns < BACKOFF_MAX_NS; k++)
        ns *= 2;
    return MAX(MIN(ns, BACKOFF_MAX_NS), i->herd->manifest->backoff_ns);
}

/* It is gone, for the reason given, and nobody has it: says so, and sets the time of its return. */
static void down(struct process_instance *i, const char *reason)
{
    struct process_herd *h = i->herd;
    uint32_t limit = h->manifest->crash_limit;
    bool broken, was_broken;
    int64_t pause_ns;

    process_output_end(i);
    socket_close(i);
    output_close(i);
    pthread_mutex_lock(&h->mutex);
    if (i->answered || time_mono_ns() - i->started_ns >= LIVED_NS)
        i->failures = 0;
    i->failures++;
    was_broken = i->is_broken;
    broken = limit && i->failures >= limit;
    pause_ns = broken ? h->manifest->retry_ns : backoff_ns(i);
    i->is_broken = broken;
    i->exited = false;
    i->answered = false;
    i->state = PROCESS_DOWN;
    i->returned = PROCESS_RETURN_NONE;
    h->ends++;
    snprintf(h->reason, sizeof(h->reason), "%.120s%s%.180s", reason,
             i->lines.last[0] ? "; it last said: " : "", i->lines.last);
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mutex);
    log_event(broken && !was_broken ? LOG_ERROR : LOG_WARN,
              broken ? "process.broken" : "process.ended",
              "model=%s instance=%u reason=\"%s\" in_a_row=%u next_start_ms=%lld", h->label,
              i->index, reason, i->failures, (long long)(pause_ns / NS_PER_MS));
    timer_in(i, pause_ns);
}

static void down_by_exit(struct process_instance *i)
{
    char how[CHILD_TEXT_SIZE], reason[CHILD_TEXT_SIZE + 128];

    child_exit_text(&i->exit, how);
    if (i->why && i->exit.signo == SIGKILL)
        snprintf(reason, sizeof(reason), "ended by Weir: %s", i->why);
    else
        snprintf(reason, sizeof(reason), "the program ended: %s", how);
    down(i, reason);
}

static void on_exit_of(struct loop *l, struct child *c)
{
    struct process_instance *i = CONTAINER_OF(c, struct process_instance, child);
    struct process_herd *h = i->herd;
    bool busy;

    (void)l;
    if (!child_collect(c, &i->exit))
        return;
    pthread_mutex_lock(&h->mutex);
    busy = i->state == PROCESS_BUSY;
    if (!busy) /* from here on no run can take it */
        i->state = PROCESS_ENDING;
    i->exited = true;
    pthread_mutex_unlock(&h->mutex);
    loop_timer_cancel(h->loop, &i->timer);
    if (!busy) /* else when the run brings it back */
        down_by_exit(i);
}

/* Kills what runs; its end is seen by on_exit_of. */
static void kill_it(struct process_instance *i, const char *why)
{
    i->why = why;
    loop_timer_cancel(i->herd->loop, &i->timer);
    loop_fd_remove(i->herd->loop, &i->socket);
    set_state(i, PROCESS_ENDING);
    child_signal(&i->child, SIGKILL);
}

/* --- Ready ------------------------------------------------------------------------------------ */

/* What the program declares must be what the manifest says, or what it said the first time. */
static NODISCARD int declared(struct process_herd *h, const struct json *root, struct arena *a,
                              struct err *e)
{
    const struct json *ins = json_get(root, S("inputs")), *outs = json_get(root, S("outputs"));
    struct tensor_spec *inputs, *outputs;
    uint32_t input_count, output_count;

    if (!ins && !outs && h->inputs)
        return 0;
    TRY(tensor_specs_read(ins, "inputs", TENSOR_INPUTS_MAX, a, &inputs, &input_count, e));
    TRY(tensor_specs_read(outs, "outputs", TENSOR_OUTPUTS_MAX, a, &outputs, &output_count, e));
    if (!h->inputs) {
        ins = json_copy(&h->arena, ins); /* the names stay */
        outs = json_copy(&h->arena, outs);
        TRY(tensor_specs_read(ins, "inputs", TENSOR_INPUTS_MAX, &h->arena, &inputs, &input_count,
                              e));
        TRY(tensor_specs_read(outs, "outputs", TENSOR_OUTPUTS_MAX, &h->arena, &outputs,
                              &output_count, e));
        pthread_mutex_lock(&h->mutex);
        h->inputs = inputs, h->input_count = input_count;
        h->outputs = outputs, h->output_count = output_count;
        pthread_mutex_unlock(&h->mutex);
        return 0;
    }
    if (!tensor_specs_equal(inputs, input_count, h->inputs, h->input_count) ||
        !tensor_specs_equal(outputs, output_count, h->outputs, h->output_count))
        return FAIL(e, FAILED_PRECONDITION,
                    "it declares other inputs or outputs than the manifest");
    return 0;
}

static NODISCARD int ready_check(struct process_instance *i, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *root;
    str code, message;

    arena_init(&a, READY_BYTES_MAX);
    TRY(json_parse(process_reader_header(&i->reader), &a, &root, e));
    if (i->reader.head.kind == TENSOR_FRAME_ERROR) {
        code = json_str_or(json_get(root, S("code")), S("INTERNAL"));
        message = json_str_or(json_get(root, S("message")), S(""));
        return FAIL(e, FAILED_PRECONDITION, "it could not start: " STR_F " " STR_F,
                    STR_A(str_take(code, 32)), STR_A(str_take(message, 160)));
    }
    if (i->reader.head.kind != TENSOR_FRAME_READY ||
        json_int_or(json_get(root, S("protocol")), 0) != PROCESS_PROTOCOL)
        return FAIL(e, FAILED_PRECONDITION, "it does not speak version %d of the protocol",
                    PROCESS_PROTOCOL);
    return declared(i->herd, root, &a, e);
}

static void ready(struct process_instance *i)
{
    struct process_herd *h = i->herd;
    struct err e;

    if (ready_check(i, &e)) {
        log_event(LOG_WARN, "process.refused", "model=%s instance=%u msg=\"%s\"", h->label,
                  i->index, e.msg);
        snprintf(i->lines.last, sizeof(i->lines.last), "%.200s", e.msg);
        kill_it(i, "its greeting was refused");
        return;
    }
    loop_timer_cancel(h->loop, &i->timer);
    loop_fd_remove(h->loop, &i->socket);
    log_event(LOG_INFO, "process.ready", "model=%s instance=%u pid=%d after_ms=%lld", h->label,
              i->index, (int)i->child.pid,
              (long long)((time_mono_ns() - i->started_ns) / NS_PER_MS));
    pthread_mutex_lock(&h->mutex);
    i->is_broken = false;
    pthread_mutex_unlock(&h->mutex);
    set_state(i, PROCESS_IDLE);
}

/* The answer that nobody waits for any more has been read away. */
static void late_done(struct process_instance *i)
{
    enum tensor_frame_kind kind = i->reader.head.kind;

    if (i->reader.head.id != i->late_id ||
        (kind != TENSOR_FRAME_ANSWER && kind != TENSOR_FRAME_ERROR)) {
        kill_it(i, "it answered what nobody had asked");
        return;
    }
    loop_timer_cancel(i->herd->loop, &i->timer);
    loop_fd_remove(i->herd->loop, &i->socket);
    set_state(i, PROCESS_IDLE);
}

static void on_socket(struct loop *l, struct loop_fd *w, uint32_t events)
{
    struct process_instance *i = CONTAINER_OF(w, struct process_instance, socket);
    bool starting = state_of(i) == PROCESS_STARTING;
    struct err e;

    (void)l, (void)events;
    for (;;)
        switch (process_read(&i->reader, i->fd, &e)) {
        case PROCESS_MORE:
            return;
        case PROCESS_HEADER:
            break; /* data, if any, is thrown away */
        case PROCESS_FRAME:
            if (starting)
                ready(i);
            else
                late_done(i);
            return;
        case PROCESS_END:
            kill_it(i, NULL); /* mostly it has ended, and how it did is still to come */
            return;
        case PROCESS_BROKEN:
            kill_it(i, "it sent what is no frame of the protocol");
            return;
        }
}

static void on_output(struct loop *l, struct loop_fd *w, uint32_t events)
{
    struct process_instance *i = CONTAINER_OF(w, struct process_instance, output);

    (void)l, (void)events;
    if (!process_output_read(i))
        output_close(i);
}

/* --- Starts ----------------------------------------------------------------------------------- */

static NODISCARD int start_with(struct process_instance *i, struct err *e)
{
    struct process_herd *h = i->herd;

    TRY(process_child_start(i, e));
    i->socket = (struct loop_fd){.fd = i->fd, .fn = on_socket};
    i->output = (struct loop_fd){.fd = i->out_fd, .fn = on_output};
    TRY(child_watch(h->loop, &i->child, on_exit_of, e));
    TRY(loop_fd_add(h->loop, &i->output, EPOLLIN, e));
    TRY(loop_fd_add(h->loop, &i->socket, EPOLLIN, e));
    /* A greeting is smaller than the buffer of a new socket; else the start-up time runs out. */
    if (send(i->fd, h->hello.p, h->hello.n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)h->hello.n)
        return FAIL(e, UNAVAILABLE, "the greeting did not fit into the socket");
    return 0;
}

static void start(struct process_instance *i)
{
    struct process_herd *h = i->herd;
    struct err e;

    process_reader_reset(&i->reader);
    i->why = NULL;
    i->lines.n = 0;
    i->lines.last[0] = '\0';
    i->started_ns = time_mono_ns();
    pthread_mutex_lock(&h->mutex);
    h->starts++;
    pthread_mutex_unlock(&h->mutex);
    set_state(i, PROCESS_STARTING);
    if (start_with(i, &e)) {
        if (i->child.pid > 0)
            child_unwatch(h->loop, &i->child);
        child_done(&i->child);
        down(i, e.msg);
        return;
    }
    timer_in(i, h->manifest->start_ns);
}

static void on_timer(struct loop *l, struct loop_timer *t)
{
    struct process_instance *i = CONTAINER_OF(t, struct process_instance, timer);

    (void)l;
    switch (state_of(i)) {
    case PROCESS_DOWN:
        start(i);
        break;
    case PROCESS_STARTING:
        kill_it(i, "it was not ready in time");
        break;
    case PROCESS_LATE:
        kill_it(i, "it did not answer within the deadline and the grace after it");
        break;
    default:
        break;
    }
}

/* --- What runs bring back --------------------------------------------------------------------- */

static void see_to(struct process_instance *i, enum process_return how, const char *verdict)
{
    struct process_herd *h = i->herd;
    struct err e;

    if (i->exited) {
        down_by_exit(i);
    } else if (how == PROCESS_RETURN_LATE) {
        set_state(i, PROCESS_LATE);
        timer_in(i, h->manifest->grace_ns);
        if (loop_fd_add(h->loop, &i->socket, EPOLLIN, &e))
            kill_it(i, "its socket could not be watched");
    } else {
        kill_it(i, verdict);
    }
}

static void on_turn_end(struct loop *l, struct loop_hook *hook)
{
    struct process_herd *h = CONTAINER_OF(hook, struct process_herd, turn_end);

    (void)l;
    for (uint32_t k = 0; k < h->instance_count; k++) {
        struct process_instance *i = &h->instances[k];
        enum process_return how;
        const char *verdict;

        pthread_mutex_lock(&h->mutex);
        how = i->returned;
        verdict = i->verdict;
        i->returned = PROCESS_RETURN_NONE;
        pthread_mutex_unlock(&h->mutex);
        if (how != PROCESS_RETURN_NONE)
            see_to(i, how, verdict);
    }
}

void process_herd_return(struct process_instance *i, enum process_return how, const char *verdict)
{
    struct process_herd *h = i->herd;
    bool idle;

    pthread_mutex_lock(&h->mutex);
    ASSERT(i->state == PROCESS_BUSY);
    idle = how == PROCESS_RETURN_OK && !i->exited;
    i->answered = i->answered || how == PROCESS_RETURN_OK;
    if (idle) {
        i->state = PROCESS_IDLE;
        pthread_cond_signal(&h->changed);
    } else {
        i->returned = how;
        i->verdict = verdict;
    }
    pthread_mutex_unlock(&h->mutex);
    if (!idle)
        loop_wake(h->loop);
}

/* --- Taking ----------------------------------------------------------------------------------- */

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

/* Under the mutex. */
static struct process_instance *idle_one(struct process_herd *h, bool *ret_all_broken)
{
    bool all_broken = true;

    for (uint32_t k = 0; k < h->instance_count; k++) {
        if (h->instances[k].state == PROCESS_IDLE)
            return &h->instances[k];
        all_broken = all_broken && h->instances[k].is_broken;
    }
    *ret_all_broken = all_broken;
    return NULL;
}

static NODISCARD int take_locked(struct process_herd *h, int64_t deadline_ns,
                                 const _Atomic int *run_state, struct process_instance **ret,
                                 struct err *e)
{
    const struct timespec until = timespec_of(deadline_ns);

    for (;;) {
        bool broken = false;
        struct process_instance *i = idle_one(h, &broken);

        if (*run_state == PROCESS_RUN_CANCELLED)
            return FAIL(e, CANCELLED, "the run of the model was cancelled");
        if (i) {
            i->state = PROCESS_BUSY;
            *ret = i;
            return 0;
        }
        if (broken)
            return FAIL(e, UNAVAILABLE,
                        "the program of the model ends again and again; it is started anew from "
                        "time to time");
        if (time_mono_ns() >= deadline_ns)
            return FAIL(e, DEADLINE_EXCEEDED, "no program of the model was free in time");
        (void)pthread_cond_timedwait(&h->changed, &h->mutex, &until);
    }
}

int process_herd_take(struct process_herd *h, int64_t deadline_ns, const _Atomic int *run_state,
                      struct process_instance **ret, struct err *e)
{
    int rc;

    pthread_mutex_lock(&h->mutex);
    rc = take_locked(h, deadline_ns, run_state, ret, e);
    pthread_mutex_unlock(&h->mutex);
    return rc;
}

void process_herd_wake(struct process_herd *h)
{
    pthread_mutex_lock(&h->mutex);
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mutex);
}

bool process_herd_wait(struct process_herd *h, int64_t until_ns)
{
    const struct timespec until = timespec_of(until_ns);
    bool is_ready = false;

    pthread_mutex_lock(&h->mutex);
    for (;;) {
        for (uint32_t k = 0; k < h->instance_count; k++)
            is_ready = is_ready || h->instances[k].state == PROCESS_IDLE;
        if (is_ready || h->ends || time_mono_ns() >= until_ns)
            break;
        (void)pthread_cond_timedwait(&h->changed, &h->mutex, &until);
    }
    pthread_mutex_unlock(&h->mutex);
    return is_ready;
}

/* --- Life ------------------------------------------------------------------------------------- */

/* Closing the socket is the wish to end; who does not follow is killed. */
static void end_all(struct process_herd *h)
{
    int64_t until_ns = time_mono_ns() + STOP_NS;
    struct child_exit x;

    for (uint32_t k = 0; k < h->instance_count; k++) {
        struct process_instance *i = &h->instances[k];

        if (i->child.pid > 0)
            child_unwatch(h->loop, &i->child);
        loop_timer_cancel(h->loop, &i->timer);
        socket_close(i);
    }
    for (uint32_t k = 0; k < h->instance_count; k++) {
        struct process_instance *i = &h->instances[k];

        if (i->child.pid > 0 && !child_wait_until(&i->child, until_ns, &x))
            child_done(&i->child);
        process_output_end(i);
        output_close(i);
    }
}

static void herd_main(void *arg)
{
    struct process_herd *h = arg;

    loop_run(h->loop);
    end_all(h);
}

static void mutex_init(struct process_herd *h)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&h->mutex, NULL);
    pthread_cond_init(&h->changed, &attr);
    pthread_condattr_destroy(&attr);
}
DEFINE_AUTO_PTR(struct process_herd, process_herd_free)

int process_herd_new(const struct process_manifest *manifest, const char *label, const char *folder,
                     const char *tmp, struct process_herd **ret, struct err *e)
{
    AUTO(process_herd_freep)
    struct process_herd *h = mem_zalloc(sizeof(*h) + manifest->instances * sizeof(h->instances[0]));

    arena_init(&h->arena, 0);
    mutex_init(h);
    h->manifest = manifest;
    h->label = label;
    h->folder = folder;
    h->tmp = tmp;
    h->inputs = manifest->inputs, h->input_count = manifest->input_count;
    h->outputs = manifest->outputs, h->output_count = manifest->output_count;
    TRY(process_prepare(h, e));
    TRY(loop_new(&h->loop, e));
    h->turn_end.fn = on_turn_end;
    loop_on_turn_end(h->loop, &h->turn_end);
    for (; h->instance_count < manifest->instances; h->instance_count++) {
        struct process_instance *i = &h->instances[h->instance_count];

        i->herd = h;
        i->index = h->instance_count;
        i->fd = i->out_fd = -1;
        i->child.pidfd = -1;
        i->timer.fn = on_timer;
        process_reader_init(&i->reader, manifest->answer_bytes_max);
        loop_timer_set(h->loop, &i->timer, 0);
    }
    TRY(thread_start(&h->thread, "weir-herd", THREAD_ANY_CPU, herd_main, h, e));
    *ret = TAKE(h);
    return 0;
}

void process_herd_free(struct process_herd *h)
{
    if (!h)
        return;
    if (h->loop)
        loop_stop(h->loop);
    thread_join(&h->thread);
    for (uint32_t k = 0; k < h->instance_count; k++)
        process_reader_done(&h->instances[k].reader);
    loop_free(h->loop);
    buf_done(&h->hello);
    pthread_cond_destroy(&h->changed);
    pthread_mutex_destroy(&h->mutex);
    arena_done(&h->arena);
    mem_free(h);
}
