/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard as a whole: thousands of keys, roles, endpoints, rotation, tokens signed here with
 * fresh keys and spoilt in every way, limits with their answers, and what a check costs.
 */
#include "check.h"

#include "base/files.h"
#include "base/random.h"
#include "base/time.h"
#include "serve/auth/priv.h"

#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <unistd.h>

#define ISSUER "https://login.example.com/"
#define NOW_S INT64_C(1800000000)
#define NOW_NS (NOW_S * NS_PER_S)

static struct arena a;
static struct blobs *blobs;
static struct guard *guard;
static struct guard_loop *gl;
static char folder[] = "/tmp/weir-auth-XXXXXX";
static struct hmac_key pepper;
static int64_t mono_ns = 1000 * NS_PER_S;

/* --- Plans ------------------------------------------------------------------------------------ */

static struct auth *load(str part, bool is_local, struct auth *previous, struct err *e)
{
    char hash[BLOB_HASH_SIZE];
    struct auth *auth = NULL;

    if (!CHECK_OK(blobs_put(blobs, part, hash, e), e))
        return NULL;
    return auth_new(guard, blobs, str_of(hash), is_local, previous, &auth, e) ? NULL : auth;
}

static str key_text(int i, int secret)
{
    return arena_printf(&a, "wk_%08x_%040x", (unsigned)i, (unsigned)secret);
}

static str hash_of(str text)
{
    unsigned char digest[SHA256_BYTES];
    char hex[SHA256_HEX_SIZE];

    hmac_key_sum(&pepper, text, digest);
    hex_encode(digest, sizeof(digest), hex);
    return arena_dup(&a, str_of(hex));
}

static str key_json(int i, const char *more)
{
    return arena_printf(
        &a, "\"%08x\":{\"role\":\"predictor\",\"secrets\":[{\"hash\":\"" STR_F "\"}]%s}",
        (unsigned)i, STR_A(hash_of(key_text(i, i))), more);
}

static str part_of(str keys, const char *issuers, const char *limits)
{
    return arena_printf(&a,
                        "{\"kind\":\"auth\",\"format\":1,\"mode\":\"required\",\"leeway_ns\":"
                        "30000000000,\"keys\":{" STR_F "},\"issuers\":{%s},\"limits\":{%s}}",
                        STR_A(keys), issuers, limits);
}

/* --- Questions -------------------------------------------------------------------------------- */

static struct http1_fields fields_of(enum http1_known known, str value)
{
    struct http1_fields f = {.count = 1};

    f.headers[0].value = value;
    f.known[known] = 1;
    return f;
}

static enum verdict ask_as(const struct auth *auth, enum permission permission,
                           const char *endpoint, const struct http1_fields *fields,
                           struct guard_verdict *v)
{
    struct guard_ask ask = {.auth = auth,
                            .permission = permission,
                            .endpoint = str_of(endpoint),
                            .fields = fields,
                            .now_ns = mono_ns,
                            .wall_ns = NOW_NS};
    struct guard_verdict ignored;

    ROLE_ASSERT(on_loop);
    v = v ? v : &ignored;
    CHECK(guard_admit(gl, &ask, v) == (v->verdict == VERDICT_ALLOWED));
    return v->verdict;
}

static enum verdict ask_key(const struct auth *auth, str key)
{
    struct http1_fields f = fields_of(HTTP1_F_X_API_KEY, key);

    return ask_as(auth, PERMISSION_INFER, "e", &f, NULL);
}

static enum verdict ask_bearer(const struct auth *auth, str token)
{
    struct http1_fields f =
        fields_of(HTTP1_F_AUTHORIZATION, arena_printf(&a, "Bearer " STR_F, STR_A(token)));

    return ask_as(auth, PERMISSION_INFER, "e", &f, NULL);
}

/* --- Keys ------------------------------------------------------------------------------------- */

static void test_thousands_of_keys(void)
{
    AUTO(auth_unrefp) struct auth *auth = NULL;
    AUTO(buf_done) struct buf keys;
    struct err e;

    buf_init(&keys, 16 << 20);
    for (int i = 0; i < 10000; i++)
        buf_printf(&keys, "%s" STR_F, i ? "," : "", STR_A(key_json(i, "")));
    auth = load(part_of(buf_str(&keys), "", ""), true, NULL, &e);
    NEED(auth);
    for (int i = 0; i < 10000; i++)
        if (!CHECK_INT(ask_key(auth, key_text(i, i)), VERDICT_ALLOWED) ||
            !CHECK_INT(ask_key(auth, key_text(i, i + 1)), VERDICT_BAD_CREDENTIAL))
            break;
    CHECK_INT(ask_key(auth, key_text(10000, 10000)), VERDICT_BAD_CREDENTIAL);
    CHECK_INT(ask_bearer(auth, key_text(9999, 9999)), VERDICT_ALLOWED);
}

