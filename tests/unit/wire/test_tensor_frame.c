/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "wire/tensor_frame.h"
#include "wire/tensor_raw.h"

static struct err e;

static struct tensor_spec specs[] = {
    {.name = S_INIT("x"), .datatype = TENSOR_FP32, .rank = 2, .shape = {-1, 2}},
    {.name = S_INIT("t"), .datatype = TENSOR_BYTES, .rank = 1, .shape = {-1}},
    {.name = S_INIT("b"), .datatype = TENSOR_BOOL, .rank = 0},
};
static float numbers[] = {1, 2, 3, 4};
static str texts[] = {S_INIT("one"), S_INIT("")};
static uint8_t flag = 1;

static void fill(struct tensor *t)
{
    t[0] = (struct tensor){
        .spec = &specs[0], .rank = 2, .shape = {2, 2}, .count = 4, .bytes = 16, .data = numbers};
    t[1] = (struct tensor){.spec = &specs[1],
                           .rank = 1,
                           .shape = {2},
                           .count = 2,
                           .bytes = 2 * sizeof(str),
                           .data = texts};
    t[2] = (struct tensor){.spec = &specs[2], .count = 1, .bytes = 1, .data = &flag};
}

/* Head, header and data of a frame in memory. */
static void cut(const struct buf *frame, struct tensor_frame_head *h, str *header, str *data)
{
    size_t span;

    CHECK_OK(tensor_frame_head_read(frame->p, 1 << 20, h, &e), &e);
    span = tensor_frame_header_span(h->header_bytes);
    CHECK_INT((TENSOR_FRAME_HEAD_BYTES + span) % TENSOR_FRAME_ALIGN, 0);
    *header = (str){frame->p + TENSOR_FRAME_HEAD_BYTES, h->header_bytes};
    *data = str_skip(buf_str(frame), TENSOR_FRAME_HEAD_BYTES + span);
    CHECK_INT(data->n, h->data_bytes);
}

static void frames_come_back_as_they_went(void)
{
    AUTO(buf_done) struct buf frame = {0};
    AUTO(arena_done) struct arena a = {0};
    struct tensor sent[3], got[3];
    struct tensor_frame_head h;
    struct json *root;
    str header, data;

    arena_init(&a, 0);
    buf_init(&frame, 1 << 20);
    fill(sent);
    NEED_OK(tensor_frame_write_run(&frame, 7, sent, 3, 250, &e), &e);
    cut(&frame, &h, &header, &data);
    CHECK_INT(h.kind, TENSOR_FRAME_RUN);
    CHECK_INT(h.id, 7);
    CHECK_INT(h.data_bytes, 3 * TENSOR_FRAME_ALIGN);
    NEED_OK(json_parse(header, &a, &root, &e), &e);
    CHECK_INT(json_int_or(json_get(root, S("timeout_ms")), 0), 250);
    for (int i = 0; i < 3; i++)
        got[i] = (struct tensor){.spec = &specs[i]};
    NEED_OK(tensor_frame_tensors(root, data, got, 3, &a, &e), &e);
    for (int i = 0; i < 4; i++)
        CHECK(((const float *)got[0].data)[i] == numbers[i]);
    CHECK_INT(got[0].shape[0], 2);
    CHECK_STR(((str *)got[1].data)[0], S("one"));
    CHECK_STR(((str *)got[1].data)[1], S(""));
    CHECK_INT(*(uint8_t *)got[2].data, 1);
}

