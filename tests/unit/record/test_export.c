/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments to Parquet and back. The rounds in which the exporter dies run first and wholly in child
 * processes: a process that has threads of a database must not fork.
 */
#include "record/export.h"

#include "sample.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#define DAY_NS (86400 * NS_PER_S)
#define T0 (INT64_C(1767312000) * NS_PER_S) /* 2026-01-02 */

struct place {
    char dir[64], segments[96], lake[96];
};

static void place_init(struct place *p)
{
    sample_dir(p->dir);
    snprintf(p->segments, sizeof p->segments, "%s/segments", p->dir);
    snprintf(p->lake, sizeof p->lake, "%s/lake", p->dir);
}

static void place_done(const struct place *p)
{
    sample_dir_done(p->dir);
}

static struct lake *open_lake(void)
{
    struct lake_config cfg = {.threads = 1, .memory_max = UINT64_C(256) << 20};
    struct lake *l = NULL;
    struct err e;

    if (!CHECK_OK(lake_open(&cfg, &l, &e), &e))
        abort();
    return l;
}

static void put_row(struct record_ring *ring, const struct record_schema *s, int64_t wall_ns, int i)
{
    char id[32];
    struct record_meta m = {.schema = s,
                            .kind = RECORD_PREDICT,
                            .http_status = 200,
                            .row_count = 1,
                            .wall_ns = wall_ns,
                            .latency_us = 100 + (uint32_t)i,
                            .flags = i % 10 ? 0 : RECORD_ANOMALY_RANGE | RECORD_ANOMALY_MISSING,
                            .user = (const unsigned char *)"0123456789abcdef"};
    struct record_out o;

    snprintf(id, sizeof id, "id-%d", i);
    m.request_id = str_of(id);
    if (!CHECK(record_begin(ring, &m, 16, &o)))
        return;
    record_put_number(&o, 0, i % 7 ? i : (double)NAN);
    record_put_number(&o, 1, i * 0.5);
    if (i % 5)
        record_put_text(&o, 2, S("Zürich"));
    record_put_number(&o, 3, i);
    record_put_number(&o, 4, i % 2 ? 0.9 : 0.1);
    record_next_row(&o);
    record_commit(ring, &o);
}

/* Two segments: 100 records of 2026-01-02 and -03 and 30 labels. */
static void make_segments(const struct place *p, int64_t t0)
{
    const struct record_schema *s = sample_mixed("credit");
    struct keeper_config cfg = {.dir = p->segments, .gateway = S("g1"), .join_entries = 1024};
    AUTO(keeper_closep) struct keeper *k = NULL;
    struct record_ring *ring;
    char id[32];
    struct err e;

    NEED_OK(keeper_open(&cfg, &k, &e), &e);
    NEED_OK(keeper_ring_new(k, 0, &ring, &e), &e);
    for (int i = 0; i < 100; i++) {
        put_row(ring, s, t0 + (i < 60 ? 0 : DAY_NS) + i * NS_PER_S, i);
        if (i == 49) {
            keeper_seal_soon(k);
            keeper_turn(k);
        }
    }
    for (int i = 0; i < 30; i++) {
        struct record_feedback_in f = {
            .wall_ns = t0 + DAY_NS, .has = RECORD_HAS_LABEL_NUMBER, .label = i % 2};

        snprintf(id, sizeof id, "id-%d", i);
        f.request_id = str_of(id);
        record_put_feedback(ring, &f);
        if (i == 3) { /* corrected later */
            f.wall_ns += NS_PER_S;
            f.label = 0;
            record_put_feedback(ring, &f);
        }
    }
    keeper_stop(k);
}

static int64_t number_of(struct lake *l, const char *fmt, const char *lake_dir)
{
    char sql[1024];
    int64_t n = -1;
    struct err e;

    snprintf(sql, sizeof sql, fmt, lake_dir);
    CHECK_OK(lake_scalar_i64(l, sql, NULL, 0, &n, &e), &e);
    return n;
}

#define RECORDS "read_parquet('%s/records/*/*/*.parquet', hive_partitioning=true)"
#define FEEDBACK "read_parquet('%s/feedback/*/*.parquet')"

