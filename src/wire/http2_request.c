/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests in. nghttp2 has checked frames, pseudo-header fields, names, values and lengths against
 * RFC 9113; a request that breaks those rules is malformed and its stream is reset. What is checked
 * here are the rules that the HTTP/1.1 parser has too, with the same refusals: sizes, the target,
 * fields that may stand once, a Host that differs from the authority.
 *
 * Header bytes are copied into the stream's `head`, since HPACK's table forgets them. A list that
 * is too long is read on, to keep the table in step, but not kept; one that is absurdly long (an
 * HPACK bomb) ends the session.
 *
 * Windows. Bytes are given back to the connection as soon as they are stored, so that one slow
 * stream does not block the others; what bounds them is bodies_bytes. They are given back to the
 * stream at once too, up to body_bytes, or as the owner consumes them (by_pieces). A stream that
 * fills its window doubles it, and the connection's with it: long messages over long distances need
 * that.
 */
#include "wire/http2_priv.h"

/* A header block of so many times the largest list allowed is an attack, not a mistake. */
#define BOMB_FACTOR 8

#define FAIL_STREAM NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE /* reset with INTERNAL_ERROR */

static void refuse(struct stream *st, enum http1_refusal why)
{
    if (st->public.refusal || st->public.closed)
        return;
    st->public.refusal = why;
    http2_body_drop(st);
    http2_event_add(st);
}

static struct stream *stream_at(struct http2_session *s, int32_t id)
{
    return nghttp2_session_get_stream_user_data(s->ng, id);
}

/* --- Fields ----------------------------------------------------------------------------------- */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct http2_session *s = user;
    struct stream *st;

    s->block_bytes = 0;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    st = s->answers_bytes > s->limits.answers_bytes ? NULL
                                                    : http2_stream_take(s, frame->hd.stream_id);
    if (st)
        nghttp2_session_set_stream_user_data(ng, frame->hd.stream_id, st);
    else if (nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                       NGHTTP2_REFUSED_STREAM))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return 0;
}

/* Copies a text behind the others; slices follow when the buffer moves. */
static str keep(struct stream *st, str text)
{
    struct http1_request *req = &st->public.req;
    char *old = st->head.p, *to = buf_reserve(&st->head, text.n);

    if (!to)
        return STR_NULL; /* `head` holds head_bytes: the list is checked against them first */
    if (old && old != st->head.p) {
        req->head_bytes = st->head.n;
        http1_request_move(req, old, st->head.p);
    }
    if (text.n)
        memcpy(to, text.p, text.n);
    st->head.n += text.n;
    return (str){to, text.n};
}

static void field_add(struct stream *st, str name, str value)
{
    struct http1_request *req = &st->public.req;
    struct http1_fields *f = &req->fields;
    struct http1_header *h = &f->headers[f->count];
    enum http1_refusal r;
    str kept;

    if (f->count == st->s->limits.request.headers) {
        refuse(st, HTTP1_NO_TOO_MANY_FIELDS);
        return;
    }
    *h = (struct http1_header){STR_NULL, STR_NULL};
    kept = keep(st, name);
    h->name = kept;
    f->count++; /* so that the name follows when the value moves the buffer */
    kept = keep(st, value);
    h->value = kept;
    f->count--;
    r = http1_note_field(f, h);
    f->count++;
    if (r)
        refuse(st, r);
}

static void pseudo_add(struct stream *st, str name, str value)
{
    struct http1_request *req = &st->public.req;
    str kept;

    if (str_eq(name, S(":method"))) {
        kept = keep(st, value);
        req->method_text = kept;
    } else if (str_eq(name, S(":path"))) {
        kept = keep(st, value);
        req->target = kept;
    } else if (str_eq(name, S(":authority"))) {
        field_add(st, S("host"), value);
        st->host_from_authority = true;
    }
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_bytes, const uint8_t *value, size_t value_bytes, uint8_t flags,
                     void *user)
{
    struct http2_session *s = user;
    const struct http1_limits *limits = &s->limits.request;
    struct stream *st = stream_at(s, frame->hd.stream_id);
    str n = {(const char *)name, name_bytes}, v = {(const char *)value, value_bytes};

    (void)ng, (void)flags;
    s->block_bytes += n.n + v.n + 32; /* RFC 9113 section 6.5.2 */
    if (s->block_bytes > (size_t)BOMB_FACTOR * limits->head_bytes) {
        http2_session_end(s, "a header list of many times the size allowed",
                          NGHTTP2_ENHANCE_YOUR_CALM);
        return 0;
    }
    if (!st || st->public.refusal)
        return 0;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) { /* trailers: checked and dropped */
        if (s->block_bytes > limits->trailer_bytes)
            refuse(st, HTTP1_NO_TRAILER_TOO_LARGE);
        return 0;
    }
    if (s->block_bytes > limits->head_bytes)
        refuse(st, HTTP1_NO_HEAD_TOO_LARGE);
    else if (n.n && n.p[0] == ':')
        pseudo_add(st, n, v);
    else if (st->host_from_authority && str_eq(n, S("host"))) {
        if (!str_eq_nocase(v, http1_known(&st->public.req.fields, HTTP1_F_HOST)))
            refuse(st, HTTP1_NO_HOST);
    } else {
        field_add(st, n, v);
    }
    return 0;
}

