/* SPDX-License-Identifier: Apache-2.0 */
#include "record/join.h"

#include "sample.h"

#define RING ((size_t)1 << 20)

struct bench {
    struct record_ring *ring;
    struct fold fold;
    struct join *join;
};

static void bench_init(struct bench *b, uint32_t entries)
{
    struct err e;

    fold_init(&b->fold);
    if (!CHECK_OK(record_ring_new(RING, &b->ring, &e), &e) ||
        !CHECK_OK(join_new(entries, 0, &b->join, &e), &e))
        abort();
}

static void bench_done(struct bench *b)
{
    record_ring_free(b->ring);
    fold_done(&b->fold);
    join_free(b->join);
}

static void pump(struct bench *b)
{
    const struct record_head *h;

    while ((h = record_ring_next(b->ring))) {
        if (h->kind == RECORD_FEEDBACK) {
            join_feedback(b->join, &b->fold, h);
        } else {
            const struct record_schema *s = record_schema_at(h->schema_id);

            fold_record(&b->fold, h, s, true);
            join_record(b->join, &b->fold, h, s);
        }
    }
    record_ring_release(b->ring);
}

static void labels_join_once(void)
{
    const struct record_schema *s = sample_floats("join", "1", 2, NULL);
    struct digest_labels *l;
    struct bench b;

    bench_init(&b, 1024);
    sample_put(b.ring, s, S("a"), RECORD_PREDICT, 1, 0, 0.9f); /* says 1 */
    sample_put(b.ring, s, S("b"), RECORD_PREDICT, 1, 0, 0.2f); /* says 0 */
    sample_label(b.ring, S("a"), 1);
    sample_label(b.ring, S("b"), 1);
    sample_label(b.ring, S("b"), 1);
    sample_label(b.ring, S("unknown"), 1);
    sample_label(b.ring, S("a"), 7); /* no such class */
    pump(&b);
    l = &fold_series(&b.fold, s, 1, false)->labels;
    CHECK_INT(l->joined, 2);
    CHECK_INT(l->duplicates, 1);
    CHECK_INT(l->unusable, 1);
    CHECK_INT(l->errors, 1);
    CHECK_INT(l->confusion[1][1], 1);
    CHECK_INT(l->confusion[1][0], 1);
    CHECK_NEAR(l->squared_error, 0.01 + 0.64, 1e-6);
    CHECK_INT(b.fold.digest.feedback, 5);
    CHECK_INT(b.fold.digest.feedback_late, 1);
    sample_label(b.ring, S("b"), 0); /* a correction takes the error back */
    pump(&b);
    CHECK_INT(l->corrected, 1);
    CHECK_INT(l->joined, 2);
    CHECK_INT(l->errors, 0);
    CHECK_INT(l->confusion[1][0], 0);
    CHECK_INT(l->confusion[0][0], 1);
    CHECK_NEAR(l->squared_error, 0.01 + 0.04, 1e-6);
    bench_done(&b);
}

static void regression_has_a_tolerance(void)
{
    static const struct record_column columns[] = {{S_INIT("x"), RECORD_F32, 0},
                                                   {S_INIT("price"), RECORD_F64, 0}};
    struct record_schema_def d = {.endpoint = S("price"),
                                  .version = S("1"),
                                  .columns = columns,
                                  .feature_count = 1,
                                  .output_count = 1,
                                  .target = RECORD_TARGET_VALUE,
                                  .tolerance = 5};
    const struct record_schema *s;
    struct digest_labels *l;
    struct bench b;
    struct err e;

    NEED_OK(record_schema_add(&d, &s, &e), &e);
    bench_init(&b, 1024);
    sample_put(b.ring, s, S("a"), RECORD_PREDICT, 0, 0, 100);
    sample_put(b.ring, s, S("b"), RECORD_PREDICT, 0, 0, 100);
    sample_label(b.ring, S("a"), 103);
    sample_label(b.ring, S("b"), 90);
    pump(&b);
    l = &fold_series(&b.fold, s, 0, false)->labels;
    CHECK_INT(l->joined, 2);
    CHECK_INT(l->errors, 1);
    CHECK_NEAR(l->squared_error, 109, 1e-9);
    CHECK_NEAR(l->absolute_error, 13, 1e-9);
    bench_done(&b);
}

/* The three events of one request in all six orders give the same table. */
static void shadow_pairs_in_any_order(void)
{
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    const struct record_schema *p = sample_floats("pair", "1", 2, NULL);
    const struct record_schema *c = sample_floats("pair", "2", 2, NULL);

    for (int o = 0; o < 6; o++) {
        struct digest_series *t;
        bool label_last = orders[o][2] == 2, label_mid = orders[o][1] == 2;
        struct bench b;

        bench_init(&b, 1024);
        for (int i = 0; i < 3; i++)
            switch (orders[o][i]) {
            case 0:
                sample_put(b.ring, p, S("q"), RECORD_PREDICT, 0, 0, 0.9f);
                break;
            case 1:
                sample_put(b.ring, c, S("q"), RECORD_SHADOW, 2, 0, 0.1f);
                break;
            default:
                sample_label(b.ring, S("q"), 1);
            }
        pump(&b);
        t = fold_series(&b.fold, c, 2, true);
        CHECK_INT(t->paired.compared, 1);
        CHECK_INT(t->paired.agreed, 0);
        /* A label before its prediction is late, whatever comes after. */
        if (label_last || (label_mid && orders[o][0] == 0)) {
            CHECK_INT(t->paired.outcome[1][0], 1);
            CHECK_INT(t->labels.errors, 1);
            CHECK_NEAR(t->paired.loss_diff, 0.81 - 0.01, 1e-6);
            sample_label(b.ring, S("q"), 0); /* corrected: now only the shadow was right */
            pump(&b);
            CHECK_INT(t->paired.outcome[1][0], 0);
            CHECK_INT(t->paired.outcome[0][1], 1);
            CHECK_INT(t->labels.errors, 0);
            CHECK_INT(t->paired.loss_diff_count, 1);
            CHECK_NEAR(t->paired.loss_diff, 0.01 - 0.81, 1e-6);
        } else {
            CHECK_INT(b.fold.digest.feedback_late, 1);
            CHECK_INT(t->paired.loss_diff_count, 0);
        }
        bench_done(&b);
    }
}

