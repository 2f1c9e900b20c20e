/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table says which sample goes where. Series are found by a walk over those there are: a project
 * has tens of them, and the samples of one come together, so the last one found is tried first.
 */
#include "cli/top_model.h"

#include "base/time.h"
#include "wire/prometheus.h"

#include <math.h>
#include <stdlib.h>

static const struct {
    str name;
    size_t at;       /* of a double in struct top_series */
    bool by_version; /* the sample has no arm: it is of every series of the version */
} members[] = {
    {S_INIT("weir_rows_total"), offsetof(struct top_series, rows), false},
    {S_INIT("weir_queue_duration_seconds_sum"), offsetof(struct top_series, queue_sum), false},
    {S_INIT("weir_queue_duration_seconds_count"), offsetof(struct top_series, queue_count), false},
    {S_INIT("weir_compute_duration_seconds_sum"), offsetof(struct top_series, compute_sum), false},
    {S_INIT("weir_compute_duration_seconds_count"), offsetof(struct top_series, compute_count),
     false},
    {S_INIT("weir_batch_rows_sum"), offsetof(struct top_series, batch_sum), false},
    {S_INIT("weir_batch_rows_count"), offsetof(struct top_series, batch_count), false},
    {S_INIT("weir_request_duration_seconds_sum"), offsetof(struct top_series, time.sum), false},
    {S_INIT("weir_request_duration_seconds_count"), offsetof(struct top_series, time.total), false},
    {S_INIT("weir_crew_workers"), offsetof(struct top_series, workers), true},
    {S_INIT("weir_crew_busy"), offsetof(struct top_series, busy), true},
    {S_INIT("weir_crew_waiting_rows"), offsetof(struct top_series, waiting), true},
};

static const struct {
    str name;
    size_t at; /* of a double in struct top_shot */
} totals[] = {
    {S_INIT("weir_connections_open"), offsetof(struct top_shot, connections)},
    {S_INIT("weir_received_bytes_total"), offsetof(struct top_shot, received)},
    {S_INIT("weir_sent_bytes_total"), offsetof(struct top_shot, sent)},
    {S_INIT("weir_records_dropped_total"), offsetof(struct top_shot, dropped)},
};

void top_shot_begin(struct top_shot *s, struct arena *a, int64_t now_ns)
{
    *s = (struct top_shot){.a = a, .at_ns = now_ns};
    s->series = ARENA_ARRAY(a, struct top_series, TOP_SERIES_MAX);
    s->inflight = json_new_object(a);
    s->inflight_max = json_new_object(a);
}

/* --- Reading ---------------------------------------------------------------------------------- */

static bool is_of(const struct top_series *r, str endpoint, str version, str arm)
{
    return str_eq(r->version, version) && str_eq(r->endpoint, endpoint) && str_eq(r->arm, arm);
}

/* The series of the sample, made if it is new; NULL past the limit. */
static struct top_series *series_of(struct top_shot *s, str labels)
{
    str endpoint = prometheus_label(labels, S("endpoint"));
    str version = prometheus_label(labels, S("version"));
    str arm = prometheus_label(labels, S("arm"));

    for (size_t i = s->count; i-- > 0;)
        if (is_of(&s->series[i], endpoint, version, arm))
            return &s->series[i];
    if (s->count == TOP_SERIES_MAX)
        return NULL;
    s->series[s->count] = (struct top_series){.endpoint = arena_dup(s->a, endpoint),
                                              .version = arena_dup(s->a, version),
                                              .arm = arena_dup(s->a, arm)};
    return &s->series[s->count++];
}

static void add_bucket(struct top_histogram *h, str le, double count)
{
    double edge = str_eq(le, S("+Inf")) ? (double)INFINITY : 0;
    size_t i = 0;

    if (!isinf(edge) && !str_to_f64(le, &edge))
        return;
    while (i < h->n && h->le[i] < edge)
        i++;
    if (i < h->n && h->le[i] == edge) {
        h->count[i] += count;
        return;
    }
    if (h->n == TOP_BUCKETS_MAX)
        return;
    memmove(h->le + i + 1, h->le + i, (h->n - i) * sizeof(h->le[0]));
    memmove(h->count + i + 1, h->count + i, (h->n - i) * sizeof(h->count[0]));
    h->le[i] = edge;
    h->count[i] = count;
    h->n++;
}

static void add_requests(struct top_shot *s, const struct prometheus_sample *m)
{
    struct top_series *r = series_of(s, m->labels);
    str result = prometheus_label(m->labels, S("result"));

    if (!r)
        return;
    r->requests += m->value;
    if (!str_eq(result, S("ok")))
        r->failed += m->value;
    if (str_eq(result, S("shed")))
        s->shed += m->value;
}

/* To each series of that endpoint and version. */
static void add_by_version(struct top_shot *s, const struct prometheus_sample *m, size_t at)
{
    str endpoint = prometheus_label(m->labels, S("endpoint"));
    str version = prometheus_label(m->labels, S("version"));

    for (size_t i = 0; i < s->count; i++) {
        struct top_series *r = &s->series[i];

        if (!str_eq(r->endpoint, endpoint) || !str_eq(r->version, version))
            continue;
        *(double *)(void *)((char *)r + at) += m->value;
        r->has_crew = true;
    }
}

