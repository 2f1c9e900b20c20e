/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others ask of flows: start, event, cancel, pause, resume, retry. Each is a small transaction
 * that joins the caller's, and none waits for a worker: it changes the row, and the commit wakes
 * the runner. A row that a worker holds keeps its lease; the worker sees the wish at its
 * checkpoint.
 */
#include "flow/priv.h"

#include "base/time.h"

int flow_json_text(const char *what, const struct json *node, struct buf *out, struct err *e)
{
    if (node)
        json_write_canonical(out, node);
    else
        buf_add_str(out, S("{}"));
    if (out->overflowed)
        return FAIL(e, INVALID_ARGUMENT, "flow: %s has more than %zu bytes", what, FLOW_INPUT_MAX);
    return 0;
}

static int not_found(str id, struct err *e)
{
    return FAIL(e, NOT_FOUND, "flow '" STR_F "' does not exist", STR_A(id));
}

/* Tells why an update met no row: the flow is missing, or its state does not allow it. */
static int refuse(struct meta *m, str id, const char *what, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;

    TRY(meta_first(m, "SELECT state FROM wf WHERE id = ?", M_ARGS(M_STR(id)), &rows, e));
    if (!rows)
        return not_found(id, e);
    return FAIL(e, FAILED_PRECONDITION, "flow '" STR_F "' is " STR_F ": it cannot be %s", STR_A(id),
                STR_A(meta_str(rows, 0)), what);
}

/* ----- Starting ----- */

static int insert(struct meta *m, const struct flow_start *start, str id, str input, struct err *e)
{
    int64_t now = time_wall_ns();

    return meta_exec(
        m,
        "INSERT INTO wf (id, type, state, step, seq, input, result, error_code, error, owner,"
        " fence, due_ns, wait_event, attempts, crashes, paused, cancel, cancel_reason, dedup_key,"
        " parent, correlation, step_started_ns, created_ns, updated_ns) VALUES (?, ?, ?, '', 1, ?,"
        " 'null', 0, '', '', 0, ?, '', 0, 0, 0, 0, '', ?, ?, ?, 0, ?, ?) ON CONFLICT DO NOTHING",
        M_ARGS(M_STR(id), M_STR(str_of(start->type)),
               M_STR(start->start_at_ns > now ? S("sleeping") : S("pending")), M_STR(input),
               M_INT(start->start_at_ns ? start->start_at_ns : now),
               M_STR_OR_NULL(start->dedup_key), M_STR_OR_NULL(start->parent),
               M_STR(start->correlation.n ? start->correlation : id), M_INT(now), M_INT(now)),
        e);
}

int flow_start(struct meta *m, const struct flow_start *start, struct flow_started *ret_started,
               struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    AUTO(buf_done) struct buf input = {0};
    struct flow_started started = {0};

    buf_init(&input, FLOW_INPUT_MAX);
    if (!str_is_name(str_of(start->type)))
        return FAIL(e, INVALID_ARGUMENT, "flow type '%s' is not a name", start->type);
    if (start->input && start->input->type != JSON_OBJECT)
        return FAIL(e, INVALID_ARGUMENT, "flow %s: input is not an object", start->type);
    TRY(flow_json_text("input", start->input, &input, e));
    uuid_v7(time_wall_ns(), started.id);
    TRY(meta_begin(m, &tx, e));
    TRY(insert(m, start, str_of(started.id), buf_str(&input), e));
    if (meta_changes(m) == 0) {
        started.existing = true;
        TRY(flow_find(m, start->dedup_key, started.id, e));
        ASSERT(started.id[0]);
    }
    meta_touch(m, META_TOPIC_FLOW);
    TRY(meta_commit(&tx, e));
    *ret_started = started;
    return 0;
}

/* ----- Events ----- */

int flow_event_put(struct meta *m, str id, str name, str payload, bool *ret_first, struct err *e)
{
    int64_t now = time_wall_ns();

    TRY(meta_exec(m,
                  "INSERT INTO wf_event (wf_id, name, payload, at_ns) VALUES (?, ?, ?, ?)"
                  " ON CONFLICT (wf_id, name) DO NOTHING",
                  M_ARGS(M_STR(id), M_STR(name), M_STR(payload), M_INT(now)), e));
    *ret_first = meta_changes(m) == 1;
    if (!*ret_first)
        return 0;
    TRY(meta_exec(m,
                  "UPDATE wf SET state = 'pending', due_ns = ?, wait_event = '', updated_ns = ?"
                  " WHERE id = ? AND state = 'waiting' AND wait_event = ?",
                  M_ARGS(M_INT(now), M_INT(now), M_STR(id), M_STR(name)), e));
    meta_touch(m, META_TOPIC_FLOW);
    return 0;
}

