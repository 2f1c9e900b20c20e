/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errands: what a request asks for that takes long and is no run of a model. A worker of the
 * gateway does it, one after the other, while the loops go on; the connection waits, its buffer
 * frozen, as for an offload (offload.c), and gets its answer when the errand is back. A client that
 * has left does not undo what it asked for.
 */
#include "serve/priv.h"

#include "base/mem.h"

struct errand {
    struct job job;
    struct stream_owner owner; /* of its stream, if it has one */
    struct serve_loop *l;
    struct conn *conn; /* frozen until this is back */
    struct http2_stream *stream;
    bool is_call; /* gRPC */
    bool keep_alive;
    bool load;
    str endpoint; /* owned */
    int rc;
    struct err e;
};

/* On the worker. */
static void run(struct job *j)
{
    struct errand *er = CONTAINER_OF(j, struct errand, job);

    er->rc = gateway_set_loaded(er->l->gw, er->endpoint, er->load, &er->e);
}

/* The peer has reset the stream, which is let go of by the answer. */
static void on_closed(struct stream_owner *o)
{
    (void)o;
}

static void errand_free(struct errand *er)
{
    mem_free((char *)er->endpoint.p);
    mem_free(er);
}

void errand_begin(struct conn *c, str endpoint, bool load)
{
    struct errand *er = mem_zalloc(sizeof(*er));
    struct err e;

    er->job.run = run;
    er->job.reply_to = &c->l->errands;
    er->owner.closed = on_closed;
    er->l = c->l;
    er->conn = c;
    er->is_call = c->call != NULL;
    er->keep_alive = c->req->keep_alive;
    er->load = load;
    er->endpoint = (str){mem_dupz(endpoint.p, endpoint.n), endpoint.n};
    if (c->pending && !c->stream)
        turn_flush(c->l); /* the answers before this one */
    if (pool_submit(gateway_errands(c->l->gw), &er->job, &e)) {
        errand_free(er);
        conn_answer_error(c, &e);
        return;
    }
    c->errands++;
    er->stream = TAKE(c->stream);
    if (er->stream)
        er->stream->owner = &er->owner;
}

RUNS_ON(on_loop) static void answer(struct errand *er)
{
    struct conn *c = er->conn;
    struct answer a = {.stream = er->stream,
                       .status = er->rc ? code_http_status(er->e.code) : 200,
                       .content_type = "application/json",
                       .keep_alive = er->keep_alive,
                       .body = S("{}")};

    conn_touch(c);
    if (er->is_call) {
        grpc_respond_done(er->stream, c->l, er->rc, &er->e);
        return;
    }
    if (er->rc) {
        infer_error_write(answer_begin(c), &er->e);
        a.body = buf_str(&c->l->body);
    }
    conn_respond(c, &a);
}

void errand_returned(struct loop *loop, struct mailbox *mb, struct mail *m)
{
    struct errand *er = CONTAINER_OF(CONTAINER_OF(m, struct job, mail), struct errand, job);
    struct conn *c = er->conn;

    (void)loop, (void)mb;
    ROLE_ASSERT(on_loop);
    if (er->job.cancelled)
        er->rc = FAIL(&er->e, UNAVAILABLE, "the gateway is about to stop");
    if (!c->gone)
        answer(er);
    c->errands--;
    conn_back(c);
    errand_free(er);
}
