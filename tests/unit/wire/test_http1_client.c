/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "wire/http1_client.h"

static enum http1_event parse(str text, bool to_head, struct http1_response *res,
                              enum http1_refusal *why)
{
    size_t seen = 0;
    enum http1_event whole;

    *why = HTTP1_OK;
    whole = http1_response_parse(text.p, text.n, &HTTP1_LIMITS_DEFAULT, to_head, &seen, res, why);
    /* Cut anywhere, it gives the same in the end. */
    for (size_t cut = 1; cut < text.n; cut++) {
        struct http1_response again;
        enum http1_refusal why_again = HTTP1_OK;
        enum http1_event ev;

        seen = 0;
        ev = http1_response_parse(text.p, cut, &HTTP1_LIMITS_DEFAULT, to_head, &seen, &again,
                                  &why_again);
        if (ev == HTTP1_MORE)
            ev = http1_response_parse(text.p, text.n, &HTTP1_LIMITS_DEFAULT, to_head, &seen, &again,
                                      &why_again);
        CHECK_INT(ev, whole);
        CHECK_INT(why_again, *why);
        if (ev == HTTP1_HEAD)
            CHECK_INT(again.head_bytes, res->head_bytes);
    }
    return whole;
}

static void responses(void)
{
    static const struct {
        const char *text;
        bool to_head;
        int status;
        enum http1_framing framing;
        bool keep_alive;
        const char *reason;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, 200, HTTP1_BODY_LENGTH, true,
         "OK"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, 200, HTTP1_BODY_NONE, true, "OK"},
        {"HTTP/1.1 200\r\n\r\n", false, 200, HTTP1_BODY_CLOSE, false, ""},
        {"HTTP/1.1 200 \r\n\r\n", false, 200, HTTP1_BODY_CLOSE, false, ""},
        {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false, 200, HTTP1_BODY_LENGTH, false,
         "OK"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", false, 200,
         HTTP1_BODY_CHUNKED, false, "OK"},
        {"HTTP/1.1 204 No Content\r\n\r\n", false, 204, HTTP1_BODY_NONE, true, "No Content"},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, 304, HTTP1_BODY_NONE,
         true, "Not Modified"},
        {"HTTP/1.1 100 Continue\r\n\r\n", false, 100, HTTP1_BODY_NONE, true, "Continue"},
        {"HTTP/1.1 999 \xc3\xa9 x\ty\r\nContent-Length: 0\r\n\r\n", false, 999, HTTP1_BODY_LENGTH,
         true, "\xc3\xa9 x\ty"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http1_response res;
        enum http1_refusal why;

        NEED(parse(str_of(cases[i].text), cases[i].to_head, &res, &why) == HTTP1_HEAD);
        CHECK_INT(res.status, cases[i].status);
        CHECK_INT(res.framing, cases[i].framing);
        CHECK(res.keep_alive == cases[i].keep_alive);
        CHECK_STR(res.reason, str_of(cases[i].reason));
    }
}

static void refused_responses(void)
{
    static const struct {
        const char *text;
        enum http1_refusal why;
    } cases[] = {
        {"HTTP/2.0 200 OK\r\n\r\n", HTTP1_NO_VERSION},
        {"SSH-2.0-x\r\n", HTTP1_NO_STATUS_LINE},
        {"HTTP/1.1 20 OK\r\n\r\n", HTTP1_NO_STATUS_LINE},
        {"HTTP/1.1 2000 OK\r\n\r\n", HTTP1_NO_STATUS_LINE},
        {"HTTP/1.1 099 OK\r\n\r\n", HTTP1_NO_STATUS_LINE},
        {"HTTP/1.1  200 OK\r\n\r\n", HTTP1_NO_STATUS_LINE},
        {"HTTP/1.1 200 OK\n\n", HTTP1_NO_LINE_END},
        {"HTTP/1.1 200 O\x01K\r\n\r\n", HTTP1_NO_CONTROL},
        {"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", HTTP1_NO_FOLDED},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
         HTTP1_NO_FIELD_REPEATED},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         HTTP1_NO_LENGTH_AND_CODING},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", HTTP1_NO_CODING},
        {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP1_NO_CODING_VERSION},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http1_response res;
        enum http1_refusal why;

        CHECK_INT(parse(str_of(cases[i].text), false, &res, &why), HTTP1_REFUSED);
        CHECK_INT(why, cases[i].why);
    }
}

