/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding the breaker of a remote version by hand. What is wanted is kept by control and goes into
 * the plan: every gateway follows it, also one that starts later, and the journal says who and why.
 */
#include "api/priv.h"

#include "journal/alias.h"

static const char *const states[] = {"auto", "open", "closed"};

static NODISCARD int check_state(str state, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        if (str_eqz(state, states[i]))
            return 0;
    return FAIL(e, INVALID_ARGUMENT, "state is '" STR_F "', expected open, closed or auto",
                STR_A(state));
}

/* Only what waits for a server elsewhere has a breaker. */
static NODISCARD int check_remote(struct api *api, struct api_request *rq, str model,
                                  int64_t version, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *meta;
    str platform;

    TRY(meta_first(api->ctx.meta, "SELECT meta FROM model_versions WHERE model = ? AND version = ?",
                   M_ARGS(M_STR(model), M_INT(version)), &rows, e));
    if (!rows)
        return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version %lld", STR_A(model),
                    (long long)version);
    TRY(json_parse(meta_str_dup(rows, 0, rq->a), rq->a, &meta, e));
    platform = json_str_or(json_get(meta, S("platform")), S(""));
    if (!str_eq(platform, S("remote")))
        return FAIL(e, FAILED_PRECONDITION,
                    "version %lld of '" STR_F "' is computed by '" STR_F
                    "', which has no breaker: only remote models have one",
                    (long long)version, STR_A(model), STR_A(platform));
    return 0;
}

static NODISCARD int store(struct api *api, struct api_request *rq, str version, str state,
                           str reason, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct json *held, *data = json_new_object(rq->a);
    struct fact_new fact = {.type = FACT_BREAKER_FORCED,
                            .subject = arena_printf(rq->a, "endpoint/" STR_F, STR_A(rq->param[0])),
                            .actor = rq->actor,
                            .reason = reason,
                            .data = data};

    json_set_str(rq->a, data, S("version"), version);
    json_set_str(rq->a, data, S("state"), state);
    TRY(meta_begin(api->ctx.meta, &tx, e));
    TRY(meta_kv_get(api->ctx.meta, S("breaker"), rq->param[0], rq->a, &held, e));
    held = held ? held : json_new_object(rq->a);
    json_set_str(rq->a, held, version, state); /* auto too: what was held is let go */
    TRY(meta_kv_put(api->ctx.meta, S("breaker"), rq->param[0], held, e));
    TRY(journal_append(api->ctx.meta, &fact, NULL, e));
    return meta_commit(&tx, e);
}

int api_endpoint_breaker(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *tree, *endpoint;
    str state, reason, model, alias, text;
    int64_t version = json_int_or(json_get(rq->body, S("version")), 0);

    TRY(api_endpoint(api, rq, rq->param[0], &tree, &endpoint, e));
    TRY(json_need_str(rq->body, S("state"), &state, e));
    TRY(json_need_str(rq->body, S("reason"), &reason, e));
    TRY(check_state(state, e));
    if (!reason.n)
        return FAIL(e, INVALID_ARGUMENT,
                    "reason is empty: say why, for those who read the journal");
    model = json_str_or(json_get(endpoint, S("model")), S(""));
    alias = json_str_or(json_get(endpoint, S("alias")), S(""));
    if (!version && alias.n)
        TRY(alias_get(api->ctx.meta, model, alias, &version, e));
    if (version <= 0)
        return FAIL(e, INVALID_ARGUMENT, "version must be a number from 1");
    TRY(check_remote(api, rq, model, version, e));
    text = arena_printf(rq->a, "%lld", (long long)version);
    TRY(store(api, rq, text, state, reason, e));
    api_told_changed(api);
    jo_object(rq->out);
    jo_kstr(rq->out, S("endpoint"), rq->param[0]);
    jo_kint(rq->out, S("version"), version);
    jo_kstr(rq->out, S("state"), state);
    jo_object_end(rq->out);
    return 0;
}
