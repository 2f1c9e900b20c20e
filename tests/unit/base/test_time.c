/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/random.h"
#include "base/time.h"

#include <time.h>

static void test_virtual_clocks(void)
{
    time_test_virtual(100, 2000);
    CHECK_INT(time_mono_ns(), 100);
    CHECK_INT(time_wall_ns(), 2000);
    time_test_advance(50);
    CHECK_INT(time_mono_ns(), 150);
    CHECK_INT(time_wall_ns(), 2050);
    time_test_step_wall(-1000);
    CHECK_INT(time_mono_ns(), 150);
    CHECK_INT(time_wall_ns(), 1050);
    time_test_real();
    CHECK(time_wall_ns() > INT64_C(1600000000) * NS_PER_S);
    CHECK(time_mono_ns() <= time_mono_ns());
}

static void test_iso_known(void)
{
    static const struct {
        int64_t ns;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {INT64_C(1709210096999999999), "2024-02-29T12:34:56.999Z"},
        {INT64_C(951782400000000000), "2000-02-29T00:00:00.000Z"},
        {INT64_C(4107542399000000000), "2100-02-28T23:59:59.000Z"},
        {INT64_C(4107542400000000000), "2100-03-01T00:00:00.000Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {INT64_MAX, "2262-04-11T23:47:16.854Z"},
        {INT64_MIN, "1677-09-21T00:12:43.145Z"},
    };
    char text[TIME_ISO_SIZE];

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        time_iso(cases[i].ns, text);
        CHECK_STR(str_of(text), str_of(cases[i].text));
    }
}

/* Random instants agree with the C library and read back. */
static void test_iso_round_trip(void)
{
    char text[TIME_ISO_SIZE], want[64];
    struct rng r;
    int64_t back;

    rng_seed(&r, 7);
    for (int i = 0; i < 200000; i++) {
        int64_t ms = (int64_t)rng_u64(&r) / NS_PER_MS;
        time_t s = (time_t)(ms / 1000 - (ms % 1000 < 0));
        struct tm tm;
        size_t n;

        time_iso(ms * NS_PER_MS, text);
        n = strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S", gmtime_r(&s, &tm));
        NEED(str_eq(str_take(str_of(text), n), str_of(want)));
        NEED(time_parse_iso(str_of(text), &back));
        NEED(back == ms * NS_PER_MS);
    }
}

static void test_parse_iso(void)
{
    static const struct {
        const char *text;
        int64_t ns;
    } good[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01t00:00:00z", 0},
        {"1970-01-01 00:00:01+00:00", NS_PER_S},
        {"1970-01-01T02:00:00+02:00", 0},
        {"1969-12-31T18:30:00-05:30", 0},
        {"1970-01-01T00:00:00.5Z", NS_PER_S / 2},
        {"1970-01-01T00:00:00.123456789999Z", 123456789},
        {"1970-01-01T00:00:60Z", 60 * NS_PER_S},
        {"2024-02-29T00:00:00Z", INT64_C(1709164800) * NS_PER_S},
    };
    static const char *const bad[] = {
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00Z",
        "1970-13-01T00:00:00Z",
        "1970-00-01T00:00:00Z",
        "1970-01-32T00:00:00Z",
        "1970-01-00T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "1970-01-01T24:00:00Z",
        "1970-01-01T00:60:00Z",
        "1970-01-01T00:00:61Z",
        "1970-01-01T00:00:00+24:00",
        "1970-01-01T00:00:00+2:00",
        "1970-01-01T00:00:00Zx",
        "1970-01-01X00:00:00Z",
        "9999-01-01T00:00:00Z",
        "1500-01-01T00:00:00Z",
        "197O-01-01T00:00:00Z",
    };
    int64_t ns = 42;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK(!time_parse_iso(str_of(bad[i]), &ns));
    CHECK_INT(ns, 42);
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        CHECK(time_parse_iso(str_of(good[i].text), &ns));
        CHECK_INT(ns, good[i].ns);
    }
}

static void test_parse_duration(void)
{
    static const struct {
        const char *text;
        int64_t ns;
    } good[] = {
        {"250ms", 250 * NS_PER_MS},
        {"5s", 5 * NS_PER_S},
        {"5sec", 5 * NS_PER_S},
        {"15min", 900 * NS_PER_S},
        {"15m", 900 * NS_PER_S},
        {"1h30m", 5400 * NS_PER_S},
        {"24h", 86400 * NS_PER_S},
        {"30d", 30 * 86400 * NS_PER_S},
        {"1w", 7 * 86400 * NS_PER_S},
        {"0s", 0},
        {"1.5h", 5400 * NS_PER_S},
        {"0.25s", 250 * NS_PER_MS},
        {"1us", NS_PER_US},
        {"7ns", 7},
        {"1s500ms", 1500 * NS_PER_MS},
        {"0.1d", 8640 * NS_PER_S},
    };
    static const char *const bad[] = {"",     "5",   "s",       "-5s",  "5 s",        "5S",
                                      "1.h",  ".5h", "1h1h",    "1m1h", "5min3m",     "1x",
                                      "1e3s", "s5",  "999999w", "5s ",  "15250w2d12h"};
    int64_t ns = 42;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK(!time_parse_duration(str_of(bad[i]), &ns));
    CHECK_INT(ns, 42);
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        CHECK(time_parse_duration(str_of(good[i].text), &ns));
        CHECK_INT(ns, good[i].ns);
    }
}

static void test_duration_text(void)
{
    static const struct {
        int64_t ns;
        const char *text;
    } cases[] = {
        {0, "0ns"},
        {999, "999ns"},
        {1500, "1.5us"},
        {250 * NS_PER_MS, "250ms"},
        {1234567, "1.2ms"},
        {1500 * NS_PER_MS, "1.5s"},
        {999960 * NS_PER_US, "1s"},
        {59940 * NS_PER_MS, "59.9s"},
        {59960 * NS_PER_MS, "1m"},
        {130 * NS_PER_S, "2m10s"},
        {3600 * NS_PER_S, "1h"},
        {5400 * NS_PER_S, "1h30m"},
        {(3 * 86400 + 4 * 3600 + 59) * NS_PER_S, "3d4h"},
        {-130 * NS_PER_S, "-2m10s"},
        {INT64_MIN, "-106751d23h"},
    };
    AUTO(arena_done) struct arena a = {0};
    struct rng r;
    int64_t back;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        CHECK_STR(time_duration_text(&a, cases[i].ns), str_of(cases[i].text));
    rng_seed(&r, 3);
    for (int i = 0; i < 20000; i++) { /* within five percent, at every size */
        int64_t ns = (int64_t)(rng_u64(&r) >> (1 + rng_below(&r, 60)));

        NEED(time_parse_duration(time_duration_text(&a, ns), &back));
        NEED(llabs(back - ns) <= MAX(ns / 20, INT64_C(0)));
        arena_reset(&a);
    }
}

static void test_sleep(void)
{
    int64_t began = time_mono_ns();

    time_sleep(5 * NS_PER_MS);
    CHECK(time_mono_ns() - began >= 5 * NS_PER_MS);
    time_test_virtual(0, 0);
    time_sleep(3600 * NS_PER_S);
    CHECK_INT(time_mono_ns(), 3600 * NS_PER_S);
    time_test_real();
}

RUN_TESTS(T(test_virtual_clocks), T(test_sleep), T(test_iso_known), T(test_iso_round_trip),
          T(test_parse_iso), T(test_parse_duration), T(test_duration_text))