static void a_body_until_the_connection_ends(void)
{
    struct http1_limits l = HTTP1_LIMITS_DEFAULT;
    struct http1_body b;
    enum http1_refusal why;
    char text[] = "0123456789";
    size_t used, out;

    l.body_bytes = 10;
    CHECK_INT(http1_body_begin(&b, HTTP1_BODY_CLOSE, 0, &l), HTTP1_OK);
    CHECK_INT(http1_body_decode(&b, text, 4, &used, &out, &why), HTTP1_DATA);
    CHECK_INT(http1_body_decode(&b, text, 6, &used, &out, &why), HTTP1_DATA);
    CHECK_INT(out, 6);
    CHECK_INT(http1_body_decode(&b, text, 1, &used, &out, &why), HTTP1_REFUSED);
    CHECK_INT(why, HTTP1_NO_BODY_TOO_LARGE);
    CHECK(http1_body_end(&b));
    CHECK_INT(http1_body_begin(&b, HTTP1_BODY_LENGTH, 5, &l), HTTP1_OK);
    CHECK_INT(http1_body_decode(&b, text, 4, &used, &out, &why), HTTP1_DATA);
    CHECK(!http1_body_end(&b)); /* cut short */
}

static void request_heads_are_read_back(void)
{
    AUTO(buf_done) struct buf b = {0};
    struct http1_parser ps;
    struct http1_request req;

    buf_init(&b, 1 << 12);
    http1_write_request(&b, S("POST"), S("/a?b"), S("h:1"), S("text/plain"), 3, false,
                        S("X: y\r\n"));
    CHECK_STR(buf_str(&b), S("POST /a?b HTTP/1.1\r\nHost: h:1\r\nContent-Type: text/plain\r\n"
                             "Content-Length: 3\r\nConnection: close\r\nX: y\r\n\r\n"));
    buf_add_str(&b, S("abc"));
    http1_parser_init(&ps, NULL);
    CHECK_INT(http1_parse(&ps, b.p, &b.n, &req), HTTP1_REQUEST);
    CHECK_STR(req.body, S("abc"));
    CHECK(!req.keep_alive);
}

/* --- Server-sent events --------------------------------------------------------------------- */

static char told[256];

static bool tell(void *arg, const struct http1_sse_event *ev)
{
    size_t n = strlen(told);

    snprintf(told + n, sizeof(told) - n, "[" STR_F "|" STR_F "|" STR_F "]", STR_A(ev->type),
             STR_A(ev->data), STR_A(ev->id));
    return !arg || strcmp(arg, "once") != 0;
}

static void events(void)
{
    static const str stream =
        S_INIT("\xef\xbb\xbf"
               "data: one\n\n:comment\r\ndata:two\r\ndata:  2\r\n\r\nevent: x\rid: 7\rdata\r\r"
               "event: lost\n\nretry: 5\ndata: last\n\ndata: unfinished\n");
    const char *want = "[message|one|][message|two\n 2|][x||7][message|last|7]";
    struct err e;

    for (size_t step = 1; step <= stream.n; step++) {
        AUTO(http1_sse_done) struct http1_sse s;
        bool go = true;

        told[0] = 0;
        http1_sse_init(&s, 64);
        for (str rest = stream; rest.n; rest = str_skip(rest, step))
            CHECK_OK(http1_sse_feed(&s, str_take(rest, step), tell, NULL, &go, &e), &e);
        CHECK(go);
        CHECK_STR(str_of(told), str_of(want));
    }
    AUTO(http1_sse_done) struct http1_sse s;
    char once[] = "once";
    bool go = true;
    told[0] = 0;
    http1_sse_init(&s, 64);
    CHECK_OK(http1_sse_feed(&s, stream, tell, once, &go, &e), &e);
    CHECK(!go);
    CHECK_STR(str_of(told), S("[message|one|]"));
    http1_sse_done(&s);
    http1_sse_init(&s, 16);
    CHECK_FAILS(http1_sse_feed(&s, S("data: 0123456789abcdef0123456789"), tell, NULL, &go, &e),
                RESOURCE_EXHAUSTED, &e, "16 bytes");
}

RUN_TESTS(T(responses), T(refused_responses), T(a_body_until_the_connection_ends),
          T(request_heads_are_read_back), T(events))
