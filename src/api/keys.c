/* SPDX-License-Identifier: Apache-2.0 */
/*
 * API keys of the gateway. Whoever makes a key gets its secret in the answer, so keys are made,
 * rotated and revoked on the unix socket alone, which the file system guards; the TCP port, which
 * has no passwords, only lists them.
 */
#include "api/priv.h"

#include "access/access.h"
#include "base/time.h"

#define OVERLAP_NS (24 * 3600 * NS_PER_S)
#define OVERLAP_NS_MAX (INT64_C(90) * 86400 * NS_PER_S)

static NODISCARD int need_socket(const struct api_request *rq, struct err *e)
{
    if (!rq->is_tcp)
        return 0;
    return FAIL(
        e, PERMISSION_DENIED,
        "keys are handled on the unix socket of control only: run weir key on this machine");
}

static struct access_env env_of(const struct api *api)
{
    return (struct access_env){api->ctx.state_dir, api->ctx.project_dir};
}

/* "100/s", "1000/h", "5/10s" as the object that plans hold. */
static NODISCARD int read_rate(struct api_request *rq, const struct json **ret_rate, struct err *e)
{
    const struct json *burst = json_get(rq->body, S("burst"));
    int64_t requests = 0, per_ns = 0;
    struct json *rate;
    str text, rest, n;

    TRY(api_body_str(rq, S("rate"), &text, e));
    if (!text.n)
        return burst ? FAIL(e, INVALID_ARGUMENT, "burst has no meaning without rate") : 0;
    rest = text;
    n = str_cut(&rest, '/');
    if (rest.n && (rest.p[0] < '0' || rest.p[0] > '9'))
        rest = arena_printf(rq->a, "1" STR_F, STR_A(rest));
    if (!str_to_i64(n, &requests) || !rest.n || !time_parse_duration(rest, &per_ns))
        return FAIL(e, INVALID_ARGUMENT, "rate is '" STR_F "', expected such as 100/s or 1000/h",
                    STR_A(str_take(text, 60)));
    rate = json_new_object(rq->a);
    json_set_int(rq->a, rate, S("requests"), requests);
    json_set_int(rq->a, rate, S("per_ns"), per_ns);
    json_set_int(rq->a, rate, S("burst"), json_int_or(burst, requests));
    *ret_rate = rate;
    return 0;
}

/* A time from now, such as 30d, or an instant. */
static NODISCARD int read_expiry(struct api_request *rq, int64_t *ret_ns, struct err *e)
{
    int64_t ns;
    str text;

    TRY(api_body_str(rq, S("expires"), &text, e));
    if (!text.n)
        return 0;
    if (time_parse_duration(text, &ns))
        ns = MIN(ns, INT64_MAX - time_wall_ns()) + time_wall_ns();
    else if (!time_parse_iso(text, &ns))
        return FAIL(e, INVALID_ARGUMENT,
                    "expires is '" STR_F "', expected such as 30d or 2027-01-01T00:00:00Z",
                    STR_A(str_take(text, 60)));
    *ret_ns = ns;
    return 0;
}

static void write_made(struct api_request *rq, const struct access_key_made *made)
{
    jo_object(rq->out);
    jo_kstr(rq->out, S("id"), made->id);
    jo_kstr(rq->out, S("prefix"), made->prefix);
    jo_kstr(rq->out, S("key"), str_of(made->secret));
    if (made->until_ns)
        jo_kint(rq->out, S("old_until_ns"), made->until_ns);
    jo_object_end(rq->out);
}

int api_key_create(struct api *api, struct api_request *rq, struct err *e)
{
    struct access_env env = env_of(api);
    struct access_key_new want = {.actor = rq->actor};
    struct access_key_made made;
    struct json *tree;
    str hash;

    TRY(need_socket(rq, e));
    TRY(api_applied(api, rq->a, &tree, &hash, e));
    TRY(json_need_str(rq->body, S("name"), &want.name, e));
    TRY(json_need_str(rq->body, S("role"), &want.role, e));
    TRY(api_body_str(rq, S("tenant"), &want.tenant, e));
    TRY(api_body_str(rq, S("tier"), &want.tier, e));
    TRY(api_body_str(rq, S("reason"), &want.reason, e));
    TRY(read_rate(rq, &want.rate, e));
    TRY(read_expiry(rq, &want.expires_ns, e));
    want.endpoints = json_get(rq->body, S("endpoints"));
    TRY(access_key_create(&env, api->ctx.meta, tree, &want, rq->a, &made, e));
    api_told_changed(api);
    write_made(rq, &made);
    return 0;
}

int api_keys_list(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *list;

    TRY(access_keys_list(api->ctx.meta, rq->a, &list, e));
    jo_object(rq->out);
    jo_key(rq->out, S("keys"));
    jo_node(rq->out, list);
    jo_object_end(rq->out);
    return 0;
}

int api_key_rotate(struct api *api, struct api_request *rq, struct err *e)
{
    struct access_env env = env_of(api);
    struct access_key_made made;
    int64_t overlap_ns = OVERLAP_NS;
    str overlap, reason;

    TRY(need_socket(rq, e));
    TRY(api_body_str(rq, S("overlap"), &overlap, e));
    TRY(api_body_str(rq, S("reason"), &reason, e));
    if (overlap.n && (!time_parse_duration(overlap, &overlap_ns) || overlap_ns > OVERLAP_NS_MAX))
        return FAIL(e, INVALID_ARGUMENT, "overlap is '" STR_F "', expected 0s to 90d",
                    STR_A(str_take(overlap, 60)));
    TRY(access_key_rotate(&env, api->ctx.meta, rq->param[0], overlap_ns, rq->actor, reason, rq->a,
                          &made, e));
    api_told_changed(api);
    write_made(rq, &made);
    return 0;
}

int api_key_revoke(struct api *api, struct api_request *rq, struct err *e)
{
    str reason, id;

    TRY(need_socket(rq, e));
    TRY(api_body_str(rq, S("reason"), &reason, e));
    TRY(access_key_revoke(api->ctx.meta, rq->param[0], rq->actor, reason, rq->a, &id, e));
    api_told_changed(api);
    jo_object(rq->out);
    jo_kstr(rq->out, S("id"), id);
    jo_kstr(rq->out, S("state"), S("revoked"));
    jo_object_end(rq->out);
    return 0;
}
