/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the auth part. It is checked as strictly as any other part although control wrote it: what
 * is let through here decides who is let in.
 */
#include "plan/auth.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/random.h"

#define AUTH_BYTES_MAX ((size_t)64 << 20)
#define NAME_BYTES_MAX 256

static const struct {
    const char *text;
    uint32_t permissions;
} roles[AUTH_ROLE_COUNT] = {
#define AUTH_ROLE(name, text, permissions, help) {text, (permissions) | MAY(PUBLIC)},
#include "plan/roles.def"
#undef AUTH_ROLE
};

static const char *const permissions[PERMISSION_COUNT] = {
#define PERMISSION(name, text, help) text,
#include "plan/permissions.def"
#undef PERMISSION
};

uint32_t auth_role_permissions(enum auth_role role)
{
    return roles[role].permissions;
}

const char *auth_role_text(enum auth_role role)
{
    return roles[role].text;
}

const char *permission_text(enum permission p)
{
    return permissions[p];
}

bool auth_role_find(str text, enum auth_role *ret_role, str *ret_near)
{
    str names[AUTH_ROLE_COUNT];

    for (unsigned i = 0; i < AUTH_ROLE_COUNT; i++) {
        names[i] = str_of(roles[i].text);
        if (text.n && i != AUTH_ROLE_ANONYMOUS && str_eq(text, names[i])) {
            *ret_role = (enum auth_role)i;
            return true;
        }
    }
    *ret_near = str_suggest(text, names, AUTH_ROLE_ANONYMOUS);
    return false;
}

/* --- Limits ----------------------------------------------------------------------------------- */

int plan_rate_read(const struct json *rate, struct plan_rate *ret, struct err *e)
{
    int64_t requests, per_ns, burst;

    if (!rate || rate->type == JSON_NULL)
        return 0;
    TRY(json_need_int(rate, S("requests"), &requests, e));
    TRY(json_need_int(rate, S("per_ns"), &per_ns, e));
    burst = json_int_or(json_get(rate, S("burst")), requests);
    if (requests < 1 || requests > PLAN_RATE_MAX || burst < 1 || burst > PLAN_RATE_MAX ||
        per_ns < 1000000 || per_ns > PLAN_TIMEOUT_NS_MAX)
        return FAIL(e, OUT_OF_RANGE,
                    "a rate of %lld requests in %lld ns with a burst of %lld: expected 1 to %d "
                    "requests in 1 ms to a day",
                    (long long)requests, (long long)per_ns, (long long)burst, PLAN_RATE_MAX);
    *ret = (struct plan_rate){(uint32_t)requests, (uint32_t)burst, per_ns};
    return 0;
}

static NODISCARD int read_limits(const struct json *limits, struct plan_auth *auth, struct err *e)
{
    TRY(plan_rate_read(json_get(limits, S("global")), &auth->global, e));
    TRY(plan_rate_read(json_get(limits, S("address")), &auth->address, e));
    return plan_rate_read(json_get(limits, S("tenant")), &auth->tenant, e);
}

/* --- What many things have -------------------------------------------------------------------- */

static NODISCARD int read_role(str text, enum auth_role *ret, struct err *e)
{
    str near;

    if (!auth_role_find(text, ret, &near))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' is not a role", STR_A(str_take(text, 64)));
    return 0;
}

static NODISCARD int read_texts(const struct json *list, size_t max, struct arena *a, str **ret,
                                size_t *ret_n, struct err *e)
{
    if (!list || list->type == JSON_NULL)
        return 0;
    if (list->type != JSON_ARRAY || list->count > max)
        return FAIL(e, INVALID_ARGUMENT, "expected a list of at most %zu texts", max);
    *ret = ARENA_ARRAY(a, str, list->count);
    JSON_EACH (item, list) {
        if (item->type != JSON_STR || !item->string.n || item->string.n > NAME_BYTES_MAX)
            return FAIL(e, INVALID_ARGUMENT, "a list holds what is no text of 1 to %d bytes",
                        NAME_BYTES_MAX);
        (*ret)[(*ret_n)++] = arena_dup(a, item->string);
    }
    return 0;
}

/* --- Keys ------------------------------------------------------------------------------------- */

static int64_t instant(const struct json *node)
{
    int64_t ns = json_int_or(node, 0);

    return ns > 0 ? ns : INT64_MAX;
}

static NODISCARD int read_secrets(const struct json *list, struct plan_key *k, struct err *e)
{
    if (list->count > PLAN_KEY_SECRETS_MAX)
        return FAIL(e, OUT_OF_RANGE, "%zu secrets, at most %d", list->count, PLAN_KEY_SECRETS_MAX);
    JSON_EACH (item, list) {
        struct plan_secret *s = &k->secrets[k->secret_count++];

        if (!hex_decode(json_str_or(json_get(item, S("hash")), STR_NULL), s->hash, sizeof(s->hash)))
            return FAIL(e, INVALID_ARGUMENT, "a hash of a secret is not 64 hexadecimal digits");
        s->until_ns = instant(json_get(item, S("until_ns")));
    }
    return 0;
}

