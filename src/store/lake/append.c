/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Appending rows in bulk.
 *
 * Values go straight into the vectors of a chunk of 2,048 rows, which is handed over when it is
 * full: a store per number instead of a call into the library. The column of the next value is
 * known from the order of calls; giving a row too few or too many values is a mistake of the
 * program and asserts.
 */
#include "store/lake/priv.h"

#include "base/mem.h"

#include <math.h>

struct target {
    duckdb_type type;
    duckdb_vector vector;
    void *data;
    uint64_t *valid; /* NULL until the first NULL of the chunk */
};

struct lake_appender {
    duckdb_appender appender;
    duckdb_data_chunk chunk;
    duckdb_logical_type *logical; /* owned */
    struct target *targets;       /* owned */
    size_t column_count, column;
    size_t rows, rows_max;
};

void lake_appender_free(struct lake_appender *a)
{
    if (!a)
        return;
    if (a->chunk)
        duck.destroy_data_chunk(&a->chunk);
    for (size_t i = 0; a->logical && i < a->column_count; i++)
        if (a->logical[i])
            duck.destroy_logical_type(&a->logical[i]);
    if (a->appender)
        duck.appender_destroy(&a->appender);
    mem_free(a->logical);
    mem_free(a->targets);
    mem_free(a);
}

static void aim(struct lake_appender *a)
{
    for (size_t i = 0; i < a->column_count; i++) {
        a->targets[i].vector = duck.data_chunk_get_vector(a->chunk, i);
        a->targets[i].data = duck.vector_get_data(a->targets[i].vector);
        a->targets[i].valid = NULL;
    }
}

int lake_appender_open(struct lake *l, str table, struct lake_appender **ret_appender,
                       struct err *e)
{
    AUTO(lake_appender_freep) struct lake_appender *a = mem_zalloc(sizeof *a);
    AUTO(mem_freep) char *name = mem_dupz(table.p, table.n);

    if (duck.appender_create(l->con, NULL, name, &a->appender) != DuckDBSuccess)
        return lake_fail(name, a->appender ? duck.appender_error(a->appender) : "no such table",
                         DUCKDB_ERROR_CATALOG, e);
    a->column_count = duck.appender_column_count(a->appender);
    a->logical = mem_zalloc((a->column_count + 1) * sizeof *a->logical);
    a->targets = mem_zalloc((a->column_count + 1) * sizeof *a->targets);
    a->rows_max = duck.vector_size();
    for (size_t i = 0; i < a->column_count; i++) {
        a->logical[i] = duck.appender_column_type(a->appender, i);
        a->targets[i].type = duck.get_type_id(a->logical[i]);
    }
    a->chunk = duck.create_data_chunk(a->logical, a->column_count);
    if (!a->chunk)
        return FAIL(e, RESOURCE_EXHAUSTED, "lake: no memory to append to '%s'", name);
    aim(a);
    *ret_appender = TAKE(a);
    return 0;
}

static struct target *next_target(struct lake_appender *a)
{
    ASSERT(a->column < a->column_count);
    return &a->targets[a->column++];
}

static void set_null(struct lake_appender *a, struct target *t)
{
    if (!t->valid) {
        duck.vector_ensure_validity_writable(t->vector);
        t->valid = duck.vector_get_validity(t->vector);
    }
    t->valid[a->rows / 64] &= ~(UINT64_C(1) << (a->rows % 64));
}

void lake_append_null(struct lake_appender *a)
{
    set_null(a, next_target(a));
}

/* An integer into a column of any numeric type; out of its range: NULL. */
#define PUT_INT(name, ctype, least, most)                \
    case DUCKDB_TYPE_##name:                             \
        if (v < (int64_t)(least) || v > (int64_t)(most)) \
            break;                                       \
        ((ctype *)t->data)[a->rows] = (ctype)v;          \
        return;

