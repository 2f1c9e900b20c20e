/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lake: DuckDB over Parquet, for history, training sets, batch work and reports.
 *
 * DuckDB's library is opened when the first lake is (it takes tens of megabytes: a gateway or a
 * short command never maps it). A `struct lake` is a database with one connection and belongs to
 * one thread at a time; lake_fork() gives another connection to the same database for another
 * thread.
 *
 * SQL is built from constants, quoted names (lake_quote_name) and bound parameters ($1, $2 …) or,
 * where DuckDB takes no parameter, quoted literals (lake_quote_text). Values never go into SQL raw.
 */
#pragma once

#include "base/arena.h"
#include "base/buf.h"

struct lake;
struct lake_result;
struct lake_appender;

struct lake_config {
    const char *path;     /* database file, or NULL: in memory */
    uint64_t memory_max;  /* bytes; 0 = 1 GiB. Larger work spills to temp_dir */
    uint32_t threads;     /* 0 = 2 */
    const char *temp_dir; /* for spilling; NULL: no spilling, RESOURCE_EXHAUSTED instead */
};

/* UNAVAILABLE when libduckdb.so is nowhere: the message says where it was looked for. */
NODISCARD int lake_open(const struct lake_config *cfg, struct lake **ret_lake, struct err *e);
NODISCARD int lake_fork(struct lake *l, struct lake **ret_lake, struct err *e);
void lake_close(struct lake *l); /* accepts NULL; the last one closes the database */
DEFINE_AUTO_PTR(struct lake, lake_close)

const char *lake_version(void);      /* of the loaded library, or NULL */
void lake_interrupt(struct lake *l); /* any thread: the running statement fails with CANCELLED */

/* --- Statements ----------------------------------------------------------------------------- */

enum lake_type { LAKE_NULL, LAKE_BOOL, LAKE_I64, LAKE_F64, LAKE_TEXT, LAKE_TIME };

/* A parameter. LAKE_TIME is wall ns (DuckDB keeps microseconds). Text is borrowed. */
struct lake_value {
    enum lake_type type;
    union {
        bool boolean;
        int64_t integer; /* also LAKE_TIME */
        double real;
        str text;
    };
};
#define LAKE_V_I64(v) ((struct lake_value){.type = LAKE_I64, .integer = (v)})
#define LAKE_V_F64(v) ((struct lake_value){.type = LAKE_F64, .real = (v)})
#define LAKE_V_TEXT(v) ((struct lake_value){.type = LAKE_TEXT, .text = (v)})
#define LAKE_V_TIME(v) ((struct lake_value){.type = LAKE_TIME, .integer = (v)})

/* One or more statements without a result. Errors of DuckDB become INVALID_ARGUMENT (SQL, types),
 * NOT_FOUND (files, tables), RESOURCE_EXHAUSTED (memory), CANCELLED or UNKNOWN. */
NODISCARD int lake_exec(struct lake *l, const char *sql, struct err *e);
NODISCARD int lake_execf(struct lake *l, struct err *e, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* One statement with parameters. The result belongs to the caller. */
NODISCARD int lake_query(struct lake *l, const char *sql, const struct lake_value *params, size_t n,
                         struct lake_result **ret_result, struct err *e);
void lake_result_free(struct lake_result *r); /* accepts NULL */
DEFINE_AUTO_PTR(struct lake_result, lake_result_free)

/* Rows: while (lake_next(r)) … Values are of the current row; text is borrowed until the next
 * lake_next(). Numbers convert among each other; what cannot convert reads as the default (0, NaN,
 * empty, false), as NULL does. Lists, structs and the like: CAST them to VARCHAR in the query. */
bool lake_next(struct lake_result *r);
size_t lake_column_count(const struct lake_result *r);
str lake_column_name(const struct lake_result *r, size_t column);
enum lake_type lake_column_type(const struct lake_result *r, size_t column);
bool lake_is_null(const struct lake_result *r, size_t column);
bool lake_bool(const struct lake_result *r, size_t column);
int64_t lake_i64(const struct lake_result *r, size_t column);
double lake_f64(const struct lake_result *r, size_t column);      /* NaN for NULL */
str lake_text(const struct lake_result *r, size_t column);        /* p == NULL for NULL */
int64_t lake_time_ns(const struct lake_result *r, size_t column); /* timestamps and dates */

/* The single number of a single-row query (count(*), max(ts) …). NOT_FOUND without a row or when
 * it is NULL. */
NODISCARD int lake_scalar_i64(struct lake *l, const char *sql, const struct lake_value *params,
                              size_t n, int64_t *ret_value, struct err *e);
NODISCARD int lake_scalar_f64(struct lake *l, const char *sql, const struct lake_value *params,
                              size_t n, double *ret_value, struct err *e);

/* --- Bulk ----------------------------------------------------------------------------------- */

/* All numeric columns of a query as arrays of doubles (NULL, and text, as NaN). */
struct lake_numbers {
    size_t row_count, column_count;
    str *names;
    double **columns; /* column_count arrays of row_count, owned */
};
/* RESOURCE_EXHAUSTED past max_rows. */
NODISCARD int lake_read_numbers(struct lake *l, const char *sql, const struct lake_value *params,
                                size_t n, size_t max_rows, struct lake_numbers *ret, struct err *e);
void lake_numbers_done(struct lake_numbers *n); /* AUTO; accepts a zeroed one */

/* Appends rows to a table, column by column in the table's order; every column of a row must be
 * given. Values convert to the type of the column. */
NODISCARD int lake_appender_open(struct lake *l, str table, struct lake_appender **ret_appender,
                                 struct err *e);
void lake_append_null(struct lake_appender *a);
void lake_append_bool(struct lake_appender *a, bool v);
void lake_append_i64(struct lake_appender *a, int64_t v);
void lake_append_f64(struct lake_appender *a, double v); /* NaN is appended as NULL */
void lake_append_text(struct lake_appender *a, str v);   /* p == NULL: NULL; bad UTF-8 is mended */
void lake_append_time(struct lake_appender *a, int64_t wall_ns);
NODISCARD int lake_append_row(struct lake_appender *a, struct err *e); /* ends the row */
NODISCARD int lake_appender_flush(struct lake_appender *a, struct err *e);
/* Drops what was not flushed; accepts NULL. */
void lake_appender_free(struct lake_appender *a);
DEFINE_AUTO_PTR(struct lake_appender, lake_appender_free)

/* --- Files ---------------------------------------------------------------------------------- */

/* Writes the result of a query to a Parquet file (zstd) atomically: temporary name in the same
 * folder, fsync, rename. An existing file is replaced. */
NODISCARD int lake_write_parquet(struct lake *l, const char *query, const char *path,
                                 struct err *e);
/* Makes (or replaces) a table from files; `pattern` may be a glob. `columns` is NULL or a quoted
 * select list such as "a", "b". hive: folder names like dt=2026-01-01 become columns. */
NODISCARD int lake_load_parquet(struct lake *l, str table, const char *pattern, const char *columns,
                                bool hive, struct err *e);
/* The same from CSV with a header line. types: a DuckDB struct literal such as
 * {'id': 'BIGINT'}, or NULL to let it guess. */
NODISCARD int lake_load_csv(struct lake *l, str table, const char *pattern, const char *types,
                            struct err *e);

/* "name" with quotes doubled, and 'text' with quotes doubled. A NUL byte cannot be quoted: it sets
 * out->overflowed, as running out of room does, and the caller's check catches both. */
void lake_quote_name(struct buf *out, str name);
void lake_quote_text(struct buf *out, str text);
