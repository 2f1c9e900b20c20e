/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evidence for and against a new version, and what follows from it.
 *
 * Every guard is a claim of harm with an e-process of its own, fed with counts: it may be judged
 * after every digest. A version that is as good as the limits demand is taken back with chance at
 * most alpha over the whole rollout: alpha is shared among the guards that can take back and among
 * the phases (shadow, steps, review, bake), each of which gathers anew. Nothing is averaged over
 * windows and no outlier is dropped: a rare failure counts.
 *
 *   error_rate    failures are more frequent than the limit   (against Bernoulli(limit))
 *   error_ratio   odds of failure are higher than the champion's by more than the factor (two arms)
 *   p99           more than 1 answer in 100 is slower than the limit (against Bernoulli(0.01))
 *   p99_ratio     a point estimate against the champion's: a reason to wait, never to take back
 *   output_shift  PSI between the outputs of the two, where they are counted in the same cells;
 *                 judged when the rows have doubled, at alpha shared out over these looks
 *   labels        worse than the champion on the same requests (shadow: paired losses), or on
 *                 requests of the same time (two arms: proved worse at all, and by more than
 *                 label_error in the estimate)
 *   agreement     shadow: answers differ more often than allowed
 *
 * What a guard says: FAIL, harm is proved. INCONCLUSIVE, half proved (half of the logarithm that a
 * proof needs): wait. PASS, enough was seen and nothing speaks against the version.
 * INSUFFICIENT_EVIDENCE, less was seen than a judgement needs; it is never taken for PASS. The step
 * as a whole passes without labels and without 300 requests for a 99th percentile, since these may
 * never come, and then says what is not known; it does not pass without requests, without its rows,
 * or without the agreement that was asked for.
 *
 * Corrections of earlier labels come without rows of their own. Two-arm blocks then count for the
 * challenger only the errors that cannot be corrections; paired blocks with corrections are left
 * out.
 */
#include "rollout/priv.h"

#include "stats/confseq.h"
#include "stats/distance.h"
#include "stats/special.h"

#include <math.h>
#include <stdio.h>

#define REQUESTS_MIN 30 /* before a rate of failures means anything */
#define P99_MIN 300     /* requests for a 99th percentile */
#define LABELS_MIN 50
#define OUTPUTS_MIN 500 /* rows of each arm at the first look at outputs */
#define SLOW_SHARE 0.01
#define FORMULA 2 /* of the judgements in facts: raise it when they are computed in another way */

static const char *const names[GUARD_COUNT] = {
    "error_rate", "error_ratio", "p99", "p99_ratio", "output_shift", "labels", "agreement"};

const char *guard_name(enum guard_id g)
{
    return names[g];
}

void evidence_reset(struct evidence *ev, const struct rollout_config *cfg)
{
    double odds = isfinite(cfg->error_ratio) ? MAX(cfg->error_ratio, 1.0) : 1.5;
    double eps = isfinite(cfg->label_error) ? CLAMP(cfg->label_error, 0.0, 0.5) : 0.01;
    struct err e;
    bool ready;

    memset(ev, 0, sizeof(*ev));
    ev->output_look = OUTPUTS_MIN;
    ready = !twoarm_gate_init(&ev->error_ratio, odds, odds + 0.5, REQUESTS_MIN, &e) &&
            !twoarm_gate_init(&ev->label_ratio, 1.0, 1.25, LABELS_MIN, &e) &&
            !paired_gate_init(&ev->paired, eps, false, LABELS_MIN, &e);
    ASSERT(ready);
}

/* The claims that can take a version back, and the phases in which they can. */
double evidence_alpha(const struct rollout_config *cfg)
{
    uint32_t guards = isfinite(cfg->error_rate) + isfinite(cfg->error_ratio) +
                      isfinite(cfg->p99_ns) + isfinite(cfg->output_shift) +
                      isfinite(cfg->label_error) + isfinite(cfg->shadow_agreement);
    uint32_t phases =
        1 + cfg->step_count + cfg->review + (cfg->shadow_ns > 0 || cfg->shadow_rows_min > 0);

    return cfg->alpha / MAX(guards, 1u) / phases;
}

