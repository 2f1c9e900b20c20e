/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `weir load`: rows of a file against an endpoint, at fixed instants, with labels and injections.
 *
 * The endpoint says what it takes: /v1/schema gives the fields and /v2/models/{m} the tensors, so
 * that a column that is missing is told before the first request. A server that is no gateway and
 * answers 404 there gets the columns of the file as they are.
 */
#include "load/load.h"

#include "base/files.h"
#include "base/time.h"
#include "cli/cli.h"
#include "cli/http.h"
#include "cli/paint.h"
#include "cli/session.h"

#include <unistd.h>

struct load_options {
    const char *to, *data, *label, *positive, *api, *field, *report, *duration, *label_delay;
    const char *timeout, *max_p99, *key_file;
    str key_line; /* what key_file holds, as a header line */
    double rate, min_rate;
    int64_t threads, connections, requests, rows, seed, max_failures;
    bool loop, poisson, no_feedback, i_own_this_host, quiet;
    struct cli_list inject, attack;
};

#define AT(member) offsetof(struct load_options, member)
// clang-format off
static const struct cli_option options[] = {
    {"data", 'd', CLI_TEXT, "FILE", "rows to replay: .parquet, or CSV with a header line", AT(data)},
    {"to", 0, CLI_TEXT, "ADDR", "the gateway (default: that of the project, or 127.0.0.1:8080)", AT(to)},
    {"key-file", 0, CLI_TEXT, "FILE", "holds an API key or a token that the gateway takes", AT(key_file)},
    {"api", 0, CLI_TEXT, "FORM", "predict (by field name, the default) or oip (tensors)", AT(api)},
    {"rate", 'r', CLI_REAL, "N", "requests a second (default: 100)", AT(rate)},
    {"poisson", 0, CLI_FLAG, NULL, "arrivals as a Poisson process instead of evenly", AT(poisson)},
    {"duration", 't', CLI_TEXT, "TIME", "how long, such as 30s (default: until the rows end)", AT(duration)},
    {"requests", 'n', CLI_INT, "N", "how many requests at most", AT(requests)},
    {"loop", 0, CLI_FLAG, NULL, "begin again after the last row", AT(loop)},
    {"rows", 0, CLI_INT, "N", "read at most so many rows (default: 2000000)", AT(rows)},
    {"connections", 'c', CLI_INT, "N", "keep-alive connections (default: 64)", AT(connections)},
    {"threads", 0, CLI_INT, "N", "threads that send (default: 1)", AT(threads)},
    {"timeout", 0, CLI_TEXT, "TIME", "a request fails after this time from its send (default: 5s)", AT(timeout)},
    {"label", 'l', CLI_TEXT, "COLUMN", "the column of the true label: answers are judged by it", AT(label)},
    {"label-delay", 0, CLI_TEXT, "TIME", "labels go back this long after the answer (default: 1s)", AT(label_delay)},
    {"no-feedback", 0, CLI_FLAG, NULL, "judge by the labels, but do not send them back", AT(no_feedback)},
    {"positive", 0, CLI_TEXT, "CLASS", "the class of precision, recall and F1 (default: 1)", AT(positive)},
    {"field", 0, CLI_TEXT, "NAME", "the field, or the output, of the answer that holds the class", AT(field)},
    {"inject", 'i', CLI_LIST, "SPEC", "change what is sent from an instant on (repeatable)", AT(inject)},
    {"attack", 0, CLI_LIST, "SPEC", "the same, beginning with a name of the list below", AT(attack)},
    {"seed", 0, CLI_INT, "N", "of all randomness (default: 1)", AT(seed)},
    {"report", 'o', CLI_TEXT, "FILE", "write the report as JSON into this file too", AT(report)},
    {"max-failures", 0, CLI_INT, "N", "exit 1 when more requests fail or are never sent", AT(max_failures)},
    {"max-p99", 0, CLI_TEXT, "TIME", "exit 1 when p99 is longer", AT(max_p99)},
    {"min-rate", 0, CLI_REAL, "N", "exit 1 with fewer good answers a second", AT(min_rate)},
    {"quiet", 'q', CLI_FLAG, NULL, "no line for each second", AT(quiet)},
    {"i-own-this-host", 0, CLI_FLAG, NULL, "allow a target that is not on this machine", AT(i_own_this_host)},
};
// clang-format on

