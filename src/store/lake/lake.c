/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Databases, connections, statements and files.
 *
 * DuckDB reports errors as one text, often of many lines with a caret; the first line names the
 * thing, and that is what goes into err, with the code chosen by DuckDB's own error type.
 *
 * Extensions are neither installed nor loaded on demand: a data plane that fetches code from the
 * network because a query mentions a function is not ours. What is needed is built in.
 */
#include "store/lake/priv.h"

#include "base/files.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>

#define SQL_MAX ((size_t)1 << 20)

/* --- Errors -------------------------------------------------------------------------------- */

static enum code code_of(duckdb_error_type type)
{
    switch (type) {
    case DUCKDB_ERROR_OUT_OF_MEMORY:
        return CODE_RESOURCE_EXHAUSTED;
    case DUCKDB_ERROR_INTERRUPT:
        return CODE_CANCELLED;
    case DUCKDB_ERROR_CATALOG:
    case DUCKDB_ERROR_IO:
        return CODE_NOT_FOUND;
    case DUCKDB_ERROR_CONSTRAINT:
        return CODE_FAILED_PRECONDITION;
    case DUCKDB_ERROR_TRANSACTION:
        return CODE_ABORTED;
    case DUCKDB_ERROR_INTERNAL:
    case DUCKDB_ERROR_FATAL:
        return CODE_INTERNAL;
    case DUCKDB_ERROR_PARSER:
    case DUCKDB_ERROR_BINDER:
    case DUCKDB_ERROR_SYNTAX:
    case DUCKDB_ERROR_CONVERSION:
    case DUCKDB_ERROR_INVALID_INPUT:
    case DUCKDB_ERROR_MISMATCH_TYPE:
    case DUCKDB_ERROR_OUT_OF_RANGE:
    case DUCKDB_ERROR_INVALID_TYPE:
    case DUCKDB_ERROR_PARAMETER_NOT_RESOLVED:
        return CODE_INVALID_ARGUMENT;
    default:
        return CODE_UNKNOWN;
    }
}

int lake_fail(const char *what, const char *text, duckdb_error_type type, struct err *e)
{
    str rest = str_of(text ? text : "no reason given");
    str line = str_trim(str_cut(&rest, '\n'));

    return err_fill(e, code_of(type), ERR_AT, "lake: %s: " STR_F, what, STR_A(line));
}

int lake_fail_result(const char *what, duckdb_result *r, struct err *e)
{
    int rc = lake_fail(what, duck.result_error(r), duck.result_error_type(r), e);

    duck.destroy_result(r);
    return rc;
}

/* --- Opening ------------------------------------------------------------------------------- */

static NODISCARD int configure(const struct lake_config *cfg, duckdb_config c, struct err *e)
{
    char memory[32], threads[16];
    const char *const options[][2] = {
        {"memory_limit", memory},
        {"threads", threads},
        {"temp_directory", cfg->temp_dir ? cfg->temp_dir : ""},
        {"autoinstall_known_extensions", "false"},
        {"autoload_known_extensions", "false"},
        {"allow_unsigned_extensions", "false"},
        {"preserve_insertion_order", "true"},
    };

    snprintf(memory, sizeof memory, "%lluB",
             (unsigned long long)(cfg->memory_max ? cfg->memory_max : UINT64_C(1) << 30));
    snprintf(threads, sizeof threads, "%u", cfg->threads ? cfg->threads : 2);
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        if (duck.set_config(c, options[i][0], options[i][1]) != DuckDBSuccess)
            return FAIL(e, INVALID_ARGUMENT, "lake: option %s cannot be '%s'", options[i][0],
                        options[i][1]);
    return 0;
}

static void config_done(duckdb_config *c)
{
    if (*c)
        duck.destroy_config(c);
}

static NODISCARD int open_db(const struct lake_config *cfg, duckdb_database *ret_db, struct err *e)
{
    AUTO(config_done) duckdb_config c = NULL;
    char *why = NULL;
    int rc;

    if (duck.create_config(&c) != DuckDBSuccess)
        return FAIL(e, RESOURCE_EXHAUSTED, "lake: no memory for a configuration");
    TRY(configure(cfg, c, e));
    if (duck.open_ext(cfg->path, ret_db, c, &why) == DuckDBSuccess)
        return 0;
    rc = lake_fail(cfg->path ? cfg->path : "in memory", why, DUCKDB_ERROR_UNKNOWN_TYPE, e);
    if (why)
        duck.free(why);
    return rc;
}

int lake_open(const struct lake_config *cfg, struct lake **ret_lake, struct err *e)
{
    AUTO(lake_closep) struct lake *l = NULL;
    duckdb_database db;

    TRY(duck_load(e));
    TRY(open_db(cfg, &db, e));
    l = mem_zalloc(sizeof *l);
    l->db = mem_zalloc(sizeof *l->db);
    l->db->db = db;
    atomic_store(&l->db->refs, 1);
    if (duck.connect(db, &l->con) != DuckDBSuccess)
        return FAIL(e, UNKNOWN, "lake: cannot connect to the database that was just opened");
    TRY(lake_exec(l, "SET TimeZone = 'UTC'", e));
    *ret_lake = TAKE(l);
    return 0;
}

