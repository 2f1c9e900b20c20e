/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data of a run, frozen as three Parquet files in its folder before anything is trained:
 *
 *   train.parquet      what the trainer sees: the model's dataset (if the project says so) and the
 *                      labelled records of the window, without the holdout
 *   holdout.parquet    what the gate judges by; never trained on
 *   reference.parquet  what the new version's monitor will call normal
 *
 * Columns: the features under their names, the label (text; of a regression, a number) under the
 * name that the project gives it, `__ts` (of the request, or of the dataset's time column, or
 * NULL). Rows are in order of time, those without one first.
 *
 * The holdout of ordinary runs is the latest share of the rows, since a model must be good at what
 * comes next. After a change (drift) it is a share of the rows since the change, drawn by a hash of
 * the request id: there is no older past from which the change could be learnt, so both sides need
 * some of it, and the rows of one request must not lie on both. The reference is, after a change,
 * the rows since it; else all of the training data.
 *
 * manifest.json, written last, names the files with rows, bytes and SHA-256; its own hash is the
 * version of the data. Where it is, the snapshot is complete and is not made again.
 *
 * A class is text: 3, 3.0 and "3" are the same one.
 */
#include "retrain/priv.h"

#include "record/export.h"

#define MANIFEST "manifest.json"
#define AHEAD_NS (60 * NS_PER_S) /* dates of gateways and of control may differ by that */
#define SQL_MAX ((size_t)8 << 20)

struct maker {
    struct run *r;
    struct lake *l;
    const struct json *dataset; /* or NULL: not used in this run */
    bool include;               /* train on it, too, when there are records */
    struct feature *features;
    size_t feature_count;
    double holdout;
    bool records, after_change;
    bool label_is_bool; /* in the dataset; feedback knows only numbers */
};

static const char *const parts[] = {SNAPSHOT_TRAIN, SNAPSHOT_HOLDOUT, SNAPSHOT_REFERENCE};

/* --- Columns ---------------------------------------------------------------------------------- */

static const char *sql_type(str type)
{
    static const struct {
        const char *type, *sql;
    } types[] = {{"float", "DOUBLE"},
                 {"double", "DOUBLE"},
                 {"int", "BIGINT"},
                 {"bool", "BOOLEAN"},
                 {"string", "VARCHAR"}};

    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (str_eqz(type, types[i].type))
            return types[i].sql;
    return NULL;
}

/* `column` of some table becomes the feature; STR_NULL: the table has none. */
static void add_feature(struct buf *sql, const struct feature *f, str column, const char *cast)
{
    const char *type = sql_type(f->type);

    if (!column.p) {
        buf_printf(sql, "CAST(NULL AS %s)", type ? type : "DOUBLE");
    } else if (type) {
        buf_printf(sql, "%s(", cast);
        lake_quote_name(sql, column);
        buf_printf(sql, " AS %s)", type);
    } else {
        lake_quote_name(sql, column);
    }
    buf_add_str(sql, S(" AS "));
    lake_quote_name(sql, f->name);
    buf_add_str(sql, S(", "));
}

static void add_names(struct buf *sql, const struct maker *k)
{
    for (size_t i = 0; i < k->feature_count; i++) {
        lake_quote_name(sql, k->features[i].name);
        buf_add_str(sql, S(", "));
    }
}

/* The class that a number means: 3.0 is "3". */
static void add_class_of_number(struct buf *sql, str number)
{
    buf_printf(sql,
               "CASE WHEN abs(" STR_F ") < 9007199254740992 AND " STR_F " = floor(" STR_F ")"
               " THEN CAST(CAST(" STR_F " AS BIGINT) AS VARCHAR)"
               " ELSE CAST(" STR_F " AS VARCHAR) END",
               STR_A(number), STR_A(number), STR_A(number), STR_A(number), STR_A(number));
}

/* Names and types of what a query gives, as DuckDB writes them. */
struct columns {
    str *names, *types;
    size_t n;
};

