/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pipeline over a file. The raw columns are read into memory, the program runs block by block,
 * and each row is written as CSV; DuckDB then makes Parquet or JSON lines of that, beside the
 * columns that are kept, which it takes from the table itself. A number is written with as many
 * digits as it takes to read the same one back.
 */
#include "registry/pipeline.h"

#include "base/files.h"
#include "base/num.h"
#include "base/random.h"
#include "registry/rows.h"
#include "store/lake/lake.h"

#include <math.h>

#define SQL_MAX ((size_t)4 << 20)
#define WRITE_BYTES ((size_t)1 << 20)

/* --- Rows in ---------------------------------------------------------------------------------- */

static bool is_text(const struct json *column)
{
    return str_eq(json_str_or(json_get(column, S("type")), S("double")), S("string"));
}

static str name_of(const struct json *column)
{
    return json_str_or(json_get(column, S("name")), S(""));
}

static bool is_among(str name, const str *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(names[i], name))
            return true;
    return false;
}

int rows_read(const struct json *document, const struct pipeline_source *source, const str *more,
              size_t more_count, struct table *ret, struct err *e)
{
    const struct json *list = json_get(document, S("columns"));
    AUTO(arena_done) struct arena a = {0};
    struct table_query q = {.path = source->path,
                            .format = source->format,
                            .rows_max = source->rows_max,
                            .seed = PIPELINE_SAMPLE_SEED,
                            .tmp_dir = source->tmp_dir};
    str *columns, *texts, *known;
    size_t known_count;

    arena_init(&a, 0);
    TRY(table_names(source->path, source->format, &a, &known, &known_count, e));
    columns = ARENA_ARRAY(&a, str, list->count + more_count + 1);
    texts = ARENA_ARRAY(&a, str, list->count + more_count + 1);
    q.columns = columns, q.as_text = texts;
    JSON_EACH (column, list) {
        if (!is_among(name_of(column), known, known_count))
            continue;
        columns[q.column_count++] = name_of(column);
        if (is_text(column))
            texts[q.as_text_count++] = name_of(column);
    }
    for (size_t i = 0; i < more_count; i++)
        columns[q.column_count++] = texts[q.as_text_count++] = more[i];
    if (!q.column_count)
        return FAIL(e, INVALID_ARGUMENT, "%s has none of the columns of the pipeline",
                    source->path);
    return table_read(&q, ret, e);
}

static NODISCARD int values_of(const struct json *column, struct table *t,
                               struct pipeline_values *ret, struct err *e)
{
    const struct table_column *from = table_find(t, name_of(column));
    double *numbers;
    str *texts;

    if (from && is_text(column) != (from->texts != NULL) && t->row_count)
        return FAIL(e, INVALID_ARGUMENT, "column '" STR_F "' holds %s, the pipeline takes %s",
                    STR_A(name_of(column)), from->texts ? "texts" : "numbers",
                    from->texts ? "numbers" : "texts");
    if (!is_text(column)) {
        ret->numbers = from ? from->values : NULL;
        if (from)
            return 0;
        ret->numbers = numbers = ARENA_ARRAY(&t->arena, double, t->row_count + 1);
        for (size_t i = 0; i < t->row_count; i++)
            numbers[i] = (double)NAN;
        return 0;
    }
    ret->texts = texts = ARENA_ARRAY(&t->arena, str, t->row_count + 1);
    for (size_t i = 0; from && i < t->row_count; i++)
        if (!isnan(from->values[i]))
            texts[i] = from->texts[(uint32_t)from->values[i]];
    return 0;
}

int rows_values(const struct json *document, struct table *t, struct pipeline_values **ret,
                struct err *e)
{
    const struct json *list = json_get(document, S("columns"));
    struct pipeline_values *values =
        ARENA_ARRAY(&t->arena, struct pipeline_values, list->count + 1);
    size_t n = 0;

    *ret = values;
    JSON_EACH (column, list)
        TRY(values_of(column, t, &values[n++], e));
    return 0;
}

/* --- Rows out --------------------------------------------------------------------------------- */

struct writer {
    int fd;
    uint64_t at;
    struct buf out;
};

