/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the text of an API key to who it is: one HMAC and a look at a table, whatever the number of
 * keys. A text that does not have the form of a key is turned away before the HMAC.
 */
#include "serve/auth/priv.h"

bool key_text_is_one(str text)
{
    return text.n == PLAN_KEY_TEXT_BYTES && memcmp(text.p, "wk_", 3) == 0 &&
           text.p[3 + PLAN_KEY_ID_BYTES] == '_';
}

/* The secret with that hash, or NULL. */
static const struct auth_secret *find(const struct auth *a, const unsigned char *hash)
{
    uint32_t i;

    memcpy(&i, hash, sizeof(i));
    for (i &= a->secret_mask; a->secrets[i].key; i = (i + 1) & a->secret_mask)
        if (bytes_equal_constant_time(a->secrets[i].hash, hash, SHA256_BYTES))
            return &a->secrets[i];
    return NULL;
}

bool key_principal(const struct auth *a, str text, int64_t wall_ns, struct principal *ret)
{
    unsigned char hash[SHA256_BYTES];
    const struct auth_secret *secret;
    const struct auth_key *k;

    if (!key_text_is_one(text) || !a->plan.key_count)
        return false;
    hmac_key_sum(&a->pepper, text, hash);
    secret = find(a, hash);
    if (!secret)
        return false;
    k = &a->keys[secret->key - 1];
    if (wall_ns >= secret->until_ns || wall_ns >= k->plan->expires_ns)
        return false;
    *ret = (struct principal){
        .permissions = auth_role_permissions(k->plan->role),
        .who.key = k->plan->id,
        .tenant = k->plan->tenant,
        .name = k->plan->id,
        .endpoints = k->plan->endpoints,
        .endpoint_count = k->plan->endpoint_count,
        .tat = &k->bucket->tat_ns,
        .rate = &k->rate,
        .tenant_tat = k->tenant ? &k->tenant->tat_ns : NULL,
        .quota = k->plan->per_day || k->plan->per_month ? k->bucket : NULL,
        .per_day = k->plan->per_day,
        .per_month = k->plan->per_month,
    };
    return true;
}
