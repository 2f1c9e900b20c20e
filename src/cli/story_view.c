/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   ╭ endpoint/fraud                                    2026-11-23  story 0193…
 *   ● 20:31:07.250        +0  │▏                       │ load injected     amount x3
 *   ● 20:31:11.480     +4.2s  │━━━                     │ drift detected    'amount' changed…
 *   │                             amount  ▇▇▇▇▇▇▇▇  psi 0.41 severe, mean +1.2 sd
 *   ╰ promoted: detected in 4.2s, retrained in 21s, live after 1m2s
 *
 * The bars are a waterfall on one scale, that of the whole story: a bar spans the time between the
 * fact before and this one, so the longest bar is where the time went.
 */
#include "cli/story_view.h"

#include "base/time.h"
#include "cli/paint.h"

#include <math.h>

#define TITLE_COLUMNS 21
#define DETAIL_INDENT 30
#define FEATURES_SHOWN 3
#define GATES_SHOWN 12
#define LEVEL_COLUMNS 12

static const struct kind {
    const char *name;
    enum paint paint;
    const char *mark;
} kinds[] = {
#define KIND(name, paint, mark) {name, PAINT_##paint, mark},
#include "cli/story_kinds.def"
#undef KIND
};

struct view {
    const struct story_view *v;
    struct arena *a;
    struct buf *out;
    const struct kind *kind; /* of the fact at hand */
    int64_t total_ns;
    size_t columns, bar;
};

static str text_of(const struct json *o, const char *key)
{
    return json_str_or(json_get(o, str_of(key)), S(""));
}

static int64_t int_of(const struct json *o, const char *key)
{
    return json_int_or(json_get(o, str_of(key)), 0);
}

static double real_of(const struct json *o, const char *key)
{
    return json_real_or(json_get(o, str_of(key)), NAN);
}

static const struct kind *kind_of(str name)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (str_eqz(name, kinds[i].name))
            return &kinds[i];
    return &kinds[ARRAY_LEN(kinds) - 1];
}

static void repeat(struct buf *out, size_t n, str what)
{
    while (n-- > 0)
        buf_add_str(out, what);
}

/* --- One line --------------------------------------------------------------------------------- */

static size_t scaled(const struct view *w, int64_t ns)
{
    if (w->total_ns <= 0)
        return 0;
    return (size_t)CLAMP((double)ns / (double)w->total_ns * (double)w->bar, 0, (double)w->bar);
}

static void write_bar(struct view *w, int64_t from_ns, int64_t to_ns)
{
    size_t from = MIN(scaled(w, from_ns), w->bar - 1), to = MAX(scaled(w, to_ns), from + 1);
    bool none = to_ns == from_ns;

    paint_text(w->out, w->v->color, PAINT_DIM, S("│"));
    paint_pad(w->out, 0, from);
    paint_begin(w->out, w->v->color, w->kind->paint);
    if (none)
        buf_add_str(w->out, S("╸"));
    else
        repeat(w->out, to - from, S("━"));
    paint_end(w->out, w->v->color, w->kind->paint);
    paint_pad(w->out, none ? from + 1 : to, w->bar);
    paint_text(w->out, w->v->color, PAINT_DIM, S("│"));
}

/* "rollout.step.advanced" becomes "rollout step advanced". */
static str title_of(struct view *w, str type)
{
    char *text = arena_dupz(w->a, type);

    for (size_t i = 0; i < type.n; i++)
        if (text[i] == '.' || text[i] == '_')
            text[i] = ' ';
    return (str){text, type.n};
}

/* What a step of a retrain did, where its fact gives no reason. */
static str step_text(struct view *w, const struct json *data)
{
    double took = real_of(data, "took_ms");
    int64_t rows = int_of(data, "train_rows");
    str text;

    if (!text_of(data, "step").n || !isfinite(took))
        return S("");
    text = arena_printf(w->a, STR_F " took " STR_F, STR_A(text_of(data, "step")),
                        STR_A(time_duration_text(w->a, (int64_t)(took * 1e6))));
    if (rows)
        text = arena_printf(w->a, STR_F ", %lld rows to train, %lld held out", STR_A(text),
                            (long long)rows, (long long)int_of(data, "holdout_rows"));
    return text;
}

