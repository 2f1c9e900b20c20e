/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The auth part of the plan, out of the project, the keys and the key sets.
 *
 * Under mode `auto` the gateway asks for credentials from the first key or issuer on. A key that is
 * revoked still counts for that: revoking the last one must not open the gateway.
 */
#include "access/access.h"

#include "base/files.h"

#define JWKS_BYTES_MAX ((size_t)256 << 10)

static const struct tier {
    const char *name;
    int64_t per_hour, per_day, per_month;
} presets[] = {
#define TIER(name, per_hour, per_day, per_month, help) {name, per_hour, per_day, per_month},
#include "plan/tiers.def"
#undef TIER
};

static str text_of(const struct json *o, const char *key)
{
    return json_str_or(json_get(o, str_of(key)), S(""));
}

static bool is_set(const struct json *node)
{
    return node && node->type != JSON_NULL;
}

static void copy(struct json *to, const struct json *from, const char *key, struct arena *a)
{
    const struct json *node = json_get(from, str_of(key));

    if (is_set(node))
        json_set(to, str_of(key), json_copy(a, node));
}

/* --- Tiers ------------------------------------------------------------------------------------ */

static const struct json *tiers_of(const struct json *project)
{
    return json_path(project, "auth.tiers");
}

static const struct tier *preset_of(str name)
{
    for (size_t i = 0; i < ARRAY_LEN(presets); i++)
        if (str_eqz(name, presets[i].name))
            return &presets[i];
    return NULL;
}

int access_tier_check(const struct json *project, str tier, struct err *e)
{
    str names[ARRAY_LEN(presets)], near;

    if (!tier.n || json_get(tiers_of(project), tier) || preset_of(tier))
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(presets); i++)
        names[i] = str_of(presets[i].name);
    near = str_suggest(tier, names, ARRAY_LEN(names));
    return FAIL(e, NOT_FOUND,
                "'" STR_F "' is not a tier%s" STR_F "%s: free, basic, premium, or an entry of "
                "auth.tiers",
                STR_A(str_take(tier, 64)), near.n ? ", did you mean '" : "", STR_A(near),
                near.n ? "'?" : "");
}

/* "rate", "per_day" and "per_month" of the tier into `to`, where they are not set already. A tier
 * that is gone from the project gives nothing: what was applied is what holds. */
static void apply_tier(const struct json *project, str name, struct json *to, struct arena *a)
{
    static const char *const fields[] = {"rate", "per_day", "per_month"};
    const struct json *tier = json_get(tiers_of(project), name);
    const struct tier *preset = preset_of(name);
    struct json *rate;

    for (size_t i = 0; tier && i < ARRAY_LEN(fields); i++)
        if (!is_set(json_get(to, str_of(fields[i]))))
            copy(to, tier, fields[i], a);
    if (tier || !preset)
        return;
    if (!is_set(json_get(to, S("rate")))) {
        rate = json_set(to, S("rate"), json_new_object(a));
        json_set_int(a, rate, S("requests"), preset->per_hour);
        json_set_int(a, rate, S("per_ns"), INT64_C(3600) * 1000000000);
        json_set_int(a, rate, S("burst"), preset->per_hour);
    }
    json_set_int(a, to, S("per_day"), preset->per_day);
    json_set_int(a, to, S("per_month"), preset->per_month);
}

/* --- Keys ------------------------------------------------------------------------------------- */

static struct json *secrets_part(const struct json *secrets, struct arena *a)
{
    struct json *list = json_new_array(a);

    JSON_EACH (secret, secrets) {
        struct json *s = json_push(list, json_new_object(a));

        copy(s, secret, "hash", a);
        copy(s, secret, "until_ns", a);
    }
    return list;
}

static struct json *key_part(const struct json *project, const struct json *key, struct arena *a)
{
    static const char *const fields[] = {"role", "tenant", "endpoints", "rate", "expires_ns"};
    struct json *part = json_new_object(a);

    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        copy(part, key, fields[i], a);
    apply_tier(project, text_of(key, "tier"), part, a);
    json_set(part, S("secrets"), secrets_part(json_get(key, S("secrets")), a));
    return part;
}

static NODISCARD int keys_part(struct meta *m, const struct json *project, struct json *part,
                               struct arena *a, bool *ret_any, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *keys = json_set(part, S("keys"), json_new_object(a)), *key;
    int rc;

    TRY(meta_query(m, "SELECT name, value FROM kv WHERE scope = ? ORDER BY name",
                   M_ARGS(M_STR(S("key"))), &rows, e));
    while (meta_next(rows, &rc, e)) {
        TRY(json_parse(meta_str_dup(rows, 1, a), a, &key, e));
        *ret_any = true;
        if (json_int_or(json_get(key, S("revoked_ns")), 0))
            continue;
        key = key_part(project, key, a);
        key->key = meta_str_dup(rows, 0, a);
        json_push(keys, key); /* names of a primary key: json_set would search in vain */
    }
    return rc;
}