static void writer_done(struct writer *w)
{
    file_close(w->fd);
    buf_done(&w->out);
}

static NODISCARD int writer_flush(struct writer *w, struct err *e)
{
    TRY(file_pwrite_all(w->fd, w->out.p, w->out.n, w->at, e));
    w->at += w->out.n;
    buf_clear(&w->out);
    return 0;
}

/* A text as RFC 4180 writes it; an empty one, which is a missing one, as nothing. */
static void put_text(struct buf *out, str text)
{
    if (!text.n)
        return;
    buf_add_char(out, '"');
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '"')
            buf_add_char(out, '"');
        buf_add_char(out, text.p[i]);
    }
    buf_add_char(out, '"');
}

static void put_number(struct buf *out, double v)
{
    char text[NUM_TEXT_MAX];

    if (isfinite(v))
        buf_add_str(out, (str){text, num_f64_text(v, text)});
    else if (!isnan(v))
        buf_add_str(out, v > 0 ? S("inf") : S("-inf"));
}

static void put_row(struct buf *out, const struct pipeline *p, const struct pipeline_work *w,
                    uint32_t row)
{
    for (uint32_t c = 0; c < p->output_count; c++) {
        if (c)
            buf_add_char(out, ',');
        if (p->outputs[c].type == PIPELINE_TEXT)
            put_text(out, pipeline_texts(w, p->outputs[c].at)[row]);
        else
            put_number(out, pipeline_numbers(w, p->outputs[c].at)[row]);
    }
}

struct transform {
    const struct pipeline_source *source;
    const str *keep;
    size_t keep_count;
    struct arena a; /* owned */
    struct pipeline *p;
    struct table t; /* owned */
    struct pipeline_values *values;
};

static void transform_done(struct transform *f)
{
    table_done(&f->t);
    arena_done(&f->a);
}

/* The rows as CSV, the kept columns as texts behind when `with_keep`. */
static NODISCARD int write_csv(struct transform *f, const char *to, bool with_keep, struct err *e)
{
    AUTO(writer_done) struct writer w = {.fd = -1};
    size_t keep_count = with_keep ? f->keep_count : 0;
    struct pipeline_work work;

    pipeline_work_init(&work, f->p, &f->a);
    buf_init(&w.out, BUF_MAX_DEFAULT);
    TRY(file_open(to, FILE_EXCLUSIVE, &w.fd, e));
    for (uint32_t c = 0; c < f->p->output_count; c++) {
        buf_add_str(&w.out, c ? S(",") : S(""));
        put_text(&w.out, f->p->outputs[c].name);
    }
    for (size_t k = 0; k < keep_count; k++) {
        buf_add_char(&w.out, ',');
        put_text(&w.out, f->keep[k]);
    }
    buf_add_char(&w.out, '\n');
    for (size_t at = 0; at < f->t.row_count; at += PIPELINE_BLOCK_ROWS) {
        uint32_t rows = (uint32_t)MIN(f->t.row_count - at, (size_t)PIPELINE_BLOCK_ROWS);

        TRY(pipeline_run(f->p, &work, f->values, at, rows, e));
        for (uint32_t i = 0; i < rows; i++) {
            put_row(&w.out, f->p, &work, i);
            for (size_t k = 0; k < keep_count; k++) {
                buf_add_char(&w.out, ',');
                put_text(&w.out, table_text(table_find(&f->t, f->keep[k]), at + i, &f->a));
            }
            buf_add_char(&w.out, '\n');
        }
        if (w.out.n > WRITE_BYTES)
            TRY(writer_flush(&w, e));
    }
    TRY(writer_flush(&w, e));
    return w.out.overflowed ? FAIL(e, RESOURCE_EXHAUSTED, "a row is too long") : 0;
}

/* --- Other formats ---------------------------------------------------------------------------- */

