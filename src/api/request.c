/* SPDX-License-Identifier: Apache-2.0 */
/* What several resources need: parameters, the applied project, aliases. */
#include "api/priv.h"

#include "journal/alias.h"

#define QUERY_VALUE_MAX 1024
#define BODY_TEXT_MAX 4096

int api_query(struct api_request *rq, str name, str *ret, struct err *e)
{
    char *out = arena_alloc(rq->a, QUERY_VALUE_MAX);
    struct err ignored;
    int rc;

    *ret = S("");
    if (!rq->http->query.p)
        return 0;
    rc = http1_query_get(rq->http->query, name, out, QUERY_VALUE_MAX, ret, &ignored);
    if (rc == 0 || rc == CODE_NOT_FOUND)
        return 0;
    *e = ignored;
    return rc;
}

int api_query_int(struct api_request *rq, str name, int64_t lo, int64_t hi, int64_t def,
                  int64_t *ret, struct err *e)
{
    int64_t v = def;
    str text;

    TRY(api_query(rq, name, &text, e));
    if (text.n && (!str_to_i64(text, &v) || v < lo || v > hi))
        return FAIL(e, INVALID_ARGUMENT, STR_F " is '" STR_F "', expected %lld to %lld",
                    STR_A(name), STR_A(str_take(text, 60)), (long long)lo, (long long)hi);
    *ret = v;
    return 0;
}

int api_body_str(struct api_request *rq, str name, str *ret, struct err *e)
{
    const struct json *node = json_get(rq->body, name);

    *ret = S("");
    if (!node || node->type == JSON_NULL)
        return 0;
    if (node->type != JSON_STR || node->string.n > BODY_TEXT_MAX)
        return FAIL(e, INVALID_ARGUMENT, STR_F " must be a text of at most %d bytes", STR_A(name),
                    BODY_TEXT_MAX);
    *ret = node->string;
    return 0;
}

int api_applied(struct api *api, struct arena *a, struct json **ret_tree, str *ret_hash,
                struct err *e)
{
    struct json *applied;

    TRY(meta_kv_get(api->ctx.meta, S("project"), S("applied"), a, &applied, e));
    *ret_tree = json_get(applied, S("tree"));
    *ret_hash = json_str_or(json_get(applied, S("hash")), S(""));
    return 0;
}

static str nearest(struct api_request *rq, const struct json *object, str name)
{
    size_t n = 0, max = json_is_container(object) ? object->count : 0;
    str *names = ARENA_ARRAY(rq->a, str, max + 1);

    if (max)
        JSON_EACH (child, object)
            names[n++] = child->key;
    return str_suggest(name, names, n);
}

int api_endpoint(struct api *api, struct api_request *rq, str name, struct json **ret_tree,
                 struct json **ret_endpoint, struct err *e)
{
    struct json *tree, *endpoint;
    str hash, near;

    TRY(api_applied(api, rq->a, &tree, &hash, e));
    if (!tree)
        return FAIL(e, FAILED_PRECONDITION, "no project is applied: run weir apply");
    endpoint = json_get(json_get(tree, S("endpoints")), name);
    if (!endpoint) {
        near = nearest(rq, json_get(tree, S("endpoints")), name);
        return FAIL(e, NOT_FOUND, "endpoint '" STR_F "' is not in the applied project%s" STR_F "%s",
                    STR_A(name), near.n ? ", did you mean '" : "", STR_A(near), near.n ? "'?" : "");
    }
    *ret_tree = tree;
    *ret_endpoint = endpoint;
    return 0;
}

int api_need_model(struct api_request *rq, const struct json *tree, str name, struct err *e)
{
    const struct json *models = json_get(tree, S("models"));
    str near;

    if (json_get(models, name))
        return 0;
    near = nearest(rq, models, name);
    return FAIL(e, NOT_FOUND, "model '" STR_F "' is not in the applied project%s" STR_F "%s",
                STR_A(name), near.n ? ", did you mean '" : ": weir apply", STR_A(near),
                near.n ? "'?" : "");
}

int api_need_version(struct meta *m, str model, int64_t version, struct err *e)
{
    int64_t found, newest;

    TRY(meta_first_int(m, "SELECT 1 FROM model_versions WHERE model = ? AND version = ?",
                       M_ARGS(M_STR(model), M_INT(version)), 0, &found, e));
    if (found)
        return 0;
    TRY(meta_first_int(m, "SELECT MAX(version) FROM model_versions WHERE model = ?",
                       M_ARGS(M_STR(model)), 0, &newest, e));
    if (!newest)
        return FAIL(e, NOT_FOUND,
                    "model '" STR_F "' has no version yet: weir register " STR_F " FILE",
                    STR_A(model), STR_A(model));
    return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version %lld; the newest is %lld",
                STR_A(model), (long long)version, (long long)newest);
}

int api_alias_move(struct meta *m, str model, str alias, int64_t version, str actor, str reason,
                   int64_t *ret_previous, struct err *e)
{
    TRY(api_need_version(m, model, version, e));
    return alias_move(
        m,
        &(struct alias_move){
            .model = model, .alias = alias, .version = version, .actor = actor, .reason = reason},
        ret_previous, e);
}

void api_told_changed(struct api *api)
{
    if (api->ctx.changed)
        api->ctx.changed(api->ctx.ctx);
}
