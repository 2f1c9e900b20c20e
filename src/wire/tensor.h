/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensors as the data plane sees them: a described block of memory that somebody else owns.
 *
 * A spec is what a model declares (dimensions may be open, -1); a tensor is one value of it: a
 * concrete shape over memory given by a runtime slot or by a test. Elements are row-major and
 * little-endian; an element of BYTES is a `str` that points into the request or into an arena.
 */
#pragma once

#include "base/buf.h"
#include "base/str.h"

#define TENSOR_RANK_MAX 8
#define TENSOR_DIM_ANY (-1)    /* an open dimension of a spec */
#define TENSOR_INPUTS_MAX 1024 /* of one model */
#define TENSOR_OUTPUTS_MAX 64

enum tensor_type {
#define TENSOR_TYPE(name, bytes, kind) TENSOR_##name,
#include "wire/tensor_types.def"
#undef TENSOR_TYPE
    TENSOR_TYPE_COUNT
};

enum tensor_kind {
    TENSOR_KIND_BOOLEAN,
    TENSOR_KIND_UNSIGNED,
    TENSOR_KIND_SIGNED,
    TENSOR_KIND_HALF,
    TENSOR_KIND_FLOAT,
    TENSOR_KIND_TEXT,
};

struct tensor_spec {
    str name; /* borrowed from the arena of the plan or model */
    enum tensor_type datatype;
    uint32_t rank;                  /* 0..TENSOR_RANK_MAX; 0 is a scalar */
    int64_t shape[TENSOR_RANK_MAX]; /* each >= 0, or TENSOR_DIM_ANY */
};

struct tensor {
    const struct tensor_spec *spec; /* borrowed; the datatype is the spec's */
    bool present;                   /* read from the request */
    uint32_t rank;
    int64_t shape[TENSOR_RANK_MAX]; /* concrete */
    size_t count;                   /* elements: the product of shape */
    size_t bytes;                   /* count * size of an element */
    void *data;                     /* borrowed: of the slot, of the runtime, or of a test */
    size_t cap_bytes;               /* how much may be written at data */
};

extern const uint8_t tensor_type_sizes[TENSOR_TYPE_COUNT];
static inline size_t tensor_type_bytes(enum tensor_type type)
{
    return tensor_type_sizes[type];
}
enum tensor_kind tensor_type_kind(enum tensor_type type);
const char *tensor_type_name(enum tensor_type type); /* "FP32" */
NODISCARD bool tensor_type_parse(str name, enum tensor_type *ret_type);

/* The number of elements of a concrete shape; false when a dimension is negative or the product
 * does not fit int64. */
NODISCARD bool tensor_shape_count(const int64_t *shape, uint32_t rank, int64_t *ret_count);

/* True when the shape is one that the spec allows. */
bool tensor_shape_fits(const struct tensor_spec *spec, const int64_t *shape, uint32_t rank);

/* Elements of one row, i.e. the product of shape[1..]; -1 when one of them is open, when the first
 * dimension is not open, or when the rank is 0: then rows of requests cannot be joined. */
int64_t tensor_row_elements(const struct tensor_spec *spec);

/* "[-1,30]" into the buffer; cut when it does not fit. Returns ret_text. */
#define TENSOR_SHAPE_TEXT_MAX 180
const char *tensor_shape_text(const int64_t *shape, uint32_t rank,
                              char ret_text[TENSOR_SHAPE_TEXT_MAX]);

/* Gives the tensor `rows` as its first dimension and the fixed dimensions of its spec as the
 * others. Asserts that tensor_row_elements() is not -1 and that the rows fit in cap_bytes. */
void tensor_set_rows(struct tensor *t, int64_t rows);

float tensor_fp16_widen(uint16_t bits); /* exact */
float tensor_bf16_widen(uint16_t bits);

/* Stores a number as one element of a numeric or boolean type. False, with nothing promised about
 * *to, when it does not fit: out of range, not integral, infinite, not 0 or 1; NaN fits floats. */
NODISCARD bool tensor_put_number(enum tensor_type type, void *to, double value);
/* Element i as a number; half floats are widened; NaN for a text. */
double tensor_number_at(const struct tensor *t, size_t i);
