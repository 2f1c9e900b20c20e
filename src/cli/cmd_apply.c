/* SPDX-License-Identifier: Apache-2.0 */
/* `weir apply`: make the files the wanted state, unless somebody else was faster. */
#include "cli/cli.h"
#include "cli/project_view.h"

struct apply_options {
    bool yes;
    const char *reason;
};

static const struct cli_option options[] = {
    {"yes", 'y', CLI_FLAG, NULL, "do not ask", offsetof(struct apply_options, yes)},
    {"reason", 'r', CLI_TEXT, "TEXT", "why, for the journal",
     offsetof(struct apply_options, reason)},
};
static const struct cli_spec spec = {
    .name = "apply",
    .usage = "[PLAN]",
    .summary = "make weir.yaml, or a kept plan, the wanted state",
    .examples = "  weir apply\n  weir apply --yes --reason 'longer timeout for checkout'\n"
                "  weir apply release.plan\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_max = 1,
    .notes = "A plan that was made from another state than the one that is applied now is\n"
             "refused, with what has changed since.\n",
};

static int run(struct cli *c, struct err *e)
{
    struct apply_options *o = c->values;
    struct json *body = json_new_object(&c->a), *answer;
    struct project_view_plan plan;
    size_t n;

    if (c->opt.arg_count)
        TRY(project_view_read(c, c->opt.args[0], &plan, e));
    else
        TRY(project_view_plan(c, false, &plan, e));
    project_view_changes(c, &plan, &n);
    cli_flush(c);
    project_view_notes(plan.notes);
    if (!n && !c->opt.arg_count) {
        cli_note("no changes: what is applied is what the files say");
        return 0;
    }
    if (!o->yes && !cli_confirm(c, "apply these changes?"))
        return FAIL(e, FAILED_PRECONDITION,
                    "nothing was applied: confirm on a terminal, or say "
                    "--yes");
    json_set(body, S("tree"), json_copy(&c->a, plan.tree));
    json_set_str(&c->a, body, S("base"), plan.base);
    if (plan.base_tree)
        json_set(body, S("base_tree"), json_copy(&c->a, plan.base_tree));
    if (o->reason)
        json_set_str(&c->a, body, S("reason"), str_of(o->reason));
    TRY(cli_call(c, "/api/v1/apply", body, &answer, e));
    if (c->opt.arg_count) /* a kept plan has none */
        project_view_notes(json_get(answer, S("notes")));
    cli_note("applied " STR_F ", %zu change%s\nnext: weir status",
             STR_A(str_take(json_str_or(json_get(answer, S("hash")), S("")), 12)), n,
             n == 1 ? "" : "s");
    return 0;
}

int command_apply(int argc, char **argv)
{
    struct apply_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
