/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway as a whole: its threads and how a new plan reaches them.
 *
 * A plan is built by one worker at a time and then mailed to every loop. A loop takes it over when
 * the mail arrives, which is between two turns, when nothing is in flight; it hands its old plan
 * back by dropping its reference, and the last one to do so frees what no newer plan shares. So a
 * swap costs a loop one pointer, and a request never sees two plans.
 */
#include "serve/gateway.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"
#include "serve/priv.h"

#include <pthread.h>
#include <stdio.h>

#define TURN_ARENA_BYTES ((size_t)1 << 30) /* cap of what one turn may parse */
#define BODY_BYTES ((size_t)512 << 20)

struct gateway {
    struct gateway_config cfg;
    struct blobs *blobs;
    struct keeper *keeper; /* NULL: records and monitors are off */
    struct shadow *shadow;
    pthread_mutex_t publish_lock;   /* one plan at a time */
    struct served_plan *plan;       /* handed out last; under publish_lock */
    char plan_hash[PLAN_HASH_SIZE]; /* of it; under publish_lock */
    uint32_t loops_ready;           /* atomic: loops that have a plan */
    uint16_t port;
    bool started;
    struct serve_loop *loops; /* cfg.loops of them */
};

/* A plan on its way to one loop. */
struct plan_mail {
    struct mail mail;
    struct served_plan *plan; /* a reference */
};

const struct gateway_config *gateway_config(const struct gateway *gw)
{
    return &gw->cfg;
}

struct shadow *gateway_shadow(struct gateway *gw)
{
    return gw->shadow;
}

struct keeper *gateway_keeper(struct gateway *gw)
{
    return gw->keeper;
}

uint16_t gateway_port(const struct gateway *gw)
{
    return gw->port;
}

uint64_t gateway_loop_sum(const struct gateway *gw, size_t at)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < gw->cfg.loops; i++)
        sum += __atomic_load_n((uint64_t *)(void *)((char *)&gw->loops[i].counters + at),
                               __ATOMIC_RELAXED);
    return sum;
}

/* --- Mail to a loop -----------------------------------------------------------------------------
 */

static void on_mail(struct loop *loop, struct mailbox *mb, struct mail *m)
{
    struct serve_loop *l = CONTAINER_OF(mb, struct serve_loop, mailbox);
    struct plan_mail *pm;

    ROLE_ASSERT(on_loop);
    (void)loop;
    if (m == &l->durable_mail) {
        __atomic_store_n(&l->durable_posted, false, __ATOMIC_RELEASE);
        conns_release_held(l);
        return;
    }
    ASSERT(l->exchange_count == 0);
    pm = CONTAINER_OF(m, struct plan_mail, mail);
    if (!l->plan)
        __atomic_add_fetch(&l->gw->loops_ready, 1, __ATOMIC_ACQ_REL);
    served_plan_unref(l->plan);
    l->plan = pm->plan;
    mem_free(pm);
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

/* --- Loops --------------------------------------------------------------------------------------
 */

static NODISCARD int loop_prepare(struct gateway *gw, struct serve_loop *l, const struct addr *at,
                                  struct err *e)
{
    struct listen_options options = {.reuse_port = !addr_is_unix(at)};
    uint64_t seed;
    int fd;

    l->gw = gw;
    arena_init(&l->turn, TURN_ARENA_BYTES);
    buf_init(&l->body, BODY_BYTES);
    random_bytes(&seed, sizeof(seed));
    rng_seed(&l->rng, seed);
    TRY(loop_new(&l->loop, e));
    mailbox_open(&l->mailbox, l->loop, on_mail);
    l->turn_end.fn = conns_turn_end;
    loop_on_turn_end(l->loop, &l->turn_end);
    l->sweep.fn = conns_sweep;
    loop_timer_set(l->loop, &l->sweep, time_mono_ns() + NS_PER_S);
    if (gw->keeper)
        TRY(keeper_ring_new(gw->keeper, gw->cfg.ring_bytes, &l->ring, e));
    if (l->index > 0 && addr_is_unix(at))
        return 0; /* a unix socket has one listener */
    TRY(listen_open(at, &options, &fd, e));
    return listener_start(l->loop, &l->listener, fd, conn_accept, e);
}

static NODISCARD int listen_all(struct gateway *gw, struct err *e)
{
    struct addr at;

    TRY(addr_parse(str_of(gw->cfg.listen), &at, e));
    for (uint32_t i = 0; i < gw->cfg.loops; i++) {
        gw->loops[i].index = i;
        TRY(loop_prepare(gw, &gw->loops[i], &at, e));
        if (i == 0) { /* port 0: the others take the port that the first one got */
            TRY(addr_of_socket(gw->loops[0].listener.watch.fd, &at, e));
            gw->port = addr_port(&at);
        }
    }
    return 0;
}

static void loop_main(void *arg)
{
    struct serve_loop *l = arg;

    ROLE_ASSERT(on_loop);
    loop_run(l->loop);
    listener_stop(l->loop, &l->listener);
    conns_close_all(l);
}

static void loop_done(struct serve_loop *l)
{
    if (!l->loop)
        return;
    mailbox_close(&l->mailbox);
    served_plan_unref(l->plan);
    loop_free(l->loop);
    arena_done(&l->turn);
    buf_done(&l->body);
}

/* --- Life ---------------------------------------------------------------------------------------
 */

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
    return keeper_open(&cfg, &gw->keeper, e);
}

