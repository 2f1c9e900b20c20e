/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One monitor: a version of an endpoint and its traffic.
 *
 *   WARMING  -- first rows --------------------------> OK
 *   OK       -- evidence reaches the budget ---------> DRIFTING   drift.detected
 *   DRIFTING -- more severe, confirmed, or the other
 *               kind of evidence too ----------------> DRIFTING   drift.escalated
 *   DRIFTING -- `sustained` quiet windows in a row,
 *               or the version no longer answers ----> OK         drift.cleared
 *
 * Columns (features and outputs) and labels are two kinds of evidence with shares of one budget.
 * What has alarmed is at rest until the drift is over: one change is one alarm. The other kind goes
 * on, because data that moved and answers that got worse are more than either alone.
 *
 * A fact comes first, the new state after it: when the journal cannot be written the evidence still
 * stands over its budget, and the alarm is tried again with the next digest. What outlives control
 * (kept.c) is written in the transaction of the fact.
 *
 * The budget in rows of a budget given in time is the endpoint's rate times that time; its versions
 * alarm each on rows of their own, so together no oftener than once in that time. The rate is a
 * decaying mean over all gateways. Gaps count as RATE_GAP_S at most, so that a night without
 * traffic does not make the first minutes of the morning cheap. It moves with digests alone: a
 * pause must not shrink the budget under evidence that was gathered at the rate before it. People
 * ask something else, whether there is traffic now: what reports show is a mean over RATE_LATELY_S,
 * and 0 once nothing came for as long.
 *
 * Labels: a correction changes the count of errors without a label that joined, and may concern any
 * earlier row. Only errors that must belong to labels of this very digest are bet on, which can
 * understate evidence and never makes it up.
 */
#include "base/time.h"
#include "watch/priv.h"

#include <math.h>

#define RATE_MEMORY_S 600.0
#define RATE_GAP_S 60.0
#define RATE_LEAST_S 0.1  /* the first digest is not one instant */
#define RATE_LATELY_S 5.0 /* what people call now */
#define BUDGET_LEAST 100  /* rows */
#define SHARE_LABELS 0.25 /* of the budget, where columns are watched too */
#define LABEL_MEMORY 2000 /* labels over which the recent error rate is taken */
#define LABELS_FOR_BAD 100

/* --- Budget ----------------------------------------------------------------------------------- */

static void measure_rate(struct monitor *mo, uint64_t rows, double span_s, int64_t mono_ns)
{
    double s = mo->last_mono_ns ? (double)(mono_ns - mo->last_mono_ns) / 1e9 : span_s, keep;

    s = CLAMP(s, 0.0, RATE_GAP_S);
    keep = exp(-s / RATE_MEMORY_S);
    mo->rate_rows = mo->rate_rows * keep + (double)rows;
    mo->rate_s = mo->rate_s * keep + s;
    mo->rate = mo->rate_rows / MAX(mo->rate_s, RATE_LEAST_S);
    mo->lately_rows = mo->lately_rows * exp(-s / RATE_LATELY_S) + (double)rows;
}

/* The sum of a steady rate r over decaying weights is r * RATE_LATELY_S * (1 - exp(-age /
 * RATE_LATELY_S)), age being that of the monitor. */
double monitor_rate_lately(const struct monitor *mo, int64_t mono_ns)
{
    double quiet_s = (double)(mono_ns - mo->rows_mono_ns) / 1e9;
    double since_s = (double)(mono_ns - mo->last_mono_ns) / 1e9;
    double age_s = (double)(mono_ns - mo->made_mono_ns) / 1e9;
    double weights = RATE_LATELY_S * -expm1(-MAX(age_s, 1.0) / RATE_LATELY_S);

    if (!mo->rows_mono_ns || quiet_s >= RATE_LATELY_S)
        return 0;
    return mo->lately_rows * exp(-since_s / RATE_LATELY_S) / weights;
}

