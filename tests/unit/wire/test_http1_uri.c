/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "wire/http1_client.h"

static void segments(void)
{
    static const struct {
        const char *raw, *decoded, *why;
    } cases[] = {
        {"fraud", "fraud", NULL},
        {"a%20b", "a b", NULL},
        {"a+b", "a+b", NULL},
        {"%C3%a9", "\xc3\xa9", NULL},
        {"..a", "..a", NULL},
        {"%41", "A", NULL},
        {"", NULL, "is empty"},
        {".", NULL, "dot segment"},
        {"..", NULL, "dot segment"},
        {"%2e%2E", NULL, "dot segment"},
        {".%2e", NULL, "dot segment"},
        {"%2f", NULL, "separator"},
        {"a%2Fb", NULL, "separator"},
        {"a/b", NULL, "separator"},
        {"a%5Cb", NULL, "separator"},
        {"a\\b", NULL, "separator"},
        {"%00", NULL, "control"},
        {"a%0a", NULL, "control"},
        {"a%7f", NULL, "control"},
        {"%252e%252e", NULL, "after decoding"},
        {"100%25", NULL, "after decoding"},
        {"%", NULL, "wrong escape"},
        {"%4", NULL, "wrong escape"},
        {"%4g", NULL, "wrong escape"},
        {"%u0041", NULL, "wrong escape"},
        {"%ff", NULL, "UTF-8"},
        {"%c0%af", NULL, "UTF-8"},
        {"%ed%a0%80", NULL, "UTF-8"},
    };
    char out[64];
    struct err e;
    str s;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        if (cases[i].decoded) {
            CHECK_OK(http1_segment_decode(str_of(cases[i].raw), out, sizeof(out), &s, &e), &e);
            CHECK_STR(s, str_of(cases[i].decoded));
        } else {
            CHECK_FAILS(http1_segment_decode(str_of(cases[i].raw), out, sizeof(out), &s, &e),
                        INVALID_ARGUMENT, &e, cases[i].why);
        }
    }
    CHECK_OK(http1_segment_decode(S("abcd"), out, 4, &s, &e), &e);
    CHECK_FAILS(http1_segment_decode(S("abcde"), out, 4, &s, &e), INVALID_ARGUMENT, &e, "");
}

static void paths(void)
{
    char out[16];
    struct err e;
    str s, path = S("/v2//models/a%2Fb"), segment;

    CHECK_OK(http1_path_decode(S("a/b%20c/d"), out, sizeof(out), &s, &e), &e);
    CHECK_STR(s, S("a/b c/d"));
    CHECK_FAILS(http1_path_decode(S(""), out, sizeof(out), &s, &e), INVALID_ARGUMENT, &e, "empty");
    CHECK_FAILS(http1_path_decode(STR_NULL, out, sizeof(out), &s, &e), INVALID_ARGUMENT, &e,
                "empty");
    CHECK_FAILS(http1_path_decode(S("/a"), out, sizeof(out), &s, &e), INVALID_ARGUMENT, &e,
                "empty");
    CHECK_FAILS(http1_path_decode(S("a/"), out, sizeof(out), &s, &e), INVALID_ARGUMENT, &e,
                "empty");
    CHECK_FAILS(http1_path_decode(S("a//b"), out, sizeof(out), &s, &e), INVALID_ARGUMENT, &e,
                "empty");
    CHECK_FAILS(http1_path_decode(S("a/../b"), out, sizeof(out), &s, &e), INVALID_ARGUMENT, &e,
                "dot");
    CHECK_FAILS(http1_path_decode(S("a/%2e%2e/b"), out, sizeof(out), &s, &e), INVALID_ARGUMENT, &e,
                "dot");
    CHECK_FAILS(http1_path_decode(S("0123456789abcdef/x"), out, sizeof(out), &s, &e),
                INVALID_ARGUMENT, &e, "longer than 16");

    CHECK(http1_path_next(&path, &segment));
    CHECK_STR(segment, S("v2"));
    CHECK(http1_path_next(&path, &segment));
    CHECK_STR(segment, S(""));
    CHECK(http1_path_next(&path, &segment));
    CHECK_STR(segment, S("models"));
    CHECK(http1_path_next(&path, &segment));
    CHECK_STR(segment, S("a%2Fb"));
    CHECK(!http1_path_next(&path, &segment));
}

static void queries(void)
{
    static const str query = S_INIT("a=1&b=x+y%2Fz&c&d=&a%20b=2&twice=1&twice=2&bad=%zz&nul=%00&"
                                    "u=%ff&e%=1&=5");
    char out[16];
    struct err e;
    str s;

    CHECK_OK(http1_query_get(query, S("a"), out, sizeof(out), &s, &e), &e);
    CHECK_STR(s, S("1"));
    CHECK_OK(http1_query_get(query, S("b"), out, sizeof(out), &s, &e), &e);
    CHECK_STR(s, S("x y/z"));
    CHECK_OK(http1_query_get(query, S("c"), out, sizeof(out), &s, &e), &e);
    CHECK_STR(s, S(""));
    CHECK_OK(http1_query_get(query, S("d"), out, sizeof(out), &s, &e), &e);
    CHECK_STR(s, S(""));
    CHECK_OK(http1_query_get(query, S("a b"), out, sizeof(out), &s, &e), &e);
    CHECK_STR(s, S("2"));
    CHECK_OK(http1_query_get(query, S("b"), out, 5, &s, &e), &e);
    CHECK_FAILS(http1_query_get(query, S("b"), out, 4, &s, &e), INVALID_ARGUMENT, &e, "4 bytes");
    CHECK_FAILS(http1_query_get(query, S("twice"), out, sizeof(out), &s, &e), INVALID_ARGUMENT, &e,
                "more than once");
    CHECK_FAILS(http1_query_get(query, S("bad"), out, sizeof(out), &s, &e), INVALID_ARGUMENT, &e,
                "wrong escape");
    CHECK_FAILS(http1_query_get(query, S("nul"), out, sizeof(out), &s, &e), INVALID_ARGUMENT, &e,
                "NUL");
    CHECK_FAILS(http1_query_get(query, S("u"), out, sizeof(out), &s, &e), INVALID_ARGUMENT, &e,
                "UTF-8");
    CHECK_FAILS(http1_query_get(query, S("x"), out, sizeof(out), &s, &e), NOT_FOUND, &e, "'x'");
    CHECK_FAILS(http1_query_get(STR_NULL, S("x"), out, sizeof(out), &s, &e), NOT_FOUND, &e, "'x'");
}

/* What the writer encodes, the reader decodes to the same. */
static void encoding_round_trips(void)
{
    AUTO(buf_done) struct buf b = {0};
    char out[300];
    struct err e;
    str s;

    buf_init(&b, 1 << 10);
    http1_write_encoded(&b, S("a b/c?d&e=f+\xc3\xa9~-._"));
    CHECK_STR(buf_str(&b), S("a%20b%2Fc%3Fd%26e%3Df%2B%C3%A9~-._"));
    buf_clear(&b);
    buf_add_str(&b, S("k="));
    http1_write_encoded(&b, S("a b/c?d&e=f+\xc3\xa9"));
    CHECK_OK(http1_query_get(buf_str(&b), S("k"), out, sizeof(out), &s, &e), &e);
    CHECK_STR(s, S("a b/c?d&e=f+\xc3\xa9"));
}

RUN_TESTS(T(segments), T(paths), T(queries), T(encoding_round_trips))
