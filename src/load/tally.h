/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is counted of requests: in a second, a phase or the whole run, always by the instant at
 * which a request was meant to be sent.
 */
#pragma once

#include "base/str.h"
#include "stats/latency.h"

/* Why a request failed: an HTTP status other than 2xx, or one of these. */
enum load_failure {
#define FAILURE(name, text, help) LOAD_FAIL_##name,
#include "load/failures.def"
#undef FAILURE
    LOAD_FAIL_KINDS
};
#define LOAD_FAIL_STATUS(status) (LOAD_FAIL_KINDS + (status))
#define LOAD_FAIL_COUNT (LOAD_FAIL_KINDS + 1000)
/* "timeout", or the number of a status. */
str load_failure_text(size_t failure, char ret_digits[8]);

struct load_tally {
    uint64_t requests;        /* sent, whatever became of them */
    uint64_t ok, failed;      /* answered with 2xx; all else that is over */
    uint64_t judged, correct; /* answers with a prediction, to rows with a label */
    uint64_t tp, fp, fn;      /* for the positive class */
    struct latency latency; /* from the intended instant to the end of the answer, or the timeout */
};

void load_tally_merge(struct load_tally *into, const struct load_tally *from);
/* NaN when there is nothing to judge by (0/0). */
double load_tally_accuracy(const struct load_tally *t);
double load_tally_precision(const struct load_tally *t);
double load_tally_recall(const struct load_tally *t);
double load_tally_f1(const struct load_tally *t);
