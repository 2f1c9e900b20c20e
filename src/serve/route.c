/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request to its handler. Routes are a table of paths whose segments are literal, {m} or
 * {v}; a path is cut once and held against the routes that have as many segments. What matches no
 * path is 404, a path with another method 405.
 *
 * Before the handler runs, the guard is asked with the permission of the route. A path that is none
 * needs the permission to read metadata: who may not know what there is may not find out by trying.
 */
#include "serve/observe.h"

#include "base/hash.h"
#include "base/time.h"

#define SEGMENTS_MAX 7

static const struct {
    enum http1_method method;
    str path;
    enum permission permission;
    route_fn fn;
} routes[] = {
#define ROUTE(method, path, permission, handler, help) \
    {HTTP1_M_##method, S_INIT(path), PERMISSION_##permission, handler},
#include "serve/routes.def"
#undef ROUTE
};

static uint32_t cut(str path, str segments[SEGMENTS_MAX])
{
    uint32_t n = 0;

    while (n < SEGMENTS_MAX && http1_path_next(&path, &segments[n]))
        n++;
    return n;
}

static bool matches(str pattern, const str *segments, uint32_t n, struct route_match *m)
{
    str want;

    for (uint32_t i = 0; i < n; i++) {
        if (!http1_path_next(&pattern, &want))
            return false;
        if (str_eq(want, S("{m}")))
            m->model = segments[i];
        else if (str_eq(want, S("{v}")))
            m->version = segments[i];
        else if (!str_eq(want, segments[i]))
            return false;
    }
    return !http1_path_next(&pattern, &want);
}

/* Names arrive percent-encoded: decoded once, here. */
static NODISCARD int decode(struct conn *c, str *name, struct err *e)
{
    char *out;

    if (!name->n || str_find_char(*name, '%') < 0)
        return 0;
    out = arena_alloc(&c->l->turn, name->n);
    return http1_segment_decode(*name, out, name->n, name, e);
}

RUNS_ON(on_loop) static void not_found(struct conn *c, bool other_method)
{
    struct err e;

    if (other_method)
        (void)FAIL(&e, UNIMPLEMENTED, "method " STR_F " is not allowed here",
                   STR_A(str_take(c->req->method_text, 16)));
    else
        (void)FAIL(&e, NOT_FOUND, "no such path: " STR_F, STR_A(str_take(c->req->path, 128)));
    if (c->pending && !c->stream)
        turn_flush(c->l);
    infer_error_write(answer_begin(c), &e);
    conn_answer(c, other_method ? 405 : 404, "application/json", buf_str(&c->l->body));
}

struct served_endpoint *endpoint_named(const struct conn *c, str name)
{
    return c->l->plan && name.n ? served_plan_find(c->l->plan, name) : NULL;
}

bool guard_asked(struct conn *c, enum permission permission, str endpoint,
                 const struct served_endpoint *ep, struct guard_verdict *ret)
{
    struct served_plan *plan = c->l->plan;
    struct guard_ask ask = {.auth = plan ? plan->auth : NULL,
                            .permission = permission,
                            .endpoint = endpoint,
                            .bucket = ep ? ep->bucket : NULL,
                            .rate = ep ? &ep->limit : NULL,
                            .fields = &c->req->fields,
                            .peer = c->peer,
                            .now_ns = c->l->now_ns,
                            .wall_ns = c->l->wall_ns};

    bool allowed = guard_admit(c->l->guard, &ask, ret);

    c->permissions = ret->permissions;
    c->l->caller.tenant = ret->tenant;
    c->l->caller.name = ret->caller;
    c->caller = ret->who;
    return allowed;
}

void guard_error(const struct guard_verdict *v, struct err *ret)
{
    ret->code = v->code;
    (void)!str_to_z(str_take(v->message, sizeof(ret->msg) - 1), ret->msg, sizeof(ret->msg));
}

/* Asks the guard, and answers where it says no. */
RUNS_ON(on_loop)
static bool admit(struct conn *c, enum permission permission, str endpoint,
                  const struct served_endpoint *ep)
{
    struct guard_verdict v;
    struct err e;

    if (LIKELY(guard_asked(c, permission, endpoint, ep, &v)))
        return true;
    if (c->pending && !c->stream)
        turn_flush(c->l); /* the header lines are for this answer */
    guard_error(&v, &e);
    infer_error_write(answer_begin(c), &e);
    c->more_head = v.headers;
    conn_answer(c, v.status, "application/json", buf_str(&c->l->body));
    return false;
}

/* The endpoint that a path names; a route to score without a name in its path means the only one.
 */
static void find(const struct conn *c, enum permission permission, struct route_match *m)
{
    const struct served_plan *plan = c->l->plan;

    m->ep = endpoint_named(c, m->model);
    if (m->model.n || permission != PERMISSION_INFER || !plan || plan->endpoint_count != 1)
        return;
    m->ep = plan->endpoints[0];
    m->model = m->ep->plan.name;
}

/* Runs the handler, unless the request is to be refused before its body is touched. */
RUNS_ON(on_loop)
static void handle(struct conn *c, size_t route, const struct route_match *m, str body)
{
    struct err e;

    if (routes[route].permission == PERMISSION_INFER && m->ep && m->ep->champion && !m->version.n &&
        admission_early(c, m->ep, -1, &e)) {
        exchange_refuse(c, m->ep, &e, NULL, STR_NULL);
        return;
    }
    c->unfolded = false;
    if (body_unfold(c, &body, &e))
        conn_answer_error(c, &e);
    else
        routes[route].fn(c, m, body);
}

void route_request(struct conn *c, str body)
{
    str segments[SEGMENTS_MAX];
    uint32_t n = cut(c->req->path, segments);
    enum http1_method method = c->req->method == HTTP1_M_HEAD ? HTTP1_M_GET : c->req->method;
    bool other_method = false;

    c->noted = false;
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        struct route_match m = {0};
        struct err e;

        if (!matches(routes[i].path, segments, n, &m))
            continue;
        if (routes[i].method != method) {
            other_method = true;
            continue;
        }
        if (decode(c, &m.model, &e) || decode(c, &m.version, &e)) {
            if (admit(c, routes[i].permission, STR_NULL, NULL))
                conn_answer_error(c, &e);
            return;
        }
        find(c, routes[i].permission, &m);
        if (admit(c, routes[i].permission, m.model, m.ep))
            handle(c, i, &m, body);
        return;
    }
    if (admit(c, PERMISSION_METADATA, STR_NULL, NULL))
        not_found(c, other_method);
}

