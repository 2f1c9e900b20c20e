/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection is registered once, edge-triggered, and does no more system calls than one send
 * and one receive for a request in steady state. A server may close an idle connection at any time:
 * that is no failure, the next request dials again.
 */
#include "load/conn.h"

#include "base/mem.h"
#include "base/time.h"

#include <errno.h>
#include <unistd.h>

#define IN_BYTES ((size_t)8192)

static void hang_up(struct load_conn *c)
{
    if (c->watch.fd < 0)
        return;
    loop_fd_remove(c->loop, &c->watch);
    close(c->watch.fd);
    c->watch.fd = -1;
    c->connecting = false;
}

static void finish(struct load_conn *c, int status, enum load_failure failure, str body)
{
    c->sent_ns = 0;
    c->done(c, status, failure, body);
}

void load_conn_fail(struct load_conn *c, enum load_failure failure)
{
    hang_up(c);
    if (load_conn_busy(c))
        finish(c, 0, failure, STR_NULL);
}

static void flush(struct load_conn *c)
{
    while (c->out_at < c->out.n) {
        ssize_t sent = send(c->watch.fd, c->out.p + c->out_at, c->out.n - c->out_at, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0) {
            load_conn_fail(c, LOAD_FAIL_CLOSED);
            return;
        }
        c->out_at += (size_t)sent;
    }
}

static void complete(struct load_conn *c)
{
    str body = {c->in + c->body_at, c->body_n};
    int status = c->res.status;
    bool keep = c->res.keep_alive && c->raw_at == c->in_n;

    if (!keep)
        hang_up(c);
    c->in_n = 0;
    finish(c, status, 0, body);
}

/* Takes the next piece of the body; true when it is complete. */
static bool take_body(struct load_conn *c)
{
    enum http1_refusal why;
    enum http1_event ev = HTTP1_DATA;

    while (ev == HTTP1_DATA && c->raw_at < c->in_n) {
        size_t used, got;

        ev = http1_body_decode(&c->body, c->in + c->raw_at, c->in_n - c->raw_at, &used, &got, &why);
        if (ev == HTTP1_REFUSED) {
            load_conn_fail(c, LOAD_FAIL_PROTOCOL);
            return false;
        }
        memmove(c->in + c->body_at + c->body_n, c->in + c->raw_at, got);
        c->body_n += got;
        c->raw_at += used;
    }
    return ev == HTTP1_REQUEST;
}

/* Reads what has come; true when the answer is complete. */
static bool take_answer(struct load_conn *c)
{
    enum http1_refusal why;
    enum http1_event ev;

    while (!c->in_body) {
        ev = http1_response_parse(c->in, c->in_n, &HTTP1_LIMITS_DEFAULT, false, &c->seen, &c->res,
                                  &why);
        if (ev == HTTP1_MORE)
            return false;
        if (ev == HTTP1_REFUSED || c->res.status == 101) {
            load_conn_fail(c, LOAD_FAIL_PROTOCOL);
            return false;
        }
        if (c->res.status >= 200) {
            c->in_body = true;
            c->body_at = c->raw_at = c->res.head_bytes;
            c->body_n = 0;
            if (http1_body_begin(&c->body, c->res.framing, c->res.content_length,
                                 &HTTP1_LIMITS_DEFAULT)) {
                load_conn_fail(c, LOAD_FAIL_PROTOCOL);
                return false;
            }
            break;
        }
        c->in_n -= c->res.head_bytes; /* 1xx: the answer is still to come */
        memmove(c->in, c->in + c->res.head_bytes, c->in_n);
    }
    if (c->res.framing == HTTP1_BODY_NONE ||
        (c->res.framing == HTTP1_BODY_LENGTH && c->res.content_length == 0))
        return true;
    return take_body(c);
}

/* Bytes came. False when the connection is gone or has turned to something else. */
static void take(struct load_conn *c, size_t got)
{
    c->in_n += got;
    if (!load_conn_busy(c) || c->out_at < c->out.n)
        load_conn_fail(c, LOAD_FAIL_PROTOCOL); /* an answer before its request */
    else if (take_answer(c))
        complete(c);
}

static bool make_room(struct load_conn *c)
{
    if (c->in_n < c->in_cap)
        return true;
    if (c->in_cap >= LOAD_ANSWER_BYTES_MAX)
        return false;
    c->in_cap *= 2;
    c->in = mem_realloc(c->in, c->in_cap);
    return true;
}

static void ended(struct load_conn *c)
{
    if (load_conn_busy(c) && c->in_body && http1_body_end(&c->body)) {
        c->res.keep_alive = false;
        complete(c);
    } else {
        load_conn_fail(c, LOAD_FAIL_CLOSED);
    }
}

static void receive(struct load_conn *c)
{
    int fd = c->watch.fd;

    while (c->watch.fd == fd) {
        size_t room;
        ssize_t got;

        if (!make_room(c)) {
            load_conn_fail(c, LOAD_FAIL_PROTOCOL);
            return;
        }
        room = c->in_cap - c->in_n;
        got = recv(fd, c->in + c->in_n, room, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            ended(c);
            return;
        }
        take(c, (size_t)got);
        if ((size_t)got < room) /* empty: a new byte is a new edge */
            return;
    }
}

static void on_conn(struct loop *l, struct loop_fd *w, uint32_t events)
{
    struct load_conn *c = CONTAINER_OF(w, struct load_conn, watch);
    struct err e;

    (void)l;
    if (c->connecting) {
        if (dial_finish(w->fd, c->to, &e)) {
            load_conn_fail(c, LOAD_FAIL_CONNECT);
            return;
        }
        c->connecting = false;
    }
    if ((events & EPOLLOUT) && load_conn_busy(c) && c->out_at < c->out.n)
        flush(c);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        receive(c);
}

static NODISCARD int connect_now(struct load_conn *c, struct err *e)
{
    TRY(dial_start(c->to, &c->watch.fd, &c->connecting, e));
    return loop_fd_add(c->loop, &c->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, e);
}

void load_conn_send(struct load_conn *c, int64_t now_ns)
{
    struct err e;

    ASSERT(!load_conn_busy(c));
    c->sent_ns = now_ns;
    c->out_at = c->in_n = c->seen = 0;
    c->in_body = false;
    if (c->watch.fd < 0 && connect_now(c, &e)) {
        load_conn_fail(c, LOAD_FAIL_CONNECT);
        return;
    }
    if (!c->connecting)
        flush(c);
}

void load_conn_init(struct load_conn *c, struct loop *l, const struct addr *to, load_conn_fn done,
                    void *owner)
{
    *c = (struct load_conn){.loop = l, .to = to, .done = done, .owner = owner, .in_cap = IN_BYTES};
    c->watch = (struct loop_fd){.fd = -1, .fn = on_conn};
    c->in = mem_alloc(IN_BYTES);
    buf_init(&c->out, (size_t)64 << 20);
}

void load_conn_done(struct load_conn *c)
{
    if (!c->in)
        return;
    hang_up(c);
    mem_free(c->in);
    buf_done(&c->out);
    *c = (struct load_conn){.watch.fd = -1};
}
