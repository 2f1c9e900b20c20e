/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From requests to notes. What a request brings along (its trace, who asks) is taken down when its
 * exchange begins, into the memory of the exchange; when it is answered, and chosen, all of it goes
 * into the ring of the loop. A gateway without access log and export pays one comparison, and reads
 * a trace only where a crew may have to pass it on.
 *
 * Input anomalies are counted against the cells of the reference, for requests that are told of
 * only, and in the first ANOMALY_VALUES values of a request: a loop has no more time for it.
 */
#include "serve/observe.h"

#include "serve/telemetry/otlp.h"

#include "base/hash.h"
#include "base/time.h"

#define ANOMALY_VALUES 4096

/* --- What a request brings along -------------------------------------------------------------- */

static uint64_t trace_key(const struct trace_context *t)
{
    uint64_t x;

    memcpy(&x, t->trace_id + TRACE_ID_BYTES - sizeof(x), sizeof(x));
    return __builtin_bswap64(x); /* as samplers of OpenTelemetry read it */
}

static void put_random(struct serve_loop *l, unsigned char *to, size_t n)
{
    for (size_t i = 0; i < n; i += sizeof(uint64_t)) {
        uint64_t x = rng_u64(&l->rng) | 1; /* never zero */

        memcpy(to + i, &x, sizeof(x));
    }
}

static void trace_read(struct serve_loop *l, const struct conn *c, struct arena *a,
                       struct tracked *k)
{
    char state[TRACE_STATE_BYTES_MAX];
    size_t n;

    k->has_parent = trace_context_read(&c->req->fields, &k->trace, state, &n);
    k->has_trace = k->has_parent;
    if (k->has_parent)
        k->state = arena_dup(a, (str){state, n});
    if (!l->telemetry || !l->telemetry->exports)
        return;
    if (!k->has_trace) {
        k->has_trace = true;
        put_random(l, k->trace.trace_id, TRACE_ID_BYTES);
        k->trace.flags = l->telemetry->trace_below == UINT64_MAX ||
                         trace_key(&k->trace) < l->telemetry->trace_below;
    }
    k->exported = k->trace.flags & TRACE_SAMPLED;
    if (k->exported)
        put_random(l, k->span_id, TRACE_SPAN_BYTES);
}

static enum note_protocol protocol_of(const struct conn *c)
{
    return c->call ? NOTE_GRPC : c->h2 ? NOTE_HTTP2 : NOTE_HTTP1;
}

static void tracked_fill(struct serve_loop *l, const struct conn *c, struct arena *a,
                         struct tracked *k)
{
    *k = (struct tracked){.protocol = protocol_of(c), .bytes_in = c->req->body.n};
    trace_read(l, c, a, k);
    k->tenant = arena_dup(a, str_take(l->caller.tenant, NOTE_TENANT_BYTES));
    k->caller = arena_dup(a, str_take(l->caller.name, NOTE_CALLER_BYTES));
    if (!k->has_trace)
        return;
    k->run = (struct runtime_trace){.context = k->trace, .state = k->state};
    if (k->exported)
        span_part_id(k->span_id, SPAN_CALL, k->run.context.span_id);
}

void observe_begin(struct serve_loop *l, struct exchange *x)
{
    struct conn *c = x->conn;

    x->tracked = NULL;
    if (LIKELY(!l->telemetry && !(x->off && c->req->fields.known[HTTP1_F_TRACEPARENT])))
        return;
    x->tracked = ARENA_NEW(exchange_arena(l, x), struct tracked);
    tracked_fill(l, c, exchange_arena(l, x), x->tracked);
}

/* --- Anomalies -------------------------------------------------------------------------------- */

static enum note_anomaly outside_of(const struct cells_spec *spec)
{
    return spec->kind == CELLS_CATEGORICAL ? NOTE_UNSEEN : NOTE_OUT_OF_RANGE;
}