static struct cli_spec spec = {
    .name = "load",
    .usage = "ENDPOINT",
    .summary = "replay rows against an endpoint and measure latency and quality",
    .examples =
        "  weir load fraud --data live.parquet --rate 2000 --duration 60s --loop\n"
        "  weir load fraud --data live.csv --label is_fraud --rate 500 --max-p99 50ms\n"
        "  weir load fraud --data live.csv --label is_fraud --rate 2000 \\\n"
        "      --attack evasion,at=20s,column=amount+country\n"
        "  weir load fraud --data live.csv --inject at=10s,until=20s,column=amount,op=scale,"
        "value=100\n"
        "  weir load fraud --data live.csv --api oip --json > report.json\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_min = 1,
    .args_max = 1,
};

static const char notes_head[] =
    "Each request has an instant at which it is meant to be sent, and its latency counts from\n"
    "there, also when it had to wait for a connection. Ctrl-C ends the run with a report.\n"
    "\n"
    "A SPEC is key=value with commas between: at= and until= (from the start of the run),\n"
    "column=A+B, op=, value=, where=label==X or label!=X, share=50%. The labels stay true.\n\n";

struct target {
    str *fields; /* of the endpoint, in order; NULL: unknown */
    bool *integral;
    size_t field_count;
    struct load_tensor *tensors;
    size_t tensor_count;
    str output;
    bool argmax;
};

/* --- What the endpoint takes ------------------------------------------------------------------ */

static NODISCARD int ask(struct cli *c, const char *address, const char *target,
                         struct json **ret_answer, struct err *e)
{
    const struct load_options *o = c->values;
    struct cli_http_request req = {
        .address = address, .target = target, .timeout_ns = 5 * NS_PER_S, .extra = o->key_line};
    struct cli_http_response res;

    *ret_answer = NULL;
    TRY(cli_http(&req, &c->a, &res, e));
    if (res.status == 404 || res.status == 405 || res.status == 501)
        return 0;
    if (res.status != 200)
        return FAIL(e, UNAVAILABLE, "%s answers %d to GET %s: " STR_F, address, res.status, target,
                    STR_A(str_take(res.body, 200)));
    if (json_parse(res.body, &c->a, ret_answer, e))
        *ret_answer = NULL; /* not a gateway */
    return 0;
}

static NODISCARD int ask_fields(struct cli *c, const char *address, const char *endpoint,
                                struct target *t, struct err *e)
{
    struct json *schema, *properties;

    TRY(ask(c, address, arena_printf(&c->a, "/v1/schema/%s", endpoint).p, &schema, e));
    properties = json_get(schema, S("properties"));
    if (!json_is_container(properties) || !properties->count)
        return 0;
    t->fields = ARENA_ARRAY(&c->a, str, properties->count);
    t->integral = ARENA_ARRAY(&c->a, bool, properties->count);
    JSON_EACH (p, properties) {
        t->integral[t->field_count] =
            str_eq(json_str_or(json_get(p, S("type")), STR_NULL), S("integer"));
        t->fields[t->field_count++] = p->key;
    }
    return 0;
}

static void choose_output(const struct json *outputs, struct target *t)
{
    JSON_EACH (o, outputs) {
        str name = json_str_or(json_get(o, S("name")), S("")),
            type = json_str_or(json_get(o, S("datatype")), S(""));
        bool scores = str_starts(type, S("FP"));

        if (!t->output.n || str_eq(name, S("label")) || (t->argmax && !scores)) {
            t->output = name;
            t->argmax = scores;
        }
    }
}

static size_t elements_of(const struct json *input)
{
    const struct json *shape = json_get(input, S("shape"));
    int64_t n = 1;

    if (json_is_container(shape))
        JSON_EACH (d, shape)
            if (d != shape->first)
                n *= MAX(json_int_or(d, 1), INT64_C(1));
    return (size_t)n;
}

