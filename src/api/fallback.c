/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only the registry can say of a fallback that somebody wants to apply: whether its versions
 * are there, and whether a static answer is one that the model could have given. Where nothing is
 * registered yet, the compiler of plans looks when something is.
 */
#include "api/priv.h"

#include "journal/alias.h"
#include "plan/fallback.h"

/* The signature that requests of the endpoint are answered by; *ret_found: there is one. */
static NODISCARD int signature_of(struct api *api, struct api_request *rq, const struct json *tree,
                                  const struct json *endpoint, str model,
                                  struct plan_signature *ret, bool *ret_found, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    str alias = json_str_or(json_get(endpoint, S("alias")), S("champion"));
    const struct json *threshold =
        json_get(json_get(json_get(tree, S("models")), model), S("threshold"));
    struct json *meta, *signature;
    int64_t version;

    *ret_found = false;
    TRY(alias_get(api->ctx.meta, model, alias, &version, e));
    TRY(meta_first(api->ctx.meta,
                   version ? "SELECT meta FROM model_versions WHERE model = ? AND version = ?"
                           : "SELECT meta FROM model_versions WHERE model = ? AND version > ?"
                             " ORDER BY version DESC LIMIT 1",
                   M_ARGS(M_STR(model), M_INT(version)), &rows, e));
    if (!rows)
        return 0;
    TRY(json_parse(meta_str_dup(rows, 0, rq->a), rq->a, &meta, e));
    TRY(json_need_object(meta, S("signature"), &signature, e));
    TRY(plan_signature_read(signature, rq->a, ret, e));
    if (threshold && ret->reading.positive >= 0)
        ret->reading.threshold = json_real_or(threshold, 0.5);
    *ret_found = true;
    return 0;
}

static NODISCARD int check_step(struct api *api, struct api_request *rq, const struct json *tree,
                                const struct json *endpoint, const struct json *step, struct err *e)
{
    str model = json_str_or(json_get(endpoint, S("model")), S(""));
    int64_t version = json_int_or(json_get(step, S("version")), 0);
    const struct json *wish = json_get(step, S("answer"));
    struct plan_signature sig;
    struct json *answer;
    bool found;

    if (version)
        return api_need_version(api->ctx.meta, model, version, e);
    if (!json_is_container(wish) || !wish->count)
        return 0;
    TRY(signature_of(api, rq, tree, endpoint, model, &sig, &found, e));
    return found ? plan_answer_resolve(wish, &sig, rq->a, &answer, e) : 0;
}

int api_check_fallback(struct api *api, struct api_request *rq, const struct json *tree,
                       const struct json *endpoint, struct err *e)
{
    size_t i = 0;

    JSON_EACH (step, json_path(endpoint, "fallback.chain")) {
        if (check_step(api, rq, tree, endpoint, step, e))
            return err_context(e, "endpoints." STR_F ".fallback.chain[%zu]", STR_A(endpoint->key),
                               i);
        i++;
    }
    return 0;
}
