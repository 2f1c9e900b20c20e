/* SPDX-License-Identifier: Apache-2.0 */
/* Schemas and records that the tests of record/ share. */
#pragma once

#include "record/keeper.h"
#include "record/segment.h"

#include "../check.h"
#include "base/files.h"
#include "base/random.h"
#include "base/time.h"

#include <sys/stat.h>
#include <unistd.h>

/* A fresh folder under the build tree's temporary folder; removed by sample_dir_done(). */
static UNUSED void sample_dir(char path[64])
{
    snprintf(path, 64, "/tmp/weir-record-XXXXXX");
    if (!check_mkdtemp(path))
        abort();
}

static UNUSED void sample_dir_done(const char *path)
{
    AUTO(arena_done) struct arena a;
    struct err e;
    str *names;
    size_t n;

    arena_init(&a, 0);
    if (file_list(path, &a, &names, &n, &e))
        return;
    for (size_t i = 0; i < n; i++) {
        const char *p = path_join(&a, path, names[i].p);
        struct stat st;

        if (lstat(p, &st) == 0 && S_ISDIR(st.st_mode))
            sample_dir_done(p);
        else
            unlink(p);
    }
    rmdir(path);
}

/* Two F32 features, a text feature, an I64 feature; a score. */
static UNUSED const struct record_schema *sample_mixed(const char *endpoint)
{
    static const struct record_column columns[] = {
        {S_INIT("age"), RECORD_F32, 0},   {S_INIT("income"), RECORD_F32, 0},
        {S_INIT("city"), RECORD_STR, 0},  {S_INIT("visits"), RECORD_I64, 0},
        {S_INIT("score"), RECORD_F64, 0},
    };
    struct record_schema_def d = {.endpoint = str_of(endpoint),
                                  .version = S("1"),
                                  .columns = columns,
                                  .feature_count = 4,
                                  .output_count = 1,
                                  .target = RECORD_TARGET_SCORE,
                                  .class_count = 2};
    const struct record_schema *s = NULL;
    struct err e;

    if (!CHECK_OK(record_schema_add(&d, &s, &e), &e))
        abort();
    return s;
}

/* n F32 features x0…, one F32 score, with cells when a spec is given. */
static UNUSED const struct record_schema *sample_floats(const char *endpoint, const char *version,
                                                        uint32_t n, const struct cells_spec *spec)
{
    static char names[64][8];
    struct record_column columns[65];
    const struct cells_spec *cells[65];
    struct record_schema_def d = {.endpoint = str_of(endpoint),
                                  .version = str_of(version),
                                  .columns = columns,
                                  .feature_count = n,
                                  .output_count = 1,
                                  .target = RECORD_TARGET_SCORE,
                                  .class_count = 2,
                                  .cells = spec ? cells : NULL};
    const struct record_schema *s = NULL;
    struct err e;

    for (uint32_t i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "x%u", i);
        columns[i] = (struct record_column){str_of(names[i]), RECORD_F32, 0};
        cells[i] = spec;
    }
    columns[n] = (struct record_column){S("score"), RECORD_F32, 0};
    cells[n] = spec;
    if (!CHECK_OK(record_schema_add(&d, &s, &e), &e))
        abort();
    return s;
}

static UNUSED struct cells_spec sample_spec(void)
{
    static double values[2000];
    struct cells_spec spec;
    struct rng r;
    struct err e;

    rng_seed(&r, 7);
    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        values[i] = rng_normal(&r);
    if (!CHECK_OK(cells_spec_fit_numeric(values, ARRAY_LEN(values), 0, &spec, &e), &e))
        abort();
    return spec;
}

/* One record of one row of floats; 0 when the ring is full. */
static UNUSED uint64_t sample_put(struct record_ring *ring, const struct record_schema *s, str id,
                                  enum record_kind kind, uint8_t arm, float value, float score)
{
    struct record_meta m = {.schema = s,
                            .kind = kind,
                            .arm = arm,
                            .http_status = 200,
                            .row_count = 1,
                            .wall_ns = time_wall_ns(),
                            .latency_us = 120,
                            .request_id = id};
    struct record_out o;

    if (!record_begin(ring, &m, 0, &o))
        return 0;
    for (uint32_t i = 0; i < s->feature_count; i++)
        record_put_number(&o, i, (double)value);
    record_put_number(&o, s->feature_count, (double)score);
    record_next_row(&o);
    return record_commit(ring, &o);
}

static UNUSED uint64_t sample_label(struct record_ring *ring, str id, double label)
{
    struct record_feedback_in f = {.request_id = id,
                                   .wall_ns = time_wall_ns(),
                                   .has = RECORD_HAS_LABEL_NUMBER,
                                   .label = label};

    return record_put_feedback(ring, &f);
}