static void add_source(const struct pipeline_source *s, struct buf *sql)
{
    bool parquet = str_eq(s->format, S("parquet")) || str_ends(str_of(s->path), S(".parquet"));

    buf_add_str(sql, parquet ? S("read_parquet(")
                     : str_eq(s->format, S("jsonl")) || str_ends(str_of(s->path), S(".jsonl"))
                         ? S("read_json_auto(")
                         : S("read_csv_auto("));
    lake_quote_text(sql, str_of(s->path));
    buf_add_char(sql, ')');
}

/* The CSV with its types, beside the kept columns of the table, row by row. */
static NODISCARD int copy_from(struct transform *f, const char *csv, const char *to, bool parquet,
                               struct err *e)
{
    AUTO(lake_closep) struct lake *l = NULL;
    AUTO(buf_done) struct buf sql = {0};

    buf_init(&sql, SQL_MAX);
    buf_add_str(&sql, S("COPY (SELECT * FROM read_csv("));
    lake_quote_text(&sql, str_of(csv));
    buf_add_str(&sql, S(", header=true, columns={"));
    for (uint32_t c = 0; c < f->p->output_count; c++) {
        buf_add_str(&sql, c ? S(", ") : S(""));
        lake_quote_text(&sql, f->p->outputs[c].name);
        buf_add_str(&sql,
                    f->p->outputs[c].type == PIPELINE_TEXT ? S(": 'VARCHAR'") : S(": 'DOUBLE'"));
    }
    buf_add_str(&sql, S("})"));
    if (f->keep_count) {
        buf_add_str(&sql, S(" POSITIONAL JOIN (SELECT "));
        for (size_t k = 0; k < f->keep_count; k++) {
            buf_add_str(&sql, k ? S(", ") : S(""));
            lake_quote_name(&sql, f->keep[k]);
        }
        buf_add_str(&sql, S(" FROM "));
        add_source(f->source, &sql);
        buf_add_char(&sql, ')');
    }
    buf_add_str(&sql, S(") TO "));
    lake_quote_text(&sql, str_of(to));
    buf_add_str(&sql, parquet ? S(" (FORMAT parquet)") : S(" (FORMAT json)"));
    TRY(lake_open(&(struct lake_config){.temp_dir = f->source->tmp_dir, .threads = 1}, &l, e));
    return lake_exec(l, buf_z(&sql), e);
}

static NODISCARD int write_other(struct transform *f, const char *to, bool parquet, struct err *e)
{
    const char *csv = arena_printf(&f->a, "%s.%016llx.csv", to, (unsigned long long)random_u64()).p;
    struct err later;
    int rc = write_csv(f, csv, false, e);

    if (!rc)
        rc = copy_from(f, csv, to, parquet, e);
    if (file_remove(csv, rc ? &later : e) && !rc)
        return err_nonzero((int)e->code);
    return rc;
}

int pipeline_transform(const struct json *document, const struct pipeline_source *source,
                       const str *keep, size_t keep_count, const char *to, int64_t *ret_rows,
                       struct err *e)
{
    AUTO(transform_done)
    struct transform f = {.source = source, .keep = keep, .keep_count = keep_count};
    bool parquet = str_ends(str_of(to), S(".parquet"));

    arena_init(&f.a, 0);
    TRY(pipeline_read(document, NULL, &f.a, &f.p, e));
    TRY(rows_read(document, source, keep, keep_count, &f.t, e));
    if ((size_t)f.t.source_rows > f.t.row_count)
        return FAIL(e, RESOURCE_EXHAUSTED, "%s has %lld rows, more than the %zu that fit in memory",
                    source->path, (long long)f.t.source_rows, f.t.row_count);
    TRY(rows_values(document, &f.t, &f.values, e));
    for (size_t k = 0; k < keep_count; k++)
        for (uint32_t c = 0; c < f.p->output_count; c++)
            if (str_eq_nocase(keep[k], f.p->outputs[c].name))
                return FAIL(e, INVALID_ARGUMENT, "column '" STR_F "' is kept and also made",
                            STR_A(keep[k]));
    *ret_rows = (int64_t)f.t.row_count;
    if (parquet || str_ends(str_of(to), S(".jsonl")) || str_ends(str_of(to), S(".ndjson")))
        return write_other(&f, to, parquet, e);
    return write_csv(&f, to, true, e);
}
