/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk. A step reads a node, the feature it names, compares, and adds the result to the number
 * of the left child: no branch, but a chain of loads, each waiting for the one before. So eight
 * chains run side by side: of one row through eight trees, or, where rows suffice, of eight rows
 * through one tree, which then stays in the nearest cache.
 *
 * A leaf leads to itself: its threshold is +inf, which nothing exceeds. So all eight take the same
 * number of steps, that of the deepest; for deep trees it is asked now and then whether all are
 * done.
 *
 * A NaN exceeds nothing and so would go left; where a row has one, the steps look at the direction
 * for missing values too. Trees with sets of categories are walked one at a time, with branches.
 */
#include "serve/trees/forest.h"

#include "base/mem.h"

#include <assert.h>
#include <math.h>

#define STEPS_UNASKED 8

/* --- Making ----------------------------------------------------------------------------------- */

static void node_fill(const struct trees_forest *f, const struct trees_node *n,
                      struct walk_node *to, int32_t ret_children[2])
{
    bool missing_right = !n->missing_left;
    double t;

    ret_children[0] = n->left, ret_children[1] = n->right;
    to->feature = n->feature * (uint32_t)sizeof(float);
    to->about = TREES_LE << 1;
    if (n->test > TREES_LE) {
        to->about = n->set << 4 | (uint32_t)n->test << 1;
    } else if (forest_threshold(f->m, n, &t)) {
        to->threshold = forest_threshold_f32(f, n->feature, t);
    } else {
        to->threshold = INFINITY;
        ret_children[0] = n->right, ret_children[1] = n->left;
        missing_right = !missing_right;
    }
    to->about |= missing_right ? WALK_MISSING_RIGHT : 0;
}

/* By levels, siblings side by side. `from` remembers which node of the model each one is. */
static uint32_t tree_lay(struct trees_forest *f, uint32_t tree, uint32_t first, int32_t *from)
{
    const struct trees_tree *t = &f->m->trees[tree];
    struct walk_node *nodes = f->walk.nodes;
    uint32_t end = first + 1;

    from[first] = t->node_count ? 0 : -1;
    for (uint32_t at = first; at < end; at++) {
        int32_t children[2];

        nodes[at] = (struct walk_node){.threshold = INFINITY,
                                       .child = at * (uint32_t)sizeof(struct walk_node)};
        if (from[at] < 0) {
            nodes[at].leaf = (uint32_t)(-1 - from[at]);
            if (f->in_nodes)
                nodes[at].value = ((const float *)f->leaves[tree])[-1 - from[at]];
            continue;
        }
        node_fill(f, &t->nodes[from[at]], &nodes[at], children);
        f->walk.has_sets[tree] |= WALK_TEST(nodes[at].about) != TREES_LE;
        nodes[at].child = end * (uint32_t)sizeof(struct walk_node);
        from[end] = children[0];
        from[end + 1] = children[1];
        end += 2;
    }
    f->walk.any_sets |= f->walk.has_sets[tree];
    return end;
}

int walk_make(struct trees_forest *f, struct err *e)
{
    const struct trees_model *m = f->m;
    uint32_t trees = (m->tree_count + WALK_LANES - 1) / WALK_LANES * WALK_LANES, end = 1;
    uint64_t nodes = 1;
    AUTO(mem_freep) int32_t *from = NULL;

    for (uint32_t t = 0; t < m->tree_count; t++)
        nodes += 2 * (uint64_t)m->trees[t].node_count + 1;
    f->walk.nodes = ARENA_ARRAY(&f->arena, struct walk_node, nodes);
    f->walk.roots = ARENA_ARRAY(&f->arena, uint32_t, trees);
    f->walk.depths = ARENA_ARRAY(&f->arena, uint32_t, trees / WALK_LANES);
    f->walk.has_sets = ARENA_ARRAY(&f->arena, bool, trees);
    from = mem_try_alloc(nodes * sizeof(*from));
    if (nodes > UINT32_MAX / sizeof(struct walk_node) || f->arena.overflowed || !from)
        return trees_no_memory(e);
    f->walk.nodes[0].threshold = INFINITY;
    for (uint32_t t = 0; t < m->tree_count; t++) {
        uint32_t *depth = &f->walk.depths[t / WALK_LANES];

        f->walk.roots[t] = end * (uint32_t)sizeof(struct walk_node);
        *depth = MAX(*depth, m->trees[t].depth);
        end = tree_lay(f, t, end, from);
    }
    return 0;
}

