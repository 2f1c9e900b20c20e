/* SPDX-License-Identifier: Apache-2.0 */
/* Plans brought to life, with the identity engine: sharing, refusal, and what outputs mean. */
#include "check.h"

#include "base/mem.h"
#include "record/ring.h"
#include "serve/priv.h"

#include <unistd.h>

static struct arena a;
static struct blobs *blobs;
static char folder[] = "/tmp/weir-served-XXXXXX";

static str put(str text)
{
    char hash[BLOB_HASH_SIZE];
    struct err e;

    CHECK_OK(blobs_put(blobs, text, hash, &e), &e);
    return arena_dup(&a, str_of(hash));
}

/* An endpoint part over an identity model of `columns`, with more fields in `extra`. */
static str part(const char *name, str artifact, int columns, const char *extra)
{
    return put(arena_printf(
        &a,
        "{\"format\":1,\"name\":\"%s\",\"model\":\"m\",\"timeout_ns\":1000000,"
        "\"body_bytes_max\":1000,\"rows_max\":10,\"inflight_max\":5,%s"
        "\"versions\":[{\"version\":1,\"weight\":10000,\"arm\":\"champion\","
        "\"platform\":\"identity\",\"artifact\":\"" STR_F "\"}],\"signature\":{"
        "\"inputs\":[{\"name\":\"input\",\"datatype\":\"FP32\",\"shape\":[-1,%d]}],"
        "\"outputs\":[{\"name\":\"output\",\"datatype\":\"FP32\",\"shape\":[-1,%d]}],"
        "\"columns\":[{\"name\":\"a\",\"type\":\"float\",\"input\":0,\"element\":0}]}}",
        name, extra, STR_A(artifact), columns, columns));
}

static str root(str one, str two)
{
    return put(arena_printf(&a,
                            "{\"format\":1,\"project\":\"p\",\"endpoints\":{\"one\":\"" STR_F
                            "\",\"two\":\"" STR_F "\"}}",
                            STR_A(one), STR_A(two)));
}

static void test_plans_share_what_is_unchanged(void)
{
    struct served_config cfg = {.blobs = blobs, .loops = 2, .records = true, .cells = true};
    str model = put(S("{\"columns\":1}"));
    str one = part("one", model, 1, ""), two = part("two", model, 1, "");
    struct served_plan *first = NULL, *second = NULL, *third = NULL;
    struct served_endpoint *ep;
    struct err e;

    NEED_OK(served_plan_new(&cfg, root(one, two), NULL, &first, &e), &e);
    ep = served_plan_find(first, S("one"));
    NEED(ep && ep->champion && !served_plan_find(first, S("three")));
    CHECK(served_version_find(ep, S("1")) == ep->champion && !served_version_find(ep, S("2")));
    CHECK_INT(ep->champion->model->lane_count, 5); /* two for each loop, and the shadow thread */
    CHECK(ep->batched && ep->champion->schema && ep->champion->schema->column_count == 2);

    two = part("two", model, 1, "\"durable_log\":true,");
    NEED_OK(served_plan_new(&cfg, root(one, two), first, &second, &e), &e);
    CHECK(served_plan_find(second, S("one")) == ep);
    CHECK_INT(ep->refs, 2);
    CHECK(served_plan_find(second, S("two")) != served_plan_find(first, S("two")));
    CHECK(served_plan_find(second, S("two"))->champion->counters ==
          served_plan_find(first, S("two"))->champion->counters); /* counts go on */

    /* A refusal leaves the plan it was to follow as it was. */
    two = part("two", put(S("{\"columns\":2}")), 1, "");
    CHECK_FAILS(served_plan_new(&cfg, root(one, two), second, &third, &e), FAILED_PRECONDITION, &e,
                "register the model again");
    two = part("two", put(S("{\"columns\":2}")), 2, "");
    CHECK_FAILS(served_plan_new(&cfg, root(one, two), second, &third, &e), INVALID_ARGUMENT, &e,
                "columns fill 1 of 2");
    two = part("two", S("00"), 1, "");
    CHECK(served_plan_new(&cfg, root(one, two), second, &third, &e) != 0 && !third);
    CHECK_INT(ep->refs, 2);
    served_plan_unref(first);
    CHECK_INT(ep->refs, 1);
    served_plan_unref(second);
}

