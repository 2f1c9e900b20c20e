/* SPDX-License-Identifier: Apache-2.0 */
/* External data is found wherever a tensor can stand in an ONNX file. */
#include "check.h"

#include "onnx_make.h"
#include "serve/runtime/priv.h"

/* A TensorProto as field `number`: external by location, by its list of entries, or not. */
static void tensor(struct buf *to, uint32_t number, const char *name, int how)
{
    size_t t = pb_open(to, number);

    pb_int(to, 1, 1);
    pb_int(to, 2, 1);
    pb_put_bytes(to, 8, str_of(name));
    if (how == 1) {
        pb_int(to, 14, 1);
    } else if (how == 2) {
        size_t entry = pb_open(to, 13);

        pb_put_bytes(to, 1, S("location"));
        pb_put_bytes(to, 2, S("../../etc/passwd"));
        pb_close(to, entry);
    } else {
        pb_int(to, 14, 0);
        pb_put_bytes(to, 9, S("\0\0\x80\x3f"));
    }
    pb_close(to, t);
}

/* Puts the tensor behind a path of nested fields of the model, e.g. {7, 1, 5, 5}. */
static str model_of(struct buf *to, const uint32_t *path, size_t depth, int how)
{
    size_t marks[8];

    buf_clear(to);
    pb_int(to, 1, 8);
    if (path[0] != 7)
        pb_close(to, pb_open(to, 7));
    for (size_t i = 0; i + 1 < depth; i++)
        marks[i] = pb_open(to, path[i]);
    tensor(to, path[depth - 1], "w0", how);
    for (size_t i = depth - 1; i-- > 0;)
        pb_close(to, marks[i]);
    return buf_str(to);
}

static void test_finds_external_data_everywhere(void)
{
    static const struct {
        size_t depth;
        uint32_t path[8];
    } places[] = {
        {2, {7, 5}},                 /* initializer */
        {3, {7, 15, 1}},             /* values of a sparse initializer */
        {3, {7, 15, 2}},             /* its indices */
        {4, {7, 1, 5, 5}},           /* tensor attribute of a node */
        {4, {7, 1, 5, 10}},          /* list of tensors */
        {5, {7, 1, 5, 22, 1}},       /* sparse tensor attribute */
        {5, {7, 1, 5, 23, 2}},       /* list of sparse tensors */
        {5, {7, 1, 5, 6, 5}},        /* initializer of a subgraph */
        {7, {7, 1, 5, 11, 1, 5, 5}}, /* attribute of a node of one of several subgraphs */
        {4, {25, 7, 5, 5}},          /* node of a function */
        {3, {25, 11, 5}},            /* default attribute of a function */
        {3, {20, 1, 5}},             /* training initialisation */
        {3, {20, 2, 5}},             /* training algorithm */
    };
    AUTO(buf_done) struct buf to = {0};
    struct err e;

    buf_init(&to, 1 << 16);
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        CHECK_OK(onnx_scan(model_of(&to, places[i].path, places[i].depth, 0), &e), &e);
        for (int how = 1; how <= 2; how++)
            CHECK_FAILS(onnx_scan(model_of(&to, places[i].path, places[i].depth, how), &e),
                        INVALID_ARGUMENT, &e,
                        "tensor 'w0' of the ONNX model keeps its data in "
                        "another file");
    }
}

static void test_refuses_what_is_no_model(void)
{
    AUTO(buf_done) struct buf to = {0};
    size_t marks[80], depth = 0;
    struct err e;
    str text;

    buf_init(&to, 1 << 16);
    CHECK_FAILS(onnx_scan(S(""), &e), INVALID_ARGUMENT, &e, "it has no graph");
    CHECK_FAILS(onnx_scan(S("{\"learner\":{}}"), &e), INVALID_ARGUMENT, &e, "protobuf is broken");
    CHECK_FAILS(onnx_scan(S("PK\3\4"), &e), INVALID_ARGUMENT, &e, "not an ONNX model");
    /* Cut anywhere inside of the graph, it is broken. */
    text = model_of(&to, (const uint32_t[]){7, 5}, 2, 0);
    for (size_t n = 3; n < text.n; n++)
        CHECK(onnx_scan(str_take(text, n), &e) == CODE_INVALID_ARGUMENT);
    /* Graphs in graphs without end. */
    buf_clear(&to);
    for (marks[depth++] = pb_open(&to, 7); depth + 3 < ARRAY_LEN(marks);) {
        marks[depth++] = pb_open(&to, 1);
        marks[depth++] = pb_open(&to, 5);
        marks[depth++] = pb_open(&to, 6);
    }
    while (depth)
        pb_close(&to, marks[--depth]);
    CHECK_FAILS(onnx_scan(buf_str(&to), &e), INVALID_ARGUMENT, &e,
                "nests its graphs deeper than 64");
}

RUN_TESTS(T(test_finds_external_data_everywhere), T(test_refuses_what_is_no_model))