/* Against a plain model: the last `capacity` predictions are found, older ones are not. */
static void the_oldest_makes_room(void)
{
    const struct record_schema *s = sample_floats("join", "1", 2, NULL);
    uint32_t total = 20000, capacity = 4096, found = 0, wrong = 0;
    struct bench b;
    char id[32];

    bench_init(&b, capacity);
    for (uint32_t i = 0; i < total; i++) {
        snprintf(id, sizeof id, "request-%u", i);
        sample_put(b.ring, s, str_of(id), RECORD_PREDICT, 0, 0, 0.9f);
        pump(&b);
    }
    CHECK_INT(b.fold.digest.join_evicted, total - capacity);
    for (uint32_t i = 0; i < total; i++) {
        uint64_t late = b.fold.digest.feedback_late;
        bool hit;

        snprintf(id, sizeof id, "request-%u", i);
        sample_label(b.ring, str_of(id), 1);
        pump(&b);
        hit = b.fold.digest.feedback_late == late;
        found += hit;
        wrong += hit != (i >= total - capacity);
    }
    CHECK_INT(found, capacity);
    CHECK_INT(wrong, 0);
    bench_done(&b);
}

static void rows_have_labels_of_their_own(void)
{
    const struct record_schema *s = sample_floats("join", "1", 2, NULL);
    struct record_meta m = {
        .schema = s, .kind = RECORD_PREDICT, .row_count = 3, .request_id = S("batch")};
    struct record_feedback_in f = {
        .request_id = S("batch"), .has = RECORD_HAS_LABEL_NUMBER, .label = 1};
    struct digest_labels *l;
    struct record_out o;
    struct bench b;

    bench_init(&b, 1024);
    NEED(record_begin(b.ring, &m, 0, &o));
    for (int i = 0; i < 3; i++) {
        record_put_number(&o, 2, i == 1 ? 0.9 : 0.1);
        record_next_row(&o);
    }
    record_commit(b.ring, &o);
    for (f.row = 0; f.row < 4; f.row++)
        record_put_feedback(b.ring, &f);
    pump(&b);
    l = &fold_series(&b.fold, s, 0, false)->labels;
    CHECK_INT(l->joined, 3);
    CHECK_INT(l->errors, 2);
    CHECK_INT(b.fold.digest.feedback_late, 1);
    bench_done(&b);
}

static void folding_counts_every_value(void)
{
    struct cells_spec spec = sample_spec();
    const struct record_schema *s = sample_floats("fold", "1", 5, &spec);
    struct record_meta m = {.schema = s,
                            .kind = RECORD_PREDICT,
                            .http_status = 200,
                            .row_count = 1,
                            .flags = RECORD_FALLBACK | RECORD_ANOMALY_RANGE};
    struct digest_series *t;
    struct record_out o;
    struct bench b;

    bench_init(&b, 1024);
    for (int i = 0; i < 100; i++)
        sample_put(b.ring, s, S("q"), RECORD_PREDICT, 0, i < 10 ? NAN : 0.0f, 0.5f);
    NEED(record_begin(b.ring, &m, 0, &o)); /* a fallback: features count, outputs do not */
    record_next_row(&o);
    record_commit(b.ring, &o);
    pump(&b);
    fold_settle(&b.fold);
    t = fold_series(&b.fold, s, 0, false);
    CHECK_INT(t->requests, 101);
    CHECK_INT(t->status[2], 101);
    CHECK_INT(t->flags[0], 1);
    CHECK_INT(t->latency->n, 101);
    for (uint32_t i = 0; i < 5; i++) {
        CHECK_INT(cells_total(&t->cells[i]), 101);
        CHECK_INT(t->cells[i].counts[cells_missing(&spec)], 10);
        CHECK_NEAR(cells_mean(&spec, &t->cells[i]), 0, 1e-12);
    }
    CHECK_INT(cells_total(&t->cells[5]), 100);
    CHECK_INT(b.fold.digest.series_count, 1);
    fold_reset(&b.fold);
    CHECK_INT(b.fold.digest.series_count, 0);
    CHECK_INT(cells_total(&t->cells[0]), 0);
    bench_done(&b);
}

RUN_TESTS(T(labels_join_once), T(regression_has_a_tolerance), T(shadow_pairs_in_any_order),
          T(the_oldest_makes_room), T(rows_have_labels_of_their_own), T(folding_counts_every_value))