static void test_counters(void)
{
    AUTO(buf_done) struct buf text;
    struct counter_series *s = counters_series(S("cnt"), S("1"), S("champion"), 2);

    CHECK(s == counters_series(S("cnt"), S("1"), S("champion"), 2));
    CHECK(s != counters_series(S("cnt"), S("2"), S("champion"), 2));
    counters_request(&s->rows[0], END_OK, 3, 100, 60);
    counters_request(&s->rows[1], END_OK, 1, 101, 101);
    counters_request(&s->rows[1], END_DEADLINE, 0, UINT64_MAX, 0);
    buf_init(&text, 1 << 20);
    counters_batch(&s->rows[0], 1);
    counters_batch(&s->rows[1], 1025);
    counters_write_metrics(&text);
#define HAS(line) CHECK(strstr(buf_z(&text), line) != NULL)
    HAS("weir_requests_total{endpoint=\"cnt\",version=\"1\",arm=\"champion\",result=\"ok\"} 2\n");
    HAS("weir_rows_total{endpoint=\"cnt\",version=\"1\",arm=\"champion\"} 4\n");
    HAS("arm=\"champion\",le=\"0.0001\"} 1\n");
    HAS("arm=\"champion\",le=\"0.00025\"} 2\n");
    HAS("arm=\"champion\",le=\"+Inf\"} 3\n");
    HAS("weir_batch_rows_bucket{endpoint=\"cnt\",version=\"1\",arm=\"champion\",le=\"1024\"} 1\n");
    HAS("weir_batch_rows_bucket{endpoint=\"cnt\",version=\"1\",arm=\"champion\",le=\"+Inf\"} 2\n");
    HAS("weir_batch_rows_sum{endpoint=\"cnt\",version=\"1\",arm=\"champion\"} 1026\n");
#undef HAS
}

static struct tensor tensor_over(const struct tensor_spec *spec, void *data, int64_t rows)
{
    struct tensor t = {.spec = spec, .data = data, .cap_bytes = 1 << 20};

    tensor_set_rows(&t, rows);
    return t;
}

static void test_reading(void)
{
    const struct tensor_spec specs[] = {{S("label"), TENSOR_INT64, 1, {-1}},
                                        {S("p"), TENSOR_FP32, 2, {-1, 2}},
                                        {S("text"), TENSOR_BYTES, 1, {-1}},
                                        {S("half"), TENSOR_FP16, 1, {-1}}};
    int64_t labels[] = {1, INT64_MAX};
    float p[] = {0.6f, 0.4f, 0.1f, 0.9f};
    str texts[] = {S("spam"), S("other")}, names[] = {S("0"), S("1")},
        kinds[] = {S("ham"), S("spam")};
    uint16_t halves[] = {0x3c00, 0xc000};
    struct tensor out[] = {tensor_over(&specs[0], labels, 2), tensor_over(&specs[1], p, 2),
                           tensor_over(&specs[2], texts, 2), tensor_over(&specs[3], halves, 2)};
    struct plan_signature sig = {.reading = {0, 1, -1, names, 2, 1, 0.5}};
    struct row_reading r;

    reading_of_row(&sig, out, 0, &r); /* the threshold overrules the label */
    CHECK_INT(r.cls, 0);
    CHECK_NEAR(r.score, 0.4, 1e-6);
    CHECK_NEAR(r.confidence, 0.6, 1e-6);
    sig.reading.threshold = NAN;
    reading_of_row(&sig, out, 0, &r);
    CHECK_INT(r.cls, 1);
    sig.reading.probabilities = -1;
    reading_of_row(&sig, out, 1, &r); /* exact, and no class of that name */
    CHECK(r.has_int && r.cls == -1 && r.cls_int == INT64_MAX);
    sig.reading = (struct plan_reading){2, -1, -1, kinds, 2, -1, NAN};
    reading_of_row(&sig, out, 0, &r);
    CHECK_INT(r.cls, 1);
    reading_of_row(&sig, out, 1, &r);
    CHECK(r.cls == -1 && str_eq(r.cls_text, S("other")));
    sig.reading = (struct plan_reading){-1, -1, 3, NULL, 0, -1, NAN};
    reading_of_row(&sig, out, 1, &r);
    CHECK_NEAR(r.value, -2, 0);
    sig.reading = (struct plan_reading){-1, 1, -1, NULL, 0, -1, NAN};
    p[0] = p[1] = NAN;
    reading_of_row(&sig, out, 0, &r);
    CHECK(r.cls == -1 && isnan(r.confidence));
}

