/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Aliases: names that point at versions, and the history of where they pointed.
 *
 * The history is the truth about the past: what was champion at an instant is the last move before
 * it. Each move is one transaction with its history row and the fact alias.moved, by which the plan
 * compiler hears of it. A rollout moves aliases in its own transactions by the same statements
 * (rollout/move.c): two writers of one small table, each without the other's layer.
 */
#include "registry/registry.h"

#include "base/time.h"
#include "journal/journal.h"

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
    return meta_first_int(m, "SELECT version FROM aliases WHERE model = ? AND alias = ?",
                          M_ARGS(M_STR(model), M_STR(alias)), 0, ret_version, e);
}

/* --- Moving ----------------------------------------------------------------------------------- */

struct move {
    str model, alias;
    int64_t version, previous;
    str actor, reason, correlation;
};

static NODISCARD int version_check(struct meta *m, const struct move *mv, struct err *e)
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

static NODISCARD int write_alias(struct meta *m, const struct move *mv, int64_t now, struct err *e)
{
    if (!mv->version)
        return meta_exec(m, "DELETE FROM aliases WHERE model = ? AND alias = ?",
                         M_ARGS(M_STR(mv->model), M_STR(mv->alias)), e);
    return meta_exec(m,
                     "INSERT INTO aliases (model, alias, version, updated_ns) VALUES (?, ?, ?, ?)"
                     " ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version,"
                     " updated_ns = excluded.updated_ns",
                     M_ARGS(M_STR(mv->model), M_STR(mv->alias), M_INT(mv->version), M_INT(now)), e);
}

static NODISCARD int write_history(struct meta *m, const struct move *mv, int64_t now,
                                   struct err *e)
{
    return meta_exec(
        m,
        "INSERT INTO alias_history (model, alias, seq, version, previous_version, at_ns,"
        " actor, reason, correlation) SELECT ?, ?, COALESCE(MAX(seq), 0) + 1, ?, ?, ?, ?,"
        " ?, ? FROM alias_history WHERE model = ? AND alias = ?",
        M_ARGS(M_STR(mv->model), M_STR(mv->alias), mv->version ? M_INT(mv->version) : M_NULL,
               mv->previous ? M_INT(mv->previous) : M_NULL, M_INT(now), M_STR(mv->actor),
               M_STR(mv->reason), M_STR(mv->correlation), M_STR(mv->model), M_STR(mv->alias)),
        e);
}

static NODISCARD int write_fact(struct meta *m, const struct move *mv, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct fact_new fact = {.type = FACT_ALIAS_MOVED,
                            .actor = mv->actor,
                            .reason = mv->reason,
                            .correlation = mv->correlation};
    struct json *data;

    arena_init(&a, 0);
    data = json_new_object(&a);
    json_set_str(&a, data, S("model"), mv->model);
    json_set_str(&a, data, S("alias"), mv->alias);
    json_set_int(&a, data, S("version"), mv->version);
    json_set_int(&a, data, S("previous"), mv->previous);
    fact.subject = arena_printf(&a, "model/" STR_F, STR_A(mv->model));
    fact.data = data;
    return journal_append(m, &fact, NULL, e);
}

int registry_alias_move(struct meta *m, str model, str alias, int64_t version, str actor,
                        str reason, str correlation, int64_t *ret_previous, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct move mv = {model, alias, version, 0, actor, reason, correlation};
    int64_t now = time_wall_ns();

    TRY(alias_check(alias, e));
    if (version < 0)
        return FAIL(e, INVALID_ARGUMENT,
                    "version %lld: expected 1 or more, or 0 to remove the alias",
                    (long long)version);
    TRY(meta_begin(m, &tx, e));
    TRY(version_check(m, &mv, e));
    TRY(registry_alias_get(m, model, alias, &mv.previous, e));
    if (mv.previous != version) {
        TRY(write_alias(m, &mv, now, e));
        TRY(write_history(m, &mv, now, e));
        TRY(write_fact(m, &mv, e));
    }
    TRY(meta_commit(&tx, e));
    if (ret_previous)
        *ret_previous = mv.previous;
    return 0;
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

int registry_alias_history(struct meta *m, str model, struct arena *a, struct json **ret_list,
                           struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *list = json_new_array(a);
    int rc;

    TRY(meta_query(m,
                   "SELECT alias, seq, version, previous_version, at_ns, actor, reason, correlation"
                   " FROM alias_history WHERE model = ? ORDER BY at_ns DESC, alias, seq DESC",
                   M_ARGS(M_STR(model)), &rows, e));
    while (meta_next(rows, &rc, e)) {
        struct json *item = json_push(list, json_new_object(a));
        char at[TIME_ISO_SIZE];

        time_iso(meta_int(rows, 4), at);
        json_set_str(a, item, S("alias"), meta_str_dup(rows, 0, a));
        json_set_int(a, item, S("seq"), meta_int(rows, 1));
        json_set_int(a, item, S("version"), meta_int(rows, 2));
        json_set_int(a, item, S("previous"), meta_int(rows, 3));
        json_set_str(a, item, S("at"), arena_dup(a, str_of(at)));
        json_set_int(a, item, S("at_ns"), meta_int(rows, 4));
        json_set_str(a, item, S("actor"), meta_str_dup(rows, 5, a));
        json_set_str(a, item, S("reason"), meta_str_dup(rows, 6, a));
        json_set_str(a, item, S("correlation"), meta_str_dup(rows, 7, a));
    }
    TRY(rc);
    *ret_list = list;
    return 0;
}
