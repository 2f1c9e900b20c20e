/* SPDX-License-Identifier: Apache-2.0 */
#include "sample.h"

#include <pthread.h>

#define RING ((size_t)256 << 10)

static void a_record_comes_out_as_it_went_in(void)
{
    const struct record_schema *s = sample_mixed("ring");
    AUTO(record_ring_freep) struct record_ring *r = NULL;
    unsigned char user[RECORD_USER_BYTES] = "pseudonym";
    struct record_meta m = {.schema = s,
                            .kind = RECORD_PREDICT,
                            .arm = 3,
                            .flags = RECORD_ANOMALY_MISSING,
                            .http_status = 200,
                            .row_count = 2,
                            .wall_ns = 42,
                            .latency_us = 7,
                            .request_id = S("req-1"),
                            .user = user};
    const struct record_head *h;
    const unsigned char *row;
    struct record_out o;
    struct err e;

    NEED_OK(record_ring_new(RING, &r, &e), &e);
    NEED(record_begin(r, &m, 32, &o));
    record_put_number(&o, 0, 33.5);
    record_put_text(&o, 2, S("Zürich"));
    record_put_number(&o, 4, 0.75);
    record_next_row(&o);
    record_put_text(&o, 2, S(""));
    record_put_number(&o, 3, -9);
    record_next_row(&o);
    CHECK(record_commit(r, &o) > 0);
    h = record_ring_next(r);
    NEED(h && record_check(h, h->bytes, s));
    CHECK_STR(record_request_id(h), S("req-1"));
    CHECK(h->arm == 3 && h->wall_ns == 42 && h->latency_us == 7 && h->row_count == 2);
    CHECK(memcmp(h->user, user, sizeof user) == 0);
    CHECK(h->id_hash == record_id_hash(S("req-1")));
    row = record_rows(h);
    CHECK_NEAR(record_row_number(s, 0, row), 33.5, 0);
    CHECK_NEAR(record_row_number(s, 1, row), 0, 0);
    CHECK_STR(record_row_text(s, 2, row), S("Zürich"));
    CHECK_NEAR(record_row_number(s, 4, row), 0.75, 0);
    row = record_row_after(s, row);
    CHECK(record_row_text(s, 2, row).p && record_row_text(s, 2, row).n == 0);
    CHECK_NEAR(record_row_number(s, 3, row), -9, 0);
    CHECK(isnan(record_row_number(s, 2, row)));
    CHECK(record_ring_next(r) == NULL);
}

static void feedback_is_cut_to_its_limits(void)
{
    AUTO(record_ring_freep) struct record_ring *r = NULL;
    char longer[2000];
    struct record_feedback_in f = {.request_id = S("q"),
                                   .wall_ns = 5,
                                   .has = RECORD_HAS_RATING,
                                   .rating = 4,
                                   .outcome = RECORD_OUTCOME_CLICK,
                                   .label_text = S("dog"),
                                   .item = S("sku-9")};
    const struct record_feedback *fb;
    const struct record_head *h;
    struct err e;

    memset(longer, 'x', sizeof longer);
    longer[RECORD_COMMENT_MAX - 1] = (char)0xc3; /* a letter of two bytes across the limit */
    longer[RECORD_COMMENT_MAX] = (char)0xbc;
    f.comment = (str){longer, sizeof longer};
    NEED_OK(record_ring_new(RING, &r, &e), &e);
    CHECK(record_put_feedback(r, &f) > 0);
    h = record_ring_next(r);
    NEED(h && record_check(h, h->bytes, NULL));
    fb = record_feedback_of(h);
    CHECK_STR(record_feedback_label(fb), S("dog"));
    CHECK_INT(record_feedback_comment(fb).n, RECORD_COMMENT_MAX - 1);
    CHECK_STR(record_feedback_item(fb), S("sku-9"));
    CHECK(fb->rating == 4 && fb->outcome == RECORD_OUTCOME_CLICK && fb->event_ns == 5);
    CHECK(fb->has == (RECORD_HAS_RATING | RECORD_HAS_LABEL_TEXT | RECORD_HAS_COMMENT));
}

static void text_that_does_not_fit_is_cut(void)
{
    const struct record_schema *s = sample_mixed("ring");
    AUTO(record_ring_freep) struct record_ring *r = NULL;
    struct record_meta m = {.schema = s, .kind = RECORD_PREDICT, .row_count = 2};
    const struct record_head *h;
    struct record_out o;
    struct err e;

    NEED_OK(record_ring_new(RING, &r, &e), &e);
    NEED(record_begin(r, &m, 8, &o));
    record_put_text(&o, 2, S("a text far longer than was said"));
    record_next_row(&o);
    record_put_text(&o, 2, S("another"));
    record_next_row(&o);
    record_commit(r, &o);
    h = record_ring_next(r);
    NEED(h && record_check(h, h->bytes, s));
    CHECK(str_starts(S("a text far longer"), record_row_text(s, 2, record_rows(h))));
    m.row_count = 100000;
    CHECK(!record_begin(r, &m, 0, &o));
    CHECK_INT(record_ring_dropped(r), 1);
    m.row_count = record_rows_max(s, 16);
    CHECK(m.row_count > 1000);
    CHECK(record_begin(r, &m, 16 * (size_t)m.row_count, &o));
}