/* A request too large for one record is split, rows of uneven texts too; nothing is lost, and
 * a missing text is missing in its record. */
static void test_recording_splits(void)
{
    enum { ROWS = 300 };
    static str texts[ROWS];
    static float numbers[ROWS];
    static char filler[4000];
    const struct tensor_spec in = {S("t"), TENSOR_BYTES, 1, {-1}},
                             out = {S("y"), TENSOR_FP32, 1, {-1}};
    struct record_column columns[] = {{S("t"), RECORD_STR, 0}, {S("y"), RECORD_F32, 0}};
    struct record_schema_def def = {.endpoint = S("rec"),
                                    .version = S("1"),
                                    .columns = columns,
                                    .feature_count = 1,
                                    .output_count = 1};
    struct served_endpoint ep = {.schema = {&in, 1, &out, 1, true}};
    struct served_version v = {0};
    struct exchange x = {.ep = &ep, .rows = ROWS, .id = "req-1", .id_bytes = 5};
    struct tensor inputs = tensor_over(&in, texts, ROWS),
                  outputs = tensor_over(&out, numbers, ROWS);
    AUTO(record_ring_freep) struct record_ring *ring = NULL;
    const struct record_head *h;
    uint32_t rows = 0, records = 0;
    struct err e;

    memset(filler, 'x', sizeof(filler));
    for (int i = 0; i < ROWS; i++) {
        texts[i] = (str){filler, i % 7 ? 10 : sizeof(filler)};
        numbers[i] = (float)i;
    }
    texts[3] = S(""); /* how a missing text reaches the model */
    NEED_OK(record_schema_add(&def, &v.schema, &e), &e);
    NEED_OK(record_ring_new(1 << 20, &ring, &e), &e);
    CHECK(record_exchange(ring, &x, RECORD_PREDICT, &v, &inputs, &outputs, 200, 5) > 0);
    while ((h = record_ring_next(ring))) {
        const unsigned char *row = record_rows(h);

        CHECK_INT(h->row_first, rows);
        CHECK_STR(record_request_id(h), S("req-1"));
        for (uint32_t i = 0; i < h->row_count; i++, rows++) {
            CHECK_STR(record_row_text(v.schema, 0, row), texts[rows]);
            CHECK(!record_row_text(v.schema, 0, row).p == !texts[rows].n);
            CHECK_NEAR(record_row_number(v.schema, 1, row), numbers[rows], 0);
            row = record_row_after(v.schema, row);
        }
        records++;
    }
    CHECK_INT(rows, ROWS);
    CHECK(records > 1);
    /* A refused request has no rows, and a full ring says so. */
    CHECK(record_exchange(ring, &x, RECORD_PREDICT, &v, NULL, NULL, 400, 5) > 0);
    for (int i = 0; i < 64; i++)
        (void)record_exchange(ring, &x, RECORD_PREDICT, &v, &inputs, &outputs, 200, 5);
    CHECK_INT(record_exchange(ring, &x, RECORD_PREDICT, &v, &inputs, &outputs, 200, 5), 0);
}

static const struct check_test tests[] = {T(test_plans_share_what_is_unchanged), T(test_counters),
                                          T(test_reading), T(test_recording_splits)};

int main(int argc, char **argv)
{
    struct err e;
    int rc;

    arena_init(&a, 0);
    if (!check_mkdtemp(folder) || blobs_open(folder, &blobs, &e))
        return EXIT_FAILURE;
    rc = check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
    blobs_close(blobs);
    arena_done(&a);
    return rc;
}
