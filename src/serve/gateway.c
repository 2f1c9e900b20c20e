/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway as a whole: its threads and how a new plan reaches them.
 *
 * A plan is built by one worker at a time and then mailed to every loop. A loop takes it over when
 * the mail arrives, which is between two turns, when nothing is in flight; it hands its old plan
 * back by dropping its reference. The gateway keeps one reference more until all loops have done
 * so, for two reasons: unloading a model takes milliseconds that no loop has, so the watchdog does
 * it; and a run under way in an old plan must still meet its deadline. So a swap costs a loop one
 * pointer, and a request never sees two plans.
 */
#include "serve/gateway.h"

#include "base/files.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"
#include "serve/priv.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define BODY_BYTES ((size_t)512 << 20)
#define DOCUMENT_BYTES ((size_t)256 << 20) /* the tree of one feedback body */
#define TAKEN_NS (10 * NS_PER_S)           /* a loop busy longer than this has other troubles */
#define ERRANDS_MAX 64                     /* that wait for their turn */
#define STOP_LOOK_NS (5 * NS_PER_MS)

struct gateway {
    struct gateway_config cfg;
    struct blobs *blobs;
    struct keeper *keeper;       /* NULL: records and monitors are off */
    struct guard *guard;         /* who may ask, and how much */
    bool is_local;               /* only this machine can reach the gateway */
    struct telemetry *telemetry; /* NULL: no access log, no export */
    struct shadow *shadow;
    pthread_mutex_t publish_lock;     /* one plan is built at a time */
    pthread_mutex_t plan_lock;        /* never held while something is built or unloaded */
    struct served_plan *plan;         /* handed out last; under plan_lock */
    struct served_plan *retired;      /* older ones until the last loop let go; under plan_lock */
    char plan_hash[PLAN_HASH_SIZE];   /* of `plan`; under plan_lock */
    struct served_unloaded *unloaded; /* under publish_lock */
    struct pool *errands;             /* loads and unloads that clients ask for */
    uint64_t trimmed;                 /* models unloaded when memory was last given back */
    uint32_t loops_ready;             /* atomic: loops that have a plan */
    uint16_t port;
    bool started;
    uint32_t leaving; /* atomic: enum gateway_leave, or 0 */
    struct sockets sockets;
    struct serve_loop *loops; /* cfg.loops of them */
};

/* What is on its way to one loop: a plan, or certificates. */
struct change_mail {
    struct mail mail;
    struct served_plan *plan; /* a reference, or NULL */
    struct tls_context *tls;  /* the same */
};

const struct gateway_config *gateway_config(const struct gateway *gw)
{
    return &gw->cfg;
}

struct shadow *gateway_shadow(struct gateway *gw)
{
    return gw->shadow;
}

struct guard *gateway_guard(struct gateway *gw)
{
    return gw->guard;
}

struct telemetry *gateway_telemetry(struct gateway *gw)
{
    return gw->telemetry;
}

void gateway_reopen_logs(struct gateway *gw)
{
    telemetry_reopen(gw->telemetry);
}

struct keeper *gateway_keeper(struct gateway *gw)
{
    return gw->keeper;
}

uint16_t gateway_port(const struct gateway *gw)
{
    return gw->port;
}

size_t gateway_sockets(struct gateway *gw, const int **ret_fds)
{
    *ret_fds = gw->sockets.fds;
    return gw->sockets.n;
}

void gateway_sockets_forget(struct gateway *gw, bool kept_by_others)
{
    for (uint32_t i = 0; kept_by_others && i < gw->cfg.loops; i++)
        for (size_t k = 0; k < gw->loops[i].listener_count; k++)
            listener_keep_file(&gw->loops[i].listeners[k].listener);
    sockets_close(&gw->sockets);
}

enum gateway_leave gateway_leaving(const struct gateway *gw)
{
    return (enum gateway_leave)__atomic_load_n(&gw->leaving, __ATOMIC_ACQUIRE);
}

