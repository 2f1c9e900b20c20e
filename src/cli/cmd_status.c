/* SPDX-License-Identifier: Apache-2.0 */
/* `weir status`: what runs, in one look. */
#include "base/time.h"
#include "cli/cli.h"
#include "cli/paint.h"
#include "cli/session.h"

#include <unistd.h>

struct status_options {
    bool watch;
};

static const struct cli_option options[] = {
    {"watch", 'w', CLI_FLAG, NULL, "show it again every second",
     offsetof(struct status_options, watch)},
};
static const struct cli_spec spec = {
    .name = "status",
    .usage = "",
    .summary = "what runs: gateways, endpoints, drift, rollouts, flows",
    .examples = "  weir status\n  weir status --watch\n  weir status --json\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
};

static str text_of(const struct json *o, const char *key)
{
    return json_str_or(json_get(o, str_of(key)), S(""));
}

static const struct json *find_by(const struct json *list, const char *key, str name)
{
    if (json_is_container(list))
        JSON_EACH (item, list)
            if (str_eq(text_of(item, key), name))
                return item;
    return NULL;
}

static void write_head(struct cli *c, const struct json *s)
{
    const struct json *project = json_get(s, S("project"));
    int64_t now = json_int_or(json_get(s, S("now_ns")), 0);
    str hash = str_take(text_of(project, "hash"), 12);

    paint_text(&c->out, c->color, PAINT_BOLD,
               text_of(project, "name").n ? text_of(project, "name") : S("(nothing applied)"));
    buf_printf(
        &c->out, "  control up " STR_F,
        STR_A(time_duration_text(&c->a, now - json_int_or(json_get(s, S("started_ns")), now))));
    if (hash.n)
        buf_printf(&c->out, ", applied " STR_F " " STR_F " by " STR_F, STR_A(hash),
                   STR_A(paint_ago(&c->a, json_int_or(json_get(project, S("applied_ns")), 0), now)),
                   STR_A(text_of(project, "actor")));
    buf_printf(&c->out, ", %lld facts\n", (long long)json_int_or(json_get(s, S("facts")), 0));
}

static void write_gateways(struct cli *c, const struct json *s)
{
    const struct json *gateways = json_get(s, S("gateways"));
    const struct json *plan = json_get(s, S("plan"));
    str wanted = plan && plan->type == JSON_STR ? plan->string : text_of(plan, "hash");

    if (!json_is_container(gateways))
        return;
    if (!gateways->count)
        paint_text(&c->out, c->color, PAINT_RED, S("no gateway is connected"));
    JSON_EACH (g, gateways) {
        str live = text_of(g, "plan"), refused = text_of(g, "refused");
        bool right = live.n && str_eq(live, wanted);

        paint_text(&c->out, c->color, right ? PAINT_GREEN : PAINT_YELLOW, S("●"));
        buf_printf(&c->out, " gateway " STR_F "  plan " STR_F "%s", STR_A(text_of(g, "gateway")),
                   STR_A(live.n ? str_take(live, 12) : S("none")),
                   right ? "" : " (not the newest)");
        if (refused.n)
            buf_printf(&c->out, "  refused " STR_F ": " STR_F, STR_A(str_take(refused, 12)),
                       STR_A(text_of(g, "reason")));
        buf_add_char(&c->out, '\n');
    }
    if (!gateways->count)
        buf_add_char(&c->out, '\n');
}

static enum paint state_paint(str state)
{
    return str_eq(state, S("drifting")) ? PAINT_RED
           : str_eq(state, S("ok"))     ? PAINT_GREEN
                                        : PAINT_DIM;
}

static str rollout_text(struct cli *c, const struct json *r)
{
    const char *paused = json_bool_or(json_get(r, S("paused")), false) ? ", paused" : "";

    if (!r)
        return S("-");
    if (!str_eq(text_of(r, "state"), S("step"))) /* steps say nothing before and after them */
        return arena_printf(&c->a, "v%lld " STR_F "%s",
                            (long long)json_int_or(json_get(r, S("version")), 0),
                            STR_A(text_of(r, "state")), paused);
    return arena_printf(&c->a, "v%lld step %lld of %lld at %.4g%%%s",
                        (long long)json_int_or(json_get(r, S("version")), 0),
                        (long long)json_int_or(json_get(r, S("step")), 0) + 1,
                        (long long)json_int_or(json_get(r, S("steps")), 0),
                        (double)json_int_or(json_get(r, S("weight_bp")), 0) / 100.0, paused);
}

