/* SPDX-License-Identifier: Apache-2.0 */
/* Flows on the virtual clock: verdicts, retries, timers, events, families, fences, faults. */
#include "flow/flow.h"

#include "base/files.h"
#include "base/time.h"
#include "check.h"
#include "journal/journal.h"

#include <errno.h>
#include <unistd.h>

#define T0 (INT64_C(1700000000) * NS_PER_S)

static char dir[64];
static struct meta_store *store;
static struct meta *m;
static struct err e;

static void open_fresh(void)
{
    static unsigned count;
    char command[128];

    snprintf(dir, sizeof(dir), "%s/weir-flow-%d-%u", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm",
             (int)getpid(), count++);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
    time_test_virtual(0, T0);
    CHECK_OK(meta_store_open(dir, NULL, &store, &e), &e);
    CHECK_OK(meta_open(store, &m, &e), &e);
}

static void close_and_drop(void)
{
    char command[128];

    meta_close(TAKE(m));
    meta_store_close(TAKE(store));
    time_test_real();
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
}

static struct flow_engine *engine_for(const struct flow_type *type, void *env)
{
    struct flow_reg reg = {type, env};
    struct flow_engine *en = NULL;

    CHECK_OK(flow_engine_new(store, &(struct flow_options){.regs = &reg, .reg_count = 1}, &en, &e),
             &e);
    return en;
}

static struct flow_started start(const char *type, const char *dedup)
{
    struct flow_started s = {0};

    CHECK_OK(flow_start(m, &(struct flow_start){.type = type, .dedup_key = str_of(dedup)}, &s, &e),
             &e);
    return s;
}

/* A member of flow_show() as text: "state", or "steps" for the names of the steps with status. */
static const char *show(const char *id, const char *member)
{
    static char text[2048];
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf out;
    struct json *flow = NULL, *node;

    buf_init(&out, sizeof(text));
    if (!CHECK_OK(flow_show(m, str_of(id), &a, &flow, &e), &e))
        return "";
    node = json_get(flow, str_of(member));
    if (strcmp(member, "steps") == 0) {
        JSON_EACH (step, node)
            buf_printf(&out, STR_F ":" STR_F " ",
                       STR_A(json_str_or(json_get(step, S("name")), S("?"))),
                       STR_A(json_str_or(json_get(step, S("status")), S("?"))));
    } else if (node && node->type == JSON_STR) {
        buf_add_str(&out, node->string);
    } else if (node) {
        json_write(&out, node);
    }
    CHECK(str_to_z(buf_str(&out), text, sizeof(text)));
    return text;
}
#define CHECK_SHOW(id, member, want) CHECK_STR(str_of(show((id), (member))), str_of(want))

static int64_t wake_after_running(struct flow_engine *en)
{
    int64_t next = 0;

    CHECK_OK(flow_run_due(en, &next, &e), &e);
    return next;
}

/* ----- Steps made of a script ----- */

struct script {
    int calls[8];
    int fail_times;
    enum code fail_code;
    char keys[16][80];
    int key_count;
    int ends;
    enum flow_state ended_as;
    bool end_fails;
};

static int note_fact(struct flow_ctx *ctx, enum fact_type type)
{
    struct meta *in_tx;

    TRY(flow_tx(ctx, &in_tx, &e));
    return journal_append(in_tx,
                          &(struct fact_new){.type = type,
                                             .subject = flow_key(ctx),
                                             .correlation = flow_correlation(ctx)},
                          NULL, &e);
}

static int step_a(struct flow_ctx *ctx, struct err *se)
{
    struct script *s = flow_env(ctx);
    struct json *out = json_new_object(flow_arena(ctx));

    (void)se;
    s->calls[0]++;
    json_set_int(flow_arena(ctx), out, S("n"),
                 41 + json_int_or(json_get(flow_input(ctx), S("n")), 0));
    flow_output(ctx, out);
    return note_fact(ctx, FACT_RETRAIN_STEP);
}

static int step_b(struct flow_ctx *ctx, struct err *se)
{
    struct script *s = flow_env(ctx);
    struct json *before;

    s->calls[1]++;
    snprintf(s->keys[s->key_count++ % 16], 80, STR_F, STR_A(flow_key(ctx)));
    TRY(flow_output_of(ctx, "a", &before, se));
    CHECK_INT(json_int_or(json_get(before, S("n")), 0), 41);
    TRY(note_fact(ctx, FACT_RETRAIN_STEP)); /* must vanish when the step fails */
    if (s->fail_times-- > 0)
        return err_fill(se, s->fail_code, "here", "the trainer is out of breath");
    flow_output(ctx, before);
    return 0;
}

