/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole runs against a server of this test: it answers each row with the class that its column x
 * names, takes feedback, and may stall or fail on demand.
 */
#include "check.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/time.h"
#include "load/load.h"
#include "loop/listen.h"
#include "loop/thread.h"
#include "wire/http1.h"

#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

struct server {
    struct loop *loop;
    struct listener listener;
    struct thread thread;
    struct addr addr;
    struct loop_hook hook;
    int64_t stall_at_ns, stall_ns; /* from the first request */
    int64_t first_ns;
    int fail_every;  /* every n-th prediction gets 503 */
    int close_every; /* after every n-th prediction the connection is closed */
    uint64_t predictions, labels, labels_wrong, feedback_refused;
    struct conn *conns;
};

struct conn {
    struct loop_fd watch;
    struct server *server;
    struct conn *next;
    struct http1_parser parser;
    size_t n;
    char in[65536];
};

/* The class of a body is what stands after "x": */
static char class_in(str body)
{
    ptrdiff_t at = str_find(body, S("\"x\":"));

    return at < 0 ? '?' : body.p[at + 4];
}

static void take_feedback(struct server *s, str body, struct buf *out)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *root, *list;
    struct err e;

    arena_init(&a, 0);
    if (s->feedback_refused++ == 0) { /* the first batch is to be sent again */
        http1_write_head(out, 503, S(""), 0, true, STR_NULL);
        return;
    }
    if (!CHECK_OK(json_parse(body, &a, &root, &e), &e) ||
        !CHECK_OK(json_need_array(root, S("feedback"), &list, &e), &e))
        return;
    CHECK(list->count <= LOAD_FEEDBACK_BATCH);
    JSON_EACH (item, list) {
        s->labels++;
        s->labels_wrong += json_str_or(json_get(item, S("request_id")), S("")).n != 36 ||
                           json_int_or(json_get(item, S("label")), -1) > 1;
    }
    http1_write_head(out, 202, S(""), 0, true, STR_NULL);
}

static bool answer(struct conn *c, const struct http1_request *req, struct buf *out)
{
    struct server *s = c->server;
    char body[] = "{\"prediction\":\"?\"}";
    bool close_now;

    if (str_eq(req->path, S("/v1/feedback"))) {
        take_feedback(s, req->body, out);
        return true;
    }
    s->predictions++;
    close_now = s->close_every && s->predictions % (uint64_t)s->close_every == 0;
    if (s->fail_every && s->predictions % (uint64_t)s->fail_every == 0) {
        http1_write_head(out, 503, S("text/plain"), 4, true, STR_NULL);
        buf_add_str(out, S("busy"));
        return true;
    }
    body[15] = class_in(req->body);
    http1_write_head(out, 200, S("application/json"), sizeof(body) - 1, !close_now, STR_NULL);
    buf_add(out, body, sizeof(body) - 1);
    return !close_now;
}

static void hang_up(struct loop *l, struct conn *c)
{
    loop_fd_remove(l, &c->watch);
    close(c->watch.fd);
    c->watch.fd = -1;
}

static void on_conn(struct loop *l, struct loop_fd *w, uint32_t events)
{
    struct conn *c = CONTAINER_OF(w, struct conn, watch);
    AUTO(buf_done) struct buf out = {0};
    struct http1_request req;
    bool keep = true;
    ssize_t got;

    (void)events;
    buf_init(&out, 1 << 20);
    got = recv(w->fd, c->in + c->n, sizeof(c->in) - c->n, 0);
    if (got <= 0) {
        hang_up(l, c);
        return;
    }
    c->n += (size_t)got;
    if (http1_parse(&c->parser, c->in, &c->n, &req) != HTTP1_REQUEST)
        return;
    keep = answer(c, &req, &out);
    c->n = 0;
    CHECK_INT(send(w->fd, out.p, out.n, MSG_NOSIGNAL), out.n);
    if (!keep)
        hang_up(l, c);
}

static void on_accept(struct loop *l, struct listener *li, int fd, const struct addr *peer)
{
    struct server *s = CONTAINER_OF(li, struct server, listener);
    struct conn *c = mem_zalloc(sizeof(*c));
    struct err e;

    (void)peer;
    c->server = s;
    c->next = s->conns;
    s->conns = c;
    http1_parser_init(&c->parser, NULL);
    c->watch = (struct loop_fd){.fd = fd, .fn = on_conn};
    CHECK_OK(loop_fd_add(l, &c->watch, EPOLLIN, &e), &e);
}

/* The stall: the whole server sleeps once. */
static void on_turn_end(struct loop *l, struct loop_hook *h)
{
    struct server *s = CONTAINER_OF(h, struct server, hook);

    (void)l;
    if (!s->first_ns && s->predictions)
        s->first_ns = time_mono_ns();
    if (s->stall_ns && s->first_ns && time_mono_ns() - s->first_ns >= s->stall_at_ns) {
        usleep((useconds_t)(s->stall_ns / 1000));
        s->stall_ns = 0;
    }
}

