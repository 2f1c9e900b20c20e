/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/yaml.h"

#include <time.h>

/* A document and the JSON that means the same. */
static const struct {
    const char *yaml, *json;
} same[] = {
    {"a: 1\nb: two\n", "{\"a\":1,\"b\":\"two\"}"},
    {"- x\n- - y\n  - z\n", "[\"x\",[\"y\",\"z\"]]"},
    {"just text", "\"just text\""},
    {"42", "42"},
    {"a:\n", "{\"a\":null}"},
    {"- ~\n- null\n- Null\n- NULL\n-\n", "[null,null,null,null,null]"},
    {"- nUll\n- nil\n- none\n", "[\"nUll\",\"nil\",\"none\"]"},
    {"[true, True, TRUE, false, False, FALSE]", "[true,true,true,false,false,false]"},
    {"[yes, no, on, off, y, n, tRUE]", "[\"yes\",\"no\",\"on\",\"off\",\"y\",\"n\",\"tRUE\"]"},
    {"[0, -0, 12, -5, 9223372036854775807]", "[0,0,12,-5,9223372036854775807]"},
    {"[1.5, 1e3, -2.5E-2, 9223372036854775808]", "[1.5,1000,-0.025,9223372036854775808]"},
    {"[007, 0x1F, 0o7, 1_000, +1, .5, 5., .inf, .nan, 1e, 12:30:45]",
     "[\"007\",\"0x1F\",\"0o7\",\"1_000\",\"+1\",\".5\",\"5.\",\".inf\",\".nan\",\"1e\","
     "\"12:30:45\"]"},
    {"['1', \"true\", 'null', '']", "[\"1\",\"true\",\"null\",\"\"]"},
    {"1: a\ntrue: b\n~: c\n", "{\"1\":\"a\",\"true\":\"b\",\"~\":\"c\"}"},
    {"{a: 1, b: {c: [2]}}", "{\"a\":1,\"b\":{\"c\":[2]}}"},
    {"t: |\n  one\n  two\nf: >-\n  one\n  two\n", "{\"t\":\"one\\ntwo\\n\",\"f\":\"one two\"}"},
    {"n: |\n  12\n", "{\"n\":\"12\\n\"}"},
    {"['''''a''''b''''', 'one\n  two \n\n  three', ' a ', 'x\n ']",
     "[\"''a''b''\",\"one two\\nthree\",\" a \",\"x \"]"},
    {"\xEF\xBB\xBF"
     "a: 1",
     "{\"a\":1}"},
    {"s: 'it''s'\nd: \"a\\tb\\u00e9\\x41\\0\"\n",
     "{\"s\":\"it's\",\"d\":\"a\\tb\\u00e9A\\u0000\"}"},
    {"a: &x [1, {k: v}]\nb: *x\nc: *x\n",
     "{\"a\":[1,{\"k\":\"v\"}],\"b\":[1,{\"k\":\"v\"}],\"c\":[1,{\"k\":\"v\"}]}"},
    {"a: &x 1\nb: &x 2\nc: *x\n", "{\"a\":1,\"b\":2,\"c\":2}"},
    {"a: &k key\n*k : v\n", "{\"a\":\"key\",\"key\":\"v\"}"},
    {"# comment\n---\na: 1 # more\n...\n", "{\"a\":1}"},
    {"%YAML 1.2\n---\na: no\n", "{\"a\":\"no\"}"},
    {"\xC3\xA9: \xE2\x82\xAC\n", "{\"\xC3\xA9\":\"\xE2\x82\xAC\"}"},
    {"? a\n: b\n", "{\"a\":\"b\"}"},
    {"{\"json\": [1, 2.5, null, true, \"x\"]}", "{\"json\":[1,2.5,null,true,\"x\"]}"},
    {"a: b\r\nc: d\r\n", "{\"a\":\"b\",\"c\":\"d\"}"},
    {"url: http://localhost:8080/v2\n", "{\"url\":\"http://localhost:8080/v2\"}"},
};

static void test_meanings(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf b;
    struct err e;

    buf_init(&b, 1 << 20);
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        struct json *from_yaml = NULL, *from_json = NULL;

        NEED_OK(json_parse(str_of(same[i].json), &a, &from_json, &e), &e);
        if (!CHECK_OK(yaml_parse(str_of(same[i].yaml), "w.yaml", &a, &from_yaml, &e), &e))
            continue;
        buf_clear(&b);
        json_write(&b, from_yaml);
        if (!CHECK(json_equal(from_yaml, from_json)))
            fprintf(stderr, "    %s\n    got  %s\n    want %s\n", same[i].yaml, buf_z(&b),
                    same[i].json);
    }
}

