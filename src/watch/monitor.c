/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One monitor: a version of an endpoint and its traffic.
 *
 *   WARMING  -- first rows --------------------------> OK
 *   OK       -- evidence reaches the budget ---------> DRIFTING   drift.detected
 *   DRIFTING -- more severe, or confirmed -----------> DRIFTING   drift.escalated
 *   DRIFTING -- `sustained` quiet windows in a row --> OK         drift.cleared
 *
 * While DRIFTING the detectors are held at rest: one change is one alarm. They start anew when it
 * is over, or with the next version, which has a reference of its own.
 *
 * The budget in rows of a budget given in time is the traffic's own rate times that time. The rate
 * is measured over stretches with traffic, slowly (RATE_MEMORY_S), and a fall of it does not lower
 * the budget within a digest: the larger of the old and the new rate counts, decaying.
 */
#include "base/time.h"
#include "watch/priv.h"

#include <math.h>

#define RATE_MEMORY_S 600.0
#define LABEL_MEMORY 2000 /* labels over which the recent error rate is taken */
#define SHARE_LABELS 0.25 /* of the budget, as in profile.c */

/* --- Budget ----------------------------------------------------------------------------------- */

static void measure_rate(struct monitor *mo, uint64_t rows, double seconds)
{
    double now = seconds > 0 ? (double)rows / seconds : 0, keep;

    if (!rows || seconds <= 0)
        return;
    keep = exp(-seconds / RATE_MEMORY_S);
    mo->rate =
        MAX(now > mo->rate && mo->rows < 10000 ? now : mo->rate * keep + now * (1 - keep), 1e-9);
}

static double budget_rows(const struct monitor *mo)
{
    double rows =
        mo->cfg.rows > 0 ? mo->cfg.rows : edetector_budget_rows(mo->rate, mo->cfg.one_in_s);

    return MAX(rows, 100);
}

static void set_budgets(struct monitor *mo)
{
    double all = budget_rows(mo), labels = mo->label_reference ? SHARE_LABELS : 0;

    mo->detect.budget_rows = all / (1 - labels);
    mo->labels.budget_rows = labels > 0 ? all / labels : INFINITY;
}

/* --- Blocks ----------------------------------------------------------------------------------- */

static void keep_block(struct monitor *mo, const struct digest_series *s)
{
    for (uint32_t i = 0; i < mo->column_count; i++) {
        struct cells *to = &mo->columns[i].blocks[mo->block_at];

        if (s->cells)
            *to = s->cells[i];
        else
            cells_clear(to);
    }
    mo->block_rows[mo->block_at] = s->rows;
    mo->block_at = (mo->block_at + 1) % BLOCKS_KEPT;
}

void monitor_recent(const struct monitor *mo, uint32_t i, uint64_t rows_ago, struct distance *ret)
{
    struct cells sum;
    uint64_t rows = 0;

    cells_clear(&sum);
    for (uint32_t back = 1; back <= BLOCKS_KEPT; back++) {
        uint32_t at = (mo->block_at + BLOCKS_KEPT - back) % BLOCKS_KEPT;

        if (rows && rows + mo->block_rows[at] > rows_ago)
            break;
        cells_merge(&sum, &mo->columns[i].blocks[at]);
        rows += mo->block_rows[at];
    }
    distance_of(&mo->columns[i].spec, &sum, ret);
}

/* --- Alarms ----------------------------------------------------------------------------------- */

static NODISCARD int enter_drift(struct monitor *mo, struct meta *m, struct drift_event *ev,
                                 struct err *e)
{
    mo->state = MONITOR_DRIFTING;
    mo->severity = ev->severity;
    mo->drift_ns = ev->wall_ns;
    mo->confirmed = false;
    mo->quiet_windows = 0;
    mo->alarms++;
    mo->correlation[0] = '\0';
    ev->type = FACT_DRIFT_DETECTED;
    return drift_fact_append(mo, m, ev, e);
}