static int on_end(struct flow_ctx *ctx, enum flow_state state, const struct err *cause,
                  struct err *se)
{
    struct script *s = flow_env(ctx);

    CHECK((state == FLOW_FAILED || state == FLOW_DEAD) == (cause != NULL));
    TRY(note_fact(ctx, state == FLOW_DONE ? FACT_RETRAIN_FINISHED : FACT_RETRAIN_FAILED));
    if (s->end_fails)
        return FAIL(se, INTERNAL, "no closing words");
    s->ends++;
    s->ended_as = state;
    return 0;
}

static const struct flow_step two_steps[] = {
    {.name = "a", .fn = step_a},
    {.name = "b",
     .fn = step_b,
     .retry = {.max_attempts = 3, .first_delay_ns = 2 * NS_PER_S, .jitter = -1}},
};
static const struct flow_type two = {
    .name = "two", .steps = two_steps, .step_count = 2, .on_end = on_end};

static int64_t fact_count(void)
{
    int64_t n = -1;

    CHECK_OK(journal_last_seq(m, &n, &e), &e);
    return n;
}

static void test_straight_through(void)
{
    struct script s = {0};
    struct flow_started f;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&two, &s);
    f = start("two", "");
    CHECK(wake_after_running(en) == INT64_MAX);
    CHECK_SHOW(f.id, "state", "done");
    CHECK_SHOW(f.id, "result", "{\"n\":41}");
    CHECK_SHOW(f.id, "steps", "a:done b:done ");
    CHECK_INT(s.ends, 1);
    CHECK_INT(fact_count(), 3);
    flow_engine_free(TAKE(en));
    close_and_drop();
}

static void test_retry_then_done(void)
{
    struct script s = {.fail_times = 2, .fail_code = CODE_UNAVAILABLE};
    struct flow_started f;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&two, &s);
    f = start("two", "");
    CHECK_INT(wake_after_running(en), T0 + 2 * NS_PER_S);
    CHECK_SHOW(f.id, "steps", "a:done b:retrying ");
    CHECK_SHOW(f.id, "error", "the trainer is out of breath");
    time_test_advance(2 * NS_PER_S);
    CHECK_INT(wake_after_running(en), T0 + 6 * NS_PER_S); /* the delay doubled */
    time_test_advance(4 * NS_PER_S);
    CHECK(wake_after_running(en) == INT64_MAX);
    CHECK_SHOW(f.id, "state", "done");
    CHECK_INT(s.calls[0], 1);
    CHECK_INT(s.calls[1], 3);
    CHECK(strcmp(s.keys[0], s.keys[2]) == 0); /* one key for all attempts */
    CHECK(strncmp(s.keys[0], f.id, 36) == 0);
    CHECK_INT(fact_count(), 3); /* those of the failed attempts went with them */
    flow_engine_free(TAKE(en));
    close_and_drop();
}

static void test_attempts_run_out(void)
{
    struct script s = {.fail_times = 99, .fail_code = CODE_UNAVAILABLE};
    struct flow_started f;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&two, &s);
    f = start("two", "job");
    for (int i = 0; i < 10; i++) {
        wake_after_running(en);
        time_test_advance(10 * NS_PER_S);
    }
    CHECK_INT(s.calls[1], 3);
    CHECK_SHOW(f.id, "state", "dead");
    CHECK_SHOW(f.id, "error_code", "UNAVAILABLE");
    CHECK(s.ended_as == FLOW_DEAD && s.ends == 1);
    s.fail_times = 0;
    NEED_OK(flow_retry(m, str_of(f.id), &e), &e);
    wake_after_running(en);
    CHECK_SHOW(f.id, "state", "done");
    CHECK_SHOW(f.id, "error", "");
    CHECK_FAILS(flow_retry(m, str_of(f.id), &e), FAILED_PRECONDITION, &e, "done");
    flow_engine_free(TAKE(en));
    close_and_drop();
}

static void test_fatal_error_and_bad_end(void)
{
    struct script s = {.fail_times = 1, .fail_code = CODE_INVALID_ARGUMENT, .end_fails = true};
    struct flow_started f;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&two, &s);
    f = start("two", "");
    CHECK(wake_after_running(en) == INT64_MAX);
    CHECK_INT(s.calls[1], 1);
    CHECK_SHOW(f.id, "state", "failed");
    CHECK_SHOW(f.id, "error", "the trainer is out of breath; and its on_end: no closing words");
    CHECK_INT(fact_count(), 1); /* step a's; the half-made end left none */
    flow_engine_free(TAKE(en));
    close_and_drop();
}

