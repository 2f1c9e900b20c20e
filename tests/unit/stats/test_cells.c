/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"
#include "base/random.h"
#include "check.h"
#include "stats/distance.h"

enum { N = 10000 };
static double values[N];

static void fill_normal(double mean, double sd)
{
    struct rng r;

    rng_seed(&r, 11);
    for (int i = 0; i < N; i++)
        values[i] = mean + sd * rng_normal(&r);
}

/* The cell found the slow way. */
static uint32_t naive_bin(const struct cells_spec *s, double x)
{
    uint32_t b = 0;

    if (isnan(x))
        return s->bins;
    if (x < s->lo || x > s->hi)
        return s->bins + 1;
    while (b + 1 < s->bins && s->edges[b] <= x)
        b++;
    return b;
}

static void check_same_as_naive(const struct cells_spec *s)
{
    CHECK_INT(cells_bin_f64(s, NAN), s->bins);
    CHECK_INT(cells_bin_f64(s, INFINITY), s->bins + 1);
    CHECK_INT(cells_bin_f64(s, -INFINITY), s->bins + 1);
    for (int i = 0; i < N; i++)
        CHECK(cells_bin_f64(s, values[i]) == naive_bin(s, values[i]));
    for (uint32_t b = 0; b + 1 < s->bins; b++) {
        CHECK_INT(cells_bin_f64(s, s->edges[b]), b + 1);
        CHECK_INT(cells_bin_f64(s, nextafter(s->edges[b], -INFINITY)), b);
    }
    CHECK_INT(cells_bin_f64(s, s->lo), 0);
    CHECK_INT(cells_bin_f64(s, s->hi), s->bins - 1);
}

static void test_normal_column(void)
{
    struct cells_spec s;
    struct err e;

    fill_normal(1.7e9, 3);
    for (uint32_t bins = 1; bins <= CELLS_BINS_MAX; bins += 3) {
        NEED_OK(cells_spec_fit_numeric(values, N, bins, &s, &e), &e);
        CHECK_INT(s.bins, bins);
        CHECK(!s.lumpy);
        for (uint32_t b = 0; b < bins; b++)
            CHECK_NEAR(s.ref_counts[b], N / bins, 1);
        check_same_as_naive(&s);
    }
}

static void test_lumpy_columns(void)
{
    struct cells_spec s;
    struct err e;

    for (int i = 0; i < N; i++)
        values[i] = i % 2 ? 0.0 : 1.0 + 0.001 * i; /* half the mass at 0 */
    NEED_OK(cells_spec_fit_numeric(values, N, 0, &s, &e), &e);
    CHECK(s.lumpy && s.bins == 17);
    CHECK_INT(s.ref_counts[0], N / 2);
    check_same_as_naive(&s);
    for (int i = 0; i < N; i++)
        values[i] = i % 7;
    NEED_OK(cells_spec_fit_numeric(values, N, 0, &s, &e), &e);
    CHECK(s.lumpy && s.bins == 7);
    CHECK_NEAR(s.edges[2], 2.5, 0);
    CHECK_NEAR(s.mids[6], 6, 1e-12);
    for (int i = 0; i < N; i++)
        values[i] = -4.25;
    NEED_OK(cells_spec_fit_numeric(values, N, 0, &s, &e), &e);
    CHECK(s.bins == 1 && s.sd == 0);
    CHECK_INT(cells_bin_f32(&s, -4.25f), 0);
    CHECK_INT(cells_bin_f64(&s, -4.2), cells_outside(&s));
}

