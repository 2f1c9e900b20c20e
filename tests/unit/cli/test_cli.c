/* SPDX-License-Identifier: Apache-2.0 */
/* Options, drift of two files, and a story as a person sees it. */
#include "cli/drift_files.h"
#include "cli/drift_view.h"
#include "cli/options.h"
#include "cli/paint.h"
#include "cli/story_view.h"

#include "base/files.h"
#include "check.h"

static struct err e;

/* --- Options ---------------------------------------------------------------------------------- */

struct values {
    bool yes;
    const char *reason;
    int64_t limit;
    double threshold;
    struct cli_list metadata;
};
static const struct cli_option options[] = {
    {"yes", 'y', CLI_FLAG, NULL, "do not ask", offsetof(struct values, yes)},
    {"reason", 'r', CLI_TEXT, "TEXT", "why", offsetof(struct values, reason)},
    {"limit", 'n', CLI_INT, "N", "how many", offsetof(struct values, limit)},
    {"threshold", 0, CLI_REAL, "X", "how much", offsetof(struct values, threshold)},
    {"metadata", 'm', CLI_LIST, "K=V", "what", offsetof(struct values, metadata)},
};
static const struct cli_spec spec = {.name = "try",
                                     .usage = "A [B]",
                                     .summary = "a test",
                                     .examples = "",
                                     .options = options,
                                     .option_count = ARRAY_LEN(options),
                                     .args_min = 1,
                                     .args_max = 2};

#define PARSE(v, p, ...)                                               \
    cli_parse(&spec, (int)ARRAY_LEN(((char *[]){"try", __VA_ARGS__})), \
              (char *[]){"try", __VA_ARGS__}, v, p, &e)

static void test_options_are_read(void)
{
    struct values v = {.limit = 5};
    struct cli_parsed p;

    CHECK_OK(PARSE(&v, &p, "one", "--reason=because of = signs", "-n", "12", "--json", "-mk=v",
                   "--metadata", "a=b", "--", "--yes"),
             &e);
    CHECK_STR(str_of(v.reason), S("because of = signs"));
    CHECK_INT(v.limit, 12);
    CHECK_INT(v.metadata.n, 2);
    CHECK(p.json && !v.yes);
    CHECK_INT(p.arg_count, 2);
    CHECK_STR(str_of(p.args[1]), S("--yes"));
    CHECK_OK(PARSE(&v, &p, "--help"), &e);
    CHECK(p.help);
}

static void test_options_are_refused_with_a_way_on(void)
{
    struct values v = {0};
    struct cli_parsed p;

    CHECK_FAILS(PARSE(&v, &p, "a", "--reson", "x"), INVALID_ARGUMENT, &e, "--reason");
    CHECK_FAILS(PARSE(&v, &p, "a", "--jsn"), INVALID_ARGUMENT, &e, "did you mean --json");
    CHECK_FAILS(PARSE(&v, &p, "a", "--limit", "many"), INVALID_ARGUMENT, &e, "'many'");
    CHECK_FAILS(PARSE(&v, &p, "a", "--threshold", "nan"), INVALID_ARGUMENT, &e, "'nan'");
    CHECK_FAILS(PARSE(&v, &p, "a", "--reason"), INVALID_ARGUMENT, &e, "needs a value");
    CHECK_FAILS(PARSE(&v, &p, "a", "--yes=1"), INVALID_ARGUMENT, &e, "takes no value");
    CHECK_FAILS(PARSE(&v, &p, "a", "-z"), INVALID_ARGUMENT, &e, "-z");
    CHECK_FAILS(PARSE(&v, &p, "a", "b", "c"), INVALID_ARGUMENT, &e, "one argument too many");
    CHECK_FAILS(PARSE(&v, &p, "--json"), INVALID_ARGUMENT, &e, "weir try A [B]");
}

/* --- Drift of two files ----------------------------------------------------------------------- */

static int compare(const char *baseline, const char *current, double threshold, struct arena *a,
                   struct drift_files_result *ret)
{
    struct drift_files in = {.baseline = "b.json", .current = "c.json", .threshold = threshold};
    struct json *b, *c;

    if (!CHECK_OK(json_parse(str_of(baseline), a, &b, &e), &e) ||
        !CHECK_OK(json_parse(str_of(current), a, &c, &e), &e))
        return -1;
    in.baseline_tree = b;
    in.current_tree = c;
    return drift_files_compare(&in, a, ret, &e);
}

