/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the steps of a run share: its inputs, its folder, its facts.
 *
 * A run ends as it began: the project that was applied when its first step ran is kept in its
 * folder, and an apply in the middle is for the next run.
 */
#include "retrain/priv.h"

#define PROJECT_BYTES_MAX ((size_t)64 << 20)

static NODISCARD int applied_project(struct meta *m, struct arena *a, struct json **ret_tree,
                                     struct err *e)
{
    struct json *applied;

    TRY(meta_kv_get(m, S("project"), S("applied"), a, &applied, e));
    if (!applied)
        return FAIL(e, FAILED_PRECONDITION, "no project is applied: run weir apply");
    return json_need_object(applied, S("tree"), ret_tree, e);
}

static NODISCARD int freeze_project(struct run *r, const char *path, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};

    TRY(applied_project(flow_meta(r->ctx), r->a, &r->project, e));
    buf_init(&text, PROJECT_BYTES_MAX);
    json_write_canonical(&text, r->project);
    if (text.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the project is larger than %zu bytes",
                    PROJECT_BYTES_MAX);
    return file_replace(path, buf_str(&text), e);
}

static NODISCARD int read_project(struct run *r, struct err *e)
{
    char *path = run_path(r, "project.json");
    str text;

    if (!file_exists(path))
        return freeze_project(r, path, e);
    TRY(file_read_all(path, PROJECT_BYTES_MAX, r->a, &text, e));
    return json_parse(text, r->a, &r->project, e);
}

int run_open(struct flow_ctx *ctx, struct run *ret, struct err *e)
{
    const struct json *input = flow_input(ctx);
    struct run r = {.ctx = ctx, .env = flow_env(ctx), .a = flow_arena(ctx)};

    TRY(json_need_str(input, S("model"), &r.model_name, e));
    r.dir = arena_printf(r.a, "%s/work/" STR_F, r.env->state_dir, STR_A(flow_id(ctx)));
    TRY(file_make_dirs(r.dir.p, e));
    TRY(read_project(&r, e));
    r.model = json_get(json_get(r.project, S("models")), r.model_name);
    if (!r.model)
        return FAIL(e, FAILED_PRECONDITION, "model '" STR_F "' is no longer in the project",
                    STR_A(r.model_name));
    r.regression = str_eq(json_str_or(json_get(r.model, S("task")), S("")), S("regression"));
    r.endpoint = json_str_or(json_get(input, S("endpoint")), S(""));
    r.changed_ns = json_int_or(json_get(input, S("changed_ns")), 0);
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

static void from_project(struct run *r, const struct json *list, struct feature *to, size_t *ret_n)
{
    size_t n = 0;

    JSON_EACH (item, list)
        to[n++] = (struct feature){json_str_or(json_get(item, S("name")), S("")),
                                   json_str_or(json_get(item, S("type")), S(""))};
    *ret_n = n;
    (void)r;
}

/* `features: auto`: the columns of the dataset but its label and time, in the order of the file. */
static NODISCARD int from_dataset(struct run *r, struct feature **ret_list, size_t *ret_n,
                                  struct err *e)
{
    AUTO(lake_closep) struct lake *l = NULL;
    AUTO(lake_result_freep) struct lake_result *res = NULL;
    AUTO(buf_done) struct buf sql = {0};
    const struct json *dataset = run_dataset(r);
    str label = json_str_or(json_get(r->model, S("label")), S(""));
    str time = json_str_or(json_get(dataset, S("time")), S(""));
    struct feature *list;
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
    list = ARENA_ARRAY(r->a, struct feature, lake_column_count(res));
    for (size_t i = 0; i < lake_column_count(res); i++) {
        str name = lake_column_name(res, i);

        if (!str_eq(name, label) && !str_eq(name, time))
            list[n++] = (struct feature){arena_dup(r->a, name), S("")};
    }
    *ret_list = list;
    *ret_n = n;
    return 0;
}

static bool is_reserved(str name)
{
    static const str reserved[] = {S_INIT("__label"), S_INIT("__ts"), S_INIT("__hash"),
                                   S_INIT("__at"), S_INIT("__held")};

    for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
        if (str_eq_nocase(name, reserved[i]))
            return true;
    return false;
}

int run_features(struct run *r, struct feature **ret_list, size_t *ret_n, struct err *e)
{
    const struct json *list = json_get(r->model, S("features"));

    if (json_is_container(list) && list->count) {
        *ret_list = ARENA_ARRAY(r->a, struct feature, list->count);
        from_project(r, list, *ret_list, ret_n);
    } else {
        TRY(from_dataset(r, ret_list, ret_n, e));
    }
    for (size_t i = 0; i < *ret_n; i++)
        if (is_reserved((*ret_list)[i].name))
            return FAIL(e, INVALID_ARGUMENT,
                        "feature '" STR_F "': the tables of a run have a column of that name; "
                        "rename the feature",
                        STR_A((*ret_list)[i].name));
    return 0;
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

const struct json *run_trainer(const struct run *r)
{
    return json_get(json_get(r->project, S("trainers")),
                    json_str_or(json_get(r->model, S("trainer")), S("")));
}

/* Text columns of a CSV file are read as they stand there: DuckDB would make booleans of yes and
 * no, and numbers of postal codes. */
static void add_text_columns(const struct run *r, struct buf *sql)
{
    const struct json *features = json_get(r->model, S("features"));
    str label = json_str_or(json_get(r->model, S("label")), S(""));
    const char *comma = "";

    buf_add_str(sql, S(", types={"));
    if (label.n && !r->regression) {
        lake_quote_text(sql, label);
        buf_add_str(sql, S(": 'VARCHAR'"));
        comma = ", ";
    }
    if (json_is_container(features))
        JSON_EACH (f, features) {
            if (!str_eq(json_str_or(json_get(f, S("type")), S("")), S("string")))
                continue;
            buf_add_str(sql, str_of(comma));
            lake_quote_text(sql, json_str_or(json_get(f, S("name")), S("")));
            buf_add_str(sql, S(": 'VARCHAR'"));
            comma = ", ";
        }
    if (!*comma) /* an empty struct is no literal */
        sql->n -= S(", types={").n;
    else
        buf_add_char(sql, '}');
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
    if (str_eq(format, S("csv"))) {
        buf_add_str(sql, S(", sample_size=-1"));
        add_text_columns(r, sql);
    }
    buf_add_char(sql, ')');
}

int run_lake(const struct run *r, struct lake **ret_lake, struct err *e)
{
    return lake_open(&(struct lake_config){.temp_dir = r->dir.p, .threads = 1}, ret_lake, e);
}