static void test_missing_and_infinite(void)
{
    double v[] = {NAN, 1, 2, INFINITY, 3, NAN, -INFINITY, 1e200};
    struct cells_spec s;
    struct cells c = {0};
    struct err e;

    NEED_OK(cells_spec_fit_numeric(v, ARRAY_LEN(v), 0, &s, &e), &e);
    CHECK_INT(s.bins, 3);
    CHECK_INT(s.ref_counts[cells_missing(&s)], 2);
    CHECK_INT(s.ref_counts[cells_outside(&s)], 3);
    cells_fold_array(&s, &c, v, ARRAY_LEN(v));
    CHECK(memcmp(c.counts, s.ref_counts, sizeof(c.counts)) == 0);
    CHECK_INT(c.n, 3);
    CHECK_NEAR(cells_mean(&s, &c), 2, 1e-12);
    CHECK_NEAR(cells_variance(&c), 1, 1e-12);
    CHECK_FAILS(cells_spec_fit_numeric(v, 2, 0, &s, &e), INVALID_ARGUMENT, &e, "finite");
    CHECK_FAILS(cells_spec_fit_numeric(v, 0, 0, &s, &e), INVALID_ARGUMENT, &e, "finite");
    CHECK_FAILS(cells_spec_fit_numeric(v, 3, 33, &s, &e), INVALID_ARGUMENT, &e, "32");
    mem_test_fail_after(0);
    CHECK_FAILS(cells_spec_fit_numeric(v, 3, 0, &s, &e), RESOURCE_EXHAUSTED, &e, "memory");
    mem_test_fail_after(-1);
}

/* No reference value may change its bin by being rounded to float32. */
static void test_float_rounding_keeps_the_bin(void)
{
    struct cells_spec s;
    struct err e;

    for (int i = 0; i < N; i++)
        values[i] = 0.1 * (i % 1000);
    NEED_OK(cells_spec_fit_numeric(values, N, 0, &s, &e), &e);
    for (int i = 0; i < N; i++)
        CHECK(cells_bin_f32(&s, (float)values[i]) == cells_bin_f64(&s, values[i]));
}

static void test_categories(void)
{
    uint64_t keys[40], counts[40];
    struct cells_spec s, t;
    struct err e;
    double nan = NAN;

    for (uint64_t i = 0; i < 40; i++) {
        keys[i] = cells_key_f64((double)i);
        counts[i] = 100 - i;
    }
    NEED_OK(cells_spec_fit_categorical(keys, counts, 40, 9, 0, &s, &e), &e);
    CHECK_INT(s.bins, 32);
    CHECK_INT(s.ref_counts[cells_missing(&s)], 9);
    CHECK_INT(s.ref_counts[cells_outside(&s)], 8 * 68 - 28);
    for (uint64_t i = 0; i < 40; i++) {
        uint32_t b = cells_bin_hash(&s, keys[i]);

        CHECK(i < 32 ? b < 32 && s.keys[b] == keys[i] : b == cells_outside(&s));
        CHECK_INT(cells_bin_f64(&s, (double)i), b);
    }
    CHECK_INT(cells_bin_f64(&s, -0.0), cells_bin_f64(&s, 0.0));
    CHECK_INT(cells_bin_f64(&s, nan), cells_missing(&s));
    CHECK_INT(cells_bin_hash(&s, UINT64_MAX), cells_outside(&s));
    keys[3] = keys[4];
    CHECK_FAILS(cells_spec_fit_categorical(keys, counts, 40, 0, 0, &s, &e), INVALID_ARGUMENT, &e,
                "twice");
    NEED_OK(cells_spec_fit_keys(keys, 40, 1, 0, &t, &e), &e);
    CHECK_INT(t.ref_counts[cells_bin_hash(&t, keys[4])], 2);
    CHECK_FAILS(cells_spec_fit_keys(keys, 0, 1, 0, &t, &e), INVALID_ARGUMENT, &e, "no category");
    CHECK(cells_key_str(S("red")) != cells_key_str(S("blue")));
}

