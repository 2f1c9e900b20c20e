/* SPDX-License-Identifier: Apache-2.0 */
/* Monitors: what the journal says in the end. */
#include "watch/world.h"

/* --- Tests ------------------------------------------------------------------------------------ */

static void test_clean_traffic_is_quiet(void)
{
    begin();
    run((struct traffic){.version = "1", .column = -1, .error_rate = 0.05, .rows = ROWS}, 1800);
    CHECK_INT(facts("drift.detected"), 0); /* 1,035,000 rows, as many labels */
    CHECK_INT(watch_drifting(w, S("pay")), 0);
    CHECK_INT(watch_drifting(w, S("other")), -1);
    CHECK(watch_first(w)->rows == 1800 * ROWS);
    CHECK_NEAR(watch_first(w)->rate, 2300, 5);
    CHECK_NEAR(watch_first(w)->detect.budget_rows, 2300 * 30 * 86400.0 / 0.75, 2e7);
    CHECK_NEAR(watch_first(w)->labels.budget_rows, 2300 * 30 * 86400.0 / 0.25, 6e7);
    end();
}

static void test_shift_is_found_and_clears(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct traffic moved = CLEAN;
    struct json *d;
    int64_t changed;

    begin();
    run(CLEAN, 40);
    moved.column = 1, moved.shift = 0.5;
    changed = time_wall_ns();
    for (int i = 0; i < 8 && !facts("drift.detected"); i++)
        run(moved, 1);
    NEED(facts("drift.detected") == 1);
    CHECK(time_wall_ns() - changed <= 3 * STEP_NS); /* 200 to 300 rows are expected */
    d = fact(&a, "drift.detected", 0);
    CHECK_STR(text(d, "feature"), S("amount"));
    CHECK_STR(text(d, "kind"), S("feature"));
    CHECK_STR(text(d, "metric"), S("e-detector"));
    CHECK_STR(text(d, "urgency"), S("ticket"));
    CHECK_STR(json_str_or(json_get(json_at(json_get(d, S("features")), 0), S("feature")), S("")),
              S("amount"));
    CHECK(json_bool_or(json_get(json_at(json_get(d, S("features")), 0), S("selected")), false));
    CHECK(!json_bool_or(json_get(json_at(json_get(d, S("features")), 1), S("selected")), true));
    CHECK(real(d, "value") >= real(d, "threshold"));
    CHECK_NEAR(real(d, "detection_latency.rows"), 575, 575);
    CHECK_NEAR(real(d, "detection_latency.seconds"), 0.25, 0.3);
    CHECK_INT(json_int_or(json_get(d, S("features_needed")), 0), 1);
    CHECK(json_bool_or(json_get(d, S("model_drifted")), false));
    CHECK(!json_bool_or(json_get(d, S("confirmed")), true));
    CHECK(!json_get(d, S("confirmed_ns")));

    run(moved, 80); /* 20 s: three windows of 5 s */
    CHECK_INT(facts("drift.detected"), 1);
    NEED(facts("drift.escalated") >= 1);
    d = fact(&a, "drift.escalated", 0);
    CHECK_STR(text(d, "feature"), S("amount"));
    CHECK_STR(text(d, "metric"), S("psi"));
    CHECK_INT(json_int_or(json_get(d, S("consecutive")), 0), 3);
    CHECK(json_bool_or(json_get(d, S("confirmed")), false));
    CHECK(real(d, "value") > 0.15 && real(d, "value") < 0.35); /* about shift squared */
    CHECK(real(d, "n") >= 9 * ROWS);
    CHECK(real(d, "confirmed_ns") > real(d, "first_breach_ns"));
    CHECK(json_int_or(json_get(d, S("confirmed_ns")), 0) - changed <= 21 * NS_PER_S);
    CHECK_NEAR(real(d, "detection_latency.seconds"), 17.5, 5);
    CHECK_INT(watch_drifting(w, S("pay")), 1);

    run(CLEAN, 100); /* 25 s */
    CHECK_INT(facts("drift.cleared"), 1);
    CHECK(real(fact(&a, "drift.cleared", 0), "lasted_ms") > 20000);
    CHECK_INT(watch_drifting(w, S("pay")), 0);
    run(moved, 8);
    CHECK_INT(facts("drift.detected"), 2); /* a new story */
    end();
}

