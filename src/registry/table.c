/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading tables by DuckDB.
 *
 * The query is built once: number the rows (by time, or as they lie in the file), leave out the
 * front, sample, and put the sample back in order. One thread reads, so that "as they lie" and the
 * seed of the sample mean the same on every machine. What DuckDB takes for a text is kept as an
 * index into the distinct texts; instants become seconds since 1970.
 *
 * It does not keep whole files: what is not asked for is not read, where the format allows that.
 */
#include "registry/table.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/num.h"
#include "store/lake/lake.h"

#include <math.h>

#define CELLS_OF_TABLE_MAX ((size_t)1 << 28) /* 2 GiB of doubles */
#define MESSAGE_NAMES_MAX 12

void table_init(struct table *t, size_t row_count, size_t column_count)
{
    *t = (struct table){.row_count = row_count, .column_count = column_count};
    arena_init(&t->arena, 0);
    t->columns = ARENA_ARRAY(&t->arena, struct table_column, column_count + 1);
    for (size_t c = 0; c < column_count; c++)
        t->columns[c].values = ARENA_ARRAY(&t->arena, double, row_count + 1);
}

void table_done(struct table *t)
{
    arena_done(&t->arena);
    *t = (struct table){0};
}

const struct table_column *table_find(const struct table *t, str name)
{
    for (size_t c = 0; c < t->column_count; c++)
        if (str_eq(t->columns[c].name, name))
            return &t->columns[c];
    return NULL;
}

str table_text(const struct table_column *c, size_t row, struct arena *a)
{
    double v = c->values[row];
    char text[NUM_TEXT_MAX];

    if (!isfinite(v))
        return STR_NULL;
    if (c->texts)
        return c->texts[(uint32_t)v];
    return arena_dup(a, (str){text, num_f64_text(v, text)});
}

/* --- The distinct texts of a column ----------------------------------------------------------- */

struct texts {
    str *list; /* owned; the bytes are the table's */
    uint32_t *slots;
    uint32_t n, mask;
};

static void texts_done(struct texts *t)
{
    mem_free(t->list);
    mem_free(t->slots);
}

static uint32_t *texts_slot(const struct texts *t, str s)
{
    uint32_t at = (uint32_t)hash_str(s, 0) & t->mask;

    while (t->slots[at] && !str_eq(t->list[t->slots[at] - 1], s))
        at = (at + 1) & t->mask;
    return &t->slots[at];
}

static void texts_grow(struct texts *t)
{
    uint32_t size = t->mask ? (t->mask + 1) * 2 : 64;

    mem_free(t->slots);
    t->slots = mem_zalloc(size * sizeof(*t->slots));
    t->list = mem_realloc(t->list, size * sizeof(*t->list));
    t->mask = size - 1;
    for (uint32_t i = 0; i < t->n; i++)
        *texts_slot(t, t->list[i]) = i + 1;
}

/* The index of a text, or -1 when there are too many. */
static int64_t texts_index(struct texts *t, str s, struct arena *a)
{
    uint32_t *slot;

    if ((t->n + 1) * 2 > t->mask)
        texts_grow(t);
    slot = texts_slot(t, s);
    if (!*slot) {
        if (t->n == TABLE_TEXTS_MAX)
            return -1;
        t->list[t->n++] = arena_dup(a, s);
        *slot = t->n;
    }
    return *slot - 1;
}

/* --- The query -------------------------------------------------------------------------------- */

struct reading {
    const struct table_query *q;
    struct lake *lake;        /* owned */
    struct buf source;        /* read_csv('…') */
    struct lake_result *head; /* owned: names and types, no rows */
    size_t *columns;          /* of head, those that are wanted */
    size_t count;
    struct table *t;
};

static void reading_done(struct reading *r)
{
    lake_result_free(r->head);
    lake_close(r->lake);
    buf_done(&r->source);
}

