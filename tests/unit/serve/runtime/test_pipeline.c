/* SPDX-License-Identifier: Apache-2.0 */
/* A model behind its pipeline, in one file: what it takes, what it gives, and files that are none.
 */
#include "base/files.h"
#include "check.h"
#include "serve/runtime/pipeline_pack.h"
#include "serve/runtime/runtime.h"

#define STEPS                                                                                      \
    "{\"format\":1,\"platform\":\"identity\",\"columns\":[{\"name\":\"x\",\"type\":\"double\"},"   \
    "{\"name\":\"t\",\"type\":\"string\"}],\"steps\":[{\"step\":\"standard\",\"columns\":[\"x\"]," \
    "\"mean\":1,\"std\":2},{\"step\":\"one_hot\",\"columns\":[\"t\"],\"categories\":[\"a\",\"b\"]" \
    "}]}"

static struct arena a;

static const char *folder(void)
{
    static char path[] = "/tmp/weir-pipeline-XXXXXX";
    static const char *made;

    if (!made)
        made = check_mkdtemp(path);
    return made;
}

static const char *file_made(const char *name, str content)
{
    const char *path = path_join(&a, folder(), name);
    struct err e;

    CHECK_OK(file_replace(path, content, &e), &e);
    return path;
}

static int pack_made(const char *document, const char *model, const char *name,
                     const char **ret_path, struct err *e)
{
    const char *inner = file_made("inner", str_of(model));
    struct json *root;

    *ret_path = path_join(&a, folder(), name);
    TRY(file_remove(*ret_path, e));
    TRY(json_parse(str_of(document), &a, &root, e));
    return pipeline_pack_write(root, inner, *ret_path, e);
}

static int load(const char *path, struct runtime_model **ret, struct err *e)
{
    const struct runtime_options options = {.work_dir = folder()};

    return runtime_load(S("pipeline"), path, &options, ret, e);
}

static void test_raw_in_prepared_through(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    const char *path;
    struct err e;

    NEED_OK(pack_made(STEPS, "{\"columns\":3}", "good", &path, &e), &e);
    NEED_OK(load(path, &m, &e), &e);
    CHECK(m->batched);
    CHECK_INT(m->input_count, 2);
    CHECK_STR(m->inputs[0].name, S("x"));
    CHECK_INT(m->inputs[0].datatype, TENSOR_FP64);
    CHECK_INT(m->inputs[1].datatype, TENSOR_BYTES);
    NEED_OK(runtime_slot_new(m, 200, 0, &s, &e), &e);
    for (int i = 0; i < 150; i++) { /* more than a block */
        ((double *)s->inputs[0].data)[i] = i;
        ((str *)s->inputs[1].data)[i] = i % 2 ? S("b") : S("a");
    }
    NEED_OK(runtime_run(s, 150, 0, &e), &e);
    for (int i = 0; i < 150; i++) {
        const float *row = (const float *)s->outputs[0].data + (size_t)i * 3;

        CHECK(row[0] == (float)((i - 1) / 2.0) && row[1] == (i % 2 == 0) && row[2] == i % 2);
    }
    CHECK(((double *)s->inputs[0].data)[7] == 7); /* raw columns stay raw, for the record */
    ((str *)s->inputs[1].data)[149] = S("c");
    CHECK_FAILS(runtime_run(s, 150, 0, &e), OUT_OF_RANGE, &e, "row 149: column 't' is 'c'");
    CHECK_OK(runtime_run(s, 149, 0, &e), &e);
}

static void refused(const char *document, const char *model, const char *part)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    const char *path;
    struct err e;

    NEED_OK(pack_made(document, model, "bad", &path, &e), &e);
    CHECK_FAILS(load(path, &m, &e), INVALID_ARGUMENT, &e, part);
}

static void test_does_not_fit(void)
{
    refused(STEPS, "{\"columns\":4}",
            "the pipeline leaves 3 columns (x, t_a, t_b), the model takes 4");
    refused("{\"format\":1,\"platform\":\"pipeline\",\"columns\":[{\"name\":\"x\"}],\"steps\":[]}",
            "{}", "not before another one");
    refused("{\"format\":1,\"platform\":\"identity\",\"columns\":[{\"name\":\"x\",\"type\":"
            "\"string\"}],"
            "\"steps\":[]}",
            "{\"columns\":1}", "is text, the model's input 'input' takes FP32: encode it");
    refused("{\"format\":1,\"platform\":\"identity\",\"columns\":[{\"name\":\"x\"}],\"steps\":[{"
            "\"step\":"
            "\"standard\",\"columns\":[\"x\"]}]}",
            "{\"columns\":1}", "mean is open");
    refused("{\"format\":2}", "{}", "the format is not 1");
}

/* Cut anywhere, or with a bit turned in a header, it is refused and never read past its end. */
static void test_damaged(void)
{
    const char *path, *bad;
    struct err e;
    str bytes;

    NEED_OK(pack_made(STEPS, "{\"columns\":3}", "whole", &path, &e), &e);
    NEED_OK(file_read_all(path, 1 << 20, &a, &bytes, &e), &e);
    for (size_t n = 0; n + 1024 + 512 < bytes.n; n += 97) {
        AUTO(runtime_unloadp) struct runtime_model *m = NULL;

        bad = file_made("cut", str_take(bytes, n));
        CHECK(load(bad, &m, &e) != 0);
    }
    for (size_t at = 0; at < 512; at += 29) { /* passes by the blank behind the sum */
        AUTO(runtime_unloadp) struct runtime_model *m = NULL;
        char *copy = arena_dupz(&a, bytes);

        copy[at] = (char)(copy[at] ^ 0x11);
        bad = file_made("turned", (str){copy, bytes.n});
        CHECK(load(bad, &m, &e) != 0);
    }
}

RUN_TESTS(T(test_raw_in_prepared_through), T(test_does_not_fit), T(test_damaged))
