/* SPDX-License-Identifier: Apache-2.0 */
/* Flows as JSON, for the API and the command line. */
#include "flow/priv.h"

#define LIST_DEFAULT 100
#define LIST_COLUMNS                                                                             \
    "id, type, state, step, seq, attempts, crashes, paused, cancel, cancel_reason, error,"       \
    " error_code, owner, fence, due_ns, wait_event, dedup_key, parent, correlation, created_ns," \
    " updated_ns, ended_ns"

/* A column of the row becomes a member of the same name. */
enum kind { TEXT, NUMBER, FLAG, JSON, CODE_NAME };
struct member {
    const char *name;
    enum kind kind;
};
static const struct member flow_members[] = {
    {"id", TEXT},           {"type", TEXT},
    {"state", TEXT},        {"step", TEXT},
    {"seq", NUMBER},        {"attempts", NUMBER},
    {"crashes", NUMBER},    {"paused", FLAG},
    {"cancelled", FLAG},    {"cancel_reason", TEXT},
    {"error", TEXT},        {"error_code", CODE_NAME},
    {"owner", TEXT},        {"fence", NUMBER},
    {"due_ns", NUMBER},     {"wait_event", TEXT},
    {"dedup_key", TEXT},    {"parent", TEXT},
    {"correlation", TEXT},  {"created_ns", NUMBER},
    {"updated_ns", NUMBER}, {"ended_ns", NUMBER},
    {"input", JSON},        {"result", JSON},
};
#define LIST_MEMBERS 22
static const struct member step_members[] = {
    {"seq", NUMBER}, {"name", TEXT},       {"status", TEXT},       {"output", JSON},
    {"error", TEXT}, {"attempts", NUMBER}, {"started_ns", NUMBER}, {"ended_ns", NUMBER},
};
static const struct member event_members[] = {{"name", TEXT}, {"payload", JSON}, {"at_ns", NUMBER}};

static int value_of(const struct meta_rows *rows, int column, enum kind kind, struct arena *a,
                    struct json **ret, struct err *e)
{
    if (meta_is_null(rows, column))
        *ret = json_new_null(a);
    else if (kind == TEXT)
        *ret = json_new_str(a, meta_str_dup(rows, column, a));
    else if (kind == NUMBER)
        *ret = json_new_int(a, meta_int(rows, column));
    else if (kind == FLAG)
        *ret = json_new_bool(a, meta_int(rows, column) != 0);
    else if (kind == CODE_NAME)
        *ret = json_new_str(a, str_of(code_name((enum code)meta_int(rows, column))));
    else
        return json_parse(meta_str_dup(rows, column, a), a, ret, e);
    return 0;
}

static int object_of(const struct meta_rows *rows, const struct member *members, size_t n,
                     struct arena *a, struct json **ret, struct err *e)
{
    struct json *object = json_new_object(a), *value;

    for (size_t i = 0; i < n; i++) {
        TRY(value_of(rows, (int)i, members[i].kind, a, &value, e));
        json_set(object, str_of(members[i].name), value);
    }
    *ret = object;
    return 0;
}

static int array_of(struct meta *m, const char *sql, struct meta_args args,
                    const struct member *members, size_t n, struct arena *a, struct json **ret,
                    struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *array = json_new_array(a), *object;
    int rc;

    TRY(meta_query(m, sql, args, &rows, e));
    while (meta_next(rows, &rc, e)) {
        TRY(object_of(rows, members, n, a, &object, e));
        json_push(array, object);
    }
    if (!rc)
        *ret = array;
    return rc;
}

int flow_list(struct meta *m, const struct flow_query *q, struct arena *a, struct json **ret_list,
              struct err *e)
{
    struct meta_arg args[6];
    size_t n = 0;
    AUTO(buf_done) struct buf sql = {0};
    const struct {
        const char *column;
        str value;
    } filters[] = {{"type", q->type},
                   {"state", q->state},
                   {"correlation", q->correlation},
                   {"parent", q->parent}};

    buf_init(&sql, 4096);
    buf_printf(&sql, "SELECT " LIST_COLUMNS " FROM wf WHERE %s",
               q->unfinished ? "ended_ns IS NULL" : "1 = 1");
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        if (filters[i].value.n) {
            buf_printf(&sql, " AND %s = ?", filters[i].column);
            args[n++] = M_STR(filters[i].value);
        }
    }
    buf_add_str(&sql, S(" ORDER BY id DESC LIMIT ?"));
    args[n++] = M_INT(q->limit ? q->limit : LIST_DEFAULT);
    return array_of(m, buf_z(&sql), (struct meta_args){args, n}, flow_members, LIST_MEMBERS, a,
                    ret_list, e);
}

int flow_show(struct meta *m, str id, struct arena *a, struct json **ret_flow, struct err *e)
{
    struct meta_args key = M_ARGS(M_STR(id));
    struct json *flows, *steps, *events;

    TRY(array_of(m, "SELECT " LIST_COLUMNS ", input, result FROM wf WHERE id = ?", key,
                 flow_members, ARRAY_LEN(flow_members), a, &flows, e));
    if (!flows->count)
        return FAIL(e, NOT_FOUND, "flow '" STR_F "' does not exist", STR_A(id));
    TRY(array_of(m,
                 "SELECT seq, name, status, output, error, attempts, started_ns, ended_ns"
                 " FROM wf_step WHERE wf_id = ? ORDER BY seq",
                 key, step_members, ARRAY_LEN(step_members), a, &steps, e));
    TRY(array_of(m, "SELECT name, payload, at_ns FROM wf_event WHERE wf_id = ? ORDER BY at_ns", key,
                 event_members, ARRAY_LEN(event_members), a, &events, e));
    json_set(flows->first, S("steps"), steps);
    json_set(flows->first, S("events"), events);
    *ret_flow = flows->first;
    return 0;
}

int flow_find(struct meta *m, str dedup_key, char ret_id[UUID_SIZE], struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;

    TRY(meta_first(m, "SELECT id FROM wf WHERE dedup_key = ? AND ended_ns IS NULL",
                   M_ARGS(M_STR(dedup_key)), &rows, e));
    if (!rows || !str_to_z(meta_str(rows, 0), ret_id, UUID_SIZE))
        ret_id[0] = '\0';
    return 0;
}