str header_of(const struct conn *c, str name)
{
    return http1_field(&c->req->fields, name);
}

int endpoint_check(struct conn *c, str name, struct served_endpoint *ep, struct err *e)
{
    if (!ep)
        return FAIL(e, NOT_FOUND, "Request for unknown model: '" STR_F "' is not found",
                    STR_A(str_take(name, 128)));
    if (ep->unloaded) {
        counters_request(&ep->unready->rows[c->l->index], END_NOT_READY, 0, 0, 0);
        return FAIL(e, NOT_FOUND,
                    "Request for unknown model: '" STR_F "' has no available versions: it was "
                    "unloaded, and can be loaded",
                    STR_A(ep->plan.name));
    }
    if (!ep->champion) {
        counters_request(&ep->unready->rows[c->l->index], END_NOT_READY, 0, 0, 0);
        return FAIL(e, UNAVAILABLE,
                    "model '" STR_F "' is not ready: no version is promoted; register a model and "
                    "promote it",
                    STR_A(ep->plan.name));
    }
    return 0;
}

int endpoint_find(struct conn *c, str name, struct served_endpoint **ret_ep, struct err *e)
{
    *ret_ep = endpoint_named(c, name);
    return endpoint_check(c, name, *ret_ep, e);
}

struct served_endpoint *route_endpoint(struct conn *c, const struct route_match *m)
{
    struct err e;

    if (!endpoint_check(c, m->model, m->ep, &e))
        return m->ep;
    conn_answer_error(c, &e);
    return NULL;
}

