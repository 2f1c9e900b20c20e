/* SPDX-License-Identifier: Apache-2.0 */
/* Rollouts: states, orders, facts, aliases, restarts. */
#include "rollout/world.h"

/* --- What is there ---------------------------------------------------------------------------- */

static int64_t alias(const char *name)
{
    int64_t v = -1;

    CHECK_OK(meta_first_int(m, "SELECT version FROM aliases WHERE model = 'fraud' AND alias = ?",
                            M_ARGS(M_STR(str_of(name))), 0, &v, &e),
             &e);
    return v;
}

static struct json *last_fact(struct arena *a, const char *type)
{
    struct json *data = json_new_object(a);
    struct fact *list;
    size_t n = 0;

    CHECK_OK(journal_read(m,
                          &(struct journal_query){
                              .type_prefix = str_of(type), .newest_first = true, .limit = 1},
                          a, &list, &n, &e),
             &e);
    if (CHECK(n == 1))
        CHECK_OK(json_parse(list[0].data, a, &data, &e), &e);
    return data;
}

static struct json *state(struct arena *a)
{
    struct json *s = NULL;

    CHECK_OK(meta_kv_get(m, S("rollout"), S("pay"), a, &s, &e), &e);
    return s;
}

static int64_t number(const struct json *o, const char *key)
{
    return json_int_or(json_get(o, str_of(key)), -1);
}

#define CHECK_STATE(name, weight)                                               \
    do {                                                                        \
        AUTO(arena_done) struct arena a_ = {0};                                 \
        struct json *s_ = state(&a_);                                           \
        CHECK_STR(json_str_or(json_get(s_, S("state")), S("(none)")), S(name)); \
        CHECK_INT(number(s_, "weight_bp"), weight);                             \
    } while (0)

/* --- Tests ------------------------------------------------------------------------------------ */

static void test_healthy_canary(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *f;

    begin();
    start(2, PLAIN);
    CHECK_STATE("step", 1000);
    CHECK_INT(number(state(&a), "challenger"), 2);
    CHECK_INT(alias("challenger"), 2);
    traffic(9, 0, 0, false);
    CHECK_STATE("step", 1000);
    traffic(2, 0, 0, false);
    CHECK_STATE("step", 5000);
    traffic(11, 0, 0, false);
    CHECK_STATE("baking", 0);
    CHECK_INT(number(state(&a), "challenger"), 1); /* on call */
    CHECK_INT(alias("champion"), 2);
    CHECK_INT(alias("challenger"), 0);
    traffic(6, 0, 0, false);
    CHECK_INT(facts("check.post_deploy"), 1);
    f = last_fact(&a, "check.post_deploy");
    CHECK(json_bool_or(json_get(f, S("passed")), false));
    CHECK_INT(number(f, "live"), 2);
    traffic(20, 0, 0, false);
    CHECK(!state(&a));
    CHECK_INT(facts("check.post_deploy"), 2);
    CHECK_INT(facts("rollout.started"), 1);
    CHECK_INT(facts("rollout.step.advanced"), 2);
    CHECK_INT(facts("rollout.judged"), 2);
    CHECK_INT(facts("rollout.promoted"), 1);
    CHECK_INT(facts("rollout.baked"), 1);
    CHECK_INT(facts("rollout.rolled_back"), 0);
    f = last_fact(&a, "rollout.judged");
    CHECK_STR(json_str_or(json_get(f, S("verdict")), S("")), S("PASS"));
    CHECK(number(json_get(f, S("challenger")), "requests") >= 4000);
    end();
}

static void test_failures_take_back(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *f;

    begin();
    start(2, PLAIN);
    traffic(3, 0, 0, false);
    traffic(1, 2, 30, false);
    CHECK(!state(&a));
    CHECK_INT(alias("champion"), 1);
    CHECK_INT(alias("challenger"), 0);
    CHECK_INT(facts("rollout.rolled_back"), 1);
    f = last_fact(&a, "rollout.rolled_back");
    CHECK_INT(number(f, "to"), 1);
    CHECK_STR(json_str_or(json_get(f, S("verdict")), S("")), S("FAIL"));
    CHECK_INT(number(json_get(f, S("challenger")), "failed") % 30, 0);
    CHECK_STR(json_str_or(json_get(last_fact(&a, "rollout.judged"), S("verdict")), S("")),
              S("FAIL"));
    /* Failures of the champion are no reason against the new one. */
    start(2, PLAIN);
    traffic(23, 1, 30, false);
    CHECK_STATE("baking", 0);
    end();
}