static void test_texts_that_are_no_keys(void)
{
    AUTO(auth_unrefp) struct auth *auth = NULL;
    struct http1_fields both, none = {0}, basic;
    struct err e;
    str good = key_text(1, 1);

    auth = load(part_of(key_json(1, ""), "", ""), true, NULL, &e);
    NEED(auth);
    CHECK_INT(ask_key(auth, S("")), VERDICT_BAD_CREDENTIAL);
    CHECK_INT(ask_key(auth, str_take(good, good.n - 1)), VERDICT_BAD_CREDENTIAL);
    CHECK_INT(ask_key(auth, arena_printf(&a, STR_F "0", STR_A(good))), VERDICT_BAD_CREDENTIAL);
    CHECK_INT(ask_as(auth, PERMISSION_INFER, "e", &none, NULL), VERDICT_NO_CREDENTIAL);
    CHECK_INT(ask_as(auth, PERMISSION_PUBLIC, "", &none, NULL), VERDICT_ALLOWED);
    basic = fields_of(HTTP1_F_AUTHORIZATION, S("Basic Zm9vOmJhcg=="));
    CHECK_INT(ask_as(auth, PERMISSION_INFER, "e", &basic, NULL), VERDICT_BAD_CREDENTIAL);
    both = fields_of(HTTP1_F_X_API_KEY, good);
    both.headers[1].value = arena_printf(&a, "Bearer " STR_F, STR_A(good));
    both.known[HTTP1_F_AUTHORIZATION] = 2;
    CHECK_INT(ask_as(auth, PERMISSION_INFER, "e", &both, NULL), VERDICT_BAD_CREDENTIAL);
    CHECK_INT(ask_as(NULL, PERMISSION_INFER, "e", &none, NULL), VERDICT_NO_PLAN);
}

static void test_roles_and_endpoints(void)
{
    AUTO(auth_unrefp) struct auth *auth = NULL;
    struct guard_verdict v;
    struct http1_fields f = fields_of(HTTP1_F_X_API_KEY, key_text(1, 1));
    struct err e;

    auth = load(part_of(key_json(1, ",\"endpoints\":[\"e\",\"f\"],\"tenant\":\"acme\""), "", ""),
                true, NULL, &e);
    NEED(auth);
    CHECK_INT(ask_as(auth, PERMISSION_INFER, "f", &f, &v), VERDICT_ALLOWED);
    CHECK_STR(v.tenant, S("acme"));
    CHECK_INT(ask_as(auth, PERMISSION_INFER, "g", &f, &v), VERDICT_OTHER_ENDPOINT);
    CHECK_INT(v.status, 403);
    CHECK_INT(ask_as(auth, PERMISSION_METRICS, "", &f, &v), VERDICT_NO_PERMISSION);
    CHECK(str_find(v.headers, S("insufficient_scope")) >= 0);
    CHECK_INT(ask_as(auth, PERMISSION_ADMIN, "", &f, NULL), VERDICT_NO_PERMISSION);
}

static void test_rotation_overlaps(void)
{
    AUTO(auth_unrefp) struct auth *auth = NULL;
    struct http1_fields old = fields_of(HTTP1_F_X_API_KEY, key_text(1, 7));
    struct guard_ask ask = {.permission = PERMISSION_INFER, .fields = &old};
    struct guard_verdict v;
    struct err e;

    ROLE_ASSERT(on_loop);
    auth =
        load(part_of(arena_printf(&a,
                                  "\"00000001\":{\"role\":\"predictor\",\"expires_ns\":2000,"
                                  "\"secrets\":[{\"hash\":\"" STR_F "\"},{\"hash\":\"" STR_F
                                  "\",\"until_ns\":1000}]}",
                                  STR_A(hash_of(key_text(1, 8))), STR_A(hash_of(key_text(1, 7)))),
                     "", ""),
             true, NULL, &e);
    NEED(auth);
    ask.auth = auth;
    for (ask.wall_ns = 998; ask.wall_ns < 1003; ask.wall_ns++)
        CHECK(guard_admit(gl, &ask, &v) == (ask.wall_ns < 1000));
    old.headers[0].value = key_text(1, 8);
    for (ask.wall_ns = 1998; ask.wall_ns < 2003; ask.wall_ns++)
        CHECK(guard_admit(gl, &ask, &v) == (ask.wall_ns < 2000));
    CHECK_STR(v.message, S("the key or token is not valid")); /* not why */
}

