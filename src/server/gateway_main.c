/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway process. Its main thread owns the link to control, the watchdog and the signals; the
 * loops of serve/ answer requests; one worker builds plans. It starts from the plan that lies on
 * disk, so it comes up, and stays up, without control.
 */
#include "server/server.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "loop/dial.h"
#include "loop/thread.h"
#include "serve/gateway.h"
#include "server/gateway_telemetry.h"
#include "server/gateway_tls.h"
#include "server/handover.h"
#include "server/link.h"
#include "server/retained.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define REDIAL_NS (200 * NS_PER_MS)
#define WATCHDOG_NS (20 * NS_PER_MS)
#define PLAN_WAIT_NS (50 * NS_PER_MS)
#define LEAVE_LEAST_NS (200 * NS_PER_MS) /* until every loop has heard that it retires */
#define PATIENCE_MORE_NS (10 * NS_PER_S) /* besides the drain: for models, records, the link */
#define GREETING_NS (5 * NS_PER_S)
#define DIGEST_QUEUE_MAX 64 /* waiting for the main thread; more are dropped and counted */

struct gateway_process {
    const struct server_options *options;
    struct arena arena;
    struct loop *loop;
    struct loop_signals signals;
    struct loop_timer redial, watchdog;
    struct mailbox digests; /* from the keeper */
    struct mailbox plans;   /* built, from the worker */
    struct pool *worker;
    struct link link;
    struct retained retained;
    struct gateway *gw;
    uint32_t digests_waiting;    /* atomic */
    bool building;               /* the worker has a plan */
    char wanted[PLAN_HASH_SIZE]; /* the newest plan that control asked for */
    bool stopping;
    struct handover_sockets sockets; /* taken over; the gateway's once it is made */
    struct loop_fd supervisor;       /* fd < 0: none */
    int64_t announce_ns, drain_ns;
    int64_t leave_until_ns, left_ns; /* on its way to the end: both set */
    char name[32];
    struct gateway_tls tls;
};

struct digest_mail {
    struct mail mail;
    uint64_t run, sequence;
    struct buf bytes;
};

struct plan_job {
    struct job job;
    struct gateway_process *p;
    char hash[PLAN_HASH_SIZE];
    int64_t start_ns;
    struct err e;
    int rc;
};

/* --- Settings --------------------------------------------------------------------------------- */

/* Numbers of the plan's "gateway" object: SETTING(field, path, default, least, most). Control wrote
 * them from a checked project; they are checked once more because another program may have. */
#define SETTINGS(SETTING)                                                                   \
    SETTING(loops, "loops", 0, 0, COUNTERS_LOOPS_MAX)                                       \
    SETTING(connections, "connections_max", 10000, 1, 1000000)                              \
    SETTING(head_bytes, "header_bytes_max", 16 << 10, 1024, 1 << 20)                        \
    SETTING(body_bytes, "body_bytes_max", 8 << 20, 1024, 256 << 20)                         \
    SETTING(idle_ns, "idle_timeout_ns", 60 * NS_PER_S, NS_PER_MS, 86400 * NS_PER_S)         \
    SETTING(announce_ns, "drain_announce_ns", 0, 0, 600 * NS_PER_S)                         \
    SETTING(drain_ns, "drain_timeout_ns", 10 * NS_PER_S, NS_PER_MS, 600 * NS_PER_S)         \
    SETTING(request_ns, "request_timeout_ns", 10 * NS_PER_S, NS_PER_MS, 86400 * NS_PER_S)   \
    SETTING(ring_bytes, "records.ring_bytes", 4 << 20, 256 << 10, 1 << 30)                  \
    SETTING(flush_ns, "records.flush_interval_ns", NS_PER_S, 0, 3600 * NS_PER_S)            \
    SETTING(seal_ns, "records.seal_interval_ns", 60 * NS_PER_S, NS_PER_S, 86400 * NS_PER_S) \
    SETTING(seal_bytes, "records.seal_bytes", 64 << 20, 1 << 20, INT64_C(16) << 30)         \
    SETTING(label_rows, "records.label_window_rows", 1000000, 1024, 1 << 28)                \
    SETTING(digest_ns, "digest_interval_ns", 250 * NS_PER_MS, 10 * NS_PER_MS, 60 * NS_PER_S)

