/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quality of classifiers from labels that came in: exact figures from counts, and exact ranking
 * figures from scored rows. Definitions as in scikit-learn. Ratios of nothing (0/0) are 0 with
 * `defined` false where that matters, NaN where said. Any thread.
 */
#pragma once

#include "base/err.h"

#define CLASSIFY_CLASSES_MAX 64

/* counts[label * classes + predicted], row-major. Signed, since corrected labels take back. */
struct confusion {
    uint32_t classes;
    int64_t counts[CLASSIFY_CLASSES_MAX * CLASSIFY_CLASSES_MAX];
};

struct class_scores {
    double precision, recall, f1;
    int64_t support; /* rows of this label */
    bool defined;    /* the class occurs, as label or as prediction */
};

struct class_report {
    int64_t n;
    double accuracy;                                /* NaN when n is 0 */
    double precision_macro, recall_macro, f1_macro; /* over classes that occur */
    double balanced_accuracy;                       /* mean recall over classes with support */
    struct class_scores per_class[CLASSIFY_CLASSES_MAX];
};

void confusion_init(struct confusion *c, uint32_t classes); /* 2..CLASSIFY_CLASSES_MAX, asserted */
void confusion_add(struct confusion *c, uint32_t label, uint32_t predicted, int64_t n);
void confusion_merge(struct confusion *into, const struct confusion *from);
void confusion_report(const struct confusion *c, struct class_report *ret);

/* A scored row: P(class 1) and the label; `slice` groups rows in scored_slices. */
struct scored {
    double score;
    uint32_t label; /* 0 or 1 */
    uint32_t slice;
};

struct scored_report {
    uint64_t n, positives;
    double roc_auc;  /* NaN unless both labels occur; ties count half */
    double pr_auc;   /* average precision: sum (R_k - R_k-1) P_k; NaN without a positive */
    double log_loss; /* scores clipped to [eps, 1-eps], eps = 2.2e-16; NaN when n is 0 */
    double brier;
};

/* Sorts the rows by falling score in place. Scores must be finite: INVALID_ARGUMENT names the row.
 * O(n log n). */
NODISCARD int scored_report_of(struct scored *rows, size_t n, struct scored_report *ret,
                               struct err *e);
/* The same for each slice 0..slices-1 (slice >= slices: INVALID_ARGUMENT): sorts the rows by slice.
 */
NODISCARD int scored_slices(struct scored *rows, size_t n, uint32_t slices,
                            struct scored_report *ret_reports, struct err *e);