static NODISCARD int read_key(const struct json *item, struct arena *a, struct plan_key *k,
                              struct err *e)
{
    struct json *secrets;
    str role;

    k->id = arena_dup(a, item->key);
    if (k->id.n != PLAN_KEY_ID_BYTES || !str_is_name(k->id))
        return FAIL(e, INVALID_ARGUMENT, "is no id of a key");
    TRY(json_need_str(item, S("role"), &role, e));
    TRY(read_role(role, &k->role, e));
    k->tenant = arena_dup(a, json_str_or(json_get(item, S("tenant")), S("")));
    TRY(read_texts(json_get(item, S("endpoints")), PLAN_KEY_ENDPOINTS_MAX, a, &k->endpoints,
                   &k->endpoint_count, e));
    TRY(plan_rate_read(json_get(item, S("rate")), &k->rate, e));
    k->per_day = json_int_or(json_get(item, S("per_day")), 0);
    k->per_month = json_int_or(json_get(item, S("per_month")), 0);
    if (k->per_day < 0 || k->per_month < 0 || k->tenant.n > NAME_BYTES_MAX)
        return FAIL(e, OUT_OF_RANGE, "a quota or the tenant is out of range");
    k->expires_ns = instant(json_get(item, S("expires_ns")));
    TRY(json_need_array(item, S("secrets"), &secrets, e));
    return read_secrets(secrets, k, e);
}

static NODISCARD int read_keys(const struct json *keys, struct arena *a, struct plan_auth *auth,
                               struct err *e)
{
    if (!json_is_container(keys))
        return 0;
    if (keys->count > PLAN_KEYS_MAX)
        return FAIL(e, OUT_OF_RANGE, "%zu keys, at most %d", keys->count, PLAN_KEYS_MAX);
    auth->keys = ARENA_ARRAY(a, struct plan_key, keys->count);
    JSON_EACH (item, keys)
        if (read_key(item, a, &auth->keys[auth->key_count++], e))
            return err_context(e, "key '" STR_F "'", STR_A(str_take(item->key, 64)));
    return 0;
}

/* --- Issuers ---------------------------------------------------------------------------------- */

static NODISCARD int read_algorithms(const struct json *list, struct plan_issuer *is, struct err *e)
{
    enum sign_alg alg;

    JSON_EACH (item, list) {
        if (!sign_alg_find(json_str_or(item, STR_NULL), &alg))
            return FAIL(e, INVALID_ARGUMENT, "an algorithm is none of RS256, ES256, EdDSA");
        is->algorithms |= 1u << alg;
    }
    return is->algorithms ? 0 : FAIL(e, INVALID_ARGUMENT, "no algorithm is allowed");
}

static NODISCARD int read_role_map(const struct json *map, struct arena *a, struct plan_issuer *is,
                                   struct err *e)
{
    if (!json_is_container(map))
        return 0;
    is->roles = ARENA_ARRAY(a, struct plan_role_map, map->count);
    JSON_EACH (item, map) {
        struct plan_role_map *r = &is->roles[is->role_count++];

        r->value = arena_dup(a, item->key);
        TRY(read_role(json_str_or(item, STR_NULL), &r->role, e));
    }
    return 0;
}

static NODISCARD int read_default_role(const struct json *node, struct plan_issuer *is,
                                       struct err *e)
{
    enum auth_role role;

    is->default_role = -1;
    if (!node || node->type == JSON_NULL)
        return 0;
    TRY(read_role(json_str_or(node, STR_NULL), &role, e));
    is->default_role = (int32_t)role;
    return 0;
}

static NODISCARD int read_issuer(const struct json *item, struct arena *a, struct plan_issuer *is,
                                 struct err *e)
{
    const struct json *jwks = json_get(item, S("jwks"));
    struct json *algorithms;
    str issuer;

    is->name = arena_dup(a, item->key);
    TRY(json_need_str(item, S("issuer"), &issuer, e));
    is->issuer = arena_dup(a, issuer);
    TRY(read_texts(json_get(item, S("audiences")), 64, a, &is->audiences, &is->audience_count, e));
    if (!is->issuer.n || !is->audience_count)
        return FAIL(e, INVALID_ARGUMENT, "needs an issuer and at least one audience");
    TRY(json_need_array(item, S("algorithms"), &algorithms, e));
    TRY(read_algorithms(algorithms, is, e));
    is->tenant_claim = arena_dup(a, json_str_or(json_get(item, S("tenant_claim")), S("")));
    is->role_claim = arena_dup(a, json_str_or(json_get(item, S("role_claim")), S("")));
    TRY(read_role_map(json_get(item, S("roles")), a, is, e));
    TRY(read_default_role(json_get(item, S("default_role")), is, e));
    TRY(plan_rate_read(json_get(item, S("rate")), &is->rate, e));
    if (!jwks || jwks->type == JSON_NULL)
        return 0;
    return jwks_read(jwks, a, &is->keys, &is->key_count, e);
}