static void check_all_once(struct lake *l, const struct place *p)
{
    CHECK_INT(number_of(l, "SELECT count(*) FROM " RECORDS, p->lake), 100);
    CHECK_INT(number_of(l, "SELECT count(DISTINCT request_id) FROM " RECORDS, p->lake), 100);
    CHECK_INT(number_of(l, "SELECT count(*) FROM " FEEDBACK, p->lake), 31);
}

/* --- Dying ---------------------------------------------------------------------------------- */

static int export_once(const struct place *p, bool check)
{
    struct export_config cfg = {.segments = p->segments, .lake = p->lake};
    AUTO(lake_closep) struct lake *l = open_lake();
    struct export_result r;
    struct err e;

    if (!CHECK_OK(export_run(&cfg, l, T0 + 5 * DAY_NS, &r, &e), &e))
        return 2;
    if (check)
        check_all_once(l, p);
    return check_failures ? 2 : 0;
}

static int in_child(const struct place *p, int64_t k, enum file_op op, bool check)
{
    int status = 0;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        if (op != FILE_OP_ANY)
            file_test_fault(op, k, FILE_FAULT_KILL, 0, false);
        _exit(export_once(p, check));
    }
    if (waitpid(pid, &status, 0) != pid)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 9;
}

/* The exporter dies at the k-th rename, exchange, removal or sync of a whole run (segments, then
 * compaction); the next run puts all right. */
static void death_at_any(enum file_op op, const char *what)
{
    int64_t k = 0;
    int killed = 1;

    for (; killed && k < 100; k++) {
        struct place p;

        place_init(&p);
        make_segments(&p, T0);
        killed = in_child(&p, k, op, false) != 0;
        CHECK_INT(in_child(&p, 0, FILE_OP_ANY, true), 0);
        place_done(&p);
    }
    printf("the exporter died at each of %lld %s\n", (long long)k - 1, what);
    CHECK(k > 10 && k < 100);
}

static void death_at_any_rename(void)
{
    death_at_any(FILE_OP_RENAME, "renames");
}

static void death_at_any_sync(void)
{
    death_at_any(FILE_OP_SYNC, "syncs");
}

/* --- Living --------------------------------------------------------------------------------- */

static void parquet_reads_back(void)
{
    struct export_config cfg;
    AUTO(lake_closep) struct lake *l = open_lake();
    AUTO(lake_result_freep) struct lake_result *r = NULL;
    struct export_result got;
    struct place p;
    char sql[512];
    struct err e;

    place_init(&p);
    make_segments(&p, T0);
    cfg = (struct export_config){
        .segments = p.segments, .lake = p.lake, .keep_segments_ns = 400 * DAY_NS};
    NEED_OK(export_run(&cfg, l, T0 + DAY_NS, &got, &e), &e);
    CHECK(got.segments == 2 && got.records == 131 && got.rows == 100 && got.feedback == 31);
    CHECK(got.damaged_segments == 0 && got.dropped_bytes == 0);
    check_all_once(l, &p);
    snprintf(sql, sizeof sql,
             "SELECT request_id, ts, endpoint, model_version, arm, shadow, status, latency_us, "
             "user_hash, flags, gateway, \"row\", age, income, city, visits, prediction_score, "
             "dt::VARCHAR FROM " RECORDS " WHERE request_id IN ('id-35', 'id-63') ORDER BY ts",
             p.lake);
    NEED_OK(lake_query(l, sql, NULL, 0, &r, &e), &e);
    NEED(lake_next(r));
    CHECK_STR(lake_text(r, 0), S("id-35"));
    CHECK_INT(lake_time_ns(r, 1), T0 + 35 * NS_PER_S);
    CHECK_STR(lake_text(r, 2), S("credit"));
    CHECK_STR(lake_text(r, 3), S("1"));
    CHECK(lake_i64(r, 4) == 0 && !lake_bool(r, 5) && lake_i64(r, 6) == 200);
    CHECK_INT(lake_i64(r, 7), 135);
    CHECK_STR(lake_text(r, 8), S("30313233343536373839616263646566"));
    CHECK(lake_is_null(r, 9));
    CHECK_STR(lake_text(r, 10), S("g1"));
    CHECK_INT(lake_i64(r, 11), 0);
    CHECK(lake_is_null(r, 12)); /* NaN */
    CHECK_NEAR(lake_f64(r, 13), 17.5, 0);
    CHECK(lake_is_null(r, 14)); /* not given */
    CHECK_INT(lake_i64(r, 15), 35);
    CHECK_NEAR(lake_f64(r, 16), 0.9, 0);
    CHECK_STR(lake_text(r, 17), S("2026-01-02"));
    NEED(lake_next(r));
    CHECK_STR(lake_text(r, 14), S("Zürich"));
    CHECK_STR(lake_text(r, 17), S("2026-01-03"));
    CHECK_INT(
        number_of(l, "SELECT count(*) FROM " RECORDS " WHERE flags = 'range,missing'", p.lake), 10);
    place_done(&p);
}

