/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of notes, and one batch that is on its way. A batch is encoded once and kept as bytes
 * until it is taken or given up, so that trying again costs nothing and its spans keep their order.
 *
 * States: idle (batch empty), away (the worker has it), waiting (until retry_ns). While a batch is
 * not done with, the queue is the only place for what comes; that is its bound.
 */
#include "serve/telemetry/exporter.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "loop/fetch.h"
#include "serve/telemetry/otlp.h"

#define BODY_BYTES ((size_t)16 << 20)
#define ANSWER_BYTES ((size_t)64 << 10)
#define PAUSE_MIN_NS NS_PER_S
#define PAUSE_MAX_NS (60 * NS_PER_S)
#define RETRY_AFTER_MAX_NS (600 * NS_PER_S)
#define GIVE_UP_NS (300 * NS_PER_S) /* a batch that old is dropped */
#define LAST_NS NS_PER_S

struct exporter {
    struct exporter_config cfg; /* texts of the arena */
    struct arena arena;
    struct loop *loop; /* borrowed */
    struct pool *pool; /* owned: one thread */
    struct mailbox sent;
    bool aborting; /* atomic */

    struct note *queue; /* owned; cfg.queue of them */
    uint64_t put, got;
    int64_t oldest_ns; /* when the first of the queue came; 0: it is empty */

    /* The batch. */
    struct job job;
    struct buf body; /* empty: there is none */
    uint32_t batch;  /* requests in it */
    bool away, failing;
    int64_t since_ns, retry_ns, pause_ns;
    struct arena scratch; /* of the worker while it is away */
    struct fetch_answer answer;
    struct err e;
    int rc;
    struct rng rng;

    uint64_t exported, dropped_queue, dropped_refused, dropped_late, rejected; /* atomic */
    uint64_t retries;                                                          /* atomic */
};

/* --- The worker ------------------------------------------------------------------------------- */

static void send_batch(struct exporter *x, int64_t timeout_ns)
{
    struct fetch_post post = {.url = x->cfg.endpoint,
                              .content_type = "application/x-protobuf",
                              .headers = x->cfg.headers,
                              .body = buf_str(&x->body),
                              .timeout_ns = timeout_ns,
                              .answer_bytes_max = ANSWER_BYTES,
                              .abort = &x->aborting};

    arena_reset(&x->scratch);
    x->rc = fetch_post(&post, &x->scratch, &x->answer, &x->e);
}

static void run_job(struct job *j)
{
    struct exporter *x = CONTAINER_OF(j, struct exporter, job);

    send_batch(x, x->cfg.timeout_ns);
}

/* --- What became of it ------------------------------------------------------------------------ */

static void batch_done(struct exporter *x, uint64_t *counter)
{
    counter_add(counter, x->batch);
    buf_clear(&x->body);
    x->batch = 0;
    x->pause_ns = 0;
}

static bool may_retry(const struct exporter *x)
{
    int s = x->rc ? 503 : x->answer.status;

    return s == 429 || s == 502 || s == 503 || s == 504;
}

/* The first failure is told, and the first success after it. */
static void tell(struct exporter *x, bool ok)
{
    if (!ok && !x->failing) {
        if (!x->rc)
            (void)FAIL(&x->e, UNAVAILABLE, "%s answers %d", x->cfg.endpoint, x->answer.status);
        log_err("otlp.failed", &x->e);
    }
    if (ok && x->failing)
        log_event(LOG_INFO, "otlp.works_again", "endpoint=\"%s\"", x->cfg.endpoint);
    x->failing = !ok;
}

static void take_success(struct exporter *x)
{
    str message;
    uint64_t rejected = otlp_rejected(x->answer.body, &message);

    if (rejected && !x->rejected)
        log_event(LOG_WARN, "otlp.rejected", "spans=%llu", (unsigned long long)rejected);
    counter_add(&x->rejected, rejected);
    tell(x, true);
    batch_done(x, &x->exported);
}

/* Doubling pauses with some chance in them, so that gateways do not come back as one. */
static int64_t next_pause(struct exporter *x)
{
    x->pause_ns = x->pause_ns ? MIN(2 * x->pause_ns, PAUSE_MAX_NS) : PAUSE_MIN_NS;
    return x->pause_ns / 2 + (int64_t)(rng_u64(&x->rng) % (uint64_t)x->pause_ns);
}

static void take_result(struct exporter *x, int64_t now_ns)
{
    int64_t asked = x->rc ? -1 : x->answer.retry_after_ns;

    if (!x->rc && x->answer.status >= 200 && x->answer.status < 300) {
        take_success(x);
        return;
    }
    tell(x, false);
    if (!may_retry(x)) {
        batch_done(x, &x->dropped_refused);
        return;
    }
    if (now_ns - x->since_ns > GIVE_UP_NS) {
        batch_done(x, &x->dropped_late);
        return;
    }
    counter_add(&x->retries, 1);
    x->retry_ns = now_ns + (asked >= 0 ? MIN(asked, RETRY_AFTER_MAX_NS) : next_pause(x));
}

static void on_sent(struct loop *loop, struct mailbox *mb, struct mail *m)
{
    struct exporter *x = CONTAINER_OF(mb, struct exporter, sent);

    (void)m;
    x->away = false;
    if (!x->job.cancelled && !__atomic_load_n(&x->aborting, __ATOMIC_RELAXED))
        take_result(x, loop_now_ns(loop));
}

