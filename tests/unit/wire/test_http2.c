/* SPDX-License-Identifier: Apache-2.0 */
/* Answers are read by nghttp2's decoder of header blocks. */
#include "check.h"
#include "http2_frames.h"

#include "base/mem.h"
#include "wire/http2.h"

#include <nghttp2/nghttp2.h>

/* One client: what it will send, and what the server sent. */
static struct {
    struct http2_session *s;
    struct http2_limits limits;
    struct buf to, from;
    size_t read_at; /* in `from` */
    nghttp2_hd_inflater *inflater;
    struct buf fields;    /* of the last header block: "name: value\n" */
    uint32_t goaway_code; /* of the last GOAWAY */
    struct err e;
    int rc;
} c;

static void put_frame(int type, int flags, uint32_t id, str payload)
{
    frame_put(&c.to, type, flags, id, payload);
}

static void put_headers(uint32_t id, int flags, const char *text)
{
    frame_headers_put(&c.to, id, flags, text);
}

#define GET ":method: GET\n:scheme: http\n:path: /v2/health/live?x=1\n:authority: h:80"
#define POST ":method: POST\n:scheme: http\n:path: /p\n:authority: h"

static void drop(void)
{
    http2_session_free(c.s);
    buf_done(&c.to);
    buf_done(&c.from);
    buf_done(&c.fields);
    if (c.inflater)
        nghttp2_hd_inflate_del(c.inflater);
    memset(&c, 0, sizeof(c));
}

static void connect_raw(const struct http2_limits *limits)
{
    drop();
    c.limits = limits ? *limits : HTTP2_LIMITS_DEFAULT;
    CHECK_OK(http2_session_new(&c.limits, &c.s, &c.e), &c.e);
    buf_init(&c.to, 1 << 28);
    buf_init(&c.from, 1 << 28);
    buf_init(&c.fields, 1 << 20);
    CHECK_INT(nghttp2_hd_inflate_new(&c.inflater), 0);
}

