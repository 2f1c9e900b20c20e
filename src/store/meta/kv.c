/* SPDX-License-Identifier: Apache-2.0 */
/* Small durable state: one JSON value under a scope and a key. */
#include "store/meta/meta.h"

#include "base/time.h"

int meta_kv_get(struct meta *m, str scope, str key, struct arena *a, struct json **ret_value,
                struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *value = NULL;

    TRY(meta_first(m, "SELECT value FROM kv WHERE scope = ? AND name = ?",
                   M_ARGS(M_STR(scope), M_STR(key)), &rows, e));
    if (rows && json_parse(meta_str_dup(rows, 0, a), a, &value, e))
        return FAIL(e, DATA_LOSS, "meta.db: kv " STR_F "/" STR_F " is not JSON", STR_A(scope),
                    STR_A(key));
    *ret_value = value;
    return 0;
}

int meta_kv_put(struct meta *m, str scope, str key, const struct json *value, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};

    buf_init(&text, META_KV_VALUE_MAX);
    json_write_canonical(&text, value);
    if (text.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "kv " STR_F "/" STR_F ": value is above %zu bytes",
                    STR_A(scope), STR_A(key), META_KV_VALUE_MAX);
    TRY(meta_exec(m,
                  "INSERT INTO kv (scope, name, value, updated_ns) VALUES (?, ?, ?, ?)"
                  " ON CONFLICT (scope, name) DO UPDATE SET value = excluded.value,"
                  " updated_ns = excluded.updated_ns",
                  M_ARGS(M_STR(scope), M_STR(key), M_STR(buf_str(&text)), M_INT(time_wall_ns())),
                  e));
    meta_touch(m, META_TOPIC_KV);
    return 0;
}

int meta_kv_delete(struct meta *m, str scope, str key, struct err *e)
{
    TRY(meta_exec(m, "DELETE FROM kv WHERE scope = ? AND name = ?",
                  M_ARGS(M_STR(scope), M_STR(key)), e));
    meta_touch(m, META_TOPIC_KV);
    return 0;
}
