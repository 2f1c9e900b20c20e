/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC, one call at a time over an HTTP/2 session that is kept for the next. Reading and writing go
 * on side by side: a server may answer while the question is still on its way, and hands out the
 * room for the question by frames.
 *
 * A session that has idled may have been pinged, or told goodbye: what has come meanwhile is read
 * before a question is asked, and only a session that takes one more is used.
 *
 * A call that is late or cancelled is taken back by RST_STREAM, and the session stays. Repeated is
 * only what the server has not begun to work on: a stream that it refused, or that lies above the
 * last of a GOAWAY; a connection that ended before a head; UNAVAILABLE without a message.
 */
#include "base/time.h"
#include "serve/runtime/remote.h"
#include "wire/grpc.h"
#include "wire/infer_client.h"
#include "wire/infer_pb_client.h"
#include "wire/tensor_frame.h"

#include <stdio.h>

#define QUESTION_FIELDS_FIXED 8
#define QUESTION_FIELDS_MAX (QUESTION_FIELDS_FIXED + 3)
#define SERVICE "/inference.GRPCInferenceService/"
#define WINDOW_BYTES ((size_t)64 << 10)
#define ANSWER_WINDOW_BYTES_MAX ((uint64_t)4 << 20)
#define QUESTION_BYTES_MAX ((size_t)1 << 16) /* of one that describes */
#define PUSHBACK_MAX_MS ((int64_t)3600 * 1000)

/* --- The session ------------------------------------------------------------------------------ */

static NODISCARD int broken(const struct err *why, struct err *e)
{
    return FAIL(e, INTERNAL, "what came back is no HTTP/2: %.300s", why->msg);
}

/* Takes what there is, without waiting. */
static NODISCARD int take_in(struct remote_conn *c, bool *ret_end, struct err *e)
{
    char *room = buf_reserve(&c->in, WINDOW_BYTES);
    size_t got = WINDOW_BYTES;
    struct err why;

    ASSERT(room);
    for (*ret_end = false; got == WINDOW_BYTES;) { /* else the socket, or TLS, is empty */
        TRY(channel_try_read(&c->channel, room, WINDOW_BYTES, &got, ret_end, e));
        if (got && http2_client_receive(c->h2, (str){room, got}, &why))
            return broken(&why, e);
    }
    return 0;
}

/* Gives what is to go, as far as the socket takes it. */
static NODISCARD int give_out(struct remote_conn *c, struct err *e)
{
    for (;;) {
        bool more = c->out.n > c->out_at;
        size_t put;

        if (!more) {
            buf_clear(&c->out);
            c->out_at = 0;
            (void)http2_client_send(c->h2, &c->out);
        }
        if (c->out.n == c->out_at)
            return 0;
        TRY(channel_try_write(&c->channel, c->out.p + c->out_at, c->out.n - c->out_at, &put, e));
        c->out_at += put;
        if (!put)
            return 0;
    }
}

static NODISCARD int session_begin(struct remote_conn *c, const struct remote_call *call,
                                   struct err *e)
{
    struct http2_client_limits limits = HTTP2_CLIENT_LIMITS_DEFAULT;

    TRY(remote_conn_open(c, call, e));
    if (c->channel.tls && !tls_chose_http2(c->channel.tls))
        return FAIL(e, UNAVAILABLE, "it does not speak HTTP/2 over TLS");
    limits.body_bytes = c->body.max_bytes;
    limits.window_bytes = (uint32_t)MIN(limits.body_bytes, ANSWER_WINDOW_BYTES_MAX);
    return http2_client_new(&limits, &c->h2, e);
}

/* A session that takes a question: the one that is there, or a new one. */
static NODISCARD int session_ready(struct remote_conn *c, const struct remote_call *call,
                                   struct err *e)
{
    bool end = true;

    if (c->h2 && c->channel.fd >= 0 && !take_in(c, &end, NULL) && !end &&
        http2_client_may_ask(c->h2))
        return 0;
    return session_begin(c, call, e);
}

/* --- A call ----------------------------------------------------------------------------------- */

static NODISCARD int question_ask(struct remote_conn *c, const struct remote_call *call,
                                  struct err *e)
{
    char timeout[GRPC_TIMEOUT_TEXT];
    int64_t left_ns = MAX(call->deadline_ns - time_mono_ns(), (int64_t)1);
    char parent[TRACE_PARENT_TEXT];
    struct http1_header fields[QUESTION_FIELDS_MAX] = {
        {S(":method"), S("POST")},
        {S(":scheme"), call->tls ? S("https") : S("http")},
        {S(":path"), call->target},
        {S(":authority"), call->cfg->host},
        {S("te"), S("trailers")},
        {S("content-type"), S("application/grpc")},
        {S("user-agent"), S("weir/" WEIR_VERSION)},
        {S("grpc-timeout"), grpc_timeout_write(left_ns, timeout)},
    };
    size_t n = QUESTION_FIELDS_FIXED;

