/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fitting, counting and carrying of reference cells.
 *
 * Where the edges go. A column with at most max_bins distinct values gets one bin for each: counts
 * are then the exact distribution. Else the k/K quantiles of the reference are taken, each moved to
 * the next gap between distinct values, so that a heavy value (the zeros of a zero-inflated column)
 * lies whole in one bin and quantiles that fall into it are merged. Edges stand in the middle of
 * gaps: a value that is rounded to float32 on its way through a model stays in its bin, unless the
 * gap itself is below float precision.
 *
 * Invariants of a spec: edges strictly ascending and within [lo, hi]; keys strictly ascending; a
 * key of UINT64_MAX is refused, because it pads the search.
 *
 * Not here: what counts mean (distance.c, edetector.c), and the texts of categories, which the
 * caller keeps beside their keys.
 */
#include "stats/cells.h"

#include "base/hash.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

#define KEY_SEED UINT64_C(0x77656972) /* part of the stored format: never change it */
#define COUNT_MAX (INT64_C(1) << 53)

uint64_t cells_key_str(str text)
{
    uint64_t h = hash_str(text, KEY_SEED);

    return h == UINT64_MAX ? 0 : h;
}

void cells_bin_row_f32(const struct cells_spec *const *specs, const float *x, size_t n,
                       uint8_t *ret_cells)
{
    for (size_t i = 0; i < n; i++)
        ret_cells[i] = (uint8_t)cells_bin_f32(specs[i], x[i]);
}

void cells_fold_array(const struct cells_spec *s, struct cells *c, const double *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        cells_fold_f64(s, c, values[i]);
}

void cells_clear(struct cells *c)
{
    memset(c, 0, sizeof(*c));
}

void cells_merge(struct cells *into, const struct cells *from)
{
    for (size_t i = 0; i < CELLS_MAX; i++)
        into->counts[i] += from->counts[i];
    into->n += from->n;
    into->sum += from->sum;
    into->sumsq += from->sumsq;
}

uint64_t cells_total(const struct cells *c)
{
    uint64_t total = 0;

    for (size_t i = 0; i < CELLS_MAX; i++)
        total += c->counts[i];
    return total;
}

double cells_mean(const struct cells_spec *s, const struct cells *c)
{
    return c->n ? s->centre + c->sum / (double)c->n : NAN;
}

double cells_variance(const struct cells *c)
{
    double n = (double)c->n;

    return c->n < 2 ? NAN : MAX(0.0, (c->sumsq - c->sum * c->sum / n) / (n - 1.0));
}

/* --- Fitting a numeric column ----------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Half-way between two neighbours a < b, and above a whatever the rounding. */
static double between(double a, double b)
{
    double mid = 0.5 * a + 0.5 * b;

    return mid > a ? mid : b;
}

/* Counts distinct values, up to limit + 1, and the length of the longest run of equal ones. */
static size_t distinct_of(const double *sorted, size_t n, size_t limit, size_t *ret_longest)
{
    size_t distinct = 0, run = 0, longest = 0;

    for (size_t i = 0; i < n; i++) {
        if (i == 0 || sorted[i] > sorted[i - 1]) {
            distinct += distinct <= limit;
            run = 0;
        }
        run++;
        longest = MAX(longest, run);
    }
    *ret_longest = longest;
    return distinct;
}

static void edges_one_each(struct cells_spec *s, const double *sorted, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (sorted[i] > sorted[i - 1])
            s->edges[s->bins++ - 1] = between(sorted[i - 1], sorted[i]);
}

static void edges_by_quantile(struct cells_spec *s, const double *sorted, size_t n, uint32_t bins)
{
    size_t at = 0;

    for (uint32_t k = 1; k < bins; k++) {
        size_t i = (size_t)((double)n * k / bins);

        if (i <= at)
            continue; /* swallowed by a heavy value */
        /* the nearest gap at or after the quantile */
        while (i < n && sorted[i] <= sorted[i - 1])
            i++;
        if (i >= n)
            break;
        s->edges[s->bins++ - 1] = between(sorted[i - 1], sorted[i]);
        at = i;
    }
}

/* Moments in two passes, and the mean of each bin. */
static void describe(struct cells_spec *s, const double *sorted, size_t n)
{
    double sums[CELLS_BINS_MAX] = {0}, mean = 0.0, squares = 0.0;

    for (size_t i = 0; i < n; i++)
        mean += (sorted[i] - mean) / (double)(i + 1);
    for (size_t i = 0; i < n; i++) {
        uint32_t b = cells_edges_below(s->edges, sorted[i]);

        squares += (sorted[i] - mean) * (sorted[i] - mean);
        sums[b] += sorted[i] - mean;
        s->ref_counts[b]++;
    }
    s->centre = mean;
    s->sd = n > 1 && sorted[n - 1] > sorted[0] ? sqrt(squares / (double)(n - 1)) : 0.0;
    for (uint32_t b = 0; b < s->bins; b++)
        s->mids[b] = mean + (s->ref_counts[b] ? sums[b] / (double)s->ref_counts[b] : 0.0);
}

