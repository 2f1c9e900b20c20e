/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the outputs of a row mean, by the "reading" of the signature. A positive class with a
 * threshold decides by its probability; else the label that the model gives stands, and where it
 * gives none, the most probable class.
 */
#include "serve/priv.h"

#include <math.h>
#include <stdio.h>

static size_t row_elements(const struct tensor *t)
{
    return t->rank && t->shape[0] > 0 ? t->count / (size_t)t->shape[0] : t->count;
}

static int32_t argmax(const struct tensor *t, size_t at, size_t n)
{
    int32_t best = -1;
    double most = -INFINITY;

    for (size_t i = 0; i < n; i++)
        if (tensor_number_at(t, at + i) > most)
            most = tensor_number_at(t, at + i), best = (int32_t)i;
    return best;
}

/* A label that is a whole number, exactly; false for texts and fractions. */
static bool integer_at(const struct tensor *t, size_t i, int64_t *ret)
{
    double v;

    if (t->spec->datatype == TENSOR_INT64) {
        *ret = ((const int64_t *)t->data)[i];
        return true;
    }
    v = tensor_number_at(t, i);
    if (!(fabs(v) < 0x1p53) || v != trunc(v))
        return false;
    *ret = (int64_t)v;
    return true;
}

static void read_label(const struct plan_reading *r, const struct tensor *t, uint32_t row,
                       struct row_reading *ret)
{
    char text[24];
    str name = STR_NULL;

    if (t->spec->datatype == TENSOR_BYTES) {
        name = ret->cls_text = ((const str *)t->data)[row];
    } else if (integer_at(t, row, &ret->cls_int)) {
        ret->has_int = true;
        name = (str){text, (size_t)snprintf(text, sizeof(text), "%lld", (long long)ret->cls_int)};
    }
    for (size_t i = 0; name.p && i < r->class_count; i++)
        if (str_eq(r->classes[i], name))
            ret->cls = (int32_t)i;
}

static void read_probabilities(const struct plan_reading *r, const struct tensor *t, uint32_t row,
                               struct row_reading *ret)
{
    size_t n = row_elements(t), at = row * n;

    if (r->positive >= 0 && r->threshold == r->threshold && n == 2)
        ret->cls = tensor_number_at(t, at + (size_t)r->positive) >= r->threshold ? r->positive
                                                                                 : 1 - r->positive;
    else if (ret->cls < 0)
        ret->cls = argmax(t, at, n);
    if (ret->cls < 0 || (size_t)ret->cls >= n)
        return;
    ret->confidence = tensor_number_at(t, at + (size_t)ret->cls);
    ret->score = r->positive >= 0 ? tensor_number_at(t, at + (size_t)r->positive) : ret->confidence;
}

void reading_of_row(const struct plan_signature *sig, const struct tensor *outputs, uint32_t row,
                    struct row_reading *ret)
{
    const struct plan_reading *r = &sig->reading;

    *ret = (struct row_reading){.cls = -1, .score = NAN, .confidence = NAN, .value = NAN};
    if (r->label >= 0)
        read_label(r, &outputs[r->label], row, ret);
    if (r->probabilities >= 0)
        read_probabilities(r, &outputs[r->probabilities], row, ret);
    if (r->value >= 0)
        ret->value = tensor_number_at(&outputs[r->value], row * row_elements(&outputs[r->value]));
}
