/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Judging: the table of gates and the verdict.
 *
 * Three kinds of gates. Absolute ones (a floor of a metric, latency, size) compare two numbers.
 * Comparisons with the champion need two things: the metric within the tolerance, and a paired
 * sequential test that proves non-inferiority of the loss. That loss is 0/1 for classes, and for
 * numbers the absolute error over the widest label gap (limited to 1): a loss is what rows add up
 * to, which f1 or an area under a curve is not, so the test is on the loss and the metric is held
 * to its own tolerance beside it. Slices: a slice fails when e-BH over all slices, at the same
 * alpha, selects its evidence of harm; a slice whose metric merely lies below is not proved wrong
 * and not passed either.
 *
 * Verdict: REJECT when any mandatory gate failed; else ITERATE when any is open (more rows may
 * decide); else DEPLOY.
 */
#include "evaluate/evaluate.h"

#include <math.h>

#define PAIRED_ROWS_MIN 100

struct judging {
    const struct eval_config *cfg;
    const struct eval_result *champion, *challenger; /* champion may be NULL */
    struct arena *a;
    struct eval_gate *gates;
    size_t count, max;
    double scale; /* of absolute errors; 1 for classes */
};

const char *eval_verdict_name(enum eval_verdict v)
{
    static const char *const names[] = {"DEPLOY", "REJECT", "ITERATE"};

    return names[v];
}

static struct eval_gate *gate_add(struct judging *j, str name, double value, double threshold,
                                  bool higher)
{
    struct eval_gate *g = &j->gates[j->count++];

    ASSERT(j->count <= j->max);
    *g = (struct eval_gate){.name = name,
                            .value = value,
                            .threshold = threshold,
                            .champion = NAN,
                            .higher_is_better = higher,
                            .mandatory = true,
                            .ln_evidence = NAN,
                            .verdict = VERDICT_PASS};
    return g;
}

static void gate_end(struct eval_gate *g, enum verdict verdict, str why)
{
    g->verdict = verdict;
    g->passed = verdict == VERDICT_PASS;
    g->why = why;
}

/* At least as good; NaN never is. */
static bool reaches(double value, double threshold, bool higher)
{
    return higher ? value >= threshold : value <= threshold;
}

static void absolute(struct judging *j, str name, double value, double threshold, bool higher)
{
    struct eval_gate *g = gate_add(j, name, value, threshold, higher);
    bool ok = reaches(value, threshold, higher);

    gate_end(g, ok ? VERDICT_PASS : VERDICT_FAIL,
             isnan(value) ? S("not defined on these rows")
                          : arena_printf(j->a, "%.6g, %s %.6g", value,
                                         higher ? "at least" : "at most", threshold));
}

/* --- Paired ----------------------------------------------------------------------------------- */

static double loss(const struct judging *j, const struct eval_result *r, size_t row)
{
    double d = r->predicted[row] - r->labels[row];

    if (r->classes)
        return d != 0;
    return MIN(fabs(d) / j->scale, 1.0);
}

static bool comparable(const struct judging *j, size_t row)
{
    return isfinite(j->challenger->labels[row]) && isfinite(j->challenger->predicted[row]) &&
           isfinite(j->champion->predicted[row]);
}

/* The widest gap between labels: fixed by the labels alone. */
static double scale_of(const struct eval_result *r)
{
    double lo = INFINITY, hi = -INFINITY;

    if (r->classes)
        return 1;
    for (size_t row = 0; row < r->row_count; row++)
        if (isfinite(r->labels[row])) {
            lo = MIN(lo, r->labels[row]);
            hi = MAX(hi, r->labels[row]);
        }
    return hi > lo ? hi - lo : 1;
}

/* slice NULL: all rows. */
static NODISCARD int paired(const struct judging *j, double eps, const struct eval_slice *slice,
                            struct paired_gate *g, struct err *e)
{
    TRY(paired_gate_init(g, CLAMP(eps / j->scale, 0.0, 0.999), false, PAIRED_ROWS_MIN, e));
    for (size_t row = 0; row < j->challenger->row_count; row++) {
        if (slice && j->challenger->slice_of[slice->column_at][row] != slice->value_at)
            continue;
        if (comparable(j, row))
            paired_gate_row(g, loss(j, j->challenger, row) - loss(j, j->champion, row));
    }
    return 0;
}

