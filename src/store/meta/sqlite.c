/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SQLite engine: one database file in WAL mode with synchronous=FULL, so that a commit that
 * returned is on disk, and readers never wait for the writer.
 *
 * BEGIN IMMEDIATE takes the write lock at the start of a transaction, where waiting is safe; a
 * transaction that began by reading and then wanted to write could only be thrown away. Every
 * connection belongs to one thread (NOMUTEX). Files go through sqlite_vfs.c.
 */
#include "store/meta/engine.h"

#include "base/buf.h"
#include "base/files.h"
#include "store/meta/sqlite_vfs.h"

#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>

static enum code code_of(int rc)
{
    switch (rc) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID:
        return CODE_ALREADY_EXISTS;
    case SQLITE_CONSTRAINT_FOREIGNKEY:
    case SQLITE_CONSTRAINT_TRIGGER:
        return CODE_FAILED_PRECONDITION;
    }
    switch (rc & 0xff) {
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_TOOBIG:
        return CODE_INVALID_ARGUMENT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        return CODE_UNAVAILABLE;
    case SQLITE_FULL:
    case SQLITE_NOMEM:
        return CODE_RESOURCE_EXHAUSTED;
    case SQLITE_IOERR:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return CODE_DATA_LOSS;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return CODE_PERMISSION_DENIED;
    case SQLITE_CANTOPEN:
        return CODE_UNAVAILABLE;
    case SQLITE_INTERRUPT:
    case SQLITE_ABORT:
        return CODE_CANCELLED;
    default:
        return CODE_INTERNAL;
    }
}

/* The statement is shown by its beginning: enough to find it, and it holds no values. */
static int fail(sqlite3 *db, int rc, const char *sql, struct err *e)
{
    const char *path = sqlite3_db_filename(db, "main");
    enum code code = code_of(rc);

    if ((rc & 0xff) == SQLITE_BUSY)
        return err_fill(e, code, ERR_AT, "%s: another process keeps the database locked (%.60s)",
                        path ? path : "meta.db", sql);
    if ((rc & 0xff) == SQLITE_FULL)
        return err_fill(e, code, ERR_AT, "%s: the disk is full, free some space (%.60s)",
                        path ? path : "meta.db", sql);
    return err_fill(e, code, ERR_AT, "%s: %s [%d] (%.60s)", path ? path : "meta.db",
                    sqlite3_errmsg(db), rc, sql);
}

static int run(sqlite3 *db, const char *sql, struct err *e)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);

    return rc ? fail(db, sqlite3_extended_errcode(db), sql, e) : 0;
}

static int configure(sqlite3 *db, const struct meta_options *options, struct err *e)
{
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, (int)MIN(options->busy_ms, (uint32_t)INT_MAX));
    TRY(run(db, "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF", e));
    if (options->read_only)
        return run(db, "PRAGMA query_only = ON", e);
    return run(db,
               "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
               "PRAGMA journal_size_limit = 67108864",
               e);
}

static void engine_close(void *conn)
{
    if (conn) {
        int rc = sqlite3_close(conn);

        ASSERT(rc == SQLITE_OK); /* a statement outlived its connection */
    }
}

static void engine_closep(sqlite3 **db)
{
    engine_close(*db);
}

static int engine_open(const char *dir, const struct meta_options *options, void **ret_conn,
                       struct err *e)
{
    AUTO(engine_closep) sqlite3 *db = NULL;
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_READWRITE;
    char path[PATH_MAX];
    int rc;

    if (!options->read_only)
        flags |= SQLITE_OPEN_CREATE;
    if (snprintf(path, sizeof(path), "%s/meta.db", dir) >= (int)sizeof(path))
        return FAIL(e, INVALID_ARGUMENT, "state directory name is too long: %.80s...", dir);
    TRY(sqlite_vfs_register(e));
    rc = sqlite3_open_v2(path, &db, flags, SQLITE_VFS_NAME);
    if (rc && !db)
        return FAIL(e, RESOURCE_EXHAUSTED, "%s: no memory for a connection", path);
    if (rc)
        return FAIL(e, UNAVAILABLE, "open %s: %s", path, sqlite3_errmsg(db));
    TRY(configure(db, options, e));
    *ret_conn = TAKE(db);
    return 0;
}

static int engine_begin(void *conn, struct err *e)
{
    return run(conn, "BEGIN IMMEDIATE", e);
}

