/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a project: file, YAML, walk, rules across items, hash. A syntax error of YAML ends the
 * reading, for what follows it means nothing; it becomes the one problem of the result.
 */
#include "project/priv.h"

#include "base/files.h"
#include "base/yaml.h"

#define HASHED_BYTES_MAX \
    ((size_t)8 << 30) /* more than a tree of TREE_BYTES_MAX can be written as */

static NODISCARD int fail_problems(struct project_result *r, struct err *e)
{
    AUTO(buf_done) struct buf line = {0};

    buf_init(&line, BUF_MAX_DEFAULT);
    project_problem_line(r, r->problem, &line);
    if (r->problem_count > 1)
        buf_printf(&line, " (and %zu more)", r->problem_count - 1);
    r->norm = NULL;
    return FAIL(e, INVALID_ARGUMENT, STR_F, STR_A(buf_str(&line)));
}

static bool is_normal(const struct json *tree)
{
    return str_eq(json_str_or(json_get(tree, S("form")), STR_NULL), S(PROJECT_FORM));
}

static NODISCARD int read_tree(const struct json *tree, struct arena *a, struct project_result *r,
                               struct err *e)
{
    struct walk w = {.result = r, .a = a, .source = tree, .normal = is_normal(tree)};
    struct path root = {.at = tree};

    ASSERT(a->max_bytes == 0);
    if (tree->type != JSON_OBJECT) {
        problem_add(&w, &root, false, S("the file holds no mapping"),
                    S("'project: <name>' and sections"), STR_NULL);
        return fail_problems(r, e);
    }
    section_read(&w, SECTION_root, tree, &root);
    rules_across(&w, &root);
    if (r->problem_count)
        return fail_problems(r, e);
    json_set_str(a, w.norm, S("form"), S(PROJECT_FORM));
    r->norm = w.norm;
    project_hash(r->norm, r->hash);
    return 0;
}

int project_normalise(const struct json *tree, struct arena *a, struct project_result *ret,
                      struct err *e)
{
    *ret = (struct project_result){.file = S("project")};
    return read_tree(tree, a, ret, e);
}

/* "file:line:col: what" of yaml_parse, taken apart. */
static void add_syntax_problem(struct project_result *r, struct arena *a, const struct err *syntax)
{
    struct project_problem *p = ARENA_NEW(a, struct project_problem);
    str rest = str_skip(str_of(syntax->msg), r->file.n + 1);
    uint64_t line = 0, col = 0;

    if (!str_to_u64(str_cut(&rest, ':'), &line) || !str_to_u64(str_cut(&rest, ':'), &col)) {
        rest = str_of(syntax->msg);
        line = 0;
    }
    p->line = (uint32_t)line;
    p->col = (uint32_t)col;
    p->what = arena_dup(a, str_trim(rest));
    r->problem = p;
    r->problem_count = 1;
}

/* The tree has a bound of its own, for aliases may make it larger than the text. */
#define TREE_BYTES_MAX ((size_t)512 << 20)

int project_parse(str text, const char *file, struct arena *a, struct project_result *ret,
                  struct err *e)
{
    struct json *tree;
    struct err syntax;
    int rc;

    ASSERT(a->max_bytes == 0);
    *ret = (struct project_result){.file = str_of(file), .text = text};
    a->max_bytes = a->used_bytes + TREE_BYTES_MAX;
    rc = yaml_parse(text, file, a, &tree, &syntax);
    a->max_bytes = 0;
    a->overflowed = false;
    if (rc) {
        add_syntax_problem(ret, a, &syntax);
        return fail_problems(ret, e);
    }
    return read_tree(tree, a, ret, e);
}

int project_load(const char *dir, struct arena *a, struct project_result *ret, struct err *e)
{
    const char *path = path_join(a, dir, PROJECT_FILE);
    str text;

    *ret = (struct project_result){.file = S(PROJECT_FILE)};
    if (!file_exists(path))
        return FAIL(e, NOT_FOUND, "no %s in '%s': `weir init` writes one", PROJECT_FILE, dir);
    TRY(file_read_all(path, PROJECT_BYTES_MAX, a, &text, e));
    return project_parse(text, PROJECT_FILE, a, ret, e);
}

void project_hash(const struct json *norm, char ret_hex[SHA256_HEX_SIZE])
{
    AUTO(buf_done) struct buf bytes = {0};

    buf_init(&bytes, HASHED_BYTES_MAX);
    json_write_canonical(&bytes, norm);
    ASSERT(!bytes.overflowed);
    sha256_hex(buf_str(&bytes), ret_hex);
}
