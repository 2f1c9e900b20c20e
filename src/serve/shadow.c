/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shadow traffic: a copy of each request for a version whose answer nobody sees.
 *
 * A loop that has answered puts a copy of the rows into its own bounded ring; one thread of low
 * priority takes them out, runs the shadow version in a lane of its own and puts the result on
 * record under the request's id, where the keeper pairs it with the primary answer. A full ring
 * drops the copy and counts it, so a slow shadow costs the answers nothing. A copy holds a
 * reference on its endpoint: a plan may be swapped while copies wait.
 */
#include "serve/priv.h"

#include "base/mem.h"
#include "base/time.h"

#include <sys/resource.h>
#include <unistd.h>

#define TELL_NS (5 * NS_PER_MS)
#define JOBS_MAX 256                 /* of one loop; a power of two */
#define JOB_BYTES ((size_t)32 << 10) /* of input rows; larger requests are skipped and counted */

struct shadow_job {
    struct exchange x;                                          /* conn is NULL here */
    size_t at[TENSOR_INPUTS_MAX > 64 ? 64 : TENSOR_INPUTS_MAX]; /* offset of each input in bytes */
    _Alignas(16) char bytes[JOB_BYTES];
};

struct shadow_ring {
    _Alignas(64) uint32_t put; /* written by the loop */
    _Alignas(64) uint32_t got; /* written by the shadow thread */
    struct shadow_job *jobs;   /* JOBS_MAX, owned */
};

struct shadow {
    struct gateway *gw;
    struct loop *loop;
    struct thread thread;
    struct loop_hook drain;
    struct loop_task again;
    struct record_ring *ring; /* NULL: records are off */
    struct lane *running;     /* atomic: what runs now, or NULL */
    bool stopping;            /* atomic: no copy is begun any more */
    uint32_t loops;
    struct shadow_ring rings[];
};

/* --- The loop's side -------------------------------------------------------------------------- */

static bool copy_texts(struct shadow_job *j, const struct tensor *t, size_t count, size_t *at)
{
    str *to = (str *)(void *)(j->bytes + *at);
    const str *from = t->data;

    if (*at + count * sizeof(str) > JOB_BYTES)
        return false;
    *at += count * sizeof(str);
    for (size_t i = 0; i < count; i++) {
        if (*at + from[i].n > JOB_BYTES)
            return false;
        memcpy(j->bytes + *at, from[i].p, from[i].n);
        to[i] = (str){j->bytes + *at, from[i].n};
        *at += from[i].n;
    }
    return true;
}

static bool copy_inputs(struct shadow_job *j, const struct exchange *x, const struct tensor *inputs)
{
    size_t at = 0;

    for (uint32_t i = 0; i < x->ep->schema.input_count; i++) {
        size_t count = x->rows * (size_t)tensor_row_elements(inputs[i].spec);
        size_t bytes = count * tensor_type_bytes(inputs[i].spec->datatype);

        at = (at + 15) & ~(size_t)15;
        j->at[i] = at;
        if (inputs[i].spec->datatype == TENSOR_BYTES) {
            if (!copy_texts(j, &inputs[i], count, &at))
                return false;
            continue;
        }
        if (at + bytes > JOB_BYTES)
            return false;
        memcpy(j->bytes + at, inputs[i].data, bytes);
        at += bytes;
    }
    return true;
}

void shadow_offer(struct shadow *s, struct serve_loop *l, const struct exchange *x,
                  const struct tensor *inputs)
{
    struct shadow_ring *r = &s->rings[l->index];
    uint32_t put = r->put;
    struct shadow_job *j = &r->jobs[put % JOBS_MAX];

    if (!x->ep->batched || x->ep->schema.input_count > ARRAY_LEN(j->at) ||
        put - __atomic_load_n(&r->got, __ATOMIC_ACQUIRE) == JOBS_MAX ||
        !copy_inputs(j, x, inputs)) {
        counter_add(&x->ep->shadow->counters->rows[l->index].shadow_skipped, 1);
        return;
    }
    j->x = *x;
    j->x.conn = NULL;
    j->x.ep = served_endpoint_ref(x->ep);
    __atomic_store_n(&r->put, put + 1, __ATOMIC_RELEASE);
    loop_wake(s->loop);
}

/* --- The shadow thread ------------------------------------------------------------------------ */

