/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One GET over http or https, blocking: for worker threads of control. Certificates are verified
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