static void put_i64(struct lake_appender *a, struct target *t, int64_t v)
{
    switch (t->type) {
        PUT_INT(BOOLEAN, bool, 0, 1)
        PUT_INT(TINYINT, int8_t, INT8_MIN, INT8_MAX)
        PUT_INT(SMALLINT, int16_t, INT16_MIN, INT16_MAX)
        PUT_INT(INTEGER, int32_t, INT32_MIN, INT32_MAX)
        PUT_INT(BIGINT, int64_t, INT64_MIN, INT64_MAX)
        PUT_INT(UTINYINT, uint8_t, 0, UINT8_MAX)
        PUT_INT(USMALLINT, uint16_t, 0, UINT16_MAX)
        PUT_INT(UINTEGER, uint32_t, 0, UINT32_MAX)
        PUT_INT(UBIGINT, uint64_t, 0, INT64_MAX)
        PUT_INT(TIMESTAMP, int64_t, INT64_MIN, INT64_MAX)
        PUT_INT(TIMESTAMP_TZ, int64_t, INT64_MIN, INT64_MAX)
    case DUCKDB_TYPE_FLOAT:
        ((float *)t->data)[a->rows] = (float)v;
        return;
    case DUCKDB_TYPE_DOUBLE:
        ((double *)t->data)[a->rows] = (double)v;
        return;
    default:
        break;
    }
    set_null(a, t);
}

void lake_append_bool(struct lake_appender *a, bool v)
{
    put_i64(a, next_target(a), v);
}

void lake_append_i64(struct lake_appender *a, int64_t v)
{
    put_i64(a, next_target(a), v);
}

void lake_append_f64(struct lake_appender *a, double v)
{
    struct target *t = next_target(a);

    if (isnan(v))
        set_null(a, t);
    else if (t->type == DUCKDB_TYPE_DOUBLE)
        ((double *)t->data)[a->rows] = v;
    else if (t->type == DUCKDB_TYPE_FLOAT)
        ((float *)t->data)[a->rows] = (float)v;
    else if (v >= -9223372036854775808.0 && v < 9223372036854775808.0)
        put_i64(a, t, (int64_t)v);
    else
        set_null(a, t);
}

void lake_append_time(struct lake_appender *a, int64_t wall_ns)
{
    struct target *t = next_target(a);

    put_i64(a, t, wall_ns / 1000);
}

/* DuckDB refuses texts that are not UTF-8: bytes that are not become '?'. */
static void put_mended(struct lake_appender *a, struct target *t, str v)
{
    AUTO(mem_freep) char *copy = mem_dupz(v.p, v.n);

    for (size_t i = 0; i < v.n; i++)
        if (!copy[i] || ((unsigned char)copy[i] & 0x80))
            copy[i] = '?';
    duck.vector_assign_string_element_len(t->vector, a->rows, copy, v.n);
}

void lake_append_text(struct lake_appender *a, str v)
{
    struct target *t = next_target(a);

    if (!v.p || (t->type != DUCKDB_TYPE_VARCHAR && t->type != DUCKDB_TYPE_BLOB))
        set_null(a, t);
    else if (t->type == DUCKDB_TYPE_BLOB || str_is_utf8(v))
        duck.vector_assign_string_element_len(t->vector, a->rows, v.p, v.n);
    else
        put_mended(a, t, v);
}

static NODISCARD int hand_over(struct lake_appender *a, struct err *e)
{
    if (!a->rows)
        return 0;
    duck.data_chunk_set_size(a->chunk, a->rows);
    if (duck.append_data_chunk(a->appender, a->chunk) != DuckDBSuccess)
        return lake_fail("append", duck.appender_error(a->appender), DUCKDB_ERROR_INVALID_INPUT, e);
    duck.data_chunk_reset(a->chunk);
    aim(a);
    a->rows = 0;
    return 0;
}

int lake_append_row(struct lake_appender *a, struct err *e)
{
    ASSERT(a->column == a->column_count);
    a->column = 0;
    if (++a->rows == a->rows_max)
        return hand_over(a, e);
    return 0;
}

int lake_appender_flush(struct lake_appender *a, struct err *e)
{
    ASSERT(a->column == 0);
    TRY(hand_over(a, e));
    if (duck.appender_flush(a->appender) != DuckDBSuccess)
        return lake_fail("append", duck.appender_error(a->appender), DUCKDB_ERROR_INVALID_INPUT, e);
    return 0;
}
