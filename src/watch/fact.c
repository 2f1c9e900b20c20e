/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the journal says of a drift: all that a person, or a trigger, needs to act on it without
 * asking anybody.
 *
 * Which feature stands first: those that e-BH selects, by impact, which is importance times how far
 * they moved; shifted predictions follow from shifted features and come after them. When the
 * evidence is spread so thin that none is selected alone, the order is that of the evidence.
 */
#include "base/time.h"
#include "watch/priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* --- Ranking ---------------------------------------------------------------------------------- */

static int falling(double x, double y)
{
    return (x < y) - (x > y);
}

static int by_rank(const void *a, const void *b)
{
    const struct drift_suspect *x = a, *y = b;

    if (x->suspect.selected != y->suspect.selected)
        return x->suspect.selected ? -1 : 1;
    if (x->suspect.selected && x->impact != y->impact)
        return falling(x->impact, y->impact);
    return falling(x->suspect.weighted, y->suspect.weighted);
}

size_t monitor_rank(const struct monitor *mo, struct drift_suspect ret[SUSPECTS_MAX])
{
    struct edetector_suspect suspects[SUSPECTS_MAX];
    size_t n =
        mo->detecting ? edetector_endpoint_suspects(&mo->detect, 0, suspects, SUSPECTS_MAX) : 0;

    for (size_t i = 0; i < n; i++) {
        const struct watch_column *c = &mo->columns[suspects[i].feature];

        ret[i].suspect = suspects[i];
        monitor_recent(mo, suspects[i].feature, suspects[i].rows_ago, &ret[i].dist);
        ret[i].psi = drift_psi_excess(&c->spec, ret[i].dist.rows, ret[i].dist.psi);
        /* Outputs below all features: negative, and still by size among themselves. */
        ret[i].impact = c->is_output ? -1 / (1 + ret[i].psi) : c->importance * ret[i].psi;
    }
    qsort(ret, n, sizeof(*ret), by_rank);
    return n;
}

/* --- Words ------------------------------------------------------------------------------------ */

static void set_sizes(const struct watch_column *c, const struct distance *d, struct json *o,
                      struct arena *a)
{
    json_set_int(a, o, S("n"), (int64_t)d->rows);
    json_set_finite(a, o, S("psi"), d->psi);
    json_set_finite(a, o, S("psi_null"), d->psi_null);
    json_set_finite(a, o, S("ks"), d->ks);
    json_set_finite(a, o, S("ks_p"), d->ks_p);
    json_set_finite(a, o, S("js"), d->js);
    json_set_finite(a, o, S("kl"), d->kl);
    json_set_finite(a, o, S("wasserstein_sd"), d->wasserstein);
    json_set_finite(a, o, S("mean_delta_sd"), d->mean_delta_sd);
    json_set_finite(a, o, S("variance_ratio"), d->variance_ratio);
    json_set_finite(a, o, S("missing_delta"), d->missing_delta);
    json_set_finite(a, o, S("outside_delta"), d->outside_delta);
    if (c->spec.kind == CELLS_CATEGORICAL) {
        json_set_finite(a, o, S("chi2"), d->chi2.statistic);
        json_set_finite(a, o, S("chi2_p"), d->chi2.p);
    }
}

static struct json *suspect_json(const struct monitor *mo, const struct drift_suspect *r,
                                 struct arena *a)
{
    const struct watch_column *c = &mo->columns[r->suspect.feature];
    struct json *o = json_new_object(a);

    json_set_str(a, o, S("feature"), c->name);
    json_set_str(a, o, S("role"), c->is_output ? S("output") : S("feature"));
    json_set_str(a, o, S("change"),
                 edetector_template_text(a, &c->bank.template[r->suspect.template]));
    json_set_bool(a, o, S("selected"), r->suspect.selected);
    json_set_finite(a, o, S("evidence"), r->suspect.evidence);
    json_set_finite(a, o, S("impact"), c->is_output ? NAN : r->impact);
    json_set_int(a, o, S("rows_ago"), (int64_t)r->suspect.rows_ago);
    set_sizes(c, &r->dist, o, a);
    json_set_str(a, o, S("severity"),
                 str_of(drift_severity_name(drift_severity_of(r->psi, &mo->cfg.bands))));
    return o;
}

/* --- Who is woken ----------------------------------------------------------------------------- */

