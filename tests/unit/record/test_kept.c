/* SPDX-License-Identifier: Apache-2.0 */
/* The clock of digests, and the rows in which evidence is kept. */
#include "record/kept.h"

#include "base/mem.h"
#include "check.h"
#include "record/kept_io.h"

static struct err e;

static struct digest digest_of(uint64_t run, uint64_t sequence)
{
    return (struct digest){.run = run, .sequence = sequence};
}

static bool is_new(const struct digest_clock *c, uint64_t run, uint64_t sequence)
{
    struct digest d = digest_of(run, sequence);

    return digest_clock_is_new(c, &d);
}

static void note(struct digest_clock *c, uint64_t run, uint64_t sequence)
{
    struct digest d = digest_of(run, sequence);

    digest_clock_note(c, &d);
}

static void test_clock(void)
{
    struct digest_clock c = {0};

    CHECK(is_new(&c, 1, 0));
    note(&c, 1, 0);
    CHECK(!is_new(&c, 1, 0) && is_new(&c, 1, 1) && is_new(&c, 2, 0));
    note(&c, 1, 7); /* a gap is a loss, not a hindrance */
    CHECK(!is_new(&c, 1, 3) && is_new(&c, 1, 8));
    note(&c, 2, 0); /* the gateway started again */
    CHECK(!is_new(&c, 2, 0) && !is_new(&c, 1, 7));
    note(&c, 1, 2); /* never back */
    CHECK(!is_new(&c, 1, 7));
}

/* The runs that were heard of last are those that are known. */
static void test_clock_is_bounded(void)
{
    struct digest_clock c = {0};

    for (uint64_t run = 1; run <= 3 * DIGEST_RUNS_MAX; run++) {
        note(&c, 1000000, run);
        note(&c, run, 5);
    }
    CHECK_INT(c.n, DIGEST_RUNS_MAX);
    CHECK(!is_new(&c, 1000000, 3 * DIGEST_RUNS_MAX));
    CHECK(!is_new(&c, 3 * DIGEST_RUNS_MAX, 5));
    CHECK(is_new(&c, 1, 5));
}

static void write_row(struct buf *row)
{
    struct digest_clock clock = {0}, seen = {0};
    const struct kept_io io = {.out = row};
    uint64_t n = 123456789;
    double x = -0.5;

    note(&clock, 1, 10);
    note(&clock, 2, 20);
    note(&seen, 2, 25);
    note(&seen, 3, 30);
    buf_init(row, KEPT_BYTES_MAX);
    kept_begin(row, S("thing"), &clock, &seen);
    kept_count(&io, &n);
    kept_real(&io, &x);
    kept_end(row);
}

static void test_row(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf row = {0};
    struct digest_clock clock;
    struct bytes_reader r;
    const struct kept_io io = {.in = &r};
    uint64_t n = 0;
    double x = 0;

    write_row(&row);
    NEED_OK(kept_open(buf_str(&row), S("thing"), &a, &clock, &r, &e), &e);
    CHECK(!is_new(&clock, 1, 10) && is_new(&clock, 1, 11));
    CHECK(!is_new(&clock, 2, 25) && is_new(&clock, 2, 26)); /* the later of both */
    CHECK(!is_new(&clock, 3, 30));
    kept_count(&io, &n);
    kept_real(&io, &x);
    CHECK(n == 123456789 && x == -0.5 && r.p == r.end && !kept_is_bad(&io));
    kept_count(&io, &n); /* past the end */
    CHECK(kept_is_bad(&io));
    CHECK_FAILS(kept_open(buf_str(&row), S("other"), &a, &clock, &r, &e), DATA_LOSS, &e,
                "malformed");
}

static void test_damage(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf row = {0};
    struct digest_clock clock;
    struct bytes_reader r;

    write_row(&row);
    for (size_t i = 0; i < row.n; i++) {
        row.p[i] ^= 0x10;
        CHECK(kept_open(buf_str(&row), S("thing"), &a, &clock, &r, &e) == CODE_DATA_LOSS);
        row.p[i] ^= 0x10;
        CHECK(kept_open((str){row.p, i}, S("thing"), &a, &clock, &r, &e) == CODE_DATA_LOSS);
    }
}

static void test_fields_out_of_range(void)
{
    AUTO(buf_done) struct buf out = {0};
    struct bytes_reader r;
    const struct kept_io write = {.out = &out}, read = {.in = &r};
    double nan = NAN, x = 7;
    uint64_t huge = KEPT_COUNT_MAX + 1, n = 0;
    uint32_t five = 5;

    buf_init(&out, 1024);
    bytes_put_f64(&out, nan);
    r = (struct bytes_reader){.p = out.p, .end = out.p + out.n};
    kept_real(&read, &x);
    CHECK(r.bad && x == 0);
    buf_clear(&out);
    kept_count(&write, &huge);
    r = (struct bytes_reader){.p = out.p, .end = out.p + out.n};
    kept_count(&read, &n);
    CHECK(r.bad && n == 0);
    buf_clear(&out);
    kept_u32(&write, &five, 9);
    r = (struct bytes_reader){.p = out.p, .end = out.p + out.n};
    kept_same(&read, 6);
    CHECK(r.bad);
    buf_clear(&out);
    bytes_put_f64(&out, -1);
    r = (struct bytes_reader){.p = out.p, .end = out.p + out.n};
    kept_within(&read, &x, 10);
    CHECK(r.bad && x == 0);
}

RUN_TESTS(T(test_clock), T(test_clock_is_bounded), T(test_row), T(test_damage),
          T(test_fields_out_of_range))
