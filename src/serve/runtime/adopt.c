/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/runtime/adopt.h"

#include "base/files.h"
#include "base/yaml.h"
#include "serve/runtime/pack.h"
#include "serve/runtime/process.h"
#include "serve/runtime/remote.h"

#define DOCUMENT_BYTES_MAX ((size_t)1 << 20)

static NODISCARD int document_read(const char *path, struct arena *a, struct json **ret,
                                   struct err *e)
{
    str text;

    TRY(file_read_all(path, DOCUMENT_BYTES_MAX, a, &text, e));
    return yaml_parse(text, path, a, ret, e);
}

/* A copy of the document with the specs in it, canonical. */
static void document_write(const struct json *root, const struct tensor_spec *inputs,
                           uint32_t input_count, const struct tensor_spec *outputs,
                           uint32_t output_count, struct arena *a, struct buf *to)
{
    struct json *out = json_copy(a, root);

    if (inputs) {
        json_set(out, S("inputs"), tensor_specs_json(inputs, input_count, a));
        json_set(out, S("outputs"), tensor_specs_json(outputs, output_count, a));
    }
    json_write_canonical(to, out);
}

/* Packs without specs and starts it, to see what it declares. */
static NODISCARD int start_once(const char *folder, const struct json *root, const char *path,
                                const struct runtime_options *options, struct arena *a,
                                struct buf *ret_manifest, struct err *e)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    struct runtime_options with = *options;
    const char *first = arena_printf(a, "%s.first", path).p;
    int rc;

    with.must_start = true;
    document_write(root, NULL, 0, NULL, 0, a, ret_manifest);
    TRY(pack_write(folder, ADOPT_MANIFEST, buf_str(ret_manifest), first, e));
    rc = runtime_load(S("process"), first, &with, &m, e);
    if (!rc)
        rc = file_remove(first, e);
    TRY(rc);
    buf_clear(ret_manifest);
    document_write(root, m->inputs, m->input_count, m->outputs, m->output_count, a, ret_manifest);
    return 0;
}

int adopt_folder(const char *folder, const char *path, const struct runtime_options *options,
                 struct arena *a, struct json **ret_info, struct err *e)
{
    AUTO(buf_done) struct buf manifest = {0};
    const char *file = path_join(a, folder, ADOPT_MANIFEST);
    struct process_manifest m;
    struct json *root, *info;

    if (!file_exists(file))
        return FAIL(e, INVALID_ARGUMENT,
                    "the folder has no " ADOPT_MANIFEST
                    ": that file says how its program is started");
    TRY(document_read(file, a, &root, e));
    if (process_manifest_read(root, a, &m, e))
        return err_context(e, ADOPT_MANIFEST);
    buf_init(&manifest, PACK_MANIFEST_BYTES_MAX);
    TRY(start_once(folder, root, path, options, a, &manifest, e));
    if (manifest.overflowed)
        return FAIL(e, INVALID_ARGUMENT, ADOPT_MANIFEST " with inputs and outputs is too long");
    TRY(pack_write(folder, ADOPT_MANIFEST, buf_str(&manifest), path, e));
    info = json_new_object(a);
    json_set(info, S("command"), json_copy(a, json_get(root, S("command"))));
    json_set_int(a, info, S("instances"), m.instances);
    json_set_bool(a, info, S("network"), m.network == PROCESS_NETWORK_ON);
    *ret_info = info;
    return 0;
}

int adopt_remote(const char *file, const char *path, struct arena *a, struct json **ret_info,
                 struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct remote_config cfg, found;
    struct json *root, *info;

    TRY(document_read(file, a, &root, e));
    TRY(remote_config_read(root, a, &cfg, e));
    TRY(remote_describe(&cfg, a, &found, e));
    json_set_bool(a, root, S("binary"), found.binary);
    buf_init(&text, REMOTE_ARTIFACT_BYTES_MAX);
    document_write(root, found.inputs, found.input_count, found.outputs, found.output_count, a,
                   &text);
    if (text.overflowed)
        return FAIL(e, INVALID_ARGUMENT, "the description with inputs and outputs is too long");
    TRY(file_replace(path, buf_str(&text), e));
    info = json_new_object(a);
    json_set(info, S("url"), json_copy(a, json_get(root, S("url"))));
    json_set_str(a, info, S("model"), cfg.model);
    json_set_bool(a, info, S("binary"), found.binary);
    *ret_info = info;
    return 0;
}
