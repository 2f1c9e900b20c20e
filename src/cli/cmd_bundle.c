/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `weir bundle`: a version in one file. Writing reads blobs of this project and asks control for
 * the rest; importing is a registration that takes a bundle for its file.
 */
#include "base/files.h"
#include "cli/cli.h"
#include "cli/session.h"
#include "registry/bundle.h"

struct bundle_options {
    const char *output, *as, *reason;
    bool promote;
};

static const struct cli_option options[] = {
    {"output", 'o', CLI_TEXT, "FILE", "export: where to write",
     offsetof(struct bundle_options, output)},
    {"as", 0, CLI_TEXT, "MODEL", "import: under this name instead of its own",
     offsetof(struct bundle_options, as)},
    {"promote", 0, CLI_FLAG, NULL, "import: make it the champion at once, without a rollout",
     offsetof(struct bundle_options, promote)},
    {"reason", 'r', CLI_TEXT, "TEXT", "import: why, for the journal",
     offsetof(struct bundle_options, reason)},
};
static const struct cli_spec spec = {
    .name = "bundle",
    .usage = "export MODEL[@VERSION|@ALIAS] -o FILE | import FILE",
    .summary = "carry a version to another registry in one file",
    .examples = "  weir bundle export fraud -o fraud.bundle\n"
                "  weir bundle export fraud@7 -o fraud-7.bundle\n"
                "  weir bundle import fraud-7.bundle --reason 'from staging'\n",
    .notes =
        "A bundle is a tar file: the model, what is normal for it, a golden answer, its card,\n"
        "and a manifest with the hash of each. It is not signed: compare its id.\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_min = 2,
    .args_max = 2,
};

/* --- Export ----------------------------------------------------------------------------------- */

/* "fraud@7" -> fraud, 7; without a version the champion, else the newest. */
static NODISCARD int version_of(struct cli *c, const char *text, const char **ret_model,
                                const char **ret_version, struct err *e)
{
    str rest = str_of(text), name = str_cut(&rest, '@');
    struct json *model;
    int64_t version;

    *ret_model = cli_segment(c, arena_dupz(&c->a, name));
    if (rest.p) {
        *ret_version = cli_segment(c, arena_dupz(&c->a, rest));
        return 0;
    }
    TRY(cli_call(c, arena_printf(&c->a, "/api/v1/models/%s", *ret_model).p, NULL, &model, e));
    version = json_int_or(json_path(model, "aliases.champion"), 0);
    if (!version)
        version =
            json_int_or(json_get(json_at(json_get(model, S("versions")), 0), S("version")), 0);
    *ret_version = arena_printf(&c->a, "%lld", (long long)version).p;
    return 0;
}

static NODISCARD int export(struct cli *c, struct err *e)
{
    AUTO(blobs_closep) struct blobs *blobs = NULL;
    struct bundle_options *o = c->values;
    struct json *version, *card, *answer = json_new_object(&c->a);
    const char *model, *at, *target;
    char id[SHA256_HEX_SIZE];

    if (!o->output)
        return FAIL(e, INVALID_ARGUMENT, "say where to write: -o FILE");
    TRY(version_of(c, c->opt.args[1], &model, &at, e));
    target = arena_printf(&c->a, "/api/v1/models/%s/versions/%s", model, at).p;
    TRY(cli_call(c, target, NULL, &version, e));
    TRY(cli_call(c, arena_printf(&c->a, "%s/card", target).p, NULL, &card, e));
    TRY(blobs_open(path_join(&c->a, c->project_dir, ".weir/blobs"), &blobs, e));
    TRY(bundle_write(&(struct bundle_input){.blobs = blobs, .version = version, .card = card},
                     o->output, id, e));
    json_set_str(&c->a, answer, S("file"), str_of(o->output));
    json_set_str(&c->a, answer, S("id"), str_of(id));
    json_set(answer, S("model"), json_get(version, S("model")));
    json_set(answer, S("version"), json_copy(&c->a, json_get(version, S("version"))));
    if (c->opt.json)
        cli_json(c, answer);
    cli_note("wrote %s, id %s", o->output, id);
    cli_note("next, in the other project: weir bundle import %s", o->output);
    return 0;
}

/* --- Import ----------------------------------------------------------------------------------- */

static NODISCARD int import(struct cli *c, struct err *e)
{
    AUTO(bundle_done) struct bundle b = {.fd = -1};
    struct bundle_options *o = c->values;
    struct json *body = json_new_object(&c->a), *answer, *flow;
    const struct json *result;
    const char *path, *model;

    if (path_real(c->opt.args[1], &c->a, &path, e))
        return FAIL(e, INVALID_ARGUMENT, "there is no file '%s'", c->opt.args[1]);
    TRY(bundle_open(path, &c->a, &b, e));
    model = o->as ? o->as : arena_dupz(&c->a, json_str_or(json_get(b.manifest, S("model")), S("")));
    json_set_str(&c->a, body, S("path"), str_of(path));
    json_set_str(&c->a, body, S("reason"),
                 o->reason ? str_of(o->reason) : arena_printf(&c->a, "bundle %s", b.id));
    json_set_bool(&c->a, body, S("promote"), o->promote);
    TRY(cli_call(c, arena_printf(&c->a, "/api/v1/models/%s/versions", cli_segment(c, model)).p,
                 body, &answer, e));
    TRY(cli_flow_wait(c, json_str_or(json_get(answer, S("flow")), S("")), &flow, e));
    result = json_get(flow, S("result"));
    if (c->opt.json)
        cli_json(c, result);
    cli_note("imported bundle %s as %s version %lld%s", b.id, model,
             (long long)json_int_or(json_get(result, S("version")), 0),
             json_bool_or(json_get(result, S("promoted")), false) ? ", which is the champion now"
                                                                  : "");
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    if (strcmp(c->opt.args[0], "export") == 0)
        return export(c, e);
    if (strcmp(c->opt.args[0], "import") == 0)
        return import(c, e);
    return FAIL(e, INVALID_ARGUMENT, "'%s' is neither export nor import", c->opt.args[0]);
}

int command_bundle(int argc, char **argv)
{
    struct bundle_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
