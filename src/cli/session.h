/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run of a command: its options, its project, the way to the control process, its output.
 *
 * Data goes to stdout (struct buf out, written at the end or by cli_flush), messages to stderr.
 * Colour and redrawing only on a terminal, never with NO_COLOR, TERM=dumb or --no-color.
 */
#pragma once

#include "base/json.h"
#include "cli/options.h"

struct cli {
    struct arena a; /* of the whole run */
    struct buf out;
    struct cli_parsed opt;
    void *values; /* the command's struct */
    const struct cli_spec *spec;
    const char *project_dir; /* found by cli_project_find; NULL before */
    bool tty, color;
    int columns;
    int exit_status;            /* set by the command where 0 is not the answer */
    const struct json *details; /* of the last error that control answered */
};

typedef int (*cli_run_fn)(struct cli *c, struct err *e);
/* Parses, runs, writes, and gives the exit status: that of the error, or c->exit_status. */
int cli_main(const struct cli_spec *spec, int argc, char **argv, void *values, cli_run_fn run);

/* The folder with weir.yaml: --project, or this one, or the nearest above. NOT_FOUND says `weir
 * init`. */
NODISCARD int cli_project_find(struct cli *c, struct err *e);

/* Asks the control process of this project. body NULL: GET, else POST. An error that control
 * answers comes back as that error; UNAVAILABLE when it does not run. */
NODISCARD int cli_call(struct cli *c, const char *target, const struct json *body,
                       struct json **ret_answer, struct err *e);
/* "<path>?name=value&…" with values encoded; pairs end with NULL; NULL or "" values are left out.
 */
const char *cli_target(struct cli *c, const char *path, ...) __attribute__((sentinel));
const char *cli_segment(struct cli *c, const char *text); /* percent-encoded */

/* Waits until the flow has ended, with a line of progress on a terminal. An end other than `done`
 * is an error of the run. */
NODISCARD int cli_flow_wait(struct cli *c, str id, struct json **ret_flow, struct err *e);

/* The header line for the key or token that a file holds, for arguments are seen by everybody on
 * the machine; empty without a file. */
NODISCARD int cli_key_line(struct cli *c, const char *key_file, str *ret_line, struct err *e);

void cli_json(struct cli *c, const struct json *node); /* pretty, and a line end */
void cli_flush(struct cli *c);
void cli_note(const char *fmt, ...) PRINTF_LIKE(1, 2); /* one line on stderr */
/* Asks on the terminal; false without one. */
bool cli_confirm(struct cli *c, const char *question);
