/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing answers: one description of an answer, put into the bytes of HTTP/1.1 or into a stream of
 * HTTP/2. A request at hand is answered by conn_answer(), one that was gathered or sent to a crew
 * by conn_respond() when its turn has come.
 *
 * Retry-After is said with every 429 and 503: both mean that the same request may well be served a
 * moment later.
 */
#include "serve/observe.h"

#include "base/time.h"

#include <stdio.h>

#define ANSWER_FIELDS 16
#define MORE_HEAD_MAX 256

static str date_line(struct serve_loop *l)
{
    int64_t second = l->wall_ns / NS_PER_S;

    if (second != l->date_s) {
        http1_date_line(l->wall_ns, l->date_line);
        l->date_s = second;
    }
    return (str){l->date_line, HTTP1_DATE_LINE_BYTES};
}

/* The date alone: "Date: " before it and CRLF after it belong to HTTP/1.1. */
static str date_value(struct serve_loop *l)
{
    str line = date_line(l);

    return (str){line.p + 6, line.n - 8};
}

static size_t add(char *to, size_t at, str s)
{
    memcpy(to + at, s.p, s.n);
    return at + s.n;
}

/* A request id is echoed in a header only where it is plain enough to be one. */
static bool is_header_text(str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x21 || s.p[i] > 0x7e)
            return false;
    return s.n > 0 && s.n <= REQUEST_ID_MAX;
}

static bool says_retry(int status)
{
    return status == 503 || status == 429;
}

/* In whole seconds, as the header has it, and never "at once". */
static unsigned retry_s(const struct answer *a)
{
    return MAX((a->retry_ms + 999) / 1000, 1u);
}

static void respond_http1(struct conn *c, const struct answer *a, str coded)
{
    char extra[HTTP1_DATE_LINE_BYTES + 192 + MORE_HEAD_MAX];
    size_t n = add(extra, 0, date_line(c->l));
    bool keep_alive = a->keep_alive && !c->closing && !c->l->left_ns;

    if (is_header_text(a->request_id)) {
        n = add(extra, n, S("X-Request-Id: "));
        n = add(extra, n, a->request_id);
        n = add(extra, n, S("\r\n"));
    }
    if (a->json_bytes)
        n += (size_t)snprintf(extra + n, sizeof(extra) - n,
                              "Inference-Header-Content-Length: %zu\r\n", a->json_bytes);
    if (a->more_head.n)
        n = add(extra, n, a->more_head);
    else if (says_retry(a->status))
        n += (size_t)snprintf(extra + n, sizeof(extra) - n, "Retry-After: %u\r\n", retry_s(a));
    if (coded.n) {
        n = add(extra, n, S("Content-Encoding: "));
        n = add(extra, n, coded);
        n = add(extra, n, S("\r\n"));
    }
    http1_write_head(&c->out, a->status, str_of(a->content_type), a->body.n, keep_alive,
                     (str){extra, n});
    buf_add_str(&c->out, a->body);
    if (!keep_alive)
        c->closing = true;
}

/* Header lines as fields of HTTP/2: names in small letters, of the turn's arena. */
static size_t add_lines(struct serve_loop *l, str lines, struct http1_header *fields, size_t n)
{
    while (lines.n && n < ANSWER_FIELDS) {
        str line = str_trim(str_cut(&lines, '\n')), name = str_cut(&line, ':');
        char *small = arena_dupz(&l->turn, name);

        for (char *p = small; *p; p++)
            *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + ('a' - 'A') : *p);
        fields[n++] = (struct http1_header){{small, name.n}, str_trim(line)};
    }
    return n;
}

static void respond_http2(struct conn *c, const struct answer *a, str coded)
{
    struct http1_header fields[ANSWER_FIELDS];
    char number[24], retry[12];
    size_t n = 0;

    fields[n++] = (struct http1_header){S("content-type"), str_of(a->content_type)};
    fields[n++] = (struct http1_header){S("date"), date_value(c->l)};
    if (is_header_text(a->request_id))
        fields[n++] = (struct http1_header){S("x-request-id"), a->request_id};
    if (a->json_bytes) {
        int digits = snprintf(number, sizeof(number), "%zu", a->json_bytes);

        fields[n++] =
            (struct http1_header){S("inference-header-content-length"), {number, (size_t)digits}};
    }
    if (a->more_head.n)
        n = add_lines(c->l, a->more_head, fields, n);
    else if (says_retry(a->status)) {
        int digits = snprintf(retry, sizeof(retry), "%u", retry_s(a));

        fields[n++] = (struct http1_header){S("retry-after"), {retry, (size_t)digits}};
    }
    if (coded.n)
        fields[n++] = (struct http1_header){S("content-encoding"), coded};
    http2_respond(a->stream, a->status, fields, n, a->body);
    http2_stream_release(a->stream);
}

void conn_respond(struct conn *c, const struct answer *a)
{
    struct answer folded = *a;
    str coded = answer_fold(c->l, a->coding, &folded.body) ? coding_name(a->coding) : STR_NULL;

    if (a->stream)
        respond_http2(c, &folded, coded);
    else
        respond_http1(c, &folded, coded);
}

struct buf *answer_begin(struct conn *c)
{
    buf_clear(&c->l->body);
    return &c->l->body;
}

void conn_answer(struct conn *c, int status, const char *content_type, str body)
{
    AUTO(buf_done) struct buf copy = {0};
    struct answer a = {.status = status,
                       .content_type = content_type,
                       .request_id = http1_known(&c->req->fields, HTTP1_F_X_REQUEST_ID),
                       .keep_alive = c->req->keep_alive,
                       .more_head = c->more_head,
                       .retry_ms = c->retry_ms,
                       .coding = answer_coding(c),
                       .body = body};

    observe_answer(c, status, status < 400 ? CODE_OK : CODE_UNKNOWN, body.n);
    a.stream = TAKE(c->stream);
    if (c->req->method == HTTP1_M_HEAD)
        a.coding = CODING_IDENTITY;
    c->more_head = STR_NULL;
    c->retry_ms = 0;
    if (c->pending && !a.stream) { /* earlier requests first; their answers use the scratch too */
        buf_init(&copy, OUT_MAX_BYTES);
        buf_add_str(&copy, body);
        a.body = buf_str(&copy);
        turn_flush(c->l);
    }
    conn_respond(c, &a);
    if (!a.stream && c->req->method == HTTP1_M_HEAD && !c->out.overflowed)
        c->out.n -= a.body.n; /* the head says how long it would be */
}

void conn_answer_error(struct conn *c, const struct err *e)
{
    struct buf *to;

    if (c->call) {
        grpc_answer_error(c, e);
        return;
    }
    if (c->pending && !c->stream)
        turn_flush(c->l);
    to = answer_begin(c);
    infer_error_write(to, e);
    conn_answer(c, code_http_status(e->code), "application/json", buf_str(to));
}

void answer_object(struct conn *c, struct json_out *ret_object)
{
    jo_begin(ret_object, answer_begin(c));
    jo_object(ret_object);
}

void answer_object_end(struct conn *c, struct json_out *o, int status, const char *content_type)
{
    jo_object_end(o);
    conn_answer(c, status, content_type, buf_str(o->to));
}
