/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lays a model out as bins (forest.h). A column is what a node may compare: the rank of a feature's
 * value among the thresholds that the trees of the chunk have on it, in a byte. x > threshold
 * number i exactly when more than i thresholds lie below x, so the test on ranks is the test on
 * values. NaN takes the byte that leads it: 0 to the left at every node, 255 to the right; a
 * feature with nodes of both kinds has two columns. A node that asks for categories has a column of
 * its own kind, 0 for left and 1 for right.
 *
 * Trees are put into a chunk one after the other until a column would need more than 255
 * thresholds; then the next chunk begins, with columns of its own.
 *
 * A tree that is nearly complete is filled up to a complete one, whose questions are asked in a
 * fixed pattern without any list. Any other becomes a list of choices from the bottom up. Leaves
 * are numbered as each form finds them.
 */
#include "serve/trees/forest.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

#define THRESHOLDS_MAX 255
#define COLUMNS_MAX 4096u /* of a chunk */
#define SETS_MAX 1024u    /* columns of categories of a chunk: each costs every row */
#define BINS_BYTES_MAX ((size_t)1 << 30)
/* Choices of a list cost about three times a question of the pattern. */
#define COMPLETE_FACTOR 3

/* While a chunk grows. */
struct draft_column {
    uint32_t feature;
    bool missing_right;
    uint8_t test; /* TREES_LE, or of a set */
    uint32_t set;
    float *thresholds; /* rising, distinct */
    uint32_t count;
    uint32_t next; /* of the same feature, +1 */
};

struct maker {
    const struct trees_forest *f;
    struct bins *b;
    struct arena work; /* of one chunk */
    struct draft_column *columns;
    uint32_t column_count, set_count;
    uint32_t *first_of; /* per feature: its first column, +1 */
    uint32_t from;      /* the chunk's first tree */
};

static int not_possible(const char *why, struct err *e)
{
    return FAIL(e, FAILED_PRECONDITION, "the trees cannot be laid out as bins: %s", why);
}

/* A node as all forms see it. */
struct question {
    float threshold;
    uint8_t test;
    bool missing_right;
    int32_t children[2];
};

static struct question question_of(const struct trees_forest *f, const struct trees_node *n)
{
    struct question q = {.test = n->test == TREES_LT ? TREES_LE : n->test,
                         .missing_right = !n->missing_left,
                         .children = {n->left, n->right}};
    double t;

    if (q.test != TREES_LE)
        return q;
    if (forest_threshold(f->m, n, &t)) {
        q.threshold = forest_threshold_f32(f, n->feature, t);
    } else {
        q.threshold = INFINITY;
        q.missing_right = !q.missing_right;
        q.children[0] = n->right, q.children[1] = n->left;
    }
    return q;
}

/* --- Columns of a growing chunk --------------------------------------------------------------- */

