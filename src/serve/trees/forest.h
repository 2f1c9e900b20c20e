/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a model is laid out to be run. Private to serve/trees/.
 *
 * Two forms, which give the same bits, because both only find leaves; what is found is summed by
 * one piece of code in the order of the trees:
 *
 *   walk  every tree as nodes whose children lie side by side, walked from the root: eight walks at
 *         a time, so that the processor has something to do while one of them waits for memory. For
 *         few rows, and for trees with many leaves. Portable C.
 *   bins  values become their rank among the thresholds of their feature, one byte each; then 32
 *         rows at a time are asked *every* question of a tree, without following any branch. For
 *         trees of up to 256 leaves, and processors with AVX2.
 *
 * Any numerical test is "x > threshold leads right" here: x <= t is its opposite, and x < t is
 * x <= the number before t in the precision of the rows. Rows of doubles, and features whose zeros
 * count as missing, are put into that form first (prepare): a double becomes its rank among the
 * thresholds of its feature, a number that a float holds exactly.
 */
#pragma once

#include "serve/trees/priv.h"

#define WALK_LANES 8
#define BINS_ROWS 32   /* of one vector of bytes */
#define BLOCK_ROWS 256 /* of one pass over the trees: their data stays in the nearest cache */
#define BINS_LEAVES_MAX 256
#define BINS_DEPTH_MAX 8

/* --- Walk ------------------------------------------------------------------------------------- */

/* Offsets are in bytes, so that a step multiplies nothing. */
struct walk_node {
    float threshold;  /* x > threshold leads to the right child, else to the left */
    uint32_t child;   /* the left one; the right one follows it. A leaf, whose threshold is +inf,
                         leads to itself */
    uint32_t feature; /* of the row */
    union {
        uint32_t about; /* of a node: bit 0: NaN leads right; bits 1 to 3: enum trees_test, TREES_LE
                           for both comparisons; from bit 4 on: the set */
        uint32_t leaf;  /* its number in the tree, ... */
        float value;    /* ... or what it adds: forest.in_nodes */
    };
};
#define WALK_MISSING_RIGHT 1u
#define WALK_TEST(about) ((about) >> 1 & 7)
#define WALK_SET(about) ((about) >> 4)

struct walk {
    struct walk_node *nodes; /* nodes[0] is a leaf by itself, for lanes without a tree */
    uint32_t *roots;         /* offsets; a multiple of WALK_LANES of them */
    uint32_t *depths;        /* of each group of WALK_LANES trees */
    bool *has_sets;          /* of each tree */
    bool any_sets;
};

/* --- Bins ------------------------------------------------------------------------------------- */

/* One byte per row: the rank of a feature's value, or how a set answers. Values are shifted by
 * -128, because the processor compares signed bytes. */
struct bins_column {
    uint32_t feature;
    uint32_t count;    /* of thresholds, 1..255; 0: a set */
    float *thresholds; /* rising; filled up with +inf to a multiple of 16 */
    float coarse[16];  /* the last of each 16 */
    uint8_t missing;   /* the byte of NaN, unshifted */
    uint8_t test;      /* of a set */
    uint32_t set;
};

struct bins_node {     /* of a complete tree, by levels */
    int32_t threshold; /* shifted, four times */
    uint32_t column;   /* offset in bytes in a block of columns */
};

struct bins_op { /* of any other tree: dst = byte > threshold ? right : left, bottom up */
    int32_t threshold;
    uint32_t column;
    uint16_t left, right, dst; /* vectors of the file: 0..255 are constants */
};
#define BINS_FILE_SLOTS (256 + 16)

struct bins_tree {
    uint32_t tree;  /* of the model */
    uint32_t depth; /* of a complete tree, else 0 */
    uint32_t count; /* nodes or operations */
    union {
        struct bins_node *nodes;
        struct bins_op *ops;
    };
    uint32_t result;    /* vector of the file that holds the leaf's number */
    const void *leaves; /* float or double, by the numbers that this form gives; NULL: vectors */
    uint8_t *leaf_of;   /* number in the model's tree, by that number; for vectors */
};

/* Trees that share columns: 255 thresholds of a feature are the most that one can tell apart. */
struct bins_chunk {
    struct bins_column *columns;
    uint32_t column_count;
    struct bins_tree *trees;
    uint32_t tree_count;
};

struct bins {
    struct arena arena; /* owned: all below */
    struct bins_chunk *chunks;
    uint32_t chunk_count;
    uint32_t columns_max; /* of one chunk */
};

/* --- Forest ----------------------------------------------------------------------------------- */

struct ranks {
    double *thresholds; /* of the forest's arena; rising, distinct */
    uint32_t count;
};

struct trees_forest {
    const struct trees_model *m; /* borrowed */
    struct arena arena;          /* owned */
    struct ranks *ranks;         /* per feature, of a wide model; else NULL */
    struct walk walk;
    struct bins *bins;  /* owned, or NULL */
    uint32_t bins_rows; /* from so many rows on; UINT32_MAX: never */
    bool prepares;      /* rows are copied into the scratch first */
    bool plain;         /* leaves hold one value each, which is added */
    bool in_nodes;      /* plain, and in float: the nodes of the walk hold the values */
    void **leaves;      /* per tree: values as float or double, by wide_sum */
};

struct trees_scratch {
    float *rows;                     /* BLOCK_ROWS prepared rows, or NULL */
    void *sums;                      /* groups * BLOCK_ROWS, float or double, by wide_sum */
    double *answer;                  /* one row's sums, then its scores */
    uint8_t *columns, *file, *found; /* of bins */
};

/* The threshold of "x > t leads right"; false: everything but NaN leads right. */
NODISCARD bool forest_threshold(const struct trees_model *m, const struct trees_node *n,
                                double *ret_threshold);
/* As a float: the rank of a wide model. */
float forest_threshold_f32(const struct trees_forest *f, uint32_t feature, double threshold);

NODISCARD int walk_make(struct trees_forest *f, struct err *e);
/* Adds what the trees say of rows to s->sums (row r of group g at g * BLOCK_ROWS + r). `rows`:
 * prepared; `raw`: as they were given, for sets. */
void walk_run(const struct trees_forest *f, struct trees_scratch *s, const float *rows,
              const void *raw, uint32_t n);

/* FAILED_PRECONDITION: not possible for this model or on this processor. */
NODISCARD int bins_make(struct trees_forest *f, struct err *e);
void bins_free(struct bins *b); /* accepts NULL */
bool bins_possible_here(void);
void bins_run(const struct trees_forest *f, struct trees_scratch *s, const float *rows,
              const void *raw, uint32_t n);

/* Adds leaf `leaf` of a tree to the sums of a row. */
void forest_add(const struct trees_forest *f, struct trees_scratch *s, uint32_t tree, uint32_t leaf,
                uint32_t row);

/* A feature of a row as it was given. */
static inline double forest_raw(const struct trees_model *m, const void *raw, uint32_t row,
                                uint32_t feature)
{
    size_t at = (size_t)row * m->features + feature;

    return m->wide ? ((const double *)raw)[at] : (double)((const float *)raw)[at];
}
