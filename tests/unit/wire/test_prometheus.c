/* SPDX-License-Identifier: Apache-2.0 */
/* The text format of Prometheus, line by line. */
#include "check.h"

#include "wire/prometheus.h"

#include <math.h>

static void test_reads(void)
{
    struct prometheus p;
    struct prometheus_sample s;
    struct err e;

    prometheus_begin(&p, S("# HELP a b\n# TYPE a counter\na 1\n\n"
                           "b_total{x=\"1\", y=\"a\\\"}b\",} 2.5 1700000000000\r\n"
                           "c{} NaN\nd:e +Inf\nf -Inf"));
    CHECK(prometheus_next(&p, &s));
    CHECK_STR(s.name, S("a"));
    CHECK(!s.labels.n && s.value == 1);
    CHECK(prometheus_next(&p, &s));
    CHECK_STR(s.name, S("b_total"));
    CHECK_STR(prometheus_label(s.labels, S("x")), S("1"));
    CHECK_STR(prometheus_label(s.labels, S("y")), S("a\\\"}b"));
    CHECK(!prometheus_label(s.labels, S("z")).p && s.value == 2.5);
    CHECK(prometheus_next(&p, &s) && isnan(s.value));
    CHECK(prometheus_next(&p, &s) && s.value == (double)INFINITY);
    CHECK(prometheus_next(&p, &s) && s.value == -(double)INFINITY);
    CHECK(!prometheus_next(&p, &s));
    CHECK_OK(prometheus_end(&p, "it", &e), &e);
}

static void test_refuses(void)
{
    static const char *const bad[] = {"1a 1",     "a",          "a x",    "a{x=\"1\" 1",
                                      "a{x=1} 1", "a{x=\"1} 1", "a 1 x",  "a{",
                                      "a{x=\"\\", "<html>",     "a 1e999"};

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct prometheus p;
        struct prometheus_sample s;
        struct err e;
        char text[64];
        int n = snprintf(text, sizeof(text), "ok 1\n%s", bad[i]);

        prometheus_begin(&p, (str){text, (size_t)n});
        CHECK(prometheus_next(&p, &s));
        CHECK(!prometheus_next(&p, &s));
        CHECK_FAILS(prometheus_end(&p, "it", &e), INVALID_ARGUMENT, &e, "it: line 2");
    }
}

RUN_TESTS(T(test_reads), T(test_refuses))