static void test_drift_of_files(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct drift_files_result r;
    const struct json *first;

    arena_init(&a, 0);
    NEED_OK(compare("{\"x\":[0.5,0.5],\"y\":[1,1],\"z\":[1]}",
                    "{\"x\":[0.25,0.75],\"y\":[10,10],\"w\":[1]}", 0.2, &a, &r),
            &e);
    first = json_at(json_get(r.report, S("results")), 0);
    /* (0.25-0.5) ln(0.25/0.5) + (0.75-0.5) ln(0.75/0.5) = 0.25 ln 3 */
    CHECK_NEAR(json_real_or(json_get(first, S("psi")), 0), 0.25 * log(3.0), 1e-7);
    /* 0.25 ln 0.5 + 0.75 ln 1.5 */
    CHECK_NEAR(json_real_or(json_get(first, S("kl_divergence")), 0),
               0.25 * log(0.5) + 0.75 * log(1.5), 1e-7);
    CHECK_STR(json_str_or(json_get(first, S("severity")), S("")), S("ALERT"));
    CHECK_INT(r.exceeded, 1);
    CHECK_INT(r.missing->count, 2);
    CHECK_INT(json_int_or(json_get(r.report, S("features_checked")), 0), 2);
    CHECK_INT(json_int_or(json_get(r.report, S("features_exceeded")), 0), 1);
    NEED_OK(compare("[1,2,3]", "[2,4,6]", 0.2, &a, &r), &e);
    CHECK_INT(r.exceeded, 0);
    NEED_OK(compare("[1,2,3]", "[2,4,6]", 0, &a, &r), &e);
    CHECK_INT(r.exceeded, 1); /* at the threshold exceeds */
    NEED_OK(compare("[1,0]", "[0,1]", 0.2, &a, &r), &e);
    CHECK(isfinite(
        json_real_or(json_get(json_at(json_get(r.report, S("results")), 0), S("psi")), INFINITY)));
}

#define MONITOR_JSON(state, more)                                                           \
    "{\"endpoint\":\"pay\",\"version\":\"3\",\"state\":\"" state                            \
    "\",\"rows_per_s\":2300,\"evidence\":12,\"budget_rows\":4.8e9,\"false_alarm_every_s\":" \
    "2592000" more "}"
#define COLUMN_JSON(name, psi, chance, evidence, severity)                                \
    "{\"feature\":\"" name "\",\"role\":\"feature\",\"psi\":" psi ",\"psi_null\":" chance \
    ",\"evidence\":" evidence ",\"severity\":\"" severity "\"}"
#define COLUMNS_JSON                                                                              \
    ",\"features\":[" COLUMN_JSON("calm", "0.02", "0.015", "9", "ok") "," COLUMN_JSON(            \
        "amount", "0.4", "0.001", "9", "severe") "," COLUMN_JSON("slow", "0.001", "0.001", "1e8", \
                                                                 "ok") "]"

static size_t draw(const char *monitor, size_t columns, bool all, struct arena *a, struct buf *out)
{
    struct drift_view v = {
        .a = a, .all = all, .columns = columns, .now_ns = INT64_C(7200000000000)};
    struct json *m;

    buf_clear(out);
    if (!CHECK_OK(json_parse(str_of(monitor), a, &m, &e), &e))
        return 0;
    return drift_view_monitor(&v, m, out);
}

static void test_monitors_in_words(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf out = {0};

    buf_init(&out, 1 << 20);
    draw(MONITOR_JSON("ok", ""), 100, false, &a, &out);
    CHECK_STR(buf_str(&out), S("pay v3  ok: evidence 12 of 4.8G (one false alarm in 30 days), 2300 "
                               "rows/s\n"));
    draw(MONITOR_JSON("ok", ""), 50, false, &a, &out);
    CHECK_STR(buf_str(&out), S("pay v3  ok: evidence 12 of 4.8G, 2300 rows/s\n"));
    draw(MONITOR_JSON("unwatched", ",\"reason\":\"it has no profile\""), 80, false, &a, &out);
    CHECK_STR(buf_str(&out), S("pay v3  not watched: it has no profile\n"));
    CHECK_INT(draw(MONITOR_JSON("drifting", ",\"severity\":\"severe\",\"labels_worse\":true,"
                                            "\"first_breach_ns\":3600000000000" COLUMNS_JSON),
                   80, false, &a, &out),
              1);
    CHECK(str_find(buf_str(&out), S("pay v3  drifting, severe, labels worse, since 1h ago")) == 0);
    CHECK(str_find(buf_str(&out), S("\n  amount")) > 0); /* the largest first */
    CHECK(str_find(buf_str(&out), S("  slow")) > str_find(buf_str(&out), S("  amount")));
    CHECK(str_find(buf_str(&out), S("calm")) < 0);
    CHECK_INT(draw(MONITOR_JSON("ok", COLUMNS_JSON), 80, true, &a, &out), 0);
    CHECK(str_find(buf_str(&out), S("calm")) > 0);
}

