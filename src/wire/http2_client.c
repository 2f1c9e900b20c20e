/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session with at most one stream. Callbacks of nghttp2 only note what happened in the answer;
 * whether it suffices is for the caller to see.
 *
 * Fields are kept as texts behind each other in one buffer, found by offsets since it moves. A
 * block with ":status" is a head and begins the list anew (an interim answer is forgotten), one
 * without is the trailers.
 *
 * A budget of frames stands against servers that keep the line busy: every frame takes one, a byte
 * of a body in either direction fills it up. The server's windows cannot make us hold more than the
 * question, which the caller holds anyway; ours bound nothing but what is under way, as an answer
 * is stored as it comes, up to body_bytes.
 *
 * "Untouched" is what RFC 9113 section 8.7 lets a client repeat whatever it asked: a stream that
 * was refused, or one above the last that a GOAWAY names.
 */
#include "wire/http2_client.h"

#include "base/mem.h"
#include "wire/http2_priv.h"

#define OUT_BYTES ((size_t)64 << 10)
#define KEEP_BYTES ((size_t)1 << 20)
#define CONTINUATIONS 8
#define IDLE_FRAME_BYTES 64 /* frames of unknown types are skipped unseen: their bytes count */

const struct http2_client_limits HTTP2_CLIENT_LIMITS_DEFAULT = {
    .head_bytes = 16 << 10,
    .fields = 64,
    .body_bytes = 64 << 20,
    .window_bytes = 1 << 20,
    .memory_bytes = 2 << 20,
    .acks = 100,
    .idle_frames = 2000,
};

struct field {
    uint32_t name_at, name_bytes, value_at, value_bytes; /* in `texts` */
    bool trailer;
};

struct http2_client {
    nghttp2_session *ng;
    struct http2_client_limits limits;
    struct http2_pool pool;
    struct http2_answer answer;
    int32_t stream; /* of the question under way, or of the last one */
    str question;   /* its body; [question_at, n) is not yet sent */
    size_t question_at;
    struct buf texts, body;
    struct field *fields; /* owned; limits.fields of them */
    uint32_t field_count;
    size_t block_bytes; /* of the header block under way */
    bool block_is_head;
    uint32_t idle_frames; /* what is left of the budget */
    uint64_t idle_bytes;  /* received since a byte of a body moved */
    bool goaway;
    const char *wrong; /* why the session is over, or NULL */
    char reason[96];   /* what `wrong` may point to */
    bool wrong_is_limit;
};

static bool is_under_way(const struct http2_client *c)
{
    return c->answer.state == HTTP2_ANSWER_WAITING || c->answer.state == HTTP2_ANSWER_HEAD;
}

static void fail(struct http2_client *c)
{
    if (is_under_way(c))
        c->answer.state = HTTP2_ANSWER_FAILED;
}

static void end(struct http2_client *c, const char *wrong, uint32_t error_code)
{
    if (c->wrong)
        return;
    c->wrong = wrong;
    c->wrong_is_limit = error_code == NGHTTP2_ENHANCE_YOUR_CALM;
    nghttp2_session_terminate_session(c->ng, error_code);
    fail(c);
}

static void moved(struct http2_client *c)
{
    c->idle_frames = c->limits.idle_frames;
    c->idle_bytes = 0;
}

/* --- Heads and trailers ----------------------------------------------------------------------- */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct http2_client *c = user;

    (void)ng, (void)frame;
    c->block_bytes = 0;
    c->block_is_head = false;
    return 0;
}

static void status_set(struct http2_client *c, str value)
{
    uint64_t status = 0;

    if (!str_to_u64(value, &status) || status < 100 || status > 999)
        status = 0; /* nghttp2 lets three digits through alone */
    buf_clear(&c->texts);
    c->field_count = 0;
    c->block_is_head = true;
    c->answer.status = (int)status;
}