static void test_merge_and_rows(void)
{
    const struct cells_spec *specs[3];
    struct cells_spec s;
    struct cells one[3] = {0}, whole = {0};
    struct err e;
    float row[3];
    uint8_t bins[3];

    fill_normal(5, 2);
    NEED_OK(cells_spec_fit_numeric(values, N, 0, &s, &e), &e);
    specs[0] = specs[1] = specs[2] = &s;
    for (int i = 0; i + 3 <= N; i += 3) {
        for (int k = 0; k < 3; k++) {
            row[k] = (float)values[i + k];
            cells_fold_f32(&s, &whole, row[k]);
        }
        for (int k = 0; k < 3; k++)
            cells_fold_f32(&s, &one[k], row[k]);
        cells_bin_row_f32(specs, row, 3, bins);
        CHECK_INT(bins[2], cells_bin_f32(&s, row[2]));
    }
    cells_merge(&one[0], &one[1]);
    cells_merge(&one[0], &one[2]);
    CHECK(memcmp(one[0].counts, whole.counts, sizeof(whole.counts)) == 0);
    CHECK_INT(one[0].n, whole.n);
    CHECK_NEAR(one[0].sum, whole.sum, 1e-6);
    CHECK_INT(cells_total(&whole), N / 3 * 3);
    CHECK_NEAR(cells_mean(&s, &whole), s.centre, 1e-2);
    CHECK_NEAR(cells_variance(&whole), s.sd * s.sd, 0.02);
}

/* A column at once falls into the cells of its values one by one, whatever they are. */
static void check_column(const struct cells_spec *s, struct rng *r)
{
    struct cells column = {0}, single = {0};
    struct cells_f32 f;

    cells_f32_of(s, &f);
    for (int round = 0; round < 200; round++) {
        float x[CELLS_COLUMN_ROWS];

        for (int i = 0; i < CELLS_COLUMN_ROWS; i++) {
            double edge = s->edges[rng_u64(r) % (s->bins ? s->bins : 1)];
            float near[] = {(float)edge,
                            nextafterf((float)edge, INFINITY),
                            nextafterf((float)edge, -INFINITY),
                            (float)s->lo,
                            nextafterf((float)s->lo, -INFINITY),
                            (float)s->hi,
                            nextafterf((float)s->hi, INFINITY),
                            NAN,
                            INFINITY,
                            -INFINITY,
                            0.0f,
                            -0.0f,
                            1e-45f,
                            3.4e38f,
                            (float)rng_normal(r),
                            (float)rng_normal(r)};

            x[i] = near[rng_u64(r) % ARRAY_LEN(near)];
            cells_fold_f32(s, &single, x[i]);
        }
        cells_fold_column_f32(s, &f, &column, x);
    }
    CHECK(memcmp(column.counts, single.counts, sizeof(single.counts)) == 0);
    CHECK_INT(column.n, single.n);
    CHECK_NEAR(column.sum / single.sum, 1, 1e-9);
    CHECK_NEAR(column.sumsq / single.sumsq, 1, 1e-9);
}

static void test_columns(void)
{
    static const uint32_t bins[] = {1, 2, 5, 17, 31, 32};
    struct cells_spec s;
    struct rng r;
    struct err e;

    rng_seed(&r, 7);
    fill_normal(5, 2);
    for (size_t i = 0; i < ARRAY_LEN(bins); i++) {
        NEED_OK(cells_spec_fit_numeric(values, N, bins[i], &s, &e), &e);
        check_column(&s, &r);
    }
    for (int i = 0; i < N; i++)
        values[i] = i % 7 * 1e20;
    NEED_OK(cells_spec_fit_numeric(values, N, 0, &s, &e), &e);
    check_column(&s, &r);
    for (int i = 0; i < N; i++)
        values[i] = i % 2 ? 1e45 : -1e45; /* beyond what a float can hold */
    NEED_OK(cells_spec_fit_numeric(values, N, 0, &s, &e), &e);
    check_column(&s, &r);
}

static void round_trip(const struct cells_spec *s)
{
    AUTO(arena_done) struct arena a;
    AUTO(buf_done) struct buf out;
    struct cells_spec back;
    struct json *node;
    struct err e;

    arena_init(&a, 0);
    buf_init(&out, BUF_MAX_DEFAULT);
    json_write_canonical(&out, cells_spec_to_json(s, &a));
    NEED_OK(json_parse(buf_str(&out), &a, &node, &e), &e);
    NEED_OK(cells_spec_from_json(node, &back, &e), &e);
    CHECK(cells_spec_equal(s, &back));
}

