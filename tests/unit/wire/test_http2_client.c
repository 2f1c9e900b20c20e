/* SPDX-License-Identifier: Apache-2.0 */
/* The client against our own server side, and against frames that no decent server would send. */
#include "check.h"
#include "http2_frames.h"

#include "wire/http2.h"
#include "wire/http2_client.h"

static struct err e;
static struct http2_client *c;
static struct buf from, to; /* what the client has said; what it is going to hear */

static const struct http1_header POST[] = {
    {S_INIT(":method"), S_INIT("POST")},      {S_INIT(":scheme"), S_INIT("http")},
    {S_INIT(":path"), S_INIT("/p")},          {S_INIT(":authority"), S_INIT("h")},
    {S_INIT("content-type"), S_INIT("text")},
};

static void begin(const struct http2_client_limits *limits)
{
    http2_client_free(c);
    buf_done(&from);
    buf_done(&to);
    buf_init(&from, 1 << 28);
    buf_init(&to, 1 << 28);
    CHECK_OK(http2_client_new(limits, &c, &e), &e);
    frame_put(&to, SETTINGS, 0, 0, STR_NULL);
    frame_put(&to, SETTINGS, ACK, 0, STR_NULL);
}

/* Whatever the client has to say, in steps of any size. */
static void say(void)
{
    AUTO(buf_done) struct buf some = {0};
    bool more = true;

    buf_init(&some, 1 << 20);
    while (more) {
        buf_clear(&some);
        more = http2_client_send(c, &some);
        buf_add_str(&from, buf_str(&some));
    }
}

static bool ask(str body)
{
    bool asked = CHECK(http2_client_may_ask(c)) &&
                 CHECK_OK(http2_client_ask(c, POST, ARRAY_LEN(POST), body, &e), &e);

    say();
    return asked;
}

static int hear(void)
{
    int rc = http2_client_receive(c, buf_str(&to), &e);

    buf_clear(&to);
    say();
    return rc;
}

static enum http2_answer_state state(void)
{
    return http2_client_answer(c)->state;
}

/* The number of frames of a type that the client has sent, and the code of the last RST_STREAM. */
static unsigned said(int type, unsigned *ret_code)
{
    const unsigned char *p = (const unsigned char *)from.p;
    unsigned count = 0;

    for (size_t at = sizeof("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") - 1; at + 9 <= from.n;) {
        size_t n = (size_t)p[at] << 16 | (size_t)p[at + 1] << 8 | p[at + 2];

        if (p[at + 3] == type) {
            count++;
            if (ret_code && n >= 4)
                *ret_code = p[at + 9 + n - 1];
        }
        at += 9 + n;
    }
    return count;
}

/* --- With a server ---------------------------------------------------------------------------- */

static void answer(struct http2_stream *st)
{
    static const struct http1_header head[] = {{S_INIT("content-type"), S_INIT("text")}};
    static const struct http1_header tail[] = {{S_INIT("grpc-status"), S_INIT("0")}};

    http2_respond_head(st, 200, head, 1);
    http2_stream_write(st, st->req.body);
    http2_stream_finish(st, tail, 1);
    http2_stream_release(st);
}

/* Carries bytes between the two until nothing moves. */
static void converse(struct http2_session *server)
{
    AUTO(buf_done) struct buf back = {0};
    struct http2_stream *st;
    enum http2_event ev;

    buf_init(&back, 1 << 28);
    for (;;) {
        say();
        while (http2_send(server, &back))
            continue;
        if (!from.n && !back.n)
            return;
        CHECK_OK(http2_receive(server, buf_str(&from), &e), &e);
        buf_clear(&from);
        CHECK_OK(http2_client_receive(c, buf_str(&back), &e), &e);
        buf_clear(&back);
        while ((ev = http2_next(server, &st)))
            if (ev == HTTP2_REQUEST)
                answer(st);
    }
}

