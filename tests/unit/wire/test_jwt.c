/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens and sets of keys as bytes: what has the right form, and all the ways not to. */
#include "check.h"

#include "wire/jwt.h"

static struct arena a;

static str b64(str bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char *out = arena_alloc(&a, bytes.n * 4 / 3 + 4);
    size_t n = 0, bits = 0;
    uint32_t word = 0;

    for (size_t i = 0; i < bytes.n; i++)
        for (word = word << 8 | (unsigned char)bytes.p[i], bits += 8; bits >= 6; bits -= 6)
            out[n++] = digits[word >> (bits - 6) & 63];
    if (bits)
        out[n++] = digits[word << (6 - bits) & 63];
    return (str){out, n};
}

static str token(str header, str claims)
{
    return arena_printf(&a, STR_F "." STR_F "." STR_F, STR_A(b64(header)), STR_A(b64(claims)),
                        STR_A(b64(S("signature"))));
}

static void test_base64url(void)
{
    static const struct {
        const char *text, *bytes;
    } good[] = {{"", ""}, {"Zg", "f"}, {"Zm8", "fo"}, {"Zm9v", "foo"}, {"Zm9vYmFy", "foobar"}};
    static const char *const bad[] = {"Z", "Zg==", "Zh", "Zm9", "Zm8+", "Zm8/", "Zm 8", "Zm8\n"};
    str out;

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        CHECK(base64url_decode(str_of(good[i].text), &a, &out));
        CHECK_STR(out, str_of(good[i].bytes));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (!CHECK(!base64url_decode(str_of(bad[i]), &a, &out)))
            fprintf(stderr, "    '%s'\n", bad[i]);
    CHECK(base64url_decode(S("-_-_"), &a, &out) && memcmp(out.p, "\xfb\xff\xbf", 3) == 0);
}

static void test_good_tokens(void)
{
    struct jwt t;
    struct err e;
    int64_t ns = 0;
    bool bad = false;

    NEED_OK(jwt_parse(token(S("{\"alg\":\"ES256\",\"kid\":\"k\",\"typ\":\"at+JWT\"}"),
                            S("{\"iss\":\"i\",\"exp\":12,\"nbf\":1.5}")),
                      &a, &t, &e),
            &e);
    CHECK_INT(t.alg, SIGN_ES256);
    CHECK_STR(t.kid, S("k"));
    CHECK_STR(t.signature, S("signature"));
    CHECK_STR(json_str_or(json_get(t.claims, S("iss")), S("")), S("i"));
    CHECK(jwt_time_claim(t.claims, S("exp"), &ns, &bad) && ns == INT64_C(12000000000));
    CHECK(jwt_time_claim(t.claims, S("nbf"), &ns, &bad) && ns == INT64_C(1500000000));
    CHECK(!jwt_time_claim(t.claims, S("iat"), &ns, &bad) && !bad);
    CHECK(!jwt_time_claim(t.claims, S("iss"), &ns, &bad) && bad);
}

static void test_bad_tokens(void)
{
    static const struct {
        const char *header, *claims, *why;
    } bad[] = {
        {"{\"alg\":\"none\"}", "{}", "algorithm"},
        {"{\"alg\":\"None\"}", "{}", "algorithm"},
        {"{\"alg\":\"HS256\"}", "{}", "algorithm"},
        {"{\"alg\":\"rs256\"}", "{}", "algorithm"},
        {"{\"alg\":\"RS512\"}", "{}", "algorithm"},
        {"{\"alg\":[\"RS256\"]}", "{}", "algorithm"},
        {"{}", "{}", "algorithm"},
        {"{\"alg\":\"RS256\",\"alg\":\"none\"}", "{}", "header is no JSON"},
        {"{\"alg\":\"RS256\",\"crit\":[\"exp\"]}", "{}", "extension"},
        {"{\"alg\":\"RS256\",\"b64\":false}", "{}", "extension"},
        {"{\"alg\":\"RS256\",\"kid\":7}", "{}", "kid"},
        {"{\"alg\":\"RS256\",\"typ\":\"JWE\"}", "{}", "type"},
        {"{\"alg\":\"RS256\"}", "[]", "claims is no JSON"},
        {"{\"alg\":\"RS256\"}", "{\"sub\":\"a\",\"sub\":\"b\"}", "claims is no JSON"},
        {"{\"alg\":\"RS256\"}", "{\"sub\":\"a\"} ", NULL}, /* blanks are JSON */
        {"{\"alg\":\"RS256\"}", "{\"sub\":\"a\"}x", "claims is no JSON"},
        {"[1]", "{}", "header is no JSON"},
    };
    struct jwt t;
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        str text = token(str_of(bad[i].header), str_of(bad[i].claims));

        if (bad[i].why)
            CHECK_FAILS(jwt_parse(text, &a, &t, &e), UNAUTHENTICATED, &e, bad[i].why);
        else
            CHECK_OK(jwt_parse(text, &a, &t, &e), &e);
    }
    CHECK_FAILS(jwt_parse(S(""), &a, &t, &e), UNAUTHENTICATED, &e, "empty");
    CHECK_FAILS(jwt_parse(S("a.b"), &a, &t, &e), UNAUTHENTICATED, &e, "three parts");
    CHECK_FAILS(jwt_parse(S("a.b.c.d"), &a, &t, &e), UNAUTHENTICATED, &e, "three parts");
    CHECK_FAILS(jwt_parse(S(".."), &a, &t, &e), UNAUTHENTICATED, &e, "header is no JSON");
    CHECK_FAILS(jwt_parse(S("e30.e3 0.AA"), &a, &t, &e), UNAUTHENTICATED, &e, "algorithm");
}

