/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Distances on cells. All are functions of two count vectors of a fixed partition, so they compare
 * over time, cost tens of operations, and can be computed from digests of any length. What is lost
 * against raw values is the difference inside a bin: KS and Wasserstein on cells are lower bounds
 * of those on values (for Wasserstein up to the spread of a bin), which is said in the header.
 *
 * Wasserstein with values beyond the reference range: they have no place among the bins, so the
 * difference of the means, which bounds it from below and is exact, takes over when it is larger.
 */
#include "stats/distance.h"

#include "stats/special.h"

#include <math.h>

#define KL_EPSILON 1e-9
#define CHI2_EXPECTED_MIN 5.0

static double total_of(const uint64_t *counts, size_t n)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; i++)
        sum += (double)counts[i];
    return sum;
}

double distance_psi(const uint64_t *a, const uint64_t *b, size_t n)
{
    double ta = total_of(a, n), tb = total_of(b, n), psi = 0.0;

    if (ta == 0.0 || tb == 0.0)
        return NAN;
    for (size_t i = 0; i < n; i++) {
        double p = ((double)a[i] + 0.5) / (ta + 0.5 * (double)n);
        double q = ((double)b[i] + 0.5) / (tb + 0.5 * (double)n);

        psi += (p - q) * log(p / q);
    }
    return psi;
}

double distance_psi_null(double rows_a, double rows_b, size_t cells, double alpha)
{
    if (!(rows_a > 0.0 && rows_b > 0.0) || cells < 2)
        return NAN;
    return (1.0 / rows_a + 1.0 / rows_b) * special_chi2_quantile(1.0 - alpha, (double)cells - 1.0);
}

double distance_kl(const uint64_t *a, const uint64_t *b, size_t n)
{
    double ta = total_of(a, n), tb = total_of(b, n), kl = 0.0;
    double norm = 1.0 + (double)n * KL_EPSILON;

    if (ta == 0.0 || tb == 0.0)
        return NAN;
    for (size_t i = 0; i < n; i++) {
        double p = ((double)a[i] / ta + KL_EPSILON) / norm;
        double q = ((double)b[i] / tb + KL_EPSILON) / norm;

        kl += p * log(p / q);
    }
    return kl;
}

double distance_js(const uint64_t *a, const uint64_t *b, size_t n)
{
    double ta = total_of(a, n), tb = total_of(b, n), js = 0.0;

    if (ta == 0.0 || tb == 0.0)
        return NAN;
    for (size_t i = 0; i < n; i++) {
        double p = (double)a[i] / ta, q = (double)b[i] / tb, m = 0.5 * (p + q);

        js += p > 0.0 ? 0.5 * p * log2(p / m) : 0.0;
        js += q > 0.0 ? 0.5 * q * log2(q / m) : 0.0;
    }
    return sqrt(CLAMP(js, 0.0, 1.0));
}

double distance_ks(const uint64_t *a, const uint64_t *b, size_t bins)
{
    double ta = total_of(a, bins), tb = total_of(b, bins), fa = 0.0, fb = 0.0, ks = 0.0;

    if (ta == 0.0 || tb == 0.0)
        return NAN;
    for (size_t i = 0; i < bins; i++) {
        fa += (double)a[i] / ta;
        fb += (double)b[i] / tb;
        ks = MAX(ks, fabs(fa - fb));
    }
    return MIN(ks, 1.0);
}

double distance_ks_p(double ks, double rows_a, double rows_b)
{
    double n = sqrt(rows_a * rows_b / (rows_a + rows_b));

    return special_kolmogorov_sf((n + 0.12 + 0.11 / n) * ks);
}

double distance_wasserstein(const uint64_t *a, const uint64_t *b, const double *mids, size_t bins,
                            double sd)
{
    double ta = total_of(a, bins), tb = total_of(b, bins), ahead = 0.0, sum = 0.0;

    if (ta == 0.0 || tb == 0.0 || !(sd > 0.0))
        return NAN;
    for (size_t i = 0; i + 1 < bins; i++) {
        ahead += (double)a[i] / ta - (double)b[i] / tb;
        sum += fabs(ahead) * (mids[i + 1] - mids[i]) / sd;
    }
    return sum;
}

