/* SPDX-License-Identifier: Apache-2.0 */
/* The two readers of the load generator: specs of injections, and answers of a server. The first
 * byte chooses. */
#include "fuzz.h"

#include "load/answer.h"
#include "load/inject.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(arena_done) struct arena a = {0};
    struct load_injection in;
    struct err e;
    str text;

    if (size < 1)
        return 0;
    text = (str){(const char *)data + 1, size - 1};
    if (data[0] & 1) {
        struct load_reader reader = {.api = data[0] & 2 ? LOAD_OIP : LOAD_PREDICT,
                                     .field = S("p"),
                                     .argmax = (data[0] & 4) != 0};
        str got = load_answer_class(&reader, text);

        ASSERT(got.p || got.n == 0);
        return 0;
    }
    arena_init(&a, 0);
    if (!load_inject_parse(text, &in, &e))
        ASSERT(in.op < LOAD_OP_COUNT && in.column_count > 0 && in.share > 0 && in.share <= 1);
    if (!load_attack_parse(text, S("1"), &a, &in, &e))
        ASSERT(in.attack.n > 0);
    return 0;
}
