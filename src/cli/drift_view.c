/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who looks here at night asks: is it drifting, since when, and what moved. So a monitor is one
 * line that says it in words, and of its columns only those are shown that stand out: moved beyond
 * a band of the monitor, moved more than twice what chance does, or with EVIDENCE_SHARE of the
 * budget on their own. Evidence grows with the rows even where nothing moves, which is why it is
 * never shown without the budget that it is held against.
 */
#include "cli/drift_view.h"

#include "cli/paint.h"

#include <math.h>
#include <stdlib.h>

#define EVIDENCE_SHARE 0.01
#define PSI_NOTABLE 0.01 /* below, twice the chance is still nothing */
#define NUMBERS_WIDTH 60 /* of a row of the table, beside the name */

static double real(const struct json *o, const char *key)
{
    return json_real_or(json_get(o, str_of(key)), NAN);
}

static str text(const struct json *o, const char *key, const char *none)
{
    return json_str_or(json_get(o, str_of(key)), str_of(none));
}

/* --- The verdict ------------------------------------------------------------------------------ */

static str rarity(const struct drift_view *v, const struct json *m)
{
    double s = real(m, "false_alarm_every_s"), budget = real(m, "budget_rows");

    if (!(s > 0))
        return arena_printf(v->a, " (one false alarm in " STR_F " rows)",
                            STR_A(paint_number(v->a, budget)));
    if (s >= 2 * 86400.0)
        return arena_printf(v->a, " (one false alarm in %.3g days)", s / 86400);
    return arena_printf(v->a, " (one false alarm in %.3g hours)", s / 3600);
}

static str evidence_words(const struct drift_view *v, const struct json *m)
{
    double evidence = real(m, "evidence"), budget = real(m, "budget_rows");

    if (!isfinite(evidence) || !isfinite(budget))
        return S("");
    return arena_printf(v->a, ": evidence " STR_F " of " STR_F, STR_A(paint_number(v->a, evidence)),
                        STR_A(paint_number(v->a, budget)));
}

static str state_words(const struct drift_view *v, const struct json *m, str state)
{
    int64_t since = json_int_or(json_get(m, S("first_breach_ns")), 0);

    if (str_eq(state, S("unwatched")))
        return arena_printf(v->a, "not watched: " STR_F, STR_A(text(m, "reason", "")));
    if (str_eq(state, S("warming")))
        return S("warming: no rows yet");
    if (!str_eq(state, S("drifting")))
        return state;
    return arena_printf(v->a, "drifting, " STR_F "%s, since " STR_F,
                        STR_A(text(m, "severity", "?")),
                        json_bool_or(json_get(m, S("labels_worse")), false) ? ", labels worse" : "",
                        STR_A(paint_ago(v->a, since, v->now_ns)));
}

/* What does not fit the line is left out: the verdict stands first. */
static void add_fitting(const struct drift_view *v, str part, size_t *width, struct buf *out)
{
    if (*width + part.n > v->columns)
        return;
    buf_add_str(out, part);
    *width += part.n;
}

static void write_verdict(const struct drift_view *v, const struct json *m, struct buf *out)
{
    str state = text(m, "state", "?"), words = state_words(v, m, state);
    bool judged = str_eq(state, S("ok")) || str_eq(state, S("drifting"));
    str evidence = judged ? evidence_words(v, m) : S(""), rare = S(""), rate;
    str name = text(m, "endpoint", "?");
    str version = arena_printf(v->a, " v" STR_F "  ", STR_A(text(m, "version", "-")));
    size_t width;

    rate = arena_printf(v->a, ", " STR_F " rows/s",
                        STR_A(paint_number(v->a, json_real_or(json_get(m, S("rows_per_s")), 0))));
    if (evidence.n)
        rare = rarity(v, m);
    width = paint_width(name) + version.n + paint_width(words);
    paint_text(out, v->color, PAINT_BOLD, name);
    paint_text(out, false, PAINT_PLAIN, version);
    paint_text(out, v->color,
               str_eq(state, S("drifting")) ? PAINT_RED
               : str_eq(state, S("ok"))     ? PAINT_GREEN
                                            : PAINT_DIM,
               words);
    add_fitting(v, evidence, &width, out);
    add_fitting(v, rare, &width, out);
    if (judged)
        add_fitting(v, rate, &width, out);
    buf_add_char(out, '\n');
}

/* --- Columns ---------------------------------------------------------------------------------- */

static int by_psi(const void *a, const void *b)
{
    double x = json_real_or(json_get(*(const struct json *const *)a, S("psi")), -1);
    double y = json_real_or(json_get(*(const struct json *const *)b, S("psi")), -1);

    return (x < y) - (x > y);
}

static bool stands_out(const struct json *f, double budget)
{
    double psi = real(f, "psi"), by_chance = json_real_or(json_get(f, S("psi_null")), 0);

    return !str_eq(text(f, "severity", "ok"), S("ok")) ||
           (psi >= PSI_NOTABLE && psi > 2 * by_chance) ||
           real(f, "evidence") >= EVIDENCE_SHARE * budget;
}

static void add_column(struct table *t, const struct json *f, size_t name_width)
{
    static const char *const numbers[] = {"psi", "psi_null", "mean_delta_sd", "evidence"};
    str severity = text(f, "severity", "ok");

    table_add(
        t, arena_printf(t->a, "  " STR_F, STR_A(paint_cut(text(f, "feature", "?"), name_width))));
    table_add(t, text(f, "role", ""));
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        table_add(t, paint_number(t->a, real(f, numbers[i])));
    table_add_painted(t,
                      str_eq(severity, S("ok"))       ? PAINT_GREEN
                      : str_eq(severity, S("severe")) ? PAINT_RED
                                                      : PAINT_YELLOW,
                      severity);
}

size_t drift_view_monitor(const struct drift_view *v, const struct json *monitor, struct buf *out)
{
    static const char *const titles[] = {"  COLUMN", "ROLE",     "PSI",     "BY CHANCE",
                                         "MEAN, SD", "EVIDENCE", "SEVERITY"};
    const struct json *features = json_get(monitor, S("features"));
    size_t count = json_is_container(features) ? features->count : 0, n = 0;
    const struct json **shown = ARENA_ARRAY(v->a, const struct json *, count + 1);
    size_t name_width = CLAMP(v->columns, NUMBERS_WIDTH + (size_t)12, NUMBERS_WIDTH + (size_t)40);
    double budget = real(monitor, "budget_rows");
    struct table t;

    write_verdict(v, monitor, out);
    if (count)
        JSON_EACH (f, features)
            if (v->all || stands_out(f, budget))
                shown[n++] = f;
    if (!n)
        return count;
    qsort(shown, n, sizeof(struct json *), by_psi);
    table_begin(&t, v->a, titles, ARRAY_LEN(titles));
    for (size_t i = 2; i < 6; i++)
        t.right[i] = true;
    for (size_t i = 0; i < n; i++)
        add_column(&t, shown[i], name_width - NUMBERS_WIDTH);
    table_write(&t, v->color, out);
    return count - n;
}

void drift_view_legend(struct buf *out)
{
    buf_add_str(out,
                S("PSI        how far a column is from its reference: 0.1 is worth a look, 0.25 "
                  "is much\n"
                  "BY CHANCE  the PSI that so few rows have on average without any drift\n"
                  "EVIDENCE   rises with each row that fits a change better; at the budget it "
                  "alarms\n"));
}
