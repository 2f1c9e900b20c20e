/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads plans out of the blob store and writes parts into it. The structs are plain data in an
 * arena; nothing here opens a model or a socket, so that control can check a plan with the very
 * code that the gateway will read it with, before anybody is told of it.
 */
#include "plan/plan.h"

#include "plan/auth.h"
#include "plan/fallback.h"

#include "base/files.h"
#include "base/hash.h"

#include <stdlib.h>

#define PART_BYTES_MAX ((size_t)64 << 20)

static NODISCARD int check_format(const struct json *part, struct err *e)
{
    int64_t format = json_int_or(json_get(part, S("format")), -1);

    if (format != PLAN_FORMAT)
        return FAIL(
            e, FAILED_PRECONDITION,
            "plan format %lld is not the one this program reads (%d): update both processes",
            (long long)format, PLAN_FORMAT);
    return 0;
}

static NODISCARD int need_positive(const struct json *part, str key, int64_t max, int64_t *ret,
                                   struct err *e)
{
    TRY(json_need_int(part, key, ret, e));
    if (*ret <= 0 || *ret > max)
        return FAIL(e, OUT_OF_RANGE, STR_F " is %lld, expected 1 to %lld", STR_A(key),
                    (long long)*ret, (long long)max);
    return 0;
}

/* Absent in parts of older programs. */
static NODISCARD int read_compute(const struct json *part, struct plan_compute *c, struct err *e)
{
    static const str places[] = {S_INIT("auto"), S_INIT("loops"), S_INIT("crew")};
    const struct json *o = json_get(part, S("compute"));
    str place = json_str_or(json_get(o, S("place")), places[0]);
    int64_t workers = json_int_or(json_get(o, S("workers")), 0);
    int64_t threads = json_int_or(json_get(o, S("threads")), 1);
    size_t i = 0;

    while (i < ARRAY_LEN(places) && !str_eq(places[i], place))
        i++;
    if (i == ARRAY_LEN(places))
        return FAIL(e, INVALID_ARGUMENT,
                    "compute.place is '" STR_F "', expected auto, loops or crew",
                    STR_A(str_take(place, 32)));
    if (workers < 0 || workers > PLAN_THREADS_MAX || threads < 1 || threads > PLAN_THREADS_MAX)
        return FAIL(e, OUT_OF_RANGE,
                    "compute has %lld workers of %lld threads, expected at most %d",
                    (long long)workers, (long long)threads, PLAN_THREADS_MAX);
    *c = (struct plan_compute){(enum plan_place)i, (uint32_t)workers, (uint32_t)threads};
    return 0;
}

/* Absent in parts of older programs. */
static NODISCARD int read_queue(const struct json *part, struct plan_queue *q, struct err *e)
{
    const struct json *o = json_get(part, S("queue"));
    int64_t limit = json_int_or(json_get(o, S("limit")), 0);
    int64_t limit_min = json_int_or(json_get(o, S("limit_min")), PLAN_LIMIT_MIN_DEFAULT);
    int64_t priority = json_int_or(json_get(o, S("priority")), PLAN_PRIORITY_DEFAULT);

    if (limit < 0 || limit > PLAN_INFLIGHT_MAX || limit_min < 1 || limit_min > PLAN_INFLIGHT_MAX)
        return FAIL(e, OUT_OF_RANGE,
                    "queue has the limit %lld and limit_min %lld, expected 1 to %d; no limit, or "
                    "0, is one that is learned",
                    (long long)limit, (long long)limit_min, PLAN_INFLIGHT_MAX);
    if (priority < 1 || priority > PLAN_PRIORITIES)
        return FAIL(e, OUT_OF_RANGE, "queue.priority is %lld, expected 1 to %d",
                    (long long)priority, PLAN_PRIORITIES);
    *q = (struct plan_queue){(uint32_t)limit, (uint32_t)limit_min, (uint8_t)priority};
    return 0;
}