static void test_null_spike(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct traffic broken = CLEAN;
    struct json *d, *first;

    begin();
    run(CLEAN, 20);
    broken.column = 2, broken.missing = 0.4;
    run(broken, 2);
    NEED(facts("drift.detected") == 1);
    d = fact(&a, "drift.detected", 0);
    first = json_at(json_get(d, S("features")), 0);
    CHECK_STR(text(d, "feature"), S("hour"));
    CHECK_STR(text(d, "severity"), S("severe"));
    CHECK(real(first, "missing_delta") > 0.3);
    end();
}

static void test_shifted_outputs_page(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct traffic moved = CLEAN;

    begin();
    run(CLEAN, 20);
    moved.column = FEATURES, moved.shift = 1;
    run(moved, 3);
    NEED(facts("drift.detected") == 1);
    CHECK_STR(text(fact(&a, "drift.detected", 0), "kind"), S("prediction"));
    CHECK_STR(text(fact(&a, "drift.detected", 0), "feature"), S("score"));
    CHECK_STR(text(fact(&a, "drift.detected", 0), "urgency"), S("page"));
    end();
}

static void test_labels_get_worse(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct traffic worse = CLEAN;
    struct json *d;

    begin();
    worse.error_rate = 0.05;
    run(worse, 40);
    worse.error_rate = 0.15;
    run(worse, 8);
    NEED(facts("drift.detected") == 1);
    d = fact(&a, "drift.detected", 0);
    CHECK_STR(text(d, "kind"), S("concept"));
    CHECK_STR(text(d, "metric"), S("error_rate"));
    CHECK_NEAR(real(d, "reference_error_rate"), 0.05, 1e-9);
    CHECK(real(d, "value") > real(d, "threshold"));
    CHECK(json_int_or(json_get(d, S("n")), 0) > 0);
    worse.error_rate = 0.05;
    run(worse, 120);
    CHECK_INT(facts("drift.cleared"), 1);
    end();
}

/* Features first, labels later: the second kind of evidence is not asleep, and wakes people. */
static void test_labels_worsen_during_a_drift(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct traffic t = CLEAN;
    struct json *d;
    int before;

    begin();
    t.error_rate = 0.05;
    run(t, 20);
    t.column = 0, t.shift = 0.8;
    run(t, 4);
    CHECK_INT(facts("drift.detected"), 1);
    CHECK_STR(text(fact(&a, "drift.detected", 0), "urgency"), S("ticket"));
    before = facts("drift.escalated");
    t.error_rate = 0.3;
    run(t, 4);
    NEED(facts("drift.escalated") == before + 1);
    d = fact(&a, "drift.escalated", (size_t)before);
    CHECK_STR(text(d, "kind"), S("concept"));
    CHECK_STR(text(d, "urgency"), S("page"));
    CHECK(json_bool_or(json_get(d, S("labels_worse")), false));
    CHECK_INT(facts("drift.detected"), 1);
    end();
}

/* Corrections of old labels come without labels of their own, in either direction. */
static void test_corrections_are_no_evidence(void)
{
    struct traffic t = CLEAN;

    begin();
    t.error_rate = 0.05;
    t.rows = 50;
    t.corrected = 200;
    run(t, 60);
    t.corrected = 200;
    t.error_rate = -1;
    run(t, 10);
    CHECK_INT(facts("drift.detected"), 0);
    end();
}

static void test_negative_counts(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct traffic t = CLEAN;
    struct digest_series *s;
    struct digest d;

    begin();
    t.error_rate = 0.05;
    run(t, 5);
    digest_init(&d, &a);
    s = series(&a, &t);
    s->labels.errors = -400;
    s->labels.joined = 10;
    CHECK_OK(digest_add_series(&d, s, &e), &e);
    CHECK_OK(watch_digest(w, m, &d, time_wall_ns(), &e), &e);
    CHECK(monitor_recent_risk(watch_first(w)) == 0);
    end();
}

