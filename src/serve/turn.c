/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The turn: micro-batching without a delay.
 *
 * While a loop works through the sockets that are ready, requests gather in lanes: the rows of all
 * requests for one model lie side by side in the memory that the model computes on. At the end of
 * the turn each lane is run once. Under light load a turn holds one request and nothing waits for
 * anything; under heavy load turns get longer and runs larger, which is when joining rows pays.
 * There is no timer and no queue that could grow: what is not read yet waits in the sockets, where
 * the client feels it.
 *
 * Shedding. A request that could only be answered after its deadline is refused at once
 * (admission.c): the rows gathered so far by all models, times what a row of each has lately cost,
 * is the wait to expect. So is one above the endpoint's inflight_max.
 *
 * A joint run that fails is repeated request by request, so that one bad input cannot fail others;
 * so is one whose outputs do not have the rows of the inputs, for nobody could tell whose they are.
 *
 * Invariant: a lane's rows [0, lane->rows) belong to exchanges of this turn, in the order of the
 * lane's filling; after turn_flush every lane is empty and exchange_count is 0.
 */
#include "serve/observe.h"

#include "base/hash.h"
#include "base/time.h"

static struct lane *lane_of(struct serve_loop *l, struct served_version *v)
{
    return &v->model->lanes[l->index];
}

/* For runs of a fallback, while `lane_of` holds what others still need. */
static struct lane *beside_of(struct serve_loop *l, struct served_version *v)
{
    struct served_model *m = v->model;

    return &m->lanes[m->lane_count / 2 + 1 + l->index];
}

/* The tensors of the slot from row `at` on. */
static struct tensor *tensors_from(struct serve_loop *l, const struct runtime_slot *slot,
                                   const struct tensor *all, uint32_t count, uint32_t at)
{
    struct tensor *view = arena_alloc(&l->turn, count * sizeof(*view));

    memcpy(view, all, count * sizeof(*view));
    for (uint32_t i = 0; at && i < count; i++) {
        size_t skip = (size_t)at * (size_t)tensor_row_elements(view[i].spec) *
                      tensor_type_bytes(view[i].spec->datatype);

        ASSERT(slot->model->batched && skip <= view[i].cap_bytes);
        view[i].data = (char *)view[i].data + skip;
        view[i].cap_bytes -= skip;
    }
    return view;
}

/* True when a request of the largest size fits into every lane it could be routed to. */
static bool has_room(struct serve_loop *l, struct served_endpoint *ep)
{
    if (l->exchange_count == EXCHANGES_MAX || l->dirty_count + ep->version_count > LANES_DIRTY_MAX)
        return false;
    for (size_t i = 0; i < ep->version_count; i++) {
        struct lane *lane = lane_of(l, &ep->versions[i]);

        if (lane->rows && (!ep->batched || lane->slot->rows_max - lane->rows < ep->plan.rows_max))
            return false;
    }
    return true;
}

static void nothing_to_stop(struct stream_owner *o)
{
    (void)o; /* the answer goes into nothing, and with it the stream */
}

struct stream_owner exchange_in_turn = {nothing_to_stop};

void exchange_begin(struct serve_loop *l, struct exchange *x, struct conn *c,
                    struct served_endpoint *ep)
{
    x->conn = c;
    x->stream = TAKE(c->stream);
    if (x->stream && !x->stream->owner)
        x->stream->owner = &exchange_in_turn;
    x->off = NULL;
    x->tracked = NULL;
    x->shed = SHED_MODEL;
    x->ep = ep;
    x->version = NULL;
    x->replay = NULL;
    x->repeated = NULL;
    x->caught = false;
    x->fb.on = false;
    x->form_state = NULL;
    x->json_bytes = 0;
    x->rows = 0;
    x->has_user = false;
    x->id_bytes = 0;
    x->keep_alive = true;
    x->arrival_ns = c->came_ns;
    x->wall_ns = l->wall_ns;
}

struct exchange *turn_begin(struct serve_loop *l, struct conn *c, struct served_endpoint *ep,
                            struct served_version *read_into, size_t body_bytes,
                            struct tensor **ret_inputs)
{
    struct lane *lane = lane_of(l, read_into);
    struct exchange *x;

