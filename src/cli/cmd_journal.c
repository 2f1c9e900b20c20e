/* SPDX-License-Identifier: Apache-2.0 */
/* `weir journal`: the facts, and the proof that nobody changed them. */
#include "base/hash.h"
#include "cli/cli.h"
#include "cli/paint.h"
#include "cli/session.h"
#include "journal/journal.h"

struct journal_options {
    const char *type, *subject, *correlation;
    int64_t limit, after;
};

static const struct cli_option options[] = {
    {"type", 't', CLI_TEXT, "TYPE", "facts of that type, or that begin with it: rollout",
     offsetof(struct journal_options, type)},
    {"subject", 's', CLI_TEXT, "SUBJECT", "about one thing: endpoint/fraud",
     offsetof(struct journal_options, subject)},
    {"correlation", 'c', CLI_TEXT, "ID", "of one story",
     offsetof(struct journal_options, correlation)},
    {"limit", 'n', CLI_INT, "N", "the newest N (default 50)",
     offsetof(struct journal_options, limit)},
    {"after", 0, CLI_INT, "SEQ", "only later than this", offsetof(struct journal_options, after)},
};
static const struct cli_spec spec = {
    .name = "journal",
    .usage = "[list|verify|prove SEQ]",
    .summary = "what happened, by whom and why; and that nobody changed it since",
    .examples = "  weir journal\n  weir journal --type rollout --limit 20\n"
                "  weir journal verify\n  weir journal prove 42 --json\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
    .args_max = 2,
};

static str text_of(const struct json *o, const char *key)
{
    return json_str_or(json_get(o, str_of(key)), S(""));
}

static NODISCARD int list(struct cli *c, struct err *e)
{
    static const char *const titles[] = {"SEQ", "TIME (UTC)", "TYPE", "SUBJECT", "ACTOR", "REASON"};
    struct journal_options *o = c->values;
    const struct json **newest_last;
    struct json *answer, *facts;
    struct table t;
    size_t n = 0;

    TRY(cli_call(c,
                 cli_target(c, "/api/v1/journal", "type", o->type, "subject", o->subject,
                            "correlation", o->correlation, "newest", "1", "limit",
                            arena_printf(&c->a, "%lld", (long long)o->limit).p, "after",
                            arena_printf(&c->a, "%lld", (long long)o->after).p, NULL),
                 NULL, &answer, e));
    facts = json_get(answer, S("facts"));
    if (c->opt.json) {
        cli_json(c, answer);
        return 0;
    }
    newest_last = ARENA_ARRAY(&c->a, const struct json *, facts->count + 1);
    JSON_EACH (f, facts)
        newest_last[n++] = f;
    table_begin(&t, &c->a, titles, ARRAY_LEN(titles));
    t.right[0] = true;
    while (n-- > 0) {
        const struct json *f = newest_last[n];

        table_add(&t,
                  arena_printf(&c->a, "%lld", (long long)json_int_or(json_get(f, S("seq")), 0)));
        table_add(&t, str_take(text_of(f, "at"), 23));
        table_add_painted(&t, PAINT_BOLD, text_of(f, "type"));
        table_add(&t, text_of(f, "subject"));
        table_add(&t, text_of(f, "actor"));
        table_add(&t, paint_cut(text_of(f, "reason"), 100));
    }
    table_write(&t, c->color, &c->out);
    return 0;
}

static NODISCARD int verify(struct cli *c, struct err *e)
{
    struct json *answer;

    TRY(cli_call(c, "/api/v1/journal/verify", NULL, &answer, e));
    if (c->opt.json)
        cli_json(c, answer);
    if (!json_bool_or(json_get(answer, S("ok")), false))
        return FAIL(e, DATA_LOSS, STR_F, STR_A(text_of(answer, "message")));
    cli_note("%lld facts, all as they were written; head " STR_F,
             (long long)json_int_or(json_get(answer, S("size")), 0),
             STR_A(text_of(answer, "root")));
    return 0;
}

/* The proof is checked here, from the line of the fact alone: control is not believed. */
static NODISCARD int check_proof(const struct json *p, struct err *e)
{
    AUTO(buf_done) struct buf bytes = {0};
    struct journal_proof proof = {0};
    struct journal_head head = {.size = json_int_or(json_get(p, S("size")), 0)};
    unsigned char leaf[SHA256_BYTES];
    const struct json *path = json_get(p, S("path"));
    bool ok = hex_decode(text_of(p, "root"), head.root, SHA256_BYTES);

    buf_init(&bytes, (size_t)4 << 20);
    buf_add_char(&bytes, 0);
    buf_add_str(&bytes, text_of(p, "line"));
    sha256_of(buf_str(&bytes), leaf);
    if (json_is_container(path))
        JSON_EACH (node, path)
            ok = ok && proof.n < JOURNAL_PROOF_MAX &&
                 hex_decode(json_str_or(node, S("")), proof.path[proof.n++], SHA256_BYTES);
    if (!ok || !journal_check_inclusion(leaf, json_int_or(json_get(p, S("seq")), 0), &head, &proof))
        return FAIL(e, DATA_LOSS,
                    "the proof does not hold: the fact is not in a journal with "
                    "head " STR_F,
                    STR_A(text_of(p, "root")));
    return 0;
}

static NODISCARD int prove(struct cli *c, struct err *e)
{
    struct json *answer;

    if (c->opt.arg_count < 2)
        return FAIL(e, INVALID_ARGUMENT, "which fact? weir journal prove SEQ");
    TRY(cli_call(c, cli_target(c, "/api/v1/journal/proof", "seq", c->opt.args[1], NULL), NULL,
                 &answer, e));
    TRY(check_proof(answer, e));
    if (c->opt.json)
        cli_json(c, answer);
    else
        buf_printf(&c->out, STR_F "\n", STR_A(text_of(answer, "line")));
    cli_flush(c);
    cli_note("proved: fact %s is in the journal of %lld facts with head " STR_F, c->opt.args[1],
             (long long)json_int_or(json_get(answer, S("size")), 0),
             STR_A(text_of(answer, "root")));
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    const char *what = c->opt.arg_count ? c->opt.args[0] : "list";

    if (strcmp(what, "list") == 0)
        return list(c, e);
    if (strcmp(what, "verify") == 0)
        return verify(c, e);
    if (strcmp(what, "prove") == 0)
        return prove(c, e);
    return FAIL(e, INVALID_ARGUMENT, "'%s' is not list, verify or prove", what);
}

int command_journal(int argc, char **argv)
{
    struct journal_options o = {.limit = 50};

    return cli_main(&spec, argc, argv, &o, run);
}
