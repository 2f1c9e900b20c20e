/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a version fails, the next of the chain is asked; the client sees an answer that says so.
 *
 * The failure is not forgotten: before the next version is asked, it is counted and put on record
 * at the version that it is of, with the status that the client would have got. So whoever judges
 * versions by their records (a rollout above all) sees a bad one fail just as if nobody had caught
 * it, and the answer of the next version is on record as that version's. A static answer is no
 * version's: it has counts, and no record but that of the failure before it.
 *
 * Time. A version that another one comes after has its share of what is left of the deadline, one
 * before the static answer all of it but a small rest. Past the deadline of the request nothing is
 * asked any more: it gets the failure.
 */
#include "serve/priv.h"

#include "base/time.h"

#define REST_NS (100 * NS_PER_MS) /* or a quarter: the watchdog comes round every 20 ms */

const char *const fallback_reasons[FALLBACK_REASON_COUNT] = {
#define FALLBACK(name, label, help) label,
#include "serve/fallbacks.def"
#undef FALLBACK
};

const struct event_kind fallback_events = {
    "weir_fallback_total", "Answers that are not those of the version chosen first.", "reason",
    fallback_reasons, FALLBACK_REASON_COUNT};

/* --- When a plan is loaded -------------------------------------------------------------------- */

/* The row of the plan, as often as a request may have rows. */
static void answer_make(struct served_endpoint *ep, struct served_fallback *f, uint32_t loops)
{
    const struct tensor *row = ep->plan.fallback.answer;
    struct served_version *v = ARENA_NEW(&ep->arena, struct served_version);

    f->outputs = ARENA_ARRAY(&ep->arena, struct tensor, ep->schema.output_count);
    for (uint32_t i = 0; i < ep->schema.output_count; i++) {
        struct tensor *to = &f->outputs[i];

        *to = row[i];
        to->cap_bytes = row[i].bytes * ep->plan.rows_max;
        to->data = arena_alloc(&ep->arena, MAX(to->cap_bytes, (size_t)1));
        for (uint32_t r = 0; r < ep->plan.rows_max; r++)
            memcpy((char *)to->data + r * row[i].bytes, row[i].data, row[i].bytes);
    }
    v->text = S(FALLBACK_STATIC);
    v->counters = counters_series(ep->plan.name, v->text, S("fallback"), loops);
    infer_response_plan_init(&v->response, ep->plan.name, v->text, &ep->schema, &ep->arena);
    infer_pb_plan_init(&v->response_pb, ep->plan.name, v->text, &ep->schema, &ep->arena);
    f->answer = f->steps[f->step_count++] = v;
}

static NODISCARD int series_make(struct served_endpoint *ep, struct served_fallback *f,
                                 uint32_t loops, struct err *e)
{
    for (size_t from = 0; from <= ep->version_count; from++)
        for (uint32_t to = 0; to < f->step_count; to++) {
            str labels = arena_printf(
                &ep->arena, "endpoint=\"" STR_F "\",from=\"" STR_F "\",to=\"" STR_F "\"",
                STR_A(ep->plan.name),
                STR_A(from < ep->version_count ? ep->versions[from].text : S("none")),
                STR_A(f->steps[to]->text));

            f->series[from][to] = events_series(&fallback_events, labels, loops);
            if (!f->series[from][to])
                return FAIL(e, RESOURCE_EXHAUSTED, "more than %d series of fallbacks",
                            EVENT_SERIES_MAX);
        }
    return 0;
}

int served_fallback_make(struct served_endpoint *ep, uint32_t loops, struct err *e)
{
    const struct plan_fallback *plan = &ep->plan.fallback;
    struct served_fallback *f;

    if (!plan->on || !ep->champion)
        return 0;
    f = ARENA_NEW(&ep->arena, struct served_fallback);
    f->share = plan->share;
    f->shed = plan->shed;
    f->not_ready = str_eq(ep->champion->plan->arm, S("fallback"));
    for (size_t i = 0; i < plan->version_count; i++)
        for (size_t v = 0; v < ep->version_count; v++)
            if (ep->versions[v].plan->version == plan->versions[i])
                f->steps[f->step_count++] = &ep->versions[v];
    if (plan->answer && ep->batched)
        answer_make(ep, f, loops);
    if (f->answer && !f->answer->counters)
        return FAIL(e, RESOURCE_EXHAUSTED, "more than %d series of counters", COUNTERS_SERIES_MAX);
    TRY(series_make(ep, f, loops, e));
    ep->fallback = f;
    return 0;
}

