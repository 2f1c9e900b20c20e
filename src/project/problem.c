/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Problems: kept in the order in which they stand in the file, and shown as one line, as an excerpt
 * with carets, or as JSON.
 */
#include "project/priv.h"

str path_text(const struct path *p, struct arena *a)
{
    str up;

    if (!p || !p->up)
        return STR_NULL;
    up = path_text(p->up, a);
    if (!p->key.n)
        return arena_printf(a, STR_F "[%zu]", STR_A(up), p->index);
    return arena_printf(a, STR_F "%s" STR_F, STR_A(up), up.n ? "." : "",
                        STR_A(str_take(p->key, 128)));
}

/* The nearest place at or above p that the file has. */
static void place_of(const struct path *p, bool at_key, uint32_t *ret_line, uint32_t *ret_col)
{
    for (; p; p = p->up, at_key = true) {
        const struct json *n = p->at;

        if (!n || (!n->line && !n->key_line))
            continue;
        *ret_line = at_key && n->key_line ? n->key_line : n->line;
        *ret_col = at_key && n->key_line ? n->key_col : n->col;
        return;
    }
    *ret_line = *ret_col = 0;
}

static bool is_before(const struct project_problem *a, const struct project_problem *b)
{
    return a->line != b->line ? a->line < b->line : a->col < b->col;
}

bool problem_is_full(struct walk *w)
{
    if (w->result->problem_count < PROJECT_PROBLEMS_MAX)
        return false;
    w->result->problem_count++;
    return true;
}

void problem_add(struct walk *w, const struct path *at, bool at_key, str what, str expected,
                 str suggestion)
{
    struct project_problem *p, **link = &w->result->problem;

    if (problem_is_full(w))
        return;
    w->result->problem_count++;
    p = ARENA_NEW(w->a, struct project_problem);
    place_of(at, at_key, &p->line, &p->col);
    p->path = path_text(at, w->a);
    p->what = what;
    p->expected = expected;
    p->suggestion = suggestion;
    while (*link && !is_before(p, *link))
        link = &(*link)->next;
    p->next = *link;
    *link = p;
}

static void add_message(const struct project_problem *p, struct buf *out)
{
    buf_add_str(out, p->what);
    if (p->expected.n)
        buf_printf(out, ", expected " STR_F, STR_A(p->expected));
    if (p->suggestion.n)
        buf_printf(out, ", did you mean '" STR_F "'?", STR_A(p->suggestion));
}

void project_problem_line(const struct project_result *r, const struct project_problem *p,
                          struct buf *out)
{
    buf_add_str(out, r->file);
    if (p->line)
        buf_printf(out, ":%u:%u", p->line, p->col);
    buf_add_str(out, S(": "));
    add_message(p, out);
}

/* --- Excerpts ----------------------------------------------------------------------------- */

static str line_at(str text, uint32_t line)
{
    str rest = text, piece = STR_NULL;

    for (uint32_t i = 0; i < line && rest.p; i++)
        piece = str_cut(&rest, '\n');
    return str_ends(piece, S("\r")) ? str_take(piece, piece.n - 1) : piece;
}

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xC0) == 0x80;
}

/* Bytes before character `col` (from 1). */
static size_t offset_of(str line, uint32_t col)
{
    size_t at = 0;

    for (uint32_t i = 1; i < col && at < line.n; i++)
        do
            at++;
        while (at < line.n && is_continuation(line.p[at]));
    return at;
}

/* Bytes of the word, the quoted text or the bracket that begins the slice. */
static size_t token_length(str s)
{
    size_t n = 0;

    if (s.n && (s.p[0] == '"' || s.p[0] == '\'')) {
        for (n = 1; n < s.n && s.p[n] != s.p[0];)
            n++;
        return MIN(n + 1, s.n);
    }
    if (s.n && (s.p[0] == '{' || s.p[0] == '['))
        return 1;
    while (n < s.n && !memchr(" \t,]}#", s.p[n], 6) &&
           !(s.p[n] == ':' && (n + 1 == s.n || s.p[n + 1] == ' ')))
        n++;
    return n;
}

#define EXCERPT_MAX 200 /* bytes of a line */

static void add_excerpt(const struct project_result *r, const struct project_problem *p,
                        struct buf *out)
{
    str line = str_take(line_at(r->text, p->line), EXCERPT_MAX);
    size_t at = offset_of(line, p->col);
    size_t marks = token_length(str_skip(line, at));
    int margin = p->line < 10000 ? 4 : 9;

    if (!p->line || !line.n)
        return;
    while (line.n && is_continuation(line.p[line.n - 1]) && line.n == EXCERPT_MAX)
        line.n--;
    buf_printf(out, "%*u | " STR_F "\n%*s | ", margin, p->line, STR_A(line), margin, "");
    for (size_t i = 0; i < at && i < line.n; i++)
        if (line.p[i] == '\t' || !is_continuation(line.p[i]))
            buf_add_char(out, line.p[i] == '\t' ? '\t' : ' ');
    buf_add_char(out, '^');
    for (size_t i = 1; i < marks; i++)
        if (at + i < line.n && !is_continuation(line.p[at + i]))
            buf_add_char(out, '~');
    buf_add_char(out, '\n');
}

void project_problems_text(const struct project_result *r, struct buf *out)
{
    for (const struct project_problem *p = r->problem; p; p = p->next) {
        project_problem_line(r, p, out);
        buf_add_char(out, '\n');
        add_excerpt(r, p, out);
    }
    if (r->problem_count > PROJECT_PROBLEMS_MAX)
        buf_printf(out, STR_F ": %zu more\n", STR_A(r->file),
                   r->problem_count - PROJECT_PROBLEMS_MAX);
}

static void add_fact(struct json_out *o, str key, str value)
{
    if (value.n)
        jo_kstr(o, key, value);
}

void project_problems_json(const struct project_result *r, struct buf *out)
{
    AUTO(buf_done) struct buf message = {0};
    struct json_out o;

    buf_init(&message, BUF_MAX_DEFAULT);
    jo_begin(&o, out);
    jo_object(&o);
    jo_kint(&o, S("count"), (int64_t)r->problem_count);
    jo_key(&o, S("problems"));
    jo_array(&o);
    for (const struct project_problem *p = r->problem; p; p = p->next) {
        buf_clear(&message);
        add_message(p, &message);
        jo_object(&o);
        add_fact(&o, S("file"), r->file);
        if (p->line) {
            jo_kint(&o, S("line"), p->line);
            jo_kint(&o, S("column"), p->col);
        }
        add_fact(&o, S("path"), p->path);
        add_fact(&o, S("what"), p->what);
        add_fact(&o, S("expected"), p->expected);
        add_fact(&o, S("suggestion"), p->suggestion);
        jo_kstr(&o, S("message"), buf_str(&message));
        jo_object_end(&o);
    }
    jo_array_end(&o);
    jo_object_end(&o);
}