    if (ep->in_crew)
        return offload_begin(l, c, ep, body_bytes, ret_inputs);
    if (!has_room(l, ep))
        turn_flush(l);
    x = &l->exchanges[l->exchange_count++];
    exchange_begin(l, x, c, ep);
    observe_begin(l, x);
    c->pending++;
    *ret_inputs =
        tensors_from(l, lane->slot, lane->slot->inputs, ep->schema.input_count, lane->rows);
    return x;
}

struct arena *exchange_arena(struct serve_loop *l, struct exchange *x)
{
    return x->off ? offload_arena(x->off) : &l->turn;
}

/* HTTP/1.1 keeps its buffer still while a crew works, and a stream its body until it is answered;
 * but the messages of a call that streams go with the next bytes that come, and what was unfolded
 * with the turn. */
str exchange_body(struct serve_loop *l, struct exchange *x, str body)
{
    bool streams = x->stream && x->stream->owner != &exchange_in_turn;

    return x->off && (streams || x->conn->unfolded) ? arena_dup(exchange_arena(l, x), body) : body;
}

str exchange_head(const struct exchange *x, int rc)
{
    struct arena *a = &x->conn->l->turn;
    str note = x->repeated ? x->repeated->note : fallback_header(x->conn->l, x);

    if (LIKELY(rc || (!note.n && !x->repeated)))
        return STR_NULL;
    return arena_printf(a, "%s" STR_F "%s%s", note.n ? "X-Weir-Fallback: " : "", STR_A(note),
                        note.n ? "\r\n" : "", x->repeated ? "Idempotent-Replayed: true\r\n" : "");
}

void exchange_respond(struct exchange *x, int rc, const struct err *e, str body)
{
    ROLE_ASSERT(on_loop);
    struct answer a = {.status = rc ? code_http_status((enum code)rc) : 200,
                       .content_type = x->content_type,
                       .request_id = {x->id, x->id_bytes},
                       .json_bytes = x->json_bytes,
                       .keep_alive = x->keep_alive,
                       .coding = x->coding,
                       .body = body};

    (void)e;
    if (!x->conn)
        return;
    a.stream = TAKE(x->stream);
    a.more_head = exchange_head(x, rc);
    conn_respond(x->conn, &a);
}

void turn_drop(struct serve_loop *l, struct exchange *x)
{
    if (x->replay)
        idempotency_drop(x);
    x->conn->stream = TAKE(x->stream); /* its answer is still to be made */
    if (x->off) {
        offload_drop(l, x);
        return;
    }
    ASSERT(x == &l->exchanges[l->exchange_count - 1]);
    x->conn->pending--;
    l->exchange_count--;
}

static void lane_add(struct serve_loop *l, const struct served_version *v, uint32_t rows)
{
    struct lane *lane = &v->model->lanes[l->index];

    if (!lane->rows) {
        ASSERT(l->dirty_count < LANES_DIRTY_MAX);
        l->dirty[l->dirty_count++] = lane;
        lane->failed = false;
        lane->counters = v->counters;
    }
    lane->rows += rows;
    l->gathered_ns += (int64_t)MIN(rows * lane->row_cost_ns, (uint64_t)NS_PER_S);
}

/* Copies rows from the end of one lane to the end of another of the same signature. */
static void rows_move(struct served_endpoint *ep, struct lane *from, struct lane *to, uint32_t rows)
{
    for (uint32_t i = 0; i < ep->schema.input_count; i++) {
        size_t row = (size_t)tensor_row_elements(&ep->schema.inputs[i]) *
                     tensor_type_bytes(ep->schema.inputs[i].datatype);

        memcpy((char *)to->slot->inputs[i].data + to->rows * row,
               (char *)from->slot->inputs[i].data + from->rows * row, rows * row);
    }
}

int exchange_too_late(const struct exchange *x, struct err *e)
{
    return FAIL(e, DEADLINE_EXCEEDED, "the deadline of %lld ms passed before the answer was ready",
                (long long)((x->deadline_ns - x->arrival_ns) / NS_PER_MS));
}

static NODISCARD int exchange_rows_differ(const struct exchange *x, struct err *e)
{
    return FAIL(e, INTERNAL,
                "the model of endpoint '" STR_F "' does not give one row of output for each row of "
                "input",
                STR_A(x->ep->plan.name));
}

static struct served_version *route(struct serve_loop *l, struct served_endpoint *ep, str key)
{
    uint64_t point;

