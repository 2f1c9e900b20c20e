/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/predict/{endpoint}: rows by field name in, a plain answer out.
 *
 *   {"features":{"age":41},"metadata":{"request_id":"…","user_id":"…"}}
 *   {"prediction":"1","score":0.93,"confidence":0.93,"model_version":"3","timestamp":"…",
 *    "metadata":{"request_id":"…","endpoint":"fraud"}}
 *
 * A list of rows gets {"predictions":[…], …}; its numbers are those of the single-row form, since
 * both go through the same lane. Field names of the answer can be changed by the plan (aliases).
 */
#include "serve/priv.h"

#include "base/num.h"
#include "base/time.h"

/* The name of an answer field, as the project calls it. */
static str name_of(const struct served_endpoint *ep, str field)
{
    return json_str_or(json_get(ep->plan.aliases, field), field);
}

static void write_number(struct json_out *o, str key, double v)
{
    jo_key(o, key);
    jo_real(o, v);
}

static void write_class(struct json_out *o, const struct plan_reading *plan,
                        const struct row_reading *r)
{
    if (r->cls >= 0 && (size_t)r->cls < plan->class_count)
        jo_str(o, plan->classes[r->cls]);
    else if (r->has_int)
        jo_int(o, r->cls_int);
    else if (r->cls_text.p)
        jo_str(o, r->cls_text);
    else if (r->value == r->value)
        jo_real(o, r->value);
    else
        jo_null(o);
}

static void write_scores(struct json_out *o, const struct served_endpoint *ep,
                         const struct row_reading *r)
{
    if (r->score == r->score)
        write_number(o, name_of(ep, S("score")), r->score);
    else if (r->value == r->value)
        write_number(o, name_of(ep, S("score")), r->value);
    if (r->confidence == r->confidence)
        write_number(o, name_of(ep, S("confidence")), r->confidence);
}

static void write_prediction(struct json_out *o, const struct served_endpoint *ep,
                             const struct tensor *outputs, uint32_t row)
{
    struct row_post post = {.prediction = STR_NULL};
    struct row_reading r;

    reading_of_row(&ep->plan.signature, outputs, row, &r);
    if (ep->plan.post)
        post_of_row(ep, outputs, row, &r, &post);
    jo_key(o, name_of(ep, S("prediction")));
    if (post.prediction.n)
        jo_str(o, post.prediction);
    else
        write_class(o, &ep->plan.signature.reading, &r);
    if (!post.hides_scores)
        write_scores(o, ep, &r);
    if (post.band.n)
        jo_kstr(o, name_of(ep, S("band")), post.band);
    if (post.rule.n)
        jo_kstr(o, name_of(ep, S("rule")), post.rule);
}

/* What is said once in an answer. */
static void write_common(struct json_out *o, const struct exchange *x)
{
    char iso[TIME_ISO_SIZE];

    time_iso(x->wall_ns, iso);
    jo_kstr(o, name_of(x->ep, S("model_version")), x->version->text);
    jo_kstr(o, name_of(x->ep, S("timestamp")), str_of(iso));
    jo_key(o, name_of(x->ep, S("metadata")));
    jo_object(o);
    jo_kstr(o, S("request_id"), (str){x->id, x->id_bytes});
    jo_kstr(o, S("endpoint"), x->ep->plan.name);
    fallback_write(o, x);
    jo_object_end(o);
}