static void connect_with(const struct http2_limits *limits)
{
    connect_raw(limits);
    buf_add_str(&c.to, S("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    put_frame(SETTINGS, 0, 0, STR_NULL);
    put_frame(SETTINGS, ACK, 0, STR_NULL);
}

/* Gives what was put to the server; returns whether it is content. */
static bool feed(void)
{
    /* An exact copy on the heap, so that a sanitizer sees a read past the end. */
    AUTO(mem_freep) char *copy = mem_dupz(c.to.p, c.to.n);

    c.rc = http2_receive(c.s, (str){copy, c.to.n}, &c.e);
    buf_clear(&c.to);
    return c.rc == 0;
}

static enum http2_event next(struct http2_stream **st)
{
    return http2_next(c.s, st);
}

struct frame {
    int type, flags;
    uint32_t id;
    str payload;
};

static uint32_t u32_of(str s)
{
    const unsigned char *p = (const unsigned char *)s.p;

    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The next frame of the server; false when there is none. Header blocks are decoded. */
static bool take(struct frame *f)
{
    const unsigned char *p;
    size_t n;

    while (http2_send(c.s, &c.from))
        ;
    if (c.from.n - c.read_at < 9)
        return false;
    p = (const unsigned char *)c.from.p + c.read_at;
    n = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
    f->type = p[3], f->flags = p[4];
    f->id = (uint32_t)p[5] << 24 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 8 | p[8];
    f->payload = (str){(const char *)p + 9, n};
    c.read_at += 9 + n;
    CHECK(c.read_at <= c.from.n);
    if (f->type == GOAWAY)
        c.goaway_code = u32_of(str_skip(f->payload, 4));
    if (f->type != HEADERS)
        return true;
    buf_clear(&c.fields);
    for (str in = f->payload; in.n;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t used =
            nghttp2_hd_inflate_hd2(c.inflater, &nv, &flags, (const uint8_t *)in.p, in.n, 1);

        if (!CHECK(used >= 0))
            return false;
        in = str_skip(in, (size_t)used);
        if (flags & NGHTTP2_HD_INFLATE_EMIT)
            buf_printf(&c.fields, "%.*s: %.*s\n", (int)nv.namelen, nv.name, (int)nv.valuelen,
                       nv.value);
        if (flags & NGHTTP2_HD_INFLATE_FINAL)
            nghttp2_hd_inflate_end_headers(c.inflater);
    }
    return true;
}

/* The next frame of this type; false when there is none. */
static bool take_type(int type, struct frame *f)
{
    while (take(f))
        if (f->type == type)
            return true;
    return false;
}

static bool has_field(const char *line)
{
    return str_find(buf_str(&c.fields), str_of(line)) >= 0;
}

/* --- What works ------------------------------------------------------------------------------- */

static void test_get(void)
{
    struct http2_stream *st;
    struct http1_header type = {S("content-type"), S("text/plain")};
    struct frame f;

    connect_with(NULL);
    put_headers(1, END_STREAM, GET "\naccept: */*\nx-own: a, b");
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_REQUEST);
    CHECK_INT(st->req.method, HTTP1_M_GET);
    CHECK_STR(st->req.method_text, S("GET"));
    CHECK_STR(st->req.target, S("/v2/health/live?x=1"));
    CHECK_STR(st->req.path, S("/v2/health/live"));
    CHECK_STR(st->req.query, S("x=1"));
    CHECK_STR(st->req.host, S("h:80"));
    CHECK_STR(http1_known(&st->req.fields, HTTP1_F_HOST), S("h:80"));
    CHECK_STR(http1_known(&st->req.fields, HTTP1_F_ACCEPT), S("*/*"));
    CHECK_STR(http1_field(&st->req.fields, S("x-own")), S("a, b"));
    CHECK(st->req.keep_alive && st->complete && !st->closed);
    CHECK_INT(st->req.framing, HTTP1_BODY_NONE);
    CHECK_INT(st->req.body.n, 0);
    CHECK_INT(next(&st), HTTP2_NONE);
    CHECK_INT(http2_open_streams(c.s), 1);
    http2_respond(st, 200, &type, 1, S("hello"));
    http2_stream_release(st);
    NEED(take(&f));
    CHECK_INT(f.type, SETTINGS);
    NEED(take_type(HEADERS, &f));
    CHECK_STR(buf_str(&c.fields), S(":status: 200\ncontent-type: text/plain\ncontent-length: 5\n"));
    CHECK_INT(f.flags, END_HEADERS);
    NEED(take(&f));
    CHECK_INT(f.type, DATA);
    CHECK_INT(f.id, 1);
    CHECK_INT(f.flags, END_STREAM);
    CHECK_STR(f.payload, S("hello"));
    CHECK(!take(&f));
    CHECK_INT(http2_open_streams(c.s), 0);
}

static void test_body_in_pieces(void)
{
    struct http2_stream *st, *same;
    struct frame f;

    connect_with(NULL);
    put_headers(1, 0, POST "\ncontent-length: 6");
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_HEAD);
    CHECK(!st->complete);
    CHECK_INT(st->req.content_length, 6);
    CHECK_INT(st->req.framing, HTTP1_BODY_LENGTH);
    put_frame(DATA, 0, 1, S("abc"));
    put_frame(DATA, 0, 1, S("d"));
    NEED(feed());
    CHECK_INT(next(&same), HTTP2_DATA);
    CHECK(same == st);
    CHECK_STR(st->req.body, S("abcd"));
    CHECK_INT(next(&same), HTTP2_NONE);
    put_frame(DATA, END_STREAM, 1, S("ef"));
    NEED(feed());
    CHECK_INT(next(&same), HTTP2_REQUEST);
    CHECK_STR(st->req.body, S("abcdef"));
    CHECK_STR(st->req.path, S("/p"));
    http2_respond(st, 204, NULL, 0, S("not sent"));
    http2_stream_release(st);
    NEED(take_type(HEADERS, &f));
    CHECK_INT(f.flags, END_HEADERS | END_STREAM);
    CHECK_STR(buf_str(&c.fields), S(":status: 204\n"));
    CHECK_INT(http2_open_streams(c.s), 0);
}

/* Cut at every byte, the same comes out. */
static void test_cuts(void)
{
    AUTO(buf_done) struct buf all = {0};

    buf_init(&all, 1 << 20);
    connect_with(NULL);
    put_headers(1, 0, POST "\nx-request-id: 7");
    put_frame(DATA, 0, 1, S("abc"));
    put_headers(3, END_STREAM, GET);
    put_frame(DATA, END_STREAM, 1, S("d"));
    buf_add_str(&all, buf_str(&c.to));
    for (size_t step = 1; step < 40; step++) {
        struct http2_stream *st;
        int requests = 0;

        connect_raw(NULL);
        for (size_t at = 0; at < all.n; at += step) {
            enum http2_event ev;

            buf_add(&c.to, all.p + at, MIN(step, all.n - at));
            NEED(feed());
            while ((ev = next(&st))) {
                if (ev != HTTP2_REQUEST)
                    continue;
                requests++;
                if (st->id == 1)
                    CHECK_STR(st->req.body, S("abcd"));
                http2_respond(st, 200, NULL, 0, STR_NULL);
                http2_stream_release(st);
            }
        }
        CHECK_INT(requests, 2);
    }
}

static void test_trailers_and_streaming(void)
{
    static const struct http1_header type = {S_INIT("content-type"), S_INIT("application/grpc")};
    static const struct http1_header trailers[] = {{S_INIT("grpc-status"), S_INIT("0")},
                                                   {S_INIT("x-bad"), S_INIT("a\nb")}};
    struct http2_stream *st;
    struct frame f;

    connect_with(NULL);
    put_headers(1, 0, POST "\nte: trailers");
    put_frame(DATA, 0, 1, S("one"));
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_HEAD);
    CHECK_STR(st->req.body, S("one"));
    http2_stream_by_pieces(st);
    http2_stream_consume(st, 2);
    CHECK_STR(st->req.body, S("e"));
    http2_respond_head(st, 200, &type, 1);
    NEED(take_type(HEADERS, &f));
    CHECK_INT(f.flags, END_HEADERS);
    CHECK(!take(&f));
    http2_stream_write(st, S("first"));
    NEED(take_type(DATA, &f));
    CHECK_STR(f.payload, S("first"));
    CHECK_INT(f.flags, 0);
    put_frame(DATA, END_STREAM, 1, S("two"));
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_REQUEST);
    CHECK_STR(st->req.body, S("etwo"));
    http2_stream_write(st, S("second"));
    CHECK_INT(http2_stream_queued_bytes(st), 6);
    http2_stream_finish(st, trailers, 2);
    http2_stream_release(st);
    NEED(take_type(DATA, &f));
    CHECK_STR(f.payload, S("second"));
    CHECK_INT(f.flags, 0);
    NEED(take(&f));
    CHECK_INT(f.type, HEADERS);
    CHECK_INT(f.flags, END_HEADERS | END_STREAM);
    CHECK_STR(buf_str(&c.fields), S("grpc-status: 0\n"));
    CHECK_INT(http2_open_streams(c.s), 0);
}

