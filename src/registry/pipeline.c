/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pipeline is made when its version is: parameters that the project leaves open are computed from
 * the reference then, and the document, complete, is packed with the model file into the artifact.
 * So a version carries its pipeline, its hash covers both, and nothing that is changed in weir.yaml
 * later reaches a version that is there.
 */
#include "registry/pipeline.h"

#include "base/files.h"
#include "base/random.h"
#include "registry/priv.h"
#include "registry/rows.h"
#include "serve/runtime/pipeline_pack.h"

#include <math.h>

const struct json *pipeline_declared(const struct json *model)
{
    const struct json *pre = json_get(json_get(model, S("pipeline")), S("pre"));

    return json_is_container(pre) && pre->count ? pre : NULL;
}

/* --- Columns ---------------------------------------------------------------------------------- */

static void column_add(struct json *columns, str name, str type, struct arena *a)
{
    struct json *column = json_push(columns, json_new_object(a));

    json_set_str(a, column, S("name"), name);
    json_set_str(a, column, S("type"), type);
}

/* `features: auto`: every column of the table but label and time. */
static NODISCARD int columns_of_table(const struct pipeline_source *source, struct json *columns,
                                      struct arena *a, struct err *e)
{
    AUTO(table_done) struct table t = {0};
    struct table_query q = {.path = source->path,
                            .format = source->format,
                            .rows_max = source->rows_max,
                            .seed = PIPELINE_SAMPLE_SEED,
                            .tmp_dir = source->tmp_dir};

    if (!source->path)
        return FAIL(e, FAILED_PRECONDITION,
                    "a pipeline needs to know its columns: list the features of the model, or give "
                    "it a dataset");
    TRY(table_read(&q, &t, e));
    for (size_t c = 0; c < t.column_count; c++)
        if (!str_eq(t.columns[c].name, source->label) && !str_eq(t.columns[c].name, source->time))
            column_add(columns, arena_dup(a, t.columns[c].name),
                       t.columns[c].texts ? S("string") : S("double"), a);
    return 0;
}

static NODISCARD int document_begin(const struct json *model, const struct pipeline_source *source,
                                    struct arena *a, struct json **ret, struct err *e)
{
    const struct json *features = json_get(model, S("features"));
    struct json *document = json_new_object(a), *columns;

    json_set_int(a, document, S("format"), PIPELINE_FORMAT);
    columns = json_set(document, S("columns"), json_new_array(a));
    json_set(document, S("steps"), json_copy(a, pipeline_declared(model)));
    *ret = document;
    if (!json_is_container(features) || !features->count)
        return columns_of_table(source, columns, a, e);
    JSON_EACH (feature, features)
        column_add(columns, json_str_or(json_get(feature, S("name")), S("")),
                   json_str_or(json_get(feature, S("type")), S("double")), a);
    return 0;
}

int pipeline_complete(const struct json *document, const struct pipeline_source *source,
                      struct arena *a, struct json **ret, struct err *e)
{
    static const struct pipeline_options open = {.may_be_open = true};
    AUTO(table_done) struct table t = {0};
    struct pipeline_values *values;
    struct pipeline *ignored;

    TRY(pipeline_read(document, &open, a, &ignored, e));
    *ret = json_copy(a, document);
    if (!pipeline_is_open(document))
        return 0;
    if (!source->path)
        return FAIL(e, FAILED_PRECONDITION,
                    "parameters of the pipeline are to be computed from data, and there are none: "
                    "give the model a dataset, or the parameters");
    TRY(rows_read(document, source, NULL, 0, &t, e));
    TRY(rows_values(document, &t, &values, e));
    TRY(pipeline_fit(document, values, t.row_count, a, ret, e));
    *ret = json_copy(a, *ret); /* its texts may be those of the table */
    return 0;
}

int pipeline_make(const struct json *model, const struct pipeline_source *source, struct arena *a,
                  struct json **ret_document, struct err *e)
{
    struct json *document;

    ASSERT(pipeline_declared(model));
    TRY(document_begin(model, source, a, &document, e));
    return pipeline_complete(document, source, a, ret_document, e);
}

/* --- Registration ----------------------------------------------------------------------------- */

static NODISCARD int pack_put(const struct registry_env *env, const struct json *document,
                              struct arena *a, struct json *candidate, struct err *e)
{
    struct score_env child = register_score_env(env, a);
    char hash[BLOB_HASH_SIZE];
    uint64_t bytes;
    const char *made;
    struct err later;
    char *model;
    int rc;

    TRY(blobs_path(env->blobs, json_str_or(json_get(candidate, S("artifact")), S("")), a, &model,
                   e));
    TRY(file_make_dirs(child.work_dir, e));
    made =
        arena_printf(a, "%s/pipeline-%016llx", child.work_dir, (unsigned long long)random_u64()).p;
    rc = pipeline_pack_write(document, model, made, e);
    if (!rc)
        rc = blobs_put_file(env->blobs, made, hash, e);
    if (file_remove(made, rc ? &later : e) && !rc)
        return err_nonzero((int)e->code);
    TRY(rc);
    TRY(blobs_size(env->blobs, str_of(hash), &bytes, e));
    json_set_str(a, candidate, S("artifact"), arena_dup(a, str_of(hash)));
    json_set_int(a, candidate, S("size_bytes"), (int64_t)bytes);
    return 0;
}

int register_pipeline(const struct registry_env *env, const struct registry_request *req,
                      struct arena *a, struct json *candidate, struct err *e)
{
    struct score_env child = register_score_env(env, a);
    const struct json *model = register_section(req);
    struct reference ref = register_reference(env, req, a);
    const struct pipeline_source source = {.path = ref.path,
                                           .format = ref.format,
                                           .label = ref.label,
                                           .time = ref.time,
                                           .rows_max = REGISTRY_REFERENCE_ROWS_MAX,
                                           .tmp_dir = child.work_dir};
    str platform = json_str_or(json_get(candidate, S("platform")), S(""));
    struct json *document;

    if (!pipeline_declared(model) && !req->pipeline)
        return 0;
    if (str_eq(platform, S("process")) || str_eq(platform, S("remote")))
        return FAIL(e, FAILED_PRECONDITION,
                    "models." STR_F ".pipeline stands before a model in a file; a program or a "
                    "remote server does its own preprocessing",
                    STR_A(req->model));
    if (req->pipeline)
        document = json_copy(a, req->pipeline);
    else if (pipeline_make(model, &source, a, &document, e))
        return err_context(e, "models." STR_F ".pipeline", STR_A(req->model));
    json_set_str(a, document, S("platform"), platform);
    TRY(pack_put(env, document, a, candidate, e));
    json_set_str(a, candidate, S("platform"), S("pipeline"));
    json_set(candidate, S("pipeline"), document);
    return 0;
}

int register_pipeline_told(const struct registry_env *env, struct arena *a, struct json *candidate,
                           struct err *e)
{
    struct json *document;
    uint64_t at, bytes;
    char *path;

    if (!str_eq(json_str_or(json_get(candidate, S("platform")), S("")), S("pipeline")))
        return 0;
    TRY(blobs_path(env->blobs, json_str_or(json_get(candidate, S("artifact")), S("")), a, &path,
                   e));
    TRY(pipeline_pack_read(path, a, &document, &at, &bytes, e));
    json_set(candidate, S("pipeline"), document);
    return 0;
}
