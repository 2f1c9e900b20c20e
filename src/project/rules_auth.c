/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of who may ask, and how much. */
#include "project/rules.h"

#include "plan/auth.h"

void rule_rate(struct walk *w, const struct path *p, struct json *norm)
{
    (void)p;
    if (!is_set(norm, "burst"))
        json_set_int(w->a, norm, S("burst"), json_int_or(json_get(norm, S("requests")), 1));
}

/* Who can change a key set in transit can sign whatever he likes. */
static bool is_safe_url(str url)
{
    static const char *const starts[] = {"https://", "http://127.0.0.1:", "http://127.0.0.1/",
                                         "http://localhost:", "http://localhost/"};

    for (size_t i = 0; i < ARRAY_LEN(starts); i++)
        if (str_starts(url, str_of(starts[i])))
            return true;
    return false;
}

void rule_issuer(struct walk *w, const struct path *p, struct json *norm)
{
    struct path algorithms = at_field(w, p, SECTION_issuer, "algorithms");
    struct path url = at_field(w, p, SECTION_issuer, "jwks_url");
    struct path roles = at_field(w, p, SECTION_issuer, "roles");
    int sources = is_set(norm, "jwks") + is_set(norm, "jwks_url") + is_set(norm, "jwks_file");
    enum auth_role role;
    enum sign_alg alg;
    str near;

    if (sources != 1)
        fail_at(w, p, WHAT("has %d sources of keys", sources),
                S("one of jwks_file, jwks_url and jwks"));
    if (is_set(norm, "jwks_url") && !is_safe_url(text_of(norm, "jwks_url")))
        fail_at(w, &url, S("could be answered by anybody on the way"),
                S("https://…, or http:// on this machine"));
    JSON_EACH (item, json_get(norm, S("algorithms")))
        if (!sign_alg_find(item->string, &alg))
            fail_at(w, &algorithms, WHAT("has '" STR_F "'", STR_A(item->string)),
                    S("RS256, ES256 or EdDSA"));
    JSON_EACH (item, json_get(norm, S("roles")))
        if (!auth_role_find(item->string, &role, &near))
            fail_at(w, &roles, WHAT("has the role '" STR_F "'", STR_A(item->string)),
                    S("reader, monitor, predictor, operator or admin"));
}

static bool is_loopback(str listen)
{
    static const char *const starts[] = {"127.", "localhost:", "[::1]:", "unix:"};

    for (size_t i = 0; i < ARRAY_LEN(starts); i++)
        if (str_starts(listen, str_of(starts[i])))
            return true;
    return false;
}

static bool is_tier(const struct json *auth, str name)
{
    static const char *const presets[] = {
#define TIER(name, per_hour, per_day, per_month, help) name,
#include "plan/tiers.def"
#undef TIER
    };

    for (size_t i = 0; i < ARRAY_LEN(presets); i++)
        if (str_eqz(name, presets[i]))
            return true;
    return json_get(json_get(auth, S("tiers")), name) != NULL;
}

/* A gateway that others can reach says who may ask it. Keys are not in the file, so it is the mode
 * that says they are wanted. */
void across_auth(struct walk *w, const struct path *root)
{
    struct path gateway = at_field(w, root, SECTION_root, "gateway");
    struct path listen = at_field(w, &gateway, SECTION_gateway, "listen");
    struct path at = at_field(w, root, SECTION_root, "auth");
    struct path list = at_field(w, &at, SECTION_auth, "issuers");
    const struct json *auth = json_get(w->norm, S("auth"));
    const struct json *issuers = json_get(auth, S("issuers"));
    str address = text_of(json_get(w->norm, S("gateway")), "listen");

    if (!auth)
        return;
    if (address.n && !is_loopback(address) && str_eqz(text_of(auth, "mode"), "auto") &&
        !issuers->count)
        fail_at(w, &listen, S("lets other machines in, and 'auth' does not say who may ask"),
                S("'auth: required' (see weir key), an entry of auth.issuers, or 'auth: none'"));
    JSON_EACH (issuer, issuers) {
        struct path item = {&list, issuer->key, 0, json_get(list.at, issuer->key)};
        struct path tier = at_field(w, &item, SECTION_issuer, "tier");
        struct path name = at_field(w, &item, SECTION_issuer, "issuer");

        for (const struct json *other = issuers->first; other != issuer; other = other->next)
            if (str_eq(text_of(other, "issuer"), text_of(issuer, "issuer")))
                fail_at(w, &name, WHAT("is also that of '" STR_F "'", STR_A(other->key)),
                        S("one entry for an issuer"));

        if (is_set(issuer, "tier") && !is_tier(auth, text_of(issuer, "tier")))
            fail_at(w, &tier,
                    WHAT("is '" STR_F "', which is no tier", STR_A(text_of(issuer, "tier"))),
                    S("free, basic, premium, or an entry of auth.tiers"));
    }
}
