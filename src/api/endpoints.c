/* SPDX-License-Identifier: Apache-2.0 */
/* Promote, roll back, and orders to a rollout under way. */
#include "api/priv.h"

#include "journal/alias.h"

/* The rollout section that the endpoint names. The normalised tree holds presets in full. */
static NODISCARD int rollout_config(const struct json *tree, const struct json *endpoint,
                                    const struct json **ret, struct err *e)
{
    str name = json_str_or(json_get(endpoint, S("rollout")), S("standard"));
    const struct json *config = json_get(json_get(tree, S("rollouts")), name);

    if (!config)
        return FAIL(e, FAILED_PRECONDITION,
                    "rollout '" STR_F "' of endpoint '" STR_F
                    "' is not in the applied project: run weir apply",
                    STR_A(name), STR_A(endpoint->key));
    *ret = config;
    return 0;
}

/* The alias that a promotion or a way back moves. A fixed split has none: what it serves is said in
 * the file, and moving an alias would change nothing on it. */
static NODISCARD int alias_of(const struct json *endpoint, str *ret, struct err *e)
{
    const struct json *split = json_get(endpoint, S("versions"));

    if (json_is_container(split) && split->count)
        return FAIL(e, FAILED_PRECONDITION,
                    "endpoint '" STR_F "' answers by its fixed split: change endpoints." STR_F
                    ".versions in weir.yaml and run weir apply, or remove it to roll out",
                    STR_A(endpoint->key), STR_A(endpoint->key));
    *ret = json_str_or(json_get(endpoint, S("alias")), S("champion"));
    return 0;
}

/* The version asked for, or the newest. */
static NODISCARD int pick_version(struct api *api, struct api_request *rq, str model,
                                  int64_t *ret_version, struct err *e)
{
    const struct json *v = json_get(rq->body, S("version"));
    int64_t version = json_int_or(v, 0);

    if (v && v->type != JSON_NULL && version <= 0)
        return FAIL(e, INVALID_ARGUMENT, "version must be a number from 1");
    if (!version)
        TRY(meta_first_int(api->ctx.meta, "SELECT MAX(version) FROM model_versions WHERE model = ?",
                           M_ARGS(M_STR(model)), 0, &version, e));
    TRY(api_need_version(api->ctx.meta, model, version, e));
    *ret_version = version;
    return 0;
}

static void write_move(struct api_request *rq, str model, int64_t version, int64_t previous)
{
    jo_object(rq->out);
    jo_kstr(rq->out, S("endpoint"), rq->param[0]);
    jo_kstr(rq->out, S("model"), model);
    jo_kint(rq->out, S("version"), version);
    jo_kint(rq->out, S("previous"), previous);
    jo_kbool(rq->out, S("direct"), true);
    jo_object_end(rq->out);
}

static NODISCARD int start_rollout(struct api *api, struct api_request *rq, const struct json *tree,
                                   const struct json *endpoint, str alias, int64_t version,
                                   int64_t champion, str reason, struct err *e)
{
    struct rollout_start start = {.endpoint = rq->param[0],
                                  .model = json_str_or(json_get(endpoint, S("model")), S("")),
                                  .alias = alias,
                                  .version = version,
                                  .actor = rq->actor,
                                  .reason = reason};
    char id[64];

    if (!api->ctx.rollouts)
        return FAIL(e, UNIMPLEMENTED, "this process runs no rollouts");
    TRY(rollout_config(tree, endpoint, &start.config, e));
    TRY(rollout_start(api->ctx.rollouts, api->ctx.meta, &start, id, e));
    api_told_changed(api);
    jo_object(rq->out);
    jo_kstr(rq->out, S("endpoint"), rq->param[0]);
    jo_kstr(rq->out, S("model"), start.model);
    jo_kint(rq->out, S("version"), version);
    jo_kint(rq->out, S("previous"), champion);
    jo_kbool(rq->out, S("direct"), false);
    jo_kstr(rq->out, S("rollout"), str_of(id));
    jo_key(rq->out, S("steps"));
    jo_node(rq->out, json_get(start.config, S("steps")));
    jo_object_end(rq->out);
    return 0;
}

int api_endpoint_promote(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *tree, *endpoint;
    int64_t version, champion;
    str model, alias, reason;

    TRY(api_endpoint(api, rq, rq->param[0], &tree, &endpoint, e));
    TRY(api_body_str(rq, S("reason"), &reason, e));
    model = json_str_or(json_get(endpoint, S("model")), S(""));
    TRY(alias_of(endpoint, &alias, e));
    TRY(pick_version(api, rq, model, &version, e));
    TRY(alias_get(api->ctx.meta, model, alias, &champion, e));
    if (champion == version)
        return FAIL(e, FAILED_PRECONDITION,
                    "version %lld of '" STR_F "' answers on '" STR_F "' already",
                    (long long)version, STR_A(model), STR_A(rq->param[0]));
    if (champion && !json_bool_or(json_get(rq->body, S("direct")), false))
        return start_rollout(api, rq, tree, endpoint, alias, version, champion, reason, e);
    TRY(api_alias_move(api->ctx.meta, model, alias, version, rq->actor, reason, &champion, e));
    api_told_changed(api);
    write_move(rq, model, version, champion);
    return 0;
}

