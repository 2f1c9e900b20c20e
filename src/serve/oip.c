/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Open Inference Protocol over REST: metadata, readiness and infer. An endpoint of the plan is
 * a model of the protocol. Wordings and forms that real clients look at are kept: the JSON keys of
 * the health answers, "Request for unknown model", a Content-Type without a charset.
 */
#include "serve/priv.h"

#include "base/time.h"

/* --- Infer ------------------------------------------------------------------------------------ */

static NODISCARD int write_infer(struct serve_loop *l, struct exchange *x,
                                 const struct tensor *outputs, struct buf *body, struct err *e)
{
    struct infer_request *request = x->form_state;

    TRY(infer_response_write(body, &x->version->response, request, post_of_tensors(l, x, outputs),
                             fallback_parameters(l, x), INFER_NONFINITE_NULL, &x->json_bytes, e));
    if (request->any_binary)
        x->content_type = "application/octet-stream";
    else
        x->json_bytes = 0;
    return 0;
}

/* Splits the body by Inference-Header-Content-Length, when there is one. */
static NODISCARD int split_body(struct conn *c, str body, str *ret_json, str *ret_raw,
                                bool *ret_all_raw, struct err *e)
{
    str text = http1_known(&c->req->fields, HTTP1_F_INFERENCE_LENGTH);
    uint64_t n;

    *ret_json = body, *ret_raw = STR_NULL, *ret_all_raw = false;
    if (!text.p)
        return 0;
    if (!str_to_u64(text, &n) || n > body.n)
        return FAIL(e, INVALID_ARGUMENT,
                    "Inference-Header-Content-Length is '" STR_F
                    "', expected a number up to the %zu "
                    "bytes of the body",
                    STR_A(str_take(text, 32)), body.n);
    *ret_json = str_take(body, n);
    *ret_raw = (str){body.p + n, body.n - n};
    *ret_all_raw = n == 0;
    return 0;
}

static NODISCARD int read_infer(struct conn *c, struct served_endpoint *ep, struct tensor *inputs,
                                str body, struct arena *a, struct infer_request *request,
                                struct err *e)
{
    static const struct infer_options options = {.null_is_nan = true};
    str json, raw;
    bool all_raw;

    TRY(split_body(c, body, &json, &raw, &all_raw, e));
    if (!all_raw)
        return infer_request_read(json, raw, &ep->schema, &options, inputs, a, request, e);
    if (ep->schema.input_count != 1)
        return FAIL(e, INVALID_ARGUMENT,
                    "a raw binary request needs a model with one input; '" STR_F "' has %u",
                    STR_A(ep->plan.name), ep->schema.input_count);
    return infer_request_read_raw(raw, &ep->schema, &inputs[0], request, e);
}

/* The key that keeps a caller on one version. */
static str sticky_key(struct conn *c, const struct exchange *x, str parameters)
{
    const struct plan_endpoint *plan = &x->ep->plan;
    str key = plan->sticky_header.n ? header_of(c, plan->sticky_header) : STR_NULL;

    if (!key.n && plan->sticky_field.n && infer_parameter_get(parameters, plan->sticky_field, &key))
        return plain_text(c->l, key);
    return key;
}

/* A sequence is a client's word for state that the server keeps between its requests. */
static NODISCARD int check_sequence(str parameters, struct err *e)
{
    str id;

    if (!infer_parameter_get(parameters, S("sequence_id"), &id) || str_eq(id, S("0")) ||
        str_eq(id, S("\"\"")))
        return 0;
    return FAIL(e, UNIMPLEMENTED,
                "sequence_id: models keep nothing from one request of a sequence to the next");
}

int oip_exchange(struct conn *c, struct served_endpoint *ep, struct served_version *named,
                 const struct oip_form *form, str body, struct err *e)
{
    struct served_version *into = named ? named : ep->champion;
    struct infer_request *request;
    struct tensor *inputs;
    struct exchange *x = turn_begin(c->l, c, ep, into, body.n, &inputs);
    struct arena *a = exchange_arena(c->l, x);
    bool done = false;
    int rc;

    request = arena_alloc(a, sizeof(*request));
    x->form = form->exchange;
    x->form_state = request;
    x->form_owner = form->owner;
    x->version = named;
    rc = body_check(ep, body, e);
    if (!rc)
        rc = form->read(c, ep, inputs, exchange_body(c->l, x, body), a, request, e);
    if (!rc && request->rows > (int64_t)ep->plan.rows_max)
        rc = FAIL(e, RESOURCE_EXHAUSTED,
                  "%lld rows, endpoint '" STR_F "' takes at most %u in a request",
                  (long long)request->rows, STR_A(ep->plan.name), ep->plan.rows_max);
    if (!rc)
        rc = check_sequence(request->parameters, e);
    if (!rc && request->rows < 1)
        rc = FAIL(e, INVALID_ARGUMENT, "the request has no rows");
    if (!rc) {
        exchange_identify(c, x, request->id, STR_NULL);
        if (!request->id.p) /* the answer says what it was given */
            request->id = (str){x->id, x->id_bytes};
        rc = admission_read(c, x, request->parameters, form->timeout_ns, e);
    }
    if (!rc && ep->window && x->id_given)
        rc = idempotency_begin(c, x, body, &done, e);
    if (!rc && !done)
        rc = turn_commit(c->l, x, into, ep->batched ? (uint32_t)request->rows : 1,
                         sticky_key(c, x, request->parameters), e);
    if (rc)
        turn_drop(c->l, x);
    return rc;
}

