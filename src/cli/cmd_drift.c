/* SPDX-License-Identifier: Apache-2.0 */
/* `weir drift`: the monitors of endpoints, or two files of distributions. */
#include "base/files.h"
#include "base/time.h"
#include "cli/cli.h"
#include "cli/drift_files.h"
#include "cli/drift_view.h"
#include "cli/paint.h"
#include "cli/session.h"

#define FILE_BYTES_MAX ((size_t)64 << 20)

struct drift_options {
    const char *baseline, *current, *output;
    double threshold;
    bool verbose, all;
};

static const struct cli_option options[] = {
    {"baseline", 'b', CLI_TEXT, "FILE", "JSON of shares per feature: what it was",
     offsetof(struct drift_options, baseline)},
    {"current", 'c', CLI_TEXT, "FILE", "the same: what it is",
     offsetof(struct drift_options, current)},
    {"threshold", 't', CLI_REAL, "PSI", "a PSI of this or more exceeds (default 0.2)",
     offsetof(struct drift_options, threshold)},
    {"output", 'o', CLI_TEXT, "FILE", "write the report there, as JSON",
     offsetof(struct drift_options, output)},
    {"verbose", 'v', CLI_FLAG, NULL, "what the figures mean; of two files: every feature",
     offsetof(struct drift_options, verbose)},
    {"all", 'a', CLI_FLAG, NULL, "every column of an endpoint, not only those that stand out",
     offsetof(struct drift_options, all)},
};
static const struct cli_spec spec = {
    .name = "drift",
    .usage = "[ENDPOINT | --baseline A.json --current B.json]",
    .summary = "how far the data has moved: of running endpoints, or of two files",
    .examples = "  weir drift\n  weir drift fraud --all\n"
                "  weir drift --baseline train.json --current today.json --threshold 0.2\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_max = 1,
    .notes = "PSI: how far a column is from its reference; 0.1 is worth a look, 0.25 is much.\n"
             "BY CHANCE: the PSI that so few rows have on average without any drift.\n"
             "EVIDENCE: rises with each row that fits a change better; at the budget it alarms.\n"
             "Shown are columns beyond a band, above twice the chance, or with 1% of the budget.\n"
             "Of two files: exit 0 nothing exceeds, 1 something does, 2 wrong input.\n"
             "A file is {\"feature\": [shares or counts of the cells], …}, or one array.\n",
};

/* --- Two files -------------------------------------------------------------------------------- */

static NODISCARD int read_file(struct cli *c, const char *path, struct json **ret, struct err *e)
{
    str text;

    if (file_read_all(path, FILE_BYTES_MAX, &c->a, &text, e))
        return FAIL(e, INVALID_ARGUMENT, "%s cannot be read", path);
    if (json_parse(text, &c->a, ret, e))
        return err_context(e, "%s", path);
    return 0;
}

static void write_results(struct cli *c, const struct json *results, bool verbose)
{
    static const char *const titles[] = {"FEATURE", "PSI", "KL", "SEVERITY"};
    struct table t;

    table_begin(&t, &c->a, titles, ARRAY_LEN(titles));
    t.right[1] = t.right[2] = true;
    JSON_EACH (r, results) {
        str severity = json_str_or(json_get(r, S("severity")), S(""));

        if (!verbose && !json_bool_or(json_get(r, S("exceeds_threshold")), false))
            continue;
        table_add(&t, json_str_or(json_get(r, S("feature")), S("")));
        table_add(&t, arena_printf(&c->a, "%.4f", json_real_or(json_get(r, S("psi")), 0)));
        table_add(&t,
                  arena_printf(&c->a, "%.4f", json_real_or(json_get(r, S("kl_divergence")), 0)));
        table_add_painted(&t,
                          str_eq(severity, S("ALERT"))  ? PAINT_RED
                          : str_eq(severity, S("WARN")) ? PAINT_YELLOW
                                                        : PAINT_GREEN,
                          severity);
    }
    if (t.rows)
        table_write(&t, c->color, &c->out);
}

static NODISCARD int files(struct cli *c, const struct drift_options *o, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct drift_files in = {
        .baseline = o->baseline, .current = o->current, .threshold = o->threshold};
    struct drift_files_result r;
    struct json *baseline, *current;

    if (!o->baseline || !o->current)
        return FAIL(e, INVALID_ARGUMENT, "give both --baseline FILE and --current FILE");
    if (!(o->threshold >= 0))
        return FAIL(e, INVALID_ARGUMENT, "--threshold must not be negative");
    TRY(read_file(c, o->baseline, &baseline, e));
    TRY(read_file(c, o->current, &current, e));
    in.baseline_tree = baseline;
    in.current_tree = current;
    TRY(drift_files_compare(&in, &c->a, &r, e));
    JSON_EACH (missing, r.missing)
        cli_note("warning: " STR_F, STR_A(missing->string));
    if (o->output) {
        buf_init(&text, BUF_MAX_DEFAULT);
        json_write_pretty(&text, r.report);
        buf_add_char(&text, '\n');
        TRY(file_replace(o->output, buf_str(&text), e));
    }
    if (c->opt.json)
        cli_json(c, r.report);
    else
        write_results(c, json_get(r.report, S("results")), o->verbose);
    cli_flush(c);
    cli_note("%zu of %lld features at or above PSI %g", r.exceeded,
             (long long)json_int_or(json_get(r.report, S("features_checked")), 0), o->threshold);
    c->exit_status = r.exceeded ? 1 : 0;
    return 0;
}

/* --- Endpoints -------------------------------------------------------------------------------- */

static int run(struct cli *c, struct err *e)
{
    struct drift_options *o = c->values;
    const struct json *monitors;
    struct json *answer;
    struct drift_view v = {.a = &c->a,
                           .color = c->color,
                           .all = o->all,
                           .columns = (size_t)c->columns,
                           .now_ns = time_wall_ns()};
    size_t n = 0, hidden = 0;

    if (o->baseline || o->current)
        return files(c, o, e);
    TRY(cli_call(
        c,
        cli_target(c, "/api/v1/drift", "endpoint", c->opt.arg_count ? c->opt.args[0] : NULL, NULL),
        NULL, &answer, e));
    if (c->opt.json) {
        cli_json(c, answer);
        return 0;
    }
    monitors = json_get(answer, S("monitors"));
    JSON_EACH (m, monitors) {
        if (o->all && n)
            buf_add_char(&c->out, '\n');
        n++;
        hidden += drift_view_monitor(&v, m, &c->out);
    }
    cli_flush(c);
    if (o->verbose)
        drift_view_legend(&c->out);
    else if (hidden)
        cli_note("%zu column%s as usual: --all shows them, -v says what the figures mean", hidden,
                 hidden == 1 ? " is" : "s are");
    if (!n)
        cli_note("nothing is watched yet: monitors begin with the first traffic");
    return 0;
}

int command_drift(int argc, char **argv)
{
    struct drift_options o = {.threshold = 0.2};

    return cli_main(&spec, argc, argv, &o, run);
}
