/* SPDX-License-Identifier: Apache-2.0 */
/* The tables in which the rows of one segment gather before they become files. */
#pragma once

#include "record/export.h"

struct export_table {
    const struct record_schema *schema; /* NULL: feedback */
    str name;                           /* of the DuckDB table */
    struct lake_appender *appender;     /* owned */
    uint64_t rows;
};

/* Makes the table (replacing one of that name) and opens it for appending. */
NODISCARD int export_table_open(struct export_table *t, struct lake *l,
                                const struct record_schema *s, struct arena *a, struct err *e);
NODISCARD int export_table_add(struct export_table *t, const struct record_head *h, str gateway,
                               struct err *e);
/* Flushes and closes the appender; the table stays. */
NODISCARD int export_table_finish(struct export_table *t, struct err *e);
void export_table_done(struct export_table *t);

/* Merging of small files and removal of what is old (compact.c). Every segment that has files must
 * have left the keeper's folder: a file that may be written again must not be merged. */
NODISCARD int export_compact(const struct export_config *cfg, struct lake *l, int64_t now_wall_ns,
                             struct export_result *to, struct err *e);
NODISCARD int export_retain(const struct export_config *cfg, int64_t now_wall_ns,
                            struct export_result *to, struct err *e);
/* Removes what a killed compaction left. */
NODISCARD int export_sweep(const struct export_config *cfg, struct err *e);