static void test_no_traffic(void)
{
    AUTO(arena_done) struct arena a = {0};

    begin();
    start(2, "{\"steps\":[{\"weight\":0.1,\"hold_ns\":1000000000,\"rows_min\":0}],"
             "\"max_hold_ns\":60000000000,\"bake_ns\":60000000000}");
    wait_s(59);
    CHECK_STATE("step", 1000);
    CHECK_INT(facts("rollout.judged"), 0);
    wait_s(5);
    CHECK_INT(facts("rollout.paused"), 1); /* hold: waits for a person */
    CHECK_STR(json_str_or(json_get(last_fact(&a, "rollout.judged"), S("verdict")), S("")),
              S("INSUFFICIENT_EVIDENCE"));
    restart();
    order(ROLLOUT_RESUME);
    wait_s(20);
    CHECK_INT(facts("rollout.paused"), 1); /* said once */
    traffic(2, 0, 0, false);
    CHECK_STATE("baking", 0);
    order(ROLLOUT_ABORT);

    start(2, "{\"steps\":[{\"weight\":0.1,\"hold_ns\":1000000000}],\"max_hold_ns\":1000000000,"
             "\"on_inconclusive\":\"rollback\"}");
    wait_s(5);
    CHECK(!state(&a));
    CHECK_INT(facts("rollout.rolled_back"), 1);
    start(2, "{\"steps\":[{\"weight\":0.1,\"hold_ns\":1000000000}],\"max_hold_ns\":1000000000,"
             "\"on_inconclusive\":\"extend\"}");
    wait_s(50);
    CHECK_STATE("step", 1000);
    end();
}

/* Brings a rollout into each state in turn; false past the last. */
static bool enter(int which)
{
    static const char review[] = "{" LADDER BAKE ",\"promote\":\"review\"}";
    static const char unseen[] = "{\"shadow\":{\"for_ns\":5000000000,\"rows_min\":10}," LADDER BAKE
                                 ",\"promote\":\"review\"}";
    static const char blue_green[] =
        "{\"shadow\":{\"for_ns\":1000000000},\"promote\":\"review\"" BAKE "}";

    start(2, which == 0 ? unseen : which == 4 ? blue_green : which == 2 ? review : PLAIN);
    if (which == 2)
        traffic(22, 0, 0, false);
    if (which == 3)
        traffic(22, 0, 0, false);
    if (which == 4)
        traffic(2, 0, 0, true);
    if (which == 5) {
        traffic(1, 0, 0, false);
        order(ROLLOUT_PAUSE);
    }
    return which < 6;
}
static const char *const entered[] = {"shadow",          "step", "awaiting_review", "baking",
                                      "awaiting_review", "step"};

/* In every state, also after a restart: an order to go back is obeyed at once. */
static void test_orders_in_every_state(void)
{
    AUTO(arena_done) struct arena a = {0};
    static const enum rollout_order back[] = {ROLLOUT_ABORT, ROLLOUT_ROLLBACK};

    begin();
    for (int again = 0; again < 4; again++)
        for (int which = 0; which < 6; which++) {
            enter(which);
            CHECK_STR(json_str_or(json_get(state(&a), S("state")), S("")), str_of(entered[which]));
            if (again & 2)
                restart();
            order(back[again & 1]);
            CHECK(!state(&a));
            CHECK_INT(alias("champion"), 1);
            CHECK_INT(alias("challenger"), 0);
            CHECK_INT(alias("shadow"), 0);
            CHECK_FAILS(rollout_order(r, m, S("pay"), ROLLOUT_ABORT, S("x"), S(""), &e), NOT_FOUND,
                        &e, "no rollout");
        }
    CHECK_INT(facts("rollout.aborted"), 12);
    CHECK_INT(facts("rollout.rolled_back"), 12);
    end();
}

/* In every state harm is acted on, and a restart only begins the evidence anew. */
static void test_harm_in_every_state(void)
{
    AUTO(arena_done) struct arena a = {0};

    begin();
    for (int which = 0; which < 6; which++) {
        bool unseen = which == 0 || which == 4;

        enter(which);
        traffic(1, 0, 0, unseen);
        restart();
        CHECK_STR(json_str_or(json_get(state(&a), S("state")), S("")), str_of(entered[which]));
        if (which == 4)
            CHECK_INT(number(state(&a), "shadow"), 2);
        traffic(2, 2, 40, unseen);
        if (which == 4) { /* no guard is set there: nothing to go by */
            order(ROLLOUT_ABORT);
            continue;
        }
        CHECK(!state(&a));
        CHECK_INT(alias("champion"), 1);
    }
    CHECK_INT(facts("rollout.rolled_back"), 5);
    end();
}