static NODISCARD int read_issuers(const struct json *issuers, struct arena *a,
                                  struct plan_auth *auth, struct err *e)
{
    if (!json_is_container(issuers))
        return 0;
    if (issuers->count > PLAN_ISSUERS_MAX)
        return FAIL(e, OUT_OF_RANGE, "%zu issuers, at most %d", issuers->count, PLAN_ISSUERS_MAX);
    auth->issuers = ARENA_ARRAY(a, struct plan_issuer, issuers->count);
    JSON_EACH (item, issuers)
        if (read_issuer(item, a, &auth->issuers[auth->issuer_count++], e))
            return err_context(e, "issuer '" STR_F "'", STR_A(str_take(item->key, 64)));
    return 0;
}

/* --- The part --------------------------------------------------------------------------------- */

static NODISCARD int read_mode(const struct json *part, struct plan_auth *auth, struct err *e)
{
    static const char *const modes[] = {
        [PLAN_AUTH_LOCAL] = "local", [PLAN_AUTH_NONE] = "none", [PLAN_AUTH_REQUIRED] = "required"};
    str mode;

    TRY(json_need_str(part, S("mode"), &mode, e));
    for (unsigned i = 0; i < ARRAY_LEN(modes); i++)
        if (str_eqz(mode, modes[i])) {
            auth->mode = (enum plan_auth_mode)i;
            return 0;
        }
    return FAIL(e, INVALID_ARGUMENT, "mode is '" STR_F "', expected local, none or required",
                STR_A(str_take(mode, 64)));
}

static NODISCARD int auth_read(const struct json *part, struct arena *a, struct plan_auth *auth,
                               struct err *e)
{
    int64_t format = json_int_or(json_get(part, S("format")), -1);

    if (format != PLAN_FORMAT)
        return FAIL(e, FAILED_PRECONDITION,
                    "format %lld, this program reads %d: update both "
                    "processes",
                    (long long)format, PLAN_FORMAT);
    TRY(read_mode(part, auth, e));
    auth->leeway_ns = json_int_or(json_get(part, S("leeway_ns")), 0);
    if (auth->leeway_ns < 0 || auth->leeway_ns > INT64_C(600000000000))
        return FAIL(e, OUT_OF_RANGE, "leeway_ns: expected 0 to 10 minutes");
    TRY(read_keys(json_get(part, S("keys")), a, auth, e));
    TRY(read_issuers(json_get(part, S("issuers")), a, auth, e));
    return read_limits(json_get(part, S("limits")), auth, e);
}

int plan_auth_read(const struct json *part, struct arena *a, struct plan_auth *ret, struct err *e)
{
    struct plan_auth auth = {0};

    if (auth_read(part, a, &auth, e))
        return err_context(e, "plan part 'auth'");
    *ret = auth;
    return 0;
}

int plan_auth_load(struct blobs *blobs, str hash, struct arena *a, struct plan_auth *ret,
                   struct err *e)
{
    struct json *part;
    str text;

    if (!hash.n) {
        *ret = (struct plan_auth){.mode = PLAN_AUTH_LOCAL};
        return 0;
    }
    TRY(blobs_get(blobs, hash, AUTH_BYTES_MAX, a, &text, e));
    TRY(json_parse(text, a, &part, e));
    return plan_auth_read(part, a, ret, e);
}

int plan_pepper_read(const char *state_dir, bool make, struct arena *a, str *ret_pepper,
                     struct err *e)
{
    char *dir = path_join(a, state_dir, "keys"), *path = path_join(a, dir, "pepper");
    unsigned char bytes[32];
    char hex[2 * sizeof(bytes) + 1];
    str pepper;

    if (make && !file_exists(path)) {
        random_bytes(bytes, sizeof(bytes));
        hex_encode(bytes, sizeof(bytes), hex);
        TRY(file_make_dirs(dir, e));
        TRY(file_replace(path, str_of(hex), e));
    }
    TRY(file_read_all(path, 4096, a, &pepper, e));
    pepper = str_trim(pepper);
    if (pepper.n < 32)
        return FAIL(e, DATA_LOSS,
                    "%s is too short to be a key: restore it from a backup, or make all "
                    "API keys anew",
                    path);
    *ret_pepper = pepper;
    return 0;
}
