/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cells: a fixed, small partition of the values of one column, made once from reference data, and
 * the counts of what fell into each. Everything that watches data works on these counts: they are
 * mergeable (addition), tiny, and comparable over time because the partition never moves.
 *
 * The cells of a spec with `bins` bins are numbered
 *
 *     0 .. bins-1   numeric: half-open intervals [edge i-1, edge i) within [lo, hi];
 *                   categorical: one known category each, in ascending order of their keys
 *     bins          missing: NaN, null, absent
 *     bins + 1      outside: beyond [lo, hi] (infinities too), or a category that is not known
 *
 * A spec is immutable after it was made and may be read by any thread. Counting is the keeper's.
 */
#pragma once

#include "base/json.h"

#define CELLS_BINS_MAX 32
#define CELLS_MAX (CELLS_BINS_MAX + 2)
#define CELLS_NUMBER_MAX 1e150 /* larger magnitudes are treated like infinities */
#define CELLS_SAMPLE_MIN 2     /* finite reference values needed for a numeric fit */

enum cells_kind { CELLS_NUMERIC, CELLS_CATEGORICAL };

struct cells_spec {
    enum cells_kind kind;
    uint32_t bins;  /* 1..CELLS_BINS_MAX */
    double lo, hi;  /* numeric: the reference range, a little widened for float rounding */
    double centre;  /* reference mean: moments are kept about it, so that they do not cancel */
    double sd;      /* reference standard deviation; 0 for a constant or categorical column */
    uint64_t ref_n; /* reference values the spec was made from, missing ones included */
    bool lumpy;     /* numeric: few distinct values, or one value with much of the mass */
    union {
        double edges[CELLS_BINS_MAX];  /* bins-1 ascending edges, the rest +inf */
        uint64_t keys[CELLS_BINS_MAX]; /* ascending keys, the rest UINT64_MAX */
    };
    double mids[CELLS_BINS_MAX];    /* numeric: mean of the reference values of the bin */
    uint64_t ref_counts[CELLS_MAX]; /* the reference itself, for distances */
};

/* Counts and moments. Moments are about spec->centre and count finite numbers only. */
struct cells {
    uint64_t counts[CELLS_MAX];
    uint64_t n; /* finite numbers in sum and sumsq */
    double sum, sumsq;
};

static inline uint32_t cells_count(const struct cells_spec *s)
{
    return s->bins + 2;
}
static inline uint32_t cells_missing(const struct cells_spec *s)
{
    return s->bins;
}
static inline uint32_t cells_outside(const struct cells_spec *s)
{
    return s->bins + 1;
}

/* The key of a number in a categorical column: its bits, with -0 as 0. NaN has no key. A column
 * that is served as float32 must be fitted on values rounded to float32. */
static inline uint64_t cells_key_f64(double x)
{
    uint64_t bits;

    x += 0.0; /* -0 becomes +0 */
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}
/* The key of a text: what the gateway and the fit must both use. */
uint64_t cells_key_str(str text);

/* --- Finding the cell ------------------------------------------------------------------------ */

/* Number of edges <= x among 31 ascending ones: five compare-adds, no branch. */
static inline HOT uint32_t cells_edges_below(const double *edges, double x)
{
    uint32_t i = (uint32_t)(edges[15] <= x) << 4;

    i += (uint32_t)(edges[i + 7] <= x) << 3;
    i += (uint32_t)(edges[i + 3] <= x) << 2;
    i += (uint32_t)(edges[i + 1] <= x) << 1;
    i += (uint32_t)(edges[i] <= x);
    return i;
}

/* The cell of a categorical key. */
static inline HOT uint32_t cells_bin_hash(const struct cells_spec *s, uint64_t key)
{
    const uint64_t *k = s->keys;
    uint32_t i = (uint32_t)(k[15] < key) << 4;

    i += (uint32_t)(k[i + 7] < key) << 3;
    i += (uint32_t)(k[i + 3] < key) << 2;
    i += (uint32_t)(k[i + 1] < key) << 1;
    i += (uint32_t)(k[i] < key);
    return i < s->bins && k[i] == key ? i : s->bins + 1;
}

/* The cell of a number, in a column of either kind. */
static inline HOT uint32_t cells_bin_f64(const struct cells_spec *s, double x)
{
    uint32_t b;

    if (UNLIKELY(s->kind == CELLS_CATEGORICAL))
        return x != x ? s->bins : cells_bin_hash(s, cells_key_f64(x));
    b = cells_edges_below(s->edges, x);
    b = x < s->lo || x > s->hi ? s->bins + 1 : b;
    return x != x ? s->bins : b;
}
static inline HOT uint32_t cells_bin_f32(const struct cells_spec *s, float x)
{
    return cells_bin_f64(s, (double)x);
}