static void test_restart_goes_on(void)
{
    begin();
    start(2, PLAIN);
    for (int i = 0; i < 80 && alias("champion") == 1; i++) {
        traffic(1, 0, 0, false);
        if (i % 7 == 3)
            restart();
    }
    CHECK_INT(alias("champion"), 2);
    for (int i = 0; i < 40; i++) {
        traffic(1, 0, 0, false);
        if (i % 7 == 3)
            restart();
    }
    CHECK_INT(facts("rollout.baked"), 1);
    CHECK_INT(facts("check.post_deploy"), 2);
    CHECK_INT(facts("rollout.promoted"), 1);
    end();
}

static void test_review_and_approve(void)
{
    begin();
    enter(2);
    traffic(60, 0, 0, false);
    CHECK_STATE("awaiting_review", 5000);
    order(ROLLOUT_APPROVE);
    CHECK_STATE("baking", 0);
    CHECK_INT(alias("champion"), 2);
    CHECK_FAILS(rollout_order(r, m, S("pay"), ROLLOUT_APPROVE, S("x"), S(""), &e),
                FAILED_PRECONDITION, &e, "promoted already");
    order(ROLLOUT_PAUSE); /* the way back stays warm */
    traffic(60, 0, 0, false);
    CHECK_STATE("baking", 0);
    order(ROLLOUT_RESUME);
    wait_s(1);
    CHECK_INT(facts("rollout.baked"), 1);
    end();
}

static void test_pause_holds(void)
{
    begin();
    start(2, PLAIN);
    order(ROLLOUT_PAUSE);
    order(ROLLOUT_PAUSE);
    CHECK_INT(facts("rollout.paused"), 1);
    traffic(30, 0, 0, false);
    CHECK_STATE("step", 1000);
    order(ROLLOUT_RESUME);
    traffic(1, 0, 0, false);
    CHECK_STATE("step", 5000);
    end();
}

static void test_supersede(void)
{
    AUTO(arena_done) struct arena a = {0};

    begin();
    start(2, PLAIN);
    traffic(5, 0, 0, false);
    start(3, PLAIN);
    CHECK_INT(facts("rollout.superseded"), 1);
    CHECK_INT(alias("challenger"), 3);
    CHECK_INT(number(state(&a), "version"), 3);
    CHECK(r->first && !r->first->next);
    CHECK_INT(r->first->ev.challenger.requests, 0); /* nothing is inherited */
    traffic(23, 0, 0, false);
    CHECK_INT(alias("champion"), 3);
    start(2, PLAIN); /* while the other one bakes: its promotion stands */
    CHECK_INT(number(state(&a), "previous"), 3);
    CHECK_INT(alias("champion"), 3);
    end();
}

static void test_refused_starts(void)
{
    begin();
    CHECK_FAILS(start_as("pay", 9, PLAIN, STR_NULL), NOT_FOUND, &e, "no version 9");
    CHECK_FAILS(start_as("pay", 1, PLAIN, STR_NULL), FAILED_PRECONDITION, &e, "champion already");
    CHECK_FAILS(start_as("pay", 4, PLAIN, STR_NULL), FAILED_PRECONDITION, &e, "other inputs");
    start(2, PLAIN);
    CHECK_FAILS(start_as("shop", 3, PLAIN, STR_NULL), FAILED_PRECONDITION, &e, "'pay'");
    /* A start that fails leaves the one under way alone. */
    CHECK_FAILS(start_as("pay", 9, PLAIN, STR_NULL), NOT_FOUND, &e, "no version 9");
    CHECK_STATE("step", 1000);
    CHECK_INT(facts("rollout.superseded"), 0);
    traffic(1, 2, 40, false);
    CHECK_INT(facts("rollout.rolled_back"), 1);
    end();
}

/* Aliases that a person moved meanwhile are theirs. */
static void test_moved_aliases(void)
{
    AUTO(arena_done) struct arena a = {0};

    begin();
    CHECK_OK(meta_exec(m,
                       "INSERT INTO aliases (model, alias, version, updated_ns) VALUES ('fraud', "
                       "'shadow', 3, 0)",
                       M_NO_ARGS, &e),
             &e);
    enter(0);
    CHECK_INT(alias("shadow"), 3);
    CHECK_INT(number(state(&a), "shadow"), 2);
    traffic(6, 0, 0, true);
    CHECK_STATE("step", 1000);
    CHECK_OK(meta_exec(m, "UPDATE aliases SET version = 3 WHERE alias = 'champion'", M_NO_ARGS, &e),
             &e);
    order(ROLLOUT_APPROVE);
    CHECK_INT(alias("champion"), 2);
    CHECK_INT(alias("shadow"), 3);
    order(ROLLOUT_ROLLBACK);
    CHECK_INT(alias("champion"), 3); /* not to 1, where it began */
    end();
}