static void field_add(struct http2_client *c, str name, str value)
{
    if (c->field_count == c->limits.fields) {
        end(c, "an answer of too many fields", NGHTTP2_ENHANCE_YOUR_CALM);
        return;
    }
    c->fields[c->field_count++] = (struct field){
        .name_at = (uint32_t)c->texts.n,
        .name_bytes = (uint32_t)name.n,
        .value_at = (uint32_t)(c->texts.n + name.n),
        .value_bytes = (uint32_t)value.n,
        .trailer = !c->block_is_head,
    };
    buf_add_str(&c->texts, name);
    buf_add_str(&c->texts, value);
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_bytes, const uint8_t *value, size_t value_bytes, uint8_t flags,
                     void *user)
{
    struct http2_client *c = user;
    str n = {(const char *)name, name_bytes}, v = {(const char *)value, value_bytes};

    (void)ng, (void)flags;
    c->block_bytes += n.n + v.n + 32;
    if (c->block_bytes > c->limits.head_bytes)
        end(c, "a header list larger than allowed", NGHTTP2_ENHANCE_YOUR_CALM);
    else if (frame->hd.stream_id != c->stream || !is_under_way(c))
        return 0;
    else if (str_eq(n, S(":status")))
        status_set(c, v);
    else
        field_add(c, n, v);
    return 0;
}

/* --- Bodies ----------------------------------------------------------------------------------- */

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                   void *user)
{
    struct http2_client *c = user;

    (void)flags;
    if (id != c->stream || !is_under_way(c))
        return 0;
    moved(c);
    if (n > c->limits.body_bytes - c->body.n) {
        c->answer.too_large = true;
        fail(c);
        return nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL)
                   ? NGHTTP2_ERR_CALLBACK_FAILURE
                   : 0;
    }
    buf_add(&c->body, data, n);
    c->answer.body = buf_str(&c->body);
    return 0;
}

static ssize_t question_read(nghttp2_session *ng, int32_t id, uint8_t *to, size_t max,
                             uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct http2_client *c = user;
    size_t n = MIN(c->question.n - c->question_at, max);

    (void)ng, (void)id, (void)source;
    if (!is_under_way(c)) /* its bytes are no longer ours to read */
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (n)
        memcpy(to, c->question.p + c->question_at, n);
    c->question_at += n;
    moved(c);
    if (c->question_at == c->question.n)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

/* --- Frames ----------------------------------------------------------------------------------- */

static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user)
{
    struct http2_client *c = user;

    (void)ng, (void)hd;
    if (c->idle_frames)
        c->idle_frames--;
    else
        end(c, "too many frames that move nothing on", NGHTTP2_ENHANCE_YOUR_CALM);
    return 0;
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct http2_client *c = user;

    if (frame->hd.type == NGHTTP2_GOAWAY) {
        c->goaway = true;
        if (is_under_way(c) && c->stream > frame->goaway.last_stream_id)
            c->answer.untouched = true;
        return 0;
    }
    if (frame->hd.stream_id != c->stream || !is_under_way(c))
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && c->answer.status >= 200)
        c->answer.state = HTTP2_ANSWER_HEAD;
    if (frame->hd.type == NGHTTP2_RST_STREAM &&
        frame->rst_stream.error_code == HTTP2_REFUSED_STREAM)
        c->answer.untouched = true;
    if (c->answer.state != HTTP2_ANSWER_HEAD || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM) ||
        (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
        return 0;
    c->answer.state = HTTP2_ANSWER_COMPLETE;
    if (nghttp2_session_get_stream_local_close(ng, c->stream)) /* the question is out */
        return 0;
    return nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, c->stream, NGHTTP2_NO_ERROR)
               ? NGHTTP2_ERR_CALLBACK_FAILURE
               : 0;
}