    if (call->credential.n)
        fields[n++] = (struct http1_header){call->cfg->credential_field, call->credential};
    if (call->trace) {
        trace_parent_write(&call->trace->context, parent);
        fields[n++] = (struct http1_header){S("traceparent"), {parent, sizeof(parent)}};
    }
    if (call->trace && call->trace->state.n)
        fields[n++] = (struct http1_header){S("tracestate"), call->trace->state};
    return http2_client_ask(c->h2, fields, n, call->body, e);
}

static bool is_complete(const struct remote_conn *c)
{
    return http2_client_answer(c->h2)->state == HTTP2_ANSWER_COMPLETE;
}

static bool is_over(const struct remote_conn *c)
{
    return is_complete(c) || http2_client_answer(c->h2)->state == HTTP2_ANSWER_FAILED;
}

/* Until the answer is complete or has failed. That a write failed is no end yet: what the server
 * said before it closed counts for more, and reading tells. */
static NODISCARD int pump(struct remote_conn *c, const struct remote_call *call, struct err *e)
{
    for (;;) {
        bool end;
        int read = take_in(c, &end, e), write = give_out(c, NULL);

        if (read && !is_complete(c))
            return read;
        if (is_over(c))
            return 0;
        if (end)
            return FAIL(e, UNAVAILABLE, "the connection was closed %s",
                        http2_client_answer(c->h2)->status ? "in the middle of the answer"
                                                           : "without an answer");
        TRY(channel_wait(&c->channel, !write && c->out.n > c->out_at ? CHANNEL_BOTH : CHANNEL_READ,
                         call->deadline_ns, e));
    }
}

/* Why an answer has failed, and whether the call may be repeated. */
static NODISCARD int failure(const struct remote_conn *c, struct remote_outcome *out, struct err *e)
{
    const struct http2_answer *answer = http2_client_answer(c->h2);
    str fault = http2_client_fault(c->h2);

    if (answer->too_large)
        return FAIL(e, RESOURCE_EXHAUSTED, "the answer is larger than answer_mib allows");
    if (answer->untouched) {
        out->may_retry = true;
        if (!fault.n && !http2_client_may_ask(c->h2))
            out->verdict = BREAKER_NEUTRAL; /* a server that goes away in good order */
        return FAIL(e, UNAVAILABLE, "the server did not take the call");
    }
    if (fault.n)
        return FAIL(e, INTERNAL, "what came back is no HTTP/2: " STR_F, STR_A(fault));
    return FAIL(e, INTERNAL, "the server broke the call off (HTTP/2 error %u)", answer->error_code);
}

static void status_keep(const struct remote_conn *c, bool in_trailer, enum code code,
                        struct remote_answer *ret)
{
    ret->code = code;
    (void)snprintf(ret->said, sizeof(ret->said), "%s", code_name(code));
    grpc_text_decode(http2_client_field(c->h2, in_trailer, S("grpc-message")), ret->text,
                     sizeof(ret->text));
}

/* How long the server wants to be left alone; -1: for good. */
static int64_t pushback_ns(const struct remote_conn *c, bool in_trailer)
{
    str text = http2_client_field(c->h2, in_trailer, S("grpc-retry-pushback-ms"));
    int64_t ms;

    if (!text.p)
        return 0;
    return str_to_i64(text, &ms) && ms >= 0 && ms <= PUSHBACK_MAX_MS ? ms * NS_PER_MS : -1;
}

static NODISCARD int message_take(const struct http2_answer *answer, struct remote_answer *ret,
                                  struct err *e)
{
    struct grpc_message message;
    struct err why;
    size_t used = 0;

    switch (grpc_message_next(answer->body, answer->body.n, &message, &used, &why)) {
    case GRPC_MESSAGE:
        break;
    case GRPC_MORE:
        return FAIL(e, INTERNAL, "the answer ends within its message");
    default:
        return FAIL(e, INTERNAL, "the answer is no message: %.200s", why.msg);
    }
    if (message.compressed)
        return FAIL(e, INTERNAL, "the answer is compressed, which was not asked for");
    if (used != answer->body.n)
        return FAIL(e, INTERNAL, "more than one message in the answer");
    ret->message = message.bytes;
    return 0;
}

/* An answer that is all there. */
static NODISCARD int answer_read(const struct remote_conn *c, struct remote_answer *ret,
                                 struct remote_outcome *out, struct err *e)
{
    const struct http2_answer *answer = http2_client_answer(c->h2);
    str type = http2_client_field(c->h2, false, S("content-type"));
    str status = http2_client_field(c->h2, true, S("grpc-status"));
    bool in_trailer = status.p != NULL;

