/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML to the trees of base/json.h, built straight from the event stream of libfyaml.
 *
 * Events carry the mark of every node, collections included, and leave three decisions here that a
 * ready-made document would take from us: how deep a document may be, how large aliases may make
 * it, and where a duplicate key is reported. An anchor is remembered with the finished node; an
 * alias is a deep copy of that node, counted against YAML_NODES_MAX before it is made, so a
 * document that refers to itself ever wider stops at the limit. A node that contains itself is
 * refused: its anchor is not finished when the alias comes.
 *
 * Plain scalars: null, true, false and their spellings in the core schema (~, Null, TRUE, ...), and
 * decimal numbers in the grammar of JSON. Everything else is a string, among it yes, no, on, off,
 * 0123, 0x1F, 1_000, .5 and .inf: what looks like an identifier stays one. Quoted and block scalars
 * are strings.
 */
#include "base/yaml.h"

#include "base/json_priv.h"
#include "base/num.h"

#include <libfyaml.h>
#include <math.h>

#define YAML_NODES_MAX 1000000
#define YAML_ANCHORS_MAX 1000 /* they are searched one by one */

struct place {
    uint32_t line, col;
};

struct anchor {
    struct anchor *next;
    str name;
    struct json *node; /* NULL while the node is being read */
};

/* An open collection. */
struct frame {
    struct json *node;
    struct json_keys keys;
    struct anchor *anchor;
    str key; /* of the value that comes next, when has_key */
    uint32_t key_line, key_col;
    bool has_key;
};

struct reader {
    str text;
    struct fy_parser *parser;
    const char *name;
    struct arena *arena;
    struct err *e;
    struct json *root;
    struct anchor *anchors; /* newest first: a later anchor hides an earlier one of its name */
    size_t nodes, anchor_count;
    uint32_t depth;
    struct place last; /* of the event before, for empty values, which have no mark */
    struct frame stack[JSON_DEPTH_MAX];
};

static bool is_quoted(const struct fy_event *event)
{
    enum fy_scalar_style style = FYSS_ANY;

    if (event->type == FYET_SCALAR && event->scalar.value)
        style = fy_token_scalar_style(event->scalar.value);
    return style == FYSS_SINGLE_QUOTED || style == FYSS_DOUBLE_QUOTED;
}

static struct place place_of(struct reader *r, struct fy_event *event)
{
    const struct fy_mark *mark = fy_event_start_mark(event);
    bool behind_sign; /* the mark stands behind an opening quote or the star of an alias */

    if (mark) {
        behind_sign = event->type == FYET_ALIAS || is_quoted(event);
        r->last = (struct place){(uint32_t)mark->line + 1, (uint32_t)mark->column + !behind_sign};
    }
    return r->last;
}