static void spec_start(struct cells_spec *s, enum cells_kind kind)
{
    memset(s, 0, sizeof(*s));
    s->kind = kind;
    s->bins = 1;
    for (size_t i = 0; i < CELLS_BINS_MAX; i++) {
        if (kind == CELLS_NUMERIC)
            s->edges[i] = INFINITY;
        else
            s->keys[i] = UINT64_MAX;
    }
}

int cells_spec_fit_numeric(const double *values, size_t n, uint32_t max_bins,
                           struct cells_spec *ret_spec, struct err *e)
{
    AUTO(mem_freep) double *sorted = NULL;
    struct cells_spec s;
    size_t m = 0, missing = 0, longest, distinct;
    double pad;

    if (max_bins == 0)
        max_bins = CELLS_BINS_MAX;
    if (max_bins > CELLS_BINS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "a column may have %d bins, %u were asked for",
                    CELLS_BINS_MAX, max_bins);
    sorted = mem_try_alloc(MAX(n, 1) * sizeof(*sorted));
    if (!sorted)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory to sort %zu reference values", n);
    for (size_t i = 0; i < n; i++) {
        missing += values[i] != values[i];
        if (fabs(values[i]) < CELLS_NUMBER_MAX)
            sorted[m++] = values[i];
    }
    if (m < CELLS_SAMPLE_MIN)
        return FAIL(e, INVALID_ARGUMENT,
                    "%zu of %zu reference values are finite numbers, at least %d are needed", m, n,
                    CELLS_SAMPLE_MIN);
    qsort(sorted, m, sizeof(*sorted), by_value);
    spec_start(&s, CELLS_NUMERIC);
    distinct = distinct_of(sorted, m, max_bins, &longest);
    if (distinct <= max_bins)
        edges_one_each(&s, sorted, m);
    else
        edges_by_quantile(&s, sorted, m, max_bins);
    describe(&s, sorted, m);
    s.lumpy = distinct <= max_bins || longest * 8 >= m;
    pad = 0x1p-20 * MAX(fabs(sorted[0]), fabs(sorted[m - 1]));
    s.lo = sorted[0] - pad;
    s.hi = sorted[m - 1] + pad;
    s.ref_n = n;
    s.ref_counts[cells_missing(&s)] = missing;
    s.ref_counts[cells_outside(&s)] = n - m - missing;
    *ret_spec = s;
    return 0;
}

/* --- Fitting a categorical column ------------------------------------------------------------- */

struct tally {
    uint64_t key, count;
};

static int by_count(const void *a, const void *b)
{
    const struct tally *x = a, *y = b;

    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return (x->key > y->key) - (x->key < y->key);
}

static int by_key(const void *a, const void *b)
{
    const struct tally *x = a, *y = b;

    return (x->key > y->key) - (x->key < y->key);
}

/* Keeps the most frequent of n tallies (distinct keys). Reorders them. */
static int fit_tallies(struct tally *t, size_t n, uint64_t missing, uint32_t max_bins,
                       struct cells_spec *ret_spec, struct err *e)
{
    struct cells_spec s;
    uint64_t total = missing, kept = missing;

    if (max_bins == 0)
        max_bins = CELLS_BINS_MAX;
    if (max_bins > CELLS_BINS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "a column may have %d bins, %u were asked for",
                    CELLS_BINS_MAX, max_bins);
    if (n == 0)
        return FAIL(e, INVALID_ARGUMENT, "the reference column holds no category");
    for (size_t i = 0; i < n; i++)
        total += t[i].count;
    qsort(t, n, sizeof(*t), by_count);
    spec_start(&s, CELLS_CATEGORICAL);
    s.bins = (uint32_t)MIN(n, max_bins);
    qsort(t, s.bins, sizeof(*t), by_key);
    for (uint32_t b = 0; b < s.bins; b++) {
        if (t[b].key == UINT64_MAX)
            return FAIL(e, INVALID_ARGUMENT, "the key 2^64-1 is reserved");
        s.keys[b] = t[b].key;
        s.ref_counts[b] = t[b].count;
        kept += t[b].count;
    }
    s.ref_counts[cells_missing(&s)] = missing;
    s.ref_counts[cells_outside(&s)] = total - kept;
    s.ref_n = total;
    *ret_spec = s;
    return 0;
}

