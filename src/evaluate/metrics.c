/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measuring: from labels and predictions to a table of metrics, for all rows and for each slice.
 *
 * Every metric is a figure of a subset of rows, so that slices are the same computation on fewer
 * rows. What is not defined (no scores, no positive row, one class only) is NaN, never 0: a gate on
 * an undefined metric does not pass by accident.
 */
#include "evaluate/evaluate.h"

#include "base/mem.h"

#include <math.h>

static const struct {
    const char *name;
    bool numbers, higher;
} metrics[] = {
#define CLASSES false
#define NUMBERS true
#define EVAL_METRIC(name, text, task, higher) {text, task, higher},
#include "evaluate/metrics.def"
#undef EVAL_METRIC
#undef CLASSES
#undef NUMBERS
};

const char *eval_metric_name(enum eval_metric metric)
{
    return metrics[metric].name;
}

bool eval_metric_higher_is_better(enum eval_metric metric)
{
    return metrics[metric].higher;
}

bool eval_metric_find(str name, enum eval_metric *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(metrics); i++)
        if (str_eqz(name, metrics[i].name)) {
            *ret = (enum eval_metric)i;
            return true;
        }
    return false;
}

/* --- Numbers ---------------------------------------------------------------------------------- */

/* Rows of a subset: all, or those listed. */
struct subset {
    const struct eval_rows *rows;
    const uint32_t *at; /* NULL: all */
    size_t n;
};

static size_t row_at(const struct subset *s, size_t i)
{
    return s->at ? s->at[i] : i;
}

static bool usable(const struct eval_rows *r, size_t row)
{
    return isfinite(r->labels[row]) && isfinite(r->predicted[row]);
}

static size_t numbers(const struct subset *s, double *m)
{
    const struct eval_rows *r = s->rows;
    double absolute = 0, square = 0, relative = 0, mean = 0, spread = 0;
    size_t n = 0, nonzero = 0;

    for (size_t i = 0; i < s->n; i++) {
        size_t row = row_at(s, i);
        double d = r->predicted[row] - r->labels[row], from_mean;

        if (!usable(r, row))
            continue;
        n++;
        absolute += fabs(d);
        square += d * d;
        if (r->labels[row] != 0) {
            relative += fabs(d / r->labels[row]);
            nonzero++;
        }
        from_mean = r->labels[row] - mean; /* Welford */
        mean += from_mean / (double)n;
        spread += from_mean * (r->labels[row] - mean);
    }
    if (!n)
        return 0;
    m[EVAL_RMSE] = sqrt(square / (double)n);
    m[EVAL_MAE] = absolute / (double)n;
    m[EVAL_MAPE] = nonzero ? relative / (double)nonzero : (double)NAN;
    m[EVAL_R2] = spread > 0 ? 1 - square / spread : (double)NAN;
    return n;
}

/* --- Classes ---------------------------------------------------------------------------------- */

static void from_confusion(const struct confusion *c, int32_t positive, double *m)
{
    struct class_report report;

    confusion_report(c, &report);
    m[EVAL_ACCURACY] = report.accuracy;
    m[EVAL_MACRO_F1] = report.f1_macro;
    m[EVAL_F1] = report.f1_macro;
    m[EVAL_PRECISION] = report.precision_macro;
    m[EVAL_RECALL] = report.recall_macro;
    if (positive < 0)
        return;
    const struct class_scores *p = &report.per_class[positive];
    m[EVAL_F1] = p->defined ? p->f1 : (double)NAN;
    m[EVAL_PRECISION] = p->defined ? p->precision : (double)NAN;
    m[EVAL_RECALL] = p->defined ? p->recall : (double)NAN;
}

static NODISCARD int from_scores(const struct subset *s, double *m, struct err *e)
{
    const struct eval_rows *r = s->rows;
    AUTO(mem_freep) struct scored *list = mem_try_alloc(MAX(s->n, (size_t)1) * sizeof(*list));
    struct scored_report report;
    size_t n = 0;

    if (!list)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the scores of %zu rows", s->n);
    for (size_t i = 0; i < s->n; i++) {
        size_t row = row_at(s, i);

        if (usable(r, row) && isfinite(r->scores[row]))
            list[n++] = (struct scored){.score = r->scores[row],
                                        .label = (int32_t)r->labels[row] == r->positive};
    }
    TRY(scored_report_of(list, n, &report, e));
    m[EVAL_ROC_AUC] = report.roc_auc;
    m[EVAL_PR_AUC] = report.pr_auc;
    m[EVAL_LOG_LOSS] = report.log_loss;
    m[EVAL_BRIER] = report.brier;
    return 0;
}

static void log_loss_many(const struct subset *s, double *m)
{
    const struct eval_rows *r = s->rows;
    double sum = 0;
    size_t n = 0;

    for (size_t i = 0; i < s->n; i++) {
        double p = r->label_probability[row_at(s, i)];

        if (!usable(r, row_at(s, i)) || !isfinite(p))
            continue;
        sum -= log(CLAMP(p, 2.2e-16, 1.0));
        n++;
    }
    if (n)
        m[EVAL_LOG_LOSS] = sum / (double)n;
}

static NODISCARD int classes(const struct subset *s, double *m, struct confusion *c, size_t *ret_n,
                             struct err *e)
{
    const struct eval_rows *r = s->rows;
    size_t n = 0;