static void count_value(struct note *n, const struct cells_spec *spec, const struct tensor *t,
                        size_t at)
{
    uint32_t cell;

    if (t->spec->datatype == TENSOR_BYTES) {
        str text = ((const str *)t->data)[at];

        cell = text.n ? cells_bin_hash(spec, cells_key_str(text)) : cells_missing(spec);
    } else {
        cell = cells_bin_f64(spec, tensor_number_at(t, at));
    }
    if (cell == cells_missing(spec))
        n->anomalies[NOTE_MISSING]++;
    else if (cell == cells_outside(spec))
        n->anomalies[outside_of(spec)]++;
}

static void count_anomalies(struct note *n, const struct exchange *x, const struct tensor *inputs)
{
    const struct record_schema *s = x->version->schema;
    uint32_t rows, column = 0;

    if (!s || !s->cells || !inputs || !s->feature_count)
        return;
    n->counts_anomalies = true;
    rows = MIN(x->rows, ANOMALY_VALUES / s->feature_count + 1);
    for (uint32_t t = 0; t < x->ep->schema.input_count; t++) {
        size_t per_row = (size_t)tensor_row_elements(inputs[t].spec);

        for (size_t i = 0; i < per_row && column < s->feature_count; i++, column++)
            for (size_t row = 0; s->cells[column] && row < rows; row++)
                count_value(n, s->cells[column], &inputs[t], row * per_row + i);
    }
}

/* --- Notes ------------------------------------------------------------------------------------ */

static uint8_t put(char *to, size_t size, str s)
{
    size_t n = MIN(s.n, size);

    while (n < s.n && n && ((unsigned char)s.p[n] & 0xc0) == 0x80)
        n--; /* not in the middle of a character */
    if (n)
        memcpy(to, s.p, n);
    return (uint8_t)n;
}

static void put_tracked(struct note *n, const struct tracked *k)
{
    n->has_trace = k->has_trace;
    n->has_parent = k->has_parent;
    n->exported = k->exported;
    n->protocol = (uint8_t)k->protocol;
    n->bytes_in = k->bytes_in;
    n->trace = k->trace;
    memcpy(n->span_id, k->span_id, sizeof(n->span_id));
    n->tenant_bytes = put(n->tenant, sizeof(n->tenant), k->tenant);
    n->caller_bytes = put(n->caller, sizeof(n->caller), k->caller);
    n->state_bytes = (uint16_t)MIN(k->state.n, sizeof(n->state));
    if (n->state_bytes)
        memcpy(n->state, k->state.p, n->state_bytes);
}

/* Everything but the text fields, which their lengths empty. */
static void clear(struct note *n)
{
    memset(n, 0, offsetof(struct note, id));
    n->end = END_COUNT;
}

static void put_exchange(struct note *n, const struct exchange *x,
                         const struct counter_series *series)
{
    n->wall_ns = x->wall_ns;
    n->series = series;
    n->fallback = x->fb.on ? fallback_reasons[x->fb.reason] : NULL;
    n->form = x->form ? x->form->name : NULL;
    n->rows = x->rows;
    n->id_bytes = put(n->id, sizeof(n->id), (str){x->id, x->id_bytes});
    n->has_user = x->has_user;
    if (x->has_user)
        memcpy(n->user, x->user, sizeof(n->user));
}

static void put_times(struct note *n, const struct exchange_times *t)
{
    n->total_us = t->total_us;
    n->compute_us = MIN(t->compute_us, t->total_us);
    n->queue_us = n->total_us - n->compute_us;
    n->batch_rows = t->batch_rows;
    n->ran_remote = t->ran_in != NULL;
    if (t->ran_in)
        n->ran_in = *t->ran_in;
}

static void commit(struct serve_loop *l)
{
    if (note_commit(l->telemetry->ring))
        telemetry_wake(l->telemetry->t);
}

/* NULL: nobody is to be told. */
static struct note *choose(struct serve_loop *l, const struct exchange *x,
                           const struct counter_series *series, const struct tracked *k,
                           bool failed, uint64_t total_us)
{
    uint64_t key = k->has_trace ? trace_key(&k->trace) : hash64(x->id, x->id_bytes, 0);
    enum note_why why = telemetry_wants(l->telemetry, key, failed, total_us);
    struct note *n;

    if (LIKELY(why == NOTE_NOT_LOGGED && !k->exported))
        return NULL;
    n = note_begin(l->telemetry->ring);
    if (!n)
        return NULL;
    clear(n);
    put_tracked(n, k);
    put_exchange(n, x, series);
    n->why = (uint8_t)why;
    return n;
}