static void test_open_gateways(void)
{
    AUTO(auth_unrefp) struct auth *open = NULL, *said = NULL, *none = NULL;
    struct http1_fields f = {0};
    struct err e;

    NEED_OK(auth_new(guard, blobs, STR_NULL, true, NULL, &open, &e), &e);
    CHECK_INT(ask_as(open, PERMISSION_INFER, "e", &f, NULL), VERDICT_ALLOWED);
    CHECK_INT(ask_as(open, PERMISSION_METRICS, "", &f, NULL), VERDICT_ALLOWED);
    CHECK_INT(ask_as(open, PERMISSION_ADMIN, "", &f, NULL), VERDICT_NO_PERMISSION);
    CHECK_FAILS(auth_new(guard, blobs, STR_NULL, false, NULL, &none, &e), FAILED_PRECONDITION, &e,
                "auth: none");
    said = load(S("{\"format\":1,\"mode\":\"none\"}"), false, NULL, &e);
    CHECK(said && ask_as(said, PERMISSION_INFER, "e", &f, NULL) == VERDICT_ALLOWED);
}

/* --- Tokens ----------------------------------------------------------------------------------- */

static EVP_PKEY *rsa, *ec, *ed, *other;

static str b64(const void *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char *out = arena_alloc(&a, n * 4 / 3 + 4);
    size_t at = 0, bits = 0;
    uint32_t word = 0;

    for (size_t i = 0; i < n; i++)
        for (word = word << 8 | ((const unsigned char *)p)[i], bits += 8; bits >= 6; bits -= 6)
            out[at++] = digits[word >> (bits - 6) & 63];
    if (bits)
        out[at++] = digits[word << (6 - bits) & 63];
    return (str){out, at};
}

static str number_of(EVP_PKEY *k, const char *name)
{
    unsigned char bytes[1024];
    BIGNUM *n = NULL;
    int size;

    CHECK(EVP_PKEY_get_bn_param(k, name, &n) == 1);
    size = strcmp(name, "qx") == 0 || strcmp(name, "qy") == 0 ? 32 : BN_num_bytes(n);
    CHECK(BN_bn2binpad(n, bytes, size) == size);
    BN_free(n);
    return b64(bytes, (size_t)size);
}

static str sign(EVP_PKEY *k, str head, str claims)
{
    str text = arena_printf(&a, STR_F "." STR_F, STR_A(b64(head.p, head.n)),
                            STR_A(b64(claims.p, claims.n)));
    unsigned char sig[1024];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t n = sizeof(sig);

    CHECK(EVP_DigestSignInit(ctx, NULL, k == ed ? NULL : EVP_sha256(), NULL, k) == 1 &&
          EVP_DigestSign(ctx, sig, &n, (const unsigned char *)text.p, text.n) == 1);
    EVP_MD_CTX_free(ctx);
    if (k == ec) { /* r and s side by side */
        const unsigned char *p = sig;
        ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &p, (long)n);
        unsigned char raw[64];

        BN_bn2binpad(ECDSA_SIG_get0_r(s), raw, 32);
        BN_bn2binpad(ECDSA_SIG_get0_s(s), raw + 32, 32);
        ECDSA_SIG_free(s);
        memcpy(sig, raw, n = 64);
    }
    return arena_printf(&a, STR_F "." STR_F, STR_A(text), STR_A(b64(sig, n)));
}

static str claims_with(const char *more)
{
    return arena_printf(&a,
                        "{\"iss\":\"" ISSUER
                        "\",\"aud\":[\"x\",\"weir\"],\"sub\":\"ann\",\"exp\":%lld,"
                        "\"org\":{\"id\":\"acme\"},\"roles\":[\"predictor\"]%s}",
                        (long long)NOW_S + 60, more);
}

static str issuer_json(const char *algorithms)
{
    unsigned char raw[32];
    size_t n = sizeof(raw);

    CHECK(EVP_PKEY_get_raw_public_key(ed, raw, &n) == 1);
    return arena_printf(
        &a,
        "\"corp\":{\"issuer\":\"" ISSUER "\",\"audiences\":[\"weir\"],\"algorithms\":[%s],"
        "\"tenant_claim\":\"org.id\",\"role_claim\":\"roles\",\"rate\":{\"requests\":1000000,"
        "\"per_ns\":1000000000},\"jwks\":{\"keys\":["
        "{\"kty\":\"RSA\",\"kid\":\"r\",\"n\":\"" STR_F "\",\"e\":\"" STR_F "\"},"
        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"c\",\"x\":\"" STR_F "\",\"y\":\"" STR_F "\"},"
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"d\",\"x\":\"" STR_F "\"}]}}",
        algorithms, STR_A(number_of(rsa, "n")), STR_A(number_of(rsa, "e")),
        STR_A(number_of(ec, "qx")), STR_A(number_of(ec, "qy")), STR_A(b64(raw, n)));
}

