/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "load/answer.h"
#include "load/schedule.h"
#include "load/tally.h"

static void fixed_times_do_not_drift(void)
{
    struct load_schedule s;
    uint64_t number;
    int64_t at = 0;

    load_schedule_init(&s, 3, false, 0, 1, 1);
    CHECK_INT(load_schedule_next(&s, &number), 0);
    CHECK_INT(number, 0);
    CHECK_INT(load_schedule_next(&s, &number), 333333333);
    load_schedule_init(&s, 7, false, 0, 1, 1);
    for (int i = 0; i <= 7000; i++)
        at = load_schedule_next(&s, &number);
    CHECK_INT(number, 7000);
    CHECK_NEAR(at, 1e12, 1);
}

/* Together the lanes give what one lane gives. */
static void lanes_interleave(void)
{
    struct load_schedule one, lanes[3];
    uint64_t n, m;

    load_schedule_init(&one, 1000, false, 0, 1, 1);
    for (uint32_t i = 0; i < 3; i++)
        load_schedule_init(&lanes[i], 1000, false, i, 3, 1);
    for (int i = 0; i < 300; i++) {
        CHECK_INT(load_schedule_next(&lanes[i % 3], &m), load_schedule_next(&one, &n));
        CHECK_INT(m, n);
    }
}

/* Gaps of a Poisson process: mean and standard deviation are the period. */
static void poisson_gaps(void)
{
    enum { N = 200000 };
    struct load_schedule s;
    double sum = 0, squares = 0;
    int64_t before = 0;
    uint64_t number;

    load_schedule_init(&s, 1e6, true, 0, 1, 7);
    for (int i = 0; i < N; i++) {
        int64_t at = load_schedule_next(&s, &number);
        double gap = (double)(at - before);

        CHECK(at >= before);
        sum += gap;
        squares += gap * gap;
        before = at;
    }
    CHECK_NEAR(sum / N, 1000, 4 * 1000 / sqrt(N));
    CHECK_NEAR(sqrt(squares / N - sum / N * sum / N), 1000, 20);
}

static void scores(void)
{
    struct load_tally t = {.judged = 100, .correct = 90, .tp = 30, .fp = 2, .fn = 8}, none = {0};
    char digits[8];

    CHECK_NEAR(load_tally_accuracy(&t), 0.9, 1e-12);
    CHECK_NEAR(load_tally_precision(&t), 30.0 / 32, 1e-12);
    CHECK_NEAR(load_tally_recall(&t), 30.0 / 38, 1e-12);
    CHECK_NEAR(load_tally_f1(&t), 2 * (30.0 / 32) * (30.0 / 38) / (30.0 / 32 + 30.0 / 38), 1e-12);
    CHECK(isnan(load_tally_f1(&none)));
    CHECK_STR(load_failure_text(LOAD_FAIL_STATUS(503), digits), S("503"));
    CHECK_STR(load_failure_text(LOAD_FAIL_TIMEOUT, digits), S("timeout"));
}

static void classes_of_answers(void)
{
    static const struct {
        enum load_api api;
        const char *field;
        bool argmax;
        const char *body, *want; /* NULL: no prediction */
    } cases[] = {
        {LOAD_PREDICT, "prediction", false, "{\"prediction\":\"yes\",\"score\":0.5}", "yes"},
        {LOAD_PREDICT, "prediction", false, "{\"prediction\": 1, \"score\":0.5}", "1"},
        {LOAD_PREDICT, "prediction", false, "{\"prediction\":null}", NULL},
        {LOAD_PREDICT, "prediction", false, "{\"prediction\":\"a\\u0041\"}", NULL},
        {LOAD_PREDICT, "prediction", false, "{\"other\":1}", NULL},
        {LOAD_PREDICT, "prediction", false, "\"prediction\"", NULL},
        {LOAD_PREDICT, "prediction", false, "", NULL},
        {LOAD_OIP, "label", false,
         "{\"outputs\":[{\"name\":\"label\",\"datatype\":\"INT64\",\"shape\":[1],\"data\":[1]}]}",
         "1"},
        {LOAD_OIP, "p", true, "{\"outputs\":[{\"name\":\"p\",\"data\":[0.1, 0.7 ,0.2]}]}", "1"},
        {LOAD_OIP, "p", true, "{\"outputs\":[{\"name\":\"p\",\"data\":[0.7]}]}", "1"},
        {LOAD_OIP, "p", true, "{\"outputs\":[{\"name\":\"p\",\"data\":[0.2]}]}", "0"},
        {LOAD_OIP, "p", true, "{\"outputs\":[{\"name\":\"p\",\"data\":[]}]}", NULL},
        {LOAD_OIP, "p", true, "{\"name\":\"p\",\"data\":[0,0,0,0,0,0,0,0,0,0,0,0,0.9,0]}", "12"},
        {LOAD_OIP, "p", true, "{\"name\":\"p\"", NULL},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct load_reader reader = {
            .api = cases[i].api, .field = str_of(cases[i].field), .argmax = cases[i].argmax};
        str got = load_answer_class(&reader, str_of(cases[i].body));

        CHECK(!got.p == !cases[i].want);
        CHECK_STR(got, str_of(cases[i].want));
    }
}

RUN_TESTS(T(fixed_times_do_not_drift), T(lanes_interleave), T(poisson_gaps), T(scores),
          T(classes_of_answers))
