/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results, row by row or as whole columns of doubles.
 *
 * DuckDB hands out chunks of up to 2,048 rows, each column a typed vector with a validity mask. A
 * row is an index into the chunk at hand; a value is converted when it is asked for. Bulk reads
 * walk the vectors, so a numeric column costs a copy and no call per value.
 */
#include "store/lake/priv.h"

#include "base/mem.h"

#include <math.h>

struct column {
    duckdb_type type;            /* physical meaning of the data */
    duckdb_type storage;         /* of a decimal or an enum */
    double scale;                /* of a decimal: 10^-scale */
    duckdb_logical_type logical; /* kept for enums, else NULL */
    const void *data;            /* of the chunk at hand */
    const uint64_t *valid;       /* or NULL: all are */
};

struct lake_result {
    duckdb_result r;
    struct column *columns; /* owned */
    size_t column_count;
    duckdb_data_chunk chunk;
    size_t rows, row; /* of the chunk; `row` is current + 1 */
    char *text;       /* owned: an enum value as text */
};

void lake_result_free(struct lake_result *r)
{
    if (!r)
        return;
    if (r->chunk)
        duck.destroy_data_chunk(&r->chunk);
    for (size_t i = 0; r->columns && i < r->column_count; i++)
        if (r->columns[i].logical)
            duck.destroy_logical_type(&r->columns[i].logical);
    if (r->text)
        duck.free(r->text);
    duck.destroy_result(&r->r);
    mem_free(r->columns);
    mem_free(r);
}

static void describe(struct lake_result *r, size_t i)
{
    struct column *c = &r->columns[i];

    c->type = c->storage = duck.column_type(&r->r, i);
    c->scale = 1;
    if (c->type != DUCKDB_TYPE_DECIMAL && c->type != DUCKDB_TYPE_ENUM)
        return;
    c->logical = duck.column_logical_type(&r->r, i);
    if (c->type == DUCKDB_TYPE_DECIMAL) {
        c->storage = duck.decimal_internal_type(c->logical);
        c->scale = pow(10, -(double)duck.decimal_scale(c->logical));
    } else {
        c->storage = duck.enum_internal_type(c->logical);
    }
}

/* --- Running ------------------------------------------------------------------------------- */

static duckdb_state bind_one(duckdb_prepared_statement p, size_t at, const struct lake_value *v)
{
    switch (v->type) {
    case LAKE_BOOL:
        return duck.bind_boolean(p, at, v->boolean);
    case LAKE_I64:
        return duck.bind_int64(p, at, v->integer);
    case LAKE_F64:
        return duck.bind_double(p, at, v->real);
    case LAKE_TEXT:
        return duck.bind_varchar_length(p, at, v->text.p ? v->text.p : "", v->text.n);
    case LAKE_TIME:
        return duck.bind_timestamp(p, at, (duckdb_timestamp){v->integer / 1000});
    case LAKE_NULL:
        break;
    }
    return duck.bind_null(p, at);
}

static void prepared_done(duckdb_prepared_statement *p)
{
    if (*p)
        duck.destroy_prepare(p);
}

static NODISCARD int run(struct lake *l, const char *sql, const struct lake_value *params, size_t n,
                         duckdb_result *ret, struct err *e)
{
    AUTO(prepared_done) duckdb_prepared_statement p = NULL;

    if (duck.prepare(l->con, sql, &p) != DuckDBSuccess)
        return lake_fail("query", p ? duck.prepare_error(p) : NULL, DUCKDB_ERROR_BINDER, e);
    if (duck.nparams(p) != n)
        return FAIL(e, INVALID_ARGUMENT, "lake: a query with %llu parameters was given %zu",
                    (unsigned long long)duck.nparams(p), n);
    for (size_t i = 0; i < n; i++)
        if (bind_one(p, i + 1, &params[i]) != DuckDBSuccess)
            return FAIL(e, INVALID_ARGUMENT, "lake: parameter %zu does not fit the query", i + 1);
    if (duck.execute_prepared(p, ret) != DuckDBSuccess)
        return lake_fail_result("query", ret, e);
    return 0;
}

