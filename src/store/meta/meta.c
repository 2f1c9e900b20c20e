/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the meta store that is the same for every engine.
 *
 * Statements are prepared once per connection and kept: `struct meta_rows` is a kept statement with
 * a cursor on it, so a query allocates nothing. A statement that is in use when the same SQL is
 * asked for again gets a twin.
 *
 * Invariants
 *  1. A transaction is one for the connection: inner begins only count. Any failure inside dooms
 *     it, and a doomed transaction cannot commit, whatever the engine thinks.
 *  2. Watchers run after the outermost commit, on the committing thread, never after a roll-back.
 *  3. No cursor is open when an outermost transaction begins, nor when a lone statement writes: on
 *     SQLite it would pin an old snapshot, and the write would fail now and then.
 *
 * Writers of one process take turns by a flag of the store, from the start to the end of a
 * transaction or of a lone statement. The engine would serialise them too, but by polling; this
 * hands over at once.
 *
 * Locks: write_mutex guards that flag, for an instant; watch_lock guards the list of watchers and
 * is held while they run. Never together.
 */
#include "store/meta/engine.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/time.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>

#define STATEMENTS_MAX 128 /* kept per connection */
#define WATCHERS_MAX 16
#define BUSY_MS_DEFAULT 10000u

struct watcher {
    enum meta_topic topic;
    meta_watch_fn fn;
    void *arg; /* borrowed: from who watches */
};

struct meta_store {
    const struct meta_engine *engine;
    struct meta_options options;
    char *dir;                   /* owned */
    int lock_fd;                 /* -1 when shared or read-only */
    pthread_mutex_t write_mutex; /* guards `writing` */
    pthread_cond_t written;
    bool writing; /* a transaction or a lone statement is under way */
    pthread_mutex_t watch_lock;
    struct watcher watchers[WATCHERS_MAX];
    size_t watcher_count;
};

struct meta_rows {
    struct meta *m;
    void *stmt; /* owned, the engine's */
    char *sql;  /* owned */
    uint64_t hash;
    uint64_t used_at;
    bool in_use;
    bool kept;    /* listed in the connection */
    bool has_row; /* the getters may be called */
};

struct meta {
    struct meta_store *store;
    const struct meta_engine *engine;
    void *conn; /* owned, the engine's */
    struct meta_rows *kept[STATEMENTS_MAX];
    size_t kept_count;
    size_t open_count; /* cursors */
    uint64_t turn;
    uint32_t depth; /* of transactions */
    bool doomed;
    char doomed_by[160];
    bool touched[META_TOPIC_COUNT];
    int64_t changes;
};

/* ----- Store ----- */

static int store_lock(struct meta_store *s, struct err *e)
{
    char path[PATH_MAX];

    if (s->options.read_only || s->options.shared)
        return 0;
    if (snprintf(path, sizeof(path), "%s/control.lock", s->dir) >= (int)sizeof(path))
        return FAIL(e, INVALID_ARGUMENT, "state directory name is too long: %.80s...", s->dir);
    return file_lock(path, &s->lock_fd, e);
}

static int store_migrate(struct meta_store *s, struct err *e)
{
    AUTO(meta_closep) struct meta *m = NULL;

    TRY(meta_open(s, &m, e));
    return meta_migrate(m, &s->options, e);
}

int meta_store_open(const char *dir, const struct meta_options *options,
                    struct meta_store **ret_store, struct err *e)
{
    AUTO(meta_store_closep) struct meta_store *s = mem_zalloc(sizeof(*s));
    pthread_condattr_t monotonic;

    s->engine = &meta_engine_sqlite;
    s->options = options ? *options : (struct meta_options){0};
    s->options.busy_ms = s->options.busy_ms ? s->options.busy_ms : BUSY_MS_DEFAULT;
    s->dir = mem_dupz(dir, strlen(dir));
    s->lock_fd = -1;
    pthread_mutex_init(&s->write_mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->written, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&s->watch_lock, NULL);
    if (!s->options.read_only)
        TRY(file_make_dirs(dir, e));
    TRY(store_lock(s, e));
    TRY(store_migrate(s, e));
    *ret_store = TAKE(s);
    return 0;
}

