/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections. Edge-triggered and registered once; a connection reads at most one buffer a turn,
 * takes all complete requests out of it, and gets all its answers written with one send at the end
 * of the turn.
 *
 * Rules that keep slices valid: the input buffer neither grows nor moves from the moment a request
 * of it was taken until the turn is flushed. It grows only before parsing, and is compacted only
 * after the flush; a head that was parsed before its body was there is moved along
 * (http1_request_move).
 *
 * A client that sends slowly is cut off by the request timeout (measured from the first byte of the
 * request, so that a trickle does not help), one that does not read is held back by its full output
 * buffer: no request is taken from a connection with more than OUT_PAUSE_BYTES unsent.
 *
 * Closing. Bytes that lie unread in the socket when it is closed make the kernel reset the
 * connection, and the reset may overtake the answer: a client that is still sending would never see
 * why it was refused. So a connection that is closed before all was read lingers: its side is shut,
 * what still comes is thrown away, and it goes when the peer closes or after LINGER_NS.
 *
 * Durable endpoints. An answer that must not be seen before its record is on disk waits in `out`;
 * the keeper's mail lets it go. When the record is lost, the answer is taken back and becomes 503.
 */
#include "serve/observe.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES ((size_t)16 << 10)  /* room offered to a read */
#define KEEP_BYTES ((size_t)256 << 10) /* a connection keeps no larger buffer between requests */
#define QUIET_NS (2 * NS_PER_S)        /* and none after this time without a byte */
#define OUT_PAUSE_BYTES ((size_t)4 << 20)
#define SWEEP_NS (NS_PER_S / 4)
#define LINGER_NS NS_PER_S
#define TURN_BYTES ((size_t)64 << 20) /* a turn that has parsed so much takes no more requests */

/* --- Opening and closing ---------------------------------------------------------------------- */

static void list_remove(struct serve_loop *l, struct conn *c)
{
    *(c->prev ? &c->prev->next : &l->conns_first) = c->next;
    *(c->next ? &c->next->prev : &l->conns_last) = c->prev;
}

static void list_append(struct serve_loop *l, struct conn *c)
{
    c->prev = l->conns_last;
    c->next = NULL;
    *(c->prev ? &c->prev->next : &l->conns_first) = c;
    l->conns_last = c;
}

static void conn_free(struct conn *c)
{
    http2_session_free(c->h2);
    buf_done(&c->in);
    buf_done(&c->out);
    mem_free(c);
}

/* What a crew still reads of it lives on until that is back. */
void conn_close(struct conn *c)
{
    struct serve_loop *l = c->l;

    ASSERT(!c->pending && !c->touched && !c->gone);
    if (c->hold_position)
        __atomic_sub_fetch(&l->held, 1, __ATOMIC_RELAXED);
    loop_task_cancel(l->loop, &c->more);
    loop_fd_remove(l->loop, &c->watch);
    tls_free(c->tls);
    close(c->watch.fd);
    list_remove(l, c);
    l->conn_count--;
    counter_add(&l->counters.connections_open, (uint64_t)-1);
    c->gone = true;
    offloads_abandon(c);
    if (c->h2)
        h2_end(c);
    if (!conn_waits(c))
        conn_free(c);
}

void conns_close_all(struct serve_loop *l)
{
    while (l->conns_first)
        conn_close(l->conns_first);
}

static void touch(struct conn *c)
{
    struct serve_loop *l = c->l;

    if (l->now_ns != loop_now_ns(l->loop)) {
        l->now_ns = loop_now_ns(l->loop);
        l->wall_ns = time_wall_ns();
    }
    c->active_ns = l->now_ns;
    if (c->touched)
        return;
    c->touched = true;
    c->touched_next = l->touched;
    l->touched = c;
}

void conn_touch(struct conn *c)
{
    touch(c);
}

void conn_back(struct conn *c)
{
    if (c->gone) {
        if (!conn_waits(c))
            conn_free(c);
        return;
    }
    touch(c);
    c->unread = true; /* goes on where it stopped, in the next turn */
}

/* --- Writing ---------------------------------------------------------------------------------- */

void conn_hold(struct conn *c, uint64_t position)
{
    if (!c->hold_position) {
        c->hold_first = position;
        c->hold_from = c->out.n;
        __atomic_add_fetch(&c->l->held, 1, __ATOMIC_RELAXED);
    }
    c->hold_position = position;
}

