/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heads, proofs and verification.
 *
 * Proofs follow the recursive definitions of RFC 6962 section 2.1; checking them follows the
 * iterative algorithms of RFC 9162 sections 2.1.3.2 and 2.1.4.2, so that a mistake in one is not
 * mirrored in the other. A verifier needs a head that it noted before, from a place that whoever
 * may have rewritten the database cannot reach: all that a rewriter holds can be made consistent
 * again.
 */
#include "journal/priv.h"

int journal_head(struct meta *m, int64_t size, struct journal_head *ret_head, struct err *e)
{
    struct tree t = {.m = m};
    int64_t last;
    hash root = tree_empty();

    TRY(journal_last_seq(m, &last, e));
    if (size > last)
        return FAIL(e, OUT_OF_RANGE, "the journal has %lld facts, not %lld", (long long)last,
                    (long long)size);
    size = size < 0 ? last : size;
    if (size > 0)
        TRY(tree_range(&t, 0, size, &root, e));
    ret_head->size = size;
    memcpy(ret_head->root, root.b, sizeof(ret_head->root));
    return 0;
}

/* ----- Proving ----- */

static int push(const struct tree *t, int64_t from, int64_t to, struct journal_proof *proof,
                struct err *e)
{
    hash h;

    ASSERT(proof->n < JOURNAL_PROOF_MAX);
    TRY(tree_range(t, from, to, &h, e));
    memcpy(proof->path[proof->n++], h.b, sizeof(h.b));
    return 0;
}

/* PATH(at, D[from:to]), at counted from 0. */
static int path(const struct tree *t, int64_t at, int64_t from, int64_t to,
                struct journal_proof *proof, struct err *e)
{
    int64_t middle;

    if (to - from == 1)
        return 0;
    middle = from + tree_split(to - from);
    if (at < middle) {
        TRY(path(t, at, from, middle, proof, e));
        return push(t, middle, to, proof, e);
    }
    TRY(path(t, at, middle, to, proof, e));
    return push(t, from, middle, proof, e);
}

/* SUBPROOF(m, D[from:to], whole); m counted from the start of the journal. */
static int subproof(const struct tree *t, int64_t m, int64_t from, int64_t to, bool whole,
                    struct journal_proof *proof, struct err *e)
{
    int64_t middle;

    if (m == to)
        return whole ? 0 : push(t, from, to, proof, e);
    middle = from + tree_split(to - from);
    if (m <= middle) {
        TRY(subproof(t, m, from, middle, whole, proof, e));
        return push(t, middle, to, proof, e);
    }
    TRY(subproof(t, m, middle, to, false, proof, e));
    return push(t, from, middle, proof, e);
}

static int check_range(struct meta *m, int64_t inner, int64_t outer, struct err *e)
{
    int64_t last;

    TRY(journal_last_seq(m, &last, e));
    if (inner < 1 || inner > outer || outer > last)
        return FAIL(e, OUT_OF_RANGE, "the journal has %lld facts; %lld of %lld cannot be proven",
                    (long long)last, (long long)inner, (long long)outer);
    return 0;
}

int journal_prove_inclusion(struct meta *m, int64_t seq, int64_t size,
                            struct journal_proof *ret_proof, struct err *e)
{
    struct tree t = {.m = m};
    struct journal_proof proof = {0};

    TRY(check_range(m, seq, size, e));
    TRY(path(&t, seq - 1, 0, size, &proof, e));
    *ret_proof = proof;
    return 0;
}

int journal_prove_consistency(struct meta *m, int64_t from, int64_t to,
                              struct journal_proof *ret_proof, struct err *e)
{
    struct tree t = {.m = m};
    struct journal_proof proof = {0};

    TRY(check_range(m, from, to, e));
    TRY(subproof(&t, from, 0, to, true, &proof, e));
    *ret_proof = proof;
    return 0;
}

/* ----- Checking ----- */

static hash hash_of(const unsigned char bytes[SHA256_BYTES])
{
    hash h;

    memcpy(h.b, bytes, sizeof(h.b));
    return h;
}

static bool hash_eq(hash a, const unsigned char b[SHA256_BYTES])
{
    return memcmp(a.b, b, sizeof(a.b)) == 0;
}

bool journal_check_inclusion(const unsigned char leaf[SHA256_BYTES], int64_t seq,
                             const struct journal_head *head, const struct journal_proof *proof)
{
    uint64_t fn = (uint64_t)seq - 1, sn = (uint64_t)head->size - 1;
    hash r = hash_of(leaf);

    if (seq < 1 || seq > head->size || proof->n > JOURNAL_PROOF_MAX)
        return false;
    for (size_t i = 0; i < proof->n; i++) {
        hash p = hash_of(proof->path[i]);

        if (sn == 0)
            return false;
        if ((fn & 1) || fn == sn) {
            r = tree_node(p, r);
            while (!(fn & 1) && fn) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            r = tree_node(r, p);
        }
        fn >>= 1;
        sn >>= 1;
    }
    return sn == 0 && hash_eq(r, head->root);
}

