/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission: a request that cannot be answered in time is refused at once, for less than it would
 * cost to serve it.
 *
 * Twice. admission_early() asks as soon as the endpoint is known, before the body is unfolded, read
 * or given memory, and refuses only what is certain: whatever deadline and priority the body may
 * ask for, they would not save it. admission_check() asks again with what the request said.
 *
 * What is known of time. The loop knows what the runs that this turn has gathered will cost, and a
 * crew what its jobs will. How long a request has waited in its socket while the loop was busy it
 * cannot see; but the kernel notes when the last data came in (tcp_info), to some milliseconds, and
 * is asked for that where the last turn was long enough for it to matter (conn_read). So the
 * arrival of a request is when its last byte reached this machine. Of the streams of one HTTP/2
 * connection only the last is told exactly; older ones seem younger than they are.
 *
 * The deadline is the arrival and the shortest of: the timeout of the endpoint, the parameter
 * "timeout", grpc-timeout. A run counts only where something waits before it: where nothing does
 * the request is tried, and the cost of a row is measured anew. Else one slow run could close an
 * endpoint for ever.
 *
 * Priority. 1 is the highest. A request asks by the parameter "priority" or the header
 * X-Weir-Priority, as in Triton: 0 and levels that do not exist mean that of the endpoint. Lower
 * may go whoever likes, higher whose role has the permission. The rules:
 *
 *   limits      the lowest may use half of a limit, the highest a quarter more than all of it
 *   deadlines   the lowest must have twice the time that it needs
 *   crews       the higher runs first (crew_queue.c); waiting counts what runs before
 *
 * 503 means that the server is short of something, whoever asks (429: the caller is over a limit of
 * his own), and that it is safe to ask again after Retry-After. 504 where the caller gave too
 * little time even for a server with nothing to do.
 */
#include "serve/priv.h"

#include "base/time.h"

#define LOWEST PLAN_PRIORITIES
#define RETRY_MS_MAX (5 * 60 * 1000)

static const char *const nouns[SHED_COUNT] = {
    [SHED_LATE] = "the request waited until after its deadline before it could be read",
    [SHED_DEADLINE] = "the answer would come after the deadline",
    [SHED_INFLIGHT] = "max_inflight requests are under way",
    [SHED_LIMIT] = "its model has as many requests as it can bear",
    [SHED_QUEUE_FULL] = "the queue of its model is full",
};

/* What a priority may use of a limit. */
static uint32_t share_of(uint32_t limit, uint8_t priority)
{
    static const uint8_t eighths[PLAN_PRIORITIES + 1] = {0, 10, 8, 4};
    uint64_t n = (uint64_t)limit * eighths[priority] / 8;

    return (uint32_t)MAX(n, (uint64_t)1);
}

static int overloaded(const struct served_endpoint *ep, enum shed_reason why, struct err *e)
{
    return FAIL(e, UNAVAILABLE, "endpoint '" STR_F "' is overloaded: %s", STR_A(ep->plan.name),
                nouns[why]);
}

static int refuse(struct conn *c, const struct served_endpoint *ep, enum shed_reason why,
                  int64_t retry_ns, struct err *e)
{
    int64_t ms = (retry_ns + NS_PER_MS - 1) / NS_PER_MS;

    c->shed = why;
    c->retry_ms = (uint32_t)CLAMP(ms, (int64_t)1, (int64_t)RETRY_MS_MAX);
    return overloaded(ep, why, e);
}

int admission_refused(const struct exchange *x, struct err *e)
{
    return overloaded(x->ep, x->shed, e);
}

int admission_queue_full(const struct exchange *x, struct err *e)
{
    return refuse(x->conn, x->ep, SHED_QUEUE_FULL, NS_PER_S, e);
}

/* What is asked for. */
struct demand {
    struct served_version *version;
    uint8_t priority;
    uint32_t rows;
    uint32_t self; /* it is among the exchanges of the turn */
    int64_t arrival_ns, deadline_ns, now_ns;
};