/* Records of random sizes, written and read in random bursts, against a list of their numbers. */
static void random_bursts_against_a_model(void)
{
    static uint32_t model[1 << 16];
    AUTO(record_ring_freep) struct record_ring *r = NULL;
    uint32_t written = 0, read = 0, refused = 0;
    struct record_feedback_in f = {0};
    char comment[RECORD_COMMENT_MAX];
    struct rng rng;
    struct err e;

    memset(comment, 'c', sizeof comment);
    rng_seed(&rng, 1);
    NEED_OK(record_ring_new(RING, &r, &e), &e);
    while (read < 50000) {
        for (uint64_t i = rng_below(&rng, 600); i > 0 && written < 50000; i--) {
            f.row = written;
            f.comment = (str){comment, rng_below(&rng, sizeof comment)};
            if (record_put_feedback(r, &f)) {
                model[written++ & 0xffff] = (uint32_t)f.comment.n;
            } else {
                CHECK(record_ring_pending_bytes(r) > RING - 2048);
                refused++;
            }
        }
        for (uint64_t i = rng_below(&rng, 600); i > 0; i--) {
            const struct record_head *h = record_ring_next(r);

            if (!h) {
                CHECK_INT(read, written);
                break;
            }
            if (!record_check(h, h->bytes, NULL) || record_feedback_of(h)->row != read ||
                record_feedback_of(h)->comment_bytes != model[read & 0xffff]) {
                CHECK_NEVER("a record is not what was written");
                return;
            }
            read++;
        }
        record_ring_release(r);
    }
    CHECK(refused > 100);
    CHECK_INT(record_ring_dropped(r), refused);
}

static void *produce(void *arg)
{
    struct record_feedback_in f = {0};

    for (uint32_t i = 0; i < 200000;) {
        f.row = i;
        if (record_put_feedback(arg, &f))
            i++;
    }
    return NULL;
}

static void two_threads_pass_every_record_once(void)
{
    AUTO(record_ring_freep) struct record_ring *r = NULL;
    uint32_t next = 0;
    pthread_t t;
    struct err e;

    NEED_OK(record_ring_new(RING, &r, &e), &e);
    NEED(pthread_create(&t, NULL, produce, r) == 0);
    while (next < 200000) {
        const struct record_head *h;

        while ((h = record_ring_next(r)))
            if (record_feedback_of(h)->row != next++) {
                CHECK_NEVER("out of order");
                break;
            }
        record_ring_release(r);
        usleep(200);
    }
    pthread_join(t, NULL);
    CHECK(record_ring_next(r) == NULL);
}

static void count_wake(void *ctx)
{
    ++*(int *)ctx;
}

static void wakes_and_fates(void)
{
    AUTO(record_ring_freep) struct record_ring *r = NULL;
    struct record_feedback_in f = {0};
    uint64_t first, second;
    int wakes = 0;
    struct err e;

    NEED_OK(record_ring_new(RING, &r, &e), &e);
    record_ring_set_wake(r, count_wake, &wakes);
    first = record_put_feedback(r, &f);
    CHECK_INT(wakes, 0);
    f.durable = true;
    second = record_put_feedback(r, &f);
    CHECK_INT(wakes, 1);
    CHECK(record_ring_fate(r, first) == RECORD_PENDING);
    record_ring_publish(r, first, 0);
    CHECK(record_ring_fate(r, first) == RECORD_DURABLE);
    CHECK(record_ring_fate(r, second) == RECORD_PENDING);
    record_ring_publish(r, second, second);
    CHECK(record_ring_fate(r, second) == RECORD_LOST);
    f.durable = false;
    while (record_put_feedback(r, &f))
        ;
    CHECK(wakes > 1 && wakes < 8); /* half full, then now and then */
}

static void damage_is_noticed(void)
{
    const struct record_schema *s = sample_mixed("ring");
    AUTO(record_ring_freep) struct record_ring *r = NULL;
    struct record_meta m = {
        .schema = s, .kind = RECORD_PREDICT, .row_count = 1, .request_id = S("abc")};
    _Alignas(8) unsigned char bytes[256], bad[256];
    const struct record_head *h;
    struct record_out o;
    struct rng rng;
    struct err e;

    NEED_OK(record_ring_new(RING, &r, &e), &e);
    NEED(record_begin(r, &m, 8, &o));
    record_put_text(&o, 2, S("Bern"));
    record_next_row(&o);
    record_commit(r, &o);
    h = record_ring_next(r);
    NEED(h->bytes <= sizeof bytes);
    memcpy(bytes, h, h->bytes);
    for (size_t n = 0; n < h->bytes; n++)
        CHECK(!record_check(bytes, n, s));
    CHECK(record_check(bytes, h->bytes, s));
    CHECK(!record_check(bytes, h->bytes, NULL));
    rng_seed(&rng, 5);
    for (int i = 0; i < 20000; i++) { /* whatever passes can be read (the sanitizer looks on) */
        memcpy(bad, bytes, sizeof bad);
        bad[rng_below(&rng, h->bytes)] = (unsigned char)rng_u64(&rng);
        if (record_check(bad, h->bytes, s)) {
            const struct record_head *b = (const void *)bad;
            str text = record_row_text(s, 2, record_rows(b));

            for (size_t k = 0; k < text.n; k++)
                CHECK(text.p + k < (const char *)bad + h->bytes);
        }
    }
}

RUN_TESTS(T(a_record_comes_out_as_it_went_in), T(feedback_is_cut_to_its_limits),
          T(text_that_does_not_fit_is_cut), T(random_bursts_against_a_model),
          T(two_threads_pass_every_record_once), T(wakes_and_fates), T(damage_is_noticed))