static void labels_meet_records_in_training_data(void)
{
    AUTO(lake_closep) struct lake *l = open_lake();
    AUTO(lake_numbers_done) struct lake_numbers m = {0};
    AUTO(buf_done) struct buf sql;
    struct export_config cfg;
    struct export_result got;
    struct place p;
    struct err e;

    place_init(&p);
    make_segments(&p, T0);
    cfg = (struct export_config){.segments = p.segments, .lake = p.lake};
    NEED_OK(export_run(&cfg, l, T0 + DAY_NS, &got, &e), &e);
    buf_init(&sql, 10000);
    buf_add_str(&sql, S("SELECT visits, label_number, income FROM ("));
    NEED_OK(record_training_query(p.lake, S("credit"), T0 + 2 * NS_PER_S, T0 + DAY_NS, &sql, &e),
            &e);
    buf_add_str(&sql, S(") ORDER BY visits"));
    NEED_OK(lake_read_numbers(l, buf_z(&sql), NULL, 0, 1000, &m, &e), &e);
    CHECK_INT(m.row_count, 28); /* 30 labels, the first two are before `from` */
    for (size_t i = 0; i < m.row_count; i++) {
        CHECK_NEAR(m.columns[0][i], i + 2, 0);
        CHECK_NEAR(m.columns[1][i], i + 2 == 3 ? 0 : (i + 2) % 2, 0); /* id-3 was corrected */
    }
    CHECK_FAILS(record_training_query(p.lake, S("../x"), 0, 0, &sql, &e), INVALID_ARGUMENT, &e,
                "../x");
    place_done(&p);
}

static void days_are_compacted_and_removed(void)
{
    AUTO(lake_closep) struct lake *l = open_lake();
    struct export_config cfg;
    struct export_result got;
    AUTO(arena_done) struct arena a;
    struct place p;
    str *names;
    size_t n;
    struct err e;

    arena_init(&a, 0);
    place_init(&p);
    make_segments(&p, T0);
    cfg = (struct export_config){.segments = p.segments, .lake = p.lake, .compact_files = 16};
    NEED_OK(export_run(&cfg, l, T0 + DAY_NS / 2, &got, &e), &e); /* it is still 01-02 */
    CHECK(got.compactions == 0 && got.files == 4 && got.removed_segments == 0);
    NEED_OK(export_run(&cfg, l, T0 + 2 * DAY_NS, &got, &e), &e);
    CHECK(got.compactions == 1 && got.compacted_files == 2 && got.segments == 0);
    check_all_once(l, &p);
    /* A large file is carried over by a second name. */
    cfg.compact_bytes = 1;
    make_segments(&p, T0);
    NEED_OK(export_run(&cfg, l, T0 + 2 * DAY_NS, &got, &e), &e);
    CHECK(got.compactions == 0);
    cfg.compact_bytes = 0;
    NEED_OK(export_run(&cfg, l, T0 + 2 * DAY_NS, &got, &e), &e);
    CHECK(got.compactions == 3);
    CHECK_INT(number_of(l, "SELECT count(*) FROM " RECORDS, p.lake), 200);
    NEED_OK(file_list(path_join(&a, p.lake, "records/endpoint=credit/dt=2026-01-02"), &a, &names,
                      &n, &e),
            &e);
    CHECK_INT(n, 1);
    cfg.keep_parquet_ns = 2 * DAY_NS;
    NEED_OK(export_run(&cfg, l, T0 + 3 * DAY_NS, &got, &e), &e);
    CHECK_INT(got.removed_days, 1);
    CHECK_INT(number_of(l, "SELECT count(*) FROM " RECORDS, p.lake), 80);
    CHECK(!file_exists(path_join(&a, p.lake, "compact/day")));
    place_done(&p);
}

