/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model repository, statistics and shared memory, as clients of Triton ask for them.
 *
 * A gateway serves what the project says. Unloading an endpoint takes it out of service on this
 * gateway and out of its memory, loading brings it back as the plan has it; both are errands, and
 * answered when they are done. Files or configurations in a request are refused. A client never
 * gets to map memory of the server: that has been the way into others.
 */
#include "serve/priv.h"

#include <stdio.h>

int repository_check_load(str model, bool with_config, struct err *e)
{
    if (!with_config)
        return 0;
    return FAIL(e, UNIMPLEMENTED,
                "failed to load '" STR_F "': configurations and files come from the registry, "
                "not from a request: use weir register and weir apply",
                STR_A(str_take(model, 128)));
}

int shared_memory_refuse(struct err *e)
{
    return FAIL(e, UNIMPLEMENTED,
                "shared memory is not offered: send tensors in the request, as raw bytes where "
                "speed counts");
}

/* --- The index -------------------------------------------------------------------------------- */

/* Of an endpoint without a version in memory. */
static void absent_each(const struct served_endpoint *ep, repository_fn fn, void *ctx)
{
    struct repository_entry entry = {.name = ep->plan.name,
                                     .state = "UNAVAILABLE",
                                     .reason =
                                         ep->unloaded ? "unloaded" : "no version is promoted"};
    char text[16];

    for (size_t v = 0; v < ep->plan.version_count; v++) {
        snprintf(text, sizeof(text), "%u", ep->plan.versions[v].version);
        entry.version = str_of(text);
        fn(ctx, &entry);
    }
    if (!ep->plan.version_count)
        fn(ctx, &entry);
}

void repository_each(const struct served_plan *plan, bool ready, repository_fn fn, void *ctx)
{
    for (size_t i = 0; plan && i < plan->endpoint_count; i++) {
        const struct served_endpoint *ep = plan->endpoints[i];

        for (size_t v = 0; v < ep->version_count; v++)
            fn(ctx, &(struct repository_entry){ep->plan.name, ep->versions[v].text, "READY", ""});
        if (!ep->version_count && !ready)
            absent_each(ep, fn, ctx);
    }
}

void versions_each(const struct served_plan *plan, const struct served_endpoint *ep,
                   const struct served_version *only, version_fn fn, void *ctx)
{
    for (size_t i = 0; plan && i < plan->endpoint_count; i++)
        for (size_t v = 0; v < plan->endpoints[i]->version_count; v++)
            if ((!ep || plan->endpoints[i] == ep) &&
                (!only || &plan->endpoints[i]->versions[v] == only))
                fn(ctx, plan->endpoints[i], &plan->endpoints[i]->versions[v]);
}

static void write_entry(void *ctx, const struct repository_entry *entry)
{
    struct json_out *o = ctx;

    jo_object(o);
    jo_kstr(o, S("name"), entry->name);
    if (entry->version.n)
        jo_kstr(o, S("version"), entry->version);
    jo_kstr(o, S("state"), str_of(entry->state));
    jo_kstr(o, S("reason"), str_of(entry->reason));
    jo_object_end(o);
}

/* {"ready": true} asks for what can answer alone; an empty body for all. */
static NODISCARD int only_ready(struct conn *c, str body, bool *ret, struct err *e)
{
    struct json *root;

    *ret = false;
    if (!str_trim(body).n)
        return 0;
    TRY(json_parse(body, &c->l->turn, &root, e));
    *ret = json_bool_or(json_get(root, S("ready")), false);
    return 0;
}

void repository_index(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct buf *to;
    struct json_out o;
    struct err e;
    bool ready;

    (void)m;
    if (only_ready(c, body, &ready, &e)) {
        conn_answer_error(c, &e);
        return;
    }
    to = answer_begin(c);
    jo_begin(&o, to);
    jo_array(&o);
    repository_each(c->l->plan, ready, write_entry, &o);
    jo_array_end(&o);
    conn_answer(c, 200, "application/json", buf_str(to));
}

void repository_load(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct json *root = NULL;
    struct err e;
    int rc = 0;

    if (str_trim(body).n)
        rc = json_parse(body, &c->l->turn, &root, &e);
    if (!rc)
        rc = repository_check_load(m->model, json_get(root, S("parameters")) != NULL, &e);
    if (rc)
        conn_answer_error(c, &e);
    else
        errand_begin(c, m->model, true);
}

void repository_unload(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    (void)body; /* what depends on it is not unloaded: nothing does */
    errand_begin(c, m->model, false);
}

