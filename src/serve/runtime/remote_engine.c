/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Platform "remote": another Open Inference Protocol server answers (Triton, KServe, a second
 * Weir). The artifact says which; what the model takes and gives is in it, so that loading a plan
 * needs no word from the server.
 *
 * A run is one call and its retries, all within the deadline: a pause that would not leave time for
 * another call is not made. Each call asks the breaker, which all slots of the model share, and
 * tells it how it went. What the server says of the input goes to the client; what is wrong
 * with the server does not: the log and the metrics have that.
 */
#include "serve/runtime/remote.h"

#include "base/files.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "wire/tensor_frame.h"

#define TELL_NS (10 * NS_PER_S) /* between two words in the log on failures */
#define QUESTION_BYTES_MAX (RUNTIME_SLOT_BYTES_MAX + ((size_t)1 << 20))

/* runtime_model.state */
struct remote_model {
    struct remote_config cfg;
    struct tls_context *tls; /* owned; NULL: in the clear */
    str target;
    struct remote_resolver resolver;
    pthread_mutex_t mutex; /* guards what follows */
    struct breaker breaker;
    uint64_t retries;
    int64_t told_ns; /* when the log was last told of a failure */
};

/* runtime_slot.state */
struct remote_slot {
    struct remote_conn conn;
    struct buf question;
    struct arena arena; /* reset by each run */
};

/* --- Loading ---------------------------------------------------------------------------------- */

static NODISCARD int check_there(struct runtime_model *m, struct remote_config *cfg, struct err *e)
{
    struct remote_config found;

    if (!m->options.must_start && cfg->inputs)
        return 0;
    TRY(remote_describe(cfg, &m->arena, &found, e));
    if (cfg->inputs &&
        (!tensor_specs_equal(cfg->inputs, cfg->input_count, found.inputs, found.input_count) ||
         !tensor_specs_equal(cfg->outputs, cfg->output_count, found.outputs, found.output_count)))
        return FAIL(e, FAILED_PRECONDITION,
                    "the model of the remote server has other inputs or outputs than declared");
    *cfg = found;
    return 0;
}

static int remote_load(struct runtime_model *m, const char *path, struct err *e)
{
    struct remote_model *rm = ARENA_NEW(&m->arena, struct remote_model);
    struct json *root;
    str text;

    TRY(file_read_all(path, REMOTE_ARTIFACT_BYTES_MAX, &m->arena, &text, e));
    if (json_parse(text, &m->arena, &root, e) || remote_config_read(root, &m->arena, &rm->cfg, e))
        return err_context(e, "remote model");
    TRY(check_there(m, &rm->cfg, e));
    TRY(remote_tls(&rm->cfg, &rm->tls, e));
    rm->target = arena_printf(&m->arena, STR_F "/v2/models/" STR_F "%s" STR_F "/infer",
                              STR_A(rm->cfg.base), STR_A(rm->cfg.model),
                              rm->cfg.version.n ? "/versions/" : "", STR_A(rm->cfg.version));
    breaker_init(&rm->breaker,
                 &(struct breaker_config){.failure_threshold = rm->cfg.failure_threshold,
                                          .recovery_ns = rm->cfg.recovery_ns});
    pthread_mutex_init(&rm->mutex, NULL);
    pthread_mutex_init(&rm->resolver.mutex, NULL);
    m->inputs = rm->cfg.inputs, m->input_count = rm->cfg.input_count;
    m->outputs = rm->cfg.outputs, m->output_count = rm->cfg.output_count;
    m->state = rm;
    return 0;
}

static void remote_unload(struct runtime_model *m)
{
    struct remote_model *rm = m->state;

    if (!rm)
        return;
    pthread_mutex_destroy(&rm->mutex);
    pthread_mutex_destroy(&rm->resolver.mutex);
    tls_context_unref(rm->tls);
}

/* --- Slots ------------------------------------------------------------------------------------ */

static struct remote_model *model_of(const struct runtime_slot *s)
{
    return s->model->state;
}

static int remote_slot_init(struct runtime_slot *s, struct err *e)
{
    struct remote_slot *st = ARENA_NEW(&s->arena, struct remote_slot);
    uint64_t answer_max = model_of(s)->cfg.answer_bytes_max;

    if (!st)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the slot of a model");
    s->state = st;
    buf_init(&st->question, QUESTION_BYTES_MAX);
    arena_init(&st->arena, (size_t)answer_max * 16 + ((size_t)1 << 20));
    return remote_conn_init(&st->conn, answer_max, e);
}

static void remote_slot_done(struct runtime_slot *s)
{
    struct remote_slot *st = s->state;

    if (!st)
        return;
    remote_conn_done(&st->conn);
    buf_done(&st->question);
    arena_done(&st->arena);
}

