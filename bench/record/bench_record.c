/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What recording costs: nanoseconds of one core per record, for the loop's side (ring write) and
 * for the keeper's side by parts. One record is one row of 30 F32 features and one F32 score with
 * 31 cell specs and a UUID as request id.
 *
 *     bench_record [folder]     the folder (default: a new one in /tmp) takes the segments
 *
 * Producer and keeper take turns on one thread, so that each side is timed alone; CPU time of the
 * thread counts, which leaves out waiting for the disk but not the kernel's work for it.
 */
#include "record/keeper.h"

#include "base/log.h"
#include "base/random.h"
#include "base/time.h"
#include "record/join.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define FEATURES 30
#define BATCH 4000 /* records per turn: about 1 MB, a tenth of a second at 35,000/s */
#define TURNS 250

static double cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void must(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "bench_record: %s\n", e->msg);
        exit(1);
    }
}

static const struct record_schema *make_schema(bool cells)
{
    static double sample[4000];
    static struct cells_spec spec;
    static char names[FEATURES][8];
    struct record_column columns[FEATURES + 1];
    const struct cells_spec *specs[FEATURES + 1];
    struct record_schema_def d = {.endpoint = S("bench"),
                                  .version = S("1"),
                                  .columns = columns,
                                  .feature_count = FEATURES,
                                  .output_count = 1,
                                  .target = RECORD_TARGET_SCORE,
                                  .class_count = 2,
                                  .cells = cells ? specs : NULL};
    const struct record_schema *s = NULL;
    struct rng r;
    struct err e;

    rng_seed(&r, 1);
    for (size_t i = 0; i < ARRAY_LEN(sample); i++)
        sample[i] = rng_normal(&r);
    must(cells_spec_fit_numeric(sample, ARRAY_LEN(sample), 0, &spec, &e), &e);
    for (int i = 0; i <= FEATURES; i++) {
        if (i < FEATURES)
            snprintf(names[i], sizeof names[i], "x%d", i);
        columns[i] =
            (struct record_column){i < FEATURES ? str_of(names[i]) : S("score"), RECORD_F32, 0};
        specs[i] = &spec;
    }
    must(record_schema_add(&d, &s, &e), &e);
    return s;
}

static uint64_t put_batch(struct record_ring *ring, const struct record_schema *s,
                          const float rows[][FEATURES], char ids[][UUID_SIZE])
{
    uint64_t done = 0;

    for (int i = 0; i < BATCH; i++) {
        struct record_meta m = {.schema = s,
                                .kind = RECORD_PREDICT,
                                .http_status = 200,
                                .row_count = 1,
                                .wall_ns = i,
                                .latency_us = 90,
                                .request_id = {ids[i], UUID_SIZE - 1}};
        struct record_out o;

        if (!record_begin(ring, &m, 0, &o))
            continue;
        memcpy(o.row + s->columns[0].at, rows[i], sizeof rows[i]);
        record_put_number(&o, FEATURES, 0.5);
        record_next_row(&o);
        done += record_commit(ring, &o) != 0;
    }
    return done;
}

static void row(const char *what, const char *side, double ns)
{
    fprintf(stderr, "%-32s %-7s %6.0f ns a record\n", what, side, ns);
    printf(
        "{\"case\": \"%s\", \"metric\": \"record, %s\", \"unit\": \"ns\", \"better\": \"lower\", "
        "\"subject\": \"weir\", \"value\": %.1f}\n",
        what, side, ns);
}

static void run(const char *what, const char *dir, bool cells, bool segments, bool sync)
{
    static float rows[BATCH][FEATURES];
    static char ids[BATCH][UUID_SIZE];
    const struct record_schema *s = make_schema(cells);
    struct keeper_config cfg = {.dir = dir,
                                .gateway = S("bench"),
                                .flush_ms = sync ? 0 : 3600000,
                                .seal_ms = 3600000,
                                .cells_off = !cells,
                                .segments_off = !segments};
    AUTO(keeper_closep) struct keeper *k = NULL;
    struct record_ring *ring;
    double put = 0, keep = 0;
    uint64_t records = 0;
    struct rng r;
    struct err e;

    rng_seed(&r, 2);
    must(keeper_open(&cfg, &k, &e), &e);
    must(keeper_ring_new(k, 0, &ring, &e), &e);
    for (int t = -20; t < TURNS; t++) {
        double a, b, c;

        for (int i = 0; i < BATCH; i++) {
            uuid_v7(((int64_t)t * BATCH + i + 1000000) * NS_PER_MS, ids[i]);
            for (int f = 0; f < FEATURES; f++)
                rows[i][f] = (float)rng_normal(&r);
        }
        a = cpu_ns();
        records += t < 0 ? (put_batch(ring, s, rows, ids), 0) : put_batch(ring, s, rows, ids);
        b = cpu_ns();
        keeper_turn(k);
        c = cpu_ns();
        put += t < 0 ? 0 : b - a;
        keep += t < 0 ? 0 : c - b;
    }
    row(what, "loop", put / (double)records);
    row(what, "keeper", keep / (double)records);
    row(what, "both", (put + keep) / (double)records);
}

int main(int argc, char **argv)
{
    char made[] = "/tmp/weir-bench-record-XXXXXX";
    const char *dir = argc > 1 ? argv[1] : mkdtemp(made);
    char command[600];

    log_setup(LOG_ERROR, LOG_LOGFMT, "bench");
    if (!dir)
        return 1;
    run("index only", dir, false, false, false);
    run("index and cells", dir, true, false, false);
    run("index and segments", dir, false, true, false);
    run("all", dir, true, true, false);
    run("all, with a sync every batch", dir, true, true, true);
    /* 3 % of one core at 35,000 requests a second would be 0.86 us; 0.7 leaves some for the
     * gateway. */
    printf("{\"case\": \"all\", \"metric\": \"record, both\", \"unit\": \"ns\", "
           "\"better\": \"lower\", \"subject\": \"target\", \"value\": 700}\n");
    if (argc == 1) {
        snprintf(command, sizeof command, "rm -r '%s'", dir);
        return system(command) ? 1 : 0;
    }
    return 0;
}
