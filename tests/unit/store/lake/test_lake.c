/* SPDX-License-Identifier: Apache-2.0 */
#include "store/lake/lake.h"

#include "base/files.h"
#include "base/time.h"
#include "check.h"

#include <unistd.h>

static struct lake *open_lake(void)
{
    struct lake_config cfg = {.threads = 1, .memory_max = UINT64_C(256) << 20};
    struct lake *l = NULL;
    struct err e;

    if (!CHECK_OK(lake_open(&cfg, &l, &e), &e))
        abort();
    return l;
}

static void make_dir(char path[64])
{
    snprintf(path, 64, "/tmp/weir-lake-XXXXXX");
    if (!check_mkdtemp(path))
        abort();
}

static void drop_dir(const char *path)
{
    char command[128];

    snprintf(command, sizeof command, "rm -r '%s'", path);
    CHECK_INT(system(command), 0);
}

static void values_of_every_type(void)
{
    AUTO(lake_closep) struct lake *l = open_lake();
    AUTO(lake_result_freep) struct lake_result *r = NULL;
    struct err e;

    NEED_OK(lake_query(l,
                       "SELECT true, 42::TINYINT, -7::BIGINT, 1.5::FLOAT, 2.25::DECIMAL(9,2), "
                       "'short', 'a text longer than twelve bytes', NULL::INTEGER, "
                       "TIMESTAMP '2026-01-02 03:04:05.678', DATE '2026-01-02', "
                       "170141183460469231731687303715884105727::HUGEINT, 'b'::ENUM('a','b')",
                       NULL, 0, &r, &e),
            &e);
    NEED(lake_next(r));
    CHECK(lake_bool(r, 0));
    CHECK_INT(lake_i64(r, 1), 42);
    CHECK_INT(lake_i64(r, 2), -7);
    CHECK_NEAR(lake_f64(r, 3), 1.5, 0);
    CHECK_NEAR(lake_f64(r, 4), 2.25, 1e-12);
    CHECK_INT(lake_i64(r, 4), 2);
    CHECK_STR(lake_text(r, 5), S("short"));
    CHECK_STR(lake_text(r, 6), S("a text longer than twelve bytes"));
    CHECK(lake_is_null(r, 7) && lake_i64(r, 7) == 0 && isnan(lake_f64(r, 7)));
    CHECK_INT(lake_time_ns(r, 8), INT64_C(1767323045678000000));
    CHECK_INT(lake_time_ns(r, 9), INT64_C(1767312000000000000));
    CHECK_NEAR(lake_f64(r, 10) / 1.7014118346046923e38, 1, 1e-12);
    CHECK_STR(lake_text(r, 11), S("b"));
    CHECK(lake_column_type(r, 8) == LAKE_TIME && lake_column_type(r, 11) == LAKE_TEXT);
    CHECK(!lake_next(r));
    CHECK(!lake_next(r));
}

static void parameters_are_values_not_sql(void)
{
    AUTO(lake_closep) struct lake *l = open_lake();
    struct lake_value v[] = {LAKE_V_TEXT(S("'; DROP TABLE t; --")), LAKE_V_I64(7),
                             LAKE_V_TIME(INT64_C(1767323045678000000))};
    AUTO(lake_result_freep) struct lake_result *r = NULL;
    int64_t n;
    struct err e;

    NEED_OK(lake_exec(l, "CREATE TABLE t(a VARCHAR, b BIGINT)", &e), &e);
    NEED_OK(lake_query(l, "SELECT $1, $2, $3", v, 3, &r, &e), &e);
    NEED(lake_next(r));
    CHECK_STR(lake_text(r, 0), v[0].text);
    CHECK_INT(lake_time_ns(r, 2), v[2].integer);
    CHECK_FAILS(lake_query(l, "SELECT $1", v, 3, &r, &e), INVALID_ARGUMENT, &e, "1 parameters");
    NEED_OK(lake_scalar_i64(l, "SELECT count(*) FROM t", NULL, 0, &n, &e), &e);
    CHECK_INT(n, 0);
    CHECK_FAILS(lake_scalar_i64(l, "SELECT max(b) FROM t", NULL, 0, &n, &e), NOT_FOUND, &e,
                "no value");
}

