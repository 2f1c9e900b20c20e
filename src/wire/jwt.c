/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A token is a.b.c, each part base64url: a header that says how it is signed, claims, a signature
 * over "a.b". What is read here is still nobody's word: the caller looks the key up by its own
 * configuration, checks the signature with it, and only then believes a claim.
 *
 * Base64url has more than one text for some bytes unless the bits that fill the last character are
 * held to be zero. They are: a token has one form, so a cache that is keyed by the text cannot be
 * filled with variants of one token.
 */
#include "wire/jwt.h"

#include <math.h>

static int digit_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool base64url_decode(str text, struct arena *a, str *ret)
{
    unsigned char *out = arena_alloc(a, text.n / 4 * 3 + 3);
    uint32_t word = 0, bits = 0;
    size_t n = 0;

    if (!out || text.n % 4 == 1)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        int digit = digit_of(text.p[i]);

        if (digit < 0)
            return false;
        word = word << 6 | (uint32_t)digit;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[n++] = (unsigned char)(word >> bits);
            word &= (1u << bits) - 1;
        }
    }
    *ret = (str){(const char *)out, n};
    return word == 0;
}

static NODISCARD int refuse(struct err *e, const char *what)
{
    return FAIL(e, UNAUTHENTICATED, "token: %s", what);
}

static NODISCARD int object_of(str part, const char *what, struct arena *a, struct json **ret,
                               struct err *e)
{
    str text;

    if (!base64url_decode(part, a, &text))
        return FAIL(e, UNAUTHENTICATED, "token: the %s is not base64url", what);
    if (json_parse(text, a, ret, NULL) || (*ret)->type != JSON_OBJECT)
        return FAIL(e, UNAUTHENTICATED, "token: the %s is no JSON object", what);
    return 0;
}

static NODISCARD int read_header(const struct json *header, struct jwt *t, struct err *e)
{
    const struct json *kid = json_get(header, S("kid")), *typ = json_get(header, S("typ"));
    str type = json_str_or(typ, S("JWT"));

    if (!sign_alg_find(json_str_or(json_get(header, S("alg")), STR_NULL), &t->alg))
        return refuse(e, "its algorithm is none of RS256, ES256, EdDSA");
    if (json_get(header, S("crit")) || json_get(header, S("b64")))
        return refuse(e, "it demands an extension");
    if ((typ && typ->type != JSON_STR) ||
        (!str_eq_nocase(type, S("JWT")) && !str_eq_nocase(type, S("at+jwt"))))
        return refuse(e, "its type is not JWT");
    if (kid && (kid->type != JSON_STR || kid->string.n > JWT_KID_MAX))
        return refuse(e, "its kid is no short text");
    t->kid = json_str_or(kid, STR_NULL);
    return 0;
}

int jwt_parse(str token, struct arena *a, struct jwt *ret, struct err *e)
{
    str rest = token, head, claims, signature;
    struct jwt t = {0};
    struct json *header;

    if (!token.n || token.n > JWT_BYTES_MAX)
        return refuse(e, "it is empty, or larger than any that is taken");
    head = str_cut(&rest, '.');
    claims = rest.p ? str_cut(&rest, '.') : STR_NULL;
    signature = rest;
    if (!claims.p || !signature.p || str_find_char(signature, '.') >= 0)
        return refuse(e, "it does not have three parts");
    t.signed_part = str_range(token.p, claims.p + claims.n);
    TRY(object_of(head, "header", a, &header, e));
    TRY(read_header(header, &t, e));
    TRY(object_of(claims, "claims", a, &t.claims, e));
    if (!base64url_decode(signature, a, &t.signature) || !t.signature.n)
        return refuse(e, "the signature is not base64url");
    *ret = t;
    return 0;
}

bool jwt_time_claim(const struct json *claims, str name, int64_t *ret_ns, bool *ret_bad)
{
    const struct json *node = json_get(claims, name);
    double seconds = json_real_or(node, NAN);

    if (!node)
        return false;
    if (node->type != JSON_INT && node->type != JSON_REAL) {
        *ret_bad = true;
        return false;
    }
    /* Years 1970 to 2261; beyond, the end of the range says as much. */
    *ret_ns = (int64_t)(CLAMP(seconds, 0.0, 9.2e9) * 1e9);
    return true;
}

