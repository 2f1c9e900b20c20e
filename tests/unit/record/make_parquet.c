/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a small lake for tests/e2e/test_parquet.py: records of two versions of one endpoint, and
 * labels, through ring, keeper, segment and exporter.
 *
 *     make_parquet FOLDER      writes FOLDER/segments and FOLDER/lake
 */
#include "record/export.h"

#include "sample.h"

#define T0 (INT64_C(1767312000) * NS_PER_S) /* 2026-01-02T00:00:00Z */

static void put_mixed(struct record_ring *ring, const struct record_schema *s, int i)
{
    char id[32];
    struct record_meta m = {.schema = s,
                            .kind = RECORD_PREDICT,
                            .http_status = 200,
                            .row_count = 1,
                            .wall_ns = T0 + i * 3600 * NS_PER_S,
                            .latency_us = (uint32_t)i};
    struct record_out o;

    snprintf(id, sizeof id, "id-%d", i);
    m.request_id = str_of(id);
    if (!record_begin(ring, &m, 16, &o))
        abort();
    record_put_number(&o, 0, i % 7 ? i : (double)NAN);
    record_put_number(&o, 1, i * 0.5);
    if (i % 5)
        record_put_text(&o, 2, S("Zürich"));
    record_put_number(&o, 3, i);
    record_put_number(&o, 4, i % 2 ? 0.9 : 0.1);
    record_next_row(&o);
    record_commit(ring, &o);
    if (i < 10)
        sample_label(ring, str_of(id), i % 2);
}

static NODISCARD int make(const char *segments, const char *lake, struct err *e)
{
    struct keeper_config cfg = {.dir = segments, .gateway = S("g1"), .join_entries = 1024};
    struct export_config export = {.segments = segments, .lake = lake};
    struct lake_config lake_cfg = {.threads = 1};
    AUTO(keeper_closep) struct keeper *k = NULL;
    AUTO(lake_closep) struct lake *l = NULL;
    struct export_result result;
    struct record_ring *ring;

    TRY(keeper_open(&cfg, &k, e));
    TRY(keeper_ring_new(k, 0, &ring, e));
    for (int i = 0; i < 48; i++)
        put_mixed(ring, sample_mixed("credit"), i);
    keeper_stop(k);
    TRY(lake_open(&lake_cfg, &l, e));
    return export_run(&export, l, T0, &result, e);
}

int main(int argc, char **argv)
{
    char segments[512], lake[512];
    struct err e;

    if (argc != 2)
        return 2;
    snprintf(segments, sizeof segments, "%s/segments", argv[1]);
    snprintf(lake, sizeof lake, "%s/lake", argv[1]);
    if (make(segments, lake, &e)) {
        fprintf(stderr, "make_parquet: %s\n", e.msg);
        return 1;
    }
    return 0;
}
