/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of the API: read until a request is whole, answer it, read on. Watched once,
 * edge-triggered. A peer that does not read its answers gets no further request taken: the next is
 * parsed only when the output is empty, so the memory of a connection is one request and one
 * answer.
 */
#include "api/priv.h"

#include "base/mem.h"
#include "base/time.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES ((size_t)64 << 10)
#define KEEP_BYTES ((size_t)256 << 10)
#define ACTOR_MAX 128

struct api_conn {
    struct api *api;
    struct api_conn *next, **prev;
    struct loop_fd watch;
    struct loop_task more;
    struct http1_parser parser;
    struct http1_request req;
    struct buf in, out;
    size_t sent;
    int64_t active_ns;
    bool is_tcp, closing, ended;
    char user[ACTOR_MAX]; /* of the peer of a unix socket */
};

static const struct http1_limits *limits(void)
{
    static struct http1_limits l;

    if (!l.head_bytes) {
        l = HTTP1_LIMITS_DEFAULT;
        l.body_bytes = API_BODY_BYTES_MAX;
    }
    return &l;
}

static void conn_close(struct api_conn *c)
{
    loop_task_cancel(c->api->loop, &c->more);
    loop_fd_remove(c->api->loop, &c->watch);
    close(c->watch.fd);
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->api->conn_count--;
    buf_done(&c->in);
    buf_done(&c->out);
    mem_free(c);
}

void api_conns_close(struct api *api)
{
    while (api->conns)
        conn_close(api->conns);
}

void api_conns_sweep(struct api *api)
{
    int64_t now = loop_now_ns(api->loop);

    for (struct api_conn *c = api->conns, *next; c; c = next) {
        next = c->next;
        if (now - c->active_ns > API_IDLE_NS)
            conn_close(c);
    }
}

/* --- Answering -------------------------------------------------------------------------------- */

static bool is_plain(str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] > 0x7e)
            return false;
    return s.n > 0 && s.n <= ACTOR_MAX;
}

static str actor_of(const struct api_conn *c)
{
    str said = http1_field(&c->req.fields, S("X-Weir-Actor"));

    if (is_plain(said))
        return said;
    return c->user[0] ? str_of(c->user) : S("api");
}