/* Names and values that no field may have: nghttp2 would leave them out; a request that holds one
 * is malformed. */
static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                             size_t name_bytes, const uint8_t *value, size_t value_bytes,
                             uint8_t flags, void *user)
{
    (void)ng, (void)frame, (void)name, (void)name_bytes, (void)value, (void)value_bytes;
    (void)flags, (void)user;
    return FAIL_STREAM;
}

/* --- Heads ------------------------------------------------------------------------------------ */

static enum http1_refusal target_check(const struct http1_limits *limits, struct http1_request *req)
{
    str t = req->target;

    if (t.n > limits->target_bytes)
        return HTTP1_NO_TARGET_TOO_LONG;
    if (!t.n || (t.p[0] != '/' && !str_eq(t, S("*"))) ||
        http1_skip_target(t.p, t.p + t.n) != t.p + t.n)
        return HTTP1_NO_TARGET;
    return http1_split_target(req);
}

static enum http1_refusal head_check(struct stream *st, bool ended)
{
    struct http1_request *req = &st->public.req;
    const struct http1_limits *limits = &st->s->limits.request;
    str expect = http1_known(&req->fields, HTTP1_F_EXPECT);
    enum http1_refusal r;

    req->method = http1_method_of(req->method_text);
    if (req->method == HTTP1_M_OTHER &&
        (str_eq(req->method_text, S("CONNECT")) || str_eq(req->method_text, S("TRACE"))))
        return HTTP1_NO_METHOD;
    r = target_check(limits, req);
    if (r)
        return r;
    req->host = http1_known(&req->fields, HTTP1_F_HOST);
    if (!req->host.p)
        return HTTP1_NO_HOST_MISSING;
    if (!http1_is_authority(req->host))
        return HTTP1_NO_HOST;
    req->framing = ended ? HTTP1_BODY_NONE : HTTP1_BODY_CLOSE;
    r = http1_framing_of(&req->fields, 1, &req->framing, &req->content_length);
    if (r)
        return r;
    if (req->framing == HTTP1_BODY_LENGTH && req->content_length > limits->body_bytes)
        return HTTP1_NO_BODY_TOO_LARGE;
    if (expect.p && !str_eq_nocase(expect, S("100-continue")))
        return HTTP1_NO_EXPECT;
    return HTTP1_OK;
}

/* Answers "expect: 100-continue" itself: there is nothing to decide that HTTP2_REFUSED or an early
 * answer would not do as well. */
static void continue_send(struct stream *st)
{
    nghttp2_nv status = {(uint8_t *)":status", (uint8_t *)"100", 7, 3, NGHTTP2_NV_FLAG_NONE};

    nghttp2_submit_headers(st->s->ng, NGHTTP2_FLAG_NONE, st->public.id, NULL, &status, 1, NULL);
}

static void head_end(struct stream *st, bool ended)
{
    struct http1_request *req = &st->public.req;
    enum http1_refusal r;

    req->head_bytes = st->head.n;
    req->version_minor = 1;
    req->keep_alive = true;
    st->public.complete = ended;
    r = st->public.refusal ? HTTP1_OK : head_check(st, ended);
    if (r)
        refuse(st, r);
    else if (!ended && !st->public.refusal && http1_known(&req->fields, HTTP1_F_EXPECT).p)
        continue_send(st);
    http2_event_add(st);
}

/* --- Bodies ----------------------------------------------------------------------------------- */