    if (ep->champion->plan->weight == PLAN_WEIGHT_ONE)
        return ep->champion;
    point = key.n ? hash64(key.p, key.n, hash_str(ep->plan.salt, 0)) : rng_u64(&l->rng);

    return served_version_of(ep, plan_route(&ep->plan, (uint32_t)(point % PLAN_WEIGHT_ONE)));
}

void exchange_route(struct serve_loop *l, struct exchange *x, str key)
{
    bool named = x->version;

    if (!named)
        x->version = route(l, x->ep, key);
    fallback_begin(x, named);
}

int turn_commit(struct serve_loop *l, struct exchange *x, struct served_version *read_into,
                uint32_t rows, str sticky_key, struct err *e)
{
    struct lane *from = lane_of(l, read_into), *lane;
    int rc;

    if (x->off)
        return offload_commit(l, x, rows, sticky_key, e);
    exchange_route(l, x, sticky_key);
    ASSERT(rows > 0 && x->version);
    lane = lane_of(l, x->version);
    x->rows = rows;
    rc = admission_check(x, e);
    if (UNLIKELY(rc))
        return fallback_catches_shed(x, rc, false) ? 0 : rc;
    if (lane != from)
        rows_move(x->ep, from, lane, rows);
    x->row_at = lane->rows;
    lane_add(l, x->version, rows);
    return 0;
}

/* --- Running ---------------------------------------------------------------------------------- */

static NODISCARD int lane_run(struct lane *lane, uint32_t rows, int64_t deadline_ns, struct err *e)
{
    int64_t start = time_mono_ns(), cost;
    int rc;

    __atomic_store_n(&lane->run_deadline_ns, deadline_ns, __ATOMIC_RELEASE);
    rc = runtime_run(lane->slot, lane->slot->model->batched ? rows : 0, deadline_ns, e);
    __atomic_store_n(&lane->run_deadline_ns, 0, __ATOMIC_RELEASE);
    lane->run_ns = time_mono_ns() - start;
    cost = lane->run_ns / MAX(rows, 1u);
    lane->row_cost_ns = (lane->row_cost_ns * 7 + (uint64_t)cost) / 8;
    return rc;
}

/* The time the joint run may take: as long as the most patient of its requests would wait; those
 * that are late by then are told so one by one. */
static int64_t latest_deadline(const struct serve_loop *l, const struct lane *lane)
{
    int64_t latest = 0;

    for (uint32_t i = 0; i < l->exchange_count; i++)
        if (l->exchanges[i].version &&
            lane_of((struct serve_loop *)l, l->exchanges[i].version) == lane)
            latest = MAX(latest, l->exchanges[i].fb.until_ns);
    return latest;
}

static void run_lanes(struct serve_loop *l)
{
    struct err e;

    for (uint32_t i = 0; i < l->dirty_count; i++) {
        struct lane *lane = l->dirty[i];

        lane->failed = lane_run(lane, lane->rows, latest_deadline(l, lane), &e) ||
                       !runtime_rows_match(lane->slot, lane->rows);
        counter_add(&l->counters.batches, 1);
        counter_add(&l->counters.batched_rows, lane->rows);
        counters_batch(&lane->counters->rows[l->index], lane->rows);
    }
    l->ran_ns = time_mono_ns();
}

/* Runs one request alone: its rows move to the front of the lane. Those of earlier exchanges are
 * done with, and those of later ones lie behind. */
static NODISCARD int run_alone(struct exchange *x, struct lane *lane, struct err *e)
{
    for (uint32_t i = 0; x->row_at && i < x->ep->schema.input_count; i++) {
        size_t row = (size_t)tensor_row_elements(&x->ep->schema.inputs[i]) *
                     tensor_type_bytes(x->ep->schema.inputs[i].datatype);
        char *data = lane->slot->inputs[i].data;

        memmove(data, data + x->row_at * row, x->rows * row);
    }
    x->row_at = 0;
    return lane_run(lane, x->rows, x->fb.until_ns, e);
}

/* Runs one request whose version was another's fallback, in the lane that is kept for that: the
 * outputs of this turn's runs are still needed. */
static NODISCARD int run_beside(const struct exchange *x, const struct tensor *inputs,
                                struct lane *lane, struct err *e)
{
    runtime_slot_put(lane->slot, inputs, x->rows, 0);
    TRY(lane_run(lane, x->rows, x->fb.until_ns, e));
    return runtime_rows_match(lane->slot, x->rows) ? 0 : exchange_rows_differ(x, e);
}