/* --- Running ---------------------------------------------------------------------------------- */

static inline const struct walk_node *node_at(const struct walk_node *nodes, uint32_t at)
{
    return (const struct walk_node *)(const void *)((const char *)nodes + at);
}

static inline bool is_leaf(const struct walk_node *nodes, uint32_t at)
{
    return node_at(nodes, at)->child == at;
}

static inline uint32_t step(const struct walk_node *nodes, uint32_t at, const float *x, bool nan)
{
    const struct walk_node *n = node_at(nodes, at);
    float v = *(const float *)(const void *)((const char *)x + n->feature);
    uint32_t right = v > n->threshold;

    if (nan) /* a leaf has no directions */
        right |= (uint32_t)(v != v) & n->about & WALK_MISSING_RIGHT & (uint32_t)(n->child != at);
    return n->child + right * (uint32_t)sizeof(struct walk_node);
}

static_assert(WALK_LANES == 8, "the lanes are spelled out, so that each is a register");

static inline void lanes_walk(const struct walk_node *nodes, uint32_t at[WALK_LANES],
                              const float *x, size_t stride, uint32_t steps, bool nan)
{
    uint32_t a = at[0], b = at[1], c = at[2], d = at[3];
    uint32_t e = at[4], f = at[5], g = at[6], h = at[7];
    bool done = false;

    while (steps && !done) {
        uint32_t now = MIN(steps, STEPS_UNASKED);

        steps -= now;
        for (; now; now--) {
            a = step(nodes, a, x, nan);
            b = step(nodes, b, x + stride, nan);
            c = step(nodes, c, x + 2 * stride, nan);
            d = step(nodes, d, x + 3 * stride, nan);
            e = step(nodes, e, x + 4 * stride, nan);
            f = step(nodes, f, x + 5 * stride, nan);
            g = step(nodes, g, x + 6 * stride, nan);
            h = step(nodes, h, x + 7 * stride, nan);
        }
        done = is_leaf(nodes, a) && is_leaf(nodes, b) && is_leaf(nodes, c) && is_leaf(nodes, d) &&
               is_leaf(nodes, e) && is_leaf(nodes, f) && is_leaf(nodes, g) && is_leaf(nodes, h);
    }
    at[0] = a, at[1] = b, at[2] = c, at[3] = d;
    at[4] = e, at[5] = f, at[6] = g, at[7] = h;
}

/* Eight trees, one row: the stride is a constant 0. */
HOT static void row_walk(const struct walk_node *nodes, uint32_t at[WALK_LANES], const float *x,
                         uint32_t steps, bool nan)
{
    if (nan)
        lanes_walk(nodes, at, x, 0, steps, true);
    else
        lanes_walk(nodes, at, x, 0, steps, false);
}

/* One tree, eight rows. */
HOT static void rows_walk(const struct walk_node *nodes, uint32_t at[WALK_LANES], const float *x,
                          size_t stride, uint32_t steps, bool nan)
{
    if (nan)
        lanes_walk(nodes, at, x, stride, steps, true);
    else
        lanes_walk(nodes, at, x, stride, steps, false);
}

/* One walk, with sets. */
static uint32_t sets_walk(const struct trees_forest *f, uint32_t at, const float *x,
                          const void *raw, uint32_t row)
{
    const struct walk_node *nodes = f->walk.nodes;

    while (!is_leaf(nodes, at)) {
        const struct walk_node *n = node_at(nodes, at);
        uint8_t test = WALK_TEST(n->about);
        uint32_t right;
        double v;

        if (test == TREES_LE) {
            at = step(nodes, at, x, true);
            continue;
        }
        v = forest_raw(f->m, raw, row, n->feature / (uint32_t)sizeof(float));
        right = isnan(v) ? n->about & WALK_MISSING_RIGHT
                         : !trees_set_has(&f->m->sets[WALK_SET(n->about)], test, v);
        at = n->child + right * (uint32_t)sizeof(struct walk_node);
    }
    return at;
}

static bool any_nan(const float *x, size_t n)
{
    bool nan = false;

    for (size_t i = 0; i < n; i++)
        nan |= x[i] != x[i];
    return nan;
}

