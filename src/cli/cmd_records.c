/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `weir records`: what happened to each request, by SQL over Parquet. Runs here, in this process:
 * DuckDB never comes near the servers.
 *
 * Records that are not exported yet lie in segments; those that the gateway has closed are read
 * into a temporary lake beside the real one, so that the newest traffic is there too. With a
 * running control the gateways are asked to close theirs first.
 */
#include "base/files.h"
#include "base/time.h"
#include "cli/cli.h"
#include "cli/paint.h"
#include "cli/session.h"
#include "record/export.h"

#include <math.h>
#include <unistd.h>

#define SEAL_WAIT_NS (400 * NS_PER_MS)
#define COLUMNS_MAX 64

struct records_options {
    const char *sql;
    int64_t limit;
    bool no_seal;
};

static const struct cli_option options[] = {
    {"limit", 'n', CLI_INT, "N", "the newest N rows (default 20)",
     offsetof(struct records_options, limit)},
    {"sql", 0, CLI_TEXT, "SQL", "a query; the table is called records",
     offsetof(struct records_options, sql)},
    {"no-seal", 0, CLI_FLAG, NULL, "do not ask gateways for what is still in their hands",
     offsetof(struct records_options, no_seal)},
};
static const struct cli_spec spec = {
    .name = "records",
    .usage = "[ENDPOINT]",
    .summary = "what happened to each request: newest rows, or any SQL",
    .examples = "  weir records fraud --limit 5\n"
                "  weir records fraud --sql 'SELECT model_version, count(*), avg(latency_us) FROM "
                "records GROUP BY 1'\n"
                "  weir records --sql 'SELECT endpoint, count(*) FROM records GROUP BY 1'\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_max = 1,
    .notes = "Without ENDPOINT: of all endpoints, with the name in the column endpoint and the "
             "columns of\n"
             "all of them; what an endpoint does not have is null.\n",
};

struct reader {
    struct cli *c;
    struct lake *lake;     /* owned */
    const char *lake_dir;  /* <state>/lake */
    const char *fresh_dir; /* <state>/work/records-<pid>: removed at the end */
    const char *segments;  /* <state>/records */
};

/* --- Segments that are not in the lake yet ---------------------------------------------------- */

static void ask_to_seal(struct cli *c)
{
    struct json *answer;
    struct err e;

    if (!cli_call(c, "/api/v1/seal", json_new_object(&c->a), &answer, &e))
        time_sleep(SEAL_WAIT_NS);
}

static NODISCARD int read_segments(struct reader *r, struct err *e)
{
    struct export_result result = {0};
    size_t n = 0;
    str *names;

    if (!file_exists(r->segments))
        return 0;
    TRY(file_list(r->segments, &r->c->a, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        struct err why;

        if (!str_ends(names[i], S(".seg")))
            continue;
        /* A segment may be exported, and so go, under our hands: then it is in the lake. */
        if (export_segment(r->fresh_dir, path_join(&r->c->a, r->segments, names[i].p), r->lake,
                           &result, &why) &&
            why.code != CODE_NOT_FOUND)
            cli_note("warning: %s", why.msg);
    }
    return 0;
}

static void remove_tree(struct arena *a, const char *dir, int depth)
{
    struct err e;
    str *names;
    size_t n;

    if (depth > 6 || file_list(dir, a, &names, &n, &e))
        return;
    for (size_t i = 0; i < n; i++) {
        const char *path = path_join(a, dir, names[i].p);

        if (file_remove(path, &e))
            remove_tree(a, path, depth + 1);
    }
    if (file_remove_dir(dir, &e))
        cli_note("warning: %s", e.msg);
}

/* --- The table -------------------------------------------------------------------------------- */

static bool has_parquet(struct reader *r, const char *dir)
{
    struct err e;
    str *days;
    size_t n;

    return file_exists(dir) && !file_list(dir, &r->c->a, &days, &n, &e) && n > 0;
}

/* A view over both trees, of one endpoint or (NULL) of all. The same segment in both is one row:
 * the exporter may have been faster. */
static NODISCARD int make_view(struct reader *r, const char *endpoint, struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};
    const char *dirs[] = {r->lake_dir, r->fresh_dir};
    const char *sub =
        endpoint ? arena_printf(&r->c->a, "records/endpoint=%s", endpoint).p : "records";
    size_t n = 0;

    buf_init(&sql, 1 << 20);
    buf_add_str(&sql, S("CREATE VIEW records AS SELECT * FROM ("));
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        const char *dir = path_join(&r->c->a, dirs[i], sub);

        if (!has_parquet(r, dir))
            continue;
        if (n++)
            buf_add_str(&sql, S(" UNION ALL BY NAME "));
        /* Only the folder says whose rows these are. */
        buf_add_str(&sql, endpoint
                              ? S("SELECT * FROM read_parquet(")
                              : S("SELECT endpoint, * EXCLUDE (endpoint, dt) FROM read_parquet("));
        lake_quote_text(&sql, arena_printf(&r->c->a, "%s/**/*.parquet", dir));
        buf_add_str(&sql, endpoint ? S(", union_by_name=true, hive_partitioning=false)")
                                   : S(", union_by_name=true, hive_partitioning=true, "
                                       "hive_types_autocast=false)"));
    }
    buf_add_str(&sql, S(") QUALIFY row_number() OVER (PARTITION BY "));
    buf_add_str(&sql, endpoint ? S("") : S("endpoint, "));
    buf_add_str(&sql, S("request_id, shadow, model_version, \"row\", gateway, ts) = 1"));
    if (!n && !endpoint)
        return FAIL(e, NOT_FOUND, "there are no records yet");
    if (!n)
        return FAIL(e, NOT_FOUND, "there are no records of '%s' yet", endpoint);
    if (sql.overflowed)
        return FAIL(e, INVALID_ARGUMENT, "the name of the endpoint or of a folder cannot be used");
    return lake_exec(r->lake, buf_z(&sql), e);
}

