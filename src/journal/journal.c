/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Appending and reading facts.
 *
 * An append reads the last row, takes the next number and a time not before that row's, computes
 * the hashes that the new leaf completes (tree.c), and inserts one row. The caller's transaction is
 * the one writer of the database, so numbers have no gaps and nobody else can take the same one.
 *
 * Data is stored in canonical form, and a leaf is built from the stored columns alone: verifying
 * parses nothing.
 */
#include "journal/priv.h"

#include "base/time.h"

#include <stdio.h>

static const struct {
    const char *name;
    const char *help;
} types[] = {
#define FACT(name, text, help) [FACT_##name] = {text, help},
#include "journal/types.def"
#undef FACT
};

const char *fact_type_name(enum fact_type type)
{
    ASSERT((size_t)type < ARRAY_LEN(types));
    return types[type].name;
}

const char *fact_type_help(enum fact_type type)
{
    ASSERT((size_t)type < ARRAY_LEN(types));
    return types[type].help;
}

bool fact_type_find(str name, enum fact_type *ret_type)
{
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (str_eqz(name, types[i].name)) {
            *ret_type = (enum fact_type)i;
            return true;
        }
    }
    return false;
}

/* ----- Appending ----- */

static int check_text(const char *what, str text, size_t max, struct err *e)
{
    if (text.n > max)
        return FAIL(e, INVALID_ARGUMENT, "fact: %s has %zu bytes, at most %zu are allowed", what,
                    text.n, max);
    if (!str_is_utf8(text) || memchr(text.p ? text.p : "", '\0', text.n))
        return FAIL(e, INVALID_ARGUMENT, "fact: %s is not UTF-8 text", what);
    return 0;
}

/* A reason is often an error message: it is cut, at a whole character, not refused. */
static str cut_reason(str reason)
{
    size_t n = MIN(reason.n, (size_t)JOURNAL_REASON_MAX);

    while (n && n < reason.n && ((unsigned char)reason.p[n] & 0xc0) == 0x80)
        n--;
    return str_take(reason, n);
}

static int data_text(const struct fact_new *fact, struct buf *out, struct err *e)
{
    if (fact->data && fact->data->type != JSON_OBJECT)
        return FAIL(e, INVALID_ARGUMENT, "fact %s: data is not an object",
                    fact_type_name(fact->type));
    if (fact->data)
        json_write_canonical(out, fact->data);
    else
        buf_add_str(out, S("{}"));
    if (out->overflowed)
        return FAIL(e, INVALID_ARGUMENT, "fact %s: data has more than %zu bytes",
                    fact_type_name(fact->type), JOURNAL_DATA_MAX);
    return check_text("data", buf_str(out), JOURNAL_DATA_MAX, e);
}

static int check(const struct fact_new *fact, struct err *e)
{
    TRY(check_text("subject", fact->subject, JOURNAL_TEXT_MAX, e));
    TRY(check_text("actor", fact->actor, JOURNAL_TEXT_MAX, e));
    TRY(check_text("correlation", fact->correlation, JOURNAL_TEXT_MAX, e));
    return check_text("reason", cut_reason(fact->reason), JOURNAL_REASON_MAX, e);
}

static int next_place(struct meta *m, struct fact *fact, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    int64_t now = time_wall_ns();

    TRY(meta_first(m, "SELECT seq, at_ns FROM journal ORDER BY seq DESC LIMIT 1", M_NO_ARGS, &rows,
                   e));
    fact->seq = rows ? meta_int(rows, 0) + 1 : 1;
    fact->at_ns = rows ? MAX(now, meta_int(rows, 1)) : now;
    return 0;
}

static int insert(struct meta *m, const struct fact *fact, const hash *nodes, hash root,
                  struct err *e)
{
    str all = {(const char *)nodes, (size_t)tree_levels(fact->seq) * sizeof(hash)};

    return meta_exec(m,
                     "INSERT INTO journal (" FACT_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?,"
                     " ?, ?)",
                     M_ARGS(M_INT(fact->seq), M_INT(fact->at_ns), M_STR(fact->id),
                            M_STR(fact->type), M_STR(fact->subject), M_STR(fact->actor),
                            M_STR(fact->reason), M_STR(fact->correlation), M_STR(fact->data),
                            M_BLOB(all), M_BLOB(((str){(const char *)root.b, sizeof(root.b)}))),
                     e);
}

