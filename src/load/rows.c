/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the rows of a replay with DuckDB, which knows Parquet and guesses the types of a CSV.
 *
 * Everything is copied into one arena, since the replay walks the rows many times and DuckDB's
 * memory is better given back before the clock starts. Numbers of all widths become doubles: what
 * is sent is text anyway, and whole numbers are written without a point. Times become RFC 3339
 * texts. Labels stay texts, so that 1, "1" and true reach the feedback as the file has them.
 */
#include "load/rows.h"

#include "base/time.h"
#include "base/mem.h"
#include "store/lake/lake.h"

struct load_rows *load_rows_new(size_t n, size_t column_count)
{
    struct load_rows *r = mem_zalloc(sizeof(*r));

    arena_init(&r->arena, 0);
    r->n = n;
    r->column_count = column_count;
    r->columns = ARENA_ARRAY(&r->arena, struct load_column, MAX(column_count, (size_t)1));
    for (size_t i = 0; i < column_count; i++)
        r->columns[i].numbers = ARENA_ARRAY(&r->arena, double, MAX(n, (size_t)1));
    return r;
}

void load_rows_free(struct load_rows *r)
{
    if (!r)
        return;
    arena_done(&r->arena);
    mem_free(r);
}

struct load_column *load_rows_column(const struct load_rows *r, str name)
{
    for (size_t i = 0; i < r->column_count; i++)
        if (str_eq(r->columns[i].name, name))
            return &r->columns[i];
    return NULL;
}

uint32_t load_class_of(const struct load_rows *r, str text)
{
    double a, b;

    for (uint32_t i = 0; i < r->class_count; i++)
        if (str_eq(r->classes[i], text))
            return i;
    if (str_to_f64(text, &a))
        for (uint32_t i = 0; i < r->class_count; i++)
            if (str_to_f64(r->classes[i], &b) && a == b)
                return i;
    return LOAD_CLASS_NONE;
}

static uint32_t exact_class(const struct load_rows *r, str text)
{
    uint32_t i = 0;

    while (i < r->class_count && !str_eq(r->classes[i], text))
        i++;
    return i;
}

void load_rows_classify(struct load_rows *r)
{
    r->class_count = 0;
    r->label_classes = NULL;
    if (!r->labels)
        return;
    r->label_classes = ARENA_ARRAY(&r->arena, uint32_t, MAX(r->n, (size_t)1));
    for (size_t i = 0; i < r->n; i++) {
        uint32_t c = r->labels[i].p ? exact_class(r, r->labels[i]) : LOAD_CLASS_NONE;

        if (r->labels[i].p && c == r->class_count) {
            if (c == LOAD_CLASSES_MAX) {
                r->class_count = 0;
                r->label_classes = NULL;
                return;
            }
            r->classes[r->class_count++] = r->labels[i];
        }
        r->label_classes[i] = c;
    }
}

/* --- Reading ---------------------------------------------------------------------------------- */

struct source {
    size_t column; /* of the result */
    struct load_column *to;
};

static enum load_kind kind_of(enum lake_type type)
{
    switch (type) {
    case LAKE_BOOL:
        return LOAD_BOOL;
    case LAKE_I64:
    case LAKE_F64:
        return LOAD_NUMBER;
    default:
        return LOAD_TEXT;
    }
}

static str text_of(const struct lake_result *q, size_t column, struct arena *a)
{
    char iso[TIME_ISO_SIZE];

    if (lake_is_null(q, column))
        return STR_NULL;
    switch (lake_column_type(q, column)) {
    case LAKE_TIME:
        time_iso(lake_time_ns(q, column), iso);
        return arena_dup(a, str_of(iso));
    case LAKE_BOOL:
        return lake_bool(q, column) ? S("true") : S("false");
    case LAKE_I64:
        return arena_printf(a, "%lld", (long long)lake_i64(q, column));
    case LAKE_F64:
        return arena_printf(a, "%.17g", lake_f64(q, column));
    default:
        return arena_dup(a, lake_text(q, column));
    }
}

static NODISCARD int find_column(const struct lake_result *q, str name, const char *path,
                                 size_t *ret_column, struct err *e)
{
    str names[256], near;
    size_t n = lake_column_count(q);

    for (size_t i = 0; i < n; i++)
        if (str_eq(lake_column_name(q, i), name)) {
            *ret_column = i;
            return 0;
        }
    n = MIN(n, ARRAY_LEN(names));
    for (size_t i = 0; i < n; i++)
        names[i] = lake_column_name(q, i);
    near = str_suggest(name, names, n);
    return FAIL(e, NOT_FOUND, "%s has no column '" STR_F "'%s" STR_F "%s", path, STR_A(name),
                near.n ? ", did you mean '" : "", STR_A(near), near.n ? "'?" : "");
}

