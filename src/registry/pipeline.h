/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pipelines of models (pipeline/pipeline.h) and tables: what the project declares becomes a
 * document with every parameter, computed from the data where the project leaves it open; and a
 * document is run over a file. The numbers are those of the gateway, bit for bit, since it is the
 * same program that runs.
 */
#pragma once

#include "pipeline/pipeline.h"
#include "registry/table.h"

/* A table of raw columns. */
struct pipeline_source {
    const char *path; /* NULL: there is none */
    str format;       /* csv, parquet, jsonl; empty or auto: by the ending */
    str label, time;  /* columns that are no features, where the project does not list those */
    size_t rows_max;  /* a larger table is sampled; 0: TABLE_ROWS_MAX */
    const char *tmp_dir;
};

/* The steps that a model's section of the project (normalised, or NULL) puts before the model; NULL
 * when there are none. */
const struct json *pipeline_declared(const struct json *model);

/* The document of those steps, nothing open. FAILED_PRECONDITION: parameters or columns are to come
 * from data, and there are none. */
NODISCARD int pipeline_make(const struct json *model, const struct pipeline_source *source,
                            struct arena *a, struct json **ret_document, struct err *e);

/* The document with what is open in it computed from the table; itself when nothing is. */
NODISCARD int pipeline_complete(const struct json *document, const struct pipeline_source *source,
                                struct arena *a, struct json **ret, struct err *e);

/* Runs the document over the whole table and writes what comes out, row by row, as `to` (CSV,
 * Parquet or JSON lines by its ending); the columns `keep` of the table stand behind, unchanged.
 * Numbers are written so that they read back exactly. OUT_OF_RANGE: a row that its steps refuse;
 * RESOURCE_EXHAUSTED: more rows than a table in memory holds. */
NODISCARD int pipeline_transform(const struct json *document, const struct pipeline_source *source,
                                 const str *keep, size_t keep_count, const char *to,
                                 int64_t *ret_rows, struct err *e);
