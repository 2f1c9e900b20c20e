/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world of the watch tests: a real meta store and a virtual clock. Traffic is drawn from a
 * seed, folded into digests of a quarter of a second at 2,300 rows a second, and what counts is
 * what the journal says in the end.
 */
#pragma once

#include "watch/watch.h"

#include "base/random.h"
#include "base/time.h"
#include "check.h"
#include "journal/journal.h"
#include "stats/edetector.h"
#include "watch/priv.h"

#include <unistd.h>

#define T0 (INT64_C(1700000000) * NS_PER_S)
#define FEATURES 3
#define COLUMNS 4 /* and one output */
#define REF_ROWS 20000
#define STEP_NS (NS_PER_S / 4)
#define ROWS 575 /* of a digest */

static char dir[64];
static struct meta_store *store;
static struct meta *m;
static struct blobs *blobs;
static struct watch *w;
static struct err e;
static struct rng rng;
static struct cells_spec specs[COLUMNS];
static const struct cells_spec *spec_of[COLUMNS] = {&specs[0], &specs[1], &specs[2], &specs[3]};

static const char *const names[COLUMNS] = {"age", "amount", "hour", "score"};

/* What is wrong with the traffic. */
struct traffic {
    const char *version;
    int column; /* that moves, or -1 */
    double shift;
    double missing;    /* share of the column */
    double error_rate; /* of labels; < 0: no labels */
    uint64_t rows;
    int64_t corrected; /* labels that became errors afterwards */
};
#define CLEAN ((struct traffic){.version = "1", .column = -1, .error_rate = -1, .rows = ROWS})

static char profile_hash[BLOB_HASH_SIZE];

static UNUSED void fit_profile(struct arena *a)
{
    struct json *root = json_new_object(a), *columns, *labels;
    double *values = ARENA_ARRAY(a, double, REF_ROWS);
    struct edetector_bank *bank = ARENA_NEW(a, struct edetector_bank);
    AUTO(buf_done) struct buf text;

    columns = json_set(root, S("columns"), json_new_array(a));
    for (int i = 0; i < COLUMNS; i++) {
        struct json *c = json_push(columns, json_new_object(a));

        for (int k = 0; k < REF_ROWS; k++)
            values[k] = rng_normal(&rng);
        CHECK_OK(cells_spec_fit_numeric(values, REF_ROWS, 0, &specs[i], &e), &e);
        CHECK_OK(edetector_bank_fit(&specs[i], values, REF_ROWS,
                                    &(struct edetector_config){.features = COLUMNS, .seed = 1},
                                    bank, &e),
                 &e);
        json_set_str(a, c, S("name"), str_of(names[i]));
        json_set_str(a, c, S("role"), i < FEATURES ? S("feature") : S("output"));
        json_set(c, S("cells"), cells_spec_to_json(&specs[i], a));
        json_set(c, S("detector"), edetector_bank_to_json(bank, a));
    }
    labels = json_set(root, S("labels"), json_new_object(a));
    json_set_int(a, labels, S("n"), 20000);
    json_set_int(a, labels, S("errors"), 1000);
    json_set_str(a, labels, S("metric"), S("error_rate"));
    buf_init(&text, 64 << 20);
    json_write_canonical(&text, root);
    CHECK_OK(blobs_put(blobs, buf_str(&text), profile_hash, &e), &e);
}

static UNUSED void add_version(int version, const char *profile)
{
    char meta[256];

    snprintf(meta, sizeof(meta), "{\"profile\":\"%s\"}", profile);
    CHECK_OK(meta_exec(m,
                       "INSERT INTO model_versions (model, version, artifact, status, meta,"
                       " created_ns) VALUES ('fraud', ?, 'x', 'ready', ?, 0)",
                       M_ARGS(M_INT(version), M_STR(str_of(meta))), &e),
             &e);
}

static UNUSED void configure(const char *monitor)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *tree;

    if (!CHECK_OK(json_parse(arena_printf(&a,
                                          "{\"endpoints\":{\"pay\":{\"model\":\"fraud\"}},"
                                          "\"monitors\":{\"pay\":%s}}",
                                          monitor),
                             &a, &tree, &e),
                  &e))
        return;
    CHECK_OK(watch_configure(w, tree, &e), &e);
}

#define MONITOR "\"endpoint\":\"pay\",\"false_alarms\":{\"one_in_ns\":2592000000000000}"