/* --- Gathering -------------------------------------------------------------------------------- */

static void arm_add(struct arm *to, const struct arm *from)
{
    to->requests += from->requests;
    to->failed += from->failed;
    to->rows += from->rows;
    to->labels += from->labels;
    to->label_errors += from->label_errors;
    to->corrected += from->corrected;
    latency_merge(&to->latency, &from->latency);
}

static void arm_of(struct arm *a, const struct digest_series *s)
{
    /* What the caller did wrong is nobody's failure. */
    uint64_t counted = s->requests - MIN(s->status[4], s->requests);

    a->requests += counted;
    a->failed += MIN(s->status[5], counted);
    a->rows += s->rows;
    a->labels += MAX(s->labels.joined, INT64_C(0));
    a->label_errors += s->labels.errors;
    a->corrected += MAX(s->labels.corrected, INT64_C(0));
    if (s->latency)
        latency_merge(&a->latency, s->latency);
}

static double ln_now(const struct eprocess *p)
{
    return special_log_sum_exp(p->ln_wealth, GATE_GRID) - log(GATE_GRID);
}

/* Adds a block of k events in n rows to an e-process against Bernoulli(p0): the mean over bets on
 * alternatives spread above p0, as in stats/betting.h, without restarts. */
static void bernoulli_block(struct eprocess *p, double p0, uint64_t k, uint64_t n)
{
    if (!n || !(p0 > 0 && p0 < 1))
        return;
    k = MIN(k, n);
    for (int j = 0; j < GATE_GRID; j++) {
        double q = p0 + (1 - p0) * (0.002 * pow(400, (double)j / (GATE_GRID - 1)));

        q = MIN(q, 0.9999);
        p->ln_wealth[j] += (double)k * log(q / p0) + (double)(n - k) * log((1 - q) / (1 - p0));
    }
    p->ln_peak = MAX(p->ln_peak, ln_now(p));
}

/* Errors among the labels that joined, at least and at most. */
static uint64_t errors_at_least(const struct arm *a)
{
    return (uint64_t)CLAMP(a->label_errors - a->corrected, INT64_C(0), a->labels);
}

static uint64_t errors_at_most(const struct arm *a)
{
    return (uint64_t)CLAMP(a->label_errors + a->corrected, INT64_C(0), a->labels);
}

static void fold_arms(struct evidence *ev, const struct rollout_config *cfg, const struct arm *a,
                      const struct arm *b)
{
    if (isfinite(cfg->error_rate))
        bernoulli_block(&ev->error_rate, MAX(cfg->error_rate, 1e-4), b->failed, b->requests);
    if (isfinite(cfg->p99_ns))
        bernoulli_block(&ev->slow, SLOW_SHARE, latency_above(&b->latency, (uint64_t)cfg->p99_ns),
                        b->latency.n);
    if (a->requests && b->requests)
        twoarm_gate_block(&ev->error_ratio, a->requests, a->failed, b->requests, b->failed);
    if (a->labels > 0 && b->labels > 0)
        twoarm_gate_block(&ev->label_ratio, (uint64_t)a->labels, errors_at_most(a),
                          (uint64_t)b->labels, errors_at_least(b));
    arm_add(&ev->champion, a);
    arm_add(&ev->challenger, b);
}

static void fold_pairs(struct evidence *ev, const struct digest_paired *p, bool corrections)
{
    bool whole = !corrections;

    ev->compared += MAX(p->compared, INT64_C(0));
    ev->agreed += CLAMP(p->agreed, INT64_C(0), MAX(p->compared, INT64_C(0)));
    for (int i = 0; i < 4; i++) {
        ev->outcome[i / 2][i % 2] += p->outcome[i / 2][i % 2];
        whole &= p->outcome[i / 2][i % 2] >= 0;
    }
    if (whole)
        paired_gate_counts(&ev->paired, (uint64_t)p->outcome[0][1],
                           (uint64_t)(p->outcome[0][0] + p->outcome[1][1]),
                           (uint64_t)p->outcome[1][0]);
}

