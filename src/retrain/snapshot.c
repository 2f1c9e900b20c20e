/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data of a run, frozen as three Parquet files in its folder before anything is trained:
 *
 *   train.parquet      what the trainer sees: the model's dataset (if the project says so) and
 * labelled records of the window, without the holdout holdout.parquet    what the gate judges by;
 * never trained on reference.parquet  what the new version's monitor will call normal
 *
 * Columns: the features under their names, the label (text) under the name that the project gives
 * it (or
 * `__label`), `__ts` (of the request; NULL for rows
 * of the dataset).
 *
 * The holdout of ordinary runs is the latest share of the records, since a model must be good at
 * what comes next. After a change (drift) it is a share of the rows since the change, drawn by a
 * hash of the request id: there is no older past from which the change could be learnt, so both
 * sides need some of it. The reference is, after a change, the rows since it; else all of the
 * training data.
 */
#include "retrain/priv.h"

#include "record/export.h"

struct plan_sql {
    struct run *r;
    str *features;
    size_t feature_count;
    double holdout;
    bool records, after_change;
};

static void add_features(struct buf *sql, const struct plan_sql *p)
{
    for (size_t i = 0; i < p->feature_count; i++) {
        lake_quote_name(sql, p->features[i]);
        buf_add_str(sql, S(", "));
    }
}

/* 3.0 and 3 are the same class. */
static const char label_text[] =
    "COALESCE(label_text, CASE WHEN label_number = floor(label_number)"
    " THEN CAST(CAST(label_number AS BIGINT) AS VARCHAR) ELSE CAST(label_number AS VARCHAR) END)";

static NODISCARD int load_records(struct lake *l, struct plan_sql *p, struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};
    struct run *r = p->r;
    int64_t window = json_int_or(json_path(r->model, "retrain.window_ns"), INT64_MAX);
    int64_t now = time_wall_ns();

    buf_init(&sql, 4 << 20);
    buf_add_str(&sql, S("CREATE TABLE records AS SELECT "));
    add_features(&sql, p);
    buf_printf(&sql, "%s AS __label, ts AS __ts, hash(request_id) AS __hash FROM (", label_text);
    TRY(record_training_query(arena_printf(r->a, "%s/lake", r->env->state_dir).p, r->endpoint,
                              window < now ? now - window : 0, 0, &sql, e));
    buf_add_str(&sql, S(") WHERE label_text IS NOT NULL OR label_number IS NOT NULL"));
    return lake_exec(l, buf_z(&sql), e);
}

static NODISCARD int load_dataset(struct lake *l, struct plan_sql *p, const struct json *dataset,
                                  struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};
    str label = json_str_or(json_get(p->r->model, S("label")), S(""));
    str time = json_str_or(json_get(dataset, S("time")), S(""));

    buf_init(&sql, 4 << 20);
    buf_add_str(&sql, S("CREATE TABLE dataset AS SELECT "));
    add_features(&sql, p);
    buf_add_str(&sql, S("CAST("));
    lake_quote_name(&sql, label);
    buf_add_str(&sql, S(" AS VARCHAR) AS __label, "));
    if (time.n) {
        buf_add_str(&sql, S("CAST("));
        lake_quote_name(&sql, time);
        buf_add_str(&sql, S(" AS TIMESTAMP)"));
    } else {
        buf_add_str(&sql, S("CAST(NULL AS TIMESTAMP)"));
    }
    buf_add_str(&sql, S(" AS __ts, hash(row_number() OVER ()) AS __hash FROM "));
    run_dataset_source(p->r, dataset, &sql);
    buf_add_str(&sql, S(" WHERE "));
    lake_quote_name(&sql, label);
    buf_add_str(&sql, S(" IS NOT NULL"));
    return lake_exec(l, buf_z(&sql), e);
}

/* Marks the holdout: a column __held of the table it is taken from. */
static NODISCARD int mark_holdout(struct lake *l, const struct plan_sql *p, struct err *e)
{
    const char *table = p->records ? "records" : "dataset";
    int64_t changed_us = p->r->changed_ns / NS_PER_US;

    TRY(lake_execf(l, e, "ALTER TABLE %s ADD COLUMN __held BOOLEAN DEFAULT false", table));
    if (p->after_change)
        return lake_execf(l, e,
                          "UPDATE records SET __held = (__ts >= make_timestamp(%lld) AND"
                          " __hash %% 10000 < %d)",
                          (long long)changed_us, (int)(p->holdout * 10000));
    if (p->records)
        return lake_execf(l, e,
                          "UPDATE records SET __held = __ts > (SELECT quantile_cont(__ts, %.6f)"
                          " FROM records)",
                          1 - p->holdout);
    return lake_execf(l, e,
                      "UPDATE dataset SET __held = CASE WHEN __ts IS NULL THEN __hash %% 10000 < %d"
                      " ELSE __ts > (SELECT quantile_cont(__ts, %.6f) FROM dataset) END",
                      (int)(p->holdout * 10000), 1 - p->holdout);
}

