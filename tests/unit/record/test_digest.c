/* SPDX-License-Identifier: Apache-2.0 */
#include "sample.h"

static void fill(struct digest *d, const struct record_schema *s, uint64_t seed)
{
    struct rng r;
    struct err e;

    rng_seed(&r, seed);
    d->gateway = S("g1");
    d->plan = S("abc123");
    d->sequence = seed;
    d->from_wall_ns = (int64_t)(seed * 1000000000);
    d->to_wall_ns = d->from_wall_ns + 250000000;
    d->dropped_disk = rng_below(&r, 9);
    d->recorded = rng_u64(&r) >> 40;
    for (int i = 0; i < 3; i++) {
        struct digest_series *t = digest_series_new(d->arena, s, (uint8_t)i, i == 2);

        t->requests = t->rows = rng_below(&r, 1000) + 1;
        t->status[2] = t->rows;
        t->flags[2] = 5;
        for (uint64_t k = 0; k < t->rows; k++)
            latency_record(t->latency, rng_below(&r, 5000000));
        for (uint32_t c = 0; t->cells && c < t->column_count; c++)
            for (uint64_t k = 0; k < t->rows; k++)
                cells_fold_f64(s->cells[c], &t->cells[c], rng_normal(&r));
        t->labels.joined = 10;
        t->labels.errors = -3; /* a correction */
        t->labels.confusion[1][0] = -3;
        t->labels.confusion[1][1] = 13;
        t->labels.squared_error = rng_uniform(&r);
        if (i == 2) {
            t->paired.compared = 7;
            t->paired.outcome[1][0] = 2;
            t->paired.loss_diff = -0.25;
        }
        CHECK_OK(digest_add_series(d, t, &e), &e);
    }
}

static void check_same(const struct digest *a, const struct digest *b)
{
    CHECK_STR(a->gateway, b->gateway);
    CHECK_STR(a->plan, b->plan);
    CHECK(a->sequence == b->sequence && a->from_wall_ns == b->from_wall_ns &&
          a->to_wall_ns == b->to_wall_ns && a->dropped_disk == b->dropped_disk &&
          a->recorded == b->recorded);
    NEED(a->series_count == b->series_count);
    for (uint32_t i = 0; i < a->series_count; i++) {
        const struct digest_series *x = a->series[i], *y = b->series[i];

        CHECK_STR(x->endpoint, y->endpoint);
        CHECK(x->arm == y->arm && x->shadow == y->shadow && x->rows == y->rows);
        CHECK(memcmp(x->latency, y->latency, sizeof *x->latency) == 0);
        CHECK(memcmp(&x->labels, &y->labels, sizeof x->labels) == 0);
        CHECK(memcmp(&x->paired, &y->paired, sizeof x->paired) == 0);
        NEED(x->cells && y->cells);
        CHECK(memcmp(x->cells, y->cells, x->column_count * sizeof *x->cells) == 0);
    }
}

static void binary_form_reads_back(void)
{
    struct cells_spec spec = sample_spec();
    const struct record_schema *s = sample_floats("digest", "1", 30, &spec);
    AUTO(arena_done) struct arena a, b;
    AUTO(buf_done) struct buf bytes;
    struct digest d, back;
    struct err e;

    arena_init(&a, 0);
    arena_init(&b, 0);
    buf_init(&bytes, DIGEST_BYTES_MAX);
    digest_init(&d, &a);
    fill(&d, s, 3);
    digest_encode(&d, &bytes);
    NEED_OK(digest_decode(buf_str(&bytes), &b, &back, &e), &e);
    check_same(&d, &back);
    printf("a digest of 3 series x 31 columns takes %zu bytes\n", bytes.n);
    CHECK(bytes.n < 24000);
}