/* --- A run ------------------------------------------------------------------------------------ */

/* What the server says of the call as an error of ours. */
static NODISCARD int said_error(const struct remote_config *cfg, const struct remote_answer *got,
                                struct err *e)
{
    switch (got->code) {
    case CODE_RESOURCE_EXHAUSTED:
        return FAIL(e, RESOURCE_EXHAUSTED, "the remote server has too much to do: %s", got->text);
    case CODE_UNAVAILABLE:
        return FAIL(e, UNAVAILABLE, "the remote server is not ready: %s", got->text);
    case CODE_DEADLINE_EXCEEDED:
        return FAIL(e, DEADLINE_EXCEEDED, "the remote server ran out of time");
    case CODE_UNAUTHENTICATED:
    case CODE_PERMISSION_DENIED:
    case CODE_NOT_FOUND:
    case CODE_UNIMPLEMENTED:
        log_event(LOG_WARN, "remote.refused",
                  "host=" STR_F " model=" STR_F " said=\"%s\" msg=\"%s\"", STR_A(cfg->host),
                  STR_A(cfg->model), got->said, got->text);
        return FAIL(e, UNAVAILABLE, "the remote server refuses this gateway (%s)", got->said);
    case CODE_INVALID_ARGUMENT:
    case CODE_OUT_OF_RANGE:
    case CODE_FAILED_PRECONDITION:
        return FAIL(e, INVALID_ARGUMENT, "the remote model refuses the input: %s", got->text);
    default:
        return FAIL(e, INTERNAL, "the remote server failed with %s", got->said);
    }
}

/* An answer whose content is wrong is a failure of the server, whatever its status. */
static NODISCARD int answer_take(struct runtime_slot *s, const struct remote_answer *got,
                                 struct remote_outcome *outcome, struct err *e)
{
    const struct remote_config *cfg = &model_of(s)->cfg;
    struct remote_slot *st = s->state;

    if (got->code)
        return said_error(cfg, got, e);
    if (!cfg->protocol->take(got, s->outputs, s->model->output_count, &st->arena, e))
        return 0;
    outcome->verdict = BREAKER_FAILURE;
    e->code = e->code == CODE_RESOURCE_EXHAUSTED ? e->code : CODE_INTERNAL;
    return err_context(e, "the answer of the remote server");
}

/* Where a server listens and why it cannot be reached is for the log, not for clients. */
static NODISCARD int failed(struct remote_model *rm, int rc, struct err *e)
{
    int64_t now_ns = time_mono_ns();
    bool tell;

    if (rc == CODE_CANCELLED)
        return rc;
    pthread_mutex_lock(&rm->mutex);
    tell = !rm->told_ns || now_ns - rm->told_ns >= TELL_NS;
    rm->told_ns = tell ? now_ns : rm->told_ns;
    pthread_mutex_unlock(&rm->mutex);
    if (tell)
        log_event(LOG_WARN, "remote.failed", "model=" STR_F " code=%s msg=\"%s\"",
                  STR_A(rm->cfg.model), code_name(e->code), e->msg);
    switch (rc) {
    case CODE_DEADLINE_EXCEEDED:
        return FAIL(e, DEADLINE_EXCEEDED, "the remote server of the model did not answer in time");
    case CODE_RESOURCE_EXHAUSTED:
        return FAIL(e, RESOURCE_EXHAUSTED,
                    "the answer of the remote server is larger than allowed");
    case CODE_INTERNAL:
        return FAIL(e, INTERNAL, "the remote server of the model gave no usable answer");
    default:
        return FAIL(e, UNAVAILABLE, "the remote server of the model cannot be reached");
    }
}

static void verdict_tell(struct remote_model *rm, const struct breaker_call *ticket,
                         enum breaker_verdict verdict)
{
    enum breaker_state before, after;

    pthread_mutex_lock(&rm->mutex);
    before = rm->breaker.state;
    breaker_end(&rm->breaker, ticket, verdict, time_mono_ns());
    after = rm->breaker.state;
    pthread_mutex_unlock(&rm->mutex);
    if (before != after)
        log_event(after == BREAKER_OPEN ? LOG_WARN : LOG_INFO, "remote.breaker",
                  "host=" STR_F " model=" STR_F " state=%s", STR_A(rm->cfg.host),
                  STR_A(rm->cfg.model), breaker_state_name(after));
}

static NODISCARD int attempt(struct runtime_slot *s, struct remote_call *call,
                             struct remote_outcome *outcome, struct err *e)
{
    struct remote_model *rm = model_of(s);
    struct remote_slot *st = s->state;
    struct remote_answer got = {0};
    struct breaker_call ticket;
    bool go;
    int rc;

