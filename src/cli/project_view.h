/* SPDX-License-Identifier: Apache-2.0 */
/* What init, plan and apply share: the files of the project, and differences on a terminal. */
#pragma once

#include "cli/session.h"
#include "project/project.h"

/* Reads weir.yaml; problems are shown with their lines (with --json: on stdout). */
NODISCARD int project_view_load(struct cli *c, struct project_result *ret, struct err *e);

/* What is about to be applied, and what it was held against. */
struct project_view_plan {
    const struct json *tree, *base_tree; /* base_tree NULL: nothing is applied */
    str base, hash;                      /* base "" : nothing is applied */
    const struct json *notes;            /* texts: what the changes do not do; NULL: none */
    bool offline;                        /* no control was there to check references */
};
/* From the files and the applied state; control checks references. Without a control the state is
 * read from the meta store, which nobody writes then: good for looking, not for applying. */
NODISCARD int project_view_plan(struct cli *c, bool offline_too, struct project_view_plan *ret,
                                struct err *e);
void project_view_notes(const struct json *notes); /* on stderr; NULL: none */
/* From a file written by `weir plan -o`. */
NODISCARD int project_view_read(struct cli *c, const char *path, struct project_view_plan *ret,
                                struct err *e);
NODISCARD int project_view_write(struct cli *c, const char *path, const struct project_view_plan *p,
                                 struct err *e);
/* The changes as lines, or as JSON with the notes; *ret_n is how many. */
void project_view_changes(struct cli *c, const struct project_view_plan *p, size_t *ret_n);
