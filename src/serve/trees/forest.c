/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model laid out, and a run: rows in blocks, prepared, through the form that is faster for their
 * number, summed, answered.
 *
 * Which form that is, is measured when the model is loaded, on rows made of its own thresholds; it
 * depends on the processor, the trees and the cache in ways that no rule foresees. It takes some
 * ten to hundreds of microseconds. The answers do not depend on it.
 */
#include "serve/trees/forest.h"

#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"

#include <math.h>
#include <stdlib.h>

#define FOREST_BYTES_MAX ((size_t)4 << 30)
#define MEASURE_TURNS 3

/* --- Thresholds ------------------------------------------------------------------------------- */

bool forest_threshold(const struct trees_model *m, const struct trees_node *n,
                      double *ret_threshold)
{
    double t = n->threshold;
    float narrow = (float)t;

    if (n->test == TREES_LT && t == -INFINITY)
        return false;
    if (m->wide) {
        *ret_threshold = n->test == TREES_LT ? nextafter(t, -INFINITY) : t;
        return true;
    }
    if ((double)narrow > t || (n->test == TREES_LT && (double)narrow == t))
        narrow = nextafterf(narrow, -INFINITY);
    *ret_threshold = (double)narrow;
    return true;
}

static uint32_t rank_of(const struct ranks *r, double x)
{
    uint32_t low = 0, high = r->count;

    while (low < high) { /* how many are less than x */
        uint32_t middle = low + (high - low) / 2;

        if (r->thresholds[middle] < x)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

float forest_threshold_f32(const struct trees_forest *f, uint32_t feature, double threshold)
{
    return f->ranks ? (float)rank_of(&f->ranks[feature], threshold) : (float)threshold;
}

static int double_compare(const void *pa, const void *pb)
{
    double a = *(const double *)pa, b = *(const double *)pb;

    return a < b ? -1 : a > b;
}

/* Of a wide model: the thresholds of each feature, sorted, without repetitions. */
static int ranks_make(struct trees_forest *f, struct err *e)
{
    const struct trees_model *m = f->m;

    f->ranks = ARENA_ARRAY(&f->arena, struct ranks, m->features);
    for (int pass = 0; f->ranks && pass < 2; pass++) {
        for (uint32_t i = 0; pass && i < m->features; i++) {
            f->ranks[i].thresholds = ARENA_ARRAY(&f->arena, double, f->ranks[i].count);
            f->ranks[i].count = 0;
        }
        if (f->arena.overflowed)
            break;
        for (uint32_t t = 0; t < m->tree_count; t++)
            for (uint32_t i = 0; i < m->trees[t].node_count; i++) {
                const struct trees_node *n = &m->trees[t].nodes[i];
                struct ranks *r = &f->ranks[n->feature];
                double v;

                if (n->test > TREES_LE || n->feature >= m->features || !forest_threshold(m, n, &v))
                    continue;
                if (pass)
                    r->thresholds[r->count] = v;
                r->count++;
            }
    }
    if (f->arena.overflowed)
        return trees_no_memory(e);
    for (uint32_t i = 0; i < m->features; i++) {
        struct ranks *r = &f->ranks[i];
        uint32_t kept = 0;

        qsort(r->thresholds, r->count, sizeof(double), double_compare);
        for (uint32_t k = 0; k < r->count; k++)
            if (!kept || r->thresholds[k] != r->thresholds[kept - 1])
                r->thresholds[kept++] = r->thresholds[k];
        r->count = kept;
    }
    return 0;
}

/* --- Making ----------------------------------------------------------------------------------- */

static int leaves_make(struct trees_forest *f, struct err *e)
{
    const struct trees_model *m = f->m;

    f->leaves = ARENA_ARRAY(&f->arena, void *, m->tree_count);
    for (uint32_t t = 0; f->leaves && t < m->tree_count; t++) {
        const struct trees_tree *tree = &m->trees[t];
        size_t n = (size_t)tree->leaf_count * (tree->vector ? m->groups : 1);
        float *floats;

        if (m->wide_sum) {
            f->leaves[t] = (void *)(uintptr_t)tree->values;
            continue;
        }
        floats = ARENA_ARRAY(&f->arena, float, n);
        for (size_t i = 0; floats && i < n; i++)
            floats[i] = (float)tree->values[i];
        f->leaves[t] = floats;
    }
    return f->arena.overflowed ? trees_no_memory(e) : 0;
}

/* Rows that ask the trees about their own thresholds, so that every branch is taken. */
static void rows_make(const struct trees_forest *f, void *rows, uint32_t n)
{
    const struct trees_model *m = f->m;
    struct rng rng;

    rng_seed(&rng, 1);
    for (size_t i = 0; i < (size_t)n * m->features; i++) {
        uint32_t t = (uint32_t)rng_below(&rng, m->tree_count);
        uint32_t nodes = m->trees[t].node_count;
        double v = nodes ? m->trees[t].nodes[rng_below(&rng, nodes)].threshold : 0;

        if (m->wide)
            ((double *)rows)[i] = v;
        else
            ((float *)rows)[i] = (float)v;
    }
}

static int64_t form_time(struct trees_forest *f, struct trees_scratch *s, const void *rows,
                         uint32_t n, bool bins, void *scores)
{
    int64_t best = INT64_MAX;

    f->bins_rows = bins ? 1 : UINT32_MAX;
    for (int turn = 0; turn < MEASURE_TURNS; turn++) {
        int64_t from = time_mono_ns();

        trees_forest_run(f, s, rows, n, scores, NULL);
        best = MIN(best, time_mono_ns() - from);
    }
    return best;
}

/* From how many rows on a vector of 32 of them is cheaper than to walk them one by one. */
static void form_measure(struct trees_forest *f)
{
    const struct trees_model *m = f->m;
    size_t width = m->wide ? sizeof(double) : sizeof(float);
    AUTO(trees_scratch_freep) struct trees_scratch *s = trees_scratch_new(f);
    AUTO(mem_freep) void *rows = mem_zalloc(width * BINS_ROWS * m->features);
    AUTO(mem_freep) void *scores = mem_zalloc(sizeof(double) * BINS_ROWS * m->outputs);
    int64_t walk_ns, bins_ns;

    rows_make(f, rows, BINS_ROWS);
    walk_ns = form_time(f, s, rows, WALK_LANES, false, scores);
    bins_ns = form_time(f, s, rows, BINS_ROWS, true, scores);
    if (walk_ns <= 0) /* the clock stands */
        f->bins_rows = BINS_ROWS / 2;
    else if (bins_ns >= walk_ns * (BINS_ROWS / WALK_LANES))
        f->bins_rows = UINT32_MAX;
    else
        f->bins_rows = (uint32_t)(bins_ns * WALK_LANES / walk_ns) + 1;
}

int trees_forest_make(const struct trees_model *m, enum trees_form form,
                      struct trees_forest **ret_forest, struct err *e)
{
    AUTO(trees_forest_freep) struct trees_forest *f = mem_zalloc(sizeof(*f));

    f->m = m;
    f->bins_rows = UINT32_MAX;
    f->prepares = m->wide || m->zero_missing;
    f->plain = m->sum == TREES_ADD || m->sum == TREES_AVERAGE;
    for (uint32_t t = 0; t < m->tree_count; t++)
        f->plain &= !m->trees[t].vector;
    f->in_nodes = f->plain && !m->wide_sum;
    arena_init(&f->arena, FOREST_BYTES_MAX);
    if (m->wide)
        TRY(ranks_make(f, e));
    TRY(leaves_make(f, e));
    TRY(walk_make(f, e));
    if (form != TREES_FORM_WALK && bins_make(f, e)) {
        if (form == TREES_FORM_BINS || e->code != CODE_FAILED_PRECONDITION)
            return err_nonzero((int)e->code);
    }
    if (form == TREES_FORM_BINS)
        f->bins_rows = 1;
    else if (f->bins)
        form_measure(f);
    *ret_forest = TAKE(f);
    return 0;
}

void trees_forest_free(struct trees_forest *f)
{
    if (!f)
        return;
    bins_free(f->bins);
    arena_done(&f->arena);
    mem_free(f);
}

uint32_t trees_forest_bins_rows(const struct trees_forest *f)
{
    return f->bins_rows;
}

struct trees_scratch *trees_scratch_new(const struct trees_forest *f)
{
    const struct trees_model *m = f->m;
    struct trees_scratch *s = mem_zalloc(sizeof(*s));

    if (f->prepares)
        s->rows = mem_zalloc_aligned(64, sizeof(float) * BLOCK_ROWS * m->features);
    s->sums = mem_zalloc_aligned(64, (m->wide_sum ? sizeof(double) : sizeof(float)) * BLOCK_ROWS *
                                         m->groups);
    s->answer = mem_zalloc(sizeof(double) * ((size_t)m->groups + m->outputs));
    if (!f->bins)
        return s;
    s->columns = mem_zalloc_aligned(64, (size_t)BLOCK_ROWS * MAX(f->bins->columns_max, 1u));
    s->file = mem_zalloc_aligned(64, (size_t)BINS_FILE_SLOTS * BINS_ROWS);
    s->found = mem_zalloc_aligned(64, BINS_ROWS);
    for (size_t i = 0; i < 256; i++)
        memset(s->file + i * BINS_ROWS, (int)i, BINS_ROWS);
    return s;
}

void trees_scratch_free(struct trees_scratch *s)
{
    if (!s)
        return;
    mem_free(s->rows);
    mem_free(s->sums);
    mem_free(s->answer);
    mem_free(s->columns);
    mem_free(s->file);
    mem_free(s->found);
    mem_free(s);
}

/* --- Running ---------------------------------------------------------------------------------- */

static const float *rows_prepare(const struct trees_forest *f, struct trees_scratch *s,
                                 const void *x, uint32_t n)
{
    const struct trees_model *m = f->m;

    for (uint32_t r = 0; r < n; r++)
        for (uint32_t i = 0; i < m->features; i++) {
            double v = forest_raw(m, x, r, i);
            float *to = &s->rows[(size_t)r * m->features + i];

            if (isnan(v) ||
                (m->zero_missing && m->zero_missing[i] && fabs(v) <= (double)TREES_ZERO_MAX))
                *to = NAN;
            else
                *to = f->ranks ? (float)rank_of(&f->ranks[i], v) : (float)v;
        }
    return s->rows;
}

/* For the kinds of sums that are no addition: the least or the largest leaf. */
static inline double combine(enum trees_sum sum, double so_far, double value)
{
    if (sum == TREES_MIN)
        return value < so_far ? value : so_far;
    return value > so_far ? value : so_far;
}

static void add_value(const struct trees_model *m, void *sums, size_t at, double value)
{
    if (m->sum == TREES_MIN || m->sum == TREES_MAX) {
        if (m->wide_sum)
            ((double *)sums)[at] = combine(m->sum, ((double *)sums)[at], value);
        else
            ((float *)sums)[at] = (float)combine(m->sum, (double)((float *)sums)[at], value);
    } else if (m->wide_sum) {
        ((double *)sums)[at] += value;
    } else {
        ((float *)sums)[at] += (float)value;
    }
}

void forest_add(const struct trees_forest *f, struct trees_scratch *s, uint32_t tree, uint32_t leaf,
                uint32_t row)
{
    const struct trees_model *m = f->m;
    const struct trees_tree *t = &m->trees[tree];
    uint32_t n = t->vector ? m->groups : 1;
    size_t at = (size_t)leaf * n;

    for (uint32_t i = 0; i < n; i++) {
        double value = m->wide_sum ? ((const double *)f->leaves[tree])[at + i]
                                   : (double)((const float *)f->leaves[tree])[at + i];

        add_value(m, s->sums, (size_t)(t->vector ? i : t->group) * BLOCK_ROWS + row, value);
    }
}

static void sums_begin(const struct trees_model *m, struct trees_scratch *s, uint32_t n)
{
    for (uint32_t g = 0; g < m->groups; g++) {
        double from = m->sum == TREES_MIN   ? INFINITY
                      : m->sum == TREES_MAX ? -INFINITY
                      : m->base_last        ? 0
                                            : m->base[g];

        for (uint32_t r = 0; r < n; r++)
            if (m->wide_sum)
                ((double *)s->sums)[(size_t)g * BLOCK_ROWS + r] = from;
            else
                ((float *)s->sums)[(size_t)g * BLOCK_ROWS + r] = (float)from;
    }
}

/* What comes behind the last leaf. */
static double sum_end(const struct trees_model *m, const void *sums, size_t at, double base)
{
    double v = m->wide_sum ? ((const double *)sums)[at] : (double)((const float *)sums)[at];

    if (m->sum == TREES_AVERAGE)
        v = m->wide_sum ? v / m->divisor : (double)((float)v / (float)m->divisor);
    else if (m->sum != TREES_ADD && isinf(v)) /* no leaf spoke of it */
        v = 0;
    if (m->base_last)
        v = m->wide_sum ? v + base : (double)((float)v + (float)base);
    return v;
}

static void rows_answer(const struct trees_model *m, struct trees_scratch *s, uint32_t first,
                        uint32_t n, void *scores, uint32_t *classes)
{
    double *sums = s->answer, *answer = s->answer + m->groups;

    for (uint32_t r = 0; r < n; r++) {
        size_t to = ((size_t)first + r) * m->outputs;
        uint32_t class;

        for (uint32_t g = 0; g < m->groups; g++)
            sums[g] = sum_end(m, s->sums, (size_t)g * BLOCK_ROWS + r, m->base[g]);
        class = trees_answer(m, sums, answer);
        if (classes)
            classes[first + r] = class;
        for (uint32_t i = 0; i < m->outputs; i++)
            if (m->wide_answer)
                ((double *)scores)[to + i] = answer[i];
            else
                ((float *)scores)[to + i] = (float)answer[i];
    }
}

void trees_forest_run(const struct trees_forest *f, struct trees_scratch *s, const void *x,
                      uint32_t rows, void *scores, uint32_t *classes)
{
    const struct trees_model *m = f->m;
    size_t row_bytes = (m->wide ? sizeof(double) : sizeof(float)) * m->features;

    for (uint32_t first = 0; first < rows; first += BLOCK_ROWS) {
        const void *raw = (const char *)x + row_bytes * first;
        uint32_t n = MIN(rows - first, (uint32_t)BLOCK_ROWS);
        const float *prepared = f->prepares ? rows_prepare(f, s, raw, n) : raw;

        sums_begin(m, s, n);
        if (n >= f->bins_rows)
            bins_run(f, s, prepared, raw, n);
        else
            walk_run(f, s, prepared, raw, n);
        rows_answer(m, s, first, n, scores, classes);
    }
}