static uint32_t lower_bound(const float *list, uint32_t n, float v)
{
    uint32_t low = 0, high = n;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (list[middle] < v)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct draft_column *column_find(const struct maker *mk, const struct trees_node *n,
                                        const struct question *q)
{
    for (uint32_t at = mk->first_of[n->feature]; at; at = mk->columns[at - 1].next) {
        struct draft_column *c = &mk->columns[at - 1];

        if (c->missing_right == q->missing_right && c->test == q->test &&
            (c->test == TREES_LE || c->set == n->set))
            return c;
    }
    return NULL;
}

static struct draft_column *column_add(struct maker *mk, const struct trees_node *n,
                                       const struct question *q)
{
    struct draft_column *c = &mk->columns[mk->column_count++];

    *c = (struct draft_column){.feature = n->feature,
                               .missing_right = q->missing_right,
                               .test = q->test,
                               .set = n->set,
                               .next = mk->first_of[n->feature]};
    mk->first_of[n->feature] = mk->column_count;
    if (q->test == TREES_LE)
        c->thresholds = ARENA_ARRAY(&mk->work, float, THRESHOLDS_MAX);
    else
        mk->set_count++;
    return c;
}

/* False when the chunk is full. */
static bool node_add(struct maker *mk, const struct trees_node *n, const struct question *q)
{
    struct draft_column *c = column_find(mk, n, q);
    uint32_t at;

    if (!c) {
        if (mk->column_count == COLUMNS_MAX || mk->set_count == SETS_MAX)
            return false;
        c = column_add(mk, n, q);
    }
    if (c->test != TREES_LE)
        return true;
    at = lower_bound(c->thresholds, c->count, q->threshold);
    if (at < c->count && c->thresholds[at] == q->threshold)
        return true;
    if (c->count == THRESHOLDS_MAX)
        return false;
    memmove(c->thresholds + at + 1, c->thresholds + at, (c->count - at) * sizeof(float));
    c->thresholds[at] = q->threshold;
    c->count++;
    return true;
}

/* --- Finished columns and trees --------------------------------------------------------------- */

static void column_finish(struct maker *mk, const struct draft_column *from, struct bins_column *to)
{
    uint32_t padded = (from->count + 15) / 16 * 16;

    *to = (struct bins_column){
        .feature = from->feature, .count = from->count, .test = from->test, .set = from->set};
    if (from->test != TREES_LE) {
        to->missing = from->missing_right;
        return;
    }
    to->missing = from->missing_right ? 255 : 0;
    to->thresholds = ARENA_ARRAY(&mk->b->arena, float, padded + 16);
    for (uint32_t i = 0; i < padded + 16; i++)
        to->thresholds[i] = i < from->count ? from->thresholds[i] : INFINITY;
    for (uint32_t i = 0; i < 16; i++)
        to->coarse[i] = i * 16 + 15 < padded ? to->thresholds[i * 16 + 15] : INFINITY;
}

static int32_t shifted(uint32_t byte)
{
    uint32_t b = (byte ^ 0x80) & 0xFF;

    return (int32_t)(b * 0x01010101u);
}

/* Where a node's byte lies, and what it is compared with. */
static void node_place(const struct maker *mk, const struct trees_node *n, const struct question *q,
                       int32_t *ret_threshold, uint32_t *ret_column)
{
    const struct draft_column *c = column_find(mk, n, q);

    ASSERT(c);
    *ret_column = (uint32_t)(c - mk->columns) * BINS_ROWS;
    *ret_threshold =
        shifted(c->test == TREES_LE ? lower_bound(c->thresholds, c->count, q->threshold) : 0);
}

/* Leaves by the numbers that the form gives; `numbers` maps those to the model's. */
static void leaves_finish(struct maker *mk, uint32_t tree, uint8_t *numbers, uint32_t n,
                          struct bins_tree *to)
{
    const struct trees_model *m = mk->f->m;

    if (m->trees[tree].vector || m->sum == TREES_MIN || m->sum == TREES_MAX) {
        to->leaf_of = numbers;
        return;
    }
    if (m->wide_sum) {
        double *leaves = ARENA_ARRAY(&mk->b->arena, double, n);

        for (uint32_t i = 0; leaves && i < n; i++)
            leaves[i] = ((const double *)mk->f->leaves[tree])[numbers[i]];
        to->leaves = leaves;
    } else {
        float *leaves = ARENA_ARRAY(&mk->b->arena, float, n);

        for (uint32_t i = 0; leaves && i < n; i++)
            leaves[i] = ((const float *)mk->f->leaves[tree])[numbers[i]];
        to->leaves = leaves;
    }
}

/* Nodes by levels; below a leaf, nodes that lead left. */
static void complete_make(struct maker *mk, uint32_t tree, struct bins_tree *to)
{
    const struct trees_tree *t = &mk->f->m->trees[tree];
    uint32_t inner = (1u << t->depth) - 1, all = 2 * inner + 1;
    int32_t *from = ARENA_ARRAY(&mk->work, int32_t, all);
    uint8_t *numbers = ARENA_ARRAY(&mk->b->arena, uint8_t, inner + 1);
    struct bins_node *nodes = ARENA_ARRAY(&mk->b->arena, struct bins_node, inner);

    if (!from || !numbers || !nodes)
        return;
    for (uint32_t i = 0; i < inner; i++) {
        const struct trees_node *n = from[i] >= 0 ? &t->nodes[from[i]] : NULL;
        struct question q;

        nodes[i].threshold = shifted(255);
        from[2 * i + 1] = from[2 * i + 2] = from[i];
        if (!n)
            continue;
        q = question_of(mk->f, n);
        node_place(mk, n, &q, &nodes[i].threshold, &nodes[i].column);
        from[2 * i + 1] = q.children[0];
        from[2 * i + 2] = q.children[1];
    }
    for (uint32_t i = 0; i <= inner; i++)
        numbers[i] = (uint8_t)(-1 - from[inner + i]);
    to->depth = t->depth;
    to->count = inner;
    to->nodes = nodes;
    leaves_finish(mk, tree, numbers, inner + 1, to);
}

/* A walk in postorder. The vectors above 255 are a stack; visiting the larger side first keeps it
 * below log2 of the leaves. */
struct visit {
    int32_t node;
    bool opened;
    bool right_first;
};

static uint32_t *sizes_make(struct maker *mk, const struct trees_tree *t)
{
    uint32_t *sizes = ARENA_ARRAY(&mk->work, uint32_t, t->node_count);
    uint32_t *order = ARENA_ARRAY(&mk->work, uint32_t, t->node_count);
    uint32_t n = 0;

    if (!sizes || !order)
        return NULL;
    order[n++] = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct trees_node *node = &t->nodes[order[i]];

        if (node->left >= 0)
            order[n++] = (uint32_t)node->left;
        if (node->right >= 0)
            order[n++] = (uint32_t)node->right;
    }
    while (n--) {
        const struct trees_node *node = &t->nodes[order[n]];

        sizes[order[n]] = 1 + (node->left >= 0 ? sizes[node->left] : 0) +
                          (node->right >= 0 ? sizes[node->right] : 0);
    }
    return sizes;
}