static void questions_of_any_size_are_answered(void)
{
    AUTO(http2_session_freep) struct http2_session *server = NULL;
    AUTO(buf_done) struct buf body = {0};
    uint64_t memory = 0;

    begin(NULL);
    buf_clear(&to);
    NEED_OK(http2_session_new(NULL, &server, &e), &e);
    buf_init(&body, 16 << 20);
    while (body.n < 5 << 20)
        buf_add_str(&body, S("0123456789abcdef"));
    for (size_t n = 0; n <= body.n; n = n * 3 + 1) {
        NEED(ask(str_take(buf_str(&body), n)));
        converse(server);
        CHECK_INT(state(), HTTP2_ANSWER_COMPLETE);
        CHECK_INT(http2_client_answer(c)->status, 200);
        CHECK(str_eq(http2_client_answer(c)->body, str_take(buf_str(&body), n)));
        CHECK_STR(http2_client_field(c, true, S("grpc-status")), S("0"));
        CHECK_STR(http2_client_field(c, false, S("content-type")), S("text"));
        CHECK(!http2_client_field(c, false, S("grpc-status")).p);
    }
    for (int i = 0; i < 500; i++) { /* in steady state nothing grows */
        NEED(ask(S("hello")));
        converse(server);
        CHECK_INT(state(), HTTP2_ANSWER_COMPLETE);
        memory = i == 50 ? http2_client_memory_bytes(c) : memory;
    }
    CHECK_INT(http2_client_memory_bytes(c), memory);
    NEED(ask(STR_NULL));
    converse(server);
    CHECK_INT(state(), HTTP2_ANSWER_COMPLETE);
}

static void a_server_that_drains_is_left(void)
{
    AUTO(http2_session_freep) struct http2_session *server = NULL;

    begin(NULL);
    buf_clear(&to);
    NEED_OK(http2_session_new(NULL, &server, &e), &e);
    converse(server);
    http2_goaway(server, false);
    NEED(ask(S("x"))); /* it has not heard of it yet */
    converse(server);
    CHECK_INT(state(), HTTP2_ANSWER_COMPLETE);
    CHECK(!http2_client_may_ask(c) && !http2_client_fault(c).p);
}

/* --- By hand ---------------------------------------------------------------------------------- */

static void heads_of_all_kinds(void)
{
    begin(NULL);
    NEED(ask(S("q")));
    frame_headers_put(&to, 1, 0, ":status: 103\nlink: x");
    frame_headers_put(&to, 1, 0, ":status: 200\na: b");
    CHECK_OK(hear(), &e);
    CHECK_INT(state(), HTTP2_ANSWER_HEAD);
    CHECK(!http2_client_field(c, false, S("link")).p);
    frame_put(&to, DATA, 0, 1, S("one"));
    frame_put(&to, DATA, 0, 1, S("two"));
    frame_headers_put(&to, 1, END_STREAM, "a: c");
    CHECK_OK(hear(), &e);
    CHECK_INT(state(), HTTP2_ANSWER_COMPLETE);
    CHECK_STR(http2_client_answer(c)->body, S("onetwo"));
    CHECK_STR(http2_client_field(c, false, S("a")), S("b"));
    CHECK_STR(http2_client_field(c, true, S("a")), S("c"));
    NEED(ask(S("q")));
    frame_headers_put(&to, 3, END_STREAM, ":status: 404\ngrpc-status: 5");
    CHECK_OK(hear(), &e);
    CHECK_INT(state(), HTTP2_ANSWER_COMPLETE);
    CHECK_INT(http2_client_answer(c)->status, 404);
    CHECK_STR(http2_client_field(c, false, S("grpc-status")), S("5"));
}

static void an_answer_before_the_question_is_out(void)
{
    static char large[1 << 20];
    unsigned code = 99;

    begin(NULL);
    NEED(ask((str){large, sizeof(large)}));
    CHECK_OK(hear(), &e);
    CHECK_INT(state(), HTTP2_ANSWER_WAITING); /* the window is full */
    frame_headers_put(&to, 1, END_STREAM, ":status: 413");
    CHECK_OK(hear(), &e);
    CHECK_INT(state(), HTTP2_ANSWER_COMPLETE);
    CHECK_INT(said(RST_STREAM, &code), 1);
    CHECK_INT(code, HTTP2_NO_ERROR);
    CHECK(http2_client_may_ask(c));
}

