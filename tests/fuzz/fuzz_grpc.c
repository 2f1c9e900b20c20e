/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a body of gRPC messages, taken whole and byte by byte, which must give the same; and
 * as a timeout, an encoding list and a status text. Messages are also stepped through as protobuf.
 */
#include "fuzz.h"

#include "wire/grpc.h"
#include "wire/pb.h"

#include <stdlib.h>

#define MESSAGE_MAX 5000

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* Field by field, and each field that holds bytes as a message again. */
static size_t walk(str message, int depth)
{
    struct pb r;
    struct pb_field f;
    size_t n = 0;

    pb_begin(&r, message);
    while (pb_next(&r, &f)) {
        require(f.number > 0 && f.number < 1u << 29);
        n++;
        if (f.wire != PB_BYTES)
            continue;
        require(f.bytes.p >= message.p && f.bytes.p + f.bytes.n <= message.p + message.n);
        if (depth)
            n += walk(f.bytes, depth - 1);
    }
    require(r.wrong || r.p == r.end);
    return n;
}

/* The end of the last whole message; `step` bytes more are shown at a time. */
static size_t messages(str body, size_t step, size_t *ret_count)
{
    size_t at = 0, seen = MIN(step, body.n), used;
    struct grpc_message m;
    struct err e;

    *ret_count = 0;
    for (;;) {
        enum grpc_step got =
            grpc_message_next((str){body.p + at, seen - at}, MESSAGE_MAX, &m, &used, &e);

        if (got == GRPC_BROKEN) {
            require(e.code == CODE_INTERNAL || e.code == CODE_RESOURCE_EXHAUSTED);
            return at;
        }
        if (got == GRPC_MESSAGE) {
            require(m.bytes.n <= MESSAGE_MAX && used == m.bytes.n + GRPC_PREFIX_BYTES);
            at += used;
            ++*ret_count;
            walk(m.bytes, 4);
        } else if (seen == body.n) {
            return at;
        } else {
            seen = MIN(seen + step, body.n);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    str body = {(const char *)data, size};
    char text[GRPC_TEXT_BYTES];
    struct http1_header fields[GRPC_TRAILERS_MAX];
    size_t whole, pieces, whole_count, pieces_count;
    int64_t ns;
    struct err e;

    if (size > 20000)
        return 0;
    whole = messages(body, size, &whole_count);
    pieces = messages(body, 1 + size / 50, &pieces_count);
    require(whole == pieces && whole_count == pieces_count);
    walk(body, 8);
    if (grpc_timeout_parse(body, &ns))
        require(ns > 0);
    require(coding_choose(body) < CODING_COUNT);
    require(err_fill(&e, CODE_INTERNAL, "", STR_F, STR_A(str_take(body, 600))) != 0);
    require(grpc_trailers(&e, text, fields) == 2);
    for (size_t i = 0; i < fields[1].value.n; i++)
        require(fields[1].value.p[i] >= 0x20 && fields[1].value.p[i] <= 0x7e);
    return 0;
}