static void test_json(void)
{
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"{}", "kind"},
        {"{\"kind\":\"shape\"}", "numeric or categorical"},
        {"{\"kind\":\"numeric\",\"edges\":[2,1],\"mids\":[0,1,2],\"lo\":0,\"hi\":3,\"mean\":0,"
         "\"sd\":1,\"counts\":[1,1,1,0,0]}",
         "ascend"},
        {"{\"kind\":\"numeric\",\"edges\":[9],\"mids\":[0,1],\"lo\":0,\"hi\":3,\"mean\":0,\"sd\":1,"
         "\"counts\":[1,1,0,0]}",
         "within"},
        {"{\"kind\":\"numeric\",\"edges\":[1],\"mids\":[0],\"lo\":0,\"hi\":3,\"mean\":0,\"sd\":1,"
         "\"counts\":[1,1,0,0]}",
         "mids"},
        {"{\"kind\":\"numeric\",\"edges\":[],\"mids\":[0],\"lo\":0,\"hi\":3,\"mean\":0,\"sd\":-1,"
         "\"counts\":[1,0,0]}",
         "sd"},
        {"{\"kind\":\"numeric\",\"edges\":[],\"mids\":[0],\"lo\":0,\"hi\":3,\"mean\":0,\"sd\":1,"
         "\"counts\":[1,0]}",
         "counts"},
        {"{\"kind\":\"categorical\",\"keys\":[\"zz\"],\"counts\":[1,0,0]}", "hexadecimal"},
        {"{\"kind\":\"categorical\",\"keys\":[\"0000000000000002\",\"0000000000000001\"],"
         "\"counts\":[1,1,0,0]}",
         "ascend"},
        {"{\"kind\":\"categorical\",\"keys\":[\"0000000000000002\"],\"counts\":[-1,0,0]}", "count"},
    };
    AUTO(arena_done) struct arena a;
    uint64_t keys[] = {cells_key_str(S("a")), cells_key_str(S("b")), 0};
    struct cells_spec s;
    struct json *node;
    struct err e;

    arena_init(&a, 0);
    fill_normal(-3, 1e-7);
    NEED_OK(cells_spec_fit_numeric(values, N, 0, &s, &e), &e);
    round_trip(&s);
    NEED_OK(cells_spec_fit_keys(keys, 3, 5, 0, &s, &e), &e);
    round_trip(&s);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        NEED_OK(json_parse(str_of(bad[i].text), &a, &node, &e), &e);
        CHECK_FAILS(cells_spec_from_json(node, &s, &e), INVALID_ARGUMENT, &e, bad[i].part);
    }
}

static void test_distance_of_a_column(void)
{
    struct cells_spec s;
    struct cells same = {0}, moved = {0}, far = {0};
    struct distance d;
    struct err e;

    fill_normal(0, 1);
    NEED_OK(cells_spec_fit_numeric(values, N, 10, &s, &e), &e);
    for (int i = 0; i < N; i++) {
        cells_fold_f64(&s, &same, values[i]);
        cells_fold_f64(&s, &moved, values[i] + 0.5);
        cells_fold_f64(&s, &far, values[i] * 100 + 1000);
    }
    distance_of(&s, &same, &d);
    CHECK(d.psi == 0 && d.ks == 0 && d.wasserstein < 1e-9 && d.chi2.p == 1);
    CHECK_NEAR(d.variance_ratio, 1, 1e-9);
    distance_of(&s, &moved, &d);
    CHECK_NEAR(d.mean_delta_sd, 0.5, 0.01);
    CHECK_NEAR(d.wasserstein, 0.5, 0.05);
    CHECK_NEAR(d.ks, 0.197, 0.02); /* 2 Phi(1/4) - 1, taken at the nearest edge */
    CHECK(d.psi > d.psi_null && d.chi2.p < 1e-10 && d.ks_p < 1e-10);
    distance_of(&s, &far, &d);
    CHECK(d.wasserstein > 900 && d.outside_delta > 0.99);
}

RUN_TESTS(T(test_normal_column), T(test_lumpy_columns), T(test_missing_and_infinite),
          T(test_float_rounding_keeps_the_bin), T(test_categories), T(test_merge_and_rows),
          T(test_columns), T(test_json), T(test_distance_of_a_column))
