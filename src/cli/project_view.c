/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/project_view.h"

#include "base/files.h"
#include "cli/paint.h"
#include "registry/contract.h"

#define PLAN_FORM "weir.plan/1"
#define PLAN_BYTES_MAX ((size_t)64 << 20)

int project_view_load(struct cli *c, struct project_result *ret, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    int rc;

    TRY(cli_project_find(c, e));
    rc = project_load(c->project_dir, &c->a, ret, e);
    if (!rc || !ret->problem_count)
        return rc;
    buf_init(&text, BUF_MAX_DEFAULT);
    if (c->opt.json)
        project_problems_json(ret, &c->out);
    else
        project_problems_text(ret, &text);
    fwrite(text.p, 1, text.n, stderr);
    return FAIL(e, INVALID_ARGUMENT, "%zu problem%s in " STR_F, ret->problem_count,
                ret->problem_count == 1 ? "" : "s", STR_A(ret->file));
}

static struct json *request_body(struct cli *c, const struct json *tree)
{
    struct json *body = json_new_object(&c->a);

    json_set(body, S("tree"), json_copy(&c->a, tree));
    return body;
}

/* What was applied last, by the meta store itself. */
static NODISCARD int read_store(struct cli *c, const struct json *tree, struct json **ret_applied,
                                const struct json **ret_notes, struct err *e)
{
    AUTO(meta_store_closep) struct meta_store *store = NULL;
    AUTO(meta_closep) struct meta *m = NULL;
    const char *dir = path_join(&c->a, c->project_dir, ".weir");
    struct json *notes;

    *ret_applied = NULL, *ret_notes = NULL;
    if (!file_exists(path_join(&c->a, dir, "meta.db")))
        return 0; /* never started: nothing is applied */
    TRY(meta_store_open(dir, &(struct meta_options){.read_only = true}, &store, e));
    TRY(meta_open(store, &m, e));
    TRY(meta_kv_get(m, S("project"), S("applied"), &c->a, ret_applied, e));
    TRY(registry_contract_notes(m, json_get(*ret_applied, S("tree")), tree, &c->a, &notes, e));
    *ret_notes = notes;
    return 0;
}

static NODISCARD int plan_offline(struct cli *c, const struct project_result *files,
                                  struct project_view_plan *ret, struct err *e)
{
    struct json *applied;
    const struct json *notes;

    if (read_store(c, files->norm, &applied, &notes, e))
        return err_context(e, "control does not run (start it with: weir up), and what was applied "
                              "last cannot be read");
    *ret = (struct project_view_plan){
        .tree = files->norm,
        .base_tree = json_get(applied, S("tree")),
        .base = json_str_or(json_get(applied, S("hash")), S("")),
        .hash = arena_dup(&c->a, str_of(files->hash)),
        .notes = notes,
        .offline = true,
    };
    return 0;
}

int project_view_plan(struct cli *c, bool offline_too, struct project_view_plan *ret, struct err *e)
{
    struct project_result files;
    struct json *answer, *applied = NULL;
    int rc;

    TRY(project_view_load(c, &files, e));
    rc = cli_call(c, "/api/v1/plan", request_body(c, files.norm), &answer, e);
    if (rc == CODE_UNAVAILABLE && offline_too)
        return plan_offline(c, &files, ret, e);
    TRY(rc);
    rc = cli_call(c, "/api/v1/project", NULL, &applied, e);
    if (rc && rc != CODE_NOT_FOUND)
        return rc;
    *ret = (struct project_view_plan){
        .tree = files.norm,
        .base_tree = json_get(applied, S("tree")),
        .base = json_str_or(json_get(applied, S("hash")), S("")),
        .hash = json_str_or(json_get(answer, S("hash")), S("")),
        .notes = json_get(answer, S("notes")),
    };
    return 0;
}

int project_view_write(struct cli *c, const char *path, const struct project_view_plan *p,
                       struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct json *o = request_body(c, p->tree);

    json_set_str(&c->a, o, S("form"), S(PLAN_FORM));
    json_set_str(&c->a, o, S("base"), p->base);
    json_set_str(&c->a, o, S("hash"), p->hash);
    if (p->base_tree)
        json_set(o, S("base_tree"), json_copy(&c->a, p->base_tree));
    buf_init(&text, PLAN_BYTES_MAX);
    json_write_canonical(&text, o);
    return file_replace(path, buf_str(&text), e);
}

int project_view_read(struct cli *c, const char *path, struct project_view_plan *ret, struct err *e)
{
    struct json *o, *tree;
    str text, form, base, hash;

    TRY(file_read_all(path, PLAN_BYTES_MAX, &c->a, &text, e));
    if (json_parse(text, &c->a, &o, e))
        return err_context(e, "%s", path);
    form = json_str_or(json_get(o, S("form")), S(""));
    if (!str_eq(form, S(PLAN_FORM)))
        return FAIL(e, INVALID_ARGUMENT, "%s is not a plan: write one with weir plan -o %s", path,
                    path);
    TRY(json_need_object(o, S("tree"), &tree, e));
    TRY(json_need_str(o, S("base"), &base, e));
    TRY(json_need_str(o, S("hash"), &hash, e));
    *ret = (struct project_view_plan){
        .tree = tree, .base_tree = json_get(o, S("base_tree")), .base = base, .hash = hash};
    return 0;
}

void project_view_notes(const struct json *notes)
{
    if (json_is_container(notes))
        JSON_EACH (note, notes)
            cli_note("note: " STR_F, STR_A(json_str_or(note, S(""))));
}

/* {"changes":[…],"notes":[…],"offline":false} */
static void write_changes_json(struct cli *c, const struct project_change *first,
                               const struct project_view_plan *p, struct buf *text)
{
    struct json *root;
    struct err e;

    project_diff_json(first, text);
    if (json_parse(buf_str(text), &c->a, &root, &e))
        root = json_new_object(&c->a);
    json_set(root, S("notes"), p->notes ? json_copy(&c->a, p->notes) : json_new_array(&c->a));
    json_set_bool(&c->a, root, S("offline"), p->offline);
    json_write(&c->out, root);
    buf_add_char(&c->out, '\n');
}

void project_view_changes(struct cli *c, const struct project_view_plan *p, size_t *ret_n)
{
    AUTO(buf_done) struct buf text = {0};
    struct project_change *first = project_diff(p->base_tree, p->tree, &c->a);
    str rest;

    *ret_n = 0;
    for (const struct project_change *change = first; change; change = change->next)
        *ret_n += !change->within;
    buf_init(&text, BUF_MAX_DEFAULT);
    if (c->opt.json) {
        write_changes_json(c, first, p, &text);
        return;
    }
    project_diff_text(first, &text);
    rest = buf_str(&text);
    while (rest.p && rest.n) {
        str line = str_cut(&rest, '\n'), mark = str_trim(line);

        paint_text(&c->out, c->color,
                   str_starts(mark, S("+"))   ? PAINT_GREEN
                   : str_starts(mark, S("-")) ? PAINT_RED
                                              : PAINT_YELLOW,
                   line);
        buf_add_char(&c->out, '\n');
    }
}
