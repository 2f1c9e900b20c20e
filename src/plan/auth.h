/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the plan that says who may ask the gateway, and how much: keys (as hashes), issuers
 * of tokens with their public keys, and limits. docs/formats.md has the JSON form. Plans without
 * such a part stand for an open gateway without limits.
 *
 * A key's text is "wk_" ID "_" SECRET: ID is 8 and SECRET 40 hexadecimal digits (160 random bits).
 * The plan holds HMAC-SHA256(pepper, whole text); the pepper lies in the state directory, so that
 * neither a plan nor the meta store lets anybody try secrets.
 */
#pragma once

#include "plan/plan.h"
#include "wire/jwt.h"

enum permission {
#define PERMISSION(name, text, help) PERMISSION_##name,
#include "plan/permissions.def"
#undef PERMISSION
    PERMISSION_COUNT
};
#define MAY(name) (1u << PERMISSION_##name)

enum auth_role {
#define AUTH_ROLE(name, text, permissions, help) AUTH_ROLE_##name,
#include "plan/roles.def"
#undef AUTH_ROLE
    AUTH_ROLE_COUNT
};
/* Bits of MAY(), PUBLIC among them. */
uint32_t auth_role_permissions(enum auth_role role);
const char *auth_role_text(enum auth_role role);
/* A role that may be given; on false, *ret_near is one that may have been meant, or empty. */
NODISCARD bool auth_role_find(str text, enum auth_role *ret_role, str *ret_near);
const char *permission_text(enum permission p);

#define PLAN_KEYS_MAX 20000
#define PLAN_KEY_ID_BYTES 8
#define PLAN_KEY_TEXT_BYTES (3 + PLAN_KEY_ID_BYTES + 1 + 40)
#define PLAN_KEY_SECRETS_MAX 2    /* the present one, and one that is on its way out */
#define PLAN_KEY_ENDPOINTS_MAX 64 /* named one by one; else all */
#define PLAN_ISSUERS_MAX 16
#define PLAN_RATE_MAX 10000000 /* requests, in one period */

struct plan_secret {
    unsigned char hash[32];
    int64_t until_ns; /* wall; INT64_MAX: until the key ends */
};

struct plan_key {
    str id;
    str tenant; /* may be empty */
    enum auth_role role;
    str *endpoints; /* none: all */
    size_t endpoint_count;
    struct plan_rate rate;
    int64_t per_day, per_month; /* 0: no quota */
    int64_t expires_ns;         /* wall; INT64_MAX: never */
    struct plan_secret secrets[PLAN_KEY_SECRETS_MAX];
    size_t secret_count; /* 0: revoked */
};

/* What a value of the role claim stands for. */
struct plan_role_map {
    str value;
    enum auth_role role;
};

struct plan_issuer {
    str name;   /* in the project */
    str issuer; /* "iss", exactly */
    str *audiences;
    size_t audience_count;
    uint32_t algorithms; /* bits: 1 << SIGN_… */
    str tenant_claim, role_claim;
    struct plan_role_map *roles;
    size_t role_count;
    int32_t default_role;  /* enum auth_role, or -1: a token without a known role is refused */
    struct plan_rate rate; /* of one subject */
    struct jwk *keys;      /* none: every token is refused (the set has not been fetched yet) */
    size_t key_count;
};

enum plan_auth_mode {
    PLAN_AUTH_LOCAL,    /* nobody is asked, and so only this machine may reach the gateway */
    PLAN_AUTH_NONE,     /* nobody is asked: said explicitly */
    PLAN_AUTH_REQUIRED, /* a key or a token with every request */
};

struct plan_auth {
    enum plan_auth_mode mode;
    int64_t leeway_ns; /* between the clocks of an issuer and of this machine */
    struct plan_key *keys;
    size_t key_count;
    struct plan_issuer *issuers;
    size_t issuer_count;
    struct plan_rate global, address, tenant;
};

/* {"requests":n,"per_ns":n,"burst":n} or null; OUT_OF_RANGE. */
NODISCARD int plan_rate_read(const struct json *rate, struct plan_rate *ret, struct err *e);
/* From the JSON of the part. Everything lies in the arena. */
NODISCARD int plan_auth_read(const struct json *part, struct arena *a, struct plan_auth *ret,
                             struct err *e);
/* The part of that name; an empty hash is an open gateway. */
NODISCARD int plan_auth_load(struct blobs *blobs, str hash, struct arena *a, struct plan_auth *ret,
                             struct err *e);

/* The secret of this state directory that key texts are hashed with: <state>/keys/pepper. Made when
 * it is missing and `make` is set (control does), else NOT_FOUND. */
NODISCARD int plan_pepper_read(const char *state_dir, bool make, struct arena *a, str *ret_pepper,
                               struct err *e);
