/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at models and versions, noting facts about them later, and removing them.
 *
 * A version's row is immutable but for notes that come after it (its evaluation, its card). What is
 * shown is put together from the row, the aliases and the stage that follows from them. Filters
 * work on what is shown: a registry has hundreds of versions, not millions. A removed version keeps
 * its row, with the status "removed", so that its number is never given again and history can name
 * it; what it pointed at goes with the next collection of blobs.
 */
#include "registry/registry.h"

#include "base/time.h"
#include "journal/journal.h"

#define MODELS_DEFAULT 1000u

/* What registration wrote and nothing may change. */
static const str fixed_keys[] = {
    S_INIT("signature"), S_INIT("profile"),  S_INIT("platform"),   S_INIT("source"),
    S_INIT("golden"),    S_INIT("training"), S_INIT("size_bytes"), S_INIT("load_ms"),
    S_INIT("imported"),  S_INIT("pipeline"),
};

/* What a short form leaves out. */
static const str long_keys[] = {S_INIT("signature"),   S_INIT("golden"), S_INIT("evaluation"),
                                S_INIT("environment"), S_INIT("card"),   S_INIT("pipeline")};

static bool listed(const str *list, size_t n, str key)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(list[i], key))
            return true;
    return false;
}

static void set_time(struct json *to, str key, int64_t at_ns, struct arena *a)
{
    char text[TIME_ISO_SIZE];

    time_iso(at_ns, text);
    json_set_str(a, to, key, arena_dup(a, str_of(text)));
}

/* Aliases of a model: {"champion":3}; with version != 0 the names of those that point at it. */
static NODISCARD int aliases_json(struct meta *m, str model, int64_t version, struct arena *a,
                                  struct json **ret, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *to = version ? json_new_array(a) : json_new_object(a);
    int rc;

    TRY(meta_query(m, "SELECT alias, version FROM aliases WHERE model = ? ORDER BY alias",
                   M_ARGS(M_STR(model)), &rows, e));
    while (meta_next(rows, &rc, e)) {
        if (!version)
            json_set_int(a, to, meta_str_dup(rows, 0, a), meta_int(rows, 1));
        else if (meta_int(rows, 1) == version)
            json_push(to, json_new_str(a, meta_str_dup(rows, 0, a)));
    }
    TRY(rc);
    *ret = to;
    return 0;
}

static NODISCARD int version_json(struct meta *m, str model, const struct meta_rows *row, bool all,
                                  struct arena *a, struct json **ret, struct err *e)
{
    struct json *to = json_new_object(a), *meta, *names;
    int64_t version = meta_int(row, 0);
    const char *stage;

    json_set_str(a, to, S("model"), model);
    json_set_int(a, to, S("version"), version);
    json_set_str(a, to, S("artifact"), meta_str_dup(row, 1, a));
    json_set_str(a, to, S("artifact_uri"), arena_printf(a, "blob:" STR_F, STR_A(meta_str(row, 1))));
    json_set_str(a, to, S("status"), meta_str_dup(row, 2, a));
    set_time(to, S("created"), meta_int(row, 4), a);
    json_set_int(a, to, S("created_ns"), meta_int(row, 4));
    TRY(registry_stage(m, model, version, &stage, e));
    json_set_str(a, to, S("stage"), str_of(stage));
    TRY(aliases_json(m, model, version, a, &names, e));
    json_set(to, S("aliases"), names);
    TRY(json_parse(meta_str_dup(row, 3, a), a, &meta, e));
    if (!json_is_container(meta))
        return FAIL(e, DATA_LOSS, "version %lld of model '" STR_F "' has no description",
                    (long long)version, STR_A(model));
    JSON_EACH (member, meta)
        if (all || !listed(long_keys, ARRAY_LEN(long_keys), member->key))
            json_set(to, member->key, json_copy(a, member));
    *ret = to;
    return 0;
}

/* --- Filters ---------------------------------------------------------------------------------- */

static bool filter_is_set(const struct registry_filter *f)
{
    return f && (f->tag.n || f->owner.n || f->framework.n || f->stage.n || f->metric.n ||
                 f->from_ns || f->to_ns);
}

static bool has_tag(const struct json *tags, str tag)
{
    if (!json_is_container(tags))
        return false;
    JSON_EACH (t, tags)
        if (str_eq(json_str_or(t, STR_NULL), tag))
            return true;
    return false;
}

