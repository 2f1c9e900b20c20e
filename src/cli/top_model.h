/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The figures of `weir top`: two looks at the metrics of all gateways, and what lies between them.
 * A series is an endpoint, version and arm; gateways are added up.
 */
#pragma once

#include "base/arena.h"
#include "base/json.h"

#define TOP_BUCKETS_MAX 32
#define TOP_SERIES_MAX 2000
#define TOP_HISTORY 60

struct top_histogram {
    double le[TOP_BUCKETS_MAX], count[TOP_BUCKETS_MAX]; /* cumulative, le ascending */
    size_t n;
    double sum, total;
};

struct top_series {
    str endpoint, version, arm;
    double requests, failed, rows;
    struct top_histogram time;
    double queue_sum, queue_count, compute_sum, compute_count, batch_sum, batch_count;
    bool has_crew;
    double workers, busy, waiting;
    str breaker; /* empty: none */
};

/* One look. */
struct top_shot {
    struct arena *a;
    int64_t at_ns;             /* monotonic */
    struct top_series *series; /* TOP_SERIES_MAX of them */
    size_t count, gateways;
    double connections, received, sent, dropped, shed;
    str plan;
    struct json *inflight, *inflight_max; /* by endpoint */
};

/* What happened between two looks; rates are per second, NaN where nothing happened. */
struct top_row {
    str endpoint, version, arm, breaker;
    double requests, failed, rows;
    double p50, p95, p99;         /* seconds */
    double queue, compute, batch; /* means */
    bool has_crew;
    double workers, busy, waiting, inflight, inflight_max;
};

struct top_figures {
    struct top_row *rows;
    size_t count, gateways;
    struct top_row all; /* names empty */
    double connections, received, sent, dropped, shed, seconds;
    str plan;
};

void top_shot_begin(struct top_shot *s, struct arena *a, int64_t now_ns);
/* Adds the metrics of a gateway; INVALID_ARGUMENT when they are none. Texts are copied. */
NODISCARD int top_shot_add(struct top_shot *s, str metrics, struct err *e);
/* Rows are those of `now`; a counter that went back (a gateway began anew) counts from zero. */
void top_compare(const struct top_shot *before, const struct top_shot *now, struct arena *a,
                 struct top_figures *ret);
/* The value below which a share q of what was counted lies, linear within its bucket as
 * histogram_quantile() of Prometheus; the lower end of the last bucket; NaN when empty. */
double top_quantile(const struct top_histogram *h, double q);

enum top_sort {
#define TOP_SORT(name, text, letter, member, help) TOP_BY_##name,
#include "cli/top_sorts.def"
#undef TOP_SORT
    TOP_SORT_COUNT
};
NODISCARD bool top_sort_of(str text, enum top_sort *ret);
const char *top_sort_text(enum top_sort by);
char top_sort_letter(enum top_sort by);
void top_order(struct top_figures *f, enum top_sort by);
