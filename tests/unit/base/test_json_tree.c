/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/json.h"

static struct arena arena;

static struct json *parsed(const char *text)
{
    struct json *root = NULL;
    struct err e;

    CHECK_OK(json_parse(str_of(text), &arena, &root, &e), &e);
    return root;
}

static void test_looking_never_fails(void)
{
    struct json *root =
        parsed("{\"model\":{\"signature\":{\"inputs\":[1,2.5,\"x\",true]}},\"n\":null}");
    struct json *inputs = json_path(root, "model.signature.inputs");

    NEED(inputs && inputs->type == JSON_ARRAY);
    CHECK_INT(json_int_or(json_at(inputs, 0), 9), 1);
    CHECK_INT(json_int_or(json_at(inputs, 1), 9), 9);
    CHECK(json_real_or(json_at(inputs, 0), 9) == 1 && json_real_or(json_at(inputs, 1), 9) == 2.5);
    CHECK_STR(json_str_or(json_at(inputs, 2), S("d")), S("x"));
    CHECK(json_bool_or(json_at(inputs, 3), false));
    CHECK(!json_at(inputs, 4) && !json_at(root, 0) && !json_at(NULL, 0));
    CHECK(!json_get(inputs, S("a")) && !json_get(NULL, S("a")) && !json_get(root, S("a")));
    CHECK(!json_path(root, "model.nothing.inputs") && !json_path(NULL, "a") &&
          !json_path(root, "n.x"));
    CHECK_STR(json_str_or(NULL, S("d")), S("d"));
    CHECK_INT(json_int_or(NULL, 9), 9);
    CHECK(json_bool_or(root, true));
    CHECK(json_is_container(root) && json_is_container(inputs) && !json_is_container(NULL));
    CHECK_STR(str_of(json_type_name(JSON_INT)), S("integer"));
}

static void test_demanding_names_the_path(void)
{
    struct json *root = parsed("{\n \"m\": {\"n\": \"v2\", \"s\": 3, \"r\": 2.5}}"), *m,
                *node = NULL;
    struct json *built = json_new_object(&arena);
    int64_t i = 42;
    double r;
    struct err e;
    str s;

    NEED_OK(json_need_object(root, S("m"), &m, &e), &e);
    CHECK_OK(json_need_str(m, S("n"), &s, &e), &e);
    CHECK_STR(s, S("v2"));
    CHECK_OK(json_need_int(m, S("s"), &i, &e), &e);
    CHECK_OK(json_need_real(m, S("s"), &r, &e), &e);
    CHECK(i == 3 && r == 3);
    CHECK_FAILS(json_need_int(m, S("n"), &i, &e), INVALID_ARGUMENT, &e,
                "2:13: 'n' is of type string, expected an integer");
    CHECK_FAILS(json_need_int(m, S("r"), &i, &e), INVALID_ARGUMENT, &e, "'r' is of type number");
    CHECK_FAILS(json_need_real(m, S("x"), &r, &e), INVALID_ARGUMENT, &e,
                "2:7: 'm' has no 'x', expected a number");
    CHECK_FAILS(json_need_array(root, S("m"), &node, &e), INVALID_ARGUMENT, &e,
                "expected an array");
    CHECK_FAILS(json_need_str(root, S("y"), &s, &e), INVALID_ARGUMENT, &e, "1:1: 'y' is missing");
    CHECK_FAILS(json_need_str(json_get(m, S("s")), S("y"), &s, &e), INVALID_ARGUMENT, &e,
                "found integer, expected an object with 'y'");
    CHECK_FAILS(json_need_str(NULL, S("y"), &s, &e), INVALID_ARGUMENT, &e, "'y' is missing");
    json_set_int(&arena, built, S("n"), 1);
    CHECK_FAILS(json_need_str(built, S("n"), &s, &e), INVALID_ARGUMENT, &e,
                "'n' is of type integer");
    CHECK(e.msg[0] == '\''); /* a built tree has no places */
    CHECK(i == 3 && !node);
}