static void errors_have_codes(void)
{
    AUTO(lake_closep) struct lake *l = open_lake();
    struct err e;

    CHECK_FAILS(lake_exec(l, "SELEC 1", &e), INVALID_ARGUMENT, &e, "SELEC");
    CHECK_FAILS(lake_exec(l, "SELECT * FROM nowhere", &e), NOT_FOUND, &e, "nowhere");
    CHECK_FAILS(lake_exec(l, "SELECT * FROM read_parquet('/no/such/file')", &e), NOT_FOUND, &e,
                "/no/such/file");
    CHECK_FAILS(lake_exec(l, "SELECT 'x'::INTEGER", &e), INVALID_ARGUMENT, &e, "x");
}

static void names_and_texts_are_quoted(void)
{
    AUTO(lake_closep) struct lake *l = open_lake();
    AUTO(lake_result_freep) struct lake_result *r = NULL;
    AUTO(buf_done) struct buf sql;
    struct err e;

    buf_init(&sql, 1000);
    buf_add_str(&sql, S("SELECT "));
    lake_quote_text(&sql, S("it's"));
    buf_add_str(&sql, S(" AS "));
    lake_quote_name(&sql, S("a \"b\" c"));
    NEED_OK(lake_query(l, buf_z(&sql), NULL, 0, &r, &e), &e);
    NEED(lake_next(r));
    CHECK_STR(lake_text(r, 0), S("it's"));
    CHECK_STR(lake_column_name(r, 0), S("a \"b\" c"));
    lake_quote_name(&sql, (str){"x\0y", 3});
    CHECK(sql.overflowed);
}

static void appended_rows_read_back(void)
{
    AUTO(lake_closep) struct lake *l = open_lake();
    AUTO(lake_appender_freep) struct lake_appender *a = NULL;
    AUTO(lake_numbers_done) struct lake_numbers m = {0};
    AUTO(lake_result_freep) struct lake_result *r = NULL;
    struct err e;

    NEED_OK(lake_exec(l,
                      "CREATE TABLE t(i BIGINT, f FLOAT, s VARCHAR, b BOOLEAN, ts TIMESTAMP, "
                      "n SMALLINT)",
                      &e),
            &e);
    NEED_OK(lake_appender_open(l, S("t"), &a, &e), &e);
    for (int i = 0; i < 5000; i++) { /* more than two chunks */
        lake_append_i64(a, i);
        lake_append_f64(a, i % 10 ? i * 0.5 : NAN);
        lake_append_text(a, i % 3 ? S("a text that is not inlined") : STR_NULL);
        lake_append_bool(a, i % 2);
        lake_append_time(a, i * NS_PER_S);
        lake_append_i64(a, i * 100); /* past SMALLINT: NULL */
        NEED_OK(lake_append_row(a, &e), &e);
    }
    NEED_OK(lake_appender_flush(a, &e), &e);
    NEED_OK(lake_read_numbers(l, "SELECT i, f, n FROM t ORDER BY i", NULL, 0, 100000, &m, &e), &e);
    CHECK(m.row_count == 5000 && m.column_count == 3);
    CHECK_STR(m.names[1], S("f"));
    CHECK_NEAR(m.columns[0][4999], 4999, 0);
    CHECK(isnan(m.columns[1][10]));
    CHECK_NEAR(m.columns[1][4999], 2499.5, 0);
    CHECK_NEAR(m.columns[2][327], 32700, 0);
    CHECK(isnan(m.columns[2][328]));
    NEED_OK(lake_query(l,
                       "SELECT count(s), count(*), sum(b::INT), max(ts) = TIMESTAMP '1970-01-01 "
                       "01:23:19' FROM t",
                       NULL, 0, &r, &e),
            &e);
    NEED(lake_next(r));
    CHECK_INT(lake_i64(r, 0), 3333);
    CHECK_INT(lake_i64(r, 1), 5000);
    CHECK_INT(lake_i64(r, 2), 2500);
    CHECK(lake_bool(r, 3));
    CHECK_FAILS(lake_appender_open(l, S("nowhere"), &a, &e), NOT_FOUND, &e, "nowhere");
    CHECK_FAILS(lake_read_numbers(l, "SELECT i FROM t", NULL, 0, 100, &m, &e), RESOURCE_EXHAUSTED,
                &e, "100 rows");
}

