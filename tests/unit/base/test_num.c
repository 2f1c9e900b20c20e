/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/num.h"
#include "base/random.h"

#include <locale.h>

static bool same_bits(double a, double b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}

/* num_parse of the whole text. */
static bool parse(const char *text, double *value, int64_t *integer, bool *exact)
{
    const char *end = text + strlen(text);

    return num_parse(text, end, value, integer, exact) == end;
}

static void test_grammar(void)
{
    static const char *const good[] = {"0",   "-0",   "1",     "10",  "-12.5",  "0.1",
                                       "1e5", "1E+5", "1e-05", "0e0", "0.0e-0", "-0.0"};
    static const char *const bad[] = {"",         "-",   "+1",  "01", "-01",   ".5",  "1.",  "1.e5",
                                      "1e",       "1e+", "1e-", "e5", "--1",   "0x1", "inf", "nan",
                                      "Infinity", "- 1", " 1",  "1 ", "1_000", "1,0"};
    double value = 7;
    int64_t integer = 7;
    bool exact = false;

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        CHECK(parse(good[i], &value, &integer, &exact));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK(!parse(bad[i], &value, &integer, &exact));
}

/* num_parse of the first n bytes; how many of them it took, 0 when it refused. */
static size_t parse_n(const char *text, size_t n, double *value, int64_t *integer, bool *exact)
{
    const char *after = num_parse(text, text + n, value, integer, exact);

    return after ? (size_t)(after - text) : 0;
}

static void test_refusal_leaves_outputs(void)
{
    double value = 7;
    int64_t integer = 7;
    bool exact = true;

    CHECK(!parse_n("-x", 2, &value, &integer, &exact));
    CHECK(!parse_n("1.x", 3, &value, &integer, &exact));
    CHECK(!num_parse(NULL, NULL, &value, &integer, &exact));
    CHECK(value == 7 && integer == 7 && exact);
}

/* It stops after the number, never looks past the end, and gives what the bytes before it say. */
static void test_bounds(void)
{
    static const char text[] = "12345678901234567890";
    double value;
    int64_t integer;
    bool exact;

    for (size_t n = 1; n < sizeof(text) - 1; n++) {
        char *copy = malloc(n), want[32];

        NEED(copy);
        memcpy(copy, text, n);
        memcpy(want, text, n);
        want[n] = '\0';
        CHECK(num_parse(copy, copy + n, &value, &integer, &exact) == copy + n);
        CHECK(exact && integer == strtoll(want, NULL, 10));
        free(copy);
    }
    CHECK(parse_n("1.5,2", 5, &value, &integer, &exact) == 3 && value == 1.5);
    CHECK(parse_n("15", 1, &value, &integer, &exact) == 1 && integer == 1);
}

static void test_length_limit(void)
{
    char text[420];
    double value;
    int64_t integer;
    bool exact;

    memset(text, '0', sizeof(text));
    text[1] = '.';
    text[399] = '1';
    CHECK(num_parse(text, text + 400, &value, &integer, &exact) == text + 400);
    CHECK(num_parse(text, text + 401, &value, &integer, &exact) == NULL);
    memset(text, '9', sizeof(text));
    CHECK(num_parse(text, text + 400, &value, &integer, &exact) == text + 400 && isinf(value));
}

static void test_integers(void)
{
    static const struct {
        const char *text;
        bool exact;
        int64_t integer;
    } cases[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"-9223372036854775809", false, 0},
        {"18446744073709551616", false, 0},
        {"100000000000000000000", false, 0},
        {"1.0", false, 0},
        {"1e2", false, 0},
    };
    double value;
    int64_t integer;
    bool exact;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        NEED(parse(cases[i].text, &value, &integer, &exact));
        CHECK(exact == cases[i].exact);
        if (exact)
            CHECK_INT(integer, cases[i].integer);
        CHECK(same_bits(value, strtod(cases[i].text, NULL)));
    }
}

/* Texts that are hard to round: halfway cases, the edges of the range, long tails. */
static void test_hard_texts(void)
{
    static const char *const hard[] = {
        "9007199254740993",
        "9007199254740992.999999999999999999999999999999",
        "9007199254740993.000000000000000000000000000001",
        "1.7976931348623157e308",
        "1.7976931348623158e308",
        "1.7976931348623159e308",
        "2.2250738585072014e-308",
        "2.2250738585072011e-308",
        "4.9406564584124654e-324",
        "2.4703282292062327e-324",
        "2.4703282292062328e-324",
        "1e-999999999999",
        "1e999999999999",
        "0e999999999999",
        "123456789012345678901234567890123456789",
        "0.000000000000000000000000000000000000000000012345678901234567890123456789",
        "6.631236846766476e-316",
        "3.2378839133029012895883524125015321748630376694231080599012970495523019706706765657868"
        "357425877995578606157765598382834355143910841531692526891905643964595773946180389283653"
        "051434639551003566966656292020173313440317300443693602052583458034714716600326995807313"
        "009548483639755486900107515300188817581841745696521731104736960227499346384253e-309",
        "7.2057594037927933e16",
        "8.5e22",
        "1e23",
        "8589934592.5",
    };
    double value;
    int64_t integer;
    bool exact;

    for (size_t i = 0; i < ARRAY_LEN(hard); i++) {
        NEED(parse(hard[i], &value, &integer, &exact));
        CHECK(same_bits(value, strtod(hard[i], NULL)));
    }
}

