/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/tensor_raw.h"

#define SHOWN(s) STR_A(str_take((s), 64))

uint64_t tensor_raw_bytes(const struct tensor *t)
{
    uint64_t n = t->bytes;

    if (t->spec->datatype != TENSOR_BYTES)
        return n;
    n = (uint64_t)t->count * sizeof(uint32_t);
    for (size_t i = 0; i < t->count; i++) {
        if (((const str *)t->data)[i].n > UINT32_MAX)
            return UINT64_MAX;
        n += ((const str *)t->data)[i].n;
    }
    return n;
}

void tensor_raw_write(struct buf *to, const struct tensor *t)
{
    if (t->spec->datatype != TENSOR_BYTES) {
        buf_add(to, t->data, t->bytes);
        return;
    }
    for (size_t i = 0; i < t->count; i++) {
        str s = ((const str *)t->data)[i];
        uint32_t n = (uint32_t)s.n;

        buf_add(to, &n, sizeof(n));
        buf_add_str(to, s);
    }
}

int tensor_raw_shape(struct tensor *t, const int64_t *shape, uint32_t rank, struct err *e)
{
    size_t size = tensor_type_bytes(t->spec->datatype);
    char got[TENSOR_SHAPE_TEXT_MAX], want[TENSOR_SHAPE_TEXT_MAX];
    int64_t count;

    if (!tensor_shape_fits(t->spec, shape, rank))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' has shape %s, declared is %s",
                    SHOWN(t->spec->name), tensor_shape_text(shape, rank, got),
                    tensor_shape_text(t->spec->shape, t->spec->rank, want));
    if (!tensor_shape_count(shape, rank, &count) || (uint64_t)count > SIZE_MAX / 2 / size)
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' has shape %s, which is too large",
                    SHOWN(t->spec->name), tensor_shape_text(shape, rank, got));
    t->rank = rank;
    if (rank)
        memcpy(t->shape, shape, rank * sizeof(shape[0]));
    t->count = (size_t)count;
    t->bytes = t->count * size;
    return 0;
}

static int texts_over(struct tensor *t, str raw, struct arena *a, struct err *e)
{
    str *to;

    /* Each element has a length, so no more elements are made room for than bytes came. */
    if (t->count > raw.n / sizeof(uint32_t))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "': %zu texts do not fit into %zu bytes",
                    SHOWN(t->spec->name), t->count, raw.n);
    to = ARENA_ARRAY(a, str, MAX(t->count, (size_t)1));
    if (!to)
        return FAIL(e, RESOURCE_EXHAUSTED, "'" STR_F "': no memory for %zu texts",
                    SHOWN(t->spec->name), t->count);
    for (size_t i = 0; i < t->count; i++) {
        uint32_t n = 0;

        if (raw.n >= sizeof(n))
            memcpy(&n, raw.p, sizeof(n));
        if (raw.n < sizeof(n) || raw.n - sizeof(n) < n)
            return FAIL(e, INVALID_ARGUMENT, "'" STR_F "': text %zu ends behind the tensor",
                        SHOWN(t->spec->name), i);
        to[i] = str_take(str_skip(raw, sizeof(n)), n);
        raw = str_skip(raw, sizeof(n) + n);
    }
    if (raw.n)
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "': %zu bytes follow the last text",
                    SHOWN(t->spec->name), raw.n);
    t->data = to;
    return 0;
}

int tensor_raw_over(struct tensor *t, str raw, struct arena *a, struct err *e)
{
    size_t size = tensor_type_bytes(t->spec->datatype);
    static char none[16]; /* of an empty tensor: something to point at */

    if (t->spec->datatype == TENSOR_BYTES)
        return texts_over(t, raw, a, e);
    if (raw.n != t->bytes)
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "': %zu bytes came, %zu elements of %s need %zu",
                    SHOWN(t->spec->name), raw.n, t->count, tensor_type_name(t->spec->datatype),
                    t->bytes);
    t->data = raw.n ? (char *)(uintptr_t)raw.p : none;
    if ((uintptr_t)t->data % size) {
        t->data = arena_alloc(a, t->bytes);
        if (!t->data)
            return FAIL(e, RESOURCE_EXHAUSTED, "'" STR_F "': no memory for %zu bytes",
                        SHOWN(t->spec->name), t->bytes);
        memcpy(t->data, raw.p, raw.n);
    }
    for (size_t i = 0; t->spec->datatype == TENSOR_BOOL && i < t->count; i++)
        if (((const uint8_t *)t->data)[i] > 1)
            return FAIL(e, INVALID_ARGUMENT, "'" STR_F "': element %zu is %u, a BOOL is 0 or 1",
                        SHOWN(t->spec->name), i, ((const uint8_t *)t->data)[i]);
    return 0;
}