/* --- Answering -------------------------------------------------------------------------------- */

enum request_end exchange_end_of(enum code code)
{
    switch (code) {
    case CODE_OK:
        return END_OK;
    case CODE_DEADLINE_EXCEEDED:
    case CODE_CANCELLED:
        return END_DEADLINE;
    case CODE_UNAVAILABLE:
        return END_SHED;
    case CODE_INVALID_ARGUMENT:
    case CODE_OUT_OF_RANGE:
        return END_INVALID;
    default:
        return END_FAILED;
    }
}

static NODISCARD int exchange_run(struct serve_loop *l, struct exchange *x, struct lane *lane,
                                  struct err *e)
{
    if (lane->failed) {
        TRY(run_alone(x, lane, e));
        l->ran_ns = time_mono_ns();
        if (x->version->schema && !runtime_rows_match(lane->slot, x->rows))
            return exchange_rows_differ(x, e);
    }
    if (l->ran_ns > x->deadline_ns)
        return exchange_too_late(x, e);
    return 0;
}

/* The rows of x in the outputs of the run that it was part of. Where their number is not that of
 * the input (then x ran alone), all of them. */
static struct tensor *outputs_of(struct serve_loop *l, const struct exchange *x,
                                 const struct lane *lane)
{
    uint32_t count = x->ep->schema.output_count, run_rows = lane->failed ? x->rows : lane->rows;
    struct tensor *view = arena_alloc(&l->turn, count * sizeof(*view));

    memcpy(view, lane->slot->outputs, count * sizeof(*view));
    if (!runtime_rows_match(lane->slot, run_rows))
        return view;
    for (uint32_t i = 0; x->ep->batched && i < count; i++) {
        size_t row = view[i].count / run_rows, size = tensor_type_bytes(view[i].spec->datatype);

        view[i].data = (char *)view[i].data + x->row_at * row * size;
        view[i].shape[0] = x->rows;
        view[i].count = x->rows * row;
        view[i].bytes = view[i].count * size;
    }
    return view;
}

/* Writes the body of the answer, or of the error that `e` already is or now becomes. */
static int exchange_write(struct serve_loop *l, struct exchange *x, const struct tensor *outputs,
                          int rc, struct err *e)
{
    buf_clear(&l->body);
    x->content_type = "application/json";
    if (!rc)
        rc = x->form->write(l, x, outputs, &l->body, e);
    if (!rc)
        return 0;
    if (e->code == CODE_CANCELLED)
        e->code = CODE_DEADLINE_EXCEEDED;
    x->json_bytes = 0;
    buf_clear(&l->body);
    infer_error_write(&l->body, e);
    return (int)e->code;
}

/* Puts x on record. Where the answer may not go out without its record, it waits for the disk, or
 * fails when there is no room even in memory. */
RUNS_ON(on_loop)
static NODISCARD int exchange_record(struct serve_loop *l, struct exchange *x, int rc,
                                     const struct tensor *inputs, const struct tensor *outputs,
                                     uint64_t latency_us, struct err *e)
{
    uint64_t position;

    if (!l->ring)
        return rc;
    if (fallback_is_static(x))
        position = x->fb.position;
    else
        position =
            record_exchange(l->ring, x, RECORD_PREDICT, x->version, inputs, rc ? NULL : outputs,
                            rc ? code_http_status((enum code)rc) : 200, latency_us);
    if (!x->ep->plan.durable_log || !x->conn)
        return rc;
    if (position)
        conn_hold(x->conn, position);
    else if (!rc)
        return FAIL(e, UNAVAILABLE, "the record of the answer found no room: send it again");
    return rc;
}