static void test_two_versions_share_a_budget(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct traffic both[2] = {CLEAN, CLEAN};

    begin();
    both[1].version = "2", both[1].rows = 60;
    for (int i = 0; i < 40; i++)
        push(both, 2);
    for (const struct monitor *mo = watch_first(w); mo; mo = mo->next)
        CHECK_NEAR(mo->detect.budget_rows * 0.75, (2300 + 240) * 30 * 86400.0, 5e8);
    both[1].column = 0, both[1].shift = 1.0;
    for (int i = 0; i < 8; i++)
        push(both, 2);
    NEED(facts("drift.detected") == 1);
    CHECK_STR(text(fact(&a, "drift.detected", 0), "version"), S("2"));
    /* The version is replaced: its drift ends with it. */
    run(CLEAN, 4 * 130);
    CHECK_INT(facts("drift.cleared"), 1);
    CHECK_INT(watch_drifting(w, S("pay")), 0);
    end();
}

static void test_settings(void)
{
    struct traffic moved = CLEAN;

    begin();
    run(CLEAN, 10);
    configure("{" MONITOR ",\"psi\":{\"watch\":0.05},\"page_on\":\"never\"}");
    CHECK(watch_first(w) && watch_first(w)->rows == 10 * ROWS); /* kept */
    CHECK(watch_first(w)->cfg.page_on == PAGE_NEVER);
    CHECK_NEAR(watch_first(w)->columns[0].window.rule.bands.watch, 0.05, 1e-12);
    run(CLEAN, 2);
    configure("{" MONITOR ",\"sustained\":2}");
    CHECK(!watch_first(w)); /* dropped */
    run(CLEAN, 10);
    CHECK(watch_first(w)->rows == 10 * ROWS);
    moved.column = 0, moved.shift = 1;
    run(moved, 4);
    CHECK_INT(facts("drift.detected"), 1);
    configure("{" MONITOR "}");
    CHECK_INT(facts("drift.cleared"), 0);
    run(CLEAN, 1);
    CHECK_INT(facts("drift.cleared"), 1); /* its story ends, though the monitor is gone */
    configure("{" MONITOR ",\"features\":{\"age\":{\"ignore\":true}}}");
    run(CLEAN, 4);
    run(moved, 20);
    CHECK_INT(facts("drift.detected"), 1);
    end();
}

static void test_unwatched_versions(void)
{
    struct traffic t = CLEAN;

    begin();
    t.version = "3"; /* without profile */
    run(t, 4);
    CHECK_INT(watch_drifting(w, S("pay")), -1);
    CHECK(watch_first(w)->no_profile.n > 0);
    CHECK_OK(meta_exec(m, "UPDATE model_versions SET meta = ? WHERE version = 3",
                       M_ARGS(M_STR(S("{\"profile\":\"00\"}"))), &e),
             &e);
    run(t, 4 * 61); /* looked up again, and the damage does not stop the digest */
    CHECK(strstr(watch_first(w)->no_profile.p, "cannot be used") != NULL);
    t.version = "nonsense";
    run(t, 1);
    end();
}

static void test_columns_that_do_not_match(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct traffic t = CLEAN;
    struct digest_series *s;
    struct digest d;

    begin();
    digest_init(&d, &a);
    s = series(&a, &t);
    s->column_count = 3;
    CHECK_OK(digest_add_series(&d, s, &e), &e);
    CHECK_OK(watch_digest(w, m, &d, time_wall_ns(), &e), &e);
    CHECK(strstr(watch_first(w)->no_profile.p, "register it again") != NULL);
    end();
}

