/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/random.h"

static void test_slices(void)
{
    CHECK(str_eq(STR_NULL, S("")));
    CHECK(!str_eq(S("a"), S("b")));
    CHECK(str_eqz(S("abc"), "abc"));
    CHECK(str_cmp(S("a"), S("ab")) < 0);
    CHECK(str_cmp(S("b"), S("ab")) > 0);
    CHECK(str_cmp(S("\x7f"), S("\x80")) < 0);
    CHECK(str_cmp(STR_NULL, S("")) == 0);
    CHECK(str_eq_nocase(S("Content-Type"), S("content-tYPE")));
    CHECK(!str_eq_nocase(S("a["), S("a{")));
    CHECK_STR(str_trim(S(" \t a b\r\n")), S("a b"));
    CHECK_STR(str_trim(S("  ")), S(""));
    CHECK_STR(str_skip(S("abc"), 2), S("c"));
    CHECK_STR(str_skip(S("abc"), 9), S(""));
    CHECK_STR(str_take(S("abc"), 2), S("ab"));
    CHECK_STR(str_take(S("abc"), 9), S("abc"));
    CHECK(str_starts(S("abc"), S("ab")) && str_starts(S("abc"), STR_NULL));
    CHECK(!str_starts(S("ab"), S("abc")));
    CHECK(str_ends(S("abc"), S("bc")) && !str_ends(S("bc"), S("abc")));
    CHECK_INT(str_find(S("abcabc"), S("ca")), 2);
    CHECK_INT(str_find(S("abc"), S("x")), -1);
    CHECK_INT(str_find_char(S("abc"), 'c'), 2);
    CHECK_INT(str_find_char(STR_NULL, 'c'), -1);
}

static void test_cut_walks_all_pieces(void)
{
    static const char *const want[] = {"a", "", "bc", ""};
    str rest = S("a,,bc,");
    size_t n = 0;

    while (rest.p) {
        str piece = str_cut(&rest, ',');

        NEED(n < ARRAY_LEN(want));
        CHECK(str_eqz(piece, want[n]));
        n++;
    }
    CHECK_INT(n, ARRAY_LEN(want));
}

static void test_integers(void)
{
    static const char *const bad[] = {"", "-", "+1", " 1", "1 ", "1x", "--1", "0x1", "1.0"};
    uint64_t u = 7;
    int64_t i = 7;

    for (size_t k = 0; k < ARRAY_LEN(bad); k++) {
        CHECK(!str_to_i64(str_of(bad[k]), &i));
        CHECK(!str_to_u64(str_of(bad[k]), &u));
    }
    CHECK(u == 7 && i == 7);
    CHECK(str_to_u64(S("18446744073709551615"), &u) && u == UINT64_MAX);
    CHECK(!str_to_u64(S("18446744073709551616"), &u));
    CHECK(!str_to_u64(S("99999999999999999999"), &u));
    CHECK(str_to_i64(S("9223372036854775807"), &i) && i == INT64_MAX);
    CHECK(!str_to_i64(S("9223372036854775808"), &i));
    CHECK(str_to_i64(S("-9223372036854775808"), &i) && i == INT64_MIN);
    CHECK(!str_to_i64(S("-9223372036854775809"), &i));
    CHECK(str_to_i64(S("-0"), &i) && i == 0);
}

static void test_reals(void)
{
    static const char *const bad[] = {"",   "+1",   " 1",  "1 ",    "\v1", "0x10", "inf", "nan",
                                      "1e", "1e5x", "--1", "1e400", ".",   "e5",   "1,5", "-inf"};
    static const struct {
        const char *text;
        double value;
    } good[] = {{"1", 1},      {"-0.5", -0.5},        {".5", 0.5}, {"5.", 5},    {"007", 7},
                {"1e3", 1000}, {"-1.25E-2", -0.0125}, {"0", 0},    {"1e-400", 0}};
    char digits[500];
    double v = 7;

    for (size_t k = 0; k < ARRAY_LEN(bad); k++)
        CHECK(!str_to_f64(str_of(bad[k]), &v));
    CHECK(!str_to_f64(S("1\0"), &v));
    CHECK(v == 7);
    for (size_t k = 0; k < ARRAY_LEN(good); k++) {
        CHECK(str_to_f64(str_of(good[k].text), &v));
        CHECK(v == good[k].value);
    }
    memset(digits, '1', sizeof(digits));
    digits[1] = '.';
    CHECK(str_to_f64((str){digits, sizeof(digits)}, &v));
    CHECK_NEAR(v, 1.1111111111111112, 1e-16);
}

