/* SPDX-License-Identifier: Apache-2.0 */
/* `weir register`: a model file becomes a version. */
#include "base/files.h"
#include "cli/cli.h"
#include "cli/session.h"

struct register_options {
    bool promote, wait, no_wait;
    const char *reason;
    struct cli_list metadata;
};

static const struct cli_option options[] = {
    {"promote", 0, CLI_FLAG, NULL, "make it the champion at once, without a rollout",
     offsetof(struct register_options, promote)},
    {"reason", 'r', CLI_TEXT, "TEXT", "why, for the journal",
     offsetof(struct register_options, reason)},
    {"metadata", 'm', CLI_LIST, "KEY=VALUE",
     "what to keep with it: owner, commit, algorithm, tags=a,b … (repeat)",
     offsetof(struct register_options, metadata)},
    {"wait", 0, CLI_FLAG, NULL, "wait until it is registered or refused (as is done anyway)",
     offsetof(struct register_options, wait)},
    {"no-wait", 0, CLI_FLAG, NULL, "answer with the flow and go",
     offsetof(struct register_options, no_wait)},
};
static const struct cli_spec spec = {
    .name = "register",
    .usage = "MODEL FILE",
    .summary = "check a model (ONNX, XGBoost, LightGBM, a folder, a remote server) and keep it",
    .examples = "  weir register fraud model.onnx\n"
                "  weir register fraud model.json --promote --reason 'first version'\n"
                "  weir register fraud model.txt --reason 'LightGBM'\n"
                "  weir register fraud model.ubj -m owner=risk -m commit=4f1a2b\n"
                "  weir register fraud folder/       # with model.yaml: a program answers\n"
                "  weir register fraud remote.yaml   # kind: remote: another server answers\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_min = 2,
    .args_max = 2,
};

static NODISCARD int metadata_of(struct cli *c, const struct cli_list *list, struct json *to,
                                 struct err *e)
{
    for (size_t i = 0; i < list->n; i++) {
        str rest = str_of(list->at[i]), key = str_cut(&rest, '=');

        if (!rest.p || !key.n)
            return FAIL(e, INVALID_ARGUMENT, "--metadata is '%s', expected KEY=VALUE", list->at[i]);
        if (str_eq(key, S("tags"))) {
            struct json *tags = json_set(to, S("tags"), json_new_array(&c->a));

            while (rest.p)
                json_push(tags, json_new_str(&c->a, str_cut(&rest, ',')));
        } else {
            json_set_str(&c->a, to, key, rest);
        }
    }
    return 0;
}

static void tell(struct cli *c, const struct json *result)
{
    str model = json_str_or(json_get(result, S("model")), str_of(c->opt.args[0]));
    str note = json_str_or(json_get(result, S("note")), S(""));
    int64_t version = json_int_or(json_get(result, S("version")), 0);
    bool promoted = json_bool_or(json_get(result, S("promoted")), false);

    cli_note("registered " STR_F " version %lld%s", STR_A(model), (long long)version,
             promoted ? ", which is the champion now" : "");
    if (note.n)
        cli_note("note: " STR_F, STR_A(note));
    if (promoted)
        cli_note("next: weir status");
    else
        cli_note("next: weir promote ENDPOINT %lld", (long long)version);
}

static int run(struct cli *c, struct err *e)
{
    struct register_options *o = c->values;
    struct json *body = json_new_object(&c->a), *answer, *flow;
    const char *path, *target;

    if (path_real(c->opt.args[1], &c->a, &path, e))
        return FAIL(e, INVALID_ARGUMENT, "there is no file '%s'", c->opt.args[1]);
    json_set_str(&c->a, body, S("path"), str_of(path));
    if (o->reason)
        json_set_str(&c->a, body, S("reason"), str_of(o->reason));
    json_set_bool(&c->a, body, S("promote"), o->promote);
    TRY(metadata_of(c, &o->metadata, json_set(body, S("metadata"), json_new_object(&c->a)), e));
    target = arena_printf(&c->a, "/api/v1/models/%s/versions", cli_segment(c, c->opt.args[0])).p;
    TRY(cli_call(c, target, body, &answer, e));
    if (o->no_wait) {
        cli_json(c, answer);
        cli_note("next: weir flows " STR_F, STR_A(json_str_or(json_get(answer, S("flow")), S(""))));
        return 0;
    }
    TRY(cli_flow_wait(c, json_str_or(json_get(answer, S("flow")), S("")), &flow, e));
    if (c->opt.json)
        cli_json(c, json_get(flow, S("result")));
    tell(c, json_get(flow, S("result")));
    return 0;
}

int command_register(int argc, char **argv)
{
    struct register_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
