/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `weir key`: who may ask the gateway. A secret is written to stdout, alone, and nowhere else; what
 * is said about it goes to stderr. It is never an argument, so it is never in a list of processes.
 */
#include "cli/cli.h"
#include "cli/paint.h"
#include "cli/session.h"

#include "base/time.h"

struct key_options {
    const char *role, *tenant, *tier, *rate, *expires, *overlap, *reason;
    int64_t burst;
    struct cli_list endpoints;
};

static const struct cli_option options[] = {
    {"role", 0, CLI_TEXT, "ROLE", "create: reader, monitor, predictor, operator or admin",
     offsetof(struct key_options, role)},
    {"tenant", 't', CLI_TEXT, "NAME", "create: whose key it is, for limits by tenant",
     offsetof(struct key_options, tenant)},
    {"endpoint", 'e', CLI_LIST, "NAME",
     "create: only this endpoint; may be repeated (default: all)",
     offsetof(struct key_options, endpoints)},
    {"tier", 0, CLI_TEXT, "NAME",
     "create: rate and quotas of a tier: free, basic, premium, or yours",
     offsetof(struct key_options, tier)},
    {"rate", 0, CLI_TEXT, "N/TIME", "create: at most N requests in that time: 100/s, 1000/h",
     offsetof(struct key_options, rate)},
    {"burst", 0, CLI_INT, "N", "create: of them at once (default: all)",
     offsetof(struct key_options, burst)},
    {"expires", 0, CLI_TEXT, "TIME", "create: 30d from now, or 2027-01-01T00:00:00Z",
     offsetof(struct key_options, expires)},
    {"overlap", 0, CLI_TEXT, "TIME", "rotate: how long the old secret goes on (default 24h)",
     offsetof(struct key_options, overlap)},
    {"reason", 'r', CLI_TEXT, "TEXT", "why, for the journal", offsetof(struct key_options, reason)},
};
static const struct cli_spec spec = {
    .name = "key",
    .usage = "[list] | create NAME --role ROLE | rotate KEY | revoke KEY",
    .summary = "API keys of the gateway: who may ask, and how much",
    .examples = "  weir key create shop --role predictor --endpoint fraud --rate 100/s > shop.key\n"
                "  weir key list\n  weir key rotate shop --overlap 7d > shop.key\n"
                "  weir key revoke shop --reason 'it was in a screenshot'\n",
    .notes = "  The secret is shown once. KEY is a name, or an id (the 8 digits after wk_).\n"
             "  The first key closes the gateway for everybody without one, unless auth is none.\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_max = 2,
};

static str text_of(const struct json *o, const char *key)
{
    return json_str_or(json_get(o, str_of(key)), S(""));
}

static int64_t int_of(const struct json *o, const char *key)
{
    return json_int_or(json_get(o, str_of(key)), 0);
}

static str time_text(struct cli *c, int64_t wall_ns)
{
    char iso[TIME_ISO_SIZE];

    if (!wall_ns)
        return S("never");
    time_iso(wall_ns, iso);
    return arena_printf(&c->a, "%.10s %.5s", iso, iso + 11);
}

/* --- list ------------------------------------------------------------------------------------- */

static str joined(struct cli *c, const struct json *list)
{
    str all = STR_NULL;

    if (!json_is_container(list) || !list->count)
        return S("all");
    JSON_EACH (item, list)
        all = arena_printf(&c->a, STR_F "%s" STR_F, STR_A(all), all.n ? "," : "",
                           STR_A(json_str_or(item, S(""))));
    return paint_cut(all, 40);
}

/* Rate of its own, or tier. */
static str limit_text(struct cli *c, const struct json *key)
{
    const struct json *rate = json_get(key, S("rate"));

    if (!json_is_container(rate))
        return text_of(key, "tier").n ? text_of(key, "tier") : S("-");
    return arena_printf(&c->a, "%lld/" STR_F, (long long)int_of(rate, "requests"),
                        STR_A(time_duration_text(&c->a, int_of(rate, "per_ns"))));
}

