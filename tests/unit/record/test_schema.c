/* SPDX-License-Identifier: Apache-2.0 */
#include "sample.h"

static const struct record_column two[] = {{S_INIT("a"), RECORD_F32, 0},
                                           {S_INIT("b"), RECORD_F32, 0}};

static struct record_schema_def def_of(const struct record_column *c, uint32_t features,
                                       uint32_t outputs)
{
    return (struct record_schema_def){.endpoint = S("fraud"),
                                      .version = S("3"),
                                      .columns = c,
                                      .feature_count = features,
                                      .output_count = outputs};
}

static void layout_is_natural(void)
{
    const struct record_schema *s = sample_mixed("layout");

    CHECK(s->has_text);
    CHECK_INT(s->columns[0].at, 8);
    CHECK_INT(s->columns[1].at, 12);
    CHECK_INT(s->columns[2].at, 16);
    CHECK_INT(s->columns[3].at, 24);
    CHECK_INT(s->columns[4].at, 32);
    CHECK_INT(s->row_bytes, 40);
    s = sample_floats("layout", "2", 30, NULL);
    CHECK(!s->has_text);
    CHECK_INT(s->columns[29].at, 116);
    CHECK_INT(s->row_bytes, 128);
}

static void equal_definitions_share_an_id(void)
{
    struct record_schema_def d = def_of(two, 1, 1);
    const struct record_schema *a, *b, *c;
    struct cells_spec spec = sample_spec();
    const struct cells_spec *cells[] = {&spec, NULL};
    struct err e;

    NEED_OK(record_schema_add(&d, &a, &e), &e);
    NEED_OK(record_schema_add(&d, &b, &e), &e);
    CHECK(a == b);
    CHECK(record_schema_at(a->id) == a);
    d.cells = cells;
    NEED_OK(record_schema_add(&d, &c, &e), &e);
    CHECK(c != a && c->cells[0] != &spec && cells_spec_equal(c->cells[0], &spec));
    CHECK_INT(c->f32_folded, 1);
    d.cells = NULL;
    d.feature_count = 2;
    d.output_count = 0;
    NEED_OK(record_schema_add(&d, &b, &e), &e);
    CHECK(b != a);
    CHECK(record_schema_at(record_schema_count()) == NULL);
}

static void json_reads_back(void)
{
    const struct record_schema *s = sample_mixed("json");
    AUTO(arena_done) struct arena a;
    struct record_schema *back;
    struct err e;

    arena_init(&a, 0);
    NEED_OK(record_schema_parse(s->json, &a, &back, &e), &e);
    CHECK_STR(back->json, s->json);
    CHECK_INT(back->row_bytes, s->row_bytes);
    CHECK_INT(back->target, RECORD_TARGET_SCORE);
    CHECK(back->cells_hash == s->cells_hash && back->hash == s->hash);
    CHECK_FAILS(record_schema_parse(S("{\"endpoint\":\"x\"}"), &a, &back, &e), INVALID_ARGUMENT, &e,
                "features");
}

static void bad_definitions_are_refused(void)
{
    static const struct record_column same[] = {{S_INIT("a"), RECORD_F32, 0},
                                                {S_INIT("a"), RECORD_F32, 0}};
    static const struct record_column text[] = {{S_INIT("a"), RECORD_F32, 0},
                                                {S_INIT("b"), RECORD_STR, 0}};
    struct record_schema_def d = def_of(same, 2, 0);
    const struct record_schema *s = NULL;
    struct err e;

    CHECK_FAILS(record_schema_add(&d, &s, &e), INVALID_ARGUMENT, &e, "'a' is named twice");
    d = def_of(same, 1, 1); /* a feature and an output may share a name */
    CHECK_OK(record_schema_add(&d, &s, &e), &e);
    d = def_of(two, 1, 1);
    d.endpoint = S("../x");
    CHECK_FAILS(record_schema_add(&d, &s, &e), INVALID_ARGUMENT, &e, "plain names");
    d = def_of(two, 1, 1);
    d.target = RECORD_TARGET_ARGMAX;
    d.class_count = 3;
    CHECK_FAILS(record_schema_add(&d, &s, &e), INVALID_ARGUMENT, &e, "past the 1 outputs");
    d.class_count = 17;
    CHECK_FAILS(record_schema_add(&d, &s, &e), INVALID_ARGUMENT, &e, "17 classes");
    d = def_of(text, 1, 1);
    d.target = RECORD_TARGET_SCORE;
    d.class_count = 2;
    CHECK_FAILS(record_schema_add(&d, &s, &e), INVALID_ARGUMENT, &e, "is text");
}

static void classes_go_by_name_or_number(void)
{
    static const str names[] = {S_INIT("cat"), S_INIT("dog")};
    struct record_schema_def d = def_of(two, 1, 1);
    const struct record_schema *s;
    struct err e;

    d.target = RECORD_TARGET_CLASS;
    d.class_count = 2;
    d.class_names = names;
    NEED_OK(record_schema_add(&d, &s, &e), &e);
    CHECK_INT(record_schema_class_of_text(s, S("dog")), 1);
    CHECK_INT(record_schema_class_of_text(s, S("1")), 1);
    CHECK_INT(record_schema_class_of_text(s, S("cow")), RECORD_CLASS_NONE);
    CHECK_INT(record_schema_class_of_number(s, 0), 0);
    CHECK_INT(record_schema_class_of_number(s, 0.5), RECORD_CLASS_NONE);
    CHECK_INT(record_schema_class_of_number(s, 2), RECORD_CLASS_NONE);
    CHECK_INT(record_schema_class_of_number(s, NAN), RECORD_CLASS_NONE);
}

RUN_TESTS(T(layout_is_natural), T(equal_definitions_share_an_id), T(json_reads_back),
          T(bad_definitions_are_refused), T(classes_go_by_name_or_number))
