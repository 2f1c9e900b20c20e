/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plain prediction request, by field name, straight into the input tensors of a model:
 *
 *   {"features": {"age": 41, "plan": "pro"}, "metadata": {"request_id": "...", "user_id": "..."}}
 *   {"features": [{...}, {...}], "metadata": {...}}      or      {"rows": [{...}, {...}]}
 *
 * A field table, built once when a plan is loaded, says which fields there are, what they may hold
 * and where in which tensor they go. Fields that come in the order of the table are found without
 * hashing. Every wrong field of the request is reported, not only the first: unknown, missing, of
 * the wrong type, out of range, not one of the categories. null is a missing value.
 *
 * Strict JSON as in wire/tensor_json.h; a duplicate field is an error. No allocation beyond the
 * given arena, and none at all for a good request without escapes in its strings. Thread-safe.
 */
#pragma once

#include "base/arena.h"
#include "wire/tensor.h"

#define FIELDS_MAX 4096        /* columns of a table */
#define FIELD_PROBLEMS_MAX 100 /* listed; the rest is counted */

enum field_type { FIELD_FLOAT, FIELD_DOUBLE, FIELD_INT, FIELD_BOOL, FIELD_STRING };

/*
 * One field. `type` is what the client must send: a number for float and double, an integral number
 * for int, true or false for bool, a string for string. `store` is how it lies in the tensor:
 * numbers and booleans may be stored in any numeric tensor (false is 0, true is 1); a string goes
 * into BYTES, or, when it has categories, as its index in the list into a numeric tensor.
 */
struct field_column {
    str name;
    enum field_type type;
    enum tensor_type store; /* not FP16, BF16 */
    bool required;
    bool has_min, has_max; /* of numbers */
    double min, max;       /* inclusive */
    const str *categories; /* allowed strings; NULL = any */
    uint32_t category_count;
    uint32_t tensor;    /* which input tensor */
    uint32_t position;  /* element within a row of it */
    bool has_default;   /* what an optional field that is missing becomes; without a default NaN, */
    double default_num; /* which needs a FP32 or FP64 store, or "" in BYTES */
    str default_str;
};

struct field_table {
    const struct field_column *columns; /* of the arena, strings copied too */
    uint32_t column_count;
    uint32_t tensor_count;        /* input tensors that the columns fill */
    const uint32_t *row_elements; /* elements of a row of each tensor */
    const uint32_t *slots;        /* open addressing: column + 1, 0 = free */
    uint32_t slot_mask;
};

/* Builds a table in the arena; the columns are copied. Errors INVALID_ARGUMENT: a name twice, a
 * position twice or left open, columns of one tensor with different stores, a store that cannot
 * hold the type, an optional column that has no value for "missing". */
NODISCARD int field_table_init(struct field_table *t, const struct field_column *columns,
                               uint32_t column_count, struct arena *a, struct err *e);

/* The column of that name, or NULL. */
const struct field_column *field_table_find(const struct field_table *t, str name);

#define FIELD_PROBLEM_LIST(X)                                   \
    X(UNKNOWN, "unknown", "the model has no such field")        \
    X(MISSING, "missing", "a required field is absent or null") \
    X(TYPE, "wrong_type", "the value is of another type")       \
    X(RANGE, "out_of_range", "the number is out of its range")  \
    X(CATEGORY, "bad_category", "the text is not in the list")  \
    X(DUPLICATE, "duplicate", "the field is given twice")
enum field_problem_kind {
#define FIELD_PROBLEM(name, text, help) FIELD_PROBLEM_##name,
    FIELD_PROBLEM_LIST(FIELD_PROBLEM)
#undef FIELD_PROBLEM
};

struct field_problem {
    enum field_problem_kind kind;
    uint32_t row;
    str field;
    const struct field_column *column; /* NULL when unknown */
    str got;                           /* JSON text of the value, at most 64 bytes; "" if absent */
    str suggestion;                    /* of an unknown field: the nearest name, or STR_NULL */
    struct field_problem *next;
};

struct fields_request {
    uint32_t rows;
    bool is_list;                   /* rows came as a list: answer with a list */
    str request_id, user_id;        /* of metadata, when they are strings; STR_NULL otherwise */
    str metadata;                   /* JSON text of the object, or STR_NULL */
    uint32_t problem_count;         /* all, also those not listed */
    struct field_problem *problems; /* in the order of the request; of the arena */
};

/*
 * Reads a request into `inputs` (table->tensor_count tensors with spec, data and cap_bytes set; the
 * first dimension of their specs is open). `rows_max` bounds the list.
 *
 * Returns 0 with the tensors filled; or INVALID_ARGUMENT: either a broken document (problem_count
 * is 0, the message has the place) or wrong fields (problem_count > 0, the message is a summary,
 * the list is in *request). RESOURCE_EXHAUSTED: too many rows. *request is always set.
 */
NODISCARD int fields_request_read(str json, const struct field_table *t, struct tensor *inputs,
                                  uint32_t rows_max, struct arena *a,
                                  struct fields_request *request, struct err *e);

/* {"error":"...","code":"INVALID_ARGUMENT","fields":[{"field","problem","expected","got",...}]}
 * from a failed read; "row" is there for the list forms. */
void fields_error_write(struct buf *to, const struct fields_request *request, const struct err *e);

/* What the column takes, in words: "a number from 0 to 120". Returns the bytes appended to `to`. */
void field_expected_write(struct buf *to, const struct field_column *column);