int journal_append(struct meta *m, const struct fact_new *from, struct fact_ref *ret, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};
    AUTO(buf_done) struct buf data = {0};
    AUTO(buf_done) struct buf line = {0};
    hash nodes[TREE_LEVELS_MAX], root;
    char id[UUID_SIZE];
    struct fact fact = {
        .type = str_of(fact_type_name(from->type)),
        .subject = from->subject,
        .actor = from->actor,
        .reason = cut_reason(from->reason),
    };

    buf_init(&data, JOURNAL_DATA_MAX);
    buf_init(&line, BUF_MAX_DEFAULT);
    TRY(check(from, e));
    TRY(data_text(from, &data, e));
    fact.data = buf_str(&data);
    TRY(meta_begin(m, &tx, e));
    TRY(next_place(m, &fact, e));
    uuid_v7(fact.at_ns, id);
    fact.id = str_of(id);
    fact.correlation = from->correlation.n ? from->correlation : fact.id;
    TRY(tree_append(m, fact.seq, tree_leaf(&line, &fact), nodes, &root, e));
    TRY(insert(m, &fact, nodes, root, e));
    meta_touch(m, META_TOPIC_JOURNAL);
    TRY(meta_commit(&tx, e));
    if (ret) {
        ret->seq = fact.seq;
        ret->at_ns = fact.at_ns;
        memcpy(ret->id, id, sizeof(id));
    }
    return 0;
}

/* ----- Reading ----- */

int journal_fact_of_row(const struct meta_rows *rows, struct fact *ret_fact, struct err *e)
{
    struct fact f = {
        .seq = meta_int(rows, 0),
        .at_ns = meta_int(rows, 1),
        .id = meta_str(rows, 2),
        .type = meta_str(rows, 3),
        .subject = meta_str(rows, 4),
        .actor = meta_str(rows, 5),
        .reason = meta_str(rows, 6),
        .correlation = meta_str(rows, 7),
        .data = meta_str(rows, 8),
    };
    str nodes = meta_blob(rows, 9), root = meta_blob(rows, 10);

    if (f.seq < 1 || nodes.n != (size_t)tree_levels(f.seq) * sizeof(hash) || root.n != sizeof(hash))
        return FAIL(e, DATA_LOSS, "journal: the hashes of fact %lld are damaged", (long long)f.seq);
    memcpy(f.leaf, nodes.p, sizeof(f.leaf));
    memcpy(f.root, root.p, sizeof(f.root));
    *ret_fact = f;
    return 0;
}

struct filter {
    struct buf sql;
    struct meta_arg args[16];
    size_t n;
};

static void where(struct filter *f, const char *condition, struct meta_arg arg)
{
    ASSERT(f->n < ARRAY_LEN(f->args));
    buf_printf(&f->sql, "%s%s", f->n ? " AND " : " WHERE ", condition);
    f->args[f->n++] = arg;
}

static void build(struct filter *f, const struct journal_query *q, struct arena *a)
{
    uint32_t limit = q->limit ? q->limit : JOURNAL_LIMIT_DEFAULT;

    buf_add_str(&f->sql, S("SELECT " FACT_COLUMNS " FROM journal"));
    where(f, "seq > ?", M_INT(q->after_seq));
    if (q->before_seq)
        where(f, "seq < ?", M_INT(q->before_seq));
    if (q->subject.n)
        where(f, "subject = ?", M_STR(q->subject));
    if (q->correlation.n)
        where(f, "correlation = ?", M_STR(q->correlation));
    if (q->from_ns)
        where(f, "at_ns >= ?", M_INT(q->from_ns));
    if (q->to_ns)
        where(f, "at_ns < ?", M_INT(q->to_ns));
    if (q->type_prefix.n) {
        str part = str_ends(q->type_prefix, S(".")) ? str_take(q->type_prefix, q->type_prefix.n - 1)
                                                    : q->type_prefix;

        /* '/' is the character after '.', so this is the part itself and all below it. */
        where(f, "(type = ?", M_STR(part));
        buf_add_str(&f->sql, S(" OR (type > ? AND type < ?))"));
        f->args[f->n++] = M_STR(arena_printf(a, STR_F ".", STR_A(part)));
        f->args[f->n++] = M_STR(arena_printf(a, STR_F "/", STR_A(part)));
    }
    buf_printf(&f->sql, " ORDER BY seq%s LIMIT ?", q->newest_first ? " DESC" : "");
    f->args[f->n++] = M_INT(MIN(limit, JOURNAL_LIMIT_MAX));
}