/* --- Outputs ---------------------------------------------------------------------------------- */

static void fold_outputs(struct evidence *ev, const struct output_pairs *pairs, int arm,
                         const struct digest_series *s)
{
    for (uint32_t i = 0; i < pairs->count && s->cells; i++)
        if (pairs->pair[i].at[arm] < s->column_count)
            for (uint32_t c = 0; c < pairs->pair[i].cells; c++)
                ev->outputs[i][arm][c] += s->cells[pairs->pair[i].at[arm]].counts[c];
}

static uint64_t output_rows(const struct evidence *ev, const struct output_pairs *pairs, int arm)
{
    uint64_t rows = 0;

    for (uint32_t c = 0; pairs->count && c < pairs->pair[0].cells; c++)
        rows += ev->outputs[0][arm][c];
    return rows;
}

/* The largest PSI of the pairs, less what chance exceeds with probability alpha when the true
 * shares are equal (alpha 0: as it is). */
static double output_psi(const struct evidence *ev, const struct output_pairs *pairs, double alpha)
{
    double rows_a = (double)output_rows(ev, pairs, 0), rows_b = (double)output_rows(ev, pairs, 1);
    double worst = 0;

    for (uint32_t i = 0; i < pairs->count; i++) {
        uint32_t cells = pairs->pair[i].cells;
        double psi = distance_psi(ev->outputs[i][1], ev->outputs[i][0], cells);

        if (alpha > 0)
            psi -= distance_psi_null(rows_b, rows_a, cells, alpha / pairs->count);
        worst = MAX(worst, isfinite(psi) ? psi : 0);
    }
    return worst;
}

static void judge_outputs_if_due(struct evidence *ev, const struct evidence_scope *sc)
{
    uint64_t rows = MIN(output_rows(ev, sc->outputs, 0), output_rows(ev, sc->outputs, 1));
    double look, alpha;

    if (!isfinite(sc->cfg->output_shift) || rows < ev->output_look)
        return;
    look = (double)++ev->output_looks;
    alpha = evidence_alpha(sc->cfg) * 6 / (M_PI * M_PI * look * look);
    ev->output_harm |= output_psi(ev, sc->outputs, alpha) > sc->cfg->output_shift;
    while (ev->output_look <= rows)
        ev->output_look *= 2;
}

void evidence_fold(struct evidence *ev, const struct evidence_scope *sc, const struct digest *d)
{
    struct arm a = {0}, b = {0};

    for (uint32_t i = 0; i < d->series_count; i++) {
        const struct digest_series *s = d->series[i];

        if (str_eq(s->endpoint, sc->endpoint) && str_eq(s->version, sc->champion) && !s->shadow) {
            arm_of(&a, s);
            fold_outputs(ev, sc->outputs, 0, s);
        }
    }
    for (uint32_t i = 0; i < d->series_count; i++) {
        const struct digest_series *s = d->series[i];

        /* Late shadow answers are none of the step's: they were not shown to anybody. */
        if (!str_eq(s->endpoint, sc->endpoint) || !str_eq(s->version, sc->challenger) ||
            s->shadow != sc->shadow)
            continue;
        arm_of(&b, s);
        fold_outputs(ev, sc->outputs, 1, s);
        if (s->shadow)
            fold_pairs(ev, &s->paired, a.corrected > 0);
    }
    if (!a.requests && !a.labels && !a.label_errors && !b.requests && !b.rows && !b.labels &&
        !b.label_errors)
        return;
    fold_arms(ev, sc->cfg, &a, &b);
    judge_outputs_if_due(ev, sc);
}

