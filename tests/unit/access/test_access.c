/* SPDX-License-Identifier: Apache-2.0 */
/* Keys from their making to their end, the plan that follows from them, and ageing key sets. */
#include "access/access.h"

#include "base/time.h"
#include "check.h"

#include <unistd.h>

#define SECOND NS_PER_S
#define SET(x)                                                                 \
    "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"" x "\",\"x\":" \
    "\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}"

static char folder[] = "/tmp/weir-access-XXXXXX";
static struct access_env env = {folder, folder};
static struct meta_store *store;
static struct meta *m;
static struct arena a;
static struct err e;

static struct json *project_of(const char *text)
{
    struct json *tree = NULL;

    CHECK_OK(json_parse(str_of(text), &a, &tree, &e), &e);
    return tree;
}

static void begin(void)
{
    arena_init(&a, 0);
    CHECK(mkdtemp(folder) != NULL);
    CHECK_OK(meta_store_open(folder, NULL, &store, &e), &e);
    CHECK_OK(meta_open(store, &m, &e), &e);
}

static void end(void)
{
    meta_close(m);
    meta_store_close(store);
    arena_done(&a);
}

/* The part, read with the gateway's reader; mode -1: there is none. */
static struct plan_auth part_of(const struct json *project)
{
    struct plan_auth auth = {0};
    struct json *part = NULL;

    CHECK_OK(access_part(&env, m, project, &a, &part, &e), &e);
    if (part)
        CHECK_OK(plan_auth_read(part, &a, &auth, &e), &e);
    else
        auth.mode = PLAN_AUTH_LOCAL;
    return auth;
}

static size_t facts(const char *type)
{
    struct fact *list;
    size_t n = 0;

    CHECK_OK(
        journal_read(m, &(struct journal_query){.type_prefix = str_of(type)}, &a, &list, &n, &e),
        &e);
    return n;
}

static void test_modes(void)
{
    CHECK_INT(part_of(project_of("{}")).mode, PLAN_AUTH_LOCAL);
    CHECK_INT(part_of(project_of("{\"auth\":{\"mode\":\"auto\"}}")).mode, PLAN_AUTH_LOCAL);
    CHECK_INT(part_of(project_of("{\"auth\":{\"mode\":\"none\"}}")).mode, PLAN_AUTH_NONE);
    CHECK_INT(part_of(project_of("{\"auth\":{\"mode\":\"required\"}}")).mode, PLAN_AUTH_REQUIRED);
}