static void window_grow(struct stream *st, size_t n)
{
    struct http2_session *s = st->s;
    uint64_t max = MIN(s->limits.request.body_bytes, (uint64_t)s->limits.window_max_bytes);

    st->grown_bytes += n;
    if (st->grown_bytes < st->window_bytes || st->window_bytes >= max)
        return;
    st->grown_bytes = 0;
    st->window_bytes = (uint32_t)MIN(max, (uint64_t)st->window_bytes * 2);
    nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, st->public.id,
                                          (int32_t)st->window_bytes);
    if (st->window_bytes <= s->window_bytes)
        return;
    s->window_bytes = st->window_bytes;
    nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, 0, (int32_t)s->window_bytes);
}

/* Stores body bytes; false when the stream does not want them. */
static bool body_add(struct stream *st, const uint8_t *data, size_t n)
{
    struct http2_session *s = st->s;

    if (st->public.refusal || st->released || st->public.closed)
        return false;
    if (n > s->limits.request.body_bytes - (st->body.n - st->body_at)) {
        refuse(st, HTTP1_NO_BODY_TOO_LARGE);
        return false;
    }
    if (n > s->limits.bodies_bytes - MIN(s->bodies_bytes, s->limits.bodies_bytes)) {
        refuse(st, HTTP1_NO_BODIES_TOO_LARGE);
        return false;
    }
    if (st->body_at && st->body_at >= st->body.n / 2) {
        buf_consume(&st->body, st->body_at);
        st->body_at = 0;
    }
    if (!st->body.n && st->public.req.framing == HTTP1_BODY_LENGTH) /* it may lie: a little */
        buf_reserve(&st->body, (size_t)MIN(st->public.req.content_length, (uint64_t)256 << 10));
    buf_add(&st->body, data, n);
    if (st->body.overflowed) {
        refuse(st, HTTP1_NO_BODIES_TOO_LARGE);
        return false;
    }
    s->bodies_bytes += n;
    st->progressed = true;
    http2_event_add(st);
    return true;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                   void *user)
{
    struct http2_session *s = user;
    struct stream *st = stream_at(s, id);

    (void)flags;
    if (st && body_add(st, data, n) && st->by_pieces)
        return nghttp2_session_consume_connection(ng, n) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
    if (nghttp2_session_consume(ng, id, n))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (st && !st->public.refusal)
        window_grow(st, n);
    return 0;
}

/* --- Frames ----------------------------------------------------------------------------------- */

/* Takes one from a budget; the last one ends the session. */
static void spend(struct http2_session *s, uint32_t *budget, const char *wrong)
{
    if (*budget)
        --*budget;
    else
        http2_session_end(s, wrong, NGHTTP2_ENHANCE_YOUR_CALM);
}

static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user)
{
    struct http2_session *s = user;
    bool moves = hd->type == NGHTTP2_HEADERS || hd->type == NGHTTP2_CONTINUATION ||
                 (hd->type == NGHTTP2_DATA && (hd->length || hd->flags & NGHTTP2_FLAG_END_STREAM));

    (void)ng;
    if (!moves)
        spend(s, &s->idle_frames, "too many frames that move nothing on");
    else
        s->moved = true;
    if (moves && hd->type == NGHTTP2_DATA)
        s->idle_frames = s->limits.idle_frames;
    return 0;
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct http2_session *s = user;
    bool ended = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    struct stream *st;

    (void)ng;
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    st = stream_at(s, frame->hd.stream_id);
    if (!st || st->public.closed)
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        head_end(st, ended);
    else if (ended) {
        st->public.complete = true;
        http2_event_add(st);
    }
    return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error_code, void *user)
{
    struct http2_session *s = user;
    struct stream *st = stream_at(s, id);

    if (!st || !(st->sent_end || st->reset_by_us))
        spend(s, &s->resets, "too many streams that came to nothing");
    else if (st->sent_end)
        s->idle_frames = s->limits.idle_frames;
    if (!st)
        return 0;
    nghttp2_session_set_stream_user_data(ng, id, NULL);
    st->public.closed = true;
    st->public.error_code = error_code;
    http2_answer_drop(st);
    if ((st->released || !st->given) && !st->queued)
        http2_stream_recycle(st);
    else
        http2_event_add(st);
    return 0;
}

void http2_request_callbacks(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_invalid_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
}
