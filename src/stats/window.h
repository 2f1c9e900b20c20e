/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tumbling windows and the sustained rule: a column is judged once per window of time (or of rows)
 * on an effect size, a window with too few rows is not judged, and only N windows over the
 * threshold in a row make an alert; more of them raise its severity.
 *
 * Time is pushed by the caller; windows are aligned to multiples of their length, so that those of
 * all gateways coincide. One thread.
 */
#pragma once

#include "stats/distance.h"

struct window_rule {
    int64_t length_ns;        /* > 0, or 0: by rows alone */
    uint64_t length_rows;     /* > 0: the window also ends once it has that many; 0: by time */
    uint64_t rows_min;        /* fewer rows: the window is not judged, the streak stands still */
    uint32_t sustain;         /* N, at least 1 */
    uint32_t escalate;        /* each so many further windows raise the severity by one; 0: never */
    struct drift_bands bands; /* of the value; at or above `watch` counts as over */
};

enum window_outcome {
    WINDOW_OPEN,    /* nothing ended */
    WINDOW_TOO_FEW, /* ended with fewer than rows_min rows */
    WINDOW_QUIET,   /* ended below the threshold: the streak is over */
    WINDOW_PENDING, /* over, but not yet for N windows */
    WINDOW_ALERT,   /* over for N windows or more */
};

struct window_report {
    enum window_outcome outcome;
    enum drift_severity severity; /* of an alert: that of the value, escalated */
    uint32_t streak;              /* windows over the threshold in a row, this one included */
    uint64_t rows;
    double value;
    int64_t from_ns, to_ns;
};

struct window {
    struct window_rule rule;
    int64_t from_ns; /* of the open window; meaningful once started */
    bool started;
    uint32_t streak;
    struct cells cells;
};

/* INVALID_ARGUMENT: no length, sustain 0, or bands that do not ascend. */
NODISCARD int window_init(struct window *w, const struct window_rule *rule, struct err *e);

/*
 * Adds counts that were collected up to now_ns. If the window they would fall into is over, it is
 * first judged by `metric` (e.g. PSI against the spec) and the counts open the next one; skipped
 * windows without rows leave the streak alone. Time that runs backwards counts as now.
 */
typedef double (*window_metric_fn)(const struct cells_spec *s, const struct cells *c);
struct window_report window_push(struct window *w, const struct cells_spec *s,
                                 const struct cells *c, int64_t now_ns, window_metric_fn metric);

double window_metric_psi(const struct cells_spec *s, const struct cells *c);