static NODISCARD int describe(struct maker *k, str query, struct columns *ret, struct err *e)
{
    AUTO(lake_result_freep) struct lake_result *res = NULL;
    AUTO(buf_done) struct buf sql = {0};
    struct arena *a = k->r->a;
    size_t room = 0;

    buf_init(&sql, SQL_MAX);
    buf_add_str(&sql, S("SELECT column_name, column_type FROM (DESCRIBE "));
    buf_add_str(&sql, query);
    buf_add_char(&sql, ')');
    TRY(lake_query(k->l, buf_z(&sql), NULL, 0, &res, e));
    *ret = (struct columns){0};
    while (lake_next(res)) {
        if (ret->n == room) {
            str *names = ARENA_ARRAY(a, str, room * 2 + 64),
                *types = ARENA_ARRAY(a, str, room * 2 + 64);

            for (size_t i = 0; i < ret->n; i++) {
                names[i] = ret->names[i];
                types[i] = ret->types[i];
            }
            ret->names = names;
            ret->types = types;
            room = room * 2 + 64;
        }
        ret->names[ret->n] = arena_dup(a, lake_text(res, 0));
        ret->types[ret->n++] = arena_dup(a, lake_text(res, 1));
    }
    return 0;
}

/* As DuckDB compares names. */
static str find_column(const struct columns *c, str name, str *ret_type)
{
    for (size_t i = 0; i < c->n; i++)
        if (str_eq_nocase(c->names[i], name)) {
            if (ret_type)
                *ret_type = c->types[i];
            return c->names[i];
        }
    return STR_NULL;
}

/* --- Records ---------------------------------------------------------------------------------- */

/* New records first: sealed segments become Parquet. Another exporter at work is a reason to retry.
 */
static NODISCARD int export_records(struct maker *k, struct err *e)
{
    struct export_result result = {0};
    struct run *r = k->r;
    const char *segments = arena_printf(r->a, "%s/records", r->env->state_dir).p;

    if (!file_exists(segments)) /* no gateway has been here yet */
        return 0;
    return export_run(
        &(struct export_config){
            .segments = segments,
            .lake = arena_printf(r->a, "%s/lake", r->env->state_dir).p,
            .keep_segments_ns = INT64_C(3600) * NS_PER_S,
        },
        k->l, time_wall_ns(), &result, e);
}

static NODISCARD int has_files(struct maker *k, str pattern, bool *ret, struct err *e)
{
    int64_t n;

    TRY(lake_scalar_i64(k->l, "SELECT count(*) FROM glob($1)",
                        (struct lake_value[]){LAKE_V_TEXT(pattern)}, 1, &n, e));
    *ret = n > 0;
    return 0;
}

static void add_record_label(struct maker *k, struct buf *sql)
{
    if (k->r->regression) {
        buf_add_str(sql, S("COALESCE(label_number, TRY_CAST(label_text AS DOUBLE))"));
        return;
    }
    if (k->label_is_bool)
        buf_add_str(sql, S("CASE WHEN label_number = 1 THEN 'true' WHEN label_number = 0 THEN "
                           "'false' ELSE "));
    buf_add_str(sql, S("COALESCE(label_text, "));
    add_class_of_number(sql, S("label_number"));
    buf_add_str(sql, k->label_is_bool ? S(") END") : S(")"));
}

static NODISCARD int create_records(struct maker *k, str query, struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};
    str *before = ARENA_ARRAY(k->r->a, str, k->feature_count + 1);
    struct columns c;

    TRY(describe(k, query, &c, e));
    buf_init(&sql, SQL_MAX);
    buf_add_str(&sql, S("CREATE TABLE records AS SELECT * FROM (SELECT "));
    for (size_t i = 0; i < k->feature_count; i++) {
        before[i] = export_feature_column(k->features[i].name, before, (uint32_t)i, k->r->a);
        add_feature(&sql, &k->features[i], find_column(&c, before[i], NULL), "TRY_CAST");
    }
    add_record_label(k, &sql);
    buf_add_str(&sql, S(" AS __label, ts AS __ts, hash(request_id) AS __hash,"
                        " row_number() OVER (ORDER BY ts, request_id, \"row\") AS __at FROM ("));
    buf_add_str(&sql, query);
    buf_add_str(&sql, k->r->regression ? S(")) WHERE isfinite(__label)")
                                       : S(")) WHERE __label IS NOT NULL"));
    if (sql.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the query for the records of '" STR_F "' is too long",
                    STR_A(k->r->endpoint));
    return lake_exec(k->l, buf_z(&sql), e);
}