    *outcome = (struct remote_outcome){.verdict = BREAKER_NEUTRAL};
    pthread_mutex_lock(&rm->mutex);
    go = breaker_begin(&rm->breaker, time_mono_ns(), &ticket, NULL);
    pthread_mutex_unlock(&rm->mutex);
    if (!go)
        return FAIL(e, UNAVAILABLE, "the remote server failed too often and is left alone for now");
    rc = remote_ask(&st->conn, call, &got, outcome, e);
    rc = rc ? failed(rm, rc, e) : answer_take(s, &got, outcome, e);
    verdict_tell(rm, &ticket, outcome->verdict);
    return rc;
}

/* Half to one and a half of the doubled backoff, so that many gateways do not come back at once. */
static int64_t pause_ns(const struct remote_config *cfg, uint32_t attempt_index, int64_t asked_ns)
{
    int64_t ns = cfg->backoff_ns << MIN(attempt_index, 16u);
    double jitter = (double)(random_u64() >> 11) * 0x1p-53;

    return MAX((int64_t)((double)ns * (0.5 + jitter)), asked_ns);
}

static NODISCARD int call_with_retries(struct runtime_slot *s, struct remote_call *call,
                                       struct err *e)
{
    struct remote_model *rm = model_of(s);
    struct remote_slot *st = s->state;
    struct remote_outcome outcome;

    for (uint32_t i = 0;; i++) {
        int rc = attempt(s, call, &outcome, e);
        int64_t pause;

        if (!rc || !outcome.may_retry || i == rm->cfg.retries)
            return rc;
        pause = pause_ns(&rm->cfg, i, outcome.retry_ns);
        if (time_mono_ns() + pause >= call->deadline_ns)
            return rc;
        if (!remote_conn_pause(&st->conn, pause))
            return FAIL(e, CANCELLED, "the run of the model was cancelled");
        pthread_mutex_lock(&rm->mutex);
        rm->retries++;
        pthread_mutex_unlock(&rm->mutex);
    }
}

static NODISCARD int run(struct runtime_slot *s, struct err *e)
{
    struct remote_model *rm = model_of(s);
    struct remote_slot *st = s->state;
    struct remote_call call = {.cfg = &rm->cfg,
                               .resolver = &rm->resolver,
                               .tls = rm->tls,
                               .method = S("POST"),
                               .target = rm->target,
                               .deadline_ns = time_mono_ns() + rm->cfg.timeout_ns};

    if (s->deadline_ns)
        call.deadline_ns = MIN(call.deadline_ns, s->deadline_ns);
    arena_reset(&st->arena);
    buf_clear(&st->question);
    TRY(rm->cfg.protocol->question(s, &rm->cfg, &st->question, &call, e));
    TRY(remote_credentials(&rm->cfg, &st->arena, &call.credential, e));
    call.trace = s->trace;
    s->trace_sent = s->trace != NULL;
    return call_with_retries(s, &call, e);
}

static int remote_run(struct runtime_slot *s, struct err *e)
{
    struct remote_slot *st = s->state;
    int rc;

    remote_conn_begin(&st->conn);
    rc = run(s, e);
    remote_conn_end(&st->conn);
    return rc;
}

static void remote_cancel(struct runtime_slot *s)
{
    struct remote_slot *st = s->state;

    remote_conn_abort(&st->conn);
}

static void remote_stat(struct runtime_model *m, struct runtime_stat *ret)
{
    struct remote_model *rm = m->state;

    pthread_mutex_lock(&rm->mutex);
    ret->breaker = breaker_state_name(breaker_state_at(&rm->breaker, time_mono_ns()));
    ret->openings = rm->breaker.openings;
    ret->rejected = rm->breaker.rejected;
    ret->retries = rm->retries;
    pthread_mutex_unlock(&rm->mutex);
}

static void remote_force(struct runtime_model *m, enum runtime_force force)
{
    static const enum breaker_force of[] = {[RUNTIME_FORCE_NONE] = BREAKER_FORCE_NONE,
                                            [RUNTIME_FORCE_OPEN] = BREAKER_FORCE_OPEN,
                                            [RUNTIME_FORCE_CLOSED] = BREAKER_FORCE_CLOSED};
    struct remote_model *rm = m->state;

    pthread_mutex_lock(&rm->mutex);
    breaker_force_set(&rm->breaker, of[force], time_mono_ns());
    pthread_mutex_unlock(&rm->mutex);
}

const struct runtime_engine runtime_remote = {
    .platform = "remote",
    .blocking = true,
    .load = remote_load,
    .unload = remote_unload,
    .slot_init = remote_slot_init,
    .slot_done = remote_slot_done,
    .run = remote_run,
    .cancel = remote_cancel,
    .stat = remote_stat,
    .force = remote_force,
};
