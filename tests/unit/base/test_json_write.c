/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/random.h"

static str text_of(struct buf *b, void (*write)(struct buf *, const struct json *),
                   const struct json *node)
{
    buf_clear(b);
    write(b, node);
    return buf_str(b);
}

static void test_forms(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf b;
    struct json *root;
    struct err e;

    buf_init(&b, 1 << 20);
    NEED_OK(
        json_parse(S("{\"b\":[1,2.50,{}],\"a\":{\"y\":null,\"x\":[]},\"\xC3\xA9\":\"\\u0001/\"}"),
                   &a, &root, &e),
        &e);
    CHECK_STR(text_of(&b, json_write, root),
              S("{\"b\":[1,2.5,{}],\"a\":{\"y\":null,\"x\":[]},\"\xC3\xA9\":\"\\u0001/\"}"));
    CHECK_STR(text_of(&b, json_write_canonical, root),
              S("{\"a\":{\"x\":[],\"y\":null},\"b\":[1,2.5,{}],\"\xC3\xA9\":\"\\u0001/\"}"));
    CHECK_STR(text_of(&b, json_write_pretty, root),
              S("{\n  \"b\": [\n    1,\n    2.5,\n    {}\n  ],\n  \"a\": {\n    \"y\": null,\n"
                "    \"x\": []\n  },\n  \"\xC3\xA9\": \"\\u0001/\"\n}"));
}

