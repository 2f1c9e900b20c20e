/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/json.h"

#include <time.h>

static const str accepted[] = {
    S_INIT("null"),
    S_INIT(" true "),
    S_INIT("\t\r\n false"),
    S_INIT("0"),
    S_INIT("-0"),
    S_INIT("-0.0e-0"),
    S_INIT("1E+2"),
    S_INIT("123.456e-789"),
    S_INIT("\"\""),
    S_INIT("\"\x7f\""),
    S_INIT("\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""),
    S_INIT("\"\xF4\x8F\xBF\xBF\""),
    S_INIT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\""),
    S_INIT("\"\\u0000\""),
    S_INIT("\"\\uD83d\\uDE00\""),
    S_INIT("\"\\uFFFF\\ufdd0\""),
    S_INIT("[]"),
    S_INIT("[ ]"),
    S_INIT("[[],[[]]]"),
    S_INIT("[1,2 , 3]"),
    S_INIT("{}"),
    S_INIT("{ }"),
    S_INIT("{\"\":0}"),
    S_INIT("{\"a\":{\"a\":{\"a\":1}}}"),
    S_INIT("{\"a\":1,\"A\":1,\"\\u0061b\":2}"),
    S_INIT("[1e308,-1e308,1e-400]"),
};

static const struct {
    str text;
    const char *message; /* a part of it */
} refused[] = {
    {S_INIT(""), "1:1: the text ends here, expected a value"},
    {S_INIT(" \n "), "2:2: the text ends here, expected a value"},
    {S_INIT("\xEF\xBB\xBF{}"), "byte order mark"},
    {S_INIT("nul"), "1:1: found 'n', expected a value"},
    {S_INIT("True"), "expected a value"},
    {S_INIT("truex"), "1:5: found 'x', expected the end of the text"},
    {S_INIT("NaN"), "expected a value"},
    {S_INIT("Infinity"), "expected a value"},
    {S_INIT("-Infinity"), "1:1: not a number"},
    {S_INIT("'a'"), "found '''"},
    {S_INIT("1 2"), "1:3: found '2', expected the end of the text"},
    {S_INIT("{} []"), "1:4: found '[', expected the end of the text"},
    {S_INIT("null\0"), "1:5: found byte 0x00, expected the end of the text"},
    {S_INIT("\0"), "1:1: found byte 0x00, expected a value"},
    {S_INIT("\xFF"), "1:1: found byte 0xFF, expected a value"},
    {S_INIT("// x\n1"), "found '/'"},
    {S_INIT("01"), "leading zero"},
    {S_INIT("-01"), "not a number"},
    {S_INIT("1."), "not a number"},
    {S_INIT(".5"), "found '.'"},
    {S_INIT("+1"), "found '+'"},
    {S_INIT("-"), "not a number"},
    {S_INIT("1e"), "not a number"},
    {S_INIT("0x10"), "1:2: found 'x'"},
    {S_INIT("1e400"), "1:1: number too large, expected less than 1.8e308"},
    {S_INIT("[-1e999]"), "1:2: number too large"},
    {S_INIT("\""), "1:2: the text ends here, expected '\"' at the end of a string"},
    {S_INIT("\"a"), "1:3: the text ends here"},
    {S_INIT("\"a\\"), "the text ends here, expected '\"'"},
    {S_INIT("\"a\\\""), "the text ends here, expected '\"'"},
    {S_INIT("\"a\nb\""), "1:3: found byte 0x0A, expected a string without control characters"},
    {S_INIT("\"\t\""), "found byte 0x09"},
    {S_INIT("\"\0\""), "found byte 0x00"},
    {S_INIT("\"\\x41\""), "1:3: found 'x', expected one of"},
    {S_INIT("\"\\U0041\""), "found 'U', expected one of"},
    {S_INIT("\"\\u12\""), "found '\"', expected four hexadecimal digits"},
    {S_INIT("\"\\u12G4\""), "found 'G', expected four hexadecimal digits"},
    {S_INIT("\"\\ud800\""), "half of a surrogate pair"},
    {S_INIT("\"\\ud800x\""), "half of a surrogate pair"},
    {S_INIT("\"\\ud800\\n\""), "half of a surrogate pair"},
    {S_INIT("\"\\ud800\\ud800\""), "half of a surrogate pair"},
    {S_INIT("\"\\ud800\\u0041\""), "half of a surrogate pair"},
    {S_INIT("\"\\udc00\""), "second half of a surrogate pair"},
    {S_INIT("\"\\ud800\\u12G4\""), "four hexadecimal digits"},
    {S_INIT("\"\xFF\""), "not UTF-8"},
    {S_INIT("\"\xC3\""), "not UTF-8"},
    {S_INIT("\"\xC0\x80\""), "not UTF-8"},
    {S_INIT("\"\xED\xA0\x80\""), "not UTF-8"},
    {S_INIT("\"\xF4\x90\x80\x80\""), "not UTF-8"},
    {S_INIT("["), "1:2: the text ends here, expected a value"},
    {S_INIT("[1"), "1:3: the text ends here, expected ',' or ']'"},
    {S_INIT("[1,"), "the text ends here, expected a value"},
    {S_INIT("[1,]"), "1:4: found ']', expected a value"},
    {S_INIT("[,1]"), "1:2: found ',', expected a value"},
    {S_INIT("[1 2]"), "1:4: found '2', expected ',' or ']'"},
    {S_INIT("[1}"), "found '}', expected ',' or ']'"},
    {S_INIT("]"), "found ']', expected a value"},
    {S_INIT("{"), "1:2: the text ends here, expected a key"},
    {S_INIT("{\"a\""), "expected ':' after a key"},
    {S_INIT("{\"a\":"), "expected a value"},
    {S_INIT("{\"a\":1"), "expected ',' or '}'"},
    {S_INIT("{\"a\":1,}"), "1:8: found '}', expected a key in double quotes"},
    {S_INIT("{a:1}"), "1:2: found 'a', expected a key in double quotes"},
    {S_INIT("{1:1}"), "found '1', expected a key"},
    {S_INIT("{\"a\" 1}"), "1:6: found '1', expected ':'"},
    {S_INIT("{\"a\":1 \"b\":2}"), "1:8: found '\"', expected ',' or '}'"},
    {S_INIT("{\"a\":1]"), "found ']', expected ',' or '}'"},
    {S_INIT("{\"a\":1,\n \"b\":2,\n \"a\":3}"),
     "3:2: key 'a' stands twice, expected once (first at 1:2)"},
    {S_INIT("{\"a\":1,\"\\u0061\":2}"), "1:8: key 'a' stands twice"},
    {S_INIT("[\"\xC3\xA9\xC3\xA9\", x]"), "1:8: found 'x'"}, /* columns count characters */
    {S_INIT("[\n  1,\r\n  oops]"), "3:3: found 'o'"},
};