int lake_query(struct lake *l, const char *sql, const struct lake_value *params, size_t n,
               struct lake_result **ret_result, struct err *e)
{
    struct lake_result *r = NULL;
    duckdb_result raw;

    TRY(run(l, sql, params, n, &raw, e));
    r = mem_zalloc(sizeof *r);
    r->r = raw;
    r->column_count = duck.column_count(&raw);
    r->columns = mem_zalloc((r->column_count + 1) * sizeof *r->columns);
    for (size_t i = 0; i < r->column_count; i++)
        describe(r, i);
    *ret_result = r;
    return 0;
}

static bool next_chunk(struct lake_result *r)
{
    if (r->chunk)
        duck.destroy_data_chunk(&r->chunk);
    do {
        r->chunk = duck.fetch_chunk(r->r);
        if (!r->chunk)
            return false;
        r->rows = duck.data_chunk_get_size(r->chunk);
        if (!r->rows)
            duck.destroy_data_chunk(&r->chunk);
    } while (!r->rows);
    for (size_t i = 0; i < r->column_count; i++) {
        duckdb_vector v = duck.data_chunk_get_vector(r->chunk, i);

        r->columns[i].data = duck.vector_get_data(v);
        r->columns[i].valid = duck.vector_get_validity(v);
    }
    r->row = 0;
    return true;
}

bool lake_next(struct lake_result *r)
{
    if (r->row >= r->rows && !next_chunk(r)) {
        r->rows = r->row = 0;
        return false;
    }
    r->row++;
    return true;
}

/* --- Values -------------------------------------------------------------------------------- */

static bool valid_at(const struct column *c, size_t row)
{
    return !c->valid || (c->valid[row / 64] >> (row % 64) & 1);
}

static double huge(duckdb_hugeint v)
{
    return (double)v.upper * 18446744073709551616.0 + (double)v.lower;
}

// clang-format off
#define NUMERIC_TYPES(X)                                                    \
    X(BOOLEAN, bool)                                                        \
    X(TINYINT, int8_t) X(SMALLINT, int16_t)                                 \
    X(INTEGER, int32_t) X(BIGINT, int64_t)                                  \
    X(UTINYINT, uint8_t) X(USMALLINT, uint16_t)                             \
    X(UINTEGER, uint32_t) X(UBIGINT, uint64_t)                              \
    X(FLOAT, float) X(DOUBLE, double)                                       \
    X(TIMESTAMP, int64_t) X(TIMESTAMP_TZ, int64_t) X(TIMESTAMP_S, int64_t)  \
    X(TIMESTAMP_MS, int64_t) X(TIMESTAMP_NS, int64_t)                       \
    X(DATE, int32_t) X(TIME, int64_t)
// clang-format on

static double number_at(const struct column *c, size_t row)
{
    switch (c->storage) {
#define X(name, ctype)       \
    case DUCKDB_TYPE_##name: \
        return (double)((const ctype *)c->data)[row] * c->scale;
        NUMERIC_TYPES(X)
#undef X
    case DUCKDB_TYPE_HUGEINT:
        return huge(((const duckdb_hugeint *)c->data)[row]) * c->scale;
    default:
        return NAN;
    }
}

static int64_t integer_at(const struct column *c, size_t row)
{
    double v;

    if (c->type != DUCKDB_TYPE_DECIMAL)
        switch (c->storage) {
#define X(name, ctype)                                                           \
    case DUCKDB_TYPE_##name:                                                     \
        if (c->storage == DUCKDB_TYPE_FLOAT || c->storage == DUCKDB_TYPE_DOUBLE) \
            break;                                                               \
        return (int64_t)((const ctype *)c->data)[row];
            NUMERIC_TYPES(X)
#undef X
        default:
            break;
        }
    v = number_at(c, row);
    return v >= -9223372036854775808.0 && v < 9223372036854775808.0 ? (int64_t)v : 0;
}

static const struct column *at(const struct lake_result *r, size_t column)
{
    ASSERT(column < r->column_count && r->row > 0);
    return &r->columns[column];
}

size_t lake_column_count(const struct lake_result *r)
{
    return r->column_count;
}