static void test_escapes(void)
{
    static const struct {
        str in, out;
    } cases[] = {
        {S_INIT(""), S_INIT("\"\"")},
        {S_INIT("a\"b\\c/"), S_INIT("\"a\\\"b\\\\c/\"")},
        {S_INIT("\b\f\n\r\t"), S_INIT("\"\\b\\f\\n\\r\\t\"")},
        {S_INIT("\0\x1f\x7f"), S_INIT("\"\\u0000\\u001f\x7f\"")},
        {S_INIT("\xE2\x82\xAC"), S_INIT("\"\xE2\x82\xAC\"")},
        {S_INIT("a\xFFz"), S_INIT("\"a\xEF\xBF\xBDz\"")},
        {S_INIT("\xE2\x82"), S_INIT("\"\xEF\xBF\xBD\xEF\xBF\xBD\"")},
        {S_INIT("\xED\xA0\x80"), S_INIT("\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"")},
    };
    AUTO(buf_done) struct buf b;

    buf_init(&b, 1000);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf_clear(&b);
        json_escape(&b, cases[i].in);
        CHECK_STR(buf_str(&b), cases[i].out);
    }
}

static void test_numbers(void)
{
    static const struct {
        double v;
        const char *text;
    } cases[] = {{1, "1"},
                 {-0.0, "0"},
                 {0.1, "0.1"},
                 {1e20, "100000000000000000000"},
                 {1e21, "1e+21"},
                 {0x1p60, "1152921504606846976"},
                 {-0x1p63, "-9223372036854775808"},
                 {NAN, "null"},
                 {-INFINITY, "null"}};
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf b;

    buf_init(&b, 1000);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        CHECK_STR(text_of(&b, json_write, json_new_real(&a, cases[i].v)), str_of(cases[i].text));
}

static void test_streaming(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf b;
    struct json_out o;
    struct json *root;
    struct err e;

    buf_init(&b, 1000);
    jo_begin(&o, &b);
    jo_object(&o);
    jo_kstr(&o, S("s"), S("v\n"));
    jo_kint(&o, S("i"), INT64_MIN);
    jo_kreal(&o, S("r"), 0.25);
    jo_kreal(&o, S("nan"), NAN);
    jo_kfinite(&o, S("left out"), NAN);
    jo_kfinite(&o, S("left out"), INFINITY);
    jo_kfinite(&o, S("f"), 0.5);
    jo_kbool(&o, S("b"), false);
    jo_key(&o, S("empty"));
    jo_array(&o);
    jo_array_end(&o);
    jo_key(&o, S("list"));
    jo_array(&o);
    jo_int(&o, 1);
    jo_null(&o);
    jo_object(&o);
    jo_object_end(&o);
    jo_array(&o);
    jo_str(&o, S("x"));
    jo_bool(&o, true);
    jo_array_end(&o);
    jo_raw(&o, S("{\"raw\":1}"));
    jo_node(&o, json_new_int(&a, 5));
    jo_real(&o, 1.5);
    jo_array_end(&o);
    jo_object_end(&o);
    CHECK_INT(o.depth, 0);
    CHECK_STR(buf_str(&b), S("{\"s\":\"v\\n\",\"i\":-9223372036854775808,\"r\":0.25,\"nan\":null,"
                             "\"f\":0.5,\"b\":false,"
                             "\"empty\":[],\"list\":[1,null,{},[\"x\",true],{\"raw\":1},5,1.5]}"));
    CHECK_OK(json_parse(buf_str(&b), &a, &root, &e), &e);
}

/* --- Random trees ------------------------------------------------------------------------- */

static str random_str(struct arena *a, struct rng *r)
{
    static const char *const pieces[] = {"a",
                                         "Z",
                                         "\"",
                                         "\\",
                                         "\n",
                                         "\x01",
                                         "\xC3\xA9",
                                         "\xF0\x9F\x98\x80",
                                         "/",
                                         "\xEF\xBF\xBD",
                                         "\xED\x9F\xBF",
                                         "0"};
    AUTO(buf_done) struct buf b;
    size_t n = rng_below(r, 12);

    buf_init(&b, 1000);
    while (n--)
        if (rng_below(r, 20))
            buf_add_str(&b, str_of(pieces[rng_below(r, ARRAY_LEN(pieces))]));
        else
            buf_add_char(&b, '\0');
    return arena_dup(a, buf_str(&b));
}

static double random_real(struct rng *r)
{
    uint64_t bits = rng_u64(r);
    double v;

    if (rng_below(r, 2))
        return rng_below(r, 2) ? rng_normal(r) : floor(rng_normal(r) * 1e18);
    memcpy(&v, &bits, sizeof(v));
    return isfinite(v) ? v : 0;
}

static struct json *random_tree(struct arena *a, struct rng *r, int depth)
{
    struct json *node;
    size_t n = rng_below(r, 14);

    switch (rng_below(r, depth > 0 ? 7 : 5)) {
    case 0:
        return json_new_null(a);
    case 1:
        return json_new_bool(a, rng_below(r, 2));
    case 2:
        return json_new_int(a, (int64_t)rng_u64(r) >> rng_below(r, 64));
    case 3:
        return json_new_real(a, random_real(r));
    case 4:
        return json_new_str(a, random_str(a, r));
    case 5:
        node = json_new_array(a);
        while (n--)
            json_push(node, random_tree(a, r, depth - 1));
        return node;
    default:
        node = json_new_object(a);
        while (n--)
            json_set(node, random_str(a, r), random_tree(a, r, depth - 1));
        return node;
    }
}

/* The same tree with the members of each object in another order. */
static struct json *shuffled(struct arena *a, struct rng *r, const struct json *node)
{
    struct json *copy = json_copy(a, node);

    if (!json_is_container(node))
        return copy;
    copy->first = copy->last = NULL;
    copy->count = 0;
    JSON_EACH (child, node) {
        struct json *c = shuffled(a, r, child);

        c->key = child->key;
        if (node->type == JSON_OBJECT && copy->first && rng_below(r, 2)) {
            c->next = copy->first; /* to the front instead of the back */
            copy->first = c;
            copy->count++;
        } else {
            json_push(copy, c);
        }
    }
    return copy;
}

/* parse(write(x)) == x in each form; equal documents have equal canonical bytes. */
static void test_round_trip(void)
{
    static void (*const forms[])(struct buf *, const struct json *) = {
        json_write, json_write_pretty, json_write_canonical};
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf b, first;
    struct rng r;
    struct err e;

    buf_init(&b, BUF_MAX_DEFAULT);
    buf_init(&first, BUF_MAX_DEFAULT);
    rng_seed(&r, 1);
    for (int i = 0; i < 3000; i++) {
        struct json *tree = random_tree(&a, &r, 4), *again = NULL;

        text_of(&first, json_write_canonical, tree);
        CHECK_STR(text_of(&b, json_write_canonical, shuffled(&a, &r, tree)), buf_str(&first));
        for (size_t k = 0; k < ARRAY_LEN(forms); k++) {
            NEED_OK(json_parse(text_of(&b, forms[k], tree), &a, &again, &e), &e);
            NEED(json_equal(tree, again));
            NEED(str_eq(text_of(&b, json_write_canonical, again), buf_str(&first)));
        }
        NEED(json_equal(tree, json_copy(&a, tree)));
        arena_reset(&a);
    }
}

static void test_full_buffer_overflows(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *list = json_new_array(&a);
    char memory[100];
    struct buf b;

    for (int i = 0; i < 100; i++)
        json_push(list, json_new_str(&a, S("text")));
    buf_init_fixed(&b, memory, sizeof(memory));
    json_write(&b, list);
    CHECK(b.overflowed && b.n <= sizeof(memory));
}

RUN_TESTS(T(test_forms), T(test_escapes), T(test_numbers), T(test_streaming), T(test_round_trip),
          T(test_full_buffer_overflows))
