/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a connection that sends requests. The first byte chooses how they are cut; the rest
 * is parsed whole and in pieces, and both must give the same requests and the same end. Slices must
 * lie inside the buffer, and paths and queries must decode or be refused.
 */
#include "fuzz.h"

#include "base/mem.h"
#include "wire/http1.h"

#include <stdlib.h>

#define REQUESTS_MAX 64

static const struct http1_limits limits = {
    .head_bytes = 2048,
    .target_bytes = 300,
    .headers = 20,
    .body_bytes = 1000,
    .chunk_line_bytes = 40,
    .small_chunks = 12,
    .trailer_bytes = 100,
};

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* What was seen: a digest of each request, and how it ended. */
struct seen {
    uint64_t digest[REQUESTS_MAX];
    size_t count;
    enum http1_refusal refusal;
};

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    const unsigned char *b = p;

    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3;
    return (h ^ n) * 0x100000001b3;
}

static uint64_t mix_str(uint64_t h, str s, const char *p, size_t n)
{
    if (s.p && s.n && !(s.n == 1 && s.p[0] == '/'))
        require(s.p >= p && s.p + s.n <= p + n);
    return mix(h, s.p, s.n);
}

static void decode(const struct http1_request *req)
{
    char out[512];
    str path = req->path, segment, value;

    while (http1_path_next(&path, &segment)) {
        if (http1_segment_decode(segment, out, sizeof(out), &value, NULL) == 0) {
            require(value.n > 0 && !memchr(value.p, '/', value.n) && !memchr(value.p, 0, value.n));
            require(!str_eq(value, S("..")) && !str_eq(value, S(".")) && str_is_utf8(value));
        }
    }
    path = req->path.n ? str_skip(req->path, 1) : STR_NULL;
    if (http1_path_decode(path, out, sizeof(out), &value, NULL) == 0) {
        while (value.p) {
            segment = str_cut(&value, '/');
            require(segment.n && !str_eq(segment, S("..")) && !str_eq(segment, S(".")));
        }
    }
    if (http1_query_get(req->query, S("a"), out, sizeof(out), &value, NULL) == 0)
        require(str_is_utf8(value));
}

static void note(struct seen *s, const struct http1_request *req, const char *p, size_t n)
{
    uint64_t h = mix(1, &req->method, sizeof(req->method));

    h = mix_str(h, req->method_text, p, n);
    h = mix_str(h, req->target, p, n);
    h = mix_str(h, req->path, p, n);
    h = mix_str(h, req->query, p, n);
    h = mix_str(h, req->host, p, n);
    h = mix_str(h, req->body, p, n);
    h = mix(h, (bool[]){req->keep_alive, req->expect_continue, req->upgrade}, 3);
    h = mix(h, req->fields.known, sizeof(req->fields.known));
    for (uint32_t i = 0; i < req->fields.count; i++) {
        h = mix_str(h, req->fields.headers[i].name, p, n);
        h = mix_str(h, req->fields.headers[i].value, p, n);
    }
    require(req->body.n <= limits.body_bytes && req->head_bytes <= limits.head_bytes);
    require(req->fields.count <= limits.headers);
    decode(req);
    if (s->count < REQUESTS_MAX)
        s->digest[s->count++] = h;
}

/* Feeds `step` bytes at a time; the bytes sit at the end of a heap block. */
static void run(const uint8_t *data, size_t size, size_t step, struct seen *s)
{
    struct http1_parser ps;
    struct http1_request req;
    AUTO(mem_freep) char *p = NULL;
    size_t n = 0, fed = 0;
    bool head = false;

    *s = (struct seen){.count = 0};
    http1_parser_init(&ps, &limits);
    while (fed < size) {
        size_t take = step < size - fed ? step : size - fed;
        char *grown = mem_alloc(n + take);
        enum http1_event ev;

        if (n)
            memcpy(grown, p, n);
        memcpy(grown + n, data + fed, take);
        if (head)
            http1_request_move(&req, p, grown);
        mem_free(p);
        p = grown;
        n += take;
        fed += take;
        while (n && (ev = http1_parse(&ps, p, &n, &req)) != HTTP1_MORE) {
            if (ev == HTTP1_REFUSED) {
                require(ps.refusal > HTTP1_OK && ps.refusal < HTTP1_REFUSAL_COUNT);
                s->refusal = ps.refusal;
                return;
            }
            head = ev == HTTP1_HEAD;
            if (head)
                continue;
            require(ev == HTTP1_REQUEST && ps.consumed > 0 && ps.consumed <= n);
            note(s, &req, p, n);
            n -= ps.consumed;
            memmove(p, p + ps.consumed, n);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole, pieces;

    if (size < 2 || size > 20000)
        return 0;
    run(data + 1, size - 1, size, &whole);
    run(data + 1, size - 1, 1 + data[0] % 64, &pieces);
    require(whole.count == pieces.count);
    for (size_t i = 0; i < whole.count; i++)
        require(whole.digest[i] == pieces.digest[i]);
    /* In pieces a refusal may wait for the next line end, which may never come. */
    require(pieces.refusal == whole.refusal || pieces.refusal == HTTP1_OK);
    return 0;
}
