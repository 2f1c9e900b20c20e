/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as compressed data: refused, or decoded within the limits, and then the same after
 * being packed again. The first byte chooses the coding and the limits. The coder is used again
 * and again, as the gateway does.
 */
#include "fuzz.h"

#include "wire/inflate.h"

#include <stdlib.h>

static void require(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct inflate_limits limits[] = {{1 << 16, 0}, {100, 0}, {4 << 20, 20}};
    AUTO(coder_freep) struct coder *c = NULL;
    AUTO(buf_done) struct buf out = {0}, packed = {0}, again = {0};
    enum coding coding;
    const struct inflate_limits *limit;
    struct err e;
    int rc;

    if (!size)
        return 0;
    c = coder_new();
    coding = (enum coding)(data[0] % CODING_COUNT);
    limit = &limits[data[0] / 16 % ARRAY_LEN(limits)];
    buf_init(&out, 8 << 20);
    buf_init(&packed, 16 << 20);
    buf_init(&again, 8 << 20);
    buf_add_str(&out, S("before"));
    rc = coder_decode(c, coding, (str){(const char *)data + 1, size - 1}, limit, &out, &e);
    require(rc == 0 || rc == CODE_INVALID_ARGUMENT || rc == CODE_RESOURCE_EXHAUSTED);
    require(str_starts(buf_str(&out), S("before")) && (rc == 0 || out.n == 6));
    require(out.n - 6 <= limit->bytes && out.cap_bytes < 4 * limit->bytes + (64 << 10));
    if (rc)
        return 0;
    for (int i = 0; i < CODING_COUNT; i++) {
        struct inflate_limits exact = {.bytes = out.n - 6};

        buf_clear(&packed);
        buf_clear(&again);
        rc = coder_encode(c, (enum coding)i, str_skip(buf_str(&out), 6), &packed, &e);
        require(rc == 0);
        rc = coder_decode(c, (enum coding)i, buf_str(&packed), &exact, &again, &e);
        require(rc == 0 && str_eq(buf_str(&again), str_skip(buf_str(&out), 6)));
    }
    return 0;
}
