/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exchanges that leave the turn: those of endpoints whose models run in crews. Such an exchange
 * lives in an offload, which has memory of its own for the rows; the connection waits, its buffer
 * frozen, until the offload is back.
 *
 * Nobody waits longer than the deadline: a timer of the loop answers 504 then, whatever the model
 * does, and asks the run to stop. The next request of the connection has to wait until the worker
 * has let go of its buffer; where it does not in STUCK_NS, the connection is closed. Who is refused
 * is refused before the queue (admission.c).
 *
 * An offload holds a reference on the plan, so that neither endpoint nor model goes before it is
 * back; unloading is the watchdog's, never the loop's.
 */
#include "serve/observe.h"

#include "base/mem.h"
#include "base/time.h"

#define IDLE_MAX 256                 /* offloads that a loop keeps for use */
#define KEEP_BYTES ((size_t)1 << 20) /* and how large each of them may stay */
#define STUCK_NS NS_PER_S

struct offload {
    struct crew_job job;
    struct stream_owner owner; /* of its stream, if it has one */
    struct exchange x;
    struct crew *crew;                  /* that the job is in; NULL: in none */
    const struct served_version *asked; /* whose crew had the job last */
    bool left;                          /* the peer has reset the stream */
    struct conn *conn;                  /* frozen until this is back */
    struct serve_loop *l;
    struct served_plan *plan; /* a reference while it is away */
    struct arena arena;
    struct loop_timer late;
    struct offload *next, **prev; /* among the idle, or among those of `conn` */
};

static void on_late(struct loop *loop, struct loop_timer *t);
static void on_closed(struct stream_owner *o);

/* --- Memory ----------------------------------------------------------------------------------- */

static struct offload *offload_get(struct serve_loop *l)
{
    struct offload *off = l->idle;

    if (off) {
        l->idle = off->next;
        l->idle_count--;
        arena_reset(&off->arena);
        return off;
    }
    off = mem_zalloc(sizeof(*off));
    off->l = l;
    off->late.fn = on_late;
    off->owner.closed = on_closed;
    arena_init(&off->arena, 0); /* bounded by what a slot holds and a body can say */
    return off;
}

static void offload_free(struct offload *off)
{
    arena_done(&off->arena);
    mem_free(off);
}

/* What was read into it stays readable until it is used again. */
static void offload_put(struct serve_loop *l, struct offload *off)
{
    if (l->idle_count == IDLE_MAX || off->arena.used_bytes > KEEP_BYTES) {
        offload_free(off);
        return;
    }
    off->next = l->idle;
    l->idle = off;
    l->idle_count++;
}

void offloads_done(struct serve_loop *l)
{
    while (l->idle) {
        struct offload *off = l->idle;

        l->idle = off->next;
        offload_free(off);
    }
}

struct arena *offload_arena(struct offload *off)
{
    return &off->arena;
}

/* Most bytes of input i that a body can describe: JSON needs two characters for a number, a raw
 * tensor its own size. Rows by field name may leave fields out, so there only the rows count. */
static size_t input_bytes(const struct served_endpoint *ep, uint32_t i, size_t body_bytes)
{
    const struct tensor_spec *spec = &ep->schema.inputs[i];
    size_t size = tensor_type_bytes(spec->datatype), most, said;

    most = crew_input_bytes(ep->champion->model->crew, i);
    said = MAX(body_bytes, (body_bytes / 2 + 1) * size);
    return ep->fields.column_count ? most : MIN(most, said);
}

struct exchange *offload_begin(struct serve_loop *l, struct conn *c, struct served_endpoint *ep,
                               size_t body_bytes, struct tensor **ret_inputs)
{
    struct offload *off = offload_get(l);
    struct tensor *inputs = ARENA_ARRAY(&off->arena, struct tensor, ep->schema.input_count);

    for (uint32_t i = 0; i < ep->schema.input_count; i++) {
        inputs[i].spec = &ep->schema.inputs[i];
        inputs[i].cap_bytes = input_bytes(ep, i, body_bytes);
        inputs[i].data = arena_alloc(&off->arena, MAX(inputs[i].cap_bytes, (size_t)1));
    }
    exchange_begin(l, &off->x, c, ep);
    off->x.off = off;
    observe_begin(l, &off->x);
    off->crew = NULL;
    off->left = false;
    off->conn = c;
    off->job.inputs = *ret_inputs = inputs;
    return &off->x;
}