static void answer(struct api_conn *c)
{
    struct api *api = c->api;
    struct api_request rq = {
        .http = &c->req, .a = &api->arena, .actor = actor_of(c), .is_tcp = c->is_tcp};
    char extra[HTTP1_DATE_LINE_BYTES + 160];
    struct err e;
    int status, n;

    arena_reset(&api->arena);
    status = api_answer(api, &rq, &e);
    http1_date_line(time_wall_ns(), extra);
    n = snprintf(extra + HTTP1_DATE_LINE_BYTES, sizeof(extra) - HTTP1_DATE_LINE_BYTES,
                 "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
    http1_write_head(&c->out, status, str_of(rq.content_type), api->body.n, c->req.keep_alive,
                     (str){extra, HTTP1_DATE_LINE_BYTES + (size_t)n});
    if (c->req.method != HTTP1_M_HEAD)
        buf_add_str(&c->out, buf_str(&api->body));
    c->closing |= !c->req.keep_alive || c->out.overflowed;
    if (api->body.cap_bytes > (4u << 20)) {
        buf_done(&api->body);
        buf_init(&api->body, API_ANSWER_BYTES_MAX);
    }
}

/* True when something was answered. */
static bool take_request(struct api_conn *c)
{
    enum http1_event event;
    size_t n;

    if (c->closing || !c->in.n)
        return false;
    n = c->in.n;
    event = http1_parse(&c->parser, c->in.p, &n, &c->req);
    c->in.n = n;
    if (event == HTTP1_HEAD) {
        if (c->req.expect_continue)
            buf_add_str(&c->out, HTTP1_CONTINUE);
        n = c->in.n;
        event = http1_parse(&c->parser, c->in.p, &n, &c->req);
        c->in.n = n;
    }
    if (event == HTTP1_REFUSED) {
        c->api->refused++;
        http1_write_refusal(&c->out, c->parser.refusal);
        c->closing = true;
        return true;
    }
    if (event != HTTP1_REQUEST)
        return false;
    answer(c);
    buf_consume(&c->in, c->parser.consumed);
    http1_parser_init(&c->parser, limits());
    return true;
}

/* Sends what there is: 1 all is sent, 0 the peer must read first, -1 broken. */
static int conn_send(struct api_conn *c)
{
    while (c->sent < c->out.n) {
        ssize_t n = send(c->watch.fd, c->out.p + c->sent, c->out.n - c->sent, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        c->sent += (size_t)n;
    }
    c->sent = 0;
    if (c->out.cap_bytes > KEEP_BYTES) {
        buf_done(&c->out);
        buf_init(&c->out, API_ANSWER_BYTES_MAX + 4096);
    }
    buf_clear(&c->out);
    return 1;
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* Reads all there is, up to a whole buffer. False when the connection is broken. */
static bool conn_read(struct api_conn *c)
{
    while (!c->ended) {
        size_t room = MIN(READ_BYTES, c->in.max_bytes - c->in.n);
        char *old = c->in.p, *to = room ? buf_reserve(&c->in, room) : NULL;
        ssize_t n;

        if (!to)
            return true; /* full: a request that fits is whole by now */
        if (old && old != c->in.p)
            http1_request_move(&c->req, old, c->in.p);
        n = recv(c->watch.fd, to, room, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        c->ended = n == 0;
        c->in.n += (size_t)n;
    }
    return true;
}

static void conn_serve(struct api_conn *c)
{
    int sent = conn_send(c);

    c->active_ns = loop_now_ns(c->api->loop);
    if (sent > 0 && !conn_read(c))
        sent = -1;
    if (sent > 0 && take_request(c)) {
        sent = conn_send(c);
        if (sent > 0)
            loop_defer(c->api->loop, &c->more); /* others first, then the next of this one */
    } else if (sent > 0) {
        sent = conn_send(c); /* 100 Continue */
        c->closing |= c->ended;
    }
    if (sent < 0 || (sent > 0 && c->closing))
        conn_close(c);
}

static void on_event(struct loop *loop, struct loop_fd *w, uint32_t events)
{
    (void)loop, (void)events;
    conn_serve(CONTAINER_OF(w, struct api_conn, watch));
}

static void on_more(struct loop *loop, struct loop_task *t)
{
    (void)loop;
    conn_serve(CONTAINER_OF(t, struct api_conn, more));
}

static void learn_user(struct api_conn *c)
{
    struct ucred who;
    socklen_t n = sizeof(who);
    struct passwd pw, *found = NULL;
    char memory[4096];

    if (getsockopt(c->watch.fd, SOL_SOCKET, SO_PEERCRED, &who, &n))
        return;
    if (getpwuid_r(who.uid, &pw, memory, sizeof(memory), &found) == 0 && found)
        snprintf(c->user, sizeof(c->user), "user:%s", found->pw_name);
    else
        snprintf(c->user, sizeof(c->user), "user:%u", (unsigned)who.uid);
}

void api_conn_accept(struct api *api, int fd, bool is_tcp)
{
    struct api_conn *c;
    struct err e;

    if (api->conn_count == API_CONNECTIONS_MAX) {
        close(fd);
        return;
    }
    c = mem_zalloc(sizeof(*c));
    c->api = api;
    c->is_tcp = is_tcp;
    c->watch.fd = fd;
    c->watch.fn = on_event;
    c->more.fn = on_more;
    c->active_ns = loop_now_ns(api->loop);
    if (loop_fd_add(api->loop, &c->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, &e)) {
        close(fd);
        mem_free(c);
        return;
    }
    http1_parser_init(&c->parser, limits());
    buf_init(&c->in, API_BODY_BYTES_MAX + HTTP1_LIMITS_DEFAULT.head_bytes + (8u << 10));
    buf_init(&c->out, API_ANSWER_BYTES_MAX + 4096);
    if (!is_tcp)
        learn_user(c);
    c->next = api->conns;
    c->prev = &api->conns;
    if (c->next)
        c->next->prev = &c->next;
    api->conns = c;
    api->conn_count++;
}
