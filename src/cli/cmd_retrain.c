/* SPDX-License-Identifier: Apache-2.0 */
/* `weir retrain`: train a model anew because a person says so. */
#include "cli/cli.h"
#include "cli/session.h"

struct retrain_options {
    const char *reason;
    bool wait, override, model;
};

static const struct cli_option options[] = {
    {"reason", 'r', CLI_TEXT, "TEXT", "why, for the journal (required)",
     offsetof(struct retrain_options, reason)},
    {"wait", 'w', CLI_FLAG, NULL, "wait for the end", offsetof(struct retrain_options, wait)},
    {"override", 0, CLI_FLAG, NULL, "also within the cooldown of the last retrain",
     offsetof(struct retrain_options, override)},
    {"model", 0, CLI_FLAG, NULL, "the argument names a model, not an endpoint",
     offsetof(struct retrain_options, model)},
};
static const struct cli_spec spec = {
    .name = "retrain",
    .usage = "ENDPOINT|MODEL --reason TEXT",
    .summary = "train anew on recent data, gate it, roll it out",
    .examples = "  weir retrain fraud --reason 'new merchant category' --wait\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_min = 1,
    .args_max = 1,
};

static NODISCARD int ask(struct cli *c, const char *what, struct json **ret, struct err *e)
{
    struct retrain_options *o = c->values;
    struct json *body = json_new_object(&c->a);

    json_set_str(&c->a, body, str_of(what), str_of(c->opt.args[0]));
    json_set_str(&c->a, body, S("reason"), str_of(o->reason));
    json_set_bool(&c->a, body, S("override"), o->override);
    return cli_call(c, "/api/v1/retrain", body, ret, e);
}

/* A run that was skipped or rejected is a flow that is done all the same: the last fact of its
 * story says how it ended. */
static NODISCARD int check_end(struct cli *c, const struct json *flow, str model, struct err *e)
{
    str correlation = json_str_or(json_get(flow, S("correlation")), S(""));
    const struct json *fact;
    struct json *answer;
    str type;

    TRY(cli_call(c,
                 arena_printf(&c->a,
                              "/api/v1/journal?type=retrain.&newest=1&limit=1&correlation=" STR_F,
                              STR_A(correlation))
                     .p,
                 NULL, &answer, e));
    fact = json_at(json_get(answer, S("facts")), 0);
    type = json_str_or(json_get(fact, S("type")), S(""));
    if (str_eq(type, S("retrain.skipped")) || str_eq(type, S("retrain.rejected")))
        return FAIL(e, FAILED_PRECONDITION,
                    "'" STR_F "' keeps its version, the run was " STR_F ": " STR_F, STR_A(model),
                    STR_A(str_skip(type, S("retrain.").n)),
                    STR_A(json_str_or(json_get(fact, S("reason")), S(""))));
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    struct retrain_options *o = c->values;
    struct json *answer, *flow;
    struct err other;
    str id, model;
    int rc;

    if (!o->reason || !o->reason[0])
        return FAIL(e, INVALID_ARGUMENT, "--reason is missing: weir retrain %s --reason 'why'",
                    c->opt.args[0]);
    rc = ask(c, o->model ? "model" : "endpoint", &answer, e);
    if (rc == CODE_NOT_FOUND && !o->model && !ask(c, "model", &answer, &other))
        rc = 0;
    TRY(rc);
    id = json_str_or(json_get(answer, S("flow")), S(""));
    if (o->wait)
        TRY(cli_flow_wait(c, id, &flow, e));
    if (c->opt.json)
        cli_json(c, o->wait ? flow : answer);
    model = json_str_or(json_get(answer, S("model")), S(""));
    if (!o->wait) {
        cli_note("retraining " STR_F " as flow " STR_F "\nnext: weir timeline --follow",
                 STR_A(model), STR_A(id));
        return 0;
    }
    TRY(check_end(c, flow, model, e));
    cli_note("retrained " STR_F "\nnext: weir timeline", STR_A(model));
    return 0;
}

int command_retrain(int argc, char **argv)
{
    struct retrain_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