static void set_budgets(struct monitor *mo, double other_rate)
{
    double all = mo->cfg.rows > 0 ? mo->cfg.rows
                                  : edetector_budget_rows(mo->rate + other_rate, mo->cfg.one_in_s);
    double labels = !mo->label_reference ? 0 : mo->detecting ? SHARE_LABELS : 1;

    all = MAX(all, BUDGET_LEAST);
    mo->detect.budget_rows = labels < 1 ? all / (1 - labels) : INFINITY;
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

/* The fact and the row that knows of it: both, or neither. */
static NODISCARD int tell(struct monitor *mo, struct meta *m, const struct drift_event *ev,
                          struct drift_story *story, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    const struct drift_story old = mo->story;
    const enum monitor_state was = mo->state;
    int rc;

    TRY(meta_begin(m, &tx, e));
    TRY(drift_fact_append(mo, m, ev, story, e));
    mo->story = *story;
    mo->state = MONITOR_DRIFTING;
    rc = monitor_save(mo, m, false, e);
    if (!rc)
        rc = meta_commit(&tx, e);
    if (rc) {
        mo->story = old;
        mo->state = was;
    }
    return rc;
}

static NODISCARD int alarm(struct monitor *mo, struct meta *m, struct drift_event *ev,
                           struct drift_story *story, uint64_t rows_ago, double rows_per_s,
                           struct err *e)
{
    double ago_s = rows_per_s > 0 ? (double)rows_ago / rows_per_s : 0;

    ev->type = mo->state == MONITOR_DRIFTING ? FACT_DRIFT_ESCALATED : FACT_DRIFT_DETECTED;
    story->quiet_windows = 0;
    if (ev->type == FACT_DRIFT_DETECTED) {
        story->began_rows = mo->rows - MIN(rows_ago, mo->rows);
        story->began_ns = ev->wall_ns - (int64_t)(MIN(ago_s, 1e8) * 1e9);
        story->detected_ns = ev->wall_ns;
    }
    mo->alarms++;
    if (tell(mo, m, ev, story, e)) {
        mo->alarms--;
        return (int)e->code;
    }
    return 0;
}

static NODISCARD int alarm_columns(struct monitor *mo, struct meta *m, const struct digest *d,
                                   int64_t wall_ns, struct err *e)
{
    struct drift_suspect list[SUSPECTS_MAX];
    struct drift_story story = mo->story;
    struct drift_event ev = {.column = -1,
                             .metric = "e-detector",
                             .value = edetector_endpoint_evidence(&mo->detect),
                             .threshold = mo->detect.budget_rows,
                             .from_ns = d->from_wall_ns,
                             .wall_ns = wall_ns};
    enum drift_severity severity = DRIFT_WATCH;
    size_t n = monitor_rank(mo, list);

    if (!n)
        return 0;
    for (size_t i = 0; i < n && (i == 0 || list[i].suspect.selected); i++)
        severity = MAX(severity, drift_severity_of(list[i].psi, &mo->cfg.bands));
    story.columns = true;
    story.severity = MAX(story.severity, severity);
    return alarm(mo, m, &ev, &story, list[0].suspect.rows_ago, mo->rate, e);
}

/* How bad a rise of the error rate is: the bands of a performance drop. */
static enum drift_severity concept_severity(double excess)
{
    static const struct drift_bands bands = {0.0, 0.02, 0.05};

    return MAX(drift_severity_of(excess, &bands), DRIFT_WATCH);
}

double monitor_recent_risk(const struct monitor *mo)
{
    return mo->recent_labels > 0
               ? (double)MAX(mo->recent_errors, INT64_C(0)) / (double)mo->recent_labels
               : NAN;
}

/* The error rate since the rise, as far as the recent labels tell. */
static NODISCARD int alarm_labels(struct monitor *mo, struct meta *m, const struct digest *d,
                                  int64_t wall_ns, struct err *e)
{
    struct drift_story story = mo->story;
    double risk = monitor_recent_risk(mo);
    double labels_per_s = mo->rate * (double)mo->labels_n / (double)MAX(mo->rows, UINT64_C(1));
    struct drift_event ev = {.concept = true,
                             .column = -1,
                             .metric = "error_rate",
                             .value = risk,
                             .threshold = mo->labels.m0,
                             .from_ns = d->from_wall_ns,
                             .wall_ns = wall_ns};

    story.labels = true;
    story.severity = MAX(story.severity, concept_severity(risk - mo->label_ref_risk));
    return alarm(mo, m, &ev, &story, betting_rows_ago(&mo->labels), labels_per_s, e);
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

/* --- The course of a drift -------------------------------------------------------------------- */

static NODISCARD int escalate(struct monitor *mo, struct meta *m, const struct window_sum *sum,
                              struct err *e)
{
    struct drift_story story = mo->story;
    struct drift_event ev = {.type = FACT_DRIFT_ESCALATED,
                             .column = sum->worst,
                             .metric = "psi",
                             .value = mo->columns[sum->worst].last.value,
                             .threshold = mo->cfg.bands.watch,
                             .consecutive = sum->streak,
                             .from_ns = mo->ended_from,
                             .wall_ns = mo->ended_to};

    story.severity = MAX(sum->severity, story.severity);
    if (!story.confirmed)
        story.confirmed_ns = mo->ended_to;
    story.confirmed = true;
    return tell(mo, m, &ev, &story, e);
}

int monitor_close(struct monitor *mo, struct meta *m, int64_t wall_ns, str reason, struct err *e)
{
    struct drift_event ev = {.type = FACT_DRIFT_CLEARED,
                             .concept = mo->story.labels && !mo->story.columns,
                             .column = -1,
                             .metric = "psi",
                             .threshold = mo->cfg.bands.watch,
                             .consecutive = mo->story.quiet_windows,
                             .from_ns = mo->ended_from,
                             .wall_ns = wall_ns,
                             .reason = reason};
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    const struct drift_story old = mo->story;
    int rc;

    if (mo->state != MONITOR_DRIFTING)
        return 0;
    TRY(meta_begin(m, &tx, e));
    TRY(drift_fact_append(mo, m, &ev, &mo->story, e));
    mo->state = MONITOR_OK;
    mo->story = (struct drift_story){0};
    rc = mo->column_count ? monitor_save(mo, m, true, e) : monitor_drop(mo, m, e);
    if (!rc)
        rc = meta_commit(&tx, e);
    if (rc) {
        mo->state = MONITOR_DRIFTING;
        mo->story = old;
        return rc;
    }
    mo->unsaved = true;
    if (mo->detecting)
        edetector_endpoint_reset(&mo->detect);
    if (mo->label_reference)
        betting_reset(&mo->labels);
    return 0;
}

static bool labels_are_bad(const struct monitor *mo)
{
    return mo->label_reference && mo->recent_labels >= LABELS_FOR_BAD &&
           monitor_recent_risk(mo) > mo->labels.m0;
}

static NODISCARD int judge_windows(struct monitor *mo, struct meta *m, const struct window_sum *sum,
                                   int64_t wall_ns, struct err *e)
{
    if (mo->state != MONITOR_DRIFTING || !sum->judged)
        return 0;
    mo->story.quiet_windows = sum->over || labels_are_bad(mo) ? 0 : mo->story.quiet_windows + 1;
    if (mo->story.quiet_windows >= mo->cfg.sustained)
        return monitor_close(mo, m, wall_ns, STR_NULL, e);
    if (sum->worst >= 0 && (!mo->story.confirmed || sum->severity > mo->story.severity))
        return escalate(mo, m, sum, e);
    return 0;
}

/* --- Folding ---------------------------------------------------------------------------------- */

static bool columns_alarm(struct monitor *mo, const struct digest_series *s)
{
    const struct cells *cells[RECORD_COLUMNS_MAX];

    if (!mo->detecting || !s->cells)
        return false;
    for (uint32_t i = 0; i < mo->column_count; i++)
        cells[i] = mo->columns[i].has_bank ? &s->cells[i] : NULL;
    return edetector_endpoint_block(&mo->detect, cells);
}

static bool labels_alarm(struct monitor *mo, const struct digest_labels *l)
{
    int64_t sure = l->errors - MAX(l->corrected, INT64_C(0));

    if (!mo->label_reference || l->joined <= 0)
        return false;
    return betting_block(&mo->labels, (uint64_t)l->joined,
                         (double)CLAMP(sure, INT64_C(0), l->joined));
}

static NODISCARD int detect(struct monitor *mo, struct meta *m, const struct digest *d,
                            const struct digest_series *s, int64_t wall_ns, struct err *e)
{
    bool columns = !mo->story.columns && columns_alarm(mo, s);
    bool labels = !mo->story.labels && labels_alarm(mo, &s->labels);

    if (columns)
        TRY(alarm_columns(mo, m, d, wall_ns, e));
    return labels ? alarm_labels(mo, m, d, wall_ns, e) : 0;
}

/* Counts of columns that the profile does not know cannot be compared with it. */
static bool fits(struct monitor *mo, const struct digest_series *s)
{
    if (s->column_count == mo->column_count && s->feature_count == mo->feature_count)
        return true;
    mo->no_profile =
        arena_printf(&mo->arena,
                     "its records have %u features and %u columns, its profile %u and %u: "
                     "register it again",
                     s->feature_count, s->column_count, mo->feature_count, mo->column_count);
    return false;
}

int monitor_fold(struct monitor *mo, struct meta *m, const struct digest *d,
                 const struct digest_series *s, double other_rate, int64_t wall_ns, struct err *e)
{
    int64_t mono = time_mono_ns();
    struct window_sum sum;

    if (mo->seen && !digest_clock_is_new(mo->seen, d))
        return 0; /* it is in the row that this monitor was restored from */
    mo->unsaved = true;
    measure_rate(mo, s->rows, (double)(d->to_wall_ns - d->from_wall_ns) / 1e9, mono);
    mo->last_mono_ns = MAX(mono, 1);
    if (s->rows)
        mo->rows_mono_ns = MAX(mono, 1);
    mo->rows += s->rows;
    if (mo->state == MONITOR_WARMING && s->rows)
        mo->state = MONITOR_OK;
    if (mo->no_profile.n || !fits(mo, s))
        return 0;
    if (s->rows)
        keep_block(mo, s);
    fold_labels(mo, &s->labels);
    set_budgets(mo, other_rate);
    monitor_windows(mo, s, wall_ns, &sum); /* before the rows that facts go with are written */
    TRY(detect(mo, m, d, s, wall_ns, e));
    return judge_windows(mo, m, &sum, wall_ns, e);
}
