/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which versions an endpoint gets:
 *   fixed split      `versions` of the project file, by number
 *   else             the version under the endpoint's alias (the champion), with all the traffic
 * but the share that a rollout has given to its challenger and in shadow    the version that a
 * rollout shadows, or the one under the `shadow` alias
 *
 * Routed versions of one endpoint must have the same inputs and outputs, since a request is read
 * before it is routed: a schema change needs an endpoint of its own. A challenger or shadow that
 * has others, or that is not registered, is left out with a line in the log, and its share goes to
 * the champion: one bad candidate must not keep the other endpoints, or its own way back, from the
 * plan. A champion or a fixed split that cannot be compiled is an error, and the last plan stands.
 *
 * A rollout's state counts only for the model that it is of: the endpoint may have been given
 * another one since.
 */
#include "server/compile_priv.h"

#include "base/log.h"
#include "journal/alias.h"

/* --- What to route ---------------------------------------------------------------------------- */

int compile_alias_version(struct compiler *c, str alias, int64_t *ret_version, struct err *e)
{
    return alias_get(c->m, c->model, alias, ret_version, e);
}

/* Shares of thirds and the like, rounded, need not add up: the largest takes the difference. */
static void settle(struct routed *list, size_t n)
{
    int64_t sum = 0;
    size_t most = 0;

    for (size_t i = 0; i < n; i++) {
        sum += list[i].weight;
        most = list[i].weight > list[most].weight ? i : most;
    }
    if (n && sum != (int64_t)PLAN_WEIGHT_ONE &&
        (sum > (int64_t)PLAN_WEIGHT_ONE ? sum - (int64_t)PLAN_WEIGHT_ONE
                                        : (int64_t)PLAN_WEIGHT_ONE - sum) <= (int64_t)n)
        list[most].weight = (uint32_t)((int64_t)list[most].weight + PLAN_WEIGHT_ONE - sum);
}

static NODISCARD int fixed_split(struct compiler *c, const struct json *split, struct routed *list,
                                 size_t *n, struct err *e)
{
    JSON_EACH (share, split) {
        int64_t version;

        if (*n == PLAN_VERSIONS_MAX)
            return FAIL(e, OUT_OF_RANGE, "endpoint '" STR_F "' splits over more than %d versions",
                        STR_A(c->name), PLAN_VERSIONS_MAX);
        if (!str_to_i64(share->key, &version))
            return FAIL(e, INVALID_ARGUMENT, "endpoint '" STR_F "': '" STR_F "' is not a version",
                        STR_A(c->name), STR_A(share->key));
        list[(*n)++] = (struct routed){
            version, (uint32_t)(CLAMP(json_real_or(share, 0), 0.0, 1.0) * PLAN_WEIGHT_ONE + 0.5),
            false, "split"};
    }
    settle(list, *n);
    return 0;
}

/* The rollout under way on the endpoint, if it is one of its model; else NULL. */
static NODISCARD int rollout_state(struct compiler *c, struct json **ret, struct err *e)
{
    struct json *state = NULL;

    TRY(meta_kv_get(c->m, S("rollout"), c->name, c->a, &state, e));
    *ret = state && str_eq(json_str_or(json_get(state, S("model")), c->model), c->model) ? state
                                                                                         : NULL;
    return 0;
}

static NODISCARD int by_alias(struct compiler *c, struct routed *list, size_t *n, struct err *e)
{
    str alias = json_str_or(json_get(c->endpoint, S("alias")), S("champion"));
    struct json *rollout = NULL;
    int64_t champion, challenger, weight;

    TRY(compile_alias_version(c, alias, &champion, e));
    if (!champion)
        return 0;
    TRY(rollout_state(c, &rollout, e));
    challenger = json_int_or(json_get(rollout, S("challenger")), 0);
    weight = CLAMP(json_int_or(json_get(rollout, S("weight_bp")), 0), 0, (int64_t)PLAN_WEIGHT_ONE);
    if (!challenger || challenger == champion)
        challenger = weight = 0;
    if (weight < PLAN_WEIGHT_ONE)
        list[(*n)++] =
            (struct routed){champion, PLAN_WEIGHT_ONE - (uint32_t)weight, false, "champion"};
    if (weight)
        list[(*n)++] = (struct routed){challenger, (uint32_t)weight, false, "challenger"};
    /* On call, without traffic: a way back that is loaded and warm. */
    if (weight == PLAN_WEIGHT_ONE)
        list[(*n)++] = (struct routed){champion, 0, false, "champion"};
    else if (challenger && !weight)
        list[(*n)++] = (struct routed){challenger, 0, false, "previous"};
    return 0;
}

