/* SPDX-License-Identifier: Apache-2.0 */
/* GET /api/v1/status and /metrics: what runs, in one answer. */
#include "api/priv.h"

#include "base/time.h"
#include "flow/flow.h"
#include "journal/alias.h"

static const char *const monitor_members[] = {
    "monitor", "endpoint",   "model",  "version",  "state",       "reason", "severity",
    "rows",    "rows_per_s", "alarms", "evidence", "budget_rows", "labels", "false_alarm_every_s"};

/* The reports of monitors and rollouts as trees, for what needs a part of them. */
static NODISCARD int report_tree(const struct buf *text, struct arena *a, struct json **ret,
                                 struct err *e)
{
    return json_parse(arena_dup(a, buf_str(text)), a, ret, e);
}

static NODISCARD int write_monitors(struct api *api, struct api_request *rq, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct json_out report;
    struct json *root;

    jo_key(rq->out, S("monitors"));
    jo_array(rq->out);
    if (api->ctx.watch) {
        buf_init(&text, API_ANSWER_BYTES_MAX);
        jo_begin(&report, &text);
        watch_report(api->ctx.watch, S(""), &report);
        TRY(report_tree(&text, rq->a, &root, e));
        JSON_EACH (monitor, json_get(root, S("monitors"))) {
            jo_object(rq->out);
            for (size_t i = 0; i < ARRAY_LEN(monitor_members); i++) {
                const struct json *v = json_get(monitor, str_of(monitor_members[i]));

                if (v) {
                    jo_key(rq->out, v->key);
                    jo_node(rq->out, v);
                }
            }
            jo_object_end(rq->out);
        }
    }
    jo_array_end(rq->out);
    return 0;
}

static NODISCARD int write_endpoints(struct api *api, struct api_request *rq,
                                     const struct json *tree, struct err *e)
{
    const struct json *endpoints = json_get(tree, S("endpoints"));

    jo_key(rq->out, S("endpoints"));
    jo_array(rq->out);
    if (json_is_container(endpoints))
        JSON_EACH (endpoint, endpoints) {
            str model = json_str_or(json_get(endpoint, S("model")), S(""));
            str alias = json_str_or(json_get(endpoint, S("alias")), S("champion"));
            const struct json *split = json_get(endpoint, S("versions"));
            int64_t version;

            TRY(alias_get(api->ctx.meta, model, alias, &version, e));
            jo_object(rq->out);
            jo_kstr(rq->out, S("name"), endpoint->key);
            jo_kstr(rq->out, S("model"), model);
            if (version)
                jo_kint(rq->out, S("version"), version);
            if (json_is_container(split) && split->count) {
                jo_key(rq->out, S("split"));
                jo_node(rq->out, split);
            }
            jo_object_end(rq->out);
        }
    jo_array_end(rq->out);
    return 0;
}

static NODISCARD int write_project(struct api *api, struct api_request *rq, struct json **ret_tree,
                                   struct err *e)
{
    struct json *applied;

    TRY(meta_kv_get(api->ctx.meta, S("project"), S("applied"), rq->a, &applied, e));
    *ret_tree = json_get(applied, S("tree"));
    jo_key(rq->out, S("project"));
    jo_object(rq->out);
    jo_kstr(rq->out, S("dir"), str_of(api->ctx.project_dir));
    if (applied) {
        jo_kstr(rq->out, S("name"), json_str_or(json_get(*ret_tree, S("project")), S("")));
        jo_kstr(rq->out, S("hash"), json_str_or(json_get(applied, S("hash")), S("")));
        jo_kint(rq->out, S("applied_ns"), json_int_or(json_get(applied, S("applied_ns")), 0));
        jo_kstr(rq->out, S("actor"), json_str_or(json_get(applied, S("actor")), S("")));
    }
    jo_object_end(rq->out);
    return 0;
}

/* Writes the members of an object that a report is: {"rollouts":[…]} becomes "rollouts":[…]. */
static NODISCARD int write_rollouts(struct api *api, struct api_request *rq, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct json_out report;
    struct json *root;

    if (!api->ctx.rollouts)
        return 0;
    buf_init(&text, API_ANSWER_BYTES_MAX);
    jo_begin(&report, &text);
    rollouts_report(api->ctx.rollouts, S(""), &report);
    TRY(report_tree(&text, rq->a, &root, e));
    jo_key(rq->out, S("rollouts"));
    jo_node(rq->out, json_get(root, S("rollouts")));
    return 0;
}

int api_status(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *tree, *flows;
    int64_t facts, now = time_wall_ns();

    jo_object(rq->out);
    jo_kstr(rq->out, S("version"), S(WEIR_VERSION));
    jo_kint(rq->out, S("now_ns"), now);
    jo_kint(rq->out, S("started_ns"), api->started_ns);
    TRY(write_project(api, rq, &tree, e));
    TRY(write_endpoints(api, rq, tree, e));
    TRY(write_monitors(api, rq, e));
    TRY(write_rollouts(api, rq, e));
    TRY(flow_list(api->ctx.meta, &(struct flow_query){.unfinished = true, .limit = 20}, rq->a,
                  &flows, e));
    jo_key(rq->out, S("flows"));
    jo_node(rq->out, flows);
    TRY(journal_last_seq(api->ctx.meta, &facts, e));
    jo_kint(rq->out, S("facts"), facts);
    if (api->ctx.status)
        api->ctx.status(api->ctx.ctx, rq->out);
    jo_object_end(rq->out);
    return 0;
}

int api_metrics_get(struct api *api, struct api_request *rq, struct err *e)
{
    struct buf *to = rq->out->to;
    int64_t facts, flows;

    TRY(journal_last_seq(api->ctx.meta, &facts, e));
    TRY(meta_first_int(api->ctx.meta, "SELECT COUNT(*) FROM wf WHERE ended_ns IS NULL", M_NO_ARGS,
                       0, &flows, e));
    rq->content_type = "text/plain; version=0.0.4; charset=utf-8";
#define METRIC(name, type, help, value)                                                   \
    buf_printf(to, "# HELP " name " " help "\n# TYPE " name " " type "\n" name " %llu\n", \
               (unsigned long long)(value))
    METRIC("weir_control_start_time_seconds", "gauge", "When this process began, unix time.",
           api->started_ns / NS_PER_S);
    METRIC("weir_control_requests_total", "counter", "Requests to the control API.", api->requests);
    METRIC("weir_control_request_errors_total", "counter", "Those answered with an error.",
           api->failed + api->refused);
    METRIC("weir_control_connections", "gauge", "Open connections to the control API.",
           api->conn_count);
    METRIC("weir_journal_facts_total", "counter", "Facts in the journal.", facts);
    METRIC("weir_flows_unfinished", "gauge", "Flows that have not ended.", flows);
#undef METRIC
    return 0;
}

int api_seal_post(struct api *api, struct api_request *rq, struct err *e)
{
    if (!api->ctx.seal)
        return FAIL(e, UNIMPLEMENTED, "this process has no gateways to tell");
    api->ctx.seal(api->ctx.ctx);
    jo_object(rq->out);
    jo_kbool(rq->out, S("asked"), true);
    jo_object_end(rq->out);
    return 0;
}

/* Control is ready when it answers at all; reading the journal proves that its store does. */
int api_ready_get(struct api *api, struct api_request *rq, struct err *e)
{
    int64_t facts;

    TRY(journal_last_seq(api->ctx.meta, &facts, e));
    jo_object(rq->out);
    jo_kbool(rq->out, S("ready"), true);
    jo_object_end(rq->out);
    return 0;
}
