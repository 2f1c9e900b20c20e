# SPDX-License-Identifier: Apache-2.0
"""The tree engine against XGBoost itself, on models that it trained and saved."""

import numpy as np
import pytest
import xgboost as xgb

OBJECTIVES = [
    "binary:logistic",
    "binary:logitraw",
    "binary:hinge",
    "multi:softprob",
    "multi:softmax",
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:logistic",
    "reg:pseudohubererror",
    "reg:absoluteerror",
    "reg:quantileerror",
    "reg:gamma",
    "reg:tweedie",
    "count:poisson",
    "rank:pairwise",
    "rank:ndcg",
    "survival:cox",
    "survival:aft",
]
ROWS, FEATURES = 400, 9


def labels_for(objective, s, classes, rng):
    if objective.startswith("multi:"):
        return (np.abs(s) * 2).astype(int) % classes
    if objective.startswith("binary:"):
        return (s > 0.3).astype(int)
    if objective in ("reg:logistic",):
        return 1 / (1 + np.exp(-s))
    if objective == "count:poisson":
        return rng.poisson(np.exp(np.clip(s, -2, 2)))
    if objective in ("reg:gamma", "reg:tweedie", "survival:cox", "survival:aft", "reg:squaredlogerror"):
        return np.exp(np.clip(s, -2, 2)) + 0.01
    if objective.startswith("rank:"):
        return (s > 0).astype(int)
    return 10 * s + 100


def rows_for(rng, missing, categories):
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    if rng.random() < 0.5:
        x = np.round(x, 1)
    for column, count in categories.items():
        x[:, column] = rng.integers(0, count, ROWS)
    if missing:
        x[rng.random(x.shape) < 0.2] = np.nan
    return x


def probes(rng, x, booster, categories):
    """Rows that meet thresholds exactly, are next to them, huge, tiny, or missing."""
    frame = booster.trees_to_dataframe()
    p = np.repeat(x, 2, axis=0)[:500].copy()
    splits = frame[frame.Feature != "Leaf"]
    for feature, values in splits.groupby("Feature")["Split"]:
        column, t = int(feature[1:]), values.dropna().to_numpy(np.float32)
        if column in categories or not len(t):
            continue
        t = np.concatenate([t, np.nextafter(t, np.float32(np.inf)), np.nextafter(t, np.float32(-np.inf))])
        where = rng.random(len(p)) < 0.5
        p[where, column] = rng.choice(t, where.sum())
    odd = np.float32([1e-45, -1e-45, 1e-38, 3e38, -3e38, 0.0, -0.0, np.nan])
    for column in range(p.shape[1]):
        if column not in categories:
            where = rng.random(len(p)) < 0.05
            p[where, column] = rng.choice(odd, where.sum())
        else:
            where = rng.random(len(p)) < 0.1
            p[where, column] = rng.choice(np.float32([0, 1, 2, 3, np.nan]), where.sum())
    return p


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(6))
def test_same_predictions(trees, tmp_path, objective, seed):
    rng = np.random.default_rng([seed, OBJECTIVES.index(objective)])
    missing, classes = rng.random() < 0.5, int(rng.integers(2, 6))
    categories = {7: 5, 8: 40} if rng.random() < 0.3 else {}
    x = rows_for(rng, missing, categories)
    s = np.nansum(x[:, :4] * [1, -0.5, 0.3, 0.1], axis=1) + rng.normal(size=ROWS) * 0.2
    y = labels_for(objective, s, classes, rng)
    params = {
        "objective": objective,
        "verbosity": 0,
        "nthread": 1,
        "seed": seed,
        "max_depth": int(rng.choice([0, 1, 2, 3, 6, 8, 9, 12])),
        "eta": float(rng.choice([0.05, 0.3, 1.0])),
        "min_child_weight": float(rng.choice([0, 1, 5])),
        "tree_method": "hist",
    }
    if params["max_depth"] == 0:
        params.update(grow_policy="lossguide", max_leaves=int(rng.choice([2, 7, 31, 300])))
    if rng.random() < 0.3:
        params.update(booster="dart", rate_drop=0.3, normalize_type=str(rng.choice(["tree", "forest"])))
    elif rng.random() < 0.3:
        params.update(num_parallel_tree=4, subsample=0.7, colsample_bynode=0.7)
    if objective.startswith("multi:"):
        params["num_class"] = classes
    if rng.random() < 0.3:
        params["base_score"] = 0.4 if objective != "reg:squarederror" else 90.0
    if objective == "reg:quantileerror":
        params["quantile_alpha"] = 0.7
    types = ["c" if i in categories else "q" for i in range(FEATURES)]
    data = xgb.DMatrix(
        x, label=y, feature_types=types if categories else None, enable_categorical=bool(categories)
    )
    if objective.startswith("rank:"):
        data.set_group([100] * 4)
    if objective == "survival:aft":
        data.set_float_info("label_lower_bound", y)
        data.set_float_info("label_upper_bound", y * 1.5)
    booster = xgb.train(params, data, int(rng.choice([1, 5, 40])))
    model = tmp_path / ("model.json" if rng.random() < 0.5 else "model.ubj")
    booster.save_model(model)

    p = probes(rng, x, booster, categories)
    own = trees.score(model, p)
    matrix = xgb.DMatrix(p, feature_types=types if categories else None, enable_categorical=bool(categories))
    theirs = booster.predict(matrix)
    compare(objective, own, theirs, booster, matrix)


def compare(objective, own, theirs, booster, matrix):
    margin = booster.predict(matrix, output_margin=True)
    if objective == "multi:softmax":
        np.testing.assert_array_equal(own.classes, theirs.astype(int))
    elif objective == "multi:softprob":
        np.testing.assert_allclose(own.scores, theirs, rtol=1e-6, atol=0)
        np.testing.assert_array_equal(own.classes, margin.argmax(1))
    elif objective.startswith("binary:"):
        np.testing.assert_allclose(own.scores[:, 1], theirs, rtol=1e-6, atol=0)
        np.testing.assert_array_equal(own.classes, margin > 0)
    else:
        np.testing.assert_allclose(own.scores[:, 0], theirs, rtol=1e-6, atol=0)


def test_several_targets(trees, tmp_path):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = np.stack([x[:, 0], x[:, 1] * 3, x[:, 0] - x[:, 2]], axis=1)
    booster = xgb.train({"objective": "reg:squarederror", "verbosity": 0}, xgb.DMatrix(x, label=y), 20)
    booster.save_model(tmp_path / "model.json")
    own = trees.score(tmp_path / "model.json", x)
    np.testing.assert_allclose(own.scores, booster.predict(xgb.DMatrix(x)), rtol=1e-6, atol=0)
