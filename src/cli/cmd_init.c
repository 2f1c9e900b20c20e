/* SPDX-License-Identifier: Apache-2.0 */
/* `weir init`: a first project. */
#include "cli/cli.h"
#include "cli/session.h"
#include "project/project.h"

#include <stdlib.h>
#include <unistd.h>

struct init_options {
    const char *template, *name;
};

static const struct cli_option options[] = {
    {"template", 't', CLI_TEXT, "NAME", "what to begin with (weir init --template list)",
     offsetof(struct init_options, template)},
    {"name", 'n', CLI_TEXT, "NAME", "name of the project (default: that of the folder)",
     offsetof(struct init_options, name)},
};
static const struct cli_spec spec = {
    .name = "init",
    .usage = "[DIR]",
    .summary = "begin a project: weir.yaml, and its schema for editors",
    .examples = "  weir init\n  weir init fraud --template list\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_max = 1,
};

static void list_templates(struct cli *c)
{
    size_t n;
    const struct project_template *all = project_templates(&n);

    for (size_t i = 0; i < n; i++)
        buf_printf(&c->out, "%-16s %s\n", all[i].name, all[i].help);
}

/* The last part of the folder's real path, where that is a name. */
static str folder_name(struct cli *c, const char *dir)
{
    char here[4096];
    str path = str_of(dir);
    size_t at;

    if (dir[0] != '/' || dir[1] == '\0') {
        if (!getcwd(here, sizeof(here)))
            return S("project");
        path = strcmp(dir, ".") == 0 ? arena_dup(&c->a, str_of(here)) : path;
    }
    while (path.n > 1 && path.p[path.n - 1] == '/')
        path.n--;
    at = path.n;
    while (at && path.p[at - 1] != '/')
        at--;
    path = str_skip(path, at);
    return str_is_name(path) ? path : S("project");
}

static int run(struct cli *c, struct err *e)
{
    struct init_options *o = c->values;
    const char *dir = c->opt.arg_count ? c->opt.args[0] : c->opt.project ? c->opt.project : ".";
    size_t n;
    const struct project_template *all = project_templates(&n);
    str name = o->name ? str_of(o->name) : folder_name(c, dir);

    if (o->template && strcmp(o->template, "list") == 0) {
        list_templates(c);
        return 0;
    }
    TRY(project_init_write(dir, name, o->template ? str_of(o->template) : str_of(all[0].name), e));
    if (c->opt.json)
        buf_printf(&c->out, "{\"project\": \"" STR_F "\"}\n", STR_A(name));
    cli_note("wrote %s/" PROJECT_FILE " and %s/" PROJECT_SCHEMA_FILE "\n"
             "next: edit weir.yaml (weir explain FIELD tells about any field), then: weir up",
             dir, dir);
    return 0;
}

int command_init(int argc, char **argv)
{
    struct init_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
