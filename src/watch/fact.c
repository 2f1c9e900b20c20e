/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the journal says of a drift: all that a person, or a trigger, needs to act on it without
 * asking anybody. Features are ranked by impact: importance times how far they moved, among those
 * with evidence.
 */
#include "base/time.h"
#include "watch/priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SUSPECTS_MAX 16

struct ranked {
    struct edetector_suspect suspect;
    struct distance dist;
    double impact;
};

static int by_impact(const void *a, const void *b)
{
    double x = ((const struct ranked *)a)->impact, y = ((const struct ranked *)b)->impact;

    return (x < y) - (x > y);
}

static size_t rank(const struct monitor *mo, struct ranked list[SUSPECTS_MAX])
{
    struct edetector_suspect suspects[SUSPECTS_MAX];
    size_t n =
        mo->detecting ? edetector_endpoint_suspects(&mo->detect, 0, suspects, SUSPECTS_MAX) : 0;

    for (size_t i = 0; i < n; i++) {
        const struct watch_column *c = &mo->columns[suspects[i].feature];

        list[i].suspect = suspects[i];
        monitor_recent(mo, suspects[i].feature, suspects[i].rows_ago, &list[i].dist);
        list[i].impact = suspects[i].selected ? c->importance * list[i].dist.psi : 0;
    }
    qsort(list, n, sizeof(*list), by_impact);
    return n;
}

static void set_finite(struct arena *a, struct json *to, const char *key, double v)
{
    if (isfinite(v))
        json_set_real(a, to, str_of(key), v);
}

static struct json *suspect_json(const struct monitor *mo, const struct ranked *r, struct arena *a)
{
    const struct watch_column *c = &mo->columns[r->suspect.feature];
    struct json *o = json_new_object(a);

    json_set_str(a, o, S("feature"), c->name);
    json_set_str(a, o, S("role"), c->is_output ? S("output") : S("feature"));
    json_set_str(a, o, S("change"),
                 edetector_template_text(a, &c->bank.template[r->suspect.template]));
    json_set_bool(a, o, S("selected"), r->suspect.selected);
    set_finite(a, o, "evidence", r->suspect.evidence);
    set_finite(a, o, "impact", r->impact);
    json_set_int(a, o, S("rows_ago"), (int64_t)r->suspect.rows_ago);
    json_set_int(a, o, S("n"), (int64_t)r->dist.rows);
    set_finite(a, o, "psi", r->dist.psi);
    set_finite(a, o, "ks", r->dist.ks);
    set_finite(a, o, "js", r->dist.js);
    set_finite(a, o, "kl", r->dist.kl);
    set_finite(a, o, "wasserstein_sd", r->dist.wasserstein);
    set_finite(a, o, "mean_delta_sd", r->dist.mean_delta_sd);
    set_finite(a, o, "missing_delta", r->dist.missing_delta);
    set_finite(a, o, "outside_delta", r->dist.outside_delta);
    json_set_str(a, o, S("severity"),
                 str_of(drift_severity_name(drift_severity_of(r->dist.psi, &mo->cfg.bands))));
    return o;
}

/* Drift alone is for a ticket; with predictions or labels moving too it is for people at night. */
static str urgency(const struct monitor *mo, const struct drift_event *ev,
                   const struct ranked *list, size_t n)
{
    bool proxy = strcmp(ev->kind, "concept") == 0;

    for (size_t i = 0; i < n; i++)
        proxy |= list[i].suspect.selected && mo->columns[list[i].suspect.feature].is_output;
    if (str_eq(mo->cfg.page_on, S("never")))
        return S("ticket");
    if (str_eq(mo->cfg.page_on, S("severe")))
        return ev->severity == DRIFT_SEVERE ? S("page") : S("ticket");
    return proxy && ev->severity >= DRIFT_MODERATE ? S("page") : S("ticket");
}