static struct auth *token_auth(const char *algorithms)
{
    struct err e;

    return load(part_of(S(""), arena_dupz(&a, issuer_json(algorithms)), ""), true, NULL, &e);
}

#define ALL "\"RS256\",\"ES256\",\"EdDSA\""
#define RS S("{\"alg\":\"RS256\",\"kid\":\"r\"}")
#define ES S("{\"alg\":\"ES256\",\"kid\":\"c\"}")
#define ED S("{\"alg\":\"EdDSA\",\"kid\":\"d\"}")

static void test_good_tokens(void)
{
    AUTO(auth_unrefp) struct auth *auth = token_auth(ALL), *fewer = token_auth("\"RS256\"");
    str tokens[] = {sign(rsa, RS, claims_with("")), sign(ec, ES, claims_with("")),
                    sign(ed, ED, claims_with("")),
                    sign(ec, S("{\"alg\":\"ES256\"}"), claims_with(""))};
    uint64_t hits = gl->tokens.hits;
    struct guard_verdict v;

    NEED(auth && fewer);
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
        CHECK_INT(ask_bearer(auth, tokens[i]), VERDICT_ALLOWED);
        CHECK_INT(ask_bearer(auth, tokens[i]), VERDICT_ALLOWED);
        CHECK_INT(ask_bearer(fewer, tokens[i]), i ? VERDICT_BAD_CREDENTIAL : VERDICT_ALLOWED);
    }
    CHECK_INT(gl->tokens.hits - hits, ARRAY_LEN(tokens));
    {
        struct http1_fields f =
            fields_of(HTTP1_F_AUTHORIZATION, arena_printf(&a, "bearer " STR_F, STR_A(tokens[0])));

        CHECK_INT(ask_as(auth, PERMISSION_INFER, "e", &f, &v), VERDICT_ALLOWED);
        CHECK_STR(v.tenant, S("acme"));
        CHECK_INT(ask_as(auth, PERMISSION_METRICS, "", &f, &v), VERDICT_NO_PERMISSION);
    }
}

/* The HMAC of a text under the public key: what "alg":"HS256" would have an unwary verifier check.
 */
static str confused(str head, str claims, str secret)
{
    str text = arena_printf(&a, STR_F "." STR_F, STR_A(b64(head.p, head.n)),
                            STR_A(b64(claims.p, claims.n)));
    unsigned char digest[SHA256_BYTES];

    hmac_sha256(secret, text, digest);
    return arena_printf(&a, STR_F "." STR_F, STR_A(text), STR_A(b64(digest, sizeof(digest))));
}

