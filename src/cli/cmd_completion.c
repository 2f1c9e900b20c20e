/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `weir completion`: what a shell needs to complete commands, options and names. Commands come from
 * commands.def; options from the --help of the command, names of endpoints and models from
 * weir.yaml, both at the moment of completion, so that nothing here can be out of date.
 */
#include "cli/cli.h"
#include "cli/session.h"
#include "project/project.h"

static const struct cli_spec spec = {
    .name = "completion",
    .usage = "bash|zsh|fish",
    .summary = "a script that completes commands, options and names",
    .examples = "  source <(weir completion bash)\n  weir completion zsh > ~/.zfunc/_weir\n"
                "  weir completion fish > ~/.config/fish/completions/weir.fish\n",
    .args_min = 1,
    .args_max = 1,
};

static const struct {
    const char *name, *summary;
    bool hidden;
} commands[] = {
#define COMMAND(name, text, usage, summary, hidden) {text, summary, hidden},
#include "cli/commands.def"
#undef COMMAND
    {"help", "what commands there are", false},
};

static const char bash_tail[] =
    "_weir() {\n"
    "    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}\n"
    "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
    "        COMPREPLY=($(compgen -W \"$_weir_commands\" -- \"$word\"))\n"
    "    elif [[ $word == -* ]]; then\n"
    "        COMPREPLY=($(compgen -W \"$(weir \"$command\" --help 2>/dev/null |\n"
    "            grep -oE -- '--[a-z][a-z-]+' | sort -u)\" -- \"$word\"))\n"
    "    else\n"
    "        COMPREPLY=($(compgen -W \"$(weir completion names 2>/dev/null)\" -- \"$word\")\n"
    "                   $(compgen -f -- \"$word\"))\n"
    "    fi\n"
    "}\n"
    "complete -o filenames -F _weir weir\n";

static const char zsh_tail[] =
    "_weir() {\n"
    "    if (( CURRENT == 2 )); then\n"
    "        _describe command _weir_commands\n"
    "    elif [[ ${words[CURRENT]} == -* ]]; then\n"
    "        compadd -- $(weir ${words[2]} --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]+' |"
    " sort -u)\n"
    "    else\n"
    "        compadd -- $(weir completion names 2>/dev/null)\n"
    "        _files\n"
    "    fi\n"
    "}\n"
    "compdef _weir weir\n";

static const char fish_tail[] =
    "complete -c weir -n 'not __fish_use_subcommand' -a '(weir completion names 2>/dev/null)'\n"
    "complete -c weir -n 'not __fish_use_subcommand; and string match -q -- \"-*\" "
    "(commandline -ct)' -a '(weir (commandline -opc)[2] --help 2>/dev/null |"
    " string match -ar -- \"--[a-z][a-z-]+\" | sort -u)'\n";

static void write_bash(struct buf *out)
{
    buf_add_str(out, S("_weir_commands='"));
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (!commands[i].hidden)
            buf_printf(out, "%s ", commands[i].name);
    buf_printf(out, "'\n%s", bash_tail);
}

static void write_zsh(struct buf *out)
{
    buf_add_str(out, S("#compdef weir\n_weir_commands=(\n"));
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (!commands[i].hidden)
            buf_printf(out, "    \"%s:%s\"\n", commands[i].name, commands[i].summary);
    buf_printf(out, ")\n%s", zsh_tail);
}

static void write_fish(struct buf *out)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (!commands[i].hidden)
            buf_printf(out, "complete -c weir -n __fish_use_subcommand -f -a %s -d \"%s\"\n",
                       commands[i].name, commands[i].summary);
    buf_printf(out, "%s", fish_tail);
}

/* Names that arguments may be, for the scripts above; quiet where there is no project. */
static void write_names(struct cli *c)
{
    static const char *const sections[] = {"endpoints", "models"};
    struct project_result project;
    struct err e;

    if (cli_project_find(c, &e) || project_load(c->project_dir, &c->a, &project, &e))
        return;
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
        const struct json *section = json_get(project.norm, str_of(sections[i]));

        if (json_is_container(section))
            JSON_EACH (item, section)
                buf_printf(&c->out, STR_F "\n", STR_A(item->key));
    }
}

static int run(struct cli *c, struct err *e)
{
    const char *shell = c->opt.args[0];

    if (strcmp(shell, "bash") == 0)
        write_bash(&c->out);
    else if (strcmp(shell, "zsh") == 0)
        write_zsh(&c->out);
    else if (strcmp(shell, "fish") == 0)
        write_fish(&c->out);
    else if (strcmp(shell, "names") == 0)
        write_names(c);
    else
        return FAIL(e, INVALID_ARGUMENT, "'%s' is not bash, zsh or fish", shell);
    return 0;
}

int command_completion(int argc, char **argv)
{
    return cli_main(&spec, argc, argv, NULL, run);
}
