/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ROC-AUC is the chance that a random positive scores above a random negative, ties counting half:
 * one walk over the rows by falling score, group of equal scores by group. PR-AUC is the average
 * precision, the step-wise sum over the same groups; the trapezoid over a PR curve would be too
 * high and is not offered. Both are exact, not binned.
 */
#include "stats/classify.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void confusion_init(struct confusion *c, uint32_t classes)
{
    ASSERT(classes >= 2 && classes <= CLASSIFY_CLASSES_MAX);
    memset(c, 0, sizeof(*c));
    c->classes = classes;
}

void confusion_add(struct confusion *c, uint32_t label, uint32_t predicted, int64_t n)
{
    ASSERT(label < c->classes && predicted < c->classes);
    c->counts[label * c->classes + predicted] += n;
}

void confusion_merge(struct confusion *into, const struct confusion *from)
{
    ASSERT(into->classes == from->classes);
    for (uint32_t i = 0; i < into->classes * into->classes; i++)
        into->counts[i] += from->counts[i];
}

static double ratio(int64_t part, int64_t whole)
{
    return whole > 0 ? (double)part / (double)whole : 0.0;
}

static struct class_scores scores_of(const struct confusion *c, uint32_t k)
{
    int64_t hits = c->counts[k * c->classes + k], labels = 0, guesses = 0;
    struct class_scores s;

    for (uint32_t i = 0; i < c->classes; i++) {
        labels += c->counts[k * c->classes + i];
        guesses += c->counts[i * c->classes + k];
    }
    s.precision = ratio(hits, guesses);
    s.recall = ratio(hits, labels);
    s.f1 = ratio(2 * hits, labels + guesses);
    s.support = labels;
    s.defined = labels + guesses > 0;
    return s;
}

void confusion_report(const struct confusion *c, struct class_report *ret)
{
    int64_t hits = 0;
    uint32_t occurring = 0, supported = 0;

    memset(ret, 0, sizeof(*ret));
    for (uint32_t k = 0; k < c->classes; k++) {
        struct class_scores s = scores_of(c, k);

        ret->per_class[k] = s;
        hits += c->counts[k * c->classes + k];
        ret->n += s.support;
        ret->precision_macro += s.precision;
        ret->recall_macro += s.recall;
        ret->f1_macro += s.f1;
        ret->balanced_accuracy += s.recall;
        occurring += s.defined;
        supported += s.support > 0;
    }
    ret->accuracy = ret->n > 0 ? (double)hits / (double)ret->n : NAN;
    ret->precision_macro /= MAX(occurring, 1u);
    ret->recall_macro /= MAX(occurring, 1u);
    ret->f1_macro /= MAX(occurring, 1u);
    ret->balanced_accuracy /= MAX(supported, 1u);
}

static int by_score_falling(const void *a, const void *b)
{
    double x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;

    return (x < y) - (x > y);
}

static int by_slice(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;

    if (x->slice != y->slice)
        return x->slice < y->slice ? -1 : 1;
    return by_score_falling(a, b);
}

static int check_rows(const struct scored *rows, size_t n, uint32_t slices, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(rows[i].score))
            return FAIL(e, INVALID_ARGUMENT, "the score of row %zu is not a finite number", i);
        if (rows[i].label > 1)
            return FAIL(e, INVALID_ARGUMENT, "the label of row %zu is %u, expected 0 or 1", i,
                        rows[i].label);
        if (slices && rows[i].slice >= slices)
            return FAIL(e, INVALID_ARGUMENT, "the slice of row %zu is %u, there are %u", i,
                        rows[i].slice, slices);
    }
    return 0;
}

/* Rows by falling score. */
static struct scored_report report_sorted(const struct scored *rows, size_t n)
{
    struct scored_report r = {.n = n, .roc_auc = NAN, .pr_auc = NAN};
    double hits = 0.0, wins = 0.0, precision_sum = 0.0, losses = 0.0, squares = 0.0;

    for (size_t i = 0, next; i < n; i = next) {
        double positives = 0.0, negatives;

        for (next = i; next < n && rows[next].score == rows[i].score; next++) {
            double y = rows[next].label, p = rows[next].score;
            double q = CLAMP(p, DBL_EPSILON, 1.0 - DBL_EPSILON);

            positives += y;
            losses -= y > 0.0 ? log(q) : log1p(-q);
            squares += (p - y) * (p - y);
        }
        negatives = (double)(next - i) - positives;
        wins += negatives * (hits + 0.5 * positives);
        hits += positives;
        precision_sum += positives * hits / (double)next;
    }
    r.positives = (uint64_t)hits;
    if (hits > 0.0)
        r.pr_auc = precision_sum / hits;
    if (hits > 0.0 && hits < (double)n)
        r.roc_auc = wins / (hits * ((double)n - hits));
    r.log_loss = n ? losses / (double)n : NAN;
    r.brier = n ? squares / (double)n : NAN;
    return r;
}

int scored_report_of(struct scored *rows, size_t n, struct scored_report *ret, struct err *e)
{
    TRY(check_rows(rows, n, 0, e));
    qsort(rows, n, sizeof(*rows), by_score_falling);
    *ret = report_sorted(rows, n);
    return 0;
}

int scored_slices(struct scored *rows, size_t n, uint32_t slices, struct scored_report *ret_reports,
                  struct err *e)
{
    size_t at = 0;

    if (!slices)
        return FAIL(e, INVALID_ARGUMENT, "no slice was asked for");
    TRY(check_rows(rows, n, slices, e));
    qsort(rows, n, sizeof(*rows), by_slice);
    for (uint32_t k = 0; k < slices; k++) {
        size_t from = at;

        while (at < n && rows[at].slice == k)
            at++;
        ret_reports[k] = report_sorted(rows + from, at - from);
    }
    return 0;
}
