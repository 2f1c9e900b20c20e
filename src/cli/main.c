/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "base/str.h"

#include <stdio.h>

static const struct command commands[] = {
#define COMMAND(name, text, usage, summary, hidden) {text, usage, summary, hidden, command_##name},
#include "cli/commands.def"
#undef COMMAND
};

static void help(FILE *to)
{
    fprintf(to, "weir " WEIR_VERSION ": from a trained model to a service that watches itself\n\n"
                "usage: weir COMMAND [ARGUMENTS]      weir COMMAND --help\n\n");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (!commands[i].hidden)
            fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].summary);
}

static void suggest(const char *name)
{
    str names[ARRAY_LEN(commands)], near;

    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        names[i] = str_of(commands[i].name);
    near = str_suggest(str_of(name), names, ARRAY_LEN(names));
    fprintf(stderr, "weir: unknown command '%s'%s" STR_F "%s\n", name,
            near.n ? ", did you mean '" : "", STR_A(near), near.n ? "'?" : "; see weir help");
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";

    if (strcmp(name, "help") == 0 && argc > 2) { /* weir help plan = weir plan --help */
        static char ask[] = "--help";

        argv[1] = argv[2];
        argv[2] = ask;
        argc = 3;
        name = argv[1];
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        help(stdout);
        return 0;
    }
    if (strcmp(name, "--version") == 0) {
        printf("weir " WEIR_VERSION "\n");
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    suggest(name);
    return 2;
}
