/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the answer of a server that may be hostile: head and body, whole and cut in two; and
 * the same bytes as a stream of server-sent events, whose events must not depend on the cut.
 */
#include "fuzz.h"

#include "base/mem.h"
#include "wire/http1_client.h"

#include <stdlib.h>

static void require(bool ok)
{
    if (!ok)
        abort();
}

struct outcome {
    enum http1_event ev;
    enum http1_refusal why;
    int status;
    size_t head_bytes, body_bytes;
    uint64_t digest;
};

static uint64_t mix(uint64_t h, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)p[i]) * 0x100000001b3;
    return h;
}

static void read_body(struct http1_response *res, char *p, size_t n, size_t cut,
                      const struct http1_limits *limits, struct outcome *o)
{
    struct http1_body b;
    size_t at = 0, end = cut < n ? cut : n;

    o->why = http1_body_begin(&b, res->framing, res->content_length, limits);
    o->ev = o->why ? HTTP1_REFUSED : HTTP1_MORE;
    while (o->ev == HTTP1_MORE || o->ev == HTTP1_DATA) {
        size_t used = 0, out = 0;

        o->ev = http1_body_decode(&b, p + at, end - at, &used, &out, &o->why);
        if (o->ev == HTTP1_REFUSED)
            break;
        require(out <= used && used <= end - at);
        o->digest = mix(o->digest, p + at, out);
        o->body_bytes += out;
        at += used;
        if (end == n && (o->ev == HTTP1_MORE || used == 0))
            break;
        end = n;
    }
    if (o->ev == HTTP1_DATA)
        o->ev = HTTP1_MORE;
    require(o->body_bytes <= limits->body_bytes);
}

static struct outcome run(const uint8_t *data, size_t size, size_t cut, bool to_head)
{
    struct http1_limits limits = HTTP1_LIMITS_DEFAULT;
    AUTO(mem_freep) char *p = mem_alloc(size);
    struct outcome o = {.why = HTTP1_OK};
    struct http1_response res;
    size_t seen = 0;

    limits.body_bytes = 500;
    limits.head_bytes = 1000;
    memcpy(p, data, size);
    o.ev = http1_response_parse(p, cut, &limits, to_head, &seen, &res, &o.why);
    if (o.ev == HTTP1_MORE)
        o.ev = http1_response_parse(p, size, &limits, to_head, &seen, &res, &o.why);
    if (o.ev != HTTP1_HEAD)
        return o;
    require(res.status >= 100 && res.status <= 999 && res.head_bytes <= size);
    require(res.fields.count <= HTTP1_HEADERS_MAX);
    o.status = res.status;
    o.head_bytes = res.head_bytes;
    read_body(&res, p + o.head_bytes, size - o.head_bytes,
              cut > o.head_bytes ? cut - o.head_bytes : 0, &limits, &o);
    return o;
}

static bool on_event(void *arg, const struct http1_sse_event *ev)
{
    uint64_t *h = arg;

    *h = mix(mix(mix(*h, ev->type.p, ev->type.n) + 1, ev->data.p, ev->data.n) + 1, ev->id.p,
             ev->id.n);
    return *h % 16 != 0;
}

static uint64_t events(const uint8_t *data, size_t size, size_t cut)
{
    AUTO(http1_sse_done) struct http1_sse s;
    str text = {(const char *)data, size};
    uint64_t h = 1;
    bool go;

    http1_sse_init(&s, 64);
    if (http1_sse_feed(&s, str_take(text, cut), on_event, &h, &go, NULL) == 0)
        (void)!http1_sse_feed(&s, str_skip(text, cut), on_event, &h, &go, NULL);
    return h;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3 || size > 20000)
        return 0;
    bool to_head = data[0] & 1;
    size_t n = size - 2, cut = (size_t)data[1] * n / 255;
    struct outcome whole = run(data + 2, n, n, to_head), pieces = run(data + 2, n, cut, to_head);

    require(whole.ev == pieces.ev || (whole.ev == HTTP1_REFUSED && pieces.ev == HTTP1_MORE));
    if (whole.ev == pieces.ev && whole.ev != HTTP1_REFUSED) {
        require(whole.status == pieces.status && whole.head_bytes == pieces.head_bytes);
        require(whole.body_bytes == pieces.body_bytes && whole.digest == pieces.digest);
    }
    require(events(data + 2, n, n) == events(data + 2, n, cut));
    return 0;
}
