/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request heads and whole requests. See http1_fields.c for how parts of a head are handled.
 */
#include "wire/http1_priv.h"

#define METHOD_BYTES_MAX 32

const struct http1_limits HTTP1_LIMITS_DEFAULT = {
    .head_bytes = 16 << 10,
    .target_bytes = 8 << 10,
    .headers = HTTP1_HEADERS_MAX,
    .body_bytes = 64 << 20,
    .chunk_line_bytes = 256,
    .small_chunks = 16384,
    .trailer_bytes = 4 << 10,
};

static const struct {
    int status;
    str reason;
} refusals[HTTP1_REFUSAL_COUNT] = {
    [HTTP1_OK] = {200, S_INIT("")},
#define REFUSAL(name, code, text) [HTTP1_NO_##name] = {code, S_INIT(text)},
#include "wire/http1_refusals.def"
#undef REFUSAL
};

int http1_refusal_status(enum http1_refusal r)
{
    ASSERT(r < HTTP1_REFUSAL_COUNT);
    return refusals[r].status;
}

str http1_refusal_reason(enum http1_refusal r)
{
    ASSERT(r < HTTP1_REFUSAL_COUNT);
    return refusals[r].reason;
}

/* --- The request line ----------------------------------------------------------------------- */

enum http1_method http1_method_of(str m)
{
    static const str names[] = {
#define METHOD(name, text) S_INIT(text),
#include "wire/http1_methods.def"
#undef METHOD
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_eq(m, names[i]))
            return (enum http1_method)i;
    }
    return HTTP1_M_OTHER;
}

static enum http1_refusal take_method(struct http1_cursor *c, struct http1_request *req)
{
    const char *from = c->at, *end, *space;

    if (c->end - from >= 5) { /* the two that are nearly all there is */
        bool get = memcmp(from, "GET ", 4) == 0, post = memcmp(from, "POST ", 5) == 0;

        if (get || post) {
            req->method = get ? HTTP1_M_GET : HTTP1_M_POST;
            req->method_text = (str){from, get ? 3 : 4};
            c->at = from + req->method_text.n + 1;
            return HTTP1_OK;
        }
    }
    end = MIN(c->end, from + METHOD_BYTES_MAX + 1);
    space = http1_skip_class(from, end, HTTP1_C_TOKEN);
    if (space == end)
        return end == c->end ? HTTP1_STEP_MORE : HTTP1_NO_METHOD;
    if (*space != ' ' || space == from)
        return HTTP1_NO_REQUEST_LINE;
    req->method_text = str_range(from, space);
    req->method = http1_method_of(req->method_text);
    if (req->method == HTTP1_M_OTHER &&
        (str_eq(req->method_text, S("CONNECT")) || str_eq(req->method_text, S("TRACE"))))
        return HTTP1_NO_METHOD;
    c->at = space + 1;
    return HTTP1_OK;
}

static enum http1_refusal take_target(struct http1_cursor *c, uint32_t bytes_max,
                                      struct http1_request *req)
{
    const char *from = c->at;
    bool near = (size_t)(c->end - from) > bytes_max;
    const char *end = near ? from + bytes_max + 1 : c->end, *space = http1_skip_target(from, end);

    if (space == end)
        return near || c->cut ? HTTP1_NO_TARGET_TOO_LONG : HTTP1_STEP_MORE;
    if (*space == '\n')
        return HTTP1_NO_LINE_END;
    if (*space == '\r' || (*space == ' ' && space == from))
        return HTTP1_NO_REQUEST_LINE;
    if (*space != ' ')
        return HTTP1_NO_TARGET;
    req->target = str_range(from, space);
    c->at = space + 1;
    return HTTP1_OK;
}

bool http1_is_authority(str s)
{
    return http1_skip_class(s.p, s.p + s.n, HTTP1_C_HOST) == s.p + s.n;
}