/* With times, a part can be put in order; the reference has none, since all its columns but the
 * label are taken for features. */
static NODISCARD int write_part(struct lake *l, const struct plan_sql *p, const char *file,
                                const char *where, bool dataset, bool times, int64_t *ret_rows,
                                struct err *e)
{
    AUTO(buf_done) struct buf sql = {0};
    bool both = dataset && p->records;

    buf_init(&sql, 4 << 20);
    for (int part = 0; part < (both ? 2 : 1); part++) {
        const char *table = both         ? (part ? "records" : "dataset")
                            : p->records ? "records"
                                         : "dataset";

        buf_add_str(&sql, part ? S(" UNION ALL SELECT ") : S("SELECT "));
        add_features(&sql, p);
        buf_add_str(&sql, S("__label AS "));
        lake_quote_name(&sql, run_label(p->r));
        buf_printf(&sql, "%s FROM %s WHERE %s", times ? ", __ts" : "", table,
                   both && !part ? "true" : where);
    }
    TRY(lake_write_parquet(l, buf_z(&sql), run_path(p->r, file), e));
    buf_clear(&sql);
    buf_add_str(&sql, S("SELECT count(*) FROM read_parquet("));
    lake_quote_text(&sql, str_of(run_path(p->r, file)));
    buf_add_char(&sql, ')');
    return lake_scalar_i64(l, buf_z(&sql), NULL, 0, ret_rows, e);
}

static NODISCARD int write_parts(struct lake *l, const struct plan_sql *p, bool with_dataset,
                                 struct snapshot *ret, struct err *e)
{
    str since = arena_printf(p->r->a, "__ts >= make_timestamp(%lld)",
                             (long long)(p->r->changed_ns / NS_PER_US));

    TRY(write_part(l, p, "train.parquet", "NOT __held", with_dataset, true, &ret->train_rows, e));
    TRY(write_part(l, p, "holdout.parquet", "__held", false, true, &ret->holdout_rows, e));
    return write_part(l, p, "reference.parquet", p->after_change ? since.p : "NOT __held", false,
                      false, &ret->reference_rows, e);
}

/* New records first: sealed segments become Parquet. Another exporter at work is a reason to retry.
 */
static NODISCARD int export_records(struct run *r, struct lake *l, struct err *e)
{
    struct export_result result = {0};

    return export_run(
        &(struct export_config){
            .segments = arena_printf(r->a, "%s/records", r->env->state_dir).p,
            .lake = arena_printf(r->a, "%s/lake", r->env->state_dir).p,
            .keep_segments_ns = INT64_C(3600) * NS_PER_S,
        },
        l, time_wall_ns(), &result, e);
}

int snapshot_make(struct run *r, struct snapshot *ret, struct err *e)
{
    AUTO(lake_closep) struct lake *l = NULL;
    const struct json *dataset = run_dataset(r);
    struct plan_sql p = {.r = r,
                         .holdout = json_real_or(json_path(r->model, "retrain.holdout"), 0.2)};
    bool include = json_bool_or(json_path(r->model, "retrain.include_dataset"), true);

    *ret = (struct snapshot){0};
    TRY(run_features(r, &p.features, &p.feature_count, e));
    TRY(run_lake(r, &l, e));
    TRY(export_records(r, l, e));
    if (r->endpoint.n && !load_records(l, &p, e))
        TRY(lake_scalar_i64(l, "SELECT count(*) FROM records", NULL, 0, &ret->record_rows, e));
    else if (r->endpoint.n && e->code != CODE_NOT_FOUND)
        return (int)e->code;
    p.records = ret->record_rows > 0;
    p.after_change = p.records && r->changed_ns > 0;
    if (dataset && (include || !p.records))
        TRY(load_dataset(l, &p, dataset, e));
    else if (!p.records)
        return FAIL(e, FAILED_PRECONDITION,
                    "model '" STR_F "' has neither labelled records nor a dataset to train on",
                    STR_A(r->model_name));
    TRY(mark_holdout(l, &p, e));
    return write_parts(l, &p, dataset && include, ret, e);
}