static NODISCARD int add_shadow(struct compiler *c, struct routed *list, size_t *n, struct err *e)
{
    str alias = json_str_or(json_get(c->endpoint, S("shadow")), S(""));
    struct json *rollout = NULL;
    int64_t version;

    TRY(rollout_state(c, &rollout, e));
    version = json_int_or(json_get(rollout, S("shadow")), 0);
    if (!version && alias.n)
        TRY(compile_alias_version(c, alias, &version, e));
    for (size_t i = 0; i < *n; i++)
        if (list[i].version == version)
            return 0; /* it answers already */
    if (version && *n && *n < PLAN_VERSIONS_MAX)
        list[(*n)++] = (struct routed){version, 0, true, "shadow"};
    return 0;
}

/* --- The part --------------------------------------------------------------------------------- */

/* What somebody holds by hand: api/breaker.c. */
static NODISCARD int add_breaker(struct compiler *c, struct json *part, int64_t version,
                                 struct err *e)
{
    struct json *held;
    str state;

    TRY(meta_kv_get(c->m, S("breaker"), c->name, c->a, &held, e));
    state = json_str_or(json_get(held, arena_printf(c->a, "%lld", (long long)version)), STR_NULL);
    if (state.n && !str_eq(state, S("auto")))
        json_set_str(c->a, part, S("breaker"), state);
    return 0;
}

static NODISCARD int version_part(struct compiler *c, const struct routed *r,
                                  struct json **ret_part, struct json **ret_signature,
                                  struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *part = json_new_object(c->a), *meta;

    TRY(meta_first(c->m,
                   "SELECT artifact, meta FROM model_versions WHERE model = ? AND version = ?",
                   M_ARGS(M_STR(c->model), M_INT(r->version)), &rows, e));
    if (!rows)
        return FAIL(e, NOT_FOUND,
                    "endpoint '" STR_F "': model '" STR_F
                    "' has no version %lld; register it first",
                    STR_A(c->name), STR_A(c->model), (long long)r->version);
    TRY(json_parse(meta_str_dup(rows, 1, c->a), c->a, &meta, e));
    TRY(json_need_object(meta, S("signature"), ret_signature, e));
    json_set_int(c->a, part, S("version"), r->version);
    json_set_int(c->a, part, S("weight"), r->weight);
    json_set_bool(c->a, part, S("shadow"), r->shadow);
    json_set_str(c->a, part, S("arm"), str_of(r->arm));
    json_set_str(c->a, part, S("artifact"), meta_str_dup(rows, 0, c->a));
    json_set_str(c->a, part, S("platform"),
                 json_str_or(json_get(meta, S("platform")), S("onnxruntime_onnx")));
    json_set_str(c->a, part, S("profile"), json_str_or(json_get(meta, S("profile")), S("")));
    TRY(add_breaker(c, part, r->version, e));
    *ret_part = part;
    return 0;
}

static bool same_member(const struct json *a, const struct json *b, str key)
{
    const struct json *x = json_get(a, key), *y = json_get(b, key);

    return x && y ? json_equal(x, y) : x == y;
}

static bool same_tensors(const struct json *a, const struct json *b)
{
    return same_member(a, b, S("inputs")) && same_member(a, b, S("outputs"));
}

/* The part of a version beside the one that `first` is the signature of. */
static NODISCARD int version_beside(struct compiler *c, const struct routed *r,
                                    const struct json *first, int64_t first_version,
                                    struct json **ret_part, struct err *e)
{
    struct json *signature = NULL;

    TRY(version_part(c, r, ret_part, &signature, e));
    if (same_tensors(first, signature))
        return 0;
    return FAIL(e, FAILED_PRECONDITION,
                "endpoint '" STR_F "': version %lld has other inputs or outputs than version "
                "%lld; serve it on an endpoint of its own",
                STR_A(c->name), (long long)r->version, (long long)first_version);
}