/* Length of "http://" or "https://" at the start, or 0. */
static size_t scheme_bytes(str t)
{
    if (t.n >= 7 && str_eq_nocase(str_take(t, 7), S("http://")))
        return 7;
    if (t.n >= 8 && str_eq_nocase(str_take(t, 8), S("https://")))
        return 8;
    return 0;
}

enum http1_refusal http1_split_target(struct http1_request *req)
{
    str t = req->target;
    const char *mark;

    req->host = STR_NULL;
    if (t.p[0] != '/') {
        size_t scheme = scheme_bytes(t);

        if (str_eq(t, S("*")) && req->method == HTTP1_M_OPTIONS) {
            req->path = t;
            req->query = STR_NULL;
            return HTTP1_OK;
        }
        if (!scheme)
            return HTTP1_NO_TARGET;
        t = str_skip(t, scheme);
        req->host = t;
        for (req->host.n = 0; req->host.n < t.n; req->host.n++) {
            if (t.p[req->host.n] == '/' || t.p[req->host.n] == '?')
                break;
        }
        if (req->host.n == 0 || !http1_is_authority(req->host))
            return HTTP1_NO_TARGET;
        t = str_skip(t, req->host.n);
    }
    mark = t.n ? memchr(t.p, '?', t.n) : NULL;
    req->query = mark ? str_range(mark + 1, t.p + t.n) : STR_NULL;
    req->path = mark ? str_range(t.p, mark) : t;
    if (req->path.n == 0)
        req->path = S("/");
    return HTTP1_OK;
}

static enum http1_refusal take_request_line(struct http1_cursor *c,
                                            const struct http1_limits *limits,
                                            struct http1_request *req)
{
    enum http1_refusal r;

    if (c->at < c->end && *c->at == '\r') { /* one empty line: RFC 9112 section 2.2 */
        r = http1_take_line_end(c);
        if (r)
            return r;
    }
    r = take_method(c, req);
    if (!r)
        r = take_target(c, limits->target_bytes, req);
    if (!r)
        r = http1_split_target(req);
    if (!r)
        r = http1_take_version(c, HTTP1_NO_REQUEST_LINE, &req->version_minor);
    if (r)
        return r;
    r = http1_take_line_end(c);
    return r == HTTP1_NO_CONTROL ? HTTP1_NO_REQUEST_LINE : r;
}

/* --- The head ------------------------------------------------------------------------------- */

static enum http1_refusal read_meaning(struct http1_request *req)
{
    const struct http1_fields *f = &req->fields;
    str host = http1_known(f, HTTP1_F_HOST), expect = http1_known(f, HTTP1_F_EXPECT);

    if (!host.p && req->version_minor >= 1)
        return HTTP1_NO_HOST_MISSING;
    if (host.p && !http1_is_authority(host))
        return HTTP1_NO_HOST;
    if (!req->host.p) /* the absolute form wins: RFC 9112 section 3.2.2 */
        req->host = host;
    req->framing = HTTP1_BODY_NONE;
    enum http1_refusal r =
        http1_framing_of(f, req->version_minor, &req->framing, &req->content_length);
    if (r)
        return r;
    req->keep_alive = http1_keep_alive(f, req->version_minor);
    req->upgrade = (f->connection & HTTP1_CONN_UPGRADE) != 0;
    req->expect_continue = expect.p && req->version_minor >= 1;
    if (req->expect_continue && !str_eq_nocase(expect, S("100-continue")))
        return HTTP1_NO_EXPECT;
    return HTTP1_OK;
}

enum http1_event http1_head_parse(const char *p, size_t n, const struct http1_limits *limits,
                                  size_t *seen, struct http1_request *req,
                                  enum http1_refusal *ret_refusal)
{
    bool cut = n >= limits->head_bytes;
    struct http1_cursor c = {.at = p, .end = p + (cut ? limits->head_bytes : n), .cut = cut};
    enum http1_refusal r;