static void serve(void *arg)
{
    struct server *s = arg;

    loop_run(s->loop);
}

static bool start(struct server *s)
{
    struct addr any;
    struct err e;
    int fd;

    if (!CHECK_OK(addr_parse(S("127.0.0.1:0"), &any, &e), &e) ||
        !CHECK_OK(listen_open(&any, NULL, &fd, &e), &e) ||
        !CHECK_OK(addr_of_socket(fd, &s->addr, &e), &e) || !CHECK_OK(loop_new(&s->loop, &e), &e) ||
        !CHECK_OK(listener_start(s->loop, &s->listener, fd, on_accept, &e), &e))
        return false;
    s->hook.fn = on_turn_end;
    loop_on_turn_end(s->loop, &s->hook);
    return CHECK_OK(thread_start(&s->thread, "server", THREAD_ANY_CPU, serve, s, &e), &e);
}

static void stop(struct server *s)
{
    loop_stop(s->loop);
    thread_join(&s->thread);
    while (s->conns) {
        struct conn *c = s->conns;

        s->conns = c->next;
        if (c->watch.fd >= 0)
            hang_up(s->loop, c);
        mem_free(c);
    }
    listener_stop(s->loop, &s->listener);
    loop_free(s->loop);
}

/* x is the label, but for every tenth row, where it is wrong. */
static struct load_rows *rows_of(size_t n)
{
    struct load_rows *r = load_rows_new(n, 1);

    r->columns[0].name = S("x");
    r->labels = ARENA_ARRAY(&r->arena, str, n);
    for (size_t i = 0; i < n; i++) {
        r->labels[i] = i % 4 == 0 ? S("1") : S("0");
        r->columns[0].numbers[i] = (i % 4 == 0) != (i % 10 == 3);
    }
    load_rows_classify(r);
    return r;
}

static struct load_config config_of(const struct server *s, const struct load_rows *rows)
{
    return (struct load_config){
        .address = s->addr,
        .form = {.api = LOAD_PREDICT, .target = S("/v1/predict/x"), .host = S("localhost")},
        .reader = {.api = LOAD_PREDICT, .field = S("prediction")},
        .rate = 1000,
        .threads = 1,
        .connections = 8,
        .loop = true,
        .positive = S("1"),
        .seed = 1,
        .rows = rows,
    };
}

static void answers_are_judged_and_labels_return(void)
{
    struct server s = {.feedback_refused = 0};
    AUTO(load_rows_freep) struct load_rows *rows = rows_of(1000);
    AUTO(load_report_freep) struct load_report *r = NULL;
    struct load_config cfg;
    struct err e;

    NEED(start(&s));
    cfg = config_of(&s, rows);
    cfg.requests = 1000;
    cfg.feedback = true;
    cfg.label_delay_ns = 100 * NS_PER_MS;
    CHECK_OK(load_run(&cfg, NULL, &r, &e), &e);
    stop(&s);
    NEED(r);
    CHECK_INT(r->total.requests, 1000);
    CHECK_INT(r->total.ok, 1000);
    CHECK_INT(r->total.failed, 0);
    CHECK_INT(r->total.judged, 1000);
    CHECK_INT(r->total.correct, 900);
    CHECK_INT(r->total.tp, 250);
    CHECK_INT(r->total.fp, 100);
    CHECK_NEAR(load_tally_f1(&r->total), 500.0 / 600, 1e-9);
    CHECK_INT(r->labels_accepted, 1000);
    CHECK_INT(r->labels_failed, 0);
    CHECK_INT(s.labels, 1000);
    CHECK_INT(s.labels_wrong, 0);
}

/*
 * A stall of 600 ms in a run of 3 s at 1000/s: a fifth of all requests was meant to be sent during
 * it and waited, half of them more than 300 ms. A generator that waits for answers before it sends
 * on would have seen it in 8 requests, one for each connection.
 */
static void a_stall_shows_in_full(void)
{
    struct server s = {.stall_at_ns = NS_PER_S, .stall_ns = 600 * NS_PER_MS};
    AUTO(load_rows_freep) struct load_rows *rows = rows_of(100);
    AUTO(load_report_freep) struct load_report *r = NULL;
    struct load_config cfg;
    struct err e;
    uint64_t late;

    NEED(start(&s));
    cfg = config_of(&s, rows);
    cfg.duration_ns = 3 * NS_PER_S;
    CHECK_OK(load_run(&cfg, NULL, &r, &e), &e);
    stop(&s);
    NEED(r);
    CHECK_INT(r->total.ok, 3000);
    CHECK_INT(r->dropped, 0);
    late = latency_above(&r->total.latency, 300 * NS_PER_MS);
    CHECK(late > 250);
    CHECK(latency_quantile_ns(&r->total.latency, 0.99) > 450 * (uint64_t)NS_PER_MS);
    CHECK(r->total.latency.max_ns > 550 * (uint64_t)NS_PER_MS);
}