static const struct {
    str yaml;
    const char *message;
} refused[] = {
    {S_INIT(""), "w.yaml:1:1: the document is empty"},
    {S_INIT("# only a comment\n"), "w.yaml:1:1: the document is empty"},
    {S_INIT("a: 1\nb: 2\na: 3\n"),
     "w.yaml:3:1: key 'a' stands twice, expected once (first at 1:1)"},
    {S_INIT("x: {k: 1,\n  k: 2}"),
     "w.yaml:2:3: key 'k' stands twice, expected once (first at 1:5)"},
    {S_INIT("1: a\n'1': b\n"), "w.yaml:2:1: key '1' stands twice"},
    {S_INIT("a: 1\n---\nb: 2\n"), "a second document"},
    {S_INIT("a: !!str 1"), "w.yaml:1:10: tags are not supported"},
    {S_INIT("a: !mine {b: 1}"), "tags are not supported"},
    {S_INIT("- !x\n"), "tags are not supported"},
    {S_INIT("<<: {a: 1}"), "w.yaml:1:1: merge key '<<' is not YAML 1.2"},
    {S_INIT("a: *none"), "w.yaml:1:4: alias '*none' has no anchor"},
    {S_INIT("a: &x [1, *x]"), "w.yaml:1:11: alias '*x' stands inside its own anchor"},
    {S_INIT("a: &x [1]\n*x : 2"), "key is not a string"},
    {S_INIT("? [1]\n: 2"), "w.yaml:1:3: found array as a key, expected a string"},
    {S_INIT("? {a: 1}\n: 2"), "found object as a key"},
    {S_INIT("a: 1e999"), "w.yaml:1:4: number too large"},
    {S_INIT("a: [1, 2\n"), "w.yaml:"},
    {S_INIT("a: \"open\n"), "w.yaml:1:5:"},
    {S_INIT("a: b: c\n"), "w.yaml:1:5:"},
    {S_INIT("a:\n\t- b\n"), "w.yaml:"},
    {S_INIT("- a\nb: 1\n"), "w.yaml:2:1:"},
    {S_INIT("a: @b\n"), "w.yaml:1:4:"},
    {S_INIT("a: \xFF\n"), "w.yaml:1:4: byte 0xFF is not UTF-8"},
    {S_INIT("a: 1\nb\xC3\xA9: \xC3"), "w.yaml:2:5: byte 0xC3 is not UTF-8"},
    {S_INIT("a: 1\n\0"), "w.yaml:2:1: control character 0x00"},
    {S_INIT("a: \x1b[0m"), "w.yaml:1:4: control character 0x1B"},
};

static void test_refusals(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        struct json *root = NULL;

        if (!CHECK_FAILS(yaml_parse(refused[i].yaml, "w.yaml", &a, &root, &e), INVALID_ARGUMENT, &e,
                         refused[i].message))
            fprintf(stderr, "    for " STR_F "\n", STR_A(refused[i].yaml));
        CHECK(!root);
    }
}

static void check_place(const struct json *root, const char *dotted, uint32_t key_line,
                        uint32_t key_col, uint32_t line, uint32_t col)
{
    const struct json *n = json_path(root, dotted);

    NEED(n);
    if (!CHECK(n->key_line == key_line && n->key_col == key_col && n->line == line &&
               n->col == col))
        fprintf(stderr, "    %s: key %u:%u, value %u:%u\n", dotted, n->key_line, n->key_col,
                n->line, n->col);
}

static void test_places(void)
{
    static const char text[] = "# head\n"
                               "name: churn\n"
                               "sources:\n"
                               "  orders:\n"
                               "    path: 'x.csv'\n"
                               "    \"keys\": [id, {n: 2}]\n"
                               "  list:\n"
                               "    - one\n"
                               "    - k: two\n"
                               "      l:\n"
                               "\xC3\xA9\xC3\xA9: {z: 1}\n"
                               "block: |\n"
                               "  text\n"
                               "anchor: &a {b: 1}\n"
                               "alias: *a\n";
    AUTO(arena_done) struct arena a = {0};
    struct json *root, *n;
    struct err e;

    NEED_OK(yaml_parse(str_of(text), "w.yaml", &a, &root, &e), &e);
    CHECK(root->line == 2 && root->col == 1);
    check_place(root, "name", 2, 1, 2, 7);
    check_place(root, "sources", 3, 1, 4, 3);
    check_place(root, "sources.orders", 4, 3, 5, 5);
    check_place(root, "sources.orders.path", 5, 5, 5, 11);
    check_place(root, "sources.orders.keys", 6, 5, 6, 13);
    n = json_path(root, "sources.orders.keys");
    CHECK(json_at(n, 0)->line == 6 && json_at(n, 0)->col == 14);
    CHECK(json_at(n, 1)->line == 6 && json_at(n, 1)->col == 18);
    check_place(json_at(n, 1), "n", 6, 19, 6, 22);
    check_place(root, "sources.list", 7, 3, 8, 5);
    n = json_path(root, "sources.list");
    CHECK(json_at(n, 0)->line == 8 && json_at(n, 0)->col == 7);
    CHECK(json_at(n, 1)->line == 9 && json_at(n, 1)->col == 7);
    check_place(json_at(n, 1), "k", 9, 7, 9, 10);
    check_place(root, "\xC3\xA9\xC3\xA9", 11, 1, 11, 5);
    check_place(root, "\xC3\xA9\xC3\xA9.z", 11, 6, 11, 9);
    CHECK_INT(json_get(root, S("block"))->key_line, 12);
    check_place(root, "anchor", 14, 1, 14, 12);
    check_place(root, "alias", 15, 1, 15, 8);
}