static void test_dedup(void)
{
    struct script s = {0};
    struct flow_started one, two_again, three;
    char id[UUID_SIZE];

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&two, &s);
    one = start("two", "retrain/fraud");
    two_again = start("two", "retrain/fraud");
    CHECK(!one.existing && two_again.existing && strcmp(one.id, two_again.id) == 0);
    CHECK(!start("two", "retrain/churn").existing);
    NEED_OK(flow_find(m, S("retrain/fraud"), id, &e), &e);
    CHECK_STR(str_of(id), str_of(one.id));
    wake_after_running(en);
    three = start("two", "retrain/fraud");
    CHECK(!three.existing && strcmp(one.id, three.id) != 0);
    NEED_OK(flow_find(m, S("nothing"), id, &e), &e);
    CHECK_STR(str_of(id), S(""));
    flow_engine_free(TAKE(en));
    close_and_drop();
}

/* Starting is part of the caller's transaction. */
static void test_start_rolls_back(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct meta_tx tx = {0};
    struct json *list;

    open_fresh();
    NEED_OK(meta_begin(m, &tx, &e), &e);
    start("two", "x");
    meta_tx_done(&tx);
    NEED_OK(flow_list(m, &(struct flow_query){0}, &a, &list, &e), &e);
    CHECK_INT(list->count, 0);
    close_and_drop();
}

/* ----- A loop with a timer and an event: hold for an hour, thrice, then wait for approval ----- */

static int step_hold(struct flow_ctx *ctx, struct err *se)
{
    struct script *s = flow_env(ctx);

    (void)se;
    return flow_sleep_until(ctx, time_wall_ns() + 3600 * NS_PER_S,
                            ++s->calls[0] < 3 ? "hold" : "ask");
}

static int step_ask(struct flow_ctx *ctx, struct err *se)
{
    (void)se;
    return flow_wait(ctx, "approval", time_wall_ns() + 86400 * NS_PER_S, "answer");
}

static int step_answer(struct flow_ctx *ctx, struct err *se)
{
    struct json *payload;

    TRY(flow_event_of(ctx, "approval", &payload, se));
    TRY(flow_event_clear(ctx, "approval", se));
    flow_output(ctx, payload ? payload : json_new_str(flow_arena(ctx), S("nobody came")));
    return flow_finish(ctx);
}

static int step_undo(struct flow_ctx *ctx, struct err *se)
{
    struct script *s = flow_env(ctx);

    (void)se;
    CHECK(!flow_should_stop(ctx));
    s->calls[7]++;
    return flow_finish(ctx);
}

static const struct flow_step hold_steps[] = {
    {.name = "hold", .fn = step_hold},
    {.name = "ask", .fn = step_ask},
    {.name = "answer", .fn = step_answer},
    {.name = "undo", .fn = step_undo},
};
static const struct flow_type hold = {
    .name = "hold", .steps = hold_steps, .step_count = 4, .cancel_step = "undo"};

/* The date is put back by a day: an hour's sleep stays an hour's. */
static void test_timers_when_the_date_is_put_back(void)
{
    struct script s = {0};
    struct flow_started f;

    open_fresh();
    f = start("hold", "");
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&hold, &s);
    CHECK_INT(wake_after_running(en), T0 + 3600 * NS_PER_S);
    time_test_step_wall(-86400 * NS_PER_S);
    NEED_OK(flow_clock_stepped(m, -86400 * NS_PER_S, &e), &e);
    CHECK_INT(wake_after_running(en), T0 + (3600 - 86400) * NS_PER_S);
    time_test_advance(3600 * NS_PER_S);
    wake_after_running(en);
    CHECK_INT(s.calls[0], 2);
    CHECK_SHOW(f.id, "state", "sleeping");
    flow_engine_free(TAKE(en));
    close_and_drop();
}

static void test_timers_survive_restart(void)
{
    struct script s = {0};
    struct flow_started f;
    struct json *yes;
    AUTO(arena_done) struct arena a = {0};
    bool first;

    open_fresh();
    f = start("hold", "");
    for (int hour = 0; hour < 3; hour++) {
        AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&hold, &s);

        CHECK_INT(wake_after_running(en), T0 + (hour + 1) * 3600 * NS_PER_S);
        CHECK_SHOW(f.id, "state", "sleeping");
        time_test_advance(3599 * NS_PER_S);
        wake_after_running(en);
        CHECK_INT(s.calls[0], hour + 1);
        time_test_advance(NS_PER_S);
        flow_engine_free(TAKE(en));
        meta_close(TAKE(m)); /* as after a restart */
        meta_store_close(TAKE(store));
        NEED_OK(meta_store_open(dir, NULL, &store, &e), &e);
        NEED_OK(meta_open(store, &m, &e), &e);
    }
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&hold, &s);
    wake_after_running(en);
    CHECK_SHOW(f.id, "state", "waiting");
    yes = json_new_str(&a, S("ann says yes"));
    NEED_OK(flow_event(m, str_of(f.id), S("other"), yes, &first, &e), &e);
    CHECK(first);
    CHECK_SHOW(f.id, "state", "waiting");
    NEED_OK(flow_event(m, str_of(f.id), S("approval"), yes, &first, &e), &e);
    CHECK(first);
    NEED_OK(flow_event(m, str_of(f.id), S("approval"), json_new_null(&a), &first, &e), &e);
    CHECK(!first); /* the first write won */
    CHECK(wake_after_running(en) == INT64_MAX);
    CHECK_SHOW(f.id, "result", "ann says yes");
    CHECK_FAILS(flow_event(m, str_of(f.id), S("approval"), yes, NULL, &e), FAILED_PRECONDITION, &e,
                "done");
    CHECK_FAILS(flow_event(m, S("nope"), S("approval"), yes, NULL, &e), NOT_FOUND, &e, "nope");
    flow_engine_free(TAKE(en));
    close_and_drop();
}