/* Closed without an end of the answer: one side broke it off, or the answer breaks the protocol. */
static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error_code, void *user)
{
    struct http2_client *c = user;

    (void)ng;
    if (id != c->stream || !is_under_way(c))
        return 0;
    c->answer.error_code = error_code;
    fail(c);
    return 0;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct http2_client *c = user;
    const nghttp2_goaway *goaway = &frame->goaway;
    str reason;

    (void)ng;
    if (frame->hd.type != NGHTTP2_GOAWAY || goaway->error_code == NGHTTP2_NO_ERROR || c->wrong)
        return 0;
    reason = (str){(const char *)goaway->opaque_data, goaway->opaque_data_len};
    c->wrong = str_to_z(reason, c->reason, sizeof(c->reason)) && reason.n
                   ? c->reason
                   : "the frames break the protocol";
    c->wrong_is_limit = goaway->error_code == NGHTTP2_ENHANCE_YOUR_CALM;
    fail(c);
    return 0;
}

/* --- Sessions --------------------------------------------------------------------------------- */

static int session_make(struct http2_client *c)
{
    nghttp2_session_callbacks *cb;
    nghttp2_option *option;
    int rc;

    if (http2_options_make(c->limits.acks, CONTINUATIONS, &option))
        return -1;
    rc = nghttp2_session_callbacks_new(&cb);
    if (!rc) {
        nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
        nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
        nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
        nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
        nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
        rc = nghttp2_session_client_new3(&c->ng, cb, c, option, &c->pool.mem);
        nghttp2_session_callbacks_del(cb);
    }
    nghttp2_option_del(option);
    return rc;
}

static int settings_send(struct http2_client *c)
{
    const nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, c->limits.window_bytes},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, c->limits.head_bytes},
    };
    int rc = nghttp2_submit_settings(c->ng, NGHTTP2_FLAG_NONE, entries, ARRAY_LEN(entries));

    if (!rc)
        rc = nghttp2_session_set_local_window_size(c->ng, NGHTTP2_FLAG_NONE, 0,
                                                   (int32_t)MAX(c->limits.window_bytes, 65535u));
    return rc;
}

int http2_client_new(const struct http2_client_limits *limits, struct http2_client **ret_client,
                     struct err *e)
{
    AUTO(http2_client_freep) struct http2_client *c = mem_zalloc(sizeof(*c));

    c->limits = limits ? *limits : HTTP2_CLIENT_LIMITS_DEFAULT;
    ASSERT(c->limits.window_bytes >= 1 && c->limits.window_bytes <= INT32_MAX);
    c->idle_frames = c->limits.idle_frames;
    c->fields = mem_zalloc(c->limits.fields * sizeof(*c->fields));
    buf_init(&c->texts, 2 * (size_t)c->limits.head_bytes); /* a head and trailers */
    buf_init(&c->body, c->limits.body_bytes + 1);
    http2_pool_init(&c->pool, c->limits.memory_bytes);
    if (session_make(c) || settings_send(c))
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for an HTTP/2 session of %u bytes",
                    c->limits.memory_bytes);
    *ret_client = TAKE(c);
    return 0;
}

void http2_client_free(struct http2_client *c)
{
    if (!c)
        return;
    nghttp2_session_del(c->ng);
    http2_pool_trim(&c->pool);
    buf_done(&c->texts);
    buf_done(&c->body);
    mem_free(c->fields);
    mem_free(c);
}

/* --- Questions -------------------------------------------------------------------------------- */

bool http2_client_may_ask(const struct http2_client *c)
{
    return !c->wrong && !c->goaway && !is_under_way(c) &&
           nghttp2_session_check_request_allowed(c->ng);
}

