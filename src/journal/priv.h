/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of the journal: rows as facts, and the Merkle tree under them. */
#pragma once

#include "journal/journal.h"

#define FACT_COLUMNS "seq, at_ns, id, type, subject, actor, reason, correlation, data, nodes, root"

/* The present row of a SELECT FACT_COLUMNS; text borrowed from it. DATA_LOSS when hashes are not as
 * long as they must be. */
NODISCARD int journal_fact_of_row(const struct meta_rows *rows, struct fact *ret_fact,
                                  struct err *e);

/* ----- tree.c ----- */

typedef struct hash {
    unsigned char b[SHA256_BYTES];
} hash;

/* Hashes of the perfect subtrees that end at leaf `seq`: nodes[k] covers the 2^k leaves up to it.
 * There are 1 + (number of trailing zero bits of seq). */
#define TREE_LEVELS_MAX 63
static inline int tree_levels(int64_t seq)
{
    return __builtin_ctzll((unsigned long long)seq) + 1;
}

hash tree_leaf(struct buf *scratch, const struct fact *fact);
hash tree_node(hash left, hash right);
hash tree_empty(void);

int64_t tree_split(int64_t n); /* the largest power of two below n, n > 1 */

struct tree {
    struct meta *m;
    /* A row that is not in the table yet, or seq 0. */
    int64_t extra_seq;
    const hash *extra_nodes;
};
/* RFC 6962 MTH(D[from:to]): the leaves from+1 … to, in the numbering of seq. */
NODISCARD int tree_range(const struct tree *t, int64_t from, int64_t to, hash *ret, struct err *e);
/* Fills nodes[0 … tree_levels(seq)) of the next row from its leaf and the rows before it. */
NODISCARD int tree_append(struct meta *m, int64_t seq, hash leaf, hash nodes[TREE_LEVELS_MAX],
                          hash *ret_root, struct err *e);