str lake_column_name(const struct lake_result *r, size_t column)
{
    return str_of(duck.column_name((duckdb_result *)(uintptr_t)&r->r, column));
}

enum lake_type lake_column_type(const struct lake_result *r, size_t column)
{
    ASSERT(column < r->column_count);
    switch (r->columns[column].type) {
    case DUCKDB_TYPE_BOOLEAN:
        return LAKE_BOOL;
    case DUCKDB_TYPE_TINYINT:
    case DUCKDB_TYPE_SMALLINT:
    case DUCKDB_TYPE_INTEGER:
    case DUCKDB_TYPE_BIGINT:
    case DUCKDB_TYPE_UTINYINT:
    case DUCKDB_TYPE_USMALLINT:
    case DUCKDB_TYPE_UINTEGER:
    case DUCKDB_TYPE_UBIGINT:
        return LAKE_I64;
    case DUCKDB_TYPE_FLOAT:
    case DUCKDB_TYPE_DOUBLE:
    case DUCKDB_TYPE_DECIMAL:
    case DUCKDB_TYPE_HUGEINT:
        return LAKE_F64;
    case DUCKDB_TYPE_VARCHAR:
    case DUCKDB_TYPE_BLOB:
    case DUCKDB_TYPE_ENUM:
        return LAKE_TEXT;
    case DUCKDB_TYPE_TIMESTAMP:
    case DUCKDB_TYPE_TIMESTAMP_TZ:
    case DUCKDB_TYPE_TIMESTAMP_S:
    case DUCKDB_TYPE_TIMESTAMP_MS:
    case DUCKDB_TYPE_TIMESTAMP_NS:
    case DUCKDB_TYPE_DATE:
        return LAKE_TIME;
    default:
        return LAKE_NULL;
    }
}

bool lake_is_null(const struct lake_result *r, size_t column)
{
    return !valid_at(at(r, column), r->row - 1);
}

bool lake_bool(const struct lake_result *r, size_t column)
{
    return lake_i64(r, column) != 0;
}

int64_t lake_i64(const struct lake_result *r, size_t column)
{
    const struct column *c = at(r, column);

    return valid_at(c, r->row - 1) ? integer_at(c, r->row - 1) : 0;
}

double lake_f64(const struct lake_result *r, size_t column)
{
    const struct column *c = at(r, column);

    return valid_at(c, r->row - 1) ? number_at(c, r->row - 1) : NAN;
}

static str enum_text(struct lake_result *r, const struct column *c, size_t row)
{
    if (r->text)
        duck.free(r->text);
    r->text = duck.enum_dictionary_value(c->logical, (idx_t)integer_at(c, row));
    return str_of(r->text);
}

str lake_text(const struct lake_result *r, size_t column)
{
    const struct column *c = at(r, column);
    const duckdb_string_t *s;

    if (!valid_at(c, r->row - 1))
        return STR_NULL;
    if (c->type == DUCKDB_TYPE_ENUM)
        return enum_text((struct lake_result *)(uintptr_t)r, c, r->row - 1);
    if (c->type != DUCKDB_TYPE_VARCHAR && c->type != DUCKDB_TYPE_BLOB)
        return STR_NULL;
    s = &((const duckdb_string_t *)c->data)[r->row - 1];
    if (s->value.inlined.length <= sizeof s->value.inlined.inlined)
        return (str){s->value.inlined.inlined, s->value.inlined.length};
    return (str){s->value.pointer.ptr, s->value.pointer.length};
}

int64_t lake_time_ns(const struct lake_result *r, size_t column)
{
    const struct column *c = at(r, column);
    int64_t v = lake_i64(r, column);

    switch (c->type) {
    case DUCKDB_TYPE_TIMESTAMP:
    case DUCKDB_TYPE_TIMESTAMP_TZ:
        return v * 1000;
    case DUCKDB_TYPE_TIMESTAMP_S:
        return v * 1000000000;
    case DUCKDB_TYPE_TIMESTAMP_MS:
        return v * 1000000;
    case DUCKDB_TYPE_TIMESTAMP_NS:
        return v;
    case DUCKDB_TYPE_DATE:
        return v * 86400 * INT64_C(1000000000);
    default:
        return 0;
    }
}

