/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Platform "remote": another Open Inference Protocol server answers (Triton, KServe, a second
 * Weir). The artifact says which; what the model takes and gives is in it, so that loading a plan
 * needs no word from the server.
 *
 * A run is one call and its retries, all within the deadline: a pause that would not leave time for
 * another call is not made. Each call asks the breaker, which all slots of the model share, and
 * tells it how it went. What the server says of the input (4xx) goes to the client; what is wrong
 * with the server does not: the log and the metrics have that.
 */
#include "serve/runtime/remote.h"

#include "base/files.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "wire/infer_client.h"
#include "wire/tensor_frame.h"

#include <poll.h>
#include <sys/eventfd.h>

#define TELL_NS (10 * NS_PER_S) /* between two words in the log on failures */
#define QUESTION_BYTES_MAX (RUNTIME_SLOT_BYTES_MAX + ((size_t)1 << 20))

/* runtime_model.state */
struct remote_model {
    struct remote_config cfg;
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
    int wake_fd;        /* owned: an eventfd, for cancel during a pause */
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
    remote_conn_init(&st->conn, answer_max);
    buf_init(&st->question, QUESTION_BYTES_MAX);
    arena_init(&st->arena, (size_t)answer_max * 8 + ((size_t)1 << 20));
    st->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (st->wake_fd < 0)
        return FAIL_ERRNO(e, "making an eventfd");
    return 0;
}

static void remote_slot_done(struct runtime_slot *s)
{
    struct remote_slot *st = s->state;

    if (!st)
        return;
    remote_conn_done(&st->conn);
    buf_done(&st->question);
    arena_done(&st->arena);
    file_close(st->wake_fd);
}

/* --- A run ------------------------------------------------------------------------------------ */

/* The answer's status as an error of ours. */
static NODISCARD int status_error(const struct remote_config *cfg, const struct remote_answer *got,
                                  struct err *e)
{
    char text[300];

    infer_answer_error(got->json, text, sizeof(text));
    switch (got->status) {
    case 429:
        return FAIL(e, RESOURCE_EXHAUSTED, "the remote server has too much to do: %s", text);
    case 503:
        return FAIL(e, UNAVAILABLE, "the remote server is not ready: %s", text);
    case 408:
    case 504:
        return FAIL(e, DEADLINE_EXCEEDED, "the remote server ran out of time");
    case 401:
    case 403:
    case 404:
        log_event(LOG_WARN, "remote.refused", "host=" STR_F " model=" STR_F " status=%d msg=\"%s\"",
                  STR_A(cfg->host), STR_A(cfg->model), got->status, text);
        return FAIL(e, UNAVAILABLE, "the remote server refuses this gateway (status %d)",
                    got->status);
    default:
        if (got->status >= 400 && got->status < 500)
            return FAIL(e, INVALID_ARGUMENT, "the remote model refuses the input: %s", text);
        return FAIL(e, INTERNAL, "the remote server failed with status %d", got->status);
    }
}

/* An answer whose content is wrong is a failure of the server, whatever its status. */
static NODISCARD int answer_take(struct runtime_slot *s, const struct remote_answer *got,
                                 struct remote_outcome *outcome, struct err *e)
{
    struct remote_slot *st = s->state;

    if (got->status != 200)
        return status_error(&model_of(s)->cfg, got, e);
    if (!infer_answer_read(got->json, got->raw, s->outputs, s->model->output_count, &st->arena, e))
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
    rc = remote_http(&st->conn, call, &got, outcome, e);
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

/* False when it was cancelled. */
static bool wait_ns(struct remote_slot *st, int64_t ns)
{
    struct pollfd p = {.fd = st->wake_fd, .events = POLLIN};
    int64_t until_ns = time_mono_ns() + ns;
    eventfd_t dropped;

    for (;;) {
        int64_t left_ns = until_ns - time_mono_ns();
        struct timespec ts = {.tv_sec = left_ns / NS_PER_S, .tv_nsec = left_ns % NS_PER_S};

        if (remote_conn_is_aborted(&st->conn))
            return false;
        if (left_ns <= 0)
            return true;
        if (ppoll(&p, 1, &ts, NULL) > 0)
            (void)eventfd_read(st->wake_fd, &dropped);
    }
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
        if (!wait_ns(st, pause))
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
                               .method = S("POST"),
                               .target = rm->target,
                               .deadline_ns = time_mono_ns() + rm->cfg.timeout_ns};
    size_t json_bytes = 0;
    str credentials;

    if (s->deadline_ns)
        call.deadline_ns = MIN(call.deadline_ns, s->deadline_ns);
    arena_reset(&st->arena);
    buf_clear(&st->question);
    TRY(infer_question_write(&st->question, s->inputs, s->model->input_count, s->model->outputs,
                             s->model->output_count, rm->cfg.binary, &json_bytes, e));
    TRY(remote_credentials(&rm->cfg, &st->arena, &credentials, e));
    call.content_type = rm->cfg.binary ? S("application/octet-stream") : S("application/json");
    call.extra = rm->cfg.binary
                     ? arena_printf(&st->arena, STR_F "Inference-Header-Content-Length: %zu\r\n",
                                    STR_A(credentials), json_bytes)
                     : credentials;
    call.body = buf_str(&st->question);
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

    if (remote_conn_abort(&st->conn))
        (void)eventfd_write(st->wake_fd, 1);
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
