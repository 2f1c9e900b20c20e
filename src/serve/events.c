/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/events.h"

#include "base/mem.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct event_series *series[EVENT_SERIES_MAX];
static uint32_t series_count; /* written under the lock, read with acquire */

static struct event_series *find(const struct event_kind *kind, str labels)
{
    for (uint32_t i = 0; i < series_count; i++)
        if (series[i]->kind == kind && str_eq(series[i]->labels, labels))
            return series[i];
    return NULL;
}

static struct event_series *make(const struct event_kind *kind, str labels, uint32_t loops)
{
    struct event_series *s =
        mem_zalloc_aligned(64, sizeof(struct event_series) + loops * sizeof(s->rows[0]));

    s->kind = kind;
    s->labels = (str){mem_dupz(labels.p, labels.n), labels.n};
    s->loops = loops;
    series[series_count] = s;
    __atomic_store_n(&series_count, series_count + 1, __ATOMIC_RELEASE);
    return s;
}

struct event_series *events_series(const struct event_kind *kind, str labels, uint32_t loops)
{
    struct event_series *s;

    ASSERT(kind->outcome_count <= EVENT_OUTCOMES_MAX);
    pthread_mutex_lock(&lock);
    s = find(kind, labels);
    if (!s && series_count < EVENT_SERIES_MAX)
        s = make(kind, labels, loops);
    pthread_mutex_unlock(&lock);
    ASSERT(!s || s->loops == loops);
    return s;
}

void events_count(struct event_series *s, uint32_t loop, uint32_t outcome)
{
    if (s)
        __atomic_store_n(&s->rows[loop].n[outcome], s->rows[loop].n[outcome] + 1, __ATOMIC_RELAXED);
}

uint64_t events_sum(const struct event_series *s, uint32_t outcome)
{
    uint64_t n = 0;

    for (uint32_t loop = 0; s && loop < s->loops; loop++)
        n += __atomic_load_n(&s->rows[loop].n[outcome], __ATOMIC_RELAXED);
    return n;
}

void events_write_metrics(struct buf *to, const struct event_kind *kind)
{
    uint32_t n = __atomic_load_n(&series_count, __ATOMIC_ACQUIRE);
    bool begun = false;

    for (uint32_t i = 0; i < n; i++)
        for (uint32_t o = 0; series[i]->kind == kind && o < kind->outcome_count; o++) {
            uint64_t sum = events_sum(series[i], o);

            if (!sum)
                continue;
            if (!begun)
                buf_printf(to, "# HELP %s %s\n# TYPE %s counter\n", kind->metric, kind->help,
                           kind->metric);
            begun = true;
            buf_printf(to, "%s{" STR_F ",%s=\"%s\"} %llu\n", kind->metric, STR_A(series[i]->labels),
                       kind->label, kind->outcomes[o], (unsigned long long)sum);
        }
}