/* --- Judging ---------------------------------------------------------------------------------- */

static void set(struct judgement *j, enum guard_id g, enum verdict v, double value, double limit,
                double ln_evidence)
{
    j->guarded[g] = true;
    j->guards[g] = v;
    j->values[g] = value;
    j->limits[g] = limit;
    j->ln_evidence[g] = ln_evidence;
}

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

/* `proved` may ask for more than the e-process. */
static enum verdict of_harm(const struct eprocess *p, bool proved, bool enough, double ln_needed)
{
    if (proved)
        return VERDICT_FAIL;
    if (!enough)
        return VERDICT_INSUFFICIENT_EVIDENCE;
    return ln_now(p) >= ln_needed / 2 ? VERDICT_INCONCLUSIVE : VERDICT_PASS;
}

static void judge_failures(const struct evidence *ev, const struct rollout_config *cfg,
                           double alpha, struct judgement *j)
{
    const struct arm *a = &ev->champion, *b = &ev->challenger;
    const struct eprocess *ratio = &ev->error_ratio.harm;
    double rate = share((double)b->failed, (double)b->requests);
    double base = share((double)a->failed, (double)a->requests);
    bool enough = b->requests >= REQUESTS_MIN;

    if (isfinite(cfg->error_rate))
        set(j, GUARD_ERROR_RATE,
            of_harm(&ev->error_rate, enough && eprocess_proves(&ev->error_rate, alpha), enough,
                    j->ln_needed),
            rate, cfg->error_rate, ev->error_rate.ln_peak);
    if (isfinite(cfg->error_ratio))
        set(j, GUARD_ERROR_RATIO,
            of_harm(ratio, enough && eprocess_proves(ratio, alpha),
                    enough && a->requests >= REQUESTS_MIN, j->ln_needed),
            base > 0   ? rate / base
            : rate > 0 ? INFINITY
                       : 1,
            cfg->error_ratio, ratio->ln_peak);
}

static void judge_latency(const struct evidence *ev, const struct rollout_config *cfg, double alpha,
                          struct judgement *j)
{
    const struct arm *a = &ev->champion, *b = &ev->challenger;
    double p99 = (double)latency_quantile_ns(&b->latency, 0.99);
    double base = (double)latency_quantile_ns(&a->latency, 0.99);
    bool enough = b->latency.n >= P99_MIN;

    if (isfinite(cfg->p99_ns))
        set(j, GUARD_P99,
            of_harm(&ev->slow, b->latency.n >= REQUESTS_MIN && eprocess_proves(&ev->slow, alpha),
                    enough, j->ln_needed),
            p99, cfg->p99_ns, ev->slow.ln_peak);
    if (isfinite(cfg->p99_ratio))
        set(j, GUARD_P99_RATIO,
            !enough || a->latency.n < P99_MIN || base <= 0 ? VERDICT_INSUFFICIENT_EVIDENCE
            : p99 > base * cfg->p99_ratio && p99 > 1e6     ? VERDICT_INCONCLUSIVE
                                                           : VERDICT_PASS,
            base > 0 ? p99 / base : 1, cfg->p99_ratio, NAN);
}

static void judge_outputs(const struct evidence *ev, const struct evidence_scope *sc,
                          struct judgement *j)
{
    double psi, limit = sc->cfg->output_shift;

    if (!isfinite(limit))
        return;
    psi = output_psi(ev, sc->outputs, 0);
    set(j, GUARD_OUTPUT_SHIFT,
        ev->output_harm                            ? VERDICT_FAIL
        : !ev->output_looks                        ? VERDICT_INSUFFICIENT_EVIDENCE
        : output_psi(ev, sc->outputs, 0.5) > limit ? VERDICT_INCONCLUSIVE
                                                   : VERDICT_PASS,
        psi, limit, NAN);
}