static bool is_over(const struct watch_column *c)
{
    return c->last.outcome == WINDOW_PENDING || c->last.outcome == WINDOW_ALERT;
}

/* Columns that have moved: by evidence, or by the last window. */
static uint32_t moved(const struct monitor *mo, const struct drift_suspect *list, size_t n,
                      bool outputs)
{
    uint32_t found = 0;

    for (uint32_t i = 0; i < mo->column_count; i++) {
        const struct watch_column *c = &mo->columns[i];
        bool is = !c->ignored && is_over(c);

        for (size_t k = 0; k < n; k++)
            is |= list[k].suspect.selected && list[k].suspect.feature == i;
        found += is && c->is_output == outputs;
    }
    return found;
}

/* Drift alone is for a ticket; with predictions or labels moving too it is for people at night. */
static str urgency(const struct monitor *mo, const struct drift_story *story, uint32_t outputs)
{
    bool page = story->severity == DRIFT_SEVERE;

    if (mo->cfg.page_on == PAGE_NEVER)
        return S("ticket");
    if (mo->cfg.page_on == PAGE_CO_OCCURRENCE)
        page = (outputs || story->labels) && story->severity >= DRIFT_MODERATE;
    return page ? S("page") : S("ticket");
}

/* At least one feature, and at least the share that the project names. */
static void set_counts(const struct monitor *mo, uint32_t features, uint32_t outputs,
                       struct json *o, struct arena *a)
{
    uint32_t watched = 0, need;

    for (uint32_t i = 0; i < mo->column_count; i++)
        watched += !mo->columns[i].is_output && !mo->columns[i].ignored && mo->columns[i].has_spec;
    need = MAX((uint32_t)ceil(mo->cfg.share * watched - 1e-9), 1u);
    json_set_int(a, o, S("features_watched"), watched);
    json_set_int(a, o, S("features_drifting"), features);
    json_set_int(a, o, S("features_needed"), need);
    json_set_bool(a, o, S("model_drifted"), features >= need);
    json_set_bool(a, o, S("outputs_drifting"), outputs > 0);
}

/* --- The fact --------------------------------------------------------------------------------- */

static void set_times(const struct monitor *mo, const struct drift_event *ev,
                      const struct drift_story *story, struct json *o, struct arena *a)
{
    struct json *window = json_set(o, S("window"), json_new_object(a)), *latency;
    int64_t until = ev->type == FACT_DRIFT_DETECTED ? story->detected_ns : ev->wall_ns;

    json_set_int(a, window, S("from_ns"), ev->from_ns);
    json_set_int(a, window, S("to_ns"), ev->wall_ns);
    latency = json_set(o, S("detection_latency"), json_new_object(a));
    json_set_int(a, latency, S("rows"), (int64_t)(mo->rows - story->began_rows));
    json_set_real(a, latency, S("seconds"), (double)MAX(until - story->began_ns, INT64_C(0)) / 1e9);
    json_set_int(a, o, S("began_ns"), story->began_ns);
    json_set_int(a, o, S("first_breach_ns"), story->detected_ns);
    if (story->confirmed)
        json_set_int(a, o, S("confirmed_ns"), story->confirmed_ns);
    if (ev->type == FACT_DRIFT_CLEARED)
        json_set_int(a, o, S("lasted_ms"),
                     MAX(ev->wall_ns - story->detected_ns, INT64_C(0)) / NS_PER_MS);
}

static const struct watch_column *subject_of(const struct monitor *mo, const struct drift_event *ev,
                                             const struct drift_suspect *list, size_t n)
{
    if (ev->concept || ev->type == FACT_DRIFT_CLEARED)
        return NULL;
    if (ev->column >= 0)
        return &mo->columns[ev->column];
    return n ? &mo->columns[list[0].suspect.feature] : NULL;
}

static void set_what(const struct monitor *mo, const struct drift_event *ev,
                     const struct watch_column *about, struct json *o, struct arena *a)
{
    json_set_str(a, o, S("monitor"), mo->cfg.name);
    json_set_str(a, o, S("endpoint"), mo->cfg.endpoint);
    json_set_str(a, o, S("model"), mo->cfg.model);
    json_set_str(a, o, S("version"), mo->version);
    if (about)
        json_set_str(a, o, S("feature"), about->name);
    json_set_str(a, o, S("kind"),
                 ev->concept                 ? S("concept")
                 : about && about->is_output ? S("prediction")
                                             : S("feature"));
    json_set_str(a, o, S("metric"), str_of(ev->metric));
    json_set_str(a, o, S("statistic"), str_of(ev->metric));
    json_set_finite(a, o, S("value"), ev->value);
    json_set_finite(a, o, S("threshold"), ev->threshold);
    json_set_int(a, o, S("consecutive"), ev->consecutive);
}