static void add_breaker(struct top_shot *s, const struct prometheus_sample *m)
{
    str state = prometheus_label(m->labels, S("state"));

    for (size_t i = 0; m->value > 0 && i < s->count; i++)
        if (str_eq(s->series[i].endpoint, prometheus_label(m->labels, S("endpoint"))) &&
            str_eq(s->series[i].version, prometheus_label(m->labels, S("version"))))
            s->series[i].breaker = arena_dup(s->a, state);
}

static void add_endpoint(struct arena *a, struct json *to, const struct prometheus_sample *m)
{
    str endpoint = prometheus_label(m->labels, S("endpoint"));
    double have = json_real_or(json_get(to, endpoint), 0);

    json_set_real(a, to, arena_dup(a, endpoint), have + m->value);
}

static bool add_member(struct top_shot *s, const struct prometheus_sample *m)
{
    struct top_series *r;

    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        if (!str_eq(m->name, members[i].name))
            continue;
        if (members[i].by_version)
            add_by_version(s, m, members[i].at);
        else if ((r = series_of(s, m->labels)))
            *(double *)(void *)((char *)r + members[i].at) += m->value;
        return true;
    }
    return false;
}

static void add_time(struct top_shot *s, const struct prometheus_sample *m)
{
    struct top_series *r = series_of(s, m->labels);

    if (r)
        add_bucket(&r->time, prometheus_label(m->labels, S("le")), m->value);
}

static void add_inflight(struct top_shot *s, const struct prometheus_sample *m)
{
    add_endpoint(s->a, s->inflight, m);
}

static void add_inflight_max(struct top_shot *s, const struct prometheus_sample *m)
{
    add_endpoint(s->a, s->inflight_max, m);
}

static void add_plan(struct top_shot *s, const struct prometheus_sample *m)
{
    s->plan = arena_dup(s->a, prometheus_label(m->labels, S("hash")));
}

static const struct {
    str name;
    void (*fn)(struct top_shot *s, const struct prometheus_sample *m);
} others[] = {
    {S_INIT("weir_requests_total"), add_requests},
    {S_INIT("weir_request_duration_seconds_bucket"), add_time},
    {S_INIT("weir_runtime_breaker"), add_breaker},
    {S_INIT("weir_endpoint_inflight"), add_inflight},
    {S_INIT("weir_endpoint_inflight_max"), add_inflight_max},
    {S_INIT("weir_plan_info"), add_plan},
};

static void add_sample(struct top_shot *s, const struct prometheus_sample *m)
{
    if (add_member(s, m))
        return;
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (str_eq(m->name, others[i].name))
            others[i].fn(s, m);
    for (size_t i = 0; i < ARRAY_LEN(totals); i++)
        if (str_eq(m->name, totals[i].name))
            *(double *)(void *)((char *)s + totals[i].at) += m->value;
}

int top_shot_add(struct top_shot *s, str metrics, struct err *e)
{
    struct prometheus p;
    struct prometheus_sample m;

    prometheus_begin(&p, metrics);
    while (prometheus_next(&p, &m))
        add_sample(s, &m);
    s->gateways++;
    return prometheus_end(&p, "metrics", e);
}

/* --- Comparing -------------------------------------------------------------------------------- */

static double since(double before, double now)
{
    return now >= before ? now - before : now;
}

static void histogram_since(const struct top_histogram *before, const struct top_histogram *now,
                            struct top_histogram *ret)
{
    size_t n = now->n;
    bool goes_on = n && before->n == n && before->count[n - 1] <= now->count[n - 1];

    *ret = *now;
    for (size_t i = 0; goes_on && i < n; i++)
        ret->count[i] -= before->count[i];
    ret->total = ret->n ? ret->count[ret->n - 1] : 0;
}

double top_quantile(const struct top_histogram *h, double q)
{
    double rank = q * h->total, below = 0, from = 0;

    if (!(h->total > 0))
        return (double)NAN;
    for (size_t i = 0; i < h->n; i++) {
        if (h->count[i] >= rank && h->count[i] > below) {
            if (isinf(h->le[i]))
                return from;
            return from + (h->le[i] - from) * (rank - below) / (h->count[i] - below);
        }
        below = h->count[i];
        from = h->le[i];
    }
    return from;
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : (double)NAN;
}

static void fill(struct top_row *row, const struct top_series *b, const struct top_series *n,
                 const struct top_histogram *time, double seconds)
{
    row->requests = since(b->requests, n->requests) / seconds;
    row->failed = since(b->failed, n->failed) / seconds;
    row->rows = since(b->rows, n->rows) / seconds;
    row->p50 = top_quantile(time, 0.5);
    row->p95 = top_quantile(time, 0.95);
    row->p99 = top_quantile(time, 0.99);
    row->queue = ratio(since(b->queue_sum, n->queue_sum), since(b->queue_count, n->queue_count));
    row->compute =
        ratio(since(b->compute_sum, n->compute_sum), since(b->compute_count, n->compute_count));
    row->batch = ratio(since(b->batch_sum, n->batch_sum), since(b->batch_count, n->batch_count));
}

