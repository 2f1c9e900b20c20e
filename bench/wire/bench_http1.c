/* SPDX-License-Identifier: Apache-2.0 */
/* Nanoseconds per message of the HTTP/1.1 codec. */
#include "rows.h"

#include "wire/http1_client.h"

#define HEAD_SMALL "GET /v2/health/live HTTP/1.1\r\nHost: localhost:8080\r\n\r\n"
#define HEAD_TYPICAL                                                   \
    "POST /v2/models/fraud/infer HTTP/1.1\r\nHost: localhost:8080\r\n" \
    "User-Agent: python-urllib3/2.2.1\r\nAccept: */*\r\n"              \
    "Content-Type: application/json\r\nContent-Length: 5\r\n"          \
    "Connection: keep-alive\r\nX-Request-Id: 0193a5c2\r\n\r\nhello"
#define HEAD_BROWSER                                                                         \
    "GET /console/models?sort=name&page=2 HTTP/1.1\r\nHost: weir.example.org\r\n"            \
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" \
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"            \
    "Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"        \
    "Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\n" \
    "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\n"             \
    "Cookie: session=0193a5c2-7d1e-7b1a-9c51-2f1d7e1c9f10; theme=dark\r\n\r\n"

struct message {
    char *p;
    size_t n;
};

static void parse(void *arg, size_t turns)
{
    const struct message *m = arg;
    struct http1_parser ps;
    struct http1_request req;

    http1_parser_init(&ps, NULL);
    while (turns--) {
        size_t n = m->n;

        if (http1_parse(&ps, m->p, &n, &req) != HTTP1_REQUEST)
            abort();
    }
}

static void write_head(void *arg, size_t turns)
{
    struct buf *b = arg;

    while (turns--) {
        buf_clear(b);
        http1_write_head(b, 200, S("application/json"), 123, true,
                         S("Date: Mon, 23 Nov 2026 20:40:00 GMT\r\n"));
    }
}

static void parse_response(void *arg, size_t turns)
{
    static const str text = S_INIT("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                                   "Content-Length: 123\r\nConnection: keep-alive\r\n"
                                   "Date: Mon, 23 Nov 2026 20:40:00 GMT\r\n\r\n");
    struct http1_response *res = arg;

    while (turns--) {
        enum http1_refusal why;
        size_t seen = 0;

        if (http1_response_parse(text.p, text.n, &HTTP1_LIMITS_DEFAULT, false, &seen, res, &why) !=
            HTTP1_HEAD)
            abort();
    }
}

int main(void)
{
    static char small[] = HEAD_SMALL, typical[] = HEAD_TYPICAL, browser[] = HEAD_BROWSER;
    static struct http1_response res;
    struct buf out;

    buf_init(&out, 1 << 12);
    rows_time("request, 54 bytes", parse, &(struct message){small, sizeof(small) - 1}, 20000);
    rows_time("request, 208 bytes, 8 fields", parse,
              &(struct message){typical, sizeof(typical) - 1}, 20000);
    rows_time("request of a browser, 620 bytes", parse,
              &(struct message){browser, sizeof(browser) - 1}, 20000);
    rows_time("response head written", write_head, &out, 20000);
    rows_time("response head read", parse_response, &res, 20000);
    buf_done(&out);
    return 0;
}
