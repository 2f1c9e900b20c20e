/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tensor in protobuf, read: what it is called, and its typed contents. Inputs of requests and
 * outputs of answers are the same message (InferInputTensor, InferOutputTensor).
 *
 * Invariants: an element is written only where name, datatype and shape agreed before, at most
 * `count` of them; what is past the end is counted and not stored.
 */
#include "wire/infer_pb_priv.h"

#include <string.h>

const struct pb_contents PB_CONTENTS[TENSOR_TYPE_COUNT] = {
    [TENSOR_BOOL] = {1, "bool_contents"},     [TENSOR_INT8] = {2, "int_contents"},
    [TENSOR_INT16] = {2, "int_contents"},     [TENSOR_INT32] = {2, "int_contents"},
    [TENSOR_INT64] = {3, "int64_contents"},   [TENSOR_UINT8] = {4, "uint_contents"},
    [TENSOR_UINT16] = {4, "uint_contents"},   [TENSOR_UINT32] = {4, "uint_contents"},
    [TENSOR_UINT64] = {5, "uint64_contents"}, [TENSOR_FP32] = {6, "fp32_contents"},
    [TENSOR_FP64] = {7, "fp64_contents"},     [TENSOR_BYTES] = {8, "bytes_contents"},
};

/* --- Name, datatype and shape ----------------------------------------------------------------- */

static void dimension_add(struct tensor_claim *claim, uint64_t v)
{
    if (claim->rank == TENSOR_RANK_MAX)
        claim->shape_is_long = true;
    else
        claim->shape[claim->rank++] = (int64_t)v;
}

static void shape_read(struct pb *r, const struct pb_field *f, struct tensor_claim *claim)
{
    const char *p = f->bytes.p, *end = p + f->bytes.n;
    uint64_t v;

    if (f->wire == PB_VARINT) {
        dimension_add(claim, f->value);
        return;
    }
    if (!pb_is(r, f, PB_BYTES))
        return;
    while (p < end && !r->wrong) {
        if (pb_varint(&p, end, &v))
            dimension_add(claim, v);
        else
            r->wrong = "a broken varint in shape";
    }
}

const char *infer_pb_tensor_read(str message, struct tensor_claim *ret_claim, str *ret_contents)
{
    struct tensor_claim claim = {.rank = 0};
    str contents = STR_NULL;
    struct pb_field f;
    struct pb r;

    pb_begin(&r, message);
    while (pb_next(&r, &f)) {
        if (f.number == PB_TENSOR_NAME && pb_is_text(&r, &f))
            claim.name = f.bytes;
        else if (f.number == PB_TENSOR_DATATYPE && pb_is_text(&r, &f))
            claim.datatype = f.bytes;
        else if (f.number == PB_TENSOR_SHAPE)
            shape_read(&r, &f, &claim);
        else if (f.number == PB_TENSOR_CONTENTS && pb_is(&r, &f, PB_BYTES)) {
            if (contents.n) /* to be merged, says protobuf; nobody does */
                r.wrong = "contents stand twice in a tensor";
            contents = f.bytes;
        }
    }
    *ret_claim = claim;
    *ret_contents = contents;
    return r.wrong;
}

/* --- Typed contents --------------------------------------------------------------------------- */

struct fill {
    const char *what; /* "input" or "output" */
    struct problems *problems;
    struct tensor *t;
    size_t got; /* elements, those past the end counted and not stored */
    bool wrong; /* a value; said once */
};

static void fill_integer(struct fill *f, uint64_t v)
{
    const struct tensor_spec *spec = f->t->spec;
    size_t size = tensor_type_bytes(spec->datatype), i = f->got++;
    unsigned unused = 64 - 8 * (unsigned)size;
    bool is_signed = tensor_type_kind(spec->datatype) == TENSOR_KIND_SIGNED, fits;

    if (spec->datatype == TENSOR_BOOL)
        fits = v <= 1;
    else if (is_signed)
        fits = (int64_t)(v << unused) >> unused == (int64_t)v;
    else
        fits = v << unused >> unused == v;
    if (UNLIKELY(!fits) && !f->wrong) {
        f->wrong = true;
        if (is_signed)
            problems_add(f->problems, "%s '" STR_F "': element %zu is %lld, which does not fit %s",
                         f->what, SHOWN(spec->name), i, (long long)v,
                         tensor_type_name(spec->datatype));
        else
            problems_add(f->problems, "%s '" STR_F "': element %zu is %llu, which does not fit %s",
                         f->what, SHOWN(spec->name), i, (unsigned long long)v,
                         tensor_type_name(spec->datatype));
    }
    if (i < f->t->count)
        memcpy((char *)f->t->data + i * size, &v, size); /* little-endian: the low bytes */
}