static void test_trailers_only_and_request_trailers(void)
{
    static const struct http1_header status = {S_INIT("grpc-status"), S_INIT("5")};
    struct http2_stream *st;
    struct frame f;

    connect_with(NULL);
    put_headers(1, 0, POST);
    put_frame(DATA, 0, 1, S("x"));
    put_headers(1, END_STREAM, "x-checksum: 1");
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_REQUEST);
    CHECK(!http1_field(&st->req.fields, S("x-checksum")).p);
    http2_respond_only(st, 200, &status, 1);
    http2_stream_release(st);
    NEED(take_type(HEADERS, &f));
    CHECK_INT(f.flags, END_HEADERS | END_STREAM);
    CHECK_STR(buf_str(&c.fields), S(":status: 200\ngrpc-status: 5\n"));
}

static void test_head_and_continue(void)
{
    struct http2_stream *st;
    struct frame f;

    connect_with(NULL);
    put_headers(1, END_STREAM, ":method: HEAD\n:scheme: http\n:path: /\n:authority: h");
    put_headers(3, 0, POST "\nexpect: 100-continue");
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_REQUEST);
    http2_respond(st, 200, NULL, 0, S("twelve bytes"));
    http2_stream_release(st);
    NEED(take_type(HEADERS, &f)); /* of stream 3: nghttp2 sends in the order of submission */
    CHECK_STR(buf_str(&c.fields), S(":status: 100\n"));
    CHECK_INT(f.flags, END_HEADERS);
    NEED(take_type(HEADERS, &f));
    CHECK_INT(f.flags, END_HEADERS | END_STREAM);
    CHECK_STR(buf_str(&c.fields), S(":status: 200\ncontent-length: 12\n"));
}

/* Both ways past every window. */
static void test_large_bodies(void)
{
    AUTO(mem_freep) char *big = mem_zalloc(16384);
    struct http2_stream *st = NULL;
    const size_t total = 24 << 20;
    size_t sent = 0, got = 0, window = 1 << 20, peer_window = 65535;
    struct frame f;
    int rounds = 0;

    connect_with(NULL);
    put_headers(1, 0, POST);
    NEED(feed());
    while (sent < total && ++rounds < 1000) { /* as much as the server's windows let it */
        while (window >= 16384 && sent < total) {
            sent += 16384, window -= 16384;
            put_frame(DATA, sent == total ? END_STREAM : 0, 1, (str){big, 16384});
        }
        NEED(feed());
        while (take(&f))
            if (f.type == WINDOW_UPDATE && f.id == 1)
                window += u32_of(f.payload);
    }
    CHECK_INT(sent, total);
    CHECK(rounds < 20); /* the window grew; at 1 MiB it would be 24 or more */
    while (next(&st) != HTTP2_REQUEST)
        NEED(st);
    CHECK_INT(st->req.body.n, total);
    http2_respond(st, 200, NULL, 0, st->req.body);
    http2_stream_release(st);
    while (take(&f))
        if (f.type == DATA)
            got += f.payload.n;
    CHECK_INT(got, peer_window); /* and no more */
    CHECK_INT(http2_stalled_bytes(c.s), total - peer_window);
    put_frame(WINDOW_UPDATE, 0, 0, S("\x7f\xf0\0\0"));
    put_frame(WINDOW_UPDATE, 0, 1, S("\x7f\xf0\0\0"));
    NEED(feed());
    while (take(&f))
        if (f.type == DATA)
            got += f.payload.n;
    CHECK_INT(got, total);
    CHECK_INT(f.flags, END_STREAM);
    CHECK_INT(http2_stalled_bytes(c.s), 0);
    CHECK_INT(http2_open_streams(c.s), 0);
}

