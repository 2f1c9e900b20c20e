/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON Web Tokens: what is believed of one, and a cache of what was found out.
 *
 * The order of the checks is the order of trust: the issuer is only a name to find a configuration
 * by; the algorithm must be one that this issuer is allowed and that the key itself is of; the
 * signature comes before any other claim is read. A token must say for whom it is (aud), until when
 * (exp) and whose it is (sub); it is refused where the project wants a tenant and it has none.
 *
 * The cache holds the whole text of each token, found by a keyed hash and compared in full, so no
 * two texts can be taken for one another. Bad tokens are kept too, or a client that repeats an
 * old one would cost a signature check each time; they are the first to make room. What depends on
 * the time is stored as times and looked at each time. A place is worth nothing under another auth
 * part (its serial differs): keys that were withdrawn are withdrawn at once.
 */
#include "serve/auth/priv.h"

#include "base/mem.h"
#include "base/random.h"

/* --- Claims ----------------------------------------------------------------------------------- */

/* A claim by its name, or, where there is none of it, by a path such as realm_access.roles. */
static const struct json *claim_of(const struct json *claims, str name)
{
    const struct json *node = json_get(claims, name);
    char dotted[257];

    if (node || !name.n || !str_to_z(name, dotted, sizeof(dotted)))
        return node;
    return json_path(claims, dotted);
}

static bool is_among(str value, const str *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(value, list[i]))
            return true;
    return false;
}

static bool is_for_us(const struct json *aud, const struct plan_issuer *is)
{
    if (aud && aud->type == JSON_STR)
        return is_among(aud->string, is->audiences, is->audience_count);
    if (!aud || aud->type != JSON_ARRAY)
        return false;
    JSON_EACH (item, aud)
        if (item->type == JSON_STR && is_among(item->string, is->audiences, is->audience_count))
            return true;
    return false;
}

static uint32_t permissions_of(str value, const struct plan_issuer *is)
{
    enum auth_role role;
    str near;

    for (size_t i = 0; i < is->role_count; i++)
        if (str_eq(is->roles[i].value, value))
            return auth_role_permissions(is->roles[i].role);
    return !is->role_count && auth_role_find(value, &role, &near) ? auth_role_permissions(role) : 0;
}

/* Roles come as a list, or as a text of words between blanks (as `scope` does). */
static uint32_t claimed_permissions(const struct json *node, const struct plan_issuer *is)
{
    uint32_t bits = 0;
    str rest;

    if (node && node->type == JSON_ARRAY)
        JSON_EACH (item, node)
            bits |= permissions_of(json_str_or(item, S("")), is);
    rest = node && node->type == JSON_STR ? node->string : STR_NULL;
    while (rest.p)
        bits |= permissions_of(str_cut(&rest, ' '), is);
    if (!bits && is->default_role >= 0)
        bits = auth_role_permissions((enum auth_role)is->default_role);
    return bits;
}

/* --- Keys ------------------------------------------------------------------------------------- */

static const struct auth_issuer *issuer_of(const struct auth *a, const struct json *claims)
{
    str name = json_str_or(json_get(claims, S("iss")), STR_NULL);

    for (size_t i = 0; name.p && i < a->plan.issuer_count; i++)
        if (str_eq(a->issuers[i].plan->issuer, name))
            return &a->issuers[i];
    return NULL;
}

/* The key that the token names; without a name, the only one of its algorithm. */
static const struct sign_key *key_of(const struct auth_issuer *is, const struct jwt *t)
{
    const struct sign_key *found = NULL;

    for (size_t i = 0; i < is->plan->key_count; i++) {
        const struct jwk *k = &is->plan->keys[i];

        if (k->alg != t->alg || (t->kid.p && !(k->kid.p && str_eq(k->kid, t->kid))))
            continue;
        if (found)
            return NULL;
        found = is->keys[i];
    }
    return found;
}

