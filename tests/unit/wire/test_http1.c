/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/mem.h"
#include "wire/http1.h"

#define H "Host: h\r\n"

/* Parses a copy at the very end of a heap block, so that ASan sees a read past the bytes. */
struct parse {
    struct http1_parser ps;
    struct http1_request req;
    char *p; /* owned */
    size_t n;
    enum http1_event ev;
    size_t heads;
};

static void parse_done(struct parse *x)
{
    mem_free(x->p);
}

/* All bytes at once. */
static void parse_whole(struct parse *x, str bytes, const struct http1_limits *limits)
{
    *x = (struct parse){.n = bytes.n};
    x->p = mem_alloc(MAX(bytes.n, 1));
    memcpy(x->p, bytes.p, bytes.n);
    http1_parser_init(&x->ps, limits);
    x->ev = http1_parse(&x->ps, x->p, &x->n, &x->req);
    if (x->ev == HTTP1_HEAD) {
        x->heads++;
        x->ev = http1_parse(&x->ps, x->p, &x->n, &x->req);
    }
}

/* The first `cut` bytes, then `step` at a time; the block moves at each call, as a growing
 * connection buffer may. */
static void parse_pieces(struct parse *x, str bytes, const struct http1_limits *limits, size_t cut,
                         size_t step)
{
    size_t fed = 0;
    bool head = false;

    *x = (struct parse){.ev = HTTP1_MORE};
    http1_parser_init(&x->ps, limits);
    while (x->ev == HTTP1_MORE || x->ev == HTTP1_HEAD) {
        size_t take = MIN(fed ? step : cut, bytes.n - fed);
        char *moved;

        if (fed == bytes.n)
            break;
        moved = mem_alloc(x->n + take);
        if (x->n)
            memcpy(moved, x->p, x->n);
        memcpy(moved + x->n, bytes.p + fed, take);
        if (head)
            http1_request_move(&x->req, x->p, moved);
        mem_free(x->p);
        x->p = moved;
        x->n += take;
        fed += take;
        x->ev = http1_parse(&x->ps, x->p, &x->n, &x->req);
        head |= x->ev == HTTP1_HEAD;
        x->heads += x->ev == HTTP1_HEAD;
    }
    CHECK(x->heads <= 1);
}

/* --- What is accepted ----------------------------------------------------------------------- */

static void a_typical_request(void)
{
    AUTO(parse_done) struct parse x = {.p = NULL};
    const struct http1_fields *f = &x.req.fields;

    parse_whole(&x,
                S("POST /v2/models/fraud/infer?x=1&y HTTP/1.1\r\n"
                  "Host: localhost:8080\r\nUSER-agent: t\r\ncontent-Type:application/json\r\n"
                  "Content-LENGTH: \t 5 \t\r\nX-Request-Id: abc\r\nAuthorization: Bearer t\r\n"
                  "Inference-Header-Content-Length: 3\r\nX-Empty:\r\n\r\nhelloGET"),
                NULL);
    NEED(x.ev == HTTP1_REQUEST);
    CHECK_INT(x.req.method, HTTP1_M_POST);
    CHECK_STR(x.req.method_text, S("POST"));
    CHECK_STR(x.req.target, S("/v2/models/fraud/infer?x=1&y"));
    CHECK_STR(x.req.path, S("/v2/models/fraud/infer"));
    CHECK_STR(x.req.query, S("x=1&y"));
    CHECK_STR(x.req.host, S("localhost:8080"));
    CHECK_INT(x.req.version_minor, 1);
    CHECK(x.req.keep_alive && !x.req.expect_continue && !x.req.upgrade);
    CHECK_INT(x.req.framing, HTTP1_BODY_LENGTH);
    CHECK_INT(x.req.content_length, 5);
    CHECK_STR(x.req.body, S("hello"));
    CHECK_INT(x.ps.consumed, x.n - 3);
    CHECK_INT(f->count, 8);
    CHECK_STR(http1_known(f, HTTP1_F_CONTENT_TYPE), S("application/json"));
    CHECK_STR(http1_known(f, HTTP1_F_X_REQUEST_ID), S("abc"));
    CHECK_STR(http1_known(f, HTTP1_F_AUTHORIZATION), S("Bearer t"));
    CHECK_STR(http1_known(f, HTTP1_F_INFERENCE_LENGTH), S("3"));
    CHECK(http1_known(f, HTTP1_F_EXPECT).p == NULL);
    CHECK_STR(http1_field(f, S("user-AGENT")), S("t"));
    CHECK_STR(http1_field(f, S("x-empty")), S(""));
    CHECK(http1_field(f, S("x-none")).p == NULL);
}

