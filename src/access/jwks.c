/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of a fetched key set. The last good one is kept while the issuer does not answer, or
 * answers with what is no key set, until it is older than max_age; then its tokens are refused
 * until it answers again. An outage is one fact, not one each time it is met.
 */
#include "access/access.h"

#define SCOPE S("jwks")

int access_jwks_check(const struct json *set, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct jwk *keys;
    size_t n;

    arena_init(&a, 0);
    TRY(jwks_read(set, &a, &keys, &n, e));
    for (size_t i = 0; i < n; i++) {
        AUTO(sign_key_freep) struct sign_key *k = NULL;

        if (sign_key_new(keys[i].alg, keys[i].first, keys[i].second, &k, e))
            return err_context(e, "key '" STR_F "'", STR_A(keys[i].kid));
    }
    return 0;
}

static int64_t int_of(const struct json *o, const char *key)
{
    return json_int_or(json_get(o, str_of(key)), 0);
}

static NODISCARD int tell(struct meta *m, const struct json *issuer, enum fact_type type,
                          str reason, const char *name, int64_t value, struct arena *a,
                          struct err *e)
{
    struct json *data = json_new_object(a);

    json_set_str(a, data, S("issuer"), json_str_or(json_get(issuer, S("issuer")), S("")));
    json_set_str(a, data, S("url"), json_str_or(json_get(issuer, S("jwks_url")), S("")));
    json_set_int(a, data, str_of(name), value);
    return journal_append(
        m,
        &(struct fact_new){.type = type,
                           .subject = arena_printf(a, "issuer/" STR_F, STR_A(issuer->key)),
                           .actor = S("weir"),
                           .reason = reason,
                           .data = data},
        NULL, e);
}

static NODISCARD int good(struct meta *m, const struct json *issuer, struct json *state,
                          struct json *set, int64_t now, struct arena *a, struct err *e)
{
    const struct json *old = json_get(state, S("jwks"));
    bool other = !old || !json_equal(old, set), was_away = int_of(state, "failing_since_ns");

    json_set(state, S("jwks"), json_copy(a, set));
    json_set_int(a, state, S("fetched_ns"), now);
    json_set_int(a, state, S("failing_since_ns"), 0);
    json_set_bool(a, state, S("expired"), false);
    if (other || was_away)
        TRY(tell(m, issuer, FACT_JWKS_REFRESHED,
                 other ? S("its public keys are others") : S("it answers again"), "keys",
                 (int64_t)json_get(set, S("keys"))->count, a, e));
    return 0;
}

static NODISCARD int bad(struct meta *m, const struct json *issuer, struct json *state, str why,
                         int64_t now, struct arena *a, struct err *e)
{
    int64_t until = int_of(state, "fetched_ns") + int_of(issuer, "max_age_ns");
    bool has_keys = json_get(state, S("jwks")) != NULL;

    if (!int_of(state, "failing_since_ns")) {
        json_set_int(a, state, S("failing_since_ns"), now);
        TRY(tell(m, issuer, FACT_JWKS_UNREACHABLE, why, "believed_until_ns", has_keys ? until : 0,
                 a, e));
    }
    if (!has_keys || now < until || json_bool_or(json_get(state, S("expired")), false))
        return 0;
    json_set_bool(a, state, S("expired"), true);
    return tell(m, issuer, FACT_JWKS_EXPIRED, why, "since_ns", int_of(state, "failing_since_ns"), a,
                e);
}

/* A state of another url is no state: the project was changed. */
static NODISCARD int state_of(struct meta *m, const struct json *issuer, struct arena *a,
                              struct json **ret_state, struct err *e)
{
    str url = json_str_or(json_get(issuer, S("jwks_url")), S(""));

    TRY(meta_kv_get(m, SCOPE, issuer->key, a, ret_state, e));
    if (*ret_state && str_eq(json_str_or(json_get(*ret_state, S("url")), S("")), url))
        return 0;
    *ret_state = json_new_object(a);
    json_set_str(a, *ret_state, S("url"), url);
    return 0;
}

int access_jwks_fetched(struct meta *m, const struct json *issuer, str body, str why,
                        int64_t wall_ns, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct json *state, *set = NULL;
    struct err parse;

    arena_init(&a, 0);
    if (body.p && (json_parse(body, &a, &set, &parse) || access_jwks_check(set, &parse))) {
        why = arena_printf(&a, "it answered with what is no key set: %s", parse.msg);
        set = NULL;
    }
    TRY(meta_begin(m, &tx, e));
    TRY(state_of(m, issuer, &a, &state, e));
    if (set)
        TRY(good(m, issuer, state, set, wall_ns, &a, e));
    else
        TRY(bad(m, issuer, state, why, wall_ns, &a, e));
    TRY(meta_kv_put(m, SCOPE, issuer->key, state, e));
    return meta_commit(&tx, e);
}
