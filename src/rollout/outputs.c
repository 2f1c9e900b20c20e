/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which outputs of two versions can be held against each other.
 *
 * Each version's outputs are counted in the cells of its own profile. Counts are comparable only
 * where both profiles cut the values at the same places: that is so for class numbers and other
 * outputs of few values, and for a version that was registered twice; the scores of two trainings
 * are cut at different quantiles and cannot be compared from counts. Then the guard says that it
 * has no evidence, and why; it never guesses.
 */
#include "rollout/priv.h"

#include "base/mem.h"
#include "record/schema.h"
#include "store/blobs/blobs.h"

#include <stdio.h>

#define PROFILE_BYTES_MAX ((size_t)64 << 20)

static NODISCARD int columns_of(const struct rollout *ro, int64_t version, struct meta *m,
                                struct blobs *blobs, struct arena *a, const struct json **ret,
                                struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *meta, *profile;
    str text;

    TRY(meta_first(m, "SELECT meta FROM model_versions WHERE model = ? AND version = ?",
                   M_ARGS(M_STR(ro->model), M_INT(version)), &rows, e));
    if (!rows)
        return FAIL(e, NOT_FOUND, "version %lld is not registered", (long long)version);
    TRY(json_parse(meta_str_dup(rows, 0, a), a, &meta, e));
    text = json_str_or(json_get(meta, S("profile")), STR_NULL);
    if (!text.n)
        return FAIL(e, NOT_FOUND, "version %lld has no profile", (long long)version);
    TRY(blobs_get(blobs, text, PROFILE_BYTES_MAX, a, &text, e));
    TRY(json_parse(text, a, &profile, e));
    *ret = json_get(profile, S("columns"));
    return 0;
}

static bool same_cells(const struct cells_spec *a, const struct cells_spec *b)
{
    return a->kind == b->kind && a->bins == b->bins && a->lo == b->lo && a->hi == b->hi &&
           memcmp(a->keys, b->keys, sizeof(a->keys)) == 0; /* edges share their place */
}

/* The output column of that name, its place and its cells. */
static bool find_output(const struct json *columns, str name, uint32_t *ret_at,
                        struct cells_spec *ret_spec)
{
    uint32_t at = 0;
    struct err e;

    JSON_EACH (c, columns) {
        if (str_eq(json_str_or(json_get(c, S("name")), S("")), name) &&
            str_eq(json_str_or(json_get(c, S("role")), S("")), S("output"))) {
            *ret_at = at;
            return json_is_container(json_get(c, S("cells"))) &&
                   !cells_spec_from_json(json_get(c, S("cells")), ret_spec, &e);
        }
        at++;
    }
    return false;
}

static void pair_up(const struct json *champion, const struct json *challenger,
                    struct output_pairs *to)
{
    AUTO(mem_freep) struct cells_spec *specs = mem_zalloc(2 * sizeof(*specs));

    JSON_EACH (c, champion) {
        str name = json_str_or(json_get(c, S("name")), S(""));
        uint32_t at[2];

        if (to->count == OUTPUTS_MAX || !find_output(champion, name, &at[0], &specs[0]) ||
            !find_output(challenger, name, &at[1], &specs[1]) || !same_cells(&specs[0], &specs[1]))
            continue;
        to->pair[to->count].at[0] = at[0];
        to->pair[to->count].at[1] = at[1];
        to->pair[to->count++].cells = cells_count(&specs[0]);
    }
    if (!to->count)
        snprintf(to->why, sizeof(to->why), "%s",
                 "the two versions count their outputs in different cells");
}

void rollout_outputs_find(struct rollout *ro, struct meta *m, struct blobs *blobs)
{
    AUTO(arena_done) struct arena a;
    const struct json *columns[2];
    struct output_pairs found = {0};
    struct err e;

    arena_init(&a, 0);
    if (!blobs)
        snprintf(found.why, sizeof(found.why), "%s", "profiles are not at hand");
    else if (columns_of(ro, ro->previous, m, blobs, &a, &columns[0], &e) ||
             columns_of(ro, ro->version, m, blobs, &a, &columns[1], &e))
        snprintf(found.why, sizeof(found.why), "%.150s", e.msg);
    else if (!json_is_container(columns[0]) || !json_is_container(columns[1]))
        snprintf(found.why, sizeof(found.why), "%s", "a profile without columns");
    else
        pair_up(columns[0], columns[1], &found);
    ro->outputs = found;
}
