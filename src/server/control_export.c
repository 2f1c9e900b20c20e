/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Housekeeping of data, as a flow on a worker: sealed record segments become Parquet, old Parquet
 * goes, and so do the folders of runs that ended long ago. It runs each minute while there are
 * segments, else each hour.
 */
#include "base/files.h"
#include "base/time.h"
#include "record/export.h"
#include "server/control.h"

#define EXPORT_EVERY_NS (60 * NS_PER_S)
#define SWEEP_EVERY_NS (3600 * NS_PER_S)
#define ENDED_FLOWS_NS                                                        \
    (INT64_C(7) * 86400 * NS_PER_S) /* ended flows and their folders are kept \
                                     */

static NODISCARD int export_segments(const struct control *c, const struct json *input,
                                     struct arena *a, struct export_result *ret, struct err *e)
{
    const char *segments = path_join(a, c->options->state_dir, "records");
    AUTO(lake_closep) struct lake *l = NULL;

    if (!file_exists(segments)) /* no gateway has been here yet */
        return 0;
    TRY(lake_open(&(struct lake_config){.threads = 1}, &l, e));
    return export_run(
        &(struct export_config){.segments = segments,
                                .lake = path_join(a, c->options->state_dir, "lake"),
                                .keep_segments_ns = 3600 * NS_PER_S,
                                .keep_parquet_ns = json_int_or(json_get(input, S("keep_ns")), 0)},
        l, time_wall_ns(), ret, e);
}

static int step_export(struct flow_ctx *ctx, struct err *e)
{
    const struct control *c = flow_env(ctx);
    struct arena *a = flow_arena(ctx);
    struct export_result result = {0};
    int64_t swept;
    struct json *o;

    TRY(export_segments(c, flow_input(ctx), a, &result, e));
    TRY(retrain_sweep(&c->retrain, flow_meta(ctx), time_wall_ns(), ENDED_FLOWS_NS, &swept, e));
    o = json_new_object(a);
    json_set_int(a, o, S("swept_runs"), swept);
    json_set_int(a, o, S("removed_days"), (int64_t)result.removed_days);
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

static bool has_segments(const char *state_dir, struct arena *a)
{
    char *dir = path_join(a, state_dir, "records");
    struct err e;
    str *names;
    size_t n;

    if (!file_exists(dir) || file_list(dir, a, &names, &n, &e))
        return false;
    for (size_t i = 0; i < n; i++)
        if (str_ends(names[i], S(".seg")))
            return true;
    return false;
}

int control_export_if_due(struct control *c, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct flow_started started;
    struct json *input;
    int64_t pruned, now = time_mono_ns();

    if (now < c->export_due_ns)
        return 0;
    c->export_due_ns = now + EXPORT_EVERY_NS;
    arena_init(&a, 0);
    if (now < c->sweep_due_ns && !has_segments(c->options->state_dir, &a))
        return 0;
    c->sweep_due_ns = now + SWEEP_EVERY_NS;
    input = json_new_object(&a);
    json_set_int(&a, input, S("keep_ns"),
                 json_int_or(json_path(c->project, "gateway.records.retention_ns"), 0));
    TRY(flow_prune(c->meta, time_wall_ns() - ENDED_FLOWS_NS, &pruned, e));
    return flow_start(
        c->meta, &(struct flow_start){.type = "export", .input = input, .dedup_key = S("export")},
        &started, e);
}
