/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow "register": the steps of register.c, each with a checkpoint, so that the API can start a
 * registration and anybody can watch it. The candidate travels as the output of each step; the last
 * step commits it with its own checkpoint. A refusal ends the flow; the fact that tells of it is
 * written when the flow ends, with the end.
 */
#include "registry/priv.h"

#include "base/time.h"

#define STEP_LEASE_NS (10 * 60 * NS_PER_S)

static str text(const struct json *in, str key)
{
    return json_str_or(json_get(in, key), S(""));
}

static const struct json *object(const struct json *in, str key)
{
    const struct json *v = json_get(in, key);

    return json_is_container(v) ? v : NULL;
}

static const char *path_of(const struct json *in, str key, struct arena *a)
{
    str path = text(in, key);

    return path.n ? arena_dupz(a, path) : NULL;
}

static NODISCARD int request_of(struct flow_ctx *ctx, struct registry_request *ret, struct err *e)
{
    const struct registry_env *env = flow_env(ctx);
    const struct json *in = flow_input(ctx);
    struct arena *a = flow_arena(ctx);
    struct json *project = NULL;

    if (env->project)
        TRY(env->project(env->project_ctx, flow_meta(ctx), a, &project, e));
    *ret = (struct registry_request){
        .model = text(in, S("model")),
        .path = arena_dupz(a, text(in, S("path"))),
        .project = project,
        .actor = text(in, S("actor")).n ? text(in, S("actor")) : S("weir"),
        .reason = text(in, S("reason")),
        .correlation = flow_correlation(ctx),
        .metrics = object(in, S("metrics")),
        .metadata = object(in, S("metadata")),
        .training = object(in, S("training")),
        .evaluation = object(in, S("evaluation")),
        .golden = object(in, S("golden")),
        .pipeline = object(in, S("pipeline")),
        .reference = path_of(in, S("reference"), a),
        .holdout = path_of(in, S("holdout"), a),
        .promote = json_bool_or(json_get(in, S("promote")), false),
        .first_promote = json_bool_or(json_get(in, S("promote_first")), true),
    };
    return 0;
}

typedef int (*part_fn)(const struct registry_env *env, const struct registry_request *req,
                       struct arena *a, struct json *candidate, struct err *e);

static NODISCARD int part(struct flow_ctx *ctx, const char *before, part_fn fn, struct err *e)
{
    struct registry_request req;
    struct json *candidate = NULL;

    TRY(request_of(ctx, &req, e));
    if (before)
        TRY(flow_output_of(ctx, before, &candidate, e));
    candidate =
        candidate ? json_copy(flow_arena(ctx), candidate) : json_new_object(flow_arena(ctx));
    TRY(fn(flow_env(ctx), &req, flow_arena(ctx), candidate, e));
    flow_output(ctx, candidate);
    return 0;
}

static int step_copy(struct flow_ctx *ctx, struct err *e)
{
    return part(ctx, NULL, register_copy, e);
}

static int step_probe(struct flow_ctx *ctx, struct err *e)
{
    return part(ctx, "copy", register_probe, e);
}

static int step_profile(struct flow_ctx *ctx, struct err *e)
{
    return part(ctx, "probe", register_profile, e);
}

static int step_commit(struct flow_ctx *ctx, struct err *e)
{
    struct arena *a = flow_arena(ctx);
    struct json *candidate, *result = json_new_object(a);
    struct registry_request req;
    struct registry_result r;
    struct meta *m;

    TRY(request_of(ctx, &req, e));
    TRY(flow_output_of(ctx, "profile", &candidate, e));
    TRY(flow_tx(ctx, &m, e));
    TRY(register_commit(m, &req, candidate, &r, e));
    json_set_str(a, result, S("model"), req.model);
    json_set_int(a, result, S("version"), r.version);
    json_set_str(a, result, S("artifact"), arena_dup(a, str_of(r.artifact)));
    json_set_str(a, result, S("profile"), arena_dup(a, str_of(r.profile)));
    json_set_bool(a, result, S("promoted"), r.promoted);
    json_set_str(a, result, S("note"), arena_dup(a, str_of(r.note)));
    flow_output(ctx, result);
    return 0;
}

static int ended(struct flow_ctx *ctx, enum flow_state state, const struct err *cause,
                 struct err *e)
{
    struct registry_request req;
    struct meta *m;

    (void)state;
    if (!cause || !register_is_refusal(cause))
        return 0;
    TRY(request_of(ctx, &req, e));
    TRY(flow_tx(ctx, &m, e));
    return register_refused(m, &req, "register", cause, e);
}

static const struct flow_step steps[] = {
    {.name = "copy", .fn = step_copy, .timeout_ns = STEP_LEASE_NS},
    {.name = "probe", .fn = step_probe, .timeout_ns = STEP_LEASE_NS},
    {.name = "profile", .fn = step_profile, .timeout_ns = STEP_LEASE_NS},
    {.name = "commit", .fn = step_commit},
};

const struct flow_type *registry_flow(void)
{
    static const struct flow_type type = {
        .name = "register", .steps = steps, .step_count = ARRAY_LEN(steps), .on_end = ended};

    return &type;
}