static void write_fact_line(struct view *w, const struct json *fact)
{
    int64_t elapsed = int_of(fact, "elapsed_ns"), took = int_of(fact, "took_ns");
    str plus =
        elapsed ? arena_printf(w->a, "+" STR_F, STR_A(time_duration_text(w->a, elapsed))) : S("+0");
    str title = paint_cut(title_of(w, text_of(fact, "type")), TITLE_COLUMNS);
    str reason = text_of(fact, "reason");

    if (!reason.n || str_eq(reason, text_of(json_get(fact, S("data")), "step")))
        reason = step_text(w, json_get(fact, S("data")));
    paint_text(w->out, w->v->color, w->kind->paint, str_of(w->kind->mark));
    buf_add_char(w->out, ' ');
    paint_text(w->out, w->v->color, PAINT_DIM, paint_clock(w->a, int_of(fact, "at_ns")));
    buf_add_str(w->out, S("  "));
    paint_pad(w->out, paint_width(plus), 9);
    buf_add_str(w->out, plus);
    buf_add_str(w->out, S("  "));
    write_bar(w, elapsed - took, elapsed);
    buf_add_char(w->out, ' ');
    paint_text(w->out, w->v->color, w->kind->paint, title);
    if (reason.n) {
        paint_pad(w->out, paint_width(title), TITLE_COLUMNS);
        buf_add_str(w->out, S("  "));
        paint_text(w->out, false, PAINT_PLAIN, reason);
    }
    buf_add_char(w->out, '\n');
}

/* --- Details ---------------------------------------------------------------------------------- */

static void begin_detail(struct view *w)
{
    paint_text(w->out, w->v->color, PAINT_DIM, S("│"));
    paint_pad(w->out, 1, DETAIL_INDENT);
}

static void write_level(struct view *w, double share, enum paint p)
{
    size_t n = (size_t)(CLAMP(share, 0.0, 1.0) * LEVEL_COLUMNS + 0.5);

    paint_begin(w->out, w->v->color, p);
    repeat(w->out, n, S("▇"));
    paint_end(w->out, w->v->color, p);
    paint_begin(w->out, w->v->color, PAINT_DIM);
    repeat(w->out, LEVEL_COLUMNS - n, S("·"));
    paint_end(w->out, w->v->color, PAINT_DIM);
}

static size_t widest(const struct json *list, const char *key, size_t max)
{
    size_t n = 0, width = 0;

    JSON_EACH (item, list)
        if (n++ < max)
            width = MAX(width, MIN(paint_width(text_of(item, key)), (size_t)24));
    return width;
}

/* How large a feature's PSI is, on a scale that ends at one: a bar one can compare by eye. */
static void write_features(struct view *w, const struct json *data)
{
    const struct json *list = json_get(data, S("features"));
    size_t n = 0, width;

    if (!list || list->type != JSON_ARRAY)
        return;
    width = widest(list, "feature", FEATURES_SHOWN);
    JSON_EACH (f, list) {
        str name = paint_cut(text_of(f, "feature"), 24), change = text_of(f, "change");
        double psi = real_of(f, "psi"), mean = real_of(f, "mean_delta_sd");

        if (n++ == FEATURES_SHOWN)
            break;
        begin_detail(w);
        paint_text(w->out, false, PAINT_PLAIN, name);
        paint_pad(w->out, paint_width(name), width + 2);
        write_level(w, isfinite(psi) ? psi : 0, w->kind->paint);
        buf_printf(w->out, "  psi " STR_F " " STR_F, STR_A(paint_number(w->a, psi)),
                   STR_A(text_of(f, "severity")));
        if (isfinite(mean))
            buf_printf(w->out, ", mean %+.2g sd", mean);
        if (change.n)
            buf_printf(w->out, ", " STR_F, STR_A(paint_cut(change, 40)));
        buf_add_char(w->out, '\n');
    }
}

