/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The form "bins", run with AVX2: a vector is one byte of each of 32 rows.
 *
 * Ranks. A value is compared with the last of each 16 thresholds, which tells the 16 it falls into,
 * then with those: two compares each, and the bits counted.
 *
 * Trees. At a complete tree all questions of a level are asked of all rows, and of the two answers
 * below a node the one that belongs to the node's own answer is kept, so that a level ends in one
 * bit per row; the bits make the number of the leaf. 2^depth compares of 32 rows are fewer than the
 * loads that 32 walks of that depth need, and none waits for another.
 *
 * Other processors have the walk; nothing here is compiled into a path they can reach.
 */
#include "serve/trees/forest.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#define AVX2 __attribute__((target("avx2,popcnt")))
#define INLINE_AVX2 static inline __attribute__((target("avx2,popcnt"), always_inline))

bool bins_possible_here(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
}

/* --- Ranks ------------------------------------------------------------------------------------ */

/* How many of 16 thresholds are less than v. */
INLINE_AVX2 uint32_t below_of_16(const float *thresholds, __m256 v)
{
    int low = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(thresholds), v, _CMP_LT_OQ));
    int high = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(thresholds + 8), v, _CMP_LT_OQ));

    return (uint32_t)_mm_popcnt_u32((uint32_t)low | (uint32_t)high << 8);
}

AVX2 static void column_fill(const struct bins_column *c, const float *x, size_t stride, uint32_t n,
                             uint8_t *to)
{
    x += c->feature;
    for (uint32_t r = 0; r < n; r++, x += stride) {
        __m256 v = _mm256_broadcast_ss(x);
        uint32_t block = c->count > 16 ? 16 * below_of_16(c->coarse, v) : 0;
        uint32_t rank = block + below_of_16(c->thresholds + block, v);

        to[r] = (uint8_t)((*x != *x ? c->missing : rank) ^ 0x80);
    }
}

static void set_fill(const struct trees_model *m, const struct bins_column *c, const void *raw,
                     uint32_t first, uint32_t n, uint8_t *to)
{
    const struct trees_set *set = &m->sets[c->set];

    for (uint32_t r = 0; r < n; r++) {
        double v = forest_raw(m, raw, first + r, c->feature);

        to[r] = (uint8_t)((isnan(v) ? c->missing : !trees_set_has(set, c->test, v)) ^ 0x80);
    }
}

/* --- Complete trees --------------------------------------------------------------------------- */

INLINE_AVX2 __m256i ask(const struct bins_node *n, const uint8_t *columns)
{
    return _mm256_cmpgt_epi8(
        _mm256_load_si256((const __m256i *)(const void *)(columns + n->column)),
        _mm256_set1_epi32(n->threshold));
}

/* below_K: the answers of the level K below node i, each row's own, given the answers `bits` of the
 * levels between. Spelled out, because a function cannot be inlined into itself. */
INLINE_AVX2 __m256i below_0(const struct bins_node *n, uint32_t i, const uint8_t *columns,
                            const __m256i *bits)
{
    (void)bits;
    return ask(n + i, columns);
}
#define BELOW(level, next)                                                                 \
    INLINE_AVX2 __m256i below_##level(const struct bins_node *n, uint32_t i,               \
                                      const uint8_t *columns, const __m256i *bits)         \
    {                                                                                      \
        return _mm256_blendv_epi8(below_##next(n, 2 * i + 1, columns, bits + 1),           \
                                  below_##next(n, 2 * i + 2, columns, bits + 1), bits[0]); \
    }
BELOW(1, 0)
BELOW(2, 1)
BELOW(3, 2)
BELOW(4, 3)
BELOW(5, 4)
BELOW(6, 5)
BELOW(7, 6)

/* complete_D: the leaf's number of each row, in a tree of depth D. */
#define LEVEL(level)                                  \
    bits[level] = below_##level(n, 0, columns, bits); \
    number = _mm256_sub_epi8(_mm256_add_epi8(number, number), bits[level]);
#define COMPLETE(depth, levels)                                                          \
    AVX2 static void complete_##depth(const struct bins_node *n, const uint8_t *columns, \
                                      uint8_t *to)                                       \
    {                                                                                    \
        __m256i bits[8], number = _mm256_setzero_si256();                                \
        levels;                                                                          \
        _mm256_store_si256((__m256i *)(void *)to, number);                               \
    }
