/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting a column at a time.
 *
 * Searching the cell of one value is a chain of dependent compares. For many values of one column
 * it is cheaper to hold each edge against all of them: the cell is the number of edges that are not
 * above the value, and counting those needs neither a branch nor a gather. Compilers turn the loops
 * below into vector code; the body is compiled twice, for every x86-64 and for AVX2.
 *
 * float32 suffices for exactly the same cells: `edge <= x` for a float x holds just when the least
 * float that is not below the edge is <= x (cells_f32_of).
 *
 * Moments are added in four lanes, so their sums may differ from those of cells_fold_f64 in the
 * last digits; counts do not.
 */
#include "stats/cells.h"

#include <math.h>

static float float_not_below(double x)
{
    float f = (float)x;

    return (double)f < x ? nextafterf(f, INFINITY) : f;
}

static float float_not_above(double x)
{
    float f = (float)x;

    return (double)f > x ? nextafterf(f, -INFINITY) : f;
}

void cells_f32_of(const struct cells_spec *s, struct cells_f32 *ret)
{
    *ret = (struct cells_f32){.lo = -INFINITY, .hi = INFINITY};
    if (s->kind != CELLS_NUMERIC)
        return;
    ret->edge_count = s->bins - 1;
    for (uint32_t b = 0; b < ret->edge_count; b++)
        ret->edges[b] = float_not_below(s->edges[b]);
    ret->lo = float_not_below(s->lo);
    ret->hi = float_not_above(s->hi);
}

static inline __attribute__((always_inline)) void find(const struct cells_f32 *f, uint32_t bins,
                                                       const float *x, int32_t *ret_cells)
{
    for (int i = 0; i < CELLS_COLUMN_ROWS; i++)
        ret_cells[i] = 0;
    for (uint32_t b = 0; b < f->edge_count; b++) {
        const float edge = f->edges[b];

        for (int i = 0; i < CELLS_COLUMN_ROWS; i++)
            ret_cells[i] += edge <= x[i];
    }
    for (int i = 0; i < CELLS_COLUMN_ROWS; i++) {
        int32_t cell = ((x[i] < f->lo) | (x[i] > f->hi)) ? (int32_t)bins + 1 : ret_cells[i];

        ret_cells[i] = x[i] != x[i] ? (int32_t)bins : cell;
    }
}

static inline __attribute__((always_inline)) void moments(struct cells *c, double centre,
                                                          const float *x)
{
    double sum[4] = {0}, squares[4] = {0};
    int64_t n[4] = {0};

    for (int i = 0; i < CELLS_COLUMN_ROWS; i += 4)
        for (int k = 0; k < 4; k++) {
            double d = (double)x[i + k] - centre;
            bool finite = d < CELLS_NUMBER_MAX && d > -CELLS_NUMBER_MAX;

            d = finite ? d : 0.0;
            n[k] += finite;
            sum[k] += d;
            squares[k] += d * d;
        }
    c->n += (uint64_t)(n[0] + n[1] + n[2] + n[3]);
    c->sum += sum[0] + sum[1] + (sum[2] + sum[3]);
    c->sumsq += squares[0] + squares[1] + (squares[2] + squares[3]);
}

static inline __attribute__((always_inline)) void fold(const struct cells_spec *s,
                                                       const struct cells_f32 *f, struct cells *c,
                                                       const float *x)
{
    int32_t cells[CELLS_COLUMN_ROWS];

    find(f, s->bins, x, cells);
    moments(c, s->centre, x);
    for (int i = 0; i < CELLS_COLUMN_ROWS; i++)
        c->counts[cells[i]]++;
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static void fold_avx2(const struct cells_spec *s,
                                                      const struct cells_f32 *f, struct cells *c,
                                                      const float *x)
{
    fold(s, f, c, x);
}
#endif

void cells_fold_column_f32(const struct cells_spec *s, const struct cells_f32 *f, struct cells *c,
                           const float x[CELLS_COLUMN_ROWS])
{
    if (s->kind != CELLS_NUMERIC) {
        for (int i = 0; i < CELLS_COLUMN_ROWS; i++)
            cells_fold_f32(s, c, x[i]);
        return;
    }
#ifdef __x86_64__
    if (LIKELY(__builtin_cpu_supports("avx2"))) {
        fold_avx2(s, f, c, x);
        return;
    }
#endif
    fold(s, f, c, x);
}