int body_check(const struct served_endpoint *ep, str body, struct err *e)
{
    if (body.n <= ep->plan.body_bytes_max)
        return 0;
    return FAIL(e, RESOURCE_EXHAUSTED, "a body of %zu bytes, endpoint '" STR_F "' takes %llu",
                body.n, STR_A(ep->plan.name), (unsigned long long)ep->plan.body_bytes_max);
}

/* The same key must lead to the same version whether it came in a header, in the metadata of a row
 * or as a parameter. */
str plain_text(struct serve_loop *l, str json)
{
    struct json *value;

    if (!json.n || json.p[0] != '"')
        return json;
    if (!memchr(json.p, '\\', json.n))
        return (str){json.p + 1, json.n - 2};
    return json_parse(json, &l->turn, &value, NULL) ? json : json_str_or(value, json);
}

void exchange_identify(struct conn *c, struct exchange *x, str id, str user)
{
    char text[UUID_SIZE];

    if (!id.n) {
        id = http1_known(&c->req->fields, HTTP1_F_X_REQUEST_ID);
        if (!str_is_utf8(id)) /* records and answers hold text */
            id = STR_NULL;
    }
    x->id_given = id.n;
    if (!id.n) {
        uuid_v7(x->wall_ns, text);
        id = (str){text, UUID_SIZE - 1};
    }
    x->id_bytes = (uint8_t)MIN(id.n, (size_t)REQUEST_ID_MAX);
    while (x->id_bytes < id.n && ((unsigned char)id.p[x->id_bytes] & 0xc0) == 0x80)
        x->id_bytes--; /* not in the middle of a character */
    memcpy(x->id, id.p, x->id_bytes);
    x->keep_alive = c->req->keep_alive;
    x->coding = answer_coding(c);
    x->deadline_ns = x->arrival_ns + (int64_t)x->ep->plan.timeout_ns;
    if (user.n) {
        unsigned char digest[SHA256_BYTES];

        hmac_sha256(gateway_config(c->l->gw)->pseudonym_key, user, digest);
        memcpy(x->user, digest, RECORD_USER_BYTES);
        x->has_user = true;
    }
}

/* --- Refusals --------------------------------------------------------------------------------- */

static int refusal_status(const struct err *e)
{
    return e->code == CODE_RESOURCE_EXHAUSTED ? 413 : code_http_status(e->code);
}

RUNS_ON(on_loop)
static void refusal_record(struct conn *c, struct served_endpoint *ep, const struct err *e,
                           enum request_end end, uint64_t us)
{
    int status = refusal_status(e);
    struct serve_loop *l = c->l;
    struct exchange x = {.conn = c,
                         .ep = ep,
                         .version = ep->champion,
                         .arrival_ns = l->now_ns,
                         .wall_ns = l->wall_ns};

    exchange_identify(c, &x, STR_NULL, STR_NULL);
    if (l->ring)
        (void)record_exchange(l->ring, &x, RECORD_PREDICT, ep->champion, NULL, NULL, status, 0);
    observe_refused(c, &x, end, e->code, status, us);
}

void exchange_count_refused(struct conn *c, struct served_endpoint *ep, const struct err *e)
{
    uint64_t us = (uint64_t)((time_mono_ns() - c->l->now_ns) / NS_PER_US);
    struct counters *count = &ep->champion->counters->rows[c->l->index];

    enum request_end end = e->code == CODE_UNAVAILABLE         ? END_SHED
                           : e->code == CODE_DEADLINE_EXCEEDED ? END_DEADLINE
                           : refusal_status(e) < 500           ? END_INVALID
                                                               : END_FAILED;

    counters_request(count, end, 0, us, 0);
    if (e->code == CODE_UNAVAILABLE)
        counter_add(&count->sheds[c->shed], 1);
    refusal_record(c, ep, e, end, us);
}

void exchange_refuse(struct conn *c, struct served_endpoint *ep, const struct err *e,
                     const char *content_type, str body)
{
    int status = refusal_status(e);

    exchange_count_refused(c, ep, e);
    if (content_type) {
        conn_answer(c, status, content_type, body);
        return;
    }
    if (c->pending && !c->stream)
        turn_flush(c->l);
    infer_error_write(answer_begin(c), e);
    conn_answer(c, status, "application/json", buf_str(&c->l->body));
}
