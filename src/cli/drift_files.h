/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two files of distributions held against each other, without a server: for pipelines.
 *
 * A file is {"feature":[p0, p1, …], …}, or one array [p0, p1, …], which is the feature "value".
 * Entries are shares or counts (not negative, not all zero) of the same cells; they are normalised.
 * PSI and D(current || baseline) add 1e-9 to each share, then normalise again.
 */
#pragma once

#include "base/json.h"

struct drift_files {
    const char *baseline, *current; /* paths, for the report */
    double threshold;               /* psi >= threshold exceeds */
    const struct json *baseline_tree, *current_tree;
};

struct drift_files_result {
    struct json *report;  /* {"baseline","current","threshold","features_checked",
                             "features_exceeded","results":[…]} */
    struct json *missing; /* names that one of the files has not, as texts with which */
    size_t exceeded;
};

/* INVALID_ARGUMENT names the file, the feature and what is wrong. */
NODISCARD int drift_files_compare(const struct drift_files *in, struct arena *a,
                                  struct drift_files_result *ret, struct err *e);
