/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A window is judged when the first counts after its end arrive (or when it is full, if it is
 * counted in rows): there is no timer here. That is late by at most one digest while traffic flows,
 * and without traffic there is nothing to judge.
 *
 * Too few rows say nothing in either direction, so such a window neither lengthens nor ends a
 * streak. An alert of a long streak is more severe: a small shift that will not go away ends up at
 * the top of somebody's list.
 */
#include "stats/window.h"

#include <math.h>

int window_init(struct window *w, const struct window_rule *rule, struct err *e)
{
    const struct drift_bands *b = &rule->bands;

    if (rule->length_ns < 0 || (rule->length_ns == 0 && rule->length_rows == 0))
        return FAIL(e, INVALID_ARGUMENT, "a window needs a length in time or in rows");
    if (rule->sustain < 1)
        return FAIL(e, INVALID_ARGUMENT, "sustain is 0, at least 1 window is needed");
    if (!(b->watch <= b->moderate && b->moderate <= b->severe))
        return FAIL(e, INVALID_ARGUMENT, "the bands %g, %g, %g do not ascend", b->watch,
                    b->moderate, b->severe);
    *w = (struct window){.rule = *rule};
    return 0;
}

double window_metric_psi(const struct cells_spec *s, const struct cells *c)
{
    return distance_psi(c->counts, s->ref_counts, cells_count(s));
}

static struct window_report judge(struct window *w, const struct cells_spec *s, int64_t to_ns,
                                  window_metric_fn metric)
{
    struct window_report r = {.rows = cells_total(&w->cells), .from_ns = w->from_ns};
    uint32_t raise;

    r.to_ns = to_ns;
    r.value = r.rows ? metric(s, &w->cells) : NAN;
    r.severity = drift_severity_of(r.value, &w->rule.bands);
    if (r.rows < w->rule.rows_min || r.rows == 0) {
        r.outcome = WINDOW_TOO_FEW;
    } else if (r.severity == DRIFT_OK) {
        w->streak = 0;
        r.outcome = WINDOW_QUIET;
    } else {
        w->streak++;
        r.outcome = w->streak >= w->rule.sustain ? WINDOW_ALERT : WINDOW_PENDING;
    }
    r.streak = w->streak;
    if (r.outcome == WINDOW_ALERT && w->rule.escalate) {
        raise = (w->streak - w->rule.sustain) / w->rule.escalate;
        r.severity = (enum drift_severity)MIN((uint32_t)r.severity + raise, (uint32_t)DRIFT_SEVERE);
    }
    cells_clear(&w->cells);
    return r;
}

struct window_report window_push(struct window *w, const struct cells_spec *s,
                                 const struct cells *c, int64_t now_ns, window_metric_fn metric)
{
    struct window_report r = {.outcome = WINDOW_OPEN, .value = NAN, .streak = w->streak};
    int64_t length = w->rule.length_ns;
    int64_t from = length ? now_ns - (now_ns % length + length) % length : now_ns;

    if (!w->started) {
        w->started = true;
        w->from_ns = from;
    }
    if (length && from > w->from_ns) {
        r = judge(w, s, w->from_ns + length, metric);
        w->from_ns = from;
        cells_merge(&w->cells, c);
        return r;
    }
    cells_merge(&w->cells, c);
    if (w->rule.length_rows && cells_total(&w->cells) >= w->rule.length_rows) {
        r = judge(w, s, now_ns, metric);
        w->from_ns = length ? w->from_ns : now_ns;
    }
    return r;
}