static NODISCARD int write_predict(struct serve_loop *l, struct exchange *x,
                                   const struct tensor *outputs, struct buf *body, struct err *e)
{
    const struct fields_request *request = x->form_state;
    struct json_out o;

    (void)l;
    for (uint32_t i = 0; i < x->ep->schema.output_count; i++)
        if (outputs[i].count < x->rows)
            return FAIL(e, INTERNAL, "output '" STR_F "' has %zu elements for %u rows",
                        STR_A(outputs[i].spec->name), outputs[i].count, x->rows);
    jo_begin(&o, body);
    jo_object(&o);
    if (request->is_list) {
        jo_key(&o, S("predictions"));
        jo_array(&o);
    }
    for (uint32_t row = 0; row < x->rows; row++) {
        if (request->is_list)
            jo_object(&o);
        write_prediction(&o, x->ep, outputs, row);
        if (request->is_list)
            jo_object_end(&o);
    }
    if (request->is_list)
        jo_array_end(&o);
    write_common(&o, x);
    jo_object_end(&o);
    return body->overflowed ? FAIL(e, RESOURCE_EXHAUSTED, "the answer is too large") : 0;
}

static const struct exchange_form predict_form = {"predict", exchange_respond, write_predict};

static str sticky_key(struct conn *c, const struct served_endpoint *ep,
                      const struct fields_request *request)
{
    str key = ep->plan.sticky_header.n ? header_of(c, ep->plan.sticky_header) : STR_NULL;

    if (key.n)
        return key;
    if (str_eq(ep->plan.sticky_field, S("user_id")) && request->user_id.n)
        return request->user_id;
    if (ep->plan.sticky_field.n &&
        infer_parameter_get(request->metadata, ep->plan.sticky_field, &key))
        return plain_text(c->l, key);
    return STR_NULL;
}

RUNS_ON(on_loop)
static NODISCARD int predict(struct conn *c, struct served_endpoint *ep, str body,
                             struct fields_request **ret_request, struct err *e)
{
    struct tensor *inputs;
    struct exchange *x = turn_begin(c->l, c, ep, ep->champion, body.n, &inputs);
    struct arena *a = exchange_arena(c->l, x);
    struct fields_request *request = ARENA_NEW(a, struct fields_request);
    bool done = false;
    int rc;

    *ret_request = request;
    x->form = &predict_form;
    x->form_state = request;
    rc = body_check(ep, body, e);
    if (!rc)
        rc = fields_request_read(exchange_body(c->l, x, body), &ep->fields, inputs,
                                 ep->plan.rows_max, a, request, e);
    if (!rc && request->rows < 1)
        rc = FAIL(e, INVALID_ARGUMENT, "the request has no rows");
    if (!rc) {
        exchange_identify(c, x, request->request_id, request->user_id);
        rc = admission_read(c, x, STR_NULL, -1, e);
    }
    if (!rc && ep->window && x->id_given)
        rc = idempotency_begin(c, x, body, &done, e);
    if (!rc && !done)
        rc = turn_commit(c->l, x, ep->champion, request->rows, sticky_key(c, ep, request), e);
    if (rc)
        turn_drop(c->l, x);
    return rc;
}

RUNS_ON(on_loop) static void predict_at(struct conn *c, struct served_endpoint *ep, str body)
{
    struct fields_request *request;
    struct buf *to;
    struct err e;

    if (!ep->fields.column_count || !ep->batched) {
        (void)FAIL(&e, UNIMPLEMENTED,
                   "endpoint '" STR_F "' has no row-by-name form; use /v2/models/" STR_F "/infer",
                   STR_A(ep->plan.name), STR_A(ep->plan.name));
        exchange_refuse(c, ep, &e, NULL, STR_NULL);
        return;
    }
    if (!predict(c, ep, body, &request, &e))
        return;
    to = answer_begin(c);
    fields_error_write(to, request, &e);
    exchange_refuse(c, ep, &e, "application/json", buf_str(to));
}

void predict_endpoint(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct served_endpoint *ep = route_endpoint(c, m);

    if (ep)
        predict_at(c, ep, body);
}

void predict_only(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    const struct served_plan *plan = c->l->plan;
    struct err e;

    if (m->ep) {
        predict_endpoint(c, m, body);
        return;
    }
    (void)FAIL(&e, INVALID_ARGUMENT,
               "name the endpoint: POST /v1/predict/{endpoint} (this project has "
               "%zu)",
               plan ? plan->endpoint_count : 0);
    conn_answer_error(c, &e);
}