int token_verify(const struct auth *a, const struct jwt *t, const struct auth_issuer **ret_issuer,
                 struct err *e)
{
    const struct auth_issuer *is = issuer_of(a, t->claims);
    const struct sign_key *key;

    if (!is)
        return FAIL(e, UNAUTHENTICATED, "token: the issuer is not one of the project");
    if (!(is->plan->algorithms & 1u << t->alg))
        return FAIL(e, UNAUTHENTICATED, "token: this issuer may not sign by " STR_F,
                    STR_A(sign_alg_text(t->alg)));
    key = key_of(is, t);
    if (!key)
        return FAIL(e, UNAUTHENTICATED, "token: no key of the issuer has that kid and algorithm");
    if (!sign_verify(key, t->signed_part, t->signature))
        return FAIL(e, UNAUTHENTICATED, "token: the signature is not that of the key");
    if (!is_for_us(json_get(t->claims, S("aud")), is->plan))
        return FAIL(e, UNAUTHENTICATED, "token: it is for another audience");
    *ret_issuer = is;
    return 0;
}

/* --- Finding out ------------------------------------------------------------------------------ */

static NODISCARD int read_times(const struct auth *a, const struct json *claims, struct token *k,
                                struct err *e)
{
    int64_t exp = 0, nbf = 0, iat = 0;
    bool bad = false, has_exp = jwt_time_claim(claims, S("exp"), &exp, &bad);

    (void)jwt_time_claim(claims, S("nbf"), &nbf, &bad);
    (void)jwt_time_claim(claims, S("iat"), &iat, &bad);
    if (bad || !has_exp)
        return FAIL(e, UNAUTHENTICATED, "token: exp is missing, or a time is no number");
    k->until_ns = exp > INT64_MAX - a->plan.leeway_ns ? INT64_MAX : exp + a->plan.leeway_ns;
    k->from_ns = nbf - a->plan.leeway_ns;
    return 0;
}

static NODISCARD int read_tenant(const struct auth *a, const struct crowd *crowd,
                                 const struct json *claims, struct token *k, struct err *e)
{
    str claim = k->issuer->plan->tenant_claim;
    str tenant = claim.n ? json_str_or(claim_of(claims, claim), STR_NULL) : STR_NULL;

    if (!claim.n)
        return 0;
    if (!tenant.n || tenant.n > 256)
        return FAIL(e, UNAUTHENTICATED, "token: no tenant in the claim '" STR_F "'", STR_A(claim));
    k->tenant = (str){mem_dupz(tenant.p, tenant.n), tenant.n};
    k->tenant_bucket = auth_tenant(a, tenant);
    k->tenant_id = crowd_id(crowd, tenant.p, tenant.n, 2);
    return 0;
}

/* The subject within its issuer, as an identity of the crowd. */
static NODISCARD int read_subject(const struct crowd *crowd, const struct json *claims,
                                  struct token *k, struct err *e)
{
    str subject = json_str_or(json_get(claims, S("sub")), STR_NULL);
    str issuer = k->issuer->plan->issuer;

    if (!subject.n)
        return FAIL(e, UNAUTHENTICATED, "token: it has no subject");
    k->subject = crowd_id(crowd, subject.p, subject.n, hash_str(issuer, 1));
    return 0;
}

static NODISCARD int find_out(struct token_cache *c, const struct auth *a,
                              const struct crowd *crowd, str text, struct token *k, struct err *e)
{
    struct jwt t;

    TRY(jwt_parse(text, &c->scratch, &t, e));
    TRY(token_verify(a, &t, &k->issuer, e));
    TRY(read_times(a, t.claims, k, e));
    TRY(read_subject(crowd, t.claims, k, e));
    TRY(read_tenant(a, crowd, t.claims, k, e));
    k->permissions =
        claimed_permissions(claim_of(t.claims, k->issuer->plan->role_claim), k->issuer->plan);
    return 0;
}