static void judge_labels(const struct evidence *ev, const struct evidence_scope *sc, double alpha,
                         struct judgement *j)
{
    const struct arm *a = &ev->champion, *b = &ev->challenger;
    const struct eprocess *harm = sc->shadow ? &ev->paired.harm : &ev->label_ratio.harm;
    double limit = sc->cfg->label_error, diff;
    bool enough, proved = eprocess_proves(harm, alpha);

    if (!isfinite(limit))
        return;
    if (sc->shadow) {
        diff = share(ev->paired.sum, (double)ev->paired.n);
        enough = ev->paired.n >= LABELS_MIN;
    } else {
        diff = share((double)b->label_errors, (double)b->labels) -
               share((double)a->label_errors, (double)a->labels);
        enough = b->labels >= LABELS_MIN && a->labels >= LABELS_MIN;
        proved = proved && enough && diff > limit;
    }
    set(j, GUARD_LABELS, of_harm(harm, proved, enough, j->ln_needed), diff, limit, harm->ln_peak);
    /* Worse for certain, but by less than is allowed. */
    if (j->guards[GUARD_LABELS] == VERDICT_INCONCLUSIVE && diff <= limit)
        j->guards[GUARD_LABELS] = VERDICT_PASS;
}

static void judge_agreement(const struct evidence *ev, const struct evidence_scope *sc,
                            double alpha, struct judgement *j)
{
    struct interval in = confseq_bernoulli((double)ev->agreed, (double)ev->compared, alpha);
    double agreed = share((double)ev->agreed, (double)ev->compared), limit;

    limit = sc->cfg->shadow_agreement;
    if (!sc->shadow || !isfinite(limit))
        return;
    set(j, GUARD_AGREEMENT,
        in.hi < limit                 ? VERDICT_FAIL
        : ev->compared < REQUESTS_MIN ? VERDICT_INSUFFICIENT_EVIDENCE
        : agreed < limit              ? VERDICT_INCONCLUSIVE
                                      : VERDICT_PASS,
        agreed, limit, NAN);
}

/* --- The step as a whole ---------------------------------------------------------------------- */

static void say(struct judgement *j, enum guard_id g, const char *what)
{
    snprintf(j->reason, sizeof(j->reason), "%s: %s %.4g, limit %.4g", what, names[g], j->values[g],
             j->limits[g]);
}

static bool any(const struct judgement *j, enum verdict v, enum guard_id *ret_first)
{
    for (int g = 0; g < GUARD_COUNT; g++)
        if (j->guarded[g] && j->guards[g] == v) {
            *ret_first = (enum guard_id)g;
            return true;
        }
    return false;
}

/* Requests, rows and agreement must have been seen; the rest may never come. */
static bool is_too_little(const struct judgement *j, const struct arm *b, uint64_t rows_min)
{
    static const enum guard_id needed[] = {GUARD_ERROR_RATE, GUARD_AGREEMENT};

    for (size_t i = 0; i < ARRAY_LEN(needed); i++)
        if (j->guarded[needed[i]] && j->guards[needed[i]] == VERDICT_INSUFFICIENT_EVIDENCE)
            return true;
    return !b->requests || !b->rows || b->rows < rows_min;
}

static void say_pass(struct judgement *j, const struct evidence *ev,
                     const struct evidence_scope *sc)
{
    int n = snprintf(j->reason, sizeof(j->reason), "no guard objects after %llu rows",
                     (unsigned long long)ev->challenger.rows);
    const char *lead = "; not known: ";

    for (int g = 0; g < GUARD_COUNT && n < (int)sizeof(j->reason); g++) {
        bool outputs = g == GUARD_OUTPUT_SHIFT && sc->outputs->why[0];

        if (!j->guarded[g] || j->guards[g] != VERDICT_INSUFFICIENT_EVIDENCE)
            continue;
        n += snprintf(j->reason + n, sizeof(j->reason) - (size_t)n, "%s%s%s%s%s", lead, names[g],
                      outputs ? " (" : "", outputs ? sc->outputs->why : "", outputs ? ")" : "");
        lead = ", ";
    }
}

