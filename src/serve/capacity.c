/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics of how full the gateway is: the queues of crews, the requests that are away in them, and
 * the limits that requests are held against. Requests that the loops run themselves are in flight
 * only within a turn, so they have no gauge: what waits there waits in the sockets.
 */
#include "serve/priv.h"

#include "base/time.h"

static const struct {
    const char *name, *help;
    size_t at, bytes;
} crew_metrics[] = {
#define CREW_METRIC(name, field, help) \
    {name, help, offsetof(struct crew_stats, field), sizeof(((struct crew_stats *)0)->field)},
#include "serve/crew_metrics.def"
#undef CREW_METRIC
};

static void write_gauge_head(struct buf *to, const char *name, const char *help)
{
    buf_printf(to, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name);
}

/* Calls fn for every version that a crew runs; true when there was one. */
static bool each_crew(struct buf *to, const struct served_plan *plan, const char *name,
                      const char *help, void (*fn)(struct buf *, const struct crew_stats *, size_t),
                      size_t m)
{
    bool begun = false;

    for (size_t i = 0; i < plan->endpoint_count; i++)
        for (size_t k = 0; k < plan->endpoints[i]->version_count; k++) {
            const struct served_version *v = &plan->endpoints[i]->versions[k];
            struct crew_stats stats;

            if (!v->model->crew)
                continue;
            if (!begun)
                write_gauge_head(to, name, help);
            begun = true;
            crew_stats(v->model->crew, &stats);
            buf_printf(to, "%s{endpoint=\"" STR_F "\",version=\"" STR_F "\"} ", name,
                       STR_A(plan->endpoints[i]->plan.name), STR_A(v->text));
            fn(to, &stats, m);
        }
    return begun;
}

static void put_count(struct buf *to, const struct crew_stats *stats, size_t m)
{
    uint64_t value = 0;

    memcpy(&value, (const char *)stats + crew_metrics[m].at, crew_metrics[m].bytes);
    buf_printf(to, "%llu\n", (unsigned long long)value);
}

static void put_cost(struct buf *to, const struct crew_stats *stats, size_t m)
{
    (void)m;
    buf_printf(to, "%.9f\n", (double)stats->row_cost_ns / (double)NS_PER_S);
}

static void write_crews(struct buf *to, const struct served_plan *plan)
{
    for (size_t m = 0; m < ARRAY_LEN(crew_metrics); m++)
        if (!each_crew(to, plan, crew_metrics[m].name, crew_metrics[m].help, put_count, m))
            return;
    each_crew(to, plan, "weir_crew_row_cost_seconds", "What a row has lately cost a worker.",
              put_cost, 0);
}

static void write_limits(struct buf *to, const struct served_plan *plan)
{
    write_gauge_head(to, "weir_endpoint_inflight", "Requests of the endpoint that are in crews.");
    for (size_t i = 0; i < plan->endpoint_count; i++)
        buf_printf(to, "weir_endpoint_inflight{endpoint=\"" STR_F "\"} %u\n",
                   STR_A(plan->endpoints[i]->plan.name),
                   __atomic_load_n(&plan->endpoints[i]->away, __ATOMIC_RELAXED));
    write_gauge_head(to, "weir_endpoint_inflight_max", "How many requests may be in flight.");
    for (size_t i = 0; i < plan->endpoint_count; i++)
        buf_printf(to, "weir_endpoint_inflight_max{endpoint=\"" STR_F "\"} %u\n",
                   STR_A(plan->endpoints[i]->plan.name), plan->endpoints[i]->plan.inflight_max);
    write_gauge_head(to, "weir_endpoint_timeout_seconds",
                     "The deadline of a request that asks for no shorter one.");
    for (size_t i = 0; i < plan->endpoint_count; i++)
        buf_printf(to, "weir_endpoint_timeout_seconds{endpoint=\"" STR_F "\"} %.6f\n",
                   STR_A(plan->endpoints[i]->plan.name),
                   (double)plan->endpoints[i]->plan.timeout_ns / (double)NS_PER_S);
}

void capacity_write_metrics(struct buf *to, const struct served_plan *plan)
{
    if (!plan || !plan->endpoint_count)
        return;
    write_limits(to, plan);
    write_crews(to, plan);
}
