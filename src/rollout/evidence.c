/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evidence for and against a new version, and what follows from it.
 *
 * Every guard is a claim of harm with an e-process of its own, fed with counts: it may be judged
 * after every digest, and a healthy version is taken back with chance at most alpha over the whole
 * step, shared among the guards. Nothing is averaged over windows and no outlier is dropped: a rare
 * failure counts.
 *
 *   error_rate    failures are more frequent than the limit   (against Bernoulli(limit))
 *   error_ratio   odds of failure are higher than the champion's by more than the factor (two arms)
 *   p99           more than 1 answer in 100 is slower than the limit (against Bernoulli(0.01))
 *   p99_ratio     a point estimate against the champion's, looked at only at the end of a hold
 *   labels        worse than the champion on the same requests (shadow: paired losses) or on
 * requests of the same time (two arms), by more than label_error agreement     shadow: answers
 * differ more often than allowed
 *
 * A guard without data says INSUFFICIENT_EVIDENCE, never PASS.
 */
#include "rollout/priv.h"

#include "stats/confseq.h"

#include <math.h>
#include <stdio.h>

#define REQUESTS_MIN 30 /* before a rate of failures means anything */
#define P99_MIN 300     /* requests for a 99th percentile */
#define LABELS_MIN 50
#define SLOW_SHARE 0.01

static const char *const names[GUARD_COUNT] = {"error_rate", "error_ratio", "p99",
                                               "p99_ratio",  "labels",      "agreement"};

const char *guard_name(enum guard_id g)
{
    return names[g];
}

void evidence_reset(struct evidence *ev, const struct rollout_config *cfg)
{
    double odds = isfinite(cfg->error_ratio) ? MAX(cfg->error_ratio, 1.0) : 1.5;
    double eps = isfinite(cfg->label_error) ? CLAMP(cfg->label_error, 0.0, 0.5) : 0.01;
    struct err e;

    memset(ev, 0, sizeof(*ev));
    ev->ready = !twoarm_gate_init(&ev->error_ratio, odds, odds + 0.5, REQUESTS_MIN, &e) &&
                !twoarm_gate_init(&ev->label_ratio, 1.25, 2.0, LABELS_MIN, &e) &&
                !paired_gate_init(&ev->paired, eps, false, LABELS_MIN, &e);
    ASSERT(ev->ready);
}

/* --- Gathering -------------------------------------------------------------------------------- */

static void arm_add(struct arm *to, const struct arm *from)
{
    to->requests += from->requests;
    to->failed += from->failed;
    to->rows += from->rows;
    to->labels += from->labels;
    to->label_errors += from->label_errors;
    latency_merge(&to->latency, &from->latency);
}

static void arm_of(struct arm *a, const struct digest_series *s)
{
    a->requests += s->requests - s->status[4]; /* what the caller did wrong is nobody's failure */
    a->failed += s->status[5];
    a->rows += s->rows;
    a->labels += s->labels.joined;
    a->label_errors += s->labels.errors;
    if (s->latency)
        latency_merge(&a->latency, s->latency);
}

/* Adds a block of k events in n rows to an e-process against Bernoulli(p0): the mean over bets on
 * alternatives spread above p0, as in stats/betting.h, without restarts. */
static void bernoulli_block(struct eprocess *p, double p0, uint64_t k, uint64_t n)
{
    double sum = 0, peak = -INFINITY;

    if (!n || !(p0 > 0 && p0 < 1))
        return;
    k = MIN(k, n);
    for (int j = 0; j < GATE_GRID; j++) {
        double q = p0 + (1 - p0) * (0.002 * pow(400, (double)j / (GATE_GRID - 1)));

        q = MIN(q, 0.999);
        p->ln_wealth[j] += (double)k * log(q / p0) + (double)(n - k) * log((1 - q) / (1 - p0));
        peak = MAX(peak, p->ln_wealth[j]);
    }
    for (int j = 0; j < GATE_GRID; j++)
        sum += exp(p->ln_wealth[j] - peak);
    p->ln_peak = MAX(p->ln_peak, peak + log(sum / GATE_GRID));
}

static void fold_arms(struct evidence *ev, const struct rollout_config *cfg, const struct arm *a,
                      const struct arm *b)
{
    uint64_t slow = isfinite(cfg->p99_ns) ? latency_above(&b->latency, (uint64_t)cfg->p99_ns) : 0;

    bernoulli_block(&ev->error_rate, isfinite(cfg->error_rate) ? MAX(cfg->error_rate, 1e-4) : 0,
                    b->failed, b->requests);
    if (isfinite(cfg->p99_ns))
        bernoulli_block(&ev->slow, SLOW_SHARE, slow, b->latency.n);
    if (a->requests && b->requests)
        twoarm_gate_block(&ev->error_ratio, a->requests, MIN(a->failed, a->requests), b->requests,
                          MIN(b->failed, b->requests));
    if (a->labels > 0 && b->labels > 0)
        twoarm_gate_block(&ev->label_ratio, (uint64_t)a->labels,
                          (uint64_t)CLAMP(a->label_errors, INT64_C(0), a->labels),
                          (uint64_t)b->labels,
                          (uint64_t)CLAMP(b->label_errors, INT64_C(0), b->labels));
    arm_add(&ev->champion, a);
    arm_add(&ev->challenger, b);
}