static void test_accepts(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *root;
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(accepted); i++) {
        root = NULL;
        CHECK_OK(json_parse(accepted[i], &a, &root, &e), &e);
        CHECK(root);
    }
}

static void test_refuses(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *root = NULL;
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        CHECK_FAILS(json_parse(refused[i].text, &a, &root, &e), INVALID_ARGUMENT, &e,
                    refused[i].message);
        CHECK(!root);
    }
    CHECK_FAILS(json_parse(STR_NULL, &a, &root, &e), INVALID_ARGUMENT, &e, "1:1: the text ends");
}

/* No text that is accepted is accepted when cut short, but for numbers and trailing blanks. */
static void test_cuts(void)
{
    AUTO(arena_done) struct arena a = {0};
    str text = S("{\"a\":[1.5,-2e3,\"\\ud83d\\ude00\\n\xC3\xA9\"],\"b\":{\"c\":null,\"d\":true}}");
    struct json *root;
    struct err e;

    CHECK_OK(json_parse(text, &a, &root, &e), &e);
    for (size_t n = 0; n < text.n; n++) {
        char *exact = malloc(n ? n : 1);

        NEED(exact);
        memcpy(exact, text.p, n);
        CHECK_FAILS(json_parse((str){exact, n}, &a, &root, &e), INVALID_ARGUMENT, &e, "1:");
        free(exact);
    }
}

static void test_values(void)
{
    AUTO(arena_done) struct arena a = {0};
    char text[] = "{\"i\":-9223372036854775808,\"big\":9223372036854775808,\"r\":0.1,\"z\":-0,"
                  "\"one\":1.0,\"s\":\"a\\u0000\\ud83d\\ude00\\u20ac\\u00e9\",\"k\\n\":[true]}";
    struct json *root;
    struct err e;

    NEED_OK(json_parse(S("[]"), &a, &root, &e), &e);
    CHECK(root->type == JSON_ARRAY && root->count == 0 && !root->first);
    NEED_OK(json_parse(str_of(text), &a, &root, &e), &e);
    memset(text, 'x', sizeof(text)); /* the tree does not lean on the text */
    CHECK(json_get(root, S("i"))->type == JSON_INT);
    CHECK_INT(json_int_or(json_get(root, S("i")), 0), INT64_MIN);
    CHECK(json_get(root, S("big"))->type == JSON_REAL);
    CHECK(json_real_or(json_get(root, S("big")), 0) == 0x1p63);
    CHECK(json_real_or(json_get(root, S("r")), 0) == 0.1);
    CHECK(json_get(root, S("z"))->type == JSON_INT);
    CHECK(json_get(root, S("one"))->type == JSON_REAL);
    CHECK_STR(json_str_or(json_get(root, S("s")), STR_NULL),
              S("a\0\xF0\x9F\x98\x80\xE2\x82\xAC\xC3\xA9"));
    CHECK(json_bool_or(json_at(json_get(root, S("k\n")), 0), false));
    CHECK_INT(root->count, 7);
}

