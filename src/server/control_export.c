/* SPDX-License-Identifier: Apache-2.0 */
#include "base/time.h"
#include "record/export.h"
#include "server/control.h"

#define EXPORT_EVERY_NS (60 * NS_PER_S)

static int step_export(struct flow_ctx *ctx, struct err *e)
{
    const struct control *c = flow_env(ctx);
    AUTO(lake_closep) struct lake *l = NULL;
    struct arena *a = flow_arena(ctx);
    struct export_result result = {0};
    const struct json *input = flow_input(ctx);
    struct json *o;

    TRY(lake_open(&(struct lake_config){.threads = 1}, &l, e));
    TRY(export_run(
        &(struct export_config){.segments = arena_printf(a, "%s/records", c->options->state_dir).p,
                                .lake = arena_printf(a, "%s/lake", c->options->state_dir).p,
                                .keep_segments_ns = 3600 * NS_PER_S,
                                .keep_parquet_ns = json_int_or(json_get(input, S("keep_ns")), 0)},
        l, time_wall_ns(), &result, e));
    o = json_new_object(a);
    json_set_int(a, o, S("segments"), (int64_t)result.segments);
    json_set_int(a, o, S("rows"), (int64_t)result.rows);
    flow_output(ctx, o);
    return 0;
}

static const struct flow_step steps[] = {
    {.name = "export",
     .fn = step_export,
     .timeout_ns = 600 * NS_PER_S,
     .retry = {.max_attempts = 5, .first_delay_ns = NS_PER_S}},
};
static const struct flow_type type = {.name = "export", .steps = steps, .step_count = 1};

const struct flow_type *export_flow(void)
{
    return &type;
}

int control_export_if_due(struct control *c, int64_t wall_ns, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct flow_started started;
    struct json *input;
    int64_t pruned;

    if (wall_ns < c->export_due_ns)
        return 0;
    c->export_due_ns = wall_ns + EXPORT_EVERY_NS;
    arena_init(&a, 0);
    input = json_new_object(&a);
    json_set_int(&a, input, S("keep_ns"),
                 json_int_or(json_path(c->project, "gateway.records.retention_ns"), 0));
    TRY(flow_prune(c->meta, wall_ns - INT64_C(7) * 86400 * NS_PER_S, &pruned, e));
    return flow_start(
        c->meta, &(struct flow_start){.type = "export", .input = input, .dedup_key = S("export")},
        &started, e);
}