int flow_event(struct meta *m, str id, str name, const struct json *payload, bool *ret_first,
               struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    AUTO(buf_done) struct buf text = {0};
    int64_t open;
    bool first;

    buf_init(&text, FLOW_INPUT_MAX);
    if (!str_is_name(name))
        return FAIL(e, INVALID_ARGUMENT, "event '" STR_F "' is not a name", STR_A(name));
    TRY(flow_json_text("payload", payload, &text, e));
    TRY(meta_begin(m, &tx, e));
    TRY(meta_first_int(m, "SELECT COUNT(*) FROM wf WHERE id = ? AND ended_ns IS NULL",
                       M_ARGS(M_STR(id)), 0, &open, e));
    if (!open) { /* nothing was written: a refusal must not doom the caller's transaction */
        TRY(meta_commit(&tx, e));
        return refuse(m, id, "sent an event", e);
    }
    TRY(flow_event_put(m, id, name, buf_str(&text), &first, e));
    TRY(meta_commit(&tx, e));
    if (ret_first)
        *ret_first = first;
    return 0;
}

/* ----- Steering ----- */

int flow_cancel(struct meta *m, str id, str reason, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    int64_t now = time_wall_ns(), open;

    TRY(meta_begin(m, &tx, e));
    TRY(meta_first_int(m, "SELECT COUNT(*) FROM wf WHERE id = ? AND ended_ns IS NULL",
                       M_ARGS(M_STR(id)), 0, &open, e));
    if (!open)
        return refuse(m, id, "cancelled", e);
    TRY(meta_exec(m,
                  "WITH RECURSIVE family (id) AS (SELECT wf.id FROM wf WHERE wf.id = ? UNION"
                  " SELECT wf.id FROM wf JOIN family ON wf.parent = family.id)"
                  " UPDATE wf SET cancel = 1, cancel_reason = ?, updated_ns = ?,"
                  " due_ns = CASE WHEN state = 'running' THEN due_ns ELSE ? END,"
                  " state = CASE WHEN state = 'running' THEN state ELSE 'pending' END"
                  " WHERE id IN (SELECT id FROM family) AND ended_ns IS NULL AND cancel = 0",
                  M_ARGS(M_STR(id), M_STR(reason), M_INT(now), M_INT(now)), e));
    meta_touch(m, META_TOPIC_FLOW);
    return meta_commit(&tx, e);
}

static int set_paused(struct meta *m, str id, bool paused, struct err *e)
{
    TRY(meta_exec(m, "UPDATE wf SET paused = ?, updated_ns = ? WHERE id = ? AND ended_ns IS NULL",
                  M_ARGS(M_INT(paused), M_INT(time_wall_ns()), M_STR(id)), e));
    if (meta_changes(m) == 0)
        return refuse(m, id, paused ? "paused" : "resumed", e);
    meta_touch(m, META_TOPIC_FLOW);
    return 0;
}

int flow_pause(struct meta *m, str id, struct err *e)
{
    return set_paused(m, id, true, e);
}

int flow_resume(struct meta *m, str id, struct err *e)
{
    return set_paused(m, id, false, e);
}

/* The dedup key comes back into force, so another flow may be in the way. */
static int check_key_is_free(struct meta *m, str id, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;

    TRY(meta_first(m,
                   "SELECT other.id FROM wf JOIN wf other ON other.dedup_key = wf.dedup_key"
                   " WHERE wf.id = ? AND other.ended_ns IS NULL",
                   M_ARGS(M_STR(id)), &rows, e));
    if (rows)
        return FAIL(e, FAILED_PRECONDITION,
                    "flow '" STR_F "': flow '" STR_F "' has taken its place: cancel that first",
                    STR_A(id), STR_A(meta_str(rows, 0)));
    return 0;
}

int flow_retry(struct meta *m, str id, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    int64_t now = time_wall_ns();
    int64_t ended;

    TRY(meta_begin(m, &tx, e));
    TRY(meta_first_int(m, "SELECT COUNT(*) FROM wf WHERE id = ? AND state IN ('dead', 'failed')",
                       M_ARGS(M_STR(id)), 0, &ended, e));
    if (!ended)
        return refuse(m, id, "tried again", e);
    TRY(check_key_is_free(m, id, e));
    TRY(meta_exec(m,
                  "UPDATE wf SET state = 'pending', due_ns = ?, attempts = 0, crashes = 0,"
                  " error_code = 0, error = '', ended_ns = NULL, updated_ns = ? WHERE id = ?",
                  M_ARGS(M_INT(now), M_INT(now), M_STR(id)), e));
    meta_touch(m, META_TOPIC_FLOW);
    return meta_commit(&tx, e);
}

int flow_prune(struct meta *m, int64_t ended_before_ns, int64_t *ret_n, struct err *e)
{
    TRY(meta_exec(m, "DELETE FROM wf WHERE ended_ns < ?", M_ARGS(M_INT(ended_before_ns)), e));
    *ret_n = meta_changes(m);
    return 0;
}

/* Dates without an end (INT64_MAX: waits for an event alone) stay. */
int flow_clock_stepped(struct meta *m, int64_t by_ns, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    TRY(meta_begin(m, &tx, e));
    TRY(meta_exec(m, "UPDATE wf SET due_ns = due_ns + ? WHERE ended_ns IS NULL AND due_ns < ?",
                  M_ARGS(M_INT(by_ns), M_INT(INT64_MAX / 2)), e));
    meta_touch(m, META_TOPIC_FLOW);
    return meta_commit(&tx, e);
}
