/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of a command, as a table: the parser, --help and the completion of shells come from it.
 * Every command has --help, --json, --project DIR and --no-color besides its own.
 *
 * --name VALUE and --name=VALUE are the same; -x is a one-letter name; "--" ends the options, which
 * may stand anywhere among the arguments. An unknown option is refused with the nearest known one.
 */
#pragma once

#include "base/str.h"

#include <stdio.h>

enum cli_kind {
    CLI_FLAG, /* bool */
    CLI_TEXT, /* const char * */
    CLI_INT,  /* int64_t, >= 0 */
    CLI_REAL, /* double */
    CLI_LIST, /* struct cli_list: may be repeated */
};

#define CLI_LIST_MAX 64
#define CLI_ARGS_MAX 16

struct cli_list {
    const char *at[CLI_LIST_MAX]; /* borrowed from argv */
    size_t n;
};

struct cli_option {
    const char *name; /* without the dashes */
    char letter;      /* or 0 */
    enum cli_kind kind;
    const char *value; /* what --help calls it: "FILE"; NULL for a flag */
    const char *help;
    size_t at; /* offset in the command's struct of values */
};

struct cli_spec {
    const char *name;
    const char *usage;    /* arguments: "ENDPOINT [VERSION]" */
    const char *summary;  /* one line */
    const char *examples; /* lines, each with its end */
    const char *notes;    /* lines after the options, or NULL */
    const struct cli_option *options;
    size_t option_count;
    size_t args_min, args_max;
};

/* What the parser found. */
struct cli_parsed {
    bool help, json, no_color;
    const char *project; /* NULL: look for it */
    const char *args[CLI_ARGS_MAX];
    size_t arg_count;
};

/* INVALID_ARGUMENT (exit 2) with what to do. `values` is the command's struct, with its defaults
 * in place. */
NODISCARD int cli_parse(const struct cli_spec *spec, int argc, char **argv, void *values,
                        struct cli_parsed *ret, struct err *e);
void cli_help(const struct cli_spec *spec, FILE *to);
