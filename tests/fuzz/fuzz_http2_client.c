/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what a server of HTTP/2 says. The first byte chooses how they are cut, how large the
 * question is, whether it is taken back, and whether another follows. Slices must lie inside the
 * client's memory, limits must hold, and an answer must have a head.
 */
#include "fuzz.h"

#include "wire/http2_client.h"

#include <stdlib.h>

static const struct http2_client_limits limits = {
    .head_bytes = 1000,
    .fields = 8,
    .body_bytes = 3000,
    .window_bytes = 2000,
    .memory_bytes = 1 << 18,
    .acks = 10,
    .idle_frames = 30,
};
static const struct http1_header fields[] = {
    {S_INIT(":method"), S_INIT("POST")}, {S_INIT(":scheme"), S_INIT("http")},
    {S_INIT(":path"), S_INIT("/s/m")},   {S_INIT(":authority"), S_INIT("h")},
    {S_INIT("te"), S_INIT("trailers")},
};
static const char question[100000];
static uint64_t sum;

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void touch(str s)
{
    for (size_t i = 0; i < s.n; i++)
        sum += (unsigned char)s.p[i];
}

static void look_at(const struct http2_client *c)
{
    const struct http2_answer *answer = http2_client_answer(c);

    require(answer->body.n <= limits.body_bytes);
    require(answer->state != HTTP2_ANSWER_COMPLETE ||
            (answer->status >= 200 && answer->status <= 999));
    touch(answer->body);
    for (int trailer = 0; trailer < 2; trailer++) {
        touch(http2_client_field(c, trailer, S("grpc-status")));
        touch(http2_client_field(c, trailer, S("content-type")));
    }
    require(http2_client_memory_bytes(c) < 1 << 20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(http2_client_freep) struct http2_client *c = NULL;
    AUTO(buf_done) struct buf out = {0};
    unsigned mood = size ? data[0] : 0;
    size_t step = mood & 7 ? 1 + (mood & 7u) * 11u : size;
    struct err e;
    int rc;

    if (size < 2 || size > 100000)
        return 0;
    buf_init(&out, 1 << 20);
    rc = http2_client_new(&limits, &c, &e);
    require(rc == 0);
    for (size_t at = 1; at < size; at += step) {
        if (http2_client_may_ask(c)) {
            rc = http2_client_ask(c, fields, ARRAY_LEN(fields),
                                  (str){question, mood & 8 ? sizeof(question) : 10}, &e);
            require(rc == 0 || rc == CODE_RESOURCE_EXHAUSTED);
        }
        rc = http2_client_receive(c, (str){(const char *)data + at, MIN(step, size - at)}, &e);
        require(rc == 0 || rc == CODE_INVALID_ARGUMENT || rc == CODE_RESOURCE_EXHAUSTED);
        look_at(c);
        if (mood & 16 && at % 3 == 0)
            http2_client_cancel(c);
        if (mood & 32)
            continue; /* a server that does not read */
        while (http2_client_send(c, &out))
            buf_clear(&out);
        buf_clear(&out);
        look_at(c);
        if (rc)
            break;
    }
    return 0;
}