static NODISCARD int ask_tensors(struct cli *c, const char *address, const char *endpoint,
                                 struct target *t, struct err *e)
{
    struct json *model, *inputs, *outputs;
    size_t at = 0;

    TRY(ask(c, address, arena_printf(&c->a, "/v2/models/%s", endpoint).p, &model, e));
    if (!model)
        return FAIL(e, NOT_FOUND, "%s has no endpoint '%s'", address, endpoint);
    TRY(json_need_array(model, S("inputs"), &inputs, e));
    TRY(json_need_array(model, S("outputs"), &outputs, e));
    choose_output(outputs, t);
    t->tensors = ARENA_ARRAY(&c->a, struct load_tensor, MAX(inputs->count, (size_t)1));
    JSON_EACH (input, inputs) {
        struct load_tensor *to = &t->tensors[t->tensor_count++];

        TRY(json_need_str(input, S("name"), &to->name, e));
        TRY(json_need_str(input, S("datatype"), &to->datatype, e));
        to->first = at;
        to->count = inputs->count == 1 && t->field_count ? t->field_count : elements_of(input);
        at += to->count;
    }
    if (t->field_count && at != t->field_count)
        return FAIL(e, UNIMPLEMENTED,
                    "the tensors of '%s' hold %zu values of a row, its schema has %zu fields: use "
                    "--api predict",
                    endpoint, at, t->field_count);
    return 0;
}

/* --- Configuration ---------------------------------------------------------------------------- */

static NODISCARD int read_time(const char *option, const char *text, int64_t *ret_ns, struct err *e)
{
    if (text && !time_parse_duration(str_of(text), ret_ns))
        return FAIL(e, INVALID_ARGUMENT, "--%s is '%s', expected a duration such as 30s", option,
                    text);
    return 0;
}

static bool is_here(const struct addr *a)
{
    if (a->any.sa_family == AF_INET)
        return ntohl(a->in4.sin_addr.s_addr) >> 24 == 127;
    return addr_is_unix(a) || IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
}

static NODISCARD int find_address(struct cli *c, struct load_options *o, struct load_config *cfg,
                                  struct err *e)
{
    struct json *applied;
    struct err unused;

    if (!o->to) {
        o->to = "127.0.0.1:8080";
        if (!cli_project_find(c, &unused) &&
            !cli_call(c, "/api/v1/project", NULL, &applied, &unused))
            o->to = arena_dupz(
                &c->a, json_str_or(json_path(applied, "tree.gateway.listen"), S("127.0.0.1:8080")));
    }
    TRY(addr_resolve(str_of(o->to), &cfg->address, e));
    if (o->i_own_this_host || is_here(&cfg->address))
        return 0;
    return FAIL(e, PERMISSION_DENIED,
                "%s is not on this machine: load against others' machines is an attack. If it is "
                "yours, say --i-own-this-host",
                o->to);
}

static NODISCARD int read_form(struct cli *c, const struct load_options *o, struct target *t,
                               struct load_config *cfg, struct err *e)
{
    AUTO(buf_done) struct buf path = {0};
    const char *endpoint;
    bool oip = o->api && strcmp(o->api, "oip") == 0;

    if (o->api && !oip && strcmp(o->api, "predict") != 0)
        return FAIL(e, INVALID_ARGUMENT, "--api is '%s', expected predict or oip", o->api);
    buf_init(&path, 4096);
    http1_write_encoded(&path, str_of(c->opt.args[0]));
    endpoint = arena_dupz(&c->a, buf_str(&path));
    TRY(ask_fields(c, o->to, endpoint, t, e));
    if (oip)
        TRY(ask_tensors(c, o->to, endpoint, t, e));
    cfg->form = (struct load_form){
        .api = oip ? LOAD_OIP : LOAD_PREDICT,
        .target = arena_printf(&c->a, oip ? "/v2/models/%s/infer" : "/v1/predict/%s", endpoint),
        .host = addr_is_unix(&cfg->address) ? S("localhost") : str_of(o->to),
        .extra = o->key_line,
        .tensors = t->tensors,
        .tensor_count = t->tensor_count,
    };
    cfg->reader = (struct load_reader){
        .api = cfg->form.api,
        .field = o->field ? str_of(o->field)
                 : oip    ? t->output
                          : S("prediction"),
        .argmax = oip && t->argmax,
    };
    return 0;
}