static void test_life_of_a_key(void)
{
    const struct json *project =
        project_of("{\"auth\":{\"mode\":\"auto\",\"tiers\":{\"t\":{\"rate\":{\"requests\":7,\"per_"
                   "ns\":1000000000,"
                   "\"burst\":7},\"per_day\":5,\"per_month\":null}}},\"endpoints\":{\"pay\":{}}}");
    struct access_key_new want = {.name = S("shop"),
                                  .role = S("predictor"),
                                  .tenant = S("acme"),
                                  .tier = S("t"),
                                  .actor = S("user:ann"),
                                  .reason = S("a test")};
    struct access_key_made made, second, third;
    unsigned char hash[SHA256_BYTES];
    struct hmac_key pepper;
    struct plan_auth auth;
    struct json *list;
    str text, id;

    NEED_OK(access_key_create(&env, m, project, &want, &a, &made, &e), &e);
    CHECK_INT(strlen(made.secret), PLAN_KEY_TEXT_BYTES);
    auth = part_of(project);
    CHECK_INT(auth.mode, PLAN_AUTH_REQUIRED);
    NEED(auth.key_count == 1 && auth.keys[0].secret_count == 1);
    CHECK(auth.keys[0].rate.requests == 7 && auth.keys[0].per_day == 5 && !auth.keys[0].per_month);
    CHECK_STR(auth.keys[0].tenant, S("acme"));
    NEED_OK(plan_pepper_read(folder, false, &a, &text, &e), &e);
    hmac_key_init(&pepper, text);
    hmac_key_sum(&pepper, str_of(made.secret), hash);
    CHECK(memcmp(hash, auth.keys[0].secrets[0].hash, sizeof(hash)) == 0);

    CHECK_FAILS(access_key_create(&env, m, project, &want, &a, &second, &e), ALREADY_EXISTS, &e,
                "there is a key 'shop'");
    NEED_OK(access_key_rotate(&env, m, S("shop"), 60 * SECOND, S("x"), S(""), &a, &second, &e), &e);
    CHECK(strcmp(made.secret, second.secret) != 0 && str_eq(made.id, second.id));
    auth = part_of(project);
    NEED(auth.key_count == 1 && auth.keys[0].secret_count == 2);
    CHECK(auth.keys[0].secrets[0].until_ns == INT64_MAX &&
          auth.keys[0].secrets[1].until_ns == second.until_ns);
    NEED_OK(access_key_rotate(&env, m, made.id, 0, S("x"), S(""), &a, &third, &e), &e);
    auth = part_of(project);
    NEED(auth.key_count == 1);
    CHECK_INT(auth.keys[0].secret_count, 1); /* no overlap: the others ended */

    NEED_OK(access_key_revoke(m, S("shop"), S("x"), S("why"), &a, &id, &e), &e);
    auth = part_of(project);
    CHECK(auth.mode == PLAN_AUTH_REQUIRED && auth.key_count == 0); /* closed, not open again */
    CHECK_FAILS(access_key_revoke(m, id, S("x"), S(""), &a, &id, &e), FAILED_PRECONDITION, &e,
                "for ever");
    CHECK_FAILS(access_key_rotate(&env, m, S("shop"), 0, S("x"), S(""), &a, &third, &e), NOT_FOUND,
                &e, "did you mean 'shop'");
    NEED_OK(access_key_create(&env, m, project, &want, &a, &second, &e), &e); /* the name is free */
    CHECK(!str_eq(made.id, second.id));
    NEED_OK(access_keys_list(m, &a, &list, &e), &e);
    CHECK_INT(list->count, 2);
    CHECK_STR(json_str_or(json_get(list->first, S("state")), S("")), S("revoked"));
    CHECK_STR(json_str_or(json_get(list->last, S("state")), S("")), S("active"));
    CHECK_INT(facts("key"), 5);
}

static void test_refused_keys(void)
{
    const struct json *project = project_of("{\"endpoints\":{\"pay\":{}}}");
    static const struct {
        const char *name, *role, *tier, *tenant, *endpoints, *rate;
        int64_t expires_ns;
        const char *why;
    } bad[] = {
        {"", "reader", "", "", "null", "null", 0, "the name of a key"},
        {"a b", "reader", "", "", "null", "null", 0, "the name of a key"},
        {"k", "raeder", "", "", "null", "null", 0, "did you mean 'reader'"},
        {"k", "", "", "", "null", "null", 0, "is not a role"},
        {"k", "reader", "fre", "", "null", "null", 0, "did you mean 'free'"},
        {"k", "reader", "", "a/b", "null", "null", 0, "tenant"},
        {"k", "reader", "", "", "[\"pya\"]", "null", 0, "no endpoint 'pya'"},
        {"k", "reader", "", "", "null", "{\"requests\":0,\"per_ns\":1000000000}", 0, "a rate of 0"},
        {"k", "reader", "", "", "null", "null", 5, "expired already"},
    };
    struct access_key_made made;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct access_key_new want = {.name = str_of(bad[i].name),
                                      .role = str_of(bad[i].role),
                                      .tier = str_of(bad[i].tier),
                                      .tenant = str_of(bad[i].tenant),
                                      .endpoints = project_of(bad[i].endpoints),
                                      .rate = project_of(bad[i].rate),
                                      .expires_ns = bad[i].expires_ns,
                                      .actor = S("x")};

        want.endpoints = want.endpoints->type == JSON_NULL ? NULL : want.endpoints;
        if (!CHECK(access_key_create(&env, m, project, &want, &a, &made, &e) != 0 &&
                   strstr(e.msg, bad[i].why)))
            fprintf(stderr, "    %s: %s\n", bad[i].why, e.msg);
    }
}