static void fill_integers(struct fill *f, struct pb *r, const struct pb_field *field)
{
    const char *p = field->bytes.p, *end = p + field->bytes.n;
    uint64_t v;

    if (field->wire == PB_VARINT) {
        fill_integer(f, field->value);
        return;
    }
    if (!pb_is(r, field, PB_BYTES))
        return;
    while (p < end) {
        if (!pb_varint(&p, end, &v)) {
            r->wrong = "a broken varint in contents";
            return;
        }
        fill_integer(f, v);
    }
}

static void fill_reals(struct fill *f, struct pb *r, const struct pb_field *field)
{
    size_t size = tensor_type_bytes(f->t->spec->datatype), n = 1;
    const void *from = &field->value;

    if (field->wire != (size == 4 ? PB_FIXED32 : PB_FIXED64)) {
        if (!pb_is(r, field, PB_BYTES))
            return;
        if (field->bytes.n % size) {
            r->wrong = "a number is cut off in contents";
            return;
        }
        from = field->bytes.p;
        n = field->bytes.n / size;
    }
    if (n && n <= f->t->count - MIN(f->got, f->t->count))
        memcpy((char *)f->t->data + f->got * size, from, n * size);
    f->got += n;
}

static void fill_text(struct fill *f, struct pb *r, const struct pb_field *field)
{
    if (!pb_is(r, field, PB_BYTES))
        return;
    if (f->got < f->t->count)
        ((str *)f->t->data)[f->got] = field->bytes;
    f->got++;
}

/* The name of a field of InferTensorContents, whichever datatype it is for. */
static const char *contents_name(uint32_t number)
{
    for (unsigned i = 0; i < TENSOR_TYPE_COUNT; i++)
        if (PB_CONTENTS[i].number == number)
            return PB_CONTENTS[i].name;
    return "contents";
}

static void contents_unfit(struct fill *f, uint32_t number)
{
    const struct tensor_spec *spec = f->t->spec;
    const char *wanted = PB_CONTENTS[spec->datatype].name;

    if (f->wrong)
        return;
    f->wrong = true;
    problems_add(f->problems, "%s '" STR_F "': has %s, %s comes in %s", f->what, SHOWN(spec->name),
                 contents_name(number), tensor_type_name(spec->datatype),
                 wanted ? wanted : "raw_input_contents only");
}

const char *infer_pb_contents_read(const char *what, str message, struct tensor *t,
                                   struct problems *problems)
{
    struct fill fill = {.what = what, .problems = problems, .t = t};
    char shape[TENSOR_SHAPE_TEXT_MAX];
    struct pb_field f;
    struct pb r;

    pb_begin(&r, message);
    while (pb_next(&r, &f)) {
        if (f.number > 8)
            continue;
        if (f.number != PB_CONTENTS[t->spec->datatype].number) {
            contents_unfit(&fill, f.number);
            continue;
        }
        switch (tensor_type_kind(t->spec->datatype)) {
        case TENSOR_KIND_FLOAT:
            fill_reals(&fill, &r, &f);
            break;
        case TENSOR_KIND_TEXT:
            fill_text(&fill, &r, &f);
            break;
        default:
            fill_integers(&fill, &r, &f);
        }
    }
    if (!fill.wrong && !r.wrong && fill.got != t->count)
        problems_add(problems, "%s '" STR_F "': data has %zu elements, its shape %s needs %zu",
                     what, SHOWN(t->spec->name), fill.got,
                     tensor_shape_text(t->shape, t->rank, shape), t->count);
    return r.wrong;
}
