/* SPDX-License-Identifier: Apache-2.0 */
/* `weir rollout`: look at a rollout under way, and give it orders. */
#include "base/time.h"
#include "cli/cli.h"
#include "cli/paint.h"
#include "cli/session.h"

struct rollout_options {
    const char *reason;
};

static const struct cli_option options[] = {
    {"reason", 'r', CLI_TEXT, "TEXT", "why, for the journal",
     offsetof(struct rollout_options, reason)},
};
static const struct cli_spec spec = {
    .name = "rollout",
    .usage = "ENDPOINT [show|pause|resume|abort|approve]",
    .summary = "look at a rollout under way, hold it, stop it, let it through",
    .examples = "  weir rollout fraud\n  weir rollout fraud pause --reason 'release freeze'\n"
                "  weir rollout fraud approve\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_min = 1,
    .args_max = 2,
};

static void write_bar(struct cli *c, int64_t weight_bp)
{
    int64_t full = (weight_bp * 30 + 5000) / 10000;

    paint_begin(&c->out, c->color, PAINT_CYAN);
    for (int64_t i = 0; i < 30; i++)
        buf_add_str(&c->out, i < full ? S("█") : S("░"));
    paint_end(&c->out, c->color, PAINT_CYAN);
}

static const struct {
    const char *name, *text;
    enum paint paint;
} verdicts[] = {{"PASS", "holds", PAINT_GREEN},
                {"FAIL", "harm", PAINT_RED},
                {"INCONCLUSIVE", "undecided", PAINT_YELLOW},
                {"INSUFFICIENT_EVIDENCE", "too few yet", PAINT_DIM}};

static void add_verdict(struct table *t, str name)
{
    for (size_t i = 0; i < ARRAY_LEN(verdicts); i++)
        if (str_eqz(name, verdicts[i].name)) {
            table_add_painted(t, verdicts[i].paint, str_of(verdicts[i].text));
            return;
        }
    table_add(t, name);
}

/* The guard p99 counts nanoseconds; the others are shares and ratios. */
static str guard_text(struct cli *c, str guard, double v)
{
    return str_eq(guard, S("p99")) ? arena_printf(&c->a, "%.3g ms", v / 1e6)
                                   : paint_number(&c->a, v);
}

static void write_guards(struct cli *c, const struct json *evidence)
{
    static const char *const titles[] = {"GUARD", "VERDICT", "VALUE", "LIMIT"};
    const struct json *guards = json_get(evidence, S("guards"));
    struct table t;

    if (!json_is_container(guards) || !guards->count)
        return;
    buf_add_char(&c->out, '\n');
    table_begin(&t, &c->a, titles, ARRAY_LEN(titles));
    t.right[2] = t.right[3] = true;
    JSON_EACH (guard, guards) {
        const struct json *value = json_get(guard, S("value")),
                          *limit = json_get(guard, S("limit"));
        str name = json_str_or(json_get(guard, S("guard")), S("?"));

        table_add(&t, name);
        add_verdict(&t, json_str_or(json_get(guard, S("verdict")), S("-")));
        table_add(&t, value ? guard_text(c, name, json_real_or(value, 0)) : S("-"));
        table_add(&t, limit ? guard_text(c, name, json_real_or(limit, 0)) : S("-"));
    }
    table_write(&t, c->color, &c->out);
}

static void write_arms(struct cli *c, const struct json *evidence)
{
    static const char *const titles[] = {"ARM", "REQUESTS", "FAILED", "ROWS", "LABELS", "P99"};
    struct table t;

    if (!json_is_container(evidence))
        return;
    table_begin(&t, &c->a, titles, ARRAY_LEN(titles));
    for (size_t i = 1; i < ARRAY_LEN(titles); i++)
        t.right[i] = true;
    JSON_EACH (arm, evidence) {
        if (!json_get(arm, S("requests")))
            continue;
        table_add(&t, arm->key);
        table_add(&t, paint_number(&c->a, json_real_or(json_get(arm, S("requests")), 0)));
        table_add(&t, paint_number(&c->a, json_real_or(json_get(arm, S("failed")), 0)));
        table_add(&t, paint_number(&c->a, json_real_or(json_get(arm, S("rows")), 0)));
        table_add(&t, paint_number(&c->a, json_real_or(json_get(arm, S("labels")), 0)));
        table_add(&t, arena_printf(&c->a, "%.3g ms", json_real_or(json_get(arm, S("p99_ms")), 0)));
    }
    if (t.rows) {
        buf_add_char(&c->out, '\n');
        table_write(&t, c->color, &c->out);
    }
}

static void write_rollout(struct cli *c, const struct json *r)
{
    str state = json_str_or(json_get(r, S("state")), S("?"));
    bool baking = str_eq(state, S("baking")); /* the way back is open, the traffic all there */
    int64_t weight = baking ? 10000 : json_int_or(json_get(r, S("weight_bp")), 0);
    int64_t step = json_int_or(json_get(r, S("step")), 0), steps;

    steps = json_int_or(json_get(r, S("steps")), 0);
    paint_text(&c->out, c->color, PAINT_BOLD, json_str_or(json_get(r, S("endpoint")), S("?")));
    buf_printf(
        &c->out, "  version %lld beside %lld  " STR_F ", began " STR_F "%s\n",
        (long long)json_int_or(json_get(r, S("version")), 0),
        (long long)json_int_or(json_get(r, S("previous")), 0),
        STR_A(str_eq(state, S("step"))
                  ? arena_printf(&c->a, "step %lld of %lld", (long long)step + 1, (long long)steps)
                  : state),
        STR_A(paint_ago(&c->a, json_int_or(json_get(r, S("step_started_ns")), 0), time_wall_ns())),
        json_bool_or(json_get(r, S("paused")), false) ? ", paused" : "");
    write_bar(c, weight);
    buf_printf(&c->out, " %.4g%%\n", (double)weight / 100.0);
    write_guards(c, json_get(r, S("evidence")));
    write_arms(c, json_get(r, S("evidence")));
}

static NODISCARD int order(struct cli *c, struct json **ret, struct err *e)
{
    struct rollout_options *o = c->values;
    struct json *body = json_new_object(&c->a);

    json_set_str(&c->a, body, S("order"), str_of(c->opt.args[1]));
    if (o->reason)
        json_set_str(&c->a, body, S("reason"), str_of(o->reason));
    TRY(cli_call(
        c, arena_printf(&c->a, "/api/v1/endpoints/%s/rollout", cli_segment(c, c->opt.args[0])).p,
        body, ret, e));
    cli_note("done: %s", c->opt.args[1]);
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    bool show = c->opt.arg_count < 2 || strcmp(c->opt.args[1], "show") == 0;
    struct json *answer, *list;

    if (show)
        TRY(cli_call(c, cli_target(c, "/api/v1/rollouts", "endpoint", c->opt.args[0], NULL), NULL,
                     &answer, e));
    else
        TRY(order(c, &answer, e));
    if (c->opt.json) {
        cli_json(c, answer);
        return 0;
    }
    list = json_get(answer, S("rollouts"));
    if (!list || !json_is_container(list) || !list->count) {
        cli_note("no rollout is under way on %s%s", c->opt.args[0],
                 show ? "; begin one with: weir promote ENDPOINT" : " any more");
        return 0;
    }
    JSON_EACH (r, list)
        write_rollout(c, r);
    return 0;
}

int command_rollout(int argc, char **argv)
{
    struct rollout_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
