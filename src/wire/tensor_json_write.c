/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the answer of an infer request. What is the same in every answer of a version (its name,
 * the names and datatypes of its outputs) was put into text when the plan was loaded; what is left
 * per request is the shape and the numbers, which are written flat, in place, in blocks for which
 * the buffer reserves room once.
 *
 * Raw tensors of binary outputs go behind the JSON in the order in which the JSON lists them.
 *
 * The classification extension replaces the last dimension of a numeric output by its n largest
 * values, as texts "value:index". It serves the few clients that ask for it; the selection is
 * quadratic in n, which is small.
 */
#include "base/json.h"
#include "base/num.h"
#include "wire/tensor_data.h"
#include "wire/tensor_raw.h"
#include "wire/tensor_json.h"

#include <math.h>

#define BLOCK 64 /* numbers per reservation */

void infer_response_plan_init(struct infer_response_plan *p, str model, str version,
                              const struct infer_schema *schema, struct arena *a)
{
    AUTO(buf_done) struct buf text = {0};
    str *heads = ARENA_ARRAY(a, str, schema->output_count);

    ASSERT(schema->output_count <= TENSOR_OUTPUTS_MAX);
    buf_init(&text, 1 << 20);
    buf_add_str(&text, S("{\"model_name\":"));
    json_escape(&text, model);
    if (version.n) {
        buf_add_str(&text, S(",\"model_version\":"));
        json_escape(&text, version);
    }
    p->head = arena_dup(a, buf_str(&text));
    for (uint32_t i = 0; i < schema->output_count; i++) {
        buf_clear(&text);
        buf_add_str(&text, S("{\"name\":"));
        json_escape(&text, schema->outputs[i].name);
        buf_printf(&text, ",\"datatype\":\"%s\",\"shape\":[",
                   tensor_type_name(schema->outputs[i].datatype));
        heads[i] = arena_dup(a, buf_str(&text));
    }
    ASSERT(!text.overflowed);
    p->output_heads = heads;
    p->output_count = schema->output_count;
}

/* The text of element i at `to` (room for NUM_TEXT_MAX); 0 when it is not finite. */
static size_t number_text(const struct tensor *t, size_t i, char *to)
{
    const void *data = t->data;
    float f;

    switch (t->spec->datatype) {
    case TENSOR_FP32:
        f = ((const float *)data)[i];
        return isfinite(f) ? num_f32_text(f, to) : 0;
    case TENSOR_FP64:
        return isfinite(((const double *)data)[i]) ? num_f64_text(((const double *)data)[i], to)
                                                   : 0;
    case TENSOR_FP16:
        f = tensor_fp16_widen(((const uint16_t *)data)[i]);
        return isfinite(f) ? num_f32_text(f, to) : 0;
    case TENSOR_BF16:
        f = tensor_bf16_widen(((const uint16_t *)data)[i]);
        return isfinite(f) ? num_f32_text(f, to) : 0;
    case TENSOR_UINT8:
        return num_i64_text(((const uint8_t *)data)[i], to);
    case TENSOR_UINT16:
        return num_i64_text(((const uint16_t *)data)[i], to);
    case TENSOR_UINT32:
        return num_i64_text(((const uint32_t *)data)[i], to);
    case TENSOR_INT8:
        return num_i64_text(((const int8_t *)data)[i], to);
    case TENSOR_INT16:
        return num_i64_text(((const int16_t *)data)[i], to);
    case TENSOR_INT32:
        return num_i64_text(((const int32_t *)data)[i], to);
    case TENSOR_INT64:
        return num_i64_text(((const int64_t *)data)[i], to);
    case TENSOR_UINT64: {
        uint64_t v = ((const uint64_t *)data)[i];

        /* Above int64: the last digit is split off, so that the rest fits. */
        if (v <= INT64_MAX)
            return num_i64_text((int64_t)v, to);
        size_t n = num_i64_text((int64_t)(v / 10), to);
        to[n] = (char)('0' + v % 10);
        return n + 1;
    }
    case TENSOR_BOOL: {
        str word = ((const uint8_t *)data)[i] ? S("true") : S("false");

        memcpy(to, word.p, word.n);
        return word.n;
    }
    default:
        return 0;
    }
}

