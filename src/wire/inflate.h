/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content codings: gzip and deflate (zlib), of HTTP bodies and of gRPC messages, whole messages at
 * a time and within limits: a small message that would become a huge one is refused while it
 * unfolds, not after.
 *
 * A coder keeps the memory of zlib from one use to the next (about 40 KiB to read, 256 KiB to
 * write, each on first use). One thread at a time.
 */
#pragma once

#include "base/buf.h"

enum coding {
    CODING_IDENTITY,
    CODING_GZIP,    /* RFC 1952 */
    CODING_DEFLATE, /* RFC 1950: with the zlib head, as RFC 9110 says */
    CODING_COUNT
};

str coding_name(enum coding coding); /* "gzip" */
/* One name as in Content-Encoding or grpc-encoding, without case; "x-gzip" too. */
NODISCARD bool coding_parse(str name, enum coding *ret_coding);
/* What to answer with: gzip if the list takes it, else deflate, else identity. `accept` as in
 * Accept-Encoding (weights: only 0 matters) or grpc-accept-encoding; may be STR_NULL. */
enum coding coding_choose(str accept);

struct inflate_limits {
    size_t bytes;   /* of output */
    uint32_t ratio; /* of output to input, past the first MiB of output; 0: none */
};

struct coder;
struct coder *coder_new(void);
void coder_free(struct coder *c); /* accepts NULL */
DEFINE_AUTO_PTR(struct coder, coder_free)

/* Appends the decoded bytes to `out`. INVALID_ARGUMENT: `in` is no such data, ends early or goes
 * on after its end; RESOURCE_EXHAUSTED: a limit, or `out` is full. On failure `out` is as before.
 */
NODISCARD int coder_decode(struct coder *c, enum coding coding, str in,
                           const struct inflate_limits *limits, struct buf *out, struct err *e);
/* Appends the encoded bytes, at a fast level: answers are made on the hot path.
 * RESOURCE_EXHAUSTED: `out` is full. */
NODISCARD int coder_encode(struct coder *c, enum coding coding, str in, struct buf *out,
                           struct err *e);