static void what_was_not_touched_may_be_asked_again(void)
{
    begin(NULL);
    NEED(ask(S("q")));
    frame_put(&to, RST_STREAM, 0, 1, (str){"\0\0\0\7", 4});
    CHECK_OK(hear(), &e);
    CHECK(state() == HTTP2_ANSWER_FAILED && http2_client_answer(c)->untouched);
    CHECK(http2_client_may_ask(c));
    NEED(ask(S("q")));
    frame_put(&to, GOAWAY, 0, 0, (str){"\0\0\0\1\0\0\0\0", 8}); /* stream 1 was the last */
    CHECK_OK(hear(), &e);
    CHECK(state() == HTTP2_ANSWER_FAILED && http2_client_answer(c)->untouched);
    CHECK(!http2_client_may_ask(c) && !http2_client_fault(c).p);

    begin(NULL);
    NEED(ask(S("q")));
    frame_put(&to, GOAWAY, 0, 0, (str){"\0\0\0\1\0\0\0\0", 8}); /* ... and is still served */
    frame_headers_put(&to, 1, END_STREAM, ":status: 200");
    CHECK_OK(hear(), &e);
    CHECK_INT(state(), HTTP2_ANSWER_COMPLETE);
    CHECK(!http2_client_may_ask(c));

    begin(NULL);
    NEED(ask(S("q")));
    frame_put(&to, RST_STREAM, 0, 1, (str){"\0\0\0\2", 4}); /* INTERNAL_ERROR: who knows */
    CHECK_OK(hear(), &e);
    CHECK(state() == HTTP2_ANSWER_FAILED && !http2_client_answer(c)->untouched);
    CHECK_INT(http2_client_answer(c)->error_code, 2);
}

static void a_question_is_taken_back(void)
{
    unsigned code = 99;

    begin(NULL);
    NEED(ask(S("q")));
    CHECK_OK(hear(), &e);
    http2_client_cancel(c);
    CHECK_INT(state(), HTTP2_ANSWER_FAILED);
    say();
    CHECK_INT(said(RST_STREAM, &code), 1);
    CHECK_INT(code, HTTP2_CANCEL);
    NEED(ask(S("r")));
    frame_headers_put(&to, 1, 0, ":status: 200\nlate: yes"); /* crossed on the way */
    frame_put(&to, DATA, END_STREAM, 1, S("late"));
    frame_headers_put(&to, 3, 0, ":status: 200");
    frame_put(&to, DATA, END_STREAM, 3, S("new"));
    CHECK_OK(hear(), &e);
    CHECK_INT(state(), HTTP2_ANSWER_COMPLETE);
    CHECK_STR(http2_client_answer(c)->body, S("new"));
    CHECK(!http2_client_field(c, false, S("late")).p);
}

static void a_body_of_more_than_allowed(void)
{
    struct http2_client_limits limits = HTTP2_CLIENT_LIMITS_DEFAULT;

    limits.body_bytes = 10;
    begin(&limits);
    NEED(ask(S("q")));
    frame_headers_put(&to, 1, 0, ":status: 200");
    frame_put(&to, DATA, END_STREAM, 1, S("01234567890"));
    CHECK_OK(hear(), &e);
    CHECK(state() == HTTP2_ANSWER_FAILED && http2_client_answer(c)->too_large);
    CHECK(http2_client_may_ask(c));
}

/* --- Servers that mean harm ------------------------------------------------------------------- */

static void repeat(int type, int flags, uint32_t id, str payload, int times)
{
    for (int i = 0; i < times; i++)
        frame_put(&to, type, flags, id, payload);
}

static void pings(void)
{
    repeat(PING, 0, 0, S("12345678"), 3000);
}

static void settings(void)
{
    repeat(SETTINGS, 0, 0, (str){"\0\4\0\0\0\1", 6}, 3000);
}

static void empty_data(void)
{
    frame_headers_put(&to, 1, 0, ":status: 200");
    repeat(DATA, 0, 1, STR_NULL, 3000);
}

static void padding(void)
{
    frame_headers_put(&to, 1, 0, ":status: 200");
    repeat(DATA, 8, 1, (str){"\3\0\0\0", 4}, 3000);
}

static void interim_heads(void)
{
    for (int i = 0; i < 3000; i++)
        frame_headers_put(&to, 1, 0, ":status: 103");
}

static void unknown_frames(void)
{
    static char large[16000];

    for (int i = 0; i < 100; i++) {
        frame_put(&to, 77, 0, 0, (str){large, sizeof(large)});
        (void)!hear();
    }
}

