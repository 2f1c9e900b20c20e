/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session: its life, its budgets, and the list of events between what comes and the owner.
 *
 * Callbacks of nghttp2 only note what happened, in the stream it happened to, and put that stream
 * into the list of events once. http2_next() works out, from what the stream is and what the owner
 * has been told, which event to give. So events need no memory of their own, several steps of one
 * stream between two calls become one event, and a stream that was opened and reset in one read is
 * never shown at all.
 *
 * Budgets. A peer may cost work and give nothing back: streams that it resets, or makes the server
 * reset (CVE-2023-44487, CVE-2025-8671), and frames that move nothing on (PING, SETTINGS,
 * PRIORITY, empty DATA, WINDOW_UPDATE without end). Both are counted in frames and refilled by
 * http2_tick(), so that the codec needs no clock. What moves a request or an answer on refills the
 * second at once.
 *
 * Invariants: a stream is in `spare`, or counted in `open`; it goes back when it is closed, out of
 * the list of events, and released or never given. bodies_bytes and answers_bytes are the sums over
 * all streams of bytes held for them.
 */
#include "base/mem.h"
#include "wire/http2_priv.h"

/* Frames of unknown types are skipped unseen: they are counted by their bytes, beside those that
 * may be under way for a stream that is over. */
#define IDLE_FRAME_BYTES 64
#define KEEP_BYTES ((size_t)64 << 10) /* a stream in `spare` keeps no larger buffer */
#define ANSWER_MAX_BYTES ((size_t)512 << 20)
#define TRAILERS_MAX_BYTES ((size_t)64 << 10)

const struct http2_limits HTTP2_LIMITS_DEFAULT = {
    .request =
        {
            .head_bytes = 16 << 10,
            .target_bytes = 8 << 10,
            .headers = HTTP1_HEADERS_MAX,
            .body_bytes = 64 << 20,
            .chunk_line_bytes = 256, /* not of HTTP/2 */
            .small_chunks = 16384,   /* not of HTTP/2 */
            .trailer_bytes = 4 << 10,
        },
    .streams = 100,
    .bodies_bytes = 128 << 20,
    .answers_bytes = 8 << 20,
    .window_bytes = 1 << 20,
    .window_max_bytes = 16 << 20,
    .memory_bytes = 4 << 20,
    .send_bytes = 1 << 20,
    .acks = 100,
    .continuations = 8,
    .resets = 200,
    .idle_frames = 2000,
};

/* --- Streams ---------------------------------------------------------------------------------- */

static struct stream *stream_new(struct http2_session *s)
{
    struct stream *st = mem_zalloc(sizeof(*st));

    st->s = s;
    buf_init(&st->head, (size_t)s->limits.request.head_bytes + 256);
    buf_init(&st->body, s->limits.request.body_bytes + 1);
    buf_init(&st->out, ANSWER_MAX_BYTES);
    buf_init(&st->trailers, TRAILERS_MAX_BYTES);
    st->all_next = s->all;
    s->all = st;
    return st;
}

static void stream_free(struct stream *st)
{
    buf_done(&st->head);
    buf_done(&st->body);
    buf_done(&st->out);
    buf_done(&st->trailers);
    mem_free(st);
}

struct stream *http2_stream_take(struct http2_session *s, int32_t id)
{
    struct stream *st = s->spare;

    if (s->open >= s->limits.streams)
        return NULL;
    if (st)
        s->spare = st->next;
    else
        st = stream_new(s);
    s->open++;
    st->public.id = id;
    st->window_bytes = s->limits.window_bytes;
    return st;
}

static void buf_keep(struct buf *b)
{
    if (b->cap_bytes > KEEP_BYTES)
        buf_done(b);
    buf_clear(b);
}

/* Back to `spare`, as new but for the memory of its buffers. */
void http2_stream_recycle(struct stream *st)
{
    struct http2_session *s = st->s;
    struct stream fresh = {.s = s, .all_next = st->all_next, .next = s->spare};

    ASSERT(st->public.closed && !st->queued && (st->released || !st->given));
    http2_body_drop(st);
    http2_answer_drop(st);
    buf_keep(&st->head);
    buf_keep(&st->body);
    buf_keep(&st->out);
    buf_keep(&st->trailers);
    fresh.head = st->head, fresh.body = st->body;
    fresh.out = st->out, fresh.trailers = st->trailers;
    /* All but the 2 KiB of header slices, which `count` makes void. */
    memset(&st->public, 0, offsetof(struct http2_stream, req.fields.headers));
    memcpy((char *)st + offsetof(struct stream, public.refusal),
           (char *)&fresh + offsetof(struct stream, public.refusal),
           sizeof(fresh) - offsetof(struct stream, public.refusal));
    s->spare = st;
    s->open--;
}

