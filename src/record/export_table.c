/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records as rows of a DuckDB table.
 *
 * One table per schema of a segment, because the columns differ, and one for feedback. The order of
 * the append calls below must be that of the columns in EXPORT_FIXED_COLUMNS and FEEDBACK_COLUMNS;
 * the appender asserts that a row is complete.
 */
#include "record/export_table.h"

#include "base/hash.h"

#define FEEDBACK_COLUMNS                                                              \
    "request_id VARCHAR, ts TIMESTAMP, event_ts TIMESTAMP, \"row\" INTEGER, "         \
    "label_text VARCHAR, label_number DOUBLE, rating SMALLINT, outcome VARCHAR, "     \
    "value DOUBLE, error BOOLEAN, comment VARCHAR, item VARCHAR, user_hash VARCHAR, " \
    "gateway VARCHAR"

static const char *const fixed_names[] = {"request_id", "ts",         "model_version", "arm",
                                          "shadow",     "status",     "latency_us",    "user_hash",
                                          "flags",      "gateway",    "row",           "endpoint",
                                          "dt",         "label_text", "label_number",  "label_ts"};

static const char *const sql_types[] = {
#define RECORD_TYPE(name, text, bytes, align, duck) duck,
#include "record/types.def"
#undef RECORD_TYPE
};

static const struct {
    const char *text;
    unsigned bit;
} flags[] = {
#define RECORD_FLAG(name, bit, text, help) {text, bit},
#include "record/flags.def"
#undef RECORD_FLAG
};

static const char *const outcomes[] = {
#define RECORD_OUTCOME(name, text, help) text,
#include "record/outcomes.def"
#undef RECORD_OUTCOME
};

/* --- Columns ------------------------------------------------------------------------------- */

static bool same_name(str a, str b) /* as DuckDB compares them */
{
    return str_eq_nocase(a, b);
}

static bool is_taken(const str *names, uint32_t n, str name)
{
    for (size_t i = 0; i < ARRAY_LEN(fixed_names); i++)
        if (same_name(name, str_of(fixed_names[i])))
            return true;
    for (uint32_t i = 0; i < n; i++)
        if (same_name(name, names[i]))
            return true;
    return false;
}

static bool is_target(const struct record_schema *s, uint32_t column)
{
    uint32_t first = s->feature_count + s->target_at;
    uint32_t width = s->target == RECORD_TARGET_ARGMAX ? s->class_count : 1;

    return s->target != RECORD_TARGET_NONE && column >= first && column < first + width;
}

str export_feature_column(str name, const str *before, uint32_t n, struct arena *a)
{
    while (is_taken(before, n, name))
        name = arena_printf(a, "feature_" STR_F, STR_A(name));
    return name;
}

/* The name of a column in Parquet; `names` are those before it. */
static str column_name(const struct record_schema *s, uint32_t i, const str *names, struct arena *a)
{
    str name = s->columns[i].name;
    const char *prefix = is_target(s, i) ? "prediction_" : "output_";

    if (i < s->feature_count)
        return export_feature_column(name, names, i, a);
    name = arena_printf(a, "%s" STR_F, prefix, STR_A(name));
    while (is_taken(names, i, name))
        name = arena_printf(a, "%s" STR_F, prefix, STR_A(name));
    return name;
}

static void record_columns(const struct record_schema *s, struct arena *a, struct buf *sql)
{
    str *names = ARENA_ARRAY(a, str, s->column_count + 1);

    buf_add_str(sql, S(EXPORT_FIXED_COLUMNS));
    for (uint32_t i = 0; i < s->column_count; i++) {
        names[i] = column_name(s, i, names, a);
        buf_add_str(sql, S(", "));
        lake_quote_name(sql, names[i]);
        buf_printf(sql, " %s", sql_types[s->columns[i].type]);
    }
}

int export_table_open(struct export_table *t, struct lake *l, const struct record_schema *s,
                      struct arena *a, struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};

    buf_init(&sql, (size_t)4 << 20);
    *t = (struct export_table){.schema = s};
    t->name = s ? arena_printf(a, "weir_export_%u", s->id) : S("weir_export_feedback");
    buf_printf(&sql, "CREATE OR REPLACE TEMP TABLE " STR_F " (", STR_A(t->name));
    if (s)
        record_columns(s, a, &sql);
    else
        buf_add_str(&sql, S(FEEDBACK_COLUMNS));
    buf_add_str(&sql, S(")"));
    if (sql.overflowed)
        return FAIL(e, INVALID_ARGUMENT, "the columns of '" STR_F "' are too long for a statement",
                    STR_A(s ? s->endpoint : S("feedback")));
    TRY(lake_exec(l, buf_z(&sql), e));
    return lake_appender_open(l, t->name, &t->appender, e);
}

/* --- Rows ---------------------------------------------------------------------------------- */

