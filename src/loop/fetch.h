/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One GET or POST over http or https, blocking: for worker threads. Certificates are verified
 * against those of the system; redirects are not followed, since only the address that the project
 * names was vouched for. Proxies are those of the usual environment variables.
 *
 * libcurl is opened at the first call, so that nobody else maps it or waits for it.
 */
#pragma once

#include "base/arena.h"

struct fetch_request {
    const char *url; /* http:// or https:// */
    int64_t timeout_ns;
    size_t body_bytes_max;
};

/* The body of an answer with status 200. UNAVAILABLE: not reached, another status, a certificate
 * that does not fit, too large, no libcurl; messages name the URL. */
NODISCARD int fetch(const struct fetch_request *req, struct arena *a, str *ret_body, struct err *e);

struct fetch_post {
    const char *url; /* http:// or https:// */
    const char *content_type;
    const char *headers; /* complete lines, each with its CRLF; or "" */
    str body;
    int64_t timeout_ns;
    size_t answer_bytes_max;
    const bool *abort; /* atomic; set by another thread, the call ends within a second. Or NULL */
};

struct fetch_answer {
    int status;
    int64_t retry_after_ns; /* what Retry-After asks for, in seconds or by date; -1: nothing */
    str body;
};

/* An answer of any status is a success. UNAVAILABLE: not reached, a certificate that does not fit,
 * too large, aborted, no libcurl. */
NODISCARD int fetch_post(const struct fetch_post *req, struct arena *a, struct fetch_answer *ret,
                         struct err *e);
