/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of the models of a plan that live elsewhere: in processes, on remote servers. */
#include "serve/priv.h"

static const struct {
    const char *name, *type, *help;
    size_t at, bytes;
    bool is_process;
} metrics[] = {
#define RUNTIME_METRIC(name, type, field, is_process, help) \
    {name,                                                  \
     type,                                                  \
     help,                                                  \
     offsetof(struct runtime_stat, field),                  \
     sizeof(((struct runtime_stat *)0)->field),             \
     is_process},
#include "serve/runtime_metrics.def"
#undef RUNTIME_METRIC
};

static const char *const breaker_states[] = {"closed", "open", "half-open"};

static void labels(struct buf *to, const char *name, const struct served_endpoint *ep,
                   const struct served_version *v)
{
    buf_printf(to, "%s{endpoint=\"" STR_F "\",version=\"" STR_F "\"", name, STR_A(ep->plan.name),
               STR_A(v->text));
}

/* One metric over all versions that have it; its head comes with the first. */
static void write_metric(struct buf *to, const struct served_plan *plan, size_t m)
{
    bool begun = false;

    for (size_t i = 0; i < plan->endpoint_count; i++)
        for (size_t k = 0; k < plan->endpoints[i]->version_count; k++) {
            const struct served_version *v = &plan->endpoints[i]->versions[k];
            struct runtime_stat stat;
            uint64_t value = 0;

            runtime_stat(v->model->model, &stat);
            if (metrics[m].is_process ? !stat.instances : !stat.breaker)
                continue;
            if (!begun)
                buf_printf(to, "# HELP %s %s\n# TYPE %s %s\n", metrics[m].name, metrics[m].help,
                           metrics[m].name, metrics[m].type);
            begun = true;
            memcpy(&value, (const char *)&stat + metrics[m].at, metrics[m].bytes);
            labels(to, metrics[m].name, plan->endpoints[i], v);
            buf_printf(to, "} %llu\n", (unsigned long long)value);
        }
}

static void write_breakers(struct buf *to, const struct served_plan *plan)
{
    bool begun = false;

    for (size_t i = 0; i < plan->endpoint_count; i++)
        for (size_t k = 0; k < plan->endpoints[i]->version_count; k++) {
            const struct served_version *v = &plan->endpoints[i]->versions[k];
            struct runtime_stat stat;

            runtime_stat(v->model->model, &stat);
            if (!stat.breaker)
                continue;
            if (!begun)
                buf_add_str(to, S("# HELP weir_runtime_breaker 1 for the state that the breaker of "
                                  "a remote model is in.\n# TYPE weir_runtime_breaker gauge\n"));
            begun = true;
            for (size_t s = 0; s < ARRAY_LEN(breaker_states); s++) {
                labels(to, "weir_runtime_breaker", plan->endpoints[i], v);
                buf_printf(to, ",state=\"%s\"} %d\n", breaker_states[s],
                           strcmp(stat.breaker, breaker_states[s]) == 0);
            }
        }
}

void elsewhere_write_metrics(struct buf *to, const struct served_plan *plan)
{
    for (size_t m = 0; plan && m < ARRAY_LEN(metrics); m++)
        write_metric(to, plan, m);
    if (plan)
        write_breakers(to, plan);
}