static void fold_pairs(struct evidence *ev, const struct digest_paired *p)
{
    int64_t better = MAX(p->outcome[0][1], INT64_C(0)), worse = MAX(p->outcome[1][0], INT64_C(0));
    int64_t same = MAX(p->outcome[0][0], INT64_C(0)) + MAX(p->outcome[1][1], INT64_C(0));

    ev->compared += p->compared;
    ev->agreed += p->agreed;
    for (int i = 0; i < 4; i++)
        ev->outcome[i / 2][i % 2] += p->outcome[i / 2][i % 2];
    paired_gate_counts(&ev->paired, (uint64_t)better, (uint64_t)same, (uint64_t)worse);
}

void evidence_fold(struct evidence *ev, const struct rollout_config *cfg, const struct digest *d,
                   str endpoint, str champion, str challenger)
{
    struct arm a = {0}, b = {0};

    for (uint32_t i = 0; i < d->series_count; i++) {
        const struct digest_series *s = d->series[i];

        if (!str_eq(s->endpoint, endpoint))
            continue;
        if (str_eq(s->version, champion) && !s->shadow)
            arm_of(&a, s);
        if (!str_eq(s->version, challenger))
            continue;
        arm_of(&b, s);
        if (s->shadow)
            fold_pairs(ev, &s->paired);
    }
    fold_arms(ev, cfg, &a, &b);
}

/* --- Judging ---------------------------------------------------------------------------------- */

static void set(struct judgement *j, enum guard_id g, enum verdict v, double value, double limit)
{
    j->guarded[g] = true;
    j->guards[g] = v;
    j->values[g] = value;
    j->limits[g] = limit;
}

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static enum verdict harm_or(bool harm, bool enough)
{
    return harm ? VERDICT_FAIL : enough ? VERDICT_PASS : VERDICT_INSUFFICIENT_EVIDENCE;
}

static void judge_failures(const struct evidence *ev, const struct rollout_config *cfg,
                           double alpha, struct judgement *j)
{
    const struct arm *a = &ev->champion, *b = &ev->challenger;
    double rate = share((double)b->failed, (double)b->requests);
    double base = share((double)a->failed, (double)a->requests);
    bool enough = b->requests >= REQUESTS_MIN;

    if (isfinite(cfg->error_rate))
        set(j, GUARD_ERROR_RATE, harm_or(enough && eprocess_proves(&ev->error_rate, alpha), enough),
            rate, cfg->error_rate);
    if (isfinite(cfg->error_ratio))
        set(j, GUARD_ERROR_RATIO,
            harm_or(enough && eprocess_proves(&ev->error_ratio.harm, alpha),
                    enough && a->requests >= REQUESTS_MIN),
            base > 0   ? rate / base
            : rate > 0 ? INFINITY
                       : 1,
            cfg->error_ratio);
}

static void judge_latency(const struct evidence *ev, const struct rollout_config *cfg, double alpha,
                          struct judgement *j)
{
    const struct arm *a = &ev->champion, *b = &ev->challenger;
    double p99 = (double)latency_quantile_ns(&b->latency, 0.99);
    double base = (double)latency_quantile_ns(&a->latency, 0.99);
    bool enough = b->latency.n >= P99_MIN;

    if (isfinite(cfg->p99_ns))
        set(j, GUARD_P99, harm_or(eprocess_proves(&ev->slow, alpha), enough), p99, cfg->p99_ns);
    if (isfinite(cfg->p99_ratio) && base > 0)
        set(j, GUARD_P99_RATIO,
            !enough || a->latency.n < P99_MIN ? VERDICT_INSUFFICIENT_EVIDENCE
            : p99 > base * cfg->p99_ratio && p99 > 1e6
                ? VERDICT_INCONCLUSIVE /* a point estimate: reason to wait, not to take back */
                : VERDICT_PASS,
            p99 / base, cfg->p99_ratio);
}

static void judge_labels(const struct evidence *ev, const struct rollout_config *cfg, bool shadow,
                         double alpha, struct judgement *j)
{
    const struct arm *a = &ev->champion, *b = &ev->challenger;
    double diff;

    if (!isfinite(cfg->label_error))
        return;
    if (shadow) {
        diff = share((double)(ev->outcome[1][0] - ev->outcome[0][1]), (double)ev->paired.n);
        set(j, GUARD_LABELS, paired_gate_verdict(&ev->paired, alpha), diff, cfg->label_error);
        return;
    }
    diff = share((double)b->label_errors, (double)b->labels) -
           share((double)a->label_errors, (double)a->labels);
    set(j, GUARD_LABELS,
        harm_or(b->labels >= LABELS_MIN && diff > cfg->label_error &&
                    eprocess_proves(&ev->label_ratio.harm, alpha),
                b->labels >= LABELS_MIN && a->labels >= LABELS_MIN),
        diff, cfg->label_error);
}

