/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of monitors. One is made for a (monitor of the project, version) when traffic of that
 * version first comes in, and kept while it has any: during a rollout champion and challenger are
 * both watched, each against its own reference.
 *
 * What goes away takes its drift with it: a drifting version that another one has replaced, or that
 * is forgotten, or whose monitor the project changed, gets its drift.cleared with that reason, so
 * that no story stays open. Trouble of one monitor does not keep the others from their digest: the
 * first error is returned after all have had it.
 */
#include "watch/watch.h"

#include "base/mem.h"
#include "base/time.h"
#include "watch/priv.h"

#include <math.h>

#define MONITOR_IDLE_NS (INT64_C(3600) * NS_PER_S)   /* without traffic for so long: forgotten */
#define MONITOR_RETIRED_NS (INT64_C(120) * NS_PER_S) /* and another version has some: replaced */
#define RATE_STALE_NS (INT64_C(60) * NS_PER_S)       /* its rate no longer counts */
#define RETRY_NS (INT64_C(60) * NS_PER_S) /* a version without profile is looked up again */

struct watch {
    struct blobs *blobs;
    struct arena arena; /* of the settings */
    struct monitor_config *configs;
    size_t config_count;
    struct monitor *first;
    struct monitor *departed; /* drifting, but no longer of the project: their last fact is due */
};

int watch_new(struct blobs *blobs, struct watch **ret_watch, struct err *e)
{
    struct watch *w = mem_zalloc(sizeof(*w));

    (void)e;
    w->blobs = blobs;
    arena_init(&w->arena, 0);
    *ret_watch = w;
    return 0;
}

static void monitors_free(struct monitor **list)
{
    for (struct monitor *mo; (mo = *list);) {
        *list = mo->next;
        monitor_free(mo);
    }
}

void watch_free(struct watch *w)
{
    if (!w)
        return;
    monitors_free(&w->first);
    monitors_free(&w->departed);
    arena_done(&w->arena);
    mem_free(w);
}

/* --- Settings --------------------------------------------------------------------------------- */

/* The new settings of a monitor, when what it has gathered still counts under them. */
static const struct monitor_config *same_config(const struct monitor *mo,
                                                const struct monitor_config *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(list[i].name, mo->cfg.name) && str_eq(list[i].model, mo->cfg.model) &&
            str_eq(list[i].text, mo->cfg.text))
            return &list[i];
    return NULL;
}

static void retune_or_drop(struct watch *w)
{
    for (struct monitor **at = &w->first, *mo; (mo = *at);) {
        const struct monitor_config *now = same_config(mo, w->configs, w->config_count);

        if (now) {
            monitor_retune(mo, now);
            at = &mo->next;
            continue;
        }
        *at = mo->next;
        if (mo->state == MONITOR_DRIFTING) {
            mo->next = w->departed;
            w->departed = mo;
        } else {
            monitor_free(mo);
        }
    }
}

int watch_configure(struct watch *w, const struct json *project, struct err *e)
{
    struct monitor_config *list;
    struct arena fresh;
    size_t n;
    int rc;

    arena_init(&fresh, 0);
    rc = monitor_configs_read(project, &fresh, &list, &n, e);
    if (rc) {
        arena_done(&fresh);
        return rc;
    }
    arena_done(&w->arena); /* monitors hold copies of theirs */
    w->arena = fresh;
    w->configs = list;
    w->config_count = n;
    retune_or_drop(w);
    return 0;
}

/* --- Digests ---------------------------------------------------------------------------------- */

static struct monitor **find(struct watch *w, const struct monitor_config *cfg, str version)
{
    struct monitor **at = &w->first;

    while (*at && !(str_eq((*at)->cfg.name, cfg->name) && str_eq((*at)->version, version)))
        at = &(*at)->next;
    return at;
}

