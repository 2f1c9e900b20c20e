/* SPDX-License-Identifier: Apache-2.0 */
#include "api/priv.h"

#include "flow/flow.h"

int api_flows_list(struct api *api, struct api_request *rq, struct err *e)
{
    struct flow_query q = {0};
    struct json *list;
    int64_t limit;
    enum flow_state state;
    str unfinished;

    TRY(api_query(rq, S("type"), &q.type, e));
    TRY(api_query(rq, S("state"), &q.state, e));
    TRY(api_query(rq, S("correlation"), &q.correlation, e));
    TRY(api_query(rq, S("unfinished"), &unfinished, e));
    TRY(api_query_int(rq, S("limit"), 1, 1000, 100, &limit, e));
    if (q.state.n && !flow_state_find(q.state, &state))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' is no state of a flow", STR_A(q.state));
    q.unfinished = str_eq(unfinished, S("1")) || str_eq(unfinished, S("true"));
    q.limit = (uint32_t)limit;
    TRY(flow_list(api->ctx.meta, &q, rq->a, &list, e));
    jo_object(rq->out);
    jo_key(rq->out, S("flows"));
    jo_node(rq->out, list);
    jo_object_end(rq->out);
    return 0;
}

int api_flow_get(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *flow;

    TRY(flow_show(api->ctx.meta, rq->param[0], rq->a, &flow, e));
    jo_node(rq->out, flow);
    return 0;
}

int api_flow_post_cancel(struct api *api, struct api_request *rq, struct err *e)
{
    str reason;

    TRY(api_body_str(rq, S("reason"), &reason, e));
    TRY(flow_cancel(api->ctx.meta, rq->param[0], reason, e));
    return api_flow_get(api, rq, e);
}

int api_flow_post_pause(struct api *api, struct api_request *rq, struct err *e)
{
    TRY(flow_pause(api->ctx.meta, rq->param[0], e));
    return api_flow_get(api, rq, e);
}

int api_flow_post_resume(struct api *api, struct api_request *rq, struct err *e)
{
    TRY(flow_resume(api->ctx.meta, rq->param[0], e));
    return api_flow_get(api, rq, e);
}

int api_flow_post_retry(struct api *api, struct api_request *rq, struct err *e)
{
    TRY(flow_retry(api->ctx.meta, rq->param[0], e));
    return api_flow_get(api, rq, e);
}

/* What a flow with a review waits for. The flow itself writes the fact: who, why, yes or no. */
int api_flow_post_approve(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *answer = json_new_object(rq->a);
    bool first;
    str reason;

    TRY(api_body_str(rq, S("reason"), &reason, e));
    json_set_bool(rq->a, answer, S("approved"),
                  json_bool_or(json_get(rq->body, S("approved")), true));
    json_set_str(rq->a, answer, S("actor"), rq->actor);
    json_set_str(rq->a, answer, S("reason"), reason);
    TRY(flow_event(api->ctx.meta, rq->param[0], S("approve"), answer, &first, e));
    if (!first)
        return FAIL(e, FAILED_PRECONDITION, "flow '" STR_F "' has its answer already",
                    STR_A(rq->param[0]));
    return api_flow_get(api, rq, e);
}