static UNUSED void begin(void)
{
    AUTO(arena_done) struct arena a = {0};
    static unsigned count;
    char command[128], path[96];

    snprintf(dir, sizeof(dir), "%s/weir-watch-%d-%u",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (int)getpid(), count++);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
    time_test_virtual(NS_PER_S, T0);
    rng_seed(&rng, 7);
    CHECK_OK(meta_store_open(dir, NULL, &store, &e), &e);
    CHECK_OK(meta_open(store, &m, &e), &e);
    snprintf(path, sizeof(path), "%s/blobs", dir);
    CHECK_OK(blobs_open(path, &blobs, &e), &e);
    CHECK_OK(
        meta_exec(
            m,
            "INSERT INTO models (name, meta, created_ns, updated_ns) VALUES ('fraud', '{}', 0, 0)",
            M_NO_ARGS, &e),
        &e);
    fit_profile(&a);
    add_version(1, profile_hash);
    add_version(2, profile_hash);
    add_version(3, "");
    CHECK_OK(watch_new(blobs, &w, &e), &e);
    configure("{" MONITOR "}");
}

static UNUSED void end(void)
{
    char command[128];

    watch_free(TAKE(w));
    blobs_close(TAKE(blobs));
    meta_close(TAKE(m));
    meta_store_close(TAKE(store));
    time_test_real();
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
}

/* --- Traffic ---------------------------------------------------------------------------------- */

static UNUSED struct digest_series *series(struct arena *a, const struct traffic *t)
{
    struct digest_series *s = ARENA_NEW(a, struct digest_series);

    s->endpoint = S("pay");
    s->version = str_of(t->version);
    s->feature_count = FEATURES;
    s->column_count = COLUMNS;
    s->rows = s->requests = s->status[2] = t->rows;
    s->cells = ARENA_ARRAY(a, struct cells, COLUMNS);
    for (uint64_t row = 0; row < t->rows; row++)
        for (int i = 0; i < COLUMNS; i++) {
            double x = rng_normal(&rng) + (i == t->column ? t->shift : 0);

            if (i == t->column && rng_uniform(&rng) < t->missing)
                x = NAN;
            cells_fold_f64(spec_of[i], &s->cells[i], x);
        }
    for (uint64_t row = 0; t->error_rate >= 0 && row < t->rows; row++) {
        s->labels.joined++;
        s->labels.errors += rng_uniform(&rng) < t->error_rate;
    }
    s->labels.corrected = t->corrected;
    s->labels.errors += t->corrected;
    return s;
}

/* One digest with a series for each kind of traffic, a quarter of a second later. */
static UNUSED void push(const struct traffic *t, size_t n)
{
    AUTO(arena_done) struct arena a = {0};
    struct digest d;

    time_test_advance(STEP_NS);
    digest_init(&d, &a);
    d.to_wall_ns = time_wall_ns();
    d.from_wall_ns = d.to_wall_ns - STEP_NS;
    for (size_t i = 0; i < n; i++)
        CHECK_OK(digest_add_series(&d, series(&a, &t[i]), &e), &e);
    CHECK_OK(watch_digest(w, m, &d, time_wall_ns(), &e), &e);
}

static UNUSED void run(struct traffic t, int digests)
{
    for (int i = 0; i < digests; i++)
        push(&t, 1);
}

/* --- The journal ------------------------------------------------------------------------------ */

static UNUSED int facts(const char *type)
{
    int64_t n = -1;

    CHECK_OK(meta_first_int(m, "SELECT COUNT(*) FROM journal WHERE type = ?",
                            M_ARGS(M_STR(str_of(type))), 0, &n, &e),
             &e);
    return (int)n;
}

/* The data of the k-th fact of a type, from 0; an empty object when there is none. */
static UNUSED struct json *fact(struct arena *a, const char *type, size_t k)
{
    struct fact *list;
    struct json *data = json_new_object(a);
    size_t n = 0;

    CHECK_OK(
        journal_read(m, &(struct journal_query){.type_prefix = str_of(type)}, a, &list, &n, &e),
        &e);
    if (CHECK(k < n))
        CHECK_OK(json_parse(list[k].data, a, &data, &e), &e);
    return data;
}

static UNUSED str text(const struct json *data, const char *path)
{
    return json_str_or(json_path(data, path), S("(none)"));
}

static UNUSED double real(const struct json *data, const char *path)
{
    return json_real_or(json_path(data, path), NAN);
}