static NODISCARD int read_rows(const struct load_options *o, const struct target *t,
                               struct load_rows **ret_rows, struct err *e)
{
    struct load_rows_wanted want = {
        .path = o->data,
        .label = str_of(o->label),
        .columns = t->fields,
        .column_count = t->field_count,
        .rows_max = o->rows ? (size_t)o->rows : LOAD_ROWS_MAX_DEFAULT,
    };

    if (!o->data)
        return FAIL(e, INVALID_ARGUMENT, "--data FILE is missing: the rows to send");
    TRY(load_rows_read(&want, ret_rows, e));
    for (size_t i = 0; i < t->field_count; i++)
        (*ret_rows)->columns[i].integral = t->integral[i];
    return 0;
}

static NODISCARD int read_injections(struct cli *c, const struct load_options *o,
                                     const struct load_rows *rows, struct load_config *cfg,
                                     struct err *e)
{
    struct load_injection *list = ARENA_ARRAY(&c->a, struct load_injection, LOAD_INJECTIONS_MAX);
    size_t n = 0;

    if (o->inject.n + o->attack.n > LOAD_INJECTIONS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "at most %d injections", LOAD_INJECTIONS_MAX);
    for (size_t i = 0; i < o->inject.n; i++)
        TRY(load_inject_parse(str_of(o->inject.at[i]), &list[n++], e));
    for (size_t i = 0; i < o->attack.n; i++)
        TRY(load_attack_parse(str_of(o->attack.at[i]), cfg->positive, &c->a, &list[n++], e));
    for (size_t i = 0; i < n; i++)
        TRY(load_inject_check(&list[i], rows, e));
    cfg->injections = list;
    cfg->injection_count = n;
    return 0;
}

static NODISCARD int read_config(const struct load_options *o, struct load_config *cfg,
                                 struct err *e)
{
    if (o->threads < 1 || o->threads > LOAD_THREADS_MAX || o->connections > LOAD_CONNECTIONS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "expected --threads from 1 to %u, --connections up to %u",
                    LOAD_THREADS_MAX, LOAD_CONNECTIONS_MAX);
    cfg->rate = o->rate;
    cfg->poisson = o->poisson;
    cfg->threads = (uint32_t)o->threads;
    cfg->connections = (uint32_t)o->connections;
    cfg->requests = (uint64_t)o->requests;
    cfg->loop = o->loop;
    cfg->seed = (uint64_t)o->seed;
    cfg->positive = str_of(o->positive);
    cfg->label_delay_ns = NS_PER_S;
    TRY(read_time("duration", o->duration, &cfg->duration_ns, e));
    TRY(read_time("timeout", o->timeout, &cfg->timeout_ns, e));
    TRY(read_time("label-delay", o->label_delay, &cfg->label_delay_ns, e));
    cfg->feedback = o->label && !o->no_feedback;
    return 0;
}

/* --- During the run --------------------------------------------------------------------------- */

struct live {
    struct cli *c;
    const struct load_options *o;
    bool redraw;
    bool injected; /* the first injection was told to control */
};

static void on_second(void *arg, const struct load_second *s)
{
    struct live *live = arg;
    AUTO(buf_done) struct buf line = {0};

    if (live->o->quiet)
        return;
    buf_init(&line, 4096);
    if (live->redraw)
        buf_add_str(&line, S("\r\033[K"));
    load_second_text(s, &line);
    if (!live->redraw)
        buf_add_char(&line, '\n');
    fwrite(line.p, 1, line.n, stderr);
    fflush(stderr);
}

