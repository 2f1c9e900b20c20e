/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Public-key signatures, verifying only: the three algorithms of RFC 7518 and RFC 8037 that
 * identity providers use. A key is made for one algorithm and verifies by that alone, so whoever
 * wrote the message has no say in how it is checked.
 */
#pragma once

#include "base/str.h"

/* SIGN(NAME, "name in a JWK and a token", bytes of a signature; 0 = as long as the modulus). */
#define SIGN_ALGORITHMS(SIGN) \
    SIGN(RS256, "RS256", 0)   \
    SIGN(ES256, "ES256", 64)  \
    SIGN(EDDSA, "EdDSA", 64)

enum sign_alg {
#define SIGN(name, text, bytes) SIGN_##name,
    SIGN_ALGORITHMS(SIGN)
#undef SIGN
        SIGN_COUNT
};
str sign_alg_text(enum sign_alg alg);
/* Exact match; false for all others, "none" and HS256 among them. */
NODISCARD bool sign_alg_find(str text, enum sign_alg *ret_alg);

#define SIGN_RSA_BITS_MIN 2048
#define SIGN_RSA_BITS_MAX 8192 /* a larger one would make each check a small denial of service */

struct sign_key; /* immutable: any number of threads may verify by it */

/*
 * Numbers are unsigned, big-endian, as a JWK has them.
 *   RS256  first = modulus, second = public exponent
 *   ES256  first = x, second = y, 32 bytes each: a point of P-256
 *   EDDSA  first = the public key of Ed25519, 32 bytes; second is not used
 * INVALID_ARGUMENT says what is wrong with them.
 */
NODISCARD int sign_key_new(enum sign_alg alg, str first, str second, struct sign_key **ret_key,
                           struct err *e);
void sign_key_free(struct sign_key *k); /* accepts NULL */
DEFINE_AUTO_PTR(struct sign_key, sign_key_free)
enum sign_alg sign_key_alg(const struct sign_key *k);

/* True when `signature` (ES256: r and s, 32 bytes each) is that of `message` by the key. */
NODISCARD bool sign_verify(const struct sign_key *k, str message, str signature);
