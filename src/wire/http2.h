/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 (RFC 9113), server side, without sockets and clocks: bytes in, events out, bytes out. The
 * framing and HPACK are nghttp2's; this is the shape the rest of Weir works with, and the limits.
 *
 * A stream gives the same struct http1_request as the HTTP/1.1 parser, so that routing and handlers
 * are shared: known fields are indexed, names are small letters, ":authority" is the host.
 *
 *     http2_receive(s, bytes)             what came; never answers, only queues
 *     while ((ev = http2_next(s, &st)))   one event at a time: route it, answer it
 *     http2_send(s, &out)                 what is to go; again whenever `out` has been written
 *
 * The owner holds a stream from its first event until http2_stream_release(), also when the peer
 * has reset it meanwhile: slices stay valid, answers go nowhere. All calls of one session come from
 * one thread. In steady state nothing is allocated: streams, their buffers and the memory of
 * nghttp2 are kept and used again.
 *
 * Attacks, and what meets them: see http2_limits. A session that breaks the protocol or a budget is
 * ended with GOAWAY; what http2_send() still gives then is the last.
 */
#pragma once

#include "wire/http1.h"

struct http2_limits {
    /* Of each request: head_bytes is the size of the header list as RFC 9113 section 6.5.2 counts
     * it, headers includes "host". Breaches are answered by the owner: HTTP2_REFUSED. */
    struct http1_limits request;
    uint32_t streams;          /* open at once, those still held by the owner included */
    uint64_t bodies_bytes;     /* of request bodies at once in all streams: the stream is refused */
    uint64_t answers_bytes;    /* queued in all streams: past it new streams get REFUSED_STREAM */
    uint32_t window_bytes;     /* of a stream at first; doubles with use up to request.body_bytes */
    uint32_t window_max_bytes; /* ... or up to this; and of the connection likewise */
    uint32_t memory_bytes;     /* of nghttp2 for this session: past it the session ends */
    uint32_t send_bytes;       /* http2_send() stops when it has added so much (+ one frame) */
    uint32_t acks;             /* SETTINGS and PING acknowledgements queued: past it it ends */
    uint32_t continuations;    /* frames of one header block */
    uint32_t
        resets; /* streams that come to nothing (refused ones too), for each tick: CVE-2023-44487
                 * and its kin; past it the session ends with ENHANCE_YOUR_CALM */
    uint32_t idle_frames; /* frames that move nothing on, for each tick: the same */
};

/* 100 streams, 64 MiB bodies and 128 MiB together, 1 MiB windows growing to 16 MiB, 8 MiB of
 * answers queued, 4 MiB for nghttp2, 1 MiB a send, 200 resets and 2,000 idle frames a tick. */
extern const struct http2_limits HTTP2_LIMITS_DEFAULT;

enum http2_event {
    HTTP2_NONE,    /* no more now */
    HTTP2_HEAD,    /* the head is complete, the body is not: the moment to check rights, or to
                      choose http2_stream_by_pieces(). req.body is what has come already */
    HTTP2_DATA,    /* req.body has grown; the body is not complete */
    HTTP2_REQUEST, /* all is complete; always comes, unless REFUSED or CLOSED does */
    HTTP2_REFUSED, /* stream.refusal says why: answer it, the rest of its body is thrown away */
    HTTP2_CLOSED,  /* the peer or the session ended the stream: stop working for it */
};

struct http2_session;

/* What the owner sees of a stream. */
struct http2_stream {
    /* Slices are valid until the release; req.body, while not complete, only until the next
     * http2_receive(). */
    struct http1_request req;
    enum http1_refusal refusal;
    uint32_t error_code; /* of HTTP2_CLOSED: RFC 9113 section 7 */
    int32_t id;
    bool complete; /* the request is */
    bool closed;   /* answers go nowhere */
    void *owner;   /* for the owner; NULL at first */
};

/* --- Sessions ------------------------------------------------------------------------------- */

/* NULL limits: the default. The SETTINGS frame is ready to be sent. RESOURCE_EXHAUSTED. */
NODISCARD int http2_session_new(const struct http2_limits *limits,
                                struct http2_session **ret_session, struct err *e);