static void test_building(void)
{
    struct json *o = json_new_object(&arena), *list = json_new_array(&arena);

    json_set_str(&arena, o, S("a"), S("x"));
    json_set_real(&arena, o, S("b"), 0.5);
    CHECK(!json_set_finite(&arena, o, S("left out"), -INFINITY));
    CHECK(!json_set_finite(&arena, o, S("left out"), NAN));
    CHECK(json_set_finite(&arena, o, S("b"), 0.5));
    json_set_bool(&arena, o, S("c"), true);
    json_set(o, S("list"), list);
    json_push(list, json_new_null(&arena));
    json_push(list, json_new_int(&arena, 7));
    CHECK(json_equal(o, parsed("{\"list\":[null,7],\"c\":true,\"b\":0.5,\"a\":\"x\"}")));
    json_set_int(&arena, o, S("b"), 1); /* replaces in its place: middle, first, last */
    json_set_int(&arena, o, S("a"), 2);
    json_set_int(&arena, o, S("list"), 3);
    json_set_int(&arena, o, S("new"), 4);
    CHECK(json_equal(o, parsed("{\"a\":2,\"b\":1,\"c\":true,\"list\":3,\"new\":4}")));
    CHECK_INT(o->count, 5);
    CHECK_STR(o->first->key, S("a"));
    CHECK_STR(o->last->key, S("new"));
}

static void test_full_arena_gives_null(void)
{
    AUTO(arena_done) struct arena small;
    struct json *o, *copy;

    arena_init(&small, 400);
    o = json_new_object(&small);
    for (int i = 0; i < 10; i++)
        json_set_int(&small, o, (str){&"abcdefghij"[i], 1}, i);
    CHECK(small.overflowed);
    CHECK(o && o->count < 10);
    copy = json_copy(&small, o);
    CHECK(!copy);
    CHECK(!json_set(NULL, S("a"), o) && !json_push(NULL, o) && !json_set(o, S("a"), NULL));
}

static void test_equal(void)
{
    static const char *const groups[][4] = {
        {"1", "1.0", "10e-1", "1"},
        {"0", "-0", "-0.0", "0e5"},
        {"9223372036854775807", "9223372036854775807", NULL},
        {"9223372036854775808", "9.223372036854775808e18", NULL},
        {"9007199254740993", NULL},
        {"9007199254740992", "9007199254740992.0", NULL},
        {"\"a\"", "\"\\u0061\"", NULL},
        {"[1,2]", "[1.0,2]", NULL},
        {"[2,1]", NULL},
        {"[1,2,3]", NULL},
        {"{\"a\":1,\"b\":[{}]}", "{\"b\":[{}],\"a\":1}", NULL},
        {"{\"a\":1,\"c\":[{}]}", NULL},
        {"{\"a\":1}", NULL},
        {"{}", NULL},
        {"[]", NULL},
        {"null", NULL},
        {"true", NULL},
        {"false", NULL},
        {"\"\"", NULL},
        {"0.1", NULL},
    };

    for (size_t i = 0; i < ARRAY_LEN(groups); i++)
        for (size_t k = 0; k < 4 && groups[i][k]; k++)
            for (size_t j = 0; j < ARRAY_LEN(groups); j++)
                for (size_t l = 0; l < 4 && groups[j][l]; l++)
                    CHECK(json_equal(parsed(groups[i][k]), parsed(groups[j][l])) == (i == j));
}

static void test_copy_is_deep(void)
{
    AUTO(arena_done) struct arena own = {0};
    struct json *root, *copy, *from;
    char text[] = "{\"a\":[1,{\"b\":\"text\"}],\"c\":null}";
    struct err e;

    NEED_OK(json_parse(str_of(text), &own, &root, &e), &e);
    copy = json_copy(&arena, root);
    from = json_copy(&arena, json_get(root, S("a")));
    CHECK(json_equal(copy, root));
    CHECK(from->next == NULL);
    CHECK_STR(from->key, S("a"));
    CHECK(copy->first->line == 1 && copy->first->col == 6);
    arena_done(&own);
    CHECK(json_equal(copy, parsed("{\"a\":[1,{\"b\":\"text\"}],\"c\":null}")));
}

static int run_all(int argc, char **argv)
{
    static const struct check_test tests[] = {T(test_looking_never_fails),
                                              T(test_demanding_names_the_path),
                                              T(test_building),
                                              T(test_full_arena_gives_null),
                                              T(test_equal),
                                              T(test_copy_is_deep)};

    return check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
}

int main(int argc, char **argv)
{
    int rc = run_all(argc, argv);

    arena_done(&arena);
    return rc;
}