static void exchange(uint32_t id)
{
    struct http2_stream *st;
    struct frame f;

    put_headers(id, 0, POST "\ncontent-type: application/json");
    put_frame(DATA, END_STREAM, id, S("a body"));
    NEED(feed());
    NEED(next(&st) == HTTP2_REQUEST);
    http2_respond(st, 200, NULL, 0, S("an answer"));
    http2_stream_release(st);
    while (take(&f))
        ;
    buf_clear(&c.from);
    c.read_at = 0;
}

static void test_steady_state_allocates_nothing(void)
{
    uint64_t before;
    uint32_t id = 1;

    connect_with(NULL);
    for (; id < 400; id += 2)
        exchange(id);
    before = mem_alloc_count();
    for (; id < 1000; id += 2)
        exchange(id);
    CHECK_INT(mem_alloc_count() - before, 600); /* of feed() and put_headers() */
    before = http2_memory_bytes(c.s);
    http2_tick(c.s);
    CHECK(http2_memory_bytes(c.s) < before);
    exchange(id);
}

/* --- Ends ------------------------------------------------------------------------------------- */

static void test_reset_by_peer(void)
{
    struct http2_stream *st, *same;
    struct frame f;

    connect_with(NULL);
    put_headers(1, END_STREAM, GET);
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_REQUEST);
    put_frame(RST_STREAM, 0, 1, S("\0\0\0\x08"));
    put_headers(3, END_STREAM, GET); /* comes and goes in one read: never seen */
    put_frame(RST_STREAM, 0, 3, S("\0\0\0\x08"));
    NEED(feed());
    CHECK_INT(next(&same), HTTP2_CLOSED);
    CHECK(same == st);
    CHECK_INT(st->error_code, HTTP2_CANCEL);
    CHECK_STR(st->req.path, S("/v2/health/live")); /* still there */
    CHECK_INT(next(&same), HTTP2_NONE);
    http2_respond(st, 200, NULL, 0, S("into the void"));
    http2_stream_write(st, S("too"));
    http2_stream_finish(st, NULL, 0);
    CHECK(!take_type(HEADERS, &f));
    CHECK_INT(http2_open_streams(c.s), 1);
    http2_stream_release(st);
    CHECK_INT(http2_open_streams(c.s), 0);
}

static void test_release_without_answer(void)
{
    struct http2_stream *st;
    struct frame f;

    connect_with(NULL);
    put_headers(1, END_STREAM, GET);
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_REQUEST);
    http2_stream_release(st);
    NEED(take_type(RST_STREAM, &f));
    CHECK_INT(u32_of(f.payload), HTTP2_INTERNAL_ERROR);
    CHECK_INT(http2_open_streams(c.s), 0);
}

static void test_early_answer(void)
{
    struct http2_stream *st;
    struct frame f;

    connect_with(NULL);
    put_headers(1, 0, POST);
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_HEAD);
    http2_respond(st, 401, NULL, 0, STR_NULL);
    http2_stream_release(st);
    NEED(take_type(HEADERS, &f));
    NEED(take(&f));
    CHECK_INT(f.type, RST_STREAM);
    CHECK_INT(u32_of(f.payload), HTTP2_NO_ERROR);
    put_frame(DATA, END_STREAM, 1, S("late")); /* was under way: no error */
    CHECK(feed());
    CHECK_INT(http2_open_streams(c.s), 0);
}

static void test_goaway(void)
{
    struct http2_stream *st, *late;
    struct frame f;

    connect_with(NULL);
    put_headers(1, END_STREAM, GET);
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_REQUEST);
    http2_goaway(c.s, false);
    NEED(take_type(GOAWAY, &f));
    CHECK_INT(u32_of(f.payload), 0x7fffffff);
    put_headers(3, END_STREAM, GET); /* was under way: served */
    NEED(feed());
    CHECK_INT(next(&late), HTTP2_REQUEST);
    http2_respond(late, 200, NULL, 0, STR_NULL);
    http2_stream_release(late);
    http2_goaway(c.s, true);
    NEED(take_type(GOAWAY, &f));
    CHECK_INT(u32_of(f.payload), 3);
    CHECK_INT(u32_of(str_skip(f.payload, 4)), HTTP2_NO_ERROR);
    put_headers(5, END_STREAM, GET); /* not served */
    NEED(feed());
    CHECK_INT(next(&late), HTTP2_NONE);
    CHECK(!http2_is_done(c.s));
    http2_respond(st, 200, NULL, 0, S("ok"));
    http2_stream_release(st);
    while (take(&f))
        ;
    CHECK(http2_is_done(c.s));
}

/* --- What is refused -------------------------------------------------------------------------- */