static void test_bad_tokens(void)
{
    AUTO(auth_unrefp) struct auth *auth = token_auth(ALL);
    str ok = claims_with(""), good = sign(rsa, RS, ok), head = str_take(good, 30);
    char *huge = arena_alloc(&a, 20000);
    ptrdiff_t dot = str_find_char(good, '.');
    const struct {
        const char *what;
        str token;
    } bad[] = {
        {"none", sign(rsa, S("{\"alg\":\"none\"}"), ok)},
        {"none, no signature",
         arena_printf(&a, STR_F "." STR_F ".", STR_A(b64("{\"alg\":\"none\"}", 14)),
                      STR_A(b64(ok.p, ok.n)))},
        {"another key", sign(other, RS, ok)},
        {"the key of another kid", sign(rsa, S("{\"alg\":\"RS256\",\"kid\":\"c\"}"), ok)},
        {"an unknown kid", sign(rsa, S("{\"alg\":\"RS256\",\"kid\":\"z\"}"), ok)},
        {"another algorithm's key", sign(ec, S("{\"alg\":\"RS256\",\"kid\":\"r\"}"), ok)},
        {"HS256 with the modulus",
         confused(S("{\"alg\":\"HS256\",\"kid\":\"r\"}"), ok, number_of(rsa, "n"))},
        {"RS256 that is an HMAC", confused(RS, ok, number_of(rsa, "n"))},
        {"expired", sign(rsa, RS, claims_with(",\"exp\":1,\"x\":1"))}, /* exp twice */
        {"no exp", sign(rsa, RS,
                        S("{\"iss\":\"" ISSUER "\",\"aud\":\"weir\",\"sub\":\"a\",\"org\":"
                          "{\"id\":\"t\"}}"))},
        {"exp as a text", sign(rsa, RS,
                               S("{\"iss\":\"" ISSUER "\",\"aud\":\"weir\",\"sub\":\"a\","
                                 "\"org\":{\"id\":\"t\"},\"exp\":\"9999999999\"}"))},
        {"not yet",
         sign(rsa, RS, claims_with(arena_printf(&a, ",\"nbf\":%lld", (long long)NOW_S + 31).p))},
        {"another audience",
         sign(rsa, RS,
              S("{\"iss\":\"" ISSUER "\",\"aud\":\"weird\",\"sub\":\"a\",\"org\":{\"id\":"
                "\"t\"},\"exp\":9999999999}"))},
        {"another issuer", sign(rsa, RS,
                                S("{\"iss\":\"https://evil/\",\"aud\":\"weir\",\"sub\":\"a\","
                                  "\"exp\":9999999999}"))},
        {"no subject", sign(rsa, RS,
                            S("{\"iss\":\"" ISSUER "\",\"aud\":\"weir\",\"org\":{\"id\":\"t\"},"
                              "\"exp\":9999999999}"))},
        {"no tenant", sign(rsa, RS,
                           S("{\"iss\":\"" ISSUER "\",\"aud\":\"weir\",\"sub\":\"a\",\"exp\":"
                             "9999999999}"))},
        {"a claim twice", sign(rsa, RS, claims_with(",\"sub\":\"root\""))},
        {"cut", str_take(good, good.n - 4)},
        {"a signature less", arena_printf(&a, STR_F ".", STR_A(head))},
        {"padding", arena_printf(&a, STR_F "==", STR_A(good))},
        {"another alphabet", arena_printf(&a, STR_F "+/", STR_A(good))},
        {"four parts", arena_printf(&a, STR_F ".AA", STR_A(good))},
        {"other claims",
         arena_printf(&a, STR_F "." STR_F STR_F, STR_A(str_take(good, (size_t)dot)),
                      STR_A(b64("{}", 2)), STR_A(str_skip(good, (size_t)dot + 40)))},
        {"huge", (str){memset(huge, 'a', 20000), 20000}},
        {"empty", S("")},
        {"dots", S("..")},
    };

    NEED(auth);
    CHECK_INT(ask_bearer(auth, good), VERDICT_ALLOWED);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        for (int again = 0; again < 2; again++) /* from the cache too */
            if (!CHECK_INT(ask_bearer(auth, bad[i].token), VERDICT_BAD_CREDENTIAL))
                fprintf(stderr, "    %s\n", bad[i].what);
    CHECK_INT(ask_bearer(auth, good), VERDICT_ALLOWED);
}

static void test_times_of_tokens(void)
{
    AUTO(auth_unrefp) struct auth *auth = token_auth(ALL);
    str token = sign(ed, ED, claims_with(arena_printf(&a, ",\"nbf\":%lld", (long long)NOW_S).p));
    struct http1_fields f =
        fields_of(HTTP1_F_AUTHORIZATION, arena_printf(&a, "Bearer " STR_F, STR_A(token)));
    struct guard_ask ask = {
        .auth = auth, .permission = PERMISSION_INFER, .fields = &f, .now_ns = mono_ns};
    struct guard_verdict v;

    ROLE_ASSERT(on_loop);
    NEED(auth);
    for (int64_t s = -40; s < 100; s++) { /* nbf - leeway to exp + leeway */
        ask.wall_ns = NOW_NS + s * NS_PER_S;
        if (!CHECK(guard_admit(gl, &ask, &v) == (s >= -30 && s < 90)))
            fprintf(stderr, "    %lld s\n", (long long)s);
    }
}

/* A key that the issuer withdrew is refused at once, whatever the cache holds. */
static void test_withdrawn_keys(void)
{
    AUTO(auth_unrefp) struct auth *before = token_auth(ALL), *after = NULL;
    EVP_PKEY *kept = rsa;
    str token = sign(rsa, RS, claims_with(""));

    NEED(before);
    CHECK_INT(ask_bearer(before, token), VERDICT_ALLOWED);
    rsa = other;
    after = token_auth(ALL);
    rsa = kept;
    NEED(after);
    CHECK_INT(ask_bearer(after, token), VERDICT_BAD_CREDENTIAL);
    CHECK_INT(ask_bearer(before, token), VERDICT_ALLOWED);
}

