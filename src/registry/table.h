/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table in memory: columns of doubles, as profiles and evaluations want them. A text column holds
 * indexes into its distinct texts. Missing is NaN in both.
 *
 * Tables are read by DuckDB from CSV, Parquet or JSON lines. At most rows_max rows are kept, a
 * uniform sample that the seed alone decides, so that equal files give equal profiles.
 */
#pragma once

#include "base/arena.h"

#define TABLE_ROWS_MAX ((size_t)5000000)
#define TABLE_COLUMNS_MAX 4096
#define TABLE_TEXTS_MAX 1000000u /* distinct texts of a column; RESOURCE_EXHAUSTED above */

struct table_column {
    str name;
    double *values;   /* row_count of them */
    const str *texts; /* NULL: a column of numbers */
    uint32_t text_count;
};

struct table {
    struct arena arena; /* owned: everything */
    size_t row_count, column_count;
    struct table_column *columns;
    int64_t source_rows; /* rows of the files, before sampling */
};

struct table_query {
    const char *path; /* a file, or a pattern with * and ** */
    str format;       /* csv, parquet, jsonl; empty or auto: by the ending */
    const str *columns;
    size_t column_count; /* 0 = all */
    /* Columns that are read as text whatever the file says: labels, and features of type string. */
    const str *as_text;
    size_t as_text_count;
    str order_by;        /* a column; rows come in its order; empty: in no promised order */
    double skip;         /* share of the rows, in that order, left out at the front: a holdout */
    size_t rows_max;     /* 0 = TABLE_ROWS_MAX */
    uint64_t seed;       /* of the sample */
    const char *tmp_dir; /* for DuckDB's spilling, or NULL */
};

/* Any thread that may block. NOT_FOUND: no such file or column (the message names the columns that
 * are there); INVALID_ARGUMENT: not readable as a table; RESOURCE_EXHAUSTED; UNAVAILABLE: no
 * DuckDB. *ret owns memory: table_done. */
NODISCARD int table_read(const struct table_query *q, struct table *ret, struct err *e);
/* The names of the columns alone. */
NODISCARD int table_names(const char *path, str format, struct arena *a, str **ret_names,
                          size_t *ret_n, struct err *e);
void table_done(struct table *t); /* accepts a zeroed one; AUTO(table_done) */

/* An empty table of so many rows and columns in its arena, for callers that have arrays: set name,
 * texts and values. The values are zeroed. */
void table_init(struct table *t, size_t row_count, size_t column_count);

/* NULL when it is not there. */
const struct table_column *table_find(const struct table *t, str name);
/* The text of a value: of a text column itself, of a number its shortest form ("1", not "1.0").
 * STR_NULL when missing. */
str table_text(const struct table_column *c, size_t row, struct arena *a);