static int engine_commit(void *conn, struct err *e)
{
    if (sqlite3_get_autocommit(conn))
        return FAIL(e, ABORTED, "meta.db: the transaction was rolled back by an earlier error");
    return run(conn, "COMMIT", e);
}

static void engine_rollback(void *conn)
{
    /* An I/O error may have rolled it back already. A failing ROLLBACK leaves the transaction to
     * sqlite3_close: nothing was committed either way. */
    if (!sqlite3_get_autocommit(conn))
        (void)sqlite3_exec(conn, "ROLLBACK", NULL, NULL, NULL);
}

static int engine_script(void *conn, const char *sql, struct err *e)
{
    return run(conn, sql, e);
}

static int engine_prepare(void *conn, const char *sql, void **ret_stmt, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    const char *tail = "";
    int rc = sqlite3_prepare_v3(conn, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, &tail);

    if (rc)
        return fail(conn, rc, sql, e);
    ASSERT(stmt && *tail == '\0'); /* one statement at a time */
    *ret_stmt = stmt;
    return 0;
}

static void engine_finalize(void *stmt)
{
    sqlite3_finalize(stmt);
}

static int bind_one(sqlite3_stmt *stmt, int at, const struct meta_arg *arg)
{
    const char *p = arg->bytes.p ? arg->bytes.p : "";

    switch (arg->type) {
    case META_INT:
        return sqlite3_bind_int64(stmt, at, arg->integer);
    case META_REAL:
        return sqlite3_bind_double(stmt, at, arg->real);
    case META_TEXT:
        return sqlite3_bind_text64(stmt, at, p, arg->bytes.n, SQLITE_TRANSIENT, SQLITE_UTF8);
    case META_BLOB:
        return sqlite3_bind_blob64(stmt, at, p, arg->bytes.n, SQLITE_TRANSIENT);
    case META_NULL:
        return sqlite3_bind_null(stmt, at);
    }
    return SQLITE_MISMATCH;
}

static int engine_bind(void *stmt, struct meta_args args, struct err *e)
{
    ASSERT((size_t)sqlite3_bind_parameter_count(stmt) == args.n);
    for (size_t i = 0; i < args.n; i++) {
        int rc = bind_one(stmt, (int)i + 1, &args.at[i]);

        if (rc)
            return fail(sqlite3_db_handle(stmt), rc, sqlite3_sql(stmt), e);
    }
    return 0;
}

static int engine_step(void *stmt, bool *ret_row, struct err *e)
{
    int rc = sqlite3_step(stmt);

    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return fail(sqlite3_db_handle(stmt), rc, sqlite3_sql(stmt), e);
    *ret_row = rc == SQLITE_ROW;
    return 0;
}

static void engine_reset(void *stmt)
{
    (void)sqlite3_reset(stmt); /* repeats the error of step */
    sqlite3_clear_bindings(stmt);
}

static int64_t engine_changes(void *conn)
{
    return sqlite3_changes64(conn);
}

static enum meta_type engine_type(void *stmt, int column)
{
    switch (sqlite3_column_type(stmt, column)) {
    case SQLITE_INTEGER:
        return META_INT;
    case SQLITE_FLOAT:
        return META_REAL;
    case SQLITE_TEXT:
        return META_TEXT;
    case SQLITE_BLOB:
        return META_BLOB;
    default:
        return META_NULL;
    }
}

static int64_t engine_integer(void *stmt, int column)
{
    return sqlite3_column_int64(stmt, column);
}

static double engine_real(void *stmt, int column)
{
    return sqlite3_column_double(stmt, column);
}

static str engine_bytes(void *stmt, int column)
{
    const char *p = sqlite3_column_blob(stmt, column);

    return (str){p, (size_t)sqlite3_column_bytes(stmt, column)};
}

const struct meta_engine meta_engine_sqlite = {
    .name = "sqlite",
    .open = engine_open,
    .close = engine_close,
    .begin = engine_begin,
    .commit = engine_commit,
    .rollback = engine_rollback,
    .script = engine_script,
    .prepare = engine_prepare,
    .finalize = engine_finalize,
    .bind = engine_bind,
    .step = engine_step,
    .reset = engine_reset,
    .changes = engine_changes,
    .type = engine_type,
    .integer = engine_integer,
    .real = engine_real,
    .bytes = engine_bytes,
};
