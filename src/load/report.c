/* SPDX-License-Identifier: Apache-2.0 */
/* A report as JSON, for programs, and as text, for people. */
#include "load/load.h"

#include "base/json.h"
#include "base/time.h"

#include <math.h>

double load_report_rate(const struct load_report *r)
{
    return r->elapsed_ns > 0 ? (double)r->total.ok * 1e9 / (double)r->elapsed_ns : 0;
}

static double round_to(double v, double parts)
{
    return isfinite(v) ? round(v * parts) / parts : v;
}

static double ms(uint64_t ns)
{
    return round((double)ns / 1e3) / 1e3;
}

static const struct {
    str name;
    double q;
} quantiles[] = {
    {S_INIT("p50_ms"), 0.5},    {S_INIT("p90_ms"), 0.9}, {S_INIT("p99_ms"), 0.99},
    {S_INIT("p999_ms"), 0.999}, {S_INIT("max_ms"), 1},
};

static void write_latency(struct json_out *o, const struct latency *l)
{
    jo_key(o, S("latency"));
    jo_object(o);
    for (size_t i = 0; i < ARRAY_LEN(quantiles); i++)
        jo_kreal(o, quantiles[i].name, ms(latency_quantile_ns(l, quantiles[i].q)));
    jo_kreal(o, S("mean_ms"), ms((uint64_t)latency_mean_ns(l)));
    jo_object_end(o);
}

static void write_quality(struct json_out *o, const struct load_tally *t)
{
    if (!t->judged)
        return;
    jo_kint(o, S("judged"), (int64_t)t->judged);
    jo_kreal(o, S("accuracy"), round_to(load_tally_accuracy(t), 1e6));
    jo_kreal(o, S("precision"), round_to(load_tally_precision(t), 1e6));
    jo_kreal(o, S("recall"), round_to(load_tally_recall(t), 1e6));
    jo_kreal(o, S("f1"), round_to(load_tally_f1(t), 1e6));
}

static void write_tally(struct json_out *o, const struct load_tally *t)
{
    jo_kint(o, S("requests"), (int64_t)t->requests);
    jo_kint(o, S("ok"), (int64_t)t->ok);
    jo_kint(o, S("failed"), (int64_t)t->failed);
    write_quality(o, t);
    write_latency(o, &t->latency);
}

static void write_seconds_of(struct json_out *o, str key, int64_t ns)
{
    jo_key(o, key);
    if (ns == INT64_MAX)
        jo_null(o);
    else
        jo_real(o, (double)ns / 1e9);
}

static void write_config(struct json_out *o, const struct load_config *cfg)
{
    char address[ADDR_TEXT_SIZE];

    addr_text(&cfg->address, address);
    jo_key(o, S("config"));
    jo_object(o);
    jo_kstr(o, S("address"), str_of(address));
    jo_kstr(o, S("target"), cfg->form.target);
    jo_kreal(o, S("rate"), cfg->rate);
    jo_kstr(o, S("arrivals"), cfg->poisson ? S("poisson") : S("fixed"));
    jo_kint(o, S("threads"), cfg->threads);
    jo_kint(o, S("connections"), cfg->connections ? cfg->connections : 64);
    jo_kint(o, S("rows"), (int64_t)cfg->rows->n);
    jo_kbool(o, S("loop"), cfg->loop);
    jo_kint(o, S("seed"), (int64_t)cfg->seed);
    jo_kstr(o, S("positive"), cfg->positive);
    if (cfg->feedback)
        write_seconds_of(o, S("label_delay_s"), cfg->label_delay_ns);
    jo_key(o, S("injections"));
    jo_array(o);
    for (size_t i = 0; i < cfg->injection_count; i++)
        jo_str(o, cfg->injections[i].spec);
    jo_array_end(o);
    jo_object_end(o);
}

static void write_totals(struct json_out *o, const struct load_report *r)
{
    char digits[8];

    jo_key(o, S("totals"));
    jo_object(o);
    jo_kint(o, S("sent"), (int64_t)r->total.requests);
    write_tally(o, &r->total);
    jo_key(o, S("failed_by"));
    jo_object(o);
    for (size_t i = 0; i < LOAD_FAIL_COUNT; i++)
        if (r->failures[i])
            jo_kint(o, load_failure_text(i, digits), (int64_t)r->failures[i]);
    jo_object_end(o);
    if (r->first_failure[0])
        jo_kstr(o, S("first_failure"), str_of(r->first_failure));
    jo_kint(o, S("dropped"), (int64_t)r->dropped);
    jo_kreal(o, S("elapsed_s"), (double)r->elapsed_ns / 1e9);
    jo_kreal(o, S("throughput"), round_to(load_report_rate(r), 1e3));
    jo_kint(o, S("labels_sent"), (int64_t)r->labels_sent);
    jo_kint(o, S("labels_accepted"), (int64_t)r->labels_accepted);
    jo_kint(o, S("labels_failed"), (int64_t)r->labels_failed);
    jo_kbool(o, S("stopped"), r->stopped);
    jo_object_end(o);
}