static NODISCARD int read_limits(const struct json *part, struct plan_endpoint *ep, struct err *e)
{
    int64_t timeout_ns, body, rows, inflight;

    TRY(need_positive(part, S("timeout_ns"), PLAN_TIMEOUT_NS_MAX, &timeout_ns, e));
    TRY(need_positive(part, S("body_bytes_max"), INT64_C(1) << 32, &body, e));
    TRY(need_positive(part, S("rows_max"), 65536, &rows, e));
    TRY(need_positive(part, S("inflight_max"), PLAN_INFLIGHT_MAX, &inflight, e));
    ep->timeout_ns = (uint64_t)timeout_ns;
    ep->body_bytes_max = (uint64_t)body;
    ep->rows_max = (uint32_t)rows;
    ep->inflight_max = (uint32_t)inflight;
    ep->durable_log = json_bool_or(json_get(part, S("durable_log")), false);
    TRY(read_queue(part, &ep->queue, e));
    return read_compute(part, &ep->compute, e);
}

static NODISCARD int read_breaker(const struct json *item, enum plan_breaker *ret, struct err *e)
{
    str state = json_str_or(json_get(item, S("breaker")), S("auto"));

    if (str_eq(state, S("auto")))
        *ret = PLAN_BREAKER_AUTO;
    else if (str_eq(state, S("open")))
        *ret = PLAN_BREAKER_OPEN;
    else if (str_eq(state, S("closed")))
        *ret = PLAN_BREAKER_CLOSED;
    else
        return FAIL(e, INVALID_ARGUMENT, "breaker is '" STR_F "', expected open, closed or auto",
                    STR_A(str_take(state, 32)));
    return 0;
}

static NODISCARD int read_version(const struct json *item, struct arena *a, struct plan_version *v,
                                  struct err *e)
{
    int64_t version, weight;

    TRY(need_positive(item, S("version"), UINT32_MAX, &version, e));
    TRY(json_need_int(item, S("weight"), &weight, e));
    TRY(json_need_str(item, S("arm"), &v->arm, e));
    TRY(json_need_str(item, S("platform"), &v->platform, e));
    TRY(json_need_str(item, S("artifact"), &v->artifact, e));
    if (!str_is_name(v->arm)) /* it becomes a label of metrics */
        return FAIL(e, INVALID_ARGUMENT, "arm '" STR_F "' is not a name", STR_A(v->arm));
    if (weight < 0 || weight > PLAN_WEIGHT_ONE)
        return FAIL(e, OUT_OF_RANGE, "version %lld has weight %lld, expected 0 to %u",
                    (long long)version, (long long)weight, PLAN_WEIGHT_ONE);
    v->version = (uint32_t)version;
    v->weight = (uint32_t)weight;
    v->shadow = json_bool_or(json_get(item, S("shadow")), false);
    v->arm = arena_dup(a, v->arm);
    v->platform = arena_dup(a, v->platform);
    v->artifact = arena_dup(a, v->artifact);
    v->profile = arena_dup(a, json_str_or(json_get(item, S("profile")), S("")));
    return read_breaker(item, &v->breaker, e);
}

/* Weights sum to one, or there is nothing to route to and every weight is 0. */
static NODISCARD int check_weights(const struct plan_endpoint *ep, struct err *e)
{
    uint32_t sum = 0, shadows = 0;

    for (size_t i = 0; i < ep->version_count; i++) {
        const struct plan_version *v = &ep->versions[i];

        if (v->shadow && v->weight)
            return FAIL(e, INVALID_ARGUMENT, "shadow version %u has a weight", v->version);
        for (size_t j = 0; j < i; j++)
            if (ep->versions[j].version == v->version)
                return FAIL(e, INVALID_ARGUMENT, "version %u stands twice", v->version);
        sum += v->weight;
        shadows += v->shadow;
    }
    if (shadows > 1)
        return FAIL(e, INVALID_ARGUMENT, "%u shadow versions, at most one is run", shadows);
    if (sum != PLAN_WEIGHT_ONE && sum != 0)
        return FAIL(e, INVALID_ARGUMENT, "weights sum to %u, expected %u", sum, PLAN_WEIGHT_ONE);
    return 0;
}

static NODISCARD int read_versions(const struct json *part, struct arena *a,
                                   struct plan_endpoint *ep, struct err *e)
{
    struct json *list;

    TRY(json_need_array(part, S("versions"), &list, e));
    if (list->count > PLAN_VERSIONS_MAX)
        return FAIL(e, OUT_OF_RANGE, "%zu versions, at most %d are served side by side",
                    list->count, PLAN_VERSIONS_MAX);
    JSON_EACH (item, list)
        TRY(read_version(item, a, &ep->versions[ep->version_count++], e));
    return check_weights(ep, e);
}