static struct json *data_json(struct monitor *mo, const struct drift_event *ev, struct arena *a,
                              str *ret_first)
{
    struct ranked list[SUSPECTS_MAX];
    size_t n = rank(mo, list);
    struct json *o = json_new_object(a), *latency, *window, *features;

    *ret_first = n && strcmp(ev->kind, "concept") != 0 ? mo->columns[list[0].suspect.feature].name
                                                       : STR_NULL;
    json_set_str(a, o, S("monitor"), mo->cfg.name);
    json_set_str(a, o, S("endpoint"), mo->cfg.endpoint);
    json_set_str(a, o, S("model"), mo->cfg.model);
    json_set_str(a, o, S("version"), mo->version);
    if (ret_first->n)
        json_set_str(a, o, S("feature"), *ret_first);
    json_set_str(a, o, S("kind"), str_of(ev->kind));
    json_set_str(a, o, S("metric"), str_of(ev->metric));
    set_finite(a, o, "value", ev->value);
    set_finite(a, o, "threshold", ev->threshold);
    json_set_str(a, o, S("severity"), str_of(drift_severity_name(ev->severity)));
    json_set_str(a, o, S("urgency"), urgency(mo, ev, list, n));
    json_set_int(a, o, S("consecutive"), ev->consecutive);
    json_set_int(a, o, S("n"), n ? (int64_t)list[0].dist.rows : 0);
    json_set_bool(a, o, S("confirmed"), mo->confirmed);
    json_set_int(a, o, S("rows"), (int64_t)mo->rows);
    set_finite(a, o, "rows_per_s", mo->rate);
    window = json_set(o, S("window"), json_new_object(a));
    json_set_int(a, window, S("from_ns"), ev->from_ns);
    json_set_int(a, window, S("to_ns"), ev->wall_ns);
    latency = json_set(o, S("detection_latency"), json_new_object(a));
    json_set_int(a, latency, S("rows"), (int64_t)ev->rows_ago);
    set_finite(a, latency, "seconds", mo->rate > 0 ? (double)ev->rows_ago / mo->rate : NAN);
    if (mo->label_reference) {
        set_finite(a, o, "reference_error_rate", mo->label_ref_risk);
        if (mo->recent_labels > 0)
            set_finite(a, o, "recent_error_rate",
                       (double)mo->recent_errors / (double)mo->recent_labels);
    }
    features = json_set(o, S("features"), json_new_array(a));
    for (size_t i = 0; i < n; i++)
        json_push(features, suspect_json(mo, &list[i], a));
    return o;
}

static str reason_of(const struct monitor *mo, const struct drift_event *ev, str first,
                     struct arena *a)
{
    if (ev->type == FACT_DRIFT_CLEARED)
        return arena_printf(a, "%u quiet windows in a row", ev->consecutive);
    if (strcmp(ev->kind, "concept") == 0)
        return arena_printf(a, "error rate %.3f on labels, reference %.3f", ev->value,
                            mo->label_ref_risk);
    if (ev->type == FACT_DRIFT_ESCALATED)
        return arena_printf(a, "confirmed: psi %.2f over %u windows in a row", ev->value,
                            ev->consecutive);
    return arena_printf(a, "'" STR_F "' changed: evidence %.3g against a budget of %.3g rows",
                        STR_A(first), ev->value, ev->threshold);
}

int drift_fact_append(struct monitor *mo, struct meta *m, const struct drift_event *ev,
                      struct err *e)
{
    AUTO(arena_done) struct arena a;
    struct fact_new fact = {.type = ev->type, .actor = S("weir")};
    struct fact_ref ref;
    struct json *data;
    str first;

    arena_init(&a, 0);
    data = data_json(mo, ev, &a, &first);
    fact.subject = arena_printf(&a, "endpoint/" STR_F, STR_A(mo->cfg.endpoint));
    fact.reason = reason_of(mo, ev, first, &a);
    fact.correlation = str_of(mo->correlation);
    fact.data = data;
    TRY(journal_append(m, &fact, &ref, e));
    if (!mo->correlation[0]) /* the first fact of the story gives it its name */
        memcpy(mo->correlation, ref.id, sizeof(mo->correlation));
    return 0;
}
