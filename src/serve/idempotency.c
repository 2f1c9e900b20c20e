/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repeated requests of endpoints that keep their answers (serve/replay.h).
 *
 * A request takes its id when it has been read, before it is routed: what is not valid takes none.
 * An answer is kept as the bytes that its protocol form made of it, before they are compressed;
 * a failure is forgotten, so that a repeat tries again. A repeat while the first is under way is
 * refused (ABORTED, Retry-After) and does not wait: it may have come in on another loop, waiting
 * would hold all that is behind it on its connection, and who repeats knows how to do it again.
 *
 * An id is the caller's own: it counts together with the key or the subject that asked. On an open
 * gateway all callers are one. Only ids that clients gave take part.
 */
#include "serve/observe.h"

#include "base/time.h"

#define KEY_MAX 512

enum result { STORED, REPLAYED, IN_FLIGHT, CONFLICT, EVICTED, NOT_KEPT, RESULT_COUNT };

static const char *const results[RESULT_COUNT] = {"stored",   "replayed", "in_flight",
                                                  "conflict", "evicted",  "not_kept"};

const struct event_kind idempotency_events = {"weir_idempotency_total",
                                              "What became of request ids in idempotency windows.",
                                              "result", results, RESULT_COUNT};

/* --- When a plan is loaded -------------------------------------------------------------------- */

int served_window_make(struct served_endpoint *ep, struct served_endpoint *previous, uint32_t loops,
                       struct err *e)
{
    if (!ep->plan.idempotency.window_ns || ep->plan.durable_log) /* the disk may take it back */
        return 0;
    ep->window = replay_window_new(&ep->plan.idempotency, previous ? previous->window : NULL);
    ep->window_events = events_series(
        &idempotency_events,
        arena_printf(&ep->arena, "endpoint=\"" STR_F "\"", STR_A(ep->plan.name)), loops);
    if (!ep->window_events)
        return FAIL(e, RESOURCE_EXHAUSTED, "more than %d series of events", EVENT_SERIES_MAX);
    return 0;
}

/* --- Requests --------------------------------------------------------------------------------- */

static void count(const struct serve_loop *l, const struct exchange *x, enum result result)
{
    events_count(x->ep->window_events, l->index, result);
}

static void add_part(struct sha256 *h, str part)
{
    uint64_t n = part.n; /* so that parts cannot run into each other */

    sha256_add(h, &n, sizeof(n));
    sha256_add(h, part.p, part.n);
}

/* All that an answer to the request depends on. */
static void fingerprint_of(const struct conn *c, const struct exchange *x, str body,
                           unsigned char ret[SHA256_BYTES])
{
    struct sha256 h;

    sha256_begin(&h);
    add_part(&h, str_of(x->form->name));
    add_part(&h, x->version ? x->version->text : STR_NULL);
    add_part(&h, c->call ? STR_NULL : http1_known(&c->req->fields, HTTP1_F_INFERENCE_LENGTH));
    add_part(&h, body);
    sha256_end(&h, ret);
}

static str key_of(const struct conn *c, const struct exchange *x, char to[KEY_MAX])
{
    const struct guard_caller *who = &c->caller;
    uint8_t key_bytes = (uint8_t)MIN(who->key.n, (size_t)255);
    size_t n = 0;

    memcpy(to, &who->subject, sizeof(who->subject));
    n += sizeof(who->subject);
    to[n++] = (char)key_bytes;
    memcpy(to + n, key_bytes ? who->key.p : "", key_bytes);
    n += key_bytes;
    memcpy(to + n, x->id, x->id_bytes);
    return (str){to, n + x->id_bytes};
}

/* The stored answer, in the place of x, which is dropped. */
RUNS_ON(on_loop) static void answer_again(struct conn *c, struct exchange *x, struct replay *r)
{
    struct exchange again = *x;

    observe_repeated(c->l, x, r);
    turn_drop(c->l, x);
    if (c->pending) /* earlier requests first */
        turn_flush(c->l);
    again.stream = TAKE(c->stream);
    again.off = NULL;
    again.repeated = r;
    again.content_type = r->content_type;
    again.json_bytes = r->json_bytes;
    again.form->respond(&again, 0, NULL, r->body);
    replay_unref(r);
}

int idempotency_begin(struct conn *c, struct exchange *x, str body, bool *ret_done, struct err *e)
{
    unsigned char fingerprint[SHA256_BYTES];
    struct replay *r;
    char key[KEY_MAX];

    fingerprint_of(c, x, body, fingerprint);
    switch (replay_begin(x->ep->window, key_of(c, x, key), fingerprint, c->l->now_ns, &r)) {
    case REPLAY_NEW:
        x->replay = r;
        return 0;
    case REPLAY_ANSWER:
        count(c->l, x, REPLAYED);
        *ret_done = true;
        answer_again(c, x, r);
        return 0;
    case REPLAY_RUNNING:
        count(c->l, x, IN_FLIGHT);
        if (!c->call)
            c->more_head = S("Retry-After: 1\r\n");
        return FAIL(e, ABORTED, "request id '" STR_F "' is being answered: repeat it in a moment",
                    x->id_bytes, x->id);
    case REPLAY_CONFLICT:
        count(c->l, x, CONFLICT);
        return FAIL(e, ALREADY_EXISTS,
                    "request id '" STR_F "' was used for another request: ids are for one request "
                    "and its repeats",
                    x->id_bytes, x->id);
    case REPLAY_NO_MEMORY:
        count(c->l, x, NOT_KEPT);
        break;
    }
    return 0;
}

void idempotency_end(struct serve_loop *l, struct exchange *x, int rc, str body)
{
    struct replay *r = TAKE(x->replay);
    uint32_t evicted = 0;

    if (rc) {
        replay_forget(x->ep->window, r);
        return;
    }
    r->series = x->version->counters;
    count(l, x,
          replay_keep(x->ep->window, r, x->content_type, x->json_bytes, fallback_header(l, x), body,
                      time_mono_ns(), &evicted)
              ? STORED
              : NOT_KEPT);
    while (evicted--)
        count(l, x, EVICTED);
}

void idempotency_drop(struct exchange *x)
{
    replay_forget(x->ep->window, TAKE(x->replay));
}

/* --- Metrics ---------------------------------------------------------------------------------- */

static void write_gauge(struct buf *to, const struct served_plan *plan, const char *name,
                        const char *help, size_t at)
{
    bool begun = false;

    for (size_t i = 0; i < plan->endpoint_count; i++) {
        const struct served_endpoint *ep = plan->endpoints[i];
        struct replay_stats stats;
        uint64_t value;

        if (!ep->window)
            continue;
        replay_window_stats(ep->window, &stats);
        memcpy(&value, (const char *)&stats + at, sizeof(value));
        if (!begun)
            buf_printf(to, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name);
        begun = true;
        buf_printf(to, "%s{endpoint=\"" STR_F "\"} %llu\n", name, STR_A(ep->plan.name),
                   (unsigned long long)value);
    }
}

void idempotency_write_metrics(struct buf *to, const struct served_plan *plan)
{
    events_write_metrics(to, &idempotency_events);
    if (!plan)
        return;
    write_gauge(to, plan, "weir_idempotency_entries", "Answers that are kept.",
                offsetof(struct replay_stats, entries));
    write_gauge(to, plan, "weir_idempotency_bytes", "Their memory.",
                offsetof(struct replay_stats, bytes));
}
