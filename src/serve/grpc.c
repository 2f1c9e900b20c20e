/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Open Inference Protocol over gRPC. A call is a request of HTTP/2 whose body holds one
 * message; calls are a table of methods, whose handlers answer with one message, and ModelInfer,
 * which becomes an exchange as a REST request does and shares its reading, limits and routing.
 *
 * A failed call is a head alone with the status; the HTTP status is 200 whatever happens.
 */
#include "serve/observe.h"

#include "base/mem.h"

#include <stdio.h>

#define VERSIONS_MAX PLAN_VERSIONS_MAX

#define OIP "inference.GRPCInferenceService"
#define HEALTH "grpc.health.v1.Health"

/* Where a message names the endpoint that it is about. */
enum grpc_names { GRPC_NAMES_NONE, GRPC_NAMES_MODEL, GRPC_NAMES_ENTRY };

/* *m is what the message names, if it names anything; else it is empty. */
typedef void (*grpc_fn)(struct conn *c, const struct route_match *m, str message);
#define GRPC(service, method, permission, names, handler, help) \
    static void handler(struct conn *c, const struct route_match *m, str message);
#include "serve/grpc.def"
#undef GRPC

static const struct {
    str service, method;
    enum permission permission;
    enum grpc_names names;
    grpc_fn fn;
} calls[] = {
#define GRPC(service, method, permission, names, handler, help) \
    {S_INIT(service), S_INIT(method), PERMISSION_##permission, GRPC_NAMES_##names, handler},
#include "serve/grpc.def"
#undef GRPC
};

/* --- Answers ---------------------------------------------------------------------------------- */

#define HEAD_MAX 3

static size_t head_fields(struct http1_header fields[HEAD_MAX])
{
    fields[0] = (struct http1_header){S("content-type"), S("application/grpc")};
    return 1;
}

/* `x`: whose answer it is; NULL for the other calls. */
static void finish(struct http2_stream *st, const struct exchange *x, str message)
{
    struct http1_header fields[HEAD_MAX], trailers[GRPC_TRAILERS_MAX];
    char text[GRPC_TEXT_BYTES];
    size_t n = head_fields(fields);
    str note;

    if (x && (note = x->repeated ? x->repeated->note : fallback_header(x->conn->l, x)).n)
        fields[n++] = (struct http1_header){S("x-weir-fallback"), note};
    if (x && x->repeated)
        fields[n++] = (struct http1_header){S("idempotent-replayed"), S("true")};
    http2_respond_head(st, 200, fields, n);
    http2_stream_write(st, message);
    http2_stream_finish(st, trailers, grpc_trailers(NULL, text, trailers));
    http2_stream_release(st);
}

static void finish_error(struct http2_stream *st, const struct err *e, uint32_t retry_ms)
{
    struct http1_header fields[HEAD_MAX + GRPC_TRAILERS_MAX];
    char text[GRPC_TEXT_BYTES], pushback[12];
    size_t n = head_fields(fields);

    n += grpc_trailers(e, text, fields + n);
    if (retry_ms) {
        int digits = snprintf(pushback, sizeof(pushback), "%u", retry_ms);

        fields[n++] =
            (struct http1_header){S("grpc-retry-pushback-ms"), {pushback, (size_t)digits}};
    }
    http2_respond_only(st, 200, fields, n);
    http2_stream_release(st);
}

void grpc_answer_error(struct conn *c, const struct err *e)
{
    uint32_t retry_ms = c->retry_ms;

    c->retry_ms = 0;
    observe_answer(c, code_http_status(e->code), e->code, 0);
    finish_error(TAKE(c->stream), e, retry_ms);
}

void grpc_respond_done(struct http2_stream *st, struct serve_loop *l, int rc, const struct err *e)
{
    size_t began;
    struct err late;

    buf_clear(&l->body);
    began = grpc_message_begin(&l->body);
    if (rc)
        finish_error(st, e, 0);
    else if (grpc_message_end(&l->body, began, &late))
        finish_error(st, &late, 0);
    else
        finish(st, NULL, buf_str(&l->body));
}

void grpc_refuse(struct http2_stream *st)
{
    struct err e = {.code = grpc_code_of_http(http1_refusal_status(st->refusal))};

    (void)!str_to_z(http1_refusal_reason(st->refusal), e.msg, sizeof(e.msg));
    finish_error(st, &e, 0);
}

/* The message of an answer is what is appended to the buffer in between. */
static struct buf *begin(struct conn *c, size_t *ret_began)
{
    struct buf *to = answer_begin(c);

    *ret_began = grpc_message_begin(to);
    return to;
}

RUNS_ON(on_loop) static void end(struct conn *c, size_t began)
{
    struct err e;

    if (grpc_message_end(&c->l->body, began, &e))
        grpc_answer_error(c, &e);
    else {
        observe_answer(c, 200, CODE_OK, c->l->body.n);
        finish(TAKE(c->stream), NULL, buf_str(&c->l->body));
    }
}

/* --- ModelInfer ------------------------------------------------------------------------------- */

static NODISCARD int read_infer(struct conn *c, struct served_endpoint *ep, struct tensor *inputs,
                                str body, struct arena *a, struct infer_request *request,
                                struct err *e)
{
    (void)c;
    return infer_pb_request_read(body, &ep->schema, inputs, a, request, e);
}

static NODISCARD int write_infer(struct serve_loop *l, struct exchange *x,
                                 const struct tensor *outputs, struct buf *body, struct err *e)
{
    struct infer_request *request = x->form_state;
    size_t began = grpc_message_begin(body);

    TRY(infer_pb_response_write(body, &x->version->response_pb, request,
                                post_of_tensors(l, x, outputs), fallback_parameters(l, x), e));
    return grpc_message_end(body, began, e);
}

static void respond(struct exchange *x, int rc, const struct err *e, str body)
{
    if (!x->conn)
        return;
    if (rc)
        finish_error(TAKE(x->stream), e, 0);
    else
        finish(TAKE(x->stream), x, body);
}

int grpc_model(struct conn *c, str message, struct route_match *ret, struct err *e)
{
    struct infer_pb_model m;

    TRY(infer_pb_model_read(message, &m, e));
    *ret = (struct route_match){m.name, m.version, endpoint_named(c, m.name)};
    return 0;
}

/* The endpoint of the match, and the version if one is named. */
RUNS_ON(on_loop)
static NODISCARD int find_model(struct conn *c, const struct route_match *m,
                                struct served_version **ret_v, struct err *e)
{
    *ret_v = NULL;
    TRY(endpoint_check(c, m->model, m->ep, e));
    if (m->version.n && !(*ret_v = served_version_find(m->ep, m->version)))
        return FAIL(e, NOT_FOUND, "Request for unknown model: '" STR_F "' has no version " STR_F,
                    STR_A(m->model), STR_A(str_take(m->version, 32)));
    return 0;
}

int grpc_infer(struct conn *c, const struct exchange_form *form, void *owner,
               const struct route_match *m, str message, struct err *e)
{
    const struct oip_form how = {
        .exchange = form, .owner = owner, .read = read_infer, .timeout_ns = c->call->timeout_ns};
    struct served_version *named;
    int rc;

    TRY(find_model(c, m, &named, e));
    rc = named ? 0 : admission_early(c, m->ep, how.timeout_ns, e);
    if (!rc)
        rc = oip_exchange(c, m->ep, named, &how, message, e);
    if (rc)
        exchange_count_refused(c, m->ep, e);
    return rc;
}

static void model_infer(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    static const struct exchange_form form = {"grpc", respond, write_infer};
    struct err e;

    if (grpc_infer(c, &form, NULL, m, message, &e))
        grpc_answer_error(c, &e);
}

static bool is_ready(const struct conn *c)
{
    const struct served_endpoint *missing;

    return gateway_leaving(c->l->gw) != GATEWAY_ANNOUNCES && plan_is_ready(c->l->plan, &missing);
}

/* --- The server ------------------------------------------------------------------------------- */

RUNS_ON(on_loop) static void answer_flag(struct conn *c, bool yes)
{
    size_t began;

    infer_pb_flag_write(begin(c, &began), yes);
    end(c, began);
}

static void server_live(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    (void)m, (void)message;
    answer_flag(c, true);
}

static void server_ready(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    (void)m, (void)message;
    answer_flag(c, is_ready(c));
}

static void server_metadata(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    size_t began;

    (void)m, (void)message;
    infer_pb_server_write(begin(c, &began), gateway_config(c->l->gw)->server_name, S(WEIR_VERSION),
                          oip_extensions, oip_extension_count);
    end(c, began);
}

static void health_check(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    bool ready = is_ready(c);
    size_t began;
    str service;
    struct err e;

    (void)m;
    if (!infer_pb_health_read(message, &service, &e) && service.n && !str_eqz(service, OIP) &&
        !(c->l->plan && served_plan_find(c->l->plan, service)))
        (void)FAIL(&e, NOT_FOUND, "service '" STR_F "' is unknown", STR_A(str_take(service, 128)));
    else
        e.code = CODE_OK;
    if (e.code) {
        grpc_answer_error(c, &e);
        return;
    }
    infer_pb_health_write(begin(c, &began),
                          ready ? INFER_PB_HEALTH_SERVING : INFER_PB_HEALTH_NOT_SERVING);
    end(c, began);
}

/* --- Models ----------------------------------------------------------------------------------- */

/* The endpoint of the match, and the version if one is named; else answered, and NULL. */
RUNS_ON(on_loop)
static struct served_endpoint *named(struct conn *c, const struct route_match *m,
                                     struct served_version **ret_v)
{
    struct err e;

    if (!find_model(c, m, ret_v, &e))
        return m->ep;
    grpc_answer_error(c, &e);
    return NULL;
}

static void model_ready(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    struct served_version *v;
    struct err e;

    (void)m, (void)message;
    answer_flag(c, !find_model(c, m, &v, &e));
}

static void model_metadata(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    struct served_version *v;
    struct served_endpoint *ep = named(c, m, &v);
    str versions[VERSIONS_MAX];
    size_t began;

    (void)message;
    if (!ep)
        return;
    for (size_t i = 0; i < ep->version_count; i++)
        versions[i] = ep->versions[i].text;
    infer_pb_metadata_write(begin(c, &began), ep->plan.name, versions, (uint32_t)ep->version_count,
                            ep->champion->plan->platform, &ep->schema);
    end(c, began);
}

static void call_model_config(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    struct served_version *v;
    struct served_endpoint *ep = named(c, m, &v);
    size_t began;

    (void)message;
    if (!ep)
        return;
    infer_pb_config_write(begin(c, &began), ep->plan.name, ep->champion->plan->platform, S("weir"),
                          ep->batched ? (int32_t)ep->plan.rows_max : 0, &ep->schema);
    end(c, began);
}

static void write_statistics(void *ctx, const struct served_endpoint *ep,
                             const struct served_version *v)
{
    struct buf *to = ctx;
    struct infer_pb_statistics s = {.name = ep->plan.name, .version = v->text};
    struct counters n;

    counters_sum(v->counters, &n);
    s.inference_count = n.rows;
    s.execution_count = s.success.count = n.ends[END_OK];
    s.success.ns = n.parts[PART_TOTAL].us_sum * 1000;
    s.queue = (struct infer_pb_duration){n.ends[END_OK], n.parts[PART_QUEUE].us_sum * 1000};
    s.compute_infer =
        (struct infer_pb_duration){n.ends[END_OK], n.parts[PART_COMPUTE].us_sum * 1000};
    s.fail.count = counters_failed(&n);
    s.last_inference_ms = n.last_ms;
    infer_pb_statistics_write(to, &s);
}

static void model_statistics(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    struct served_endpoint *ep = NULL;
    struct served_version *only = NULL;
    struct buf *to;
    size_t began;

    (void)m, (void)message;
    if (m->model.n && !(ep = named(c, m, &only)))
        return;
    to = begin(c, &began);
    versions_each(c->l->plan, ep, only, write_statistics, to);
    end(c, began);
}

/* --- The repository --------------------------------------------------------------------------- */

static void write_entry(void *ctx, const struct repository_entry *entry)
{
    infer_pb_index_write(ctx, entry->name, entry->version, str_of(entry->state),
                         str_of(entry->reason));
}

static void call_repository_index(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    struct infer_pb_repository r;
    size_t began;
    struct err e;

    (void)m;
    if (infer_pb_index_read(message, &r, &e)) {
        grpc_answer_error(c, &e);
        return;
    }
    repository_each(c->l->plan, r.ready, write_entry, begin(c, &began));
    end(c, began);
}

static void call_repository_load(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    struct infer_pb_repository r;
    struct err e;
    int rc = infer_pb_load_read(message, &r, &e);

    (void)m;
    if (!rc)
        rc = repository_check_load(r.model, r.config.n || r.has_files, &e);
    if (rc)
        grpc_answer_error(c, &e);
    else
        errand_begin(c, r.model, true);
}

static void call_repository_unload(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    struct infer_pb_repository r;
    struct err e;

    (void)m;
    if (infer_pb_load_read(message, &r, &e))
        grpc_answer_error(c, &e);
    else
        errand_begin(c, r.model, false);
}

/* --- Shared memory ---------------------------------------------------------------------------- */

static void no_regions(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    size_t began;

    (void)m, (void)message;
    (void)begin(c, &began);
    end(c, began);
}

static void refuse_region(struct conn *c, const struct route_match *m, str message)
{
    ROLE_ASSERT(on_loop);
    struct err e;

    (void)m, (void)message;
    (void)!shared_memory_refuse(&e);
    grpc_answer_error(c, &e);
}

/* --- Routing ---------------------------------------------------------------------------------- */

/* The one message of a body, unfolded; it lives as long as the turn. */
RUNS_ON(on_loop)
static NODISCARD int only_message(struct conn *c, str body, str *ret_message, struct err *e)
{
    struct grpc_message m;
    size_t used;

    if (grpc_message_next(body, GRPC_REQUEST_BYTES_MAX, &m, &used, e) == GRPC_BROKEN)
        return (int)e->code;
    if (!body.n || used != body.n)
        return FAIL(e, INVALID_ARGUMENT, "the call has to hold one whole message");
    return grpc_unfold(c, &m, ret_message, e);
}

int grpc_unfold(struct conn *c, const struct grpc_message *m, str *ret_message, struct err *e)
{
    struct serve_loop *l = c->l;

    c->unfolded = m->compressed;
    TRY(grpc_message_read(
        m->compressed ? loop_coder(l) : NULL, c->call, m,
        MIN(GRPC_REQUEST_BYTES_MAX, (size_t)gateway_config(l->gw)->body_bytes_max), &l->unfolded,
        ret_message, e));
    if (m->compressed)
        *ret_message = arena_dup(&l->turn, *ret_message);
    return 0;
}

int grpc_admit(struct conn *c, enum permission permission, const struct route_match *m,
               struct err *e)
{
    struct guard_verdict v;

    if (LIKELY(guard_asked(c, permission, m->model, m->ep, &v)))
        return 0;
    guard_error(&v, e);
    return (int)e->code;
}

static NODISCARD int names_read(struct conn *c, enum grpc_names names, str message,
                                struct route_match *ret, struct err *e)
{
    struct infer_pb_repository r;

    if (names == GRPC_NAMES_MODEL)
        return grpc_model(c, message, ret, e);
    if (names == GRPC_NAMES_ENTRY) {
        TRY(infer_pb_load_read(message, &r, e));
        *ret = (struct route_match){.model = r.model, .ep = endpoint_named(c, r.model)};
    }
    return 0;
}

RUNS_ON(on_loop) static NODISCARD int route(struct conn *c, str body, struct err *e)
{
    struct route_match m = {0};
    str message = STR_NULL;

    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        if (str_eq(calls[i].method, c->call->method) &&
            str_eq(calls[i].service, c->call->service)) {
            TRY(only_message(c, body, &message, e));
            TRY(names_read(c, calls[i].names, message, &m, e));
            TRY(grpc_admit(c, calls[i].permission, &m, e));
            calls[i].fn(c, &m, message);
            return 0;
        }
    TRY(grpc_admit(c, PERMISSION_METADATA, &m, e));
    return FAIL(e, UNIMPLEMENTED, "no such call: " STR_F, STR_A(str_take(c->req->path, 128)));
}

void grpc_route(struct conn *c, str body)
{
    struct grpc_call call;
    struct err e;

    c->noted = false;
    if (grpc_call_read(c->req, &call, &e)) {
        grpc_answer_error(c, &e);
        return;
    }
    c->call = &call;
    if (route(c, body, &e))
        grpc_answer_error(c, &e);
    c->call = NULL;
}
