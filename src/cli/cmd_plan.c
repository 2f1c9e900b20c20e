/* SPDX-License-Identifier: Apache-2.0 */
/* `weir plan`: what an apply would change. */
#include "cli/cli.h"
#include "cli/project_view.h"

struct plan_options {
    const char *out;
    bool detailed;
};

static const struct cli_option options[] = {
    {"out", 'o', CLI_TEXT, "FILE", "keep the plan, for weir apply FILE",
     offsetof(struct plan_options, out)},
    {"detailed-exitcode", 0, CLI_FLAG, NULL, "exit with 2 when there are changes",
     offsetof(struct plan_options, detailed)},
};
static const struct cli_spec spec = {
    .name = "plan",
    .usage = "",
    .summary = "the difference between weir.yaml and what is applied",
    .examples = "  weir plan\n  weir plan -o release.plan && weir apply release.plan\n"
                "  weir plan --detailed-exitcode    0 no changes, 1 failed, 2 changes\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .notes =
        "Without a running control the files are checked all the same, and held against what was\n"
        "applied last.\n",
};

static int run(struct cli *c, struct err *e)
{
    struct plan_options *o = c->values;
    struct project_view_plan plan;
    size_t n;

    TRY(project_view_plan(c, true, &plan, e));
    project_view_changes(c, &plan, &n);
    if (o->out)
        TRY(project_view_write(c, o->out, &plan, e));
    cli_flush(c);
    project_view_notes(plan.notes);
    if (plan.offline)
        cli_note("control does not run: held against what was applied last; whether the versions "
                 "that weir.yaml names exist was not checked");
    if (!n)
        cli_note("no changes: what is applied is what the files say");
    else if (o->out)
        cli_note("%zu change%s kept in %s\nnext: weir apply %s", n, n == 1 ? "" : "s", o->out,
                 o->out);
    else
        cli_note("%zu change%s\nnext: %s", n, n == 1 ? "" : "s",
                 !plan.offline ? "weir apply"
                 : plan.base.n ? "weir up, then weir apply"
                               : "weir up");
    if (o->detailed && n)
        c->exit_status = 2;
    return 0;
}

int command_plan(int argc, char **argv)
{
    struct plan_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
