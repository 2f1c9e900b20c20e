/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/counters.h"

#include "base/mem.h"

#include <pthread.h>

static const struct {
    uint64_t upto_us;
    const char *le;
} buckets[COUNTERS_BUCKETS] = {
    {100, "0.0001"},  {250, "0.00025"}, {500, "0.0005"},  {1000, "0.001"}, {2500, "0.0025"},
    {5000, "0.005"},  {10000, "0.01"},  {25000, "0.025"}, {50000, "0.05"}, {100000, "0.1"},
    {250000, "0.25"}, {500000, "0.5"},  {1000000, "1"},   {5000000, "5"},  {UINT64_MAX, "+Inf"},
};

/* Powers of two: a batch grows by doubling load, not by tens. */
static const uint64_t batch_buckets[COUNTERS_BATCH_BUCKETS] = {1,  2,   4,   8,   16,   32,
                                                               64, 128, 256, 512, 1024, UINT64_MAX};

static const char *const end_labels[END_COUNT] = {
#define REQUEST_END(name, label, help) label,
#include "serve/ends.def"
#undef REQUEST_END
};

static const char *const shed_labels[SHED_COUNT] = {
#define SHED(name, label, help) label,
#include "serve/sheds.def"
#undef SHED
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct counter_series *series[COUNTERS_SERIES_MAX];
static uint32_t series_count; /* written under the lock, read with acquire */

static str dup(str s)
{
    return (str){mem_dupz(s.p, s.n), s.n};
}

static struct counter_series *series_find(str endpoint, str version, str arm)
{
    for (uint32_t i = 0; i < series_count; i++)
        if (str_eq(series[i]->endpoint, endpoint) && str_eq(series[i]->version, version) &&
            str_eq(series[i]->arm, arm))
            return series[i];
    return NULL;
}

static struct counter_series *series_new(str endpoint, str version, str arm, uint32_t loops)
{
    size_t bytes = sizeof(struct counter_series) + loops * sizeof(struct counters);
    struct counter_series *s = mem_zalloc_aligned(64, bytes);

    s->endpoint = dup(endpoint);
    s->version = dup(version);
    s->arm = dup(arm);
    s->loops = loops;
    series[series_count] = s;
    __atomic_store_n(&series_count, series_count + 1, __ATOMIC_RELEASE);
    return s;
}

struct counter_series *counters_series(str endpoint, str version, str arm, uint32_t loops)
{
    struct counter_series *s;

    ASSERT(loops > 0 && loops <= COUNTERS_LOOPS_MAX);
    pthread_mutex_lock(&lock);
    s = series_find(endpoint, version, arm);
    if (!s && series_count < COUNTERS_SERIES_MAX)
        s = series_new(endpoint, version, arm, loops);
    pthread_mutex_unlock(&lock);
    ASSERT(!s || s->loops == loops);
    return s;
}

static void observe(struct counters *c, enum request_part part, uint64_t us)
{
    uint32_t b = 0;

    while (us > buckets[b].upto_us)
        b++;
    counter_add(&c->parts[part].us_sum, us);
    counter_add(&c->parts[part].buckets[b], 1);
}

void counters_request(struct counters *c, enum request_end end, uint64_t rows, uint64_t total_us,
                      uint64_t compute_us)
{
    counter_add(&c->ends[end], 1);
    counter_add(&c->rows, rows);
    observe(c, PART_TOTAL, total_us);
    if (!compute_us)
        return;
    observe(c, PART_COMPUTE, compute_us);
    observe(c, PART_QUEUE, total_us - MIN(compute_us, total_us));
}

void counters_batch(struct counters *c, uint64_t rows)
{
    uint32_t b = 0;

    while (rows > batch_buckets[b])
        b++;
    counter_add(&c->batches.rows_sum, rows);
    counter_add(&c->batches.buckets[b], 1);
}

const char *counters_end_label(enum request_end end)
{
    return end_labels[end];
}

uint64_t counters_failed(const struct counters *c)
{
    uint64_t n = 0;

    for (int end = 0; end < END_COUNT; end++)
        n += end == END_OK ? 0 : c->ends[end];
    return n;
}

void counters_sum(const struct counter_series *s, struct counters *total)
{
    const size_t words = sizeof(struct counters) / sizeof(uint64_t);
    uint64_t *to = (uint64_t *)total;

    uint64_t last_ms = 0;

    memset(total, 0, sizeof(*total));
    for (uint32_t loop = 0; loop < s->loops; loop++) {
        const uint64_t *from = (const uint64_t *)&s->rows[loop];

        for (size_t i = 0; i < words; i++)
            to[i] += __atomic_load_n(&from[i], __ATOMIC_RELAXED);
        last_ms = MAX(last_ms, __atomic_load_n(&s->rows[loop].last_ms, __ATOMIC_RELAXED));
    }
    total->last_ms = last_ms; /* a time, no count */
}

/* Label values hold names only (str_is_name), so nothing needs an escape. */
static void write_labels(struct buf *to, const struct counter_series *s)
{
    buf_printf(to, "{endpoint=\"" STR_F "\",version=\"" STR_F "\",arm=\"" STR_F "\"",
               STR_A(s->endpoint), STR_A(s->version), STR_A(s->arm));
}

static void write_head(struct buf *to, const char *name, const char *type, const char *help)
{
    buf_printf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static const struct {
    const char *name, *help;
} part_metrics[PART_COUNT] = {
    [PART_TOTAL] = {"weir_request_duration_seconds",
                    "From the arrival of the request in this process to its answer."},
    [PART_QUEUE] = {"weir_queue_duration_seconds",
                    "Of that, reading the request and waiting for the run."},
    [PART_COMPUTE] = {"weir_compute_duration_seconds", "The run that the request was part of."},
};

static void write_histogram(struct buf *to, const struct counter_series *s,
                            const struct counters *c, enum request_part part)
{
    const char *name = part_metrics[part].name;
    uint64_t cumulative = 0;

    for (uint32_t b = 0; b < COUNTERS_BUCKETS; b++) {
        cumulative += c->parts[part].buckets[b];
        buf_printf(to, "%s_bucket", name);
        write_labels(to, s);
        buf_printf(to, ",le=\"%s\"} %llu\n", buckets[b].le, (unsigned long long)cumulative);
    }
    buf_printf(to, "%s_sum", name);
    write_labels(to, s);
    buf_printf(to, "} %.6f\n", (double)c->parts[part].us_sum / 1e6);
    buf_printf(to, "%s_count", name);
    write_labels(to, s);
    buf_printf(to, "} %llu\n", (unsigned long long)cumulative);
}

static void write_batches(struct buf *to, const struct counter_series *s, const struct counters *c)
{
    uint64_t cumulative = 0;

    for (uint32_t b = 0; b < COUNTERS_BATCH_BUCKETS; b++) {
        cumulative += c->batches.buckets[b];
        buf_add_str(to, S("weir_batch_rows_bucket"));
        write_labels(to, s);
        if (batch_buckets[b] == UINT64_MAX)
            buf_add_str(to, S(",le=\"+Inf\"}"));
        else
            buf_printf(to, ",le=\"%llu\"}", (unsigned long long)batch_buckets[b]);
        buf_printf(to, " %llu\n", (unsigned long long)cumulative);
    }
    buf_add_str(to, S("weir_batch_rows_sum"));
    write_labels(to, s);
    buf_printf(to, "} %llu\n", (unsigned long long)c->batches.rows_sum);
    buf_add_str(to, S("weir_batch_rows_count"));
    write_labels(to, s);
    buf_printf(to, "} %llu\n", (unsigned long long)cumulative);
}

static void write_counter(struct buf *to, const char *name, const struct counter_series *s,
                          uint64_t v)
{
    buf_printf(to, "%s", name);
    write_labels(to, s);
    buf_printf(to, "} %llu\n", (unsigned long long)v);
}

void counters_write_metrics(struct buf *to)
{
    uint32_t n = __atomic_load_n(&series_count, __ATOMIC_ACQUIRE);
    struct counters c;

    write_head(to, "weir_requests_total", "counter", "Requests to an endpoint by how they ended.");
    for (uint32_t i = 0; i < n; i++) {
        counters_sum(series[i], &c);
        for (uint32_t end = 0; end < END_COUNT; end++) {
            buf_add_str(to, S("weir_requests_total"));
            write_labels(to, series[i]);
            buf_printf(to, ",result=\"%s\"} %llu\n", end_labels[end],
                       (unsigned long long)c.ends[end]);
        }
    }
    write_head(to, "weir_shed_total", "counter", "Requests refused as overload (503), by reason.");
    for (uint32_t i = 0; i < n; i++) {
        counters_sum(series[i], &c);
        for (uint32_t why = 0; why < SHED_COUNT; why++) {
            buf_add_str(to, S("weir_shed_total"));
            write_labels(to, series[i]);
            buf_printf(to, ",reason=\"%s\"} %llu\n", shed_labels[why],
                       (unsigned long long)c.sheds[why]);
        }
    }
    write_head(to, "weir_rows_total", "counter", "Rows scored.");
    for (uint32_t i = 0; i < n; i++) {
        counters_sum(series[i], &c);
        write_counter(to, "weir_rows_total", series[i], c.rows);
    }
    write_head(to, "weir_shadow_skipped_total", "counter",
               "Shadow copies that were left out because the shadow queue was full.");
    for (uint32_t i = 0; i < n; i++) {
        counters_sum(series[i], &c);
        write_counter(to, "weir_shadow_skipped_total", series[i], c.shadow_skipped);
    }
    for (int part = 0; part < PART_COUNT; part++) {
        write_head(to, part_metrics[part].name, "histogram", part_metrics[part].help);
        for (uint32_t i = 0; i < n; i++) {
            counters_sum(series[i], &c);
            write_histogram(to, series[i], &c, (enum request_part)part);
        }
    }
    write_head(to, "weir_batch_rows", "histogram", "Rows of the runs of a model.");
    for (uint32_t i = 0; i < n; i++) {
        counters_sum(series[i], &c);
        write_batches(to, series[i], &c);
    }
}