static str format_of(const struct table_query *q)
{
    str path = str_of(q->path);

    if (q->format.n && !str_eq(q->format, S("auto")))
        return q->format;
    if (str_ends(path, S(".parquet")) || str_ends(path, S(".pq")))
        return S("parquet");
    if (str_ends(path, S(".jsonl")) || str_ends(path, S(".ndjson")) || str_ends(path, S(".json")))
        return S("jsonl");
    return S("csv");
}

static bool in_list(const str *list, size_t n, str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(list[i], name))
            return true;
    return false;
}

static void write_csv_types(struct buf *to, const struct table_query *q)
{
    const char *sep = "";

    if (!q->as_text_count)
        return;
    buf_add_str(to, S(", types={"));
    for (size_t i = 0; i < q->as_text_count; i++) {
        buf_add_str(to, str_of(sep));
        lake_quote_text(to, q->as_text[i]);
        buf_add_str(to, S(": 'VARCHAR'"));
        sep = ", ";
    }
    buf_add_char(to, '}');
}

/* A column that is to be text but is not in the file would fail the whole reader, so those are
 * asked for only after a first look without types. */
static void write_source(struct buf *to, const struct table_query *q, bool types)
{
    str format = format_of(q);

    buf_clear(to);
    buf_add_str(to, str_eq(format, S("parquet")) ? S("read_parquet(")
                    : str_eq(format, S("jsonl")) ? S("read_json(")
                                                 : S("read_csv("));
    lake_quote_text(to, str_of(q->path));
    if (str_eq(format, S("jsonl")))
        buf_add_str(to, S(", format='newline_delimited'"));
    if (str_eq(format, S("csv")) && types)
        write_csv_types(to, q);
    buf_add_char(to, ')');
}

static NODISCARD int look(struct reading *r, bool types, struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};

    write_source(&r->source, r->q, types);
    buf_init(&sql, (size_t)1 << 20);
    buf_printf(&sql, "SELECT * FROM " STR_F " LIMIT 0", STR_A(buf_str(&r->source)));
    if (sql.overflowed || r->source.overflowed)
        return FAIL(e, INVALID_ARGUMENT, "the path or a column name of table '%s' cannot be quoted",
                    r->q->path);
    lake_result_free(r->head);
    r->head = NULL;
    if (lake_query(r->lake, buf_z(&sql), NULL, 0, &r->head, e))
        return err_context(e, "table %s", r->q->path);
    return 0;
}

static size_t head_find(const struct reading *r, str name)
{
    for (size_t c = 0; c < lake_column_count(r->head); c++)
        if (str_eq(lake_column_name(r->head, c), name))
            return c;
    return SIZE_MAX;
}

static NODISCARD int fail_missing(const struct reading *r, str name, struct err *e)
{
    AUTO(buf_done) struct buf names = {0};
    size_t n = lake_column_count(r->head);

    buf_init(&names, 4096);
    for (size_t c = 0; c < MIN(n, (size_t)MESSAGE_NAMES_MAX); c++)
        buf_printf(&names, "%s" STR_F, c ? ", " : "",
                   STR_A(str_take(lake_column_name(r->head, c), 40)));
    return FAIL(e, NOT_FOUND, "table %s has no column '" STR_F "'; it has " STR_F "%s", r->q->path,
                STR_A(name), STR_A(buf_str(&names)), n > MESSAGE_NAMES_MAX ? ", …" : "");
}

static NODISCARD int choose(struct reading *r, struct arena *a, struct err *e)
{
    size_t n = r->q->column_count ? r->q->column_count : lake_column_count(r->head);

    if (n > TABLE_COLUMNS_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED, "table %s: %zu columns, at most %d are read", r->q->path,
                    n, TABLE_COLUMNS_MAX);
    r->columns = ARENA_ARRAY(a, size_t, n + 1);
    for (size_t i = 0; i < n; i++) {
        r->columns[i] = r->q->column_count ? head_find(r, r->q->columns[i]) : i;
        if (r->columns[i] == SIZE_MAX)
            return fail_missing(r, r->q->columns[i], e);
    }
    if (r->q->order_by.n && head_find(r, r->q->order_by) == SIZE_MAX)
        return fail_missing(r, r->q->order_by, e);
    r->count = n;
    return 0;
}

