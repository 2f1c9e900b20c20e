/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the tensors of an exchange to rows of its record. The common form, one FP32 input tensor and
 * FP32 outputs, is copied with one memcpy for each tensor and row; other forms go column by column.
 * A missing text reaches a model as the empty one and is recorded as missing, as the fit of a
 * reference (registry/profile.c) counts it; else every absent category would look like a new one.
 */
#include "serve/priv.h"

#define TEXT_MAX ((size_t)32 << 10) /* of a row; what is longer is cut */

static void put_slow(struct record_out *o, const struct tensor *t, size_t at, uint32_t column,
                     size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (t->spec->datatype == TENSOR_BYTES) {
            str text = ((const str *)t->data)[at + i];

            if (text.n)
                record_put_text(o, column + (uint32_t)i, text);
        } else {
            record_put_number(o, column + (uint32_t)i, tensor_number_at(t, at + i));
        }
    }
}

/* Row `row` of each tensor into the columns from `column` on; returns the column after them. */
static uint32_t put_row(struct record_out *o, const struct tensor *tensors, uint32_t count,
                        uint32_t row, uint32_t column)
{
    for (uint32_t t = 0; t < count; t++) {
        size_t n = (size_t)tensor_row_elements(tensors[t].spec);

        if (tensors[t].spec->datatype == TENSOR_FP32)
            memcpy(o->row + o->schema->columns[column].at, (const float *)tensors[t].data + row * n,
                   n * sizeof(float));
        else
            put_slow(o, &tensors[t], row * n, column, n);
        column += (uint32_t)n;
    }
    return column;
}

/* Bytes of the texts of one row. */
static size_t row_text(const struct tensor *tensors, uint32_t count, uint32_t row)
{
    size_t sum = 0;

    for (uint32_t t = 0; t < count; t++) {
        size_t n = (size_t)tensor_row_elements(tensors[t].spec);

        for (size_t i = 0; tensors[t].spec->datatype == TENSOR_BYTES && i < n; i++)
            sum += ((const str *)tensors[t].data)[row * n + i].n;
    }
    return sum;
}

/* How many of the rows [first, rows) fit one record, and the bytes of their texts. Texts of one
 * row past TEXT_MAX are cut by the record. */
static uint32_t rows_that_fit(const struct record_schema *s, const struct exchange *x,
                              const struct tensor *inputs, const struct tensor *outputs,
                              uint32_t first, uint32_t rows, size_t *ret_text)
{
    size_t most = 0, sum = 0;
    uint32_t n = 0;

    *ret_text = 0;
    if (!s->has_text)
        return MIN(rows - first, record_rows_max(s, 0));
    for (; first + n < rows; n++) {
        size_t text = row_text(inputs, x->ep->schema.input_count, first + n) +
                      row_text(outputs, x->ep->schema.output_count, first + n);

        text = MIN(text, TEXT_MAX);
        most = MAX(most, text);
        if (n && n + 1 > record_rows_max(s, most))
            break;
        sum += text;
    }
    *ret_text = sum;
    return n;
}

static uint64_t record_part(struct record_ring *ring, const struct exchange *x,
                            const struct record_meta *meta, const struct tensor *inputs,
                            const struct tensor *outputs, size_t text)
{
    const struct record_schema *s = meta->schema;
    struct record_out o;

    if (!record_begin(ring, meta, text, &o))
        return 0;
    for (uint32_t row = meta->row_first; row < meta->row_first + meta->row_count; row++) {
        uint32_t column = put_row(&o, inputs, x->ep->schema.input_count, row, 0);

        ASSERT(column == s->feature_count);
        if (outputs)
            (void)put_row(&o, outputs, x->ep->schema.output_count, row, column);
        record_next_row(&o);
    }
    return record_commit(ring, &o);
}

uint64_t record_exchange(struct record_ring *ring, const struct exchange *x, enum record_kind kind,
                         const struct served_version *v, const struct tensor *inputs,
                         const struct tensor *outputs, int status, uint64_t latency_us)
{
    struct record_meta meta = {
        .schema = v->schema,
        .kind = kind,
        .arm = v->arm,
        .flags = (uint16_t)((outputs ? 0 : RECORD_ERROR) | (x->fb.on ? RECORD_FALLBACK : 0) |
                            (x->ep->plan.durable_log ? RECORD_DURABLE_WANTED : 0)),
        .http_status = (uint16_t)status,
        .wall_ns = x->wall_ns,
        .latency_us = (uint32_t)MIN(latency_us, (uint64_t)UINT32_MAX),
        .request_id = {x->id, x->id_bytes},
        .user = x->has_user ? x->user : NULL,
    };
    uint32_t rows = outputs ? x->rows : 0;
    uint64_t position = 0;
    bool whole = true;
    size_t text = 0;

    if (!v->schema)
        return 0;
    do {
        if (rows)
            meta.row_count =
                rows_that_fit(v->schema, x, inputs, outputs, meta.row_first, rows, &text);
        position = record_part(ring, x, &meta, inputs, outputs, text);
        whole &= position != 0;
        meta.row_first += meta.row_count;
    } while (meta.row_first < rows);
    return whole ? position : 0;
}
