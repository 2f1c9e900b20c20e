/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a row of a record looks like: one schema for each (endpoint, model version).
 *
 * A row is a packed struct: the features, then the outputs, each at a fixed offset with its natural
 * alignment, so that a loop copies a tensor row with one memcpy. A string column holds a struct
 * record_text that points into the tail of its row; a schema with string columns starts each row
 * with the u32 length of the whole row (fixed part and tail).
 *
 * Schemas live in one process-wide append-only table and are never freed: a schema pointer and its
 * id stay good for ever, in any thread, without a lock. Equal definitions get the same id.
 */
#pragma once

#include "base/json.h"
#include "stats/cells.h"

#define RECORD_SCHEMAS_MAX 65536u
#define RECORD_COLUMNS_MAX 4096u /* features plus outputs */
#define RECORD_ROW_FIXED_MAX 32768u
#define RECORD_CLASSES_MAX 16u
#define RECORD_CLASS_NONE 255u

enum record_type {
#define RECORD_TYPE(name, text, bytes, align, duck) RECORD_##name,
#include "record/types.def"
#undef RECORD_TYPE
    RECORD_TYPE_COUNT
};

struct record_text {
    uint16_t at; /* from the start of the row */
    uint16_t n;  /* bytes */
};

struct record_column {
    str name;
    enum record_type type;
    uint32_t at; /* offset in the row; filled by record_schema_add */
};

/* What a label is compared with. */
enum record_target {
    RECORD_TARGET_NONE,   /* labels are stored, nothing is compared */
    RECORD_TARGET_VALUE,  /* regression: output `target_at` is the predicted value */
    RECORD_TARGET_CLASS,  /* output `target_at` is the class: its index, or its name if STR */
    RECORD_TARGET_SCORE,  /* output `target_at` is P(class 1); class 1 when >= threshold */
    RECORD_TARGET_ARGMAX, /* class_count outputs from target_at on are the scores of the classes */
};

struct record_schema_def {
    str endpoint, version;               /* str_is_name() both */
    const struct record_column *columns; /* features first; `at` is ignored */
    uint32_t feature_count, output_count;
    enum record_target target;
    uint32_t target_at;     /* index among the outputs */
    uint32_t class_count;   /* 2..16 for CLASS and ARGMAX, 2 for SCORE, else 0 */
    const str *class_names; /* class_count of them, or NULL: labels are then the indices */
    double threshold;       /* SCORE; 0 means 0.5 */
    double tolerance;       /* VALUE: |error| up to it counts as right (and as agreement) */
    /* One spec per column (features, then outputs), copied; NULL entries and a NULL array are
     * allowed: such columns get no cells. The specs are part of the identity of the schema. */
    const struct cells_spec *const *cells;
};

struct record_schema {
    uint32_t id;
    uint32_t column_count, feature_count, output_count;
    uint32_t row_bytes; /* the fixed part, a multiple of 8 */
    bool has_text;      /* each row starts with the u32 length of the whole row */
    struct record_column *columns;
    str endpoint, version;
    enum record_target target;
    uint32_t target_at, class_count;
    str *class_names; /* or NULL */
    double threshold, tolerance;
    const struct cells_spec **cells; /* column_count entries (some NULL), or NULL */
    uint32_t f32_folded; /* so many leading columns are F32 with a spec: the fast path */
    uint64_t cells_hash; /* of the specs; 0 without any */
    uint64_t hash;       /* content hash of all of the above except id */
    str json; /* the self-describing form, as segments hold it (without the cells specs) */
};

/* Adds a schema or finds the equal one. Any thread (takes a lock: plan load, not requests).
 * INVALID_ARGUMENT names what is wrong; RESOURCE_EXHAUSTED past RECORD_SCHEMAS_MAX. */
NODISCARD int record_schema_add(const struct record_schema_def *def,
                                const struct record_schema **ret_schema, struct err *e);

/* The schema of an id, or NULL. Any thread, no lock. */
const struct record_schema *record_schema_at(uint32_t id);
uint32_t record_schema_count(void);

/* The class of a label given as text or as a number, or RECORD_CLASS_NONE. */
uint8_t record_schema_class_of_text(const struct record_schema *s, str name);
uint8_t record_schema_class_of_number(const struct record_schema *s, double value);

/* Reads the JSON form into an arena, outside the process-wide table: what the segment reader uses.
 * The schema has no cells and the id 0. */
NODISCARD int record_schema_parse(str json, struct arena *a, struct record_schema **ret_schema,
                                  struct err *e);

const char *record_type_name(enum record_type type); /* "F32" */

/* Reading a row that a producer wrote, or that record_check() passed. A missing value is NaN, the
 * integer RECORD_I64_MISSING, or a text with p == NULL. Numbers: NaN for a text column. */
#define RECORD_I64_MISSING INT64_MIN
double record_row_number(const struct record_schema *s, uint32_t column, const void *row);
str record_row_text(const struct record_schema *s, uint32_t column, const void *row);