/* Which columns are sent, in which order; *ret_label is that of the label, or SIZE_MAX. */
static NODISCARD int choose(const struct load_rows_wanted *want, const struct lake_result *q,
                            struct arena *a, size_t **ret_chosen, size_t *ret_n, size_t *ret_label,
                            struct err *e)
{
    size_t n = want->columns ? want->column_count : lake_column_count(q), label = SIZE_MAX;
    size_t *chosen = ARENA_ARRAY(a, size_t, MAX(n, (size_t)1)), taken = 0;

    if (want->label.n)
        TRY(find_column(q, want->label, want->path, &label, e));
    for (size_t i = 0; i < n; i++) {
        size_t at = i;

        if (want->columns)
            TRY(find_column(q, want->columns[i], want->path, &at, e));
        else if (at == label)
            continue;
        chosen[taken++] = at;
    }
    if (taken < 1 || taken > LOAD_COLUMNS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%s has %zu columns to send, expected 1 to %u", want->path,
                    taken, LOAD_COLUMNS_MAX);
    *ret_chosen = chosen;
    *ret_n = taken;
    *ret_label = label;
    return 0;
}

static void prepare(struct load_rows *r, const struct lake_result *q, const size_t *chosen,
                    size_t n, bool labelled)
{
    r->column_count = n;
    r->columns = ARENA_ARRAY(&r->arena, struct load_column, n);
    for (size_t i = 0; i < n; i++) {
        struct load_column *c = &r->columns[i];

        c->name = arena_dup(&r->arena, lake_column_name(q, chosen[i]));
        c->kind = kind_of(lake_column_type(q, chosen[i]));
        if (c->kind == LOAD_TEXT)
            c->texts = ARENA_ARRAY(&r->arena, str, r->n);
        else
            c->numbers = ARENA_ARRAY(&r->arena, double, r->n);
    }
    if (labelled)
        r->labels = ARENA_ARRAY(&r->arena, str, r->n);
}

static void take_row(struct load_rows *r, const struct lake_result *q, const size_t *chosen,
                     size_t row)
{
    for (size_t i = 0; i < r->column_count; i++) {
        struct load_column *c = &r->columns[i];

        if (c->kind == LOAD_TEXT)
            c->texts[row] = text_of(q, chosen[i], &r->arena);
        else
            c->numbers[row] = lake_f64(q, chosen[i]);
    }
}

static NODISCARD int open_query(const struct load_rows_wanted *want, struct lake *lake,
                                size_t *ret_n, struct lake_result **ret_result, struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};
    bool parquet = str_ends(str_of(want->path), S(".parquet"));
    int64_t n;

    buf_init(&sql, 1 << 20);
    buf_add_str(&sql, S("CREATE TEMP VIEW load_rows AS SELECT * FROM "));
    buf_add_str(&sql, parquet ? S("read_parquet(") : S("read_csv("));
    lake_quote_text(&sql, str_of(want->path));
    buf_add_str(&sql, parquet ? S(")") : S(", header = true)"));
    if (sql.overflowed)
        return FAIL(e, INVALID_ARGUMENT, "the path of the rows cannot be quoted");
    TRY(lake_exec(lake, buf_z(&sql), e));
    TRY(lake_scalar_i64(lake, "SELECT count(*) FROM load_rows", NULL, 0, &n, e));
    if (n < 1)
        return FAIL(e, INVALID_ARGUMENT, "%s has no rows", want->path);
    *ret_n = MIN((size_t)n, want->rows_max ? want->rows_max : LOAD_ROWS_MAX_DEFAULT);
    return lake_query(lake, "SELECT * FROM load_rows LIMIT $1", &LAKE_V_I64((int64_t)*ret_n), 1,
                      ret_result, e);
}

int load_rows_read(const struct load_rows_wanted *want, struct load_rows **ret_rows, struct err *e)
{
    AUTO(load_rows_freep) struct load_rows *r = load_rows_new(0, 0);
    AUTO(lake_closep) struct lake *lake = NULL;
    AUTO(lake_result_freep) struct lake_result *q = NULL;
    size_t *chosen, n = 0, column_count, label, row = 0;

    TRY(lake_open(&(struct lake_config){.threads = 1}, &lake, e));
    TRY(open_query(want, lake, &n, &q, e));
    TRY(choose(want, q, &r->arena, &chosen, &column_count, &label, e));
    r->n = n;
    prepare(r, q, chosen, column_count, label != SIZE_MAX);
    while (row < n && lake_next(q)) {
        take_row(r, q, chosen, row);
        if (r->labels)
            r->labels[row] = text_of(q, label, &r->arena);
        row++;
    }
    r->n = row;
    if (r->labels)
        r->labels_are_text = kind_of(lake_column_type(q, label)) == LOAD_TEXT;
    load_rows_classify(r);
    *ret_rows = TAKE(r);
    return 0;
}
