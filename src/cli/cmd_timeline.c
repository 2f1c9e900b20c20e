/* SPDX-License-Identifier: Apache-2.0 */
/* `weir timeline`: what happened, as stories with their times. */
#include "base/time.h"
#include "cli/cli.h"
#include "cli/session.h"
#include "cli/story_view.h"

struct timeline_options {
    bool follow;
    const char *story;
    int64_t limit;
};

static const struct cli_option options[] = {
    {"follow", 'f', CLI_FLAG, NULL, "go on as things happen",
     offsetof(struct timeline_options, follow)},
    {"story", 's', CLI_TEXT, "ID", "one story, by its correlation id",
     offsetof(struct timeline_options, story)},
    {"limit", 'n', CLI_INT, "N", "the newest N stories (default 3)",
     offsetof(struct timeline_options, limit)},
};
static const struct cli_spec spec = {
    .name = "timeline",
    .usage = "[ENDPOINT]",
    .summary = "drift, triage, retrain, gate, rollout: the whole story with its times",
    .examples = "  weir timeline\n  weir timeline fraud --follow\n"
                "  weir timeline --story 0193a1b2-… --json\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_max = 1,
};

static NODISCARD int ask(struct cli *c, struct json **ret, struct err *e)
{
    struct timeline_options *o = c->values;

    return cli_call(c,
                    cli_target(c, "/api/v1/timeline", "endpoint",
                               c->opt.arg_count ? c->opt.args[0] : NULL, "correlation", o->story,
                               "limit", arena_printf(&c->a, "%lld", (long long)o->limit).p, NULL),
                    NULL, ret, e);
}

static size_t write_stories(struct cli *c, const struct json *answer)
{
    const struct story_view v = {.color = c->color, .columns = c->columns};
    const struct json *stories = json_get(answer, S("stories"));
    size_t n = 0;

    JSON_EACH (story, stories) {
        if (n++)
            buf_add_char(&c->out, '\n');
        story_view_write(&v, story, &c->a, &c->out);
    }
    return n;
}

/* Draws the newest stories again whenever something changed; plain facts line by line where there
 * is no terminal. */
static NODISCARD int follow(struct cli *c, struct err *e)
{
    int64_t seen = -1;

    for (;;) {
        const struct json *stories;
        struct json *answer;
        int64_t last = 0, before = seen;

        TRY(ask(c, &answer, e));
        stories = json_get(answer, S("stories"));
        JSON_EACH (story, stories)
            last = MAX(last, json_int_or(json_get(story, S("last_seq")), 0));
        if (last != seen && c->tty && !c->opt.json) {
            fputs("\033[H\033[2J", stdout);
            write_stories(c, answer);
        } else if (last != seen) {
            JSON_EACH (story, stories)
                JSON_EACH (fact, json_get(story, S("facts")))
                    if (json_int_or(json_get(fact, S("seq")), 0) > before) {
                        json_write(&c->out, fact);
                        buf_add_char(&c->out, '\n');
                    }
        }
        seen = last;
        cli_flush(c);
        arena_reset(&c->a);
        c->project_dir = NULL;
        time_sleep(250 * NS_PER_MS);
    }
}

static int run(struct cli *c, struct err *e)
{
    struct timeline_options *o = c->values;
    struct json *answer;

    if (o->limit < 1 || o->limit > 100)
        return FAIL(e, INVALID_ARGUMENT, "--limit is %lld, expected 1 to 100", (long long)o->limit);
    if (o->follow)
        return follow(c, e);
    TRY(ask(c, &answer, e));
    if (c->opt.json)
        cli_json(c, answer);
    else if (!write_stories(c, answer))
        cli_note("nothing has happened yet%s", c->opt.arg_count ? " on this endpoint" : "");
    return 0;
}

int command_timeline(int argc, char **argv)
{
    struct timeline_options o = {.limit = 3};

    return cli_main(&spec, argc, argv, &o, run);
}