void observe_exchange(struct serve_loop *l, const struct exchange *x, int rc, enum request_end end,
                      const struct tensor *inputs, const struct exchange_times *t)
{
    struct note *n;

    if (LIKELY(!l->telemetry) || !x->tracked)
        return;
    n = choose(l, x, x->version->counters, x->tracked, rc != 0, t->total_us);
    if (!n)
        return;
    put_times(n, t);
    n->end = (uint8_t)end;
    n->code = (uint8_t)rc;
    n->status = (uint16_t)(rc ? code_http_status((enum code)rc) : 200);
    n->bytes_out = l->body.n;
    count_anomalies(n, x, inputs);
    commit(l);
}

void observe_repeated(struct serve_loop *l, const struct exchange *x, const struct replay *r)
{
    uint64_t us = (uint64_t)MAX(time_mono_ns() - x->arrival_ns, 0) / NS_PER_US;
    struct note *n;

    if (LIKELY(!l->telemetry) || !x->tracked)
        return;
    n = choose(l, x, r->series, x->tracked, false, us);
    if (!n)
        return;
    n->total_us = us;
    n->replayed = true;
    n->end = END_OK;
    n->status = 200;
    n->bytes_out = r->body.n;
    commit(l);
}

void observe_refused(struct conn *c, const struct exchange *x, enum request_end end, enum code code,
                     int status, uint64_t us)
{
    struct serve_loop *l = c->l;
    struct tracked k;
    struct note *n;

    if (LIKELY(!l->telemetry))
        return;
    tracked_fill(l, c, &l->turn, &k);
    c->noted = true;
    n = choose(l, x, x->version->counters, &k, true, us);
    if (!n)
        return;
    n->total_us = us;
    n->end = (uint8_t)end;
    n->code = (uint8_t)code;
    n->status = (uint16_t)status;
    commit(l);
}

/* --- Requests to no endpoint ------------------------------------------------------------------ */

static void note_other(struct conn *c, const struct tracked *k, str path, int status,
                       enum code code, size_t bytes_out)
{
    struct serve_loop *l = c->l;
    str id = path.n ? http1_known(&c->req->fields, HTTP1_F_X_REQUEST_ID) : STR_NULL;
    uint64_t key = id.n ? hash64(id.p, id.n, 0) : rng_u64(&l->rng);
    uint64_t us = (uint64_t)MAX(time_mono_ns() - l->now_ns, 0) / NS_PER_US;
    enum note_why why = telemetry_wants(l->telemetry, k->has_trace ? trace_key(&k->trace) : key,
                                        status >= 400 || code != CODE_OK, us);
    struct note *n = why == NOTE_NOT_LOGGED ? NULL : note_begin(l->telemetry->ring);

    if (!n)
        return;
    clear(n);
    put_tracked(n, k);
    n->exported = false; /* a trace has the requests to models */
    n->why = (uint8_t)why;
    n->wall_ns = l->wall_ns;
    n->total_us = us;
    n->code = (uint8_t)code;
    n->status = (uint16_t)status;
    n->bytes_out = bytes_out;
    n->id_bytes = put(n->id, sizeof(n->id), str_is_utf8(id) ? id : STR_NULL);
    n->route_bytes = put(n->route, sizeof(n->route), path);
    commit(l);
}

void observe_answer(struct conn *c, int status, enum code code, size_t bytes_out)
{
    struct tracked k;

    if (LIKELY(!c->l->telemetry) || c->noted)
        return;
    c->noted = true;
    tracked_fill(c->l, c, &c->l->turn, &k);
    note_other(c, &k, c->req->path, status, code, bytes_out);
}

void observe_malformed(struct conn *c, int status)
{
    struct tracked k = {.protocol = c->h2 ? NOTE_HTTP2 : NOTE_HTTP1};

    if (c->l->telemetry)
        note_other(c, &k, STR_NULL, status, CODE_INVALID_ARGUMENT, 0);
}