static void damage_does_not_stop_the_rest(void)
{
    AUTO(lake_closep) struct lake *l = open_lake();
    AUTO(arena_done) struct arena a;
    struct export_config cfg;
    struct export_result got;
    struct place p;
    char *bad;
    struct err e;

    arena_init(&a, 0);
    place_init(&p);
    make_segments(&p, T0);
    bad = path_join(&a, p.segments, "00000000000000000001-000000-g9.seg");
    NEED_OK(file_replace(bad, S("this is no segment"), &e), &e);
    cfg = (struct export_config){.segments = p.segments, .lake = p.lake};
    NEED_OK(export_run(&cfg, l, T0, &got, &e), &e);
    CHECK(got.damaged_segments == 1 && got.segments == 2);
    CHECK(file_exists(path_join(&a, p.segments, "damaged/00000000000000000001-000000-g9.seg")));
    check_all_once(l, &p);
    place_done(&p);
}

static void names_that_collide_are_prefixed(void)
{
    static const struct record_column columns[] = {
        {S_INIT("TS"), RECORD_F32, 0},    {S_INIT("Age"), RECORD_F32, 0},
        {S_INIT("age"), RECORD_F32, 0},   {S_INIT("label"), RECORD_I64, 0},
        {S_INIT("extra"), RECORD_STR, 0},
    };
    static const str classes[] = {S_INIT("no"), S_INIT("yes")};
    struct record_schema_def d = {.endpoint = S("clash"),
                                  .version = S("1"),
                                  .columns = columns,
                                  .feature_count = 3,
                                  .output_count = 2,
                                  .target = RECORD_TARGET_CLASS,
                                  .class_count = 2,
                                  .class_names = classes};
    AUTO(lake_closep) struct lake *l = open_lake();
    const struct record_schema *s;
    struct keeper_config kcfg;
    struct keeper *k = NULL;
    struct record_ring *ring;
    struct record_meta m = {.kind = RECORD_PREDICT, .row_count = 1, .wall_ns = T0};
    struct record_out o;
    struct export_config cfg;
    struct export_result got;
    struct place p;
    struct err e;

    place_init(&p);
    NEED_OK(record_schema_add(&d, &s, &e), &e);
    kcfg = (struct keeper_config){.dir = p.segments, .gateway = S("g1"), .join_entries = 1024};
    NEED_OK(keeper_open(&kcfg, &k, &e), &e);
    NEED_OK(keeper_ring_new(k, 0, &ring, &e), &e);
    m.schema = s;
    NEED(record_begin(ring, &m, 0, &o));
    record_put_number(&o, 3, 9007199254740993.0);
    record_next_row(&o);
    record_commit(ring, &o);
    m.row_count = 0; /* a refused request */
    m.http_status = 400;
    NEED(record_begin(ring, &m, 0, &o));
    record_commit(ring, &o);
    keeper_stop(k);
    keeper_close(k);
    cfg = (struct export_config){.segments = p.segments, .lake = p.lake};
    NEED_OK(export_run(&cfg, l, T0, &got, &e), &e);
    CHECK_INT(number_of(l,
                        "SELECT count(*) FROM (SELECT feature_TS, Age, feature_age, "
                        "prediction_label, output_extra FROM " RECORDS ")",
                        p.lake),
              2);
    CHECK_INT(number_of(l,
                        "SELECT count(*) FROM " RECORDS " WHERE status = 400 AND \"row\" IS NULL",
                        p.lake),
              1);
    place_done(&p);
}

RUN_TESTS(T(death_at_any_rename), T(death_at_any_sync), T(parquet_reads_back),
          T(labels_meet_records_in_training_data), T(days_are_compacted_and_removed),
          T(damage_does_not_stop_the_rest), T(names_that_collide_are_prefixed))
