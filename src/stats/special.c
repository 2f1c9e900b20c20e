/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The incomplete gamma and beta functions are evaluated the classical way: a power series on the
 * side of the mean where it converges fast, a continued fraction (modified Lentz) on the other
 * (Abramowitz and Stegun 6.5.29, 6.5.31, 26.5.8). The normal quantile starts from a rational
 * approximation (Acklam's, relative error 1.2e-9) and takes one Halley step on erfc, which gives
 * nearly all the bits of a double. Other quantiles are found by bisection on the function itself:
 * they are used at fit time, where sureness is worth more than speed.
 *
 * Not here: anything with a state, and densities that one caller alone needs.
 */
#include "stats/special.h"

#include <float.h>
#include <math.h>

#define ITERATIONS_MAX 100000
#define TINY 1e-300

double special_normal_cdf(double x)
{
    return 0.5 * erfc(-x * M_SQRT1_2);
}

double special_normal_sf(double x)
{
    return 0.5 * erfc(x * M_SQRT1_2);
}

/* The start of the quantile; p in (0, 0.5]. */
static double normal_quantile_start(double p)
{
    static const double a[] = {-3.969683028665376e+01, 2.209460984245205e+02,
                               -2.759285104469687e+02, 1.383577518672690e+02,
                               -3.066479806614716e+01, 2.506628277459239e+00};
    static const double b[] = {-5.447609879822406e+01, 1.615858368580409e+02,
                               -1.556989798598866e+02, 6.680131188771972e+01,
                               -1.328068155288572e+01};
    static const double c[] = {-7.784894002430293e-03, -3.223964580411365e-01,
                               -2.400758277161838e+00, -2.549732539343734e+00,
                               4.374664141464968e+00,  2.938163982698783e+00};
    static const double d[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                               3.754408661907416e+00};
    double q, r;

    if (p < 0.02425) {
        q = sqrt(-2.0 * log(p));
        return (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) /
               ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1.0);
    }
    q = p - 0.5;
    r = q * q;
    return (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q /
           (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1.0);
}

double special_normal_quantile(double p)
{
    double x, u;

    if (!(p >= 0.0 && p <= 1.0))
        return NAN;
    if (p == 0.0 || p == 1.0)
        return p == 0.0 ? -INFINITY : INFINITY;
    if (p > 0.5)
        return -special_normal_quantile(1.0 - p);
    x = normal_quantile_start(p);
    u = (special_normal_cdf(x) - p) * sqrt(2.0 * M_PI) * exp(0.5 * x * x);
    return x - u / (1.0 + 0.5 * x * u);
}

static double gamma_series(double a, double x)
{
    double term = 1.0 / a, sum = term;

    for (int i = 1; i < ITERATIONS_MAX && fabs(term) > fabs(sum) * DBL_EPSILON * 0.25; i++) {
        term *= x / (a + i);
        sum += term;
    }
    return sum * exp(-x + a * log(x) - lgamma(a));
}

static double gamma_fraction(double a, double x)
{
    double b = x + 1.0 - a, c = 1.0 / TINY, d = 1.0 / b, h = d;

    for (int i = 1; i < ITERATIONS_MAX; i++) {
        double an = -i * (i - a), step;

        b += 2.0;
        d = an * d + b;
        d = 1.0 / (fabs(d) < TINY ? TINY : d);
        c = b + an / c;
        c = fabs(c) < TINY ? TINY : c;
        step = d * c;
        h *= step;
        if (fabs(step - 1.0) < DBL_EPSILON)
            break;
    }
    return h * exp(-x + a * log(x) - lgamma(a));
}

double special_gamma_p(double a, double x)
{
    if (!(a > 0.0 && x >= 0.0))
        return NAN;
    if (x == 0.0)
        return 0.0;
    if (isinf(x))
        return 1.0;
    return x < a + 1.0 ? gamma_series(a, x) : 1.0 - gamma_fraction(a, x);
}

double special_gamma_q(double a, double x)
{
    if (!(a > 0.0 && x >= 0.0))
        return NAN;
    if (x == 0.0)
        return 1.0;
    if (isinf(x))
        return 0.0;
    return x < a + 1.0 ? 1.0 - gamma_series(a, x) : gamma_fraction(a, x);
}

double special_chi2_sf(double x, double df)
{
    return x <= 0.0 && df > 0.0 ? 1.0 : special_gamma_q(0.5 * df, 0.5 * x);
}

double special_chi2_quantile(double p, double df)
{
    double lo = 0.0, hi = df + 10.0;

    if (!(p >= 0.0 && p < 1.0 && df > 0.0))
        return NAN;
    while (special_gamma_p(0.5 * df, 0.5 * hi) < p && hi < 1e300)
        hi *= 2.0;
    for (int i = 0; i < 200 && hi - lo > 1e-15 * hi; i++) {
        double mid = 0.5 * (lo + hi);

        if (special_gamma_p(0.5 * df, 0.5 * mid) < p)
            lo = mid;
        else
            hi = mid;
    }
    return 0.5 * (lo + hi);
}

/* The continued fraction of the incomplete beta function, good for x below the mean. */
static double beta_fraction(double a, double b, double x)
{
    double c = 1.0, d = 1.0 - (a + b) * x / (a + 1.0), h;

    d = 1.0 / (fabs(d) < TINY ? TINY : d);
    h = d;
    for (int m = 1; m < ITERATIONS_MAX; m++) {
        double even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        double step;

        d = 1.0 + even * d;
        d = 1.0 / (fabs(d) < TINY ? TINY : d);
        c = 1.0 + even / c;
        c = fabs(c) < TINY ? TINY : c;
        h *= d * c;
        d = 1.0 + odd * d;
        d = 1.0 / (fabs(d) < TINY ? TINY : d);
        c = 1.0 + odd / c;
        c = fabs(c) < TINY ? TINY : c;
        step = d * c;
        h *= step;
        if (fabs(step - 1.0) < DBL_EPSILON)
            break;
    }
    return h;
}

double special_beta_inc(double a, double b, double x)
{
    double front;

    if (!(a > 0.0 && b > 0.0 && x >= 0.0 && x <= 1.0))
        return NAN;
    if (x == 0.0 || x == 1.0)
        return x;
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1.0) / (a + b + 2.0))
        return front * beta_fraction(a, b, x) / a;
    return 1.0 - front * beta_fraction(b, a, 1.0 - x) / b;
}