static struct fact fact_dup(struct arena *a, const struct fact *fact)
{
    struct fact f = *fact;

    f.id = arena_dup(a, fact->id);
    f.type = arena_dup(a, fact->type);
    f.subject = arena_dup(a, fact->subject);
    f.actor = arena_dup(a, fact->actor);
    f.reason = arena_dup(a, fact->reason);
    f.correlation = arena_dup(a, fact->correlation);
    f.data = arena_dup(a, fact->data);
    return f;
}

static void filter_done(struct filter *f)
{
    buf_done(&f->sql);
}

int journal_read(struct meta *m, const struct journal_query *query, struct arena *a,
                 struct fact **ret_facts, size_t *ret_n, struct err *e)
{
    AUTO(filter_done) struct filter f = {0};
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    size_t n = 0, cap = 64;
    struct fact *facts = ARENA_ARRAY(a, struct fact, cap), fact;
    int rc;

    buf_init(&f.sql, 4096);
    build(&f, query, a);
    TRY(meta_query(m, buf_z(&f.sql), (struct meta_args){f.args, f.n}, &rows, e));
    while (facts && meta_next(rows, &rc, e)) {
        TRY(journal_fact_of_row(rows, &fact, e));
        if (n == cap) {
            struct fact *larger = ARENA_ARRAY(a, struct fact, cap * 2);

            if (larger)
                memcpy(larger, facts, n * sizeof(fact));
            facts = larger;
            cap *= 2;
        }
        if (facts)
            facts[n++] = fact_dup(a, &fact);
    }
    if (a->overflowed || !facts)
        return FAIL(e, RESOURCE_EXHAUSTED, "journal: the facts asked for need more than %zu bytes",
                    a->max_bytes);
    if (rc)
        return rc;
    *ret_facts = facts;
    *ret_n = n;
    return 0;
}

int journal_last_seq(struct meta *m, int64_t *ret_seq, struct err *e)
{
    return meta_first_int(m, "SELECT MAX(seq) FROM journal", M_NO_ARGS, 0, ret_seq, e);
}

int journal_cursor_load(struct meta *m, str name, int64_t *ret_seq, struct err *e)
{
    return meta_first_int(m, "SELECT seq FROM journal_cursor WHERE name = ?", M_ARGS(M_STR(name)),
                          0, ret_seq, e);
}

int journal_cursor_save(struct meta *m, str name, int64_t seq, struct err *e)
{
    return meta_exec(m,
                     "INSERT INTO journal_cursor (name, seq) VALUES (?, ?)"
                     " ON CONFLICT (name) DO UPDATE SET seq = excluded.seq",
                     M_ARGS(M_STR(name), M_INT(seq)), e);
}

/* ----- Showing ----- */

/* Keys in the order of the canonical form. */
static void members(struct json_out *o, const struct fact *fact)
{
    jo_kstr(o, S("actor"), fact->actor);
    jo_kint(o, S("at_ns"), fact->at_ns);
    jo_kstr(o, S("correlation"), fact->correlation);
    jo_key(o, S("data"));
    jo_raw(o, fact->data);
    jo_kstr(o, S("id"), fact->id);
    jo_kstr(o, S("reason"), fact->reason);
    jo_kint(o, S("seq"), fact->seq);
    jo_kstr(o, S("subject"), fact->subject);
    jo_kstr(o, S("type"), fact->type);
}

void journal_fact_line(struct buf *out, const struct fact *fact)
{
    struct json_out o;

    jo_begin(&o, out);
    jo_object(&o);
    members(&o, fact);
    jo_object_end(&o);
}

void journal_fact_json(struct json_out *out, const struct fact *fact)
{
    char hex[SHA256_HEX_SIZE], at[TIME_ISO_SIZE];

    jo_object(out);
    members(out, fact);
    time_iso(fact->at_ns, at);
    jo_kstr(out, S("at"), str_of(at));
    hex_encode(fact->leaf, SHA256_BYTES, hex);
    jo_kstr(out, S("leaf"), str_of(hex));
    hex_encode(fact->root, SHA256_BYTES, hex);
    jo_kstr(out, S("root"), str_of(hex));
    jo_object_end(out);
}
