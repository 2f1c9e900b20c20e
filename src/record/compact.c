/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compaction and retention of the Parquet tree.
 *
 * A segment a minute makes 1,440 files a day for each endpoint, which readers pay for in opens. So
 * the small files of a day are merged, and a day that is over ends as few files.
 *
 * A reader must see either the small files or the merged one. No rename replaces many files by one,
 * so the whole folder of the day is made anew under <lake>/compact/: the merged file is written
 * there, the large files get a second name there, and then the two folders change places in one
 * system call. What is left in <lake>/compact/ after that, or after a crash at any instant, is
 * garbage; export_sweep() removes it at the next start.
 *
 * One exporter at a time (its lock) and no other writer below records/ and feedback/: so nothing
 * comes into a folder while it is made anew.
 */
#include "record/export_table.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"

#include <sys/stat.h>

#define COMPACT_DIR "compact"
#define NS_PER_DAY (86400 * NS_PER_S)

/* --- Sweeping ------------------------------------------------------------------------------ */

static NODISCARD int remove_tree(const char *dir, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    str *names;
    size_t n;

    arena_init(&a, 0);
    TRY(file_list(dir, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        char *path = path_join(&a, dir, names[i].p);
        struct stat st;

        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
            TRY(remove_tree(path, e));
        else
            TRY(file_remove(path, e));
    }
    return file_remove_dir(dir, e);
}

int export_sweep(const struct export_config *cfg, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    char *dir;

    arena_init(&a, 0);
    dir = path_join(&a, cfg->lake, COMPACT_DIR);
    return file_exists(dir) ? remove_tree(dir, e) : 0;
}

/* --- One day ------------------------------------------------------------------------------- */

struct day {
    struct arena *arena;
    const char *dir; /* …/dt=2026-01-31 */
    str *small, *large;
    size_t small_count, large_count;
};

static NODISCARD int look_at(struct day *d, uint64_t small_bytes, struct err *e)
{
    str *names;
    size_t n;

    TRY(file_list(d->dir, d->arena, &names, &n, e));
    d->small = ARENA_ARRAY(d->arena, str, n + 1);
    d->large = ARENA_ARRAY(d->arena, str, n + 1);
    for (size_t i = 0; i < n; i++) {
        AUTO(file_closep) int fd = -1;
        uint64_t bytes;

        if (!str_ends(names[i], S(".parquet")) || str_starts(names[i], S(".")))
            continue; /* leftovers of a kill: not carried over */
        TRY(file_open(path_join(d->arena, d->dir, names[i].p), FILE_READ, &fd, e));
        TRY(file_size(fd, &bytes, e));
        if (bytes <= small_bytes)
            d->small[d->small_count++] = names[i];
        else
            d->large[d->large_count++] = names[i];
    }
    return 0;
}

/* The merged file is named after the newest part in it: later parts have later names. Rows of one
 * time stay in their order: of two labels, the last one holds. */
static NODISCARD int write_merged(const struct day *d, struct lake *l, const char *to,
                                  struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};
    str newest = d->small[d->small_count - 1];
    char *path;

    buf_init(&sql, (size_t)1 << 20);
    buf_add_str(&sql, S("SELECT * EXCLUDE (__at) FROM (SELECT *, row_number() OVER () AS __at "
                        "FROM read_parquet(["));
    for (size_t i = 0; i < d->small_count; i++) {
        buf_add_str(&sql, i ? S(", ") : S(""));
        lake_quote_text(&sql, str_of(path_join(d->arena, d->dir, d->small[i].p)));
    }
    buf_add_str(&sql, S("], union_by_name=true, hive_partitioning=false)) "
                        "ORDER BY ts, __at"));
    if (sql.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "%zu small files in '%s' are too many for one merge",
                    d->small_count, d->dir);
    path = path_join(d->arena, to,
                     arena_printf(d->arena, "merged-%zu-" STR_F, d->small_count, STR_A(newest)).p);
    return lake_write_parquet(l, buf_z(&sql), path, e);
}

static NODISCARD int compact_day(const struct export_config *cfg, struct lake *l, const char *dir,
                                 bool is_over, struct export_result *to, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct day d = {.arena = &a, .dir = dir};
    size_t enough = is_over ? 2 : cfg->compact_files ? cfg->compact_files : 16;
    char *fresh;

    arena_init(&a, 0);
    TRY(look_at(&d, cfg->compact_bytes ? cfg->compact_bytes : UINT64_C(32) << 20, e));
    if (d.small_count < enough)
        return 0;
    fresh = path_join(&a, path_join(&a, cfg->lake, COMPACT_DIR), "day");
    TRY(file_make_dirs(fresh, e));
    TRY(write_merged(&d, l, fresh, e));
    for (size_t i = 0; i < d.large_count; i++)
        TRY(file_link(path_join(&a, dir, d.large[i].p), path_join(&a, fresh, d.large[i].p), e));
    TRY(file_sync_dir(fresh, e));
    TRY(file_exchange(fresh, dir, e));
    to->compactions++;
    to->compacted_files += d.small_count;
    return remove_tree(fresh, e);
}

