/* SPDX-License-Identifier: Apache-2.0 */
/* `weir promote`: bring a version into traffic, by the endpoint's rollout. */
#include "cli/cli.h"
#include "cli/session.h"

struct promote_options {
    bool direct;
    const char *reason;
};

static const struct cli_option options[] = {
    {"direct", 0, CLI_FLAG, NULL, "all traffic at once, without a rollout",
     offsetof(struct promote_options, direct)},
    {"reason", 'r', CLI_TEXT, "TEXT", "why, for the journal",
     offsetof(struct promote_options, reason)},
};
static const struct cli_spec spec = {
    .name = "promote",
    .usage = "ENDPOINT [VERSION]",
    .summary = "roll a version out on an endpoint (default: the newest)",
    .examples = "  weir promote fraud\n  weir promote fraud 7 --reason 'better recall'\n"
                "  weir promote fraud 7 --direct\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_min = 1,
    .args_max = 2,
};

static int run(struct cli *c, struct err *e)
{
    struct promote_options *o = c->values;
    struct json *body = json_new_object(&c->a), *answer;
    int64_t version = 0;

    if (c->opt.arg_count > 1 && (!str_to_i64(str_of(c->opt.args[1]), &version) || version < 1))
        return FAIL(e, INVALID_ARGUMENT, "'%s' is no version number", c->opt.args[1]);
    if (version)
        json_set_int(&c->a, body, S("version"), version);
    if (o->reason)
        json_set_str(&c->a, body, S("reason"), str_of(o->reason));
    json_set_bool(&c->a, body, S("direct"), o->direct);
    TRY(cli_call(
        c, arena_printf(&c->a, "/api/v1/endpoints/%s/promote", cli_segment(c, c->opt.args[0])).p,
        body, &answer, e));
    if (c->opt.json)
        cli_json(c, answer);
    version = json_int_or(json_get(answer, S("version")), 0);
    if (json_bool_or(json_get(answer, S("direct")), false))
        cli_note("version %lld is the champion of %s now\nnext: weir status, or back with: weir "
                 "rollback %s --reason …",
                 (long long)version, c->opt.args[0], c->opt.args[0]);
    else
        cli_note("version %lld goes into traffic of %s by steps\nnext: weir rollout %s, or weir "
                 "timeline %s --follow",
                 (long long)version, c->opt.args[0], c->opt.args[0], c->opt.args[0]);
    return 0;
}

int command_promote(int argc, char **argv)
{
    struct promote_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
