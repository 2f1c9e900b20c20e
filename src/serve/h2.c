/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that speak HTTP/2. The codec gives whole requests of the same form as HTTP/1.1 does,
 * so what is here is the holding of streams: a stream is taken with its request and let go of with
 * its answer, which may be in this turn, when a crew is back, or never, if the peer resets it
 * first.
 *
 * What a stream's owner points to tells who works for it: an exchange of the turn, an offload, or a
 * call that streams messages. A stream without one is let go of when its peer resets it.
 *
 * The body of a whole request stays valid until its stream is let go of, in a crew too. That of a
 * call that streams only until the next http2_receive(): its messages are copied for a crew.
 */
#include "serve/observe.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"

#define GOAWAY_NS NS_PER_S         /* between the two, as long as a round trip may take */
#define STALLED_NS (30 * NS_PER_S) /* a peer that takes nothing is given up after this */

bool h2_start(struct conn *c)
{
    const struct gateway_config *cfg = gateway_config(c->l->gw);
    struct http2_limits limits = HTTP2_LIMITS_DEFAULT;
    struct err e;

    limits.request.head_bytes = cfg->head_bytes_max;
    limits.request.body_bytes = cfg->body_bytes_max;
    if (http2_session_new(&limits, &c->h2, &e)) {
        log_err("connection.failed", &e);
        return false;
    }
    c->ticked_ns = c->moved_ns = c->l->now_ns;
    return true;
}

RUNS_ON(on_loop) static void request(struct conn *c, struct http2_stream *st)
{
    counter_add(&c->l->counters.requests, 1);
    c->req = &st->req;
    c->stream = st;
    if (grpc_is_content_type(http1_known(&st->req.fields, HTTP1_F_CONTENT_TYPE)))
        grpc_route(c, st->req.body);
    else
        route_request(c, st->req.body);
    ASSERT(!c->stream); /* whoever answers has taken it */
    c->req = &c->own_req;
}

/* The peer wants no answer any more. */
RUNS_ON(on_loop) static void closed(struct http2_stream *st)
{
    struct stream_owner *owner = st->owner;

    if (owner)
        owner->closed(owner);
    else
        http2_stream_release(st);
}

RUNS_ON(on_loop)
static void take(struct conn *c, enum http2_event event, struct http2_stream *st)
{
    switch (event) {
    case HTTP2_HEAD:
        grpc_stream_open(c, st); /* if it is one */
        break;
    case HTTP2_REQUEST:
        if (!st->owner)
            request(c, st);
        break;
    case HTTP2_REFUSED:
        counter_add(&c->l->counters.bad_requests, 1);
        observe_malformed(c, http1_refusal_status(st->refusal));
        if (grpc_is_content_type(http1_known(&st->req.fields, HTTP1_F_CONTENT_TYPE))) {
            grpc_refuse(st);
            break;
        }
        http2_respond_refusal(st);
        http2_stream_release(st);
        break;
    case HTTP2_CLOSED:
        closed(st);
        break;
    default:
        break;
    }
}

void h2_take(struct conn *c)
{
    struct http2_stream *st;
    enum http2_event event;
    struct err e;

    if (c->in.n) {
        if (http2_receive(c->h2, buf_str(&c->in), &e))
            counter_add(&c->l->counters.bad_requests, 1);
        buf_clear(&c->in);
    }
    while ((event = http2_next(c->h2, &st)) != HTTP2_NONE)
        take(c, event, st);
    grpc_streams_go_on(c);
}

void h2_end(struct conn *c)
{
    while (c->streaming)
        grpc_stream_drop(c->streaming);
}

/* A gateway that leaves has said so; now it says which streams it will still answer. */
RUNS_ON(on_loop) static void go_away(struct conn *c, int64_t now_ns)
{
    if (!c->l->left_ns || now_ns - c->l->left_ns < GOAWAY_NS ||
        gateway_leaving(c->l->gw) != GATEWAY_RETIRES)
        return;
    http2_goaway(c->h2, true);
    conn_touch(c);
}

/* Budgets, peers that take nothing, and peers that have nothing to say. */
void h2_sweep(struct conn *c, int64_t now_ns)
{
    if (now_ns - c->ticked_ns >= NS_PER_S) {
        c->ticked_ns = now_ns;
        http2_tick(c->h2);
    }
    go_away(c, now_ns);
    if (!http2_stalled_bytes(c->h2))
        c->moved_ns = now_ns;
    else if (now_ns - c->moved_ns > STALLED_NS)
        conn_drop(c);
    if (http2_open_streams(c->h2) && !conn_waits(c) && !c->streaming &&
        now_ns - c->active_ns > gateway_config(c->l->gw)->request_timeout_ns)
        conn_drop(c); /* requests that never become complete */
}