static NODISCARD int load_records(struct maker *k, int64_t *ret_rows, struct err *e)
{
    AUTO(buf_done) struct buf query = {0};
    struct run *r = k->r;
    str lake = arena_printf(r->a, "%s/lake", r->env->state_dir);
    int64_t window = json_int_or(json_path(r->model, "retrain.window_ns"), INT64_MAX);
    int64_t now = time_wall_ns();
    bool records, labels;
    int rc;

    *ret_rows = 0;
    TRY(has_files(k,
                  arena_printf(r->a, STR_F "/records/endpoint=" STR_F "/dt=*/*.parquet",
                               STR_A(lake), STR_A(r->endpoint)),
                  &records, e));
    TRY(has_files(k, arena_printf(r->a, STR_F "/feedback/dt=*/*.parquet", STR_A(lake)), &labels,
                  e));
    if (!records || !labels)
        return 0;
    buf_init(&query, SQL_MAX);
    /* Rows of days to come are from before the date was put back: nobody knows their order. */
    TRY(record_training_query(lake.p, r->endpoint, window < now ? now - window : 0, now + AHEAD_NS,
                              &query, e));
    rc = create_records(k, buf_str(&query), e);
    if (rc == CODE_NOT_FOUND) /* merged into a larger file under our feet: look again */
        return FAIL(e, UNAVAILABLE, "the records of '" STR_F "' were being compacted",
                    STR_A(r->endpoint));
    if (rc)
        return rc;
    return lake_scalar_i64(k->l, "SELECT count(*) FROM records", NULL, 0, ret_rows, e);
}

/* --- Dataset ---------------------------------------------------------------------------------- */

static bool is_number(str type)
{
    static const str numbers[] = {S_INIT("DOUBLE"),  S_INIT("FLOAT"),    S_INIT("BIGINT"),
                                  S_INIT("INTEGER"), S_INIT("SMALLINT"), S_INIT("TINYINT"),
                                  S_INIT("HUGEINT"), S_INIT("UBIGINT"),  S_INIT("UINTEGER")};

    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (str_eq(type, numbers[i]))
            return true;
    return str_starts(type, S("DECIMAL"));
}

static str quoted(struct maker *k, str name)
{
    AUTO(buf_done) struct buf b = {0};

    buf_init(&b, SQL_MAX);
    lake_quote_name(&b, name);
    return arena_dup(k->r->a, buf_str(&b));
}

static void add_dataset_label(struct maker *k, struct buf *sql, str column, str type)
{
    str name = quoted(k, column);

    k->label_is_bool = str_eq(type, S("BOOLEAN"));
    if (k->r->regression)
        buf_printf(sql, "CAST(" STR_F " AS DOUBLE)", STR_A(name));
    else if (is_number(type))
        add_class_of_number(sql, arena_printf(k->r->a, "CAST(" STR_F " AS DOUBLE)", STR_A(name)));
    else
        buf_printf(sql, "regexp_replace(CAST(" STR_F " AS VARCHAR), '^(-?[0-9]+)[.]0+$', '\\1')",
                   STR_A(name));
}

/* Numbers are seconds since 1970. */
static void add_dataset_time(struct maker *k, struct buf *sql, str column, str type)
{
    str name = column.p ? quoted(k, column) : STR_NULL;

    if (!column.p)
        buf_add_str(sql, S("CAST(NULL AS TIMESTAMP)"));
    else if (is_number(type))
        buf_printf(sql, "make_timestamp(CAST(" STR_F " * 1000000 AS BIGINT))", STR_A(name));
    else
        buf_printf(sql, "CAST(" STR_F " AS TIMESTAMP)", STR_A(name));
}

static NODISCARD int need_column(struct maker *k, const struct columns *c, str name, str *ret_type,
                                 struct err *e)
{
    if (find_column(c, name, ret_type).p)
        return 0;
    return FAIL(e, INVALID_ARGUMENT, "dataset '" STR_F "' has no column '" STR_F "'",
                STR_A(k->dataset->key), STR_A(name));
}

static NODISCARD int load_dataset(struct maker *k, struct err *e)
{
    AUTO(buf_done) struct buf sql = {0}, source = {0};
    str label = json_str_or(json_get(k->r->model, S("label")), S(""));
    str time = json_str_or(json_get(k->dataset, S("time")), STR_NULL);
    str label_type = S(""), time_type = S("");
    struct columns c;

    buf_init(&source, SQL_MAX);
    buf_add_str(&source, S("SELECT * FROM "));
    run_dataset_source(k->r, k->dataset, &source);
    TRY(describe(k, buf_str(&source), &c, e));
    TRY(need_column(k, &c, label, &label_type, e));
    if (time.n)
        TRY(need_column(k, &c, time, &time_type, e));
    buf_init(&sql, SQL_MAX);
    buf_add_str(&sql, S("CREATE TABLE dataset AS SELECT *, hash(__at) AS __hash FROM (SELECT "));
    for (size_t i = 0; i < k->feature_count; i++) {
        TRY(need_column(k, &c, k->features[i].name, NULL, e));
        add_feature(&sql, &k->features[i], k->features[i].name, "CAST");
    }
    add_dataset_label(k, &sql, label, label_type);
    buf_add_str(&sql, S(" AS __label, "));
    add_dataset_time(k, &sql, time.n ? time : STR_NULL, time_type);
    buf_add_str(&sql, S(" AS __ts, row_number() OVER () AS __at FROM ("));
    buf_add_str(&sql, buf_str(&source));
    buf_add_str(&sql, S(")) WHERE __label IS NOT NULL"));
    return lake_exec(k->l, buf_z(&sql), e);
}