static NODISCARD int monitor_of(struct watch *w, struct meta *m, const struct monitor_config *cfg,
                                str version, struct monitor **ret_monitor, struct err *e)
{
    struct monitor **at = find(w, cfg, version), *mo = *at, *fresh;

    if (mo && !(mo->no_profile.n && time_mono_ns() - mo->made_mono_ns >= RETRY_NS)) {
        *ret_monitor = mo;
        return 0;
    }
    TRY(monitor_new(w->blobs, m, cfg, version, &fresh, e));
    if (mo) {
        *at = mo->next;
        monitor_free(mo);
    }
    fresh->next = w->first;
    w->first = fresh;
    *ret_monitor = fresh;
    return 0;
}

/* Rows per second of the other versions under the same monitor. */
static double other_rate(const struct watch *w, const struct monitor *mo)
{
    int64_t now = time_mono_ns();
    double rate = 0;

    for (const struct monitor *o = w->first; o; o = o->next)
        if (o != mo && str_eq(o->cfg.name, mo->cfg.name) && o->rows_mono_ns &&
            now - o->rows_mono_ns < RATE_STALE_NS)
            rate += o->rate;
    return rate;
}

static NODISCARD int fold(struct watch *w, struct meta *m, const struct digest *d,
                          const struct digest_series *s, const struct monitor_config *cfg,
                          int64_t wall_ns, struct err *e)
{
    struct monitor *mo;

    TRY(monitor_of(w, m, cfg, s->version, &mo, e));
    return monitor_fold(mo, m, d, s, other_rate(w, mo), wall_ns, e);
}

/* --- Farewells -------------------------------------------------------------------------------- */

static bool is_replaced(const struct watch *w, const struct monitor *mo, int64_t now)
{
    int64_t patience = MAX(MONITOR_RETIRED_NS, 2 * mo->cfg.window_ns);

    if (mo->state != MONITOR_DRIFTING || now - mo->rows_mono_ns < patience)
        return false;
    for (const struct monitor *o = w->first; o; o = o->next)
        if (o != mo && str_eq(o->cfg.name, mo->cfg.name) && now - o->rows_mono_ns < patience / 2)
            return true;
    return false;
}

static NODISCARD int farewells(struct watch *w, struct meta *m, int64_t wall_ns, struct err *e)
{
    int64_t now = time_mono_ns();
    struct monitor *mo;

    while ((mo = w->departed)) {
        TRY(monitor_close(mo, m, wall_ns, S("its monitor was changed or removed"), e));
        w->departed = mo->next;
        monitor_free(mo);
    }
    for (struct monitor **at = &w->first; (mo = *at);) {
        bool idle = now - mo->last_mono_ns > MONITOR_IDLE_NS;

        if (idle || is_replaced(w, mo, now))
            TRY(monitor_close(mo, m, wall_ns, S("this version no longer answers"), e));
        if (idle) {
            *at = mo->next;
            monitor_free(mo);
        } else {
            at = &mo->next;
        }
    }
    return 0;
}

static bool says_something(const struct digest_series *s)
{
    return !s->shadow && (s->rows || s->labels.joined || s->labels.errors || s->labels.corrected);
}

int watch_digest(struct watch *w, struct meta *m, const struct digest *d, int64_t wall_ns,
                 struct err *e)
{
    struct err other;
    int rc = 0, now;

    for (uint32_t i = 0; i < d->series_count; i++) {
        if (!says_something(d->series[i]))
            continue;
        for (size_t c = 0; c < w->config_count; c++) {
            if (!str_eq(w->configs[c].endpoint, d->series[i]->endpoint))
                continue;
            now = fold(w, m, d, d->series[i], &w->configs[c], wall_ns, rc ? &other : e);
            rc = rc ? rc : now;
        }
    }
    now = farewells(w, m, wall_ns, rc ? &other : e);
    return rc ? rc : now;
}

const struct monitor *watch_first(const struct watch *w)
{
    return w->first;
}

int watch_drifting(const struct watch *w, str endpoint)
{
    int drifting = -1;

    for (const struct monitor *mo = w->first; mo; mo = mo->next)
        if (str_eq(mo->cfg.endpoint, endpoint) && !mo->no_profile.n)
            drifting = MAX(drifting, mo->state == MONITOR_DRIFTING ? 1 : 0);
    return drifting;
}
