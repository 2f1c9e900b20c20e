/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest HTTP server on the loop and the codec: what they cost together, without any work
 * behind them. One thread; answers every request with a fixed text. It is written as the gateway
 * is: a connection is registered once, edge-triggered; what is read in a turn is parsed at once,
 * and the answers are written at the end of the turn, so that pipelined requests share a write.
 *
 *   bench_hello ADDRESS    serves until SIGTERM
 */
#include "base/mem.h"
#include "base/time.h"
#include "loop/listen.h"
#include "wire/http1.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define IN_BYTES 16384

struct conn {
    struct loop_fd watch;
    struct http1_parser parser;
    struct http1_request req;
    struct buf out;
    struct conn *next; /* with something to write in this turn */
    size_t n;
    bool touched, closing;
    char in[IN_BYTES];
};

static struct conn *touched;
static char date[HTTP1_DATE_LINE_BYTES];

static void conn_free(struct loop *l, struct conn *c)
{
    loop_fd_remove(l, &c->watch);
    close(c->watch.fd);
    buf_done(&c->out);
    mem_free(c);
}

static void touch(struct conn *c)
{
    if (c->touched)
        return;
    c->touched = true;
    c->next = touched;
    touched = c;
}

static void answer(struct conn *c)
{
    static const str text = S_INIT("{\"live\":true}");

    http1_write_head(&c->out, 200, S("application/json"), text.n, c->req.keep_alive,
                     (str){date, sizeof(date)});
    buf_add_str(&c->out, text);
    c->closing = !c->req.keep_alive;
}

static void parse(struct conn *c)
{
    size_t at = 0;

    while (at < c->n && !c->closing) {
        size_t n = c->n - at;
        enum http1_event ev = http1_parse(&c->parser, c->in + at, &n, &c->req);

        c->n = at + n;
        if (ev == HTTP1_REFUSED) {
            http1_write_refusal(&c->out, c->parser.refusal);
            c->closing = true;
        }
        if (ev == HTTP1_MORE)
            break;
        if (ev == HTTP1_REQUEST) {
            answer(c);
            at += c->parser.consumed;
        }
    }
    c->n -= at;
    if (at)
        memmove(c->in, c->in + at, c->n);
}

static void on_conn(struct loop *l, struct loop_fd *w, uint32_t events)
{
    struct conn *c = CONTAINER_OF(w, struct conn, watch);

    (void)l;
    touch(c);
    if (!(events & EPOLLIN))
        return;
    for (;;) {
        size_t room = IN_BYTES - c->n;
        ssize_t got = room ? recv(w->fd, c->in + c->n, room, 0) : 0;

        if (got > 0) {
            c->n += (size_t)got;
            parse(c);
            if ((size_t)got < room) /* the socket is empty: a new byte is a new edge */
                return;
            continue;
        }
        c->closing |= got == 0 || (errno != EAGAIN && errno != EINTR);
        return;
    }
}

static void on_turn_end(struct loop *l, struct loop_hook *h)
{
    (void)h;
    while (touched) {
        struct conn *c = touched;
        ssize_t sent = 0;

        touched = c->next;
        c->touched = false;
        if (c->out.n)
            sent = send(c->watch.fd, c->out.p, c->out.n, MSG_NOSIGNAL);
        if (sent > 0 && (size_t)sent == c->out.n)
            buf_clear(&c->out);
        else if (sent > 0)
            buf_consume(&c->out, (size_t)sent);
        if ((c->closing && c->out.n == 0) || (sent < 0 && errno != EAGAIN))
            conn_free(l, c);
    }
}

static void on_accept(struct loop *l, struct listener *li, int fd, const struct addr *peer)
{
    struct conn *c = mem_alloc(sizeof(*c));

    (void)li, (void)peer;
    c->watch = (struct loop_fd){.fd = fd, .fn = on_conn};
    http1_parser_init(&c->parser, NULL);
    buf_init(&c->out, 1 << 20);
    c->n = 0;
    c->touched = c->closing = false;
    if (loop_fd_add(l, &c->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, NULL))
        conn_free(l, c);
}

static void renew_date(struct loop *l, struct loop_timer *t)
{
    http1_date_line(time_wall_ns(), date);
    loop_timer_set(l, t, loop_now_ns(l) + NS_PER_S);
}

static void on_signal(struct loop *l, struct loop_signals *s, int signo)
{
    (void)s, (void)signo;
    loop_stop(l);
}

static int serve(const char *address, struct err *e)
{
    static const int signos[] = {SIGTERM, SIGINT, 0};
    AUTO(loop_freep) struct loop *l = NULL;
    struct loop_signals signals;
    struct loop_hook hook = {.fn = on_turn_end};
    struct loop_timer second = {.fn = renew_date};
    struct listener li;
    struct addr a;
    int fd;

    TRY(loop_new(&l, e));
    TRY(loop_signals_open(l, &signals, signos, on_signal, e));
    TRY(addr_parse(str_of(address), &a, e));
    TRY(listen_open(&a, NULL, &fd, e));
    TRY(listener_start(l, &li, fd, on_accept, e));
    loop_on_turn_end(l, &hook);
    renew_date(l, &second);
    loop_run(l);
    fprintf(stderr, "%llu turns, %llu events, %.2f s busy\n",
            (unsigned long long)loop_stats(l)->turns, (unsigned long long)loop_stats(l)->events,
            (double)loop_stats(l)->busy_ns / 1e9);
    listener_stop(l, &li);
    return 0;
}

int main(int argc, char **argv)
{
    struct err e;

    if (argc != 2) {
        fprintf(stderr, "usage: bench_hello ADDRESS\n");
        return 2;
    }
    if (serve(argv[1], &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    return 0;
}