bool gateway_is_deserted(const struct gateway *gw)
{
    return !gateway_loop_sum(gw, offsetof(struct loop_counters, connections_open));
}

uint64_t gateway_loop_sum(const struct gateway *gw, size_t at)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < gw->cfg.loops; i++)
        sum += __atomic_load_n((uint64_t *)(void *)((char *)&gw->loops[i].counters + at),
                               __ATOMIC_RELAXED);
    return sum;
}

/* --- Mail to a loop --------------------------------------------------------------------------- */

static void take_plan(struct serve_loop *l, struct served_plan *plan)
{
    if (!l->plan)
        __atomic_add_fetch(&l->gw->loops_ready, 1, __ATOMIC_ACQ_REL);
    served_plan_unref(l->plan);
    l->plan = plan;
    __atomic_add_fetch(&plan->taken, 1, __ATOMIC_ACQ_REL);
}

static void on_mail(struct loop *loop, struct mailbox *mb, struct mail *m)
{
    struct serve_loop *l = CONTAINER_OF(mb, struct serve_loop, mailbox);
    struct change_mail *cm;

    ROLE_ASSERT(on_loop);
    if (m == &l->durable_mail) {
        __atomic_store_n(&l->durable_posted, false, __ATOMIC_RELEASE);
        conns_release_held(l);
        return;
    }
    if (m == &l->leave_mail) {
        if (gateway_leaving(l->gw) == GATEWAY_RETIRES)
            sockets_stop(l);
        loop_defer(loop, &l->leave);
        return;
    }
    if (m == &l->drain_mail) {
        sockets_stop(l);
        loop_defer(loop, &l->drain);
        return;
    }
    ASSERT(l->exchange_count == 0);
    cm = CONTAINER_OF(m, struct change_mail, mail);
    if (cm->plan)
        take_plan(l, cm->plan);
    if (cm->tls) {
        tls_context_unref(l->tls);
        l->tls = cm->tls;
    }
    mem_free(cm);
}

/* On the keeper's thread: something reached the disk. */
static void on_durable(void *ctx)
{
    struct gateway *gw = ctx;

    for (uint32_t i = 0; i < gw->cfg.loops; i++) {
        struct serve_loop *l = &gw->loops[i];

        if (__atomic_load_n(&l->held, __ATOMIC_RELAXED) &&
            !__atomic_exchange_n(&l->durable_posted, true, __ATOMIC_ACQ_REL))
            mailbox_post(&l->mailbox, &l->durable_mail);
    }
}

static void on_digest(void *ctx, const struct digest *d)
{
    const struct gateway *gw = ctx;

    gw->cfg.on_digest(gw->cfg.on_digest_ctx, d);
}

/* --- Loops ------------------------------------------------------------------------------------ */

static NODISCARD int loop_prepare(struct gateway *gw, struct serve_loop *l, struct err *e)
{
    uint64_t seed;

    l->gw = gw;
    l->tls = gw->cfg.tls ? tls_context_ref(gw->cfg.tls) : NULL;
    arena_init(&l->turn, 0); /* bounded by how many requests a turn takes */
    arena_init(&l->document, DOCUMENT_BYTES);
    buf_init(&l->body, BODY_BYTES);
    buf_init(&l->unfolded, BODY_BYTES);
    random_bytes(&seed, sizeof(seed));
    rng_seed(&l->rng, seed);
    TRY(loop_new(&l->loop, e));
    mailbox_open(&l->mailbox, l->loop, on_mail);
    mailbox_open(&l->returns, l->loop, offload_returned);
    mailbox_open(&l->errands, l->loop, errand_returned);
    l->turn_end.fn = conns_turn_end;
    l->drain.fn = conns_drain;
    l->leave.fn = conns_leave;
    loop_on_turn_end(l->loop, &l->turn_end);
    l->sweep.fn = conns_sweep;
    loop_timer_set(l->loop, &l->sweep, time_mono_ns() + NS_PER_S);
    if (gw->keeper)
        TRY(keeper_ring_new(gw->keeper, gw->cfg.ring_bytes, &l->ring, e));
    return 0;
}