static NODISCARD int endpoint_read(const struct json *part, struct arena *a,
                                   struct plan_endpoint *ep, struct err *e)
{
    struct json *signature, *sticky = json_get(part, S("sticky"));

    TRY(check_format(part, e));
    TRY(json_need_str(part, S("name"), &ep->name, e));
    TRY(json_need_str(part, S("model"), &ep->model, e));
    if (!str_is_name(ep->name))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' is not a name", STR_A(ep->name));
    ep->name = arena_dup(a, ep->name);
    ep->model = arena_dup(a, ep->model);
    ep->sticky_field = arena_dup(a, json_str_or(json_get(sticky, S("field")), S("")));
    ep->sticky_header = arena_dup(a, json_str_or(json_get(sticky, S("header")), S("")));
    ep->salt = arena_dup(a, json_str_or(json_get(sticky, S("salt")), ep->name));
    TRY(read_limits(part, ep, e));
    TRY(plan_rate_read(json_get(part, S("limit")), &ep->limit, e));
    TRY(plan_idempotency_read(json_get(part, S("idempotency")), &ep->idempotency, e));
    TRY(read_versions(part, a, ep, e));
    if (json_get(part, S("aliases")))
        ep->aliases = json_copy(a, json_get(part, S("aliases")));
    if (!ep->version_count)
        return 0; /* declared, but nothing is registered yet: not ready */
    TRY(json_need_object(part, S("signature"), &signature, e));
    TRY(plan_signature_read(signature, a, &ep->signature, e));
    TRY(plan_post_read(json_get(part, S("post")), &ep->signature.reading, a, &ep->post, e));
    return plan_fallback_read(json_get(part, S("fallback")), a, ep, e);
}

int plan_endpoint_read(const struct json *part, str hash, struct arena *a,
                       struct plan_endpoint *ret_endpoint, struct err *e)
{
    struct plan_endpoint ep = {.hash = arena_dup(a, hash)};

    if (endpoint_read(part, a, &ep, e))
        return err_context(e, "plan part of endpoint '" STR_F "'",
                           STR_A(json_str_or(json_get(part, S("name")), S("?"))));
    *ret_endpoint = ep;
    return 0;
}

static NODISCARD int part_get(struct blobs *blobs, str hash, struct arena *a,
                              struct json **ret_part, struct err *e)
{
    str text;

    TRY(blobs_get(blobs, hash, PART_BYTES_MAX, a, &text, e));
    return json_parse(text, a, ret_part, e);
}

static int by_name(const void *a, const void *b)
{
    return str_cmp(((const struct plan_endpoint *)a)->name,
                   ((const struct plan_endpoint *)b)->name);
}

int plan_endpoint_load(struct blobs *blobs, const struct plan_endpoint *want, struct arena *a,
                       struct plan_endpoint *ret_endpoint, struct err *e)
{
    struct json *part;

    if (part_get(blobs, want->hash, a, &part, e))
        return err_context(e, "plan part of endpoint '" STR_F "'", STR_A(want->name));
    TRY(plan_endpoint_read(part, want->hash, a, ret_endpoint, e));
    if (!str_eq(ret_endpoint->name, want->name))
        return FAIL(e, INVALID_ARGUMENT, "plan names endpoint '" STR_F "', its part '" STR_F "'",
                    STR_A(want->name), STR_A(ret_endpoint->name));
    return 0;
}

static NODISCARD int read_names(const struct json *names, struct arena *a, struct plan *plan,
                                struct err *e)
{
    if (names->count > PLAN_ENDPOINTS_MAX)
        return FAIL(e, OUT_OF_RANGE, "plan has %zu endpoints, at most %d are served by one gateway",
                    names->count, PLAN_ENDPOINTS_MAX);
    plan->endpoints = ARENA_ARRAY(a, struct plan_endpoint, names->count);
    JSON_EACH (item, names) {
        struct plan_endpoint *ep = &plan->endpoints[plan->endpoint_count++];

        ep->name = arena_dup(a, item->key);
        ep->hash = arena_dup(a, json_str_or(item, STR_NULL));
    }
    qsort(plan->endpoints, plan->endpoint_count, sizeof(*plan->endpoints), by_name);
    return 0;
}