struct chi2 distance_chi2(const uint64_t *a, const uint64_t *b, size_t n)
{
    double ta = total_of(a, n), tb = total_of(b, n), all = ta + tb;
    double pooled_a = 0.0, pooled_b = 0.0, smallest = INFINITY;
    size_t smallest_at = n, groups = 0;
    struct chi2 r = {.p = 1.0};

    if (ta == 0.0 || tb == 0.0)
        return (struct chi2){NAN, 0.0, NAN};
    for (size_t i = 0; i < n; i++) {
        double both = (double)a[i] + (double)b[i];

        if (both * MIN(ta, tb) / all < CHI2_EXPECTED_MIN) {
            pooled_a += (double)a[i];
            pooled_b += (double)b[i];
        } else if (both < smallest) {
            smallest = both;
            smallest_at = i;
        }
    }
    /* the pool itself may still be too rare to stand alone */
    if (pooled_a + pooled_b == 0.0 ||
        (pooled_a + pooled_b) * MIN(ta, tb) / all >= CHI2_EXPECTED_MIN)
        smallest_at = n;
    if (smallest_at < n) {
        pooled_a += (double)a[smallest_at];
        pooled_b += (double)b[smallest_at];
    }
    for (size_t i = 0; i <= n; i++) {
        double x = i < n ? (double)a[i] : pooled_a, y = i < n ? (double)b[i] : pooled_b, d;
        bool own = i < n && i != smallest_at && (x + y) * MIN(ta, tb) / all >= CHI2_EXPECTED_MIN;

        if (x + y == 0.0 || (i < n && !own))
            continue;
        d = x - (x + y) * ta / all;
        r.statistic += d * d * all / ((x + y) * ta) + d * d * all / ((x + y) * tb);
        groups++;
    }
    r.df = groups > 1 ? (double)groups - 1.0 : 0.0;
    if (r.df > 0.0)
        r.p = special_chi2_sf(r.statistic, r.df);
    else
        r.statistic = 0.0;
    return r;
}

static double share(const uint64_t *counts, uint32_t cell, uint64_t rows)
{
    return (double)counts[cell] / (double)rows;
}

void distance_of(const struct cells_spec *s, const struct cells *c, struct distance *ret)
{
    uint32_t n = cells_count(s), missing = cells_missing(s), outside = cells_outside(s);
    const uint64_t *a = c->counts, *b = s->ref_counts;
    struct distance d = {.rows = cells_total(c), .ref_rows = s->ref_n};

    d.psi = distance_psi(a, b, n);
    d.psi_null = distance_psi_null((double)d.rows, (double)d.ref_rows, n, 0.05);
    d.kl = distance_kl(a, b, n);
    d.js = distance_js(a, b, n);
    d.chi2 = distance_chi2(a, b, n);
    d.missing_delta = share(a, missing, d.rows) - share(b, missing, d.ref_rows);
    d.outside_delta = share(a, outside, d.rows) - share(b, outside, d.ref_rows);
    d.ks = d.ks_p = d.wasserstein = d.mean_delta_sd = d.variance_ratio = NAN;
    if (s->kind == CELLS_NUMERIC) {
        double in_a = (double)(d.rows - a[missing] - a[outside]);
        double in_b = (double)(d.ref_rows - b[missing] - b[outside]);

        d.ks = distance_ks(a, b, s->bins);
        d.ks_p = distance_ks_p(d.ks, in_a, in_b);
        d.mean_delta_sd = s->sd > 0 ? (cells_mean(s, c) - s->centre) / s->sd : NAN;
        d.variance_ratio = s->sd > 0 ? cells_variance(c) / (s->sd * s->sd) : NAN;
        d.wasserstein =
            fmax(distance_wasserstein(a, b, s->mids, s->bins, s->sd), fabs(d.mean_delta_sd));
    }
    *ret = d;
}

enum drift_severity drift_severity_of(double value, const struct drift_bands *bands)
{
    if (value >= bands->severe)
        return DRIFT_SEVERE;
    if (value >= bands->moderate)
        return DRIFT_MODERATE;
    return value >= bands->watch ? DRIFT_WATCH : DRIFT_OK;
}

const char *drift_severity_name(enum drift_severity s)
{
    static const char *const names[] = {"ok", "watch", "moderate", "severe"};

    return names[s];
}