static int numbers_write(struct buf *to, const struct tensor *t, enum infer_nonfinite nonfinite,
                         struct err *e)
{
    for (size_t i = 0; i < t->count; i += BLOCK) {
        size_t last = MIN(t->count, i + BLOCK);
        char *room = buf_reserve(to, BLOCK * (NUM_TEXT_MAX + 1)), *p = room;

        if (!room)
            return 0; /* the caller looks at the flag */
        for (size_t j = i; j < last; j++) {
            size_t n;

            if (j)
                *p++ = ',';
            n = number_text(t, j, p);
            if (UNLIKELY(!n)) {
                if (nonfinite == INFER_NONFINITE_FAIL)
                    return FAIL(e, OUT_OF_RANGE,
                                "output '" STR_F "': element %zu is not finite and has no JSON "
                                "form; ask for binary data",
                                STR_A(t->spec->name), j);
                memcpy(p, "null", 4);
                n = 4;
            }
            p += n;
        }
        to->n += (size_t)(p - room);
    }
    return 0;
}

int tensor_json_write_data(struct buf *to, const struct tensor *t, enum infer_nonfinite nonfinite,
                           struct err *e)
{
    buf_add_char(to, '[');
    if (t->spec->datatype == TENSOR_BYTES) {
        for (size_t i = 0; i < t->count; i++) {
            if (i)
                buf_add_char(to, ',');
            json_escape(to, ((const str *)t->data)[i]);
        }
    } else {
        TRY(numbers_write(to, t, nonfinite, e));
    }
    buf_add_char(to, ']');
    if (to->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the answer exceeds %zu bytes: send fewer rows at once",
                    to->max_bytes);
    return 0;
}

static double number_at(const struct tensor *t, size_t i)
{
    char text[NUM_TEXT_MAX];
    double v;

    switch (t->spec->datatype) {
    case TENSOR_FP32:
        return ((const float *)t->data)[i];
    case TENSOR_FP64:
        return ((const double *)t->data)[i];
    default:
        /* Rare kinds: by their text, which number_text already knows how to make. */
        return str_to_f64((str){text, number_text(t, i, text)}, &v) ? v : 0;
    }
}

/* The `rank`-th largest (NaN last, ties by index) of row[0..n): the next after (bound, at). */
static size_t next_largest(const struct tensor *t, size_t begin, size_t n, double bound, size_t at)
{
    size_t best = SIZE_MAX;
    double best_value = 0;

    for (size_t i = 0; i < n; i++) {
        double v = number_at(t, begin + i);

        if (isnan(v))
            v = -INFINITY;
        if (at != SIZE_MAX && (v > bound || (v == bound && i <= at)))
            continue;
        if (best == SIZE_MAX || v > best_value)
            best = i, best_value = v;
    }
    return best;
}

size_t tensor_class_next(struct tensor_classes *c, char text[TENSOR_CLASS_TEXT_MAX])
{
    size_t n;

    c->at = next_largest(c->t, c->begin, c->row, c->bound, c->at);
    ASSERT(c->at < c->row);
    c->bound = number_at(c->t, c->begin + c->at);
    if (isnan(c->bound))
        c->bound = -INFINITY;
    n = number_text(c->t, c->begin + c->at, text);
    if (!n) {
        memcpy(text, "nan", 3);
        n = 3;
    }
    text[n++] = ':';
    return n + num_i64_text((int64_t)c->at, text + n);
}

size_t tensor_classes_raw(struct buf *to, const struct tensor *t, uint32_t wanted)
{
    size_t row = t->rank ? (size_t)t->shape[t->rank - 1] : 1, bytes = 0;
    size_t rows = row ? t->count / row : 0, most = MIN((size_t)wanted, row);
    char text[TENSOR_CLASS_TEXT_MAX];

    for (size_t r = 0; r < rows; r++) {
        struct tensor_classes c = tensor_classes_of(t, r * row, row);

        for (size_t k = 0; k < most; k++) {
            uint32_t n = (uint32_t)tensor_class_next(&c, text);

            bytes += sizeof(n) + n;
            if (!to)
                continue;
            buf_add(to, &n, sizeof(n));
            buf_add(to, text, n);
        }
    }
    return bytes;
}

static void binary_size_write(struct buf *to, size_t bytes)
{
    buf_add_str(to, S("],\"parameters\":{\"binary_data_size\":"));
    buf_add_u64(to, bytes);
    buf_add_str(to, S("}}"));
}

static bool is_classes(const struct infer_wanted *w, const struct tensor *t)
{
    return w->classification && t->spec->datatype != TENSOR_BYTES;
}

