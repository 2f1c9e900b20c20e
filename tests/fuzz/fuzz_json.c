/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes: json_parse refuses them or gives a tree that survives writing and reading in each of
 * the three forms, with equal canonical bytes; also under a small memory cap.
 */
#include "fuzz.h"

#include "base/json.h"

#include <stdlib.h>

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void round_trip(const struct json *tree, struct arena *a,
                       void (*write)(struct buf *, const struct json *))
{
    AUTO(buf_done) struct buf text = {0}, first = {0}, second = {0};
    struct json *again;
    struct err e;

    buf_init(&text, BUF_MAX_DEFAULT);
    buf_init(&first, BUF_MAX_DEFAULT);
    buf_init(&second, BUF_MAX_DEFAULT);
    write(&text, tree);
    require(!json_parse(buf_str(&text), a, &again, &e));
    require(json_equal(tree, again));
    json_write_canonical(&first, tree);
    json_write_canonical(&second, again);
    require(str_eq(buf_str(&first), buf_str(&second)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    str text = {(const char *)data, size};
    AUTO(arena_done) struct arena a = {0}, small = {0};
    struct json *tree, *in_small;
    struct err e;
    int rc;

    arena_init(&small, 2048);
    rc = json_parse(text, &small, &in_small, &e);
    require(rc == 0 || rc == CODE_INVALID_ARGUMENT || rc == CODE_RESOURCE_EXHAUSTED);
    rc = json_parse(text, &a, &tree, &e);
    require(rc == 0 || rc == CODE_INVALID_ARGUMENT);
    if (rc) {
        require(e.msg[0] >= '1' && e.msg[0] <= '9');
        return 0;
    }
    require(json_equal(tree, json_copy(&a, tree)));
    round_trip(tree, &a, json_write);
    round_trip(tree, &a, json_write_pretty);
    round_trip(tree, &a, json_write_canonical);
    return 0;
}
