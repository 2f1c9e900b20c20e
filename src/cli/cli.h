/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: one table of commands (commands.def), one file per command.
 *
 * Every command has --help and --json, says what it did and what to do next, writes data to stdout
 * and everything else to stderr, and ends with 0 done, 1 failed, 2 wrong use, 3 unavailable.
 */
#pragma once

#include "base/arena.h"
#include "base/err.h"

struct command {
    const char *name;
    const char *usage;   /* arguments, one line */
    const char *summary; /* one line */
    bool hidden;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name */
};

#define COMMAND(name, text, usage, summary, hidden) int command_##name(int argc, char **argv);
#include "cli/commands.def"
#undef COMMAND