bool journal_check_consistency(const struct journal_head *from, const struct journal_head *to,
                               const struct journal_proof *proof)
{
    uint64_t fn = (uint64_t)from->size - 1, sn = (uint64_t)to->size - 1;
    bool power_of_two = (from->size & (from->size - 1)) == 0;
    size_t i = 0;
    hash fr, sr;

    if (from->size < 1 || from->size > to->size || proof->n > JOURNAL_PROOF_MAX)
        return false;
    if (from->size == to->size)
        return proof->n == 0 && memcmp(from->root, to->root, SHA256_BYTES) == 0;
    if (!power_of_two && proof->n == 0)
        return false;
    fr = sr = power_of_two ? hash_of(from->root) : hash_of(proof->path[i++]);
    while (fn & 1) {
        fn >>= 1;
        sn >>= 1;
    }
    for (; i < proof->n; i++) {
        hash c = hash_of(proof->path[i]);

        if (sn == 0)
            return false;
        if ((fn & 1) || fn == sn) {
            fr = tree_node(c, fr);
            sr = tree_node(c, sr);
            while (!(fn & 1) && fn) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            sr = tree_node(sr, c);
        }
        fn >>= 1;
        sn >>= 1;
    }
    return sn == 0 && hash_eq(fr, from->root) && hash_eq(sr, to->root);
}

/* ----- Verifying ----- */

/* The perfect subtrees that make up the rows read so far: one for each set bit of the count. */
struct frontier {
    hash nodes[TREE_LEVELS_MAX];
    int64_t size;
};

/* Adds a leaf, comparing each subtree that it completes with what the row has stored. */
static bool frontier_add(struct frontier *f, hash leaf, str stored_nodes)
{
    hash h = leaf;

    f->size++;
    for (int level = 0;; level++) {
        if (memcmp(stored_nodes.p + (size_t)level * sizeof(hash), h.b, sizeof(hash)) != 0)
            return false;
        if (level == tree_levels(f->size) - 1) {
            f->nodes[level] = h;
            return true;
        }
        h = tree_node(f->nodes[level], h);
    }
}

static hash frontier_root(const struct frontier *f)
{
    int level = __builtin_ctzll((unsigned long long)f->size);
    hash h = f->nodes[level];

    for (level++; level < TREE_LEVELS_MAX; level++)
        if (f->size >> level & 1)
            h = tree_node(f->nodes[level], h);
    return h;
}

static int verify_row(struct frontier *f, const struct meta_rows *rows, struct buf *line,
                      const struct journal_head *known, struct err *e)
{
    struct fact fact;
    hash root;

    TRY(journal_fact_of_row(rows, &fact, e));
    if (fact.seq != f->size + 1)
        return FAIL(e, DATA_LOSS, "journal: fact %lld is missing", (long long)f->size + 1);
    if (!frontier_add(f, tree_leaf(line, &fact), meta_blob(rows, 9)))
        return FAIL(e, DATA_LOSS, "journal: fact %lld (" STR_F ") was changed after it was written",
                    (long long)fact.seq, STR_A(fact.type));
    root = frontier_root(f);
    if (!hash_eq(root, fact.root))
        return FAIL(e, DATA_LOSS, "journal: the root kept with fact %lld does not fit",
                    (long long)fact.seq);
    if (known && known->size == fact.seq && !hash_eq(root, known->root))
        return FAIL(e, DATA_LOSS, "journal: the first %lld facts are not those of the known head",
                    (long long)known->size);
    return 0;
}

int journal_verify(struct meta *m, const struct journal_head *known, struct journal_head *ret_head,
                   int64_t *ret_bad_seq, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    AUTO(buf_done) struct buf line = {0};
    struct frontier f = {0};
    hash root;
    int rc;

    buf_init(&line, BUF_MAX_DEFAULT);
    TRY(meta_query(m, "SELECT " FACT_COLUMNS " FROM journal ORDER BY seq", M_NO_ARGS, &rows, e));
    while (meta_next(rows, &rc, e)) {
        int64_t expected = f.size + 1;

        rc = verify_row(&f, rows, &line, known, e);
        if (rc && ret_bad_seq)
            *ret_bad_seq = expected;
        TRY(rc);
    }
    TRY(rc);
    if (known && known->size > f.size) {
        if (ret_bad_seq)
            *ret_bad_seq = f.size + 1;
        return FAIL(e, DATA_LOSS, "journal: %lld facts are there, the known head has %lld",
                    (long long)f.size, (long long)known->size);
    }
    root = f.size ? frontier_root(&f) : tree_empty();
    ret_head->size = f.size;
    memcpy(ret_head->root, root.b, sizeof(ret_head->root));
    return 0;
}