COMPLETE(1, LEVEL(0))
COMPLETE(2, LEVEL(0) LEVEL(1))
COMPLETE(3, LEVEL(0) LEVEL(1) LEVEL(2))
COMPLETE(4, LEVEL(0) LEVEL(1) LEVEL(2) LEVEL(3))
COMPLETE(5, LEVEL(0) LEVEL(1) LEVEL(2) LEVEL(3) LEVEL(4))
COMPLETE(6, LEVEL(0) LEVEL(1) LEVEL(2) LEVEL(3) LEVEL(4) LEVEL(5))
COMPLETE(7, LEVEL(0) LEVEL(1) LEVEL(2) LEVEL(3) LEVEL(4) LEVEL(5) LEVEL(6))
COMPLETE(8, LEVEL(0) LEVEL(1) LEVEL(2) LEVEL(3) LEVEL(4) LEVEL(5) LEVEL(6) LEVEL(7))

static void (*const complete[BINS_DEPTH_MAX + 1])(const struct bins_node *n, const uint8_t *columns,
                                                  uint8_t *to) = {
    NULL,       complete_1, complete_2, complete_3, complete_4,
    complete_5, complete_6, complete_7, complete_8,
};

/* --- Other trees ------------------------------------------------------------------------------ */

AVX2 static void list_ask(const struct bins_tree *t, const uint8_t *columns, uint8_t *file,
                          uint8_t *to)
{
    __m256i *slots = (__m256i *)(void *)file;

    for (const struct bins_op *op = t->ops, *end = op + t->count; op < end; op++) {
        __m256i bytes = _mm256_load_si256((const __m256i *)(const void *)(columns + op->column));
        __m256i answer = _mm256_cmpgt_epi8(bytes, _mm256_set1_epi32(op->threshold));

        slots[op->dst] = _mm256_blendv_epi8(slots[op->left], slots[op->right], answer);
    }
    _mm256_store_si256((__m256i *)(void *)to, slots[t->result]);
}

/* --- Sums ------------------------------------------------------------------------------------- */

AVX2 static void add_f32(const float *leaves, const uint8_t *found, float *sums)
{
    for (uint32_t r = 0; r < BINS_ROWS; r += 8) {
        __m256i at =
            _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(found + r)));

        _mm256_store_ps(
            sums + r, _mm256_add_ps(_mm256_load_ps(sums + r), _mm256_i32gather_ps(leaves, at, 4)));
    }
}

AVX2 static void add_f64(const double *leaves, const uint8_t *found, double *sums)
{
    for (uint32_t r = 0; r < BINS_ROWS; r++)
        sums[r] += leaves[found[r]];
}

static void tree_add(const struct trees_forest *f, struct trees_scratch *s,
                     const struct bins_tree *t, uint32_t first, uint32_t n)
{
    const struct trees_model *m = f->m;
    size_t at = (size_t)m->trees[t->tree].group * BLOCK_ROWS + first;

    if (!t->leaves)
        for (uint32_t r = 0; r < n; r++)
            forest_add(f, s, t->tree, t->leaf_of[s->found[r]], first + r);
    else if (m->wide_sum)
        add_f64(t->leaves, s->found, (double *)s->sums + at);
    else
        add_f32(t->leaves, s->found, (float *)s->sums + at);
}

void bins_run(const struct trees_forest *f, struct trees_scratch *s, const float *rows,
              const void *raw, uint32_t n)
{
    const struct bins *b = f->bins;

    for (uint32_t c = 0; c < b->chunk_count; c++) {
        const struct bins_chunk *chunk = &b->chunks[c];
        size_t group_bytes = (size_t)chunk->column_count * BINS_ROWS;

        for (uint32_t first = 0; first < n; first += BINS_ROWS)
            for (uint32_t i = 0; i < chunk->column_count; i++) {
                const struct bins_column *column = &chunk->columns[i];
                uint8_t *to =
                    s->columns + (first / BINS_ROWS) * group_bytes + (size_t)i * BINS_ROWS;
                uint32_t left = MIN(n - first, (uint32_t)BINS_ROWS);

                if (column->test == TREES_LE)
                    column_fill(column, rows + (size_t)first * f->m->features, f->m->features, left,
                                to);
                else
                    set_fill(f->m, column, raw, first, left, to);
            }
        for (uint32_t i = 0; i < chunk->tree_count; i++) {
            const struct bins_tree *t = &chunk->trees[i];

            for (uint32_t first = 0; first < n; first += BINS_ROWS) {
                const uint8_t *columns = s->columns + (first / BINS_ROWS) * group_bytes;

                if (t->depth)
                    complete[t->depth](t->nodes, columns, s->found);
                else
                    list_ask(t, columns, s->file, s->found);
                tree_add(f, s, t, first, MIN(n - first, (uint32_t)BINS_ROWS));
            }
        }
    }
}

#else

bool bins_possible_here(void)
{
    return false;
}

void bins_run(const struct trees_forest *f, struct trees_scratch *s, const float *rows,
              const void *raw, uint32_t n)
{
    (void)f, (void)s, (void)rows, (void)raw, (void)n;
}
#endif