static NODISCARD int listen_all(struct gateway *gw, struct err *e)
{
    TRY(sockets_open(&gw->cfg, &gw->sockets, &gw->is_local, &gw->port, e));
    TRY(guard_new(gw->cfg.state_dir, gw->cfg.loops, &gw->guard, e));
    TRY(telemetry_new(&gw->cfg.telemetry, gw->cfg.loops, &gw->telemetry, e));
    for (uint32_t i = 0; i < gw->cfg.loops; i++) {
        gw->loops[i].index = i;
        gw->loops[i].guard = guard_loop_of(gw->guard, i);
        gw->loops[i].telemetry = telemetry_loop_of(gw->telemetry, i);
        TRY(loop_prepare(gw, &gw->loops[i], e));
        TRY(sockets_listen(&gw->sockets, &gw->cfg, &gw->loops[i], e));
    }
    return 0;
}

static void loop_main(void *arg)
{
    struct serve_loop *l = arg;

    ROLE_ASSERT(on_loop);
    loop_run(l->loop);
    sockets_stop(l);
    conns_close_all(l);
}

static void loop_done(struct serve_loop *l)
{
    if (!l->loop)
        return;
    sockets_stop(l); /* of a loop that never ran */
    mailbox_close(&l->returns);
    mailbox_close(&l->errands);
    mailbox_close(&l->mailbox);
    offloads_done(l);
    served_plan_unref(l->plan);
    tls_context_unref(l->tls);
    loop_free(l->loop);
    arena_done(&l->turn);
    arena_done(&l->document);
    buf_done(&l->body);
    buf_done(&l->unfolded);
    coder_free(l->coder);
}

/* --- Life ------------------------------------------------------------------------------------- */

static NODISCARD int keeper_make(struct gateway *gw, struct err *e)
{
    struct keeper_config cfg = gw->cfg.keeper;

    if (!gw->cfg.records && !gw->cfg.monitors)
        return 0;
    cfg.segments_off = !gw->cfg.records;
    cfg.cells_off = !gw->cfg.monitors;
    cfg.on_durable = on_durable;
    cfg.on_digest = gw->cfg.on_digest ? on_digest : NULL;
    cfg.ctx = gw;
    cfg.successor = gw->cfg.successor;
    return keeper_open(&cfg, &gw->keeper, e);
}

static NODISCARD int gateway_open(struct gateway *gw, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};

    arena_init(&a, 0);
    TRY(blobs_open(path_join(&a, gw->cfg.state_dir, "blobs"), &gw->blobs, e));
    TRY(keeper_make(gw, e));
    TRY(listen_all(gw, e));
    return shadow_new(gw, &gw->shadow, e);
}

int gateway_new(const struct gateway_config *cfg, struct gateway **ret_gw, struct err *e)
{
    AUTO(gateway_freep) struct gateway *gw = mem_zalloc(sizeof(*gw));

    gw->cfg = *cfg;
    if (!gw->cfg.loops)
        gw->cfg.loops = (uint32_t)thread_cpus();
    gw->cfg.loops = MIN(gw->cfg.loops, (uint32_t)COUNTERS_LOOPS_MAX);
    pthread_mutex_init(&gw->publish_lock, NULL);
    pthread_mutex_init(&gw->plan_lock, NULL);
    gw->loops = mem_zalloc_aligned(64, gw->cfg.loops * sizeof(struct serve_loop));
    TRY(gateway_open(gw, e));
    *ret_gw = TAKE(gw);
    return 0;
}