/* {"name":..,"datatype":"BYTES","shape":[..,n],"data":["0.9:3",..]} */
static void classes_write(struct buf *to, const struct tensor *t, uint32_t wanted, bool binary)
{
    size_t row = t->rank ? (size_t)t->shape[t->rank - 1] : 1;
    size_t rows = row ? t->count / row : 0, n = MIN((size_t)wanted, row);
    char text[TENSOR_CLASS_TEXT_MAX];

    buf_add_str(to, S("{\"name\":"));
    json_escape(to, t->spec->name);
    buf_add_str(to, S(",\"datatype\":\"BYTES\",\"shape\":["));
    for (uint32_t i = 0; i + 1 < t->rank; i++) {
        buf_add_i64(to, t->shape[i]);
        buf_add_char(to, ',');
    }
    buf_add_u64(to, n);
    if (binary) {
        binary_size_write(to, tensor_classes_raw(NULL, t, wanted));
        return;
    }
    buf_add_str(to, S("],\"data\":["));
    for (size_t r = 0; r < rows; r++) {
        struct tensor_classes c = tensor_classes_of(t, r * row, row);

        for (size_t k = 0; k < n; k++) {
            buf_add_str(to, r || k ? S(",\"") : S("\""));
            buf_add(to, text, tensor_class_next(&c, text));
            buf_add_char(to, '"');
        }
    }
    buf_add_str(to, S("]}"));
}

static int output_write(struct buf *to, str head, const struct infer_wanted *w,
                        const struct tensor *t, enum infer_nonfinite nonfinite, struct err *e)
{
    if (is_classes(w, t)) {
        classes_write(to, t, w->classification, w->binary);
        return 0;
    }
    buf_add_str(to, head);
    for (uint32_t i = 0; i < t->rank; i++) {
        if (i)
            buf_add_char(to, ',');
        buf_add_i64(to, t->shape[i]);
    }
    if (w->binary) {
        binary_size_write(to, tensor_raw_bytes(t));
        return 0;
    }
    if (tensor_type_kind(t->spec->datatype) == TENSOR_KIND_HALF)
        return FAIL(e, UNIMPLEMENTED,
                    "output '" STR_F "': %s has no JSON form, ask for binary data",
                    STR_A(t->spec->name), tensor_type_name(t->spec->datatype));
    buf_add_str(to, S("],\"data\":"));
    TRY(tensor_json_write_data(to, t, nonfinite, e));
    buf_add_char(to, '}');
    return 0;
}

int infer_response_write(struct buf *to, const struct infer_response_plan *p,
                         const struct infer_request *request, const struct tensor *outputs,
                         str parameters, enum infer_nonfinite nonfinite, size_t *ret_json_bytes,
                         struct err *e)
{
    size_t begin = to->n, json_bytes;

    buf_add_str(to, p->head);
    if (request->id.p) {
        buf_add_str(to, S(",\"id\":"));
        json_escape(to, request->id);
    }
    if (parameters.n) {
        buf_add_str(to, S(",\"parameters\":"));
        buf_add_str(to, parameters);
    }
    buf_add_str(to, S(",\"outputs\":["));
    for (uint32_t i = 0; i < request->wanted_count; i++) {
        const struct infer_wanted *w = &request->wanted[i];

        ASSERT(w->output < p->output_count);
        if (i)
            buf_add_char(to, ',');
        TRY(output_write(to, p->output_heads[w->output], w, &outputs[w->output], nonfinite, e));
    }
    buf_add_str(to, S("]}"));
    json_bytes = to->n - begin;
    for (uint32_t i = 0; i < request->wanted_count; i++) {
        const struct infer_wanted *w = &request->wanted[i];

        if (w->binary && is_classes(w, &outputs[w->output]))
            (void)tensor_classes_raw(to, &outputs[w->output], w->classification);
        else if (w->binary)
            tensor_raw_write(to, &outputs[w->output]);
    }
    if (to->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the answer exceeds %zu bytes: send fewer rows at once",
                    to->max_bytes);
    *ret_json_bytes = json_bytes;
    return 0;
}

void infer_error_begin(struct json_out *o, struct buf *to, const struct err *e)
{
    jo_begin(o, to);
    jo_object(o);
    jo_kstr(o, S("error"), str_of(e->msg));
    jo_kstr(o, S("code"), str_of(code_name(e->code)));
}

void infer_error_write(struct buf *to, const struct err *e)
{
    struct json_out o;

    infer_error_begin(&o, to, e);
    jo_object_end(&o);
}