void offload_drop(struct serve_loop *l, struct exchange *x)
{
    offload_put(l, x->off);
}

static void offload_link(struct offload *off)
{
    struct conn *c = off->conn;

    off->next = c->away;
    off->prev = &c->away;
    if (off->next)
        off->next->prev = &off->next;
    c->away = off;
}

static void offload_unlink(struct offload *off)
{
    *off->prev = off->next;
    if (off->next)
        off->next->prev = off->prev;
}

void offloads_abandon(struct conn *c)
{
    for (struct offload *off = c->away; off; off = off->next)
        if (off->crew)
            crew_abandon(off->crew, &off->job);
}

/* --- There ------------------------------------------------------------------------------------ */

/* Puts the job into the queue of the version at hand; false: there is no room. */
static NODISCARD bool submit(struct offload *off)
{
    struct exchange *x = &off->x;

    off->crew = x->version->model->crew;
    off->asked = x->version;
    off->job.trace = x->tracked && x->tracked->has_trace ? &x->tracked->run : NULL;
    off->job.deadline_ns = x->fb.until_ns;
    off->job.priority = x->priority;
    if (crew_submit(off->crew, &off->job))
        return true;
    off->crew = NULL;
    return false;
}

/* Nothing ran and nothing will; what to answer instead is for the next turn to find out. */
static void come_back(struct offload *off, int rc, const struct err *e)
{
    off->job.rc = rc;
    off->job.e = *e;
    off->job.outputs = NULL;
    off->job.expired = false;
    off->job.was_traced = false;
    off->job.batch_rows = off->job.run_rows = 0;
    off->job.begun_ns = 0;
    off->job.ended_ns = time_mono_ns();
    mailbox_post(off->job.reply_to, &off->job.mail);
}

int offload_commit(struct serve_loop *l, struct exchange *x, uint32_t rows, str sticky_key,
                   struct err *e)
{
    struct offload *off = x->off;
    int rc;

    exchange_route(l, x, sticky_key);
    x->rows = rows;
    off->job.reply_to = &l->returns;
    off->job.arena = &off->arena;
    off->job.rows = x->ep->batched ? rows : 1;
    rc = admission_check(x, e);
    if (!rc && !submit(off))
        rc = admission_queue_full(x, e);
    if (rc && !fallback_catches_shed(x, rc, true))
        return rc;
    if (rc)
        come_back(off, rc, e);
    __atomic_add_fetch(&x->ep->away, 1, __ATOMIC_RELAXED);
    off->plan = served_plan_ref(l->plan);
    loop_timer_set(l->loop, &off->late, fallback_last_ns(x));
    offload_link(off);
    if (x->stream && x->stream->owner == &exchange_in_turn)
        x->stream->owner = &off->owner;
    return 0;
}

/* --- And back --------------------------------------------------------------------------------- */

/* The peer has reset the stream. It is let go of when the job is back, by its answer. */
static void on_closed(struct stream_owner *o)
{
    struct offload *off = CONTAINER_OF(o, struct offload, owner);

    off->left = true;
    if (off->crew)
        crew_abandon(off->crew, &off->job);
}

static struct exchange_times times(const struct offload *off, int64_t now_ns)
{
    const struct crew_job *j = &off->job;
    int64_t total_ns = MAX(now_ns - off->x.arrival_ns, (int64_t)0);
    int64_t compute_ns = j->begun_ns ? MAX(j->ended_ns - j->begun_ns, (int64_t)0) : 0;

    return (struct exchange_times){.total_us = (uint64_t)(total_ns / NS_PER_US),
                                   .compute_us = (uint64_t)(compute_ns / NS_PER_US),
                                   .batch_rows = j->run_rows,
                                   .ran_in = j->was_traced ? &j->ran_in : NULL};
}

static bool is_waited_for(const struct offload *off)
{
    return !off->left && !off->conn->gone;
}

/* The answer goes out, or nowhere when the client has left meanwhile. */
RUNS_ON(on_loop) static void meet_client(struct offload *off)
{
    if (off->conn->gone)
        off->x.conn = NULL;
    else
        conn_touch(off->conn);
}

