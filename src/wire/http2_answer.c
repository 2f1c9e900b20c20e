/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers out. A head goes to nghttp2 at once, which copies it; body bytes stay in the stream's
 * `out` until a frame for them is made, and are then copied straight into the buffer of the socket
 * (nghttp2 writes no more than the nine bytes of the frame's head for them). Trailers wait as text
 * until the last byte is under way, because nghttp2 would let them overtake it.
 *
 * An answer that ends before its request has (a refusal) is followed by RST_STREAM with NO_ERROR:
 * the client may stop sending, RFC 9113 section 8.1.
 */
#include "wire/http2_priv.h"

#include "base/num.h"

#define FRAME_HEAD_BYTES 9

/* Trailers lie in a stream as this, then the name, then the value. */
struct trailer {
    uint32_t name_bytes, value_bytes;
};

static bool is_plain_value(str v)
{
    return http1_skip_value(v.p, v.p + v.n) == v.p + v.n;
}

nghttp2_nv http2_nv(str name, str value)
{
    /* An id is different each time: not worth a place in the peer's table. */
    uint8_t flags =
        str_eq(name, S("x-request-id")) ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE;

    return (nghttp2_nv){(uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n,
                        value.n, flags};
}

static void check(struct http2_session *s, int rc)
{
    if (rc)
        http2_session_end(s, nghttp2_strerror(rc), NGHTTP2_ENHANCE_YOUR_CALM);
}

/* --- Bodies ----------------------------------------------------------------------------------- */

static int trailers_submit(struct stream *st)
{
    nghttp2_nv nv[HTTP2_FIELDS_MAX];
    const char *p = st->trailers.p;

    for (uint32_t i = 0; i < st->trailer_count; i++) {
        struct trailer t;

        memcpy(&t, p, sizeof(t));
        p += sizeof(t);
        nv[i] = http2_nv((str){p, t.name_bytes}, (str){p + t.name_bytes, t.value_bytes});
        p += t.name_bytes + t.value_bytes;
    }
    return nghttp2_submit_trailer(st->s->ng, st->public.id, nv, st->trailer_count);
}

static ssize_t body_read(nghttp2_session *ng, int32_t id, uint8_t *to, size_t max, uint32_t *flags,
                         nghttp2_data_source *source, void *user)
{
    struct stream *st = source->ptr;
    size_t left = st->out.n - st->out_at, n = MIN(left, max);

    (void)ng, (void)id, (void)to, (void)user;
    if (!left && !st->finished) {
        st->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == left && st->finished) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (st->trailer_count) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (trailers_submit(st))
                return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)n;
}

static int body_send(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t n,
                     nghttp2_data_source *source, void *user)
{
    struct http2_session *s = user;
    struct stream *st = source->ptr;

    (void)ng, (void)frame;
    if (s->to->n >= s->to_max)
        return NGHTTP2_ERR_WOULDBLOCK;
    buf_add(s->to, head, FRAME_HEAD_BYTES);
    buf_add(s->to, st->out.p + st->out_at, n);
    st->out_at += n;
    s->answers_bytes -= n;
    s->idle_frames = s->limits.idle_frames;
    if (st->out_at == st->out.n) {
        buf_clear(&st->out);
        st->out_at = 0;
    }
    return 0;
}

/* nghttp2 answers broken frames with a GOAWAY of its own, whose text says what was wrong. */
static void note_goaway(struct http2_session *s, const nghttp2_goaway *goaway)
{
    str reason = {(const char *)goaway->opaque_data, goaway->opaque_data_len};

    if (goaway->error_code == NGHTTP2_NO_ERROR || s->wrong)
        return;
    s->wrong = str_to_z(reason, s->reason, sizeof(s->reason)) && reason.n
                   ? s->reason
                   : "the frames break the protocol";
    s->wrong_is_limit = goaway->error_code == NGHTTP2_ENHANCE_YOUR_CALM;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct stream *st;

    if (frame->hd.type == NGHTTP2_GOAWAY)
        note_goaway(user, &frame->goaway);
    if ((frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) ||
        !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    st = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    if (!st)
        return 0;
    st->sent_end = true;
    if (!st->public.complete)
        nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
}

void http2_answer_callbacks(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_send_data_callback(cb, body_send);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
}

bool http2_send(struct http2_session *s, struct buf *out)
{
    size_t from = out->n;

    s->to = out;
    s->to_max = from + s->limits.send_bytes;
    s->drained = false;
    while (out->n < s->to_max && !out->overflowed) {
        const uint8_t *p;
        size_t before = out->n;
        ssize_t n = nghttp2_session_mem_send(s->ng, &p);

        if (n < 0 && !s->wrong)
            s->wrong = nghttp2_strerror((int)n);
        if (n > 0)
            buf_add(out, p, (size_t)n);
        if (n <= 0) {
            s->drained = out->n < s->to_max && before == out->n;
            break;
        }
    }
    s->to = NULL;
    return out->n >= s->to_max;
}

void http2_answer_drop(struct stream *st)
{
    st->s->answers_bytes -= st->out.n - st->out_at;
    st->out_at = 0;
    buf_clear(&st->out);
}

/* --- What the owner calls --------------------------------------------------------------------- */

struct head {
    nghttp2_nv nv[HTTP2_FIELDS_MAX + 2];
    size_t count;
    char status[NUM_TEXT_MAX], length[NUM_TEXT_MAX];
};

static void head_make(struct head *h, int status, const struct http1_header *fields, size_t count)
{
    ASSERT(status >= 100 && status <= 999 && count <= HTTP2_FIELDS_MAX);
    h->nv[0] = http2_nv(S(":status"), (str){h->status, num_i64_text(status, h->status)});
    h->count = 1;
    for (size_t i = 0; i < count; i++)
        if (is_plain_value(fields[i].value))
            h->nv[h->count++] = http2_nv(fields[i].name, fields[i].value);
}

/* True when a head may still be sent. */
static bool may_answer(struct stream *st)
{
    if (st->answered || st->public.closed || st->reset_by_us)
        return false;
    st->answered = true;
    return true;
}

static void head_submit(struct stream *st, const struct head *h, bool has_body)
{
    nghttp2_data_provider body = {.source = {.ptr = st}, .read_callback = body_read};

    check(st->s, nghttp2_submit_response(st->s->ng, st->public.id, h->nv, h->count,
                                         has_body ? &body : NULL));
}

static void body_add(struct stream *st, str data)
{
    size_t before = st->out.n;

    if (data.n && st->out_at && st->out_at >= st->out.n / 2) {
        buf_consume(&st->out, st->out_at);
        st->out_at = 0;
        before = st->out.n;
    }
    buf_add_str(&st->out, data);
    st->s->answers_bytes += st->out.n - before;
}

void http2_respond(struct http2_stream *public, int status, const struct http1_header *fields,
                   size_t count, str body)
{
    struct stream *st = stream_of(public);
    bool has_length = status != 204 && status != 304 && status >= 200;
    struct head h;

    if (!may_answer(st))
        return;
    head_make(&h, status, fields, count);
    if (has_length)
        h.nv[h.count++] =
            http2_nv(S("content-length"), (str){h.length, num_i64_text((int64_t)body.n, h.length)});
    if (!has_length || public->req.method == HTTP1_M_HEAD)
        body = STR_NULL;
    st->finished = true;
    body_add(st, body);
    head_submit(st, &h, body.n > 0);
    if (st->out.overflowed)
        http2_stream_reset(public, HTTP2_INTERNAL_ERROR);
}

void http2_respond_only(struct http2_stream *public, int status, const struct http1_header *fields,
                        size_t count)
{
    struct stream *st = stream_of(public);
    struct head h;

    if (!may_answer(st))
        return;
    head_make(&h, status, fields, count);
    st->finished = true;
    head_submit(st, &h, false);
}

void http2_respond_head(struct http2_stream *public, int status, const struct http1_header *fields,
                        size_t count)
{
    struct stream *st = stream_of(public);
    struct head h;

    if (!may_answer(st))
        return;
    head_make(&h, status, fields, count);
    head_submit(st, &h, true);
}

static void resume(struct stream *st)
{
    if (!st->deferred)
        return;
    st->deferred = false;
    nghttp2_session_resume_data(st->s->ng, st->public.id);
}

void http2_stream_write(struct http2_stream *public, str data)
{
    struct stream *st = stream_of(public);

    if (!st->answered || st->finished || public->closed || !data.n)
        return;
    body_add(st, data);
    if (st->out.overflowed)
        http2_stream_reset(public, HTTP2_INTERNAL_ERROR);
    else
        resume(st);
}

void http2_stream_finish(struct http2_stream *public, const struct http1_header *trailers,
                         size_t count)
{
    struct stream *st = stream_of(public);

    ASSERT(count <= HTTP2_FIELDS_MAX);
    if (!st->answered || st->finished || public->closed)
        return;
    for (size_t i = 0; i < count; i++) {
        struct trailer t = {(uint32_t)trailers[i].name.n, (uint32_t)trailers[i].value.n};

        if (!is_plain_value(trailers[i].value))
            continue;
        buf_add(&st->trailers, &t, sizeof(t));
        buf_add_str(&st->trailers, trailers[i].name);
        buf_add_str(&st->trailers, trailers[i].value);
        st->trailer_count++;
    }
    if (st->trailers.overflowed) {
        http2_stream_reset(public, HTTP2_INTERNAL_ERROR);
        return;
    }
    st->finished = true;
    resume(st);
}

uint64_t http2_stream_queued_bytes(const struct http2_stream *public)
{
    const struct stream *st = CONTAINER_OF(public, const struct stream, public);

    return st->out.n - st->out_at;
}

void http2_respond_refusal(struct http2_stream *public)
{
    static const struct http1_header type = {S_INIT("content-type"), S_INIT("application/json")};
    char body[160];
    struct buf text;

    buf_init_fixed(&text, body, sizeof(body));
    buf_add_str(&text, S("{\"error\":\""));
    buf_add_str(&text, http1_refusal_reason(public->refusal)); /* nothing that JSON escapes */
    buf_add_str(&text, S("\"}"));
    http2_respond(public, http1_refusal_status(public->refusal), &type, 1, buf_str(&text));
}

void http2_stream_reset(struct http2_stream *public, uint32_t error_code)
{
    struct stream *st = stream_of(public);

    if (public->closed || st->reset_by_us)
        return;
    st->reset_by_us = st->answered = st->finished = true;
    check(st->s, nghttp2_submit_rst_stream(st->s->ng, NGHTTP2_FLAG_NONE, public->id, error_code));
}