/* --- Writing ---------------------------------------------------------------------------------- */

static str cell_text(struct cli *c, const struct lake_result *res, size_t column)
{
    char at[TIME_ISO_SIZE];

    if (lake_is_null(res, column))
        return S("-");
    if (lake_column_type(res, column) == LAKE_TIME) {
        time_iso(lake_time_ns(res, column), at);
        return arena_dup(&c->a, str_of(at));
    }
    if (lake_column_type(res, column) == LAKE_F64)
        return arena_printf(&c->a, "%.6g", lake_f64(res, column));
    if (lake_column_type(res, column) == LAKE_I64)
        return arena_printf(&c->a, "%lld", (long long)lake_i64(res, column));
    if (lake_column_type(res, column) == LAKE_BOOL)
        return lake_bool(res, column) ? S("true") : S("false");
    return arena_dup(&c->a, lake_text(res, column));
}

static void write_json_cell(struct json_out *o, const struct lake_result *res, size_t column)
{
    char at[TIME_ISO_SIZE];

    if (lake_is_null(res, column)) {
        jo_null(o);
        return;
    }
    switch (lake_column_type(res, column)) {
    case LAKE_BOOL:
        jo_bool(o, lake_bool(res, column));
        return;
    case LAKE_I64:
        jo_int(o, lake_i64(res, column));
        return;
    case LAKE_F64:
        jo_real(o, lake_f64(res, column));
        return;
    case LAKE_TIME:
        time_iso(lake_time_ns(res, column), at);
        jo_str(o, str_of(at));
        return;
    default:
        jo_str(o, lake_text(res, column));
    }
}

static void write_json(struct cli *c, struct lake_result *res)
{
    while (lake_next(res)) { /* one row a line: it may be long */
        struct json_out o;

        jo_begin(&o, &c->out);
        jo_object(&o);
        for (size_t i = 0; i < lake_column_count(res); i++) {
            jo_key(&o, lake_column_name(res, i));
            write_json_cell(&o, res, i);
        }
        jo_object_end(&o);
        buf_add_char(&c->out, '\n');
    }
}

/* Columns that do not fit beside each other become lines. */
static void write_rows(struct cli *c, struct lake_result *res)
{
    size_t columns = lake_column_count(res), width = 0, n = 0;

    if (columns <= TABLE_COLUMNS_MAX) {
        const char *titles[TABLE_COLUMNS_MAX];
        struct table t;

        for (size_t i = 0; i < columns; i++)
            titles[i] = arena_dupz(&c->a, lake_column_name(res, i));
        table_begin(&t, &c->a, titles, columns);
        while (lake_next(res))
            for (size_t i = 0; i < columns; i++)
                table_add(&t, cell_text(c, res, i));
        table_write(&t, c->color, &c->out);
        return;
    }
    for (size_t i = 0; i < columns; i++)
        width = MAX(width, paint_width(lake_column_name(res, i)));
    while (lake_next(res)) {
        if (n++)
            buf_add_char(&c->out, '\n');
        for (size_t i = 0; i < columns; i++) {
            paint_text(&c->out, c->color, PAINT_DIM, lake_column_name(res, i));
            paint_pad(&c->out, paint_width(lake_column_name(res, i)), width + 2);
            paint_text(&c->out, false, PAINT_PLAIN, cell_text(c, res, i));
            buf_add_char(&c->out, '\n');
        }
    }
}

static NODISCARD int show(struct reader *r, struct err *e)
{
    AUTO(lake_result_freep) struct lake_result *res = NULL;
    struct records_options *o = r->c->values;
    const char *sql = o->sql;

    if (!sql)
        sql = arena_printf(&r->c->a,
                           "SELECT * FROM (SELECT * FROM records ORDER BY ts DESC LIMIT "
                           "%lld) ORDER BY ts",
                           (long long)o->limit)
                  .p;
    TRY(lake_query(r->lake, sql, NULL, 0, &res, e));
    if (r->c->opt.json)
        write_json(r->c, res);
    else
        write_rows(r->c, res);
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    struct records_options *o = c->values;
    const char *endpoint = c->opt.arg_count ? c->opt.args[0] : NULL, *state;
    struct reader r = {.c = c};
    int rc;

    if (endpoint && !str_is_name(str_of(endpoint)))
        return FAIL(e, INVALID_ARGUMENT, "'%s' is no name of an endpoint", endpoint);
    TRY(cli_project_find(c, e));
    state = path_join(&c->a, c->project_dir, ".weir");
    r.lake_dir = path_join(&c->a, state, "lake");
    r.segments = path_join(&c->a, state, "records");
    r.fresh_dir = arena_printf(&c->a, "%s/work/records-%d", state, (int)getpid()).p;
    if (!o->no_seal)
        ask_to_seal(c);
    TRY(file_make_dirs(r.fresh_dir, e));
    rc = lake_open(&(struct lake_config){0}, &r.lake, e);
    if (!rc)
        rc = read_segments(&r, e);
    if (!rc)
        rc = make_view(&r, endpoint, e);
    if (!rc)
        rc = show(&r, e);
    lake_close(r.lake);
    remove_tree(&c->a, r.fresh_dir, 0);
    return rc;
}

int command_records(int argc, char **argv)
{
    struct records_options o = {.limit = 20};

    return cli_main(&spec, argc, argv, &o, run);
}
