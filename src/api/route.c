/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request to its handler, by routes.def, and from what the handler says to an answer.
 *
 * The table is walked in order: it is short, and a request of the control plane is rare. A path
 * that is known under another method is 405, an unknown one 404 with the nearest known path.
 */
#include "api/priv.h"

#include <stdio.h>

static const struct route {
    enum http1_method method;
    const char *method_text, *path;
    api_handler fn;
    const char *help;
} routes[] = {
#define ROUTE(method, path, handler, help) {HTTP1_M_##method, #method, path, api_##handler, help},
#include "api/routes.def"
#undef ROUTE
};

/* True when the path has the shape of the pattern; *ret_params are its raw segments. */
static bool match(const char *pattern, str path, str params[API_PARAMS_MAX], size_t *ret_n)
{
    str want = str_of(pattern), w, got;
    size_t n = 0;

    while (http1_path_next(&want, &w)) {
        if (!http1_path_next(&path, &got))
            return false;
        if (w.p[0] == '{')
            params[n++] = got;
        else if (!str_eq(w, got))
            return false;
    }
    *ret_n = n;
    return !http1_path_next(&path, &got);
}

static NODISCARD int decode_params(struct api_request *rq, const str *raw, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        char *out = arena_alloc(rq->a, raw[i].n + 1);

        TRY(http1_segment_decode(raw[i], out, raw[i].n + 1, &rq->param[i], e));
    }
    return 0;
}

static NODISCARD int find(struct api_request *rq, const struct route **ret_route, struct err *e)
{
    enum http1_method method = rq->http->method == HTTP1_M_HEAD ? HTTP1_M_GET : rq->http->method;
    bool known = false;
    size_t n;

    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        str raw[API_PARAMS_MAX];

        if (!match(routes[i].path, rq->http->path, raw, &n))
            continue;
        known = true;
        if (routes[i].method != method)
            continue;
        *ret_route = &routes[i];
        return decode_params(rq, raw, n, e);
    }
    if (known)
        return FAIL(e, UNIMPLEMENTED, "method " STR_F " is not for " STR_F,
                    STR_A(rq->http->method_text), STR_A(rq->http->path));
    return FAIL(e, NOT_FOUND, "there is no " STR_F "; GET /api/v1/routes lists what there is",
                STR_A(str_take(rq->http->path, 200)));
}

/* --- Who may ask ------------------------------------------------------------------------------ */

bool api_host_is_known(const struct api *api, str host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    ptrdiff_t colon = -1;

    for (size_t i = 0; i < host.n; i++)
        if (host.p[i] == ':' && (host.p[0] != '[' || host.p[i - 1] == ']'))
            colon = (ptrdiff_t)i;
    if (colon >= 0)
        host = str_take(host, (size_t)colon);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_eq_nocase(host, str_of(names[i])))
            return true;
    return host.n && str_eq_nocase(host, str_of(api->host));
}

static NODISCARD int guard(struct api *api, struct api_request *rq, struct err *e)
{
    str origin = http1_field(&rq->http->fields, S("Origin")), host = rq->http->host;

    if (!rq->is_tcp)
        return 0;
    if (!api_host_is_known(api, host))
        return FAIL(e, PERMISSION_DENIED, "this server does not go by the name '" STR_F "'",
                    STR_A(str_take(host, 100)));
    if (origin.n && !(str_starts(origin, S("http://")) && str_eq(str_skip(origin, 7), host)))
        return FAIL(e, PERMISSION_DENIED, "requests of pages from '" STR_F "' are not taken",
                    STR_A(str_take(origin, 100)));
    return 0;
}

static NODISCARD int read_body(struct api_request *rq, struct err *e)
{
    str type = http1_known(&rq->http->fields, HTTP1_F_CONTENT_TYPE);
    struct json *root;

    rq->body = json_new_object(rq->a);
    if (rq->http->method == HTTP1_M_GET || rq->http->method == HTTP1_M_HEAD)
        return 0;
    if (!str_eq_nocase(str_take(type, 16), S("application/json")))
        return FAIL(e, INVALID_ARGUMENT, "Content-Type must be application/json");
    if (!rq->http->body.n)
        return 0;
    if (json_parse(rq->http->body, rq->a, &root, e))
        return err_context(e, "body");
    if (root->type != JSON_OBJECT)
        return FAIL(e, INVALID_ARGUMENT, "the body is a JSON %s, expected an object",
                    json_type_name(root->type));
    rq->body = root;
    return 0;
}

/* --- Answering -------------------------------------------------------------------------------- */

static NODISCARD int answer(struct api *api, struct api_request *rq, struct err *e)
{
    const struct route *route;

    TRY(guard(api, rq, e));
    TRY(find(rq, &route, e));
    TRY(read_body(rq, e));
    TRY(route->fn(api, rq, e));
    if (rq->out->to->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the answer is larger than %zu MiB; ask for less",
                    API_ANSWER_BYTES_MAX >> 20);
    return 0;
}

static void write_error(struct api_request *rq, const struct err *e)
{
    struct buf *to = rq->out->to;

    buf_clear(to);
    jo_begin(rq->out, to);
    jo_object(rq->out);
    jo_key(rq->out, S("error"));
    jo_object(rq->out);
    jo_kstr(rq->out, S("code"), str_of(code_name(e->code)));
    jo_kstr(rq->out, S("message"), str_of(e->msg));
    if (rq->error_details) {
        jo_key(rq->out, S("details"));
        jo_node(rq->out, rq->error_details);
    }
    jo_object_end(rq->out);
    jo_object_end(rq->out);
    rq->content_type = "application/json";
}

int api_answer(struct api *api, struct api_request *rq, struct err *e)
{
    int rc;

    buf_clear(&api->body);
    jo_begin(&api->out, &api->body);
    rq->out = &api->out;
    rq->content_type = "application/json";
    api->requests++;
    rc = answer(api, rq, e);
    if (!rc)
        return 200;
    api->failed++;
    write_error(rq, e);
    return code_http_status(e->code);
}

int api_routes_list(struct api *api, struct api_request *rq, struct err *e)
{
    (void)api, (void)e;
    jo_object(rq->out);
    jo_key(rq->out, S("routes"));
    jo_array(rq->out);
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        jo_object(rq->out);
        jo_kstr(rq->out, S("method"), str_of(routes[i].method_text));
        jo_kstr(rq->out, S("path"), str_of(routes[i].path));
        jo_kstr(rq->out, S("help"), str_of(routes[i].help));
        jo_object_end(rq->out);
    }
    jo_array_end(rq->out);
    jo_object_end(rq->out);
    return 0;
}
