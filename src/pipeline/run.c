/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a program: operation by operation, each over all rows of a block, so that a loop does one
 * thing and what it reads fits into the first cache. Every operation writes a place of its own;
 * nothing is computed in place, so raw columns stay as they came.
 */
#include "pipeline/priv.h"

#include <math.h>

#define SHOWN_MAX 64 /* bytes of a text in a message */

void pipeline_work_init(struct pipeline_work *w, const struct pipeline *p, struct arena *a)
{
    w->places = ARENA_ARRAY(a, union pipeline_place, MAX(p->place_count, 1u));
    for (uint32_t i = 0; i < p->op_count; i++)
        for (uint32_t k = 0; k < p->ops[i].width; k++) {
            union pipeline_place *place = &w->places[p->ops[i].to + k];

            if (p->ops[i].kind == OP_FILL_TEXT)
                place->texts = ARENA_ARRAY(a, str, PIPELINE_BLOCK_ROWS);
            else
                place->numbers = ARENA_ARRAY(a, double, PIPELINE_BLOCK_ROWS);
        }
}

static int fail_text(const struct pipeline_op *op, size_t row, str text, const char *what,
                     struct err *e)
{
    return FAIL(e, OUT_OF_RANGE, "row %zu: column '" STR_F "' is '" STR_F "', %s", row,
                STR_A(op->column), STR_A(str_take(text, SHOWN_MAX)), what);
}

static int fail_number(const struct pipeline_op *op, size_t row, double v, const char *what,
                       struct err *e)
{
    return FAIL(e, OUT_OF_RANGE, "row %zu: column '" STR_F "' is %.17g, %s", row, STR_A(op->column),
                v, what);
}

#define NOT_SEEN "which is none of the categories of its encoder"
#define NO_MOMENT "which is no time: expected RFC 3339, or seconds since 1970"

static void fill(const struct pipeline_op *op, struct pipeline_work *w, uint32_t rows)
{
    const double *from = w->places[op->from].numbers;
    double *to = w->places[op->to].numbers;

    for (uint32_t i = 0; i < rows; i++)
        to[i] = isnan(from[i]) ? op->a : from[i];
}

static void fill_text(const struct pipeline_op *op, struct pipeline_work *w, uint32_t rows)
{
    const str *from = w->places[op->from].texts;
    str *to = w->places[op->to].texts;

    for (uint32_t i = 0; i < rows; i++)
        to[i] = from[i].n ? from[i] : op->text;
}

static void scale(const struct pipeline_op *op, struct pipeline_work *w, uint32_t rows)
{
    const double *from = w->places[op->from].numbers;
    double *to = w->places[op->to].numbers;

    for (uint32_t i = 0; i < rows; i++)
        to[i] = (from[i] - op->a) / op->b;
}

static void clip(const struct pipeline_op *op, struct pipeline_work *w, uint32_t rows)
{
    const double *from = w->places[op->from].numbers;
    double *to = w->places[op->to].numbers;

    for (uint32_t i = 0; i < rows; i++) /* NaN compares with nothing and stays */
        to[i] = from[i] < op->a ? op->a : from[i] > op->b ? op->b : from[i];
}

static void logarithm(const struct pipeline_op *op, struct pipeline_work *w, uint32_t rows)
{
    const double *from = w->places[op->from].numbers;
    double *to = w->places[op->to].numbers;

    for (uint32_t i = 0; i < rows; i++)
        to[i] = from[i] > -1 ? log1p(from[i]) : (double)NAN;
}

/* The category of row i: its index, DICTIONARY_NONE when it is unseen, or missing. */
static uint32_t category(const struct pipeline_op *op, const struct pipeline_work *w, uint32_t i,
                         bool *ret_missing)
{
    if (op->from_text) {
        str text = w->places[op->from].texts[i];

        *ret_missing = !text.n;
        return dictionary_text(op->dictionary, text);
    }
    *ret_missing = isnan(w->places[op->from].numbers[i]);
    return dictionary_number(op->dictionary, w->places[op->from].numbers[i]);
}

static int fail_row(const struct pipeline_op *op, const struct pipeline_work *w, size_t row,
                    uint32_t i, const char *what, struct err *e)
{
    return op->from_text ? fail_text(op, row, w->places[op->from].texts[i], what, e)
                         : fail_number(op, row, w->places[op->from].numbers[i], what, e);
}