bool served_fallback_has(const struct served_endpoint *ep, const struct served_version *v)
{
    for (uint32_t i = 0; ep->fallback && i < ep->fallback->step_count; i++)
        if (ep->fallback->steps[i] == v)
            return true;
    return false;
}

/* --- When a request is routed ----------------------------------------------------------------- */

static uint32_t next_step(const struct exchange *x)
{
    const struct served_fallback *f = x->ep->fallback;
    uint32_t i = x->fb.next;

    while (f && i < f->step_count && f->steps[i] == x->fb.from)
        i++;
    return i;
}

int64_t fallback_last_ns(const struct exchange *x)
{
    const struct served_fallback *f = x->ep->fallback;

    if (!f || !f->answer || x->fb.next >= f->step_count)
        return x->deadline_ns;
    return x->deadline_ns - MIN(REST_NS, (x->deadline_ns - x->arrival_ns) / 4);
}

/* When the version at hand has had its part. */
static int64_t part_end_ns(const struct exchange *x, int64_t now_ns)
{
    const struct served_fallback *f = x->ep->fallback;
    uint32_t i = next_step(x);
    int64_t left_ns = x->deadline_ns - now_ns;

    if (i >= f->step_count || left_ns <= 0)
        return x->deadline_ns;
    if (f->steps[i] == f->answer)
        return MAX(fallback_last_ns(x), now_ns);
    return now_ns + (int64_t)((double)left_ns * f->share);
}

void fallback_begin(struct exchange *x, bool named)
{
    const struct served_fallback *f = x->ep->fallback;

    x->fb = (struct exchange_fallback){.from = x->version, .until_ns = x->deadline_ns};
    if (LIKELY(!f))
        return;
    if (named) { /* who asks for a version gets it, or its failure */
        x->fb.next = FALLBACK_STEPS_MAX;
        return;
    }
    if (f->not_ready) {
        x->fb.from = NULL;
        x->fb.reason = FALLBACK_NOT_READY;
        x->fb.on = true;
        while (x->fb.next < f->step_count && f->steps[x->fb.next++] != x->version)
            ;
    }
    x->fb.until_ns = part_end_ns(x, MAX(x->arrival_ns, x->conn->l->now_ns));
}

bool fallback_takes_shed(const struct served_endpoint *ep)
{
    const struct served_fallback *f = ep->fallback;

    return f && f->shed && (ep->in_crew || f->answer);
}

bool fallback_catches_shed(struct exchange *x, int rc, bool with_versions)
{
    const struct served_fallback *f = x->ep->fallback;

    if (rc != CODE_UNAVAILABLE || !f || !f->shed || next_step(x) >= f->step_count ||
        !(with_versions || f->answer) || x->conn->shed == SHED_LATE)
        return false;
    x->caught = true;
    x->shed = x->conn->shed;
    x->conn->retry_ms = 0; /* it is not refused */
    return true;
}

/* --- When a version has failed ---------------------------------------------------------------- */

/* False for what another version would refuse as well. */
static bool reason_of(enum code code, uint8_t *ret_reason)
{
    switch (code) {
    case CODE_INVALID_ARGUMENT:
    case CODE_OUT_OF_RANGE:
        return false;
    case CODE_UNAVAILABLE:
    case CODE_RESOURCE_EXHAUSTED:
        *ret_reason = FALLBACK_UNAVAILABLE;
        return true;
    case CODE_DEADLINE_EXCEEDED:
    case CODE_CANCELLED:
        *ret_reason = FALLBACK_DEADLINE;
        return true;
    default:
        *ret_reason = FALLBACK_FAILED;
        return true;
    }
}