static const struct top_series *find(const struct top_shot *s, const struct top_series *r)
{
    static const struct top_series none;

    for (size_t i = 0; i < s->count; i++)
        if (is_of(&s->series[i], r->endpoint, r->version, r->arm))
            return &s->series[i];
    return &none;
}

static void add_up(struct top_series *to, const struct top_series *from)
{
    to->requests += from->requests;
    to->failed += from->failed;
    to->rows += from->rows;
    to->queue_sum += from->queue_sum;
    to->queue_count += from->queue_count;
    to->compute_sum += from->compute_sum;
    to->compute_count += from->compute_count;
    to->batch_sum += from->batch_sum;
    to->batch_count += from->batch_count;
}

static str own(struct arena *a, str s)
{
    return arena_dup(a, s);
}

void top_compare(const struct top_shot *before, const struct top_shot *now, struct arena *a,
                 struct top_figures *ret)
{
    double seconds = MAX((double)(now->at_ns - before->at_ns) / (double)NS_PER_S, 1e-3);
    struct top_series sum_before = {.requests = 0}, sum_now = {.requests = 0};
    struct top_histogram sum_time = {.n = 0};

    *ret = (struct top_figures){.gateways = now->gateways,
                                .connections = now->connections,
                                .received = since(before->received, now->received) / seconds,
                                .sent = since(before->sent, now->sent) / seconds,
                                .dropped = since(before->dropped, now->dropped) / seconds,
                                .shed = since(before->shed, now->shed) / seconds,
                                .seconds = seconds,
                                .plan = own(a, now->plan)};
    ret->rows = ARENA_ARRAY(a, struct top_row, now->count + 1);
    for (size_t i = 0; i < now->count; i++) {
        const struct top_series *n = &now->series[i], *b = find(before, n);
        struct top_row *row = &ret->rows[ret->count];
        struct top_histogram time;

        if (str_eq(n->version, S("none")) && n->requests == 0) /* no version, and nobody asked */
            continue;
        histogram_since(&b->time, &n->time, &time);
        *row = (struct top_row){.endpoint = own(a, n->endpoint),
                                .version = own(a, n->version),
                                .arm = own(a, n->arm),
                                .breaker = own(a, n->breaker),
                                .has_crew = n->has_crew,
                                .workers = n->workers,
                                .busy = n->busy,
                                .waiting = n->waiting,
                                .inflight = json_real_or(json_get(now->inflight, n->endpoint), 0),
                                .inflight_max =
                                    json_real_or(json_get(now->inflight_max, n->endpoint), 0)};
        fill(row, b, n, &time, seconds);
        ret->count++;
        add_up(&sum_before, b);
        add_up(&sum_now, n);
        for (size_t k = 0; k < time.n; k++)
            add_bucket(&sum_time,
                       isinf(time.le[k]) ? S("+Inf") : arena_printf(a, "%.17g", time.le[k]),
                       time.count[k]);
    }
    sum_time.total = sum_time.n ? sum_time.count[sum_time.n - 1] : 0;
    fill(&ret->all, &sum_before, &sum_now, &sum_time, seconds);
}

/* --- Order ------------------------------------------------------------------------------------ */

static const struct {
    const char *text;
    char letter;
    size_t at;
} sorts[TOP_SORT_COUNT] = {
#define TOP_SORT(name, text, letter, member, help) {text, letter, offsetof(struct top_row, member)},
#include "cli/top_sorts.def"
#undef TOP_SORT
};

bool top_sort_of(str text, enum top_sort *ret)
{
    for (int i = 0; i < TOP_SORT_COUNT; i++)
        if (str_eqz(text, sorts[i].text)) {
            *ret = (enum top_sort)i;
            return true;
        }
    return false;
}

const char *top_sort_text(enum top_sort by)
{
    return sorts[by].text;
}

char top_sort_letter(enum top_sort by)
{
    return sorts[by].letter;
}

static int by_name(const void *x, const void *y)
{
    const struct top_row *a = x, *b = y;
    int c = str_cmp(a->endpoint, b->endpoint);

    c = c ? c : str_cmp(a->version, b->version);
    return c ? c : str_cmp(a->arm, b->arm);
}

static double key_of(const struct top_row *r, enum top_sort by)
{
    double v = *(const double *)(const void *)((const char *)r + sorts[by].at);

    return isnan(v) ? -1 : v;
}

/* Insertion keeps rows of the same figure in the order of names, so that they do not dance. */
void top_order(struct top_figures *f, enum top_sort by)
{
    if (f->count)
        qsort(f->rows, f->count, sizeof(f->rows[0]), by_name);
    for (size_t i = 1; by != TOP_BY_NAME && i < f->count; i++) {
        struct top_row row = f->rows[i];
        size_t k = i;

        for (; k > 0 && key_of(&f->rows[k - 1], by) < key_of(&row, by); k--)
            f->rows[k] = f->rows[k - 1];
        f->rows[k] = row;
    }
}
