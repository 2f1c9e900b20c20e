/* SPDX-License-Identifier: Apache-2.0 */
/* `weir rollback`: the version before, now. */
#include "base/time.h"
#include "cli/cli.h"
#include "cli/session.h"

struct rollback_options {
    const char *reason;
};

static const struct cli_option options[] = {
    {"reason", 'r', CLI_TEXT, "TEXT", "why, for the journal (required)",
     offsetof(struct rollback_options, reason)},
};
static const struct cli_spec spec = {
    .name = "rollback",
    .usage = "ENDPOINT --reason TEXT",
    .summary = "take traffic back from a rollout, or go back to the champion before",
    .examples = "  weir rollback fraud --reason 'declines doubled since noon'\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_min = 1,
    .args_max = 1,
};

static int run(struct cli *c, struct err *e)
{
    struct rollback_options *o = c->values;
    struct json *body = json_new_object(&c->a), *answer;
    int64_t began = time_mono_ns();

    if (!o->reason || !o->reason[0])
        return FAIL(e, INVALID_ARGUMENT, "--reason is missing: weir rollback %s --reason 'why'",
                    c->opt.args[0]);
    json_set_str(&c->a, body, S("reason"), str_of(o->reason));
    TRY(cli_call(
        c, arena_printf(&c->a, "/api/v1/endpoints/%s/rollback", cli_segment(c, c->opt.args[0])).p,
        body, &answer, e));
    if (c->opt.json)
        cli_json(c, answer);
    cli_note("%s is back on version %lld (was %lld), after " STR_F "\nnext: weir status",
             c->opt.args[0], (long long)json_int_or(json_get(answer, S("version")), 0),
             (long long)json_int_or(json_get(answer, S("previous")), 0),
             STR_A(time_duration_text(&c->a, time_mono_ns() - began)));
    return 0;
}

int command_rollback(int argc, char **argv)
{
    struct rollback_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
