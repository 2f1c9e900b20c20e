/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model that gives its input back. What a request to it costs is what the server costs: parsing,
 * limits, queueing, recording, answering. The model file is JSON, {"columns": 30, "datatype":
 * "FP32"}; the datatype may be left out. The output is the input's memory, not a copy of it.
 */
#include "base/files.h"
#include "base/json.h"
#include "serve/runtime/priv.h"

#define FILE_BYTES_MAX ((size_t)64 << 10)
#define COLUMNS_MAX 65536

static int identity_load(struct runtime_model *m, const char *path, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct tensor_spec *specs = ARENA_ARRAY(&m->arena, struct tensor_spec, 2);
    enum tensor_type type = TENSOR_FP32;
    struct json *root;
    int64_t columns;
    str text, name;

    TRY(file_read_all(path, FILE_BYTES_MAX, &a, &text, e));
    if (json_parse(text, &a, &root, e))
        return err_context(e, "%s", path);
    TRY(json_need_int(root, S("columns"), &columns, e));
    if (columns < 1 || columns > COLUMNS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%s: columns is %lld, expected 1 to %d", path,
                    (long long)columns, COLUMNS_MAX);
    name = json_str_or(json_get(root, S("datatype")), S("FP32"));
    if (!tensor_type_parse(name, &type))
        return FAIL(e, INVALID_ARGUMENT, "%s: datatype '" STR_F "' is unknown", path,
                    STR_A(str_take(name, 32)));
    for (int i = 0; i < 2; i++)
        specs[i] = (struct tensor_spec){.name = i ? S("output") : S("input"),
                                        .datatype = type,
                                        .rank = 2,
                                        .shape = {TENSOR_DIM_ANY, columns}};
    m->inputs = &specs[0], m->input_count = 1;
    m->outputs = &specs[1], m->output_count = 1;
    return 0;
}

static void identity_unload(struct runtime_model *m)
{
    (void)m;
}

static int identity_slot_init(struct runtime_slot *s, struct err *e)
{
    (void)s, (void)e;
    return 0;
}

static void identity_slot_done(struct runtime_slot *s)
{
    (void)s;
}

static int identity_run(struct runtime_slot *s, struct err *e)
{
    const struct tensor_spec *spec = s->outputs[0].spec;

    (void)e;
    s->outputs[0] = s->inputs[0];
    s->outputs[0].spec = spec;
    return 0;
}

const struct runtime_engine runtime_identity = {
    .platform = "identity",
    .load = identity_load,
    .unload = identity_unload,
    .slot_init = identity_slot_init,
    .slot_done = identity_slot_done,
    .run = identity_run,
};
