/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the forms of a request and of its answer share: reading the "data" of one tensor, collecting
 * what is wrong, raw bytes and classes of an output.
 * Private to wire/.
 */
#pragma once

#include "base/num.h"
#include "wire/json_scan.h"
#include "wire/tensor.h"

/* Up to TENSOR_JSON_PROBLEMS_MAX wrong things in one line, the rest counted. */
struct problems {
    uint32_t count;
    size_t n; /* bytes of text */
    char text[440];
};

static inline void problems_begin(struct problems *ps)
{
    ps->count = 0, ps->n = 0;
}
void problems_add(struct problems *ps, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* 0 when there are none, else INVALID_ARGUMENT with all of them. */
NODISCARD int problems_end(const struct problems *ps, struct err *e);

/*
 * Reads an array, nested or flat, into t->data; t's shape, count and memory are set and agreed on.
 * Values of the wrong kind, out of range or of the wrong number become a problem, and the cursor
 * then stands behind the array all the same. False only when the JSON is broken (s->wrong) or the
 * arena is full (which its flag tells).
 */
bool tensor_data_read(struct scan *s, struct tensor *t, bool null_is_nan, struct arena *a,
                      struct problems *ps);

/* The classification extension: texts "value:index" of a row, the largest value first. */
#define TENSOR_CLASS_TEXT_MAX (2 * NUM_TEXT_MAX + 1)
struct tensor_classes {
    const struct tensor *t; /* not BYTES */
    size_t begin, row;      /* elements [begin, begin + row) */
    double bound;           /* the last one given */
    size_t at;
};
static inline struct tensor_classes tensor_classes_of(const struct tensor *t, size_t begin,
                                                      size_t row)
{
    return (struct tensor_classes){t, begin, row, 0, SIZE_MAX};
}
/* The next one, at most `row` times; returns the bytes of the text. */
size_t tensor_class_next(struct tensor_classes *c, char text[TENSOR_CLASS_TEXT_MAX]);
/* The top `wanted` of each row as raw BYTES; returns how many bytes. NULL `to`: only that. */
size_t tensor_classes_raw(struct buf *to, const struct tensor *t, uint32_t wanted);
