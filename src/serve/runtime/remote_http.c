/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One exchange with the server over a connection that is kept for the next.
 *
 * A kept connection may have been closed by the server meanwhile. That shows as the end of the
 * stream before any byte of an answer: then, and when no connection could be made, and when the
 * server says 503, the call may be repeated; after the first byte of any other answer it may not.
 *
 * Which addresses may be called is tested on the address that is dialled, not on the name: a name
 * can change its meaning between a test and a call. No redirect is followed.
 *
 * The system's resolver knows no deadline. So a name is looked up seldom, and what it said holds
 * for ADDR_NS.
 */
#include "base/files.h"
#include "base/time.h"
#include "loop/child.h"
#include "loop/dial.h"
#include "loop/stream.h"
#include "serve/runtime/remote.h"
#include "wire/infer_client.h"
#include "wire/tensor_frame.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define WINDOW_BYTES ((size_t)64 << 10)
#define ADDR_NS (30 * NS_PER_S)
#define SECRET_BYTES_MAX ((size_t)16 << 10)
#define DESCRIPTION_BYTES_MAX ((size_t)16 << 20)
#define RETRY_AFTER_MAX_S 3600
#define SILENCE_NS (100 * NS_PER_MS) /* a shorter one says nothing of the server */
#define KEEP_BYTES ((size_t)1 << 20)

/* --- The connection --------------------------------------------------------------------------- */

void remote_conn_init(struct remote_conn *c, uint64_t answer_bytes_max)
{
    *c = (struct remote_conn){.fd = -1};
    pthread_mutex_init(&c->mutex, NULL);
    buf_init(&c->in, 2 * WINDOW_BYTES);
    buf_init(&c->body, (size_t)answer_bytes_max);
}

static void conn_set(struct remote_conn *c, int fd)
{
    pthread_mutex_lock(&c->mutex);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = fd;
    pthread_mutex_unlock(&c->mutex);
    buf_clear(&c->in);
}

void remote_conn_done(struct remote_conn *c)
{
    conn_set(c, -1);
    buf_done(&c->in);
    buf_done(&c->body);
    pthread_mutex_destroy(&c->mutex);
}

static void state_set(struct remote_conn *c, bool runs)
{
    pthread_mutex_lock(&c->mutex);
    c->state = runs ? REMOTE_RUNNING : REMOTE_IDLE;
    pthread_mutex_unlock(&c->mutex);
}

void remote_conn_begin(struct remote_conn *c)
{
    state_set(c, true);
}

void remote_conn_end(struct remote_conn *c)
{
    state_set(c, false);
}

bool remote_conn_abort(struct remote_conn *c)
{
    bool runs;

    pthread_mutex_lock(&c->mutex);
    runs = c->state == REMOTE_RUNNING;
    if (runs)
        c->state = REMOTE_ABORTED;
    if (runs && c->fd >= 0)
        (void)shutdown(c->fd, SHUT_RDWR);
    pthread_mutex_unlock(&c->mutex);
    return runs;
}

bool remote_conn_is_aborted(struct remote_conn *c)
{
    bool aborted;

    pthread_mutex_lock(&c->mutex);
    aborted = c->state == REMOTE_ABORTED;
    pthread_mutex_unlock(&c->mutex);
    return aborted;
}

/* The server has said something, or closed, while nobody asked: not to be used again. */
static bool is_stale(const struct remote_conn *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};

    return c->in.n || poll(&p, 1, 0) != 0;
}

static NODISCARD int address_get(const struct remote_call *call, struct addr *ret, struct err *e)
{
    struct remote_resolver *r = call->resolver;
    struct addr found;
    bool known;

    pthread_mutex_lock(&r->mutex);
    known = r->until_ns > time_mono_ns();
    *ret = r->addr;
    pthread_mutex_unlock(&r->mutex);
    if (!known) {
        TRY(addr_resolve(call->cfg->address, &found, e));
        pthread_mutex_lock(&r->mutex);
        r->addr = *ret = found;
        r->until_ns = time_mono_ns() + ADDR_NS;
        pthread_mutex_unlock(&r->mutex);
    }
    if (!call->cfg->allow_private && !addr_is_public(ret)) {
        char text[ADDR_TEXT_SIZE];

        addr_text(ret, text);
        return FAIL(e, PERMISSION_DENIED,
                    STR_F " is the private address %s: say allow_private if that is meant",
                    STR_A(call->cfg->host), text);
    }
    if (call->cfg->credential_header.n && addr_is_public(ret))
        return FAIL(e, PERMISSION_DENIED,
                    "credentials are not sent over the internet without TLS: use a proxy on this "
                    "machine");
    return 0;
}

