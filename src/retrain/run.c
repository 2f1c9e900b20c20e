/* SPDX-License-Identifier: Apache-2.0 */
/* What the steps of a run share: its inputs, its folder, its facts. */
#include "retrain/priv.h"

int applied_project(struct meta *m, struct arena *a, struct json **ret_tree, struct err *e)
{
    struct json *applied;

    TRY(meta_kv_get(m, S("project"), S("applied"), a, &applied, e));
    if (!applied)
        return FAIL(e, FAILED_PRECONDITION, "no project is applied: run weir apply");
    return json_need_object(applied, S("tree"), ret_tree, e);
}

int run_open(struct flow_ctx *ctx, struct run *ret, struct err *e)
{
    const struct json *input = flow_input(ctx);
    struct run r = {.ctx = ctx, .env = flow_env(ctx), .a = flow_arena(ctx)};

    TRY(applied_project(flow_meta(ctx), r.a, &r.project, e));
    TRY(json_need_str(input, S("model"), &r.model_name, e));
    r.model = json_get(json_get(r.project, S("models")), r.model_name);
    if (!r.model)
        return FAIL(e, FAILED_PRECONDITION, "model '" STR_F "' is no longer in the project",
                    STR_A(r.model_name));
    r.endpoint = json_str_or(json_get(input, S("endpoint")), S(""));
    r.changed_ns = json_int_or(json_get(input, S("changed_ns")), 0);
    r.dir = arena_printf(r.a, "%s/work/" STR_F, r.env->state_dir, STR_A(flow_id(ctx)));
    TRY(file_make_dirs(r.dir.p, e));
    *ret = r;
    return 0;
}

char *run_path(const struct run *r, const char *name)
{
    return path_join(r->a, r->dir.p, name);
}

int run_fact(struct run *r, struct meta *m, enum fact_type type, str reason,
             const struct json *data, struct err *e)
{
    struct json *o = data ? json_copy(r->a, data) : json_new_object(r->a);

    json_set_str(r->a, o, S("flow"), flow_id(r->ctx));
    json_set_str(r->a, o, S("model"), r->model_name);
    json_set_str(r->a, o, S("endpoint"), r->endpoint);
    return journal_append(
        m,
        &(struct fact_new){.type = type,
                           .subject = arena_printf(r->a, "model/" STR_F, STR_A(r->model_name)),
                           .actor = S("weir"),
                           .reason = reason,
                           .correlation = flow_correlation(r->ctx),
                           .data = o},
        NULL, e);
}

/* --- Features --------------------------------------------------------------------------------- */

static NODISCARD int names_of(struct run *r, const struct json *list, str **ret_names,
                              size_t *ret_n)
{
    str *names = ARENA_ARRAY(r->a, str, list->count);
    size_t n = 0;

    JSON_EACH (item, list)
        names[n++] = json_str_or(json_get(item, S("name")), S(""));
    *ret_names = names;
    *ret_n = n;
    return 0;
}

/* `features: auto`: the columns of the dataset but its label and time, in the order of the file. */
static NODISCARD int from_dataset(struct run *r, str **ret_names, size_t *ret_n, struct err *e)
{
    AUTO(lake_closep) struct lake *l = NULL;
    AUTO(lake_result_freep) struct lake_result *res = NULL;
    AUTO(buf_done) struct buf sql = {0};
    const struct json *dataset = run_dataset(r);
    str label = json_str_or(json_get(r->model, S("label")), S("")), *names;
    str time = json_str_or(json_get(dataset, S("time")), S(""));
    size_t n = 0;

    if (!dataset)
        return FAIL(e, FAILED_PRECONDITION, "model '" STR_F "' has neither features nor a dataset",
                    STR_A(r->model_name));
    buf_init(&sql, 1 << 20);
    buf_add_str(&sql, S("SELECT * FROM "));
    run_dataset_source(r, dataset, &sql);
    buf_add_str(&sql, S(" LIMIT 0"));
    TRY(run_lake(r, &l, e));
    TRY(lake_query(l, buf_z(&sql), NULL, 0, &res, e));
    names = ARENA_ARRAY(r->a, str, lake_column_count(res));
    for (size_t i = 0; i < lake_column_count(res); i++) {
        str name = lake_column_name(res, i);

        if (!str_eq(name, label) && !str_eq(name, time))
            names[n++] = arena_dup(r->a, name);
    }
    *ret_names = names;
    *ret_n = n;
    return 0;
}

int run_features(struct run *r, str **ret_names, size_t *ret_n, struct err *e)
{
    const struct json *list = json_get(r->model, S("features"));

    if (json_is_container(list) && list->count)
        return names_of(r, list, ret_names, ret_n);
    return from_dataset(r, ret_names, ret_n, e);
}

str run_label(const struct run *r)
{
    str label = json_str_or(json_get(r->model, S("label")), S(""));

    return label.n ? label : S("__label");
}

/* --- Data ------------------------------------------------------------------------------------- */

const struct json *run_dataset(const struct run *r)
{
    str name = json_str_or(json_get(r->model, S("dataset")), S(""));

    return name.n ? json_get(json_get(r->project, S("datasets")), name) : NULL;
}

void run_dataset_source(const struct run *r, const struct json *dataset, struct buf *sql)
{
    str path = json_str_or(json_get(dataset, S("path")), S(""));
    str format = json_str_or(json_get(dataset, S("format")), S("csv"));
    str full = path.n && path.p[0] == '/'
                   ? path
                   : arena_printf(r->a, "%s/" STR_F, r->env->project_dir, STR_A(path));

    buf_add_str(sql, str_eq(format, S("parquet")) ? S("read_parquet(")
                     : str_eq(format, S("jsonl")) ? S("read_json_auto(")
                                                  : S("read_csv_auto("));
    lake_quote_text(sql, full);
    buf_add_char(sql, ')');
}

int run_lake(const struct run *r, struct lake **ret_lake, struct err *e)
{
    return lake_open(&(struct lake_config){.temp_dir = r->dir.p, .threads = 1}, ret_lake, e);
}