static void list_make(struct maker *mk, uint32_t tree, struct bins_tree *to)
{
    const struct trees_tree *t = &mk->f->m->trees[tree];
    uint32_t *sizes = sizes_make(mk, t), depth = 0, slots = 0;
    struct visit *stack = ARENA_ARRAY(&mk->work, struct visit, 2 * (size_t)t->node_count + 2);
    uint8_t *numbers = ARENA_ARRAY(&mk->b->arena, uint8_t, t->leaf_count);

    to->ops = ARENA_ARRAY(&mk->b->arena, struct bins_op, t->node_count);
    if (!sizes || !stack || !numbers || !to->ops)
        return;
    for (uint32_t i = 0; i < t->leaf_count; i++)
        numbers[i] = (uint8_t)i;
    stack[depth++] = (struct visit){.node = 0};
    while (depth) {
        struct visit *v = &stack[depth - 1];
        const struct trees_node *n = &t->nodes[v->node];
        struct question q = question_of(mk->f, n);
        const int32_t left = q.children[0], right = q.children[1];

        if (!v->opened) {
            uint32_t left_size = left >= 0 ? sizes[left] : 0;
            uint32_t right_size = right >= 0 ? sizes[right] : 0;
            int32_t first = right_size > left_size ? right : left;
            int32_t second = right_size > left_size ? left : right;

            v->opened = true;
            v->right_first = right_size > left_size;
            if (second >= 0)
                stack[depth++] = (struct visit){.node = second};
            if (first >= 0)
                stack[depth++] = (struct visit){.node = first};
            continue;
        }
        struct bins_op *op = &to->ops[to->count++];
        uint32_t popped = (left >= 0) + (uint32_t)(right >= 0), bottom;

        node_place(mk, n, &q, &op->threshold, &op->column);
        slots -= popped;
        bottom = 256 + slots;
        op->left =
            (uint16_t)(left < 0 ? (uint32_t)(-1 - left) : bottom + (popped == 2 && v->right_first));
        op->right = (uint16_t)(right < 0 ? (uint32_t)(-1 - right)
                                         : bottom + (popped == 2 && !v->right_first));
        op->dst = (uint16_t)bottom;
        slots++;
        ASSERT(bottom < BINS_FILE_SLOTS);
        depth--;
    }
    to->result = 256;
    leaves_finish(mk, tree, numbers, t->leaf_count, to);
}

static void single_make(struct maker *mk, uint32_t tree, struct bins_tree *to)
{
    uint8_t *number = ARENA_NEW(&mk->b->arena, uint8_t);

    to->result = 0;
    if (number)
        leaves_finish(mk, tree, number, 1, to);
}

