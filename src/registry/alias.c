/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The aliases that the registry knows, and the stage of a version that follows from them. How an
 * alias moves: journal/alias.h.
 */
#include "registry/registry.h"

#include "journal/alias.h"

static const struct {
    str name;
    const char *stage;
    int rank;
} aliases[] = {
#define ALIAS(name, text, stage, rank, help) {S_INIT(text), stage, rank},
#include "registry/aliases.def"
#undef ALIAS
};

static int alias_index(str alias)
{
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
        if (str_eq(aliases[i].name, alias))
            return (int)i;
    return -1;
}

bool registry_alias_known(str alias)
{
    return alias_index(alias) >= 0;
}

static NODISCARD int alias_check(str alias, struct err *e)
{
    str names[ARRAY_LEN(aliases)], near;

    if (registry_alias_known(alias))
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
        names[i] = aliases[i].name;
    near = str_suggest(alias, names, ARRAY_LEN(names));
    return FAIL(e, INVALID_ARGUMENT,
                "'" STR_F "' is no alias: expected candidate, shadow, challenger, champion or "
                "archived%s" STR_F "%s",
                STR_A(str_take(alias, 64)), near.n ? "; did you mean '" : "", STR_A(near),
                near.n ? "'?" : "");
}

int registry_alias_get(struct meta *m, str model, str alias, int64_t *ret_version, struct err *e)
{
    TRY(alias_check(alias, e));
    return alias_get(m, model, alias, ret_version, e);
}

/* --- Moving ----------------------------------------------------------------------------------- */

static NODISCARD int version_check(struct meta *m, const struct alias_move *mv, struct err *e)
{
    int64_t found;

    if (!mv->version)
        return 0;
    TRY(meta_first_int(
        m, "SELECT 1 FROM model_versions WHERE model = ? AND version = ? AND status <> 'removed'",
        M_ARGS(M_STR(mv->model), M_INT(mv->version)), 0, &found, e));
    if (!found)
        return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version %lld", STR_A(mv->model),
                    (long long)mv->version);
    return 0;
}

int registry_alias_move(struct meta *m, str model, str alias, int64_t version, str actor,
                        str reason, str correlation, int64_t *ret_previous, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    const struct alias_move mv = {model, alias, version, actor, reason, correlation};

    TRY(alias_check(alias, e));
    if (version < 0)
        return FAIL(e, INVALID_ARGUMENT,
                    "version %lld: expected 1 or more, or 0 to remove the alias",
                    (long long)version);
    TRY(meta_begin(m, &tx, e));
    TRY(version_check(m, &mv, e));
    TRY(alias_move(m, &mv, ret_previous, e));
    return meta_commit(&tx, e);
}

/* --- Asking ----------------------------------------------------------------------------------- */

int registry_stage(struct meta *m, str model, int64_t version, const char **ret_stage,
                   struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    const char *stage = "experimental";
    int best = -1, rc;

    TRY(meta_query(m, "SELECT alias FROM aliases WHERE model = ? AND version = ?",
                   M_ARGS(M_STR(model), M_INT(version)), &rows, e));
    while (meta_next(rows, &rc, e)) {
        int i = alias_index(meta_str(rows, 0));

        if (i >= 0 && aliases[i].rank > best) {
            best = aliases[i].rank;
            stage = aliases[i].stage;
        }
    }
    TRY(rc);
    *ret_stage = stage;
    return 0;
}

int registry_live_at(struct meta *m, str model, int64_t at_ns, int64_t *ret_version, struct err *e)
{
    return meta_first_int(m,
                          "SELECT version FROM alias_history WHERE model = ? AND alias = 'champion'"
                          " AND at_ns <= ? ORDER BY seq DESC LIMIT 1",
                          M_ARGS(M_STR(model), M_INT(at_ns)), 0, ret_version, e);
}

int registry_previous_champion(struct meta *m, str model, int64_t *ret_version,
                               int64_t *ret_since_ns, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;

    TRY(meta_first(m,
                   "SELECT previous_version, at_ns FROM alias_history WHERE model = ?"
                   " AND alias = 'champion' ORDER BY seq DESC LIMIT 1",
                   M_ARGS(M_STR(model)), &rows, e));
    *ret_version = rows ? meta_int(rows, 0) : 0;
    *ret_since_ns = rows ? meta_int(rows, 1) : 0;
    return 0;
}
