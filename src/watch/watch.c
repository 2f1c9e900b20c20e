/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of monitors. One is made for a (monitor of the project, version) when traffic of that
 * version first comes in, and kept while it has any: during a rollout champion and challenger are
 * both watched, each against its own reference.
 */
#include "watch/watch.h"

#include "base/log.h"
#include "base/mem.h"
#include "watch/priv.h"

#include <math.h>

#define MONITOR_IDLE_NS \
    INT64_C(3600000000000) /* a version without traffic for this long is forgotten */

struct watch {
    struct blobs *blobs;
    struct arena arena; /* of the settings */
    struct monitor_config *configs;
    size_t config_count;
    struct monitor *first;
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

static void monitors_drop(struct watch *w, bool (*drop)(const struct monitor *, const void *),
                          const void *arg)
{
    for (struct monitor **at = &w->first, *mo; (mo = *at);) {
        if (!drop(mo, arg)) {
            at = &mo->next;
            continue;
        }
        *at = mo->next;
        monitor_free(mo);
    }
}

static bool drop_all(const struct monitor *mo, const void *arg)
{
    (void)mo, (void)arg;
    return true;
}

void watch_free(struct watch *w)
{
    if (!w)
        return;
    monitors_drop(w, drop_all, NULL);
    arena_done(&w->arena);
    mem_free(w);
}

/* --- Settings --------------------------------------------------------------------------------- */

struct config_list {
    const struct monitor_config *list;
    size_t n;
};

static bool drop_changed(const struct monitor *mo, const void *arg)
{
    const struct config_list *now = arg;

    for (size_t i = 0; i < now->n; i++)
        if (str_eq(now->list[i].name, mo->cfg.name) && str_eq(now->list[i].model, mo->cfg.model) &&
            str_eq(now->list[i].text, mo->cfg.text))
            return false;
    return true;
}

/* The kept monitors point into the settings that go away: give them the new ones, which are equal.
 */
static void rebind(struct watch *w, const struct config_list *now)
{
    for (struct monitor *mo = w->first; mo; mo = mo->next)
        for (size_t i = 0; i < now->n; i++)
            if (str_eq(now->list[i].name, mo->cfg.name))
                mo->cfg = now->list[i];
}

int watch_configure(struct watch *w, const struct json *project, struct err *e)
{
    struct arena fresh;
    struct config_list now;
    struct monitor_config *list;
    int rc;

    arena_init(&fresh, 0);
    rc = monitor_configs_read(project, &fresh, &list, &now.n, e);
    if (rc) {
        arena_done(&fresh);
        return rc;
    }
    now.list = list;
    monitors_drop(w, drop_changed, &now);
    rebind(w, &now);
    arena_done(&w->arena);
    w->arena = fresh;
    w->configs = list;
    w->config_count = now.n;
    return 0;
}

/* --- Digests ---------------------------------------------------------------------------------- */

static NODISCARD int monitor_of(struct watch *w, struct meta *m, const struct monitor_config *cfg,
                                str version, struct monitor **ret_monitor, struct err *e)
{
    struct monitor *mo = w->first;

    while (mo && !(str_eq(mo->cfg.name, cfg->name) && str_eq(mo->version, version)))
        mo = mo->next;
    if (!mo) {
        TRY(monitor_new(w->blobs, m, cfg, version, &mo, e));
        mo->next = w->first;
        w->first = mo;
    }
    *ret_monitor = mo;
    return 0;
}

static bool drop_idle(const struct monitor *mo, const void *arg)
{
    return *(const int64_t *)arg - mo->last_ns > MONITOR_IDLE_NS;
}

int watch_digest(struct watch *w, struct meta *m, const struct digest *d, int64_t wall_ns,
                 struct err *e)
{
    for (uint32_t i = 0; i < d->series_count; i++) {
        const struct digest_series *s = d->series[i];

        if (s->shadow || (!s->rows && !s->labels.joined))
            continue;
        for (size_t c = 0; c < w->config_count; c++) {
            struct monitor *mo;

            if (!str_eq(w->configs[c].endpoint, s->endpoint))
                continue;
            TRY(monitor_of(w, m, &w->configs[c], s->version, &mo, e));
            TRY(monitor_fold(mo, m, d, s, wall_ns, e));
        }
    }
    monitors_drop(w, drop_idle, &wall_ns);
    return 0;
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
