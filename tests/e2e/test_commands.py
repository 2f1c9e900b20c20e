# SPDX-License-Identifier: Apache-2.0
"""Commands that need no running control, or not the whole loop."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("WEIR_BIN", ROOT / "build/dev/weir"))
YAML = "version: 1\nproject: shop\ngateway: {listen: '@GATEWAY@'}\ncontrol: {listen: '@CONTROL@'}\n"


def weir(folder, *args, status=0):
    done = subprocess.run([BINARY, *args], cwd=folder, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == status, done
    return done


def test_plan_without_control(weir_project):
    project = weir_project(YAML, start=False)
    first = weir(project.folder, "plan")
    assert "+ project: shop" in first.stdout and "control does not run" in first.stderr
    assert "next: weir up" in first.stderr
    assert "start it with: weir up" in weir(project.folder, "apply", "--yes", status=3).stderr
    project.start()
    assert "control does not run" not in weir(project.folder, "plan").stderr
    project.stop()
    assert "no changes" in weir(project.folder, "plan").stderr
    text = (project.folder / "weir.yaml").read_text()
    (project.folder / "weir.yaml").write_text(text.replace("shop", "store"))
    plan = json.loads(weir(project.folder, "plan", "--json").stdout)
    assert [c["path"] for c in plan["changes"]] == ["project"]
    assert plan["offline"] is True and plan["notes"] == []
    assert weir(project.folder, "plan", "--detailed-exitcode", status=2).stdout
    (project.folder / "weir.yaml").write_text(text + "endponts: {}\n")
    assert "did you mean 'endpoints'" in weir(project.folder, "plan", status=2).stderr


@pytest.fixture
def lake(tmp_path):
    """Records of two endpoints; one is called by a number, which is a name all the same."""
    weir(tmp_path, "init")
    subprocess.run([BINARY.parent / "tests/unit/record/make_parquet", tmp_path / ".weir"], check=True)
    records = tmp_path / ".weir/lake/records"
    shutil.copytree(records / "endpoint=credit", records / "endpoint=012")
    return tmp_path


def test_records_of_all_endpoints(lake):
    sql = "SELECT endpoint, count(*) AS n FROM records GROUP BY 1 ORDER BY 1"
    rows = weir(lake, "records", "--json", "--sql", sql).stdout.splitlines()
    assert [json.loads(row) for row in rows] == [
        {"endpoint": "012", "n": 48},
        {"endpoint": "credit", "n": 48},
    ]
    newest = [json.loads(row) for row in weir(lake, "records", "--json", "--limit", "3").stdout.splitlines()]
    assert len(newest) == 3 and {row["endpoint"] for row in newest} <= {"012", "credit"}
    one = weir(lake, "records", "credit", "--json", "--limit", "1").stdout
    assert json.loads(one)["request_id"] == "id-47" and "endpoint" not in json.loads(one)
    assert "no records of 'nope'" in weir(lake, "records", "nope", status=1).stderr
    shutil.rmtree(lake / ".weir/lake")
    assert "there are no records yet" in weir(lake, "records", status=1).stderr