static bool text_is(const struct json *v, str key, str want)
{
    return !want.n || str_eq(json_str_or(json_get(v, key), STR_NULL), want);
}

static bool matches(const struct registry_filter *f, const struct json *v)
{
    const struct json *metric = json_get(json_get(v, S("metrics")), f->metric);
    int64_t created = json_int_or(json_get(v, S("created_ns")), 0);
    double value = json_real_or(metric, 0);

    if (f->tag.n && !has_tag(json_get(v, S("tags")), f->tag))
        return false;
    if (f->metric.n && (!metric || ((f->metric_min != 0 || f->metric_max != 0) &&
                                    !(value >= f->metric_min && value <= f->metric_max))))
        return false;
    return text_is(v, S("owner"), f->owner) && text_is(v, S("framework"), f->framework) &&
           text_is(v, S("stage"), f->stage) && (!f->from_ns || created >= f->from_ns) &&
           (!f->to_ns || created < f->to_ns);
}

/* --- Lists ------------------------------------------------------------------------------------ */

static NODISCARD int versions_json(struct meta *m, str model, const struct registry_filter *filter,
                                   struct arena *a, struct json **ret, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *list = json_new_array(a), *item;
    int rc;

    TRY(meta_query(m,
                   "SELECT version, artifact, status, meta, created_ns FROM model_versions"
                   " WHERE model = ? AND status <> 'removed' ORDER BY version DESC",
                   M_ARGS(M_STR(model)), &rows, e));
    while (meta_next(rows, &rc, e)) {
        TRY(version_json(m, model, rows, false, a, &item, e));
        if (!filter || matches(filter, item))
            json_push(list, item);
    }
    TRY(rc);
    *ret = list;
    return 0;
}

static NODISCARD int model_json(struct meta *m, const struct meta_rows *row,
                                const struct registry_filter *filter, struct arena *a,
                                struct json **ret, struct err *e)
{
    struct json *to = json_new_object(a), *meta, *aliases, *versions;
    str name = meta_str_dup(row, 0, a);

    json_set_str(a, to, S("model"), name);
    set_time(to, S("created"), meta_int(row, 2), a);
    TRY(json_parse(meta_str_dup(row, 1, a), a, &meta, e));
    if (json_is_container(meta))
        JSON_EACH (member, meta)
            json_set(to, member->key, json_copy(a, member));
    TRY(aliases_json(m, name, 0, a, &aliases, e));
    TRY(versions_json(m, name, filter, a, &versions, e));
    json_set_int(a, to, S("champion"), json_int_or(json_get(aliases, S("champion")), 0));
    json_set_int(a, to, S("latest"), json_int_or(json_get(json_at(versions, 0), S("version")), 0));
    json_set(to, S("aliases"), aliases);
    json_set(to, S("versions"), versions);
    *ret = to;
    return 0;
}

int registry_list(struct meta *m, const struct registry_filter *filter, struct arena *a,
                  struct json **ret_list, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *list = json_new_array(a), *item;
    uint32_t limit = filter && filter->limit ? filter->limit : MODELS_DEFAULT;
    bool set = filter_is_set(filter);
    int rc = 0;

    TRY(meta_query(m, "SELECT name, meta, created_ns FROM models ORDER BY name", M_NO_ARGS, &rows,
                   e));
    while (list->count < limit && meta_next(rows, &rc, e)) {
        TRY(model_json(m, rows, set ? filter : NULL, a, &item, e));
        if (!set || json_get(item, S("versions"))->count)
            json_push(list, item);
    }
    TRY(rc);
    *ret_list = list;
    return 0;
}

static NODISCARD int show_model(struct meta *m, str model, struct arena *a, struct json **ret,
                                struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;

    TRY(meta_first(m, "SELECT name, meta, created_ns FROM models WHERE name = ?",
                   M_ARGS(M_STR(model)), &rows, e));
    if (!rows)
        return FAIL(e, NOT_FOUND, "there is no model '" STR_F "'", STR_A(str_take(model, 128)));
    return model_json(m, rows, NULL, a, ret, e);
}

/* The version that a caller means by 0. */
static NODISCARD int version_default(struct meta *m, str model, int64_t *version, struct err *e)
{
    if (*version)
        return 0;
    TRY(registry_alias_get(m, model, S("champion"), version, e));
    if (*version)
        return 0;
    return meta_first_int(
        m, "SELECT MAX(version) FROM model_versions WHERE model = ? AND status <> 'removed'",
        M_ARGS(M_STR(model)), 0, version, e);
}

