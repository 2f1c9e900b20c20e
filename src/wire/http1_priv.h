/* SPDX-License-Identifier: Apache-2.0 */
/* What the request and the response side of the HTTP/1.1 codec share. */
#pragma once

#include "wire/http1.h"
#include "wire/http1_scan.h"

/* A head under parse. `end` is the end of the bytes or of what the limit allows, whichever is
 * nearer; `cut` tells that it is the limit. */
struct http1_cursor {
    const char *at, *end;
    bool cut;
};

/* Steps return HTTP1_OK, a refusal, or this: the bytes end before the step does. */
#define HTTP1_STEP_MORE HTTP1_REFUSAL_COUNT

enum { /* bits of http1_fields.connection */
       HTTP1_CONN_CLOSE = 1,
       HTTP1_CONN_KEEP = 2,
       HTTP1_CONN_UPGRADE = 4,
};

/* Whether a parse can get further than the last one on this head: false = wait for more bytes. */
bool http1_worth_parsing(const char *p, size_t n, const struct http1_limits *limits, size_t *seen);

/* "\r\n" at c->at. */
enum http1_refusal http1_take_line_end(struct http1_cursor *c);
/* "HTTP/1.0" or "HTTP/1.1" at c->at; `malformed` is the refusal for what is no version at all. */
enum http1_refusal http1_take_version(struct http1_cursor *c, enum http1_refusal malformed,
                                      uint8_t *ret_minor);
/* All header lines and the empty line. */
enum http1_refusal http1_take_fields(struct http1_cursor *c, uint32_t headers_max,
                                     struct http1_fields *f);
/* A field added at f->headers[f->count] (not yet counted) is put into the table of known ones. The
 * name has at least one byte. */
enum http1_refusal http1_note_field(struct http1_fields *f, const struct http1_header *h);
/* Framing by Content-Length and Transfer-Encoding; *framing keeps its value when there is neither.
 */
enum http1_refusal http1_framing_of(const struct http1_fields *f, uint8_t version_minor,
                                    enum http1_framing *framing, uint64_t *content_length);
bool http1_keep_alive(const struct http1_fields *f, uint8_t version_minor);

enum http1_method http1_method_of(str text);
bool http1_is_authority(str s); /* host and port, of the allowed characters alone */
/* Splits req->target into path and query, and for the absolute form also the authority. */
enum http1_refusal http1_split_target(struct http1_request *req);

/* Bytes still to come of a body of known length; 0 for other kinds. */
uint64_t http1_body_left(const struct http1_body *b);
