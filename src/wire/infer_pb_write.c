/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the answer of ModelInfer. What is the same in every answer of a version was encoded when
 * the plan was loaded; the sizes of what is left are known before it is written, except where texts
 * and small integers make counting as dear as writing: there pb_open() puts the length in later.
 */
#include "wire/infer_pb_priv.h"

#include "base/num.h"
#include "wire/tensor_raw.h"

void infer_pb_plan_init(struct infer_pb_plan *p, str model, str version,
                        const struct infer_schema *schema, struct arena *a)
{
    AUTO(buf_done) struct buf text = {0};
    str *heads = ARENA_ARRAY(a, str, schema->output_count);

    ASSERT(schema->output_count <= TENSOR_OUTPUTS_MAX);
    buf_init(&text, 1 << 20);
    pb_put_text(&text, PB_MODEL_NAME, model);
    pb_put_text(&text, PB_MODEL_VERSION, version);
    p->head = arena_dup(a, buf_str(&text));
    for (uint32_t i = 0; i < schema->output_count; i++) {
        buf_clear(&text);
        pb_put_text(&text, PB_TENSOR_NAME, schema->outputs[i].name);
        pb_put_text(&text, PB_TENSOR_DATATYPE,
                    str_of(tensor_type_name(schema->outputs[i].datatype)));
        heads[i] = arena_dup(a, buf_str(&text));
    }
    ASSERT(!text.overflowed);
    p->output_heads = heads;
    p->output_count = schema->output_count;
}

/* --- Parameters ------------------------------------------------------------------------------- */

static void parameter_write(struct buf *to, str json)
{
    int64_t integer;
    double real;
    uint64_t bits;

    if (str_eq(json, S("true")) || str_eq(json, S("false"))) {
        pb_put_tag(to, PB_PARAMETER_BOOL, PB_VARINT); /* also false: the oneof must be set */
        pb_put_varint(to, json.p[0] == 't');
    } else if (str_to_i64(json, &integer)) {
        pb_put_tag(to, PB_PARAMETER_INT64, PB_VARINT);
        pb_put_varint(to, (uint64_t)integer);
    } else if (str_to_f64(json, &real)) {
        memcpy(&bits, &real, sizeof(bits));
        pb_put_tag(to, PB_PARAMETER_DOUBLE, PB_FIXED64);
        buf_add(to, &bits, sizeof(bits));
    } else { /* a text; escapes stay as they are: names and words have none */
        if (json.n >= 2 && json.p[0] == '"')
            json = (str){json.p + 1, json.n - 2};
        pb_put_bytes(to, PB_PARAMETER_STRING, json);
    }
}

/* The members of a JSON object as entries of the map in field `number`. */
static void parameters_write(struct buf *to, uint32_t number, str json)
{
    struct scan_text key;
    struct scan s;
    bool first = true;
    str value;

    scan_begin(&s, json);
    if (!scan_open(&s, '{', "an object"))
        return;
    while (scan_member(&s, &key, &first) && scan_value(&s, &value)) {
        size_t entry = pb_open(to, number), one;

        pb_put_text(to, 1, key.raw);
        one = pb_open(to, 2);
        parameter_write(to, value);
        pb_close(to, one);
        pb_close(to, entry);
    }
}

/* --- Tensors ---------------------------------------------------------------------------------- */

static size_t shape_bytes(const int64_t *shape, uint32_t rank)
{
    size_t n = 0;

    for (uint32_t i = 0; i < rank; i++)
        n += pb_varint_bytes((uint64_t)shape[i]);
    return n;
}

void infer_pb_shape_write(struct buf *to, const int64_t *shape, uint32_t rank)
{
    if (!rank)
        return;
    pb_put_head(to, PB_TENSOR_SHAPE, shape_bytes(shape, rank));
    for (uint32_t i = 0; i < rank; i++)
        pb_put_varint(to, (uint64_t)shape[i]);
}

static uint64_t integer_at(const struct tensor *t, size_t i)
{
    switch (t->spec->datatype) {
    case TENSOR_INT8:
        return (uint64_t)((const int8_t *)t->data)[i];
    case TENSOR_INT16:
        return (uint64_t)((const int16_t *)t->data)[i];
    case TENSOR_INT32:
        return (uint64_t)((const int32_t *)t->data)[i];
    case TENSOR_UINT16:
        return ((const uint16_t *)t->data)[i];
    case TENSOR_UINT32:
        return ((const uint32_t *)t->data)[i];
    case TENSOR_INT64:
    case TENSOR_UINT64:
        return ((const uint64_t *)t->data)[i];
    default: /* BOOL, UINT8 */
        return ((const uint8_t *)t->data)[i];
    }
}

/* InferTensorContents of a tensor, packed. */
static void contents_write(struct buf *to, const struct tensor *t)
{
    uint32_t number = PB_CONTENTS[t->spec->datatype].number;
    size_t message = pb_open(to, PB_TENSOR_CONTENTS), packed;

    if (t->spec->datatype == TENSOR_BYTES) {
        for (size_t i = 0; i < t->count; i++)
            pb_put_bytes(to, number, ((const str *)t->data)[i]);
    } else if (tensor_type_kind(t->spec->datatype) == TENSOR_KIND_FLOAT) {
        pb_put_head(to, number, t->bytes);
        buf_add(to, t->data, t->bytes);
    } else {
        packed = pb_open(to, number);
        for (size_t i = 0; i < t->count; i++)
            pb_put_varint(to, integer_at(t, i));
        pb_close(to, packed);
    }
    pb_close(to, message);
}