/* Ten levels of ten aliases each: ten thousand million values, refused at the limit and soon. */
static void test_laughs(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf b;
    clock_t start = clock();
    struct json *root;
    struct err e;

    buf_init(&b, 1 << 20);
    buf_add_str(&b, S("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"));
    for (int i = 1; i < 10; i++) {
        buf_printf(&b, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++)
            buf_printf(&b, "*a%d%s", i - 1, k < 9 ? "," : "]\n");
    }
    CHECK_FAILS(yaml_parse(buf_str(&b), "w.yaml", &a, &root, &e), RESOURCE_EXHAUSTED, &e,
                "more than 1000000 values");
    CHECK((clock() - start) / CLOCKS_PER_SEC < 10);
    buf_clear(&b);
    for (int i = 0; i < 1001; i++)
        buf_printf(&b, "- &a%d x\n", i);
    CHECK_FAILS(yaml_parse(buf_str(&b), "w.yaml", &a, &root, &e), RESOURCE_EXHAUSTED, &e,
                "w.yaml:1001:");
}

static str nested(struct buf *b, int depth)
{
    buf_clear(b);
    for (int i = 0; i < depth; i++)
        buf_add_char(b, '[');
    for (int i = 0; i < depth; i++)
        buf_add_char(b, ']');
    return buf_str(b);
}

static void test_depth(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf b;
    struct json *root;
    struct err e;
    int rc;

    buf_init(&b, 1 << 20);
    CHECK_OK(yaml_parse(nested(&b, 60), "w.yaml", &a, &root, &e), &e);
    CHECK_FAILS(yaml_parse(nested(&b, 66), "w.yaml", &a, &root, &e), INVALID_ARGUMENT, &e,
                "w.yaml:1:");
    CHECK_FAILS(yaml_parse(nested(&b, 100000), "w.yaml", &a, &root, &e), INVALID_ARGUMENT, &e,
                "w.yaml:1:");
    buf_clear(&b); /* block style */
    for (int i = 0; i < 70; i++)
        buf_printf(&b, "%*sk:\n", i, "");
    CHECK_FAILS(yaml_parse(buf_str(&b), "w.yaml", &a, &root, &e), INVALID_ARGUMENT, &e, "w.yaml:");
    buf_clear(&b); /* an alias at the bottom makes it deeper than the text is */
    for (int i = 0; i < 40; i++)
        buf_add_char(&b, '[');
    for (int i = 0; i < 40; i++)
        buf_add_char(&b, ']');
    rc = yaml_parse(arena_printf(&a, "a: &a " STR_F "\nb: {b: {b: {b: {b: {b: {b: *a}}}}}}\n",
                                 STR_A(buf_str(&b))),
                    "w.yaml", &a, &root, &e);
    CHECK_OK(rc, &e);
    rc = yaml_parse(arena_printf(&a, "a: &a " STR_F "\nb: " STR_F "\n", STR_A(buf_str(&b)),
                                 STR_A(arena_printf(&a, "%.*s*a%.*s", 30, buf_str(&b).p, 30,
                                                    buf_str(&b).p + 40))),
                    "w.yaml", &a, &root, &e);
    CHECK_FAILS(rc, INVALID_ARGUMENT, &e, "nested too deep, expected at most 64 levels");
}

static void test_memory_cap(void)
{
    bool fitted = false;
    struct json *root;
    struct err e;

    for (size_t cap = 16; !fitted; cap += 64) {
        AUTO(arena_done) struct arena a;
        int rc;

        NEED(cap < 1 << 20);
        arena_init(&a, cap);
        rc = yaml_parse(
            S("a: &x [1, 2, {b: c}]\nd: *x\ne: *x\n1: 1\n2: 2\n3: 3\n4: 4\n5: 5\n6: 6\n7: 7\n"),
            "w.yaml", &a, &root, &e);
        fitted = rc == 0;
        if (rc)
            CHECK_FAILS(rc, RESOURCE_EXHAUSTED, &e, "bytes of memory it may use");
        else
            CHECK(!a.overflowed && root->count == 10);
    }
}

/* 20,000 keys in one mapping: no quadratic search, neither here nor in the library. */
static void test_many_keys(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf b;
    clock_t start = clock();
    struct json *root;
    struct err e;

    buf_init(&b, BUF_MAX_DEFAULT);
    for (int i = 0; i < 20000; i++)
        buf_printf(&b, "key%d: %d\n", i, i);
    NEED_OK(yaml_parse(buf_str(&b), "w.yaml", &a, &root, &e), &e);
    CHECK_INT(root->count, 20000);
    CHECK_INT(json_int_or(root->last, 0), 19999);
    CHECK_INT(root->last->line, 20000);
    CHECK((clock() - start) / CLOCKS_PER_SEC < 10);
}

RUN_TESTS(T(test_meanings), T(test_refusals), T(test_places), T(test_laughs), T(test_depth),
          T(test_memory_cap), T(test_many_keys))