#define FAIL_AT(r, place, name_, fmt, ...) \
    FAIL((r)->e, name_, "%s:%u:%u: " fmt, (r)->name, (place).line, (place).col, ##__VA_ARGS__)

static int fail_memory(const struct reader *r, struct place at)
{
    return FAIL_AT(r, at, RESOURCE_EXHAUSTED,
                   "the document needs more than the %zu bytes of memory it may use",
                   r->arena->max_bytes);
}

static int fail_nodes(const struct reader *r, struct place at)
{
    return FAIL_AT(r, at, RESOURCE_EXHAUSTED,
                   "more than %d values once aliases are expanded, expected fewer", YAML_NODES_MAX);
}

static int token_text(const struct reader *r, struct fy_token *token, struct place at, str *ret)
{
    size_t n = 0;
    const char *p = token ? fy_token_get_text(token, &n) : "";

    if (!p)
        return FAIL_AT(r, at, INVALID_ARGUMENT, "the value cannot be read");
    *ret = arena_dup(r->arena, (str){p, n});
    return ret->p ? 0 : fail_memory(r, at);
}

/* The end of the line break at p, or p when there is none. */
static const char *skip_break(const char *p, const char *end)
{
    if (p < end && *p == '\r')
        return p + 1 < end && p[1] == '\n' ? p + 2 : p + 1;
    return p < end && *p == '\n' ? p + 1 : p;
}

static const char *skip_white(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    return p;
}

/* What lies between two single quotes, read here because libfyaml 0.7.12 loses characters after two
 * escaped quotes in a row. Blanks around line breaks go; one break is a space, n are n - 1 (YAML
 * 1.2, section 7.3.2). */
static int single_quoted(const struct reader *r, str raw, struct place at, str *ret)
{
    const char *p = raw.p, *end = raw.p + raw.n;
    char *text = arena_alloc(r->arena, raw.n + 1), *to = text;

    if (!text)
        return fail_memory(r, at);
    while (p < end) {
        const char *after_white = skip_white(p, end);
        const char *after_break = skip_break(after_white, end);
        size_t breaks = 0;

        for (; after_break > after_white; breaks++) {
            p = after_white = skip_white(after_break, end);
            after_break = skip_break(after_white, end);
        }
        if (breaks == 1)
            *to++ = ' ';
        for (; breaks > 1; breaks--)
            *to++ = '\n';
        if (p == end)
            break;
        p += *p == '\'' && p + 1 < end; /* the first of two */
        *to++ = *p++;
    }
    *to = '\0';
    *ret = (str){text, (size_t)(to - text)};
    return 0;
}

static int scalar_text(const struct reader *r, struct fy_token *token, struct place at, str *ret)
{
    size_t from, to;

    if (!token || fy_token_scalar_style(token) != FYSS_SINGLE_QUOTED)
        return token_text(r, token, at, ret);
    from = fy_token_start_mark(token)->input_pos;
    to = fy_token_end_mark(token)->input_pos;
    if (from > to || to >= r->text.n || r->text.p[to] != '\'')
        return FAIL_AT(r, at, INTERNAL, "the quoted value cannot be found again");
    return single_quoted(r, (str){r->text.p + from, to - from}, at, ret);
}

/* --- Scalars ------------------------------------------------------------------------------ */

static const struct {
    str word;
    enum json_type type;
    bool boolean;
} words[] = {
    {S_INIT(""), JSON_NULL, false},      {S_INIT("~"), JSON_NULL, false},
    {S_INIT("null"), JSON_NULL, false},  {S_INIT("Null"), JSON_NULL, false},
    {S_INIT("NULL"), JSON_NULL, false},  {S_INIT("true"), JSON_BOOL, true},
    {S_INIT("True"), JSON_BOOL, true},   {S_INIT("TRUE"), JSON_BOOL, true},
    {S_INIT("false"), JSON_BOOL, false}, {S_INIT("False"), JSON_BOOL, false},
    {S_INIT("FALSE"), JSON_BOOL, false},
};

static int plain_scalar(const struct reader *r, str text, struct place at, struct json *node)
{
    double real;
    int64_t integer;
    bool exact;

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (!str_eq(text, words[i].word))
            continue;
        node->type = words[i].type;
        if (node->type == JSON_BOOL)
            node->boolean = words[i].boolean;
        return 0;
    }
    if (num_parse(text.p, text.p + text.n, &real, &integer, &exact) != text.p + text.n) {
        node->type = JSON_STR;
        node->string = text;
        return 0;
    }
    if (!isfinite(real))
        return FAIL_AT(r, at, INVALID_ARGUMENT,
                       "number too large, expected less than 1.8e308; put an identifier in quotes");
    node->type = exact ? JSON_INT : JSON_REAL;
    if (exact)
        node->integer = integer;
    else
        node->real = real;
    return 0;
}

/* --- Attaching ---------------------------------------------------------------------------- */

static bool wants_key(const struct reader *r)
{
    const struct frame *top = r->depth ? &r->stack[r->depth - 1] : NULL;

    return top && top->node->type == JSON_OBJECT && !top->has_key;
}

/* Puts a node where the document stands now. */
static int attach(struct reader *r, struct json *node, struct place at)
{
    struct frame *top = r->depth ? &r->stack[r->depth - 1] : NULL;
    struct json *first;

    if (!top) {
        r->root = node;
        return 0;
    }
    if (top->node->type == JSON_ARRAY) {
        json_push(top->node, node);
        return 0;
    }
    node->key = top->key;
    node->key_line = top->key_line;
    node->key_col = top->key_col;
    top->has_key = false;
    first = json_keys_append(&top->keys, r->arena, top->node, node);
    if (first) {
        at = (struct place){node->key_line, node->key_col};
        return FAIL_AT(r, at, INVALID_ARGUMENT,
                       "key '" STR_F "' stands twice, expected once (first at %u:%u)",
                       STR_A(str_take(node->key, 128)), first->key_line, first->key_col);
    }
    return r->arena->overflowed ? fail_memory(r, at) : 0;
}

static int node_new(struct reader *r, struct place at, struct json **ret_node)
{
    struct json *node;

    if (++r->nodes > YAML_NODES_MAX)
        return fail_nodes(r, at);
    node = ARENA_NEW(r->arena, struct json);
    if (!node)
        return fail_memory(r, at);
    node->line = at.line;
    node->col = at.col;
    *ret_node = node;
    return 0;
}

static int set_key(struct reader *r, str key, struct place at)
{
    struct frame *top = &r->stack[r->depth - 1];

    if (str_eq(key, S("<<")))
        return FAIL_AT(r, at, INVALID_ARGUMENT,
                       "merge key '<<' is not YAML 1.2, expected the keys themselves");
    top->key = key;
    top->key_line = at.line;
    top->key_col = at.col;
    top->has_key = true;
    return 0;
}