/* --- Issuers ---------------------------------------------------------------------------------- */

static NODISCARD int jwks_of_file(const struct access_env *env, str path, struct arena *a,
                                  str *ret_text, struct err *e)
{
    char *name = arena_dupz(a, path);

    if (name[0] != '/')
        name = path_join(a, env->project_dir, name);
    return file_read_all(name, JWKS_BYTES_MAX, a, ret_text, e);
}

/* The key set of an issuer, or NULL while there is none that is believed. */
static NODISCARD int jwks_part(const struct access_env *env, struct meta *m,
                               const struct json *issuer, struct arena *a, struct json **ret_jwks,
                               struct err *e)
{
    str text = text_of(issuer, "jwks");
    struct json *state = NULL;

    *ret_jwks = NULL;
    if (is_set(json_get(issuer, S("jwks_url")))) {
        TRY(meta_kv_get(m, S("jwks"), issuer->key, a, &state, e));
        if (state && str_eq(text_of(state, "url"), text_of(issuer, "jwks_url")) &&
            !json_bool_or(json_get(state, S("expired")), false) &&
            is_set(json_get(state, S("jwks"))))
            *ret_jwks = json_get(state, S("jwks"));
        return 0;
    }
    if (is_set(json_get(issuer, S("jwks_file"))))
        TRY(jwks_of_file(env, text_of(issuer, "jwks_file"), a, &text, e));
    TRY(json_parse(text, a, ret_jwks, e));
    return access_jwks_check(*ret_jwks, e);
}

static NODISCARD int issuer_part(const struct access_env *env, struct meta *m,
                                 const struct json *project, const struct json *issuer,
                                 struct json *parts, struct arena *a, struct err *e)
{
    static const char *const fields[] = {"issuer",     "audiences", "algorithms",  "tenant_claim",
                                         "role_claim", "roles",     "default_role"};
    struct json *part = json_set(parts, issuer->key, json_new_object(a)), *jwks;

    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        copy(part, issuer, fields[i], a);
    apply_tier(project, text_of(issuer, "tier"), part, a);
    if (jwks_part(env, m, issuer, a, &jwks, e))
        return err_context(e, "auth.issuers." STR_F, STR_A(issuer->key));
    if (jwks)
        json_set(part, S("jwks"), json_copy(a, jwks));
    return 0;
}

/* --- The whole -------------------------------------------------------------------------------- */

static const char *mode_of(const struct json *auth, bool any)
{
    str mode = json_str_or(json_get(auth, S("mode")), S("auto"));

    if (str_eq(mode, S("none")))
        return "none";
    return any || str_eq(mode, S("required")) ? "required" : "local";
}

static bool has_limits(const struct json *limits)
{
    if (json_is_container(limits))
        JSON_EACH (limit, limits)
            if (is_set(limit))
                return true;
    return false;
}

int access_part(const struct access_env *env, struct meta *m, const struct json *project,
                struct arena *a, struct json **ret_part, struct err *e)
{
    const struct json *auth = json_get(project, S("auth")), *issuers = json_get(auth, S("issuers"));
    const struct json *limits = json_path(project, "gateway.limits");
    struct json *part = json_new_object(a), *parts;
    bool any = json_is_container(issuers) && issuers->count;
    const char *mode;

    *ret_part = NULL;
    json_set_str(a, part, S("kind"), S("auth"));
    json_set_int(a, part, S("format"), PLAN_FORMAT);
    TRY(keys_part(m, project, part, a, &any, e));
    parts = json_set(part, S("issuers"), json_new_object(a));
    if (json_is_container(issuers))
        JSON_EACH (issuer, issuers)
            TRY(issuer_part(env, m, project, issuer, parts, a, e));
    mode = mode_of(auth, any);
    if (str_eqz(S("local"), mode) && !has_limits(limits))
        return 0;
    json_set_str(a, part, S("mode"), str_of(mode));
    json_set_int(a, part, S("leeway_ns"),
                 json_int_or(json_get(auth, S("leeway_ns")), INT64_C(30000000000)));
    if (has_limits(limits))
        json_set(part, S("limits"), json_copy(a, limits));
    *ret_part = part;
    return 0;
}