static bool is_text(const struct reading *r, size_t i)
{
    enum lake_type type = lake_column_type(r->head, r->columns[i]);

    return type == LAKE_TEXT || type == LAKE_NULL ||
           in_list(r->q->as_text, r->q->as_text_count, lake_column_name(r->head, r->columns[i]));
}

static void write_query(struct reading *r, struct buf *sql, int64_t rows)
{
    size_t max = r->q->rows_max ? r->q->rows_max : TABLE_ROWS_MAX;
    int64_t skip = (int64_t)ceil((double)rows * CLAMP(r->q->skip, 0.0, 1.0));

    buf_add_str(sql, S("WITH numbered AS (SELECT "));
    for (size_t i = 0; i < r->count; i++) {
        bool instant = lake_column_type(r->head, r->columns[i]) == LAKE_TIME;

        buf_add_str(sql, is_text(r, i) ? S("CAST(") : instant ? S("CAST(epoch(") : S("CAST("));
        lake_quote_name(sql, lake_column_name(r->head, r->columns[i]));
        buf_add_str(sql, is_text(r, i) ? S(" AS VARCHAR)")
                         : instant     ? S(") AS DOUBLE)")
                                       : S(" AS DOUBLE)"));
        buf_printf(sql, " AS c%zu, ", i);
    }
    buf_add_str(sql, S("row_number() OVER ("));
    if (r->q->order_by.n) {
        buf_add_str(sql, S("ORDER BY "));
        lake_quote_name(sql, r->q->order_by);
    }
    buf_printf(sql, ") AS rn FROM " STR_F "), kept AS (SELECT * FROM numbered WHERE rn > %lld)",
               STR_A(buf_str(&r->source)), (long long)skip);
    buf_add_str(sql, S(" SELECT * FROM (SELECT * FROM kept"));
    if (rows - skip > (int64_t)max)
        buf_printf(sql, " USING SAMPLE reservoir(%zu ROWS) REPEATABLE (%llu)", max,
                   (unsigned long long)(r->q->seed & 0x7fffffff));
    buf_add_str(sql, S(") ORDER BY rn"));
}

/* --- Filling ---------------------------------------------------------------------------------- */

static NODISCARD int fill_row(struct reading *r, struct lake_result *from, struct texts *texts,
                              size_t row, struct err *e)
{
    for (size_t i = 0; i < r->count; i++) {
        double *to = &r->t->columns[i].values[row];
        int64_t index;

        if (!texts[i].list) {
            *to = lake_f64(from, i);
            continue;
        }
        if (lake_is_null(from, i)) {
            *to = NAN;
            continue;
        }
        index = texts_index(&texts[i], lake_text(from, i), &r->t->arena);
        if (index < 0)
            return FAIL(e, RESOURCE_EXHAUSTED,
                        "table %s: column '" STR_F "' has more than %u different texts", r->q->path,
                        STR_A(r->t->columns[i].name), TABLE_TEXTS_MAX);
        *to = (double)index;
    }
    return 0;
}

static NODISCARD int fill(struct reading *r, struct lake_result *from, struct texts *texts,
                          size_t cap, struct err *e)
{
    size_t rows = 0;

    while (lake_next(from) && rows < cap)
        TRY(fill_row(r, from, texts, rows++, e));
    r->t->row_count = rows;
    for (size_t i = 0; i < r->count; i++) {
        struct table_column *c = &r->t->columns[i];

        if (!texts[i].list)
            continue;
        c->text_count = texts[i].n;
        c->texts = ARENA_ARRAY(&r->t->arena, str, texts[i].n + 1);
        memcpy((void *)(uintptr_t)c->texts, texts[i].list, texts[i].n * sizeof(str));
    }
    return 0;
}