static void test_cache_is_bounded(void)
{
    AUTO(auth_unrefp) struct auth *auth = token_auth(ALL);
    uint64_t hits = gl->tokens.hits;
    str good = sign(ed, ED, claims_with(""));

    NEED(auth);
    CHECK_INT(ask_bearer(auth, good), VERDICT_ALLOWED);
    for (int i = 0; i < 20 * TOKEN_PLACES; i++) {
        (void)ask_bearer(auth, arena_printf(&a, "a.b.%d", i));
        mono_ns += NS_PER_MS;
        if (i % 16 == 0)
            CHECK_INT(ask_bearer(auth, good), VERDICT_ALLOWED);
    }
    CHECK_INT(gl->tokens.hits - hits, 20 * TOKEN_PLACES / 16); /* rubbish did not drive it out */
}

/* --- Limits ----------------------------------------------------------------------------------- */

static void test_limits_in_order(void)
{
    AUTO(auth_unrefp) struct auth *auth = NULL, *again = NULL;
    struct http1_fields one = fields_of(HTTP1_F_X_API_KEY, key_text(0x101, 0x101));
    struct http1_fields two = fields_of(HTTP1_F_X_API_KEY, key_text(0x102, 0x102));
    struct guard_verdict v;
    struct err e;
    str keys = arena_printf(
        &a, STR_F "," STR_F,
        STR_A(key_json(0x101, ",\"tenant\":\"t\",\"rate\":{\"requests\":2,\"per_ns\":4000000000}")),
        STR_A(key_json(0x102, ",\"tenant\":\"t\"")));
    const char *limits = "\"tenant\":{\"requests\":4,\"per_ns\":60000000000}";

    auth = load(part_of(keys, "", limits), true, NULL, &e);
    NEED(auth);
    CHECK_INT(ask_as(auth, PERMISSION_INFER, "e", &one, &v), VERDICT_ALLOWED);
    CHECK_INT(ask_as(auth, PERMISSION_INFER, "e", &one, &v), VERDICT_ALLOWED);
    for (int i = 0; i < 100; i++) /* over its own limit, it takes nothing from its tenant */
        CHECK_INT(ask_as(auth, PERMISSION_INFER, "e", &one, &v), VERDICT_LIMIT_KEY);
    CHECK_INT(v.status, 429);
    CHECK_STR(v.headers, S("Retry-After: 2\r\nRateLimit-Remaining: 0\r\nRateLimit-Reset: 2\r\n"
                           "RateLimit-Limit: 2\r\n"));
    CHECK_INT(ask_as(auth, PERMISSION_INFER, "e", &two, &v), VERDICT_ALLOWED);
    /* The same identities under a new plan are the same buckets. */
    again =
        load(part_of(keys, "", arena_printf(&a, "%s,\"global\":null", limits).p), true, auth, &e);
    NEED(again && again != auth);
    CHECK_INT(ask_as(again, PERMISSION_INFER, "e", &one, &v), VERDICT_LIMIT_KEY);
    CHECK_INT(ask_as(again, PERMISSION_INFER, "e", &two, &v), VERDICT_ALLOWED);
    CHECK_INT(ask_as(again, PERMISSION_INFER, "e", &two, &v), VERDICT_LIMIT_TENANT);
    CHECK_STR(v.headers, S("Retry-After: 15\r\nRateLimit-Remaining: 0\r\nRateLimit-Reset: 15\r\n"
                           "RateLimit-Limit: 4\r\n"));
    mono_ns += 15 * NS_PER_S; /* who waits as long as he was told is let in */
    CHECK_INT(ask_as(again, PERMISSION_INFER, "e", &two, &v), VERDICT_ALLOWED);
}

static void test_quota(void)
{
    AUTO(auth_unrefp) struct auth *auth = NULL;
    struct http1_fields f = fields_of(HTTP1_F_X_API_KEY, key_text(0x201, 0x201));
    struct guard_ask ask = {
        .permission = PERMISSION_INFER, .fields = &f, .now_ns = mono_ns, .wall_ns = NOW_NS};
    struct guard_verdict v;
    struct err e;

    ROLE_ASSERT(on_loop);
    auth = load(part_of(key_json(0x201, ",\"per_day\":2,\"per_month\":3"), "", ""), true, NULL, &e);
    NEED(auth);
    ask.auth = auth;
    CHECK(guard_admit(gl, &ask, &v) && guard_admit(gl, &ask, &v));
    CHECK(!guard_admit(gl, &ask, &v) && v.verdict == VERDICT_QUOTA_DAY);
    /* NOW is 2027-01-15T08:00:00Z: sixteen hours to midnight. */
    CHECK_STR(v.headers,
              S("Retry-After: 57600\r\nRateLimit-Remaining: 0\r\nRateLimit-Reset: 57600\r\n"));
    ask.wall_ns += 16 * 3600 * NS_PER_S;
    CHECK(guard_admit(gl, &ask, &v));
    CHECK(!guard_admit(gl, &ask, &v) && v.verdict == VERDICT_QUOTA_MONTH);
    ask.wall_ns += 16 * 86400 * NS_PER_S;
    CHECK(guard_admit(gl, &ask, &v));
}