/* --- The queue -------------------------------------------------------------------------------- */

void exporter_add(struct exporter *x, const struct note *n)
{
    if (x->put - x->got == x->cfg.queue) {
        counter_add(&x->dropped_queue, 1);
        return;
    }
    if (x->put == x->got)
        x->oldest_ns = time_mono_ns();
    x->queue[x->put++ % x->cfg.queue] = *n;
}

static void encode(struct exporter *x)
{
    struct otlp_message m;

    x->batch = (uint32_t)MIN(x->put - x->got, (uint64_t)x->cfg.batch);
    otlp_begin(&m, &x->body, str_of(x->cfg.service), str_of(x->cfg.instance));
    for (uint32_t i = 0; i < x->batch; i++)
        otlp_add(&m, &x->queue[x->got++ % x->cfg.queue]);
    otlp_end(&m);
    if (x->body.overflowed)
        batch_done(x, &x->dropped_refused);
}

static void submit(struct exporter *x)
{
    x->job = (struct job){.run = run_job, .reply_to = &x->sent};
    x->away = !pool_submit(x->pool, &x->job, &x->e);
}

void exporter_turn(struct exporter *x, int64_t now_ns)
{
    uint64_t waiting = x->put - x->got;

    if (x->away || (x->body.n && now_ns < x->retry_ns))
        return;
    if (x->body.n) {
        submit(x);
        return;
    }
    if (!waiting || (waiting < x->cfg.batch && now_ns - x->oldest_ns < x->cfg.interval_ns))
        return;
    encode(x);
    x->oldest_ns = now_ns;
    x->since_ns = now_ns;
    if (x->body.n)
        submit(x);
}

/* --- Life ------------------------------------------------------------------------------------- */

static void texts_copy(struct exporter *x)
{
    x->cfg.endpoint = arena_dupz(&x->arena, str_of(x->cfg.endpoint));
    x->cfg.headers = arena_dupz(&x->arena, str_of(x->cfg.headers));
    x->cfg.service = arena_dupz(&x->arena, str_of(x->cfg.service));
    x->cfg.instance = arena_dupz(&x->arena, str_of(x->cfg.instance));
}

int exporter_new(const struct exporter_config *cfg, struct loop *loop, struct exporter **ret,
                 struct err *e)
{
    AUTO(exporter_freep) struct exporter *x = mem_zalloc_aligned(64, sizeof(*x));
    uint64_t seed;

    ASSERT(cfg->queue >= 1 && cfg->queue <= EXPORTER_QUEUE_MAX && cfg->batch >= 1);
    x->cfg = *cfg;
    x->loop = loop;
    arena_init(&x->arena, 0);
    arena_init(&x->scratch, 0);
    texts_copy(x);
    buf_init(&x->body, BODY_BYTES);
    random_bytes(&seed, sizeof(seed));
    rng_seed(&x->rng, seed);
    x->queue = mem_zalloc(cfg->queue * sizeof(struct note));
    mailbox_open(&x->sent, loop, on_sent);
    TRY(pool_new("weir-spans", 1, 1, &x->pool, e));
    *ret = TAKE(x);
    return 0;
}

/* The loop does not run any more: one message, here. */
static void send_last(struct exporter *x)
{
    __atomic_store_n(&x->aborting, false, __ATOMIC_RELEASE);
    if (!x->body.n && x->put != x->got)
        encode(x);
    if (!x->body.n || x->failing)
        return;
    send_batch(x, LAST_NS);
    take_result(x, time_mono_ns());
}

void exporter_free(struct exporter *x)
{
    if (!x)
        return;
    __atomic_store_n(&x->aborting, true, __ATOMIC_RELEASE);
    pool_free(x->pool);
    mailbox_close(&x->sent);
    send_last(x);
    buf_done(&x->body);
    arena_done(&x->arena);
    arena_done(&x->scratch);
    mem_free(x->queue);
    mem_free(x);
}

/* --- Metrics ---------------------------------------------------------------------------------- */

void exporter_write_metrics(const struct exporter *x, struct buf *to)
{
#define LOAD(field) ((unsigned long long)__atomic_load_n(&x->field, __ATOMIC_RELAXED))
    buf_printf(to,
               "# HELP weir_traces_exported_total Requests whose spans a collector took.\n"
               "# TYPE weir_traces_exported_total counter\n"
               "weir_traces_exported_total %llu\n"
               "# HELP weir_traces_dropped_total Requests whose spans were not sent, by reason.\n"
               "# TYPE weir_traces_dropped_total counter\n"
               "weir_traces_dropped_total{reason=\"queue_full\"} %llu\n"
               "weir_traces_dropped_total{reason=\"refused\"} %llu\n"
               "weir_traces_dropped_total{reason=\"too_late\"} %llu\n"
               "# HELP weir_trace_spans_rejected_total Spans that a collector took and rejected.\n"
               "# TYPE weir_trace_spans_rejected_total counter\n"
               "weir_trace_spans_rejected_total %llu\n"
               "# HELP weir_trace_retries_total Messages to the collector that are repeated.\n"
               "# TYPE weir_trace_retries_total counter\n"
               "weir_trace_retries_total %llu\n",
               LOAD(exported), LOAD(dropped_queue), LOAD(dropped_refused), LOAD(dropped_late),
               LOAD(rejected), LOAD(retries));
#undef LOAD
}