static NODISCARD int alarm_columns(struct monitor *mo, struct meta *m, const struct digest *d,
                                   int64_t wall_ns, struct err *e)
{
    struct edetector_suspect top;
    struct distance dist;
    struct drift_event ev = {
        .metric = "e-detector", .from_ns = d->from_wall_ns, .wall_ns = wall_ns};

    if (!edetector_endpoint_suspects(&mo->detect, 0, &top, 1))
        return 0;
    monitor_recent(mo, top.feature, top.rows_ago, &dist);
    ev.kind = mo->columns[top.feature].is_output ? "prediction" : "feature";
    ev.value = edetector_endpoint_evidence(&mo->detect);
    ev.threshold = mo->detect.budget_rows;
    ev.rows_ago = top.rows_ago;
    ev.severity = MAX(drift_severity_of(dist.psi, &mo->cfg.bands), DRIFT_WATCH);
    return enter_drift(mo, m, &ev, e);
}

/* How bad a rise of the error rate is: the bands of a performance drop. */
static enum drift_severity concept_severity(double excess)
{
    static const struct drift_bands bands = {0.0, 0.02, 0.05};

    return MAX(drift_severity_of(excess, &bands), DRIFT_WATCH);
}

static double recent_risk(const struct monitor *mo)
{
    return mo->recent_labels > 0 ? (double)mo->recent_errors / (double)mo->recent_labels : 0;
}

static NODISCARD int alarm_labels(struct monitor *mo, struct meta *m, const struct digest *d,
                                  int64_t wall_ns, struct err *e)
{
    struct drift_event ev = {.kind = "concept",
                             .metric = "error_rate",
                             .value = recent_risk(mo),
                             .threshold = mo->labels.m0,
                             .severity = concept_severity(recent_risk(mo) - mo->label_ref_risk),
                             .rows_ago = betting_rows_ago(&mo->labels),
                             .from_ns = d->from_wall_ns,
                             .wall_ns = wall_ns};

    return enter_drift(mo, m, &ev, e);
}

static void fold_labels(struct monitor *mo, const struct digest_labels *l)
{
    mo->labels_n += l->joined;
    mo->label_errors += l->errors;
    mo->recent_labels += l->joined;
    mo->recent_errors += l->errors;
    while (mo->recent_labels > LABEL_MEMORY) {
        mo->recent_labels /= 2;
        mo->recent_errors /= 2;
    }
}

/* --- Windows: severity, confirmation, the end of a drift -----------------------------------------
 */

struct window_sum {
    uint32_t ended, over, alerting, judged;
    enum drift_severity severity;
    uint32_t streak;
};

static void push_windows(struct monitor *mo, const struct digest_series *s, int64_t wall_ns,
                         struct window_sum *sum)
{
    for (uint32_t i = 0; i < mo->column_count; i++) {
        struct watch_column *c = &mo->columns[i];
        struct window_report r;

        if (!c->has_spec || c->ignored || !s->cells)
            continue;
        r = window_push(&c->window, &c->spec, &s->cells[i], wall_ns, window_metric_psi);
        if (r.outcome == WINDOW_OPEN)
            continue;
        c->last = r;
        sum->ended++;
        sum->judged += r.outcome != WINDOW_TOO_FEW;
        sum->over += r.outcome == WINDOW_PENDING || r.outcome == WINDOW_ALERT;
        sum->alerting += r.outcome == WINDOW_ALERT;
        sum->severity = MAX(sum->severity, r.severity);
        sum->streak = MAX(sum->streak, r.streak);
    }
}

static NODISCARD int escalate(struct monitor *mo, struct meta *m, const struct window_sum *sum,
                              const struct digest *d, int64_t wall_ns, struct err *e)
{
    struct drift_event ev = {.type = FACT_DRIFT_ESCALATED,
                             .kind = "feature",
                             .metric = "psi",
                             .threshold = mo->cfg.bands.watch,
                             .severity = MAX(sum->severity, mo->severity),
                             .consecutive = sum->streak,
                             .from_ns = d->from_wall_ns,
                             .wall_ns = wall_ns};

    for (uint32_t i = 0; i < mo->column_count; i++)
        if (mo->columns[i].last.outcome == WINDOW_ALERT && mo->columns[i].last.value > ev.value) {
            ev.value = mo->columns[i].last.value;
            ev.kind = mo->columns[i].is_output ? "prediction" : "feature";
        }
    mo->severity = ev.severity;
    mo->confirmed = true;
    return drift_fact_append(mo, m, &ev, e);
}

