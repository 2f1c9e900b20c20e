/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ModelStreamInfer: a call whose messages are requests, each answered with a message, in order, as
 * long as the client likes. A failed request is a message with an error and does not end the call.
 *
 * Messages are taken out of the stream's body as they become whole, and the window of the stream
 * opens by what was taken, so that a call of any length needs the memory of one message. While a
 * request of the call is with a crew, nothing more is taken: answers keep their order without a
 * queue of them, and the client feels the pace through its window.
 *
 * The call ends with its status when the client has sent all and all of it is answered.
 */
#include "serve/observe.h"

#include "base/mem.h"

struct grpc_stream {
    struct stream_owner owner;
    struct conn *conn;
    struct http2_stream *st;          /* NULL: the peer is gone */
    struct grpc_call call;            /* borrows from the head of the stream */
    struct grpc_stream *next, **prev; /* those of conn */
    uint32_t open;                    /* requests not yet answered */
    bool in_crew;                     /* one of them is with a crew */
    bool head_sent, ended;
    bool dropped; /* no longer among those of conn */
};

static void unlink_free(struct grpc_stream *gs)
{
    *gs->prev = gs->next;
    if (gs->next)
        gs->next->prev = gs->prev;
    mem_free(gs);
}

/* Frees what nobody needs any more: after its end, and when no request of it is open. */
static bool settle(struct grpc_stream *gs)
{
    if (gs->open || !gs->ended)
        return false;
    unlink_free(gs);
    return true;
}

static void let_go(struct grpc_stream *gs)
{
    gs->ended = true;
    if (gs->st)
        http2_stream_release(gs->st);
    gs->st = NULL;
}

static void on_closed(struct stream_owner *o)
{
    struct grpc_stream *gs = CONTAINER_OF(o, struct grpc_stream, owner);

    let_go(gs);
    (void)settle(gs);
}

/* The connection is gone: its session frees the stream; a request with a crew comes back later. */
void grpc_stream_drop(struct grpc_stream *gs)
{
    gs->st = NULL;
    gs->ended = true;
    *gs->prev = gs->next;
    if (gs->next)
        gs->next->prev = gs->prev;
    gs->dropped = true;
    if (!gs->open)
        mem_free(gs);
}

/* --- Answers ---------------------------------------------------------------------------------- */

static void send_head(struct grpc_stream *gs)
{
    static const struct http1_header fields[] = {
        {S_INIT("content-type"), S_INIT("application/grpc")}};

    if (!gs->head_sent)
        http2_respond_head(gs->st, 200, fields, ARRAY_LEN(fields));
    gs->head_sent = true;
}

static void send_message(struct grpc_stream *gs, str message)
{
    if (!gs->st)
        return;
    send_head(gs);
    http2_stream_write(gs->st, message);
}

static void send_error(struct grpc_stream *gs, const struct err *why)
{
    struct buf *to = answer_begin(gs->conn);
    size_t began = grpc_message_begin(to);
    struct err e;

    infer_pb_stream_error_write(to, str_of(why->msg));
    if (!grpc_message_end(to, began, &e))
        send_message(gs, buf_str(to));
}

/* The status of the whole call: OK, or what made it impossible to go on. */
static void finish(struct grpc_stream *gs, const struct err *e)
{
    struct http1_header trailers[GRPC_TRAILERS_MAX];
    char text[GRPC_TEXT_BYTES];

    if (!gs->st)
        return;
    send_head(gs);
    http2_stream_finish(gs->st, trailers, grpc_trailers(e, text, trailers));
    let_go(gs);
}

static NODISCARD int write_message(struct serve_loop *l, struct exchange *x,
                                   const struct tensor *outputs, struct buf *body, struct err *e)
{
    struct infer_request *request = x->form_state;
    size_t began = grpc_message_begin(body), opened;

    opened = infer_pb_stream_open(body);
    TRY(infer_pb_response_write(body, &x->version->response_pb, request,
                                post_of_tensors(l, x, outputs), fallback_parameters(l, x), e));
    infer_pb_stream_close(body, opened);
    return grpc_message_end(body, began, e);
}