int gateway_start(struct gateway *gw, struct err *e)
{
    char name[24];

    if (gw->keeper)
        TRY(keeper_start(gw->keeper, e));
    TRY(guard_start(gw->guard, e));
    TRY(telemetry_start(gw->telemetry, e));
    TRY(pool_new("weir-errands", 1, ERRANDS_MAX, &gw->errands, e));
    gw->started = true;
    for (uint32_t i = 0; i < gw->cfg.loops; i++) {
        snprintf(name, sizeof(name), "weir-loop-%u", i);
        TRY(thread_start(&gw->loops[i].thread, name, THREAD_ANY_CPU, loop_main, &gw->loops[i], e));
    }
    return 0;
}

void gateway_leave(struct gateway *gw, enum gateway_leave how)
{
    if (__atomic_exchange_n(&gw->leaving, (uint32_t)how, __ATOMIC_ACQ_REL) || !gw->started)
        return;
    for (uint32_t i = 0; i < gw->cfg.loops; i++)
        mailbox_post(&gw->loops[i].mailbox, &gw->loops[i].leave_mail);
}

/* Lets the loops answer what they have read and close their connections. */
static void drain(struct gateway *gw, int64_t grace_ns)
{
    int64_t end = time_mono_ns() + grace_ns;

    for (uint32_t i = 0; i < gw->cfg.loops; i++)
        if (gw->loops[i].thread.running)
            mailbox_post(&gw->loops[i].mailbox, &gw->loops[i].drain_mail);
    do {
        time_sleep(STOP_LOOK_NS);
        gateway_watchdog(gw);
    } while (!gateway_is_deserted(gw) && time_mono_ns() < end);
}

void gateway_stop(struct gateway *gw, int64_t grace_ns)
{
    if (!gw->started)
        return;
    sockets_close(&gw->sockets); /* a copy that nobody accepts on would hold clients up */
    if (grace_ns > 0)
        drain(gw, grace_ns);
    gw->started = false;
    for (uint32_t i = 0; i < gw->cfg.loops; i++)
        loop_stop(gw->loops[i].loop);
    for (uint32_t i = 0; i < gw->cfg.loops; i++)
        thread_join(&gw->loops[i].thread);
}

/* The loops are gone: what crews still have comes back into mailboxes that are emptied next. */
static void stop_crews(struct gateway *gw)
{
    if (gw->plan)
        served_plan_stop_crews(gw->plan);
    for (struct served_plan *p = gw->retired; p; p = p->next)
        served_plan_stop_crews(p);
}

static void unloaded_free(struct served_unloaded *u)
{
    mem_free((char *)u->name.p);
    mem_free(u);
}

void gateway_free(struct gateway *gw)
{
    if (!gw)
        return;
    gateway_stop(gw, 0);
    pool_free(gw->errands);
    shadow_free(gw->shadow);
    stop_crews(gw);
    keeper_close(gw->keeper);
    for (uint32_t i = 0; i < gw->cfg.loops; i++)
        loop_done(&gw->loops[i]);
    served_plan_unref(gw->plan);
    for (struct served_plan *p = gw->retired, *next; p; p = next) {
        next = p->next;
        served_plan_unref(p);
    }
    sockets_close(&gw->sockets);
    telemetry_free(gw->telemetry);
    while (gw->unloaded) {
        struct served_unloaded *u = gw->unloaded;

        gw->unloaded = u->next;
        unloaded_free(u);
    }
    guard_free(gw->guard);
    blobs_close(gw->blobs);
    tls_context_unref(gw->cfg.tls);
    pthread_mutex_destroy(&gw->publish_lock);
    pthread_mutex_destroy(&gw->plan_lock);
    mem_free(gw->loops);
    mem_free(gw);
}

/* --- Plans ------------------------------------------------------------------------------------ */

/* A plan, or certificates, to every loop. */
static void post_change(struct gateway *gw, struct served_plan *plan, struct tls_context *tls)
{
    for (uint32_t i = 0; i < gw->cfg.loops; i++) {
        struct change_mail *cm = mem_zalloc(sizeof(*cm));

        cm->plan = plan ? served_plan_ref(plan) : NULL;
        cm->tls = tls ? tls_context_ref(tls) : NULL;
        mailbox_post(&gw->loops[i].mailbox, &cm->mail);
    }
}