static NODISCARD int connect_to(struct remote_conn *c, const struct remote_call *call,
                                struct err *e)
{
    int64_t until_ns = MIN(call->deadline_ns, time_mono_ns() + call->cfg->connect_ns);
    struct addr addr;
    int fd = -1, rc;

    if (c->fd >= 0 && !is_stale(c))
        return 0;
    conn_set(c, -1);
    TRY(address_get(call, &addr, e));
    rc = dial(&addr, until_ns, &fd, e);
    if (rc == CODE_DEADLINE_EXCEEDED && time_mono_ns() < call->deadline_ns)
        return FAIL(e, UNAVAILABLE, STR_F " takes no connection within %lld ms",
                    STR_A(call->cfg->host), (long long)(call->cfg->connect_ns / NS_PER_MS));
    TRY(rc);
    conn_set(c, fd);
    return 0;
}

/* --- Question and answer ---------------------------------------------------------------------- */

static NODISCARD int question_send(struct remote_conn *c, const struct remote_call *call,
                                   struct err *e)
{
    AUTO(buf_done) struct buf head = {0};

    buf_init(&head, WINDOW_BYTES);
    http1_write_request(&head, call->method, call->target, call->cfg->host, call->content_type,
                        call->body.p ? call->body.n : HTTP1_LENGTH_CLOSE, true, call->extra);
    if (call->body.n <= WINDOW_BYTES / 2) /* one packet for small requests */
        buf_add_str(&head, call->body);
    if (head.overflowed)
        return FAIL(e, INTERNAL, "the head of the request exceeds %zu bytes", WINDOW_BYTES);
    TRY(stream_write_all(c->fd, head.p, head.n, call->deadline_ns, e));
    if (call->body.n > WINDOW_BYTES / 2)
        TRY(stream_write_all(c->fd, call->body.p, call->body.n, call->deadline_ns, e));
    return 0;
}

static NODISCARD int fill(struct remote_conn *c, const struct remote_call *call, bool *ret_end,
                          struct err *e)
{
    char *room = buf_reserve(&c->in, WINDOW_BYTES);
    size_t got;

    if (!room)
        return FAIL(e, INTERNAL, "the head of the answer is too long");
    TRY(stream_read(c->fd, room, WINDOW_BYTES, call->deadline_ns, &got, e));
    c->in.n += got;
    *ret_end = got == 0;
    return 0;
}

static NODISCARD int refuse(enum http1_refusal why, struct err *e)
{
    if (why == HTTP1_NO_BODY_TOO_LARGE)
        return FAIL(e, RESOURCE_EXHAUSTED, "the answer is larger than answer_mib allows");
    return FAIL(e, INTERNAL, "what came back is no HTTP answer: " STR_F,
                STR_A(http1_refusal_reason(why)));
}

static NODISCARD int head_read(struct remote_conn *c, const struct remote_call *call,
                               const struct http1_limits *limits, struct http1_response *head,
                               bool *ret_began, struct err *e)
{
    bool end = false;
    size_t seen = 0;

    for (;;) {
        enum http1_refusal why;

        *ret_began = c->in.n > 0;
        switch (http1_response_parse(c->in.p, c->in.n, limits, false, &seen, head, &why)) {
        case HTTP1_REFUSED:
            return refuse(why, e);
        case HTTP1_HEAD:
            if (head->status >= 200 || head->status == 101)
                return 0;
            buf_consume(&c->in, head->head_bytes);
            seen = 0;
            break;
        default:
            if (end)
                return FAIL(e, UNAVAILABLE, "the connection was closed without an answer");
            TRY(fill(c, call, &end, e));
        }
    }
}

static NODISCARD int body_read(struct remote_conn *c, const struct remote_call *call,
                               const struct http1_limits *limits, const struct http1_response *head,
                               struct err *e)
{
    struct http1_body body;
    enum http1_refusal why = http1_body_begin(&body, head->framing, head->content_length, limits);
    bool end = false;

    if (why)
        return refuse(why, e);
    for (;;) {
        size_t used = 0, out = 0;
        enum http1_event ev = http1_body_decode(&body, c->in.p, c->in.n, &used, &out, &why);

        if (ev == HTTP1_REFUSED)
            return refuse(why, e);
        buf_add(&c->body, c->in.p, out);
        if (c->body.overflowed)
            return refuse(HTTP1_NO_BODY_TOO_LARGE, e);
        buf_consume(&c->in, used);
        if (ev == HTTP1_REQUEST)
            return 0;
        if (end)
            return http1_body_end(&body) ? 0
                                         : FAIL(e, UNAVAILABLE,
                                                "the connection was closed in the middle of the "
                                                "answer");
        TRY(fill(c, call, &end, e));
    }
}