static void every_known_field_is_known(void)
{
    static const str names[] = {
#define KNOWN(name, text, first, last, repeat) S_INIT(text),
#include "wire/http1_known.def"
#undef KNOWN
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        AUTO(parse_done) struct parse x = {.p = NULL};
        char text[256];
        bool upper = i % 2;

        if (i == HTTP1_F_HOST || i == HTTP1_F_CONTENT_LENGTH || i == HTTP1_F_TRANSFER_ENCODING ||
            i == HTTP1_F_EXPECT)
            continue; /* their values mean something; other tests have them */
        int n = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n" H STR_F ": v\r\n\r\n",
                         STR_A(names[i]));
        for (int k = 25; upper && k < n - 7; k++)
            text[k] = (char)(text[k] >= 'a' && text[k] <= 'z' ? text[k] - 32 : text[k]);
        parse_whole(&x, (str){text, (size_t)n}, NULL);
        NEED(x.ev == HTTP1_REQUEST);
        CHECK_STR(http1_known(&x.req.fields, (enum http1_known)i), S("v"));
        for (size_t k = 0; k < HTTP1_KNOWN_COUNT; k++)
            CHECK((x.req.fields.known[k] != 0) == (k == i || k == HTTP1_F_HOST));
    }
}

static void what_is_accepted(void)
{
    static const struct {
        const char *text, *path, *query, *host, *body;
        bool keep_alive;
    } cases[] = {
        {"GET / HTTP/1.1\r\n" H "\r\n", "/", NULL, "h", "", true},
        {"GET /?q HTTP/1.1\r\nHost:\r\n\r\n", "/", "q", "", "", true},
        {"GET /a? HTTP/1.0\r\n\r\n", "/a", "", NULL, "", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "/", NULL, NULL, "", true},
        {"GET / HTTP/1.1\r\n" H "Connection: CLOSE\r\n\r\n", "/", NULL, "h", "", false},
        {"GET / HTTP/1.1\r\n" H "Connection: x , close;q=1, keep-alive\r\n\r\n", "/", NULL, "h", "",
         false},
        {"GET / HTTP/1.1\r\n" H "Connection: x\r\nConnection: close\r\n\r\n", "/", NULL, "h", "",
         false},
        {"GET / HTTP/1.1\r\n" H "Connection: closet\r\n\r\n", "/", NULL, "h", "", true},
        {"GET http://a.b:1/p?q HTTP/1.1\r\n" H "\r\n", "/p", "q", "a.b:1", "", true},
        {"GET HTTPS://[::1]:1 HTTP/1.1\r\n" H "\r\n", "/", NULL, "[::1]:1", "", true},
        {"GET http://a?q HTTP/1.1\r\n" H "\r\n", "/", "q", "a", "", true},
        {"OPTIONS * HTTP/1.1\r\n" H "\r\n", "*", NULL, "h", "", true},
        {"\r\nGET / HTTP/1.1\r\n" H "\r\n", "/", NULL, "h", "", true},
        {"get / HTTP/1.1\r\n" H "\r\n", "/", NULL, "h", "", true},
        {"PROPFIND / HTTP/1.1\r\n" H "\r\n", "/", NULL, "h", "", true},
        {"GET /%2F..%00\\ HTTP/1.1\r\n" H "\r\n", "/%2F..%00\\", NULL, "h", "", true},
        {"GET / HTTP/1.1\r\n" H "X: a\tb \xc3\xa9 \xff\r\n\r\n", "/", NULL, "h", "", true},
        {"GET / HTTP/1.1\r\n" H "!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n", "/", NULL, "h", "", true},
        {"GET / HTTP/1.1\r\n" H "Accept: a\r\nAccept: b\r\n\r\n", "/", NULL, "h", "", true},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", "/", NULL, "h", "", true},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 003\r\n\r\nabc", "/", NULL, "h", "abc", true},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n"
         "3\r\nabc\r\n00aB;x=\"y\"\r\n0123456789-----------0123456789-----------0123456789---------"
         "--"
         "0123456789-----------0123456789-----------0123456789-----------0123456789-----------"
         "0123456789-----------xyz\r\n0\r\n\r\n",
         "/", NULL, "h",
         "abc0123456789-----------0123456789-----------0123456789-----------"
         "0123456789-----------0123456789-----------0123456789-----------0123456789-----------"
         "0123456789-----------xyz",
         true},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\nZ:\r\n\r\n", "/",
         NULL, "h", "", true},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO(parse_done) struct parse x = {.p = NULL};

        parse_whole(&x, str_of(cases[i].text), NULL);
        if (!CHECK(x.ev == HTTP1_REQUEST)) {
            fprintf(stderr, "    case %zu: event %d " STR_F "\n", i, x.ev,
                    STR_A(http1_refusal_reason(x.ps.refusal)));
            continue;
        }
        CHECK_STR(x.req.path, str_of(cases[i].path));
        CHECK_STR(x.req.query, str_of(cases[i].query));
        CHECK((x.req.query.p == NULL) == (cases[i].query == NULL));
        CHECK_STR(x.req.host, str_of(cases[i].host));
        CHECK_STR(x.req.body, str_of(cases[i].body));
        CHECK(x.req.keep_alive == cases[i].keep_alive);
        CHECK_INT(x.ps.consumed, x.n);
    }
}

