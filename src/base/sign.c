/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcrypto does the mathematics; this file makes its keys out of bare numbers and keeps its types
 * away from everybody else.
 *
 * Rules:
 *   1. The algorithm is a property of the key. RS256 is PKCS #1 v1.5 with SHA-256 and nothing else.
 *   2. A key that cannot be one (a point off the curve, a short modulus, an even exponent) is
 * refused when it is made, so that verifying never meets it.
 *   3. A signature of the wrong length is wrong before any mathematics.
 *
 * Whatever libcrypto puts on its error queue is cleared: nobody here reads it.
 */
#include "base/sign.h"

#include "base/mem.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

struct sign_key {
    enum sign_alg alg;
    EVP_PKEY *pkey; /* owned */
    size_t signature_bytes;
};

static const struct {
    str text;
    size_t signature_bytes;
} algorithms[SIGN_COUNT] = {
#define SIGN(name, text, bytes) {S_INIT(text), bytes},
    SIGN_ALGORITHMS(SIGN)
#undef SIGN
};

DEFINE_AUTO_PTR(BIGNUM, BN_free)
DEFINE_AUTO_PTR(OSSL_PARAM_BLD, OSSL_PARAM_BLD_free)
DEFINE_AUTO_PTR(OSSL_PARAM, OSSL_PARAM_free)
DEFINE_AUTO_PTR(EVP_PKEY_CTX, EVP_PKEY_CTX_free)
DEFINE_AUTO_PTR(EVP_MD_CTX, EVP_MD_CTX_free)
DEFINE_AUTO_PTR(ECDSA_SIG, ECDSA_SIG_free)

str sign_alg_text(enum sign_alg alg)
{
    return algorithms[alg].text;
}

bool sign_alg_find(str text, enum sign_alg *ret_alg)
{
    for (unsigned i = 0; i < SIGN_COUNT; i++)
        if (str_eq(text, algorithms[i].text)) {
            *ret_alg = (enum sign_alg)i;
            return true;
        }
    return false;
}

enum sign_alg sign_key_alg(const struct sign_key *k)
{
    return k->alg;
}

void sign_key_free(struct sign_key *k)
{
    if (!k)
        return;
    EVP_PKEY_free(k->pkey);
    mem_free(k);
}

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *builder)
{
    AUTO(OSSL_PARAM_freep) OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(builder);
    AUTO(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *pkey = NULL;

    if (!params || !ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
        return NULL;
    return pkey;
}

/* --- The three kinds -------------------------------------------------------------------------- */

static NODISCARD int make_rsa(str modulus, str exponent, struct sign_key *k, struct err *e)
{
    AUTO(BN_freep) BIGNUM *n = BN_bin2bn((const unsigned char *)modulus.p, (int)modulus.n, NULL);
    AUTO(BN_freep) BIGNUM *x = BN_bin2bn((const unsigned char *)exponent.p, (int)exponent.n, NULL);
    AUTO(OSSL_PARAM_BLD_freep) OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
    int bits = n ? BN_num_bits(n) : 0;

    if (bits < SIGN_RSA_BITS_MIN || bits > SIGN_RSA_BITS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "an RSA key of %d bits, expected %d to %d", bits,
                    SIGN_RSA_BITS_MIN, SIGN_RSA_BITS_MAX);
    if (!x || BN_num_bits(x) < 2 || BN_num_bits(x) > 64 || !BN_is_odd(x) || !BN_is_odd(n))
        return FAIL(e, INVALID_ARGUMENT,
                    "no RSA key: modulus and exponent must be odd, the latter "
                    "from 3 to 64 bits");
    if (b && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
        OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_E, x) == 1)
        k->pkey = from_params("RSA", b);
    k->signature_bytes = (size_t)(bits + 7) / 8;
    return k->pkey ? 0 : FAIL(e, INVALID_ARGUMENT, "libcrypto takes this for no RSA key");
}

static bool is_on_curve(EVP_PKEY *pkey)
{
    AUTO(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);

    return ctx && EVP_PKEY_public_check(ctx) == 1;
}

static NODISCARD int make_p256(str x, str y, struct sign_key *k, struct err *e)
{
    AUTO(OSSL_PARAM_BLD_freep) OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
    unsigned char point[65] = {4}; /* not compressed */

    if (x.n != 32 || y.n != 32)
        return FAIL(e, INVALID_ARGUMENT, "a P-256 key has x and y of 32 bytes, these have %zu, %zu",
                    x.n, y.n);
    memcpy(point + 1, x.p, 32);
    memcpy(point + 33, y.p, 32);
    if (b && OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)) == 1)
        k->pkey = from_params("EC", b);
    if (!k->pkey || !is_on_curve(k->pkey))
        return FAIL(e, INVALID_ARGUMENT, "x and y are no point of P-256");
    return 0;
}

static NODISCARD int make_ed25519(str x, struct sign_key *k, struct err *e)
{
    if (x.n != 32)
        return FAIL(e, INVALID_ARGUMENT, "an Ed25519 key has 32 bytes, this one %zu", x.n);
    k->pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, (const unsigned char *)x.p, x.n);
    return k->pkey ? 0 : FAIL(e, INVALID_ARGUMENT, "libcrypto takes this for no Ed25519 key");
}

int sign_key_new(enum sign_alg alg, str first, str second, struct sign_key **ret_key, struct err *e)
{
    AUTO(sign_key_freep) struct sign_key *k = mem_zalloc(sizeof(*k));
    int rc;

    k->alg = alg;
    k->signature_bytes = algorithms[alg].signature_bytes;
    switch (alg) {
    case SIGN_RS256:
        rc = make_rsa(first, second, k, e);
        break;
    case SIGN_ES256:
        rc = make_p256(first, second, k, e);
        break;
    default:
        rc = make_ed25519(first, k, e);
    }
    ERR_clear_error();
    TRY(rc);
    *ret_key = TAKE(k);
    return 0;
}

/* --- Verifying -------------------------------------------------------------------------------- */

/* r and s side by side, as tokens have them, in the DER form that libcrypto takes: at most 72
 * bytes. 0 when it cannot be made. */
static size_t ecdsa_der(str raw, unsigned char ret_der[80])
{
    AUTO(ECDSA_SIG_freep) ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn((const unsigned char *)raw.p, 32, NULL);
    BIGNUM *s = BN_bin2bn((const unsigned char *)raw.p + 32, 32, NULL);
    int n;

    if (!sig || !r || !s || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        return 0;
    }
    n = i2d_ECDSA_SIG(sig, &ret_der);
    return n > 0 ? (size_t)n : 0;
}

static bool verify(const struct sign_key *k, str message, const unsigned char *sig, size_t sig_n)
{
    AUTO(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const char *digest = k->alg == SIGN_EDDSA ? NULL : "SHA256";

    return ctx && EVP_DigestVerifyInit_ex(ctx, NULL, digest, NULL, NULL, k->pkey, NULL) == 1 &&
           EVP_DigestVerify(ctx, sig, sig_n, (const unsigned char *)message.p, message.n) == 1;
}

bool sign_verify(const struct sign_key *k, str message, str signature)
{
    unsigned char der[80];
    const unsigned char *p = (const unsigned char *)signature.p;
    size_t n = signature.n;
    bool ok;

    if (n != k->signature_bytes)
        return false;
    if (k->alg == SIGN_ES256) {
        n = ecdsa_der(signature, der);
        p = der;
    }
    ok = n && verify(k, message, p, n);
    if (!ok)
        ERR_clear_error();
    return ok;
}