void exchange_answer(struct serve_loop *l, struct exchange *x, int rc, struct err *e,
                     const struct tensor *inputs, const struct tensor *outputs,
                     const struct exchange_times *t)
{
    struct counters *count = &x->version->counters->rows[l->index];
    uint64_t before_us =
        x->fb.began_ns ? (uint64_t)((x->fb.began_ns - x->arrival_ns) / NS_PER_US) : 0;
    int recorded;

    rc = exchange_write(l, x, outputs, rc, e);
    recorded =
        exchange_record(l, x, rc, inputs, outputs, t->total_us - MIN(before_us, t->total_us), e);
    if (recorded != rc)
        rc = exchange_write(l, x, NULL, recorded, e);
    observe_exchange(l, x, rc, exchange_end_of((enum code)rc), inputs, t);
    if (x->replay)
        idempotency_end(l, x, rc, buf_str(&l->body));
    x->form->respond(x, rc, e, buf_str(&l->body));
    if (!rc && UNLIKELY(x->fb.on))
        fallback_count(l, x);
    if (!rc && x->ep->shadow && inputs)
        shadow_offer(gateway_shadow(l->gw), l, x, inputs);
    counters_request(count, exchange_end_of((enum code)rc), x->rows, t->total_us, t->compute_us);
    if (rc == CODE_UNAVAILABLE)
        counter_add(&count->sheds[x->shed], 1);
    counter_set(&count->last_ms, (uint64_t)(l->wall_ns / NS_PER_MS));
}

/* Goes down the chain until something answers; *inputs are those of the version that failed, and
 * become those of the one that does. */
RUNS_ON(on_loop)
static NODISCARD int exchange_catch(struct serve_loop *l, struct exchange *x, int rc,
                                    struct tensor **inputs, struct tensor **ret_outputs,
                                    struct lane **ret_lane, struct err *e)
{
    while (rc && fallback_next(l, x, (enum code)rc, false)) {
        struct lane *lane;

        if (fallback_is_static(x)) {
            *inputs = NULL;
            *ret_outputs = fallback_outputs(l, x);
            return 0;
        }
        lane = beside_of(l, x->version);
        rc = run_beside(x, *inputs, lane, e);
        l->ran_ns = time_mono_ns();
        if (!rc && l->ran_ns > x->deadline_ns)
            rc = exchange_too_late(x, e);
        *inputs = lane->slot->inputs;
        *ret_outputs = lane->slot->outputs;
        *ret_lane = lane;
    }
    return rc;
}

static struct exchange_times turn_times(const struct serve_loop *l, const struct exchange *x,
                                        int64_t run_ns, uint32_t batch_rows)
{
    return (struct exchange_times){.total_us = (uint64_t)((l->ran_ns - x->arrival_ns) / NS_PER_US),
                                   .compute_us = (uint64_t)(run_ns / NS_PER_US),
                                   .batch_rows = batch_rows};
}

/* What was refused at the door, and gets a static answer in its place among the others. */
RUNS_ON(on_loop) static void exchange_finish_shed(struct serve_loop *l, struct exchange *x)
{
    struct exchange_times t = turn_times(l, x, 0, 0);
    struct err e;
    int rc = admission_refused(x, &e);

    if (fallback_answer(l, x, (enum code)rc, true))
        rc = 0;
    exchange_answer(l, x, rc, &e, NULL, rc ? NULL : fallback_outputs(l, x), &t);
    x->conn->pending--;
}

RUNS_ON(on_loop) static void exchange_finish(struct serve_loop *l, struct exchange *x)
{
    struct lane *lane = lane_of(l, x->version);
    struct tensor *inputs, *outputs;
    struct exchange_times t;
    struct err e = {.code = CODE_OK};
    uint32_t batch_rows;
    int rc;

    if (UNLIKELY(x->caught)) {
        exchange_finish_shed(l, x);
        return;
    }
    rc = exchange_run(l, x, lane, &e);
    inputs = tensors_from(l, lane->slot, lane->slot->inputs, x->ep->schema.input_count, x->row_at);
    outputs = rc ? NULL : outputs_of(l, x, lane);
    batch_rows = lane->failed ? x->rows : lane->rows;
    if (UNLIKELY(rc)) {
        rc = exchange_catch(l, x, rc, &inputs, &outputs, &lane, &e);
        batch_rows = x->rows;
    }
    t = turn_times(l, x, lane->run_ns, batch_rows);
    exchange_answer(l, x, rc, &e, inputs, rc ? NULL : outputs, &t);
    x->conn->pending--;
}

void turn_flush(struct serve_loop *l)
{
    if (!l->exchange_count)
        return;
    run_lanes(l);
    for (uint32_t i = 0; i < l->exchange_count; i++)
        exchange_finish(l, &l->exchanges[i]);
    for (uint32_t i = 0; i < l->dirty_count; i++)
        l->dirty[i]->rows = 0;
    l->dirty_count = 0;
    l->exchange_count = 0;
    l->gathered_ns = 0;
}