void http2_session_free(struct http2_session *s); /* streams too, held or not; accepts NULL */
DEFINE_AUTO_PTR(struct http2_session, http2_session_free)

/*
 * Takes bytes, the client's preface included. Fails when the session is over: INVALID_ARGUMENT
 * (broken frames), RESOURCE_EXHAUSTED (a budget or limit of the session). That frames were broken
 * may show only when http2_send() has given the GOAWAY that says so; http2_is_done() then is true,
 * and http2_fault() tells why.
 */
NODISCARD int http2_receive(struct http2_session *s, str bytes, struct err *e);
enum http2_event http2_next(struct http2_session *s, struct http2_stream **ret_stream);
/* Appends to `out` at most send_bytes and one frame. True when there may be more at once. */
bool http2_send(struct http2_session *s, struct buf *out);

/* Drains. First call (final = false): tells the peer to open no more streams, those under way and
 * in flight are still served. Second, after a round trip or so: streams from now on are not served
 * at all. http2_is_done() then comes true when the last one is over. */
void http2_goaway(struct http2_session *s, bool final);
bool http2_is_done(const struct http2_session *s); /* nothing to read or write any more: close */
/* Why the session is over before its time, for the log; p == NULL when it is not. */
str http2_fault(const struct http2_session *s);

/* To be called by a timer, about once a second: refills the budgets, and lets go of memory that an
 * idle session keeps. Never called, the budgets are those of the session's whole life. */
void http2_tick(struct http2_session *s);

uint32_t http2_open_streams(const struct http2_session *s); /* those held included */
/* Bytes of answers that wait for the peer to open its windows (0 while they wait only for
 * http2_send): for how long they may is the timer's affair. */
uint64_t http2_stalled_bytes(const struct http2_session *s);
uint64_t http2_memory_bytes(const struct http2_session *s); /* of buffers, streams and nghttp2 */

/* --- Streams -------------------------------------------------------------------------------- */

/*
 * Answers. Names are small letters; a field whose value holds a control character is left out; at
 * most HTTP2_FIELDS_MAX fields. Bytes are copied. `content-length` is added by http2_respond alone.
 * On a stream that is closed or answered, all of these do nothing.
 */
#define HTTP2_FIELDS_MAX 32

/* A whole answer. To HEAD, the body is counted and not sent. */
void http2_respond(struct http2_stream *st, int status, const struct http1_header *fields,
                   size_t count, str body);
/* A head alone with the end of the stream, as gRPC sends errors ("trailers-only"). */
void http2_respond_only(struct http2_stream *st, int status, const struct http1_header *fields,
                        size_t count);
/* In pieces: a head, then any number of writes, then the end (trailers may be none). */
void http2_respond_head(struct http2_stream *st, int status, const struct http1_header *fields,
                        size_t count);
void http2_stream_write(struct http2_stream *st, str data);
void http2_stream_finish(struct http2_stream *st, const struct http1_header *trailers,
                         size_t count);
uint64_t http2_stream_queued_bytes(const struct http2_stream *st); /* not yet sent */
/* The answer {"error": reason} to a refused request. */
void http2_respond_refusal(struct http2_stream *st);

/* Ends the stream at once. Codes of RFC 9113 section 7. */
#define HTTP2_NO_ERROR 0x0
#define HTTP2_INTERNAL_ERROR 0x2
#define HTTP2_REFUSED_STREAM 0x7 /* nothing was done: the client may try again */
#define HTTP2_CANCEL 0x8
#define HTTP2_ENHANCE_YOUR_CALM 0xb
void http2_stream_reset(struct http2_stream *st, uint32_t error_code);

/* From now on the window of the stream opens only by what http2_stream_consume() takes: a body of
 * any length in bounded memory. To be chosen at HTTP2_HEAD. */
void http2_stream_by_pieces(struct http2_stream *st);
/* Drops the first n bytes of req.body, which moves on. */
void http2_stream_consume(struct http2_stream *st, size_t n);

/* The owner is done with the request and has answered it, or will not. An unanswered stream is
 * reset with INTERNAL_ERROR. What was queued is still sent. */
void http2_stream_release(struct http2_stream *st);
