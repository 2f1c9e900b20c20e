/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exporter.
 *
 * The order of steps is what makes it safe against a kill at any instant:
 *   1. the files of a segment are written, each under a hidden name, synced and renamed;
 *   2. only then the segment moves to exported/ (or is removed).
 * A kill before 2 means that the next run writes the same files again, under the same names with
 * the same rows. Compaction merges only files whose segment has passed 2, so that a file which may
 * be written again is never also part of a merged one.
 *
 * A segment whose header is damaged goes to damaged/ and is counted; one with a torn tail is
 * exported up to there.
 */
#include "record/export_table.h"

#include "base/files.h"
#include "base/time.h"

#define SEGMENT_READ_MAX (SEGMENT_FILE_MAX + SEGMENT_BLOCK_MAX)

/* --- One segment --------------------------------------------------------------------------- */

struct segment_export {
    struct lake *lake;
    struct arena arena;
    struct export_table **tables; /* by schema id; the last one is feedback */
    uint32_t count;
    struct export_result *result;
    str stem; /* of the segment's file name */
    const char *lake_dir;
};

static void segment_export_done(struct segment_export *x)
{
    for (uint32_t i = 0; x->tables && i <= RECORD_SCHEMAS_MAX; i++)
        if (x->tables[i])
            export_table_done(x->tables[i]);
    arena_done(&x->arena);
}

static NODISCARD int table_of(struct segment_export *x, const struct record_schema *s,
                              struct export_table **ret, struct err *e)
{
    uint32_t slot = s ? s->id : RECORD_SCHEMAS_MAX;

    if (!x->tables[slot]) {
        struct export_table *t = ARENA_NEW(&x->arena, struct export_table);

        TRY(export_table_open(t, x->lake, s, &x->arena, e));
        x->tables[slot] = t;
        x->count++;
    }
    *ret = x->tables[slot];
    return 0;
}

/* "2026-01-31" */
static str day_text(struct arena *a, int64_t wall_ns)
{
    char iso[TIME_ISO_SIZE];

    time_iso(MAX(wall_ns, 0), iso);
    return arena_dup(a, (str){iso, 10});
}

static NODISCARD int write_day(struct segment_export *x, const struct export_table *t, int64_t day,
                               struct err *e)
{
    struct arena *a = &x->arena;
    str dt = day_text(a, day);
    str dir, file, query;

    if (t->schema) {
        dir = arena_printf(a, "%s/records/endpoint=" STR_F "/dt=" STR_F, x->lake_dir,
                           STR_A(t->schema->endpoint), STR_A(dt));
        file = arena_printf(a, STR_F "/part-" STR_F "-%u.parquet", STR_A(dir), STR_A(x->stem),
                            t->schema->id);
    } else {
        dir = arena_printf(a, "%s/feedback/dt=" STR_F, x->lake_dir, STR_A(dt));
        file = arena_printf(a, STR_F "/part-" STR_F ".parquet", STR_A(dir), STR_A(x->stem));
    }
    query = arena_printf(a,
                         "SELECT * FROM " STR_F " WHERE ts >= TIMESTAMP '" STR_F
                         "' AND ts < TIMESTAMP '" STR_F "' + INTERVAL 1 DAY",
                         STR_A(t->name), STR_A(dt), STR_A(dt));
    TRY(file_make_dirs(dir.p, e));
    TRY(lake_write_parquet(x->lake, query.p, file.p, e));
    x->result->files++;
    return 0;
}

static NODISCARD int write_table(struct segment_export *x, struct export_table *t, struct err *e)
{
    AUTO(lake_result_freep) struct lake_result *days = NULL;
    str sql = arena_printf(&x->arena, "SELECT DISTINCT ts::DATE AS d FROM " STR_F " ORDER BY d",
                           STR_A(t->name));

    TRY(export_table_finish(t, e));
    TRY(lake_query(x->lake, sql.p, NULL, 0, &days, e));
    while (lake_next(days))
        TRY(write_day(x, t, lake_time_ns(days, 0), e));
    return lake_execf(x->lake, e, "DROP TABLE " STR_F, STR_A(t->name));
}

static NODISCARD int fill_tables(struct segment_export *x, struct segment_reader *r, struct err *e)
{
    const struct record_schema *s;
    const struct record_head *h;

    while (segment_next(r, &h, &s)) {
        struct export_table *t;

        TRY(table_of(x, s, &t, e));
        TRY(export_table_add(t, h, r->gateway, e));
        x->result->records++;
        x->result->feedback += s == NULL;
    }
    x->result->dropped_bytes += r->dropped_bytes;
    return 0;
}

static str stem_of(str name)
{
    return str_take(name, name.n - strlen(SEGMENT_EXT));
}

int export_segment(const char *lake_dir, const char *segment_path, struct lake *l,
                   struct export_result *to, struct err *e)
{
    AUTO(segment_export_done)
    struct segment_export x = {.lake = l, .result = to, .lake_dir = lake_dir};
    str name = str_of(strrchr(segment_path, '/') ? strrchr(segment_path, '/') + 1 : segment_path);
    struct segment_reader r;
    str bytes;