void meta_store_close(struct meta_store *s)
{
    if (!s)
        return;
    file_close(s->lock_fd);
    pthread_cond_destroy(&s->written);
    pthread_mutex_destroy(&s->write_mutex);
    pthread_mutex_destroy(&s->watch_lock);
    mem_free(s->dir);
    mem_free(s);
}

bool meta_store_is_exclusive(const struct meta_store *s)
{
    return s->lock_fd >= 0;
}

const char *meta_store_dir(const struct meta_store *s)
{
    return s->dir;
}

/* ----- Writers of this process, one at a time ----- */

/* A flag with a condition: a mutex cannot be waited for by the monotonic clock everywhere. */
static int write_lock(struct meta *m, struct err *e)
{
    struct meta_store *s = m->store;
    int64_t until = time_mono_ns() + s->options.busy_ms * NS_PER_MS;
    struct timespec at = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};
    bool got;
    int rc = 0;

    pthread_mutex_lock(&s->write_mutex);
    while (s->writing && rc == 0)
        rc = pthread_cond_timedwait(&s->written, &s->write_mutex, &at);
    got = !s->writing;
    s->writing = true;
    pthread_mutex_unlock(&s->write_mutex);
    if (got)
        return 0;
    return FAIL(e, UNAVAILABLE, "%s/meta.db: another thread keeps the database locked for %u ms",
                s->dir, s->options.busy_ms);
}

static void write_unlock(struct meta *m)
{
    struct meta_store *s = m->store;

    pthread_mutex_lock(&s->write_mutex);
    ASSERT(s->writing);
    s->writing = false;
    pthread_cond_signal(&s->written);
    pthread_mutex_unlock(&s->write_mutex);
}

/* ----- Watching ----- */

int meta_watch(struct meta_store *s, enum meta_topic topic, meta_watch_fn fn, void *arg,
               struct err *e)
{
    bool full;

    ASSERT(topic < META_TOPIC_COUNT);
    ASSERT(fn);
    pthread_mutex_lock(&s->watch_lock);
    full = s->watcher_count == WATCHERS_MAX;
    if (!full)
        s->watchers[s->watcher_count++] = (struct watcher){topic, fn, arg};
    pthread_mutex_unlock(&s->watch_lock);
    if (full)
        return FAIL(e, RESOURCE_EXHAUSTED, "more than %d watchers of the meta store", WATCHERS_MAX);
    return 0;
}

void meta_unwatch(struct meta_store *s, meta_watch_fn fn, void *arg)
{
    size_t kept = 0;

    pthread_mutex_lock(&s->watch_lock);
    for (size_t i = 0; i < s->watcher_count; i++)
        if (s->watchers[i].fn != fn || s->watchers[i].arg != arg)
            s->watchers[kept++] = s->watchers[i];
    s->watcher_count = kept;
    pthread_mutex_unlock(&s->watch_lock);
}

static void notify(struct meta *m)
{
    struct meta_store *s = m->store;

    pthread_mutex_lock(&s->watch_lock);
    for (size_t i = 0; i < s->watcher_count; i++)
        if (m->touched[s->watchers[i].topic])
            s->watchers[i].fn(s->watchers[i].arg, s->watchers[i].topic);
    pthread_mutex_unlock(&s->watch_lock);
    memset(m->touched, 0, sizeof(m->touched));
}

void meta_touch(struct meta *m, enum meta_topic topic)
{
    ASSERT(topic < META_TOPIC_COUNT);
    m->touched[topic] = true;
    if (m->depth == 0)
        notify(m);
}

/* ----- Connection ----- */

static void statement_free(struct meta_rows *r)
{
    if (!r)
        return;
    if (r->stmt)
        r->m->engine->finalize(r->stmt);
    mem_free(r->sql);
    mem_free(r);
}

DEFINE_AUTO_PTR(struct meta_rows, statement_free)

int meta_open(struct meta_store *s, struct meta **ret_meta, struct err *e)
{
    AUTO(meta_closep) struct meta *m = mem_zalloc(sizeof(*m));

    m->store = s;
    m->engine = s->engine;
    TRY(m->engine->open(s->dir, &s->options, &m->conn, e));
    *ret_meta = TAKE(m);
    return 0;
}