static void set_labels(const struct monitor *mo, struct json *o, struct arena *a)
{
    if (!mo->label_reference)
        return;
    json_set_finite(a, o, S("reference_error_rate"), mo->label_ref_risk);
    json_set_finite(a, o, S("recent_error_rate"), monitor_recent_risk(mo));
    json_set_int(a, o, S("recent_labels"), mo->recent_labels);
}

/* What the number `value` was taken from. */
static int64_t sample(const struct monitor *mo, const struct drift_event *ev,
                      const struct drift_suspect *list, size_t n)
{
    if (ev->concept)
        return mo->recent_labels;
    if (ev->column >= 0)
        return (int64_t)mo->columns[ev->column].last.rows;
    return n ? (int64_t)list[0].dist.rows : 0;
}

static struct json *data_json(const struct monitor *mo, const struct drift_event *ev,
                              const struct drift_story *story, const struct drift_suspect *list,
                              size_t n, struct arena *a)
{
    uint32_t features_moved = moved(mo, list, n, false), outputs_moved = moved(mo, list, n, true);
    struct json *o = json_new_object(a), *features;

    set_what(mo, ev, subject_of(mo, ev, list, n), o, a);
    json_set_str(a, o, S("severity"), str_of(drift_severity_name(story->severity)));
    json_set_str(a, o, S("urgency"), urgency(mo, story, outputs_moved));
    json_set_bool(a, o, S("confirmed"), story->confirmed);
    json_set_bool(a, o, S("labels_worse"), story->labels);
    json_set_int(a, o, S("n"), sample(mo, ev, list, n));
    json_set_int(a, o, S("rows"), (int64_t)mo->rows);
    json_set_finite(a, o, S("rows_per_s"), mo->rate);
    set_counts(mo, features_moved, outputs_moved, o, a);
    set_times(mo, ev, story, o, a);
    set_labels(mo, o, a);
    features = json_set(o, S("features"), json_new_array(a));
    for (size_t i = 0; i < n; i++)
        json_push(features, suspect_json(mo, &list[i], a));
    return o;
}

static str reason_of(const struct monitor *mo, const struct drift_event *ev,
                     const struct watch_column *about, struct arena *a)
{
    str name = about ? about->name : S("?");

    if (ev->reason.n)
        return ev->reason;
    if (ev->type == FACT_DRIFT_CLEARED)
        return arena_printf(a, "%u quiet windows in a row", ev->consecutive);
    if (ev->concept)
        return arena_printf(a, "error rate %.3f on labels, reference %.3f", ev->value,
                            mo->label_ref_risk);
    if (ev->column >= 0)
        return arena_printf(a, "'" STR_F "' confirmed: psi %.2f, %u windows in a row", STR_A(name),
                            ev->value, ev->consecutive);
    return arena_printf(a, "'" STR_F "' changed: evidence %.3g against a budget of %.3g rows",
                        STR_A(name), ev->value, ev->threshold);
}

int drift_fact_append(const struct monitor *mo, struct meta *m, const struct drift_event *ev,
                      struct drift_story *story, struct err *e)
{
    struct drift_suspect list[SUSPECTS_MAX];
    size_t n = monitor_rank(mo, list);
    AUTO(arena_done) struct arena a = {0};
    struct fact_new fact = {.type = ev->type, .actor = S("weir")};
    struct fact_ref ref;

    arena_init(&a, 0);
    fact.subject = arena_printf(&a, "endpoint/" STR_F, STR_A(mo->cfg.endpoint));
    fact.reason = reason_of(mo, ev, subject_of(mo, ev, list, n), &a);
    fact.correlation = str_of(story->correlation);
    fact.data = data_json(mo, ev, story, list, n, &a);
    TRY(journal_append(m, &fact, &ref, e));
    if (!story->correlation[0]) /* the first fact of the story gives it its name */
        memcpy(story->correlation, ref.id, sizeof(story->correlation));
    return 0;
}
