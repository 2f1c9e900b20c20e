/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A digest as JSON, for the API and for people. Columns go by name where the schema is known, else
 * by number. A mean is given where the spec of the column is known, since moments are kept about
 * its centre.
 */
#include "record/digest.h"

#include "base/time.h"

static const struct {
    const char *text;
    int bit;
} flags[] = {
#define RECORD_FLAG(name, bit, text, help) {text, bit},
#include "record/flags.def"
#undef RECORD_FLAG
};

static void write_status(struct json_out *o, const struct digest_series *s)
{
    static const char *const names[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};

    jo_key(o, S("status"));
    jo_object(o);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (s->status[i])
            jo_kint(o, str_of(names[i]), (int64_t)s->status[i]);
    jo_object_end(o);
    jo_key(o, S("flags"));
    jo_object(o);
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (s->flags[flags[i].bit])
            jo_kint(o, str_of(flags[i].text), (int64_t)s->flags[flags[i].bit]);
    jo_object_end(o);
}

static void write_latency(struct json_out *o, const struct latency *l)
{
    static const struct {
        const char *name;
        double q;
    } quantiles[] = {{"p50_us", 0.5}, {"p95_us", 0.95}, {"p99_us", 0.99}, {"p999_us", 0.999}};

    if (!l || !l->n)
        return;
    jo_key(o, S("latency"));
    jo_object(o);
    jo_kint(o, S("count"), (int64_t)l->n);
    jo_kreal(o, S("mean_us"), latency_mean_ns(l) / 1e3);
    for (size_t i = 0; i < ARRAY_LEN(quantiles); i++)
        jo_kreal(o, str_of(quantiles[i].name),
                 (double)latency_quantile_ns(l, quantiles[i].q) / 1e3);
    jo_kreal(o, S("max_us"), (double)l->max_ns / 1e3);
    jo_object_end(o);
}

static void write_column(struct json_out *o, const struct digest_series *s, uint32_t i, bool full)
{
    const struct cells *c = &s->cells[i];
    const struct cells_spec *spec = s->schema && s->schema->cells ? s->schema->cells[i] : NULL;

    jo_object(o);
    if (s->schema)
        jo_kstr(o, S("name"), s->schema->columns[i].name);
    else
        jo_kint(o, S("column"), i);
    jo_kstr(o, S("role"), i < s->feature_count ? S("feature") : S("output"));
    jo_kint(o, S("rows"), (int64_t)cells_total(c));
    jo_kint(o, S("numbers"), (int64_t)c->n);
    if (spec) {
        jo_kint(o, S("missing"), (int64_t)c->counts[cells_missing(spec)]);
        jo_kint(o, S("outside"), (int64_t)c->counts[cells_outside(spec)]);
        if (c->n)
            jo_kreal(o, S("mean"), cells_mean(spec, c));
        if (c->n > 1)
            jo_kreal(o, S("variance"), cells_variance(c));
    }
    if (full) {
        uint32_t n = spec ? cells_count(spec) : CELLS_MAX;

        jo_key(o, S("counts"));
        jo_array(o);
        for (uint32_t k = 0; k < n; k++)
            jo_int(o, (int64_t)c->counts[k]);
        jo_array_end(o);
    }
    jo_object_end(o);
}

static uint32_t classes_used(const struct digest_labels *l)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < RECORD_CLASSES_MAX; i++)
        for (uint32_t k = 0; k < RECORD_CLASSES_MAX; k++)
            if (l->confusion[i][k])
                n = MAX(n, MAX(i, k) + 1);
    return n;
}

