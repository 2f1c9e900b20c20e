/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Special functions: the distributions that tests and intervals need. Pure; any thread. Relative
 * accuracy about 1e-12 unless said otherwise. Out of their domain they return NaN.
 */
#pragma once

#include "base/base.h"

double special_normal_cdf(double x);
double special_normal_sf(double x);       /* 1 - cdf without cancellation */
double special_normal_quantile(double p); /* p in [0,1]; 0 and 1 give -+inf */

double special_gamma_p(double a, double x); /* regularized lower incomplete gamma; a > 0, x >= 0 */
double special_gamma_q(double a, double x); /* upper */
double special_chi2_sf(double x, double df);
double special_chi2_quantile(double p, double df); /* p in [0,1) */

double special_beta_inc(double a, double b, double x);      /* regularized; a, b > 0 */
double special_beta_quantile(double a, double b, double p); /* the x at which it is p */

/* P(K > x) of the Kolmogorov distribution. Absolute accuracy 1e-15. */
double special_kolmogorov_sf(double x);

/* Clopper-Pearson bounds of a probability after k of n, each one-sided with miss chance alpha. */
double special_binomial_upper(double k, double n, double alpha);
double special_binomial_lower(double k, double n, double alpha);

double special_ln_choose(double n, double k);
double special_log_sum_exp(const double *x, size_t n); /* -inf for n = 0 */
double special_log_add(double a, double b);            /* ln(e^a + e^b) */
