/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows: how large a change is, in the words people know, and whether it stays.
 *
 * A window of a monitor is over when its time is up and it holds enough rows, whichever comes last:
 * where traffic is thin windows grow longer, so that a drift there can still be confirmed and can
 * still end. All columns are cut at the same digest. Time is the monotonic clock: a step of the
 * date neither ends nor prolongs a window. The columns' own windows (stats/window.h) are told a
 * clock that ticks once for each window.
 *
 * The bands apply to PSI less its mean under no change, (cells - 1)(1/rows + 1/reference rows): at
 * 500 rows and 34 cells chance alone gives 0.07, and with many columns one of them would always
 * seem to be over the bound.
 */
#include "base/time.h"
#include "watch/priv.h"

#include <math.h>

double drift_psi_excess(const struct cells_spec *spec, uint64_t rows, double psi)
{
    double noise;

    if (!rows || !spec->ref_n || !isfinite(psi))
        return 0;
    noise = (double)(cells_count(spec) - 1) * (1.0 / (double)rows + 1.0 / (double)spec->ref_n);
    return MAX(psi - noise, 0.0);
}

static double metric(const struct cells_spec *s, const struct cells *c)
{
    return drift_psi_excess(s, cells_total(c), window_metric_psi(s, c));
}

static void count(const struct monitor *mo, uint32_t i, const struct window_report *r,
                  struct window_sum *sum)
{
    bool over = r->outcome == WINDOW_PENDING || r->outcome == WINDOW_ALERT;

    if (over) {
        sum->over++;
        sum->outputs_over += mo->columns[i].is_output;
        sum->features_over += !mo->columns[i].is_output;
        sum->streak = MAX(sum->streak, r->streak);
    }
    if (r->outcome != WINDOW_ALERT)
        return;
    sum->alerting++;
    sum->severity = MAX(sum->severity, r->severity);
    if (sum->worst < 0 || r->value > mo->columns[sum->worst].last.value)
        sum->worst = (int)i;
}

void monitor_windows(struct monitor *mo, const struct digest_series *s, int64_t wall_ns,
                     struct window_sum *ret)
{
    int64_t mono = time_mono_ns();
    struct window_sum sum = {.worst = -1};
    bool over = mo->window_mono_ns && mono - mo->window_mono_ns >= mo->cfg.window_ns &&
                mo->window_rows >= mo->cfg.rows_min;

    if (over) {
        mo->window_no++;
        mo->ended_from = mo->window_ns;
        mo->ended_to = wall_ns;
    }
    if (over || !mo->window_mono_ns) {
        mo->window_mono_ns = MAX(mono, 1);
        mo->window_ns = wall_ns;
        mo->window_rows = 0;
    }
    mo->window_rows += s->rows;
    sum.judged = over;
    for (uint32_t i = 0; i < mo->column_count && s->cells; i++) {
        struct watch_column *c = &mo->columns[i];
        struct window_report r;

        if (!c->has_spec || c->ignored)
            continue;
        r = window_push(&c->window, &c->spec, &s->cells[i], mo->window_no, metric);
        if (r.outcome == WINDOW_OPEN)
            continue;
        c->last = r;
        count(mo, i, &r, &sum);
    }
    *ret = sum;
}