static void bytes_are_as_documented(void)
{
    AUTO(buf_done) struct buf frame = {0};

    buf_init(&frame, 1 << 20);
    NEED_OK(tensor_frame_write_json(&frame, TENSOR_FRAME_READY, 0x0102, S("{\"protocol\":1}"), &e),
            &e);
    CHECK_INT(frame.n, 64);
    CHECK(memcmp(frame.p,
                 "WRP1\x02\0\0\0\x02\x01\0\0\0\0\0\0\x0e\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                 "{\"protocol\":1}\0\0",
                 48) == 0);
}

static void wrong_heads_are_refused(void)
{
    struct tensor_frame_head h = {.kind = TENSOR_FRAME_ANSWER, .id = 1, .data_bytes = 64}, got;
    char good[TENSOR_FRAME_HEAD_BYTES], bad[TENSOR_FRAME_HEAD_BYTES];
    static const struct {
        size_t at;
        char value;
    } spoil[] = {{0, 'w'}, {4, 0}, {4, 6}, {5, 1}, {6, 1}, {18, 0x11}, {20, 1}, {24, 63}, {27, 1}};

    tensor_frame_head_write(&h, good);
    CHECK_OK(tensor_frame_head_read(good, 64, &got, &e), &e);
    CHECK_FAILS(tensor_frame_head_read(good, 63, &got, &e), INVALID_ARGUMENT, &e, "at most 63");
    for (size_t i = 0; i < ARRAY_LEN(spoil); i++) {
        memcpy(bad, good, sizeof(bad));
        bad[spoil[i].at] = spoil[i].value;
        CHECK_FAILS(tensor_frame_head_read(bad, 4096, &got, &e), INVALID_ARGUMENT, &e, "frame");
    }
}

static void wrong_answers_are_named(void)
{
#define X "{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2],\"bytes\":8}"
    static const struct {
        const char *json, *what;
    } wrong[] = {
        {"{}", "tensors"},
        {"{\"tensors\":[]}", "'x' is missing"},
        {"{\"tensors\":[" X "," X "]}", "came twice"},
        {"{\"tensors\":[{\"name\":\"z\",\"datatype\":\"FP32\",\"shape\":[1,2],\"bytes\":8}]}",
         "no output 'z'"},
        {"{\"tensors\":[{\"name\":\"x\",\"datatype\":\"FP64\",\"shape\":[1,2],\"bytes\":16}]}",
         "is FP64, declared is FP32"},
        {"{\"tensors\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,3],\"bytes\":12}]}",
         "shape [1,3]"},
        {"{\"tensors\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,2],\"bytes\":8}]}",
         "shape [-1,2]"},
        {"{\"tensors\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[2,2],\"bytes\":8}]}",
         "8 bytes came"},
        {"{\"tensors\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[40,2],\"bytes\":320}]}",
         "ends behind the frame"},
        {"{\"tensors\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2],\"bytes\":-8}]}",
         "ends behind the frame"},
        {"{\"tensors\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[4611686018427387904,2],"
         "\"bytes\":8}]}",
         "too large"},
        {"{\"tensors\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2.5],\"bytes\":8}]}",
         "no whole number"},
        {"{\"tensors\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[0,2],\"bytes\":0}]}",
         "belong to no output"},
    };
    static char zeros[64];

    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        AUTO(arena_done) struct arena a = {0};
        struct tensor t = {.spec = &specs[0]};
        struct json *root;

        arena_init(&a, 1 << 20);
        NEED_OK(json_parse(str_of(wrong[i].json), &a, &root, &e), &e);
        CHECK_FAILS(tensor_frame_tensors(root, (str){zeros, sizeof(zeros)}, &t, 1, &a, &e),
                    INVALID_ARGUMENT, &e, wrong[i].what);
    }
}

static void raw_texts_and_flags_are_checked(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct tensor t = {.spec = &specs[1]}, b = {.spec = &specs[2]};
    int64_t two = 2;

    arena_init(&a, 1 << 20);
    NEED_OK(tensor_raw_shape(&t, &two, 1, &e), &e);
    CHECK_OK(tensor_raw_over(&t, S("\1\0\0\0a\0\0\0\0"), &a, &e), &e);
    CHECK_FAILS(tensor_raw_over(&t, S("\1\0\0\0a\1\0\0\0"), &a, &e), INVALID_ARGUMENT, &e,
                "text 1");
    CHECK_FAILS(tensor_raw_over(&t, S("\1\0\0\0a\0\0\0\0z"), &a, &e), INVALID_ARGUMENT, &e,
                "follow");
    CHECK_FAILS(tensor_raw_over(&t, S("\1\0\0\0"), &a, &e), INVALID_ARGUMENT, &e, "do not fit");
    NEED_OK(tensor_raw_shape(&b, NULL, 0, &e), &e);
    CHECK_OK(tensor_raw_over(&b, S("\1"), &a, &e), &e);
    CHECK_FAILS(tensor_raw_over(&b, S("\2"), &a, &e), INVALID_ARGUMENT, &e, "0 or 1");
}

static void specs_are_read_strictly(void)
{
    static const struct {
        const char *json, *what;
    } wrong[] = {
        {"[]", "1 to 2"},
        {"{}", "1 to 2"},
        {"[1]", "an object"},
        {"[{\"name\":\"\",\"datatype\":\"FP32\",\"shape\":[]}]", "empty"},
        {"[{\"name\":\"x\",\"datatype\":\"float\",\"shape\":[]}]", "'float' is unknown"},
        {"[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-2]}]", "-2"},
        {"[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,1,1,1,1,1,1,1,1]}]", "at most 8"},
        {"[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[]},"
         "{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[]}]",
         "twice"},
    };
    AUTO(arena_done) struct arena a = {0};
    struct tensor_spec *got;
    struct json *root;
    uint32_t n;

    arena_init(&a, 0);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        NEED_OK(json_parse(str_of(wrong[i].json), &a, &root, &e), &e);
        CHECK_FAILS(tensor_specs_read(root, "inputs", 2, &a, &got, &n, &e), INVALID_ARGUMENT, &e,
                    wrong[i].what);
    }
    root = tensor_specs_json(specs, 3, &a);
    NEED_OK(tensor_specs_read(root, "inputs", 3, &a, &got, &n, &e), &e);
    CHECK_INT(n, 3);
    CHECK_STR(got[1].name, S("t"));
    CHECK_INT(got[0].shape[0], -1);
}

RUN_TESTS(T(frames_come_back_as_they_went), T(bytes_are_as_documented), T(wrong_heads_are_refused),
          T(wrong_answers_are_named), T(raw_texts_and_flags_are_checked),
          T(specs_are_read_strictly))