RUNS_ON(on_loop)
static void answer_with(struct offload *off, int rc, struct err *e, const struct exchange_times *t)
{
    struct exchange *x = &off->x;
    const struct tensor *inputs = off->job.inputs, *outputs = rc ? NULL : off->job.outputs;

    if (!rc && fallback_is_static(x)) {
        inputs = NULL;
        outputs = fallback_outputs(off->l, x);
    }
    meet_client(off);
    exchange_answer(off->l, x, rc, e, inputs, outputs, t);
}

/* First at the deadline: the answer goes without the model. Then when its worker seems stuck. */
static void on_late(struct loop *loop, struct loop_timer *t)
{
    struct offload *off = CONTAINER_OF(t, struct offload, late);
    struct exchange *x = &off->x;
    int64_t now_ns = loop_now_ns(loop);
    /* the worker may still be writing its own times */
    struct exchange_times took = {.total_us = (uint64_t)((now_ns - x->arrival_ns) / NS_PER_US)};
    struct err e;
    int rc;

    ROLE_ASSERT(on_loop);
    if (!x->conn) {
        conn_drop(off->conn);
        return;
    }
    if (off->crew) {
        crew_abandon(off->crew, &off->job);
        crew_watch(off->crew, now_ns);
    }
    rc = exchange_too_late(x, &e);
    if (is_waited_for(off) && fallback_answer(off->l, x, (enum code)rc, false))
        rc = 0;
    answer_with(off, rc, &e, &took);
    x->conn = NULL;
    loop_timer_set(loop, &off->late, now_ns + STUCK_NS);
}

/* Goes down the chain. True: the job is with another crew, or the next step is static and *rc 0. */
RUNS_ON(on_loop) static bool catch_failure(struct serve_loop *l, struct offload *off, int *rc)
{
    struct crew_job *j = &off->job;
    struct exchange *x = &off->x;
    bool shed = x->caught || j->expired;

    x->caught = false;
    while (fallback_next(l, x, (enum code) * rc, shed)) {
        if (fallback_is_static(x)) {
            *rc = 0;
            return false;
        }
        *rc = admission_next(x, &j->e);
        if (!*rc && submit(off))
            return true;
        if (!*rc) {
            x->shed = SHED_QUEUE_FULL;
            *rc = admission_refused(x, &j->e);
        }
        shed = true;
    }
    return false;
}

/* False: it went on to another version. */
RUNS_ON(on_loop) static bool answer(struct serve_loop *l, struct offload *off)
{
    struct crew_job *j = &off->job;
    struct exchange *x = &off->x;
    struct exchange_times t;
    int rc = j->rc;

    off->crew = NULL;
    if (j->expired)
        x->shed = SHED_EXPIRED;
    if ((!rc || rc == CODE_CANCELLED) && j->ended_ns > x->deadline_ns)
        rc = exchange_too_late(x, &j->e);
    if (rc && is_waited_for(off) && catch_failure(l, off, &rc))
        return false;
    t = times(off, fallback_is_static(x) ? time_mono_ns() : j->ended_ns);
    answer_with(off, rc, &j->e, &t);
    return true;
}

void offload_returned(struct loop *loop, struct mailbox *mb, struct mail *m)
{
    struct serve_loop *l = CONTAINER_OF(mb, struct serve_loop, returns);
    struct offload *off = CONTAINER_OF(CONTAINER_OF(m, struct crew_job, mail), struct offload, job);
    bool answered = !off->x.conn;

    ROLE_ASSERT(on_loop);
    if (off->job.batch_rows) {
        counter_add(&l->counters.batches, 1);
        counter_add(&l->counters.batched_rows, off->job.batch_rows);
        counters_batch(&off->asked->counters->rows[l->index], off->job.batch_rows);
    }
    if (!answered && !answer(l, off))
        return;
    loop_timer_cancel(loop, &off->late);
    __atomic_sub_fetch(&off->x.ep->away, 1, __ATOMIC_RELAXED);
    offload_unlink(off);
    conn_back(off->conn);
    served_plan_unref(off->plan);
    offload_put(l, off);
}