/* --- Anchors ------------------------------------------------------------------------------ */

static int anchor_new(struct reader *r, struct fy_event *event, struct place at,
                      struct anchor **ret_anchor)
{
    struct fy_token *token = fy_event_get_anchor_token(event);
    struct anchor *anchor;

    *ret_anchor = NULL;
    if (!token)
        return 0;
    if (++r->anchor_count > YAML_ANCHORS_MAX)
        return FAIL_AT(r, at, RESOURCE_EXHAUSTED, "more than %d anchors, expected fewer",
                       YAML_ANCHORS_MAX);
    anchor = ARENA_NEW(r->arena, struct anchor);
    if (!anchor)
        return fail_memory(r, at);
    TRY(token_text(r, token, at, &anchor->name));
    anchor->next = r->anchors;
    r->anchors = anchor;
    *ret_anchor = anchor;
    return 0;
}

/* Nodes and levels of a tree; stops counting above the limit. */
static void measure(const struct json *node, uint32_t level, size_t *nodes, uint32_t *levels)
{
    *levels = MAX(*levels, level);
    if (++*nodes > YAML_NODES_MAX || !json_is_container(node))
        return;
    JSON_EACH (child, node) {
        if (*nodes > YAML_NODES_MAX)
            return;
        measure(child, level + 1, nodes, levels);
    }
}

static int on_alias(struct reader *r, struct fy_event *event)
{
    struct place at = place_of(r, event);
    const struct anchor *anchor = r->anchors;
    uint32_t levels = 0;
    struct json *copy;
    str name;

    TRY(token_text(r, event->alias.anchor, at, &name));
    while (anchor && !str_eq(anchor->name, name))
        anchor = anchor->next;
    if (!anchor)
        return FAIL_AT(r, at, INVALID_ARGUMENT,
                       "alias '*" STR_F "' has no anchor, expected '&" STR_F "' before it",
                       STR_A(str_take(name, 128)), STR_A(str_take(name, 128)));
    if (!anchor->node)
        return FAIL_AT(r, at, INVALID_ARGUMENT,
                       "alias '*" STR_F "' stands inside its own anchor, expected it after",
                       STR_A(str_take(name, 128)));
    if (wants_key(r)) {
        if (anchor->node->type != JSON_STR)
            return FAIL_AT(r, at, INVALID_ARGUMENT, "key is not a string, expected a string");
        return set_key(r, anchor->node->string, at);
    }
    measure(anchor->node, 1, &r->nodes, &levels);
    if (r->nodes > YAML_NODES_MAX)
        return fail_nodes(r, at);
    if (r->depth + levels > JSON_DEPTH_MAX + 1)
        return FAIL_AT(r, at, INVALID_ARGUMENT, "nested too deep, expected at most %d levels",
                       JSON_DEPTH_MAX);
    copy = json_copy(r->arena, anchor->node);
    if (!copy)
        return fail_memory(r, at);
    copy->line = at.line; /* what is inside keeps the place where it is written */
    copy->col = at.col;
    return attach(r, copy, at);
}

/* --- Events ------------------------------------------------------------------------------- */

static int check_tag(const struct reader *r, struct fy_event *event, struct place at)
{
    if (fy_event_get_tag_token(event))
        return FAIL_AT(r, at, INVALID_ARGUMENT, "tags are not supported, expected a plain value");
    return 0;
}

static int on_scalar(struct reader *r, struct fy_event *event)
{
    struct place at = place_of(r, event);
    struct fy_token *token = event->scalar.value;
    struct anchor *anchor;
    struct json *node;
    bool plain = !token || fy_token_scalar_style(token) == FYSS_PLAIN;
    str text;

    TRY(check_tag(r, event, at));
    TRY(anchor_new(r, event, at, &anchor));
    TRY(scalar_text(r, token, at, &text));
    TRY(node_new(r, at, &node));
    if (wants_key(r) || !plain) {
        node->type = JSON_STR;
        node->string = text;
    } else {
        TRY(plain_scalar(r, text, at, node));
    }
    if (anchor)
        anchor->node = node;
    return wants_key(r) ? set_key(r, text, at) : attach(r, node, at);
}

static int on_open(struct reader *r, struct fy_event *event, enum json_type type)
{
    struct place at = place_of(r, event);
    struct anchor *anchor;
    struct json *node;

    TRY(check_tag(r, event, at));
    if (wants_key(r))
        return FAIL_AT(r, at, INVALID_ARGUMENT, "found %s as a key, expected a string",
                       json_type_name(type));
    if (r->depth == JSON_DEPTH_MAX)
        return FAIL_AT(r, at, INVALID_ARGUMENT, "nested too deep, expected at most %d levels",
                       JSON_DEPTH_MAX);
    TRY(anchor_new(r, event, at, &anchor));
    TRY(node_new(r, at, &node));
    node->type = type;
    TRY(attach(r, node, at));
    r->stack[r->depth++] = (struct frame){.node = node, .anchor = anchor};
    return 0;
}