struct numbers {
#define SETTING(field, path, def, least, most) int64_t field;
    SETTINGS(SETTING)
#undef SETTING
};

static NODISCARD int setting(const struct json *gateway, const char *path, int64_t def,
                             int64_t least, int64_t most, int64_t *ret, struct err *e)
{
    const struct json *node = json_path(gateway, path);

    *ret = json_int_or(node, def);
    if (node && node->type == JSON_NULL)
        return 0;
    if ((node && node->type != JSON_INT) || *ret < least || *ret > most)
        return FAIL(e, OUT_OF_RANGE, "gateway.%s: expected a whole number from %lld to %lld", path,
                    (long long)least, (long long)most);
    return 0;
}

/* A key of 32 random bytes that stays with the state directory: pseudonyms must be stable. */
static NODISCARD int pseudonym_key(struct gateway_process *p, str *ret_key, struct err *e)
{
    char *dir = path_join(&p->arena, p->options->state_dir, "keys");
    char *path = path_join(&p->arena, dir, "pseudonym");
    unsigned char bytes[32];
    char hex[2 * sizeof(bytes) + 1];

    if (!file_exists(path)) {
        random_bytes(bytes, sizeof(bytes));
        hex_encode(bytes, sizeof(bytes), hex);
        TRY(file_make_dirs(dir, e));
        TRY(file_replace(path, str_of(hex), e));
    }
    TRY(file_read_all(path, 4096, &p->arena, ret_key, e));
    *ret_key = str_trim(*ret_key);
    return ret_key->n >= 32 ? 0 : FAIL(e, DATA_LOSS, "%s is too short to be a key", path);
}

static void on_digest(void *ctx, const struct digest *d);

static NODISCARD int settings(struct gateway_process *p, const struct json *g,
                              struct gateway_config *cfg, struct err *e)
{
    const struct server_options *o = p->options;
    str listen = json_str_or(json_get(g, S("listen")), S("127.0.0.1:8080"));
    struct numbers n;

#define SETTING(field, path, def, least, most) TRY(setting(g, path, def, least, most, &n.field, e));
    SETTINGS(SETTING)
#undef SETTING
    *cfg = (struct gateway_config){
        .listen = o->listen ? o->listen : arena_dupz(&p->arena, listen),
        .state_dir = o->state_dir,
        .loops = o->loops ? o->loops : (uint32_t)n.loops,
        .connections_max = (uint32_t)n.connections,
        .head_bytes_max = (uint32_t)n.head_bytes,
        .body_bytes_max = (uint64_t)n.body_bytes,
        .idle_timeout_ns = n.idle_ns,
        .request_timeout_ns = n.request_ns,
        .records = !o->no_records,
        .monitors = !o->no_monitors,
        .server_name = json_str_or(json_get(g, S("server_name")), S("weir")),
        .ring_bytes = (size_t)n.ring_bytes,
        .on_digest = on_digest,
        .on_digest_ctx = p,
        .keeper = {.dir = path_join(&p->arena, o->state_dir, "records"),
                   .gateway = str_of(p->name),
                   .flush_ms = (int32_t)(n.flush_ns / NS_PER_MS),
                   .seal_ms = (uint32_t)(n.seal_ns / NS_PER_MS),
                   .seal_bytes = (uint64_t)n.seal_bytes,
                   .join_entries = (uint32_t)n.label_rows,
                   .digest_ms = (uint32_t)(n.digest_ns / NS_PER_MS)},
    };
    p->announce_ns = n.announce_ns;
    p->drain_ns = n.drain_ns;
    TRY(gateway_telemetry_read(g, o->project_dir, p->name, &p->arena, &cfg->telemetry, e));
    return pseudonym_key(p, &cfg->pseudonym_key, e);
}

/* --- Digests and plans ------------------------------------------------------------------------ */

