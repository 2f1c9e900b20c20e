/* SPDX-License-Identifier: Apache-2.0 */
/* `weir explain`: what a field of weir.yaml is. */
#include "cli/cli.h"
#include "cli/session.h"
#include "project/project.h"

static const struct cli_spec spec = {
    .name = "explain",
    .usage = "[FIELD]",
    .summary = "what a section or field of weir.yaml means",
    .examples = "  weir explain\n  weir explain endpoints.timeout\n"
                "  weir explain rollouts.guards\n",
    .args_max = 1,
};

static int run(struct cli *c, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct json *o;

    buf_init(&text, BUF_MAX_DEFAULT);
    TRY(project_explain(c->opt.arg_count ? str_of(c->opt.args[0]) : S(""), &text, e));
    if (!c->opt.json) {
        buf_add_str(&c->out, buf_str(&text));
        return 0;
    }
    o = json_new_object(&c->a);
    json_set_str(&c->a, o, S("text"), buf_str(&text));
    cli_json(c, o);
    return 0;
}

int command_explain(int argc, char **argv)
{
    return cli_main(&spec, argc, argv, NULL, run);
}