/* Versions that a rollout or an alias added; a fixed split was asked for by number. */
static bool may_be_left_out(const struct routed *r)
{
    return str_eqz(S("challenger"), r->arm) || str_eqz(S("previous"), r->arm) || r->shadow ||
           str_eqz(S(COMPILE_ARM_FALLBACK), r->arm);
}

/* The champion stands first in what is compiled, since its signature is the endpoint's. */
static void champion_first(struct routed *list, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (str_eqz(S("champion"), list[i].arm)) {
            const struct routed champion = list[i];

            list[i] = list[0];
            list[0] = champion;
        }
}

static NODISCARD int add_list(struct compiler *c, struct json *part, struct routed *list, size_t n,
                              struct err *e)
{
    struct json *parts[COMPILE_ROUTED_MAX] = {0}, *first = NULL;
    struct json *versions = json_set(part, S("versions"), json_new_array(c->a));
    uint32_t homeless = 0;

    champion_first(list, n);
    if (n) {
        TRY(version_part(c, &list[0], &parts[0], &first, e));
        json_set(part, S("signature"), json_copy(c->a, first));
    }
    for (size_t i = 1; i < n; i++) {
        int rc = version_beside(c, &list[i], first, list[0].version, &parts[i], e);

        if (rc && !(may_be_left_out(&list[i]) &&
                    (rc == CODE_FAILED_PRECONDITION || rc == CODE_NOT_FOUND)))
            return rc;
        if (rc) {
            log_err("plan.version_left_out", e);
            parts[i] = NULL;
            homeless += list[i].weight;
        }
    }
    if (homeless)
        json_set_int(c->a, parts[0], S("weight"), list[0].weight + homeless);
    for (size_t i = 0; i < n; i++)
        if (parts[i])
            json_push(versions, parts[i]);
    return 0;
}

static NODISCARD int add_versions(struct compiler *c, struct json *part, struct err *e)
{
    const struct json *split = json_get(c->endpoint, S("versions"));
    struct routed list[COMPILE_ROUTED_MAX];
    size_t n = 0;

    if (json_is_container(split) && split->count)
        TRY(fixed_split(c, split, list, &n, e));
    else
        TRY(by_alias(c, list, &n, e));
    TRY(add_shadow(c, list, &n, e));
    TRY(compile_fallback_versions(c, list, &n, e));
    return add_list(c, part, list, n, e);
}

/* The threshold of the project wins over the one that the version was registered with. */
static void apply_threshold(struct compiler *c, struct json *part)
{
    const struct json *model = json_get(json_get(c->project, S("models")), c->model);
    const struct json *threshold = json_get(model, S("threshold"));
    struct json *reading = json_path(part, "signature.reading");

    if (reading && threshold && json_int_or(json_get(reading, S("positive")), -1) >= 0)
        json_set_real(c->a, reading, S("threshold"), json_real_or(threshold, 0.5));
}

/* What the project does with answers is of today, not of when the version was made. */
static void apply_post(struct compiler *c, struct json *part)
{
    const struct json *model = json_get(json_get(c->project, S("models")), c->model);
    const struct json *post = json_path(model, "pipeline.post");

    if (json_is_container(post))
        json_set(part, S("post"), json_copy(c->a, post));
}

static int64_t number(const struct json *node, const char *path, int64_t def)
{
    return json_int_or(json_path(node, path), def);
}