static NODISCARD int check_deadline(struct conn *c, struct served_endpoint *ep,
                                    const struct demand *d, int64_t wait_ns, int64_t run_ns,
                                    struct err *e)
{
    int64_t need_ns = wait_ns + run_ns;

    if (d->now_ns > d->deadline_ns) {
        if (d->now_ns - d->arrival_ns >= CONN_BEHIND_NS)
            return refuse(c, ep, SHED_LATE, 0, e);
        return FAIL(e, DEADLINE_EXCEEDED, "the deadline of %lld us passed before anything was done",
                    (long long)((d->deadline_ns - d->arrival_ns) / NS_PER_US));
    }
    if (!wait_ns)
        return 0;
    if (d->priority == LOWEST)
        need_ns *= 2;
    if (d->now_ns + need_ns > d->deadline_ns)
        return refuse(c, ep, SHED_DEADLINE, d->now_ns + need_ns - d->deadline_ns, e);
    return 0;
}

/* In the turn: what waits before it is what the turn has gathered. */
static NODISCARD int check_turn(struct conn *c, struct served_endpoint *ep, const struct demand *d,
                                struct err *e)
{
    struct serve_loop *l = c->l;
    uint32_t limit = share_of(ep->plan.inflight_max, d->priority) + d->self, inflight = 0;
    int64_t run_ns = (int64_t)(d->rows * d->version->model->lanes[l->index].row_cost_ns);

    TRY(check_deadline(c, ep, d, l->gathered_ns, run_ns, e));
    if (l->exchange_count < limit)
        return 0;
    for (uint32_t i = 0; i < l->exchange_count; i++)
        inflight += l->exchanges[i].ep == ep && !l->exchanges[i].caught;
    return inflight < limit ? 0 : refuse(c, ep, SHED_INFLIGHT, l->gathered_ns, e);
}

static NODISCARD int check_crew(struct conn *c, struct served_endpoint *ep, const struct demand *d,
                                struct err *e)
{
    const struct plan_queue *q = &ep->plan.queue;
    const struct crew *crew = d->version->model->crew;
    uint32_t away = __atomic_load_n(&ep->away, __ATOMIC_RELAXED);
    int64_t wait_ns = crew_wait_ns(crew, d->priority);

    if (away >= share_of(ep->plan.inflight_max, d->priority))
        return refuse(c, ep, SHED_INFLIGHT, wait_ns / 2, e);
    if (q->limit ? away >= share_of(q->limit, d->priority)
                 : crew_jobs(crew) >= share_of(MAX(crew_limit(crew), q->limit_min), d->priority))
        return refuse(c, ep, SHED_LIMIT, wait_ns / 2, e);
    return check_deadline(c, ep, d, wait_ns, crew_run_ns(crew, d->rows), e);
}

static NODISCARD int check(struct conn *c, struct served_endpoint *ep, const struct demand *d,
                           struct err *e)
{
    return ep->in_crew ? check_crew(c, ep, d, e) : check_turn(c, ep, d, e);
}

/* --- What a request says ---------------------------------------------------------------------- */

static bool may_go_first(const struct conn *c)
{
    return c->permissions & MAY(PRIORITY);
}

static uint8_t priority_of(const struct conn *c, const struct served_endpoint *ep, int64_t asked)
{
    uint8_t own = ep->plan.queue.priority;

    if (asked < 1 || asked > PLAN_PRIORITIES || (asked < own && !may_go_first(c)))
        return own;
    return (uint8_t)asked;
}

/* A whole number that is not negative; what is larger than int64 counts as that. */
static bool read_whole(str text, int64_t *ret)
{
    bool digits = text.n > 0;

    for (size_t i = 0; i < text.n; i++)
        digits &= text.p[i] >= '0' && text.p[i] <= '9';
    if (digits && !str_to_i64(text, ret))
        *ret = INT64_MAX;
    return digits;
}

