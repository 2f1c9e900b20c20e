/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/tensor.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

static const struct {
    const char *name;
    enum tensor_kind kind;
} types[TENSOR_TYPE_COUNT] = {
#define TENSOR_TYPE(name, bytes, kind) [TENSOR_##name] = {#name, TENSOR_KIND_##kind},
#include "wire/tensor_types.def"
#undef TENSOR_TYPE
};

const uint8_t tensor_type_sizes[TENSOR_TYPE_COUNT] = {
#define TENSOR_TYPE(name, bytes, kind) [TENSOR_##name] = (bytes),
#include "wire/tensor_types.def"
#undef TENSOR_TYPE
};

enum tensor_kind tensor_type_kind(enum tensor_type type)
{
    ASSERT(type < TENSOR_TYPE_COUNT);
    return types[type].kind;
}

const char *tensor_type_name(enum tensor_type type)
{
    ASSERT(type < TENSOR_TYPE_COUNT);
    return types[type].name;
}

bool tensor_type_parse(str name, enum tensor_type *ret_type)
{
    for (unsigned i = 0; i < TENSOR_TYPE_COUNT; i++)
        if (str_eqz(name, types[i].name)) {
            *ret_type = (enum tensor_type)i;
            return true;
        }
    return false;
}

bool tensor_shape_count(const int64_t *shape, uint32_t rank, int64_t *ret_count)
{
    int64_t count = 1;
    bool overflow = false, empty = false;

    /* [0, huge, huge] is an empty tensor, but no honest one: the product of the others must fit. */
    for (uint32_t i = 0; i < rank; i++) {
        if (shape[i] < 0)
            return false;
        if (shape[i] == 0)
            empty = true;
        else
            overflow |= __builtin_mul_overflow(count, shape[i], &count);
    }
    if (overflow)
        return false;
    *ret_count = empty ? 0 : count;
    return true;
}

bool tensor_shape_fits(const struct tensor_spec *spec, const int64_t *shape, uint32_t rank)
{
    if (rank != spec->rank)
        return false;
    for (uint32_t i = 0; i < rank; i++)
        if (shape[i] < 0 || (spec->shape[i] != TENSOR_DIM_ANY && spec->shape[i] != shape[i]))
            return false;
    return true;
}

int64_t tensor_row_elements(const struct tensor_spec *spec)
{
    int64_t count;

    if (!spec->rank || spec->shape[0] != TENSOR_DIM_ANY)
        return -1;
    return tensor_shape_count(spec->shape + 1, spec->rank - 1, &count) ? count : -1;
}

const char *tensor_shape_text(const int64_t *shape, uint32_t rank,
                              char ret_text[TENSOR_SHAPE_TEXT_MAX])
{
    size_t n = 0;

    ret_text[n++] = '[';
    for (uint32_t i = 0; i < rank; i++)
        n += (size_t)snprintf(ret_text + n, TENSOR_SHAPE_TEXT_MAX - n, "%s%lld", i ? "," : "",
                              (long long)shape[i]);
    ret_text[n++] = ']';
    ret_text[n] = '\0';
    return ret_text;
}
static_assert(TENSOR_SHAPE_TEXT_MAX >= TENSOR_RANK_MAX * 21 + 3, "eight int64 fit");

void tensor_set_rows(struct tensor *t, int64_t rows)
{
    int64_t row = tensor_row_elements(t->spec);

    ASSERT(row >= 0 && rows >= 0);
    t->rank = t->spec->rank;
    for (uint32_t i = 1; i < t->rank; i++)
        t->shape[i] = t->spec->shape[i];
    t->shape[0] = rows;
    t->count = (size_t)rows * (size_t)row;
    t->bytes = t->count * tensor_type_bytes(t->spec->datatype);
    ASSERT(t->bytes <= t->cap_bytes);
}

float tensor_fp16_widen(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 0x1F, mantissa = h & 0x3FF;
    uint32_t bits;
    float f;

    if (exponent == 0) { /* zero and subnormals: mantissa * 2^-24 */
        f = (float)mantissa * 0x1p-24f;
        return sign ? -f : f;
    }
    bits = sign | (exponent == 31 ? 0xFFu : exponent + 112) << 23 | mantissa << 13;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

float tensor_bf16_widen(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

bool tensor_put_number(enum tensor_type type, void *to, double value)
{
    size_t size = tensor_type_bytes(type);
    bool is_signed = tensor_type_kind(type) == TENSOR_KIND_SIGNED;
    float f = (float)value;
    double limit;
    uint64_t bits;

    if (type == TENSOR_FP32) {
        memcpy(to, &f, sizeof(f));
        return !isinf(f);
    }
    if (type == TENSOR_FP64) {
        memcpy(to, &value, sizeof(value));
        return !isinf(value);
    }
    ASSERT(type != TENSOR_BYTES && tensor_type_kind(type) != TENSOR_KIND_HALF);
    limit = type == TENSOR_BOOL ? 2 : ldexp(1, (int)(8 * size) - is_signed);
    if (!(value < limit) || value < (is_signed ? -limit : 0) || value != trunc(value))
        return false;
    bits = is_signed ? (uint64_t)(int64_t)value : (uint64_t)value;
    memcpy(to, &bits, size); /* little-endian: the low bytes come first */
    return true;
}

double tensor_number_at(const struct tensor *t, size_t i)
{
    const void *p = t->data;

    switch (t->spec->datatype) {
    case TENSOR_FP32:
        return (double)((const float *)p)[i];
    case TENSOR_FP64:
        return ((const double *)p)[i];
    case TENSOR_INT64:
        return (double)((const int64_t *)p)[i];
    case TENSOR_INT32:
        return (double)((const int32_t *)p)[i];
    case TENSOR_BOOL:
    case TENSOR_UINT8:
        return (double)((const uint8_t *)p)[i];
    case TENSOR_INT8:
        return (double)((const int8_t *)p)[i];
    case TENSOR_INT16:
        return (double)((const int16_t *)p)[i];
    case TENSOR_UINT16:
        return (double)((const uint16_t *)p)[i];
    case TENSOR_UINT32:
        return (double)((const uint32_t *)p)[i];
    case TENSOR_UINT64:
        return (double)((const uint64_t *)p)[i];
    case TENSOR_FP16:
        return (double)tensor_fp16_widen(((const uint16_t *)p)[i]);
    case TENSOR_BF16:
        return (double)tensor_bf16_widen(((const uint16_t *)p)[i]);
    default:
        return NAN;
    }
}