static NODISCARD int endpoint_part(struct compiler *c, struct json **ret_part, struct err *e)
{
    struct json *part = json_new_object(c->a), *sticky;
    const struct json *aliases = json_get(c->endpoint, S("aliases"));
    int64_t body = number(c->project, "gateway.body_bytes_max", 8 << 20);

    json_set_str(c->a, part, S("kind"), S("endpoint"));
    json_set_int(c->a, part, S("format"), PLAN_FORMAT);
    json_set_str(c->a, part, S("name"), c->name);
    json_set_str(c->a, part, S("model"), c->model);
    json_set_int(c->a, part, S("timeout_ns"), number(c->endpoint, "timeout_ns", 1000000000));
    json_set_int(c->a, part, S("body_bytes_max"), number(c->endpoint, "body_bytes_max", body));
    json_set_int(c->a, part, S("rows_max"), MIN(number(c->endpoint, "rows_max", 1000), 65536));
    json_set_int(c->a, part, S("inflight_max"), number(c->endpoint, "queue.inflight_max", 1024));
    if (json_get(c->endpoint, S("limits")) && json_get(c->endpoint, S("limits"))->type != JSON_NULL)
        json_set(part, S("limit"), json_copy(c->a, json_get(c->endpoint, S("limits"))));
    json_set_bool(c->a, part, S("durable_log"),
                  json_bool_or(json_get(c->endpoint, S("durable_log")), false));
    if (json_get(c->endpoint, S("queue")))
        json_set(part, S("queue"), json_copy(c->a, json_get(c->endpoint, S("queue"))));
    if (json_get(c->endpoint, S("compute")))
        json_set(part, S("compute"), json_copy(c->a, json_get(c->endpoint, S("compute"))));
    sticky = json_set(part, S("sticky"), json_new_object(c->a));
    json_set_str(c->a, sticky, S("field"),
                 json_str_or(json_path(c->endpoint, "sticky.field"), S("")));
    json_set_str(c->a, sticky, S("header"),
                 json_str_or(json_path(c->endpoint, "sticky.header"), S("")));
    json_set_str(c->a, sticky, S("salt"), c->name);
    if (json_is_container(aliases) && aliases->count)
        json_set(part, S("aliases"), json_copy(c->a, aliases));
    TRY(add_versions(c, part, e));
    apply_threshold(c, part);
    apply_post(c, part);
    TRY(compile_fallback(c, part, e));
    if (json_is_container(json_get(c->endpoint, S("idempotency"))))
        json_set(part, S("idempotency"), json_copy(c->a, json_get(c->endpoint, S("idempotency"))));
    *ret_part = part;
    return 0;
}

static NODISCARD int compile(struct compiler *c, struct json *root, struct err *e)
{
    struct json *parts = json_set(root, S("endpoints"), json_new_object(c->a));
    const struct json *endpoints = json_get(c->project, S("endpoints"));
    char hash[PLAN_HASH_SIZE];

    if (!json_is_container(endpoints))
        return 0;
    JSON_EACH (endpoint, endpoints) {
        struct json *part = NULL;

        c->endpoint = endpoint;
        c->name = endpoint->key;
        TRY(json_need_str(endpoint, S("model"), &c->model, e));
        TRY(endpoint_part(c, &part, e));
        TRY(plan_part_put(c->blobs, part, hash, e));
        json_set_str(c->a, parts, c->name, arena_dup(c->a, str_of(hash)));
    }
    return 0;
}

/* Who may ask, if the project or a key says anything of it. */
static NODISCARD int compile_auth(struct compiler *c, const struct access_env *access,
                                  struct json *root, struct err *e)
{
    char hash[PLAN_HASH_SIZE];
    struct json *part;

    TRY(access_part(access, c->m, c->project, c->a, &part, e));
    if (!part)
        return 0;
    TRY(plan_part_put(c->blobs, part, hash, e));
    json_set_str(c->a, root, S("auth"), arena_dup(c->a, str_of(hash)));
    return 0;
}

int compile_plan(const struct access_env *access, struct meta *m, struct blobs *blobs,
                 char ret_hash[PLAN_HASH_SIZE], struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct compiler c = {.m = m, .blobs = blobs, .a = &a};
    struct json *applied, *root;
    char hash[PLAN_HASH_SIZE];
    struct plan *plan;

    arena_init(&a, 0);
    TRY(meta_kv_get(m, S("project"), S("applied"), &a, &applied, e));
    if (!applied)
        return FAIL(e, NOT_FOUND, "no project is applied: run weir apply");
    c.project = json_get(applied, S("tree"));
    root = json_new_object(&a);
    json_set_str(&a, root, S("kind"), S("plan"));
    json_set_int(&a, root, S("format"), PLAN_FORMAT);
    json_set_str(&a, root, S("project"), json_str_or(json_get(c.project, S("project")), S("")));
    if (json_get(c.project, S("gateway")))
        json_set(root, S("gateway"), json_copy(&a, json_get(c.project, S("gateway"))));
    TRY(compile_auth(&c, access, root, e));
    TRY(compile(&c, root, e));
    TRY(plan_part_put(blobs, root, hash, e));
    TRY(plan_load(blobs, str_of(hash), &a, &plan, e));
    memcpy(ret_hash, hash, sizeof(hash));
    return 0;
}
