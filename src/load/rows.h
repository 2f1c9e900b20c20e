/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows that are replayed: a table in memory, column by column, with the label of each row.
 */
#pragma once

#include "base/arena.h"

#define LOAD_CLASSES_MAX 64
#define LOAD_ROWS_MAX_DEFAULT 2000000u
#define LOAD_COLUMNS_MAX 4096u
#define LOAD_CLASS_NONE UINT32_MAX

enum load_kind { LOAD_NUMBER, LOAD_BOOL, LOAD_TEXT };

struct load_column {
    str name;
    enum load_kind kind;
    bool integral;   /* the endpoint takes whole numbers only: what an injection makes is rounded */
    double *numbers; /* LOAD_NUMBER, LOAD_BOOL (0, 1); NaN is missing */
    str *texts;      /* LOAD_TEXT; p == NULL is missing */
};

struct load_rows {
    struct arena arena; /* holds all of it */
    size_t n;
    size_t column_count;
    struct load_column *columns; /* of the features, in the order they are sent */
    str *labels;                 /* as text, or NULL without a label column; p == NULL: none */
    bool labels_are_text;        /* sent as JSON strings; else as numbers or booleans */
    uint32_t *label_classes;     /* index into classes; NULL when there are too many of them */
    uint32_t class_count;
    str classes[LOAD_CLASSES_MAX];
};

struct load_rows_wanted {
    const char *path;   /* .csv, .parquet; others are read as CSV */
    str label;          /* the column of the true label, or empty */
    const str *columns; /* the fields of the endpoint, in order; NULL: every column but the label */
    size_t column_count;
    size_t rows_max; /* more are not read */
};

/* Reads a file. NOT_FOUND names a column that the file lacks, with the nearest it has;
 * INVALID_ARGUMENT an empty file. Blocks; needs the DuckDB library (store/lake). */
NODISCARD int load_rows_read(const struct load_rows_wanted *want, struct load_rows **ret_rows,
                             struct err *e);
/* For tests and tools: rows without values, to be filled by the caller. */
struct load_rows *load_rows_new(size_t n, size_t column_count);
/* Makes label_classes and classes from labels. */
void load_rows_classify(struct load_rows *r);
void load_rows_free(struct load_rows *r); /* accepts NULL */
DEFINE_AUTO_PTR(struct load_rows, load_rows_free)

/* The column of that name, or NULL. */
struct load_column *load_rows_column(const struct load_rows *r, str name);
/* The class that a text names, also as another writing of the same number; or LOAD_CLASS_NONE. */
uint32_t load_class_of(const struct load_rows *r, str text);