/* --- The cache -------------------------------------------------------------------------------- */

void token_cache_init(struct token_cache *c)
{
    arena_init(&c->scratch, JWT_ARENA_BYTES);
    random_bytes(&c->seed, sizeof(c->seed));
}

static void token_drop(struct token *k)
{
    mem_free(k->text);
    mem_free((char *)k->tenant.p);
    *k = (struct token){0};
}

void token_cache_done(struct token_cache *c)
{
    for (size_t i = 0; i < TOKEN_PLACES; i++)
        token_drop(&c->places[i]);
    token_drop(&c->once);
    arena_done(&c->scratch);
}

/* What of a set is missed least: nothing, then what was made under another plan, bad tokens, and
 * the one that was not asked for longest. */
static struct token *least_useful(struct token *set, uint64_t serial)
{
    struct token *least = NULL;
    int64_t least_worth = INT64_MAX;

    for (size_t i = 0; i < TOKEN_WAYS; i++) {
        bool current = set[i].serial == serial;
        int64_t worth = !current ? -1 : set[i].good ? set[i].used_ns : set[i].used_ns / 4;

        if (!least || worth < least_worth) {
            least = &set[i];
            least_worth = worth;
        }
    }
    return least;
}

static inline void count(uint64_t *counter)
{
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED); /* one writer: the loop */
}

static const struct token *token_learn(struct token_cache *c, const struct auth *a,
                                       const struct crowd *crowd, str text, struct token *k)
{
    struct token fresh = {.serial = a->serial};
    struct err e;

    fresh.good = find_out(c, a, crowd, text, &fresh, &e) == 0;
    arena_reset(&c->scratch);
    count(fresh.good ? &c->good : &c->bad);
    token_drop(k);
    *k = fresh;
    return k;
}

const struct token *token_check(struct token_cache *c, const struct auth *a, struct crowd *crowd,
                                str text, int64_t now_ns)
{
    uint64_t hash = hash_str(text, c->seed);
    struct token *set = &c->places[hash % (TOKEN_PLACES / TOKEN_WAYS) * TOKEN_WAYS], *k;

    if (text.n > TOKEN_CACHED_BYTES_MAX)
        return token_learn(c, a, crowd, text, &c->once);
    for (size_t i = 0; i < TOKEN_WAYS; i++) {
        k = &set[i];
        if (k->hash == hash && k->serial == a->serial && k->text_bytes == text.n &&
            memcmp(k->text, text.p, text.n) == 0) {
            k->used_ns = now_ns;
            count(&c->hits);
            return k;
        }
    }
    k = least_useful(set, a->serial);
    (void)token_learn(c, a, crowd, text, k);
    k->hash = hash;
    k->text = mem_dupz(text.p, text.n);
    k->text_bytes = (uint32_t)text.n;
    k->used_ns = now_ns;
    return k;
}

bool token_principal(struct token_cache *c, const struct auth *a, struct crowd *crowd, str text,
                     int64_t now_ns, int64_t wall_ns, struct principal *ret)
{
    const struct token *k;

    if (!a->plan.issuer_count || !text.n || text.n > JWT_BYTES_MAX)
        return false;
    k = token_check(c, a, crowd, text, now_ns);
    if (!k->good || wall_ns < k->from_ns || wall_ns >= k->until_ns)
        return false;
    *ret = (struct principal){
        .permissions = k->permissions,
        .who.subject = k->subject,
        .tenant = k->tenant,
        .name = k->issuer->plan->name,
    };
    if (k->issuer->rate.interval_ns) {
        ret->rate = &k->issuer->rate;
        ret->tat = crowd_tat(crowd, k->subject, now_ns);
    }
    if (k->tenant.n && a->tenant.interval_ns)
        ret->tenant_tat =
            k->tenant_bucket ? &k->tenant_bucket->tat_ns : crowd_tat(crowd, k->tenant_id, now_ns);
    return true;
}
