/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A version keeps the contract that it was registered with: columns, ranges, what is required. That
 * is what makes it reproducible, and a surprise to somebody who has just changed weir.yaml.
 */
#include "registry/contract.h"

#define VERSIONS_NAMED 8

/* "2 and 1", the newest first; empty when there are none. */
static NODISCARD int versions_text(struct meta *m, str model, struct arena *a, str *ret,
                                   struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    size_t n = 0;
    int rc;

    *ret = STR_NULL;
    TRY(meta_query(m,
                   "SELECT version FROM model_versions WHERE model = ? AND status <> 'removed'"
                   " ORDER BY version DESC",
                   M_ARGS(M_STR(model)), &rows, e));
    while (meta_next(rows, &rc, e)) {
        if (n < VERSIONS_NAMED)
            *ret = arena_printf(a, STR_F "%s%lld", STR_A(*ret), n ? ", " : "",
                                (long long)meta_int(rows, 0));
        n++;
    }
    TRY(rc);
    if (n > VERSIONS_NAMED)
        *ret = arena_printf(a, STR_F " and %zu older ones", STR_A(*ret), n - VERSIONS_NAMED);
    return 0;
}

int registry_contract_notes(struct meta *m, const struct json *before, const struct json *after,
                            struct arena *a, struct json **ret_list, struct err *e)
{
    const struct json *models = json_get(after, S("models"));
    struct json *list = json_new_array(a);

    if (json_is_container(models))
        JSON_EACH (model, models) {
            const struct json *old = json_get(json_get(before, S("models")), model->key);
            const struct json *x = json_get(old, S("features")),
                              *y = json_get(model, S("features"));
            str versions;

            if (!old || (x && y ? json_equal(x, y) : x == y))
                continue;
            TRY(versions_text(m, model->key, a, &versions, e));
            if (versions.n)
                json_push(
                    list,
                    json_new_str(
                        a, arena_printf(a,
                                        "models." STR_F ".features: registered versions keep "
                                        "the columns, ranges and required fields they were "
                                        "registered with (" STR_F
                                        "); for a version with the new ones: weir register " STR_F
                                        " FILE, or weir retrain " STR_F,
                                        STR_A(model->key), STR_A(versions), STR_A(model->key),
                                        STR_A(model->key))));
        }
    *ret_list = list;
    return 0;
}
