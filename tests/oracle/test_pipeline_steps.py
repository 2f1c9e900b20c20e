# SPDX-License-Identifier: Apache-2.0
"""Steps of pipelines held against scikit-learn: parameters computed from the same rows, and the rows
that come out, for each kind of scaler, encoder and filler, with missing and unseen values among them."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, RobustScaler, StandardScaler

ROOT = Path(__file__).resolve().parents[2]
WEIR = Path(os.environ.get("WEIR_BIN", ROOT / "build/dev/weir"))
TYPES = {"x": "double", "y": "double", "t": "string", "u": "string"}


def table(seed, n=500):
    rng = np.random.default_rng(seed)
    t = pd.DataFrame({"x": rng.normal(1e3, 7, n), "y": rng.lognormal(0, 2, n),
                      "t": rng.choice(["a", "b", "ccc", "ü", "d,\"e\""], n), "u": rng.choice(["p", "q"], n)})
    t.loc[rng.random(n) < 0.15, "y"] = np.nan
    return t


@pytest.fixture
def transform(tmp_path):
    """run(steps, fit, rows, ending) -> what comes out of `rows`, the parameters being those of `fit`."""
    def weir(document, rows, ending):
        (tmp_path / "p.json").write_text(json.dumps(document))
        rows.to_csv(tmp_path / "in.csv", index=False)
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}{ending}"
        done = subprocess.run([WEIR, "transform", "p.json", "in.csv", out, "--json"], cwd=tmp_path,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["pipeline"], out

    def run(steps, fit, rows, ending=".csv"):
        columns = [{"name": c, "type": TYPES[c]} for c in fit.columns]
        fitted, _ = weir({"format": 1, "columns": columns, "steps": steps}, fit, ".csv")
        out = weir(fitted, rows, ending)[1]
        if ending == ".parquet":
            return pd.read_parquet(out)
        return pd.read_json(out, lines=True, precise_float=True) if ending == ".jsonl" else \
            pd.read_csv(out)
    return run


@pytest.mark.parametrize("step, scaler", [("standard", StandardScaler), ("min_max", MinMaxScaler),
                                          ("robust", RobustScaler)])
@pytest.mark.parametrize("seed", [1, 2])
def test_scalers(transform, step, scaler, seed):
    fit, new = table(seed)[["x", "y"]], table(seed + 10)[["x", "y"]]
    got = transform([{"step": step, "columns": ["x", "y"]}], fit, new)
    want = scaler().fit(fit.to_numpy()).transform(new.to_numpy())
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_fillers(transform, strategy):
    fit, new = table(3)[["y"]].round(0), table(4)[["y"]]
    got = transform([{"step": "impute", "columns": ["y"], "with": strategy}], fit, new)
    want = SimpleImputer(strategy=strategy).fit(fit).transform(new)
    np.testing.assert_allclose(got, want, rtol=1e-14)


def with_unseen(seed):
    t = table(seed)[["t", "u"]]
    t.loc[:5, "t"] = "never seen"
    return t


def test_one_hot(transform):
    fit, new = table(5)[["t", "u"]], with_unseen(6)
    got = transform([{"step": "one_hot", "columns": ["t", "u"], "unseen": "zeros"}], fit, new)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(fit)
    np.testing.assert_array_equal(got, encoder.transform(new))
    assert list(got.columns) == list(encoder.get_feature_names_out())


def test_ordinal(transform):
    fit, new = table(7)[["t", "u"]], with_unseen(8)
    got = transform([{"step": "ordinal", "columns": ["t", "u"], "unseen": "code", "code": -1}], fit, new)
    want = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(fit).transform(new)
    np.testing.assert_array_equal(got, want)


def test_times_as_pandas_has_them(transform):
    seconds = np.random.default_rng(9).integers(-3 * 10**9, 6 * 10**9, 2000)
    moments = pd.Series(pd.to_datetime(seconds, unit="s"))
    parts = ["year", "quarter", "month", "day", "day_of_year", "weekday", "hour", "minute", "second"]
    rows = pd.DataFrame({"t": moments.dt.strftime("%Y-%m-%dT%H:%M:%SZ")})
    got = transform([{"step": "time", "columns": ["t"], "parts": parts}], rows, rows)
    names = {"weekday": "day_of_week"}
    for part in parts:
        np.testing.assert_array_equal(got[f"t_{part}"], getattr(moments.dt, names.get(part, part)))


def test_every_format_has_the_same_bits(transform):
    fit, new = table(1)[["x", "y"]], table(11)[["x", "y"]]
    steps = [{"step": "standard", "columns": ["x"]}, {"step": "log1p", "columns": ["y"]}]
    a, b, c = (transform(steps, fit, new, ending) for ending in (".csv", ".parquet", ".jsonl"))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c.astype(float))
