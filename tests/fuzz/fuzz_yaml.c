/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes: yaml_parse refuses them or gives a tree that can be written as JSON and read back
 * equal. Every node has a place in the text.
 */
#include "fuzz.h"

#include "base/yaml.h"

#include <stdlib.h>

/* libfyaml 0.7.12 loses 2 KiB when a quoted scalar with many quotes in it has no end. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libfyaml.so";
}

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void require_places(const struct json *node)
{
    require(node->line >= 1 && node->col >= 1);
    if (!json_is_container(node))
        return;
    JSON_EACH (child, node) {
        require(node->type == JSON_ARRAY || (child->key_line >= 1 && child->key_col >= 1));
        require_places(child);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(arena_done) struct arena a = {0}, b = {0};
    AUTO(buf_done) struct buf text = {0};
    struct json *tree, *again;
    struct err e;

    arena_init(&a, (size_t)4 << 20);
    buf_init(&text, BUF_MAX_DEFAULT);
    if (yaml_parse((str){(const char *)data, size}, "in.yaml", &a, &tree, &e)) {
        require(e.code == CODE_INVALID_ARGUMENT || e.code == CODE_RESOURCE_EXHAUSTED);
        require(str_starts(str_of(e.msg), S("in.yaml:")));
        return 0;
    }
    require_places(tree);
    json_write(&text, tree);
    require(!json_parse(buf_str(&text), &b, &again, &e));
    require(json_equal(tree, again));
    return 0;
}