static NODISCARD int against_champion(struct judging *j, const struct eval_gate_config *cfg,
                                      struct err *e)
{
    double ours = j->challenger->metrics[cfg->metric], theirs = j->champion->metrics[cfg->metric];
    bool higher = eval_metric_higher_is_better(cfg->metric), within;
    double threshold = higher ? theirs - cfg->not_worse_than : theirs + cfg->not_worse_than;
    struct paired_gate test;
    struct eval_gate *g;
    enum verdict verdict;

    g = gate_add(j, arena_printf(j->a, "%s not worse than champion", eval_metric_name(cfg->metric)),
                 ours, threshold, higher);
    g->champion = theirs;
    within = reaches(ours, threshold, higher);
    TRY(paired(j, cfg->not_worse_than, NULL, &test, e));
    verdict = paired_gate_verdict(&test, j->cfg->alpha);
    g->ln_evidence = verdict == VERDICT_FAIL ? test.harm.ln_peak : test.non_inferior.ln_peak;
    if (isnan(ours) || isnan(theirs))
        gate_end(g, VERDICT_FAIL, S("not defined on these rows"));
    else if (!within)
        gate_end(g, VERDICT_FAIL,
                 arena_printf(j->a, "%.6g, the champion has %.6g and %.6g is allowed for", ours,
                              theirs, cfg->not_worse_than));
    else if (verdict == VERDICT_PASS)
        gate_end(g, VERDICT_PASS,
                 arena_printf(j->a, "%.6g against %.6g, proved on %llu rows", ours, theirs,
                              (unsigned long long)test.n));
    else
        gate_end(g, verdict,
                 verdict == VERDICT_FAIL
                     ? arena_printf(j->a, "row by row it is worse: mean loss differs by %.6g",
                                    test.sum / (double)MAX(test.n, (uint64_t)1) * j->scale)
                     : arena_printf(j->a,
                                    "%.6g against %.6g, but %llu rows do not prove it: label more",
                                    ours, theirs, (unsigned long long)test.n));
    return 0;
}

/* --- Slices ----------------------------------------------------------------------------------- */

static const struct eval_slice *same_slice(const struct eval_result *r, const struct eval_slice *s)
{
    for (size_t i = 0; i < r->slice_count; i++)
        if (str_eq(r->slices[i].column, s->column) && str_eq(r->slices[i].value, s->value))
            return &r->slices[i];
    return NULL;
}

static NODISCARD int slice_gates(struct judging *j, struct err *e)
{
    const struct eval_result *us = j->challenger;
    double *ln_e = ARENA_ARRAY(j->a, double, us->slice_count + 1);
    bool *harmed = ARENA_ARRAY(j->a, bool, us->slice_count + 1);
    bool higher = eval_metric_higher_is_better(j->cfg->primary);
    struct paired_gate test;

    for (size_t i = 0; i < us->slice_count; i++) {
        TRY(paired(j, j->cfg->slice_tolerance, &us->slices[i], &test, e));
        ln_e[i] = test.harm.ln_peak;
    }
    ebh_select(ln_e, us->slice_count, j->cfg->alpha, harmed);
    for (size_t i = 0; i < us->slice_count; i++) {
        const struct eval_slice *s = &us->slices[i], *old = same_slice(j->champion, s);
        double ours = s->metrics[j->cfg->primary];
        double theirs = old ? old->metrics[j->cfg->primary] : (double)NAN;
        double tol = j->cfg->slice_tolerance;
        struct eval_gate *g =
            gate_add(j,
                     arena_printf(j->a, "slice " STR_F "=" STR_F, STR_A(s->column),
                                  STR_A(str_take(s->value, 64))),
                     ours, higher ? theirs - tol : theirs + tol, higher);

        g->champion = theirs;
        g->ln_evidence = ln_e[i];
        if (harmed[i])
            gate_end(g, VERDICT_FAIL,
                     arena_printf(j->a, "%.6g against %.6g on %zu rows: proved worse", ours, theirs,
                                  s->n));
        else if (isnan(ours) || isnan(theirs)) /* a slice of one class has no f1, and no harm */
            gate_end(g, VERDICT_PASS, S("metric not defined in this slice; no harm found"));
        else if (reaches(ours, g->threshold, higher))
            gate_end(g, VERDICT_PASS, arena_printf(j->a, "%.6g against %.6g", ours, theirs));
        else
            gate_end(g, VERDICT_INCONCLUSIVE,
                     arena_printf(j->a, "%.6g against %.6g on %zu rows: below, but not proved",
                                  ours, theirs, s->n));
    }
    return 0;
}

