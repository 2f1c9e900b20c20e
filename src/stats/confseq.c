/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For a fixed p the wealth of the mixture bet after k successes in n,
 *
 *     W(p) = B(k + 1/2, n - k + 1/2) / B(1/2, 1/2) / (p^k (1-p)^(n-k)),
 *
 * is a martingale of mean 1 if p is the truth, so by Ville the set {p: W(p) < 1/alpha} holds the
 * truth at all times with chance 1 - alpha. ln W is convex in p with its minimum at k/n: the set is
 * an interval whose ends are found by bisection. Losses between 0 and 1 with mean p only make it
 * safer: each bet's factor (q/p)^x ((1-q)/(1-p))^(1-x) is convex in x, so its mean is at most that
 * of a 0/1 loss, which is 1.
 */
#include "stats/confseq.h"

#include <math.h>

static double ln_beta(double a, double b)
{
    return lgamma(a) + lgamma(b) - lgamma(a + b);
}

static double ln_wealth(double k, double n, double p)
{
    double likelihood = 0.0;

    likelihood += k > 0.0 ? k * log(p) : 0.0;
    likelihood += n - k > 0.0 ? (n - k) * log1p(-p) : 0.0;
    return ln_beta(k + 0.5, n - k + 0.5) - log(M_PI) - likelihood;
}

/* Between `in`, which belongs to the set, and `out`, which is taken not to. */
static double edge(double k, double n, double limit, double in, double out)
{
    for (int i = 0; i < 100; i++) {
        double mid = 0.5 * (in + out);

        if (ln_wealth(k, n, mid) < limit)
            in = mid;
        else
            out = mid;
    }
    return out;
}

struct interval confseq_bernoulli(double k, double n, double alpha)
{
    double limit = -log(alpha), p = k / n;

    if (!(n > 0.0))
        return (struct interval){0.0, 1.0};
    return (struct interval){k > 0.0 ? edge(k, n, limit, p, 0.0) : 0.0,
                             k < n ? edge(k, n, limit, p, 1.0) : 1.0};
}

struct interval confseq_difference(double k_a, double n_a, double k_b, double n_b, double alpha)
{
    struct interval a = confseq_bernoulli(k_a, n_a, 0.5 * alpha);
    struct interval b = confseq_bernoulli(k_b, n_b, 0.5 * alpha);

    return (struct interval){b.lo - a.hi, b.hi - a.lo};
}

struct interval confseq_signed(double sum, double n, double alpha)
{
    struct interval i = confseq_bernoulli(0.5 * (sum + n), n, alpha);

    return (struct interval){2.0 * i.lo - 1.0, 2.0 * i.hi - 1.0};
}
