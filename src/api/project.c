/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The applied project: what people want, as of the last apply.
 *
 * An apply names the state it was planned from (`base`). If another apply came between, it is
 * refused with both differences: what the other one did, and what this one would undo; nothing is
 * merged in silence.
 */
#include "api/priv.h"

#include "base/time.h"
#include "project/project.h"
#include "registry/contract.h"

static NODISCARD int diff_tree(const struct project_change *first, struct arena *a,
                               struct json **ret, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};

    buf_init(&text, API_ANSWER_BYTES_MAX);
    project_diff_json(first, &text);
    TRY(json_parse(arena_dup(a, buf_str(&text)), a, ret, e));
    *ret = json_get(*ret, S("changes"));
    return 0;
}

/* The tree of the request, checked as strictly as the file. */
static NODISCARD int read_tree(struct api_request *rq, struct project_result *ret, struct err *e)
{
    AUTO(buf_done) struct buf problems = {0};
    struct json *tree, *details;
    int rc;

    TRY(json_need_object(rq->body, S("tree"), &tree, e));
    rc = project_normalise(tree, rq->a, ret, e);
    if (rc && ret->problem_count) {
        struct err ignored;

        buf_init(&problems, 1 << 20);
        project_problems_json(ret, &problems);
        if (!json_parse(arena_dup(rq->a, buf_str(&problems)), rq->a, &details, &ignored))
            rq->error_details = details;
    }
    return rc;
}

/* --- References that only the state can answer ------------------------------------------------ */

static NODISCARD int check_references(struct api *api, struct api_request *rq,
                                      const struct json *tree, struct err *e)
{
    const struct json *endpoints = json_get(tree, S("endpoints"));

    if (!json_is_container(endpoints))
        return 0;
    JSON_EACH (endpoint, endpoints) {
        const struct json *split = json_get(endpoint, S("versions"));
        str model = json_str_or(json_get(endpoint, S("model")), S(""));

        TRY(api_check_fallback(api, rq, tree, endpoint, e));
        if (!json_is_container(split))
            continue;
        JSON_EACH (share, split) {
            int64_t version;

            if (!str_to_i64(share->key, &version))
                return FAIL(e, INVALID_ARGUMENT,
                            "endpoints." STR_F ".versions: '" STR_F "' is not a version number",
                            STR_A(endpoint->key), STR_A(share->key));
            if (api_need_version(api->ctx.meta, model, version, e))
                return err_context(e, "endpoints." STR_F ".versions", STR_A(endpoint->key));
        }
    }
    return 0;
}

/* --- Handlers --------------------------------------------------------------------------------- */

int api_project_get(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *applied;

    TRY(meta_kv_get(api->ctx.meta, S("project"), S("applied"), rq->a, &applied, e));
    if (!applied)
        return FAIL(e, NOT_FOUND, "no project is applied: run weir apply");
    jo_node(rq->out, applied);
    return 0;
}

int api_project_plan(struct api *api, struct api_request *rq, struct err *e)
{
    struct project_result r;
    struct json *before, *changes, *notes;
    str base;

    TRY(read_tree(rq, &r, e));
    TRY(api_applied(api, rq->a, &before, &base, e));
    TRY(check_references(api, rq, r.norm, e));
    TRY(diff_tree(project_diff(before, r.norm, rq->a), rq->a, &changes, e));
    TRY(registry_contract_notes(api->ctx.meta, before, r.norm, rq->a, &notes, e));
    jo_object(rq->out);
    jo_kstr(rq->out, S("base"), base);
    jo_kstr(rq->out, S("hash"), str_of(r.hash));
    jo_key(rq->out, S("changes"));
    jo_node(rq->out, changes);
    jo_key(rq->out, S("notes"));
    jo_node(rq->out, notes);
    jo_object_end(rq->out);
    return 0;
}