int cells_spec_fit_categorical(const uint64_t *keys, const uint64_t *counts, size_t n,
                               uint64_t missing, uint32_t max_bins, struct cells_spec *ret_spec,
                               struct err *e)
{
    AUTO(mem_freep) struct tally *t = mem_try_alloc(MAX(n, 1) * sizeof(*t));

    if (!t)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for %zu categories", n);
    for (size_t i = 0; i < n; i++)
        t[i] = (struct tally){keys[i], counts[i]};
    qsort(t, n, sizeof(*t), by_key);
    for (size_t i = 1; i < n; i++)
        if (t[i].key == t[i - 1].key)
            return FAIL(e, INVALID_ARGUMENT, "category key %016llx is given twice",
                        (unsigned long long)t[i].key);
    return fit_tallies(t, n, missing, max_bins, ret_spec, e);
}

int cells_spec_fit_keys(const uint64_t *keys, size_t n, uint64_t missing, uint32_t max_bins,
                        struct cells_spec *ret_spec, struct err *e)
{
    AUTO(mem_freep) struct tally *t = mem_try_alloc(MAX(n, 1) * sizeof(*t));
    size_t m = 0;

    if (!t)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory to sort %zu reference values", n);
    for (size_t i = 0; i < n; i++)
        t[i] = (struct tally){keys[i], 1};
    qsort(t, n, sizeof(*t), by_key);
    for (size_t i = 0; i < n; i++) {
        if (m && t[m - 1].key == t[i].key)
            t[m - 1].count++;
        else
            t[m++] = t[i];
    }
    return fit_tallies(t, m, missing, max_bins, ret_spec, e);
}

/* --- JSON ------------------------------------------------------------------------------------- */

static str key_text(struct arena *a, uint64_t key)
{
    return arena_printf(a, "%016llx", (unsigned long long)key);
}

struct json *cells_spec_to_json(const struct cells_spec *s, struct arena *a)
{
    bool numeric = s->kind == CELLS_NUMERIC;
    struct json *o = json_new_object(a), *counts = json_new_array(a);

    json_set_str(a, o, S("kind"), numeric ? S("numeric") : S("categorical"));
    if (numeric) {
        struct json *edges = json_set(o, S("edges"), json_new_array(a));
        struct json *mids = json_set(o, S("mids"), json_new_array(a));

        for (uint32_t b = 0; b + 1 < s->bins; b++)
            json_push(edges, json_new_real(a, s->edges[b]));
        for (uint32_t b = 0; b < s->bins; b++)
            json_push(mids, json_new_real(a, s->mids[b]));
        json_set_real(a, o, S("lo"), s->lo);
        json_set_real(a, o, S("hi"), s->hi);
        json_set_real(a, o, S("mean"), s->centre);
        json_set_real(a, o, S("sd"), s->sd);
        json_set_bool(a, o, S("lumpy"), s->lumpy);
    } else {
        struct json *keys = json_set(o, S("keys"), json_new_array(a));

        for (uint32_t b = 0; b < s->bins; b++)
            json_push(keys, json_new_str(a, key_text(a, s->keys[b])));
    }
    for (uint32_t b = 0; b < cells_count(s); b++)
        json_push(counts, json_new_int(a, (int64_t)s->ref_counts[b]));
    json_set(o, S("counts"), counts);
    return o;
}

static int read_reals(const struct json *node, str field, size_t max, double *ret, size_t *ret_n,
                      struct err *e)
{
    struct json *array;
    size_t n = 0;

    TRY(json_need_array(node, field, &array, e));
    if (array->count > max)
        return FAIL(e, INVALID_ARGUMENT, "cells." STR_F " has %zu entries, at most %zu are allowed",
                    STR_A(field), array->count, max);
    JSON_EACH (v, array) {
        double x = json_real_or(v, NAN);

        if (!isfinite(x))
            return FAIL(e, INVALID_ARGUMENT, "cells." STR_F "[%zu] is not a number", STR_A(field),
                        n);
        ret[n++] = x;
    }
    *ret_n = n;
    return 0;
}

