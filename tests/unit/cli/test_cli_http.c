/* SPDX-License-Identifier: Apache-2.0 */
/* The client against a server thread that answers from a script, byte for byte. */
#include "check.h"

#include "base/time.h"
#include "cli/http.h"
#include "loop/listen.h"
#include "loop/stream.h"
#include "loop/thread.h"

#include <poll.h>
#include <unistd.h>

static const struct {
    const char *target;
    const char *answer; /* NULL: close without a word */
    size_t step;        /* bytes per write; 0 = all */
    bool hang;          /* keep the connection open afterwards, until the client leaves */
} scripts[] = {
    {"/ok", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello", 0, false},
    {"/bytes", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello", 1, false},
    {"/held", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, true},
    {"/chunked",
     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
     "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
     7, true},
    {"/close", "HTTP/1.0 404 Not Found\r\n\r\nno such thing", 0, false},
    {"/cut", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", 0, false},
    {"/half", "HTTP/1.1 200 OK\r\nContent-Le", 0, false},
    {"/silent", NULL, 0, false},
    {"/slow", "HTTP/1.1 200 OK\r\n", 0, true},
    {"/alien", "SSH-2.0-OpenSSH\r\n", 0, false},
    {"/both", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     0, false},
    {"/lines",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
     "5\r\n{\"a\":\r\n8\r\n1}\n{}\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
     3, true},
    {"/events",
     "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\nevent: end\n"
     "data: 2\n\ndata: 3\n\n",
     5, true},
    {"/bad-stream", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy", 0, true},
};

static int listen_fd;
static char address[ADDR_TEXT_SIZE];
static char last_request[4096]; /* read by the test after the answer */

static void answer(int fd, str target)
{
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        str text = str_of(scripts[i].answer);
        size_t step = scripts[i].step ? scripts[i].step : MAX(text.n, (size_t)1);
        char c;
        size_t n;

        if (!str_eq(target, str_of(scripts[i].target)))
            continue;
        for (; text.n; text = str_skip(text, step)) {
            if (stream_write_all(fd, text.p, MIN(step, text.n), INT64_MAX, &e))
                return;
        }
        if (scripts[i].hang)
            (void)!stream_read(fd, &c, 1, time_mono_ns() + 10 * NS_PER_S, &n, &e);
        return;
    }
}

static void serve_one(int fd)
{
    static char in[2 << 20];
    struct http1_parser ps;
    struct http1_request req;
    size_t n = 0, got;
    struct err e;

    http1_parser_init(&ps, NULL);
    while (!stream_read(fd, in + n, sizeof(in) - n, time_mono_ns() + 10 * NS_PER_S, &got, &e) &&
           got) {
        enum http1_event ev;

        n += got;
        do
            ev = http1_parse(&ps, in, &n, &req);
        while (ev == HTTP1_HEAD && !str_eq(req.target, S("/early")));
        if (ev == HTTP1_HEAD) { /* refuse without reading the body */
            static const char no[] =
                "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
            (void)!stream_write_all(fd, no, sizeof(no) - 1, INT64_MAX, &e);
            return;
        }
        if (ev == HTTP1_REFUSED || ev == HTTP1_REQUEST) {
            snprintf(last_request, sizeof(last_request), "%.*s", (int)MIN(n, (size_t)4000), in);
            answer(fd, ev == HTTP1_REQUEST ? req.target : S("/refused"));
            return;
        }
    }
}

static void server_main(void *arg)
{
    (void)arg;
    for (;;) {
        struct pollfd p = {.fd = listen_fd, .events = POLLIN};
        int fd = poll(&p, 1, -1) > 0 ? accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC) : -1;

        if (fd < 0)
            return; /* shut down */
        serve_one(fd);
        close(fd);
    }
}

/* --- Tests ---------------------------------------------------------------------------------- */

static int get(const char *target, struct arena *a, struct cli_http_response *res, struct err *e)
{
    return cli_http(&(struct cli_http_request){.address = address,
                                               .target = target,
                                               .timeout_ns = 5 * NS_PER_S},
                    a, res, e);
}

static void gathered_answers(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct cli_http_response res;
    struct err e;

    arena_init(&a, 0);
    for (int i = 0; i < 2; i++) {
        NEED_OK(get(i ? "/bytes" : "/ok", &a, &res, &e), &e);
        CHECK_INT(res.status, 200);
        CHECK_STR(res.body, S("hello"));
        CHECK_STR(cli_http_header(&res, S("x-a")), S("b"));
        CHECK(cli_http_header(&res, S("x-b")).p == NULL);
    }
    NEED_OK(get("/held", &a, &res, &e), &e);
    CHECK_STR(res.body, S("hello"));
    NEED_OK(get("/chunked", &a, &res, &e), &e);
    CHECK_INT(res.status, 201);
    CHECK_STR(res.body, S("abcdefg"));
    NEED_OK(get("/close", &a, &res, &e), &e);
    CHECK_INT(res.status, 404);
    CHECK_STR(res.body, S("no such thing"));
}

static void what_is_sent(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct cli_http_response res;
    struct cli_http_request q = {.address = address,
                                 .target = "/ok",
                                 .extra = S("Authorization: Bearer k\r\n"),
                                 .body = S("{}")};
    char want[512];
    struct err e;

    arena_init(&a, 0);
    NEED_OK(cli_http(&q, &a, &res, &e), &e);
    snprintf(want, sizeof(want),
             "POST /ok HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: "
             "2\r\nConnection: close\r\nAuthorization: Bearer k\r\n\r\n{}",
             address);
    CHECK_STR(str_of(last_request), str_of(want));
    q = (struct cli_http_request){.address = address, .target = "/ok", .method = "HEAD"};
    NEED_OK(cli_http(&q, &a, &res, &e), &e);
    CHECK_INT(res.body.n, 0);
    CHECK_STR(str_take(str_of(last_request), 10), S("HEAD /ok H"));
}

static void what_goes_wrong(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct cli_http_response res;
    struct cli_http_request q = {
        .address = address, .target = "/slow", .timeout_ns = 20 * NS_PER_MS};
    struct err e;

    arena_init(&a, 0);
    CHECK_FAILS(get("/cut", &a, &res, &e), UNAVAILABLE, &e, "in the middle");
    CHECK(strstr(e.msg, address) != NULL);
    CHECK_FAILS(get("/half", &a, &res, &e), UNAVAILABLE, &e, "without an answer");
    CHECK_FAILS(get("/silent", &a, &res, &e), UNAVAILABLE, &e, "without an answer");
    CHECK_FAILS(get("/alien", &a, &res, &e), INTERNAL, &e, "not an HTTP answer");
    CHECK_FAILS(get("/both", &a, &res, &e), INTERNAL, &e, "together");
    CHECK_FAILS(cli_http(&q, &a, &res, &e), DEADLINE_EXCEEDED, &e, "in time");
    q = (struct cli_http_request){.address = address, .target = "/ok", .body_bytes_max = 4};
    CHECK_FAILS(cli_http(&q, &a, &res, &e), RESOURCE_EXHAUSTED, &e, "too large");
    q.address = "https://127.0.0.1:1";
    CHECK_FAILS(cli_http(&q, &a, &res, &e), INVALID_ARGUMENT, &e, "TLS");
    q.address = "127.0.0.1";
    CHECK_FAILS(cli_http(&q, &a, &res, &e), INVALID_ARGUMENT, &e, "lacks a port");
    q.address = "unix:/nonexistent/weir.sock";
    CHECK_FAILS(cli_http(&q, &a, &res, &e), UNAVAILABLE, &e, "is the server running?");
}

/* The server answers 413 and closes while megabytes are still to be sent. */
static void an_early_refusal_is_seen(void)
{
    AUTO(arena_done) struct arena a = {0};
    static char much[32 << 20];
    struct cli_http_response res;
    struct cli_http_request q = {
        .address = address, .target = "/early", .body = {much, sizeof(much)}};
    struct err e;

    arena_init(&a, 0);
    int rc = cli_http(&q, &a, &res, &e);
    if (rc == 0) {
        CHECK_INT(res.status, 413);
        CHECK_STR(res.body, S("big"));
    } else { /* the reset may overtake the answer */
        CHECK_INT(rc, CODE_UNAVAILABLE);
    }
}

struct told {
    char text[256];
    int stop_after, count;
};

static bool tell(struct told *t, str s)
{
    size_t n = strlen(t->text);

    snprintf(t->text + n, sizeof(t->text) - n, "[" STR_F "]", STR_A(s));
    return ++t->count != t->stop_after;
}

static bool on_line(void *arg, str line)
{
    return tell(arg, line);
}

static bool on_event(void *arg, const struct http1_sse_event *ev)
{
    return tell(arg, ev->data);
}

static bool on_piece(void *arg, str piece)
{
    struct told *t = arg;

    t->count += (int)piece.n;
    return true;
}

static void streamed_answers(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct cli_http_response res;
    struct told t = {.stop_after = 0};
    struct cli_http_request q = {.address = address, .arg = &t};
    struct err e;

    arena_init(&a, 0);
    q.target = "/lines";
    q.on_line = on_line;
    NEED_OK(cli_http(&q, &a, &res, &e), &e);
    CHECK_STR(str_of(t.text), S("[{\"a\":1}][{}][{}]"));
    CHECK_INT(res.body.n, 0);
    t = (struct told){.stop_after = 1};
    NEED_OK(cli_http(&q, &a, &res, &e), &e);
    CHECK_STR(str_of(t.text), S("[{\"a\":1}]"));

    q.on_line = NULL;
    q.on_event = on_event;
    q.target = "/events";
    t = (struct told){.stop_after = 2};
    NEED_OK(cli_http(&q, &a, &res, &e), &e);
    CHECK_STR(str_of(t.text), S("[1][2]"));
    t = (struct told){.stop_after = 0};
    q.timeout_ns = 50 * NS_PER_MS; /* the stream stays open and silent */
    CHECK_FAILS(cli_http(&q, &a, &res, &e), DEADLINE_EXCEEDED, &e, "in time");
    CHECK_STR(str_of(t.text), S("[1][2][3]"));

    t = (struct told){.stop_after = 0};
    q.target = "/bad-stream";
    NEED_OK(cli_http(&q, &a, &res, &e), &e);
    CHECK_INT(res.status, 503);
    CHECK_STR(res.body, S("busy"));
    CHECK_INT(t.count, 0);

    q.on_event = NULL;
    q.on_piece = on_piece;
    q.target = "/chunked";
    NEED_OK(cli_http(&q, &a, &res, &e), &e);
    CHECK_INT(t.count, 7);
}

int main(int argc, char **argv)
{
    static const struct check_test tests[] = {T(gathered_answers), T(what_is_sent),
                                              T(what_goes_wrong), T(an_early_refusal_is_seen),
                                              T(streamed_answers)};
    struct thread server = {0};
    struct addr a;
    struct err e;
    int rc;

    if (addr_parse(S("127.0.0.1:0"), &a, &e) || listen_open(&a, NULL, &listen_fd, &e) ||
        addr_of_socket(listen_fd, &a, &e) ||
        thread_start(&server, "server", THREAD_ANY_CPU, server_main, NULL, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return EXIT_FAILURE;
    }
    addr_text(&a, address);
    rc = check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
    shutdown(listen_fd, SHUT_RDWR);
    thread_join(&server);
    close(listen_fd);
    return rc;
}