static int64_t retry_after_ns(const struct http1_response *head)
{
    uint64_t s;

    return str_to_u64(http1_field(&head->fields, S("Retry-After")), &s) && s <= RETRY_AFTER_MAX_S
               ? (int64_t)s * NS_PER_S
               : 0;
}

static NODISCARD int split(const struct remote_conn *c, str length, struct remote_answer *ret,
                           struct err *e)
{
    str all = buf_str(&c->body);
    uint64_t json_bytes = all.n;

    if (length.p && (!str_to_u64(length, &json_bytes) || json_bytes > all.n))
        return FAIL(e, INTERNAL,
                    "Inference-Header-Content-Length of the answer is no length in it");
    ret->json = str_take(all, (size_t)json_bytes);
    ret->raw = length.p ? str_skip(all, (size_t)json_bytes) : STR_NULL;
    return 0;
}

/* What the answer's head says is copied out before its bytes make way for the body. */
static NODISCARD int answer_read(struct remote_conn *c, const struct remote_call *call,
                                 struct remote_answer *ret, struct remote_outcome *out,
                                 bool *ret_began, struct err *e)
{
    struct http1_limits limits = HTTP1_LIMITS_DEFAULT;
    struct http1_response head;
    char length[24];
    bool has_length;
    str field;

    limits.body_bytes = c->body.max_bytes;
    limits.small_chunks = UINT32_MAX;
    TRY(head_read(c, call, &limits, &head, ret_began, e));
    ret->status = head.status;
    out->retry_ns = head.status == 503 ? retry_after_ns(&head) : 0;
    field = http1_field(&head.fields, S("Inference-Header-Content-Length"));
    has_length = field.p != NULL;
    if (!str_to_z(field, length, sizeof(length)))
        length[0] = '\0'; /* no number is that long */
    if (http1_field(&head.fields, S("Content-Encoding")).p)
        return FAIL(e, INTERNAL, "the answer is compressed, which was not asked for");
    buf_consume(&c->in, head.head_bytes);
    TRY(body_read(c, call, &limits, &head, e));
    TRY(split(c, has_length ? str_of(length) : STR_NULL, ret, e));
    if (!head.keep_alive || head.framing == HTTP1_BODY_CLOSE)
        conn_set(c, -1);
    return 0;
}

static NODISCARD int exchange(struct remote_conn *c, const struct remote_call *call,
                              struct remote_answer *ret, struct remote_outcome *out, struct err *e)
{
    bool began = false;
    struct err why;
    int rc;

    out->may_retry = true; /* nothing was sent */
    rc = connect_to(c, call, e);
    if (rc == CODE_PERMISSION_DENIED || rc == CODE_INVALID_ARGUMENT) {
        out->may_retry = false;
        out->verdict = BREAKER_NEUTRAL;
    }
    TRY(rc);
    /* A server that refuses a body may answer and close while it is being sent: what it says counts
     * for more than that it closed. */
    rc = question_send(c, call, &why);
    if (rc && rc != CODE_UNAVAILABLE) {
        *e = why;
        return rc;
    }
    if (answer_read(c, call, ret, out, &began, e)) {
        out->may_retry = !began && e->code == CODE_UNAVAILABLE;
        if (rc && !began)
            *e = why;
        return (int)e->code;
    }
    if (rc)
        conn_set(c, -1); /* the rest of the question was not taken */
    return 0;
}

int remote_http(struct remote_conn *c, const struct remote_call *call, struct remote_answer *ret,
                struct remote_outcome *ret_outcome, struct err *e)
{
    int64_t from_ns = time_mono_ns();
    bool aborted;
    int rc;

    *ret = (struct remote_answer){.status = 0};
    *ret_outcome = (struct remote_outcome){.verdict = BREAKER_FAILURE};
    if (c->body.cap_bytes > KEEP_BYTES)
        buf_done(&c->body); /* gives the memory back, keeps the maximum */
    buf_clear(&c->body);
    rc = exchange(c, call, ret, ret_outcome, e);
    aborted = remote_conn_is_aborted(c);
    if (rc || aborted)
        conn_set(c, -1);
    if (rc == CODE_DEADLINE_EXCEEDED && time_mono_ns() - from_ns < SILENCE_NS)
        ret_outcome->verdict = BREAKER_NEUTRAL; /* the time was gone before it was asked */
    if (rc && !aborted)
        return err_context(e, STR_F, STR_A(call->cfg->host));
    if (aborted) {
        *ret_outcome = (struct remote_outcome){.verdict = BREAKER_NEUTRAL};
        return FAIL(e, CANCELLED, "the run of the model was cancelled");
    }
    ret_outcome->verdict = ret->status < 500 ? BREAKER_SUCCESS : BREAKER_FAILURE;
    ret_outcome->may_retry = ret->status == 503;
    return 0;
}