/* On the keeper's thread. */
static void on_digest(void *ctx, const struct digest *d)
{
    struct gateway_process *p = ctx;
    struct digest_mail *m;

    if (__atomic_load_n(&p->digests_waiting, __ATOMIC_RELAXED) >= DIGEST_QUEUE_MAX)
        return; /* the gap in the sequence tells control */
    m = mem_zalloc(sizeof(*m));
    m->run = d->run;
    m->sequence = d->sequence;
    buf_init(&m->bytes, DIGEST_BYTES_MAX);
    digest_encode(d, &m->bytes);
    __atomic_add_fetch(&p->digests_waiting, 1, __ATOMIC_RELAXED);
    mailbox_post(&p->digests, &m->mail);
}

static void answer_plan(struct gateway_process *p, const struct plan_job *job)
{
    AUTO(buf_done) struct buf text = {0};
    struct json_out o;

    buf_init(&text, 64 << 10);
    jo_begin(&o, &text);
    jo_object(&o);
    jo_kstr(&o, S("plan"), str_of(job->hash));
    if (job->rc)
        jo_kstr(&o, S("error"), str_of(job->e.msg));
    else
        jo_kreal(&o, S("load_ms"), (double)(time_mono_ns() - job->start_ns) / 1e6);
    jo_object_end(&o);
    link_send(&p->link, job->rc ? LINK_PLAN_REFUSED : LINK_PLAN_LIVE, buf_str(&text));
}

static void on_digest_mail(struct loop *loop, struct mailbox *mb, struct mail *m)
{
    struct gateway_process *p = CONTAINER_OF(mb, struct gateway_process, digests);
    struct digest_mail *d = CONTAINER_OF(m, struct digest_mail, mail);

    (void)loop;
    __atomic_sub_fetch(&p->digests_waiting, 1, __ATOMIC_RELAXED);
    if (!d->bytes.overflowed)
        retained_add(&p->retained, &p->link, d->run, d->sequence, &d->bytes);
    buf_done(&d->bytes);
    mem_free(d);
}

static void build_wanted(struct gateway_process *p);

static void on_plan_built(struct loop *loop, struct mailbox *mb, struct mail *m)
{
    struct gateway_process *p = CONTAINER_OF(mb, struct gateway_process, plans);
    struct plan_job *job = CONTAINER_OF(CONTAINER_OF(m, struct job, mail), struct plan_job, job);

    (void)loop;
    if (job->job.cancelled) {
        mem_free(job);
        return;
    }
    if (job->rc)
        log_err("plan.refused", &job->e);
    else
        log_event(LOG_INFO, "plan.live", "plan=%.12s load_ms=%.1f", job->hash,
                  (double)(time_mono_ns() - job->start_ns) / 1e6);
    answer_plan(p, job);
    p->building = false;
    if (!p->stopping && strcmp(p->wanted, job->hash) != 0)
        build_wanted(p);
    mem_free(job);
}

/* Notes the plan that is served, for a start when the current one cannot be. A gateway whose disk
 * is full or read-only goes on without. */
static void remember(const struct gateway_process *p, const char *hash)
{
    char last[PLAN_HASH_SIZE];
    struct err e;

    if (plan_good_read(p->options->state_dir, last, NULL) == 0 && strcmp(last, hash) == 0)
        return;
    if (plan_good_write(p->options->state_dir, str_of(hash), &e))
        log_err("plan.not_noted", &e);
}

/* On the worker. */
static void build_plan(struct job *j)
{
    struct plan_job *job = CONTAINER_OF(j, struct plan_job, job);

    job->rc = gateway_publish(job->p->gw, str_of(job->hash), &job->e);
    if (!job->rc)
        remember(job->p, job->hash);
}

/* While one plan is built only the newest of those asked for meanwhile is kept: in between, nobody
 * needs them any more, and the last one must never be the one that finds no room. */
static void want_plan(struct gateway_process *p, str hash)
{
    if (!str_to_z(hash, p->wanted, sizeof(p->wanted)))
        log_event(LOG_WARN, "plan.not_built", "reason=\"control sent what is no hash\"");
    else if (!p->building)
        build_wanted(p);
}

static void build_wanted(struct gateway_process *p)
{
    struct plan_job *job = mem_zalloc(sizeof(*job));
    struct err e;

    memcpy(job->hash, p->wanted, sizeof(job->hash));
    job->p = p;
    job->start_ns = time_mono_ns();
    job->job.run = build_plan;
    job->job.reply_to = &p->plans;
    p->building = !pool_submit(p->worker, &job->job, &e);
    if (!p->building) {
        log_err("plan.not_built", &e);
        mem_free(job);
    }
}

