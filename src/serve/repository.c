/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model repository, statistics and shared memory, as clients of Triton ask for them.
 *
 * What a gateway serves is what the project says, so there is nothing to load by request: loading a
 * model that is served is done at once, loading another fails, with the words that clients look
 * for. Unloading, and files or configurations in a request, are refused. A client never gets to map
 * memory of the server: that has been the way into others.
 */
#include "serve/priv.h"

int repository_check_load(struct conn *c, str model, bool with_config, struct err *e)
{
    struct served_endpoint *ep;

    if (with_config)
        return FAIL(e, UNIMPLEMENTED,
                    "failed to load '" STR_F "': configurations and files come from the registry, "
                    "not from a request: use weir register and weir apply",
                    STR_A(str_take(model, 128)));
    if (endpoint_find(c, model, &ep, e))
        return err_context(e, "failed to load '" STR_F "'", STR_A(str_take(model, 128)));
    return 0;
}

int repository_refuse_unload(str model, struct err *e)
{
    return FAIL(e, UNIMPLEMENTED,
                "'" STR_F "' is served because the project says so: take the endpoint out of "
                "weir.yaml and run weir apply",
                STR_A(str_take(model, 128)));
}

int shared_memory_refuse(struct err *e)
{
    return FAIL(e, UNIMPLEMENTED,
                "shared memory is not offered: send tensors in the request, as raw bytes where "
                "speed counts");
}

/* --- The index ----------------------------------------------------------------------------------
 */

static void write_index(struct json_out *o, str name, str version, const char *state,
                        const char *reason)
{
    jo_object(o);
    jo_kstr(o, S("name"), name);
    if (version.n)
        jo_kstr(o, S("version"), version);
    jo_kstr(o, S("state"), str_of(state));
    jo_kstr(o, S("reason"), str_of(reason));
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
    const struct served_plan *plan = c->l->plan;
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
    for (size_t i = 0; plan && i < plan->endpoint_count; i++) {
        const struct served_endpoint *ep = plan->endpoints[i];

        for (size_t v = 0; v < ep->version_count; v++)
            write_index(&o, ep->plan.name, ep->versions[v].text, "READY", "");
        if (!ep->version_count && !ready)
            write_index(&o, ep->plan.name, S(""), "UNAVAILABLE", "no version is promoted");
    }
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
        rc = repository_check_load(c, m->model, json_get(root, S("parameters")) != NULL, &e);
    if (rc)
        conn_answer_error(c, &e);
    else
        conn_answer(c, 200, "application/json", S("{}"));
}

void repository_unload(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct err e;

    (void)body;
    (void)!repository_refuse_unload(m->model, &e);
    conn_answer_error(c, &e);
}

/* --- Shared memory ------------------------------------------------------------------------------
 */

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

/* --- Statistics ---------------------------------------------------------------------------------
 */

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

static void write_model(struct json_out *o, const struct served_endpoint *ep,
                        const struct served_version *v)
{
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
    const struct served_plan *plan = c->l->plan;
    struct served_endpoint *ep = NULL;
    struct served_version *only = NULL;
    struct json_out o;

    (void)body;
    if (m->model.n && !(ep = oip_find(c, m, &only)))
        return;
    answer_object(c, &o);
    jo_key(&o, S("model_stats"));
    jo_array(&o);
    for (size_t i = 0; plan && i < plan->endpoint_count; i++)
        for (size_t v = 0; v < plan->endpoints[i]->version_count; v++)
            if ((!ep || plan->endpoints[i] == ep) &&
                (!only || &plan->endpoints[i]->versions[v] == only))
                write_model(&o, plan->endpoints[i], &plan->endpoints[i]->versions[v]);
    jo_array_end(&o);
    answer_object_end(c, &o, 200, "application/json");
}

/* --- The configuration that Triton would have, as far as it means something here -----------------
 */

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