static void methods(void)
{
    static const struct {
        const char *text;
        enum http1_method method;
    } cases[] = {{"GET", HTTP1_M_GET},         {"PUT", HTTP1_M_PUT},     {"HEAD", HTTP1_M_HEAD},
                 {"DELETE", HTTP1_M_DELETE},   {"PATCH", HTTP1_M_PATCH}, {"POST", HTTP1_M_POST},
                 {"OPTIONS", HTTP1_M_OPTIONS}, {"GETS", HTTP1_M_OTHER},  {"Get", HTTP1_M_OTHER}};

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO(parse_done) struct parse x = {.p = NULL};
        char text[64];
        int n = snprintf(text, sizeof(text), "%s / HTTP/1.1\r\n" H "\r\n", cases[i].text);

        parse_whole(&x, (str){text, (size_t)n}, NULL);
        CHECK_INT(x.ev, HTTP1_REQUEST);
        CHECK_INT(x.req.method, cases[i].method);
    }
}

/* --- What is refused ------------------------------------------------------------------------ */

struct refused {
    const char *text;
    size_t n; /* when the text holds a NUL */
    enum http1_refusal why;
};

#define GET "GET / HTTP/1.1\r\n"
#define POST "POST / HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define R(text, why)                           \
    {                                          \
        text, sizeof(text) - 1, HTTP1_NO_##why \
    }

