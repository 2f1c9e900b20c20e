/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "load/inject.h"

#define ROWS 1000

/* Columns a = 0..n-1, b = a + 0.5, t = texts; the label is 1 for every fifth row. */
static struct load_rows *rows_of(void)
{
    struct load_rows *r = load_rows_new(ROWS, 3);

    r->columns[0].name = S("a");
    r->columns[1].name = S("b");
    r->columns[2].name = S("t");
    r->columns[2].kind = LOAD_TEXT;
    r->columns[2].texts = ARENA_ARRAY(&r->arena, str, ROWS);
    r->labels = ARENA_ARRAY(&r->arena, str, ROWS);
    for (size_t i = 0; i < ROWS; i++) {
        r->columns[0].numbers[i] = (double)i;
        r->columns[1].numbers[i] = (double)i + 0.5;
        r->columns[2].texts[i] = i % 2 ? S("odd") : S("even");
        r->labels[i] = i % 5 == 0 ? S("1") : S("0");
    }
    load_rows_classify(r);
    return r;
}

static const struct load_column *apply(const char *spec, const struct load_rows *r, uint64_t seed,
                                       struct arena *a)
{
    struct load_injection *in = ARENA_NEW(a, struct load_injection);
    const struct load_injection *list[] = {in};
    struct err e;

    if (!CHECK_OK(load_inject_parse(str_of(spec), in, &e), &e) ||
        !CHECK_OK(load_inject_check(in, r, &e), &e))
        exit(EXIT_FAILURE);
    return load_inject_apply(list, 1, r, seed, a);
}

static void plain_operations(void)
{
    AUTO(load_rows_freep) struct load_rows *r = rows_of();
    AUTO(arena_done) struct arena a = {0};
    const struct load_column *c;

    c = apply("at=1s,column=a,op=shift,value=10", r, 1, &a);
    CHECK_NEAR(c[0].numbers[7], 17, 0);
    CHECK_NEAR(r->columns[0].numbers[7], 7, 0);
    CHECK(c[1].numbers == r->columns[1].numbers);
    c = apply("column=a+b,op=scale,value=-2", r, 1, &a);
    CHECK_NEAR(c[0].numbers[7], -14, 0);
    CHECK_NEAR(c[1].numbers[7], -15, 0);
    c = apply("column=t,op=set,value=x", r, 1, &a);
    CHECK_STR(c[2].texts[3], S("x"));
    c = apply("column=t+a,op=missing", r, 1, &a);
    CHECK(!c[2].texts[3].p);
    CHECK(isnan(c[0].numbers[3]));
    c = apply("column=a,op=swap,value=b", r, 1, &a);
    CHECK_NEAR(c[0].numbers[3], 3.5, 0);
    CHECK_NEAR(c[1].numbers[3], 3, 0);
}

static void where_and_share(void)
{
    AUTO(load_rows_freep) struct load_rows *r = rows_of();
    AUTO(arena_done) struct arena a = {0};
    const struct load_column *c = apply("column=a,op=shift,value=0.25,where=label==1", r, 1, &a);
    const struct load_column *half;
    size_t changed = 0;

    for (size_t i = 0; i < ROWS; i++)
        CHECK_NEAR(c[0].numbers[i], (double)i + (i % 5 == 0 ? 0.25 : 0), 0);
    c = apply("column=a,op=shift,value=1,where=label!=1.0", r, 1, &a);
    CHECK_NEAR(c[0].numbers[5], 5, 0);
    CHECK_NEAR(c[0].numbers[6], 7, 0);
    half = apply("column=a,op=shift,value=1,share=50%", r, 1, &a);
    for (size_t i = 0; i < ROWS; i++)
        changed += half[0].numbers[i] != (double)i;
    CHECK(changed > 420 && changed < 580);
}

static void random_operations(void)
{
    AUTO(load_rows_freep) struct load_rows *r = rows_of();
    AUTO(arena_done) struct arena a = {0};
    const struct load_column *c = apply("column=a,op=noise,value=3", r, 1, &a), *again, *other;
    double sum = 0, squares = 0;

    for (size_t i = 0; i < ROWS; i++) {
        double d = c[0].numbers[i] - (double)i;

        sum += d, squares += d * d;
    }
    CHECK_NEAR(sum / ROWS, 0, 0.4);
    CHECK_NEAR(sqrt(squares / ROWS), 3, 0.3);
    again = apply("column=a,op=noise,value=3", r, 1, &a);
    other = apply("column=a,op=noise,value=3", r, 2, &a);
    CHECK(memcmp(again[0].numbers, c[0].numbers, ROWS * sizeof(double)) == 0);
    CHECK(memcmp(other[0].numbers, c[0].numbers, ROWS * sizeof(double)) != 0);
    c = apply("column=a,op=shuffle,where=label==0", r, 1, &a);
    sum = 0;
    for (size_t i = 0; i < ROWS; i++) {
        sum += c[0].numbers[i];
        CHECK(i % 5 != 0 || c[0].numbers[i] == (double)i);
        CHECK(i % 5 == 0 || (size_t)c[0].numbers[i] % 5 != 0);
    }
    CHECK_NEAR(sum, ROWS * (ROWS - 1) / 2.0, 0);
}