static void respond(struct exchange *x, int rc, const struct err *e, str body)
{
    struct grpc_stream *gs = x->form_owner;

    x->stream = NULL; /* it goes on */
    gs->open--;
    gs->in_crew = false;
    if (gs->dropped && !gs->open) {
        mem_free(gs);
        return;
    }
    if (rc && gs->st)
        send_error(gs, e);
    else if (!rc)
        send_message(gs, body);
}

/* --- Requests --------------------------------------------------------------------------------- */

RUNS_ON(on_loop) static void infer(struct grpc_stream *gs, const struct grpc_message *gm)
{
    static const struct exchange_form form = {"grpc-stream", respond, write_message};
    struct conn *c = gs->conn;
    struct offload *before = c->away;
    struct route_match m = {0};
    str message;
    struct err e;
    int rc;

    c->req = &gs->st->req;
    c->stream = gs->st;
    c->call = &gs->call;
    c->noted = false;
    gs->open++; /* a repeat is answered at once */
    rc = grpc_unfold(c, gm, &message, &e);
    if (!rc)
        rc = grpc_model(c, message, &m, &e);
    if (!rc)
        rc = grpc_admit(c, PERMISSION_INFER, &m, &e);
    if (!rc)
        rc = grpc_infer(c, &form, gs, &m, message, &e);
    if (rc)
        observe_answer(c, code_http_status(e.code), e.code, 0);
    c->retry_ms = 0; /* a message has no place for it */
    c->stream = NULL;
    c->call = NULL;
    c->req = &c->own_req;
    if (rc) {
        gs->open--;
        if (c->pending) /* the answers of earlier messages come first */
            turn_flush(c->l);
        send_error(gs, &e);
        return;
    }
    gs->in_crew = c->away != before;
}

/* Takes whole messages as long as there are some. */
RUNS_ON(on_loop) static void go_on(struct grpc_stream *gs)
{
    struct grpc_message m;
    enum grpc_step step = GRPC_MORE;
    struct err e;
    size_t used;
    bool failed;

    while (gs->st && !gs->in_crew &&
           (step = grpc_message_next(gs->st->req.body, GRPC_REQUEST_BYTES_MAX, &m, &used, &e)) ==
               GRPC_MESSAGE) {
        infer(gs, &m);
        if (gs->st)
            http2_stream_consume(gs->st, used);
    }
    if (!gs->st || gs->in_crew || (step != GRPC_BROKEN && !gs->st->complete))
        return;
    failed = step == GRPC_BROKEN || gs->st->req.body.n;
    if (failed && step != GRPC_BROKEN)
        (void)FAIL(&e, INVALID_ARGUMENT, "the call ended within a message");
    if (gs->conn->pending) /* the answers of its messages come first */
        turn_flush(gs->conn->l);
    finish(gs, failed ? &e : NULL);
}

void grpc_streams_go_on(struct conn *c)
{
    for (struct grpc_stream *gs = c->streaming, *next; gs; gs = next) {
        next = gs->next;
        if (!gs->ended)
            go_on(gs);
        (void)settle(gs);
    }
}

void grpc_stream_open(struct conn *c, struct http2_stream *st)
{
    struct grpc_stream *gs;
    struct grpc_call call;
    struct err e;

    if (!grpc_is_content_type(http1_known(&st->req.fields, HTTP1_F_CONTENT_TYPE)) ||
        grpc_call_read(&st->req, &call, &e) || !str_eq(call.method, S("ModelStreamInfer")) ||
        !str_eq(call.service, S("inference.GRPCInferenceService")))
        return; /* it is answered when it is complete */
    gs = mem_zalloc(sizeof(*gs));
    gs->owner.closed = on_closed;
    gs->conn = c;
    gs->st = st;
    gs->call = call;
    gs->call.timeout_ns = -1; /* that of the call is not one of its messages */
    gs->next = c->streaming;
    gs->prev = &c->streaming;
    if (gs->next)
        gs->next->prev = &gs->next;
    c->streaming = gs;
    st->owner = &gs->owner;
    if (!st->complete)
        http2_stream_by_pieces(st);
    counter_add(&c->l->counters.requests, 1);
}