/* The first of these numbers that is there. */
static double first_real(const struct json *o, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (isfinite(real_of(o, keys[i])))
            return real_of(o, keys[i]);
    return NAN;
}

static void write_gates(struct view *w, const struct json *data)
{
    static const char *const new_keys[] = {"challenger", "value"};
    static const char *const old_keys[] = {"champion", "limit"};
    const struct json *list = json_get(data, S("gates"));
    size_t n = 0;

    if (!list || list->type != JSON_ARRAY)
        return;
    JSON_EACH (g, list) {
        str name = text_of(g, "name").n ? text_of(g, "name") : text_of(g, "metric");
        bool passed = json_bool_or(json_get(g, S("passed")), false);
        double now = first_real(g, new_keys, ARRAY_LEN(new_keys));
        double before = first_real(g, old_keys, ARRAY_LEN(old_keys));

        if (n++ == GATES_SHOWN)
            break;
        begin_detail(w);
        paint_text(w->out, w->v->color, passed ? PAINT_GREEN : PAINT_RED,
                   passed ? S("✓ ") : S("✗ "));
        paint_text(w->out, false, PAINT_PLAIN, paint_cut(name, 24));
        paint_pad(w->out, paint_width(paint_cut(name, 24)), 18);
        if (isfinite(now))
            buf_printf(w->out, "  " STR_F, STR_A(paint_number(w->a, now)));
        if (isfinite(before))
            buf_printf(w->out, "  against " STR_F, STR_A(paint_number(w->a, before)));
        buf_add_char(w->out, '\n');
    }
}

static void write_weight(struct view *w, const struct json *data)
{
    double weight = real_of(data, "weight");

    if (!isfinite(weight) || !json_get(data, S("steps")))
        return;
    begin_detail(w);
    write_level(w, weight, w->kind->paint);
    buf_printf(w->out, "  %.4g%% of the traffic to version %lld, " STR_F, weight * 100,
               (long long)int_of(data, "version"), STR_A(text_of(data, "state")));
    if (str_eq(text_of(data, "state"), S("step")))
        buf_printf(w->out, " %lld of %lld", (long long)int_of(data, "step") + 1,
                   (long long)int_of(data, "steps"));
    buf_add_char(w->out, '\n');
}

/* The guards that found harm: why traffic went back. */
static void write_guards(struct view *w, const struct json *data)
{
    const struct json *list = json_get(data, S("guards"));

    if (!list || list->type != JSON_ARRAY)
        return;
    JSON_EACH (g, list) {
        str verdict = text_of(g, "verdict");

        if (!str_eq(verdict, S("FAIL")))
            continue;
        begin_detail(w);
        paint_text(w->out, w->v->color, PAINT_RED, S("✗ "));
        buf_printf(w->out, STR_F " " STR_F ", allowed " STR_F "\n", STR_A(text_of(g, "guard")),
                   STR_A(paint_number(w->a, real_of(g, "value"))),
                   STR_A(paint_number(w->a, real_of(g, "limit"))));
    }
}

static const struct {
    const char *prefix;
    void (*write)(struct view *w, const struct json *data);
} details[] = {
    {"drift.detected", write_features}, {"drift.escalated", write_features},
    {"gate.evaluated", write_gates},    {"rollout.started", write_weight},
    {"rollout.step", write_weight},     {"rollout.rolled_back", write_guards},
    {"rollout.judged", write_guards},
};

static void write_details(struct view *w, const struct json *fact)
{
    str type = text_of(fact, "type");

    for (size_t i = 0; i < ARRAY_LEN(details); i++)
        if (str_starts(type, str_of(details[i].prefix))) {
            details[i].write(w, json_get(fact, S("data")));
            return;
        }
}