/* The trees from mk->from to `end` become a chunk. */
static void chunk_finish(struct maker *mk, uint32_t end)
{
    struct bins_chunk *chunk = &mk->b->chunks[mk->b->chunk_count++];
    const struct trees_model *m = mk->f->m;

    chunk->columns = ARENA_ARRAY(&mk->b->arena, struct bins_column, mk->column_count);
    chunk->trees = ARENA_ARRAY(&mk->b->arena, struct bins_tree, end - mk->from);
    if (mk->b->arena.overflowed)
        return;
    chunk->column_count = mk->column_count;
    chunk->tree_count = end - mk->from;
    mk->b->columns_max = MAX(mk->b->columns_max, mk->column_count);
    for (uint32_t i = 0; i < mk->column_count && !mk->b->arena.overflowed; i++)
        column_finish(mk, &mk->columns[i], &chunk->columns[i]);
    for (uint32_t i = mk->from; i < end && !mk->b->arena.overflowed; i++) {
        struct bins_tree *to = &chunk->trees[i - mk->from];
        uint32_t depth = m->trees[i].depth;

        to->tree = i;
        if (!depth)
            single_make(mk, i, to);
        else if (depth <= BINS_DEPTH_MAX && 1u << depth <= COMPLETE_FACTOR * m->trees[i].leaf_count)
            complete_make(mk, i, to);
        else
            list_make(mk, i, to);
    }
}

static void chunk_begin(struct maker *mk, uint32_t from)
{
    arena_reset(&mk->work);
    mk->columns = ARENA_ARRAY(&mk->work, struct draft_column, COLUMNS_MAX);
    mk->first_of = ARENA_ARRAY(&mk->work, uint32_t, mk->f->m->features);
    mk->column_count = mk->set_count = 0;
    mk->from = from;
}

/* Adds the nodes that a walk meets; false when the chunk is full. */
static bool tree_add(struct maker *mk, const struct trees_tree *t, int32_t *queue)
{
    uint32_t n = 0;

    if (t->node_count)
        queue[n++] = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct trees_node *node = &t->nodes[queue[i]];
        struct question q = question_of(mk->f, node);

        if (!node_add(mk, node, &q))
            return false;
        for (int side = 0; side < 2; side++)
            if (q.children[side] >= 0)
                queue[n++] = q.children[side];
    }
    return true;
}

static int chunks_make(struct maker *mk, struct err *e)
{
    const struct trees_model *m = mk->f->m;
    int32_t queue[BINS_LEAVES_MAX];

    chunk_begin(mk, 0);
    for (uint32_t t = 0; t < m->tree_count; t++) {
        if (!tree_add(mk, &m->trees[t], queue)) {
            uint32_t from = t;

            if (mk->from == t)
                return not_possible("one tree has too many categorical nodes", e);
            /* What the tree has added already does no harm: columns and thresholds too many. */
            chunk_finish(mk, t);
            chunk_begin(mk, from);
            t--;
        }
        if (mk->work.overflowed || mk->b->arena.overflowed)
            return not_possible("they need too much memory", e);
    }
    chunk_finish(mk, m->tree_count);
    return mk->work.overflowed || mk->b->arena.overflowed
               ? not_possible("they need too much memory", e)
               : 0;
}

int bins_make(struct trees_forest *f, struct err *e)
{
    struct maker mk = {.f = f};
    int rc;

    if (!bins_possible_here())
        return not_possible("the processor has no AVX2", e);
    for (uint32_t t = 0; t < f->m->tree_count; t++)
        if (f->m->trees[t].leaf_count > BINS_LEAVES_MAX ||
            f->m->trees[t].node_count >= BINS_LEAVES_MAX)
            return not_possible("a tree has more than 256 leaves", e);
    mk.b = mem_zalloc(sizeof(*mk.b));
    arena_init(&mk.b->arena, BINS_BYTES_MAX);
    arena_init(&mk.work, BINS_BYTES_MAX);
    mk.b->chunks = ARENA_ARRAY(&mk.b->arena, struct bins_chunk, f->m->tree_count);
    rc = mk.b->chunks ? chunks_make(&mk, e) : not_possible("they need too much memory", e);
    arena_done(&mk.work);
    if (rc) {
        bins_free(mk.b);
        return err_nonzero(rc);
    }
    f->bins = mk.b;
    return 0;
}

void bins_free(struct bins *b)
{
    if (!b)
        return;
    arena_done(&b->arena);
    mem_free(b);
}