static NODISCARD int clear(struct monitor *mo, struct meta *m, const struct digest *d,
                           int64_t wall_ns, struct err *e)
{
    struct drift_event ev = {.type = FACT_DRIFT_CLEARED,
                             .kind = "feature",
                             .metric = "psi",
                             .threshold = mo->cfg.bands.watch,
                             .consecutive = mo->quiet_windows,
                             .from_ns = d->from_wall_ns,
                             .wall_ns = wall_ns};

    TRY(drift_fact_append(mo, m, &ev, e));
    mo->state = MONITOR_OK;
    mo->severity = DRIFT_OK;
    if (mo->detecting)
        edetector_endpoint_reset(&mo->detect);
    if (mo->label_reference)
        betting_reset(&mo->labels);
    return 0;
}

static bool labels_are_bad(const struct monitor *mo)
{
    return mo->label_reference && mo->recent_labels >= 100 && recent_risk(mo) > mo->labels.m0;
}

static NODISCARD int judge_windows(struct monitor *mo, struct meta *m, const struct window_sum *sum,
                                   const struct digest *d, int64_t wall_ns, struct err *e)
{
    if (mo->state != MONITOR_DRIFTING || !sum->judged)
        return 0;
    mo->quiet_windows = sum->over || labels_are_bad(mo) ? 0 : mo->quiet_windows + 1;
    if (mo->quiet_windows >= mo->cfg.sustained)
        return clear(mo, m, d, wall_ns, e);
    if (sum->alerting && (!mo->confirmed || sum->severity > mo->severity))
        return escalate(mo, m, sum, d, wall_ns, e);
    return 0;
}

/* --- Folding ---------------------------------------------------------------------------------- */

static bool columns_alarm(struct monitor *mo, const struct digest_series *s)
{
    const struct cells *cells[RECORD_COLUMNS_MAX];

    if (!mo->detecting || !s->cells)
        return false;
    for (uint32_t i = 0; i < mo->column_count; i++)
        cells[i] = mo->columns[i].has_spec ? &s->cells[i] : NULL;
    return edetector_endpoint_block(&mo->detect, cells);
}

static NODISCARD int detect(struct monitor *mo, struct meta *m, const struct digest *d,
                            const struct digest_series *s, int64_t wall_ns, struct err *e)
{
    bool columns, labels;

    if (mo->state == MONITOR_DRIFTING)
        return 0;
    columns = columns_alarm(mo, s);
    labels = mo->label_reference && s->labels.joined > 0 &&
             betting_block(&mo->labels, (uint64_t)s->labels.joined,
                           (double)CLAMP(s->labels.errors, INT64_C(0), s->labels.joined));
    if (columns)
        return alarm_columns(mo, m, d, wall_ns, e);
    return labels ? alarm_labels(mo, m, d, wall_ns, e) : 0;
}

int monitor_fold(struct monitor *mo, struct meta *m, const struct digest *d,
                 const struct digest_series *s, int64_t wall_ns, struct err *e)
{
    struct window_sum sum = {0};

    if (!mo->first_ns)
        mo->first_ns = wall_ns;
    mo->last_ns = wall_ns;
    measure_rate(mo, s->rows, (double)(d->to_wall_ns - d->from_wall_ns) / 1e9);
    mo->rows += s->rows;
    if (mo->state == MONITOR_WARMING && s->rows)
        mo->state = MONITOR_OK;
    if (mo->no_profile.n || s->column_count != mo->column_count)
        return 0;
    keep_block(mo, s);
    fold_labels(mo, &s->labels);
    set_budgets(mo);
    TRY(detect(mo, m, d, s, wall_ns, e));
    push_windows(mo, s, wall_ns, &sum);
    return judge_windows(mo, m, &sum, d, wall_ns, e);
}