/* --- All -------------------------------------------------------------------------------------- */

static NODISCARD int same_rows(const struct eval_result *a, const struct eval_result *b,
                               struct err *e)
{
    bool same = a->row_count == b->row_count && a->classes == b->classes;

    for (size_t row = 0; same && row < a->row_count; row++)
        same = a->labels[row] == b->labels[row] || (isnan(a->labels[row]) && isnan(b->labels[row]));
    if (!same)
        return FAIL(e, INVALID_ARGUMENT,
                    "champion and challenger were not evaluated on the same rows");
    return 0;
}

static NODISCARD int all_gates(struct judging *j, struct err *e)
{
    const struct eval_config *cfg = j->cfg;
    const struct eval_result *us = j->challenger;

    for (uint32_t i = 0; i < cfg->gate_count; i++) {
        const struct eval_gate_config *g = &cfg->gates[i];
        bool higher = eval_metric_higher_is_better(g->metric);

        if (!isnan(g->min_absolute))
            absolute(j,
                     arena_printf(j->a, "%s %s %.6g", eval_metric_name(g->metric),
                                  higher ? ">=" : "<=", g->min_absolute),
                     us->metrics[g->metric], g->min_absolute, higher);
        if (j->champion && !isnan(g->not_worse_than))
            TRY(against_champion(j, g, e));
    }
    if (j->champion)
        TRY(slice_gates(j, e));
    if (!isnan(cfg->latency_p99_ns) && us->p99_ns)
        absolute(j, S("latency p99 ms"), (double)us->p99_ns / 1e6, cfg->latency_p99_ns / 1e6,
                 false);
    if (!isnan(cfg->size_ratio) && j->champion && j->champion->size_bytes && us->size_bytes)
        absolute(j, S("size ratio"), (double)us->size_bytes / (double)j->champion->size_bytes,
                 cfg->size_ratio, false);
    return 0;
}

static void conclude(struct judging *j, struct eval_judgement *to)
{
    const struct eval_gate *failed = NULL, *open = NULL, *one;

    for (size_t i = 0; i < j->count; i++) {
        const struct eval_gate *g = &j->gates[i];

        if (!g->mandatory || g->passed)
            continue;
        if (g->verdict == VERDICT_FAIL)
            failed = failed ? failed : g;
        else
            open = open ? open : g;
    }
    one = failed ? failed : open;
    to->verdict = failed ? EVAL_REJECT : open ? EVAL_ITERATE : EVAL_DEPLOY;
    to->reason = one ? arena_printf(j->a, STR_F ": " STR_F, STR_A(one->name), STR_A(one->why))
                 : j->count == 1 ? S("the only gate passed")
                                 : arena_printf(j->a, "all %zu gates passed", j->count);
    to->gates = j->gates;
    to->gate_count = j->count;
}

int evaluate_gate(const struct eval_config *cfg, const struct eval_result *champion,
                  const struct eval_result *challenger, struct arena *a, struct eval_judgement *ret,
                  struct err *e)
{
    struct judging j = {.cfg = cfg, .champion = champion, .challenger = challenger, .a = a};

    if (champion)
        TRY(same_rows(champion, challenger, e));
    j.scale = scale_of(challenger);
    j.max = cfg->gate_count * 2 + challenger->slice_count + 2;
    j.gates = ARENA_ARRAY(a, struct eval_gate, j.max);
    TRY(all_gates(&j, e));
    conclude(&j, ret);
    return 0;
}
