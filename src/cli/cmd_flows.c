/* SPDX-License-Identifier: Apache-2.0 */
/* `weir flows`: work under way, and orders to it. */
#include "base/time.h"
#include "cli/cli.h"
#include "cli/paint.h"
#include "cli/session.h"

struct flows_options {
    bool all;
    const char *type, *reason;
    int64_t limit;
};

static const struct cli_option options[] = {
    {"all", 'a', CLI_FLAG, NULL, "ended ones too", offsetof(struct flows_options, all)},
    {"type", 0, CLI_TEXT, "TYPE", "of one type", offsetof(struct flows_options, type)},
    {"limit", 'n', CLI_INT, "N", "at most so many (default 30)",
     offsetof(struct flows_options, limit)},
    {"reason", 'r', CLI_TEXT, "TEXT", "why it is cancelled",
     offsetof(struct flows_options, reason)},
};
static const struct cli_spec spec = {
    .name = "flows",
    .usage = "[ID [cancel|pause|resume|retry]]",
    .summary = "long work: list it, look into one, cancel, pause, resume, retry",
    .examples = "  weir flows\n  weir flows --all --type retrain\n"
                "  weir flows 0193… cancel --reason 'wrong data'\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_max = 2,
};

static str text_of(const struct json *o, const char *key)
{
    return json_str_or(json_get(o, str_of(key)), S(""));
}

static enum paint state_paint(str state)
{
    return str_eq(state, S("done"))                                 ? PAINT_GREEN
           : str_eq(state, S("failed")) || str_eq(state, S("dead")) ? PAINT_RED
           : str_eq(state, S("cancelled"))                          ? PAINT_MAGENTA
                                                                    : PAINT_BLUE;
}

static int64_t number_of(const struct json *o, const char *key)
{
    return json_int_or(json_get(o, str_of(key)), 0);
}

static void write_list(struct cli *c, const struct json *flows)
{
    static const char *const titles[] = {"ID", "TYPE", "STATE", "STEP", "BEGAN", "TOOK", "ERROR"};
    int64_t now = time_wall_ns();
    struct table t;

    table_begin(&t, &c->a, titles, ARRAY_LEN(titles));
    t.right[5] = true;
    JSON_EACH (flow, flows) {
        int64_t began = number_of(flow, "created_ns"), ended = number_of(flow, "ended_ns");

        table_add(&t, text_of(flow, "id"));
        table_add(&t, text_of(flow, "type"));
        table_add_painted(&t, state_paint(text_of(flow, "state")), text_of(flow, "state"));
        table_add(&t, text_of(flow, "step"));
        table_add(&t, paint_ago(&c->a, began, now));
        table_add(&t, time_duration_text(&c->a, (ended ? ended : now) - began));
        table_add(&t, paint_cut(text_of(flow, "error"), 60));
    }
    table_write(&t, c->color, &c->out);
}

static void write_flow(struct cli *c, const struct json *flow)
{
    static const char *const titles[] = {"STEP", "STATUS", "TRIES", "TOOK", "ERROR"};
    struct table t;

    paint_text(&c->out, c->color, PAINT_BOLD, text_of(flow, "type"));
    buf_printf(&c->out, " " STR_F "  ", STR_A(text_of(flow, "id")));
    paint_text(&c->out, c->color, state_paint(text_of(flow, "state")), text_of(flow, "state"));
    buf_printf(&c->out, " " STR_F "\n", STR_A(text_of(flow, "step")));
    if (text_of(flow, "error").n)
        buf_printf(&c->out, STR_F "\n", STR_A(text_of(flow, "error")));
    table_begin(&t, &c->a, titles, ARRAY_LEN(titles));
    t.right[2] = t.right[3] = true;
    JSON_EACH (step, json_get(flow, S("steps"))) {
        table_add(&t, text_of(step, "name"));
        table_add(&t, text_of(step, "status"));
        table_add(&t, arena_printf(&c->a, "%lld", (long long)number_of(step, "attempts")));
        table_add(&t, time_duration_text(&c->a, MAX(0, number_of(step, "ended_ns") -
                                                           number_of(step, "started_ns"))));
        table_add(&t, paint_cut(text_of(step, "error"), 80));
    }
    if (t.rows) {
        buf_add_char(&c->out, '\n');
        table_write(&t, c->color, &c->out);
    }
}

static NODISCARD int list(struct cli *c, struct err *e)
{
    struct flows_options *o = c->values;
    struct json *answer;
    const struct json *flows;

    TRY(cli_call(c,
                 cli_target(c, "/api/v1/flows", "type", o->type, "unfinished", o->all ? NULL : "1",
                            "limit", arena_printf(&c->a, "%lld", (long long)o->limit).p, NULL),
                 NULL, &answer, e));
    flows = json_get(answer, S("flows"));
    if (c->opt.json)
        cli_json(c, answer);
    else if (json_is_container(flows) && flows->count)
        write_list(c, flows);
    else
        cli_note("no flow is under way%s", o->all ? "" : "; weir flows --all shows ended ones");
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    struct flows_options *o = c->values;
    struct json *flow, *body = json_new_object(&c->a);
    const char *id;

    if (!c->opt.arg_count)
        return list(c, e);
    id = cli_segment(c, c->opt.args[0]);
    if (o->reason)
        json_set_str(&c->a, body, S("reason"), str_of(o->reason));
    if (c->opt.arg_count == 1)
        TRY(cli_call(c, arena_printf(&c->a, "/api/v1/flows/%s", id).p, NULL, &flow, e));
    else
        TRY(cli_call(
            c, arena_printf(&c->a, "/api/v1/flows/%s/%s", id, cli_segment(c, c->opt.args[1])).p,
            body, &flow, e));
    if (c->opt.json)
        cli_json(c, flow);
    else
        write_flow(c, flow);
    return 0;
}

int command_flows(int argc, char **argv)
{
    struct flows_options o = {.limit = 30};

    return cli_main(&spec, argc, argv, &o, run);
}