    confusion_init(c, r->classes);
    for (size_t i = 0; i < s->n; i++) {
        size_t row = row_at(s, i);

        if (!usable(r, row))
            continue;
        confusion_add(c, (uint32_t)r->labels[row], (uint32_t)r->predicted[row], 1);
        n++;
    }
    *ret_n = n;
    if (!n)
        return 0;
    from_confusion(c, r->positive, m);
    if (r->scores && r->classes == 2 && r->positive >= 0)
        return from_scores(s, m, e);
    if (r->label_probability)
        log_loss_many(s, m);
    return 0;
}

static NODISCARD int subset_measure(const struct subset *s, double *m, struct confusion *c,
                                    size_t *ret_n, struct err *e)
{
    for (size_t i = 0; i < EVAL_METRIC_COUNT; i++)
        m[i] = NAN;
    if (s->rows->classes)
        return classes(s, m, c, ret_n, e);
    *ret_n = numbers(s, m);
    return 0;
}

/* --- Slices ----------------------------------------------------------------------------------- */

static NODISCARD int slice_measure(const struct eval_rows *rows, uint32_t column, uint32_t value,
                                   uint32_t *list, struct eval_result *to, struct err *e)
{
    AUTO(mem_freep) struct confusion *c = mem_alloc(sizeof(*c));
    struct eval_slice slice = {.column_at = column, .value_at = value};
    struct subset s = {.rows = rows, .at = list};

    for (size_t row = 0; row < rows->n; row++)
        if (rows->slice_of[column][row] == value)
            list[s.n++] = (uint32_t)row;
    if (s.n < EVAL_SLICE_SUPPORT_MIN)
        return 0;
    TRY(subset_measure(&s, slice.metrics, c, &slice.n, e));
    if (slice.n < EVAL_SLICE_SUPPORT_MIN)
        return 0;
    slice.column = arena_dup(&to->arena, rows->slice_columns[column]);
    slice.value = arena_dup(&to->arena, rows->slice_values[column][value]);
    to->slices[to->slice_count++] = slice;
    return 0;
}

static NODISCARD int slices_measure(const struct eval_rows *rows, struct eval_result *to,
                                    struct err *e)
{
    AUTO(mem_freep) uint32_t *list = mem_try_alloc(MAX(rows->n, (size_t)1) * sizeof(*list));
    size_t max = 0;

    if (!list)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the slices of %zu rows", rows->n);
    for (uint32_t c = 0; c < rows->slice_column_count; c++)
        max += rows->slice_value_counts[c];
    max = MIN(max, (size_t)EVAL_SLICES_MAX);
    to->slices = ARENA_ARRAY(&to->arena, struct eval_slice, max + 1);
    to->slice_of = ARENA_ARRAY(&to->arena, uint32_t *, rows->slice_column_count + 1);
    for (uint32_t c = 0; c < rows->slice_column_count; c++) {
        to->slice_of[c] = ARENA_ARRAY(&to->arena, uint32_t, rows->n + 1);
        memcpy(to->slice_of[c], rows->slice_of[c], rows->n * sizeof(uint32_t));
        for (uint32_t v = 0; v < rows->slice_value_counts[c] && to->slice_count < max; v++)
            TRY(slice_measure(rows, c, v, list, to, e));
    }
    return 0;
}

/* --- All -------------------------------------------------------------------------------------- */

static NODISCARD int rows_check(const struct eval_rows *rows, struct err *e)
{
    if (rows->n > UINT32_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED, "%zu rows are too many to evaluate at once", rows->n);
    if (!rows->classes)
        return 0;
    if (rows->classes < 2 || rows->classes > CLASSIFY_CLASSES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%u classes: expected 2 to %d", rows->classes,
                    CLASSIFY_CLASSES_MAX);
    for (size_t row = 0; row < rows->n; row++)
        if (usable(rows, row) &&
            !(rows->labels[row] >= 0 && rows->labels[row] < rows->classes &&
              rows->predicted[row] >= 0 && rows->predicted[row] < rows->classes))
            return FAIL(e, INVALID_ARGUMENT, "row %zu: a class outside 0 to %u", row,
                        rows->classes - 1);
    return 0;
}

int evaluate_measure(const struct eval_rows *rows, struct eval_result *ret, struct err *e)
{
    AUTO(eval_result_done) struct eval_result r = {.classes = rows->classes};
    const struct subset all = {.rows = rows, .n = rows->n};

    arena_init(&r.arena, 0);
    r.positive = rows->classes ? rows->positive : -1;
    TRY(rows_check(rows, e));
    if (rows->classes)
        r.confusion = ARENA_NEW(&r.arena, struct confusion);
    TRY(subset_measure(&all, r.metrics, r.confusion, &r.n, e));
    if (!r.n)
        return FAIL(e, FAILED_PRECONDITION,
                    "none of the %zu rows has both a label and a prediction", rows->n);
    r.row_count = rows->n;
    r.labels = ARENA_ARRAY(&r.arena, double, rows->n);
    r.predicted = ARENA_ARRAY(&r.arena, double, rows->n);
    memcpy(r.labels, rows->labels, rows->n * sizeof(double));
    memcpy(r.predicted, rows->predicted, rows->n * sizeof(double));
    TRY(slices_measure(rows, &r, e));
    *ret = r;
    r = (struct eval_result){0};
    return 0;
}

void eval_result_done(struct eval_result *r)
{
    arena_done(&r->arena);
    *r = (struct eval_result){0};
}