/* --- What the server says of the model -------------------------------------------------------- */

int remote_credentials(const struct remote_config *cfg, struct arena *a, str *ret_line,
                       struct err *e)
{
    AUTO(buf_done) struct buf line = {0}, value = {0};
    str secret = STR_NULL;
    const char *env;

    *ret_line = S("");
    if (!cfg->credential_env && !cfg->credential_file)
        return 0;
    if (cfg->credential_env) {
        env = child_env(cfg->credential_env, a);
        if (!env)
            return FAIL(e, FAILED_PRECONDITION, "credentials: the gateway has no variable %s",
                        cfg->credential_env);
        secret = str_skip(str_of(env), strlen(cfg->credential_env) + 1);
    } else {
        TRY(file_read_all(cfg->credential_file, SECRET_BYTES_MAX, a, &secret, e));
    }
    secret = str_trim(secret);
    buf_init(&line, 2 * SECRET_BYTES_MAX);
    buf_init(&value, 2 * SECRET_BYTES_MAX);
    buf_add_str(&value, cfg->credential_prefix);
    buf_add_str(&value, secret);
    if (!secret.n || !http1_write_field(&line, cfg->credential_header, buf_str(&value)))
        return FAIL(e, FAILED_PRECONDITION, "credentials: the secret is empty or no single line");
    *ret_line = arena_dup(a, buf_str(&line));
    return 0;
}

static NODISCARD int get_json(struct remote_conn *c, struct remote_call *call, str target,
                              struct arena *a, struct json **ret, struct err *e)
{
    struct remote_outcome outcome;
    struct remote_answer answer = {.status = 0};
    char text[200];

    call->target = target;
    TRY(remote_http(c, call, &answer, &outcome, e));
    if (answer.status != 200) {
        infer_answer_error(answer.json, text, sizeof(text));
        return FAIL(e, UNAVAILABLE, STR_F STR_F " answers %d %s", STR_A(call->cfg->host),
                    STR_A(target), answer.status, text);
    }
    if (json_parse(arena_dup(a, answer.json), a, ret, e))
        return err_context(e, STR_F STR_F, STR_A(call->cfg->host), STR_A(target));
    return 0;
}

static bool offers_binary(const struct json *server)
{
    const struct json *list = json_get(server, S("extensions"));

    if (list && list->type == JSON_ARRAY)
        JSON_EACH (item, list)
            if (str_eq(json_str_or(item, STR_NULL), S("binary_tensor_data")))
                return true;
    return false;
}

static NODISCARD int describe(struct remote_conn *c, struct remote_call *call, struct arena *a,
                              struct remote_config *ret, struct err *e)
{
    const struct remote_config *cfg = call->cfg;
    struct json *server, *model;
    str target =
        arena_printf(a, STR_F "/v2/models/" STR_F "%s" STR_F, STR_A(cfg->base), STR_A(cfg->model),
                     cfg->version.n ? "/versions/" : "", STR_A(cfg->version));

    TRY(remote_credentials(cfg, a, &call->extra, e));
    TRY(get_json(c, call, arena_printf(a, STR_F "/v2", STR_A(cfg->base)), a, &server, e));
    TRY(get_json(c, call, target, a, &model, e));
    *ret = *cfg;
    ret->binary = offers_binary(server);
    TRY(tensor_specs_read(json_get(model, S("inputs")), "inputs", TENSOR_INPUTS_MAX, a,
                          &ret->inputs, &ret->input_count, e));
    return tensor_specs_read(json_get(model, S("outputs")), "outputs", TENSOR_OUTPUTS_MAX, a,
                             &ret->outputs, &ret->output_count, e);
}

int remote_describe(const struct remote_config *cfg, struct arena *a, struct remote_config *ret,
                    struct err *e)
{
    struct remote_resolver resolver = {.until_ns = 0};
    struct remote_conn c;
    struct remote_call call = {.cfg = cfg,
                               .resolver = &resolver,
                               .method = S("GET"),
                               .deadline_ns = time_mono_ns() + cfg->timeout_ns};
    int rc;

    pthread_mutex_init(&resolver.mutex, NULL);
    remote_conn_init(&c, DESCRIPTION_BYTES_MAX);
    rc = describe(&c, &call, a, ret, e);
    remote_conn_done(&c);
    pthread_mutex_destroy(&resolver.mutex);
    return rc;
}