int http2_client_ask(struct http2_client *c, const struct http1_header *fields, size_t count,
                     str body, struct err *e)
{
    nghttp2_data_provider provider = {.read_callback = question_read};
    nghttp2_nv nv[HTTP2_FIELDS_MAX];
    int32_t id;

    ASSERT(!is_under_way(c) && count <= HTTP2_FIELDS_MAX);
    for (size_t i = 0; i < count; i++) {
        const char *p = fields[i].value.p;

        if (http1_skip_value(p, p + fields[i].value.n) != p + fields[i].value.n)
            return FAIL(e, INVALID_ARGUMENT, "the value of " STR_F " holds a control character",
                        STR_A(fields[i].name));
        nv[i] = http2_nv(fields[i].name, fields[i].value);
    }
    if (c->body.cap_bytes > KEEP_BYTES)
        buf_done(&c->body); /* gives the memory back, keeps the maximum */
    buf_clear(&c->body);
    buf_clear(&c->texts);
    c->field_count = 0;
    c->question = body;
    c->question_at = 0;
    moved(c);
    c->answer = (struct http2_answer){.state = HTTP2_ANSWER_NONE};
    id = nghttp2_submit_request(c->ng, NULL, nv, count, body.p ? &provider : NULL, NULL);
    if (id < 0)
        return FAIL(e, RESOURCE_EXHAUSTED, "no stream for a question: %s", nghttp2_strerror(id));
    c->stream = id;
    c->answer.state = HTTP2_ANSWER_WAITING;
    return 0;
}

void http2_client_cancel(struct http2_client *c)
{
    if (!is_under_way(c))
        return;
    if (nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, c->stream, NGHTTP2_CANCEL))
        end(c, "no memory to cancel a question", NGHTTP2_ENHANCE_YOUR_CALM);
    fail(c);
}

/* --- Bytes ------------------------------------------------------------------------------------ */

static int over(const struct http2_client *c, struct err *e)
{
    if (c->wrong_is_limit)
        return FAIL(e, RESOURCE_EXHAUSTED, "HTTP/2 session ended: %s", c->wrong);
    return FAIL(e, INVALID_ARGUMENT, "HTTP/2 session ended: %s", c->wrong);
}

int http2_client_receive(struct http2_client *c, str bytes, struct err *e)
{
    ssize_t n;

    if (c->wrong)
        return over(c, e);
    c->idle_bytes += bytes.n;
    n = nghttp2_session_mem_recv(c->ng, (const uint8_t *)bytes.p, bytes.n);
    /* A window full may be under way for a question that was taken back. */
    if (c->idle_bytes >
        bytes.n + c->limits.window_bytes + (uint64_t)IDLE_FRAME_BYTES * c->limits.idle_frames)
        end(c, "too many bytes that move nothing on", NGHTTP2_ENHANCE_YOUR_CALM);
    if (n < 0 && !c->wrong) {
        c->wrong = nghttp2_strerror((int)n);
        c->wrong_is_limit = n == NGHTTP2_ERR_FLOODED || n == NGHTTP2_ERR_NOMEM;
        fail(c);
    }
    return c->wrong ? over(c, e) : 0;
}

bool http2_client_send(struct http2_client *c, struct buf *out)
{
    while (out->n < OUT_BYTES && !out->overflowed) {
        const uint8_t *p;
        ssize_t n = nghttp2_session_mem_send(c->ng, &p);

        if (n < 0 && !c->wrong) {
            c->wrong = nghttp2_strerror((int)n);
            fail(c);
        }
        if (n <= 0)
            return false;
        buf_add(out, p, (size_t)n);
    }
    return true;
}

const struct http2_answer *http2_client_answer(const struct http2_client *c)
{
    return &c->answer;
}

str http2_client_field(const struct http2_client *c, bool trailer, str name)
{
    for (uint32_t i = 0; i < c->field_count; i++) {
        const struct field *f = &c->fields[i];

        if (f->trailer == trailer && str_eq((str){c->texts.p + f->name_at, f->name_bytes}, name))
            return (str){c->texts.p + f->value_at, f->value_bytes};
    }
    return STR_NULL;
}

str http2_client_fault(const struct http2_client *c)
{
    return str_of(c->wrong);
}

uint64_t http2_client_memory_bytes(const struct http2_client *c)
{
    return sizeof(*c) + c->pool.used_bytes + c->pool.kept_bytes + c->texts.cap_bytes +
           c->body.cap_bytes + c->limits.fields * sizeof(*c->fields);
}
