/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a connection of HTTP/2, behind the preface. The first byte chooses how they are cut
 * and what the owner does with its streams: it answers at once, in pieces, late, or not at all.
 * Slices must lie inside the stream's memory, sums must come out even, and a session's memory must
 * stay within its limits.
 */
#include "fuzz.h"

#include "base/mem.h"
#include "wire/http2.h"

#include <stdlib.h>

#define HELD_MAX 8

static const struct http2_limits limits = {
    .request = {.head_bytes = 1000,
                .target_bytes = 200,
                .headers = 12,
                .body_bytes = 3000,
                .trailer_bytes = 100},
    .streams = HELD_MAX,
    .bodies_bytes = 5000,
    .answers_bytes = 1000,
    .window_bytes = 1000,
    .window_max_bytes = 4000,
    .memory_bytes = 1 << 18,
    .send_bytes = 4096,
    .acks = 10,
    .continuations = 4,
    .resets = 20,
    .idle_frames = 30,
};

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* Reads every byte of a request, so that a sanitizer sees a stray slice. */
static uint64_t touch(const struct http1_request *req)
{
    uint64_t sum = 0;
    const str all[] = {req->method_text, req->target, req->path, req->query, req->host, req->body};

    require(req->fields.count <= limits.request.headers);
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (size_t at = 0; at < all[i].n; at++)
            sum += (unsigned char)all[i].p[at];
    for (uint32_t i = 0; i < req->fields.count; i++) {
        const struct http1_header *h = &req->fields.headers[i];

        for (size_t at = 0; at < h->name.n; at++)
            require(h->name.p[at] < 'A' || h->name.p[at] > 'Z');
        for (size_t at = 0; at < h->value.n; at++)
            require(!strchr("\r\n", h->value.p[at]) && h->value.p[at]);
    }
    return sum;
}

static struct http2_stream *held[HELD_MAX];

static void release(struct http2_stream *st)
{
    held[(uintptr_t)st->owner - 1] = NULL;
    http2_stream_release(st);
}

static void hold(struct http2_stream *st)
{
    for (size_t i = 0; i < HELD_MAX && !st->owner; i++)
        if (!held[i]) {
            held[i] = st;
            st->owner = (void *)(i + 1);
        }
    require(st->owner != NULL); /* no more than `streams` at once */
}

static void serve(struct http2_stream *st, enum http2_event ev, unsigned mood)
{
    static const struct http1_header fields[] = {{S_INIT("content-type"), S_INIT("text/plain")}};

    hold(st);
    if (ev == HTTP2_REFUSED) {
        require(st->refusal > HTTP1_OK && st->refusal < HTTP1_REFUSAL_COUNT);
        http2_respond_refusal(st);
        release(st);
        return;
    }
    if (ev == HTTP2_CLOSED) {
        require(st->closed);
        http2_respond(st, 200, NULL, 0, S("nobody"));
        release(st);
        return;
    }
    require(st->req.body.n <= limits.request.body_bytes);
    if (!st->refusal)
        require(touch(&st->req) != UINT64_MAX && st->req.path.n > 0);
    switch ((mood + (unsigned)st->id / 2) % 5) {
    case 0: /* whole */
        if (ev != HTTP2_REQUEST)
            return;
        http2_respond(st, 200, fields, 1, st->req.body);
        release(st);
        return;
    case 1: /* by pieces */
        if (ev == HTTP2_HEAD)
            http2_stream_by_pieces(st);
        http2_respond_head(st, 200, fields, 1);
        http2_stream_write(st, st->req.body);
        http2_stream_consume(st, st->req.body.n - st->req.body.n / 2);
        if (ev != HTTP2_REQUEST)
            return;
        http2_stream_finish(st, fields, 1);
        release(st);
        return;
    case 2: /* early */
        http2_respond_only(st, 401, NULL, 0);
        release(st);
        return;
    case 3: /* not at all */
        if (ev == HTTP2_REQUEST)
            release(st);
        return;
    default: /* kept until the peer goes */
        return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const str start = S_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    AUTO(http2_session_freep) struct http2_session *s = NULL;
    AUTO(buf_done) struct buf out = {0};
    struct http2_stream *st;
    size_t step;
    struct err e;
    int rc;

    if (size < 2 || size > 100000)
        return 0;
    memset(held, 0, sizeof(held));
    buf_init(&out, 1 << 20);
    step = data[0] & 0x0f ? 1 + (data[0] & 0x0fu) * 7u : size;
    rc = http2_session_new(&limits, &s, &e);
    require(rc == 0);
    rc = http2_receive(s, start, &e);
    require(rc == 0);
    for (size_t at = 1; at < size && rc == 0; at += step) {
        enum http2_event ev;

        rc = http2_receive(s, (str){(const char *)data + at, MIN(step, size - at)}, &e);
        require(rc == 0 || rc == CODE_INVALID_ARGUMENT || rc == CODE_RESOURCE_EXHAUSTED);
        while ((ev = http2_next(s, &st)))
            serve(st, ev, data[0] >> 4);
        if (data[0] & 0x10)
            continue; /* a peer that does not read */
        while (http2_send(s, &out))
            buf_clear(&out);
        buf_clear(&out);
        require(http2_memory_bytes(s) < 1 << 20);
        if (at % 5 == 0)
            http2_tick(s);
    }
    http2_goaway(s, (data[0] & 0x20) != 0);
    while (http2_send(s, &out))
        buf_clear(&out);
    for (size_t i = 0; i < HELD_MAX; i++)
        if (held[i])
            release(held[i]);
    while (http2_send(s, &out))
        buf_clear(&out);
    while (http2_next(s, &st)) /* streams nobody took */
        http2_stream_release(st);
    require(http2_open_streams(s) <= HELD_MAX);
    return 0;
}