static void test_drift_files_are_refused(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct drift_files_result r;

    arena_init(&a, 0);
    CHECK_FAILS(compare("{\"x\":[1,2]}", "{\"x\":[1,2,3]}", 0.2, &a, &r), INVALID_ARGUMENT, &e,
                "same cells");
    CHECK_FAILS(compare("{\"x\":[1,-2]}", "{\"x\":[1,2]}", 0.2, &a, &r), INVALID_ARGUMENT, &e,
                "b.json: 'x' entry 1");
    CHECK_FAILS(compare("{\"x\":[0,0]}", "{\"x\":[1,2]}", 0.2, &a, &r), INVALID_ARGUMENT, &e,
                "adds up to nothing");
    CHECK_FAILS(compare("{\"x\":[1]}", "{\"y\":[1]}", 0.2, &a, &r), INVALID_ARGUMENT, &e,
                "no feature in common");
    CHECK_FAILS(compare("3", "[1]", 0.2, &a, &r), INVALID_ARGUMENT, &e, "b.json");
}

/* --- A story ---------------------------------------------------------------------------------- */

/* WEIR_GOLDEN_WRITE=1 writes the text anew, to be looked at. */
static void test_story_is_drawn(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf out = {0};
    const char *golden = "tests/unit/cli/story.txt";
    struct json *story;
    str text, want;

    arena_init(&a, 0);
    buf_init(&out, BUF_MAX_DEFAULT);
    NEED_OK(file_read_all("tests/unit/cli/story.json", 1 << 20, &a, &text, &e), &e);
    NEED_OK(json_parse(text, &a, &story, &e), &e);
    story_view_write(&(struct story_view){.columns = 120}, story, &a, &out);
    if (getenv("WEIR_GOLDEN_WRITE"))
        NEED_OK(file_replace(golden, buf_str(&out), &e), &e);
    NEED_OK(file_read_all(golden, 1 << 20, &a, &want, &e), &e);
    CHECK_STR(buf_str(&out), want);
}

static void test_story_is_coloured_only_when_asked(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf plain = {0}, color = {0};
    struct json *story;
    str text;

    arena_init(&a, 0);
    buf_init(&plain, BUF_MAX_DEFAULT);
    buf_init(&color, BUF_MAX_DEFAULT);
    NEED_OK(file_read_all("tests/unit/cli/story.json", 1 << 20, &a, &text, &e), &e);
    NEED_OK(json_parse(text, &a, &story, &e), &e);
    story_view_write(&(struct story_view){.columns = 80}, story, &a, &plain);
    story_view_write(&(struct story_view){.columns = 80, .color = true}, story, &a, &color);
    CHECK(str_find_char(buf_str(&plain), '\033') < 0);
    CHECK(str_find(buf_str(&color), S("\033[31m")) >= 0);
    for (str rest = buf_str(&plain); rest.p;) /* no line is wider than the terminal */
        CHECK(paint_width(str_cut(&rest, '\n')) <= 80);
}

static void test_text_cannot_steer_the_terminal(void)
{
    AUTO(buf_done) struct buf out = {0};

    buf_init(&out, 1024);
    paint_text(&out, false, PAINT_PLAIN, S("a\033[2Jb\n"));
    CHECK_STR(buf_str(&out), S("a?[2Jb?"));
    CHECK_INT(paint_width(S("caf\xc3\xa9")), 4);
    CHECK_STR(paint_cut(S("\xc3\xa9\xc3\xa9\xc3\xa9"), 2), S("\xc3\xa9\xc3\xa9"));
}

RUN_TESTS(T(test_options_are_read), T(test_options_are_refused_with_a_way_on),
          T(test_drift_of_files), T(test_monitors_in_words), T(test_drift_files_are_refused),
          T(test_story_is_drawn), T(test_story_is_coloured_only_when_asked),
          T(test_text_cannot_steer_the_terminal))