static NODISCARD int gateway_open(struct gateway *gw, struct err *e)
{
    AUTO(arena_done) struct arena a;

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
    gw->started = true;
    for (uint32_t i = 0; i < gw->cfg.loops; i++) {
        snprintf(name, sizeof(name), "weir-loop-%u", i);
        TRY(thread_start(&gw->loops[i].thread, name, THREAD_ANY_CPU, loop_main, &gw->loops[i], e));
    }
    return 0;
}

void gateway_stop(struct gateway *gw, int64_t grace_ns)
{
    (void)grace_ns;
    if (!gw->started)
        return;
    gw->started = false;
    for (uint32_t i = 0; i < gw->cfg.loops; i++)
        loop_stop(gw->loops[i].loop);
    for (uint32_t i = 0; i < gw->cfg.loops; i++)
        thread_join(&gw->loops[i].thread);
}

void gateway_free(struct gateway *gw)
{
    if (!gw)
        return;
    gateway_stop(gw, 0);
    shadow_free(gw->shadow);
    keeper_close(gw->keeper);
    for (uint32_t i = 0; i < gw->cfg.loops; i++)
        loop_done(&gw->loops[i]);
    served_plan_unref(gw->plan);
    blobs_close(gw->blobs);
    pthread_mutex_destroy(&gw->publish_lock);
    mem_free(gw->loops);
    mem_free(gw);
}

/* --- Plans --------------------------------------------------------------------------------------
 */

static void hand_out(struct gateway *gw, struct served_plan *plan)
{
    for (uint32_t i = 0; i < gw->cfg.loops; i++) {
        struct plan_mail *pm = mem_zalloc(sizeof(*pm));

        pm->plan = served_plan_ref(plan);
        mailbox_post(&gw->loops[i].mailbox, &pm->mail);
    }
    if (gw->keeper)
        keeper_set_plan(gw->keeper, str_of(plan->hash));
}

static NODISCARD int publish(struct gateway *gw, str hash, struct err *e)
{
    struct served_config cfg = {gw->blobs, gw->cfg.loops, gw->keeper != NULL, gw->cfg.monitors};
    struct served_plan *plan;

    if (gw->plan && str_eqz(hash, gw->plan_hash))
        return 0;
    TRY(served_plan_new(&cfg, hash, gw->plan, &plan, e));
    hand_out(gw, plan);
    served_plan_unref(gw->plan);
    gw->plan = plan;
    memcpy(gw->plan_hash, plan->hash, sizeof(gw->plan_hash));
    return 0;
}

int gateway_publish(struct gateway *gw, str plan_hash, struct err *e)
{
    int rc;

    pthread_mutex_lock(&gw->publish_lock);
    rc = publish(gw, plan_hash, e);
    pthread_mutex_unlock(&gw->publish_lock);
    return rc;
}

void gateway_plan_hash(struct gateway *gw, char ret_hash[PLAN_HASH_SIZE])
{
    pthread_mutex_lock(&gw->publish_lock);
    memcpy(ret_hash, gw->plan_hash, PLAN_HASH_SIZE);
    pthread_mutex_unlock(&gw->publish_lock);
}

bool gateway_ready(struct gateway *gw)
{
    return __atomic_load_n(&gw->loops_ready, __ATOMIC_ACQUIRE) == gw->cfg.loops;
}

/* --- Watchdog -----------------------------------------------------------------------------------
 */

static void watch_model(struct served_model *m, int64_t now_ns)
{
    for (uint32_t i = 0; i < m->lane_count; i++) {
        int64_t deadline = __atomic_load_n(&m->lanes[i].run_deadline_ns, __ATOMIC_ACQUIRE);

        if (deadline && now_ns > deadline)
            runtime_cancel(m->lanes[i].slot);
    }
}

void gateway_watchdog(struct gateway *gw)
{
    int64_t now_ns = time_mono_ns();
    struct served_plan *plan;

    if (pthread_mutex_trylock(&gw->publish_lock))
        return; /* a plan is being built; the next look is soon */
    plan = gw->plan ? served_plan_ref(gw->plan) : NULL;
    pthread_mutex_unlock(&gw->publish_lock);
    for (size_t i = 0; plan && i < plan->endpoint_count; i++)
        for (size_t v = 0; v < plan->endpoints[i]->version_count; v++)
            watch_model(plan->endpoints[i]->versions[v].model, now_ns);
    served_plan_unref(plan);
}