/* --- Parts ------------------------------------------------------------------------------------ */

/* Marks the holdout: a column __held of the table it is taken from. */
static NODISCARD int mark_holdout(struct maker *k, struct err *e)
{
    const char *table = k->records ? "records" : "dataset";
    int permyriad = (int)(k->holdout * 10000 + 0.5);

    TRY(lake_execf(k->l, e, "ALTER TABLE %s ADD COLUMN __held BOOLEAN DEFAULT false", table));
    if (k->after_change)
        return lake_execf(k->l, e,
                          "UPDATE records SET __held = (__ts >= make_timestamp(%lld) AND"
                          " __hash %% 10000 < %d)",
                          (long long)(k->r->changed_ns / NS_PER_US), permyriad);
    return lake_execf(k->l, e,
                      "UPDATE %s SET __held = CASE WHEN __ts IS NULL THEN __hash %% 10000 < %d"
                      " ELSE __ts > (SELECT quantile_cont(__ts, %.6f) FROM %s) END",
                      table, permyriad, 1 - k->holdout, table);
}

static NODISCARD int write_part(struct maker *k, const char *file, const char *where, bool dataset,
                                int64_t *ret_rows, struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};
    const char *table = k->records ? "records" : "dataset";

    buf_init(&sql, SQL_MAX);
    buf_add_str(&sql, S("SELECT "));
    add_names(&sql, k);
    buf_add_str(&sql, S("__label AS "));
    lake_quote_name(&sql, run_label(k->r));
    /* The registry takes every column of the reference but the label for a feature. */
    buf_add_str(&sql, strcmp(file, SNAPSHOT_REFERENCE) == 0 ? S(" FROM (") : S(", __ts FROM ("));
    if (dataset && k->records) {
        buf_add_str(&sql, S("SELECT "));
        add_names(&sql, k);
        buf_add_str(&sql, S("__label, __ts, __at, 0 AS __source FROM dataset UNION ALL "));
    }
    buf_add_str(&sql, S("SELECT "));
    add_names(&sql, k);
    buf_printf(&sql,
               "__label, __ts, __at, 1 AS __source FROM %s WHERE %s)"
               " ORDER BY __source, __ts NULLS FIRST, __at",
               table, where);
    if (sql.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the query for %s is too long", file);
    TRY(lake_write_parquet(k->l, buf_z(&sql), run_path(k->r, file), e));
    return lake_scalar_i64(k->l, "SELECT count(*) FROM read_parquet($1)",
                           (struct lake_value[]){LAKE_V_TEXT(str_of(run_path(k->r, file)))}, 1,
                           ret_rows, e);
}

static NODISCARD int write_parts(struct maker *k, struct snapshot *ret, struct err *e)
{
    bool both = k->dataset && k->include;
    str since = arena_printf(k->r->a, "__ts >= make_timestamp(%lld)",
                             (long long)(k->r->changed_ns / NS_PER_US));

    TRY(write_part(k, SNAPSHOT_TRAIN, "NOT __held", both, &ret->train_rows, e));
    TRY(write_part(k, SNAPSHOT_HOLDOUT, "__held", false, &ret->holdout_rows, e));
    return write_part(k, SNAPSHOT_REFERENCE, k->after_change ? since.p : "NOT __held", false,
                      &ret->reference_rows, e);
}

/* --- The manifest ----------------------------------------------------------------------------- */

static NODISCARD int add_file(struct maker *k, struct json *files, const char *name, int64_t rows,
                              struct err *e)
{
    struct json *o = json_set(files, str_of(name), json_new_object(k->r->a));
    char hash[SHA256_HEX_SIZE];

    TRY(sha256_file_hex(run_path(k->r, name), hash, e));
    json_set_int(k->r->a, o, S("rows"), rows);
    json_set_str(k->r->a, o, S("sha256"), arena_dup(k->r->a, str_of(hash)));
    return 0;
}

