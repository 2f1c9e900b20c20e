/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One exchange: connect, write, read the head (skipping 1xx), decode the body through one window.
 *
 * A server that refuses a large body answers and closes while we are still writing. A failed write
 * is therefore not the end: the answer is read first, and only without one the write error counts.
 */
#include "cli/http.h"

#include "base/mem.h"
#include "base/time.h"
#include "loop/channel.h"

#define WINDOW_BYTES ((size_t)64 << 10)
#define TIMEOUT_DEFAULT_NS (30 * NS_PER_S)
#define BODY_MAX_DEFAULT ((size_t)64 << 20)

struct call {
    const struct cli_http_request *req;
    struct arena *arena;
    char host[ADDR_TEXT_SIZE + 256];
    struct channel channel;
    int64_t deadline_ns;
    char *in; /* owned; WINDOW_BYTES */
    size_t n; /* bytes in it */
    struct http1_limits limits;
    struct http1_response head;
    struct cli_http_response answer;
    struct buf gathered; /* the body, or the line under way */
    struct http1_sse sse;
    bool streamed, stopped;
};

static void call_done(struct call *c)
{
    channel_close(&c->channel);
    mem_free(c->in);
    buf_done(&c->gathered);
    http1_sse_done(&c->sse);
}

static int64_t timeout_ns(const struct call *c)
{
    return c->req->timeout_ns > 0 ? c->req->timeout_ns : TIMEOUT_DEFAULT_NS;
}

static int connect_to(struct call *c, struct err *e)
{
    str address = str_of(c->req->address);
    struct addr addr;

    if (str_starts(address, S("https://")))
        return FAIL(e, INVALID_ARGUMENT,
                    "address '" STR_F "': TLS is not spoken here; use http://host:port or a unix "
                    "socket",
                    STR_A(address));
    if (str_starts(address, S("http://")))
        address = str_skip(address, 7);
    if (!str_starts(address, S("unix:")) && str_ends(address, S("/")))
        address.n--;
    TRY(addr_resolve(address, &addr, e));
    if (addr_is_unix(&addr))
        address = S("localhost");
    if (!str_to_z(address, c->host, sizeof(c->host)))
        return FAIL(e, INVALID_ARGUMENT, "address '" STR_F "' is too long", STR_A(address));
    return channel_open(&c->channel, &addr, NULL, c->host, c->deadline_ns, e);
}

static int send_request(struct call *c, struct err *e)
{
    const struct cli_http_request *q = c->req;
    bool has_body = q->body.p != NULL;
    str method = str_of(q->method ? q->method : has_body ? "POST" : "GET");
    str type = !has_body ? STR_NULL : q->content_type.n ? q->content_type : S("application/json");
    bool needs_length = has_body || str_eq(method, S("POST")) || str_eq(method, S("PUT"));
    AUTO(buf_done) struct buf out = {0};

    buf_init(&out, 2 * WINDOW_BYTES + q->extra.n);
    http1_write_request(&out, method, str_of(q->target ? q->target : "/"), str_of(c->host), type,
                        needs_length ? q->body.n : HTTP1_LENGTH_CLOSE, false, q->extra);
    if (out.overflowed)
        return FAIL(e, INVALID_ARGUMENT, "the request head is larger than %zu bytes",
                    2 * WINDOW_BYTES);
    return channel_write_both(&c->channel, &out, q->body, c->deadline_ns, e);
}

/* Reads more into the window; *ret_end at the end of the stream. */
static int fill(struct call *c, bool *ret_end, struct err *e)
{
    size_t got;

    ASSERT(c->n < WINDOW_BYTES);
    if (c->streamed)
        c->deadline_ns = time_mono_ns() + timeout_ns(c);
    TRY(channel_read(&c->channel, c->in + c->n, WINDOW_BYTES - c->n, c->deadline_ns, &got, e));
    c->n += got;
    *ret_end = got == 0;
    return 0;
}

static void drop(struct call *c, size_t bytes)
{
    c->n -= bytes;
    memmove(c->in, c->in + bytes, c->n);
}

static int refuse(enum http1_refusal why, struct err *e)
{
    str reason = http1_refusal_reason(why);

    if (why == HTTP1_NO_BODY_TOO_LARGE)
        return FAIL(e, RESOURCE_EXHAUSTED, "the answer is too large");
    return FAIL(e, INTERNAL, "what came back is not an HTTP answer: " STR_F, STR_A(reason));
}

static void keep_head(struct call *c)
{
    const struct http1_fields *f = &c->head.fields;

    c->answer.status = c->head.status;
    c->answer.header_count = f->count;
    c->answer.headers = ARENA_ARRAY(c->arena, struct http1_header, f->count);
    for (uint32_t i = 0; i < f->count; i++) {
        c->answer.headers[i].name = arena_dup(c->arena, f->headers[i].name);
        c->answer.headers[i].value = arena_dup(c->arena, f->headers[i].value);
    }
}