static void test_places(void)
{
    AUTO(arena_done) struct arena a = {0};
    str text =
        S("{\n  \"a\": [1,\n    {\"\xC3\xA9\": \"\xE2\x82\xAC\", \"k\" : null}],\r\n\t\"b\":2}");
    struct json *root, *n;
    struct err e;

    NEED_OK(json_parse(text, &a, &root, &e), &e);
    CHECK(root->line == 1 && root->col == 1);
    n = json_get(root, S("a"));
    CHECK(n->key_line == 2 && n->key_col == 3 && n->line == 2 && n->col == 8);
    CHECK(json_at(n, 0)->line == 2 && json_at(n, 0)->col == 9);
    n = json_at(n, 1);
    CHECK(n->line == 3 && n->col == 5);
    CHECK(json_get(n, S("\xC3\xA9"))->col == 11);
    n = json_get(n, S("k"));
    CHECK(n->key_line == 3 && n->key_col == 16 && n->col == 22);
    n = json_get(root, S("b"));
    CHECK(n->key_line == 4 && n->key_col == 2 && n->line == 4 && n->col == 6);
}

static void test_depth(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *root;
    char text[400];
    struct err e;

    for (int depth = 63; depth <= 66; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        if (depth <= JSON_DEPTH_MAX)
            CHECK_OK(json_parse((str){text, (size_t)depth * 2}, &a, &root, &e), &e);
        else
            CHECK_FAILS(json_parse((str){text, (size_t)depth * 2}, &a, &root, &e), INVALID_ARGUMENT,
                        &e, "1:65: nested too deep, expected at most 64 levels");
    }
    memset(text, '[', sizeof(text));
    CHECK_FAILS(json_parse((str){text, sizeof(text)}, &a, &root, &e), INVALID_ARGUMENT, &e, "deep");
    memcpy(text, "[[],[],[],[[]],{}]", 18); /* siblings are not depth */
    CHECK_OK(json_parse((str){text, 18}, &a, &root, &e), &e);
}

static str many_keys(struct arena *a, int n, int repeat)
{
    AUTO(buf_done) struct buf b;

    buf_init(&b, BUF_MAX_DEFAULT);
    for (int i = 0; i < n; i++)
        buf_printf(&b, "%c\"key%d\":%d", i ? ',' : '{', i == n - 1 && repeat >= 0 ? repeat : i, i);
    buf_add_char(&b, '}');
    return arena_dup(a, buf_str(&b));
}

/* On both sides of the switch from comparing to hashing, and of each growth of the table. */
static void test_duplicates_at_every_size(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *root;
    struct err e;

    for (int n = 2; n < 200; n++) {
        NEED_OK(json_parse(many_keys(&a, n, -1), &a, &root, &e), &e);
        CHECK_INT(root->count, n);
        for (int repeat = 0; repeat < n - 1; repeat += 1 + n / 5)
            CHECK_FAILS(json_parse(many_keys(&a, n, repeat), &a, &root, &e), INVALID_ARGUMENT, &e,
                        "stands twice");
        arena_reset(&a);
    }
}

/* 300,000 keys: quadratic time would need minutes. */
static void test_many_keys_are_not_quadratic(void)
{
    AUTO(arena_done) struct arena a = {0};
    clock_t start = clock();
    struct json *root;
    struct err e;

    NEED_OK(json_parse(many_keys(&a, 300000, -1), &a, &root, &e), &e);
    CHECK_INT(root->count, 300000);
    CHECK_FAILS(json_parse(many_keys(&a, 300000, 7), &a, &root, &e), INVALID_ARGUMENT, &e,
                "'key7'");
    CHECK((clock() - start) / CLOCKS_PER_SEC < 20);
}

/* Every cap of memory gives the tree or a clear refusal. */
static void test_memory_cap(void)
{
    AUTO(arena_done) struct arena texts = {0};
    str text = many_keys(&texts, 40, -1);
    bool fitted = false;
    struct json *root;
    struct err e;

    for (size_t cap = 16; !fitted; cap += 48) {
        AUTO(arena_done) struct arena a;
        int rc;

        NEED(cap < 1 << 20);
        arena_init(&a, cap);
        rc = json_parse(text, &a, &root, &e);
        fitted = rc == 0;
        if (rc)
            CHECK_FAILS(rc, RESOURCE_EXHAUSTED, &e, "bytes of memory it may use");
        else
            CHECK(!a.overflowed && root->count == 40);
    }
}

RUN_TESTS(T(test_accepts), T(test_refuses), T(test_cuts), T(test_values), T(test_places),
          T(test_depth), T(test_duplicates_at_every_size), T(test_many_keys_are_not_quadratic),
          T(test_memory_cap))
