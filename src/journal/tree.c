/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Merkle tree of RFC 6962 section 2.1 over the journal's rows.
 *
 * A tree of n leaves is made of perfect subtrees, and a perfect subtree of 2^k leaves is complete
 * when its last leaf is appended. So each row keeps the hashes of the subtrees that end with it:
 * row 12 = 0b1100 those of heights 0, 1 and 2. That is two hashes a row on average, never changed
 * later, and any subtree is one row read away: roots of any size and both kinds of proof take
 * O(log n) reads (O(log^2 n) for a consistency proof at worst), and an append needs no state but
 * the table.
 *
 * Leaves are numbered as rows are, from 1; a range (from, to] is RFC 6962's D[from:to].
 */
#include "journal/priv.h"

hash tree_empty(void)
{
    hash h;

    sha256_of(S(""), h.b);
    return h;
}

hash tree_leaf(struct buf *scratch, const struct fact *fact)
{
    hash h;

    buf_clear(scratch);
    buf_add_char(scratch, '\0');
    journal_fact_line(scratch, fact);
    ASSERT(!scratch->overflowed);
    sha256_of(buf_str(scratch), h.b);
    return h;
}

hash tree_node(hash left, hash right)
{
    struct {
        char prefix;
        hash left, right;
    } bytes = {1, left, right};
    hash h;

    _Static_assert(sizeof(bytes) == 1 + 2 * SHA256_BYTES, "the hashed bytes have no padding");
    sha256_of((str){(const char *)&bytes, sizeof(bytes)}, h.b);
    return h;
}

static int stored(const struct tree *t, int64_t seq, int level, hash *ret, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    str nodes;

    ASSERT(level < tree_levels(seq));
    if (seq == t->extra_seq) {
        ASSERT(t->extra_nodes);
        *ret = t->extra_nodes[level];
        return 0;
    }
    TRY(meta_first(t->m, "SELECT nodes FROM journal WHERE seq = ?", M_ARGS(M_INT(seq)), &rows, e));
    if (!rows)
        return FAIL(e, DATA_LOSS, "journal: fact %lld is missing", (long long)seq);
    nodes = meta_blob(rows, 0);
    if (nodes.n != (size_t)tree_levels(seq) * sizeof(hash))
        return FAIL(e, DATA_LOSS, "journal: the hashes of fact %lld are damaged", (long long)seq);
    memcpy(ret->b, nodes.p + (size_t)level * sizeof(hash), sizeof(hash));
    return 0;
}

int64_t tree_split(int64_t n)
{
    ASSERT(n > 1);
    return INT64_C(1) << (63 - __builtin_clzll((unsigned long long)(n - 1)));
}

int tree_range(const struct tree *t, int64_t from, int64_t to, hash *ret, struct err *e)
{
    int64_t n = to - from;
    hash left, right;

    ASSERT(from >= 0 && n > 0);
    if ((n & (n - 1)) == 0 && (from & (n - 1)) == 0)
        return stored(t, to, __builtin_ctzll((unsigned long long)n), ret, e);
    TRY(tree_range(t, from, from + tree_split(n), &left, e));
    TRY(tree_range(t, from + tree_split(n), to, &right, e));
    *ret = tree_node(left, right);
    return 0;
}

int tree_append(struct meta *m, int64_t seq, hash leaf, hash nodes[TREE_LEVELS_MAX], hash *ret_root,
                struct err *e)
{
    struct tree t = {.m = m};

    ASSERT(seq > 0);
    nodes[0] = leaf;
    for (int level = 1; level < tree_levels(seq); level++) {
        hash left;

        TRY(stored(&t, seq - (INT64_C(1) << (level - 1)), level - 1, &left, e));
        nodes[level] = tree_node(left, nodes[level - 1]);
    }
    t.extra_seq = seq;
    t.extra_nodes = nodes;
    return tree_range(&t, 0, seq, ret_root, e);
}
