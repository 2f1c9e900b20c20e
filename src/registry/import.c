/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registering from a bundle: the steps of register.c, where the signature, the profile and the
 * golden row are not made but taken over. The profile is what the monitors of the other registry
 * watched by; made anew from other data it would be another one.
 *
 * Nothing is believed for being in a bundle: every part has the hash of the manifest, the signature
 * fits the file (opened in a child like any other) and the project, the profile is read as the
 * monitors would, and the model gives the golden answer.
 */
#include "registry/bundle.h"
#include "registry/priv.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/random.h"
#include "stats/cells.h"
#include "stats/edetector.h"

/* Of the other version's metadata: what the steps would have found out. */
static const str found_keys[] = {S_INIT("format"),   S_INIT("convert"),         S_INIT("rows"),
                                 S_INIT("note"),     S_INIT("load_ms"),         S_INIT("rss_bytes"),
                                 S_INIT("imported"), S_INIT("size_bytes"),      S_INIT("model_id"),
                                 S_INIT("actor"),    S_INIT("reference_labels")};

bool import_is(const struct json *candidate)
{
    return json_get(candidate, S("imported")) != NULL;
}

/* --- Copy ------------------------------------------------------------------------------------- */

static const struct json *part_said(const struct bundle *b, enum bundle_part part)
{
    return json_get(json_get(json_get(b->manifest, S("parts")), str_of(bundle_part_name(part))),
                    S("sha256"));
}

/* Through a file of its own name, so that the blob is made of what was verified. */
static NODISCARD int copy_part(const struct registry_env *env, const struct bundle *b,
                               enum bundle_part part, struct arena *a, str *ret_hash, struct err *e)
{
    char hash[BLOB_HASH_SIZE];
    const char *made;
    struct err later;
    char *dir;
    int rc;

    dir = path_join(a, env->state_dir, "work");
    TRY(file_make_dirs(dir, e));
    made = arena_printf(a, "%s/import-%s-%016llx", dir, bundle_part_name(part),
                        (unsigned long long)random_u64())
               .p;
    rc = bundle_extract(b, part, made, e);
    if (!rc)
        rc = blobs_put_file(env->blobs, made, hash, e);
    if (file_remove(made, rc ? &later : e) && !rc)
        return err_nonzero((int)e->code);
    TRY(rc);
    if (!str_eqz(json_str_or(part_said(b, part), S("")), hash))
        return FAIL(e, INVALID_ARGUMENT, "refused: part %s changed while it was read",
                    bundle_part_name(part));
    *ret_hash = arena_dup(a, str_of(hash));
    return 0;
}

/* As the monitors and the gateway read it. */
static NODISCARD int profile_check(const struct json *profile, struct err *e)
{
    AUTO(mem_freep) struct edetector_bank *bank = mem_zalloc(sizeof(*bank));
    AUTO(mem_freep) struct cells_spec *spec = mem_zalloc(sizeof(*spec));
    struct json *columns;
    str kind, name;

    TRY(json_need_str(profile, S("kind"), &kind, e));
    if (!str_eq(kind, S("profile")) || json_int_or(json_get(profile, S("format")), 0) != 1)
        return FAIL(e, INVALID_ARGUMENT, "it is no profile of format 1");
    TRY(json_need_array(profile, S("columns"), &columns, e));
    JSON_EACH (column, columns) {
        const struct json *cells = json_get(column, S("cells"));
        const struct json *detector = json_get(column, S("detector"));

        TRY(json_need_str(column, S("name"), &name, e));
        if (cells && cells->type != JSON_NULL)
            TRY(cells_spec_from_json(cells, spec, e));
        if (detector && detector->type != JSON_NULL)
            TRY(edetector_bank_from_json(detector, bank, e));
    }
    return 0;
}

static NODISCARD int copy_profile(const struct registry_env *env, const struct bundle *b,
                                  struct arena *a, struct json *candidate, struct err *e)
{
    char hash[BLOB_HASH_SIZE];
    struct json *profile;
    str text;