static void test_wait_times_out_and_early_event(void)
{
    struct script s = {0};
    struct flow_started late, early;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&hold, &s);
    s.calls[0] = 2; /* one hour only */
    late = start("hold", "");
    early = start("hold", "");
    NEED_OK(flow_event(m, str_of(early.id), S("approval"), NULL, NULL, &e), &e);
    wake_after_running(en);
    time_test_advance(3600 * NS_PER_S);
    CHECK_INT(wake_after_running(en), T0 + (3600 + 86400) * NS_PER_S);
    CHECK_SHOW(early.id, "result", "{}");
    CHECK_SHOW(early.id, "events", "[]"); /* cleared */
    CHECK_SHOW(late.id, "state", "waiting");
    time_test_advance(86400 * NS_PER_S);
    wake_after_running(en);
    CHECK_SHOW(late.id, "result", "nobody came");
    flow_engine_free(TAKE(en));
    close_and_drop();
}

static void test_cancel_undoes(void)
{
    struct script s = {0};
    struct flow_started f, plain;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&hold, &s);
    AUTO(flow_engine_freep) struct flow_engine *en2 = engine_for(&two, &s);
    f = start("hold", "");
    wake_after_running(en);
    NEED_OK(flow_cancel(m, str_of(f.id), S("changed our minds"), &e), &e);
    CHECK(wake_after_running(en) == INT64_MAX);
    CHECK_INT(s.calls[7], 1);
    CHECK_SHOW(f.id, "state", "cancelled");
    CHECK_SHOW(f.id, "cancel_reason", "changed our minds");
    CHECK_FAILS(flow_cancel(m, str_of(f.id), S(""), &e), FAILED_PRECONDITION, &e, "cancelled");
    CHECK_FAILS(flow_cancel(m, S("nope"), S(""), &e), NOT_FOUND, &e, "nope");
    plain = start("two", ""); /* no cancel step: it ends before its first step */
    NEED_OK(flow_cancel(m, str_of(plain.id), S(""), &e), &e);
    wake_after_running(en2);
    CHECK_SHOW(plain.id, "state", "cancelled");
    CHECK(s.ended_as == FLOW_CANCELLED && s.calls[1] == 0);
    flow_engine_free(TAKE(en));
    flow_engine_free(TAKE(en2));
    close_and_drop();
}

static void test_pause_and_resume(void)
{
    struct script s = {0};
    struct flow_started f;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&hold, &s);
    f = start("hold", "");
    NEED_OK(flow_pause(m, str_of(f.id), &e), &e);
    CHECK(wake_after_running(en) == INT64_MAX);
    CHECK_INT(s.calls[0], 0);
    NEED_OK(flow_resume(m, str_of(f.id), &e), &e);
    wake_after_running(en);
    CHECK_INT(s.calls[0], 1);
    NEED_OK(flow_pause(m, str_of(f.id), &e), &e);
    time_test_advance(7200 * NS_PER_S);
    wake_after_running(en);
    CHECK_INT(s.calls[0], 1);
    NEED_OK(flow_cancel(m, str_of(f.id), S("paused or not"), &e), &e);
    wake_after_running(en);
    CHECK_SHOW(f.id, "state", "cancelled");
    CHECK_FAILS(flow_pause(m, str_of(f.id), &e), FAILED_PRECONDITION, &e, "paused");
    flow_engine_free(TAKE(en));
    close_and_drop();
}

/* ----- A parent that waits for its child ----- */