/* The connection is to be closed without another byte. */
static void drop_output(struct conn *c)
{
    c->closing = c->ended = true;
    if (c->hold_position)
        __atomic_sub_fetch(&c->l->held, 1, __ATOMIC_RELAXED);
    c->hold_position = 0;
    buf_clear(&c->out);
    c->sent = 0;
}

/* True while answers must wait for the disk. What a later record meets, an earlier one may have
 * escaped, so both ends are asked. */
RUNS_ON(on_loop) static bool is_held(struct conn *c)
{
    bool lost;

    if (!c->hold_position)
        return false;
    lost = record_ring_fate(c->l->ring, c->hold_first) == RECORD_LOST;
    if (!lost && record_ring_fate(c->l->ring, c->hold_position) == RECORD_PENDING)
        return true;
    lost |= record_ring_fate(c->l->ring, c->hold_position) == RECORD_LOST;
    c->hold_position = 0;
    __atomic_sub_fetch(&c->l->held, 1, __ATOMIC_RELAXED);
    if (lost && c->h2) { /* frames of other streams lie between: none of it goes out */
        drop_output(c);
        return true;
    }
    if (lost) { /* the answers were never seen: they are taken back */
        c->out.n = c->hold_from;
        conn_respond(c, &(struct answer){
                            .status = 503,
                            .content_type = "application/json",
                            .body = S("{\"error\":\"the record of the answer could not be stored: "
                                      "the disk refused it\",\"code\":\"UNAVAILABLE\"}")});
    }
    return false;
}

/* True when there is something to send; takes it out of the streams, piece by piece. */
RUNS_ON(on_loop) static bool has_output(struct conn *c)
{
    if (c->sent == c->out.n) {
        buf_clear(&c->out);
        c->sent = 0;
        if (c->h2 && !c->hold_position)
            (void)http2_send(c->h2, &c->out);
    }
    return c->sent < c->out.n && !is_held(c);
}