/* --- The link --------------------------------------------------------------------------------- */

static void on_frame(struct link *k, enum link_type type, str payload)
{
    struct gateway_process *p = CONTAINER_OF(k, struct gateway_process, link);

    if (type == LINK_PLAN)
        want_plan(p, payload);
    else if (type == LINK_KEPT)
        retained_kept(&p->retained, payload);
    else if (type == LINK_SEAL && gateway_keeper(p->gw))
        keeper_seal_soon(gateway_keeper(p->gw));
}

static void on_closed(struct link *k, const char *why)
{
    struct gateway_process *p = CONTAINER_OF(k, struct gateway_process, link);

    log_event(LOG_WARN, "link.closed", "reason=\"%s\"", why);
    loop_timer_set(p->loop, &p->redial, loop_now_ns(p->loop) + REDIAL_NS);
}

static void say_hello(struct gateway_process *p)
{
    AUTO(buf_done) struct buf text = {0};
    char plan[PLAN_HASH_SIZE];
    struct json_out o;

    gateway_plan_hash(p->gw, plan);
    buf_init(&text, 4096);
    jo_begin(&o, &text);
    jo_object(&o);
    jo_kstr(&o, S("gateway"), str_of(p->name));
    jo_kint(&o, S("pid"), getpid());
    jo_kstr(&o, S("version"), S(WEIR_VERSION));
    jo_kstr(&o, S("plan"), str_of(plan));
    jo_kint(&o, S("port"), gateway_port(p->gw));
    jo_object_end(&o);
    link_send(&p->link, LINK_HELLO, buf_str(&text));
}

static void redial(struct loop *loop, struct loop_timer *t)
{
    struct gateway_process *p = CONTAINER_OF(t, struct gateway_process, redial);
    AUTO(arena_done) struct arena a = {0};
    struct addr at;
    struct err e;
    int fd;

    arena_init(&a, 0);
    if (addr_parse(arena_printf(&a, "unix:%s/run/link.sock", p->options->state_dir), &at, &e) ||
        dial(&at, loop_now_ns(loop) + REDIAL_NS, &fd, &e)) {
        loop_timer_set(loop, t, loop_now_ns(loop) + REDIAL_NS);
        return;
    }
    p->link.on_frame = on_frame;
    p->link.on_closed = on_closed;
    if (link_open(&p->link, loop, fd, &e)) {
        log_err("link.failed", &e);
        close(fd);
        loop_timer_set(loop, t, loop_now_ns(loop) + REDIAL_NS);
        return;
    }
    log_event(LOG_INFO, "link.open", "to=control");
    say_hello(p);
    retained_send(&p->retained, &p->link);
}

/* --- Leaving ---------------------------------------------------------------------------------- */

/* A stop is announced for as long as the project says; a gateway that a successor has replaced
 * waits for its clients to come along, but no longer than a drain may take. What is left then is
 * drained in finish(). */
static void leave(struct gateway_process *p, enum gateway_leave how, int64_t ns)
{
    p->stopping = true;
    p->left_ns = loop_now_ns(p->loop);
    p->leave_until_ns = p->left_ns + ns;
    gateway_leave(p->gw, how);
}

static bool has_left(const struct gateway_process *p, int64_t now_ns)
{
    if (!p->leave_until_ns)
        return false;
    return now_ns >= p->leave_until_ns ||
           (gateway_leaving(p->gw) == GATEWAY_RETIRES && now_ns - p->left_ns > LEAVE_LEAST_NS &&
            gateway_is_deserted(p->gw));
}

static void on_supervisor(struct loop *loop, struct loop_fd *w, uint32_t events)
{
    struct gateway_process *p = CONTAINER_OF(w, struct gateway_process, supervisor);
    struct handover_message m;
    struct err e;

    (void)events;
    if (handover_receive(w->fd, 0, &m, &e)) {
        log_err("handover.failed", &e);
        return;
    }
    handover_close(&m.sockets);
    if (m.word == HANDOVER_GONE)
        loop_fd_remove(loop, w);
    if (m.word != HANDOVER_RETIRE || p->stopping)
        return;
    log_event(LOG_INFO, "gateway.retiring", "timeout_ms=%lld",
              (long long)(p->drain_ns / NS_PER_MS));
    leave(p, GATEWAY_RETIRES, p->drain_ns);
}