static void write_labels(struct json_out *o, const struct digest_labels *l)
{
    uint32_t classes = classes_used(l);

    jo_key(o, S("labels"));
    jo_object(o);
    jo_kint(o, S("joined"), l->joined);
    jo_kint(o, S("corrected"), l->corrected);
    jo_kint(o, S("duplicates"), l->duplicates);
    jo_kint(o, S("errors"), l->errors);
    jo_kint(o, S("unusable"), l->unusable);
    jo_kreal(o, S("squared_error"), l->squared_error);
    jo_kreal(o, S("absolute_error"), l->absolute_error);
    if (l->joined > 0)
        jo_kreal(o, S("mean_delay_s"), (double)l->delay_ms_sum / 1e3 / (double)l->joined);
    if (classes) {
        jo_key(o, S("confusion")); /* [label][predicted] */
        jo_array(o);
        for (uint32_t i = 0; i < classes; i++) {
            jo_array(o);
            for (uint32_t k = 0; k < classes; k++)
                jo_int(o, l->confusion[i][k]);
            jo_array_end(o);
        }
        jo_array_end(o);
    }
    jo_object_end(o);
}

static void write_paired(struct json_out *o, const struct digest_paired *p)
{
    jo_key(o, S("paired"));
    jo_object(o);
    jo_kint(o, S("compared"), p->compared);
    jo_kint(o, S("agreed"), p->agreed);
    jo_kint(o, S("both_right"), p->outcome[1][1]);
    jo_kint(o, S("only_primary_right"), p->outcome[1][0]);
    jo_kint(o, S("only_shadow_right"), p->outcome[0][1]);
    jo_kint(o, S("both_wrong"), p->outcome[0][0]);
    jo_kint(o, S("loss_diff_count"), p->loss_diff_count);
    jo_kreal(o, S("loss_diff"), p->loss_diff);
    jo_kreal(o, S("loss_diff_squared"), p->loss_diff_squared);
    jo_object_end(o);
}

static void write_series(struct json_out *o, const struct digest_series *s, bool full)
{
    jo_object(o);
    jo_kstr(o, S("endpoint"), s->endpoint);
    jo_kstr(o, S("version"), s->version);
    jo_kint(o, S("arm"), s->arm);
    jo_kbool(o, S("shadow"), s->shadow);
    jo_kint(o, S("requests"), (int64_t)s->requests);
    jo_kint(o, S("rows"), (int64_t)s->rows);
    write_status(o, s);
    write_latency(o, s->latency);
    write_labels(o, &s->labels);
    if (s->shadow)
        write_paired(o, &s->paired);
    if (s->cells) {
        jo_key(o, S("columns"));
        jo_array(o);
        for (uint32_t i = 0; i < s->column_count; i++)
            write_column(o, s, i, full);
        jo_array_end(o);
    }
    jo_object_end(o);
}

void digest_write_json(const struct digest *d, bool full, struct buf *out)
{
    char from[TIME_ISO_SIZE], to[TIME_ISO_SIZE];
    struct json_out o;

    time_iso(d->from_wall_ns, from);
    time_iso(d->to_wall_ns, to);
    jo_begin(&o, out);
    jo_object(&o);
    jo_kstr(&o, S("gateway"), d->gateway);
    jo_kstr(&o, S("plan"), d->plan);
    jo_kint(&o, S("sequence"), (int64_t)d->sequence);
    jo_kstr(&o, S("from"), str_of(from));
    jo_kstr(&o, S("to"), str_of(to));
    jo_kint(&o, S("recorded"), (int64_t)d->recorded);
    jo_kint(&o, S("dropped_ring"), (int64_t)d->dropped_ring);
    jo_kint(&o, S("dropped_disk"), (int64_t)d->dropped_disk);
    jo_kbool(&o, S("disk_failing"), d->disk_failing);
    jo_kbool(&o, S("partial"), d->partial);
    jo_kint(&o, S("segment_bytes"), (int64_t)d->segment_bytes);
    jo_kint(&o, S("feedback"), (int64_t)d->feedback);
    jo_kint(&o, S("feedback_late"), (int64_t)d->feedback_late);
    jo_kint(&o, S("join_evicted"), (int64_t)d->join_evicted);
    jo_key(&o, S("series"));
    jo_array(&o);
    for (uint32_t i = 0; i < d->series_count; i++)
        write_series(&o, d->series[i], full);
    jo_array_end(&o);
    jo_object_end(&o);
}
