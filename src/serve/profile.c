/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/profile.h"

#include "stats/cells.h"

#define PROFILE_BYTES_MAX ((size_t)64 << 20)

static const struct json *column_find(const struct json *columns, str name)
{
    JSON_EACH (column, columns)
        if (str_eq(json_str_or(json_get(column, S("name")), STR_NULL), name))
            return column;
    return NULL;
}

int profile_cells_load(struct blobs *blobs, str hash, const struct record_column *columns,
                       uint32_t n, struct arena *a, const struct cells_spec *const **ret_specs,
                       struct err *e)
{
    const struct cells_spec **specs = ARENA_ARRAY(a, const struct cells_spec *, n);
    struct json *root, *known;
    str text;

    TRY(blobs_get(blobs, hash, PROFILE_BYTES_MAX, a, &text, e));
    TRY(json_parse(text, a, &root, e));
    TRY(json_need_array(root, S("columns"), &known, e));
    for (uint32_t i = 0; i < n; i++) {
        const struct json *cells = json_get(column_find(known, columns[i].name), S("cells"));
        struct cells_spec *spec;

        if (!json_is_container(cells)) /* null: not countable */
            continue;
        spec = ARENA_NEW(a, struct cells_spec);
        if (cells_spec_from_json(cells, spec, e))
            return err_context(e, "profile " STR_F ", column '" STR_F "'",
                               STR_A(str_take(hash, 12)), STR_A(columns[i].name));
        specs[i] = spec;
    }
    *ret_specs = specs;
    return 0;
}