static void run_job(struct shadow *s, struct shadow_job *j)
{
    struct served_endpoint *ep = j->x.ep;
    struct served_version *v = ep->shadow;
    struct lane *lane = &v->model->lanes[s->loops];
    int64_t start = time_mono_ns(), deadline = start + (int64_t)ep->plan.timeout_ns;
    struct err e;
    int rc;

    for (uint32_t i = 0; i < ep->schema.input_count; i++) {
        const struct tensor *to = &lane->slot->inputs[i];

        memcpy(to->data, j->bytes + j->at[i],
               j->x.rows * (size_t)tensor_row_elements(to->spec) *
                   tensor_type_bytes(to->spec->datatype));
    }
    j->x.version = v;
    __atomic_store_n(&lane->run_deadline_ns, deadline, __ATOMIC_RELEASE);
    __atomic_store_n(&s->running, lane, __ATOMIC_RELEASE);
    rc = runtime_run(lane->slot, j->x.rows, deadline, &e);
    __atomic_store_n(&s->running, NULL, __ATOMIC_RELEASE);
    if (!rc && !runtime_rows_match(lane->slot,
                                   j->x.rows)) /* or the record would be read past its outputs */
        rc = CODE_INTERNAL;
    __atomic_store_n(&lane->run_deadline_ns, 0, __ATOMIC_RELEASE);
    if (s->ring)
        (void)record_exchange(s->ring, &j->x, RECORD_SHADOW, v, lane->slot->inputs,
                              rc ? NULL : lane->slot->outputs,
                              rc ? code_http_status((enum code)rc) : 200,
                              (uint64_t)((time_mono_ns() - start) / NS_PER_US));
    served_endpoint_unref(ep);
}

static void drain(struct shadow *s)
{
    bool more = false;

    for (uint32_t i = 0; i < s->loops; i++) {
        struct shadow_ring *r = &s->rings[i];
        uint32_t put = __atomic_load_n(&r->put, __ATOMIC_ACQUIRE), budget = 32;

        while (r->got != put && budget-- && !__atomic_load_n(&s->stopping, __ATOMIC_ACQUIRE)) {
            run_job(s, &r->jobs[r->got % JOBS_MAX]);
            __atomic_store_n(&r->got, r->got + 1, __ATOMIC_RELEASE);
        }
        more |= r->got != __atomic_load_n(&r->put, __ATOMIC_ACQUIRE);
    }
    if (more)
        loop_defer(s->loop, &s->again);
}

static void on_turn_end(struct loop *loop, struct loop_hook *h)
{
    (void)loop;
    drain(CONTAINER_OF(h, struct shadow, drain));
}

static void on_again(struct loop *loop, struct loop_task *t)
{
    (void)loop, (void)t; /* the hook at the end of this turn does the work */
}

static void shadow_main(void *arg)
{
    struct shadow *s = arg;

    (void)!setpriority(PRIO_PROCESS, (id_t)gettid(), 10); /* answers come first */
    loop_on_turn_end(s->loop, &s->drain);
    loop_run(s->loop);
}

int shadow_new(struct gateway *gw, struct shadow **ret_shadow, struct err *e)
{
    const struct gateway_config *cfg = gateway_config(gw);
    struct shadow *s = mem_zalloc_aligned(64, sizeof(*s) + cfg->loops * sizeof(struct shadow_ring));

    s->gw = gw;
    s->loops = cfg->loops;
    s->drain.fn = on_turn_end;
    s->again.fn = on_again;
    for (uint32_t i = 0; i < s->loops; i++)
        s->rings[i].jobs = mem_alloc(JOBS_MAX * sizeof(struct shadow_job));
    *ret_shadow = s;
    if (gateway_keeper(gw))
        TRY(keeper_ring_new(gateway_keeper(gw), cfg->ring_bytes, &s->ring, e));
    TRY(loop_new(&s->loop, e));
    return thread_start(&s->thread, "weir-shadow", THREAD_ANY_CPU, shadow_main, s, e);
}

/* A run may begin just after it was told to stop, so it is told again. The slot outlives it: a copy
 * under way holds its endpoint, and nobody else lets go of plans now. */
static void end_thread(struct shadow *s)
{
    struct lane *lane;

    __atomic_store_n(&s->stopping, true, __ATOMIC_RELEASE);
    loop_stop(s->loop);
    while (!thread_join_for(&s->thread, TELL_NS))
        if ((lane = __atomic_load_n(&s->running, __ATOMIC_ACQUIRE)))
            runtime_cancel(lane->slot);
}

void shadow_free(struct shadow *s)
{
    if (!s)
        return;
    if (s->thread.running) {
        end_thread(s);
    }
    for (uint32_t i = 0; i < s->loops; i++) {
        struct shadow_ring *r = &s->rings[i];

        for (; r->got != r->put; r->got++)
            served_endpoint_unref(r->jobs[r->got % JOBS_MAX].x.ep);
        mem_free(r->jobs);
    }
    loop_free(s->loop);
    mem_free(s);
}