void meta_close(struct meta *m)
{
    if (!m)
        return;
    ASSERT(m->open_count == 0);
    ASSERT(m->depth == 0); /* the transaction that is open belongs to someone */
    for (size_t i = 0; i < m->kept_count; i++)
        statement_free(m->kept[i]);
    m->engine->close(m->conn);
    mem_free(m);
}

struct meta_store *meta_store_of(struct meta *m)
{
    return m->store;
}

/* ----- Statements ----- */

static int doom(struct meta *m, int rc, const struct err *e)
{
    if (m->depth && !m->doomed) {
        m->doomed = true;
        snprintf(m->doomed_by, sizeof(m->doomed_by), "%.*s", (int)sizeof(m->doomed_by) - 1,
                 e ? e->msg : code_name((enum code)rc));
    }
    return rc;
}

static struct meta_rows *kept_find(struct meta *m, const char *sql, uint64_t hash)
{
    for (size_t i = 0; i < m->kept_count; i++) {
        struct meta_rows *r = m->kept[i];

        if (r->hash == hash && !r->in_use && strcmp(r->sql, sql) == 0)
            return r;
    }
    return NULL;
}

/* Keeps the statement, in place of the idle one that was not used for longest. If all are in use it
 * is freed when it is closed. */
static void keep(struct meta *m, struct meta_rows *r)
{
    size_t at = m->kept_count;

    if (m->kept_count < STATEMENTS_MAX) {
        m->kept_count++;
    } else {
        at = STATEMENTS_MAX;
        for (size_t i = 0; i < STATEMENTS_MAX; i++)
            if (!m->kept[i]->in_use &&
                (at == STATEMENTS_MAX || m->kept[i]->used_at < m->kept[at]->used_at))
                at = i;
        if (at == STATEMENTS_MAX)
            return;
        statement_free(m->kept[at]);
    }
    m->kept[at] = r;
    r->kept = true;
}

static int statement_get(struct meta *m, const char *sql, struct meta_rows **ret, struct err *e)
{
    uint64_t hash = hash64(sql, strlen(sql), 0);
    struct meta_rows *r = kept_find(m, sql, hash);

    if (!r) {
        AUTO(statement_freep) struct meta_rows *fresh = mem_zalloc(sizeof(*fresh));

        fresh->m = m;
        fresh->hash = hash;
        fresh->sql = mem_dupz(sql, strlen(sql));
        TRY(m->engine->prepare(m->conn, sql, &fresh->stmt, e));
        r = TAKE(fresh);
        keep(m, r);
    }
    r->in_use = true;
    r->has_row = false;
    r->used_at = ++m->turn;
    m->open_count++;
    *ret = r;
    return 0;
}

void meta_rows_close(struct meta_rows *r)
{
    if (!r)
        return;
    ASSERT(r->in_use);
    ASSERT(r->m->open_count > 0);
    r->m->engine->reset(r->stmt);
    r->in_use = r->has_row = false;
    r->m->open_count--;
    if (!r->kept)
        statement_free(r);
}

int meta_query(struct meta *m, const char *sql, struct meta_args args, struct meta_rows **ret_rows,
               struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *r = NULL;
    int rc = statement_get(m, sql, &r, e);

    if (!rc)
        rc = m->engine->bind(r->stmt, args, e);
    if (rc)
        return doom(m, rc, e);
    *ret_rows = TAKE(r);
    return 0;
}

bool meta_next(struct meta_rows *r, int *ret_rc, struct err *e)
{
    bool row = false;

    ASSERT(r->in_use);
    *ret_rc = 0;
    *ret_rc = r->m->engine->step(r->stmt, &row, e);
    if (*ret_rc)
        doom(r->m, *ret_rc, e);
    r->has_row = row;
    return row;
}

int meta_first(struct meta *m, const char *sql, struct meta_args args, struct meta_rows **ret_rows,
               struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *r = NULL;
    int rc;

    TRY(meta_query(m, sql, args, &r, e));
    if (!meta_next(r, &rc, e)) {
        *ret_rows = rc ? *ret_rows : NULL;
        return rc;
    }
    *ret_rows = TAKE(r);
    return 0;
}