static int step_spawn(struct flow_ctx *ctx, struct err *se)
{
    struct meta *in_tx;
    struct flow_started child;

    TRY(flow_tx(ctx, &in_tx, se));
    TRY(flow_start(in_tx,
                   &(struct flow_start){
                       .type = "two", .parent = flow_id(ctx), .correlation = flow_correlation(ctx)},
                   &child, se));
    flow_output(ctx, json_new_str(flow_arena(ctx), str_of(child.id)));
    return flow_wait(ctx, arena_printf(flow_arena(ctx), "child.%s", child.id).p, INT64_MAX, NULL);
}

static int step_collect(struct flow_ctx *ctx, struct err *se)
{
    struct json *id, *payload;

    TRY(flow_output_of(ctx, "spawn", &id, se));
    TRY(flow_event_of(
        ctx, arena_printf(flow_arena(ctx), "child." STR_F, STR_A(json_str_or(id, S("")))).p,
        &payload, se));
    flow_output(ctx, payload);
    return 0;
}

static const struct flow_step parent_steps[] = {{.name = "spawn", .fn = step_spawn},
                                                {.name = "collect", .fn = step_collect}};
static const struct flow_type parent = {.name = "parent", .steps = parent_steps, .step_count = 2};

static void test_parent_and_child(void)
{
    struct script s = {0};
    struct flow_started f;
    AUTO(arena_done) struct arena a = {0};
    struct json *list;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&parent, &s);
    AUTO(flow_engine_freep) struct flow_engine *child_en = engine_for(&two, &s);
    f = start("parent", "");
    wake_after_running(en);
    CHECK_SHOW(f.id, "state", "waiting");
    NEED_OK(flow_list(m, &(struct flow_query){.parent = str_of(f.id)}, &a, &list, &e), &e);
    NEED(list->count == 1);
    CHECK_STR(json_str_or(json_get(list->first, S("correlation")), S("")), str_of(f.id));
    wake_after_running(child_en);
    wake_after_running(en);
    CHECK_SHOW(f.id, "result", "{\"error\":\"\",\"result\":{\"n\":41},\"state\":\"done\"}");
    f = start("parent", ""); /* cancelled together */
    wake_after_running(en);
    NEED_OK(flow_cancel(m, str_of(f.id), S("all of it"), &e), &e);
    wake_after_running(child_en);
    wake_after_running(en);
    NEED_OK(flow_list(m, &(struct flow_query){.state = S("cancelled")}, &a, &list, &e), &e);
    CHECK_INT(list->count, 2);
    flow_engine_free(TAKE(en));
    flow_engine_free(TAKE(child_en));
    close_and_drop();
}

/* ----- Leases ----- */

/* The step is suspended past its lease, another engine runs it, and its own writes are refused. */
static struct flow_engine *other_engine;
static int step_sleepy(struct flow_ctx *ctx, struct err *se)
{
    struct script *s = flow_env(ctx);
    struct meta *in_tx;

    if (s->calls[0]++ == 0) {
        time_test_advance(11 * NS_PER_S);
        wake_after_running(other_engine);
        CHECK_FAILS(flow_heartbeat(ctx, se), ABORTED, se, "lease");
        CHECK(flow_should_stop(ctx));
        CHECK_FAILS(flow_tx(ctx, &in_tx, se), ABORTED, se, "another worker");
        return 0; /* it does not even listen */
    }
    CHECK_INT(flow_attempt(ctx), 2);
    return note_fact(ctx, FACT_RETRAIN_STEP);
}
static const struct flow_step sleepy_steps[] = {
    {.name = "sleepy", .fn = step_sleepy, .timeout_ns = 10 * NS_PER_S}};
static const struct flow_type sleepy = {.name = "sleepy", .steps = sleepy_steps, .step_count = 1};

static void test_lost_lease_cannot_write(void)
{
    struct script s = {0};
    struct flow_started f;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&sleepy, &s);
    other_engine = engine_for(&sleepy, &s);
    f = start("sleepy", "");
    wake_after_running(en);
    CHECK_INT(s.calls[0], 2);
    CHECK_INT(fact_count(), 1);
    CHECK_SHOW(f.id, "fence", "2");
    CHECK_SHOW(f.id, "state", "done");
    flow_engine_free(TAKE(en));
    flow_engine_free(TAKE(other_engine));
    close_and_drop();
}

static int step_beating(struct flow_ctx *ctx, struct err *se)
{
    struct script *s = flow_env(ctx);

    s->calls[0]++;
    for (int i = 0; i < 10; i++) {
        time_test_advance(9 * NS_PER_S);
        TRY(flow_heartbeat(ctx, se));
        CHECK_INT(wake_after_running(other_engine), time_wall_ns() + 10 * NS_PER_S);
    }
    CHECK_OK(flow_cancel(m, flow_id(ctx), S("stop"), &e), &e);
    CHECK(!flow_should_stop(ctx));
    TRY(flow_heartbeat(ctx, se));
    CHECK(flow_should_stop(ctx));
    return FAIL(se, CANCELLED, "stopped on request");
}
static const struct flow_step beating_steps[] = {
    {.name = "beating", .fn = step_beating, .timeout_ns = 10 * NS_PER_S}};
