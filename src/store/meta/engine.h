/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an engine behind the meta store does: connections, transactions, prepared statements. All
 * else (statement cache, nesting, dooming, watchers, migrations, kv) is above this table and the
 * same for every engine.
 *
 * An engine reads the SQL subset of meta.h. In migrations INTEGER means 64 bits, REAL a double and
 * BLOB bytes: an engine whose words differ translates them. begin() makes the caller the one writer
 * of the database until commit or rollback, whatever the engine's own isolation would allow.
 */
#pragma once

#include "store/meta/meta.h"

struct meta_engine {
    const char *name;
    NODISCARD int (*open)(const char *dir, const struct meta_options *options, void **ret_conn,
                          struct err *e);
    void (*close)(void *conn); /* after all its statements */

    NODISCARD int (*begin)(void *conn, struct err *e);
    NODISCARD int (*commit)(void *conn, struct err *e);
    void (*rollback)(void *conn);
    NODISCARD int (*script)(void *conn, const char *sql, struct err *e); /* many statements */

    NODISCARD int (*prepare)(void *conn, const char *sql, void **ret_stmt, struct err *e);
    void (*finalize)(void *stmt);
    NODISCARD int (*bind)(void *stmt, struct meta_args args, struct err *e); /* copies */
    NODISCARD int (*step)(void *stmt, bool *ret_row, struct err *e);
    void (*reset)(void *stmt); /* also forgets the arguments */
    int64_t (*changes)(void *conn);

    enum meta_type (*type)(void *stmt, int column);
    int64_t (*integer)(void *stmt, int column);
    double (*real)(void *stmt, int column);
    str (*bytes)(void *stmt, int column); /* text and blob */
};

extern const struct meta_engine meta_engine_sqlite;

struct migration {
    uint32_t number; /* 1, 2, 3… */
    const char *name;
    const char *sql;
};

/* Brings the database up to options->schema_max (0 = newest), or only checks it when read-only. */
NODISCARD int meta_migrate(struct meta *m, const struct meta_options *options, struct err *e);

/* Runs a script inside the open transaction: migrations only. */
NODISCARD int meta_script(struct meta *m, const char *sql, struct err *e);