int plan_root_load(struct blobs *blobs, str root_hash, struct arena *a, struct plan **ret_plan,
                   struct err *e)
{
    struct plan *plan = ARENA_NEW(a, struct plan);
    struct json *root, *names;

    if (!str_to_z(root_hash, plan->hash, sizeof(plan->hash)))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' is not a plan hash", STR_A(root_hash));
    if (part_get(blobs, root_hash, a, &root, e))
        return err_context(e, "plan " STR_F, STR_A(str_take(root_hash, 12)));
    TRY(check_format(root, e));
    TRY(json_need_str(root, S("project"), &plan->project, e));
    plan->gateway = json_get(root, S("gateway"));
    plan->auth = json_str_or(json_get(root, S("auth")), STR_NULL);
    TRY(json_need_object(root, S("endpoints"), &names, e));
    TRY(read_names(names, a, plan, e));
    *ret_plan = plan;
    return 0;
}

int plan_load(struct blobs *blobs, str root_hash, struct arena *a, struct plan **ret_plan,
              struct err *e)
{
    struct plan_auth auth;
    struct plan *plan;

    TRY(plan_root_load(blobs, root_hash, a, &plan, e));
    TRY(plan_auth_load(blobs, plan->auth, a, &auth, e));
    for (size_t i = 0; i < plan->endpoint_count; i++) {
        struct plan_endpoint want = plan->endpoints[i];

        TRY(plan_endpoint_load(blobs, &want, a, &plan->endpoints[i], e));
    }
    *ret_plan = plan;
    return 0;
}

int plan_part_put(struct blobs *blobs, const struct json *part, char ret_hash[PLAN_HASH_SIZE],
                  struct err *e)
{
    AUTO(buf_done) struct buf text = {0};

    buf_init(&text, PART_BYTES_MAX);
    json_write_canonical(&text, part);
    if (text.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "a plan part is larger than %zu bytes", PART_BYTES_MAX);
    return blobs_put(blobs, buf_str(&text), ret_hash, e);
}

static NODISCARD int pointer_write(const char *state_dir, const char *name, str root_hash,
                                   struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    char *dir;

    arena_init(&a, 0);
    dir = path_join(&a, state_dir, "plan");
    TRY(file_make_dirs(dir, e));
    return file_replace(path_join(&a, dir, name), root_hash, e);
}

static NODISCARD int pointer_read(const char *state_dir, const char *name,
                                  char ret_hash[PLAN_HASH_SIZE], struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    unsigned char digest[SHA256_BYTES];
    char *path;
    str text;

    arena_init(&a, 0);
    path = path_join(&a, path_join(&a, state_dir, "plan"), name);
    TRY(file_read_all(path, 4096, &a, &text, e));
    text = str_trim(text);
    if (text.n != PLAN_HASH_SIZE - 1 || !hex_decode(text, digest, sizeof(digest)))
        return FAIL(e, DATA_LOSS, "%s does not hold a plan hash: run weir apply again", path);
    memcpy(ret_hash, text.p, text.n);
    ret_hash[text.n] = '\0';
    return 0;
}

int plan_current_write(const char *state_dir, str root_hash, struct err *e)
{
    return pointer_write(state_dir, "current", root_hash, e);
}

int plan_current_read(const char *state_dir, char ret_hash[PLAN_HASH_SIZE], struct err *e)
{
    return pointer_read(state_dir, "current", ret_hash, e);
}

int plan_good_write(const char *state_dir, str root_hash, struct err *e)
{
    return pointer_write(state_dir, "good", root_hash, e);
}

int plan_good_read(const char *state_dir, char ret_hash[PLAN_HASH_SIZE], struct err *e)
{
    return pointer_read(state_dir, "good", ret_hash, e);
}

const struct plan_version *plan_route(const struct plan_endpoint *ep, uint32_t point)
{
    const struct plan_version *champion = NULL;
    uint32_t upto = 0;

    ASSERT(point < PLAN_WEIGHT_ONE);
    for (size_t i = 0; i < ep->version_count; i++) {
        const struct plan_version *v = &ep->versions[i];

        if (!v->weight)
            continue;
        if (!champion) {
            champion = v;
            continue;
        }
        upto += v->weight;
        if (point < upto)
            return v;
    }
    return champion;
}