static void test_alias_history(void)
{
    int64_t n;

    begin();
    enter(3);
    order(ROLLOUT_ROLLBACK);
    CHECK_OK(meta_first_int(m,
                            "SELECT COUNT(*) FROM alias_history WHERE alias = 'champion' AND"
                            " ((seq = 1 AND version = 2 AND previous_version = 1) OR"
                            " (seq = 2 AND version = 1 AND previous_version = 2))",
                            M_NO_ARGS, 0, &n, &e),
             &e);
    CHECK_INT(n, 2);
    CHECK_INT(facts("alias.moved"), 4); /* challenger in and out, champion there and back */
    end();
}

/* An endpoint that serves another alias than champion: that one is moved, and comes back. */
static void test_other_alias(void)
{
    begin();
    CHECK_OK(meta_exec(m,
                       "INSERT INTO aliases (model, alias, version, updated_ns) VALUES ('fraud', "
                       "'eu', 3, 0)",
                       M_NO_ARGS, &e),
             &e);
    endpoint_alias = S("eu");
    CHECK_FAILS(start_as("pay", 3, PLAIN, STR_NULL), FAILED_PRECONDITION, &e, "the eu already");
    start(2, PLAIN);
    restart();
    order(ROLLOUT_APPROVE);
    CHECK_INT(alias("eu"), 2);
    CHECK_INT(alias("champion"), 1);
    order(ROLLOUT_ROLLBACK);
    CHECK_INT(alias("eu"), 3);
    CHECK_INT(alias("champion"), 1);
    start(2, PLAIN);
    traffic(22, 0, 0, false);
    CHECK_STATE("baking", 0);
    CHECK_INT(alias("eu"), 2);
    CHECK_INT(facts("check.post_deploy"), 0);
    order(ROLLOUT_ABORT);
    CHECK_INT(alias("eu"), 3);
    endpoint_alias = S("us");
    CHECK_FAILS(start_as("pay", 2, PLAIN, STR_NULL), FAILED_PRECONDITION, &e,
                "no us to roll out beside");
    endpoint_alias = S("challenger");
    CHECK_FAILS(start_as("pay", 2, PLAIN, STR_NULL), FAILED_PRECONDITION, &e,
                "endpoint 'pay' serves the alias 'challenger'");
    endpoint_alias = STR_NULL;
    end();
}

static void test_late_harm(void)
{
    begin();
    start(2, "{" LADDER ",\"bake_ns\":60000000000,\"rollback_window_ns\":5000000000}");
    traffic(21, 0, 0, false);
    traffic(8, 0, 0, false);
    CHECK_STATE("baking", 0);
    traffic(4, 2, 40, false);
    CHECK_STATE("baking", 0); /* the window is over: said once, not acted on */
    CHECK_INT(facts("rollout.judged"), 3);
    CHECK_INT(facts("rollout.rolled_back"), 0);
    order(ROLLOUT_ROLLBACK); /* a person may */
    CHECK_INT(alias("champion"), 1);
    end();
}

static void test_clock_steps_back(void)
{
    begin();
    start(2, PLAIN);
    traffic(2, 0, 0, false);
    time_test_step_wall(-365 * 86400 * NS_PER_S);
    traffic(12, 0, 0, false);
    CHECK_STATE("step", 5000);
    end();
}

/* --- The flow that waits ---------------------------------------------------------------------- */

static int step_wait(struct flow_ctx *ctx, struct err *err)
{
    struct json *payload;
    int rc = flow_event_of(ctx, "rollout", &payload, err);

    return rc ? rc : payload ? flow_finish(ctx) : flow_wait(ctx, "rollout", INT64_MAX, "wait");
}