static void judge_agreement(const struct evidence *ev, const struct rollout_config *cfg,
                            double alpha, struct judgement *j)
{
    struct interval in = confseq_bernoulli((double)ev->agreed, (double)ev->compared, alpha);

    if (isfinite(cfg->shadow_agreement))
        set(j, GUARD_AGREEMENT,
            in.hi < cfg->shadow_agreement ? VERDICT_FAIL
            : ev->compared < REQUESTS_MIN ? VERDICT_INSUFFICIENT_EVIDENCE
                                          : VERDICT_PASS,
            share((double)ev->agreed, (double)ev->compared), cfg->shadow_agreement);
}

static void say(struct judgement *j, enum guard_id g, const char *what)
{
    snprintf(j->reason, sizeof(j->reason), "%s: %s %.4g, limit %.4g", what, names[g], j->values[g],
             j->limits[g]);
}

void evidence_judge(const struct evidence *ev, const struct rollout_config *cfg, bool shadow,
                    uint64_t rows_min, struct judgement *ret)
{
    struct judgement j = {.verdict = VERDICT_PASS};
    double alpha = cfg->alpha / GUARD_COUNT;

    judge_failures(ev, cfg, alpha, &j);
    judge_latency(ev, cfg, alpha, &j);
    judge_labels(ev, cfg, shadow, alpha, &j);
    if (shadow)
        judge_agreement(ev, cfg, alpha, &j);
    snprintf(j.reason, sizeof(j.reason), "no guard objects after %llu rows",
             (unsigned long long)ev->challenger.rows);
    if (ev->challenger.rows < rows_min) {
        j.verdict = VERDICT_INSUFFICIENT_EVIDENCE;
        snprintf(j.reason, sizeof(j.reason), "%llu of %llu rows so far",
                 (unsigned long long)ev->challenger.rows, (unsigned long long)rows_min);
    }
    for (int g = 0; g < GUARD_COUNT; g++) {
        if (!j.guarded[g] || j.guards[g] != VERDICT_INCONCLUSIVE || j.verdict != VERDICT_PASS)
            continue;
        j.verdict = VERDICT_INCONCLUSIVE;
        say(&j, (enum guard_id)g, "not proved either way");
    }
    for (int g = 0; g < GUARD_COUNT; g++)
        if (j.guarded[g] && j.guards[g] == VERDICT_FAIL) {
            j.verdict = VERDICT_FAIL;
            say(&j, (enum guard_id)g, "harm is proved");
            break;
        }
    *ret = j;
}

struct json *judgement_json(const struct judgement *j, const struct evidence *ev, struct arena *a)
{
    struct json *o = json_new_object(a), *guards = json_set(o, S("guards"), json_new_array(a));
    const struct arm *arms[2] = {&ev->champion, &ev->challenger};
    static const char *const arm_names[2] = {"champion", "challenger"};

    json_set_str(a, o, S("verdict"), str_of(verdict_name(j->verdict)));
    for (int g = 0; g < GUARD_COUNT; g++) {
        struct json *guard;

        if (!j->guarded[g])
            continue;
        guard = json_push(guards, json_new_object(a));
        json_set_str(a, guard, S("guard"), str_of(names[g]));
        json_set_str(a, guard, S("verdict"), str_of(verdict_name(j->guards[g])));
        if (isfinite(j->values[g]))
            json_set_real(a, guard, S("value"), j->values[g]);
        json_set_real(a, guard, S("limit"), j->limits[g]);
    }
    for (int i = 0; i < 2; i++) {
        struct json *arm = json_set(o, str_of(arm_names[i]), json_new_object(a));

        json_set_int(a, arm, S("requests"), (int64_t)arms[i]->requests);
        json_set_int(a, arm, S("failed"), (int64_t)arms[i]->failed);
        json_set_int(a, arm, S("rows"), (int64_t)arms[i]->rows);
        json_set_int(a, arm, S("labels"), arms[i]->labels);
        json_set_int(a, arm, S("label_errors"), arms[i]->label_errors);
        json_set_real(a, arm, S("p99_ms"),
                      (double)latency_quantile_ns(&arms[i]->latency, 0.99) / 1e6);
    }
    json_set_int(a, o, S("compared"), ev->compared);
    json_set_int(a, o, S("agreed"), ev->agreed);
    json_set_int(a, o, S("only_champion_right"), ev->outcome[1][0]);
    json_set_int(a, o, S("only_challenger_right"), ev->outcome[0][1]);
    return o;
}
