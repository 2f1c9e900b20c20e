/* SPDX-License-Identifier: Apache-2.0 */
/* `weir models`: the registry to look at: models, versions, cards. */
#include "base/time.h"
#include "cli/cli.h"
#include "cli/paint.h"
#include "cli/session.h"
#include "registry/card.h"

struct models_options {
    bool card;
    const char *tag, *owner, *stage, *metric, *framework;
};

static const struct cli_option options[] = {
    {"card", 'c', CLI_FLAG, NULL, "the model card of a version, as Markdown",
     offsetof(struct models_options, card)},
    {"tag", 0, CLI_TEXT, "TAG", "only models with this tag", offsetof(struct models_options, tag)},
    {"owner", 0, CLI_TEXT, "NAME", "only models of this owner",
     offsetof(struct models_options, owner)},
    {"stage", 0, CLI_TEXT, "STAGE", "only models with a version in production, staging, …",
     offsetof(struct models_options, stage)},
    {"framework", 0, CLI_TEXT, "NAME", "only models made with it",
     offsetof(struct models_options, framework)},
    {"metric", 0, CLI_TEXT, "f1>0.9", "only models with a version that reaches it",
     offsetof(struct models_options, metric)},
};
static const struct cli_spec spec = {
    .name = "models",
    .usage = "[MODEL [VERSION|ALIAS]]",
    .summary = "models, their versions and their cards",
    .examples = "  weir models --owner risk --metric 'f1>0.9'\n  weir models fraud\n"
                "  weir models fraud champion --card > card.md\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_max = 2,
};

static str text_of(const struct json *o, const char *key)
{
    return json_str_or(json_get(o, str_of(key)), S(""));
}

static int64_t number_of(const struct json *o, const char *key)
{
    return json_int_or(json_get(o, str_of(key)), 0);
}

/* {"champion":3} -> "champion 3"; with version != 0 the names of those that point at it. */
static str aliases_text(struct cli *c, const struct json *aliases, int64_t version)
{
    str all = S("");

    if (!json_is_container(aliases))
        return all;
    JSON_EACH (alias, aliases) {
        int64_t at = json_int_or(alias, 0);
        const char *sep = all.n ? ", " : "";

        if (!version)
            all = arena_printf(&c->a, STR_F "%s" STR_F " %lld", STR_A(all), sep, STR_A(alias->key),
                               (long long)at);
        else if (at == version)
            all = arena_printf(&c->a, STR_F "%s" STR_F, STR_A(all), sep, STR_A(alias->key));
    }
    return all;
}

static str list_text(struct cli *c, const struct json *list)
{
    str all = S("");

    if (!json_is_container(list))
        return all;
    JSON_EACH (item, list)
        all = arena_printf(&c->a, STR_F "%s" STR_F, STR_A(all), all.n ? ", " : "",
                           STR_A(json_str_or(item, S("?"))));
    return all;
}

/* "f1 0.91, brier 0.08": the evaluation's figures, else those given at registration. */
static str metrics_text(struct cli *c, const struct json *meta)
{
    const struct json *metrics = json_path(meta, "evaluation.metrics");
    str all = S("");
    int n = 0;

    if (!metrics)
        metrics = json_get(meta, S("metrics"));
    if (!json_is_container(metrics))
        return all;
    JSON_EACH (m, metrics)
        if (n++ < 3)
            all = arena_printf(&c->a, STR_F "%s" STR_F " %.4g", STR_A(all), all.n ? ", " : "",
                               STR_A(m->key), json_real_or(m, 0));
    return all;
}

static void write_models(struct cli *c, const struct json *models)
{
    static const char *const titles[] = {"MODEL", "VERSIONS", "ALIASES", "OWNER", "TAGS", "NEWEST"};
    int64_t now = time_wall_ns();
    struct table t;

    table_begin(&t, &c->a, titles, ARRAY_LEN(titles));
    t.right[1] = true;
    JSON_EACH (model, models) {
        const struct json *versions = json_get(model, S("versions"));
        const struct json *meta = json_get(model, S("meta"));

        table_add(&t, text_of(model, "name"));
        table_add(&t,
                  arena_printf(&c->a, "%zu", json_is_container(versions) ? versions->count : 0));
        table_add(&t, aliases_text(c, json_get(model, S("aliases")), 0));
        table_add(&t, text_of(meta, "owner"));
        table_add(&t, list_text(c, json_get(meta, S("tags"))));
        table_add(&t, paint_ago(&c->a, number_of(json_at(versions, 0), "created_ns"), now));
    }
    table_write(&t, c->color, &c->out);
}

