/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1, one exchange at a time over a connection that is kept for the next.
 *
 * A kept connection may have been closed by the server meanwhile. That shows as the end of the
 * stream before any byte of an answer: then, and when no connection could be made, and when the
 * server says 503, the call may be repeated; after the first byte of any other answer it may not.
 * No redirect is followed.
 */
#include "base/time.h"
#include "serve/runtime/remote.h"
#include "wire/http1_client.h"
#include "wire/infer_client.h"
#include "wire/tensor_frame.h"

#include <poll.h>
#include <stdio.h>

#define WINDOW_BYTES ((size_t)64 << 10)
#define RETRY_AFTER_MAX_S 3600
#define KEEP_BYTES ((size_t)1 << 20)

/* The server has said something, or closed, while nobody asked: not to be used again. */
static bool is_stale(const struct remote_conn *c)
{
    struct pollfd p = {.fd = c->channel.fd, .events = POLLIN};

    return c->channel.fd < 0 || c->in.n || poll(&p, 1, 0) != 0;
}

/* --- Question and answer ---------------------------------------------------------------------- */

static NODISCARD int question_send(struct remote_conn *c, const struct remote_call *call,
                                   struct err *e)
{
    AUTO(buf_done) struct buf head = {0}, extra = {0};

    buf_init(&head, 2 * WINDOW_BYTES);
    buf_init(&extra, WINDOW_BYTES);
    if (call->credential.n &&
        !http1_write_field(&extra, call->cfg->credential_header, call->credential))
        return FAIL(e, INTERNAL, "the secret is no single line");
    if (call->trace)
        trace_context_write(&extra, &call->trace->context, call->trace->state);
    if (call->json_bytes) {
        buf_add_str(&extra, S("Inference-Header-Content-Length: "));
        buf_add_u64(&extra, call->json_bytes);
        buf_add_str(&extra, S("\r\n"));
    }
    http1_write_request(&head, call->method, call->target, call->cfg->host, call->content_type,
                        call->body.p ? call->body.n : HTTP1_LENGTH_CLOSE, true, buf_str(&extra));
    if (head.overflowed)
        return FAIL(e, INTERNAL, "the head of the request exceeds %zu bytes", 2 * WINDOW_BYTES);
    return channel_write_both(&c->channel, &head, call->body, call->deadline_ns, e);
}

static NODISCARD int fill(struct remote_conn *c, const struct remote_call *call, bool *ret_end,
                          struct err *e)
{
    char *room = buf_reserve(&c->in, WINDOW_BYTES);
    size_t got;

    if (!room)
        return FAIL(e, INTERNAL, "the head of the answer is too long");
    TRY(channel_read(&c->channel, room, WINDOW_BYTES, call->deadline_ns, &got, e));
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

static enum code code_of_status(int status)
{
    switch (status) {
    case 200:
        return CODE_OK;
    case 401:
        return CODE_UNAUTHENTICATED;
    case 403:
        return CODE_PERMISSION_DENIED;
    case 404:
        return CODE_NOT_FOUND;
    case 429:
        return CODE_RESOURCE_EXHAUSTED;
    case 503:
        return CODE_UNAVAILABLE;
    case 408:
    case 504:
        return CODE_DEADLINE_EXCEEDED;
    default:
        return status >= 400 && status < 500 ? CODE_INVALID_ARGUMENT : CODE_INTERNAL;
    }
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
    ret->code = code_of_status(head.status);
    (void)snprintf(ret->said, sizeof(ret->said), "status %d", head.status);
    out->may_retry = head.status == 503;
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
    if (ret->code)
        infer_answer_error(ret->json, ret->text, sizeof(ret->text));
    if (!head.keep_alive || head.framing == HTTP1_BODY_CLOSE)
        remote_conn_close(c);
    return 0;
}

static NODISCARD int exchange(struct remote_conn *c, const struct remote_call *call,
                              struct remote_answer *ret, struct remote_outcome *out, struct err *e)
{
    bool began = false;
    struct err why;
    int rc;

    out->may_retry = true; /* nothing was sent */
    if (is_stale(c))
        TRY(remote_conn_open(c, call, e));
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
        remote_conn_close(c); /* the rest of the question was not taken */
    return 0;
}

static int http_exchange(struct remote_conn *c, const struct remote_call *call,
                         struct remote_answer *ret, struct remote_outcome *ret_outcome,
                         struct err *e)
{
    int rc;

    if (c->body.cap_bytes > KEEP_BYTES)
        buf_done(&c->body); /* gives the memory back, keeps the maximum */
    buf_clear(&c->body);
    rc = exchange(c, call, ret, ret_outcome, e);
    if (rc)
        remote_conn_close(c);
    return rc;
}

static int http_question(const struct runtime_slot *s, const struct remote_config *cfg,
                         struct buf *to, struct remote_call *call, struct err *e)
{
    size_t json_bytes = 0;

    TRY(infer_question_write(to, s->inputs, s->model->input_count, s->model->outputs,
                             s->model->output_count, cfg->binary, &json_bytes, e));
    call->content_type = cfg->binary ? S("application/octet-stream") : S("application/json");
    call->json_bytes = cfg->binary ? json_bytes : 0;
    call->body = buf_str(to);
    return 0;
}

static int http_take(const struct remote_answer *answer, struct tensor *outputs,
                     uint32_t output_count, struct arena *a, struct err *e)
{
    return infer_answer_read(answer->json, answer->raw, outputs, output_count, a, e);
}

/* --- What the server says of the model -------------------------------------------------------- */

static NODISCARD int get_json(struct remote_conn *c, struct remote_call *call, str target,
                              struct arena *a, struct json **ret, struct err *e)
{
    struct remote_outcome outcome;
    struct remote_answer answer;

    call->target = target;
    TRY(remote_ask(c, call, &answer, &outcome, e));
    if (answer.code)
        return FAIL(e, UNAVAILABLE, STR_F STR_F " answers with %s %.200s", STR_A(call->cfg->host),
                    STR_A(target), answer.said, answer.text);
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

static int http_describe(struct remote_conn *c, struct remote_call *call, struct arena *a,
                         struct remote_config *ret, struct err *e)
{
    const struct remote_config *cfg = call->cfg;
    struct json *server, *model;
    str target =
        arena_printf(a, STR_F "/v2/models/" STR_F "%s" STR_F, STR_A(cfg->base), STR_A(cfg->model),
                     cfg->version.n ? "/versions/" : "", STR_A(cfg->version));

    call->method = S("GET");
    TRY(get_json(c, call, arena_printf(a, STR_F "/v2", STR_A(cfg->base)), a, &server, e));
    TRY(get_json(c, call, target, a, &model, e));
    *ret = *cfg;
    ret->binary = offers_binary(server);
    TRY(tensor_specs_read(json_get(model, S("inputs")), "inputs", TENSOR_INPUTS_MAX, a,
                          &ret->inputs, &ret->input_count, e));
    return tensor_specs_read(json_get(model, S("outputs")), "outputs", TENSOR_OUTPUTS_MAX, a,
                             &ret->outputs, &ret->output_count, e);
}

const struct remote_protocol remote_http = {
    .question = http_question,
    .exchange = http_exchange,
    .take = http_take,
    .describe = http_describe,
};