static str drift_text(struct cli *c, const struct json *m)
{
    double evidence = json_real_or(json_get(m, S("evidence")), -1);
    double budget = json_real_or(json_get(m, S("budget_rows")), -1);

    if (!m)
        return S("not watched");
    if (evidence < 0 || budget <= 0)
        return text_of(m, "state");
    return arena_printf(&c->a, STR_F ", evidence " STR_F " of " STR_F, STR_A(text_of(m, "state")),
                        STR_A(paint_number(&c->a, evidence)), STR_A(paint_number(&c->a, budget)));
}

static void write_endpoints(struct cli *c, const struct json *s)
{
    static const char *const titles[] = {"ENDPOINT", "MODEL", "LIVE", "ROWS/S", "DRIFT", "ROLLOUT"};
    const struct json *endpoints = json_get(s, S("endpoints"));
    struct table t;

    if (!json_is_container(endpoints) || !endpoints->count)
        return;
    buf_add_char(&c->out, '\n');
    table_begin(&t, &c->a, titles, ARRAY_LEN(titles));
    t.right[3] = true;
    JSON_EACH (endpoint, endpoints) {
        const struct json *m =
            find_by(json_get(s, S("monitors")), "endpoint", text_of(endpoint, "name"));
        const struct json *r =
            find_by(json_get(s, S("rollouts")), "endpoint", text_of(endpoint, "name"));
        int64_t v = json_int_or(json_get(endpoint, S("version")), 0);

        table_add_painted(&t, PAINT_BOLD, text_of(endpoint, "name"));
        table_add(&t, text_of(endpoint, "model"));
        if (json_get(endpoint, S("split")))
            table_add(&t, S("split"));
        else if (v)
            table_add(&t, arena_printf(&c->a, "v%lld", (long long)v));
        else
            table_add_painted(&t, PAINT_YELLOW, S("no version"));
        table_add(&t,
                  m ? paint_number(&c->a, json_real_or(json_get(m, S("rows_per_s")), 0)) : S("-"));
        table_add_painted(&t, state_paint(text_of(m, "state")), drift_text(c, m));
        table_add_painted(&t, r ? PAINT_CYAN : PAINT_DIM, rollout_text(c, r));
    }
    table_write(&t, c->color, &c->out);
}

static void write_flows(struct cli *c, const struct json *s)
{
    const struct json *flows = json_get(s, S("flows"));

    if (!json_is_container(flows) || !flows->count)
        return;
    buf_add_char(&c->out, '\n');
    JSON_EACH (flow, flows)
        buf_printf(&c->out, "%s " STR_F " " STR_F " " STR_F ": " STR_F "\n",
                   c->color ? "\033[34m▸\033[0m" : "▸", STR_A(text_of(flow, "type")),
                   STR_A(text_of(flow, "id")), STR_A(text_of(flow, "step")),
                   STR_A(text_of(flow, "state")));
}

static void write_next(struct cli *c, const struct json *s)
{
    const struct json *endpoints = json_get(s, S("endpoints"));

    if (!json_get(json_get(s, S("project")), S("hash"))) {
        cli_note("next: weir apply");
        return;
    }
    if (json_is_container(endpoints))
        JSON_EACH (endpoint, endpoints)
            if (!json_get(endpoint, S("version")) && !json_get(endpoint, S("split"))) {
                str model = text_of(endpoint, "model");

                cli_note("next: weir retrain " STR_F " --reason 'first version' --wait, or for a "
                         "model that exists: weir register " STR_F " FILE",
                         STR_A(model), STR_A(model));
                return;
            }
    (void)c;
}

static NODISCARD int show(struct cli *c, struct json **ret_status, struct err *e)
{
    TRY(cli_call(c, "/api/v1/status", NULL, ret_status, e));
    if (c->opt.json) {
        cli_json(c, *ret_status);
        return 0;
    }
    write_head(c, *ret_status);
    write_gateways(c, *ret_status);
    write_endpoints(c, *ret_status);
    write_flows(c, *ret_status);
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    struct status_options *o = c->values;
    struct json *status;

    do {
        TRY(show(c, &status, e));
        if (o->watch && c->tty)
            fputs("\033[H\033[2J", stdout);
        cli_flush(c);
        if (o->watch) {
            arena_reset(&c->a);
            c->project_dir = NULL;
            time_sleep(NS_PER_S);
        }
    } while (o->watch);
    if (!c->opt.json)
        write_next(c, status);
    return 0;
}

int command_status(int argc, char **argv)
{
    struct status_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