static int read_numeric(const struct json *node, struct cells_spec *s, struct err *e)
{
    size_t edges, mids;

    TRY(read_reals(node, S("edges"), CELLS_BINS_MAX - 1, s->edges, &edges, e));
    TRY(read_reals(node, S("mids"), CELLS_BINS_MAX, s->mids, &mids, e));
    TRY(json_need_real(node, S("lo"), &s->lo, e));
    TRY(json_need_real(node, S("hi"), &s->hi, e));
    TRY(json_need_real(node, S("mean"), &s->centre, e));
    TRY(json_need_real(node, S("sd"), &s->sd, e));
    s->lumpy = json_bool_or(json_get(node, S("lumpy")), false);
    s->bins = (uint32_t)edges + 1;
    if (mids != s->bins)
        return FAIL(e, INVALID_ARGUMENT, "cells.mids has %zu entries, one per bin (%u) is expected",
                    mids, s->bins);
    if (!(isfinite(s->lo) && isfinite(s->hi) && s->lo <= s->hi))
        return FAIL(e, INVALID_ARGUMENT, "cells.lo must not exceed cells.hi");
    if (!(isfinite(s->centre) && isfinite(s->sd) && s->sd >= 0))
        return FAIL(e, INVALID_ARGUMENT, "cells.mean and cells.sd must be finite, sd not negative");
    for (size_t i = 0; i < edges; i++) {
        if (!(s->edges[i] >= s->lo && s->edges[i] <= s->hi))
            return FAIL(e, INVALID_ARGUMENT, "cells.edges[%zu] is not within [lo, hi]", i);
        if (i && !(s->edges[i] > s->edges[i - 1]))
            return FAIL(e, INVALID_ARGUMENT, "cells.edges[%zu] does not ascend", i);
    }
    return 0;
}

static int read_categorical(const struct json *node, struct cells_spec *s, struct err *e)
{
    struct json *keys;
    size_t n = 0;

    TRY(json_need_array(node, S("keys"), &keys, e));
    if (keys->count < 1 || keys->count > CELLS_BINS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "cells.keys has %zu entries, 1 to %d are expected",
                    keys->count, CELLS_BINS_MAX);
    JSON_EACH (v, keys) {
        unsigned char raw[8];
        uint64_t key = 0;

        if (v->type != JSON_STR || v->string.n != 16 || !hex_decode(v->string, raw, sizeof(raw)))
            return FAIL(e, INVALID_ARGUMENT, "cells.keys[%zu] is not 16 hexadecimal digits", n);
        for (size_t i = 0; i < sizeof(raw); i++)
            key = key << 8 | raw[i];
        if (key == UINT64_MAX || (n && key <= s->keys[n - 1]))
            return FAIL(e, INVALID_ARGUMENT, "cells.keys[%zu] does not ascend", n);
        s->keys[n++] = key;
    }
    s->bins = (uint32_t)n;
    return 0;
}

int cells_spec_from_json(const struct json *node, struct cells_spec *ret_spec, struct err *e)
{
    struct cells_spec s;
    struct json *counts;
    str kind;
    size_t n = 0;

    TRY(json_need_str(node, S("kind"), &kind, e));
    if (str_eqz(kind, "numeric")) {
        spec_start(&s, CELLS_NUMERIC);
        TRY(read_numeric(node, &s, e));
    } else if (str_eqz(kind, "categorical")) {
        spec_start(&s, CELLS_CATEGORICAL);
        TRY(read_categorical(node, &s, e));
    } else {
        return FAIL(e, INVALID_ARGUMENT,
                    "cells.kind is '" STR_F "', expected numeric or categorical", STR_A(kind));
    }
    TRY(json_need_array(node, S("counts"), &counts, e));
    if (counts->count != cells_count(&s))
        return FAIL(e, INVALID_ARGUMENT,
                    "cells.counts has %zu entries, one per cell (%u) is expected", counts->count,
                    cells_count(&s));
    JSON_EACH (v, counts) {
        int64_t k = json_int_or(v, -1);

        if (v->type != JSON_INT || k < 0 || k > COUNT_MAX)
            return FAIL(e, INVALID_ARGUMENT, "cells.counts[%zu] is not a count", n);
        s.ref_counts[n++] = (uint64_t)k;
        s.ref_n += (uint64_t)k;
    }
    *ret_spec = s;
    return 0;
}

bool cells_spec_equal(const struct cells_spec *a, const struct cells_spec *b)
{
    return a->kind == b->kind && a->bins == b->bins && a->lumpy == b->lumpy && a->lo == b->lo &&
           a->hi == b->hi && a->centre == b->centre && a->sd == b->sd && a->ref_n == b->ref_n &&
           memcmp(a->keys, b->keys, sizeof(a->keys)) == 0 &&
           /* A fit gives the same bits: NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
           memcmp(a->mids, b->mids, sizeof(a->mids)) == 0 &&
           memcmp(a->ref_counts, b->ref_counts, sizeof(a->ref_counts)) == 0;
}