    arena_init(&x.arena, 0);
    if (!str_ends(name, S(SEGMENT_EXT)))
        return FAIL(e, INVALID_ARGUMENT, "'%s' is no sealed segment (*" SEGMENT_EXT ")",
                    segment_path);
    x.stem = stem_of(name);
    x.tables = ARENA_ARRAY(&x.arena, struct export_table *, RECORD_SCHEMAS_MAX + 1);
    TRY(file_read_all(segment_path, SEGMENT_READ_MAX, &x.arena, &bytes, e));
    TRY(segment_reader_init(&r, bytes, &x.arena, e));
    TRY(fill_tables(&x, &r, e));
    for (uint32_t i = 0; i <= RECORD_SCHEMAS_MAX && x.count; i++)
        if (x.tables[i]) {
            to->rows += x.tables[i]->schema ? x.tables[i]->rows : 0;
            TRY(write_table(&x, x.tables[i], e));
        }
    to->segments++;
    return 0;
}

/* --- All segments -------------------------------------------------------------------------- */

static NODISCARD int move_to(const struct export_config *cfg, const char *folder, str name,
                             struct arena *a, struct err *e)
{
    char *dir = path_join(a, cfg->segments, folder);

    TRY(file_make_dirs(dir, e));
    TRY(file_rename(path_join(a, cfg->segments, name.p), path_join(a, dir, name.p), e));
    TRY(file_sync_dir(dir, e));
    return file_sync_dir(cfg->segments, e);
}

static NODISCARD int export_one(const struct export_config *cfg, struct lake *l, str name,
                                struct export_result *to, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct err why;
    int rc;

    arena_init(&a, 0);
    rc = export_segment(cfg->lake, path_join(&a, cfg->segments, name.p), l, to, &why);
    if (rc == CODE_DATA_LOSS) {
        to->damaged_segments++;
        return move_to(cfg, "damaged", name, &a, e);
    }
    if (rc) {
        if (e)
            *e = why;
        return rc;
    }
    return move_to(cfg, "exported", name, &a, e);
}

static NODISCARD int list_segments(const char *dir, struct arena *a, str **ret_names, size_t *ret_n,
                                   struct err *e)
{
    str *names;
    size_t n, kept = 0;

    TRY(file_list(dir, a, &names, &n, e));
    for (size_t i = 0; i < n; i++)
        if (str_ends(names[i], S(SEGMENT_EXT)))
            names[kept++] = names[i];
    *ret_names = names;
    *ret_n = kept;
    return 0;
}

int export_run(const struct export_config *cfg, struct lake *l, int64_t now_wall_ns,
               struct export_result *ret, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(file_closep) int lock = -1;
    struct export_result to = {0};
    str *names;
    size_t n;

    arena_init(&a, 0);
    TRY(file_make_dirs(cfg->lake, e));
    TRY(file_lock(path_join(&a, cfg->lake, "export.lock"), &lock, e));
    TRY(export_sweep(cfg, e));
    TRY(list_segments(cfg->segments, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++)
        TRY(export_one(cfg, l, names[i], &to, e));
    /* What the keeper sealed meanwhile is not exported yet, and has no files either. */
    TRY(export_compact(cfg, l, now_wall_ns, &to, e));
    TRY(export_retain(cfg, now_wall_ns, &to, e));
    *ret = to;
    return 0;
}

/* --- Training data ------------------------------------------------------------------------- */

static void add_time(struct buf *out, const char *what, int64_t wall_ns)
{
    char iso[TIME_ISO_SIZE];

    time_iso(wall_ns, iso);
    iso[10] = ' ';
    iso[23] = 0; /* without the Z: a TIMESTAMP of UTC */
    buf_printf(out, " AND r.ts %s TIMESTAMP '%s'", what, iso);
}

int record_training_query(const char *lake_dir, str endpoint, int64_t from_wall_ns,
                          int64_t to_wall_ns, struct buf *out, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    str records, feedback;

    arena_init(&a, 0);
    if (!str_is_name(endpoint))
        return FAIL(e, INVALID_ARGUMENT, "endpoint '" STR_F "' is not a plain name",
                    STR_A(endpoint));
    records =
        arena_printf(&a, "%s/records/endpoint=" STR_F "/dt=*/*.parquet", lake_dir, STR_A(endpoint));
    feedback = arena_printf(&a, "%s/feedback/dt=*/*.parquet", lake_dir);
    buf_add_str(out, S("SELECT r.*, f.label_text, f.label_number, f.ts AS label_ts "
                       "FROM read_parquet("));
    lake_quote_text(out, records);
    buf_add_str(out, S(", union_by_name=true, hive_partitioning=true) r JOIN ("
                       "SELECT request_id, \"row\", label_text, label_number, ts FROM "
                       "(SELECT *, row_number() OVER () AS __at FROM read_parquet("));
    lake_quote_text(out, feedback);
    /* Feedback of one request has one time: there the last in its order is the later one. */
    buf_add_str(out, S(", union_by_name=true)) "
                       "WHERE label_text IS NOT NULL OR label_number IS NOT NULL "
                       "QUALIFY row_number() OVER (PARTITION BY request_id, \"row\" "
                       "ORDER BY ts DESC, event_ts DESC, __at DESC) = 1) f "
                       "ON f.request_id = r.request_id AND f.\"row\" = r.\"row\" "
                       "WHERE NOT r.shadow AND r.status BETWEEN 200 AND 299 "
                       "AND (r.flags IS NULL OR NOT contains(r.flags, 'fallback'))"));
    if (from_wall_ns > 0)
        add_time(out, ">=", from_wall_ns);
    if (to_wall_ns > 0)
        add_time(out, "<", to_wall_ns);
    if (out->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "no room for the training query of '" STR_F "'",
                    STR_A(endpoint));
    return 0;
}