/* The plan was made from `base`, and something else is applied now. */
static NODISCARD int refuse_stale(struct api_request *rq, const struct json *now, str now_hash,
                                  str base, const struct json *wanted, struct err *e)
{
    struct json *theirs, *yours, *details = json_new_object(rq->a);
    const struct json *base_tree = json_get(rq->body, S("base_tree"));

    if (base_tree && base_tree->type == JSON_OBJECT) {
        struct project_result r;

        TRY(project_normalise(base_tree, rq->a, &r, e));
        TRY(diff_tree(project_diff(r.norm, now, rq->a), rq->a, &theirs, e));
        json_set(details, S("theirs"), theirs);
    }
    TRY(diff_tree(project_diff(now, wanted, rq->a), rq->a, &yours, e));
    json_set(details, S("yours"), yours);
    json_set_str(rq->a, details, S("base"), base);
    json_set_str(rq->a, details, S("applied"), now_hash);
    rq->error_details = details;
    return FAIL(e, ABORTED,
                "the plan is stale: it was made from %.12s, and %.12s is applied now; "
                "plan again",
                base.n ? base.p : "nothing", now_hash.n ? now_hash.p : "nothing");
}

static NODISCARD int store(struct api *api, struct api_request *rq, const struct project_result *r,
                           struct json *changes, str reason, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct meta *m = api->ctx.meta;
    struct json *value = json_new_object(rq->a), *data = json_new_object(rq->a);
    struct fact_new fact = {.type = FACT_PROJECT_APPLIED, .actor = rq->actor, .reason = reason};

    json_set_str(rq->a, value, S("hash"), str_of(r->hash));
    json_set_int(rq->a, value, S("applied_ns"), time_wall_ns());
    json_set_str(rq->a, value, S("actor"), rq->actor);
    json_set(value, S("tree"), r->norm);
    json_set_str(rq->a, data, S("hash"), str_of(r->hash));
    json_set_int(rq->a, data, S("count"), (int64_t)changes->count);
    json_set(data, S("changes"), changes);
    fact.subject = arena_printf(rq->a, "project/" STR_F,
                                STR_A(json_str_or(json_get(r->norm, S("project")), S(""))));
    fact.data = data;
    TRY(meta_begin(m, &tx, e));
    TRY(meta_kv_put(m, S("project"), S("applied"), value, e));
    TRY(journal_append(m, &fact, NULL, e));
    return meta_commit(&tx, e);
}

int api_project_apply(struct api *api, struct api_request *rq, struct err *e)
{
    struct project_result r;
    struct json *before, *changes, *notes;
    str now_hash, base, reason;

    TRY(read_tree(rq, &r, e));
    TRY(api_body_str(rq, S("base"), &base, e));
    TRY(api_body_str(rq, S("reason"), &reason, e));
    TRY(api_applied(api, rq->a, &before, &now_hash, e));
    if (!json_get(rq->body, S("base")))
        return FAIL(e, INVALID_ARGUMENT, "base is missing: the hash that the plan was made from");
    if (!str_eq(base, now_hash))
        return refuse_stale(rq, before, now_hash, base, r.norm, e);
    TRY(check_references(api, rq, r.norm, e));
    TRY(diff_tree(project_diff(before, r.norm, rq->a), rq->a, &changes, e));
    TRY(registry_contract_notes(api->ctx.meta, before, r.norm, rq->a, &notes, e));
    if (!str_eqz(now_hash, r.hash)) {
        TRY(store(api, rq, &r, changes, reason, e));
        api_told_changed(api);
    }
    jo_object(rq->out);
    jo_kbool(rq->out, S("applied"), true);
    jo_kstr(rq->out, S("hash"), str_of(r.hash));
    jo_key(rq->out, S("changes"));
    jo_node(rq->out, changes);
    jo_key(rq->out, S("notes"));
    jo_node(rq->out, notes);
    jo_object_end(rq->out);
    return 0;
}