double special_beta_quantile(double a, double b, double p)
{
    double lo = 0.0, hi = 1.0;

    if (!(a > 0.0 && b > 0.0 && p >= 0.0 && p <= 1.0))
        return NAN;
    for (int i = 0; i < 1100 && hi - lo > 1e-15 * hi; i++) {
        double mid = 0.5 * (lo + hi);

        if (special_beta_inc(a, b, mid) < p)
            lo = mid;
        else
            hi = mid;
    }
    return 0.5 * (lo + hi);
}

double special_kolmogorov_sf(double x)
{
    double sum = 0.0;

    if (isnan(x))
        return NAN;
    if (x <= 0.0)
        return 1.0;
    if (x < 1.0) { /* the theta-transformed series converges fast for small x */
        for (int k = 1; k < 20; k += 2)
            sum += exp(-k * k * M_PI * M_PI / (8.0 * x * x));
        return CLAMP(1.0 - sqrt(2.0 * M_PI) / x * sum, 0.0, 1.0);
    }
    for (int k = 1; k < 20; k++)
        sum += (k % 2 ? 2.0 : -2.0) * exp(-2.0 * k * k * x * x);
    return CLAMP(sum, 0.0, 1.0);
}

double special_binomial_upper(double k, double n, double alpha)
{
    if (!(n > 0.0 && k >= 0.0 && k <= n && alpha > 0.0 && alpha < 1.0))
        return NAN;
    return k >= n ? 1.0 : special_beta_quantile(k + 1.0, n - k, 1.0 - alpha);
}

double special_binomial_lower(double k, double n, double alpha)
{
    if (!(n > 0.0 && k >= 0.0 && k <= n && alpha > 0.0 && alpha < 1.0))
        return NAN;
    return k <= 0.0 ? 0.0 : special_beta_quantile(k, n - k + 1.0, alpha);
}

double special_ln_choose(double n, double k)
{
    return k < 0.0 || k > n ? -INFINITY : lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0);
}

double special_log_add(double a, double b)
{
    double hi = MAX(a, b), lo = MIN(a, b);

    return isinf(hi) ? hi : hi + log1p(exp(lo - hi));
}

double special_log_sum_exp(const double *x, size_t n)
{
    double hi = -INFINITY, sum = 0.0;

    for (size_t i = 0; i < n; i++)
        hi = MAX(hi, x[i]);
    if (isinf(hi))
        return hi;
    for (size_t i = 0; i < n; i++)
        sum += exp(x[i] - hi);
    return hi + log(sum);
}