static void failures_are_counted_by_status(void)
{
    struct server s = {.fail_every = 10};
    AUTO(load_rows_freep) struct load_rows *rows = rows_of(100);
    AUTO(load_report_freep) struct load_report *r = NULL;
    AUTO(buf_done) struct buf json = {0};
    AUTO(arena_done) struct arena a = {0};
    struct load_config cfg;
    struct json *root;
    struct err e;

    NEED(start(&s));
    cfg = config_of(&s, rows);
    cfg.requests = 500;
    cfg.threads = 2;
    CHECK_OK(load_run(&cfg, NULL, &r, &e), &e);
    stop(&s);
    NEED(r);
    CHECK_INT(r->total.ok, 450);
    CHECK_INT(r->total.failed, 50);
    CHECK_INT(r->failures[LOAD_FAIL_STATUS(503)], 50);
    CHECK_STR(str_of(r->first_failure), S("503: busy"));
    buf_init(&json, 16 << 20);
    arena_init(&a, 0);
    load_report_json(&cfg, r, &json);
    NEED_OK(json_parse(buf_str(&json), &a, &root, &e), &e);
    CHECK_INT(json_int_or(json_path(root, "totals.failed_by.503"), 0), 50);
    CHECK_INT(json_get(root, S("per_second"))->count, r->second_count);
}

/* A server may close after any answer: that costs a connection, not a request. */
static void closed_connections_are_made_again(void)
{
    struct server s = {.close_every = 3};
    AUTO(load_rows_freep) struct load_rows *rows = rows_of(100);
    AUTO(load_report_freep) struct load_report *r = NULL;
    struct load_config cfg;
    struct err e;

    NEED(start(&s));
    cfg = config_of(&s, rows);
    cfg.requests = 300;
    CHECK_OK(load_run(&cfg, NULL, &r, &e), &e);
    stop(&s);
    NEED(r);
    CHECK_INT(r->total.ok, 300);
    CHECK_INT(r->total.failed, 0);
}

struct told {
    uint32_t seconds, injected;
    str name;
};

static void on_second(void *arg, const struct load_second *s)
{
    struct told *told = arg;

    CHECK_INT(s->at, told->seconds++);
}

static void on_injected(void *arg, const struct load_phase *phase, int64_t wall_ns)
{
    struct told *told = arg;

    told->injected++;
    CHECK(wall_ns > 0);
    CHECK(phase->injected);
}

/* Every label is 1 or 0; the injection turns the column around for 600 ms. */
static void phases_have_their_own_counts(void)
{
    struct server s = {0};
    struct told told = {0};
    struct load_events events = {.arg = &told, .second = on_second, .injected = on_injected};
    AUTO(load_rows_freep) struct load_rows *rows = rows_of(1000);
    AUTO(load_report_freep) struct load_report *r = NULL;
    struct load_injection in;
    struct load_config cfg;
    struct err e;

    NEED_OK(load_inject_parse(S("at=1s,until=1600ms,column=x,op=set,value=0"), &in, &e), &e);
    NEED(start(&s));
    cfg = config_of(&s, rows);
    cfg.duration_ns = 2500 * NS_PER_MS;
    cfg.injections = &in;
    cfg.injection_count = 1;
    CHECK_OK(load_run(&cfg, &events, &r, &e), &e);
    stop(&s);
    NEED(r);
    NEED(r->phase_count == 3);
    CHECK_STR(r->phases[0].name, S("clean"));
    CHECK_STR(r->phases[2].name, S("clean"));
    CHECK_INT(r->phases[0].tally.requests, 1000);
    CHECK_INT(r->phases[1].tally.requests, 600);
    CHECK_INT(r->phases[2].tally.requests, 900);
    CHECK_NEAR(load_tally_f1(&r->phases[1].tally), 0, 0);
    CHECK_NEAR(load_tally_recall(&r->phases[0].tally), 1, 0);
    CHECK_INT(told.injected, 1);
    CHECK(told.seconds >= 1);
}

static void nobody_listens(void)
{
    AUTO(load_rows_freep) struct load_rows *rows = rows_of(10);
    struct server s = {0};
    struct load_config cfg;
    struct load_report *r;
    struct err e;

    NEED(start(&s));
    cfg = config_of(&s, rows);
    cfg.requests = 10;
    stop(&s);
    CHECK_FAILS(load_run(&cfg, NULL, &r, &e), UNAVAILABLE, &e, "127.0.0.1");
    cfg.rate = 0;
    CHECK_FAILS(load_run(&cfg, NULL, &r, &e), INVALID_ARGUMENT, &e, "rate");
}

RUN_TESTS(T(answers_are_judged_and_labels_return), T(a_stall_shows_in_full),
          T(failures_are_counted_by_status), T(closed_connections_are_made_again),
          T(phases_have_their_own_counts), T(nobody_listens))
