/* SPDX-License-Identifier: Apache-2.0 */
/* /api/v1/models: the registry to look at, registering, aliases, and what was live when. */
#include "api/priv.h"

#include "base/files.h"
#include "base/time.h"
#include "flow/flow.h"
#include "journal/alias.h"
#include "registry/registry.h"

#define HISTORY_MAX 200 /* moves of aliases shown with a model */

static NODISCARD int need_model(struct api *api, struct api_request *rq, str model, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    str names[256], near;
    size_t n = 0;
    bool found = false;
    int rc;

    TRY(meta_query(api->ctx.meta, "SELECT name FROM models ORDER BY name", M_NO_ARGS, &rows, e));
    while (meta_next(rows, &rc, e)) {
        found |= str_eq(meta_str(rows, 0), model);
        if (n < ARRAY_LEN(names))
            names[n++] = meta_str_dup(rows, 0, rq->a);
    }
    TRY(rc);
    if (found)
        return 0;
    near = str_suggest(model, names, n);
    return FAIL(e, NOT_FOUND, "model '" STR_F "' is not registered%s" STR_F "%s", STR_A(model),
                near.n ? ", did you mean '" : "", STR_A(near), near.n ? "'?" : "");
}

/* --- Reading ---------------------------------------------------------------------------------- */

static NODISCARD int aliases_json(struct meta *m, str model, struct arena *a, struct json **ret,
                                  struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *o = json_new_object(a);
    int rc;

    TRY(meta_query(m, "SELECT alias, version FROM aliases WHERE model = ? ORDER BY alias",
                   M_ARGS(M_STR(model)), &rows, e));
    while (meta_next(rows, &rc, e))
        json_set_int(a, o, meta_str_dup(rows, 0, a), meta_int(rows, 1));
    TRY(rc);
    *ret = o;
    return 0;
}

static NODISCARD int versions_json(struct meta *m, str model, struct arena *a, struct json **ret,
                                   struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *list = json_new_array(a);
    const char *stage;
    int rc;

    TRY(meta_query(m,
                   "SELECT version, artifact, status, meta, created_ns FROM model_versions"
                   " WHERE model = ? ORDER BY version DESC LIMIT 1000",
                   M_ARGS(M_STR(model)), &rows, e));
    while (meta_next(rows, &rc, e)) {
        struct json *o = json_push(list, json_new_object(a)), *meta;

        json_set_int(a, o, S("version"), meta_int(rows, 0));
        json_set_str(a, o, S("artifact"), meta_str_dup(rows, 1, a));
        json_set_str(a, o, S("status"), meta_str_dup(rows, 2, a));
        json_set_int(a, o, S("created_ns"), meta_int(rows, 4));
        TRY(json_parse(meta_str_dup(rows, 3, a), a, &meta, e));
        json_set(o, S("meta"), meta);
        TRY(registry_stage(m, model, meta_int(rows, 0), &stage, e));
        json_set_str(a, o, S("stage"), str_of(stage));
    }
    TRY(rc);
    *ret = list;
    return 0;
}

/* A filter of ?owner=, ?tag=, ?stage=, ?framework=: the model or one of its versions says so. Tags
 * are a list of texts or an object ("team=risk" or "team"). */
static bool says(const struct json *meta, const char *field, str want)
{
    const struct json *v = json_get(meta, str_of(field));
    str key, rest = want;

    if (!v)
        return false;
    if (v->type == JSON_STR)
        return str_eq(v->string, want);
    if (!json_is_container(v))
        return false;
    key = str_cut(&rest, '=');
    JSON_EACH (item, v) {
        if (v->type == JSON_ARRAY && str_eq(json_str_or(item, S("")), want))
            return true;
        if (v->type == JSON_OBJECT && str_eq(item->key, key) &&
            (!rest.p || str_eq(json_str_or(item, S("")), rest)))
            return true;
    }
    return false;
}

static bool any_says(const struct json *model, const char *field, str want)
{
    if (!want.n || says(json_get(model, S("meta")), field, want))
        return true;
    JSON_EACH (version, json_get(model, S("versions")))
        if (says(json_get(version, S("meta")), field, want) || says(version, field, want))
            return true;
    return false;
}

static NODISCARD int model_tree(struct meta *m, const struct meta_rows *rows, struct arena *a,
                                struct json **ret, struct err *e)
{
    struct json *o = json_new_object(a), *meta, *aliases, *versions;
    str name = meta_str_dup(rows, 0, a);

    TRY(json_parse(meta_str_dup(rows, 1, a), a, &meta, e));
    TRY(aliases_json(m, name, a, &aliases, e));
    TRY(versions_json(m, name, a, &versions, e));
    json_set_str(a, o, S("name"), name);
    json_set(o, S("meta"), meta);
    json_set_int(a, o, S("created_ns"), meta_int(rows, 2));
    json_set(o, S("aliases"), aliases);
    json_set(o, S("versions"), versions);
    *ret = o;
    return 0;
}