static void on_close(struct reader *r)
{
    struct frame *top;

    ASSERT(r->depth > 0); /* the library refuses an end without its beginning */
    top = &r->stack[--r->depth];

    if (top->anchor)
        top->anchor->node = top->node;
}

static int on_event(struct reader *r, struct fy_event *event)
{
    switch (event->type) {
    case FYET_DOCUMENT_START:
        if (r->root) {
            struct place at = place_of(r, event);

            return FAIL_AT(r, at, INVALID_ARGUMENT, "a second document, expected one");
        }
        return 0;
    case FYET_SCALAR:
        return on_scalar(r, event);
    case FYET_ALIAS:
        return on_alias(r, event);
    case FYET_SEQUENCE_START:
        return on_open(r, event, JSON_ARRAY);
    case FYET_MAPPING_START:
        return on_open(r, event, JSON_OBJECT);
    case FYET_SEQUENCE_END:
    case FYET_MAPPING_END:
        on_close(r);
        return 0;
    default:
        return 0;
    }
}

/* The first complaint of the library, in our form. */
static int fail_syntax(const struct reader *r, struct fy_diag *diag)
{
    void *iterator = NULL;
    const struct fy_diag_error *first = fy_diag_errors_iterate(diag, &iterator);
    struct place at = {1, 1};

    if (!first)
        return FAIL_AT(r, at, INVALID_ARGUMENT, "not YAML");
    at = (struct place){(uint32_t)MAX(first->line, 1), (uint32_t)MAX(first->column, 1)};
    return FAIL_AT(r, at, INVALID_ARGUMENT, "%s", first->msg);
}

static int read_events(struct reader *r, struct fy_diag *diag)
{
    bool ended = false;

    while (!ended) {
        struct fy_event *event = fy_parser_parse(r->parser);
        int rc;

        if (!event || event->type == FYET_NONE)
            return fail_syntax(r, diag);
        ended = event->type == FYET_STREAM_END;
        rc = on_event(r, event);
        fy_parser_event_free(r->parser, event);
        TRY(rc);
    }
    if (fy_diag_got_error(diag))
        return fail_syntax(r, diag);
    return 0;
}

/* YAML allows printable characters only; libfyaml lets some of the others through and then reads
 * past them, so they stop here. */
static int check_bytes(const struct reader *r, str text)
{
    struct place at = {1, 1};

    while (text.n) {
        unsigned char c = (unsigned char)text.p[0];
        size_t step = str_utf8_step(text);

        if (!step)
            return FAIL_AT(r, at, INVALID_ARGUMENT, "byte 0x%02X is not UTF-8, expected UTF-8", c);
        if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7F)
            return FAIL_AT(r, at, INVALID_ARGUMENT,
                           "control character 0x%02X, expected it escaped in double quotes", c);
        at = c == '\n' ? (struct place){at.line + 1, 1} : (struct place){at.line, at.col + 1};
        text = str_skip(text, step);
    }
    return 0;
}

static void parser_freep(struct fy_parser **parser)
{
    if (*parser)
        fy_parser_destroy(*parser);
}

static void diag_freep(struct fy_diag **diag)
{
    if (*diag)
        fy_diag_destroy(*diag);
}

int yaml_parse(str text, const char *name, struct arena *a, struct json **ret_root, struct err *e)
{
    AUTO(diag_freep) struct fy_diag *diag = NULL;
    AUTO(parser_freep) struct fy_parser *parser = NULL;
    struct fy_diag_cfg diag_cfg;
    struct reader r = {.text = text, .name = name, .arena = a, .e = e, .last = {1, 1}};

    if (str_starts(text, S("\xEF\xBB\xBF")))
        r.text = str_skip(text, 3);
    TRY(check_bytes(&r, r.text));
    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = NULL;
    diag = fy_diag_create(&diag_cfg);
    ASSERT(diag);
    fy_diag_set_collect_errors(diag, true);
    parser = fy_parser_create(&(struct fy_parse_cfg){
        .flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG | FYPCF_DEFAULT_VERSION_1_2 | FYPCF_JSON_NONE,
        .diag = diag,
    });
    ASSERT(parser);
    r.parser = parser;
    if (fy_parser_set_string(parser, r.text.p ? r.text.p : "", r.text.n) < 0)
        return FAIL(e, INVALID_ARGUMENT, "%s:1:1: the text cannot be read", name);
    TRY(read_events(&r, diag));
    if (!r.root)
        return FAIL(e, INVALID_ARGUMENT, "%s:1:1: the document is empty, expected a value", name);
    *ret_root = r.root;
    return 0;
}
