/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Schema upgrades. The table schema_migrations holds what was applied, with the hash of its SQL.
 * Steps are applied in order, each in a transaction of its own with its row, so that an upgrade
 * which is killed goes on where it stopped. A database that is newer than the program, or whose
 * steps differ from the program's, is refused before anything is touched.
 */
#include "store/meta/engine.h"

#include "base/hash.h"
#include "base/time.h"

#define MIGRATION(number, name, sql) {number, name, sql},
static const struct migration migrations[] = {
#include "store/meta/migrations.def"
};
#undef MIGRATION

uint32_t meta_schema_newest(void)
{
    return (uint32_t)ARRAY_LEN(migrations);
}

int meta_schema(struct meta *m, uint32_t *ret_number, struct err *e)
{
    int64_t number;

    TRY(meta_first_int(m, "SELECT MAX(number) FROM schema_migrations", M_NO_ARGS, 0, &number, e));
    *ret_number = (uint32_t)number;
    return 0;
}

static int check_applied(struct meta *m, uint32_t *ret_number, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    const char *dir = meta_store_dir(meta_store_of(m));
    uint32_t n = 0;
    char hex[SHA256_HEX_SIZE];
    int rc;

    TRY(meta_schema(m, &n, e));
    if (n > meta_schema_newest())
        return FAIL(e, FAILED_PRECONDITION,
                    "%s/meta.db has schema %u, this program (%s) knows up to %u: run the newer "
                    "program, or restore a backup from before the upgrade",
                    dir, n, WEIR_VERSION, meta_schema_newest());
    n = 0;
    TRY(meta_query(m, "SELECT number, hash FROM schema_migrations ORDER BY number", M_NO_ARGS,
                   &rows, e));
    while (meta_next(rows, &rc, e)) {
        const struct migration *step = &migrations[n];

        sha256_hex(str_of(step->sql), hex);
        if (meta_int(rows, 0) != (int64_t)step->number || !str_eqz(meta_str(rows, 1), hex))
            return FAIL(e, FAILED_PRECONDITION,
                        "%s/meta.db: schema step %u is not the program's '%s': it was made by "
                        "another build of Weir",
                        dir, step->number, step->name);
        n++;
    }
    *ret_number = n;
    return rc;
}

static int apply(struct meta *m, const struct migration *step, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    char hex[SHA256_HEX_SIZE];

    sha256_hex(str_of(step->sql), hex);
    TRY(meta_begin(m, &tx, e));
    TRY(meta_exec(m,
                  "INSERT INTO schema_migrations (number, name, hash, applied_ns)"
                  " VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                  M_ARGS(M_INT(step->number), M_STR(str_of(step->name)), M_STR(str_of(hex)),
                         M_INT(time_wall_ns())),
                  e));
    if (meta_changes(m) == 1) /* else another process was faster */
        TRY(meta_script(m, step->sql, e));
    return meta_commit(&tx, e);
}

int meta_migrate(struct meta *m, const struct meta_options *options, struct err *e)
{
    uint32_t want = options->schema_max ? options->schema_max : meta_schema_newest();
    uint32_t have = 0;

    ASSERT(want <= meta_schema_newest());
    for (uint32_t i = 0; i < meta_schema_newest(); i++)
        ASSERT(migrations[i].number == i + 1);
    if (!options->read_only)
        TRY(meta_exec(m,
                      "CREATE TABLE IF NOT EXISTS schema_migrations (number INTEGER PRIMARY KEY,"
                      " name TEXT NOT NULL, hash TEXT NOT NULL, applied_ns INTEGER NOT NULL)",
                      M_NO_ARGS, e));
    TRY(check_applied(m, &have, e));
    if (options->read_only && have < want)
        return FAIL(e, FAILED_PRECONDITION,
                    "%s/meta.db has schema %u and is open for reading only: start the control "
                    "process once, it upgrades to %u",
                    meta_store_dir(meta_store_of(m)), have, want);
    for (uint32_t i = have; i < want; i++)
        if (apply(m, &migrations[i], e))
            return err_context(e, "schema step %u (%s)", migrations[i].number, migrations[i].name);
    return 0;
}