static NODISCARD int encode(const struct pipeline_op *op, struct pipeline_work *w, size_t at,
                            uint32_t rows, struct err *e)
{
    double *to = w->places[op->to].numbers;
    bool missing = false;

    for (uint32_t i = 0; i < rows; i++) {
        uint32_t k = category(op, w, i, &missing);

        if (k != DICTIONARY_NONE)
            to[i] = op->values ? op->values[k] : (double)k;
        else if (missing || op->unseen == UNSEEN_MISSING)
            to[i] = (double)NAN;
        else if (op->unseen == UNSEEN_CODE)
            to[i] = op->a;
        else
            return fail_row(op, w, at + i, i, NOT_SEEN, e);
    }
    return 0;
}

static NODISCARD int one_hot(const struct pipeline_op *op, struct pipeline_work *w, size_t at,
                             uint32_t rows, struct err *e)
{
    bool missing = false;

    for (uint32_t k = 0; k < op->width; k++)
        memset(w->places[op->to + k].numbers, 0, rows * sizeof(double));
    for (uint32_t i = 0; i < rows; i++) {
        uint32_t k = category(op, w, i, &missing);

        if (k != DICTIONARY_NONE)
            w->places[op->to + k].numbers[i] = 1;
        else if (!missing && op->unseen == UNSEEN_ERROR)
            return fail_row(op, w, at + i, i, NOT_SEEN, e);
        else if (!missing && op->unseen == UNSEEN_MISSING)
            for (k = 0; k < op->width; k++)
                w->places[op->to + k].numbers[i] = (double)NAN;
    }
    return 0;
}

static NODISCARD int moments(const struct pipeline_op *op, struct pipeline_work *w, size_t at,
                             uint32_t rows, struct err *e)
{
    for (uint32_t i = 0; i < rows; i++) {
        struct moment m = {0};
        bool missing =
            op->from_text ? !w->places[op->from].texts[i].n : isnan(w->places[op->from].numbers[i]);
        bool ok =
            !missing && (op->from_text ? moment_of_text(w->places[op->from].texts[i], &m)
                                       : moment_of_seconds(w->places[op->from].numbers[i], &m));

        if (!ok && !missing && op->unseen == UNSEEN_ERROR)
            return fail_row(op, w, at + i, i, NO_MOMENT, e);
        for (uint32_t k = 0; k < op->width; k++)
            w->places[op->to + k].numbers[i] = ok ? moment_part(&m, op->parts[k]) : (double)NAN;
    }
    return 0;
}

static NODISCARD int run_op(const struct pipeline_op *op, struct pipeline_work *w, size_t at,
                            uint32_t rows, struct err *e)
{
    switch (op->kind) {
    case OP_FILL:
        fill(op, w, rows);
        return 0;
    case OP_FILL_TEXT:
        fill_text(op, w, rows);
        return 0;
    case OP_SCALE:
        scale(op, w, rows);
        return 0;
    case OP_CLIP:
        clip(op, w, rows);
        return 0;
    case OP_LOG1P:
        logarithm(op, w, rows);
        return 0;
    case OP_ENCODE:
        return encode(op, w, at, rows, e);
    case OP_ONE_HOT:
        return one_hot(op, w, at, rows, e);
    case OP_TIME:
        return moments(op, w, at, rows, e);
    }
    return 0;
}

int pipeline_run(const struct pipeline *p, struct pipeline_work *w,
                 const struct pipeline_values *inputs, size_t at, uint32_t rows, struct err *e)
{
    ASSERT(p->is_fitted && rows && rows <= PIPELINE_BLOCK_ROWS);
    for (uint32_t i = 0; i < p->input_count;
         i++) { /* read only: every operation has its own place */
        if (p->inputs[i].type == PIPELINE_TEXT)
            w->places[p->inputs[i].at].texts = (str *)inputs[i].texts + at;
        else
            w->places[p->inputs[i].at].numbers = (double *)inputs[i].numbers + at;
    }
    for (uint32_t i = 0; i < p->op_count; i++)
        TRY(run_op(&p->ops[i], w, at, rows, e));
    return 0;
}