static const struct flow_type beating = {
    .name = "beating", .steps = beating_steps, .step_count = 1};

static void test_heartbeat_and_cancel_under_way(void)
{
    struct script s = {0};
    struct flow_started f;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&beating, &s);
    other_engine = engine_for(&beating, &s);
    f = start("beating", "");
    CHECK(wake_after_running(en) == INT64_MAX);
    CHECK_INT(s.calls[0], 1);
    CHECK_SHOW(f.id, "state", "cancelled");
    CHECK_SHOW(f.id, "steps", "beating:failed ");
    flow_engine_free(TAKE(en));
    flow_engine_free(TAKE(other_engine));
    close_and_drop();
}

/* A step that never ends its lease (its process dies each time) does not run for ever. */
static void test_poison_step_dies(void)
{
    struct script s = {0};
    struct flow_started f;
    int claims = 0;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&two, &s);
    f = start("two", "");
    for (; claims < 200; claims++) {
        wake_after_running(en);
        if (strcmp(show(f.id, "state"), "done") != 0)
            break;
        /* what the death of the worker in mid-step would have left */
        NEED_OK(meta_exec(m,
                          "UPDATE wf SET state = 'running', step = 'b', due_ns = 1,"
                          " ended_ns = NULL, crashes = ?",
                          M_ARGS(M_INT(claims)), &e),
                &e);
    }
    CHECK_INT(claims, 101);
    CHECK_SHOW(f.id, "state", "dead");
    CHECK(strstr(show(f.id, "error"), "101 times"));
    flow_engine_free(TAKE(en));
    close_and_drop();
}

static void test_unknown_step_and_type(void)
{
    struct script s = {0};
    struct flow_started f, other;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&two, &s);
    f = start("two", "");
    other = start("three", "");
    NEED_OK(meta_exec(m, "UPDATE wf SET step = 'gone'", M_NO_ARGS, &e), &e);
    CHECK(wake_after_running(en) == INT64_MAX);
    CHECK_SHOW(f.id, "state", "dead");
    CHECK(strstr(show(f.id, "error"), "'gone'"));
    CHECK_SHOW(other.id, "state", "pending"); /* for a program that knows it */
    flow_engine_free(TAKE(en));
    close_and_drop();
}

static int step_endless(struct flow_ctx *ctx, struct err *se)
{
    struct script *s = flow_env(ctx);

    (void)se;
    s->calls[0]++;
    return s->calls[0] < 500 ? flow_goto(ctx, "again") : flow_finish(ctx);
}
static const struct flow_step endless_steps[] = {{.name = "again", .fn = step_endless}};
static const struct flow_type endless = {
    .name = "endless", .steps = endless_steps, .step_count = 1};

/* Long loops keep a bounded tail of their steps, give others a turn, and never repeat a key. */
static void test_long_loop(void)
{
    struct script s = {0};
    struct flow_started f;
    int64_t n = 0;
    bool ran;

    open_fresh();
    AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&endless, &s);
    f = start("endless", "");
    NEED_OK(flow_run_one(en, &ran, &e), &e);
    CHECK_INT(s.calls[0], 16);
    CHECK_SHOW(f.id, "state", "pending");
    CHECK(wake_after_running(en) == INT64_MAX);
    CHECK_INT(s.calls[0], 500);
    NEED_OK(meta_first_int(m, "SELECT COUNT(*) FROM wf_step", M_NO_ARGS, 0, &n, &e), &e);
    CHECK_INT(n, 64);
    NEED_OK(flow_prune(m, T0 - 1, &n, &e), &e);
    CHECK_INT(n, 0);
    time_test_advance(NS_PER_S);
    NEED_OK(flow_prune(m, time_wall_ns(), &n, &e), &e);
    CHECK_INT(n, 1);
    NEED_OK(meta_first_int(m, "SELECT COUNT(*) FROM wf_step", M_NO_ARGS, 0, &n, &e), &e);
    CHECK_INT(n, 0);
    flow_engine_free(TAKE(en));
    close_and_drop();
}