static void test_sizes(void)
{
    char *big = arena_alloc(&a, 3 * JWT_BYTES_MAX);
    AUTO(arena_done) struct arena small = {0};
    struct jwt t;
    struct err e;
    str text;

    memset(big, '[', 3 * JWT_BYTES_MAX);
    CHECK_FAILS(jwt_parse((str){big, JWT_BYTES_MAX + 1}, &a, &t, &e), UNAUTHENTICATED, &e,
                "larger");
    /* The deepest and the busiest claims that fit: refused or read, never beyond the arena. */
    text = token(S("{\"alg\":\"RS256\"}"), (str){big, 4000});
    CHECK_FAILS(jwt_parse(text, &a, &t, &e), UNAUTHENTICATED, &e, "claims");
    for (size_t i = 0; i < 5900; i++)
        big[i] = "1,"[i % 2];
    text = token(S("{\"alg\":\"RS256\"}"), arena_printf(&a, "{\"a\":[%.5899s]}", big));
    arena_init(&small, JWT_ARENA_BYTES);
    (void)!jwt_parse(text, &small, &t, &e);
    CHECK(small.used_bytes <= JWT_ARENA_BYTES);
}

static void test_sets(void)
{
    static const struct {
        const char *set, *why;
    } bad[] = {
        {"{}", "keys"},
        {"{\"keys\":[]}", "no key that signs"},
        {"{\"keys\":[3]}", "keys[0]: expected an object"},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}", "private or secret"},
        {"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQ\",\"e\":\"AQ\",\"d\":\"AQ\"}]}",
         "private or secret"},
        {"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"A=\",\"e\":\"AQ\"}]}", "'n' is not base64url"},
        {"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQ\"}]}", "'e' is not base64url"},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"AQ\",\"y\":\"AQ\"}]}", "no key"},
        {"{\"keys\":[{\"kty\":\"RSA\",\"use\":\"enc\",\"n\":\"AQ\",\"e\":\"AQ\"}]}", "no key"},
        {"{\"keys\":[{\"kty\":\"RSA\",\"alg\":\"RS512\",\"n\":\"AQ\",\"e\":\"AQ\"}]}", "no key"},
        {"{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQ\",\"kid\":\"a\"},"
         "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQ\",\"kid\":\"a\"}]}",
         "the kid 'a'"},
        {"{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQ\",\"kid\":1}]}", "kid"},
    };
    struct json *set;
    struct jwk *keys;
    struct err e;
    size_t n;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        NEED_OK(json_parse(str_of(bad[i].set), &a, &set, &e), &e);
        CHECK_FAILS(jwks_read(set, &a, &keys, &n, &e), INVALID_ARGUMENT, &e, bad[i].why);
    }
    NEED_OK(
        json_parse(S("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-521\"},{\"kty\":\"EC\",\"crv\":"
                     "\"P-256\",\"x\":\"AQ\",\"y\":\"Ag\",\"kid\":\"k\"},{\"kty\":\"OKP\",\"crv\":"
                     "\"Ed25519\",\"x\":\"Aw\"}]}"),
                   &a, &set, &e),
        &e);
    NEED_OK(jwks_read(set, &a, &keys, &n, &e), &e);
    CHECK_INT(n, 2);
    CHECK(keys[0].alg == SIGN_ES256 && str_eq(keys[0].first, S("\1")) &&
          str_eq(keys[0].second, S("\2")) && str_eq(keys[0].kid, S("k")));
    CHECK(keys[1].alg == SIGN_EDDSA && !keys[1].kid.p);
}

RUN_TESTS(T(test_base64url), T(test_good_tokens), T(test_bad_tokens), T(test_sizes), T(test_sets))
