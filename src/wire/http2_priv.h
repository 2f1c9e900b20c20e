/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the HTTP/2 codec. */
#pragma once

#include "wire/http1_priv.h"
#include "wire/http2.h"

#include <nghttp2/nghttp2.h>

/* --- Memory of nghttp2 (http2_pool.c) --------------------------------------------------------- */

#define HTTP2_POOL_CLASSES 12 /* blocks of 32 << class bytes: up to 64 KiB */

struct http2_block;
struct http2_pool {
    nghttp2_mem mem; /* what nghttp2 is given; points here */
    struct http2_block *free[HTTP2_POOL_CLASSES];
    size_t used_bytes, kept_bytes; /* handed out; in the free lists */
    size_t max_bytes;              /* of used_bytes: past it an allocation fails */
};
void http2_pool_init(struct http2_pool *p, size_t max_bytes);
void http2_pool_trim(struct http2_pool *p); /* gives the free lists back */

/* --- Streams ---------------------------------------------------------------------------------- */

struct stream {
    struct http2_stream public;
    struct http2_session *s;
    struct stream *next; /* of the free list */
    struct stream *event_next;
    struct stream *all_next; /* every stream of the session, free or not */
    struct buf head;         /* the slices of public.req */
    struct buf body;         /* [body_at, n) is req.body */
    size_t body_at;
    struct buf out; /* answer bytes, [out_at, n) not yet sent */
    size_t out_at;
    struct buf trailers; /* of the answer: see http2_answer.c */
    uint32_t trailer_count;
    uint32_t window_bytes;
    uint64_t grown_bytes;                                   /* received since the window grew */
    uint32_t trailer_bytes;                                 /* of the request */
    bool queued;                                            /* in the list of events */
    bool given, request_given, refusal_given, closed_given; /* events that the owner has had */
    bool progressed;                                        /* body bytes since the last event */
    bool by_pieces;
    bool released;
    bool host_from_authority;
    bool answered; /* a head is submitted */
    bool finished; /* the end of the answer is known */
    bool deferred; /* nghttp2 waits to be told of more bytes */
    bool sent_end; /* END_STREAM went out */
    bool reset_by_us;
};

struct http2_session {
    nghttp2_session *ng;
    struct http2_limits limits;
    struct http2_pool pool;
    struct stream *all, *spare;
    struct stream *events_first, *events_last;
    uint32_t open;                /* streams not in `spare` */
    uint32_t resets, idle_frames; /* what is left of the budgets */
    uint64_t idle_bytes;          /* since a frame moved something on */
    bool moved;                   /* ... in this http2_receive */
    uint32_t window_bytes;        /* of the connection */
    uint64_t bodies_bytes, answers_bytes;
    size_t block_bytes; /* of the header block under way, as a header list counts */
    struct buf *to;     /* of http2_send under way */
    size_t to_max;
    const char *wrong; /* why the session is over, or NULL */
    char reason[96];   /* what `wrong` may point to */
    bool wrong_is_limit;
    bool drained; /* the last http2_send left nothing that could be sent */
    bool goaway_noticed, goaway_sent;
};

static inline struct stream *stream_of(struct http2_stream *st)
{
    return CONTAINER_OF(st, struct stream, public);
}

/* Ends the session with GOAWAY; the first reason stays. */
void http2_session_end(struct http2_session *s, const char *wrong, uint32_t error_code);

/* --- http2_request.c: what comes -------------------------------------------------------------- */

void http2_request_callbacks(nghttp2_session_callbacks *cb);
void http2_event_add(struct stream *st);

/* --- http2_answer.c: what goes ---------------------------------------------------------------- */

void http2_answer_callbacks(nghttp2_session_callbacks *cb);
void http2_answer_drop(struct stream *st); /* the stream is closed: its bytes go nowhere */

/* --- http2.c ---------------------------------------------------------------------------------- */

/* A stream with empty buffers, open; NULL when there are too many. */
struct stream *http2_stream_take(struct http2_session *s, int32_t id);
void http2_stream_recycle(struct stream *st);
void http2_body_drop(struct stream *st); /* lets go of the request's body bytes */

/* --- Of both sides ---------------------------------------------------------------------------- */

/* Limits that nghttp2 keeps by itself (http2.c). -1: no memory. */
int http2_options_make(uint32_t acks, uint32_t continuations, nghttp2_option **ret_option);
/* A field as nghttp2 takes it; the texts are borrowed. */
nghttp2_nv http2_nv(str name, str value);