static void test_bad_requests(void)
{
    AUTO(arena_done) struct arena a = {0};
    static const struct flow_step twins[] = {{.name = "a", .fn = step_a},
                                             {.name = "a", .fn = step_b}};
    static const struct flow_type bad = {.name = "bad", .steps = twins, .step_count = 2};
    struct flow_reg reg = {&bad, NULL};
    struct flow_started f;
    struct flow_engine *en;
    struct json *flow;

    open_fresh();
    CHECK_FAILS(flow_start(m, &(struct flow_start){.type = "no/name"}, &f, &e), INVALID_ARGUMENT,
                &e, "no/name");
    CHECK_FAILS(
        flow_start(m, &(struct flow_start){.type = "x", .input = json_new_array(&a)}, &f, &e),
        INVALID_ARGUMENT, &e, "object");
    CHECK_FAILS(
        flow_engine_new(store, &(struct flow_options){.regs = &reg, .reg_count = 1}, &en, &e),
        INVALID_ARGUMENT, &e, "'a'");
    CHECK_FAILS(flow_show(m, S("nope"), &a, &flow, &e), NOT_FOUND, &e, "nope");
    CHECK_FAILS(flow_pause(m, S("nope"), &e), NOT_FOUND, &e, "nope");
    close_and_drop();
}

/* ----- Simulation: random flows, disk faults, lost workers, one seed per world ----- */

#define WORLD_FLOWS 12
#define WORLD_STEPS 4

struct world {
    struct rng rng;
    int runs;   /* of steps */
    int faults; /* that reached the caller of the engine */
};

static int world_step(struct flow_ctx *ctx, struct err *se)
{
    struct world *w = flow_env(ctx);
    struct meta *in_tx;

    w->runs++;
    if (rng_below(&w->rng, 6) == 0)
        return FAIL(se, UNAVAILABLE, "not now");
    TRY(flow_tx(ctx, &in_tx, se));
    /* Not idempotent on purpose: applied twice, it would count two. */
    TRY(meta_exec(in_tx,
                  "INSERT INTO kv (scope, name, value, updated_ns) VALUES ('effect', ?, 1, 0)"
                  " ON CONFLICT (scope, name) DO UPDATE SET value = value + 1",
                  M_ARGS(M_STR(flow_key(ctx))), se));
    TRY(journal_append(
        in_tx, &(struct fact_new){.type = FACT_RETRAIN_STEP, .subject = flow_key(ctx)}, NULL, se));
    if (rng_below(&w->rng, 8) == 0)
        return FAIL(se, UNAVAILABLE, "failed after its writes");
    if (rng_below(&w->rng, 4) == 0)
        return flow_sleep_until(ctx, time_wall_ns() + (int64_t)rng_below(&w->rng, 100) * NS_PER_S,
                                NULL);
    return 0;
}

static const struct flow_step world_steps[WORLD_STEPS] = {
    {.name = "w1", .fn = world_step, .retry = {.max_attempts = 1000}},
    {.name = "w2", .fn = world_step, .retry = {.max_attempts = 1000}},
    {.name = "w3", .fn = world_step, .retry = {.max_attempts = 1000}},
    {.name = "w4", .fn = world_step, .retry = {.max_attempts = 1000}},
};
static const struct flow_type world_type = {
    .name = "world", .steps = world_steps, .step_count = WORLD_STEPS};

static int64_t count_of(const char *sql)
{
    int64_t n = -1;

    CHECK_OK(meta_first_int(m, sql, M_NO_ARGS, 0, &n, &e), &e);
    return n;
}

static void arm_random_fault(struct rng *rng)
{
    static const enum file_op ops[] = {FILE_OP_WRITE, FILE_OP_SYNC, FILE_OP_WRITE};
    static const enum file_fault faults[] = {FILE_FAULT_ERRNO, FILE_FAULT_ERRNO, FILE_FAULT_TEAR};
    size_t kind = rng_below(rng, 3);

    file_test_fault(ops[kind], (int64_t)rng_below(rng, 40), faults[kind],
                    rng_below(rng, 2) ? ENOSPC : EIO, rng_below(rng, 4) == 0);
}

static void check_world(uint64_t seed)
{
    struct journal_head head;
    bool ok = CHECK_INT(count_of("SELECT COUNT(*) FROM wf WHERE state = 'done'"), WORLD_FLOWS);

    ok &= CHECK_INT(count_of("SELECT COUNT(*) FROM kv WHERE scope = 'effect'"),
                    WORLD_FLOWS * WORLD_STEPS);
    ok &= CHECK_INT(count_of("SELECT COUNT(*) FROM kv WHERE value + 0 <> 1"), 0);
    ok &= CHECK_INT(count_of("SELECT COUNT(*) FROM wf_step WHERE status = 'done'"),
                    WORLD_FLOWS * WORLD_STEPS);
    ok &= CHECK_OK(journal_verify(m, NULL, &head, NULL, &e), &e);
    ok &= CHECK_INT(head.size, WORLD_FLOWS * WORLD_STEPS);
    if (!ok)
        fprintf(stderr, "    in the world of seed %llu\n", (unsigned long long)seed);
}