/* Tells the control process of this project, when there is one. */
static void on_injected(void *arg, const struct load_phase *phase, int64_t wall_ns)
{
    struct live *live = arg;
    struct cli *c = live->c;
    struct json *body, *data, *answer;
    char iso[TIME_ISO_SIZE];
    struct err e;

    time_iso(wall_ns, iso);
    if (live->redraw)
        fputc('\n', stderr);
    cli_note("injected from %s on: " STR_F, iso, STR_A(phase->name));
    if (cli_project_find(c, &e))
        return;
    body = json_new_object(&c->a);
    data = json_new_object(&c->a);
    json_set_str(&c->a, body, S("type"), S("load.injected"));
    json_set_str(&c->a, body, S("subject"), arena_printf(&c->a, "endpoint/%s", c->opt.args[0]));
    json_set_str(&c->a, body, S("reason"), phase->name);
    json_set_str(&c->a, data, S("kind"), phase->name);
    json_set_int(&c->a, data, S("wall_ns"), wall_ns);
    json_set(body, S("data"), data);
    (void)!cli_call(c, "/api/v1/facts", body, &answer, &e);
}

/* --- After the run ---------------------------------------------------------------------------- */

static NODISCARD int check_report(const struct load_options *o, const struct load_report *r,
                                  struct err *e)
{
    uint64_t bad = r->total.failed + r->dropped,
             p99_ns = latency_quantile_ns(&r->total.latency, 0.99);
    int64_t max_p99_ns = INT64_MAX;

    TRY(read_time("max-p99", o->max_p99, &max_p99_ns, e));
    if (o->max_failures >= 0 && bad > (uint64_t)o->max_failures)
        return FAIL(e, UNKNOWN, "%llu requests failed or were never sent, --max-failures is %lld",
                    (unsigned long long)bad, (long long)o->max_failures);
    if (p99_ns > (uint64_t)max_p99_ns)
        return FAIL(e, UNKNOWN, "p99 is %.3f ms, --max-p99 is %s", (double)p99_ns / 1e6,
                    o->max_p99);
    if (load_report_rate(r) < o->min_rate)
        return FAIL(e, UNKNOWN, "%.1f good answers a second, --min-rate is %g", load_report_rate(r),
                    o->min_rate);
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    struct load_options *o = c->values;
    struct load_config cfg = {0};
    struct target target = {0};
    struct live live = {.c = c, .o = o, .redraw = isatty(STDERR_FILENO)};
    struct load_events events = {.arg = &live, .second = on_second, .injected = on_injected};
    AUTO(load_rows_freep) struct load_rows *rows = NULL;
    AUTO(load_report_freep) struct load_report *report = NULL;
    AUTO(buf_done) struct buf json = {0};
    int64_t unused;

    TRY(read_time("max-p99", o->max_p99, &unused, e));
    TRY(read_config(o, &cfg, e));
    TRY(find_address(c, o, &cfg, e));
    TRY(cli_key_line(c, o->key_file, &o->key_line, e));
    TRY(read_form(c, o, &target, &cfg, e));
    TRY(read_rows(o, &target, &rows, e));
    cfg.rows = rows;
    TRY(read_injections(c, o, rows, &cfg, e));
    TRY(load_run(&cfg, &events, &report, e));
    if (live.redraw && !o->quiet)
        fputc('\n', stderr);
    buf_init(&json, (size_t)256 << 20);
    load_report_json(&cfg, report, &json);
    if (o->report)
        TRY(file_replace(o->report, buf_str(&json), e));
    if (c->opt.json)
        buf_add_str(&c->out, buf_str(&json));
    else
        load_report_text(report, &c->out);
    cli_flush(c);
    return check_report(o, report, e);
}

int command_load(int argc, char **argv)
{
    struct load_options o = {
        .rate = 100, .threads = 1, .seed = 1, .positive = "1", .max_failures = -1};
    AUTO(buf_done) struct buf notes = {0};

    buf_init(&notes, 1 << 16);
    buf_add_str(&notes, str_of(notes_head));
    load_inject_help(&notes);
    spec.notes = buf_z(&notes);
    return cli_main(&spec, argc, argv, &o, run);
}
