/* SPDX-License-Identifier: Apache-2.0 */
/* `weir transform`: the pipeline of a version over a file, with the numbers that its model gets. */
#include "base/files.h"
#include "cli/cli.h"
#include "cli/session.h"
#include "registry/pipeline.h"

#define DOCUMENT_BYTES_MAX ((size_t)64 << 20)

struct transform_options {
    const char *version;
    struct cli_list keep;
};

static const struct cli_option options[] = {
    {"version", 0, CLI_TEXT, "N|ALIAS", "whose pipeline; the champion's",
     offsetof(struct transform_options, version)},
    {"keep", 'k', CLI_LIST, "COLUMN", "a column of the table to put behind, as it is (repeat)",
     offsetof(struct transform_options, keep)},
};
static const struct cli_spec spec = {
    .name = "transform",
    .usage = "MODEL|PIPELINE.json FILE OUT",
    .summary = "run the pipeline of a model over a table (CSV, Parquet, JSON lines)",
    .examples = "  weir transform churn new.csv ready.parquet --keep customer\n"
                "  weir transform churn new.parquet ready.csv --version 3\n"
                "  weir transform .weir/work/FLOW/pipeline.json new.csv ready.csv\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_min = 3,
    .args_max = 3,
};

static NODISCARD int document_of(struct cli *c, const struct transform_options *o,
                                 struct json **ret, struct err *e)
{
    const char *model = c->opt.args[0], *version = o->version ? o->version : "champion";
    struct json *answer;
    str text;

    if (str_ends(str_of(model), S(".json"))) {
        TRY(file_read_all(model, DOCUMENT_BYTES_MAX, &c->a, &text, e));
        if (json_parse(text, &c->a, ret, e))
            return err_context(e, "%s", model);
        return 0;
    }
    TRY(cli_call(c,
                 arena_printf(&c->a, "/api/v1/models/%s/versions/%s", cli_segment(c, model),
                              cli_segment(c, version))
                     .p,
                 NULL, &answer, e));
    *ret = json_path(answer, "meta.pipeline");
    if (!*ret)
        return FAIL(e, FAILED_PRECONDITION,
                    "version %s of model '%s' has no pipeline: it takes the columns as they are",
                    version, model);
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    struct transform_options *o = c->values;
    const char *from = c->opt.args[1], *to = c->opt.args[2];
    const struct pipeline_source source = {.path = from};
    str *keep = ARENA_ARRAY(&c->a, str, o->keep.n + 1);
    struct json *document, *answer;
    int64_t rows;

    for (size_t i = 0; i < o->keep.n; i++)
        keep[i] = str_of(o->keep.at[i]);
    if (file_exists(to))
        return FAIL(e, ALREADY_EXISTS, "%s is there already", to);
    TRY(document_of(c, o, &document, e));
    TRY(pipeline_complete(document, &source, &c->a, &document, e));
    TRY(pipeline_transform(document, &source, keep, o->keep.n, to, &rows, e));
    if (c->opt.json) {
        answer = json_new_object(&c->a);
        json_set_int(&c->a, answer, S("rows"), rows);
        json_set_str(&c->a, answer, S("file"), str_of(to));
        json_set(answer, S("pipeline"), document);
        cli_json(c, answer);
    }
    cli_note("%lld rows in %s", (long long)rows, to);
    return 0;
}

int command_transform(int argc, char **argv)
{
    struct transform_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