static int list(struct cli *c, struct err *e)
{
    static const char *const titles[] = {"NAME",      "PREFIX", "STATE",         "ROLE",   "TENANT",
                                         "ENDPOINTS", "LIMIT",  "EXPIRES (UTC)", "SECRETS"};
    struct json *answer, *keys;
    struct table t;

    TRY(cli_call(c, "/api/v1/keys", NULL, &answer, e));
    if (c->opt.json) {
        cli_json(c, answer);
        return 0;
    }
    keys = json_get(answer, S("keys"));
    table_begin(&t, &c->a, titles, ARRAY_LEN(titles));
    JSON_EACH (key, keys) {
        const struct json *secrets = json_get(key, S("secrets"));
        str state = text_of(key, "state");

        table_add_painted(&t, PAINT_BOLD, text_of(key, "name"));
        table_add(&t, arena_printf(&c->a, "wk_" STR_F, STR_A(text_of(key, "id"))));
        table_add_painted(&t, str_eq(state, S("active")) ? PAINT_GREEN : PAINT_RED, state);
        table_add(&t, text_of(key, "role"));
        table_add(&t, text_of(key, "tenant"));
        table_add(&t, joined(c, json_get(key, S("endpoints"))));
        table_add(&t, limit_text(c, key));
        table_add(&t, time_text(c, int_of(key, "expires_ns")));
        table_add(&t, arena_printf(&c->a, "%zu", secrets ? secrets->count : 0));
    }
    if (keys->count)
        table_write(&t, c->color, &c->out);
    else
        cli_note("no keys yet\nnext: weir key create NAME --role predictor");
    return 0;
}

/* --- create, rotate, revoke ------------------------------------------------------------------- */

static void set_text(struct cli *c, struct json *body, const char *key, const char *value)
{
    if (value)
        json_set_str(&c->a, body, str_of(key), str_of(value));
}

static void show_secret(struct cli *c, const struct json *answer)
{
    if (c->opt.json)
        cli_json(c, answer);
    else
        buf_printf(&c->out, STR_F "\n", STR_A(text_of(answer, "key")));
}

static int create(struct cli *c, struct err *e)
{
    struct key_options *o = c->values;
    struct json *body = json_new_object(&c->a), *answer, *endpoints;

    if (!o->role)
        return FAIL(e, INVALID_ARGUMENT,
                    "--role is missing: reader, monitor, predictor, operator or admin");
    set_text(c, body, "name", c->opt.args[1]);
    set_text(c, body, "role", o->role);
    set_text(c, body, "tenant", o->tenant);
    set_text(c, body, "tier", o->tier);
    set_text(c, body, "rate", o->rate);
    set_text(c, body, "expires", o->expires);
    set_text(c, body, "reason", o->reason);
    if (o->burst)
        json_set_int(&c->a, body, S("burst"), o->burst);
    if (o->endpoints.n) {
        endpoints = json_set(body, S("endpoints"), json_new_array(&c->a));
        for (size_t i = 0; i < o->endpoints.n; i++)
            json_push(endpoints, json_new_str(&c->a, str_of(o->endpoints.at[i])));
    }
    TRY(cli_call(c, "/api/v1/keys", body, &answer, e));
    show_secret(c, answer);
    cli_note("key %s (" STR_F "…) is valid from now on; this is the only time its secret is shown\n"
             "next: send it as Authorization: Bearer … or X-API-Key",
             c->opt.args[1], STR_A(text_of(answer, "prefix")));
    return 0;
}

static int rotate(struct cli *c, struct err *e)
{
    struct key_options *o = c->values;
    struct json *body = json_new_object(&c->a), *answer;

    set_text(c, body, "overlap", o->overlap);
    set_text(c, body, "reason", o->reason);
    TRY(cli_call(c, arena_printf(&c->a, "/api/v1/keys/%s/rotate", cli_segment(c, c->opt.args[1])).p,
                 body, &answer, e));
    show_secret(c, answer);
    cli_note("key %s has a new secret (" STR_F "…); the old one ends at " STR_F " UTC",
             c->opt.args[1], STR_A(text_of(answer, "prefix")),
             STR_A(time_text(c, int_of(answer, "old_until_ns"))));
    return 0;
}

static int revoke(struct cli *c, struct err *e)
{
    struct key_options *o = c->values;
    struct json *body = json_new_object(&c->a), *answer;

    set_text(c, body, "reason", o->reason);
    TRY(cli_call(c, arena_printf(&c->a, "/api/v1/keys/%s/revoke", cli_segment(c, c->opt.args[1])).p,
                 body, &answer, e));
    if (c->opt.json)
        cli_json(c, answer);
    cli_note("key %s is revoked, for ever", c->opt.args[1]);
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    static const struct {
        const char *word;
        int (*fn)(struct cli *c, struct err *e);
    } verbs[] = {{"create", create}, {"rotate", rotate}, {"revoke", revoke}};
    const char *word = c->opt.arg_count ? c->opt.args[0] : "list";

    if (strcmp(word, "list") == 0)
        return list(c, e);
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(word, verbs[i].word) != 0)
            continue;
        if (c->opt.arg_count < 2)
            return FAIL(e, INVALID_ARGUMENT, "weir key %s: which key?", word);
        return verbs[i].fn(c, e);
    }
    return FAIL(e, INVALID_ARGUMENT, "'%s' is not list, create, rotate or revoke", word);
}

int command_key(int argc, char **argv)
{
    struct key_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
