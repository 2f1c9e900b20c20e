/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The meta store: where the control plane keeps what must never be lost (journal, flows, registry,
 * small durable state). One port, engines behind it: SQLite in the state directory by default.
 *
 *   struct meta_store   one per process: takes the writer lock, brings the schema up to date,
 *                       hands out connections, tells watchers about commits
 *   struct meta         one connection, used by one thread at a time; costs about 100 KiB
 *
 * SQL is the subset that SQLite 3.40 and PostgreSQL 15 share: `?` placeholders, ON CONFLICT,
 * RETURNING, partial indexes, no engine functions, JSON as TEXT. A transaction is the only writer
 * while it is open, so keep slow work out of it. Any failed statement dooms its transaction (as in
 * PostgreSQL): expect conflicts with ON CONFLICT, not by catching ALREADY_EXISTS in
 * mid-transaction.
 *
 *     AUTO(meta_tx_done) struct meta_tx tx = {0};             rolls back unless committed
 *     TRY(meta_begin(m, &tx, e));
 *     TRY(meta_exec(m, "INSERT INTO models (name, created_ns) VALUES (?, ?)",
 *                   M_ARGS(M_STR(name), M_INT(now)), e));
 *     return meta_commit(&tx, e);
 *
 *     AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
 *     int rc;
 *     TRY(meta_query(m, "SELECT version FROM model_versions WHERE model = ?",
 *                    M_ARGS(M_STR(name)), &rows, e));
 *     while (meta_next(rows, &rc, e))
 *         use(meta_int(rows, 0));
 *     TRY(rc);
 *
 * Errors: ALREADY_EXISTS unique key; FAILED_PRECONDITION foreign key, doomed transaction, foreign
 * schema; INVALID_ARGUMENT NOT NULL or CHECK; UNAVAILABLE another writer for longer than busy_ms,
 * or the directory is locked; RESOURCE_EXHAUSTED disk full; DATA_LOSS I/O error or damaged file;
 * PERMISSION_DENIED read-only. Messages name the database and the statement.
 */
#pragma once

#include "base/arena.h"
#include "base/json.h"

struct meta_store;
struct meta;
struct meta_rows;

struct meta_options {
    bool read_only;   /* no lock, no migration; the schema must be current */
    bool shared;      /* no writer lock: several processes, told apart by leases and fences alone */
    uint32_t busy_ms; /* wait for another writer; 0 = 10000 */
    /* The newest migration to apply; 0 = all. For tests of upgrades. */
    uint32_t schema_max;
};

/* ----- Store ----- */

/* `dir` is the state directory, made if missing; the database is <dir>/meta.db. options may be
 * NULL. UNAVAILABLE with the holder's pid when another process has the directory. */
NODISCARD int meta_store_open(const char *dir, const struct meta_options *options,
                              struct meta_store **ret_store, struct err *e);
void meta_store_close(struct meta_store *s); /* after all its connections; accepts NULL */
DEFINE_AUTO_PTR(struct meta_store, meta_store_close)
bool meta_store_is_exclusive(const struct meta_store *s); /* holds the writer lock */
const char *meta_store_dir(const struct meta_store *s);

/* ----- Connection ----- */

NODISCARD int meta_open(struct meta_store *s, struct meta **ret_meta, struct err *e);
void meta_close(struct meta *m); /* accepts NULL; no transaction or cursor may be open */
DEFINE_AUTO_PTR(struct meta, meta_close)
struct meta_store *meta_store_of(struct meta *m);

/* ----- Statements ----- */

enum meta_type { META_NULL, META_INT, META_REAL, META_TEXT, META_BLOB };
struct meta_arg {
    enum meta_type type;
    int64_t integer;
    double real;
    str bytes; /* borrowed for the call */
};
struct meta_args {
    const struct meta_arg *at;
    size_t n;
};
/* clang-format off */
#define M_INT(v)  ((struct meta_arg){.type = META_INT, .integer = (int64_t)(v)})
#define M_REAL(v) ((struct meta_arg){.type = META_REAL, .real = (v)})
#define M_STR(s)  meta_arg_str(s)
#define M_STR_OR_NULL(s) meta_arg_str_or_null(s)
#define M_BLOB(s) meta_arg_blob(s)
#define M_NULL    ((struct meta_arg){.type = META_NULL})
#define M_ARGS(...)                                                                    \
    ((struct meta_args){(const struct meta_arg[]){__VA_ARGS__},                        \
                        sizeof((const struct meta_arg[]){__VA_ARGS__}) / sizeof(struct meta_arg)})
