/* SPDX-License-Identifier: Apache-2.0 */
#include "journal/alias.h"

#include "base/time.h"

int alias_get(struct meta *m, str model, str alias, int64_t *ret_version, struct err *e)
{
    return meta_first_int(m, "SELECT version FROM aliases WHERE model = ? AND alias = ?",
                          M_ARGS(M_STR(model), M_STR(alias)), 0, ret_version, e);
}

/* --- Moving ----------------------------------------------------------------------------------- */

static NODISCARD int write_alias(struct meta *m, const struct alias_move *mv, int64_t now,
                                 struct err *e)
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

static NODISCARD int write_history(struct meta *m, const struct alias_move *mv, int64_t previous,
                                   int64_t now, struct err *e)
{
    return meta_exec(
        m,
        "INSERT INTO alias_history (model, alias, seq, version, previous_version, at_ns,"
        " actor, reason, correlation) SELECT ?, ?, COALESCE(MAX(seq), 0) + 1, ?, ?, ?, ?,"
        " ?, ? FROM alias_history WHERE model = ? AND alias = ?",
        M_ARGS(M_STR(mv->model), M_STR(mv->alias), mv->version ? M_INT(mv->version) : M_NULL,
               previous ? M_INT(previous) : M_NULL, M_INT(now), M_STR(mv->actor), M_STR(mv->reason),
               M_STR(mv->correlation), M_STR(mv->model), M_STR(mv->alias)),
        e);
}

static NODISCARD int write_fact(struct meta *m, const struct alias_move *mv, int64_t previous,
                                struct err *e)
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
    json_set_int(&a, data, S("previous"), previous);
    fact.subject = arena_printf(&a, "model/" STR_F, STR_A(mv->model));
    fact.data = data;
    return journal_append(m, &fact, NULL, e);
}

int alias_move(struct meta *m, const struct alias_move *mv, int64_t *ret_previous, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    int64_t previous, now = time_wall_ns();

    TRY(meta_begin(m, &tx, e));
    TRY(alias_get(m, mv->model, mv->alias, &previous, e));
    if (previous != mv->version) {
        TRY(write_alias(m, mv, now, e));
        TRY(write_history(m, mv, previous, now, e));
        TRY(write_fact(m, mv, previous, e));
    }
    TRY(meta_commit(&tx, e));
    if (ret_previous)
        *ret_previous = previous;
    return 0;
}

/* --- Looking back ----------------------------------------------------------------------------- */

int alias_history(struct meta *m, str model, uint32_t limit, struct arena *a,
                  struct json **ret_list, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *list = json_new_array(a);
    int rc;

    TRY(meta_query(m,
                   "SELECT alias, seq, version, previous_version, at_ns, actor, reason, correlation"
                   " FROM alias_history WHERE model = ? ORDER BY at_ns DESC, alias, seq DESC"
                   " LIMIT ?",
                   M_ARGS(M_STR(model), M_INT(limit)), &rows, e));
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