static void test_addresses(void)
{
    AUTO(auth_unrefp) struct auth *auth = NULL;
    static const struct {
        const char *text;
        bool first; /* of its network */
    } peers[] = {{"10.0.0.1:1", true},         {"10.0.0.1:2", false},
                 {"10.0.0.2:1", true},         {"[::ffff:10.0.0.1]:5", false},
                 {"[2001:db8::1]:1", true},    {"[2001:db8::2]:1", false},
                 {"[2001:db8:0:1::1]:1", true}};
    struct http1_fields f = {0};
    struct guard_ask ask = {
        .permission = PERMISSION_INFER, .fields = &f, .now_ns = mono_ns, .wall_ns = NOW_NS};
    struct guard_verdict v;
    struct addr at;
    struct err e;

    ROLE_ASSERT(on_loop);
    auth = load(part_of(S(""), "", "\"address\":{\"requests\":1,\"per_ns\":60000000000}"), true,
                NULL, &e);
    NEED(auth);
    ask.auth = auth;
    for (size_t i = 0; i < ARRAY_LEN(peers); i++) {
        NEED_OK(addr_parse(str_of(peers[i].text), &at, &e), &e);
        ask.peer = guard_peer_id(guard, &at);
        CHECK(!guard_admit(gl, &ask, &v));
        CHECK_INT(v.verdict, peers[i].first ? VERDICT_NO_CREDENTIAL : VERDICT_LIMIT_ADDRESS);
    }
    NEED_OK(addr_parse(S("unix:/tmp/x"), &at, &e), &e);
    CHECK_INT(guard_peer_id(guard, &at), 0);
}

/* --- Refused parts ---------------------------------------------------------------------------- */

static void test_refused_parts(void)
{
    static const struct {
        const char *part, *why;
    } bad[] = {
        {"{\"format\":2,\"mode\":\"none\"}", "format 2"},
        {"{\"format\":1,\"mode\":\"open\"}", "mode is 'open'"},
        {"{\"format\":1}", "mode"},
        {"{\"format\":1,\"mode\":\"required\",\"keys\":{\"x\":{}}}", "no id of a key"},
        {"{\"format\":1,\"mode\":\"required\",\"keys\":{\"00000001\":{\"role\":\"root\"}}}",
         "'root' is not a role"},
        {"{\"format\":1,\"mode\":\"required\",\"keys\":{\"00000001\":{\"role\":\"\"}}}",
         "not a role"},
        {"{\"format\":1,\"mode\":\"required\",\"keys\":{\"00000001\":{\"role\":\"admin\","
         "\"secrets\":"
         "[{\"hash\":\"12\"}]}}}",
         "64 hexadecimal"},
        {"{\"format\":1,\"mode\":\"none\",\"limits\":{\"global\":{\"requests\":0,\"per_ns\":"
         "1000000}}}",
         "a rate of 0"},
        {"{\"format\":1,\"mode\":\"none\",\"issuers\":{\"i\":{\"issuer\":\"x\",\"audiences\":[],"
         "\"algorithms\":[\"RS256\"]}}}",
         "audience"},
        {"{\"format\":1,\"mode\":\"none\",\"issuers\":{\"i\":{\"issuer\":\"x\",\"audiences\":["
         "\"a\"],"
         "\"algorithms\":[\"HS256\"]}}}",
         "RS256, ES256"},
        {"{\"format\":1,\"mode\":\"none\",\"issuers\":{\"i\":{\"issuer\":\"x\",\"audiences\":["
         "\"a\"],"
         "\"algorithms\":[\"RS256\"],\"jwks\":{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":"
         "\"AQAB\"}]}}}}",
         "RSA key of 17 bits"},
    };
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct auth *auth = load(str_of(bad[i].part), true, NULL, &e);

        if (!CHECK(!auth && strstr(e.msg, bad[i].why)))
            fprintf(stderr, "    %s: %s\n", bad[i].why, auth ? "taken" : e.msg);
    }
}

/* --- Cost ------------------------------------------------------------------------------------- */

