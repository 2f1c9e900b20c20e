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

#include "base/log.h"
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
    const struct digest_clock *clock; /* NULL: nothing is kept */
    bool rows_stale;                  /* there may be rows without a monitor */
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
        w->rows_stale = true;
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

/* --- The list --------------------------------------------------------------------------------- */

static struct monitor **find(struct watch *w, const struct monitor_config *cfg, str version)
{
    struct monitor **at = &w->first;

    while (*at && !(str_eq((*at)->cfg.name, cfg->name) && str_eq((*at)->version, version)))
        at = &(*at)->next;
    return at;
}

/* --- Keeping ---------------------------------------------------------------------------------- */

void watch_keep(struct watch *w, const struct digest_clock *clock)
{
    w->clock = clock;
}

static const struct monitor_config *config_of(const struct watch *w, str name)
{
    for (size_t i = 0; i < w->config_count; i++)
        if (str_eq(w->configs[i].name, name))
            return &w->configs[i];
    return NULL;
}

/* A drift whose monitor is no more: as much of one as its last fact needs. */
static void depart(struct watch *w, const struct kept_head *h)
{
    struct monitor *mo = mem_zalloc(sizeof(*mo));

    arena_init(&mo->arena, 0);
    mo->cfg.name = arena_dup(&mo->arena, h->name);
    mo->cfg.endpoint = arena_dup(&mo->arena, h->endpoint);
    mo->cfg.model = arena_dup(&mo->arena, h->model);
    mo->version = arena_dup(&mo->arena, h->version);
    mo->cfg.bands = DRIFT_BANDS_PSI;
    mo->clock = w->clock;
    mo->state = h->state;
    mo->story = h->story;
    mo->next = w->departed;
    w->departed = mo;
}

static NODISCARD int restore_one(struct watch *w, struct meta *m, str row, struct arena *a,
                                 struct err *e)
{
    const struct monitor_config *cfg;
    struct kept_head head;
    struct monitor *mo = NULL;
    struct err why;
    str bytes;

    TRY(kept_get(m, S("monitor"), row, a, &bytes, e));
    if (!bytes.p)
        return 0;
    if (monitor_head_decode(bytes, a, &head, &why)) {
        log_event(LOG_WARN, "evidence.begun_anew", "row=\"" STR_F "\" reason=\"%s\"", STR_A(row),
                  why.msg);
        return 0;
    }
    cfg = config_of(w, head.name);
    if (cfg && *find(w, cfg, head.version))
        return 0;
    if (cfg) {
        TRY(monitor_new(w->blobs, m, cfg, head.version, w->clock, &mo, e));
        mo->next = w->first;
        w->first = mo;
    }
    if (!(mo && mo->seen) && head.state == MONITOR_DRIFTING)
        depart(w, &head);
    return 0;
}

int watch_restore(struct watch *w, struct meta *m, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    str *names;
    size_t n;

    if (!w->clock)
        return 0;
    arena_init(&a, 0);
    TRY(kept_names(m, S("monitor"), &a, &names, &n, e));
    for (size_t i = 0; i < n; i++)
        TRY(restore_one(w, m, names[i], &a, e));
    w->rows_stale = n > 0;
    return 0;
}

static bool has_monitor(const struct watch *w, str row)
{
    for (const struct monitor *mo = w->first; mo; mo = mo->next)
        if (str_starts(row, mo->cfg.name) && row.n == mo->cfg.name.n + 1 + mo->version.n &&
            str_ends(row, mo->version))
            return true;
    return false;
}

/* A departed drift keeps its row until its last fact is told. */
static bool has_departed(const struct watch *w, str row)
{
    const struct watch others = {.first = w->departed};

    return has_monitor(&others, row);
}

static NODISCARD int drop_stale(const struct watch *w, struct meta *m, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    str *names;
    size_t n;

    arena_init(&a, 0);
    TRY(kept_names(m, S("monitor"), &a, &names, &n, e));
    for (size_t i = 0; i < n; i++)
        if (!has_monitor(w, names[i]) && !has_departed(w, names[i]))
            TRY(kept_drop(m, S("monitor"), names[i], e));
    return 0;
}

int watch_save(struct watch *w, struct meta *m, struct err *e)
{
    if (!w->clock)
        return 0;
    if (w->rows_stale)
        TRY(drop_stale(w, m, e));
    for (struct monitor *mo = w->first; mo; mo = mo->next) {
        if (mo->unsaved)
            TRY(monitor_save(mo, m, false, e));
        mo->saving = mo->unsaved;
    }
    return 0;
}

void watch_saved(struct watch *w)
{
    w->rows_stale = w->departed != NULL;
    for (struct monitor *mo = w->first; mo; mo = mo->next)
        mo->unsaved &= !mo->saving;
}

/* --- Digests ---------------------------------------------------------------------------------- */

static NODISCARD int monitor_of(struct watch *w, struct meta *m, const struct monitor_config *cfg,
                                str version, struct monitor **ret_monitor, struct err *e)
{
    struct monitor **at = find(w, cfg, version), *mo = *at, *fresh;

    if (mo && !(mo->no_profile.n && time_mono_ns() - mo->made_mono_ns >= RETRY_NS)) {
        *ret_monitor = mo;
        return 0;
    }
    TRY(monitor_new(w->blobs, m, cfg, version, w->clock, &fresh, e));
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
            TRY(monitor_drop(mo, m, e));
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
