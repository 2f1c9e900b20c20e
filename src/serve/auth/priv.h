/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the guard. */
#pragma once

#include "base/hash.h"
#include "serve/auth/guard.h"

/* --- auth.c ----------------------------------------------------------------------------------- */

struct auth_key {
    const struct plan_key *plan;
    struct bucket *bucket;
    struct bucket *tenant; /* NULL: it has none */
    struct gcra rate;
};

struct auth_secret {
    unsigned char hash[SHA256_BYTES];
    int64_t until_ns;
    uint32_t key; /* index + 1; 0: a free slot */
};

struct auth_issuer {
    const struct plan_issuer *plan;
    struct gcra rate;
    struct sign_key **keys; /* owned, as many as plan->key_count */
};

struct auth {
    uint32_t refs; /* atomic */
    uint64_t serial;
    struct arena arena;
    str hash;
    struct plan_auth plan;
    struct hmac_key pepper;
    struct auth_key *keys;
    struct auth_secret *secrets; /* open addressing by the first bytes of the hash */
    uint32_t secret_mask;
    struct auth_issuer *issuers;
    struct gcra global, address, tenant;
    struct bucket *global_bucket;
    struct bucket **tenants; /* of the keys; open addressing by id */
    uint32_t tenant_mask;
};

/* The bucket of a tenant that some key names, or NULL. */
struct bucket *auth_tenant(const struct auth *a, str name);

/* Who asks, as the guard found out. */
struct principal {
    uint32_t permissions;
    struct guard_caller who;
    str tenant, name;
    const str *endpoints;
    size_t endpoint_count; /* 0: all */
    uint64_t *tat;         /* NULL: no rate of its own */
    const struct gcra *rate;
    uint64_t *tenant_tat; /* NULL: no tenant, or no rate for tenants */
    struct bucket *quota; /* NULL: none */
    int64_t per_day, per_month;
};

/* --- keys.c ----------------------------------------------------------------------------------- */

bool key_text_is_one(str text); /* has the form of a key */
bool key_principal(const struct auth *a, str text, int64_t wall_ns, struct principal *ret);

/* --- tokens.c --------------------------------------------------------------------------------- */

#define TOKEN_WAYS 4
#define TOKEN_PLACES 1024            /* of one loop */
#define TOKEN_CACHED_BYTES_MAX 4096u /* a longer one is verified each time */

/* What was found out about one text under one auth part. */
struct token {
    uint64_t hash, serial; /* serial 0: free */
    char *text;            /* owned */
    uint32_t text_bytes;
    bool good; /* else nobody's, for ever */
    int64_t from_ns, until_ns, used_ns;
    uint32_t permissions;
    const struct auth_issuer *issuer;
    uint64_t subject; /* of the crowd */
    uint64_t tenant_id;
    struct bucket *tenant_bucket; /* NULL: in the crowd, or none */
    str tenant;                   /* owned */
};

struct token_cache {
    struct token places[TOKEN_PLACES];
    struct token once; /* one too long to be kept */
    struct arena scratch;
    uint64_t seed;
    uint64_t hits, good, bad; /* atomic, one writer */
};
void token_cache_init(struct token_cache *c);
void token_cache_done(struct token_cache *c);
/* The verdict on a token, from the cache or by cryptography; never NULL. Times are not looked at.
 */
const struct token *token_check(struct token_cache *c, const struct auth *a, struct crowd *crowd,
                                str text, int64_t now_ns);
/* The same as a principal; false when it is not good, or not now. */
bool token_principal(struct token_cache *c, const struct auth *a, struct crowd *crowd, str text,
                     int64_t now_ns, int64_t wall_ns, struct principal *ret);
/* Claims against an issuer, the signature aside. UNAUTHENTICATED says what for; for tests. */
NODISCARD int token_verify(const struct auth *a, const struct jwt *t,
                           const struct auth_issuer **ret_issuer, struct err *e);

/* --- quota.c ---------------------------------------------------------------------------------- */

/* The file of the quota counters: see quota.c. */
NODISCARD int quota_load(const char *path, struct limits *l, struct err *e);
NODISCARD int quota_save(const char *path, struct limits *l, struct err *e);

/* --- guard.c ---------------------------------------------------------------------------------- */

struct guard_loop {
    struct guard *guard;
    uint64_t verdicts[VERDICT_COUNT]; /* atomic, one writer */
    struct token_cache tokens;
    uint64_t quotas_taken;  /* atomic, one writer: what is not on disk yet */
    struct quota_time time; /* of the last look */
    char headers[256];
};

struct limits *guard_limits(struct guard *g);
const char *guard_state_dir(const struct guard *g);
