/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON Web Tokens in compact form (RFC 7515, RFC 7519) and sets of keys (RFC 7517), without any
 * cryptography: bytes in, checked structure out.
 *
 * Strict: three parts and no more, base64url without padding and without stray bits, headers and
 * claims strict JSON objects (a repeated name is refused: two readers could choose differently), an
 * algorithm that base/sign.h knows ("none" and HS* are not among them), no "crit". Where the header
 * names a key of its own (jwk, jku, x5u, x5c), nobody reads that.
 */
#pragma once

#include "base/json.h"
#include "base/sign.h"

#define JWT_BYTES_MAX 8192u
#define JWT_ARENA_BYTES ((size_t)256 << 10) /* enough for any token that is not refused */
#define JWT_KID_MAX 256

struct jwt {
    enum sign_alg alg;
    str kid;             /* p == NULL: none */
    str signed_part;     /* of the token: what the signature is over */
    str signature;       /* decoded */
    struct json *claims; /* an object */
};

/* Everything lies in the arena, or in the token. UNAUTHENTICATED, with what is wrong for a log or a
 * test: a caller is not told. */
NODISCARD int jwt_parse(str token, struct arena *a, struct jwt *ret, struct err *e);

/* Seconds of a NumericDate claim as nanoseconds, clamped to int64: false when it is not there;
 * UNAUTHENTICATED through *ret_bad when it is no number. */
bool jwt_time_claim(const struct json *claims, str name, int64_t *ret_ns, bool *ret_bad);

#define JWKS_KEYS_MAX 64

struct jwk {
    str kid; /* p == NULL: none */
    enum sign_alg alg;
    str first, second; /* for sign_key_new() */
};

/*
 * The keys of a set that sign by an algorithm of base/sign.h; others are passed over, as RFC 7517
 * asks. INVALID_ARGUMENT: no usable key, a key id twice, a private or secret key (it was put where
 * it does not belong), bad base64url.
 */
NODISCARD int jwks_read(const struct json *set, struct arena *a, struct jwk **ret_keys,
                        size_t *ret_n, struct err *e);

/* Decodes base64url (RFC 4648 section 5, no padding) into the arena; false when it is none. */
NODISCARD bool base64url_decode(str text, struct arena *a, str *ret);