/* What to listen on: what the supervisor kept for this address, what systemd opened, or nothing,
 * and then the gateway opens sockets of its own. */
static NODISCARD int take_sockets(struct gateway_process *p, struct gateway_config *cfg,
                                  struct err *e)
{
    struct handover_message m = {0};

    if (p->options->handover) {
        p->supervisor.fd = p->options->handover;
        TRY(handover_receive(p->supervisor.fd, time_mono_ns() + GREETING_NS, &m, e));
    } else {
        TRY(handover_activated(&m.sockets, e));
    }
    if (!m.sockets.apart && strcmp(m.sockets.listen, cfg->listen) != 0)
        handover_close(&m.sockets);
    p->sockets = m.sockets;
    if (!str_to_z(str_of(cfg->listen), p->sockets.listen, sizeof(p->sockets.listen)))
        return FAIL(e, INVALID_ARGUMENT, "the address '%s' is too long", cfg->listen);
    cfg->sockets = p->sockets.fds;
    cfg->socket_count = p->sockets.n;
    cfg->sockets_apart = p->sockets.apart;
    cfg->successor = m.successor;
    return 0;
}

static NODISCARD int tell_ready(struct gateway_process *p, struct err *e)
{
    struct handover_message m = {.word = HANDOVER_READY, .sockets = p->sockets};
    bool supervised = p->options->handover != 0;
    const int *fds;

    m.sockets.n = gateway_sockets(p->gw, &fds);
    memcpy(m.sockets.fds, fds, m.sockets.n * sizeof(fds[0]));
    m.patience_ms = (p->announce_ns + 2 * p->drain_ns + PATIENCE_MORE_NS) / NS_PER_MS;
    if (supervised) {
        TRY(handover_send(p->supervisor.fd, &m, e));
        p->supervisor.fn = on_supervisor;
        TRY(loop_fd_add(p->loop, &p->supervisor, EPOLLIN, e));
    }
    gateway_sockets_forget(p->gw, supervised || p->sockets.apart);
    return 0;
}

/* --- Life ------------------------------------------------------------------------------------- */

static void watchdog(struct loop *loop, struct loop_timer *t)
{
    struct gateway_process *p = CONTAINER_OF(t, struct gateway_process, watchdog);

    gateway_watchdog(p->gw);
    if (has_left(p, loop_now_ns(loop)))
        loop_stop(loop);
    loop_timer_set(loop, t, loop_now_ns(loop) + WATCHDOG_NS);
}

static void on_signal(struct loop *loop, struct loop_signals *s, int signo)
{
    struct gateway_process *p = CONTAINER_OF(s, struct gateway_process, signals);
    bool again = p->stopping;

    if (signo == SIGHUP) { /* logs were moved */
        if (p->gw)
            gateway_reopen_logs(p->gw);
        return;
    }
    log_event(LOG_INFO, "gateway.stopping", "signal=%d", signo);
    p->stopping = true;
    if (again || !p->gw || !p->announce_ns)
        loop_stop(loop);
    else
        leave(p, GATEWAY_ANNOUNCES, p->announce_ns);
}

/* Waits for the first plan of a new project: control writes it when the project is applied. */
static NODISCARD int first_plan(struct gateway_process *p, char hash[PLAN_HASH_SIZE],
                                struct json **ret_settings, struct err *e)
{
    AUTO(blobs_closep) struct blobs *blobs = NULL;
    struct plan *plan;
    bool told = false;

