/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1, client side, without sockets: request heads out, response heads in, with the same
 * strictness and the same body decoder as the server side (http1.h). Informational answers (1xx)
 * come out like others: the caller skips them and parses on, except 101.
 */
#pragma once

#include "wire/http1.h"

struct http1_response {
    int status; /* 100..999 */
    uint8_t version_minor;
    str reason; /* may be empty */
    bool keep_alive;
    enum http1_framing framing; /* pass on to http1_body_begin */
    uint64_t content_length;    /* as announced, valid for HTTP1_BODY_LENGTH */
    size_t head_bytes;
    struct http1_fields fields;
};

/* Parses a response head in p[0, n); see http1_head_parse for *seen. `to_head`: it answers a HEAD
 * request and has no body whatever it announces. HTTP1_HEAD, HTTP1_MORE or HTTP1_REFUSED. */
enum http1_event http1_response_parse(const char *p, size_t n, const struct http1_limits *limits,
                                      bool to_head, size_t *seen, struct http1_response *res,
                                      enum http1_refusal *ret_refusal);

/*
 * Appends a request head with its empty line. `target` is in origin form and already encoded;
 * `host` the authority; `content_type` may be empty; content_length: a number (0 for POST and PUT
 * without a body), HTTP1_LENGTH_CHUNKED, or HTTP1_LENGTH_CLOSE for none. `extra` as in
 * http1_write_head.
 */
void http1_write_request(struct buf *out, str method, str target, str host, str content_type,
                         uint64_t content_length, bool keep_alive, str extra);
/* Percent-encodes all but unreserved characters: a path segment, or a name or value of a query. */
void http1_write_encoded(struct buf *out, str s);

/*
 * Server-sent events (WHATWG HTML section 9.2) from a body that comes in pieces. fn gets each event
 * with its joined data lines, valid during the call; returning false stops the parse.
 */
struct http1_sse_event {
    str type; /* "message" when the stream names none */
    str data; /* without the last newline */
    str id;   /* the last one seen, maybe of an earlier event */
};
typedef bool (*http1_sse_fn)(void *arg, const struct http1_sse_event *ev);

struct http1_sse {
    struct buf line, data, type, id;
    size_t event_bytes_max;
    bool started, last_was_cr, stopped;
};
void http1_sse_init(struct http1_sse *s, size_t event_bytes_max);
void http1_sse_done(struct http1_sse *s);
/* RESOURCE_EXHAUSTED when an event is larger than event_bytes_max; false in *ret_go after a stop.
 */
NODISCARD int http1_sse_feed(struct http1_sse *s, str piece, http1_sse_fn fn, void *arg,
                             bool *ret_go, struct err *e);