static void test_utf8(void)
{
    static const struct {
        str text;
        bool ok;
    } cases[] = {
        {S_INIT(""), true},
        {S_INIT("plain ascii that is longer than eight"), true},
        {S_INIT("\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"), true},
        {S_INIT("12345678\xC3\xA9"), true},
        {S_INIT("\xED\x9F\xBF\xEE\x80\x80"), true}, /* around the surrogates */
        {S_INIT("\xF4\x8F\xBF\xBF"), true},         /* U+10FFFF */
        {S_INIT("\x80"), false},
        {S_INIT("\xC3"), false},
        {S_INIT("\xC0\x80"), false},         /* overlong */
        {S_INIT("\xE0\x9F\xBF"), false},     /* overlong */
        {S_INIT("\xF0\x8F\xBF\xBF"), false}, /* overlong */
        {S_INIT("\xED\xA0\x80"), false},     /* surrogate */
        {S_INIT("\xF4\x90\x80\x80"), false}, /* past U+10FFFF */
        {S_INIT("\xF5\x80\x80\x80"), false},
        {S_INIT("1234567\xFF"), false},
        {S_INIT("\xE2\x82"), false},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        CHECK(str_is_utf8(cases[i].text) == cases[i].ok);
    CHECK_INT(str_utf8_step(S("\xE2\x82\xAC...")), 3);
    CHECK_INT(str_utf8_step(S("\xFF")), 0);
    CHECK_INT(str_utf8_step(STR_NULL), 0);
}

static void test_names(void)
{
    static const char *const good[] = {"a", "9", "churn-v2", "a.b_c", "Z"};
    static const char *const bad[] = {"", ".a", "-a", "a..b", "a/b", "a b", "\xC3\xA9", "_a"};
    char longest[129];

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        CHECK(str_is_name(str_of(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK(!str_is_name(str_of(bad[i])));
    memset(longest, 'a', sizeof(longest));
    CHECK(str_is_name((str){longest, 128}));
    CHECK(!str_is_name((str){longest, 129}));
}

static void test_to_z(void)
{
    char z[4] = "xyz";

    CHECK(str_to_z(S("abc"), z, sizeof(z)) && !strcmp(z, "abc"));
    CHECK(!str_to_z(S("abcd"), z, sizeof(z)) && !strcmp(z, ""));
    CHECK(!str_to_z(S("a\0b"), z, sizeof(z)) && !strcmp(z, ""));
    CHECK(str_to_z(STR_NULL, z, sizeof(z)) && !strcmp(z, ""));
}

static void test_suggest(void)
{
    static const str names[] = {S_INIT("endpoint"), S_INIT("threshold"), S_INIT("window")};

    CHECK_INT(str_distance(S("kitten"), S("sitting")), 3);
    CHECK_INT(str_distance(S("ab"), S("ba")), 1);
    CHECK_INT(str_distance(S("AB"), S("ba")), 1);
    CHECK_INT(str_distance(S("same"), S("SAME")), 0);
    CHECK_INT(str_distance(S(""), S("abc")), 3);
    CHECK_STR(str_suggest(S("treshold"), names, ARRAY_LEN(names)), S("threshold"));
    CHECK_STR(str_suggest(S("wnidow"), names, ARRAY_LEN(names)), S("window"));
    CHECK(!str_suggest(S("colour"), names, ARRAY_LEN(names)).p);
    CHECK(!str_suggest(S("x"), names, 0).p);
}

RUN_TESTS(T(test_slices), T(test_cut_walks_all_pieces), T(test_integers), T(test_reals),
          T(test_utf8), T(test_names), T(test_to_z), T(test_suggest))
