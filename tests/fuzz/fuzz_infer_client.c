/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the answer of a remote server: in JSON, cut into JSON and raw bytes at the first NUL
 * (there is none: JSON alone), in protobuf, as its metadata and its words; and as the description
 * of a remote model.
 */
#include "fuzz.h"

#include "base/arena.h"
#include "serve/runtime/remote.h"
#include "wire/grpc.h"
#include "wire/infer_client.h"
#include "wire/infer_pb_client.h"

#include <stdlib.h>

static struct tensor_spec specs[] = {
    {.name = S_INIT("y"), .datatype = TENSOR_FP32, .rank = 2, .shape = {-1, 2}},
    {.name = S_INIT("t"), .datatype = TENSOR_BYTES, .rank = 1, .shape = {-1}},
    {.name = S_INIT("b"), .datatype = TENSOR_BOOL, .rank = 0},
};
static uint64_t sum;

static void look_at(const struct tensor *t)
{
    if (!tensor_shape_fits(t->spec, t->shape, t->rank))
        abort();
    if (t->spec->datatype != TENSOR_BYTES)
        for (size_t i = 0; i < t->bytes; i++)
            sum += ((const unsigned char *)t->data)[i];
    else
        for (size_t i = 0; i < t->count; i++)
            for (size_t k = 0; k < ((const str *)t->data)[i].n; k++)
                sum += (unsigned char)((const str *)t->data)[i].p[k];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(arena_done) struct arena a = {0};
    str text = {(const char *)data, size}, json = text, raw = STR_NULL;
    ptrdiff_t nul = str_find_char(text, '\0');
    struct remote_config cfg;
    struct json *root, *inputs;
    char words[32];
    struct err e;

    arena_init(&a, 8 << 20);
    if (nul >= 0) {
        json = str_take(text, (size_t)nul);
        raw = str_skip(text, (size_t)nul + 1);
    }
    for (uint32_t n = 1; n <= 3; n++) {
        struct tensor outputs[3] = {{.spec = &specs[0]}, {.spec = &specs[1]}, {.spec = &specs[2]}};

        if (!infer_answer_read(json, raw, outputs, n, &a, &e))
            for (uint32_t i = 0; i < n; i++)
                look_at(&outputs[i]);
        if (!infer_pb_answer_read(text, outputs, n, &a, &e))
            for (uint32_t i = 0; i < n; i++)
                look_at(&outputs[i]);
    }
    if (!infer_pb_metadata_read(text, &a, &inputs, &root, &e) && (!inputs || !root))
        abort();
    grpc_text_decode(text, words, sizeof(words));
    if (strlen(words) >= sizeof(words))
        abort();
    infer_answer_error(json, words, sizeof(words));
    arena_reset(&a);
    if (!json_parse(text, &a, &root, &e) && !remote_config_read(root, &a, &cfg, &e) && !cfg.host.n)
        abort();
    return 0;
}