static int run_world(uint64_t seed)
{
    struct world w = {0};

    open_fresh();
    rng_seed(&w.rng, seed);
    random_test_seed(seed + 1);
    for (int i = 0; i < WORLD_FLOWS; i++)
        start("world", "");
    for (int turn = 0; turn < 3000 && count_of("SELECT COUNT(*) FROM wf WHERE ended_ns IS NULL");
         turn++) {
        AUTO(flow_engine_freep) struct flow_engine *en = engine_for(&world_type, &w);
        int64_t next = INT64_MAX;

        if (turn < 200 && rng_below(&w.rng, 2))
            arm_random_fault(&w.rng);
        if (flow_run_due(en, &next, &e) && ++w.faults)
            CHECK(e.code == CODE_RESOURCE_EXHAUSTED || e.code == CODE_DATA_LOSS);
        file_test_fault(FILE_OP_ANY, -1, FILE_FAULT_ERRNO, 0, false);
        time_test_advance((int64_t)rng_below(&w.rng, 40) * NS_PER_S);
        if (rng_below(&w.rng, 8) == 0)
            time_test_step_wall(-(int64_t)rng_below(&w.rng, 30) * NS_PER_S);
    }
    check_world(seed);
    CHECK(w.runs > WORLD_FLOWS * WORLD_STEPS);
    random_test_seed(0);
    close_and_drop();
    return w.faults;
}

static void test_worlds(void)
{
    const char *only = getenv("WEIR_SEED");
    uint64_t first = 0, count = 25;
    int faults = 0;

    if (only) {
        CHECK(str_to_u64(str_of(only), &first));
        count = 1;
    }
    for (uint64_t seed = first; seed < first + count && check_failures == 0; seed++)
        faults += run_world(seed);
    CHECK(faults > 0); /* else the worlds were too kind to tell anything */
    printf("%llu worlds, %d faults of the store\n", (unsigned long long)count, faults);
}

/* ----- The runner: real threads, real time ----- */

static int step_count_up(struct flow_ctx *ctx, struct err *se)
{
    struct meta *in_tx;

    TRY(flow_tx(ctx, &in_tx, se));
    return meta_exec(in_tx,
                     "INSERT INTO kv (scope, name, value, updated_ns) VALUES ('effect', ?, 1, 0)"
                     " ON CONFLICT (scope, name) DO UPDATE SET value = value + 1",
                     M_ARGS(M_STR(flow_key(ctx))), se);
}
static const struct flow_step up_steps[] = {{.name = "one", .fn = step_count_up},
                                            {.name = "two", .fn = step_count_up},
                                            {.name = "three", .fn = step_count_up}};
static const struct flow_type up = {.name = "up", .steps = up_steps, .step_count = 3};

static void test_runner(void)
{
    struct flow_reg reg = {&up, NULL};
    struct flow_options options = {.regs = &reg, .reg_count = 1, .workers = 4, .poll_ms = 60000};
    AUTO(flow_runner_freep) struct flow_runner *r = NULL;
    int64_t began, woken;

    open_fresh();
    time_test_real();
    NEED_OK(flow_runner_new(store, &options, &r, &e), &e);
    began = time_mono_ns();
    for (int i = 0; i < 50; i++)
        start("up", "");
    while (count_of("SELECT COUNT(*) FROM wf WHERE state = 'done'") < 50 &&
           time_mono_ns() < began + 20 * NS_PER_S)
        usleep(2000);
    CHECK_INT(count_of("SELECT COUNT(*) FROM kv WHERE scope = 'effect' AND value + 0 = 1"), 150);
    woken = time_mono_ns();
    start("up", ""); /* a hint wakes it: the poll is a minute away */
    while (count_of("SELECT COUNT(*) FROM wf WHERE state = 'done'") < 51 &&
           time_mono_ns() < woken + 20 * NS_PER_S)
        usleep(1000);
    CHECK(time_mono_ns() < woken + 10 * NS_PER_S);
    flow_runner_free(TAKE(r));
    close_and_drop();
}

RUN_TESTS(T(test_straight_through), T(test_retry_then_done), T(test_attempts_run_out),
          T(test_fatal_error_and_bad_end), T(test_dedup), T(test_start_rolls_back),
          T(test_timers_when_the_date_is_put_back), T(test_timers_survive_restart),
          T(test_wait_times_out_and_early_event), T(test_cancel_undoes), T(test_pause_and_resume),
          T(test_parent_and_child), T(test_lost_lease_cannot_write),
          T(test_heartbeat_and_cancel_under_way), T(test_poison_step_dies),
          T(test_unknown_step_and_type), T(test_long_loop), T(test_bad_requests), T(test_worlds),
          T(test_runner))