static const struct {
    const char *query, *field;
} filters[] = {{"owner", "owner"}, {"tag", "tags"}, {"stage", "stage"}, {"framework", "framework"}};

/* "metric=f1>0.9": a version has that metric at least (or at most, with <) there. */
static NODISCARD int metric_fits(const struct json *model, str want, bool *ret, struct err *e)
{
    ptrdiff_t at = str_find_char(want, '>');
    bool above = at > 0;
    double limit;

    *ret = true;
    if (!want.n)
        return 0;
    if (!above)
        at = str_find_char(want, '<');
    if (at <= 0 || !str_to_f64(str_skip(want, (size_t)at + 1), &limit))
        return FAIL(e, INVALID_ARGUMENT, "metric is '" STR_F "', expected such as f1>0.9 or mae<2",
                    STR_A(want));
    JSON_EACH (version, json_get(model, S("versions"))) {
        const struct json *meta = json_get(version, S("meta"));
        const struct json *metrics = json_get(meta, S("metrics"));
        const struct json *v;

        if (!metrics)
            metrics = json_get(json_get(meta, S("evaluation")), S("metrics"));
        v = json_get(metrics, str_take(want, (size_t)at));
        if (v && (above ? json_real_or(v, limit) > limit : json_real_or(v, limit) < limit))
            return 0;
    }
    *ret = false;
    return 0;
}

int api_models_list(struct api *api, struct api_request *rq, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    str want[ARRAY_LEN(filters)], q, metric;
    int rc;

    TRY(api_query(rq, S("q"), &q, e));
    TRY(api_query(rq, S("metric"), &metric, e));
    for (size_t i = 0; i < ARRAY_LEN(filters); i++)
        TRY(api_query(rq, str_of(filters[i].query), &want[i], e));
    jo_object(rq->out);
    jo_key(rq->out, S("models"));
    jo_array(rq->out);
    TRY(meta_query(api->ctx.meta, "SELECT name, meta, created_ns FROM models ORDER BY name",
                   M_NO_ARGS, &rows, e));
    while (meta_next(rows, &rc, e)) {
        struct json *model;
        bool fits;

        if (q.n && str_find(meta_str(rows, 0), q) < 0)
            continue;
        TRY(model_tree(api->ctx.meta, rows, rq->a, &model, e));
        TRY(metric_fits(model, metric, &fits, e));
        for (size_t i = 0; i < ARRAY_LEN(filters); i++)
            fits = fits && any_says(model, filters[i].field, want[i]);
        if (fits)
            jo_node(rq->out, model);
    }
    TRY(rc);
    jo_array_end(rq->out);
    jo_object_end(rq->out);
    return 0;
}

int api_model_get(struct api *api, struct api_request *rq, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *model, *history;

    TRY(need_model(api, rq, rq->param[0], e));
    TRY(meta_first(api->ctx.meta, "SELECT name, meta, created_ns FROM models WHERE name = ?",
                   M_ARGS(M_STR(rq->param[0])), &rows, e));
    TRY(model_tree(api->ctx.meta, rows, rq->a, &model, e));
    TRY(alias_history(api->ctx.meta, rq->param[0], HISTORY_MAX, rq->a, &history, e));
    json_set(model, S("history"), history);
    jo_node(rq->out, model);
    return 0;
}

/* A version by number or by alias. */
static NODISCARD int version_of(struct api *api, str model, str text, int64_t *ret_version,
                                struct err *e)
{
    int64_t version;

    if (!str_to_i64(text, &version)) {
        TRY(alias_get(api->ctx.meta, model, text, &version, e));
        if (!version)
            return FAIL(e, NOT_FOUND, "model '" STR_F "' has no alias '" STR_F "'", STR_A(model),
                        STR_A(text));
    }
    TRY(api_need_version(api->ctx.meta, model, version, e));
    *ret_version = version;
    return 0;
}

int api_version_get(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *versions;
    int64_t version;

    TRY(need_model(api, rq, rq->param[0], e));
    TRY(version_of(api, rq->param[0], rq->param[1], &version, e));
    TRY(versions_json(api->ctx.meta, rq->param[0], rq->a, &versions, e));
    JSON_EACH (v, versions)
        if (json_int_or(json_get(v, S("version")), 0) == version) {
            json_set_str(rq->a, v, S("model"), rq->param[0]);
            jo_node(rq->out, v);
            return 0;
        }
    return FAIL(e, NOT_FOUND, "version %lld is older than the newest 1000", (long long)version);
}

/* --- Changing --------------------------------------------------------------------------------- */