static void refused(const char *fields, enum http1_refusal want)
{
    struct http2_stream *st;
    struct frame f;
    char status[40];

    put_headers(1, 0, fields);
    NEED(feed());
    NEED(CHECK_INT(next(&st), HTTP2_REFUSED));
    if (!CHECK_INT(st->refusal, want))
        fprintf(stderr, "    %s\n", fields);
    http2_respond_refusal(st);
    http2_stream_release(st);
    NEED(take_type(HEADERS, &f));
    snprintf(status, sizeof(status), ":status: %d\n", http1_refusal_status(want));
    CHECK(has_field(status));
    NEED(take_type(RST_STREAM, &f));
    CHECK_INT(u32_of(f.payload), HTTP2_NO_ERROR);
    CHECK_INT(http2_open_streams(c.s), 0);
}

#define WITH(path, host) ":method: GET\n:scheme: http\n:path: " path "\n:authority: " host

static void test_refusals(void)
{
    static const struct {
        const char *fields;
        enum http1_refusal want;
    } cases[] = {
        {WITH("/a#b", "h"), HTTP1_NO_TARGET},
        {WITH("/a\x80", "h"), HTTP1_NO_TARGET},
        {WITH("/", "user@h"), HTTP1_NO_HOST},
        {WITH("/", "h") "\nhost: other", HTTP1_NO_HOST},
        {":method: TRACE\n:scheme: http\n:path: /\n:authority: h", HTTP1_NO_METHOD},
        {":method: CONNECT\n:authority: h:80", HTTP1_NO_METHOD},
        {WITH("/", "h") "\nexpect: tea", HTTP1_NO_EXPECT},
        {WITH("/", "h") "\nauthorization: a\nauthorization: b", HTTP1_NO_FIELD_REPEATED},
        {WITH("/", "h") "\ncontent-length: 99999999999", HTTP1_NO_BODY_TOO_LARGE},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        connect_with(NULL);
        refused(cases[i].fields, cases[i].want);
    }
    connect_with(NULL);
    put_headers(1, END_STREAM, WITH("/", "h") "\nhost: h"); /* the same: fine */
    NEED(feed());
    struct http2_stream *st;
    CHECK_INT(next(&st), HTTP2_REQUEST);
    CHECK_INT(st->req.fields.count, 1);
}

static void test_limits_of_a_head(void)
{
    AUTO(buf_done) struct buf fields = {0};
    struct http2_limits limits = HTTP2_LIMITS_DEFAULT;

    buf_init(&fields, 1 << 20);
    limits.request.head_bytes = 2000;
    limits.request.target_bytes = 300;
    limits.request.headers = 20;
    buf_printf(&fields, POST "\nx: %02000d", 1);
    connect_with(&limits);
    refused(buf_z(&fields), HTTP1_NO_HEAD_TOO_LARGE);
    exchange(3); /* the table of HPACK is in step, the session goes on */
    buf_clear(&fields);
    buf_printf(&fields, POST);
    for (int i = 0; i < 20; i++)
        buf_printf(&fields, "\nx%d: 1", i);
    connect_with(&limits);
    refused(buf_z(&fields), HTTP1_NO_TOO_MANY_FIELDS);
    buf_clear(&fields);
    buf_printf(&fields, ":method: GET\n:scheme: http\n:authority: h\n:path: /%0300d", 1);
    connect_with(&limits);
    refused(buf_z(&fields), HTTP1_NO_TARGET_TOO_LONG);
}

static void test_limits_of_bodies(void)
{
    AUTO(mem_freep) char *big = mem_zalloc(16384);
    struct http2_limits limits = HTTP2_LIMITS_DEFAULT;
    struct http2_stream *st;
    uint32_t id = 1;
    int refusals = 0;
    enum http2_event ev;

    limits.request.body_bytes = 30000;
    limits.bodies_bytes = 50000;
    connect_with(&limits);
    put_headers(1, 0, POST);
    put_frame(DATA, 0, 1, (str){big, 16384});
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_HEAD);
    put_frame(DATA, 0, 1, (str){big, 16384});
    put_frame(DATA, END_STREAM, 1, (str){big, 16384});
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_REFUSED);
    CHECK_INT(st->refusal, HTTP1_NO_BODY_TOO_LARGE);
    CHECK_INT(st->req.body.n, 0);
    http2_respond_refusal(st);
    http2_stream_release(st);
    for (id = 3; id < 11; id += 2) { /* four of 16 KiB: one too many for 50,000 together */
        put_headers(id, 0, POST);
        put_frame(DATA, 0, id, (str){big, 16384});
    }
    NEED(feed());
    while ((ev = next(&st))) {
        refusals += ev == HTTP2_REFUSED && st->refusal == HTTP1_NO_BODIES_TOO_LARGE;
        http2_respond(st, 429, NULL, 0, STR_NULL);
        http2_stream_release(st);
    }
    CHECK_INT(refusals, 1);
    put_headers(11, 0, POST); /* all is let go: room again */
    put_frame(DATA, 0, 11, (str){big, 16384});
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_HEAD);
}

