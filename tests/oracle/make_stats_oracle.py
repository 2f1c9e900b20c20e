#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/oracle/data/stats.json: what NumPy, SciPy and scikit-learn say.

tests/unit/stats/test_oracle.c reads it and compares. Each case is {"f": function, "x": arguments,
"y": expected}. Run again only when a function is added; the figures are committed.
"""

import json
import pathlib

import numpy as np
from scipy import special, stats
from sklearn import metrics

rng = np.random.default_rng(20240229)
cases = []


def case(f, y, *x):
    cases.append({"f": f, "x": [np.asarray(v).tolist() for v in x], "y": np.asarray(y).tolist()})


for v in [-38.0, -8.5, -3.0, -0.7, 0.0, 0.3, 1.96, 5.0, 9.0]:
    case("normal_cdf", stats.norm.cdf(v), v)
    case("normal_sf", stats.norm.sf(v), v)
for p in [1e-300, 1e-12, 0.001, 0.02425, 0.3, 0.5, 0.77, 0.975, 1 - 1e-9]:
    case("normal_quantile", stats.norm.ppf(p), p)
for a in [0.05, 0.5, 1.0, 3.7, 40.0, 900.0, 20000.0]:
    for r in [0.01, 0.5, 0.97, 1.0, 1.04, 2.0, 6.0]:
        case("gamma_p", special.gammainc(a, a * r), a, a * r)
        case("gamma_q", special.gammaincc(a, a * r), a, a * r)
for df in [1, 2, 9, 29, 200]:
    for p in [0.01, 0.5, 0.95, 0.99, 0.999]:
        case("chi2_quantile", stats.chi2.ppf(p, df), p, df)
for a, b in [(0.5, 0.5), (1, 3), (2.5, 40), (300, 7), (4000, 5000), (1e-2, 8)]:
    for x in [1e-6, 0.01, 0.2, 0.444, 0.5, 0.9, 0.999]:
        case("beta_inc", special.betainc(a, b, x), a, b, x)
for x in [0.05, 0.2, 0.5, 0.8, 0.999, 1.0, 1.36, 2.0, 4.0]:
    case("kolmogorov_sf", special.kolmogorov(x), x)
for k, n in [(0, 10), (3, 10), (10, 10), (100, 1000), (7, 100000)]:
    for alpha in [0.05, 0.005]:
        case("binomial_upper", stats.beta.ppf(1 - alpha, k + 1, n - k) if k < n else 1.0, k, n, alpha)
        case("binomial_lower", stats.beta.ppf(alpha, k, n - k + 1) if k > 0 else 0.0, k, n, alpha)
for n, k in [(10, 3), (1000, 500), (5, 0)]:
    case("ln_choose", special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1), n, k)


def shares(c, add):
    c = np.asarray(c, float) + add
    return c / c.sum()


for scale, n in [(50, 10), (400, 10), (3000, 34), (60, 3), (100000, 32)]:
    base = rng.dirichlet(np.ones(n))
    a = rng.multinomial(scale, rng.dirichlet(40 * n * base + 0.05))
    b = rng.multinomial(scale * 5, base)
    p, q = shares(a, 0.5), shares(b, 0.5)
    case("psi", ((p - q) * np.log(p / q)).sum(), a, b)
    p, q = shares(shares(a, 0), 1e-9), shares(shares(b, 0), 1e-9)
    case("kl", stats.entropy(p, q), a, b)
    m = 0.5 * (shares(a, 0) + shares(b, 0))
    js = 0.5 * stats.entropy(shares(a, 0), m, base=2) + 0.5 * stats.entropy(shares(b, 0), m, base=2)
    case("js", np.sqrt(js), a, b)
    # KS and Wasserstein of samples that consist of the representatives themselves
    mids = np.sort(rng.normal(size=n))
    xa, xb = np.repeat(mids, a), np.repeat(mids, b)
    case("ks", stats.ks_2samp(xa, xb, method="asymp").statistic, a, b)
    case("wasserstein", stats.wasserstein_distance(xa, xb) / 1.7, a, b, mids, 1.7)
# chi-squared where no cell is rare, and where a known set of cells has to be pooled
a, b = [30, 45, 60, 15], [300, 400, 700, 160]
r = stats.chi2_contingency([a, b], correction=False)
case("chi2", [r.statistic, r.dof, r.pvalue], a, b)
r = stats.chi2_contingency([[30, 45, 60, 3 + 4 + 2], [300, 400, 700, 10 + 12 + 30]], correction=False)
case("chi2", [r.statistic, r.dof, r.pvalue], [30, 3, 45, 4, 60, 2], [300, 10, 400, 12, 700, 30])
for n, d in [(60, 0.11), (1000, 0.04), (100000, 0.004)]:
    e = np.sqrt(n * n / (n + n))
    case("ks_p", special.kolmogorov((e + 0.12 + 0.11 / e) * d), d, n, n)

for n, digits in [(40, 1), (500, 2), (500, 8)]:
    y = rng.integers(0, 2, n)
    s = np.round(np.clip(0.35 * y + rng.random(n) * 0.65, 0, 1), digits)
    case("roc_auc", metrics.roc_auc_score(y, s), s, y)
    case("pr_auc", metrics.average_precision_score(y, s), s, y)
    case("log_loss", metrics.log_loss(y, s), s, y)
    case("brier", metrics.brier_score_loss(y, s), s, y)
y, z = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
z = np.where(rng.random(300) < 0.6, y, z)
case("accuracy", metrics.accuracy_score(y, z), y, z)
case("balanced_accuracy", metrics.balanced_accuracy_score(y, z), y, z)
for i, name in enumerate(["precision_macro", "recall_macro", "f1_macro"]):
    case(name, metrics.precision_recall_fscore_support(y, z, average="macro", zero_division=0)[i], y, z)
for i, name in enumerate(["precision_2", "recall_2", "f1_2"]):
    case(name, metrics.precision_recall_fscore_support(y, z, zero_division=0)[i][2], y, z)
# noncentral hypergeometric likelihood ratio of one block: odds 2 against odds 1
for na, nb, e, k in [(100, 100, 10, 8), (900, 100, 30, 0), (50, 500, 60, 45), (20, 5, 24, 4)]:
    lo = max(0, e - na)
    p2 = stats.nchypergeom_fisher.pmf(k, na + nb, nb, e, 2.0)
    p1 = stats.hypergeom.pmf(k, na + nb, nb, e)
    case("twoarm_ln_lr_2", np.log(p2) - np.log(p1), na, e - k, nb, k)

out = pathlib.Path(__file__).parent / "data" / "stats.json"
with out.open("w") as f:
    f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")
print(f"{len(cases)} cases -> {out}")
