# SPDX-License-Identifier: Apache-2.0
"""What the exporter writes is plain Parquet: pandas and pyarrow read it as a Hive-partitioned set."""
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ["WEIR_BIN"]).parent if "WEIR_BIN" in os.environ else ROOT / "build/dev"


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    program = BUILD / "tests/unit/record/make_parquet"
    if not program.is_file():
        pytest.fail(f"{program} is missing: run scripts/build dev", pytrace=False)
    folder = tmp_path_factory.mktemp("lake")
    subprocess.run([program, folder], check=True)
    return folder / "lake"


def test_pandas_reads_records(lake):
    table = pd.read_parquet(lake / "records").sort_values("ts", ignore_index=True)
    n = np.arange(48)
    assert list(table.request_id) == [f"id-{i}" for i in n]
    assert (table.ts == pd.Timestamp("2026-01-02") + pd.to_timedelta(n, unit="h")).all()
    assert set(table.endpoint.astype(str)) == {"credit"}
    assert list(table.dt.astype(str)) == ["2026-01-02"] * 24 + ["2026-01-03"] * 24
    assert set(table.model_version) == {"1"}
    assert table.age.dtype == np.float32
    assert list(table.age.isna()) == [i % 7 == 0 for i in n]
    np.testing.assert_array_equal(table.income, (n * 0.5).astype(np.float32))
    assert list(table.city.isna()) == [i % 5 == 0 for i in n]
    assert set(table.city.dropna()) == {"Zürich"}
    np.testing.assert_array_equal(table.visits, n)
    np.testing.assert_allclose(table.prediction_score, np.where(n % 2, 0.9, 0.1))
    assert (table.latency_us == n).all() and (table.status == 200).all() and not table.shadow.any()


def test_a_partition_is_a_folder(lake):
    day = pd.read_parquet(lake / "records", filters=[("dt", "==", "2026-01-03")])
    assert len(day) == 24
    files = sorted(p.relative_to(lake).parts[:3] for p in lake.glob("records/*/*/*.parquet"))
    assert files == [("records", "endpoint=credit", f"dt=2026-01-0{d}") for d in (2, 3)]
    assert not list(lake.rglob(".*"))


def test_labels_join_by_request(lake):
    labels = ds.dataset(lake / "feedback", partitioning="hive").to_table().to_pandas()
    records = pd.read_parquet(lake / "records")
    joined = records.merge(labels, on=["request_id", "row"], suffixes=("", "_label"))
    assert len(labels) == len(joined) == 10
    assert ((joined.prediction_score >= 0.5) == (joined.label_number == 1)).all()