static NODISCARD int write_manifest(struct maker *k, struct snapshot *s, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct arena *a = k->r->a;
    struct json *o = json_new_object(a), *files, *features;

    json_set_int(a, o, S("format"), 1);
    json_set_str(a, o, S("model"), k->r->model_name);
    json_set_str(a, o, S("endpoint"), k->r->endpoint);
    json_set_str(a, o, S("label"), run_label(k->r));
    json_set_int(a, o, S("changed_ns"), k->r->changed_ns);
    json_set_int(a, o, S("record_rows"), s->record_rows);
    json_set_bool(a, o, S("dataset"), k->dataset != NULL);
    features = json_set(o, S("features"), json_new_array(a));
    for (size_t i = 0; i < k->feature_count; i++)
        json_push(features, json_new_str(a, k->features[i].name));
    files = json_set(o, S("files"), json_new_object(a));
    TRY(add_file(k, files, SNAPSHOT_TRAIN, s->train_rows, e));
    TRY(add_file(k, files, SNAPSHOT_HOLDOUT, s->holdout_rows, e));
    TRY(add_file(k, files, SNAPSHOT_REFERENCE, s->reference_rows, e));
    buf_init(&text, SQL_MAX);
    json_write_canonical(&text, o);
    sha256_hex(buf_str(&text), s->hash);
    return file_replace(run_path(k->r, MANIFEST), buf_str(&text), e);
}

static NODISCARD int read_manifest(struct run *r, struct json **ret, char ret_hash[SHA256_HEX_SIZE],
                                   struct err *e)
{
    str text;

    TRY(file_read_all(run_path(r, MANIFEST), SQL_MAX, r->a, &text, e));
    sha256_hex(text, ret_hash);
    return json_parse(text, r->a, ret, e);
}

static const struct json *file_of(const struct json *manifest, const char *name)
{
    return json_get(json_get(manifest, S("files")), str_of(name));
}

int snapshot_verify(struct run *r, const char *file, struct err *e)
{
    char hash[SHA256_HEX_SIZE], now[SHA256_HEX_SIZE];
    struct json *manifest;

    TRY(read_manifest(r, &manifest, hash, e));
    TRY(sha256_file_hex(run_path(r, file), now, e));
    if (!str_eqz(json_str_or(json_get(file_of(manifest, file), S("sha256")), S("")), now))
        return FAIL(e, DATA_LOSS, "%s of this run is not what was frozen: somebody wrote to it",
                    file);
    return 0;
}

static NODISCARD int again(struct run *r, struct snapshot *ret, struct err *e)
{
    struct snapshot s = {0};
    struct json *manifest;
    int64_t *rows[] = {&s.train_rows, &s.holdout_rows, &s.reference_rows};

    TRY(read_manifest(r, &manifest, s.hash, e));
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        TRY(snapshot_verify(r, parts[i], e));
        TRY(json_need_int(file_of(manifest, parts[i]), S("rows"), rows[i], e));
    }
    s.record_rows = json_int_or(json_get(manifest, S("record_rows")), 0);
    *ret = s;
    return 0;
}

int snapshot_make(struct run *r, struct snapshot *ret, struct err *e)
{
    AUTO(lake_closep) struct lake *l = NULL;
    struct maker k = {.r = r, .holdout = json_real_or(json_path(r->model, "retrain.holdout"), 0.2)};
    const struct json *dataset = run_dataset(r);
    struct snapshot s = {0};

    if (file_exists(run_path(r, MANIFEST)))
        return again(r, ret, e);
    TRY(run_features(r, &k.features, &k.feature_count, e));
    TRY(run_lake(r, &l, e));
    k.l = l;
    k.include = json_bool_or(json_path(r->model, "retrain.include_dataset"), true);
    k.dataset = dataset;
    if (dataset) /* first: its types say what the labels of records mean */
        TRY(load_dataset(&k, e));
    TRY(export_records(&k, e));
    if (r->endpoint.n)
        TRY(load_records(&k, &s.record_rows, e));
    k.records = s.record_rows > 0;
    k.after_change = k.records && r->changed_ns > 0;
    if (!dataset && !k.records)
        return FAIL(e, FAILED_PRECONDITION,
                    "model '" STR_F "' has neither labelled records nor a dataset to train on",
                    STR_A(r->model_name));
    TRY(mark_holdout(&k, e));
    TRY(write_parts(&k, &s, e));
    TRY(write_manifest(&k, &s, e));
    *ret = s;
    return 0;
}