void http2_body_drop(struct stream *st)
{
    st->s->bodies_bytes -= st->body.n - st->body_at;
    st->body_at = 0;
    buf_clear(&st->body);
    st->public.req.body = STR_NULL;
}

void http2_stream_release(struct http2_stream *public)
{
    struct stream *st = stream_of(public);

    ASSERT(st->given && !st->released);
    if (!st->answered && !public->closed)
        http2_stream_reset(public, HTTP2_INTERNAL_ERROR);
    st->released = true;
    http2_body_drop(st);
    if (public->closed && !st->queued)
        http2_stream_recycle(st);
}

/* --- Events ----------------------------------------------------------------------------------- */

void http2_event_add(struct stream *st)
{
    struct http2_session *s = st->s;

    if (st->queued)
        return;
    st->queued = true;
    st->event_next = NULL;
    *(s->events_first ? &s->events_last->event_next : &s->events_first) = st;
    s->events_last = st;
}

/* What to tell of a stream that was taken out of the list. */
static enum http2_event event_of(struct stream *st)
{
    if (st->public.closed && (st->released || !st->given)) {
        http2_stream_recycle(st);
        return HTTP2_NONE;
    }
    if (st->released)
        return HTTP2_NONE;
    if (st->public.closed) {
        bool again = st->closed_given;

        st->closed_given = true;
        return again ? HTTP2_NONE : HTTP2_CLOSED;
    }
    if (st->public.refusal) {
        bool again = st->refusal_given;

        st->refusal_given = true;
        return again ? HTTP2_NONE : HTTP2_REFUSED;
    }
    if (st->public.complete) {
        bool again = st->request_given;

        st->request_given = true;
        return again ? HTTP2_NONE : HTTP2_REQUEST;
    }
    if (!st->given)
        return HTTP2_HEAD;
    return st->progressed ? HTTP2_DATA : HTTP2_NONE;
}

enum http2_event http2_next(struct http2_session *s, struct http2_stream **ret_stream)
{
    while (s->events_first) {
        struct stream *st = s->events_first;
        enum http2_event event;

        s->events_first = st->event_next;
        st->queued = false;
        event = event_of(st);
        if (event == HTTP2_NONE)
            continue;
        st->given = true;
        st->progressed = false;
        if (!st->public.closed)
            st->public.req.body = (str){st->body.p + st->body_at, st->body.n - st->body_at};
        *ret_stream = &st->public;
        return event;
    }
    return HTTP2_NONE;
}

void http2_stream_by_pieces(struct http2_stream *public)
{
    stream_of(public)->by_pieces = true;
}

void http2_stream_consume(struct http2_stream *public, size_t n)
{
    struct stream *st = stream_of(public);

    ASSERT(n <= public->req.body.n);
    public->req.body = str_skip(public->req.body, n);
    st->body_at += n;
    st->s->bodies_bytes -= n;
    if (st->body_at == st->body.n) {
        buf_clear(&st->body);
        st->body_at = 0;
    }
    if (st->by_pieces && n && !public->closed)
        nghttp2_session_consume_stream(st->s->ng, public->id, n);
}

/* --- Sessions --------------------------------------------------------------------------------- */

void http2_session_end(struct http2_session *s, const char *wrong, uint32_t error_code)
{
    if (s->wrong)
        return;
    s->wrong = wrong;
    s->wrong_is_limit = error_code == NGHTTP2_ENHANCE_YOUR_CALM;
    nghttp2_session_terminate_session(s->ng, error_code);
}

int http2_options_make(uint32_t acks, uint32_t continuations, nghttp2_option **ret_option)
{
    nghttp2_option *o;

    if (nghttp2_option_new(&o))
        return -1;
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_outbound_ack(o, acks);
    nghttp2_option_set_max_settings(o, 32);
    nghttp2_option_set_max_continuations(o, continuations);
    /* It has a limit of its own, by the clock: ours is stricter and has none. */
    nghttp2_option_set_stream_reset_rate_limit(o, UINT32_MAX, UINT32_MAX);
    *ret_option = o;
    return 0;
}

static int session_make(struct http2_session *s)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    int rc;

    if (http2_options_make(s->limits.acks, s->limits.continuations, &option))
        return -1;
    nghttp2_option_set_no_auto_window_update(option, 1);
    rc = nghttp2_session_callbacks_new(&callbacks);
    if (!rc) {
        http2_request_callbacks(callbacks);
        http2_answer_callbacks(callbacks);
        rc = nghttp2_session_server_new3(&s->ng, callbacks, s, option, &s->pool.mem);
        nghttp2_session_callbacks_del(callbacks);
    }
    nghttp2_option_del(option);
    return rc;
}