void load_report_json(const struct load_config *cfg, const struct load_report *r, struct buf *to)
{
    char iso[TIME_ISO_SIZE];
    struct json_out o;

    time_iso(r->start_wall_ns, iso);
    jo_begin(&o, to);
    jo_object(&o);
    jo_kstr(&o, S("form"), S("weir.load/1"));
    jo_kstr(&o, S("started"), str_of(iso));
    jo_kint(&o, S("started_wall_ns"), r->start_wall_ns);
    write_config(&o, cfg);
    write_totals(&o, r);
    jo_key(&o, S("phases"));
    jo_array(&o);
    for (size_t i = 0; i < r->phase_count; i++) {
        jo_object(&o);
        jo_kstr(&o, S("name"), r->phases[i].name);
        write_seconds_of(&o, S("from_s"), r->phases[i].from_ns);
        write_seconds_of(&o, S("to_s"), r->phases[i].to_ns);
        write_tally(&o, &r->phases[i].tally);
        jo_object_end(&o);
    }
    jo_array_end(&o);
    jo_key(&o, S("per_second"));
    jo_array(&o);
    for (size_t i = 0; i < r->second_count; i++) {
        jo_object(&o);
        jo_kint(&o, S("second"), (int64_t)i);
        write_tally(&o, &r->seconds[i]);
        jo_object_end(&o);
    }
    jo_array_end(&o);
    jo_object_end(&o);
    buf_add_char(to, '\n');
}

static void add_quality(struct buf *to, const struct load_tally *t)
{
    double f1 = load_tally_f1(t);

    if (!t->judged)
        return;
    buf_printf(to, "  accuracy %.4f", load_tally_accuracy(t));
    if (f1 == f1)
        buf_printf(to, "  F1 %.4f", f1);
}

void load_second_text(const struct load_second *s, struct buf *to)
{
    const struct load_tally *t = s->tally;
    uint64_t open = t->requests - MIN(t->requests, t->ok + t->failed);

    buf_printf(to, "%4u s  %6llu sent  %6llu ok  %llu failed", s->at + 1,
               (unsigned long long)t->requests, (unsigned long long)t->ok,
               (unsigned long long)t->failed);
    if (open)
        buf_printf(to, "  %llu open", (unsigned long long)open);
    buf_printf(to, "  p50 %.2f ms  p99 %.2f ms", ms(latency_quantile_ns(&t->latency, 0.5)),
               ms(latency_quantile_ns(&t->latency, 0.99)));
    add_quality(to, t);
    buf_printf(to, "  " STR_F, STR_A(str_take(s->phase->name, 40)));
}

static void add_tally(struct buf *to, str name, const struct load_tally *t)
{
    buf_printf(to, "%-12.*s %8llu ok %6llu failed ", (int)MIN(name.n, (size_t)40), name.p,
               (unsigned long long)t->ok, (unsigned long long)t->failed);
    buf_printf(to, "  p50 %.2f  p90 %.2f  p99 %.2f  p99.9 %.2f  max %.2f ms",
               ms(latency_quantile_ns(&t->latency, 0.5)), ms(latency_quantile_ns(&t->latency, 0.9)),
               ms(latency_quantile_ns(&t->latency, 0.99)),
               ms(latency_quantile_ns(&t->latency, 0.999)), ms(t->latency.max_ns));
    add_quality(to, t);
    buf_add_char(to, '\n');
}

void load_report_text(const struct load_report *r, struct buf *to)
{
    char digits[8];

    for (size_t i = 0; r->phase_count > 1 && i < r->phase_count; i++)
        add_tally(to, r->phases[i].name, &r->phases[i].tally);
    add_tally(to, S("all"), &r->total);
    buf_printf(to, "%.1f answers a second over %.1f s", load_report_rate(r),
               (double)r->elapsed_ns / 1e9);
    if (r->dropped)
        buf_printf(to, ", %llu never sent", (unsigned long long)r->dropped);
    if (r->labels_sent)
        buf_printf(to, ", %llu of %llu labels taken", (unsigned long long)r->labels_accepted,
                   (unsigned long long)r->labels_sent);
    buf_add_char(to, '\n');
    for (size_t i = 0; i < LOAD_FAIL_COUNT; i++)
        if (r->failures[i])
            buf_printf(to, "failed by " STR_F ": %llu\n", STR_A(load_failure_text(i, digits)),
                       (unsigned long long)r->failures[i]);
    if (r->first_failure[0])
        buf_printf(to, "first failure: %s\n", r->first_failure);
}