int meta_first_int(struct meta *m, const char *sql, struct meta_args args, int64_t def,
                   int64_t *ret_value, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *r = NULL;

    TRY(meta_first(m, sql, args, &r, e));
    *ret_value = r && !meta_is_null(r, 0) ? meta_int(r, 0) : def;
    return 0;
}

static int run_to_end(struct meta *m, const char *sql, struct meta_args args, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *r = NULL;
    int rc;

    TRY(meta_query(m, sql, args, &r, e));
    while (meta_next(r, &rc, e))
        continue;
    if (!rc)
        m->changes = m->engine->changes(m->conn);
    return rc;
}

int meta_exec(struct meta *m, const char *sql, struct meta_args args, struct err *e)
{
    int rc;

    if (m->depth)
        return run_to_end(m, sql, args, e);
    ASSERT(m->open_count == 0);
    TRY(write_lock(m, e));
    rc = run_to_end(m, sql, args, e);
    write_unlock(m);
    return rc;
}

int64_t meta_changes(const struct meta *m)
{
    return m->changes;
}

int meta_script(struct meta *m, const char *sql, struct err *e)
{
    int rc = m->engine->script(m->conn, sql, e);

    ASSERT(m->depth);
    return rc ? doom(m, rc, e) : 0;
}

/* ----- Columns ----- */

bool meta_is_null(const struct meta_rows *r, int column)
{
    ASSERT(r->has_row);
    return r->m->engine->type(r->stmt, column) == META_NULL;
}

int64_t meta_int(const struct meta_rows *r, int column)
{
    ASSERT(r->has_row);
    return r->m->engine->integer(r->stmt, column);
}

double meta_real(const struct meta_rows *r, int column)
{
    ASSERT(r->has_row);
    return r->m->engine->real(r->stmt, column);
}

str meta_str(const struct meta_rows *r, int column)
{
    ASSERT(r->has_row);
    return r->m->engine->bytes(r->stmt, column);
}

str meta_blob(const struct meta_rows *r, int column)
{
    return meta_str(r, column);
}

str meta_str_dup(const struct meta_rows *r, int column, struct arena *a)
{
    return arena_dup(a, meta_str(r, column));
}

/* ----- Transactions ----- */

int meta_begin(struct meta *m, struct meta_tx *ret_tx, struct err *e)
{
    ASSERT(!ret_tx->m);
    if (m->depth == 0) {
        int rc;

        ASSERT(m->open_count == 0);
        TRY(write_lock(m, e));
        rc = m->engine->begin(m->conn, e);
        if (rc) {
            write_unlock(m);
            return rc;
        }
        m->doomed = false;
        memset(m->touched, 0, sizeof(m->touched));
    }
    m->depth++;
    *ret_tx = (struct meta_tx){m, m->depth};
    return 0;
}

static void tx_end(struct meta_tx *tx)
{
    ASSERT(tx->m->depth == tx->depth); /* inner ones end first */
    tx->m->depth--;
    tx->m = NULL;
}

int meta_commit(struct meta_tx *tx, struct err *e)
{
    struct meta *m = tx->m;
    int rc;

    ASSERT(m);
    if (tx->depth > 1) {
        tx_end(tx);
        return 0;
    }
    rc = m->doomed ? FAIL(e, FAILED_PRECONDITION,
                          "meta.db: cannot commit, an earlier statement failed: %s", m->doomed_by)
                   : m->engine->commit(m->conn, e);
    if (rc)
        m->engine->rollback(m->conn);
    write_unlock(m);
    tx_end(tx);
    if (rc)
        memset(m->touched, 0, sizeof(m->touched));
    else
        notify(m);
    return rc;
}

void meta_tx_done(struct meta_tx *tx)
{
    struct meta *m = tx->m;

    if (!m)
        return;
    if (tx->depth > 1) {
        doom(m, CODE_ABORTED, &(struct err){.msg = "an inner transaction was rolled back"});
    } else {
        m->engine->rollback(m->conn);
        write_unlock(m);
        memset(m->touched, 0, sizeof(m->touched));
    }
    tx_end(tx);
}

bool meta_in_tx(const struct meta *m)
{
    return m->depth > 0;
}
