/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl, by the few functions that a GET needs. Its types come from its header, the functions by
 * name out of the library: the gateway, and every command, links without it.
 */
#include "loop/fetch.h"

#include "base/buf.h"
#include "base/library.h"
#include "base/time.h"

#include <curl/curl.h>
#include <pthread.h>

#define LIBRARY "libcurl.so.4"

/* CURL(name): the functions that are used. */
#define CURL_FUNCTIONS(CURL_FN) \
    CURL_FN(easy_init)          \
    CURL_FN(easy_setopt)        \
    CURL_FN(easy_perform)       \
    CURL_FN(easy_getinfo)       \
    CURL_FN(easy_cleanup)       \
    CURL_FN(easy_strerror)      \
    CURL_FN(global_init)

/* The header wraps these in macros that check the types of literal options. */
#undef curl_easy_setopt
#undef curl_easy_getinfo

static struct {
    int rc; /* of opening it */
    struct err e;
#define CURL_FN(name) __typeof__(curl_##name) *name;
    CURL_FUNCTIONS(CURL_FN)
#undef CURL_FN
} curl;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static NODISCARD int open_library(struct err *e)
{
    static const char *const names[] = {LIBRARY, NULL};
    void *library;

    TRY(library_open("libcurl", names, &library, e));
#define CURL_FN(name)                                              \
    *(void **)&curl.name = library_symbol(library, "curl_" #name); \
    if (!curl.name)                                                \
        return FAIL(e, UNAVAILABLE, LIBRARY " has no curl_" #name);
    CURL_FUNCTIONS(CURL_FN)
#undef CURL_FN
    if (curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return FAIL(e, INTERNAL, LIBRARY " cannot be initialised");
    return 0;
}

static void open_once(void)
{
    curl.rc = open_library(&curl.e);
}

/* A short count makes libcurl end the transfer. */
static size_t on_bytes(char *p, size_t size, size_t n, void *ctx)
{
    struct buf *body = ctx;

    buf_add(body, p, size * n);
    return body->overflowed ? 0 : size * n;
}

static NODISCARD int perform(CURL *h, const struct fetch_request *req, struct buf *body,
                             struct err *e)
{
    long status = 0;
    CURLcode rc;

    curl.easy_setopt(h, CURLOPT_URL, req->url);
    curl.easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl.easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
    curl.easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl.easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)(req->timeout_ns / NS_PER_MS));
    curl.easy_setopt(h, CURLOPT_USERAGENT, "weir/" WEIR_VERSION);
    curl.easy_setopt(h, CURLOPT_WRITEFUNCTION, on_bytes);
    curl.easy_setopt(h, CURLOPT_WRITEDATA, body);
    rc = curl.easy_perform(h);
    if (body->overflowed)
        return FAIL(e, UNAVAILABLE, "GET %s: the answer is larger than %zu bytes", req->url,
                    req->body_bytes_max);
    if (rc != CURLE_OK)
        return FAIL(e, UNAVAILABLE, "GET %s: %s", req->url, curl.easy_strerror(rc));
    curl.easy_getinfo(h, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200)
        return FAIL(e, UNAVAILABLE, "GET %s: status %ld", req->url, status);
    return 0;
}

int fetch(const struct fetch_request *req, struct arena *a, str *ret_body, struct err *e)
{
    AUTO(buf_done) struct buf body = {0};
    CURL *h;
    int rc;

    pthread_once(&once, open_once);
    if (curl.rc)
        return FAIL(e, UNAVAILABLE, "GET %s: %s", req->url, curl.e.msg);
    h = curl.easy_init();
    if (!h)
        return FAIL(e, RESOURCE_EXHAUSTED, "GET %s: libcurl gives no handle", req->url);
    buf_init(&body, req->body_bytes_max);
    rc = perform(h, req, &body, e);
    curl.easy_cleanup(h);
    TRY(rc);
    *ret_body = arena_dup(a, buf_str(&body));
    return 0;
}