/* --- Sets of keys ----------------------------------------------------------------------------- */

/* How a key type and curve sign, and where their numbers are. */
static const struct {
    str kty, crv;
    enum sign_alg alg;
    str first, second;
} kinds[] = {
    {S_INIT("RSA"), S_INIT(""), SIGN_RS256, S_INIT("n"), S_INIT("e")},
    {S_INIT("EC"), S_INIT("P-256"), SIGN_ES256, S_INIT("x"), S_INIT("y")},
    {S_INIT("OKP"), S_INIT("Ed25519"), SIGN_EDDSA, S_INIT("x"), S_INIT("")},
};

static NODISCARD int number_of(const struct json *key, str name, struct arena *a, str *ret,
                               struct err *e)
{
    str text = json_str_or(json_get(key, name), STR_NULL);

    if (!name.n)
        return 0;
    if (!text.n || !base64url_decode(text, a, ret))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' is not base64url", STR_A(name));
    return 0;
}

static bool is_for_signing(const struct json *key, enum sign_alg alg)
{
    str use = json_str_or(json_get(key, S("use")), S("sig"));
    str want = json_str_or(json_get(key, S("alg")), sign_alg_text(alg));

    return str_eq(use, S("sig")) && str_eq(want, sign_alg_text(alg));
}

/* *ret_usable stays false for a key that is not for us. */
static NODISCARD int read_key(const struct json *key, struct arena *a, struct jwk *k,
                              bool *ret_usable, struct err *e)
{
    const struct json *kid = json_get(key, S("kid"));
    str kty = json_str_or(json_get(key, S("kty")), STR_NULL);
    str crv = json_str_or(json_get(key, S("crv")), S(""));

    if (key->type != JSON_OBJECT)
        return FAIL(e, INVALID_ARGUMENT, "expected an object, got %s", json_type_name(key->type));
    if (json_get(key, S("d")) || json_get(key, S("k")))
        return FAIL(e, INVALID_ARGUMENT,
                    "a private or secret key does not belong here: give its public half, and "
                    "consider it known to others");
    if (kid && (kid->type != JSON_STR || kid->string.n > JWT_KID_MAX))
        return FAIL(e, INVALID_ARGUMENT, "kid: expected a text of at most %d bytes", JWT_KID_MAX);
    k->kid = kid ? arena_dup(a, kid->string) : STR_NULL;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (!str_eq(kinds[i].kty, kty) || !str_eq(kinds[i].crv, crv) ||
            !is_for_signing(key, kinds[i].alg))
            continue;
        k->alg = kinds[i].alg;
        *ret_usable = true;
        TRY(number_of(key, kinds[i].first, a, &k->first, e));
        return number_of(key, kinds[i].second, a, &k->second, e);
    }
    return 0;
}

static bool same_kid(str a, str b)
{
    return a.p && b.p ? str_eq(a, b) : !a.p && !b.p;
}

int jwks_read(const struct json *set, struct arena *a, struct jwk **ret_keys, size_t *ret_n,
              struct err *e)
{
    struct json *list;
    struct jwk *keys;
    size_t n = 0, at = 0;

    TRY(json_need_array(set, S("keys"), &list, e));
    if (list->count > JWKS_KEYS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%zu keys, at most %d are taken", list->count,
                    JWKS_KEYS_MAX);
    keys = ARENA_ARRAY(a, struct jwk, list->count + 1);
    if (!keys)
        return FAIL(e, RESOURCE_EXHAUSTED, "a set of keys that is too large");
    JSON_EACH (item, list) {
        bool usable = false;

        if (read_key(item, a, &keys[n], &usable, e))
            return err_context(e, "keys[%zu]", at);
        at++;
        for (size_t i = 0; usable && i < n; i++)
            if (same_kid(keys[i].kid, keys[n].kid))
                return FAIL(e, INVALID_ARGUMENT, "two keys have the kid '" STR_F "'",
                            STR_A(keys[n].kid));
        n += usable;
    }
    if (!n)
        return FAIL(
            e, INVALID_ARGUMENT,
            "no key that signs: expected RSA, EC P-256 or OKP Ed25519 with \"use\":\"sig\"");
    *ret_keys = keys;
    *ret_n = n;
    return 0;
}