static const struct refused refused[] = {
    /* request line */
    R("\x16\x03\x01", REQUEST_LINE),
    R(" GET / HTTP/1.1\r\n" H "\r\n", REQUEST_LINE),
    R("\tGET / HTTP/1.1\r\n" H "\r\n", REQUEST_LINE),
    R("\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", REQUEST_LINE),
    R("\nGET / HTTP/1.1\r\n" H "\r\n", REQUEST_LINE),
    R("\rGET / HTTP/1.1\r\n" H "\r\n", LINE_END),
    R("GET  / HTTP/1.1\r\n" H "\r\n", REQUEST_LINE),
    R("GET\t/ HTTP/1.1\r\n" H "\r\n", REQUEST_LINE),
    R("GET /\tHTTP/1.1\r\n" H "\r\n", TARGET),
    R("GET /  HTTP/1.1\r\n" H "\r\n", REQUEST_LINE),
    R("GET / HTTP/1.1 \r\n" H "\r\n", REQUEST_LINE),
    R("GET /\r\n", REQUEST_LINE),
    R("GET / HTTP/1.1\n" H "\n", LINE_END),
    R("GET /\nHTTP/1.1\r\n" H "\r\n", LINE_END),
    R("GET / HTTP/1.1\rX", LINE_END),
    R("G@T / HTTP/1.1\r\n" H "\r\n", REQUEST_LINE),
    R("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n" H "\r\n", METHOD),
    R("CONNECT a:1 HTTP/1.1\r\n" H "\r\n", METHOD),
    R("TRACE / HTTP/1.1\r\n" H "\r\n", METHOD),
    R("GET / HTTP/1.2\r\n" H "\r\n", VERSION),
    R("GET / HTTP/2.0\r\n" H "\r\n", VERSION),
    R("GET / HTTP/0.9\r\n" H "\r\n", VERSION),
    R("GET / http/1.1\r\n" H "\r\n", REQUEST_LINE),
    R("GET / HTTP/11\r\n" H "\r\n", REQUEST_LINE),
    R("GET / HTTP/1.10\r\n" H "\r\n", REQUEST_LINE),
    R("GET / HTTX/1.1\r\n" H "\r\n", REQUEST_LINE),
    R("GET / ICY\r\n\r\n", REQUEST_LINE),
    /* target */
    R("GET a HTTP/1.1\r\n" H "\r\n", TARGET),
    R("GET * HTTP/1.1\r\n" H "\r\n", TARGET),
    R("GET /a#b HTTP/1.1\r\n" H "\r\n", TARGET),
    R("GET /\x01 HTTP/1.1\r\n" H "\r\n", TARGET),
    R("GET /\0 HTTP/1.1\r\n" H "\r\n", TARGET),
    R("GET /\x7f HTTP/1.1\r\n" H "\r\n", TARGET),
    R("GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n", TARGET),
    R("GET /0123456789abcdef\xc3\xa9 HTTP/1.1\r\n" H "\r\n", TARGET),
    R("GET ftp://a/ HTTP/1.1\r\n" H "\r\n", TARGET),
    R("GET http:///a HTTP/1.1\r\n" H "\r\n", TARGET),
    R("GET http://u@a/ HTTP/1.1\r\n" H "\r\n", TARGET),
    /* fields */
    R(GET " Host: h\r\n\r\n", FOLDED),
    R(GET H " folded\r\n\r\n", FOLDED),
    R(GET H "\tfolded\r\n\r\n", FOLDED),
    R(GET "Host : h\r\n\r\n", FIELD_BLANK),
    R(GET "Host\t: h\r\n\r\n", FIELD_BLANK),
    R(GET H "X Y: h\r\n\r\n", FIELD_BLANK),
    R(GET H ": x\r\n\r\n", FIELD_NAME),
    R(GET H "X\r\n\r\n", FIELD_NAME),
    R(GET H "X\n\r\n", LINE_END),
    R(GET H "X(: a\r\n\r\n", FIELD_NAME),
    R(GET H "X\x80: a\r\n\r\n", FIELD_NAME),
    R(GET H "X\0Y: a\r\n\r\n", FIELD_NAME),
    R(GET H "X: a\nY: b\r\n\r\n", LINE_END),
    R(GET H "X: a\rY: b\r\n\r\n", LINE_END),
    R(GET H "X: a\r\r\n\r\n", LINE_END),
    R(GET H "X: a\0b\r\n\r\n", CONTROL),
    R(GET H "X: a\x01 0123456789abcdef\r\n\r\n", CONTROL),
    R(GET H "X: 0123456789abcdef\x7f\r\n\r\n", CONTROL),
    R(GET H "X: a\r\n\n", LINE_END),
    /* Host */
    R(GET "\r\n", HOST_MISSING),
    R(GET "X: y\r\n\r\n", HOST_MISSING),
    R("GET http://a/ HTTP/1.1\r\n\r\n", HOST_MISSING),
    R(GET H H "\r\n", FIELD_REPEATED),
    R("GET / HTTP/1.0\r\n" H "host: b\r\n\r\n", FIELD_REPEATED),
    R(GET "Host: a b\r\n\r\n", HOST),
    R(GET "Host: a,b\r\n\r\n", HOST),
    R(GET "Host: u@a\r\n\r\n", HOST),
    R(GET "Host: a/b\r\n\r\n", HOST),
    /* Content-Length */
    R(POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", FIELD_REPEATED),
    R(POST "Content-Length: 1\r\nContent-Length: 2\r\n\r\na", FIELD_REPEATED),
    R(POST "Content-Length: 1, 1\r\n\r\na", LENGTH),
    R(POST "Content-Length: +1\r\n\r\na", LENGTH),
    R(POST "Content-Length: -1\r\n\r\na", LENGTH),
    R(POST "Content-Length: 0x1\r\n\r\na", LENGTH),
    R(POST "Content-Length: 1 1\r\n\r\na", LENGTH),
    R(POST "Content-Length: 1.0\r\n\r\na", LENGTH),
    R(POST "Content-Length: a\r\n\r\na", LENGTH),
    R(POST "Content-Length:\r\n\r\na", LENGTH),
    R(POST "Content-Length: \xef\xbc\x91\r\n\r\na", LENGTH),
    R(POST "Content-Length: 67108865\r\n\r\n", BODY_TOO_LARGE),
    R(POST "Content-Length: 18446744073709551615\r\n\r\n", BODY_TOO_LARGE),
    R(POST "Content-Length: 18446744073709551617\r\n\r\n", BODY_TOO_LARGE),
    R(POST "Content-Length: 99999999999999999999999999\r\n\r\n", BODY_TOO_LARGE),
    /* Transfer-Encoding */
    R(POST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", LENGTH_AND_CODING),
    R(POST "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", LENGTH_AND_CODING),
    R(POST "Transfer-Encoding: xchunked\r\nContent-Length: 1\r\n\r\n", LENGTH_AND_CODING),
    R(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", FIELD_REPEATED),
    R(POST "Transfer-Encoding: chunked, chunked\r\n\r\n", CODING_ORDER),
    R(POST "Transfer-Encoding: chunked, gzip\r\n\r\n", CODING_ORDER),
    R(POST "Transfer-Encoding: , chunked\r\n\r\n", CODING_ORDER),
    R(POST "Transfer-Encoding:\r\n\r\n", CODING_ORDER),
    R(POST "Transfer-Encoding: gzip, chunked\r\n\r\n", CODING),
    R(POST "Transfer-Encoding: gzip\r\n\r\n", CODING),
    R(POST "Transfer-Encoding: identity\r\n\r\n", CODING),
    R(POST "Transfer-Encoding: xchunked\r\n\r\n", CODING),
    R(POST "Transfer-Encoding: chunked;q=1\r\n\r\n", CODING),
    R(POST "Transfer-Encoding: \"chunked\"\r\n\r\n", CODING),
    R(POST "Transfer-Encoding : chunked\r\n\r\n", FIELD_BLANK),
    R(POST "Transfer-Encoding:\x0b"
           "chunked\r\n\r\n",
      CONTROL),
    R("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", CODING_VERSION),
    /* others */
    R(POST "Expect: 200-ok\r\nContent-Length: 1\r\n\r\n", EXPECT),
    R(GET H "Authorization: a\r\nAuthorization: b\r\n\r\n", FIELD_REPEATED),
    R(GET H "Content-Type: a\r\ncontent-type: a\r\n\r\n", FIELD_REPEATED),
    /* chunks */
    R(CHUNKED "\r\n", CHUNK_SIZE),
    R(CHUNKED "x\r\n", CHUNK_SIZE),
    R(CHUNKED " 1\r\na\r\n", CHUNK_SIZE),
    R(CHUNKED "1 \r\na\r\n", CHUNK_SIZE),
    R(CHUNKED "+1\r\na\r\n", CHUNK_SIZE),
    R(CHUNKED "-1\r\na\r\n", CHUNK_SIZE),
    R(CHUNKED "0x1\r\na\r\n", CHUNK_SIZE),
    R(CHUNKED "1\na\r\n", CHUNK_SIZE),
    R(CHUNKED "1\r\r\na\r\n", CHUNK_SIZE),
    R(CHUNKED "1;a\rb\r\na\r\n", CHUNK_SIZE),
    R(CHUNKED "1;a\0b\r\na\r\n", CHUNK_SIZE),
    R(CHUNKED "1;a\n\r\na\r\n", CHUNK_SIZE),
    R(CHUNKED "4000001\r\n", BODY_TOO_LARGE),
    R(CHUNKED "fffffffffffffff\r\n", BODY_TOO_LARGE),
    R(CHUNKED "10000000000000001\r\n", BODY_TOO_LARGE),
    R(CHUNKED "1\r\nab\r\n", CHUNK_END),
    R(CHUNKED "1\r\na\n0\r\n\r\n", CHUNK_END),
    R(CHUNKED "1\r\na\rb", CHUNK_END),
    R(CHUNKED "0\r\nX\r\n\r\n", TRAILER),
    R(CHUNKED "0\r\n X: y\r\n\r\n", TRAILER),
    R(CHUNKED "0\r\nX : y\r\n\r\n", TRAILER),
    R(CHUNKED "0\r\nX: y\n\r\n", TRAILER),
    R(CHUNKED "0\r\nX: \x01\r\n\r\n", TRAILER),
    R(CHUNKED "0\r\n\n", TRAILER),
};

static void what_is_refused(void)
{
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        AUTO(parse_done) struct parse x = {.p = NULL};
        const struct refused *r = &refused[i];

        parse_whole(&x, (str){r->text, r->n}, NULL);
        if (!CHECK(x.ev == HTTP1_REFUSED && x.ps.refusal == r->why))
            fprintf(stderr, "    %s\n    event %d, " STR_F "; want " STR_F "\n", r->text, x.ev,
                    STR_A(http1_refusal_reason(x.ps.refusal)), STR_A(http1_refusal_reason(r->why)));
    }
    for (int i = 1; i < HTTP1_REFUSAL_COUNT; i++) {
        int status = http1_refusal_status((enum http1_refusal)i);

        CHECK(status >= 400 && status <= 505);
        CHECK(http1_refusal_reason((enum http1_refusal)i).n > 0);
    }
}

/* In pieces, a refusal may wait for the next line end: see http1_head_parse. */
static void feed_line_end(struct parse *x)
{
    x->p = mem_realloc(x->p, x->n + 1);
    x->p[x->n++] = '\n';
    x->ev = http1_parse(&x->ps, x->p, &x->n, &x->req);
}

/* Every refused message is refused for the same reason, and every good one gives the same request,
 * however it is cut. */
static void check_cuts(str bytes, const struct http1_limits *limits)
{
    AUTO(parse_done) struct parse whole = {.p = NULL};

    parse_whole(&whole, bytes, limits);
    for (size_t cut = 1; cut <= bytes.n; cut++) {
        for (size_t step = 1; step <= bytes.n; step = step == 1 ? 7 : bytes.n + (step == bytes.n)) {
            AUTO(parse_done) struct parse x = {.p = NULL};

            parse_pieces(&x, bytes, limits, cut, step);
            if (x.ev == HTTP1_MORE && whole.ev == HTTP1_REFUSED)
                feed_line_end(&x);
            if (!CHECK(x.ev == whole.ev && x.ps.refusal == whole.ps.refusal))
                fprintf(stderr, "    cut %zu step %zu: event %d, " STR_F "; " STR_F "\n", cut, step,
                        x.ev, STR_A(http1_refusal_reason(x.ps.refusal)), STR_A(bytes));
            if (x.ev != HTTP1_REQUEST || whole.ev != HTTP1_REQUEST)
                continue;
            CHECK_STR(x.req.target, whole.req.target);
            CHECK_STR(x.req.path, whole.req.path);
            CHECK_STR(x.req.host, whole.req.host);
            CHECK_STR(x.req.body, whole.req.body);
            CHECK_INT(x.req.fields.count, whole.req.fields.count);
            for (uint32_t i = 0; i < x.req.fields.count; i++) {
                CHECK_STR(x.req.fields.headers[i].name, whole.req.fields.headers[i].name);
                CHECK_STR(x.req.fields.headers[i].value, whole.req.fields.headers[i].value);
            }
            CHECK(memcmp(x.req.fields.known, whole.req.fields.known, HTTP1_KNOWN_COUNT) == 0);
        }
    }
}

static void cuts_change_nothing(void)
{
    static const char *const good[] = {
        "GET / HTTP/1.1\r\n" H "\r\n",
        "\r\nGET http://a.b:1/p?q HTTP/1.1\r\n" H "X: a\tb \xc3\xa9\r\n\r\n",
        "PUT /x HTTP/1.1\r\n" H "Content-Length: 12\r\nConnection: close\r\n\r\nhello, world",
        CHUNKED "5;a=b\r\nhello\r\n1\r\n,\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n",
        CHUNKED "0\r\n\r\n",
    };

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        check_cuts(str_of(good[i]), NULL);
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        check_cuts((str){refused[i].text, refused[i].n}, NULL);
}

/* --- Limits --------------------------------------------------------------------------------- */

static void limits_are_exact(void)
{
    struct http1_limits l = HTTP1_LIMITS_DEFAULT;
    struct parse x;
    AUTO(buf_done) struct buf b = {0};

    buf_init(&b, 1 << 20);
    /* the head: "GET / HTTP/1.1\r\nHost: h\r\nX: " + v + "\r\n\r\n" */
    for (int over = 0; over < 2; over++) {
        l.head_bytes = 200;
        buf_clear(&b);
        buf_add_str(&b, S(GET H "X: "));
        for (size_t i = b.n + 4; i < (size_t)200 + over; i++)
            buf_add_char(&b, 'v');
        buf_add_str(&b, S("\r\n\r\n"));
        parse_whole(&x, buf_str(&b), &l);
        CHECK_INT(x.ev, over ? HTTP1_REFUSED : HTTP1_REQUEST);
        if (over)
            CHECK_INT(http1_refusal_status(x.ps.refusal), 431);
        parse_done(&x);
        check_cuts(buf_str(&b), &l);
    }
    /* the target */
    for (int over = 0; over < 2; over++) {
        l.target_bytes = 20;
        parse_whole(&x,
                    over ? S("GET /01234567890123456789 HTTP/1.1\r\n" H "\r\n")
                         : S("GET /0123456789012345678 HTTP/1.1\r\n" H "\r\n"),
                    &l);
        CHECK_INT(x.ev, over ? HTTP1_REFUSED : HTTP1_REQUEST);
        if (over)
            CHECK_INT(http1_refusal_status(x.ps.refusal), 414);
        parse_done(&x);
    }
    check_cuts(S("GET /01234567890123456789\x01 HTTP/1.1\r\n" H "\r\n"), &l);
    l.target_bytes = 1000; /* longer than the head may be: still a matter of the target */
    buf_clear(&b);
    buf_add_str(&b, S("GET /"));
    for (int i = 0; i < 300; i++)
        buf_add_char(&b, 'a');
    parse_whole(&x, buf_str(&b), &l);
    CHECK_INT(http1_refusal_status(x.ps.refusal), 414);
    parse_done(&x);
    check_cuts(buf_str(&b), &l);
    /* the number of fields */
    l = HTTP1_LIMITS_DEFAULT;
    for (int over = 0; over < 2; over++) {
        buf_clear(&b);
        buf_add_str(&b, S(GET H));
        for (int i = 1; i < HTTP1_HEADERS_MAX + over; i++)
            buf_add_str(&b, S("x: y\r\n"));
        buf_add_str(&b, S("\r\n"));
        parse_whole(&x, buf_str(&b), &l);
        CHECK_INT(x.ev, over ? HTTP1_REFUSED : HTTP1_REQUEST);
        CHECK_INT(x.ps.refusal, over ? HTTP1_NO_TOO_MANY_FIELDS : HTTP1_OK);
        parse_done(&x);
    }
}

static void body_limits_are_exact(void)
{
    struct http1_limits l = HTTP1_LIMITS_DEFAULT;
    AUTO(buf_done) struct buf b = {0};
    struct parse x;

    buf_init(&b, 1 << 20);
    l.body_bytes = 10;
    l.chunk_line_bytes = 8;
    l.trailer_bytes = 10;
    l.small_chunks = 3;
    static const struct {
        const char *text;
        enum http1_refusal why;
    } cases[] = {
        {POST "Content-Length: 10\r\n\r\n0123456789", HTTP1_OK},
        {POST "Content-Length: 11\r\n\r\n", HTTP1_NO_BODY_TOO_LARGE},
        {CHUNKED "5\r\n01234\r\n5\r\n01234\r\n0\r\n\r\n", HTTP1_OK},
        {CHUNKED "5\r\n01234\r\n6\r\n", HTTP1_NO_BODY_TOO_LARGE},
        {CHUNKED "1;2345\r\na\r\n0\r\n\r\n", HTTP1_OK},
        {CHUNKED "1;23456\r\na\r\n0\r\n\r\n", HTTP1_NO_CHUNK_SIZE},
        {CHUNKED "0\r\nA: 45\r\n\r\n", HTTP1_OK},
        {CHUNKED "0\r\nA: 4567\r\n\r\n", HTTP1_NO_TRAILER_TOO_LARGE},
        {CHUNKED "0\r\nA: 4567890\r\n\r\n", HTTP1_NO_TRAILER_TOO_LARGE},
        {CHUNKED "1\r\na\r\n1\r\na\r\n1\r\na\r\n0\r\n\r\n", HTTP1_OK},
        {CHUNKED "1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\n", HTTP1_NO_SMALL_CHUNKS},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        parse_whole(&x, str_of(cases[i].text), &l);
        if (!CHECK(x.ev == (cases[i].why ? HTTP1_REFUSED : HTTP1_REQUEST) &&
                   x.ps.refusal == cases[i].why))
            fprintf(stderr, "    case %zu\n", i);
        parse_done(&x);
        check_cuts(str_of(cases[i].text), &l);
    }
}

/* --- Sequences ------------------------------------------------------------------------------ */

/* Requests one after the other in one buffer, fed in pieces of every size. */
static void pipelined_requests(void)
{
    static const char text[] = "GET /1 HTTP/1.1\r\n" H "\r\n"
                               "POST /2 HTTP/1.1\r\n" H "Content-Length: 4\r\n\r\nGET "
                               "POST /3 HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
                               "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
                               "\r\nDELETE /4 HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n"
                               "GET /5 HTTP/1.1\r\n" H "\r\n";
    static const char *const bodies[] = {"", "GET ", "abcde", "", ""};
    const size_t total = sizeof(text) - 1;

    for (size_t step = 1; step <= total; step++) {
        struct http1_parser ps;
        struct http1_request req;
        char buffer[sizeof(text)];
        size_t n = 0, fed = 0, got = 0;

        http1_parser_init(&ps, NULL);
        while (fed < total) {
            size_t take = MIN(step, total - fed);
            enum http1_event ev;

            memcpy(buffer + n, text + fed, take);
            n += take;
            fed += take;
            while (n && (ev = http1_parse(&ps, buffer, &n, &req)) != HTTP1_MORE) {
                if (ev == HTTP1_HEAD)
                    continue;
                NEED(ev == HTTP1_REQUEST && got < ARRAY_LEN(bodies));
                CHECK_INT(req.path.p[1], '1' + (int)got);
                CHECK_STR(req.body, str_of(bodies[got]));
                got++;
                n -= ps.consumed;
                memmove(buffer, buffer + ps.consumed, n);
            }
        }
        CHECK_INT(got, ARRAY_LEN(bodies));
        CHECK_INT(n, 0);
    }
}

static void expect_and_wants(void)
{
    struct http1_parser ps;
    struct http1_request req;
    char text[] = POST "Expect: 100-Continue\r\nContent-Length: 1000\r\n\r\nabc";
    size_t n = sizeof(text) - 1;

    http1_parser_init(&ps, NULL);
    CHECK_INT(http1_parser_wants(&ps, n), 0);
    CHECK_INT(http1_parse(&ps, text, &n, &req), HTTP1_HEAD);
    CHECK(req.expect_continue);
    CHECK_INT(http1_parser_wants(&ps, n), 997);
    CHECK_INT(http1_parse(&ps, text, &n, &req), HTTP1_MORE);
    CHECK_INT(http1_is_h2_preface("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24), 1);
    CHECK_INT(http1_is_h2_preface("PRI * HTTP/2.0\r\n\r\nSM\r\n\r", 23), -1);
    CHECK_INT(http1_is_h2_preface("PRI / HTTP/1.1\r\n", 16), 0);
    CHECK_INT(http1_is_h2_preface("POST", 4), 0);
    CHECK_INT(http1_is_h2_preface("", 0), -1);
}

/* A large body through a small window: the streaming way. */
static void a_body_streams(void)
{
    struct http1_body b;
    struct http1_limits l = HTTP1_LIMITS_DEFAULT;
    enum http1_refusal why = HTTP1_OK;
    enum http1_event ev = HTTP1_MORE;
    AUTO(buf_done) struct buf raw = {0}, got = {0};
    char window[100];
    size_t n = 0, at = 0;
    uint64_t sum = 0, want = 0;

    buf_init(&raw, 1 << 24);
    buf_init(&got, 1 << 24);
    for (size_t i = 0; i < 2000; i++) {
        char chunk[700];
        size_t size = 1 + i * 7919 % sizeof(chunk);

        memset(chunk, (int)(i % 251), size);
        want += size * (i % 251);
        http1_write_chunk(&raw, (str){chunk, size});
    }
    http1_write_last_chunk(&raw);
    CHECK_INT(http1_body_begin(&b, HTTP1_BODY_CHUNKED, 0, &l), HTTP1_OK);
    while (ev == HTTP1_MORE || ev == HTTP1_DATA) {
        size_t take = MIN(sizeof(window) - n, raw.n - at), used = 0, out = 0;

        memcpy(window + n, raw.p + at, take);
        n += take;
        at += take;
        NEED(take > 0);
        ev = http1_body_decode(&b, window, n, &used, &out, &why);
        for (size_t i = 0; i < out; i++)
            sum += (unsigned char)window[i];
        n -= used;
        memmove(window, window + used, n);
    }
    CHECK_INT(ev, HTTP1_REQUEST);
    CHECK_INT(sum, want);
    CHECK_INT(n, 0);
    CHECK_INT(at, raw.n);
}

/* --- Writing -------------------------------------------------------------------------------- */

static void response_heads(void)
{
    AUTO(buf_done) struct buf b = {0};
    char date[HTTP1_DATE_LINE_BYTES];

    buf_init(&b, 1 << 16);
    http1_write_head(&b, 200, S("application/json"), 1234567890123, true, S("X: y\r\n"));
    CHECK_STR(buf_str(&b), S("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                             "1234567890123\r\nConnection: keep-alive\r\nX: y\r\n\r\n"));
    buf_clear(&b);
    http1_write_head(&b, 204, S("text/plain"), 5, false, STR_NULL);
    CHECK_STR(buf_str(&b), S("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"));
    buf_clear(&b);
    http1_write_head(&b, 599, STR_NULL, HTTP1_LENGTH_CHUNKED, true, STR_NULL);
    CHECK_STR(buf_str(&b), S("HTTP/1.1 599 Status\r\nTransfer-Encoding: chunked\r\nConnection: "
                             "keep-alive\r\n\r\n"));
    buf_clear(&b);
    http1_write_head(&b, 200, STR_NULL, HTTP1_LENGTH_CLOSE, true, STR_NULL);
    CHECK_STR(buf_str(&b), S("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"));
    buf_clear(&b);
    http1_write_refusal(&b, HTTP1_NO_METHOD);
    CHECK_STR(
        buf_str(&b),
        S("HTTP/1.1 501 Not Implemented\r\nContent-Type: application/json\r\nContent-Length: "
          "72\r\nConnection: close\r\n\r\n"
          "{\"error\":\"method not implemented by this server\",\"code\":\"UNIMPLEMENTED\"}"));
    buf_clear(&b);
    CHECK(http1_write_field(&b, S("X-A"), S("b \xc3\xa9")));
    CHECK(http1_write_field(&b, S("X-B"), S("")));
    CHECK(!http1_write_field(&b, S("X-C"), S("a\r\nSet-Cookie: x")));
    CHECK(!http1_write_field(&b, S("X-C"), S("a\0b")));
    CHECK_STR(buf_str(&b), S("X-A: b \xc3\xa9\r\nX-B: \r\n"));
    CHECK_STR(http1_status_text(404), S("Not Found"));
    CHECK_STR(http1_status_text(299), S("Status"));

    static const struct {
        int64_t seconds;
        const char *line;
    } dates[] = {
        {0, "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"},
        {784111777, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"},
        {951782399, "Date: Mon, 28 Feb 2000 23:59:59 GMT\r\n"},
        {951782400, "Date: Tue, 29 Feb 2000 00:00:00 GMT\r\n"},
        {1795465600, "Date: Mon, 23 Nov 2026 20:26:40 GMT\r\n"},
        {4107542400, "Date: Mon, 01 Mar 2100 00:00:00 GMT\r\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(dates); i++) {
        http1_date_line(dates[i].seconds * 1000000000, date);
        CHECK_STR(((str){date, sizeof(date)}), str_of(dates[i].line));
    }
}

RUN_TESTS(T(a_typical_request), T(every_known_field_is_known), T(what_is_accepted), T(methods),
          T(what_is_refused), T(cuts_change_nothing), T(limits_are_exact), T(body_limits_are_exact),
          T(pipelined_requests), T(expect_and_wants), T(a_body_streams), T(response_heads))