static void write_versions(struct cli *c, const struct json *model)
{
    static const char *const titles[] = {"VERSION",   "STAGE",   "ALIASES", "CREATED",
                                         "FRAMEWORK", "METRICS", "BY"};
    const struct json *versions = json_get(model, S("versions"));
    int64_t now = time_wall_ns();
    struct table t;

    table_begin(&t, &c->a, titles, ARRAY_LEN(titles));
    t.right[0] = true;
    JSON_EACH (v, versions) {
        const struct json *meta = json_get(v, S("meta"));
        int64_t version = number_of(v, "version");
        bool removed = str_eq(text_of(v, "status"), S("removed"));

        table_add(&t, arena_printf(&c->a, "%lld", (long long)version));
        table_add(&t, removed ? S("removed") : text_of(v, "stage"));
        table_add(&t, aliases_text(c, json_get(model, S("aliases")), version));
        table_add(&t, paint_ago(&c->a, number_of(v, "created_ns"), now));
        table_add(&t, text_of(meta, "framework"));
        table_add(&t, metrics_text(c, meta));
        table_add(&t, text_of(meta, "actor"));
    }
    table_write(&t, c->color, &c->out);
}

static NODISCARD int list(struct cli *c, struct err *e)
{
    struct models_options *o = c->values;
    struct json *answer;
    const struct json *models;

    TRY(cli_call(c,
                 cli_target(c, "/api/v1/models", "tag", o->tag, "owner", o->owner, "stage",
                            o->stage, "framework", o->framework, "metric", o->metric, NULL),
                 NULL, &answer, e));
    models = json_get(answer, S("models"));
    if (c->opt.json)
        cli_json(c, answer);
    else if (json_is_container(models) && models->count)
        write_models(c, models);
    else
        cli_note("no model fits; a model file becomes one with: weir register MODEL FILE");
    return 0;
}

/* The card of a version: as it is, or what fits on a screen. */
static NODISCARD int show(struct cli *c, const char *version, struct err *e)
{
    static const char *const parts[] = {"overview", "performance", "maintenance"};
    struct models_options *o = c->values;
    struct json *card, *brief;

    TRY(cli_call(c,
                 arena_printf(&c->a, "/api/v1/models/%s/versions/%s/card",
                              cli_segment(c, c->opt.args[0]), cli_segment(c, version))
                     .p,
                 NULL, &card, e));
    if (c->opt.json) {
        cli_json(c, card);
        return 0;
    }
    if (o->card) {
        registry_card_markdown(card, &c->a, &c->out);
        return 0;
    }
    brief = json_new_object(&c->a);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (json_get(card, str_of(parts[i])))
            json_set(brief, str_of(parts[i]), json_copy(&c->a, json_get(card, str_of(parts[i]))));
    registry_card_markdown(brief, &c->a, &c->out);
    cli_note("next: weir models %s %s --card", c->opt.args[0], version);
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    struct models_options *o = c->values;
    const char *version = c->opt.arg_count > 1 ? c->opt.args[1] : o->card ? "champion" : NULL;
    struct json *model;

    if (!c->opt.arg_count && o->card)
        return FAIL(e, INVALID_ARGUMENT,
                    "--card needs a model: weir models MODEL [VERSION] --card");
    if (!c->opt.arg_count)
        return list(c, e);
    if (version)
        return show(c, version, e);
    TRY(cli_call(c, arena_printf(&c->a, "/api/v1/models/%s", cli_segment(c, c->opt.args[0])).p,
                 NULL, &model, e));
    if (c->opt.json)
        cli_json(c, model);
    else
        write_versions(c, model);
    return 0;
}

int command_models(int argc, char **argv)
{
    struct models_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