    while (plan_current_read(p->options->state_dir, hash, e)) {
        if (e->code != CODE_NOT_FOUND)
            return (int)e->code;
        if (!told)
            log_event(LOG_INFO, "gateway.waiting",
                      "for=\"the first plan, which control makes from weir.yaml\"");
        told = true;
        loop_turn(p->loop, PLAN_WAIT_NS);
        if (p->stopping)
            return FAIL(e, CANCELLED, "stopped before there was a plan");
    }
    TRY(blobs_open(path_join(&p->arena, p->options->state_dir, "blobs"), &blobs, e));
    if (plan_root_load(blobs, str_of(hash), &p->arena, &plan, e)) {
        log_err("plan.refused", e);
        TRY(plan_good_read(p->options->state_dir, hash, e));
        TRY(plan_root_load(blobs, str_of(hash), &p->arena, &plan, e));
    }
    *ret_settings = plan->gateway;
    return 0;
}

/* Serves the plan, or the one that was served last. */
static NODISCARD int first_publish(struct gateway_process *p, char hash[PLAN_HASH_SIZE],
                                   struct err *e)
{
    char good[PLAN_HASH_SIZE];

    if (gateway_publish(p->gw, str_of(hash), e)) {
        if (plan_good_read(p->options->state_dir, good, NULL) || strcmp(good, hash) == 0)
            return (int)e->code;
        log_err("plan.refused", e);
        TRY(gateway_publish(p->gw, str_of(good), e));
        memcpy(hash, good, sizeof(good));
    }
    remember(p, hash);
    return 0;
}

static NODISCARD int prepare(struct gateway_process *p, struct err *e)
{
    static const int signos[] = {SIGTERM, SIGINT, SIGHUP, 0};
    struct gateway_config cfg;
    struct json *g = NULL;
    char hash[PLAN_HASH_SIZE];
    int64_t start = time_mono_ns();

    snprintf(p->name, sizeof(p->name), "gw-%d", (int)getpid());
    TRY(loop_new(&p->loop, e));
    TRY(loop_signals_open(p->loop, &p->signals, signos, on_signal, e));
    mailbox_open(&p->digests, p->loop, on_digest_mail);
    mailbox_open(&p->plans, p->loop, on_plan_built);
    TRY(first_plan(p, hash, &g, e));
    TRY(settings(p, g, &cfg, e));
    TRY(take_sockets(p, &cfg, e));
    TRY(gateway_tls_open(&p->tls, p->options->project_dir, g, &p->arena, &cfg.tls, e));
    TRY(gateway_new(&cfg, &p->gw, e));
    TRY(first_publish(p, hash, e));
    TRY(gateway_start(p->gw, e));
    TRY(pool_new("weir-plans", 1, 64, &p->worker, e));
    gateway_tls_watch(&p->tls, p->loop, p->gw);
    TRY(tell_ready(p, e));
    log_event(LOG_INFO, "gateway.ready", "listen=%s port=%u plan=%.12s start_ms=%.1f", cfg.listen,
              gateway_port(p->gw), hash, (double)(time_mono_ns() - start) / 1e6);
    return 0;
}

static void finish(struct gateway_process *p)
{
    p->stopping = true;
    pool_free(p->worker);
    if (p->gw)
        gateway_stop(p->gw, p->drain_ns);
    gateway_free(p->gw); /* its keeper sends a last digest into the mailbox */
    if (p->loop) {
        mailbox_close(&p->digests);
        mailbox_close(&p->plans);
        link_finish(&p->link, time_mono_ns() + NS_PER_S);
        link_close(&p->link);
        loop_fd_remove(p->loop, &p->supervisor);
        loop_signals_close(p->loop, &p->signals);
    }
    loop_free(p->loop);
    retained_done(&p->retained);
    arena_done(&p->arena);
}

int server_gateway_main(const struct server_options *o)
{
    struct gateway_process p = {.options = o, .link.watch.fd = -1, .supervisor.fd = -1};
    struct err e;
    int rc;

    arena_init(&p.arena, 0);
    rc = prepare(&p, &e);
    if (rc) {
        bool asked = p.stopping;

        if (!asked)
            log_err("gateway.failed", &e);
        finish(&p);
        return asked ? 0 : code_exit_status(e.code);
    }
    p.redial.fn = redial;
    p.watchdog.fn = watchdog;
    loop_timer_set(p.loop, &p.redial, time_mono_ns());
    loop_timer_set(p.loop, &p.watchdog, time_mono_ns() + WATCHDOG_NS);
    if (!p.stopping)
        loop_run(p.loop);
    finish(&p);
    return 0;
}