/* Random decimals of every length and exponent: bit for bit what strtod says. */
static void test_parse_agrees_with_strtod(void)
{
    double value;
    int64_t integer;
    char text[96];
    struct rng r;
    bool exact;

    rng_seed(&r, 1);
    for (int i = 0; i < 1000000; i++) {
        int digits = 1 + (int)rng_below(&r, 25), at = 0;
        int range = i % 3 == 0 ? 30 : 340;

        if (rng_below(&r, 2))
            text[at++] = '-';
        text[at++] = (char)('1' + rng_below(&r, 9));
        for (int k = 1; k < digits; k++) {
            if (k == 1 + (int)rng_below(&r, 8) && !memchr(text, '.', (size_t)at))
                text[at++] = '.';
            text[at++] = (char)('0' + rng_below(&r, 10));
        }
        snprintf(text + at, sizeof(text) - (size_t)at, "e%d",
                 (int)rng_below(&r, (uint64_t)range * 2) - range);
        NEED(parse(text, &value, &integer, &exact));
        if (!CHECK(same_bits(value, strtod(text, NULL)))) {
            fprintf(stderr, "    %s\n", text);
            return;
        }
    }
}

/* Halfway points between neighbouring doubles, and a hair beside them. */
static void test_parse_halfway(void)
{
    double value;
    int64_t integer;
    struct rng r;
    bool exact;

    rng_seed(&r, 2);
    for (int i = 0; i < 100000; i++) {
        char text[128];
        /* 54 significant bits, the last one set: half between two doubles, an exact integer */
        uint64_t half = (UINT64_C(1) << 53 | rng_u64(&r) >> 11) | 1;
        unsigned shift = (unsigned)rng_below(&r, 9);

        snprintf(text, sizeof(text), "%llu%s", (unsigned long long)(half << shift),
                 i % 3 == 0   ? ""
                 : i % 3 == 1 ? ".0000000000000001"
                              : ".5e0");
        NEED(parse(text, &value, &integer, &exact));
        NEED(same_bits(value, strtod(text, NULL)));
    }
}

static void check_text_of(double v, const char *want)
{
    char text[NUM_TEXT_MAX + 1];

    text[num_f64_text(v, text)] = '\0';
    CHECK_STR(str_of(text), str_of(want));
}

static void test_layout(void)
{
    check_text_of(0, "0");
    check_text_of(-0.0, "-0");
    check_text_of(1, "1");
    check_text_of(-123.25, "-123.25");
    check_text_of(0.1, "0.1");
    check_text_of(1.0 / 3, "0.3333333333333333");
    check_text_of(1e15, "1000000000000000");
    check_text_of(1e20, "100000000000000000000");
    check_text_of(1e21, "1e+21");
    check_text_of(1.5e300, "1.5e+300");
    check_text_of(1e-6, "0.000001");
    check_text_of(1.25e-6, "0.00000125");
    check_text_of(1e-7, "1e-7");
    check_text_of(123456789012345680000.0, "123456789012345680000");
    check_text_of(1.7976931348623157e308, "1.7976931348623157e+308");
    check_text_of(5e-324, "5e-324");
    check_text_of(2.2250738585072014e-308, "2.2250738585072014e-308");
    check_text_of(9007199254740993.0, "9007199254740992");
    check_text_of(4.35, "4.35");
    check_text_of(2.0 / 3, "0.6666666666666666");
    check_text_of(9.5367431640625e-7, "9.5367431640625e-7"); /* 2^-20 */
}

static int significant_digits(const char *text)
{
    int n = 0, zeros = 0;

    for (; *text && *text != 'e'; text++) {
        if (*text < '0' || *text > '9' || (n == 0 && *text == '0'))
            continue;
        zeros = *text == '0' ? zeros + 1 : 0;
        n++;
    }
    return n - zeros;
}

/* Digits of the shortest %.*e that reads back. */
static int fewest_digits(double v, bool is_float)
{
    char text[40];
    int n = 0;

    do
        snprintf(text, sizeof(text), "%.*e", n, v);
    while (++n < 17 && (is_float ? (double)strtof(text, NULL) != v : strtod(text, NULL) != v));
    return significant_digits(text);
}

static void check_f64(double v)
{
    char text[NUM_TEXT_MAX + 1];
    double value;
    int64_t integer;
    bool exact;
    size_t n = num_f64_text(v, text);

    NEED(n < NUM_TEXT_MAX);
    text[n] = '\0';
    if (!CHECK(same_bits(strtod(text, NULL), v) && parse(text, &value, &integer, &exact) &&
               same_bits(value, v)))
        fprintf(stderr, "    %a %s\n", v, text);
}

static void check_f32(float v)
{
    char text[NUM_TEXT_MAX + 1];
    size_t n = num_f32_text(v, text);

    NEED(n < NUM_TEXT_MAX);
    text[n] = '\0';
    if (!CHECK(strtof(text, NULL) == v))
        fprintf(stderr, "    %a %s\n", (double)v, text);
}

