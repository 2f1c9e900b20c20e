/* SPDX-License-Identifier: Apache-2.0 */
/* Drift, and the retrain that a person asks for. */
#include "api/priv.h"

int api_drift_get(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *tree, *found;
    str endpoint;

    TRY(api_query(rq, S("endpoint"), &endpoint, e));
    if (!api->ctx.watch)
        return FAIL(e, UNIMPLEMENTED, "this process watches nothing");
    if (endpoint.n)
        TRY(api_endpoint(api, rq, endpoint, &tree, &found, e));
    watch_report(api->ctx.watch, endpoint, rq->out);
    return 0;
}

int api_retrain_post(struct api *api, struct api_request *rq, struct err *e)
{
    struct api_retrain what = {.actor = rq->actor};
    struct json *tree, *endpoint;
    char flow[64];
    str hash;

    TRY(api_body_str(rq, S("model"), &what.model, e));
    TRY(api_body_str(rq, S("endpoint"), &what.endpoint, e));
    TRY(api_body_str(rq, S("reason"), &what.reason, e));
    what.override_cooldown = json_bool_or(json_get(rq->body, S("override")), false);
    if (!what.model.n == !what.endpoint.n)
        return FAIL(e, INVALID_ARGUMENT, "give either endpoint or model");
    if (!api->ctx.retrain)
        return FAIL(e, UNIMPLEMENTED, "this process retrains nothing");
    if (what.endpoint.n) {
        TRY(api_endpoint(api, rq, what.endpoint, &tree, &endpoint, e));
        what.model = json_str_or(json_get(endpoint, S("model")), S(""));
    } else {
        TRY(api_applied(api, rq->a, &tree, &hash, e));
        TRY(api_need_model(rq, tree, what.model, e));
    }
    TRY(api->ctx.retrain(api->ctx.ctx, api->ctx.meta, &what, flow, e));
    jo_object(rq->out);
    jo_kstr(rq->out, S("model"), what.model);
    jo_kstr(rq->out, S("flow"), str_of(flow));
    jo_object_end(rq->out);
    return 0;
}
