# SPDX-License-Identifier: Apache-2.0
"""The date of the machine is put back and forward while the loop runs (tests/fault/clock_step.c)."""
import struct
import time

import pyarrow.dataset
import pytest
import weir
from loop import YAML, Control, Traffic, table

HOUR = 3600


class Clock:
    def __init__(self, folder):
        self.path = folder / "step"
        self.path.write_bytes(bytes(8))
        library = weir.binary().parent / "tests/fault/libclock_step.so"
        if not library.exists():
            pytest.skip(f"{library} is not built")
        self.env = {"LD_PRELOAD": str(library), "WEIR_CLOCK_STEP": str(self.path)}

    def step(self, seconds):
        """Off by so many seconds from the true date, at once in all processes."""
        with open(self.path, "r+b") as f:
            f.write(struct.pack("q", seconds * 10**9))


def test_loop_while_the_date_goes_back(weir_project, tmp_path):
    clock = Clock(tmp_path)
    project = weir_project(YAML, {"data/past.csv": table()}, start=False)
    project.start(clock.env, gateway_path="/healthz")
    control = Control(project)
    control.retrain("the first champion")
    control.wait_fact("retrain.started", 20)
    clock.step(-2 * HOUR)  # in the middle of the first run: its timers must not wait two hours
    control.wait_fact("retrain.finished", 60)
    project.wait(lambda: control.get("/status")["plan_live"], 20, "serving the champion")
    with Traffic(project.gateway) as traffic:
        time.sleep(3)
        clock.step(-26 * HOUR)  # a day back, under traffic
        time.sleep(3)
        assert "drift.detected" not in control.types(), control.story()
        traffic.shifted = True
        control.wait_fact("drift.detected", 18)
        control.wait_fact("rollout.step.advanced", 90)
        clock.step(-30 * HOUR)  # in the middle of a step that holds
        version = str(control.wait_fact("rollout.promoted", 30)["data"]["version"])
        clock.step(0)
        control.wait_fact("rollout.baked", 30)
        assert "rollout.rolled_back" not in control.types(), control.story()
        project.wait(lambda: traffic.last_seen.get(version, 0) > time.time() - 1, 10, "answering by it")
        time.sleep(2)
    assert traffic.failed == 0 and control.champion() == int(version)
    assert "event=clock.stepped" in project.log_path.read_text()
    facts = control.facts()
    assert [f["seq"] for f in facts] == list(range(1, len(facts) + 1))
    times = [f["at_ns"] for f in facts]
    assert times == sorted(times)
    project.run("journal", "verify")
    assert project.stop() == 0
    segments = list((project.folder / ".weir/records").rglob("*.seg"))
    assert segments and not list((project.folder / ".weir/records/damaged").glob("*"))
    exported = pyarrow.dataset.dataset(project.folder / ".weir/lake/records", format="parquet",
                                       partitioning="hive")
    assert exported.count_rows() > 0