int lake_fork(struct lake *l, struct lake **ret_lake, struct err *e)
{
    AUTO(lake_closep) struct lake *f = mem_zalloc(sizeof *f);

    f->db = l->db;
    atomic_fetch_add(&l->db->refs, 1);
    if (duck.connect(l->db->db, &f->con) != DuckDBSuccess)
        return FAIL(e, UNKNOWN, "lake: no further connection");
    TRY(lake_exec(f, "SET TimeZone = 'UTC'", e));
    *ret_lake = TAKE(f);
    return 0;
}

void lake_close(struct lake *l)
{
    if (!l)
        return;
    if (l->con)
        duck.disconnect(&l->con);
    if (l->db && atomic_fetch_sub(&l->db->refs, 1) == 1) {
        duck.close(&l->db->db);
        mem_free(l->db);
    }
    mem_free(l);
}

void lake_interrupt(struct lake *l)
{
    duck.interrupt(l->con);
}

/* --- Statements ---------------------------------------------------------------------------- */

int lake_exec(struct lake *l, const char *sql, struct err *e)
{
    duckdb_result r;

    if (duck.query(l->con, sql, &r) != DuckDBSuccess)
        return lake_fail_result("statement", &r, e);
    duck.destroy_result(&r);
    return 0;
}

int lake_execf(struct lake *l, struct err *e, const char *fmt, ...)
{
    AUTO(mem_freep) char *sql = NULL;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n > SQL_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED, "lake: a statement of more than %zu bytes", SQL_MAX);
    sql = mem_alloc((size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(sql, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return lake_exec(l, sql, e);
}

/* --- Quoting ------------------------------------------------------------------------------- */

static void quote(struct buf *out, str s, char mark)
{
    buf_add_char(out, mark);
    for (size_t i = 0; i < s.n; i++) {
        if (!s.p[i])
            out->overflowed = true;
        if (s.p[i] == mark)
            buf_add_char(out, mark);
        buf_add_char(out, s.p[i]);
    }
    buf_add_char(out, mark);
}

void lake_quote_name(struct buf *out, str name)
{
    quote(out, name, '"');
}

void lake_quote_text(struct buf *out, str text)
{
    quote(out, text, '\'');
}

/* --- Files --------------------------------------------------------------------------------- */

static NODISCARD int exec_buf(struct lake *l, struct buf *sql, struct err *e)
{
    if (sql->overflowed)
        return FAIL(e, INVALID_ARGUMENT,
                    "lake: the statement is over %zu bytes or holds a NUL byte", SQL_MAX);
    return lake_exec(l, buf_z(sql), e);
}

static NODISCARD int copy_to(struct lake *l, const char *query, const char *path, struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};
    AUTO(file_closep) int fd = -1;

    buf_init(&sql, SQL_MAX);
    buf_printf(&sql, "COPY (%s) TO ", query);
    lake_quote_text(&sql, str_of(path));
    buf_add_str(&sql, S(" (FORMAT parquet, COMPRESSION zstd)"));
    TRY(exec_buf(l, &sql, e));
    TRY(file_open(path, FILE_CREATE, &fd, e));
    return file_sync(fd, e);
}

int lake_write_parquet(struct lake *l, const char *query, const char *path, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    const char *slash = strrchr(path, '/');
    char *tmp, *dir;
    int rc;

    arena_init(&a, 0);
    /* Hidden and not *.parquet: no glob of a reader finds it. */
    dir = slash ? arena_dupz(&a, str_range(path, slash)) : arena_dupz(&a, S("."));
    tmp = path_join(&a, dir, arena_printf(&a, ".%s.tmp", slash ? slash + 1 : path).p);
    rc = copy_to(l, query, tmp, e);
    if (!rc)
        rc = file_rename(tmp, path, e);
    if (rc) {
        int ignored UNUSED = file_remove(tmp, NULL);

        return rc;
    }
    return file_sync_dir(dir, e);
}

static void create_table(struct buf *sql, str table, const char *columns)
{
    buf_init(sql, SQL_MAX);
    buf_add_str(sql, S("CREATE OR REPLACE TABLE "));
    lake_quote_name(sql, table);
    buf_printf(sql, " AS SELECT %s FROM ", columns ? columns : "*");
}

int lake_load_parquet(struct lake *l, str table, const char *pattern, const char *columns,
                      bool hive, struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};

    create_table(&sql, table, columns);
    buf_add_str(&sql, S("read_parquet("));
    lake_quote_text(&sql, str_of(pattern));
    buf_printf(&sql, ", union_by_name=true, hive_partitioning=%s)", hive ? "true" : "false");
    return exec_buf(l, &sql, e);
}

int lake_load_csv(struct lake *l, str table, const char *pattern, const char *types, struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};

    create_table(&sql, table, NULL);
    buf_add_str(&sql, S("read_csv("));
    lake_quote_text(&sql, str_of(pattern));
    buf_add_str(&sql, S(", header=true"));
    if (types)
        buf_printf(&sql, ", types=%s", types);
    buf_add_str(&sql, S(")"));
    return exec_buf(l, &sql, e);
}