static int settings_send(struct http2_session *s)
{
    const nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, s->limits.streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, s->limits.window_bytes},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, s->limits.request.head_bytes},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    int rc = nghttp2_submit_settings(s->ng, NGHTTP2_FLAG_NONE, entries, ARRAY_LEN(entries));

    s->window_bytes = MAX(s->limits.window_bytes, 65535u);
    if (!rc)
        rc = nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, 0,
                                                   (int32_t)s->window_bytes);
    return rc;
}

int http2_session_new(const struct http2_limits *limits, struct http2_session **ret_session,
                      struct err *e)
{
    AUTO(http2_session_freep) struct http2_session *s = mem_zalloc(sizeof(*s));

    s->limits = limits ? *limits : HTTP2_LIMITS_DEFAULT;
    ASSERT(s->limits.request.headers >= 1 && s->limits.request.headers <= HTTP1_HEADERS_MAX);
    ASSERT(s->limits.window_bytes >= 1 && s->limits.window_max_bytes <= INT32_MAX);
    s->resets = s->limits.resets;
    s->idle_frames = s->limits.idle_frames;
    http2_pool_init(&s->pool, s->limits.memory_bytes);
    if (session_make(s) || settings_send(s))
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for an HTTP/2 session of %u bytes",
                    s->limits.memory_bytes);
    *ret_session = TAKE(s);
    return 0;
}

void http2_session_free(struct http2_session *s)
{
    if (!s)
        return;
    nghttp2_session_del(s->ng);
    http2_pool_trim(&s->pool);
    while (s->all) {
        struct stream *st = s->all;

        s->all = st->all_next;
        stream_free(st);
    }
    mem_free(s);
}

static int over(const struct http2_session *s, struct err *e)
{
    if (s->wrong_is_limit)
        return FAIL(e, RESOURCE_EXHAUSTED, "HTTP/2 session ended: %s", s->wrong);
    return FAIL(e, INVALID_ARGUMENT, "HTTP/2 session ended: %s", s->wrong);
}

int http2_receive(struct http2_session *s, str bytes, struct err *e)
{
    ssize_t n;

    if (s->wrong)
        return over(s, e);
    s->moved = false;
    n = nghttp2_session_mem_recv(s->ng, (const uint8_t *)bytes.p, bytes.n);
    s->idle_bytes = s->moved ? 0 : s->idle_bytes + bytes.n;
    if (s->idle_bytes >
        s->limits.window_max_bytes + (uint64_t)IDLE_FRAME_BYTES * s->limits.idle_frames)
        http2_session_end(s, "too many bytes that move nothing on", NGHTTP2_ENHANCE_YOUR_CALM);
    if (n < 0 && !s->wrong) {
        s->wrong = nghttp2_strerror((int)n);
        s->wrong_is_limit = n == NGHTTP2_ERR_FLOODED || n == NGHTTP2_ERR_NOMEM;
    }
    return s->wrong ? over(s, e) : 0;
}

void http2_goaway(struct http2_session *s, bool final)
{
    if (s->wrong || s->goaway_sent || (!final && s->goaway_noticed))
        return;
    s->goaway_noticed = true;
    if (!final) {
        nghttp2_submit_shutdown_notice(s->ng);
        return;
    }
    s->goaway_sent = true;
    nghttp2_submit_goaway(s->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(s->ng),
                          NGHTTP2_NO_ERROR, NULL, 0);
}

bool http2_is_done(const struct http2_session *s)
{
    return !nghttp2_session_want_write(s->ng) && (s->wrong || !nghttp2_session_want_read(s->ng));
}

str http2_fault(const struct http2_session *s)
{
    return str_of(s->wrong);
}

void http2_tick(struct http2_session *s)
{
    s->resets = s->limits.resets;
    s->idle_frames = s->limits.idle_frames;
    s->idle_bytes = 0;
    if (s->open)
        return;
    while (s->all) { /* none is open, so none is in the list of events */
        struct stream *st = s->all;

        s->all = st->all_next;
        stream_free(st);
    }
    s->spare = NULL;
    http2_pool_trim(&s->pool);
}

uint32_t http2_open_streams(const struct http2_session *s)
{
    return s->open;
}

uint64_t http2_stalled_bytes(const struct http2_session *s)
{
    return s->drained ? s->answers_bytes : 0;
}

uint64_t http2_memory_bytes(const struct http2_session *s)
{
    uint64_t n = sizeof(*s) + s->pool.used_bytes + s->pool.kept_bytes;

    for (const struct stream *st = s->all; st; st = st->all_next)
        n += sizeof(*st) + st->head.cap_bytes + st->body.cap_bytes + st->out.cap_bytes +
             st->trailers.cap_bytes;
    return n;
}