static NODISCARD int scalar(struct lake *l, const char *sql, const struct lake_value *params,
                            size_t n, struct lake_result **ret, struct err *e)
{
    AUTO(lake_result_freep) struct lake_result *r = NULL;

    TRY(lake_query(l, sql, params, n, &r, e));
    if (!lake_next(r) || !r->column_count || lake_is_null(r, 0))
        return FAIL(e, NOT_FOUND, "lake: the query gave no value");
    *ret = TAKE(r);
    return 0;
}

int lake_scalar_i64(struct lake *l, const char *sql, const struct lake_value *params, size_t n,
                    int64_t *ret_value, struct err *e)
{
    AUTO(lake_result_freep) struct lake_result *r = NULL;

    TRY(scalar(l, sql, params, n, &r, e));
    *ret_value = lake_i64(r, 0);
    return 0;
}

int lake_scalar_f64(struct lake *l, const char *sql, const struct lake_value *params, size_t n,
                    double *ret_value, struct err *e)
{
    AUTO(lake_result_freep) struct lake_result *r = NULL;

    TRY(scalar(l, sql, params, n, &r, e));
    *ret_value = lake_f64(r, 0);
    return 0;
}

/* --- Whole columns ------------------------------------------------------------------------- */

void lake_numbers_done(struct lake_numbers *n)
{
    for (size_t i = 0; n->columns && i < n->column_count; i++)
        mem_free(n->columns[i]);
    for (size_t i = 0; n->names && i < n->column_count; i++)
        mem_free((void *)(uintptr_t)n->names[i].p);
    mem_free(n->columns);
    mem_free(n->names);
    *n = (struct lake_numbers){0};
}

static void copy_column(const struct column *c, size_t rows, double *to)
{
    if (c->storage == DUCKDB_TYPE_DOUBLE && !c->valid) {
        memcpy(to, c->data, rows * sizeof *to);
        return;
    }
    for (size_t i = 0; i < rows; i++)
        to[i] = valid_at(c, i) ? number_at(c, i) : NAN;
}

static NODISCARD int grow(struct lake_numbers *out, size_t *cap, size_t need, size_t max_rows,
                          struct err *e)
{
    size_t wanted = MAX(MAX(need, 2 * *cap), (size_t)2048);

    if (need > max_rows)
        return FAIL(e, RESOURCE_EXHAUSTED, "lake: the query gives more than %zu rows: sample it",
                    max_rows);
    if (need <= *cap)
        return 0;
    for (size_t i = 0; i < out->column_count; i++) {
        double *p = mem_try_realloc(out->columns[i], wanted * sizeof *p);

        if (!p)
            return FAIL(e, RESOURCE_EXHAUSTED, "lake: no memory for %zu rows of %zu columns",
                        wanted, out->column_count);
        out->columns[i] = p;
    }
    *cap = wanted;
    return 0;
}

int lake_read_numbers(struct lake *l, const char *sql, const struct lake_value *params, size_t n,
                      size_t max_rows, struct lake_numbers *ret, struct err *e)
{
    AUTO(lake_result_freep) struct lake_result *r = NULL;
    AUTO(lake_numbers_done) struct lake_numbers out = {0};
    size_t cap = 0;

    TRY(lake_query(l, sql, params, n, &r, e));
    out.column_count = r->column_count;
    out.columns = mem_zalloc((r->column_count + 1) * sizeof *out.columns);
    out.names = mem_zalloc((r->column_count + 1) * sizeof *out.names);
    for (size_t i = 0; i < r->column_count; i++) {
        str name = lake_column_name(r, i);

        out.names[i] = (str){mem_dupz(name.p, name.n), name.n};
    }
    while (next_chunk(r)) {
        TRY(grow(&out, &cap, out.row_count + r->rows, max_rows, e));
        for (size_t i = 0; i < r->column_count; i++)
            copy_column(&r->columns[i], r->rows, out.columns[i] + out.row_count);
        out.row_count += r->rows;
    }
    *ret = out;
    out = (struct lake_numbers){0};
    return 0;
}
