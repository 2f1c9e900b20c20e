/* SPDX-License-Identifier: Apache-2.0 */
/* `weir breaker`: holds the breaker of a remote version open or closed, or lets it go. */
#include "cli/cli.h"
#include "cli/session.h"

struct breaker_options {
    const char *reason;
    int64_t version;
};

static const struct cli_option options[] = {
    {"reason", 'r', CLI_TEXT, "TEXT", "why, for the journal (required)",
     offsetof(struct breaker_options, reason)},
    {"version", 0, CLI_INT, "N", "the version; without it the one under the endpoint's alias",
     offsetof(struct breaker_options, version)},
};
static const struct cli_spec spec = {
    .name = "breaker",
    .usage = "ENDPOINT open|closed|auto --reason TEXT [--version N]",
    .summary = "hold the breaker of a remote model by hand, or let it go",
    .examples = "  weir breaker fraud open --reason 'their database is being moved'\n"
                "  weir breaker fraud auto --reason 'it is over'\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_min = 2,
    .args_max = 2,
};

static int run(struct cli *c, struct err *e)
{
    struct breaker_options *o = c->values;
    struct json *body = json_new_object(&c->a), *answer;
    const char *endpoint = c->opt.args[0], *state = c->opt.args[1];

    if (!o->reason || !o->reason[0])
        return FAIL(e, INVALID_ARGUMENT, "--reason is missing: weir breaker %s %s --reason 'why'",
                    endpoint, state);
    json_set_str(&c->a, body, S("state"), str_of(state));
    json_set_str(&c->a, body, S("reason"), str_of(o->reason));
    if (o->version)
        json_set_int(&c->a, body, S("version"), o->version);
    TRY(cli_call(c, arena_printf(&c->a, "/api/v1/endpoints/%s/breaker", cli_segment(c, endpoint)).p,
                 body, &answer, e));
    if (c->opt.json)
        cli_json(c, answer);
    cli_note(strcmp(state, "auto") == 0
                 ? "the breaker of %s, version %lld, follows its server again"
                 : "the breaker of %s, version %lld, is held %s\n"
                   "next: weir breaker %s auto --reason 'it is over'",
             endpoint, (long long)json_int_or(json_get(answer, S("version")), 0), state, endpoint);
    return 0;
}

int command_breaker(int argc, char **argv)
{
    struct breaker_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