/* --- Back ------------------------------------------------------------------------------------- */

/* The champion before the present one. Versions that were themselves rolled back are skipped: a
 * second rollback goes further back, not forth again. */
static NODISCARD int previous_champion(struct api *api, str model, str alias, int64_t now,
                                       int64_t *ret_version, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    int64_t wanted = now;
    int rc;

    TRY(meta_query(api->ctx.meta,
                   "SELECT version, previous_version FROM alias_history WHERE model = ? AND"
                   " alias = ? ORDER BY seq DESC",
                   M_ARGS(M_STR(model), M_STR(alias)), &rows, e));
    *ret_version = 0;
    while (meta_next(rows, &rc, e))
        /* The move that brought `wanted` in, unless it was itself a way back (to a smaller one). */
        if (!*ret_version && meta_int(rows, 0) == wanted && !meta_is_null(rows, 1) &&
            meta_int(rows, 1) < wanted)
            *ret_version = meta_int(rows, 1);
    TRY(rc);
    if (!*ret_version)
        return FAIL(e, FAILED_PRECONDITION,
                    "version %lld of '" STR_F "' has no version before it "
                    "to go back to",
                    (long long)now, STR_A(model));
    return 0;
}

int api_endpoint_rollback(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *tree, *endpoint, *state;
    int64_t champion, back;
    str model, alias, reason;

    TRY(api_endpoint(api, rq, rq->param[0], &tree, &endpoint, e));
    TRY(json_need_str(rq->body, S("reason"), &reason, e));
    if (!reason.n)
        return FAIL(e, INVALID_ARGUMENT,
                    "reason is empty: say why, for those who read the journal");
    model = json_str_or(json_get(endpoint, S("model")), S(""));
    TRY(alias_of(endpoint, &alias, e));
    TRY(alias_get(api->ctx.meta, model, alias, &champion, e));
    TRY(meta_kv_get(api->ctx.meta, S("rollout"), rq->param[0], rq->a, &state, e));
    if (state && api->ctx.rollouts) {
        TRY(rollout_order(api->ctx.rollouts, api->ctx.meta, rq->param[0], ROLLOUT_ROLLBACK,
                          rq->actor, reason, e));
        TRY(alias_get(api->ctx.meta, model, alias, &back, e));
        api_told_changed(api);
        write_move(rq, model, back, json_int_or(json_get(state, S("version")), champion));
        return 0;
    }
    TRY(previous_champion(api, model, alias, champion, &back, e));
    TRY(api_alias_move(api->ctx.meta, model, alias, back, rq->actor, reason, &champion, e));
    api_told_changed(api);
    write_move(rq, model, back, champion);
    return 0;
}

/* --- Orders ----------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum rollout_order order;
} orders[] = {{"pause", ROLLOUT_PAUSE},
              {"resume", ROLLOUT_RESUME},
              {"abort", ROLLOUT_ABORT},
              {"approve", ROLLOUT_APPROVE}};

int api_endpoint_rollout(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *tree, *endpoint;
    str order, reason;

    TRY(json_need_str(rq->body, S("order"), &order, e));
    TRY(api_body_str(rq, S("reason"), &reason, e));
    TRY(api_endpoint(api, rq, rq->param[0], &tree, &endpoint, e));
    if (!api->ctx.rollouts)
        return FAIL(e, UNIMPLEMENTED, "this process runs no rollouts");
    for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
        if (!str_eqz(order, orders[i].name))
            continue;
        TRY(rollout_order(api->ctx.rollouts, api->ctx.meta, rq->param[0], orders[i].order,
                          rq->actor, reason, e));
        api_told_changed(api);
        rollouts_report(api->ctx.rollouts, rq->param[0], rq->out);
        return 0;
    }
    return FAIL(e, INVALID_ARGUMENT,
                "order is '" STR_F "', expected pause, resume, abort or approve", STR_A(order));
}

int api_rollouts_list(struct api *api, struct api_request *rq, struct err *e)
{
    str endpoint;

    TRY(api_query(rq, S("endpoint"), &endpoint, e));
    if (!api->ctx.rollouts)
        return FAIL(e, UNIMPLEMENTED, "this process runs no rollouts");
    rollouts_report(api->ctx.rollouts, endpoint, rq->out);
    return 0;
}