static int read_head(struct call *c, struct err *e)
{
    bool to_head = c->req->method && strcmp(c->req->method, "HEAD") == 0, end = false;
    size_t seen = 0;

    for (;;) {
        enum http1_refusal why;

        switch (http1_response_parse(c->in, c->n, &c->limits, to_head, &seen, &c->head, &why)) {
        case HTTP1_REFUSED:
            return refuse(why, e);
        case HTTP1_HEAD:
            if (c->head.status >= 200 || c->head.status == 101) {
                keep_head(c);
                drop(c, c->head.head_bytes);
                return 0;
            }
            drop(c, c->head.head_bytes);
            break;
        default:
            if (end)
                return FAIL(e, UNAVAILABLE, "the connection was closed without an answer");
            TRY(fill(c, &end, e));
        }
    }
}

/* --- The body ------------------------------------------------------------------------------- */

static int gather(struct call *c, str piece, struct err *e)
{
    buf_add_str(&c->gathered, piece);
    if (c->gathered.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the answer is larger than %zu bytes",
                    c->gathered.max_bytes);
    return 0;
}

static void give_line(struct call *c)
{
    str line = buf_str(&c->gathered);

    if (str_ends(line, S("\r")))
        line.n--;
    c->stopped = !c->req->on_line(c->req->arg, line);
    buf_clear(&c->gathered);
}

static int give_lines(struct call *c, str piece, struct err *e)
{
    while (piece.n && !c->stopped) {
        ptrdiff_t lf = str_find_char(piece, '\n');

        TRY(gather(c, str_take(piece, lf < 0 ? piece.n : (size_t)lf), e));
        if (lf < 0)
            return 0;
        give_line(c);
        piece = str_skip(piece, (size_t)lf + 1);
    }
    return 0;
}

static int give(struct call *c, str piece, struct err *e)
{
    bool go = true;

    if (!c->streamed)
        return gather(c, piece, e);
    if (c->req->on_line)
        return give_lines(c, piece, e);
    if (c->req->on_event)
        TRY(http1_sse_feed(&c->sse, piece, c->req->on_event, c->req->arg, &go, e));
    else
        go = c->req->on_piece(c->req->arg, piece);
    c->stopped = !go;
    return 0;
}

static int read_body(struct call *c, struct err *e)
{
    struct http1_body body;
    enum http1_refusal why =
        http1_body_begin(&body, c->head.framing, c->head.content_length, &c->limits);
    bool end = false;

    if (why)
        return refuse(why, e);
    for (;;) {
        size_t used = 0, out = 0;
        enum http1_event ev = http1_body_decode(&body, c->in, c->n, &used, &out, &why);

        if (ev == HTTP1_REFUSED)
            return refuse(why, e);
        if (out)
            TRY(give(c, (str){c->in, out}, e));
        drop(c, used);
        if (ev == HTTP1_REQUEST || c->stopped)
            return 0;
        if (end)
            return http1_body_end(&body) ? 0
                                         : FAIL(e, UNAVAILABLE,
                                                "the connection was closed in the middle of the "
                                                "answer");
        TRY(fill(c, &end, e));
    }
}

static int exchange(struct call *c, struct err *e)
{
    const struct cli_http_request *q = c->req;
    struct err write_err;
    int rc = send_request(c, &write_err);

    if (rc && rc != CODE_UNAVAILABLE) {
        *e = write_err;
        return rc;
    }
    if (read_head(c, e)) {
        if (rc)
            *e = write_err;
        return e->code;
    }
    c->streamed = c->head.status / 100 == 2 && (q->on_piece || q->on_line || q->on_event);
    if (c->streamed)
        c->limits.body_bytes = UINT64_MAX;
    TRY(read_body(c, e));
    if (c->streamed && q->on_line && c->gathered.n && !c->stopped)
        give_line(c);
    if (!c->streamed)
        c->answer.body = arena_dup(c->arena, buf_str(&c->gathered));
    return 0;
}

int cli_http(const struct cli_http_request *req, struct arena *a, struct cli_http_response *ret,
             struct err *e)
{
    size_t max = req->body_bytes_max ? req->body_bytes_max : BODY_MAX_DEFAULT;
    AUTO(call_done) struct call c = {.req = req, .arena = a, .channel = {.fd = -1, .wake_fd = -1}};
    struct err own;

    ASSERT(req->address);
    c.deadline_ns = time_mono_ns() + timeout_ns(&c);
    c.in = mem_alloc(WINDOW_BYTES);
    c.limits = HTTP1_LIMITS_DEFAULT;
    c.limits.body_bytes = max;
    c.limits.small_chunks = UINT32_MAX; /* streams of tokens are made of them */
    buf_init(&c.gathered, max);
    http1_sse_init(&c.sse, MAX(max, (size_t)16));
    TRY(connect_to(&c, e));
    if (exchange(&c, &own)) {
        int rc = err_context(&own, "%s", req->address);

        if (e)
            *e = own;
        return rc;
    }
    *ret = c.answer;
    return 0;
}

str cli_http_header(const struct cli_http_response *res, str name)
{
    for (size_t i = 0; i < res->header_count; i++) {
        if (str_eq_nocase(res->headers[i].name, name))
            return res->headers[i].value;
    }
    return STR_NULL;
}