static void a_list_too_long(void)
{
    AUTO(buf_done) struct buf b = {0};

    buf_init(&b, 1 << 20);
    frame_block_put(&b, ":status: 200");
    for (int i = 0; i < 20; i++)
        frame_block_put(
            &b, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: bbbbbbbbbbbbbbbbbb");
    for (int i = 0; i < 7; i++) {
        frame_put(&to, i ? CONT : HEADERS, i == 6 ? END_HEADERS : 0, 1, buf_str(&b));
        buf_clear(&b);
        while (b.n < 3000)
            frame_block_put(
                &b, "cccccccccccccccccccccccccccccccccccccccccc: dddddddddddddddddddddddddd");
    }
}

static void many_fields(void)
{
    AUTO(buf_done) struct buf b = {0};

    buf_init(&b, 1 << 20);
    frame_block_put(&b, ":status: 200");
    for (int i = 0; i < 70; i++)
        frame_block_put(&b, "c: d");
    frame_put(&to, HEADERS, END_HEADERS, 1, buf_str(&b));
}

static void continuations(void)
{
    frame_put(&to, HEADERS, 0, 1, STR_NULL);
    repeat(CONT, 0, 1, STR_NULL, 3000);
}

static void an_index_of_nothing(void)
{
    frame_put(&to, HEADERS, END_HEADERS, 1, (str){"\xfe", 1});
}

static void a_promise(void)
{
    frame_put(&to, PUSH, END_HEADERS, 1, (str){"\0\0\0\2\x88", 5});
}

static void data_first(void)
{
    frame_put(&to, DATA, 0, 1, S("x"));
}

static void data_of_nobody(void)
{
    frame_put(&to, DATA, 0, 7, S("x"));
}

static void a_window_without_end(void)
{
    repeat(WINDOW_UPDATE, 0, 0, (str){"\x7f\xff\xff\xff", 4}, 2);
}

static void a_frame_too_long(void)
{
    buf_add(&to, "\x0f\xff\xff\0\0\0\0\0\1", 9);
}

static void no_http2(void)
{
    buf_clear(&to);
    buf_add_str(&to, S("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
}

static void harm_ends_the_session(void)
{
    static void (*const harm[])(void) = {
        pings,
        settings,
        empty_data,
        padding,
        interim_heads,
        unknown_frames,
        a_list_too_long,
        many_fields,
        continuations,
        an_index_of_nothing,
        a_promise,
        data_of_nobody,
        a_window_without_end,
        a_frame_too_long,
        no_http2,
    };

    for (size_t i = 0; i < ARRAY_LEN(harm); i++) {
        begin(NULL);
        NEED(ask(S("q")));
        CHECK_OK(hear(), &e);
        harm[i]();
        (void)!hear(); /* some show only when the GOAWAY is made */
        CHECK_INT(state(), HTTP2_ANSWER_FAILED);
        CHECK(http2_client_fault(c).p && !http2_client_may_ask(c));
        CHECK(http2_client_memory_bytes(c) < 1 << 20);
        CHECK(http2_client_receive(c, S("more"), &e) != 0);
    }
    begin(NULL); /* a broken stream is not a broken session */
    NEED(ask(S("q")));
    CHECK_OK(hear(), &e);
    data_first();
    (void)!hear();
    CHECK_INT(state(), HTTP2_ANSWER_FAILED);
}

static void a_window_that_stays_shut(void)
{
    static char large[1 << 20];

    begin(NULL);
    frame_put(&to, SETTINGS, 0, 0, (str){"\0\4\0\0\0\0", 6}); /* INITIAL_WINDOW_SIZE 0 */
    CHECK_OK(hear(), &e);
    NEED(ask((str){large, sizeof(large)}));
    say();
    CHECK_INT(said(DATA, NULL), 0);
    frame_put(&to, WINDOW_UPDATE, 0, 1, (str){"\0\0\0\1", 4});
    CHECK_OK(hear(), &e);
    CHECK_INT(said(DATA, NULL), 1);
    CHECK_INT(state(), HTTP2_ANSWER_WAITING); /* until whoever waits has had enough */
    http2_client_cancel(c);
    CHECK(http2_client_may_ask(c));
}

static void control_characters_do_not_go_out(void)
{
    static const struct http1_header bad[] = {{S_INIT("a"), S_INIT("b\r\nc: d")}};

    begin(NULL);
    CHECK_FAILS(http2_client_ask(c, bad, 1, STR_NULL, &e), INVALID_ARGUMENT, &e, "control");
    CHECK(http2_client_may_ask(c));
}

static const struct check_test tests[] = {
    T(questions_of_any_size_are_answered),
    T(a_server_that_drains_is_left),
    T(heads_of_all_kinds),
    T(an_answer_before_the_question_is_out),
    T(what_was_not_touched_may_be_asked_again),
    T(a_question_is_taken_back),
    T(a_body_of_more_than_allowed),
    T(harm_ends_the_session),
    T(a_window_that_stays_shut),
    T(control_characters_do_not_go_out),
};

int main(int argc, char **argv)
{
    int rc = check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);

    http2_client_free(c);
    buf_done(&from);
    buf_done(&to);
    return rc;
}
