/* SPDX-License-Identifier: Apache-2.0 */
#include "server/gateways.h"

#include "base/files.h"
#include "base/log.h"
#include "base/mem.h"

#include <unistd.h>

static void peer_remove(struct gateway_peer *peer)
{
    struct gateways *g = peer->all;
    struct gateway_peer **at = &g->first;

    while (*at != peer)
        at = &(*at)->next;
    *at = peer->next;
    g->count--;
    link_close(&peer->link);
    mem_free(peer);
}

static void on_closed(struct link *k, const char *why)
{
    struct gateway_peer *peer = CONTAINER_OF(k, struct gateway_peer, link);
    struct gateways *g = peer->all;

    log_event(LOG_WARN, "gateway.left", "gateway=%s reason=\"%s\"", peer->name, why);
    if (peer->name[0]) /* else it never joined */
        g->on_change(g->ctx, peer, false);
    peer_remove(peer);
}

static void text_copy(str s, char *to, size_t size)
{
    if (!str_to_z(str_take(s, size - 1), to, size))
        to[0] = '\0';
}

static void on_hello(struct gateway_peer *peer, str payload)
{
    struct gateways *g = peer->all;
    AUTO(arena_done) struct arena a = {0};
    struct json *hello;
    struct err e;

    arena_init(&a, 1 << 20);
    if (json_parse(payload, &a, &hello, &e)) {
        log_err("gateway.hello", &e);
        return;
    }
    text_copy(json_str_or(json_get(hello, S("gateway")), S("?")), peer->name, sizeof(peer->name));
    text_copy(json_str_or(json_get(hello, S("plan")), S("")), peer->live, sizeof(peer->live));
    peer->pid = json_int_or(json_get(hello, S("pid")), 0);
    peer->port = json_int_or(json_get(hello, S("port")), 0);
    g->on_change(g->ctx, peer, true);
    if (g->plan[0])
        link_send(&peer->link, LINK_PLAN, str_of(g->plan));
}

static void on_plan(struct gateway_peer *peer, str payload, bool live)
{
    struct gateways *g = peer->all;
    AUTO(arena_done) struct arena a = {0};
    struct json *answer;
    struct err e;
    char plan[PLAN_HASH_SIZE];

    arena_init(&a, 1 << 20);
    if (json_parse(payload, &a, &answer, &e)) {
        log_err("gateway.plan", &e);
        return;
    }
    text_copy(json_str_or(json_get(answer, S("plan")), S("")), plan, sizeof(plan));
    memcpy(live ? peer->live : peer->refused, plan, sizeof(plan));
    if (live)
        peer->refused[0] = peer->reason[0] = '\0';
    else
        text_copy(json_str_or(json_get(answer, S("error")), S("")), peer->reason,
                  sizeof(peer->reason));
    g->on_plan(g->ctx, peer, plan, live ? NULL : peer->reason,
               json_real_or(json_get(answer, S("load_ms")), 0));
}

static void on_digest(struct gateway_peer *peer, str payload)
{
    struct gateways *g = peer->all;
    struct digest d;
    struct err e;

    arena_reset(&g->digest_arena);
    if (digest_decode(payload, &g->digest_arena, &d, &e)) {
        log_err("gateway.digest", &e);
        return;
    }
    if (peer->digests && d.sequence > peer->last_sequence + 1)
        peer->lost_digests += d.sequence - peer->last_sequence - 1;
    if (d.disk_failing != peer->disk_failing)
        log_event(d.disk_failing ? LOG_WARN : LOG_INFO, "gateway.disk", "gateway=%s failing=%s",
                  peer->name, d.disk_failing ? "true" : "false");
    peer->disk_failing = d.disk_failing;
    peer->run = d.run;
    peer->last_sequence = d.sequence;
    peer->digests++;
    g->on_digest(g->ctx, peer, &d);
}

static void on_frame(struct link *k, enum link_type type, str payload)
{
    struct gateway_peer *peer = CONTAINER_OF(k, struct gateway_peer, link);

    if (type == LINK_HELLO)
        on_hello(peer, payload);
    else if (type == LINK_PLAN_LIVE || type == LINK_PLAN_REFUSED)
        on_plan(peer, payload, type == LINK_PLAN_LIVE);
    else if (type == LINK_DIGEST)
        on_digest(peer, payload);
}

static void on_accept(struct loop *loop, struct listener *li, int fd, const struct addr *from)
{
    struct gateways *g = CONTAINER_OF(li, struct gateways, listener);
    struct gateway_peer *peer;
    struct err e;

    (void)from;
    if (g->count >= GATEWAYS_MAX) {
        log_event(LOG_WARN, "gateway.refused", "reason=\"%d gateways are connected\"",
                  GATEWAYS_MAX);
        close(fd);
        return;
    }
    peer = mem_zalloc(sizeof(*peer));
    peer->all = g;
    peer->link.on_frame = on_frame;
    peer->link.on_closed = on_closed;
    if (link_open(&peer->link, loop, fd, &e)) {
        log_err("gateway.link", &e);
        close(fd);
        mem_free(peer);
        return;
    }
    peer->next = g->first;
    g->first = peer;
    g->count++;
}

int gateways_open(struct gateways *g, struct loop *loop, const char *state_dir, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct addr at;
    int fd;

    arena_init(&a, 0);
    arena_init(&g->digest_arena, 0);
    g->loop = loop;
    TRY(file_make_dirs(path_join(&a, state_dir, "run"), e));
    TRY(addr_parse(arena_printf(&a, "unix:%s/run/link.sock", state_dir), &at, e));
    TRY(listen_open(&at, NULL, &fd, e));
    return listener_start(loop, &g->listener, fd, on_accept, e);
}

void gateways_close(struct gateways *g)
{
    if (!g->loop)
        return;
    listener_stop(g->loop, &g->listener);
    while (g->first)
        peer_remove(g->first);
    arena_done(&g->digest_arena);
}

void gateways_set_plan(struct gateways *g, str hash)
{
    text_copy(hash, g->plan, sizeof(g->plan));
    for (struct gateway_peer *peer = g->first, *next; peer; peer = next) {
        next = peer->next; /* a broken link leaves the list while it is sent to */
        link_send(&peer->link, LINK_PLAN, hash);
    }
}

void gateways_seal(struct gateways *g)
{
    for (struct gateway_peer *peer = g->first, *next; peer; peer = next) {
        next = peer->next;
        link_send(&peer->link, LINK_SEAL, STR_NULL);
    }
}

void gateways_kept(struct gateways *g, const struct digest_clock *clock)
{
    for (struct gateway_peer *peer = g->first, *next; peer; peer = next) {
        next = peer->next;
        for (uint32_t i = 0; peer->digests && i < clock->n; i++)
            if (clock->at[i].run == peer->run) {
                const uint64_t words[] = {clock->at[i].run, clock->at[i].sequence};

                link_send(&peer->link, LINK_KEPT, (str){(const char *)words, sizeof(words)});
            }
    }
}

bool gateways_all_serve(const struct gateways *g, const char *hash)
{
    for (const struct gateway_peer *peer = g->first; peer; peer = peer->next)
        if (strcmp(peer->live, hash) != 0)
            return false;
    return g->first != NULL;
}