static double random_double(struct rng *r)
{
    while (true) {
        uint64_t bits = rng_u64(r);
        double v;

        memcpy(&v, &bits, sizeof(v));
        if (isfinite(v))
            return v;
    }
}

static float random_float(struct rng *r)
{
    while (true) {
        uint32_t bits = (uint32_t)rng_u64(r);
        float v;

        memcpy(&v, &bits, sizeof(v));
        if (isfinite(v))
            return v;
    }
}

static void test_f64_round_trip(void)
{
    struct rng r;

    rng_seed(&r, 3);
    for (int i = 0; i < 1000000; i++) {
        check_f64(random_double(&r));
        check_f64(rng_normal(&r) * 100);
        check_f64((double)(int64_t)rng_below(&r, 100000000) / 1000);
    }
    for (int e = -1074; e <= 1023; e++) { /* powers of two and their neighbours */
        check_f64(ldexp(1, e));
        check_f64(nextafter(ldexp(1, e), 0));
        check_f64(nextafter(ldexp(1, e), INFINITY));
    }
}

static void test_f32_round_trip(void)
{
    struct rng r;

    rng_seed(&r, 4);
    for (int i = 0; i < 1500000; i++) {
        check_f32(random_float(&r));
        check_f32((float)rng_normal(&r));
    }
    for (int e = -149; e <= 127; e++) {
        check_f32(ldexpf(1, e));
        check_f32(nextafterf(ldexpf(1, e), 0));
        check_f32(nextafterf(ldexpf(1, e), INFINITY));
    }
}

/* No other decimal with fewer digits would do; checked on a sample against printf. */
static void test_shortest(void)
{
    char text[NUM_TEXT_MAX + 1];
    struct rng r;

    rng_seed(&r, 5);
    for (int i = 0; i < 50000; i++) {
        double d = i % 2 ? random_double(&r) : rng_normal(&r);
        float f = i % 2 ? random_float(&r) : (float)rng_normal(&r);

        text[num_f64_text(d, text)] = '\0';
        NEED(significant_digits(text) == fewest_digits(d, false));
        text[num_f32_text(f, text)] = '\0';
        NEED(significant_digits(text) == fewest_digits((double)f, true));
    }
    for (int i = 0; i < 20000; i++) { /* what people write comes back as they wrote it */
        char want[32];

        snprintf(want, sizeof(want), "%llu.%03llu", (unsigned long long)rng_below(&r, 1000),
                 (unsigned long long)rng_below(&r, 1000));
        text[num_f32_text(strtof(want, NULL), text)] = '\0';
        NEED(strtod(text, NULL) == strtod(want, NULL));
    }
}

static void test_f32_layout(void)
{
    static const struct {
        float v;
        const char *text;
    } cases[] = {{0.1f, "0.1"},
                 {16777216, "16777216"},
                 {3.4028235e38f, "3.4028235e+38"},
                 {1e-45f, "1e-45"},
                 {-0.0f, "-0"},
                 {0.33333334f, "0.33333334"},
                 {1e10f, "10000000000"},
                 {1.17549435e-38f, "1.1754944e-38"}};
    char text[NUM_TEXT_MAX];

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t n = num_f32_text(cases[i].v, text);

        CHECK_STR(((str){text, n}), str_of(cases[i].text));
    }
}

static void test_i64(void)
{
    char text[NUM_TEXT_MAX], want[32];
    struct rng r;

    rng_seed(&r, 6);
    for (int i = 0; i < 100000; i++) {
        int64_t v = (int64_t)rng_u64(&r) >> rng_below(&r, 64);
        int n = snprintf(want, sizeof(want), "%lld", (long long)v);

        NEED(num_i64_text(v, text) == (size_t)n && !memcmp(text, want, (size_t)n));
    }
    CHECK_INT(num_i64_text(INT64_MIN, text), 20);
}

/* A locale with a decimal comma changes nothing, when the machine has one. */
static void test_locale(void)
{
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "C"};
    double value;
    int64_t integer;
    bool exact;

    for (size_t i = 0; i < ARRAY_LEN(names) && !setlocale(LC_NUMERIC, names[i]); i++)
        continue;
    CHECK(parse("123456789012345678901.5e-30", &value, &integer, &exact));
    CHECK(value == 123456789012345678901.5e-30);
    check_text_of(5e-324, "5e-324");
    check_text_of(0.5, "0.5");
    CHECK(num_strtod("1.5", NULL) == 1.5 && num_strtof("1.5", NULL) == 1.5f);
    setlocale(LC_NUMERIC, "C");
}

RUN_TESTS(T(test_grammar), T(test_refusal_leaves_outputs), T(test_bounds), T(test_length_limit),
          T(test_integers), T(test_hard_texts), T(test_parse_agrees_with_strtod),
          T(test_parse_halfway), T(test_layout), T(test_f64_round_trip), T(test_f32_round_trip),
          T(test_shortest), T(test_f32_layout), T(test_i64), T(test_locale))
