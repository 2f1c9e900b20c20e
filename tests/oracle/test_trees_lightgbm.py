# SPDX-License-Identifier: Apache-2.0
"""The tree engine against LightGBM itself, on models that it trained and saved."""

import lightgbm as lgb
import numpy as np
import pytest

OBJECTIVES = [
    "regression",
    "regression_sqrt",
    "regression_l1",
    "huber",
    "fair",
    "poisson",
    "quantile",
    "mape",
    "gamma",
    "tweedie",
    "binary",
    "multiclass",
    "multiclassova",
    "cross_entropy",
    "cross_entropy_lambda",
    "lambdarank",
    "rank_xendcg",
]
ROWS, FEATURES = 500, 8


def labels_for(objective, s, classes, rng):
    if objective.startswith("multiclass"):
        return (np.abs(s) * 2).astype(int) % classes
    if objective in ("binary", "lambdarank", "rank_xendcg"):
        return (s > 0.3).astype(int)
    if objective.startswith("cross_entropy"):
        return 1 / (1 + np.exp(-s))
    if objective == "poisson":
        return rng.poisson(np.exp(np.clip(s, -2, 2)))
    if objective in ("gamma", "tweedie", "mape"):
        return np.exp(np.clip(s, -2, 2)) + 0.01
    return 10 * s + 3


def thresholds_of(booster, feature):
    frame = booster.trees_to_dataframe()
    if "decision_type" not in frame:
        return np.array([])
    splits = frame[(frame.split_feature == f"Column_{feature}") & (frame.decision_type == "<=")]
    return splits.threshold.astype(float).to_numpy()


def probes(rng, x, booster, categories, wide):
    """Rows that meet thresholds, are next to them, huge, tiny, infinite or missing."""
    p = np.repeat(x, 2, axis=0)[:500].astype(float)
    for column in range(FEATURES):
        if column in categories:
            odd = [0, 1, 2, 35, 70, 1e6, -1, -0.5, 1.5, 3e9, np.nan]
            where = rng.random(len(p)) < 0.3
        else:
            t = thresholds_of(booster, column)
            if len(t):
                if not wide:
                    with np.errstate(over="ignore"):
                        t = t.astype(np.float32)
                t = np.concatenate(
                    [t, np.nextafter(t, t.dtype.type(np.inf)), np.nextafter(t, t.dtype.type(-np.inf))]
                )
                where = rng.random(len(p)) < 0.5
                p[where, column] = rng.choice(t.astype(float), where.sum())
            odd = [1e-45, -1e-45, 1e-36, -1e-36, 3e38, -3e38, 0.0, -0.0, np.nan, np.inf, -np.inf]
            where = rng.random(len(p)) < 0.1
        p[where, column] = rng.choice(odd, where.sum())
    return p if wide else p.astype(np.float32).astype(float)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(6))
def test_same_predictions(trees, tmp_path, objective, seed):
    rng = np.random.default_rng([seed, OBJECTIVES.index(objective)])
    classes = int(rng.integers(3, 6))
    categories = {6: 5, 7: 80} if rng.random() < 0.4 else {}
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32).astype(float)
    if rng.random() < 0.5:
        x = np.round(x, 1).astype(np.float32).astype(float)
    x[:, 3] = np.where(rng.random(ROWS) < 0.5, 0, x[:, 3])
    if rng.random() < 0.25:
        x[:, 2] = 1.6e9 + np.arange(ROWS) / 7
    for column, count in categories.items():
        x[:, column] = rng.integers(0, count, ROWS)
    if rng.random() < 0.5:
        x[rng.random(x.shape) < 0.2] = np.nan
    s = np.nansum(x[:, [0, 1, 3]] * [1, -0.5, 0.4], axis=1) + rng.normal(size=ROWS) * 0.2
    params = {
        "objective": objective.removesuffix("_sqrt"),
        "verbosity": -1,
        "num_threads": 1,
        "seed": seed,
        "num_leaves": int(rng.choice([2, 4, 31, 120, 300])),
        "learning_rate": float(rng.choice([0.05, 0.3])),
        "min_data_in_leaf": int(rng.choice([1, 5, 20])),
        "min_data_per_group": 2,
        "cat_smooth": 1.0,
        "max_bin": int(rng.choice([15, 255, 1023])),
        "deterministic": True,
        "zero_as_missing": bool(rng.random() < 0.2),
        "use_missing": bool(rng.random() < 0.85),
        "reg_sqrt": objective.endswith("_sqrt"),
        "sigmoid": 0.7,
    }
    if rng.random() < 0.2:
        params.update(boosting="dart")
    elif rng.random() < 0.25:
        params.update(boosting="rf", bagging_freq=1, bagging_fraction=0.7)
    if objective.startswith("multiclass"):
        params["num_class"] = classes
    data = lgb.Dataset(
        x,
        label=labels_for(objective, s, classes, rng),
        categorical_feature=list(categories),
        params={"verbosity": -1},
        group=[100] * 5 if "rank" in objective else None,
    )
    booster = lgb.train(params, data, int(rng.choice([1, 5, 40])))
    booster.save_model(tmp_path / "model.txt", num_iteration=-1)

    about = trees.ask(tmp_path / "model.txt", x[:1], "walk").about
    p = probes(rng, x, booster, categories, about["wide"])
    own = trees.score(tmp_path / "model.txt", p)
    theirs = lgb.Booster(model_file=tmp_path / "model.txt").predict(p, num_threads=1)
    close = {"rtol": 1e-6, "atol": 0}
    if objective == "binary":
        np.testing.assert_allclose(own.scores[:, 1], theirs, **close)
        np.testing.assert_array_equal(own.classes, theirs > 0.5)
    elif objective.startswith("multiclass"):
        np.testing.assert_allclose(own.scores, theirs, **close)
        np.testing.assert_array_equal(own.classes, theirs.argmax(1))
    else:
        np.testing.assert_allclose(own.scores[:, 0], theirs, **close)


def test_doubles_stay_apart(trees, tmp_path):
    """Values that are one as floats: the model asks for FP64."""
    x = (1.6e9 + np.arange(600) / 64).reshape(-1, 1)
    y = np.arange(600) % 2
    booster = lgb.train(
        {
            "objective": "binary",
            "verbosity": -1,
            "min_data_in_leaf": 1,
            "num_leaves": 200,
            "max_bin": 1000,
            "min_data_in_bin": 1,
        },
        lgb.Dataset(x, label=y),
        10,
    )
    booster.save_model(tmp_path / "model.txt")
    own = trees.score(tmp_path / "model.txt", x)
    assert own.about["wide"]
    np.testing.assert_allclose(own.scores[:, 1], booster.predict(x), rtol=1e-6)


def test_linear_leaves_are_refused(trees, tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 4))
    booster = lgb.train(
        {"objective": "regression", "linear_tree": True, "verbosity": -1}, lgb.Dataset(x, label=x[:, 0]), 3
    )
    booster.save_model(tmp_path / "model.txt")
    with pytest.raises(Exception, match="linear_tree"):
        trees.ask(tmp_path / "model.txt", x, "walk")