    if (answer->status != 200) { /* a proxy, or no server of gRPC at all */
        ret->code = grpc_code_of_http(answer->status);
        (void)snprintf(ret->said, sizeof(ret->said), "status %d", answer->status);
        infer_answer_error(answer->body, ret->text, sizeof(ret->text));
        out->may_retry = answer->status == 503;
        return 0;
    }
    if (!grpc_is_content_type(type))
        return FAIL(e, INTERNAL, "the answer is no gRPC but '" STR_F "'",
                    STR_A(str_take(type, 60)));
    if (!in_trailer)
        status = http2_client_field(c->h2, false, S("grpc-status"));
    if (!status.p)
        return FAIL(e, INTERNAL, "the answer ends without a grpc-status");
    if (grpc_status_parse(status) == CODE_OK)
        return message_take(answer, ret, e);
    status_keep(c, in_trailer, grpc_status_parse(status), ret);
    out->retry_ns = MAX(pushback_ns(c, in_trailer), (int64_t)0);
    out->may_retry =
        ret->code == CODE_UNAVAILABLE && !answer->body.n && pushback_ns(c, in_trailer) >= 0;
    return 0;
}

/* The call is not waited for any more: the server is told, the session goes on if it can. */
static void take_back(struct remote_conn *c)
{
    http2_client_cancel(c->h2);
    if (give_out(c, NULL) || c->out.n > c->out_at || !http2_client_may_ask(c->h2))
        remote_conn_close(c);
}

static int grpc_exchange(struct remote_conn *c, const struct remote_call *call,
                         struct remote_answer *ret, struct remote_outcome *ret_outcome,
                         struct err *e)
{
    int rc;

    ret_outcome->may_retry = true; /* nothing was sent */
    rc = session_ready(c, call, e);
    if (!rc)
        rc = question_ask(c, call, e);
    if (rc) {
        remote_conn_close(c);
        return rc;
    }
    rc = pump(c, call, e);
    ret_outcome->may_retry =
        rc == CODE_UNAVAILABLE && http2_client_answer(c->h2)->state == HTTP2_ANSWER_WAITING;
    if (rc == CODE_DEADLINE_EXCEEDED || rc == CODE_CANCELLED)
        take_back(c);
    else if (rc)
        remote_conn_close(c);
    if (rc)
        return rc;
    rc = is_complete(c) ? answer_read(c, ret, ret_outcome, e) : failure(c, ret_outcome, e);
    if (give_out(c, NULL) || !http2_client_may_ask(c->h2))
        channel_close(&c->channel); /* the session holds the answer, and goes with the next call */
    return rc;
}

/* --- Messages --------------------------------------------------------------------------------- */

static int grpc_question(const struct runtime_slot *s, const struct remote_config *cfg,
                         struct buf *to, struct remote_call *call, struct err *e)
{
    size_t began = grpc_message_begin(to);

    TRY(infer_pb_question_write(to, cfg->model, cfg->version, s->inputs, s->model->input_count,
                                s->model->outputs, s->model->output_count, e));
    TRY(grpc_message_end(to, began, e));
    call->target = S(SERVICE "ModelInfer");
    call->body = buf_str(to);
    return 0;
}

static int grpc_take(const struct remote_answer *answer, struct tensor *outputs,
                     uint32_t output_count, struct arena *a, struct err *e)
{
    return infer_pb_answer_read(answer->message, outputs, output_count, a, e);
}

static int grpc_describe(struct remote_conn *c, struct remote_call *call, struct arena *a,
                         struct remote_config *ret, struct err *e)
{
    AUTO(buf_done) struct buf question = {0};
    const struct remote_config *cfg = call->cfg;
    struct json *inputs, *outputs;
    struct remote_outcome outcome;
    struct remote_answer answer;
    size_t began;

    buf_init(&question, QUESTION_BYTES_MAX);
    began = grpc_message_begin(&question);
    infer_pb_model_ask(&question, cfg->model, cfg->version);
    TRY(grpc_message_end(&question, began, e));
    call->target = S(SERVICE "ModelMetadata");
    call->body = buf_str(&question);
    TRY(remote_ask(c, call, &answer, &outcome, e));
    if (answer.code)
        return FAIL(e, UNAVAILABLE, STR_F " answers with %s %.200s", STR_A(cfg->host), answer.said,
                    answer.text);
    TRY(infer_pb_metadata_read(answer.message, a, &inputs, &outputs, e));
    *ret = *cfg;
    TRY(tensor_specs_read(inputs, "inputs", TENSOR_INPUTS_MAX, a, &ret->inputs, &ret->input_count,
                          e));
    return tensor_specs_read(outputs, "outputs", TENSOR_OUTPUTS_MAX, a, &ret->outputs,
                             &ret->output_count, e);
}

const struct remote_protocol remote_grpc = {
    .question = grpc_question,
    .exchange = grpc_exchange,
    .take = grpc_take,
    .describe = grpc_describe,
};