    if (!b->parts[BUNDLE_PROFILE].there)
        return 0;
    TRY(bundle_read(b, BUNDLE_PROFILE, a, &text, e));
    if (json_parse(text, a, &profile, e) || profile_check(profile, e))
        return err_context(e, "refused: profile.json");
    TRY(blobs_put(env->blobs, text, hash, e));
    json_set_str(a, candidate, S("profile"), arena_dup(a, str_of(hash)));
    return 0;
}

static NODISCARD int copy_golden(const struct bundle *b, struct arena *a, struct json *candidate,
                                 struct err *e)
{
    struct json *golden, *row;
    double tolerance;
    str text;

    if (!b->parts[BUNDLE_GOLDEN].there)
        return 0;
    TRY(bundle_read(b, BUNDLE_GOLDEN, a, &text, e));
    if (json_parse(text, a, &golden, e) || json_need_object(golden, S("input"), &row, e) ||
        json_need_object(golden, S("output"), &row, e) ||
        json_need_real(golden, S("tolerance"), &tolerance, e))
        return err_context(e, "refused: golden.json");
    json_set(candidate, S("golden"), golden);
    return 0;
}

static void copy_meta(const struct bundle *b, struct arena *a, struct json *candidate)
{
    const struct json *meta = json_get(b->manifest, S("meta"));
    struct json *rest = json_set(candidate, S("imported_meta"), json_new_object(a)), *from;

    if (meta && meta->type == JSON_OBJECT)
        JSON_EACH (v, meta) {
            bool found = false;

            for (size_t i = 0; i < ARRAY_LEN(found_keys); i++)
                found = found || str_eq(found_keys[i], v->key);
            if (!found)
                json_set(rest, v->key, json_copy(a, v));
        }
    for (size_t i = 1; i < 4; i++) /* convert, rows, note */
        if (json_get(meta, found_keys[i]))
            json_set(candidate, found_keys[i], json_copy(a, json_get(meta, found_keys[i])));
    if (json_get(meta, S("reference_labels")))
        json_set(candidate, S("reference_labels"),
                 json_copy(a, json_get(meta, S("reference_labels"))));
    from = json_set(candidate, S("imported"), json_new_object(a));
    json_set_str(a, from, S("bundle"), arena_dup(a, str_of(b->id)));
    for (const char *const *key = (const char *const[]){"model", "version", "created", NULL}; *key;
         key++)
        if (json_get(b->manifest, str_of(*key)))
            json_set(from, str_of(*key), json_copy(a, json_get(b->manifest, str_of(*key))));
}

int import_copy(const struct registry_env *env, const struct registry_request *req, struct arena *a,
                struct json *candidate, struct err *e)
{
    AUTO(bundle_done) struct bundle b = {.fd = -1};
    str artifact, source, platform, format;

    TRY(bundle_open(req->path, a, &b, e));
    platform = json_str_or(json_get(b.manifest, S("platform")), S(""));
    if (!str_eq(platform, S("onnxruntime_onnx")) && !str_eq(platform, S("weir_trees")) &&
        !str_eq(platform, S("pipeline")))
        return FAIL(e, INVALID_ARGUMENT,
                    "refused: the platform of the bundle is '" STR_F "'; onnxruntime_onnx, "
                    "weir_trees and pipeline are known here",
                    STR_A(str_take(platform, 64)));
    TRY(copy_part(env, &b, BUNDLE_MODEL, a, &artifact, e));
    source = artifact;
    if (b.parts[BUNDLE_SOURCE].there)
        TRY(copy_part(env, &b, BUNDLE_SOURCE, a, &source, e));
    copy_meta(&b, a, candidate);
    TRY(copy_profile(env, &b, a, candidate, e));
    TRY(copy_golden(&b, a, candidate, e));
    json_set(candidate, S("signature"), json_get(b.manifest, S("signature")));
    json_set_str(a, candidate, S("source"), source);
    json_set_str(a, candidate, S("artifact"), artifact);
    format = json_str_or(json_path(b.manifest, "meta.convert.format"),
                         b.parts[BUNDLE_SOURCE].there ? S("xgboost") : S("onnx"));
    json_set_str(a, candidate, S("format"), arena_dup(a, format));
    json_set_str(a, candidate, S("platform"), arena_dup(a, platform));
    json_set_int(a, candidate, S("size_bytes"), (int64_t)b.parts[BUNDLE_MODEL].bytes);
    return 0;
}