/* Sends what there is. False when the connection is broken. */
RUNS_ON(on_loop) static bool conn_send(struct conn *c)
{
    while (has_output(c)) {
        ssize_t n = c->tls
                        ? tls_send(c->tls, c->out.p + c->sent, c->out.n - c->sent)
                        : send(c->watch.fd, c->out.p + c->sent, c->out.n - c->sent, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return true; /* the edge of EPOLLOUT will come */
        if (n < 0)
            return false;
        c->sent += (size_t)n;
        counter_add(&c->l->counters.bytes_out, (uint64_t)n);
    }
    return true;
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* Room for a read. May move the buffer, which is legal only now: nothing of it is in use. */
static char *room(struct conn *c, size_t *ret_n)
{
    size_t want = http1_parser_wants(&c->parser, c->in.n - c->parsed);
    char *old = c->in.p, *to;

    want = CLAMP(want, READ_BYTES, (size_t)1 << 20);
    to = buf_reserve(&c->in, MIN(want, c->in.max_bytes - c->in.n));
    if (old && c->in.p != old)
        http1_request_move(&c->own_req, old, c->in.p);
    *ret_n = c->in.cap_bytes - c->in.n;
    return to;
}

/* What came is no TLS, or a client that may not come in: counted, never answered. */
static bool not_tls(struct conn *c)
{
    if (c->tls && errno == EPROTO)
        counter_add(&c->l->counters.tls_refused, 1);
    return false;
}

/* When the last of what was just read had reached this machine: now, as long as turns are short;
 * else what the kernel noted, to some milliseconds. It is asked only then, for it takes a system
 * call. */
static int64_t came_ns(const struct conn *c)
{
    struct tcp_info info;
    socklen_t n = sizeof(info);

    if (LIKELY(c->l->turn_ns < CONN_BEHIND_NS) ||
        getsockopt(c->watch.fd, IPPROTO_TCP, TCP_INFO, &info, &n))
        return c->l->now_ns;
    return c->l->now_ns - (int64_t)info.tcpi_last_data_recv * NS_PER_MS;
}

/* Reads once. False when the connection is broken. */
static bool conn_read(struct conn *c)
{
    size_t n_max;
    char *to = room(c, &n_max);
    ssize_t n;

    if (!to || !n_max) { /* full of requests that wait */
        c->unread = true;
        return true;
    }
    do
        n = c->tls ? tls_recv(c->tls, to, n_max) : recv(c->watch.fd, to, n_max, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN || not_tls(c);
    c->ended = n == 0;
    c->came_ns = came_ns(c);
    c->in.n += (size_t)n;
    counter_add(&c->l->counters.bytes_in, (uint64_t)n);
    if (!c->ended && ((size_t)n == n_max || c->half_closed)) /* more, and no new edge for it */
        loop_defer(c->l->loop, &c->more);
    return true;
}

RUNS_ON(on_loop) static void refuse(struct conn *c)
{
    counter_add(&c->l->counters.bad_requests, 1);
    observe_malformed(c, http1_refusal_status(c->parser.refusal));
    if (c->pending)
        turn_flush(c->l);
    http1_write_refusal(&c->out, c->parser.refusal);
    c->closing = true;
}

RUNS_ON(on_loop) static void expect(struct conn *c)
{
    if (!c->req->expect_continue)
        return;
    if (c->pending)
        turn_flush(c->l);
    buf_add_str(&c->out, HTTP1_CONTINUE);
}

/* What the first bytes are. False: too few to tell. */
RUNS_ON(on_loop) static bool greet(struct conn *c)
{
    int preface = c->tls ? tls_chose_http2(c->tls) : http1_is_h2_preface(c->in.p, c->in.n);

    if (preface < 0)
        return false;
    c->greeted = true;
    if (preface && !h2_start(c))
        c->closing = true;
    return true;
}

/* Takes the complete requests out of the buffer. */
RUNS_ON(on_loop) static void conn_parse(struct conn *c)
{
    if (c->h2) {
        h2_take(c);
        return;
    }
    while (c->parsed < c->in.n && !c->closing && !conn_waits(c)) {
        size_t n = c->in.n - c->parsed;
        enum http1_event event;

        if (c->out.n - c->sent >= OUT_PAUSE_BYTES) {
            c->paused = true;
            return;
        }
        if (c->l->turn.used_bytes >= TURN_BYTES) {
            c->unread = true; /* goes on in the next turn, in an empty arena */
            return;
        }
        event = http1_parse(&c->parser, c->in.p + c->parsed, &n, &c->own_req);
        c->in.n = c->parsed + n;
        if (event == HTTP1_HEAD) {
            expect(c);
            continue;
        }
        if (event == HTTP1_REFUSED) {
            refuse(c);
            return;
        }
        if (event != HTTP1_REQUEST)
            return;
        counter_add(&c->l->counters.requests, 1);
        route_request(c, c->req->body);
        c->parsed += c->parser.consumed;
        http1_parser_init(&c->parser, &c->parser.limits);
    }
}

/* Throws away what a peer still sends after its last answer. */
static void discard(struct conn *c)
{
    char waste[4096];
    ssize_t n;
    int budget = 256;

    do
        n = recv(c->watch.fd, waste, sizeof(waste), 0);
    while ((n > 0 && --budget) || (n < 0 && errno == EINTR));
    if (n > 0)
        loop_defer(c->l->loop, &c->more);
    else if (n == 0 || errno != EAGAIN)
        c->ended = true;
}

static void linger(struct conn *c)
{
    c->lingering = true;
    c->linger_ns = c->l->now_ns;
    if (c->tls)
        tls_close(c->tls);
    shutdown(c->watch.fd, SHUT_WR);
    discard(c);
}

void conn_drop(struct conn *c)
{
    if (c->gone)
        return;
    touch(c);
    drop_output(c);
}

/* A handshake may wait for either direction. */
static bool wants_read(const struct conn *c, uint32_t events)
{
    return (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0 ||
           (c->tls && !tls_established(c->tls));
}

static void conn_event(struct loop *loop, struct loop_fd *w, uint32_t events)
{
    struct conn *c = CONTAINER_OF(w, struct conn, watch);

    ROLE_ASSERT(on_loop);
    touch(c);
    c->half_closed |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if (c->lingering)
        discard(c);
    if (c->closing)
        return;
    if (conn_waits(c) && !c->h2) { /* its buffer is in use until a crew is done */
        c->unread = true;
        if (events & (EPOLLHUP | EPOLLERR))
            drop_output(c);
        return;
    }
    if (c->pending) { /* its buffer is in use until the flush */
        loop_defer(loop, &c->more);
        return;
    }
    if (c->paused)
        c->unread = true;
    else if (wants_read(c, events) && !conn_read(c)) {
        drop_output(c);
        return;
    }
    if (!c->greeted && c->in.n && !greet(c) && !c->ended)
        return;
    conn_parse(c);
    if (!c->pending) /* who was refused need not wait until the others have been read and computed
                      */
        (void)!conn_send(c); /* a broken connection is met again when it is settled */
    if (c->ended && !c->paused && !c->unread && !conn_waits(c))
        c->closing = true; /* a half-closed peer still gets its answers */
}

static void conn_more(struct loop *loop, struct loop_task *t)
{
    struct conn *c = CONTAINER_OF(t, struct conn, more);

    conn_event(loop, &c->watch, EPOLLIN);
}

void conn_accept(struct loop *loop, struct listener *li, int fd, const struct addr *peer)
{
    struct serve_loop *l = CONTAINER_OF(li, struct serve_listener, listener)->l;
    const struct gateway_config *cfg = gateway_config(l->gw);
    struct http1_limits limits = HTTP1_LIMITS_DEFAULT;
    struct conn *c;
    struct err e;

    ROLE_ASSERT(on_loop);
    counter_add(&l->counters.connections_accepted, 1);
    if (l->conn_count >= cfg->connections_max) {
        static const char busy[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
                                   "Content-Length: 0\r\nConnection: close\r\n\r\n";

        counter_add(&l->counters.connections_refused, 1);
        if (!l->tls)
            (void)!send(fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL);
        close(fd);
        return;
    }
    c = mem_zalloc(sizeof(*c));
    c->l = l;
    if (l->tls && !(c->tls = tls_accept(l->tls, fd))) { /* never in plain instead */
        close(fd);
        mem_free(c);
        return;
    }
    c->req = &c->own_req;
    c->peer = guard_peer_id(gateway_guard(l->gw), peer);
    limits.head_bytes = cfg->head_bytes_max;
    limits.body_bytes = cfg->body_bytes_max;
    http1_parser_init(&c->parser, &limits);
    buf_init(&c->in, limits.head_bytes + limits.body_bytes + READ_BYTES);
    buf_init(&c->out, OUT_MAX_BYTES);
    c->watch = (struct loop_fd){.fd = fd, .fn = conn_event};
    c->more.fn = conn_more;
    c->active_ns = loop_now_ns(loop);
    list_append(l, c);
    l->conn_count++;
    counter_add(&l->counters.connections_open, 1);
    if (loop_fd_add(loop, &c->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, &e)) {
        log_err("connection.failed", &e);
        conn_close(c);
    }
}

/* --- The end of a turn ------------------------------------------------------------------------ */

static void let_go(struct buf *b)
{
    size_t max = b->max_bytes;

    buf_done(b);
    buf_init(b, max);
}

/* Drops what was answered and keeps a partial request at the front. */
static void compact(struct conn *c)
{
    bool progressed = c->parsed > 0;

    if (c->parsed) {
        char *from = c->in.p + c->parsed;

        buf_consume(&c->in, c->parsed);
        c->parsed = 0;
        if (c->parser.in_body)
            http1_request_move(&c->own_req, from, c->in.p);
    }
    if (!c->in.n && c->in.cap_bytes > KEEP_BYTES)
        let_go(&c->in);
    if (!c->in.n)
        c->request_ns = 0;
    else if (!c->request_ns || progressed)
        c->request_ns = c->l->now_ns;
}

/* Goes on where room, or the end of a turn, was waited for. */
static void resume(struct conn *c)
{
    if (c->paused && c->out.n - c->sent < OUT_PAUSE_BYTES) {
        c->paused = false;
        c->unread = true;
    }
    if (c->unread && !c->paused && (!conn_waits(c) || c->h2)) {
        c->unread = false;
        loop_defer(c->l->loop, &c->more);
    }
}

RUNS_ON(on_loop) static void conn_settle(struct conn *c)
{
    bool ok;

    ASSERT(!c->pending);
    if (!conn_waits(c) && !c->h2)
        compact(c);
    if (c->out.overflowed) /* half an answer is worse than none */
        drop_output(c);
    ok = conn_send(c);
    if (c->h2 && http2_is_done(c->h2))
        c->closing = true;
    if (c->drained && !c->h2 && !c->in.n && c->sent == c->out.n)
        c->closing = true;
    if (ok && c->closing && c->sent == c->out.n && !c->ended && !c->lingering)
        linger(c);
    if (!ok || (c->closing && c->sent == c->out.n && c->ended)) {
        conn_close(c);
        return;
    }
    resume(c);
    list_remove(c->l, c);
    list_append(c->l, c);
}

void conns_turn_end(struct loop *loop, struct loop_hook *h)
{
    struct serve_loop *l = CONTAINER_OF(h, struct serve_loop, turn_end);
    struct conn *c = l->touched;

    ROLE_ASSERT(on_loop);
    l->turn_ns = 0;
    if (!c)
        return;
    counter_add(&l->counters.turns, 1);
    turn_flush(l);
    l->touched = NULL;
    while (c) {
        struct conn *next = c->touched_next;

        c->touched = false;
        conn_settle(c);
        c = next;
    }
    arena_reset(&l->turn);
    l->turn_ns = time_mono_ns() - loop_now_ns(loop);
}

void conns_release_held(struct serve_loop *l)
{
    for (struct conn *c = l->conns_first, *next; c && l->held; c = next) {
        next = c->next;
        if (c->hold_position && !is_held(c))
            touch(c); /* settled, and so sent, at the end of this turn */
    }
}

/* Where it leads clients elsewhere: whoever asks again is told with the answer, a peer of HTTP/2 is
 * told now. The second GOAWAY, which names the last stream that counts, follows when the first one
 * has surely arrived (RFC 9113, 6.8), in conns_sweep(). */
void conns_leave(struct loop *loop, struct loop_task *t)
{
    struct serve_loop *l = CONTAINER_OF(t, struct serve_loop, leave);

    ROLE_ASSERT(on_loop);
    l->left_ns = loop_now_ns(loop);
    for (struct conn *c = l->conns_first, *next; c; c = next) {
        next = c->next;
        if (!c->h2)
            continue;
        http2_goaway(c->h2, false);
        touch(c);
    }
}

/* What came in before the stop is still read and answered; then each connection is closed. */
void conns_drain(struct loop *loop, struct loop_task *t)
{
    struct serve_loop *l = CONTAINER_OF(t, struct serve_loop, drain);

    ROLE_ASSERT(on_loop);
    l->left_ns = loop_now_ns(loop);
    for (struct conn *c = l->conns_first; c; c = c->next) {
        c->drained = true;
        if (c->h2)
            http2_goaway(c->h2, true);
        conn_event(loop, &c->watch, EPOLLIN);
    }
}

/* --- Timeouts --------------------------------------------------------------------------------- */

RUNS_ON(on_loop)
static void sweep_one(struct conn *c, const struct gateway_config *cfg, int64_t now_ns)
{
    if (c->lingering) {
        if (now_ns - c->linger_ns > LINGER_NS) {
            touch(c);
            c->ended = true;
        }
    } else if (conn_waits(c)) { /* waits for us, until a deadline of ours */
        return;
    } else if (c->request_ns && now_ns - c->request_ns > cfg->request_timeout_ns && !c->closing) {
        touch(c);
        conn_respond(c, &(struct answer){.status = 408,
                                         .content_type = "application/json",
                                         .body = S("{\"error\":\"the request did not arrive in "
                                                   "time\",\"code\":\"DEADLINE_EXCEEDED\"}")});
    } else if (now_ns - c->active_ns > cfg->idle_timeout_ns) {
        touch(c);
        drop_output(c);
    } else if (now_ns - c->active_ns > QUIET_NS && c->in.cap_bytes && !c->touched) {
        if (!c->in.n)
            let_go(&c->in);
        if (!c->out.n)
            let_go(&c->out);
    }
}

void conns_sweep(struct loop *loop, struct loop_timer *t)
{
    struct serve_loop *l = CONTAINER_OF(t, struct serve_loop, sweep);
    const struct gateway_config *cfg = gateway_config(l->gw);
    int64_t now_ns = loop_now_ns(loop);

    ROLE_ASSERT(on_loop);
    for (struct conn *c = l->conns_first, *next; c; c = next) {
        next = c->next;
        if (c->h2)
            h2_sweep(c, now_ns);
        sweep_one(c, cfg, now_ns);
    }
    loop_timer_set(loop, t, now_ns + SWEEP_NS);
}