static const struct exchange_form rest_exchange = {"oip", exchange_respond, write_infer};
static const struct oip_form rest_form = {
    .exchange = &rest_exchange, .read = read_infer, .timeout_ns = -1};

/* The endpoint of a path and, where the path names one, its version; else answered, and NULL. */
struct served_endpoint *oip_find(struct conn *c, const struct route_match *m,
                                 struct served_version **ret_version)
{
    struct served_endpoint *ep = route_endpoint(c, m);
    struct err e;

    *ret_version = NULL;
    if (!ep || !m->version.n || (*ret_version = served_version_find(ep, m->version)))
        return ep;
    (void)FAIL(&e, NOT_FOUND, "Request for unknown model: '" STR_F "' has no version " STR_F,
               STR_A(m->model), STR_A(str_take(m->version, 32)));
    if (c->req->method == HTTP1_M_POST && !c->call)
        exchange_refuse(c, ep, &e, NULL, STR_NULL);
    else
        conn_answer_error(c, &e);
    return NULL;
}

void oip_infer(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct served_version *named;
    struct served_endpoint *ep = oip_find(c, m, &named);
    struct err e;

    if (!ep)
        return;
    if (oip_exchange(c, ep, named, &rest_form, body, &e))
        exchange_refuse(c, ep, &e, NULL, STR_NULL);
}

const str oip_extensions[] = {S_INIT("binary_tensor_data"), S_INIT("classification"),
                              S_INIT("parameters"),         S_INIT("statistics"),
                              S_INIT("model_repository"),   S_INIT("model_configuration")};
const uint32_t oip_extension_count = ARRAY_LEN(oip_extensions);

/* --- Metadata --------------------------------------------------------------------------------- */

void oip_server(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct json_out o;

    (void)m, (void)body;
    answer_object(c, &o);
    jo_kstr(&o, S("name"), gateway_config(c->l->gw)->server_name);
    jo_kstr(&o, S("version"), S(WEIR_VERSION));
    jo_key(&o, S("extensions"));
    jo_array(&o);
    for (uint32_t i = 0; i < oip_extension_count; i++)
        jo_str(&o, oip_extensions[i]);
    jo_array_end(&o);
    answer_object_end(c, &o, 200, "application/json");
}

void oip_models(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    const struct served_plan *plan = c->l->plan;
    struct json_out o;

    (void)m, (void)body;
    answer_object(c, &o);
    jo_key(&o, S("models"));
    jo_array(&o);
    for (size_t i = 0; plan && i < plan->endpoint_count; i++)
        jo_str(&o, plan->endpoints[i]->plan.name);
    jo_array_end(&o);
    answer_object_end(c, &o, 200, "application/json");
}

static void write_tensors(struct json_out *o, str key, const struct tensor_spec *specs, uint32_t n)
{
    jo_key(o, key);
    jo_array(o);
    for (uint32_t i = 0; i < n; i++) {
        jo_object(o);
        jo_kstr(o, S("name"), specs[i].name);
        jo_kstr(o, S("datatype"), str_of(tensor_type_name(specs[i].datatype)));
        jo_key(o, S("shape"));
        jo_array(o);
        for (uint32_t d = 0; d < specs[i].rank; d++)
            jo_int(o, specs[i].shape[d]);
        jo_array_end(o);
        jo_object_end(o);
    }
    jo_array_end(o);
}

void oip_metadata(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct served_version *named;
    struct served_endpoint *ep = oip_find(c, m, &named);
    struct json_out o;

    (void)body;
    if (!ep)
        return;
    answer_object(c, &o);
    jo_kstr(&o, S("name"), ep->plan.name);
    jo_key(&o, S("versions"));
    jo_array(&o);
    for (size_t i = 0; i < ep->version_count; i++)
        jo_str(&o, ep->versions[i].text);
    jo_array_end(&o);
    jo_kstr(&o, S("platform"), ep->champion->plan->platform);
    write_tensors(&o, S("inputs"), ep->schema.inputs, ep->schema.input_count);
    write_tensors(&o, S("outputs"), ep->schema.outputs, ep->schema.output_count);
    answer_object_end(c, &o, 200, "application/json");
}

void oip_ready(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct served_version *named;
    struct served_endpoint *ep = oip_find(c, m, &named);
    struct json_out o;

    (void)body;
    if (!ep)
        return;
    answer_object(c, &o);
    jo_kstr(&o, S("name"), ep->plan.name);
    jo_kbool(&o, S("ready"), true);
    answer_object_end(c, &o, 200, "application/json");
}