#define M_NO_ARGS ((struct meta_args){NULL, 0})
/* clang-format on */
static inline struct meta_arg meta_arg_str(str s)
{
    return (struct meta_arg){.type = META_TEXT, .bytes = s};
}
static inline struct meta_arg meta_arg_str_or_null(str s) /* empty becomes NULL */
{
    return (struct meta_arg){.type = s.n ? META_TEXT : META_NULL, .bytes = s};
}
static inline struct meta_arg meta_arg_blob(str s)
{
    return (struct meta_arg){.type = META_BLOB, .bytes = s};
}

/* `sql` must be a string literal or live as long as the connection: it is the cache key. Outside a
 * transaction one statement is one durable transaction of its own. */
NODISCARD int meta_exec(struct meta *m, const char *sql, struct meta_args args, struct err *e);
int64_t meta_changes(const struct meta *m); /* rows changed by the last meta_exec */

NODISCARD int meta_query(struct meta *m, const char *sql, struct meta_args args,
                         struct meta_rows **ret_rows, struct err *e);
/* True on a row. False at the end, with *ret_rc = 0, or on an error, with its code. */
NODISCARD bool meta_next(struct meta_rows *rows, int *ret_rc, struct err *e);
void meta_rows_close(struct meta_rows *rows); /* accepts NULL */
DEFINE_AUTO_PTR(struct meta_rows, meta_rows_close)

/* The first row, positioned on it; *ret_rows = NULL when there is none. Closed by the caller. */
NODISCARD int meta_first(struct meta *m, const char *sql, struct meta_args args,
                         struct meta_rows **ret_rows, struct err *e);
/* One integer: column 0 of the first row; `def` when there is no row or it is NULL. */
NODISCARD int meta_first_int(struct meta *m, const char *sql, struct meta_args args, int64_t def,
                             int64_t *ret_value, struct err *e);

/* Columns of the present row, from 0. Text and blobs are borrowed until the next meta_next or
 * close. NULL reads as 0, 0.0 or STR_NULL. */
bool meta_is_null(const struct meta_rows *rows, int column);
int64_t meta_int(const struct meta_rows *rows, int column);
double meta_real(const struct meta_rows *rows, int column);
str meta_str(const struct meta_rows *rows, int column);
str meta_blob(const struct meta_rows *rows, int column);
str meta_str_dup(const struct meta_rows *rows, int column, struct arena *a);

/* ----- Transactions ----- */

struct meta_tx {
    struct meta *m; /* NULL when not open */
    uint32_t depth;
};
/* Takes the write lock at once (BEGIN IMMEDIATE). Inside an open transaction it joins it: only the
 * outermost commit writes, and an inner roll-back dooms the outer one. */
NODISCARD int meta_begin(struct meta *m, struct meta_tx *ret_tx, struct err *e);
NODISCARD int meta_commit(struct meta_tx *tx, struct err *e); /* durable when it returns 0 */
void meta_tx_done(struct meta_tx *tx);                        /* AUTO: rolls back if still open */
bool meta_in_tx(const struct meta *m);

/* ----- Watching commits ----- */

enum meta_topic { META_TOPIC_JOURNAL, META_TOPIC_FLOW, META_TOPIC_KV, META_TOPIC_COUNT };
/* Marks the topic as touched: its watchers run after the commit, or never if it rolls back. Outside
 * a transaction they run at once. */
void meta_touch(struct meta *m, enum meta_topic topic);
/* `fn` runs on the thread that committed, after the commit, without locks of the connection: it
 * must only wake something. A hint: commits of other processes are not seen. At most 16 watchers.
 */
typedef void (*meta_watch_fn)(void *arg, enum meta_topic topic);
NODISCARD int meta_watch(struct meta_store *s, enum meta_topic topic, meta_watch_fn fn, void *arg,
                         struct err *e);
void meta_unwatch(struct meta_store *s, meta_watch_fn fn, void *arg); /* waits out a running fn */

/* ----- Small durable state: kv(scope, key) -> JSON ----- */

#define META_KV_VALUE_MAX ((size_t)1 << 20) /* bytes */
/* *ret_value = NULL when there is none. */
NODISCARD int meta_kv_get(struct meta *m, str scope, str key, struct arena *a,
                          struct json **ret_value, struct err *e);
NODISCARD int meta_kv_put(struct meta *m, str scope, str key, const struct json *value,
                          struct err *e);
NODISCARD int meta_kv_delete(struct meta *m, str scope, str key, struct err *e);

/* ----- For tests ----- */

/* The schema number in the database, and the newest that this program knows. */
NODISCARD int meta_schema(struct meta *m, uint32_t *ret_number, struct err *e);
uint32_t meta_schema_newest(void);