static void time_of(const char *what, const struct auth *auth, str bearer, enum verdict want)
{
    struct http1_fields f =
        fields_of(HTTP1_F_AUTHORIZATION,
                  bearer.n ? arena_printf(&a, "Bearer " STR_F, STR_A(bearer)) : STR_NULL);
    struct guard_ask ask = {.auth = auth,
                            .permission = PERMISSION_INFER,
                            .endpoint = S("e"),
                            .fields = &f,
                            .peer = 77,
                            .wall_ns = NOW_NS};
    double best = 1e9;
    struct guard_verdict v;

    ROLE_ASSERT(on_loop);
    for (int round = 0; round < 20; round++) {
        int64_t start = time_mono_ns();

        int passed = 0;

        for (int i = 0; i < 5000; i++) {
            ask.now_ns = mono_ns += 100000;
            (void)guard_admit(gl, &ask, &v);
            passed += v.verdict == want;
        }
        CHECK_INT(passed, 5000);
        best = MIN(best, (double)(time_mono_ns() - start) / 5000);
    }
    printf("%-40s %6.1f ns\n", what, best);
}

static void test_cost(void)
{
    AUTO(auth_unrefp)
    struct auth *open = NULL, *keys = NULL, *limited = NULL, *all = NULL, *slow = NULL;
    const char *limits = "\"address\":{\"requests\":1000000,\"per_ns\":1000000000},\"tenant\":"
                         "{\"requests\":1000000,\"per_ns\":1000000000},\"global\":{\"requests\":"
                         "1000000,\"per_ns\":1000000000}";
    str key = key_json(0x301,
                       ",\"tenant\":\"cost\",\"rate\":{\"requests\":1000000,\"per_ns\":1000000000},"
                       "\"per_day\":1000000000");
    struct err e;

    open = load(S("{\"format\":1,\"mode\":\"none\"}"), true, NULL, &e);
    limited = load(arena_printf(&a, "{\"format\":1,\"mode\":\"none\",\"limits\":{%s}}", limits),
                   true, NULL, &e);
    keys = load(part_of(key_json(0x302, ""), "", ""), true, NULL, &e);
    all = load(part_of(key, arena_dupz(&a, issuer_json(ALL)), limits), true, NULL, &e);
    slow = load(
        part_of(key_json(0x304, ",\"rate\":{\"requests\":1,\"per_ns\":80000000000000}"), "", ""),
        true, NULL, &e);
    NEED(open && limited && keys && all && slow);
    time_of("open", open, STR_NULL, VERDICT_ALLOWED);
    time_of("open, two rates", limited, STR_NULL, VERDICT_ALLOWED);
    time_of("key", keys, key_text(0x302, 0x302), VERDICT_ALLOWED);
    time_of("key, four rates and a quota", all, key_text(0x301, 0x301), VERDICT_ALLOWED);
    time_of("token from the cache, four rates", all, sign(rsa, RS, claims_with("")),
            VERDICT_ALLOWED);
    time_of("unknown key", all, key_text(0x303, 0x303), VERDICT_BAD_CREDENTIAL);
    (void)ask_key(slow, key_text(0x304, 0x304));
    time_of("key over its rate", slow, key_text(0x304, 0x304), VERDICT_LIMIT_KEY);
}

static EVP_PKEY *ed25519_new(void)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, NULL);
    EVP_PKEY *k = NULL;

    CHECK(EVP_PKEY_keygen_init(ctx) == 1 && EVP_PKEY_keygen(ctx, &k) == 1);
    EVP_PKEY_CTX_free(ctx);
    return k;
}

static void begin(void)
{
    str text;
    struct err e;

    arena_init(&a, 0);
    CHECK(mkdtemp(folder) != NULL);
    CHECK_OK(blobs_open(path_join(&a, folder, "blobs"), &blobs, &e), &e);
    CHECK_OK(plan_pepper_read(folder, true, &a, &text, &e), &e);
    hmac_key_init(&pepper, text);
    CHECK_OK(guard_new(folder, 1, &guard, &e), &e);
    gl = guard_loop_of(guard, 0);
    rsa = EVP_RSA_gen(2048);
    other = EVP_RSA_gen(2048);
    ec = EVP_EC_gen("P-256");
    ed = ed25519_new();
}

static void end(void)
{
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(other);
    EVP_PKEY_free(ec);
    EVP_PKEY_free(ed);
    guard_free(guard);
    blobs_close(blobs);
    arena_done(&a);
}

RUN_TESTS(T(begin), T(test_thousands_of_keys), T(test_texts_that_are_no_keys),
          T(test_roles_and_endpoints), T(test_rotation_overlaps), T(test_open_gateways),
          T(test_good_tokens), T(test_bad_tokens), T(test_times_of_tokens), T(test_withdrawn_keys),
          T(test_cache_is_bounded), T(test_limits_in_order), T(test_quota), T(test_addresses),
          T(test_refused_parts), T(test_cost), T(end))
