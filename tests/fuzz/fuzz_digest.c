/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a digest, with the checksum put right: refused, or a digest that survives encoding,
 * merging with itself and printing. The memory it may cost is bounded by the arena.
 */
#include "fuzz.h"

#include "base/hash.h"
#include "base/mem.h"
#include "record/digest.h"

#include <stdlib.h>

#define ARENA_MAX ((size_t)8 << 20)

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void use(const struct digest *d)
{
    AUTO(arena_done) struct arena again, sum;
    AUTO(buf_done) struct buf bytes, twice, text;
    struct digest back, merged;

    arena_init(&again, 0);
    arena_init(&sum, 0);
    buf_init(&bytes, DIGEST_BYTES_MAX);
    buf_init(&twice, DIGEST_BYTES_MAX);
    buf_init(&text, BUF_MAX_DEFAULT);
    digest_encode(d, &bytes);
    require(digest_decode(buf_str(&bytes), &again, &back, NULL) == 0);
    digest_encode(&back, &twice);
    require(str_eq(buf_str(&bytes), buf_str(&twice)));
    digest_init(&merged, &sum);
    if (digest_merge(&merged, d, NULL) == 0)
        digest_write_json(&merged, true, &text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(arena_done) struct arena a;
    AUTO(mem_freep) char *copy = mem_alloc(size + 1);
    struct digest d;
    uint32_t crc;

    arena_init(&a, ARENA_MAX);
    memcpy(copy, data, size);
    if (size >= 8) {
        memcpy(copy, "WDG2", 4);
        crc = crc32c(0, copy + 8, size - 8);
        memcpy(copy + 4, &crc, sizeof crc);
    }
    if (digest_decode((str){copy, size}, &a, &d, NULL) == 0)
        use(&d);
    return 0;
}
