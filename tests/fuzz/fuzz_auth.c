/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what decides who is let in, by the first of them: 't' a token, 's' a set of keys,
 * else the auth part of a plan. Refused, or whole: what a reader gives can be used, and a token's
 * parts are its own. The memory that a token may cost is bounded by its arena.
 */
#include "fuzz.h"

#include "plan/auth.h"

#include <stdlib.h>

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void one_token(str text, struct arena *a)
{
    int64_t ns = 0;
    bool bad = false;
    struct jwt t;

    if (jwt_parse(text, a, &t, NULL))
        return;
    require(text.n <= JWT_BYTES_MAX && t.alg < SIGN_COUNT && t.claims->type == JSON_OBJECT);
    require(t.signed_part.p == text.p && t.signed_part.n < text.n && t.signature.n);
    require(t.kid.n <= JWT_KID_MAX);
    if (jwt_time_claim(t.claims, S("exp"), &ns, &bad))
        require(ns >= 0 && !bad);
}

static void use_key(const struct jwk *k)
{
    struct sign_key *key = NULL;

    require(k->alg < SIGN_COUNT && k->kid.n <= JWT_KID_MAX);
    if (sign_key_new(k->alg, k->first, k->second, &key, NULL) == 0)
        require(!sign_verify(key, S("message"), S("signature")));
    sign_key_free(key);
}

static void one_set(const struct json *root, struct arena *a)
{
    struct jwk *keys;
    size_t n;

    if (jwks_read(root, a, &keys, &n, NULL))
        return;
    require(n > 0 && n <= JWKS_KEYS_MAX);
    for (size_t i = 0; i < n; i++)
        use_key(&keys[i]);
}

static void one_part(const struct json *root, struct arena *a)
{
    struct plan_auth auth;

    if (plan_auth_read(root, a, &auth, NULL))
        return;
    require(auth.mode <= PLAN_AUTH_REQUIRED && auth.key_count <= PLAN_KEYS_MAX);
    for (size_t i = 0; i < auth.key_count; i++)
        require(auth.keys[i].role != AUTH_ROLE_ANONYMOUS &&
                auth.keys[i].secret_count <= PLAN_KEY_SECRETS_MAX &&
                auth.keys[i].endpoint_count <= PLAN_KEY_ENDPOINTS_MAX);
    for (size_t i = 0; i < auth.issuer_count; i++)
        require(auth.issuers[i].audience_count > 0 && auth.issuers[i].algorithms);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(arena_done) struct arena a;
    str text = str_skip((str){(const char *)data, size}, 1);
    struct json *root;

    arena_init(&a, size && data[0] == 't' ? JWT_ARENA_BYTES : 0);
    if (!size)
        return 0;
    if (data[0] == 't')
        one_token(text, &a);
    else if (json_parse(text, &a, &root, NULL))
        return 0;
    else if (data[0] == 's')
        one_set(root, &a);
    else
        one_part(root, &a);
    return 0;
}