/* A mimic takes the columns together, from one row of another label. */
static void mimic_takes_one_row(void)
{
    AUTO(load_rows_freep) struct load_rows *r = rows_of();
    AUTO(arena_done) struct arena a = {0};
    struct load_injection in;
    const struct load_injection *list[] = {&in};
    const struct load_column *c;
    struct err e;

    NEED_OK(load_attack_parse(S("evasion,at=20s,column=a+b"), S("1"), &a, &in, &e), &e);
    CHECK_STR(in.attack, S("evasion"));
    CHECK_INT(in.at_ns, INT64_C(20000000000));
    NEED_OK(load_inject_check(&in, r, &e), &e);
    c = load_inject_apply(list, 1, r, 1, &a);
    for (size_t i = 0; i < ROWS; i++) {
        CHECK_NEAR(c[1].numbers[i] - c[0].numbers[i], 0.5, 0);
        CHECK(i % 5 == 0 ? (size_t)c[0].numbers[i] % 5 != 0 : c[0].numbers[i] == (double)i);
    }
}

static void whole_numbers_stay_whole(void)
{
    AUTO(load_rows_freep) struct load_rows *r = rows_of();
    AUTO(arena_done) struct arena a = {0};

    r->columns[0].integral = true;
    CHECK_NEAR(apply("column=a,op=scale,value=1.3", r, 1, &a)[0].numbers[3], 4, 0);
}

static void refusals(void)
{
    static const struct {
        const char *spec;
        enum code code;
        const char *why;
    } cases[] = {
        {"", CODE_INVALID_ARGUMENT, "key=value"},
        {"at=1s,column=a", CODE_INVALID_ARGUMENT, "lacks op="},
        {"op=missing", CODE_INVALID_ARGUMENT, "lacks column="},
        {"op=missng,column=a", CODE_INVALID_ARGUMENT, "did you mean 'missing'"},
        {"op=shift,column=a", CODE_INVALID_ARGUMENT, "needs value="},
        {"op=shift,column=a,value=x", CODE_INVALID_ARGUMENT, "needs a number"},
        {"op=missing,column=a,at=soon", CODE_INVALID_ARGUMENT, "expected a duration"},
        {"op=missing,column=a,at=2s,until=1s", CODE_INVALID_ARGUMENT, "ends before"},
        {"op=missing,column=a,share=2", CODE_INVALID_ARGUMENT, "share="},
        {"op=missing,column=a,share=nan", CODE_INVALID_ARGUMENT, "share="},
        {"op=missing,column=a,where=b>1", CODE_INVALID_ARGUMENT, "label==CLASS"},
        {"op=missing,column=a,what=1", CODE_INVALID_ARGUMENT, "unknown key"},
        {"op=swap,column=a+b,value=b", CODE_INVALID_ARGUMENT, "one column"},
        {"op=missing,column=z", CODE_NOT_FOUND, "no column 'z'"},
        {"op=swap,column=a,value=z", CODE_NOT_FOUND, "no column 'z'"},
        {"op=shift,column=t,value=1", CODE_INVALID_ARGUMENT, "no number"},
        {"op=set,column=a,value=x", CODE_INVALID_ARGUMENT, "takes numbers"},
        {"op=missing,column=a,where=label==7", CODE_NOT_FOUND, "no row has the label"},
    };
    AUTO(load_rows_freep) struct load_rows *r = rows_of();
    struct load_injection in;
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int rc = load_inject_parse(str_of(cases[i].spec), &in, &e);

        if (!rc)
            rc = load_inject_check(&in, r, &e);
        CHECK_INT(rc, cases[i].code);
        CHECK(rc && strstr(e.msg, cases[i].why));
    }
    r->labels = NULL;
    load_rows_classify(r);
    NEED_OK(load_inject_parse(S("op=mimic,column=a"), &in, &e), &e);
    CHECK_FAILS(load_inject_check(&in, r, &e), FAILED_PRECONDITION, &e, "--label");
}

RUN_TESTS(T(plain_operations), T(where_and_share), T(random_operations), T(mimic_takes_one_row),
          T(whole_numbers_stay_whole), T(refusals))