/* --- Classes ---------------------------------------------------------------------------------- */

static bool is_classes(const struct infer_wanted *w, const struct tensor *t)
{
    return w->classification && t->spec->datatype != TENSOR_BYTES;
}

struct rows {
    size_t row, rows, n;
};

static struct rows rows_of(const struct infer_wanted *w, const struct tensor *t)
{
    size_t row = t->rank ? (size_t)t->shape[t->rank - 1] : 1;

    return (struct rows){row, row ? t->count / row : 0, MIN((size_t)w->classification, row)};
}

static void classes_write(struct buf *to, const struct infer_wanted *w, const struct tensor *t)
{
    struct rows r = rows_of(w, t);
    char text[TENSOR_CLASS_TEXT_MAX];

    for (size_t i = 0; i < r.rows; i++) {
        struct tensor_classes c = tensor_classes_of(t, i * r.row, r.row);

        for (size_t k = 0; k < r.n; k++)
            pb_put_bytes(to, PB_CONTENTS[TENSOR_BYTES].number,
                         (str){text, tensor_class_next(&c, text)});
    }
}

static void classes_output_write(struct buf *to, const struct infer_wanted *w,
                                 const struct tensor *t, bool raw)
{
    size_t output = pb_open(to, PB_INPUTS), contents;
    uint32_t rank = MAX(t->rank, 1u);
    int64_t shape[TENSOR_RANK_MAX];

    memcpy(shape, t->shape, t->rank * sizeof(shape[0]));
    shape[rank - 1] = (int64_t)rows_of(w, t).n;
    pb_put_text(to, PB_TENSOR_NAME, t->spec->name);
    pb_put_text(to, PB_TENSOR_DATATYPE, S("BYTES"));
    infer_pb_shape_write(to, shape, rank);
    if (!raw) {
        contents = pb_open(to, PB_TENSOR_CONTENTS);
        classes_write(to, w, t);
        pb_close(to, contents);
    }
    pb_close(to, output);
}

/* --- The answer ------------------------------------------------------------------------------- */

static void output_write(struct buf *to, str head, const struct tensor *t, bool raw)
{
    size_t shape = shape_bytes(t->shape, t->rank), output;

    if (raw) { /* its length is known */
        pb_put_head(to, PB_INPUTS, head.n + (t->rank ? 1 + pb_varint_bytes(shape) + shape : 0));
        buf_add_str(to, head);
        infer_pb_shape_write(to, t->shape, t->rank);
        return;
    }
    output = pb_open(to, PB_INPUTS);
    buf_add_str(to, head);
    infer_pb_shape_write(to, t->shape, t->rank);
    contents_write(to, t);
    pb_close(to, output);
}

static bool must_be_raw(const struct infer_request *request, const struct tensor *outputs)
{
    for (uint32_t i = 0; i < request->wanted_count; i++)
        if (tensor_type_kind(outputs[request->wanted[i].output].spec->datatype) == TENSOR_KIND_HALF)
            return true;
    return request->any_binary;
}

static void raw_output_write(struct buf *to, const struct infer_wanted *w, const struct tensor *t)
{
    if (is_classes(w, t)) {
        size_t raw = pb_open(to, PB_RAW_OUTPUTS);

        (void)tensor_classes_raw(to, t, w->classification);
        pb_close(to, raw);
        return;
    }
    pb_put_head(to, PB_RAW_OUTPUTS, tensor_raw_bytes(t));
    tensor_raw_write(to, t);
}

int infer_pb_response_write(struct buf *to, const struct infer_pb_plan *p,
                            const struct infer_request *request, const struct tensor *outputs,
                            str parameters, struct err *e)
{
    bool raw = must_be_raw(request, outputs);

    buf_add_str(to, p->head);
    pb_put_text(to, PB_ID, request->id);
    if (parameters.n)
        parameters_write(to, PB_PARAMETERS, parameters);
    for (uint32_t i = 0; i < request->wanted_count; i++) {
        const struct infer_wanted *w = &request->wanted[i];

        ASSERT(w->output < p->output_count);
        if (is_classes(w, &outputs[w->output]))
            classes_output_write(to, w, &outputs[w->output], raw);
        else
            output_write(to, p->output_heads[w->output], &outputs[w->output], raw);
    }
    for (uint32_t i = 0; raw && i < request->wanted_count; i++)
        raw_output_write(to, &request->wanted[i], &outputs[request->wanted[i].output]);
    if (to->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the answer exceeds %zu bytes: send fewer rows at once",
                    to->max_bytes);
    return 0;
}

size_t infer_pb_stream_open(struct buf *to)
{
    return pb_open(to, 2);
}

void infer_pb_stream_close(struct buf *to, size_t opened)
{
    pb_close(to, opened);
}

void infer_pb_stream_error_write(struct buf *to, str message)
{
    pb_put_text(to, 1, message);
}