static void merging_adds_in_any_order(void)
{
    struct cells_spec spec = sample_spec();
    const struct record_schema *s = sample_floats("digest", "1", 3, &spec);
    AUTO(arena_done) struct arena a;
    struct digest parts[4], forth, back;
    struct digest_series *t;
    uint64_t rows = 0;
    struct err e;

    arena_init(&a, 0);
    digest_init(&forth, &a);
    digest_init(&back, &a);
    for (uint32_t i = 0; i < 4; i++) {
        digest_init(&parts[i], &a);
        fill(&parts[i], s, i + 1);
        rows += parts[i].series[1]->rows;
    }
    for (uint32_t i = 0; i < 4; i++) {
        NEED_OK(digest_merge(&forth, &parts[i], &e), &e);
        NEED_OK(digest_merge(&back, &parts[3 - i], &e), &e);
    }
    CHECK_INT(forth.series_count, 3);
    t = digest_find(&forth, S("digest"), S("1"), s->hash, 1, false);
    NEED(t);
    CHECK_INT(t->rows, rows);
    CHECK_INT(t->labels.errors, -12);
    CHECK_INT(cells_total(&t->cells[0]), rows);
    CHECK(forth.from_wall_ns == NS_PER_S && forth.to_wall_ns == 4 * NS_PER_S + 250000000);
    CHECK(forth.from_wall_ns == back.from_wall_ns && forth.to_wall_ns == back.to_wall_ns);
    CHECK(memcmp(forth.series[2]->latency, back.series[2]->latency, sizeof(struct latency)) == 0);
    CHECK_INT(digest_find(&back, S("digest"), S("1"), s->hash, 2, true)->paired.compared, 28);
    CHECK(!digest_find(&forth, S("digest"), S("1"), s->hash, 2, false));
}

static void damaged_bytes_are_refused(void)
{
    struct cells_spec spec = sample_spec();
    const struct record_schema *s = sample_floats("digest", "1", 2, &spec);
    AUTO(arena_done) struct arena a, b;
    AUTO(buf_done) struct buf bytes;
    struct digest d, back;
    struct rng r;
    struct err e;

    arena_init(&a, 0);
    buf_init(&bytes, DIGEST_BYTES_MAX);
    digest_init(&d, &a);
    fill(&d, s, 3);
    digest_encode(&d, &bytes);
    rng_seed(&r, 2);
    for (int i = 0; i < 2000; i++) {
        size_t at = rng_below(&r, bytes.n);
        char old = bytes.p[at];

        arena_init(&b, (size_t)4 << 20);
        bytes.p[at] = (char)(old ^ (1 + (int)rng_below(&r, 255)));
        CHECK(digest_decode(buf_str(&bytes), &b, &back, &e) != 0);
        bytes.p[at] = old;
        CHECK(digest_decode(str_take(buf_str(&bytes), at), &b, &back, &e) != 0);
        arena_done(&b);
    }
    arena_init(&b, 1024); /* too little memory is an error, not a crash */
    CHECK_FAILS(digest_decode(buf_str(&bytes), &b, &back, &e), RESOURCE_EXHAUSTED, &e, "memory");
}

static void json_is_json(void)
{
    struct cells_spec spec = sample_spec();
    const struct record_schema *s = sample_floats("digest", "1", 2, &spec);
    AUTO(arena_done) struct arena a;
    AUTO(buf_done) struct buf text;
    struct json *root, *series;
    struct digest d;
    struct err e;

    arena_init(&a, 0);
    buf_init(&text, DIGEST_BYTES_MAX);
    digest_init(&d, &a);
    fill(&d, s, 3);
    digest_write_json(&d, true, &text);
    NEED_OK(json_parse(buf_str(&text), &a, &root, &e), &e);
    series = json_at(json_get(root, S("series")), 2);
    CHECK_INT(json_int_or(json_path(series, "paired.only_primary_right"), 0), 2);
    CHECK_INT(json_int_or(json_path(series, "labels.errors"), 0), -3);
    CHECK_STR(
        json_str_or(json_get(json_at(json_get(series, S("columns")), 1), S("name")), STR_NULL),
        S("x1"));
}

RUN_TESTS(T(binary_form_reads_back), T(merging_adds_in_any_order), T(damaged_bytes_are_refused),
          T(json_is_json))