static void test_flow_is_told_once(void)
{
    static const struct flow_step steps[] = {{.name = "wait", .fn = step_wait}};
    static const struct flow_type type = {.name = "waits", .steps = steps, .step_count = 1};
    AUTO(flow_engine_freep) struct flow_engine *engine = NULL;
    AUTO(arena_done) struct arena a = {0};
    struct flow_reg reg = {&type, NULL};
    struct flow_started f;
    struct json *shown;
    int64_t wake;

    begin();
    CHECK_OK(
        flow_engine_new(store, &(struct flow_options){.regs = &reg, .reg_count = 1}, &engine, &e),
        &e);
    CHECK_OK(flow_start(m, &(struct flow_start){.type = "waits"}, &f, &e), &e);
    CHECK_OK(flow_run_due(engine, &wake, &e), &e);
    CHECK_OK(start_as("pay", 2, PLAIN, str_of(f.id)), &e);
    restart();
    traffic(22, 0, 0, false);
    CHECK_STATE("baking", 0);
    order(ROLLOUT_ROLLBACK); /* nothing to tell: it was promoted once */
    CHECK_OK(flow_show(m, str_of(f.id), &a, &shown, &e), &e);
    CHECK_INT(json_get(shown, S("events"))->count, 1);
    CHECK_STR(
        json_str_or(json_path(json_at(json_get(shown, S("events")), 0), "payload.result"), S("?")),
        S("promoted"));
    CHECK_OK(flow_run_due(engine, &wake, &e), &e);
    /* A flow that has ended wants to know nothing. */
    CHECK_OK(start_as("pay", 2, PLAIN, str_of(f.id)), &e);
    order(ROLLOUT_ABORT);
    flow_engine_free(TAKE(engine));
    end();
}

static void test_damaged_state(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *bad;

    begin();
    start(2, PLAIN);
    bad = state(&a);
    json_set_int(&a, bad, S("step"), 31);
    CHECK_OK(meta_kv_put(m, S("rollout"), S("broken"), bad, &e), &e);
    restart();
    CHECK(r->first && !r->first->next); /* the other one goes on */
    end();
}

/* --- Outputs ---------------------------------------------------------------------------------- */

/* A profile with one feature and the class number as output, drawn from n rows of so many classes.
 */
static void profile(struct blobs *blobs, int64_t version, int classes, int n)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf text;
    static double values[1000];
    static struct cells_spec spec;
    struct json *root = json_new_object(&a), *columns, *c;
    char hash[BLOB_HASH_SIZE];

    for (int i = 0; i < n; i++)
        values[i] = i % classes;
    CHECK_OK(cells_spec_fit_numeric(values, (size_t)n, 0, &spec, &e), &e);
    columns = json_set(root, S("columns"), json_new_array(&a));
    for (int i = 0; i < 2; i++) {
        c = json_push(columns, json_new_object(&a));
        json_set_str(&a, c, S("name"), i ? S("label") : S("age"));
        json_set_str(&a, c, S("role"), i ? S("output") : S("feature"));
        json_set(c, S("cells"), cells_spec_to_json(&spec, &a));
    }
    buf_init(&text, 1 << 20);
    json_write_canonical(&text, root);
    CHECK_OK(blobs_put(blobs, buf_str(&text), hash, &e), &e);
    CHECK_OK(meta_exec(
                 m, "UPDATE model_versions SET meta = ? WHERE version = ?",
                 M_ARGS(M_STR(arena_printf(&a, "{\"profile\":\"%s\"}", hash)), M_INT(version)), &e),
             &e);
}

static void test_outputs_that_compare(void)
{
    AUTO(blobs_closep) struct blobs *blobs = NULL;
    char path[96];

    begin();
    snprintf(path, sizeof(path), "%s/blobs", dir);
    NEED_OK(blobs_open(path, &blobs, &e), &e);
    profile(blobs, 1, 2, 1000);
    profile(blobs, 2, 2, 700); /* other rows, the same classes */
    profile(blobs, 3, 3, 900);
    start(2, PLAIN);
    CHECK(strstr(r->first->outputs.why, "not at hand"));
    rollouts_compare_outputs(r, m, blobs);
    CHECK_INT(r->first->outputs.count, 1);
    CHECK_INT(r->first->outputs.pair[0].at[0], 1);
    CHECK_INT(r->first->outputs.pair[0].at[1], 1);
    start(3, PLAIN);
    CHECK_INT(r->first->outputs.count, 0);
    CHECK(strstr(r->first->outputs.why, "different cells"));
    CHECK_OK(meta_exec(m, "UPDATE model_versions SET meta = '{}' WHERE version = 2", M_NO_ARGS, &e),
             &e);
    start(2, PLAIN);
    CHECK(strstr(r->first->outputs.why, "no profile"));
    end();
}

RUN_TESTS(T(test_healthy_canary), T(test_failures_take_back), T(test_no_traffic),
          T(test_orders_in_every_state), T(test_harm_in_every_state), T(test_restart_goes_on),
          T(test_review_and_approve), T(test_pause_holds), T(test_supersede),
          T(test_refused_starts), T(test_moved_aliases), T(test_alias_history), T(test_other_alias),
          T(test_late_harm), T(test_clock_steps_back), T(test_flow_is_told_once),
          T(test_damaged_state), T(test_outputs_that_compare))
