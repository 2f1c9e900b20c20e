/* SPDX-License-Identifier: Apache-2.0 */
/*
 * API keys. Each change is one transaction of the key's state and its fact, so the journal tells
 * all that ever happened to a key and nothing that did not.
 *
 * A key is found by its id, or by its name while it is in force: names may be given again after a
 * revocation, ids never.
 */
#include "access/access.h"

#include "base/hash.h"
#include "base/random.h"
#include "base/time.h"

#include <stdlib.h>

#define SCOPE S("key")

static str text_of(const struct json *o, const char *key)
{
    return json_str_or(json_get(o, str_of(key)), S(""));
}

static int64_t int_of(const struct json *o, const char *key)
{
    return json_int_or(json_get(o, str_of(key)), 0);
}

static const char *state_of(const struct json *key, int64_t now_ns)
{
    int64_t expires = int_of(key, "expires_ns");

    return int_of(key, "revoked_ns")      ? "revoked"
           : expires && now_ns >= expires ? "expired"
                                          : "active";
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* All keys as stored, with "id". */
static NODISCARD int read_all(struct meta *m, struct arena *a, struct json **ret_list,
                              struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *list = json_new_array(a), *key;
    int rc;

    TRY(meta_query(m, "SELECT name, value FROM kv WHERE scope = ? ORDER BY name",
                   M_ARGS(M_STR(SCOPE)), &rows, e));
    while (meta_next(rows, &rc, e)) {
        TRY(json_parse(meta_str_dup(rows, 1, a), a, &key, e));
        json_set_str(a, key, S("id"), meta_str_dup(rows, 0, a));
        json_push(list, key);
    }
    *ret_list = list;
    return rc;
}

static NODISCARD int not_found(const struct json *list, str wanted, struct arena *a, struct err *e)
{
    str *names = ARENA_ARRAY(a, str, list->count + 1), near;
    size_t n = 0;

    JSON_EACH (key, list)
        names[n++] = text_of(key, "name");
    near = str_suggest(wanted, names, n);
    return FAIL(e, NOT_FOUND, "there is no key '" STR_F "'%s" STR_F "%s; weir key list shows them",
                STR_A(str_take(wanted, 64)), near.n ? ", did you mean '" : "", STR_A(near),
                near.n ? "'?" : "");
}

static NODISCARD int find(struct meta *m, str wanted, struct arena *a, struct json **ret_key,
                          struct err *e)
{
    struct json *list;

    TRY(read_all(m, a, &list, e));
    JSON_EACH (key, list)
        if (str_eq(text_of(key, "id"), wanted) ||
            (str_eq(text_of(key, "name"), wanted) && !int_of(key, "revoked_ns"))) {
            *ret_key = key;
            return 0;
        }
    return not_found(list, wanted, a, e);
}

static int by_age(const void *a, const void *b)
{
    int64_t x = int_of(*(const struct json *const *)a, "created_ns");
    int64_t y = int_of(*(const struct json *const *)b, "created_ns");

    return x < y ? -1 : x > y;
}

static void sort_by_age(struct json *list, struct arena *a)
{
    struct json **keys = ARENA_ARRAY(a, struct json *, list->count + 1);
    size_t n = 0;

    JSON_EACH (key, list)
        keys[n++] = key;
    qsort(keys, n, sizeof(*keys), by_age);
    *list = *json_new_array(a);
    for (size_t i = 0; i < n; i++) {
        keys[i]->next = NULL;
        json_push(list, keys[i]);
    }
}

int access_keys_list(struct meta *m, struct arena *a, struct json **ret_list, struct err *e)
{
    int64_t now = time_wall_ns();

    TRY(read_all(m, a, ret_list, e));
    sort_by_age(*ret_list, a);
    JSON_EACH (key, *ret_list) {
        struct json *secrets = json_get(key, S("secrets")), *shown = json_new_array(a);

        JSON_EACH (secret, secrets) {
            struct json *s = json_push(shown, json_new_object(a));

            json_set_str(a, s, S("prefix"), text_of(secret, "prefix"));
            json_set_int(a, s, S("created_ns"), int_of(secret, "created_ns"));
            json_set_int(a, s, S("until_ns"), int_of(secret, "until_ns"));
        }
        json_set(key, S("secrets"), shown);
        json_set_str(a, key, S("state"), str_of(state_of(key, now)));
    }
    return 0;
}

/* --- Writing ---------------------------------------------------------------------------------- */

static NODISCARD int store(struct meta *m, struct json *key, enum fact_type type, str actor,
                           str reason, const struct json *data, struct arena *a, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct json *stored = json_new_object(a);

    JSON_EACH (member, key)
        if (!str_eqz(member->key, "id"))
            json_set(stored, member->key, json_copy(a, member));
    TRY(meta_begin(m, &tx, e));
    TRY(meta_kv_put(m, SCOPE, text_of(key, "id"), stored, e));
    TRY(journal_append(
        m,
        &(struct fact_new){.type = type,
                           .subject = arena_printf(a, "key/" STR_F, STR_A(text_of(key, "id"))),
                           .actor = actor,
                           .reason = reason,
                           .data = data},
        NULL, e));
    return meta_commit(&tx, e);
}

/* What a fact may say of a key. */
static struct json *fact_data(const struct json *key, struct arena *a)
{
    static const char *const shown[] = {"name", "role",      "tenant",
                                        "tier", "endpoints", "expires_ns"};
    struct json *data = json_new_object(a);

    for (size_t i = 0; i < ARRAY_LEN(shown); i++)
        if (json_get(key, str_of(shown[i])))
            json_set(data, str_of(shown[i]), json_copy(a, json_get(key, str_of(shown[i]))));
    return data;
}

/* A fresh secret of the key `id` into ret, and what is kept of it. */
static NODISCARD int make_secret(const struct access_env *env, str id, struct arena *a,
                                 struct access_key_made *ret, struct json **ret_secret,
                                 struct err *e)
{
    unsigned char bytes[20], hash[SHA256_BYTES];
    char hex[SHA256_HEX_SIZE];
    struct hmac_key pepper;
    str text;

    TRY(plan_pepper_read(env->state_dir, true, a, &text, e));
    hmac_key_init(&pepper, text);
    random_bytes(bytes, sizeof(bytes));
    hex_encode(bytes, sizeof(bytes), hex);
    memcpy(ret->secret, "wk_", 3);
    memcpy(ret->secret + 3, id.p, PLAN_KEY_ID_BYTES);
    ret->secret[3 + PLAN_KEY_ID_BYTES] = '_';
    memcpy(ret->secret + 4 + PLAN_KEY_ID_BYTES, hex, 41);
    hmac_key_sum(&pepper, (str){ret->secret, PLAN_KEY_TEXT_BYTES}, hash);
    hex_encode(hash, sizeof(hash), hex);
    explicit_bzero(bytes, sizeof(bytes));
    explicit_bzero(&pepper, sizeof(pepper));
    ret->id = id;
    ret->prefix = arena_dup(a, (str){ret->secret, 4 + PLAN_KEY_ID_BYTES + 4});
    *ret_secret = json_new_object(a);
    json_set_str(a, *ret_secret, S("hash"), arena_dup(a, str_of(hex)));
    json_set_str(a, *ret_secret, S("prefix"), ret->prefix);
    json_set_int(a, *ret_secret, S("created_ns"), time_wall_ns());
    json_set_int(a, *ret_secret, S("until_ns"), 0);
    return 0;
}

/* --- Creating --------------------------------------------------------------------------------- */

static NODISCARD int check_role(str role, struct err *e)
{
    enum auth_role ignored;
    str near;

    if (auth_role_find(role, &ignored, &near))
        return 0;
    return FAIL(e, NOT_FOUND,
                "'" STR_F "' is not a role%s" STR_F
                "%s: reader, monitor, predictor, operator, admin",
                STR_A(str_take(role, 64)), near.n ? ", did you mean '" : "", STR_A(near),
                near.n ? "'?" : "");
}

static NODISCARD int check_endpoints(const struct json *project, const struct json *endpoints,
                                     struct err *e)
{
    const struct json *there = json_get(project, S("endpoints"));

    if (!endpoints)
        return 0;
    if (endpoints->type != JSON_ARRAY || endpoints->count > PLAN_KEY_ENDPOINTS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "endpoints: a list of at most %d names",
                    PLAN_KEY_ENDPOINTS_MAX);
    JSON_EACH (item, endpoints)
        if (!json_get(there, json_str_or(item, S(""))))
            return FAIL(e, NOT_FOUND, "there is no endpoint '" STR_F "' in the applied project",
                        STR_A(str_take(json_str_or(item, S("")), 64)));
    return 0;
}

static NODISCARD int check_new(const struct json *project, const struct access_key_new *want,
                               const struct json *list, struct err *e)
{
    struct plan_rate rate;
    size_t in_force = 0;

    if (!str_is_name(want->name) || want->name.n > ACCESS_NAME_MAX)
        return FAIL(e, INVALID_ARGUMENT,
                    "the name of a key is of letters, digits, '.', '_' and '-', at most %d",
                    ACCESS_NAME_MAX);
    if (want->tenant.n && !str_is_name(want->tenant))
        return FAIL(e, INVALID_ARGUMENT, "tenant '" STR_F "' is not a name",
                    STR_A(str_take(want->tenant, 64)));
    TRY(check_role(want->role, e));
    TRY(access_tier_check(project, want->tier, e));
    TRY(check_endpoints(project, want->endpoints, e));
    TRY(plan_rate_read(want->rate, &rate, e));
    if (want->expires_ns && want->expires_ns <= time_wall_ns())
        return FAIL(e, INVALID_ARGUMENT, "the key would have expired already");
    JSON_EACH (key, list) {
        in_force += !int_of(key, "revoked_ns");
        if (!int_of(key, "revoked_ns") && str_eq(text_of(key, "name"), want->name))
            return FAIL(e, ALREADY_EXISTS,
                        "there is a key '" STR_F "' (" STR_F "): rotate it, revoke it, or take "
                        "another name",
                        STR_A(want->name), STR_A(text_of(key, "id")));
    }
    if (in_force >= PLAN_KEYS_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED, "%d keys are in force: revoke some", PLAN_KEYS_MAX);
    return 0;
}

static str fresh_id(const struct json *list, struct arena *a)
{
    unsigned char bytes[PLAN_KEY_ID_BYTES / 2];
    char id[PLAN_KEY_ID_BYTES + 1];
    bool taken;

    do {
        taken = false;
        random_bytes(bytes, sizeof(bytes));
        hex_encode(bytes, sizeof(bytes), id);
        JSON_EACH (key, list)
            taken |= str_eqz(text_of(key, "id"), id);
    } while (taken);
    return arena_dup(a, str_of(id));
}

int access_key_create(const struct access_env *env, struct meta *m, const struct json *project,
                      const struct access_key_new *want, struct arena *a,
                      struct access_key_made *ret, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct json *list, *secret, *key = json_new_object(a), *secrets = json_new_array(a);

    TRY(meta_begin(m, &tx, e)); /* two creators must not take one name */
    TRY(read_all(m, a, &list, e));
    TRY(check_new(project, want, list, e));
    *ret = (struct access_key_made){0};
    TRY(make_secret(env, fresh_id(list, a), a, ret, &secret, e));
    json_push(secrets, secret);
    json_set_str(a, key, S("id"), ret->id);
    json_set_str(a, key, S("name"), want->name);
    json_set_str(a, key, S("role"), want->role);
    json_set_str(a, key, S("tenant"), want->tenant);
    json_set_str(a, key, S("tier"), want->tier);
    if (want->endpoints)
        json_set(key, S("endpoints"), json_copy(a, want->endpoints));
    if (want->rate)
        json_set(key, S("rate"), json_copy(a, want->rate));
    json_set_int(a, key, S("created_ns"), time_wall_ns());
    json_set_str(a, key, S("created_by"), want->actor);
    json_set_int(a, key, S("expires_ns"), want->expires_ns);
    json_set_int(a, key, S("revoked_ns"), 0);
    json_set(key, S("secrets"), secrets);
    TRY(store(m, key, FACT_KEY_CREATED, want->actor, want->reason, fact_data(key, a), a, e));
    return meta_commit(&tx, e);
}

/* --- Rotating, revoking ----------------------------------------------------------------------- */

static NODISCARD int find_in_force(struct meta *m, str wanted, struct arena *a,
                                   struct json **ret_key, struct err *e)
{
    TRY(find(m, wanted, a, ret_key, e));
    if (int_of(*ret_key, "revoked_ns"))
        return FAIL(e, FAILED_PRECONDITION,
                    "key '" STR_F "' is revoked, which is for ever: create another",
                    STR_A(text_of(*ret_key, "name")));
    return 0;
}

int access_key_rotate(const struct access_env *env, struct meta *m, str wanted, int64_t overlap_ns,
                      str actor, str reason, struct arena *a, struct access_key_made *ret,
                      struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct json *key = NULL, *secret, *secrets = json_new_array(a), *data, *last;
    int64_t now = time_wall_ns();

    TRY(meta_begin(m, &tx, e));
    TRY(find_in_force(m, wanted, a, &key, e));
    *ret = (struct access_key_made){.until_ns = now + overlap_ns};
    TRY(make_secret(env, text_of(key, "id"), a, ret, &secret, e));
    ret->until_ns = now + overlap_ns;
    json_push(secrets, secret);
    last = json_at(json_get(key, S("secrets")), 0); /* one that was on its way out already is out */
    if (last && overlap_ns) {
        last = json_push(secrets, json_copy(a, last));
        json_set_int(a, last, S("until_ns"), ret->until_ns);
    }
    json_set(key, S("secrets"), secrets);
    data = fact_data(key, a);
    json_set_int(a, data, S("old_until_ns"), ret->until_ns);
    TRY(store(m, key, FACT_KEY_ROTATED, actor, reason, data, a, e));
    return meta_commit(&tx, e);
}

int access_key_revoke(struct meta *m, str wanted, str actor, str reason, struct arena *a,
                      str *ret_id, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    struct json *key = NULL;

    TRY(meta_begin(m, &tx, e));
    TRY(find_in_force(m, wanted, a, &key, e));
    json_set_int(a, key, S("revoked_ns"), time_wall_ns());
    json_set(key, S("secrets"), json_new_array(a));
    TRY(store(m, key, FACT_KEY_REVOKED, actor, reason, fact_data(key, a), a, e));
    *ret_id = text_of(key, "id");
    return meta_commit(&tx, e);
}
