/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl, by the few functions that one exchange needs. Its types come from its header, the
 * functions by name out of the library: the gateway, and every command, links without it.
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
    CURL_FN(global_init)        \
    CURL_FN(slist_append)       \
    CURL_FN(slist_free_all)

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

/* What both methods ask for. */
static void set_common(CURL *h, const char *url, int64_t timeout_ns, struct buf *body)
{
    curl.easy_setopt(h, CURLOPT_URL, url);
    curl.easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl.easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
    curl.easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl.easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)(timeout_ns / NS_PER_MS));
    curl.easy_setopt(h, CURLOPT_USERAGENT, "weir/" WEIR_VERSION);
    curl.easy_setopt(h, CURLOPT_WRITEFUNCTION, on_bytes);
    curl.easy_setopt(h, CURLOPT_WRITEDATA, body);
}

static NODISCARD int run(CURL *h, const char *method, const char *url, const struct buf *body,
                         long *ret_status, struct err *e)
{
    CURLcode rc = curl.easy_perform(h);

    if (body->overflowed)
        return FAIL(e, UNAVAILABLE, "%s %s: the answer is larger than %zu bytes", method, url,
                    body->max_bytes);
    if (rc != CURLE_OK)
        return FAIL(e, UNAVAILABLE, "%s %s: %s", method, url, curl.easy_strerror(rc));
    curl.easy_getinfo(h, CURLINFO_RESPONSE_CODE, ret_status);
    return 0;
}

static NODISCARD int handle_new(const char *method, const char *url, CURL **ret, struct err *e)
{
    pthread_once(&once, open_once);
    if (curl.rc)
        return FAIL(e, UNAVAILABLE, "%s %s: %s", method, url, curl.e.msg);
    *ret = curl.easy_init();
    return *ret ? 0 : FAIL(e, RESOURCE_EXHAUSTED, "%s %s: libcurl gives no handle", method, url);
}

int fetch(const struct fetch_request *req, struct arena *a, str *ret_body, struct err *e)
{
    AUTO(buf_done) struct buf body = {0};
    long status = 0;
    CURL *h;
    int rc;

    TRY(handle_new("GET", req->url, &h, e));
    buf_init(&body, req->body_bytes_max);
    set_common(h, req->url, req->timeout_ns, &body);
    rc = run(h, "GET", req->url, &body, &status, e);
    curl.easy_cleanup(h);
    TRY(rc);
    if (status != 200)
        return FAIL(e, UNAVAILABLE, "GET %s: status %ld", req->url, status);
    *ret_body = arena_dup(a, buf_str(&body));
    return 0;
}

/* --- POST ------------------------------------------------------------------------------------- */

static int on_progress(void *ctx, curl_off_t down, curl_off_t down_now, curl_off_t up,
                       curl_off_t up_now)
{
    const bool *abort = ctx;

    (void)down, (void)down_now, (void)up, (void)up_now;
    return __atomic_load_n(abort, __ATOMIC_ACQUIRE);
}

static struct curl_slist *lines_of(const struct fetch_post *req, struct arena *a)
{
    str rest = str_of(req->headers);
    struct curl_slist *list = NULL;

    list = curl.slist_append(list, arena_printf(a, "Content-Type: %s", req->content_type).p);
    list = curl.slist_append(list, "Expect:"); /* no waiting for 100 Continue */
    while (rest.p && rest.n) {
        str line = str_trim(str_cut(&rest, '\n'));

        if (line.n)
            list = curl.slist_append(list, arena_dupz(a, line));
    }
    return list;
}

static void set_post(CURL *h, const struct fetch_post *req, struct curl_slist *lines)
{
    curl.easy_setopt(h, CURLOPT_POST, 1L);
    curl.easy_setopt(h, CURLOPT_POSTFIELDS, req->body.p);
    curl.easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body.n);
    curl.easy_setopt(h, CURLOPT_HTTPHEADER, lines);
    if (!req->abort)
        return;
    curl.easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
    curl.easy_setopt(h, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl.easy_setopt(h, CURLOPT_XFERINFODATA, (void *)(uintptr_t)req->abort);
}

int fetch_post(const struct fetch_post *req, struct arena *a, struct fetch_answer *ret,
               struct err *e)
{
    AUTO(buf_done) struct buf body = {0};
    struct curl_slist *lines;
    curl_off_t retry_s = 0;
    long status = 0;
    CURL *h;
    int rc;

    TRY(handle_new("POST", req->url, &h, e));
    buf_init(&body, req->answer_bytes_max);
    lines = lines_of(req, a);
    set_common(h, req->url, req->timeout_ns, &body);
    set_post(h, req, lines);
    rc = run(h, "POST", req->url, &body, &status, e);
    if (!rc)
        curl.easy_getinfo(h, CURLINFO_RETRY_AFTER, &retry_s);
    curl.easy_cleanup(h);
    curl.slist_free_all(lines);
    TRY(rc);
    *ret = (struct fetch_answer){.status = (int)status,
                                 .retry_after_ns = retry_s > 0 ? retry_s * NS_PER_S : -1,
                                 .body = arena_dup(a, buf_str(&body))};
    return 0;
}