/* --- Probe ------------------------------------------------------------------------------------ */

static NODISCARD int tensors_agree(const struct json *said, const struct json *found,
                                   const char *what, bool shapes, struct err *e)
{
    size_t i = 0;

    if (!json_is_container(said) || said->count != found->count)
        return FAIL(e, INVALID_ARGUMENT, "refused: the signature has %zu %s, the model %zu",
                    json_is_container(said) ? said->count : 0, what, found->count);
    JSON_EACH (own, found) {
        const struct json *item = json_at(said, i++);

        if (!json_equal(json_get(item, S("name")), json_get(own, S("name"))) ||
            !json_equal(json_get(item, S("datatype")), json_get(own, S("datatype"))) ||
            (shapes && !json_equal(json_get(item, S("shape")), json_get(own, S("shape")))))
            return FAIL(e, INVALID_ARGUMENT,
                        "refused: '" STR_F "' of the model's %s is another one in the signature",
                        STR_A(json_str_or(json_get(own, S("name")), S("?"))), what);
    }
    return 0;
}

static NODISCARD int features_agree(const struct json *section, const struct plan_signature *sig,
                                    struct err *e)
{
    const struct json *features = json_get(section, S("features"));
    uint32_t i = 0;

    if (!features || features->type != JSON_ARRAY || !features->count)
        return 0;
    if (features->count != sig->column_count)
        return FAIL(e, FAILED_PRECONDITION,
                    "the project lists %zu features for this model, the bundle has %u",
                    features->count, sig->column_count);
    JSON_EACH (feature, features) {
        str name = json_str_or(json_get(feature, S("name")), S(""));

        if (!str_eq(name, sig->columns[i].name))
            return FAIL(e, FAILED_PRECONDITION,
                        "feature %u of the project is '" STR_F "', that of the bundle '" STR_F "'",
                        i + 1, STR_A(name), STR_A(sig->columns[i].name));
        i++;
    }
    return 0;
}

int import_signature(const struct registry_request *req, const struct json *candidate,
                     struct arena *a, struct err *e)
{
    const struct json *said = json_get(candidate, S("signature"));
    struct plan_signature sig;

    TRY(plan_signature_read(said, a, &sig, e));
    TRY(tensors_agree(json_get(said, S("inputs")), json_get(candidate, S("inputs")), "inputs", true,
                      e));
    /* Registration writes down widths of outputs that the file leaves open. */
    TRY(tensors_agree(json_get(said, S("outputs")), json_get(candidate, S("outputs")), "outputs",
                      false, e));
    return features_agree(register_section(req), &sig, e);
}

/* --- Golden ----------------------------------------------------------------------------------- */

int import_golden(const struct registry_env *env, struct arena *a, const struct json *candidate,
                  struct err *e)
{
    AUTO(table_done) struct table row = {0};
    AUTO(table_done) struct table answer = {0};
    struct score_env child = register_score_env(env, a);
    const struct json *golden = json_get(candidate, S("golden"));
    struct score_request score = {
        .platform = json_str_or(json_get(candidate, S("platform")), S("")), .table = &row};
    struct plan_signature sig;
    char *path;

    if (!golden)
        return 0;
    TRY(plan_signature_read(json_get(candidate, S("signature")), a, &sig, e));
    TRY(blobs_path(env->blobs, json_str_or(json_get(candidate, S("artifact")), S("")), a, &path,
                   e));
    register_row_table(json_get(golden, S("input")), &row);
    register_row_table(json_get(golden, S("output")), &answer);
    if (!answer.column_count)
        return FAIL(e, INVALID_ARGUMENT, "refused: golden.json has an empty answer");
    score.path = path;
    score.signature = &sig;
    return score_golden(&child, &score, &answer, json_real_or(json_get(golden, S("tolerance")), 0),
                        e);
}