static void hand_out(struct gateway *gw, struct served_plan *plan)
{
    post_change(gw, plan, NULL);
    if (gw->keeper)
        keeper_set_plan(gw->keeper, str_of(plan->hash));
}

/* Until every loop answers by this plan: "live" is said of nothing less. */
static void wait_taken(struct gateway *gw, const struct served_plan *plan)
{
    int64_t end = time_mono_ns() + TAKEN_NS;

    while (gw->started && __atomic_load_n(&plan->taken, __ATOMIC_ACQUIRE) < gw->cfg.loops &&
           time_mono_ns() < end)
        time_sleep(NS_PER_MS / 5);
}

/* Under publish_lock: nobody else changes gw->plan, so it is read without plan_lock. */
static NODISCARD int publish(struct gateway *gw, str hash, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct served_config cfg = {.blobs = gw->blobs,
                                .loops = gw->cfg.loops,
                                .records = gw->keeper != NULL,
                                .cells = gw->cfg.monitors,
                                .guard = gw->guard,
                                .is_local = gw->is_local,
                                .unloaded = gw->unloaded};
    struct served_plan *plan;

    arena_init(&a, 0);
    cfg.work_dir = path_join(&a, gw->cfg.state_dir, "work");
    TRY(served_plan_new(&cfg, hash, gw->plan, &plan, e));
    pthread_mutex_lock(&gw->plan_lock);
    if (gw->plan) {
        gw->plan->next = gw->retired;
        gw->retired = gw->plan;
    }
    gw->plan = plan;
    memcpy(gw->plan_hash, plan->hash, sizeof(gw->plan_hash));
    pthread_mutex_unlock(&gw->plan_lock);
    hand_out(gw, plan);
    wait_taken(gw, plan);
    return 0;
}

static struct served_unloaded *unloaded_new(const struct served_endpoint *ep)
{
    struct served_unloaded *u = mem_zalloc(sizeof(*u));

    u->name = (str){mem_dupz(ep->plan.name.p, ep->plan.name.n), ep->plan.name.n};
    (void)!str_to_z(ep->plan.hash, u->hash, sizeof(u->hash));
    return u;
}

/* Where it stands in the list, or the end of it. */
static struct served_unloaded **unloaded_find(struct gateway *gw, const struct served_endpoint *ep)
{
    struct served_unloaded **at = &gw->unloaded;

    while (*at && !str_eq((*at)->name, ep->plan.name))
        at = &(*at)->next;
    return at;
}

/* An endpoint that the plan changed is served again: its unloading was of the old one. */
static void forget_replaced(struct gateway *gw)
{
    struct served_unloaded **at = &gw->unloaded, *u;

    while ((u = *at)) {
        const struct served_endpoint *ep = served_plan_find(gw->plan, u->name);

        if (ep && ep->unloaded) {
            at = &u->next;
            continue;
        }
        *at = u->next;
        unloaded_free(u);
    }
}

int gateway_publish(struct gateway *gw, str plan_hash, struct err *e)
{
    int rc;

    pthread_mutex_lock(&gw->publish_lock);
    rc = gw->plan && str_eqz(plan_hash, gw->plan_hash) ? 0 : publish(gw, plan_hash, e);
    if (!rc)
        forget_replaced(gw);
    pthread_mutex_unlock(&gw->publish_lock);
    return rc;
}