static void test_trailer_limit(void)
{
    AUTO(buf_done) struct buf fields = {0};
    struct http2_stream *st;

    buf_init(&fields, 1 << 20);
    buf_printf(&fields, "x: %05000d", 1);
    connect_with(NULL);
    put_headers(1, 0, POST);
    put_headers(1, END_STREAM, buf_z(&fields));
    NEED(feed());
    CHECK_INT(next(&st), HTTP2_REFUSED);
    CHECK_INT(st->refusal, HTTP1_NO_TRAILER_TOO_LARGE);
}

/* Malformed requests: the stream is reset, the session lives. */
static void test_smuggling(void)
{
    static const char *const bad[] = {
        POST "\nconnection: keep-alive",
        POST "\ntransfer-encoding: chunked",
        POST "\nupgrade: h2c",
        POST "\nkeep-alive: 1",
        POST "\nproxy-connection: x",
        POST "\nte: gzip",
        POST "\nX-Upper: 1",
        POST "\nx a: 1",
        POST "\nx: a\rb",
        POST "\nx:  leading",
        POST "\n:path: /again",
        POST "\n:status: 200",
        POST "\nx: 1\n:extra: 1",
        "x: 1\n" POST,
        ":method: GET\n:scheme: http\n:authority: h",
        ":method: GET\n:path: /\n:authority: h",
        ":scheme: http\n:path: /\n:authority: h",
        ":method: GET\n:scheme: http\n:path: /",
        ":method: GET\n:scheme: http\n:path: nowhere\n:authority: h",
        POST "\ncontent-length: 1\ncontent-length: 1",
        POST "\ncontent-length: +1",
        POST "\ncontent-length: 1,2",
    };
    struct http2_stream *st;
    struct frame f;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        enum http2_event ev;

        connect_with(NULL);
        put_headers(1, END_STREAM, bad[i]);
        NEED(feed());
        ev = next(&st);
        if (!CHECK(ev == HTTP2_NONE) || !CHECK(take_type(RST_STREAM, &f)))
            fprintf(stderr, "    %s\n", bad[i]);
        CHECK_INT(http2_open_streams(c.s), 0);
        exchange(3);
    }
}

static void test_nul_and_newline_in_values(void)
{
    static const str values[] = {S_INIT("a\0b"), S_INIT("a\nb"), S_INIT("a\x7f"), S_INIT("\x01")};

    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        AUTO(buf_done) struct buf b = {0};
        struct http2_stream *st;
        struct frame f;

        buf_init(&b, 1000);
        connect_with(NULL);
        frame_block_put(&b, POST);
        frame_field_put(&b, S("x"), values[i]);
        put_frame(HEADERS, END_HEADERS | END_STREAM, 1, buf_str(&b));
        NEED(feed());
        CHECK_INT(next(&st), HTTP2_NONE);
        CHECK(take_type(RST_STREAM, &f));
    }
}

static void test_lying_length(void)
{
    static const char *const data[] = {"short", "much too long"};

    for (size_t i = 0; i < 2; i++) {
        struct http2_stream *st = NULL;
        enum http2_event ev;
        struct frame f;

        connect_with(NULL);
        put_headers(1, 0, POST "\ncontent-length: 8");
        put_frame(DATA, END_STREAM, 1, str_of(data[i]));
        NEED(feed());
        while ((ev = next(&st)))
            CHECK(ev == HTTP2_HEAD);
        CHECK(take_type(RST_STREAM, &f));
        CHECK_INT(u32_of(f.payload), 1);
        CHECK_INT(next(&st), HTTP2_CLOSED);
        http2_stream_release(st);
        CHECK_INT(http2_open_streams(c.s), 0);
    }
}

/* --- Attacks ---------------------------------------------------------------------------------- */

#define CALM HTTP2_ENHANCE_YOUR_CALM

/* The session has ended with this code in a GOAWAY. */
static void ended_with(uint32_t code)
{
    struct frame f;

    while (take(&f))
        ;
    CHECK_INT(c.goaway_code, code);
    CHECK(http2_fault(c.s).n > 0);
    CHECK(http2_is_done(c.s));
    CHECK(http2_receive(c.s, S("more"), &c.e) != 0);
}

static void test_rapid_reset(void)
{
    struct http2_stream *st;
    uint32_t id = 1, rounds = 0;

    connect_with(NULL);
    for (; rounds < 10000; rounds++, id += 2) {
        put_headers(id, END_STREAM, GET);
        put_frame(RST_STREAM, 0, id, S("\0\0\0\x08"));
        if (!feed())
            break;
        CHECK_INT(next(&st), HTTP2_NONE);
    }
    CHECK_INT(rounds, HTTP2_LIMITS_DEFAULT.resets);
    CHECK_INT(c.rc, CODE_RESOURCE_EXHAUSTED);
    ended_with(CALM);
    /* At a slower pace it is a client that gives up often. */
    connect_with(NULL);
    for (id = 1; id < 2000; id += 2) {
        put_headers(id, END_STREAM, GET);
        put_frame(RST_STREAM, 0, id, S("\0\0\0\x08"));
        NEED(feed());
        CHECK_INT(next(&st), HTTP2_NONE);
        if (id % 200 == 1)
            http2_tick(c.s);
    }
    exchange(2001);
}