/* --- Shared memory ---------------------------------------------------------------------------- */

void shared_memory_status(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    (void)m, (void)body;
    conn_answer(c, 200, "application/json", S("[]"));
}

void shared_memory_register(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct err e;

    (void)m, (void)body;
    (void)!shared_memory_refuse(&e);
    conn_answer_error(c, &e);
}

void shared_memory_unregister(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    (void)m, (void)body;
    conn_answer(c, 200, "application/json", S("{}"));
}

/* --- Statistics ------------------------------------------------------------------------------- */

static void write_duration(struct json_out *o, str key, uint64_t count, uint64_t us)
{
    jo_key(o, key);
    jo_object(o);
    jo_kint(o, S("count"), (int64_t)count);
    jo_kint(o, S("ns"), (int64_t)us * 1000);
    jo_object_end(o);
}

static void write_statistics(struct json_out *o, const struct counters *n)
{
    uint64_t ok = n->ends[END_OK];

    jo_key(o, S("inference_stats"));
    jo_object(o);
    write_duration(o, S("success"), ok, n->parts[PART_TOTAL].us_sum);
    write_duration(o, S("fail"), counters_failed(n), 0);
    write_duration(o, S("queue"), ok, n->parts[PART_QUEUE].us_sum);
    write_duration(o, S("compute_input"), ok, 0);
    write_duration(o, S("compute_infer"), ok, n->parts[PART_COMPUTE].us_sum);
    write_duration(o, S("compute_output"), ok, 0);
    jo_object_end(o);
    jo_key(o, S("batch_stats"));
    jo_array(o);
    jo_array_end(o);
}

static void write_model(void *ctx, const struct served_endpoint *ep, const struct served_version *v)
{
    struct json_out *o = ctx;
    struct counters n;

    counters_sum(v->counters, &n);
    jo_object(o);
    jo_kstr(o, S("name"), ep->plan.name);
    jo_kstr(o, S("version"), v->text);
    jo_kint(o, S("last_inference"), (int64_t)n.last_ms);
    jo_kint(o, S("inference_count"), (int64_t)n.rows);
    jo_kint(o, S("execution_count"), (int64_t)n.ends[END_OK]);
    write_statistics(o, &n);
    jo_object_end(o);
}

/* Of the model and version that the path names, or of all. */
void model_stats(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct served_endpoint *ep = NULL;
    struct served_version *only = NULL;
    struct json_out o;

    (void)body;
    if (m->model.n && !(ep = oip_find(c, m, &only)))
        return;
    answer_object(c, &o);
    jo_key(&o, S("model_stats"));
    jo_array(&o);
    versions_each(c->l->plan, ep, only, write_model, &o);
    jo_array_end(&o);
    answer_object_end(c, &o, 200, "application/json");
}

/* --- The configuration that Triton would have, as far as it means something here -------------- */

static void write_specs(struct conn *c, struct json_out *o, const struct tensor_spec *specs,
                        uint32_t n, bool batched)
{
    jo_array(o);
    for (uint32_t i = 0; i < n; i++) {
        const char *type =
            specs[i].datatype == TENSOR_BYTES ? "STRING" : tensor_type_name(specs[i].datatype);

        jo_object(o);
        jo_kstr(o, S("name"), specs[i].name);
        jo_kstr(o, S("data_type"), arena_printf(&c->l->turn, "TYPE_%s", type));
        jo_key(o, S("dims"));
        jo_array(o);
        for (uint32_t d = batched ? 1 : 0; d < specs[i].rank; d++)
            jo_int(o, specs[i].shape[d]);
        jo_array_end(o);
        jo_object_end(o);
    }
    jo_array_end(o);
}

void model_config(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct served_version *v;
    struct served_endpoint *ep = oip_find(c, m, &v);
    struct json_out o;

    (void)body;
    if (!ep)
        return;
    answer_object(c, &o);
    jo_kstr(&o, S("name"), ep->plan.name);
    jo_kstr(&o, S("platform"), ep->champion->plan->platform);
    jo_kstr(&o, S("backend"), S("weir"));
    jo_kint(&o, S("max_batch_size"), ep->batched ? ep->plan.rows_max : 0);
    jo_key(&o, S("input"));
    write_specs(c, &o, ep->schema.inputs, ep->schema.input_count, ep->batched);
    jo_key(&o, S("output"));
    write_specs(c, &o, ep->schema.outputs, ep->schema.output_count, ep->batched);
    answer_object_end(c, &o, 200, "application/json");
}