static void append_user(struct lake_appender *to, const struct record_head *h)
{
    static const unsigned char none[RECORD_USER_BYTES];
    char hex[2 * RECORD_USER_BYTES + 1];

    if (memcmp(h->user, none, sizeof none) == 0) {
        lake_append_null(to);
        return;
    }
    hex_encode(h->user, sizeof h->user, hex);
    lake_append_text(to, str_of(hex));
}

static void append_flags(struct lake_appender *to, unsigned bits)
{
    char text[256];
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        size_t len = strlen(flags[i].text);

        if (!(bits >> flags[i].bit & 1) || n + len + 1 > sizeof text)
            continue;
        if (n)
            text[n++] = ',';
        memcpy(text + n, flags[i].text, len);
        n += len;
    }
    lake_append_text(to, n ? (str){text, n} : STR_NULL);
}

static void append_fixed(struct export_table *t, const struct record_head *h, str gateway)
{
    struct lake_appender *to = t->appender;

    lake_append_text(to, record_request_id(h));
    lake_append_time(to, h->wall_ns);
    lake_append_text(to, t->schema->version);
    lake_append_i64(to, h->arm);
    lake_append_bool(to, h->kind == RECORD_SHADOW);
    lake_append_i64(to, h->http_status);
    lake_append_i64(to, h->latency_us);
    append_user(to, h);
    append_flags(to, h->flags);
    lake_append_text(to, gateway);
}

static void append_values(struct export_table *t, const unsigned char *row)
{
    const struct record_schema *s = t->schema;

    for (uint32_t i = 0; i < s->column_count; i++) {
        if (!row) {
            lake_append_null(t->appender);
        } else if (s->columns[i].type == RECORD_STR) {
            lake_append_text(t->appender, record_row_text(s, i, row));
        } else if (s->columns[i].type == RECORD_I64) { /* not through a double: 64 bits count */
            int64_t v;

            memcpy(&v, row + s->columns[i].at, sizeof v);
            if (v == RECORD_I64_MISSING)
                lake_append_null(t->appender);
            else
                lake_append_i64(t->appender, v);
        } else {
            lake_append_f64(t->appender, record_row_number(s, i, row));
        }
    }
}

static NODISCARD int add_rows(struct export_table *t, const struct record_head *h, str gateway,
                              struct err *e)
{
    const unsigned char *row = record_rows(h);

    if (!h->row_count) {
        append_fixed(t, h, gateway);
        lake_append_null(t->appender);
        append_values(t, NULL);
        t->rows++;
        return lake_append_row(t->appender, e);
    }
    for (uint32_t i = 0; i < h->row_count; i++) {
        append_fixed(t, h, gateway);
        lake_append_i64(t->appender, (int64_t)h->row_first + i);
        append_values(t, row);
        TRY(lake_append_row(t->appender, e));
        t->rows++;
        row = record_row_after(t->schema, row);
    }
    return 0;
}

static void append_text_or_null(struct lake_appender *to, str s)
{
    lake_append_text(to, s.n ? s : STR_NULL);
}

static NODISCARD int add_feedback(struct export_table *t, const struct record_head *h, str gateway,
                                  struct err *e)
{
    const struct record_feedback *f = record_feedback_of(h);
    struct lake_appender *to = t->appender;
    double none = __builtin_nan("");

    lake_append_text(to, record_request_id(h));
    lake_append_time(to, h->wall_ns);
    lake_append_time(to, f->event_ns);
    lake_append_i64(to, f->row);
    append_text_or_null(to, record_feedback_label(f));
    lake_append_f64(to, f->has & RECORD_HAS_LABEL_NUMBER ? f->label : none);
    lake_append_f64(to, f->has & RECORD_HAS_RATING ? f->rating : none);
    lake_append_text(to, f->outcome ? str_of(outcomes[f->outcome]) : STR_NULL);
    lake_append_f64(to, f->has & RECORD_HAS_VALUE ? f->value : none);
    lake_append_bool(to, (f->has & RECORD_HAS_ERROR) != 0);
    append_text_or_null(to, record_feedback_comment(f));
    append_text_or_null(to, record_feedback_item(f));
    append_user(to, h);
    lake_append_text(to, gateway);
    t->rows++;
    return lake_append_row(to, e);
}

int export_table_add(struct export_table *t, const struct record_head *h, str gateway,
                     struct err *e)
{
    return t->schema ? add_rows(t, h, gateway, e) : add_feedback(t, h, gateway, e);
}

int export_table_finish(struct export_table *t, struct err *e)
{
    TRY(lake_appender_flush(t->appender, e));
    lake_appender_free(t->appender);
    t->appender = NULL;
    return 0;
}

void export_table_done(struct export_table *t)
{
    lake_appender_free(t->appender);
    t->appender = NULL;
}
