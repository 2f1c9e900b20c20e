# SPDX-License-Identifier: Apache-2.0
"""New versions that fail on some inputs: what callers see of it, and how fast it ends."""
import time

import models
import numpy as np
import pytest
import requests
from loop import QUIET, Traffic

LONG = QUIET.replace("hold: 500ms", "hold: 1h")


def failing_rollout(world, yaml, drops=False):
    """A champion that bears every input, and a version that does not."""
    project, control = world(yaml, champion=False)
    control.begin_with(project.write("fine.onnx", models.brittle(fails_above=1e6, drops=drops)))
    return project, control, control.register(project.write("brittle.onnx", models.brittle(drops=drops)))


def test_canary_that_fails_goes_back(world):
    project, control, version = failing_rollout(world, LONG)
    with Traffic(project.gateway, labels=False) as traffic:
        traffic.poison = 0.3
        time.sleep(1)
        assert traffic.failed == 0 and traffic.sent > 10
        before, sent = control.last(), traffic.sent
        control.post("/endpoints/e/promote", {"version": version, "reason": "let us see"})
        back = control.wait_fact("rollout.rolled_back", 30, before)
        seen, during = time.time(), traffic.sent - sent
        time.sleep(1.6)
        assert traffic.last_failed < seen + 1.0 and traffic.last_seen[str(version)] < seen + 1.0
        sent, failed = traffic.sent, traffic.failed
        time.sleep(0.5)
        assert traffic.sent > sent + 5 and traffic.failed == failed, "callers still fail"
    assert "error_r" in back["reason"], back
    judged = [f for f in control.facts("rollout.judged", before) if f["seq"] < back["seq"]][-1]
    assert judged["data"]["verdict"] == "FAIL" and judged["correlation"] == back["correlation"]
    # Half of the traffic, three in ten of that, and four standard deviations of luck.
    assert 0 < traffic.failed < 0.15 * during + 4 * np.sqrt(0.13 * during) + 10
    assert control.champion() == 1 and "rollout.promoted" not in control.types(before)


def test_a_fallback_does_not_hide_a_bad_canary(world):
    """No caller sees the failures of the new version, and it is taken back for them all the same."""
    yaml = LONG.replace("rollout: fast}", "rollout: fast, fallback: {}}")
    project, control, version = failing_rollout(world, yaml)
    with Traffic(project.gateway, labels=False) as traffic:
        traffic.poison = 0.3
        time.sleep(0.5)
        before = control.last()
        control.post("/endpoints/e/promote", {"version": version, "reason": "let us see"})
        back = control.wait_fact("rollout.rolled_back", 30, before)
        time.sleep(0.5)
    assert "error_r" in back["reason"], back
    judged = [f for f in control.facts("rollout.judged", before) if f["seq"] < back["seq"]][-1]["data"]
    assert judged["challenger"]["failed"] > 0 == judged["champion"]["failed"], judged
    assert traffic.failed == 0 and traffic.versions[str(version)] > 0 and traffic.sent > 30
    assert control.champion() == 1
    metrics = requests.get(f"http://{project.gateway}/metrics", timeout=10).text
    caught = f'weir_fallback_total{{endpoint="e",from="{version}",to="1",reason="failed"}}'
    assert caught in metrics, metrics


@pytest.mark.parametrize("drops", [False, True], ids=["fails", "drops-rows"])
def test_shadow_that_fails_is_seen_by_nobody(world, drops):
    yaml = LONG.replace("    steps:\n", "    shadow: {for: 1h, min_rows: 100}\n    steps:\n")
    project, control, version = failing_rollout(world, yaml, drops)
    with Traffic(project.gateway, labels=False) as traffic:
        traffic.poison = 0.3
        time.sleep(1)
        before, sent = control.last(), traffic.sent
        control.post("/endpoints/e/promote", {"version": version, "reason": "let us see"})
        back = control.wait_fact("rollout.rolled_back", 30, before)
        alone, beside = traffic.seconds[:sent], traffic.seconds[sent:]
        judged = control.facts("rollout.judged", before)[-1]["data"]
        assert traffic.failed == 0 and set(traffic.versions) == {"1"}
    assert "error_r" in back["reason"], back
    assert np.median(beside) < 3 * np.median(alone) + 0.005, (np.median(alone), np.median(beside))
    assert judged["state"] == "shadow" and judged["challenger"]["failed"] > 0 == judged["champion"]["failed"]
    assert control.champion() == 1