static void test_clock_steps(void)
{
    struct traffic moved = CLEAN;

    begin();
    run(CLEAN, 40);
    time_test_step_wall(-7200 * NS_PER_S);
    run(CLEAN, 40);
    time_test_step_wall(86400 * NS_PER_S);
    run(CLEAN, 40);
    CHECK_INT(facts("drift.detected"), 0);
    CHECK(watch_first(w) && watch_first(w)->rows == 120 * ROWS); /* not forgotten */
    CHECK_NEAR(watch_first(w)->rate, 2300, 20);
    moved.column = 0, moved.shift = 0.8;
    run(moved, 4);
    time_test_step_wall(-86400 * NS_PER_S);
    run(moved, 80);
    CHECK_INT(facts("drift.detected"), 1);
    CHECK(facts("drift.escalated") >= 1);
    end();
}

/* 20 rows a second fill no window of 5 s: windows wait for their rows, and drift still ends. */
static void test_thin_traffic(void)
{
    struct traffic t = CLEAN;

    begin();
    t.rows = 5;
    run(t, 400);
    t.column = 0, t.shift = 1.5;
    run(t, 80);
    CHECK_INT(facts("drift.detected"), 1);
    run(t, 400);
    CHECK(facts("drift.escalated") >= 1);
    t.column = -1;
    run(t, 800);
    CHECK_INT(facts("drift.cleared"), 1);
    end();
}

/* A night without traffic must not leave a budget of nothing for the morning. */
static void test_gaps(void)
{
    begin();
    run(CLEAN, 40);
    time_test_advance(40 * 60 * NS_PER_S);
    run(CLEAN, 1);
    CHECK(watch_first(w)->rate > 200);
    end();
}

static double shown_rate(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf out;
    struct json *root;
    struct json_out o;

    buf_init(&out, 1 << 20);
    jo_begin(&o, &out);
    watch_report(w, S("pay"), &o);
    if (!CHECK_OK(json_parse(buf_str(&out), &a, &root, &e), &e))
        return NAN;
    return real(json_at(json_get(root, S("monitors")), 0), "rows_per_s");
}

/* What people see ends with the traffic; what sets the budget does not. */
static void test_shown_rate(void)
{
    double budget_rate;

    begin();
    run(CLEAN, 8);
    CHECK_NEAR(shown_rate(), 2300, 350);
    run(CLEAN, 200);
    CHECK_NEAR(shown_rate(), 2300, 100);
    budget_rate = watch_first(w)->rate;
    time_test_advance(2 * NS_PER_S);
    CHECK(shown_rate() < 1700);
    time_test_advance(4 * NS_PER_S);
    CHECK_NEAR(shown_rate(), 0, 0);
    CHECK_NEAR(watch_first(w)->rate, budget_rate, 0);
    time_test_advance(60 * NS_PER_S);
    run(CLEAN, 80);
    CHECK_NEAR(shown_rate(), 2300, 350);
    end();
}

static void test_report(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf out;
    struct traffic moved = CLEAN;
    struct json *root, *mo;
    struct json_out o;

    begin();
    run(CLEAN, 10);
    moved.column = 0, moved.shift = 1;
    run(moved, 16);
    buf_init(&out, 1 << 20);
    jo_begin(&o, &out);
    watch_report(w, S("pay"), &o);
    NEED_OK(json_parse(buf_str(&out), &a, &root, &e), &e);
    mo = json_at(json_get(root, S("monitors")), 0);
    CHECK_STR(text(mo, "state"), S("drifting"));
    CHECK_INT(json_get(mo, S("features"))->count, COLUMNS);
    CHECK(real(mo, "first_breach_ns") > 0);
    CHECK(real(json_at(json_get(mo, S("features")), 0), "psi") > 0.1);
    end();
}

RUN_TESTS(T(test_clean_traffic_is_quiet), T(test_shift_is_found_and_clears), T(test_null_spike),
          T(test_shifted_outputs_page), T(test_labels_get_worse),
          T(test_labels_worsen_during_a_drift), T(test_corrections_are_no_evidence),
          T(test_negative_counts), T(test_two_versions_share_a_budget), T(test_settings),
          T(test_unwatched_versions), T(test_columns_that_do_not_match), T(test_clock_steps),
          T(test_thin_traffic), T(test_gaps), T(test_shown_rate), T(test_report))