static void test_preset_tiers(void)
{
    const struct json *project = project_of("{}");
    struct access_key_new want = {
        .name = S("free"), .role = S("predictor"), .tier = S("free"), .actor = S("x")};
    struct access_key_made made;
    struct plan_auth auth;

    NEED_OK(access_key_create(&env, m, project, &want, &a, &made, &e), &e);
    auth = part_of(project);
    for (size_t i = 0; i < auth.key_count; i++)
        if (str_eq(auth.keys[i].id, made.id))
            CHECK(auth.keys[i].rate.requests == 100 && auth.keys[i].per_day == 100 &&
                  auth.keys[i].rate.per_ns == 3600 * SECOND && auth.keys[i].per_month == 1000);
}

/* --- Key sets --------------------------------------------------------------------------------- */

static const char fetched[] =
    "{\"auth\":{\"mode\":\"auto\",\"issuers\":{\"corp\":{\"issuer\":\"https://"
    "x\",\"audiences\":[\"w\"],"
    "\"algorithms\":[\"EdDSA\"],\"role_claim\":\"roles\",\"roles\":{},\"default_role\":null,"
    "\"tenant_claim\":null,\"tier\":null,\"jwks\":null,\"jwks_file\":null,\"jwks_url\":"
    "\"https://x/keys\",\"max_age_ns\":100000000000}}}}";

static void got(const struct json *project, const char *body, int64_t second)
{
    const struct json *issuer = json_path(project, "auth.issuers.corp");

    CHECK_OK(access_jwks_fetched(m, issuer, str_of(body), S("it is away"), second * SECOND, &e),
             &e);
}

static size_t believed(const struct json *project)
{
    struct plan_auth auth = part_of(project);

    return CHECK(auth.issuer_count == 1) ? auth.issuers[0].key_count : SIZE_MAX;
}

static void test_a_key_set_ages(void)
{
    const struct json *project = project_of(fetched), *moved;

    CHECK_INT(believed(project), 0); /* not fetched yet */
    got(project, NULL, 1000);
    CHECK(believed(project) == 0 && facts("jwks.unreachable") == 1);
    got(project, SET("one"), 1010);
    CHECK(believed(project) == 1 && facts("jwks.refreshed") == 1);
    got(project, SET("one"), 1020); /* the same again: nothing to tell */
    CHECK_INT(facts("jwks.refreshed"), 1);
    got(project, NULL, 1030);
    got(project, "{\"keys\":[]}", 1040);
    got(project, "<html>", 1119);
    CHECK(believed(project) == 1 && facts("jwks.unreachable") == 2); /* one fact for an outage */
    got(project, NULL, 1120); /* max_age after the last good one */
    CHECK(believed(project) == 0 && facts("jwks.expired") == 1);
    got(project, NULL, 1130);
    CHECK_INT(facts("jwks.expired"), 1);
    got(project, SET("one"), 1140); /* back, with the same keys */
    CHECK(believed(project) == 1 && facts("jwks.refreshed") == 2);
    got(project, SET("two"), 1150);
    CHECK(believed(project) == 1 && facts("jwks.refreshed") == 3);
    /* The keys of one address are not those of another. */
    moved = project_of(arena_printf(&a, "%s", fetched).p);
    json_set_str(&a, json_path(moved, "auth.issuers.corp"), S("jwks_url"), S("https://y/keys"));
    CHECK_INT(believed(moved), 0);
}

static void test_key_sets_in_the_project(void)
{
    struct json *project = project_of(fetched), *part;
    struct json *issuer = json_path(project, "auth.issuers.corp");

    json_set(issuer, S("jwks_url"), json_new_null(&a));
    json_set_str(&a, issuer, S("jwks"), S(SET("inline")));
    CHECK_INT(believed(project), 1);
    json_set_str(&a, issuer, S("jwks"),
                 S("{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AA\"}]}"));
    CHECK_FAILS(access_part(&env, m, project, &a, &part, &e), INVALID_ARGUMENT, &e,
                "auth.issuers.corp");
    json_set(issuer, S("jwks"), json_new_null(&a));
    json_set_str(&a, issuer, S("jwks_file"), S("no.json"));
    CHECK_FAILS(access_part(&env, m, project, &a, &part, &e), NOT_FOUND, &e, "no.json");
}

RUN_TESTS(T(begin), T(test_modes), T(test_life_of_a_key), T(test_refused_keys),
          T(test_preset_tiers), T(test_a_key_set_ages), T(test_key_sets_in_the_project), T(end))