static NODISCARD int read_rows(struct reading *r, struct err *e)
{
    AUTO(lake_result_freep) struct lake_result *rows = NULL;
    AUTO(buf_done) struct buf sql = {0};
    struct texts *texts;
    size_t cap;
    int rc;

    buf_init(&sql, (size_t)4 << 20);
    buf_printf(&sql, "SELECT count(*) FROM " STR_F, STR_A(buf_str(&r->source)));
    TRY(lake_scalar_i64(r->lake, buf_z(&sql), NULL, 0, &r->t->source_rows, e));
    buf_clear(&sql);
    write_query(r, &sql, r->t->source_rows);
    if (sql.overflowed)
        return FAIL(e, INVALID_ARGUMENT, "table %s: a column name cannot be quoted", r->q->path);
    cap = MIN((size_t)r->t->source_rows, r->q->rows_max ? r->q->rows_max : TABLE_ROWS_MAX);
    if (r->count && cap > CELLS_OF_TABLE_MAX / r->count)
        return FAIL(e, RESOURCE_EXHAUSTED,
                    "table %s: %zu rows of %zu columns are more than this reads at once",
                    r->q->path, cap, r->count);
    TRY(lake_query(r->lake, buf_z(&sql), NULL, 0, &rows, e));
    r->t->columns = ARENA_ARRAY(&r->t->arena, struct table_column, r->count + 1);
    r->t->column_count = r->count;
    texts = ARENA_ARRAY(&r->t->arena, struct texts, r->count + 1);
    for (size_t i = 0; i < r->count; i++) {
        r->t->columns[i].name = arena_dup(&r->t->arena, lake_column_name(r->head, r->columns[i]));
        r->t->columns[i].values = ARENA_ARRAY(&r->t->arena, double, cap + 1);
        if (is_text(r, i))
            texts_grow(&texts[i]);
    }
    rc = fill(r, rows, texts, cap, e);
    for (size_t i = 0; i < r->count; i++)
        texts_done(&texts[i]);
    return rc;
}

int table_read(const struct table_query *q, struct table *ret, struct err *e)
{
    AUTO(reading_done) struct reading r = {.q = q};
    AUTO(table_done) struct table t = {0};
    struct lake_config cfg = {.threads = 1, .temp_dir = q->tmp_dir};
    bool typed = false;

    arena_init(&t.arena, 0);
    buf_init(&r.source, (size_t)1 << 20);
    r.t = &t;
    TRY(lake_open(&cfg, &r.lake, e));
    TRY(look(&r, false, e));
    for (size_t i = 0; i < q->as_text_count && !typed; i++)
        typed = head_find(&r, q->as_text[i]) == SIZE_MAX;
    if (q->as_text_count && !typed && str_eq(format_of(q), S("csv")))
        TRY(look(&r, true, e));
    TRY(choose(&r, &t.arena, e));
    TRY(read_rows(&r, e));
    *ret = t;
    t = (struct table){0};
    return 0;
}

int table_names(const char *path, str format, struct arena *a, str **ret_names, size_t *ret_n,
                struct err *e)
{
    struct table_query q = {.path = path, .format = format};
    AUTO(reading_done) struct reading r = {.q = &q};
    struct lake_config cfg = {.threads = 1};
    size_t n;
    str *names;

    buf_init(&r.source, (size_t)1 << 20);
    TRY(lake_open(&cfg, &r.lake, e));
    TRY(look(&r, false, e));
    n = lake_column_count(r.head);
    names = ARENA_ARRAY(a, str, n + 1);
    for (size_t c = 0; c < n; c++)
        names[c] = arena_dup(a, lake_column_name(r.head, c));
    *ret_names = names;
    *ret_n = n;
    return 0;
}