/* The same by mistakes that make the server reset: CVE-2025-8671. */
static void test_made_you_reset(void)
{
    uint32_t rounds = 0;

    connect_with(NULL);
    for (uint32_t id = 1; rounds < 10000; rounds++, id += 2) {
        struct frame f;

        put_headers(id, 0, POST);
        put_frame(WINDOW_UPDATE, 0, id, S("\x7f\xff\xff\xff"));
        if (!feed())
            break;
        while (take(&f))
            ;
    }
    CHECK(rounds < 300);
    ended_with(CALM);
}

static void flood(int type, int flags, str payload, uint32_t id, bool drains)
{
    int rounds = 0;
    struct frame f;

    connect_with(NULL);
    put_headers(1, 0, POST);
    for (; rounds < 100000 && feed(); rounds++) {
        put_frame(type, flags, id, payload);
        while (drains && take(&f))
            ;
    }
    if (!CHECK(rounds < 3000))
        fprintf(stderr, "    frames of type %d\n", type);
    CHECK_INT(c.rc, CODE_RESOURCE_EXHAUSTED);
    CHECK(http2_memory_bytes(c.s) < 1 << 20);
}

static void test_floods(void)
{
    flood(PING, 0, S("12345678"), 0, true);
    flood(PING, 0, S("12345678"), 0, false);
    flood(SETTINGS, 0, STR_NULL, 0, true);
    flood(SETTINGS, 0, STR_NULL, 0, false);
    flood(DATA, 0, STR_NULL, 1, true);
    flood(PRIORITY, 0, S("\0\0\0\0\1"), 5, true);
    flood(WINDOW_UPDATE, 0, S("\0\0\0\1"), 0, true);
}

static void test_flood_of_unknown_frames(void)
{
    struct http2_limits limits = HTTP2_LIMITS_DEFAULT;
    int rounds = 0;

    limits.window_max_bytes = 20000;
    limits.idle_frames = 100;
    connect_with(&limits);
    for (; rounds < 10000 && feed(); rounds++)
        put_frame(0x42, 0, 1, S("unknown"));
    CHECK(rounds > 1000 && rounds < 2000);
    ended_with(CALM);
}

static void test_continuation_flood(void)
{
    int rounds = 0;
    AUTO(buf_done) struct buf b = {0};

    buf_init(&b, 1000);
    connect_with(NULL);
    frame_block_put(&b, POST);
    put_frame(HEADERS, END_STREAM, 1, buf_str(&b));
    for (; rounds < 1000 && feed(); rounds++)
        put_frame(CONT, 0, 1, S("\0\1x\1y"));
    CHECK(rounds < 12);
}

/* One entry of 3,800 bytes, then references of one byte to it. */
static void test_hpack_bomb(void)
{
    AUTO(buf_done) struct buf b = {0};
    AUTO(mem_freep) char *value = mem_zalloc(3800);

    buf_init(&b, 1 << 20);
    memset(value, 'v', 3800);
    connect_with(NULL);
    frame_block_put(&b, POST);
    buf_add_char(&b, 0x40); /* literal with incremental indexing */
    frame_length_put(&b, 1);
    buf_add_char(&b, 'x');
    frame_length_put(&b, 3800);
    buf_add(&b, value, 3800);
    for (int i = 0; i < 10000; i++)
        buf_add_char(&b, (char)(0x80 | 62));
    put_frame(HEADERS, END_HEADERS | END_STREAM, 1, buf_str(&b));
    CHECK(!feed());
    ended_with(CALM);
}

static void test_too_many_streams(void)
{
    struct http2_stream *st;
    enum http2_event ev;
    uint32_t id = 1;
    int got = 0, refused_streams = 0;
    struct frame f;

    connect_with(NULL);
    for (; id < 2 * HTTP2_LIMITS_DEFAULT.streams; id += 2)
        put_headers(id, END_STREAM, GET);
    NEED(feed());
    while ((ev = next(&st)))
        got += ev == HTTP2_REQUEST;
    CHECK_INT(got, HTTP2_LIMITS_DEFAULT.streams);
    /* The peer has reset them, but we still hold them. */
    for (uint32_t i = 1; i < id; i += 2)
        put_frame(RST_STREAM, 0, i, S("\0\0\0\x08"));
    for (int i = 0; i < 20; i++, id += 2)
        put_headers(id, END_STREAM, GET);
    NEED(feed());
    while (take(&f))
        refused_streams += f.type == RST_STREAM && u32_of(f.payload) == HTTP2_REFUSED_STREAM;
    CHECK_INT(refused_streams, 20);
    while ((ev = next(&st))) {
        CHECK(ev == HTTP2_CLOSED);
        http2_stream_release(st);
    }
    CHECK_INT(http2_open_streams(c.s), 0);
    exchange(id);
}