/* Counts and records the failure of the version at hand. */
RUNS_ON(on_loop)
static void leave(struct serve_loop *l, struct exchange *x, enum code code, int64_t now_ns)
{
    int64_t began_ns = x->fb.began_ns ? x->fb.began_ns : x->arrival_ns;
    struct counters *count = &x->version->counters->rows[l->index];
    int status;

    if (code == CODE_CANCELLED)
        code = CODE_DEADLINE_EXCEEDED;
    status = code_http_status(code);
    counters_request(count, exchange_end_of(code), 0,
                     (uint64_t)((now_ns - x->arrival_ns) / NS_PER_US), 0);
    if (code == CODE_UNAVAILABLE)
        counter_add(&count->sheds[x->shed], 1);
    if (l->ring) /* whatever the model calls it, it is not the caller's fault */
        x->fb.position =
            record_exchange(l->ring, x, RECORD_PREDICT, x->version, NULL, NULL, MAX(status, 500),
                            (uint64_t)((now_ns - began_ns) / NS_PER_US));
}

/* What the client would have got is `code`. From the step `at` on, if that is still possible. */
RUNS_ON(on_loop)
static bool go_on(struct serve_loop *l, struct exchange *x, enum code code, uint8_t reason,
                  uint32_t at)
{
    const struct served_fallback *f = x->ep->fallback;
    int64_t now_ns = time_mono_ns();

    if (at >= f->step_count || now_ns >= x->deadline_ns)
        return false;
    if (!x->fb.on)
        x->fb.reason = reason;
    x->fb.on |= f->steps[at] == f->answer; /* then this is the only record of it */
    leave(l, x, code, now_ns);
    x->shed = SHED_MODEL; /* unless the next one is found to be overloaded */
    x->fb.on = true;
    x->fb.next = (uint8_t)(at + 1);
    x->fb.began_ns = now_ns;
    x->version = f->steps[at];
    x->fb.until_ns = part_end_ns(x, now_ns);
    return true;
}

bool fallback_next(struct serve_loop *l, struct exchange *x, enum code code, bool shed)
{
    uint8_t reason = FALLBACK_SHED;

    return x->ep->fallback && (shed || reason_of(code, &reason)) &&
           go_on(l, x, code, reason, next_step(x));
}

bool fallback_answer(struct serve_loop *l, struct exchange *x, enum code code, bool shed)
{
    const struct served_fallback *f = x->ep->fallback;
    uint8_t reason = FALLBACK_SHED;

    return f && f->answer && next_step(x) < f->step_count && (shed || reason_of(code, &reason)) &&
           go_on(l, x, code, reason, f->step_count - 1);
}

bool fallback_is_static(const struct exchange *x)
{
    return !x->version->model;
}

struct tensor *fallback_outputs(struct serve_loop *l, const struct exchange *x)
{
    uint32_t count = x->ep->schema.output_count;
    struct tensor *view = arena_alloc(&l->turn, count * sizeof(*view));

    memcpy(view, x->ep->fallback->outputs, count * sizeof(*view));
    for (uint32_t i = 0; i < count; i++)
        tensor_set_rows(&view[i], x->rows);
    return view;
}

/* --- What is said of it ----------------------------------------------------------------------- */

void fallback_count(const struct serve_loop *l, const struct exchange *x)
{
    const struct served_fallback *f = x->ep->fallback;
    size_t from = x->fb.from ? (size_t)(x->fb.from - x->ep->versions) : x->ep->version_count;

    events_count(f->series[from][x->fb.next - 1], l->index, x->fb.reason);
}

static str from_text(const struct exchange *x)
{
    return x->fb.from ? x->fb.from->text : S("none");
}

void fallback_write(struct json_out *o, const struct exchange *x)
{
    if (!x->fb.on)
        return;
    jo_key(o, S("fallback"));
    jo_object(o);
    jo_kstr(o, S("to"), x->version->text);
    jo_kstr(o, S("from"), from_text(x));
    jo_kstr(o, S("reason"), str_of(fallback_reasons[x->fb.reason]));
    jo_object_end(o);
}

str fallback_parameters(struct serve_loop *l, const struct exchange *x)
{
    if (!x->fb.on)
        return STR_NULL;
    return arena_printf(
        &l->turn,
        "{\"fallback\":\"" STR_F "\",\"fallback_from\":\"" STR_F "\",\"fallback_reason\":\"%s\"}",
        STR_A(x->version->text), STR_A(from_text(x)), fallback_reasons[x->fb.reason]);
}

str fallback_header(struct serve_loop *l, const struct exchange *x)
{
    if (!x->fb.on)
        return STR_NULL;
    return arena_printf(&l->turn, STR_F "; from=" STR_F "; reason=%s", STR_A(x->version->text),
                        STR_A(from_text(x)), fallback_reasons[x->fb.reason]);
}