static inline void leaf_add(const struct trees_forest *f, struct trees_scratch *s, uint32_t tree,
                            uint32_t at, uint32_t row)
{
    const struct walk_node *leaf = node_at(f->walk.nodes, at);
    size_t sum = (size_t)f->m->trees[tree].group * BLOCK_ROWS + row;

    if (f->in_nodes)
        ((float *)s->sums)[sum] += leaf->value;
    else if (f->plain)
        ((double *)s->sums)[sum] += ((const double *)f->leaves[tree])[leaf->leaf];
    else
        forest_add(f, s, tree, leaf->leaf, row);
}

/* One sum: it stays in a register, so that no tree waits for the one before to be stored. */
static void row_run_single(const struct trees_forest *f, struct trees_scratch *s, const float *x,
                           uint32_t row)
{
    const struct walk *w = &f->walk;
    bool nan = any_nan(x, f->m->features), wide = f->m->wide_sum;
    double wide_sum = wide ? ((double *)s->sums)[row] : 0;
    float sum = wide ? 0 : ((float *)s->sums)[row];

    for (uint32_t t = 0; t < f->m->tree_count; t += WALK_LANES) {
        uint32_t at[WALK_LANES], n = MIN(f->m->tree_count - t, (uint32_t)WALK_LANES);

        memcpy(at, w->roots + t, sizeof(at));
        row_walk(w->nodes, at, x, w->depths[t / WALK_LANES], nan);
        for (uint32_t k = 0; !wide && k < n; k++)
            sum += node_at(w->nodes, at[k])->value;
        for (uint32_t k = 0; wide && k < n; k++)
            wide_sum += ((const double *)f->leaves[t + k])[node_at(w->nodes, at[k])->leaf];
    }
    if (wide)
        ((double *)s->sums)[row] = wide_sum;
    else
        ((float *)s->sums)[row] = sum;
}

static void row_run(const struct trees_forest *f, struct trees_scratch *s, const float *x,
                    const void *raw, uint32_t row)
{
    const struct walk *w = &f->walk;
    bool nan = any_nan(x, f->m->features);

    for (uint32_t t = 0; t < f->m->tree_count; t += WALK_LANES) {
        uint32_t at[WALK_LANES], n = MIN(f->m->tree_count - t, (uint32_t)WALK_LANES);

        memcpy(at, w->roots + t, sizeof(at));
        for (uint32_t k = 0; w->any_sets && k < WALK_LANES; k++)
            if (w->has_sets[t + k])
                at[k] = sets_walk(f, at[k], x, raw, row);
        row_walk(w->nodes, at, x, w->depths[t / WALK_LANES], nan);
        for (uint32_t k = 0; k < n; k++)
            leaf_add(f, s, t + k, at[k], row);
    }
}

/* Eight rows through each tree. */
static void rows_run(const struct trees_forest *f, struct trees_scratch *s, const float *x,
                     const void *raw, uint32_t first)
{
    const struct walk *w = &f->walk;
    uint32_t stride = f->m->features;
    bool nan = any_nan(x, (size_t)WALK_LANES * stride);

    for (uint32_t t = 0; t < f->m->tree_count; t++) {
        uint32_t at[WALK_LANES];

        for (uint32_t k = 0; k < WALK_LANES; k++)
            at[k] = w->roots[t];
        if (w->has_sets[t])
            for (uint32_t k = 0; k < WALK_LANES; k++)
                at[k] = sets_walk(f, at[k], x + (size_t)k * stride, raw, first + k);
        else
            rows_walk(w->nodes, at, x, stride, f->m->trees[t].depth, nan);
        for (uint32_t k = 0; k < WALK_LANES; k++)
            leaf_add(f, s, t, at[k], first + k);
    }
}

void walk_run(const struct trees_forest *f, struct trees_scratch *s, const float *rows,
              const void *raw, uint32_t n)
{
    uint32_t row = 0;

    for (; row + WALK_LANES <= n; row += WALK_LANES)
        rows_run(f, s, rows + (size_t)row * f->m->features, raw, row);
    for (; row < n; row++)
        if (f->plain && f->m->groups == 1 && !f->walk.any_sets)
            row_run_single(f, s, rows + (size_t)row * f->m->features, row);
        else
            row_run(f, s, rows + (size_t)row * f->m->features, raw, row);
}