/* The cells of one row: x[i] in column specs[i]. */
void cells_bin_row_f32(const struct cells_spec *const *specs, const float *x, size_t n,
                       uint8_t *ret_cells);

/* --- Counting -------------------------------------------------------------------------------- */

static inline HOT void cells_fold_f64(const struct cells_spec *s, struct cells *c, double x)
{
    double d = x - s->centre;
    bool finite = d < CELLS_NUMBER_MAX && d > -CELLS_NUMBER_MAX; /* false for NaN too */

    c->counts[cells_bin_f64(s, x)]++;
    d = finite ? d : 0.0;
    c->n += finite;
    c->sum += d;
    c->sumsq += d * d;
}
static inline HOT void cells_fold_f32(const struct cells_spec *s, struct cells *c, float x)
{
    cells_fold_f64(s, c, (double)x);
}
/* A category by key; moments do not apply. */
static inline HOT void cells_fold_hash(const struct cells_spec *s, struct cells *c, uint64_t key)
{
    c->counts[cells_bin_hash(s, key)]++;
}
static inline void cells_fold_missing(const struct cells_spec *s, struct cells *c)
{
    c->counts[s->bins]++;
}

/* The same for CELLS_COLUMN_ROWS values of one column at once, several times as fast: the cells are
 * those of cells_fold_f32, the sums agree but for the order of addition. */
#define CELLS_COLUMN_ROWS 32
struct cells_f32 { /* a numeric spec as float32 values meet it; nothing for other kinds */
    uint32_t edge_count;
    float edges[CELLS_BINS_MAX];
    float lo, hi;
};
void cells_f32_of(const struct cells_spec *s, struct cells_f32 *ret);
void cells_fold_column_f32(const struct cells_spec *s, const struct cells_f32 *f, struct cells *c,
                           const float x[CELLS_COLUMN_ROWS]) HOT;

void cells_clear(struct cells *c);
void cells_merge(struct cells *into, const struct cells *from);       /* of the same spec */
uint64_t cells_total(const struct cells *c);                          /* rows: all cells together */
double cells_mean(const struct cells_spec *s, const struct cells *c); /* NaN when n is 0 */
double cells_variance(const struct cells *c);                         /* n-1; NaN below 2 */

/* --- Making a spec --------------------------------------------------------------------------- */

/*
 * From n reference values; NaN counts as missing, infinities as outside. At most max_bins bins
 * (0 = CELLS_BINS_MAX): one for each value when there are few enough distinct ones, else of about
 * equal counts. Edges lie half-way between neighbouring reference values, so that rounding to
 * float32 moves no value across one. Works on a sorted copy: O(n log n) time, 8n bytes.
 * INVALID_ARGUMENT with fewer than CELLS_SAMPLE_MIN finite values; RESOURCE_EXHAUSTED.
 */
NODISCARD int cells_spec_fit_numeric(const double *values, size_t n, uint32_t max_bins,
                                     struct cells_spec *ret_spec, struct err *e);

/*
 * From distinct keys and how often each occurred, and the count of missing values. The max_bins
 * most frequent keys (ties: the smaller key) become cells; the rest is "outside", which so is the
 * cell of rare and new categories. INVALID_ARGUMENT when there is no category or a key repeats.
 */
NODISCARD int cells_spec_fit_categorical(const uint64_t *keys, const uint64_t *counts, size_t n,
                                         uint64_t missing, uint32_t max_bins,
                                         struct cells_spec *ret_spec, struct err *e);
/* The same from n raw keys, one per row (sorted copy inside). */
NODISCARD int cells_spec_fit_keys(const uint64_t *keys, size_t n, uint64_t missing,
                                  uint32_t max_bins, struct cells_spec *ret_spec, struct err *e);

/* The counts of n values, all at once. */
void cells_fold_array(const struct cells_spec *s, struct cells *c, const double *values, size_t n);

/* As JSON, to travel in a plan. Reading checks every invariant: INVALID_ARGUMENT names the field.
 */
struct json *cells_spec_to_json(const struct cells_spec *s, struct arena *a);
NODISCARD int cells_spec_from_json(const struct json *node, struct cells_spec *ret_spec,
                                   struct err *e);
bool cells_spec_equal(const struct cells_spec *a, const struct cells_spec *b);