/* A peer that opens no window gets no more streams once enough is queued for it. */
static void test_zero_window(void)
{
    AUTO(mem_freep) char *big = mem_zalloc(1 << 20);
    struct http2_stream *st;
    struct frame f;
    int answered = 0, refused_streams = 0;

    connect_raw(NULL);
    buf_add_str(&c.to, S("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    put_frame(SETTINGS, 0, 0, S("\0\4\0\0\0\0"));
    for (uint32_t id = 1; id < 60; id += 2) {
        put_headers(id, END_STREAM, GET);
        NEED(feed());
        if (next(&st) == HTTP2_REQUEST) {
            answered++;
            http2_respond(st, 200, NULL, 0, (str){big, 1 << 20});
            http2_stream_release(st);
        }
        while (take(&f))
            refused_streams += f.type == RST_STREAM && u32_of(f.payload) == HTTP2_REFUSED_STREAM;
    }
    CHECK_INT(answered, 9);
    CHECK_INT(refused_streams, 21);
    CHECK_INT(http2_stalled_bytes(c.s), 9 << 20);
}

static void test_broken_frames(void)
{
    static const struct {
        int type, flags;
        uint32_t id;
        str payload;
        uint32_t code;
    } cases[] = {
        {DATA, 0, 0, S_INIT("x"), 1},                             /* DATA on stream 0 */
        {HEADERS, END_HEADERS, 2, S_INIT("\x82"), 1},             /* an even stream */
        {SETTINGS, 0, 1, S_INIT(""), 1},                          /* SETTINGS on a stream */
        {SETTINGS, 0, 0, S_INIT("12345"), 6},                     /* not a multiple of 6 */
        {SETTINGS, 0, 0, S_INIT("\0\4\xff\xff\xff\xff"), 3},      /* window over 2^31-1 */
        {PING, 0, 0, S_INIT("1234567"), 6},                       /* 7 bytes */
        {WINDOW_UPDATE, 0, 0, S_INIT("\0\0\0\0"), 1},             /* of nothing */
        {WINDOW_UPDATE, 0, 0, S_INIT("\x7f\xff\xff\xff"), 3},     /* past 2^31-1 */
        {CONT, END_HEADERS, 1, S_INIT("\x82"), 1},                /* after no HEADERS */
        {PUSH, END_HEADERS, 1, S_INIT("\0\0\0\2\x82"), 1},        /* a client never pushes */
        {RST_STREAM, 0, 1, S_INIT("\0\0\0\x08"), 1},              /* of an idle stream */
        {HEADERS, END_HEADERS, 1, S_INIT("\xff\xff\xff\xff"), 9}, /* index out of range */
        {HEADERS, 0x2c, 1, S_INIT("\x7f"), 1},                    /* padding past the end */
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        connect_with(NULL);
        put_frame(cases[i].type, cases[i].flags, cases[i].id, cases[i].payload);
        feed();
        ended_with(cases[i].code);
    }
    connect_raw(NULL);
    buf_add_str(&c.to, S("GET / HTTP/1.1\r\n\r\n"));
    CHECK(!feed());
    CHECK_INT(c.rc, CODE_INVALID_ARGUMENT);
    connect_with(NULL); /* a frame larger than agreed */
    buf_add(&c.to, "\0\x40\1\0\0\0\0\0\1", 9);
    feed();
    ended_with(6);
}

static void test_session_memory_is_bounded(void)
{
    struct http2_limits limits = HTTP2_LIMITS_DEFAULT;
    int rounds = 0;

    limits.memory_bytes = 100000;
    limits.idle_frames = limits.resets = limits.acks = UINT32_MAX;
    connect_with(&limits);
    for (uint32_t id = 1; rounds < 100000 && feed(); rounds++, id += 2)
        put_headers(id, END_STREAM, GET "\nX-Bad: 1"); /* resets that nobody fetches */
    CHECK(rounds < 2000);
    CHECK_INT(c.rc, CODE_RESOURCE_EXHAUSTED);
    drop();
}

RUN_TESTS(T(test_get), T(test_body_in_pieces), T(test_cuts), T(test_trailers_and_streaming),
          T(test_trailers_only_and_request_trailers), T(test_head_and_continue),
          T(test_large_bodies), T(test_steady_state_allocates_nothing), T(test_reset_by_peer),
          T(test_release_without_answer), T(test_early_answer), T(test_goaway), T(test_refusals),
          T(test_limits_of_a_head), T(test_limits_of_bodies), T(test_trailer_limit),
          T(test_smuggling), T(test_nul_and_newline_in_values), T(test_lying_length),
          T(test_rapid_reset), T(test_made_you_reset), T(test_floods),
          T(test_flood_of_unknown_frames), T(test_continuation_flood), T(test_hpack_bomb),
          T(test_too_many_streams), T(test_zero_window), T(test_broken_frames),
          T(test_session_memory_is_bounded))