    if (n == 0 || !http1_worth_parsing(p, n, limits, seen))
        return HTTP1_MORE;
    r = take_request_line(&c, limits, req);
    if (!r)
        r = http1_take_fields(&c, limits->headers, &req->fields);
    if (!r)
        r = read_meaning(req);
    if (r == HTTP1_STEP_MORE) {
        if (!cut)
            return HTTP1_MORE;
        r = HTTP1_NO_HEAD_TOO_LARGE;
    }
    if (r) {
        *ret_refusal = r;
        return HTTP1_REFUSED;
    }
    req->head_bytes = (size_t)(c.at - p);
    req->body = STR_NULL;
    *seen = 0;
    return HTTP1_HEAD;
}

static void move(str *s, const char *from, size_t n, const char *to)
{
    uintptr_t at = (uintptr_t)s->p - (uintptr_t)from;

    if (s->p && at <= n) /* not the constant "/" */
        s->p = to + at;
}

void http1_request_move(struct http1_request *req, const char *from, const char *to)
{
    size_t n = req->head_bytes + req->body.n;

    if (from == to)
        return;
    move(&req->method_text, from, n, to);
    move(&req->target, from, n, to);
    move(&req->path, from, n, to);
    move(&req->query, from, n, to);
    move(&req->host, from, n, to);
    move(&req->body, from, n, to);
    for (uint32_t i = 0; i < req->fields.count; i++) {
        move(&req->fields.headers[i].name, from, n, to);
        move(&req->fields.headers[i].value, from, n, to);
    }
}

/* --- Whole requests ------------------------------------------------------------------------- */

void http1_parser_init(struct http1_parser *ps, const struct http1_limits *limits)
{
    *ps = (struct http1_parser){.limits = limits ? *limits : HTTP1_LIMITS_DEFAULT};
    ASSERT(ps->limits.headers >= 1 && ps->limits.headers <= HTTP1_HEADERS_MAX);
    ASSERT(ps->limits.head_bytes >= 64 && ps->limits.chunk_line_bytes >= 4);
}

enum http1_event http1_parse(struct http1_parser *ps, char *p, size_t *n, struct http1_request *req)
{
    size_t at, used, out;
    bool fresh = !ps->in_body;
    enum http1_event ev;

    if (fresh) {
        ev = http1_head_parse(p, *n, &ps->limits, &ps->seen, req, &ps->refusal);
        if (ev != HTTP1_HEAD)
            return ev;
        ps->refusal = http1_body_begin(&ps->body, req->framing, req->content_length, &ps->limits);
        if (ps->refusal)
            return HTTP1_REFUSED;
        ps->in_body = true;
        ps->body_at = req->head_bytes;
        ps->body_n = 0;
    }
    ps->body.limits = &ps->limits; /* the parser may have been moved */
    at = ps->body_at + ps->body_n;
    ASSERT(at <= *n);
    ev = http1_body_decode(&ps->body, p + at, *n - at, &used, &out, &ps->refusal);
    if (ev == HTTP1_REFUSED)
        return ev;
    ps->body_n += out;
    if (ev == HTTP1_REQUEST) {
        req->body = (str){p + ps->body_at, ps->body_n};
        ps->consumed = at + used;
        ps->in_body = false;
        return ev;
    }
    if (used != out) { /* at most a partial line of framing follows: little to move */
        memmove(p + at + out, p + at + used, *n - at - used);
        *n -= used - out;
    }
    return fresh ? HTTP1_HEAD : HTTP1_MORE;
}

size_t http1_parser_wants(const struct http1_parser *ps, size_t n)
{
    uint64_t left = ps->in_body ? http1_body_left(&ps->body) : 0;
    size_t here = n - MIN(n, ps->body_at + ps->body_n);

    return left > here ? (size_t)left - here : 0;
}

int http1_is_h2_preface(const char *p, size_t n)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    _Static_assert(sizeof(preface) - 1 == HTTP1_H2_PREFACE_BYTES, "RFC 9113 section 3.4");
    if (n && memcmp(p, preface, MIN(n, sizeof(preface) - 1)) != 0)
        return 0;
    return n >= sizeof(preface) - 1 ? 1 : -1;
}