/* --- The tree ------------------------------------------------------------------------------ */

/* The number of the day in "dt=YYYY-MM-DD", or -1. */
static int64_t day_of(str name)
{
    char iso[] = "1970-01-01T00:00:00Z";
    int64_t ns;

    if (name.n != 13 || !str_starts(name, S("dt=")))
        return -1;
    memcpy(iso, name.p + 3, 10);
    return time_parse_iso(str_of(iso), &ns) ? ns / NS_PER_DAY : -1;
}

typedef NODISCARD int (*day_fn)(const struct export_config *cfg, struct lake *l, const char *dir,
                                int64_t age_days, struct export_result *to, struct err *e);

static NODISCARD int each_day(const struct export_config *cfg, struct lake *l, const char *parent,
                              int64_t today, day_fn fn, struct export_result *to, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    str *names;
    size_t n;

    arena_init(&a, 0);
    if (!file_exists(parent))
        return 0;
    TRY(file_list(parent, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        int64_t day = day_of(names[i]);

        if (day >= 0)
            TRY(fn(cfg, l, path_join(&a, parent, names[i].p), today - day, to, e));
    }
    return 0;
}

static NODISCARD int walk(const struct export_config *cfg, struct lake *l, int64_t now_wall_ns,
                          day_fn fn, struct export_result *to, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    int64_t today = now_wall_ns / NS_PER_DAY;
    char *records;
    str *names;
    size_t n;

    arena_init(&a, 0);
    TRY(each_day(cfg, l, path_join(&a, cfg->lake, "feedback"), today, fn, to, e));
    records = path_join(&a, cfg->lake, "records");
    if (!file_exists(records))
        return 0;
    TRY(file_list(records, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++)
        if (str_starts(names[i], S("endpoint=")))
            TRY(each_day(cfg, l, path_join(&a, records, names[i].p), today, fn, to, e));
    return 0;
}

static NODISCARD int compact_if_due(const struct export_config *cfg, struct lake *l,
                                    const char *dir, int64_t age_days, struct export_result *to,
                                    struct err *e)
{
    return compact_day(cfg, l, dir, age_days > 0, to, e);
}

int export_compact(const struct export_config *cfg, struct lake *l, int64_t now_wall_ns,
                   struct export_result *to, struct err *e)
{
    return walk(cfg, l, now_wall_ns, compact_if_due, to, e);
}

/* --- Retention ----------------------------------------------------------------------------- */

static NODISCARD int remove_if_old(const struct export_config *cfg, struct lake *l UNUSED,
                                   const char *dir, int64_t age_days, struct export_result *to,
                                   struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    char *away;

    arena_init(&a, 0);
    /* A day is removed when its last instant is old enough. */
    if ((age_days - 1) * NS_PER_DAY < cfg->keep_parquet_ns)
        return 0;
    away = path_join(&a, cfg->lake, COMPACT_DIR);
    TRY(file_make_dirs(away, e));
    away = path_join(&a, away, "old"); /* out of the tree in one step, then file by file */
    TRY(file_rename(dir, away, e));
    to->removed_days++;
    return remove_tree(away, e);
}

static NODISCARD int retain_segments(const struct export_config *cfg, int64_t now_wall_ns,
                                     struct export_result *to, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    char *dir;
    str *names;
    size_t n;

    arena_init(&a, 0);
    dir = path_join(&a, cfg->segments, "exported");
    if (!file_exists(dir))
        return 0;
    TRY(file_list(dir, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        str digits = str_take(names[i], 20); /* the name begins with the wall clock */
        uint64_t made;

        while (digits.n > 1 && digits.p[0] == '0')
            digits = str_skip(digits, 1);
        if (!str_ends(names[i], S(SEGMENT_EXT)) || !str_to_u64(digits, &made) ||
            now_wall_ns - (int64_t)made < cfg->keep_segments_ns)
            continue;
        TRY(file_remove(path_join(&a, dir, names[i].p), e));
        to->removed_segments++;
    }
    return 0;
}

int export_retain(const struct export_config *cfg, int64_t now_wall_ns, struct export_result *to,
                  struct err *e)
{
    if (cfg->keep_parquet_ns > 0)
        TRY(walk(cfg, NULL, now_wall_ns, remove_if_old, to, e));
    return retain_segments(cfg, now_wall_ns, to, e);
}
