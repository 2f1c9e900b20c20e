/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may ask the gateways, as control keeps it: API keys in the meta store, key sets of token
 * issuers, and the auth part of the plan that is made of both and of the project.
 *
 * A key's secret is made here, given back once, and kept as HMAC-SHA256 under the pepper of the
 * state directory. Neither the journal nor a log nor a plan ever holds one.
 *
 *   kv scope "key", name = id     {"name","role","tenant","tier","endpoints","rate","per_day",
 *                                  "per_month","created_ns","created_by","expires_ns","revoked_ns",
 *                                  "secrets":[{"hash","prefix","created_ns","until_ns"}]}
 *   kv scope "jwks", name = issuer {"url","jwks","fetched_ns","failing_since_ns","expired"}
 *
 * All functions run on the control thread, or wherever `m` belongs to.
 */
#pragma once

#include "journal/journal.h"
#include "plan/auth.h"
#include "store/meta/meta.h"

struct access_env {
    const char *state_dir;   /* keys/pepper */
    const char *project_dir; /* jwks_file is relative to it */
};

#define ACCESS_NAME_MAX 128
#define ACCESS_KEY_TEXT_SIZE (PLAN_KEY_TEXT_BYTES + 1)

/* A key to be made. Texts are borrowed; empty where there is none. */
struct access_key_new {
    str name; /* for people; not that of another key in force */
    str role, tenant, tier;
    const struct json *endpoints; /* an array of names, or NULL: all */
    const struct json *rate;      /* {"requests","per_ns","burst"?}, or NULL: that of the tier */
    int64_t expires_ns;           /* wall; 0: never */
    str actor, reason;
};

struct access_key_made {
    str id, prefix;
    char secret[ACCESS_KEY_TEXT_SIZE]; /* the only copy */
    int64_t until_ns;                  /* when the secret before it ends; 0: there was none */
};

/* INVALID_ARGUMENT, NOT_FOUND (role, tier, endpoint: with a suggestion), ALREADY_EXISTS (name),
 * RESOURCE_EXHAUSTED. `project` is the applied tree. Fact: key.created. */
NODISCARD int access_key_create(const struct access_env *env, struct meta *m,
                                const struct json *project, const struct access_key_new *want,
                                struct arena *a, struct access_key_made *ret, struct err *e);
/* A new secret beside the present one, which goes on for overlap_ns (0: ends now). `key` is an id
 * or the name of a key in force. Fact: key.rotated. */
NODISCARD int access_key_rotate(const struct access_env *env, struct meta *m, str key,
                                int64_t overlap_ns, str actor, str reason, struct arena *a,
                                struct access_key_made *ret, struct err *e);
/* Ends all its secrets, now and for ever. FAILED_PRECONDITION when it is revoked already. Fact:
 * key.revoked. */
NODISCARD int access_key_revoke(struct meta *m, str key, str actor, str reason, struct arena *a,
                                str *ret_id, struct err *e);
/* An array of objects as above, with "id" and "state" (active, expired, revoked) and without
 * hashes, oldest first. */
NODISCARD int access_keys_list(struct meta *m, struct arena *a, struct json **ret_list,
                               struct err *e);

/* A tier of the project or a preset; empty is fine. NOT_FOUND with a suggestion. */
NODISCARD int access_tier_check(const struct json *project, str tier, struct err *e);
/* The auth part, or NULL when the project says nothing and there has never been a key. */
NODISCARD int access_part(const struct access_env *env, struct meta *m, const struct json *project,
                          struct arena *a, struct json **ret_part, struct err *e);

/* --- Key sets --------------------------------------------------------------------------------- */

/* A set is usable: it can be read, and each of its keys verifies. INVALID_ARGUMENT. */
NODISCARD int access_jwks_check(const struct json *set, struct err *e);

/* What a fetch of the set of an issuer gave: `body` (p == NULL: it failed, and `why` says how).
 * Facts, all of which may make another plan: jwks.unreachable when an outage begins,
 * jwks.expired when its last keys are not believed any more, jwks.refreshed when the keys changed
 * or an outage is over. */
NODISCARD int access_jwks_fetched(struct meta *m, const struct json *issuer, str body, str why,
                                  int64_t wall_ns, struct err *e);
