/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health and metrics. Live says that this loop turns. Ready says that every endpoint of the plan
 * has a version to answer with; an endpoint without one is named.
 */
#include "serve/observe.h"

void health_live(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    (void)m, (void)body;
    conn_answer(c, 200, "application/json", S("{\"live\":true}"));
}

bool plan_is_ready(const struct served_plan *plan, const struct served_endpoint **ret_missing)
{
    for (size_t i = 0; plan && i < plan->endpoint_count; i++)
        if (!plan->endpoints[i]->champion && !plan->endpoints[i]->unloaded) {
            *ret_missing = plan->endpoints[i];
            return false;
        }
    return plan != NULL;
}

void health_ready(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    const struct served_plan *plan = c->l->plan;
    const struct served_endpoint *missing = NULL;
    struct json_out o;

    (void)m, (void)body;
    if (gateway_leaving(c->l->gw) == GATEWAY_ANNOUNCES) {
        conn_answer(c, 503, "application/json",
                    S("{\"ready\":false,\"reason\":\"the gateway is about to stop\"}"));
        return;
    }
    if (plan_is_ready(plan, &missing)) {
        conn_answer(c, 200, "application/json", S("{\"ready\":true}"));
        return;
    }
    answer_object(c, &o);
    jo_kbool(&o, S("ready"), false);
    jo_kstr(&o, S("reason"),
            missing ? arena_printf(&c->l->turn,
                                   "endpoint '" STR_F "' has no version: register and promote a "
                                   "model",
                                   STR_A(missing->plan.name))
                    : S("no plan yet: run weir apply"));
    answer_object_end(c, &o, 503, "application/json");
}

/* --- Metrics ---------------------------------------------------------------------------------- */

static const struct {
    const char *name, *type, *help;
    size_t at;
} loop_metrics[] = {
#define METRIC(name, type, field, help) {name, type, help, offsetof(struct loop_counters, field)},
#include "serve/metrics.def"
#undef METRIC
};

static void write_sample(struct buf *to, const char *name, const char *type, const char *help,
                         uint64_t v)
{
    buf_printf(to, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", name, help, name, type, name,
               (unsigned long long)v);
}

static void write_keeper(struct buf *to, const struct keeper *k)
{
    struct keeper_stats s;

    keeper_stats(k, &s);
    write_sample(to, "weir_records_total", "counter", "Records made durable.", s.records);
    write_sample(to, "weir_record_bytes_total", "counter", "Bytes of records made durable.",
                 s.bytes);
    buf_printf(to,
               "# HELP weir_records_dropped_total Records that were not kept, by reason.\n"
               "# TYPE weir_records_dropped_total counter\n"
               "weir_records_dropped_total{reason=\"ring_full\"} %llu\n"
               "weir_records_dropped_total{reason=\"disk\"} %llu\n",
               (unsigned long long)s.dropped_ring, (unsigned long long)s.dropped_disk);
    write_sample(to, "weir_record_segments_sealed_total", "counter", "Segments closed for export.",
                 s.segments_sealed);
    write_sample(to, "weir_record_flush_failures_total", "counter",
                 "Flushes that the disk refused.", s.flush_failures);
}

void metrics_get(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct gateway *gw = c->l->gw;
    struct buf *to = answer_begin(c);

    (void)m, (void)body;
    for (size_t i = 0; i < ARRAY_LEN(loop_metrics); i++)
        write_sample(to, loop_metrics[i].name, loop_metrics[i].type, loop_metrics[i].help,
                     gateway_loop_sum(gw, loop_metrics[i].at));
    counters_write_metrics(to);
    capacity_write_metrics(to, c->l->plan);
    elsewhere_write_metrics(to, c->l->plan);
    events_write_metrics(to, &fallback_events);
    idempotency_write_metrics(to, c->l->plan);
    guard_write_metrics(gateway_guard(gw), to);
    telemetry_write_metrics(gateway_telemetry(gw), to);
    if (gateway_keeper(gw))
        write_keeper(to, gateway_keeper(gw));
    buf_printf(to,
               "# HELP weir_build_info The running program.\n# TYPE weir_build_info gauge\n"
               "weir_build_info{version=\"" WEIR_VERSION "\"} 1\n"
               "# HELP weir_plan_info The plan in force, by the first 12 digits of its hash.\n"
               "# TYPE weir_plan_info gauge\nweir_plan_info{hash=\"%.12s\"} 1\n",
               c->l->plan ? c->l->plan->hash : "");
    conn_answer(c, 200, "text/plain; version=0.0.4; charset=utf-8", buf_str(to));
}
