/* SPDX-License-Identifier: Apache-2.0 */
#include "base/time.h"
#include "watch/priv.h"

#include <math.h>

static const char *const state_names[] = {"warming", "ok", "drifting"};

static void write_sizes(const struct watch_column *c, const struct distance *d, struct json_out *o)
{
    jo_kint(o, S("n"), (int64_t)d->rows);
    jo_kfinite(o, S("psi"), d->psi);
    jo_kfinite(o, S("psi_null"), d->psi_null);
    jo_kfinite(o, S("ks"), d->ks);
    jo_kfinite(o, S("ks_p"), d->ks_p);
    jo_kfinite(o, S("js"), d->js);
    jo_kfinite(o, S("kl"), d->kl);
    jo_kfinite(o, S("wasserstein_sd"), d->wasserstein);
    jo_kfinite(o, S("mean_delta_sd"), d->mean_delta_sd);
    jo_kfinite(o, S("variance_ratio"), d->variance_ratio);
    jo_kfinite(o, S("missing_delta"), d->missing_delta);
    jo_kfinite(o, S("outside_delta"), d->outside_delta);
    if (c->spec.kind == CELLS_CATEGORICAL) {
        jo_kfinite(o, S("chi2"), d->chi2.statistic);
        jo_kfinite(o, S("chi2_p"), d->chi2.p);
    }
}

static void write_column(const struct monitor *mo, uint32_t i, struct json_out *o)
{
    const struct watch_column *c = &mo->columns[i];
    bool judged = c->has_bank && mo->detecting && mo->detect.banks[i];
    struct distance d;
    double psi;

    monitor_recent(mo, i, UINT64_MAX, &d);
    psi = drift_psi_excess(&c->spec, d.rows, d.psi);
    jo_object(o);
    jo_kstr(o, S("feature"), c->name);
    jo_kstr(o, S("role"), c->is_output ? S("output") : S("feature"));
    jo_kbool(o, S("ignored"), c->ignored);
    jo_kfinite(o, S("evidence"),
               judged ? edetector_evidence(&c->bank, &mo->detect.detectors[i]) : NAN);
    write_sizes(c, &d, o);
    jo_kint(o, S("windows_over"), c->last.streak);
    jo_kstr(o, S("severity"), str_of(drift_severity_name(drift_severity_of(psi, &mo->cfg.bands))));
    jo_object_end(o);
}

static void write_labels(const struct monitor *mo, struct json_out *o)
{
    jo_key(o, S("labels"));
    jo_object(o);
    jo_kint(o, S("joined"), mo->labels_n);
    jo_kint(o, S("errors"), mo->label_errors);
    if (mo->label_reference) {
        jo_kreal(o, S("reference_error_rate"), mo->label_ref_risk);
        jo_kreal(o, S("bound"), mo->labels.m0);
        jo_kfinite(o, S("evidence"), betting_evidence(&mo->labels));
        jo_kfinite(o, S("budget_rows"), mo->labels.budget_rows);
    }
    jo_kfinite(o, S("recent_error_rate"), monitor_recent_risk(mo));
    jo_object_end(o);
}

static void write_story(const struct drift_story *story, struct json_out *o)
{
    jo_kstr(o, S("severity"), str_of(drift_severity_name(story->severity)));
    if (!story->detected_ns)
        return;
    jo_kint(o, S("began_ns"), story->began_ns);
    jo_kint(o, S("first_breach_ns"), story->detected_ns);
    jo_kbool(o, S("confirmed"), story->confirmed);
    if (story->confirmed)
        jo_kint(o, S("confirmed_ns"), story->confirmed_ns);
    jo_kbool(o, S("labels_worse"), story->labels);
    jo_kint(o, S("quiet_windows"), story->quiet_windows);
    jo_kstr(o, S("correlation"), str_of(story->correlation));
}

static void write_evidence(const struct monitor *mo, struct json_out *o)
{
    jo_kint(o, S("rows"), (int64_t)mo->rows);
    jo_kint(o, S("alarms"), (int64_t)mo->alarms);
    jo_kreal(o, S("rows_per_s"), monitor_rate_lately(mo, time_mono_ns()));
    if (mo->detecting) {
        jo_kfinite(o, S("evidence"), edetector_endpoint_evidence(&mo->detect));
        jo_kfinite(o, S("budget_rows"), mo->detect.budget_rows);
    }
    if (mo->cfg.rows <= 0)
        jo_kreal(o, S("false_alarm_every_s"), mo->cfg.one_in_s);
}

static void write_monitor(const struct monitor *mo, struct json_out *o)
{
    jo_object(o);
    jo_kstr(o, S("monitor"), mo->cfg.name);
    jo_kstr(o, S("endpoint"), mo->cfg.endpoint);
    jo_kstr(o, S("model"), mo->cfg.model);
    jo_kstr(o, S("version"), mo->version);
    jo_kstr(o, S("state"), mo->no_profile.n ? S("unwatched") : str_of(state_names[mo->state]));
    if (mo->no_profile.n)
        jo_kstr(o, S("reason"), mo->no_profile);
    write_story(&mo->story, o);
    write_evidence(mo, o);
    write_labels(mo, o);
    jo_key(o, S("features"));
    jo_array(o);
    for (uint32_t i = 0; i < mo->column_count; i++)
        if (mo->columns[i].has_spec)
            write_column(mo, i, o);
    jo_array_end(o);
    jo_object_end(o);
}

void watch_report(const struct watch *w, str endpoint, struct json_out *out)
{
    jo_object(out);
    jo_key(out, S("monitors"));
    jo_array(out);
    for (const struct monitor *mo = watch_first(w); mo; mo = mo->next)
        if (!endpoint.n || str_eq(endpoint, mo->cfg.endpoint))
            write_monitor(mo, out);
    jo_array_end(out);
    jo_object_end(out);
}