int api_version_register(struct api *api, struct api_request *rq, struct err *e)
{
    const struct json *metadata = json_get(rq->body, S("metadata"));
    struct json *input = json_new_object(rq->a), *tree;
    struct flow_started started;
    str path, reason, hash;

    TRY(json_need_str(rq->body, S("path"), &path, e));
    TRY(api_body_str(rq, S("reason"), &reason, e));
    TRY(api_applied(api, rq->a, &tree, &hash, e));
    if (!str_is_name(rq->param[0]))
        return FAIL(e, INVALID_ARGUMENT,
                    "'" STR_F "' is no name for a model: letters, digits, "
                    "'.', '_' and '-', at most 128",
                    STR_A(str_take(rq->param[0], 60)));
    if (tree) /* a slip in the name would begin a model that no endpoint serves */
        TRY(api_need_model(rq, tree, rq->param[0], e));
    if (!path.n || path.p[0] != '/')
        return FAIL(e, INVALID_ARGUMENT, "path must be absolute, not '" STR_F "'", STR_A(path));
    if (!file_exists(arena_dupz(rq->a, path)))
        return FAIL(e, NOT_FOUND, "there is no file '" STR_F "'", STR_A(path));
    if (metadata && metadata->type != JSON_OBJECT && metadata->type != JSON_NULL)
        return FAIL(e, INVALID_ARGUMENT, "metadata must be an object");
    json_set_str(rq->a, input, S("model"), rq->param[0]);
    json_set_str(rq->a, input, S("path"), path);
    json_set_str(rq->a, input, S("actor"), rq->actor);
    json_set_str(rq->a, input, S("reason"), reason);
    json_set(input, S("metadata"),
             metadata && metadata->type == JSON_OBJECT ? json_copy(rq->a, metadata)
                                                       : json_new_object(rq->a));
    json_set_bool(rq->a, input, S("promote"),
                  json_bool_or(json_get(rq->body, S("promote")), false));
    TRY(flow_start(api->ctx.meta, &(struct flow_start){.type = "register", .input = input},
                   &started, e));
    jo_object(rq->out);
    jo_kstr(rq->out, S("flow"), str_of(started.id));
    jo_object_end(rq->out);
    return 0;
}

int api_alias_set(struct api *api, struct api_request *rq, struct err *e)
{
    const struct json *v = json_get(rq->body, S("version"));
    int64_t version, previous;
    str alias, reason;

    TRY(json_need_str(rq->body, S("alias"), &alias, e));
    TRY(api_body_str(rq, S("reason"), &reason, e));
    if (!str_is_name(alias))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' is no name for an alias", STR_A(alias));
    TRY(need_model(api, rq, rq->param[0], e));
    if (v && v->type == JSON_STR)
        TRY(version_of(api, rq->param[0], v->string, &version, e));
    else
        TRY(json_need_int(rq->body, S("version"), &version, e));
    TRY(api_alias_move(api->ctx.meta, rq->param[0], alias, version, rq->actor, reason, &previous,
                       e));
    api_told_changed(api);
    jo_object(rq->out);
    jo_kstr(rq->out, S("model"), rq->param[0]);
    jo_kstr(rq->out, S("alias"), alias);
    jo_kint(rq->out, S("version"), version);
    jo_kint(rq->out, S("previous"), previous);
    jo_object_end(rq->out);
    return 0;
}

/* --- What was live when ----------------------------------------------------------------------- */

int api_model_live(struct api *api, struct api_request *rq, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    int64_t at = time_wall_ns();
    str text, alias;

    TRY(api_query(rq, S("at"), &text, e));
    TRY(api_query(rq, S("alias"), &alias, e));
    if (text.n && !time_parse_iso(text, &at) && !str_to_i64(text, &at))
        return FAIL(e, INVALID_ARGUMENT,
                    "at is '" STR_F "', expected a time such as "
                    "2026-11-23T20:00:00Z",
                    STR_A(str_take(text, 60)));
    if (!alias.n)
        alias = S("champion");
    TRY(need_model(api, rq, rq->param[0], e));
    TRY(meta_first(api->ctx.meta,
                   "SELECT version, previous_version, at_ns, actor, reason FROM alias_history"
                   " WHERE model = ? AND alias = ? AND at_ns <= ? ORDER BY seq DESC LIMIT 1",
                   M_ARGS(M_STR(rq->param[0]), M_STR(alias), M_INT(at)), &rows, e));
    jo_object(rq->out);
    jo_kstr(rq->out, S("model"), rq->param[0]);
    jo_kstr(rq->out, S("alias"), alias);
    jo_kint(rq->out, S("at_ns"), at);
    jo_key(rq->out, S("version"));
    if (rows && !meta_is_null(rows, 0))
        jo_int(rq->out, meta_int(rows, 0));
    else
        jo_null(rq->out);
    if (rows) {
        if (!meta_is_null(rows, 1))
            jo_kint(rq->out, S("previous"), meta_int(rows, 1));
        jo_kint(rq->out, S("since_ns"), meta_int(rows, 2));
        jo_kstr(rq->out, S("actor"), meta_str(rows, 3));
        jo_kstr(rq->out, S("reason"), meta_str(rows, 4));
    }
    jo_object_end(rq->out);
    return 0;
}
