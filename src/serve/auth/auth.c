/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings the auth part of a plan to life: a table from hashes of secrets to keys, public keys that
 * can verify, and the buckets that go on from plan to plan.
 *
 * The table is found by bits of an HMAC under the pepper, which nobody outside knows: where a guess
 * lands, and how long the walk from there is, says nothing about the keys that there are.
 */
#include "serve/auth/priv.h"

#include "base/mem.h"

static uint64_t serials; /* atomic */

struct auth *auth_ref(struct auth *a)
{
    __atomic_add_fetch(&a->refs, 1, __ATOMIC_RELAXED);
    return a;
}

void auth_unref(struct auth *a)
{
    if (!a || __atomic_sub_fetch(&a->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; a->issuers && i < a->plan.issuer_count; i++)
        for (size_t k = 0; a->issuers[i].keys && k < a->issuers[i].plan->key_count; k++)
            sign_key_free(a->issuers[i].keys[k]);
    explicit_bzero(&a->pepper, sizeof(a->pepper));
    arena_done(&a->arena);
    mem_free(a);
}

/* A power of two with at least half of it free. */
static uint32_t table_size(size_t n)
{
    uint32_t size = 16;

    while (size < 2 * n)
        size *= 2;
    return size;
}

static NODISCARD int bucket_of(struct guard *g, enum bucket_kind kind, str name,
                               struct bucket **ret, struct err *e)
{
    *ret = limits_bucket(guard_limits(g), bucket_id(kind, name));
    return *ret ? 0
                : FAIL(e, RESOURCE_EXHAUSTED,
                       "more than %d keys, tenants and endpoints since this gateway began: start "
                       "it anew",
                       LIMITS_BUCKETS_MAX);
}

int guard_endpoint_bucket(struct guard *g, str name, struct bucket **ret_bucket, struct err *e)
{
    return bucket_of(g, BUCKET_ENDPOINT, name, ret_bucket, e);
}

/* --- Tenants ---------------------------------------------------------------------------------- */

static struct bucket **tenant_slot(const struct auth *a, uint64_t id)
{
    uint32_t i = (uint32_t)id & a->tenant_mask;

    while (a->tenants[i] && a->tenants[i]->id != id)
        i = (i + 1) & a->tenant_mask;
    return &a->tenants[i];
}

struct bucket *auth_tenant(const struct auth *a, str name)
{
    return *tenant_slot(a, bucket_id(BUCKET_TENANT, name));
}

/* --- Keys ------------------------------------------------------------------------------------- */

static void secret_add(struct auth *a, const struct plan_secret *s, uint32_t key)
{
    uint32_t i;

    memcpy(&i, s->hash, sizeof(i));
    for (i &= a->secret_mask; a->secrets[i].key; i = (i + 1) & a->secret_mask)
        continue;
    memcpy(a->secrets[i].hash, s->hash, sizeof(s->hash));
    a->secrets[i].until_ns = s->until_ns;
    a->secrets[i].key = key;
}

static NODISCARD int key_make(struct guard *g, struct auth *a, size_t i, struct err *e)
{
    const struct plan_key *plan = &a->plan.keys[i];
    struct auth_key *k = &a->keys[i];

    k->plan = plan;
    k->rate = gcra_of(plan->rate);
    TRY(bucket_of(g, BUCKET_KEY, plan->id, &k->bucket, e));
    if (plan->tenant.n) {
        TRY(bucket_of(g, BUCKET_TENANT, plan->tenant, &k->tenant, e));
        *tenant_slot(a, k->tenant->id) = k->tenant;
    }
    for (size_t s = 0; s < plan->secret_count; s++)
        secret_add(a, &plan->secrets[s], (uint32_t)i + 1);
    return 0;
}

static NODISCARD int keys_make(struct guard *g, struct auth *a, const char *state_dir,
                               struct err *e)
{
    size_t n = a->plan.key_count;
    uint32_t size = table_size(n * PLAN_KEY_SECRETS_MAX), tenants = table_size(n);
    str pepper = STR_NULL;

    a->keys = ARENA_ARRAY(&a->arena, struct auth_key, n + 1);
    a->secrets = ARENA_ARRAY(&a->arena, struct auth_secret, size);
    a->secret_mask = size - 1;
    a->tenants = ARENA_ARRAY(&a->arena, struct bucket *, tenants);
    a->tenant_mask = tenants - 1;
    if (n)
        TRY(plan_pepper_read(state_dir, false, &a->arena, &pepper, e));
    hmac_key_init(&a->pepper, pepper);
    for (size_t i = 0; i < n; i++)
        TRY(key_make(g, a, i, e));
    return 0;
}

/* --- Issuers ---------------------------------------------------------------------------------- */

static NODISCARD int issuer_make(struct auth *a, size_t i, struct err *e)
{
    const struct plan_issuer *plan = &a->plan.issuers[i];
    struct auth_issuer *is = &a->issuers[i];

    is->plan = plan;
    is->rate = gcra_of(plan->rate);
    is->keys = ARENA_ARRAY(&a->arena, struct sign_key *, plan->key_count + 1);
    for (size_t k = 0; k < plan->key_count; k++)
        if (sign_key_new(plan->keys[k].alg, plan->keys[k].first, plan->keys[k].second, &is->keys[k],
                         e))
            return err_context(e, "issuer '" STR_F "': key '" STR_F "'", STR_A(plan->name),
                               STR_A(plan->keys[k].kid));
    return 0;
}

/* --- The whole -------------------------------------------------------------------------------- */

static NODISCARD int check_reach(const struct auth *a, bool is_local, struct err *e)
{
    if (a->plan.mode != PLAN_AUTH_LOCAL || is_local)
        return 0;
    return FAIL(
        e, FAILED_PRECONDITION,
        "the gateway listens beyond this machine and nobody is asked who he is: create a key "
        "(weir key create), name an issuer under 'auth', listen on 127.0.0.1, or say "
        "'auth: none' in weir.yaml");
}

static NODISCARD int auth_fill(struct guard *g, struct blobs *blobs, const char *state_dir,
                               struct auth *a, struct err *e)
{
    TRY(plan_auth_load(blobs, a->hash, &a->arena, &a->plan, e));
    TRY(keys_make(g, a, state_dir, e));
    a->issuers = ARENA_ARRAY(&a->arena, struct auth_issuer, a->plan.issuer_count + 1);
    for (size_t i = 0; i < a->plan.issuer_count; i++)
        TRY(issuer_make(a, i, e));
    a->global = gcra_of(a->plan.global);
    a->address = gcra_of(a->plan.address);
    a->tenant = gcra_of(a->plan.tenant);
    return bucket_of(g, BUCKET_GLOBAL, S(""), &a->global_bucket, e);
}

int auth_new(struct guard *g, struct blobs *blobs, str hash, bool is_local, struct auth *previous,
             struct auth **ret_auth, struct err *e)
{
    AUTO(auth_unrefp) struct auth *a = NULL;

    if (previous && str_eq(previous->hash, hash)) {
        *ret_auth = auth_ref(previous);
        return 0;
    }
    a = mem_zalloc_aligned(16, sizeof(*a));
    a->refs = 1;
    a->serial = __atomic_add_fetch(&serials, 1, __ATOMIC_RELAXED);
    arena_init(&a->arena, 0);
    a->hash = arena_dup(&a->arena, hash);
    if (auth_fill(g, blobs, guard_state_dir(g), a, e))
        return err_context(e, "auth");
    TRY(check_reach(a, is_local, e));
    *ret_auth = TAKE(a);
    return 0;
}