void evidence_judge(const struct evidence *ev, const struct evidence_scope *sc, uint64_t rows_min,
                    struct judgement *ret)
{
    double alpha = evidence_alpha(sc->cfg);
    struct judgement j = {.verdict = VERDICT_PASS, .ln_needed = -log(alpha)};
    enum guard_id g;

    judge_failures(ev, sc->cfg, alpha, &j);
    judge_latency(ev, sc->cfg, alpha, &j);
    judge_outputs(ev, sc, &j);
    judge_labels(ev, sc, alpha, &j);
    judge_agreement(ev, sc, alpha, &j);
    if (any(&j, VERDICT_FAIL, &g)) {
        j.verdict = VERDICT_FAIL;
        say(&j, g, "harm is proved");
    } else if (is_too_little(&j, &ev->challenger, rows_min)) {
        j.verdict = VERDICT_INSUFFICIENT_EVIDENCE;
        snprintf(j.reason, sizeof(j.reason), "%llu of %llu rows and %llu requests so far",
                 (unsigned long long)ev->challenger.rows,
                 (unsigned long long)MAX(rows_min, UINT64_C(1)),
                 (unsigned long long)ev->challenger.requests);
    } else if (any(&j, VERDICT_INCONCLUSIVE, &g)) {
        j.verdict = VERDICT_INCONCLUSIVE;
        say(&j, g, "not proved either way");
    } else {
        say_pass(&j, ev, sc);
    }
    *ret = j;
}

/* --- For facts and reports -------------------------------------------------------------------- */

static void guard_json(const struct judgement *j, int g, struct json *to, struct arena *a)
{
    json_set_str(a, to, S("guard"), str_of(names[g]));
    json_set_str(a, to, S("verdict"), str_of(verdict_name(j->guards[g])));
    json_set_finite(a, to, S("value"), j->values[g]);
    json_set_real(a, to, S("limit"), j->limits[g]);
    if (isfinite(j->ln_evidence[g])) {
        json_set_real(a, to, S("ln_evidence"), j->ln_evidence[g]);
        json_set_real(a, to, S("ln_needed"), j->ln_needed);
    }
}

static void arm_json(const struct arm *arm, struct json *to, struct arena *a)
{
    json_set_int(a, to, S("requests"), (int64_t)arm->requests);
    json_set_int(a, to, S("failed"), (int64_t)arm->failed);
    json_set_int(a, to, S("rows"), (int64_t)arm->rows);
    json_set_int(a, to, S("labels"), arm->labels);
    json_set_int(a, to, S("label_errors"), arm->label_errors);
    json_set_real(a, to, S("p99_ms"), (double)latency_quantile_ns(&arm->latency, 0.99) / 1e6);
}

struct json *judgement_json(const struct judgement *j, const struct evidence *ev, struct arena *a)
{
    struct json *o = json_new_object(a), *guards = json_set(o, S("guards"), json_new_array(a));

    json_set_str(a, o, S("verdict"), str_of(verdict_name(j->verdict)));
    json_set_int(a, o, S("formula"), FORMULA);
    for (int g = 0; g < GUARD_COUNT; g++)
        if (j->guarded[g])
            guard_json(j, g, json_push(guards, json_new_object(a)), a);
    arm_json(&ev->champion, json_set(o, S("champion"), json_new_object(a)), a);
    arm_json(&ev->challenger, json_set(o, S("challenger"), json_new_object(a)), a);
    json_set_int(a, o, S("compared"), ev->compared);
    json_set_int(a, o, S("agreed"), ev->agreed);
    json_set_int(a, o, S("only_champion_right"), ev->outcome[1][0]);
    json_set_int(a, o, S("only_challenger_right"), ev->outcome[0][1]);
    return o;
}