/* --- Head and end ----------------------------------------------------------------------------- */

static void write_head(struct view *w, const struct json *story)
{
    char at[TIME_ISO_SIZE];
    str subject = text_of(story, "subject");

    time_iso(int_of(story, "started_ns"), at);
    paint_text(w->out, w->v->color, PAINT_DIM, S("╭ "));
    paint_text(w->out, w->v->color, PAINT_BOLD, subject);
    buf_add_str(w->out, S("  "));
    paint_text(w->out, w->v->color, PAINT_DIM,
               arena_printf(w->a, "%.10s  story " STR_F, at, STR_A(text_of(story, "correlation"))));
    buf_add_char(w->out, '\n');
}

static enum paint outcome_paint(str outcome)
{
    return !outcome.n ? PAINT_YELLOW
           : str_eq(outcome, S("promoted")) || str_eq(outcome, S("cleared")) ||
                   str_eq(outcome, S("applied"))
               ? PAINT_GREEN
           : str_eq(outcome, S("skipped")) || str_eq(outcome, S("superseded")) ? PAINT_YELLOW
                                                                               : PAINT_MAGENTA;
}

static void write_end(struct view *w, const struct json *story)
{
    static const struct {
        const char *key, *text;
    } spans[] = {{"detect_ns", "detected in "},
                 {"retrain_ns", "retrained in "},
                 {"rollout_ns", "rolled out in "},
                 {"live_ns", "live after "}};
    const struct json *summary = json_get(story, S("summary"));
    str outcome = text_of(story, "outcome");
    const char *sep = ": ";

    paint_text(w->out, w->v->color, PAINT_DIM, S("╰ "));
    paint_text(w->out, w->v->color, outcome_paint(outcome), outcome.n ? outcome : S("open"));
    for (size_t i = 0; i < ARRAY_LEN(spans); i++) {
        const struct json *ns = json_get(summary, str_of(spans[i].key));

        if (!ns)
            continue;
        buf_printf(w->out, "%s%s", sep, spans[i].text);
        paint_text(w->out, w->v->color, PAINT_BOLD, time_duration_text(w->a, json_int_or(ns, 0)));
        sep = ", ";
    }
    buf_add_char(w->out, '\n');
}

/* Copies the text, each line cut to so many columns; colours take none and always pass. */
static void clip(struct buf *out, str text, size_t columns)
{
    size_t at = 0, escape = 0;

    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];

        if (c == '\033')
            escape = 1;
        if (c == '\n')
            at = 0;
        else if (!escape && ((unsigned char)c & 0xc0) != 0x80)
            at++;
        if (escape || at <= columns)
            buf_add_char(out, c);
        if (escape && c >= 'a' && c <= 'z')
            escape = 0;
    }
}

void story_view_write(const struct story_view *v, const struct json *story, struct arena *a,
                      struct buf *out)
{
    AUTO(buf_done) struct buf wide = {0};
    struct view w = {.v = v, .a = a, .out = &wide, .columns = (size_t)MAX(v->columns, 60)};
    const struct json *facts = json_get(story, S("facts"));

    buf_init(&wide, BUF_MAX_DEFAULT);
    w.bar = w.columns >= 140 ? 24 : w.columns >= 90 ? 16 : 8;
    w.total_ns = int_of(story, "ended_ns") - int_of(story, "started_ns");
    write_head(&w, story);
    if (facts && facts->type == JSON_ARRAY)
        JSON_EACH (fact, facts) {
            w.kind = kind_of(text_of(fact, "kind"));
            if (str_eq(text_of(fact, "kind"), S("quiet")) && facts->count > 1)
                continue; /* how it was done, beside what was done */
            write_fact_line(&w, fact);
            write_details(&w, fact);
        }
    write_end(&w, story);
    clip(out, buf_str(&wide), w.columns);
}