/* The same plan once more, with or without the models of the endpoint. */
static NODISCARD int change_loaded(struct gateway *gw, str name, bool load, struct err *e)
{
    struct served_endpoint *ep = gw->plan ? served_plan_find(gw->plan, name) : NULL;
    struct served_unloaded **at, *u;
    int rc;

    if (!ep)
        return FAIL(e, NOT_FOUND, "failed to %s '" STR_F "', no such endpoint is served",
                    load ? "load" : "unload", STR_A(str_take(name, 128)));
    if (ep->unloaded != load)
        return 0;
    at = unloaded_find(gw, ep);
    ASSERT(!load || *at); /* an endpoint without its models has one */
    u = load ? *at : unloaded_new(ep);
    *at = load ? u->next : u;
    rc = publish(gw, str_of(gw->plan_hash), e);
    if (rc) /* as it was */
        *at = load ? u : NULL;
    if (load == !rc)
        unloaded_free(u);
    if (!rc)
        log_event(LOG_INFO, load ? "model.loaded" : "model.unloaded", "endpoint=" STR_F,
                  STR_A(name));
    return rc;
}

int gateway_set_loaded(struct gateway *gw, str name, bool load, struct err *e)
{
    int rc;

    pthread_mutex_lock(&gw->publish_lock);
    rc = change_loaded(gw, name, load, e);
    pthread_mutex_unlock(&gw->publish_lock);
    return rc;
}

struct pool *gateway_errands(struct gateway *gw)
{
    return gw->errands;
}

void gateway_plan_hash(struct gateway *gw, char ret_hash[PLAN_HASH_SIZE])
{
    pthread_mutex_lock(&gw->plan_lock);
    memcpy(ret_hash, gw->plan_hash, PLAN_HASH_SIZE);
    pthread_mutex_unlock(&gw->plan_lock);
}

void gateway_set_tls(struct gateway *gw, struct tls_context *context)
{
    post_change(gw, NULL, context);
    tls_context_unref(gw->cfg.tls);
    gw->cfg.tls = context;
}

bool gateway_ready(struct gateway *gw)
{
    return __atomic_load_n(&gw->loops_ready, __ATOMIC_ACQUIRE) == gw->cfg.loops;
}

/* --- Watchdog --------------------------------------------------------------------------------- */

static void watch_model(struct served_model *m, int64_t now_ns)
{
    if (m->crew)
        crew_watch(m->crew, now_ns);
    for (uint32_t i = 0; i < m->lane_count; i++) {
        int64_t deadline = __atomic_load_n(&m->lanes[i].run_deadline_ns, __ATOMIC_ACQUIRE);

        if (deadline && now_ns > deadline)
            runtime_cancel(m->lanes[i].slot);
    }
}

static void watch_plan(const struct served_plan *plan, int64_t now_ns)
{
    for (size_t i = 0; plan && i < plan->endpoint_count; i++)
        for (size_t v = 0; v < plan->endpoints[i]->version_count; v++)
            watch_model(plan->endpoints[i]->versions[v].model, now_ns);
}

/* Takes the retired plans that nobody else holds out of the list. */
static struct served_plan *take_idle(struct gateway *gw)
{
    struct served_plan *idle = NULL, **at = &gw->retired, *p;

    while ((p = *at)) {
        if (__atomic_load_n(&p->refs, __ATOMIC_ACQUIRE) > 1) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        p->next = idle;
        idle = p;
    }
    return idle;
}

/* What models had goes back to the system, not only to the next model. */
static void unload(struct gateway *gw, struct served_plan *idle)
{
    struct served_plan *next;

    if (!idle)
        return;
    mem_return_early(true);
    for (; idle; idle = next) {
        next = idle->next;
        served_plan_unref(idle);
    }
    mem_return_early(false);
    if (served_models_unloaded() != gw->trimmed)
        mem_trim();
    gw->trimmed = served_models_unloaded();
}

void gateway_watchdog(struct gateway *gw)
{
    int64_t now_ns = time_mono_ns();
    struct served_plan *idle;

    pthread_mutex_lock(&gw->plan_lock);
    watch_plan(gw->plan, now_ns);
    for (const struct served_plan *p = gw->retired; p; p = p->next)
        watch_plan(p, now_ns);
    idle = take_idle(gw);
    pthread_mutex_unlock(&gw->plan_lock);
    unload(gw, idle);
}