int registry_show(struct meta *m, str model, int64_t version, struct arena *a, struct json **ret,
                  struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;

    if (version < 0)
        return show_model(m, model, a, ret, e);
    TRY(version_default(m, model, &version, e));
    TRY(meta_first(m,
                   "SELECT version, artifact, status, meta, created_ns FROM model_versions"
                   " WHERE model = ? AND version = ?",
                   M_ARGS(M_STR(model), M_INT(version)), &rows, e));
    if (!rows && !version)
        return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version", STR_A(str_take(model, 128)));
    if (!rows)
        return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version %lld",
                    STR_A(str_take(model, 128)), (long long)version);
    return version_json(m, arena_dup(a, model), rows, true, a, ret, e);
}

/* --- Notes ------------------------------------------------------------------------------------ */

static NODISCARD int meta_of(struct meta *m, str model, int64_t version, struct arena *a,
                             struct json **ret, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;

    TRY(meta_first(m, "SELECT meta FROM model_versions WHERE model = ? AND version = ?",
                   M_ARGS(M_STR(model), M_INT(version)), &rows, e));
    if (!rows)
        return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version %lld",
                    STR_A(str_take(model, 128)), (long long)version);
    return json_parse(meta_str_dup(rows, 0, a), a, ret, e);
}

int registry_version_annotate(struct meta *m, str model, int64_t version, str key,
                              const struct json *value, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf text = {0};
    struct json *meta;

    if (!str_is_name(key) || listed(fixed_keys, ARRAY_LEN(fixed_keys), key))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' of a version cannot be changed",
                    STR_A(str_take(key, 64)));
    arena_init(&a, 0);
    buf_init(&text, (size_t)16 << 20);
    TRY(meta_begin(m, &tx, e));
    TRY(meta_of(m, model, version, &a, &meta, e));
    json_set(meta, key, json_copy(&a, value));
    json_write_canonical(&text, meta);
    if (text.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the notes of a version take more than 16 MiB");
    TRY(meta_exec(m, "UPDATE model_versions SET meta = ? WHERE model = ? AND version = ?",
                  M_ARGS(M_STR(buf_str(&text)), M_STR(model), M_INT(version)), e));
    return meta_commit(&tx, e);
}

/* --- Removing --------------------------------------------------------------------------------- */

static NODISCARD int removable(struct meta *m, str model, int64_t version, int64_t window_ns,
                               struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    int64_t previous, since, left;

    TRY(meta_first(m, "SELECT alias FROM aliases WHERE model = ? AND version = ?",
                   M_ARGS(M_STR(model), M_INT(version)), &rows, e));
    if (rows)
        return FAIL(e, FAILED_PRECONDITION,
                    "version %lld of model '" STR_F "' is '" STR_F "': move that alias first",
                    (long long)version, STR_A(model), STR_A(meta_str(rows, 0)));
    TRY(registry_previous_champion(m, model, &previous, &since, e));
    left = since + window_ns - time_wall_ns();
    if (previous == version && left > 0)
        return FAIL(e, FAILED_PRECONDITION,
                    "version %lld of model '" STR_F
                    "' is the way back from the present champion for another %lld min",
                    (long long)version, STR_A(model), (long long)(left / (60 * NS_PER_S) + 1));
    return 0;
}

int registry_version_remove(struct meta *m, str model, int64_t version, int64_t rollback_window_ns,
                            str actor, str reason, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    AUTO(arena_done) struct arena a = {0};
    struct fact_new fact = {.type = FACT_MODEL_VERSION_REMOVED, .actor = actor, .reason = reason};
    struct json *data;

    TRY(meta_begin(m, &tx, e));
    TRY(removable(m, model, version, rollback_window_ns, e));
    TRY(meta_exec(m,
                  "UPDATE model_versions SET status = 'removed' WHERE model = ? AND version = ?"
                  " AND status <> 'removed'",
                  M_ARGS(M_STR(model), M_INT(version)), e));
    if (!meta_changes(m))
        return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version %lld", STR_A(model),
                    (long long)version);
    arena_init(&a, 0);
    data = json_new_object(&a);
    json_set_str(&a, data, S("model"), model);
    json_set_int(&a, data, S("version"), version);
    fact.subject = arena_printf(&a, "model/" STR_F, STR_A(model));
    fact.data = data;
    TRY(journal_append(m, &fact, NULL, e));
    return meta_commit(&tx, e);
}