static void bad_text_is_mended(void)
{
    AUTO(lake_closep) struct lake *l = open_lake();
    AUTO(lake_appender_freep) struct lake_appender *a = NULL;
    AUTO(lake_result_freep) struct lake_result *r = NULL;
    struct err e;

    NEED_OK(lake_exec(l, "CREATE TABLE t(s VARCHAR)", &e), &e);
    NEED_OK(lake_appender_open(l, S("t"), &a, &e), &e);
    lake_append_text(a, S("Z\xfcrich"));
    NEED_OK(lake_append_row(a, &e), &e);
    lake_append_text(a, S("Zürich"));
    NEED_OK(lake_append_row(a, &e), &e);
    NEED_OK(lake_appender_flush(a, &e), &e);
    NEED_OK(lake_query(l, "SELECT s FROM t", NULL, 0, &r, &e), &e);
    NEED(lake_next(r));
    CHECK_STR(lake_text(r, 0), S("Z?rich"));
    NEED(lake_next(r));
    CHECK_STR(lake_text(r, 0), S("Zürich"));
}

static void files_come_and_go(void)
{
    AUTO(lake_closep) struct lake *l = open_lake();
    AUTO(arena_done) struct arena a;
    char dir[64];
    char *parquet, *csv;
    str *names;
    size_t n;
    int64_t sum;
    struct err e;

    arena_init(&a, 0);
    make_dir(dir);
    parquet = path_join(&a, dir, "it's.parquet");
    csv = path_join(&a, dir, "t.csv");
    NEED_OK(lake_write_parquet(l, "SELECT range AS i FROM range(1000)", parquet, &e), &e);
    NEED_OK(lake_write_parquet(l, "SELECT range AS i FROM range(2000)", parquet, &e), &e);
    NEED_OK(lake_load_parquet(l, S("my table"), parquet, NULL, false, &e), &e);
    NEED_OK(lake_scalar_i64(l, "SELECT sum(i) FROM \"my table\"", NULL, 0, &sum, &e), &e);
    CHECK_INT(sum, 1999000);
    NEED_OK(file_replace(csv, S("id,name\n007,x\n008,y\n"), &e), &e);
    NEED_OK(lake_load_csv(l, S("c"), csv, "{'id': 'VARCHAR'}", &e), &e);
    NEED_OK(lake_scalar_i64(l, "SELECT count(*) FROM c WHERE id = '007'", NULL, 0, &sum, &e), &e);
    CHECK_INT(sum, 1);
    /* A failed write leaves the old file and no leftovers. */
    CHECK_FAILS(lake_write_parquet(l, "SELECT error('stop') FROM range(10)", parquet, &e),
                INVALID_ARGUMENT, &e, "stop");
    NEED_OK(file_list(dir, &a, &names, &n, &e), &e);
    CHECK_INT(n, 2);
    drop_dir(dir);
}

static void forks_share_the_database(void)
{
    AUTO(lake_closep) struct lake *l = open_lake();
    AUTO(lake_closep) struct lake *f = NULL;
    int64_t n;
    struct err e;

    NEED_OK(lake_exec(l, "CREATE TABLE t AS SELECT 1 AS a", &e), &e);
    NEED_OK(lake_fork(l, &f, &e), &e);
    NEED_OK(lake_scalar_i64(f, "SELECT a FROM t", NULL, 0, &n, &e), &e);
    CHECK_INT(n, 1);
    CHECK(lake_version() && lake_version()[0] == 'v');
}

RUN_TESTS(T(values_of_every_type), T(parameters_are_values_not_sql), T(errors_have_codes),
          T(names_and_texts_are_quoted), T(appended_rows_read_back), T(bad_text_is_mended),
          T(files_come_and_go), T(forks_share_the_database))
