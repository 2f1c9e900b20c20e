/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small HTTP client for the command line: one request, one answer, over TCP or a unix socket,
 * blocking, with a deadline. Answers may be gathered or handed over as they come: pieces, lines
 * (JSON lines), server-sent events.
 *
 * No TLS, no redirects, no proxies: it talks to Weir's own servers. Host names are looked up with
 * the system's resolver.
 */
#pragma once

#include "base/arena.h"
#include "wire/http1_client.h"

struct cli_http_request {
    const char *address;   /* "127.0.0.1:7070", "http://host:port", "unix:/path" */
    const char *method;    /* NULL = GET, or POST when there is a body */
    const char *target;    /* "/api/v1/…", already encoded; NULL = "/" */
    str content_type;      /* of the body; empty = application/json */
    str extra;             /* complete header lines, each with its CRLF */
    str body;              /* p == NULL: none */
    int64_t timeout_ns;    /* 0 = 30 s. Of the whole exchange; of a streamed answer each silence */
    size_t body_bytes_max; /* of a gathered answer or one line or event; 0 = 64 MiB */

    /* At most one; called with the body of a 2xx answer. Returning false ends the call without an
     * error. Other answers are gathered all the same, for they say what went wrong. */
    bool (*on_piece)(void *arg, str piece);
    bool (*on_line)(void *arg, str line); /* without its LF or CRLF; an unfinished last one too */
    bool (*on_event)(void *arg, const struct http1_sse_event *ev);
    void *arg;
};

struct cli_http_response {
    int status;
    str body; /* empty when it was streamed */
    struct http1_header *headers;
    size_t header_count;
};

/*
 * Does the request; what *ret points to lies in the arena. An answer of any status is a success.
 * UNAVAILABLE (nobody listens, connection lost), DEADLINE_EXCEEDED, INVALID_ARGUMENT (address),
 * RESOURCE_EXHAUSTED (answer too large), INTERNAL (not an HTTP answer); messages name the address.
 */
NODISCARD int cli_http(const struct cli_http_request *req, struct arena *a,
                       struct cli_http_response *ret, struct err *e);

/* A header of the answer by name, without case; p == NULL when absent. */
str cli_http_header(const struct cli_http_response *res, str name);
