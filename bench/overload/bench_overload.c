/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open-loop generator that tells accepted from refused requests:
 *
 *   bench_overload HOST:PORT PATH BODY_FILE RATE SECONDS CONNECTIONS
 *
 * Requests are due at fixed instants, whatever becomes of earlier ones; RATE 0: as soon as a
 * connection is free, which finds the peak. A request that finds no free connection when it is due
 * is not sent and is counted as such: what it would have waited is the client's own. Each line of
 * BODY_FILE is a body; they are sent in turn. Times run from the send to the end of the answer.
 * Prints one line of JSON.
 */
#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"
#include "load/conn.h"
#include "stats/latency.h"

#include <stdio.h>
#include <stdlib.h>

#define BODIES_MAX 4096
#define WARM_NS (NS_PER_S / 2) /* before anything is counted */
#define TIMEOUT_NS (5 * NS_PER_S)

struct client {
    struct load_conn conn;
    struct client *next_idle;
    int64_t sent_ns;
};

static struct {
    struct addr to;
    struct loop *loop;
    struct loop_timer pace;
    struct client *clients, *idle;
    uint32_t client_count;
    str texts[BODIES_MAX]; /* whole requests */
    size_t text_count, next_text;
    double rate;
    int64_t begin_ns, end_ns, due_ns;
    uint64_t due, unsent, other, busy;
    struct latency good, refused;
} run;

static bool is_counted(int64_t sent_ns)
{
    return sent_ns >= run.begin_ns && sent_ns < run.end_ns;
}

static void send_on(struct client *c, int64_t now_ns)
{
    buf_clear(&c->conn.out);
    buf_add_str(&c->conn.out, run.texts[run.next_text++ % run.text_count]);
    run.busy++;
    c->sent_ns = now_ns;
    load_conn_send(&c->conn, now_ns);
}

static void on_done(struct load_conn *conn, int status, enum load_failure failure, str body)
{
    struct client *c = CONTAINER_OF(conn, struct client, conn);
    int64_t now_ns = time_mono_ns(), took_ns = now_ns - c->sent_ns;

    (void)failure, (void)body;
    run.busy--;
    if (is_counted(c->sent_ns)) {
        if (status == 200)
            latency_record(&run.good, (uint64_t)took_ns);
        else if (status == 503)
            latency_record(&run.refused, (uint64_t)took_ns);
        else
            run.other++;
    }
    c->next_idle = run.idle;
    run.idle = c;
}

static void on_pace(struct loop *l, struct loop_timer *t)
{
    int64_t now_ns = time_mono_ns();
    struct client *c;

    while (now_ns < run.end_ns && (run.rate > 0 ? run.due_ns <= now_ns : run.idle != NULL)) {
        run.due += is_counted(now_ns);
        run.due_ns = run.rate > 0 ? run.due_ns + (int64_t)(1e9 / run.rate) : now_ns;
        if (!(c = run.idle)) {
            run.unsent += is_counted(now_ns);
            continue;
        }
        run.idle = c->next_idle;
        send_on(c, now_ns);
    }
    if (now_ns >= run.end_ns && (!run.busy || now_ns > run.end_ns + TIMEOUT_NS)) {
        loop_stop(l);
        return;
    }
    loop_timer_set(l, t, run.rate > 0 ? MAX(run.due_ns, now_ns + 100 * NS_PER_US) : now_ns);
}

static NODISCARD int read_bodies(const char *path, const char *target, struct arena *a,
                                 struct err *e)
{
    str text, line;

    TRY(file_read_all(path, (size_t)64 << 20, a, &text, e));
    while ((line = str_cut(&text, '\n')).n && run.text_count < BODIES_MAX)
        run.texts[run.text_count++] =
            arena_printf(a,
                         "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                         "Content-Length: %zu\r\n\r\n" STR_F,
                         target, line.n, STR_A(line));
    return run.text_count ? 0 : FAIL(e, INVALID_ARGUMENT, "%s holds no body", path);
}

static double ms(const struct latency *l, double q)
{
    return (double)latency_quantile_ns(l, q) / (double)NS_PER_MS;
}

static NODISCARD int work(char **args, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    double seconds = atof(args[5]);

    arena_init(&a, 0);
    TRY(addr_parse(str_of(args[1]), &run.to, e));
    TRY(read_bodies(args[3], args[2], &a, e));
    TRY(loop_new(&run.loop, e));
    run.rate = atof(args[4]);
    run.client_count = (uint32_t)atoi(args[6]);
    run.clients = mem_zalloc(run.client_count * sizeof(struct client));
    for (uint32_t i = 0; i < run.client_count; i++) {
        load_conn_init(&run.clients[i].conn, run.loop, &run.to, on_done, NULL);
        run.clients[i].next_idle = run.idle;
        run.idle = &run.clients[i];
    }
    run.due_ns = time_mono_ns();
    run.begin_ns = run.due_ns + WARM_NS;
    run.end_ns = run.begin_ns + (int64_t)(seconds * (double)NS_PER_S);
    run.pace.fn = on_pace;
    loop_timer_set(run.loop, &run.pace, run.due_ns);
    loop_run(run.loop);
    printf("{\"due\":%llu,\"unsent\":%llu,\"good\":%llu,\"refused\":%llu,\"other\":%llu,"
           "\"goodput\":%.1f,\"good_p50_ms\":%.4f,\"good_p99_ms\":%.4f,\"refused_p50_ms\":%.4f,"
           "\"refused_p99_ms\":%.4f}\n",
           (unsigned long long)run.due, (unsigned long long)run.unsent,
           (unsigned long long)run.good.n, (unsigned long long)run.refused.n,
           (unsigned long long)run.other, (double)run.good.n / seconds, ms(&run.good, 0.5),
           ms(&run.good, 0.99), ms(&run.refused, 0.5), ms(&run.refused, 0.99));
    for (uint32_t i = 0; i < run.client_count; i++)
        load_conn_done(&run.clients[i].conn);
    mem_free(run.clients);
    loop_free(run.loop);
    return 0;
}

int main(int argc, char **argv)
{
    struct err e;

    if (argc != 7) {
        fprintf(stderr, "usage: %s HOST:PORT PATH BODY_FILE RATE SECONDS CONNECTIONS\n", argv[0]);
        return 2;
    }
    if (work(argv, &e)) {
        fprintf(stderr, "%s: %s\n", argv[0], e.msg);
        return 1;
    }
    return 0;
}
