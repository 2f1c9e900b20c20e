/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Confidence sequences: intervals that may be looked at after every row. With chance at least
 * 1 - alpha the truth lies in all of them at once. For showing; decisions are in gate.h.
 */
#pragma once

#include "base/base.h"

struct interval {
    double lo, hi;
};

/* Of a Bernoulli mean after k of n (k may be fractional: losses in [0,1]). [0,1] when n is 0.
 * The set of p against which the beta(1/2, 1/2) mixture has not yet made 1/alpha (Robbins 1970). */
struct interval confseq_bernoulli(double k, double n, double alpha);

/* Of p_b - p_a of two independent arms: each arm gets alpha/2. */
struct interval confseq_difference(double k_a, double n_a, double k_b, double n_b, double alpha);

/* Of the mean of d in [-1,1], from n rows of the given sum: (d + 1)/2 is a loss in [0,1]. */
struct interval confseq_signed(double sum, double n, double alpha);
