/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 (RFC 9113), client side, without sockets and clocks: one question at a time over one
 * connection, which is kept for the next. For callers that block until their answer is there; what
 * they gain over HTTP/1.1 is gRPC, trailers, and that a question can be taken back.
 *
 *     http2_client_ask(c, …)                    head and body of a question
 *     while (http2_client_send(c, &out)) …      what is to go; again after each receive
 *     http2_client_receive(c, bytes)            what came
 *     http2_client_answer(c)->state             how far it is
 *
 * The server is not trusted: heads, bodies, memory and frames that move nothing on have limits, and
 * pushed streams are refused. A session that breaks the protocol or a limit is over for good:
 * http2_client_may_ask() is false, and what http2_client_send() still gives is the last.
 */
#pragma once

#include "wire/http1.h"

struct http2_client_limits {
    uint32_t head_bytes;   /* of one header list, as RFC 9113 section 6.5.2 counts it */
    uint32_t fields;       /* of the head and the trailers together */
    uint64_t body_bytes;   /* of an answer */
    uint32_t window_bytes; /* of the stream and of the connection */
    uint32_t memory_bytes; /* of nghttp2 for this session */
    uint32_t acks;         /* SETTINGS and PING acknowledgements queued */
    uint32_t idle_frames;  /* in a row that move no body byte either way */
};

/* 16 KiB of head, 64 fields, 64 MiB of body, 1 MiB windows, 2 MiB for nghttp2, 100 acks, 2,000
 * idle frames. */
extern const struct http2_client_limits HTTP2_CLIENT_LIMITS_DEFAULT;

enum http2_answer_state {
    HTTP2_ANSWER_NONE,     /* no question is under way */
    HTTP2_ANSWER_WAITING,  /* nothing has come */
    HTTP2_ANSWER_HEAD,     /* the head is there, the end is not */
    HTTP2_ANSWER_COMPLETE, /* all of it is */
    HTTP2_ANSWER_FAILED,   /* reset, refused by a limit of ours, or the session is over */
};

struct http2_answer {
    enum http2_answer_state state;
    int status;          /* of the head; 0 before */
    str body;            /* what has come; valid until the next call */
    bool untouched;      /* failed, and the server says that it did nothing: ask again elsewhere */
    bool too_large;      /* failed because the body passed body_bytes */
    uint32_t error_code; /* of a reset: RFC 9113 section 7 */
};

struct http2_client;

/* NULL limits: the default. RESOURCE_EXHAUSTED. */
NODISCARD int http2_client_new(const struct http2_client_limits *limits,
                               struct http2_client **ret_client, struct err *e);
void http2_client_free(struct http2_client *c); /* accepts NULL */
DEFINE_AUTO_PTR(struct http2_client, http2_client_free)

/* False once the server has said goodbye, or the session is over, or has had its number of streams:
 * a new connection is needed. Also false while a question is under way. */
bool http2_client_may_ask(const struct http2_client *c);
/* Begins a question. `fields` hold the pseudo-header fields first, names in small letters; they
 * are copied. `body` is borrowed until the answer is complete or failed; p == NULL: there is none.
 * RESOURCE_EXHAUSTED; INVALID_ARGUMENT for a value with a control character. */
NODISCARD int http2_client_ask(struct http2_client *c, const struct http1_header *fields,
                               size_t count, str body, struct err *e);
/* Takes the question back: RST_STREAM with CANCEL. The session goes on. */
void http2_client_cancel(struct http2_client *c);

/* Fails when the session is over: INVALID_ARGUMENT (no HTTP/2), RESOURCE_EXHAUSTED (a limit). */
NODISCARD int http2_client_receive(struct http2_client *c, str bytes, struct err *e);
/* Appends frames to `out` until it holds about 64 KiB. True when there may be more at once. */
bool http2_client_send(struct http2_client *c, struct buf *out);

const struct http2_answer *http2_client_answer(const struct http2_client *c);
/* A field of the head or, when `trailer`, behind the body; p == NULL when absent. Of several the
 * first. Valid until the next question. */
str http2_client_field(const struct http2_client *c, bool trailer, str name);
/* Why the session is over; p == NULL when it is not. */
str http2_client_fault(const struct http2_client *c);
uint64_t http2_client_memory_bytes(const struct http2_client *c);
