/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registering what lives elsewhere: a folder with a program (platform "process"), or the
 * description of a remote server ("remote"). Both become one artifact, made in a child; from there
 * on the steps are those of any model, for the probe opens the artifact like any other.
 */
#include "registry/priv.h"

#include "base/files.h"
#include "base/random.h"
#include "base/yaml.h"

#include <sys/stat.h>

#define REMOTE_BYTES_MAX ((size_t)64 << 10)

/* A small text that says of itself what it is. */
static bool is_remote(const char *path, const struct stat *st)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *root;
    struct err e;
    str text;

    arena_init(&a, 16 << 20);
    return S_ISREG(st->st_mode) && st->st_size <= (off_t)REMOTE_BYTES_MAX &&
           !file_read_all(path, REMOTE_BYTES_MAX, &a, &text, &e) && str_is_utf8(text) &&
           str_find(text, S("remote")) >= 0 && !yaml_parse(text, path, &a, &root, &e) &&
           str_eq(json_str_or(json_get(root, S("kind")), STR_NULL), S("remote"));
}

bool adopt_is(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && (S_ISDIR(st.st_mode) || is_remote(path, &st));
}

int adopt_copy(const struct registry_env *env, const struct registry_request *req, struct arena *a,
               struct json *candidate, struct err *e)
{
    struct score_env child = register_score_env(env, a);
    char artifact[BLOB_HASH_SIZE];
    struct json *info;
    uint64_t bytes;
    struct stat st;
    const char *made;
    str platform;
    int rc;

    if (stat(req->path, &st))
        return FAIL_ERRNO(e, "model %s", req->path);
    platform = S_ISDIR(st.st_mode) ? S("process") : S("remote");
    made =
        arena_printf(a, "%s/adopted-%016llx", child.work_dir, (unsigned long long)random_u64()).p;
    TRY(score_adopt(&child, !S_ISDIR(st.st_mode), req->path, made, a, &info, e));
    rc = blobs_put_file(env->blobs, made, artifact, e);
    if (!rc)
        rc = file_remove(made, e);
    TRY(rc);
    TRY(blobs_size(env->blobs, str_of(artifact), &bytes, e));
    json_set(candidate, S("convert"), info);
    json_set_str(a, candidate, S("source"), arena_dup(a, str_of(artifact)));
    json_set_str(a, candidate, S("artifact"), arena_dup(a, str_of(artifact)));
    json_set_str(a, candidate, S("format"), platform);
    json_set_str(a, candidate, S("platform"), platform);
    json_set_int(a, candidate, S("size_bytes"), (int64_t)bytes);
    return 0;
}
