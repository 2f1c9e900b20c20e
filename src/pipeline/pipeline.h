/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preprocessing: rows as a person or a table has them become the numbers that a model takes.
 *
 * A pipeline is declared as a document (below), read once into an immutable program, and run over
 * columns in blocks of at most PIPELINE_BLOCK_ROWS rows. The same program runs in the gateway, in
 * the probe that scores a reference, before a trainer, and in `weir transform`; since a row's
 * result depends on that row alone, and the order of the arithmetic is fixed, all of them give the
 * same bits. No I/O, no clock; a run of warm work allocates nothing. Thread-safe: a program may be
 * run by many threads, each with work of its own.
 *
 *   {"format":1,
 *    "columns":[{"name":"age","type":"double"},{"name":"plan","type":"string"}],
 *    "steps":[{"step":"impute","columns":["age"],"value":40},
 *             {"step":"one_hot","columns":["plan"],"categories":["free","pro"],"unseen":"zeros"}]}
 *
 * Columns are numbers (every type but "string") or texts. A step takes columns by name, those of
 * the document or those that an earlier step made, and leaves columns in their place: itself, none
 * (drop) or several (one_hot, time). What is left after the last step is the output, in order.
 *
 * A missing number is NaN, a missing text the empty one. Missing is no category and never unseen:
 * it stays missing through every step but impute (zeros after one_hot). A parameter of a step is a
 * value for all its columns or a list with one for each; null is one that pipeline_fit() computes.
 */
#pragma once

#include "base/json.h"

#define PIPELINE_FORMAT 1
#define PIPELINE_BLOCK_ROWS 64u
#define PIPELINE_STEPS_MAX 4096u
#define PIPELINE_COLUMNS_MAX 4096u /* in, out, and between */
#define PIPELINE_VALUES_MAX 16384u /* results of all steps, one of a column each */
#define PIPELINE_CATEGORIES_MAX 100000u

enum pipeline_type { PIPELINE_NUMBER, PIPELINE_TEXT, PIPELINE_ANY };

struct pipeline_column {
    str name;
    enum pipeline_type type; /* PIPELINE_ANY only while a project is checked: not known */
    uint32_t at;             /* its place in the work: pipeline_numbers(), pipeline_texts() */
};

struct pipeline_op; /* run.c */
struct pipeline {
    struct pipeline_column *inputs, *outputs;
    uint32_t input_count, output_count;
    const struct pipeline_op *ops;
    uint32_t op_count;
    uint32_t place_count; /* of the work */
    bool is_fitted;       /* no parameter is open */
};

/* Told of each problem of a document, so that all of them can be shown: `step` counts from 0,
 * `member` is one of the step, `column` an index into its columns, or -1. Texts live in the arena
 * of the reader, or for ever. */
struct pipeline_problem {
    size_t step;
    const char *member;
    ptrdiff_t column;
    str what;     /* "is 'ags', which is no column" */
    str expected; /* or empty */
    str near;     /* what may have been meant, or empty */
};

struct pipeline_options {
    bool may_be_open; /* parameters may be null: such a program is not run */
    bool any_columns; /* names that nothing declares are columns too (features: auto) */
    void (*problem)(void *ctx, const struct pipeline_problem *p); /* or NULL */
    void *ctx;
};

/* Reads a document. Everything of the program lives in the arena; nothing points into the document.
 * INVALID_ARGUMENT: the message is the first problem; options->problem hears all. options may be
 * NULL. */
NODISCARD int pipeline_read(const struct json *document, const struct pipeline_options *options,
                            struct arena *a, struct pipeline **ret, struct err *e);

/* One raw column: numbers, or texts. Borrowed. */
struct pipeline_values {
    const double *numbers;
    const str *texts;
};

/* What a run writes into. */
union pipeline_place {
    double *numbers;
    str *texts;
};
struct pipeline_work {
    union pipeline_place *places;
};
void pipeline_work_init(struct pipeline_work *w, const struct pipeline *p, struct arena *a);

/* Computes the outputs of `rows` rows (1..PIPELINE_BLOCK_ROWS) that begin at row `at` of the
 * inputs, one for each column of the document. They are valid until the next run with this work.
 * OUT_OF_RANGE: a row has a category, or a moment, that its step refuses; the message names both.
 */
NODISCARD int pipeline_run(const struct pipeline *p, struct pipeline_work *w,
                           const struct pipeline_values *inputs, size_t at, uint32_t rows,
                           struct err *e) HOT;
static inline const double *pipeline_numbers(const struct pipeline_work *w, uint32_t at)
{
    return w->places[at].numbers;
}
static inline const str *pipeline_texts(const struct pipeline_work *w, uint32_t at)
{
    return w->places[at].texts;
}

/* A copy of the document whose open parameters are computed from `row_count` rows, step after step
 * (each sees what those before it made). Missing values do not count. INVALID_ARGUMENT: the
 * document, or too many categories; FAILED_PRECONDITION: a column without a single value. */
NODISCARD int pipeline_fit(const struct json *document, const struct pipeline_values *inputs,
                           size_t row_count, struct arena *a, struct json **ret, struct err *e);
/* True when pipeline_fit() has something to do. */
bool pipeline_is_open(const struct json *document);