static NODISCARD int read_parameter(str parameters, str name, const char *expected, int64_t *ret,
                                    struct err *e)
{
    str json;

    if (!infer_parameter_get(parameters, name, &json) || read_whole(json, ret))
        return 0;
    return FAIL(e, INVALID_ARGUMENT, "parameter '" STR_F "' is " STR_F ", expected %s", STR_A(name),
                STR_A(str_take(json, 40)), expected);
}

static NODISCARD int header_priority(const struct conn *c, int64_t *ret, struct err *e)
{
    str text = http1_known(&c->req->fields, HTTP1_F_WEIR_PRIORITY);

    if (!text.p || read_whole(text, ret))
        return 0;
    return FAIL(e, INVALID_ARGUMENT,
                "X-Weir-Priority is '" STR_F "', expected 1 (highest) to %d, or 0",
                STR_A(str_take(text, 40)), PLAN_PRIORITIES);
}

int admission_read(struct conn *c, struct exchange *x, str parameters, int64_t timeout_ns,
                   struct err *e)
{
    int64_t timeout_us = 0, priority = 0;

    TRY(header_priority(c, &priority, e));
    if (parameters.n) {
        TRY(read_parameter(parameters, S("timeout"), "microseconds, or 0 for the endpoint's own",
                           &timeout_us, e));
        TRY(read_parameter(parameters, S("priority"), "1 (highest) to 3, or 0", &priority, e));
    }
    x->priority = priority_of(c, x->ep, priority);
    if (timeout_us > 0 && timeout_us < (x->deadline_ns - x->arrival_ns) / NS_PER_US)
        x->deadline_ns = x->arrival_ns + timeout_us * NS_PER_US;
    if (timeout_ns >= 0 && timeout_ns < x->deadline_ns - x->arrival_ns)
        x->deadline_ns = x->arrival_ns + timeout_ns;
    return 0;
}

/* --- The two questions ------------------------------------------------------------------------ */

int admission_early(struct conn *c, struct served_endpoint *ep, int64_t timeout_ns, struct err *e)
{
    int64_t budget_ns = (int64_t)ep->plan.timeout_ns, asked = 0;
    struct demand d = {.version = ep->champion,
                       .priority = 1,
                       .rows = 1,
                       .arrival_ns = c->came_ns,
                       .now_ns = time_mono_ns()};

    if (ep->champion->plan->weight != PLAN_WEIGHT_ONE || fallback_takes_shed(ep))
        return 0; /* another version, or an answer that nobody computes, may save it */
    TRY(header_priority(c, &asked, e));
    if (!may_go_first(c))
        d.priority = priority_of(c, ep, asked);
    if (timeout_ns >= 0)
        budget_ns = MIN(budget_ns, timeout_ns);
    d.deadline_ns = d.arrival_ns + budget_ns;
    return check(c, ep, &d, e);
}

int admission_check(const struct exchange *x, struct err *e)
{
    struct demand d = {.version = x->version,
                       .priority = x->priority,
                       .rows = x->ep->batched ? x->rows : 1,
                       .self = !x->off,
                       .arrival_ns = x->arrival_ns,
                       .deadline_ns = x->deadline_ns,
                       .now_ns = time_mono_ns()};

    return check(x->conn, x->ep, &d, e);
}

int admission_next(struct exchange *x, struct err *e)
{
    const struct plan_queue *q = &x->ep->plan.queue;
    const struct crew *crew = x->version->model->crew;
    int64_t wait_ns = crew_wait_ns(crew, x->priority);

    if (!q->limit && crew_jobs(crew) >= share_of(MAX(crew_limit(crew), q->limit_min), x->priority))
        x->shed = SHED_LIMIT;
    else if (wait_ns && time_mono_ns() + wait_ns > x->fb.until_ns)
        x->shed = SHED_DEADLINE;
    else
        return 0;
    return admission_refused(x, e);
}
